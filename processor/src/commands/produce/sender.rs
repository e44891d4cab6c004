//! An idempotent producer that counts what became of its records.

use super::event::Outgoing;
use anyhow::anyhow;
use processor::adapters::kafka::{Role, client_config};
use processor::config::KafkaConfig;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Records between two looks at acknowledgements.
const SERVE_EVERY: u64 = 1_000;
/// One step of a wait, so that signals are noticed.
const STEP: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
struct Deliveries {
    delivered: AtomicU64,
    first_error: Mutex<Option<String>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                let mut first = self
                    .first_error
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// Sends to the input topic.
pub struct Sender {
    producer: BaseProducer<Deliveries>,
    topic: String,
    sent: u64,
}

impl Sender {
    /// A producer that has contacted nobody yet.
    ///
    /// # Errors
    /// When the configuration does not make a client.
    pub fn new(config: &KafkaConfig) -> anyhow::Result<Sender> {
        let mut client = client_config(config, Role::Producer)?;
        if !config.properties.contains_key("linger.ms") {
            // Larger batches; nobody waits for a single record here.
            client.set("linger.ms", "20");
        }
        Ok(Sender {
            producer: client.create_with_context(Deliveries::default())?,
            topic: config.input_topic.clone(),
            sent: 0,
        })
    }

    /// Queues a record; waits while the queue is full.
    ///
    /// # Errors
    /// When the client refuses the record or is unusable.
    pub fn send(&mut self, record: &Outgoing) -> anyhow::Result<()> {
        self.sent += 1;
        if self.sent.is_multiple_of(SERVE_EVERY) {
            self.serve(Duration::ZERO);
        }
        let mut outgoing = BaseRecord::<[u8], [u8]>::to(&self.topic);
        outgoing.key = record.key.as_deref();
        outgoing.payload = record.value.as_deref();
        outgoing.timestamp = record.timestamp_ms;
        if !record.headers.is_empty() {
            let none = OwnedHeaders::new_with_capacity(record.headers.len());
            let headers = record.headers.iter().fold(none, |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(value),
                })
            });
            outgoing.headers = Some(headers);
        }
        loop {
            match self.producer.send(outgoing) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    outgoing = again;
                    self.serve(STEP);
                }
                Err((error, _)) => {
                    return Err(anyhow!(
                        "topic {}: record {}: {error}",
                        self.topic,
                        self.sent
                    ));
                }
            }
        }
    }

    /// Takes acknowledgements for at most `timeout`.
    pub fn serve(&self, timeout: Duration) {
        self.producer.poll(timeout);
    }

    /// Waits until every record is acknowledged or given up.
    pub fn flush(&self) {
        while self.producer.in_flight_count() > 0 {
            // It ends: the client gives every record up after its delivery timeout.
            let _ = self.producer.flush(STEP);
        }
    }

    /// Records that are acknowledged.
    pub fn delivered(&self) -> u64 {
        self.producer.context().delivered.load(Ordering::Relaxed)
    }

    /// Why the first record that was given up was.
    pub fn first_error(&self) -> Option<String> {
        let first = &self.producer.context().first_error;
        let first = first.lock().unwrap_or_else(PoisonError::into_inner);
        first.clone()
    }
}
