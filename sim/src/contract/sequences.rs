//! The idempotence of producers: sequences, duplicates, gaps (KIP-98), and what goes into a partition
//! that is not part of the transaction (KIP-890).

use super::raw::RawProducer;
use super::steps::topic;
use super::visibility::strings;
use super::wire::{Wire, refused, same, tp};
use super::{ClusterUnderTest, Failure, Outcome};
use crate::kafka::protocol::{ErrorCode, Request, Response};

/// A batch that is sent again gets its first offset, and is stored once (KIP-98).
pub(super) async fn a_resent_batch_is_stored_once<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let producer = RawProducer::plain(c).await?;
    for (sequence, values) in [(0, ["a", "b"]), (2, ["c", "d"])] {
        let first = producer.produce_at(c, tp, sequence, &values).await?;
        same("first", &first, &Ok(i64::from(sequence)))?;
        let again = producer.produce_at(c, tp, sequence, &values).await?;
        same("again", &again, &Ok(i64::from(sequence)))?;
    }
    same(
        "seen",
        &c.values(tp).await?,
        &strings(&["a", "b", "c", "d"]),
    )
}

/// The five newest batches are known again; older ones are not (KIP-98: ProducerStateEntry).
pub(super) async fn five_batches_are_remembered<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let producer = RawProducer::plain(c).await?;
    for sequence in 0..6 {
        let stored = producer.produce_at(c, tp, sequence, &["x"]).await?;
        stored.map_err(refused("Produce"))?;
    }
    for sequence in 1..6 {
        let again = producer.produce_at(c, tp, sequence, &["x"]).await?;
        same("one of five", &again, &Ok(i64::from(sequence)))?;
    }
    let oldest = producer.produce_at(c, tp, 0, &["x"]).await?;
    same(
        "the sixth",
        &oldest,
        &Err(ErrorCode::OutOfOrderSequenceNumber),
    )?;
    same("the end", &c.ends(tp).await?.high_watermark, &6)
}

/// A gap in the sequence is refused, and nothing of it is stored (KIP-98).
pub(super) async fn a_gap_is_refused<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let producer = RawProducer::plain(c).await?;
    let stored = producer.produce_at(c, tp, 0, &["a"]).await?;
    stored.map_err(refused("Produce"))?;
    let gap = producer.produce_at(c, tp, 2, &["c"]).await?;
    same("a gap", &gap, &Err(ErrorCode::OutOfOrderSequenceNumber))?;
    let next = producer.produce_at(c, tp, 1, &["b"]).await?;
    same("what is next", &next, &Ok(1))?;
    same("seen", &c.values(tp).await?, &strings(&["a", "b"]))
}

/// A batch that overlaps with a stored one without being the same is no duplicate, and is refused
/// (KIP-98).
pub(super) async fn an_overlapping_batch_is_refused<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let producer = RawProducer::plain(c).await?;
    let stored = producer.produce_at(c, tp, 0, &["a", "b"]).await?;
    stored.map_err(refused("Produce"))?;
    let expected = Err(ErrorCode::OutOfOrderSequenceNumber);
    let longer = producer.produce_at(c, tp, 0, &["a", "b", "c"]).await?;
    same("a longer one", &longer, &expected)?;
    let shifted = producer.produce_at(c, tp, 1, &["b", "c"]).await?;
    same("a shifted one", &shifted, &expected)?;
    same("the end", &c.ends(tp).await?.high_watermark, &2)
}

/// Each partition has its own sequence (KIP-98).
pub(super) async fn partitions_have_their_own_sequences<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 2).await?;
    let mut producer = RawProducer::plain(c).await?;
    for number in [0, 1, 0, 1] {
        let stored = producer.produce(c, tp(&topic, number), &["x"]).await?;
        stored.map_err(refused("Produce"))?;
    }
    for number in [0, 1] {
        let ends = c.ends(tp(&topic, number)).await?;
        same("the end", &ends.high_watermark, &2)?;
    }
    Ok(())
}

/// Different producers have sequences of their own in one partition.
pub(super) async fn producers_have_their_own_sequences<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let first = RawProducer::plain(c).await?;
    let second = RawProducer::plain(c).await?;
    for (producer, value) in [(&first, "a"), (&second, "b")] {
        let stored = producer.produce_at(c, tp, 0, &[value]).await?;
        stored.map_err(refused("Produce"))?;
    }
    same("seen", &c.values(tp).await?, &strings(&["a", "b"]))
}

/// A new epoch begins with sequence 0, and with no other (KIP-98).
pub(super) async fn a_new_epoch_begins_at_zero<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let id = c.name("t");
    let mut old = RawProducer::open(c, &id).await?;
    old.write(c, tp, &["a", "b"]).await?;
    old.finish(c, true).await?;
    let new = RawProducer::open(c, &id).await?;
    let added = new.add(c, &[tp]).await?;
    added.map_err(refused("AddPartitionsToTxn"))?;
    let goes_on = new.produce_at(c, tp, 2, &["c"]).await?;
    same(
        "goes on",
        &goes_on,
        &Err(ErrorCode::OutOfOrderSequenceNumber),
    )?;
    let anew = new.produce_at(c, tp, 0, &["c"]).await?;
    same("anew", &anew, &Ok(3))?;
    new.finish(c, true).await?;
    same("seen", &c.values(tp).await?, &strings(&["a", "b", "c"]))
}

/// Within one epoch the sequence goes on from transaction to transaction (KIP-98).
pub(super) async fn sequences_go_on_through_transactions<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let id = c.name("t");
    let producer = RawProducer::open(c, &id).await?;
    let rounds = [(0, "a", true), (1, "b", false), (2, "c", true)];
    for (sequence, value, commits) in rounds {
        let added = producer.add(c, &[tp]).await?;
        added.map_err(refused("AddPartitionsToTxn"))?;
        let stored = producer.produce_at(c, tp, sequence, &[value]).await?;
        stored.map_err(refused("Produce"))?;
        producer.finish(c, commits).await?;
    }
    same("seen", &c.values(tp).await?, &strings(&["a", "c"]))
}

/// A transactional batch for a partition that is not part of the transaction is refused
/// (KIP-890: the leader asks the coordinator).
pub(super) async fn a_partition_outside_of_the_transaction_is_refused<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 2).await?;
    let id = c.name("t");
    let mut producer = RawProducer::open(c, &id).await?;
    let without = producer.produce(c, tp(&topic, 0), &["x"]).await?;
    same("no transaction", &without, &Err(ErrorCode::InvalidTxnState))?;
    producer.write(c, tp(&topic, 0), &["a"]).await?;
    let other = producer.produce(c, tp(&topic, 1), &["y"]).await?;
    same(
        "another partition",
        &other,
        &Err(ErrorCode::InvalidTxnState),
    )?;
    producer.finish(c, true).await?;
    same("seen", &c.values(tp(&topic, 0)).await?, &strings(&["a"]))?;
    same(
        "the other",
        &c.ends(tp(&topic, 1)).await?.high_watermark,
        &0,
    )
}

/// A batch that arrives after its transaction's marker is refused: it cannot hang open behind it
/// (KIP-890, KAFKA-14402).
pub(super) async fn a_late_batch_cannot_hang<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let id = c.name("t");
    let mut producer = RawProducer::open(c, &id).await?;
    producer.write(c, tp, &["a"]).await?;
    producer.finish(c, false).await?;
    let late = producer.produce(c, tp, &["late"]).await?;
    same("late", &late, &Err(ErrorCode::InvalidTxnState))?;
    let ends = c.ends(tp).await?;
    same(
        "nothing is open",
        &(ends.last_stable, ends.high_watermark),
        &(2, 2),
    )
}

/// A resent batch of a transaction that has ended is still known, and opens nothing.
pub(super) async fn a_resent_batch_of_an_ended_transaction_opens_nothing<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let id = c.name("t");
    let mut producer = RawProducer::open(c, &id).await?;
    producer.write(c, tp, &["a"]).await?;
    producer.finish(c, true).await?;
    let _ = producer.produce_at(c, tp, 0, &["a"]).await?;
    let ends = c.ends(tp).await?;
    same(
        "nothing is open",
        &(ends.last_stable, ends.high_watermark),
        &(2, 2),
    )?;
    same("seen", &c.values(tp).await?, &strings(&["a"]))
}

/// A batch whose CRC is wrong is refused and not stored; what comes after it is taken as if it had never
/// been sent.
pub(super) async fn a_damaged_batch_is_refused<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let producer = RawProducer::plain(c).await?;
    let stored = producer.produce_at(c, tp, 0, &["a"]).await?;
    stored.map_err(refused("Produce"))?;
    let leader = c.leader(tp).await?;
    let request = Request::Produce {
        batches: vec![(tp, producer.batch(c, 1, &["b"]))],
        timeout_ms: 3_000,
    };
    let Some(Response::Produce(results)) = c.ask_damaged(leader, request).await? else {
        return Err(Failure("the damaged batch got no answer".into()));
    };
    let expected = vec![(tp, Err(ErrorCode::CorruptMessage))];
    same("damaged", &results, &expected)?;
    same("the end", &c.ends(tp).await?.high_watermark, &1)?;
    let whole = producer.produce_at(c, tp, 1, &["b"]).await?;
    same("whole", &whole, &Ok(1))?;
    same("seen", &c.values(tp).await?, &strings(&["a", "b"]))
}

/// Nobody but brokers writes to the internal topics.
pub(super) async fn internal_topics_are_closed<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let mut producer = RawProducer::plain(c).await?;
    let tp = crate::kafka::protocol::TopicPartition {
        topic: crate::kafka::protocol::OFFSETS_TOPIC,
        partition: processor::units::PartitionId(0),
    };
    let refused = producer.produce(c, tp, &["x"]).await?;
    same("Produce", &refused, &Err(ErrorCode::InvalidTopicException))
}
