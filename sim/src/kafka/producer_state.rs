//! What a replica knows of the producers that wrote to it (KIP-98): sequences, epochs, open and
//! aborted transactions. Rebuilt from the log whenever the log was cut or the process died.

use super::protocol::{Batch, ErrorCode, LogTimeMs, Offset, Payload, ProducerEpoch, ProducerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Batches that a duplicate is recognised among.
const WINDOW: usize = 5;

/// One of the newest batches of a producer.
#[derive(Debug, Clone, Copy)]
struct Remembered {
    first_sequence: i32,
    last_sequence: i32,
    base: Offset,
    next: Offset,
}

#[derive(Debug)]
struct Entry {
    epoch: ProducerEpoch,
    window: VecDeque<Remembered>,
    coordinator_epoch: i32,
    txn_first: Option<Offset>,
    /// Of its newest batch or marker.
    timestamp: LogTimeMs,
}

/// An aborted transaction, as the aborted index has it.
#[derive(Debug, Clone, Copy)]
struct Aborted {
    producer_id: ProducerId,
    first: Offset,
    /// Of the marker.
    last: Offset,
}

/// Where an append comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client's Produce: sequences are checked.
    Client,
    /// A coordinator on this broker.
    Coordinator,
}

/// Producers of one partition.
#[derive(Debug, Default)]
pub(super) struct ProducerStates {
    entries: BTreeMap<ProducerId, Entry>,
    /// Open transactions by first offset.
    open: BTreeMap<Offset, ProducerId>,
    /// (first offset, marker's offset) of ended transactions whose marker is not yet known to be
    /// below the high watermark, in order of their markers.
    unreplicated: VecDeque<(Offset, Offset)>,
    /// In order of their markers.
    aborted: Vec<Aborted>,
    /// Forgotten because they did not write for too long.
    expired: BTreeSet<ProducerId>,
}

impl ProducerStates {
    /// State after reading all of `batches`, with everything below `high_watermark` replicated.
    pub(super) fn rebuild(batches: &[Arc<Batch>], high_watermark: Offset) -> ProducerStates {
        let mut states = ProducerStates::default();
        for batch in batches {
            states.apply(batch);
        }
        states.high_watermark_moved(high_watermark);
        states
    }

    /// May `batch` be appended? `Some` names the base and next offset of the same batch appended
    /// before.
    pub(super) fn check(
        &self,
        batch: &Batch,
        origin: Origin,
    ) -> Result<Option<(Offset, Offset)>, ErrorCode> {
        let Some(stamp) = batch.producer else {
            return Ok(None);
        };
        let Some(entry) = self.entries.get(&stamp.id) else {
            // Kafka accepts any sequence of a producer that it does not know, because its state may
            // have expired. Of others only the first: this network reorders what TCP would not.
            let any = origin == Origin::Coordinator || self.expired.contains(&stamp.id);
            return match (any, stamp.base_sequence) {
                (true, _) | (_, 0) => Ok(None),
                _ => Err(ErrorCode::OutOfOrderSequenceNumber),
            };
        };
        if stamp.epoch < entry.epoch {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        if origin == Origin::Coordinator {
            return Ok(None);
        }
        let last = stamp.base_sequence.wrapping_add(last_index(batch));
        if stamp.epoch > entry.epoch {
            return match stamp.base_sequence {
                0 => Ok(None),
                _ => Err(ErrorCode::OutOfOrderSequenceNumber),
            };
        }
        let seen = entry
            .window
            .iter()
            .find(|b| b.first_sequence == stamp.base_sequence && b.last_sequence == last);
        if let Some(seen) = seen {
            return Ok(Some((seen.base, seen.next)));
        }
        let previous = entry.window.back().map_or(-1, |b| b.last_sequence);
        let expected = previous.checked_add(1).unwrap_or(0);
        if stamp.base_sequence != expected {
            return Err(ErrorCode::OutOfOrderSequenceNumber);
        }
        if entry.txn_first.is_some() && !stamp.transactional {
            return Err(ErrorCode::InvalidTxnState);
        }
        Ok(None)
    }

    /// May this marker be appended?
    pub(super) fn check_marker(
        &self,
        producer_id: ProducerId,
        epoch: ProducerEpoch,
        coordinator_epoch: i32,
    ) -> bool {
        self.entries.get(&producer_id).is_none_or(|entry| {
            epoch >= entry.epoch && coordinator_epoch >= entry.coordinator_epoch
        })
    }

    /// True while `producer_id` has a transaction open here.
    pub(super) fn has_open(&self, producer_id: ProducerId) -> bool {
        let entry = self.entries.get(&producer_id);
        entry.is_some_and(|entry| entry.txn_first.is_some())
    }

    /// `batch` has been appended.
    pub(super) fn apply(&mut self, batch: &Batch) {
        let Some(stamp) = batch.producer else {
            return;
        };
        let entry = self.entries.entry(stamp.id).or_insert_with(|| Entry {
            epoch: stamp.epoch,
            window: VecDeque::new(),
            coordinator_epoch: -1,
            txn_first: None,
            timestamp: LogTimeMs(0),
        });
        if let Some(timestamp) = newest_timestamp(batch) {
            entry.timestamp = timestamp;
        }
        self.expired.remove(&stamp.id);
        if stamp.epoch > entry.epoch {
            entry.epoch = stamp.epoch;
            entry.window.clear();
        }
        if let Payload::Marker {
            commit,
            coordinator_epoch,
            ..
        } = batch.payload
        {
            entry.coordinator_epoch = entry.coordinator_epoch.max(coordinator_epoch);
            if let Some(first) = entry.txn_first.take() {
                self.end(stamp.id, first, batch.base_offset, commit);
            }
            return;
        }
        if stamp.base_sequence >= 0 {
            if entry.window.len() == WINDOW {
                entry.window.pop_front();
            }
            entry.window.push_back(Remembered {
                first_sequence: stamp.base_sequence,
                last_sequence: stamp.base_sequence.wrapping_add(last_index(batch)),
                base: batch.base_offset,
                next: batch.next_offset(),
            });
        }
        if stamp.transactional && entry.txn_first.is_none() {
            entry.txn_first = Some(batch.base_offset);
            self.open.insert(batch.base_offset, stamp.id);
        }
    }

    fn end(&mut self, producer_id: ProducerId, first: Offset, marker: Offset, commit: bool) {
        self.open.remove(&first);
        self.unreplicated.push_back((first, marker));
        if !commit {
            self.aborted.push(Aborted {
                producer_id,
                first,
                last: marker,
            });
        }
    }

    /// Forgets producers whose newest batch bears a timestamp of `until` or before, and that have nothing
    /// open (unless not even those are spared). Returns how many.
    pub(super) fn expire(&mut self, until: LogTimeMs, spares_open: bool) -> usize {
        let before = self.entries.len();
        let expired = &mut self.expired;
        self.entries.retain(|id, entry| {
            let is_spared = spares_open && entry.txn_first.is_some();
            let stays = is_spared || entry.timestamp > until;
            if !stays {
                expired.insert(*id);
            }
            stays
        });
        before - self.entries.len()
    }

    /// The log begins anew: nothing is known of anybody.
    pub(super) fn forget_all(&mut self) {
        let known = std::mem::take(self);
        self.expired = known.expired;
        self.expired.extend(known.entries.into_keys());
    }

    /// The high watermark is now `high_watermark`.
    pub(super) fn high_watermark_moved(&mut self, high_watermark: Offset) {
        while let Some((_, marker)) = self.unreplicated.front() {
            if *marker >= high_watermark {
                break;
            }
            self.unreplicated.pop_front();
        }
    }

    /// First offset of a transaction that is open or whose end is not yet replicated.
    pub(super) fn first_unstable(&self) -> Option<Offset> {
        let open = self.open.keys().next().copied();
        let ending = self.unreplicated.iter().map(|(first, _)| *first).min();
        match (open, ending) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Aborted transactions that overlap `from..to`.
    pub(super) fn aborted_between(&self, from: Offset, to: Offset) -> Vec<(ProducerId, Offset)> {
        let first = self.aborted.partition_point(|a| a.last < from);
        self.aborted[first..]
            .iter()
            .filter(|a| a.first < to)
            .map(|a| (a.producer_id, a.first))
            .collect()
    }
}

impl ProducerStates {
    /// Every aborted transaction: producer id, first offset, offset of its marker.
    pub(super) fn all_aborted(&self) -> impl Iterator<Item = (ProducerId, Offset, Offset)> + '_ {
        self.aborted
            .iter()
            .map(|a| (a.producer_id, a.first, a.last))
    }
}

/// Of a batch, the largest of its records.
fn newest_timestamp(batch: &Batch) -> Option<LogTimeMs> {
    match &batch.payload {
        Payload::Records(records) => records.iter().map(|record| record.timestamp).max(),
        Payload::Marker { timestamp, .. } => Some(*timestamp),
        Payload::Internal(_) | Payload::Damaged => None,
    }
}

fn last_index(batch: &Batch) -> i32 {
    i32::try_from(batch.len() - 1).expect("a batch holds few records")
}
