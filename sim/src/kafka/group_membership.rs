//! A consumer group of the classic protocol: members, generations, rebalances. Pure: what it decides
//! is collected in an [`Outcome`].

use super::coordinator::Asker;
use super::group_state::{Gathering, Member, Outcome, State, Store};
use super::internal::{InternalRecord, StoredMember};
use super::protocol::{
    ErrorCode, GroupMember, JoinError, JoinedGroup, PartitionId, RebalanceProtocol, Request,
    Response, Subscription,
};
use crate::fabric::actor::Micros;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    name: Arc<str>,
    state: State,
    generation: i32,
    leader: Option<Arc<str>>,
    members: BTreeMap<Arc<str>, Member>,
    /// Ids given with MEMBER_ID_REQUIRED and not used yet, and when they expire.
    promised: BTreeMap<Arc<str>, Micros>,
    gathering: Option<Gathering>,
    join_deadline: Micros,
    sync_deadline: Micros,
    /// The leader's assignment while it is being stored.
    proposed: Vec<(Arc<str>, Vec<PartitionId>)>,
}

/// A JoinGroup's content.
struct Joining<'a> {
    member_id: &'a Arc<str>,
    session_ms: u32,
    rebalance_ms: u32,
    protocol: RebalanceProtocol,
    subscription: &'a Subscription,
}

impl Group {
    pub(super) fn new(name: &Arc<str>) -> Group {
        Group {
            name: Arc::clone(name),
            state: State::Empty,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            promised: BTreeMap::new(),
            gathering: None,
            join_deadline: Micros::MAX,
            sync_deadline: Micros::MAX,
            proposed: Vec::new(),
        }
    }

    /// A group as its newest record in the log tells it.
    pub(super) fn load(record: &InternalRecord, now: Micros) -> Group {
        let InternalRecord::Group {
            group,
            generation,
            protocol,
            leader,
            members,
        } = record
        else {
            unreachable!("called for group records only");
        };
        let mut loaded = Group::new(group);
        loaded.generation = *generation;
        loaded.leader.clone_from(leader);
        if !members.is_empty() {
            loaded.state = State::Stable;
        }
        for stored in members {
            let mut member = Member {
                session_ms: stored.session_timeout_ms,
                rebalance_ms: stored.rebalance_timeout_ms,
                protocol: protocol.unwrap_or(RebalanceProtocol::Eager),
                subscription: stored.subscription.clone(),
                assignment: stored.assignment.clone(),
                joining: None,
                syncing: None,
                expires_at: Micros(0),
            };
            member.alive_until(now);
            loaded.members.insert(Arc::clone(&stored.member_id), member);
        }
        loaded
    }

    /// True when it has no members.
    pub(super) fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    /// Kafka's `validateOffsetCommit`.
    pub(super) fn validate_commit(
        &self,
        generation: i32,
        member_id: &str,
        transactional: bool,
    ) -> Result<(), ErrorCode> {
        if generation < 0 && (self.state == State::Empty || (member_id.is_empty() && transactional))
        {
            return Ok(());
        }
        if !self.members.contains_key(member_id) {
            return Err(ErrorCode::UnknownMemberId);
        }
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if !transactional && self.state == State::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// When [`Group::wake`] has something to do.
    pub(super) fn next_deadline(&self) -> Micros {
        let members = self.members.values().filter(|member| !member.waits());
        let members = members.map(|member| member.expires_at);
        let promised = self.promised.values().copied();
        let rounds = self.join_deadline.min(self.sync_deadline);
        members
            .chain(promised)
            .min()
            .unwrap_or(Micros::MAX)
            .min(rounds)
    }

    /// JoinGroup, SyncGroup, Heartbeat or LeaveGroup. An error is the answer.
    pub(super) fn request(
        &mut self,
        asker: Asker,
        request: &Request,
        new_member: &Arc<str>,
        delay_ms: u64,
        now: Micros,
        out: &mut Outcome,
    ) -> Result<(), ErrorCode> {
        match request {
            Request::JoinGroup {
                member_id,
                session_timeout_ms,
                rebalance_timeout_ms,
                protocol,
                subscription,
                ..
            } => {
                let joining = Joining {
                    member_id,
                    session_ms: *session_timeout_ms,
                    rebalance_ms: *rebalance_timeout_ms,
                    protocol: *protocol,
                    subscription,
                };
                self.join(asker, &joining, new_member, delay_ms, now, out)
            }
            Request::SyncGroup {
                member_id,
                generation,
                assignments,
                ..
            } => self.sync(asker, member_id, *generation, assignments, now, out),
            Request::Heartbeat {
                member_id,
                generation,
                ..
            } => {
                self.heartbeat(member_id, *generation, now)?;
                out.replies.push((asker, Response::Heartbeat(Ok(()))));
                Ok(())
            }
            Request::LeaveGroup { member_id, .. } => {
                if self.promised.remove(member_id).is_some() {
                    self.try_complete_join(now, out);
                } else if self.members.contains_key(member_id) {
                    self.remove(member_id, now, out);
                } else {
                    return Err(ErrorCode::UnknownMemberId);
                }
                out.replies.push((asker, Response::LeaveGroup(Ok(()))));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn join(
        &mut self,
        asker: Asker,
        joining: &Joining<'_>,
        new_member: &Arc<str>,
        delay_ms: u64,
        now: Micros,
        out: &mut Outcome,
    ) -> Result<(), ErrorCode> {
        let mut others = self
            .members
            .iter()
            .filter(|(id, _)| *id != joining.member_id);
        if others.any(|(_, member)| member.protocol != joining.protocol) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if joining.member_id.is_empty() {
            let until = now.plus_ms(u64::from(joining.session_ms));
            self.promised.insert(Arc::clone(new_member), until);
            let error = JoinError {
                code: ErrorCode::MemberIdRequired,
                member_id: Some(Arc::clone(new_member)),
            };
            out.replies.push((asker, Response::JoinGroup(Err(error))));
            return Ok(());
        }
        if self.promised.remove(joining.member_id).is_some() {
            self.add(asker, joining, delay_ms, now, out);
            return Ok(());
        }
        let is_leader = self.leader.as_ref() == Some(joining.member_id);
        let member = self.members.get_mut(joining.member_id);
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        let same = member.subscription == *joining.subscription;
        let rejoin = match self.state {
            State::PreparingRebalance => true,
            // It did not get the answer to its first JoinGroup.
            State::CompletingRebalance => !same,
            State::Stable => is_leader || !same,
            State::Empty => return Err(ErrorCode::UnknownMemberId),
        };
        if rejoin {
            member.joining = Some(asker);
            member.protocol = joining.protocol;
            member.session_ms = joining.session_ms;
            member.rebalance_ms = joining.rebalance_ms;
            member.subscription = joining.subscription.clone();
            self.prepare_rebalance(delay_ms, now, out);
        } else {
            let joined = self.joined(joining.member_id);
            out.replies.push((asker, Response::JoinGroup(Ok(joined))));
        }
        Ok(())
    }

    fn add(
        &mut self,
        asker: Asker,
        joining: &Joining<'_>,
        delay_ms: u64,
        now: Micros,
        out: &mut Outcome,
    ) {
        let mut member = Member {
            session_ms: joining.session_ms,
            rebalance_ms: joining.rebalance_ms,
            protocol: joining.protocol,
            subscription: joining.subscription.clone(),
            assignment: Vec::new(),
            joining: Some(asker),
            syncing: None,
            expires_at: Micros(0),
        };
        member.alive_until(now);
        if self.leader.is_none() {
            self.leader = Some(Arc::clone(joining.member_id));
        }
        self.members.insert(Arc::clone(joining.member_id), member);
        if let Some(gathering) = &mut self.gathering {
            // Only a new group waits longer for more.
            gathering.somebody_came = self.generation == 0;
        }
        self.prepare_rebalance(delay_ms, now, out);
    }

    fn rebalance_timeout_ms(&self) -> u64 {
        let longest = self
            .members
            .values()
            .map(|member| member.rebalance_ms)
            .max();
        u64::from(longest.unwrap_or(0))
    }

    fn prepare_rebalance(&mut self, delay_ms: u64, now: Micros, out: &mut Outcome) {
        match self.state {
            State::PreparingRebalance => {}
            State::Empty => {
                let whole_ms = self.rebalance_timeout_ms();
                self.gathering = Some(Gathering {
                    delay_ms,
                    remaining_ms: whole_ms.saturating_sub(delay_ms),
                    somebody_came: false,
                });
                self.join_deadline = now.plus_ms(delay_ms.min(whole_ms));
            }
            State::CompletingRebalance | State::Stable => {
                self.fail_syncs(ErrorCode::RebalanceInProgress, now, out);
                self.join_deadline = now.plus_ms(self.rebalance_timeout_ms());
            }
        }
        self.state = State::PreparingRebalance;
        self.sync_deadline = Micros::MAX;
        self.try_complete_join(now, out);
    }

    fn fail_syncs(&mut self, error: ErrorCode, now: Micros, out: &mut Outcome) {
        self.proposed.clear();
        for member in self.members.values_mut() {
            if let Some(asker) = member.syncing.take() {
                member.alive_until(now);
                out.replies.push((asker, Response::SyncGroup(Err(error))));
            }
        }
    }

    fn try_complete_join(&mut self, now: Micros, out: &mut Outcome) {
        let everybody = self.members.values().all(|member| member.joining.is_some());
        if self.state == State::PreparingRebalance
            && self.gathering.is_none()
            && everybody
            && self.promised.is_empty()
        {
            self.complete_join(now, out);
        }
    }

    /// Everybody who wants to be in the next generation has come, or time is up.
    fn complete_join(&mut self, now: Micros, out: &mut Outcome) {
        self.join_deadline = Micros::MAX;
        self.gathering = None;
        self.members.retain(|id, member| {
            let came = member.joining.is_some();
            if !came {
                out.notes
                    .push(("member-expired", format!("{id} did not rejoin")));
            }
            came
        });
        self.generation += 1;
        if self.members.is_empty() {
            self.become_empty(out);
            return;
        }
        let leader = self.leader.as_ref();
        if leader.is_none_or(|leader| !self.members.contains_key(leader)) {
            self.leader = self.members.keys().next().cloned();
        }
        self.state = State::CompletingRebalance;
        self.sync_deadline = now.plus_ms(self.rebalance_timeout_ms());
        let text = format!(
            "{} {} of {}",
            self.name,
            self.generation,
            self.members.len()
        );
        out.notes.push(("group-generation", text));
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id);
            let member = self.members.get_mut(&id).expect("just listed");
            member.alive_until(now);
            if let Some(asker) = member.joining.take() {
                out.replies.push((asker, Response::JoinGroup(Ok(joined))));
            }
        }
    }

    fn become_empty(&mut self, out: &mut Outcome) {
        self.state = State::Empty;
        self.leader = None;
        self.sync_deadline = Micros::MAX;
        out.notes.push((
            "group-generation",
            format!("{} {} empty", self.name, self.generation),
        ));
        out.store = Some(Store {
            record: self.record(),
            generation: None,
        });
    }

    fn joined(&self, member_id: &Arc<str>) -> JoinedGroup {
        let leader = self.leader.clone().unwrap_or_else(|| Arc::clone(member_id));
        let members = match leader == *member_id {
            true => self
                .members
                .iter()
                .map(|(id, member)| GroupMember {
                    member_id: Arc::clone(id),
                    subscription: member.subscription.clone(),
                })
                .collect(),
            false => Vec::new(),
        };
        JoinedGroup {
            generation: self.generation,
            member_id: Arc::clone(member_id),
            leader,
            members,
        }
    }

    fn record(&self) -> InternalRecord {
        let assigned = |id: &Arc<str>| {
            let found = self.proposed.iter().find(|(member, _)| member == id);
            found.map_or_else(Vec::new, |(_, partitions)| partitions.clone())
        };
        InternalRecord::Group {
            group: Arc::clone(&self.name),
            generation: self.generation,
            protocol: self.members.values().next().map(|member| member.protocol),
            leader: self.leader.clone(),
            members: self
                .members
                .iter()
                .map(|(id, member)| StoredMember {
                    member_id: Arc::clone(id),
                    session_timeout_ms: member.session_ms,
                    rebalance_timeout_ms: member.rebalance_ms,
                    subscription: member.subscription.clone(),
                    assignment: assigned(id),
                })
                .collect(),
        }
    }

    fn sync(
        &mut self,
        asker: Asker,
        member_id: &Arc<str>,
        generation: i32,
        assignments: &[(Arc<str>, Vec<PartitionId>)],
        now: Micros,
        out: &mut Outcome,
    ) -> Result<(), ErrorCode> {
        let member = self.members.get_mut(member_id);
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        match self.state {
            State::Empty => Err(ErrorCode::UnknownMemberId),
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            State::Stable => {
                member.alive_until(now);
                let assignment = member.assignment.clone();
                out.replies
                    .push((asker, Response::SyncGroup(Ok(assignment))));
                Ok(())
            }
            State::CompletingRebalance => {
                member.syncing = Some(asker);
                if self.leader.as_ref() == Some(member_id) {
                    self.proposed = assignments.to_vec();
                    out.store = Some(Store {
                        record: self.record(),
                        generation: Some(generation),
                    });
                }
                Ok(())
            }
        }
    }

    /// The assignment of `generation` is in the log, or could not be stored.
    pub(super) fn stored(
        &mut self,
        generation: i32,
        result: Result<(), ErrorCode>,
        now: Micros,
        out: &mut Outcome,
    ) {
        if self.state != State::CompletingRebalance || generation != self.generation {
            return;
        }
        if let Err(error) = result {
            self.fail_syncs(error, now, out);
            self.prepare_rebalance(0, now, out);
            return;
        }
        let proposed = std::mem::take(&mut self.proposed);
        self.state = State::Stable;
        for (id, member) in &mut self.members {
            let found = proposed.iter().find(|(assigned, _)| assigned == id);
            member.assignment = found.map_or_else(Vec::new, |(_, partitions)| partitions.clone());
            member.alive_until(now);
            if let Some(asker) = member.syncing.take() {
                let assignment = member.assignment.clone();
                out.replies
                    .push((asker, Response::SyncGroup(Ok(assignment))));
            }
        }
        self.sync_deadline = Micros::MAX;
    }

    fn heartbeat(
        &mut self,
        member_id: &str,
        generation: i32,
        now: Micros,
    ) -> Result<(), ErrorCode> {
        let member = self.members.get_mut(member_id);
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        member.alive_until(now);
        match self.state {
            State::Empty => Err(ErrorCode::UnknownMemberId),
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    fn remove(&mut self, member_id: &str, now: Micros, out: &mut Outcome) {
        if let Some(member) = self.members.remove(member_id) {
            // The client may wait although it left (another request of it came first).
            let error = ErrorCode::UnknownMemberId;
            if let Some(asker) = member.joining {
                let error = JoinError {
                    code: error,
                    member_id: None,
                };
                out.replies.push((asker, Response::JoinGroup(Err(error))));
            }
            if let Some(asker) = member.syncing {
                out.replies.push((asker, Response::SyncGroup(Err(error))));
            }
        }
        if self.leader.as_deref() == Some(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        match self.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(0, now, out),
            State::PreparingRebalance => self.try_complete_join(now, out),
            State::Empty => {}
        }
    }

    /// Time has passed.
    pub(super) fn wake(&mut self, now: Micros, out: &mut Outcome) {
        self.promised.retain(|_, until| *until > now);
        let late: Vec<Arc<str>> = self
            .members
            .iter()
            .filter(|(_, member)| !member.waits() && member.expires_at <= now)
            .map(|(id, _)| Arc::clone(id))
            .collect();
        for id in late {
            out.notes.push(("member-expired", id.to_string()));
            self.remove(&id, now, out);
        }
        if self.sync_deadline <= now {
            self.sync_deadline = Micros::MAX;
            let silent = self
                .members
                .iter()
                .filter(|(_, member)| member.syncing.is_none());
            let silent: Vec<Arc<str>> = silent.map(|(id, _)| Arc::clone(id)).collect();
            for id in silent {
                out.notes
                    .push(("member-expired", format!("{id} did not sync")));
                self.remove(&id, now, out);
            }
        }
        if self.join_deadline <= now {
            self.end_of_wait(now, out);
        }
        self.try_complete_join(now, out);
    }

    fn end_of_wait(&mut self, now: Micros, out: &mut Outcome) {
        match &mut self.gathering {
            Some(gathering) if gathering.somebody_came && gathering.remaining_ms > 0 => {
                let delay_ms = gathering.delay_ms.min(gathering.remaining_ms);
                gathering.somebody_came = false;
                gathering.remaining_ms -= delay_ms;
                self.join_deadline = now.plus_ms(delay_ms);
            }
            _ => self.complete_join(now, out),
        }
    }

    /// The coordinator moves away: everybody who waits is told so.
    pub(super) fn dismiss(&mut self, error: ErrorCode, out: &mut Outcome) {
        for member in self.members.values_mut() {
            if let Some(asker) = member.joining.take() {
                let error = JoinError {
                    code: error,
                    member_id: None,
                };
                out.replies.push((asker, Response::JoinGroup(Err(error))));
            }
            if let Some(asker) = member.syncing.take() {
                out.replies.push((asker, Response::SyncGroup(Err(error))));
            }
        }
    }
}
