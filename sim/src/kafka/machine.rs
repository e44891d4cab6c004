//! What happens to a broker outside of its protocol: its disk, its clock, the people who operate it.

use super::ClusterConfig;
use super::broker::Broker;
use super::coordinator::Asker;
use super::protocol::{Offset, Request, TopicIndex};
use super::replica::Replica;
use crate::fabric::actor::{Effects, Micros};
use std::sync::Arc;

/// Retention of logs, as an operator may set it.
impl Broker {
    /// By slot: up to where a record was ever acknowledged, as far as this broker led.
    #[must_use]
    pub fn reached(&self) -> Vec<Offset> {
        let reached = |replica: &Option<Replica>| replica.as_ref().map_or(Offset(0), |r| r.reached);
        self.replicas.iter().map(reached).collect()
    }

    /// The disk forgets what was written last: of each log, what lies at or after `kept` (whole
    /// batches: a torn one is found by its CRC and cut off as well). Returns whether anything went.
    pub fn lose_tails(&mut self, kept: &[Offset]) -> bool {
        let mut any = false;
        for (replica, kept) in self.replicas.iter_mut().zip(kept) {
            if let Some(replica) = replica {
                any |= replica.log.truncate(*kept);
            }
        }
        any
    }

    /// The disk is full, or is not any more. While it is, the broker shuts down with the next append.
    pub fn set_disk_full(&mut self, full: bool) {
        for replica in self.replicas.iter_mut().flatten() {
            replica.disk_full = full;
        }
    }

    /// An operator changes settings of the running process, which keep for later ones.
    pub fn configure(&mut self, change: impl FnOnce(&mut ClusterConfig)) {
        change(Arc::make_mut(&mut self.config));
    }

    /// True while the process runs: it may have shut itself down.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.alive
    }

    /// A broker whose only disk has failed halts, and nothing that it was about to say is said.
    pub(super) fn halt_if_disk_failed(&mut self, fx: &mut Effects) {
        let failed = |replica: &Replica| replica.disk_failed;
        if self.replicas.iter().flatten().any(failed) {
            fx.messages.clear();
            fx.note("broker-halted", "its disk is full");
            self.alive = false;
            self.forget();
        }
    }

    /// The wall clock is ahead by so much (below 0: behind).
    pub fn set_clock(&mut self, ahead_ms: i64) {
        self.clock_ahead_ms = ahead_ms;
    }

    /// The broker's wall clock, Unix milliseconds.
    pub(super) fn unix_ms(&self, now: Micros) -> i64 {
        let true_ms = self
            .config
            .unix_ms_at_zero
            .saturating_add_unsigned(now.as_ms());
        true_ms.saturating_add(self.clock_ahead_ms)
    }

    /// Does what an administrator's client asks; the answer goes to nobody.
    pub fn operate(&mut self, request: Request, now: Micros, fx: &mut Effects) {
        if self.alive && self.serving {
            let asker = Asker {
                address: self.address,
                correlation: self.next_correlation(),
            };
            self.client_request(asker, request, now, fx);
            self.settle(now, fx);
        }
    }

    /// True if this broker coordinates the group, and it has no member.
    #[must_use]
    pub fn coordinates_empty(&self, group: &str) -> bool {
        let partition = self.layout.group_partition(group).partition;
        let shard = self.groups.get(&partition);
        shard.is_some_and(|shard| shard.is_empty_group(group))
    }

    /// From now on clients see so many partitions of a topic (at most those of its configuration).
    pub fn show_partitions(&mut self, topic: TopicIndex, count: u32) {
        self.shown[usize::from(topic.0)] = count;
    }

    /// The topic is deleted and created anew, with this id. What groups have committed of the old one
    /// is forgotten.
    pub fn recreate(
        &mut self,
        topic: TopicIndex,
        topic_id: Arc<str>,
        now: Micros,
        fx: &mut Effects,
    ) {
        self.topic_ids[usize::from(topic.0)] = topic_id;
        for slot in self.layout.slots_of(topic) {
            if let Some(replica) = self.replicas[slot].as_mut() {
                replica.empty();
                self.mark_dirty(slot);
            }
        }
        if !self.alive {
            return;
        }
        self.renew_sessions(now, fx);
        if self.serving {
            self.forget_topic(topic, now);
        }
        self.settle(now, fx);
    }
}
