//! The adapters that production runs on: the traits of [`crate::io`] over real systems. Each is a
//! cargo feature, and simulations leave all of them out.
//!
//! Comes in: the checked configuration. Goes out: [`crate::worker::Parts`].
//! Never here: what to do with an error (the worker decides); anything that a simulation runs.

#[cfg(any(feature = "cli", feature = "kafka"))]
pub mod clock;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "rocksdb")]
pub mod local_state;
#[cfg(feature = "objects")]
pub mod objects;
#[cfg(feature = "rocksdb")]
pub mod rocks;
#[cfg(feature = "telemetry")]
pub mod telemetry;
