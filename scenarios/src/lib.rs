//! What happens: scenarios as data, and what plays them.
//!
//! What lives here: the catalog of scenarios, their resolution into plans, the generator of storms,
//! the reader of real input, the runner of one seed, the campaign over many, crashes at every step, the
//! audit of a real cluster, and the binary `tickproof`.
//! Comes in: scenario files, plan files, input files. Goes out: reports.
//! Never here: what a cluster does (`sim`), what must be true of a run (`properties`), how a table
//! looks (`reports`).

pub mod audit;
pub mod bars;
pub mod bugs;
pub mod campaign;
pub mod catalog;
pub mod command;
pub mod crash_points;
pub mod generator;
mod grants;
pub mod input;
pub mod jobs;
pub mod json_number;
pub mod narration;
pub mod out_files;
pub mod page;
pub mod plan_file;
pub mod runner;
pub mod scenario;
pub mod shrink;
pub mod story;
mod truth;
