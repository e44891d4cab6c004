//! How many events one core takes through `PartitionTask::process`, from bytes to windows, while a
//! million event ids are live; and how many the JSON parser alone takes, in the same run.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use processor::config::ProcessorConfig;
use processor::core::decode::decode_event;
use processor::core::{CoreConfig, InputRecord, PartitionTask, Progress};
use processor::units::{LogTimeMs, Offset, PartitionId};
use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

/// Ids that are live while measuring.
const LIVE_IDS: usize = 1_020_000;
/// Events between measurements of time.
const CHUNK_EVENTS: usize = 20_000;
/// 2013-10-07 08:00 UTC.
const START_MS: i64 = 1_381_132_800_000;
const TICKERS: [&str; 8] = ["SPY", "AIG", "BAC", "IBM", "AMZN", "AAPL", "MSFT", "GOOGL"];

/// An endless day of trades.
struct Trades {
    next: i64,
    /// Events a second of event time: chosen such that [`LIVE_IDS`] are live under the example's 5
    /// minutes of disorder and 5 of lateness.
    per_second: i64,
    /// Event times are spread over this span behind the newest.
    disorder_ms: i64,
}

/// Some records, in one buffer as they come from a fetch.
struct Chunk {
    first: i64,
    per_second: i64,
    text: String,
    ends: Vec<usize>,
}

impl Trades {
    fn chunk(&mut self, events: usize) -> Chunk {
        let mut chunk = Chunk {
            first: self.next,
            per_second: self.per_second,
            text: String::with_capacity(events * 150),
            ends: Vec::with_capacity(events),
        };
        for index in self.next..self.next + events as i64 {
            let mixed = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
            let behind = if self.disorder_ms == 0 {
                0
            } else {
                mixed as i64 % self.disorder_ms
            };
            let time = START_MS + index * 1_000 / self.per_second - behind;
            let ticker = TICKERS[mixed as usize % TICKERS.len()];
            write!(
                chunk.text,
                r#"{{"event_id":"{ticker}-20131007-{index}","ticker":"{ticker}","price":{}.{:02},"volume":{},"timestamp":{}.{:03},"source":"P"}}"#,
                100 + mixed % 100,
                mixed % 100,
                100 + mixed % 900,
                time / 1_000,
                time % 1_000,
            )
            .expect("a String takes every write");
            chunk.ends.push(chunk.text.len());
        }
        self.next += events as i64;
        chunk
    }
}

impl Chunk {
    fn values(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| &self.text.as_bytes()[start..end])
    }

    fn records(&self) -> impl Iterator<Item = InputRecord<'_>> {
        self.values().enumerate().map(|(index, value)| {
            let offset = self.first + index as i64;
            InputRecord {
                offset: Offset(offset),
                timestamp: LogTimeMs(START_MS + offset * 1_000 / self.per_second),
                key: None,
                value: Some(value),
            }
        })
    }
}

fn config() -> Arc<CoreConfig> {
    ProcessorConfig::from_toml(ProcessorConfig::example())
        .expect("the example configuration is valid")
        .core_config()
}

/// A task that holds [`LIVE_IDS`] ids and retires as many as it takes in.
fn warm_task(trades: &mut Trades) -> PartitionTask {
    let mut task = PartitionTask::new(PartitionId(0), Offset(0), config());
    let mut outputs = Vec::new();
    for _ in 0..2 * LIVE_IDS / CHUNK_EVENTS {
        let chunk = trades.chunk(CHUNK_EVENTS);
        let progress = task.process(chunk.records(), &mut outputs);
        assert_eq!(progress, Progress::Done);
        outputs.clear();
    }
    let live = task.live_ids();
    assert!(
        live >= LIVE_IDS * 9 / 10,
        "{live} live ids: the bench would flatter"
    );
    assert_eq!(
        task.counters().accepted,
        task.counters().records,
        "every event is a good one"
    );
    task
}

fn partition_task(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("partition_task");
    group.throughput(Throughput::Elements(CHUNK_EVENTS as u64));

    let mut trades = Trades {
        next: 0,
        per_second: 1_600,
        disorder_ms: 0,
    };
    group.bench_function("parse_only", |bencher| {
        bencher.iter_batched(
            || trades.chunk(CHUNK_EVENTS),
            |chunk| {
                for value in chunk.values() {
                    black_box(decode_event(black_box(value)).expect("the events are valid"));
                }
                chunk
            },
            BatchSize::LargeInput,
        );
    });

    for (name, per_second, disorder_ms) in
        [("in_order", 1_600, 0), ("disorder_5min", 2_100, 300_000)]
    {
        let mut trades = Trades {
            next: 0,
            per_second,
            disorder_ms,
        };
        let mut task = warm_task(&mut trades);
        let mut outputs = Vec::new();
        group.bench_function(format!("decode_to_window/{name}"), |bencher| {
            bencher.iter_batched(
                || trades.chunk(CHUNK_EVENTS),
                |chunk| {
                    outputs.clear();
                    let _ = black_box(task.process(chunk.records(), &mut outputs));
                    chunk
                },
                BatchSize::LargeInput,
            );
        });
        println!(
            "partition_task/{name}: {} live ids at the end",
            task.live_ids()
        );
        assert_eq!(task.counters().dead_letters, 0);
    }
    group.finish();
}

criterion_group!(benches, partition_task);
criterion_main!(benches);
