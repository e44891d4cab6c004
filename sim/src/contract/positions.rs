//! Positions of consumers: starting, pausing, going back, and offsets that are not there (any more).

use super::steps::{Member, PATIENCE, Start, commit, partition, producer, seen, topic};
use super::visibility::strings;
use super::wire::{ROUNDS_MAX, Wire, refused, same, tp, until};
use super::{ClusterUnderTest, Failure, Outcome};
use crate::kafka::protocol::ErrorCode;
use processor::io::{Consumer, ErrorClass};
use processor::units::{Offset, PartitionId};

const FIRST: PartitionId = PartitionId(0);

/// A topic of one partition with ten records, and a member that owns it and has no position.
async fn ten<C: ClusterUnderTest>(c: &mut C) -> Result<(super::Topic, Member<C>), Failure> {
    let topic = topic(c, 1).await?;
    let group = c.name("g");
    let values: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    for value in &values {
        c.produce_plain(tp(&topic, 0), &[value]).await?;
    }
    let member = Member::join(c, &group, &topic, Start::Nowhere).await?;
    Ok((topic, member))
}

/// Polls until the consumer fails, and tells how.
pub(super) async fn failure<C: ClusterUnderTest>(
    member: &mut Member<C>,
) -> Result<String, Failure> {
    for _ in 0..ROUNDS_MAX {
        if let Err(error) = member.consumer.poll(super::wire::ROUND).await {
            same("the class", &error.class, &ErrorClass::Fatal)?;
            return Ok(error.code);
        }
    }
    Err(Failure("the consumer never failed".into()))
}

pub(super) fn out_of_range(code: &str) -> Outcome {
    let expected = "OFFSET_OUT_OF_RANGE";
    same("the code", &code.get(..expected.len()), &Some(expected))
}

/// The log start offset moves when records are deleted, and `bounds` tells it (KIP-107).
pub(super) async fn deleted_records_move_the_log_start<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let (topic, mut member) = ten(c).await?;
    same(
        "DeleteRecords",
        &c.delete_records(tp(&topic, 0), 4).await?,
        &Ok(4),
    )?;
    let bounds = member.bounds(FIRST).await?;
    same("earliest", &bounds.earliest, &Offset(4))?;
    let expected = strings(&["4", "5", "6", "7", "8", "9"]);
    same("seen", &seen(c, &topic).await?, &expected)
}

/// The log start offset never goes back, and never beyond what is replicated (KIP-107).
pub(super) async fn the_log_start_has_limits<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let (topic, _member) = ten(c).await?;
    let tp = tp(&topic, 0);
    same("to 4", &c.delete_records(tp, 4).await?, &Ok(4))?;
    same("back to 2", &c.delete_records(tp, 2).await?, &Ok(4))?;
    let beyond = c.delete_records(tp, 11).await?;
    same("beyond the end", &beyond, &Err(ErrorCode::OffsetOutOfRange))?;
    same("the start", &c.ends(tp).await?.start, &4)
}

/// Where everything is deleted, offsets go on.
pub(super) async fn offsets_go_on_after_everything_is_deleted<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let (topic, mut member) = ten(c).await?;
    let tp = tp(&topic, 0);
    same("all", &c.delete_records(tp, -1).await?, &Ok(10))?;
    c.produce_plain(tp, &["next"]).await?;
    same("read", &c.read(tp).await?, &vec![(10, "next".to_owned())])?;
    member.consumer.start_at(FIRST, Offset(10))?;
    member.until_seen(1).await?;
    same("offsets", &member.offsets(), &vec![10])
}

/// A consumer that starts before the log start fails instead of skipping what is lost (reset policy
/// `error`).
pub(super) async fn retention_past_the_position_is_an_error<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let (topic, mut member) = ten(c).await?;
    c.delete_records(tp(&topic, 0), 4)
        .await?
        .map_err(refused("DeleteRecords"))?;
    member.consumer.start_at(FIRST, Offset(3))?;
    out_of_range(&failure(&mut member).await?)
}

/// Also where the position is the committed one.
pub(super) async fn retention_past_the_committed_offset_is_an_error<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let (topic, mut member) = ten(c).await?;
    let id = c.name("t");
    let mut producer = producer(c, &id).await?;
    let asked = [partition(&topic, 0)];
    let offsets = [commit(asked[0].clone(), 2, "record")];
    member.commit_with(&mut producer, &offsets).await?;
    c.delete_records(tp(&topic, 0), 4)
        .await?
        .map_err(refused("DeleteRecords"))?;
    let expected = vec![super::steps::committed(2, "record")];
    same("committed", &member.committed(&asked).await?, &expected)?;
    member.consumer.start_at(FIRST, Offset(2))?;
    out_of_range(&failure(&mut member).await?)
}

/// A consumer that starts behind the end of the log fails.
pub(super) async fn a_start_behind_the_end_is_an_error<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let (_topic, mut member) = ten(c).await?;
    member.consumer.start_at(FIRST, Offset(1_000))?;
    out_of_range(&failure(&mut member).await?)
}

/// A consumer that starts at the end is told the end, and then gets what comes.
pub(super) async fn a_start_at_the_end_waits<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let (topic, mut member) = ten(c).await?;
    member.consumer.start_at(FIRST, Offset(10))?;
    member.until_ends().await?;
    same("the end", &member.ends[&FIRST], &Offset(10))?;
    c.produce_plain(tp(&topic, 0), &["next"]).await?;
    member.until_seen(1).await?;
    same("seen", &member.values(), &strings(&["next"]))
}

/// A committed offset at the end of the log is where a member goes on.
pub(super) async fn a_member_goes_on_where_the_group_was<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    c.produce_plain(tp(&topic, 0), &["a", "b", "c"]).await?;
    let mut producer = producer(c, &names[0]).await?;
    let mut first = Member::<C>::join(c, &names[1], &topic, Start::Committed).await?;
    first.until_seen(3).await?;
    let offsets = [commit(partition(&topic, 0), 2, "")];
    first.commit_with(&mut producer, &offsets).await?;
    first.consumer.close(PATIENCE).await;
    let mut second = Member::<C>::join(c, &names[1], &topic, Start::Committed).await?;
    second.until_ends().await?;
    same("seen", &second.values(), &strings(&["c"]))
}

/// Nothing is delivered without a position, nor while a partition is paused; afterwards nothing is
/// missing.
pub(super) async fn a_pause_loses_nothing<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let (topic, mut member) = ten(c).await?;
    for _ in 0..5 {
        member.poll().await?;
    }
    same("without a position", &member.offsets(), &vec![])?;
    member.consumer.start_at(FIRST, Offset(0))?;
    member.until_seen(10).await?;
    member.consumer.pause(&[FIRST])?;
    c.produce_plain(tp(&topic, 0), &["10", "11"]).await?;
    for _ in 0..10 {
        member.poll().await?;
    }
    same("while paused", &member.offsets().len(), &10)?;
    member.consumer.resume(&[FIRST])?;
    member.until_seen(12).await?;
    same("in the end", &member.offsets(), &(0..12).collect())
}

/// After going back, nothing comes that was fetched from the older position.
pub(super) async fn going_back_forgets_what_was_fetched<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let (_topic, mut member) = ten(c).await?;
    for from in [0, 7, 3, 9, 0] {
        member.records.clear();
        member.ends.clear();
        member.consumer.start_at(FIRST, Offset(from))?;
        member.until_seen(1).await?;
        same("the first", &member.offsets()[0], &from)?;
    }
    member.until_seen(10).await?;
    same("all", &member.offsets(), &(0..10).collect())
}

/// Starting a paused partition lets it deliver.
pub(super) async fn a_start_ends_a_pause<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let (_topic, mut member) = ten(c).await?;
    member.consumer.start_at(FIRST, Offset(0))?;
    member.until_seen(1).await?;
    member.consumer.pause(&[FIRST])?;
    member.records.clear();
    member.consumer.start_at(FIRST, Offset(8))?;
    member.until_seen(2).await?;
    same("offsets", &member.offsets(), &vec![8, 9])
}

/// A thousand records of many batches come in order, once each, from every partition.
pub(super) async fn everything_comes_once_and_in_order<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 3).await?;
    let names = [c.name("t"), c.name("g")];
    let mut producer = producer(c, &names[0]).await?;
    for round in 0..10 {
        let records = (0..99).map(|number| {
            let value = format!("{}", round * 33 + number / 3);
            super::steps::output(&topic, number % 3, &value)
        });
        super::steps::begin(&mut producer, records.collect()).await?;
        super::steps::commit_now(&mut producer).await?;
    }
    let mut reader = Member::<C>::join(c, &names[1], &topic, Start::Earliest).await?;
    until!(c, "all records", {
        reader.poll().await?;
        reader.records.len() >= 990
    });
    let one: Vec<String> = (0..330).map(|number| number.to_string()).collect();
    let expected = [one.clone(), one.clone(), one].concat();
    same("seen", &reader.values(), &expected)
}

/// A topic tells its number of partitions; one that is not there is a fatal error.
pub(super) async fn a_topic_is_described<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 3).await?;
    let group = c.name("g");
    let mut member = Member::<C>::join(c, &group, &topic, Start::Nowhere).await?;
    let described = member
        .consumer
        .describe_topic(&topic.name, PATIENCE)
        .await?;
    same("partitions", &described.partitions, &3)?;
    let missing = c.name("missing");
    let answer = member.consumer.describe_topic(&missing, PATIENCE).await;
    super::steps::class_of("describe", answer.map(|_| ()), ErrorClass::Fatal)?;
    Ok(())
}
