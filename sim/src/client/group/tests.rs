use crate::client::consumer::ConsumerActor;
use crate::client::script::{Script, TOPIC, directory, settings, tp};
use crate::client::settings::ClientSettings;
use crate::kafka::protocol::{
    ErrorCode, GroupMember, JoinError, JoinedGroup, PartitionId, RebalanceProtocol, Request,
    Response,
};
use processor::io::Polled;
use std::sync::Arc;
use std::task::Poll;

fn list(partitions: &[i32]) -> Vec<PartitionId> {
    partitions.iter().map(|p| PartitionId(*p)).collect()
}

fn poll(script: &mut Script<ConsumerActor>) -> Polled {
    match script.call(|actor, now, fx| actor.poll(now, fx)) {
        Poll::Ready(polled) => polled.expect("not fatal"),
        Poll::Pending => {
            script.call(|actor, now, _| actor.end_poll(now));
            Polled::TimedOut
        }
    }
}

fn accept(script: &mut Script<ConsumerActor>, partitions: &[i32]) {
    script
        .call(|actor, now, fx| actor.accept(now, &list(partitions), fx))
        .expect("offered");
}

fn release(script: &mut Script<ConsumerActor>, partitions: &[i32]) {
    script.call(|actor, now, fx| actor.release(now, &list(partitions), fx));
}

/// Answers JoinGroup (and the dance for an id) and SyncGroup with an assignment.
fn join(script: &mut Script<ConsumerActor>, generation: i32, assigned: &[i32]) -> Vec<i32> {
    let mut caught = script.expect("JoinGroup");
    if matches!(&caught.request, Request::JoinGroup { member_id, .. } if member_id.is_empty()) {
        let error = JoinError {
            code: ErrorCode::MemberIdRequired,
            member_id: Some("m1".into()),
        };
        script.answer(&caught, Response::JoinGroup(Err(error)));
        caught = script.expect("JoinGroup");
    }
    let Request::JoinGroup { subscription, .. } = &caught.request else {
        unreachable!("just expected");
    };
    let owned = subscription.owned.iter().map(|p| p.0).collect();
    let joined = JoinedGroup {
        generation,
        member_id: "m1".into(),
        leader: "m0".into(),
        members: Vec::new(),
    };
    script.answer(&caught, Response::JoinGroup(Ok(joined)));
    let sync = script.expect("SyncGroup");
    script.answer(&sync, Response::SyncGroup(Ok(list(assigned))));
    owned
}

fn member(protocol: RebalanceProtocol) -> Script<ConsumerActor> {
    let settings = ClientSettings {
        protocol,
        ..settings()
    };
    let actor = ConsumerActor::new("g", directory(), Arc::new(settings), 0);
    let mut script = Script::new(actor);
    script.call(|actor, now, fx| actor.subscribe(now, TOPIC, fx));
    script
}

fn heartbeat(script: &mut Script<ConsumerActor>, result: Result<(), ErrorCode>) {
    script.pass_ms(1_000);
    let caught = script.expect("Heartbeat");
    script.answer(&caught, Response::Heartbeat(result));
}

#[test]
fn an_eager_member_gives_everything_up_before_it_joins_again() {
    let mut script = member(RebalanceProtocol::Eager);
    join(&mut script, 1, &[0, 1]);
    assert_eq!(poll(&mut script), Polled::Assigned(list(&[0, 1])));
    accept(&mut script, &[0, 1]);
    heartbeat(&mut script, Err(ErrorCode::RebalanceInProgress));
    assert!(
        script.pending().is_empty(),
        "no JoinGroup before the answer"
    );
    assert_eq!(poll(&mut script), Polled::Revoked(list(&[0, 1])));
    assert!(
        script.actor.identity().is_some(),
        "still a member: may commit"
    );
    release(&mut script, &[0, 1]);
    assert!(script.actor.identity().is_none());
    assert!(join(&mut script, 2, &[1]).is_empty());
    assert_eq!(poll(&mut script), Polled::Assigned(list(&[1])));
    assert_eq!(script.actor.identity().map(|id| id.generation), Some(2));
}

#[test]
fn a_cooperative_member_hears_only_of_what_changes() {
    let mut script = member(RebalanceProtocol::Cooperative);
    join(&mut script, 1, &[0, 1]);
    assert_eq!(poll(&mut script), Polled::Assigned(list(&[0, 1])));
    accept(&mut script, &[0, 1]);
    // A generation that changes nothing for this member passes in silence.
    heartbeat(&mut script, Err(ErrorCode::RebalanceInProgress));
    assert_eq!(join(&mut script, 2, &[0, 1]), [0, 1]);
    assert_eq!(poll(&mut script), Polled::TimedOut);
    assert_eq!(script.actor.identity().map(|id| id.generation), Some(2));
    // Partition 1 is taken away: it is given up, and then the member joins again.
    heartbeat(&mut script, Err(ErrorCode::RebalanceInProgress));
    join(&mut script, 3, &[0]);
    assert_eq!(poll(&mut script), Polled::Revoked(list(&[1])));
    assert!(script.pending().iter().all(|name| name != "JoinGroup"));
    release(&mut script, &[1]);
    assert_eq!(join(&mut script, 4, &[0]), [0]);
    assert_eq!(poll(&mut script), Polled::TimedOut);
    // And it gets something more.
    heartbeat(&mut script, Err(ErrorCode::RebalanceInProgress));
    join(&mut script, 5, &[0, 2]);
    assert_eq!(poll(&mut script), Polled::Assigned(list(&[2])));
}

#[test]
fn a_member_without_a_heartbeat_for_a_session_has_lost_everything() {
    let mut script = member(RebalanceProtocol::Cooperative);
    join(&mut script, 1, &[0, 1]);
    poll(&mut script);
    accept(&mut script, &[0, 1]);
    script.pass_ms(6_100);
    assert!(script.was_noted("member-lost"));
    assert!(script.actor.identity().is_none());
    script.pending();
    assert_eq!(poll(&mut script), Polled::Lost(list(&[0, 1])));
    assert!(script.pending().iter().all(|name| name != "JoinGroup"));
    release(&mut script, &[0, 1]);
    assert!(join(&mut script, 2, &[0]).is_empty());
}

#[test]
fn an_offered_assignment_that_is_lost_cannot_be_accepted() {
    let mut script = member(RebalanceProtocol::Cooperative);
    join(&mut script, 1, &[0]);
    assert_eq!(poll(&mut script), Polled::Assigned(list(&[0])));
    heartbeat(&mut script, Err(ErrorCode::UnknownMemberId));
    let refused = script.call(|actor, now, fx| actor.accept(now, &list(&[0]), fx));
    assert!(refused.is_err());
    assert_eq!(poll(&mut script), Polled::Lost(list(&[0])));
}

#[test]
fn a_member_that_does_not_poll_leaves_and_learns_of_it_at_its_next_poll() {
    let mut script = member(RebalanceProtocol::Cooperative);
    join(&mut script, 1, &[0]);
    poll(&mut script);
    accept(&mut script, &[0]);
    for _ in 0..19 {
        heartbeat(&mut script, Ok(()));
    }
    script.pass_ms(2_000);
    assert!(script.was_noted("max-poll-exceeded"));
    assert!(script.pending().contains(&"LeaveGroup".to_string()));
    assert_eq!(poll(&mut script), Polled::Lost(list(&[0])));
    release(&mut script, &[0]);
    script.expect("JoinGroup");
}

#[test]
fn the_leader_assigns_for_all() {
    let mut script = member(RebalanceProtocol::Eager);
    let caught = script.expect("JoinGroup");
    let Request::JoinGroup { subscription, .. } = &caught.request else {
        unreachable!("just expected");
    };
    let members = ["m1", "m2"].map(|id| GroupMember {
        member_id: id.into(),
        subscription: subscription.clone(),
    });
    let joined = JoinedGroup {
        generation: 1,
        member_id: "m1".into(),
        leader: "m1".into(),
        members: members.to_vec(),
    };
    script.answer(&caught, Response::JoinGroup(Ok(joined)));
    let sync = script.expect("SyncGroup");
    let Request::SyncGroup { assignments, .. } = &sync.request else {
        unreachable!("just expected");
    };
    assert_eq!(assignments[0].1, list(&[0, 1]));
    assert_eq!(assignments[1].1, list(&[2]));
    assert_eq!(tp(0).partition, assignments[0].1[0]);
}
