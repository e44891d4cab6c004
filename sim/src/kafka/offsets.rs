//! Committed offsets, as the log of a `__consumer_offsets` partition tells them: pending with the
//! transaction's batch, committed or forgotten with its marker.

use super::internal::InternalRecord;
use super::protocol::{Batch, Offset, OffsetCommit, Payload, ProducerId, TopicPartition};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone)]
struct Committed {
    offset: Offset,
    metadata: Arc<str>,
    /// Where in the log the commit was written (not its marker).
    written_at: Offset,
}

#[derive(Debug, Clone)]
struct Pending {
    group: Arc<str>,
    commit: OffsetCommit,
    written_at: Offset,
}

/// Offsets of all groups of one partition.
#[derive(Debug, Default)]
pub(super) struct OffsetsState {
    committed: BTreeMap<Arc<str>, BTreeMap<TopicPartition, Committed>>,
    pending: BTreeMap<ProducerId, Vec<Pending>>,
}

impl OffsetsState {
    /// Takes the next batch of the log; tells `on_commit` each offset that became visible.
    pub(super) fn apply(&mut self, batch: &Batch, mut on_commit: impl FnMut(&str, &OffsetCommit)) {
        let Some(stamp) = batch.producer else {
            return self.apply_plain(batch, on_commit);
        };
        match &batch.payload {
            Payload::Internal(InternalRecord::Offsets { group, offsets }) => {
                let pending = self.pending.entry(stamp.id).or_default();
                pending.extend(offsets.iter().map(|commit| Pending {
                    group: Arc::clone(group),
                    commit: commit.clone(),
                    written_at: batch.base_offset,
                }));
            }
            Payload::Marker { commit, .. } => {
                let ended = self.pending.remove(&stamp.id).unwrap_or_default();
                for (index, pending) in ended.iter().enumerate().filter(|_| *commit) {
                    // Of one transaction only the last word on a partition is ever seen (a request
                    // may have arrived twice).
                    let later = &ended[index + 1..];
                    let overruled = later
                        .iter()
                        .any(|l| l.commit.tp == pending.commit.tp && l.group == pending.group);
                    if !overruled && self.commit(pending) {
                        on_commit(&pending.group, &pending.commit);
                    }
                }
            }
            Payload::Internal(_) | Payload::Records(_) | Payload::Damaged => {}
        }
    }

    /// What stands outside of transactions counts at once.
    fn apply_plain(&mut self, batch: &Batch, mut on_commit: impl FnMut(&str, &OffsetCommit)) {
        match &batch.payload {
            Payload::Internal(InternalRecord::Offsets { group, offsets }) => {
                for commit in offsets {
                    let at_once = Pending {
                        group: Arc::clone(group),
                        commit: commit.clone(),
                        written_at: batch.base_offset,
                    };
                    if self.commit(&at_once) {
                        on_commit(group, commit);
                    }
                }
            }
            Payload::Internal(InternalRecord::GroupDeleted { group }) => {
                self.committed.remove(group);
                for pending in self.pending.values_mut() {
                    pending.retain(|pending| pending.group != *group);
                }
            }
            Payload::Internal(InternalRecord::TopicForgotten { topic }) => {
                for group in self.committed.values_mut() {
                    group.retain(|tp, _| tp.topic != *topic);
                }
                self.committed.retain(|_, group| !group.is_empty());
            }
            _ => {}
        }
    }

    /// A commit written later in the log stands against one written earlier, whatever the order of
    /// their markers.
    fn commit(&mut self, pending: &Pending) -> bool {
        let group = self
            .committed
            .entry(Arc::clone(&pending.group))
            .or_default();
        let known = group.get(&pending.commit.tp);
        if known.is_some_and(|known| known.written_at > pending.written_at) {
            return false;
        }
        let committed = Committed {
            offset: pending.commit.offset,
            metadata: Arc::clone(&pending.commit.metadata),
            written_at: pending.written_at,
        };
        group.insert(pending.commit.tp, committed);
        true
    }

    /// Committed offset and metadata.
    pub(super) fn committed(&self, group: &str, tp: TopicPartition) -> Option<(Offset, Arc<str>)> {
        let committed = self.committed.get(group)?.get(&tp)?;
        Some((committed.offset, Arc::clone(&committed.metadata)))
    }

    /// Is any offset of the group committed, or pending?
    pub(super) fn knows(&self, group: &str) -> bool {
        let mut pending = self.pending.values().flatten();
        self.committed.contains_key(group) || pending.any(|pending| *pending.group == *group)
    }

    /// Is an offset of this partition part of a transaction that has not ended?
    pub(super) fn is_pending(&self, group: &str, tp: TopicPartition) -> bool {
        let mut all = self.pending.values().flatten();
        all.any(|pending| pending.commit.tp == tp && *pending.group == *group)
    }
}
