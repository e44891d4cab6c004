//! What brokers forget of those who have not been heard of for long.

use super::raw::RawProducer;
use super::steps::{
    Member, PATIENCE, Start, begin, commit, commit_now, partition, producer, send_offsets, topic,
};
use super::visibility::strings;
use super::wire::{Wire, refused, same, tp, until};
use super::{ClientOptions, ClusterUnderTest, Kept, Outcome};
use crate::kafka::protocol::{ErrorCode, LogTimeMs};
use processor::io::Consumer;

/// As old as no producer's state becomes.
const LONG_AGO_MS: i64 = 3_600_000;

/// A transactional id that nobody uses is forgotten: its producer is refused from then on, and whoever
/// initialises the id is another producer (KIP-98: transactional.id.expiration.ms).
pub(super) async fn an_unused_transactional_id_is_forgotten<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let id = c.name("t");
    let mut old = RawProducer::open(c, &id).await?;
    old.write(c, tp, &["a"]).await?;
    old.finish(c, true).await?;
    c.outlast(&Kept::TransactionalIds).await?;
    let expected = Err(ErrorCode::InvalidProducerIdMapping);
    same("AddPartitionsToTxn", &old.add(c, &[tp]).await?, &expected)?;
    same("EndTxn", &old.end(c, true).await?, &expected)?;
    let mut new = RawProducer::open(c, &id).await?;
    same("the same producer", &(new.id == old.id), &false)?;
    new.write(c, tp, &["b"]).await?;
    new.finish(c, true).await?;
    same("seen", &c.values(tp).await?, &strings(&["a", "b"]))
}

/// A partition forgets a producer that has not written for long: a batch that is sent again is another one
/// then, and any sequence is taken (KIP-98: producer.id.expiration.ms).
pub(super) async fn a_producer_that_does_not_write_is_forgotten<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 2).await?;
    let producer = RawProducer::plain(c).await?;
    for number in [0, 1] {
        let stored = producer
            .produce_at(c, tp(&topic, number), 0, &["a"])
            .await?;
        same("stored at", &stored, &Ok(0))?;
    }
    let again = producer.produce_at(c, tp(&topic, 0), 0, &["a"]).await?;
    same("again", &again, &Ok(0))?;
    c.outlast(&Kept::Producers).await?;
    let again = producer.produce_at(c, tp(&topic, 0), 0, &["a"]).await?;
    same("afterwards", &again, &Ok(1))?;
    let far = producer.produce_at(c, tp(&topic, 1), 7, &["b"]).await?;
    same("with a gap", &far, &Ok(1))
}

/// How long a producer has not written is told by the timestamp of its newest batch, not by the time at
/// which it was stored (ProducerStateManager.isProducerExpired).
pub(super) async fn a_producer_of_old_records_is_forgotten_soon<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let now = c.now();
    let recent = RawProducer::plain(c).await?;
    let mut old = RawProducer::plain(c).await?;
    old.timestamp = Some(LogTimeMs(now.0 - LONG_AGO_MS));
    let stored = old.produce_at(c, tp, 0, &["old"]).await?;
    same("stored at", &stored, &Ok(0))?;
    // A batch that is known changes nothing; once it is stored again, its producer was forgotten.
    until!(c, "the old one is forgotten", {
        let again = recent.produce_at(c, tp, 0, &["recent"]).await?;
        again.map_err(refused("Produce"))?;
        let stored = old.produce_at(c, tp, 0, &["old"]).await?;
        stored.map_err(refused("Produce"))? == 2
    });
    let again = recent.produce_at(c, tp, 0, &["recent"]).await?;
    same("the recent one", &again, &Ok(1))
}

/// A transaction that is open keeps its producer from being forgotten, however old its records are.
pub(super) async fn an_open_transaction_keeps_its_producer<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 2).await?;
    let names = [c.name("t"), c.name("t")];
    let now = c.now();
    let mut open = RawProducer::open(c, &names[0]).await?;
    open.timestamp = Some(LogTimeMs(now.0 - LONG_AGO_MS));
    same("first", &open.write(c, tp(&topic, 0), &["a"]).await?, &0)?;
    // Another one that is forgotten meanwhile tells that brokers have looked.
    let mut other = RawProducer::plain(c).await?;
    other.timestamp = open.timestamp;
    let stored = other.produce_at(c, tp(&topic, 1), 0, &["x"]).await?;
    same("stored at", &stored, &Ok(0))?;
    until!(
        c,
        "the other one is forgotten",
        other.produce_at(c, tp(&topic, 1), 0, &["x"]).await? != Ok(0)
    );
    let again = open.produce_at(c, tp(&topic, 0), 0, &["a"]).await?;
    same("again", &again, &Ok(0))?;
    open.finish(c, true).await?;
    same("seen", &c.values(tp(&topic, 0)).await?, &strings(&["a"]))
}

/// A group without members forgets its offsets, and then itself; one with a member keeps them (KIP-211:
/// offsets.retention.minutes).
pub(super) async fn an_empty_group_forgets_its_offsets<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("empty"), c.name("lively")];
    let mut producer = producer(c, &names[0]).await?;
    let patient = ClientOptions {
        max_poll_interval_ms: 600_000,
        ..ClientOptions::default()
    };
    let asked = [partition(&topic, 0)];
    let mut members = Vec::new();
    for group in &names[1..] {
        let mut member = Member::<C>::new(c, group, &topic, Start::Nowhere, &patient)?;
        member.until_owned(1).await?;
        let offsets = [commit(asked[0].clone(), 7, "record")];
        begin(&mut producer, Vec::new()).await?;
        send_offsets(&mut producer, &offsets, &member.group()?).await?;
        commit_now(&mut producer).await?;
        members.push(member);
    }
    members.remove(0).consumer.close(PATIENCE).await;
    c.outlast(&Kept::Offsets(names[1].clone())).await?;
    let tp = tp(&topic, 0);
    until!(c, "the empty group forgets", {
        c.offsets(&names[1], true, &[tp]).await? == Ok(vec![None])
    });
    let gone = Err(ErrorCode::GroupIdNotFound);
    same("the group", &c.delete_group(&names[1]).await?, &gone)?;
    let kept = Ok(vec![Some((7, "record".to_owned()))]);
    same(
        "the lively one",
        &c.offsets(&names[2], true, &[tp]).await?,
        &kept,
    )
}
