//! A broker as a member of the cluster: registration and heartbeats, metadata and what follows from
//! it, requests of other nodes and their answers.

use super::broker::Broker;
use super::coordinator::{Asker, Sent};
use super::group::GroupShard;
use super::internal::{ClusterImage, InternalRequest, InternalResponse};
use super::protocol::{ErrorCode, Response};
use super::replica::Role;
use super::transactions::TxnShard;
use crate::fabric::actor::{Effects, Micros};
use std::sync::Arc;

/// Between two tries to register.
const REGISTER_RETRY_MS: u64 = 500;

impl Broker {
    /// Applies newer metadata from the controller.
    pub(super) fn update_metadata(
        &mut self,
        image: Arc<ClusterImage>,
        now: Micros,
        fx: &mut Effects,
    ) -> u64 {
        let known = self.image.as_ref().map_or(0, |image| image.version);
        let me = image.broker(self.id).copied();
        let mine = me.is_some_and(|me| self.broker_epoch == Some(me.epoch));
        if image.version <= known || !mine {
            return known;
        }
        let first = self.image.is_none();
        self.serving |= me.is_some_and(|me| !me.fenced);
        self.image = Some(Arc::clone(&image));
        for slot in 0..self.replicas.len() {
            self.update_partition(slot, &image, now, fx);
        }
        self.refresh_fetchers(now, fx);
        if first {
            // Caught up with the metadata: ask to be unfenced.
            self.heartbeat(now, fx);
        }
        image.version
    }

    pub(super) fn update_partition(
        &mut self,
        slot: usize,
        image: &ClusterImage,
        now: Micros,
        fx: &mut Effects,
    ) {
        let me = self.id;
        let Some(replica) = self.replicas[slot].as_mut() else {
            return;
        };
        for follower in &mut replica.followers {
            follower.eligible = image
                .broker(follower.id)
                .is_some_and(|b| !b.fenced && b.epoch == follower.broker_epoch);
        }
        let registration = &image.partitions[slot];
        let new_epoch = registration.leader_epoch > replica.leader_epoch;
        if registration.partition_epoch <= replica.partition_epoch && !new_epoch {
            self.consider_joining(slot);
            return;
        }
        replica.partition_epoch = registration.partition_epoch;
        replica.leader_epoch = registration.leader_epoch;
        replica.isr.clone_from(&registration.isr);
        replica.wanted_isr = None;
        if new_epoch {
            let waiters = std::mem::take(&mut replica.waiters);
            match registration.leader {
                Some(leader) if leader == me => replica.lead(registration, me, now),
                Some(leader) => replica.role = Role::Follower(leader),
                None => replica.role = Role::Offline,
            }
            self.finish(waiters, Err(ErrorCode::NotLeaderOrFollower), now, fx);
            self.change_coordinators(slot, now, fx);
            self.drop_parked(slot, fx);
            self.session_epoch_changed(slot, now);
        }
        self.consider_joining(slot);
        self.mark_dirty(slot);
    }

    /// This broker began or ceased to lead a partition: so for what it coordinates.
    pub(super) fn change_coordinators(&mut self, slot: usize, now: Micros, fx: &mut Effects) {
        let tp = self.layout.partition(slot);
        let replica = self.replicas[slot].as_ref().expect("a replica changed");
        let epoch = replica.leads().then_some(replica.leader_epoch);
        let length = replica.log.batches().len() as u64;
        // Reading the log takes a while, more for a longer one.
        let loaded_at = now.plus(Micros(20_000 + 2 * length));
        if tp.topic == super::protocol::OFFSETS_TOPIC {
            self.drop_groups(tp.partition, fx);
            if epoch.is_some() {
                self.groups
                    .insert(tp.partition, GroupShard::loading(loaded_at));
                self.load_at = self.load_at.min(loaded_at);
            }
        } else if tp.topic == super::protocol::TRANSACTIONS_TOPIC {
            self.transactions.remove(&tp.partition);
            if let Some(epoch) = epoch {
                let shard = TxnShard::loading(epoch, loaded_at);
                self.transactions.insert(tp.partition, shard);
                self.load_at = self.load_at.min(loaded_at);
            }
        }
    }

    pub(super) fn load_coordinators(&mut self, now: Micros, fx: &mut Effects) {
        self.load_at = Micros::MAX;
        self.load_transactions(now, fx);
        self.load_groups(now, fx);
    }

    pub(super) fn register(&mut self, now: Micros, fx: &mut Effects) {
        self.register_at = now.plus_ms(REGISTER_RETRY_MS);
        let request = InternalRequest::RegisterBroker {
            broker: self.id,
            incarnation: self.incarnation,
        };
        self.ask(self.directory.controller, request, Sent::Register, now, fx);
    }

    pub(super) fn heartbeat(&mut self, now: Micros, fx: &mut Effects) {
        let Some(broker_epoch) = self.broker_epoch else {
            return;
        };
        self.heartbeat_at = now.plus_ms(self.config.broker_heartbeat_interval_ms);
        let request = InternalRequest::BrokerHeartbeat {
            broker: self.id,
            broker_epoch,
            metadata_version: self.image.as_ref().map_or(0, |image| image.version),
        };
        self.ask(self.directory.controller, request, Sent::Heartbeat, now, fx);
    }
}

// Requests among nodes.
impl Broker {
    pub(super) fn internal_request(
        &mut self,
        asker: Asker,
        request: InternalRequest,
        now: Micros,
        fx: &mut Effects,
    ) {
        match request {
            InternalRequest::UpdateMetadata { image } => {
                let version = self.update_metadata(image, now, fx);
                let response = Response::Internal(InternalResponse::UpdateMetadata { version });
                self.respond(asker, response, fx);
            }
            _ if self.image.is_none() => {}
            InternalRequest::ReplicaFetch {
                broker,
                broker_epoch,
                full,
                session,
                sequence,
                partitions,
            } => {
                let place = super::replication::Place {
                    broker,
                    broker_epoch,
                    full,
                    session,
                    sequence,
                };
                self.replica_fetch(asker, place, &partitions, now, fx);
            }
            InternalRequest::WriteTxnMarkers { .. } => {
                self.write_markers(asker, request, now, fx);
            }
            InternalRequest::VerifyTransaction {
                producer_id,
                producer_epoch,
                partition,
            } => {
                let verdict = self.verdict(producer_id, producer_epoch, partition);
                let response = InternalResponse::VerifyTransaction { verdict };
                self.respond(asker, Response::Internal(response), fx);
            }
            InternalRequest::RegisterBroker { .. }
            | InternalRequest::BrokerHeartbeat { .. }
            | InternalRequest::AlterPartition { .. } => {}
        }
    }

    pub(super) fn internal_response(
        &mut self,
        correlation: u64,
        response: InternalResponse,
        now: Micros,
        fx: &mut Effects,
    ) {
        if let InternalResponse::ReplicaFetch { partitions } = response {
            self.replica_fetched(correlation, partitions, now, fx);
            return;
        }
        let found = self
            .in_flight
            .iter()
            .position(|f| f.correlation == correlation);
        let Some(found) = found else {
            return;
        };
        let sent = self.in_flight.remove(found).what;
        match (sent, response) {
            (Sent::Register, InternalResponse::RegisterBroker { broker_epoch }) => {
                if let Some(epoch) = broker_epoch
                    && self.broker_epoch.is_none()
                {
                    self.broker_epoch = Some(epoch);
                    self.register_at = Micros::MAX;
                    self.heartbeat(now, fx);
                }
            }
            (Sent::Heartbeat, InternalResponse::BrokerHeartbeat { known: false, .. }) => {
                self.broker_epoch = None;
                self.heartbeat_at = Micros::MAX;
                // Leaders must learn the new epoch: begin new sessions with the next metadata.
                self.forget_fetched();
                self.register(now, fx);
            }
            (Sent::AlterPartition { .. }, InternalResponse::AlterPartition { results }) => {
                self.isr_changed(&results);
            }
            (Sent::Markers(markers), InternalResponse::WriteTxnMarkers { results }) => {
                self.markers_answered(&markers, &results, now);
            }
            (Sent::Verify(verification), InternalResponse::VerifyTransaction { verdict }) => {
                self.verified(verification, verdict, now, fx);
            }
            _ => {}
        }
    }

    pub(super) fn expire_requests(&mut self, now: Micros, fx: &mut Effects) {
        let (late, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.in_flight)
            .into_iter()
            .partition(|f| f.deadline <= now);
        self.in_flight = rest;
        let next = self.in_flight.iter().map(|f| f.deadline).min();
        self.in_flight_at = next.unwrap_or(Micros::MAX);
        for request in late {
            match request.what {
                // Both have timers of their own.
                Sent::Register | Sent::Heartbeat => {}
                Sent::AlterPartition { slots } => self.isr_wishes.extend(slots),
                Sent::Markers(markers) => {
                    self.retry_markers(markers.partition, &markers.transactional_id, now);
                }
                Sent::Verify(verification) => {
                    self.verified(verification, super::internal::Verdict::Retry, now, fx);
                }
            }
        }
    }
}
