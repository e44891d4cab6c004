//! What state costs: bytes and time of checkpoints, and time of a restore, with many identities.
//!
//! ```sh
//! cargo run --release -p processor --example state_size -- 1000000 10000000
//! ```
//!
//! For each number of live identities: a checkpoint of all of it, one after 100,000 new events, one
//! after 100,000 more that are spread over five minutes of windows, and a restore; RocksDB in a
//! temporary folder, checkpoints in another one. Then the same events with 64 MiB for identities.
#![allow(
    clippy::disallowed_methods,
    reason = "it measures: real time, a real file system"
)]

use bytes::Bytes;
use processor::adapters::rocks::RocksStateStore;
use processor::config::ProcessorConfig;
use processor::core::{
    CoreConfig, InputRecord, PartitionTask, Progress, SnapshotError, snapshot_heads,
};
use processor::io::{PieceKey, StateBatch, StateStore};
use processor::units::{LogTimeMs, Offset, PartitionId};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PARTITION: PartitionId = PartitionId(0);
/// 2013-10-07 08:00 UTC.
const START_MS: i64 = 1_381_132_800_000;
const TICKERS: [&str; 8] = ["SPY", "AIG", "BAC", "IBM", "AMZN", "AAPL", "MSFT", "GOOGL"];
/// Identities stay for 5 minutes of disorder, 5 of lateness, and their own minute.
const LIVE_SECONDS: i64 = 630;
const NEW_EVENTS: i64 = 100_000;
const CHUNK_EVENTS: i64 = 10_000;
const SMALL_MEMORY: usize = 64 << 20;

fn main() {
    let given: Vec<i64> = std::env::args()
        .skip(1)
        .map(|text| text.parse().expect("numbers of identities"))
        .collect();
    let counts = if given.is_empty() {
        vec![1_000_000, 10_000_000]
    } else {
        given
    };
    let folder = std::env::temp_dir().join(format!("state-size-{}", std::process::id()));
    for ids in counts {
        println!("\n{ids} live identities");
        let plain = measure(ids, usize::MAX, &folder);
        let small = measure(ids, SMALL_MEMORY, &folder);
        println!(
            "feeding with {} MiB for identities took {:.2} times as long",
            SMALL_MEMORY >> 20,
            small.as_secs_f64() / plain.as_secs_f64()
        );
    }
    fs::remove_dir_all(folder).expect("it is this program's own");
}

/// Returns how long the events took.
fn measure(ids: i64, limit_bytes: usize, folder: &Path) -> Duration {
    let config = ProcessorConfig::from_toml(ProcessorConfig::example())
        .expect("the example is valid")
        .core_config();
    let mut run = Run {
        task: PartitionTask::new(PARTITION, Offset(0), Arc::clone(&config)),
        store: RocksStateStore::open(folder, 0, "state").expect("the folder is writable"),
        checkpoints: folder.join("checkpoints"),
        stored: BTreeSet::new(),
        per_second: ids / LIVE_SECONDS,
        next: 0,
        limit_bytes,
    };
    fs::create_dir_all(&run.checkpoints).expect("the folder is writable");
    let fed = run.feed(ids + ids / 10, 0);
    println!(
        "{} MiB in memory, {:.0} ns an event",
        run.task.id_bytes() >> 20,
        fed.as_nanos() as f64 / (ids + ids / 10) as f64
    );
    run.checkpoint("of everything");
    run.feed(NEW_EVENTS, 0);
    run.checkpoint("after 100,000 new events in order");
    let disordered = run.feed(NEW_EVENTS, 300_000);
    println!(
        "  events of five minutes: {:.0} ns an event",
        disordered.as_nanos() as f64 / NEW_EVENTS as f64
    );
    let header = run.checkpoint("after 100,000 new events of five minutes");
    run.restore(&header, config);
    fs::remove_dir_all(&run.checkpoints).expect("it is this program's own");
    fed
}

struct Run {
    task: PartitionTask,
    store: RocksStateStore,
    checkpoints: PathBuf,
    /// Pieces that were uploaded.
    stored: BTreeSet<PieceKey>,
    per_second: i64,
    next: i64,
    limit_bytes: usize,
}

impl Run {
    /// Processes events whose times lie up to `behind_ms` behind the newest.
    fn feed(&mut self, events: i64, behind_ms: i64) -> Duration {
        let end = self.next + events;
        let mut took = Duration::ZERO;
        while self.next < end {
            let chunk: Vec<(i64, String)> = (self.next..end.min(self.next + CHUNK_EVENTS))
                .map(|index| (index, self.event(index, behind_ms)))
                .collect();
            let began = Instant::now();
            self.process(&chunk);
            self.spill();
            took += began.elapsed();
            self.next += chunk.len() as i64;
        }
        took
    }

    fn event(&self, index: i64, behind_ms: i64) -> String {
        let mixed = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
        let behind = if behind_ms > 0 {
            mixed as i64 % behind_ms
        } else {
            0
        };
        let time = START_MS + index * 1_000 / self.per_second - behind;
        let ticker = TICKERS[mixed as usize % TICKERS.len()];
        format!(
            r#"{{"event_id":"{ticker}-{index}","ticker":"{ticker}","price":{}.25,"volume":{},"timestamp":{}.{:03}}}"#,
            100 + mixed % 100,
            100 + mixed % 900,
            time / 1_000,
            time % 1_000
        )
    }

    fn process(&mut self, chunk: &[(i64, String)]) {
        let mut outputs = Vec::new();
        loop {
            let rest = records(chunk, self.per_second, self.task.position());
            let Progress::Needs(bucket) = self.task.process(rest, &mut outputs) else {
                return;
            };
            let room = self.limit_bytes.saturating_sub(self.task.id_bytes());
            if self.task.load_bytes(bucket) <= room {
                load(&mut self.task, &mut self.store, bucket.0);
            } else {
                let store = &mut self.store;
                let piece = |key| Ok::<_, SnapshotError>(store.get(PARTITION, key).expect("put"));
                let rest = records(chunk, self.per_second, self.task.position());
                self.task.look_up(rest, piece).expect("whole");
            }
        }
    }

    /// As the worker does it after each poll.
    fn spill(&mut self) {
        if self.task.id_bytes() > self.limit_bytes {
            let batch = self.task.spill(self.limit_bytes, None);
            self.store
                .apply(PARTITION, batch)
                .expect("the disk is sound");
        }
    }

    /// As the worker does it: changes to the store, new pieces from the store to the folder. Returns the
    /// header.
    fn checkpoint(&mut self, name: &str) -> Bytes {
        let began = Instant::now();
        let changes = self.task.drain_changes();
        self.store
            .apply(PARTITION, changes.batch)
            .expect("the disk is sound");
        let (mut files, mut bytes) = (0, 0);
        for (key, size) in &changes.pieces {
            if self.stored.insert(*key) {
                let content = self.store.get(PARTITION, *key).expect("it was put");
                fs::write(self.checkpoints.join(key.to_string()), content).expect("written");
                files += 1;
                bytes += size;
            }
        }
        let all: u64 = changes.pieces.iter().map(|(_, size)| size).sum();
        println!(
            "  checkpoint {name}: {:.2} MB in {files} new files, of {:.1} MB in {}; {:.0} ms",
            bytes as f64 / 1e6,
            all as f64 / 1e6,
            changes.pieces.len(),
            began.elapsed().as_secs_f64() * 1e3
        );
        changes.header
    }

    /// A restore into an empty store; then everything into memory, which a recovery does only as far as
    /// events ask for it.
    fn restore(&mut self, header: &[u8], config: Arc<CoreConfig>) {
        let pieces = self.task.pieces();
        let live = self.task.live_ids();
        let began = Instant::now();
        self.store
            .drop_partition(PARTITION)
            .expect("the disk is sound");
        for key in pieces {
            let content = fs::read(self.checkpoints.join(key.to_string())).expect("read");
            assert!(key.names(&content));
            let puts = vec![(key, Bytes::from(content))];
            let batch = StateBatch {
                puts,
                deletes: vec![],
            };
            self.store
                .apply(PARTITION, batch)
                .expect("the disk is sound");
        }
        let keys = snapshot_heads(header).expect("whole");
        let heads: Vec<_> = keys
            .iter()
            .map(|&key| (key, self.store.get(PARTITION, key).expect("it was put")))
            .collect();
        self.task = PartitionTask::restore(config, header, heads).expect("whole");
        let ready = began.elapsed();
        for key in keys {
            load(&mut self.task, &mut self.store, key.bucket.0);
        }
        assert_eq!(self.task.live_ids(), live);
        println!(
            "  restore: ready after {:.0} ms; all {live} identities in memory after {:.0} ms",
            ready.as_secs_f64() * 1e3,
            began.elapsed().as_secs_f64() * 1e3
        );
    }
}

fn records(
    chunk: &[(i64, String)],
    per_second: i64,
    from: Offset,
) -> impl Iterator<Item = InputRecord<'_>> {
    let rest = chunk
        .iter()
        .filter(move |(index, _)| Offset(*index) >= from);
    rest.map(move |(index, value)| InputRecord {
        offset: Offset(*index),
        timestamp: LogTimeMs(START_MS + index * 1_000 / per_second),
        key: None,
        value: Some(value.as_bytes()),
    })
}

fn load(task: &mut PartitionTask, store: &mut RocksStateStore, start: i64) {
    let bucket = processor::io::BucketKey(start);
    let pieces = task.pieces_of(bucket).into_iter();
    let contents: Vec<Bytes> = pieces
        .map(|key| store.get(PARTITION, key).expect("it was put"))
        .collect();
    task.load(bucket, &contents).expect("whole");
}
