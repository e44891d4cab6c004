//! Committed offsets as they certainly are now.
//!
//! An OffsetFetch is answered from the memory of whoever takes himself for the group's coordinator. One
//! that was cut off from its cluster keeps answering, with offsets that others have long moved. So a
//! read that decides anything is preceded by a write: a *mark*, a committed offset of a key that only
//! this worker writes, with a nonce as its metadata, in a transaction under the member's generation. Only
//! an answer that shows the nonce comes from a coordinator that was current after the mark, and then the
//! member was too.

use super::error::WorkerError;
use super::observer::WorkerEvent;
use super::transaction::Ending;
use super::{Observer, RETRY_PAUSE, Worker};
use crate::io::{
    Clock, CommittedOffset, Consumer, ErrorClass, Kafka, OffsetAndMetadata, StateStore,
    TopicPartition,
};
use crate::units::{Offset, PartitionId};

/// Marks that may fail in a row before the caller has to try again later.
const MARKS_MAX: u32 = 5;

impl<K: Kafka, S: StateStore, C: Clock, O: Observer> Worker<K, S, C, O> {
    pub(super) fn input(&self, partition: PartitionId) -> TopicPartition {
        TopicPartition {
            topic: self.config.kafka.input_topic.clone(),
            partition,
        }
    }

    /// The key of this worker's marks: workers share the output topic's partitions by ordinal. Two
    /// workers on one key only make each other try again.
    fn mark_key(&self) -> TopicPartition {
        let partition = self.config.worker.ordinal % self.output_partitions.max(1);
        TopicPartition {
            topic: self.config.kafka.output_topic.clone(),
            partition: PartitionId(i32::try_from(partition).unwrap_or(0)),
        }
    }

    /// Current committed offsets of partitions of the input topic, in order. `None` when this worker
    /// cannot know: it is not in a current generation, or nobody answers; then try again later.
    pub(super) async fn read_current(
        &mut self,
        partitions: &[PartitionId],
    ) -> Result<Option<Vec<Option<CommittedOffset>>>, WorkerError> {
        self.read_behind_marks(partitions, MARKS_MAX).await
    }

    /// As [`Worker::read_current`], with so many marks at most.
    pub(super) async fn read_behind_marks(
        &mut self,
        partitions: &[PartitionId],
        marks_max: u32,
    ) -> Result<Option<Vec<Option<CommittedOffset>>>, WorkerError> {
        let mut asked: Vec<TopicPartition> = partitions.iter().map(|&p| self.input(p)).collect();
        asked.push(self.mark_key());
        for _ in 0..marks_max {
            let Some(nonce) = self.mark().await? else {
                return Ok(None);
            };
            match self.consumer.committed(&asked, self.call_timeout()).await {
                Ok(mut answer) => {
                    let mark = answer.pop().flatten();
                    if mark.is_some_and(|mark| mark.metadata == nonce) {
                        return Ok(Some(answer));
                    }
                    self.observer.observe(&WorkerEvent::Outdated);
                }
                Err(error) if error.class == ErrorClass::Retriable => {
                    self.observer.observe(&WorkerEvent::Retrying(&error));
                }
                Err(error) => return Err(error.into()),
            }
            self.clock.sleep(RETRY_PAUSE).await;
            self.stay_in_group().await?;
            if partitions.iter().all(|&p| self.is_being_taken(p)) {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Commits a mark. `None` when the group does not take it from this member. (When its outcome is
    /// unknown, the read that follows tells.)
    async fn mark(&mut self) -> Result<Option<String>, WorkerError> {
        self.ensure_producer().await?;
        let Some(group) = self.group.clone() else {
            return Ok(None);
        };
        self.marks_made += 1;
        let nonce = format!("mark {} of {}", self.marks_made, self.incarnation);
        let offset = OffsetAndMetadata {
            tp: self.mark_key(),
            offset: Offset(0),
            metadata: nonce.clone(),
        };
        match self.transact(&[], &[offset], &group).await? {
            Ending::Committed => Ok(Some(nonce)),
            Ending::Aborted => Ok(None),
            Ending::Unresolved => {
                self.ensure_producer().await?;
                Ok(Some(nonce))
            }
        }
    }
}
