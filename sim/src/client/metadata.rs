//! What a client knows of topics, leaders and coordinators, and how it finds out.

use super::requests::{Connection, Requests, Route};
use super::settings::ClientSettings;
use crate::fabric::actor::{Effects, Micros};
use crate::kafka::protocol::{
    BrokerId, CoordinatorKey, ErrorCode, LeaderEpoch, Request, TopicIndex, TopicMetadata,
    TopicPartition,
};
use std::collections::BTreeMap;

/// Topics and leaders as last told, with the refresh that keeps them fresh. Brokers are asked in
/// turn.
#[derive(Debug)]
pub(crate) struct Metadata {
    topics: BTreeMap<TopicIndex, TopicMetadata>,
    in_flight: bool,
    refresh_at: Micros,
    not_before: Micros,
    answers: u64,
    next_broker: u64,
}

impl Metadata {
    /// Nothing known; the first broker asked is the `first`-th.
    pub(crate) fn new(first: u64) -> Metadata {
        Metadata {
            topics: BTreeMap::new(),
            in_flight: false,
            refresh_at: Micros::MAX,
            not_before: Micros(0),
            answers: 0,
            next_broker: first,
        }
    }

    /// The topic with this name, as far as known.
    pub(crate) fn topic(&self, name: &str) -> Option<&TopicMetadata> {
        self.topics.values().find(|topic| &*topic.name == name)
    }

    /// The leader of a partition, as far as known.
    pub(crate) fn leader(&self, tp: TopicPartition) -> Option<(BrokerId, LeaderEpoch)> {
        let topic = self.topics.get(&tp.topic)?;
        let index = usize::try_from(tp.partition.0).ok()?;
        let partition = topic.partitions.get(index)?;
        partition
            .leader
            .map(|leader| (leader, partition.leader_epoch))
    }

    /// How many answers came so far.
    pub(crate) fn answers(&self) -> u64 {
        self.answers
    }

    /// Asks for a refresh, soon.
    pub(crate) fn want(&mut self, now: Micros) {
        self.refresh_at = self.refresh_at.min(now.max(self.not_before));
    }

    /// When [`Metadata::advance`] next has something to do.
    pub(crate) fn due(&self) -> Micros {
        if self.in_flight {
            Micros::MAX
        } else {
            self.refresh_at
        }
    }

    /// Sends what is due.
    pub(crate) fn advance<T>(
        &mut self,
        now: Micros,
        requests: &mut Requests<T>,
        settings: &ClientSettings,
        tag: T,
        fx: &mut Effects,
    ) {
        if now < self.due() {
            return;
        }
        self.in_flight = true;
        self.refresh_at = Micros::MAX;
        self.not_before = now.plus_ms(u64::from(settings.reconnect_backoff_ms));
        let broker = requests.bootstrap(self.next_broker);
        let route = Route {
            broker,
            connection: Connection::Data,
            timeout_ms: u64::from(settings.request_timeout_ms),
        };
        requests.send(now, route, Request::Metadata, tag, fx);
    }

    /// Takes an answer. What a partition's newer leader epoch said is kept: a broker may lag.
    pub(crate) fn learn(
        &mut self,
        now: Micros,
        settings: &ClientSettings,
        topics: Vec<TopicMetadata>,
    ) {
        self.in_flight = false;
        self.answers += 1;
        // The next question goes to another broker: this one may be the one that lags.
        self.next_broker = self.next_broker.wrapping_add(1);
        let regular = now.plus_ms(u64::from(settings.metadata_refresh_ms));
        self.refresh_at = self.refresh_at.min(regular);
        for mut topic in topics {
            if let Some(known) = self.topics.get(&topic.topic)
                && known.topic_id == topic.topic_id
            {
                for (new, old) in topic.partitions.iter_mut().zip(&known.partitions) {
                    if new.leader_epoch < old.leader_epoch {
                        *new = *old;
                    }
                }
            }
            self.topics.insert(topic.topic, topic);
        }
    }

    /// The request failed: the next broker is asked.
    pub(crate) fn failed(&mut self, now: Micros) {
        self.in_flight = false;
        self.next_broker = self.next_broker.wrapping_add(1);
        self.want(now);
    }
}

/// The search for one coordinator.
#[derive(Debug)]
pub(crate) struct Coordinator {
    key: CoordinatorKey,
    known: Option<BrokerId>,
    needed: bool,
    in_flight: bool,
    retry_at: Micros,
    next_broker: u64,
}

impl Coordinator {
    /// Not known; the first broker asked is the `first`-th.
    pub(crate) fn new(key: CoordinatorKey, first: u64) -> Coordinator {
        Coordinator {
            key,
            known: None,
            needed: false,
            in_flight: false,
            retry_at: Micros(0),
            next_broker: first,
        }
    }

    /// Whose coordinator this is.
    pub(crate) fn key(&self) -> &CoordinatorKey {
        &self.key
    }

    /// The coordinator; if it is not known, a search begins at the next [`Coordinator::advance`].
    pub(crate) fn broker(&mut self) -> Option<BrokerId> {
        self.needed |= self.known.is_none();
        self.known
    }

    /// True when it is known.
    pub(crate) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// It is another one now, or does not answer.
    pub(crate) fn forget(&mut self) {
        self.known = None;
    }

    /// When [`Coordinator::advance`] next has something to do.
    pub(crate) fn due(&self) -> Micros {
        if self.needed && self.known.is_none() && !self.in_flight {
            self.retry_at
        } else {
            Micros::MAX
        }
    }

    /// Sends what is due.
    pub(crate) fn advance<T>(
        &mut self,
        now: Micros,
        requests: &mut Requests<T>,
        settings: &ClientSettings,
        tag: T,
        fx: &mut Effects,
    ) {
        if now < self.due() {
            return;
        }
        self.in_flight = true;
        self.retry_at = now.plus_ms(u64::from(settings.reconnect_backoff_ms));
        let route = Route {
            broker: requests.bootstrap(self.next_broker),
            connection: Connection::Data,
            timeout_ms: u64::from(settings.request_timeout_ms),
        };
        self.next_broker = self.next_broker.wrapping_add(1);
        let key = self.key.clone();
        requests.send(now, route, Request::FindCoordinator { key }, tag, fx);
    }

    /// Takes an answer.
    pub(crate) fn found(&mut self, result: Result<BrokerId, ErrorCode>) {
        self.in_flight = false;
        if let Ok(broker) = result {
            self.known = Some(broker);
            self.needed = false;
        }
    }

    /// The request failed.
    pub(crate) fn failed(&mut self) {
        self.in_flight = false;
    }
}
