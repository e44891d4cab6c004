//! The commit: one transaction with the outputs, the dead letters and the input offsets.

use super::commit_record::CommitRecord;
use super::error::WorkerError;
use super::observer::WorkerEvent;
use super::partition::{Acknowledged, OwnedPartition};
use super::{FENCES_IN_A_ROW_MAX, Observer, RETRY_PAUSE, Worker};
use crate::config::ProcessorConfig;
use crate::core::{Destination, OutputRecord};
use crate::io::{
    Clock, CommittedOffset, Consumer, ErrorClass, Header, Kafka, KafkaError, OffsetAndMetadata,
    ProducerRecord, StateStore, TransactionalProducer,
};
use crate::units::{Offset, PartitionId};
use bytes::Bytes;

/// What one transaction says of one partition.
struct Attempt {
    partition: PartitionId,
    offset: Offset,
    record: CommitRecord,
    began_unix_ms: i64,
}

/// How a transaction ended, when it did not simply succeed.
enum Ending {
    Committed,
    /// Certainly not committed; the producer is usable.
    Aborted,
    /// The producer is dead or the outcome unknown: ask the committed offsets.
    Unresolved,
}

/// What the committed offsets tell of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Committed,
    NotCommitted,
    Superseded,
}

impl<K: Kafka, S: StateStore, C: Clock, O: Observer> Worker<K, S, C, O> {
    /// Commits everything that is new. After it, outputs are either acknowledged or still pending
    /// and certainly not visible.
    pub(super) async fn commit(&mut self) -> Result<(), WorkerError> {
        self.last_commit_at = self.clock.monotonic();
        let began_unix_ms = self.clock.unix_ms();
        let attempts: Vec<Attempt> = self
            .owned
            .values()
            .filter(|owned| owned.has_news())
            .map(|owned| Attempt {
                partition: owned.partition,
                offset: owned.task.position(),
                record: owned.record(),
                began_unix_ms,
            })
            .collect();
        let Some(group) = self.group.clone() else {
            return Ok(()); // not in a generation: nothing may be committed
        };
        if attempts.is_empty() {
            return Ok(());
        }
        let tainted = self.producer.as_ref().is_none_or(|p| p.is_tainted());
        if tainted {
            self.replace_producer("an EndTxn may still be under way")
                .await?;
        }
        match self.transact(&attempts, &group).await? {
            Ending::Committed => self.acknowledge(attempts),
            Ending::Aborted => Ok(()),
            Ending::Unresolved => self.resolve(attempts).await,
        }
    }

    async fn transact(
        &mut self,
        attempts: &[Attempt],
        group: &K::GroupMetadata,
    ) -> Result<Ending, WorkerError> {
        let error = match self.try_transact(attempts, group).await {
            Ok(()) => return Ok(Ending::Committed),
            Err(error) => error,
        };
        if error.class != ErrorClass::RequiresAbort {
            return self.abandon_producer(&error);
        }
        self.observer.observe(&WorkerEvent::Aborted(&error));
        loop {
            let timeout = self.call_timeout();
            let Some(producer) = self.producer.as_mut() else {
                return Ok(Ending::Unresolved);
            };
            match producer.abort_transaction(timeout).await {
                Ok(()) => return Ok(Ending::Aborted),
                Err(error) if error.class == ErrorClass::Retriable => {
                    self.observer.observe(&WorkerEvent::Retrying(&error));
                    self.clock.sleep(RETRY_PAUSE).await;
                }
                Err(error) => return self.abandon_producer(&error),
            }
        }
    }

    fn abandon_producer(&mut self, error: &KafkaError) -> Result<Ending, WorkerError> {
        if error.class == ErrorClass::Fenced {
            self.fenced_in_a_row += 1;
            if self.fenced_in_a_row > FENCES_IN_A_ROW_MAX {
                return Err(WorkerError::FencedRepeatedly(self.transactional_id()));
            }
        }
        self.observer.observe(&WorkerEvent::Retrying(error));
        self.producer = None;
        Ok(Ending::Unresolved)
    }

    /// The transaction itself. Retriable errors are retried with the same call and arguments; a
    /// commit is never followed by an abort because it timed out.
    async fn try_transact(
        &mut self,
        attempts: &[Attempt],
        group: &K::GroupMetadata,
    ) -> Result<(), KafkaError> {
        let timeout = self.call_timeout();
        let producer = self
            .producer
            .as_mut()
            .expect("a producer is there before a transaction begins");
        producer.begin_transaction()?;
        for attempt in attempts {
            let owned = &self.owned[&attempt.partition];
            for output in &owned.pending {
                producer
                    .send(producer_record(&self.config, owned, output))
                    .await?;
            }
        }
        let offsets: Vec<OffsetAndMetadata> = attempts
            .iter()
            .map(|attempt| OffsetAndMetadata {
                partition: attempt.partition,
                offset: attempt.offset,
                metadata: attempt.record.encode(),
            })
            .collect();
        loop {
            match producer
                .send_offsets_to_transaction(&offsets, group, timeout)
                .await
            {
                Err(error) if error.class == ErrorClass::Retriable => {
                    self.observer.observe(&WorkerEvent::Retrying(&error));
                    self.clock.sleep(RETRY_PAUSE).await;
                }
                done => break done?,
            }
        }
        loop {
            match producer.commit_transaction(timeout).await {
                Err(error) if error.class == ErrorClass::Retriable => {
                    self.observer.observe(&WorkerEvent::Retrying(&error));
                    self.clock.sleep(RETRY_PAUSE).await;
                }
                done => return done,
            }
        }
    }

    /// The outputs of these attempts are committed: they need not be kept.
    fn acknowledge(&mut self, attempts: Vec<Attempt>) -> Result<(), WorkerError> {
        self.fenced_in_a_row = 0;
        let mut outputs = 0;
        let mut resumed = Vec::new();
        let partitions = attempts.len();
        for attempt in attempts {
            let Some(owned) = self.owned.get_mut(&attempt.partition) else {
                continue;
            };
            outputs += owned.pending.len();
            owned.pending.clear();
            if let Some(snapshot) = &owned.snapshot
                && owned
                    .named
                    .back()
                    .is_none_or(|named| named.id != snapshot.id)
            {
                owned.named.push_back(snapshot.clone());
                while owned.named.len() > self.config.checkpoint.retain_count {
                    owned.named.pop_front();
                }
            }
            owned.acknowledged_at_unix_ms = attempt.began_unix_ms;
            owned.acknowledged = Some(Acknowledged {
                offset: attempt.offset,
                record: attempt.record,
            });
            if std::mem::take(&mut owned.held_back) {
                resumed.push(attempt.partition);
            }
        }
        if !resumed.is_empty() {
            self.consumer.resume(&resumed)?;
        }
        self.observer.observe(&WorkerEvent::Committed {
            partitions,
            outputs,
        });
        Ok(())
    }

    /// Finds out whether a transaction was committed. A new producer with the same transactional id
    /// first: its InitProducerId ends whatever is still open, so that the answer is final.
    async fn resolve(&mut self, attempts: Vec<Attempt>) -> Result<(), WorkerError> {
        self.replace_producer("the outcome of a transaction is unknown")
            .await?;
        let partitions: Vec<PartitionId> = attempts.iter().map(|a| a.partition).collect();
        let Some(committed) = self.committed(&partitions).await? else {
            // All of them are being taken away: their new owner reads the answer. Whatever it is, these
            // outputs must not be sent again by this one.
            self.owned
                .retain(|partition, _| !partitions.contains(partition));
            return Ok(());
        };
        let mut confirmed = Vec::new();
        let mut refuted = 0;
        for attempt in attempts {
            let found = committed
                .iter()
                .find(|(partition, _)| *partition == attempt.partition)
                .and_then(|(_, committed)| committed.as_ref());
            let owned = &self.owned[&attempt.partition];
            match compare(owned, &attempt, found) {
                Found::Committed => confirmed.push(attempt),
                Found::NotCommitted => refuted += 1,
                Found::Superseded => return Err(WorkerError::Superseded(attempt.partition)),
            }
        }
        // One transaction is all or nothing: a mixture can only mean that a stray EndTxn tore it.
        assert!(
            confirmed.is_empty() || refuted == 0,
            "a transaction was committed for {} partitions and not for {refuted}",
            confirmed.len()
        );
        let committed = refuted == 0;
        self.observer.observe(&WorkerEvent::Resolved { committed });
        if committed {
            self.acknowledge(confirmed)?;
        }
        Ok(())
    }

    pub(super) fn transactional_id(&self) -> String {
        format!(
            "{}-{}",
            self.config.kafka.group_id, self.config.worker.ordinal
        )
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

fn compare(owned: &OwnedPartition, attempt: &Attempt, found: Option<&CommittedOffset>) -> Found {
    let before = owned.acknowledged.as_ref();
    let Some(found) = found else {
        return match before {
            None => Found::NotCommitted,
            Some(_) => Found::Superseded,
        };
    };
    let Ok(record) = CommitRecord::decode(&found.metadata) else {
        return Found::Superseded;
    };
    if found.offset == attempt.offset && record == attempt.record {
        return Found::Committed;
    }
    match before {
        Some(before) if before.offset == found.offset && before.record == record => {
            Found::NotCommitted
        }
        _ => Found::Superseded,
    }
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
