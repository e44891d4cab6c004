//! What is known to tear exactly-once pipelines on Kafka, and where each hazard really strikes here: in
//! scenarios and plans whose traces show its mark, or in directed tests. (That the processor holds is
//! judged where they are proved: campaigns, `regressions.rs`, the tests themselves.)

use scenarios::{catalog, plan_file};
use sim::plan::Plan;
use sim::world::{self, Playback};
use std::collections::BTreeSet;
use std::path::Path;

/// Seeds of a scenario in which its marks have to show.
const SEEDS: u64 = 12;

/// Where a hazard strikes.
#[derive(Debug, Clone, Copy)]
enum Proof {
    /// In a scenario of the catalog: kinds of lines of its trace.
    Scenario(&'static str, &'static [&'static str]),
    /// In a plan of `regressions/`, its planted bug removed: kinds of lines of its trace.
    Plan(&'static str, &'static [&'static str]),
    /// In a directed test: file and name.
    Test(&'static str, &'static str),
}

use Proof::{Plan as In, Scenario, Test};

/// A hazard: its name, and where it strikes.
struct Hazard(&'static str, &'static [Proof]);

const HAZARDS: [Hazard; 22] = [
    Hazard(
        "A1 a delayed EndTxn ends the next transaction",
        &[
            In(
                "published/01-late-end-of-a-transaction",
                &["end-txn-resent", "producer-replaced"],
            ),
            Test(
                "sim/src/contract/coordinator.rs",
                "a_delayed_end_ends_the_next_transaction",
            ),
        ],
    ),
    Hazard(
        "A2 a generation fences members, not owners",
        &[
            Scenario("rebalance", &["released", "recovered"]),
            Test(
                "processor/tests/worker_groups.rs",
                "work_is_committed_under_the_group_identity_of_the_poll_that_brought_it",
            ),
            Test(
                "processor/tests/worker_groups.rs",
                "nothing_of_a_lost_partition_is_committed",
            ),
        ],
    ),
    Hazard(
        "A3 the outcome of a commit is unknown",
        &[
            In(
                "idle-behind-uncommitted-append",
                &["resolved-not-committed"],
            ),
            Test(
                "processor/tests/worker_commits.rs",
                "an_unknown_outcome_is_decided_by_the_committed_offsets_after_a_new_producer",
            ),
        ],
    ),
    Hazard(
        "A4 a producer that is gone stalls readers until its transaction times out",
        &[In("published/14-expired-id-of-a-zombie", &["txn-timeout"])],
    ),
    Hazard(
        "A5 an abort after the state has moved on",
        &[
            In("slow-store-livelock", &["aborted"]),
            Test(
                "processor/tests/worker_commits.rs",
                "an_abort_keeps_the_state_and_sends_the_same_outputs_again_byte_for_byte",
            ),
        ],
    ),
    Hazard(
        "A6 a digest of inputs and outputs does not show what was lost after it",
        &[
            Test(
                "scenarios/tests/sabotage.rs",
                "the_audit_catches_every_sabotage_but_that_of_determinism",
            ),
            Test(
                "processor/tests/worker_refusals.rs",
                "a_replay_that_does_not_reproduce_the_digest_is_refused_until_accepted",
            ),
        ],
    ),
    Hazard(
        "A7 a log is truncated when its leader changes",
        &[In("idle-behind-uncommitted-append", &["truncated"])],
    ),
    Hazard(
        "A8 what a recovery needs is deleted, or the commit expires",
        &[
            Scenario("offsets-expired", &["worker-failed"]),
            Scenario("replay-deleted", &["worker-failed"]),
            Scenario("retention-passed", &["worker-failed"]),
        ],
    ),
    Hazard(
        "A9 metadata of more than 4096 characters",
        &[
            Test("sim/src/contract/offsets.rs", "metadata_has_a_limit"),
            Test(
                "processor/tests/worker_commits.rs",
                "the_longest_commit_record_is_within_one_kibibyte",
            ),
        ],
    ),
    Hazard(
        "A10 the input gets more partitions",
        &[Scenario("partitions-added", &["worker-failed"])],
    ),
    Hazard(
        "A11 another configuration between snapshot and commit",
        &[Scenario("old-configuration", &["worker-misconfigured"])],
    ),
    Hazard(
        "A12 a watermark that the clock advances",
        &[
            In("idle-behind-stalled-replication", &["forced-watermark"]),
            In("idle-behind-uncommitted-append", &["forced-watermark"]),
        ],
    ),
    Hazard(
        "A13 offsets that never arrive",
        &[
            In(
                "published/22-aborted-batch-delivered",
                &["txn-prepare-abort"],
            ),
            Test(
                "processor/tests/worker_recovery.rs",
                "a_log_that_ends_in_a_gap_is_committed_and_replayed_to_its_end",
            ),
        ],
    ),
    Hazard(
        "A14 garbage collection removes what another owner needs",
        &[Test(
            "processor/tests/worker_snapshots.rs",
            "what_was_collected_is_never_missed_by_a_recovery",
        )],
    ),
    Hazard(
        "A15 an abort does not set the consumer back",
        &[
            In("slow-store-livelock", &["aborted"]),
            Test(
                "processor/tests/worker_commits.rs",
                "an_abort_keeps_the_state_and_sends_the_same_outputs_again_byte_for_byte",
            ),
        ],
    ),
    Hazard(
        "A16 a transactional id expires",
        &[In(
            "published/14-expired-id-of-a-zombie",
            &["transactional-id-expired"],
        )],
    ),
    Hazard(
        "A17 eager and cooperative assignors",
        &[Scenario("rebalance", &["released"])],
    ),
    Hazard(
        "A18 a transaction that hangs",
        &[
            In("published/08-delivery-timeout", &["delivery-timeout"]),
            Test("sim/src/contract/sequences.rs", "a_late_batch_cannot_hang"),
        ],
    ),
    Hazard(
        "A19 the coordinator fails over in a commit",
        &[
            In("published/04-volatile-transaction", &["leader-elected"]),
            Test(
                "sim/src/contract/failover.rs",
                "a_commit_that_was_not_answered_can_be_asked_again",
            ),
            Test(
                "processor/tests/worker_commits.rs",
                "a_retriable_commit_is_the_same_call_again_and_never_an_abort",
            ),
        ],
    ),
    Hazard(
        "A20 a restore takes longer than the group's patience",
        &[
            In("slow-store-livelock", &["recovering"]),
            Test(
                "processor/tests/worker_recovery.rs",
                "a_slow_restore_keeps_polling_so_that_the_member_stays",
            ),
        ],
    ),
    Hazard(
        "A21 an output that the broker refuses for its size",
        &[
            Test(
                "processor/tests/core_dead_letters.rs",
                "what_would_not_fit_becomes_a_pointer",
            ),
            Test(
                "sim/src/contract/visibility.rs",
                "a_record_that_is_too_large_fails_its_transaction",
            ),
        ],
    ),
    Hazard(
        "A22 one partition aborts the transactions of all",
        &[
            Test(
                "processor/tests/worker_groups.rs",
                "a_partition_whose_last_transaction_is_open_does_not_hold_up_the_others",
            ),
            Test(
                "processor/tests/worker_refusals.rs",
                "a_refused_partition_stops_the_worker_before_it_reads_any_other",
            ),
        ],
    ),
];

/// Takes away the marks that a run of this plan shows.
fn strike_out(plan: Plan, missing: &mut BTreeSet<&'static str>) {
    let playback = Playback {
        plan,
        records: None,
        keep_trace: false,
        disks: sim::disk::in_memory(),
        tap: None,
        meter: None,
    };
    let record = world::play(playback).unwrap_or_else(|e| panic!("{e}"));
    missing.retain(|mark| !record.kinds.contains_key(mark));
}

/// The marks that do not show.
fn missing(proof: Proof) -> BTreeSet<&'static str> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    match proof {
        Scenario(name, marks) => {
            let scenario = catalog::find(name).unwrap_or_else(|e| panic!("{e}"));
            let mut missing: BTreeSet<_> = marks.iter().copied().collect();
            for seed in 0..SEEDS {
                if !missing.is_empty() {
                    let plan = scenario.resolve(seed).unwrap_or_else(|e| panic!("{e}"));
                    strike_out(plan, &mut missing);
                }
            }
            missing
        }
        In(name, marks) => {
            let path = package.join(format!("regressions/{name}.toml"));
            let mut plan = plan_file::read(&path).unwrap_or_else(|e| panic!("{e}"));
            plan.bug = None;
            let mut missing = marks.iter().copied().collect();
            strike_out(plan, &mut missing);
            missing
        }
        Test(file, name) => {
            let path = package.join("..").join(file);
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
            let is_there =
                text.contains(&format!("fn {name}(")) || text.contains(&format!("fn {name}<"));
            if is_there {
                BTreeSet::new()
            } else {
                BTreeSet::from([name])
            }
        }
    }
}

#[test]
fn every_hazard_strikes_where_it_is_said_to() {
    let mut unproven = Vec::new();
    for Hazard(name, proofs) in &HAZARDS {
        for proof in *proofs {
            let missing = missing(*proof);
            if !missing.is_empty() {
                unproven.push(format!("{name}: {proof:?} without {missing:?}"));
            }
        }
    }
    assert!(unproven.is_empty(), "{unproven:#?}");
}

#[test]
fn hazards_are_in_order_and_each_has_a_proof() {
    for (index, Hazard(name, proofs)) in HAZARDS.iter().enumerate() {
        assert!(name.starts_with(&format!("A{} ", index + 1)), "{name}");
        assert!(!proofs.is_empty(), "{name}");
    }
}
