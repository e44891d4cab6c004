//! The configuration of the processor: one TOML file, checked as a whole before anything starts.
//!
//! Comes in: the text of the file. Goes out: [`ProcessorConfig`], or all its errors at once, each
//! with its key, its value and what is allowed.
//! Never here: anything that opens a connection or a file.

mod checks;
mod errors;
mod overrides;
mod reader;
mod storage;

pub use errors::{ConfigError, ConfigErrors};
pub use overrides::{NoOverride, parse_overrides};
pub use storage::{CheckpointConfig, Encryption, S3Config, StateConfig, StateKind};

use crate::core::{CoreConfig, Fingerprint, Identity, TickerReference};
use reader::Section;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use toml::{Table, Value};

/// How partitions move between group members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebalanceProtocol {
    /// Only the partitions that move are taken away.
    Cooperative,
    /// All partitions are taken away and given anew.
    Eager,
}

/// Section `[kafka]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Brokers to ask first, `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// Consumer group; every `transactional.id` starts with it.
    pub group_id: String,
    /// Topic of the events.
    pub input_topic: String,
    /// Topic of the window results.
    pub output_topic: String,
    /// Topic of the dead letters.
    pub dead_letter_topic: String,
    /// After this long, the coordinator aborts an open transaction.
    pub transaction_timeout_ms: u64,
    /// After this long without a heartbeat, the group takes a member's partitions away.
    pub session_timeout_ms: u64,
    /// After this long without a poll, a member leaves its group.
    pub max_poll_interval_ms: u64,
    /// How partitions move.
    pub rebalance_protocol: RebalanceProtocol,
    /// Limit of one blocking client call.
    pub request_timeout_ms: u64,
    /// Largest message that the topics take, bytes.
    pub max_message_bytes: usize,
    /// Section `[kafka.properties]`: anything else that librdkafka understands (TLS, SASL, buffers).
    pub properties: BTreeMap<String, String>,
}

/// Section `[worker]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Stable number of this worker among all of the group; part of its `transactional.id`. Of a
    /// process with several workers: of the first one.
    pub ordinal: u32,
    /// Workers in one process; their ordinals follow each other.
    pub count: u32,
    /// Longest wait of one poll.
    pub poll_timeout_ms: u64,
}

/// Section `[commit]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitConfig {
    /// Time between transactions.
    pub interval_ms: u64,
}

/// Section `[windows]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowsConfig {
    /// Distance of the watermark behind the newest event.
    pub max_out_of_orderness_ms: i64,
    /// Time after a window's end in which it is corrected.
    pub allowed_lateness_ms: i64,
    /// Silence after which a partition that was read to its end is idle.
    pub idle_timeout_ms: u64,
}

/// Section `[validation]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidationConfig {
    /// Oldest event time that is taken, Unix milliseconds.
    pub min_timestamp_ms: i64,
    /// How far an event may be ahead of its record's Kafka timestamp.
    pub max_future_skew_ms: i64,
    /// Highest price, in units of 1e-8.
    pub max_price_units: i64,
    /// Highest volume of one event.
    pub max_volume: i64,
    /// What makes two events the same.
    pub identity: Identity,
}

/// Section `[reference]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceConfig {
    /// Version of the data.
    pub version: String,
    /// Known tickers, in the order of the file.
    pub tickers: Vec<TickerReference>,
}

/// Section `[recovery]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryConfig {
    /// Partitions whose missing commit record is accepted as a fresh start.
    pub accept_reset_partitions: Vec<i32>,
}

/// Section `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Where metrics and health are served over HTTP; `None` is nowhere. Port 0 takes a free one.
    pub listen: Option<SocketAddr>,
}

/// How much is logged: each level holds the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What ends the process.
    Error,
    /// What somebody should look at.
    Warn,
    /// Starts, stops, rebalances, recoveries.
    Info,
    /// Every commit, checkpoint and dead letter.
    Debug,
    /// Everything that the libraries say, too.
    Trace,
}

impl LogLevel {
    /// All, from the fewest lines to the most.
    pub const ALL: [LogLevel; 5] = [
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ];

    /// Its word in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// Section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How much is logged.
    pub level: LogLevel,
}

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct ProcessorConfig {
    /// Section `[kafka]`.
    pub kafka: KafkaConfig,
    /// Section `[worker]`.
    pub worker: WorkerConfig,
    /// Section `[commit]`.
    pub commit: CommitConfig,
    /// Section `[state]`.
    pub state: StateConfig,
    /// Section `[checkpoint]`.
    pub checkpoint: CheckpointConfig,
    /// Section `[windows]`.
    pub windows: WindowsConfig,
    /// Section `[validation]`.
    pub validation: ValidationConfig,
    /// Section `[reference]`.
    pub reference: ReferenceConfig,
    /// Section `[recovery]`.
    pub recovery: RecoveryConfig,
    /// Section `[metrics]`.
    pub metrics: MetricsConfig,
    /// Section `[log]`.
    pub log: LogConfig,
    core: Arc<CoreConfig>,
}

impl ProcessorConfig {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// Everything that is wrong with it; only a syntax error hides the others.
    pub fn from_toml(text: &str) -> Result<ProcessorConfig, ConfigErrors> {
        Self::from_table(parse(text)?)
    }

    /// As [`ProcessorConfig::from_toml`], after `overrides` were laid over `base`: tables are merged
    /// key by key at every depth, anything else (lists too) is replaced.
    ///
    /// # Errors
    /// As for [`ProcessorConfig::from_toml`].
    pub fn with_overrides(base: &str, overrides: &Table) -> Result<ProcessorConfig, ConfigErrors> {
        let mut table = parse(base)?;
        merge(&mut table, overrides);
        Self::from_table(table)
    }

    /// A complete, commented configuration file with the defaults; it is itself valid.
    #[must_use]
    pub fn example() -> &'static str {
        include_str!("../../processor.example.toml")
    }

    /// The part that decides the outputs, ready for the core. It is derived once, when the file is
    /// checked.
    #[must_use]
    pub fn core_config(&self) -> Arc<CoreConfig> {
        Arc::clone(&self.core)
    }

    /// Hash of everything that changes outputs, and of the core's version. `windows.idle_timeout_ms`
    /// is not in it: forced advances are inputs, and are committed as such.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.core.fingerprint()
    }

    fn from_table(table: Table) -> Result<ProcessorConfig, ConfigErrors> {
        let mut errors = Vec::new();
        let mut file = Section::new("", table, &mut errors);
        let kafka = checks::kafka(file.section("kafka"));
        let worker = checks::worker(file.section("worker"));
        let commit = checks::commit(file.section("commit"));
        let state = storage::state(file.section("state"));
        let checkpoint = storage::checkpoint(file.section("checkpoint"));
        let windows = checks::windows(file.section("windows"));
        let validation = checks::validation(file.section("validation"));
        let reference = checks::reference(file.section("reference"));
        let recovery = checks::recovery(file.section("recovery"));
        let metrics = checks::metrics(file.section("metrics"));
        let log = checks::log(file.section("log"));
        file.finish();
        checks::relations(&kafka, &worker, &commit, &checkpoint, &mut errors);
        // The core's own checks come after the values': it may say the same thing twice.
        let core = if errors.is_empty() {
            checks::core(&kafka, &windows, &validation, &reference, &mut errors)
        } else {
            None
        };
        match core {
            Some(core) if errors.is_empty() => Ok(ProcessorConfig {
                kafka,
                worker,
                commit,
                state,
                checkpoint,
                windows,
                validation,
                reference,
                recovery,
                metrics,
                log,
                core: Arc::new(core),
            }),
            _ => Err(ConfigErrors(errors)),
        }
    }
}

fn parse(text: &str) -> Result<Table, ConfigErrors> {
    text.parse::<Table>().map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or(text);
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        let message = error.message().to_owned();
        ConfigErrors(vec![ConfigError::Syntax { line, message }])
    })
}

fn merge(base: &mut Table, overrides: &Table) {
    for (key, value) in overrides {
        match (base.get_mut(key), value) {
            (Some(Value::Table(base)), Value::Table(overrides)) => merge(base, overrides),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}
