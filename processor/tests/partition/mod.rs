//! A partition under test: feeds events, keeps offsets, hands back outputs.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use bytes::Bytes;
use processor::config::ProcessorConfig;
use processor::core::{
    CoreConfig, Destination, InputRecord, OutputRecord, PartitionTask, Progress,
};
use processor::units::{LogTimeMs, Offset, PartitionId, Watermark};
use std::sync::Arc;

/// Unix seconds at the start of a window: 2013-10-07 08:00 UTC.
pub const T0: i64 = 1_381_132_800;

/// Watermark 5 s behind, corrections for 60 s.
pub const RULES: &str = "windows = { max_out_of_orderness_ms = 5000, allowed_lateness_ms = 60000 }";

/// The example configuration with overrides on top.
pub fn config(overrides: &str) -> Arc<CoreConfig> {
    let overrides = overrides.parse().expect("the test's overrides are TOML");
    ProcessorConfig::with_overrides(ProcessorConfig::example(), &overrides)
        .expect("the test's configuration is valid")
        .core_config()
}

/// An event of AMZN at `T0 + seconds`.
pub fn tick(seconds: &str, price: &str, volume: i64) -> String {
    tick_of("AMZN", seconds, price, volume)
}

/// An event at `T0 + seconds` (decimal text).
pub fn tick_of(ticker: &str, seconds: &str, price: &str, volume: i64) -> String {
    let timestamp = at(seconds);
    format!(r#"{{"ticker":"{ticker}","price":{price},"volume":{volume},"timestamp":{timestamp}}}"#)
}

/// As [`tick_of`], with an `event_id` as JSON.
pub fn tick_with_id(ticker: &str, seconds: &str, id: &str) -> String {
    let event = tick_of(ticker, seconds, "10", 1);
    event.replacen('{', &format!(r#"{{"event_id":{id},"#), 1)
}

/// `T0 + seconds` as decimal text.
pub fn at(seconds: &str) -> String {
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let whole = T0 + whole.parse::<i64>().expect("whole seconds");
    if fraction.is_empty() {
        whole.to_string()
    } else {
        format!("{whole}.{fraction}")
    }
}

/// `T0 + milliseconds` as a watermark.
pub fn watermark(milliseconds: i64) -> Watermark {
    Watermark(T0 * 1000 + milliseconds)
}

pub struct Partition {
    pub task: PartitionTask,
    pub kafka_timestamp: LogTimeMs,
}

impl Partition {
    pub fn new(overrides: &str) -> Self {
        Partition {
            task: PartitionTask::new(PartitionId(3), Offset(100), config(overrides)),
            kafka_timestamp: LogTimeMs(T0 * 1000 + 3_600_000),
        }
    }

    /// Feeds one value; returns what it caused.
    pub fn feed(&mut self, value: impl AsRef<[u8]>) -> Vec<OutputRecord> {
        self.feed_record(Some(b"key"), Some(value.as_ref()))
    }

    pub fn feed_record(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<OutputRecord> {
        let mut outputs = Vec::new();
        let offset = self.task.position();
        let record = InputRecord {
            offset,
            timestamp: self.kafka_timestamp,
            key,
            value,
        };
        let progress = self.task.process([record], &mut outputs);
        assert_eq!(progress, Progress::Done);
        outputs
    }

    pub fn force(&mut self, to: Watermark) -> Option<Vec<OutputRecord>> {
        let mut outputs = Vec::new();
        self.task
            .force_watermark(to, &mut outputs)
            .then_some(outputs)
    }

    /// Feeds a value that must cause one dead letter; returns its type and value.
    pub fn reject(&mut self, value: impl AsRef<[u8]>) -> (String, serde_json::Value) {
        let outputs = self.feed(value);
        assert_eq!(outputs.len(), 1, "{outputs:?}");
        assert_eq!(outputs[0].destination, Destination::DeadLetters);
        let letter = json(&outputs[0].value);
        (
            letter["error_type"].as_str().expect("a name").to_owned(),
            letter,
        )
    }
}

pub fn json(value: &Bytes) -> serde_json::Value {
    serde_json::from_slice(value).expect("outputs are JSON")
}

pub fn text(value: &Bytes) -> &str {
    std::str::from_utf8(value).expect("outputs are text")
}

/// A header's text; `None` if the output has none of that name.
pub fn header<'a>(output: &'a OutputRecord, name: &str) -> Option<&'a str> {
    output
        .headers
        .iter()
        .find(|header| header.name == name)
        .map(|header| text(&header.value))
}

/// (ticker, window start − T0 in seconds, count, revision) of each result.
pub fn results(outputs: &[OutputRecord]) -> Vec<(String, i64, u64, u64)> {
    let results = outputs
        .iter()
        .filter(|output| output.destination == Destination::Results);
    results
        .map(|output| {
            let value = json(&output.value);
            let number = |name: &str| value[name].as_i64().expect("an integer");
            (
                value["ticker"].as_str().expect("a ticker").to_owned(),
                number("window_start") / 1000 - T0,
                number("count") as u64,
                number("revision") as u64,
            )
        })
        .collect()
}
