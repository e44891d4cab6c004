//! Checkpoints in the object store: one manifest a snapshot, and content-addressed files.
//!
//! Layout, below `<prefix>/<group>/<topic>/<partition>/`:
//! - `manifests/<snapshot id>.json`, created conditionally; the id begins with the offset and names
//!   its owner, so two owners never write the same one;
//! - `files/<term>-<incarnation>/<name>`: files belong to the owner that uploaded them. An owner refers
//!   to older owners' files only through the committed snapshot it recovered from, so whatever an
//!   owner's garbage collection finds unreachable, no later owner can have come to need.

use crate::core::Digest;
use crate::io::StateFile;
use crate::units::{Offset, PartitionId};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Format version of manifests.
pub const MANIFEST_VERSION: u32 = 1;

/// One file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Name in the state store.
    pub name: String,
    /// Path in the object store.
    pub path: String,
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
    /// The task's header, base64.
    pub header: String,
    /// Files of the state store.
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
}

/// A snapshot that is safely in the object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Id, as the commit record names it.
    pub id: String,
    /// Position.
    pub at: Offset,
    /// Its files: state-store name → object path.
    pub files: BTreeMap<String, String>,
}

/// Why a snapshot could not be loaded.
#[derive(Debug)]
pub enum LoadError {
    /// The object store failed, or an object is missing.
    Store(object_store::Error),
    /// The manifest is damaged or of another version.
    Damaged(String),
}

/// Everything that identifies a snapshot to be stored.
#[derive(Debug, Clone)]
pub struct SnapshotContent {
    /// Position.
    pub at: Offset,
    /// Digest at that position.
    pub digest: Digest,
    /// The task's header.
    pub header: Bytes,
    /// Files of the state store.
    pub files: Vec<StateFile>,
}

/// Access to the checkpoints of one partition, for one owner.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    objects: Arc<dyn ObjectStore>,
    folder: String,
    topic: String,
    partition: PartitionId,
    fingerprint: String,
    term: u64,
    owner: String,
}

impl Checkpoints {
    /// `prefix`: configured prefix with the group; `owner`: this process's incarnation.
    #[must_use]
    pub fn new(
        objects: Arc<dyn ObjectStore>,
        prefix: &str,
        topic: &str,
        partition: PartitionId,
        fingerprint: String,
        owner: &str,
    ) -> Checkpoints {
        Checkpoints {
            objects,
            folder: format!("{prefix}/{topic}/{partition}"),
            topic: topic.to_owned(),
            partition,
            fingerprint,
            term: 0,
            owner: owner.to_owned(),
        }
    }

    /// Sets this owner's term, known once the commit record has been read.
    pub fn begin_term(&mut self, term: u64) {
        self.term = term;
    }

    fn manifest_path(&self, id: &str) -> Path {
        Path::from(format!("{}/manifests/{id}.json", self.folder))
    }

    /// Path of any manifest of the partition (the newest by name), if there is one.
    ///
    /// # Errors
    /// The object store's.
    pub async fn newest_manifest(&self) -> object_store::Result<Option<String>> {
        let prefix = Path::from(format!("{}/manifests", self.folder));
        let listed: Vec<ObjectMeta> = self.objects.list(Some(&prefix)).try_collect().await?;
        Ok(listed
            .into_iter()
            .map(|meta| meta.location.to_string())
            .max())
    }

    /// Loads a snapshot: its manifest and files.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load(&self, id: &str) -> Result<(Manifest, Vec<StateFile>), LoadError> {
        let bytes = self.read(&self.manifest_path(id)).await?;
        let manifest = parse_manifest(&bytes).map_err(LoadError::Damaged)?;
        let mut files = Vec::with_capacity(manifest.files.len());
        for file in &manifest.files {
            let content = self.read(&Path::from(file.path.as_str())).await?;
            let name = file.name.clone();
            files.push(StateFile { name, content });
        }
        Ok((manifest, files))
    }

    async fn read(&self, path: &Path) -> Result<Bytes, LoadError> {
        let got = self.objects.get(path).await.map_err(LoadError::Store)?;
        got.bytes().await.map_err(LoadError::Store)
    }

    /// Stores a snapshot, the `number`-th of this process: first its new files, then its manifest. Files that `previous` has are not
    /// uploaded again. Returns the snapshot, and how many files and bytes were uploaded.
    ///
    /// # Errors
    /// The object store's; then the snapshot does not count, whatever of it was stored.
    pub async fn store(
        &self,
        content: SnapshotContent,
        number: u64,
        previous: Option<&Snapshot>,
    ) -> object_store::Result<(Snapshot, usize, usize)> {
        let id = format!(
            "{:020}-{}-{}-{}",
            content.at.0, self.term, self.owner, number
        );
        let mut paths = BTreeMap::new();
        let (mut uploaded, mut uploaded_bytes) = (0, 0);
        for file in content.files {
            let known = previous.and_then(|snapshot| snapshot.files.get(&file.name));
            let path = match known {
                Some(path) => path.clone(),
                None => {
                    uploaded += 1;
                    uploaded_bytes += file.content.len();
                    self.upload(&file).await?
                }
            };
            paths.insert(file.name, path);
        }
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            topic: self.topic.clone(),
            partition: self.partition,
            offset: content.at,
            digest: content.digest,
            fingerprint: self.fingerprint.clone(),
            term: self.term,
            owner: self.owner.clone(),
            header: BASE64.encode(&content.header),
            files: paths
                .iter()
                .map(|(name, path)| ManifestFile {
                    name: name.clone(),
                    path: path.clone(),
                })
                .collect(),
        };
        let text = serde_json::to_vec(&manifest).expect("plain fields serialise");
        let options = PutOptions::from(PutMode::Create);
        self.objects
            .put_opts(&self.manifest_path(&id), PutPayload::from(text), options)
            .await?;
        let snapshot = Snapshot {
            id,
            at: content.at,
            files: paths,
        };
        Ok((snapshot, uploaded, uploaded_bytes))
    }

    async fn upload(&self, file: &StateFile) -> object_store::Result<String> {
        let path = format!(
            "{}/files/{}-{}/{}",
            self.folder, self.term, self.owner, file.name
        );
        // Same owner, same name: same content. Overwriting one's own file changes nothing.
        let payload = PutPayload::from(file.content.clone());
        self.objects
            .put(&Path::from(path.as_str()), payload)
            .await?;
        Ok(path)
    }

    /// Deletes what neither `kept` reaches nor is younger than `grace_ms`, measured back from the moment
    /// when the store took the manifest of `newest_named`: then this owner certainly was the owner, and a
    /// later owner's objects are younger, whatever this machine's clock says and however long the process
    /// stood still. Returns how many objects went.
    ///
    /// # Errors
    /// The object store's; the rest is collected next time.
    pub async fn collect(
        &self,
        kept: &[Snapshot],
        newest_named: &Snapshot,
        grace_ms: i64,
    ) -> object_store::Result<usize> {
        let mut reachable: BTreeSet<String> = BTreeSet::new();
        for snapshot in kept {
            reachable.insert(self.manifest_path(&snapshot.id).to_string());
            reachable.extend(snapshot.files.values().cloned());
        }
        let folder = Path::from(self.folder.as_str());
        let listed: Vec<ObjectMeta> = self.objects.list(Some(&folder)).try_collect().await?;
        let newest = self.manifest_path(&newest_named.id);
        let Some(owned_at) = listed.iter().find(|meta| meta.location == newest) else {
            return Ok(0);
        };
        let before_unix_ms = owned_at
            .last_modified
            .timestamp_millis()
            .saturating_sub(grace_ms);
        let doomed: Vec<object_store::Result<Path>> = listed
            .into_iter()
            .filter(|meta| meta.last_modified.timestamp_millis() < before_unix_ms)
            .filter(|meta| !reachable.contains(meta.location.as_ref()))
            .map(|meta| Ok(meta.location))
            .collect();
        let count = doomed.len();
        let stream = futures_util::stream::iter(doomed).boxed();
        self.objects
            .delete_stream(stream)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        Ok(count)
    }
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
    fn a_manifest_of_the_next_version_is_refused_clearly() {
        let error = parse_manifest(br#"{"version":2,"shape":"unknown"}"#).unwrap_err();
        assert!(error.contains("format version 2"), "{error}");
        assert!(error.contains("reads version 1"), "{error}");
    }

    #[test]
    fn a_torn_manifest_is_an_error_not_a_panic() {
        assert!(parse_manifest(br#"{"version":1,"to"#).is_err());
        assert!(parse_manifest(b"").is_err());
    }
}
