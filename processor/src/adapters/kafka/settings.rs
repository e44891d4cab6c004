//! From the configuration to librdkafka's properties, and which of them nobody may change.
//!
//! Comes in: `[kafka]` and its free-form `[kafka.properties]`. Goes out: properties for each kind of
//! client.
//! Never here: a connection.

use crate::config::{KafkaConfig, RebalanceProtocol};
use rdkafka::ClientConfig;
use std::collections::BTreeMap;

/// What a client is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role<'a> {
    /// The worker's consumer: member of the configured group.
    Consumer,
    /// The worker's producer.
    TransactionalProducer {
        /// Its `transactional.id`.
        transactional_id: &'a str,
    },
    /// An idempotent producer outside of transactions.
    Producer,
    /// A reader outside of the group: read_committed, from the beginning, never commits. Its `group.id`
    /// is the configured group, so that it can ask for the group's committed offsets; it must not
    /// subscribe.
    Reader,
    /// Administration.
    Admin,
}

/// A property in `[kafka.properties]` that this program must set itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kafka.properties.\"{key}\" cannot be set: {reason}; remove it")]
pub struct ProtectedProperty {
    /// The property.
    pub key: String,
    /// Why, and what to set instead.
    pub reason: &'static str,
}

/// Properties that exactly-once rests on, or that have a key of their own.
const PROTECTED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is kafka.bootstrap_servers"),
    ("metadata.broker.list", "it is kafka.bootstrap_servers"),
    ("group.id", "it is kafka.group_id"),
    (
        "transactional.id",
        "it is made of kafka.group_id and worker.ordinal, so that a restart fences its predecessor",
    ),
    (
        "transaction.timeout.ms",
        "it is kafka.transaction_timeout_ms",
    ),
    ("session.timeout.ms", "it is kafka.session_timeout_ms"),
    ("max.poll.interval.ms", "it is kafka.max_poll_interval_ms"),
    ("message.max.bytes", "it is kafka.max_message_bytes"),
    (
        "isolation.level",
        "only read_committed keeps open and aborted records out, and makes offset fetches wait for pending commits",
    ),
    (
        "enable.auto.commit",
        "offsets are committed only inside of transactions",
    ),
    (
        "auto.commit.enable",
        "offsets are committed only inside of transactions",
    ),
    (
        "auto.commit.interval.ms",
        "offsets are committed only inside of transactions",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed only inside of transactions",
    ),
    (
        "auto.offset.reset",
        "a position that is gone must stop the processor, not move it",
    ),
    ("enable.idempotence", "transactions need it"),
    (
        "enable.gapless.guarantee",
        "the transaction decides what becomes visible",
    ),
    ("acks", "only acks=all survives the loss of a leader"),
    (
        "request.required.acks",
        "only acks=all survives the loss of a leader",
    ),
    (
        "max.in.flight",
        "idempotence allows at most 5, which is set",
    ),
    (
        "max.in.flight.requests.per.connection",
        "idempotence allows at most 5, which is set",
    ),
    ("retries", "idempotence retries until delivery.timeout.ms"),
    (
        "message.send.max.retries",
        "idempotence retries until delivery.timeout.ms",
    ),
    (
        "delivery.timeout.ms",
        "it follows kafka.transaction_timeout_ms",
    ),
    (
        "message.timeout.ms",
        "it follows kafka.transaction_timeout_ms",
    ),
    (
        "partitioner",
        "the same key must go to the same partition as with the Java client",
    ),
    (
        "partition.assignment.strategy",
        "it is kafka.rebalance_protocol",
    ),
    (
        "group.protocol",
        "rebalances follow kafka.rebalance_protocol",
    ),
    (
        "group.instance.id",
        "a restarted worker must get a new generation, so that its predecessor is fenced",
    ),
    (
        "enable.partition.eof",
        "idle partitions and the end of a replay are found by it",
    ),
    ("check.crcs", "torn records must be noticed"),
    (
        "allow.auto.create.topics",
        "a topic made by accident has the wrong replication; see `processor topics create`",
    ),
    ("log.queue", "logs go where [log] says"),
    (
        "enable.sasl.oauthbearer.unsecure.jwt",
        "it is for trials without security only",
    ),
    (
        "client.rack",
        "a follower may lag behind what its leader has committed; reads go to leaders",
    ),
    (
        "heartbeat.interval.ms",
        "it follows kafka.session_timeout_ms",
    ),
    (
        "fetch.queue.backoff.ms",
        "it is set low, so that a full queue does not stop fetching",
    ),
    ("group.protocol.type", "the group is one of consumers"),
    (
        "topic.blacklist",
        "the processor reads and writes exactly the topics of [kafka]",
    ),
    (
        "api.version.request",
        "without it, old requests are used that know no transactions",
    ),
    (
        "api.version.fallback.ms",
        "after a failed request, old ones would be used that know no transactions",
    ),
    (
        "broker.version.fallback",
        "with an old one, requests are used that know no transactions",
    ),
    (
        "plugin.library.paths",
        "no other code may run inside of the client",
    ),
    (
        "test.mock.num.brokers",
        "it is for tests of librdkafka: its brokers know no transactions",
    ),
    ("test.mock.broker.rtt", "it is for tests of librdkafka"),
    ("ut_handle_ProduceResponse", "it is for tests of librdkafka"),
    ("enable.random.seed", "it is librdkafka's own affair"),
];

/// The first property of `properties` that may not be there.
///
/// # Errors
/// [`ProtectedProperty`], with the reason.
pub fn check_properties(properties: &BTreeMap<String, String>) -> Result<(), ProtectedProperty> {
    for &(key, reason) in PROTECTED {
        // librdkafka trims nothing, so neither does this.
        if properties.contains_key(key) {
            return Err(ProtectedProperty {
                key: key.to_owned(),
                reason,
            });
        }
    }
    Ok(())
}

/// librdkafka's properties for a client.
///
/// # Errors
/// [`ProtectedProperty`] when the configuration sets one that this program must set itself.
pub fn client_config(
    config: &KafkaConfig,
    role: Role<'_>,
) -> Result<ClientConfig, ProtectedProperty> {
    check_properties(&config.properties)?;
    let mut client = ClientConfig::new();
    for (key, value) in &config.properties {
        client.set(key, value);
    }
    for (key, value) in own_properties(config, role) {
        client.set(key, value);
    }
    Ok(client)
}

/// The same as pairs, for a client that is made without the `rdkafka` crate.
///
/// # Errors
/// As for [`client_config`].
pub(super) fn properties(
    config: &KafkaConfig,
    role: Role<'_>,
) -> Result<BTreeMap<String, String>, ProtectedProperty> {
    check_properties(&config.properties)?;
    let mut all = config.properties.clone();
    for (key, value) in own_properties(config, role) {
        all.insert(key.to_owned(), value);
    }
    Ok(all)
}

fn own_properties(config: &KafkaConfig, role: Role<'_>) -> Vec<(&'static str, String)> {
    let mut own = vec![
        ("bootstrap.servers", config.bootstrap_servers.clone()),
        ("allow.auto.create.topics", "false".to_owned()),
    ];
    if !config.properties.contains_key("client.id") {
        own.push(("client.id", format!("tickproof-{}", config.group_id)));
    }
    match role {
        Role::Consumer => own.extend(consumer_properties(config)),
        Role::TransactionalProducer { transactional_id } => {
            own.extend(producer_properties(config));
            own.push(("transactional.id", transactional_id.to_owned()));
            let timeout = config.transaction_timeout_ms;
            own.push(("transaction.timeout.ms", timeout.to_string()));
            // A record that is not delivered while its transaction lives never will be.
            own.push(("delivery.timeout.ms", timeout.to_string()));
        }
        Role::Producer => own.extend(producer_properties(config)),
        Role::Reader => {
            own.extend(reading_properties());
            own.push(("group.id", config.group_id.clone()));
            own.push(("auto.offset.reset", "error".to_owned()));
        }
        Role::Admin => {}
    }
    own
}

fn reading_properties() -> Vec<(&'static str, String)> {
    [
        // By default, a full local queue stops fetching for a whole second.
        ("fetch.queue.backoff.ms", "2"),
        ("isolation.level", "read_committed"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "true"),
        ("check.crcs", "true"),
    ]
    .map(|(key, value)| (key, value.to_owned()))
    .to_vec()
}

fn consumer_properties(config: &KafkaConfig) -> Vec<(&'static str, String)> {
    let strategy = match config.rebalance_protocol {
        RebalanceProtocol::Cooperative => "cooperative-sticky",
        RebalanceProtocol::Eager => "range,roundrobin",
    };
    // A third of the session, as Kafka's own clients do.
    let heartbeat_ms = (config.session_timeout_ms / 3).clamp(100, 3_000);
    let mut own = reading_properties();
    own.extend([
        ("group.id", config.group_id.clone()),
        ("auto.offset.reset", "error".to_owned()),
        ("partition.assignment.strategy", strategy.to_owned()),
        ("session.timeout.ms", config.session_timeout_ms.to_string()),
        ("heartbeat.interval.ms", heartbeat_ms.to_string()),
        (
            "max.poll.interval.ms",
            // librdkafka wants it at least as long as the session.
            config
                .max_poll_interval_ms
                .max(config.session_timeout_ms)
                .to_string(),
        ),
    ]);
    own
}

fn producer_properties(config: &KafkaConfig) -> Vec<(&'static str, String)> {
    let unless_set = |key: &'static str, value: &str| {
        let given = config.properties.get(key);
        (key, given.cloned().unwrap_or_else(|| value.to_owned()))
    };
    vec![
        ("enable.idempotence", "true".to_owned()),
        ("acks", "all".to_owned()),
        ("max.in.flight", "5".to_owned()),
        ("partitioner", "murmur2_random".to_owned()),
        ("message.max.bytes", config.max_message_bytes.to_string()),
        // Batches fill while a commit's outputs are queued; the commit flushes, so lingering only delays.
        unless_set("linger.ms", "0"),
        // A coordinator that is busy with this transaction's last request says so, and is ready soon.
        unless_set("retry.backoff.ms", "10"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProcessorConfig;

    fn with(key: &str, value: &str) -> KafkaConfig {
        let mut config = ProcessorConfig::from_toml(ProcessorConfig::example())
            .expect("the example is valid")
            .kafka;
        config.properties.insert(key.to_owned(), value.to_owned());
        config
    }

    #[test]
    fn what_exactly_once_depends_on_cannot_be_set() {
        for &(key, _) in PROTECTED {
            let error = client_config(&with(key, "x"), Role::Consumer).unwrap_err();
            assert_eq!(error.key, key);
            let text = error.to_string();
            assert!(text.contains(key) && text.ends_with("remove it"), "{text}");
        }
    }

    #[test]
    fn other_properties_reach_every_client() {
        let config = with("security.protocol", "SASL_SSL");
        let producer = Role::TransactionalProducer {
            transactional_id: "g-0",
        };
        for role in [
            Role::Consumer,
            producer,
            Role::Producer,
            Role::Reader,
            Role::Admin,
        ] {
            let client = client_config(&config, role).unwrap();
            assert_eq!(client.get("security.protocol"), Some("SASL_SSL"));
        }
        let client = client_config(&config, producer).unwrap();
        assert_eq!(client.get("transactional.id"), Some("g-0"));
        assert_eq!(client.get("acks"), Some("all"));
        let reader = client_config(&config, Role::Reader).unwrap();
        assert_eq!(reader.get("isolation.level"), Some("read_committed"));
    }

    #[test]
    fn librdkafka_takes_every_role_s_properties() {
        let config = with("client.id", "mine");
        let producer = Role::TransactionalProducer {
            transactional_id: "g-0",
        };
        for role in [
            Role::Consumer,
            producer,
            Role::Producer,
            Role::Reader,
            Role::Admin,
        ] {
            let client = client_config(&config, role).unwrap();
            assert_eq!(client.get("client.id"), Some("mine"));
            client.create_native_config().unwrap();
        }
    }
}
