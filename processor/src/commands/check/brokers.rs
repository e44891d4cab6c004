//! Settings of the brokers that exactly-once rests on.

use crate::commands::cluster::{Cluster, Settings};
use crate::commands::verdict::{Finding, Verdict};
use processor::config::ProcessorConfig;
use processor::worker::METADATA_BYTES_MAX;

/// How long a group may stand still before its commits expire, minutes: a week.
const OFFSETS_RETENTION_MINUTES: i64 = 10_080;
const OFFSETS_RETENTION_MINUTES_MIN: i64 = 1_440;

/// Judges the number of brokers and the settings of each.
///
/// # Errors
/// When a broker does not answer or refuses to tell.
pub fn examine(cluster: &Cluster, config: &ProcessorConfig) -> anyhow::Result<Vec<Finding>> {
    let brokers = cluster.brokers()?;
    let addresses: Vec<&str> = brokers.values().map(String::as_str).collect();
    let found = format!("{} ({})", brokers.len(), addresses.join(", "));
    let mut findings = vec![if brokers.len() >= 3 {
        Finding::ok("cluster", "brokers", found)
    } else {
        let fix = "for development only: three replicas need three brokers";
        Finding::new(Verdict::Risky, "cluster", "brokers", found, fix)
    }];
    for &broker in brokers.keys() {
        let settings = cluster.broker_settings(broker)?;
        findings.extend(judge(&format!("broker {broker}"), &settings, config));
    }
    Ok(findings)
}

fn judge(about: &str, settings: &Settings, config: &ProcessorConfig) -> Vec<Finding> {
    let kafka = &config.kafka;
    let number = |key: &str| settings.get(key).and_then(|text| text.parse::<i64>().ok());
    let mut findings = Vec::new();
    let mut add = |key: &str, verdict: Verdict, fix: String| {
        // A managed service may not tell everything.
        let found = settings.get(key).map_or("not told", String::as_str);
        let fix = if verdict == Verdict::Ok {
            String::new()
        } else {
            fix
        };
        findings.push(Finding::new(verdict, about, key, found, fix));
    };
    let below = |found: Option<i64>, least: i64, verdict: Verdict| match found {
        Some(found) if found < least => verdict,
        _ => Verdict::Ok,
    };

    let key = "offsets.retention.minutes";
    let verdict = below(number(key), OFFSETS_RETENTION_MINUTES, Verdict::Risky).max(below(
        number(key),
        OFFSETS_RETENTION_MINUTES_MIN,
        Verdict::Wrong,
    ));
    add(
        key,
        verdict,
        format!(
            "the group's commits expire when it stands still for longer, and then it refuses to start: set it to {OFFSETS_RETENTION_MINUTES}"
        ),
    );

    let key = "transaction.max.timeout.ms";
    let timeout = i64::try_from(kafka.transaction_timeout_ms).unwrap_or(i64::MAX);
    add(
        key,
        below(number(key), timeout, Verdict::Wrong),
        format!("set it to at least kafka.transaction_timeout_ms = {timeout}, or lower that"),
    );

    let key = "offset.metadata.max.bytes";
    add(
        key,
        below(number(key), METADATA_BYTES_MAX as i64, Verdict::Wrong),
        format!("a commit record takes up to {METADATA_BYTES_MAX} bytes: set it to 4096"),
    );

    let session = i64::try_from(kafka.session_timeout_ms).unwrap_or(i64::MAX);
    let key = "group.min.session.timeout.ms";
    let is_short = number(key).is_some_and(|least| session < least);
    let verdict = if is_short {
        Verdict::Wrong
    } else {
        Verdict::Ok
    };
    add(
        key,
        verdict,
        format!("raise kafka.session_timeout_ms = {session} to it"),
    );
    let key = "group.max.session.timeout.ms";
    add(
        key,
        below(number(key), session, Verdict::Wrong),
        format!("lower kafka.session_timeout_ms = {session} to it"),
    );

    for (key, least) in [
        ("offsets.topic.replication.factor", 3),
        ("transaction.state.log.replication.factor", 3),
        ("transaction.state.log.min.isr", 2),
    ] {
        add(
            key,
            below(number(key), least, Verdict::Risky),
            format!(
                "for development only: a lost broker takes commits with it; {least}, and move the replicas of the \
                 topics that exist"
            ),
        );
    }
    findings
}

/// Whether there is a partition for each worker.
///
/// # Errors
/// When the brokers do not answer.
pub fn workers(cluster: &Cluster, config: &ProcessorConfig) -> anyhow::Result<Vec<Finding>> {
    let Some(topic) = cluster.topic(&config.kafka.input_topic)? else {
        return Ok(Vec::new());
    };
    let count = config.worker.count;
    let found = format!("{count} for {} partitions", topic.partitions);
    let (about, property) = ("configuration", "worker.count");
    let enough = i64::from(count) <= i64::from(topic.partitions);
    Ok(vec![if enough {
        Finding::ok(about, property, found)
    } else {
        let fix = "workers without a partition stand by; lower worker.count";
        Finding::new(Verdict::Risky, about, property, found, fix)
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(settings: &[(&str, &str)]) -> Vec<(String, Verdict)> {
        let config = ProcessorConfig::from_toml(ProcessorConfig::example()).expect("it is valid");
        let settings: Settings = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let findings = judge("broker 1", &settings, &config).into_iter();
        findings
            .filter(|finding| finding.verdict != Verdict::Ok)
            .map(|finding| {
                assert!(!finding.fix.is_empty(), "{finding:?}");
                (finding.property, finding.verdict)
            })
            .collect()
    }

    #[test]
    fn brokers_with_kafka_s_defaults_for_production_are_right() {
        let settings = [
            ("offsets.retention.minutes", "10080"),
            ("transaction.max.timeout.ms", "900000"),
            ("offset.metadata.max.bytes", "4096"),
            ("group.min.session.timeout.ms", "6000"),
            ("group.max.session.timeout.ms", "1800000"),
            ("offsets.topic.replication.factor", "3"),
            ("transaction.state.log.replication.factor", "3"),
            ("transaction.state.log.min.isr", "2"),
        ];
        assert_eq!(verdicts(&settings), []);
        assert_eq!(verdicts(&[]), [], "what is not told is not judged");
    }

    #[test]
    fn each_setting_that_does_not_do_is_found() {
        for (key, value, expected) in [
            ("offsets.retention.minutes", "60", Verdict::Wrong),
            ("offsets.retention.minutes", "2000", Verdict::Risky),
            ("transaction.max.timeout.ms", "1000", Verdict::Wrong),
            ("offset.metadata.max.bytes", "500", Verdict::Wrong),
            ("group.min.session.timeout.ms", "60000", Verdict::Wrong),
            ("group.max.session.timeout.ms", "1000", Verdict::Wrong),
            ("offsets.topic.replication.factor", "1", Verdict::Risky),
            ("transaction.state.log.min.isr", "1", Verdict::Risky),
        ] {
            assert_eq!(verdicts(&[(key, value)]), [(key.to_owned(), expected)]);
        }
    }
}
