//! Which partitions there are: a flat numbering ("slots") of all partitions of all topics, and which
//! internal partition coordinates what.

use super::ClusterConfig;
use super::protocol::{
    BrokerId, OFFSETS_TOPIC, PartitionId, TRANSACTIONS_TOPIC, TopicIndex, TopicPartition,
};

/// Numbering of all partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// First slot of each topic, and at the end the number of slots.
    starts: Vec<usize>,
    partitions: Vec<TopicPartition>,
}

impl Layout {
    /// Numbers the partitions of `config`'s topics in order.
    #[must_use]
    pub fn new(config: &ClusterConfig) -> Layout {
        let mut starts = Vec::new();
        let mut partitions = Vec::new();
        for (index, topic) in config.topics.iter().enumerate() {
            starts.push(partitions.len());
            let index = u16::try_from(index).expect("a world has few topics");
            for partition in 0..topic.partitions {
                partitions.push(TopicPartition {
                    topic: TopicIndex(index),
                    partition: PartitionId(i32::try_from(partition).expect("few partitions")),
                });
            }
        }
        starts.push(partitions.len());
        Layout { starts, partitions }
    }

    /// Number of slots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.partitions.len()
    }

    /// True when there is no partition at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Slot of a partition; `None` if there is no such partition.
    #[must_use]
    pub fn slot(&self, tp: TopicPartition) -> Option<usize> {
        let topic = usize::from(tp.topic.0);
        let start = *self.starts.get(topic)?;
        let end = *self.starts.get(topic + 1)?;
        let slot = start + usize::try_from(tp.partition.0).ok()?;
        (slot < end).then_some(slot)
    }

    /// Partition in a slot.
    #[must_use]
    pub fn partition(&self, slot: usize) -> TopicPartition {
        self.partitions[slot]
    }

    /// Number of partitions of a topic (0: no such topic).
    #[must_use]
    pub fn partitions_of(&self, topic: TopicIndex) -> usize {
        let topic = usize::from(topic.0);
        match (self.starts.get(topic), self.starts.get(topic + 1)) {
            (Some(start), Some(end)) => end - start,
            _ => 0,
        }
    }

    /// Slots of a topic.
    #[must_use]
    pub fn slots_of(&self, topic: TopicIndex) -> std::ops::Range<usize> {
        let start = self.starts.get(usize::from(topic.0)).copied().unwrap_or(0);
        start..start + self.partitions_of(topic)
    }

    /// Partition of `__consumer_offsets` that coordinates a group.
    #[must_use]
    pub fn group_partition(&self, group: &str) -> TopicPartition {
        self.coordinating(OFFSETS_TOPIC, group)
    }

    /// Partition of `__transaction_state` that coordinates a transactional id.
    #[must_use]
    pub fn transaction_partition(&self, transactional_id: &str) -> TopicPartition {
        self.coordinating(TRANSACTIONS_TOPIC, transactional_id)
    }

    fn coordinating(&self, topic: TopicIndex, name: &str) -> TopicPartition {
        let count = i32::try_from(self.partitions_of(topic).max(1)).expect("few partitions");
        TopicPartition {
            topic,
            partition: PartitionId((java_string_hash(name) & i32::MAX) % count),
        }
    }
}

/// Java's `String.hashCode`, by which Kafka chooses coordinators (for ASCII names).
fn java_string_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

/// Replicas of a slot, the preferred leader first: brokers are numbered from 1 and take turns.
#[must_use]
pub fn replicas_of(slot: usize, brokers: u32) -> Vec<BrokerId> {
    let slot = u32::try_from(slot).expect("few partitions");
    let factor = brokers.min(3);
    (0..factor)
        .map(|replica| BrokerId((slot + replica) % brokers + 1))
        .collect()
}
