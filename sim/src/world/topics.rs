//! The topics of a world: what is created with the cluster, and what is read from it at the end.

use super::record::{CommittedOffset, TopicRecord};
use crate::fabric::Handle;
use crate::kafka::broker::Broker;
use crate::kafka::protocol::{
    Offset, OffsetCommit, PartitionId, Record, TopicIndex, TopicPartition,
};
use crate::kafka::{ClusterConfig, TopicConfig, view};
use crate::plan::{FaultKind, Plan};
use crate::sabotage::Sabotage;
use processor::config::ProcessorConfig;
use xxhash_rust::xxh3::Xxh3;

const COMMITTED_OFFSETS: TopicIndex = TopicIndex(0);
pub(super) const INPUT: TopicIndex = TopicIndex(2);
const OUTPUT: TopicIndex = TopicIndex(3);
const DEAD_LETTERS: TopicIndex = TopicIndex(4);
/// Partitions of each internal topic: one led by each of three brokers.
const INTERNAL_PARTITIONS: u32 = 3;

/// The cluster that a plan wants.
pub(super) fn cluster_config(plan: &Plan, config: &ProcessorConfig) -> ClusterConfig {
    let sabotage = plan.bug.as_ref().map(|bug| bug.promise);
    let grown = plan.faults.iter().filter_map(|fault| match fault.kind {
        FaultKind::PartitionsAdded { count } => Some(count),
        _ => None,
    });
    let input_partitions = plan.topology.input_partitions;
    let input_partitions_max = grown.fold(input_partitions, u32::max);
    let topic = |name: &str, partitions: u32, log_append_time: bool| TopicConfig {
        name: name.into(),
        topic_id: format!("id-{name}").into(),
        partitions,
        shown_partitions: partitions,
        log_append_time,
        min_insync_replicas: None,
    };
    let (kafka, topology) = (&config.kafka, &plan.topology);
    ClusterConfig {
        topics: vec![
            topic("__consumer_offsets", INTERNAL_PARTITIONS, false),
            topic("__transaction_state", INTERNAL_PARTITIONS, false),
            TopicConfig {
                shown_partitions: input_partitions,
                ..topic(&kafka.input_topic, input_partitions_max, true)
            },
            topic(&kafka.output_topic, topology.output_partitions, false),
            topic(
                &kafka.dead_letter_topic,
                topology.dead_letter_partitions,
                false,
            ),
        ],
        brokers: topology.brokers,
        min_insync_replicas: 2.min(topology.brokers as usize),
        replica_lag_time_max_ms: 30_000,
        replica_fetch_wait_max_ms: 5_000,
        broker_session_timeout_ms: 9_000,
        broker_heartbeat_interval_ms: 2_000,
        transaction_cleanup_interval_ms: 10_000,
        transaction_max_timeout_ms: 900_000,
        group_initial_rebalance_delay_ms: 3_000,
        message_max_bytes: 1_048_588,
        transactional_id_expiration_ms: plan.brokers.transactional_id_expiration_ms,
        producer_id_expiration_ms: plan.brokers.producer_id_expiration_ms,
        transaction_verification: plan.brokers.transaction_verification
            && sabotage != Some(Sabotage::TransactionsUnverified),
        broken: sabotage,
        unix_ms_at_zero: plan.start_unix_ms,
    }
}

/// What a user can see at the end.
pub(super) struct Topics {
    pub(super) input: Vec<TopicRecord>,
    pub(super) outputs: Vec<TopicRecord>,
    pub(super) dead_letters: Vec<TopicRecord>,
    pub(super) commits: Vec<CommittedOffset>,
    pub(super) input_ends: Vec<i64>,
    pub(super) stuck: Vec<String>,
}

/// Reads the whole cluster. It is at its end: the brokers are taken out of the fabric.
pub(super) fn collect(handles: &[Handle<Broker>], config: &ProcessorConfig, plan: &Plan) -> Topics {
    let sabotage = plan.bug.as_ref().map(|bug| bug.promise);
    let isolation = if sabotage == Some(Sabotage::AbortedShown) {
        view::Isolation::AbortedToo
    } else {
        view::Isolation::ReadCommitted
    };
    let brokers: Vec<Broker> = handles.iter().map(|handle| handle.take()).collect();
    let brokers: Vec<&Broker> = brokers.iter().collect();
    let topic = |topic: TopicIndex| -> Vec<TopicRecord> {
        partitions_of(&brokers, topic)
            .flat_map(|tp| records(&brokers, tp, isolation))
            .collect()
    };
    let commits = view::committed_offsets_history(&brokers, &config.kafka.group_id)
        .into_iter()
        .filter(|commit| commit.tp.topic == INPUT)
        .map(|commit| CommittedOffset {
            partition: commit.tp.partition.0,
            offset: commit.offset.0,
            metadata: commit.metadata.to_string(),
        })
        .collect();
    Topics {
        input: input_partitions(plan.topology.input_partitions)
            .flat_map(|tp| records(&brokers, tp, isolation))
            .collect(),
        outputs: topic(OUTPUT),
        dead_letters: topic(DEAD_LETTERS),
        commits,
        input_ends: input_partitions(plan.topology.input_partitions)
            .map(|tp| view::ends(&brokers, tp).map_or(0, |ends| ends.last_stable.0))
            .collect(),
        stuck: stuck(&brokers, config),
    }
}

/// What could be read of the input topic at a moment.
pub(super) struct Seen {
    pub(super) records: Vec<TopicRecord>,
    /// By partition.
    pub(super) ends: Vec<i64>,
}

/// What can be read of the input topic now.
pub(super) fn input(handles: &[Handle<Broker>], partitions: u32) -> Seen {
    let mut seen = Seen {
        records: Vec::new(),
        ends: Vec::new(),
    };
    for tp in input_partitions(partitions) {
        let replicas = handles
            .iter()
            .filter_map(|handle| handle.with(|b, _, _| view::replica_records(b, tp)));
        let current = replicas.max_by_key(|replica| replica.rank);
        let end = current.as_ref().map_or(0, |replica| replica.last_stable.0);
        seen.ends.push(end);
        let records = current.map_or_else(Vec::new, |replica| replica.records);
        seen.records.extend(as_records(tp, records));
    }
    seen
}

/// Newest committed offset of a group.
pub(super) fn committed(
    handles: &[Handle<Broker>],
    group: &str,
    tp: TopicPartition,
) -> Option<OffsetCommit> {
    let found = handles.iter().filter_map(|handle| {
        handle.with(|b, _, _| {
            let history = view::committed_offsets_history(&[b], group);
            let newest = history.into_iter().rfind(|commit| commit.tp == tp)?;
            Some(newest)
        })
    });
    found.max_by_key(|commit| commit.offset)
}

/// Log start offset of a partition, as its leader has it.
pub(super) fn log_start(handles: &[Handle<Broker>], tp: TopicPartition) -> Offset {
    let starts = handles
        .iter()
        .filter_map(|handle| handle.with(|b, _, _| Some(b.replica_view(tp)?.log.start())));
    starts.max().unwrap_or(Offset(0))
}

/// By slot: up to where records were ever acknowledged.
pub(super) fn reached(handles: &[Handle<Broker>]) -> Vec<Offset> {
    let of_each = handles
        .iter()
        .map(|handle| handle.with(|b, _, _| b.reached()));
    of_each
        .reduce(|a, b| a.iter().zip(&b).map(|(a, b)| *a.max(b)).collect())
        .unwrap_or_default()
}

/// The partitions of the input topic that the processor knows.
fn input_partitions(count: u32) -> impl Iterator<Item = TopicPartition> {
    (0..count).map(|number| TopicPartition {
        topic: INPUT,
        partition: PartitionId(i32::try_from(number).expect("plans are checked")),
    })
}

fn partitions_of(
    brokers: &[&Broker],
    topic: TopicIndex,
) -> impl Iterator<Item = TopicPartition> + use<> {
    let count = brokers
        .first()
        .map_or(0, |broker| broker.layout().partitions_of(topic));
    (0..count).map(move |number| TopicPartition {
        topic,
        partition: PartitionId(i32::try_from(number).expect("plans are checked")),
    })
}

/// The partitions that the processor writes to and that cannot be read to their end.
fn stuck(brokers: &[&Broker], config: &ProcessorConfig) -> Vec<String> {
    let kafka = &config.kafka;
    let written = [
        (COMMITTED_OFFSETS, "__consumer_offsets"),
        (OUTPUT, kafka.output_topic.as_str()),
        (DEAD_LETTERS, kafka.dead_letter_topic.as_str()),
    ];
    let mut stuck = Vec::new();
    for (topic, name) in written {
        for tp in partitions_of(brokers, topic) {
            let Some(ends) = view::ends(brokers, tp) else {
                continue;
            };
            if ends.last_stable < ends.high_watermark {
                stuck.push(format!(
                    "a transaction is still open: partition {} of {name} can be read up to offset \
                     {}, and holds records up to {}",
                    tp.partition.0, ends.last_stable.0, ends.high_watermark.0
                ));
            }
        }
    }
    stuck
}

fn records(
    brokers: &[&Broker],
    tp: TopicPartition,
    isolation: view::Isolation,
) -> Vec<TopicRecord> {
    as_records(tp, view::topic_view(brokers, tp, isolation))
}

fn as_records(tp: TopicPartition, records: Vec<(Offset, Record)>) -> Vec<TopicRecord> {
    records
        .into_iter()
        .map(|(offset, record)| TopicRecord {
            partition: tp.partition.0,
            offset: offset.0,
            timestamp_ms: record.timestamp.0,
            key: record.key,
            value: record.value,
            headers: record.headers,
        })
        .collect()
}

impl Topics {
    /// Mixes everything visible into the trace's hash.
    pub(super) fn hash(&self, trace: u64) -> u64 {
        let mut hasher = Xxh3::with_seed(trace);
        for topic in [&self.input, &self.outputs, &self.dead_letters] {
            for record in topic {
                hasher.update(&record.partition.to_le_bytes());
                hasher.update(&record.offset.to_le_bytes());
                hasher.update(&record.timestamp_ms.to_le_bytes());
                hasher.update(record.key.as_deref().unwrap_or_default());
                hasher.update(record.value.as_deref().unwrap_or_default());
                for header in &record.headers {
                    hasher.update(header.name.as_bytes());
                    hasher.update(&header.value);
                }
            }
        }
        for commit in &self.commits {
            hasher.update(&commit.partition.to_le_bytes());
            hasher.update(&commit.offset.to_le_bytes());
            hasher.update(commit.metadata.as_bytes());
        }
        hasher.digest()
    }
}
