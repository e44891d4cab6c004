//! What outputs and commit records say of themselves.
//!
//! Comes in: the recorded output, dead-letter and offset records. Goes out: [`Output`]s grouped by
//! source partition in sequence order, [`Commit`]s in their order, and complaints about those that
//! could not be read. Never here: whether what they say is true.

mod commit;
mod output;

pub use commit::Commit;
pub use output::{Kind, Output, Owner, Row, object_fields};

use crate::history::History;
use crate::moment::Forced;
use std::collections::BTreeMap;

/// Everything that the processor published, read.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// Results and dead letters, sorted by (source partition, sequence, then where they stand).
    outputs: Vec<Output<'a>>,
    /// Commit records in the order in which they became visible.
    pub commits: Vec<Commit>,
    /// One complaint for each output or commit record that could not be read.
    pub unreadable: Vec<String>,
}

impl<'a> Evidence<'a> {
    /// Reads all outputs and commit records of a history.
    #[must_use]
    pub fn of(history: &'a History) -> Self {
        let mut outputs = Vec::new();
        let mut unreadable = Vec::new();
        let results = history.outputs.iter().map(|record| (Kind::Result, record));
        let dead = history
            .dead_letters
            .iter()
            .map(|record| (Kind::DeadLetter, record));
        for (kind, record) in results.chain(dead) {
            match Output::read(kind, record) {
                Ok(output) => outputs.push(output),
                Err(why) => unreadable.push(format!(
                    "{kind} at partition {} offset {}: {why}",
                    record.partition, record.offset
                )),
            }
        }
        outputs.sort_by_key(|output| {
            (
                output.source_partition,
                output.sequence,
                output.kind,
                output.record.partition,
                output.record.offset,
            )
        });
        let mut commits = Vec::new();
        for committed in &history.commits {
            match Commit::read(committed) {
                Ok(commit) => commits.push(commit),
                Err(why) => unreadable.push(format!(
                    "commit record of partition {} at offset {}: {why}",
                    committed.partition, committed.offset
                )),
            }
        }
        Self {
            outputs,
            commits,
            unreadable,
        }
    }

    /// All outputs, by source partition and sequence.
    #[must_use]
    pub fn outputs(&self) -> &[Output<'a>] {
        &self.outputs
    }

    /// The outputs of one source partition in sequence order.
    #[must_use]
    pub fn of_partition(&self, source_partition: i32) -> &[Output<'a>] {
        let from = self
            .outputs
            .partition_point(|output| output.source_partition < source_partition);
        let until = self
            .outputs
            .partition_point(|output| output.source_partition <= source_partition);
        &self.outputs[from..until]
    }

    /// The outputs of one topic in the order of that topic: by (partition, offset).
    #[must_use]
    pub fn in_log_order(&self, kind: Kind) -> Vec<&Output<'a>> {
        let mut outputs: Vec<_> = self
            .outputs
            .iter()
            .filter(|output| output.kind == kind)
            .collect();
        outputs.sort_by_key(|output| (output.record.partition, output.record.offset));
        outputs
    }

    /// The commit records of one partition in their order.
    pub fn commits_of(&self, partition: i32) -> impl Iterator<Item = &Commit> {
        self.commits
            .iter()
            .filter(move |commit| commit.partition == partition)
    }

    /// The last commit record of a partition.
    #[must_use]
    pub fn last_commit(&self, partition: i32) -> Option<&Commit> {
        self.commits
            .iter()
            .rev()
            .find(|commit| commit.partition == partition)
    }

    /// Every source partition that an output or a commit record names.
    #[must_use]
    pub fn partitions(&self) -> Vec<i32> {
        let mut partitions: Vec<i32> = self
            .outputs
            .iter()
            .map(|output| output.source_partition)
            .chain(self.commits.iter().map(|commit| commit.partition))
            .collect();
        partitions.sort_unstable();
        partitions.dedup();
        partitions
    }

    /// The forced advances that outputs and commit records declare, by partition, sorted by
    /// (position, watermark).
    #[must_use]
    pub fn forced_advances(&self) -> BTreeMap<i32, Vec<Forced>> {
        let mut by_partition: BTreeMap<i32, Vec<Forced>> = BTreeMap::new();
        let declared = self
            .outputs
            .iter()
            .filter_map(|output| Some((output.source_partition, output.forced?)))
            .chain(
                self.commits
                    .iter()
                    .filter_map(|commit| Some((commit.partition, commit.forced?))),
            );
        for (partition, forced) in declared {
            let advances = by_partition.entry(partition).or_default();
            if advances.last() != Some(&forced) {
                advances.push(forced);
            }
        }
        for advances in by_partition.values_mut() {
            advances.sort_unstable();
            advances.dedup();
        }
        by_partition
    }
}
