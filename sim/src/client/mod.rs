//! A Kafka client library that behaves as librdkafka 2.12 does: its background threads as actors in
//! the fabric, and thin asynchronous wrappers with the processor's traits.
//!
//! Comes in: calls of an application ([`processor::io`]), answers of brokers. Goes out: requests
//! ([`crate::kafka::protocol`]), events for the application.
//! Never here: knowledge of what brokers do inside, or of what records mean; clocks, threads,
//! randomness other than a seed given at construction.
//!
//! A request's timeout closes its connection, and all requests under way on it fail together; so does
//! a connection that the fabric reports as broken. A client that is dropped sends nothing, as a
//! process that was killed.

mod aborted;
mod assignor;
#[cfg(test)]
mod cluster_tests;
pub mod consumer;
#[cfg(test)]
mod consumer_tests;
mod errors;
mod fetcher;
mod group;
mod kafka;
mod metadata;
pub mod partitioner;
pub mod producer;
mod queries;
mod requests;
#[cfg(test)]
mod script;
mod settings;
pub mod workload;

pub(crate) use aborted::{Filtered, filter};
pub use consumer::SimConsumer;
pub use group::GroupIdentity;
pub use kafka::SimKafka;
pub use producer::SimProducer;
pub use settings::ClientSettings;
pub use workload::WorkloadProducer;
