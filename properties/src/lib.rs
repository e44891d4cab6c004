//! What must be true of a run, judged from the topics alone.
//!
//! Comes in: a [`history::History`]. Goes out: [`Verdicts`], one verdict a property.
//! Never here: anything that looks inside the processor, or shares its window, watermark or commit
//! code.
//!
//! The [`oracle`] recomputes everything from the input log as a batch; [`evidence`] reads what the
//! outputs and commit records say of themselves; each checker compares the two for one property, in
//! a file that bears its name.

pub mod causality;
pub mod conservation;
pub mod decimal;
pub mod determinism;
pub mod evidence;
pub mod exactly_once_out;
pub mod fencing;
pub mod history;
pub mod liveness;
pub mod moment;
pub mod oracle;
pub mod order;
pub mod verdict;
pub mod window_correctness;

#[cfg(test)]
mod truth;

use evidence::Evidence;
use history::History;
use moment::Moment;
use oracle::Oracle;
pub use verdict::{Findings, Property, Verdict, Verdicts, Violation};

/// Everything that a checker may look at: the history, what its outputs declare, and what the
/// oracle says should be there.
#[derive(Debug)]
pub struct Case<'a> {
    /// What was recorded.
    pub history: &'a History,
    /// Its outputs and commit records, read.
    pub evidence: Evidence<'a>,
    /// What should be there.
    pub oracle: Oracle,
}

impl<'a> Case<'a> {
    /// Reads the outputs and recomputes the truth.
    #[must_use]
    pub fn new(history: &'a History) -> Self {
        let evidence = Evidence::of(history);
        let oracle = Oracle::new(history, &evidence.forced_advances());
        Self {
            history,
            evidence,
            oracle,
        }
    }

    /// Up to where a partition has visibly been processed: everything that the oracle expects at or
    /// before this moment must be visible, since outputs and offsets are committed as one. `None`
    /// when nothing of the partition was committed.
    #[must_use]
    pub fn horizon(&self, partition: i32) -> Option<Moment> {
        if self.history.settled {
            return Some(Moment::END);
        }
        let committed = self
            .evidence
            .last_commit(partition)
            .map(evidence::Commit::moment);
        let shown = self
            .evidence
            .of_partition(partition)
            .iter()
            .map(|output| output.moment)
            .max();
        committed.max(shown)
    }
}

/// Judges every property that one history can show. Determinism needs two runs: it is
/// "not judged" here; see [`determinism::check`].
#[must_use]
pub fn judge(history: &History) -> Verdicts {
    let case = Case::new(history);
    let mut verdicts = Verdicts::default();
    verdicts.insert(conservation::check(&case).into_verdict(Property::Conservation));
    verdicts.insert(exactly_once_out::check(&case).into_verdict(Property::ExactlyOnceOut));
    verdicts.insert(window_correctness::check(&case).into_verdict(Property::WindowCorrectness));
    verdicts.insert(causality::check(&case).into_verdict(Property::Causality));
    verdicts.insert(order::check(&case).into_verdict(Property::Order));
    verdicts.insert((Property::Liveness, liveness::check(&case)));
    verdicts.insert((
        Property::Determinism,
        Verdict::NotJudged {
            reason: "one run cannot show it: compare the trace hashes of two".to_owned(),
        },
    ));
    verdicts.insert(fencing::check(&case).into_verdict(Property::Fencing));
    verdicts
}
