//! The controller: the KRaft quorum as one node that never forgets. It registers and fences brokers,
//! elects leaders from the ISR only, changes ISRs at their leaders' wish, and pushes the metadata.

use super::internal::{
    BrokerRegistration, ClusterImage, InternalRequest, InternalResponse, IsrChange, IsrResult,
    PartitionRegistration,
};
use super::layout::{Layout, replicas_of};
use super::protocol::{BrokerId, Message, Request, Response};
use super::{ClusterConfig, Directory};
use crate::fabric::actor::{Actor, Address, Effects, Micros};
use std::sync::Arc;

/// Until metadata that was not acknowledged is sent again.
const PUSH_RETRY_MS: u64 = 500;
/// At first, how long to wait for all brokers before leaders are elected.
const GATHERING_MS: u64 = 3_000;
/// leader.imbalance.check.interval.seconds
const BALANCE_INTERVAL_MS: u64 = 300_000;

/// A broker as only the controller sees it.
#[derive(Debug)]
struct Session {
    id: BrokerId,
    address: Address,
    incarnation: u64,
    heard_at: Micros,
    /// Version of the metadata when it registered: it must have that to be unfenced.
    registered_at_version: u64,
    acknowledged: u64,
    sent: u64,
    sent_at: Micros,
}

/// The controller.
pub struct Controller {
    config: Arc<ClusterConfig>,
    image: Arc<ClusterImage>,
    sessions: Vec<Session>,
    next_broker_epoch: i64,
    correlation: u64,
    /// Leaders are elected.
    gathered: bool,
    gather_until: Micros,
    balance_at: Micros,
    alive: bool,
    changed: bool,
}

impl Controller {
    /// A controller of a new cluster whose topics exist and are empty.
    #[must_use]
    pub fn new(config: Arc<ClusterConfig>, directory: Arc<Directory>) -> Controller {
        let layout = Layout::new(&config);
        let partitions = (0..layout.len())
            .map(|slot| {
                let replicas = replicas_of(slot, config.brokers);
                let mut isr = replicas.clone();
                isr.sort_unstable();
                PartitionRegistration {
                    leader: None,
                    leader_epoch: 0,
                    partition_epoch: 0,
                    isr,
                    replicas,
                }
            })
            .collect();
        let unregistered = |(id, _): &(BrokerId, Address)| BrokerRegistration {
            id: *id,
            epoch: -1,
            fenced: true,
        };
        let session = |(id, address): &(BrokerId, Address)| Session {
            id: *id,
            address: *address,
            incarnation: 0,
            heard_at: Micros(0),
            registered_at_version: 0,
            acknowledged: 0,
            sent: 0,
            sent_at: Micros(0),
        };
        Controller {
            image: Arc::new(ClusterImage {
                version: 1,
                brokers: directory.brokers.iter().map(unregistered).collect(),
                partitions,
            }),
            sessions: directory.brokers.iter().map(session).collect(),
            config,
            next_broker_epoch: 0,
            correlation: 0,
            gathered: false,
            gather_until: Micros::from_ms(GATHERING_MS),
            balance_at: Micros::from_ms(BALANCE_INTERVAL_MS),
            alive: true,
            changed: false,
        }
    }

    /// The cluster's metadata.
    #[must_use]
    pub fn image(&self) -> &ClusterImage {
        &self.image
    }

    fn registration(&mut self, id: BrokerId) -> Option<&mut BrokerRegistration> {
        let image = Arc::make_mut(&mut self.image);
        image.brokers.iter_mut().find(|broker| broker.id == id)
    }

    fn session(&mut self, id: BrokerId) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }

    fn session_ms(&self) -> Micros {
        Micros::from_ms(self.config.broker_session_timeout_ms)
    }

    /// The answer; `None`: a stray of an earlier process, nobody waits.
    fn register(
        &mut self,
        id: BrokerId,
        incarnation: u64,
        now: Micros,
        fx: &mut Effects,
    ) -> Option<InternalResponse> {
        let timeout = self.session_ms();
        let known = self.image.broker(id)?.epoch;
        let session = self.session(id)?;
        if incarnation < session.incarnation {
            return None;
        }
        if incarnation == session.incarnation {
            return Some(InternalResponse::RegisterBroker {
                broker_epoch: Some(known),
            });
        }
        // DUPLICATE_BROKER_REGISTRATION: the old process may still be alive.
        if known >= 0 && now.since(session.heard_at) < timeout {
            return Some(InternalResponse::RegisterBroker { broker_epoch: None });
        }
        self.fence(id, fx);
        self.next_broker_epoch += 1;
        let epoch = self.next_broker_epoch;
        let version = self.image.version + 1;
        let session = self.session(id)?;
        session.incarnation = incarnation;
        session.heard_at = now;
        session.registered_at_version = version;
        session.acknowledged = 0;
        session.sent = 0;
        self.registration(id)?.epoch = epoch;
        self.changed = true;
        fx.note("broker-registered", format_args!("{} epoch {epoch}", id.0));
        Some(InternalResponse::RegisterBroker {
            broker_epoch: Some(epoch),
        })
    }

    fn heartbeat(
        &mut self,
        id: BrokerId,
        broker_epoch: i64,
        version: u64,
        now: Micros,
        fx: &mut Effects,
    ) -> Option<InternalResponse> {
        let known = *self.image.broker(id)?;
        if known.epoch != broker_epoch {
            return Some(InternalResponse::BrokerHeartbeat {
                known: false,
                fenced: true,
            });
        }
        let newest = self.image.version;
        let session = self.session(id)?;
        session.heard_at = now;
        session.acknowledged = session.acknowledged.max(version);
        if version < newest {
            // Whatever was sent did not arrive.
            session.sent = session.acknowledged;
        }
        let caught_up = version >= session.registered_at_version;
        if known.fenced && caught_up {
            self.registration(id)?.fenced = false;
            self.changed = true;
            fx.note("broker-unfenced", id.0);
            self.elect_leaderless(now, fx);
        }
        Some(InternalResponse::BrokerHeartbeat {
            known: true,
            fenced: known.fenced && !caught_up,
        })
    }

    /// A broker is taken as dead.
    fn fence(&mut self, id: BrokerId, fx: &mut Effects) {
        match self.registration(id) {
            Some(registration) if !registration.fenced => registration.fenced = true,
            _ => return,
        }
        self.changed = true;
        fx.note("broker-fenced", id.0);
        let image = Arc::make_mut(&mut self.image);
        for slot in 0..image.partitions.len() {
            let partition = &mut image.partitions[slot];
            // The last member of an ISR stays in it: only it has everything.
            if partition.isr.len() > 1 && partition.isr.contains(&id) {
                partition.isr.retain(|member| *member != id);
                partition.partition_epoch += 1;
            }
            if partition.leader == Some(id) {
                elect(slot, partition, &image.brokers, fx);
            }
        }
    }

    fn elect_leaderless(&mut self, now: Micros, fx: &mut Effects) {
        let all = self.image.brokers.iter().all(|broker| !broker.fenced);
        if !self.gathered && !all && now < self.gather_until {
            return;
        }
        self.gathered = true;
        self.gather_until = Micros::MAX;
        let image = Arc::make_mut(&mut self.image);
        for slot in 0..image.partitions.len() {
            let partition = &mut image.partitions[slot];
            if partition.leader.is_none() && candidate(partition, &image.brokers).is_some() {
                elect(slot, partition, &image.brokers, fx);
                self.changed = true;
            }
        }
    }

    /// Gives partitions back to their preferred leaders (auto.leader.rebalance.enable).
    fn balance(&mut self, now: Micros, fx: &mut Effects) {
        self.balance_at = now.plus_ms(BALANCE_INTERVAL_MS);
        let image = Arc::make_mut(&mut self.image);
        for slot in 0..image.partitions.len() {
            let partition = &mut image.partitions[slot];
            let preferred = partition.replicas.first().copied();
            if partition.leader != preferred && candidate(partition, &image.brokers) == preferred {
                elect(slot, partition, &image.brokers, fx);
                self.changed = true;
            }
        }
    }

    fn alter(
        &mut self,
        leader: BrokerId,
        broker_epoch: i64,
        changes: &[IsrChange],
        fx: &mut Effects,
    ) -> InternalResponse {
        let current = self.image.broker(leader);
        let current = current.is_some_and(|broker| broker.epoch == broker_epoch);
        let results = changes
            .iter()
            .map(|change| match current {
                true => (change.slot, self.alter_one(leader, change, fx)),
                false => (change.slot, IsrResult::Stale),
            })
            .collect();
        InternalResponse::AlterPartition { results }
    }

    fn alter_one(&mut self, leader: BrokerId, change: &IsrChange, fx: &mut Effects) -> IsrResult {
        let image = Arc::make_mut(&mut self.image);
        let Some(partition) = image.partitions.get_mut(change.slot) else {
            return IsrResult::Stale;
        };
        if partition.leader != Some(leader)
            || partition.leader_epoch != change.leader_epoch
            || partition.partition_epoch != change.partition_epoch
        {
            return IsrResult::Stale;
        }
        let eligible = change.isr.iter().all(|(id, epoch)| {
            let broker = image.brokers.iter().find(|broker| broker.id == *id);
            broker.is_some_and(|broker| !broker.fenced && broker.epoch == *epoch)
        });
        let isr: Vec<BrokerId> = change.isr.iter().map(|(id, _)| *id).collect();
        if !eligible || !isr.contains(&leader) {
            return IsrResult::Ineligible;
        }
        let kind = match isr.len() < partition.isr.len() {
            true => "isr-shrunk",
            false => "isr-expanded",
        };
        fx.note(kind, format_args!("slot {} to {}", change.slot, isr.len()));
        partition.isr = isr;
        partition.partition_epoch += 1;
        self.changed = true;
        IsrResult::Done(partition.partition_epoch)
    }

    /// Sends the metadata to whoever does not have it.
    fn push(&mut self, now: Micros, fx: &mut Effects) {
        if self.changed {
            self.changed = false;
            Arc::make_mut(&mut self.image).version += 1;
        }
        let version = self.image.version;
        for session in &mut self.sessions {
            let registered = session.incarnation > 0;
            let retry =
                session.sent_at.plus_ms(PUSH_RETRY_MS) <= now && session.heard_lately(&self.image);
            if registered && session.acknowledged < version && (session.sent < version || retry) {
                self.correlation += 1;
                session.sent = version;
                session.sent_at = now;
                fx.send(
                    session.address,
                    Message::Request {
                        correlation: self.correlation,
                        request: Request::Internal(InternalRequest::UpdateMetadata {
                            image: Arc::clone(&self.image),
                        }),
                    },
                );
            }
        }
    }

    fn answer(
        &mut self,
        request: Request,
        now: Micros,
        fx: &mut Effects,
    ) -> Option<InternalResponse> {
        let Request::Internal(request) = request else {
            return None;
        };
        match request {
            InternalRequest::RegisterBroker {
                broker,
                incarnation,
            } => self.register(broker, incarnation, now, fx),
            InternalRequest::BrokerHeartbeat {
                broker,
                broker_epoch,
                metadata_version,
            } => self.heartbeat(broker, broker_epoch, metadata_version, now, fx),
            InternalRequest::AlterPartition {
                broker,
                broker_epoch,
                changes,
            } => Some(self.alter(broker, broker_epoch, &changes, fx)),
            _ => None,
        }
    }
}

impl Session {
    /// Metadata is sent again to brokers that are alive; a fenced one asks by its heartbeats.
    fn heard_lately(&self, image: &ClusterImage) -> bool {
        image.broker(self.id).is_some_and(|broker| !broker.fenced)
    }
}

/// The first replica that is alive and in sync.
fn candidate(
    partition: &PartitionRegistration,
    brokers: &[BrokerRegistration],
) -> Option<BrokerId> {
    let alive = |id: &BrokerId| {
        brokers
            .iter()
            .any(|broker| broker.id == *id && !broker.fenced)
    };
    let mut in_sync = partition
        .replicas
        .iter()
        .filter(|id| partition.isr.contains(id));
    in_sync.find(|id| alive(id)).copied()
}

fn elect(
    slot: usize,
    partition: &mut PartitionRegistration,
    brokers: &[BrokerRegistration],
    fx: &mut Effects,
) {
    partition.leader = candidate(partition, brokers);
    partition.leader_epoch += 1;
    partition.partition_epoch += 1;
    let epoch = partition.leader_epoch;
    match partition.leader {
        Some(leader) => {
            fx.note(
                "leader-elected",
                format_args!("slot {slot} {} epoch {epoch}", leader.0),
            );
        }
        None => fx.note(
            "partition-offline",
            format_args!("slot {slot} epoch {epoch}"),
        ),
    }
}

impl Actor for Controller {
    fn receive(&mut self, now: Micros, from: Address, message: Message, fx: &mut Effects) {
        if !self.alive {
            return;
        }
        match message {
            Message::Request {
                correlation,
                request,
            } => {
                if let Some(response) = self.answer(request, now, fx) {
                    let response = Response::Internal(response);
                    let message = Message::Response {
                        correlation,
                        response,
                    };
                    fx.send(from, message);
                }
            }
            Message::Response {
                response: Response::Internal(InternalResponse::UpdateMetadata { version }),
                ..
            } => {
                let session = self
                    .sessions
                    .iter_mut()
                    .find(|session| session.address == from);
                if let Some(session) = session {
                    // A broker that does not know itself registered yet answers with less.
                    session.acknowledged = session.acknowledged.max(version);
                }
            }
            Message::Response { .. } => {}
        }
        self.push(now, fx);
    }

    fn wake(&mut self, now: Micros, fx: &mut Effects) {
        let timeout = self.session_ms();
        let silent: Vec<BrokerId> = self
            .sessions
            .iter()
            .filter(|session| session.heard_lately(&self.image))
            .filter(|session| session.heard_at.plus(timeout) <= now)
            .map(|session| session.id)
            .collect();
        for id in silent {
            self.fence(id, fx);
        }
        if self.gather_until <= now {
            self.gather_until = Micros::MAX;
            self.gathered = true;
            self.elect_leaderless(now, fx);
        }
        if self.balance_at <= now {
            self.balance(now, fx);
        }
        self.push(now, fx);
    }

    fn next_wake(&self) -> Micros {
        if !self.alive {
            return Micros::MAX;
        }
        let timeout = self.session_ms();
        let alive = self
            .sessions
            .iter()
            .filter(|session| session.heard_lately(&self.image));
        let next = alive.map(|session| {
            let retry = match session.acknowledged < self.image.version {
                true => session.sent_at.plus_ms(PUSH_RETRY_MS),
                false => Micros::MAX,
            };
            session.heard_at.plus(timeout).min(retry)
        });
        let next = next.min().unwrap_or(Micros::MAX);
        next.min(self.gather_until).min(self.balance_at)
    }

    fn crash(&mut self, _now: Micros, _fx: &mut Effects) {
        self.alive = false;
    }

    /// The metadata is durable; sessions begin anew, as with a new active controller.
    fn restart(&mut self, now: Micros, _fx: &mut Effects) {
        self.alive = true;
        for session in &mut self.sessions {
            session.heard_at = now;
            session.sent = 0;
        }
    }
}
