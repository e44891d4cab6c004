//! Taking a partition over: from its commit record and the snapshot that it names, or anew.

use super::checkpoint::Checkpoints;
use super::commit_record::{CommitRecord, Ownership};
use super::error::{Refusal, WorkerError};
use super::observer::WorkerEvent;
use super::partition::{Acknowledged, OwnedPartition, Phase};
use super::transaction::Ending;
use super::{Observer, Worker};
use crate::checkpoints::Place;
use crate::core::PartitionTask;
use crate::io::{
    Clock, CommittedOffset, Consumer, ErrorClass, Kafka, OffsetBounds, Polled, StateStore,
};
use crate::units::{Offset, PartitionId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

impl<K: Kafka, S: StateStore, C: Clock, O: Observer> Worker<K, S, C, O> {
    /// Restores one partition whose time has come; one a round, so that the others go on between. What
    /// cannot be restored now is tried again later.
    pub(super) async fn recover_waiting(&mut self) -> Result<(), WorkerError> {
        let now = self.clock.monotonic();
        let due = self.waiting.iter().filter(|(_, at)| **at <= now);
        // The one that has waited longest: one that cannot be restored must not keep the others from it.
        let Some((&partition, _)) = due.min_by_key(|(_, at)| **at) else {
            return Ok(());
        };
        if self.is_being_taken(partition) {
            self.postpone(partition);
            return Ok(());
        }
        // The work of partitions that are already there must not wait for a restore.
        self.commit().await?;
        if !self.is_same_topic().await? {
            self.postpone(partition);
            return Ok(());
        }
        let Some(committed) = self.committed_of(partition, now).await? else {
            self.postpone(partition);
            return Ok(());
        };
        if self.is_being_taken(partition) {
            self.postpone(partition);
            return Ok(());
        }
        match self.recover(partition, committed.clone()).await {
            // A restore takes a while: what is read from here on must come from the topic that was restored.
            Ok(Some(owned)) if self.is_same_topic().await? => self.begin(owned),
            Ok(Some(_) | None) => self.postpone(partition),
            Err(error) if error.is_refusal() => {
                self.confirm_refusal(partition, committed, error).await?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What is committed of a partition that is to be restored. One read serves all that are due: for as
    /// long as this member has them, only itself can commit them, and it does not before they are restored.
    /// A pending transaction on one of them holds up the whole answer: then each is read alone.
    async fn committed_of(
        &mut self,
        partition: PartitionId,
        now: Duration,
    ) -> Result<Option<Option<CommittedOffset>>, WorkerError> {
        if let Some(committed) = self.read_ahead.remove(&partition) {
            return Ok(Some(committed));
        }
        let due = self.waiting.iter().filter(|(_, at)| **at <= now);
        let due = due.map(|(&partition, _)| partition);
        let asked: Vec<PartitionId> = due.filter(|&p| !self.is_being_taken(p)).collect();
        if asked.len() > 1 && !self.reads_alone {
            if let Some(answer) = self.read_behind_marks(&asked, 1).await? {
                self.read_ahead = asked.into_iter().zip(answer).collect();
                return Ok(self.read_ahead.remove(&partition));
            }
            self.reads_alone = true;
        }
        let answer = self.read_current(&[partition]).await?;
        Ok(answer.and_then(|answer| answer.into_iter().next()))
    }

    fn begin(&mut self, owned: OwnedPartition) {
        let (partition, at) = (owned.partition, owned.task.position());
        // What was polled while this partition waited came from another position.
        self.deferred.retain(|polled| match polled {
            Polled::Records { partition: of, .. }
            | Polled::EndOfPartition { partition: of, .. } => *of != partition,
            _ => true,
        });
        match self.consumer.start_at(partition, at) {
            Ok(()) => {
                self.waiting.remove(&partition);
                self.given_up.remove(&partition);
                if owned.needs_snapshot {
                    self.hurry_checkpoint();
                }
                self.owned.insert(partition, owned);
            }
            // It was lost meanwhile, which the next poll tells.
            Err(_) => self.postpone(partition),
        }
    }

    fn postpone(&mut self, partition: PartitionId) {
        let at = self.clock.monotonic() + super::RESTORE_RETRY;
        self.waiting.insert(partition, at);
        self.observer.observe(&WorkerEvent::Postponed { partition });
    }

    /// A refusal needs an operator, so it must not rest on what was true a while ago: this process may
    /// have stood still, and somebody else may own the partition by now.
    async fn confirm_refusal(
        &mut self,
        partition: PartitionId,
        committed: Option<CommittedOffset>,
        refusal: WorkerError,
    ) -> Result<(), WorkerError> {
        match self.read_current(&[partition]).await? {
            Some(answer) if answer == [committed] => Err(refusal),
            _ => {
                self.postpone(partition);
                Ok(())
            }
        }
    }

    /// Whether the topic is the one that this process began with. False: it cannot be told now, because two
    /// answers contradict each other (a broker that lags behind tells of the topic as it was).
    ///
    /// # Errors
    /// [`WorkerError::TopicChanged`] if it was created anew, or has grown. No refusal: it may be this process
    /// that was told of the topic as it was; the next one compares what it finds with what is committed.
    async fn is_same_topic(&mut self) -> Result<bool, WorkerError> {
        let topic = self.config.kafka.input_topic.clone();
        let found = self.describe_topic(&topic).await?;
        if found == self.topic {
            return Ok(true);
        }
        self.clock.sleep(super::RESTORE_RETRY).await;
        self.stay_in_group().await?;
        if self.describe_topic(&topic).await? != found {
            return Ok(false);
        }
        Err(WorkerError::TopicChanged(topic))
    }

    /// A look at the topic while its partitions are being read: a client goes on at its position in a topic
    /// that was created anew, without a word, once that topic is long enough. So not more than one interval
    /// of checkpoints is taken for the old topic's. Without an answer, the next look has to do.
    ///
    /// # Errors
    /// As [`Worker::is_same_topic`].
    pub(super) async fn watch_topic(&mut self) -> Result<(), WorkerError> {
        let timeout = self.call_timeout().min(super::PROBE_TIMEOUT);
        let topic = &self.config.kafka.input_topic;
        match self.consumer.describe_topic(topic, timeout).await {
            Ok(found) if found != self.topic => self.is_same_topic().await.map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Recovers one partition up to the point where its replay can begin. `None`: not now.
    async fn recover(
        &mut self,
        partition: PartitionId,
        committed: Option<CommittedOffset>,
    ) -> Result<Option<OwnedPartition>, WorkerError> {
        let accepted = self.accepts_reset(partition);
        let Some(bounds) = self.bounds(partition).await? else {
            return Ok(None);
        };
        let earliest = bounds.earliest;
        let Some(found) = committed else {
            return self.begin_fresh(partition, earliest, 0, accepted).await;
        };
        let start = found.offset.max(earliest);
        // What is given up still tells whether older owners are to be outdone.
        let term = CommitRecord::decode(&found.metadata).map_or(0, |record| record.term);
        let is_given_up = self.given_up.get(&partition) == Some(&found);
        let resumed = match self.check_commit(&found, earliest) {
            Ok(_) if is_given_up => {
                return self.begin_fresh(partition, start, term, true).await;
            }
            Ok(record) => {
                let found = Acknowledged {
                    committed: found,
                    record,
                };
                self.resume_from(partition, earliest, found).await
            }
            Err(reason) => Err(WorkerError::Refused { partition, reason }),
        };
        match resumed {
            Err(error) if error.can_be_accepted() && accepted => {
                self.observer.observe(&WorkerEvent::ResetAccepted {
                    partition,
                    reason: &error.to_string(),
                });
                // An offset of another topic says nothing of this one.
                let start = if error.is_of_another_topic() {
                    earliest
                } else {
                    start
                };
                self.begin_fresh(partition, start, term, true).await
            }
            resumed => resumed,
        }
    }

    /// The commit record, or why it cannot be used.
    fn check_commit(
        &self,
        committed: &CommittedOffset,
        earliest: Offset,
    ) -> Result<CommitRecord, Refusal> {
        let record = self.fits_topic(CommitRecord::decode(&committed.metadata)?)?;
        let needed = record.snapshot_at.min(committed.offset);
        if needed < earliest {
            return Err(Refusal::Retention { earliest, needed });
        }
        Ok(record)
    }

    fn fits_topic(&self, record: CommitRecord) -> Result<CommitRecord, Refusal> {
        let topic_id = self.topic.topic_id.clone().unwrap_or_default();
        if record.topic_id != topic_id {
            return Err(Refusal::OtherTopic {
                committed: record.topic_id,
                found: topic_id,
            });
        }
        if record.partitions != self.topic.partitions {
            return Err(Refusal::PartitionCount {
                committed: record.partitions,
                found: self.topic.partitions,
            });
        }
        Ok(record)
    }

    /// Begins a partition with empty state, after owners up to `term`. `None`: not now.
    async fn begin_fresh(
        &mut self,
        partition: PartitionId,
        start: Offset,
        term: u64,
        accepted: bool,
    ) -> Result<Option<OwnedPartition>, WorkerError> {
        let checkpoints = self.checkpoints(partition);
        if !accepted {
            // The opening comes before the first snapshot: with one, this is not the first start. And nothing
            // is put out before the first snapshot: without one, nobody has seen anything of the partition.
            let store = checkpoints.clone();
            let listing = store.newest_manifest();
            match self.while_in_group(partition, listing).await? {
                Some(Ok(None)) => {}
                Some(Ok(Some(newest))) => {
                    let reason = Refusal::CommitMissing { newest };
                    return Err(WorkerError::Refused { partition, reason });
                }
                Some(Err(_)) | None => return Ok(None),
            }
            if !self.fits_others(partition).await? {
                return Ok(None);
            }
        }
        self.state.drop_partition(partition)?;
        let task = PartitionTask::new(partition, start, self.core.clone());
        let ownership = self.ownership(term + 1);
        let record = CommitRecord::of(&task, &ownership, "", start);
        let opening = Acknowledged::of(start, record);
        self.observer.observe(&WorkerEvent::Opening {
            partition,
            at: start,
        });
        if !self.open(partition, &opening.committed).await? {
            return Ok(None);
        }
        self.observer.observe(&WorkerEvent::Fresh {
            partition,
            at: start,
        });
        let mut owned = self.own(task, checkpoints, ownership, opening);
        owned.needs_snapshot = true;
        Ok(Some(owned))
    }

    /// The opening: a partition's first commit, without outputs, before anything of it is processed. From
    /// then on there is a commit beside each of its checkpoints, and a checkpoint beside each output. False:
    /// not committed, or unknown; what is committed tells when it is tried again.
    async fn open(
        &mut self,
        partition: PartitionId,
        opening: &CommittedOffset,
    ) -> Result<bool, WorkerError> {
        let Some(group) = self.group.clone() else {
            return Ok(false);
        };
        self.ensure_producer().await?;
        let offset = self.offset_of(partition, opening);
        let ending = self.transact(&[], &[offset], &group).await?;
        if ending == Ending::Committed {
            self.fenced_in_a_row = 0;
        }
        Ok(ending == Ending::Committed)
    }

    /// A partition without a commit may be one that was added: then keys have moved to it from those that
    /// have one, and these pin another count. False: it cannot be told now.
    async fn fits_others(&mut self, partition: PartitionId) -> Result<bool, WorkerError> {
        let count = i32::try_from(self.topic.partitions).unwrap_or(i32::MAX);
        let others: Vec<PartitionId> = (0..count)
            .map(PartitionId)
            .filter(|other| *other != partition)
            .collect();
        if self.fits_others || others.is_empty() {
            return Ok(true);
        }
        let mut found = self
            .read_behind_marks(&others, 1)
            .await?
            .unwrap_or_default();
        if found.is_empty() {
            // One that is part of an open transaction holds up the answer for all.
            for other in others {
                let Some(answer) = self.read_current(&[other]).await? else {
                    return Ok(false);
                };
                found.extend(answer);
            }
        }
        for commit in found.into_iter().flatten() {
            if let Ok(record) = CommitRecord::decode(&commit.metadata)
                && let Err(reason) = self.fits_topic(record)
            {
                return Err(WorkerError::Refused { partition, reason });
            }
        }
        self.fits_others = true;
        Ok(true)
    }

    async fn resume_from(
        &mut self,
        partition: PartitionId,
        earliest: Offset,
        found: Acknowledged,
    ) -> Result<Option<OwnedPartition>, WorkerError> {
        let record = &found.record;
        let committed = found.committed.offset;
        let checkpoints = self.checkpoints(partition);
        let term = record.term + 1;
        let refused = |reason| WorkerError::Refused { partition, reason };
        let now = self.core.fingerprint().to_string();
        let (task, restored) = if record.snapshot.is_empty() {
            let start = record.snapshot_at.max(earliest);
            self.state.drop_partition(partition)?;
            let task = PartitionTask::new(partition, start, self.core.clone());
            (task, None)
        } else {
            let restoring = self.restore(&checkpoints, &found, earliest);
            let Some((task, restored)) = restoring.await? else {
                return Ok(None);
            };
            (task, Some(restored))
        };
        let fingerprint = match &restored {
            Some(restored) => restored.fingerprint.clone(),
            None => record.fingerprint.to_string(),
        };
        if fingerprint != now && task.position() < committed {
            return Err(refused(Refusal::Fingerprint {
                snapshot: fingerprint,
                now,
                from: task.position(),
                to: committed,
            }));
        }
        let (from, digest) = (task.position(), record.digest);
        self.observer.observe(&WorkerEvent::Recovering {
            partition,
            from,
            to: committed,
            term,
        });
        let ownership = self.ownership(term);
        let mut owned = self.own(task, checkpoints, ownership, found);
        owned.phase = Phase::Replaying {
            until: committed,
            digest,
        };
        owned.needs_snapshot = restored.is_none() || fingerprint != now;
        if let Some(restored) = restored {
            owned.named.push_back(restored.snapshot.clone());
            owned.snapshot = Some(restored.snapshot);
            owned.inherited = restored.inherited;
            owned.instead_of = restored.instead_of;
        }
        if from == committed {
            owned.end_replay()?;
            self.observer.observe(&WorkerEvent::Recovered {
                partition,
                at: committed,
            });
        }
        Ok(Some(owned))
    }

    fn own(
        &self,
        task: PartitionTask,
        mut checkpoints: Checkpoints,
        ownership: Ownership,
        acknowledged: Acknowledged,
    ) -> OwnedPartition {
        checkpoints.begin_term(ownership.term);
        let newest = task.newest_log_time();
        OwnedPartition {
            partition: checkpoints.place.partition,
            task,
            phase: Phase::Live,
            ownership,
            pending: Vec::new(),
            pending_bytes: 0,
            acknowledged,
            checkpoints,
            snapshot: None,
            uploaded: BTreeMap::new(),
            named: VecDeque::new(),
            inherited: Vec::new(),
            instead_of: None,
            needs_snapshot: false,
            at_end: false,
            last_record_at: self.clock.monotonic(),
            log_clock: (newest, self.clock.monotonic()),
            held_back: false,
        }
    }

    fn ownership(&self, term: u64) -> Ownership {
        Ownership {
            term,
            owner: self.incarnation.clone(),
            partitions: self.topic.partitions,
            topic_id: self.topic.topic_id.clone().unwrap_or_default(),
            fingerprint: self.core.fingerprint(),
        }
    }

    fn checkpoints(&self, partition: PartitionId) -> Checkpoints {
        Checkpoints::new(
            self.objects.clone(),
            Place::of(&self.config, partition),
            self.core.fingerprint().to_string(),
            &self.incarnation,
        )
    }

    /// Bounds of a partition; `None` when its leader cannot be asked now.
    async fn bounds(
        &mut self,
        partition: PartitionId,
    ) -> Result<Option<OffsetBounds>, WorkerError> {
        let timeout = self.call_timeout().min(super::PROBE_TIMEOUT);
        match self.consumer.bounds(partition, timeout).await {
            Ok(bounds) => Ok(Some(bounds)),
            Err(error) if error.class == ErrorClass::Retriable => {
                self.observer.observe(&WorkerEvent::Retrying(&error));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
