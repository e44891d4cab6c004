//! The Kafka cluster as a pure state machine: (message, time) → (messages, trace lines).
//!
//! Comes in: [`protocol::Message`]s from clients and from other nodes. Goes out: the same.
//! Never here: madsim, tasks, futures, randomness, knowledge of the processor's records.

pub mod broker;
mod client_requests;
mod cluster_member;
mod contents;
pub mod controller;
mod coordinator;
mod group;
mod group_membership;
mod group_state;
pub mod internal;
pub mod layout;
pub mod log;
mod machine;
mod markers;
mod offsets;
mod producer_state;
pub mod protocol;
mod replica;
mod replication;

#[cfg(test)]
mod tests;
mod transaction_notes;
mod transactions;
pub mod view;

pub use broker::Broker;
pub use controller::Controller;

use crate::fabric::actor::Address;
use crate::sabotage::Sabotage;
use protocol::BrokerId;
use std::sync::Arc;

/// Where the nodes of the cluster are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// The controller.
    pub controller: Address,
    /// The brokers.
    pub brokers: Vec<(BrokerId, Address)>,
}

impl Directory {
    /// Address of a broker.
    #[must_use]
    pub fn broker(&self, id: BrokerId) -> Option<Address> {
        let found = self.brokers.iter().find(|(broker, _)| *broker == id);
        found.map(|(_, address)| *address)
    }
}

/// A topic to create with the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// Name.
    pub name: Arc<str>,
    /// Topic id.
    pub topic_id: Arc<str>,
    /// Number of partitions.
    pub partitions: u32,
    /// How many of them clients see at first.
    pub shown_partitions: u32,
    /// True: the leader stores its own time as the record's timestamp (LogAppendTime).
    pub log_append_time: bool,
    /// The topic's own min.insync.replicas.
    pub min_insync_replicas: Option<usize>,
}

impl ClusterConfig {
    /// True if this is the promise that the brokers break.
    #[must_use]
    pub fn breaks(&self, promise: Sabotage) -> bool {
        self.broken == Some(promise)
    }

    /// min.insync.replicas of a topic.
    #[must_use]
    pub fn min_insync_replicas_of(&self, topic: protocol::TopicIndex) -> usize {
        let own = self.topics.get(usize::from(topic.0));
        own.and_then(|topic| topic.min_insync_replicas)
            .unwrap_or(self.min_insync_replicas)
    }
}

/// Settings of the cluster, in Kafka's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Topics in index order; the first two are `__consumer_offsets` and `__transaction_state`.
    pub topics: Vec<TopicConfig>,
    /// Number of brokers (replication factor is the smaller of this and 3).
    pub brokers: u32,
    /// min.insync.replicas
    pub min_insync_replicas: usize,
    /// replica.lag.time.max.ms
    pub replica_lag_time_max_ms: u64,
    /// replica.fetch.wait.max.ms
    pub replica_fetch_wait_max_ms: u64,
    /// broker.session.timeout.ms
    pub broker_session_timeout_ms: u64,
    /// broker.heartbeat.interval.ms
    pub broker_heartbeat_interval_ms: u64,
    /// transaction.abort.timed.out.transaction.cleanup.interval.ms
    pub transaction_cleanup_interval_ms: u64,
    /// transaction.max.timeout.ms
    pub transaction_max_timeout_ms: u64,
    /// group.initial.rebalance.delay.ms
    pub group_initial_rebalance_delay_ms: u64,
    /// message.max.bytes
    pub message_max_bytes: usize,
    /// transactional.id.expiration.ms
    pub transactional_id_expiration_ms: u64,
    /// producer.id.expiration.ms
    pub producer_id_expiration_ms: u64,
    /// transaction.partition.verification.enable
    pub transaction_verification: bool,
    /// The promise that these brokers break, to see that checkers notice; `None` of a faithful cluster.
    pub broken: Option<Sabotage>,
    /// Unix milliseconds at virtual time 0 (for LogAppendTime).
    pub unix_ms_at_zero: i64,
}
