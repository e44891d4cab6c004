//! What a worker tells of itself, for logs and metrics.

use crate::core::{Counters, OutputRecord};
use crate::io::KafkaError;
use crate::units::{Offset, PartitionId, Watermark};
use std::time::Duration;

/// What a rebalance did with partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebalance {
    /// This member got them; their recovery begins.
    Assigned,
    /// They were taken back in time.
    Revoked,
    /// They were already lost.
    Lost,
}

/// Something worth a log line or a metric.
#[derive(Debug)]
pub enum WorkerEvent<'a> {
    /// The worker has polled: once a poll, so it must be cheap to take.
    Polled,
    /// The group moved partitions.
    Rebalanced {
        /// What happened.
        kind: Rebalance,
        /// To which.
        partitions: &'a [PartitionId],
    },
    /// A partition was taken over and is being replayed (or goes on at once, if `from` = `to`).
    Recovering {
        /// Partition.
        partition: PartitionId,
        /// Position of the snapshot.
        from: Offset,
        /// Committed offset.
        to: Offset,
        /// This owner's term.
        term: u64,
    },
    /// The replay reproduced what was committed.
    Recovered {
        /// Partition.
        partition: PartitionId,
        /// Committed offset.
        at: Offset,
    },
    /// A partition that nobody has begun: its opening, the first commit, is made next.
    Opening {
        /// Partition.
        partition: PartitionId,
        /// First offset.
        at: Offset,
    },
    /// The opening is committed, and reading begins.
    Fresh {
        /// Partition.
        partition: PartitionId,
        /// First offset.
        at: Offset,
    },
    /// A refusal was met, and the operator has accepted that the partition begins anew.
    ResetAccepted {
        /// Partition.
        partition: PartitionId,
        /// What would have been refused.
        reason: &'a str,
    },
    /// A partition was given up.
    Released {
        /// Partition.
        partition: PartitionId,
        /// False: it was already lost.
        in_time: bool,
    },
    /// A transaction was committed.
    Committed {
        /// Partitions in it.
        partitions: usize,
        /// Outputs in it.
        outputs: usize,
        /// From the first to the last call of its commit, repetitions included.
        took: Duration,
    },
    /// What a commit contained of one partition: once a partition and commit, before
    /// [`WorkerEvent::Committed`].
    Progress {
        /// Partition.
        partition: PartitionId,
        /// This owner's term.
        term: u64,
        /// Committed offset.
        committed: Offset,
        /// Watermark at that offset.
        watermark: Watermark,
        /// What the commit added to the counters.
        added: Counters,
        /// The outputs that became visible with it.
        outputs: &'a [OutputRecord],
    },
    /// A transaction was aborted; its outputs are kept and sent again.
    Aborted(&'a KafkaError),
    /// The outcome of a commit was asked from the committed offsets.
    Resolved {
        /// It had been committed.
        committed: bool,
    },
    /// The producer was replaced.
    ProducerReplaced {
        /// Why.
        reason: &'a str,
    },
    /// A snapshot is in the object store.
    Snapshotted {
        /// Partition.
        partition: PartitionId,
        /// Position.
        at: Offset,
        /// Files uploaded now.
        uploaded: usize,
        /// Their bytes.
        uploaded_bytes: usize,
        /// From the first write to the last.
        took: Duration,
    },
    /// A snapshot failed; the older one stays.
    SnapshotFailed {
        /// Partition.
        partition: PartitionId,
        /// Why.
        cause: String,
    },
    /// The watermark of an idle partition was advanced by the clock.
    Forced {
        /// Partition.
        partition: PartitionId,
        /// Position.
        at: Offset,
        /// New watermark.
        watermark: Watermark,
    },
    /// The committed snapshot of a partition cannot be used: an older one is restored in its place, and
    /// the replay from there has to reproduce the committed digest.
    FellBack {
        /// Partition.
        partition: PartitionId,
        /// Id of the older snapshot.
        to: &'a str,
        /// What is wrong with the committed one.
        cause: &'a str,
    },
    /// Identities of old windows were moved out of memory, into the local state.
    Spilled {
        /// Partition.
        partition: PartitionId,
        /// Memory that this freed, bytes.
        bytes: usize,
    },
    /// The restore of a partition has to wait: the object store or a broker does not answer, or the
    /// group is being rebalanced. Other partitions go on.
    Postponed {
        /// Partition.
        partition: PartitionId,
    },
    /// An answer about committed offsets does not show what this worker has just committed: it comes
    /// from a coordinator that was replaced, or the commit did not succeed. It is asked for again.
    Outdated,
    /// What is committed is not what this worker knows of it: the partition is recovered again.
    SetBack {
        /// Partition.
        partition: PartitionId,
    },
    /// Objects that no committed record reaches were deleted.
    Collected {
        /// Partition.
        partition: PartitionId,
        /// How many.
        objects: usize,
    },
    /// A call is made again.
    Retrying(&'a KafkaError),
}

/// Receives a worker's events.
pub trait Observer {
    /// Called on the worker's thread; must not block.
    fn observe(&self, event: &WorkerEvent<'_>);
}
