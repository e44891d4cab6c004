//! Read committed: which records of a fetch response an application may see.

use crate::kafka::protocol::{Batch, FetchedPartition, Offset, Payload, ProducerId};
use std::sync::Arc;

/// A batch with visible records.
#[derive(Debug, Clone)]
pub(crate) struct Visible {
    /// The batch.
    pub(crate) batch: Arc<Batch>,
    /// Records at its start that lie before the wanted offset.
    pub(crate) skip: usize,
}

/// What a fetch response amounts to.
#[derive(Debug)]
pub(crate) struct Filtered {
    /// Batches with visible records, in order.
    pub(crate) visible: Vec<Visible>,
    /// Number of visible records.
    pub(crate) records: usize,
    /// Number of records of aborted transactions.
    pub(crate) aborted: usize,
    /// Next offset to fetch.
    pub(crate) next: Offset,
}

/// Drops control records, aborted records and what lies before `wanted`.
pub(crate) fn filter(fetched: FetchedPartition, wanted: Offset) -> Filtered {
    let mut starting = fetched.aborted;
    starting.sort_unstable_by_key(|(_, first)| *first);
    let mut starting = starting.into_iter().peekable();
    let mut aborting: Vec<ProducerId> = Vec::new();
    let mut filtered = Filtered {
        visible: Vec::with_capacity(fetched.batches.len()),
        records: 0,
        aborted: 0,
        next: wanted,
    };
    for batch in fetched.batches {
        let next = batch.next_offset();
        while let Some((producer, _)) = starting.next_if(|(_, first)| *first < next) {
            aborting.push(producer);
        }
        filtered.next = filtered.next.max(next);
        match &batch.payload {
            Payload::Marker { commit, .. } => {
                if !commit && let Some(stamp) = batch.producer {
                    aborting.retain(|producer| *producer != stamp.id);
                }
            }
            Payload::Records(records) => {
                let dropped = batch
                    .producer
                    .is_some_and(|stamp| stamp.transactional && aborting.contains(&stamp.id));
                let skip = usize::try_from((wanted.0 - batch.base_offset.0).max(0))
                    .expect("offsets of a log fit");
                if dropped {
                    filtered.aborted += records.len().saturating_sub(skip);
                } else if skip < records.len() {
                    filtered.records += records.len() - skip;
                    filtered.visible.push(Visible { batch, skip });
                }
            }
            Payload::Internal(_) | Payload::Damaged => {}
        }
    }
    filtered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::protocol::{
        LogTimeMs, PartitionId, ProducerStamp, Record, TopicIndex, TopicPartition,
    };

    fn stamp(id: i64) -> Option<ProducerStamp> {
        Some(ProducerStamp {
            id,
            epoch: 0,
            base_sequence: 0,
            transactional: true,
        })
    }

    fn data(base: i64, count: usize, producer: i64) -> Arc<Batch> {
        let record = Record {
            timestamp: LogTimeMs(0),
            key: None,
            value: None,
            headers: Vec::new(),
        };
        Arc::new(Batch {
            base_offset: Offset(base),
            leader_epoch: 0,
            producer: stamp(producer),
            payload: Payload::Records(vec![record; count]),
        })
    }

    fn marker(base: i64, producer: i64, commit: bool) -> Arc<Batch> {
        Arc::new(Batch {
            base_offset: Offset(base),
            leader_epoch: 0,
            producer: stamp(producer),
            payload: Payload::Marker {
                commit,
                coordinator_epoch: 0,
                timestamp: LogTimeMs(0),
            },
        })
    }

    fn fetched(aborted: Vec<(i64, i64)>, batches: Vec<Arc<Batch>>) -> FetchedPartition {
        FetchedPartition {
            tp: TopicPartition {
                topic: TopicIndex(2),
                partition: PartitionId(0),
            },
            error: None,
            high_watermark: Offset(100),
            last_stable_offset: Offset(100),
            log_start_offset: Offset(0),
            aborted: aborted.into_iter().map(|(p, o)| (p, Offset(o))).collect(),
            batches,
        }
    }

    fn bases(filtered: &Filtered) -> Vec<i64> {
        let visible = filtered.visible.iter();
        visible.map(|seen| seen.batch.base_offset.0).collect()
    }

    #[test]
    fn an_aborted_transaction_is_dropped_up_to_its_marker_and_no_further() {
        let batches = vec![
            data(0, 2, 1),
            data(2, 2, 2),
            marker(4, 1, false),
            data(5, 1, 1),
            marker(6, 2, true),
            marker(7, 1, true),
        ];
        let filtered = filter(fetched(vec![(1, 0)], batches), Offset(0));
        assert_eq!(bases(&filtered), [2, 5]);
        assert_eq!(filtered.records, 3);
        assert_eq!(filtered.next, Offset(8));
    }

    #[test]
    fn an_abort_that_begins_later_spares_the_same_producers_earlier_records() {
        let batches = vec![
            data(0, 1, 1),
            marker(1, 1, true),
            data(2, 1, 1),
            marker(3, 1, false),
        ];
        let filtered = filter(fetched(vec![(1, 2)], batches), Offset(0));
        assert_eq!(bases(&filtered), [0]);
    }

    #[test]
    fn records_before_the_wanted_offset_are_skipped_within_their_batch() {
        let filtered = filter(fetched(vec![], vec![data(0, 3, 1)]), Offset(2));
        assert_eq!(filtered.records, 1);
        assert_eq!(filtered.visible[0].skip, 2);
    }

    #[test]
    fn the_position_moves_over_control_records_alone() {
        let filtered = filter(fetched(vec![], vec![marker(5, 1, true)]), Offset(5));
        assert_eq!((filtered.records, filtered.next), (0, Offset(6)));
    }
}
