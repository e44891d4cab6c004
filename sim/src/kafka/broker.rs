//! A broker: the actor, its timers, its place in the cluster, and the order in which things settle.

use super::client_requests::{ParkedFetch, ProduceOp};
use super::coordinator::{Asker, InFlight, Sent, Then};
use super::group::GroupShard;
use super::internal::{ClusterImage, InternalRequest};
use super::layout::Layout;
use super::log::Log;
use super::markers::{MarkerOp, SeenMarkers};
use super::protocol::{
    Batch, BrokerId, ErrorCode, LogTimeMs, Message, Offset, PartitionId, Request, Response,
    TopicPartition,
};
use super::replica::{Replica, Waiter};
use super::replication::{Fetcher, Session};
use super::transactions::TxnShard;
use super::{ClusterConfig, Directory};
use crate::fabric::actor::{Actor, Address, Effects, Micros};
use crate::sabotage::Sabotage;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Until a request to another node is taken as lost.
pub(super) const REQUEST_TIMEOUT_MS: u64 = 2_000;
/// replica.high.watermark.checkpoint.interval.ms
const CHECKPOINT_INTERVAL_MS: u64 = 5_000;

/// A broker. On its disk: the logs, the checkpointed high watermarks, the number of its process and
/// of the producer ids that it gave.
pub struct Broker {
    pub(super) id: BrokerId,
    pub(super) address: Address,
    pub(super) config: Arc<ClusterConfig>,
    pub(super) directory: Arc<Directory>,
    pub(super) layout: Layout,
    /// On disk: number of the process.
    pub(super) incarnation: u64,
    /// On disk: producer ids given so far.
    pub(super) producer_ids: i64,
    pub(super) alive: bool,
    pub(super) broker_epoch: Option<i64>,
    /// Has been unfenced since it started: it answers clients.
    pub(super) serving: bool,
    pub(super) image: Option<Arc<ClusterImage>>,
    pub(super) correlation: u64,
    pub(super) replicas: Vec<Option<Replica>>,
    pub(super) dirty: Vec<usize>,
    /// Messages to itself.
    pub(super) loopback: VecDeque<Message>,
    pub(super) in_flight: Vec<InFlight>,
    pub(super) isr_wishes: Vec<usize>,
    pub(super) fetchers: Vec<Fetcher>,
    pub(super) sessions: BTreeMap<BrokerId, Session>,
    pub(super) next_op: u64,
    pub(super) produce_ops: BTreeMap<u64, ProduceOp>,
    pub(super) marker_ops: BTreeMap<u64, MarkerOp>,
    pub(super) seen_markers: BTreeMap<BrokerId, SeenMarkers>,
    pub(super) parked: Vec<ParkedFetch>,
    pub(super) transactions: BTreeMap<PartitionId, TxnShard>,
    pub(super) groups: BTreeMap<PartitionId, GroupShard>,
    pub(super) member_ids: u64,
    /// By topic: how many partitions clients see.
    pub(super) shown: Vec<u32>,
    pub(super) topic_ids: Vec<Arc<str>>,
    pub(super) clock_ahead_ms: i64,
    /// When to look at each kind of deadline next.
    pub(super) register_at: Micros,
    pub(super) heartbeat_at: Micros,
    pub(super) maintenance_at: Micros,
    pub(super) lag_check_at: Micros,
    pub(super) in_flight_at: Micros,
    pub(super) waiters_at: Micros,
    pub(super) parked_at: Micros,
    pub(super) sweep_at: Micros,
    pub(super) markers_at: Micros,
    pub(super) load_at: Micros,
    pub(super) groups_at: Micros,
}

impl Broker {
    /// A broker with empty disks. It registers with the controller as soon as it is woken.
    ///
    /// # Panics
    /// If `directory` does not know `id`.
    #[must_use]
    pub fn new(id: BrokerId, config: Arc<ClusterConfig>, directory: Arc<Directory>) -> Broker {
        let layout = Layout::new(&config);
        let address = directory.broker(id).expect("a broker is in the directory");
        let replicas = (0..layout.len())
            .map(|slot| {
                let replicas = super::layout::replicas_of(slot, config.brokers);
                replicas.contains(&id).then(Replica::new)
            })
            .collect();
        let topics = &config.topics;
        let mut broker = Broker {
            id,
            address,
            shown: topics.iter().map(|topic| topic.shown_partitions).collect(),
            topic_ids: topics
                .iter()
                .map(|topic| Arc::clone(&topic.topic_id))
                .collect(),
            clock_ahead_ms: 0,
            config,
            directory,
            layout,
            incarnation: 0,
            producer_ids: 0,
            alive: true,
            broker_epoch: None,
            serving: false,
            image: None,
            correlation: 0,
            replicas,
            dirty: Vec::new(),
            loopback: VecDeque::new(),
            in_flight: Vec::new(),
            isr_wishes: Vec::new(),
            fetchers: Vec::new(),
            sessions: BTreeMap::new(),
            next_op: 0,
            produce_ops: BTreeMap::new(),
            marker_ops: BTreeMap::new(),
            seen_markers: BTreeMap::new(),
            parked: Vec::new(),
            transactions: BTreeMap::new(),
            groups: BTreeMap::new(),
            member_ids: 0,
            register_at: Micros(0),
            heartbeat_at: Micros::MAX,
            maintenance_at: Micros::MAX,
            lag_check_at: Micros::MAX,
            in_flight_at: Micros::MAX,
            waiters_at: Micros::MAX,
            parked_at: Micros::MAX,
            sweep_at: Micros::MAX,
            markers_at: Micros::MAX,
            load_at: Micros::MAX,
            groups_at: Micros::MAX,
        };
        broker.start(Micros(0));
        broker
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> BrokerId {
        self.id
    }

    /// Log, high watermark, last stable offset and, if it leads, leader epoch of a partition that
    /// this broker has a replica of.
    #[must_use]
    pub fn replica_view(&self, tp: TopicPartition) -> Option<ReplicaView<'_>> {
        let replica = self.replicas[self.layout.slot(tp)?].as_ref()?;
        Some(ReplicaView {
            log: &replica.log,
            high_watermark: replica.high_watermark,
            last_stable: replica.last_stable(),
            leads_in_epoch: (self.alive && replica.leads()).then_some(replica.leader_epoch),
            isr: &replica.isr,
            replica,
        })
    }

    /// The cluster's layout.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A new process begins.
    fn start(&mut self, now: Micros) {
        self.incarnation += 1;
        self.correlation = self.incarnation << 32;
        self.register_at = now;
        self.maintenance_at = now.plus_ms(CHECKPOINT_INTERVAL_MS);
        self.lag_check_at = now.plus_ms(self.config.replica_lag_time_max_ms / 2);
        self.sweep_at = now.plus_ms(self.config.transaction_cleanup_interval_ms);
        let others = self
            .directory
            .brokers
            .iter()
            .filter(|(id, _)| *id != self.id);
        self.fetchers = others.map(|(id, _)| Fetcher::new(*id)).collect();
    }

    /// Forgets what is only in memory.
    pub(super) fn forget(&mut self) {
        self.broker_epoch = None;
        self.serving = false;
        self.image = None;
        for replica in self.replicas.iter_mut().flatten() {
            replica.crash();
        }
        self.dirty.clear();
        self.loopback.clear();
        self.in_flight.clear();
        self.isr_wishes.clear();
        self.fetchers.clear();
        self.sessions.clear();
        self.produce_ops.clear();
        self.marker_ops.clear();
        self.seen_markers.clear();
        self.parked.clear();
        self.transactions.clear();
        self.groups.clear();
        for at in self.deadlines() {
            *at = Micros::MAX;
        }
    }

    fn deadlines(&mut self) -> [&mut Micros; 11] {
        [
            &mut self.register_at,
            &mut self.heartbeat_at,
            &mut self.maintenance_at,
            &mut self.lag_check_at,
            &mut self.in_flight_at,
            &mut self.waiters_at,
            &mut self.parked_at,
            &mut self.sweep_at,
            &mut self.markers_at,
            &mut self.load_at,
            &mut self.groups_at,
        ]
    }

    /// A fresh correlation id: never used before, not even by an earlier process.
    pub(super) fn next_correlation(&mut self) -> u64 {
        self.correlation += 1;
        self.correlation
    }

    /// Sends a request to another node (or to itself) and remembers it.
    pub(super) fn ask(
        &mut self,
        to: Address,
        request: InternalRequest,
        what: Sent,
        now: Micros,
        fx: &mut Effects,
    ) {
        let correlation = self.next_correlation();
        let deadline = now.plus_ms(REQUEST_TIMEOUT_MS);
        self.in_flight_at = self.in_flight_at.min(deadline);
        self.in_flight.push(InFlight {
            correlation,
            deadline,
            what,
        });
        let message = Message::Request {
            correlation,
            request: Request::Internal(request),
        };
        self.send(to, message, fx);
    }

    fn send(&mut self, to: Address, message: Message, fx: &mut Effects) {
        if to == self.address {
            self.loopback.push_back(message);
        } else {
            fx.send(to, message);
        }
    }

    /// Answers a request.
    pub(super) fn respond(&mut self, asker: Asker, response: Response, fx: &mut Effects) {
        let message = Message::Response {
            correlation: asker.correlation,
            response,
        };
        self.send(asker.address, message, fx);
    }

    /// Slot of a partition that clients see.
    pub(super) fn slot(&self, tp: TopicPartition) -> Option<usize> {
        let shown = self.shown.get(usize::from(tp.topic.0))?;
        let partition = u32::try_from(tp.partition.0).ok()?;
        let slot = self.layout.slot(tp);
        slot.filter(|_| partition < *shown)
    }

    /// The replica of a partition, if this broker leads it.
    pub(super) fn led(&mut self, tp: TopicPartition) -> Result<(usize, &mut Replica), ErrorCode> {
        let slot = self.slot(tp).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        match self.replicas[slot].as_mut() {
            Some(replica) if replica.leads() => Ok((slot, replica)),
            _ => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// min.insync.replicas of a partition.
    pub(super) fn min_insync_replicas(&self, slot: usize) -> usize {
        let topic = self.layout.partition(slot).topic;
        self.config.min_insync_replicas_of(topic)
    }

    /// There is news about a partition: who waits for it will be looked at when things settle.
    pub(super) fn mark_dirty(&mut self, slot: usize) {
        if let Some(replica) = self.replicas[slot].as_mut()
            && !replica.dirty
        {
            replica.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Registers `then` for the moment when the high watermark reaches `required`.
    pub(super) fn wait_for(&mut self, slot: usize, required: Offset, deadline: Micros, then: Then) {
        let replica = self.replicas[slot]
            .as_mut()
            .expect("the replica was appended to");
        replica.waiters.push(Waiter {
            required,
            deadline,
            then,
        });
        self.waiters_at = self.waiters_at.min(deadline);
        self.mark_dirty(slot);
    }

    /// Appends as leader and registers `then`; fails at once if that is not possible.
    pub(super) fn append(
        &mut self,
        tp: TopicPartition,
        batch: Batch,
        deadline: Micros,
        then: Then,
    ) -> Result<(), ErrorCode> {
        let min_isr = self.config.min_insync_replicas_of(tp.topic);
        let (slot, replica) = self.led(tp)?;
        if replica.under_min_isr(min_isr) {
            return Err(ErrorCode::NotEnoughReplicas);
        }
        let appended = replica.append(batch, super::producer_state::Origin::Coordinator)?;
        self.wait_for(slot, appended.next, deadline, then);
        Ok(())
    }

    /// Lets everything follow that the last event made possible.
    pub(super) fn settle(&mut self, now: Micros, fx: &mut Effects) {
        loop {
            if let Some(slot) = self.dirty.pop() {
                self.settle_partition(slot, now, fx);
            } else if let Some(message) = self.loopback.pop_front() {
                self.handle(now, self.address, message, fx);
            } else if self.isr_wishes.is_empty() {
                return;
            } else {
                self.send_isr_wishes(now, fx);
            }
        }
    }

    fn settle_partition(&mut self, slot: usize, now: Micros, fx: &mut Effects) {
        let (min_isr, lag_ms) = (
            self.min_insync_replicas(slot),
            self.config.replica_lag_time_max_ms,
        );
        let replica = self.replicas[slot]
            .as_mut()
            .expect("only replicas get dirty");
        replica.dirty = false;
        let moved = replica.advance(min_isr, lag_ms, now);
        if !replica.leads() {
            return;
        }
        if moved {
            self.apply_offsets(slot);
        }
        self.serve_followers(slot, fx);
        self.serve_consumers(slot, fx);
        self.finish_waiters(slot, now, fx);
    }

    fn finish_waiters(&mut self, slot: usize, now: Micros, fx: &mut Effects) {
        let min_isr = self.min_insync_replicas(slot);
        let replica = self.replicas[slot]
            .as_mut()
            .expect("only replicas get dirty");
        let reached = replica.high_watermark;
        if replica.waiters.iter().all(|w| w.required > reached) {
            return;
        }
        let result = match replica.under_min_isr(min_isr) {
            true => Err(ErrorCode::NotEnoughReplicasAfterAppend),
            false => Ok(()),
        };
        let (done, rest) = std::mem::take(&mut replica.waiters)
            .into_iter()
            .partition(|w| w.required <= reached);
        replica.waiters = rest;
        self.finish(done, result, now, fx);
    }

    pub(super) fn finish(
        &mut self,
        done: Vec<Waiter>,
        result: Result<(), ErrorCode>,
        now: Micros,
        fx: &mut Effects,
    ) {
        for waiter in done {
            self.complete(waiter.then, result, now, fx);
        }
    }

    fn complete(
        &mut self,
        then: Then,
        result: Result<(), ErrorCode>,
        now: Micros,
        fx: &mut Effects,
    ) {
        match then {
            Then::Produce { op, index, base } => {
                self.produced(op, index, result.map(|()| base), fx);
            }
            Then::Marker { op, tp } => self.marker_written(op, tp, result, fx),
            Then::Transaction(transition) => self.transitioned(*transition, result, now, fx),
            Then::Offsets { asker } => {
                let result = result.map_err(super::coordinator::coordinator_error);
                self.respond(asker, Response::TxnOffsetCommit(result), fx);
            }
            Then::PlainOffsets { asker } => {
                let result = result.map_err(super::coordinator::coordinator_error);
                self.respond(asker, Response::OffsetCommit(result), fx);
            }
            Then::GroupDeleted { asker } => {
                let result = result.map_err(super::coordinator::coordinator_error);
                self.respond(asker, Response::DeleteGroup(result), fx);
            }
            Then::GroupStored {
                partition,
                group,
                generation,
            } => self.assignment_stored(partition, &group, generation, result, now, fx),
            Then::Nothing => {}
        }
    }

    fn expire_waiters(&mut self, now: Micros, fx: &mut Effects) {
        self.waiters_at = Micros::MAX;
        let mut expired = Vec::new();
        for replica in self.replicas.iter_mut().flatten() {
            if replica.waiters.iter().any(|w| w.deadline <= now) {
                let (late, rest) = std::mem::take(&mut replica.waiters)
                    .into_iter()
                    .partition(|w| w.deadline <= now);
                replica.waiters = rest;
                expired.extend::<Vec<_>>(late);
            }
            for waiter in &replica.waiters {
                self.waiters_at = self.waiters_at.min(waiter.deadline);
            }
        }
        self.finish(expired, Err(ErrorCode::RequestTimedOut), now, fx);
    }

    fn maintain(&mut self, now: Micros, fx: &mut Effects) {
        self.maintenance_at = now.plus_ms(CHECKPOINT_INTERVAL_MS);
        let kept_ms = i64::try_from(self.config.producer_id_expiration_ms).unwrap_or(i64::MAX);
        let until = LogTimeMs(self.unix_ms(now).saturating_sub(kept_ms));
        let spares_open = !self.config.breaks(Sabotage::OpenProducerExpired);
        let mut expired = 0;
        for replica in self.replicas.iter_mut().flatten() {
            replica.checkpoint = replica.high_watermark;
            expired += replica.producers.expire(until, spares_open);
        }
        if expired > 0 {
            fx.note(
                "producer-state-expired",
                format_args!("{expired} producers"),
            );
        }
    }

    fn handle(&mut self, now: Micros, from: Address, message: Message, fx: &mut Effects) {
        match message {
            Message::Request {
                correlation,
                request,
            } => {
                let asker = Asker {
                    address: from,
                    correlation,
                };
                match request {
                    Request::Internal(request) => self.internal_request(asker, request, now, fx),
                    request if self.serving => self.client_request(asker, request, now, fx),
                    _ => {}
                }
            }
            Message::Response {
                correlation,
                response: Response::Internal(response),
            } => self.internal_response(correlation, response, now, fx),
            Message::Response { .. } => {}
        }
    }
}

/// One replica, to look at.
#[derive(Clone, Copy)]
pub struct ReplicaView<'a> {
    /// Its log.
    pub log: &'a Log,
    /// Its high watermark.
    pub high_watermark: Offset,
    /// Its last stable offset.
    pub last_stable: Offset,
    /// Leader epoch, if it leads.
    pub leads_in_epoch: Option<i32>,
    /// In-sync replicas as it knows them.
    pub isr: &'a [BrokerId],
    pub(super) replica: &'a Replica,
}

impl Actor for Broker {
    fn receive(&mut self, now: Micros, from: Address, message: Message, fx: &mut Effects) {
        if self.alive {
            self.handle(now, from, message, fx);
            self.settle(now, fx);
            self.halt_if_disk_failed(fx);
        }
    }

    fn wake(&mut self, now: Micros, fx: &mut Effects) {
        if self.register_at <= now {
            self.register(now, fx);
        }
        if self.heartbeat_at <= now {
            self.heartbeat(now, fx);
        }
        if self.maintenance_at <= now {
            self.maintain(now, fx);
        }
        if self.lag_check_at <= now {
            self.check_lag(now);
        }
        if self.in_flight_at <= now {
            self.expire_requests(now, fx);
        }
        if self.waiters_at <= now {
            self.expire_waiters(now, fx);
        }
        if self.parked_at <= now {
            self.expire_parked(now, fx);
        }
        if self.sweep_at <= now {
            self.sweep_transactions(now, fx);
        }
        if self.markers_at <= now {
            self.send_due_markers(now, fx);
        }
        if self.load_at <= now {
            self.load_coordinators(now, fx);
        }
        if self.groups_at <= now {
            self.wake_groups(now, fx);
        }
        self.wake_replication(now, fx);
        self.settle(now, fx);
        self.halt_if_disk_failed(fx);
    }

    fn next_wake(&self) -> Micros {
        if !self.alive {
            return Micros::MAX;
        }
        self.replication_wake()
            .min(self.register_at)
            .min(self.heartbeat_at)
            .min(self.maintenance_at)
            .min(self.lag_check_at)
            .min(self.in_flight_at)
            .min(self.waiters_at)
            .min(self.parked_at)
            .min(self.sweep_at)
            .min(self.markers_at)
            .min(self.load_at)
            .min(self.groups_at)
    }

    fn crash(&mut self, _now: Micros, _fx: &mut Effects) {
        self.alive = false;
        self.forget();
    }

    fn restart(&mut self, now: Micros, _fx: &mut Effects) {
        self.alive = true;
        self.start(now);
    }
}
