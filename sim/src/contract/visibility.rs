//! What a read_committed reader sees, and where it ends: records, control records, the last stable
//! offset.

use super::raw::RawProducer;
use super::steps::{
    Member, Start, abort_now, begin, commit_now, output, partition, producer, seen, topic,
    transact, written,
};
use super::wire::{Wire, refused, same, tp, until};
use super::{ClusterUnderTest, Failure, Outcome};
use crate::kafka::protocol::Payload;
use bytes::Bytes;
use processor::io::{Consumer, Header, TransactionalProducer};
use processor::units::{Offset, PartitionId};

/// A committed transaction's records are seen, in order (KIP-98).
pub(super) async fn committed_records_are_seen<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let mut producer = producer(c, &id).await?;
    transact(&mut producer, &topic, 0, &["a", "b", "c"]).await?;
    same("seen", &seen(c, &topic).await?, &strings(&["a", "b", "c"]))
}

/// Records of an open transaction are in the log, and nobody with read_committed sees them (KIP-98).
pub(super) async fn open_records_are_not_seen<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let mut producer = producer(c, &id).await?;
    transact(&mut producer, &topic, 0, &["a"]).await?;
    begin(&mut producer, vec![output(&topic, 0, "open")]).await?;
    written(c, &topic, 0, 3).await?;
    same("seen", &seen(c, &topic).await?, &strings(&["a"]))?;
    commit_now(&mut producer).await?;
    same("then", &seen(c, &topic).await?, &strings(&["a", "open"]))
}

/// Records of an aborted transaction are never seen (KIP-98).
pub(super) async fn aborted_records_are_never_seen<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let mut producer = producer(c, &id).await?;
    begin(&mut producer, vec![output(&topic, 0, "aborted")]).await?;
    written(c, &topic, 0, 1).await?;
    abort_now(&mut producer).await?;
    same("seen", &seen(c, &topic).await?, &strings(&[]))?;
    transact(&mut producer, &topic, 0, &["a"]).await?;
    same("then", &seen(c, &topic).await?, &strings(&["a"]))
}

/// The aborted index tells transactions of one producer apart by their first offsets (KIP-98).
pub(super) async fn aborted_and_committed_transactions_of_one_producer_are_told_apart<
    C: ClusterUnderTest,
>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let mut producer = producer(c, &id).await?;
    let mut length = 0;
    for (value, commits) in [
        ("1", true),
        ("2", false),
        ("3", true),
        ("4", false),
        ("5", true),
    ] {
        begin(&mut producer, vec![output(&topic, 0, value)]).await?;
        written(c, &topic, 0, length + 1).await?;
        match commits {
            true => commit_now(&mut producer).await?,
            false => abort_now(&mut producer).await?,
        }
        length += 2;
        written(c, &topic, 0, length).await?;
    }
    same("seen", &seen(c, &topic).await?, &strings(&["1", "3", "5"]))
}

/// Nothing behind an open transaction is seen, whoever wrote it (KIP-98: last stable offset).
pub(super) async fn an_open_transaction_hides_what_others_append_behind_it<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let mut producer = producer(c, &id).await?;
    c.produce_plain(tp(&topic, 0), &["before"]).await?;
    begin(&mut producer, vec![output(&topic, 0, "open")]).await?;
    written(c, &topic, 0, 2).await?;
    c.produce_plain(tp(&topic, 0), &["behind"]).await?;
    same("seen", &seen(c, &topic).await?, &strings(&["before"]))?;
    commit_now(&mut producer).await?;
    let all = strings(&["before", "open", "behind"]);
    same("then", &seen(c, &topic).await?, &all)
}

/// The last stable offset is the first offset of the oldest open transaction, and follows the high
/// watermark when there is none (KIP-98).
pub(super) async fn the_last_stable_offset_is_where_the_oldest_open_transaction_begins<
    C: ClusterUnderTest,
>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let names = [c.name("t"), c.name("t")];
    let mut older = RawProducer::open(c, &names[0]).await?;
    let mut newer = RawProducer::open(c, &names[1]).await?;
    c.produce_plain(tp, &["plain"]).await?;
    older.write(c, tp, &["older"]).await?;
    newer.write(c, tp, &["newer"]).await?;
    same("both open", &c.ends(tp).await?.last_stable, &1)?;
    newer.finish(c, true).await?;
    same("the older open", &c.ends(tp).await?.last_stable, &1)?;
    older.finish(c, true).await?;
    let ends = c.ends(tp).await?;
    same(
        "none open",
        &(ends.last_stable, ends.high_watermark),
        &(5, 5),
    )
}

/// With two transactions in one partition, what is seen is in the order of offsets, not of commits
/// (KIP-98).
pub(super) async fn interleaved_transactions_are_seen_in_the_order_of_offsets<
    C: ClusterUnderTest,
>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let names = [c.name("t"), c.name("t")];
    let mut first = RawProducer::open(c, &names[0]).await?;
    let mut second = RawProducer::open(c, &names[1]).await?;
    first.write(c, tp, &["first-1"]).await?;
    second.write(c, tp, &["second-1"]).await?;
    first.write(c, tp, &["first-2"]).await?;
    second.finish(c, true).await?;
    first.finish(c, true).await?;
    let expected = strings(&["first-1", "second-1", "first-2"]);
    same("seen", &seen(c, &topic).await?, &expected)
}

/// An aborted transaction between the records of a committed one hides only its own (KIP-98).
pub(super) async fn an_interleaved_abort_hides_only_its_own_records<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let names = [c.name("t"), c.name("t")];
    let mut good = RawProducer::open(c, &names[0]).await?;
    let mut bad = RawProducer::open(c, &names[1]).await?;
    good.write(c, tp, &["good-1"]).await?;
    bad.write(c, tp, &["bad-1"]).await?;
    good.write(c, tp, &["good-2"]).await?;
    bad.write(c, tp, &["bad-2"]).await?;
    bad.finish(c, false).await?;
    good.write(c, tp, &["good-3"]).await?;
    good.finish(c, true).await?;
    let expected = strings(&["good-1", "good-2", "good-3"]);
    same("seen", &seen(c, &topic).await?, &expected)
}

/// A commit marker and an abort marker take one offset each, on each partition (KIP-98).
pub(super) async fn control_records_take_offsets<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 2).await?;
    let id = c.name("t");
    let mut producer = RawProducer::open(c, &id).await?;
    producer.write(c, tp(&topic, 0), &["a", "b"]).await?;
    producer.write(c, tp(&topic, 1), &["c"]).await?;
    producer.finish(c, true).await?;
    same(
        "committed, 0",
        &c.ends(tp(&topic, 0)).await?.high_watermark,
        &3,
    )?;
    same(
        "committed, 1",
        &c.ends(tp(&topic, 1)).await?.high_watermark,
        &2,
    )?;
    producer.write(c, tp(&topic, 1), &["d"]).await?;
    producer.finish(c, false).await?;
    same(
        "not written",
        &c.ends(tp(&topic, 0)).await?.high_watermark,
        &3,
    )?;
    same("aborted", &c.ends(tp(&topic, 1)).await?.high_watermark, &4)
}

/// The marker that a fetch brings is a control batch of the producer, with the outcome in it
/// (KIP-98).
pub(super) async fn markers_tell_the_outcome<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let id = c.name("t");
    let mut producer = RawProducer::open(c, &id).await?;
    for commits in [true, false] {
        producer.write(c, tp, &["x"]).await?;
        producer.finish(c, commits).await?;
    }
    let mut markers = Vec::new();
    let mut aborted = Vec::new();
    let mut position = 0;
    while position < 4 {
        let fetched = c.fetch(tp, position).await?;
        aborted.extend(fetched.aborted);
        let end = fetched.batches.last().map(|batch| batch.next_offset().0);
        position = end.ok_or_else(|| Failure(format!("nothing at {position}")))?;
        for batch in fetched.batches {
            if let Payload::Marker { commit, .. } = batch.payload {
                let producer = batch.producer.map(|stamp| stamp.id);
                markers.push((batch.base_offset.0, producer, commit));
            }
        }
    }
    let expected = vec![(1, Some(producer.id), true), (3, Some(producer.id), false)];
    same("markers", &markers, &expected)?;
    // Each fetch tells the aborted transactions that overlap with it.
    aborted.dedup();
    same(
        "the aborted index",
        &aborted,
        &vec![(producer.id, Offset(2))],
    )
}

/// An application sees gaps in the offsets where markers and aborted records are.
pub(super) async fn offsets_have_gaps<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let names = [c.name("t"), c.name("g")];
    let mut producer = RawProducer::open(c, &names[0]).await?;
    for (value, commits) in [("a", true), ("b", false), ("c", true)] {
        producer.write(c, tp, &[value]).await?;
        producer.finish(c, commits).await?;
    }
    let mut reader = Member::<C>::join(c, &names[1], &topic, Start::Earliest).await?;
    reader.until_ends().await?;
    same("offsets", &reader.offsets(), &vec![0, 4])
}

/// The end that a consumer is told is the last stable offset, while a transaction is open behind it
/// (librdkafka: PARTITION_EOF under read_committed).
pub(super) async fn the_end_told_is_the_last_stable_offset<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    c.produce_plain(tp(&topic, 0), &["a", "b"]).await?;
    let mut producer = producer(c, &names[0]).await?;
    begin(&mut producer, vec![output(&topic, 0, "open")]).await?;
    written(c, &topic, 0, 3).await?;
    let mut reader = Member::<C>::join(c, &names[1], &topic, Start::Earliest).await?;
    reader.until_ends().await?;
    same("the end", &reader.ends[&PartitionId(0)], &Offset(2))?;
    same("seen before it", &reader.values(), &strings(&["a", "b"]))?;
    commit_now(&mut producer).await?;
    reader.ends.clear();
    reader.until_ends().await?;
    same(
        "the end after the commit",
        &reader.ends[&PartitionId(0)],
        &Offset(4),
    )
}

/// The position passes an abort marker at the end, although nothing is delivered.
pub(super) async fn the_end_lies_behind_a_trailing_abort<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let mut producer = RawProducer::open(c, &names[0]).await?;
    producer.write(c, tp(&topic, 0), &["x", "y"]).await?;
    producer.finish(c, false).await?;
    let mut reader = Member::<C>::join(c, &names[1], &topic, Start::Earliest).await?;
    reader.until_ends().await?;
    same("the end", &reader.ends[&PartitionId(0)], &Offset(3))?;
    same("seen", &reader.values(), &strings(&[]))
}

/// What a transaction wrote to two topics is seen in both once it is committed, and in neither before
/// (KIP-98).
pub(super) async fn a_transaction_covers_several_topics<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topics = [topic(c, 1).await?, topic(c, 2).await?];
    let id = c.name("t");
    let mut producer = producer(c, &id).await?;
    let records = vec![
        output(&topics[0], 0, "a"),
        output(&topics[1], 0, "b"),
        output(&topics[1], 1, "c"),
    ];
    begin(&mut producer, records).await?;
    written(c, &topics[0], 0, 1).await?;
    written(c, &topics[1], 0, 1).await?;
    written(c, &topics[1], 1, 1).await?;
    same("before, 1", &seen(c, &topics[0]).await?, &strings(&[]))?;
    same("before, 2", &seen(c, &topics[1]).await?, &strings(&[]))?;
    commit_now(&mut producer).await?;
    same("after, 1", &seen(c, &topics[0]).await?, &strings(&["a"]))?;
    same(
        "after, 2",
        &seen(c, &topics[1]).await?,
        &strings(&["b", "c"]),
    )
}

/// A transaction without records writes nothing (librdkafka sends no EndTxn for it).
pub(super) async fn an_empty_transaction_writes_nothing<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let mut producer = producer(c, &id).await?;
    begin(&mut producer, Vec::new()).await?;
    commit_now(&mut producer).await?;
    begin(&mut producer, Vec::new()).await?;
    abort_now(&mut producer).await?;
    same("the end", &c.ends(tp(&topic, 0)).await?.high_watermark, &0)?;
    transact(&mut producer, &topic, 0, &["a"]).await?;
    same("then", &seen(c, &topic).await?, &strings(&["a"]))
}

/// Ten transactions in a row of one producer are all seen, although each begins while the markers of
/// the one before may still be on their way (KAFKA-18575).
pub(super) async fn transactions_follow_each_other_at_once<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let mut producer = producer(c, &id).await?;
    let expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    for value in &expected {
        transact(&mut producer, &topic, 0, &[value]).await?;
    }
    same("seen", &seen(c, &topic).await?, &expected)?;
    until!(
        c,
        "all markers",
        c.ends(tp(&topic, 0)).await?.last_stable == 20
    );
    Ok(())
}

/// Records without a transaction are seen as soon as they are replicated.
pub(super) async fn plain_records_are_seen_at_once<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    c.produce_plain(tp(&topic, 0), &["a"]).await?;
    c.produce_plain(tp(&topic, 0), &["b"]).await?;
    same("seen", &seen(c, &topic).await?, &strings(&["a", "b"]))
}

/// Key, value, timestamp and headers (also two of one name) come back as they were sent (KIP-82).
pub(super) async fn a_record_comes_back_as_it_was_sent<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let mut producer = producer(c, &names[0]).await?;
    let mut sent = output(&topic, 0, "value");
    sent.key = Some(Bytes::from_static(b"\x00key\xff"));
    sent.headers = [("a", "1"), ("b", ""), ("a", "2")]
        .map(|(name, value)| Header {
            name: name.into(),
            value: Bytes::from(value),
        })
        .to_vec();
    begin(&mut producer, vec![sent.clone()]).await?;
    commit_now(&mut producer).await?;
    let mut reader = Member::<C>::join(c, &names[1], &topic, Start::Earliest).await?;
    reader.until_seen(1).await?;
    let (_, record) = &reader.records[0];
    same("key", &record.key, &sent.key)?;
    same("value", &record.value, &Some(sent.value))?;
    same("timestamp", &record.timestamp, &sent.timestamp)?;
    same("headers", &record.headers, &sent.headers)
}

/// A record without a partition goes where murmur2 of its key says, as with the Java client
/// (org.apache.kafka.common.utils.Utils.murmur2).
pub(super) async fn the_partitioner_is_that_of_java<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 3).await?;
    let names = [c.name("t"), c.name("g")];
    let mut producer = producer(c, &names[0]).await?;
    // Keys and hashes of Kafka's own UtilsTest.
    let known: [(&str, i32); 5] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("abc", 479_470_107),
    ];
    let records = known.map(|(key, _)| {
        let mut record = output(&topic, 0, key);
        record.partition = None;
        record.key = Some(Bytes::from(key));
        record
    });
    begin(&mut producer, records.to_vec()).await?;
    commit_now(&mut producer).await?;
    let mut reader = Member::<C>::join(c, &names[1], &topic, Start::Earliest).await?;
    reader.until_seen(known.len()).await?;
    for (key, hash) in known {
        let expected = PartitionId((hash & i32::MAX) % 3);
        let found = reader
            .records
            .iter()
            .find(|(_, record)| record.key.as_deref() == Some(key.as_bytes()));
        same(
            key,
            &found.map(|(partition, _)| *partition),
            &Some(expected),
        )?;
    }
    Ok(())
}

/// A reader that starts in the middle of a committed transaction gets the rest of it; one that starts
/// at a marker gets what follows it.
pub(super) async fn a_reader_may_start_anywhere<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let mut producer = RawProducer::open(c, &names[0]).await?;
    producer.write(c, tp(&topic, 0), &["a", "b", "c"]).await?;
    producer.finish(c, true).await?;
    producer.write(c, tp(&topic, 0), &["d"]).await?;
    producer.finish(c, true).await?;
    let mut reader = Member::<C>::join(c, &names[1], &topic, Start::Nowhere).await?;
    for (from, expected) in [(1, vec![1, 2, 4]), (3, vec![4]), (5, vec![])] {
        reader.records.clear();
        reader.ends.clear();
        reader.consumer.start_at(PartitionId(0), Offset(from))?;
        reader.until_ends().await?;
        same("offsets", &reader.offsets(), &expected)?;
    }
    Ok(())
}

/// A reader that starts in the middle of an aborted transaction sees nothing of it (the aborted index
/// of a fetch covers transactions that began before it).
pub(super) async fn an_abort_is_known_from_its_middle<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let mut producer = RawProducer::open(c, &names[0]).await?;
    producer.write(c, tp(&topic, 0), &["x"]).await?;
    producer.write(c, tp(&topic, 0), &["y"]).await?;
    producer.finish(c, false).await?;
    let mut reader = Member::<C>::join(c, &names[1], &topic, Start::Nowhere).await?;
    reader.consumer.start_at(PartitionId(0), Offset(1))?;
    reader.until_ends().await?;
    same("seen", &reader.values(), &strings(&[]))
}

/// Offsets of `bounds` are the log start and the last stable offset, also while a transaction is open.
pub(super) async fn bounds_end_at_the_last_stable_offset<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let mut raw = RawProducer::open(c, &names[0]).await?;
    c.produce_plain(tp(&topic, 0), &["a"]).await?;
    raw.write(c, tp(&topic, 0), &["open"]).await?;
    let mut reader = Member::<C>::join(c, &names[1], &topic, Start::Nowhere).await?;
    let bounds = reader.bounds(PartitionId(0)).await?;
    let found = (bounds.earliest, bounds.last_stable);
    same("open", &found, &(Offset(0), Offset(1)))?;
    raw.finish(c, true).await?;
    let bounds = reader.bounds(PartitionId(0)).await?;
    same("ended", &bounds.last_stable, &Offset(3))
}

/// A message that is larger than message.max.bytes is refused, and nothing of its transaction is seen.
pub(super) async fn a_record_that_is_too_large_fails_its_transaction<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let id = c.name("t");
    let mut producer = RawProducer::open(c, &id).await?;
    let added = producer.add(c, &[tp]).await?;
    added.map_err(refused("AddPartitionsToTxn"))?;
    let large = "x".repeat(1_100_000);
    let produced = producer.produce(c, tp, &[&large]).await?;
    let expected = Err(crate::kafka::protocol::ErrorCode::MessageTooLarge);
    same("Produce", &produced, &expected)?;
    producer.finish(c, false).await?;
    same("seen", &c.values(tp).await?, &strings(&[]))
}

/// Committed and aborted records of two partitions are in agreement after one transaction each.
pub(super) async fn the_outcome_is_one_for_all_partitions<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 3).await?;
    let id = c.name("t");
    let mut producer = producer(c, &id).await?;
    for (value, commits) in [("a", true), ("b", false), ("c", true)] {
        let records = (0..3).map(|number| output(&topic, number, value));
        begin(&mut producer, records.collect()).await?;
        match commits {
            true => commit_now(&mut producer).await?,
            false => producer.abort_transaction(super::steps::PATIENCE).await?,
        }
    }
    let expected = strings(&["a", "c", "a", "c", "a", "c"]);
    same("seen", &seen(c, &topic).await?, &expected)?;
    same("named", &partition(&topic, 2).partition, &PartitionId(2))
}

pub(super) fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}
