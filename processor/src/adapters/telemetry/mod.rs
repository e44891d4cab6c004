//! What a running processor tells of itself: logs as JSON lines, metrics and health over HTTP.
//!
//! Comes in: [`WorkerEvent`](crate::worker::WorkerEvent)s. Goes out: log lines, [`Metrics`] in the
//! OpenMetrics text format, [`Health`].
//! Never here: anything that a worker waits for. A request for metrics only reads.

mod dead_letter_log;
mod health;
pub mod logs;
mod metrics;
mod observer;
pub mod server;

pub use health::{Health, WorkerState};
pub use metrics::Metrics;
pub use observer::Telemetry;
