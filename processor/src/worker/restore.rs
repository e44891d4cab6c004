//! Bringing a snapshot back: the one that the commit record names, or, if it is damaged, an older one
//! from which a replay can prove that nothing is missing.

use super::checkpoint::{Checkpoints, Snapshot};
use super::commit_record::CommitRecord;
use super::error::{Refusal, WorkerError};
use super::observer::WorkerEvent;
use super::partition::Acknowledged;
use super::{Observer, Worker};
use crate::checkpoints::{
    CheckpointInfo, LoadError, Manifest, list, portions, read_heads, read_manifest, read_pieces,
    restore,
};
use crate::core::PartitionTask;
use crate::io::{Clock, Kafka, PieceKey, StateBatch, StateStore};
use crate::units::{Offset, PartitionId};
use std::collections::BTreeSet;

/// A snapshot whose pieces are in the local state.
pub(super) struct Restored {
    pub(super) snapshot: Snapshot,
    /// Of the configuration it was made under.
    pub(super) fingerprint: String,
    /// Ids of older snapshots.
    pub(super) inherited: Vec<String>,
    /// It is not the committed one, because of this.
    pub(super) instead_of: Option<Refusal>,
}

/// How an attempt to restore one snapshot ended.
enum Attempt {
    Restored(Box<(PartitionTask, Restored)>),
    /// It cannot be restored.
    Unusable(Refusal),
    /// The object store cannot be asked now.
    Later,
}

/// What is asked of a snapshot before all of it is brought.
enum Demand<'a> {
    /// It stands at this offset.
    At(Offset),
    /// A replay from it can reproduce this record.
    LeadsTo(&'a CommitRecord),
}

impl Demand<'_> {
    fn check(&self, task: &PartitionTask) -> Result<(), String> {
        match self {
            Demand::At(at) if task.position() != *at => Err(format!(
                "it stands at offset {}, the commit record says {at}",
                task.position()
            )),
            // A forced advance is not in the log, so no replay crosses one.
            Demand::LeadsTo(record) => {
                let forced = task
                    .forced()
                    .map(|forced| (forced.offset, forced.watermark));
                if forced == record.forced {
                    Ok(())
                } else {
                    Err("the watermark was advanced by the clock after it".to_owned())
                }
            }
            Demand::At(_) => Ok(()),
        }
    }
}

impl<K: Kafka, S: StateStore, C: Clock, O: Observer> Worker<K, S, C, O> {
    /// The snapshot that a commit record names, or one that can take its place. `None`: not now.
    pub(super) async fn restore(
        &mut self,
        checkpoints: &Checkpoints,
        found: &Acknowledged,
        earliest: Offset,
    ) -> Result<Option<(PartitionTask, Restored)>, WorkerError> {
        let record = &found.record;
        let demand = Demand::At(record.snapshot_at);
        match self.bring(checkpoints, &record.snapshot, &demand).await? {
            Attempt::Restored(restored) => Ok(Some(*restored)),
            Attempt::Later => Ok(None),
            Attempt::Unusable(refusal) => {
                self.restore_older(checkpoints, found, earliest, refusal)
                    .await
            }
        }
    }

    /// The newest other snapshot from which the log can be replayed up to the commit. Whether that gives
    /// what was committed is seen by the digest.
    async fn restore_older(
        &mut self,
        checkpoints: &Checkpoints,
        found: &Acknowledged,
        earliest: Offset,
        refusal: Refusal,
    ) -> Result<Option<(PartitionTask, Restored)>, WorkerError> {
        let Acknowledged { committed, record } = found;
        let partition = checkpoints.place.partition;
        let listing = list(checkpoints.objects.as_ref(), &checkpoints.place);
        let Some(Ok(listed)) = self.while_in_group(partition, listing).await? else {
            return Ok(None);
        };
        let now = self.core.fingerprint().to_string();
        let is_candidate = |info: &CheckpointInfo| {
            info.id != record.snapshot
                && (earliest..=committed.offset).contains(&info.offset)
                && info.fingerprint == now
        };
        let candidates = listed.into_iter().rev().filter(is_candidate);
        for info in candidates.collect::<Vec<_>>() {
            let demand = Demand::LeadsTo(record);
            match self.bring(checkpoints, &info.id, &demand).await? {
                Attempt::Restored(mut restored) => {
                    self.observer.observe(&WorkerEvent::FellBack {
                        partition,
                        to: &info.id,
                        cause: &refusal.to_string(),
                    });
                    restored.1.instead_of = Some(refusal);
                    return Ok(Some(*restored));
                }
                Attempt::Unusable(_) => {}
                Attempt::Later => return Ok(None),
            }
        }
        let reason = refusal;
        Err(WorkerError::Refused { partition, reason })
    }

    /// Brings one snapshot into the local state.
    async fn bring(
        &mut self,
        checkpoints: &Checkpoints,
        id: &str,
        demand: &Demand<'_>,
    ) -> Result<Attempt, WorkerError> {
        let partition = checkpoints.place.partition;
        self.state.drop_partition(partition)?;
        let objects = checkpoints.objects.as_ref();
        let core = self.core.clone();
        let begin = async {
            let manifest = read_manifest(objects, &checkpoints.place, id).await?;
            let heads = read_heads(objects, &manifest).await?;
            let task = restore(&manifest, heads.clone(), core)?;
            Ok((manifest, heads, task))
        };
        let begun: Option<Result<_, LoadError>> = self.while_in_group(partition, begin).await?;
        let (manifest, heads, task) = match begun {
            Some(Ok(begun)) => begun,
            Some(Err(error)) => return Ok(Attempt::of(id, error)),
            None => return Ok(Attempt::Later),
        };
        if let Err(cause) = demand.check(&task) {
            return Ok(Attempt::of(id, LoadError::Damaged(cause)));
        }
        let snapshot = match Snapshot::of(id, &manifest) {
            Ok(snapshot) => snapshot,
            Err(cause) => return Ok(Attempt::of(id, LoadError::Damaged(cause))),
        };
        let present: BTreeSet<PieceKey> = heads.iter().map(|(key, _)| *key).collect();
        self.keep(partition, heads)?;
        let rest = self.bring_rest(checkpoints, &snapshot, &manifest, &present);
        if let Some(attempt) = rest.await? {
            return Ok(attempt);
        }
        let restored = Restored {
            snapshot,
            fingerprint: manifest.fingerprint,
            inherited: manifest.retained,
            instead_of: None,
        };
        Ok(Attempt::Restored(Box::new((task, restored))))
    }

    /// Brings the pieces that are not `present` yet, a few at a time. `Some`: it did not succeed.
    async fn bring_rest(
        &mut self,
        checkpoints: &Checkpoints,
        snapshot: &Snapshot,
        manifest: &Manifest,
        present: &BTreeSet<PieceKey>,
    ) -> Result<Option<Attempt>, WorkerError> {
        let partition = checkpoints.place.partition;
        let files = manifest.files.iter();
        let sizes = files.filter_map(|file| Some((file.name.parse().ok()?, file.bytes)));
        let missing: Vec<(PieceKey, u64)> =
            sizes.filter(|(key, _)| !present.contains(key)).collect();
        for portion in portions(&missing) {
            let wanted = portion.iter();
            let wanted = wanted.map(|(key, _)| (*key, snapshot.files[key].clone()));
            let reading = read_pieces(checkpoints.objects.as_ref(), wanted.collect());
            match self.while_in_group(partition, reading).await? {
                Some(Ok(pieces)) => self.keep(partition, pieces)?,
                Some(Err(error)) => return Ok(Some(Attempt::of(&snapshot.id, error))),
                None => return Ok(Some(Attempt::Later)),
            }
        }
        Ok(None)
    }

    fn keep(
        &mut self,
        partition: PartitionId,
        puts: Vec<(PieceKey, bytes::Bytes)>,
    ) -> Result<(), WorkerError> {
        let deletes = Vec::new();
        self.state.apply(partition, StateBatch { puts, deletes })?;
        Ok(())
    }
}

impl Attempt {
    fn of(id: &str, error: LoadError) -> Attempt {
        let snapshot = id.to_owned();
        match error {
            LoadError::Store(_) => Attempt::Later,
            LoadError::Damaged(cause) => Attempt::Unusable(Refusal::Manifest { snapshot, cause }),
            LoadError::Snapshot(cause) => Attempt::Unusable(Refusal::Snapshot { snapshot, cause }),
        }
    }
}
