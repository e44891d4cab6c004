//! Local state in memory: for state that fits, and for trials.

use crate::io::{PieceKey, StateBatch, StateError, StateStore};
use crate::units::PartitionId;
use bytes::Bytes;
use std::collections::BTreeMap;

/// A [`StateStore`] in memory.
#[derive(Debug, Default)]
pub struct MemoryStateStore {
    partitions: BTreeMap<PartitionId, BTreeMap<PieceKey, Bytes>>,
}

impl MemoryStateStore {
    /// Keys of all pieces of a partition, ascending.
    pub fn keys(&self, partition: PartitionId) -> impl Iterator<Item = PieceKey> {
        let pieces = self.partitions.get(&partition);
        pieces.into_iter().flat_map(BTreeMap::keys).copied()
    }
}

impl StateStore for MemoryStateStore {
    fn apply(&mut self, partition: PartitionId, batch: StateBatch) -> Result<(), StateError> {
        let pieces = self.partitions.entry(partition).or_default();
        pieces.extend(batch.puts);
        for key in batch.deletes {
            pieces.remove(&key);
        }
        Ok(())
    }

    fn get(&mut self, partition: PartitionId, key: PieceKey) -> Result<Bytes, StateError> {
        let pieces = self.partitions.get(&partition);
        let found = pieces.and_then(|pieces| pieces.get(&key));
        found
            .cloned()
            .ok_or_else(|| StateError::missing(partition, key))
    }

    fn drop_partition(&mut self, partition: PartitionId) -> Result<(), StateError> {
        self.partitions.remove(&partition);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::BucketKey;

    const P: PartitionId = PartitionId(3);

    fn piece(bucket: i64, content: &'static str) -> (PieceKey, Bytes) {
        let content = Bytes::from(content);
        (PieceKey::of(BucketKey(bucket), &content), content)
    }

    #[test]
    fn a_piece_is_there_until_it_is_deleted_and_says_so_afterwards() {
        let mut store = MemoryStateStore::default();
        let (a, b) = (piece(60, "a"), piece(120, "b"));
        let batch = StateBatch {
            puts: vec![a.clone(), b.clone()],
            deletes: vec![],
        };
        store.apply(P, batch).unwrap();
        assert_eq!(store.get(P, a.0), Ok(a.1));
        let batch = StateBatch {
            puts: vec![],
            deletes: vec![a.0],
        };
        store.apply(P, batch).unwrap();
        let error = store.get(P, a.0).unwrap_err().to_string();
        assert!(
            error.contains("is gone") && error.contains("again"),
            "{error}"
        );
        assert_eq!(store.keys(P).collect::<Vec<_>>(), [b.0]);
        store.drop_partition(P).unwrap();
        assert!(store.get(P, b.0).is_err());
    }

    #[test]
    fn names_of_pieces_are_read_back_and_nothing_else_is() {
        let (key, content) = piece(1_381_132_800_000, "a");
        let name = key.to_string();
        assert_eq!(name.parse(), Ok(key));
        assert!(key.names(&content) && !key.names(b"b"));
        let upper = name.to_uppercase();
        for wrong in [
            "",
            "1-",
            "-1",
            "1-2",
            "x-00",
            &upper,
            &name[1..name.len() - 1],
        ] {
            assert!(wrong.parse::<PieceKey>().is_err(), "{wrong}");
        }
    }
}
