//! A worker process: the processor's own worker, with this world's I/O.

use crate::client::SimKafka;
use crate::clock::SimClock;
use crate::disk::LocalState;
use crate::fabric::Fabric;
use crate::fabric::actor::HostId;
use crate::marks::Outputs;
use crate::objects::SimObjectStore;
use crate::sabotage::{
    Sabotage, SabotagedClock, SabotagedKafka, SabotagedObjects, SabotagedState, Saboteur,
};
use crate::tap::{ProcessTap, TappedKafka, TappedObjects, TappedObserver, TappedState};
use processor::config::ProcessorConfig;
use processor::core::{Destination, OutputRecord};
use processor::io::{Clock, Kafka, StateError, StateStore};
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
    /// On the machine's disk, beside what processes before this one have left there.
    pub(super) state: Result<LocalState, StateError>,
    pub(super) tap: Option<ProcessTap>,
}

impl WorkerProcess {
    /// The process's `main`.
    pub(super) async fn run(self) -> Result<(), WorkerError> {
        let observer = TraceObserver {
            fabric: self.fabric.clone(),
            host: self.host,
        };
        let state = self.state?;
        let Some(kind) = self.sabotage else {
            let parts = Parts {
                kafka: self.kafka,
                state,
                objects: Arc::new(self.objects),
                clock: self.clock,
                observer,
                incarnation: self.incarnation,
            };
            return work(self.config, parts, self.stop, self.tap).await;
        };
        let saboteur = Saboteur::new(self.fabric, &self.incarnation, kind);
        let parts = Parts {
            kafka: SabotagedKafka::new(self.kafka, saboteur.clone()),
            state: SabotagedState::new(state, saboteur.clone()),
            objects: Arc::new(SabotagedObjects::new(self.objects, &saboteur)),
            clock: SabotagedClock::new(self.clock, saboteur.clone()),
            observer,
            incarnation: saboteur.incarnation(self.incarnation),
        };
        work(self.config, parts, self.stop, self.tap).await
    }
}

async fn work<K: Kafka, S: StateStore, C: Clock, O: Observer>(
    config: Arc<ProcessorConfig>,
    parts: Parts<K, S, C, O>,
    stop: StopSignal,
    tap: Option<ProcessTap>,
) -> Result<(), WorkerError> {
    let Some(tap) = tap else {
        return Worker::new(config, parts)?.run(stop).await;
    };
    let topic = &config.kafka.input_topic;
    let parts = Parts {
        kafka: TappedKafka::new(parts.kafka, tap.clone(), topic),
        state: TappedState::new(parts.state, tap.clone()),
        objects: Arc::new(TappedObjects::new(parts.objects, tap.clone(), topic)),
        clock: parts.clock,
        observer: TappedObserver::new(parts.observer, tap.clone()),
        incarnation: parts.incarnation,
    };
    let result = Worker::new(config, parts)?.run(stop).await;
    if !tap.lives() {
        // What a dead process still computes is nobody's result.
        std::future::pending::<()>().await;
    }
    result
}

/// Writes a worker's events to the trace.
struct TraceObserver {
    fabric: Fabric,
    host: HostId,
}

impl Observer for TraceObserver {
    fn observe(&self, event: &WorkerEvent<'_>) {
        if let WorkerEvent::Progress {
            partition, outputs, ..
        } = event
        {
            let seen = seen(outputs);
            self.fabric
                .mark(|marks| marks.outputs(self.host, partition.0, seen));
        }
        let Some((kind, text)) = describe(event) else {
            return;
        };
        self.fabric.note(self.host, kind, &text);
    }
}

/// What marks want to know of a commit's outputs.
fn seen(outputs: &[OutputRecord]) -> Outputs {
    let mut seen = Outputs::default();
    for output in outputs {
        match output.destination {
            Destination::Results => {
                let mut headers = output.headers.iter();
                let revision = headers.find(|header| header.name == "revision");
                seen.corrects |= revision.is_some_and(|header| header.value.as_ref() != b"0");
            }
            Destination::DeadLetters => {
                let begins = b"{\"error_type\":\"too_late\"";
                seen.too_late |= output.value.starts_with(begins);
            }
        }
    }
    seen
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
        WorkerEvent::Opening { partition, at } => {
            ("opening", format!("partition {partition} at {at}"))
        }
        WorkerEvent::Fresh { partition, at } => {
            ("fresh", format!("partition {partition} from {at}"))
        }
        WorkerEvent::ResetAccepted { partition, reason } => {
            ("reset-accepted", format!("partition {partition}: {reason}"))
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
        WorkerEvent::Outdated => ("offsets-outdated", String::new()),
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
