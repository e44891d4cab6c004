//! Groups: membership, rebalances, who may commit, failover.

use super::transactions::GROUP;
use super::*;
use crate::kafka::protocol::CoordinatorKey;

impl World {
    fn group_coordinator(&mut self) -> BrokerId {
        let partition = self.brokers[0].layout().group_partition(GROUP);
        self.leader(partition)
    }

    fn join_request(member_id: &str, owned: &[i32]) -> Request {
        Request::JoinGroup {
            group: GROUP.into(),
            member_id: member_id.into(),
            session_timeout_ms: 6_000,
            rebalance_timeout_ms: 10_000,
            protocol: RebalanceProtocol::Cooperative,
            subscription: Subscription {
                topic: INPUT,
                owned: owned
                    .iter()
                    .map(|partition| PartitionId(*partition))
                    .collect(),
                owned_generation: -1,
            },
        }
    }

    /// Asks for a member id and sends the JoinGroup with it.
    fn start_joining(&mut self) -> (Arc<str>, u64) {
        let to = self.group_coordinator();
        let id = match self.ask(to, World::join_request("", &[])) {
            Response::JoinGroup(Err(JoinError {
                code: ErrorCode::MemberIdRequired,
                member_id: Some(id),
            })) => id,
            other => panic!("{other:?}"),
        };
        let correlation = self.send(to, World::join_request(&id, &[]));
        (id, correlation)
    }

    fn joined(&mut self, correlation: u64) -> JoinedGroup {
        for _ in 0..2_000 {
            match self.answers.remove(&correlation) {
                Some(Response::JoinGroup(Ok(joined))) => return joined,
                Some(other) => panic!("{other:?}"),
                None => self.run(10),
            }
        }
        panic!("did not join: {:?}", self.notes);
    }

    fn start_sync(&mut self, member: &Arc<str>, generation: i32, all: &[(&Arc<str>, i32)]) -> u64 {
        let to = self.group_coordinator();
        let assignments = all
            .iter()
            .map(|(id, p)| (Arc::clone(id), vec![PartitionId(*p)]));
        let request = Request::SyncGroup {
            group: GROUP.into(),
            member_id: Arc::clone(member),
            generation,
            assignments: assignments.collect(),
        };
        self.send(to, request)
    }

    fn heartbeat(&mut self, member: &Arc<str>, generation: i32) -> Result<(), ErrorCode> {
        let to = self.group_coordinator();
        let request = Request::Heartbeat {
            group: GROUP.into(),
            member_id: Arc::clone(member),
            generation,
        };
        match self.ask(to, request) {
            Response::Heartbeat(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn leave(&mut self, member: &Arc<str>) -> Result<(), ErrorCode> {
        let to = self.group_coordinator();
        let request = Request::LeaveGroup {
            group: GROUP.into(),
            member_id: Arc::clone(member),
        };
        match self.ask(to, request) {
            Response::LeaveGroup(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn synced(&mut self, correlation: u64) -> Result<Vec<PartitionId>, ErrorCode> {
        for _ in 0..2_000 {
            match self.answers.remove(&correlation) {
                Some(Response::SyncGroup(result)) => return result,
                Some(other) => panic!("{other:?}"),
                None => self.run(10),
            }
        }
        panic!("did not sync: {:?}", self.notes);
    }

    /// Two members in a stable group: the leader first.
    fn two_members(&mut self) -> (Arc<str>, Arc<str>, i32) {
        let (a, join_a) = self.start_joining();
        let (b, join_b) = self.start_joining();
        let joined_a = self.joined(join_a);
        let joined_b = self.joined(join_b);
        assert_eq!(joined_a.generation, joined_b.generation);
        assert_eq!((&joined_a.leader, &joined_b.leader), (&a, &a));
        assert_eq!((joined_a.members.len(), joined_b.members.len()), (2, 0));
        let generation = joined_a.generation;
        let sync_b = self.start_sync(&b, generation, &[]);
        let sync_a = self.start_sync(&a, generation, &[(&a, 0), (&b, 1)]);
        assert_eq!(self.synced(sync_a), Ok(vec![PartitionId(0)]));
        assert_eq!(self.synced(sync_b), Ok(vec![PartitionId(1)]));
        (a, b, generation)
    }
}

#[test]
fn members_that_come_together_share_one_generation_and_get_the_leaders_assignment() {
    let mut world = World::new();
    let (a, b, generation) = world.two_members();
    assert_eq!(generation, 1);
    assert_eq!(world.heartbeat(&a, 1), Ok(()));
    assert_eq!(world.heartbeat(&b, 0), Err(ErrorCode::IllegalGeneration));
    let stranger: Arc<str> = "stranger".into();
    assert_eq!(
        world.heartbeat(&stranger, 1),
        Err(ErrorCode::UnknownMemberId)
    );
    // A repeated SyncGroup gets the same again.
    let again = world.start_sync(&b, 1, &[]);
    assert_eq!(world.synced(again), Ok(vec![PartitionId(1)]));
}

#[test]
fn a_newcomer_starts_a_rebalance_that_waits_for_everybody() {
    let mut world = World::new();
    let (a, b, _) = world.two_members();
    let (_, join_c) = world.start_joining();
    world.run(100);
    assert_eq!(world.heartbeat(&a, 1), Err(ErrorCode::RebalanceInProgress));
    let to = world.group_coordinator();
    let join_a = world.send(to, World::join_request(&a, &[0]));
    world.run(100);
    assert!(!world.answers.contains_key(&join_a));
    let join_b = world.send(to, World::join_request(&b, &[1]));
    let joined = world.joined(join_a);
    assert_eq!((joined.generation, joined.members.len()), (2, 3));
    assert_eq!(joined.members[0].subscription.owned.len(), 1);
    assert_eq!(world.joined(join_b).generation, 2);
    assert_eq!(world.joined(join_c).generation, 2);
}

#[test]
fn who_does_not_rejoin_in_time_is_out() {
    let mut world = World::new();
    let (a, b, _) = world.two_members();
    let to = world.group_coordinator();
    let join_a = world.send(to, World::join_request(&a, &[0]));
    let joined = world.joined(join_a);
    assert_eq!((joined.generation, joined.members.len()), (2, 1));
    assert_eq!(world.heartbeat(&b, 1), Err(ErrorCode::UnknownMemberId));
    assert!(world.count("member-expired") >= 1);
}

#[test]
fn a_silent_member_expires_and_the_rest_rebalances() {
    let mut world = World::new();
    let (a, _, _) = world.two_members();
    for _ in 0..3 {
        world.run(2_500);
        if world.heartbeat(&a, 1) == Err(ErrorCode::RebalanceInProgress) {
            assert_eq!(world.count("member-expired"), 1);
            return;
        }
    }
    panic!("nobody expired: {:?}", world.notes);
}

#[test]
fn a_member_that_leaves_starts_a_rebalance_and_the_last_one_leaves_an_empty_group() {
    let mut world = World::new();
    let (a, b, _) = world.two_members();
    assert_eq!(world.leave(&b), Ok(()));
    assert_eq!(world.leave(&b), Err(ErrorCode::UnknownMemberId));
    assert_eq!(world.heartbeat(&a, 1), Err(ErrorCode::RebalanceInProgress));
    assert_eq!(world.leave(&a), Ok(()));
    world.run(100);
    assert_eq!(world.heartbeat(&a, 1), Err(ErrorCode::UnknownMemberId));
    // Now anybody may commit with generation -1.
    let producer = world.init_until_ready("tx");
    assert_eq!(world.commit_offset(&producer, 3, "", (-1, "x")), Ok(()));
}

#[test]
fn another_protocol_is_refused() {
    let mut world = World::new();
    world.two_members();
    let to = world.group_coordinator();
    let mut request = World::join_request("", &[]);
    if let Request::JoinGroup { protocol, .. } = &mut request {
        *protocol = RebalanceProtocol::Eager;
    }
    let answer = world.ask(to, request);
    assert!(
        matches!(&answer, Response::JoinGroup(Err(e)) if e.code == ErrorCode::InconsistentGroupProtocol),
        "{answer:?}"
    );
}

#[test]
fn offsets_are_taken_from_current_members_only() {
    let mut world = World::new();
    let (a, _, _) = world.two_members();
    let producer = world.init_until_ready("tx");
    let mut commit =
        |generation, member: &str| world.commit_offset(&producer, 1, "", (generation, member));
    assert_eq!(commit(0, &a), Err(ErrorCode::IllegalGeneration));
    assert_eq!(commit(1, "stranger"), Err(ErrorCode::UnknownMemberId));
    assert_eq!(commit(-1, "stranger"), Err(ErrorCode::UnknownMemberId));
    assert_eq!(commit(1, &a), Ok(()));
    // During a rebalance the old generation still commits transactionally.
    world.start_joining();
    world.run(50);
    assert_eq!(world.commit_offset(&producer, 2, "", (1, &a)), Ok(()));
    world.end(&producer, true).expect("committed");
    world.run(100);
    assert_eq!(world.offset(), Ok(Some((Offset(2), "".into()))));
}

#[test]
fn a_group_outlives_its_coordinator_with_members_and_generation() {
    let mut world = World::new();
    let (a, b, generation) = world.two_members();
    let old = world.group_coordinator();
    world.crash(old);
    world.run(9_500);
    let found = world.coordinator_from_others(old);
    assert_ne!(found, old);
    assert_eq!(world.heartbeat(&a, generation), Ok(()));
    assert_eq!(world.heartbeat(&b, generation), Ok(()));
    let again = world.start_sync(&b, generation, &[]);
    assert_eq!(world.synced(again), Ok(vec![PartitionId(1)]));
}

#[test]
fn who_waits_to_join_is_told_that_the_coordinator_moved() {
    let mut world = World::new();
    let (a, b, _) = world.two_members();
    let old = world.group_coordinator();
    // Cut off from the cluster, but not from the members.
    world.rule = Some(isolate(old));
    for _ in 0..2 {
        world.run(3_700);
        assert_eq!(world.heartbeat(&a, 1), Ok(()));
        assert_eq!(world.heartbeat(&b, 1), Ok(()));
    }
    let (_, join) = world.start_joining();
    world.run(2_500);
    assert_ne!(world.group_coordinator(), old);
    world.rule = None;
    world.run(2_500);
    let answer = world.answers.remove(&join);
    assert!(
        matches!(&answer, Some(Response::JoinGroup(Err(e))) if e.code == ErrorCode::NotCoordinator),
        "{answer:?}"
    );
}

impl World {
    fn coordinator_from_others(&mut self, not: BrokerId) -> BrokerId {
        let from = (1..=3)
            .map(BrokerId)
            .find(|id| *id != not)
            .expect("three brokers");
        let key = CoordinatorKey::Group(GROUP.into());
        match self.ask(from, Request::FindCoordinator { key }) {
            Response::FindCoordinator(Ok(broker)) => broker,
            other => panic!("{other:?}"),
        }
    }
}
