//! What a broker has under way: requests that it sent to other nodes, and what happens once an append
//! is replicated.

use super::internal::TxnRecord;
use super::protocol::{
    Batch, BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId,
    TopicPartition,
};
use crate::fabric::actor::{Address, Micros};
use std::sync::Arc;

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) address: Address,
    pub(super) correlation: u64,
}

/// What happens when an append is replicated, or is known to fail.
#[derive(Debug)]
pub(super) enum Then {
    /// One batch of a Produce.
    Produce { op: u64, index: usize, base: Offset },
    /// A marker.
    Marker { op: u64, tp: TopicPartition },
    /// A transition of a transactional id.
    Transaction(Box<Transition>),
    /// TxnOffsetCommit is answered.
    Offsets { asker: Asker },
    /// OffsetCommit is answered.
    PlainOffsets { asker: Asker },
    /// DeleteGroup is answered.
    GroupDeleted { asker: Asker },
    /// A group's assignment is stored.
    GroupStored {
        partition: PartitionId,
        group: Arc<str>,
        generation: i32,
    },
    /// An empty group is stored; nobody waits.
    Nothing,
}

/// A transition under way.
#[derive(Debug)]
pub(super) struct Transition {
    pub(super) partition: PartitionId,
    pub(super) coordinator_epoch: LeaderEpoch,
    pub(super) next: TxnRecord,
    pub(super) reply: TxnReply,
}

/// Who learns of a transition.
#[derive(Debug, Clone, Copy)]
pub(super) enum TxnReply {
    InitProducerId(Asker),
    AddPartitions(Asker),
    AddOffsets(Asker),
    EndTxn(Asker),
    /// An InitProducerId that met an ongoing transaction.
    Fence(Asker),
    /// The sweep of timed-out transactions.
    Timeout,
    /// Every marker is written.
    Completed,
}

/// A request of this broker that awaits its response.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) correlation: u64,
    pub(super) deadline: Micros,
    pub(super) what: Sent,
}

/// What was asked.
#[derive(Debug)]
pub(super) enum Sent {
    Register,
    Heartbeat,
    AlterPartition { slots: Vec<usize> },
    Markers(Markers),
    Verify(Verification),
}

/// Markers on their way to one broker.
#[derive(Debug)]
pub(super) struct Markers {
    pub(super) to: BrokerId,
    pub(super) partition: PartitionId,
    pub(super) coordinator_epoch: LeaderEpoch,
    pub(super) transactional_id: Arc<str>,
    pub(super) producer_epoch: ProducerEpoch,
    pub(super) partitions: Vec<TopicPartition>,
}

/// Batches that wait until the transaction coordinator confirms their partition.
#[derive(Debug)]
pub(super) struct Verification {
    pub(super) slot: usize,
    pub(super) producer_id: ProducerId,
    pub(super) producer_epoch: ProducerEpoch,
    /// A marker came meanwhile: what waited belongs to a transaction that is over.
    pub(super) cancelled: bool,
    pub(super) waiting: Vec<(Unverified, Batch)>,
}

/// Where an unverified batch came from.
#[derive(Debug)]
pub(super) enum Unverified {
    Produce { op: u64, index: usize },
    Offsets { asker: Asker, author: Author },
}

/// In whose name offsets are committed.
#[derive(Debug)]
pub(super) struct Author {
    pub(super) generation: i32,
    pub(super) member_id: Arc<str>,
}

/// How an append's failure looks to those who asked a coordinator.
pub(super) fn coordinator_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::NotLeaderOrFollower => ErrorCode::NotCoordinator,
        ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::UnknownTopicOrPartition
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        other => other,
    }
}
