//! The I/O of the worker as traits, named in Kafka's own terms. Production implements them with
//! librdkafka, RocksDB and S3; a simulator implements them with a world of its own.
//!
//! Comes in: nothing. Goes out: [`Kafka`], [`Consumer`], [`TransactionalProducer`], [`StateStore`],
//! [`Clock`]; checkpoints go through [`object_store::ObjectStore`] as it is.
//! Never here: what to do with an error. The traits only classify it ([`ErrorClass`]).
//!
//! All waiting happens inside these calls. The worker is one thread: it never calls two methods of
//! one object at once, and every future may be dropped at any await (a crash).

use crate::units::{LogTimeMs, Offset, PartitionId};
use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_128;

/// One record header: name and raw value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Name; may repeat within a record.
    pub name: String,
    /// Raw value.
    pub value: Bytes,
}

/// One record as a consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Position in the partition's log.
    pub offset: Offset,
    /// The timestamp that Kafka stored with it.
    pub timestamp: LogTimeMs,
    /// Key, if any.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in the order of the record.
    pub headers: Vec<Header>,
}

/// A record to produce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerRecord {
    /// Topic name.
    pub topic: String,
    /// Partition, or `None` for the default partitioner (murmur2 of the key, as the Java client).
    pub partition: Option<PartitionId>,
    /// CreateTime to store.
    pub timestamp: LogTimeMs,
    /// Key, if any.
    pub key: Option<Bytes>,
    /// Value.
    pub value: Bytes,
    /// Headers in order.
    pub headers: Vec<Header>,
}

/// What one [`Consumer::poll`] yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    /// Committed records of one partition, in offset order; offsets may have gaps (control records,
    /// aborted transactions).
    Records {
        /// Their partition.
        partition: PartitionId,
        /// Never empty.
        records: Vec<ConsumedRecord>,
    },
    /// The position has reached the last stable offset that the newest fetch response told
    /// (librdkafka's PARTITION_EOF). Comes once each time the end is reached.
    EndOfPartition {
        /// The partition.
        partition: PartitionId,
        /// The position: everything before it has been delivered or is invisible.
        position: Offset,
    },
    /// The group gave these partitions to this member (with eager rebalancing: all of them; with
    /// cooperative rebalancing: the added ones). Answer with [`Consumer::accept`].
    Assigned(Vec<PartitionId>),
    /// The group takes these partitions back; they are still owned until [`Consumer::release`] is
    /// called, so this is the moment to commit.
    Revoked(Vec<PartitionId>),
    /// These partitions are already lost (session or poll timeout): somebody else may own them.
    /// Nothing of them may be committed any more. Answer with [`Consumer::release`].
    Lost(Vec<PartitionId>),
    /// Nothing happened within the timeout.
    TimedOut,
}

/// A committed offset as the group coordinator stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Next offset to process.
    pub offset: Offset,
    /// The metadata string that was committed with it (may be empty).
    pub metadata: String,
}

/// A partition of a named topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Topic name.
    pub topic: String,
    /// Partition.
    pub partition: PartitionId,
}

/// An offset to commit, with its metadata string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetAndMetadata {
    /// Whose offset: mostly of the input topic, but a group may commit offsets of any topic.
    pub tp: TopicPartition,
    /// Next offset to process.
    pub offset: Offset,
    /// Metadata (the commit record).
    pub metadata: String,
}

/// What a broker says of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Changes when a topic is deleted and created anew; `None` where the client cannot tell.
    pub topic_id: Option<String>,
    /// Number of partitions.
    pub partitions: u32,
}

/// First and last stable offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetBounds {
    /// Log start offset.
    pub earliest: Offset,
    /// Last stable offset: where a read_committed reader ends.
    pub last_stable: Offset,
}

/// What to do about a Kafka error; taken from librdkafka's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The same call may be made again, with the same arguments.
    Retriable,
    /// The transaction must be aborted; the producer stays usable.
    RequiresAbort,
    /// A newer epoch of this `transactional.id` exists, or the coordinator timed the transaction
    /// out and bumped the epoch (protocol version 1 cannot tell which). The producer is dead.
    Fenced,
    /// The client instance is unusable for another reason.
    Fatal,
    /// The request may or may not have taken effect.
    OutcomeUnknown,
}

/// An error of a Kafka client call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {code} ({class:?})")]
pub struct KafkaError {
    /// The call that failed.
    pub call: &'static str,
    /// Kafka's or the client's name of the error, e.g. `ILLEGAL_GENERATION`.
    pub code: String,
    /// What may be done about it.
    pub class: ErrorClass,
}

/// Result of a Kafka client call.
pub type KafkaResult<T> = Result<T, KafkaError>;

/// A Kafka cluster as seen by one process: the factory of its clients.
pub trait Kafka {
    /// Identity of a group member at a generation.
    type GroupMetadata: Clone + std::fmt::Debug;
    /// Consumer of the input topic.
    type Consumer: Consumer<GroupMetadata = Self::GroupMetadata>;
    /// Producer of outputs.
    type Producer: TransactionalProducer<GroupMetadata = Self::GroupMetadata>;

    /// A consumer that is member of `group` once it subscribes. read_committed, no auto-commit.
    ///
    /// # Errors
    /// When the client cannot be created.
    fn consumer(&mut self, group: &str) -> KafkaResult<Self::Consumer>;

    /// A producer with this `transactional.id`; not usable before
    /// [`TransactionalProducer::init_transactions`].
    ///
    /// # Errors
    /// When the client cannot be created.
    fn producer(&mut self, transactional_id: &str) -> KafkaResult<Self::Producer>;
}

/// A group consumer of one topic.
pub trait Consumer {
    /// See [`Kafka::GroupMetadata`].
    type GroupMetadata: Clone + std::fmt::Debug;

    /// Joins the group for `topic`.
    ///
    /// # Errors
    /// Only usage errors; brokers are contacted later.
    fn subscribe(&mut self, topic: &str) -> KafkaResult<()>;

    /// Waits for the next thing that concerns this consumer, for at most `timeout`. While an
    /// `Assigned`, `Revoked` or `Lost` waits for its answer, only further such events come.
    ///
    /// # Errors
    /// Retriable ones are handled inside; what comes out is fatal to the consumer
    /// (for example `OFFSET_OUT_OF_RANGE` with reset policy `error`).
    fn poll(&mut self, timeout: Duration) -> impl Future<Output = KafkaResult<Polled>>;

    /// Takes an assignment: the partitions are owned, have no position and deliver nothing.
    ///
    /// # Errors
    /// If the member lost them meanwhile.
    fn accept(&mut self, partitions: &[PartitionId]) -> KafkaResult<()>;

    /// Gives partitions back (the answer to `Revoked` and `Lost`): buffered records are dropped.
    ///
    /// # Errors
    /// None that matter to the caller; they are reported for the log.
    fn release(&mut self, partitions: &[PartitionId]) -> KafkaResult<()>;

    /// Sets the position of an owned partition and lets it deliver, also if it was paused. Nothing that
    /// was fetched from another position comes any more.
    ///
    /// # Errors
    /// If it is not owned.
    fn start_at(&mut self, partition: PartitionId, offset: Offset) -> KafkaResult<()>;

    /// Stops delivery of owned partitions until [`Consumer::resume`]; the position stays. Nothing
    /// that was fetched is lost.
    ///
    /// # Errors
    /// If one is not owned.
    fn pause(&mut self, partitions: &[PartitionId]) -> KafkaResult<()>;

    /// Ends a pause.
    ///
    /// # Errors
    /// If one is not owned.
    fn resume(&mut self, partitions: &[PartitionId]) -> KafkaResult<()>;

    /// Stable committed offsets (`require_stable`: waits while a transaction has pending ones), all
    /// from one answer of one coordinator, in the order asked for. Stable is not current: a coordinator
    /// that was replaced and does not know it yet still answers from what it remembers.
    ///
    /// # Errors
    /// Retriable when the coordinator could not be asked, or offsets stayed unstable, for `timeout`.
    fn committed(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> impl Future<Output = KafkaResult<Vec<Option<CommittedOffset>>>>;

    /// Log start and last stable offset of a partition of the subscribed topic.
    ///
    /// # Errors
    /// Retriable when the leader could not be asked for `timeout`.
    fn bounds(
        &mut self,
        partition: PartitionId,
        timeout: Duration,
    ) -> impl Future<Output = KafkaResult<OffsetBounds>>;

    /// Identity and partition count of a topic.
    ///
    /// # Errors
    /// Retriable when no broker answered for `timeout`; fatal when there is no such topic.
    fn describe_topic(
        &mut self,
        topic: &str,
        timeout: Duration,
    ) -> impl Future<Output = KafkaResult<TopicDescription>>;

    /// The member's identity now; `None` while it is not in a stable generation. A transaction must
    /// carry the identity under which its input was polled, so keep the one of the last poll.
    fn group_metadata(&self) -> Option<Self::GroupMetadata>;

    /// Leaves the group, for at most `timeout`.
    fn close(self, timeout: Duration) -> impl Future<Output = ()>;
}

/// An idempotent, transactional producer (transaction protocol version 1).
pub trait TransactionalProducer {
    /// See [`Kafka::GroupMetadata`].
    type GroupMetadata: Clone + std::fmt::Debug;

    /// Registers the `transactional.id`: fences older producers and waits until their transaction
    /// has ended. Once, before anything else.
    ///
    /// # Errors
    /// Retriable on timeout; fatal otherwise.
    fn init_transactions(&mut self, timeout: Duration) -> impl Future<Output = KafkaResult<()>>;

    /// Begins a transaction (local).
    ///
    /// # Errors
    /// Fatal or fenced when the producer is dead.
    fn begin_transaction(&mut self) -> KafkaResult<()>;

    /// Queues a record for sending; waits while the queue is full. Delivery failures are told by
    /// [`TransactionalProducer::commit_transaction`].
    ///
    /// # Errors
    /// `RequiresAbort`, `Fenced` or `Fatal` when the transaction has already failed.
    fn send(&mut self, record: ProducerRecord) -> impl Future<Output = KafkaResult<()>>;

    /// Adds input offsets to the transaction, on behalf of a group member.
    ///
    /// # Errors
    /// `RequiresAbort` when the member is fenced by its generation; retriable on timeout.
    fn send_offsets_to_transaction(
        &mut self,
        offsets: &[OffsetAndMetadata],
        group: &Self::GroupMetadata,
        timeout: Duration,
    ) -> impl Future<Output = KafkaResult<()>>;

    /// Flushes and commits.
    ///
    /// # Errors
    /// `Retriable`: call again, never abort. `RequiresAbort`: nothing was committed.
    /// `OutcomeUnknown`, `Fenced`, `Fatal`: replace the producer and ask the committed offsets.
    fn commit_transaction(&mut self, timeout: Duration) -> impl Future<Output = KafkaResult<()>>;

    /// Purges and aborts.
    ///
    /// # Errors
    /// As for commit.
    fn abort_transaction(&mut self, timeout: Duration) -> impl Future<Output = KafkaResult<()>>;

    /// True once a request of a transaction (AddPartitionsToTxn, AddOffsetsToTxn, TxnOffsetCommit,
    /// EndTxn) met a timeout or a disconnect: a delayed copy may still be under way, and would end
    /// the *next* transaction, or move its offsets back (KAFKA-17754). Replace the producer before
    /// that.
    fn is_tainted(&self) -> bool;
}

/// Time. Wall time for what is compared with event time; monotonic time for intervals.
pub trait Clock {
    /// Unix milliseconds now; may jump.
    fn unix_ms(&self) -> i64;
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// Waits.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()>;
}

/// A time bucket of a partition's state: one a window start, so that expiry drops whole buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketKey(pub i64);

/// Key of one immutable piece of a partition's state: the bucket it belongs to, and the hash of its
/// content. Equal keys mean equal content, so a piece is never overwritten, and a checkpoint uploads
/// only pieces that no earlier one has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceKey {
    /// Its bucket.
    pub bucket: BucketKey,
    /// xxh3-128 of the content.
    pub hash: u128,
}

impl PieceKey {
    /// The key of a piece with this content.
    #[must_use]
    pub fn of(bucket: BucketKey, content: &[u8]) -> PieceKey {
        PieceKey {
            bucket,
            hash: xxh3_128(content),
        }
    }

    /// True if this is the key of that content.
    #[must_use]
    pub fn names(&self, content: &[u8]) -> bool {
        self.hash == xxh3_128(content)
    }
}

impl fmt::Display for PieceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:032x}", self.bucket.0, self.hash)
    }
}

impl FromStr for PieceKey {
    type Err = String;

    /// Reads `<bucket>-<hash>`, the name of a piece.
    fn from_str(name: &str) -> Result<PieceKey, String> {
        let wrong = || format!("`{name}` is not the name of a piece: <bucket>-<hash>");
        let (bucket, hash) = name.rsplit_once('-').ok_or_else(wrong)?;
        let bucket = bucket.parse().map(BucketKey).map_err(|_| wrong())?;
        let hash = u128::from_str_radix(hash, 16).map_err(|_| wrong())?;
        let key = PieceKey { bucket, hash };
        if key.to_string() == name {
            Ok(key)
        } else {
            Err(wrong())
        }
    }
}

/// Changes of one partition's state, applied atomically. No key is in both lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateBatch {
    /// Pieces to write; one that is there already stays as it is.
    pub puts: Vec<(PieceKey, Bytes)>,
    /// Pieces to drop.
    pub deletes: Vec<PieceKey>,
}

impl StateBatch {
    /// True if it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty()
    }
}

/// An error of the local state store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("state store: {0}")]
pub struct StateError(pub String);

impl StateError {
    /// The store does not have a piece that it was given.
    #[must_use]
    pub fn missing(partition: PartitionId, key: PieceKey) -> StateError {
        StateError(format!(
            "piece {key} of partition {partition} is gone: something removed the local state; start \
             the process again, and it takes everything from the last checkpoint"
        ))
    }

    /// The store gave back other bytes than it was given.
    #[must_use]
    pub fn damaged(partition: PartitionId, key: PieceKey) -> StateError {
        StateError(format!(
            "piece {key} of partition {partition} is damaged: check the disk of the local state; \
             start the process again, and it takes everything from the last checkpoint"
        ))
    }
}

/// Local state: immutable pieces, kept for each partition apart. What one store was given, only that
/// store gives back; it may vanish at any moment (the checkpoint is what recovery needs), so it needs
/// no sync of its own.
pub trait StateStore {
    /// Applies a batch to `partition`, which needs no creation.
    ///
    /// # Errors
    /// When the disk fails.
    fn apply(&mut self, partition: PartitionId, batch: StateBatch) -> Result<(), StateError>;

    /// The content of a piece that was put and not deleted.
    ///
    /// # Errors
    /// When the disk fails or the piece is not there.
    fn get(&mut self, partition: PartitionId, key: PieceKey) -> Result<Bytes, StateError>;

    /// Forgets `partition`.
    ///
    /// # Errors
    /// When the disk fails.
    fn drop_partition(&mut self, partition: PartitionId) -> Result<(), StateError>;
}
