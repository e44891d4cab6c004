//! Why a worker stops.

use super::commit_record::CommitRecordError;
use crate::core::SnapshotError;
use crate::io::{KafkaError, StateError};
use crate::units::{Offset, PartitionId};

/// An error that ends a worker. Unless [`WorkerError::is_refusal`], a restart is the right answer:
/// the partition is recovered from what was committed.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A client is unusable.
    #[error("Kafka: {0}; the process may be started again")]
    Kafka(#[from] KafkaError),
    /// The local state store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The process was given a name that commit records cannot carry.
    #[error("incarnation `{0}`: give 1 to 40 letters, digits or dashes")]
    Incarnation(String),
    /// Fenced again and again.
    #[error(
        "the transactional.id `{0}` is used by another process: give every worker its own worker.ordinal"
    )]
    FencedRepeatedly(String),
    /// The topic is not what this process was told when it began.
    #[error(
        "the topic `{0}` was created anew or has got more partitions: start the process again; it compares the topic with what is committed"
    )]
    TopicChanged(String),
    /// Part of a transaction is committed.
    #[error(
        "one transaction was committed for {committed} partitions and not for {missing}: a stray EndTxn of an older one tore it; the brokers did not keep their promise, so compare the outputs' sequence numbers before the process is started again"
    )]
    Torn {
        /// Partitions whose offset is there.
        committed: usize,
        /// Partitions whose offset is not.
        missing: usize,
    },
    /// The last act of a stop did not succeed.
    #[error(
        "partition {0}: stopped before its snapshot was committed; the next start replays from the older one, so start it once more and stop it again before the configuration is changed"
    )]
    DrainIncomplete(PartitionId),
    /// The consumer delivered what it must not.
    #[error(
        "partition {partition}: a record at offset {got} came after position {position}: the client is broken"
    )]
    Disorder {
        /// Partition.
        partition: PartitionId,
        /// Offset of the record.
        got: Offset,
        /// Position.
        position: Offset,
    },
    /// Going on would break exactly-once.
    #[error("partition {partition}: refused to continue: {reason}")]
    Refused {
        /// Partition.
        partition: PartitionId,
        /// Why, and what to do.
        reason: Refusal,
    },
}

impl WorkerError {
    /// True when `recovery.accept_reset_partitions` answers it. A changed configuration has a way out that
    /// loses nothing.
    #[must_use]
    pub fn can_be_accepted(&self) -> bool {
        match self {
            WorkerError::Refused { reason, .. } => !matches!(reason, Refusal::Fingerprint { .. }),
            _ => false,
        }
    }

    /// True when the commit was made on a topic that is not there any more.
    pub(super) fn is_of_another_topic(&self) -> bool {
        match self {
            WorkerError::Refused { reason, .. } => matches!(reason, Refusal::OtherTopic { .. }),
            _ => false,
        }
    }

    /// True when a restart without a decision of the operator cannot help.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, WorkerError::Refused { .. })
    }
}

const NO_OLDER: &str = "no older checkpoint can take its place (none is left, or it was made under \
                        another configuration, or before the watermark was last advanced by the \
                        clock, or before the log now begins)";

const ACCEPT: &str = "to start it anew, with empty state and outputs numbered from 0, put the \
                      partition into recovery.accept_reset_partitions";

/// Why a partition is not continued.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Checkpoints exist, a committed offset does not.
    #[error(
        "checkpoints exist (newest: {newest}) but the group has no committed offset: it has expired or was deleted, or the topic was created anew; {ACCEPT}"
    )]
    CommitMissing {
        /// Path of a manifest.
        newest: String,
    },
    /// The commit record cannot be used.
    #[error("{0}; {ACCEPT}")]
    CommitRecord(#[from] CommitRecordError),
    /// The topic was created anew.
    #[error(
        "the commit was made on a topic with id {committed}, this topic has id {found}: the topic was created anew; {ACCEPT}"
    )]
    OtherTopic {
        /// Committed topic id.
        committed: String,
        /// Topic id now.
        found: String,
    },
    /// The partition count has changed.
    #[error(
        "the commit was made on a topic of {committed} partitions, this topic has {found}: keys have moved between partitions; {ACCEPT}, for all partitions"
    )]
    PartitionCount {
        /// Committed count.
        committed: u32,
        /// Count now.
        found: u32,
    },
    /// Retention has passed the position.
    #[error(
        "the log begins at offset {earliest}, but offset {needed} is needed: retention has deleted records that were not processed or are needed for replay; {ACCEPT}"
    )]
    Retention {
        /// Log start offset.
        earliest: Offset,
        /// Offset needed.
        needed: Offset,
    },
    /// The configuration changed between snapshot and commit.
    #[error(
        "the configuration or the program has changed (fingerprint {snapshot} → {now}), and offsets {from}..{to} would be replayed under the new one: start it once more under the old one and stop it cleanly (SIGTERM), then change it"
    )]
    Fingerprint {
        /// Of the snapshot.
        snapshot: String,
        /// Of this process.
        now: String,
        /// Snapshot position.
        from: Offset,
        /// Committed offset.
        to: Offset,
    },
    /// A replay did not reproduce what was committed.
    #[error(
        "replaying up to offset {at} gave digest {computed}, but {committed} was committed: the log, the checkpoint or the program is not what it was; {ACCEPT}"
    )]
    Digest {
        /// Committed offset.
        at: Offset,
        /// Digest of the replay.
        computed: String,
        /// Committed digest.
        committed: String,
    },
    /// The state of a checkpoint is damaged.
    #[error("checkpoint {snapshot}: {cause}; {NO_OLDER}; {ACCEPT}")]
    Snapshot {
        /// Snapshot id.
        snapshot: String,
        /// What is wrong.
        cause: SnapshotError,
    },
    /// A manifest is damaged or of another version, or an object is missing or damaged.
    #[error("checkpoint {snapshot}: {cause}; {NO_OLDER}; {ACCEPT}")]
    Manifest {
        /// Snapshot id.
        snapshot: String,
        /// What is wrong.
        cause: String,
    },
}
