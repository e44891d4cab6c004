//! The metrics. Names and labels stay: dashboards and alerts rest on them.
//!
//! | name | type | labels | meaning |
//! | --- | --- | --- | --- |
//! | `tickproof_build_info` | info | `version` | the program |
//! | `tickproof_process_start_time_seconds` | gauge | | when this process began, Unix time; a change is a restart |
//! | `tickproof_worker_up` | gauge | `worker` | 1 while the worker runs |
//! | `tickproof_worker_failures_total` | counter | `worker`, `kind` | ends by an error: `restartable` or `refusal` |
//! | `tickproof_last_poll_timestamp_seconds` | gauge | `worker` | newest poll, Unix time |
//! | `tickproof_records_total` | counter | `worker`, `partition`, `outcome` | committed input records: `accepted`, `duplicate` or `dead_letter` |
//! | `tickproof_results_total` | counter | `worker`, `partition` | committed window results, corrections included |
//! | `tickproof_output_bytes_total` | counter | `worker`, `partition` | keys and values of committed results and dead letters |
//! | `tickproof_dead_letters_total` | counter | `worker`, `error_type` | committed dead letters |
//! | `tickproof_lag_records` | gauge | `worker`, `partition` | offsets between the committed one and the last stable one |
//! | `tickproof_committed_offset` | gauge | `worker`, `partition` | next offset to process after the newest commit |
//! | `tickproof_partition_term` | gauge | `worker`, `partition` | how often the partition has had an owner |
//! | `tickproof_watermark_timestamp_seconds` | gauge | `worker`, `partition` | watermark at the newest commit, Unix time |
//! | `tickproof_watermark_delay_seconds` | gauge | `worker`, `partition` | this machine's time minus the watermark |
//! | `tickproof_commits_total` | counter | `worker` | committed transactions |
//! | `tickproof_commit_duration_seconds` | histogram | `worker` | begin to acknowledged |
//! | `tickproof_commit_outputs_total` | counter | `worker` | results and dead letters in committed transactions |
//! | `tickproof_aborts_total` | counter | `worker` | aborted transactions; their outputs are sent again |
//! | `tickproof_commit_resolutions_total` | counter | `worker`, `outcome` | unknown outcomes that were asked for: `committed` or `not_committed` |
//! | `tickproof_producer_replacements_total` | counter | `worker` | new producers, the first one included |
//! | `tickproof_retries_total` | counter | `worker`, `call` | client calls made again |
//! | `tickproof_rebalances_total` | counter | `worker`, `kind` | partitions `assigned`, `revoked` or `lost` |
//! | `tickproof_recoveries_total` | counter | `worker`, `kind` | partitions ready after `replay`, or `fresh` |
//! | `tickproof_recovery_duration_seconds` | histogram | `worker` | assignment of a partition to its first new record |
//! | `tickproof_recovery_replayed_offsets_total` | counter | `worker` | offsets between snapshot and commit |
//! | `tickproof_recoveries_fallen_back_total` | counter | `worker` | restores of an older checkpoint, because the committed one is damaged |
//! | `tickproof_recoveries_postponed_total` | counter | `worker` | restores that had to wait |
//! | `tickproof_state_spilled_bytes_total` | counter | `worker` | memory freed by moving event ids of old windows into the local state |
//! | `tickproof_set_backs_total` | counter | `worker` | partitions recovered again because what is committed was not what the worker knew |
//! | `tickproof_forced_advances_total` | counter | `worker`, `partition` | watermark advances of idle partitions |
//! | `tickproof_checkpoints_total` | counter | `worker` | snapshots in the object store |
//! | `tickproof_checkpoint_duration_seconds` | histogram | `worker` | first write to last upload |
//! | `tickproof_checkpoint_uploaded_files_total` | counter | `worker` | new files of snapshots |
//! | `tickproof_checkpoint_uploaded_bytes_total` | counter | `worker` | their bytes |
//! | `tickproof_checkpoint_failures_total` | counter | `worker` | snapshots that failed; the older ones stay |
//! | `tickproof_checkpoint_offset` | gauge | `worker`, `partition` | position of the newest snapshot |
//! | `tickproof_garbage_objects_total` | counter | `worker` | unreachable objects deleted |
//!
//! A worker's counters say what was *committed*: an aborted transaction counts nothing twice.

use crate::core::Counters;
use crate::units::{Offset, PartitionId, Watermark};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A worker of this process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfWorker {
    pub(super) worker: u32,
}

/// A partition that a worker owns.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct OfPartition {
    pub(super) worker: u32,
    pub(super) partition: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfOutcome {
    pub(super) worker: u32,
    pub(super) partition: i32,
    pub(super) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfErrorType {
    pub(super) worker: u32,
    pub(super) error_type: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfKind {
    pub(super) worker: u32,
    pub(super) kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfResolution {
    pub(super) worker: u32,
    pub(super) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfCall {
    pub(super) worker: u32,
    pub(super) call: &'static str,
}

type Count<L> = Family<L, Counter>;
type Level<L> = Family<L, Gauge>;
type Time<L> = Family<L, Gauge<f64, AtomicU64>>;
type Durations = Family<OfWorker, Histogram, fn() -> Histogram>;

/// What is known of an owned partition; the rest is computed when somebody asks.
#[derive(Debug, Clone, Copy)]
struct Owned {
    committed: Offset,
    watermark: Watermark,
    /// Last stable offset, where it is known.
    end: Option<Offset>,
}

/// All metrics of a process. Shared between its workers and the HTTP server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    owned: Mutex<BTreeMap<OfPartition, Owned>>,
    lag: Level<OfPartition>,
    committed_offset: Level<OfPartition>,
    partition_term: Level<OfPartition>,
    watermark: Time<OfPartition>,
    watermark_delay: Time<OfPartition>,
    pub(super) checkpoint_offset: Level<OfPartition>,
    records: Count<OfOutcome>,
    results: Count<OfPartition>,
    pub(super) output_bytes: Count<OfPartition>,
    pub(super) dead_letters: Count<OfErrorType>,
    pub(super) forced_advances: Count<OfPartition>,
    pub(super) worker_up: Level<OfWorker>,
    pub(super) worker_failures: Count<OfKind>,
    pub(super) last_poll: Time<OfWorker>,
    pub(super) commits: Count<OfWorker>,
    pub(super) commit_duration: Durations,
    pub(super) commit_outputs: Count<OfWorker>,
    pub(super) aborts: Count<OfWorker>,
    pub(super) resolutions: Count<OfResolution>,
    pub(super) producer_replacements: Count<OfWorker>,
    pub(super) retries: Count<OfCall>,
    pub(super) rebalances: Count<OfKind>,
    pub(super) recoveries: Count<OfKind>,
    pub(super) recovery_duration: Durations,
    pub(super) replayed_offsets: Count<OfWorker>,
    pub(super) recoveries_fallen_back: Count<OfWorker>,
    pub(super) recoveries_postponed: Count<OfWorker>,
    pub(super) spilled_bytes: Count<OfWorker>,
    pub(super) set_backs: Count<OfWorker>,
    pub(super) checkpoints: Count<OfWorker>,
    pub(super) checkpoint_duration: Durations,
    pub(super) checkpoint_files: Count<OfWorker>,
    pub(super) checkpoint_bytes: Count<OfWorker>,
    pub(super) checkpoint_failures: Count<OfWorker>,
    pub(super) garbage_objects: Count<OfWorker>,
}

/// 1 ms to 65 s, doubling.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

/// Registers metrics under the program's prefix.
struct Registrar(Registry);

impl Registrar {
    fn add<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.0.register(name, help, metric.clone());
        metric
    }

    fn with_unit<M: Metric + Clone + Default>(&mut self, name: &str, unit: Unit, help: &str) -> M {
        let metric = M::default();
        self.0.register_with_unit(name, help, unit, metric.clone());
        metric
    }

    fn durations(&mut self, name: &str, help: &str) -> Durations {
        let family: Durations = Family::new_with_constructor(durations);
        self.0
            .register_with_unit(name, help, Unit::Seconds, family.clone());
        family
    }
}

impl Metrics {
    /// All metrics, of a process that begins now.
    #[must_use]
    pub fn new() -> Metrics {
        let mut of = Registrar(Registry::with_prefix("tickproof"));
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        of.0.register("build", "The program", version);
        let started: Gauge<f64, AtomicU64> = of.with_unit(
            "process_start_time",
            Unit::Seconds,
            "When this process began",
        );
        started.set(unix_seconds());
        let lag = Unit::Other("records".to_owned());
        Metrics {
            owned: Mutex::default(),
            lag: of.with_unit("lag", lag, "Committed offset to last stable offset"),
            committed_offset: of.add("committed_offset", "Next offset after the newest commit"),
            partition_term: of.add("partition_term", "Owners that the partition has had"),
            watermark: of.with_unit("watermark_timestamp", Unit::Seconds, "Committed watermark"),
            watermark_delay: of.with_unit("watermark_delay", Unit::Seconds, "Now minus watermark"),
            checkpoint_offset: of.add("checkpoint_offset", "Position of the newest snapshot"),
            records: of.add("records", "Committed input records"),
            results: of.add("results", "Committed window results"),
            output_bytes: of.with_unit("output", Unit::Bytes, "Committed outputs"),
            dead_letters: of.add("dead_letters", "Committed dead letters"),
            forced_advances: of.add("forced_advances", "Watermark advances by the clock"),
            worker_up: of.add("worker_up", "1 while the worker runs"),
            worker_failures: of.add("worker_failures", "Workers that ended by an error"),
            last_poll: of.with_unit("last_poll_timestamp", Unit::Seconds, "Newest poll"),
            commits: of.add("commits", "Committed transactions"),
            commit_duration: of.durations("commit_duration", "Begin to acknowledged"),
            commit_outputs: of.add("commit_outputs", "Outputs of committed transactions"),
            aborts: of.add("aborts", "Aborted transactions"),
            resolutions: of.add("commit_resolutions", "Unknown outcomes that were asked for"),
            producer_replacements: of.add("producer_replacements", "New producers"),
            retries: of.add("retries", "Client calls made again"),
            rebalances: of.add("rebalances", "Partitions moved by the group"),
            recoveries: of.add("recoveries", "Partitions that became ready"),
            recovery_duration: of.durations("recovery_duration", "Assignment to readiness"),
            replayed_offsets: of.add("recovery_replayed_offsets", "Offsets replayed"),
            recoveries_fallen_back: of.add(
                "recoveries_fallen_back",
                "Restores of an older checkpoint than the committed one",
            ),
            recoveries_postponed: of.add("recoveries_postponed", "Restores that had to wait"),
            spilled_bytes: of.with_unit(
                "state_spilled",
                Unit::Bytes,
                "Memory freed by moving event ids of old windows into the local state",
            ),
            set_backs: of.add("set_backs", "Partitions recovered again"),
            checkpoints: of.add("checkpoints", "Snapshots in the object store"),
            checkpoint_duration: of.durations("checkpoint_duration", "First write to last upload"),
            checkpoint_files: of.add("checkpoint_uploaded_files", "New files of snapshots"),
            checkpoint_bytes: of.with_unit(
                "checkpoint_uploaded",
                Unit::Bytes,
                "New files of snapshots",
            ),
            checkpoint_failures: of.add("checkpoint_failures", "Snapshots that failed"),
            garbage_objects: of.add("garbage_objects", "Unreachable objects deleted"),
            registry: of.0,
        }
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Panics
    /// Never: a `String` takes every write.
    #[must_use]
    pub fn text(&self) -> String {
        self.compute();
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes every write");
        text
    }

    /// Owned partitions of a process, each once.
    #[must_use]
    pub fn owned_partitions(&self) -> Vec<PartitionId> {
        let owned = self.owned();
        let mut partitions: Vec<PartitionId> =
            owned.keys().map(|of| PartitionId(of.partition)).collect();
        partitions.sort_unstable();
        partitions.dedup();
        partitions
    }

    /// Notes the last stable offset of a partition.
    pub fn set_end(&self, partition: PartitionId, end: Offset) {
        for (of, owned) in self.owned().iter_mut() {
            if of.partition == partition.0 {
                owned.end = Some(end);
            }
        }
    }

    /// What a commit has brought.
    pub(super) fn add_progress(
        &self,
        of: &OfPartition,
        term: u64,
        (committed, watermark): (Offset, Watermark),
        added: Counters,
    ) {
        self.set_committed(of, committed, watermark);
        let term = i64::try_from(term).unwrap_or(i64::MAX);
        self.partition_term.get_or_create(of).set(term);
        let outcomes = [
            ("accepted", added.accepted),
            ("duplicate", added.duplicates),
            ("dead_letter", added.dead_letters),
        ];
        for (outcome, count) in outcomes {
            let of = OfOutcome {
                worker: of.worker,
                partition: of.partition,
                outcome,
            };
            self.records.get_or_create(&of).inc_by(count);
        }
        self.results.get_or_create(of).inc_by(added.results);
    }

    /// A partition is owned and stands here.
    pub(super) fn set_committed(&self, of: &OfPartition, committed: Offset, watermark: Watermark) {
        let mut owned = self.owned();
        let end = owned.get(of).and_then(|owned| owned.end);
        let now = Owned {
            committed,
            watermark,
            end,
        };
        owned.insert(of.clone(), now);
    }

    /// A partition is not owned any more.
    pub(super) fn forget(&self, of: &OfPartition) {
        self.owned().remove(of);
        for gauge in [
            &self.lag,
            &self.committed_offset,
            &self.partition_term,
            &self.checkpoint_offset,
        ] {
            gauge.remove(of);
        }
        self.watermark.remove(of);
        self.watermark_delay.remove(of);
    }

    /// Brings the gauges of owned partitions up to now.
    fn compute(&self) {
        let now = unix_seconds();
        for (of, owned) in self.owned().iter() {
            self.committed_offset
                .get_or_create(of)
                .set(owned.committed.0);
            if let Some(end) = owned.end {
                let lag = (end.0 - owned.committed.0).max(0);
                self.lag.get_or_create(of).set(lag);
            }
            if owned.watermark != Watermark::NONE {
                let watermark = Duration::from_millis(owned.watermark.0.max(0).unsigned_abs());
                let watermark = watermark.as_secs_f64();
                self.watermark.get_or_create(of).set(watermark);
                self.watermark_delay.get_or_create(of).set(now - watermark);
            }
        }
    }

    fn owned(&self) -> MutexGuard<'_, BTreeMap<OfPartition, Owned>> {
        // Every write is whole: a panic elsewhere has left nothing half done.
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

/// Unix time of this machine.
pub(super) fn unix_seconds() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}
