//! Records of one partition on their way: waiting, batched, under way, to be sent again.

use crate::fabric::actor::Micros;
use crate::kafka::protocol::{
    Batch, BrokerId, LeaderEpoch, Offset, Payload, ProducerStamp, Record,
};
use std::collections::VecDeque;

/// Batches of one partition that may be under way at once (max.in.flight with idempotence).
pub(crate) const MAX_IN_FLIGHT: usize = 5;

const UNKNOWN_EPOCH: LeaderEpoch = -1;

/// A record that is in no batch yet.
#[derive(Debug)]
struct Waiting {
    record: Record,
    bytes: usize,
    queued_at: Micros,
}

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InFlight { broker: BrokerId, serial: u64 },
    Retry { at: Micros },
}

#[derive(Debug)]
struct Sealed {
    batch: Batch,
    records: usize,
    queued_at: Micros,
    state: State,
}

/// What a batch is made by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sealing {
    /// Producer id and epoch.
    pub(crate) identity: (i64, i16),
    /// Part of a transaction.
    pub(crate) transactional: bool,
    /// batch.num.messages
    pub(crate) max_records: usize,
    /// batch.size
    pub(crate) max_bytes: usize,
    /// Records wait so long for others.
    pub(crate) linger: Micros,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct PartitionQueue {
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    sealed: VecDeque<Sealed>,
    next_sequence: i32,
}

fn size(record: &Record) -> usize {
    let headers = record.headers.iter();
    record.key.as_ref().map_or(0, bytes::Bytes::len)
        + record.value.as_ref().map_or(0, bytes::Bytes::len)
        + headers
            .map(|header| header.name.len() + header.value.len())
            .sum::<usize>()
}

/// `sequence` + `count`, wrapping from 2^31 − 1 to 0 as Kafka's sequences do.
fn advanced(sequence: i32, count: usize) -> i32 {
    let sum = i64::from(sequence) + i64::try_from(count).expect("a batch is small");
    i32::try_from(sum & 0x7fff_ffff).expect("masked to 31 bits")
}

impl PartitionQueue {
    /// Adds a record.
    pub(crate) fn push(&mut self, now: Micros, record: Record) {
        let bytes = size(&record);
        self.waiting_bytes += bytes;
        self.waiting.push_back(Waiting {
            record,
            bytes,
            queued_at: now,
        });
    }

    /// True when a batch is full.
    pub(crate) fn is_full(&self, max_records: usize, max_bytes: usize) -> bool {
        self.waiting.len() >= max_records || self.waiting_bytes >= max_bytes
    }

    /// True when nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sealed.is_empty()
    }

    /// Records on their way.
    pub(crate) fn records(&self) -> usize {
        self.waiting.len()
            + self
                .sealed
                .iter()
                .map(|sealed| sealed.records)
                .sum::<usize>()
    }

    /// True when a batch is under way.
    pub(crate) fn in_flight(&self) -> bool {
        self.sealed
            .iter()
            .any(|sealed| matches!(sealed.state, State::InFlight { .. }))
    }

    /// When the oldest record was queued.
    pub(crate) fn oldest(&self) -> Option<Micros> {
        let sealed = self.sealed.front().map(|sealed| sealed.queued_at);
        sealed.or_else(|| self.waiting.front().map(|waiting| waiting.queued_at))
    }

    /// When something here becomes due after `now`.
    pub(crate) fn due(&self, now: Micros, linger: Micros) -> Micros {
        let retries = self.sealed.iter().map(|sealed| match sealed.state {
            State::Retry { at } => at,
            State::InFlight { .. } => Micros::MAX,
        });
        let lingered = self.waiting.front().map(|w| w.queued_at.plus(linger));
        retries
            .chain(lingered)
            .filter(|at| *at > now)
            .min()
            .unwrap_or(Micros::MAX)
    }

    /// The next batch to send to `leader`, first those to be sent again, in order of sequence: a
    /// batch never goes before an earlier one has gone.
    pub(crate) fn next_to_send(
        &mut self,
        now: Micros,
        leader: BrokerId,
        serial: u64,
        sealing: &Sealing,
    ) -> Option<Batch> {
        for sealed in &mut self.sealed {
            match sealed.state {
                State::InFlight { broker, .. } if broker == leader => {}
                State::Retry { at } if at <= now => {
                    sealed.state = State::InFlight {
                        broker: leader,
                        serial,
                    };
                    return Some(sealed.batch.clone());
                }
                // One still under way to the former leader, or one that has to wait.
                State::InFlight { .. } | State::Retry { .. } => return None,
            }
        }
        let oldest = self.waiting.front()?.queued_at;
        let ready = self.is_full(sealing.max_records, sealing.max_bytes)
            || oldest.plus(sealing.linger) <= now;
        if !ready || self.sealed.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let sealed = self.seal(leader, serial, sealing);
        Some(sealed)
    }

    fn seal(&mut self, leader: BrokerId, serial: u64, sealing: &Sealing) -> Batch {
        let queued_at = self.waiting[0].queued_at;
        let mut records = Vec::with_capacity(self.waiting.len().min(sealing.max_records));
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            let full =
                records.len() >= sealing.max_records || bytes + next.bytes > sealing.max_bytes;
            if full && !records.is_empty() {
                break;
            }
            let next = self.waiting.pop_front().expect("just seen");
            bytes += next.bytes;
            records.push(next.record);
        }
        self.waiting_bytes -= bytes;
        let count = records.len();
        let batch = Batch {
            base_offset: Offset(-1),
            leader_epoch: UNKNOWN_EPOCH,
            producer: Some(ProducerStamp {
                id: sealing.identity.0,
                epoch: sealing.identity.1,
                base_sequence: self.next_sequence,
                transactional: sealing.transactional,
            }),
            payload: Payload::Records(records),
        };
        self.next_sequence = advanced(self.next_sequence, count);
        self.sealed.push_back(Sealed {
            batch: batch.clone(),
            records: count,
            queued_at,
            state: State::InFlight {
                broker: leader,
                serial,
            },
        });
        batch
    }

    /// Position of the batch that was sent with `serial`: 0 is the head of the line.
    pub(crate) fn position(&self, sent_with: u64) -> Option<usize> {
        self.sealed.iter().position(
            |sealed| matches!(sealed.state, State::InFlight { serial, .. } if serial == sent_with),
        )
    }

    /// The batch has arrived, or is given up. Returns its number of records.
    pub(crate) fn done(&mut self, position: usize) -> usize {
        let sealed = self.sealed.remove(position);
        sealed.expect("positions come from this queue").records
    }

    /// The batch will be sent again.
    pub(crate) fn retry(&mut self, position: usize, at: Micros) {
        self.sealed[position].state = State::Retry { at };
    }

    /// Drops what is not under way. True if a batch with a sequence was dropped: then the sequence
    /// has a gap.
    pub(crate) fn purge(&mut self) -> bool {
        self.waiting.clear();
        self.waiting_bytes = 0;
        let before = self.sealed.len();
        self.sealed
            .retain(|sealed| matches!(sealed.state, State::InFlight { .. }));
        self.sealed.len() < before
    }

    /// Forgets the sequence while nothing is on its way: never of a faithful producer.
    pub(crate) fn restart_sequence(&mut self) {
        if self.is_empty() {
            self.next_sequence = 0;
        }
    }

    /// Starts the sequence anew under a new identity; batches keep their records.
    pub(crate) fn restamp(&mut self, identity: (i64, i16)) {
        self.next_sequence = 0;
        for sealed in &mut self.sealed {
            if let Some(stamp) = &mut sealed.batch.producer {
                (stamp.id, stamp.epoch) = identity;
                stamp.base_sequence = self.next_sequence;
            }
            self.next_sequence = advanced(self.next_sequence, sealed.records);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::protocol::LogTimeMs;

    const LEADER: BrokerId = BrokerId(1);

    fn sealing() -> Sealing {
        Sealing {
            identity: (7, 0),
            transactional: false,
            max_records: 2,
            max_bytes: 1_000,
            linger: Micros(0),
        }
    }

    fn queue(records: usize) -> PartitionQueue {
        let mut queue = PartitionQueue::default();
        for _ in 0..records {
            let record = Record {
                timestamp: LogTimeMs(0),
                key: None,
                value: Some(bytes::Bytes::from_static(b"v")),
                headers: Vec::new(),
            };
            queue.push(Micros(0), record);
        }
        queue
    }

    fn sequence(batch: Option<Batch>) -> Option<i32> {
        batch.map(|batch| batch.producer.expect("stamped").base_sequence)
    }

    #[test]
    fn sequences_count_records_and_at_most_five_batches_are_under_way() {
        let mut queue = queue(20);
        for number in 0..5 {
            let batch = queue.next_to_send(Micros(1), LEADER, number, &sealing());
            let expected = i32::try_from(number).expect("small") * 2;
            assert_eq!(sequence(batch), Some(expected));
        }
        assert!(
            queue
                .next_to_send(Micros(1), LEADER, 9, &sealing())
                .is_none()
        );
    }

    #[test]
    fn failed_batches_go_again_in_order_under_the_same_sequences() {
        let mut queue = queue(6);
        for number in 0..2 {
            queue.next_to_send(Micros(1), LEADER, number, &sealing());
        }
        queue.retry(1, Micros(5));
        queue.retry(0, Micros(10));
        assert!(
            queue
                .next_to_send(Micros(6), LEADER, 2, &sealing())
                .is_none()
        );
        let now = Micros(10);
        let order: Vec<_> = (3..6)
            .map(|serial| sequence(queue.next_to_send(now, LEADER, serial, &sealing())))
            .collect();
        assert_eq!(order, [Some(0), Some(2), Some(4)]);
    }

    #[test]
    fn nothing_goes_to_a_new_leader_while_the_old_one_has_not_answered() {
        let mut queue = queue(4);
        queue.next_to_send(Micros(1), LEADER, 0, &sealing());
        let other = BrokerId(2);
        assert!(
            queue
                .next_to_send(Micros(1), other, 1, &sealing())
                .is_none()
        );
        let position = queue.position(0).expect("under way");
        queue.retry(position, Micros(1));
        let again = queue.next_to_send(Micros(1), other, 2, &sealing());
        assert_eq!(sequence(again), Some(0));
    }

    #[test]
    fn a_new_identity_starts_the_sequence_anew_for_what_is_left() {
        let mut queue = queue(6);
        for number in 0..3 {
            queue.next_to_send(Micros(1), LEADER, number, &sealing());
        }
        queue.done(0);
        queue.retry(0, Micros(1));
        queue.retry(1, Micros(1));
        queue.restamp((8, 0));
        let batch = queue.next_to_send(Micros(1), LEADER, 5, &sealing());
        let stamp = batch.expect("due").producer.expect("stamped");
        assert_eq!((stamp.id, stamp.base_sequence), (8, 0));
        assert_eq!(
            sequence(queue.next_to_send(Micros(1), LEADER, 6, &sealing())),
            Some(2)
        );
    }

    #[test]
    fn a_sequence_wraps_to_zero() {
        assert_eq!(advanced(i32::MAX, 1), 0);
        assert_eq!(advanced(i32::MAX - 1, 3), 1);
    }
}
