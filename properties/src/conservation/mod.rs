//! Property 1: every input record is in exactly one of a window, a dead letter, a counted duplicate.
//!
//! Three witnesses: the dead-letter topic holds each refused record once, unaltered; the counts of
//! the last revisions add up to the accepted events; the counters of every commit record agree.

mod letter;

use crate::Case;
use crate::evidence::{Commit, Kind};
use crate::moment::Moment;
use crate::oracle::{Fate, PartitionTruth};
use crate::verdict::{Findings, Property};
use letter::Letter;
use md5::{Digest, Md5};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Judges a case.
#[must_use]
pub fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::of(Property::Conservation);
    let copies = dead_letter_copies(case, &mut findings);
    for (partition, truth) in case.oracle.partitions() {
        let Some(horizon) = case.horizon(partition) else {
            continue;
        };
        refused_records(partition, truth, horizon, &copies, &mut findings);
        accepted_records(case, partition, truth, horizon, &mut findings);
    }
    for commit in &case.evidence.commits {
        counters(
            case.oracle.partition(commit.partition),
            commit,
            &mut findings,
        );
    }
    findings
}

/// How many dead letters point to each input record; complains about those that point to no refused
/// record, or do not hold it as it was.
fn dead_letter_copies(case: &Case<'_>, findings: &mut Findings) -> BTreeMap<(i32, i64), u64> {
    let mut copies = BTreeMap::new();
    for letter in case.evidence.in_log_order(Kind::DeadLetter) {
        match Letter::read(letter) {
            Ok(content) => {
                *copies
                    .entry((content.partition, content.offset))
                    .or_default() += 1;
                if let Err(why) = content.holds(case, letter) {
                    findings.add(|| format!("{}: {why}", letter.place()));
                }
            }
            Err(why) => findings.add(|| format!("{}: {why}", letter.place())),
        }
    }
    copies
}

/// Every refused record has exactly one dead letter.
fn refused_records(
    partition: i32,
    truth: &PartitionTruth,
    horizon: Moment,
    copies: &BTreeMap<(i32, i64), u64>,
    findings: &mut Findings,
) {
    let done = truth
        .fates()
        .take_while(|(offset, _)| *offset < horizon.position());
    for (offset, fate) in done {
        let found = copies.get(&(partition, offset)).copied().unwrap_or(0);
        let expected = u64::from(matches!(fate, Fate::Refused(_)));
        findings.require(found == expected, || {
            format!(
                "input partition {partition} offset {offset} is {fate}: expected {expected} dead \
                 letters that point to it, found {found}"
            )
        });
    }
}

/// The counts of the last revisions add up to the events of the windows that fired.
fn accepted_records(
    case: &Case<'_>,
    partition: i32,
    truth: &PartitionTruth,
    horizon: Moment,
    findings: &mut Findings,
) {
    let expected: i64 = truth
        .windows
        .values()
        .filter_map(|window| window.revisions_until(horizon).last())
        .map(|revision| revision.content.count)
        .sum();
    let mut last = BTreeMap::new();
    for output in case.evidence.of_partition(partition) {
        if let Ok(row) = &output.row {
            let newest = last
                .entry((&row.ticker, row.window_start))
                .or_insert((-1, 0));
            *newest = (*newest).max((output.revision, row.count));
        }
    }
    let found: i64 = last.values().map(|(_, count)| *count).sum();
    findings.require(found == expected, || {
        format!(
            "input partition {partition}: the last revisions of its windows hold {found} events, \
             expected {expected} accepted events in windows that fired"
        )
    });
}

/// The counters of a commit record.
fn counters(truth: &PartitionTruth, commit: &Commit, findings: &mut Findings) {
    let expected = truth.counted_below(commit.offset);
    let pairs = [
        ("records", commit.records, expected.records()),
        ("accepted", commit.accepted, expected.accepted),
        ("duplicates", commit.duplicates, expected.duplicates),
        ("dead letters", commit.dead_letters, expected.refused),
        (
            "results",
            commit.results,
            truth.results_until(commit.moment()),
        ),
    ];
    for (name, found, expected) in pairs {
        findings.require(found == expected, || {
            format!(
                "commit record of partition {} at offset {}: counter of {name} is {found}, \
                 expected {expected}",
                commit.partition, commit.offset
            )
        });
    }
}

/// MD5 of a text as lower-case hex.
#[must_use]
pub fn md5_hex(text: &str) -> String {
    Md5::digest(text.as_bytes())
        .iter()
        .fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
            hex
        })
}

#[cfg(test)]
mod tests {
    use crate::evidence::Kind::{DeadLetter, Result};
    use crate::history::TopicRecord;
    use crate::truth::{failed, messages, output, remove, set_commit, set_value, small};
    use crate::verdict::Property::*;

    #[test]
    fn a_true_history_holds() {
        assert_eq!(crate::truth::messages(&small()), "");
    }

    #[test]
    fn a_missing_dead_letter_is_found() {
        let mut history = small();
        remove(&mut history, DeadLetter, 0);
        assert_eq!(failed(&history), [Conservation, ExactlyOnceOut]);
    }

    #[test]
    fn a_second_dead_letter_for_one_record_is_found() {
        let mut history = small();
        let mut again = output(&mut history, DeadLetter, 0).clone();
        again.offset = 1_000;
        history.dead_letters.push(again);
        assert_eq!(
            failed(&history),
            [Conservation, ExactlyOnceOut, Order, Fencing]
        );
    }

    #[test]
    fn altered_original_bytes_are_found() {
        let mut history = small();
        set_value(output(&mut history, DeadLetter, 0), "//4=", "//8=");
        assert_eq!(failed(&history), [Conservation]);
        let mut history = small();
        set_value(output(&mut history, DeadLetter, 1), "N/A", "n/a");
        assert_eq!(failed(&history), [Conservation]);
        let mut history = small();
        set_value(
            output(&mut history, DeadLetter, 6),
            "\"original\":null",
            "\"original\":\"\"",
        );
        assert_eq!(failed(&history), [Conservation]);
    }

    #[test]
    fn a_small_original_that_is_left_out_is_found() {
        let mut history = small();
        point(output(&mut history, DeadLetter, 0));
        assert_eq!(failed(&history), [Conservation]);
        let found = messages(&history);
        assert!(found.contains("leaves out the original"), "{found}");
        // Where messages must be smaller it is rightly left out.
        history.rules.max_message_bytes = 1_200;
        assert_eq!(messages(&history), "");
    }

    #[test]
    fn a_small_key_that_is_left_out_is_found() {
        let mut history = small();
        history.rules.max_message_bytes = 1_250;
        let letter = output(&mut history, DeadLetter, 1);
        let keyless = |letter: &mut TopicRecord| {
            set_value(letter, "\"key\":\"key\"", "\"key\":null");
            letter.key = None;
        };
        point(letter);
        keyless(letter);
        assert_eq!(failed(&history), [Conservation]);
        let found = messages(&history);
        assert!(found.contains("leaves out the key"), "{found}");
        history.rules.max_message_bytes = 1_200;
        assert_eq!(messages(&history), "");
        // A letter in full never leaves it out.
        let mut history = small();
        keyless(output(&mut history, DeadLetter, 1));
        assert_eq!(failed(&history), [Conservation]);
    }

    #[test]
    fn a_pointer_that_is_not_exactly_one_is_found() {
        for (from, to) in [
            ("\"pointer\":true", "\"pointer\":false"),
            ("\"pointer\":true", "\"pointer\":null"),
            ("\"pointer\":true", "\"pointer\":true,\"pointer\":true"),
            ("\"original\":null", "\"original\":\"\""),
        ] {
            let mut history = small();
            history.rules.max_message_bytes = 1_200;
            let letter = output(&mut history, DeadLetter, 0);
            point(letter);
            set_value(letter, from, to);
            assert_eq!(failed(&history), [Conservation], "{from} -> {to}");
        }
    }

    #[test]
    fn fields_that_are_more_or_others_or_twice_are_found() {
        for (from, to) in [
            ("\"stage\":", "\"more\":1,\"stage\":"),
            ("\"message\":\"no\",", ""),
            ("\"message\":\"no\"", "\"message\":null"),
            (
                "\"message\":\"no\"",
                "\"message\":\"yes\",\"message\":\"no\"",
            ),
            (
                "\"partition\":0,\"offset\":16",
                "\"offset\":16,\"partition\":0",
            ),
            ("\"key\":\"key\"", "\"key_base64\":\"a2V5\""),
            ("\"key\":\"key\"", "\"key\":\"key\",\"key\":\"key\""),
        ] {
            let mut history = small();
            set_value(output(&mut history, DeadLetter, 1), from, to);
            assert_eq!(failed(&history), [Conservation], "{from} -> {to}");
        }
    }

    /// Leaves the original out.
    fn point(letter: &mut TopicRecord) {
        let value = letter.value.as_deref().unwrap_or_default();
        let text = String::from_utf8(value.to_vec()).expect("letters are text");
        let from = text.find(",\"original").expect("it has one");
        let until = text.find(",\"key\"").expect("it has one");
        let left_out = format!("{},\"original\":null{}", &text[..from], &text[until..]);
        let pointer = format!("{},\"pointer\":true}}", left_out.trim_end_matches('}'));
        letter.value = Some(bytes::Bytes::from(pointer));
    }

    #[test]
    fn a_dead_letter_that_points_elsewhere_is_found() {
        let mut history = small();
        set_value(
            output(&mut history, DeadLetter, 0),
            "\"offset\":13",
            "\"offset\":12",
        );
        assert_eq!(failed(&history), [Conservation]);
        let mut history = small();
        set_value(
            output(&mut history, DeadLetter, 0),
            "\"offset\":13",
            "\"offset\":14",
        );
        assert_eq!(failed(&history), [Conservation]);
    }

    #[test]
    fn a_wrong_reason_is_found() {
        let mut history = small();
        set_value(
            output(&mut history, DeadLetter, 1),
            "wrong_type",
            "malformed",
        );
        assert_eq!(failed(&history), [Conservation]);
    }

    #[test]
    fn events_that_no_window_counts_are_found() {
        let mut history = small();
        remove(&mut history, Result, 2);
        let all = [Conservation, ExactlyOnceOut, WindowCorrectness, Liveness];
        assert_eq!(failed(&history), all);
    }

    #[test]
    fn a_commit_record_that_miscounts_is_found() {
        let mut history = small();
        set_commit(&mut history, 0, "\"n\":[3,2,1,0,0]", "\"n\":[3,3,0,0,0]");
        assert_eq!(failed(&history), [Conservation]);
    }

    #[test]
    fn a_record_called_late_that_was_not_is_found() {
        let mut history = small();
        // The revision of a late event is replaced by a dead letter that calls it too late.
        let late = history.input[7].clone();
        let mut letter = output(&mut history, DeadLetter, 7 + 1).clone();
        let revision = remove(&mut history, Result, 4);
        let shown = String::from_utf8(late.value.clone().unwrap_or_default().to_vec());
        let shown = serde_json::to_string(&shown.unwrap_or_default()).unwrap_or_default();
        letter.value = Some(bytes::Bytes::from(format!(
            "{{\"error_type\":\"too_late\",\"message\":\"\",\"stage\":\"window\",\"topic\":\"input\",\
             \"partition\":0,\"offset\":18,\"timestamp\":{},\"original\":{shown}}}",
            late.timestamp_ms
        )));
        letter.headers = revision.headers;
        letter.offset = 1_000;
        history.dead_letters.push(letter);
        let failed = failed(&history);
        assert!(
            failed.contains(&Conservation) && failed.contains(&Causality),
            "{failed:?}"
        );
    }
}
