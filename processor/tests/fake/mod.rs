//! A small, honest world for one worker: logs, a group coordinator, a transaction coordinator, an
//! object store and a clock in memory, all driven by a script.
//!
//! Comes in: a script of polls, and faults for single calls. Goes out: what became visible, a journal
//! of all calls and events in order, and broken promises. A call is answered at once or never: a call
//! that is never answered is a crash, and the process is dropped there.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses a part of it"
)]

mod kafka;
mod local;
mod objects;
mod script;

pub use kafka::FakeKafka;
pub use local::{FakeClock, FakeState, Journalist};
pub use objects::FakeObjects;
pub use script::{
    Fault, Hook, Step, act, assign, lose, reading, reading_then_crash, reading_with_patience,
    revoke,
};

use bytes::Bytes;
use futures_util::FutureExt;
use processor::config::ProcessorConfig;
use processor::io::{
    CommittedOffset, ConsumedRecord, ErrorClass, OffsetAndMetadata, ProducerRecord, TopicPartition,
};
use processor::units::{LogTimeMs, Offset, PartitionId};
use processor::worker::{CommitRecord, METADATA_BYTES_MAX, Parts, StopSignal, Worker, WorkerError};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

/// Unix seconds at the start of a window; the world's clock begins here.
pub const T0: i64 = 1_381_132_800;
pub const P0: PartitionId = PartitionId(0);
pub const P1: PartitionId = PartitionId(1);
/// Where the checkpoints of partition 0 lie.
pub const FOLDER_OF_P0: &str = "checkpoints/processor/input_topic/0";
/// Name of the input topic.
pub const INPUT: &str = "input_topic";
/// Polls after which a run is taken for endless.
const POLLS_MAX: u64 = 50_000;

const RULES: &str = r#"
kafka = { max_poll_interval_ms = 60000 }
windows = { max_out_of_orderness_ms = 5000, allowed_lateness_ms = 60000, idle_timeout_ms = 3600000 }
commit = { interval_ms = 100 }
checkpoint = { interval_ms = 200 }
"#;

/// The example configuration with the fake's rules and `overrides` on top.
pub fn config(overrides: &str) -> Arc<ProcessorConfig> {
    let mut table: toml::Table = RULES.parse().expect("the fake's rules are TOML");
    let overrides: toml::Table = overrides.parse().expect("the test's overrides are TOML");
    for (section, values) in overrides {
        let values = values.as_table().expect("overrides are sections").clone();
        let section = table.entry(section).or_insert(toml::Table::new().into());
        section.as_table_mut().expect("a section").extend(values);
    }
    let config = ProcessorConfig::with_overrides(ProcessorConfig::example(), &table);
    Arc::new(config.expect("the test's configuration is valid"))
}

/// The log of one partition.
#[derive(Debug, Clone, Default)]
pub struct Log {
    pub records: Vec<ConsumedRecord>,
    pub earliest: i64,
    /// Where the leader says that the stable log ends.
    pub last_stable: i64,
    /// Where fetches end (below `last_stable` while a fetch is slow).
    pub fetchable: i64,
}

/// A transaction as it ended.
#[derive(Debug, Clone)]
pub struct Transaction {
    pub records: Vec<ProducerRecord>,
    pub offsets: Vec<OffsetAndMetadata>,
    /// Generation under which the offsets came.
    pub generation: Option<u64>,
    pub epoch: u64,
}

/// What a transaction is for. Calls are named so, for faults to tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Outputs and where the input stands.
    Work,
    /// It only proves that the coordinator is current.
    Mark,
    /// The first commit of a partition.
    Opening,
}

impl Purpose {
    fn of(offsets: &[OffsetAndMetadata]) -> Purpose {
        let is_mark = |offset: &OffsetAndMetadata| offset.tp.topic != INPUT;
        let is_opening = |offset: &OffsetAndMetadata| {
            CommitRecord::decode(&offset.metadata).is_ok_and(|record| record.snapshot.is_empty())
        };
        match offsets {
            [] => Purpose::Work,
            offsets if offsets.iter().all(is_mark) => Purpose::Mark,
            offsets if offsets.iter().all(is_opening) => Purpose::Opening,
            _ => Purpose::Work,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Object {
    pub content: Bytes,
    pub written_at_unix_ms: i64,
    pub writes: u64,
}

/// How a process ended.
#[derive(Debug)]
pub enum Exit {
    Stopped,
    Crashed,
    Failed(WorkerError),
}

impl Exit {
    pub fn error(self) -> WorkerError {
        match self {
            Exit::Failed(error) => error,
            other => panic!("the worker should have failed, but {other:?}"),
        }
    }
}

pub struct Inner {
    pub now_ms: u64,
    pub clock_jump_ms: i64,
    pub topic_id: Option<String>,
    pub partitions: u32,
    pub logs: BTreeMap<PartitionId, Log>,
    /// Committed offsets of the input topic.
    pub committed: BTreeMap<PartitionId, CommittedOffset>,
    /// Somebody else's transaction with an offset of these is open.
    pub is_pending: BTreeSet<PartitionId>,
    /// Committed offsets of other topics: the workers' marks.
    pub marks: BTreeMap<TopicPartition, CommittedOffset>,
    /// So many answers come from a coordinator that was replaced and does not know it: from what it
    /// remembers.
    pub stale_answers: u64,
    pub remembered: BTreeMap<PartitionId, CommittedOffset>,
    /// Committed transactions but for marks and openings.
    pub transactions: Vec<Transaction>,
    pub aborted: Vec<Transaction>,
    pub generation: u64,
    /// False: the member is not in a stable generation.
    pub in_group: bool,
    /// The member's identity is never told.
    pub never_in_group: bool,
    pub lost: BTreeSet<PartitionId>,
    pub objects: BTreeMap<String, Object>,
    pub journal: Vec<String>,
    pub broken: Vec<String>,
    /// Records of one poll, and what a poll that delivers takes.
    pub batch: usize,
    pub delivery_ms: u64,
    /// The process dies when this many calls have been answered.
    pub crash_after_calls: Option<u64>,
    pub calls: u64,
    /// The configured grace: deletions are checked against it.
    pub gc_grace_ms: Option<i64>,
    /// The process is dead: nothing is answered any more.
    is_dead: bool,
    /// When the answer to the newest object store call comes.
    answered_at_ms: u64,
    script: VecDeque<Step>,
    faults: Vec<(String, u64, Fault)>,
    epochs: BTreeMap<String, u64>,
    open: BTreeMap<String, Transaction>,
    /// Transactional ids whose newest transaction was ended by a commit.
    ended: BTreeSet<String>,
    tainted: bool,
    stop: StopSignal,
    polls: u64,
    starts: u64,
}

impl Inner {
    pub fn unix_ms(&self) -> i64 {
        T0 * 1000 + self.now_ms as i64 + self.clock_jump_ms
    }

    /// Appends an event of `AMZN` at `T0 + seconds`; the log's own time is the same.
    pub fn append(&mut self, partition: PartitionId, seconds: i64, price: &str) {
        self.append_value(partition, seconds, &tick("AMZN", seconds, price));
    }

    pub fn append_value(&mut self, partition: PartitionId, seconds: i64, value: &str) {
        let log = self.logs.entry(partition).or_default();
        log.records.push(ConsumedRecord {
            offset: Offset(log.last_stable),
            timestamp: LogTimeMs((T0 + seconds) * 1000),
            key: Some(Bytes::from_static(b"AMZN")),
            value: Some(Bytes::from(value.to_owned())),
            headers: Vec::new(),
        });
        self.append_gap(partition, 1);
    }

    /// Offsets that hold nothing visible: control records, aborted data.
    pub fn append_gap(&mut self, partition: PartitionId, offsets: i64) {
        let log = self.logs.entry(partition).or_default();
        log.last_stable += offsets;
        log.fetchable = log.last_stable;
    }

    /// The `occurrence`-th such call from now on (0: the next) meets `fault`. Faults of one call come
    /// in the order in which they were set; each counts from the one before.
    pub fn meet(&mut self, call: &str, occurrence: u64, fault: Fault) {
        self.faults.push((call.to_owned(), occurrence, fault));
    }

    /// The next `times` such calls fail and nothing happens.
    pub fn fail(&mut self, call: &str, times: u64, class: ErrorClass) {
        for _ in 0..times {
            self.meet(call, 0, Fault::fails(class));
        }
    }

    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    fn take_fault(&mut self, call: &str) -> Option<Fault> {
        let at = self.faults.iter().position(|(of, ..)| of == call)?;
        if self.faults[at].1 > 0 {
            self.faults[at].1 -= 1;
            return None;
        }
        Some(self.faults.remove(at).2)
    }

    /// A call that answers without waiting: the class of its error, if it fails.
    fn call_fails(&mut self, call: &str) -> Option<ErrorClass> {
        self.journal.push(call.to_owned());
        let name = call.split(' ').next().expect("a call has a name");
        self.take_fault(name).and_then(|fault| fault.error)
    }

    /// Makes a call: `effect` happens unless a fault says otherwise. `Err(Crashed)` is never answered.
    fn call<T, E>(
        &mut self,
        call: &str,
        error: impl FnOnce(ErrorClass) -> E,
        effect: impl FnOnce(&mut Inner) -> Result<T, E>,
    ) -> Result<Result<T, E>, Crashed> {
        if self.is_dead {
            return Err(Crashed);
        }
        self.journal.push(call.to_owned());
        let name = call.split(' ').next().expect("a call has a name");
        let mut fault = self.take_fault(name).unwrap_or_default();
        self.calls += 1;
        if self
            .crash_after_calls
            .is_some_and(|last| self.calls >= last)
        {
            self.crash_after_calls = None;
            fault.crashes = true;
        }
        if let Some(hook) = fault.before {
            hook(self);
        }
        let result = if fault.is_ineffective {
            None
        } else {
            Some(effect(self))
        };
        self.tainted |= fault.taints;
        self.is_dead |= fault.crashes;
        self.answered_at_ms = self.now_ms + fault.slow_ms;
        match (fault.crashes, fault.error, result) {
            (true, ..) => Err(Crashed),
            (_, _, Some(Err(error))) => Ok(Err(error)),
            (_, Some(class), _) => Ok(Err(error(class))),
            (_, None, Some(done)) => Ok(done),
            (_, None, None) => unreachable!("what has no effect fails or crashes"),
        }
    }

    /// Ends an open transaction as committed, and sees that promises are kept.
    fn commit(&mut self, transaction: Transaction) {
        let purpose = Purpose::of(&transaction.offsets);
        if purpose == Purpose::Mark {
            for offset in transaction.offsets {
                self.marks
                    .insert(offset.tp, committed(offset.offset, offset.metadata));
            }
            return;
        }
        let covered: BTreeSet<String> = transaction
            .offsets
            .iter()
            .map(|offset| offset.tp.partition.to_string())
            .collect();
        for record in &transaction.records {
            let source = header(record, "source-partition");
            if !covered.contains(&source) {
                self.broken
                    .push(format!("outputs of {source} without its offset"));
            }
        }
        for offset in &transaction.offsets {
            self.check_commit_record(offset);
            let partition = offset.tp.partition;
            if self.lost.contains(&partition) {
                self.broken
                    .push(format!("a commit of {partition}, which is lost"));
            }
            let committed = committed(offset.offset, offset.metadata.clone());
            self.committed.insert(partition, committed);
        }
        if purpose == Purpose::Work {
            self.transactions.push(transaction);
        } else if !transaction.records.is_empty() {
            self.broken.push("outputs before a snapshot".into());
        }
    }

    fn check_commit_record(&mut self, offset: &OffsetAndMetadata) {
        if offset.metadata.len() > METADATA_BYTES_MAX {
            self.broken.push("metadata over 1 KiB".into());
        }
        let record = CommitRecord::decode(&offset.metadata).expect("the worker writes its own");
        if record.snapshot.is_empty() {
            if record.snapshot_at != offset.offset || record.next_sequence > 0 {
                self.broken.push("an opening with something in it".into());
            }
            return;
        }
        let partition = offset.tp.partition;
        let path = format!(
            "checkpoints/processor/input_topic/{partition}/manifests/{}.json",
            record.snapshot
        );
        let Some(manifest) = self.objects.get(&path) else {
            self.broken.push(format!("{path} is named but not there"));
            return;
        };
        for file in files_of(&manifest.content) {
            if !self.objects.contains_key(&file) {
                self.broken
                    .push(format!("{path} needs {file}, which is not there"));
            }
        }
    }

    /// Removes an object, and sees that nobody can still need it.
    fn delete(&mut self, path: &str) {
        let removed = self.objects.remove(path);
        for committed in self.committed.clone().into_values() {
            let Ok(record) = CommitRecord::decode(&committed.metadata) else {
                continue;
            };
            let manifest = format!("manifests/{}.json", record.snapshot);
            let is_named = |path: &String| path.ends_with(&manifest);
            let Some(named) = self.objects.keys().find(|path| is_named(path)).cloned() else {
                if !record.snapshot.is_empty() {
                    self.broken
                        .push(format!("{path} was deleted, and is named"));
                }
                continue;
            };
            if self.files_of(&named).iter().any(|file| file == path) {
                self.broken
                    .push(format!("{path} was deleted, and {named} needs it"));
            }
        }
        if let (Some(grace_ms), Some(object)) = (self.gc_grace_ms, removed) {
            let named = &self.objects[&self.named_manifest()];
            if object.written_at_unix_ms >= named.written_at_unix_ms - grace_ms {
                self.broken.push(format!("{path} was deleted too young"));
            }
        }
    }

    pub fn commit_record(&self, partition: PartitionId) -> CommitRecord {
        let committed = &self.committed[&partition];
        CommitRecord::decode(&committed.metadata).expect("the worker wrote it")
    }

    /// Changes the commit record of a partition, as if it had been committed so.
    pub fn edit_commit_record(
        &mut self,
        partition: PartitionId,
        edit: impl FnOnce(&mut CommitRecord),
    ) {
        let mut record = self.commit_record(partition);
        edit(&mut record);
        let committed = self.committed.get_mut(&partition).expect("committed");
        committed.metadata = record.encode();
    }

    /// Changes the manifest that the commit record of partition 0 names.
    pub fn edit_named_manifest(&mut self, edit: impl FnOnce(&mut serde_json::Value)) {
        let path = self.named_manifest();
        let object = self.objects.get_mut(&path).expect("it is there");
        let mut manifest = serde_json::from_slice(&object.content).expect("it is JSON");
        edit(&mut manifest);
        object.content = Bytes::from(manifest.to_string());
    }

    /// Path of the manifest that the commit record of partition 0 names.
    pub fn named_manifest(&self) -> String {
        let id = self.commit_record(P0).snapshot;
        format!("{FOLDER_OF_P0}/manifests/{id}.json")
    }

    /// Paths of the files of a manifest.
    pub fn files_of(&self, manifest: &str) -> Vec<String> {
        files_of(&self.objects[manifest].content)
    }
}

/// The call will never be answered.
struct Crashed;

fn committed(offset: Offset, metadata: String) -> CommittedOffset {
    CommittedOffset { offset, metadata }
}

fn files_of(manifest: &Bytes) -> Vec<String> {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).expect("it is JSON");
    let files = manifest["files"].as_array().expect("files are a list");
    files
        .iter()
        .map(|file| file["path"].as_str().expect("a path").to_owned())
        .collect()
}

/// An event at `T0 + seconds`.
pub fn tick(ticker: &str, seconds: i64, price: &str) -> String {
    let timestamp = T0 + seconds;
    format!(r#"{{"ticker":"{ticker}","price":{price},"volume":1,"timestamp":{timestamp}}}"#)
}

/// An event at `T0 + seconds` that is told from its duplicates by an id.
pub fn tick_with_id(ticker: &str, seconds: i64, price: &str, id: i64) -> String {
    tick(ticker, seconds, price).replacen('{', &format!(r#"{{"event_id":{id},"#), 1)
}

/// A header's text; empty if there is none.
pub fn header(record: &ProducerRecord, name: &str) -> String {
    let found = record.headers.iter().find(|header| header.name == name);
    found.map_or(String::new(), |header| {
        String::from_utf8(header.value.to_vec()).expect("headers are text")
    })
}

/// A record without the name of its sender: what must be the same whoever sends it.
pub fn without_owner(record: &ProducerRecord) -> ProducerRecord {
    let mut record = record.clone();
    record.headers.retain(|header| header.name != "owner");
    record
}

#[derive(Clone)]
pub struct World(Arc<Mutex<Inner>>);

impl World {
    /// Two partitions, empty.
    pub fn new() -> World {
        World(Arc::new(Mutex::new(Inner {
            now_ms: 10_000,
            clock_jump_ms: 0,
            topic_id: Some("topic-a".into()),
            partitions: 2,
            logs: BTreeMap::from([(P0, Log::default()), (P1, Log::default())]),
            committed: BTreeMap::new(),
            is_pending: BTreeSet::new(),
            marks: BTreeMap::new(),
            stale_answers: 0,
            remembered: BTreeMap::new(),
            transactions: Vec::new(),
            aborted: Vec::new(),
            generation: 0,
            in_group: false,
            never_in_group: false,
            lost: BTreeSet::new(),
            objects: BTreeMap::new(),
            journal: Vec::new(),
            broken: Vec::new(),
            batch: 3,
            delivery_ms: 40,
            crash_after_calls: None,
            calls: 0,
            gc_grace_ms: None,
            is_dead: false,
            answered_at_ms: 0,
            script: VecDeque::new(),
            faults: Vec::new(),
            epochs: BTreeMap::new(),
            open: BTreeMap::new(),
            ended: BTreeSet::new(),
            tainted: false,
            stop: StopSignal::default(),
            polls: 0,
            starts: 0,
        })))
    }

    /// A world whose partition 0 holds `events` events, 7 s apart, with disorder, late ones,
    /// duplicates' look-alikes, garbage and gaps: every third record closes or corrects a window.
    pub fn with_events(events: i64) -> World {
        let world = World::new();
        world.append_events(0..events);
        world
    }

    /// See [`World::with_events`].
    pub fn append_events(&self, indices: std::ops::Range<i64>) {
        let mut inner = self.lock();
        for index in indices {
            append_varied(&mut inner, P0, index);
        }
    }

    /// Where the log of partition 0 ends.
    pub fn end_of_log(&self) -> i64 {
        self.lock().logs[&P0].last_stable
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("a test that panicked has ended")
    }

    pub fn meet(&self, call: &str, occurrence: u64, fault: Fault) {
        self.lock().meet(call, occurrence, fault);
    }

    pub fn fail(&self, call: &str, times: u64, class: ErrorClass) {
        self.lock().fail(call, times, class);
    }

    /// What a start of the process is built from.
    pub fn parts(&self, incarnation: &str) -> Parts<FakeKafka, FakeState, FakeClock, Journalist> {
        Parts {
            kafka: FakeKafka::new(self),
            state: FakeState::new(self),
            objects: Arc::new(FakeObjects::new(self)),
            clock: FakeClock::new(self),
            observer: Journalist::new(self),
            incarnation: incarnation.to_owned(),
        }
    }

    /// Starts a process, plays `script`, and returns how the process ended. Promises must have held.
    pub fn run(
        &self,
        config: &Arc<ProcessorConfig>,
        script: impl IntoIterator<Item = Step>,
    ) -> Exit {
        let (incarnation, stop) = {
            let mut inner = self.lock();
            inner.starts += 1;
            inner.polls = 0;
            inner.is_dead = false;
            inner.answered_at_ms = 0;
            inner.in_group = false;
            inner.lost.clear();
            inner.stop = StopSignal::default();
            inner.script = script.into_iter().collect();
            let start = format!("start {}", inner.starts);
            inner.journal.push(start);
            (format!("run-{}", inner.starts), inner.stop.clone())
        };
        let worker =
            Worker::new(Arc::clone(config), self.parts(&incarnation)).expect("clients are created");
        let exit = match worker.run(stop).now_or_never() {
            None => Exit::Crashed,
            Some(Ok(())) => Exit::Stopped,
            Some(Err(error)) => Exit::Failed(error),
        };
        let mut inner = self.lock();
        // A restart takes a while; and the group notices.
        inner.now_ms += 1_000;
        inner.generation += 1;
        inner.crash_after_calls = None;
        assert_eq!(inner.broken, Vec::<String>::new(), "{exit:?}");
        exit
    }

    /// As [`World::run`], for a process that must stop cleanly.
    pub fn run_well(&self, config: &Arc<ProcessorConfig>, script: impl IntoIterator<Item = Step>) {
        match self.run(config, script) {
            Exit::Stopped => {}
            Exit::Failed(error) => panic!("{error}\n{}", self.lock().journal.join("\n")),
            Exit::Crashed => panic!("it crashed\n{}", self.lock().journal.join("\n")),
        }
    }

    /// Everything that a read_committed reader sees of one source partition, owners left out; the
    /// sequence must have no gap and no repeat.
    pub fn outputs(&self, partition: PartitionId) -> Vec<ProducerRecord> {
        let inner = self.lock();
        let outputs: Vec<ProducerRecord> = inner
            .transactions
            .iter()
            .flat_map(|transaction| &transaction.records)
            .filter(|record| header(record, "source-partition") == partition.to_string())
            .map(without_owner)
            .collect();
        for (index, record) in outputs.iter().enumerate() {
            assert_eq!(header(record, "sequence"), index.to_string());
        }
        outputs
    }

    pub fn committed_offset(&self, partition: PartitionId) -> Option<i64> {
        let inner = self.lock();
        let committed = inner.committed.get(&partition);
        committed.map(|committed| committed.offset.0)
    }

    pub fn transaction_count(&self) -> usize {
        self.lock().transactions.len()
    }

    /// Places in the journal of lines that begin so.
    pub fn places(&self, beginning: &str) -> Vec<usize> {
        let inner = self.lock();
        let lines = inner.journal.iter().enumerate();
        lines
            .filter(|(_, line)| line.starts_with(beginning))
            .map(|(at, _)| at)
            .collect()
    }

    pub fn count(&self, beginning: &str) -> usize {
        self.places(beginning).len()
    }

    pub fn journal(&self) -> String {
        self.lock().journal.join("\n")
    }

    pub fn forget_journal(&self) {
        self.lock().journal.clear();
    }
}

pub fn append_varied(inner: &mut Inner, partition: PartitionId, index: i64) {
    let seconds = index * 7;
    let price = format!("{}.{:02}", 100 + index % 13, index % 97);
    let mut append = |ticker: &str, seconds: i64| {
        let event = tick_with_id(ticker, seconds, &price, index);
        inner.append_value(partition, index * 7, &event);
    };
    match index % 10 {
        3 => inner.append_value(partition, seconds, "garbage"),
        // Late, but within the lateness: a correction of the window before.
        6 => append("SPY", seconds - 45),
        8 => inner.append_gap(partition, 2),
        index if index % 2 == 0 => append("SPY", seconds),
        _ => append("AMZN", seconds),
    }
}
