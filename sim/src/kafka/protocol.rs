//! The Kafka protocol as this world speaks it: the requests of a client and of brokers among
//! themselves, as data. Field names are Kafka's; versions are those that librdkafka 2.12 uses
//! (transaction protocol version 1).

use crate::fabric::network::Label;
use crate::plan::Api;
use bytes::Bytes;
pub use processor::io::Header;
pub use processor::units::{LogTimeMs, Offset, PartitionId};
use std::sync::Arc;

/// Number of a broker: 1, 2, 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerId(pub u32);

/// Index of a topic in [`crate::kafka::ClusterConfig::topics`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicIndex(pub u16);

/// `__consumer_offsets`.
pub const OFFSETS_TOPIC: TopicIndex = TopicIndex(0);
/// `__transaction_state`.
pub const TRANSACTIONS_TOPIC: TopicIndex = TopicIndex(1);

/// A partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicIndex,
    /// The partition.
    pub partition: PartitionId,
}

/// Leader epoch of a partition; −1 where unknown.
pub type LeaderEpoch = i32;
/// Producer id given by InitProducerId.
pub type ProducerId = i64;
/// Producer epoch.
pub type ProducerEpoch = i16;

/// One record of a batch; its offset is the batch's base offset plus its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// CreateTime, or what the broker put there (LogAppendTime).
    pub timestamp: LogTimeMs,
    /// Key.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers.
    pub headers: Vec<Header>,
}

/// Producer identity of a batch (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    /// Producer id.
    pub id: ProducerId,
    /// Producer epoch.
    pub epoch: ProducerEpoch,
    /// Sequence of the first record; −1 in control batches.
    pub base_sequence: i32,
    /// Part of a transaction.
    pub transactional: bool,
}

/// What a batch holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Records of a user topic, at least one.
    Records(Vec<Record>),
    /// A transaction marker; takes one offset.
    Marker {
        /// Commit or abort.
        commit: bool,
        /// Epoch of the transaction coordinator that wrote it.
        coordinator_epoch: i32,
        /// By the clock of the broker that appended it.
        timestamp: LogTimeMs,
    },
    /// An entry of an internal topic; takes one offset. Defined by the cluster model.
    Internal(crate::kafka::internal::InternalRecord),
    /// What has been damaged on its way: its CRC is wrong. Never in a log.
    Damaged,
}

/// A record batch: the unit of produce, replication and fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Offset of the first record; set by the leader.
    pub base_offset: Offset,
    /// Epoch of the leader that appended it; set by the leader.
    pub leader_epoch: LeaderEpoch,
    /// Identity of an idempotent producer.
    pub producer: Option<ProducerStamp>,
    /// Content.
    pub payload: Payload,
}

impl Batch {
    /// Offsets that this batch takes.
    #[must_use]
    pub fn len(&self) -> i64 {
        match &self.payload {
            Payload::Records(records) => i64::try_from(records.len()).expect("fits"),
            Payload::Marker { .. } | Payload::Internal(_) | Payload::Damaged => 1,
        }
    }

    /// Never true of a batch in a log.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Offset after the last record.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.base_offset.0 + self.len())
    }
}

/// Kafka's error codes, those that occur here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum ErrorCode {
    OffsetOutOfRange,
    UnknownTopicOrPartition,
    LeaderNotAvailable,
    NotLeaderOrFollower,
    RequestTimedOut,
    BrokerNotAvailable,
    MessageTooLarge,
    OffsetMetadataTooLarge,
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    NotCoordinator,
    NotEnoughReplicas,
    NotEnoughReplicasAfterAppend,
    IllegalGeneration,
    InconsistentGroupProtocol,
    UnknownMemberId,
    RebalanceInProgress,
    MemberIdRequired,
    OutOfOrderSequenceNumber,
    DuplicateSequenceNumber,
    InvalidProducerEpoch,
    InvalidTxnState,
    InvalidProducerIdMapping,
    InvalidTransactionTimeout,
    ConcurrentTransactions,
    ProducerFenced,
    UnknownProducerId,
    FencedLeaderEpoch,
    UnknownLeaderEpoch,
    OffsetNotAvailable,
    UnstableOffsetCommit,
    FencedInstanceId,
    InvalidUpdateVersion,
    StaleBrokerEpoch,
    NonEmptyGroup,
    GroupIdNotFound,
    InvalidRecord,
    TransactionAbortable,
    InvalidSessionTimeout,
    InvalidRequest,
    UnknownServerError,
    InvalidTopicException,
    CorruptMessage,
    OperationNotAttempted,
    KafkaStorageError,
}

impl ErrorCode {
    /// Kafka's name, e.g. `NOT_LEADER_OR_FOLLOWER`.
    #[must_use]
    pub fn name(self) -> String {
        let mut name = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
        name
    }
}

/// A message on the network.
#[derive(Debug, Clone)]
pub enum Message {
    /// A request; the correlation id is the sender's.
    Request {
        /// Chosen by the sender, unique per sender.
        correlation: u64,
        /// Body.
        request: Request,
    },
    /// The answer to a request.
    Response {
        /// Of the request.
        correlation: u64,
        /// Body; its variant is that of the request.
        response: Response,
    },
}

/// Whose coordinator is sought.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CoordinatorKey {
    /// A consumer group.
    Group(Arc<str>),
    /// A transactional id.
    Transaction(Arc<str>),
}

/// Which offset ListOffsets asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// Log start offset.
    Earliest,
    /// Last stable offset (read_committed).
    LatestStable,
    /// High watermark (read_uncommitted).
    LatestUncommitted,
}

/// One partition of a Fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPartition {
    /// Partition.
    pub tp: TopicPartition,
    /// Leader epoch that the client knows; −1: not checked.
    pub current_leader_epoch: LeaderEpoch,
    /// Next offset wanted.
    pub offset: Offset,
}

/// A group member's protocol choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RebalanceProtocol {
    /// `range`: everything is revoked before each rebalance.
    Eager,
    /// `cooperative-sticky` (KIP-429).
    Cooperative,
}

/// What a member sends along with JoinGroup (cooperative-sticky needs what it owns).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Topic subscribed to.
    pub topic: TopicIndex,
    /// Partitions owned now.
    pub owned: Vec<PartitionId>,
    /// Generation in which they were owned (−1: none).
    pub owned_generation: i32,
}

/// An offset within TxnOffsetCommit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// Partition.
    pub tp: TopicPartition,
    /// Next offset to process.
    pub offset: Offset,
    /// Metadata, at most 4096 characters.
    pub metadata: Arc<str>,
}

/// Requests.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Request {
    Metadata,
    FindCoordinator {
        key: CoordinatorKey,
    },
    InitProducerId {
        transactional_id: Option<Arc<str>>,
        transaction_timeout_ms: u32,
    },
    AddPartitionsToTxn {
        transactional_id: Arc<str>,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        partitions: Vec<TopicPartition>,
    },
    AddOffsetsToTxn {
        transactional_id: Arc<str>,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        group: Arc<str>,
    },
    /// Goes to the group coordinator.
    TxnOffsetCommit {
        transactional_id: Arc<str>,
        group: Arc<str>,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        generation: i32,
        member_id: Arc<str>,
        offsets: Vec<OffsetCommit>,
    },
    EndTxn {
        transactional_id: Arc<str>,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        commit: bool,
    },
    /// acks=all. Batches come without base offset and leader epoch.
    Produce {
        batches: Vec<(TopicPartition, Batch)>,
        timeout_ms: u32,
    },
    /// A consumer's fetch, read_committed; waits up to `max_wait_ms` while there is nothing.
    Fetch {
        max_wait_ms: u32,
        /// About how many bytes of payload the answer may hold (at least one batch comes).
        max_bytes: u32,
        partitions: Vec<FetchPartition>,
    },
    ListOffsets {
        tp: TopicPartition,
        spec: OffsetSpec,
    },
    /// A commit without a transaction: of a member, or (generation −1, no member id) of an admin
    /// client.
    OffsetCommit {
        group: Arc<str>,
        generation: i32,
        member_id: Arc<str>,
        offsets: Vec<OffsetCommit>,
    },
    OffsetFetch {
        group: Arc<str>,
        require_stable: bool,
        partitions: Vec<TopicPartition>,
    },
    JoinGroup {
        group: Arc<str>,
        /// Empty at first; then MEMBER_ID_REQUIRED tells one (KIP-394).
        member_id: Arc<str>,
        session_timeout_ms: u32,
        /// max.poll.interval.ms
        rebalance_timeout_ms: u32,
        protocol: RebalanceProtocol,
        subscription: Subscription,
    },
    /// From the leader with all assignments, from others with none.
    SyncGroup {
        group: Arc<str>,
        member_id: Arc<str>,
        generation: i32,
        assignments: Vec<(Arc<str>, Vec<PartitionId>)>,
    },
    Heartbeat {
        group: Arc<str>,
        member_id: Arc<str>,
        generation: i32,
    },
    LeaveGroup {
        group: Arc<str>,
        member_id: Arc<str>,
    },
    /// Forgets an empty group and its offsets (what their expiry does as well).
    DeleteGroup {
        group: Arc<str>,
    },
    /// Moves the log start offset up to `before` (what retention does as well).
    DeleteRecords {
        tp: TopicPartition,
        before: Offset,
    },
    /// Between brokers and to and from the controller: defined by the cluster model.
    Internal(crate::kafka::internal::InternalRequest),
}

/// A partition as Metadata tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Partition.
    pub tp: TopicPartition,
    /// Leader, if there is one.
    pub leader: Option<BrokerId>,
    /// Its epoch.
    pub leader_epoch: LeaderEpoch,
}

/// A topic as Metadata tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Index, used in all other requests.
    pub topic: TopicIndex,
    /// Name.
    pub name: Arc<str>,
    /// Topic id: new when a topic is created anew under the same name.
    pub topic_id: Arc<str>,
    /// Partitions in order.
    pub partitions: Vec<PartitionMetadata>,
}

/// One partition of a Fetch response.
#[derive(Debug, Clone)]
pub struct FetchedPartition {
    /// Partition.
    pub tp: TopicPartition,
    /// Error, then nothing else counts.
    pub error: Option<ErrorCode>,
    /// High watermark.
    pub high_watermark: Offset,
    /// Last stable offset: batches end before it.
    pub last_stable_offset: Offset,
    /// Log start offset.
    pub log_start_offset: Offset,
    /// Aborted transactions that overlap: producer id and first offset. The client drops records of
    /// these producers from that offset until their abort marker.
    pub aborted: Vec<(ProducerId, Offset)>,
    /// Batches from the one that contains the wanted offset on.
    pub batches: Vec<Arc<Batch>>,
}

/// A member as the group's leader learns of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// Member id.
    pub member_id: Arc<str>,
    /// What it sent.
    pub subscription: Subscription,
}

/// Responses. The variant answers the request of the same name.
#[derive(Debug, Clone)]
#[allow(missing_docs, clippy::type_complexity)]
pub enum Response {
    Metadata {
        /// Brokers that are alive as far as the asked one knows.
        brokers: Vec<BrokerId>,
        topics: Vec<TopicMetadata>,
    },
    FindCoordinator(Result<BrokerId, ErrorCode>),
    InitProducerId(Result<(ProducerId, ProducerEpoch), ErrorCode>),
    AddPartitionsToTxn(Result<(), ErrorCode>),
    AddOffsetsToTxn(Result<(), ErrorCode>),
    TxnOffsetCommit(Result<(), ErrorCode>),
    EndTxn(Result<(), ErrorCode>),
    /// Base offset of each batch.
    Produce(Vec<(TopicPartition, Result<Offset, ErrorCode>)>),
    Fetch(Vec<FetchedPartition>),
    ListOffsets(Result<Offset, ErrorCode>),
    /// `None`: nothing committed.
    OffsetFetch(Result<Vec<(TopicPartition, Option<(Offset, Arc<str>)>)>, ErrorCode>),
    JoinGroup(Result<JoinedGroup, JoinError>),
    SyncGroup(Result<Vec<PartitionId>, ErrorCode>),
    Heartbeat(Result<(), ErrorCode>),
    LeaveGroup(Result<(), ErrorCode>),
    OffsetCommit(Result<(), ErrorCode>),
    DeleteGroup(Result<(), ErrorCode>),
    /// The new log start offset.
    DeleteRecords(Result<Offset, ErrorCode>),
    Internal(crate::kafka::internal::InternalResponse),
}

/// Success of JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedGroup {
    /// New generation.
    pub generation: i32,
    /// The member's id.
    pub member_id: Arc<str>,
    /// The leader's id.
    pub leader: Arc<str>,
    /// All members, only told to the leader.
    pub members: Vec<GroupMember>,
}

/// Failure of JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinError {
    /// Error.
    pub code: ErrorCode,
    /// The id to use, with MEMBER_ID_REQUIRED.
    pub member_id: Option<Arc<str>>,
}

impl Message {
    /// A number that differs between messages that differ in kind or correlation: for the trace hash.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        match self {
            Message::Request {
                correlation,
                request,
            } => (correlation << 8) | request.number(),
            Message::Response {
                correlation,
                response,
            } => (correlation << 8) | 0x80 | response.number(),
        }
    }

    /// What the network sees of it.
    #[must_use]
    pub fn label(&self) -> Label {
        match self {
            Message::Request { request, .. } => Label {
                api: request.api(),
                is_answer: false,
                has_records: false,
            },
            Message::Response { response, .. } => Label {
                api: response.api(),
                is_answer: true,
                has_records: response.has_records(),
            },
        }
    }

    /// A bit of its records has turned over: whoever reads them sees that their CRC is wrong.
    pub fn damage(&mut self) {
        match self {
            Message::Request {
                request: Request::Produce { batches, .. },
                ..
            } => {
                for (_, batch) in batches {
                    batch.payload = Payload::Damaged;
                }
            }
            Message::Response {
                response: Response::Fetch(partitions),
                ..
            } => {
                for partition in partitions.iter_mut().filter(|p| !p.batches.is_empty()) {
                    partition.batches.clear();
                    partition.error = Some(ErrorCode::CorruptMessage);
                }
            }
            Message::Response {
                response: Response::Internal(response),
                ..
            } => response.damage(),
            _ => {}
        }
    }

    /// One line for a person, shortened.
    #[must_use]
    pub fn describe(&self) -> String {
        const LENGTH_MAX: usize = 300;
        let mut text = match self {
            Message::Request {
                correlation,
                request,
            } => format!("#{correlation} {request:?}"),
            Message::Response {
                correlation,
                response,
            } => format!("#{correlation} -> {response:?}"),
        };
        if let Some((end, _)) = text.char_indices().nth(LENGTH_MAX) {
            text.truncate(end);
            text.push('…');
        }
        text
    }
}

impl Request {
    /// Its name, if a fault can be about it.
    fn api(&self) -> Option<Api> {
        Some(match self {
            Request::Metadata => Api::Metadata,
            Request::FindCoordinator { .. } => Api::FindCoordinator,
            Request::InitProducerId { .. } => Api::InitProducerId,
            Request::AddPartitionsToTxn { .. } => Api::AddPartitionsToTxn,
            Request::AddOffsetsToTxn { .. } => Api::AddOffsetsToTxn,
            Request::TxnOffsetCommit { .. } => Api::TxnOffsetCommit,
            Request::EndTxn { .. } => Api::EndTxn,
            Request::Produce { .. } => Api::Produce,
            Request::Fetch { .. } => Api::Fetch,
            Request::ListOffsets { .. } => Api::ListOffsets,
            Request::OffsetCommit { .. } => Api::OffsetCommit,
            Request::OffsetFetch { .. } => Api::OffsetFetch,
            Request::JoinGroup { .. } => Api::JoinGroup,
            Request::SyncGroup { .. } => Api::SyncGroup,
            Request::Heartbeat { .. } => Api::Heartbeat,
            Request::LeaveGroup { .. } => Api::LeaveGroup,
            Request::DeleteGroup { .. } | Request::DeleteRecords { .. } => return None,
            Request::Internal(request) => return request.api(),
        })
    }

    fn number(&self) -> u64 {
        match self {
            Request::Metadata => 0,
            Request::FindCoordinator { .. } => 1,
            Request::InitProducerId { .. } => 2,
            Request::AddPartitionsToTxn { .. } => 3,
            Request::AddOffsetsToTxn { .. } => 4,
            Request::TxnOffsetCommit { .. } => 5,
            Request::EndTxn { .. } => 6,
            Request::Produce { .. } => 7,
            Request::Fetch { .. } => 8,
            Request::ListOffsets { .. } => 9,
            Request::OffsetFetch { .. } => 10,
            Request::JoinGroup { .. } => 11,
            Request::SyncGroup { .. } => 12,
            Request::Heartbeat { .. } => 13,
            Request::LeaveGroup { .. } => 14,
            Request::Internal(_) => 15,
            Request::OffsetCommit { .. } => 16,
            Request::DeleteGroup { .. } => 17,
            Request::DeleteRecords { .. } => 18,
        }
    }
}

impl Response {
    /// The name of what it answers, if a fault can be about it.
    fn api(&self) -> Option<Api> {
        Some(match self {
            Response::Metadata { .. } => Api::Metadata,
            Response::FindCoordinator(_) => Api::FindCoordinator,
            Response::InitProducerId(_) => Api::InitProducerId,
            Response::AddPartitionsToTxn(_) => Api::AddPartitionsToTxn,
            Response::AddOffsetsToTxn(_) => Api::AddOffsetsToTxn,
            Response::TxnOffsetCommit(_) => Api::TxnOffsetCommit,
            Response::EndTxn(_) => Api::EndTxn,
            Response::Produce(_) => Api::Produce,
            Response::Fetch(_) => Api::Fetch,
            Response::ListOffsets(_) => Api::ListOffsets,
            Response::OffsetCommit(_) => Api::OffsetCommit,
            Response::OffsetFetch(_) => Api::OffsetFetch,
            Response::JoinGroup(_) => Api::JoinGroup,
            Response::SyncGroup(_) => Api::SyncGroup,
            Response::Heartbeat(_) => Api::Heartbeat,
            Response::LeaveGroup(_) => Api::LeaveGroup,
            Response::DeleteGroup(_) | Response::DeleteRecords(_) => return None,
            Response::Internal(response) => return response.api(),
        })
    }

    fn has_records(&self) -> bool {
        match self {
            Response::Fetch(partitions) => partitions.iter().any(|p| !p.batches.is_empty()),
            Response::Internal(response) => response.has_records(),
            _ => false,
        }
    }

    fn number(&self) -> u64 {
        match self {
            Response::Metadata { .. } => 0,
            Response::FindCoordinator(_) => 1,
            Response::InitProducerId(_) => 2,
            Response::AddPartitionsToTxn(_) => 3,
            Response::AddOffsetsToTxn(_) => 4,
            Response::TxnOffsetCommit(_) => 5,
            Response::EndTxn(_) => 6,
            Response::Produce(_) => 7,
            Response::Fetch(_) => 8,
            Response::ListOffsets(_) => 9,
            Response::OffsetFetch(_) => 10,
            Response::JoinGroup(_) => 11,
            Response::SyncGroup(_) => 12,
            Response::Heartbeat(_) => 13,
            Response::LeaveGroup(_) => 14,
            Response::Internal(_) => 15,
            Response::OffsetCommit(_) => 16,
            Response::DeleteGroup(_) => 17,
            Response::DeleteRecords(_) => 18,
        }
    }
}
