//! Consumer groups: who owns what, rebalances of both kinds, and members that fall silent.

use super::steps::{
    Heard, Member, PATIENCE, Start, begin, commit, commit_now, committed, output, partition,
    producer, seen, send_offsets, topic,
};
use super::visibility::strings;
use super::wire::{Identity, Wire, join, refused, same, tp, until};
use super::{ClientOptions, ClusterUnderTest, Failure, Outcome, Topic};
use crate::kafka::protocol::{ErrorCode, RebalanceProtocol, Request, Response};
use processor::io::Consumer;
use processor::units::PartitionId;
use std::collections::BTreeSet;

fn options(protocol: RebalanceProtocol) -> ClientOptions {
    ClientOptions {
        protocol,
        ..ClientOptions::default()
    }
}

fn numbers(partitions: &[PartitionId]) -> BTreeSet<i32> {
    partitions.iter().map(|partition| partition.0).collect()
}

/// Two members of one group, each with its share; the second joined when the first owned all.
async fn two_members<C: ClusterUnderTest>(
    c: &mut C,
    group: &str,
    topic: &Topic,
    options: &ClientOptions,
) -> Result<(Member<C>, Member<C>), Failure> {
    let mut first = Member::<C>::new(c, group, topic, Start::Committed, options)?;
    first.until_owned(topic.partitions).await?;
    let mut second = Member::<C>::new(c, group, topic, Start::Committed, options)?;
    until!(c, "both have a share", {
        first.poll().await?;
        second.poll().await?;
        let all = first.owned.len() + second.owned.len() == topic.partitions as usize;
        let settled = first.identity().is_some() && second.identity().is_some();
        all && settled && !first.owned.is_empty() && !second.owned.is_empty()
    });
    Ok((first, second))
}

/// A member that is alone owns every partition, also with the eager protocol.
pub(super) async fn a_member_alone_owns_everything<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 3).await?;
    for protocol in [RebalanceProtocol::Eager, RebalanceProtocol::Cooperative] {
        let group = c.name("g");
        let options = options(protocol);
        let mut member = Member::<C>::new(c, &group, &topic, Start::Earliest, &options)?;
        member.until_owned(3).await?;
        same("events", &member.heard.len(), &1)?;
    }
    Ok(())
}

/// With the eager protocol a member gives everything back before it gets its share (KIP-62).
pub(super) async fn an_eager_rebalance_revokes_everything<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 3).await?;
    let group = c.name("g");
    let options = options(RebalanceProtocol::Eager);
    let (first, second) = two_members(c, &group, &topic, &options).await?;
    let Some(Heard::Revoked(revoked)) = first.heard.get(1) else {
        return Err(Failure(format!("the first heard {:?}", first.heard)));
    };
    same("revoked", &numbers(revoked), &BTreeSet::from([0, 1, 2]))?;
    let Some(Heard::Assigned(assigned)) = first.heard.last() else {
        return Err(Failure(format!("the first heard {:?}", first.heard)));
    };
    same("owned", &first.owned, &assigned.iter().copied().collect())?;
    let both = first.owned.intersection(&second.owned).count();
    same("owned by both", &both, &0)
}

/// With the cooperative protocol a member gives back only what moves, and is never told again of what
/// it keeps (KIP-429).
pub(super) async fn a_cooperative_rebalance_revokes_what_moves<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 3).await?;
    let group = c.name("g");
    let options = options(RebalanceProtocol::Cooperative);
    let (first, second) = two_members(c, &group, &topic, &options).await?;
    let mut told: Vec<i32> = Vec::new();
    let mut revoked: Vec<PartitionId> = Vec::new();
    for heard in &first.heard {
        match heard {
            Heard::Assigned(partitions) => told.extend(numbers(partitions)),
            Heard::Revoked(partitions) => revoked.extend(partitions),
            Heard::Lost(_) => return Err(Failure(format!("heard {:?}", first.heard))),
        }
    }
    told.sort_unstable();
    same("told to the first", &told, &vec![0, 1, 2])?;
    let moved: BTreeSet<PartitionId> = revoked.into_iter().collect();
    same("moved", &moved, &second.owned)
}

/// A partition that moves is never owned by both members, whatever the protocol.
pub(super) async fn a_moving_partition_has_one_owner<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 2).await?;
    for protocol in [RebalanceProtocol::Eager, RebalanceProtocol::Cooperative] {
        let group = c.name("g");
        let options = options(protocol);
        let mut first = Member::<C>::new(c, &group, &topic, Start::Committed, &options)?;
        first.until_owned(2).await?;
        first.releases = false;
        let mut second = Member::<C>::new(c, &group, &topic, Start::Committed, &options)?;
        until!(c, "the first hears of it", {
            first.poll().await?;
            second.poll().await?;
            first.offered_back.is_some()
        });
        for _ in 0..10 {
            first.poll().await?;
            second.poll().await?;
        }
        same("owned by the second", &second.owned.len(), &0)?;
        let offered = first.offered_back.take().unwrap_or_default();
        first.releases = true;
        first.release(&offered)?;
        until!(c, "both have a share", {
            first.poll().await?;
            second.poll().await?;
            first.owned.len() == 1 && second.owned.len() == 1
        });
    }
    Ok(())
}

/// What a member owned that left goes to those who stay.
pub(super) async fn the_share_of_a_member_that_left_goes_on<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 2).await?;
    for protocol in [RebalanceProtocol::Eager, RebalanceProtocol::Cooperative] {
        let group = c.name("g");
        let options = options(protocol);
        let (first, mut second) = two_members(c, &group, &topic, &options).await?;
        first.consumer.close(PATIENCE).await;
        second.until_owned(2).await?;
    }
    Ok(())
}

/// While partitions are being taken back, their owner can still commit in a transaction; the next
/// owner starts there (what the worker does when it is asked to give partitions back).
pub(super) async fn what_is_revoked_can_still_be_committed<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 2).await?;
    let id = c.name("t");
    let mut producer = producer(c, &id).await?;
    for protocol in [RebalanceProtocol::Eager, RebalanceProtocol::Cooperative] {
        let group = c.name("g");
        let options = options(protocol);
        let mut first = Member::<C>::new(c, &group, &topic, Start::Nowhere, &options)?;
        first.until_owned(2).await?;
        let before = first.group()?;
        first.releases = false;
        let outputs = super::steps::topic(c, 1).await?;
        begin(&mut producer, vec![output(&outputs, 0, "in transaction")]).await?;
        let mut second = Member::<C>::new(c, &group, &topic, Start::Nowhere, &options)?;
        until!(c, "the first hears of it", {
            first.poll().await?;
            second.poll().await?;
            first.offered_back.is_some()
        });
        let offsets = [
            commit(partition(&topic, 0), 3, "while revoked"),
            commit(partition(&topic, 1), 4, "while revoked"),
        ];
        // An eager member is asked before it joins again, a cooperative one after that.
        let identity = first.identity().unwrap_or(before);
        send_offsets(&mut producer, &offsets, &identity).await?;
        commit_now(&mut producer).await?;
        let offered = first.offered_back.take().unwrap_or_default();
        first.releases = true;
        first.release(&offered)?;
        until!(c, "both have a share", {
            first.poll().await?;
            second.poll().await?;
            first.owned.len() == 1 && second.owned.len() == 1
        });
        let asked = [partition(&topic, 0), partition(&topic, 1)];
        let expected = vec![committed(3, "while revoked"), committed(4, "while revoked")];
        same("committed", &second.committed(&asked).await?, &expected)?;
        let expected = strings(&["in transaction"]);
        same("seen", &seen(c, &outputs).await?, &expected)?;
    }
    Ok(())
}

/// A member that says nothing for longer than its session loses its share (KIP-62).
pub(super) async fn a_silent_member_is_removed<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 2).await?;
    let group = c.name("g");
    let protocol = RebalanceProtocol::Cooperative;
    let ghost = c.join_as_ghost(&group, &topic, protocol, 4_000).await?;
    let synced = c.sync_as_ghost(&group, &ghost, &[0, 1]).await?;
    let mut given = synced.map_err(refused("SyncGroup"))?;
    given.sort_unstable();
    same(
        "the ghost owns",
        &given,
        &vec![PartitionId(0), PartitionId(1)],
    )?;
    let options = options(protocol);
    let mut member = Member::<C>::new(c, &group, &topic, Start::Nowhere, &options)?;
    member.until_owned(2).await?;
    let late = c.heartbeat(&group, &ghost).await?;
    same("the ghost", &late, &Err(ErrorCode::UnknownMemberId))
}

/// A member that does not poll for longer than max.poll.interval.ms has lost its partitions, and is
/// told so (KIP-62); then it can come back.
pub(super) async fn a_member_that_does_not_poll_loses_its_share<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let group = c.name("g");
    let slow = ClientOptions {
        session_timeout_ms: 2_000,
        max_poll_interval_ms: 2_500,
        ..ClientOptions::default()
    };
    let mut first = Member::<C>::new(c, &group, &topic, Start::Nowhere, &slow)?;
    first.until_owned(1).await?;
    let options = ClientOptions::default();
    let mut second = Member::<C>::new(c, &group, &topic, Start::Nowhere, &options)?;
    second.until_owned(1).await?;
    until!(c, "the loss", {
        first.poll().await?;
        second.poll().await?;
        matches!(first.heard.last(), Some(Heard::Lost(_)))
    });
    same("owned", &first.owned.len(), &0)?;
    second.consumer.close(PATIENCE).await;
    first.until_owned(1).await
}

/// A first JoinGroup is sent back with a member id (KIP-394).
pub(super) async fn a_new_member_is_given_an_id_first<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let group = c.name("g");
    let request = join(&group, "", &topic, RebalanceProtocol::Eager, 10_000);
    match c.ask_group(&group, request).await? {
        Response::JoinGroup(Err(error)) => {
            same("the code", &error.code, &ErrorCode::MemberIdRequired)?;
            same(
                "an id",
                &error.member_id.is_some_and(|id| !id.is_empty()),
                &true,
            )
        }
        other => Err(Failure(format!("JoinGroup: {other:?}"))),
    }
}

/// JoinGroup with an id that the group did not give is refused.
pub(super) async fn an_unknown_member_cannot_join<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let group = c.name("g");
    let request = join(&group, "stranger", &topic, RebalanceProtocol::Eager, 10_000);
    match c.ask_group(&group, request).await? {
        Response::JoinGroup(Err(error)) => {
            same("the code", &error.code, &ErrorCode::UnknownMemberId)
        }
        other => Err(Failure(format!("JoinGroup: {other:?}"))),
    }
}

/// Heartbeat and SyncGroup tell a wrong generation from a wrong member.
pub(super) async fn a_member_is_checked_with_each_request<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let group = c.name("g");
    let protocol = RebalanceProtocol::Eager;
    let ghost = c.join_as_ghost(&group, &topic, protocol, 30_000).await?;
    let synced = c.sync_as_ghost(&group, &ghost, &[0]).await?;
    same("SyncGroup", &synced, &Ok(vec![PartitionId(0)]))?;
    let older = Identity {
        generation: ghost.generation - 1,
        ..ghost.clone()
    };
    let stranger = Identity {
        member_id: "stranger".into(),
        ..ghost.clone()
    };
    let tries = [
        (&ghost, Ok(())),
        (&older, Err(ErrorCode::IllegalGeneration)),
        (&stranger, Err(ErrorCode::UnknownMemberId)),
    ];
    for (identity, expected) in tries {
        same(
            "Heartbeat",
            &c.heartbeat(&group, identity).await?,
            &expected,
        )?;
        let synced = c.sync_as_ghost(&group, identity, &[0]).await?;
        same("SyncGroup", &synced.map(|_| ()), &expected)?;
    }
    Ok(())
}

/// Members hear of a rebalance by their heartbeats; the generation grows with it.
pub(super) async fn a_rebalance_is_told_by_heartbeats<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 2).await?;
    let group = c.name("g");
    let protocol = RebalanceProtocol::Cooperative;
    let ghost = c.join_as_ghost(&group, &topic, protocol, 30_000).await?;
    let synced = c.sync_as_ghost(&group, &ghost, &[0, 1]).await?;
    synced.map_err(refused("SyncGroup"))?;
    let mut member = Member::<C>::new(c, &group, &topic, Start::Nowhere, &options(protocol))?;
    until!(c, "a rebalance", {
        member.poll().await?;
        match c.heartbeat(&group, &ghost).await? {
            Ok(()) => false,
            Err(code) => {
                same("Heartbeat", &code, &ErrorCode::RebalanceInProgress)?;
                true
            }
        }
    });
    let leave = Request::LeaveGroup {
        group: group.as_str().into(),
        member_id: ghost.member_id.clone(),
    };
    match c.ask_group(&group, leave).await? {
        Response::LeaveGroup(result) => same("LeaveGroup", &result, &Ok(()))?,
        other => return Err(Failure(format!("LeaveGroup: {other:?}"))),
    }
    member.until_owned(2).await
}

/// Members of one group must agree on a protocol.
pub(super) async fn protocols_cannot_be_mixed<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 1).await?;
    let group = c.name("g");
    let eager = RebalanceProtocol::Eager;
    let ghost = c.join_as_ghost(&group, &topic, eager, 30_000).await?;
    let synced = c.sync_as_ghost(&group, &ghost, &[0]).await?;
    synced.map_err(refused("SyncGroup"))?;
    let other = RebalanceProtocol::Cooperative;
    let request = join(&group, "", &topic, other, 10_000);
    match c.ask_group(&group, request).await? {
        Response::JoinGroup(Err(error)) => same(
            "the code",
            &error.code,
            &ErrorCode::InconsistentGroupProtocol,
        ),
        other => Err(Failure(format!("JoinGroup: {other:?}"))),
    }
}

/// A member's own commit outside of transactions is taken, in its generation.
pub(super) async fn a_member_may_commit_without_a_transaction<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let topic = topic(c, 1).await?;
    let group = c.name("g");
    let protocol = RebalanceProtocol::Eager;
    let ghost = c.join_as_ghost(&group, &topic, protocol, 30_000).await?;
    let synced = c.sync_as_ghost(&group, &ghost, &[0]).await?;
    synced.map_err(refused("SyncGroup"))?;
    let older = Identity {
        generation: ghost.generation - 1,
        ..ghost.clone()
    };
    let offset = super::wire::commit_of(tp(&topic, 0), 3, "plain");
    let result = c.commit_plain(&group, &older, offset.clone()).await?;
    same(
        "an older generation",
        &result,
        &Err(ErrorCode::IllegalGeneration),
    )?;
    let result = c.commit_plain(&group, &ghost, offset).await?;
    same("the member", &result, &Ok(()))?;
    let stored = c.offsets(&group, true, &[tp(&topic, 0)]).await?;
    same(
        "committed",
        &stored,
        &Ok(vec![Some((3, "plain".to_owned()))]),
    )
}
