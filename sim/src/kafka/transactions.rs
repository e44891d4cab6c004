//! The transaction coordinator (KIP-98, protocol version 1): a state machine per transactional id,
//! whose every transition is in `__transaction_state` before it counts.

use super::broker::Broker;
use super::coordinator::{Asker, Then, Transition, TxnReply, coordinator_error};
use super::internal::{InternalRecord, TxnRecord, TxnState, Verdict};
use super::protocol::{
    Batch, ErrorCode, LeaderEpoch, Offset, PartitionId, Payload, ProducerEpoch, ProducerId,
    Request, Response, TRANSACTIONS_TOPIC, TopicPartition,
};
use super::transaction_notes::note_state;
use crate::fabric::actor::{Effects, Micros};
use crate::sabotage::Sabotage;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Until a transition's append is given up: request.timeout.ms.
const APPEND_TIMEOUT_MS: u64 = 30_000;
/// Producer ids carry in their lowest bits which partition of `__transaction_state` gave them
/// (0: none), so that a leader finds the coordinator of a producer; Kafka's Produce carries the
/// transactional id instead.
const PRODUCER_PARTITION_BITS: u32 = 10;

/// Everything that one partition of `__transaction_state` coordinates.
#[derive(Debug)]
pub(super) struct TxnShard {
    /// Leader epoch: goes into markers.
    pub(super) epoch: LeaderEpoch,
    /// Still reading its log until then.
    pub(super) loaded_at: Option<Micros>,
    pub(super) ids: BTreeMap<Arc<str>, Txn>,
}

impl TxnShard {
    pub(super) fn loading(epoch: LeaderEpoch, loaded_at: Micros) -> TxnShard {
        TxnShard {
            epoch,
            loaded_at: Some(loaded_at),
            ids: BTreeMap::new(),
        }
    }
}

/// A transactional id.
#[derive(Debug)]
pub(super) struct Txn {
    pub(super) record: TxnRecord,
    /// State that it is about to enter.
    pub(super) pending: Option<TxnState>,
    /// An epoch was bumped in memory, but writing that failed: it must not be bumped again.
    failed_fence: bool,
    /// Partitions whose marker is not written yet.
    pub(super) outstanding: Vec<TopicPartition>,
    /// When to send markers (again), or to try again to complete.
    pub(super) markers_at: Option<Micros>,
    /// When it last changed, as far as this coordinator has seen.
    updated_at: Micros,
}

impl Txn {
    fn new(record: TxnRecord, now: Micros) -> Txn {
        Txn {
            record,
            pending: None,
            failed_fence: false,
            outstanding: Vec::new(),
            markers_at: None,
            updated_at: now,
        }
    }

    /// True when nobody has used it for so long that it may be forgotten.
    fn has_expired(&self, after_ms: u64, now: Micros) -> bool {
        use TxnState::{CompleteAbort, CompleteCommit, Empty};
        matches!(self.record.state, Empty | CompleteCommit | CompleteAbort)
            && self.pending.is_none()
            && now.since(self.updated_at) >= Micros::from_ms(after_ms)
    }

    /// The outcome is decided: markers must be written to every partition.
    fn begin_markers(&mut self, now: Micros) {
        self.pending = Some(match self.record.state {
            TxnState::PrepareCommit => TxnState::CompleteCommit,
            _ => TxnState::CompleteAbort,
        });
        self.outstanding.clone_from(&self.record.partitions);
        self.markers_at = Some(now);
    }
}

/// What is asked of a transactional id.
pub(super) struct Claim {
    pub(super) id: Arc<str>,
    producer_id: ProducerId,
    pub(super) epoch: ProducerEpoch,
}

impl Broker {
    /// A request to the transaction coordinator.
    pub(super) fn transaction_request(
        &mut self,
        asker: Asker,
        request: Request,
        now: Micros,
        fx: &mut Effects,
    ) {
        match request {
            Request::InitProducerId {
                transactional_id,
                transaction_timeout_ms,
            } => {
                let done =
                    self.init_producer_id(asker, transactional_id, transaction_timeout_ms, now, fx);
                if let Some(result) = done.transpose() {
                    self.respond(asker, Response::InitProducerId(result), fx);
                }
            }
            Request::AddPartitionsToTxn {
                transactional_id,
                producer_id,
                producer_epoch,
                partitions,
            } => {
                let claim = Claim {
                    id: transactional_id,
                    producer_id,
                    epoch: producer_epoch,
                };
                let exist = partitions.iter().all(|tp| self.slot(*tp).is_some());
                let result = match exist {
                    true => {
                        self.add_partitions(&claim, partitions, TxnReply::AddPartitions(asker), now)
                    }
                    false => Err(ErrorCode::UnknownTopicOrPartition),
                };
                self.note_waiting(&claim, result, fx);
                if let Some(result) = result.transpose() {
                    self.respond(asker, Response::AddPartitionsToTxn(result), fx);
                }
            }
            Request::AddOffsetsToTxn {
                transactional_id,
                producer_id,
                producer_epoch,
                group,
            } => {
                let claim = Claim {
                    id: transactional_id,
                    producer_id,
                    epoch: producer_epoch,
                };
                let partitions = vec![self.layout.group_partition(&group)];
                let result =
                    self.add_partitions(&claim, partitions, TxnReply::AddOffsets(asker), now);
                self.note_waiting(&claim, result, fx);
                if let Some(result) = result.transpose() {
                    self.respond(asker, Response::AddOffsetsToTxn(result), fx);
                }
            }
            Request::EndTxn {
                transactional_id,
                producer_id,
                producer_epoch,
                commit,
            } => {
                let claim = Claim {
                    id: transactional_id,
                    producer_id,
                    epoch: producer_epoch,
                };
                let result = self.end_txn(&claim, commit, asker, now);
                self.note_stray_end(&claim, result, fx);
                if let Some(result) = result.transpose() {
                    self.respond(asker, Response::EndTxn(result), fx);
                }
            }
            _ => {}
        }
    }

    /// The shard of a transactional id, if this broker coordinates it now.
    fn shard(&mut self, id: &str) -> Result<(PartitionId, &mut TxnShard), ErrorCode> {
        let partition = self.layout.transaction_partition(id).partition;
        match self.transactions.get_mut(&partition) {
            None => Err(ErrorCode::NotCoordinator),
            Some(shard) if shard.loaded_at.is_some() => Err(ErrorCode::CoordinatorLoadInProgress),
            Some(shard) => Ok((partition, shard)),
        }
    }

    /// The id of a claim, if the producer id is its and the epoch is the current one.
    fn claimed(&mut self, claim: &Claim) -> Result<(PartitionId, &mut Txn), ErrorCode> {
        let (partition, shard) = self.shard(&claim.id)?;
        let txn = shard.ids.get_mut(&claim.id);
        let txn = txn.ok_or(ErrorCode::InvalidProducerIdMapping)?;
        if txn.record.producer_id != claim.producer_id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        if txn.record.producer_epoch != claim.epoch {
            // PRODUCER_FENCED, as these request versions know it.
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        Ok((partition, txn))
    }

    fn new_producer_id(&mut self, partition: Option<PartitionId>) -> ProducerId {
        self.producer_ids += 1;
        let number = (i64::from(self.id.0) << 32) + self.producer_ids;
        let place = partition.map_or(0, |partition| i64::from(partition.0) + 1);
        (number << PRODUCER_PARTITION_BITS) | place
    }

    /// Answers at once, or (`None`) when the transition is written.
    #[allow(clippy::type_complexity)]
    fn init_producer_id(
        &mut self,
        asker: Asker,
        id: Option<Arc<str>>,
        timeout_ms: u32,
        now: Micros,
        fx: &mut Effects,
    ) -> Result<Option<(ProducerId, ProducerEpoch)>, ErrorCode> {
        let Some(id) = id else {
            return Ok(Some((self.new_producer_id(None), 0)));
        };
        let timeout_max_ms = self.config.transaction_max_timeout_ms;
        let (partition, shard) = self.shard(&id)?;
        if timeout_ms == 0 || u64::from(timeout_ms) > timeout_max_ms {
            return Err(ErrorCode::InvalidTransactionTimeout);
        }
        let Some(txn) = shard.ids.get(&id) else {
            let record = TxnRecord {
                transactional_id: Arc::clone(&id),
                producer_id: self.new_producer_id(Some(partition)),
                producer_epoch: -1,
                timeout_ms,
                state: TxnState::Empty,
                partitions: Vec::new(),
                started: now,
            };
            let (_, shard) = self.shard(&id)?;
            shard
                .ids
                .insert(Arc::clone(&id), Txn::new(record.clone(), now));
            return self.initialise(partition, record, asker, now);
        };
        if txn.pending.is_some() {
            fx.note("init-waits-for-markers", &id);
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let mut next = txn.record.clone();
        next.timeout_ms = timeout_ms;
        match txn.record.state {
            TxnState::PrepareCommit | TxnState::PrepareAbort => {
                fx.note("init-waits-for-markers", &id);
                Err(ErrorCode::ConcurrentTransactions)
            }
            TxnState::Ongoing => {
                fx.note(
                    "producer-fenced",
                    format_args!("{id} epoch {}", next.producer_epoch),
                );
                self.fence(partition, &id, TxnReply::Fence(asker), now)?;
                Ok(None)
            }
            _ => self.initialise(partition, next, asker, now),
        }
    }

    /// A new epoch without a transaction.
    #[allow(clippy::type_complexity)]
    fn initialise(
        &mut self,
        partition: PartitionId,
        mut next: TxnRecord,
        asker: Asker,
        now: Micros,
    ) -> Result<Option<(ProducerId, ProducerEpoch)>, ErrorCode> {
        if next.producer_epoch >= ProducerEpoch::MAX - 1 {
            next.producer_id = self.new_producer_id(Some(partition));
            next.producer_epoch = -1;
        }
        next.producer_epoch += 1;
        next.state = TxnState::Empty;
        next.partitions.clear();
        self.transit(partition, next, TxnReply::InitProducerId(asker), now)?;
        Ok(None)
    }

    /// Aborts an ongoing transaction under a bumped epoch.
    fn fence(
        &mut self,
        partition: PartitionId,
        id: &str,
        reply: TxnReply,
        now: Micros,
    ) -> Result<(), ErrorCode> {
        let spared =
            matches!(reply, TxnReply::Timeout) && self.config.breaks(Sabotage::TimeoutUnfenced);
        let shard = self.transactions.get_mut(&partition);
        let txn = shard.and_then(|shard| shard.ids.get_mut(id));
        let txn = txn.ok_or(ErrorCode::NotCoordinator)?;
        if !txn.failed_fence && !spared {
            txn.record.producer_epoch += 1;
        }
        let mut next = txn.record.clone();
        next.state = TxnState::PrepareAbort;
        self.transit(partition, next, reply, now)
    }

    /// `Ok(Some)`: nothing to do; `Ok(None)`: answered when written.
    fn add_partitions(
        &mut self,
        claim: &Claim,
        partitions: Vec<TopicPartition>,
        reply: TxnReply,
        now: Micros,
    ) -> Result<Option<()>, ErrorCode> {
        let overtakes = self.config.breaks(Sabotage::MarkersOvertaken);
        let (partition, txn) = self.claimed(claim)?;
        let state = txn.record.state;
        let ending = matches!(state, TxnState::PrepareCommit | TxnState::PrepareAbort);
        if (txn.pending.is_some() || ending) && !(ending && overtakes) {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let mut next = txn.record.clone();
        if state == TxnState::Ongoing {
            if partitions.iter().all(|tp| next.partitions.contains(tp)) {
                return Ok(Some(()));
            }
        } else {
            next.state = TxnState::Ongoing;
            next.partitions.clear();
            next.started = now;
        }
        next.partitions.extend(partitions);
        next.partitions.sort_unstable();
        next.partitions.dedup();
        if self.config.breaks(Sabotage::TransactionUnwritten) {
            let (_, txn) = self.claimed(claim)?;
            (txn.record, txn.updated_at) = (next, now);
            return Ok(Some(()));
        }
        self.transit(partition, next, reply, now)?;
        Ok(None)
    }

    /// EndTxn as protocol version 1 has it: nothing tells a late repetition from a new request.
    fn end_txn(
        &mut self,
        claim: &Claim,
        commit: bool,
        asker: Asker,
        now: Micros,
    ) -> Result<Option<()>, ErrorCode> {
        let (partition, txn) = self.claimed(claim)?;
        if txn.pending.is_some() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let mut next = txn.record.clone();
        match (txn.record.state, commit) {
            (TxnState::Ongoing, true) => next.state = TxnState::PrepareCommit,
            (TxnState::Ongoing, false) => next.state = TxnState::PrepareAbort,
            (TxnState::CompleteCommit, true) | (TxnState::CompleteAbort, false) => {
                return Ok(Some(()));
            }
            (TxnState::PrepareCommit, true) | (TxnState::PrepareAbort, false) => {
                return Err(ErrorCode::ConcurrentTransactions);
            }
            _ => return Err(ErrorCode::InvalidTxnState),
        }
        self.transit(partition, next, TxnReply::EndTxn(asker), now)?;
        Ok(None)
    }

    /// Appends `next`; [`Broker::transitioned`] hears of the outcome.
    fn transit(
        &mut self,
        partition: PartitionId,
        next: TxnRecord,
        reply: TxnReply,
        now: Micros,
    ) -> Result<(), ErrorCode> {
        let shard = self.transactions.get_mut(&partition);
        let shard = shard.ok_or(ErrorCode::NotCoordinator)?;
        let coordinator_epoch = shard.epoch;
        let id = Arc::clone(&next.transactional_id);
        if let Some(txn) = shard.ids.get_mut(&id) {
            txn.pending = Some(next.state);
        }
        let batch = Batch {
            base_offset: Offset(0),
            leader_epoch: 0,
            producer: None,
            payload: Payload::Internal(InternalRecord::Transaction(next.clone())),
        };
        let transition = Transition {
            partition,
            coordinator_epoch,
            next,
            reply,
        };
        let tp = TopicPartition {
            topic: TRANSACTIONS_TOPIC,
            partition,
        };
        let deadline = now.plus_ms(APPEND_TIMEOUT_MS);
        let then = Then::Transaction(Box::new(transition));
        self.append(tp, batch, deadline, then).map_err(|error| {
            self.transition_failed(partition, &id, reply, now);
            coordinator_error(error)
        })
    }

    fn transition_failed(
        &mut self,
        partition: PartitionId,
        id: &str,
        reply: TxnReply,
        now: Micros,
    ) {
        let shard = self.transactions.get_mut(&partition);
        let Some(txn) = shard.and_then(|shard| shard.ids.get_mut(id)) else {
            return;
        };
        match reply {
            // The outcome stands; completing is tried until it succeeds.
            TxnReply::Completed => {
                let at = now.plus_ms(super::markers::MARKER_RETRY_MS);
                txn.markers_at = Some(at);
                self.markers_at = self.markers_at.min(at);
            }
            TxnReply::Fence(_) | TxnReply::Timeout => {
                txn.failed_fence = true;
                txn.pending = None;
            }
            _ => txn.pending = None,
        }
    }

    /// A transition was replicated, or failed.
    pub(super) fn transitioned(
        &mut self,
        transition: Transition,
        result: Result<(), ErrorCode>,
        now: Micros,
        fx: &mut Effects,
    ) {
        let Transition {
            partition,
            coordinator_epoch,
            next,
            reply,
        } = transition;
        let id = Arc::clone(&next.transactional_id);
        let (producer_id, epoch) = (next.producer_id, next.producer_epoch);
        let shard = self.transactions.get_mut(&partition);
        let txn = shard
            .filter(|shard| shard.epoch == coordinator_epoch)
            .and_then(|shard| shard.ids.get_mut(&id))
            .filter(|txn| txn.pending == Some(next.state));
        let result = match (result, txn) {
            (_, None) => Err(ErrorCode::NotCoordinator),
            (Err(error), Some(_)) => {
                let kind = match reply {
                    TxnReply::Fence(_) | TxnReply::Timeout => "txn-fence-failed",
                    _ => "txn-transition-failed",
                };
                fx.note(kind, format_args!("{id}: {}", error.name()));
                self.transition_failed(partition, &id, reply, now);
                Err(coordinator_error(error))
            }
            (Ok(()), Some(txn)) => {
                txn.pending = None;
                txn.failed_fence = false;
                let begins = txn.record.state != TxnState::Ongoing;
                txn.record = next;
                txn.updated_at = now;
                note_state(txn, begins, fx);
                if matches!(
                    txn.record.state,
                    TxnState::PrepareCommit | TxnState::PrepareAbort
                ) {
                    txn.begin_markers(now);
                    self.send_markers(partition, &id, now, fx);
                }
                Ok(())
            }
        };
        let (asker, response) = match reply {
            TxnReply::InitProducerId(asker) => (
                asker,
                Response::InitProducerId(result.map(|()| (producer_id, epoch))),
            ),
            TxnReply::Fence(asker) => {
                let error = result.err().unwrap_or(ErrorCode::ConcurrentTransactions);
                (asker, Response::InitProducerId(Err(error)))
            }
            TxnReply::AddPartitions(asker) => (asker, Response::AddPartitionsToTxn(result)),
            TxnReply::AddOffsets(asker) => (asker, Response::AddOffsetsToTxn(result)),
            TxnReply::EndTxn(asker) => (asker, Response::EndTxn(result)),
            TxnReply::Timeout | TxnReply::Completed => return,
        };
        self.respond(asker, response, fx);
    }

    /// Every marker is written.
    pub(super) fn complete_transaction(&mut self, partition: PartitionId, id: &str, now: Micros) {
        let shard = self.transactions.get(&partition);
        let Some(txn) = shard.and_then(|shard| shard.ids.get(id)) else {
            return;
        };
        let mut next = txn.record.clone();
        next.state = match next.state {
            TxnState::PrepareCommit => TxnState::CompleteCommit,
            _ => TxnState::CompleteAbort,
        };
        next.partitions.clear();
        // If it fails, `transition_failed` has already arranged for another try.
        let _ = self.transit(partition, next, TxnReply::Completed, now);
    }

    /// Aborts transactions that have been open for too long.
    pub(super) fn sweep_transactions(&mut self, now: Micros, fx: &mut Effects) {
        self.sweep_at = now.plus_ms(self.config.transaction_cleanup_interval_ms);
        let mut late = Vec::new();
        for (partition, shard) in &self.transactions {
            for txn in shard.ids.values() {
                let record = &txn.record;
                let age = now.since(record.started);
                if record.state == TxnState::Ongoing
                    && txn.pending.is_none()
                    && age > Micros::from_ms(u64::from(record.timeout_ms))
                {
                    late.push((*partition, Arc::clone(&record.transactional_id)));
                }
            }
        }
        for (partition, id) in late {
            fx.note("txn-timeout", &id);
            // If it fails, the next sweep tries again.
            let _ = self.fence(partition, &id, TxnReply::Timeout, now);
        }
        self.expire_transactional_ids(now, fx);
    }

    /// Forgets transactional ids that nobody uses.
    fn expire_transactional_ids(&mut self, now: Micros, fx: &mut Effects) {
        let after_ms = self.config.transactional_id_expiration_ms;
        let mut expired = Vec::new();
        for (partition, shard) in &mut self.transactions {
            shard.ids.retain(|id, txn| {
                let gone = txn.has_expired(after_ms, now);
                if gone {
                    expired.push((*partition, Arc::clone(id)));
                }
                !gone
            });
        }
        for (partition, id) in expired {
            fx.note("transactional-id-expired", &id);
            let batch = Batch {
                base_offset: Offset(0),
                leader_epoch: 0,
                producer: None,
                payload: Payload::Internal(InternalRecord::TransactionExpired {
                    transactional_id: id,
                }),
            };
            let tp = TopicPartition {
                topic: TRANSACTIONS_TOPIC,
                partition,
            };
            let deadline = now.plus_ms(APPEND_TIMEOUT_MS);
            // If it fails, the next coordinator knows the id again, and forgets it again.
            let _ = self.append(tp, batch, deadline, super::coordinator::Then::Nothing);
        }
    }

    /// Reads the state of transactional ids from the logs of partitions newly led.
    pub(super) fn load_transactions(&mut self, now: Micros, fx: &mut Effects) {
        let mut prepared = Vec::new();
        for (partition, shard) in &mut self.transactions {
            let Some(loaded_at) = shard.loaded_at else {
                continue;
            };
            if loaded_at > now {
                self.load_at = self.load_at.min(loaded_at);
                continue;
            }
            shard.loaded_at = None;
            let tp = TopicPartition {
                topic: TRANSACTIONS_TOPIC,
                partition: *partition,
            };
            let slot = self.layout.slot(tp).expect("the shard has a partition");
            let replica = self.replicas[slot].as_ref().expect("this broker leads it");
            for batch in replica.log.batches() {
                if let Payload::Internal(InternalRecord::Transaction(record)) = &batch.payload {
                    let id = Arc::clone(&record.transactional_id);
                    shard.ids.insert(id, Txn::new(record.clone(), now));
                }
                if let Payload::Internal(InternalRecord::TransactionExpired { transactional_id }) =
                    &batch.payload
                {
                    shard.ids.remove(transactional_id);
                }
            }
            for (id, txn) in &mut shard.ids {
                if matches!(
                    txn.record.state,
                    TxnState::Ongoing | TxnState::PrepareCommit | TxnState::PrepareAbort
                ) {
                    fx.note("txn-loaded", format_args!("{id} {:?}", txn.record.state));
                }
                if matches!(
                    txn.record.state,
                    TxnState::PrepareCommit | TxnState::PrepareAbort
                ) {
                    txn.begin_markers(now);
                    prepared.push((*partition, Arc::clone(id)));
                }
            }
        }
        for (partition, id) in prepared {
            self.send_markers(partition, &id, now, fx);
        }
    }

    /// Is this partition part of the producer's ongoing transaction (KIP-890, part 1)?
    pub(super) fn verdict(
        &self,
        producer_id: ProducerId,
        epoch: ProducerEpoch,
        tp: TopicPartition,
    ) -> Verdict {
        let partition = transaction_partition_of(producer_id);
        let shard = partition.and_then(|partition| self.transactions.get(&partition));
        let Some(shard) = shard.filter(|shard| shard.loaded_at.is_none()) else {
            return Verdict::Retry;
        };
        let mut ids = shard.ids.values();
        let Some(txn) = ids.find(|txn| txn.record.producer_id == producer_id) else {
            return Verdict::Refused;
        };
        if txn.record.producer_epoch != epoch {
            return Verdict::FencedEpoch;
        }
        if txn.pending.is_some_and(|state| state != TxnState::Ongoing) {
            return Verdict::Retry;
        }
        match txn.record.state {
            TxnState::Ongoing if txn.record.partitions.contains(&tp) => Verdict::Verified,
            TxnState::PrepareCommit | TxnState::PrepareAbort => Verdict::Retry,
            _ => Verdict::Refused,
        }
    }
}

/// Partition of `__transaction_state` that gave this producer id.
pub(super) fn transaction_partition_of(producer_id: ProducerId) -> Option<PartitionId> {
    let place = producer_id & ((1 << PRODUCER_PARTITION_BITS) - 1);
    (place > 0).then(|| PartitionId(i32::try_from(place - 1).expect("ten bits")))
}
