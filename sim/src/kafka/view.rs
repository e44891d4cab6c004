//! What a user of the topics can see: read_committed records and committed offsets. For recording a
//! run; nothing here changes anything.

use super::broker::{Broker, ReplicaView};
use super::offsets::OffsetsState;
use super::protocol::{
    LeaderEpoch, Offset, OffsetCommit, Payload, ProducerId, Record, TopicPartition,
};
use std::collections::BTreeMap;

/// The replica that consumers read, or would read once it leads again.
fn current<'a>(brokers: &[&'a Broker], tp: TopicPartition) -> Option<ReplicaView<'a>> {
    let replicas = brokers.iter().filter_map(|broker| broker.replica_view(tp));
    replicas.max_by_key(rank)
}

/// Of the replicas of a partition, the one with the highest rank is the one that consumers read.
pub type Rank = (LeaderEpoch, LeaderEpoch, Offset);

fn rank(view: &ReplicaView<'_>) -> Rank {
    let epoch = view.leads_in_epoch.unwrap_or(-1);
    (epoch, view.log.latest_epoch(), view.high_watermark)
}

/// What a reader of one replica gets.
pub struct ReplicaRecords {
    /// See [`Rank`].
    pub rank: Rank,
    /// Visible records.
    pub records: Vec<(Offset, Record)>,
    /// Where they end.
    pub last_stable: Offset,
}

/// What a reader of one broker's replica gets, if it has one.
#[must_use]
pub fn replica_records(broker: &Broker, tp: TopicPartition) -> Option<ReplicaRecords> {
    let view = broker.replica_view(tp)?;
    Some(ReplicaRecords {
        rank: rank(&view),
        records: records(&view, Isolation::ReadCommitted),
        last_stable: view.last_stable,
    })
}

/// Which records a reader is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// What a faithful cluster shows to a read_committed consumer.
    ReadCommitted,
    /// A broken one: aborted records too.
    AbortedToo,
}

/// What a read_committed consumer of the whole partition gets: records below the last stable offset
/// that are not part of an aborted transaction.
#[must_use]
pub fn committed_view(brokers: &[&Broker], tp: TopicPartition) -> Vec<(Offset, Record)> {
    topic_view(brokers, tp, Isolation::ReadCommitted)
}

/// As [`committed_view`], from a cluster that keeps or breaks its promise.
#[must_use]
pub fn topic_view(
    brokers: &[&Broker],
    tp: TopicPartition,
    isolation: Isolation,
) -> Vec<(Offset, Record)> {
    current(brokers, tp).map_or_else(Vec::new, |view| records(&view, isolation))
}

/// All records, also those that were deleted since: what somebody has seen who has read along.
fn records(view: &ReplicaView<'_>, isolation: Isolation) -> Vec<(Offset, Record)> {
    let mut aborted: BTreeMap<ProducerId, Vec<(Offset, Offset)>> = BTreeMap::new();
    for (producer_id, first, last) in view.replica.producers.all_aborted() {
        aborted.entry(producer_id).or_default().push((first, last));
    }
    let mut records = Vec::new();
    for batch in view.log.range(Offset(0), view.last_stable) {
        let Payload::Records(content) = &batch.payload else {
            continue;
        };
        let producer = batch.producer.filter(|stamp| stamp.transactional);
        let ranges = producer.and_then(|stamp| aborted.get(&stamp.id));
        let is_aborted = ranges.is_some_and(|ranges| {
            let after = ranges.partition_point(|(_, last)| *last < batch.base_offset);
            ranges
                .get(after)
                .is_some_and(|(first, _)| *first <= batch.base_offset)
        });
        if !is_aborted || isolation == Isolation::AbortedToo {
            let mut offset = batch.base_offset;
            for record in content {
                records.push((offset, record.clone()));
                offset = offset.next();
            }
        }
    }
    records
}

/// Where a partition ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Where a read_committed consumer ends.
    pub last_stable: Offset,
    /// Where what is replicated ends.
    pub high_watermark: Offset,
}

/// Where a partition ends; `None` when no broker has it.
#[must_use]
pub fn ends(brokers: &[&Broker], tp: TopicPartition) -> Option<Ends> {
    current(brokers, tp).map(|view| Ends {
        last_stable: view.last_stable,
        high_watermark: view.high_watermark,
    })
}

/// Offsets of `group` in the order in which they became visible: by the markers of the transactions
/// that committed them.
#[must_use]
pub fn committed_offsets_history(brokers: &[&Broker], group: &str) -> Vec<OffsetCommit> {
    let Some(first) = brokers.first() else {
        return Vec::new();
    };
    let Some(view) = current(brokers, first.layout().group_partition(group)) else {
        return Vec::new();
    };
    let mut state = OffsetsState::default();
    let mut history = Vec::new();
    for batch in view.log.range(view.log.start(), view.high_watermark) {
        state.apply(batch, |of, commit| {
            if of == group {
                history.push(commit.clone());
            }
        });
    }
    history
}
