//! The local state of a machine: it outlives the processes that write it, and may be ahead of what was
//! committed, or another owner's.

use bytes::Bytes;
use processor::io::{PieceKey, StateBatch, StateError, StateStore};
use processor::state::MemoryStateStore;
use processor::units::PartitionId;
use std::sync::{Arc, Mutex, MutexGuard};

/// A machine's disk; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<MemoryStateStore>>);

impl Disk {
    fn lock(&self) -> MutexGuard<'_, MemoryStateStore> {
        self.0.lock().expect("a world is abandoned when it panics")
    }
}

impl StateStore for Disk {
    fn apply(&mut self, partition: PartitionId, batch: StateBatch) -> Result<(), StateError> {
        self.lock().apply(partition, batch)
    }

    fn get(&mut self, partition: PartitionId, key: PieceKey) -> Result<Bytes, StateError> {
        self.lock().get(partition, key)
    }

    fn drop_partition(&mut self, partition: PartitionId) -> Result<(), StateError> {
        self.lock().drop_partition(partition)
    }
}
