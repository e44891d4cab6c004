//! Property 2: per source partition, the sequences of results and dead letters have no gap and no
//! repeat, and every commit record agrees with them, and with the commit records before it.

mod chain;

pub use chain::pinned;

use crate::case::Case;
use crate::evidence::{Commit, Kind, Output};
use crate::moment::{Happening, Moment};
use crate::verdict::Findings;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Judges one partition: its outputs in the order of the log, then in that of their sequences.
#[derive(Debug)]
pub struct Check<'a> {
    case: &'a Case<'a>,
    newest_in_log: BTreeMap<(Kind, i32), Rc<Output>>,
    /// Commit records by sequence; those from `next_commit` on count the next output too.
    by_sequence: Vec<&'a Commit>,
    next_commit: usize,
    expected: i64,
    shown: i64,
    newest: Option<Rc<Output>>,
}

impl<'a> Check<'a> {
    /// Begins.
    #[must_use]
    pub fn new(case: &'a Case<'a>) -> Self {
        let mut by_sequence = case.commits.clone();
        by_sequence.sort_by_key(|commit| commit.sequence);
        Self {
            case,
            newest_in_log: BTreeMap::new(),
            by_sequence,
            next_commit: 0,
            expected: 0,
            shown: 0,
            newest: None,
        }
    }

    /// The next output in the order of the log: inside one partition of an output topic, the
    /// sequences of a source partition rise with the offset.
    pub fn in_log(&mut self, output: &Rc<Output>, findings: &mut Findings) {
        let place = (output.kind, output.partition);
        if let Some(before) = self.newest_in_log.insert(place, Rc::clone(output)) {
            findings.require(before.sequence < output.sequence, || {
                format!("{}: stands behind {}", output.place(), before.place())
            });
        }
    }

    /// The next output in the order of sequences: from 0, each number once.
    pub fn in_sequence(&mut self, output: &Rc<Output>, findings: &mut Findings) {
        self.shown += 1;
        while let Some(commit) = self.by_sequence.get(self.next_commit) {
            if output.sequence < commit.sequence {
                break;
            }
            counts_no_more(commit, output, findings);
            counts(commit, self.newest.as_deref(), findings);
            self.next_commit += 1;
        }
        let before = self.newest.replace(Rc::clone(output));
        if output.sequence < self.expected {
            let before = before.map(|before| before.place());
            findings.add(|| {
                format!(
                    "{}: repeats a sequence; before it: {before:?}",
                    output.place()
                )
            });
            return;
        }
        findings.require(output.sequence == self.expected, || {
            format!(
                "source partition {}: sequences {} to {} are missing",
                self.case.partition,
                self.expected,
                output.sequence - 1
            )
        });
        self.expected = output.sequence.saturating_add(1);
    }

    /// Everything has been seen.
    pub fn finish(self, findings: &mut Findings) {
        for commit in &self.by_sequence[self.next_commit..] {
            counts(commit, self.newest.as_deref(), findings);
        }
        chain::check(&self.case.commits, findings);
        for pair in self.case.commits.windows(2) {
            rising(pair[0], pair[1], findings);
        }
        if !self.case.is_named {
            return;
        }
        let (shown, last) = (self.shown, self.case.last_commit());
        let committed = last.map_or(0, |commit| commit.sequence);
        findings.require(committed == shown, || {
            format!(
                "source partition {}: {shown} outputs are visible, but the last commit record \
                 counts {committed}",
                self.case.partition
            )
        });
    }
}

fn rising(before: &Commit, commit: &Commit, findings: &mut Findings) {
    findings.require(
        before.offset <= commit.offset && before.sequence <= commit.sequence,
        || {
            format!(
                "partition {}: the commit at offset {} with sequence {} comes after that at offset \
                 {} with sequence {}",
                commit.partition, commit.offset, commit.sequence, before.offset, before.sequence
            )
        },
    );
}

/// The outputs below a commit's sequence, of which this is the newest, are of what lies before its
/// offset.
fn counts(commit: &Commit, newest: Option<&Output>, findings: &mut Findings) {
    let counted = commit.outputs();
    findings.require(counted == commit.sequence, || {
        format!(
            "commit record of partition {} at offset {}: it counts {counted} dead letters and \
             results, but its sequence is {}",
            commit.partition, commit.offset, commit.sequence
        )
    });
    let belongs = |moment: Moment| match moment.happening {
        Happening::Record => moment.offset < commit.offset,
        Happening::Idle(_) => moment.offset <= commit.offset,
    };
    if let Some(newest) = newest {
        findings.require(belongs(newest.moment), || {
            format!(
                "{}: the commit at offset {} counts it, though its cause lies behind that offset",
                newest.place(),
                commit.offset
            )
        });
    }
}

/// The first output that a commit does not count is of what lies behind its offset.
fn counts_no_more(commit: &Commit, following: &Output, findings: &mut Findings) {
    findings.require(following.moment.offset >= commit.offset, || {
        format!(
            "{}: the commit at offset {} (sequence {}) does not count it, though its cause lies \
             before that offset",
            following.place(),
            commit.offset,
            commit.sequence
        )
    });
}

#[cfg(test)]
mod tests {
    use crate::evidence::Kind::{DeadLetter, Result};
    use crate::truth::{failed, output, remove, set_commit, set_header, small};
    use crate::verdict::Property::*;

    #[test]
    fn an_output_that_was_lost_is_found() {
        let mut history = small();
        remove(&mut history, Result, 3);
        assert_eq!(failed(&history), [ExactlyOnceOut, WindowCorrectness]);
    }

    #[test]
    fn an_output_that_is_there_twice_is_found() {
        let mut history = small();
        let mut again = output(&mut history, Result, 7).clone();
        again.offset = 1_000;
        history.outputs.push(again);
        let all = [ExactlyOnceOut, WindowCorrectness, Causality, Order];
        assert_eq!(failed(&history), all);
    }

    #[test]
    fn the_last_output_missing_is_found_by_the_commit_record() {
        let mut history = small();
        history.settled = false;
        let last = remove(&mut history, Result, 9);
        assert!(last.value.is_some());
        assert_eq!(
            failed(&history),
            [Conservation, ExactlyOnceOut, WindowCorrectness]
        );
    }

    #[test]
    fn a_commit_whose_sequence_disagrees_is_found() {
        let mut history = small();
        // The output that it leaves out would be the next owner's.
        set_commit(&mut history, 2, "\"seq\":4", "\"seq\":3");
        assert_eq!(failed(&history), [ExactlyOnceOut, Fencing]);
    }

    #[test]
    fn offsets_committed_without_their_outputs_are_found() {
        let mut history = small();
        // Everything from the commit at 18 on is missing, but the offsets were committed.
        history.outputs.retain(|record| sequence_of(record) < 4);
        history
            .dead_letters
            .retain(|record| sequence_of(record) < 4);
        let all = [Conservation, ExactlyOnceOut, WindowCorrectness, Liveness];
        assert_eq!(failed(&history), all);
    }

    fn sequence_of(record: &crate::history::TopicRecord) -> i64 {
        let header = record.headers.iter().find(|(name, _)| name == "sequence");
        let text = std::str::from_utf8(&header.expect("it has one").1);
        text.ok()
            .and_then(|text| text.parse().ok())
            .expect("it is a number")
    }

    #[test]
    fn a_commit_that_goes_back_is_found() {
        let mut history = small();
        history.commits.swap(0, 1);
        assert_eq!(failed(&history), [ExactlyOnceOut, Causality]);
    }

    #[test]
    fn an_output_without_its_headers_is_found() {
        let mut history = small();
        set_header(output(&mut history, DeadLetter, 0), "sequence", "first");
        assert_eq!(failed(&history), [Conservation, ExactlyOnceOut]);
    }

    #[test]
    fn a_commit_record_that_is_none_is_found() {
        let mut history = small();
        history.commits[1].metadata.clear();
        assert_eq!(failed(&history), [ExactlyOnceOut]);
    }
}
