//! The librdkafka adapter on a genuine cluster: `cargo xtask kafka up` starts one. Without it these
//! tests say so and do nothing.
#![allow(
    clippy::disallowed_methods,
    reason = "tests of a production adapter: real time, real brokers"
)]

use bytes::Bytes;
use futures_util::FutureExt as _;
use processor::adapters::kafka::{RdKafka, Role, client_config};
use processor::config::{KafkaConfig, ProcessorConfig};
use processor::io::{
    Consumer, ErrorClass, Kafka, KafkaResult, OffsetAndMetadata, Polled, ProducerRecord,
    TopicPartition, TransactionalProducer,
};
use processor::units::{LogTimeMs, Offset, PartitionId};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use std::future::Future;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const CALL: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(40);

/// The adapter's futures block instead of waiting.
fn now<T>(future: impl Future<Output = T>) -> T {
    future
        .now_or_never()
        .expect("the adapter blocks and does not wait")
}

struct Cluster {
    config: KafkaConfig,
    /// Older records would fall to the topic's retention.
    now_ms: i64,
}

impl Cluster {
    fn find(test: &str) -> Option<Cluster> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kafka/cluster.json");
        let Ok(text) = std::fs::read_to_string(file) else {
            eprintln!("skipped: no cluster; start one by `cargo xtask kafka up`");
            return None;
        };
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let name = format!("{test}-{}", nanos.as_nanos());
        let mut config = ProcessorConfig::from_toml(ProcessorConfig::example())
            .unwrap()
            .kafka;
        config.bootstrap_servers = found["bootstrap_servers"].as_str().unwrap().to_owned();
        config.group_id = format!("{name}-group");
        config.input_topic = format!("{name}-in");
        config.output_topic = format!("{name}-out");
        config.session_timeout_ms = 6_000;
        let cluster = Cluster {
            config,
            now_ms: i64::try_from(nanos.as_millis()).unwrap(),
        };
        cluster.create_topics();
        Some(cluster)
    }

    fn create_topics(&self) {
        let topics = [&self.config.input_topic, &self.config.output_topic];
        let topics: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|name| NewTopic::new(name, 2, TopicReplication::Fixed(-1)))
            .collect();
        let options = AdminOptions::new().operation_timeout(Some(CALL));
        let admin = self.admin();
        let results = wait_for(admin.create_topics(&topics, &options)).unwrap();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        let config = client_config(&self.config, Role::Admin).unwrap();
        config.create().unwrap()
    }

    fn kafka(&self) -> RdKafka {
        RdKafka::new(&self.config).unwrap()
    }

    fn input(&self, partition: i32) -> TopicPartition {
        TopicPartition {
            topic: self.config.input_topic.clone(),
            partition: PartitionId(partition),
        }
    }

    /// Appends records `from..to` to partition 0 of the input in one transaction.
    fn fill(&self, from: usize, to: usize) {
        // Tests run side by side on one cluster: a shared id would let one fence another.
        let filler = format!("{}-filler", self.config.input_topic);
        let mut producer = self.kafka().producer(&filler).unwrap();
        now(producer.init_transactions(CALL)).unwrap();
        producer.begin_transaction().unwrap();
        for number in from..to {
            now(producer.send(self.record(number))).unwrap();
        }
        now(producer.commit_transaction(CALL)).unwrap();
    }

    fn record(&self, number: usize) -> ProducerRecord {
        ProducerRecord {
            topic: self.config.input_topic.clone(),
            partition: Some(PartitionId(0)),
            timestamp: LogTimeMs(self.now_ms + number as i64),
            key: Some(Bytes::from_static(b"key")),
            value: Bytes::from(number.to_string()),
            headers: Vec::new(),
        }
    }

    fn member(&self) -> (<RdKafka as Kafka>::Consumer, Vec<PartitionId>) {
        let mut consumer = self.kafka().consumer(&self.config.group_id).unwrap();
        consumer.subscribe(&self.config.input_topic).unwrap();
        let assigned = until(&mut consumer, |polled| match polled {
            Polled::Assigned(partitions) => Some(partitions),
            _ => None,
        });
        consumer.accept(&assigned).unwrap();
        (consumer, assigned)
    }
}

/// Others use the cluster too, and damaged logs would never be in sync again.
impl Drop for Cluster {
    fn drop(&mut self) {
        let topics = [&self.config.input_topic, &self.config.output_topic].map(String::as_str);
        let options = AdminOptions::new().operation_timeout(Some(CALL));
        let admin = self.admin();
        let deleted = wait_for(admin.delete_topics(&topics, &options));
        // A test that fails must tell why, not end in a second panic.
        if !deleted.is_ok_and(|results| results.iter().all(Result::is_ok)) {
            eprintln!("the topics {topics:?} could not be deleted");
        }
    }
}

/// Admin clients need a runtime.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

/// Polls until `wanted` says what came.
fn until<C: Consumer, T>(consumer: &mut C, mut wanted: impl FnMut(Polled) -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    while std::time::Instant::now() < deadline {
        let polled = now(consumer.poll(Duration::from_millis(200))).unwrap();
        if let Some(found) = wanted(polled) {
            return found;
        }
    }
    panic!("it did not come");
}

/// Reads partition 0 to its end.
fn read_to_end<C: Consumer>(consumer: &mut C) -> Vec<String> {
    let mut seen = Vec::new();
    until(consumer, |polled| match polled {
        Polled::Records { partition, records } if partition.0 == 0 => {
            let texts = records
                .iter()
                .map(|r| String::from_utf8_lossy(r.value.as_ref().unwrap()).into_owned());
            seen.extend(texts);
            None
        }
        Polled::EndOfPartition { partition, .. } if partition.0 == 0 => Some(()),
        _ => None,
    });
    seen
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| number.to_string()).collect()
}

#[test]
fn nothing_is_repeated_or_skipped_over_ends_pauses_and_seeks() {
    let Some(cluster) = Cluster::find("pauses") else {
        return;
    };
    let (mut consumer, assigned) = cluster.member();
    assert_eq!(assigned.len(), 2);
    let p = PartitionId(0);
    consumer.start_at(p, Offset(0)).unwrap();
    assert_eq!(read_to_end(&mut consumer), Vec::<String>::new());
    for round in 0..4 {
        let (from, to) = (round * 3_000, (round + 1) * 3_000);
        // A pause right at the end, and one in the middle of what is buffered.
        consumer.pause(&[p]).unwrap();
        consumer.resume(&[p]).unwrap();
        cluster.fill(from, to);
        let mut seen = Vec::new();
        until(&mut consumer, |polled| match polled {
            Polled::Records { records, .. } => {
                seen.extend(
                    records
                        .iter()
                        .map(|r| String::from_utf8_lossy(r.value.as_ref().unwrap()).into_owned()),
                );
                Some(())
            }
            _ => None,
        });
        consumer.pause(&[p]).unwrap();
        assert_eq!(
            now(consumer.poll(Duration::from_millis(300))).unwrap(),
            Polled::TimedOut
        );
        consumer.resume(&[p]).unwrap();
        seen.extend(read_to_end(&mut consumer));
        assert_eq!(seen, numbers(from, to));
    }
    consumer.start_at(p, Offset(0)).unwrap();
    assert_eq!(read_to_end(&mut consumer), numbers(0, 12_000));
    now(consumer.close(CALL));
}

#[test]
fn records_keep_everything_they_were_sent_with() {
    let Some(cluster) = Cluster::find("fidelity") else {
        return;
    };
    let mut producer = cluster.kafka().producer("fidelity").unwrap();
    now(producer.init_transactions(CALL)).unwrap();
    producer.begin_transaction().unwrap();
    let mut record = cluster.record(7);
    record.key = None;
    record.headers = vec![
        processor::io::Header {
            name: "a".into(),
            value: Bytes::from_static(b"\x00\xff"),
        },
        processor::io::Header {
            name: "a".into(),
            value: Bytes::new(),
        },
    ];
    now(producer.send(record.clone())).unwrap();
    now(producer.commit_transaction(CALL)).unwrap();
    assert!(!producer.is_tainted());
    let (mut consumer, _) = cluster.member();
    consumer.start_at(PartitionId(0), Offset(0)).unwrap();
    let got = until(&mut consumer, |polled| match polled {
        Polled::Records { records, .. } => Some(records[0].clone()),
        _ => None,
    });
    assert_eq!((got.offset, got.timestamp), (Offset(0), record.timestamp));
    assert_eq!((got.key, got.value.unwrap()), (None, record.value));
    assert_eq!(got.headers, record.headers);
    now(consumer.close(CALL));
}

#[test]
fn offsets_and_their_metadata_are_committed_with_the_transaction() {
    let Some(cluster) = Cluster::find("offsets") else {
        return;
    };
    let (mut consumer, _) = cluster.member();
    let group = consumer.group_metadata().expect("a member has an identity");
    let mut producer = cluster.kafka().producer("offsets").unwrap();
    now(producer.init_transactions(CALL)).unwrap();
    let commit = |offset: i64, metadata: &str| OffsetAndMetadata {
        tp: cluster.input(0),
        offset: Offset(offset),
        metadata: metadata.to_owned(),
    };
    producer.begin_transaction().unwrap();
    now(producer.send_offsets_to_transaction(&[commit(5, "five")], &group, CALL)).unwrap();
    // Pending offsets make a stable fetch wait.
    let waiting = now(consumer.committed(&[cluster.input(0)], Duration::from_secs(1)));
    assert_eq!(waiting.unwrap_err().class, ErrorClass::Retriable);
    now(producer.abort_transaction(CALL)).unwrap();
    assert_eq!(
        now(consumer.committed(&[cluster.input(0)], CALL)).unwrap(),
        vec![None]
    );
    producer.begin_transaction().unwrap();
    now(producer.send_offsets_to_transaction(&[commit(6, "six")], &group, CALL)).unwrap();
    now(producer.commit_transaction(CALL)).unwrap();
    let found = now(consumer.committed(&[cluster.input(1), cluster.input(0)], CALL)).unwrap();
    assert_eq!(found[0], None);
    let six = found[1].clone().unwrap();
    assert_eq!((six.offset, six.metadata.as_str()), (Offset(6), "six"));
    assert!(!producer.is_tainted());
    now(consumer.close(CALL));
}

#[test]
fn a_second_producer_with_the_same_id_fences_the_first() {
    let Some(cluster) = Cluster::find("fence") else {
        return;
    };
    let mut first = cluster.kafka().producer("same").unwrap();
    now(first.init_transactions(CALL)).unwrap();
    first.begin_transaction().unwrap();
    now(first.send(cluster.record(1))).unwrap();
    let mut second = cluster.kafka().producer("same").unwrap();
    now(second.init_transactions(CALL)).unwrap();
    let ended: KafkaResult<()> = now(first.commit_transaction(CALL));
    assert_eq!(ended.unwrap_err().class, ErrorClass::Fenced);
}

#[test]
fn topics_have_ids_and_bounds() {
    let Some(cluster) = Cluster::find("topics") else {
        return;
    };
    cluster.fill(0, 10);
    let (mut consumer, _) = cluster.member();
    let topic = cluster.config.input_topic.clone();
    let found = now(consumer.describe_topic(&topic, CALL)).unwrap();
    assert_eq!(found.partitions, 2);
    assert!(found.topic_id.is_some());
    let bounds = now(consumer.bounds(PartitionId(0), CALL)).unwrap();
    // The control record of the commit takes an offset.
    assert_eq!(
        (bounds.earliest, bounds.last_stable),
        (Offset(0), Offset(11))
    );
    let missing = now(consumer.describe_topic("no-such-topic", CALL)).unwrap_err();
    assert_eq!(missing.class, ErrorClass::Fatal);
    now(consumer.close(CALL));
}

#[test]
fn partitions_move_between_members_without_loss() {
    for protocol in [
        processor::config::RebalanceProtocol::Cooperative,
        processor::config::RebalanceProtocol::Eager,
    ] {
        let Some(mut cluster) = Cluster::find("move") else {
            return;
        };
        cluster.config.rebalance_protocol = protocol;
        cluster.fill(0, 100);
        let (mut first, both) = cluster.member();
        for &partition in &both {
            first.start_at(partition, Offset(0)).unwrap();
        }
        assert_eq!(read_to_end(&mut first), numbers(0, 100));
        let mut second = cluster.kafka().consumer(&cluster.config.group_id).unwrap();
        second.subscribe(&cluster.config.input_topic).unwrap();
        let mut of_first = both.clone();
        let mut of_second = Vec::new();
        let step = Duration::from_millis(50);
        let deadline = std::time::Instant::now() + PATIENCE;
        while (of_first.len(), of_second.len()) != (1, 1) && std::time::Instant::now() < deadline {
            match now(first.poll(step)).unwrap() {
                Polled::Revoked(partitions) => {
                    of_first.retain(|p| !partitions.contains(p));
                    first.release(&partitions).unwrap();
                }
                Polled::Assigned(partitions) => {
                    first.accept(&partitions).unwrap();
                    of_first.extend(partitions);
                }
                Polled::Lost(partitions) => panic!("lost {partitions:?}"),
                _ => {}
            }
            match now(second.poll(step)).unwrap() {
                Polled::Assigned(partitions) => {
                    second.accept(&partitions).unwrap();
                    of_second.extend(partitions);
                }
                Polled::Revoked(partitions) => {
                    of_second.retain(|p| !partitions.contains(p));
                    second.release(&partitions).unwrap();
                }
                _ => {}
            }
        }
        assert_eq!((of_first.len(), of_second.len()), (1, 1), "{protocol:?}");
        now(second.close(CALL));
        now(first.close(CALL));
    }
}

#[test]
fn a_member_that_leaves_in_the_middle_of_a_rebalance_is_gone_at_once() {
    let Some(cluster) = Cluster::find("leave") else {
        return;
    };
    // The only member: its assignment is not answered when it leaves.
    let mut first = cluster.kafka().consumer(&cluster.config.group_id).unwrap();
    first.subscribe(&cluster.config.input_topic).unwrap();
    until(&mut first, |polled| {
        matches!(polled, Polled::Assigned(_)).then_some(())
    });
    now(first.close(CALL));
    // A standby: two partitions, and a third member that gets none.
    let (mut second, _) = cluster.member();
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut other = cluster.kafka().consumer(&cluster.config.group_id).unwrap();
        other.subscribe(&cluster.config.input_topic).unwrap();
        others.push(other);
    }
    for _ in 0..40 {
        let step = Duration::from_millis(50);
        match now(second.poll(step)).unwrap() {
            Polled::Revoked(partitions) => second.release(&partitions).unwrap(),
            Polled::Assigned(partitions) => second.accept(&partitions).unwrap(),
            _ => {}
        }
        for other in &mut others {
            now(other.poll(Duration::ZERO)).unwrap();
        }
    }
    for other in others {
        now(other.close(CALL));
    }
    now(second.close(CALL));
    // Nobody waits for a session of the dead: the next member owns everything.
    let (last, assigned) = cluster.member();
    assert_eq!(assigned.len(), 2);
    now(last.close(CALL));
}

#[test]
fn a_position_given_during_a_rebalance_holds_after_it() {
    let Some(cluster) = Cluster::find("during") else {
        return;
    };
    cluster.fill(0, 50);
    let (mut first, _) = cluster.member();
    let mut second = cluster.kafka().consumer(&cluster.config.group_id).unwrap();
    second.subscribe(&cluster.config.input_topic).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    let taken = loop {
        assert!(std::time::Instant::now() < deadline, "nothing was revoked");
        if let Polled::Assigned(partitions) = now(second.poll(Duration::ZERO)).unwrap() {
            second.accept(&partitions).unwrap();
        }
        match now(first.poll(Duration::from_millis(50))).unwrap() {
            Polled::Revoked(partitions) => break partitions,
            Polled::Assigned(partitions) => first.accept(&partitions).unwrap(),
            _ => {}
        }
    };
    let kept: Vec<i32> = (0..2)
        .filter(|p| !taken.contains(&PartitionId(*p)))
        .collect();
    assert_eq!(kept.len(), 1);
    // Unanswered; the kept partition gets its position now.
    first.start_at(PartitionId(kept[0]), Offset(0)).unwrap();
    first.release(&taken).unwrap();
    let ended = loop {
        assert!(
            std::time::Instant::now() < deadline + PATIENCE,
            "no end was told"
        );
        if let Polled::Assigned(partitions) = now(second.poll(Duration::ZERO)).unwrap() {
            second.accept(&partitions).unwrap();
        }
        match now(first.poll(Duration::from_millis(50))).unwrap() {
            Polled::EndOfPartition { partition, .. } => break partition.0,
            Polled::Records { partition, records } => {
                assert_eq!((partition.0, records[0].offset), (0, Offset(0)));
            }
            Polled::Assigned(partitions) => first.accept(&partitions).unwrap(),
            Polled::Revoked(partitions) => first.release(&partitions).unwrap(),
            Polled::Lost(_) | Polled::TimedOut => {}
        }
    };
    assert_eq!(ended, kept[0]);
    drop(second);
    now(first.close(CALL));
}

#[test]
fn a_pause_that_ends_during_a_rebalance_is_over_after_it() {
    let Some(cluster) = Cluster::find("resumed") else {
        return;
    };
    let (mut first, _) = cluster.member();
    for partition in [PartitionId(0), PartitionId(1)] {
        first.start_at(partition, Offset(0)).unwrap();
    }
    let mut second = cluster.kafka().consumer(&cluster.config.group_id).unwrap();
    second.subscribe(&cluster.config.input_topic).unwrap();
    first.pause(&[PartitionId(0), PartitionId(1)]).unwrap();
    let taken = until(&mut first, |polled| match polled {
        Polled::Revoked(partitions) => Some(partitions),
        _ => {
            now(second.poll(Duration::ZERO)).unwrap();
            None
        }
    });
    // Unanswered.
    first.resume(&[PartitionId(0), PartitionId(1)]).unwrap();
    first.release(&taken).unwrap();
    let kept = if taken.contains(&PartitionId(0)) {
        1
    } else {
        0
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    let ended = loop {
        assert!(std::time::Instant::now() < deadline, "it stands still");
        if let Polled::Assigned(partitions) = now(second.poll(Duration::ZERO)).unwrap() {
            second.accept(&partitions).unwrap();
        }
        match now(first.poll(Duration::from_millis(50))).unwrap() {
            Polled::EndOfPartition { partition, .. } => break partition.0,
            Polled::Assigned(partitions) => first.accept(&partitions).unwrap(),
            Polled::Revoked(partitions) => first.release(&partitions).unwrap(),
            Polled::Records { .. } | Polled::Lost(_) | Polled::TimedOut => {}
        }
    };
    assert_eq!(ended, kept);
    now(second.close(CALL));
    now(first.close(CALL));
}

/// Turns the first byte of `needle` over wherever a replica of the topic's partition 0 holds it.
fn damage(cluster: &serde_json::Value, topic: &str, needle: &[u8]) -> usize {
    let mut damaged = 0;
    for broker in cluster["brokers"].as_array().unwrap() {
        let folder = Path::new(broker["folder"].as_str().unwrap());
        let log = format!("data/{topic}-0/00000000000000000000.log");
        let log = folder.join(log);
        let Ok(mut bytes) = std::fs::read(&log) else {
            continue; // no replica here
        };
        let at = bytes.windows(needle.len()).position(|w| w == needle);
        let Some(at) = at else { continue };
        bytes[at] ^= 0x01;
        let file = std::fs::OpenOptions::new().write(true).open(&log).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes[at..=at], at as u64).unwrap();
        damaged += 1;
    }
    damaged
}

#[test]
fn records_with_a_wrong_crc_end_the_consumer_and_nothing_after_them_is_delivered() {
    let Some(cluster) = Cluster::find("damaged") else {
        return;
    };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kafka/cluster.json");
    let manifest: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for number in [770_001, 770_002, 770_003] {
        cluster.fill(number, number + 1);
    }
    assert_eq!(damage(&manifest, &cluster.config.input_topic, b"770002"), 3);
    let (mut consumer, _) = cluster.member();
    consumer.start_at(PartitionId(0), Offset(0)).unwrap();
    let mut seen = Vec::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    let error = loop {
        assert!(
            std::time::Instant::now() < deadline,
            "no error; seen: {seen:?}"
        );
        match now(consumer.poll(Duration::from_millis(200))) {
            Ok(Polled::Records { records, .. }) => {
                seen.extend(records.into_iter().filter_map(|record| record.value));
            }
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.code.starts_with("_BAD_MSG"), "{error}");
    assert!(error.code.contains("kafka-leader-election"), "{error}");
    let before = [Bytes::from_static(b"770001")];
    assert!(seen.is_empty() || seen == before, "{seen:?}");
}
