//! What clients ask of any broker or of a partition's leader: Metadata, FindCoordinator, Produce,
//! Fetch, ListOffsets.

use super::ClusterConfig;
use super::broker::Broker;
use super::coordinator::{Asker, Then, Unverified};
use super::internal::Verdict;
use super::producer_state::Origin;
use super::protocol::{
    Batch, CoordinatorKey, ErrorCode, FetchPartition, FetchedPartition, LogTimeMs, OFFSETS_TOPIC,
    Offset, OffsetSpec, PartitionMetadata, Payload, Request, Response, TRANSACTIONS_TOPIC,
    TopicIndex, TopicMetadata, TopicPartition,
};
use super::replica::Replica;
use crate::fabric::actor::{Effects, Micros};
use crate::sabotage::Sabotage;
use std::sync::Arc;

/// Bytes that a record takes beside key, value and headers, about.
const RECORD_OVERHEAD: usize = 20;

/// A Produce that waits for its partitions.
#[derive(Debug)]
pub(super) struct ProduceOp {
    asker: Asker,
    results: Vec<(TopicPartition, Option<Result<Offset, ErrorCode>>)>,
    deadline: Micros,
}

/// A consumer's fetch that waits for data.
#[derive(Debug)]
pub(super) struct ParkedFetch {
    asker: Asker,
    until: Micros,
    bytes_max: usize,
    /// With their slots.
    partitions: Vec<(usize, FetchPartition)>,
}

/// Size of a batch on the wire, about.
fn size_of(batch: &Batch) -> usize {
    let Payload::Records(records) = &batch.payload else {
        return RECORD_OVERHEAD;
    };
    records
        .iter()
        .map(|record| {
            let key = record.key.as_ref().map_or(0, bytes::Bytes::len);
            let value = record.value.as_ref().map_or(0, bytes::Bytes::len);
            let headers: usize = record
                .headers
                .iter()
                .map(|h| h.name.len() + h.value.len())
                .sum();
            RECORD_OVERHEAD + key + value + headers
        })
        .sum()
}

impl Broker {
    /// Any request of a client.
    pub(super) fn client_request(
        &mut self,
        asker: Asker,
        request: Request,
        now: Micros,
        fx: &mut Effects,
    ) {
        match request {
            Request::Metadata => {
                let response = self.metadata();
                self.respond(asker, response, fx);
            }
            Request::FindCoordinator { key } => {
                let found = self.find_coordinator(&key);
                self.respond(asker, Response::FindCoordinator(found), fx);
            }
            Request::Produce {
                batches,
                timeout_ms,
            } => self.produce(asker, batches, timeout_ms, now, fx),
            Request::Fetch {
                max_wait_ms,
                max_bytes,
                partitions,
            } => self.fetch_for_consumer(asker, max_wait_ms, max_bytes, &partitions, now, fx),
            Request::ListOffsets { tp, spec } => {
                let result = self.list_offsets(tp, spec);
                self.respond(asker, Response::ListOffsets(result), fx);
            }
            Request::InitProducerId { .. }
            | Request::AddPartitionsToTxn { .. }
            | Request::AddOffsetsToTxn { .. }
            | Request::EndTxn { .. } => self.transaction_request(asker, request, now, fx),
            Request::TxnOffsetCommit { .. }
            | Request::OffsetFetch { .. }
            | Request::OffsetCommit { .. }
            | Request::DeleteGroup { .. }
            | Request::JoinGroup { .. }
            | Request::SyncGroup { .. }
            | Request::Heartbeat { .. }
            | Request::LeaveGroup { .. } => self.group_request(asker, request, now, fx),
            Request::DeleteRecords { tp, before } => {
                let result = self.delete_records(tp, before);
                self.respond(asker, Response::DeleteRecords(result), fx);
            }
            Request::Internal(_) => {}
        }
    }

    /// Only what is replicated may be deleted; −1 stands for all of that.
    fn delete_records(&mut self, tp: TopicPartition, before: Offset) -> Result<Offset, ErrorCode> {
        let (_, replica) = self.led(tp)?;
        let before = match before {
            Offset(-1) => replica.high_watermark,
            before => before,
        };
        if before < Offset(0) || before > replica.high_watermark {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        replica.log.delete_before(before);
        Ok(replica.log.start())
    }

    fn metadata(&self) -> Response {
        let image = self.image.as_ref().expect("a serving broker has metadata");
        let topics = self.config.topics.iter().enumerate().map(|(index, topic)| {
            let index = TopicIndex(u16::try_from(index).expect("a world has few topics"));
            let shown = self.shown[usize::from(index.0)];
            let shown = usize::try_from(shown).expect("few partitions");
            let slots = self.layout.slots_of(index).take(shown);
            let partitions = slots.map(|slot| PartitionMetadata {
                tp: self.layout.partition(slot),
                leader: image.partitions[slot].leader,
                leader_epoch: image.partitions[slot].leader_epoch,
            });
            TopicMetadata {
                topic: index,
                name: Arc::clone(&topic.name),
                topic_id: Arc::clone(&self.topic_ids[usize::from(index.0)]),
                partitions: partitions.collect(),
            }
        });
        let alive = image.brokers.iter().filter(|b| b.epoch >= 0 && !b.fenced);
        Response::Metadata {
            brokers: alive.map(|b| b.id).collect(),
            topics: topics.collect(),
        }
    }

    fn find_coordinator(
        &self,
        key: &CoordinatorKey,
    ) -> Result<super::protocol::BrokerId, ErrorCode> {
        let tp = match key {
            CoordinatorKey::Group(group) => self.layout.group_partition(group),
            CoordinatorKey::Transaction(id) => self.layout.transaction_partition(id),
        };
        let image = self.image.as_ref().expect("a serving broker has metadata");
        let slot = self.layout.slot(tp);
        let leader = slot.and_then(|slot| image.partitions[slot].leader);
        leader.ok_or(ErrorCode::CoordinatorNotAvailable)
    }

    fn list_offsets(&mut self, tp: TopicPartition, spec: OffsetSpec) -> Result<Offset, ErrorCode> {
        let (_, replica) = self.led(tp)?;
        let latest = match spec {
            OffsetSpec::Earliest => return Ok(replica.log.start()),
            OffsetSpec::LatestStable => replica.last_stable(),
            OffsetSpec::LatestUncommitted => replica.high_watermark,
        };
        // A new leader does not yet know how much of its log is committed (KIP-207).
        if replica.high_watermark < replica.epoch_start {
            return Err(ErrorCode::OffsetNotAvailable);
        }
        Ok(latest)
    }
}

// Produce.
impl Broker {
    fn produce(
        &mut self,
        asker: Asker,
        batches: Vec<(TopicPartition, Batch)>,
        timeout_ms: u32,
        now: Micros,
        fx: &mut Effects,
    ) {
        self.next_op += 1;
        let op = self.next_op;
        let deadline = now.plus_ms(u64::from(timeout_ms));
        let results = batches.iter().map(|(tp, _)| (*tp, None)).collect();
        self.produce_ops.insert(
            op,
            ProduceOp {
                asker,
                results,
                deadline,
            },
        );
        if batches.is_empty() {
            self.answer_produce(op, fx);
        }
        for (index, (tp, batch)) in batches.into_iter().enumerate() {
            let from = Unverified::Produce { op, index };
            if let Err(error) = self.accept_batch(tp, batch, from, now, fx) {
                self.produced(op, index, Err(error), fx);
            }
        }
    }

    /// Checks one batch; verifies its transaction if it would begin here, else appends it.
    fn accept_batch(
        &mut self,
        tp: TopicPartition,
        mut batch: Batch,
        from: Unverified,
        now: Micros,
        fx: &mut Effects,
    ) -> Result<(), ErrorCode> {
        let bytes_max = self.config.message_max_bytes;
        let stamp_ms = self.unix_ms(now);
        let topic = self.config.topics.get(usize::from(tp.topic.0));
        let log_append_time = topic.is_some_and(|topic| topic.log_append_time);
        if tp.topic == OFFSETS_TOPIC || tp.topic == TRANSACTIONS_TOPIC {
            return Err(ErrorCode::InvalidTopicException);
        }
        let min_isr = self.config.min_insync_replicas_of(tp.topic);
        let (slot, replica) = self.led(tp)?;
        if replica.under_min_isr(min_isr) {
            fx.note("under-min-isr", format_args!("slot {slot}"));
        }
        if size_of(&batch) > bytes_max {
            return Err(ErrorCode::MessageTooLarge);
        }
        match &mut batch.payload {
            Payload::Records(records) if records.is_empty() => {
                return Err(ErrorCode::UnknownTopicOrPartition);
            }
            Payload::Records(records) if log_append_time => {
                for record in records {
                    record.timestamp = LogTimeMs(stamp_ms);
                }
            }
            Payload::Records(_) => {}
            Payload::Damaged => return Err(ErrorCode::CorruptMessage),
            // Only coordinators write these.
            Payload::Marker { .. } | Payload::Internal(_) => {
                return Err(ErrorCode::UnknownTopicOrPartition);
            }
        }
        self.verify_or_append(tp, from, batch, now, fx)
    }

    /// Appends a client's batch; the op is answered once it is replicated.
    pub(super) fn append_produced(
        &mut self,
        slot: usize,
        op: u64,
        index: usize,
        batch: Batch,
    ) -> Result<(), ErrorCode> {
        let min_isr = self.min_insync_replicas(slot);
        let Some(deadline) = self.produce_ops.get(&op).map(|op| op.deadline) else {
            return Ok(());
        };
        let replica = self.replicas[slot].as_mut().filter(|r| r.leads());
        let replica = replica.ok_or(ErrorCode::NotLeaderOrFollower)?;
        if replica.under_min_isr(min_isr) {
            return Err(ErrorCode::NotEnoughReplicas);
        }
        let appended = replica.append(batch, Origin::Client)?;
        let base = appended.base;
        let required = match self.config.breaks(Sabotage::AcknowledgedEarly) {
            true => Offset(0),
            false => appended.next,
        };
        let then = Then::Produce { op, index, base };
        self.wait_for(slot, required, deadline, then);
        Ok(())
    }

    /// One batch of a Produce has its result.
    pub(super) fn produced(
        &mut self,
        op: u64,
        index: usize,
        result: Result<Offset, ErrorCode>,
        fx: &mut Effects,
    ) {
        let Some(pending) = self.produce_ops.get_mut(&op) else {
            return;
        };
        pending.results[index].1 = Some(result);
        if pending.results.iter().all(|(_, result)| result.is_some()) {
            self.answer_produce(op, fx);
        }
    }

    fn answer_produce(&mut self, op: u64, fx: &mut Effects) {
        let Some(op) = self.produce_ops.remove(&op) else {
            return;
        };
        let results = op.results.into_iter();
        let results = results.map(|(tp, result)| (tp, result.expect("all results are there")));
        self.respond(op.asker, Response::Produce(results.collect()), fx);
    }

    /// The verdict on batches that waited for it.
    pub(super) fn verified(
        &mut self,
        verification: super::coordinator::Verification,
        verdict: Verdict,
        now: Micros,
        fx: &mut Effects,
    ) {
        if matches!(verdict, Verdict::Refused | Verdict::FencedEpoch) || verification.cancelled {
            fx.note(
                "stray-append-refused",
                format_args!("slot {}: {verdict:?}", verification.slot),
            );
        }
        let verdict = match verdict {
            Verdict::Verified if !verification.cancelled => Ok(()),
            Verdict::Verified | Verdict::Refused => Err(ErrorCode::InvalidTxnState),
            Verdict::FencedEpoch => Err(ErrorCode::InvalidProducerEpoch),
            // Kafka's way to make a producer try again.
            Verdict::Retry => Err(ErrorCode::NotEnoughReplicas),
        };
        for (from, batch) in verification.waiting {
            match from {
                Unverified::Produce { op, index } => {
                    let slot = verification.slot;
                    let done = verdict.and_then(|()| self.append_produced(slot, op, index, batch));
                    if let Err(error) = done {
                        self.produced(op, index, Err(error), fx);
                    }
                }
                Unverified::Offsets { asker, author } => {
                    let slot = verification.slot;
                    let done = verdict
                        .and_then(|()| self.append_offsets(slot, asker, &author, batch, now));
                    if let Err(error) = done {
                        self.refuse_offsets(asker, error, fx);
                    }
                }
            }
        }
    }
}

// Fetch.
impl Broker {
    fn fetch_for_consumer(
        &mut self,
        asker: Asker,
        wait_ms: u32,
        bytes_max: u32,
        partitions: &[FetchPartition],
        now: Micros,
        fx: &mut Effects,
    ) {
        let bytes_max = usize::try_from(bytes_max).expect("32 bits fit");
        let news = partitions.iter().any(|wanted| {
            let slot = self.slot(wanted.tp);
            let replica = slot.and_then(|slot| self.replicas[slot].as_ref());
            replica.is_none_or(|replica| has_news(&self.config, replica, wanted))
        });
        if news || wait_ms == 0 {
            self.answer_fetch(asker, bytes_max, partitions, fx);
            return;
        }
        let with_slot = |wanted: &FetchPartition| Some((self.slot(wanted.tp)?, *wanted));
        let partitions = partitions.iter().filter_map(with_slot).collect();
        let until = now.plus_ms(u64::from(wait_ms));
        self.parked_at = self.parked_at.min(until);
        self.parked.push(ParkedFetch {
            asker,
            until,
            bytes_max,
            partitions,
        });
    }

    /// There is news about a partition: answer the consumers that wait for it.
    pub(super) fn serve_consumers(&mut self, slot: usize, fx: &mut Effects) {
        let Some(replica) = self.replicas[slot].as_ref() else {
            return;
        };
        let ready = |parked: &ParkedFetch| {
            parked
                .partitions
                .iter()
                .any(|(s, wanted)| *s == slot && has_news(&self.config, replica, wanted))
        };
        if self.parked.iter().any(ready) {
            let (ready, rest) = std::mem::take(&mut self.parked)
                .into_iter()
                .partition(ready);
            self.parked = rest;
            self.answer_parked(ready, fx);
        }
    }

    /// This broker no longer leads as it did: whoever waits for the partition must learn it.
    pub(super) fn drop_parked(&mut self, slot: usize, fx: &mut Effects) {
        let (gone, rest) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|parked| parked.partitions.iter().any(|(s, _)| *s == slot));
        self.parked = rest;
        self.answer_parked(gone, fx);
    }

    pub(super) fn expire_parked(&mut self, now: Micros, fx: &mut Effects) {
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition(|parked| parked.until <= now);
        let next = rest.iter().map(|parked| parked.until).min();
        self.parked_at = next.unwrap_or(Micros::MAX);
        self.parked = rest;
        self.answer_parked(due, fx);
    }

    fn answer_parked(&mut self, parked: Vec<ParkedFetch>, fx: &mut Effects) {
        for fetch in parked {
            let wanted: Vec<_> = fetch.partitions.iter().map(|(_, wanted)| *wanted).collect();
            self.answer_fetch(fetch.asker, fetch.bytes_max, &wanted, fx);
        }
    }

    fn answer_fetch(
        &mut self,
        asker: Asker,
        bytes_max: usize,
        partitions: &[FetchPartition],
        fx: &mut Effects,
    ) {
        let mut bytes_left = Some(bytes_max);
        let fetched = partitions
            .iter()
            .map(|wanted| {
                let slot = self.slot(wanted.tp);
                let replica = slot.and_then(|slot| self.replicas[slot].as_ref());
                read(
                    &self.config,
                    slot.is_some(),
                    replica,
                    wanted,
                    &mut bytes_left,
                )
            })
            .collect();
        self.respond(asker, Response::Fetch(fetched), fx);
    }
}

/// Why a fetch of this partition fails, if it does.
fn fetch_error(
    exists: bool,
    replica: Option<&Replica>,
    wanted: &FetchPartition,
) -> Option<ErrorCode> {
    if !exists {
        return Some(ErrorCode::UnknownTopicOrPartition);
    }
    let Some(replica) = replica else {
        return Some(ErrorCode::NotLeaderOrFollower);
    };
    if wanted.current_leader_epoch >= 0 && wanted.current_leader_epoch < replica.leader_epoch {
        return Some(ErrorCode::FencedLeaderEpoch);
    }
    if wanted.current_leader_epoch > replica.leader_epoch {
        return Some(ErrorCode::UnknownLeaderEpoch);
    }
    if !replica.leads() {
        return Some(ErrorCode::NotLeaderOrFollower);
    }
    let inside = wanted.offset >= replica.log.start() && wanted.offset <= replica.log.end();
    (!inside).then_some(ErrorCode::OffsetOutOfRange)
}

/// What a consumer may read: up to the last stable offset.
fn readable(config: &ClusterConfig, replica: &Replica) -> Offset {
    match config.breaks(Sabotage::UnstableRead) {
        true => replica.high_watermark,
        false => replica.last_stable(),
    }
}

fn has_news(config: &ClusterConfig, replica: &Replica, wanted: &FetchPartition) -> bool {
    fetch_error(true, Some(replica), wanted).is_some() || readable(config, replica) > wanted.offset
}

/// Reads what a consumer may read; the first batch of an answer comes whatever its size.
fn read(
    config: &ClusterConfig,
    exists: bool,
    replica: Option<&Replica>,
    wanted: &FetchPartition,
    bytes_left: &mut Option<usize>,
) -> FetchedPartition {
    let mut fetched = FetchedPartition {
        tp: wanted.tp,
        error: fetch_error(exists, replica, wanted),
        high_watermark: Offset(-1),
        last_stable_offset: Offset(-1),
        log_start_offset: Offset(-1),
        aborted: Vec::new(),
        batches: Vec::new(),
    };
    let (None, Some(replica)) = (fetched.error, replica) else {
        return fetched;
    };
    fetched.high_watermark = replica.high_watermark;
    fetched.last_stable_offset = readable(config, replica);
    fetched.log_start_offset = replica.log.start();
    let mut end = wanted.offset;
    if wanted.offset < fetched.last_stable_offset {
        for batch in replica.log.range(wanted.offset, fetched.last_stable_offset) {
            let Some(left) = *bytes_left else {
                break;
            };
            let size = size_of(batch);
            // The budget is spent: nothing more, of this partition or of the next ones.
            *bytes_left = left.checked_sub(size);
            end = batch.next_offset();
            fetched.batches.push(Arc::clone(batch));
        }
    }
    fetched.aborted = replica.producers.aborted_between(wanted.offset, end);
    fetched
}
