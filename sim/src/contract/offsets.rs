//! Committed offsets: with their metadata, in transactions, pending, of several topics, set back,
//! forgotten.

use super::raw::RawProducer;
use super::steps::{
    Member, PATIENCE, Start, abort_now, begin, class_of, commit, commit_now, committed, output,
    partition, producer, seen, send_offsets, topic,
};
use super::visibility::strings;
use super::wire::{Identity, Wire, commit_of, refused, same, tp};
use super::{ClusterUnderTest, Outcome, Topic};
use crate::kafka::protocol::{ErrorCode, RebalanceProtocol};
use processor::io::{Consumer, ErrorClass};
use std::time::Duration;

/// offset.metadata.max.bytes
const METADATA_MAX: usize = 4_096;

/// A member of a group of its own, and a producer.
struct Pair<C: ClusterUnderTest> {
    topic: Topic,
    group: String,
    member: Member<C>,
    producer: super::steps::ProducerOf<C>,
}

async fn pair<C: ClusterUnderTest>(c: &mut C, partitions: u32) -> Result<Pair<C>, super::Failure> {
    let topic = topic(c, partitions).await?;
    let (id, group) = (c.name("t"), c.name("g"));
    let producer = producer(c, &id).await?;
    let member = Member::join(c, &group, &topic, Start::Committed).await?;
    Ok(Pair {
        topic,
        group,
        member,
        producer,
    })
}

/// A partition without a commit answers with nothing.
pub(super) async fn nothing_is_committed_at_first<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 2).await?;
    let group = c.name("g");
    let mut member = Member::<C>::join(c, &group, &topic, Start::Earliest).await?;
    let asked = [partition(&topic, 0), partition(&topic, 1)];
    same(
        "committed",
        &member.committed(&asked).await?,
        &vec![None, None],
    )
}

/// Offset and metadata come back as they were committed, whatever characters they have (KIP-98).
pub(super) async fn offset_and_metadata_come_back<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let mut pair = pair::<C>(c, 1).await?;
    let asked = [partition(&pair.topic, 0)];
    let metadata = "{\"v\":1,\"s\":\"½ 日本 𝄞\"}";
    for (offset, metadata) in [(1, metadata), (2, ""), (3, " a\tb ")] {
        let offsets = [commit(asked[0].clone(), offset, metadata)];
        pair.member
            .commit_with(&mut pair.producer, &offsets)
            .await?;
        let expected = vec![committed(offset, metadata)];
        same(
            "committed",
            &pair.member.committed(&asked).await?,
            &expected,
        )?;
    }
    Ok(())
}

/// 4096 characters of metadata are taken; more are refused, and the transaction must be aborted
/// (offset.metadata.max.bytes; OffsetMetadataManager).
pub(super) async fn metadata_has_a_limit<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let mut pair = pair::<C>(c, 1).await?;
    let asked = [partition(&pair.topic, 0)];
    let most = "m".repeat(METADATA_MAX);
    let offsets = [commit(asked[0].clone(), 1, &most)];
    pair.member
        .commit_with(&mut pair.producer, &offsets)
        .await?;
    let more = "m".repeat(METADATA_MAX + 1);
    let offsets = [commit(asked[0].clone(), 2, &more)];
    let group = pair.member.group()?;
    begin(&mut pair.producer, Vec::new()).await?;
    let result = send_offsets(&mut pair.producer, &offsets, &group).await;
    let code = class_of("offsets", result, ErrorClass::RequiresAbort)?;
    same("the code", &code, &"OFFSET_METADATA_TOO_LARGE".to_owned())?;
    abort_now(&mut pair.producer).await?;
    let expected = vec![committed(1, &most)];
    same(
        "committed",
        &pair.member.committed(&asked).await?,
        &expected,
    )
}

/// The limit counts UTF-16 units, not bytes (OffsetMetadataManager: String.length()).
pub(super) async fn the_metadata_limit_counts_characters<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let raw = RawProducer::open(c, &names[0]).await?;
    raw.add_offsets(c, &names[1])
        .await?
        .map_err(refused("AddOffsetsToTxn"))?;
    let nobody = Identity::nobody();
    let tries = [
        ("é".repeat(METADATA_MAX), Ok(())),
        (
            "é".repeat(METADATA_MAX + 1),
            Err(ErrorCode::OffsetMetadataTooLarge),
        ),
        ("𝄞".repeat(METADATA_MAX / 2), Ok(())),
        (
            "𝄞".repeat(METADATA_MAX / 2 + 1),
            Err(ErrorCode::OffsetMetadataTooLarge),
        ),
    ];
    for (metadata, expected) in tries {
        let what = format!("{} bytes", metadata.len());
        let offsets = vec![commit_of(tp(&topic, 0), 1, &metadata)];
        let result = raw.commit_offsets(c, &names[1], &nobody, offsets).await?;
        same(&what, &result, &expected)?;
    }
    raw.finish(c, false).await
}

/// Offsets of an aborted transaction are never committed (KIP-98).
pub(super) async fn aborted_offsets_are_not_committed<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let mut pair = pair::<C>(c, 1).await?;
    let asked = [partition(&pair.topic, 0)];
    let offsets = [commit(asked[0].clone(), 1, "first")];
    pair.member
        .commit_with(&mut pair.producer, &offsets)
        .await?;
    let group = pair.member.group()?;
    begin(&mut pair.producer, Vec::new()).await?;
    let offsets = [commit(asked[0].clone(), 2, "aborted")];
    send_offsets(&mut pair.producer, &offsets, &group).await?;
    abort_now(&mut pair.producer).await?;
    let expected = vec![committed(1, "first")];
    same(
        "committed",
        &pair.member.committed(&asked).await?,
        &expected,
    )
}

/// While offsets are pending, a stable fetch does not answer; once the transaction is committed it
/// answers with the new ones (KIP-447).
pub(super) async fn pending_offsets_block_a_stable_fetch<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let mut pair = pair::<C>(c, 1).await?;
    let asked = [partition(&pair.topic, 0)];
    let group = pair.member.group()?;
    begin(&mut pair.producer, Vec::new()).await?;
    let offsets = [commit(asked[0].clone(), 4, "pending")];
    send_offsets(&mut pair.producer, &offsets, &group).await?;
    let soon = Duration::from_millis(1_500);
    let answer = pair.member.consumer.committed(&asked, soon).await;
    class_of("committed", answer.map(|_| ()), ErrorClass::Retriable)?;
    commit_now(&mut pair.producer).await?;
    let expected = vec![committed(4, "pending")];
    same(
        "committed",
        &pair.member.committed(&asked).await?,
        &expected,
    )
}

/// After an abort, a stable fetch answers with what was committed before (KIP-447).
pub(super) async fn an_abort_unblocks_a_stable_fetch<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let asked = [tp(&topic, 0)];
    let raw = RawProducer::open(c, &names[0]).await?;
    raw.offset(c, &names[1], commit_of(asked[0], 1, "first"))
        .await?;
    raw.finish(c, true).await?;
    raw.offset(c, &names[1], commit_of(asked[0], 2, "aborted"))
        .await?;
    let pending = c.offsets(&names[1], true, &asked).await?;
    same("pending", &pending, &Err(ErrorCode::UnstableOffsetCommit))?;
    raw.finish(c, false).await?;
    let stored = c.offsets(&names[1], true, &asked).await?;
    same("stable", &stored, &Ok(vec![Some((1, "first".to_owned()))]))
}

/// A fetch that is not stable answers from before the pending transaction (KIP-447).
pub(super) async fn an_unstable_fetch_answers_with_the_old_offset<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let asked = [tp(&topic, 0)];
    let raw = RawProducer::open(c, &names[0]).await?;
    raw.offset(c, &names[1], commit_of(asked[0], 1, "first"))
        .await?;
    raw.finish(c, true).await?;
    raw.offset(c, &names[1], commit_of(asked[0], 2, "second"))
        .await?;
    let stored = c.offsets(&names[1], false, &asked).await?;
    same(
        "unstable",
        &stored,
        &Ok(vec![Some((1, "first".to_owned()))]),
    )?;
    raw.finish(c, true).await?;
    let stored = c.offsets(&names[1], false, &asked).await?;
    same("ended", &stored, &Ok(vec![Some((2, "second".to_owned()))]))
}

/// Pending offsets of one partition do not block the question for another one (KIP-447: the error is
/// a partition's).
pub(super) async fn only_the_pending_partition_blocks<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let mut pair = pair::<C>(c, 2).await?;
    let (first, second) = (partition(&pair.topic, 0), partition(&pair.topic, 1));
    let offsets = [commit(second.clone(), 3, "stable")];
    pair.member
        .commit_with(&mut pair.producer, &offsets)
        .await?;
    let group = pair.member.group()?;
    begin(&mut pair.producer, Vec::new()).await?;
    let offsets = [commit(first.clone(), 4, "pending")];
    send_offsets(&mut pair.producer, &offsets, &group).await?;
    let expected = vec![committed(3, "stable")];
    let answer = pair.member.committed(std::slice::from_ref(&second)).await?;
    same("the other", &answer, &expected)?;
    let soon = Duration::from_millis(1_000);
    let both = [first, second];
    let answer = pair.member.consumer.committed(&both, soon).await;
    class_of("both", answer.map(|_| ()), ErrorClass::Retriable)?;
    abort_now(&mut pair.producer).await
}

/// Pending offsets of one group do not block another one.
pub(super) async fn only_the_pending_group_blocks<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g"), c.name("g")];
    let asked = [tp(&topic, 0)];
    let raw = RawProducer::open(c, &names[0]).await?;
    raw.offset(c, &names[1], commit_of(asked[0], 1, "pending"))
        .await?;
    let other = c.offsets(&names[2], true, &asked).await?;
    same("the other group", &other, &Ok(vec![None]))?;
    raw.finish(c, true).await?;
    let stored = c.offsets(&names[1], true, &asked).await?;
    same(
        "the group",
        &stored,
        &Ok(vec![Some((1, "pending".to_owned()))]),
    )
}

/// Offsets of two partitions in one transaction are committed together (KIP-98).
pub(super) async fn offsets_of_one_transaction_stand_together<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let mut pair = pair::<C>(c, 2).await?;
    let asked = [partition(&pair.topic, 0), partition(&pair.topic, 1)];
    let offsets = [
        commit(asked[0].clone(), 10, "a"),
        commit(asked[1].clone(), 20, "b"),
    ];
    pair.member
        .commit_with(&mut pair.producer, &offsets)
        .await?;
    let expected = vec![committed(10, "a"), committed(20, "b")];
    same(
        "committed",
        &pair.member.committed(&asked).await?,
        &expected,
    )
}

/// Outputs and offsets of one transaction stand or fall together (KIP-447: consume, transform,
/// produce).
pub(super) async fn outputs_and_offsets_stand_together<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let mut pair = pair::<C>(c, 1).await?;
    let outputs = topic(c, 1).await?;
    let asked = [partition(&pair.topic, 0)];
    for (number, commits) in [(1, true), (2, false), (3, true)] {
        let group = pair.member.group()?;
        let value = number.to_string();
        begin(&mut pair.producer, vec![output(&outputs, 0, &value)]).await?;
        let offsets = [commit(asked[0].clone(), number, &value)];
        send_offsets(&mut pair.producer, &offsets, &group).await?;
        match commits {
            true => commit_now(&mut pair.producer).await?,
            false => abort_now(&mut pair.producer).await?,
        }
    }
    let expected = vec![committed(3, "3")];
    same(
        "committed",
        &pair.member.committed(&asked).await?,
        &expected,
    )?;
    same("seen", &seen(c, &outputs).await?, &strings(&["1", "3"]))
}

/// Of two commits of one partition in one transaction the later stands.
pub(super) async fn the_last_offset_of_a_transaction_stands<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let mut pair = pair::<C>(c, 1).await?;
    let asked = [partition(&pair.topic, 0)];
    let group = pair.member.group()?;
    begin(&mut pair.producer, Vec::new()).await?;
    for (offset, metadata) in [(9, "first"), (8, "last")] {
        let offsets = [commit(asked[0].clone(), offset, metadata)];
        send_offsets(&mut pair.producer, &offsets, &group).await?;
    }
    commit_now(&mut pair.producer).await?;
    let expected = vec![committed(8, "last")];
    same(
        "committed",
        &pair.member.committed(&asked).await?,
        &expected,
    )
}

/// Of two transactions that commit one partition's offset, that stands whose offset was written
/// later, whichever ends first (OffsetMetadataManager: pending offsets carry their log offset).
pub(super) async fn what_was_written_later_stands<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("t"), c.name("g")];
    let asked = [tp(&topic, 0)];
    let first = RawProducer::open(c, &names[0]).await?;
    let second = RawProducer::open(c, &names[1]).await?;
    first
        .offset(c, &names[2], commit_of(asked[0], 5, "earlier"))
        .await?;
    second
        .offset(c, &names[2], commit_of(asked[0], 3, "later"))
        .await?;
    second.finish(c, true).await?;
    first.finish(c, true).await?;
    let stored = c.offsets(&names[2], true, &asked).await?;
    same(
        "committed",
        &stored,
        &Ok(vec![Some((3, "later".to_owned()))]),
    )
}

/// A group may commit offsets of a topic that it does not read, and finds them beside those of its
/// input in one answer (what the worker's marks rest on).
pub(super) async fn a_mark_comes_back_beside_the_input<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let mut pair = pair::<C>(c, 2).await?;
    let elsewhere = topic(c, 1).await?;
    let input = partition(&pair.topic, 0);
    let mark = partition(&elsewhere, 0);
    let offsets = [commit(input.clone(), 6, "record")];
    pair.member
        .commit_with(&mut pair.producer, &offsets)
        .await?;
    let unread = partition(&pair.topic, 1);
    let asked = [input, unread, mark.clone()];
    for nonce in ["mark 1", "mark 2"] {
        let offsets = [commit(mark.clone(), 0, nonce)];
        pair.member
            .commit_with(&mut pair.producer, &offsets)
            .await?;
        let expected = vec![committed(6, "record"), None, committed(0, nonce)];
        same(
            "one answer",
            &pair.member.committed(&asked).await?,
            &expected,
        )?;
    }
    Ok(())
}

/// A pending mark blocks the answer for the input too, as both are in one question.
pub(super) async fn a_pending_mark_blocks_the_whole_answer<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let mut pair = pair::<C>(c, 1).await?;
    let elsewhere = topic(c, 1).await?;
    let asked = [partition(&pair.topic, 0), partition(&elsewhere, 0)];
    let group = pair.member.group()?;
    begin(&mut pair.producer, Vec::new()).await?;
    let offsets = [commit(asked[1].clone(), 0, "mark")];
    send_offsets(&mut pair.producer, &offsets, &group).await?;
    let soon = Duration::from_millis(1_000);
    let answer = pair.member.consumer.committed(&asked, soon).await;
    class_of("committed", answer.map(|_| ()), ErrorClass::Retriable)?;
    commit_now(&mut pair.producer).await?;
    let expected = vec![None, committed(0, "mark")];
    same(
        "committed",
        &pair.member.committed(&asked).await?,
        &expected,
    )
}

/// An operator sets the offset of an empty group back, and its metadata is gone with it (what offset
/// reset tools do).
pub(super) async fn an_offset_can_be_set_back<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let Pair {
        topic,
        group,
        mut member,
        mut producer,
    } = pair::<C>(c, 1).await?;
    let asked = [partition(&topic, 0)];
    let offsets = [commit(asked[0].clone(), 10, "record")];
    member.commit_with(&mut producer, &offsets).await?;
    member.consumer.close(PATIENCE).await;
    let nobody = Identity::nobody();
    let reset = commit_of(tp(&topic, 0), 2, "");
    let result = c.commit_plain(&group, &nobody, reset).await?;
    result.map_err(refused("OffsetCommit"))?;
    let mut member = Member::<C>::join(c, &group, &topic, Start::Nowhere).await?;
    same(
        "committed",
        &member.committed(&asked).await?,
        &vec![committed(2, "")],
    )
}

/// A commit outside of transactions by nobody is refused while the group has members
/// (ClassicGroup.validateOffsetCommit).
pub(super) async fn an_offset_cannot_be_set_while_the_group_lives<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let mut pair = pair::<C>(c, 1).await?;
    let nobody = Identity::nobody();
    let reset = commit_of(tp(&pair.topic, 0), 2, "");
    let result = c.commit_plain(&pair.group, &nobody, reset).await?;
    same("OffsetCommit", &result, &Err(ErrorCode::UnknownMemberId))?;
    let asked = [partition(&pair.topic, 0)];
    same(
        "committed",
        &pair.member.committed(&asked).await?,
        &vec![None],
    )
}

/// Offsets that expired, or went with their group, are as if they had never been (KIP-211,
/// DeleteGroups).
pub(super) async fn forgotten_offsets_are_gone<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let Pair {
        topic,
        group,
        mut member,
        mut producer,
    } = pair::<C>(c, 1).await?;
    let asked = [partition(&topic, 0)];
    let offsets = [commit(asked[0].clone(), 10, "record")];
    member.commit_with(&mut producer, &offsets).await?;
    let lively = c.delete_group(&group).await?;
    same("while it lives", &lively, &Err(ErrorCode::NonEmptyGroup))?;
    member.consumer.close(PATIENCE).await;
    same("when it is empty", &c.delete_group(&group).await?, &Ok(()))?;
    let mut member = Member::<C>::join(c, &group, &topic, Start::Nowhere).await?;
    same("committed", &member.committed(&asked).await?, &vec![None])?;
    let offsets = [commit(asked[0].clone(), 11, "anew")];
    member.commit_with(&mut producer, &offsets).await?;
    let expected = vec![committed(11, "anew")];
    same("then", &member.committed(&asked).await?, &expected)
}

/// An unknown group cannot be deleted.
pub(super) async fn an_unknown_group_cannot_be_deleted<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let group = c.name("g");
    let result = c.delete_group(&group).await?;
    same("DeleteGroups", &result, &Err(ErrorCode::GroupIdNotFound))
}

/// A member's commit outside of transactions counts at once, also while a transaction's offset is
/// pending; the one written later stands.
pub(super) async fn plain_and_transactional_commits_are_ordered_by_the_log<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let asked = [tp(&topic, 0)];
    let raw = RawProducer::open(c, &names[0]).await?;
    raw.offset(c, &names[1], commit_of(asked[0], 5, "earlier"))
        .await?;
    let nobody = Identity::nobody();
    let plain = commit_of(asked[0], 3, "later");
    let result = c.commit_plain(&names[1], &nobody, plain).await?;
    result.map_err(refused("OffsetCommit"))?;
    let stored = c.offsets(&names[1], false, &asked).await?;
    same("at once", &stored, &Ok(vec![Some((3, "later".to_owned()))]))?;
    raw.finish(c, true).await?;
    let stored = c.offsets(&names[1], true, &asked).await?;
    same(
        "in the end",
        &stored,
        &Ok(vec![Some((3, "later".to_owned()))]),
    )
}

/// While a group's members have not yet got their assignment, a plain commit of a member is refused,
/// and a transactional one is taken (ClassicGroup.validateOffsetCommit).
pub(super) async fn commits_during_a_rebalance_differ<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let names = [c.name("t"), c.name("g")];
    let raw = RawProducer::open(c, &names[0]).await?;
    let protocol = RebalanceProtocol::Eager;
    let ghost = c.join_as_ghost(&names[1], &topic, protocol, 30_000).await?;
    let plain = commit_of(tp(&topic, 0), 1, "plain");
    let result = c.commit_plain(&names[1], &ghost, plain).await?;
    same("plain", &result, &Err(ErrorCode::RebalanceInProgress))?;
    raw.add_offsets(c, &names[1])
        .await?
        .map_err(refused("AddOffsetsToTxn"))?;
    let offsets = vec![commit_of(tp(&topic, 0), 2, "transactional")];
    let result = raw.commit_offsets(c, &names[1], &ghost, offsets).await?;
    same("transactional", &result, &Ok(()))?;
    raw.finish(c, true).await
}
