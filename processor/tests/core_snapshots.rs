//! State as bytes: what is restored behaves as what was snapshotted, and damage is noticed.

mod partition;

use bytes::Bytes;
use partition::{T0, config};
use processor::core::{
    CoreConfig, InputRecord, OutputRecord, PartitionTask, Progress, SnapshotError,
    snapshot_fingerprint, snapshot_heads,
};
use processor::io::{BucketKey, PieceKey, StateBatch};
use processor::units::{LogTimeMs, Offset, PartitionId, Watermark};
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

const RULES: &str = "windows = { max_out_of_orderness_ms = 20000, allowed_lateness_ms = 100000 }";

/// What a store holds after all changes so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Store {
    header: Bytes,
    pieces: BTreeMap<PieceKey, Bytes>,
}

impl Store {
    fn apply(&mut self, batch: StateBatch) {
        self.pieces.extend(batch.puts);
        for key in batch.deletes {
            assert!(
                self.pieces.remove(&key).is_some(),
                "only stored pieces are dropped"
            );
        }
    }

    fn drain(&mut self, task: &mut PartitionTask) {
        let changes = task.drain_changes();
        self.header = changes.header;
        self.apply(changes.batch);
        let sizes = self.pieces.iter();
        let sizes: Vec<_> = sizes
            .map(|(&key, content)| (key, content.len() as u64))
            .collect();
        assert_eq!(
            changes.pieces, sizes,
            "the store holds just the pieces of the state"
        );
        assert_eq!(
            task.pieces(),
            self.pieces.keys().copied().collect::<Vec<_>>()
        );
    }

    /// The heads alone, as a restore wants them.
    fn heads(&self) -> Result<Vec<(PieceKey, Bytes)>, SnapshotError> {
        let heads = snapshot_heads(&self.header)?.into_iter();
        Ok(heads
            .filter_map(|key| Some((key, self.pieces.get(&key)?.clone())))
            .collect())
    }

    fn restore(&self, config: &Arc<CoreConfig>) -> Result<PartitionTask, SnapshotError> {
        PartitionTask::restore(Arc::clone(config), &self.header, self.heads()?)
    }

    /// A restored task with everything in memory.
    fn restore_whole(&self, config: &Arc<CoreConfig>) -> Result<PartitionTask, SnapshotError> {
        let mut task = self.restore(config)?;
        for key in snapshot_heads(&self.header)? {
            self.load(&mut task, key.bucket)?;
        }
        Ok(task)
    }

    fn load(&self, task: &mut PartitionTask, bucket: BucketKey) -> Result<(), SnapshotError> {
        let pieces = task.pieces_of(bucket).into_iter();
        let contents: Vec<Bytes> = pieces
            .filter_map(|key| self.pieces.get(&key).cloned())
            .collect();
        task.load(bucket, &contents)
    }

    /// Processes `log[from..to]` below `limit_bytes`; asks for what is missing in some `way`. Returns how
    /// often it asked.
    fn process(
        &mut self,
        task: &mut PartitionTask,
        log: &[Bytes],
        (mut from, to): (usize, usize),
        (limit_bytes, way): (usize, Way),
        outputs: &mut Vec<OutputRecord>,
    ) -> usize {
        let mut asked = 0;
        loop {
            let progress = task.process(records(log, from).take(to - from), outputs);
            let Progress::Needs(bucket) = progress else {
                self.apply(task.spill(limit_bytes, None));
                return asked;
            };
            asked += 1;
            from = (task.position().0 as usize).div_ceil(3);
            assert!(from < to, "it stops before a record");
            if way == Way::LookUp || (way == Way::Both && from % 2 == 0) {
                let rest = records(log, from).take(to - from);
                task.look_up(rest, |key| {
                    Ok::<_, SnapshotError>(self.pieces[&key].clone())
                })
                .expect("stored pieces are whole");
            } else {
                self.load(task, bucket).expect("stored pieces are whole");
                self.apply(task.spill(limit_bytes, Some(bucket)));
            }
        }
    }
}

/// How a test gets at identities that are not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Load,
    LookUp,
    Both,
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

fn process(task: &mut PartitionTask, log: &[Bytes], outputs: &mut Vec<OutputRecord>) {
    assert_eq!(task.process(records(log, 0), outputs), Progress::Done);
}

fn snapshot_after(config: &Arc<CoreConfig>, log: &[Bytes], count: usize) -> Store {
    let mut task = new_task(config);
    process(&mut task, &log[..count], &mut Vec::new());
    let mut store = Store::default();
    store.drain(&mut task);
    store
}

/// Everything that can be told of a task.
fn facts(task: &PartitionTask) -> String {
    let windows: Vec<_> = task.windows().collect();
    format!(
        "{windows:?} {:?} {:?} {:?} {:?} {:?} {}",
        task.digest(),
        task.counters(),
        task.watermark(),
        task.forced(),
        task.next_deadline(),
        task.live_ids()
    )
}

#[test]
fn a_restored_task_goes_on_as_if_nothing_had_happened_at_every_prefix() {
    let config = config(RULES);
    let log = log(260);
    let mut straight = new_task(&config);
    let mut all_outputs: Vec<OutputRecord> = Vec::new();
    process(&mut straight, &log, &mut all_outputs);
    assert!(straight.counters().duplicates > 5 && straight.counters().dead_letters > 10);

    let mut incremental = Store::default();
    let mut task = new_task(&config);
    let (mut outputs, mut loads) = (Vec::new(), 0);
    for prefix in 0..=log.len() {
        incremental.drain(&mut task);
        let whole = snapshot_after(&config, &log, prefix);
        for store in [&incremental, &whole] {
            let mut restored = store.restore(&config).expect("a fresh snapshot restores");
            assert_eq!(facts(&restored), facts(&task), "prefix {prefix}");
            let mut store = store.clone();
            store.drain(&mut restored);
            let mut rest = Vec::new();
            let all = (prefix, log.len());
            loads += store.process(&mut restored, &log, all, (usize::MAX, Way::Both), &mut rest);
            assert_eq!(rest, all_outputs[outputs.len()..], "prefix {prefix}");
            assert_eq!(facts(&restored), facts(&straight), "prefix {prefix}");
            store.drain(&mut restored);
        }
        let one = records(&log, prefix).take(1);
        assert_eq!(task.process(one, &mut outputs), Progress::Done);
    }
    assert!(loads > 200, "{loads} loads");
}

#[test]
fn restoring_and_loading_changes_nothing() {
    let config = config(RULES);
    let store = snapshot_after(&config, &log(260), 260);
    let mut restored = store.restore_whole(&config).expect("it is whole");
    assert!(restored.id_bytes() > 0);
    let mut drained = store.clone();
    drained.drain(&mut restored);
    assert_eq!(drained, store);
}

#[test]
fn a_memory_limit_makes_no_difference_to_what_comes_out() {
    let config = config(RULES);
    let log = log(1_500);
    let mut straight = new_task(&config);
    let mut expected = Vec::new();
    process(&mut straight, &log, &mut expected);
    let cuts: [&[usize]; 4] = [&[1], &[7, 31], &[255, 1, 257], &[1_500]];
    let limits = [0, 600, 1_200];
    let ways = [Way::Load, Way::LookUp, Way::Both];
    for (limit_bytes, sizes) in limits.into_iter().flat_map(|l| cuts.map(|c| (l, c))) {
        for (way, drains) in ways.into_iter().flat_map(|w| [(w, false), (w, true)]) {
            let what = format!("{limit_bytes} bytes, {sizes:?}, {way:?}, drains: {drains}");
            let (mut task, mut store) = (new_task(&config), Store::default());
            let (mut outputs, mut from, mut asked) = (Vec::new(), 0, 0);
            for size in sizes.iter().cycle() {
                let to = log.len().min(from + size);
                let (range, how) = ((from, to), (limit_bytes, way));
                asked += store.process(&mut task, &log, range, how, &mut outputs);
                from = to;
                if drains {
                    store.drain(&mut task);
                }
                if from == log.len() {
                    break;
                }
            }
            assert!(outputs == expected, "{what}");
            assert_eq!(facts(&task), facts(&straight), "{what}");
            if sizes[0] < 1_500 {
                assert!(asked > 2, "asked {asked} times with {what}");
            }
            store.drain(&mut task);
            let restored = store.restore_whole(&config).expect("it is whole");
            assert_eq!(facts(&restored), facts(&task), "{what}");
        }
    }
}

#[test]
fn one_look_at_the_store_answers_for_all_records_of_a_call() {
    let config = config(RULES);
    let log = log(600);
    let (mut task, mut store) = (new_task(&config), Store::default());
    let mut outputs = Vec::new();
    process(&mut task, &log[..300], &mut outputs);
    store.drain(&mut task);
    store.apply(task.spill(0, None));
    let header = store.header.clone();
    let heads = store.heads().expect("whole");
    let mut restored = PartitionTask::restore(config, &header, heads).expect("whole");
    let asked = store.process(
        &mut restored,
        &log,
        (300, 600),
        (0, Way::LookUp),
        &mut outputs,
    );
    assert_eq!(asked, 1);
    assert!(restored.counters().duplicates > 5);
}

#[test]
fn a_look_at_damaged_pieces_is_an_error() {
    let config = config(RULES);
    let log = log(300);
    let store = snapshot_after(&config, &log[..150], 150);
    let mut task = store.restore(&config).expect("whole");
    let rest = || records(&log, 150).take(150);
    let needs = task.process(rest(), &mut Vec::new());
    assert!(matches!(needs, Progress::Needs(_)));
    let error = task.look_up(rest(), |_| Ok::<_, SnapshotError>(Bytes::from_static(b"x")));
    let message = error.expect_err("that is no piece").to_string();
    assert!(message.contains("does not match its name"), "{message}");
    let error = task.look_up(rest(), |key| Err(SnapshotError::PieceMissing(key)));
    assert!(matches!(error, Err(SnapshotError::PieceMissing(_))));
}

#[test]
fn spilling_frees_memory_oldest_windows_first_and_never_the_newest() {
    let config = config(RULES);
    let log = log(260);
    let mut task = new_task(&config);
    process(&mut task, &log, &mut Vec::new());
    let (all, ids) = (task.id_bytes(), task.live_ids());
    assert!(task.spill(all, None).is_empty(), "there is room");
    assert_eq!(task.id_bytes(), all);

    let mut store = Store::default();
    let first = task.spill(all - 1, None);
    assert_eq!(task.live_ids(), ids, "nothing is forgotten");
    let starts: Vec<i64> = task.windows().map(|window| window.window_start).collect();
    let oldest_with_ids = task.windows().find(|window| window.ids > 0).expect("one");
    assert!(
        first
            .puts
            .iter()
            .all(|(key, _)| key.bucket.0 == oldest_with_ids.window_start)
    );
    store.apply(first);
    store.apply(task.spill(0, None));
    let newest = BucketKey(*starts.last().expect("there are windows"));
    assert!(task.id_bytes() > 0, "the newest stays");
    assert!(store.pieces.keys().all(|key| key.bucket != newest));
    assert!(task.spill(0, None).is_empty());
}

#[test]
fn what_was_there_is_not_written_again() {
    let config = config(RULES);
    let event = |n: usize| Bytes::from(partition::tick_with_id("AMZN", "1", &n.to_string()));
    let log: Vec<Bytes> = (0..4_000).map(event).collect();
    let (mut task, mut store) = (new_task(&config), Store::default());
    let (mut written, mut first, mut outputs) = (0, 0, Vec::new());
    for from in (0..log.len()).step_by(100) {
        store.process(
            &mut task,
            &log,
            (from, from + 100),
            (usize::MAX, Way::Load),
            &mut outputs,
        );
        let changes = task.drain_changes();
        let new: usize = changes.batch.puts.iter().map(|(_, c)| c.len()).sum();
        written += new;
        first = if from == 0 { new } else { first };
        assert!(
            from != 100 || new < first + 100,
            "an addition is as small as the first"
        );
        store.apply(changes.batch);
    }
    assert_eq!(task.live_ids(), 4_000);
    assert!(first < 100 * 16 + 500, "{first} bytes");
    // Each identity about three times, and a head each time.
    assert!(written < 4_000 * 16 * 3 + 40 * 1_500, "{written} bytes");
    assert!(store.pieces.len() < 35, "{} pieces", store.pieces.len());
}

#[test]
fn an_unchanged_task_drains_no_pieces() {
    let config = config(RULES);
    let log = log(50);
    let mut task = new_task(&config);
    process(&mut task, &log, &mut Vec::new());
    assert!(!task.drain_changes().batch.puts.is_empty());
    let again = task.drain_changes();
    assert_eq!(again.batch, StateBatch::default());
}

#[test]
fn forced_advances_survive_a_restore() {
    let config = config(RULES);
    let log = log(30);
    let mut task = new_task(&config);
    process(&mut task, &log, &mut Vec::new());
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
            let now = records(&log, from).take(*size);
            assert_eq!(task.process(now, &mut outputs), Progress::Done);
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
    store.restore_whole(&config).expect("it is whole");
    let damaged = |bytes: &Bytes, at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1 << (at % 8);
        Bytes::from(bytes)
    };
    for at in 0..store.header.len() {
        for header in [damaged(&store.header, at), store.header.slice(..at)] {
            let store = Store {
                header,
                pieces: store.pieces.clone(),
            };
            assert!(store.restore(&config).is_err(), "byte {at}");
        }
    }
    assert!(store.pieces.len() >= 4, "heads and segments");
    for (key, piece) in &store.pieces {
        for at in 0..piece.len() {
            for content in [damaged(piece, at), piece.slice(..at)] {
                let mut store = store.clone();
                store.pieces.insert(*key, content);
                assert!(store.restore_whole(&config).is_err(), "{key} byte {at}");
            }
        }
    }
}

#[test]
fn what_fits_its_name_but_not_the_state_is_an_error_not_a_panic() {
    let config = config(RULES);
    let store = snapshot_after(&config, &log(40), 40);
    let mut task = store.restore(&config).expect("it is whole");
    let spilled = task.windows().find(|window| window.ids > 0).expect("one");
    let bucket = BucketKey(spilled.window_start);
    let error = task.load(bucket, &[]).expect_err("nothing was given");
    assert!(error.to_string().contains("older checkpoint"), "{error}");
    let piece = &store.pieces[&task.pieces_of(bucket)[0]];
    let twice = [piece.clone(), piece.clone()];
    task.load(bucket, &twice).expect_err("too much was given");
    assert_eq!(task.id_bytes(), 0, "it stays as it was");
    store.load(&mut task, bucket).expect("this is it");
    assert!(task.id_bytes() > 0);
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
        pieces: early.pieces,
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
    let first = snapshot_heads(&late.header).expect("whole")[0];
    let mut missing = late.clone();
    missing.pieces.remove(&first);
    assert_eq!(
        missing.restore(&config).err(),
        Some(SnapshotError::PieceMissing(first))
    );
    let foreign = PieceKey::of(BucketKey(60_000), b"foreign");
    let mut heads = late.heads().expect("whole");
    heads.push((foreign, Bytes::from_static(b"foreign")));
    let config = Arc::clone(&config);
    assert_eq!(
        PartitionTask::restore(config, &late.header, heads).err(),
        Some(SnapshotError::PieceUnexpected(foreign))
    );
}

#[test]
fn foreign_and_other_snapshots_say_what_to_do() {
    let config = config(RULES);
    let mut store = snapshot_after(&config, &log(5), 5);
    let header = store.header.clone();
    for version in [1, 3] {
        let mut other = header.to_vec();
        other[4] = version;
        store.header = Bytes::from(other);
        assert_eq!(
            store.restore(&config).err().map(|error| error.to_string()),
            Some(format!(
                "the header has format version {version}, this release reads version 2; start the \
                 release that wrote it, stop it cleanly, then switch"
            ))
        );
    }
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

#[test]
fn a_dump_tells_every_window_in_full() {
    let mut partition = partition::Partition::new(RULES);
    partition.feed(partition::tick_with_id("AMZN", "1", "7"));
    partition.feed(partition::tick_of("AMZN", "2.5", "0.00000001", 3));
    partition.feed(partition::tick_of(
        "IBM",
        "61",
        "123456789.5",
        1_000_000_000_000,
    ));
    let dumped: Vec<String> = partition
        .task
        .windows()
        .map(|window| serde_json::to_string(&window).expect("plain fields"))
        .collect();
    let start = T0 * 1000;
    assert_eq!(dumped.len(), 2);
    assert!(
        dumped[0].starts_with(&format!(
            "{{\"ticker\":\"AMZN\",\"window_start\":{start},\"window_end\":{},\"emitted\":false,\
             \"revision\":0,\"count\":2,\"price_sum\":\"10.00000001\",\"min_price\":\"0.00000001\",\
             \"max_price\":\"10\",\"open_price\":\"10\",\"open_at\":{},\
             \"close_price\":\"0.00000001\",\"close_at\":{},\"total_volume\":\"4\",\
             \"turnover_sum\":\"10.00000003\",\"event_set_hash\":\"",
            start + 60_000,
            start + 1_000,
            start + 2_500
        )),
        "{}",
        dumped[0]
    );
    assert!(dumped[0].ends_with("\"ids\":1}"), "{}", dumped[0]);
    assert!(
        dumped[1].contains("\"turnover_sum\":\"123456789500000000000\""),
        "{}",
        dumped[1]
    );
}
