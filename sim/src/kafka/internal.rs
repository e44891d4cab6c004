//! What brokers and the controller say to one another, and what they keep in internal topics.

use super::protocol::{
    Batch, BrokerId, LeaderEpoch, Offset, OffsetCommit, PartitionId, ProducerEpoch, ProducerId,
    RebalanceProtocol, Subscription, TopicIndex, TopicPartition,
};
use crate::fabric::actor::Micros;
use crate::plan::Api;
use std::sync::Arc;

/// State of a transactional id, as `__transaction_state` holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TxnState {
    /// No transaction since the producer id was initialised.
    Empty,
    /// Partitions were added.
    Ongoing,
    /// The outcome is decided: commit; markers are being written.
    PrepareCommit,
    /// The outcome is decided: abort; markers are being written.
    PrepareAbort,
    /// Every commit marker is written.
    CompleteCommit,
    /// Every abort marker is written.
    CompleteAbort,
    /// The epoch is being bumped in order to abort (only ever a pending state, never in the log).
    PrepareEpochFence,
    /// The id has expired (not reached within the length of a run).
    Dead,
}

/// Entry of `__transaction_state`: all that is known of a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnRecord {
    /// Whose.
    pub transactional_id: Arc<str>,
    /// Its producer id.
    pub producer_id: ProducerId,
    /// Its producer epoch.
    pub producer_epoch: ProducerEpoch,
    /// The client's transaction.timeout.ms.
    pub timeout_ms: u32,
    /// State.
    pub state: TxnState,
    /// Partitions of the transaction, sorted.
    pub partitions: Vec<TopicPartition>,
    /// When the transaction became ongoing.
    pub started: Micros,
}

/// A member as `__consumer_offsets` holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMember {
    /// Member id.
    pub member_id: Arc<str>,
    /// Session timeout.
    pub session_timeout_ms: u32,
    /// Rebalance timeout.
    pub rebalance_timeout_ms: u32,
    /// Its subscription.
    pub subscription: Subscription,
    /// What the leader gave it.
    pub assignment: Vec<PartitionId>,
}

/// An entry of an internal topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InternalRecord {
    /// State of a transactional id.
    Transaction(TxnRecord),
    /// A transactional id was not used for too long, and is forgotten.
    TransactionExpired {
        /// The id.
        transactional_id: Arc<str>,
    },
    /// A group's generation with its members (none: the group is empty).
    Group {
        /// Group id.
        group: Arc<str>,
        /// Generation.
        generation: i32,
        /// Protocol of all members.
        protocol: Option<RebalanceProtocol>,
        /// The leader's member id.
        leader: Option<Arc<str>>,
        /// Members.
        members: Vec<StoredMember>,
    },
    /// The group was deleted, with its offsets.
    GroupDeleted {
        /// Group id.
        group: Arc<str>,
    },
    /// A topic was deleted: what groups have committed of it is forgotten.
    TopicForgotten {
        /// The topic.
        topic: TopicIndex,
    },
    /// Committed offsets. In a transaction they are pending until the marker of the batch's producer;
    /// without a producer they count at once.
    Offsets {
        /// Group id.
        group: Arc<str>,
        /// Offsets.
        offsets: Vec<OffsetCommit>,
    },
}

/// A broker as the controller knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// Which.
    pub id: BrokerId,
    /// Epoch of its registration; −1: never registered.
    pub epoch: i64,
    /// True while it may not lead or join an ISR.
    pub fenced: bool,
}

/// A partition as the controller knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRegistration {
    /// Leader.
    pub leader: Option<BrokerId>,
    /// Grows with every change of leader.
    pub leader_epoch: LeaderEpoch,
    /// Grows with every change at all.
    pub partition_epoch: i32,
    /// In-sync replicas; never empty.
    pub isr: Vec<BrokerId>,
    /// All replicas, the preferred leader first.
    pub replicas: Vec<BrokerId>,
}

/// The cluster's metadata at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterImage {
    /// Grows with every change.
    pub version: u64,
    /// Brokers in order of their ids.
    pub brokers: Vec<BrokerRegistration>,
    /// Partitions, by [`super::layout::Layout`]'s slots.
    pub partitions: Vec<PartitionRegistration>,
}

impl ClusterImage {
    /// Registration of a broker.
    #[must_use]
    pub fn broker(&self, id: BrokerId) -> Option<&BrokerRegistration> {
        self.brokers.iter().find(|broker| broker.id == id)
    }
}

/// A leader's wish to change an ISR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsrChange {
    /// Slot of the partition.
    pub slot: usize,
    /// Epoch of the leader that asks.
    pub leader_epoch: LeaderEpoch,
    /// Epoch of the partition that it knows.
    pub partition_epoch: i32,
    /// New ISR with the broker epochs that the leader knows (KIP-903).
    pub isr: Vec<(BrokerId, i64)>,
}

/// A follower's position in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaFetchPartition {
    /// Slot of the partition.
    pub slot: usize,
    /// Leader epoch that the follower follows.
    pub leader_epoch: LeaderEpoch,
    /// Its log end offset.
    pub offset: Offset,
    /// Epoch of its last batch; −1: it has none.
    pub last_epoch: LeaderEpoch,
}

/// What a follower is told of one partition.
#[derive(Debug, Clone)]
pub struct ReplicaFetched {
    /// Slot of the partition.
    pub slot: usize,
    /// Leader epoch under which it was read.
    pub leader_epoch: LeaderEpoch,
    /// Result.
    pub result: ReplicaFetchResult,
}

/// What a follower finds.
#[derive(Debug, Clone)]
pub enum ReplicaFetchResult {
    /// Batches from the wanted offset on (perhaps none) and the leader's high watermark.
    Data {
        /// Batches.
        batches: Vec<Arc<Batch>>,
        /// High watermark of the leader.
        high_watermark: Offset,
        /// Log start offset of the leader.
        log_start: Offset,
    },
    /// The logs differ: the leader's end of the largest epoch ≤ the follower's last one.
    Diverging {
        /// That epoch; −1: the leader has no such epoch.
        epoch: LeaderEpoch,
        /// Its end offset.
        end_offset: Offset,
    },
    /// The asked broker does not lead this partition in this epoch.
    NotLeader,
    /// The records have a wrong CRC.
    Damaged,
}

/// What became of a leader's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsrResult {
    /// Done; the new partition epoch.
    Done(i32),
    /// The leader's knowledge is old; newer metadata is on its way.
    Stale,
    /// A new member is fenced or was restarted: the wish is void.
    Ineligible,
}

/// Requests among brokers and the controller.
#[derive(Debug, Clone)]
pub enum InternalRequest {
    /// A broker process has started.
    RegisterBroker {
        /// Who.
        broker: BrokerId,
        /// Number of the process.
        incarnation: u64,
    },
    /// A broker is alive.
    BrokerHeartbeat {
        /// Who.
        broker: BrokerId,
        /// Epoch of its registration.
        broker_epoch: i64,
        /// Version of the metadata that it has.
        metadata_version: u64,
    },
    /// A leader wants ISRs changed.
    AlterPartition {
        /// Who.
        broker: BrokerId,
        /// Epoch of its registration.
        broker_epoch: i64,
        /// Changes.
        changes: Vec<IsrChange>,
    },
    /// From the controller: the newest metadata.
    UpdateMetadata {
        /// All of it.
        image: Arc<ClusterImage>,
    },
    /// A follower's fetch within a session (KIP-227): only the partitions whose position changed.
    ReplicaFetch {
        /// Who.
        broker: BrokerId,
        /// Epoch of its registration.
        broker_epoch: i64,
        /// Opens a new session: `partitions` are all.
        full: bool,
        /// Number of the session; grows.
        session: u64,
        /// Number of the request in the session, from 0.
        sequence: u64,
        /// Positions.
        partitions: Vec<ReplicaFetchPartition>,
    },
    /// From a transaction coordinator: end a transaction on these partitions.
    WriteTxnMarkers {
        /// Who.
        broker: BrokerId,
        /// Requests of this sender with smaller correlations are abandoned (as those of a closed
        /// connection are).
        oldest_live: u64,
        /// Producer id.
        producer_id: ProducerId,
        /// Producer epoch.
        producer_epoch: ProducerEpoch,
        /// Commit or abort.
        commit: bool,
        /// Leader epoch of the coordinator's partition.
        coordinator_epoch: i32,
        /// Partitions led by the receiver.
        partitions: Vec<TopicPartition>,
    },
    /// From a leader about to append a transaction's first batch (KIP-890 part 1): does the
    /// coordinator know of these partitions?
    VerifyTransaction {
        /// Producer id.
        producer_id: ProducerId,
        /// Producer epoch.
        producer_epoch: ProducerEpoch,
        /// Partition.
        partition: TopicPartition,
    },
}

/// Fate of a marker on one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerResult {
    /// Written, and below the high watermark.
    Written,
    /// Another try may do.
    Retry,
    /// A newer producer epoch or coordinator epoch has been here: never.
    Fenced,
}

/// Answer to VerifyTransaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The partition is part of the ongoing transaction.
    Verified,
    /// It is not.
    Refused,
    /// The producer's epoch is over.
    FencedEpoch,
    /// Try again (not the coordinator, loading, between two states).
    Retry,
}

/// Responses among brokers and the controller.
#[derive(Debug, Clone)]
pub enum InternalResponse {
    /// The epoch given; `None`: the old process's session is still alive, try again.
    RegisterBroker {
        /// Epoch.
        broker_epoch: Option<i64>,
    },
    /// Heard.
    BrokerHeartbeat {
        /// False: that registration is over.
        known: bool,
        /// The broker is fenced.
        fenced: bool,
    },
    /// Per slot.
    AlterPartition {
        /// Results.
        results: Vec<(usize, IsrResult)>,
    },
    /// Applied.
    UpdateMetadata {
        /// Version that the broker has now.
        version: u64,
    },
    /// Answer to a replica's fetch; `None`: the session is unknown, open a new one.
    ReplicaFetch {
        /// Partitions with news.
        partitions: Option<Vec<ReplicaFetched>>,
    },
    /// Per partition.
    WriteTxnMarkers {
        /// Results.
        results: Vec<(TopicPartition, MarkerResult)>,
    },
    /// Verdict.
    VerifyTransaction {
        /// Verdict.
        verdict: Verdict,
    },
}

impl InternalRequest {
    /// Its name, if a fault can be about it.
    pub(super) fn api(&self) -> Option<Api> {
        match self {
            InternalRequest::BrokerHeartbeat { .. } => Some(Api::BrokerHeartbeat),
            InternalRequest::AlterPartition { .. } => Some(Api::AlterPartition),
            InternalRequest::UpdateMetadata { .. } => Some(Api::UpdateMetadata),
            InternalRequest::ReplicaFetch { .. } => Some(Api::ReplicaFetch),
            InternalRequest::WriteTxnMarkers { .. } => Some(Api::WriteTxnMarkers),
            InternalRequest::RegisterBroker { .. } | InternalRequest::VerifyTransaction { .. } => {
                None
            }
        }
    }
}

impl InternalResponse {
    /// The name of what it answers, if a fault can be about it.
    pub(super) fn api(&self) -> Option<Api> {
        match self {
            InternalResponse::BrokerHeartbeat { .. } => Some(Api::BrokerHeartbeat),
            InternalResponse::AlterPartition { .. } => Some(Api::AlterPartition),
            InternalResponse::UpdateMetadata { .. } => Some(Api::UpdateMetadata),
            InternalResponse::ReplicaFetch { .. } => Some(Api::ReplicaFetch),
            InternalResponse::WriteTxnMarkers { .. } => Some(Api::WriteTxnMarkers),
            InternalResponse::RegisterBroker { .. }
            | InternalResponse::VerifyTransaction { .. } => None,
        }
    }

    pub(super) fn has_records(&self) -> bool {
        let InternalResponse::ReplicaFetch {
            partitions: Some(partitions),
        } = self
        else {
            return false;
        };
        partitions.iter().any(|fetched| fetched.has_records())
    }

    /// A follower that sees a wrong CRC fetches again.
    pub(super) fn damage(&mut self) {
        if let InternalResponse::ReplicaFetch {
            partitions: Some(partitions),
        } = self
        {
            for fetched in partitions.iter_mut().filter(|f| f.has_records()) {
                fetched.result = ReplicaFetchResult::Damaged;
            }
        }
    }
}

impl ReplicaFetched {
    fn has_records(&self) -> bool {
        matches!(&self.result, ReplicaFetchResult::Data { batches, .. } if !batches.is_empty())
    }
}
