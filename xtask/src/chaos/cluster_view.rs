//! A cluster as one sees it from outside: how far a group has committed, how far the log goes, and
//! whether every copy is in sync.
//!
//! Comes in: brokers' ports. Goes out: offsets by partition. Never here: the processor's own word.

use super::wire::{Reader, Writer, ask};
use anyhow::{Context, bail};
use std::collections::BTreeMap;

const LIST_OFFSETS: (i16, i16) = (2, 2);
const METADATA: (i16, i16) = (3, 4);
const OFFSET_FETCH: (i16, i16) = (9, 5);
const FIND_COORDINATOR: (i16, i16) = (10, 2);
const DESCRIBE_GROUPS: (i16, i16) = (15, 0);
const DELETE_TOPICS: (i16, i16) = (20, 3);

/// Offsets by partition.
pub type Offsets = BTreeMap<i32, i64>;

/// Where a partition's copies are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// The partition.
    pub partition: i32,
    /// The broker that leads it; −1: none.
    pub leader: i32,
    /// All brokers that have a copy.
    pub replicas: Vec<i32>,
    /// Those that are in sync.
    pub in_sync: Vec<i32>,
}

/// A cluster, asked by its brokers' ports.
#[derive(Debug, Clone)]
pub struct View {
    /// Port of each broker, by its id.
    ports: BTreeMap<i32, u16>,
}

impl View {
    /// Of the brokers with these ids and ports.
    #[must_use]
    pub fn new(ports: BTreeMap<i32, u16>) -> View {
        View { ports }
    }

    /// The same cluster, without asking that broker: it would keep everybody waiting while it is paused.
    #[must_use]
    pub fn without(&self, broker: u32) -> View {
        let mut ports = self.ports.clone();
        ports.retain(|id, _| i64::from(*id) != i64::from(broker));
        View { ports }
    }

    /// Asks one broker after the other until one answers.
    fn ask_any(&self, (key, version): (i16, i16), body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut last = anyhow::anyhow!("there are no brokers");
        for port in self.ports.values() {
            match ask(*port, key, version, body) {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn ask_one(&self, id: i32, (key, version): (i16, i16), body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let port = self.ports.get(&id);
        let port = port.with_context(|| format!("there is no broker {id}"))?;
        ask(*port, key, version, body)
    }

    /// The copies of each partition of a topic.
    ///
    /// # Errors
    /// When no broker answers, or none knows the topic.
    pub fn copies(&self, topic: &str) -> anyhow::Result<Vec<Copies>> {
        let mut body = Writer::default();
        body.i32(1).string(topic).i8(0);
        let answer = self.ask_any(METADATA, &body.0)?;
        copies_in(&answer)
    }

    /// True when every partition of every topic is led by one of its brokers, and all copies are in
    /// sync.
    ///
    /// # Errors
    /// As for [`View::copies`].
    pub fn is_whole(&self, topics: &[&str]) -> anyhow::Result<bool> {
        for topic in topics {
            let copies = self.copies(topic)?;
            let mut copies = copies.iter();
            if !copies.all(|of| of.leader >= 0 && of.in_sync.len() == of.replicas.len()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// High watermark of each partition.
    ///
    /// # Errors
    /// When a leader does not answer.
    pub fn ends(&self, topic: &str) -> anyhow::Result<Offsets> {
        const LATEST: i64 = -1;
        let mut ends = Offsets::new();
        for of in self.copies(topic)? {
            let mut body = Writer::default();
            body.i32(-1).i8(0).i32(1).string(topic);
            body.i32(1).i32(of.partition).i64(LATEST);
            let answer = self.ask_one(of.leader, LIST_OFFSETS, &body.0)?;
            ends.insert(of.partition, end_in(&answer)?);
        }
        Ok(ends)
    }

    /// Committed offset of each of the first `partitions` partitions; −1: none.
    ///
    /// # Errors
    /// When the group's coordinator does not answer.
    pub fn committed(&self, group: &str, topic: &str, partitions: i32) -> anyhow::Result<Offsets> {
        let coordinator = self.coordinator(group)?;
        let mut body = Writer::default();
        body.string(group).i32(1).string(topic).i32(partitions);
        for partition in 0..partitions {
            body.i32(partition);
        }
        let answer = self.ask_one(coordinator, OFFSET_FETCH, &body.0)?;
        committed_in(&answer)
    }

    /// How many members a group has; `None` while it is being rebalanced.
    ///
    /// # Errors
    /// When the group's coordinator does not answer.
    pub fn members(&self, group: &str) -> anyhow::Result<Option<usize>> {
        let coordinator = self.coordinator(group)?;
        let mut body = Writer::default();
        body.i32(1).string(group);
        let answer = self.ask_one(coordinator, DESCRIBE_GROUPS, &body.0)?;
        members_in(&answer)
    }

    /// The broker that coordinates a group.
    fn coordinator(&self, group: &str) -> anyhow::Result<i32> {
        let mut body = Writer::default();
        body.string(group).i8(0);
        let answer = self.ask_any(FIND_COORDINATOR, &body.0)?;
        let mut reader = Reader(&answer);
        reader.take(4)?; // throttle time
        let error = reader.i16()?;
        if error != 0 {
            bail!("no coordinator for {group}: error {error}");
        }
        reader.string()?; // message
        reader.i32()
    }

    /// Deletes topics; those that do not exist are no error.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn delete_topics(&self, topics: &[&str]) -> anyhow::Result<()> {
        const LIMIT_MS: i32 = 10_000;
        let mut body = Writer::default();
        body.i32(i32::try_from(topics.len())?);
        for topic in topics {
            body.string(topic);
        }
        body.i32(LIMIT_MS);
        self.ask_any(DELETE_TOPICS, &body.0).map(|_| ())
    }
}

fn copies_in(answer: &[u8]) -> anyhow::Result<Vec<Copies>> {
    let mut reader = Reader(answer);
    reader.take(4)?; // throttle time
    reader.list(|broker| {
        broker.i32()?; // id
        broker.string()?; // host
        broker.i32()?; // port
        broker.string().map(|_| ()) // rack
    })?;
    reader.string()?; // cluster id
    reader.i32()?; // controller
    let topics = reader.list(|topic| {
        let error = topic.i16()?;
        let name = String::from_utf8_lossy(topic.string()?).into_owned();
        topic.take(1)?; // internal
        let copies = topic.list(|partition| {
            partition.i16()?; // error
            Ok(Copies {
                partition: partition.i32()?,
                leader: partition.i32()?,
                replicas: partition.list(Reader::i32)?,
                in_sync: partition.list(Reader::i32)?,
            })
        })?;
        if error != 0 {
            bail!("topic {name}: error {error}");
        }
        Ok(copies)
    })?;
    Ok(topics.into_iter().flatten().collect())
}

fn end_in(answer: &[u8]) -> anyhow::Result<i64> {
    let mut reader = Reader(answer);
    reader.take(4)?; // throttle time
    let ends = reader.list(|topic| {
        topic.string()?;
        topic.list(|partition| {
            partition.i32()?;
            let error = partition.i16()?;
            partition.i64()?; // timestamp
            let end = partition.i64()?;
            if error != 0 {
                bail!("the end of a partition: error {error}");
            }
            Ok(end)
        })
    })?;
    let end = ends.into_iter().flatten().next();
    end.context("an answer without a partition")
}

fn committed_in(answer: &[u8]) -> anyhow::Result<Offsets> {
    let mut reader = Reader(answer);
    reader.take(4)?; // throttle time
    let topics = reader.list(|topic| {
        topic.string()?;
        topic.list(|partition| {
            let index = partition.i32()?;
            let offset = partition.i64()?;
            partition.i32()?; // leader epoch
            partition.string()?; // metadata
            let error = partition.i16()?;
            if error != 0 {
                bail!("a committed offset: error {error}");
            }
            Ok((index, offset))
        })
    })?;
    let error = reader.i16()?;
    if error != 0 {
        bail!("committed offsets: error {error}");
    }
    Ok(topics.into_iter().flatten().collect())
}

fn members_in(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let groups = Reader(answer).list(|group| {
        let error = group.i16()?;
        if error != 0 {
            bail!("a group: error {error}");
        }
        group.string()?; // its name
        let is_stable = group.string()? == b"Stable";
        group.string()?; // protocol type
        group.string()?; // protocol
        let members = group.list(|member| {
            for _ in 0..3 {
                member.string()?; // id, client and host
            }
            member.bytes()?; // subscription
            member.bytes().map(|_| ()) // assignment
        })?;
        Ok(is_stable.then_some(members.len()))
    })?;
    let group = groups.into_iter().next();
    group.context("an answer without a group")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_read_from_a_metadata_answer() -> anyhow::Result<()> {
        let mut answer = Writer::default();
        answer.i32(0).i32(1).i32(3).string("host").i32(9092).i16(-1);
        answer.string("cluster").i32(3).i32(1);
        answer.i16(0).string("ticks").i8(0).i32(1);
        answer.i16(0).i32(5).i32(3);
        answer.i32(2).i32(3).i32(1).i32(1).i32(3);
        let expected = Copies {
            partition: 5,
            leader: 3,
            replicas: vec![3, 1],
            in_sync: vec![3],
        };
        assert_eq!(copies_in(&answer.0)?, [expected]);
        assert!(copies_in(&answer.0[..30]).is_err());
        Ok(())
    }

    #[test]
    fn offsets_are_read_and_errors_told() -> anyhow::Result<()> {
        let committed = |error: i16| {
            let mut answer = Writer::default();
            answer.i32(0).i32(1).string("ticks").i32(1);
            answer
                .i32(2)
                .i64(77)
                .i32(-1)
                .string("record")
                .i16(error)
                .i16(0);
            answer.0
        };
        assert_eq!(committed_in(&committed(0))?, Offsets::from([(2, 77)]));
        let error = committed_in(&committed(16)).unwrap_err().to_string();
        assert!(error.contains("16"), "{error}");
        let mut answer = Writer::default();
        answer.i32(0).i32(1).string("ticks").i32(1);
        answer.i32(2).i16(0).i64(-1).i64(78);
        assert_eq!(end_in(&answer.0)?, 78);
        Ok(())
    }

    #[test]
    fn members_are_counted_only_in_a_stable_group() -> anyhow::Result<()> {
        let group = |state: &str| {
            let mut answer = Writer::default();
            answer.i32(1).i16(0).string("ticks").string(state);
            answer.string("consumer").string("range").i32(2);
            for member in ["a", "b"] {
                answer.string(member).string("client").string("host");
                answer.i32(2).i16(7).i32(-1);
            }
            answer.0
        };
        assert_eq!(members_in(&group("Stable"))?, Some(2));
        assert_eq!(members_in(&group("PreparingRebalance"))?, None);
        Ok(())
    }

    #[test]
    fn a_cluster_that_does_not_answer_is_an_error() {
        let view = View::new(BTreeMap::from([(1, 1)]));
        assert!(view.ends("ticks").is_err());
        assert!(view.committed("group", "ticks", 1).is_err());
    }
}
