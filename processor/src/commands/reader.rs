//! Reads what a topic holds now, and then ends: committed records only, outside of any group.

use anyhow::{Context, anyhow, bail};
use processor::adapters::kafka::{Role, client_config};
use processor::config::KafkaConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(200);

/// A record of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    /// Unix milliseconds.
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Part of a partition: from an offset to before another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: i64,
    pub to: i64,
}

/// Reads spans of a topic's partitions.
pub struct TopicReader {
    consumer: BaseConsumer,
    topic: String,
    patience: Duration,
    /// Where each partition that is not read yet ends.
    ends: BTreeMap<i32, i64>,
}

impl TopicReader {
    /// A reader of `topic` that has nothing to read yet.
    ///
    /// # Errors
    /// When the configuration does not make a client.
    pub fn new(config: &KafkaConfig, topic: &str) -> anyhow::Result<TopicReader> {
        Ok(TopicReader {
            consumer: client_config(config, Role::Reader)?.create()?,
            topic: topic.to_owned(),
            patience: Duration::from_millis(config.request_timeout_ms),
            ends: BTreeMap::new(),
        })
    }

    /// Its topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What each partition holds now: up to the last stable offset.
    ///
    /// # Errors
    /// When there is no such topic, or no broker answers.
    pub fn whole(&self) -> anyhow::Result<BTreeMap<i32, Span>> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(&self.topic), self.patience)
            .with_context(|| format!("topic {}: no broker answers", self.topic))?;
        let partitions = metadata
            .topics()
            .first()
            .map_or(&[][..], |t| t.partitions());
        if partitions.is_empty() {
            bail!(
                "there is no topic {}: `processor topics create` makes it",
                self.topic
            );
        }
        let mut spans = BTreeMap::new();
        for partition in partitions {
            let partition = partition.id();
            spans.insert(partition, self.whole_partition(partition)?);
        }
        Ok(spans)
    }

    /// What one partition holds now.
    ///
    /// # Errors
    /// When its leader does not answer.
    pub fn whole_partition(&self, partition: i32) -> anyhow::Result<Span> {
        let (from, to) = self
            .consumer
            .fetch_watermarks(&self.topic, partition, self.patience)
            .with_context(|| format!("topic {} partition {partition}", self.topic))?;
        Ok(Span { from, to })
    }

    /// The spans without what is before the first record of `timestamp_ms` or later.
    ///
    /// # Errors
    /// When the leaders do not answer.
    pub fn since(
        &self,
        mut spans: BTreeMap<i32, Span>,
        timestamp_ms: i64,
    ) -> anyhow::Result<BTreeMap<i32, Span>> {
        let mut times = TopicPartitionList::new();
        for &partition in spans.keys() {
            times.add_partition_offset(&self.topic, partition, Offset::Offset(timestamp_ms))?;
        }
        let found = self.consumer.offsets_for_times(times, self.patience)?;
        for element in found.elements() {
            if let Some(span) = spans.get_mut(&element.partition()) {
                span.from = match element.offset() {
                    Offset::Offset(offset) => offset.max(span.from),
                    _ => span.to, // nothing is as new
                };
            }
        }
        Ok(spans)
    }

    /// Goes to the beginning of these spans; [`TopicReader::next`] reads them.
    ///
    /// # Errors
    /// When the client refuses.
    pub fn start(&mut self, spans: &BTreeMap<i32, Span>) -> anyhow::Result<()> {
        let mut assignment = TopicPartitionList::new();
        self.ends.clear();
        for (&partition, span) in spans {
            if span.from < span.to {
                let from = Offset::Offset(span.from);
                assignment.add_partition_offset(&self.topic, partition, from)?;
                self.ends.insert(partition, span.to);
            }
        }
        self.consumer.assign(&assignment)?;
        Ok(())
    }

    /// The next record, in the order of offsets within a partition; `None` at the end.
    ///
    /// # Errors
    /// When a record cannot be read, or none comes for the configured request timeout.
    pub fn next(&mut self) -> anyhow::Result<Option<Record>> {
        let began = Instant::now();
        while !self.ends.is_empty() {
            match self.consumer.poll(STEP) {
                Some(Ok(message)) => {
                    let Some(&end) = self.ends.get(&message.partition()) else {
                        continue; // beyond the end of its span
                    };
                    if message.offset() + 1 >= end {
                        self.ends.remove(&message.partition());
                    }
                    if message.offset() < end {
                        return Ok(Some(record(&message)));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.ends.remove(&partition);
                }
                // Connections come back by themselves.
                Some(Err(KafkaError::MessageConsumption(code)))
                    if began.elapsed() < self.patience =>
                {
                    tracing::debug!(%code, "reading goes on");
                }
                Some(Err(error)) => return Err(error).context(self.topic.clone()),
                None if began.elapsed() < self.patience => {}
                None => {
                    return Err(anyhow!(
                        "topic {}: no record for {} ms, though more are there; are the brokers up?",
                        self.topic,
                        self.patience.as_millis()
                    ));
                }
            }
        }
        Ok(None)
    }

    /// The record at one offset; `None` if there is none (any more).
    ///
    /// # Errors
    /// As for [`TopicReader::next`].
    pub fn at(&mut self, partition: i32, offset: i64) -> anyhow::Result<Option<Record>> {
        let whole = self.whole_partition(partition)?;
        if !(whole.from..whole.to).contains(&offset) {
            return Ok(None);
        }
        let to = offset + 1;
        self.start(&BTreeMap::from([(partition, Span { from: offset, to })]))?;
        self.next()
    }
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers
            .map(|header| {
                (
                    header.key.to_owned(),
                    header.value.unwrap_or_default().to_vec(),
                )
            })
            .collect(),
    }
}
