//! The disks of worker machines: they outlive the processes that write them, and may be ahead of what was
//! committed, or another owner's.
//!
//! Comes in: [`Disks`], what a world's machines are made of. Goes out: the [`LocalState`] of each process.
//! Never here: a store on a real disk. Whoever plays a world on such ones brings them along; each answer
//! has to be a function of what the store was given, or the run is not the same on every disk.

use bytes::Bytes;
use processor::io::{PieceKey, StateBatch, StateError, StateStore};
use processor::state::MemoryStateStore;
use processor::units::PartitionId;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

/// Makes the disk of a new machine.
pub type Disks = Arc<dyn Fn() -> Box<dyn Disk> + Send + Sync>;

/// A machine's disk, as the world has it. One process is on it at a time.
pub trait Disk: Send {
    /// The local state for one start of the worker `ordinal`; each start has another `incarnation`.
    ///
    /// # Errors
    /// When the disk fails: the process ends with it.
    fn open(&mut self, ordinal: u32, incarnation: &str) -> Result<LocalState, StateError>;

    /// kill -9 of the process that has opened it last, if that still runs: what the process holds is
    /// never used any more.
    fn kill(&mut self);

    /// How often a piece was read that had been read before: for its content, not to upload it. 0 where
    /// nobody counts.
    fn read_back(&self) -> u64 {
        0
    }
}

/// The local state of one process, on whatever disk.
pub struct LocalState(Box<dyn StateStore + Send>);

impl LocalState {
    /// State in `store`.
    pub fn new(store: impl StateStore + Send + 'static) -> LocalState {
        LocalState(Box::new(store))
    }
}

impl StateStore for LocalState {
    fn apply(&mut self, partition: PartitionId, batch: StateBatch) -> Result<(), StateError> {
        self.0.apply(partition, batch)
    }

    fn get(&mut self, partition: PartitionId, key: PieceKey) -> Result<Bytes, StateError> {
        self.0.get(partition, key)
    }

    fn drop_partition(&mut self, partition: PartitionId) -> Result<(), StateError> {
        self.0.drop_partition(partition)
    }
}

/// Disks in memory.
#[must_use]
pub fn in_memory() -> Disks {
    Arc::new(|| Box::new(MemoryDisk::default()))
}

/// A disk in memory; clones are the same disk. Each process finds there whatever the ones before it have
/// written: more than a store may be asked for, so a worker that asks for too much goes on.
#[derive(Debug, Clone, Default)]
struct MemoryDisk(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    store: MemoryStateStore,
    /// What was read since it was put. A checkpoint reads a piece once, to upload it.
    read: BTreeSet<(PartitionId, PieceKey)>,
    read_again: u64,
}

impl MemoryDisk {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().expect("a world is abandoned when it panics")
    }
}

impl Disk for MemoryDisk {
    fn open(&mut self, _ordinal: u32, _incarnation: &str) -> Result<LocalState, StateError> {
        Ok(LocalState::new(self.clone()))
    }

    fn kill(&mut self) {}

    fn read_back(&self) -> u64 {
        self.lock().read_again
    }
}

impl StateStore for MemoryDisk {
    fn apply(&mut self, partition: PartitionId, batch: StateBatch) -> Result<(), StateError> {
        let mut content = self.lock();
        for (key, _) in &batch.puts {
            content.read.remove(&(partition, *key));
        }
        content.store.apply(partition, batch)
    }

    fn get(&mut self, partition: PartitionId, key: PieceKey) -> Result<Bytes, StateError> {
        let mut content = self.lock();
        if !content.read.insert((partition, key)) {
            content.read_again += 1;
        }
        content.store.get(partition, key)
    }

    fn drop_partition(&mut self, partition: PartitionId) -> Result<(), StateError> {
        let mut content = self.lock();
        content.read.retain(|(of, _)| *of != partition);
        content.store.drop_partition(partition)
    }
}
