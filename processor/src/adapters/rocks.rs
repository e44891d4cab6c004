//! Local state in RocksDB: what does not fit into memory.
//!
//! Comes in: a directory. Goes out: a [`StateStore`] whose pieces are on disk.
//! Never here: anything that a recovery needs. The checkpoint has all of that; so nothing is synced, no
//! write-ahead log is kept, and what an older process left behind is removed unread.
//!
//! Each start has a folder of its own, `<directory>/worker-<ordinal>/<incarnation>`: two processes that
//! were given one ordinal by mistake do not meet here.

use crate::io::{PieceKey, StateBatch, StateError, StateStore};
use crate::units::PartitionId;
use bytes::Bytes;
use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, Options, WriteBatch};
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of the cache of heads and indexes. Identities are read once, as a whole, and gain nothing by it.
const CACHE_BYTES: usize = 8 << 20;
/// Bytes of pieces that are in memory before they are written to a file, where nobody asks for others.
const WRITE_BUFFER_BYTES: usize = 16 << 20;
/// Pieces from this size on are kept apart from the keys, so that they are not written again and again
/// while keys are sorted.
const LARGE_BYTES: u64 = 4 << 10;
/// Size of a file of such pieces.
const LARGE_FILE_BYTES: u64 = 64 << 20;
const OPEN_FILES_MAX: i32 = 256;
/// Bytes of a key: partition, bucket and hash, each ordered as a number.
const KEY_BYTES: usize = 28;

/// A [`StateStore`] in RocksDB. Its folder goes with it.
pub struct RocksStateStore {
    /// `None` only while it is dropped.
    db: Option<DB>,
    folder: PathBuf,
}

impl RocksStateStore {
    /// An empty store for the worker `ordinal` of this start. What former starts of that worker have left
    /// behind is removed, unless they still use it.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn open(
        directory: &Path,
        ordinal: u32,
        incarnation: &str,
    ) -> Result<RocksStateStore, StateError> {
        RocksStateStore::open_with_buffer(directory, ordinal, incarnation, WRITE_BUFFER_BYTES)
    }

    /// As [`RocksStateStore::open`], with another number of bytes that pieces take in memory before they
    /// are written to a file. RocksDB takes no fewer than 64 KiB.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn open_with_buffer(
        directory: &Path,
        ordinal: u32,
        incarnation: &str,
        write_buffer_bytes: usize,
    ) -> Result<RocksStateStore, StateError> {
        let of_worker = directory.join(format!("worker-{ordinal}"));
        remove_leftovers(&of_worker);
        let folder = of_worker.join(incarnation);
        let failed = |cause: &dyn std::fmt::Display| {
            StateError(format!(
                "{}: {cause}; state.directory must be a local directory that this user may write",
                folder.display()
            ))
        };
        fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
        let db = DB::open(&options(write_buffer_bytes), &folder).map_err(|error| failed(&error))?;
        let db = Some(db);
        Ok(RocksStateStore { db, folder })
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn db(&self) -> &DB {
        self.db
            .as_ref()
            .expect("the store is open until it is dropped")
    }

    fn failed(&self, cause: &rocksdb::Error) -> StateError {
        StateError(format!(
            "RocksDB in {}: {cause}; see that the disk has room and that nothing removes this folder, \
             then start the process again: it takes everything from the last checkpoint",
            self.folder.display()
        ))
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StateError> {
        let written = self.db().write_without_wal(batch);
        written.map_err(|error| self.failed(&error))
    }
}

impl StateStore for RocksStateStore {
    fn apply(&mut self, partition: PartitionId, batch: StateBatch) -> Result<(), StateError> {
        let mut writes = WriteBatch::default();
        for (key, content) in &batch.puts {
            writes.put(encode(partition, *key), content);
        }
        for key in &batch.deletes {
            writes.delete(encode(partition, *key));
        }
        self.write(writes)
    }

    fn get(&mut self, partition: PartitionId, key: PieceKey) -> Result<Bytes, StateError> {
        match self.db().get(encode(partition, key)) {
            Ok(Some(content)) => Ok(Bytes::from(content)),
            Ok(None) => Err(StateError::missing(partition, key)),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn drop_partition(&mut self, partition: PartitionId) -> Result<(), StateError> {
        let from = ordered(partition.0);
        let mut writes = WriteBatch::default();
        // Longer than any key with this beginning, and greater.
        let mut to = [u8::MAX; KEY_BYTES + 1];
        to[..from.len()].copy_from_slice(&from);
        writes.delete_range(from.as_slice(), to.as_slice());
        self.write(writes)
    }
}

impl Drop for RocksStateStore {
    fn drop(&mut self) {
        self.db = None;
        // Whoever starts next removes what is left.
        let _ = fs::remove_dir_all(&self.folder);
        if let Some(of_worker) = self.folder.parent() {
            // Only when no other start of this worker has anything in it.
            let _ = fs::remove_dir(of_worker);
        }
    }
}

/// Removes the folders of former starts. One that is still open is locked, and stays.
fn remove_leftovers(of_worker: &Path) {
    let Ok(entries) = fs::read_dir(of_worker) else {
        return; // the first start
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if DB::destroy(&Options::default(), &path).is_ok() {
            // What cannot be removed now is tried again at the next start.
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn options(write_buffer_bytes: usize) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(write_buffer_bytes);
    options.set_max_write_buffer_number(2);
    options.set_max_background_jobs(2);
    options.set_max_open_files(OPEN_FILES_MAX);
    // Identities are hashes: compressing them only takes time.
    options.set_enable_blob_files(true);
    options.set_min_blob_size(LARGE_BYTES);
    options.set_blob_file_size(LARGE_FILE_BYTES);
    options.set_blob_compression_type(DBCompressionType::None);
    // All of it is short-lived: files of deleted pieces go as soon as half of them is garbage.
    options.set_enable_blob_gc(true);
    options.set_blob_gc_age_cutoff(1.0);
    options.set_blob_gc_force_threshold(0.5);
    options.set_stats_dump_period_sec(0);
    options.set_keep_log_file_num(1);
    options.set_max_log_file_size(1 << 20);
    options
}

fn encode(partition: PartitionId, key: PieceKey) -> [u8; KEY_BYTES] {
    let mut encoded = [0; KEY_BYTES];
    encoded[..4].copy_from_slice(&ordered(partition.0));
    encoded[4..12].copy_from_slice(&((key.bucket.0 as u64) ^ (1 << 63)).to_be_bytes());
    encoded[12..].copy_from_slice(&key.hash.to_be_bytes());
    encoded
}

/// Bytes whose order is the order of the numbers.
fn ordered(partition: i32) -> [u8; 4] {
    ((partition as u32) ^ (1 << 31)).to_be_bytes()
}
