//! A partition that this worker owns.

use super::checkpoint::{Checkpoints, Retention, Snapshot};
use super::commit_record::{CommitRecord, Ownership};
use super::error::{Refusal, WorkerError};
use super::memory::{Local, feed};
use crate::core::{Digest, OutputRecord, PartitionTask};
use crate::io::{CommittedOffset, ConsumedRecord, PieceKey, StateStore};
use crate::units::{LogTimeMs, Offset, PartitionId, Watermark};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What the group's coordinator holds for the partition, as far as this worker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// As it was found or acknowledged, so that it can be told from anything else.
    pub(super) committed: CommittedOffset,
    /// The same, understood.
    pub(super) record: CommitRecord,
}

impl Acknowledged {
    /// A commit of `offset` with that record.
    pub(super) fn of(offset: Offset, record: CommitRecord) -> Acknowledged {
        let metadata = record.encode();
        Acknowledged {
            committed: CommittedOffset { offset, metadata },
            record,
        }
    }
}

/// Where a partition stands between taking over and going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Records below `until` are processed with outputs suppressed.
    Replaying { until: Offset, digest: Digest },
    /// Processing.
    Live,
}

/// An owned partition: its task, and what of it is committed and snapshotted.
pub(super) struct OwnedPartition {
    pub(super) partition: PartitionId,
    pub(super) task: PartitionTask,
    pub(super) phase: Phase,
    pub(super) ownership: Ownership,
    /// Outputs that no acknowledged commit contains yet. Kept through aborts.
    pub(super) pending: Vec<OutputRecord>,
    /// Bytes in `pending`: keys and values.
    pub(super) pending_bytes: usize,
    pub(super) acknowledged: Acknowledged,
    pub(super) checkpoints: Checkpoints,
    /// Newest snapshot in the object store; `None` of a partition that began anew.
    pub(super) snapshot: Option<Snapshot>,
    /// Pieces that were uploaded for a snapshot that is not complete yet, and their object paths.
    pub(super) uploaded: BTreeMap<PieceKey, String>,
    /// Snapshots that commit records have named and that are retained, oldest first; the last is the
    /// one that the coordinator holds.
    pub(super) named: VecDeque<Snapshot>,
    /// Ids of still older ones, of former owners, oldest first: what they consist of was not asked yet.
    pub(super) inherited: Vec<String>,
    /// The committed snapshot could not be used, and why; an older one was restored in its place, which
    /// the replay has to justify.
    pub(super) instead_of: Option<Refusal>,
    /// Nothing of this partition may be committed before a new snapshot: its state holds something
    /// that a replay cannot reproduce (a forced advance, a changed configuration), or it has none yet.
    pub(super) needs_snapshot: bool,
    /// The position was the last stable offset when it was last told.
    pub(super) at_end: bool,
    /// When the last record came (or the partition was taken over).
    pub(super) last_record_at: Duration,
    /// The newest Kafka timestamp of the partition, and when it was first seen.
    pub(super) log_clock: (LogTimeMs, Duration),
    /// Delivery is paused because too many outputs wait for a commit.
    pub(super) held_back: bool,
}

impl OwnedPartition {
    /// Records have come.
    pub(super) fn heard(&mut self, now: Duration) {
        self.last_record_at = now;
        let newest = self.task.newest_log_time();
        if newest != self.log_clock.0 {
            self.log_clock = (newest, now);
        }
    }

    /// The time by which an idle partition may be advanced: what the wall clock says, and not later
    /// than the newest Kafka timestamp and the time that has passed since it came. A wall clock that is
    /// wrong can so delay a window, and never close it early.
    pub(super) fn idle_time_ms(&self, unix_ms: i64, now: Duration) -> i64 {
        let (newest, seen_at) = self.log_clock;
        let passed_ms = now.saturating_sub(seen_at).as_millis();
        let passed_ms = i64::try_from(passed_ms).unwrap_or(i64::MAX);
        newest.0.saturating_add(passed_ms).min(unix_ms)
    }

    /// Processes records of one poll. Returns true if a replay ended with them.
    pub(super) fn process<S: StateStore>(
        &mut self,
        records: &[ConsumedRecord],
        local: &mut Local<'_, S>,
    ) -> Result<bool, WorkerError> {
        self.check_order(records)?;
        let Phase::Replaying { until, .. } = self.phase else {
            self.process_live(records, local)?;
            return Ok(false);
        };
        let split = records.partition_point(|record| record.offset < until);
        let (replayed, rest) = records.split_at(split);
        let mut suppressed = Vec::new();
        feed(
            self.partition,
            &mut self.task,
            replayed,
            &mut suppressed,
            local,
        )?;
        if rest.is_empty() {
            return Ok(false);
        }
        self.end_replay()?;
        self.process_live(rest, local)?;
        Ok(true)
    }

    fn check_order(&self, records: &[ConsumedRecord]) -> Result<(), WorkerError> {
        let mut position = self.task.position();
        for record in records {
            if record.offset < position {
                return Err(WorkerError::Disorder {
                    partition: self.partition,
                    got: record.offset,
                    position,
                });
            }
            position = record.offset.next();
        }
        Ok(())
    }

    fn process_live<S: StateStore>(
        &mut self,
        records: &[ConsumedRecord],
        local: &mut Local<'_, S>,
    ) -> Result<(), WorkerError> {
        let before = self.pending.len();
        let fed = feed(
            self.partition,
            &mut self.task,
            records,
            &mut self.pending,
            local,
        );
        self.count_bytes(before);
        fed
    }

    /// Advances the watermark by the clock. False: nothing moved.
    pub(super) fn force_watermark(&mut self, to: Watermark) -> bool {
        let before = self.pending.len();
        let moved = self.task.force_watermark(to, &mut self.pending);
        self.count_bytes(before);
        self.needs_snapshot |= moved;
        moved
    }

    fn count_bytes(&mut self, before: usize) {
        let bytes_of = |output: &OutputRecord| {
            output.value.len() + output.key.as_ref().map_or(0, bytes::Bytes::len)
        };
        self.pending_bytes += self.pending[before..].iter().map(bytes_of).sum::<usize>();
    }

    /// The pending outputs are committed.
    pub(super) fn forget_pending(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
    }

    /// The commit that was acknowledged has named the newest snapshot.
    pub(super) fn name_snapshot(&mut self, retention: Retention, now_unix_ms: i64) {
        let Some(snapshot) = &self.snapshot else {
            return;
        };
        if self
            .named
            .back()
            .is_none_or(|named| named.id != snapshot.id)
        {
            self.named.push_back(snapshot.clone());
        }
        retention.thin(&mut self.named, now_unix_ms);
    }

    /// Ids of the snapshots that are retained, oldest first.
    pub(super) fn retained(&self) -> Vec<String> {
        let named = self.named.iter().map(|snapshot| snapshot.id.clone());
        self.inherited.iter().cloned().chain(named).collect()
    }

    /// The position is at the end of what is stable. Returns true if that ends a replay.
    pub(super) fn reach_end(&mut self, position: Offset) -> Result<bool, WorkerError> {
        match self.phase {
            // Not all of what was committed is visible yet: wait for more.
            Phase::Replaying { until, .. } if position < until => Ok(false),
            Phase::Replaying { .. } => {
                self.end_replay()?;
                self.pass(position);
                Ok(true)
            }
            Phase::Live => {
                self.pass(position);
                Ok(false)
            }
        }
    }

    fn pass(&mut self, position: Offset) {
        self.at_end = true;
        if position > self.task.position() {
            self.task.advance_position(position);
        }
    }

    /// Compares what the replay computed with what was committed, and goes live.
    pub(super) fn end_replay(&mut self) -> Result<(), WorkerError> {
        let Phase::Replaying { until, digest } = self.phase else {
            return Ok(());
        };
        if until > self.task.position() {
            self.task.advance_position(until);
        }
        let partition = self.partition;
        if self.task.digest() != digest {
            let differs = Refusal::Digest {
                at: until,
                computed: self.task.digest().to_string(),
                committed: digest.to_string(),
            };
            let reason = self.instead_of.take().unwrap_or(differs);
            return Err(WorkerError::Refused { partition, reason });
        }
        self.instead_of = None;
        self.phase = Phase::Live;
        Ok(())
    }

    /// True if a commit would tell the coordinator something new, and may.
    pub(super) fn has_news(&self) -> bool {
        if self.phase != Phase::Live || self.needs_snapshot {
            return false;
        }
        let Acknowledged { committed, record } = &self.acknowledged;
        !self.pending.is_empty()
            || committed.offset != self.task.position()
            || self
                .snapshot
                .as_ref()
                .is_some_and(|s| s.id != record.snapshot)
    }

    /// The commit record of the present state, where there is something new to commit.
    pub(super) fn news(&self) -> Option<CommitRecord> {
        let snapshot = self.snapshot.as_ref().filter(|_| self.has_news())?;
        let (id, at) = (snapshot.id.as_str(), snapshot.at);
        Some(CommitRecord::of(&self.task, &self.ownership, id, at))
    }

    /// True if a replay would have nothing to do: the committed snapshot stands at the committed offset.
    pub(super) fn is_settled(&self) -> bool {
        let Acknowledged { committed, record } = &self.acknowledged;
        // Without a snapshot it was only opened, and begins anew where it was opened.
        let newest = self.named.back();
        let restored_at = newest.map_or(record.snapshot_at, |snapshot| snapshot.at);
        restored_at == committed.offset && committed.offset == self.task.position()
    }

    /// True if a snapshot would hold something that the newest one does not.
    pub(super) fn wants_snapshot(&self) -> bool {
        let covered = self.snapshot.as_ref().map(|snapshot| snapshot.at);
        self.phase == Phase::Live && (self.needs_snapshot || covered != Some(self.task.position()))
    }
}
