//! Fetches that take long, by a consumer that says that there is nothing to fetch.

use processor::io::{ConsumedRecord, OffsetBounds, Polled};
use processor::units::{Offset, PartitionId};
use std::collections::BTreeMap;

/// How long a slow fetch takes, milliseconds.
const SLOW_MS: u64 = 30_000;

/// Records that are on their way.
struct Slow {
    /// Where it says that the log ends.
    end: Offset,
    /// The end has been told.
    told: bool,
    arrives_at_ms: u64,
    records: Vec<ConsumedRecord>,
    /// Where the log really ends after these records, if that was told.
    true_end: Option<Offset>,
}

/// The partitions that are fetched slowly.
#[derive(Default)]
pub(super) struct SlowFetches {
    partitions: BTreeMap<PartitionId, Slow>,
    /// A partition whose records have arrived, and where it really ends.
    caught_up: Option<(PartitionId, Offset)>,
}

impl SlowFetches {
    pub(super) fn is_slow(&self, partition: PartitionId) -> bool {
        self.partitions.contains_key(&partition)
    }

    /// Records from `end` on take long from now on.
    pub(super) fn hold(
        &mut self,
        partition: PartitionId,
        end: Offset,
        records: Vec<ConsumedRecord>,
        now_ms: u64,
    ) {
        let slow = Slow {
            end,
            told: false,
            arrives_at_ms: now_ms + SLOW_MS,
            records,
            true_end: None,
        };
        self.partitions.insert(partition, slow);
    }

    /// Records that come after those of a slow fetch.
    pub(super) fn follow(&mut self, partition: PartitionId, records: Vec<ConsumedRecord>) {
        if let Some(slow) = self.partitions.get_mut(&partition) {
            slow.records.extend(records);
            slow.true_end = None;
        }
    }

    /// The real end is told when the records before it have arrived.
    pub(super) fn end_after(&mut self, partition: PartitionId, end: Offset) {
        if let Some(slow) = self.partitions.get_mut(&partition) {
            slow.true_end = Some(end);
        }
    }

    /// An end to be told, or records that have arrived.
    pub(super) fn next(&mut self, now_ms: u64) -> Option<Polled> {
        if let Some((partition, position)) = self.caught_up.take() {
            return Some(Polled::EndOfPartition {
                partition,
                position,
            });
        }
        let untold = self.partitions.iter_mut().find(|(_, slow)| !slow.told);
        if let Some((&partition, slow)) = untold {
            slow.told = true;
            return Some(Polled::EndOfPartition {
                partition,
                position: slow.end,
            });
        }
        let mut arrived = self.partitions.iter();
        let (&partition, _) = arrived.find(|(_, slow)| slow.arrives_at_ms <= now_ms)?;
        let slow = self.partitions.remove(&partition)?;
        self.caught_up = slow.true_end.map(|end| (partition, end));
        Some(Polled::Records {
            partition,
            records: slow.records,
        })
    }

    /// What is told of a slow partition's log.
    pub(super) fn bounds(&self, partition: PartitionId) -> Option<OffsetBounds> {
        self.partitions.get(&partition).map(|slow| OffsetBounds {
            earliest: Offset(0),
            last_stable: slow.end,
        })
    }

    /// These partitions are read from elsewhere, or by somebody else.
    pub(super) fn forget(&mut self, partitions: &[PartitionId]) {
        self.partitions
            .retain(|partition, _| !partitions.contains(partition));
        self.caught_up
            .take_if(|(partition, _)| partitions.contains(partition));
    }
}
