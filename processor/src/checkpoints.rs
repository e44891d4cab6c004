//! Checkpoints in the object store: where they lie, how they are listed, and how one is loaded.
//!
//! Layout, below `<prefix>/<group>/<topic>/<partition>/`:
//! - `manifests/<snapshot id>.json`, created conditionally; the id begins with the offset and names
//!   its owner, so two owners never write the same one;
//! - `files/<term>-<incarnation>/<piece>`: pieces of state belong to the owner that uploaded them. An
//!   owner refers to older owners' pieces only through the committed snapshot it recovered from, so
//!   whatever an owner's garbage collection finds unreachable, no later owner can have come to need.
//!
//! Comes in: an object store and a place in it. Goes out: [`CheckpointInfo`]s, and any retained
//! checkpoint as a [`PartitionTask`].
//! Never here: what is written and deleted, and when; that is the worker's matter.

use crate::config::ProcessorConfig;
use crate::core::{CoreConfig, Digest, PartitionTask, SnapshotError, snapshot_heads};
use crate::io::PieceKey;
use crate::units::{Offset, PartitionId};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Format version of manifests.
pub const MANIFEST_VERSION: u32 = 2;
/// Requests to the object store that are under way at once.
pub(crate) const REQUESTS_MAX: usize = 8;

/// Bytes of pieces that are held in memory at once while they are moved.
const PORTION_BYTES: u64 = 32 << 20;

/// Cuts pieces into portions that may be in memory at once.
pub(crate) fn portions(pieces: &[(PieceKey, u64)]) -> impl Iterator<Item = &[(PieceKey, u64)]> {
    let mut rest = pieces;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |(_, size): &&(PieceKey, u64)| {
            bytes += size;
            bytes <= PORTION_BYTES
        };
        let count = rest.iter().take_while(fits).count();
        // A piece that is larger than a portion goes alone.
        let count = count.max(1).min(rest.len());
        let (portion, later) = rest.split_at(count);
        rest = later;
        (!portion.is_empty()).then_some(portion)
    })
}

/// Where the checkpoints of one partition lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Input topic.
    pub topic: String,
    /// Partition.
    pub partition: PartitionId,
    folder: String,
}

impl Place {
    /// `prefix` is the configured one, `group` the consumer group.
    #[must_use]
    pub fn new(prefix: &str, group: &str, topic: &str, partition: PartitionId) -> Place {
        Place {
            topic: topic.to_owned(),
            partition,
            folder: format!("{prefix}/{group}/{topic}/{partition}"),
        }
    }

    /// The place that a configuration gives to a partition.
    #[must_use]
    pub fn of(config: &ProcessorConfig, partition: PartitionId) -> Place {
        let (prefix, kafka) = (&config.checkpoint.prefix, &config.kafka);
        Place::new(prefix, &kafka.group_id, &kafka.input_topic, partition)
    }

    /// Path of the folder, without a slash at its end.
    #[must_use]
    pub fn folder(&self) -> &str {
        &self.folder
    }

    pub(crate) fn manifests(&self) -> Path {
        Path::from(format!("{}/manifests", self.folder))
    }

    pub(crate) fn manifest(&self, id: &str) -> Path {
        Path::from(format!("{}/manifests/{id}.json", self.folder))
    }

    pub(crate) fn file(&self, term: u64, owner: &str, key: PieceKey) -> String {
        format!("{}/files/{term}-{owner}/{key}", self.folder)
    }
}

/// One piece of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Name in the state store.
    pub name: String,
    /// Path in the object store.
    pub path: String,
    /// Size.
    pub bytes: u64,
}

/// What a snapshot consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version.
    pub version: u32,
    /// Input topic.
    pub topic: String,
    /// Partition.
    pub partition: PartitionId,
    /// Position: the next offset to process.
    pub offset: Offset,
    /// Digest at that position.
    pub digest: Digest,
    /// Fingerprint of the configuration it was made under.
    pub fingerprint: String,
    /// Owner's term.
    pub term: u64,
    /// Owner's incarnation.
    pub owner: String,
    /// When it was made, by the owner's clock, Unix milliseconds.
    pub made_unix_ms: i64,
    /// Ids of the older snapshots that were retained then, oldest first; commit records have named all
    /// of them.
    pub retained: Vec<String>,
    /// The task's header, base64.
    pub header: String,
    /// Pieces of state.
    pub files: Vec<ManifestFile>,
}

impl Manifest {
    /// The header's bytes.
    ///
    /// # Errors
    /// If it is not base64.
    pub fn header_bytes(&self) -> Result<Vec<u8>, String> {
        BASE64
            .decode(&self.header)
            .map_err(|error| format!("its header is not base64: {error}"))
    }

    pub(crate) fn encode_header(header: &[u8]) -> String {
        BASE64.encode(header)
    }

    /// Paths of its pieces.
    ///
    /// # Errors
    /// If a name is not one of a piece.
    pub(crate) fn paths(&self) -> Result<BTreeMap<PieceKey, String>, String> {
        let files = self.files.iter();
        files
            .map(|file| Ok((file.name.parse()?, file.path.clone())))
            .collect()
    }
}

/// Why a snapshot could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The object store does not answer as it should now.
    #[error("the object store: {0}; try again, or check checkpoint.url and the credentials")]
    Store(object_store::Error),
    /// The manifest or a piece is missing, damaged or of another version.
    #[error("{0}; take another checkpoint: `state dump` lists them")]
    Damaged(String),
    /// The state itself cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl From<object_store::Error> for LoadError {
    fn from(error: object_store::Error) -> LoadError {
        match error {
            object_store::Error::NotFound { path, .. } => {
                LoadError::Damaged(format!("its object {path} is missing"))
            }
            error => LoadError::Store(error),
        }
    }
}

/// A checkpoint that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// Its id, as commit records name it.
    pub id: String,
    /// Position: the next offset to process.
    pub offset: Offset,
    /// Owner's term.
    pub term: u64,
    /// Owner's incarnation.
    pub owner: String,
    /// Fingerprint of the configuration it was made under.
    pub fingerprint: String,
    /// When it was made, by the owner's clock, Unix milliseconds.
    pub made_unix_ms: i64,
    /// Pieces of state.
    pub files: usize,
    /// Their size, whichever checkpoint uploaded them.
    pub bytes: u64,
}

impl CheckpointInfo {
    fn of(id: String, manifest: &Manifest) -> CheckpointInfo {
        CheckpointInfo {
            id,
            offset: manifest.offset,
            term: manifest.term,
            owner: manifest.owner.clone(),
            fingerprint: manifest.fingerprint.clone(),
            made_unix_ms: manifest.made_unix_ms,
            files: manifest.files.len(),
            bytes: manifest.files.iter().map(|file| file.bytes).sum(),
        }
    }
}

/// All checkpoints of a partition, ascending by offset, then by term; those whose manifest is damaged or
/// of another format version are left out. Some may be younger than the last commit, or not collected
/// yet.
///
/// # Errors
/// [`LoadError::Store`].
pub async fn list(
    objects: &dyn ObjectStore,
    place: &Place,
) -> Result<Vec<CheckpointInfo>, LoadError> {
    let listed: Vec<ObjectMeta> = objects
        .list(Some(&place.manifests()))
        .try_collect()
        .await
        .map_err(LoadError::Store)?;
    let ids = listed.iter().filter_map(|meta| {
        let name = meta.location.filename()?;
        name.strip_suffix(".json").map(str::to_owned)
    });
    let ids: Vec<String> = ids.collect();
    let mut reading = futures_util::stream::iter(ids)
        .map(|id| async move {
            let manifest = read_manifest(objects, place, &id).await;
            (id, manifest)
        })
        .buffered(REQUESTS_MAX);
    let mut infos = Vec::new();
    while let Some((id, manifest)) = reading.next().await {
        match manifest {
            Ok(manifest) => infos.push(CheckpointInfo::of(id, &manifest)),
            Err(error @ LoadError::Store(_)) => return Err(error),
            Err(_) => {}
        }
    }
    let order = |info: &CheckpointInfo| (info.offset, info.term, info.id.clone());
    infos.sort_by_key(order);
    Ok(infos)
}

/// The state of a partition as it was at a checkpoint, for looking at. Only what its windows have summed
/// up is read; the identities stay where they are, so nothing can be processed with it.
///
/// # Errors
/// [`LoadError`].
pub async fn load(
    objects: &dyn ObjectStore,
    place: &Place,
    id: &str,
    config: Arc<CoreConfig>,
) -> Result<PartitionTask, LoadError> {
    let manifest = read_manifest(objects, place, id).await?;
    let heads = read_heads(objects, &manifest).await?;
    restore(&manifest, heads, config)
}

/// Reads and checks a manifest.
pub(crate) async fn read_manifest(
    objects: &dyn ObjectStore,
    place: &Place,
    id: &str,
) -> Result<Manifest, LoadError> {
    let bytes = read(objects, &place.manifest(id)).await?;
    let manifest = parse_manifest(&bytes).map_err(LoadError::Damaged)?;
    let (topic, partition) = (&manifest.topic, manifest.partition);
    let at = format!(
        "{:020}-{}-{}-",
        manifest.offset.0, manifest.term, manifest.owner
    );
    if (topic, partition) != (&place.topic, place.partition) || !id.starts_with(&at) {
        return Err(LoadError::Damaged(format!(
            "its manifest is that of partition {partition} of {topic} at offset {}, term {}, owner {}",
            manifest.offset, manifest.term, manifest.owner
        )));
    }
    Ok(manifest)
}

/// The heads of a snapshot: few and small.
pub(crate) async fn read_heads(
    objects: &dyn ObjectStore,
    manifest: &Manifest,
) -> Result<Vec<(PieceKey, Bytes)>, LoadError> {
    let header = manifest.header_bytes().map_err(LoadError::Damaged)?;
    let paths = manifest.paths().map_err(LoadError::Damaged)?;
    let mut wanted = Vec::new();
    for key in snapshot_heads(&header)? {
        let path = paths.get(&key).ok_or(SnapshotError::PieceMissing(key))?;
        wanted.push((key, path.clone()));
    }
    read_pieces(objects, wanted).await
}

/// Reads pieces, and sees that each is the one that its name says.
pub(crate) async fn read_pieces(
    objects: &dyn ObjectStore,
    wanted: Vec<(PieceKey, String)>,
) -> Result<Vec<(PieceKey, Bytes)>, LoadError> {
    let pieces = futures_util::stream::iter(wanted).map(|(key, path)| async move {
        let content = read(objects, &Path::from(path.as_str())).await?;
        if key.names(&content) {
            Ok((key, content))
        } else {
            let cause = format!("the content of its object {path} does not match its name");
            Err(LoadError::Damaged(cause))
        }
    });
    pieces.buffered(REQUESTS_MAX).try_collect().await
}

/// The task of a snapshot whose heads were read, if manifest, header and heads agree.
pub(crate) fn restore(
    manifest: &Manifest,
    heads: Vec<(PieceKey, Bytes)>,
    config: Arc<CoreConfig>,
) -> Result<PartitionTask, LoadError> {
    let header = manifest.header_bytes().map_err(LoadError::Damaged)?;
    let task = PartitionTask::restore(config, &header, heads)?;
    if task.position() != manifest.offset || task.digest() != manifest.digest {
        return Err(LoadError::Damaged(format!(
            "its state stands at offset {}, its manifest says {}, or their digests differ",
            task.position(),
            manifest.offset
        )));
    }
    let listed: BTreeSet<PieceKey> = manifest
        .paths()
        .map_err(LoadError::Damaged)?
        .into_keys()
        .collect();
    let used: BTreeSet<PieceKey> = task.pieces().into_iter().collect();
    if let Some(&key) = used.difference(&listed).next() {
        return Err(SnapshotError::PieceMissing(key).into());
    }
    if let Some(&key) = listed.difference(&used).next() {
        return Err(SnapshotError::PieceUnexpected(key).into());
    }
    Ok(task)
}

async fn read(objects: &dyn ObjectStore, path: &Path) -> Result<Bytes, LoadError> {
    Ok(objects.get(path).await?.bytes().await?)
}

/// Reads a manifest.
fn parse_manifest(bytes: &[u8]) -> Result<Manifest, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_slice(bytes)
        .map_err(|error| format!("its manifest is not readable: {error}"))?;
    if version != MANIFEST_VERSION {
        return Err(format!(
            "its manifest has format version {version}, this program reads version \
             {MANIFEST_VERSION}: run the version that wrote it, or a newer one"
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| format!("its manifest is not readable: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_another_version_is_refused_clearly() {
        for version in [1, 3] {
            let text = format!(r#"{{"version":{version},"shape":"unknown"}}"#);
            let error = parse_manifest(text.as_bytes()).unwrap_err();
            let found = format!("format version {version}");
            assert!(error.contains(&found), "{error}");
            assert!(error.contains("reads version 2"), "{error}");
        }
    }

    #[test]
    fn a_torn_manifest_is_an_error_not_a_panic() {
        assert!(parse_manifest(br#"{"version":2,"to"#).is_err());
        assert!(parse_manifest(b"").is_err());
    }
}
