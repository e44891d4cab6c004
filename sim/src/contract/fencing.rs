//! Who may still write: fencing by InitProducerId, by timeout, and by the group's generation.

use super::raw::RawProducer;
use super::steps::{
    Member, PATIENCE, Start, abort_now, begin, class_of, commit, commit_now, output, partition,
    producer, producer_with, seen, send_offsets, topic, transact, written,
};
use super::visibility::strings;
use super::wire::{Identity, Wire, commit_of, refused, same, tp, until};
use super::{ClientOptions, ClusterUnderTest, Failure, Outcome};
use crate::kafka::protocol::ErrorCode;
use processor::io::{Consumer, ErrorClass, TransactionalProducer};

/// InitProducerId of a newer producer ends what the older one has open, and the older one's commit
/// fails (KIP-98).
pub(super) async fn a_newer_producer_fences_the_commit_of_an_older_one<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let mut old = producer(c, &id).await?;
    begin(&mut old, vec![output(&topic, 0, "zombie")]).await?;
    written(c, &topic, 0, 1).await?;
    let mut new = producer(c, &id).await?;
    let result = old.commit_transaction(PATIENCE).await;
    class_of("commit of the older", result, ErrorClass::Fenced)?;
    transact(&mut new, &topic, 0, &["a"]).await?;
    same("seen", &seen(c, &topic).await?, &strings(&["a"]))
}

/// A fenced producer stays dead: it can neither begin nor send nor abort.
pub(super) async fn a_fenced_producer_is_dead<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let mut old = producer(c, &id).await?;
    let _new = producer(c, &id).await?;
    begin(&mut old, vec![output(&topic, 0, "zombie")]).await?;
    let result = old.commit_transaction(PATIENCE).await;
    class_of("commit", result, ErrorClass::Fenced)?;
    class_of("begin", old.begin_transaction(), ErrorClass::Fenced)?;
    let result = old.abort_transaction(PATIENCE).await;
    class_of("abort", result, ErrorClass::Fenced)?;
    same("seen", &seen(c, &topic).await?, &strings(&[]))
}

/// When init_transactions returns, what the former producer left open has ended everywhere: nothing
/// hides behind it (KIP-98; what recovery after an unknown outcome rests on).
pub(super) async fn nothing_is_open_after_init_transactions<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 2).await?;
    let id = c.name("t");
    let mut old = producer(c, &id).await?;
    let records = vec![output(&topic, 0, "x"), output(&topic, 1, "y")];
    begin(&mut old, records).await?;
    written(c, &topic, 0, 1).await?;
    written(c, &topic, 1, 1).await?;
    let _new = producer(c, &id).await?;
    for number in 0..2 {
        let ends = c.ends(tp(&topic, number)).await?;
        let found = (ends.last_stable, ends.high_watermark);
        same("the ends", &found, &(2, 2))?;
    }
    same("seen", &seen(c, &topic).await?, &strings(&[]))
}

/// Producers with different transactional ids do not disturb each other.
pub(super) async fn other_transactional_ids_are_not_fenced<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("t")];
    let mut first = producer(c, &names[0]).await?;
    begin(&mut first, vec![output(&topic, 0, "a")]).await?;
    written(c, &topic, 0, 1).await?;
    let mut second = producer(c, &names[1]).await?;
    begin(&mut second, vec![output(&topic, 0, "b")]).await?;
    commit_now(&mut second).await?;
    commit_now(&mut first).await?;
    same("seen", &seen(c, &topic).await?, &strings(&["a", "b"]))
}

/// Each InitProducerId of a transactional id gives the same producer id and the next epoch (KIP-98).
pub(super) async fn each_init_gives_the_next_epoch<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let id = c.name("t");
    let mut known: Option<RawProducer> = None;
    for _ in 0..3 {
        let given = RawProducer::open(c, &id).await?;
        if let Some(known) = known {
            let expected = (known.id, known.epoch + 1);
            same("id and epoch", &(given.id, given.epoch), &expected)?;
        }
        known = Some(given);
    }
    Ok(())
}

/// A Produce with an older epoch is refused by the leader (KIP-98).
pub(super) async fn produce_with_an_older_epoch_is_refused<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let mut old = RawProducer::open(c, &id).await?;
    old.write(c, tp(&topic, 0), &["zombie"]).await?;
    let mut new = RawProducer::open(c, &id).await?;
    let produced = old.produce(c, tp(&topic, 0), &["late"]).await?;
    let expected = Err(ErrorCode::InvalidProducerEpoch);
    same("Produce of the older", &produced, &expected)?;
    new.write(c, tp(&topic, 0), &["a"]).await?;
    new.finish(c, true).await?;
    same("seen", &c.values(tp(&topic, 0)).await?, &strings(&["a"]))
}

/// The coordinator refuses AddPartitionsToTxn, AddOffsetsToTxn and EndTxn of an older epoch (KIP-98;
/// versions without KIP-588 say INVALID_PRODUCER_EPOCH).
pub(super) async fn requests_with_an_older_epoch_are_refused<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let old = RawProducer::open(c, &names[0]).await?;
    let _new = RawProducer::open(c, &names[0]).await?;
    let expected = Err(ErrorCode::InvalidProducerEpoch);
    let added = old.add(c, &[tp(&topic, 0)]).await?;
    same("AddPartitionsToTxn", &added, &expected)?;
    let added = old.add_offsets(c, &names[1]).await?;
    same("AddOffsetsToTxn", &added, &expected)?;
    same("EndTxn", &old.end(c, true).await?, &expected)
}

/// Offsets of a fenced producer are refused by the group coordinator, which heard of the newer epoch
/// with the marker (KIP-98).
pub(super) async fn offsets_with_an_older_epoch_are_refused<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let old = RawProducer::open(c, &names[0]).await?;
    let first = commit_of(tp(&topic, 0), 1, "zombie");
    old.offset(c, &names[1], first).await?;
    let _new = RawProducer::open(c, &names[0]).await?;
    let late = vec![commit_of(tp(&topic, 0), 2, "late")];
    let nobody = Identity::nobody();
    let refused = old.commit_offsets(c, &names[1], &nobody, late).await?;
    let expected = Err(ErrorCode::InvalidProducerEpoch);
    same("TxnOffsetCommit", &refused, &expected)?;
    let stored = c.offsets(&names[1], true, &[tp(&topic, 0)]).await?;
    same("committed", &stored, &Ok(vec![None]))
}

/// A producer id that is not the transactional id's is refused (KIP-98).
pub(super) async fn a_foreign_producer_id_is_refused<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("t")];
    let mine = RawProducer::open(c, &names[0]).await?;
    let mut mixed = RawProducer::open(c, &names[1]).await?;
    mixed.id = mine.id;
    let expected = Err(ErrorCode::InvalidProducerIdMapping);
    same("EndTxn", &mixed.end(c, true).await?, &expected)?;
    let added = mixed.add(c, &[tp(&topic, 0)]).await?;
    same("AddPartitionsToTxn", &added, &expected)
}

/// A transaction that is open for longer than its timeout is aborted by the coordinator, and its
/// producer's commit fails (KIP-98; protocol version 1 cannot tell it from a newer producer).
pub(super) async fn a_transaction_that_takes_too_long_is_aborted<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let options = ClientOptions {
        transaction_timeout_ms: 1_500,
        ..ClientOptions::default()
    };
    let mut slow = producer_with(c, &id, &options).await?;
    begin(&mut slow, vec![output(&topic, 0, "late")]).await?;
    written(c, &topic, 0, 2).await?;
    let ends = c.ends(tp(&topic, 0)).await?;
    same("nothing is open", &ends.last_stable, &ends.high_watermark)?;
    let result = slow.commit_transaction(PATIENCE).await;
    class_of("commit", result, ErrorClass::Fenced)?;
    same("seen", &seen(c, &topic).await?, &strings(&[]))
}

/// The abort of a transaction that took too long bumps the producer's epoch (KIP-98), and the next
/// InitProducerId goes on from there.
pub(super) async fn a_timeout_bumps_the_epoch<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let id = c.name("t");
    let opened = RawProducer::transactional(c, &id, 1_000).await?;
    let mut slow = opened.map_err(refused("InitProducerId"))?;
    slow.write(c, tp, &["late"]).await?;
    until!(c, "the abort", c.ends(tp).await?.high_watermark == 2);
    let expected = Err(ErrorCode::InvalidProducerEpoch);
    same("EndTxn", &slow.end(c, true).await?, &expected)?;
    let next = RawProducer::open(c, &id).await?;
    same("producer id", &next.id, &slow.id)?;
    same("epoch", &next.epoch, &(slow.epoch + 2))
}

/// Offsets of a member of an older generation are refused, the transaction must be aborted, and then
/// the producer goes on (KIP-447).
pub(super) async fn an_older_generation_is_fenced<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 2).await?;
    let names = [c.name("t"), c.name("g")];
    let mut producer = producer(c, &names[0]).await?;
    let mut first = Member::<C>::join(c, &names[1], &topic, Start::Committed).await?;
    let before = first.group()?;
    let mut second = Member::<C>::new(
        c,
        &names[1],
        &topic,
        Start::Committed,
        &ClientOptions::default(),
    )?;
    until!(c, "both have a share", {
        first.poll().await?;
        second.poll().await?;
        first.owned.len() == 1 && second.owned.len() == 1
    });
    let offsets = [commit(partition(&topic, 0), 7, "old")];
    begin(&mut producer, vec![output(&topic, 0, "x")]).await?;
    let result = send_offsets(&mut producer, &offsets, &before).await;
    let code = class_of("offsets", result, ErrorClass::RequiresAbort)?;
    same("the code", &code, &"ILLEGAL_GENERATION".to_owned())?;
    abort_now(&mut producer).await?;
    let asked = [partition(&topic, 0)];
    same("committed", &first.committed(&asked).await?, &vec![None])?;
    let offsets = [commit(partition(&topic, 0), 8, "new")];
    first.commit_with(&mut producer, &offsets).await?;
    let expected = vec![super::steps::committed(8, "new")];
    same("then", &first.committed(&asked).await?, &expected)
}

/// Offsets of a member that left are refused (KIP-447), also when the group is empty now.
pub(super) async fn a_member_that_left_is_fenced<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let mut producer = producer(c, &names[0]).await?;
    let member = Member::<C>::join(c, &names[1], &topic, Start::Committed).await?;
    let before = member.group()?;
    member.consumer.close(PATIENCE).await;
    begin(&mut producer, vec![output(&topic, 0, "x")]).await?;
    let offsets = [commit(partition(&topic, 0), 7, "old")];
    let result = send_offsets(&mut producer, &offsets, &before).await;
    let code = class_of("offsets", result, ErrorClass::RequiresAbort)?;
    same("the code", &code, &"UNKNOWN_MEMBER_ID".to_owned())?;
    abort_now(&mut producer).await?;
    same("seen", &seen(c, &topic).await?, &strings(&[]))
}

/// Generation −1 without a member id passes while the group is empty, and also while it has members:
/// such a commit fences nothing (KIP-447, ClassicGroup.validateOffsetCommit).
pub(super) async fn a_commit_of_nobody_is_not_fenced<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let raw = RawProducer::open(c, &names[0]).await?;
    let first = commit_of(tp(&topic, 0), 1, "empty");
    raw.offset(c, &names[1], first).await?;
    raw.finish(c, true).await?;
    let mut member = Member::<C>::join(c, &names[1], &topic, Start::Nowhere).await?;
    let second = commit_of(tp(&topic, 0), 2, "with members");
    raw.offset(c, &names[1], second).await?;
    raw.finish(c, true).await?;
    let expected = vec![super::steps::committed(2, "with members")];
    let asked = [partition(&topic, 0)];
    same("committed", &member.committed(&asked).await?, &expected)
}

/// TxnOffsetCommit tells a wrong generation from a wrong member id (KIP-447).
pub(super) async fn wrong_generation_and_wrong_member_are_told_apart<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let raw = RawProducer::open(c, &names[0]).await?;
    let protocol = crate::kafka::protocol::RebalanceProtocol::Eager;
    let ghost = c.join_as_ghost(&names[1], &topic, protocol, 30_000).await?;
    let synced = c.sync_as_ghost(&names[1], &ghost, &[0]).await?;
    synced.map_err(refused("SyncGroup"))?;
    raw.add_offsets(c, &names[1])
        .await?
        .map_err(refused("AddOffsetsToTxn"))?;
    let mut older = ghost.clone();
    older.generation -= 1;
    let mut stranger = ghost.clone();
    stranger.member_id = "stranger".into();
    let tries = [
        (
            "an older generation",
            &older,
            Err(ErrorCode::IllegalGeneration),
        ),
        ("a stranger", &stranger, Err(ErrorCode::UnknownMemberId)),
        ("the member", &ghost, Ok(())),
    ];
    for (who, identity, expected) in tries {
        let offsets = vec![commit_of(tp(&topic, 0), 5, who)];
        let result = raw.commit_offsets(c, &names[1], identity, offsets).await?;
        same(who, &result, &expected)?;
    }
    raw.finish(c, true).await?;
    let stored = c.offsets(&names[1], true, &[tp(&topic, 0)]).await?;
    let expected = Ok(vec![Some((5, "the member".to_owned()))]);
    same("committed", &stored, &expected)
}

/// Of two producers with one transactional id that initialise in turn, only the last can commit.
pub(super) async fn the_last_to_initialise_wins<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let mut producers = Vec::new();
    for _ in 0..3 {
        producers.push(producer(c, &id).await?);
    }
    let Some(mut last) = producers.pop() else {
        return Err(Failure("no producer".into()));
    };
    for (number, old) in producers.iter_mut().enumerate() {
        begin(old, vec![output(&topic, 0, &format!("zombie-{number}"))]).await?;
        let result = old.commit_transaction(PATIENCE).await;
        class_of("commit of an older one", result, ErrorClass::Fenced)?;
    }
    transact(&mut last, &topic, 0, &["a"]).await?;
    same("seen", &seen(c, &topic).await?, &strings(&["a"]))
}
