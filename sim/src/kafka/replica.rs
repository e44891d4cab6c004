//! One replica of a partition: its log, high watermark and role.

use super::coordinator::Then;
use super::internal::PartitionRegistration;
use super::log::Log;
use super::producer_state::{Origin, ProducerStates};
use super::protocol::{Batch, BrokerId, ErrorCode, LeaderEpoch, Offset, ProducerId};
use crate::fabric::actor::Micros;
use std::sync::Arc;

/// What a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// No leader is known.
    Offline,
    /// Copies from this broker.
    Follower(BrokerId),
    /// Leads.
    Leader,
}

/// A follower as its leader sees it.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) id: BrokerId,
    /// Its log end; `None`: it has not fetched under this leader.
    pub(super) end: Option<Offset>,
    /// When it last had everything that the leader had.
    pub(super) caught_up_at: Micros,
    pub(super) fetched_at: Micros,
    pub(super) leader_end_at_fetch: Offset,
    /// Broker epoch with which it fetched.
    pub(super) broker_epoch: i64,
    /// Alive under that epoch, as far as the leader's metadata goes.
    pub(super) eligible: bool,
}

/// Somebody who waits for an append to be replicated.
#[derive(Debug)]
pub(super) struct Waiter {
    /// The high watermark must reach this.
    pub(super) required: Offset,
    pub(super) deadline: Micros,
    pub(super) then: Then,
}

/// A successful append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Appended {
    pub(super) base: Offset,
    pub(super) next: Offset,
}

/// A replica. What a crash leaves: `log` and `checkpoint`.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) log: Log,
    /// High watermark on disk.
    pub(super) checkpoint: Offset,
    pub(super) high_watermark: Offset,
    pub(super) producers: ProducerStates,
    pub(super) role: Role,
    /// From the metadata; −1: none yet.
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) partition_epoch: i32,
    pub(super) isr: Vec<BrokerId>,
    /// The ISR asked of the controller, not yet answered.
    pub(super) wanted_isr: Option<Vec<BrokerId>>,
    /// Where this leader's epoch begins.
    pub(super) epoch_start: Offset,
    pub(super) followers: Vec<Follower>,
    pub(super) waiters: Vec<Waiter>,
    /// In the broker's list of partitions with news.
    pub(super) dirty: bool,
    /// The highest high watermark that this replica ever had: what the world knows, and no broker.
    pub(super) reached: Offset,
    /// Nothing can be appended: the process will halt.
    pub(super) disk_full: bool,
    /// It was tried.
    pub(super) disk_failed: bool,
}

impl Replica {
    pub(super) fn new() -> Replica {
        Replica {
            log: Log::default(),
            checkpoint: Offset(0),
            high_watermark: Offset(0),
            producers: ProducerStates::default(),
            role: Role::Offline,
            leader_epoch: -1,
            partition_epoch: -1,
            isr: Vec::new(),
            wanted_isr: None,
            epoch_start: Offset(0),
            followers: Vec::new(),
            waiters: Vec::new(),
            dirty: false,
            reached: Offset(0),
            disk_full: false,
            disk_failed: false,
        }
    }

    /// The topic begins anew.
    pub(super) fn empty(&mut self) {
        self.log = Log::default();
        self.log.begin_epoch(self.leader_epoch);
        self.checkpoint = Offset(0);
        self.high_watermark = Offset(0);
        self.reached = Offset(0);
        self.epoch_start = Offset(0);
        self.producers.forget_all();
        for follower in &mut self.followers {
            follower.end = None;
        }
    }

    /// The process died and comes back with what is on disk.
    pub(super) fn crash(&mut self) {
        let log = std::mem::take(&mut self.log);
        let high_watermark = self.checkpoint.min(log.end());
        *self = Replica {
            producers: ProducerStates::rebuild(log.batches(), high_watermark),
            checkpoint: high_watermark,
            high_watermark,
            log,
            reached: self.reached,
            disk_full: self.disk_full,
            ..Replica::new()
        };
    }

    pub(super) fn leads(&self) -> bool {
        self.role == Role::Leader
    }

    /// Last stable offset.
    pub(super) fn last_stable(&self) -> Offset {
        let first_unstable = self.producers.first_unstable();
        first_unstable.map_or(self.high_watermark, |first| first.min(self.high_watermark))
    }

    /// Takes over leadership as `registration` says.
    pub(super) fn lead(&mut self, registration: &PartitionRegistration, me: BrokerId, now: Micros) {
        self.role = Role::Leader;
        self.log.begin_epoch(registration.leader_epoch);
        self.epoch_start = self.log.end();
        let others = registration.replicas.iter().filter(|id| **id != me);
        self.followers = others
            .map(|id| Follower {
                id: *id,
                end: None,
                caught_up_at: if registration.isr.contains(id) {
                    now
                } else {
                    Micros(0)
                },
                fetched_at: Micros(0),
                leader_end_at_fetch: Offset(0),
                broker_epoch: -1,
                eligible: false,
            })
            .collect();
    }

    /// min.insync.replicas, but never more than there are replicas.
    pub(super) fn under_min_isr(&self, min_insync_replicas: usize) -> bool {
        self.isr.len() < min_insync_replicas.min(self.followers.len() + 1)
    }

    /// Appends as the leader.
    pub(super) fn append(
        &mut self,
        mut batch: Batch,
        origin: Origin,
    ) -> Result<Appended, ErrorCode> {
        if self.disk_full {
            self.disk_failed = true;
            return Err(ErrorCode::KafkaStorageError);
        }
        if let Some((base, next)) = self.producers.check(&batch, origin)? {
            return Ok(Appended { base, next });
        }
        batch.base_offset = self.log.end();
        batch.leader_epoch = self.leader_epoch;
        let appended = Appended {
            base: batch.base_offset,
            next: batch.next_offset(),
        };
        self.note_caught_up(batch.base_offset);
        self.producers.apply(&batch);
        let fits = self.log.append(Arc::new(batch));
        assert!(fits, "a leader appends at its own log's end");
        Ok(appended)
    }

    /// Followers that have everything were caught up when they last fetched, although their sessions
    /// do not repeat unchanged positions.
    fn note_caught_up(&mut self, end_before_append: Offset) {
        for follower in &mut self.followers {
            if follower.end == Some(end_before_append) {
                follower.caught_up_at = follower.caught_up_at.max(follower.fetched_at);
            }
        }
    }

    /// A follower fetches from `end`; returns false if it is no replica.
    pub(super) fn follower_fetched(
        &mut self,
        id: BrokerId,
        broker_epoch: i64,
        end: Offset,
        eligible: bool,
        now: Micros,
    ) -> bool {
        let leader_end = self.log.end();
        let Some(follower) = self.followers.iter_mut().find(|f| f.id == id) else {
            return false;
        };
        if end >= leader_end {
            follower.caught_up_at = follower.caught_up_at.max(now);
        } else if end >= follower.leader_end_at_fetch {
            follower.caught_up_at = follower.caught_up_at.max(follower.fetched_at);
        }
        follower.end = Some(end);
        follower.fetched_at = now;
        follower.leader_end_at_fetch = leader_end;
        follower.broker_epoch = broker_epoch;
        follower.eligible = eligible;
        true
    }

    fn in_maximal_isr(&self, id: BrokerId) -> bool {
        let wanted = self.wanted_isr.as_ref();
        self.isr.contains(&id) || wanted.is_some_and(|wanted| wanted.contains(&id))
    }

    /// Moves the leader's high watermark to the least log end of the maximal ISR (and of those about
    /// to join it). Returns whether it moved.
    pub(super) fn advance(
        &mut self,
        min_insync_replicas: usize,
        lag_max_ms: u64,
        now: Micros,
    ) -> bool {
        if !self.leads() || self.under_min_isr(min_insync_replicas) {
            return false;
        }
        let leader_end = self.log.end();
        if self.high_watermark == leader_end {
            return false;
        }
        let mut reached = leader_end;
        for follower in &self.followers {
            let end = follower.end.unwrap_or(Offset(-1));
            if end >= reached {
                continue;
            }
            let caught_up = end == leader_end
                || now.since(follower.caught_up_at) <= Micros::from_ms(lag_max_ms);
            if self.in_maximal_isr(follower.id) || (caught_up && follower.eligible) {
                reached = end;
            }
        }
        self.set_high_watermark(reached)
    }

    /// Moves the high watermark forward, never beyond the log's end.
    pub(super) fn set_high_watermark(&mut self, high_watermark: Offset) -> bool {
        let high_watermark = high_watermark.min(self.log.end());
        if high_watermark <= self.high_watermark {
            return false;
        }
        self.high_watermark = high_watermark;
        self.reached = self.reached.max(high_watermark);
        self.producers.high_watermark_moved(high_watermark);
        true
    }

    /// Followers that should join the ISR now: caught up to the high watermark and to the start of
    /// this leader's epoch.
    pub(super) fn ready_to_join(&self) -> Vec<BrokerId> {
        if !self.leads() || self.wanted_isr.is_some() || self.isr.len() > self.followers.len() {
            return Vec::new();
        }
        let least = self.high_watermark.max(self.epoch_start);
        self.followers
            .iter()
            .filter(|f| f.eligible && !self.isr.contains(&f.id) && f.end >= Some(least))
            .map(|f| f.id)
            .collect()
    }

    /// Members of the ISR that have lagged for longer than allowed.
    pub(super) fn lagging(&self, lag_max_ms: u64, now: Micros) -> Vec<BrokerId> {
        if !self.leads() || self.wanted_isr.is_some() || self.isr.len() < 2 {
            return Vec::new();
        }
        let leader_end = self.log.end();
        self.followers
            .iter()
            .filter(|f| self.isr.contains(&f.id) && f.end != Some(leader_end))
            .filter(|f| now.since(f.caught_up_at) > Micros::from_ms(lag_max_ms))
            .map(|f| f.id)
            .collect()
    }

    /// Appends what the leader sent. Stops at the first batch that does not continue the log.
    pub(super) fn copy(&mut self, batches: Vec<Arc<Batch>>) -> bool {
        self.disk_failed |= self.disk_full && !batches.is_empty();
        if self.disk_failed {
            return false;
        }
        let mut any = false;
        for batch in batches {
            if !self.log.append(Arc::clone(&batch)) {
                break;
            }
            self.producers.apply(&batch);
            any = true;
        }
        any
    }

    /// The leader's log parts from ours after its `epoch` ended at `end_offset`: cut. Returns the new
    /// end if anything was cut.
    pub(super) fn truncate_to(&mut self, epoch: LeaderEpoch, end_offset: Offset) -> Option<Offset> {
        let before = self.log.end();
        let target = match self.log.end_of_epoch(epoch) {
            // We do not know the leader's epoch: cut to the end of the largest smaller one, and the
            // next fetch compares again.
            Some((known, end)) if known != epoch => end.min(before),
            Some((_, end)) => end.min(end_offset),
            None => end_offset.min(before),
        };
        let cut = self.log.truncate(target);
        if !cut {
            return None;
        }
        self.high_watermark = self.high_watermark.min(self.log.end());
        self.checkpoint = self.checkpoint.min(self.log.end());
        self.producers = ProducerStates::rebuild(self.log.batches(), self.high_watermark);
        Some(self.log.end())
    }

    /// Has the producer a transaction open here?
    pub(super) fn has_open(&self, producer_id: ProducerId) -> bool {
        self.producers.has_open(producer_id)
    }
}
