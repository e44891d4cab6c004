//! A scripted broker for tests: catches what a client sends, and answers by hand.

use super::settings::ClientSettings;
use crate::fabric::actor::{Actor, Address, Effects, Micros};
use crate::kafka::protocol::{
    BrokerId, ErrorCode, Message, PartitionId, PartitionMetadata, Request, Response, TopicIndex,
    TopicMetadata, TopicPartition,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// The topic of the tests, with three partitions that broker 1 leads.
pub(crate) const TOPIC: &str = "ticks";
const INDEX: TopicIndex = TopicIndex(2);

/// A request that was caught.
#[derive(Debug)]
pub(crate) struct Caught {
    pub(crate) to: BrokerId,
    correlation: u64,
    pub(crate) request: Request,
}

/// A client and all that it sent and noted.
pub(crate) struct Script<A> {
    pub(crate) actor: A,
    pub(crate) now: Micros,
    pub(crate) notes: Vec<&'static str>,
    caught: VecDeque<Caught>,
}

pub(crate) fn tp(partition: i32) -> TopicPartition {
    TopicPartition {
        topic: INDEX,
        partition: PartitionId(partition),
    }
}

pub(crate) fn directory() -> Arc<Vec<(BrokerId, Address)>> {
    Arc::new((1..=3).map(|id| (BrokerId(id), Address(id))).collect())
}

pub(crate) fn settings() -> ClientSettings {
    ClientSettings {
        session_timeout_ms: 6_000,
        heartbeat_interval_ms: 1_000,
        max_poll_interval_ms: 20_000,
        transaction_timeout_ms: 10_000,
        request_timeout_ms: 1_000,
        ..ClientSettings::default()
    }
}

pub(crate) fn metadata(leader: u32, epoch: i32) -> Response {
    let partitions = (0..3).map(|partition| PartitionMetadata {
        tp: tp(partition),
        leader: Some(BrokerId(leader)),
        leader_epoch: epoch,
    });
    Response::Metadata {
        brokers: vec![BrokerId(1), BrokerId(2), BrokerId(3)],
        topics: vec![TopicMetadata {
            topic: INDEX,
            name: TOPIC.into(),
            topic_id: "id-1".into(),
            partitions: partitions.collect(),
        }],
    }
}

impl<A: Actor> Script<A> {
    pub(crate) fn new(actor: A) -> Script<A> {
        Script {
            actor,
            now: Micros(1_000_000),
            notes: Vec::new(),
            caught: VecDeque::new(),
        }
    }

    /// Calls the client.
    pub(crate) fn call<R>(&mut self, f: impl FnOnce(&mut A, Micros, &mut Effects) -> R) -> R {
        let mut fx = Effects::default();
        let result = f(&mut self.actor, self.now, &mut fx);
        self.notes.extend(fx.notes.iter().map(|note| note.kind));
        for (to, message) in fx.messages {
            let Message::Request {
                correlation,
                request,
            } = message
            else {
                panic!("a client answers nobody");
            };
            self.caught.push_back(Caught {
                to: BrokerId(to.0),
                correlation,
                request,
            });
        }
        result
    }

    /// Lets time pass, with every wake-up that the client wants.
    pub(crate) fn pass_ms(&mut self, ms: u64) {
        let until = self.now.plus_ms(ms);
        let mut wakes = 0;
        while self.actor.next_wake() <= until {
            self.now = self
                .now
                .max(self.actor.next_wake())
                .max(Micros(self.now.0 + 1));
            if self.now > until {
                break;
            }
            self.call(|actor, now, fx| actor.wake(now, fx));
            wakes += 1;
            assert!(wakes < 10_000, "the client spins");
        }
        self.now = until;
    }

    pub(crate) fn answer(&mut self, caught: &Caught, response: Response) {
        let message = Message::Response {
            correlation: caught.correlation,
            response,
        };
        let from = Address(caught.to.0);
        self.call(|actor, now, fx| actor.receive(now, from, message, fx));
    }

    /// The oldest request that is not answered by itself: lookups always succeed (broker 1 leads,
    /// broker 2 coordinates), InitProducerId gives id 7.
    pub(crate) fn next(&mut self) -> Option<Caught> {
        loop {
            let caught = self.caught.pop_front()?;
            let response = match &caught.request {
                Request::Metadata => metadata(1, 0),
                Request::FindCoordinator { .. } => Response::FindCoordinator(Ok(BrokerId(2))),
                Request::InitProducerId { .. } => Response::InitProducerId(Ok((7, 0))),
                _ => return Some(caught),
            };
            self.answer(&caught, response);
        }
    }

    /// The oldest request, whatever it is.
    pub(crate) fn take_any(&mut self) -> Caught {
        self.caught.pop_front().expect("something was sent")
    }

    /// The next request whose name starts with `name`; others before it are left unanswered.
    pub(crate) fn expect(&mut self, name: &str) -> Caught {
        while let Some(caught) = self.next() {
            if format!("{:?}", caught.request).starts_with(name) {
                return caught;
            }
        }
        panic!("no {name} was sent");
    }

    /// Everything sent by now, by name, looked at but not answered.
    pub(crate) fn pending(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(caught) = self.next() {
            let text = format!("{:?}", caught.request);
            let end = text.find(|c: char| !c.is_alphanumeric());
            names.push(text[..end.unwrap_or(text.len())].to_string());
        }
        names
    }

    pub(crate) fn was_noted(&self, kind: &str) -> bool {
        self.notes.contains(&kind)
    }
}

/// An error answer to Produce.
pub(crate) fn produce_error(partition: i32, code: ErrorCode) -> Response {
    Response::Produce(vec![(tp(partition), Err(code))])
}
