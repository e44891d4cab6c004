//! The commit record: the metadata of a committed offset.

use crate::history::CommittedOffset;
use crate::moment::{Forced, Moment};
use serde::Deserialize;

/// A commit record, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Partition of the input topic.
    pub partition: i32,
    /// Next offset to process.
    pub offset: i64,
    /// Next output sequence.
    pub sequence: i64,
    /// Digest of all that went in and came out, as hex.
    pub digest: String,
    /// Watermark in force, Unix milliseconds; `None` before any event.
    pub watermark_ms: Option<i64>,
    /// Newest forced advance.
    pub forced: Option<Forced>,
    /// Term of the owner.
    pub term: i64,
    /// Incarnation of the owner.
    pub incarnation: String,
    /// Offset of the snapshot that it names.
    pub snapshot_offset: i64,
    /// Partition count that is pinned.
    pub partition_count: i64,
    /// Id of the input topic; empty where the client could not tell.
    pub topic_id: String,
    /// Fingerprint of the configuration, as hex.
    pub fingerprint: String,
    /// How many records were processed.
    pub records: u64,
    /// How many of them were put into a window.
    pub accepted: u64,
    /// How many were duplicates.
    pub duplicates: u64,
    /// How many became dead letters.
    pub dead_letters: u64,
    /// How many results were emitted.
    pub results: u64,
}

/// The wire format.
#[derive(Deserialize)]
struct Wire {
    v: u64,
    #[serde(rename = "snap")]
    _snapshot: String,
    at: i64,
    seq: i64,
    digest: String,
    wm: Option<i64>,
    forced: Option<(i64, i64)>,
    term: i64,
    owner: String,
    parts: i64,
    topic: String,
    fp: String,
    n: [u64; 5],
}

impl Commit {
    /// Reads a committed offset's metadata.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn read(committed: &CommittedOffset) -> Result<Self, String> {
        let wire: Wire = serde_json::from_str(&committed.metadata)
            .map_err(|error| format!("not a commit record ({error}): {:?}", committed.metadata))?;
        if wire.v != 1 {
            return Err(format!(
                "format version {}, this auditor reads version 1",
                wire.v
            ));
        }
        require_hex(&wire.digest, 32, "digest")?;
        require_hex(&wire.fp, 16, "fp")?;
        let [records, accepted, duplicates, dead_letters, results] = wire.n;
        Ok(Self {
            partition: committed.partition,
            offset: committed.offset,
            sequence: wire.seq,
            digest: wire.digest,
            watermark_ms: wire.wm,
            forced: wire.forced.map(|(position, watermark_ms)| Forced {
                position,
                watermark_ms,
            }),
            term: wire.term,
            incarnation: wire.owner,
            snapshot_offset: wire.at,
            partition_count: wire.parts,
            topic_id: wire.topic,
            fingerprint: wire.fp,
            records,
            accepted,
            duplicates,
            dead_letters,
            results,
        })
    }

    /// The moment up to which everything has been processed: all records below the offset, and the
    /// idle advances at the offset that it declares.
    #[must_use]
    pub fn moment(&self) -> Moment {
        let idle_watermark = self
            .forced
            .filter(|forced| forced.position == self.offset)
            .map_or(i64::MIN, |forced| forced.watermark_ms);
        Moment::idle(self.offset, idle_watermark)
    }
}

impl Commit {
    /// Results and dead letters that it counts.
    #[must_use]
    pub fn outputs(&self) -> i64 {
        i64::try_from(self.dead_letters.saturating_add(self.results)).unwrap_or(i64::MAX)
    }
}

fn require_hex(text: &str, digits: usize, field: &str) -> Result<(), String> {
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() == digits && text.bytes().all(lower_hex) {
        Ok(())
    } else {
        Err(format!(
            "`{field}` is {text:?}, expected {digits} lower-case hex digits"
        ))
    }
}
