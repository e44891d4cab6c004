//! Where state and checkpoints go, as the configuration says.

use object_store::ObjectStore;
use processor::adapters::local_state::LocalState;
use processor::adapters::objects::{self, ObjectsError};
use processor::config::ProcessorConfig;
use processor::io::StateError;
use std::sync::Arc;

/// The store of checkpoints.
///
/// # Errors
/// When `checkpoint.url` cannot be opened.
pub fn checkpoints(config: &ProcessorConfig) -> Result<Arc<dyn ObjectStore>, ObjectsError> {
    objects::open(&config.checkpoint)
}

/// The local state of one worker.
///
/// # Errors
/// When `state.directory` cannot be written.
pub fn state(config: &ProcessorConfig, incarnation: &str) -> Result<LocalState, StateError> {
    LocalState::open(&config.state, config.worker.ordinal, incarnation)
}
