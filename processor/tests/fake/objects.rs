//! An object store: atomic puts, one winner of a conditional put, times of the world's clock.

use super::{Crashed, Inner, Object, World};
use bytes::Bytes;
use chrono::DateTime;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, Extensions, GetOptions, GetResult, GetResultPayload,
    ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};
use processor::units::PartitionId;
use std::fmt;
use std::task::Poll;

#[derive(Clone)]
pub struct FakeObjects(World);

impl FakeObjects {
    pub fn new(world: &World) -> FakeObjects {
        FakeObjects(world.clone())
    }

    async fn answer<T>(
        &self,
        call: String,
        effect: impl FnOnce(&mut Inner) -> Result<T> + Send,
    ) -> Result<T> {
        let (answered, at_ms) = {
            let mut inner = self.0.lock();
            let answered = inner.call(&call, |_| failed(), effect);
            (answered, inner.answered_at_ms)
        };
        // Whoever waits makes time pass, and looks again.
        std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            match self.0.lock().now_ms < at_ms {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
        match answered {
            Ok(result) => result,
            Err(Crashed) => std::future::pending().await,
        }
    }
}

impl fmt::Debug for FakeObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeObjects")
    }
}

impl fmt::Display for FakeObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeObjects")
    }
}

fn failed() -> Error {
    Error::Generic {
        store: "fake",
        source: "503 Slow Down".into(),
    }
}

fn not_offered() -> Error {
    Error::NotImplemented {
        operation: "this".into(),
        implementer: "the fake".into(),
    }
}

fn meta(path: &str, object: &Object) -> ObjectMeta {
    ObjectMeta {
        location: Path::from(path),
        last_modified: DateTime::from_timestamp_millis(object.written_at_unix_ms)
            .expect("the fake's times are representable"),
        size: object.content.len() as u64,
        e_tag: None,
        version: None,
    }
}

/// A partition is committed before its first snapshot.
fn check_put(inner: &mut Inner, path: &str) {
    let mut parts = path.rsplit('/');
    let (_, folder, partition) = (parts.next(), parts.next(), parts.next());
    let partition = partition
        .and_then(|text| text.parse().ok())
        .map(PartitionId);
    if folder == Some("manifests") && partition.is_some_and(|p| !inner.committed.contains_key(&p)) {
        inner
            .broken
            .push(format!("{path} came before the first commit"));
    }
}

#[async_trait::async_trait]
impl ObjectStore for FakeObjects {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let path = location.to_string();
        self.answer(format!("put {path}"), |inner| {
            check_put(inner, &path);
            let only_new = opts.mode == PutMode::Create;
            if only_new && inner.objects.contains_key(&path) {
                let source = "the object exists".into();
                return Err(Error::AlreadyExists { path, source });
            }
            let writes = inner.objects.get(&path).map_or(0, |object| object.writes);
            let object = Object {
                content: Bytes::from(payload),
                written_at_unix_ms: inner.unix_ms(),
                writes: writes + 1,
            };
            inner.objects.insert(path, object);
            Ok(PutResult {
                e_tag: None,
                version: None,
                extensions: Extensions::default(),
            })
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(not_offered())
    }

    async fn get_opts(&self, location: &Path, _options: GetOptions) -> Result<GetResult> {
        let path = location.to_string();
        let object = self
            .answer(format!("get {path}"), |inner| {
                inner.objects.get(&path).cloned().ok_or(Error::NotFound {
                    path: path.clone(),
                    source: "no such object".into(),
                })
            })
            .await?;
        let meta = meta(location.as_ref(), &object);
        let range = 0..meta.size;
        let content = object.content;
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(async move { Ok(content) }).boxed()),
            meta,
            range,
            attributes: Attributes::default(),
            extensions: Extensions::default(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let path = location.to_string();
                    let call = format!("delete {path}");
                    let delete = |inner: &mut Inner| {
                        inner.delete(&path);
                        Ok(())
                    };
                    store.answer(call, delete).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let prefix = prefix.map(|path| format!("{path}/")).unwrap_or_default();
        let listed = async move {
            let listed = store.answer(format!("list {prefix}"), |inner| {
                let objects = inner.objects.iter();
                let below = objects.filter(|(path, _)| path.starts_with(&prefix));
                Ok(below.map(|(path, object)| meta(path, object)).collect())
            });
            match listed.await {
                Ok(metas) => {
                    let metas: Vec<ObjectMeta> = metas;
                    metas.into_iter().map(Ok).collect()
                }
                Err(error) => vec![Err(error)],
            }
        };
        stream::once(listed).flat_map(stream::iter).boxed()
    }

    async fn list_with_delimiter(&self, _prefix: Option<&Path>) -> Result<ListResult> {
        Err(not_offered())
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(not_offered())
    }
}
