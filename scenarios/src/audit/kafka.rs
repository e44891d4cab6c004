//! A real Kafka cluster, by librdkafka.
//!
//! Comes in: the processor's `[kafka]`. Goes out: [`KafkaCluster`], which reads and never writes.
//! Never here: what the records mean.

use super::{AuditError, Cluster, Extent, Topic};
use bytes::Bytes;
use processor::adapters::clock::SystemClock;
use processor::adapters::kafka::{ProtectedProperty, RdKafka, Role, client_config};
use processor::config::KafkaConfig;
use processor::io::{Clock, Consumer as _, Kafka as _, KafkaError as CallError, TopicPartition};
use processor::units::PartitionId;
use properties::history::{CommittedOffset, TopicRecord};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Longest wait of one poll.
const POLL: Duration = Duration::from_secs(1);

/// Between two looks at a transaction that is open.
const OPEN_PAUSE: Duration = Duration::from_millis(100);

/// How long after its timeout a transaction may stay open: the broker looks every 10 seconds.
const OPEN_AFTER: Duration = Duration::from_secs(20);

/// Memory for records that are fetched ahead, KiB. Of the same size as one fetch.
const FETCHED_KIB_MAX: &str = "16384";

/// A cluster to audit.
pub struct KafkaCluster {
    config: KafkaConfig,
    /// Sees what is committed.
    reader: BaseConsumer,
    /// Sees how far the logs are written; reads no records.
    surveyor: BaseConsumer,
    clock: SystemClock,
}

impl KafkaCluster {
    /// Makes the clients; contacts nobody yet.
    ///
    /// # Errors
    /// When the configuration has no use as a client's.
    pub fn new(config: &KafkaConfig) -> anyhow::Result<Self> {
        let mut reading = client_config(config, Role::Reader)?;
        reading.set("queued.max.messages.kbytes", FETCHED_KIB_MAX);
        // By default a full queue stops the fetching for a second, though it is empty much sooner.
        reading.set("fetch.queue.backoff.ms", "2");
        // At the end of a log there is nothing to wait for.
        reading.set("fetch.wait.max.ms", "20");
        let mut surveying = client_config(config, Role::Reader)?;
        surveying.set("isolation.level", "read_uncommitted");
        Ok(Self {
            config: config.clone(),
            reader: reading.create()?,
            surveyor: surveying.create()?,
            clock: SystemClock::new(),
        })
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.config.request_timeout_ms)
    }

    /// Name of a topic, and the key that gives it.
    fn topic(&self, topic: Topic) -> (&str, &'static str) {
        match topic {
            Topic::Input => (&self.config.input_topic, "kafka.input_topic"),
            Topic::Output => (&self.config.output_topic, "kafka.output_topic"),
            Topic::DeadLetters => (&self.config.dead_letter_topic, "kafka.dead_letter_topic"),
        }
    }

    fn error(&self, call: impl Into<String>, why: &impl ToString) -> AuditError {
        AuditError::Cluster {
            call: call.into(),
            why: why.to_string(),
            servers: self.config.bootstrap_servers.clone(),
        }
    }

    fn partitions(&self, topic: Topic) -> Result<i32, AuditError> {
        let (name, key) = self.topic(topic);
        let no_topic = || AuditError::NoTopic {
            topic: name.to_owned(),
            key,
        };
        let call = format!("metadata of topic `{name}`");
        let metadata = match self.reader.fetch_metadata(Some(name), self.timeout()) {
            Ok(metadata) => metadata,
            Err(e) if is_unknown_topic(e.rdkafka_error_code()) => return Err(no_topic()),
            Err(e) => return Err(self.error(call, &e)),
        };
        let found = metadata.topics().iter().find(|one| one.name() == name);
        let found = found.ok_or_else(no_topic)?;
        match found.error().map(RDKafkaErrorCode::from) {
            None => {}
            code if is_unknown_topic(code) => return Err(no_topic()),
            Some(code) => return Err(self.error(call, &code)),
        }
        Ok(i32::try_from(found.partitions().len()).unwrap_or(i32::MAX))
    }

    /// First offset and end of a log, as this client sees it.
    fn bounds(
        &self,
        client: &BaseConsumer,
        topic: Topic,
        partition: i32,
    ) -> Result<(i64, i64), AuditError> {
        let (name, _) = self.topic(topic);
        let bounds = client.fetch_watermarks(name, partition, self.timeout());
        bounds.map_err(|e| self.error(format!("bounds of {name} partition {partition}"), &e))
    }

    fn extent(
        &self,
        topic: Topic,
        partition: i32,
        open_until: Duration,
    ) -> Result<Extent, AuditError> {
        let (_, written_end) = self.bounds(&self.surveyor, topic, partition)?;
        loop {
            let (start, stable_end) = self.bounds(&self.reader, topic, partition)?;
            if stable_end >= written_end || self.clock.monotonic() >= open_until {
                return Ok(Extent {
                    start,
                    stable_end,
                    written_end,
                });
            }
            pause();
        }
    }

    fn read_assigned(
        &self,
        topic: Topic,
        partition: i32,
        extent: Extent,
        each: &mut dyn FnMut(&TopicRecord) -> io::Result<()>,
    ) -> Result<(), AuditError> {
        let (name, _) = self.topic(topic);
        let call = || format!("reading {name} partition {partition}");
        let mut heard = self.clock.monotonic();
        let mut trouble = "nothing came".to_owned();
        loop {
            match self.reader.poll(POLL) {
                Some(Ok(message)) => {
                    heard = self.clock.monotonic();
                    if message.offset() >= extent.stable_end {
                        return Ok(());
                    }
                    each(&record(topic, &message))?;
                    if message.offset() + 1 >= extent.stable_end {
                        return Ok(());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    // A new leader may not know yet how far the log is stable.
                    let (_, stable_end) = self.bounds(&self.reader, topic, partition)?;
                    if stable_end >= extent.stable_end {
                        return Ok(());
                    }
                    let why = format!(
                        "it ends at {stable_end}, and ended at {} when the audit began: its leader \
                         has changed; audit again",
                        extent.stable_end
                    );
                    return Err(self.error(call(), &why));
                }
                Some(Err(e)) if is_gone(&e) => {
                    return Err(AuditError::Removed {
                        topic: name.to_owned(),
                        partition,
                        offset: extent.start,
                    });
                }
                Some(Err(e)) => trouble = e.to_string(),
                None => {}
            }
            if self.clock.monotonic() >= heard + self.timeout() {
                let seconds = self.timeout().as_secs();
                return Err(self.error(call(), &format!("{trouble}, for {seconds} seconds")));
            }
        }
    }
}

impl Cluster for KafkaCluster {
    fn now_ms(&self) -> i64 {
        self.clock.unix_ms()
    }

    fn committed(&mut self) -> Result<Vec<CommittedOffset>, AuditError> {
        let partitions: Vec<TopicPartition> = (0..self.partitions(Topic::Input)?)
            .map(|partition| TopicPartition {
                topic: self.config.input_topic.clone(),
                partition: PartitionId(partition),
            })
            .collect();
        let unusable = |e: ProtectedProperty| self.error("client", &e);
        let failed = |e: CallError| self.error("committed offsets", &e);
        let mut kafka = RdKafka::new(&self.config).map_err(unusable)?;
        let mut member = kafka.consumer(&self.config.group_id).map_err(failed)?;
        let committed = completed(member.committed(&partitions, self.timeout()));
        let committed = (0..).zip(committed.map_err(failed)?);
        Ok(committed
            .filter_map(|(partition, committed)| {
                let committed = committed?;
                Some(CommittedOffset {
                    partition,
                    offset: committed.offset.0,
                    metadata: committed.metadata,
                })
            })
            .collect())
    }

    fn extents(&mut self, topic: Topic) -> Result<Vec<Extent>, AuditError> {
        let partitions = self.partitions(topic)?;
        let patience = if topic == Topic::Input {
            // Open transactions of its producers are none of the processor's.
            Duration::ZERO
        } else {
            Duration::from_millis(self.config.transaction_timeout_ms) + OPEN_AFTER
        };
        let open_until = self.clock.monotonic() + patience;
        (0..partitions)
            .map(|partition| self.extent(topic, partition, open_until))
            .collect()
    }

    fn read(
        &mut self,
        topic: Topic,
        partition: i32,
        extent: Extent,
        each: &mut dyn FnMut(&TopicRecord) -> io::Result<()>,
    ) -> Result<(), AuditError> {
        if extent.start >= extent.stable_end {
            return Ok(());
        }
        let (name, _) = self.topic(topic);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(name, partition, Offset::Offset(extent.start))
            .and_then(|()| self.reader.assign(&list))
            .map_err(|e| self.error(format!("assign {name} partition {partition}"), &e))?;
        let read = self.read_assigned(topic, partition, extent, each);
        self.reader
            .unassign()
            .map_err(|e| self.error(format!("unassign {name} partition {partition}"), &e))?;
        read
    }
}

/// A record as the checkers take it; headers of the input mean nothing to them.
fn record(topic: Topic, message: &BorrowedMessage<'_>) -> TopicRecord {
    let headers = message.headers().filter(|_| topic != Topic::Input);
    let header = |header: rdkafka::message::Header<'_, &[u8]>| {
        let value = header.value.unwrap_or_default();
        (header.key.to_owned(), Bytes::copy_from_slice(value))
    };
    TopicRecord {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers: headers.map_or_else(Vec::new, |headers| headers.iter().map(header).collect()),
    }
}

fn is_unknown_topic(code: Option<RDKafkaErrorCode>) -> bool {
    let unknown = [
        RDKafkaErrorCode::UnknownTopic,
        RDKafkaErrorCode::UnknownTopicOrPartition,
    ];
    code.is_some_and(|code| unknown.contains(&code))
}

/// With the reset policy `error`: the position is not in the log any more.
fn is_gone(e: &KafkaError) -> bool {
    let gone = [
        RDKafkaErrorCode::AutoOffsetReset,
        RDKafkaErrorCode::OffsetOutOfRange,
    ];
    e.rdkafka_error_code()
        .is_some_and(|code| gone.contains(&code))
}

/// The outcome of a call of the adapter, which waits inside.
fn completed<F: Future>(call: F) -> F::Output {
    let mut call = pin!(call);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(outcome) = call.as_mut().poll(&mut context) {
            return outcome;
        }
        pause();
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "an audit runs outside of every simulation and waits for a real cluster"
)]
fn pause() {
    std::thread::sleep(OPEN_PAUSE);
}
