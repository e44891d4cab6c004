//! The group coordinator on a broker: its requests, what it stores, what it reads back after a
//! failover. The rebalance itself is in [`super::group_membership`].

use super::broker::Broker;
use super::coordinator::{Asker, Author, Then, Unverified, coordinator_error};
use super::group_membership::Group;
use super::group_state::{Outcome, Store};
use super::internal::InternalRecord;
use super::offsets::OffsetsState;
use super::protocol::{
    Batch, ErrorCode, JoinError, OFFSETS_TOPIC, Offset, OffsetCommit, PartitionId, Payload,
    ProducerId, ProducerStamp, Request, Response, TopicIndex, TopicPartition,
};
use crate::fabric::actor::{Effects, Micros};
use crate::sabotage::Sabotage;
use std::collections::BTreeMap;
use std::sync::Arc;

/// offset.metadata.max.bytes
const METADATA_MAX: usize = 4_096;
/// offsets.commit.timeout.ms
const APPEND_TIMEOUT_MS: u64 = 5_000;

/// Everything that one partition of `__consumer_offsets` coordinates.
#[derive(Debug)]
pub(super) struct GroupShard {
    /// Still reading its log until then.
    loaded_at: Option<Micros>,
    /// The log has been read up to here.
    applied: Offset,
    offsets: OffsetsState,
    groups: BTreeMap<Arc<str>, Group>,
    /// Each producer's newest marker, if it was acknowledged before it was applied: never of a
    /// faithful broker.
    late: BTreeMap<ProducerId, Arc<Batch>>,
}

impl GroupShard {
    /// Applies the markers that are late.
    fn catch_up(&mut self) {
        for marker in std::mem::take(&mut self.late).into_values() {
            self.offsets.apply(&marker, |_, _| {});
        }
    }

    /// Takes the next batch of the log; of a producer's markers, the one before the newest.
    fn apply_behind(&mut self, batch: &Arc<Batch>) {
        let marker = matches!(batch.payload, Payload::Marker { .. });
        let late = match batch.producer.filter(|_| marker) {
            Some(stamp) => self.late.insert(stamp.id, Arc::clone(batch)),
            None => Some(Arc::clone(batch)),
        };
        if let Some(batch) = late {
            self.offsets.apply(&batch, |_, _| {});
        }
    }

    /// True if the group has no member (or is not known).
    pub(super) fn is_empty_group(&self, name: &str) -> bool {
        self.groups.get(name).is_none_or(Group::is_empty)
    }

    pub(super) fn loading(loaded_at: Micros) -> GroupShard {
        GroupShard {
            loaded_at: Some(loaded_at),
            applied: Offset(0),
            offsets: OffsetsState::default(),
            groups: BTreeMap::new(),
            late: BTreeMap::new(),
        }
    }
}

/// Body of a TxnOffsetCommit or OffsetCommit, as far as the group is concerned.
struct Offsets {
    group: Arc<str>,
    /// The transaction's producer.
    stamp: Option<ProducerStamp>,
    author: Author,
    offsets: Vec<OffsetCommit>,
}

impl Broker {
    /// A request to the group coordinator.
    pub(super) fn group_request(
        &mut self,
        asker: Asker,
        request: Request,
        now: Micros,
        fx: &mut Effects,
    ) {
        match request {
            Request::TxnOffsetCommit {
                group,
                producer_id,
                producer_epoch,
                generation,
                member_id,
                offsets,
                ..
            } => {
                let commit = Offsets {
                    group,
                    stamp: Some(ProducerStamp {
                        id: producer_id,
                        epoch: producer_epoch,
                        base_sequence: -1,
                        transactional: true,
                    }),
                    author: Author {
                        generation,
                        member_id,
                    },
                    offsets,
                };
                if let Err(error) = self.commit_offsets(asker, commit, now, fx) {
                    self.refuse_offsets(asker, error, fx);
                }
            }
            Request::OffsetCommit {
                group,
                generation,
                member_id,
                offsets,
            } => {
                let commit = Offsets {
                    group,
                    stamp: None,
                    author: Author {
                        generation,
                        member_id,
                    },
                    offsets,
                };
                if let Err(error) = self.commit_offsets(asker, commit, now, fx) {
                    let error = coordinator_error(error);
                    self.respond(asker, Response::OffsetCommit(Err(error)), fx);
                }
            }
            Request::DeleteGroup { group } => {
                if let Err(error) = self.delete_group(asker, &group, now) {
                    let error = coordinator_error(error);
                    self.respond(asker, Response::DeleteGroup(Err(error)), fx);
                }
            }
            Request::OffsetFetch {
                group,
                require_stable,
                partitions,
            } => {
                let result = self.fetch_offsets(&group, require_stable, &partitions);
                if matches!(result, Err(ErrorCode::UnstableOffsetCommit)) {
                    fx.note(
                        "offsets-unstable",
                        format_args!("{group}: {} asked", partitions.len()),
                    );
                }
                self.respond(asker, Response::OffsetFetch(result), fx);
            }
            Request::JoinGroup { .. }
            | Request::SyncGroup { .. }
            | Request::Heartbeat { .. }
            | Request::LeaveGroup { .. } => self.membership_request(asker, request, now, fx),
            _ => {}
        }
    }

    /// A TxnOffsetCommit fails.
    pub(super) fn refuse_offsets(&mut self, asker: Asker, error: ErrorCode, fx: &mut Effects) {
        if matches!(
            error,
            ErrorCode::IllegalGeneration | ErrorCode::UnknownMemberId
        ) {
            fx.note("offsets-refused", error.name());
        }
        let error = coordinator_error(error);
        self.respond(asker, Response::TxnOffsetCommit(Err(error)), fx);
    }

    /// The shard of a group, if this broker coordinates it now.
    fn group_shard(&mut self, group: &str) -> Result<(PartitionId, &mut GroupShard), ErrorCode> {
        let partition = self.layout.group_partition(group).partition;
        match self.groups.get_mut(&partition) {
            None => Err(ErrorCode::NotCoordinator),
            Some(shard) if shard.loaded_at.is_some() => Err(ErrorCode::CoordinatorLoadInProgress),
            Some(shard) => Ok((partition, shard)),
        }
    }

    fn commit_offsets(
        &mut self,
        asker: Asker,
        commit: Offsets,
        now: Micros,
        fx: &mut Effects,
    ) -> Result<(), ErrorCode> {
        let (partition, _) = self.group_shard(&commit.group)?;
        let tp = TopicPartition {
            topic: OFFSETS_TOPIC,
            partition,
        };
        let author = commit.author;
        let batch = Batch {
            base_offset: Offset(0),
            leader_epoch: 0,
            producer: commit.stamp,
            payload: Payload::Internal(InternalRecord::Offsets {
                group: commit.group,
                offsets: commit.offsets,
            }),
        };
        if batch.producer.is_none() {
            self.check_offsets(&author, &batch)?;
            let deadline = now.plus_ms(APPEND_TIMEOUT_MS);
            return self.append(tp, batch, deadline, Then::PlainOffsets { asker });
        }
        // Only a transaction that is confirmed is compared with the group.
        let from = Unverified::Offsets { asker, author };
        self.verify_or_append(tp, from, batch, now, fx)
    }

    /// May these offsets be committed in this name? A group that nobody knew exists from now on.
    fn check_offsets(&mut self, author: &Author, batch: &Batch) -> Result<(), ErrorCode> {
        let Payload::Internal(InternalRecord::Offsets { group, offsets }) = &batch.payload else {
            return Ok(());
        };
        let fences_members = !self.config.breaks(Sabotage::FencedAccepted);
        let (_, shard) = self.group_shard(group)?;
        match shard.groups.get(group) {
            _ if !fences_members => {}
            Some(known) => {
                let transactional = batch.producer.is_some();
                known.validate_commit(author.generation, &author.member_id, transactional)?;
            }
            None if author.generation < 0 => {
                let new = Group::new(group);
                shard.groups.insert(Arc::clone(group), new);
            }
            None => return Err(ErrorCode::IllegalGeneration),
        }
        // Java counts UTF-16 units, whatever the setting's name says.
        let too_long =
            |offset: &OffsetCommit| offset.metadata.encode_utf16().count() > METADATA_MAX;
        match offsets.iter().any(too_long) {
            true => Err(ErrorCode::OffsetMetadataTooLarge),
            false => Ok(()),
        }
    }

    fn delete_group(
        &mut self,
        asker: Asker,
        name: &Arc<str>,
        now: Micros,
    ) -> Result<(), ErrorCode> {
        let (partition, shard) = self.group_shard(name)?;
        match shard.groups.get(name) {
            Some(group) if !group.is_empty() => return Err(ErrorCode::NonEmptyGroup),
            Some(_) => {}
            None if shard.offsets.knows(name) => {}
            None => return Err(ErrorCode::GroupIdNotFound),
        }
        shard.groups.remove(name);
        let batch = Batch {
            base_offset: Offset(0),
            leader_epoch: 0,
            producer: None,
            payload: Payload::Internal(InternalRecord::GroupDeleted {
                group: Arc::clone(name),
            }),
        };
        let tp = TopicPartition {
            topic: OFFSETS_TOPIC,
            partition,
        };
        let deadline = now.plus_ms(APPEND_TIMEOUT_MS);
        self.append(tp, batch, deadline, Then::GroupDeleted { asker })
    }

    /// A topic is deleted: what the groups coordinated here have committed of it is forgotten.
    pub(super) fn forget_topic(&mut self, topic: TopicIndex, now: Micros) {
        let partitions: Vec<PartitionId> = self.groups.keys().copied().collect();
        for partition in partitions {
            let batch = Batch {
                base_offset: Offset(0),
                leader_epoch: 0,
                producer: None,
                payload: Payload::Internal(InternalRecord::TopicForgotten { topic }),
            };
            let tp = TopicPartition {
                topic: OFFSETS_TOPIC,
                partition,
            };
            let deadline = now.plus_ms(APPEND_TIMEOUT_MS);
            // If it fails, the offsets stay until they expire.
            let _ = self.append(tp, batch, deadline, Then::Nothing);
        }
    }

    /// Appends offsets whose transaction is confirmed.
    pub(super) fn append_offsets(
        &mut self,
        slot: usize,
        asker: Asker,
        author: &Author,
        batch: Batch,
        now: Micros,
    ) -> Result<(), ErrorCode> {
        self.check_offsets(author, &batch)?;
        let tp = self.layout.partition(slot);
        let deadline = now.plus_ms(APPEND_TIMEOUT_MS);
        self.append(tp, batch, deadline, Then::Offsets { asker })
    }

    #[allow(clippy::type_complexity)]
    fn fetch_offsets(
        &mut self,
        group: &str,
        require_stable: bool,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Option<(Offset, Arc<str>)>)>, ErrorCode> {
        let require_stable = require_stable && !self.config.breaks(Sabotage::UnstableOffsetsTold);
        let (_, shard) = self.group_shard(group)?;
        let offsets = &shard.offsets;
        if require_stable && partitions.iter().any(|tp| offsets.is_pending(group, *tp)) {
            shard.catch_up();
            return Err(ErrorCode::UnstableOffsetCommit);
        }
        Ok(partitions
            .iter()
            .map(|tp| (*tp, offsets.committed(group, *tp)))
            .collect())
    }

    /// The high watermark of a partition moved: offsets below it count now.
    pub(super) fn apply_offsets(&mut self, slot: usize) {
        let tp = self.layout.partition(slot);
        if tp.topic != OFFSETS_TOPIC {
            return;
        }
        let (Some(shard), Some(replica)) = (
            self.groups.get_mut(&tp.partition),
            self.replicas[slot].as_ref(),
        ) else {
            return;
        };
        if shard.loaded_at.is_some() || replica.high_watermark <= shard.applied {
            return;
        }
        let behind = self.config.breaks(Sabotage::GroupBehindMarkers);
        for batch in replica.log.range(shard.applied, replica.high_watermark) {
            match behind {
                true => shard.apply_behind(batch),
                false => shard.offsets.apply(batch, |_, _| {}),
            }
        }
        shard.applied = replica.high_watermark;
    }

    /// Reads groups and offsets from the logs of partitions newly led, to their very ends.
    pub(super) fn load_groups(&mut self, now: Micros, fx: &mut Effects) {
        for (partition, shard) in &mut self.groups {
            let Some(loaded_at) = shard.loaded_at else {
                continue;
            };
            if loaded_at > now {
                self.load_at = self.load_at.min(loaded_at);
                continue;
            }
            shard.loaded_at = None;
            let tp = TopicPartition {
                topic: OFFSETS_TOPIC,
                partition: *partition,
            };
            let slot = self.layout.slot(tp).expect("the shard has a partition");
            let replica = self.replicas[slot].as_ref().expect("this broker leads it");
            for batch in replica.log.batches() {
                shard.offsets.apply(batch, |_, _| {});
                match &batch.payload {
                    Payload::Internal(record @ InternalRecord::Group { group, .. }) => {
                        let loaded = Group::load(record, now);
                        shard.groups.insert(Arc::clone(group), loaded);
                    }
                    Payload::Internal(InternalRecord::GroupDeleted { group }) => {
                        shard.groups.remove(group);
                    }
                    _ => {}
                }
            }
            shard.applied = replica.log.end();
            for (name, group) in &shard.groups {
                fx.note("group-loaded", name);
                self.groups_at = self.groups_at.min(group.next_deadline());
            }
        }
    }

    /// This broker coordinates a partition no longer: whoever waits must look elsewhere.
    pub(super) fn drop_groups(&mut self, partition: PartitionId, fx: &mut Effects) {
        if let Some(mut shard) = self.groups.remove(&partition) {
            let mut outcome = Outcome::default();
            for group in shard.groups.values_mut() {
                group.dismiss(ErrorCode::NotCoordinator, &mut outcome);
            }
            for (asker, response) in outcome.replies {
                self.respond(asker, response, fx);
            }
        }
    }

    fn membership_request(
        &mut self,
        asker: Asker,
        request: Request,
        now: Micros,
        fx: &mut Effects,
    ) {
        let name = match &request {
            Request::JoinGroup { group, .. }
            | Request::SyncGroup { group, .. }
            | Request::Heartbeat { group, .. }
            | Request::LeaveGroup { group, .. } => Arc::clone(group),
            _ => return,
        };
        self.member_ids += 1;
        let new_member: Arc<str> = format!(
            "{name}-{}-{}-{}",
            self.id.0, self.incarnation, self.member_ids
        )
        .into();
        let delay_ms = self.config.group_initial_rebalance_delay_ms;
        let (partition, shard) = match self.group_shard(&name) {
            Ok(found) => found,
            Err(error) => {
                self.respond(asker, refusal(&request, error), fx);
                return;
            }
        };
        let joins_first =
            matches!(&request, Request::JoinGroup { member_id, .. } if member_id.is_empty());
        let group = match shard.groups.get_mut(&name) {
            Some(group) => group,
            None if joins_first => shard
                .groups
                .entry(Arc::clone(&name))
                .or_insert_with(|| Group::new(&name)),
            None => {
                let response = refusal(&request, ErrorCode::UnknownMemberId);
                self.respond(asker, response, fx);
                return;
            }
        };
        let mut outcome = Outcome::default();
        match group.request(asker, &request, &new_member, delay_ms, now, &mut outcome) {
            Ok(()) => {}
            Err(error) => outcome.replies.push((asker, refusal(&request, error))),
        }
        self.carry_out(partition, &name, outcome, now, fx);
    }

    /// Does what a group decided.
    fn carry_out(
        &mut self,
        partition: PartitionId,
        name: &Arc<str>,
        outcome: Outcome,
        now: Micros,
        fx: &mut Effects,
    ) {
        let group = self
            .groups
            .get(&partition)
            .and_then(|shard| shard.groups.get(name));
        if let Some(group) = group {
            self.groups_at = self.groups_at.min(group.next_deadline());
        }
        for (asker, response) in outcome.replies {
            self.respond(asker, response, fx);
        }
        for (kind, text) in outcome.notes {
            fx.note(kind, text);
        }
        let Some(Store { record, generation }) = outcome.store else {
            return;
        };
        let batch = Batch {
            base_offset: Offset(0),
            leader_epoch: 0,
            producer: None,
            payload: Payload::Internal(record),
        };
        let tp = TopicPartition {
            topic: OFFSETS_TOPIC,
            partition,
        };
        let then = match generation {
            None => Then::Nothing,
            Some(generation) => Then::GroupStored {
                partition,
                group: Arc::clone(name),
                generation,
            },
        };
        let deadline = now.plus_ms(APPEND_TIMEOUT_MS);
        if let Err(error) = self.append(tp, batch, deadline, then)
            && let Some(generation) = generation
        {
            self.assignment_stored(partition, name, generation, Err(error), now, fx);
        }
    }

    /// A group's assignment is in the log, or could not be stored.
    pub(super) fn assignment_stored(
        &mut self,
        partition: PartitionId,
        name: &Arc<str>,
        generation: i32,
        result: Result<(), ErrorCode>,
        now: Micros,
        fx: &mut Effects,
    ) {
        let shard = self.groups.get_mut(&partition);
        let Some(group) = shard.and_then(|shard| shard.groups.get_mut(name)) else {
            return;
        };
        let mut outcome = Outcome::default();
        group.stored(
            generation,
            result.map_err(coordinator_error),
            now,
            &mut outcome,
        );
        self.carry_out(partition, name, outcome, now, fx);
    }

    /// Expires members, ends rebalances.
    pub(super) fn wake_groups(&mut self, now: Micros, fx: &mut Effects) {
        self.groups_at = Micros::MAX;
        let mut due = Vec::new();
        for (partition, shard) in &self.groups {
            for (name, group) in &shard.groups {
                let at = group.next_deadline();
                if at <= now {
                    due.push((*partition, Arc::clone(name)));
                } else {
                    self.groups_at = self.groups_at.min(at);
                }
            }
        }
        for (partition, name) in due {
            let shard = self.groups.get_mut(&partition);
            if let Some(group) = shard.and_then(|shard| shard.groups.get_mut(&name)) {
                let mut outcome = Outcome::default();
                group.wake(now, &mut outcome);
                self.carry_out(partition, &name, outcome, now, fx);
            }
        }
    }
}

/// The response of a request that failed.
fn refusal(request: &Request, error: ErrorCode) -> Response {
    match request {
        Request::JoinGroup { .. } => Response::JoinGroup(Err(JoinError {
            code: error,
            member_id: None,
        })),
        Request::SyncGroup { .. } => Response::SyncGroup(Err(error)),
        Request::Heartbeat { .. } => Response::Heartbeat(Err(error)),
        _ => Response::LeaveGroup(Err(error)),
    }
}
