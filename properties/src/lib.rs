//! What must be true of a run, judged from the topics alone.
//!
//! Comes in: a [`history::History`]. Goes out: verdicts, one a property.
//! Never here: anything that looks inside the processor, or shares its window, watermark or commit
//! code.

pub mod history;
