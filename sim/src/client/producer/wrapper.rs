//! The transactional producer as the processor's worker uses it.

use super::ProducerActor;
use crate::client::consumer::deadline;
use crate::client::group::GroupIdentity;
use crate::fabric::Handle;
use crate::fabric::actor::{Effects, Micros};
use crate::kafka::protocol::Record;
use processor::io::{KafkaResult, OffsetAndMetadata, ProducerRecord, TransactionalProducer};
use std::task::Poll;
use std::time::Duration;

/// See the module. When it is dropped the instance dies without a word, as a librdkafka producer that
/// is destroyed: no EndTxn; requests under way may still arrive.
pub struct SimProducer {
    handle: Handle<ProducerActor>,
}

impl SimProducer {
    /// Wraps an actor.
    #[must_use]
    pub fn new(handle: Handle<ProducerActor>) -> SimProducer {
        SimProducer { handle }
    }

    async fn call(
        &self,
        name: &'static str,
        timeout: Duration,
        look: impl FnMut(&mut ProducerActor, Micros, &mut Effects) -> Poll<KafkaResult<()>>,
    ) -> KafkaResult<()> {
        let deadline = deadline(self.handle.fabric().now(), timeout);
        let result = self.handle.wait(deadline, look).await;
        result.unwrap_or_else(|| self.handle.with(|actor, _, _| Err(actor.timed_out(name))))
    }
}

impl std::fmt::Debug for SimProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.handle
            .with(|actor, _, _| std::fmt::Debug::fmt(actor, f))
    }
}

impl Drop for SimProducer {
    fn drop(&mut self) {
        // A world that panics is abandoned as it is.
        if !std::thread::panicking() {
            self.handle.remove();
        }
    }
}

impl ProducerActor {
    /// One look of a waiting `send`: takes the record when there is room.
    fn poll_send(
        &mut self,
        now: Micros,
        record: &mut Option<ProducerRecord>,
        fx: &mut Effects,
    ) -> Poll<KafkaResult<()>> {
        if let Err(error) = self.check_open("send") {
            return Poll::Ready(Err(error));
        }
        self.sender_waits = self.outstanding >= self.settings.queue_max_records;
        if self.sender_waits {
            return Poll::Pending;
        }
        let Some(record) = record.take() else {
            unreachable!("a record is taken once, and then the call is over");
        };
        let stored = Record {
            timestamp: record.timestamp,
            key: record.key,
            value: Some(record.value),
            headers: record.headers,
        };
        Poll::Ready(self.enqueue(now, &record.topic, record.partition, stored, fx))
    }
}

impl TransactionalProducer for SimProducer {
    type GroupMetadata = GroupIdentity;

    async fn init_transactions(&mut self, timeout: Duration) -> KafkaResult<()> {
        self.call("init_transactions", timeout, ProducerActor::poll_init)
            .await
    }

    fn begin_transaction(&mut self) -> KafkaResult<()> {
        self.handle.with(|actor, _, _| actor.begin())
    }

    async fn send(&mut self, record: ProducerRecord) -> KafkaResult<()> {
        let mut record = Some(record);
        let sent = self
            .handle
            .wait(Micros::MAX, |actor, now, fx| {
                actor.poll_send(now, &mut record, fx)
            })
            .await;
        sent.expect("this wait has no deadline")
    }

    async fn send_offsets_to_transaction(
        &mut self,
        offsets: &[OffsetAndMetadata],
        group: &GroupIdentity,
        timeout: Duration,
    ) -> KafkaResult<()> {
        const CALL: &str = "send_offsets_to_transaction";
        self.handle
            .with(|actor, now, fx| actor.start_offsets(now, offsets, group, fx))?;
        let deadline = deadline(self.handle.fabric().now(), timeout);
        let result = self
            .handle
            .wait(deadline, |actor, _, _| actor.poll_offsets())
            .await;
        result.unwrap_or_else(|| {
            self.handle.with(|actor, _, _| {
                actor.give_up_offsets();
                Err(actor.timed_out(CALL))
            })
        })
    }

    async fn commit_transaction(&mut self, timeout: Duration) -> KafkaResult<()> {
        self.call("commit_transaction", timeout, ProducerActor::poll_commit)
            .await
    }

    async fn abort_transaction(&mut self, timeout: Duration) -> KafkaResult<()> {
        self.call("abort_transaction", timeout, ProducerActor::poll_abort)
            .await
    }

    fn is_tainted(&self) -> bool {
        self.handle.with(|actor, _, _| actor.is_tainted())
    }
}
