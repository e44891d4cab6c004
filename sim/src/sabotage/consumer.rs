//! A consumer that breaks a promise.

use super::slow::SlowFetches;
use super::{Sabotage, Saboteur};
use bytes::Bytes;
use processor::io::{
    CommittedOffset, ConsumedRecord, Consumer, KafkaResult, OffsetBounds, Polled, TopicDescription,
    TopicPartition,
};
use processor::units::{Offset, PartitionId};
use std::time::Duration;

/// See [`Sabotage`].
pub struct SabotagedConsumer<C> {
    inner: C,
    saboteur: Saboteur,
    stalled: Option<PartitionId>,
    slow: SlowFetches,
}

impl<C> SabotagedConsumer<C> {
    pub(super) fn new(inner: C, saboteur: Saboteur) -> Self {
        SabotagedConsumer {
            inner,
            saboteur,
            stalled: None,
            slow: SlowFetches::default(),
        }
    }

    fn tamper(&mut self, polled: Polled) -> Polled {
        if let Polled::EndOfPartition {
            partition,
            position,
        } = polled
            && self.slow.is_slow(partition)
        {
            self.slow.end_after(partition, position);
            return Polled::TimedOut;
        }
        let Polled::Records {
            partition,
            mut records,
        } = polled
        else {
            return polled;
        };
        if self.stalled == Some(partition) {
            return Polled::TimedOut;
        }
        if self.saboteur.strikes(Sabotage::PartitionStalled, 50) {
            self.stalled = Some(partition);
        }
        let saboteur = &mut self.saboteur;
        records.retain(|_| !saboteur.strikes(Sabotage::RecordsLost, 400));
        for record in &mut records {
            if saboteur.strikes(Sabotage::RecordsAltered, 400) {
                alter(record);
            }
        }
        if records.is_empty() {
            return Polled::TimedOut;
        }
        if self.saboteur.is(Sabotage::BacklogCalledIdle) {
            return self.slow_down(partition, records);
        }
        Polled::Records { partition, records }
    }

    /// The second half of some fetches takes long, and that is called the end of the log.
    fn slow_down(&mut self, partition: PartitionId, records: Vec<ConsumedRecord>) -> Polled {
        if self.slow.is_slow(partition) {
            self.slow.follow(partition, records);
            return Polled::TimedOut;
        }
        let mut records = records;
        if records.len() > 1 && self.saboteur.strikes(Sabotage::BacklogCalledIdle, 3) {
            let rest = records.split_off(records.len() / 2);
            let end = records.last().expect("a half of two or more").offset.next();
            self.slow.hold(partition, end, rest, self.saboteur.now_ms());
        }
        Polled::Records { partition, records }
    }
}

/// Makes the price a hundred dollars more, if it is one of the generator's.
fn alter(record: &mut ConsumedRecord) {
    let Some(value) = &record.value else { return };
    let text = String::from_utf8_lossy(value).replace("\"price\":1", "\"price\":21");
    record.value = Some(Bytes::from(text));
}

impl<C: Consumer> Consumer for SabotagedConsumer<C> {
    type GroupMetadata = C::GroupMetadata;

    fn subscribe(&mut self, topic: &str) -> KafkaResult<()> {
        self.inner.subscribe(topic)
    }

    async fn poll(&mut self, timeout: Duration) -> KafkaResult<Polled> {
        if let Some(polled) = self.slow.next(self.saboteur.now_ms()) {
            return Ok(polled);
        }
        let polled = self.inner.poll(timeout).await?;
        Ok(self.tamper(polled))
    }

    fn accept(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        self.inner.accept(partitions)
    }

    fn release(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        self.slow.forget(partitions);
        self.inner.release(partitions)
    }

    fn start_at(&mut self, partition: PartitionId, offset: Offset) -> KafkaResult<()> {
        self.slow.forget(&[partition]);
        self.inner.start_at(partition, offset)
    }

    fn pause(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        self.inner.pause(partitions)
    }

    fn resume(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        self.inner.resume(partitions)
    }

    async fn committed(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> KafkaResult<Vec<Option<CommittedOffset>>> {
        self.inner.committed(partitions, timeout).await
    }

    async fn bounds(
        &mut self,
        partition: PartitionId,
        timeout: Duration,
    ) -> KafkaResult<OffsetBounds> {
        match self.slow.bounds(partition) {
            Some(bounds) => Ok(bounds),
            None => self.inner.bounds(partition, timeout).await,
        }
    }

    async fn describe_topic(
        &mut self,
        topic: &str,
        timeout: Duration,
    ) -> KafkaResult<TopicDescription> {
        self.inner.describe_topic(topic, timeout).await
    }

    fn group_metadata(&self) -> Option<Self::GroupMetadata> {
        self.inner.group_metadata()
    }

    async fn close(self, timeout: Duration) {
        self.inner.close(timeout).await;
    }
}
