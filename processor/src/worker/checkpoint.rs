//! What an owner does to its partition's checkpoints: it uploads, names, retains and collects them.
//! Where they lie is told by [`crate::checkpoints`].

use crate::checkpoints::{
    LoadError, MANIFEST_VERSION, Manifest, ManifestFile, Place, REQUESTS_MAX, read_manifest,
};
use crate::core::Digest;
use crate::io::PieceKey;
use crate::units::Offset;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Of the snapshots that are retained for their age alone, one is kept about every so many-th part of
/// that age.
const AGES_KEPT: i64 = 64;

/// A snapshot that is safely in the object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Id, as the commit record names it.
    pub(super) id: String,
    /// Position.
    pub(super) at: Offset,
    /// When it was made, Unix milliseconds.
    pub(super) made_unix_ms: i64,
    /// Its pieces and their object paths.
    pub(super) files: Arc<BTreeMap<PieceKey, String>>,
}

impl Snapshot {
    /// The snapshot that a manifest describes.
    ///
    /// # Errors
    /// If the manifest names something that is no piece.
    pub(super) fn of(id: &str, manifest: &Manifest) -> Result<Snapshot, String> {
        Ok(Snapshot {
            id: id.to_owned(),
            at: manifest.offset,
            made_unix_ms: manifest.made_unix_ms,
            files: Arc::new(manifest.paths()?),
        })
    }
}

/// How long snapshots are kept that commit records have named.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    /// The newest so many are kept, however old they are,
    pub(super) count: usize,
    /// and older ones until this age (0: not at all), thinned out to [`AGES_KEPT`].
    pub(super) age_ms: i64,
}

impl Retention {
    /// Drops from `named`, oldest first, what need not be kept.
    pub(super) fn thin(&self, named: &mut VecDeque<Snapshot>, now_unix_ms: i64) {
        let newest = named.len().saturating_sub(self.count);
        let mut last_kept: Option<i64> = None;
        let mut index = 0;
        named.retain(|snapshot| {
            let is_newest = index >= newest;
            index += 1;
            let made = snapshot.made_unix_ms;
            let is_young = now_unix_ms.saturating_sub(made) < self.age_ms;
            let is_apart =
                last_kept.is_none_or(|last| made.saturating_sub(last) >= self.age_ms / AGES_KEPT);
            let keep = is_newest || (is_young && is_apart);
            if keep {
                last_kept = Some(made);
            }
            keep
        });
    }
}

/// What makes a snapshot beside its pieces.
#[derive(Debug, Clone)]
pub(super) struct SnapshotContent {
    /// Position.
    pub(super) at: Offset,
    /// Digest at that position.
    pub(super) digest: Digest,
    /// When it was made, Unix milliseconds.
    pub(super) made_unix_ms: i64,
    /// The task's header.
    pub(super) header: Bytes,
    /// Its pieces, with sizes.
    pub(super) pieces: Vec<(PieceKey, u64)>,
    /// See [`Manifest::retained`].
    pub(super) retained: Vec<String>,
}

/// Access to the checkpoints of one partition, for one owner.
#[derive(Debug, Clone)]
pub(super) struct Checkpoints {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) place: Place,
    fingerprint: String,
    term: u64,
    owner: String,
}

impl Checkpoints {
    /// `owner`: this process's incarnation.
    pub(super) fn new(
        objects: Arc<dyn ObjectStore>,
        place: Place,
        fingerprint: String,
        owner: &str,
    ) -> Checkpoints {
        Checkpoints {
            objects,
            place,
            fingerprint,
            term: 0,
            owner: owner.to_owned(),
        }
    }

    /// Sets this owner's term, known once the commit record has been read.
    pub(super) fn begin_term(&mut self, term: u64) {
        self.term = term;
    }

    /// Path of any manifest of the partition (the newest by name), if there is one.
    ///
    /// # Errors
    /// The object store's.
    pub(super) async fn newest_manifest(&self) -> object_store::Result<Option<String>> {
        let prefix = self.place.manifests();
        let listed: Vec<ObjectMeta> = self.objects.list(Some(&prefix)).try_collect().await?;
        Ok(listed
            .into_iter()
            .map(|meta| meta.location.to_string())
            .max())
    }

    /// Uploads pieces; returns their paths.
    ///
    /// # Errors
    /// The object store's; any of them may have been stored.
    pub(super) async fn upload(
        &self,
        pieces: Vec<(PieceKey, Bytes)>,
    ) -> object_store::Result<Vec<(PieceKey, String)>> {
        let uploads = futures_util::stream::iter(pieces).map(|(key, content)| async move {
            // Same owner, same name: same content. Overwriting one's own file changes nothing.
            let path = self.place.file(self.term, &self.owner, key);
            let payload = PutPayload::from(content);
            self.objects
                .put(&Path::from(path.as_str()), payload)
                .await?;
            Ok((key, path))
        });
        uploads.buffered(REQUESTS_MAX).try_collect().await
    }

    /// Stores the manifest of a snapshot all of whose pieces are stored: the `number`-th of this process.
    ///
    /// # Errors
    /// The object store's; then the snapshot does not count, whether its manifest was stored or not.
    pub(super) async fn publish(
        &self,
        content: SnapshotContent,
        number: u64,
        paths: BTreeMap<PieceKey, String>,
    ) -> object_store::Result<Snapshot> {
        let id = format!(
            "{:020}-{}-{}-{}",
            content.at.0, self.term, self.owner, number
        );
        let file = |(key, bytes): &(PieceKey, u64)| ManifestFile {
            name: key.to_string(),
            path: paths[key].clone(),
            bytes: *bytes,
        };
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            topic: self.place.topic.clone(),
            partition: self.place.partition,
            offset: content.at,
            digest: content.digest,
            fingerprint: self.fingerprint.clone(),
            term: self.term,
            owner: self.owner.clone(),
            made_unix_ms: content.made_unix_ms,
            retained: content.retained,
            header: Manifest::encode_header(&content.header),
            files: content.pieces.iter().map(file).collect(),
        };
        let text = serde_json::to_vec(&manifest).expect("plain fields serialise");
        let options = PutOptions::from(PutMode::Create);
        self.objects
            .put_opts(&self.place.manifest(&id), PutPayload::from(text), options)
            .await?;
        Ok(Snapshot {
            id,
            at: content.at,
            made_unix_ms: content.made_unix_ms,
            files: Arc::new(paths),
        })
    }

    /// Finds out what snapshots with these ids consist of. Those that are gone or damaged are left out:
    /// nothing can be restored from them.
    ///
    /// # Errors
    /// The object store's.
    pub(super) async fn find(&self, ids: Vec<String>) -> object_store::Result<Vec<Snapshot>> {
        let mut reading = futures_util::stream::iter(ids)
            .map(|id| async move {
                let manifest = read_manifest(self.objects.as_ref(), &self.place, &id).await;
                (id, manifest)
            })
            .buffered(REQUESTS_MAX);
        let mut found = Vec::new();
        while let Some((id, manifest)) = reading.next().await {
            match manifest {
                Ok(manifest) => found.extend(Snapshot::of(&id, &manifest).ok()),
                Err(LoadError::Store(error)) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(found)
    }

    /// Deletes what neither `kept` nor `uploaded` reaches nor is younger than `grace_ms`, measured back
    /// from the moment when the store took the manifest of `newest_named`: then this owner certainly was
    /// the owner, and a later owner's objects are younger, whatever this machine's clock says and however
    /// long the process stood still. Manifests go first, so that none is left without its pieces. Returns
    /// how many objects went.
    ///
    /// # Errors
    /// The object store's; the rest is collected next time.
    pub(super) async fn collect(
        &self,
        kept: &[Snapshot],
        uploaded: impl IntoIterator<Item = &String>,
        newest_named: &Snapshot,
        grace_ms: i64,
    ) -> object_store::Result<usize> {
        let mut reachable: BTreeSet<String> = uploaded.into_iter().cloned().collect();
        for snapshot in kept {
            reachable.insert(self.place.manifest(&snapshot.id).to_string());
            reachable.extend(snapshot.files.values().cloned());
        }
        let folder = Path::from(self.place.folder());
        let listed: Vec<ObjectMeta> = self.objects.list(Some(&folder)).try_collect().await?;
        let newest = self.place.manifest(&newest_named.id);
        let Some(owned_at) = listed.iter().find(|meta| meta.location == newest) else {
            return Ok(0);
        };
        let before_unix_ms = owned_at
            .last_modified
            .timestamp_millis()
            .saturating_sub(grace_ms);
        let manifests = self.place.manifests();
        let (first, second): (Vec<Path>, Vec<Path>) = listed
            .into_iter()
            .filter(|meta| meta.last_modified.timestamp_millis() < before_unix_ms)
            .filter(|meta| !reachable.contains(meta.location.as_ref()))
            .map(|meta| meta.location)
            .partition(|path| path.prefix_matches(&manifests));
        let count = first.len() + second.len();
        for doomed in [first, second] {
            let stream = futures_util::stream::iter(doomed.into_iter().map(Ok)).boxed();
            self.objects
                .delete_stream(stream)
                .try_for_each(|_| async { Ok(()) })
                .await?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retained(retention: Retention, made: &[i64], now: i64) -> Vec<i64> {
        let snapshot = |&made_unix_ms: &i64| Snapshot {
            id: made_unix_ms.to_string(),
            at: Offset(0),
            made_unix_ms,
            files: Arc::default(),
        };
        let mut named: VecDeque<Snapshot> = made.iter().map(snapshot).collect();
        retention.thin(&mut named, now);
        named.iter().map(|snapshot| snapshot.made_unix_ms).collect()
    }

    #[test]
    fn the_newest_are_kept_however_old_they_are() {
        let retention = Retention {
            count: 2,
            age_ms: 0,
        };
        assert_eq!(retained(retention, &[1, 2, 3], 1_000_000), [2, 3]);
        assert_eq!(retained(retention, &[3], 1_000_000), [3]);
        assert_eq!(retained(retention, &[], 1_000_000), [] as [i64; 0]);
    }

    #[test]
    fn older_ones_are_kept_until_their_age_one_in_a_while() {
        let retention = Retention {
            count: 2,
            age_ms: 6_400,
        };
        let made: Vec<i64> = (0..1_000).map(|nth| nth * 10).collect();
        let kept = retained(retention, &made, 10_000);
        assert_eq!(kept[0], 3_610, "the first one that is young enough");
        assert_eq!(kept[1], 3_710);
        assert_eq!(kept[kept.len() - 2..], [9_980, 9_990]);
        assert!(kept.len() <= 64 + 2, "{}", kept.len());
        // What is kept stays kept while time goes on, until it is too old.
        let mut named = kept.clone();
        named.push(10_000);
        let later = retained(retention, &named, 10_010);
        assert!(
            kept[1..kept.len() - 2]
                .iter()
                .all(|made| later.contains(made))
        );
    }
}
