//! What a worker does between polls: when a commit, a checkpoint or an idle advance is due.

use super::checkpoint::{Retention, Snapshot, SnapshotContent};
use super::error::WorkerError;
use super::memory::get;
use super::observer::WorkerEvent;
use super::partition::{OwnedPartition, Phase};
use super::{Observer, Worker};
use crate::checkpoints::portions;
use crate::io::{Clock, Consumer, Kafka, PieceKey, StateStore};
use crate::units::{PartitionId, Watermark};
use std::collections::BTreeSet;
use std::time::Duration;

/// A checkpoint that failed is tried again after this long.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(1);
/// Longest pause between two commits because of aborts.
const COMMIT_BACKOFF_MAX: Duration = Duration::from_secs(5);
const BACKOFF_DOUBLINGS_MAX: u32 = 10;

/// What a snapshot had to upload.
#[derive(Debug, Clone, Copy, Default)]
struct Upload {
    files: usize,
    bytes: usize,
}

impl<K: Kafka, S: StateStore, C: Clock, O: Observer> Worker<K, S, C, O> {
    pub(super) async fn housekeeping(&mut self) -> Result<(), WorkerError> {
        self.recover_waiting().await?;
        self.end_holding_back();
        self.advance_one_idle().await?;
        let now = self.clock.monotonic();
        if now >= self.checkpoint_due_at() {
            let is_regular = now >= self.regular_checkpoint_at();
            self.checkpoint_round(is_regular).await?;
            self.commit().await?;
            self.collect_garbage().await?;
        } else if now >= self.commit_due_at() {
            self.commit().await?;
        }
        Ok(())
    }

    /// How long the next poll may wait.
    pub(super) fn poll_timeout(&self) -> Duration {
        let now = self.clock.monotonic();
        let mut due = now + Duration::from_millis(self.config.worker.poll_timeout_ms);
        due = due.min(self.commit_due_at()).min(self.checkpoint_due_at());
        for owned in self.owned.values() {
            if let Some(at) = self.idle_due_at(owned, now) {
                due = due.min(at);
            }
        }
        for &at in self.waiting.values() {
            due = due.min(at);
        }
        due.saturating_sub(now)
    }

    /// After aborts in a row, commits come ever more seldom: what was refused once mostly needs a
    /// rebalance first.
    fn commit_due_at(&self) -> Duration {
        if !self.owned.values().any(OwnedPartition::has_news) {
            return Duration::MAX;
        }
        let interval = Duration::from_millis(self.config.commit.interval_ms);
        let backoff = interval * 2_u32.pow(self.aborts_in_a_row.min(BACKOFF_DOUBLINGS_MAX));
        self.last_commit_at + backoff.min(COMMIT_BACKOFF_MAX.max(interval))
    }

    fn checkpoint_due_at(&self) -> Duration {
        let mut due = Duration::MAX;
        for owned in self.owned.values().filter(|owned| owned.wants_snapshot()) {
            due = due.min(if owned.needs_snapshot {
                self.last_urgent_at + CHECKPOINT_RETRY
            } else {
                self.regular_checkpoint_at()
            });
        }
        due
    }

    fn regular_checkpoint_at(&self) -> Duration {
        self.last_checkpoint_at + Duration::from_millis(self.config.checkpoint.interval_ms)
    }

    /// A checkpoint of those that need one is due at once: nothing of them is committed before.
    pub(super) fn hurry_checkpoint(&mut self) {
        self.last_urgent_at = Duration::ZERO;
    }

    /// Snapshots every partition that has moved, or, in a round that is not a regular one, only those that
    /// need it. A failure leaves the older snapshot in force, and is the last try of this round: a store that
    /// does not answer must not keep the others from being polled. Commits go on between two uploads.
    pub(super) async fn checkpoint_round(&mut self, is_regular: bool) -> Result<(), WorkerError> {
        if is_regular {
            self.watch_topic().await?;
        }
        let wanting = self.owned.values().filter(|owned| {
            let is_due = is_regular || owned.needs_snapshot;
            is_due && owned.wants_snapshot()
        });
        let mut partitions: Vec<PartitionId> = wanting.map(|owned| owned.partition).collect();
        // Whoever was last tried comes last, so that each has its turn.
        let done = partitions.partition_point(|partition| Some(*partition) <= self.last_tried);
        partitions.rotate_left(done);
        for partition in partitions {
            if self.is_being_taken(partition) {
                continue;
            }
            self.last_tried = Some(partition);
            let is_stored = self.checkpoint(partition).await?;
            if self.clock.monotonic() >= self.commit_due_at() {
                self.commit().await?;
            }
            if !is_stored {
                break;
            }
        }
        self.last_urgent_at = self.clock.monotonic();
        if is_regular {
            self.last_checkpoint_at = self.last_urgent_at;
        }
        self.checkpoints_made += 1;
        Ok(())
    }

    /// False: it could not be stored.
    async fn checkpoint(&mut self, partition: PartitionId) -> Result<bool, WorkerError> {
        let Some(owned) = self.owned.get_mut(&partition) else {
            return Ok(true);
        };
        let began = self.clock.monotonic();
        let changes = owned.task.drain_changes();
        self.state.apply(partition, changes.batch)?;
        let content = SnapshotContent {
            at: owned.task.position(),
            digest: owned.task.digest(),
            made_unix_ms: self.clock.unix_ms(),
            header: changes.header,
            pieces: changes.pieces,
            retained: owned.retained(),
        };
        let at = content.at;
        let Some(stored) = self.store(partition, content).await? else {
            return Ok(true);
        };
        let Some(owned) = self.owned.get_mut(&partition) else {
            return Ok(true);
        };
        match stored {
            Ok((snapshot, upload)) => {
                owned.snapshot = Some(snapshot);
                owned.needs_snapshot = false;
                owned.uploaded.clear();
                self.observer.observe(&WorkerEvent::Snapshotted {
                    partition,
                    at,
                    uploaded: upload.files,
                    uploaded_bytes: upload.bytes,
                    took: self.clock.monotonic().saturating_sub(began),
                });
            }
            Err(error) => {
                self.observer.observe(&WorkerEvent::SnapshotFailed {
                    partition,
                    cause: error.to_string(),
                });
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Stores a snapshot: first the pieces that the newest one does not have, a few at a time, then its
    /// manifest. `None`: given up, because the partition is being taken.
    async fn store(
        &mut self,
        partition: PartitionId,
        content: SnapshotContent,
    ) -> Result<Option<object_store::Result<(Snapshot, Upload)>>, WorkerError> {
        let Some(owned) = self.owned.get(&partition) else {
            return Ok(None);
        };
        let checkpoints = owned.checkpoints.clone();
        let mut paths = owned.uploaded.clone();
        let newest = owned.snapshot.iter().flat_map(|s| s.files.iter());
        paths.extend(newest.map(|(key, path)| (*key, path.clone())));
        let wanted: BTreeSet<PieceKey> = content.pieces.iter().map(|(key, _)| *key).collect();
        paths.retain(|key, _| wanted.contains(key));
        let missing = content.pieces.iter().copied();
        let missing: Vec<_> = missing
            .filter(|(key, _)| !paths.contains_key(key))
            .collect();
        let mut upload = Upload::default();
        for portion in portions(&missing) {
            let mut pieces = Vec::with_capacity(portion.len());
            for &(key, bytes) in portion {
                pieces.push((key, get(&mut self.state, partition, key)?));
                upload.bytes += bytes as usize;
            }
            upload.files += pieces.len();
            let uploading = checkpoints.upload(pieces);
            match self.while_in_group(partition, uploading).await? {
                Some(Ok(uploaded)) => paths.extend(uploaded.iter().cloned()),
                Some(Err(error)) => return Ok(Some(Err(error))),
                None => return Ok(None),
            }
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.uploaded = paths.clone();
            }
        }
        self.snapshots_made += 1;
        let publishing = checkpoints.publish(content, self.snapshots_made, paths);
        let published = self.while_in_group(partition, publishing).await?;
        Ok(published.map(|published| published.map(|snapshot| (snapshot, upload))))
    }

    /// Deletes what no committed record can reach, of partitions whose newest snapshot is named.
    async fn collect_garbage(&mut self) -> Result<(), WorkerError> {
        if !self
            .checkpoints_made
            .is_multiple_of(self.config.checkpoint.gc_every)
        {
            return Ok(());
        }
        let partitions: Vec<PartitionId> = self.owned.keys().copied().collect();
        for partition in partitions {
            if self.find_inherited(partition).await? {
                self.collect(partition).await?;
            }
        }
        Ok(())
    }

    /// Finds out what the retained snapshots of former owners consist of, so that they are kept too.
    /// False: not now.
    async fn find_inherited(&mut self, partition: PartitionId) -> Result<bool, WorkerError> {
        let Some(owned) = self.owned.get(&partition) else {
            return Ok(false);
        };
        if owned.inherited.is_empty() {
            return Ok(true);
        }
        let checkpoints = owned.checkpoints.clone();
        let finding = checkpoints.find(owned.inherited.clone());
        let Some(Ok(found)) = self.while_in_group(partition, finding).await? else {
            return Ok(false);
        };
        let (retention, now_unix_ms) = (self.retention(), self.clock.unix_ms());
        let Some(owned) = self.owned.get_mut(&partition) else {
            return Ok(false);
        };
        owned.inherited.clear();
        let newer = std::mem::take(&mut owned.named);
        owned.named = found.into_iter().chain(newer).collect();
        retention.thin(&mut owned.named, now_unix_ms);
        Ok(true)
    }

    async fn collect(&mut self, partition: PartitionId) -> Result<(), WorkerError> {
        let Some(owned) = self.owned.get(&partition) else {
            return Ok(());
        };
        let Some(newest) = owned.named.back().cloned() else {
            return Ok(());
        };
        let kept: Vec<Snapshot> = owned
            .named
            .iter()
            .chain(owned.snapshot.as_ref())
            .cloned()
            .collect();
        let checkpoints = owned.checkpoints.clone();
        let uploaded: Vec<String> = owned.uploaded.values().cloned().collect();
        let grace_ms = i64::try_from(self.config.checkpoint.gc_grace_ms).unwrap_or(i64::MAX);
        let collection = checkpoints.collect(&kept, &uploaded, &newest, grace_ms);
        // A failure leaves garbage for the next collection.
        if let Some(Ok(objects)) = self.while_in_group(partition, collection).await?
            && objects > 0
        {
            self.observer
                .observe(&WorkerEvent::Collected { partition, objects });
        }
        Ok(())
    }

    pub(super) fn retention(&self) -> Retention {
        let config = &self.config.checkpoint;
        Retention {
            count: config.retain_count,
            age_ms: i64::try_from(config.retain_ms).unwrap_or(i64::MAX),
        }
    }

    /// When a partition's watermark may have to be advanced by the clock: it was read to its end,
    /// nothing has come for the idle timeout, and an advance would emit or drop something.
    /// `now`, so that what is due at this moment is so by the caller's reading of the clock.
    fn idle_due_at(&self, owned: &OwnedPartition, now: Duration) -> Option<Duration> {
        if owned.phase != Phase::Live || !owned.at_end {
            return None;
        }
        let deadline = owned.task.next_deadline()?;
        let idle_at =
            owned.last_record_at + Duration::from_millis(self.config.windows.idle_timeout_ms);
        let out_of_orderness_ms = self.config.windows.max_out_of_orderness_ms;
        let wait_ms = deadline
            .0
            .saturating_add(out_of_orderness_ms)
            .saturating_sub(owned.idle_time_ms(self.clock.unix_ms(), now));
        let wait = Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0));
        Some(idle_at.max(now + wait))
    }

    /// At most one a round, so that a leader that does not answer delays nobody for long.
    async fn advance_one_idle(&mut self) -> Result<(), WorkerError> {
        let now = self.clock.monotonic();
        let due = self
            .owned
            .values()
            .find(|owned| self.idle_due_at(owned, now).is_some_and(|at| at <= now))
            .map(|owned| owned.partition);
        match due {
            Some(partition) => self.advance_idle(partition).await,
            None => Ok(()),
        }
    }

    /// Advances one idle partition, if it really is: an unread backlog is never idleness, so the
    /// leader is asked where the log ends now. The clocks are read before, so that whatever is
    /// appended later is later than the advance.
    async fn advance_idle(&mut self, partition: PartitionId) -> Result<(), WorkerError> {
        let out_of_orderness_ms = self.config.windows.max_out_of_orderness_ms;
        let (unix_ms, now) = (self.clock.unix_ms(), self.clock.monotonic());
        let time_ms = self
            .owned
            .get(&partition)
            .map_or(unix_ms, |owned| owned.idle_time_ms(unix_ms, now));
        let to = Watermark(time_ms.saturating_sub(out_of_orderness_ms));
        let timeout = self.call_timeout().min(super::PROBE_TIMEOUT);
        let bounds = self.consumer.bounds(partition, timeout).await;
        let now = self.clock.monotonic();
        let Some(owned) = self.owned.get_mut(&partition) else {
            return Ok(());
        };
        let at_end = bounds.is_ok_and(|bounds| bounds.last_stable <= owned.task.position());
        if !at_end {
            owned.last_record_at = now; // look again after another idle timeout
            return Ok(());
        }
        if owned.force_watermark(to) {
            let at = owned.task.position();
            self.observer.observe(&WorkerEvent::Forced {
                partition,
                at,
                watermark: to,
            });
            self.hurry_checkpoint();
        }
        Ok(())
    }
}
