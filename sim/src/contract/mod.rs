//! The contract: what the processor relies on when it talks to Kafka, as named behaviours. Each is
//! written once, over the I/O traits of the processor and over Kafka's own requests, and each names
//! the KIP, the JIRA or the source that it states.
//!
//! Comes in: a [`ClusterUnderTest`], simulated or genuine. Goes out: the [`behaviours`], each of which
//! holds or fails with what was seen.
//! Never here: assertions about time (order and visibility are asserted); knowledge of which of the
//! two clusters is under test.
//!
//! | room | what lives there |
//! | --- | --- |
//! | [`model`] | the simulated cluster as a cluster under test |
//! | [`differential`] | generated histories, which both clusters must answer alike |
//! | `steps` | what behaviours do with the processor's traits |
//! | `wire`, `raw` | what behaviours ask of brokers directly; a producer by hand |
//! | `visibility`, `fencing`, `offsets`, `sequences`, `coordinator`, `groups`, `positions`, `failover` | the behaviours |

mod coordinator;
pub mod differential;
mod failover;
mod fencing;
mod groups;
pub mod model;
mod offsets;
mod positions;
mod raw;
mod sequences;
mod steps;
mod table;
mod visibility;
mod wire;

pub use table::{Behaviour, behaviours};

use crate::kafka::protocol::{BrokerId, RebalanceProtocol, Request, Response, TopicIndex};
use processor::io::KafkaError;
use std::future::Future;
use std::time::Duration;

/// What a behaviour wants of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// partition.assignment.strategy
    pub protocol: RebalanceProtocol,
    /// session.timeout.ms
    pub session_timeout_ms: u32,
    /// max.poll.interval.ms
    pub max_poll_interval_ms: u32,
    /// transaction.timeout.ms
    pub transaction_timeout_ms: u32,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            protocol: RebalanceProtocol::Cooperative,
            session_timeout_ms: 10_000,
            max_poll_interval_ms: 60_000,
            transaction_timeout_ms: 30_000,
        }
    }
}

/// A topic to create; three replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSpec {
    /// Partitions: 1, 2 or 3.
    pub partitions: u32,
    /// min.insync.replicas: 2, or 3 so that the loss of one broker matters.
    pub min_insync_replicas: u32,
}

/// A topic of a behaviour's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its number in requests.
    pub index: TopicIndex,
    /// Its partitions.
    pub partitions: u32,
}

/// What can happen to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Its process dies at once (kill -9).
    Killed,
    /// Its process stands still (SIGSTOP).
    Paused,
}

/// Why a behaviour does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Failure {
        Failure(error.to_string())
    }
}

/// What a behaviour ends with.
pub type Outcome = Result<(), Failure>;

/// A Kafka cluster of three brokers, as behaviours need it. Implementations are faithful carriers:
/// they add no retries and no meaning.
pub trait ClusterUnderTest {
    /// The processor's view of it.
    type Kafka: processor::io::Kafka;

    /// A new process's clients.
    ///
    /// # Errors
    /// When the clients cannot be configured.
    fn kafka(&mut self, options: &ClientOptions) -> Result<Self::Kafka, Failure>;

    /// A name that nobody else uses on this cluster.
    fn name(&mut self, what: &str) -> String;

    /// Creates a topic.
    ///
    /// # Errors
    /// When the cluster does not create it.
    fn create_topic(&mut self, spec: TopicSpec) -> impl Future<Output = Result<Topic, Failure>>;

    /// All brokers, also those in trouble.
    fn brokers(&self) -> Vec<BrokerId>;

    /// Sends one request over a connection of this test's own; `None` when no answer came.
    ///
    /// # Errors
    /// When the request or its answer cannot be put into this cluster's language.
    fn ask(
        &mut self,
        broker: BrokerId,
        request: Request,
    ) -> impl Future<Output = Result<Option<Response>, Failure>>;

    /// Does something bad to a broker.
    ///
    /// # Errors
    /// When this cluster's brokers cannot be reached by the test.
    fn harm(
        &mut self,
        broker: BrokerId,
        trouble: Trouble,
    ) -> impl Future<Output = Result<(), Failure>>;

    /// Ends all trouble, and waits until every broker is in sync again.
    ///
    /// # Errors
    /// When the cluster does not come back.
    fn heal(&mut self) -> impl Future<Output = Result<(), Failure>>;

    /// Lets time pass.
    fn wait(&mut self, duration: Duration) -> impl Future<Output = ()>;
}
