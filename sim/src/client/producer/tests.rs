use super::ProducerActor;
use crate::client::group::GroupIdentity;
use crate::client::script::{Caught, Script, TOPIC, directory, produce_error, settings, tp};
use crate::kafka::protocol::{
    ErrorCode, LogTimeMs, Offset, PartitionId, Record, Request, Response,
};
use bytes::Bytes;
use processor::io::{ErrorClass, KafkaResult, OffsetAndMetadata};
use std::sync::Arc;
use std::task::Poll;

fn record() -> Record {
    Record {
        timestamp: LogTimeMs(1),
        key: Some(Bytes::from_static(b"k")),
        value: Some(Bytes::from_static(b"v")),
        headers: Vec::new(),
    }
}

fn send(script: &mut Script<ProducerActor>, partition: i32) {
    script
        .call(|actor, now, fx| {
            actor.enqueue(now, TOPIC, Some(PartitionId(partition)), record(), fx)
        })
        .expect("the producer is well");
}

fn producer(id: Option<&str>) -> Script<ProducerActor> {
    Script::new(ProducerActor::new(id, directory(), Arc::new(settings()), 0))
}

/// A producer with an open transaction.
fn open() -> Script<ProducerActor> {
    let mut script = producer(Some("t"));
    let first = script.call(|actor, now, fx| actor.poll_init(now, fx));
    assert!(first.is_pending());
    assert!(script.next().is_none());
    script.pass_ms(200);
    assert!(script.next().is_none());
    assert_eq!(
        script.call(|actor, now, fx| actor.poll_init(now, fx)),
        Poll::Ready(Ok(()))
    );
    script.actor.begin().expect("ready");
    script
}

fn commit(script: &mut Script<ProducerActor>) -> Poll<KafkaResult<()>> {
    script.call(|actor, now, fx| actor.poll_commit(now, fx))
}

fn abort(script: &mut Script<ProducerActor>) -> Poll<KafkaResult<()>> {
    script.call(|actor, now, fx| actor.poll_abort(now, fx))
}

fn base_sequence(caught: &Caught) -> i32 {
    let Request::Produce { batches, .. } = &caught.request else {
        panic!("not a Produce: {caught:?}");
    };
    batches[0].1.producer.expect("stamped").base_sequence
}

fn class(result: &Poll<KafkaResult<()>>) -> Option<ErrorClass> {
    match result {
        Poll::Ready(Err(error)) => Some(error.class),
        _ => None,
    }
}

/// A transaction with one record produced, committing, EndTxn sent.
fn ending() -> (Script<ProducerActor>, Caught) {
    let mut script = open();
    send(&mut script, 0);
    assert!(commit(&mut script).is_pending());
    let add = script.expect("AddPartitionsToTxn");
    script.answer(&add, Response::AddPartitionsToTxn(Ok(())));
    let produce = script.expect("Produce");
    script.answer(&produce, Response::Produce(vec![(tp(0), Ok(Offset(0)))]));
    let end = script.expect("EndTxn");
    (script, end)
}

#[test]
fn partitions_are_registered_together_before_anything_is_produced_to_them() {
    let mut script = open();
    send(&mut script, 0);
    send(&mut script, 2);
    script.pass_ms(50);
    let add = script.expect("AddPartitionsToTxn");
    let Request::AddPartitionsToTxn { partitions, .. } = &add.request else {
        unreachable!("just expected");
    };
    assert_eq!(*partitions, [tp(0), tp(2)]);
    assert!(script.pending().is_empty());
    script.answer(&add, Response::AddPartitionsToTxn(Ok(())));
    assert_eq!(script.pending(), ["Produce", "Produce"]);
}

#[test]
fn a_partition_that_the_former_transaction_holds_up_is_registered_again() {
    let mut script = open();
    send(&mut script, 0);
    assert!(commit(&mut script).is_pending());
    let add = script.expect("AddPartitionsToTxn");
    let busy = ErrorCode::ConcurrentTransactions;
    script.answer(&add, Response::AddPartitionsToTxn(Err(busy)));
    script.pass_ms(50);
    script.expect("AddPartitionsToTxn");
}

#[test]
fn a_commit_flushes_before_it_ends_the_transaction() {
    let (mut script, end) = ending();
    assert!(commit(&mut script).is_pending());
    script.answer(&end, Response::EndTxn(Ok(())));
    assert_eq!(commit(&mut script), Poll::Ready(Ok(())));
    assert!(!script.actor.is_tainted());
}

#[test]
fn an_empty_transaction_ends_without_a_word() {
    let mut script = open();
    assert_eq!(commit(&mut script), Poll::Ready(Ok(())));
    assert!(script.pending().is_empty());
}

#[test]
fn an_unanswered_end_txn_is_sent_again_for_ever_and_taints_the_producer() {
    let (mut script, _lost) = ending();
    script.pass_ms(1_200);
    assert!(script.actor.is_tainted());
    let _lost = script.expect("EndTxn");
    assert!(script.was_noted("end-txn-resent"));
    script.pass_ms(1_200);
    let end = script.expect("EndTxn");
    assert!(commit(&mut script).is_pending());
    script.answer(&end, Response::EndTxn(Ok(())));
    assert_eq!(commit(&mut script), Poll::Ready(Ok(())));
    assert!(script.actor.is_tainted());
}

#[test]
fn a_commit_that_was_given_up_goes_on_and_is_picked_up_by_the_next_call() {
    let (mut script, end) = ending();
    // The call's future is gone; nobody polls while the answer comes.
    script.answer(&end, Response::EndTxn(Ok(())));
    assert!(script.actor.begin().is_err());
    assert_eq!(commit(&mut script), Poll::Ready(Ok(())));
    assert!(script.actor.begin().is_ok());
}

#[test]
fn concurrent_transactions_are_waited_for_without_a_taint() {
    let (mut script, end) = ending();
    let busy = ErrorCode::ConcurrentTransactions;
    script.answer(&end, Response::EndTxn(Err(busy)));
    script.pass_ms(50);
    let end = script.expect("EndTxn");
    script.answer(&end, Response::EndTxn(Ok(())));
    assert_eq!(commit(&mut script), Poll::Ready(Ok(())));
    assert!(!script.actor.is_tainted());
}

#[test]
fn a_fenced_producer_is_dead() {
    let (mut script, end) = ending();
    let fenced = ErrorCode::InvalidProducerEpoch;
    script.answer(&end, Response::EndTxn(Err(fenced)));
    assert_eq!(class(&commit(&mut script)), Some(ErrorClass::Fenced));
    assert_eq!(class(&abort(&mut script)), Some(ErrorClass::Fenced));
    assert!(script.was_noted("producer-fenced-seen"));
}

#[test]
fn an_invalid_transaction_state_is_fatal() {
    let (mut script, end) = ending();
    script.answer(&end, Response::EndTxn(Err(ErrorCode::InvalidTxnState)));
    assert_eq!(class(&commit(&mut script)), Some(ErrorClass::Fatal));
}

#[test]
fn a_lost_produce_takes_the_later_ones_with_it_and_all_go_again_in_order() {
    let mut script = producer(None);
    send(&mut script, 0);
    assert!(script.next().is_none());
    script.pass_ms(10);
    send(&mut script, 0);
    script.pass_ms(10);
    let first = script.expect("Produce");
    let second = script.expect("Produce");
    assert_eq!((base_sequence(&first), base_sequence(&second)), (0, 1));
    script.pass_ms(1_500);
    let again = script.expect("Produce");
    let behind = script.expect("Produce");
    assert_eq!((base_sequence(&again), base_sequence(&behind)), (0, 1));
    // An answer from before the disconnect is nobody's.
    script.answer(&first, Response::Produce(vec![(tp(0), Ok(Offset(0)))]));
    assert_eq!(script.actor.outstanding(), 2);
    let duplicate = ErrorCode::DuplicateSequenceNumber;
    script.answer(&again, produce_error(0, duplicate));
    script.answer(&behind, Response::Produce(vec![(tp(0), Ok(Offset(1)))]));
    assert_eq!(script.actor.outstanding(), 0);
}

#[test]
fn a_sequence_out_of_order_fails_the_transaction_and_the_abort_takes_a_new_epoch() {
    let mut script = open();
    send(&mut script, 0);
    script.pass_ms(10);
    let add = script.expect("AddPartitionsToTxn");
    script.answer(&add, Response::AddPartitionsToTxn(Ok(())));
    let produce = script.expect("Produce");
    let code = ErrorCode::OutOfOrderSequenceNumber;
    script.answer(&produce, produce_error(0, code));
    assert_eq!(class(&commit(&mut script)), Some(ErrorClass::RequiresAbort));
    assert!(abort(&mut script).is_pending());
    assert!(
        script.pending().is_empty(),
        "no EndTxn, InitProducerId instead"
    );
    assert_eq!(abort(&mut script), Poll::Ready(Ok(())));
    assert!(script.was_noted("producer-epoch-bumped"));
    script.actor.begin().expect("usable again");
}

#[test]
fn the_plain_producer_renews_its_identity_and_starts_its_sequences_anew() {
    let mut script = producer(None);
    for _ in 0..2 {
        send(&mut script, 0);
        script.pass_ms(10);
    }
    let first = script.expect("Produce");
    script.answer(&first, Response::Produce(vec![(tp(0), Ok(Offset(0)))]));
    send(&mut script, 0);
    script.pass_ms(10);
    let next = script.expect("Produce");
    assert_eq!(base_sequence(&next), 2);
    let code = ErrorCode::OutOfOrderSequenceNumber;
    script.answer(&next, produce_error(0, code));
    script.pass_ms(500);
    assert_eq!(base_sequence(&script.expect("Produce")), 0);
    assert_eq!(script.actor.renewals(), 1);
}

#[test]
fn a_delivery_timeout_requires_an_abort() {
    let mut script = open();
    send(&mut script, 0);
    script.pass_ms(11_000);
    assert!(script.was_noted("delivery-timeout"));
    assert_eq!(class(&commit(&mut script)), Some(ErrorClass::RequiresAbort));
}

fn start_offsets(script: &mut Script<ProducerActor>) {
    let group = GroupIdentity {
        group: "g".into(),
        topic: TOPIC.into(),
        member_id: "m".into(),
        generation: 3,
    };
    let offsets = [OffsetAndMetadata {
        tp: processor::io::TopicPartition {
            topic: TOPIC.into(),
            partition: PartitionId(1),
        },
        offset: Offset(5),
        metadata: "record".into(),
    }];
    script
        .call(|actor, now, fx| actor.start_offsets(now, &offsets, &group, fx))
        .expect("open");
}

#[test]
fn offsets_are_added_and_then_committed_under_the_members_identity() {
    let mut script = open();
    start_offsets(&mut script);
    let add = script.expect("AddOffsetsToTxn");
    script.answer(&add, Response::AddOffsetsToTxn(Ok(())));
    let offsets = script.expect("TxnOffsetCommit");
    let moved = ErrorCode::NotCoordinator;
    script.answer(&offsets, Response::TxnOffsetCommit(Err(moved)));
    script.pass_ms(300);
    let again = script.expect("TxnOffsetCommit");
    let Request::TxnOffsetCommit {
        generation,
        member_id,
        offsets,
        ..
    } = &again.request
    else {
        unreachable!("just expected");
    };
    assert_eq!((*generation, &**member_id), (3, "m"));
    assert_eq!((offsets[0].tp, offsets[0].offset), (tp(1), Offset(5)));
    script.answer(&again, Response::TxnOffsetCommit(Ok(())));
    assert_eq!(script.actor.poll_offsets(), Poll::Ready(Ok(())));
}

#[test]
fn a_member_of_an_old_generation_has_to_abort() {
    let mut script = open();
    start_offsets(&mut script);
    let add = script.expect("AddOffsetsToTxn");
    script.answer(&add, Response::AddOffsetsToTxn(Ok(())));
    let offsets = script.expect("TxnOffsetCommit");
    let stale = ErrorCode::IllegalGeneration;
    script.answer(&offsets, Response::TxnOffsetCommit(Err(stale)));
    let result = script.actor.poll_offsets();
    assert_eq!(class(&result), Some(ErrorClass::RequiresAbort));
    assert!(abort(&mut script).is_pending());
    let end = script.expect("EndTxn");
    assert!(matches!(end.request, Request::EndTxn { commit: false, .. }));
    script.answer(&end, Response::EndTxn(Ok(())));
    assert_eq!(abort(&mut script), Poll::Ready(Ok(())));
}

#[test]
fn an_abort_drops_what_waits_and_waits_for_what_is_under_way() {
    let mut script = open();
    send(&mut script, 0);
    script.pass_ms(10);
    let add = script.expect("AddPartitionsToTxn");
    script.answer(&add, Response::AddPartitionsToTxn(Ok(())));
    let produce = script.expect("Produce");
    send(&mut script, 1);
    assert!(abort(&mut script).is_pending());
    assert!(script.pending().is_empty());
    script.answer(&produce, Response::Produce(vec![(tp(0), Ok(Offset(0)))]));
    let end = script.expect("EndTxn");
    script.answer(&end, Response::EndTxn(Ok(())));
    assert_eq!(abort(&mut script), Poll::Ready(Ok(())));
}
