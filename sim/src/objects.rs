//! An object store with S3's promises and no more: a PUT is atomic and, once acknowledged, seen by
//! every later read; a conditional PUT has one winner; but a request may be slow, may fail, may fail
//! *after* it took effect, and may take effect after it was reported as failed.

use crate::draw::{below, draw, permille};
use crate::fabric::actor::{HostId, Micros};
use crate::fabric::{Fabric, network::FaultIndex};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, Extensions, GetOptions, GetResult, GetResultPayload,
    ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

/// How the store misbehaves for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectTrouble {
    /// Per mille of requests that fail without effect.
    pub error_permille: u32,
    /// Per mille of requests that take effect, now or later, and report an error.
    pub unknown_permille: u32,
    /// Added to every request.
    pub extra_latency_ms: u64,
}

#[derive(Debug, Clone)]
struct Object {
    content: Bytes,
    written_at: Micros,
    version: u64,
}

#[derive(Debug, Clone)]
enum Write {
    Put { content: Bytes, only_new: bool },
    Delete,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<Path, Object>,
    versions: u64,
    requests: u64,
    /// Writes that were reported as failed and take effect later.
    delayed: Vec<(Micros, Path, Write)>,
    trouble: Vec<(FaultIndex, ObjectTrouble)>,
    hits: BTreeMap<FaultIndex, u64>,
}

/// The store of a world; [`ObjectService::client`] gives a machine's view of it.
#[derive(Clone)]
pub struct ObjectService {
    fabric: Fabric,
    unix_ms_at_zero: i64,
    bucket: Arc<Mutex<Bucket>>,
}

impl fmt::Debug for ObjectService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectService")
    }
}

const LATENCY_US_MIN: u64 = 8_000;
const LATENCY_US_SPAN: u64 = 30_000;
const SLOW_ONE_IN: u64 = 50;
const SLOW_US_MAX: u64 = 400_000;
const DELAYED_EFFECT_US_MAX: u64 = 20_000_000;

/// What a request will meet.
struct Fate {
    before: Micros,
    after: Micros,
    fails: bool,
    outcome_unknown: bool,
    effect_delay: Option<Micros>,
}

impl ObjectService {
    /// An empty store.
    #[must_use]
    pub fn new(fabric: Fabric, unix_ms_at_zero: i64) -> ObjectService {
        ObjectService {
            fabric,
            unix_ms_at_zero,
            bucket: Arc::default(),
        }
    }

    /// The store as seen from a machine.
    #[must_use]
    pub fn client(&self, host: HostId) -> SimObjectStore {
        SimObjectStore {
            service: self.clone(),
            host,
        }
    }

    /// Begins trouble.
    pub fn trouble(&self, fault: FaultIndex, trouble: ObjectTrouble) {
        self.lock().trouble.push((fault, trouble));
    }

    /// Ends it.
    pub fn heal(&self, fault: FaultIndex) {
        self.lock().trouble.retain(|(of, _)| *of != fault);
    }

    /// How many requests each fault has touched.
    #[must_use]
    pub fn hits(&self) -> BTreeMap<FaultIndex, u64> {
        self.lock().hits.clone()
    }

    /// All objects: path and size in bytes.
    #[must_use]
    pub fn objects(&self) -> Vec<(String, usize)> {
        let mut bucket = self.lock();
        bucket.apply_delayed(self.fabric.now());
        bucket
            .objects
            .iter()
            .map(|(path, object)| (path.to_string(), object.content.len()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.bucket
            .lock()
            .expect("a world is abandoned when it panics")
    }

    fn fate(&self, writes: bool) -> Fate {
        let seed = self.fabric.seed();
        let mut bucket = self.lock();
        bucket.requests += 1;
        let sequence = bucket.requests;
        let choose = |what| draw(seed, "object-store", what, sequence);
        let bits = choose("latency");
        let mut latency_us = LATENCY_US_MIN + below(bits, LATENCY_US_SPAN);
        if bits % SLOW_ONE_IN == 0 {
            latency_us += below(choose("slow"), SLOW_US_MAX);
        }
        let mut fate = Fate {
            before: Micros(latency_us / 2),
            after: Micros(latency_us - latency_us / 2),
            fails: false,
            outcome_unknown: false,
            effect_delay: None,
        };
        for (fault, trouble) in bucket.trouble.clone() {
            fate.before = fate.before.plus_ms(trouble.extra_latency_ms);
            let mut hit = trouble.extra_latency_ms > 0;
            if permille(choose("error"), trouble.error_permille) {
                fate.fails = true;
                hit = true;
            } else if writes && permille(choose("unknown"), trouble.unknown_permille) {
                fate.outcome_unknown = true;
                hit = true;
                let delay = choose("effect-delay");
                if delay % 2 == 0 {
                    fate.effect_delay = Some(Micros(below(delay, DELAYED_EFFECT_US_MAX)));
                }
            }
            if hit {
                *bucket.hits.entry(fault).or_default() += 1;
            }
        }
        fate
    }

    fn modified(&self, at: Micros) -> DateTime<Utc> {
        let elapsed_ms = i64::try_from(at.as_ms()).expect("worlds are short");
        DateTime::from_timestamp_millis(self.unix_ms_at_zero + elapsed_ms)
            .expect("plans begin at representable times")
    }

    fn meta(&self, path: &Path, object: &Object) -> ObjectMeta {
        ObjectMeta {
            location: path.clone(),
            last_modified: self.modified(object.written_at),
            size: object.content.len() as u64,
            e_tag: Some(format!("\"{}\"", object.version)),
            version: None,
        }
    }
}

impl Bucket {
    fn apply_delayed(&mut self, now: Micros) {
        let mut due: Vec<_> = Vec::new();
        self.delayed.retain(|entry| {
            if entry.0 <= now {
                due.push(entry.clone());
            }
            entry.0 > now
        });
        due.sort_by_key(|entry| entry.0);
        for (at, path, write) in due {
            // Nobody waits for the result of a write that was reported as failed.
            let _ = self.apply(at, &path, write);
        }
    }

    fn apply(&mut self, now: Micros, path: &Path, write: Write) -> Result<u64> {
        match write {
            Write::Put { only_new, .. } if only_new && self.objects.contains_key(path) => {
                Err(Error::AlreadyExists {
                    path: path.to_string(),
                    source: "the object exists".into(),
                })
            }
            Write::Put { content, .. } => {
                self.versions += 1;
                let object = Object {
                    content,
                    written_at: now,
                    version: self.versions,
                };
                self.objects.insert(path.clone(), object);
                Ok(self.versions)
            }
            Write::Delete => {
                self.objects.remove(path);
                Ok(0)
            }
        }
    }
}

/// One machine's client of the store.
#[derive(Debug, Clone)]
pub struct SimObjectStore {
    service: ObjectService,
    host: HostId,
}

impl fmt::Display for SimObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimObjectStore")
    }
}

fn failed(what: &'static str) -> Error {
    Error::Generic {
        store: "simulated",
        source: what.into(),
    }
}

fn not_offered(operation: &str) -> Error {
    Error::NotImplemented {
        operation: operation.into(),
        implementer: "the simulated object store".into(),
    }
}

impl SimObjectStore {
    async fn write(&self, path: &Path, write: Write) -> Result<u64> {
        let fate = self.service.fate(true);
        let fabric = &self.service.fabric;
        fabric.sleep(self.host, fate.before).await;
        let result = if fate.fails {
            Err(failed("503 Slow Down"))
        } else {
            let now = fabric.now();
            let mut bucket = self.service.lock();
            bucket.apply_delayed(now);
            match fate.effect_delay {
                Some(delay) => {
                    bucket.delayed.push((now.plus(delay), path.clone(), write));
                    Err(failed("connection reset"))
                }
                None => bucket.apply(now, path, write),
            }
        };
        fabric.sleep(self.host, fate.after).await;
        if fate.outcome_unknown && result.is_ok() {
            return Err(failed("connection reset"));
        }
        result
    }

    async fn read<R>(&self, look: impl FnOnce(&mut Bucket) -> R) -> Result<R> {
        let fate = self.service.fate(false);
        let fabric = &self.service.fabric;
        fabric.sleep(self.host, fate.before).await;
        let result = if fate.fails {
            Err(failed("503 Slow Down"))
        } else {
            let now = fabric.now();
            let mut bucket = self.service.lock();
            bucket.apply_delayed(now);
            Ok(look(&mut bucket))
        };
        fabric.sleep(self.host, fate.after).await;
        result
    }

    async fn list_now(&self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        let service = self.service.clone();
        self.read(move |bucket| {
            bucket
                .objects
                .iter()
                .filter(|(path, _)| prefix.as_ref().is_none_or(|p| path.prefix_matches(p)))
                .map(|(path, object)| service.meta(path, object))
                .collect()
        })
        .await
    }
}

#[async_trait::async_trait]
impl ObjectStore for SimObjectStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let only_new = match opts.mode {
            PutMode::Overwrite => false,
            PutMode::Create => true,
            PutMode::Update(_) => return Err(not_offered("conditional update")),
        };
        let content = Bytes::from(payload);
        let version = self
            .write(location, Write::Put { content, only_new })
            .await?;
        Ok(PutResult {
            e_tag: Some(format!("\"{version}\"")),
            version: None,
            extensions: Extensions::default(),
        })
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(not_offered("multipart upload"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let service = self.service.clone();
        let path = location.clone();
        let found = self
            .read(move |bucket| {
                bucket
                    .objects
                    .get(&path)
                    .map(|object| (service.meta(&path, object), object.content.clone()))
            })
            .await?;
        let (meta, content) = found.ok_or_else(|| Error::NotFound {
            path: location.to_string(),
            source: "no such object".into(),
        })?;
        options.check_preconditions(&meta)?;
        let range = match options.range {
            None => 0..meta.size,
            Some(range) => range
                .as_range(meta.size)
                .map_err(|_| failed("416 Range Not Satisfiable"))?,
        };
        let part = content.slice(
            usize::try_from(range.start).expect("within the object")
                ..usize::try_from(range.end).expect("within the object"),
        );
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::once(async move { Ok(part) }).boxed()),
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
                    store.write(&location, Write::Delete).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let prefix = prefix.cloned();
        stream::once(async move { store.list_now(prefix).await })
            .flat_map(|listed| match listed {
                Ok(objects) => stream::iter(objects.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            })
            .boxed()
    }

    async fn list_with_delimiter(&self, _prefix: Option<&Path>) -> Result<ListResult> {
        Err(not_offered("list with delimiter"))
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(not_offered("copy"))
    }
}
