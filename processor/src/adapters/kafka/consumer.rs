//! The group consumer.
//!
//! The position of each partition is kept here, as "the next record to hand out", and librdkafka is
//! told it (by a seek) whenever it may have another idea: after a pause, and after every rebalance. So
//! what librdkafka has buffered, or remembers of what the application has seen, never decides what
//! comes next. A partition enters librdkafka's assignment only when its position is known: a logical
//! offset, once asked for, would be looked up again and again, and override a later seek.

use super::errors::{
    ends_consumer, is_unknown_topic, leaves_records_out, of_consumer, of_query, of_retriable,
};
use super::ffi::{Client, Event, List, Membership, RawRecord, RdError, Rebalance};
use crate::io::{
    CommittedOffset, ConsumedRecord, Consumer, ErrorClass, Header, KafkaError, KafkaResult,
    OffsetBounds, Polled, TopicDescription, TopicPartition,
};
use crate::units::{LogTimeMs, Offset, PartitionId};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most records of one poll.
const RECORDS_MAX: usize = 1_000;
/// Most bytes of one poll, but for its last record.
const BYTES_MAX: usize = 1 << 20;
/// A seek is a local matter of librdkafka; this long only if its threads do not run.
const SEEK_TIMEOUT: Duration = Duration::from_secs(10);
/// librdkafka starts to fetch a moment after the assignment: until then it takes no seek.
const SEEK_PAUSE: Duration = Duration::from_millis(2);
/// librdkafka's "after the newest record".
const OFFSET_END: i64 = -1;

/// A member's identity in its group at a generation.
#[derive(Clone)]
pub struct Member(Arc<Membership>);

impl Member {
    pub(super) fn membership(&self) -> Arc<Membership> {
        Arc::clone(&self.0)
    }

    /// The group's generation.
    #[must_use]
    pub fn generation(&self) -> i32 {
        self.0.generation
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member(generation {})", self.0.generation)
    }
}

/// An owned partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Owned {
    /// Next record to hand out; `None` before [`Consumer::start_at`].
    next: Option<i64>,
    paused: bool,
}

impl Owned {
    fn delivers(self, offset: i64) -> bool {
        !self.paused && self.next.is_some_and(|next| offset >= next)
    }
}

/// A consumer of librdkafka that is a member of a group.
pub struct RdConsumer {
    client: Client,
    topic: String,
    owned: BTreeMap<PartitionId, Owned>,
    /// What librdkafka's assignment holds: owned partitions that were started, and given up ones that
    /// the group has not taken back yet.
    assigned: BTreeSet<PartitionId>,
    /// A rebalance that waits for its answer.
    unanswered: Option<Rebalance>,
    /// Topics that a broker has described: if one of them is unknown to another broker, that one is behind.
    described: BTreeSet<String>,
    /// Events that came while records were collected.
    held: VecDeque<Held>,
    arena: BytesMut,
}

/// An event with the arena of its bytes.
struct Held {
    event: Event,
    bytes: Bytes,
}

impl RdConsumer {
    pub(super) fn new(client: Client) -> RdConsumer {
        RdConsumer {
            client,
            topic: String::new(),
            owned: BTreeMap::new(),
            assigned: BTreeSet::new(),
            unanswered: None,
            described: BTreeSet::new(),
            held: VecDeque::new(),
            arena: BytesMut::new(),
        }
    }

    fn list(&self, partitions: &[PartitionId]) -> List {
        List::of_partitions(&self.topic, partitions.iter().map(|p| (p.0, OFFSET_END)))
    }

    fn failed_query(&self, call: &'static str, topic: &str, error: RdError) -> KafkaError {
        if is_unknown_topic(&error) && self.described.contains(topic) {
            return of_retriable(call, error);
        }
        of_query(call, error)
    }

    fn check_owned(&self, call: &'static str, partitions: &[PartitionId]) -> KafkaResult<()> {
        let all_owned = partitions.iter().all(|p| self.owned.contains_key(p));
        if all_owned {
            return Ok(());
        }
        Err(KafkaError {
            call,
            code: "_STATE".to_owned(),
            class: ErrorClass::Fatal,
        })
    }

    /// Next event, from what was held back first.
    fn take_event(&mut self, timeout: Duration) -> Option<Held> {
        if let Some(held) = self.held.pop_front() {
            return Some(held);
        }
        self.arena.clear();
        let event = self.client.next_event(timeout, &mut self.arena)?;
        let bytes = self.arena.split().freeze();
        Some(Held { event, bytes })
    }

    /// What an event means to the caller; `None`: nothing.
    fn understand(&mut self, held: Held) -> KafkaResult<Option<Polled>> {
        match held.event {
            Event::Record(record) => Ok(self.collect(record, held.bytes)),
            Event::End { partition, offset } => Ok(self.reach_end(PartitionId(partition), offset)),
            Event::Rebalance(rebalance) => Ok(Some(self.begin_rebalance(rebalance))),
            Event::Failed {
                partition,
                offset,
                error,
            } => {
                let partition = partition.map(PartitionId);
                self.fail(partition, offset, error).map(|()| None)
            }
            Event::Other => Ok(None),
        }
    }

    fn delivers(&self, partition: PartitionId, offset: i64) -> bool {
        let owned = self.owned.get(&partition);
        self.unanswered.is_none() && owned.is_some_and(|owned| owned.delivers(offset))
    }

    /// The records of one partition that are there already, beginning with `first`.
    fn collect(&mut self, first: RawRecord, first_bytes: Bytes) -> Option<Polled> {
        let partition = PartitionId(first.partition);
        if !self.delivers(partition, first.offset) {
            return None;
        }
        let mut records = vec![consumed(&first, &first_bytes)];
        let mut raw: Vec<RawRecord> = Vec::new();
        self.arena.clear();
        let mut follower = None;
        while records.len() + raw.len() < RECORDS_MAX && self.arena.len() < BYTES_MAX {
            match self.client.next_event(Duration::ZERO, &mut self.arena) {
                Some(Event::Record(record)) if record.partition == partition.0 => {
                    let last = raw.last().map_or(first.offset, |last| last.offset);
                    if record.offset > last {
                        raw.push(record);
                    }
                }
                Some(Event::Other) => {}
                other => {
                    follower = other;
                    break;
                }
            }
        }
        let bytes = self.arena.split().freeze();
        records.extend(raw.iter().map(|record| consumed(record, &bytes)));
        if let Some(event) = follower {
            self.held.push_back(Held { event, bytes });
        }
        let next = records.last().map(|last| last.offset.next().0);
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.next = next;
        }
        Some(Polled::Records { partition, records })
    }

    fn reach_end(&mut self, partition: PartitionId, offset: i64) -> Option<Polled> {
        if !self.delivers(partition, offset) {
            return None;
        }
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.next = Some(offset);
        }
        Some(Polled::EndOfPartition {
            partition,
            position: Offset(offset),
        })
    }

    fn begin_rebalance(&mut self, rebalance: Rebalance) -> Polled {
        let ids = |partitions: &[i32]| partitions.iter().copied().map(PartitionId).collect();
        let polled = match &rebalance {
            Rebalance::Assign(partitions) => Polled::Assigned(ids(partitions)),
            Rebalance::Revoke {
                partitions,
                lost: true,
            } => Polled::Lost(ids(partitions)),
            Rebalance::Revoke {
                partitions,
                lost: false,
            } => Polled::Revoked(ids(partitions)),
        };
        self.unanswered = Some(rebalance);
        polled
    }

    fn fail(
        &mut self,
        partition: Option<PartitionId>,
        offset: i64,
        error: RdError,
    ) -> KafkaResult<()> {
        let started = partition.is_some_and(|partition| {
            let next = self.owned.get(&partition).and_then(|owned| owned.next);
            // Below the position: from before a seek. Negative: the log was cut off.
            next.is_some_and(|next| offset < 0 || offset >= next)
        });
        // With the reset policy `error`: the position is not in the log any more.
        let out_of_range = error.name == "_AUTO_OFFSET_RESET" && started;
        if out_of_range {
            tracing::error!(?partition, text = %error.text, "the position is gone from the log");
            return Err(KafkaError {
                call: "poll",
                code: format!("OFFSET_OUT_OF_RANGE: {}", error.text),
                class: ErrorClass::Fatal,
            });
        }
        // Whatever its offset: a batch may begin before the position.
        if leaves_records_out(&error) && partition.is_some() {
            tracing::error!(?partition, offset, text = %error.text, "records cannot be read");
            return Err(KafkaError {
                call: "poll",
                code: format!(
                    "{}: {}: if a restart does not help, the leader's copy is damaged: move the \
                     leadership to another replica (kafka-leader-election), and check that broker's \
                     disk",
                    error.name, error.text
                ),
                class: ErrorClass::Fatal,
            });
        }
        if ends_consumer(&error) {
            return Err(of_consumer("poll", error));
        }
        tracing::warn!(code = %error.name, text = %error.text, "librdkafka reports");
        Ok(())
    }

    /// Brings librdkafka's assignment to what is owned and has a position: begins what is not in it, and
    /// tells the position of the rest.
    fn assert_positions(&mut self) -> Result<(), RdError> {
        // Fetched before; comes again from the position.
        self.drop_held(|_| true);
        let started = self.owned.iter().filter_map(|(partition, owned)| {
            let next = owned.next?;
            Some((*partition, next, owned.paused))
        });
        let (fetched, new): (Vec<_>, Vec<_>) = started
            .filter(|(_, _, paused)| !paused)
            .partition(|(partition, ..)| self.assigned.contains(partition));
        let position = |&(partition, next, _): &(PartitionId, i64, bool)| (partition.0, next);
        if !fetched.is_empty() {
            self.seek(&fetched.iter().map(position).collect::<Vec<_>>())?;
            // A pause may have ended while a rebalance waited.
            let ids: Vec<PartitionId> = fetched.iter().map(|(p, ..)| *p).collect();
            self.client.resume(&self.list(&ids))?;
        }
        let new: Vec<(i32, i64)> = new.iter().map(position).collect();
        self.begin(&new)
    }

    /// Drops held records and ends of partitions; never a rebalance.
    fn drop_held(&mut self, of: impl Fn(i32) -> bool) {
        self.held
            .retain(|held| !partition_of(&held.event).is_some_and(&of));
    }

    fn seek(&self, positions: &[(i32, i64)]) -> Result<(), RdError> {
        if positions.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + SEEK_TIMEOUT;
        loop {
            let list = List::of_partitions(&self.topic, positions.iter().copied());
            match self.client.seek(&list, SEEK_TIMEOUT) {
                Err(error) if error.name == "_STATE" && Instant::now() < deadline => {
                    std::thread::sleep(SEEK_PAUSE);
                }
                done => return done,
            }
        }
    }

    fn answer_assign(&mut self, partitions: &[PartitionId]) -> Result<(), RdError> {
        if self.client.is_cooperative() {
            self.client.incremental_assign(&List::new())?;
        } else {
            self.client.assign(Some(&List::new()))?;
            self.owned.clear();
            self.assigned.clear();
        }
        let new = partitions.iter().map(|&p| (p, Owned::default()));
        self.owned.extend(new);
        self.assert_positions()
    }

    fn answer_revoke(&mut self, partitions: &[i32]) -> Result<(), RdError> {
        if self.client.is_cooperative() {
            let revoked = partitions.iter().copied().map(PartitionId);
            let fetched: Vec<PartitionId> = revoked.filter(|p| self.assigned.remove(p)).collect();
            self.client.incremental_unassign(&self.list(&fetched))?;
        } else {
            self.client.assign(None)?;
            self.owned.clear();
            self.assigned.clear();
        }
        self.assert_positions()
    }

    /// Puts partitions into librdkafka's assignment, at their positions.
    fn begin(&mut self, new: &[(i32, i64)]) -> Result<(), RdError> {
        if new.is_empty() {
            return Ok(());
        }
        let ids: Vec<PartitionId> = new.iter().map(|(p, _)| PartitionId(*p)).collect();
        if self.client.is_cooperative() {
            let list = List::of_partitions(&self.topic, new.iter().copied());
            self.client.incremental_assign(&list)?;
        } else {
            // Eager assignments are made as a whole, and so are fetched anew from their positions.
            self.drop_held(|_| true);
            let others = self.owned.iter().filter(|(of, _)| !ids.contains(of));
            let others = others.filter_map(|(of, owned)| Some((of.0, owned.next?)));
            let all: Vec<(i32, i64)> = others.chain(new.iter().copied()).collect();
            self.client
                .assign(Some(&List::of_partitions(&self.topic, all.iter().copied())))?;
            self.assigned = all.iter().map(|(p, _)| PartitionId(*p)).collect();
        }
        self.assigned.extend(&ids);
        // A pause of an earlier assignment is remembered.
        self.client.resume(&self.list(&ids))
    }
}

fn consumed(record: &RawRecord, bytes: &Bytes) -> ConsumedRecord {
    let part = |range: &std::ops::Range<usize>| bytes.slice(range.clone());
    ConsumedRecord {
        offset: Offset(record.offset),
        timestamp: LogTimeMs(record.timestamp),
        key: record.key.as_ref().map(part),
        value: record.value.as_ref().map(part),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| Header {
                name: name.clone(),
                value: part(value),
            })
            .collect(),
    }
}

impl Consumer for RdConsumer {
    type GroupMetadata = Member;

    fn subscribe(&mut self, topic: &str) -> KafkaResult<()> {
        topic.clone_into(&mut self.topic);
        let done = self.client.subscribe(topic);
        done.map_err(|error| of_consumer("subscribe", error))
    }

    async fn poll(&mut self, timeout: Duration) -> KafkaResult<Polled> {
        let deadline = Instant::now() + timeout;
        let mut wait = timeout;
        loop {
            let Some(held) = self.take_event(wait) else {
                return Ok(Polled::TimedOut);
            };
            if let Some(polled) = self.understand(held)? {
                return Ok(polled);
            }
            wait = deadline.saturating_duration_since(Instant::now());
            if wait.is_zero() && self.held.is_empty() {
                return Ok(Polled::TimedOut);
            }
        }
    }

    fn accept(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        let Some(Rebalance::Assign(_)) = self.unanswered else {
            return Err(KafkaError {
                call: "accept",
                code: "_ASSIGNMENT_LOST".to_owned(),
                class: ErrorClass::Retriable,
            });
        };
        self.unanswered = None;
        let done = self.answer_assign(partitions);
        done.map_err(|error| of_consumer("accept", error))
    }

    fn release(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        for partition in partitions {
            self.owned.remove(partition);
        }
        if let Some(Rebalance::Revoke {
            partitions: revoked,
            ..
        }) = &self.unanswered
        {
            let left = revoked.iter().copied().map(PartitionId);
            let left: BTreeSet<PartitionId> = left.filter(|p| self.owned.contains_key(p)).collect();
            if left.is_empty() {
                let revoked = revoked.clone();
                self.unanswered = None;
                let done = self.answer_revoke(&revoked);
                return done.map_err(|error| of_consumer("release", error));
            }
            return Ok(());
        }
        // Given up by the caller alone: they stay assigned until the member leaves, and are silent.
        let fetched = partitions.iter().copied();
        let fetched: Vec<PartitionId> = fetched.filter(|p| self.assigned.contains(p)).collect();
        let done = self.client.pause(&self.list(&fetched));
        done.map_err(|error| of_consumer("release", error))
    }

    fn start_at(&mut self, partition: PartitionId, offset: Offset) -> KafkaResult<()> {
        self.check_owned("start_at", &[partition])?;
        self.drop_held(|of| of == partition.0);
        let owned = Owned {
            next: Some(offset.0),
            paused: false,
        };
        self.owned.insert(partition, owned);
        // An assignment now would be taken for the answer to that rebalance; the answer brings it along.
        if self.unanswered.is_some() {
            return Ok(());
        }
        let position = [(partition.0, offset.0)];
        let started = if self.assigned.contains(&partition) {
            let placed = self.seek(&position);
            placed.and_then(|()| self.client.resume(&self.list(&[partition])))
        } else {
            self.begin(&position)
        };
        started.map_err(|error| of_consumer("start_at", error))
    }

    fn pause(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        self.check_owned("pause", partitions)?;
        for partition in partitions {
            self.owned.entry(*partition).or_default().paused = true;
            // It comes again: the position moves only with what was handed out.
            self.drop_held(|of| of == partition.0);
        }
        let fetched = partitions.iter().copied();
        let fetched: Vec<PartitionId> = fetched.filter(|p| self.assigned.contains(p)).collect();
        let done = self.client.pause(&self.list(&fetched));
        done.map_err(|error| of_consumer("pause", error))
    }

    fn resume(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        self.check_owned("resume", partitions)?;
        let (mut resumed, mut positions, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for partition in partitions {
            let owned = self.owned.entry(*partition).or_default();
            if std::mem::take(&mut owned.paused)
                && let Some(next) = owned.next
            {
                if self.assigned.contains(partition) {
                    resumed.push(*partition);
                    positions.push((partition.0, next));
                } else {
                    new.push((partition.0, next));
                }
            }
        }
        // While a rebalance waits, its answer brings all that was resumed along.
        if self.unanswered.is_some() {
            return Ok(());
        }
        let done = self.seek(&positions);
        let done = done.and_then(|()| self.client.resume(&self.list(&resumed)));
        let done = done.and_then(|()| self.begin(&new));
        done.map_err(|error| of_consumer("resume", error))
    }

    async fn committed(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> KafkaResult<Vec<Option<CommittedOffset>>> {
        let mut list = List::new();
        for tp in partitions {
            list.add(&tp.topic, tp.partition.0, OFFSET_END, &[]);
        }
        let asked = self.client.committed(&list, timeout);
        asked.map_err(|error| of_query("committed", error))?;
        let found = list.entries().into_iter().map(|entry| {
            (entry.offset >= 0).then(|| CommittedOffset {
                offset: Offset(entry.offset),
                metadata: String::from_utf8_lossy(&entry.metadata).into_owned(),
            })
        });
        Ok(found.collect())
    }

    async fn bounds(
        &mut self,
        partition: PartitionId,
        timeout: Duration,
    ) -> KafkaResult<OffsetBounds> {
        let asked = self.client.bounds(&self.topic, partition.0, timeout);
        let asked = asked.map_err(|error| self.failed_query("bounds", &self.topic, error));
        let (earliest, last_stable) = asked?;
        Ok(OffsetBounds {
            earliest: Offset(earliest),
            last_stable: Offset(last_stable),
        })
    }

    async fn describe_topic(
        &mut self,
        topic: &str,
        timeout: Duration,
    ) -> KafkaResult<TopicDescription> {
        let asked = self.client.describe_topic(topic, timeout);
        let asked = asked.map_err(|error| self.failed_query("describe_topic", topic, error));
        let shape = asked?;
        self.described.insert(topic.to_owned());
        Ok(TopicDescription {
            topic_id: shape.id,
            partitions: u32::try_from(shape.partitions).unwrap_or(u32::MAX),
        })
    }

    fn group_metadata(&self) -> Option<Member> {
        let membership = self.client.membership()?;
        Some(Member(Arc::new(membership)))
    }

    async fn close(self, timeout: Duration) {
        if let Err(error) = self.client.leave(timeout) {
            tracing::warn!(code = %error.name, text = %error.text, "leaving the group failed");
        }
    }
}

fn partition_of(event: &Event) -> Option<i32> {
    match event {
        Event::Record(record) => Some(record.partition),
        Event::End { partition, .. } => Some(*partition),
        Event::Failed { partition, .. } => *partition,
        Event::Rebalance(_) | Event::Other => None,
    }
}
