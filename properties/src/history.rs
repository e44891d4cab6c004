//! What a user of the topics can see of a run, and nothing else: the evidence on which every
//! checker judges.

use bytes::Bytes;

/// A record as a read_committed consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRecord {
    /// Partition of its topic.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
    /// The timestamp that Kafka stored, Unix milliseconds.
    pub timestamp_ms: i64,
    /// Key.
    pub key: Option<Bytes>,
    /// Value.
    pub value: Option<Bytes>,
    /// Headers: name and raw value.
    pub headers: Vec<(String, Bytes)>,
}

/// A committed offset of the processor's group, in the order in which it became visible (on a real
/// cluster only the last one of each partition may be known).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Partition of the input topic.
    pub partition: i32,
    /// Next offset to process.
    pub offset: i64,
    /// Commit record.
    pub metadata: String,
}

/// The rules of the pipeline, as its operator configured them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Known tickers: name → (company name, sector).
    pub tickers: std::collections::BTreeMap<String, (String, String)>,
    /// Window length, milliseconds.
    pub window_ms: i64,
    /// Milliseconds that the watermark stays behind the highest accepted event time.
    pub max_out_of_orderness_ms: i64,
    /// Milliseconds after a window's end (in event time, by the watermark) in which it is corrected.
    pub allowed_lateness_ms: i64,
    /// Milliseconds without a record after which a partition that was read to its end is idle.
    pub idle_timeout_ms: i64,
    /// Events before this are refused, Unix milliseconds.
    pub min_timestamp_ms: i64,
    /// Events further ahead of their record's Kafka timestamp than this are refused.
    pub max_future_skew_ms: i64,
    /// Highest price, as a decimal text (prices are > 0).
    pub max_price: String,
    /// Highest volume (volumes are ≥ 0).
    pub max_volume: i64,
    /// True: the identity of an event is its content; false: its `event_id`.
    pub identity_is_content: bool,
    /// Largest message that the processor may send, bytes.
    pub max_message_bytes: usize,
}

/// Everything that was recorded of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Rules in force.
    pub rules: Rules,
    /// Name of the input topic (dead letters point into it).
    pub input_topic: String,
    /// Number of partitions of the input topic.
    pub input_partitions: i32,
    /// The whole input topic, sorted by (partition, offset).
    pub input: Vec<TopicRecord>,
    /// The whole output topic, sorted by (partition, offset).
    pub outputs: Vec<TopicRecord>,
    /// The whole dead-letter topic, sorted by (partition, offset).
    pub dead_letters: Vec<TopicRecord>,
    /// Committed offsets.
    pub commits: Vec<CommittedOffset>,
    /// True when `commits` holds every commit that became visible, not only the last ones.
    pub commits_complete: bool,
    /// Last stable offset of each input partition at the end, if it is known.
    pub input_ends: Option<Vec<i64>>,
    /// The moment at which the run ended, if it is known. Unix milliseconds.
    pub ended_at_ms: Option<i64>,
    /// How long the newest records of the input log may have been invisible to every consumer, for
    /// replication was stalled or a producer's transaction open. Milliseconds.
    pub hidden_ms_max: i64,
    /// How wrong the clocks of brokers may have been, and how far those of the processor behind,
    /// milliseconds.
    pub clock_error_ms: i64,
    /// True when the run ended only after every fault had stopped and the processor had had the
    /// time that liveness grants ([`crate::liveness::granted_ms`]): then everything must be done.
    pub settled: bool,
    /// Each partition that the processor writes to (outputs, dead letters, offsets) in which a
    /// transaction was still open at the end, so that nobody can read on: what and where.
    pub stuck: Vec<String>,
    /// How often the processor refused to go on for good, with its message: any is a failure of
    /// liveness.
    pub refusals: Vec<String>,
}

/// What is known of a run beside its topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// As in [`History`].
    pub rules: Rules,
    /// As in [`History`].
    pub input_topic: String,
    /// As in [`History`].
    pub input_partitions: i32,
    /// As in [`History`].
    pub commits: Vec<CommittedOffset>,
    /// As in [`History`].
    pub commits_complete: bool,
    /// As in [`History`].
    pub input_ends: Option<Vec<i64>>,
    /// As in [`History`].
    pub ended_at_ms: Option<i64>,
    /// As in [`History`].
    pub hidden_ms_max: i64,
    /// As in [`History`].
    pub clock_error_ms: i64,
    /// As in [`History`].
    pub settled: bool,
    /// As in [`History`].
    pub stuck: Vec<String>,
    /// As in [`History`].
    pub refusals: Vec<String>,
}

impl History {
    /// What is known of the run beside its topics.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts {
            rules: self.rules.clone(),
            input_topic: self.input_topic.clone(),
            input_partitions: self.input_partitions,
            commits: self.commits.clone(),
            commits_complete: self.commits_complete,
            input_ends: self.input_ends.clone(),
            ended_at_ms: self.ended_at_ms,
            hidden_ms_max: self.hidden_ms_max,
            clock_error_ms: self.clock_error_ms,
            settled: self.settled,
            stuck: self.stuck.clone(),
            refusals: self.refusals.clone(),
        }
    }
}
