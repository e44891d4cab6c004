//! Whatever takes long: the member stays in the group, and nobody waits for what is not its own.

mod fake;

use fake::{Fault, P0, P1, Step, World, act, assign, config, lose, reading, reading_then_crash};
use processor::io::ErrorClass;
use processor::units::PartitionId;
use processor::worker::WorkerError;

const SELDOM: &str = "checkpoint = { interval_ms = 60000 }";
const P2: PartitionId = PartitionId(2);

/// Partition 0 was processed, and the process died with its snapshot behind its commit.
fn crashed_behind() -> World {
    let world = World::with_events(20);
    world.run_well(&config(""), reading());
    world.append_events(20..40);
    world.run(&config(SELDOM), reading_then_crash());
    world.forget_journal();
    world
}

/// True when there is a poll after the first call of this name and before another one.
#[track_caller]
fn polls_between(world: &World, call: &str, other: usize) -> bool {
    let calls = world.places(call);
    let polls = world.places("poll");
    assert!(calls.len() > other, "{}", world.journal());
    polls.iter().any(|at| calls[0] < *at && *at < calls[other])
}

#[test]
fn work_that_is_short_each_time_adds_up_to_a_poll() {
    let world = crashed_behind();
    // Longer than a third of `max.poll.interval.ms`, and answered without anybody having to wait.
    let slow = Fault::default().and_before(|inner| inner.now_ms += 120_000);
    world.meet("get", 0, slow);
    world.run_well(&config(""), fake::reading_with_patience());
    let gets = world.places("get ").len();
    assert!(
        polls_between(&world, "get ", gets - 1),
        "{}",
        world.journal()
    );
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
}

#[test]
fn partitions_that_cannot_be_restored_keep_no_other_from_it() {
    let world = World::with_events(20);
    {
        let mut inner = world.lock();
        inner.partitions = 3;
        inner.logs.insert(P2, fake::Log::default());
    }
    // Each answer takes longer than the pause until the next try.
    for _ in 0..2 {
        let late = Fault::fails(ErrorClass::Retriable).and_before(|inner| inner.now_ms += 2_000);
        world.meet("bounds", 0, late);
    }
    let script = vec![assign(&[P0, P1, P2]), Step::Wait(20_000)];
    world.run_well(&config(""), script);
    let begun = |partition: PartitionId| {
        let line = format!("event Fresh {{ partition: {partition:?}");
        world.places(&line)[0]
    };
    assert!(begun(P2) < begun(P0), "{}", world.journal());
    assert!(begun(P0) < begun(P1), "{}", world.journal());
}

#[test]
fn a_store_that_fails_is_left_alone_until_the_next_poll() {
    let world = World::with_events(20);
    let both_move = |inner: &mut fake::Inner| {
        inner.journal.clear();
        inner.fail("put", 1_000_000, ErrorClass::Retriable);
        for index in 20..30 {
            fake::append_varied(inner, P0, index);
            fake::append_varied(inner, P1, index);
        }
    };
    let mut script = vec![assign(&[P0, P1]), Step::Wait(5_000), act(both_move)];
    script.extend([Step::Wait(10_000), Step::Crash]);
    world.run(&config(""), script);
    assert!(polls_between(&world, "put ", 1), "{}", world.journal());
    // Each has its turn.
    for partition in [P0, P1] {
        let failed = format!("event SnapshotFailed {{ partition: {partition:?}");
        assert!(world.count(&failed) > 1, "{}", world.journal());
    }
}

#[test]
fn a_partition_that_needs_a_snapshot_does_not_hurry_the_others() {
    let world = World::with_events(20);
    world.run_well(&config(""), reading());
    world.forget_journal();
    // Partition 1 begins while partition 0, which has a snapshot, has moved.
    let script = vec![
        assign(&[P0]),
        Step::Wait(1_000),
        act(|inner| {
            for index in 20..30 {
                fake::append_varied(inner, P0, index);
            }
        }),
        Step::Wait(1_000),
        assign(&[P1]),
        Step::Wait(5_000),
        Step::Crash,
    ];
    world.run(&config(SELDOM), script);
    let made = |partition: PartitionId| {
        world.count(&format!("event Snapshotted {{ partition: {partition:?}"))
    };
    assert_eq!((made(P0), made(P1)), (0, 1), "{}", world.journal());
}

#[test]
fn a_topic_created_anew_while_it_is_read_is_noticed_at_the_next_checkpoint() {
    let world = World::with_events(20);
    let mut script = reading();
    script.push(act(|inner| {
        inner.topic_id = Some("topic-b".into());
        // It is long enough for the client to go on in it without a word.
        for index in 20..25 {
            fake::append_varied(inner, P0, index);
        }
    }));
    script.push(Step::Wait(30_000));
    let error = world.run(&config(""), script).error();
    assert!(matches!(error, WorkerError::TopicChanged(_)), "{error}");
    assert!(!error.is_refusal());
    let error = world.run(&config(""), reading()).error();
    assert!(
        error.is_refusal() && error.to_string().contains("topic-b"),
        "{error}"
    );
}

#[test]
fn looks_at_the_topic_that_get_no_answer_hold_nothing_up() {
    let world = World::with_events(20);
    let mut script = reading();
    script.push(act(|inner| {
        inner.fail("describe_topic", 1_000, ErrorClass::Retriable)
    }));
    for begin in [20, 30, 40] {
        script.push(act(move |inner| {
            for index in begin..begin + 10 {
                fake::append_varied(inner, P0, index);
            }
        }));
        script.push(Step::Wait(10_000));
    }
    script.push(Step::Crash);
    world.run(&config(""), script);
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
    assert!(world.count("event Snapshotted") > 2, "{}", world.journal());
}

#[test]
fn what_was_restored_and_then_taken_away_is_dropped() {
    let world = crashed_behind();
    // After the restore, one answer tells of another topic and the next one does not.
    let lag = |inner: &mut fake::Inner| inner.topic_id = Some("topic-0".into());
    let caught_up = |inner: &mut fake::Inner| inner.topic_id = Some("topic-a".into());
    world.meet("describe_topic", 3, Fault::default().and_before(lag));
    world.meet("describe_topic", 0, Fault::default().and_before(caught_up));
    let script = vec![assign(&[P0]), lose(&[P0]), Step::Polls(2), Step::Crash];
    world.run(&config(""), script);
    assert_eq!(world.count("event Postponed"), 1, "{}", world.journal());
    let restored = *world.places("get ").last().expect("it was restored");
    let drops = world.places("state.drop_partition");
    assert!(drops.iter().any(|at| *at > restored), "{}", world.journal());
}

#[test]
fn an_acceptance_survives_an_opening_that_fails() {
    let world = crashed_behind();
    world
        .lock()
        .edit_commit_record(P0, |record| record.digest.0 ^= 1);
    world.meet("commit_opening", 0, Fault::fails(ErrorClass::RequiresAbort));
    let accept = config("recovery = { accept_reset_partitions = [0] }");
    world.run_well(&accept, fake::reading_with_patience());
    assert_eq!(world.count("event ResetAccepted"), 1, "{}", world.journal());
    assert_eq!(world.count("event Fresh"), 1, "{}", world.journal());
}
