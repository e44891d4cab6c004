//! What is left of a run: what a user of the topics can see, and what happened on the way.

use crate::kafka::protocol::Header;
use crate::tap::Tapped;
use crate::trace::TraceLine;
use bytes::Bytes;
use processor::config::ProcessorConfig;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A record as a read_committed consumer of the whole topic sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRecord {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Kafka's timestamp, Unix milliseconds.
    pub timestamp_ms: i64,
    /// Key.
    pub key: Option<Bytes>,
    /// Value.
    pub value: Option<Bytes>,
    /// Headers.
    pub headers: Vec<Header>,
}

/// A committed offset, as the offsets topic shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Partition of the input topic.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Metadata.
    pub metadata: String,
}

/// Everything that is known of a run after it.
#[derive(Debug, Clone)]
pub struct RunRecord {
    /// The processor's configuration.
    pub config: Arc<ProcessorConfig>,
    /// Hash of the whole trace and of all topics.
    pub trace_hash: u64,
    /// The trace, if it was asked for.
    pub trace: Vec<TraceLine>,
    /// How often each kind of thing was noted.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Virtual milliseconds played.
    pub virtual_ms: u64,
    /// Events of the fabric.
    pub events: u64,
    /// How often each of the [`crate::marks`] was reached, without those that were not.
    pub marks: BTreeMap<&'static str, u64>,
    /// Faults that really hit: kind → how many faults of that kind had an effect.
    pub fault_hits: BTreeMap<&'static str, u64>,
    /// Number of partitions of the input topic.
    pub input_partitions: i32,
    /// The input topic, sorted by (partition, offset).
    pub input: Vec<TopicRecord>,
    /// The output topic.
    pub outputs: Vec<TopicRecord>,
    /// The dead-letter topic.
    pub dead_letters: Vec<TopicRecord>,
    /// Committed offsets in the order in which they became visible.
    pub commits: Vec<CommittedOffset>,
    /// Last stable offset of each partition of the input topic at the end.
    pub input_ends: Vec<i64>,
    /// Each partition of the outputs, dead letters and committed offsets that a transaction still
    /// kept readers from reading to its end: what and where.
    pub stuck: Vec<String>,
    /// Refusals to continue, with their messages.
    pub refusals: Vec<String>,
    /// Records that the producer could not hand over before the end.
    pub unsent: usize,
    /// All I/O of the worker processes, if they were tapped.
    pub tapped: Option<Tapped>,
}

impl RunRecord {
    /// Transactions that the processor committed.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.kinds.get("committed").copied().unwrap_or(0)
    }

    /// Recoveries that the processor completed.
    #[must_use]
    pub fn recoveries(&self) -> u64 {
        self.kinds.get("recovered").copied().unwrap_or(0)
    }
}
