//! What a worker does between polls: when a commit, a checkpoint or an idle advance is due.

use super::checkpoint::SnapshotContent;
use super::error::WorkerError;
use super::observer::WorkerEvent;
use super::partition::{OwnedPartition, Phase};
use super::{Observer, Worker};
use crate::io::{Clock, Consumer, Kafka, StateStore};
use crate::units::{PartitionId, Watermark};
use std::time::Duration;

/// A checkpoint that failed is tried again after this long.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(1);
/// Checkpoints between two garbage collections.
const CHECKPOINTS_PER_COLLECTION: u64 = 10;

impl<K: Kafka, S: StateStore, C: Clock, O: Observer> Worker<K, S, C, O> {
    pub(super) async fn housekeeping(&mut self) -> Result<(), WorkerError> {
        self.advance_idle_partitions().await?;
        let now = self.clock.monotonic();
        if now >= self.checkpoint_due_at() {
            self.checkpoint_all().await?;
            self.commit().await?;
            self.collect_garbage().await;
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
            if let Some(at) = self.idle_due_at(owned) {
                due = due.min(at);
            }
        }
        due.saturating_sub(now)
    }

    fn commit_due_at(&self) -> Duration {
        if self.owned.values().any(OwnedPartition::has_news) {
            self.last_commit_at + Duration::from_millis(self.config.commit.interval_ms)
        } else {
            Duration::MAX
        }
    }

    fn checkpoint_due_at(&self) -> Duration {
        let mut due = Duration::MAX;
        for owned in self.owned.values().filter(|owned| owned.wants_snapshot()) {
            let wait = if owned.needs_snapshot {
                CHECKPOINT_RETRY
            } else {
                Duration::from_millis(self.config.checkpoint.interval_ms)
            };
            due = due.min(self.last_checkpoint_at + wait);
        }
        due
    }

    /// Snapshots every partition that has moved. A failure leaves the older snapshot in force.
    pub(super) async fn checkpoint_all(&mut self) -> Result<(), WorkerError> {
        let partitions: Vec<PartitionId> = self
            .owned
            .values()
            .filter(|owned| owned.wants_snapshot())
            .map(|owned| owned.partition)
            .collect();
        for partition in partitions {
            self.checkpoint(partition).await?;
        }
        self.last_checkpoint_at = self.clock.monotonic();
        self.checkpoints_made += 1;
        Ok(())
    }

    async fn checkpoint(&mut self, partition: PartitionId) -> Result<(), WorkerError> {
        let Some(owned) = self.owned.get_mut(&partition) else {
            return Ok(());
        };
        let changes = owned.task.drain_changes();
        self.state.apply(partition, changes.batch)?;
        let content = SnapshotContent {
            at: owned.task.position(),
            digest: owned.task.digest(),
            header: changes.header,
            files: self.state.checkpoint(partition)?,
        };
        let at = content.at;
        let stored = owned
            .checkpoints
            .store(content, owned.snapshot.as_ref())
            .await;
        match stored {
            Ok((snapshot, uploaded)) => {
                owned.snapshot = Some(snapshot);
                owned.needs_snapshot = false;
                self.observer.observe(&WorkerEvent::Snapshotted {
                    partition,
                    at,
                    uploaded,
                });
            }
            Err(error) => self.observer.observe(&WorkerEvent::SnapshotFailed {
                partition,
                cause: error.to_string(),
            }),
        }
        Ok(())
    }

    /// Deletes what no committed record can reach. What is old is measured from the start of the
    /// newest acknowledged commit, when this worker certainly was the owner: a later owner's objects
    /// are younger, however long this process stood still since.
    async fn collect_garbage(&mut self) {
        if !self
            .checkpoints_made
            .is_multiple_of(CHECKPOINTS_PER_COLLECTION)
        {
            return;
        }
        let grace_ms = i64::try_from(self.config.checkpoint.gc_grace_ms).unwrap_or(i64::MAX);
        for owned in self.owned.values().filter(|owned| !owned.has_news()) {
            let before = owned.acknowledged_at_unix_ms.saturating_sub(grace_ms);
            let kept = owned.named.iter().chain(owned.snapshot.as_ref());
            // A failure leaves garbage for the next collection.
            if let Ok(objects) = owned.checkpoints.collect(kept, before).await
                && objects > 0
            {
                self.observer.observe(&WorkerEvent::Collected {
                    partition: owned.partition,
                    objects,
                });
            }
        }
    }

    /// When a partition's watermark may have to be advanced by the clock: it was read to its end,
    /// nothing has come for the idle timeout, and an advance would emit or drop something.
    fn idle_due_at(&self, owned: &OwnedPartition) -> Option<Duration> {
        // Not before the first commit: a snapshot, which the advance needs, must not come before it.
        if owned.phase != Phase::Live || !owned.at_end || owned.acknowledged.is_none() {
            return None;
        }
        let deadline = owned.task.next_deadline()?;
        let idle_at =
            owned.last_record_at + Duration::from_millis(self.config.windows.idle_timeout_ms);
        let out_of_orderness_ms = self.config.windows.max_out_of_orderness_ms;
        let wait_ms = deadline
            .0
            .saturating_add(out_of_orderness_ms)
            .saturating_sub(self.clock.unix_ms());
        let wait = Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0));
        Some(idle_at.max(self.clock.monotonic() + wait))
    }

    async fn advance_idle_partitions(&mut self) -> Result<(), WorkerError> {
        let now = self.clock.monotonic();
        let due: Vec<PartitionId> = self
            .owned
            .values()
            .filter(|owned| self.idle_due_at(owned).is_some_and(|at| at <= now))
            .map(|owned| owned.partition)
            .collect();
        for partition in due {
            self.advance_idle(partition).await?;
        }
        Ok(())
    }

    /// Advances one idle partition, if it really is: an unread backlog is never idleness, so the
    /// leader is asked where the log ends now. The clock is read before, so that whatever is
    /// appended later is later than the advance.
    async fn advance_idle(&mut self, partition: PartitionId) -> Result<(), WorkerError> {
        let out_of_orderness_ms = self.config.windows.max_out_of_orderness_ms;
        let to = Watermark(self.clock.unix_ms().saturating_sub(out_of_orderness_ms));
        let bounds = self.consumer.bounds(partition, self.call_timeout()).await;
        let now = self.clock.monotonic();
        let Some(owned) = self.owned.get_mut(&partition) else {
            return Ok(());
        };
        let at_end = bounds.is_ok_and(|bounds| bounds.last_stable <= owned.task.position());
        if !at_end {
            owned.last_record_at = now; // look again after another idle timeout
            return Ok(());
        }
        if owned.task.force_watermark(to, &mut owned.pending) {
            owned.needs_snapshot = true;
            let at = owned.task.position();
            self.observer.observe(&WorkerEvent::Forced {
                partition,
                at,
                watermark: to,
            });
            // Due at once: nothing of the partition is committed before.
            self.last_checkpoint_at = Duration::ZERO;
        }
        Ok(())
    }
}
