//! What the page of one run shows.
//!
//! Moments of processing are virtual milliseconds since the run began; event times are Unix milliseconds.

use serde::Serialize;

/// A run, as its page shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename = "run")]
pub struct RunPage {
    /// Heading.
    pub title: String,
    /// Scenario of its plan.
    pub scenario: String,
    /// Seed of its plan.
    pub seed: u64,
    /// Hash of everything that happened: 16 hexadecimal digits.
    pub trace_hash: String,
    /// The command that plays it again.
    pub replay: String,
    /// Its length, virtual milliseconds.
    pub virtual_ms: f64,
    /// What the clocks showed when it began, Unix milliseconds.
    pub start_unix_ms: i64,
    /// Length of a window, milliseconds.
    pub window_ms: i64,
    /// Allowed lateness, milliseconds.
    pub allowed_lateness_ms: i64,
    /// How far the watermark stays behind, milliseconds.
    pub max_out_of_orderness_ms: i64,
    /// Its numbers.
    pub counts: Counts,
    /// What of the scenario's story did not happen.
    pub story_missing: Vec<String>,
    /// One a property.
    pub verdicts: Vec<VerdictOf>,
    /// One a node, in the order in which they are drawn.
    pub lanes: Vec<Lane>,
    /// What lasted.
    pub spans: Vec<Span>,
    /// What happened in a moment.
    pub points: Vec<Point>,
    /// Known tickers.
    pub tickers: Vec<String>,
    /// The input topic.
    pub records: Records,
    /// One a partition.
    pub watermarks: Vec<Watermarks>,
    /// One a window that has an event.
    pub windows: Vec<Window>,
}

/// The numbers of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Records of the input topic.
    pub records: u64,
    /// Committed transactions of the processor.
    pub commits: u64,
    /// Recoveries of partitions.
    pub recoveries: u64,
    /// Results.
    pub outputs: u64,
    /// Dead letters.
    pub dead_letters: u64,
}

/// What became of a property.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerdictOf {
    /// Its name.
    pub property: String,
    /// Whether it held.
    pub status: Status,
    /// Violations, or why it could not be judged.
    pub findings: Vec<Finding>,
}

/// Whether a property held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It held.
    Holds,
    /// It did not.
    Fails,
    /// It could not be judged.
    NotJudged,
}

/// A violation, and where it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The checker's words.
    pub text: String,
    /// Its place, as far as it has one.
    #[serde(flatten)]
    pub place: Place,
}

/// Where something is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Place {
    /// Topic.
    pub topic: Option<Topic>,
    /// Partition of that topic.
    pub partition: Option<i32>,
    /// Offset in that partition.
    pub offset: Option<i64>,
    /// Moment of processing.
    pub at_ms: Option<f64>,
    /// Source partition, ticker and start of a window.
    pub window: Option<(i32, String, i64)>,
}

/// One of the three topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// Ticks.
    Input,
    /// Results.
    Output,
    /// Dead letters.
    DeadLetters,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lane {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LaneKind,
}

/// What a node is; the order is that of the lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum LaneKind {
    Producer,
    Controller,
    Broker,
    Worker,
    Store,
    Network,
}

/// Something that lasted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Span {
    /// Number of its lane.
    pub lane: usize,
    /// What.
    pub kind: SpanKind,
    /// Beginning.
    pub from_ms: f64,
    /// End.
    pub to_ms: f64,
    /// Of a transaction.
    pub outcome: Option<Outcome>,
    /// In words.
    pub text: String,
}

/// What lasted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpanKind {
    /// A process was not there.
    Down,
    /// A process stood still.
    Paused,
    /// A fault of the plan.
    Fault,
    /// A transaction, from its first partition to its last marker.
    Transaction,
    /// A snapshot was stored (drawn at the moment when it was there).
    Checkpoint,
    /// A partition was recovered.
    Recovery,
    /// A partition was processed here.
    Owned,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It took effect.
    Committed,
    /// It did not.
    Aborted,
    /// Its producer had no answer, and had to find out.
    Unknown,
    /// It was open when the run ended.
    Open,
}

/// Something that happened in a moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Number of its lane.
    pub lane: usize,
    /// What.
    pub kind: PointKind,
    /// When.
    pub at_ms: f64,
    /// In words.
    pub text: String,
}

/// What happened in a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum PointKind {
    Fault,
    Leader,
    Generation,
    Started,
    Ended,
    Fenced,
    Tainted,
    Refused,
    Collected,
    Other,
}

/// The records of the input topic, column by column, by (partition, offset).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Records {
    /// Partition.
    pub partition: Vec<i32>,
    /// Offset.
    pub offset: Vec<i64>,
    /// The record's Kafka timestamp, as a moment of the run.
    pub at_ms: Vec<f64>,
    /// Event time; `None` where it cannot be read.
    pub event_ms: Vec<Option<i64>>,
    /// Number of its ticker; `None` where it cannot be read.
    pub ticker: Vec<Option<u32>>,
    /// What became of it.
    pub fate: Vec<RecordFate>,
    /// The beginning of its text.
    pub value: Vec<String>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordFate {
    /// It is in its window's first result.
    Counted,
    /// It came after its window's first result and corrected it.
    Corrected,
    /// It repeats an event of its window.
    Duplicate,
    /// It came after its window was closed for good: a dead letter.
    TooLate,
    /// It is not valid: a dead letter.
    Invalid,
    /// Nobody committed that it was processed.
    Unread,
}

/// The watermark of a partition: a step line.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Watermarks {
    /// Partition.
    pub partition: i32,
    /// When it moved.
    pub at_ms: Vec<f64>,
    /// To which event time.
    pub event_ms: Vec<i64>,
}

/// A window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Window {
    /// Source partition.
    pub partition: i32,
    /// Number of its ticker.
    pub ticker: u32,
    /// Start, event time.
    pub start_ms: i64,
    /// Numbers of the records whose event time is in it, whatever became of them.
    pub records: Vec<usize>,
    /// Results that are visible, in their order.
    pub revisions: Vec<Revision>,
}

/// A visible result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Revision {
    /// Its number in the window.
    pub revision: i64,
    /// When it was sent, if the trace tells.
    pub at_ms: Option<f64>,
    /// Offset in the output topic.
    pub offset: i64,
    /// What made it due: `record` or `idle`.
    pub cause: String,
    /// What it says.
    pub text: String,
}
