//! The disk of a simulated machine with the production store on it: RocksDB in a folder of its own.
//!
//! RocksDB has threads, and takes its time and its random numbers from wherever the world's thread finds
//! them. None of that can reach a run: every call is synchronous, and what it answers depends only on
//! what the store was given before, wherever that lies by now. Its threads decide in which file it lies;
//! nobody in the world can tell that.

use bytes::Bytes;
use processor::adapters::rocks::RocksStateStore;
use processor::io::{PieceKey, StateBatch, StateError, StateStore};
use processor::units::PartitionId;
use sim::disk::{Disk, Disks, LocalState};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// The least that RocksDB takes: pieces of a simulated run soon lie in files.
const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// What was done with the disks of a world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub machines: u64,
    pub starts: u64,
    /// Starts that found what killed processes had left on this machine.
    pub starts_after_kills: u64,
    pub kills: u64,
    pub pieces_put: u64,
    pub bytes_put: u64,
    pub pieces_read: u64,
    pub partitions_dropped: u64,
    /// Files of pieces that killed processes left behind.
    pub files_left: u64,
}

/// Counts of all the disks of one world.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Usage>>);

impl Meter {
    pub fn usage(&self) -> Usage {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Usage> {
        self.0.lock().expect("a test is over when it panics")
    }
}

/// Disks below `directory`, a folder a machine.
pub fn in_folders(directory: &Path, meter: &Meter) -> Disks {
    let (directory, meter) = (directory.to_owned(), meter.clone());
    Arc::new(move || {
        meter.lock().machines += 1;
        let number = meter.usage().machines;
        Box::new(RocksDisk {
            folder: directory.join(format!("machine-{number}")),
            running: Slot::default(),
            meter: meter.clone(),
        })
    })
}

/// The store of a process, until it ends.
type Slot = Arc<Mutex<Option<RocksStateStore>>>;

struct RocksDisk {
    folder: PathBuf,
    /// Of the process that was started last.
    running: Slot,
    meter: Meter,
}

impl Disk for RocksDisk {
    fn open(&mut self, ordinal: u32, incarnation: &str) -> Result<LocalState, StateError> {
        let of_worker = self.folder.join(format!("worker-{ordinal}"));
        let left = entries(&of_worker);
        let store = RocksStateStore::open_with_buffer(
            &self.folder,
            ordinal,
            incarnation,
            WRITE_BUFFER_BYTES,
        )?;
        assert_eq!(entries(&of_worker), [store.folder()], "leftovers go");
        let mut meter = self.meter.lock();
        meter.starts += 1;
        meter.starts_after_kills += u64::from(!left.is_empty());
        self.running = Arc::new(Mutex::new(Some(store)));
        Ok(LocalState::new(Process {
            store: self.running.clone(),
            meter: self.meter.clone(),
        }))
    }

    /// Leaves the files as they are at this moment: what RocksDB holds in memory is lost, nothing is
    /// flushed, nothing is closed.
    fn kill(&mut self) {
        let Some(store) = self.running.lock().expect("one process at a time").take() else {
            return; // it has ended by itself
        };
        let folder = store.folder().to_owned();
        let copy = self.folder.join("killed");
        let files = copy_files(&folder, &copy).expect("the disk is sound");
        // Closes it, to let go of its lock, and removes the folder.
        drop(store);
        fs::create_dir_all(folder.parent().expect("it is a worker's")).expect("writable");
        fs::rename(copy, folder).expect("both are on one disk");
        let mut meter = self.meter.lock();
        meter.kills += 1;
        meter.files_left += files;
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Copies what is there; RocksDB goes on meanwhile. Returns the number of files with pieces.
fn copy_files(from: &Path, to: &Path) -> io::Result<u64> {
    fs::create_dir_all(to)?;
    let mut files = 0;
    for path in entries(from) {
        match fs::copy(&path, to.join(path.file_name().expect("it is an entry"))) {
            Ok(_) => files += u64::from(has_pieces(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // removed meanwhile
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

fn has_pieces(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    matches!(ending, Some("sst" | "blob"))
}

/// What a process has of the disk. When the process ends by itself, the store is closed with it.
struct Process {
    store: Slot,
    meter: Meter,
}

impl Process {
    fn with<T>(&self, call: impl FnOnce(&mut RocksStateStore) -> T) -> T {
        let mut store = self.store.lock().expect("one process at a time");
        call(store.as_mut().expect("what is killed calls nothing"))
    }
}

impl StateStore for Process {
    fn apply(&mut self, partition: PartitionId, batch: StateBatch) -> Result<(), StateError> {
        let bytes: usize = batch.puts.iter().map(|(_, content)| content.len()).sum();
        let mut meter = self.meter.lock();
        meter.pieces_put += batch.puts.len() as u64;
        meter.bytes_put += bytes as u64;
        drop(meter);
        self.with(|store| store.apply(partition, batch))
    }

    fn get(&mut self, partition: PartitionId, key: PieceKey) -> Result<Bytes, StateError> {
        self.meter.lock().pieces_read += 1;
        self.with(|store| store.get(partition, key))
    }

    fn drop_partition(&mut self, partition: PartitionId) -> Result<(), StateError> {
        self.meter.lock().partitions_dropped += 1;
        self.with(|store| store.drop_partition(partition))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(mut store) = self.store.lock() {
            *store = None;
        }
    }
}
