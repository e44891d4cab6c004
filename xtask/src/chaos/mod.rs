//! Chaos on real processes: processors and brokers are killed, held and restarted, and ends of
//! transactions are delayed and repeated, while a load runs. Then everything must be there exactly once.
//!
//! Comes in: a seed. Goes out: a line a round, and whether everything held: each fault was recovered
//! from, and `tickproof audit` finds nothing. Every choice depends on the seed and the round's number
//! only (`fault.rs`), so that a round can be tried again; when something happens is up to the machine.
//! Never here: anything that the processors know of.

#![allow(
    clippy::disallowed_methods,
    reason = "real processes, real time and threads of the proxy; nothing here is simulated"
)]

mod batch;
mod cluster_view;
pub mod command;
mod draw;
mod fault;
mod fleet;
mod load;
mod logs;
mod proxy;
mod report;
mod rounds;
mod stage;
mod wire;
