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
mod error;
mod observer;
mod partition;
mod recovery;
mod rounds;
mod transaction;

pub use checkpoint::{MANIFEST_VERSION, Manifest, ManifestFile};
pub use commit_record::{CommitRecord, CommitRecordError, METADATA_BYTES_MAX, VERSION};
pub use error::{Refusal, WorkerError};
pub use observer::{Observer, WorkerEvent};

use crate::config::ProcessorConfig;
use crate::core::CoreConfig;
use crate::io::{
    Clock, ConsumedRecord, Consumer, ErrorClass, Kafka, KafkaError, Polled, StateStore,
    TopicDescription,
};
use crate::units::PartitionId;
use object_store::ObjectStore;
use partition::OwnedPartition;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Reads of one object are tried so often before the worker gives up.
const OBJECT_READ_ATTEMPTS_MAX: u32 = 20;
/// Pause before a failed call is made again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Producers fenced in a row before the worker takes it for a second process with its ordinal.
const FENCES_IN_A_ROW_MAX: u32 = 8;
/// Outputs of one partition that may wait for a commit before its delivery is paused.
const PENDING_OUTPUTS_MAX: usize = 50_000;

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
    owned: BTreeMap<PartitionId, OwnedPartition>,
    /// The member's identity at the last poll: what was polled is committed under it.
    group: Option<K::GroupMetadata>,
    /// Rebalances that came while something else was waited for.
    deferred: VecDeque<Polled>,
    last_poll_at: Duration,
    last_commit_at: Duration,
    last_checkpoint_at: Duration,
    checkpoints_made: u64,
    fenced_in_a_row: u32,
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
            owned: BTreeMap::new(),
            group: None,
            deferred: VecDeque::new(),
            last_poll_at: now,
            last_commit_at: now,
            last_checkpoint_at: now,
            checkpoints_made: 0,
            fenced_in_a_row: 0,
            config,
        })
    }

    /// Runs until `stop` is given or an error ends it.
    ///
    /// # Errors
    /// See [`WorkerError`]; nothing that was committed is touched by one, and nothing that was not
    /// committed is visible.
    pub async fn run(mut self, stop: StopSignal) -> Result<(), WorkerError> {
        self.topic = self.describe_topic().await?;
        self.replace_producer("start").await?;
        let topic = self.config.kafka.input_topic.clone();
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
        self.last_poll_at = self.clock.monotonic();
        if let Some(group) = self.consumer.group_metadata() {
            self.group = Some(group);
        }
        Ok(polled)
    }

    async fn handle(&mut self, polled: Polled) -> Result<(), WorkerError> {
        match polled {
            Polled::Records { partition, records } => self.process(partition, &records),
            Polled::EndOfPartition {
                partition,
                position,
            } => {
                if let Some(owned) = self.owned.get_mut(&partition)
                    && owned.reach_end(position)?
                {
                    self.tell_recovered(partition);
                }
                Ok(())
            }
            Polled::Assigned(partitions) => self.take_over(partitions).await,
            Polled::Revoked(partitions) => self.give_back(&partitions).await,
            Polled::Lost(partitions) => self.forget(&partitions, false),
            Polled::TimedOut => Ok(()),
        }
    }

    fn process(
        &mut self,
        partition: PartitionId,
        records: &[ConsumedRecord],
    ) -> Result<(), WorkerError> {
        let Some(owned) = self.owned.get_mut(&partition) else {
            return Ok(()); // given up, and the client does not know yet
        };
        owned.at_end = false;
        owned.last_record_at = self.clock.monotonic();
        let recovered = owned.process(records)?;
        if owned.pending.len() > PENDING_OUTPUTS_MAX && !owned.held_back {
            owned.held_back = true;
            self.consumer.pause(&[partition])?;
        }
        if recovered {
            self.tell_recovered(partition);
        }
        Ok(())
    }

    fn tell_recovered(&self, partition: PartitionId) {
        if let Some(owned) = self.owned.get(&partition) {
            let at = owned.acknowledged.as_ref().map(|a| a.offset);
            let at = at.unwrap_or_else(|| owned.task.position());
            self.observer
                .observe(&WorkerEvent::Recovered { partition, at });
        }
    }

    /// Takes partitions over: commit what is there first, then restore.
    async fn take_over(&mut self, partitions: Vec<PartitionId>) -> Result<(), WorkerError> {
        // With eager rebalancing everything was given back before; with cooperative rebalancing the
        // kept partitions' work must not wait for the restore.
        self.commit().await?;
        self.refuse_grown_topic(&partitions).await?;
        if self.consumer.accept(&partitions).is_err() {
            return Ok(()); // lost again; the event is on its way
        }
        let Some(committed) = self.committed(&partitions).await? else {
            return Ok(());
        };
        for (partition, committed) in committed {
            if self.is_being_taken(partition) {
                continue;
            }
            let Some(owned) = self.recover(partition, committed).await? else {
                continue;
            };
            if self
                .consumer
                .start_at(partition, owned.task.position())
                .is_ok()
            {
                self.owned.insert(partition, owned);
            }
        }
        Ok(())
    }

    /// A partition that did not exist at the start means that keys have moved.
    async fn refuse_grown_topic(&mut self, partitions: &[PartitionId]) -> Result<(), WorkerError> {
        let known = self.topic.partitions;
        let is_new = |p: &&PartitionId| u32::try_from(p.0).is_ok_and(|number| number >= known);
        let Some(&partition) = partitions.iter().find(is_new) else {
            return Ok(());
        };
        let found = self.describe_topic().await?.partitions;
        let reason = Refusal::PartitionCount {
            committed: known,
            found,
        };
        Err(WorkerError::Refused { partition, reason })
    }

    /// Gives partitions back in time: commits, then releases.
    async fn give_back(&mut self, partitions: &[PartitionId]) -> Result<(), WorkerError> {
        self.commit().await?;
        self.forget(partitions, true)
    }

    /// Drops everything about partitions that is not committed.
    fn forget(&mut self, partitions: &[PartitionId], in_time: bool) -> Result<(), WorkerError> {
        for &partition in partitions {
            if self.owned.remove(&partition).is_some() {
                self.state.drop_partition(partition)?;
                self.observer
                    .observe(&WorkerEvent::Released { partition, in_time });
            }
        }
        if let Err(error) = self.consumer.release(partitions) {
            self.observer.observe(&WorkerEvent::Retrying(&error));
        }
        Ok(())
    }

    /// Stable committed offsets of `partitions`; `None` when they were all taken away meanwhile.
    #[allow(clippy::type_complexity, reason = "the trait's own type")]
    async fn committed(
        &mut self,
        partitions: &[PartitionId],
    ) -> Result<Option<Vec<(PartitionId, Option<crate::io::CommittedOffset>)>>, WorkerError> {
        loop {
            match self
                .consumer
                .committed(partitions, self.call_timeout())
                .await
            {
                Ok(committed) => return Ok(Some(committed)),
                Err(error) => self.retry_or_fail(error).await?,
            }
            let Some(&first) = partitions.first() else {
                return Ok(Some(Vec::new()));
            };
            self.keep_alive(first).await?;
            if partitions.iter().all(|&p| self.is_being_taken(p)) {
                return Ok(None);
            }
        }
    }

    async fn describe_topic(&mut self) -> Result<TopicDescription, WorkerError> {
        let topic = self.config.kafka.input_topic.clone();
        loop {
            match self
                .consumer
                .describe_topic(&topic, self.call_timeout())
                .await
            {
                Ok(description) => return Ok(description),
                Err(error) => self.retry_or_fail(error).await?,
            }
        }
    }

    /// Polls while something else is waited for, so that the member stays in the group: what is
    /// delivered meanwhile is only rebalances, which are deferred. False when `partition` is being
    /// taken away.
    async fn keep_alive(&mut self, partition: PartitionId) -> Result<bool, WorkerError> {
        let limit = Duration::from_millis(self.config.kafka.max_poll_interval_ms) / 3;
        if self.clock.monotonic().saturating_sub(self.last_poll_at) >= limit {
            let kept: Vec<PartitionId> = self
                .owned
                .values()
                .filter(|owned| !owned.held_back)
                .map(|owned| owned.partition)
                .collect();
            self.consumer.pause(&kept)?;
            let polled = self.consumer.poll(Duration::ZERO).await?;
            self.last_poll_at = self.clock.monotonic();
            self.consumer.resume(&kept)?;
            match polled {
                Polled::TimedOut => {}
                // Delivered before the pause took effect: keep their order.
                other => self.deferred.push_back(other),
            }
        }
        Ok(!self.is_being_taken(partition))
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
        Ok(())
    }

    /// The last act: snapshot, commit, leave.
    async fn drain(mut self) -> Result<(), WorkerError> {
        self.checkpoint_all().await?;
        self.commit().await?;
        let partitions: Vec<PartitionId> = self.owned.keys().copied().collect();
        self.forget(&partitions, true)?;
        self.consumer.close(Duration::from_millis(5_000)).await;
        Ok(())
    }
}
