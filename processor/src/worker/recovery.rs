//! Taking a partition over: from its commit record and the snapshot that it names, or anew.

use super::checkpoint::{Checkpoints, LoadError, Manifest, Snapshot};
use super::commit_record::{CommitRecord, CommitRecordError, Ownership};
use super::error::{Refusal, WorkerError};
use super::observer::WorkerEvent;
use super::partition::{Acknowledged, OwnedPartition, Phase};
use super::{Observer, Worker};
use crate::core::{PartitionTask, SnapshotError};
use crate::io::{Clock, CommittedOffset, Consumer, Kafka, StateFile, StateStore};
use crate::units::{Offset, PartitionId};
use std::collections::VecDeque;

impl<K: Kafka, S: StateStore, C: Clock, O: Observer> Worker<K, S, C, O> {
    /// Recovers one partition up to the point where its replay can begin. `None` when it was taken
    /// away meanwhile.
    pub(super) async fn recover(
        &mut self,
        partition: PartitionId,
        committed: Option<CommittedOffset>,
    ) -> Result<Option<OwnedPartition>, WorkerError> {
        let accepted = self
            .config
            .recovery
            .accept_reset_partitions
            .contains(&partition.0);
        let Some(committed) = committed else {
            return self.begin_fresh(partition, None, accepted).await;
        };
        let checked = self.check_commit(partition, &committed).await?;
        let (Some(earliest), record) = checked else {
            return Ok(None);
        };
        match record {
            Ok(record) => {
                self.resume_from(partition, earliest, committed.offset, record)
                    .await
            }
            Err(_) if accepted => {
                let start = committed.offset.max(earliest);
                self.begin_fresh(partition, Some(start), true).await
            }
            Err(reason) => Err(WorkerError::Refused { partition, reason }),
        }
    }

    /// Log start offset, and the commit record or why it cannot be used.
    #[allow(clippy::type_complexity, reason = "private, one caller")]
    async fn check_commit(
        &mut self,
        partition: PartitionId,
        committed: &CommittedOffset,
    ) -> Result<(Option<Offset>, Result<CommitRecord, Refusal>), WorkerError> {
        let record = CommitRecord::decode(&committed.metadata)
            .map_err(|error: CommitRecordError| Refusal::from(error))
            .and_then(|record| self.fits_topic(record));
        let Some(bounds) = self.bounds(partition).await? else {
            return Ok((None, record));
        };
        let record = record.and_then(|record| {
            let needed = record.snapshot_at.min(committed.offset);
            if needed < bounds.earliest {
                let earliest = bounds.earliest;
                return Err(Refusal::Retention { earliest, needed });
            }
            Ok(record)
        });
        Ok((Some(bounds.earliest), record))
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

    /// Begins a partition with empty state: at `start`, or where its log begins.
    async fn begin_fresh(
        &mut self,
        partition: PartitionId,
        start: Option<Offset>,
        accepted: bool,
    ) -> Result<Option<OwnedPartition>, WorkerError> {
        let checkpoints = self.checkpoints(partition);
        if !accepted {
            // A partition is committed before its first snapshot, so this cannot be its first start.
            let newest = self.newest_manifest(&checkpoints).await?;
            if let Some(newest) = newest {
                let reason = Refusal::CommitMissing { newest };
                return Err(WorkerError::Refused { partition, reason });
            }
        }
        let start = match start {
            Some(start) => start,
            None => match self.bounds(partition).await? {
                Some(bounds) => bounds.earliest,
                None => return Ok(None),
            },
        };
        self.state.drop_partition(partition)?;
        let task = PartitionTask::new(partition, start, self.core.clone());
        self.observer.observe(&WorkerEvent::Fresh {
            partition,
            at: start,
        });
        Ok(Some(self.own(partition, task, checkpoints, 1, start)))
    }

    async fn resume_from(
        &mut self,
        partition: PartitionId,
        earliest: Offset,
        committed: Offset,
        record: CommitRecord,
    ) -> Result<Option<OwnedPartition>, WorkerError> {
        let mut checkpoints = self.checkpoints(partition);
        let term = record.term + 1;
        checkpoints.begin_term(term);
        let refused = |reason| WorkerError::Refused { partition, reason };
        let now = self.core.fingerprint().to_string();
        let (task, snapshot, fingerprint) = if record.snapshot.is_empty() {
            let start = record.snapshot_at.max(earliest);
            let task = PartitionTask::new(partition, start, self.core.clone());
            self.state.drop_partition(partition)?;
            (task, None, record.fingerprint.to_string())
        } else {
            let Some((manifest, files)) = self.load(partition, &checkpoints, &record).await? else {
                return Ok(None);
            };
            let (task, snapshot) = self.restore(partition, &record, &manifest, files)?;
            (task, Some(snapshot), manifest.fingerprint)
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
        let mut owned = self.own(partition, task, checkpoints, term, record.snapshot_at);
        owned.phase = Phase::Replaying {
            until: committed,
            digest,
        };
        owned.needs_snapshot = fingerprint != now;
        owned.named = snapshot.iter().cloned().collect();
        owned.snapshot = snapshot;
        owned.acknowledged = Some(Acknowledged {
            offset: committed,
            record,
        });
        if from == committed {
            owned.end_replay()?;
            self.observer.observe(&WorkerEvent::Recovered {
                partition,
                at: committed,
            });
        }
        Ok(Some(owned))
    }

    fn restore(
        &mut self,
        partition: PartitionId,
        record: &CommitRecord,
        manifest: &Manifest,
        files: Vec<StateFile>,
    ) -> Result<(PartitionTask, Snapshot), WorkerError> {
        let id = record.snapshot.clone();
        let damaged = |cause: String| WorkerError::Refused {
            partition,
            reason: Refusal::Manifest {
                snapshot: id.clone(),
                cause,
            },
        };
        self.state.restore(partition, files)?;
        let header = manifest.header_bytes().map_err(&damaged)?;
        let buckets = self.state.read(partition)?;
        let task = PartitionTask::restore(self.core.clone(), &header, buckets).map_err(
            |cause: SnapshotError| WorkerError::Refused {
                partition,
                reason: Refusal::Snapshot {
                    snapshot: id.clone(),
                    cause,
                },
            },
        )?;
        if task.position() != record.snapshot_at {
            return Err(damaged(format!(
                "it stands at offset {}, the commit record says {}",
                task.position(),
                record.snapshot_at
            )));
        }
        let snapshot = Snapshot {
            id,
            at: task.position(),
            files: manifest
                .files
                .iter()
                .map(|file| (file.name.clone(), file.path.clone()))
                .collect(),
        };
        Ok((task, snapshot))
    }

    fn own(
        &self,
        partition: PartitionId,
        task: PartitionTask,
        mut checkpoints: Checkpoints,
        term: u64,
        first_offset: Offset,
    ) -> OwnedPartition {
        checkpoints.begin_term(term);
        OwnedPartition {
            partition,
            task,
            phase: Phase::Live,
            ownership: Ownership {
                term,
                owner: self.incarnation.clone(),
                partitions: self.topic.partitions,
                topic_id: self.topic.topic_id.clone().unwrap_or_default(),
                fingerprint: self.core.fingerprint(),
            },
            pending: Vec::new(),
            acknowledged: None,
            acknowledged_at_unix_ms: i64::MIN,
            checkpoints,
            snapshot: None,
            first_offset,
            named: VecDeque::new(),
            needs_snapshot: false,
            at_end: false,
            last_record_at: self.clock.monotonic(),
            held_back: false,
        }
    }

    fn checkpoints(&self, partition: PartitionId) -> Checkpoints {
        Checkpoints::new(
            self.objects.clone(),
            &format!(
                "{}/{}",
                self.config.checkpoint.prefix, self.config.kafka.group_id
            ),
            &self.config.kafka.input_topic,
            partition,
            self.core.fingerprint().to_string(),
            &self.incarnation,
        )
    }

    /// The snapshot that a commit record names; reading is tried again while the store fails.
    async fn load(
        &mut self,
        partition: PartitionId,
        checkpoints: &Checkpoints,
        record: &CommitRecord,
    ) -> Result<Option<(Manifest, Vec<StateFile>)>, WorkerError> {
        let mut attempts = 0;
        loop {
            match checkpoints.load(&record.snapshot).await {
                Ok(loaded) => return Ok(Some(loaded)),
                Err(LoadError::Damaged(cause)) => {
                    let snapshot = record.snapshot.clone();
                    let reason = Refusal::Manifest { snapshot, cause };
                    return Err(WorkerError::Refused { partition, reason });
                }
                Err(LoadError::Store(cause)) => {
                    attempts += 1;
                    if attempts >= super::OBJECT_READ_ATTEMPTS_MAX {
                        return Err(WorkerError::CheckpointUnreadable {
                            partition,
                            snapshot: record.snapshot.clone(),
                            cause,
                        });
                    }
                }
            }
            if !self.keep_alive(partition).await? {
                return Ok(None);
            }
        }
    }

    async fn newest_manifest(
        &mut self,
        checkpoints: &Checkpoints,
    ) -> Result<Option<String>, WorkerError> {
        let mut attempts = 0;
        loop {
            match checkpoints.newest_manifest().await {
                Ok(newest) => return Ok(newest),
                Err(cause) => {
                    attempts += 1;
                    if attempts >= super::OBJECT_READ_ATTEMPTS_MAX {
                        return Err(WorkerError::CheckpointUnreadable {
                            partition: checkpoints.partition(),
                            snapshot: "(list)".into(),
                            cause,
                        });
                    }
                }
            }
            self.clock.sleep(super::RETRY_PAUSE).await;
        }
    }

    /// Bounds of a partition; `None` when it was taken away meanwhile.
    async fn bounds(
        &mut self,
        partition: PartitionId,
    ) -> Result<Option<crate::io::OffsetBounds>, WorkerError> {
        loop {
            match self.consumer.bounds(partition, self.call_timeout()).await {
                Ok(bounds) => return Ok(Some(bounds)),
                Err(error) => self.retry_or_fail(error).await?,
            }
            if !self.keep_alive(partition).await? {
                return Ok(None);
            }
        }
    }
}
