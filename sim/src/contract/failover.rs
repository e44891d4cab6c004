//! What stands when brokers die or stand still: records, transactions, offsets, members.

use super::raw::RawProducer;
use super::steps::{
    Member, PATIENCE, Start, abort_now, begin, class_of, commit, commit_now, committed, output,
    partition, producer, seen, send_offsets, topic, transact, written,
};
use super::visibility::strings;
use super::wire::{Wire, commit_of, refused, same, tp, until};
use super::{ClusterUnderTest, Failure, Outcome, TopicSpec, Trouble};
use crate::kafka::protocol::{CoordinatorKey, ErrorCode};
use processor::io::{ErrorClass, TransactionalProducer};
use std::time::Duration;

/// Long enough to send a request to a broker that stands still, and not to hear of it.
const SOON: Duration = Duration::from_millis(1_500);

async fn kill_leader<C: ClusterUnderTest>(c: &mut C, topic: &super::Topic) -> Result<(), Failure> {
    let leader = c.leader(tp(topic, 0)).await?;
    c.harm(leader, Trouble::Killed).await
}

async fn harm_coordinator<C: ClusterUnderTest>(
    c: &mut C,
    transactional_id: &str,
    trouble: Trouble,
) -> Result<(), Failure> {
    let key = CoordinatorKey::Transaction(transactional_id.into());
    let broker = c.coordinator(&key).await?;
    c.harm(broker, trouble).await
}

async fn kill_group_coordinator<C: ClusterUnderTest>(
    c: &mut C,
    group: &str,
) -> Result<(), Failure> {
    let key = CoordinatorKey::Group(group.into());
    let broker = c.coordinator(&key).await?;
    c.harm(broker, Trouble::Killed).await
}

/// Whatever was acknowledged by all replicas is there after the leader died (acks=all, KIP-101), also
/// the end of an aborted transaction; an open one is still open, and can be committed.
pub(super) async fn what_was_acknowledged_survives_the_leader<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let mut producer = producer(c, &id).await?;
    transact(&mut producer, &topic, 0, &["a", "b"]).await?;
    begin(&mut producer, vec![output(&topic, 0, "aborted")]).await?;
    written(c, &topic, 0, 4).await?;
    abort_now(&mut producer).await?;
    begin(&mut producer, vec![output(&topic, 0, "open")]).await?;
    written(c, &topic, 0, 6).await?;
    kill_leader(c, &topic).await?;
    same(
        "seen",
        &c.values(tp(&topic, 0)).await?,
        &strings(&["a", "b"]),
    )?;
    commit_now(&mut producer).await?;
    let expected = strings(&["a", "b", "open"]);
    same("seen after the commit", &seen(c, &topic).await?, &expected)?;
    c.heal().await?;
    same("seen in the end", &seen(c, &topic).await?, &expected)
}

/// A batch that is sent again to the next leader is still known (KIP-98: producer state is rebuilt
/// from the log).
pub(super) async fn a_resent_batch_is_known_to_the_next_leader<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let tp = tp(&topic, 0);
    let producer = RawProducer::plain(c).await?;
    for (sequence, value) in [(0, "a"), (1, "b")] {
        let stored = producer.produce_at(c, tp, sequence, &[value]).await?;
        stored.map_err(refused("Produce"))?;
    }
    kill_leader(c, &topic).await?;
    let again = producer.produce_at(c, tp, 1, &["b"]).await?;
    same("again", &again, &Ok(1))?;
    let next = producer.produce_at(c, tp, 2, &["c"]).await?;
    same("the next", &next, &Ok(2))?;
    same("seen", &c.values(tp).await?, &strings(&["a", "b", "c"]))?;
    c.heal().await
}

/// The transaction coordinator dies while a transaction is open, after one has ended, and where none
/// has begun: each goes on with the next coordinator (KIP-98: the state is in __transaction_state).
pub(super) async fn transactions_go_on_with_the_next_coordinator<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let key = CoordinatorKey::Transaction(id.as_str().into());
    let home = c.coordinator(&key).await?;
    // Ids of the same coordinator, one for each state.
    let mut ids = vec![id];
    while ids.len() < 4 {
        let id = c.name("t");
        let key = CoordinatorKey::Transaction(id.as_str().into());
        if c.coordinator(&key).await? == home {
            ids.push(id);
        }
    }
    let mut empty = producer(c, &ids[0]).await?;
    let mut open = producer(c, &ids[1]).await?;
    let mut after_commit = producer(c, &ids[2]).await?;
    let mut after_abort = producer(c, &ids[3]).await?;
    transact(&mut after_commit, &topic, 0, &["committed"]).await?;
    begin(&mut after_abort, vec![output(&topic, 0, "aborted")]).await?;
    abort_now(&mut after_abort).await?;
    begin(&mut open, vec![output(&topic, 0, "open")]).await?;
    until!(c, "the open record", {
        let ends = c.ends(tp(&topic, 0)).await?;
        ends.last_stable < ends.high_watermark
    });
    c.harm(home, Trouble::Killed).await?;
    commit_now(&mut open).await?;
    transact(&mut empty, &topic, 0, &["from empty"]).await?;
    transact(&mut after_commit, &topic, 0, &["after a commit"]).await?;
    transact(&mut after_abort, &topic, 0, &["after an abort"]).await?;
    let expected = strings(&[
        "committed",
        "open",
        "from empty",
        "after a commit",
        "after an abort",
    ]);
    same("seen", &seen(c, &topic).await?, &expected)?;
    c.heal().await
}

/// A transaction that was prepared is completed by the next coordinator, whatever the client does
/// (KIP-98).
pub(super) async fn a_decided_transaction_is_completed_by_the_next_coordinator<
    C: ClusterUnderTest,
>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 2).await?;
    let id = c.name("t");
    let key = CoordinatorKey::Transaction(id.as_str().into());
    let mut producer = RawProducer::open(c, &id).await?;
    producer.write(c, tp(&topic, 0), &["a"]).await?;
    producer.write(c, tp(&topic, 1), &["b"]).await?;
    let ended = producer.end(c, true).await?;
    ended.map_err(refused("EndTxn"))?;
    let coordinator = c.coordinator(&key).await?;
    c.harm(coordinator, Trouble::Killed).await?;
    for (number, value) in [(0, "a"), (1, "b")] {
        // The next coordinator cannot know which markers are written, and may write them again.
        until!(c, "the marker", {
            let ends = c.ends(tp(&topic, number)).await?;
            ends.last_stable >= 2 && ends.last_stable == ends.high_watermark
        });
        same(
            "seen",
            &c.values(tp(&topic, number)).await?,
            &strings(&[value]),
        )?;
    }
    same("EndTxn again", &producer.end(c, true).await?, &Ok(()))?;
    c.heal().await
}

/// A fenced producer stays fenced when the coordinator dies (the epoch is in __transaction_state).
pub(super) async fn a_fence_survives_the_coordinator<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let old = RawProducer::open(c, &id).await?;
    let mut new = RawProducer::open(c, &id).await?;
    harm_coordinator(c, &id, Trouble::Killed).await?;
    let added = old.add(c, &[tp(&topic, 0)]).await?;
    same("the older", &added, &Err(ErrorCode::InvalidProducerEpoch))?;
    new.write(c, tp(&topic, 0), &["a"]).await?;
    new.finish(c, true).await?;
    same("seen", &c.values(tp(&topic, 0)).await?, &strings(&["a"]))?;
    c.heal().await
}

/// EndTxn meets a coordinator that stands still: the commit's outcome is unknown, it may be asked
/// again, and succeeds when the coordinator goes on.
pub(super) async fn a_commit_that_was_not_answered_can_be_asked_again<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let id = c.name("t");
    let mut producer = producer(c, &id).await?;
    begin(&mut producer, vec![output(&topic, 0, "a")]).await?;
    written(c, &topic, 0, 1).await?;
    harm_coordinator(c, &id, Trouble::Paused).await?;
    let result = producer.commit_transaction(SOON).await;
    class_of("commit", result, ErrorClass::Retriable)?;
    c.heal().await?;
    commit_now(&mut producer).await?;
    same("seen", &seen(c, &topic).await?, &strings(&["a"]))
}

/// Where an EndTxn was not answered and its producer is gone, a new producer ends what was open; then
/// outputs and committed offsets agree, whatever the outcome was.
pub(super) async fn after_an_unknown_outcome_the_offsets_decide<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let input = topic(c, 1).await?;
    let outputs = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let mut member = Member::<C>::join(c, &names[1], &input, Start::Nowhere).await?;
    let mut old = producer(c, &names[0]).await?;
    let group = member.group()?;
    begin(&mut old, vec![output(&outputs, 0, "a")]).await?;
    let offsets = [commit(partition(&input, 0), 1, "record")];
    send_offsets(&mut old, &offsets, &group).await?;
    written(c, &outputs, 0, 1).await?;
    harm_coordinator(c, &names[0], Trouble::Paused).await?;
    let result = old.commit_transaction(SOON).await;
    class_of("commit", result, ErrorClass::Retriable)?;
    drop(old);
    c.heal().await?;
    let mut new = producer(c, &names[0]).await?;
    let asked = [partition(&input, 0)];
    let answer = member.committed(&asked).await?;
    let values = seen(c, &outputs).await?;
    let expected = match answer[0] {
        Some(_) => (vec![committed(1, "record")], strings(&["a"])),
        None => (vec![None], strings(&[])),
    };
    same("offsets and outputs", &(answer, values), &expected)?;
    transact(&mut new, &outputs, 0, &["next"]).await
}

/// Committed offsets are there after the group's coordinator died, pending ones are still pending,
/// and the member goes on in its generation (KIP-98: all of it is in __consumer_offsets).
pub(super) async fn a_group_goes_on_with_the_next_coordinator<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 2).await?;
    let names = [c.name("t"), c.name("t"), c.name("g")];
    let mut member = Member::<C>::join(c, &names[2], &topic, Start::Nowhere).await?;
    let group = member.group()?;
    let mut writer = producer(c, &names[0]).await?;
    let asked = [partition(&topic, 0), partition(&topic, 1)];
    let offsets = [commit(asked[0].clone(), 5, "record")];
    member.commit_with(&mut writer, &offsets).await?;
    let raw = RawProducer::open(c, &names[1]).await?;
    raw.offset(c, &names[2], commit_of(tp(&topic, 1), 6, "pending"))
        .await?;
    kill_group_coordinator(c, &names[2]).await?;
    let stored = c.offsets(&names[2], true, &[tp(&topic, 0)]).await?;
    same(
        "committed",
        &stored,
        &Ok(vec![Some((5, "record".to_owned()))]),
    )?;
    let stored = c.offsets(&names[2], true, &[tp(&topic, 1)]).await?;
    same("pending", &stored, &Err(ErrorCode::UnstableOffsetCommit))?;
    raw.finish(c, true).await?;
    let offsets = [commit(asked[0].clone(), 7, "same generation")];
    loop {
        begin(&mut writer, Vec::new()).await?;
        match send_offsets(&mut writer, &offsets, &group).await {
            // A client may hang on to the coordinator that died: then another one asks afresh.
            Err(error) if error.class == ErrorClass::OutcomeUnknown => {
                writer = producer(c, &names[0]).await?;
            }
            sent => break sent?,
        }
    }
    commit_now(&mut writer).await?;
    let expected = vec![committed(7, "same generation"), committed(6, "pending")];
    same("in the end", &member.committed(&asked).await?, &expected)?;
    c.heal().await
}

/// With fewer replicas in sync than min.insync.replicas nothing is stored, what was stored can be
/// read, and writing goes on when the replica is back (acks=all).
pub(super) async fn too_few_replicas_store_nothing<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let spec = TopicSpec {
        partitions: 1,
        min_insync_replicas: 3,
        may_grow: false,
    };
    let topic = c.create_topic(spec).await?;
    let tp = tp(&topic, 0);
    let producer = RawProducer::plain(c).await?;
    let stored = producer.produce_at(c, tp, 0, &["a"]).await?;
    stored.map_err(refused("Produce"))?;
    let leader = c.leader(tp).await?;
    let follower = c.brokers().into_iter().find(|broker| *broker != leader);
    let follower = follower.ok_or_else(|| Failure("one broker only".into()))?;
    c.harm(follower, Trouble::Killed).await?;
    // While the dead one counts as in sync nobody is answered; then the refusal comes.
    let mut refusals = 0;
    until!(c, "a refusal", {
        match producer.produce_at(c, tp, 1, &["b"]).await? {
            Err(ErrorCode::NotEnoughReplicas | ErrorCode::NotEnoughReplicasAfterAppend) => {
                refusals += 1;
            }
            Ok(offset) => return Err(Failure(format!("stored at {offset}"))),
            Err(_) => {}
        }
        refusals > 0
    });
    same("seen", &c.values(tp).await?, &strings(&["a"]))?;
    c.heal().await?;
    // The batch may be in the log from when nobody was answered: then it is known.
    until!(
        c,
        "the batch is stored",
        producer.produce_at(c, tp, 1, &["b"]).await? == Ok(1)
    );
    same("in the end", &c.values(tp).await?, &strings(&["a", "b"]))
}

/// A producer's records reach the next leader by themselves, once each.
pub(super) async fn a_producer_goes_on_with_the_next_leader<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 2).await?;
    let id = c.name("t");
    let mut producer = producer(c, &id).await?;
    let some = |from: i32, to: i32| {
        let records = (from..to).map(|number| output(&topic, number % 2, &number.to_string()));
        records.collect::<Vec<_>>()
    };
    begin(&mut producer, some(0, 20)).await?;
    kill_leader(c, &topic).await?;
    for record in some(20, 40) {
        producer.send(record).await?;
    }
    commit_now(&mut producer).await?;
    c.heal().await?;
    let of = |rest: i32| (0..40).filter(move |number| number % 2 == rest);
    let expected: Vec<String> = of(0).chain(of(1)).map(|n| n.to_string()).collect();
    same("seen", &seen(c, &topic).await?, &expected)?;
    insist_on_nothing(&mut producer).await
}

async fn insist_on_nothing<P: TransactionalProducer>(producer: &mut P) -> Outcome {
    begin(producer, Vec::new()).await?;
    Ok(producer.commit_transaction(PATIENCE).await?)
}
