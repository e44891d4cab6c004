//! Broken promises, to see that the checkers notice: each is a wrapped adapter or a broken broker
//! between a faithful processor and a faithful cluster.
//!
//! Comes in: the real thing. Goes out: the same thing with one promise broken now and then, by keyed
//! draws. Never here: anything that a run without sabotage goes through.

mod consumer;
mod producer;
mod slow;
mod stores;

pub use consumer::SabotagedConsumer;
pub use producer::SabotagedProducer;
pub use stores::{SabotagedClock, SabotagedObjects, SabotagedState};

use crate::fabric::Fabric;
use processor::io::{Kafka, KafkaResult};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// What [`Sabotage::HiddenInput`] leaks from one world into the next.
static STARTS: AtomicU64 = AtomicU64::new(0);

/// A broken promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// The consumer loses a record now and then.
    RecordsLost,
    /// The consumer delivers some records with another price.
    RecordsAltered,
    /// The consumer stops to deliver one partition, and says that it is at its end.
    PartitionStalled,
    /// The transaction carries the offsets but not the outputs.
    OffsetsWithoutOutputs,
    /// An output is sent twice.
    OutputsTwice,
    /// Two outputs change places.
    OutputsSwapped,
    /// The watermark that an output tells moves back.
    WatermarkBack,
    /// A commit is reported as aborted although it took effect.
    CommitsDisowned,
    /// The state store has forgotten what it was given.
    StateForgotten,
    /// The object store gives an older snapshot than the one asked for.
    SnapshotsStale,
    /// The clock runs minutes ahead.
    ClockAhead,
    /// Brokers take whatever a fenced producer or member sends.
    FencedAccepted,
    /// A reader is shown records of aborted transactions.
    AbortedShown,
    /// The consumer takes slow fetching for silence: while records of a partition are on their way,
    /// it says that the log ends at the last one that it has delivered.
    BacklogCalledIdle,
    /// A process's name depends on what else this program has run.
    HiddenInput,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Sabotage; 15] = [
        Sabotage::RecordsLost,
        Sabotage::RecordsAltered,
        Sabotage::PartitionStalled,
        Sabotage::OffsetsWithoutOutputs,
        Sabotage::OutputsTwice,
        Sabotage::OutputsSwapped,
        Sabotage::WatermarkBack,
        Sabotage::CommitsDisowned,
        Sabotage::StateForgotten,
        Sabotage::SnapshotsStale,
        Sabotage::ClockAhead,
        Sabotage::FencedAccepted,
        Sabotage::AbortedShown,
        Sabotage::BacklogCalledIdle,
        Sabotage::HiddenInput,
    ];
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// When a promise is broken: about once in so many chances, by keyed draws.
#[derive(Clone)]
pub struct Saboteur {
    fabric: Fabric,
    who: String,
    kind: Sabotage,
    chances: u64,
}

impl Saboteur {
    /// A saboteur inside the process `who`.
    #[must_use]
    pub fn new(fabric: Fabric, who: &str, kind: Sabotage) -> Saboteur {
        Saboteur {
            fabric,
            who: who.to_owned(),
            kind,
            chances: 0,
        }
    }

    /// True when `kind` is this one's, and about once in `one_in` chances.
    fn strikes(&mut self, kind: Sabotage, one_in: u64) -> bool {
        if self.kind != kind {
            return false;
        }
        self.chances += 1;
        self.fabric
            .draw(&self.who, "sabotage", self.chances)
            .is_multiple_of(one_in)
    }

    /// The process's name: with [`Sabotage::HiddenInput`] it tells how many worlds were played before.
    pub(crate) fn incarnation(&self, name: String) -> String {
        if !self.is(Sabotage::HiddenInput) {
            return name;
        }
        let count = STARTS.fetch_add(1, Ordering::Relaxed);
        format!("{name}-{count}")
    }

    /// Virtual milliseconds.
    fn now_ms(&self) -> u64 {
        self.fabric.now().as_ms()
    }

    /// True when `kind` is this one's.
    fn is(&self, kind: Sabotage) -> bool {
        self.kind == kind
    }
}

/// A [`Kafka`] whose clients break a promise.
pub struct SabotagedKafka<K> {
    inner: K,
    saboteur: Saboteur,
}

impl<K> SabotagedKafka<K> {
    /// Wraps `inner`.
    pub fn new(inner: K, saboteur: Saboteur) -> Self {
        SabotagedKafka { inner, saboteur }
    }
}

impl<K: Kafka> Kafka for SabotagedKafka<K> {
    type GroupMetadata = K::GroupMetadata;
    type Consumer = SabotagedConsumer<K::Consumer>;
    type Producer = SabotagedProducer<K::Producer>;

    fn consumer(&mut self, group: &str) -> KafkaResult<Self::Consumer> {
        let inner = self.inner.consumer(group)?;
        Ok(SabotagedConsumer::new(inner, self.saboteur.clone()))
    }

    fn producer(&mut self, transactional_id: &str) -> KafkaResult<Self::Producer> {
        let inner = self.inner.producer(transactional_id)?;
        Ok(SabotagedProducer::new(inner, self.saboteur.clone()))
    }
}
