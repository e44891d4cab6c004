//! Beginning anew: where it begins, what an acceptance holds for, and a topic that changes on the way.

mod fake;

use fake::{Fault, P0, P1, World, act, assign, config, lose, reading, reading_then_crash};
use processor::io::ErrorClass;
use processor::worker::WorkerError;

const ACCEPT_P0: &str = "recovery = { accept_reset_partitions = [0] }";
const SELDOM: &str = "checkpoint = { interval_ms = 60000 }";
const NEW_TOPIC: &str = "topic-b";

/// Partition 0 was processed, and the process died with its snapshot behind its commit.
fn crashed_behind() -> World {
    let world = World::with_events(20);
    world.run_well(&config(""), reading());
    world.append_events(20..40);
    world.run(&config(SELDOM), reading_then_crash());
    let record = world.lock().commit_record(P0);
    assert!(record.snapshot_at.0 < world.committed_offset(P0).expect("committed"));
    world.forget_journal();
    world
}

#[track_caller]
fn is_changed_topic(error: &WorkerError) {
    // Not a refusal: the process itself may have been told of the topic as it was.
    assert!(matches!(error, WorkerError::TopicChanged(_)), "{error}");
    assert!(!error.is_refusal());
}

#[test]
fn an_accepted_reset_on_a_topic_created_anew_misses_none_of_its_records() {
    let world = World::with_events(40);
    world.run_well(&config(""), reading());
    let old_end = world.end_of_log();
    {
        // The new topic is longer than the old commit says, and its first records are deleted already.
        let mut inner = world.lock();
        inner.topic_id = Some(NEW_TOPIC.into());
        inner.transactions.clear();
        inner.objects.clear();
        let log = inner.logs.get_mut(&P0).expect("a log");
        *log = fake::Log::default();
        for index in 0..60 {
            fake::append_varied(&mut inner, P0, index);
        }
        inner.logs.get_mut(&P0).expect("a log").earliest = 5;
    }
    assert!(world.end_of_log() > old_end);
    world.forget_journal();
    world.run_well(&config(ACCEPT_P0), reading());
    let fresh = "event Fresh { partition: PartitionId(0), at: Offset(5) }";
    assert_eq!(world.count(fresh), 1, "{}", world.journal());
    assert_eq!(world.count("event ResetAccepted"), 1);
    let records = world.lock().logs[&P0].records.len() as u64;
    assert_eq!(world.lock().commit_record(P0).counters[0], records - 5);
}

#[test]
fn what_was_accepted_of_one_commit_is_not_accepted_of_the_next() {
    let world = crashed_behind();
    world
        .lock()
        .edit_commit_record(P0, |record| record.digest.0 ^= 1);
    // The replay contradicts the commit. Before the partition has begun anew it goes to somebody else, who
    // finds a way to go on and commits; then it comes back.
    world.meet("bounds", 1, Fault::fails(ErrorClass::Retriable));
    let mut script = vec![assign(&[P0]), fake::Step::Read];
    script.push(lose(&[P0]));
    script.push(act(|inner| {
        inner.edit_commit_record(P0, |record| {
            record.digest.0 ^= 1;
            record.term += 1;
        });
    }));
    script.extend(reading());
    world.run_well(&config(ACCEPT_P0), script);
    assert_eq!(world.count("event ResetAccepted"), 1, "{}", world.journal());
    assert_eq!(world.count("event Fresh"), 0, "{}", world.journal());
    assert_eq!(world.count("event Recovered"), 1);
    world.outputs(P0);
}

#[test]
fn an_acceptance_survives_a_start_that_has_to_be_tried_again() {
    let world = crashed_behind();
    world
        .lock()
        .edit_commit_record(P0, |record| record.digest.0 ^= 1);
    world.meet("bounds", 1, Fault::fails(ErrorClass::Retriable));
    world.run_well(&config(ACCEPT_P0), fake::reading_with_patience());
    assert_eq!(world.count("event Fresh"), 1, "{}", world.journal());
}

#[test]
fn a_topic_created_anew_while_a_partition_is_opened_ends_the_process() {
    for call in ["bounds", "commit_opening"] {
        let world = World::with_events(20);
        let created_anew = |inner: &mut fake::Inner| inner.topic_id = Some(NEW_TOPIC.into());
        world.meet(call, 0, Fault::default().and_before(created_anew));
        let error = world.run(&config(""), reading()).error();
        is_changed_topic(&error);
        assert_eq!(world.transaction_count(), 0, "{call}");
        assert_eq!(world.count("start_at"), 0, "{call}");
    }
}

#[test]
fn a_topic_created_anew_while_a_partition_is_restored_ends_the_process() {
    let world = crashed_behind();
    let before = world.lock().committed.clone();
    let created_anew = |inner: &mut fake::Inner| inner.topic_id = Some(NEW_TOPIC.into());
    world.meet("get", 0, Fault::default().and_before(created_anew));
    is_changed_topic(&world.run(&config(""), reading()).error());
    assert_eq!(world.lock().committed, before);
    assert_eq!(world.count("start_at"), 0);
}

#[test]
fn a_process_that_began_on_the_answer_of_a_broker_that_lags_behind_is_well_the_next_time() {
    let world = World::with_events(20);
    let lag = |inner: &mut fake::Inner| inner.topic_id = Some("topic-0".into());
    let caught_up = |inner: &mut fake::Inner| inner.topic_id = Some("topic-a".into());
    world.meet("describe_topic", 0, Fault::default().and_before(lag));
    world.meet("describe_topic", 0, Fault::default().and_before(caught_up));
    is_changed_topic(&world.run(&config(""), reading()).error());
    world.run_well(&config(""), reading());
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
}

#[test]
fn a_broker_that_lags_behind_does_not_make_a_refusal() {
    let world = World::with_events(20);
    // The process begins on the new topic; one answer still tells of the old one.
    let lag = |inner: &mut fake::Inner| inner.topic_id = Some("topic-0".into());
    let caught_up = |inner: &mut fake::Inner| inner.topic_id = Some("topic-a".into());
    world.meet("describe_topic", 2, Fault::default().and_before(lag));
    world.meet("describe_topic", 0, Fault::default().and_before(caught_up));
    world.run_well(&config(""), fake::reading_with_patience());
    assert_eq!(world.count("event Postponed"), 1, "{}", world.journal());
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
}

#[test]
fn a_partition_without_a_snapshot_holds_no_other_back_while_the_store_is_down() {
    let world = World::with_events(20);
    world.run_well(&config(""), reading());
    {
        let mut inner = world.lock();
        inner.batch = 30_000;
        for _ in 0..60_000 {
            inner.append_value(P1, 0, "?");
        }
    }
    world.fail("put", 1_000_000, ErrorClass::Retriable);
    let mut script = vec![assign(&[P0, P1]), fake::Step::Wait(4_000)];
    // Again and again: what would be held back is so after its first records.
    for begin in [20, 30, 40] {
        script.push(act(move |inner| {
            for index in begin..begin + 10 {
                fake::append_varied(inner, P0, index);
            }
        }));
        script.push(fake::Step::Wait(4_000));
    }
    script.push(fake::Step::Crash);
    world.run(&config(SELDOM), script);
    assert_eq!(world.count("pause [PartitionId(1)]"), 1, "it is held back");
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
    world.lock().clear_faults();
    let both = vec![assign(&[P0, P1]), fake::Step::Wait(20_000)];
    world.run_well(&config(""), both);
    assert_eq!(world.committed_offset(P1), Some(60_000));
    assert_eq!(world.outputs(P1).len(), 60_000);
}
