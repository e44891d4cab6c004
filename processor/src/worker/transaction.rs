//! The commit: one transaction with the outputs, the dead letters and the input offsets.

use super::error::WorkerError;
use super::observer::WorkerEvent;
use super::partition::{Acknowledged, OwnedPartition};
use super::{FENCES_IN_A_ROW_MAX, Observer, RETRY_PAUSE, Worker};
use crate::config::ProcessorConfig;
use crate::core::{Counters, Destination, OutputRecord};
use crate::io::{
    Clock, CommittedOffset, Consumer, ErrorClass, Header, Kafka, KafkaError, OffsetAndMetadata,
    ProducerRecord, StateStore, TransactionalProducer,
};
use crate::units::{PartitionId, Watermark};
use bytes::Bytes;
use std::time::Duration;

/// What one transaction says of one partition.
pub(super) struct Attempt {
    partition: PartitionId,
    said: Acknowledged,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Committed,
    /// Certainly not committed; the producer is usable.
    Aborted,
    /// The producer is gone, or the outcome unknown: ask the committed offsets.
    Unresolved,
}

impl<K: Kafka, S: StateStore, C: Clock, O: Observer> Worker<K, S, C, O> {
    /// Commits everything that is new. After it, outputs are either acknowledged, or still pending
    /// and certainly not visible, or their partition waits to be recovered from what is committed.
    pub(super) async fn commit(&mut self) -> Result<(), WorkerError> {
        let began = self.clock.monotonic();
        self.last_commit_at = began;
        let attempts: Vec<Attempt> = self
            .owned
            .values()
            .filter_map(|owned| {
                Some(Attempt {
                    partition: owned.partition,
                    said: Acknowledged::of(owned.task.position(), owned.news()?),
                })
            })
            .collect();
        let Some(group) = self.group.clone() else {
            return Ok(()); // not in a generation: nothing may be committed
        };
        if attempts.is_empty() {
            return Ok(());
        }
        self.ensure_producer().await?;
        let partitions: Vec<PartitionId> = attempts.iter().map(|a| a.partition).collect();
        let offsets: Vec<OffsetAndMetadata> = attempts
            .iter()
            .map(|attempt| self.offset_of(attempt.partition, &attempt.said.committed))
            .collect();
        match self.transact(&partitions, &offsets, &group).await? {
            Ending::Committed => self.acknowledge(attempts, began),
            Ending::Aborted => {
                self.aborts_in_a_row += 1;
                Ok(())
            }
            Ending::Unresolved => self.resolve(attempts, began).await,
        }
    }

    pub(super) fn offset_of(
        &self,
        partition: PartitionId,
        committed: &CommittedOffset,
    ) -> OffsetAndMetadata {
        OffsetAndMetadata {
            tp: self.input(partition),
            offset: committed.offset,
            metadata: committed.metadata.clone(),
        }
    }

    /// One transaction: the pending outputs of `partitions`, and `offsets`.
    pub(super) async fn transact(
        &mut self,
        partitions: &[PartitionId],
        offsets: &[OffsetAndMetadata],
        group: &K::GroupMetadata,
    ) -> Result<Ending, WorkerError> {
        let error = match self.try_transact(partitions, offsets, group).await {
            Ok(()) => return Ok(Ending::Committed),
            Err(error) => error,
        };
        // With requests of this transaction under way, an abort under the same epoch would let them
        // arrive after it. A new producer's epoch fences them.
        let tainted = self.producer.as_ref().is_none_or(|p| p.is_tainted());
        if error.class != ErrorClass::RequiresAbort || tainted {
            // A mark is cut off by a timeout as easily as by a second process: it proves nothing.
            let input = &self.config.kafka.input_topic;
            let is_mark = offsets.iter().all(|offset| offset.tp.topic != *input);
            if error.class == ErrorClass::Fenced && !is_mark {
                self.count_fence()?;
            }
            return Ok(self.abandon_producer(&error));
        }
        self.observer.observe(&WorkerEvent::Aborted(&error));
        let deadline = self.transaction_deadline();
        loop {
            let timeout = self.call_timeout();
            let Some(producer) = self.producer.as_mut() else {
                return Ok(Ending::Unresolved);
            };
            match producer.abort_transaction(timeout).await {
                Ok(()) => return Ok(Ending::Aborted),
                Err(error)
                    if error.class == ErrorClass::Retriable
                        && self.clock.monotonic() < deadline =>
                {
                    self.observer.observe(&WorkerEvent::Retrying(&error));
                    self.clock.sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Ok(self.abandon_producer(&error)),
            }
        }
    }

    fn count_fence(&mut self) -> Result<(), WorkerError> {
        self.fenced_in_a_row += 1;
        if self.fenced_in_a_row > FENCES_IN_A_ROW_MAX {
            return Err(WorkerError::FencedRepeatedly(self.transactional_id()));
        }
        Ok(())
    }

    fn abandon_producer(&mut self, error: &KafkaError) -> Ending {
        self.observer.observe(&WorkerEvent::Retrying(error));
        self.producer = None;
        Ending::Unresolved
    }

    /// When a transaction that still gets no answer is given up: its coordinator, if there is one, has
    /// timed it out by then. A new producer finds out; meanwhile the member can poll.
    fn transaction_deadline(&self) -> Duration {
        let timeout = Duration::from_millis(self.config.kafka.transaction_timeout_ms);
        self.clock.monotonic() + 2 * timeout
    }

    /// The transaction itself. Retriable errors are retried with the same call and arguments; a
    /// commit is never followed by an abort because it timed out.
    async fn try_transact(
        &mut self,
        partitions: &[PartitionId],
        offsets: &[OffsetAndMetadata],
        group: &K::GroupMetadata,
    ) -> Result<(), KafkaError> {
        let timeout = self.call_timeout();
        let deadline = self.transaction_deadline();
        let producer = self
            .producer
            .as_mut()
            .expect("a producer is there before a transaction begins");
        producer.begin_transaction()?;
        for partition in partitions {
            let owned = &self.owned[partition];
            for output in &owned.pending {
                producer
                    .send(producer_record(&self.config, owned, output))
                    .await?;
            }
        }
        loop {
            match producer
                .send_offsets_to_transaction(offsets, group, timeout)
                .await
            {
                Err(error) if error.class == ErrorClass::Retriable => {
                    let error = unless_overdue(error, &self.clock, deadline)?;
                    self.observer.observe(&WorkerEvent::Retrying(&error));
                    self.clock.sleep(RETRY_PAUSE).await;
                }
                done => break done?,
            }
        }
        loop {
            match producer.commit_transaction(timeout).await {
                Err(error) if error.class == ErrorClass::Retriable => {
                    let error = unless_overdue(error, &self.clock, deadline)?;
                    self.observer.observe(&WorkerEvent::Retrying(&error));
                    self.clock.sleep(RETRY_PAUSE).await;
                }
                done => return done,
            }
        }
    }

    /// The outputs of these attempts are committed: they need not be kept.
    fn acknowledge(&mut self, attempts: Vec<Attempt>, began: Duration) -> Result<(), WorkerError> {
        self.fenced_in_a_row = 0;
        self.aborts_in_a_row = 0;
        let mut outputs = 0;
        let partitions = attempts.len();
        let (retention, now_unix_ms) = (self.retention(), self.clock.unix_ms());
        for attempt in attempts {
            let Some(owned) = self.owned.get_mut(&attempt.partition) else {
                continue;
            };
            outputs += owned.pending.len();
            self.observer.observe(&progress(owned, &attempt));
            owned.forget_pending();
            owned.name_snapshot(retention, now_unix_ms);
            owned.acknowledged = attempt.said;
        }
        self.end_holding_back();
        self.observer.observe(&WorkerEvent::Committed {
            partitions,
            outputs,
            took: self.clock.monotonic().saturating_sub(began),
        });
        Ok(())
    }

    /// Ends a pause. A partition that is not owned any more is told by the next poll.
    pub(super) fn let_flow(&mut self, partitions: &[PartitionId]) {
        if let Err(error) = self.consumer.resume(partitions) {
            self.observer.observe(&WorkerEvent::Retrying(&error));
        }
    }

    /// Finds out whether a transaction was committed. A new producer with the same transactional id
    /// first: its InitProducerId ends whatever is still open, so that the answer is final.
    async fn resolve(
        &mut self,
        attempts: Vec<Attempt>,
        began: Duration,
    ) -> Result<(), WorkerError> {
        self.ensure_producer().await?;
        let partitions: Vec<PartitionId> = attempts.iter().map(|a| a.partition).collect();
        let Some(answer) = self.read_current(&partitions).await? else {
            // Whatever was committed: these outputs must not be sent again before a recovery has seen it.
            for partition in partitions {
                self.set_back(partition)?;
            }
            return Ok(());
        };
        let mut confirmed = Vec::new();
        let mut refuted = 0;
        for (attempt, found) in attempts.into_iter().zip(answer) {
            let before = &self.owned[&attempt.partition].acknowledged.committed;
            if found.as_ref() == Some(&attempt.said.committed) {
                confirmed.push(attempt);
            } else if found.as_ref() == Some(before) {
                refuted += 1;
            } else {
                self.set_back(attempt.partition)?;
            }
        }
        // One transaction is all or nothing: a mixture can only mean that a stray EndTxn tore it.
        if !confirmed.is_empty() && refuted > 0 {
            return Err(WorkerError::Torn {
                committed: confirmed.len(),
                missing: refuted,
            });
        }
        let committed = refuted == 0;
        self.observer.observe(&WorkerEvent::Resolved { committed });
        if !confirmed.is_empty() {
            self.acknowledge(confirmed, began)?;
        }
        Ok(())
    }

    /// Drops what this worker believes of a partition: it is recovered from what is committed.
    pub(super) fn set_back(&mut self, partition: PartitionId) -> Result<(), WorkerError> {
        if let Some(owned) = self.owned.remove(&partition) {
            if owned.held_back {
                self.let_flow(&[partition]);
            }
            self.state.drop_partition(partition)?;
            self.waiting.insert(partition, self.clock.monotonic());
            self.observer.observe(&WorkerEvent::SetBack { partition });
        }
        Ok(())
    }

    pub(super) fn transactional_id(&self) -> String {
        format!(
            "{}-{}",
            self.config.kafka.group_id, self.config.worker.ordinal
        )
    }

    /// A producer that can begin a transaction which nothing of an older one can disturb.
    pub(super) async fn ensure_producer(&mut self) -> Result<(), WorkerError> {
        match &self.producer {
            Some(producer) if !producer.is_tainted() => Ok(()),
            Some(_) => {
                self.replace_producer("requests of the last transaction may still be under way")
                    .await
            }
            None => {
                self.replace_producer("the outcome of a transaction is unknown")
                    .await
            }
        }
    }

    /// A new producer under this worker's transactional id.
    pub(super) async fn replace_producer(&mut self, reason: &str) -> Result<(), WorkerError> {
        self.producer = None;
        let id = self.transactional_id();
        let mut producer = self.kafka.producer(&id)?;
        loop {
            match producer.init_transactions(self.call_timeout()).await {
                Ok(()) => break,
                Err(error) => self.retry_or_fail(error).await?,
            }
        }
        self.producer = Some(producer);
        self.observer
            .observe(&WorkerEvent::ProducerReplaced { reason });
        Ok(())
    }
}

/// What an acknowledged attempt has brought since the one before it.
fn progress<'a>(owned: &'a OwnedPartition, attempt: &Attempt) -> WorkerEvent<'a> {
    let before = owned.acknowledged.record.counters;
    let Acknowledged { committed, record } = &attempt.said;
    let now = record.counters;
    let added = |index: usize| now[index].saturating_sub(before[index]);
    WorkerEvent::Progress {
        partition: attempt.partition,
        term: owned.ownership.term,
        committed: committed.offset,
        watermark: record.watermark.unwrap_or(Watermark::NONE),
        added: Counters {
            records: added(0),
            accepted: added(1),
            duplicates: added(2),
            dead_letters: added(3),
            results: added(4),
        },
        outputs: &owned.pending,
    }
}

/// A retriable error once more, or, past the deadline, one that leaves the outcome open.
fn unless_overdue(
    error: KafkaError,
    clock: &impl Clock,
    deadline: Duration,
) -> Result<KafkaError, KafkaError> {
    if clock.monotonic() < deadline {
        return Ok(error);
    }
    Err(KafkaError {
        class: ErrorClass::OutcomeUnknown,
        ..error
    })
}

fn producer_record(
    config: &ProcessorConfig,
    owned: &OwnedPartition,
    output: &OutputRecord,
) -> ProducerRecord {
    let topic = match output.destination {
        Destination::Results => &config.kafka.output_topic,
        Destination::DeadLetters => &config.kafka.dead_letter_topic,
    };
    let mut headers = output.headers.clone();
    headers.push(Header {
        name: "owner".into(),
        value: Bytes::from(format!(
            "{}/{}",
            owned.ownership.term, owned.ownership.owner
        )),
    });
    ProducerRecord {
        topic: topic.clone(),
        partition: None,
        timestamp: output.timestamp,
        key: output.key.clone(),
        value: output.value.clone(),
        headers,
    }
}
