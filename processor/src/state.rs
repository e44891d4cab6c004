//! Local state in memory: for state that fits, and for trials.

use crate::io::{BucketKey, StateBatch, StateError, StateFile, StateStore};
use crate::units::PartitionId;
use bytes::Bytes;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

#[derive(Debug, Clone)]
struct Bucket {
    content: Bytes,
    /// Name of its checkpoint file: the key and the hash of the content.
    file: String,
}

/// A [`StateStore`] in memory. A checkpoint has one file a bucket, named by its content, so only
/// buckets that changed are uploaded again.
#[derive(Debug, Default)]
pub struct MemoryStateStore {
    partitions: BTreeMap<PartitionId, BTreeMap<BucketKey, Bucket>>,
}

fn file_name(key: BucketKey, content: &[u8]) -> String {
    format!("{}-{:032x}", key.0, xxh3_128(content))
}

impl StateStore for MemoryStateStore {
    fn apply(&mut self, partition: PartitionId, batch: StateBatch) -> Result<(), StateError> {
        let buckets = self.partitions.entry(partition).or_default();
        for (key, content) in batch.puts {
            let file = file_name(key, &content);
            buckets.insert(key, Bucket { content, file });
        }
        for key in batch.deletes {
            buckets.remove(&key);
        }
        Ok(())
    }

    fn read(&mut self, partition: PartitionId) -> Result<Vec<(BucketKey, Bytes)>, StateError> {
        let buckets = self.partitions.get(&partition);
        Ok(buckets
            .into_iter()
            .flatten()
            .map(|(key, bucket)| (*key, bucket.content.clone()))
            .collect())
    }

    fn checkpoint(&mut self, partition: PartitionId) -> Result<Vec<StateFile>, StateError> {
        let buckets = self.partitions.get(&partition);
        let mut files: Vec<StateFile> = buckets
            .into_iter()
            .flatten()
            .map(|(_, bucket)| StateFile {
                name: bucket.file.clone(),
                content: bucket.content.clone(),
            })
            .collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    fn restore(&mut self, partition: PartitionId, files: Vec<StateFile>) -> Result<(), StateError> {
        let mut buckets = BTreeMap::new();
        for file in files {
            let key = bucket_of(&file)?;
            buckets.insert(
                key,
                Bucket {
                    content: file.content,
                    file: file.name,
                },
            );
        }
        self.partitions.insert(partition, buckets);
        Ok(())
    }

    fn drop_partition(&mut self, partition: PartitionId) -> Result<(), StateError> {
        self.partitions.remove(&partition);
        Ok(())
    }
}

fn bucket_of(file: &StateFile) -> Result<BucketKey, StateError> {
    let damaged = |what: &str| {
        StateError(format!(
            "checkpoint file {}: {what}; restore an older checkpoint",
            file.name
        ))
    };
    let (key, _) = file
        .name
        .rsplit_once('-')
        .ok_or_else(|| damaged("its name is not <bucket>-<hash>"))?;
    let key = key
        .parse()
        .map(BucketKey)
        .map_err(|_| damaged("its name does not begin with a number"))?;
    if file_name(key, &file.content) != file.name {
        return Err(damaged("its content does not match its name"));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId(3);

    fn put(key: i64, content: &'static str) -> (BucketKey, Bytes) {
        (BucketKey(key), Bytes::from(content))
    }

    #[test]
    fn a_checkpoint_restores_the_same_state_and_unchanged_files_keep_their_names() {
        let mut store = MemoryStateStore::default();
        let puts = vec![put(60, "a"), put(120, "b")];
        store
            .apply(
                P,
                StateBatch {
                    puts,
                    deletes: vec![],
                },
            )
            .unwrap();
        let first = store.checkpoint(P).unwrap();
        let batch = StateBatch {
            puts: vec![put(120, "c"), put(180, "d")],
            deletes: vec![],
        };
        store.apply(P, batch).unwrap();
        let second = store.checkpoint(P).unwrap();
        let kept = second.iter().filter(|file| first.contains(file)).count();
        assert_eq!((first.len(), second.len(), kept), (2, 3, 1));

        let mut other = MemoryStateStore::default();
        other.restore(P, second).unwrap();
        assert_eq!(other.read(P).unwrap(), store.read(P).unwrap());
    }

    #[test]
    fn a_damaged_file_is_refused_by_name() {
        let mut store = MemoryStateStore::default();
        store
            .apply(
                P,
                StateBatch {
                    puts: vec![put(60, "a")],
                    deletes: vec![],
                },
            )
            .unwrap();
        let mut files = store.checkpoint(P).unwrap();
        files[0].content = Bytes::from_static(b"x");
        let error = store.restore(P, files).unwrap_err();
        assert!(
            error.to_string().contains("does not match its name"),
            "{error}"
        );
    }

    #[test]
    fn a_dropped_partition_is_empty() {
        let mut store = MemoryStateStore::default();
        store
            .apply(
                P,
                StateBatch {
                    puts: vec![put(60, "a")],
                    deletes: vec![],
                },
            )
            .unwrap();
        store.drop_partition(P).unwrap();
        assert_eq!(store.read(P).unwrap(), vec![]);
    }
}
