//! The worker: drives the tasks of its assigned partitions over the I/O traits, so that outputs,
//! dead letters and input offsets of a commit interval become visible together or not at all.
//!
//! Comes in: records, rebalances, the clock. Goes out: transactions, snapshots, events for the
//! observer.
//! Never here: what a record means (that is [`crate::core`]); what a client or a broker does (that is
//! behind [`crate::io`]).
//!
//! One task owns everything, in this order, for ever: poll, process, snapshot, commit. So nothing is
//! processed while a transaction is open, and an owned partition's state is always exactly "committed
//! plus pending outputs".

mod checkpoint;
mod commit_record;
mod current;
mod error;
mod memory;
mod observer;
mod partition;
mod recovery;
mod restore;
mod rounds;
mod stop;
mod transaction;

pub use commit_record::{CommitRecord, CommitRecordError, METADATA_BYTES_MAX, VERSION};
pub use error::{Refusal, WorkerError};
pub use observer::{Observer, Rebalance, WorkerEvent};

use crate::config::ProcessorConfig;
use crate::core::CoreConfig;
use crate::io::{
    Clock, CommittedOffset, ConsumedRecord, Consumer, ErrorClass, Kafka, KafkaError, Polled,
    StateStore, TopicDescription,
};
use crate::units::{Offset, PartitionId};
use futures_util::future::{Either, select};
use memory::{Local, limit_of};
use object_store::ObjectStore;
use partition::{OwnedPartition, Phase};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest name of a process.
const INCARNATION_LENGTH_MAX: usize = 40;
/// A restore that had to be postponed is tried again after this long.
const RESTORE_RETRY: Duration = Duration::from_secs(1);
/// How long a leader may take to tell where a partition begins and ends.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before a failed call is made again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Producers fenced in a row before the worker takes it for a second process with its ordinal.
const FENCES_IN_A_ROW_MAX: u32 = 8;
/// Bytes of outputs that may wait for a commit before delivery is paused: what one transaction can
/// carry well within its timeout.
const PENDING_BYTES_MAX: usize = 16 << 20;

/// What a worker is built from.
pub struct Parts<K, S, C, O> {
    /// Kafka clients.
    pub kafka: K,
    /// Local state.
    pub state: S,
    /// Where checkpoints go.
    pub objects: Arc<dyn ObjectStore>,
    /// Time.
    pub clock: C,
    /// Who is told.
    pub observer: O,
    /// Names this start of this process, unlike any other start of any other: letters, digits and
    /// dashes, at most 40.
    pub incarnation: String,
}

/// Asks a worker to stop: it drains, snapshots, commits and leaves the group.
#[derive(Debug, Clone, Default)]
pub struct StopSignal(Arc<AtomicBool>);

impl StopSignal {
    /// Asks; the worker notices after its present poll.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True once asked.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One worker of the processor.
pub struct Worker<K: Kafka, S, C, O> {
    config: Arc<ProcessorConfig>,
    core: Arc<CoreConfig>,
    incarnation: String,
    kafka: K,
    consumer: K::Consumer,
    producer: Option<K::Producer>,
    state: S,
    objects: Arc<dyn ObjectStore>,
    clock: C,
    observer: O,
    topic: TopicDescription,
    /// Number of partitions of the output topic.
    output_partitions: u32,
    owned: BTreeMap<PartitionId, OwnedPartition>,
    /// Accepted partitions that are not restored yet, and when to try.
    waiting: BTreeMap<PartitionId, Duration>,
    /// What is committed of partitions that wait: read behind a mark since this member has them.
    read_ahead: BTreeMap<PartitionId, Option<CommittedOffset>>,
    /// One of them could not be read: they are read one by one.
    reads_alone: bool,
    /// The commits of other partitions pin the topic as this process knows it.
    fits_others: bool,
    /// Commits that a replay has contradicted, where the operator has accepted that: their partitions begin
    /// anew, if nobody has committed anything else since.
    given_up: BTreeMap<PartitionId, CommittedOffset>,
    /// The member's identity at the last poll: what was polled is committed under it.
    group: Option<K::GroupMetadata>,
    /// Rebalances that came while something else was waited for.
    deferred: VecDeque<Polled>,
    last_poll_at: Duration,
    last_commit_at: Duration,
    /// When all partitions that had moved were last snapshotted.
    last_checkpoint_at: Duration,
    /// When those that needed a snapshot last were.
    last_urgent_at: Duration,
    /// The last partition of which a snapshot was tried.
    last_tried: Option<PartitionId>,
    checkpoints_made: u64,
    /// Numbers the snapshots of this process, so that no two have one id.
    snapshots_made: u64,
    marks_made: u64,
    fenced_in_a_row: u32,
    aborts_in_a_row: u32,
}

impl<K: Kafka, S: StateStore, C: Clock, O: Observer> Worker<K, S, C, O> {
    /// A worker that has not contacted anybody.
    ///
    /// # Errors
    /// When the clients cannot be created.
    pub fn new(
        config: Arc<ProcessorConfig>,
        mut parts: Parts<K, S, C, O>,
    ) -> Result<Self, WorkerError> {
        let name = &parts.incarnation;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if !(1..=INCARNATION_LENGTH_MAX).contains(&name.len()) || !name.chars().all(is_plain) {
            return Err(WorkerError::Incarnation(name.clone()));
        }
        let consumer = parts.kafka.consumer(&config.kafka.group_id)?;
        let now = parts.clock.monotonic();
        Ok(Worker {
            core: config.core_config(),
            incarnation: parts.incarnation,
            kafka: parts.kafka,
            consumer,
            producer: None,
            state: parts.state,
            objects: parts.objects,
            clock: parts.clock,
            observer: parts.observer,
            topic: TopicDescription {
                topic_id: None,
                partitions: 0,
            },
            output_partitions: 0,
            owned: BTreeMap::new(),
            waiting: BTreeMap::new(),
            read_ahead: BTreeMap::new(),
            reads_alone: false,
            fits_others: false,
            given_up: BTreeMap::new(),
            group: None,
            deferred: VecDeque::new(),
            last_poll_at: now,
            last_commit_at: now,
            last_checkpoint_at: now,
            last_urgent_at: now,
            last_tried: None,
            checkpoints_made: 0,
            snapshots_made: 0,
            marks_made: 0,
            fenced_in_a_row: 0,
            aborts_in_a_row: 0,
            config,
        })
    }

    /// Runs until `stop` is given or an error ends it.
    ///
    /// # Errors
    /// See [`WorkerError`]; nothing that was committed is touched by one, and nothing that was not
    /// committed is visible.
    pub async fn run(mut self, stop: StopSignal) -> Result<(), WorkerError> {
        let topic = self.config.kafka.input_topic.clone();
        let outputs = self.config.kafka.output_topic.clone();
        self.topic = self.describe_topic(&topic).await?;
        self.output_partitions = self.describe_topic(&outputs).await?.partitions;
        self.replace_producer("start").await?;
        self.consumer.subscribe(&topic)?;
        while !stop.is_stopped() {
            let polled = self.next_event().await?;
            self.handle(polled).await?;
            self.housekeeping().await?;
        }
        self.drain().await
    }

    async fn next_event(&mut self) -> Result<Polled, WorkerError> {
        if let Some(polled) = self.deferred.pop_front() {
            return Ok(polled);
        }
        let timeout = self.poll_timeout();
        let polled = self.consumer.poll(timeout).await?;
        self.note_poll();
        Ok(polled)
    }

    /// After each poll whose result is handled next: what it brought is committed under this identity.
    fn note_poll(&mut self) {
        self.last_poll_at = self.clock.monotonic();
        self.observer.observe(&WorkerEvent::Polled);
        if let Some(group) = self.consumer.group_metadata() {
            self.group = Some(group);
        }
    }

    async fn handle(&mut self, polled: Polled) -> Result<(), WorkerError> {
        match polled {
            Polled::Records { partition, records } => self.process(partition, &records),
            Polled::EndOfPartition {
                partition,
                position,
            } => self.reach_end(partition, position),
            Polled::Assigned(partitions) => self.take_over(partitions).await,
            Polled::Revoked(partitions) => self.give_back(&partitions).await,
            Polled::Lost(partitions) => self.lose(&partitions),
            Polled::TimedOut => Ok(()),
        }
    }

    fn process(
        &mut self,
        partition: PartitionId,
        records: &[ConsumedRecord],
    ) -> Result<(), WorkerError> {
        let memory_limit_bytes = self.config.state.memory_limit_bytes;
        let mut local = Local {
            state: &mut self.state,
            limit_bytes: limit_of(partition, &self.owned, memory_limit_bytes),
        };
        let Some(owned) = self.owned.get_mut(&partition) else {
            return Ok(()); // given up, and the client does not know yet
        };
        owned.at_end = false;
        let recovered = owned.process(records, &mut local);
        owned.heard(self.clock.monotonic());
        self.end_replay(partition, recovered)?;
        self.spill()?;
        self.hold_back(partition);
        Ok(())
    }

    fn reach_end(&mut self, partition: PartitionId, position: Offset) -> Result<(), WorkerError> {
        let Some(owned) = self.owned.get_mut(&partition) else {
            return Ok(());
        };
        let recovered = owned.reach_end(position);
        self.end_replay(partition, recovered)
    }

    /// `recovered`: whether a replay has ended, and reproduced what was committed. If it did not, the
    /// partition begins anew, where the operator has accepted that.
    fn end_replay(
        &mut self,
        partition: PartitionId,
        recovered: Result<bool, WorkerError>,
    ) -> Result<(), WorkerError> {
        match recovered {
            Ok(true) => self.tell_recovered(partition),
            Ok(false) => {}
            Err(error) if error.can_be_accepted() && self.accepts_reset(partition) => {
                self.observer.observe(&WorkerEvent::ResetAccepted {
                    partition,
                    reason: &error.to_string(),
                });
                if let Some(owned) = self.owned.get(&partition) {
                    let committed = owned.acknowledged.committed.clone();
                    self.given_up.insert(partition, committed);
                }
                self.set_back(partition)?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn accepts_reset(&self, partition: PartitionId) -> bool {
        let accepted = &self.config.recovery.accept_reset_partitions;
        accepted.contains(&partition.0)
    }

    /// Pauses a partition while too much waits for a commit.
    fn hold_back(&mut self, partition: PartitionId) {
        let Some(owned) = self.owned.get(&partition) else {
            return;
        };
        let pending_bytes = self.pending_bytes(owned.needs_snapshot);
        let Some(owned) = self.owned.get_mut(&partition) else {
            return;
        };
        // A replay puts nothing out, and must come to its end to be committed at all.
        let is_live = owned.phase == Phase::Live;
        if pending_bytes > PENDING_BYTES_MAX && is_live && !owned.held_back {
            // An error means that it is not owned any more, which the next poll tells.
            owned.held_back = self.consumer.pause(&[partition]).is_ok();
        }
    }

    /// Ends pauses once there is room again, however it came: by a commit, or because a partition was
    /// given up. (A partition in replay has nothing to commit itself.)
    fn end_holding_back(&mut self) {
        for needs_snapshot in [false, true] {
            if self.pending_bytes(needs_snapshot) > PENDING_BYTES_MAX {
                continue;
            }
            let alike = self.owned.values_mut();
            let alike = alike.filter(|owned| owned.needs_snapshot == needs_snapshot);
            let resumed: Vec<PartitionId> = alike
                .filter(|owned| owned.held_back)
                .map(|owned| {
                    owned.held_back = false;
                    owned.partition
                })
                .collect();
            if !resumed.is_empty() {
                self.let_flow(&resumed);
            }
        }
    }

    /// What waits for a commit. Partitions that wait for a snapshot first are counted apart, so that an
    /// object store that is down holds back only them.
    fn pending_bytes(&self, needs_snapshot: bool) -> usize {
        let alike = self.owned.values();
        let alike = alike.filter(|owned| owned.needs_snapshot == needs_snapshot);
        alike.map(|owned| owned.pending_bytes).sum()
    }

    fn tell_recovered(&self, partition: PartitionId) {
        if let Some(owned) = self.owned.get(&partition) {
            let at = owned.acknowledged.committed.offset;
            self.observer
                .observe(&WorkerEvent::Recovered { partition, at });
        }
    }

    /// Takes partitions over: they wait, without a position, for [`Worker::recover_waiting`].
    async fn take_over(&mut self, partitions: Vec<PartitionId>) -> Result<(), WorkerError> {
        if let Err(error) = self.consumer.accept(&partitions) {
            if error.class == ErrorClass::Fatal {
                return Err(error.into());
            }
            self.observer.observe(&WorkerEvent::Retrying(&error));
            return Ok(()); // lost again; the event is on its way
        }
        self.tell_rebalanced(Rebalance::Assigned, &partitions);
        let now = self.clock.monotonic();
        self.reads_alone = false;
        for partition in partitions {
            self.read_ahead.remove(&partition);
            self.waiting.insert(partition, now);
        }
        Ok(())
    }

    /// Gives partitions back in time: commits, then releases.
    async fn give_back(&mut self, partitions: &[PartitionId]) -> Result<(), WorkerError> {
        self.tell_rebalanced(Rebalance::Revoked, partitions);
        self.commit().await?;
        self.forget(partitions, true)
    }

    /// Gives up partitions that are lost already: nothing of them is committed any more.
    fn lose(&mut self, partitions: &[PartitionId]) -> Result<(), WorkerError> {
        self.tell_rebalanced(Rebalance::Lost, partitions);
        self.forget(partitions, false)
    }

    fn tell_rebalanced(&self, kind: Rebalance, partitions: &[PartitionId]) {
        self.observer
            .observe(&WorkerEvent::Rebalanced { kind, partitions });
    }

    /// Drops everything about partitions that is not committed.
    fn forget(&mut self, partitions: &[PartitionId], in_time: bool) -> Result<(), WorkerError> {
        for &partition in partitions {
            self.waiting.remove(&partition);
            self.read_ahead.remove(&partition);
            self.given_up.remove(&partition);
            // Of one that was being restored, a part may be there.
            self.state.drop_partition(partition)?;
            if self.owned.remove(&partition).is_some() {
                self.observer
                    .observe(&WorkerEvent::Released { partition, in_time });
            }
        }
        if let Err(error) = self.consumer.release(partitions) {
            self.observer.observe(&WorkerEvent::Retrying(&error));
        }
        Ok(())
    }

    async fn describe_topic(&mut self, topic: &str) -> Result<TopicDescription, WorkerError> {
        loop {
            let timeout = self.call_timeout();
            match self.consumer.describe_topic(topic, timeout).await {
                Ok(description) => return Ok(description),
                Err(error) => self.retry_or_fail(error).await?,
            }
        }
    }

    /// Polls if it is time, so that the member stays in the group while something else is waited for.
    /// What comes is handled later, in order.
    async fn stay_in_group(&mut self) -> Result<(), WorkerError> {
        if self.clock.monotonic().saturating_sub(self.last_poll_at) < self.poll_limit() {
            return Ok(());
        }
        let kept: Vec<PartitionId> = self
            .owned
            .values()
            .filter(|owned| !owned.held_back)
            .map(|owned| owned.partition)
            .collect();
        // Without a pause, records would come and be deferred: right, but without a limit.
        if let Err(error) = self.consumer.pause(&kept) {
            self.observer.observe(&WorkerEvent::Retrying(&error));
        }
        let polled = self.consumer.poll(Duration::ZERO).await?;
        self.last_poll_at = self.clock.monotonic();
        self.observer.observe(&WorkerEvent::Polled);
        if polled != Polled::TimedOut {
            self.deferred.push_back(polled);
        }
        self.let_flow(&kept);
        Ok(())
    }

    /// Waits for something that is neither Kafka's nor the clock's, however long it takes, without
    /// leaving the group. `None`: given up, because `partition`, for which it is done, is being taken.
    async fn while_in_group<F: Future>(
        &mut self,
        partition: PartitionId,
        work: F,
    ) -> Result<Option<F::Output>, WorkerError> {
        let mut work = pin!(work);
        loop {
            self.stay_in_group().await?;
            if self.is_being_taken(partition) {
                return Ok(None);
            }
            {
                // Counted from the last poll, not from the work's beginning: many short pieces of work add
                // up to a long one.
                let since = self.clock.monotonic().saturating_sub(self.last_poll_at);
                let left = self.poll_limit().saturating_sub(since);
                let pause = pin!(self.clock.sleep(left));
                // `select` looks at the work first.
                if let Either::Left((output, _)) = select(work.as_mut(), pause).await {
                    return Ok(Some(output));
                }
            }
        }
    }

    /// The member leaves the group when it does not poll for three times as long.
    fn poll_limit(&self) -> Duration {
        Duration::from_millis(self.config.kafka.max_poll_interval_ms) / 3
    }

    fn is_being_taken(&self, partition: PartitionId) -> bool {
        self.deferred.iter().any(|polled| match polled {
            Polled::Revoked(partitions) | Polled::Lost(partitions) => {
                partitions.contains(&partition)
            }
            _ => false,
        })
    }

    fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.config.kafka.request_timeout_ms)
    }

    /// Pauses before a retriable call is made again; other errors end the worker.
    async fn retry_or_fail(&mut self, error: KafkaError) -> Result<(), WorkerError> {
        if error.class != ErrorClass::Retriable {
            return Err(error.into());
        }
        self.observer.observe(&WorkerEvent::Retrying(&error));
        self.clock.sleep(RETRY_PAUSE).await;
        self.stay_in_group().await
    }
}
