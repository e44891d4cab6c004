//! A plan: everything that will happen in one run, as data. Playing a plan is deterministic; what is
//! random in it (delays, which message is lost, generated records) is a keyed hash of the plan's
//! seed and of who asks.

mod check;
mod fault;

pub use check::PlanError;
pub use fault::{Api, Fault, FaultKind, Machine, Trigger, Until};

use crate::sabotage::Sabotage;
use serde::{Deserialize, Serialize};

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Scenario that it was made from.
    pub scenario: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// Unix milliseconds at virtual time 0.
    pub start_unix_ms: i64,
    /// Virtual milliseconds after which no record is produced and no fault happens any more.
    pub active_ms: u64,
    /// Virtual milliseconds that the processor then has to finish (liveness bound).
    pub settle_ms: u64,
    /// Machines and topics.
    pub topology: Topology,
    /// The processor's configuration as it would stand in its file: overrides of the example
    /// configuration, by section and key.
    #[serde(default)]
    pub processor: toml::Table,
    /// Settings of the brokers.
    #[serde(default, skip_serializing_if = "Brokers::are_usual")]
    pub brokers: Brokers,
    /// A promise that the world breaks: a bug, to see that the checkers notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bug: Option<Bug>,
    /// The processor has to refuse to go on, in words that contain these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// What is produced.
    pub workload: Workload,
    /// What goes wrong, in any order.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// A bug that is planted in the world, and what it must come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bug {
    /// The broken promise.
    pub promise: Sabotage,
    /// Name of the property that accuses it; without the bug, the plan holds.
    pub property: String,
}

/// Settings of the brokers, by Kafka's names, where plans differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Brokers {
    /// transactional.id.expiration.ms
    pub transactional_id_expiration_ms: u64,
    /// producer.id.expiration.ms
    pub producer_id_expiration_ms: u64,
    /// transaction.partition.verification.enable: brokers before 3.6 have none.
    pub transaction_verification: bool,
}

impl Default for Brokers {
    fn default() -> Brokers {
        Brokers {
            transactional_id_expiration_ms: 7 * 86_400_000,
            producer_id_expiration_ms: 86_400_000,
            transaction_verification: true,
        }
    }
}

impl Brokers {
    /// True if nothing differs from Kafka's defaults.
    #[must_use]
    pub fn are_usual(&self) -> bool {
        *self == Brokers::default()
    }
}

/// Machines and topics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Number of brokers.
    pub brokers: u32,
    /// Partitions of the input topic.
    pub input_partitions: u32,
    /// Partitions of the output topic.
    pub output_partitions: u32,
    /// Partitions of the dead-letter topic.
    pub dead_letter_partitions: u32,
    /// Worker processes that exist; those with a `WorkerJoin` fault start with it, others at 0.
    pub workers: u32,
}

/// What is produced to the input topic.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Generated streams of events.
    #[serde(default)]
    pub streams: Vec<Stream>,
    /// Single records, given as text.
    #[serde(default)]
    pub records: Vec<Scripted>,
}

/// A generated stream of valid events (and what its percentages say). Event times follow the moment
/// of sending, less the drawn lateness.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Name: key of its random choices, and prefix of its event ids.
    pub name: String,
    /// First moment, virtual milliseconds.
    pub from_ms: u64,
    /// Last moment, virtual milliseconds.
    pub until_ms: u64,
    /// Number of events, spread over the time (in bursts, if `burst` > 1).
    pub events: u64,
    /// Events that come in one moment.
    #[serde(default = "one")]
    pub burst: u64,
    /// Tickers, drawn with a skew towards the first.
    pub tickers: Vec<String>,
    /// Moved to the past by this many milliseconds (a backlog).
    #[serde(default)]
    pub event_time_lag_ms: u64,
    /// Highest lateness of an ordinary event, milliseconds.
    #[serde(default)]
    pub jitter_ms: u64,
    /// Per mille of events that are late by up to `late_ms_max`.
    #[serde(default)]
    pub late_permille: u32,
    /// See `late_permille`.
    #[serde(default)]
    pub late_ms_max: u64,
    /// Per mille of events that are sent a second time later, with the same `event_id`.
    #[serde(default)]
    pub duplicate_permille: u32,
    /// Per mille of events without `event_id`.
    #[serde(default)]
    pub anonymous_permille: u32,
    /// Per mille of records that are garbage of all kinds (broken JSON, wrong types, unknown
    /// tickers, poison timestamps, raw bytes, tombstones).
    #[serde(default)]
    pub garbage_permille: u32,
    /// Events of one transaction of a transactional producer; 0: the producer is only idempotent.
    #[serde(default)]
    pub transaction_events: u64,
    /// Per mille of transactions that their producer aborts.
    #[serde(default)]
    pub abort_permille: u32,
    /// How long a transaction may stay open before it is ended, milliseconds.
    #[serde(default)]
    pub open_ms_max: u64,
}

fn one() -> u64 {
    1
}

/// One record, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scripted {
    /// When it is sent, virtual milliseconds.
    pub at_ms: u64,
    /// Key; the default partitioner decides the partition.
    #[serde(default)]
    pub key: Option<String>,
    /// Value, exactly these bytes.
    pub value: String,
    /// Sent this many times (at least 1).
    #[serde(default = "one")]
    pub times: u64,
}
