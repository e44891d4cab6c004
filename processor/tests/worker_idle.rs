//! An idle partition is closed by the clock: only when the leader says that it was read to its end,
//! and so that no replay ever crosses it.

mod fake;

use fake::{Fault, Inner, P0, Step, World, act, assign, config, header};
use processor::io::ErrorClass;
use processor::worker::WorkerError;

/// An idle timeout of 1 s. The window of minute 0 ends 50 s after a run begins, and the watermark
/// is 5 s behind: it may be closed from 55 s on, by the clock of the process; by the log's, whose newest
/// record is some seconds old when it is read, a little later.
const QUICK: &str = "windows = { idle_timeout_ms = 1000 }";
const BEFORE_DEADLINE_MS: u64 = 54_000;

fn three_events() -> World {
    let world = World::new();
    for seconds in [1, 2, 3] {
        world.lock().append(P0, seconds, "10");
    }
    world
}

fn wait(ms: u64) -> Vec<Step> {
    vec![assign(&[P0]), Step::Wait(ms)]
}

fn forced(world: &World) -> usize {
    world.count("event Forced")
}

#[test]
fn a_silent_partition_at_its_end_is_closed_by_the_clock() {
    let world = three_events();
    let mut script = wait(BEFORE_DEADLINE_MS);
    script.push(act(|inner| inner.journal.push("the deadline comes".into())));
    script.push(Step::Wait(10_000));
    world.run_well(&config(QUICK), script);
    assert_eq!(forced(&world), 1);
    assert!(world.places("event Forced")[0] > world.places("the deadline comes")[0]);
    let outputs = world.outputs(P0);
    assert_eq!(outputs.len(), 1);
    assert_eq!(header(&outputs[0], "cause"), "idle");
    assert_eq!(header(&outputs[0], "cause-offset"), "3");
}

#[test]
fn nothing_is_committed_between_a_forced_advance_and_a_snapshot_at_it() {
    let world = three_events();
    world.run_well(&config(QUICK), wait(70_000));
    let forced = world.places("event Forced")[0];
    let after = |beginning: &str| {
        let places = world.places(beginning);
        places.into_iter().find(|&place| place > forced)
    };
    let snapshotted = after("event Snapshotted").expect("a snapshot");
    assert!(snapshotted < after("begin_transaction").expect("a commit"));
    let record = world.lock().commit_record(P0);
    assert_eq!(record.forced.map(|(offset, _)| offset.0), Some(3));
    assert_eq!(record.snapshot_at.0, 3);
}

#[test]
fn while_uploads_fail_a_forced_advance_is_not_committed_nor_what_comes_after_it() {
    let world = three_events();
    let script = || {
        let mut script = wait(40_000);
        script.push(act(|inner| {
            inner.fail("put", 100_000, ErrorClass::Retriable)
        }));
        script.push(Step::Wait(30_000));
        script.push(act(|inner| inner.append(P0, 90, "11")));
        script.push(Step::Wait(5_000));
        script
    };
    let mut crashing = script();
    crashing.push(Step::Crash);
    world.run(&config(QUICK), crashing);
    assert_eq!(forced(&world), 1);
    assert_eq!(world.committed_offset(P0), Some(3));
    assert!(world.outputs(P0).is_empty());
    // The next owner sees only the log, and does as it says.
    world.lock().clear_faults();
    world.run_well(&config(QUICK), wait(3_000));
    assert_eq!(world.outputs(P0).len(), 1);
    assert_eq!(header(&world.outputs(P0)[0], "cause"), "record");
}

#[test]
fn once_uploads_succeed_a_forced_advance_is_committed_with_what_came_after() {
    let world = three_events();
    let mut script = wait(40_000);
    script.push(act(|inner| inner.fail("put", 20, ErrorClass::Retriable)));
    script.push(Step::Wait(20_000));
    script.push(act(|inner| inner.append(P0, 62, "11")));
    script.push(Step::Wait(60_000));
    world.run_well(&config(QUICK), script);
    assert_eq!(world.committed_offset(P0), Some(4));
    assert_eq!(header(&world.outputs(P0)[0], "cause"), "idle");
    let record = world.lock().commit_record(P0);
    assert!(record.snapshot_at.0 == 4 && record.forced.is_some());
}

#[test]
fn a_partition_with_unread_records_is_never_forced() {
    let world = three_events();
    let mut script = wait(5_000);
    script.push(act(|inner| {
        // Fetching stalls: the log goes on, the consumer sees nothing of it.
        inner.append(P0, 14, "11");
        let log = inner.logs.get_mut(&P0).expect("a log");
        log.fetchable = 3;
    }));
    script.push(Step::Wait(600_000));
    script.push(act(|inner| inner.journal.push("fetching goes on".into())));
    script.push(act(|inner| {
        let log = inner.logs.get_mut(&P0).expect("a log");
        log.fetchable = log.last_stable;
    }));
    // The log's own time has stood still meanwhile.
    script.push(Step::Wait(60_000));
    world.run_well(&config(QUICK), script);
    assert!(world.places("event Forced")[0] > world.places("fetching goes on")[0]);
    // The leader was asked again and again.
    assert!(world.count("bounds") > 100);
    let outputs = world.outputs(P0);
    assert_eq!(outputs.len(), 1);
    assert!(String::from_utf8_lossy(&outputs[0].value).contains("\"count\":4"));
}

#[test]
fn a_failed_question_for_the_end_is_no_answer() {
    for class in [
        ErrorClass::Retriable,
        ErrorClass::Fatal,
        ErrorClass::OutcomeUnknown,
    ] {
        let world = three_events();
        let mut script = wait(5_000);
        script.push(act(move |inner| inner.fail("bounds", 50, class)));
        script.push(Step::Wait(80_000));
        script.push(act(|inner| {
            inner.journal.push("the leader answers".into());
            inner.clear_faults();
        }));
        script.push(Step::Wait(20_000));
        world.run_well(&config(QUICK), script);
        let answers = world.places("the leader answers")[0];
        assert!(world.places("event Forced")[0] > answers);
    }
}

#[test]
fn a_partition_that_was_never_committed_is_not_forced() {
    let world = three_events();
    world.lock().never_in_group = true;
    let error = world.run(&config(QUICK), wait(300_000)).error();
    assert!(matches!(error, WorkerError::DrainIncomplete(P0)), "{error}");
    assert_eq!(forced(&world), 0);
    assert_eq!(world.count("put"), 0);
}

#[test]
fn a_partition_whose_opening_fails_is_not_forced_before_it_succeeds() {
    let world = three_events();
    let mut script = wait(0);
    script.insert(
        0,
        act(|inner| {
            inner.fail("send_opening", 1_000, ErrorClass::RequiresAbort);
        }),
    );
    script.push(Step::Wait(300_000));
    script.push(act(|inner| {
        inner.journal.push("openings go through".into());
        inner.clear_faults();
    }));
    script.push(Step::Wait(80_000));
    world.run_well(&config(QUICK), script);
    assert!(world.places("event Forced")[0] > world.places("openings go through")[0]);
    assert!(world.places("event Forced")[0] > world.places("commit_opening")[0]);
}

#[test]
fn a_partition_that_is_not_silent_is_not_forced() {
    let world = three_events();
    let mut script = wait(100);
    // Old events trickle in: they do not move the watermark, but there is life.
    for _ in 0..150 {
        script.push(act(|inner| inner.append(P0, 4, "10")));
        script.push(Step::Wait(500));
    }
    script.push(Step::Crash);
    world.run(&config(QUICK), script);
    assert_eq!(forced(&world), 0);
}

#[test]
fn a_partition_without_open_windows_is_not_asked_about() {
    let world = World::new();
    world.run_well(&config(QUICK), wait(300_000));
    assert_eq!(forced(&world), 0);
    assert_eq!(world.count("bounds"), 1, "only where its log begins");
}

#[test]
fn a_partition_in_replay_is_not_forced() {
    let world = three_events();
    let mut script = wait(1_000);
    script.push(Step::Crash);
    world.run(&config("checkpoint = { interval_ms = 60000 }"), script);
    world.lock().logs.get_mut(&P0).expect("a log").fetchable = 1;
    let error = world.run(&config(QUICK), wait(300_000)).error();
    assert!(matches!(error, WorkerError::DrainIncomplete(P0)), "{error}");
    assert_eq!(forced(&world), 0);
    assert_eq!(world.committed_offset(P0), Some(3));
}

#[test]
fn a_wall_clock_that_is_wrong_closes_no_window() {
    for jump_ms in [-100_000_000_000, -3_600_000, 3_600_000, i64::from(i32::MAX)] {
        let world = three_events();
        let mut script = wait(5_000);
        script.push(act(move |inner| inner.clock_jump_ms = jump_ms));
        script.push(Step::Wait(10_000));
        script.push(act(|inner| inner.clock_jump_ms = 0));
        script.push(Step::Wait(10_000));
        world.run_well(&config(QUICK), script);
        assert_eq!(forced(&world), 0, "the window of minute 0 is not over");
        assert_eq!(world.committed_offset(P0), Some(3));
    }
}

#[test]
fn a_forced_advance_is_never_replayed_nor_forgotten() {
    // Records, silence, records, silence; the process dies at every call; then it goes on.
    let script = || {
        let mut script = wait(65_000);
        script.push(act(|inner: &mut Inner| {
            if inner.logs[&P0].last_stable == 3 {
                inner.append(P0, 70, "11");
                inner.append(P0, 71, "12");
            }
        }));
        script.push(Step::Wait(70_000));
        script
    };
    let mut forced_and_crashed = 0;
    for last in 1..1_000 {
        let world = three_events();
        world.lock().crash_after_calls = Some(last);
        let exit = world.run(&config(QUICK), script());
        let crashed = matches!(exit, fake::Exit::Crashed);
        forced_and_crashed += usize::from(crashed && forced(&world) > 0);
        world.run_well(&config(QUICK), script());
        assert_eq!(world.committed_offset(P0), Some(5), "call {last}");
        assert_eq!(
            world.outputs(P0).len(),
            2,
            "call {last}: two windows, once each"
        );
        if !crashed {
            break;
        }
    }
    assert!(forced_and_crashed > 10, "{forced_and_crashed}");
}

#[test]
fn an_event_for_a_window_that_was_closed_by_the_clock_corrects_it() {
    let world = three_events();
    let mut script = wait(65_000);
    script.push(act(|inner| {
        inner.append_value(P0, 70, &fake::tick("AMZN", 30, "12"))
    }));
    script.push(Step::Wait(1_000));
    world.run_well(&config(QUICK), script);
    let outputs = world.outputs(P0);
    assert_eq!(outputs.len(), 2);
    assert_eq!(header(&outputs[1], "revision"), "1");
    assert_eq!(header(&outputs[1], "cause"), "record");
}

#[test]
fn an_abort_after_a_forced_advance_sends_the_same_again() {
    for class in [
        ErrorClass::RequiresAbort,
        ErrorClass::OutcomeUnknown,
        ErrorClass::Fenced,
    ] {
        let world = three_events();
        let mut script = wait(BEFORE_DEADLINE_MS);
        script.push(act(move |inner| {
            inner.meet("commit_transaction", 0, Fault::fails(class))
        }));
        script.push(Step::Wait(20_000));
        world.run_well(&config(QUICK), script);
        assert_eq!(forced(&world), 1);
        assert_eq!(world.outputs(P0).len(), 1);
        assert_eq!(world.committed_offset(P0), Some(3));
    }
}
