//! The product: a stream processor for market ticks with exactly-once results.
//!
//! What lives here: the pure core (what one partition does with one record), the I/O traits, and
//! the worker that drives the core over the traits; production adapters come as cargo features.
//! Comes in: records of an input topic and one configuration file. Goes out: window results, dead
//! letters, commit records and checkpoints.
//! Never here: anything that knows of a simulator, and any clock, randomness or hash order that
//! does not come through [`io`].

#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "production adapters: real time, real threads, a real operating system"
)]
pub mod adapters;
pub mod checkpoints;
pub mod config;
pub mod core;
pub mod io;
pub mod state;
pub mod units;
pub mod worker;
