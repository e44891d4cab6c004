//! The local state that the configuration asks for.

use crate::adapters::rocks::RocksStateStore;
use crate::config::{StateConfig, StateKind};
use crate::io::{PieceKey, StateBatch, StateError, StateStore};
use crate::state::MemoryStateStore;
use crate::units::PartitionId;
use bytes::Bytes;
use std::path::Path;

/// State in RocksDB or in memory.
pub enum LocalState {
    /// On disk.
    Rocks(RocksStateStore),
    /// In memory.
    Memory(MemoryStateStore),
}

impl LocalState {
    /// Opens an empty store for the worker `ordinal` of this start.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn open(
        config: &StateConfig,
        ordinal: u32,
        incarnation: &str,
    ) -> Result<LocalState, StateError> {
        match config.store {
            StateKind::RocksDb => {
                let directory = Path::new(&config.directory);
                RocksStateStore::open(directory, ordinal, incarnation).map(LocalState::Rocks)
            }
            StateKind::Memory => Ok(LocalState::Memory(MemoryStateStore::default())),
        }
    }
}

impl StateStore for LocalState {
    fn apply(&mut self, partition: PartitionId, batch: StateBatch) -> Result<(), StateError> {
        match self {
            LocalState::Rocks(store) => store.apply(partition, batch),
            LocalState::Memory(store) => store.apply(partition, batch),
        }
    }

    fn get(&mut self, partition: PartitionId, key: PieceKey) -> Result<Bytes, StateError> {
        match self {
            LocalState::Rocks(store) => store.get(partition, key),
            LocalState::Memory(store) => store.get(partition, key),
        }
    }

    fn drop_partition(&mut self, partition: PartitionId) -> Result<(), StateError> {
        match self {
            LocalState::Rocks(store) => store.drop_partition(partition),
            LocalState::Memory(store) => store.drop_partition(partition),
        }
    }
}
