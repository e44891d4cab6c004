//! State as bytes: what is restored behaves as what was snapshotted, and damage is noticed.

mod partition;

use bytes::Bytes;
use partition::{T0, config};
use processor::core::{
    CoreConfig, InputRecord, OutputRecord, PartitionTask, SnapshotError, snapshot_fingerprint,
};
use processor::io::BucketKey;
use processor::units::{LogTimeMs, Offset, PartitionId, Watermark};
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

const RULES: &str = "windows = { max_out_of_orderness_ms = 20000, allowed_lateness_ms = 100000 }";

/// What a store holds after all changes so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Store {
    header: Bytes,
    buckets: BTreeMap<BucketKey, Bytes>,
}

impl Store {
    fn drain(&mut self, task: &mut PartitionTask) {
        let changes = task.drain_changes();
        self.header = changes.header;
        self.buckets.extend(changes.batch.puts);
        for key in changes.batch.deletes {
            assert!(
                self.buckets.remove(&key).is_some(),
                "only stored buckets are dropped"
            );
        }
    }

    fn restore(&self, config: &Arc<CoreConfig>) -> Result<PartitionTask, SnapshotError> {
        let buckets = self
            .buckets
            .iter()
            .map(|(&key, content)| (key, content.clone()));
        PartitionTask::restore(Arc::clone(config), &self.header, buckets)
    }
}

/// A log with order, lateness, duplicates, anonymous events and garbage.
fn log(length: u64) -> Vec<Bytes> {
    let draw = |index: u64, what: u64, below: u64| {
        let key = [index.to_le_bytes(), what.to_le_bytes()].concat();
        xxh3_64(&key) % below
    };
    let event = |index: u64| {
        let ticker = ["AMZN", "SPY", "IBM"][draw(index, 0, 3) as usize];
        let time = T0 + index as i64 * 2 + draw(index, 1, 40) as i64
            - if draw(index, 2, 10) == 0 {
                draw(index, 3, 200) as i64
            } else {
                0
            };
        let id = match draw(index, 4, 3) {
            0 => String::new(),
            _ => format!("\"event_id\":{},", draw(index, 5, 40)),
        };
        let (price, volume) = (draw(index, 6, 10_000) + 1, draw(index, 7, 100));
        match draw(index, 8, 15) {
            0 => Bytes::from_static(b"garbage"),
            _ => Bytes::from(format!(
                "{{{id}\"ticker\":\"{ticker}\",\"price\":{price}e-3,\"volume\":{volume},\"timestamp\":{time}}}"
            )),
        }
    };
    (0..length).map(event).collect()
}

fn records(log: &[Bytes], from: usize) -> impl Iterator<Item = InputRecord<'_>> {
    log.iter()
        .enumerate()
        .skip(from)
        .map(|(index, value)| InputRecord {
            offset: Offset(index as i64 * 3),
            timestamp: LogTimeMs(T0 * 1000 + 3_600_000),
            key: None,
            value: Some(value),
        })
}

fn new_task(config: &Arc<CoreConfig>) -> PartitionTask {
    PartitionTask::new(PartitionId(1), Offset(0), Arc::clone(config))
}

fn snapshot_after(config: &Arc<CoreConfig>, log: &[Bytes], count: usize) -> Store {
    let mut task = new_task(config);
    task.process(records(log, 0).take(count), &mut Vec::new());
    let mut store = Store::default();
    store.drain(&mut task);
    store
}

#[test]
fn a_restored_task_goes_on_as_if_nothing_had_happened_at_every_prefix() {
    let config = config(RULES);
    let log = log(260);
    let mut straight = new_task(&config);
    let mut incremental = Store::default();
    let mut all_outputs: Vec<OutputRecord> = Vec::new();
    straight.process(records(&log, 0), &mut all_outputs);
    assert!(straight.counters().duplicates > 5 && straight.counters().dead_letters > 10);
    let mut final_store = Store::default();
    final_store.drain(&mut straight);

    let mut task = new_task(&config);
    let mut outputs = Vec::new();
    for prefix in 0..=log.len() {
        // The incremental store equals a snapshot made in one go.
        incremental.drain(&mut task);
        assert_eq!(
            incremental,
            snapshot_after(&config, &log, prefix),
            "prefix {prefix}"
        );
        let mut restored = incremental
            .restore(&config)
            .expect("a fresh snapshot restores");
        let mut store = incremental.clone();
        store.drain(&mut restored);
        assert_eq!(store, incremental, "restoring changes nothing");

        let mut rest = Vec::new();
        restored.process(records(&log, prefix), &mut rest);
        assert_eq!(rest, all_outputs[outputs.len()..], "prefix {prefix}");
        assert_eq!(restored.digest(), straight.digest());
        assert_eq!(restored.counters(), straight.counters());
        assert_eq!(restored.next_deadline(), straight.next_deadline());
        assert_eq!(restored.live_ids(), straight.live_ids());
        store.drain(&mut restored);
        assert_eq!(store, final_store, "prefix {prefix}");
        task.process(records(&log, prefix).take(1), &mut outputs);
    }
}

#[test]
fn an_unchanged_task_drains_no_buckets() {
    let config = config(RULES);
    let log = log(50);
    let mut task = new_task(&config);
    task.process(records(&log, 0), &mut Vec::new());
    assert!(!task.drain_changes().batch.puts.is_empty());
    let again = task.drain_changes();
    assert_eq!(again.batch, processor::io::StateBatch::default());
}

#[test]
fn forced_advances_survive_a_restore() {
    let config = config(RULES);
    let log = log(30);
    let mut task = new_task(&config);
    task.process(records(&log, 0), &mut Vec::new());
    assert!(task.force_watermark(Watermark(T0 * 1000 + 90_000), &mut Vec::new()));
    let mut store = Store::default();
    store.drain(&mut task);
    let restored = store.restore(&config).expect("it restores");
    assert_eq!(restored.forced(), task.forced());
    assert_eq!(restored.watermark(), task.watermark());
    assert_eq!(restored.position(), task.position());
    assert_eq!(restored.next_sequence(), task.next_sequence());
}

#[test]
fn how_records_are_cut_into_calls_makes_no_difference() {
    let config = config(RULES);
    let log = log(1_500);
    let play = |sizes: &[usize]| {
        let mut task = new_task(&config);
        let (mut outputs, mut from) = (Vec::new(), 0);
        for size in sizes.iter().cycle() {
            if from >= log.len() {
                break;
            }
            task.process(records(&log, from).take(*size), &mut outputs);
            from += size;
        }
        let mut store = Store::default();
        store.drain(&mut task);
        (outputs, task.digest(), task.counters(), store)
    };
    let whole = play(&[1_500]);
    assert!(whole.0.len() > 100);
    for sizes in [&[1][..], &[3], &[255, 1, 257], &[256], &[1_000]] {
        assert!(play(sizes) == whole, "{sizes:?}");
    }
}

#[test]
fn any_flipped_bit_or_missing_byte_is_noticed() {
    let config = config(RULES);
    let store = snapshot_after(&config, &log(40), 40);
    let (key, bucket) = store.buckets.iter().next().expect("there is a bucket");
    let damaged = |bytes: &Bytes, at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1 << (at % 8);
        Bytes::from(bytes)
    };
    for at in 0..store.header.len() {
        for header in [damaged(&store.header, at), store.header.slice(..at)] {
            let store = Store {
                header,
                buckets: store.buckets.clone(),
            };
            assert!(store.restore(&config).is_err(), "byte {at}");
        }
    }
    for at in 0..bucket.len() {
        for content in [damaged(bucket, at), bucket.slice(..at)] {
            let mut store = store.clone();
            store.buckets.insert(*key, content);
            assert!(store.restore(&config).is_err(), "byte {at}");
        }
    }
}

#[test]
fn parts_of_different_moments_do_not_mix() {
    let config = config(RULES);
    let log = log(40);
    let (early, late) = (
        snapshot_after(&config, &log, 20),
        snapshot_after(&config, &log, 40),
    );
    let mixed = Store {
        header: late.header.clone(),
        buckets: early.buckets,
    };
    let error = mixed
        .restore(&config)
        .expect_err("they do not belong together");
    assert!(
        error
            .to_string()
            .contains("restore all files of one checkpoint together"),
        "{error}"
    );
    let (first, _) = late.buckets.first_key_value().expect("there is a bucket");
    let mut missing = late.clone();
    missing.buckets.remove(first);
    assert_eq!(
        missing.restore(&config).err(),
        Some(SnapshotError::BucketMissing(first.0))
    );
    let mut extra = late.clone();
    extra
        .buckets
        .insert(BucketKey(60_000), late.buckets[first].clone());
    assert_eq!(
        extra.restore(&config).err(),
        Some(SnapshotError::BucketUnexpected(60_000))
    );
}

#[test]
fn foreign_and_newer_snapshots_say_what_to_do() {
    let config = config(RULES);
    let mut store = snapshot_after(&config, &log(5), 5);
    let mut newer = store.header.to_vec();
    newer[4] = 2;
    let header = std::mem::replace(&mut store.header, Bytes::from(newer));
    assert_eq!(
        store
            .restore(&config)
            .err()
            .map(|error| error.to_string())
            .as_deref(),
        Some(
            "the header has format version 2, this release reads version 1; start the release that \
             wrote it, stop it cleanly, then switch"
        )
    );
    store.header = Bytes::from_static(b"PK\x03\x04 something else");
    assert!(matches!(
        store.restore(&config),
        Err(SnapshotError::NotASnapshot { .. })
    ));

    assert_eq!(snapshot_fingerprint(&header), Ok(config.fingerprint()));
    store.header = header;
    let other = partition::config("reference = { version = \"2\" }");
    assert_ne!(other.fingerprint(), config.fingerprint());
    let mut restored = store
        .restore(&other)
        .expect("fingerprints are the caller's matter");
    assert_eq!(
        snapshot_fingerprint(&restored.drain_changes().header),
        Ok(other.fingerprint()),
        "a header carries the configuration under which it was made"
    );
    let fewer = partition::config(
        "reference = { ticker = [{ ticker = \"X\", company_name = \"X\", sector = \"X\" }] }",
    );
    assert!(matches!(
        store.restore(&fewer),
        Err(SnapshotError::UnknownTicker(_))
    ));
}
