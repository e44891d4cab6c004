//! `server.properties` of one broker: settings as exactly-once needs them in production, small sizes,
//! and short intervals where tests would otherwise wait. Meaning of each key:
//! <https://kafka.apache.org/documentation/#brokerconfigs>.

use super::manifest::{Broker, Manifest};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::time::Duration;

/// Keys that the cluster's layout rests on; nobody may set them otherwise.
const FIXED: [&str; 9] = [
    "advertised.listeners",
    "controller.listener.names",
    "controller.quorum.voters",
    "inter.broker.listener.name",
    "listener.security.protocol.map",
    "listeners",
    "log.dirs",
    "node.id",
    "process.roles",
];

/// Brokers that forget what nobody has used for [`FORGETS_AFTER`]: transactional ids, the state of
/// producers, the offsets of groups without members. By default it takes days.
pub const FORGETFUL: [&str; 6] = [
    "transactional.id.expiration.ms=60000",
    "transaction.remove.expired.transaction.cleanup.interval.ms=5000",
    "producer.id.expiration.ms=60000",
    "producer.id.expiration.check.interval.ms=5000",
    "offsets.retention.minutes=1",
    "offsets.retention.check.interval.ms=5000",
];
/// See [`FORGETFUL`]: after so long it certainly is forgotten.
pub const FORGETS_AFTER: Duration = Duration::from_secs(75);

/// The text of a broker's `server.properties`.
///
/// # Errors
/// When a property of the manifest is not `key=value`, or is one that the layout rests on.
pub fn render(manifest: &Manifest, broker: &Broker) -> anyhow::Result<String> {
    let mut all = layout(manifest, broker);
    all.extend(durability(manifest.brokers.len()));
    all.extend(owned(&SIZES));
    all.extend(owned(&INTERVALS));
    if manifest.kafka_version()?.major >= 4 {
        all.extend(share_groups(manifest.brokers.len()));
    }
    for property in &manifest.properties {
        let (key, value) = parse(property)?;
        all.insert(key.to_owned(), value.to_owned());
    }
    let lines = all.iter().map(|(key, value)| format!("{key}={value}\n"));
    Ok(lines.collect())
}

/// Key and value of `key=value`.
///
/// # Errors
/// When it is something else, or the key may not be set.
pub fn parse(property: &str) -> anyhow::Result<(&str, &str)> {
    let (key, value) = property
        .split_once('=')
        .with_context(|| format!("`{property}` is no property; write it as KEY=VALUE"))?;
    let (key, value) = (key.trim(), value.trim());
    let is_fit = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if key.is_empty() || !key.chars().all(is_fit) || value.contains(['\n', '\r']) {
        bail!("`{property}` is no property; write it as KEY=VALUE, in one line");
    }
    if FIXED.contains(&key) {
        bail!("`{key}` cannot be set: the layout of the cluster rests on it; leave it out");
    }
    Ok((key, value))
}

/// Who the broker is and where it listens.
fn layout(manifest: &Manifest, broker: &Broker) -> BTreeMap<String, String> {
    let voters = manifest
        .brokers
        .iter()
        .map(|voter| format!("{}@127.0.0.1:{}", voter.id, voter.controller_port));
    let at = |listener: &str, port: u16| format!("{listener}://127.0.0.1:{port}");
    let listeners = [
        at("DIRECT", broker.port),
        at("PROXIED", broker.proxied_port),
        at("CONTROLLER", broker.controller_port),
    ];
    let advertised = [
        at("DIRECT", broker.port),
        at("PROXIED", broker.advertised_port),
    ];
    let protocols = "DIRECT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT";
    let pairs = [
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", broker.id.to_string()),
        (
            "controller.quorum.voters",
            voters.collect::<Vec<_>>().join(","),
        ),
        ("listeners", listeners.join(",")),
        ("advertised.listeners", advertised.join(",")),
        ("listener.security.protocol.map", protocols.to_owned()),
        ("inter.broker.listener.name", "DIRECT".to_owned()),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("log.dirs", broker.folder.join("data").display().to_string()),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}

/// How many copies there are of everything, and how many a write waits for.
fn durability(brokers: usize) -> BTreeMap<String, String> {
    let copies = brokers.min(3).to_string();
    let in_sync = brokers.min(2).to_string();
    let pairs = [
        ("default.replication.factor", copies.as_str()),
        ("min.insync.replicas", &in_sync),
        ("offsets.topic.replication.factor", &copies),
        ("transaction.state.log.replication.factor", &copies),
        ("transaction.state.log.min.isr", &in_sync),
        ("unclean.leader.election.enable", "false"),
        ("auto.create.topics.enable", "false"),
    ];
    owned(&pairs)
}

/// From Kafka 4 on, share groups have an internal topic too.
fn share_groups(brokers: usize) -> BTreeMap<String, String> {
    let copies = brokers.min(3).to_string();
    let in_sync = brokers.min(2).to_string();
    owned(&[
        (
            "share.coordinator.state.topic.replication.factor",
            copies.as_str(),
        ),
        ("share.coordinator.state.topic.min.isr", &in_sync),
        ("share.coordinator.state.topic.num.partitions", "2"),
    ])
}

/// Three brokers beside a build, on two cores.
const SIZES: [(&str, &str); 9] = [
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("num.replica.fetchers", "1"),
    ("background.threads", "2"),
    ("num.recovery.threads.per.data.dir", "1"),
    // The default takes 128 MiB of the heap.
    ("log.cleaner.dedupe.buffer.size", "8388608"),
    ("num.partitions", "1"),
    ("offsets.topic.num.partitions", "10"),
    ("transaction.state.log.num.partitions", "10"),
];

/// Intervals in which a broker notices something, in milliseconds. None of them changes what is
/// noticed.
const INTERVALS: [(&str, &str); 11] = [
    // A dead broker is fenced after this time.
    ("broker.session.timeout.ms", "4000"),
    ("broker.heartbeat.interval.ms", "500"),
    ("group.initial.rebalance.delay.ms", "100"),
    // Groups may choose shorter session timeouts than by default.
    ("group.min.session.timeout.ms", "1000"),
    ("group.consumer.min.session.timeout.ms", "1000"),
    ("group.consumer.min.heartbeat.interval.ms", "200"),
    (
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        "1000",
    ),
    ("offsets.retention.check.interval.ms", "5000"),
    ("log.retention.check.interval.ms", "1000"),
    ("log.initial.task.delay.ms", "1000"),
    ("log.segment.delete.delay.ms", "1000"),
];

fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::example;
    use super::*;

    fn lines(manifest: &Manifest) -> anyhow::Result<Vec<String>> {
        let text = render(manifest, &manifest.brokers[0])?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    #[test]
    fn clients_of_the_proxied_listener_learn_the_advertised_port() -> anyhow::Result<()> {
        let lines = lines(&example(3))?;
        let listeners = "listeners=DIRECT://127.0.0.1:20004,PROXIED://127.0.0.1:20005,CONTROLLER://127.0.0.1:20007";
        assert!(lines.iter().any(|line| line == listeners), "{lines:?}");
        let advertised = "advertised.listeners=DIRECT://127.0.0.1:20004,PROXIED://127.0.0.1:20006";
        assert!(lines.iter().any(|line| line == advertised), "{lines:?}");
        let voters =
            "controller.quorum.voters=1@127.0.0.1:20007,2@127.0.0.1:20011,3@127.0.0.1:20015";
        assert!(lines.iter().any(|line| line == voters), "{lines:?}");
        Ok(())
    }

    #[test]
    fn copies_follow_the_number_of_brokers() -> anyhow::Result<()> {
        for (brokers, copies, in_sync) in
            [(1, "1", "1"), (2, "2", "2"), (3, "3", "2"), (5, "3", "2")]
        {
            let lines = lines(&example(brokers))?;
            for key in ["offsets.topic", "transaction.state.log", "default"] {
                let line = format!("{key}.replication.factor={copies}");
                assert!(lines.contains(&line), "{brokers} brokers: {line}");
            }
            assert!(lines.contains(&format!("min.insync.replicas={in_sync}")));
            assert!(lines.contains(&format!("transaction.state.log.min.isr={in_sync}")));
        }
        Ok(())
    }

    #[test]
    fn a_property_replaces_the_default_and_stands_once() -> anyhow::Result<()> {
        let mut manifest = example(3);
        manifest.properties = vec!["broker.session.timeout.ms = 9000".to_owned()];
        let lines = lines(&manifest)?;
        let about = |line: &&String| line.starts_with("broker.session.timeout.ms");
        let found: Vec<_> = lines.iter().filter(about).collect();
        assert_eq!(found, ["broker.session.timeout.ms=9000"]);
        Ok(())
    }

    #[test]
    fn properties_that_the_layout_rests_on_are_refused() {
        for key in FIXED {
            let error = parse(&format!("{key}=1")).unwrap_err().to_string();
            assert!(error.contains("leave it out"), "{error}");
        }
        for text in ["", "a", "=1", "a b=1", "a=1\nb=2"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("KEY=VALUE"), "{error}");
        }
    }

    #[test]
    fn only_kafka_4_has_a_topic_for_share_groups() -> anyhow::Result<()> {
        let mut manifest = example(3);
        let has = |lines: Vec<String>| lines.iter().any(|line| line.starts_with("share."));
        assert!(has(lines(&manifest)?));
        manifest.version = "3.9.2".to_owned();
        assert!(!has(lines(&manifest)?));
        Ok(())
    }
}
