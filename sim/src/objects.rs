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
    /// Listings show the store as it was so long ago.
    pub list_delay_ms: u64,
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

/// A write that has not come yet.
#[derive(Debug)]
struct UnderWay {
    path: Path,
    what: Write,
    /// Its sender has been told that it failed.
    reported_failed: bool,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<Path, Object>,
    versions: u64,
    requests: u64,
    /// What was there until it was deleted (or overwritten), for listings that are behind.
    gone: Vec<(Micros, Path, Object)>,
    /// Writes under way, by the moment when they take effect, and whether or not anybody still waits for
    /// them then: a process may have died, stood still, or been told that they failed.
    under_way: BTreeMap<(Micros, u64), UnderWay>,
    /// What came of writes that somebody waits for.
    arrived: BTreeMap<u64, Result<u64>>,
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
    /// The number of the request.
    sequence: u64,
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
        bucket.take_in(self.fabric.now());
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
            sequence,
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
    /// What has come until now takes effect. Returns the paths of writes that nobody expects any more.
    fn take_in(&mut self, now: Micros) -> Vec<Path> {
        let mut late = Vec::new();
        while let Some(first) = self.under_way.first_entry()
            && first.key().0 <= now
        {
            let ((at, sequence), write) = first.remove_entry();
            let result = self.apply(at, &write.path, write.what);
            if write.reported_failed && result.is_ok() {
                late.push(write.path);
            }
            self.arrived.insert(sequence, result);
        }
        late
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
                let old = self.objects.insert(path.clone(), object);
                let version = self.versions;
                self.remember(now, path, old);
                Ok(version)
            }
            Write::Delete => {
                let old = self.objects.remove(path);
                self.remember(now, path, old);
                Ok(0)
            }
        }
    }
}

impl Bucket {
    /// Only while listings are behind: memory must not grow for nothing.
    fn remember(&mut self, now: Micros, path: &Path, old: Option<Object>) {
        let Some(delay_ms) = self.list_delay_ms() else {
            self.gone.clear();
            return;
        };
        self.gone
            .retain(|(at, ..)| now.since(*at) <= Micros::from_ms(delay_ms));
        self.gone.extend(old.map(|old| (now, path.clone(), old)));
    }

    fn list_delay_ms(&self) -> Option<u64> {
        let delays = self
            .trouble
            .iter()
            .map(|(_, trouble)| trouble.list_delay_ms);
        delays.filter(|ms| *ms > 0).max()
    }

    /// What a listing shows, by path.
    fn listed(&mut self, now: Micros) -> Vec<(Path, Object)> {
        let delay_ms = self.list_delay_ms().unwrap_or(0);
        let seen = Micros(now.0.saturating_sub(delay_ms * 1_000));
        let is_seen = |object: &Object| delay_ms == 0 || object.written_at <= seen;
        let gone = self
            .gone
            .iter()
            .filter(|(at, ..)| delay_ms > 0 && *at > seen);
        let gone = gone.map(|(_, path, object)| (path, object));
        let mut listed: Vec<(Path, Object)> = self
            .objects
            .iter()
            .chain(gone)
            .filter(|(_, object)| is_seen(object))
            .map(|(path, object)| (path.clone(), object.clone()))
            .collect();
        if delay_ms > 0 {
            listed.sort_by(|a, b| a.0.cmp(&b.0));
            for (fault, trouble) in &self.trouble {
                if trouble.list_delay_ms > 0 {
                    *self.hits.entry(*fault).or_default() += 1;
                }
            }
        }
        listed
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

/// The partition whose checkpoints an object belongs to ([`processor::checkpoints::Place`]).
fn partition_of(path: &Path) -> Option<i32> {
    let parts: Vec<_> = path.parts().collect();
    let folder = parts
        .iter()
        .rposition(|part| matches!(part.as_ref(), "files" | "manifests"))?;
    parts.get(folder.checked_sub(1)?)?.as_ref().parse().ok()
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
        let is_delete = matches!(write, Write::Delete);
        if !fate.fails {
            let delay = fate.effect_delay.unwrap_or(Micros(0));
            let at = fabric.now().plus(fate.before).plus(delay);
            let mut bucket = self.service.lock();
            let under_way = UnderWay {
                path: path.clone(),
                what: write,
                reported_failed: fate.effect_delay.is_some(),
            };
            bucket.under_way.insert((at, fate.sequence), under_way);
        }
        fabric.sleep(self.host, fate.before).await;
        let result = if fate.fails {
            Err(failed("503 Slow Down"))
        } else {
            if is_delete && let Some(partition) = partition_of(path) {
                fabric.mark(|marks| marks.object_deleted(self.host, partition));
            }
            let mut bucket = self.bucket(fabric.now());
            let arrived = bucket.arrived.remove(&fate.sequence);
            arrived.unwrap_or_else(|| Err(failed("connection reset")))
        };
        fabric.sleep(self.host, fate.after).await;
        if fate.outcome_unknown && result.is_ok() {
            self.note("object-written-unnoticed", path);
            return Err(failed("connection reset"));
        }
        result
    }

    /// The store as it is now.
    fn bucket(&self, now: Micros) -> MutexGuard<'_, Bucket> {
        let mut bucket = self.service.lock();
        for path in bucket.take_in(now) {
            self.note("object-written-late", &path);
        }
        bucket
    }

    fn note(&self, kind: &'static str, path: &Path) {
        self.service.fabric.note(self.host, kind, path.as_ref());
    }

    async fn read<R>(&self, look: impl FnOnce(&mut Bucket) -> R) -> Result<R> {
        let fate = self.service.fate(false);
        let fabric = &self.service.fabric;
        fabric.sleep(self.host, fate.before).await;
        let result = if fate.fails {
            Err(failed("503 Slow Down"))
        } else {
            Ok(look(&mut self.bucket(fabric.now())))
        };
        fabric.sleep(self.host, fate.after).await;
        result
    }

    async fn list_now(&self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        let service = self.service.clone();
        self.read(move |bucket| {
            let is_in = |path: &Path| prefix.as_ref().is_none_or(|p| path.prefix_matches(p));
            let listed = bucket.listed(service.fabric.now());
            let listed: Vec<_> = listed.iter().filter(|(path, _)| is_in(path)).collect();
            if bucket.list_delay_ms().is_some() {
                let held = bucket.objects.keys().filter(|path| is_in(path));
                if !held.eq(listed.iter().map(|(path, _)| path)) {
                    let text = prefix.as_ref().map_or("", |prefix| prefix.as_ref());
                    service
                        .fabric
                        .note(self.host, "object-listing-behind", text);
                }
            }
            let metas = listed.into_iter();
            metas
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

#[cfg(test)]
mod tests {
    use super::ObjectService;
    use crate::fabric::actor::{HostId, Micros};
    use crate::fabric::{Fabric, Step};
    use futures_util::FutureExt;
    use object_store::path::Path;
    use object_store::{ObjectStoreExt, PutPayload};

    #[test]
    fn a_write_takes_effect_though_nobody_waits_for_it_any_more() {
        let fabric = Fabric::new(1, &["worker".to_owned()], 0, false);
        let service = ObjectService::new(fabric.clone(), 0);
        let store = service.client(HostId(0));
        let path = Path::from("piece");
        let put = store.put(&path, PutPayload::from_static(b"content"));
        assert!(put.now_or_never().is_none(), "it takes its time");
        assert!(service.objects().is_empty());
        fabric.schedule_control(Micros::from_ms(1_000), 0);
        while fabric.step() != Step::Control(0) {}
        assert_eq!(service.objects(), [("piece".to_owned(), 7)]);
    }
}
