//! The object store and the machine's disk, tapped.

use super::ProcessTap;
use super::phase::About;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use processor::io::{PieceKey, StateBatch, StateError, StateStore};
use processor::units::PartitionId;
use std::fmt;
use std::sync::Arc;

/// An object store whose requests are numbered.
#[derive(Debug, Clone)]
pub struct TappedObjects {
    inner: Arc<dyn ObjectStore>,
    tap: ProcessTap,
    /// The input topic: checkpoints of a partition lie below its name and number.
    topic: Arc<str>,
}

impl TappedObjects {
    /// Wraps `inner`; `topic`: the input topic.
    pub fn new(inner: Arc<dyn ObjectStore>, tap: ProcessTap, topic: &str) -> Self {
        TappedObjects {
            inner,
            tap,
            topic: topic.into(),
        }
    }

    fn about(&self, path: &Path) -> About {
        let mut parts = path
            .parts()
            .skip_while(|part| part.as_ref() != &*self.topic);
        let number = parts.nth(1).and_then(|part| part.as_ref().parse().ok());
        About::State(number.map(PartitionId))
    }

    async fn request<F: Future>(&self, name: &'static str, path: &Path, request: F) -> F::Output {
        let leaving = async {
            self.tap.request_leaves();
            request.await
        };
        self.tap.call(name, self.about(path), leaving).await
    }

    async fn delete_one(self, path: Path) -> Result<Path> {
        let deleting = self.inner.delete(&path);
        self.request("objects.delete", &path, deleting).await?;
        Ok(path)
    }

    async fn list_all(self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        let listing = self.inner.list(prefix.as_ref()).try_collect();
        let path = prefix.clone().unwrap_or_default();
        self.request("objects.list", &path, listing).await
    }
}

impl fmt::Display for TappedObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tapped({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for TappedObjects {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let putting = self.inner.put_opts(location, payload, opts);
        self.request("objects.put", location, putting).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let getting = self.inner.get_opts(location, options);
        self.request("objects.get", location, getting).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move { store.delete_one(location?).await }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::once(self.clone().list_all(prefix.cloned()))
            .flat_map(|listed| match listed {
                Ok(objects) => stream::iter(objects.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            })
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Local state whose calls are numbered: a disk outlives the process.
#[derive(Debug)]
pub struct TappedState<S> {
    inner: S,
    tap: ProcessTap,
}

impl<S> TappedState<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, tap: ProcessTap) -> Self {
        TappedState { inner, tap }
    }

    fn call<R>(
        &mut self,
        name: &'static str,
        about: About,
        changes: bool,
        call: impl FnOnce(&mut S) -> std::result::Result<R, StateError>,
    ) -> std::result::Result<R, StateError> {
        let (inner, tap) = (&mut self.inner, &self.tap);
        let call = || {
            if changes {
                tap.disk_changed();
            }
            call(inner)
        };
        tap.call_now(name, about, call, |_, _| ())
            .unwrap_or_else(|| Err(StateError("the process has been killed".to_owned())))
    }
}

impl<S: StateStore> StateStore for TappedState<S> {
    fn apply(
        &mut self,
        partition: PartitionId,
        batch: StateBatch,
    ) -> std::result::Result<(), StateError> {
        let changes = !batch.is_empty();
        let about = About::State(Some(partition));
        self.call("state.apply", about, changes, |inner| {
            inner.apply(partition, batch)
        })
    }

    fn get(
        &mut self,
        partition: PartitionId,
        key: PieceKey,
    ) -> std::result::Result<Bytes, StateError> {
        let about = About::State(Some(partition));
        self.call("state.get", about, false, |inner| inner.get(partition, key))
    }

    fn drop_partition(&mut self, partition: PartitionId) -> std::result::Result<(), StateError> {
        let about = About::Forgotten(partition);
        self.call("state.drop_partition", about, true, |inner| {
            inner.drop_partition(partition)
        })
    }
}
