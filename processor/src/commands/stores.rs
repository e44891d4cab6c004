//! Where state and checkpoints go, as the configuration says.

use anyhow::{Context, bail};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use processor::config::ProcessorConfig;
use std::sync::Arc;

/// The store of checkpoints.
///
/// # Errors
/// When `checkpoint.url` cannot be opened.
pub fn checkpoints(config: &ProcessorConfig) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let url = &config.checkpoint.url;
    if let Some(folder) = url.strip_prefix("file://") {
        std::fs::create_dir_all(folder).with_context(|| format!("checkpoint.url = \"{url}\""))?;
        return Ok(Arc::new(LocalFileSystem::new_with_prefix(folder)?));
    }
    if url == "memory:///" {
        return Ok(Arc::new(InMemory::new()));
    }
    bail!("checkpoint.url = \"{url}\": only file:/// and memory:/// are there");
}
