//! Taking a partition over: snapshot, replay without outputs, proof by digest, and on as if nothing
//! had happened.

mod fake;

use fake::{
    Exit, Fault, P0, P1, Step, World, act, assign, config, header, lose, reading,
    reading_then_crash, revoke,
};
use processor::io::{ConsumedRecord, ErrorClass, Polled, ProducerRecord};
use processor::units::{LogTimeMs, Offset};
use processor::worker::WorkerError;

const EVENTS: i64 = 60;
const SELDOM: &str = "checkpoint = { interval_ms = 60000 }";

fn calm() -> Vec<ProducerRecord> {
    let world = World::with_events(EVENTS);
    world.run_well(&config(""), reading());
    let outputs = world.outputs(P0);
    assert!(outputs.len() > 20);
    outputs
}

/// 20 events with a snapshot, 20 more that are committed but not in it: S < C.
fn crashed_behind() -> World {
    let world = World::with_events(20);
    world.run_well(&config(""), reading());
    world.append_events(20..40);
    world.run(&config(SELDOM), reading_then_crash());
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
    let end = world.end_of_log();
    assert!(world.lock().commit_record(P0).snapshot_at.0 < end);
    world.forget_journal();
    world
}

fn recovered(at: i64) -> String {
    format!("event Recovered {{ partition: PartitionId(0), at: Offset({at}) }}")
}

#[test]
fn a_crash_before_or_after_any_commit_changes_no_byte_of_the_outputs() {
    let calm = calm();
    for overrides in ["", SELDOM] {
        for crash in [Fault::crashes_before, Fault::crashes_after] {
            let mut nth = 0;
            loop {
                let world = World::with_events(EVENTS);
                world.meet("commit_transaction", nth, crash());
                let exit = world.run(&config(overrides), reading());
                if matches!(exit, Exit::Stopped) {
                    break;
                }
                assert!(matches!(exit, Exit::Crashed), "{exit:?}");
                world.run_well(&config(overrides), reading());
                assert!(world.outputs(P0) == calm, "commit {nth}");
                nth += 1;
            }
            assert!(nth > 5, "{nth} commits");
        }
    }
}

#[test]
fn a_crash_at_any_call_changes_no_byte_of_the_outputs() {
    let calm = calm();
    let mut last = 1;
    loop {
        let world = World::with_events(EVENTS);
        world.lock().crash_after_calls = Some(last);
        if matches!(world.run(&config(""), reading()), Exit::Stopped) {
            break;
        }
        world.run_well(&config(""), reading());
        assert!(world.outputs(P0) == calm, "call {last}");
        last += 1;
    }
    assert!(last > 50, "{last} calls");
}

#[test]
fn a_crash_during_the_recovery_from_a_crash_changes_no_byte_either() {
    let calm = calm();
    for first in (5..200).step_by(13) {
        for second in 1..40 {
            let world = World::with_events(EVENTS);
            for crash in [first, second] {
                let calls = world.lock().calls;
                world.lock().crash_after_calls = Some(calls + crash);
                world.run(&config(""), reading());
            }
            world.run_well(&config(""), reading());
            assert!(world.outputs(P0) == calm, "calls {first}, {second}");
        }
    }
}

#[test]
fn a_crash_at_any_call_of_two_partitions_that_move_changes_no_byte() {
    let script = || {
        let mut script = vec![assign(&[P0]), Step::Polls(9), assign(&[P1]), Step::Polls(9)];
        script.extend([revoke(&[P0]), Step::Polls(5), assign(&[P0]), Step::Read]);
        script.push(Step::Wait(500));
        script
    };
    let play = |crash: Option<u64>| {
        let world = World::with_events(30);
        for index in 0..30 {
            fake::append_varied(&mut world.lock(), P1, index);
        }
        world.lock().crash_after_calls = crash;
        let stopped = matches!(world.run(&config(""), script()), Exit::Stopped);
        world.run_well(
            &config(""),
            vec![assign(&[P0, P1]), Step::Read, Step::Wait(500)],
        );
        (stopped, world.outputs(P0), world.outputs(P1))
    };
    let (_, calm_0, calm_1) = play(None);
    for crash in 1.. {
        let (stopped, of_0, of_1) = play(Some(crash));
        assert!(of_0 == calm_0 && of_1 == calm_1, "call {crash}");
        if stopped {
            assert!(crash > 100, "{crash} calls");
            break;
        }
    }
}

#[test]
fn a_replay_sends_nothing() {
    let world = crashed_behind();
    let before = world.transaction_count();
    let mut script = reading();
    script.push(Step::Crash);
    world.run(&config(SELDOM), script);
    assert_eq!(world.count("send "), 0);
    assert_eq!(world.count("send_offsets_to_transaction"), 0);
    assert_eq!(world.transaction_count(), before);
    assert_eq!(world.count("event Recovered"), 1);
}

#[test]
fn a_replay_begins_at_the_snapshot() {
    let world = crashed_behind();
    let from = world.lock().commit_record(P0).snapshot_at;
    world.run_well(&config(SELDOM), reading());
    assert_eq!(world.count(&format!("start_at 0 {from}")), 1);
}

#[test]
fn a_replay_ends_at_the_first_record_from_the_commit_on() {
    let world = crashed_behind();
    let at = world.committed_offset(P0).expect("committed");
    // Offsets without records around the commit; the end of the partition is far away.
    world.lock().append_gap(P0, 3);
    world.append_events(40..EVENTS);
    world.lock().batch = 1;
    // 17 records to replay at most, and the first after them.
    world.run(
        &config(SELDOM),
        vec![assign(&[P0]), Step::Polls(21), Step::Crash],
    );
    assert_eq!(world.count(&recovered(at)), 1, "{}", world.journal());
    world.run_well(&config(SELDOM), reading());
    assert!(world.outputs(P0).len() >= calm().len());
}

#[test]
fn a_replay_ends_at_the_stable_end_when_it_reaches_the_commit() {
    let world = crashed_behind();
    let at = world.committed_offset(P0).expect("committed");
    world.run(&config(SELDOM), reading_then_crash());
    assert_eq!(world.count(&recovered(at)), 1);
}

#[test]
fn a_replay_waits_when_the_stable_end_is_below_the_commit() {
    let world = crashed_behind();
    let at = world.committed_offset(P0).expect("committed");
    let hide = |inner: &mut fake::Inner, offsets: i64| {
        let log = inner.logs.get_mut(&P0).expect("a log");
        log.fetchable = log.last_stable - offsets;
    };
    hide(&mut world.lock(), 5);
    let script = vec![
        assign(&[P0]),
        Step::Read,
        Step::Wait(5_000),
        act(|inner| inner.journal.push("more is visible".into())),
        act(move |inner| hide(inner, 1)),
        Step::Wait(5_000),
        act(|inner| inner.journal.push("all is visible".into())),
        act(move |inner| hide(inner, 0)),
        Step::Wait(500),
    ];
    let transactions = world.transaction_count();
    world.run_well(&config(SELDOM), script);
    let all = world.places("all is visible");
    let done = world.places(&recovered(at));
    assert!(done.len() == 1 && done[0] > all[0], "{}", world.journal());
    // Nothing was committed while it waited; at the stop only the new snapshot.
    let commits = world.places("event Committed");
    assert!(commits.iter().all(|&commit| commit > done[0]));
    assert_eq!(world.transaction_count(), transactions + 1);
}

#[test]
fn a_worker_stopped_during_a_replay_leaves_the_commit_as_it_is() {
    let world = crashed_behind();
    let before = world.lock().committed.clone();
    let log_end = world.end_of_log();
    world.lock().logs.get_mut(&P0).expect("a log").fetchable = log_end - 5;
    // Its next start has to replay again: the stop is not called clean.
    let error = world.run(&config(""), reading()).error();
    assert!(matches!(error, WorkerError::DrainIncomplete(P0)), "{error}");
    assert_eq!(world.lock().committed, before);
    world.lock().logs.get_mut(&P0).expect("a log").fetchable = log_end;
    world.append_events(40..EVENTS);
    world.run_well(&config(""), reading());
    assert!(world.outputs(P0) == calm());
}

#[test]
fn a_log_that_ends_in_a_gap_is_committed_and_replayed_to_its_end() {
    let world = World::with_events(20);
    world.lock().append_gap(P0, 7);
    world.run(&config(SELDOM), reading_then_crash());
    let end = world.end_of_log();
    assert_eq!(world.committed_offset(P0), Some(end));
    world.run(&config(SELDOM), reading_then_crash());
    assert_eq!(world.count(&recovered(end)), 1);
    world.lock().append_gap(P0, 2);
    world.append_events(20..EVENTS);
    world.run_well(&config(SELDOM), reading());
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
    world.outputs(P0);
}

#[test]
fn an_empty_partition_is_committed_and_recovered() {
    let world = World::new();
    world.lock().logs.get_mut(&P0).expect("a log").earliest = 0;
    world.run(&config(""), reading_then_crash());
    assert_eq!(world.committed_offset(P0), Some(0));
    world.run_well(&config(""), reading());
    assert_eq!(world.count(&recovered(0)), 1);
}

#[test]
fn a_first_start_begins_where_the_log_begins() {
    let world = World::with_events(20);
    world.lock().logs.get_mut(&P0).expect("a log").earliest = 6;
    world.run(&config(SELDOM), reading_then_crash());
    assert_eq!(world.count("start_at 0 6"), 1);
    let first = header(&world.outputs(P0)[0], "cause-offset");
    assert!(first.parse::<i64>().expect("a number") >= 6);
    world.run_well(&config(SELDOM), reading());
    assert_eq!(world.count("event Recovered"), 1);
}

#[test]
fn every_owner_has_a_term_of_its_own() {
    let world = World::with_events(20);
    for owner in 1..=4_u64 {
        let next = owner as i64 * 20;
        world.append_events(next..next + 20);
        world.run_well(&config(""), reading());
        let inner = world.lock();
        let record = inner.commit_record(P0);
        assert_eq!((record.term, record.owner), (owner, format!("run-{owner}")));
        let newest = inner
            .transactions
            .iter()
            .rev()
            .find_map(|t| t.records.last());
        let newest = newest.expect("there are outputs");
        assert_eq!(header(newest, "owner"), format!("{owner}/run-{owner}"));
    }
}

#[test]
fn a_slow_restore_keeps_polling_so_that_the_member_stays() {
    let world = crashed_behind();
    world.meet("get", 0, Fault::is_slow(125_000));
    world.run_well(&config(""), reading());
    let (gets, polls) = (world.places("get"), world.places("poll"));
    let during = polls
        .iter()
        .filter(|&&poll| poll > gets[0] && poll < gets[1])
        .count();
    // 125 s with polls at least every 60 s were enough; the worker polls every third of that.
    assert!(during >= 3, "{during} polls");
    assert_eq!(world.count("event Recovered"), 1);
}

#[test]
fn a_slow_upload_keeps_polling_so_that_the_member_stays() {
    let world = World::with_events(EVENTS);
    world.meet("put", 3, Fault::is_slow(125_000));
    let mut script = vec![assign(&[P0]), Step::Wait(200)];
    script.extend([Step::Wait(130_000), Step::Wait(1_000)]);
    world.run_well(&config(""), script);
    let (puts, polls) = (world.places("put"), world.places("poll"));
    let snapshots = world.places("event Snapshotted");
    let done = snapshots.iter().find(|&&done| done > puts[3]);
    let done = done.expect("the upload succeeds");
    let during = polls
        .iter()
        .filter(|&poll| poll > &puts[3] && poll < done)
        .count();
    assert!(during >= 3, "{during} polls");
    assert!(world.outputs(P0) == calm());
}

#[test]
fn a_partition_that_is_taken_away_during_its_restore_is_given_up() {
    for is_fresh in [false, true] {
        for taken in [lose(&[P0]), revoke(&[P0])] {
            let world = if is_fresh {
                World::with_events(20)
            } else {
                crashed_behind()
            };
            let before = world.lock().committed.clone();
            let call = if is_fresh { "list" } else { "get" };
            world.meet(call, 0, Fault::is_slow(65_000));
            let is_lost = matches!(taken, Step::Give(Polled::Lost(_)));
            world.run_well(&config(""), vec![assign(&[P0]), taken, Step::Wait(500)]);
            assert_eq!(world.count("release [PartitionId(0)]"), 1);
            if is_lost || !is_fresh {
                assert_eq!(world.lock().committed, before);
            }
        }
    }
}

#[test]
fn a_partition_that_is_taken_away_while_its_offsets_are_asked_is_given_up() {
    for call in ["committed", "bounds"] {
        for taken in [lose(&[P0]), revoke(&[P0])] {
            let world = crashed_behind();
            for _ in 0..3 {
                let slow = Fault::fails(ErrorClass::Retriable).and_before(|i| i.now_ms += 30_000);
                world.meet(call, 0, slow);
            }
            let script = vec![assign(&[P0]), taken, Step::Wait(500)];
            world.run_well(&config(""), script);
            assert_eq!(world.count("start_at"), 0, "{call}");
            assert_eq!(world.count("release [PartitionId(0)]"), 1, "{call}");
        }
    }
}

#[test]
fn records_that_come_while_another_partition_is_restored_keep_their_order() {
    let world = World::with_events(20);
    world.lock().append(P1, 0, "1");
    world.run_well(
        &config(""),
        vec![assign(&[P1]), Step::Read, Step::Wait(500)],
    );
    let end = world.end_of_log();
    let records = |offset: i64| Polled::Records {
        partition: P0,
        records: vec![ConsumedRecord {
            offset: Offset(offset),
            timestamp: LogTimeMs(fake::T0 * 1000),
            key: None,
            value: Some("garbage".into()),
            headers: Vec::new(),
        }],
    };
    let script = vec![
        assign(&[P0]),
        Step::Read,
        act(|inner| inner.meet("get", 0, Fault::is_slow(65_000))),
        assign(&[P1]),
        Step::Give(records(end)),
        Step::Give(records(end + 1)),
        Step::Give(records(end + 2)),
        Step::Wait(30_000),
    ];
    world.run_well(&config(""), script);
    assert_eq!(world.committed_offset(P0), Some(end + 3));
    world.outputs(P0);
}

#[test]
fn an_eager_rebalance_that_gives_the_same_partition_back_loses_nothing() {
    let world = World::with_events(EVENTS);
    let mut script = vec![assign(&[P0])];
    for _ in 0..8 {
        script.extend([Step::Polls(3), revoke(&[P0]), Step::Polls(2), assign(&[P0])]);
    }
    script.extend([Step::Read, Step::Wait(500)]);
    world.run_well(&config(""), script);
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
    assert!(world.outputs(P0) == calm());
}

#[test]
fn partitions_lost_again_and_again_lose_nothing() {
    let world = World::with_events(EVENTS);
    let mut script = vec![assign(&[P0])];
    for polls in 0..12 {
        script.extend([
            Step::Polls(polls),
            lose(&[P0]),
            Step::Polls(2),
            assign(&[P0]),
        ]);
    }
    script.extend([Step::Read, Step::Wait(500)]);
    world.run_well(&config(""), script);
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
    assert!(world.outputs(P0) == calm());
}
