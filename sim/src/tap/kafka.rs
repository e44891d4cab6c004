//! Clients of the cluster, tapped.

use super::ProcessTap;
use super::phase::About;
use processor::io::{
    CommittedOffset, Consumer, ErrorClass, Kafka, KafkaError, KafkaResult, OffsetAndMetadata,
    OffsetBounds, Polled, ProducerRecord, TopicDescription, TopicPartition, TransactionalProducer,
};
use processor::units::{Offset, PartitionId};
use std::sync::Arc;
use std::time::Duration;

/// What a dead process is told by calls that cannot wait for ever. Nobody acts on it any more.
fn killed(call: &'static str) -> KafkaError {
    KafkaError {
        call,
        code: "the process has been killed".into(),
        class: ErrorClass::Fatal,
    }
}

/// A [`Kafka`] whose clients are tapped.
pub struct TappedKafka<K> {
    inner: K,
    tap: ProcessTap,
    /// The topic that is consumed: transactions that carry offsets of others are marks.
    topic: Arc<str>,
}

impl<K> TappedKafka<K> {
    /// Wraps `inner`; `topic`: the input topic.
    pub fn new(inner: K, tap: ProcessTap, topic: &str) -> Self {
        TappedKafka {
            inner,
            tap,
            topic: topic.into(),
        }
    }
}

impl<K: Kafka> Kafka for TappedKafka<K> {
    type GroupMetadata = K::GroupMetadata;
    type Consumer = TappedConsumer<K::Consumer>;
    type Producer = TappedProducer<K::Producer>;

    fn consumer(&mut self, group: &str) -> KafkaResult<Self::Consumer> {
        Ok(TappedConsumer {
            inner: self.inner.consumer(group)?,
            tap: self.tap.clone(),
        })
    }

    /// Making a client is no I/O, but a dead process makes none.
    fn producer(&mut self, transactional_id: &str) -> KafkaResult<Self::Producer> {
        if !self.tap.lives() {
            return Err(killed("producer"));
        }
        Ok(TappedProducer {
            inner: self.inner.producer(transactional_id)?,
            tap: self.tap.clone(),
            topic: self.topic.clone(),
        })
    }
}

/// A consumer whose calls are numbered.
pub struct TappedConsumer<C> {
    inner: C,
    tap: ProcessTap,
}

impl<C: Consumer> Consumer for TappedConsumer<C> {
    type GroupMetadata = C::GroupMetadata;

    fn subscribe(&mut self, topic: &str) -> KafkaResult<()> {
        let call = || self.inner.subscribe(topic);
        self.tap
            .call_now("consumer.subscribe", About::Group, call, |_, story| {
                story.subscribed();
            })
            .unwrap_or_else(|| Err(killed("subscribe")))
    }

    async fn poll(&mut self, timeout: Duration) -> KafkaResult<Polled> {
        let inner = &mut self.inner;
        let polling = async {
            let polled = inner.poll(timeout).await;
            (polled, inner.group_metadata().is_some())
        };
        let (polled, _) = self
            .tap
            .call_and(
                "consumer.poll",
                About::Poll,
                polling,
                |output, call, story| {
                    if let (Ok(polled), in_group) = output {
                        (call.phase, call.name) = story.polled(polled, *in_group);
                    }
                },
            )
            .await;
        polled
    }

    fn accept(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        let call = || self.inner.accept(partitions);
        self.tap
            .call_now("consumer.accept", About::Group, call, |accepted, story| {
                story.answered();
                if accepted.is_ok() {
                    story.accepted(partitions);
                }
            })
            .unwrap_or_else(|| Err(killed("accept")))
    }

    fn release(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        let call = || self.inner.release(partitions);
        self.tap
            .call_now("consumer.release", About::Group, call, |_, story| {
                story.answered();
                story.released(partitions);
            })
            .unwrap_or_else(|| Err(killed("release")))
    }

    fn start_at(&mut self, partition: PartitionId, offset: Offset) -> KafkaResult<()> {
        let call = || self.inner.start_at(partition, offset);
        self.tap
            .call_now("consumer.start_at", About::Start, call, |_, _| ())
            .unwrap_or_else(|| Err(killed("start_at")))
    }

    fn pause(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        let call = || self.inner.pause(partitions);
        self.tap
            .call_now("consumer.pause", About::Flow, call, |_, _| ())
            .unwrap_or_else(|| Err(killed("pause")))
    }

    fn resume(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        let call = || self.inner.resume(partitions);
        self.tap
            .call_now("consumer.resume", About::Flow, call, |_, _| ())
            .unwrap_or_else(|| Err(killed("resume")))
    }

    async fn committed(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> KafkaResult<Vec<Option<CommittedOffset>>> {
        let call = self.inner.committed(partitions, timeout);
        self.tap
            .call("consumer.committed", About::Committed, call)
            .await
    }

    async fn bounds(
        &mut self,
        partition: PartitionId,
        timeout: Duration,
    ) -> KafkaResult<OffsetBounds> {
        let call = self.inner.bounds(partition, timeout);
        self.tap
            .call("consumer.bounds", About::End(partition), call)
            .await
    }

    async fn describe_topic(
        &mut self,
        topic: &str,
        timeout: Duration,
    ) -> KafkaResult<TopicDescription> {
        let call = self.inner.describe_topic(topic, timeout);
        self.tap
            .call("consumer.describe_topic", About::Topic, call)
            .await
    }

    fn group_metadata(&self) -> Option<Self::GroupMetadata> {
        self.inner.group_metadata()
    }

    async fn close(self, timeout: Duration) {
        let call = self.inner.close(timeout);
        self.tap.call("consumer.close", About::Group, call).await;
    }
}

/// A transactional producer whose calls are numbered.
pub struct TappedProducer<P> {
    inner: P,
    tap: ProcessTap,
    topic: Arc<str>,
}

impl<P: TransactionalProducer> TransactionalProducer for TappedProducer<P> {
    type GroupMetadata = P::GroupMetadata;

    async fn init_transactions(&mut self, timeout: Duration) -> KafkaResult<()> {
        let call = self.inner.init_transactions(timeout);
        self.tap
            .call("producer.init_transactions", About::Producer, call)
            .await
    }

    fn begin_transaction(&mut self) -> KafkaResult<()> {
        let call = || self.inner.begin_transaction();
        self.tap
            .call_now("producer.begin_transaction", About::Begin, call, |_, _| ())
            .unwrap_or_else(|| Err(killed("begin_transaction")))
    }

    async fn send(&mut self, record: ProducerRecord) -> KafkaResult<()> {
        let call = self.inner.send(record);
        self.tap
            .call("producer.send", About::Transaction, call)
            .await
    }

    async fn send_offsets_to_transaction(
        &mut self,
        offsets: &[OffsetAndMetadata],
        group: &Self::GroupMetadata,
        timeout: Duration,
    ) -> KafkaResult<()> {
        if offsets.iter().all(|offset| *offset.tp.topic != *self.topic) {
            self.tap.is_mark();
        }
        let call = self
            .inner
            .send_offsets_to_transaction(offsets, group, timeout);
        self.tap
            .call("producer.send_offsets", About::Transaction, call)
            .await
    }

    async fn commit_transaction(&mut self, timeout: Duration) -> KafkaResult<()> {
        let call = self.inner.commit_transaction(timeout);
        self.tap
            .call("producer.commit_transaction", About::Transaction, call)
            .await
    }

    async fn abort_transaction(&mut self, timeout: Duration) -> KafkaResult<()> {
        let call = self.inner.abort_transaction(timeout);
        self.tap
            .call("producer.abort_transaction", About::Transaction, call)
            .await
    }

    fn is_tainted(&self) -> bool {
        self.inner.is_tainted()
    }
}
