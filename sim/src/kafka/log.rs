//! A replica's log: batches, leader epochs and where they start. This is what survives a crash.

use super::protocol::{Batch, LeaderEpoch, Offset};
use std::sync::Arc;

/// Batches in order of their offsets, without gaps.
#[derive(Debug, Default)]
pub struct Log {
    start: Offset,
    batches: Vec<Arc<Batch>>,
    /// (epoch, its first offset), ascending: Kafka's leader-epoch-checkpoint.
    epochs: Vec<(LeaderEpoch, Offset)>,
}

impl Log {
    /// First offset that may be read: what lies before it was deleted, by retention or by somebody.
    #[must_use]
    pub fn start(&self) -> Offset {
        self.start
    }

    /// Deletes what lies before `offset`: nobody reads it any more. (The batches stay, from which
    /// the state of producers and of coordinators is read back.)
    pub fn delete_before(&mut self, offset: Offset) {
        self.start = self.start.max(offset.min(self.end()));
    }

    /// Log end offset: that of the next record.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.batches.last().map_or(Offset(0), |b| b.next_offset())
    }

    /// Epoch of the newest entry of the epoch cache; −1: none.
    #[must_use]
    pub fn latest_epoch(&self) -> LeaderEpoch {
        self.epochs.last().map_or(-1, |(epoch, _)| *epoch)
    }

    /// All batches.
    #[must_use]
    pub fn batches(&self) -> &[Arc<Batch>] {
        &self.batches
    }

    /// A leader begins its epoch at the end of the log.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) {
        let end = self.end();
        self.assign_epoch(epoch, end);
    }

    fn assign_epoch(&mut self, epoch: LeaderEpoch, start: Offset) {
        if epoch <= self.latest_epoch() {
            return;
        }
        // An epoch without a single record gives way to the next one at the same offset.
        while self.epochs.last().is_some_and(|(_, s)| *s >= start) {
            self.epochs.pop();
        }
        self.epochs.push((epoch, start));
    }

    /// Appends a batch whose base offset is the log's end. Returns false (and appends nothing) if it
    /// is not: a late answer to an old fetch.
    pub fn append(&mut self, batch: Arc<Batch>) -> bool {
        if batch.base_offset != self.end() {
            return false;
        }
        self.assign_epoch(batch.leader_epoch, batch.base_offset);
        self.batches.push(batch);
        true
    }

    /// Index of the batch that contains `offset`, or of the first one after it.
    #[must_use]
    pub fn index_of(&self, offset: Offset) -> usize {
        match self.batches.last() {
            // Almost every read is at the end.
            Some(last) if offset >= last.next_offset() => self.batches.len(),
            Some(last) if offset >= last.base_offset => self.batches.len() - 1,
            _ => self.batches.partition_point(|b| b.next_offset() <= offset),
        }
    }

    /// Batches from the one that contains `offset` up to (not including) `end`, which is a batch's
    /// boundary.
    #[must_use]
    pub fn range(&self, offset: Offset, end: Offset) -> &[Arc<Batch>] {
        let from = self.index_of(offset);
        let mut to = self.index_of(end);
        if self.batches.get(to).is_some_and(|b| b.base_offset < end) {
            to += 1;
        }
        &self.batches[from.min(to)..to]
    }

    /// The largest epoch ≤ `epoch` that the log knows, and its end offset; `None`: no such epoch.
    #[must_use]
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let after = self.epochs.partition_point(|(e, _)| *e <= epoch);
        let (found, _) = *self.epochs.get(after.checked_sub(1)?)?;
        let end = self.epochs.get(after).map_or(self.end(), |(_, s)| *s);
        Some((found, end))
    }

    /// Removes everything from `offset` on (whole batches). Returns whether anything went.
    pub fn truncate(&mut self, offset: Offset) -> bool {
        let keep = self.batches.partition_point(|b| b.next_offset() <= offset);
        let truncated = keep < self.batches.len();
        self.batches.truncate(keep);
        let end = self.end();
        while self.epochs.last().is_some_and(|(_, s)| *s >= end) {
            self.epochs.pop();
        }
        truncated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::protocol::{LogTimeMs, Payload};

    fn marker(base: i64, epoch: LeaderEpoch) -> Arc<Batch> {
        Arc::new(Batch {
            base_offset: Offset(base),
            leader_epoch: epoch,
            producer: None,
            payload: Payload::Marker {
                commit: true,
                coordinator_epoch: 0,
                timestamp: LogTimeMs(0),
            },
        })
    }

    #[test]
    fn epochs_end_where_the_next_one_begins() {
        let mut log = Log::default();
        for (base, epoch) in [(0, 1), (1, 1), (2, 4)] {
            assert!(log.append(marker(base, epoch)));
        }
        assert_eq!(log.end_of_epoch(0), None);
        assert_eq!(log.end_of_epoch(3), Some((1, Offset(2))));
        assert_eq!(log.end_of_epoch(9), Some((4, Offset(3))));
        log.truncate(Offset(2));
        assert_eq!(log.latest_epoch(), 1);
        assert_eq!(log.end(), Offset(2));
    }

    #[test]
    fn a_batch_that_does_not_continue_the_log_is_refused() {
        let mut log = Log::default();
        assert!(!log.append(marker(3, 1)));
        assert!(log.append(marker(0, 1)));
        assert!(!log.append(marker(0, 1)));
        assert_eq!(log.range(Offset(0), Offset(1)).len(), 1);
        assert_eq!(log.range(Offset(1), Offset(1)).len(), 0);
    }
}
