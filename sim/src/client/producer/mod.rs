//! The producer: records on their way, the producer's identity, its transactions.
//!
//! Comes in: records and calls of an application, answers of brokers. Goes out: requests.
//! Never here: what a record means; a second thread of transactions (one at a time).
//!
//! One actor serves the transactional producer ([`SimProducer`]) and the plain idempotent one
//! ([`super::WorkloadProducer`], which never gives up).

mod delivery;
mod identity;
mod queue;
#[cfg(test)]
mod tests;
mod transaction;
mod wrapper;

pub use wrapper::SimProducer;

use super::errors::local_error;
use super::metadata::{Coordinator, Metadata};
use super::partitioner::partition_of;
use super::requests::{Connection, Requests, Route};
use super::settings::ClientSettings;
use crate::draw::draw_below;
use crate::fabric::actor::{Actor, Address, Effects, Micros};
use crate::kafka::protocol::{
    BrokerId, CoordinatorKey, Message, PartitionId, Record, Request, Response, TopicIndex,
    TopicPartition,
};
use crate::sabotage::Sabotage;
use identity::Identity;
use processor::io::{ErrorClass, KafkaError, KafkaResult};
use queue::PartitionQueue;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use transaction::Transaction;

/// Which request an answer or a timeout belongs to.
#[derive(Debug)]
pub(crate) enum Tag {
    Metadata,
    FindCoordinator,
    FindGroupCoordinator,
    InitProducerId,
    AddPartitions(Vec<TopicPartition>),
    AddOffsets(u64),
    CommitOffsets(u64),
    EndTxn,
    Produce { tp: TopicPartition, serial: u64 },
}

/// A record whose topic is not known yet.
#[derive(Debug)]
struct Unresolved {
    topic: Arc<str>,
    partition: Option<PartitionId>,
    record: Record,
    queued_at: Micros,
}

/// The background work of one producer.
#[derive(Debug)]
pub struct ProducerActor {
    settings: Arc<ClientSettings>,
    seed: u64,
    transactional_id: Option<Arc<str>>,
    requests: Requests<Tag>,
    metadata: Metadata,
    /// Of the transactional id.
    coordinator: Coordinator,
    group_coordinator: Option<Coordinator>,
    identity: Identity,
    queues: BTreeMap<TopicPartition, PartitionQueue>,
    unresolved: VecDeque<Unresolved>,
    outstanding: usize,
    keyless: u64,
    sends: u64,
    flushing: bool,
    /// A `send` waits for room in the queue.
    sender_waits: bool,
    renewals: u64,
    txn: Transaction,
    wake_at: Micros,
}

impl ProducerActor {
    /// A producer that knows the brokers of `directory`: transactional with an id, else plain
    /// idempotent. `seed` decides whom it asks first and where keyless records go.
    #[must_use]
    pub fn new(
        transactional_id: Option<&str>,
        directory: Arc<Vec<(BrokerId, Address)>>,
        settings: Arc<ClientSettings>,
        seed: u64,
    ) -> ProducerActor {
        let key = CoordinatorKey::Transaction(transactional_id.unwrap_or_default().into());
        ProducerActor {
            requests: Requests::new(directory),
            metadata: Metadata::new(seed),
            coordinator: Coordinator::new(key, seed),
            group_coordinator: None,
            identity: Identity::new(transactional_id.is_none()),
            transactional_id: transactional_id.map(Arc::from),
            settings,
            seed,
            queues: BTreeMap::new(),
            unresolved: VecDeque::new(),
            outstanding: 0,
            keyless: 0,
            sends: 0,
            flushing: false,
            sender_waits: false,
            renewals: 0,
            txn: Transaction::default(),
            wake_at: Micros::MAX,
        }
    }

    fn is_transactional(&self) -> bool {
        self.transactional_id.is_some()
    }

    fn send(
        &mut self,
        now: Micros,
        (broker, connection): (BrokerId, Connection),
        request: Request,
        tag: Tag,
        fx: &mut Effects,
    ) {
        let timeout_ms = if self.is_transactional() {
            self.settings.transactional_request_ms()
        } else {
            u64::from(self.settings.request_timeout_ms)
        };
        let route = Route {
            broker,
            connection,
            timeout_ms,
        };
        self.requests.send(now, route, request, tag, fx);
    }

    /// Records on their way.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// How often the identity had to be renewed after an error of the idempotence protocol.
    #[must_use]
    pub fn renewals(&self) -> u64 {
        self.renewals
    }

    /// One look of a waiting flush: nothing lingers meanwhile.
    pub(crate) fn poll_flush(&mut self, now: Micros, fx: &mut Effects) {
        if !self.flushing {
            self.flushing = true;
            self.advance(now, fx);
        }
    }

    /// The flush is over.
    pub(crate) fn end_flush(&mut self) {
        self.flushing = false;
    }

    fn backoff(&self, now: Micros) -> Micros {
        now.plus_ms(u64::from(self.settings.retry_backoff_ms))
    }

    /// Takes a record on its way.
    pub(crate) fn enqueue(
        &mut self,
        now: Micros,
        topic: &str,
        partition: Option<PartitionId>,
        record: Record,
        fx: &mut Effects,
    ) -> KafkaResult<()> {
        let known = self.metadata.topic(topic);
        let known = known.map(|topic| (topic.topic, topic.partitions.len()));
        match known.filter(|_| self.unresolved.is_empty()) {
            Some((index, partitions)) => {
                let chosen = self.choose(topic, partition, &record, partitions)?;
                self.place(now, (index, chosen), record, now);
            }
            None => {
                self.unresolved.push_back(Unresolved {
                    topic: topic.into(),
                    partition,
                    record,
                    queued_at: now,
                });
                self.metadata.want(now);
                self.outstanding += 1;
                self.advance(now, fx);
                return Ok(());
            }
        }
        self.outstanding += 1;
        let lingers = now.plus_ms(u64::from(self.settings.linger_ms));
        self.wake_at = self.wake_at.min(lingers).min(self.txn.register_at());
        Ok(())
    }

    fn choose(
        &mut self,
        topic: &str,
        partition: Option<PartitionId>,
        record: &Record,
        partitions: usize,
    ) -> KafkaResult<PartitionId> {
        let count = u32::try_from(partitions).expect("partition counts fit");
        if let Some(partition) = partition {
            let exists = u32::try_from(partition.0).is_ok_and(|number| number < count);
            return if exists {
                Ok(partition)
            } else {
                Err(unknown_partition(topic, partition, count))
            };
        }
        let number = match &record.key {
            Some(key) => partition_of(key, count),
            None => {
                self.keyless += 1;
                let drawn = draw_below(
                    self.seed,
                    "partitioner",
                    "keyless",
                    self.keyless,
                    u64::from(count),
                );
                u32::try_from(drawn).expect("below the partition count")
            }
        };
        Ok(PartitionId(
            i32::try_from(number).expect("partition counts fit"),
        ))
    }

    fn place(
        &mut self,
        now: Micros,
        (topic, partition): (TopicIndex, PartitionId),
        record: Record,
        queued_at: Micros,
    ) {
        let tp = TopicPartition { topic, partition };
        let queue = self.queues.entry(tp).or_default();
        queue.push(queued_at, record);
        if queue.is_full(
            self.settings.batch_max_records,
            self.settings.batch_max_bytes,
        ) {
            self.wake_at = now;
        }
        if self.transactional_id.is_some() {
            self.txn.need_partition(now, tp);
        }
    }

    fn resolve(&mut self, now: Micros) {
        while let Some(first) = self.unresolved.front() {
            let Some(topic) = self.metadata.topic(&first.topic) else {
                self.metadata.want(now);
                return;
            };
            let (index, partitions) = (topic.topic, topic.partitions.len());
            let first = self.unresolved.pop_front().expect("just seen");
            match self.choose(&first.topic, first.partition, &first.record, partitions) {
                Ok(partition) => {
                    self.place(now, (index, partition), first.record, first.queued_at);
                }
                Err(error) => {
                    self.outstanding -= 1;
                    self.send_failed(&error.code, false);
                }
            }
        }
    }

    fn advance(&mut self, now: Micros, fx: &mut Effects) {
        if self.txn.dead().is_none() {
            self.resolve(now);
            self.check_delivery_timeout(now, fx);
            self.obtain_identity(now, fx);
            if self.is_transactional() {
                self.register_partitions(now, fx);
                self.advance_offsets(now, fx);
            }
            self.send_queues(now, fx);
            self.advance_end(now, fx);
            let requests = &mut self.requests;
            let settings = &self.settings;
            self.coordinator
                .advance(now, requests, settings, Tag::FindCoordinator, fx);
            if let Some(coordinator) = &mut self.group_coordinator {
                coordinator.advance(now, requests, settings, Tag::FindGroupCoordinator, fx);
            }
            self.metadata
                .advance(now, requests, settings, Tag::Metadata, fx);
        }
        self.wake_at = self.due(now);
    }

    fn due(&self, now: Micros) -> Micros {
        let requests = self.requests.due();
        if self.txn.dead().is_some() {
            return requests;
        }
        let group = self.group_coordinator.as_ref();
        let fixed = [
            self.metadata.due(),
            self.coordinator.due(),
            group.map_or(Micros::MAX, Coordinator::due),
        ];
        let identity = self.identity.due();
        let identity = if identity > now {
            identity
        } else {
            Micros::MAX
        };
        fixed
            .into_iter()
            .chain([identity, self.txn.due(now)])
            .chain([self.delivery_due(now)])
            .fold(requests, Micros::min)
    }

    fn answered(&mut self, now: Micros, tag: Tag, response: Response, fx: &mut Effects) {
        match (tag, response) {
            (Tag::Metadata, Response::Metadata { topics, .. }) => {
                self.metadata.learn(now, &self.settings, topics);
                if self.settings.breaks(Sabotage::SequenceRestarted) {
                    self.queues
                        .values_mut()
                        .for_each(PartitionQueue::restart_sequence);
                }
            }
            (Tag::FindCoordinator, Response::FindCoordinator(result)) => {
                self.coordinator.found(result);
            }
            (Tag::FindGroupCoordinator, Response::FindCoordinator(result)) => {
                if let Some(coordinator) = &mut self.group_coordinator {
                    coordinator.found(result);
                }
            }
            (Tag::InitProducerId, Response::InitProducerId(result)) => {
                self.identity_told(now, result, fx);
            }
            (Tag::AddPartitions(partitions), Response::AddPartitionsToTxn(result)) => {
                self.partitions_added(now, &partitions, result, fx);
            }
            (Tag::AddOffsets(serial), Response::AddOffsetsToTxn(result)) => {
                self.offsets_added(now, serial, result, fx);
            }
            (Tag::CommitOffsets(serial), Response::TxnOffsetCommit(result)) => {
                self.offsets_committed(now, serial, result, fx);
            }
            (Tag::EndTxn, Response::EndTxn(result)) => self.ended(now, result, fx),
            (Tag::Produce { tp, serial }, Response::Produce(results)) => {
                let result = results.into_iter().find(|(of, _)| *of == tp);
                let (_, result) = result.expect("a Produce answer tells of each batch");
                self.produced(now, tp, serial, result, fx);
            }
            (tag, response) => unreachable!("{response:?} answers {tag:?}"),
        }
    }

    fn failed(&mut self, now: Micros, tag: Tag, fx: &mut Effects) {
        match tag {
            Tag::Metadata => self.metadata.failed(now),
            Tag::FindCoordinator => self.coordinator.failed(),
            Tag::FindGroupCoordinator => {
                if let Some(coordinator) = &mut self.group_coordinator {
                    coordinator.failed();
                }
            }
            Tag::InitProducerId => self.identity_unanswered(now),
            Tag::AddPartitions(partitions) => self.partitions_unanswered(now, partitions),
            Tag::AddOffsets(serial) => self.offsets_unanswered(now, serial, false),
            Tag::CommitOffsets(serial) => self.offsets_unanswered(now, serial, true),
            Tag::EndTxn => self.end_unanswered(now),
            Tag::Produce { tp, serial } => self.produce_unanswered(now, tp, serial, fx),
        }
    }
}

impl Actor for ProducerActor {
    fn receive(&mut self, now: Micros, _from: Address, message: Message, fx: &mut Effects) {
        let Message::Response {
            correlation,
            response,
        } = message
        else {
            return; // nobody asks a client anything
        };
        if let Some(tag) = self.requests.answered(correlation) {
            self.answered(now, tag, response, fx);
            self.advance(now, fx);
        }
    }

    fn wake(&mut self, now: Micros, fx: &mut Effects) {
        for tag in self.requests.expire(now, fx) {
            self.failed(now, tag, fx);
        }
        self.advance(now, fx);
    }

    fn connection_lost(&mut self, now: Micros, peer: Address, fx: &mut Effects) {
        let failed = self.requests.disconnected(peer);
        if failed.is_empty() {
            return;
        }
        fx.note(
            "client-disconnected",
            format_args!("{} requests failed", failed.len()),
        );
        for tag in failed {
            self.failed(now, tag, fx);
        }
        self.advance(now, fx);
    }

    fn next_wake(&self) -> Micros {
        self.wake_at
    }
}

fn unknown_partition(topic: &str, partition: PartitionId, count: u32) -> KafkaError {
    local_error(
        "send",
        &format!("_UNKNOWN_PARTITION: {topic} has {count} partitions, there is no {partition}"),
        ErrorClass::RequiresAbort,
    )
}
