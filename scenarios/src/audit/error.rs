//! Why there is no verdict.

use std::io;

/// Why a cluster could not be audited; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The topic does not exist.
    #[error(
        "there is no topic `{topic}`: is {key} right, and is kafka.bootstrap_servers the cluster \
         that you mean?"
    )]
    NoTopic {
        /// Its name.
        topic: String,
        /// Where the configuration names it.
        key: &'static str,
    },
    /// The group has committed nothing.
    #[error(
        "group `{group}` has no committed offset of topic `{topic}`: is kafka.group_id that of the \
         processor? If it is, it has not committed yet, or its offsets have expired or were deleted"
    )]
    NothingCommitted {
        /// Consumer group.
        group: String,
        /// Input topic.
        topic: String,
    },
    /// The group's offsets are not of a processor.
    #[error(
        "the offsets of group `{group}` carry no commit record (partition {partition} has \
         {metadata:?}): is kafka.group_id that of the processor? If it is, a tool has reset them"
    )]
    ForeignGroup {
        /// Consumer group.
        group: String,
        /// A partition without one.
        partition: i32,
        /// What it has.
        metadata: String,
    },
    /// The cluster cannot be used.
    #[error("{call}: {why}; are the brokers at `{servers}` up, and is [kafka.properties] right?")]
    Cluster {
        /// What was tried.
        call: String,
        /// What came of it.
        why: String,
        /// Brokers that were asked.
        servers: String,
    },
    /// The log was cut while it was read.
    #[error(
        "{topic} partition {partition}: offset {offset} was removed while it was read; raise the \
         topic's retention and audit again"
    )]
    Removed {
        /// Topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// First offset that was wanted.
        offset: i64,
    },
    /// Sorting on disk failed.
    #[error("scratch space: {0}; give a folder with room by --scratch")]
    Scratch(#[from] io::Error),
}
