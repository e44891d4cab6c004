//! Every error that ends a worker, and every one that must not: what it takes, what it says, and that
//! it never is a panic.

mod fake;

use fake::{
    Exit, Fault, P0, P1, Step, World, act, assign, config, reading, reading_then_crash,
    reading_with_patience,
};
use processor::io::{ConsumedRecord, ErrorClass, Polled};
use processor::units::{LogTimeMs, Offset};
use processor::worker::{CommitRecordError, Refusal, Worker, WorkerError};

fn stopped() -> World {
    let world = World::with_events(20);
    world.run_well(&config(""), reading());
    world.forget_journal();
    world
}

#[track_caller]
fn fails(world: &World) -> WorkerError {
    let error = world.run(&config(""), reading_with_patience()).error();
    assert!(!error.is_refusal(), "{error}");
    error
}

#[test]
fn calls_that_may_be_made_again_are_made_again_after_a_pause() {
    for call in ["describe_topic", "init_transactions"] {
        let world = stopped();
        world.fail(call, 5, ErrorClass::Retriable);
        world.run_well(&config(""), reading());
        assert_eq!(world.count("event Retrying"), 5, "{call}");
        assert_eq!(world.count("sleep"), 5, "{call}");
        assert_eq!(world.count("event Recovered"), 1, "{call}");
    }
}

#[test]
fn what_a_restore_needs_is_asked_again_later_while_other_partitions_go_on() {
    for call in ["committed", "bounds", "get", "send_mark"] {
        let world = stopped();
        world.lock().append(P1, 0, "1");
        let class = match call {
            "send_mark" => ErrorClass::RequiresAbort,
            _ => ErrorClass::Retriable,
        };
        let script = vec![
            assign(&[P1]),
            Step::Read,
            Step::Wait(500),
            act(move |inner| inner.fail(call, 12, class)),
            assign(&[P0]),
            act(|inner| inner.append(P1, 1, "1")),
            Step::Wait(30_000),
        ];
        world.run_well(&config(""), script);
        let postponed = world.places("event Postponed");
        let recovered = world.places("event Recovered { partition: PartitionId(0)");
        assert!(
            postponed.len() > 1 && recovered.len() == 1,
            "{call}: {}",
            world.journal()
        );
        let commits = world.places("event Committed");
        assert!(
            commits
                .iter()
                .any(|at| (postponed[0]..recovered[0]).contains(at)),
            "{call}"
        );
        assert_eq!(world.committed_offset(P1), Some(2));
    }
}

#[test]
fn a_first_start_waits_until_the_object_store_can_be_listed() {
    let world = World::with_events(20);
    world.fail("list", 5, ErrorClass::Retriable);
    world.run_well(&config(""), reading_with_patience());
    assert_eq!(world.count("event Postponed"), 5);
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
}

#[test]
fn a_fatal_error_of_a_client_ends_the_worker_with_its_name() {
    for call in [
        "describe_topic",
        "init_transactions",
        "committed",
        "bounds",
        "poll",
    ] {
        let world = stopped();
        world.fail(call, 1, ErrorClass::Fatal);
        let error = fails(&world);
        assert!(matches!(error, WorkerError::Kafka(_)), "{error}");
        let message = error.to_string();
        assert!(message.contains(call) || call == "poll", "{message}");
        assert!(message.contains("SCRIPTED"), "{message}");
        assert!(message.contains("may be started again"), "{message}");
        world.run_well(&config(""), reading());
        assert_eq!(world.count("event Recovered"), 1, "{call}");
    }
}

#[test]
fn an_assignment_that_is_lost_before_it_is_taken_is_not_an_error() {
    for call in ["accept", "start_at"] {
        let world = stopped();
        world.append_events(20..40);
        let at = world.committed_offset(P0);
        world.fail(call, 1, ErrorClass::Fatal);
        // Whoever had it before has left it settled: without a restore, the stop is clean all the same.
        let exit = world.run(&config(""), reading());
        let is_clean = matches!(exit, Exit::Stopped);
        assert!(is_clean || call == "accept", "{call}: {exit:?}");
        assert_eq!(world.committed_offset(P0), at);
    }
}

#[test]
fn an_owner_that_finds_another_ones_commit_recovers_from_it() {
    let calm = {
        let world = World::with_events(60);
        world.run_well(&config(""), reading());
        world.outputs(P0)
    };
    for nth in [1, 3, 6] {
        let world = World::with_events(60);
        let other = Fault::fails(ErrorClass::OutcomeUnknown).and_before(|inner| {
            inner.edit_commit_record(P0, |record| {
                record.owner = "other".into();
                record.term += 7;
            });
        });
        world.meet("commit_transaction", nth, other);
        world.run_well(&config(""), reading_with_patience());
        assert_eq!(world.count("event SetBack"), 1);
        let record = world.lock().commit_record(P0);
        assert_eq!((record.term, record.owner.as_str()), (9, "run-1"));
        assert!(world.outputs(P0) == calm);
    }
}

#[test]
fn a_commit_that_vanished_is_refused_not_replaced() {
    let world = World::with_events(60);
    let reset = Fault::fails(ErrorClass::OutcomeUnknown).and_before(|inner| {
        inner.committed.clear();
    });
    world.meet("commit_transaction", 4, reset);
    let error = world.run(&config(""), reading_with_patience()).error();
    let WorkerError::Refused { reason, .. } = error else {
        panic!("{error}");
    };
    assert!(matches!(reason, Refusal::CommitMissing { .. }), "{reason}");
}

#[test]
fn foreign_metadata_found_after_an_unknown_outcome_is_refused() {
    let world = World::with_events(60);
    let foreign = Fault::fails(ErrorClass::OutcomeUnknown).and_before(|inner| {
        inner.committed.get_mut(&P0).expect("committed").metadata = "hello".into();
    });
    world.meet("commit_transaction", 2, foreign);
    let error = world.run(&config(""), reading_with_patience()).error();
    let WorkerError::Refused { reason, .. } = error else {
        panic!("{error}");
    };
    let foreign = matches!(reason, Refusal::CommitRecord(CommitRecordError::Foreign(_)));
    assert!(foreign, "{reason}");
}

#[test]
fn a_refusal_rests_on_what_is_true_now() {
    // Between the first look and the second one the offset is repaired (or another owner commits).
    let world = stopped();
    let good = world.lock().committed.clone();
    world
        .lock()
        .committed
        .get_mut(&P0)
        .expect("committed")
        .metadata = "hello".into();
    let repair = Fault::default().and_before(move |inner| inner.committed = good);
    world.meet("committed", 1, repair);
    world.run_well(&config(""), reading_with_patience());
    assert_eq!(world.count("event Postponed"), 1);
    assert_eq!(world.count("event Recovered"), 1);
}

#[test]
fn a_transaction_that_was_torn_is_an_error_not_a_panic() {
    // Two partitions in one transaction; one offset is there, the other is not: a stray EndTxn.
    let world = World::with_events(20);
    world.lock().append(P1, 0, "1");
    let torn = Fault::default().and_before(|inner| {
        let mut older = inner
            .transactions
            .iter()
            .rev()
            .skip(1)
            .flat_map(|t| &t.offsets);
        let offset = older
            .find(|offset| offset.tp.partition == P1)
            .expect("one")
            .clone();
        let committed = inner.committed.get_mut(&P1).expect("committed");
        (committed.offset, committed.metadata) = (offset.offset, offset.metadata);
    });
    let script = vec![
        assign(&[P0, P1]),
        Step::Read,
        Step::Wait(500),
        act(|inner| {
            inner.append(P0, 200, "1");
            inner.append(P1, 200, "1");
            // The first transaction has one partition; after its abort there is one with both.
            inner.meet(
                "commit_transaction",
                0,
                Fault::fails(ErrorClass::RequiresAbort),
            );
            let unknown = Fault::fails_after(ErrorClass::OutcomeUnknown);
            inner.meet("commit_transaction", 0, unknown);
            inner.meet("committed", 0, torn);
        }),
        Step::Wait(500),
    ];
    let exit = world.run(&config("checkpoint = { interval_ms = 60000 }"), script);
    assert!(matches!(exit, Exit::Failed(_)), "{exit:?}");
}

#[test]
fn openings_that_are_fenced_again_and_again_name_the_ordinal() {
    let world = World::with_events(20);
    world.fail("commit_opening", 9, ErrorClass::Fenced);
    let mut script = reading();
    script.push(Step::Wait(20_000));
    let error = world.run(&config(""), script).error();
    assert!(matches!(error, WorkerError::FencedRepeatedly(_)), "{error}");
    assert_eq!(world.transaction_count(), 0);
}

#[test]
fn being_fenced_again_and_again_names_the_ordinal() {
    let world = World::with_events(20);
    world.fail("commit_transaction", 9, ErrorClass::Fenced);
    // Marks succeed between them: that is no sign that the ordinal is ours alone.
    let mut script = reading();
    script.push(Step::Wait(20_000));
    let error = world.run(&config(""), script).error();
    assert!(matches!(error, WorkerError::FencedRepeatedly(_)), "{error}");
    let message = error.to_string();
    assert!(message.contains("`processor-0`"), "{message}");
    assert!(message.contains("worker.ordinal"), "{message}");
    assert_eq!(world.count("init_transactions"), 9);
}

#[test]
fn being_fenced_now_and_then_is_survived() {
    let world = World::with_events(60);
    for round in 0..12 {
        let spared = u64::from(round % 4 == 3);
        world.meet(
            "commit_transaction",
            spared,
            Fault::fails(ErrorClass::Fenced),
        );
    }
    let mut script = reading();
    for index in 60..100 {
        script.push(act(move |inner| fake::append_varied(inner, P0, index)));
        script.push(Step::Wait(150));
    }
    world.run_well(&config(""), script);
    assert_eq!(world.count("event Resolved"), 12);
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
    world.outputs(P0);
}

fn record(offset: i64) -> ConsumedRecord {
    ConsumedRecord {
        offset: Offset(offset),
        timestamp: LogTimeMs(fake::T0 * 1000),
        key: None,
        value: Some("garbage".into()),
        headers: Vec::new(),
    }
}

fn delivered(offsets: &[i64]) -> Step {
    Step::Give(Polled::Records {
        partition: P0,
        records: offsets.iter().map(|&offset| record(offset)).collect(),
    })
}

#[test]
fn a_record_below_the_position_is_disorder() {
    for offsets in [&[3][..], &[3, 30], &[30, 3], &[30, 31, 31], &[30, 32, 31]] {
        let world = World::with_events(20);
        let script = vec![assign(&[P0]), Step::Read, delivered(offsets)];
        let error = world.run(&config(""), script).error();
        assert!(
            matches!(error, WorkerError::Disorder { .. }),
            "{offsets:?}: {error}"
        );
        assert!(
            error.to_string().contains("the client is broken"),
            "{error}"
        );
    }
}

#[test]
fn a_record_below_the_position_is_disorder_during_a_replay_too() {
    for offsets in [&[15, 14][..], &[14, 14]] {
        let world = World::with_events(20);
        world.run(
            &config("checkpoint = { interval_ms = 60000 }"),
            reading_then_crash(),
        );
        let script = vec![assign(&[P0]), delivered(offsets), Step::Read];
        let error = world.run(&config(""), script).error();
        assert!(
            matches!(error, WorkerError::Disorder { .. }),
            "{offsets:?}: {error}"
        );
    }
}

#[test]
fn records_of_a_partition_that_is_not_owned_are_left_alone() {
    let world = World::with_events(20);
    world.run_well(&config(""), vec![delivered(&[1, 2]), Step::Wait(500)]);
    assert_eq!(world.committed_offset(P0), None);
}

#[test]
fn an_empty_poll_of_records_is_nothing() {
    let world = World::with_events(20);
    world.run_well(&config(""), vec![assign(&[P0]), delivered(&[]), Step::Read]);
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
}

#[test]
fn a_failing_disk_ends_the_worker_and_a_restart_goes_on() {
    for call in ["state.apply", "state.get", "state.drop_partition"] {
        let world = stopped();
        world.append_events(20..40);
        world.fail(call, 1, ErrorClass::Fatal);
        let error = fails(&world);
        assert!(matches!(error, WorkerError::State(_)), "{call}: {error}");
        assert!(error.to_string().contains("No space left"), "{error}");
        world.run_well(&config(""), reading());
        assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
        world.outputs(P0);
    }
}

#[test]
fn a_failing_disk_at_a_first_start_ends_the_worker() {
    let world = World::with_events(20);
    world.fail("state.drop_partition", 1, ErrorClass::Fatal);
    assert!(matches!(fails(&world), WorkerError::State(_)));
    assert_eq!(world.committed_offset(P0), None);
}

#[test]
fn a_release_that_fails_is_only_told() {
    let world = stopped();
    world.fail("release", 1, ErrorClass::Fatal);
    let mut script = reading();
    script.push(fake::revoke(&[P0]));
    world.run_well(&config(""), script);
    assert_eq!(world.count("event Retrying"), 1);
}

#[test]
fn a_name_that_commit_records_cannot_carry_is_refused_before_the_start() {
    for name in ["", "a b", "naïve", &"x".repeat(41)] {
        let world = World::with_events(1);
        let parts = world.parts(name);
        let refused = Worker::new(config(""), parts).err();
        let error = refused.expect("the name is refused");
        assert!(matches!(error, WorkerError::Incarnation(_)), "{error}");
        assert!(error.to_string().contains("1 to 40"), "{error}");
    }
}
