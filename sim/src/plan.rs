//! A plan: everything that will happen in one run, as data. Playing a plan is deterministic; what is
//! random in it (delays, which message is lost, generated records) is a keyed hash of the plan's
//! seed and of who asks.

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
    /// What is produced.
    pub workload: Workload,
    /// What goes wrong, in any order.
    #[serde(default)]
    pub faults: Vec<Fault>,
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

/// Something that goes wrong (or changes) at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When, virtual milliseconds.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// A machine, by role and number (from 0 for workers, from 1 for brokers, as they are named).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Machine {
    Worker(u32),
    Broker(u32),
    Controller,
    Producer,
}

/// Kinds of fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FaultKind {
    /// kill -9 of a worker process; a supervisor starts it again after `down_ms`.
    WorkerCrash {
        /// Number of the worker.
        worker: u32,
        /// Milliseconds until the restart.
        down_ms: u64,
    },
    /// The whole worker process stands still, its client library too (SIGSTOP, a long GC, a VM that
    /// migrates).
    WorkerPause {
        /// Number of the worker.
        worker: u32,
        /// For so long.
        for_ms: u64,
    },
    /// SIGTERM: the worker drains, commits and leaves the group, and does not come back unless a
    /// later `WorkerJoin` starts it.
    WorkerLeave {
        /// Number of the worker.
        worker: u32,
    },
    /// The worker process starts.
    WorkerJoin {
        /// Number of the worker.
        worker: u32,
    },
    /// A broker process dies and starts again after `down_ms`.
    BrokerCrash {
        /// Number of the broker.
        broker: u32,
        /// Milliseconds until the restart.
        down_ms: u64,
    },
    /// A broker process stands still.
    BrokerPause {
        /// Number of the broker.
        broker: u32,
        /// For so long.
        for_ms: u64,
    },
    /// Messages from any of `from` to any of `to` are lost (and the other way, unless `one_way`).
    NetworkCut {
        /// One side.
        from: Vec<Machine>,
        /// Other side.
        to: Vec<Machine>,
        /// Only that direction.
        one_way: bool,
        /// For so long.
        for_ms: u64,
    },
    /// The network is bad everywhere.
    NetworkTrouble {
        /// For so long.
        for_ms: u64,
        /// Per mille of messages lost.
        loss_permille: u32,
        /// Per mille of messages that arrive twice.
        duplicate_permille: u32,
        /// Per mille of messages that are overtaken by later ones.
        reorder_permille: u32,
        /// How late a duplicate or overtaken message may be.
        delay_ms_max: u64,
        /// Added to every delivery.
        extra_latency_ms: u64,
    },
    /// The object store misbehaves.
    ObjectStoreTrouble {
        /// For so long.
        for_ms: u64,
        /// Per mille of requests that fail without effect.
        error_permille: u32,
        /// Per mille of requests that take effect and then report an error.
        unknown_permille: u32,
        /// Added to every request.
        extra_latency_ms: u64,
    },
    /// Answers to EndTxn are lost for a while, so that clients send it again (KAFKA-17754).
    EndTxnAnswersLost {
        /// For so long.
        for_ms: u64,
    },
}
