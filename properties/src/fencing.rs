//! Property 8: nothing from a superseded owner is ever visible. Owners have terms; per source
//! partition a term belongs to one incarnation, and no older term follows a newer one.

use crate::case::Case;
use crate::evidence::{Commit, Kind, Output};
use crate::verdict::Findings;
use std::collections::BTreeMap;

/// Judges one partition: its outputs in the order of the log, then in that of their sequences.
#[derive(Debug)]
pub struct Check<'a> {
    case: &'a Case<'a>,
    newest_in_log: BTreeMap<(Kind, i32), i64>,
    incarnations: BTreeMap<i64, String>,
    newest_term: i64,
    /// Sequences that a commit was the first to count: from, until.
    first_counted: Vec<(i64, i64, &'a Commit)>,
    next_commit: usize,
}

impl<'a> Check<'a> {
    /// Begins.
    #[must_use]
    pub fn new(case: &'a Case<'a>) -> Self {
        let mut counted = 0;
        let mut first_counted = Vec::new();
        for commit in case.commits.iter().filter(|_| case.facts.commits_complete) {
            if commit.sequence > counted {
                first_counted.push((counted, commit.sequence, *commit));
                counted = commit.sequence;
            }
        }
        Self {
            case,
            newest_in_log: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            newest_term: i64::MIN,
            first_counted,
            next_commit: 0,
        }
    }

    /// The next output in the order of the log: nothing of an older term follows a newer one.
    pub fn in_log(&mut self, output: &Output, findings: &mut Findings) {
        let Some(owner) = &output.owner else {
            return;
        };
        let place = (output.kind, output.partition);
        let term = self.newest_in_log.entry(place).or_insert(owner.term);
        findings.require(owner.term >= *term, || {
            format!(
                "{}: is of term {}, and stands behind term {term}",
                output.place(),
                owner.term
            )
        });
        *term = owner.term.max(*term);
    }

    /// The next output in the order of sequences: terms never fall, and each has one incarnation.
    pub fn in_sequence(&mut self, output: &Output, findings: &mut Findings) {
        let Some(owner) = &output.owner else {
            findings.add(|| format!("{}: header `owner` is missing", output.place()));
            return;
        };
        let newest_term = self.newest_term;
        findings.require(owner.term >= newest_term, || {
            format!(
                "{}: is of term {}, after term {newest_term}",
                output.place(),
                owner.term
            )
        });
        self.newest_term = newest_term.max(owner.term);
        if let Some(known) = self.other_incarnation(owner.term, &owner.incarnation) {
            findings.add(|| {
                format!(
                    "{}: term {} belongs to {known}, not to {}",
                    output.place(),
                    owner.term,
                    owner.incarnation
                )
            });
        }
        self.committed_by_its_owner(output, findings);
    }

    /// To whom the term belongs, if not to this one.
    fn other_incarnation(&mut self, term: i64, incarnation: &str) -> Option<&str> {
        let known = self.incarnations.entry(term);
        let known = known.or_insert_with(|| incarnation.to_owned());
        (known != incarnation).then_some(known.as_str())
    }

    /// Outputs become visible with the commit that first counts them, so they are of its owner.
    fn committed_by_its_owner(&mut self, output: &Output, findings: &mut Findings) {
        let Some(owner) = &output.owner else { return };
        let after = |(_, until, _): &(i64, i64, &Commit)| *until <= output.sequence;
        while self.first_counted.get(self.next_commit).is_some_and(after) {
            self.next_commit += 1;
        }
        let Some((from, _, commit)) = self.first_counted.get(self.next_commit) else {
            return;
        };
        let (term, incarnation) = (owner.term, &owner.incarnation);
        let is_of = (term, incarnation) == (commit.term, &commit.incarnation);
        findings.require(output.sequence < *from || is_of, || {
            format!(
                "{}: is of {term}/{incarnation}, but was committed by {}/{} (at offset {})",
                output.place(),
                commit.term,
                commit.incarnation,
                commit.offset
            )
        });
    }

    /// Everything has been seen: in the order of commits, too, terms never fall.
    pub fn finish(mut self, findings: &mut Findings) {
        let mut newest_term = i64::MIN;
        for commit in &self.case.commits {
            findings.require(commit.term >= newest_term, || {
                format!(
                    "commit of partition {} at offset {}: is of term {}, after term {newest_term}",
                    commit.partition, commit.offset, commit.term
                )
            });
            newest_term = newest_term.max(commit.term);
            if let Some(known) = self.other_incarnation(commit.term, &commit.incarnation) {
                findings.add(|| {
                    format!(
                        "commit of partition {} at offset {}: term {} belongs to {known}, not to {}",
                        commit.partition, commit.offset, commit.term, commit.incarnation
                    )
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::evidence::Kind::{DeadLetter, Result};
    use crate::truth::{failed, messages, output, set_commit, set_header, small};
    use crate::verdict::Property::Fencing;

    #[test]
    fn a_record_of_a_superseded_owner_is_found() {
        let mut history = small();
        set_header(output(&mut history, Result, 7), "owner", "1/worker-0-1");
        assert_eq!(failed(&history), [Fencing]);
    }

    #[test]
    fn a_term_with_two_incarnations_is_found() {
        let mut history = small();
        set_header(output(&mut history, DeadLetter, 6), "owner", "2/worker-9-9");
        assert_eq!(failed(&history), [Fencing]);
    }

    #[test]
    fn a_commit_of_a_superseded_owner_is_found() {
        let mut history = small();
        set_commit(
            &mut history,
            4,
            "\"term\":2,\"owner\":\"worker-1-1\"",
            "\"term\":1,\"owner\":\"worker-0-1\"",
        );
        assert_eq!(failed(&history), [Fencing]);
    }

    #[test]
    fn an_output_that_another_owner_committed_is_found() {
        let mut history = small();
        // The first output of term 2 bears the term before it: no order of terms is broken.
        let first = output(&mut history, Result, 4);
        set_header(first, "owner", "1/worker-0-1");
        assert_eq!(failed(&history), [Fencing]);
        let found = messages(&history);
        assert!(found.contains("was committed by 2/worker-1-1"), "{found}");
        // Of a history without the commits between, nothing can be said.
        history.commits_complete = false;
        assert_eq!(messages(&history), "");
    }

    #[test]
    fn an_output_that_names_no_owner_is_found() {
        let mut history = small();
        output(&mut history, Result, 2)
            .headers
            .retain(|(name, _)| name != "owner");
        assert_eq!(failed(&history), [Fencing]);
    }
}
