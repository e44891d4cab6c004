//! A task between memory and the state store: what goes out, what comes back, and what only the store
//! can tell. The task itself does no I/O; its caller carries the pieces.

use crate::core::pieces::{find_ids, load_ids, store_ids};
use crate::core::rules::CoreConfig;
use crate::core::snapshot::{self, SnapshotError, StateChanges};
use crate::core::task::{InputRecord, PartitionTask};
use crate::io::{BucketKey, PieceKey, StateBatch};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Memory of an identity in a table that is between 3/8 and 3/4 full, about.
const LOADED_ID_BYTES: usize = 32;
/// Memory of additions to a bucket that is not in memory, below which they are not spilled: pieces would
/// become too many.
const ADDITION_BYTES_MIN: usize = 64 << 10;

impl PartitionTask {
    /// The state as bytes: the header (everything but the windows), what changed since the last call or
    /// since [`PartitionTask::restore`], and which pieces it consists of now.
    pub fn drain_changes(&mut self) -> StateChanges {
        let dropped = std::mem::take(&mut self.dropped);
        snapshot::encode(&self.config, &self.ledger, &mut self.buckets, dropped)
    }

    /// Forgets the identities of the oldest windows until those in memory take at most `limit_bytes`,
    /// or only those of the newest window and of `keep` are left, and small additions to others. What it returns must be in the state
    /// store before anything else is asked of this task.
    #[must_use]
    pub fn spill(&mut self, limit_bytes: usize, keep: Option<BucketKey>) -> StateBatch {
        let mut batch = StateBatch::default();
        for at in 0..self.buckets.len().saturating_sub(1) {
            if self.buckets.id_bytes() <= limit_bytes {
                break;
            }
            let bucket = self.buckets.at(at);
            let least = if bucket.resident {
                1
            } else {
                ADDITION_BYTES_MIN
            };
            if bucket.id_bytes() < least || keep == Some(BucketKey(bucket.start)) {
                continue;
            }
            let config = &self.config;
            self.buckets.change(at, |bucket| {
                store_ids(config, bucket, &mut batch);
                bucket.make_absent();
            });
        }
        batch
    }

    /// The pieces that hold the identities of a bucket, as [`PartitionTask::load`] wants them.
    #[must_use]
    pub fn pieces_of(&self, bucket: BucketKey) -> Vec<PieceKey> {
        match self.buckets.position(bucket.0) {
            Ok(at) => {
                let segments = self.buckets.at(at).stored.segments.iter();
                segments.map(|segment| segment.key).collect()
            }
            Err(_) => Vec::new(),
        }
    }

    /// All stored pieces that the state refers to, ascending.
    #[must_use]
    pub fn pieces(&self) -> Vec<PieceKey> {
        let pieces = self
            .buckets
            .iter()
            .flat_map(|bucket| bucket.stored.pieces());
        let mut keys: Vec<PieceKey> = pieces.map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys
    }

    /// Takes the identities of a bucket into memory again. `contents`: those of
    /// [`PartitionTask::pieces_of`], in that order.
    ///
    /// # Errors
    /// [`SnapshotError`] when something is damaged or missing; then the bucket stays as it was.
    pub fn load(&mut self, bucket: BucketKey, contents: &[Bytes]) -> Result<(), SnapshotError> {
        let Ok(at) = self.buckets.position(bucket.0) else {
            return Ok(());
        };
        if self.buckets.at(at).resident {
            return Ok(());
        }
        let config = &self.config;
        self.buckets.change(at, |bucket| {
            let loaded = load_ids(config, bucket, contents);
            if loaded.is_err() {
                bucket.make_absent();
            }
            loaded
        })
    }

    /// Memory that the identities of a bucket would take, about, bytes.
    #[must_use]
    pub fn load_bytes(&self, bucket: BucketKey) -> usize {
        match self.buckets.position(bucket.0) {
            Ok(at) => self.buckets.at(at).live_ids() as usize * LOADED_ID_BYTES,
            Err(_) => 0,
        }
    }

    /// Finds out which identities of these records are stored in buckets that are not in memory, and
    /// remembers that until all of them are processed. For buckets that have no room in memory. `piece`
    /// gives the content of a piece.
    ///
    /// # Errors
    /// Those of `piece`, and [`SnapshotError`] when a content is damaged.
    pub fn look_up<'a, E: From<SnapshotError>>(
        &mut self,
        records: impl IntoIterator<Item = InputRecord<'a>>,
        mut piece: impl FnMut(PieceKey) -> Result<Bytes, E>,
    ) -> Result<(), E> {
        let mut questions = BTreeMap::new();
        for record in records {
            let prepared = self.prepare(&record);
            let event = prepared.event.as_ref().ok();
            if let Some(question) = event.and_then(|event| self.buckets.question_of(event)) {
                questions.insert(question, false);
            }
        }
        let starts: BTreeSet<i64> = questions.keys().map(|(start, ..)| *start).collect();
        for start in starts {
            for key in self.pieces_of(BucketKey(start)) {
                let content = piece(key)?;
                let of_bucket = questions.range_mut((start, 0, 0)..(start + 1, 0, 0));
                find_ids(&self.config, key, &content, of_bucket)?;
            }
        }
        self.buckets.answers().extend(questions);
        Ok(())
    }

    /// A task as it was when `header` was drained. `heads` are the pieces that
    /// [`crate::core::snapshot_heads`] names, in any order; the others must be in the state store. A
    /// header made under another configuration is accepted: see [`crate::core::snapshot_fingerprint`].
    ///
    /// # Errors
    /// [`SnapshotError`] when something is damaged, missing, left over or made by another release.
    pub fn restore(
        config: Arc<CoreConfig>,
        header: &[u8],
        heads: impl IntoIterator<Item = (PieceKey, Bytes)>,
    ) -> Result<Self, SnapshotError> {
        let (ledger, buckets) = snapshot::decode(&config, header, heads)?;
        Ok(Self::from_parts(config, ledger, buckets))
    }
}
