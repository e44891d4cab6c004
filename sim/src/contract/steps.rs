//! What behaviours do with the processor's traits: producers that write, members that poll, and what
//! an application sees.

use super::wire::{ROUND, ROUNDS_MAX, Wire, text};
use super::{ClientOptions, ClusterUnderTest, Failure, Topic, TopicSpec};
use bytes::Bytes;
use processor::io::{
    CommittedOffset, ConsumedRecord, Consumer, ErrorClass, Kafka, KafkaError, KafkaResult,
    OffsetAndMetadata, OffsetBounds, Polled, ProducerRecord, TopicPartition, TransactionalProducer,
};
use processor::units::{LogTimeMs, Offset, PartitionId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// For calls that succeed.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How often a call is made again that may be made again.
const TRIES_MAX: u32 = 3;
/// Timestamp of every record here.
pub(super) const TIMESTAMP: LogTimeMs = LogTimeMs(1_700_000_000_123);

/// Consumer, producer and member identity of a cluster's clients.
pub(super) type ConsumerOf<C> = <<C as ClusterUnderTest>::Kafka as Kafka>::Consumer;
pub(super) type ProducerOf<C> = <<C as ClusterUnderTest>::Kafka as Kafka>::Producer;
pub(super) type GroupOf<C> = <<C as ClusterUnderTest>::Kafka as Kafka>::GroupMetadata;

/// A topic of `partitions` partitions.
pub(super) async fn topic<C: ClusterUnderTest>(
    c: &mut C,
    partitions: u32,
) -> Result<Topic, Failure> {
    let spec = TopicSpec {
        partitions,
        min_insync_replicas: 2,
        may_grow: false,
    };
    c.create_topic(spec).await
}

/// Partition of a topic, as the processor names it.
pub(super) fn partition(topic: &Topic, number: i32) -> TopicPartition {
    TopicPartition {
        topic: topic.name.clone(),
        partition: PartitionId(number),
    }
}

/// A record for a partition.
pub(super) fn output(topic: &Topic, number: i32, value: &str) -> ProducerRecord {
    ProducerRecord {
        topic: topic.name.clone(),
        partition: Some(PartitionId(number)),
        timestamp: TIMESTAMP,
        key: None,
        value: Bytes::copy_from_slice(value.as_bytes()),
        headers: Vec::new(),
    }
}

/// An offset to commit.
pub(super) fn commit(tp: TopicPartition, offset: i64, metadata: &str) -> OffsetAndMetadata {
    OffsetAndMetadata {
        tp,
        offset: Offset(offset),
        metadata: metadata.into(),
    }
}

/// An offset as it is expected to come back.
pub(super) fn committed(offset: i64, metadata: &str) -> Option<CommittedOffset> {
    Some(CommittedOffset {
        offset: Offset(offset),
        metadata: metadata.into(),
    })
}

/// A producer that has initialised.
pub(super) async fn producer<C: ClusterUnderTest>(
    c: &mut C,
    transactional_id: &str,
) -> Result<ProducerOf<C>, Failure> {
    producer_with(c, transactional_id, &ClientOptions::default()).await
}

/// As [`producer`], with options.
pub(super) async fn producer_with<C: ClusterUnderTest>(
    c: &mut C,
    transactional_id: &str,
    options: &ClientOptions,
) -> Result<ProducerOf<C>, Failure> {
    let mut producer = c.kafka(options)?.producer(transactional_id)?;
    insist(async || producer.init_transactions(PATIENCE).await).await?;
    Ok(producer)
}

fn may_be_repeated(error: &KafkaError, tries: u32) -> bool {
    error.class == ErrorClass::Retriable && tries < TRIES_MAX
}

/// Makes a call again while it may be made again.
pub(super) async fn insist(mut call: impl AsyncFnMut() -> KafkaResult<()>) -> KafkaResult<()> {
    let mut tries = 0;
    loop {
        match call().await {
            Err(error) if may_be_repeated(&error, tries) => tries += 1,
            other => return other,
        }
    }
}

/// Begins a transaction and queues records.
pub(super) async fn begin<P: TransactionalProducer>(
    producer: &mut P,
    records: Vec<ProducerRecord>,
) -> Result<(), Failure> {
    producer.begin_transaction()?;
    for record in records {
        producer.send(record).await?;
    }
    Ok(())
}

/// Commits, however often it has to be asked.
pub(super) async fn commit_now<P: TransactionalProducer>(producer: &mut P) -> Result<(), Failure> {
    Ok(insist(async || producer.commit_transaction(PATIENCE).await).await?)
}

/// Aborts, however often it has to be asked.
pub(super) async fn abort_now<P: TransactionalProducer>(producer: &mut P) -> Result<(), Failure> {
    Ok(insist(async || producer.abort_transaction(PATIENCE).await).await?)
}

/// One committed transaction of records of one partition.
pub(super) async fn transact<P: TransactionalProducer>(
    producer: &mut P,
    topic: &Topic,
    number: i32,
    values: &[&str],
) -> Result<(), Failure> {
    let records = values.iter().map(|value| output(topic, number, value));
    begin(producer, records.collect()).await?;
    commit_now(producer).await
}

/// Waits until the log of a partition is at least so long (records of open transactions count).
pub(super) async fn written<C: ClusterUnderTest>(
    c: &mut C,
    topic: &Topic,
    number: i32,
    length: i64,
) -> Result<(), Failure> {
    let tp = super::wire::tp(topic, number);
    let mut rounds = 0;
    loop {
        let ends = c.ends(tp).await?;
        if ends.high_watermark >= length {
            return Ok(());
        }
        rounds += 1;
        if rounds > ROUNDS_MAX {
            let name = &topic.name;
            return Err(Failure(format!(
                "partition {number} of {name} never reached offset {length}: {ends:?}"
            )));
        }
        c.wait(ROUND).await;
    }
}

/// A class of error that is expected.
pub(super) fn class_of(
    call: &str,
    result: KafkaResult<()>,
    expected: ErrorClass,
) -> Result<String, Failure> {
    match result {
        Err(error) if error.class == expected => Ok(error.code),
        other => Err(Failure(format!("{call}: {other:?}, expected {expected:?}"))),
    }
}

/// What a member heard of its group, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    Assigned(Vec<PartitionId>),
    Revoked(Vec<PartitionId>),
    Lost(Vec<PartitionId>),
}

/// Where a member starts partitions that it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// At the committed offset; without one at the log start.
    Committed,
    /// At the log start.
    Earliest,
    /// It accepts, and the behaviour does the rest.
    Nowhere,
}

/// A member of a group.
pub(super) struct Member<C: ClusterUnderTest> {
    pub(super) consumer: ConsumerOf<C>,
    start: Start,
    /// False: what is revoked waits in `offered_back` for the behaviour to release it.
    pub(super) releases: bool,
    pub(super) owned: BTreeSet<PartitionId>,
    pub(super) offered_back: Option<Vec<PartitionId>>,
    pub(super) heard: Vec<Heard>,
    pub(super) records: Vec<(PartitionId, ConsumedRecord)>,
    pub(super) ends: BTreeMap<PartitionId, Offset>,
    topic: Topic,
}

impl<C: ClusterUnderTest> Member<C> {
    /// A member that has subscribed.
    pub(super) fn new(
        c: &mut C,
        group: &str,
        topic: &Topic,
        start: Start,
        options: &ClientOptions,
    ) -> Result<Member<C>, Failure> {
        let mut consumer = c.kafka(options)?.consumer(group)?;
        consumer.subscribe(&topic.name)?;
        Ok(Member {
            consumer,
            start,
            releases: true,
            owned: BTreeSet::new(),
            offered_back: None,
            heard: Vec::new(),
            records: Vec::new(),
            ends: BTreeMap::new(),
            topic: topic.clone(),
        })
    }

    /// A member that owns all of a topic.
    pub(super) async fn join(
        c: &mut C,
        group: &str,
        topic: &Topic,
        start: Start,
    ) -> Result<Member<C>, Failure> {
        let mut member = Member::new(c, group, topic, start, &ClientOptions::default())?;
        member.until_owned(topic.partitions).await?;
        Ok(member)
    }

    /// One poll, with the usual answers to what the group says.
    pub(super) async fn poll(&mut self) -> Result<(), Failure> {
        match self.consumer.poll(ROUND).await? {
            Polled::Assigned(partitions) => {
                self.consumer.accept(&partitions)?;
                self.owned.extend(partitions.iter().copied());
                self.begin(&partitions).await?;
                self.heard.push(Heard::Assigned(partitions));
            }
            Polled::Revoked(partitions) => {
                self.heard.push(Heard::Revoked(partitions.clone()));
                if self.releases {
                    self.release(&partitions)?;
                } else {
                    self.offered_back = Some(partitions);
                }
            }
            Polled::Lost(partitions) => {
                self.heard.push(Heard::Lost(partitions.clone()));
                self.release(&partitions)?;
            }
            Polled::Records { partition, records } => {
                let records = records.into_iter().map(|record| (partition, record));
                self.records.extend(records);
            }
            Polled::EndOfPartition {
                partition,
                position,
            } => {
                self.ends.insert(partition, position);
            }
            Polled::TimedOut => {}
        }
        Ok(())
    }

    /// Gives partitions back.
    pub(super) fn release(&mut self, partitions: &[PartitionId]) -> Result<(), Failure> {
        self.consumer.release(partitions)?;
        self.owned
            .retain(|partition| !partitions.contains(partition));
        Ok(())
    }

    async fn begin(&mut self, partitions: &[PartitionId]) -> Result<(), Failure> {
        let asked: Vec<_> = partitions
            .iter()
            .map(|&number| partition(&self.topic, number.0))
            .collect();
        let known = match self.start {
            Start::Nowhere => return Ok(()),
            Start::Committed => self.committed(&asked).await?,
            Start::Earliest => vec![None; asked.len()],
        };
        for (&number, known) in partitions.iter().zip(known) {
            let offset = match known {
                Some(known) => known.offset,
                None => self.bounds(number).await?.earliest,
            };
            self.consumer.start_at(number, offset)?;
        }
        Ok(())
    }

    /// Polls until it owns so many partitions in a stable generation.
    pub(super) async fn until_owned(&mut self, count: u32) -> Result<(), Failure> {
        for _ in 0..ROUNDS_MAX {
            if self.owned.len() == count as usize && self.identity().is_some() {
                return Ok(());
            }
            self.poll().await?;
        }
        let (owned, heard) = (&self.owned, &self.heard);
        Err(Failure(format!(
            "never owned {count} partitions, but {owned:?}; heard {heard:?}"
        )))
    }

    /// Polls until the ends of all owned partitions are told after what was seen.
    pub(super) async fn until_ends(&mut self) -> Result<(), Failure> {
        for _ in 0..ROUNDS_MAX {
            if self.ends.len() == self.owned.len() {
                return Ok(());
            }
            self.poll().await?;
        }
        let seen = self.values();
        Err(Failure(format!("the end never came; seen {seen:?}")))
    }

    /// Polls until so many records were seen.
    pub(super) async fn until_seen(&mut self, count: usize) -> Result<(), Failure> {
        for _ in 0..ROUNDS_MAX {
            if self.records.len() >= count {
                return Ok(());
            }
            self.poll().await?;
        }
        let seen = self.values();
        Err(Failure(format!(
            "{count} records never came; seen {seen:?}"
        )))
    }

    /// Values seen so far, by partition and in order of arrival.
    pub(super) fn values(&self) -> Vec<String> {
        let mut records: Vec<_> = self.records.iter().collect();
        records.sort_by_key(|(partition, _)| *partition);
        let values = records
            .iter()
            .map(|(_, record)| text(record.value.as_deref()));
        values.collect()
    }

    /// Offsets seen so far, in order of arrival.
    pub(super) fn offsets(&self) -> Vec<i64> {
        self.records
            .iter()
            .map(|(_, record)| record.offset.0)
            .collect()
    }

    /// The member's identity, if it is in a stable generation.
    pub(super) fn identity(&self) -> Option<GroupOf<C>> {
        self.consumer.group_metadata()
    }

    /// The member's identity.
    pub(super) fn group(&self) -> Result<GroupOf<C>, Failure> {
        let group = self.identity();
        group.ok_or_else(|| Failure("the member is in no stable generation".into()))
    }

    /// Committed offsets, as the member asks for them.
    pub(super) async fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<CommittedOffset>>, Failure> {
        let mut tries = 0;
        loop {
            match self.consumer.committed(partitions, PATIENCE).await {
                Err(error) if may_be_repeated(&error, tries) => tries += 1,
                other => return Ok(other?),
            }
        }
    }

    /// Log start and last stable offset, as the member asks for them.
    pub(super) async fn bounds(&mut self, number: PartitionId) -> Result<OffsetBounds, Failure> {
        let mut tries = 0;
        loop {
            match self.consumer.bounds(number, PATIENCE).await {
                Err(error) if may_be_repeated(&error, tries) => tries += 1,
                other => return Ok(other?),
            }
        }
    }

    /// Commits offsets in a transaction of their own.
    pub(super) async fn commit_with(
        &mut self,
        producer: &mut ProducerOf<C>,
        offsets: &[OffsetAndMetadata],
    ) -> Result<(), Failure> {
        let group = self.group()?;
        begin(producer, Vec::new()).await?;
        send_offsets(producer, offsets, &group).await?;
        commit_now(producer).await
    }
}

/// Adds offsets to the open transaction.
pub(super) async fn send_offsets<P: TransactionalProducer>(
    producer: &mut P,
    offsets: &[OffsetAndMetadata],
    group: &P::GroupMetadata,
) -> KafkaResult<()> {
    insist(async || {
        producer
            .send_offsets_to_transaction(offsets, group, PATIENCE)
            .await
    })
    .await
}

/// What an application with read_committed sees of a whole topic: values by partition.
pub(super) async fn seen<C: ClusterUnderTest>(
    c: &mut C,
    topic: &Topic,
) -> Result<Vec<String>, Failure> {
    let group = c.name("reader");
    let mut reader = Member::<C>::join(c, &group, topic, Start::Earliest).await?;
    reader.until_ends().await?;
    let values = reader.values();
    reader.consumer.close(PATIENCE).await;
    Ok(values)
}
