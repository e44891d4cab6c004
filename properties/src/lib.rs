//! What must be true of a run, judged from the topics alone.
//!
//! Comes in: a [`history::History`], or topics that are too long for memory, record by record.
//! Goes out: [`Verdicts`], one verdict a property.
//! Never here: anything that looks inside the processor, or shares its window, watermark or commit
//! code.
//!
//! The [`oracle`] recomputes everything from the input log as a batch; [`evidence`] reads what the
//! outputs and commit records say of themselves; each checker compares the two for one property, in
//! a file that bears its name. [`judge::Judge`] takes one partition after the other, and leads each
//! of its records, windows and outputs past the checkers.

pub mod case;
pub mod causality;
mod code;
pub mod conservation;
pub mod decimal;
pub mod determinism;
pub mod evidence;
pub mod exactly_once_out;
pub mod fencing;
pub mod history;
pub mod judge;
pub mod liveness;
pub mod moment;
pub mod oracle;
pub mod order;
pub mod spill;
pub mod verdict;
pub mod window_correctness;

#[cfg(test)]
mod truth;

pub use judge::judge;
pub use verdict::{Findings, Property, Verdict, Verdicts, Violation};
