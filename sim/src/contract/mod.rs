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
//! | `visibility`, `fencing`, `offsets`, `sequences`, `coordinator`, `groups`, `positions`, `topics`, `quotas`, `settings`, `expiry`, `failover` | the behaviours |

mod coordinator;
pub mod differential;
mod expiry;
mod failover;
mod fencing;
mod groups;
pub mod model;
mod offsets;
mod positions;
mod quotas;
mod raw;
mod sequences;
mod settings;
mod steps;
mod table;
mod topics;
mod visibility;
mod wire;

pub use table::{Behaviour, Needs, behaviours};

use crate::kafka::protocol::{
    BrokerId, LogTimeMs, RebalanceProtocol, Request, Response, TopicIndex,
};
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
    /// topic.metadata.refresh.interval.ms
    pub metadata_refresh_ms: u32,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            protocol: RebalanceProtocol::Cooperative,
            session_timeout_ms: 10_000,
            max_poll_interval_ms: 60_000,
            transaction_timeout_ms: 30_000,
            metadata_refresh_ms: 300_000,
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
    /// It may be given more partitions: up to 3.
    pub may_grow: bool,
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

/// A setting of all brokers that can be changed while they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// transaction.partition.verification.enable
    TransactionVerification(bool),
}

/// What brokers keep for a while after it was last used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// transactional.id.expiration.ms
    TransactionalIds,
    /// producer.id.expiration.ms
    Producers,
    /// offsets.retention.minutes, of this group, which is empty.
    Offsets(String),
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

    /// Gives a topic more partitions: so many in all.
    ///
    /// # Errors
    /// When the cluster does not do it, or the topic is not one that may grow.
    fn grow_topic(
        &mut self,
        topic: &Topic,
        partitions: u32,
    ) -> impl Future<Output = Result<(), Failure>>;

    /// Deletes a topic and creates it anew, with the same name and number of partitions.
    ///
    /// # Errors
    /// When the cluster does not do it.
    fn recreate_topic(&mut self, topic: &Topic) -> impl Future<Output = Result<(), Failure>>;

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

    /// As [`ClusterUnderTest::ask`], but on its way a bit of the request's records turns over.
    ///
    /// # Errors
    /// As those of `ask`.
    fn ask_damaged(
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

    /// From now on quotas hold back the clients of this behaviour that are made afterwards, and its own
    /// connections; or no more.
    ///
    /// # Errors
    /// When the cluster does not do it.
    fn throttle(&mut self, on: bool) -> impl Future<Output = Result<(), Failure>>;

    /// True if something was held back: a broker told so, or the network did it.
    fn was_throttled(&self) -> bool;

    /// Changes a setting of all brokers.
    ///
    /// # Errors
    /// When the cluster does not do it.
    fn configure(&mut self, setting: Setting) -> impl Future<Output = Result<(), Failure>>;

    /// Ends all trouble, sets all settings back, and waits until every broker is in sync again.
    ///
    /// # Errors
    /// When the cluster does not come back.
    fn heal(&mut self) -> impl Future<Output = Result<(), Failure>>;

    /// What the brokers' clocks tell.
    fn now(&self) -> LogTimeMs;

    /// Lets pass what it takes until brokers that forget soon have forgotten this, unless somebody uses it.
    ///
    /// # Errors
    /// When this cluster's brokers do not forget soon.
    fn outlast(&mut self, what: &Kept) -> impl Future<Output = Result<(), Failure>>;

    /// Lets time pass.
    fn wait(&mut self, duration: Duration) -> impl Future<Output = ()>;
}
