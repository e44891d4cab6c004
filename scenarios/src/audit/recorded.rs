//! A history of a simulated run, as a cluster: the same audit, without brokers.

use super::{AuditError, Cluster, Extent, Topic};
use properties::history::{CommittedOffset, History, TopicRecord};
use std::collections::BTreeMap;
use std::io;

/// Shows of a history what a real cluster shows: the topics, and of the commits only the newest.
#[derive(Debug)]
pub struct Recorded<'a> {
    history: &'a History,
}

impl<'a> Recorded<'a> {
    /// A cluster that holds this history.
    #[must_use]
    pub fn new(history: &'a History) -> Self {
        Self { history }
    }

    fn records(&self, topic: Topic) -> &'a [TopicRecord] {
        match topic {
            Topic::Input => &self.history.input,
            Topic::Output => &self.history.outputs,
            Topic::DeadLetters => &self.history.dead_letters,
        }
    }
}

impl Cluster for Recorded<'_> {
    fn now_ms(&self) -> i64 {
        self.history.ended_at_ms.unwrap_or(i64::MAX)
    }

    fn committed(&mut self) -> Result<Vec<CommittedOffset>, AuditError> {
        let commits = self.history.commits.iter();
        let newest: BTreeMap<i32, &CommittedOffset> =
            commits.map(|commit| (commit.partition, commit)).collect();
        Ok(newest.into_values().cloned().collect())
    }

    fn extents(&mut self, topic: Topic) -> Result<Vec<Extent>, AuditError> {
        let ends = match (topic, &self.history.input_ends) {
            (Topic::Input, Some(ends)) => ends.as_slice(),
            _ => &[],
        };
        let extent = |start, end| Extent {
            start,
            stable_end: end,
            written_end: end,
        };
        let mut extents: Vec<Extent> = ends.iter().map(|end| extent(0, *end)).collect();
        for record in self.records(topic) {
            let partition = usize::try_from(record.partition).unwrap_or(0);
            while extents.len() <= partition {
                extents.push(extent(0, 0));
            }
            let end = extents[partition].stable_end.max(record.offset + 1);
            extents[partition] = extent(0, end);
        }
        for (partition, known) in (0..).zip(&mut extents) {
            let mut records = self.records(topic).iter();
            let first = records.find(|record| record.partition == partition);
            known.start = first.map_or(0, |first| first.offset);
        }
        Ok(extents)
    }

    fn read(
        &mut self,
        topic: Topic,
        partition: i32,
        extent: Extent,
        each: &mut dyn FnMut(&TopicRecord) -> io::Result<()>,
    ) -> Result<(), AuditError> {
        let within = extent.start..extent.stable_end;
        self.records(topic)
            .iter()
            .filter(|record| record.partition == partition && within.contains(&record.offset))
            .try_for_each(each)?;
        Ok(())
    }
}
