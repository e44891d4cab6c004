//! What every checker gets of the partition that is judged.

use crate::evidence::{Commit, Known, Output};
use crate::history::Facts;
use crate::moment::{Forced, Moment};
use crate::oracle::{LogTruth, WindowTruth};
use std::rc::Rc;

/// One source partition.
#[derive(Debug)]
pub struct Case<'a> {
    /// What is known of the run.
    pub facts: &'a Facts,
    /// Number of the partition.
    pub partition: i32,
    /// Its commit records in the order in which they became visible.
    pub commits: Vec<&'a Commit>,
    /// Its declared forced advances, sorted by (position, watermark).
    pub forced: Vec<Forced>,
    /// True when an output or a commit record names it.
    pub is_named: bool,
    /// Up to where it has visibly been processed: everything that the oracle expects at or before
    /// this moment must be visible, since outputs and offsets are committed as one. `None` when
    /// nothing of it was committed.
    pub horizon: Option<Moment>,
}

impl<'a> Case<'a> {
    /// Gathers what is known of a partition.
    #[must_use]
    pub fn new(facts: &'a Facts, known: &'a Known, partition: i32) -> Self {
        let of_partition = |commit: &&Commit| commit.partition == partition;
        let commits: Vec<_> = known.commits.iter().filter(of_partition).collect();
        let shown = known.shown_until(partition);
        let committed = commits.last().map(|commit| commit.moment());
        Self {
            facts,
            partition,
            is_named: shown.is_some() || !commits.is_empty(),
            horizon: if facts.settled {
                Some(Moment::END)
            } else {
                committed.max(shown)
            },
            forced: known.forced_advances(partition),
            commits,
        }
    }

    /// The last commit record.
    #[must_use]
    pub fn last_commit(&self) -> Option<&'a Commit> {
        self.commits.last().copied()
    }
}

/// One window: what the log makes of it, and what is visible of it.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Ticker.
    pub ticker: &'a str,
    /// Start, Unix milliseconds.
    pub start_ms: i64,
    /// The window by the log; `None` if no accepted event is in it.
    pub truth: Option<&'a WindowTruth>,
    /// Its visible results by (revision, sequence).
    pub shown: &'a [Rc<Output>],
    /// What the log shows; fates only of the windows up to this one.
    pub log: &'a LogTruth,
}
