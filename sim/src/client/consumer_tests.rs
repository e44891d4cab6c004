use super::consumer::ConsumerActor;
use super::queries::{Answer, Question};
use super::script::{Caught, Script, TOPIC, directory, settings, tp};
use super::settings::ClientSettings;
use crate::kafka::protocol::{
    Batch, BrokerId, ErrorCode, FetchedPartition, JoinedGroup, LogTimeMs, Offset, PartitionId,
    Payload, Record, Request, Response,
};
use processor::io::{self, ErrorClass, KafkaResult, Polled};
use std::sync::Arc;
use std::task::Poll;

const P0: PartitionId = PartitionId(0);

fn poll(script: &mut Script<ConsumerActor>) -> KafkaResult<Polled> {
    match script.call(|actor, now, fx| actor.poll(now, fx)) {
        Poll::Ready(polled) => polled,
        Poll::Pending => {
            script.call(|actor, now, _| actor.end_poll(now));
            Ok(Polled::TimedOut)
        }
    }
}

/// A consumer that owns partition 0 and starts at 10.
fn started() -> Script<ConsumerActor> {
    started_with(settings())
}

fn started_with(settings: ClientSettings) -> Script<ConsumerActor> {
    let mut script = idle(settings);
    start(&mut script, 10);
    script
}

fn idle(settings: ClientSettings) -> Script<ConsumerActor> {
    let actor = ConsumerActor::new("g", directory(), Arc::new(settings), 0);
    let mut script = Script::new(actor);
    script.call(|actor, now, fx| actor.subscribe(now, TOPIC, fx));
    let join = script.expect("JoinGroup");
    let joined = JoinedGroup {
        generation: 1,
        member_id: "m".into(),
        leader: "other".into(),
        members: Vec::new(),
    };
    script.answer(&join, Response::JoinGroup(Ok(joined)));
    let sync = script.expect("SyncGroup");
    script.answer(&sync, Response::SyncGroup(Ok(vec![P0])));
    assert_eq!(poll(&mut script), Ok(Polled::Assigned(vec![P0])));
    script
        .call(|actor, now, fx| actor.accept(now, &[P0], fx))
        .expect("offered");
    script
}

fn start(script: &mut Script<ConsumerActor>, offset: i64) {
    script
        .call(|actor, now, fx| actor.start_at(now, P0, Offset(offset), fx))
        .expect("owned");
}

fn fetched(base: i64, records: usize, last_stable: i64) -> Response {
    let record = Record {
        timestamp: LogTimeMs(0),
        key: None,
        value: None,
        headers: Vec::new(),
    };
    let batch = Batch {
        base_offset: Offset(base),
        leader_epoch: 0,
        producer: None,
        payload: Payload::Records(vec![record; records]),
    };
    let batches = if records == 0 {
        Vec::new()
    } else {
        vec![Arc::new(batch)]
    };
    Response::Fetch(vec![FetchedPartition {
        tp: tp(0),
        error: None,
        high_watermark: Offset(last_stable),
        last_stable_offset: Offset(last_stable),
        log_start_offset: Offset(0),
        aborted: Vec::new(),
        batches,
    }])
}

fn wanted(caught: &Caught) -> i64 {
    let Request::Fetch { partitions, .. } = &caught.request else {
        panic!("not a Fetch: {caught:?}");
    };
    partitions[0].offset.0
}

fn offsets(polled: KafkaResult<Polled>) -> Vec<i64> {
    match polled {
        Ok(Polled::Records { records, .. }) => records.iter().map(|r| r.offset.0).collect(),
        other => panic!("no records: {other:?}"),
    }
}

fn end_at(offset: i64) -> KafkaResult<Polled> {
    Ok(Polled::EndOfPartition {
        partition: P0,
        position: Offset(offset),
    })
}

#[test]
fn the_end_is_told_once_after_all_records_before_it() {
    let mut script = started();
    let fetch = script.expect("Fetch");
    assert_eq!(wanted(&fetch), 10);
    script.answer(&fetch, fetched(9, 3, 12));
    assert_eq!(offsets(poll(&mut script)), [10, 11]);
    assert_eq!(poll(&mut script), end_at(12));
    assert_eq!(poll(&mut script), Ok(Polled::TimedOut));
    let fetch = script.expect("Fetch");
    assert_eq!(wanted(&fetch), 12);
    script.answer(&fetch, fetched(12, 0, 12));
    assert_eq!(poll(&mut script), Ok(Polled::TimedOut), "told already");
    let fetch = script.expect("Fetch");
    script.answer(&fetch, fetched(12, 1, 13));
    assert_eq!(offsets(poll(&mut script)), [12]);
    assert_eq!(poll(&mut script), end_at(13));
}

#[test]
fn the_end_is_not_told_while_the_newest_answer_knows_of_more() {
    let mut script = started();
    let fetch = script.expect("Fetch");
    script.answer(&fetch, fetched(10, 2, 20));
    assert_eq!(offsets(poll(&mut script)), [10, 11]);
    assert_eq!(poll(&mut script), Ok(Polled::TimedOut));
}

#[test]
fn a_new_start_drops_what_was_fetched_for_the_old_one() {
    let mut script = started();
    let old = script.expect("Fetch");
    start(&mut script, 5);
    script.answer(&old, fetched(10, 2, 12));
    assert_eq!(poll(&mut script), Ok(Polled::TimedOut));
    let fetch = script.expect("Fetch");
    assert_eq!(wanted(&fetch), 5);
    script.answer(&fetch, fetched(5, 1, 12));
    start(&mut script, 7);
    assert_eq!(poll(&mut script), Ok(Polled::TimedOut));
}

#[test]
fn a_paused_partition_keeps_what_was_fetched() {
    let mut script = started();
    let fetch = script.expect("Fetch");
    script.answer(&fetch, fetched(10, 2, 12));
    script
        .call(|actor, _, _| actor.set_paused("pause", &[P0], true))
        .expect("owned");
    assert_eq!(poll(&mut script), Ok(Polled::TimedOut));
    script
        .call(|actor, _, _| actor.set_paused("resume", &[P0], false))
        .expect("owned");
    assert_eq!(offsets(poll(&mut script)), [10, 11]);
}

#[test]
fn an_offset_that_does_not_exist_is_fatal_and_names_the_partition() {
    let mut script = started();
    let fetch = script.expect("Fetch");
    let Response::Fetch(mut list) = fetched(10, 0, 5) else {
        unreachable!("it is a Fetch answer");
    };
    list[0].error = Some(ErrorCode::OffsetOutOfRange);
    script.answer(&fetch, Response::Fetch(list));
    let error = poll(&mut script).expect_err("no such offset");
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.code.starts_with("OFFSET_OUT_OF_RANGE: partition 0"));
}

#[test]
fn a_fetch_follows_the_leader() {
    let mut script = started();
    let fetch = script.expect("Fetch");
    assert_eq!(fetch.to, BrokerId(1));
    let Response::Fetch(mut list) = fetched(10, 0, 10) else {
        unreachable!("it is a Fetch answer");
    };
    list[0].error = Some(ErrorCode::NotLeaderOrFollower);
    script.answer(&fetch, Response::Fetch(list));
    script.pass_ms(150);
    let metadata = script.take_any();
    assert!(matches!(metadata.request, Request::Metadata));
    script.answer(&metadata, super::script::metadata(3, 1));
    script.pass_ms(600);
    assert_eq!(script.expect("Fetch").to, BrokerId(3));
}

#[test]
fn a_slow_application_stops_the_prefetch() {
    let mut script = started_with(ClientSettings {
        queued_max_records: 3,
        ..settings()
    });
    for base in [10, 12] {
        let fetch = script.expect("Fetch");
        script.answer(&fetch, fetched(base, 2, 100));
    }
    assert!(!script.pending().contains(&"Fetch".to_string()));
    poll(&mut script).expect("records");
    assert!(script.pending().contains(&"Fetch".to_string()));
}

#[test]
fn committed_offsets_are_waited_for_while_they_are_unstable() {
    let mut script = idle(settings());
    let question = Question::Committed(vec![io::TopicPartition {
        topic: TOPIC.into(),
        partition: P0,
    }]);
    script.call(|actor, now, fx| actor.ask(now, TOPIC.into(), question, fx));
    let ask = script.expect("OffsetFetch");
    let unstable = ErrorCode::UnstableOffsetCommit;
    script.answer(&ask, Response::OffsetFetch(Err(unstable)));
    assert!(script.actor.answer().is_none());
    script.pass_ms(150);
    let ask = script.expect("OffsetFetch");
    let list = vec![(tp(0), Some((Offset(4), "meta".into())))];
    script.answer(&ask, Response::OffsetFetch(Ok(list)));
    let Some(Ok(Answer::Committed(list))) = script.actor.answer() else {
        panic!("no answer");
    };
    let committed = list[0].as_ref().expect("committed");
    assert_eq!(
        (committed.offset, &*committed.metadata),
        (Offset(4), "meta")
    );
}

#[test]
fn bounds_are_the_earliest_and_the_last_stable_offset() {
    let mut script = idle(settings());
    let question = Question::Bounds(P0);
    script.call(|actor, now, fx| actor.ask(now, TOPIC.into(), question, fx));
    for offset in [2, 9] {
        let ask = script.expect("ListOffsets");
        script.answer(&ask, Response::ListOffsets(Ok(Offset(offset))));
    }
    let Some(Ok(Answer::Bounds(bounds))) = script.actor.answer() else {
        panic!("no answer");
    };
    assert_eq!(
        (bounds.earliest, bounds.last_stable),
        (Offset(2), Offset(9))
    );
}
