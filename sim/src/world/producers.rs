//! The outside world that writes ticks to the input topic: one idempotent producer for most of the
//! workload, and a transactional one for each stream that wants it.

use super::workload::{self, Sending};
use super::{SimKafka, World};
use crate::client::WorkloadProducer;
use crate::draw::{below, draw_numbered, permille};
use crate::fabric::Fabric;
use crate::fabric::actor::{HostId, Micros};
use crate::kafka::protocol::LogTimeMs;
use crate::plan::{Machine, Stream};
use processor::io::{ErrorClass, Kafka, KafkaResult, ProducerRecord, TransactionalProducer};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Transactional ids of the outside world begin so.
pub(crate) const SOURCE: &str = "source";

/// Records that each producer has not handed over yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Unsent(Arc<Mutex<BTreeMap<String, usize>>>);

impl Unsent {
    fn set(&self, producer: &str, records: usize) {
        let mut unsent = self.0.lock().expect("one thread");
        unsent.insert(producer.to_owned(), records);
    }

    pub(super) fn total(&self) -> usize {
        self.0.lock().expect("one thread").values().sum()
    }
}

/// What every producer process has.
#[derive(Clone)]
struct Outside {
    fabric: Fabric,
    host: HostId,
    topic: String,
    start_unix_ms: i64,
    unsent: Unsent,
}

impl Outside {
    async fn sleep_until(&self, at_ms: u64) {
        let at = Micros::from_ms(at_ms);
        let now = self.fabric.now();
        if at > now {
            self.fabric.sleep(self.host, at.since(now)).await;
        }
    }

    fn timestamp(&self) -> LogTimeMs {
        let now_ms = i64::try_from(self.fabric.now().as_ms()).expect("worlds are short");
        LogTimeMs(self.start_unix_ms + now_ms)
    }
}

impl World {
    pub(super) fn start_producers(&mut self) {
        let host = self.host(Machine::Producer);
        let outside = Outside {
            fabric: self.fabric.clone(),
            host,
            topic: self.config.kafka.input_topic.clone(),
            start_unix_ms: self.plan.start_unix_ms,
            unsent: self.unsent.clone(),
        };
        let producer = WorkloadProducer::new(
            &self.fabric,
            host,
            self.directory.clone(),
            self.client_settings(),
            "workload",
        );
        let (seed, start) = (self.plan.seed, self.plan.start_unix_ms);
        let planned = workload::expand(&self.plan.workload, seed, start);
        let extra = self
            .records
            .take()
            .unwrap_or_else(|| Box::new(std::iter::empty()));
        let sendings = merge(planned.into_iter(), extra);
        self.start_program("producer", send_all(outside.clone(), producer, sendings));
        let plan = self.plan.clone();
        let streams = plan.workload.streams.iter();
        for stream in streams.filter(|stream| stream.transaction_events > 0) {
            let transactions = Transactions {
                outside: outside.clone(),
                kafka: self.kafka(host),
                id: format!("{SOURCE}-{}", stream.name),
                sendings: workload::expand_stream(stream, seed, start),
                stream: stream.clone(),
                seed,
            };
            self.start_program(&stream.name, transactions.run());
        }
    }

    fn start_program(&mut self, name: &str, program: impl Future<Output = ()> + Send + 'static) {
        let node = madsim::runtime::Handle::current()
            .create_node()
            .name(name)
            .build();
        let lifeline = self.fabric.lifeline();
        node.spawn(lifeline.follow(program));
        self.producers.push((lifeline, node));
    }

    /// At the end: a program that still waits would keep its world in memory for ever.
    pub(super) fn stop_producers(&mut self) {
        self.fabric.crash_host(self.host(Machine::Producer), true);
        for (lifeline, node) in self.producers.drain(..) {
            lifeline.cut();
            madsim::runtime::Handle::current().kill(node.id());
        }
    }
}

async fn send_all(
    outside: Outside,
    producer: WorkloadProducer,
    sendings: impl Iterator<Item = Sending>,
) {
    const LOOK_EVERY: Micros = Micros::from_ms(10_000);
    for sending in sendings {
        outside.sleep_until(sending.at_ms).await;
        let timestamp = outside.timestamp();
        producer.send(&outside.topic, sending.key, sending.value, timestamp);
        outside.unsent.set("workload", producer.outstanding());
    }
    loop {
        outside.unsent.set("workload", producer.outstanding());
        outside.fabric.sleep(outside.host, LOOK_EVERY).await;
    }
}

/// A stream that is sent in transactions, some of which its producer aborts.
struct Transactions {
    outside: Outside,
    kafka: SimKafka,
    id: String,
    sendings: Vec<Sending>,
    stream: Stream,
    seed: u64,
}

/// Longest time that the records of one transaction are spread over, milliseconds.
const SPREAD_MS_MAX: u64 = 2_000;

/// Cuts a stream into transactions of at most `events_max` records that are sent close together.
fn transactions_of(sendings: &[Sending], events_max: u64) -> Vec<&[Sending]> {
    let mut batches = Vec::new();
    let mut rest = sendings;
    while let Some(first) = rest.first() {
        let close = |sending: &&Sending| sending.at_ms - first.at_ms <= SPREAD_MS_MAX;
        let limit = usize::try_from(events_max).unwrap_or(usize::MAX);
        let count = rest.iter().take(limit).take_while(close).count();
        let (batch, after) = rest.split_at(count.max(1));
        batches.push(batch);
        rest = after;
    }
    batches
}

/// What a random choice of a transactional stream is about; beside those of the workload.
const ABOUT_ABORT: u64 = 1_000;
const ABOUT_OPEN_MS: u64 = 1_001;
/// One transaction in so many stays open for a while.
const OPEN_ONE_IN: u64 = 20;
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Micros = Micros::from_ms(500);

impl Transactions {
    async fn run(mut self) {
        let sendings = std::mem::take(&mut self.sendings);
        let mut unsent = sendings.len();
        let mut producer = None;
        let batches = transactions_of(&sendings, self.stream.transaction_events);
        for (number, batch) in batches.into_iter().enumerate() {
            self.outside.unsent.set(&self.id, unsent);
            // Again and again until it is decided: what may have been committed after all comes twice,
            // as from any source that retries.
            while !self.decide(&mut producer, number as u64, batch).await {
                self.outside.fabric.sleep(self.outside.host, PAUSE).await;
            }
            unsent -= batch.len();
        }
        self.outside.unsent.set(&self.id, unsent);
    }

    fn choose(&self, about: u64, number: u64) -> u64 {
        let who = xxhash_rust::xxh3::xxh3_64(self.id.as_bytes());
        draw_numbered(self.seed, who, about, number)
    }

    /// One attempt at a transaction: true when it was committed, or aborted on purpose.
    async fn decide(
        &mut self,
        producer: &mut Option<<SimKafka as Kafka>::Producer>,
        number: u64,
        batch: &[Sending],
    ) -> bool {
        let mut current = match producer.take() {
            Some(current) if !current.is_tainted() => current,
            _ => match self.initialised().await {
                Some(fresh) => fresh,
                None => return false,
            },
        };
        match self.attempt(&mut current, number, batch).await {
            Ok(()) => {
                *producer = Some(current);
                true
            }
            Err(_) => false, // the next attempt's producer ends what this one began
        }
    }

    async fn initialised(&mut self) -> Option<<SimKafka as Kafka>::Producer> {
        let mut producer = self.kafka.producer(&self.id).ok()?;
        producer.init_transactions(CALL_TIMEOUT).await.ok()?;
        Some(producer)
    }

    async fn attempt(
        &self,
        producer: &mut <SimKafka as Kafka>::Producer,
        number: u64,
        batch: &[Sending],
    ) -> KafkaResult<()> {
        producer.begin_transaction()?;
        for sending in batch {
            self.outside.sleep_until(sending.at_ms).await;
            let record = ProducerRecord {
                topic: self.outside.topic.clone(),
                partition: None,
                timestamp: self.outside.timestamp(),
                key: sending.key.clone(),
                value: sending.value.clone().unwrap_or_default(),
                headers: Vec::new(),
            };
            producer.send(record).await?;
        }
        let bits = self.choose(ABOUT_OPEN_MS, number);
        if bits.is_multiple_of(OPEN_ONE_IN) {
            let open = Micros::from_ms(below(bits, self.stream.open_ms_max + 1));
            self.outside.fabric.sleep(self.outside.host, open).await;
        }
        let aborts = permille(self.choose(ABOUT_ABORT, number), self.stream.abort_permille);
        loop {
            let ended = if aborts {
                producer.abort_transaction(CALL_TIMEOUT).await
            } else {
                producer.commit_transaction(CALL_TIMEOUT).await
            };
            match ended {
                Err(error) if error.class == ErrorClass::Retriable => {
                    self.outside.fabric.sleep(self.outside.host, PAUSE).await;
                }
                ended => return ended,
            }
        }
    }
}

/// Two sequences, each sorted by time, as one; the first goes first at equal times.
fn merge(
    first: impl Iterator<Item = Sending>,
    second: impl Iterator<Item = Sending>,
) -> impl Iterator<Item = Sending> {
    let mut first = first.peekable();
    let mut second = second.peekable();
    std::iter::from_fn(move || match (first.peek(), second.peek()) {
        (Some(a), Some(b)) if a.at_ms <= b.at_ms => first.next(),
        (Some(_), None) => first.next(),
        _ => second.next(),
    })
}
