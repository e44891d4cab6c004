//! The producer of the workload: idempotent, patient, without an end to its queue.

use super::producer::ProducerActor;
use super::settings::ClientSettings;
use crate::fabric::actor::{Address, HostId, Micros};
use crate::fabric::{Fabric, Handle};
use crate::kafka::protocol::{BrokerId, LogTimeMs, Record};
use bytes::Bytes;
use std::sync::Arc;
use std::task::Poll;

/// Sends records until they are stored, however long that takes. An error of the idempotence
/// protocol renews its producer id; what was under way then goes again and may be stored twice.
#[derive(Clone)]
pub struct WorkloadProducer {
    handle: Handle<ProducerActor>,
}

impl WorkloadProducer {
    /// A producer on `host`; `name` keys its random choices.
    #[must_use]
    pub fn new(
        fabric: &Fabric,
        host: HostId,
        directory: Arc<Vec<(BrokerId, Address)>>,
        settings: ClientSettings,
        name: &str,
    ) -> WorkloadProducer {
        let seed = fabric.draw(name, "producer", 0);
        let actor = ProducerActor::new(None, directory, Arc::new(settings), seed);
        WorkloadProducer {
            handle: fabric.spawn_actor(host, actor),
        }
    }

    /// Queues a record; the default partitioner chooses its partition.
    pub fn send(
        &self,
        topic: &str,
        key: Option<Bytes>,
        value: Option<Bytes>,
        timestamp: LogTimeMs,
    ) {
        let record = Record {
            timestamp,
            key,
            value,
            headers: Vec::new(),
        };
        self.handle.with(|actor, now, fx| {
            actor
                .enqueue(now, topic, None, record, fx)
                .expect("a partition that the partitioner chose exists");
        });
    }

    /// Records on their way.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.handle.with(|actor, _, _| actor.outstanding())
    }

    /// How often the producer id had to be renewed.
    #[must_use]
    pub fn renewals(&self) -> u64 {
        self.handle.with(|actor, _, _| actor.renewals())
    }

    /// Waits until everything is stored; false when `deadline` passes first.
    pub async fn flush(&self, deadline: Micros) -> bool {
        let done = self
            .handle
            .wait(deadline, |actor, now, fx| {
                actor.poll_flush(now, fx);
                if actor.outstanding() == 0 {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        self.handle.with(|actor, _, _| actor.end_flush());
        done.is_some()
    }
}
