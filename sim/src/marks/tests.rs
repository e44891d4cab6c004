//! Recognisers over streams of lines written by hand: machines, kinds and texts as the world writes
//! them.

use super::{By, CATALOG, Marks, Outputs, names};
use crate::fabric::actor::HostId;
use std::collections::{BTreeMap, BTreeSet};

const CONTROLLER: u16 = 0;
const BROKER: u16 = 1;
const W0: u16 = 2;
const W1: u16 = 3;

/// What a stream of lines reaches.
struct Seen {
    marks: Marks,
    kinds: BTreeMap<&'static str, u64>,
}

impl Seen {
    fn new() -> Seen {
        let hosts = ["controller", "broker-1", "worker-0", "worker-1"];
        Seen {
            marks: Marks::new(&hosts.map(str::to_owned)),
            kinds: BTreeMap::new(),
        }
    }

    fn of(lines: &[(u16, &'static str, &str)]) -> Seen {
        Seen::new().then(lines)
    }

    fn then(mut self, lines: &[(u16, &'static str, &str)]) -> Seen {
        for (host, kind, text) in lines {
            self.marks.line(HostId(*host), kind, text);
            *self.kinds.entry(kind).or_default() += 1;
        }
        self
    }

    fn outputs(mut self, host: u16, partition: i32, corrects: bool, too_late: bool) -> Seen {
        let outputs = Outputs { corrects, too_late };
        self.marks.outputs(HostId(host), partition, outputs);
        self
    }

    fn marks(self) -> BTreeSet<&'static str> {
        self.marks.finish(&self.kinds).into_keys().collect()
    }

    /// Exactly these, of the marks that are more than a line.
    fn paths(self) -> Vec<&'static str> {
        let is_path = |name: &&str| CATALOG.iter().any(|m| m.name == *name && m.by == By::Path);
        self.marks().into_iter().filter(is_path).collect()
    }
}

const ASSIGNED: &str = "m-1 generation 3: Assigned([PartitionId(0), PartitionId(1)])";
const REVOKED: &str = "m-1 generation 4: Revoked([PartitionId(0), PartitionId(1)])";
const LOST: &str = "m-1 generation -1: Lost([PartitionId(0)])";

/// Worker 0 has partition 0, committed at 10, with a snapshot at 10.
const OWNED: [(u16, &str, &str); 4] = [
    (W0, "assigned", ASSIGNED),
    (W0, "fresh", "partition 0 from 0"),
    (W0, "snapshotted", "partition 0 at 10, 1 new files"),
    (W0, "committed", "3 outputs of 1 partitions"),
];

#[test]
fn the_catalogue_is_long_and_its_names_are_unique() {
    let unique: BTreeSet<&str> = names().collect();
    assert_eq!(unique.len(), CATALOG.len());
    assert!(CATALOG.len() >= 60, "{}", CATALOG.len());
    for mark in CATALOG {
        let plain = |c: char| c.is_ascii_lowercase() || c == '-';
        assert!(mark.name.chars().all(plain), "{}", mark.name);
        assert!(!mark.says.is_empty() && !mark.says.ends_with('.'));
    }
}

#[test]
fn every_mark_that_is_no_line_is_recognised_by_somebody() {
    let sources = [include_str!("paths.rs"), include_str!("workers.rs")].concat();
    for mark in CATALOG.iter().filter(|mark| mark.by == By::Path) {
        let quoted = format!("\"{}\"", mark.name);
        let known = sources.contains(&quoted) || mark.name == super::READ_BACK;
        assert!(known, "nobody recognises {}", mark.name);
    }
}

#[test]
fn a_mark_by_words_needs_the_words() {
    let kind = "producer-replaced";
    let start = Seen::of(&[(W0, kind, "start")]);
    assert!(start.marks().is_empty());
    let reason = "requests of the last transaction may still be under way";
    let tainted = Seen::of(&[(W0, kind, reason)]);
    assert!(tainted.marks().contains("tainted-producer-replaced"));
}

#[test]
fn a_recovery_is_told_by_how_much_it_replays_and_from_where() {
    let again = |from_to: &'static str| {
        let line = format!("partition 0: replay {from_to}, term 2");
        Seen::of(&OWNED)
            .then(&[(W0, "snapshotted", "partition 0 at 20, 1 new files")])
            .then(&[(W0, "committed", "0 outputs of 1 partitions")])
            .then(&[(W0, "worker-crashed", "")])
            .then(&[(W0, "disk-new", ""), (W0, "assigned", ASSIGNED)])
            .then(&[(W0, "recovering", &line)])
            .then(&[(W0, "recovered", "partition 0 at 20")])
            .paths()
    };
    // Partition 1 was never restored.
    let plain = [
        "died-in-takeover",
        "recovered-on-a-new-disk",
        "recovered-without-replay",
    ];
    assert_eq!(again("20..20"), plain);
    let older = [
        "died-in-takeover",
        "recovered-on-a-new-disk",
        "recovered-with-replay",
        "restored-behind-the-newest-snapshot",
    ];
    assert_eq!(again("10..20"), older);
    let first = Seen::of(&[
        (W0, "disk-old", ""),
        (W0, "assigned", ASSIGNED),
        (W0, "postponed", "partition 1"),
        (W0, "recovering", "partition 1: replay 0..7, term 2"),
        (W0, "recovered", "partition 1 at 7"),
    ]);
    let of_first = [
        "recovered-after-a-postponement",
        "recovered-before-the-first-snapshot",
        "recovered-over-an-old-disk",
        "recovered-with-replay",
    ];
    assert_eq!(first.paths(), of_first);
}

#[test]
fn deaths_are_told_by_what_they_interrupt() {
    let died = |lines: &[(u16, &'static str, &str)]| {
        let seen = Seen::of(&OWNED).then(lines);
        seen.then(&[(W0, "worker-crashed", "")])
    };
    let open = [(BROKER, "txn-ongoing", "tickproof-0")];
    let open = died(&open);
    assert!(open.marks().contains("died-in-an-open-transaction"));
    let others = died(&[(BROKER, "txn-ongoing", "source-phase-0")]);
    assert_eq!(others.paths(), ["died-in-takeover"], "partition 1 waits");
    let decided = died(&[
        (BROKER, "txn-ongoing", "tickproof-0"),
        (BROKER, "txn-prepare-commit", "tickproof-0"),
    ]);
    let decided = decided.marks();
    assert!(decided.contains("died-between-decision-and-markers"));
    assert!(!decided.contains("died-in-an-open-transaction"));
    let ended = died(&[
        (BROKER, "txn-ongoing", "tickproof-0"),
        (BROKER, "txn-prepare-commit", "tickproof-0"),
        (BROKER, "txn-complete-commit", "tickproof-0"),
        (W0, "aborted", "commit_transaction: X"),
    ]);
    let ended = ended.marks();
    assert!(!ended.contains("died-between-decision-and-markers"));
    assert!(ended.contains("died-with-outputs-of-an-aborted-transaction"));
    let unnamed = died(&[
        (W0, "forced-watermark", "partition 0 at 10 to 99"),
        (W0, "snapshotted", "partition 0 at 10, 0 new files"),
        (W0, "forced-watermark", "partition 0 at 11 to 100"),
        (W0, "snapshot-failed", "partition 0: 503"),
    ]);
    let unnamed = unnamed.marks();
    for name in [
        "died-before-its-snapshot-was-named",
        "died-before-its-forced-watermark-was-kept",
        "forced-and-no-snapshot",
    ] {
        assert!(unnamed.contains(name), "{name}");
    }
}

#[test]
fn a_second_death_in_a_takeover_is_not_the_first() {
    let attempt = [
        (W0, "assigned", ASSIGNED),
        (W0, "recovering", "partition 0: replay 0..7, term 2"),
        (W0, "worker-crashed", ""),
    ];
    let once = Seen::of(&attempt);
    let first = [
        "died-in-replay",
        "died-in-takeover",
        "recovered-before-the-first-snapshot",
    ];
    assert_eq!(once.paths(), first);
    let twice = Seen::of(&attempt).then(&attempt).then(&[
        (W1, "assigned", ASSIGNED),
        (W1, "recovering", "partition 0: replay 0..7, term 3"),
        (W1, "recovered", "partition 0 at 7"),
    ]);
    let twice = twice.marks();
    assert!(twice.contains("died-in-takeover-again"));
    assert!(twice.contains("recovered-after-a-failed-recovery"));
}

#[test]
fn a_zombie_is_one_whose_partitions_have_another_owner_when_it_wakes() {
    let paused = Seen::of(&OWNED).then(&[(W0, "paused", ""), (W0, "resumed", "")]);
    assert!(!paused.marks().contains("zombie-woke"));
    let taken = [
        (W1, "assigned", ASSIGNED),
        (W1, "recovering", "partition 0: replay 10..10, term 2"),
        (W1, "recovered", "partition 0 at 10"),
    ];
    let woke = Seen::of(&OWNED)
        .then(&[(BROKER, "txn-ongoing", "tickproof-0"), (W0, "paused", "")])
        .then(&[(BROKER, "txn-timeout", "tickproof-0")])
        .then(&taken)
        .then(&[(W0, "resumed", ""), (W0, "aborted", "ILLEGAL_GENERATION")]);
    let woke = woke.marks();
    for name in [
        "zombie-woke",
        "zombie-refused",
        "zombie-transaction-timed-out",
    ] {
        assert!(woke.contains(name), "{name}");
    }
    let runs = Seen::of(&OWNED).then(&taken).then(&[(W0, "lost", LOST)]);
    let runs = runs.marks();
    assert!(runs.contains("taken-over-from-an-owner-that-runs"));
    assert!(!runs.contains("zombie-woke"));
    let told = Seen::of(&OWNED)
        .then(&[(W0, "lost", LOST), (W0, "released", "partition 0, lost")])
        .then(&taken);
    assert!(!told.marks().contains("taken-over-from-an-owner-that-runs"));
}

#[test]
fn rebalances_are_told_by_what_they_take() {
    let committed = Seen::of(&OWNED).then(&[
        (W0, "revoked", REVOKED),
        (W0, "committed", "1 outputs of 1 partitions"),
        (W0, "released", "partition 0, in time"),
    ]);
    // Partition 1 was never restored.
    assert_eq!(
        committed.paths(),
        ["committed-on-revoke", "revoked-in-takeover"]
    );
    let aborted = Seen::of(&OWNED).then(&[
        (W0, "worker-stopping", ""),
        (W0, "revoked", REVOKED),
        (W0, "postponed", "partition 1"),
        (W0, "aborted", "REBALANCE_IN_PROGRESS"),
        (W0, "aborted", "REBALANCE_IN_PROGRESS"),
        (W0, "committed", "1 outputs of 1 partitions"),
    ]);
    let expected = [
        "aborted-twice-in-a-row",
        "committed-after-an-abort",
        "restore-given-up-for-a-rebalance",
        "revoked-in-takeover",
        "revoked-while-stopping",
        "revoked-without-a-commit",
        "stopped-in-takeover",
    ];
    assert_eq!(aborted.paths(), expected);
    let lost = Seen::of(&[(W0, "assigned", ASSIGNED), (W0, "lost", LOST)]);
    assert_eq!(lost.paths(), ["lost-in-takeover"]);
    let in_replay = Seen::of(&[
        (W0, "assigned", ASSIGNED),
        (W0, "recovering", "partition 0: replay 0..7, term 2"),
        (BROKER, "group-generation", "tickproof 5 of 2"),
        (W0, "lost", LOST),
    ]);
    let expected = [
        "rebalanced-in-a-replay",
        "recovered-before-the-first-snapshot",
        "taken-away-in-a-replay",
    ];
    assert_eq!(in_replay.paths(), expected);
}

#[test]
fn what_is_set_back_is_recovered_again() {
    let seen = Seen::of(&OWNED).then(&[
        (W0, "set-back", "partition 0"),
        (W0, "recovering", "partition 0: replay 10..12, term 2"),
        (W0, "recovered", "partition 0 at 12"),
    ]);
    let seen = seen.outputs(W0, 0, true, false);
    let expected = [
        "corrected-after-recovery",
        "recovered-after-a-set-back",
        "recovered-with-replay",
    ];
    assert_eq!(seen.paths(), expected);
}

#[test]
fn an_opening_ends_with_the_beginning_or_badly() {
    let opening = [
        (W0, "assigned", ASSIGNED),
        (W0, "opening", "partition 0 at 0"),
    ];
    let after = |lines: &[(u16, &'static str, &'static str)]| Seen::of(&opening).then(lines);
    let put_off = after(&[(W0, "postponed", "partition 0")]).marks();
    assert!(put_off.contains("opening-put-off"));
    let crash = (W0, "worker-crashed", "");
    let dies = after(&[crash]).paths();
    assert_eq!(dies, ["died-in-an-opening", "died-in-takeover"]);
    let again = after(&[crash]).then(&opening).marks();
    assert!(again.contains("opened-again"));
    assert!(after(&OWNED[1..]).paths().is_empty());
    let dies_later = after(&OWNED[1..]).then(&[crash]).marks();
    assert!(!dies_later.contains("died-in-an-opening"));
}

#[test]
fn a_forced_watermark_counts_for_what_comes_after_its_snapshot() {
    let forced = [
        (W0, "clock-jumped", ""),
        (W0, "forced-watermark", "partition 0 at 10 to 99"),
        (W0, "clock-righted", ""),
    ];
    let before = Seen::of(&OWNED).then(&forced).outputs(W0, 0, true, true);
    assert_eq!(
        before.paths(),
        ["forced-by-a-wrong-clock", "worker-clock-jumped"]
    );
    let after = Seen::of(&OWNED)
        .then(&forced)
        .then(&[(W0, "snapshotted", "partition 0 at 10, 1 new files")])
        .outputs(W0, 0, true, true)
        .then(&[
            (W0, "worker-left", ""),
            (W1, "assigned", ASSIGNED),
            (W1, "recovering", "partition 0: replay 10..10, term 2"),
            (W1, "recovered", "partition 0 at 10"),
        ]);
    let after = after.marks();
    for name in [
        "corrected-after-a-forced-watermark",
        "too-late-after-a-forced-watermark",
        "recovered-behind-a-forced-watermark",
    ] {
        assert!(after.contains(name), "{name}");
    }
}

#[test]
fn garbage_is_told_by_whose_it_is_and_who_stands_beside() {
    let mut seen = Seen::of(&OWNED).then(&[
        (W0, "garbage-collected", "partition 0: 3 objects"),
        (W1, "assigned", "m generation 5: Assigned([PartitionId(0)])"),
    ]);
    seen.marks.object_deleted(HostId(W1), 0);
    assert!(seen.marks.reached.0.is_empty());
    seen.marks.object_deleted(HostId(W0), 0);
    let seen = seen.then(&[(W1, "garbage-collected", "partition 0: 3 objects")]);
    let expected = [
        "collected-after-a-former-owner",
        "collected-beside-a-restore",
    ];
    assert_eq!(seen.paths(), expected);
}

#[test]
fn coordinators_and_brokers_are_told_by_what_goes_on() {
    let moved = Seen::of(&OWNED).then(&[
        (BROKER, "txn-ongoing", "tickproof-0"),
        (BROKER, "group-generation", "tickproof 5 of 2"),
        (BROKER, "group-loaded", "tickproof"),
        (BROKER, "txn-loaded", "tickproof-0 PrepareCommit"),
    ]);
    let moved = moved.marks();
    for name in [
        "rebalanced-in-an-open-transaction",
        "group-coordinator-moved-in-takeover",
        "group-coordinator-moved-in-a-transaction",
        "coordinator-moved-after-a-commit-was-decided",
    ] {
        assert!(moved.contains(name), "{name}");
    }
    let dead = Seen::of(&[
        (BROKER, "broker-crashed", ""),
        (CONTROLLER, "broker-fenced", "1"),
    ]);
    assert_eq!(dead.paths(), [] as [&str; 0]);
    let alive = Seen::of(&[
        (BROKER, "broker-crashed", ""),
        (CONTROLLER, "broker-registered", "1 epoch 2"),
        (CONTROLLER, "broker-fenced", "1"),
    ]);
    assert_eq!(alive.paths(), ["live-broker-fenced"]);
}

#[test]
fn what_is_read_twice_was_spilled_or_is_no_mark() {
    let mut never_spilled = Seen::new();
    never_spilled.marks.read_back(3);
    assert!(never_spilled.marks().is_empty());
    let mut spilled = Seen::of(&[(W0, "spilled", "partition 0: 9 bytes")]);
    spilled.marks.read_back(3);
    assert!(spilled.marks().contains("spilled-and-read-back"));
}
