//! The group and its coordinator: what is committed when partitions come and go, under which identity,
//! and whose answers count.

mod fake;

use fake::{
    Exit, Fault, P0, P1, Step, World, act, append_varied, assign, config, lose, reading,
    reading_with_patience, revoke,
};
use processor::io::{ErrorClass, ProducerRecord};
use processor::worker::WorkerError;

const EVENTS: i64 = 60;

/// What a run without trouble yields.
fn calm() -> Vec<ProducerRecord> {
    let world = World::with_events(EVENTS);
    world.run_well(&config(""), reading());
    let outputs = world.outputs(P0);
    assert!(outputs.len() > 20);
    outputs
}

/// Everything was committed once, as in a calm run.
#[track_caller]
fn is_as_calm(world: &World, what: &str) {
    assert_eq!(
        world.committed_offset(P0),
        Some(world.end_of_log()),
        "{what}"
    );
    assert!(world.outputs(P0) == calm(), "{what}: other outputs");
}

#[test]
fn nothing_of_a_lost_partition_is_committed() {
    let world = World::with_events(EVENTS);
    let slow = config("commit = { interval_ms = 10000 }\ncheckpoint = { interval_ms = 10000 }");
    let script = vec![
        assign(&[P0]),
        Step::Polls(8),
        lose(&[P0]),
        Step::Wait(30_000),
    ];
    world.run_well(&slow, script);
    assert_eq!(
        world.count("event Released { partition: PartitionId(0), in_time: false }"),
        1
    );
    assert_eq!(world.committed_offset(P0), Some(0), "where it began");
    assert!(world.outputs(P0).is_empty());
    // Who takes it over does it all.
    world.run_well(&config(""), reading());
    is_as_calm(&world, "lost");
}

/// Partition 0 has outputs that are not committed, partition 1 is restored so slowly that the worker
/// polls meanwhile, and is told that partition 0 is lost. Then `last`.
fn losing_one_while_another_is_restored(last: Vec<Step>) -> World {
    let world = World::with_events(EVENTS);
    world.lock().append(P1, 0, "1");
    world.run_well(
        &config(""),
        vec![assign(&[P1]), Step::Read, Step::Wait(500)],
    );
    world.forget_journal();
    let mut script = vec![
        assign(&[P0]),
        Step::Polls(6),
        act(|inner| {
            inner.meet(
                "send_offsets_to_transaction",
                0,
                Fault::fails(ErrorClass::RequiresAbort),
            );
            inner.meet("get", 0, Fault::is_slow(30_000));
        }),
        assign(&[P1]),
        lose(&[P0]),
    ];
    script.extend(last);
    // The fake sees that nothing of a lost partition is committed.
    let exit = world.run(&config(""), script);
    assert!(!matches!(exit, Exit::Crashed));
    assert!(world.count("event Aborted") > 0);
    world
}

#[test]
fn a_partition_lost_while_another_is_restored_is_not_committed() {
    let world = losing_one_while_another_is_restored(vec![Step::Wait(500)]);
    assert_eq!(
        world.count("event Released { partition: PartitionId(0), in_time: false }"),
        1
    );
    world.run_well(&config(""), reading());
    is_as_calm(&world, "lost");
}

#[test]
fn a_worker_stopped_while_a_loss_waits_for_its_answer_commits_nothing_of_it() {
    let world = losing_one_while_another_is_restored(vec![Step::Stop]);
    world.run_well(&config(""), reading());
    is_as_calm(&world, "lost");
}

#[test]
fn an_answer_of_a_replaced_coordinator_decides_nothing() {
    for stale_answers in [1, 3, 4, 5, 12] {
        for takes_effect in [false, true] {
            let world = World::with_events(EVENTS);
            let fault = match takes_effect {
                true => Fault::fails_after(ErrorClass::OutcomeUnknown),
                false => Fault::fails(ErrorClass::OutcomeUnknown),
            };
            let fault = fault.and_before(move |inner| {
                // What was committed before this transaction, as it remembers it.
                inner.remembered = inner.committed.clone();
                inner.stale_answers = stale_answers;
            });
            world.meet("commit_transaction", 4, fault);
            world.run_well(&config(""), reading_with_patience());
            is_as_calm(&world, &format!("{stale_answers} {takes_effect}"));
        }
    }
}

#[test]
fn a_takeover_that_is_answered_by_a_replaced_coordinator_waits() {
    for stale_answers in [1, 4, 7] {
        let world = World::with_events(20);
        world.run_well(&config(""), reading());
        let remembered = world.lock().committed.clone();
        world.append_events(20..EVENTS);
        world.run_well(&config(""), reading());
        {
            let mut inner = world.lock();
            inner.remembered = remembered;
            inner.stale_answers = stale_answers;
        }
        world.run_well(&config(""), reading_with_patience());
        is_as_calm(&world, "stale");
    }
}

/// Appends `events` more to partition 1, and processes them.
fn go_on(world: &World, events: std::ops::Range<i64>) {
    for index in events {
        append_varied(&mut world.lock(), P1, index);
    }
    world.run_well(
        &config(""),
        vec![assign(&[P1]), Step::Read, Step::Wait(500)],
    );
}

#[test]
fn partitions_that_come_together_are_read_behind_one_mark() {
    let world = World::with_events(20);
    world.run_well(&config(""), reading());
    world.append_events(20..EVENTS);
    go_on(&world, 0..EVENTS);
    world.forget_journal();
    let script = vec![assign(&[P0, P1]), Step::Read, Step::Wait(500)];
    world.run_well(&config(""), script);
    assert_eq!(world.count("event Recovered"), 2, "{}", world.journal());
    assert_eq!(world.count("commit_mark"), 1, "{}", world.journal());
    is_as_calm(&world, "both");
}

#[test]
fn a_partition_whose_last_transaction_is_open_does_not_hold_up_the_others() {
    let world = World::with_events(EVENTS);
    world.run_well(&config(""), reading());
    go_on(&world, 0..EVENTS);
    let outputs = (world.outputs(P0), world.outputs(P1));
    world.forget_journal();
    world.lock().is_pending.insert(P1);
    let script = vec![
        assign(&[P0, P1]),
        Step::Wait(30_000),
        act(|inner| {
            assert!(
                inner
                    .journal
                    .iter()
                    .any(|line| line.starts_with("start_at 0"))
            );
            assert!(
                !inner
                    .journal
                    .iter()
                    .any(|line| line.starts_with("start_at 1"))
            );
            inner.is_pending.clear();
        }),
        Step::Wait(10_000),
    ];
    world.run_well(&config(""), script);
    assert_eq!(world.count("start_at 1"), 1, "{}", world.journal());
    assert!((world.outputs(P0), world.outputs(P1)) == outputs);
}

#[test]
fn a_partition_that_was_away_while_another_was_restored_is_read_again() {
    let world = World::with_events(EVENTS);
    world.run_well(&config(""), reading());
    go_on(&world, 0..20);
    let before = world.lock().committed[&P1].clone();
    go_on(&world, 20..EVENTS);
    let outputs = world.outputs(P1);
    // It is read before somebody else has processed the last events, and comes back after that.
    let after = world.lock().committed.insert(P1, before).unwrap();
    world.forget_journal();
    world.meet(
        "get",
        0,
        Fault::is_slow(30_000).and_before(move |inner| {
            inner.committed.insert(P1, after);
        }),
    );
    let script = vec![
        assign(&[P0, P1]),
        lose(&[P1]),
        assign(&[P1]),
        Step::Read,
        Step::Wait(500),
    ];
    world.run_well(&config(""), script);
    assert_eq!(world.count("commit_mark"), 2, "{}", world.journal());
    assert!(world.outputs(P1) == outputs);
}

#[test]
fn a_mark_that_fails_in_any_way_leaves_the_question_open_for_later() {
    for call in ["send_mark", "commit_mark"] {
        let classes = [
            ErrorClass::Fenced,
            ErrorClass::Fatal,
            ErrorClass::OutcomeUnknown,
            ErrorClass::RequiresAbort,
            ErrorClass::Retriable,
        ];
        for class in classes {
            for times in [1, 4] {
                let world = World::with_events(EVENTS);
                let unknown = Fault::fails_after(ErrorClass::OutcomeUnknown)
                    .and_before(move |inner| inner.fail(call, times, class));
                world.meet("commit_transaction", 4, unknown);
                world.run_well(&config(""), reading_with_patience());
                is_as_calm(&world, &format!("{call} {class:?} {times}"));
            }
        }
    }
}

#[test]
fn a_revoked_partition_is_committed_before_it_is_released() {
    let world = World::with_events(EVENTS);
    let slow = config("commit = { interval_ms = 10000 }\ncheckpoint = { interval_ms = 10000 }");
    let script = vec![assign(&[P0]), Step::Read, revoke(&[P0]), Step::Crash];
    world.run(&slow, script);
    let commit = world.places("event Committed");
    let release = world.places("release");
    assert!(commit[0] < release[0], "{}", world.journal());
    assert_eq!(
        world.count("event Released { partition: PartitionId(0), in_time: true }"),
        1
    );
    is_as_calm(&world, "revoked");
}

#[test]
fn a_commit_that_fails_at_revocation_leaves_the_work_to_the_next_owner() {
    for class in [ErrorClass::RequiresAbort, ErrorClass::OutcomeUnknown] {
        let world = World::with_events(EVENTS);
        let slow = config("commit = { interval_ms = 10000 }\ncheckpoint = { interval_ms = 10000 }");
        // The one before names the first snapshot.
        world.meet("commit_transaction", 1, Fault::fails(class));
        let script = vec![assign(&[P0]), Step::Read, revoke(&[P0]), Step::Wait(30_000)];
        world.run_well(&slow, script);
        assert_eq!(world.committed_offset(P0), Some(0));
        world.run_well(&config(""), reading());
        is_as_calm(&world, "revoked");
    }
}

#[test]
fn kept_partitions_are_committed_before_new_ones_are_restored() {
    let world = World::with_events(20);
    world.lock().append(P1, 0, "1");
    let slow = config("commit = { interval_ms = 10000 }\ncheckpoint = { interval_ms = 10000 }");
    let script = vec![assign(&[P0]), Step::Read, assign(&[P1]), Step::Crash];
    world.run(&slow, script);
    let commit = world.places("event Committed");
    let start = world.places("start_at 1");
    assert!(commit[0] < start[0]);
}

#[test]
fn work_is_committed_under_the_group_identity_of_the_poll_that_brought_it() {
    // The generation moves on between the poll and the commit: what was polled before it is refused
    // by the group, not legitimised by a newer identity.
    let world = World::with_events(EVENTS);
    let moved = Fault::default().and_before(|inner| inner.generation += 1);
    world.meet("send", 5, moved);
    world.run_well(&config(""), reading());
    assert_eq!(world.count("event Aborted"), 1);
    is_as_calm(&world, "generation");
    let inner = world.lock();
    let generations: Vec<_> = inner.transactions.iter().map(|t| t.generation).collect();
    assert!(generations.is_sorted());
    assert_eq!(generations.first(), Some(&Some(1)));
    assert_eq!(generations.last(), Some(&Some(2)));
}

#[test]
fn outside_a_stable_generation_the_identity_of_the_last_one_is_used() {
    let world = World::with_events(EVENTS);
    let script = vec![
        assign(&[P0]),
        Step::Polls(10),
        act(|inner| inner.in_group = false),
        Step::Read,
        Step::Wait(500),
    ];
    world.run_well(&config(""), script);
    is_as_calm(&world, "unstable");
}

#[test]
fn before_the_first_generation_nothing_is_committed() {
    let world = World::with_events(20);
    let script = vec![
        act(|inner| inner.never_in_group = true),
        assign(&[P0]),
        Step::Read,
        Step::Wait(500),
    ];
    // It ends without having restored the partition, and says so.
    let error = world.run(&config(""), script).error();
    assert!(matches!(error, WorkerError::DrainIncomplete(P0)), "{error}");
    assert_eq!(world.count("begin_transaction"), 0);
    assert_eq!(world.committed_offset(P0), None);
}
