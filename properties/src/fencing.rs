//! Property 8: nothing from a superseded owner is ever visible. Owners have terms; per source
//! partition a term belongs to one incarnation, and no older term follows a newer one.

use crate::Case;
use crate::evidence::Kind;
use crate::verdict::{Findings, Property};
use std::collections::BTreeMap;

/// Judges a case.
#[must_use]
pub fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::of(Property::Fencing);
    for partition in case.evidence.partitions() {
        partition_terms(case, partition, &mut findings);
        if case.history.commits_complete {
            owners(case, partition, &mut findings);
        }
    }
    for kind in [Kind::Result, Kind::DeadLetter] {
        in_the_log(case, kind, &mut findings);
    }
    findings
}

/// In the order of sequences and in the order of commits terms never fall, and each term has one
/// incarnation.
fn partition_terms(case: &Case<'_>, partition: i32, findings: &mut Findings) {
    let mut incarnations: BTreeMap<i64, &str> = BTreeMap::new();
    let mut newest_term = i64::MIN;
    for output in case.evidence.of_partition(partition) {
        let Some(owner) = &output.owner else {
            findings.add(|| format!("{}: header `owner` is missing", output.place()));
            continue;
        };
        findings.require(owner.term >= newest_term, || {
            format!(
                "{}: is of term {}, after term {newest_term}",
                output.place(),
                owner.term
            )
        });
        newest_term = newest_term.max(owner.term);
        let known = *incarnations.entry(owner.term).or_insert(&owner.incarnation);
        findings.require(known == owner.incarnation, || {
            format!(
                "{}: term {} belongs to {known}, not to {}",
                output.place(),
                owner.term,
                owner.incarnation
            )
        });
    }
    let mut newest_term = i64::MIN;
    for commit in case.evidence.commits_of(partition) {
        findings.require(commit.term >= newest_term, || {
            format!(
                "commit of partition {partition} at offset {}: is of term {}, after term {newest_term}",
                commit.offset, commit.term
            )
        });
        newest_term = newest_term.max(commit.term);
        let known = *incarnations
            .entry(commit.term)
            .or_insert(&commit.incarnation);
        findings.require(known == commit.incarnation, || {
            format!(
                "commit of partition {partition} at offset {}: term {} belongs to {known}, not to {}",
                commit.offset, commit.term, commit.incarnation
            )
        });
    }
}

/// Outputs become visible with the commit that first counts them, so they are of its owner.
fn owners(case: &Case<'_>, partition: i32, findings: &mut Findings) {
    let outputs = case.evidence.of_partition(partition);
    let mut counted = 0;
    for commit in case.evidence.commits_of(partition) {
        let from = outputs.partition_point(|output| output.sequence < counted);
        let until = outputs.partition_point(|output| output.sequence < commit.sequence);
        for output in outputs.get(from..until).unwrap_or_default() {
            // One that names nobody is complained about above.
            let Some(owner) = &output.owner else { continue };
            let (term, incarnation) = (owner.term, &owner.incarnation);
            findings.require(
                (term, incarnation) == (commit.term, &commit.incarnation),
                || {
                    format!(
                        "{}: is of {term}/{incarnation}, but was committed by {}/{} (at offset {})",
                        output.place(),
                        commit.term,
                        commit.incarnation,
                        commit.offset
                    )
                },
            );
        }
        counted = counted.max(commit.sequence);
    }
}

/// In the order of each output partition nothing of an older term follows a newer one.
fn in_the_log(case: &Case<'_>, kind: Kind, findings: &mut Findings) {
    let mut newest: BTreeMap<(i32, i32), i64> = BTreeMap::new();
    for output in case.evidence.in_log_order(kind) {
        let Some(owner) = &output.owner else {
            continue;
        };
        let place = (output.record.partition, output.source_partition);
        let term = newest.entry(place).or_insert(owner.term);
        findings.require(owner.term >= *term, || {
            format!(
                "{}: is of term {}, and stands behind term {term}",
                output.place(),
                owner.term
            )
        });
        *term = owner.term.max(*term);
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
