//! Marks that storms need many seeds for, each reached by a plan that is made for it.

use scenarios::catalog;
use sim::plan::{Api, Fault, FaultKind, Machine, Plan, Trigger};
use sim::world::{Playback, play};
use std::collections::BTreeSet;
use std::ops::Range;

/// Seeds of which one or the other has to reach what a plan is made for.
const SEEDS: Range<u64> = 0..8;

/// Ten calm minutes of two workers.
fn calm() -> Plan {
    let calm = catalog::find("calm").expect("it is in the catalogue");
    calm.resolve(0).expect("it resolves")
}

/// Plays a plan with these faults, at virtual seconds, and expects these marks.
fn reaches(plan: Plan, faults: Vec<(u64, FaultKind)>, expected: &[&str]) {
    let faults = faults.into_iter();
    let faults = faults.map(|(s, kind)| Fault::at(s * 1_000, kind));
    reaches_by(plan, faults.collect(), expected);
}

/// A fault that waits, from a virtual second on, for so many lines of a kind, and strikes there.
fn on(second: u64, mark: &str, nth: u64, kind: FaultKind) -> Fault {
    Fault::on(second * 1_000, Trigger::there(mark, nth, 200_000), kind)
}

fn reaches_by(mut plan: Plan, faults: Vec<Fault>, expected: &[&str]) {
    plan.faults = faults;
    let mut reached = BTreeSet::new();
    for seed in SEEDS {
        let playback = Playback {
            plan: Plan {
                seed,
                ..plan.clone()
            },
            records: None,
            keep_trace: false,
            disks: sim::disk::in_memory(),
            tap: None,
            meter: None,
        };
        let record = play(playback).expect("it can be played");
        reached.extend(record.marks.into_keys());
        if expected.iter().all(|mark| reached.contains(mark)) {
            return;
        }
    }
    panic!("not all of {expected:?} are among {reached:?}");
}

fn set(plan: &mut Plan, section: &str, key: &str, value: impl Into<toml::Value>) {
    let section = plan.processor.entry(section);
    let section = section.or_insert_with(|| toml::Table::new().into());
    let table = section.as_table_mut().expect("sections are tables");
    table.insert(key.to_owned(), value.into());
}

fn crash(worker: u32) -> FaultKind {
    let down_ms = 1_000;
    FaultKind::WorkerCrash { worker, down_ms }
}

#[test]
fn a_leader_that_was_cut_off_has_what_no_other_has() {
    let (mut lose_power, mut move_on) = (Vec::new(), Vec::new());
    for broker in 1..=3 {
        let others = (1..=3).filter(|other| *other != broker);
        let mut to: Vec<Machine> = others.map(Machine::Broker).collect();
        to.push(Machine::Controller);
        let cut = |for_ms| FaultKind::NetworkCut {
            from: vec![Machine::Broker(broker)],
            to: to.clone(),
            one_way: false,
            for_ms,
        };
        let (at, down_ms) = (u64::from(broker) * 100, 5_000);
        let power_loss = FaultKind::BrokerPowerLoss { broker, down_ms };
        lose_power.extend([(at, cut(5_000)), (at + 3, power_loss)]);
        move_on.push((at, cut(20_000)));
    }
    reaches(calm(), lose_power, &["unreplicated-tail-lost"]);
    let truncated = ["live-broker-fenced", "log-truncated"];
    reaches(calm(), move_on, &truncated);
}

#[test]
fn a_disk_that_is_full_halts_its_broker_and_damage_is_noticed() {
    let for_ms = 20_000;
    let damaged = |broker| FaultKind::RecordsDamaged {
        broker,
        for_ms,
        permille: 200,
    };
    reaches(
        calm(),
        vec![
            (60, FaultKind::BrokerDiskFull { broker: 2, for_ms }),
            (120, damaged(1)),
            (150, damaged(3)),
        ],
        &[
            "broker-halted",
            "damaged-records-noticed",
            "damaged-copy-noticed",
        ],
    );
}

#[test]
fn a_clock_that_is_ahead_forces_watermarks() {
    let mut plan = calm();
    plan.workload.streams[0].until_ms = 100_000;
    set(&mut plan, "windows", "max_out_of_orderness_ms", 5_000);
    set(&mut plan, "windows", "idle_timeout_ms", 5_000);
    let jump = |worker| FaultKind::ClockJump {
        machine: Machine::Worker(worker),
        by_ms: 300_000,
        for_ms: 60_000,
    };
    reaches(
        plan,
        vec![(101, jump(0)), (101, jump(1))],
        &["worker-clock-jumped", "forced-by-a-wrong-clock"],
    );
}

#[test]
fn listings_lag_behind_what_is_collected() {
    let mut plan = calm();
    set(&mut plan, "checkpoint", "gc_grace_ms", 20_000);
    let behind = FaultKind::ObjectStoreTrouble {
        for_ms: 300_000,
        error_permille: 100,
        unknown_permille: 300,
        extra_latency_ms: 0,
        list_delay_ms: 60_000,
    };
    let leave = FaultKind::WorkerLeave { worker: 0 };
    reaches(
        plan,
        vec![(50, behind), (400, leave)],
        &[
            "listing-behind",
            "garbage-collected",
            "collected-after-a-former-owner",
            "write-took-effect-late",
            "write-took-effect-unnoticed",
            "snapshot-failed",
        ],
    );
}

#[test]
fn another_configuration_is_refused() {
    let mut other = calm();
    set(&mut other, "windows", "allowed_lateness_ms", 7_000);
    let processor = other.processor;
    let changed = FaultKind::WorkerMisconfigured {
        worker: 0,
        processor,
        for_ms: 120_000,
    };
    let refused = "changed-configuration-refused";
    reaches(calm(), vec![(64, changed), (65, crash(1))], &[refused]);
}

#[test]
fn an_end_txn_that_was_held_meets_the_next_transaction_and_does_not_end_it() {
    let held = FaultKind::MessageTrouble {
        api: Api::EndTxn,
        answers: false,
        for_ms: 300_000,
        loss_permille: 0,
        hold_permille: 200,
        hold_ms_max: 20_000,
        extra_latency_ms: 0,
    };
    reaches(
        calm(),
        vec![(30, held)],
        &[
            "tainted-producer-replaced",
            "end-txn-sent-again",
            "end-txn-answered-twice",
            "end-txn-of-an-older-epoch",
            "end-txn-met-a-later-transaction",
        ],
    );
}

fn trouble(
    api: Api,
    answers: bool,
    (loss_permille, hold_permille): (u32, u32),
    for_ms: u64,
) -> FaultKind {
    FaultKind::MessageTrouble {
        api,
        answers,
        for_ms,
        loss_permille,
        hold_permille,
        hold_ms_max: 20_000,
        extra_latency_ms: 0,
    }
}

#[test]
fn a_worker_that_stops_leaves_no_request_behind() {
    let lost = trouble(Api::EndTxn, true, (500, 0), 60_000);
    let leave = |worker| FaultKind::WorkerLeave { worker };
    reaches(
        calm(),
        vec![(55, lost), (60, leave(0)), (62, leave(1))],
        &["tainted-producer-replaced-at-stop"],
    );
}

#[test]
fn a_worker_is_stopped_while_it_takes_partitions_over() {
    let stop = on(0, "assigned", 1, FaultKind::WorkerLeave { worker: 0 });
    reaches_by(calm(), vec![stop], &["stopped-in-takeover"]);
}

#[test]
fn a_partition_is_opened_again_when_its_opening_was_not_committed() {
    let crash = on(0, "opening", 1, crash(0));
    reaches_by(calm(), vec![crash], &["died-in-an-opening", "opened-again"]);
}

#[test]
fn an_opening_that_is_not_answered_is_put_off_and_may_have_been_committed() {
    let unanswered = FaultKind::MessageTrouble {
        api: Api::EndTxn,
        answers: true,
        for_ms: 50_000,
        loss_permille: 1_000,
        hold_permille: 0,
        hold_ms_max: 0,
        extra_latency_ms: 0,
    };
    reaches_by(
        calm(),
        vec![on(0, "opening", 1, unanswered)],
        &["opening-put-off", "recovered-before-the-first-snapshot"],
    );
}

#[test]
fn a_worker_dies_in_one_recovery_after_the_other() {
    let first = Fault::at(60_000, crash(0));
    let second = on(61, "recovering", 1, crash(0));
    let third = on(61, "recovering", 2, crash(0));
    reaches_by(
        calm(),
        vec![first, second, third],
        &[
            "died-in-takeover-again",
            "died-in-replay",
            "recovered-after-a-failed-recovery",
        ],
    );
}

/// A group in which a member has to poll every 15 seconds.
fn impatient() -> Plan {
    let mut plan = calm();
    set(&mut plan, "kafka", "session_timeout_ms", 10_000);
    set(&mut plan, "kafka", "request_timeout_ms", 5_000);
    set(&mut plan, "kafka", "max_poll_interval_ms", 15_000);
    plan
}

#[test]
fn a_transaction_without_an_answer_can_outlast_the_poll_interval() {
    let lost = trouble(Api::EndTxn, false, (1_000, 0), 60_000);
    reaches(
        impatient(),
        vec![(60, lost)],
        &["poll-interval-exceeded", "commit-repeated"],
    );
}

#[test]
fn a_slow_restore_is_given_up_when_its_partition_is_taken() {
    let mut plan = impatient();
    set(&mut plan, "kafka", "rebalance_protocol", "eager");
    let slow = FaultKind::ObjectStoreTrouble {
        for_ms: 200_000,
        error_permille: 0,
        unknown_permille: 0,
        extra_latency_ms: 8_000,
        list_delay_ms: 0,
    };
    reaches(
        plan,
        vec![(60, slow), (62, crash(0)), (90, crash(1)), (110, crash(0))],
        &["restore-given-up-for-a-rebalance", "revoked-in-takeover"],
    );
}

#[test]
fn a_partition_is_taken_back_and_its_commit_gets_no_answer() {
    let mut plan = calm();
    set(&mut plan, "kafka", "request_timeout_ms", 5_000);
    let leave = FaultKind::WorkerLeave { worker: 1 };
    let join = FaultKind::WorkerJoin { worker: 1 };
    let lost = trouble(Api::EndTxn, false, (1_000, 0), 60_000);
    let faults = vec![
        Fault::at(60_000, leave),
        on(90, "revoked", 1, lost),
        Fault::at(100_000, join),
    ];
    reaches_by(plan, faults, &["revoked-without-a-commit"]);
}
