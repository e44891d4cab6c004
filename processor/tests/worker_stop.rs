//! A stop: everything that was read is snapshotted and committed, and the group is left.

mod fake;

use fake::{Exit, Fault, P0, P1, Step, World, act, assign, config, reading};
use processor::io::ErrorClass;
use processor::worker::WorkerError;

const EVENTS: i64 = 60;
const SLOW: &str = "commit = { interval_ms = 10000 }\ncheckpoint = { interval_ms = 60000 }";

fn is_stopped_cleanly(world: &World) {
    let record = world.lock().commit_record(P0);
    assert_eq!(
        world.committed_offset(P0),
        Some(record.snapshot_at.0),
        "S = C"
    );
    assert!(!record.snapshot.is_empty());
    assert_eq!(
        world.lock().journal.last().map(String::as_str),
        Some("close")
    );
}

#[test]
fn a_stop_snapshots_commits_and_leaves_the_group() {
    let world = World::with_events(EVENTS);
    // One commit first, then much that is not committed.
    let script = vec![assign(&[P0]), Step::Wait(10_100), Step::Read, Step::Stop];
    world.run_well(&config(SLOW), script);
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
    is_stopped_cleanly(&world);
}

#[test]
fn a_stop_before_the_first_commit_leaves_snapshot_and_commit_at_one_offset_too() {
    let world = World::with_events(EVENTS);
    world.run_well(&config(SLOW), vec![assign(&[P0]), Step::Read, Step::Stop]);
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
    is_stopped_cleanly(&world);
    // So another configuration can go on.
    let other = config("windows = { allowed_lateness_ms = 90000 }");
    world.run_well(&other, reading());
}

#[test]
fn a_stop_after_any_poll_is_clean() {
    for polls in 1..40 {
        let world = World::with_events(EVENTS);
        world.run_well(
            &config(""),
            vec![assign(&[P0]), Step::Polls(polls), Step::Stop],
        );
        is_stopped_cleanly(&world);
        world.run_well(&config(""), reading());
        assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
        world.outputs(P0);
    }
}

#[test]
fn a_stop_releases_what_was_owned_before_it_leaves() {
    let world = World::with_events(20);
    world.run_well(&config(""), vec![assign(&[P0, P1]), Step::Read, Step::Stop]);
    let (released, closed) = (world.places("release"), world.places("close"));
    assert_eq!(world.count("event Released"), 2);
    assert!(released[0] < closed[0]);
}

#[test]
fn a_stop_without_partitions_leaves_the_group() {
    let world = World::new();
    world.run_well(&config(""), vec![Step::Wait(1_000)]);
    assert_eq!(world.count("close"), 1);
    assert_eq!(world.transaction_count(), 0);
}

#[test]
fn a_stop_while_the_object_store_fails_still_commits() {
    let world = World::with_events(EVENTS);
    // The first checkpoint is stored, and no other.
    world.meet("put", 1, Fault::fails(ErrorClass::Retriable));
    world.fail("put", 10_000, ErrorClass::Retriable);
    let error = world.run(&config(""), reading()).error();
    assert!(matches!(error, WorkerError::DrainIncomplete(P0)), "{error}");
    let message = error.to_string();
    assert!(
        message.contains("start it once more and stop it again"),
        "{message}"
    );
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
    assert_eq!(world.count("close"), 1);
    // What the message says helps.
    world.lock().clear_faults();
    world.run_well(&config(""), reading());
    is_stopped_cleanly(&world);
}

/// Work that is not committed yet, then a stop.
fn stopping_with_work(hook: impl FnOnce(&mut fake::Inner) + Send + 'static) -> Vec<Step> {
    vec![
        assign(&[P0]),
        Step::Wait(10_100),
        Step::Read,
        act(hook),
        Step::Stop,
    ]
}

#[test]
fn a_stop_is_called_clean_only_when_it_is() {
    let classes = [
        ErrorClass::RequiresAbort,
        ErrorClass::OutcomeUnknown,
        ErrorClass::Fenced,
        ErrorClass::Fatal,
        ErrorClass::Retriable,
    ];
    for class in classes {
        for (nth, takes_effect) in [(0, false), (0, true), (1, false), (1, true)] {
            for marks_fail in [false, true] {
                let what = format!("{class:?} {nth} {takes_effect} {marks_fail}");
                if class == ErrorClass::RequiresAbort && takes_effect {
                    continue; // RequiresAbort says that nothing was committed
                }
                let world = World::with_events(EVENTS);
                let script = stopping_with_work(move |inner| {
                    let fault = match takes_effect {
                        true => Fault::fails_after(class),
                        false => Fault::fails(class),
                    };
                    inner.meet("commit_transaction", nth, fault);
                    if marks_fail {
                        inner.fail("send_mark", 1_000, ErrorClass::RequiresAbort);
                    }
                });
                match world.run(&config(SLOW), script) {
                    Exit::Stopped => {
                        let at = world.lock().commit_record(P0).snapshot_at.0;
                        assert_eq!(Some(at), world.committed_offset(P0), "{what}: S = C");
                    }
                    Exit::Failed(WorkerError::DrainIncomplete(P0)) => {}
                    other => panic!("{what}: {other:?}"),
                }
                world.lock().clear_faults();
                world.run_well(&config(""), reading());
                assert_eq!(
                    world.committed_offset(P0),
                    Some(world.end_of_log()),
                    "{what}"
                );
                world.outputs(P0);
            }
        }
    }
}

#[test]
fn a_stop_whose_commit_fails_loses_nothing() {
    let classes = [
        ErrorClass::RequiresAbort,
        ErrorClass::OutcomeUnknown,
        ErrorClass::Fenced,
        ErrorClass::Fatal,
        ErrorClass::Retriable,
    ];
    let calm = {
        let world = World::with_events(EVENTS);
        world.run_well(&config(""), reading());
        world.outputs(P0)
    };
    for class in classes {
        let world = World::with_events(EVENTS);
        let script = vec![
            assign(&[P0]),
            Step::Read,
            act(move |inner| inner.meet("commit_transaction", 0, Fault::fails(class))),
            Step::Stop,
        ];
        world.run(&config(SLOW), script);
        assert_eq!(world.count("close"), 1);
        world.run_well(&config(""), reading());
        assert!(world.outputs(P0) == calm, "{class:?}");
    }
}

#[test]
fn a_stop_whose_commit_was_aborted_tries_again() {
    let world = World::with_events(EVENTS);
    let abort = Fault::fails(ErrorClass::RequiresAbort);
    let script = vec![
        assign(&[P0]),
        Step::Wait(10_100),
        Step::Read,
        act(move |inner| inner.meet("commit_transaction", 0, abort)),
        Step::Stop,
    ];
    world.run_well(&config(SLOW), script);
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
    is_stopped_cleanly(&world);
}

/// A worker that is given a partition, cannot restore it, and stops.
fn stopping_before_the_restore(world: &World) -> Exit {
    world.fail("get", 10_000, ErrorClass::Retriable);
    let script = vec![assign(&[P0]), Step::Wait(2_000), Step::Stop];
    let exit = world.run(&config(""), script);
    assert!(world.count("event Postponed") > 0, "{}", world.journal());
    world.lock().clear_faults();
    exit
}

#[test]
fn a_partition_that_was_left_settled_needs_no_restore_before_a_stop() {
    let world = World::with_events(EVENTS);
    world.run_well(&config(""), reading());
    is_stopped_cleanly(&world);
    let exit = stopping_before_the_restore(&world);
    assert!(matches!(exit, Exit::Stopped), "{exit:?}");
    world.run_well(&config(""), reading());
    world.outputs(P0);
}

#[test]
fn a_partition_that_must_be_replayed_makes_a_stop_unclean() {
    let world = World::with_events(EVENTS);
    world.run_well(&config(""), reading());
    world.append_events(EVENTS..EVENTS + 20);
    // A commit after the newest snapshot.
    let script = vec![
        assign(&[P0]),
        Step::Wait(10_100),
        Step::Read,
        Step::Wait(10_100),
        Step::Crash,
    ];
    world.run(&config(SLOW), script);
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
    let error = stopping_before_the_restore(&world).error();
    assert!(matches!(error, WorkerError::DrainIncomplete(P0)), "{error}");
    world.run_well(&config(""), reading());
    world.outputs(P0);
}

#[test]
fn a_partition_that_was_only_opened_needs_no_snapshot_before_a_stop() {
    let world = World::new();
    world.fail("put", 10_000, ErrorClass::Retriable);
    world.run_well(&config(""), reading());
    assert_eq!(world.lock().commit_record(P0).snapshot, "");
    // With something read of it, it does: nothing may be put out without.
    world.append_events(0..EVENTS);
    let error = world.run(&config(""), reading()).error();
    assert!(matches!(error, WorkerError::DrainIncomplete(P0)), "{error}");
    assert_eq!(world.transaction_count(), 0);
}
