//! Calls of the librdkafka adapter end in time, whatever the brokers do. The brokers are those that
//! librdkafka brings along for tests.
#![allow(
    clippy::disallowed_methods,
    reason = "tests of a production adapter: real time, real sockets"
)]

use futures_util::FutureExt as _;
use processor::adapters::kafka::RdKafka;
use processor::config::{KafkaConfig, ProcessorConfig};
use processor::io::{
    Consumer, ErrorClass, Kafka, OffsetAndMetadata, Polled, TopicPartition, TransactionalProducer,
};
use processor::units::{Offset, PartitionId};
use rdkafka::mocking::{MockCluster, MockCoordinator};
use std::future::Future;
use std::time::{Duration, Instant};

const CALL: Duration = Duration::from_secs(10);
/// What a call is given whose answer cannot come.
const SHORT: Duration = Duration::from_millis(500);
/// Far more than a call that keeps its limit takes on a busy machine.
const MUCH_LATER: Duration = Duration::from_secs(20);
const GROUP_COORDINATOR: i32 = 2;

/// The adapter's futures block instead of waiting.
fn now<T>(future: impl Future<Output = T>) -> T {
    future
        .now_or_never()
        .expect("the adapter blocks and does not wait")
}

fn config(brokers: String) -> KafkaConfig {
    let mut config = ProcessorConfig::from_toml(ProcessorConfig::example())
        .unwrap()
        .kafka;
    config.bootstrap_servers = brokers;
    config
}

fn member(
    kafka: &mut RdKafka,
    config: &KafkaConfig,
) -> (<RdKafka as Kafka>::Consumer, PartitionId) {
    let mut consumer = kafka.consumer(&config.group_id).unwrap();
    consumer.subscribe(&config.input_topic).unwrap();
    let deadline = Instant::now() + MUCH_LATER;
    while Instant::now() < deadline {
        let polled = now(consumer.poll(Duration::from_millis(200))).unwrap();
        if let Polled::Assigned(partitions) = polled {
            consumer.accept(&partitions).unwrap();
            return (consumer, partitions[0]);
        }
    }
    panic!("the member gets no partition");
}

/// librdkafka waits for a group coordinator that is down until some broker comes or goes.
#[test]
fn offsets_for_a_coordinator_that_is_down_end_in_time_and_the_producer_is_replaced() {
    let brokers = MockCluster::new(3).unwrap();
    let config = config(brokers.bootstrap_servers());
    brokers.create_topic(&config.input_topic, 1, 3).unwrap();
    let group = || MockCoordinator::Group(config.group_id.clone());
    let transactional = || MockCoordinator::Transaction("t".to_owned());
    brokers.coordinator(group(), GROUP_COORDINATOR).unwrap();
    brokers.coordinator(transactional(), 1).unwrap();
    let mut kafka = RdKafka::new(&config).unwrap();
    let (consumer, partition) = member(&mut kafka, &config);
    let generation = consumer.group_metadata().unwrap();
    let offsets = [OffsetAndMetadata {
        tp: TopicPartition {
            topic: config.input_topic.clone(),
            partition,
        },
        offset: Offset(1),
        metadata: "record".to_owned(),
    }];
    let mut producer = kafka.producer("t").unwrap();
    now(producer.init_transactions(CALL)).unwrap();
    producer.begin_transaction().unwrap();
    brokers.broker_down(GROUP_COORDINATOR).unwrap();

    let begun = Instant::now();
    let sent = now(producer.send_offsets_to_transaction(&offsets, &generation, SHORT));
    let error = sent.unwrap_err();
    assert!(begun.elapsed() < MUCH_LATER, "{:?}", begun.elapsed());
    assert_eq!(error.class, ErrorClass::OutcomeUnknown, "{error}");
    assert!(producer.is_tainted());
    let again = now(producer.send_offsets_to_transaction(&offsets, &generation, SHORT));
    assert_eq!(again.unwrap_err().class, ErrorClass::OutcomeUnknown);
    drop(producer);
    assert!(begun.elapsed() < MUCH_LATER, "{:?}", begun.elapsed());

    brokers.broker_up(GROUP_COORDINATOR).unwrap();
    let mut next = kafka.producer("t").unwrap();
    now(next.init_transactions(CALL)).unwrap();
    next.begin_transaction().unwrap();
    now(next.send_offsets_to_transaction(&offsets, &generation, CALL)).unwrap();
    now(next.commit_transaction(CALL)).unwrap();
    assert!(!next.is_tainted());
}
