//! Tests of the cluster on a tiny synchronous network: every message takes one millisecond, and a
//! test may lose, hold or repeat whatever it likes.

mod chaos;
mod groups;
mod partitions;
mod transactions;

use super::internal::InternalRequest;
use super::protocol::*;
use super::view::{committed_offsets_history, committed_view};
use super::{Broker, ClusterConfig, Controller, Directory, TopicConfig};
use crate::fabric::actor::{Actor, Address, Effects, Micros};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

const CONTROLLER: Address = Address(0);
const CLIENT: Address = Address(100);
const INPUT: TopicIndex = TopicIndex(2);
const STAMPED: TopicIndex = TopicIndex(3);
const UNIX_MS: i64 = 1_700_000_000_000;

/// What the network does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Deliver,
    Lose,
    Hold,
    Twice,
}

type Rule = Box<dyn FnMut(Address, Address, &Message) -> Fate>;

struct World {
    now: Micros,
    controller: Controller,
    brokers: Vec<Broker>,
    queue: BTreeMap<(Micros, u64), (Address, Address, Message)>,
    sequence: u64,
    correlation: u64,
    answers: BTreeMap<u64, Response>,
    held: Vec<(Address, Address, Message)>,
    rule: Option<Rule>,
    notes: Vec<(Micros, &'static str, String)>,
    messages: u64,
}

fn tp(topic: TopicIndex, partition: i32) -> TopicPartition {
    TopicPartition {
        topic,
        partition: PartitionId(partition),
    }
}

fn config() -> ClusterConfig {
    let topic = |name: &str, partitions, log_append_time| TopicConfig {
        name: name.into(),
        topic_id: format!("id-{name}").into(),
        partitions,
        shown_partitions: partitions,
        log_append_time,
        min_insync_replicas: None,
    };
    ClusterConfig {
        topics: vec![
            topic("__consumer_offsets", 3, false),
            topic("__transaction_state", 3, false),
            topic("input", 3, false),
            topic("stamped", 1, true),
        ],
        brokers: 3,
        min_insync_replicas: 2,
        replica_lag_time_max_ms: 10_000,
        replica_fetch_wait_max_ms: 500,
        broker_session_timeout_ms: 9_000,
        broker_heartbeat_interval_ms: 2_000,
        transaction_cleanup_interval_ms: 10_000,
        transaction_max_timeout_ms: 900_000,
        group_initial_rebalance_delay_ms: 100,
        message_max_bytes: 1_000_000,
        transactional_id_expiration_ms: 7 * 86_400_000,
        // The records of tests are of 1970.
        producer_id_expiration_ms: u64::MAX,
        transaction_verification: true,
        broken: None,
        unix_ms_at_zero: UNIX_MS,
    }
}

fn record(text: &str) -> Record {
    Record {
        timestamp: LogTimeMs(7),
        key: None,
        value: Some(Bytes::copy_from_slice(text.as_bytes())),
        headers: Vec::new(),
    }
}

fn batch(texts: &[&str], producer: Option<ProducerStamp>) -> Batch {
    Batch {
        base_offset: Offset(0),
        leader_epoch: -1,
        producer,
        payload: Payload::Records(texts.iter().map(|text| record(text)).collect()),
    }
}

impl World {
    /// A cluster that has elected its leaders.
    fn new() -> World {
        let config = Arc::new(config());
        let brokers: Vec<_> = (1..=3).map(|id| (BrokerId(id), Address(id))).collect();
        let directory = Arc::new(Directory {
            controller: CONTROLLER,
            brokers: brokers.clone(),
        });
        let broker = |(id, _): &(BrokerId, Address)| {
            Broker::new(*id, Arc::clone(&config), Arc::clone(&directory))
        };
        let mut world = World {
            now: Micros(0),
            controller: Controller::new(Arc::clone(&config), Arc::clone(&directory)),
            brokers: brokers.iter().map(broker).collect(),
            queue: BTreeMap::new(),
            sequence: 0,
            correlation: 0,
            answers: BTreeMap::new(),
            held: Vec::new(),
            rule: None,
            notes: Vec::new(),
            messages: 0,
        };
        world.run(200);
        assert_eq!(world.count("leader-elected"), 10, "{:?}", world.notes);
        world
    }

    fn actor(&mut self, address: Address) -> Option<&mut dyn Actor> {
        match address.0 {
            0 => Some(&mut self.controller),
            id @ 1..=3 => Some(&mut self.brokers[id as usize - 1]),
            _ => None,
        }
    }

    fn call(&mut self, address: Address, event: impl FnOnce(&mut dyn Actor, Micros, &mut Effects)) {
        let now = self.now;
        let mut fx = Effects::default();
        if let Some(actor) = self.actor(address) {
            event(actor, now, &mut fx);
        }
        for note in fx.notes {
            self.notes.push((now, note.kind, note.text));
        }
        for (to, message) in fx.messages {
            self.transmit(address, to, message);
        }
    }

    fn transmit(&mut self, from: Address, to: Address, message: Message) {
        let fate = self
            .rule
            .as_mut()
            .map_or(Fate::Deliver, |rule| rule(from, to, &message));
        match fate {
            Fate::Lose => {}
            Fate::Hold => self.held.push((from, to, message)),
            Fate::Deliver => self.enqueue(1, from, to, message),
            Fate::Twice => {
                self.enqueue(3, from, to, message.clone());
                self.enqueue(1, from, to, message);
            }
        }
    }

    fn enqueue(&mut self, delay_ms: u64, from: Address, to: Address, message: Message) {
        self.sequence += 1;
        let at = self.now.plus_ms(delay_ms);
        self.queue.insert((at, self.sequence), (from, to, message));
    }

    /// Delivers what was held.
    fn release(&mut self) {
        for (from, to, message) in std::mem::take(&mut self.held) {
            self.enqueue(1, from, to, message);
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        loop {
            let message_at = self.queue.keys().next().map_or(Micros::MAX, |(at, _)| *at);
            let (wake_at, sleeper) = (0..=3)
                .map(|id| {
                    (
                        self.actor(Address(id)).expect("exists").next_wake(),
                        Address(id),
                    )
                })
                .min()
                .expect("four actors");
            let next = message_at.min(wake_at);
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if message_at <= wake_at {
                let (_, (from, to, message)) = self.queue.pop_first().expect("just seen");
                self.deliver(from, to, message);
            } else {
                self.call(sleeper, |actor, now, fx| actor.wake(now, fx));
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, from: Address, to: Address, message: Message) {
        self.messages += 1;
        match message {
            Message::Response {
                correlation,
                response,
            } if to.0 >= CLIENT.0 => {
                self.answers.entry(correlation).or_insert(response);
            }
            message => self.call(to, |actor, now, fx| actor.receive(now, from, message, fx)),
        }
    }

    /// Sends a client's request.
    fn send(&mut self, to: BrokerId, request: Request) -> u64 {
        self.correlation += 1;
        let correlation = self.correlation;
        let message = Message::Request {
            correlation,
            request,
        };
        self.transmit(CLIENT, Address(to.0), message);
        correlation
    }

    /// Sends a request and runs until the answer is there.
    fn ask(&mut self, to: BrokerId, request: Request) -> Response {
        let correlation = self.send(to, request);
        for _ in 0..4_000 {
            if let Some(answer) = self.answers.remove(&correlation) {
                return answer;
            }
            self.run(10);
        }
        panic!("no answer within 40 s; {:?}", self.notes);
    }

    fn leader(&self, tp: TopicPartition) -> BrokerId {
        let slot = self.brokers[0].layout().slot(tp).expect("exists");
        self.controller.image().partitions[slot]
            .leader
            .expect("has a leader")
    }

    fn followers(&self, tp: TopicPartition) -> Vec<BrokerId> {
        let leader = self.leader(tp);
        (1..=3).map(BrokerId).filter(|id| *id != leader).collect()
    }

    fn broker(&self, id: BrokerId) -> &Broker {
        &self.brokers[id.0 as usize - 1]
    }

    fn isr(&self, tp: TopicPartition) -> usize {
        let slot = self.brokers[0].layout().slot(tp).expect("exists");
        self.controller.image().partitions[slot].isr.len()
    }

    fn crash(&mut self, id: BrokerId) {
        self.call(Address(id.0), |actor, now, fx| actor.crash(now, fx));
    }

    fn restart(&mut self, id: BrokerId) {
        self.call(Address(id.0), |actor, now, fx| actor.restart(now, fx));
    }

    fn count(&self, kind: &str) -> usize {
        self.notes.iter().filter(|(_, k, _)| *k == kind).count()
    }

    fn produce_request(tp: TopicPartition, batch: Batch) -> Request {
        Request::Produce {
            batches: vec![(tp, batch)],
            timeout_ms: 5_000,
        }
    }

    fn produce(&mut self, tp: TopicPartition, batch: Batch) -> Result<Offset, ErrorCode> {
        let leader = self.leader(tp);
        match self.ask(leader, World::produce_request(tp, batch)) {
            Response::Produce(results) => results[0].1,
            other => panic!("{other:?}"),
        }
    }

    fn fetch(&mut self, tp: TopicPartition, offset: i64) -> FetchedPartition {
        let leader = self.leader(tp);
        let request = Request::Fetch {
            max_wait_ms: 500,
            max_bytes: 1_000_000,
            partitions: vec![FetchPartition {
                tp,
                current_leader_epoch: -1,
                offset: Offset(offset),
            }],
        };
        match self.ask(leader, request) {
            Response::Fetch(mut partitions) => partitions.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// Values that a read_committed consumer sees.
    fn visible(&self, tp: TopicPartition) -> Vec<String> {
        let brokers: Vec<&Broker> = self.brokers.iter().collect();
        let records = committed_view(&brokers, tp).into_iter();
        let text = |value: Option<Bytes>| String::from_utf8(value.expect("set").to_vec());
        records
            .map(|(_, record)| text(record.value).expect("text"))
            .collect()
    }

    fn history(&self, group: &str) -> Vec<OffsetCommit> {
        let brokers: Vec<&Broker> = self.brokers.iter().collect();
        committed_offsets_history(&brokers, group)
    }
}

/// Loses everything between `id` and everybody else of the cluster, both ways.
fn isolate(id: BrokerId) -> Rule {
    let address = Address(id.0);
    Box::new(move |from, to, _| {
        let inside = from.0 <= 3 && to.0 <= 3;
        match inside && (from == address || to == address) {
            true => Fate::Lose,
            false => Fate::Deliver,
        }
    })
}

/// Treats inter-broker requests that `which` picks with `fate`.
fn on_internal(fate: Fate, which: fn(&InternalRequest) -> bool) -> Rule {
    Box::new(move |_, _, message| match message {
        Message::Request {
            request: Request::Internal(request),
            ..
        } if which(request) => fate,
        _ => Fate::Deliver,
    })
}
