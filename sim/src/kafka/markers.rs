//! Transaction markers: from the coordinator to the leaders of a transaction's partitions, until each
//! has written its own; and the question whether a transaction may begin on a partition.

use super::broker::Broker;
use super::coordinator::{Asker, Markers, Sent, Then, Unverified, Verification};
use super::internal::{InternalRequest, InternalResponse, MarkerResult, TxnState, Verdict};
use super::producer_state::Origin;
use super::protocol::{
    Batch, BrokerId, ErrorCode, LogTimeMs, Offset, PartitionId, Payload, ProducerId, ProducerStamp,
    Response, TopicPartition,
};
use crate::fabric::actor::{Effects, Micros};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Until markers that were refused are sent again.
pub(super) const MARKER_RETRY_MS: u64 = 100;
/// Until a leader gives up on replicating a marker, and is asked again.
const APPEND_TIMEOUT_MS: u64 = 1_500;

/// A WriteTxnMarkers that waits for its partitions.
#[derive(Debug)]
pub(super) struct MarkerOp {
    asker: Asker,
    results: Vec<(TopicPartition, Option<MarkerResult>)>,
}

/// Marker requests of one sender that must not take effect (again): what TCP connections, which keep
/// order and die as a whole, do for real brokers.
#[derive(Debug, Default)]
pub(super) struct SeenMarkers {
    /// Older ones were abandoned by their sender.
    oldest_live: u64,
    seen: BTreeSet<u64>,
}

impl SeenMarkers {
    fn admit(&mut self, correlation: u64, oldest_live: u64) -> bool {
        self.oldest_live = self.oldest_live.max(oldest_live);
        self.seen = self.seen.split_off(&self.oldest_live);
        correlation >= self.oldest_live && self.seen.insert(correlation)
    }
}

// The coordinator's side.
impl Broker {
    /// Sends a decided transaction's markers to whom they are still missing.
    pub(super) fn send_markers(
        &mut self,
        partition: PartitionId,
        id: &str,
        now: Micros,
        fx: &mut Effects,
    ) {
        let image = self.image.clone().expect("a coordinator has metadata");
        let Some(shard) = self.transactions.get_mut(&partition) else {
            return;
        };
        let coordinator_epoch = shard.epoch;
        let Some(txn) = shard.ids.get_mut(id) else {
            return;
        };
        // A marker must never arrive twice: the second could end the next transaction.
        let under_way = |tp: &TopicPartition| {
            self.in_flight.iter().any(|f| match &f.what {
                Sent::Markers(m) => {
                    m.coordinator_epoch == coordinator_epoch
                        && *m.transactional_id == *id
                        && m.partitions.contains(tp)
                }
                _ => false,
            })
        };
        txn.markers_at = None;
        if txn.outstanding.is_empty() {
            self.complete_transaction(partition, id, now);
            return;
        }
        let mut by_leader: BTreeMap<BrokerId, Vec<TopicPartition>> = BTreeMap::new();
        for tp in txn.outstanding.iter().filter(|tp| !under_way(tp)) {
            let slot = self
                .layout
                .slot(*tp)
                .expect("partitions were checked when added");
            match image.partitions[slot].leader {
                Some(leader) => by_leader.entry(leader).or_default().push(*tp),
                None => {
                    let at = now.plus_ms(MARKER_RETRY_MS);
                    txn.markers_at = Some(at);
                    self.markers_at = self.markers_at.min(at);
                }
            }
        }
        let record = txn.record.clone();
        for (to, partitions) in by_leader {
            let request = InternalRequest::WriteTxnMarkers {
                broker: self.id,
                oldest_live: self.oldest_markers(to),
                producer_id: record.producer_id,
                producer_epoch: record.producer_epoch,
                commit: record.state == TxnState::PrepareCommit,
                coordinator_epoch,
                partitions: partitions.clone(),
            };
            let what = Sent::Markers(Markers {
                to,
                partition,
                coordinator_epoch,
                transactional_id: Arc::clone(&record.transactional_id),
                producer_epoch: record.producer_epoch,
                partitions,
            });
            let address = self
                .directory
                .broker(to)
                .expect("leaders are in the directory");
            self.ask(address, request, what, now, fx);
        }
    }

    fn oldest_markers(&self, to: BrokerId) -> u64 {
        let live = self.in_flight.iter().filter_map(|f| match &f.what {
            Sent::Markers(markers) if markers.to == to => Some(f.correlation),
            _ => None,
        });
        live.min().unwrap_or(self.correlation + 1)
    }

    /// A leader answered.
    pub(super) fn markers_answered(
        &mut self,
        markers: &Markers,
        results: &[(TopicPartition, MarkerResult)],
        now: Micros,
    ) {
        let shard = self.transactions.get_mut(&markers.partition);
        let txn = shard
            .filter(|shard| shard.epoch == markers.coordinator_epoch)
            .and_then(|shard| shard.ids.get_mut(&markers.transactional_id))
            .filter(|txn| {
                txn.record.producer_epoch == markers.producer_epoch && !txn.outstanding.is_empty()
            });
        let Some(txn) = txn else {
            return;
        };
        let mut retry = false;
        for tp in &markers.partitions {
            match results.iter().find(|(answered, _)| answered == tp) {
                Some((_, MarkerResult::Written)) => txn.outstanding.retain(|o| o != tp),
                // A newer coordinator finishes this transaction; this one never will.
                Some((_, MarkerResult::Fenced)) => {
                    txn.outstanding.clear();
                    return;
                }
                _ => retry = true,
            }
        }
        if txn.outstanding.is_empty() {
            self.complete_transaction(markers.partition, &markers.transactional_id, now);
        } else if retry {
            let at = now.plus_ms(MARKER_RETRY_MS);
            self.retry_markers(markers.partition, &markers.transactional_id, at);
        }
    }

    /// Arranges for the markers still missing to be sent at `at`.
    pub(super) fn retry_markers(&mut self, partition: PartitionId, id: &str, at: Micros) {
        let shard = self.transactions.get_mut(&partition);
        if let Some(txn) = shard.and_then(|shard| shard.ids.get_mut(id))
            && !txn.outstanding.is_empty()
        {
            txn.markers_at = Some(txn.markers_at.map_or(at, |known| known.min(at)));
            self.markers_at = self.markers_at.min(at);
        }
    }

    pub(super) fn send_due_markers(&mut self, now: Micros, fx: &mut Effects) {
        self.markers_at = Micros::MAX;
        let mut due = Vec::new();
        for (partition, shard) in &self.transactions {
            for (id, txn) in &shard.ids {
                match txn.markers_at {
                    Some(at) if at <= now => due.push((*partition, Arc::clone(id))),
                    Some(at) => self.markers_at = self.markers_at.min(at),
                    None => {}
                }
            }
        }
        for (partition, id) in due {
            self.send_markers(partition, &id, now, fx);
        }
    }
}

// The leader's side.
impl Broker {
    /// A coordinator wants markers written.
    pub(super) fn write_markers(
        &mut self,
        asker: Asker,
        request: InternalRequest,
        now: Micros,
        fx: &mut Effects,
    ) {
        let InternalRequest::WriteTxnMarkers {
            broker,
            oldest_live,
            producer_id,
            producer_epoch,
            commit,
            coordinator_epoch,
            partitions,
        } = request
        else {
            return;
        };
        let seen = self.seen_markers.entry(broker).or_default();
        if !seen.admit(asker.correlation, oldest_live) {
            return;
        }
        let marker = Batch {
            base_offset: Offset(0),
            leader_epoch: 0,
            producer: Some(ProducerStamp {
                id: producer_id,
                epoch: producer_epoch,
                base_sequence: -1,
                transactional: true,
            }),
            payload: Payload::Marker {
                commit,
                coordinator_epoch,
                timestamp: LogTimeMs(self.unix_ms(now)),
            },
        };
        self.next_op += 1;
        let op = self.next_op;
        let results = partitions.iter().map(|tp| (*tp, None)).collect();
        self.marker_ops.insert(op, MarkerOp { asker, results });
        let deadline = now.plus_ms(APPEND_TIMEOUT_MS);
        for tp in partitions {
            let done = self.append_marker(tp, marker.clone(), coordinator_epoch, op, deadline);
            if let Err(error) = done {
                if error == ErrorCode::InvalidProducerEpoch {
                    fx.note(
                        "marker-fenced",
                        format_args!("{tp:?} epoch {producer_epoch}"),
                    );
                }
                self.marker_written(op, tp, Err(error), fx);
            }
        }
    }

    fn append_marker(
        &mut self,
        tp: TopicPartition,
        marker: Batch,
        coordinator_epoch: i32,
        op: u64,
        deadline: Micros,
    ) -> Result<(), ErrorCode> {
        let stamp = marker.producer.expect("markers have a producer");
        let (slot, replica) = self.led(tp)?;
        if !replica
            .producers
            .check_marker(stamp.id, stamp.epoch, coordinator_epoch)
        {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        self.append(tp, marker, deadline, Then::Marker { op, tp })?;
        self.cancel_verifications(slot, stamp.id);
        Ok(())
    }

    /// A marker is below the high watermark, or failed.
    pub(super) fn marker_written(
        &mut self,
        op: u64,
        tp: TopicPartition,
        result: Result<(), ErrorCode>,
        fx: &mut Effects,
    ) {
        let result = match result {
            Ok(()) => MarkerResult::Written,
            Err(ErrorCode::InvalidProducerEpoch) => MarkerResult::Fenced,
            Err(_) => MarkerResult::Retry,
        };
        let Some(pending) = self.marker_ops.get_mut(&op) else {
            return;
        };
        for (waiting, slot) in &mut pending.results {
            if *waiting == tp {
                *slot = Some(result);
            }
        }
        if pending.results.iter().any(|(_, result)| result.is_none()) {
            return;
        }
        let pending = self.marker_ops.remove(&op).expect("just seen");
        let results = pending.results.into_iter();
        let results = results.map(|(tp, result)| (tp, result.expect("all results are there")));
        let response = InternalResponse::WriteTxnMarkers {
            results: results.collect(),
        };
        self.respond(pending.asker, Response::Internal(response), fx);
    }
}

// Verification.
impl Broker {
    /// Appends a client's batch; if it begins a transaction on this partition, only after the
    /// coordinator has confirmed that the partition belongs to it.
    pub(super) fn verify_or_append(
        &mut self,
        tp: TopicPartition,
        from: Unverified,
        batch: Batch,
        now: Micros,
        fx: &mut Effects,
    ) -> Result<(), ErrorCode> {
        let verifies = self.config.transaction_verification;
        let (slot, replica) = self.led(tp)?;
        let stamp = batch.producer.filter(|stamp| stamp.transactional);
        let unverified = stamp.filter(|stamp| verifies && !replica.has_open(stamp.id));
        let Some(stamp) = unverified else {
            return match from {
                Unverified::Produce { op, index } => self.append_produced(slot, op, index, batch),
                Unverified::Offsets { asker, author } => {
                    self.append_offsets(slot, asker, &author, batch, now)
                }
            };
        };
        replica.producers.check(&batch, Origin::Coordinator)?;
        for sent in &mut self.in_flight {
            if let Sent::Verify(verification) = &mut sent.what
                && verification.slot == slot
                && verification.producer_id == stamp.id
                && verification.producer_epoch == stamp.epoch
                && !verification.cancelled
            {
                verification.waiting.push((from, batch));
                return Ok(());
            }
        }
        let verification = Verification {
            slot,
            producer_id: stamp.id,
            producer_epoch: stamp.epoch,
            cancelled: false,
            waiting: vec![(from, batch)],
        };
        self.verify(tp, verification, now, fx);
        Ok(())
    }

    fn verify(
        &mut self,
        tp: TopicPartition,
        verification: Verification,
        now: Micros,
        fx: &mut Effects,
    ) {
        let image = self.image.as_ref().expect("a leader has metadata");
        let partition = super::transactions::transaction_partition_of(verification.producer_id);
        let slot = partition.and_then(|partition| {
            self.layout.slot(TopicPartition {
                topic: super::protocol::TRANSACTIONS_TOPIC,
                partition,
            })
        });
        let Some(slot) = slot else {
            self.verified(verification, Verdict::Refused, now, fx);
            return;
        };
        let leader = image.partitions[slot].leader;
        let Some(address) = leader.and_then(|leader| self.directory.broker(leader)) else {
            self.verified(verification, Verdict::Retry, now, fx);
            return;
        };
        if address == self.address {
            let (id, epoch) = (verification.producer_id, verification.producer_epoch);
            let verdict = self.verdict(id, epoch, tp);
            self.verified(verification, verdict, now, fx);
            return;
        }
        let request = InternalRequest::VerifyTransaction {
            producer_id: verification.producer_id,
            producer_epoch: verification.producer_epoch,
            partition: tp,
        };
        self.ask(address, request, Sent::Verify(verification), now, fx);
    }

    /// A marker was written: what still waits for a verdict belongs to the transaction that it ended.
    fn cancel_verifications(&mut self, slot: usize, producer_id: ProducerId) {
        for sent in &mut self.in_flight {
            if let Sent::Verify(verification) = &mut sent.what
                && verification.slot == slot
                && verification.producer_id == producer_id
            {
                verification.cancelled = true;
            }
        }
    }
}
