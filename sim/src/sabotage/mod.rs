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
    /// The clock is hours ahead, and intervals seem longer than they are.
    ClockAhead,
    /// Brokers take whatever a fenced producer or member sends.
    FencedAccepted,
    /// A reader is shown records of aborted transactions.
    AbortedShown,
    /// The consumer takes slow fetching for silence: while records of a partition are on their way,
    /// it says that the log ends at the last one that it has delivered. (The processor withstands it.)
    BacklogCalledIdle,
    /// A process's name depends on what else this program has run.
    HiddenInput,
    /// A producer with a request of a transaction unanswered says that it is sound (KAFKA-17754).
    TaintHidden,
    /// A leader acknowledges records before they are replicated (Jepsen on Redpanda 21.10.1).
    AcknowledgedEarly,
    /// A transaction coordinator has a transaction's partitions in memory only until the transaction
    /// ends (Redpanda issue 6018).
    TransactionUnwritten,
    /// A group coordinator tells committed offsets while newer ones are pending (Redpanda issue 9571).
    UnstableOffsetsTold,
    /// A group coordinator acknowledges a marker before it has applied it (KAFKA-17507).
    GroupBehindMarkers,
    /// Leaders ask nobody whether a transaction is open, and the producer aborts without a new epoch
    /// (KAFKA-14402: before KIP-890 and KIP-360).
    TransactionsUnverified,
    /// A producer aborts without a new epoch although its records may be under way (KAFKA-14053).
    EpochKept,
    /// A leader forgets producers that have a transaction open (KAFKA-9144).
    OpenProducerExpired,
    /// Consumers read up to the high watermark, behind the last stable offset (KAFKA-9807).
    UnstableRead,
    /// A transaction may begin while the markers of the one before are being written (KAFKA-18575).
    MarkersOvertaken,
    /// The coordinator aborts a transaction that lasted too long, and does not fence its producer
    /// (KAFKA-20785).
    TimeoutUnfenced,
    /// A commit that is refused for good is taken for one that succeeded (FLINK-23839).
    CommitAssumed,
    /// A producer drops records that it cannot deliver, and commits the rest (FLINK-35749).
    SendErrorsSwallowed,
    /// A producer that learns metadata begins its sequences anew (librdkafka before 1.9.0).
    SequenceRestarted,
    /// The consumer delivers records of aborted transactions (librdkafka issue 3020).
    AbortedDelivered,
}

impl Sabotage {
    /// Those that random storms find.
    pub const ALL: [Sabotage; 14] = [
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
        Sabotage::HiddenInput,
    ];

    /// What it does, in plain words.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Sabotage::RecordsLost => "the consumer loses a record",
            Sabotage::RecordsAltered => "the consumer delivers a record with another price",
            Sabotage::PartitionStalled => "the consumer stops to deliver a partition",
            Sabotage::OffsetsWithoutOutputs => "a transaction is to carry offsets but no outputs",
            Sabotage::OutputsTwice => "an output is sent twice",
            Sabotage::OutputsSwapped => "an output is held back until the next has been sent",
            Sabotage::WatermarkBack => "the watermark that an output tells is an hour too early",
            Sabotage::CommitsDisowned => "a commit that took effect is reported as aborted",
            Sabotage::StateForgotten => "the state store has forgotten what it was given",
            Sabotage::SnapshotsStale => {
                "the object store gives an older snapshot than the one asked for"
            }
            Sabotage::ClockAhead => "the clocks of workers run three hours ahead",
            Sabotage::FencedAccepted => "brokers take whatever a fenced producer or member sends",
            Sabotage::AbortedShown => "readers are shown records of aborted transactions",
            Sabotage::BacklogCalledIdle => {
                "records are on their way, and the consumer says that the log ends before them"
            }
            Sabotage::HiddenInput => "a process's name depends on what else this program has run",
            Sabotage::TaintHidden => {
                "a producer with a request unanswered goes on as if nothing had been"
            }
            Sabotage::AcknowledgedEarly => "leaders acknowledge before they have replicated",
            Sabotage::TransactionUnwritten => {
                "coordinators have a transaction's partitions in memory only"
            }
            Sabotage::UnstableOffsetsTold => {
                "committed offsets are told while newer ones are pending"
            }
            Sabotage::GroupBehindMarkers => {
                "a group coordinator acknowledges markers before it has applied them"
            }
            Sabotage::TransactionsUnverified => "leaders ask nobody whether a transaction is open",
            Sabotage::EpochKept => {
                "a producer aborts without a new epoch while its records are under way"
            }
            Sabotage::OpenProducerExpired => "leaders forget producers with an open transaction",
            Sabotage::UnstableRead => "consumers read behind the last stable offset",
            Sabotage::MarkersOvertaken => {
                "a transaction may begin while markers of the one before are missing"
            }
            Sabotage::TimeoutUnfenced => {
                "a transaction that lasted too long is aborted, and its producer is not fenced"
            }
            Sabotage::CommitAssumed => "a commit that was refused is taken for one that succeeded",
            Sabotage::SendErrorsSwallowed => {
                "a producer drops what it cannot deliver, and commits the rest"
            }
            Sabotage::SequenceRestarted => {
                "a producer that learns metadata begins its sequences anew"
            }
            Sabotage::AbortedDelivered => "the consumer delivers records of aborted transactions",
        }
    }

    /// Where other software had this, as its project calls it.
    #[must_use]
    pub fn published(self) -> Option<&'static str> {
        let place = match self {
            Sabotage::PartitionStalled => "rust-rdkafka issues 665, 638",
            Sabotage::CommitsDisowned => "KAFKA-9274",
            Sabotage::SnapshotsStale => "KAFKA-16017",
            Sabotage::FencedAccepted => "KAFKA-18019",
            Sabotage::TaintHidden => "KAFKA-17754",
            Sabotage::AcknowledgedEarly => "Jepsen, Redpanda 21.10.1",
            Sabotage::TransactionUnwritten => "Redpanda issue 6018",
            Sabotage::UnstableOffsetsTold => "Redpanda issue 9571",
            Sabotage::GroupBehindMarkers => "KAFKA-17507",
            Sabotage::TransactionsUnverified => "KAFKA-14402",
            Sabotage::EpochKept => "KAFKA-14053",
            Sabotage::OpenProducerExpired => "KAFKA-9144",
            Sabotage::UnstableRead => "KAFKA-9807",
            Sabotage::MarkersOvertaken => "KAFKA-18575",
            Sabotage::TimeoutUnfenced => "KAFKA-20785",
            Sabotage::CommitAssumed => "FLINK-23839",
            Sabotage::SendErrorsSwallowed => "FLINK-35749",
            Sabotage::SequenceRestarted => "librdkafka before 1.9.0",
            Sabotage::AbortedDelivered => "librdkafka issue 3020",
            _ => return None,
        };
        Some(place)
    }

    /// Bugs that brokers and client libraries once had: each has a plan of its own that finds it
    /// (`scenarios/regressions/published`).
    pub const PUBLISHED: [Sabotage; 15] = [
        Sabotage::TaintHidden,
        Sabotage::AcknowledgedEarly,
        Sabotage::TransactionUnwritten,
        Sabotage::UnstableOffsetsTold,
        Sabotage::GroupBehindMarkers,
        Sabotage::TransactionsUnverified,
        Sabotage::EpochKept,
        Sabotage::OpenProducerExpired,
        Sabotage::UnstableRead,
        Sabotage::MarkersOvertaken,
        Sabotage::TimeoutUnfenced,
        Sabotage::CommitAssumed,
        Sabotage::SendErrorsSwallowed,
        Sabotage::SequenceRestarted,
        Sabotage::AbortedDelivered,
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
        let strikes = self
            .fabric
            .draw(&self.who, "sabotage", self.chances)
            .is_multiple_of(one_in);
        if strikes {
            self.fabric
                .remark(&self.who, "promise-broken", kind.meaning());
        }
        strikes
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
