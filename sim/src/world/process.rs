//! A worker process: the processor's own worker, with this world's I/O.

use crate::client::SimKafka;
use crate::clock::SimClock;
use crate::disk::Disk;
use crate::fabric::Fabric;
use crate::fabric::actor::HostId;
use crate::objects::SimObjectStore;
use crate::sabotage::{
    Sabotage, SabotagedClock, SabotagedKafka, SabotagedObjects, SabotagedState, Saboteur,
};
use processor::config::ProcessorConfig;
use processor::worker::{Observer, Parts, StopSignal, Worker, WorkerError, WorkerEvent};
use std::sync::Arc;

/// Everything that one start of a worker process gets.
pub(super) struct WorkerProcess {
    pub(super) fabric: Fabric,
    pub(super) host: HostId,
    pub(super) config: Arc<ProcessorConfig>,
    pub(super) kafka: SimKafka,
    pub(super) objects: SimObjectStore,
    pub(super) clock: SimClock,
    pub(super) incarnation: String,
    pub(super) stop: StopSignal,
    pub(super) sabotage: Option<Sabotage>,
    /// What the machine's disk holds, from whichever process ran on it before.
    pub(super) disk: Disk,
}

impl WorkerProcess {
    /// The process's `main`.
    pub(super) async fn run(self) -> Result<(), WorkerError> {
        let observer = TraceObserver {
            fabric: self.fabric.clone(),
            host: self.host,
        };
        let Some(kind) = self.sabotage else {
            let parts = Parts {
                kafka: self.kafka,
                state: self.disk,
                objects: Arc::new(self.objects),
                clock: self.clock,
                observer,
                incarnation: self.incarnation,
            };
            return Worker::new(self.config, parts)?.run(self.stop).await;
        };
        let saboteur = Saboteur::new(self.fabric, &self.incarnation, kind);
        let parts = Parts {
            kafka: SabotagedKafka::new(self.kafka, saboteur.clone()),
            state: SabotagedState::new(self.disk, saboteur.clone()),
            objects: Arc::new(SabotagedObjects::new(self.objects, &saboteur)),
            clock: SabotagedClock::new(self.clock, saboteur.clone()),
            observer,
            incarnation: saboteur.incarnation(self.incarnation),
        };
        Worker::new(self.config, parts)?.run(self.stop).await
    }
}

/// Writes a worker's events to the trace.
struct TraceObserver {
    fabric: Fabric,
    host: HostId,
}

impl Observer for TraceObserver {
    fn observe(&self, event: &WorkerEvent<'_>) {
        let Some((kind, text)) = describe(event) else {
            return;
        };
        self.fabric.note(self.host, kind, &text);
    }
}

/// What the trace says of an event; nothing of those that come with every poll.
fn describe(event: &WorkerEvent<'_>) -> Option<(&'static str, String)> {
    let line = match event {
        WorkerEvent::Polled | WorkerEvent::Progress { .. } | WorkerEvent::Rebalanced { .. } => {
            return None;
        }
        WorkerEvent::Recovering {
            partition,
            from,
            to,
            term,
        } => (
            "recovering",
            format!("partition {partition}: replay {from}..{to}, term {term}"),
        ),
        WorkerEvent::Recovered { partition, at } => {
            ("recovered", format!("partition {partition} at {at}"))
        }
        WorkerEvent::Fresh { partition, at } => {
            ("fresh", format!("partition {partition} from {at}"))
        }
        WorkerEvent::Released { partition, in_time } => {
            let how = if *in_time { "in time" } else { "already lost" };
            ("released", format!("partition {partition}, {how}"))
        }
        WorkerEvent::Committed {
            partitions,
            outputs,
            ..
        } => (
            "committed",
            format!("{outputs} outputs of {partitions} partitions"),
        ),
        WorkerEvent::Aborted(error) => ("aborted", error.to_string()),
        WorkerEvent::Resolved { committed } => {
            let kind = if *committed {
                "resolved-committed"
            } else {
                "resolved-not-committed"
            };
            (kind, String::new())
        }
        WorkerEvent::ProducerReplaced { reason } => ("producer-replaced", (*reason).to_owned()),
        WorkerEvent::Snapshotted {
            partition,
            at,
            uploaded,
            ..
        } => (
            "snapshotted",
            format!("partition {partition} at {at}, {uploaded} new files"),
        ),
        WorkerEvent::SnapshotFailed { partition, cause } => {
            ("snapshot-failed", format!("partition {partition}: {cause}"))
        }
        WorkerEvent::Forced {
            partition,
            at,
            watermark,
        } => (
            "forced-watermark",
            format!("partition {partition} at {at} to {watermark}"),
        ),
        WorkerEvent::FellBack {
            partition,
            to,
            cause,
        } => (
            "fell-back",
            format!("partition {partition}: to {to}, because {cause}"),
        ),
        WorkerEvent::Spilled { partition, bytes } => {
            ("spilled", format!("partition {partition}: {bytes} bytes"))
        }
        WorkerEvent::Postponed { partition } => ("postponed", format!("partition {partition}")),
        WorkerEvent::SetBack { partition } => ("set-back", format!("partition {partition}")),
        WorkerEvent::Collected { partition, objects } => (
            "garbage-collected",
            format!("partition {partition}: {objects} objects"),
        ),
        WorkerEvent::Retrying(error) => ("retrying", error.to_string()),
    };
    Some(line)
}
