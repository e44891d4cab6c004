//! Sends batches of replays, each in a transaction of a producer of its own.

use super::ledger::{Entry, Ledger};
use super::letter::{Letter, Original, Place};
use crate::commands::reader::TopicReader;
use crate::commands::requirements::replays_topic;
use anyhow::{Context, anyhow};
use processor::adapters::kafka::{Role, client_config};
use processor::config::ProcessorConfig;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Transactions that fail in a row before it is given up.
const FAILURES_MAX: u32 = 5;
/// Calls of one commit, as long as the client says that it may be made again.
const COMMIT_CALLS_MAX: u32 = 10;

/// A dead letter on its way back.
#[derive(Debug, Clone)]
pub struct Replay {
    pub letter: Letter,
    pub original: Original,
    /// How often its event has been replayed, with this one.
    pub attempt: u32,
}

/// What became of a batch.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub replayed: u64,
    /// By somebody else, meanwhile.
    pub replayed_before: u64,
}

/// Why a transaction did not succeed.
enum Failure {
    /// Another replay has begun.
    Fenced,
    /// It may be tried again: whether it was committed is in the ledger.
    Again(anyhow::Error),
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Failure {
        let code = error.rdkafka_error_code();
        let is_fenced = matches!(
            code,
            Some(
                RDKafkaErrorCode::Fenced
                    | RDKafkaErrorCode::ProducerFenced
                    | RDKafkaErrorCode::InvalidProducerEpoch
            )
        );
        if is_fenced {
            return Failure::Fenced;
        }
        Failure::Again(error.into())
    }
}

/// Sends replays.
pub struct Replayer<'a> {
    config: &'a ProcessorConfig,
    ledger_topic: String,
    ledger_reader: TopicReader,
}

impl<'a> Replayer<'a> {
    /// One that has contacted nobody yet.
    ///
    /// # Errors
    /// When the configuration does not make a client.
    pub fn new(config: &'a ProcessorConfig) -> anyhow::Result<Replayer<'a>> {
        let ledger_topic = replays_topic(config);
        Ok(Replayer {
            config,
            ledger_reader: TopicReader::new(&config.kafka, &ledger_topic)?,
            ledger_topic,
        })
    }

    /// Replays what of a batch is not in the ledger, which is brought up to date.
    ///
    /// # Errors
    /// When another replay has begun, or transactions fail again and again.
    pub fn replay(&mut self, batch: Vec<Replay>, ledger: &mut Ledger) -> anyhow::Result<Counts> {
        let mut counts = Counts::default();
        let mut left = batch;
        let mut was_tried = false;
        for failures in 0.. {
            let producer = self.producer()?;
            ledger.catch_up(&mut self.ledger_reader)?;
            let before = left.len();
            let mut open = Vec::with_capacity(before);
            for replay in left {
                if ledger.replay_of(&replay.letter)?.is_none() {
                    open.push(replay);
                }
            }
            left = open;
            let done = (before - left.len()) as u64;
            // What a failed try has committed after all is its own.
            if was_tried {
                counts.replayed += done;
            } else {
                counts.replayed_before += done;
            }
            if left.is_empty() {
                break;
            }
            was_tried = true;
            match self.transact(&producer, &left) {
                Ok(()) => {
                    counts.replayed += left.len() as u64;
                    break;
                }
                Err(Failure::Fenced) => {
                    return Err(anyhow!(
                        "another `processor dlq replay` of group {} has begun: wait until it has ended",
                        self.config.kafka.group_id
                    ));
                }
                Err(Failure::Again(error)) if failures + 1 >= FAILURES_MAX => {
                    return Err(error.context(
                        "transactions fail again and again; `processor check` tells what is wrong",
                    ));
                }
                Err(Failure::Again(error)) => {
                    tracing::warn!(error = %format!("{error:#}"), "trying again")
                }
            }
        }
        Ok(counts)
    }

    /// A producer whose predecessors are fenced, and their transactions ended.
    fn producer(&self) -> anyhow::Result<ThreadedProducer<Deliveries>> {
        let kafka = &self.config.kafka;
        let id = format!("{}-dlq-replay", kafka.group_id);
        let role = Role::TransactionalProducer {
            transactional_id: &id,
        };
        let producer: ThreadedProducer<Deliveries> =
            client_config(kafka, role)?.create_with_context(Deliveries::default())?;
        // An open transaction of a killed predecessor is aborted first; that takes a moment.
        for call in 1.. {
            match producer.init_transactions(self.timeout()) {
                Ok(()) => break,
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && call < FAILURES_MAX => {}
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("transactional.id {id}: is it allowed to write, and is the cluster healthy?")
                    });
                }
            }
        }
        Ok(producer)
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.config.kafka.request_timeout_ms)
    }

    /// One transaction: first the records, because the ledger tells where they are, then the ledger.
    fn transact(
        &self,
        producer: &ThreadedProducer<Deliveries>,
        batch: &[Replay],
    ) -> Result<(), Failure> {
        producer.begin_transaction()?;
        for (index, replay) in batch.iter().enumerate() {
            self.send_record(producer, index, replay)?;
        }
        producer.flush(self.timeout())?;
        let places = producer.context().take(batch.len())?;
        for (replay, place) in batch.iter().zip(places) {
            let (key, value) = Entry::new(&replay.letter, replay.attempt, place).record();
            let record = BaseRecord::with_opaque_to(&self.ledger_topic, Box::new(usize::MAX))
                .partition(0)
                .key(&key)
                .payload(&value);
            send(producer, record)?;
        }
        for call in 1.. {
            match producer.commit_transaction(self.timeout()) {
                Ok(()) => break,
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && call < COMMIT_CALLS_MAX => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn send_record(
        &self,
        producer: &ThreadedProducer<Deliveries>,
        index: usize,
        replay: &Replay,
    ) -> Result<(), Failure> {
        let kafka = &self.config.kafka;
        let attempt = replay.attempt.to_string();
        let place = replay.letter.place;
        let from = format!(
            "{}/{}/{}",
            kafka.dead_letter_topic, place.partition, place.offset
        );
        let headers = [("replay-attempt", &attempt), ("replayed-from", &from)];
        let none = OwnedHeaders::new_with_capacity(headers.len());
        let headers = headers.into_iter().fold(none, |all, (key, value)| {
            all.insert(Header {
                key,
                value: Some(value),
            })
        });
        let mut record = BaseRecord::<[u8], [u8], Box<usize>>::with_opaque_to(
            &kafka.input_topic,
            Box::new(index),
        )
        .partition(replay.letter.source().partition)
        .headers(headers);
        record.key = replay.original.key.as_deref();
        record.payload = replay.original.value.as_deref();
        send(producer, record)
    }
}

/// Queues a record; waits while the queue is full.
fn send<K, P>(
    producer: &ThreadedProducer<Deliveries>,
    mut record: BaseRecord<'_, K, P, Box<usize>>,
) -> Result<(), Failure>
where
    K: rdkafka::message::ToBytes + ?Sized,
    P: rdkafka::message::ToBytes + ?Sized,
{
    const PAUSE: Duration = Duration::from_millis(50);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                record = again;
                std::thread::sleep(PAUSE);
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// Where the replayed records have come to lie, by their index in the batch.
#[derive(Default)]
struct Deliveries(Mutex<BTreeMap<usize, Result<Place, KafkaError>>>);

impl Deliveries {
    fn all(&self) -> MutexGuard<'_, BTreeMap<usize, Result<Place, KafkaError>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The places of `count` records, all of which must have been delivered.
    fn take(&self, count: usize) -> Result<Vec<Place>, Failure> {
        let mut all = std::mem::take(&mut *self.all());
        (0..count)
            .map(|index| match all.remove(&index) {
                Some(Ok(place)) => Ok(place),
                Some(Err(error)) => Err(error.into()),
                None => Err(Failure::Again(anyhow!("a record was not acknowledged"))),
            })
            .collect()
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        let told = match result {
            Ok(message) => Ok(Place {
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err((error, _)) => Err(error.clone()),
        };
        self.all().insert(*index, told);
    }
}
