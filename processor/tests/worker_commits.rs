//! The commit protocol: outputs and offsets together or not at all, whatever the brokers answer.

mod fake;

use fake::{
    Fault, P0, P1, Step, World, act, assign, config, header, reading, reading_with_patience,
    without_owner,
};
use processor::core::{Digest, Fingerprint};
use processor::io::{ErrorClass, ProducerRecord};
use processor::units::{Offset, Watermark};
use processor::worker::{CommitRecord, METADATA_BYTES_MAX, VERSION};

const EVENTS: i64 = 60;
/// All calls of a transaction that are answered.
const CALLS: [&str; 3] = ["send", "send_offsets_to_transaction", "commit_transaction"];

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
fn outputs_and_offsets_become_visible_in_one_transaction() {
    let world = World::with_events(EVENTS);
    world.run_well(&config(""), reading());
    let inner = world.lock();
    assert!(inner.transactions.len() > 5);
    let mut outputs = 0;
    for transaction in &inner.transactions {
        outputs += transaction.records.len() as u64;
        let [offset] = &transaction.offsets[..] else {
            panic!("one partition, one offset");
        };
        let record = CommitRecord::decode(&offset.metadata).expect("the worker's own");
        assert_eq!(
            record.next_sequence, outputs,
            "the record counts what is visible"
        );
        for output in &transaction.records {
            let cause: i64 = header(output, "cause-offset").parse().expect("a number");
            assert!(
                cause < offset.offset.0,
                "no output before its cause is committed"
            );
            assert_eq!(header(output, "owner"), "1/run-1");
        }
    }
}

#[test]
fn partitions_are_committed_together() {
    let world = World::with_events(20);
    {
        let mut inner = world.lock();
        for index in 0..20 {
            fake::append_varied(&mut inner, P1, index);
        }
    }
    let slow = config("commit = { interval_ms = 5000 }\ncheckpoint = { interval_ms = 60000 }");
    world.run_well(
        &slow,
        vec![assign(&[P0, P1]), Step::Read, Step::Wait(6_000)],
    );
    let inner = world.lock();
    assert!(
        inner.transactions.iter().any(|transaction| {
            transaction.offsets.len() == 2 && !transaction.records.is_empty()
        })
    );
    drop(inner);
    assert_eq!(world.outputs(P0).len(), world.outputs(P1).len());
}

#[test]
fn without_news_there_is_no_transaction() {
    let world = World::with_events(20);
    world.run_well(&config(""), reading());
    let before = world.transaction_count();
    world.run_well(
        &config(""),
        vec![assign(&[P0]), Step::Read, Step::Wait(60_000)],
    );
    assert_eq!(world.transaction_count(), before);
}

#[test]
fn an_abort_keeps_the_state_and_sends_the_same_outputs_again_byte_for_byte() {
    for call in CALLS {
        let world = World::with_events(EVENTS);
        let after = if call == "send" { 7 } else { 3 };
        world.meet(call, after, Fault::fails(ErrorClass::RequiresAbort));
        world.run_well(&config(""), reading());
        assert_eq!(world.count("abort_transaction"), 1, "{call}");
        assert_eq!(world.count("event Aborted"), 1, "{call}");
        assert_eq!(
            world.count("init_transactions"),
            1,
            "{call}: the producer stays"
        );
        {
            let inner = world.lock();
            let aborted = &inner.aborted[0].records;
            let again = inner
                .transactions
                .iter()
                .find(|t| t.records.starts_with(aborted));
            assert!(again.is_some(), "{call}");
            assert!(call == "send" || !aborted.is_empty(), "{call}");
        }
        is_as_calm(&world, call);
    }
}

#[test]
fn an_abort_that_may_be_called_again_is_called_again() {
    let world = World::with_events(EVENTS);
    world.meet(
        "commit_transaction",
        3,
        Fault::fails(ErrorClass::RequiresAbort),
    );
    world.meet("abort_transaction", 0, Fault::fails(ErrorClass::Retriable));
    world.meet(
        "abort_transaction",
        0,
        Fault::fails_after(ErrorClass::Retriable),
    );
    world.run_well(&config(""), reading());
    assert_eq!(world.count("abort_transaction"), 3);
    assert_eq!(world.count("init_transactions"), 1);
    is_as_calm(&world, "abort");
}

#[test]
fn an_abort_that_fails_for_good_is_resolved_by_a_new_producer() {
    for class in [
        ErrorClass::Fenced,
        ErrorClass::Fatal,
        ErrorClass::OutcomeUnknown,
    ] {
        for fault in [Fault::fails(class), Fault::fails_after(class)] {
            let world = World::with_events(EVENTS);
            world.meet(
                "commit_transaction",
                3,
                Fault::fails(ErrorClass::RequiresAbort),
            );
            world.meet("abort_transaction", 0, fault);
            world.run_well(&config(""), reading());
            assert_eq!(world.count("event Resolved { committed: false }"), 1);
            is_as_calm(&world, "abort");
        }
    }
}

#[test]
fn whatever_an_opening_meets_the_partition_begins_once() {
    let classes = [
        ErrorClass::Fenced,
        ErrorClass::Fatal,
        ErrorClass::OutcomeUnknown,
        ErrorClass::RequiresAbort,
        ErrorClass::Retriable,
    ];
    for call in ["send_opening", "commit_opening"] {
        for class in classes {
            for takes_effect in [false, true] {
                if class == ErrorClass::RequiresAbort && takes_effect {
                    continue; // RequiresAbort says that nothing was committed
                }
                let what = format!("{call} {class:?} {takes_effect}");
                let world = World::with_events(EVENTS);
                let fault = match takes_effect {
                    true => Fault::fails_after(class),
                    false => Fault::fails(class),
                };
                world.meet(call, 0, fault);
                world.run_well(&config(""), reading_with_patience());
                assert!(world.count("commit_opening") <= 2, "{what}");
                is_as_calm(&world, &what);
            }
        }
    }
}

#[test]
fn a_retriable_commit_is_the_same_call_again_and_never_an_abort() {
    for call in ["send_offsets_to_transaction", "commit_transaction"] {
        for takes_effect in [false, true] {
            let world = World::with_events(EVENTS);
            for nth in [3, 0, 0] {
                let class = ErrorClass::Retriable;
                let fault = match takes_effect {
                    true => Fault::fails_after(class),
                    false => Fault::fails(class),
                };
                world.meet(call, nth, fault);
            }
            world.run_well(&config(""), reading());
            assert_eq!(world.count("event Retrying"), 3, "{call}");
            assert_eq!(world.count("sleep"), 3, "{call}: with a pause");
            assert_eq!(world.count("abort_transaction"), 0, "{call}");
            assert_eq!(world.count("init_transactions"), 1, "{call}");
            let others = world.count("commit_mark") + world.count("commit_opening");
            let committed = world.transaction_count() + others;
            assert_eq!(world.count("begin_transaction"), committed);
            is_as_calm(&world, call);
        }
    }
}

#[test]
fn an_unknown_outcome_is_decided_by_the_committed_offsets_after_a_new_producer() {
    for class in [
        ErrorClass::Fenced,
        ErrorClass::Fatal,
        ErrorClass::OutcomeUnknown,
    ] {
        for committed in [false, true] {
            // The very first transaction, one in the middle, and all of them.
            for (nth, times) in [(0, 1), (4, 1), (0, 6)] {
                let what = format!("{class:?} {committed} {nth} {times}");
                let world = World::with_events(EVENTS);
                for time in 0..times {
                    let fault = match committed {
                        true => Fault::fails_after(class),
                        false => Fault::fails(class),
                    };
                    world.meet("commit_transaction", if time == 0 { nth } else { 0 }, fault);
                }
                world.run_well(&config(""), reading_with_patience());
                let resolved = format!("event Resolved {{ committed: {committed} }}");
                assert_eq!(world.count(&resolved), times, "{what}");
                assert_eq!(world.count("abort_transaction"), 0, "{what}");
                is_resolved_in_order(&world);
                is_as_calm(&world, &what);
            }
        }
    }
}

/// Before each answer: a new producer first, then the question.
#[track_caller]
fn is_resolved_in_order(world: &World) {
    let inner = world.lock();
    for (at, line) in inner.journal.iter().enumerate() {
        if !line.starts_with("event Resolved") {
            continue;
        }
        let begun = inner.journal[..at]
            .iter()
            .rposition(|line| line == "commit_transaction");
        let since = &inner.journal[begun.expect("a commit before")..at];
        let new = since.iter().position(|line| line == "init_transactions");
        let asked = since.iter().position(|line| line == "committed");
        assert!(new.expect("a new producer") < asked.expect("a question"));
    }
}

#[test]
fn whatever_call_of_a_transaction_kills_the_producer_nothing_is_lost_or_doubled() {
    let calls = ["begin_transaction", CALLS[0], CALLS[1], CALLS[2]];
    let classes = [
        ErrorClass::Fenced,
        ErrorClass::Fatal,
        ErrorClass::OutcomeUnknown,
        ErrorClass::RequiresAbort,
        ErrorClass::Retriable,
    ];
    for call in calls {
        for class in classes {
            for takes_effect in [false, true] {
                for nth in [0, 2, 5] {
                    let what = format!("{call} {class:?} {takes_effect} {nth}");
                    let world = World::with_events(EVENTS);
                    let is_wrong = class == ErrorClass::RequiresAbort && takes_effect;
                    if is_wrong && call == "commit_transaction" {
                        continue; // RequiresAbort says that nothing was committed
                    }
                    let fault = match takes_effect {
                        true => Fault::fails_after(class),
                        false => Fault::fails(class),
                    };
                    world.meet(call, nth, fault);
                    world.run_well(&config(""), reading_with_patience());
                    is_as_calm(&world, &what);
                }
            }
        }
    }
}

#[test]
fn the_question_after_an_unknown_outcome_is_asked_until_it_is_answered() {
    let world = World::with_events(EVENTS);
    world.meet(
        "commit_transaction",
        3,
        Fault::fails_after(ErrorClass::OutcomeUnknown),
    );
    let asked_at_start = 1;
    world.meet(
        "committed",
        asked_at_start,
        Fault::fails(ErrorClass::Retriable),
    );
    world.fail("committed", 3, ErrorClass::Retriable);
    world.meet("init_transactions", 1, Fault::fails(ErrorClass::Retriable));
    world.run_well(&config(""), reading_with_patience());
    assert_eq!(world.count("event Resolved { committed: true }"), 1);
    is_as_calm(&world, "committed");
}

#[test]
fn a_tainted_producer_is_replaced_before_the_next_transaction() {
    for call in CALLS {
        let world = World::with_events(EVENTS);
        world.meet(call, 4, Fault::taints());
        world.run_well(&config(""), reading());
        // The fake itself sees that no tainted producer begins.
        assert_eq!(world.count("init_transactions"), 2, "{call}");
        assert_eq!(world.count("event ProducerReplaced"), 2, "{call}");
        is_as_calm(&world, call);
    }
}

#[test]
fn a_producer_tainted_by_an_abort_is_replaced_too() {
    let world = World::with_events(EVENTS);
    world.meet(
        "commit_transaction",
        3,
        Fault::fails(ErrorClass::RequiresAbort),
    );
    world.meet("abort_transaction", 0, Fault::taints());
    world.run_well(&config(""), reading());
    assert_eq!(world.count("init_transactions"), 2);
    is_as_calm(&world, "abort");
}

#[test]
fn the_longest_commit_record_is_within_one_kibibyte() {
    let incarnation = "x".repeat(40);
    let record = CommitRecord {
        version: VERSION,
        snapshot: format!("{:020}-{}-{incarnation}-{}", i64::MAX, u64::MAX, u64::MAX),
        snapshot_at: Offset(i64::MAX),
        next_sequence: u64::MAX,
        digest: Digest(u128::MAX),
        watermark: Some(Watermark(i64::MIN)),
        forced: Some((Offset(i64::MAX), Watermark(i64::MIN))),
        term: u64::MAX,
        owner: incarnation,
        partitions: u32::MAX,
        topic_id: "A".repeat(22),
        fingerprint: Fingerprint(u64::MAX),
        counters: [u64::MAX; 5],
    };
    let metadata = record.encode();
    assert!(metadata.len() <= METADATA_BYTES_MAX);
    assert_eq!(CommitRecord::decode(&metadata), Ok(record));
}

#[test]
fn a_partition_with_too_many_outputs_waits_for_its_commit() {
    let world = World::new();
    {
        let mut inner = world.lock();
        inner.batch = 30_000;
        for _ in 0..60_000 {
            inner.append_value(P0, 0, "?");
        }
    }
    let slow = config("commit = { interval_ms = 5000 }\ncheckpoint = { interval_ms = 60000 }");
    let mut script = vec![assign(&[P0]), Step::Wait(4_000)];
    script.push(act(|inner| inner.append(P0, 0, "1")));
    script.push(Step::Wait(6_000));
    world.run_well(&slow, script);
    let (pause, commit) = (world.places("pause"), world.places("commit_transaction"));
    let resume = world.places("resume [PartitionId(0)]");
    assert_eq!((pause.len(), resume.len()), (1, 1));
    assert!(
        commit.iter().any(|at| (pause[0]..resume[0]).contains(at)),
        "{pause:?} {commit:?} {resume:?}"
    );
    assert_eq!(world.committed_offset(P0), Some(60_001));
    assert_eq!(world.outputs(P0).len(), 60_000);
}

#[test]
fn a_partition_held_back_during_its_replay_goes_on_after_the_next_commit() {
    // Partition 0 fills the pending outputs while partition 1 is replayed: its delivery is paused, and
    // it has nothing to commit itself.
    let world = World::new();
    {
        let mut inner = world.lock();
        inner.batch = 30_000;
        for index in 0..30 {
            fake::append_varied(&mut inner, P1, index);
        }
    }
    world.run(
        &config("checkpoint = { interval_ms = 60000 }"),
        vec![assign(&[P1]), Step::Read, Step::Wait(500), Step::Crash],
    );
    let end = {
        let mut inner = world.lock();
        for _ in 0..60_000 {
            inner.append_value(P0, 0, "?");
        }
        let log = inner.logs.get_mut(&P1).expect("a log");
        log.fetchable -= 10; // not all is there at once
        log.last_stable
    };
    let slow = config("commit = { interval_ms = 5000 }\ncheckpoint = { interval_ms = 60000 }");
    let script = vec![
        assign(&[P0, P1]),
        Step::Wait(4_000),
        act(move |inner| inner.logs.get_mut(&P1).expect("a log").fetchable = end),
        act(|inner| inner.append(P1, 300, "1")),
        Step::Wait(20_000),
    ];
    world.run_well(&slow, script);
    assert_eq!(
        world.count("event Recovered"),
        1,
        "{}",
        world.count("pause")
    );
    assert_eq!(world.committed_offset(P1), Some(end + 1));
}

#[test]
fn outputs_differ_between_owners_only_in_the_owner() {
    let world = World::with_events(EVENTS);
    let slow = config("commit = { interval_ms = 10000 }\ncheckpoint = { interval_ms = 10000 }");
    // The first owner dies with an open transaction; the second sends the same.
    world.meet("commit_transaction", 0, Fault::crashes_before());
    world.run(&slow, vec![assign(&[P0]), Step::Read, Step::Wait(11_000)]);
    world.run_well(&slow, vec![assign(&[P0]), Step::Read, Step::Wait(11_000)]);
    let inner = world.lock();
    let open = &inner.aborted[0].records;
    let sent = &inner.transactions[0].records;
    assert_eq!(open.len(), sent.len());
    for (open, sent) in open.iter().zip(sent) {
        assert_eq!(without_owner(open), without_owner(sent));
        assert_eq!(header(open, "owner"), "1/run-1");
        assert_eq!(header(sent, "owner"), "1/run-2");
    }
}
