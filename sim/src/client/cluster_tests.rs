//! The client against the real cluster model, over the fabric's network.

use super::{ClientSettings, SimConsumer, SimKafka, SimProducer, WorkloadProducer};
use crate::fabric::actor::{Address, HostId, Micros};
use crate::fabric::network::{Rule, Trouble};
use crate::fabric::{Fabric, Step};
use crate::kafka::protocol::{BrokerId, LogTimeMs, Offset, PartitionId, RebalanceProtocol};
use crate::kafka::{Broker, ClusterConfig, Controller, Directory, TopicConfig};
use bytes::Bytes;
use processor::io::{
    self, Consumer, ErrorClass, Kafka, KafkaResult, OffsetAndMetadata, Polled, ProducerRecord,
    TransactionalProducer,
};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const INPUT: &str = "input";
const OUTPUT: &str = "output";
const SECOND: Duration = Duration::from_secs(1);
/// More events than any of these tests needs.
const EVENTS_MAX: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(60);

fn of_input(partition: PartitionId) -> io::TopicPartition {
    io::TopicPartition {
        topic: INPUT.into(),
        partition,
    }
}

struct World {
    fabric: Fabric,
    directory: Arc<Vec<(BrokerId, Address)>>,
}

fn config() -> ClusterConfig {
    let topic = |name: &str, partitions| TopicConfig {
        name: name.into(),
        topic_id: format!("id-{name}").into(),
        partitions,
        shown_partitions: partitions,
        log_append_time: false,
        min_insync_replicas: None,
    };
    ClusterConfig {
        topics: vec![
            topic("__consumer_offsets", 3),
            topic("__transaction_state", 3),
            topic(INPUT, 3),
            topic(OUTPUT, 2),
        ],
        brokers: 3,
        min_insync_replicas: 2,
        replica_lag_time_max_ms: 10_000,
        replica_fetch_wait_max_ms: 500,
        broker_session_timeout_ms: 9_000,
        broker_heartbeat_interval_ms: 2_000,
        transaction_cleanup_interval_ms: 2_000,
        transaction_max_timeout_ms: 900_000,
        group_initial_rebalance_delay_ms: 100,
        message_max_bytes: 1_000_000,
        transactional_id_expiration_ms: 7 * 86_400_000,
        producer_id_expiration_ms: 86_400_000,
        transaction_verification: true,
        broken: None,
        unix_ms_at_zero: 1_700_000_000_000,
    }
}

fn settings(protocol: RebalanceProtocol) -> ClientSettings {
    ClientSettings {
        protocol,
        session_timeout_ms: 10_000,
        transaction_timeout_ms: 10_000,
        request_timeout_ms: 2_000,
        ..ClientSettings::default()
    }
}

impl World {
    /// Hosts: 0 controller, 1 to 3 brokers, 4 and 5 workers, 6 producer.
    fn new(seed: u64) -> World {
        let names = ["controller", "b1", "b2", "b3", "w0", "w1", "producer"];
        let fabric = Fabric::new(seed, &names.map(String::from), 1, false);
        let config = Arc::new(config());
        let brokers: Vec<_> = (1..=3).map(|id| (BrokerId(id), Address(id))).collect();
        let directory = Arc::new(Directory {
            controller: Address(0),
            brokers: brokers.clone(),
        });
        let controller = Controller::new(config.clone(), directory.clone());
        fabric.spawn_actor(HostId(0), controller);
        for (id, address) in &brokers {
            let broker = Broker::new(*id, config.clone(), directory.clone());
            let host = HostId(u16::try_from(id.0).expect("small"));
            let handle = fabric.spawn_actor(host, broker);
            assert_eq!(handle.address(), *address);
        }
        World {
            fabric,
            directory: Arc::new(brokers),
        }
    }

    fn kafka(&self, host: u16, protocol: RebalanceProtocol) -> SimKafka {
        let directory = self.directory.clone();
        SimKafka::new(
            self.fabric.clone(),
            HostId(host),
            directory,
            settings(protocol),
        )
    }

    /// Lets the world run until a call is over.
    fn run<F: Future>(&self, call: F) -> F::Output {
        let mut call = pin!(call);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(result) = call.as_mut().poll(&mut context) {
                return result;
            }
            assert_ne!(
                self.fabric.step(),
                Step::Idle,
                "nothing will happen any more"
            );
            let (events, now) = (self.fabric.events(), self.fabric.now());
            assert!(events < EVENTS_MAX, "the world spins at {} ms", now.as_ms());
        }
    }

    /// Puts `count` numbered records into the input topic.
    fn fill(&self, count: usize) {
        let settings = settings(RebalanceProtocol::Cooperative);
        let directory = self.directory.clone();
        let host = HostId(6);
        let producer = WorkloadProducer::new(&self.fabric, host, directory, settings, "load");
        for number in 0..count {
            let text = Bytes::from(number.to_string());
            producer.send(INPUT, Some(text.clone()), Some(text), LogTimeMs(5));
        }
        let deadline = self.fabric.now().plus_ms(600_000);
        assert!(self.run(producer.flush(deadline)));
        assert_eq!(producer.outstanding(), 0);
    }

    /// Polls until there is an event or a record.
    fn poll(&self, consumer: &mut SimConsumer) -> Polled {
        self.run(consumer.poll(SECOND)).expect("not fatal")
    }

    /// Accepts and starts at the committed offsets or 0.
    fn start(&self, consumer: &mut SimConsumer, partitions: &[PartitionId]) {
        consumer.accept(partitions).expect("offered");
        let asked: Vec<io::TopicPartition> = partitions.iter().map(|&p| of_input(p)).collect();
        let committed = self
            .run(consumer.committed(&asked, PATIENCE))
            .expect("the cluster answers");
        for (&partition, committed) in partitions.iter().zip(committed) {
            let offset = committed.map_or(Offset(0), |committed| committed.offset);
            consumer.start_at(partition, offset).expect("owned");
        }
    }

    /// Everything that a read_committed consumer sees in a topic, as text.
    fn read_all(&self, topic: &str, group: &str) -> Vec<String> {
        let mut kafka = self.kafka(5, RebalanceProtocol::Eager);
        let mut consumer = kafka.consumer(group).expect("made");
        consumer.subscribe(topic).expect("subscribed");
        let mut seen = Vec::new();
        let mut ends = BTreeMap::new();
        let mut owned = Vec::new();
        while owned.is_empty() || ends.len() < owned.len() {
            match self.poll(&mut consumer) {
                Polled::Assigned(partitions) => {
                    self.start(&mut consumer, &partitions);
                    owned = partitions;
                }
                Polled::Records { records, .. } => {
                    let values = records.iter().filter_map(|record| record.value.as_ref());
                    seen.extend(values.map(|v| String::from_utf8_lossy(v).into_owned()));
                }
                Polled::EndOfPartition {
                    partition,
                    position,
                } => {
                    ends.insert(partition, position);
                }
                Polled::Revoked(lost) | Polled::Lost(lost) => {
                    consumer.release(&lost).expect("given back");
                }
                Polled::TimedOut => {}
            }
        }
        self.run(consumer.close(SECOND));
        seen
    }
}

fn output(value: &str) -> ProducerRecord {
    ProducerRecord {
        topic: OUTPUT.into(),
        partition: None,
        timestamp: LogTimeMs(9),
        key: Some(Bytes::copy_from_slice(value.as_bytes())),
        value: Bytes::copy_from_slice(value.as_bytes()),
        headers: Vec::new(),
    }
}

#[test]
fn what_is_produced_is_consumed_once_each_and_ends_are_told() {
    let world = World::new(1);
    world.fill(300);
    let mut seen: Vec<usize> = world
        .read_all(INPUT, "readers")
        .iter()
        .map(|text| text.parse().expect("a number"))
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
}

#[test]
fn committed_transactions_are_seen_and_aborted_ones_are_not() {
    let world = World::new(2);
    let mut kafka = world.kafka(4, RebalanceProtocol::Cooperative);
    let mut producer = kafka.producer("t").expect("made");
    world
        .run(producer.init_transactions(PATIENCE))
        .expect("initialized");
    for (number, commits) in [(1, true), (2, false), (3, true)] {
        producer.begin_transaction().expect("ready");
        world
            .run(producer.send(output(&format!("o{number}"))))
            .expect("queued");
        if commits {
            let committed = world.run(producer.commit_transaction(Duration::from_secs(5)));
            assert_eq!(committed, Ok(()), "{number}: {producer:?}");
        } else {
            world.run(world.fabric.sleep(HostId(4), Micros::from_ms(1_000)));
            world
                .run(producer.abort_transaction(PATIENCE))
                .expect("aborted");
        }
    }
    let mut seen = world.read_all(OUTPUT, "readers");
    seen.sort_unstable();
    assert_eq!(seen, ["o1", "o3"]);
}

#[test]
fn a_newer_producer_fences_the_older_one() {
    let world = World::new(3);
    let mut kafka = world.kafka(4, RebalanceProtocol::Cooperative);
    let mut old = kafka.producer("t").expect("made");
    world.run(old.init_transactions(PATIENCE)).expect("init");
    old.begin_transaction().expect("ready");
    world.run(old.send(output("zombie"))).expect("queued");
    let mut new = kafka.producer("t").expect("made");
    world.run(new.init_transactions(PATIENCE)).expect("init");
    let error = world
        .run(old.commit_transaction(PATIENCE))
        .expect_err("fenced");
    assert_eq!(error.class, ErrorClass::Fenced);
    assert!(world.read_all(OUTPUT, "readers").is_empty());
}

#[test]
fn a_second_member_takes_over_its_share() {
    for protocol in [RebalanceProtocol::Eager, RebalanceProtocol::Cooperative] {
        let world = World::new(4);
        let mut owned: [Vec<PartitionId>; 2] = [Vec::new(), Vec::new()];
        let mut members: Vec<SimConsumer> = Vec::new();
        for host in [4, 5] {
            let mut member = world.kafka(host, protocol).consumer("g").expect("made");
            member.subscribe(INPUT).expect("subscribed");
            members.push(member);
            for _ in 0..20 {
                for (member, owned) in members.iter_mut().zip(&mut owned) {
                    match world.poll(member) {
                        Polled::Assigned(partitions) => {
                            member.accept(&partitions).expect("offered");
                            owned.extend(partitions);
                        }
                        Polled::Revoked(partitions) => {
                            member.release(&partitions).expect("owned");
                            owned.retain(|partition| !partitions.contains(partition));
                        }
                        Polled::TimedOut => {}
                        other => panic!("unexpected {other:?}"),
                    }
                }
            }
        }
        assert_eq!(owned[0].len() + owned[1].len(), 3, "{owned:?}");
        assert!(owned.iter().all(|share| !share.is_empty()), "{owned:?}");
        assert!(
            members
                .iter()
                .all(|member| member.group_metadata().is_some())
        );
    }
}

/// A worker in the small: copies the input to the output, one transaction a poll.
struct Copier<'a> {
    world: &'a World,
    kafka: SimKafka,
    consumer: SimConsumer,
    producer: SimProducer,
    committed: u32,
    replaced: u32,
}

impl Copier<'_> {
    fn replace_producer(&mut self) {
        self.replaced += 1;
        self.producer = self.kafka.producer("t").expect("made");
        while self
            .world
            .run(self.producer.init_transactions(PATIENCE))
            .is_err()
        {}
    }

    fn transaction(&mut self, values: &[String], offset: OffsetAndMetadata) -> KafkaResult<()> {
        let world = self.world;
        self.producer.begin_transaction()?;
        for value in values {
            world.run(self.producer.send(output(value)))?;
        }
        let group = self.consumer.group_metadata();
        let group = group.ok_or(processor::io::KafkaError {
            call: "group_metadata",
            code: "none".into(),
            class: ErrorClass::RequiresAbort,
        })?;
        let offsets = [offset];
        world.run(
            self.producer
                .send_offsets_to_transaction(&offsets, &group, PATIENCE),
        )?;
        loop {
            match world.run(self.producer.commit_transaction(SECOND)) {
                Err(error) if error.class == ErrorClass::Retriable => {}
                other => return other,
            }
        }
    }

    /// Copies one poll's worth; after any failure goes on from the committed offset.
    fn step(&mut self) {
        match self.world.poll(&mut self.consumer) {
            Polled::Assigned(partitions) => self.world.start(&mut self.consumer, &partitions),
            Polled::Revoked(partitions) | Polled::Lost(partitions) => {
                self.consumer.release(&partitions).expect("given back");
            }
            Polled::Records { partition, records } => {
                let offset = OffsetAndMetadata {
                    tp: of_input(partition),
                    offset: records.last().expect("never empty").offset.next(),
                    metadata: String::new(),
                };
                let values = records.iter().filter_map(|record| record.value.as_ref());
                let values: Vec<_> = values
                    .map(|value| String::from_utf8_lossy(value).into_owned())
                    .collect();
                match self.transaction(&values, offset) {
                    Ok(()) => self.committed += 1,
                    Err(error) => self.recover(partition, error.class),
                }
                if self.producer.is_tainted() {
                    self.replace_producer();
                }
            }
            Polled::EndOfPartition { .. } | Polled::TimedOut => {}
        }
    }

    fn recover(&mut self, partition: PartitionId, class: ErrorClass) {
        let aborted = class == ErrorClass::RequiresAbort
            && self
                .world
                .run(self.producer.abort_transaction(PATIENCE))
                .is_ok();
        if !aborted {
            self.replace_producer();
        }
        let list = loop {
            let partitions = [of_input(partition)];
            let ask = self.consumer.committed(&partitions, PATIENCE);
            if let Ok(list) = self.world.run(ask) {
                break list;
            }
        };
        let offset = list[0].as_ref().map_or(Offset(0), |known| known.offset);
        // The member may have lost it meanwhile; then poll says so.
        let _ = self.consumer.start_at(partition, offset);
    }
}

#[test]
fn copying_is_exactly_once_on_a_bad_network() {
    for seed in 0..20 {
        let world = World::new(seed);
        let mut kafka = world.kafka(4, RebalanceProtocol::Cooperative);
        let mut consumer = kafka.consumer("g").expect("made");
        consumer.subscribe(INPUT).expect("subscribed");
        let mut copier = Copier {
            world: &world,
            producer: kafka.producer("t").expect("made"),
            kafka,
            consumer,
            committed: 0,
            replaced: 0,
        };
        copier.replace_producer();
        world.fabric.network(|network| {
            let trouble = Trouble {
                loss_permille: 30,
                duplicate_permille: 20,
                reorder_permille: 20,
                delay_ms_max: 200,
                extra_latency_ms: 0,
            };
            network.begin(0, Rule::Trouble(trouble));
        });
        for round in 0..6 {
            if round == 4 {
                world.fabric.network(|network| network.heal(0));
            }
            world.fill(20);
            for _ in 0..25 {
                copier.step();
            }
        }
        for _ in 0..60 {
            copier.step();
        }
        let mut copied = world.read_all(OUTPUT, "readers");
        let mut input = world.read_all(INPUT, "readers-of-input");
        copied.sort_unstable();
        input.sort_unstable();
        assert!(input.len() >= 120);
        assert_eq!(copied, input, "seed {seed}");
        assert!(copier.committed > 6);
    }
}
