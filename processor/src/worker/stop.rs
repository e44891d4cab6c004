//! The end of a worker that was asked to stop.

use super::commit_record::CommitRecord;
use super::error::WorkerError;
use super::observer::WorkerEvent;
use super::{Observer, RETRY_PAUSE, Worker};
use crate::io::{
    Clock, CommittedOffset, Consumer, Kafka, Polled, StateStore, TransactionalProducer,
};
use crate::units::PartitionId;
use std::time::Duration;

/// Rounds of a clean stop before it is given up.
const DRAIN_ROUNDS_MAX: u32 = 20;

impl<K: Kafka, S: StateStore, C: Clock, O: Observer> Worker<K, S, C, O> {
    /// The last act: snapshots at the committed offsets, then leave. No record is taken any more, so each
    /// round can only bring snapshot and commit closer together.
    pub(super) async fn drain(mut self) -> Result<(), WorkerError> {
        for _ in 0..DRAIN_ROUNDS_MAX {
            self.commit().await?;
            self.checkpoint_round(true).await?;
            self.commit().await?;
            self.leave_settled_ones().await?;
            if self.first_unsettled().is_none() {
                break;
            }
            self.clock.sleep(RETRY_PAUSE).await;
            self.follow_group().await?;
        }
        let unsettled = self.first_unsettled();
        // Requests that are still under way must not outlive this process's last epoch.
        if self.producer.as_ref().is_some_and(|p| p.is_tainted()) {
            self.replace_producer("the worker stops").await?;
        }
        let partitions: Vec<PartitionId> = self.owned.keys().copied().collect();
        self.forget(&partitions, true)?;
        self.consumer.close(Duration::from_millis(5_000)).await;
        unsettled.map_or(Ok(()), |partition| {
            Err(WorkerError::DrainIncomplete(partition))
        })
    }

    /// While it stops: keeps up with the group's generations and with what is taken away, and takes
    /// nothing new.
    async fn follow_group(&mut self) -> Result<(), WorkerError> {
        let owned: Vec<PartitionId> = self.owned.keys().copied().collect();
        if let Err(error) = self.consumer.pause(&owned) {
            self.observer.observe(&WorkerEvent::Retrying(&error));
        }
        let polled = self.consumer.poll(Duration::ZERO).await?;
        self.note_poll();
        self.deferred.push_back(polled);
        while let Some(polled) = self.deferred.pop_front() {
            match polled {
                Polled::Revoked(partitions) => self.give_back(&partitions).await?,
                Polled::Lost(partitions) => self.lose(&partitions)?,
                Polled::Assigned(_)
                | Polled::Records { .. }
                | Polled::EndOfPartition { .. }
                | Polled::TimedOut => {}
            }
        }
        Ok(())
    }

    /// Partitions that this worker was given at the last moment and has not restored are not its affair, if
    /// whoever had them before has left them settled. (When all workers of a group stop, the last ones get
    /// the partitions of the first ones.)
    async fn leave_settled_ones(&mut self) -> Result<(), WorkerError> {
        let waiting: Vec<PartitionId> = self.waiting.keys().copied().collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let Some(answer) = self.read_current(&waiting).await? else {
            return Ok(()); // not known now; the next round asks again
        };
        for (partition, committed) in waiting.into_iter().zip(answer) {
            if committed.is_none_or(|committed| stands_at_its_snapshot(&committed)) {
                self.waiting.remove(&partition);
            }
        }
        Ok(())
    }

    /// A partition whose next start would have to replay, or might.
    fn first_unsettled(&self) -> Option<PartitionId> {
        let mut unsettled = self.owned.values().filter(|owned| !owned.is_settled());
        let waiting = self.waiting.keys().next();
        let owned = unsettled.next().map(|owned| owned.partition);
        owned.or(waiting.copied())
    }
}

/// True if a recovery from this commit would have nothing to replay.
fn stands_at_its_snapshot(committed: &CommittedOffset) -> bool {
    CommitRecord::decode(&committed.metadata)
        .is_ok_and(|record| record.snapshot_at == committed.offset)
}
