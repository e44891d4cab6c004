//! What every value may be, section by section, and how values must relate.

use crate::config::errors::ConfigError;
use crate::config::reader::Section;
use crate::config::{
    CheckpointConfig, CommitConfig, KafkaConfig, LogConfig, LogLevel, MetricsConfig,
    RebalanceProtocol, RecoveryConfig, ReferenceConfig, ValidationConfig, WindowsConfig,
    WorkerConfig,
};
use crate::core::decimal::{PRICE_PLACES, Scaled, parse_scaled};
use crate::core::{
    CoreConfig, CoreRules, Identity, MAX_EVENTS_PER_WINDOW, MAX_TIMESTAMP_MS, RulesError,
    TickerReference,
};
use std::net::SocketAddr;
use toml::Value;

pub(super) const HOUR_MS: i64 = 3_600_000;
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;
const TOPIC: &str = "a topic name: 1 to 249 letters, digits, '.', '_' or '-', but not '.' or '..'";
/// Highest ordinal of a worker.
const ORDINAL_MAX: u32 = 99_999;
const TEXT: &str = "a non-empty text";

fn is_topic(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=249).contains(&text.len()) && text.bytes().all(legal) && text != "." && text != ".."
}

pub(super) fn is_text(text: &str) -> bool {
    !text.trim().is_empty()
}

fn is_server_list(text: &str) -> bool {
    text.split(',').all(|server| {
        let port = server
            .trim()
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty());
        port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0))
    })
}

pub(super) fn kafka(mut section: Section<'_>) -> KafkaConfig {
    let config = KafkaConfig {
        bootstrap_servers: section.text(
            "bootstrap_servers",
            None,
            "brokers as \"host:port\", separated by commas",
            is_server_list,
        ),
        group_id: section.text("group_id", None, TEXT, is_text),
        input_topic: section.text("input_topic", Some("input_topic"), TOPIC, is_topic),
        output_topic: section.text("output_topic", Some("output_topic"), TOPIC, is_topic),
        dead_letter_topic: section.text("dead_letter_topic", Some("dlq_topic"), TOPIC, is_topic),
        transaction_timeout_ms: section.duration_ms(
            "transaction_timeout_ms",
            15_000,
            1_000..=900_000,
        ),
        session_timeout_ms: section.duration_ms("session_timeout_ms", 45_000, 1_000..=1_800_000),
        max_poll_interval_ms: section.duration_ms("max_poll_interval_ms", 300_000, 1_000..=DAY_MS),
        rebalance_protocol: section.choice(
            "rebalance_protocol",
            &[
                ("cooperative", RebalanceProtocol::Cooperative),
                ("eager", RebalanceProtocol::Eager),
            ],
        ),
        request_timeout_ms: section.duration_ms("request_timeout_ms", 30_000, 100..=900_000),
        max_message_bytes: section.integer("max_message_bytes", 1_000_000, 4_096..=104_857_600)
            as usize,
        properties: section.texts("properties"),
    };
    section.finish();
    config
}

pub(super) fn worker(mut section: Section<'_>) -> WorkerConfig {
    let config = WorkerConfig {
        ordinal: section.integer("ordinal", 0, 0..=i64::from(ORDINAL_MAX)) as u32,
        count: section.integer("count", 1, 1..=256) as u32,
        poll_timeout_ms: section.duration_ms("poll_timeout_ms", 1_000, 1..=60_000),
    };
    section.finish();
    config
}

pub(super) fn commit(mut section: Section<'_>) -> CommitConfig {
    let interval_ms = section.duration_ms("interval_ms", 100, 1..=600_000);
    section.finish();
    CommitConfig { interval_ms }
}

pub(super) fn windows(mut section: Section<'_>) -> WindowsConfig {
    let config = WindowsConfig {
        max_out_of_orderness_ms: section.integer("max_out_of_orderness_ms", 300_000, 0..=DAY_MS),
        allowed_lateness_ms: section.integer("allowed_lateness_ms", 300_000, 0..=7 * DAY_MS),
        idle_timeout_ms: section.duration_ms("idle_timeout_ms", 60_000, 1..=7 * DAY_MS),
    };
    section.finish();
    config
}

pub(super) fn validation(mut section: Section<'_>) -> ValidationConfig {
    let config = ValidationConfig {
        min_timestamp_ms: section.integer(
            "min_timestamp_ms",
            946_684_800_000,
            0..=MAX_TIMESTAMP_MS,
        ),
        max_future_skew_ms: section.integer("max_future_skew_ms", 60_000, 0..=365 * DAY_MS),
        max_price_units: max_price(&mut section),
        max_volume: section.integer("max_volume", 1_000_000_000_000, 0..=i64::MAX),
        identity: section.choice(
            "identity",
            &[
                ("event_id", Identity::EventId),
                ("content", Identity::Content),
            ],
        ),
    };
    section.finish();
    config
}

fn max_price(section: &mut Section<'_>) -> i64 {
    const DEFAULT: i64 = 1_000_000_000 * 100_000_000;
    let Some(value) = section.take("max_price") else {
        return DEFAULT;
    };
    let number = value
        .as_str()
        .filter(|text| serde_json::from_str::<serde_json::Number>(text).is_ok());
    match number.map(|text| parse_scaled(text.trim(), PRICE_PLACES)) {
        Some(Scaled::Exact(units)) if units > 0 => units,
        _ => {
            let allowed = "a decimal above 0 as text, at most 9999999999.99999999, for example \
                           \"1000000000\"";
            section.wrong("max_price", value, allowed);
            DEFAULT
        }
    }
}

pub(super) fn reference(mut section: Section<'_>) -> ReferenceConfig {
    let version = section.text("version", Some("1"), TEXT, is_text);
    let tables = section.tables("ticker");
    if tables.is_empty() || tables.len() > 65_535 {
        let count = format!("{} entries", tables.len());
        section.wrong("ticker", count, "1 to 65535 entries: [[reference.ticker]]");
    }
    let mut tickers: Vec<TickerReference> = Vec::with_capacity(tables.len());
    let mut seen = std::collections::BTreeMap::new();
    for (index, table) in tables.into_iter().enumerate() {
        let name = section.key(&format!("ticker[{index}]"));
        let mut entry = Section::new(&name, table, section.errors());
        let ticker = entry.text("ticker", None, TEXT, is_text);
        let company_name = entry.text("company_name", None, TEXT, is_text);
        let sector = entry.text("sector", None, TEXT, is_text);
        if let Some(first) = seen
            .insert(ticker.clone(), index)
            .filter(|_| !ticker.is_empty())
        {
            let allowed = format!("unique; reference.ticker[{first}] has it already");
            entry.wrong("ticker", format!("{ticker:?}"), allowed);
        }
        entry.finish();
        tickers.push(TickerReference {
            ticker,
            company_name,
            sector,
        });
    }
    section.finish();
    ReferenceConfig { version, tickers }
}

pub(super) fn recovery(mut section: Section<'_>) -> RecoveryConfig {
    let partitions = match section.take("accept_reset_partitions") {
        None => Some(Vec::new()),
        Some(Value::Array(items)) => {
            let number = |item: &Value| item.as_integer().and_then(|n| u16::try_from(n).ok());
            let numbers: Option<Vec<i32>> = items
                .iter()
                .map(|item| number(item).map(i32::from))
                .collect();
            if numbers.is_none() {
                refuse_partitions(&mut section, Value::Array(items));
            }
            numbers
        }
        Some(other) => {
            refuse_partitions(&mut section, other);
            None
        }
    };
    section.finish();
    RecoveryConfig {
        accept_reset_partitions: partitions.unwrap_or_default(),
    }
}

pub(super) fn metrics(mut section: Section<'_>) -> MetricsConfig {
    let allowed = "an address and port as \"127.0.0.1:9464\", or \"\" for none";
    let accept = |text: &str| text.is_empty() || text.parse::<SocketAddr>().is_ok();
    let listen = section.text("listen", Some("127.0.0.1:9464"), allowed, accept);
    section.finish();
    MetricsConfig {
        listen: listen.parse().ok(),
    }
}

pub(super) fn log(mut section: Section<'_>) -> LogConfig {
    let mut choices = LogLevel::ALL.map(|level| (level.name(), level));
    // The first one is the default.
    choices.sort_by_key(|(_, level)| *level != LogLevel::Info);
    let level = section.choice("level", &choices);
    section.finish();
    LogConfig { level }
}

fn refuse_partitions(section: &mut Section<'_>, value: Value) {
    section.wrong(
        "accept_reset_partitions",
        value,
        "a list of partition numbers from 0, or []",
    );
}

/// Relations between values of different keys.
pub(super) fn relations(
    kafka: &KafkaConfig,
    worker: &WorkerConfig,
    commit: &CommitConfig,
    checkpoint: &CheckpointConfig,
    errors: &mut Vec<ConfigError>,
) {
    let mut below = |key: &str, value: u64, limit_key: &str, limit: u64| {
        if value >= limit {
            errors.push(ConfigError::Wrong {
                key: key.to_owned(),
                value: value.to_string(),
                allowed: format!("less than {limit_key} = {limit}"),
            });
        }
    };
    let transaction = ("kafka.transaction_timeout_ms", kafka.transaction_timeout_ms);
    let poll = ("kafka.max_poll_interval_ms", kafka.max_poll_interval_ms);
    below(
        "commit.interval_ms",
        commit.interval_ms,
        transaction.0,
        transaction.1,
    );
    below(
        "kafka.session_timeout_ms",
        kafka.session_timeout_ms,
        poll.0,
        poll.1,
    );
    below(
        "kafka.request_timeout_ms",
        kafka.request_timeout_ms,
        poll.0,
        poll.1,
    );
    below(
        "worker.poll_timeout_ms",
        worker.poll_timeout_ms,
        poll.0,
        poll.1,
    );
    // A snapshot that no commit names yet must outlive the transaction that will name it.
    below(
        transaction.0,
        transaction.1,
        "checkpoint.gc_grace_ms",
        checkpoint.gc_grace_ms,
    );
    if checkpoint.interval_ms < commit.interval_ms {
        errors.push(ConfigError::Wrong {
            key: "checkpoint.interval_ms".to_owned(),
            value: checkpoint.interval_ms.to_string(),
            allowed: format!("at least commit.interval_ms = {}", commit.interval_ms),
        });
    }
    if worker.ordinal + worker.count - 1 > ORDINAL_MAX {
        errors.push(ConfigError::Wrong {
            key: "worker.count".to_owned(),
            value: worker.count.to_string(),
            allowed: format!(
                "at most {}, so that the last ordinal is at most {ORDINAL_MAX}",
                ORDINAL_MAX - worker.ordinal + 1
            ),
        });
    }
    different_topics(kafka, errors);
}

fn different_topics(kafka: &KafkaConfig, errors: &mut Vec<ConfigError>) {
    let topics = [
        ("kafka.input_topic", &kafka.input_topic),
        ("kafka.output_topic", &kafka.output_topic),
        ("kafka.dead_letter_topic", &kafka.dead_letter_topic),
    ];
    for (index, (key, topic)) in topics.iter().enumerate().skip(1) {
        if let Some((other, _)) = topics[..index].iter().find(|(_, earlier)| earlier == topic) {
            errors.push(ConfigError::Wrong {
                key: (*key).to_owned(),
                value: format!("{topic:?}"),
                allowed: format!("another topic than {other}"),
            });
        }
    }
}

/// The core's configuration, or what it says against the values.
pub(super) fn core(
    kafka: &KafkaConfig,
    windows: &WindowsConfig,
    validation: &ValidationConfig,
    reference: &ReferenceConfig,
    errors: &mut Vec<ConfigError>,
) -> Option<CoreConfig> {
    let rules = CoreRules {
        input_topic: kafka.input_topic.clone(),
        max_out_of_orderness_ms: windows.max_out_of_orderness_ms,
        allowed_lateness_ms: windows.allowed_lateness_ms,
        min_timestamp_ms: validation.min_timestamp_ms,
        max_future_skew_ms: validation.max_future_skew_ms,
        max_price_units: validation.max_price_units,
        max_volume: validation.max_volume,
        identity: validation.identity,
        max_message_bytes: kafka.max_message_bytes,
        reference_version: reference.version.clone(),
        tickers: reference.tickers.clone(),
    };
    match CoreConfig::new(rules) {
        Ok(core) => return Some(core),
        Err(RulesError::OutOfRange("max_price × max_volume")) => {
            let most = i128::MAX / MAX_EVENTS_PER_WINDOW / i128::from(validation.max_price_units);
            errors.push(ConfigError::Wrong {
                key: "validation.max_volume".to_owned(),
                value: validation.max_volume.to_string(),
                allowed: format!("at most {most} with this max_price, so that sums stay exact"),
            });
        }
        Err(RulesError::ResultTooLarge {
            ticker,
            needed,
            limit,
        }) => {
            errors.push(ConfigError::Wrong {
                key: "kafka.max_message_bytes".to_owned(),
                value: limit.to_string(),
                allowed: format!("at least {needed}: a result of ticker {ticker:?} may take that"),
            });
        }
        Err(other) => errors.push(ConfigError::Wrong {
            key: "windows, validation, reference".to_owned(),
            value: "as given".to_owned(),
            allowed: format!("within the core's limits: {other}"),
        }),
    }
    None
}
