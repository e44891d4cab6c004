//! State, objects and time that break a promise.

use super::{Sabotage, Saboteur};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use processor::io::{Clock, PieceKey, StateBatch, StateError, StateStore};
use processor::units::PartitionId;
use std::fmt;
use std::time::Duration;

/// A state store that has forgotten what it was given.
pub struct SabotagedState<S> {
    inner: S,
    saboteur: Saboteur,
}

impl<S> SabotagedState<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, saboteur: Saboteur) -> Self {
        SabotagedState { inner, saboteur }
    }
}

impl<S: StateStore> StateStore for SabotagedState<S> {
    fn apply(
        &mut self,
        partition: PartitionId,
        batch: StateBatch,
    ) -> std::result::Result<(), StateError> {
        self.inner.apply(partition, batch)
    }

    fn get(
        &mut self,
        partition: PartitionId,
        key: PieceKey,
    ) -> std::result::Result<Bytes, StateError> {
        if self.saboteur.is(Sabotage::StateForgotten) {
            return Err(StateError::missing(partition, key));
        }
        self.inner.get(partition, key)
    }

    fn drop_partition(&mut self, partition: PartitionId) -> std::result::Result<(), StateError> {
        self.inner.drop_partition(partition)
    }
}

/// A clock that runs ahead of the world's, and ever more so.
#[derive(Clone)]
pub struct SabotagedClock<C> {
    inner: C,
    saboteur: Saboteur,
}

/// Three hours, in milliseconds.
const AHEAD_MS: i64 = 10_800_000;
/// A broken oscillator: an interval seems so many times as long as it is.
const TOO_FAST: u32 = 10;

impl<C> SabotagedClock<C> {
    /// Wraps `inner`.
    pub fn new(inner: C, saboteur: Saboteur) -> Self {
        SabotagedClock { inner, saboteur }
    }
}

impl<C: Clock> Clock for SabotagedClock<C> {
    fn unix_ms(&self) -> i64 {
        let ahead = self.saboteur.is(Sabotage::ClockAhead);
        self.inner.unix_ms() + if ahead { AHEAD_MS } else { 0 }
    }

    fn monotonic(&self) -> Duration {
        let fast = self.saboteur.is(Sabotage::ClockAhead);
        self.inner.monotonic() * if fast { TOO_FAST } else { 1 }
    }

    async fn sleep(&self, duration: Duration) {
        self.inner.sleep(duration).await;
    }
}

/// An object store that answers with an older manifest than the one asked for.
#[derive(Debug)]
pub struct SabotagedObjects<O> {
    inner: O,
    stale: bool,
}

impl<O> SabotagedObjects<O> {
    /// Wraps `inner`.
    pub fn new(inner: O, saboteur: &Saboteur) -> Self {
        SabotagedObjects {
            inner,
            stale: saboteur.is(Sabotage::SnapshotsStale),
        }
    }
}

impl<O: ObjectStore> SabotagedObjects<O> {
    /// The manifest before `location`, if that is one.
    async fn predecessor(&self, location: &Path) -> Result<Option<Path>> {
        let Some((folder, _)) = location.as_ref().rsplit_once('/') else {
            return Ok(None);
        };
        if !self.stale || !folder.ends_with("/manifests") {
            return Ok(None);
        }
        let folder = Path::from(folder);
        let all: Vec<ObjectMeta> = self.inner.list(Some(&folder)).try_collect().await?;
        Ok(all
            .into_iter()
            .map(|meta| meta.location)
            .filter(|path| path < location)
            .max())
    }
}

impl<O: ObjectStore> fmt::Display for SabotagedObjects<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sabotaged({})", self.inner)
    }
}

#[async_trait]
impl<O: ObjectStore> ObjectStore for SabotagedObjects<O> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let older = self.predecessor(location).await?;
        self.inner
            .get_opts(older.as_ref().unwrap_or(location), options)
            .await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
