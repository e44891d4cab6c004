//! Files that several tasks share at a time: they are locked, and they change in one step.

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::path::Path;

/// Waits until no other task holds the lock of that file, and holds it until the answer is dropped.
/// The folder is created if it is not there.
///
/// # Errors
/// When the file cannot be written.
pub fn lock(path: &Path) -> anyhow::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let file = File::create(path).with_context(|| path.display().to_string())?;
    file.lock().with_context(|| path.display().to_string())?;
    Ok(file)
}

/// What the file says; `None` when there is no such file.
///
/// # Errors
/// When it cannot be read or understood.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let value = serde_json::from_str(&text);
    value.with_context(|| format!("{} cannot be understood", path.display()))
}

/// Writes a file in one step: a reader sees the old one or the new one.
///
/// # Errors
/// When it cannot be written.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let new = path.with_extension("json.new");
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(&new, text).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
}
