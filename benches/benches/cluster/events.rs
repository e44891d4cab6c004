//! The load: events of a fixed shape, about 130 bytes each.

use anyhow::Context;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TICKERS: [&str; 4] = ["AMZN", "AAPL", "MSFT", "GOOGL"];

/// One event of the load.
pub struct Event {
    /// Unique within a topic.
    pub number: u64,
    /// Event time, Unix milliseconds.
    pub at_ms: i64,
}

impl Event {
    pub fn ticker(&self) -> &'static str {
        TICKERS[self.number as usize % TICKERS.len()]
    }

    fn json(&self) -> String {
        format!(
            "{{\"event_id\":\"bench-{:010}\",\"ticker\":\"{}\",\"price\":{}.{:02},\"volume\":{},\"timestamp\":{}.{:03},\"source\":\"bench\"}}",
            self.number,
            self.ticker(),
            100 + self.number % 400,
            self.number % 100,
            1 + self.number % 500,
            self.at_ms / 1_000,
            self.at_ms % 1_000,
        )
    }
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// An idempotent producer of the load.
pub struct Loader {
    producer: BaseProducer,
    topic: String,
}

impl Loader {
    /// # Errors
    /// When the client cannot be made.
    pub fn new(bootstrap_servers: &str, topic: &str) -> anyhow::Result<Loader> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap_servers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .set("queue.buffering.max.messages", "200000")
            .create()
            .context("cannot make a producer")?;
        Ok(Loader {
            producer,
            topic: topic.to_owned(),
        })
    }

    /// Queues an event for a partition; waits while the queue is full.
    ///
    /// # Errors
    /// When the client refuses it.
    pub fn send(&self, event: &Event, partition: i32) -> anyhow::Result<()> {
        let value = event.json();
        let record = BaseRecord::to(&self.topic)
            .key(event.ticker())
            .payload(&value);
        let mut record = record.partition(partition);
        while let Err((error, back)) = self.producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error).context("cannot send an event");
            }
            self.producer.poll(Duration::from_millis(10));
            record = back;
        }
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    /// Waits until all that was queued is in the log.
    ///
    /// # Errors
    /// When it is not within a minute.
    pub fn flush(&self) -> anyhow::Result<()> {
        let done = self.producer.flush(Duration::from_secs(60));
        done.context("the cluster does not take the load")
    }
}
