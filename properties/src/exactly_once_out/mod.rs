//! Property 2: per source partition, the sequences of results and dead letters have no gap and no
//! repeat, and every commit record agrees with them, and with the commit records before it.

mod chain;

use crate::Case;
use crate::evidence::{Commit, Kind, Output};
use crate::moment::{Happening, Moment};
use crate::verdict::{Findings, Property};
use std::collections::BTreeMap;

/// Judges a case.
#[must_use]
pub fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::of(Property::ExactlyOnceOut);
    for complaint in &case.evidence.unreadable {
        findings.add(|| complaint.clone());
    }
    chain::check(case, &mut findings);
    for partition in case.evidence.partitions() {
        sequences(
            partition,
            case.evidence.of_partition(partition),
            &mut findings,
        );
        commits(case, partition, &mut findings);
    }
    for kind in [Kind::Result, Kind::DeadLetter] {
        rising_in_the_log(&case.evidence.in_log_order(kind), &mut findings);
    }
    findings
}

/// From 0, each number once.
fn sequences(partition: i32, outputs: &[Output<'_>], findings: &mut Findings) {
    let mut expected = 0;
    for (at, output) in outputs.iter().enumerate() {
        if output.sequence < expected {
            let before = at.checked_sub(1).map(|before| outputs[before].place());
            findings.add(|| {
                format!(
                    "{}: repeats a sequence; before it: {before:?}",
                    output.place()
                )
            });
            continue;
        }
        findings.require(output.sequence == expected, || {
            format!(
                "source partition {partition}: sequences {expected} to {} are missing",
                output.sequence - 1
            )
        });
        expected = output.sequence.saturating_add(1);
    }
}

/// Commit records name offsets and sequences that belong together.
fn commits(case: &Case<'_>, partition: i32, findings: &mut Findings) {
    let outputs = case.evidence.of_partition(partition);
    let mut before: Option<&Commit> = None;
    let mut last: Option<&Commit> = None;
    for commit in case.evidence.commits_of(partition) {
        if let Some(before) = before {
            findings.require(
                before.offset <= commit.offset && before.sequence <= commit.sequence,
                || {
                    format!(
                        "partition {partition}: the commit at offset {} with sequence {} comes \
                         after that at offset {} with sequence {}",
                        commit.offset, commit.sequence, before.offset, before.sequence
                    )
                },
            );
        }
        outputs_of_commit(commit, outputs, findings);
        before = Some(commit);
        last = Some(commit);
    }
    let committed = last.map_or(0, |commit| commit.sequence);
    let shown = i64::try_from(outputs.len()).unwrap_or(i64::MAX);
    findings.require(committed == shown, || {
        format!(
            "source partition {partition}: {shown} outputs are visible, but the last commit record \
             counts {committed}"
        )
    });
}

/// The outputs below a commit's sequence are those of what lies before its offset, and no others.
fn outputs_of_commit(commit: &Commit, outputs: &[Output<'_>], findings: &mut Findings) {
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
    let may_follow = |moment: Moment| moment.offset >= commit.offset;
    let next = outputs.partition_point(|output| output.sequence < commit.sequence);
    if let Some(newest) = next.checked_sub(1).map(|at| &outputs[at]) {
        findings.require(belongs(newest.moment), || {
            format!(
                "{}: the commit at offset {} counts it, though its cause lies behind that offset",
                newest.place(),
                commit.offset
            )
        });
    }
    if let Some(following) = outputs.get(next) {
        findings.require(may_follow(following.moment), || {
            format!(
                "{}: the commit at offset {} (sequence {}) does not count it, though its cause lies \
                 before that offset",
                following.place(),
                commit.offset,
                commit.sequence
            )
        });
    }
}

/// Inside one partition of an output topic, the sequences of a source partition rise with the offset.
fn rising_in_the_log(outputs: &[&Output<'_>], findings: &mut Findings) {
    let mut newest: BTreeMap<(i32, i32), &Output<'_>> = BTreeMap::new();
    for output in outputs {
        let place = (output.record.partition, output.source_partition);
        if let Some(before) = newest.insert(place, output) {
            findings.require(before.sequence < output.sequence, || {
                format!("{}: stands behind {}", output.place(), before.place())
            });
        }
    }
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
