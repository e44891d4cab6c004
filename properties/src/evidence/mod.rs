//! What outputs and commit records say of themselves.
//!
//! Comes in: the recorded output, dead-letter and offset records, in any order. Goes out:
//! [`Output`]s, once in each order that the checkers need; [`Commit`]s in their order, and
//! complaints about those that could not be read. Never here: whether what they say is true.

mod commit;
mod orders;
mod output;

pub use commit::Commit;
pub use orders::{InLog, InSequence, InWindow, Pointing};
pub use output::{Kind, Output, Owner, Row, Window, object_fields};

use crate::conservation::pointed;
use crate::history::{CommittedOffset, TopicRecord};
use crate::moment::{Forced, Moment};
use crate::spill::{Scratch, Sorter};
use crate::verdict::{Findings, Property};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

/// Everything that the processor published, read.
#[derive(Debug)]
pub struct Evidence {
    /// All outputs as they stand in their topics.
    pub in_log: Sorter<InLog>,
    /// All outputs by sequence.
    pub in_sequence: Sorter<InSequence>,
    /// Results whose window could be read, by window.
    pub in_window: Sorter<InWindow>,
    /// Dead letters by the input record that they point to.
    pub pointing: Sorter<Pointing>,
    /// What is small enough to be known at any time.
    pub known: Known,
    /// One complaint for each output or commit record that could not be read.
    pub unreadable: Findings,
    /// One complaint for each dead letter that points nowhere.
    pub pointless: Findings,
}

/// Commit records, and what outputs say of their partitions.
#[derive(Debug, Default)]
pub struct Known {
    /// Commit records in the order in which they became visible.
    pub commits: Vec<Commit>,
    shown_until: BTreeMap<i32, Moment>,
    forced: BTreeMap<i32, BTreeSet<Forced>>,
}

impl Known {
    fn declare(&mut self, partition: i32, forced: Option<Forced>) {
        if let Some(forced) = forced {
            self.forced.entry(partition).or_default().insert(forced);
        }
    }

    /// Every source partition that an output or a commit record names.
    pub fn partitions(&self) -> impl Iterator<Item = i32> {
        let committed = self.commits.iter().map(|commit| commit.partition);
        self.shown_until.keys().copied().chain(committed)
    }

    /// The latest moment of which an output of this partition is visible.
    #[must_use]
    pub fn shown_until(&self, partition: i32) -> Option<Moment> {
        self.shown_until.get(&partition).copied()
    }

    /// The forced advances that outputs and commit records of a partition declare, sorted by
    /// (position, watermark).
    #[must_use]
    pub fn forced_advances(&self, partition: i32) -> Vec<Forced> {
        let declared = self.forced.get(&partition).into_iter().flatten();
        declared.copied().collect()
    }
}

impl Evidence {
    /// Reads the commit records; outputs are to be taken in one by one.
    #[must_use]
    pub fn new(commits: &[CommittedOffset], scratch: &Scratch) -> Self {
        let mut evidence = Self {
            in_log: Sorter::new(scratch),
            in_sequence: Sorter::new(scratch),
            in_window: Sorter::new(scratch),
            pointing: Sorter::new(scratch),
            known: Known::default(),
            unreadable: Findings::of(Property::ExactlyOnceOut),
            pointless: Findings::of(Property::Conservation),
        };
        for committed in commits {
            evidence.commit(committed);
        }
        evidence
    }

    fn commit(&mut self, committed: &CommittedOffset) {
        match Commit::read(committed) {
            Ok(commit) => {
                self.known.declare(commit.partition, commit.forced);
                self.known.commits.push(commit);
            }
            Err(why) => self.unreadable.add(|| {
                format!(
                    "commit record of partition {} at offset {}: {why}",
                    committed.partition, committed.offset
                )
            }),
        }
    }

    /// Takes an output in.
    ///
    /// # Errors
    /// When scratch space cannot be written.
    pub fn take(&mut self, kind: Kind, record: &TopicRecord) -> io::Result<()> {
        let output = match Output::read(kind, record) {
            Ok(output) => Rc::new(output),
            Err(why) => {
                let place = format!("partition {} offset {}", record.partition, record.offset);
                self.unreadable.add(|| format!("{kind} at {place}: {why}"));
                return Ok(());
            }
        };
        let source = output.source_partition;
        self.known.declare(source, output.forced);
        let shown_until = self.known.shown_until.entry(source);
        let shown_until = shown_until.or_insert(output.moment);
        *shown_until = output.moment.max(*shown_until);
        match kind {
            Kind::DeadLetter => self.letter(&output)?,
            Kind::Result if output.window.is_ok() => {
                self.in_window.push(InWindow(Rc::clone(&output)))?;
            }
            Kind::Result => {}
        }
        self.in_log.push(InLog(Rc::clone(&output)))?;
        self.in_sequence.push(InSequence(output))
    }

    fn letter(&mut self, letter: &Rc<Output>) -> io::Result<()> {
        match pointed(letter) {
            Ok((partition, offset)) => self.pointing.push(Pointing {
                partition,
                offset,
                letter: Rc::clone(letter),
            }),
            Err(why) => {
                self.pointless.add(|| format!("{}: {why}", letter.place()));
                Ok(())
            }
        }
    }
}
