//! The transactional producer.

use super::bounded::BoundedCalls;
use super::consumer::Member;
use super::errors::of_transaction;
use super::ffi::{Client, List};
use crate::io::{
    ErrorClass, KafkaError, KafkaResult, OffsetAndMetadata, ProducerRecord, TransactionalProducer,
};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a full queue is given to drain before the record is tried again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

/// A transactional producer of librdkafka (transaction protocol version 1).
pub struct RdProducer {
    /// Ends before the client, which it uses too.
    offsets: BoundedCalls,
    client: Arc<Client>,
    /// A queue that stays full for longer does not drain in this transaction's life.
    queue_timeout: Duration,
}

impl RdProducer {
    pub(super) fn new(client: Client, transaction_timeout_ms: u64) -> io::Result<RdProducer> {
        let client = Arc::new(client);
        Ok(RdProducer {
            offsets: BoundedCalls::new(Arc::clone(&client))?,
            client,
            queue_timeout: Duration::from_millis(transaction_timeout_ms),
        })
    }

    /// `produce` has no flags: the state of the transaction decides.
    fn failed_send(&self, name: String) -> KafkaError {
        let class = match self.client.fatal_error() {
            Some(fatal) => of_transaction("send", fatal, ErrorClass::Fatal).class,
            None => ErrorClass::RequiresAbort,
        };
        KafkaError {
            call: "send",
            code: name,
            class,
        }
    }
}

impl TransactionalProducer for RdProducer {
    type GroupMetadata = Member;

    async fn init_transactions(&mut self, timeout: Duration) -> KafkaResult<()> {
        let done = self.client.init_transactions(timeout);
        done.map_err(|error| of_transaction("init_transactions", error, ErrorClass::Fatal))
    }

    fn begin_transaction(&mut self) -> KafkaResult<()> {
        self.client.serve(Duration::ZERO);
        let done = self.client.begin_transaction();
        done.map_err(|error| of_transaction("begin_transaction", error, ErrorClass::Fatal))
    }

    async fn send(&mut self, record: ProducerRecord) -> KafkaResult<()> {
        let begun = Instant::now();
        while let Err(error) = self.client.produce(&record) {
            if error.name != "_QUEUE_FULL" || begun.elapsed() > self.queue_timeout {
                return Err(self.failed_send(error.name));
            }
            self.client.serve(QUEUE_FULL_PAUSE);
            std::thread::sleep(QUEUE_FULL_PAUSE);
        }
        Ok(())
    }

    async fn send_offsets_to_transaction(
        &mut self,
        offsets: &[OffsetAndMetadata],
        group: &Member,
        timeout: Duration,
    ) -> KafkaResult<()> {
        let mut list = List::new();
        for offset in offsets {
            let (topic, partition) = (&offset.tp.topic, offset.tp.partition.0);
            list.add(
                topic,
                partition,
                offset.offset.0,
                offset.metadata.as_bytes(),
            );
        }
        let call = "send_offsets_to_transaction";
        match self.offsets.send_offsets(list, group.membership(), timeout) {
            // Without a flag it was refused, so it cannot be committed.
            Some(done) => {
                done.map_err(|error| of_transaction(call, error, ErrorClass::RequiresAbort))
            }
            None => Err(KafkaError {
                call,
                code: "no answer within the time limit".to_owned(),
                class: ErrorClass::OutcomeUnknown,
            }),
        }
    }

    async fn commit_transaction(&mut self, timeout: Duration) -> KafkaResult<()> {
        let done = self.client.commit_transaction(timeout);
        done.map_err(|error| {
            of_transaction("commit_transaction", error, ErrorClass::OutcomeUnknown)
        })
    }

    async fn abort_transaction(&mut self, timeout: Duration) -> KafkaResult<()> {
        let done = self.client.abort_transaction(timeout);
        done.map_err(|error| of_transaction("abort_transaction", error, ErrorClass::OutcomeUnknown))
    }

    fn is_tainted(&self) -> bool {
        self.offsets.is_stuck() || self.client.is_tainted()
    }
}
