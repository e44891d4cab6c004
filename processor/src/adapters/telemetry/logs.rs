//! Logs: one JSON object a line, on standard error.
//!
//! Each line has `timestamp` (UTC), `level`, `target` and `message`; lines of a worker have its
//! `span` (`worker`, `incarnation`) and, where one is concerned, `partition`, `offset`, `term` and
//! `correlation_id` as fields of their own.

use crate::config::LogLevel;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Writes all further logs of this process to standard error. Once in a process.
///
/// # Errors
/// When logs go somewhere already.
pub fn init(level: LogLevel) -> Result<(), TryInitError> {
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(filter(level))
        .with(lines)
        .try_init()
}

/// What the libraries below say is mostly about themselves: they are a level quieter.
fn filter(level: LogLevel) -> Targets {
    let (own, libraries) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    Targets::new()
        .with_default(libraries)
        .with_target("processor", own)
        .with_target("librdkafka", own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn own_lines_follow_the_level_and_libraries_are_quieter() {
        let filter = filter(LogLevel::Info);
        assert!(filter.would_enable("processor::worker", &Level::INFO));
        assert!(!filter.would_enable("processor::worker", &Level::DEBUG));
        assert!(filter.would_enable("object_store", &Level::WARN));
        assert!(!filter.would_enable("object_store", &Level::INFO));
    }
}
