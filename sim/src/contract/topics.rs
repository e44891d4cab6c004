//! What people do to topics: more partitions, and topics that are deleted and created anew.

use super::positions::out_of_range;
use super::raw::RawProducer;
use super::steps::{Heard, Member, PATIENCE, Start, commit, committed, partition, producer, topic};
use super::visibility::strings;
use super::wire::{Identity, ROUND, ROUNDS_MAX, Wire, commit_of, refused, same, tp, until};
use super::{ClientOptions, ClusterUnderTest, Failure, Outcome, Topic, TopicSpec};
use crate::kafka::protocol::{ErrorCode, OffsetSpec, RebalanceProtocol, Request, Response};
use processor::io::{Consumer, ErrorClass, Polled};
use processor::units::PartitionId;

/// A topic that can be given more partitions.
async fn growing<C: ClusterUnderTest>(c: &mut C, partitions: u32) -> Result<Topic, Failure> {
    let spec = TopicSpec {
        partitions,
        min_insync_replicas: 2,
        may_grow: true,
    };
    c.create_topic(spec).await
}

/// A client that soon learns what has become of a topic.
fn watchful(protocol: RebalanceProtocol) -> ClientOptions {
    ClientOptions {
        protocol,
        metadata_refresh_ms: 500,
        ..ClientOptions::default()
    }
}

fn list(numbers: &[i32]) -> Vec<PartitionId> {
    numbers.iter().copied().map(PartitionId).collect()
}

/// No broker knows a partition before it is added; afterwards it is empty, and written like any other.
pub(super) async fn an_added_partition_is_unknown_before_and_empty_afterwards<
    C: ClusterUnderTest,
>(
    c: &mut C,
) -> Outcome {
    let topic = growing(c, 1).await?;
    let added = tp(&topic, 1);
    let id = c.name("t");
    let mut producer = RawProducer::open(c, &id).await?;
    let unknown = Err(ErrorCode::UnknownTopicOrPartition);
    same(
        "AddPartitionsToTxn",
        &producer.add(c, &[added]).await?,
        &unknown,
    )?;
    for broker in c.brokers() {
        let request = Request::ListOffsets {
            tp: added,
            spec: OffsetSpec::Earliest,
        };
        match c.ask(broker, request).await? {
            Some(Response::ListOffsets(Err(ErrorCode::UnknownTopicOrPartition))) => {}
            other => return Err(Failure(format!("ListOffsets: {other:?}"))),
        }
    }
    c.grow_topic(&topic, 2).await?;
    let ends = c.ends(added).await?;
    same("empty", &(ends.start, ends.high_watermark), &(0, 0))?;
    same(
        "the first offset",
        &producer.write(c, added, &["a"]).await?,
        &0,
    )?;
    producer.finish(c, true).await?;
    same("seen", &c.values(added).await?, &strings(&["a"]))
}

/// A running consumer learns that its topic has grown, and its group takes the new partition in: it is read
/// from its start, as nothing is committed for it. What was owned stays owned, and what was committed
/// stays committed.
pub(super) async fn a_group_takes_in_an_added_partition<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = growing(c, 2).await?;
    let names = [c.name("t"), c.name("g")];
    let mut producer = producer(c, &names[0]).await?;
    let options = watchful(RebalanceProtocol::Cooperative);
    let mut member = Member::<C>::new(c, &names[1], &topic, Start::Committed, &options)?;
    member.until_owned(2).await?;
    let offsets = [commit(partition(&topic, 0), 7, "record")];
    member.commit_with(&mut producer, &offsets).await?;
    c.grow_topic(&topic, 3).await?;
    c.produce_plain(tp(&topic, 2), &["a", "b"]).await?;
    let described = member
        .consumer
        .describe_topic(&topic.name, PATIENCE)
        .await?;
    same("partitions", &described.partitions, &3)?;
    member.until_owned(3).await?;
    member.until_seen(2).await?;
    same("seen", &member.values(), &strings(&["a", "b"]))?;
    same("from the start", &member.offsets(), &vec![0, 1])?;
    let expected = [list(&[0, 1]), list(&[2])].map(Heard::Assigned);
    same("heard", &member.heard, &expected.to_vec())?;
    let asked = [0, 2].map(|number| partition(&topic, number));
    let expected = vec![committed(7, "record"), None];
    same("committed", &member.committed(&asked).await?, &expected)
}

/// In an eager group everything is revoked first.
pub(super) async fn growth_revokes_everything_from_an_eager_group<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = growing(c, 1).await?;
    let group = c.name("g");
    let options = watchful(RebalanceProtocol::Eager);
    let mut member = Member::<C>::new(c, &group, &topic, Start::Committed, &options)?;
    member.until_owned(1).await?;
    c.grow_topic(&topic, 2).await?;
    member.until_owned(2).await?;
    let expected = vec![
        Heard::Assigned(list(&[0])),
        Heard::Revoked(list(&[0])),
        Heard::Assigned(list(&[0, 1])),
    ];
    same("heard", &member.heard, &expected)
}

/// A transaction that was open when its topic grew may go on in the new partition.
pub(super) async fn an_open_transaction_reaches_into_an_added_partition<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = growing(c, 1).await?;
    let id = c.name("t");
    let mut producer = RawProducer::open(c, &id).await?;
    producer.write(c, tp(&topic, 0), &["a"]).await?;
    c.grow_topic(&topic, 2).await?;
    producer.write(c, tp(&topic, 1), &["b"]).await?;
    same("open", &c.ends(tp(&topic, 1)).await?.last_stable, &0)?;
    producer.finish(c, true).await?;
    same("first", &c.values(tp(&topic, 0)).await?, &strings(&["a"]))?;
    same("added", &c.values(tp(&topic, 1)).await?, &strings(&["b"]))
}

/// A topic that is created anew has another id, by which the processor tells it, and begins at offset 0.
pub(super) async fn a_recreated_topic_is_another_topic<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let group = c.name("g");
    let tp = tp(&topic, 0);
    c.produce_plain(tp, &["old", "older"]).await?;
    let before = c.topic_id(&topic).await?;
    let mut member = Member::<C>::join(c, &group, &topic, Start::Nowhere).await?;
    let described = member
        .consumer
        .describe_topic(&topic.name, PATIENCE)
        .await?;
    c.recreate_topic(&topic).await?;
    let anew = member
        .consumer
        .describe_topic(&topic.name, PATIENCE)
        .await?;
    same(
        "the id differs",
        &(described.topic_id != anew.topic_id),
        &true,
    )?;
    same(
        "as brokers tell",
        &(c.topic_id(&topic).await? != before),
        &true,
    )?;
    let ends = c.ends(tp).await?;
    same("empty", &(ends.start, ends.high_watermark), &(0, 0))?;
    c.produce_plain(tp, &["new"]).await?;
    same("read", &c.read(tp).await?, &vec![(0, "new".to_owned())])
}

/// What groups have committed of a topic is forgotten when it is deleted, whether they have members or
/// not; what they have committed of other topics stays.
pub(super) async fn committed_offsets_go_with_their_topic<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let gone = topic(c, 1).await?;
    let stays = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g"), c.name("g")];
    let mut producer = producer(c, &names[0]).await?;
    let mut member = Member::<C>::join(c, &names[1], &gone, Start::Nowhere).await?;
    let offsets = [
        commit(partition(&gone, 0), 0, "input"),
        commit(partition(&stays, 0), 0, "mark"),
    ];
    member.commit_with(&mut producer, &offsets).await?;
    let asked = [tp(&gone, 0), tp(&stays, 0)];
    for (asked, offset) in asked.iter().zip([5, 6]) {
        let plain = commit_of(*asked, offset, "");
        let result = c
            .commit_plain(&names[2], &Identity::nobody(), plain)
            .await?;
        result.map_err(refused("OffsetCommit"))?;
    }
    c.recreate_topic(&gone).await?;
    for (group, stayed) in [(&names[1], (0, "mark")), (&names[2], (6, ""))] {
        let expected = Ok(vec![None, Some((stayed.0, stayed.1.to_owned()))]);
        until!(c, format!("{group} forgets"), {
            c.offsets(group, false, &asked).await? == expected
        });
    }
    Ok(())
}

/// A consumer whose position was behind the end of the new topic fails, as after any other loss; unless it
/// has seen in between that there was no such topic: then its partition is taken from it.
pub(super) async fn an_old_position_is_out_of_range_in_a_recreated_topic<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let group = c.name("g");
    c.produce_plain(tp(&topic, 0), &["a", "b", "c"]).await?;
    let options = watchful(RebalanceProtocol::Cooperative);
    let mut member = Member::<C>::new(c, &group, &topic, Start::Earliest, &options)?;
    member.until_owned(1).await?;
    member.until_seen(3).await?;
    c.recreate_topic(&topic).await?;
    let fetched = c.fetch(tp(&topic, 0), 3).await?;
    same("Fetch", &fetched.error, &Some(ErrorCode::OffsetOutOfRange))?;
    for _ in 0..ROUNDS_MAX {
        match member.consumer.poll(ROUND).await {
            Err(error) => {
                same("the class", &error.class, &ErrorClass::Fatal)?;
                return out_of_range(&error.code);
            }
            Ok(Polled::Revoked(_) | Polled::Lost(_)) => return Ok(()),
            Ok(_) => {}
        }
    }
    Err(Failure("the consumer has not noticed".into()))
}

/// The partition of a new topic knows no producer: one of the old topic goes on with the sequence that it
/// had come to.
pub(super) async fn a_producer_goes_on_in_a_recreated_topic<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let producer = RawProducer::plain(c).await?;
    let stored = producer.produce_at(c, tp, 0, &["a", "b"]).await?;
    stored.map_err(refused("Produce"))?;
    c.recreate_topic(&topic).await?;
    same(
        "next",
        &producer.produce_at(c, tp, 2, &["c"]).await?,
        &Ok(0),
    )?;
    same(
        "again",
        &producer.produce_at(c, tp, 2, &["c"]).await?,
        &Ok(0),
    )?;
    let gap = producer.produce_at(c, tp, 4, &["e"]).await?;
    same("a gap", &gap, &Err(ErrorCode::OutOfOrderSequenceNumber))?;
    same("seen", &c.values(tp).await?, &strings(&["c"]))
}

/// A transaction whose topic was deleted can be ended. Of it only a marker is in the new topic: markers go
/// by names. Nothing is left open there.
pub(super) async fn an_open_transaction_outlives_its_topic<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let id = c.name("t");
    let mut producer = RawProducer::open(c, &id).await?;
    producer.write(c, tp, &["old"]).await?;
    c.recreate_topic(&topic).await?;
    producer.finish(c, true).await?;
    let ends = c.ends(tp).await?;
    same("its marker", &(ends.high_watermark > 0), &true)?;
    same("nothing is open", &ends.last_stable, &ends.high_watermark)?;
    same("seen", &c.values(tp).await?, &strings(&[]))?;
    let mut next = RawProducer::open(c, &id).await?;
    next.write(c, tp, &["new"]).await?;
    next.finish(c, true).await?;
    same("then", &c.values(tp).await?, &strings(&["new"]))
}
