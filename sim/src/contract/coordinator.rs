//! The transaction coordinator's answers, state by state (protocol version 1).

use super::raw::RawProducer;
use super::steps::topic;
use super::visibility::strings;
use super::wire::{Wire, commit_of, refused, same, tp};
use super::{ClusterUnderTest, Outcome};
use crate::kafka::protocol::{ErrorCode, PartitionId, TopicPartition};

/// EndTxn of a committed transaction may be repeated (TransactionCoordinator.endTransaction).
pub(super) async fn a_repeated_commit_is_answered_alike<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let mut producer = RawProducer::open(c, &id).await?;
    producer.write(c, tp(&topic, 0), &["a"]).await?;
    for _ in 0..3 {
        same("EndTxn", &producer.end(c, true).await?, &Ok(()))?;
    }
    let ends = c.ends(tp(&topic, 0)).await?;
    same("one marker", &ends.high_watermark, &2)
}

/// EndTxn of an aborted transaction may be repeated.
pub(super) async fn a_repeated_abort_is_answered_alike<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let mut producer = RawProducer::open(c, &id).await?;
    producer.write(c, tp(&topic, 0), &["a"]).await?;
    for _ in 0..3 {
        same("EndTxn", &producer.end(c, false).await?, &Ok(()))?;
    }
    let ends = c.ends(tp(&topic, 0)).await?;
    same("one marker", &ends.high_watermark, &2)
}

/// A committed transaction cannot be aborted, nor an aborted one committed.
pub(super) async fn the_outcome_cannot_be_changed<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    for commits in [true, false] {
        let id = c.name("t");
        let mut producer = RawProducer::open(c, &id).await?;
        producer.write(c, tp(&topic, 0), &["a"]).await?;
        producer.finish(c, commits).await?;
        let changed = producer.end(c, !commits).await?;
        same("EndTxn", &changed, &Err(ErrorCode::InvalidTxnState))?;
    }
    same("seen", &c.values(tp(&topic, 0)).await?, &strings(&["a"]))
}

/// Where no transaction has begun there is nothing to end.
pub(super) async fn nothing_can_be_ended_before_it_began<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let id = c.name("t");
    let producer = RawProducer::open(c, &id).await?;
    for commits in [true, false] {
        let ended = producer.end(c, commits).await?;
        same("EndTxn", &ended, &Err(ErrorCode::InvalidTxnState))?;
    }
    Ok(())
}

/// A delayed copy of EndTxn ends the next transaction of the same producer: protocol version 1
/// cannot tell them apart (KAFKA-17754). This is why tainted producers are replaced.
pub(super) async fn a_delayed_end_ends_the_next_transaction<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let id = c.name("t");
    let mut producer = RawProducer::open(c, &id).await?;
    producer.write(c, tp, &["first"]).await?;
    producer.finish(c, true).await?;
    producer.write(c, tp, &["second, part 1"]).await?;
    // The copy arrives.
    producer.finish(c, true).await?;
    let expected = strings(&["first", "second, part 1"]);
    same("seen", &c.values(tp).await?, &expected)?;
    producer.write(c, tp, &["second, part 2"]).await?;
    producer.finish(c, false).await?;
    same("torn", &c.values(tp).await?, &expected)
}

/// A new producer with the same transactional id fences that delayed copy.
pub(super) async fn a_new_producer_fences_a_delayed_end<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let id = c.name("t");
    let mut tainted = RawProducer::open(c, &id).await?;
    tainted.write(c, tp, &["first"]).await?;
    tainted.finish(c, true).await?;
    let mut new = RawProducer::open(c, &id).await?;
    new.write(c, tp, &["second"]).await?;
    let copy = tainted.end(c, true).await?;
    same("the copy", &copy, &Err(ErrorCode::InvalidProducerEpoch))?;
    same("still open", &c.ends(tp).await?.last_stable, &2)?;
    new.finish(c, true).await?;
    same("seen", &c.values(tp).await?, &strings(&["first", "second"]))
}

/// A partition may be added twice.
pub(super) async fn a_partition_may_be_added_twice<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 2).await?;
    let id = c.name("t");
    let mut producer = RawProducer::open(c, &id).await?;
    producer.write(c, tp(&topic, 0), &["a"]).await?;
    let both = [tp(&topic, 0), tp(&topic, 1)];
    same(
        "AddPartitionsToTxn",
        &producer.add(c, &both).await?,
        &Ok(()),
    )?;
    let stored = producer.produce(c, tp(&topic, 1), &["b"]).await?;
    stored.map_err(refused("Produce"))?;
    producer.finish(c, true).await?;
    same("seen, 0", &c.values(tp(&topic, 0)).await?, &strings(&["a"]))?;
    same("seen, 1", &c.values(tp(&topic, 1)).await?, &strings(&["b"]))
}

/// A marker also goes to partitions that were added and never written to (TransactionMarkerChannelManager).
pub(super) async fn every_added_partition_gets_a_marker<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let producer = RawProducer::open(c, &id).await?;
    let added = producer.add(c, &[tp(&topic, 0)]).await?;
    added.map_err(refused("AddPartitionsToTxn"))?;
    producer.finish(c, true).await?;
    same("the end", &c.ends(tp(&topic, 0)).await?.high_watermark, &1)
}

/// An unknown partition cannot be added.
pub(super) async fn an_unknown_partition_cannot_be_added<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let producer = RawProducer::open(c, &id).await?;
    let unknown = TopicPartition {
        topic: topic.index,
        partition: PartitionId(7),
    };
    let added = producer.add(c, &[unknown]).await?;
    same(
        "AddPartitionsToTxn",
        &added,
        &Err(ErrorCode::UnknownTopicOrPartition),
    )
}

/// The transaction timeout has a limit (transaction.max.timeout.ms), and is not zero.
pub(super) async fn the_transaction_timeout_has_limits<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    for timeout_ms in [900_001, 0] {
        let id = c.name("t");
        let opened = RawProducer::transactional(c, &id, timeout_ms).await?;
        let code = opened.err();
        same(
            "InitProducerId",
            &code,
            &Some(ErrorCode::InvalidTransactionTimeout),
        )?;
    }
    let id = c.name("t");
    let opened = RawProducer::transactional(c, &id, 900_000).await?;
    opened.map(|_| ()).map_err(refused("InitProducerId"))
}

/// An id that was never initialised has no producer.
pub(super) async fn an_unknown_transactional_id_is_refused<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("never initialised")];
    let mut producer = RawProducer::open(c, &names[0]).await?;
    producer.transactional_id = Some(names[1].as_str().into());
    let expected = Err(ErrorCode::InvalidProducerIdMapping);
    let added = producer.add(c, &[tp(&topic, 0)]).await?;
    same("AddPartitionsToTxn", &added, &expected)
}

/// Offsets without AddOffsetsToTxn are refused: the group's partition is not part of the transaction
/// (KIP-890).
pub(super) async fn offsets_outside_of_the_transaction_are_refused<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let producer = RawProducer::open(c, &names[0]).await?;
    let nobody = super::wire::Identity::nobody();
    let offsets = vec![commit_of(tp(&topic, 0), 1, "")];
    let result = producer
        .commit_offsets(c, &names[1], &nobody, offsets)
        .await?;
    same("TxnOffsetCommit", &result, &Err(ErrorCode::InvalidTxnState))?;
    let stored = c.offsets(&names[1], true, &[tp(&topic, 0)]).await?;
    same("committed", &stored, &Ok(vec![None]))
}

/// A transaction may hold offsets alone; it ends like any other.
pub(super) async fn a_transaction_of_offsets_alone_commits<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let producer = RawProducer::open(c, &names[0]).await?;
    for offset in 1..4 {
        let commit = commit_of(tp(&topic, 0), offset, "alone");
        producer.offset(c, &names[1], commit).await?;
        producer.finish(c, true).await?;
    }
    let stored = c.offsets(&names[1], true, &[tp(&topic, 0)]).await?;
    same(
        "committed",
        &stored,
        &Ok(vec![Some((3, "alone".to_owned()))]),
    )?;
    same(
        "the topic",
        &c.ends(tp(&topic, 0)).await?.high_watermark,
        &0,
    )
}

/// Offsets of two groups in one transaction stand together.
pub(super) async fn a_transaction_may_cover_several_groups<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g"), c.name("g")];
    let producer = RawProducer::open(c, &names[0]).await?;
    for group in &names[1..] {
        producer
            .offset(c, group, commit_of(tp(&topic, 0), 9, group))
            .await?;
    }
    producer.finish(c, true).await?;
    for group in &names[1..] {
        let stored = c.offsets(group, true, &[tp(&topic, 0)]).await?;
        same("committed", &stored, &Ok(vec![Some((9, group.clone()))]))?;
    }
    Ok(())
}
