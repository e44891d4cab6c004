//! Where to cut a running pipeline, so that all topics show the same moment.

use super::{AuditError, Extent, Order, commit_records, length};
use properties::history::{CommittedOffset, TopicRecord};
use std::collections::BTreeMap;

/// The moment that is judged: of each partition what its commit record counts.
#[derive(Debug)]
pub(super) struct Cut {
    complete: bool,
    committed: BTreeMap<i32, Committed>,
}

/// What the newest commit of a partition counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Committed {
    /// Next input offset.
    pub(super) offset: i64,
    /// Next output.
    pub(super) sequence: i64,
    /// Records that were processed.
    pub(super) records: u64,
}

impl Cut {
    /// Cuts at these committed offsets.
    ///
    /// # Errors
    /// When there is none, or none is of a processor.
    pub(super) fn new(order: &Order, committed: &[CommittedOffset]) -> Result<Self, AuditError> {
        let group = order.group.clone();
        let Some(first) = committed.first() else {
            let topic = order.topics[0].clone();
            return Err(AuditError::NothingCommitted { group, topic });
        };
        let by_partition: BTreeMap<i32, Committed> = commit_records(committed)
            .map(|commit| {
                let committed = Committed {
                    offset: commit.offset,
                    sequence: commit.sequence,
                    records: commit.records,
                };
                (commit.partition, committed)
            })
            .collect();
        if by_partition.is_empty() {
            return Err(AuditError::ForeignGroup {
                group,
                partition: first.partition,
                metadata: first.metadata.chars().take(80).collect(),
            });
        }
        Ok(Self {
            complete: order.complete,
            committed: by_partition,
        })
    }

    /// What the commit record of a partition counts.
    pub(super) fn committed(&self, partition: i32) -> Option<Committed> {
        self.committed.get(&partition).copied()
    }

    /// What all commit records count.
    pub(super) fn all(&self) -> impl Iterator<Item = Committed> {
        self.committed.values().copied()
    }

    /// What is to be read of each input partition.
    pub(super) fn input(&self, extents: &[Extent]) -> Vec<Extent> {
        let cut = |(partition, extent): (i32, &Extent)| {
            if self.complete {
                return *extent;
            }
            let committed = self.committed(partition);
            let offset = committed.map_or(extent.start, |committed| committed.offset);
            Extent {
                stable_end: extent.stable_end.min(offset),
                ..*extent
            }
        };
        (0..).zip(extents).map(cut).collect()
    }

    /// Offsets of each input partition that are not committed yet.
    pub(super) fn uncommitted(&self, extents: &[Extent]) -> Vec<u64> {
        let open = |(partition, extent): (i32, &Extent)| {
            let committed = self.committed(partition);
            let start = committed.map_or(extent.start, |committed| committed.offset);
            length(Extent { start, ..*extent })
        };
        (0..).zip(extents).map(open).collect()
    }

    /// True for an output that a later commit counts: it bears a later sequence, of what lies behind
    /// the committed offset. Anything else is judged, also what cannot be read.
    pub(super) fn is_later(&self, record: &TopicRecord) -> bool {
        if self.complete {
            return false;
        }
        let partition = number(record, "source-partition").and_then(|n| i32::try_from(n).ok());
        let (Some(partition), Some(sequence), Some(cause)) = (
            partition,
            number(record, "sequence"),
            number(record, "cause-offset"),
        ) else {
            return false;
        };
        let committed = self.committed(partition);
        committed
            .is_none_or(|committed| sequence >= committed.sequence && cause >= committed.offset)
    }
}

fn number(record: &TopicRecord, name: &str) -> Option<i64> {
    let (_, value) = record.headers.iter().find(|(header, _)| header == name)?;
    std::str::from_utf8(value).ok()?.parse().ok()
}
