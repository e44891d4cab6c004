//! Keeps the identities of old windows out of memory, and asks the local state for them when an event
//! does: whole buckets as long as there is room, and else only whether they hold certain identities.

use super::error::{Refusal, WorkerError};
use super::observer::WorkerEvent;
use super::partition::OwnedPartition;
use super::{Observer, Worker};
use crate::core::{InputRecord, OutputRecord, PartitionTask, Progress, SnapshotError};
use crate::io::{BucketKey, Clock, ConsumedRecord, Kafka, PieceKey, StateError, StateStore};
use crate::units::PartitionId;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Where a partition's identities go when memory gets short.
pub(super) struct Local<'a, S> {
    pub(super) state: &'a mut S,
    /// What this partition's may take while its records are processed.
    pub(super) limit_bytes: usize,
}

/// What one of these partitions may take: what the others leave, but never less than an equal share.
pub(super) fn limit_of(
    partition: PartitionId,
    owned: &BTreeMap<PartitionId, OwnedPartition>,
    limit_bytes: usize,
) -> usize {
    let others = owned.values().filter(|owned| owned.partition != partition);
    let taken: usize = others.map(|owned| owned.task.id_bytes()).sum();
    let share = limit_bytes / owned.len().max(1);
    limit_bytes.saturating_sub(taken).max(share)
}

/// Feeds records to a task, with whatever identities it needs on the way.
pub(super) fn feed<S: StateStore>(
    partition: PartitionId,
    task: &mut PartitionTask,
    records: &[ConsumedRecord],
    outputs: &mut Vec<OutputRecord>,
    local: &mut Local<'_, S>,
) -> Result<(), WorkerError> {
    let mut rest = records;
    loop {
        let progress = task.process(rest.iter().map(InputRecord::from), outputs);
        let Progress::Needs(bucket) = progress else {
            return Ok(());
        };
        rest = &rest[rest.partition_point(|record| record.offset < task.position())..];
        let room = local.limit_bytes.saturating_sub(task.id_bytes());
        let provided = if task.load_bytes(bucket) <= room {
            load(partition, task, bucket, local.state)
        } else {
            look_up(partition, task, rest, local.state)
        };
        provided.map_err(|error| error.of(partition))?;
    }
}

fn load<S: StateStore>(
    partition: PartitionId,
    task: &mut PartitionTask,
    bucket: BucketKey,
    state: &mut S,
) -> Result<(), ProvideError> {
    let pieces = task.pieces_of(bucket).into_iter();
    let contents: Vec<Bytes> = pieces
        .map(|key| get(state, partition, key))
        .collect::<Result<_, StateError>>()?;
    Ok(task.load(bucket, &contents)?)
}

fn look_up<S: StateStore>(
    partition: PartitionId,
    task: &mut PartitionTask,
    records: &[ConsumedRecord],
    state: &mut S,
) -> Result<(), ProvideError> {
    task.look_up(records.iter().map(InputRecord::from), |key| {
        Ok(get(state, partition, key)?)
    })
}

/// Why identities could not be provided.
enum ProvideError {
    State(StateError),
    Snapshot(SnapshotError),
}

impl From<StateError> for ProvideError {
    fn from(error: StateError) -> ProvideError {
        ProvideError::State(error)
    }
}

impl From<SnapshotError> for ProvideError {
    fn from(error: SnapshotError) -> ProvideError {
        ProvideError::Snapshot(error)
    }
}

impl ProvideError {
    fn of(self, partition: PartitionId) -> WorkerError {
        match self {
            ProvideError::State(error) => error.into(),
            // The store gave what it was given, so the checkpoint was not sound.
            ProvideError::Snapshot(cause) => WorkerError::Refused {
                partition,
                reason: Refusal::Snapshot {
                    snapshot: "restored last".to_owned(),
                    cause,
                },
            },
        }
    }
}

/// A piece as it was put.
pub(super) fn get<S: StateStore>(
    state: &mut S,
    partition: PartitionId,
    key: PieceKey,
) -> Result<Bytes, StateError> {
    let content = state.get(partition, key)?;
    if key.names(&content) {
        Ok(content)
    } else {
        Err(StateError::damaged(partition, key))
    }
}

impl<K: Kafka, S: StateStore, C: Clock, O: Observer> Worker<K, S, C, O> {
    /// Brings the memory of all partitions' identities below the limit: whoever takes more than an equal
    /// share gives up those of its oldest windows.
    pub(super) fn spill(&mut self) -> Result<(), WorkerError> {
        let limit_bytes = self.config.state.memory_limit_bytes;
        let taken = |owned: &BTreeMap<PartitionId, OwnedPartition>| -> usize {
            owned.values().map(|owned| owned.task.id_bytes()).sum()
        };
        let mut over = taken(&self.owned).saturating_sub(limit_bytes);
        let share = limit_bytes / self.owned.len().max(1);
        for owned in self.owned.values_mut() {
            let before = owned.task.id_bytes();
            if over == 0 || before <= share {
                continue;
            }
            let batch = owned
                .task
                .spill(share.max(before.saturating_sub(over)), None);
            self.state.apply(owned.partition, batch)?;
            let bytes = before - owned.task.id_bytes();
            over = over.saturating_sub(bytes);
            if bytes > 0 {
                self.observer.observe(&WorkerEvent::Spilled {
                    partition: owned.partition,
                    bytes,
                });
            }
        }
        Ok(())
    }
}
