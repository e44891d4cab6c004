//! Turns a worker's events into log lines and metrics.

use super::dead_letter_log::{DeadLetterLog, error_type};
use super::metrics::{
    Metrics, OfCall, OfErrorType, OfKind, OfPartition, OfResolution, OfWorker, unix_seconds,
};
use super::{Health, WorkerState};
use crate::core::{Destination, OutputRecord};
use crate::units::{Offset, PartitionId, Watermark};
use crate::worker::{Observer, Rebalance, WorkerError, WorkerEvent};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, error, info, warn};

/// What one worker tells of itself. It lives on the worker's thread.
#[derive(Debug)]
pub struct Telemetry {
    worker: u32,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    kept: RefCell<Kept>,
}

/// What is remembered from event to event.
#[derive(Debug)]
struct Kept {
    /// When the recovery of a partition began.
    recovering: BTreeMap<PartitionId, Instant>,
    terms: BTreeMap<PartitionId, u64>,
    dead_letters: DeadLetterLog,
}

impl Telemetry {
    /// Of the worker with this ordinal.
    #[must_use]
    pub fn new(worker: u32, metrics: Arc<Metrics>, health: Arc<Health>) -> Telemetry {
        let telemetry = Telemetry {
            worker,
            metrics,
            health,
            kept: RefCell::new(Kept {
                recovering: BTreeMap::new(),
                terms: BTreeMap::new(),
                dead_letters: DeadLetterLog::new(),
            }),
        };
        let up = telemetry.of_worker();
        telemetry.metrics.worker_up.get_or_create(&up).set(1);
        telemetry
    }

    /// Tells how a worker has ended.
    pub fn tell_end(
        worker: u32,
        metrics: &Metrics,
        health: &Health,
        ended: &Result<(), WorkerError>,
    ) {
        metrics.worker_up.get_or_create(&OfWorker { worker }).set(0);
        let Err(failure) = ended else {
            health.set(worker, WorkerState::Stopped);
            info!(worker, "the worker has stopped");
            return;
        };
        health.set(worker, WorkerState::Failed);
        let is_refusal = failure.is_refusal();
        let kind = if is_refusal { "refusal" } else { "restartable" };
        let of = OfKind { worker, kind };
        metrics.worker_failures.get_or_create(&of).inc();
        let fix = if is_refusal {
            "decide as the error says; starting again does not help"
        } else {
            "start it again; if it fails again, `processor check --config FILE` tells what is wrong"
        };
        error!(worker, kind, error = %failure, fix, "the worker has failed");
    }

    fn of_worker(&self) -> OfWorker {
        OfWorker {
            worker: self.worker,
        }
    }

    fn of(&self, partition: PartitionId) -> OfPartition {
        OfPartition {
            worker: self.worker,
            partition: partition.0,
        }
    }

    fn of_kind(&self, kind: &'static str) -> OfKind {
        OfKind {
            worker: self.worker,
            kind,
        }
    }

    fn term(&self, partition: PartitionId) -> Option<u64> {
        self.kept.borrow().terms.get(&partition).copied()
    }

    fn rebalanced(&self, kind: Rebalance, partitions: &[PartitionId]) {
        let word = match kind {
            Rebalance::Assigned => "assigned",
            Rebalance::Revoked => "revoked",
            Rebalance::Lost => "lost",
        };
        let numbers: Vec<i32> = partitions.iter().map(|partition| partition.0).collect();
        if kind == Rebalance::Lost {
            warn!(partitions = ?numbers, "partitions were lost: nothing of them is committed any more");
        } else {
            info!(partitions = ?numbers, "partitions were {word}");
        }
        let count = self
            .metrics
            .rebalances
            .get_or_create(&self.of_kind(word))
            .clone();
        count.inc_by(partitions.len() as u64);
        if kind == Rebalance::Assigned {
            self.begin_recovery(partitions);
        }
    }

    fn begin_recovery(&self, partitions: &[PartitionId]) {
        let mut kept = self.kept.borrow_mut();
        for &partition in partitions {
            kept.recovering.insert(partition, Instant::now());
        }
    }

    fn ready(&self, partition: PartitionId, at: Offset, kind: &'static str) {
        let began = self.kept.borrow_mut().recovering.remove(&partition);
        let took = began.map_or(Duration::ZERO, |began| began.elapsed());
        let metrics = &self.metrics;
        metrics.set_committed(&self.of(partition), at, Watermark::NONE);
        metrics.recoveries.get_or_create(&self.of_kind(kind)).inc();
        metrics
            .recovery_duration
            .get_or_create(&self.of_worker())
            .observe(took.as_secs_f64());
        let term = self.term(partition);
        info!(
            partition = partition.0,
            offset = at.0,
            term,
            took_ms = millis(took),
            kind,
            "the partition is ready"
        );
    }

    fn outputs(&self, partition: PartitionId, term: u64, outputs: &[OutputRecord]) {
        let mut bytes = 0;
        for output in outputs {
            bytes += output.value.len() + output.key.as_ref().map_or(0, bytes::Bytes::len);
            if output.destination == Destination::DeadLetters {
                let of = OfErrorType {
                    worker: self.worker,
                    error_type: error_type(output).to_owned(),
                };
                self.metrics.dead_letters.get_or_create(&of).inc();
                let mut kept = self.kept.borrow_mut();
                kept.dead_letters.note(partition, term, output);
            }
        }
        let of = self.of(partition);
        let total = self.metrics.output_bytes.get_or_create(&of);
        total.inc_by(bytes as u64);
    }

    fn committed(&self, partitions: usize, outputs: usize, took: Duration) {
        let of = self.of_worker();
        let metrics = &self.metrics;
        metrics.commits.get_or_create(&of).inc();
        metrics
            .commit_outputs
            .get_or_create(&of)
            .inc_by(outputs as u64);
        metrics
            .commit_duration
            .get_or_create(&of)
            .observe(took.as_secs_f64());
        debug!(partitions, outputs, took_ms = millis(took), "committed");
    }

    fn snapshotted(
        &self,
        partition: PartitionId,
        at: Offset,
        (files, bytes): (usize, usize),
        took: Duration,
    ) {
        let of = self.of_worker();
        let metrics = &self.metrics;
        metrics.checkpoints.get_or_create(&of).inc();
        metrics
            .checkpoint_files
            .get_or_create(&of)
            .inc_by(files as u64);
        metrics
            .checkpoint_bytes
            .get_or_create(&of)
            .inc_by(bytes as u64);
        metrics
            .checkpoint_duration
            .get_or_create(&of)
            .observe(took.as_secs_f64());
        metrics
            .checkpoint_offset
            .get_or_create(&self.of(partition))
            .set(at.0);
        debug!(
            partition = partition.0,
            offset = at.0,
            term = self.term(partition),
            files,
            bytes,
            took_ms = millis(took),
            "snapshot stored"
        );
    }

    fn polled(&self) {
        self.health.polled(self.worker);
        let of = self.of_worker();
        let newest = self.metrics.last_poll.get_or_create(&of);
        newest.set(unix_seconds());
    }
}

impl Observer for Telemetry {
    fn observe(&self, event: &WorkerEvent<'_>) {
        let metrics = &self.metrics;
        let of_worker = self.of_worker();
        match *event {
            WorkerEvent::Polled => self.polled(),
            WorkerEvent::Rebalanced { kind, partitions } => self.rebalanced(kind, partitions),
            WorkerEvent::Recovering {
                partition,
                from,
                to,
                term,
            } => {
                self.kept.borrow_mut().terms.insert(partition, term);
                let replayed = metrics.replayed_offsets.get_or_create(&of_worker);
                replayed.inc_by((to.0 - from.0).max(0).unsigned_abs());
                info!(
                    partition = partition.0,
                    from = from.0,
                    to = to.0,
                    term,
                    "replaying"
                );
            }
            WorkerEvent::Recovered { partition, at } => self.ready(partition, at, "replay"),
            WorkerEvent::Opening { partition, at } => {
                info!(
                    partition = partition.0,
                    at = at.0,
                    "opening a new partition"
                );
            }
            WorkerEvent::Fresh { partition, at } => self.ready(partition, at, "fresh"),
            WorkerEvent::Released { partition, in_time } => {
                metrics.forget(&self.of(partition));
                let term = self.kept.borrow_mut().terms.remove(&partition);
                info!(
                    partition = partition.0,
                    term, in_time, "the partition was given up"
                );
            }
            WorkerEvent::Progress {
                partition,
                term,
                committed,
                watermark,
                added,
                outputs,
            } => {
                self.kept.borrow_mut().terms.insert(partition, term);
                let at = (committed, watermark);
                metrics.add_progress(&self.of(partition), term, at, added);
                self.outputs(partition, term, outputs);
            }
            WorkerEvent::Committed {
                partitions,
                outputs,
                took,
            } => self.committed(partitions, outputs, took),
            WorkerEvent::Aborted(error) => {
                metrics.aborts.get_or_create(&of_worker).inc();
                warn!(%error, "the transaction was aborted; its outputs are sent again");
            }
            WorkerEvent::Resolved { committed } => {
                let outcome = if committed {
                    "committed"
                } else {
                    "not_committed"
                };
                let of = OfResolution {
                    worker: self.worker,
                    outcome,
                };
                metrics.resolutions.get_or_create(&of).inc();
                warn!(
                    outcome,
                    "the outcome of a transaction was unknown and is known now"
                );
            }
            WorkerEvent::ProducerReplaced { reason } => {
                metrics
                    .producer_replacements
                    .get_or_create(&of_worker)
                    .inc();
                info!(reason, "there is a new producer");
            }
            WorkerEvent::Snapshotted {
                partition,
                at,
                uploaded,
                uploaded_bytes,
                took,
            } => self.snapshotted(partition, at, (uploaded, uploaded_bytes), took),
            WorkerEvent::SnapshotFailed {
                partition,
                ref cause,
            } => {
                metrics.checkpoint_failures.get_or_create(&of_worker).inc();
                warn!(
                    partition = partition.0,
                    cause, "the snapshot failed; the older one stays"
                );
            }
            WorkerEvent::Forced {
                partition,
                at,
                watermark,
            } => {
                let of = self.of(partition);
                metrics.forced_advances.get_or_create(&of).inc();
                debug!(
                    partition = partition.0,
                    offset = at.0,
                    term = self.term(partition),
                    watermark_ms = watermark.0,
                    "the partition is idle: its watermark follows the clock"
                );
            }
            WorkerEvent::ResetAccepted { partition, reason } => {
                warn!(
                    partition = partition.0,
                    reason, "the partition begins anew, as recovery.accept_reset_partitions allows"
                );
            }
            WorkerEvent::FellBack {
                partition,
                to,
                cause,
            } => {
                let fallen_back = metrics.recoveries_fallen_back.get_or_create(&of_worker);
                fallen_back.inc();
                warn!(
                    partition = partition.0,
                    to, cause, "an older checkpoint takes the place of the committed one"
                );
            }
            WorkerEvent::Spilled { partition, bytes } => {
                metrics
                    .spilled_bytes
                    .get_or_create(&of_worker)
                    .inc_by(bytes as u64);
                debug!(partition = partition.0, bytes, "event ids left the memory");
            }
            WorkerEvent::Postponed { partition } => {
                metrics.recoveries_postponed.get_or_create(&of_worker).inc();
                warn!(partition = partition.0, "the restore has to wait");
            }
            WorkerEvent::Outdated => {
                warn!("the committed offsets that were answered are outdated: asking again");
            }
            WorkerEvent::SetBack { partition } => {
                metrics.set_backs.get_or_create(&of_worker).inc();
                self.begin_recovery(&[partition]);
                warn!(
                    partition = partition.0,
                    term = self.term(partition),
                    "what is committed is not what this worker knows: recovering again"
                );
            }
            WorkerEvent::Collected { partition, objects } => {
                let deleted = metrics.garbage_objects.get_or_create(&of_worker);
                deleted.inc_by(objects as u64);
                debug!(
                    partition = partition.0,
                    objects, "unreachable objects were deleted"
                );
            }
            WorkerEvent::Retrying(error) => {
                let of = OfCall {
                    worker: self.worker,
                    call: error.call,
                };
                metrics.retries.get_or_create(&of).inc();
                warn!(call = error.call, %error, "trying again");
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
