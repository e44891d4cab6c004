//! The commit record: what every committed offset says of its partition, in its metadata string.

use crate::core::Fingerprint;
use crate::core::{Counters, Digest, ForcedAdvance, PartitionTask};
use crate::units::{Offset, Watermark};
use serde::{Deserialize, Serialize};

/// Longest metadata string that is committed. Brokers allow 4096 by default; a longer one would fail
/// every commit for ever.
pub const METADATA_BYTES_MAX: usize = 1024;

/// Format version written and understood.
pub const VERSION: u32 = 1;

/// The metadata of a committed offset, as JSON with short names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// Format version.
    #[serde(rename = "v")]
    pub version: u32,
    /// Id of the newest snapshot; empty in the opening, the first commit of a partition.
    #[serde(rename = "snap")]
    pub snapshot: String,
    /// Position of that snapshot: where a recovery's replay begins. In the opening: the offset at which
    /// the partition is first read.
    #[serde(rename = "at")]
    pub snapshot_at: Offset,
    /// Sequence of the next output: how many outputs have been committed.
    #[serde(rename = "seq")]
    pub next_sequence: u64,
    /// Rolling digest of inputs and outputs.
    pub digest: Digest,
    /// Watermark; absent before the first event.
    #[serde(rename = "wm")]
    pub watermark: Option<Watermark>,
    /// Newest forced advance as (offset, watermark).
    pub forced: Option<(Offset, Watermark)>,
    /// Counts the owners of the partition.
    pub term: u64,
    /// Incarnation of the owner that committed.
    pub owner: String,
    /// Partition count of the input topic.
    #[serde(rename = "parts")]
    pub partitions: u32,
    /// Topic id of the input topic; empty where the client cannot tell.
    #[serde(rename = "topic")]
    pub topic_id: String,
    /// Fingerprint of the configuration.
    #[serde(rename = "fp")]
    pub fingerprint: Fingerprint,
    /// Records, accepted, duplicates, dead letters, results so far.
    #[serde(rename = "n")]
    pub counters: [u64; 5],
}

/// What of a commit record does not come from the task.
#[derive(Debug, Clone)]
pub struct Ownership {
    /// See [`CommitRecord::term`].
    pub term: u64,
    /// See [`CommitRecord::owner`].
    pub owner: String,
    /// See [`CommitRecord::partitions`].
    pub partitions: u32,
    /// See [`CommitRecord::topic_id`].
    pub topic_id: String,
    /// See [`CommitRecord::fingerprint`].
    pub fingerprint: Fingerprint,
}

impl CommitRecord {
    /// The record of a task's present state.
    #[must_use]
    pub fn of(
        task: &PartitionTask,
        ownership: &Ownership,
        snapshot: &str,
        snapshot_at: Offset,
    ) -> CommitRecord {
        let Counters {
            records,
            accepted,
            duplicates,
            dead_letters,
            results,
        } = task.counters();
        let watermark = task.watermark();
        CommitRecord {
            version: VERSION,
            snapshot: snapshot.to_owned(),
            snapshot_at,
            next_sequence: task.next_sequence(),
            digest: task.digest(),
            watermark: (watermark != Watermark::NONE).then_some(watermark),
            forced: task
                .forced()
                .map(|ForcedAdvance { offset, watermark }| (offset, watermark)),
            term: ownership.term,
            owner: ownership.owner.clone(),
            partitions: ownership.partitions,
            topic_id: ownership.topic_id.clone(),
            fingerprint: ownership.fingerprint,
            counters: [records, accepted, duplicates, dead_letters, results],
        }
    }

    /// The metadata string.
    ///
    /// # Panics
    /// If it is longer than [`METADATA_BYTES_MAX`]: names are checked before start so that it cannot
    /// be.
    #[must_use]
    pub fn encode(&self) -> String {
        let text = serde_json::to_string(self).expect("plain fields serialise");
        assert!(
            text.len() <= METADATA_BYTES_MAX,
            "a commit record of {} bytes would fail every commit",
            text.len()
        );
        text
    }

    /// Reads a metadata string.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(metadata: &str) -> Result<CommitRecord, CommitRecordError> {
        #[derive(Deserialize)]
        struct Versioned {
            v: u32,
        }
        if metadata.is_empty() {
            return Err(CommitRecordError::Missing);
        }
        let Versioned { v } = serde_json::from_str(metadata)
            .map_err(|error| CommitRecordError::Foreign(error.to_string()))?;
        if v != VERSION {
            return Err(CommitRecordError::Version(v));
        }
        serde_json::from_str(metadata)
            .map_err(|error| CommitRecordError::Foreign(error.to_string()))
    }
}

/// Why a committed offset cannot be continued from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitRecordError {
    /// The offset was committed by another tool (an offset reset erases metadata).
    #[error(
        "the committed offset carries no commit record: an offset reset or another program wrote it"
    )]
    Missing,
    /// Written by another program.
    #[error(
        "the committed offset's metadata is not a commit record ({0}): another program uses this group"
    )]
    Foreign(String),
    /// Written by another version of this program.
    #[error(
        "the commit record has format version {0}, this program reads version {VERSION}: run the version that wrote it, or a newer one"
    )]
    Version(u32),
}
