//! Crash and recovery with the production state store: RocksDB inside of the simulation.
//!
//! Every plan is played twice: with disks in memory, and with RocksDB on every machine. All properties
//! hold, and both are one run: the store's bytes lie elsewhere, and nobody can tell.

mod disk;
mod plans;

use disk::{Meter, Usage};
use plans::{base, killed, killed_on, limited, moments, slow_objects, with};
use properties::{Property, Verdict};
use scenarios::catalog;
use scenarios::runner::{Order, Played, play, play_on};
use sim::plan::{FaultKind, Plan};
use sim::trace::TraceLine;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder of one test, not there yet.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("rocks-world")
        .join(test);
    if folder.exists() {
        // What an earlier run has left there.
        fs::remove_dir_all(&folder).expect("it is this test's own");
    }
    folder
}

fn order(plan: &Plan) -> Order<'_> {
    Order {
        plan,
        expect: &[],
        input: None,
        trace: true,
        twice: false,
        replay: "",
    }
}

fn in_memory(plan: &Plan) -> Played {
    play(&order(plan)).unwrap_or_else(|e| panic!("{e}"))
}

/// A run on RocksDB: what happened, and what its disks were used for.
struct Run {
    trace: Vec<TraceLine>,
    usage: Usage,
}

impl Run {
    fn count(&self, kind: &str) -> usize {
        self.trace.iter().filter(|line| line.kind == kind).count()
    }

    /// Else it would show nothing of RocksDB: state was larger than memory, and came back from files.
    #[track_caller]
    fn assert_used(&self) {
        let usage = self.usage;
        assert!(self.count("spilled") > 0);
        assert!(usage.pieces_put > 0 && usage.pieces_read > 0, "{usage:?}");
        assert!(usage.files_left > 0, "{usage:?}");
    }
}

/// Plays it on both kinds of disk.
#[track_caller]
fn proved(name: &str, plan: &Plan) -> Run {
    let folder = folder(name);
    let meter = Meter::default();
    let disks = disk::in_folders(&folder, &meter);
    let rocks = play_on(&disks, &order(plan)).unwrap_or_else(|e| panic!("{name}: {e}"));
    drop(disks);
    let memory = in_memory(plan);
    let usage = meter.usage();
    for played in [&memory, &rocks] {
        let verdicts = &played.report.verdicts;
        assert!(played.report.held(), "{name}: {}", played.report.text());
        // Whether two runs are one is asked below.
        let judged = Property::ALL
            .into_iter()
            .filter(|&property| property != Property::Determinism);
        for property in judged {
            assert_eq!(verdicts.get(property), Some(&Verdict::Held), "{name}");
        }
    }
    assert_eq!(
        rocks.report.trace_hash,
        memory.report.trace_hash,
        "{name}: {}",
        first_difference(&memory.trace, &rocks.trace)
    );
    fs::remove_dir_all(&folder).expect("it is this test's own");
    let run = Run {
        trace: rocks.trace,
        usage,
    };
    println!(
        "{name}: {:016x}, {} recoveries, {} times spilled, {usage:?}",
        rocks.report.trace_hash,
        rocks.report.recoveries,
        run.count("spilled"),
    );
    run
}

fn first_difference(memory: &[TraceLine], rocks: &[TraceLine]) -> String {
    let mut pairs = memory.iter().zip(rocks);
    match pairs.find(|(memory, rocks)| memory != rocks) {
        Some((memory, rocks)) => format!("in memory\n{memory}\nin RocksDB\n{rocks}"),
        None => format!("{} lines and {} lines", memory.len(), rocks.len()),
    }
}

/// The plan in which a worker is killed so long before it would have told of something like this.
fn killed_before(mut plan: Plan, worker: u32, kind: &str, early_ms: u64) -> Plan {
    // Up to a moment, a run does not depend on the faults after it.
    for after_ms in KILLED_AFTER_MS {
        let told = moments(&in_memory(&plan).trace, worker, kind);
        let at_ms = told.into_iter().find(|&at_ms| at_ms > after_ms);
        let at_ms = at_ms.expect("it happens again and again") - early_ms;
        plan = killed(plan, worker, [at_ms]);
    }
    plan
}

/// When the next kill is due, virtual milliseconds.
const KILLED_AFTER_MS: [u64; 4] = [60_000, 150_000, 240_000, 330_000];

#[test]
fn a_worker_that_dies_while_it_spills_goes_on() {
    for limit in [0, 20_000] {
        // It dies right afterwards: what it has just moved to the disk is in no checkpoint.
        let base = base(1, limit);
        let plan = KILLED_AFTER_MS
            .into_iter()
            .fold(base, |plan, after_ms| killed_on(plan, after_ms, "spilled"));
        let run = proved(&format!("spill-{limit}"), &plan);
        run.assert_used();
        let mut crashes = 0;
        for pair in run
            .trace
            .windows(2)
            .filter(|pair| pair[1].kind == "worker-crashed")
        {
            assert_eq!(pair[0].kind, "spilled", "{}", pair[1]);
            assert_eq!(pair[0].host, pair[1].host);
            assert_eq!(pair[0].at_us, pair[1].at_us);
            crashes += 1;
        }
        assert_eq!(crashes, KILLED_AFTER_MS.len());
    }
}

#[test]
fn a_worker_that_dies_while_it_makes_a_checkpoint_goes_on() {
    // Its pieces are on the disk, and on their way to the object store.
    let plan = killed_before(slow_objects(base(2, 0)), 1, "snapshotted", 200);
    let run = proved("checkpoint", &plan);
    run.assert_used();
    assert_eq!(run.count("worker-crashed"), 4);
    assert!(run.count("recovered") >= 4);
}

#[test]
fn a_worker_that_dies_while_it_recovers_goes_on() {
    let mut crashed_ms = 60_000;
    let mut plan = killed(slow_objects(base(3, 0)), 0, [crashed_ms]);
    // While some pieces have come and others have not; and when the replay has begun.
    for early_ms in [200, 0, 200, 0] {
        let told = moments(&in_memory(&plan).trace, 0, "recovering");
        let begins = told.into_iter().find(|&at_ms| at_ms > crashed_ms);
        crashed_ms = begins.expect("it has partitions again") - early_ms;
        plan = killed(plan, 0, [crashed_ms]);
    }
    let run = proved("recovery", &plan);
    run.assert_used();
    let crashed = moments(&run.trace, 0, "worker-crashed");
    assert_eq!(crashed.len(), 5);
    let tried = crashed[0]..=crashed[4];
    let recovered = moments(&run.trace, 0, "recovered");
    assert!(!recovered.iter().any(|at_ms| tried.contains(at_ms)));
    assert!(recovered.iter().any(|at_ms| at_ms > tried.end()));
}

#[test]
fn a_worker_that_dies_again_and_again_finds_its_own_disk_or_an_empty_one() {
    let moments = (1..13).map(|number| number * 30_000);
    let plan = killed(base(4, 20_000), 0, moments);
    let run = proved("again", &plan);
    run.assert_used();
    let usage = run.usage;
    assert_eq!(run.count("worker-crashed"), 12);
    assert!(usage.starts_after_kills > 0, "{usage:?}");
    assert!(usage.machines > 2, "{usage:?}");
}

#[test]
fn partitions_that_come_back_to_a_machine_do_not_find_what_they_left_there() {
    let (leave, join) = (
        FaultKind::WorkerLeave { worker: 1 },
        FaultKind::WorkerJoin { worker: 1 },
    );
    let mut plan = base(5, 0);
    for round in 0..4 {
        let at_ms = 40_000 + round * 80_000;
        plan = with(plan, at_ms, leave.clone());
        plan = with(plan, at_ms + 40_000, join.clone());
    }
    // One that stands still for longer than its session loses them, and still has them on its disk.
    let pause = FaultKind::WorkerPause {
        worker: 0,
        for_ms: 50_000,
    };
    plan = with(plan, 100_000, pause.clone());
    plan = with(plan, 260_000, pause);
    plan = killed(plan, 1, [190_000]);
    let run = proved("moving", &plan);
    run.assert_used();
    assert!(run.count("released") >= 4);
    assert!(run.count("recovered") >= 8);
    assert!(run.usage.partitions_dropped > 8, "{:?}", run.usage);
}

/// Storms that are played with as little memory as there is.
const STORMS: std::ops::Range<u64> = 0..8;

#[test]
fn storms_are_the_same_on_rocksdb() {
    let storm = catalog::find("storm").expect("the catalog has storms");
    let mut counts = BTreeMap::<&str, usize>::new();
    for seed in STORMS {
        let plan = storm.resolve(seed).expect("every seed gives a plan");
        let run = proved(&format!("storm-{seed}"), &limited(plan, 0));
        // Small states fit into RocksDB's buffers; after a recovery they are there without being spilled.
        assert!(run.usage.pieces_read > 0, "seed {seed}");
        for kind in ["worker-crashed", "recovered", "spilled"] {
            *counts.entry(kind).or_default() += run.count(kind);
        }
    }
    assert!(counts.values().all(|&count| count > 20), "{counts:?}");
}
