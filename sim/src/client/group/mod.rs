//! Membership of a consumer group: joining, heartbeats, and the rebalance events that wait for the
//! application.
//!
//! As in librdkafka, the member's background work only prepares an event; `poll` delivers it, and the
//! rebalance goes on when the application has answered.
//!
//! Comes in: answers of the coordinator ([`answers`]), calls of the application, time. Goes out:
//! requests, events, the identity for transactions.
//! Never here: positions and records.

mod answers;
#[cfg(test)]
mod tests;

use super::assignor::assign;
use super::consumer::{Io, Tag};
use super::errors::local_error;
use super::requests::{Connection, Route};
use crate::fabric::actor::{Effects, Micros};
use crate::kafka::protocol::{
    BrokerId, JoinedGroup, PartitionId, RebalanceProtocol, Request, Subscription,
};
use processor::io::{ErrorClass, KafkaError, KafkaResult, Polled};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Identity of a group member at a generation, as a transaction carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupIdentity {
    /// The group.
    pub group: Arc<str>,
    /// The topic that the group consumes: offsets committed under this identity are its.
    pub topic: Arc<str>,
    /// The member's id.
    pub member_id: Arc<str>,
    /// The generation.
    pub generation: i32,
}

/// Where the member stands with its coordinator.
#[derive(Debug)]
enum Phase {
    /// Not a member of the current generation: joins as soon as it may.
    Out,
    /// JoinGroup is under way.
    Joining,
    /// It leads the group and assigns once it knows the topic.
    Assigning(JoinedGroup),
    /// SyncGroup is under way.
    Syncing,
    /// Member of the current generation.
    Stable,
}

/// What the application has to be told, or has been told and has to answer.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    None,
    Assign(Vec<PartitionId>),
    Revoke(Vec<PartitionId>),
    Lose,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Membership {
    group: Arc<str>,
    topic: Option<Arc<str>>,
    /// How many partitions the topic had when it was last looked at.
    partitions: Option<usize>,
    protocol: RebalanceProtocol,
    phase: Phase,
    /// Answers to requests of an older attempt are ignored.
    attempt: u64,
    member_id: Arc<str>,
    generation: i32,
    owned: BTreeSet<PartitionId>,
    owned_generation: i32,
    step: Step,
    delivered: bool,
    assign_after_revoke: Vec<PartitionId>,
    rejoin_after_step: bool,
    lost_partitions: bool,
    retry_at: Micros,
    heartbeat_at: Micros,
    heartbeat_in_flight: bool,
    session_ends_at: Micros,
    polling: bool,
    polled_at: Micros,
    poll_exceeded: bool,
}

impl Membership {
    /// No member yet.
    pub(crate) fn new(group: Arc<str>, protocol: RebalanceProtocol) -> Membership {
        Membership {
            group,
            topic: None,
            partitions: None,
            protocol,
            phase: Phase::Out,
            attempt: 0,
            member_id: "".into(),
            generation: -1,
            owned: BTreeSet::new(),
            owned_generation: -1,
            step: Step::None,
            delivered: false,
            assign_after_revoke: Vec::new(),
            rejoin_after_step: false,
            lost_partitions: false,
            retry_at: Micros(0),
            heartbeat_at: Micros::MAX,
            heartbeat_in_flight: false,
            session_ends_at: Micros::MAX,
            polling: false,
            polled_at: Micros(0),
            poll_exceeded: false,
        }
    }

    /// Joins for `topic`.
    pub(crate) fn subscribe(&mut self, now: Micros, topic: &str) {
        self.topic = Some(topic.into());
        self.polled_at = now;
    }

    /// The topic subscribed to.
    pub(crate) fn topic(&self) -> Option<&Arc<str>> {
        self.topic.as_ref()
    }

    /// The application is in `poll`.
    pub(crate) fn begin_poll(&mut self) {
        self.polling = true;
        self.poll_exceeded = false;
    }

    /// The application left `poll`.
    pub(crate) fn end_poll(&mut self, now: Micros) {
        self.polling = false;
        self.polled_at = now;
    }

    /// Identity in the current generation.
    pub(crate) fn identity(&self) -> Option<GroupIdentity> {
        let topic = self.topic.clone()?;
        matches!(self.phase, Phase::Stable).then(|| GroupIdentity {
            group: self.group.clone(),
            topic,
            member_id: self.member_id.clone(),
            generation: self.generation,
        })
    }

    /// True while an event waits for its delivery or its answer: no records are delivered.
    pub(crate) fn blocks_records(&self) -> bool {
        self.step != Step::None
    }

    /// True once after all partitions were lost: the fetcher forgets them.
    pub(crate) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost_partitions)
    }

    /// The next event for the application.
    pub(crate) fn take_event(&mut self, fx: &mut Effects) -> Option<Polled> {
        if self.delivered {
            return None;
        }
        let (kind, event) = match &self.step {
            Step::None => return None,
            Step::Assign(partitions) => ("assigned", Polled::Assigned(partitions.clone())),
            Step::Revoke(partitions) => ("revoked", Polled::Revoked(partitions.clone())),
            Step::Lose => ("lost", Polled::Lost(self.owned.iter().copied().collect())),
        };
        self.delivered = true;
        fx.note(
            kind,
            format_args!(
                "{} generation {}: {event:?}",
                self.member_id, self.generation
            ),
        );
        Some(event)
    }

    /// The application takes an assignment.
    pub(crate) fn accept(&mut self, now: Micros, partitions: &[PartitionId]) -> KafkaResult<()> {
        let offered = match &self.step {
            Step::Assign(offered) if self.delivered => offered,
            _ => return Err(not_offered()),
        };
        if partitions.iter().any(|p| !offered.contains(p)) {
            return Err(not_offered());
        }
        self.owned.extend(partitions);
        self.step_done(now);
        Ok(())
    }

    /// The application gives partitions back.
    pub(crate) fn release(&mut self, now: Micros, partitions: &[PartitionId]) {
        for partition in partitions {
            self.owned.remove(partition);
        }
        let done = match &self.step {
            Step::Revoke(list) => self.delivered && list.iter().all(|p| !self.owned.contains(p)),
            Step::Lose => self.owned.is_empty(),
            Step::None | Step::Assign(_) => false,
        };
        if done {
            self.step_done(now);
        }
    }

    fn step_done(&mut self, now: Micros) {
        self.step = Step::None;
        self.delivered = false;
        let more = std::mem::take(&mut self.assign_after_revoke);
        if !more.is_empty() {
            self.step = Step::Assign(more);
        } else if std::mem::take(&mut self.rejoin_after_step) {
            self.rejoin(now);
        }
    }

    /// A rebalance has begun, or this member wants one.
    fn rebalance(&mut self, now: Micros, fx: &mut Effects) {
        match self.step {
            Step::None => self.rejoin(now),
            Step::Assign(_) if !self.delivered => {
                self.step = Step::None;
                self.rejoin(now);
            }
            _ => self.rejoin_after_step = true,
        }
        fx.notify();
    }

    fn rejoin(&mut self, now: Micros) {
        if self.protocol == RebalanceProtocol::Eager && !self.owned.is_empty() {
            self.step = Step::Revoke(self.owned.iter().copied().collect());
            self.delivered = false;
            self.rejoin_after_step = true;
            return;
        }
        self.out(now);
    }

    fn out(&mut self, retry_at: Micros) {
        self.attempt += 1;
        self.phase = Phase::Out;
        self.retry_at = retry_at;
        self.heartbeat_in_flight = false;
        self.heartbeat_at = Micros::MAX;
        self.session_ends_at = Micros::MAX;
    }

    /// Everything owned is somebody else's business now.
    fn lose(&mut self, now: Micros, forget_id: bool, why: &str, fx: &mut Effects) {
        fx.note(
            "member-lost",
            format_args!("{} generation {}: {why}", self.member_id, self.generation),
        );
        self.out(now);
        self.generation = -1;
        if forget_id {
            self.member_id = "".into();
        }
        // What was offered and not yet taken is lost with the rest.
        if let Step::Assign(offered) = &self.step
            && self.delivered
        {
            self.owned.extend(offered);
        }
        self.assign_after_revoke.clear();
        self.rejoin_after_step = false;
        self.step = if self.owned.is_empty() {
            Step::None
        } else {
            Step::Lose
        };
        self.delivered = false;
        self.owned_generation = -1;
        self.lost_partitions = true;
        fx.notify();
    }

    /// Lets time pass: session and poll timeouts.
    fn check_timeouts(&mut self, io: &mut Io<'_>) {
        if io.now >= self.session_ends_at {
            self.lose(io.now, true, "session timed out", io.fx);
        }
        if io.now >= self.poll_ends_at(io.settings.max_poll_interval_ms) {
            io.fx.note(
                "max-poll-exceeded",
                format_args!(
                    "{} last polled at {} ms",
                    self.member_id,
                    self.polled_at.as_ms()
                ),
            );
            self.leave(io);
            self.lose(io.now, true, "poll interval exceeded", io.fx);
            self.poll_exceeded = true;
        }
    }

    /// A member whose topic has another number of partitions asks for a rebalance.
    fn check_partitions(&mut self, io: &mut Io<'_>) {
        let topic = self.topic.as_ref().and_then(|name| io.metadata.topic(name));
        let Some(count) = topic.map(|topic| topic.partitions.len()) else {
            return;
        };
        let before = self.partitions.replace(count);
        let is_in = !matches!(self.phase, Phase::Out);
        if is_in && before.is_some_and(|before| before != count) {
            io.fx
                .note("partitions-changed", format_args!("now {count}"));
            self.rebalance(io.now, io.fx);
        }
    }

    fn poll_ends_at(&self, interval_ms: u32) -> Micros {
        if self.topic.is_none() || self.polling || self.poll_exceeded {
            Micros::MAX
        } else {
            self.polled_at.plus_ms(u64::from(interval_ms))
        }
    }

    /// Sends LeaveGroup if there is a member to leave. True if something was sent.
    pub(crate) fn leave(&mut self, io: &mut Io<'_>) -> bool {
        let Some(broker) = io
            .coordinator
            .broker()
            .filter(|_| !self.member_id.is_empty())
        else {
            return false;
        };
        let request = Request::LeaveGroup {
            group: self.group.clone(),
            member_id: self.member_id.clone(),
        };
        let timeout_ms = u64::from(io.settings.request_timeout_ms);
        io.send(coordinator(broker, timeout_ms), request, Tag::LeaveGroup);
        true
    }

    /// Stops for good.
    pub(crate) fn close(&mut self, now: Micros) {
        self.topic = None;
        self.out(now);
        self.step = Step::None;
        self.owned.clear();
        self.lost_partitions = true;
    }

    /// Does what is due.
    pub(crate) fn advance(&mut self, io: &mut Io<'_>) {
        if self.topic.is_none() {
            return;
        }
        self.check_timeouts(io);
        self.check_partitions(io);
        match self.phase {
            Phase::Out => self.join(io),
            Phase::Assigning(_) => self.run_assignor(io),
            Phase::Stable => self.heartbeat(io),
            Phase::Joining | Phase::Syncing => {}
        }
    }

    /// When [`Membership::advance`] next has something to do by the clock alone.
    pub(crate) fn due(
        &self,
        now: Micros,
        max_poll_interval_ms: u32,
        coordinator_known: bool,
    ) -> Micros {
        if self.topic.is_none() {
            return Micros::MAX;
        }
        let act = match self.phase {
            // A join that is due by now waits for metadata.
            Phase::Out if coordinator_known && self.may_join() && self.retry_at > now => {
                self.retry_at
            }
            Phase::Stable if coordinator_known && !self.heartbeat_in_flight => self.heartbeat_at,
            _ => Micros::MAX,
        };
        act.min(self.session_ends_at)
            .min(self.poll_ends_at(max_poll_interval_ms))
    }

    fn may_join(&self) -> bool {
        self.step == Step::None && !self.poll_exceeded
    }

    fn join(&mut self, io: &mut Io<'_>) {
        if !self.may_join() {
            return;
        }
        let Some(broker) = io.coordinator.broker() else {
            return;
        };
        let name = self.topic.as_ref().expect("advanced only with a topic");
        let Some(topic) = io.metadata.topic(name).map(|topic| topic.topic) else {
            io.metadata.want(io.now);
            return;
        };
        if io.now < self.retry_at {
            return;
        }
        // Without an id the coordinator only tells one: that is answered at once.
        let timeout_ms = if self.member_id.is_empty() {
            u64::from(io.settings.request_timeout_ms)
        } else {
            io.settings.join_timeout_ms()
        };
        let request = Request::JoinGroup {
            group: self.group.clone(),
            member_id: self.member_id.clone(),
            session_timeout_ms: io.settings.session_timeout_ms,
            rebalance_timeout_ms: io.settings.max_poll_interval_ms,
            protocol: self.protocol,
            subscription: Subscription {
                topic,
                owned: self.owned.iter().copied().collect(),
                owned_generation: self.owned_generation,
            },
        };
        self.attempt += 1;
        self.phase = Phase::Joining;
        let tag = Tag::JoinGroup(self.attempt);
        io.send(coordinator(broker, timeout_ms), request, tag);
    }

    fn run_assignor(&mut self, io: &mut Io<'_>) {
        let Phase::Assigning(joined) = &self.phase else {
            return;
        };
        let name = self.topic.as_ref().expect("advanced only with a topic");
        let Some(topic) = io.metadata.topic(name) else {
            io.metadata.want(io.now);
            return;
        };
        let partitions = u32::try_from(topic.partitions.len()).expect("fits");
        let assignments = assign(self.protocol, &joined.members, partitions);
        self.sync(io, assignments);
    }

    fn sync(&mut self, io: &mut Io<'_>, assignments: Vec<(Arc<str>, Vec<PartitionId>)>) {
        let Some(broker) = io.coordinator.broker() else {
            return;
        };
        let request = Request::SyncGroup {
            group: self.group.clone(),
            member_id: self.member_id.clone(),
            generation: self.generation,
            assignments,
        };
        self.phase = Phase::Syncing;
        let timeout_ms = io.settings.join_timeout_ms();
        let tag = Tag::SyncGroup(self.attempt);
        io.send(coordinator(broker, timeout_ms), request, tag);
    }

    fn heartbeat(&mut self, io: &mut Io<'_>) {
        if self.heartbeat_in_flight || io.now < self.heartbeat_at {
            return;
        }
        let Some(broker) = io.coordinator.broker() else {
            return;
        };
        let request = Request::Heartbeat {
            group: self.group.clone(),
            member_id: self.member_id.clone(),
            generation: self.generation,
        };
        self.heartbeat_in_flight = true;
        let interval_ms = u64::from(io.settings.heartbeat_interval_ms);
        self.heartbeat_at = io.now.plus_ms(interval_ms);
        let timeout_ms = io.settings.heartbeat_timeout_ms();
        let tag = Tag::Heartbeat(self.attempt);
        io.send(coordinator(broker, timeout_ms), request, tag);
    }

    fn backoff(&self, io: &Io<'_>) -> Micros {
        io.now.plus_ms(u64::from(io.settings.retry_backoff_ms))
    }
}

fn coordinator(broker: BrokerId, timeout_ms: u64) -> Route {
    Route {
        broker,
        connection: Connection::Coordinator,
        timeout_ms,
    }
}

fn not_offered() -> KafkaError {
    local_error(
        "accept",
        "_ASSIGNMENT_LOST: these partitions are not offered any more; poll tells what happened",
        ErrorClass::Retriable,
    )
}
