//! Log lines of dead letters, with a limit: a flood of bad input must not become a flood of logs.

use crate::core::OutputRecord;
use crate::units::PartitionId;
use std::time::{Duration, Instant};

/// Lines in one period.
const LINES_MAX: u32 = 10;
const PERIOD: Duration = Duration::from_secs(1);

/// What the log has said in the present period.
#[derive(Debug)]
pub(super) struct DeadLetterLog {
    period_began: Instant,
    lines: u32,
    unsaid: u64,
}

impl DeadLetterLog {
    pub(super) fn new() -> DeadLetterLog {
        DeadLetterLog {
            period_began: Instant::now(),
            lines: 0,
            unsaid: 0,
        }
    }

    /// Logs one dead letter, or counts it.
    pub(super) fn note(&mut self, partition: PartitionId, term: u64, letter: &OutputRecord) {
        if self.period_began.elapsed() >= PERIOD {
            self.period_began = Instant::now();
            self.lines = 0;
        }
        if self.lines == LINES_MAX {
            self.unsaid += 1;
            return;
        }
        self.lines += 1;
        tracing::warn!(
            partition = partition.0,
            offset = header(letter, "cause-offset").parse::<i64>().ok(),
            term,
            correlation_id = header(letter, "correlation-id"),
            error_type = error_type(letter),
            not_logged_before = std::mem::take(&mut self.unsaid),
            "dead letter"
        );
    }
}

fn header<'a>(output: &'a OutputRecord, name: &str) -> &'a str {
    let found = output.headers.iter().find(|header| header.name == name);
    found.map_or("", |header| {
        std::str::from_utf8(&header.value).unwrap_or("")
    })
}

/// The error type of a dead letter: its value begins with it.
pub(super) fn error_type(letter: &OutputRecord) -> &str {
    let text = std::str::from_utf8(&letter.value).unwrap_or("");
    let rest = text.strip_prefix("{\"error_type\":\"");
    let name = rest.and_then(|rest| rest.split_once('"'));
    name.map_or("unknown", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProcessorConfig;
    use crate::core::{InputRecord, PartitionTask};
    use crate::units::{LogTimeMs, Offset};

    #[test]
    fn the_error_type_is_read_from_what_the_core_puts_out() {
        let config = ProcessorConfig::from_toml(ProcessorConfig::example()).expect("it is valid");
        let mut task = PartitionTask::new(PartitionId(2), Offset(7), config.core_config());
        let record = InputRecord {
            offset: Offset(7),
            timestamp: LogTimeMs(1_700_000_000_000),
            key: None,
            value: Some(b"{\"ticker\":\"AMZN\"}"),
        };
        let mut outputs = Vec::new();
        let _ = task.process([record], &mut outputs);
        assert_eq!(error_type(&outputs[0]), "missing_field");
        assert_eq!(header(&outputs[0], "cause-offset"), "7");
        assert_eq!(header(&outputs[0], "correlation-id").len(), 32);
    }

    #[test]
    fn a_flood_is_counted_instead_of_logged() {
        let mut log = DeadLetterLog::new();
        log.period_began = Instant::now() + Duration::from_secs(3600);
        let letter = OutputRecord {
            destination: crate::core::Destination::DeadLetters,
            sequence: 0,
            timestamp: LogTimeMs(0),
            key: None,
            value: bytes::Bytes::new(),
            headers: Vec::new(),
        };
        for _ in 0..25 {
            log.note(PartitionId(0), 1, &letter);
        }
        assert_eq!((log.lines, log.unsaid), (LINES_MAX, 15));
        assert_eq!(error_type(&letter), "unknown");
    }
}
