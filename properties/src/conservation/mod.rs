//! Property 1: every input record is in exactly one of a window, a dead letter, a counted duplicate.
//!
//! Three witnesses: the dead-letter topic holds each refused record once, unaltered; the counts of
//! the last revisions add up to the accepted events; the counters of every commit record agree.

mod letter;
mod pending;

use crate::case::{Case, Shown};
use crate::evidence::{Commit, Output, Pointing};
use crate::history::TopicRecord;
use crate::moment::Moment;
use crate::oracle::{Fate, LogTruth, Refusal};
use crate::spill::{Scratch, Sorted, Sorter};
use crate::verdict::Findings;
use letter::Letter;
use md5::{Digest, Md5};
use pending::Pending;
use std::fmt::Write as _;
use std::io;
use std::iter::Peekable;

/// The input record that a dead letter points to: partition and offset.
///
/// # Errors
/// When the letter cannot be read.
pub fn pointed(output: &Output) -> Result<(i32, i64), String> {
    Letter::read(output).map(|letter| letter.pointed())
}

/// Dead letters by the record that they point to.
pub type Letters = Peekable<Sorted<Pointing>>;

/// Judges one partition: its records as they are read, then its windows, then the whole.
#[derive(Debug)]
pub struct Check<'a> {
    case: &'a Case<'a>,
    /// How many dead letters point to each record; 255 means that or more.
    copies: Vec<u8>,
    pending: Sorter<Pending>,
    events_expected: i64,
    events_found: i64,
    results: ResultsDue,
}

impl<'a> Check<'a> {
    /// Begins.
    #[must_use]
    pub fn new(case: &'a Case<'a>, scratch: &Scratch) -> Self {
        Self {
            case,
            copies: Vec::new(),
            pending: Sorter::new(scratch),
            events_expected: 0,
            events_found: 0,
            results: ResultsDue::at(case.commits.iter().map(|commit| commit.moment())),
        }
    }

    /// The next record of the log, and what it is by itself: its dead letters hold it as it is.
    ///
    /// # Errors
    /// When scratch space cannot be used.
    pub fn record(
        &mut self,
        record: &TopicRecord,
        read: Result<(), Refusal>,
        letters: &mut Letters,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let here = (self.case.partition, record.offset);
        pointing_nowhere(here, letters, findings)?;
        let mut copies = 0_u8;
        while let Some(pointing) = next_before((here.0, here.1.saturating_add(1)), letters)? {
            copies = copies.saturating_add(1);
            self.letter(&pointing.letter, record, read, findings)?;
        }
        self.copies.push(copies);
        Ok(())
    }

    /// A letter that points to a valid event says rightly that it was too late, or is wrong: that
    /// is known when all of the log is.
    fn letter(
        &mut self,
        output: &Output,
        record: &TopicRecord,
        read: Result<(), Refusal>,
        findings: &mut Findings,
    ) -> io::Result<()> {
        let facts = self.case.facts;
        let judged = Letter::read(output).and_then(|letter| {
            letter.belongs(&facts.input_topic, output)?;
            let refusal = read.err().unwrap_or(Refusal::TooLate);
            Ok(letter.holds(refusal, record, output, facts))
        });
        match (judged, read) {
            (Err(why), _) | (Ok(Err(why)), Err(_)) => {
                findings.add(|| format!("{}: {why}", output.place()));
                Ok(())
            }
            (Ok(Ok(())), Err(_)) => Ok(()),
            (Ok(judged), Ok(())) => self.pending.push(Pending {
                offset: record.offset,
                place: output.place(),
                judged,
            }),
        }
    }

    /// A window: the counts of last revisions add up to the events of the windows that fired.
    pub fn window(&mut self, window: &Shown<'_>) {
        if let Some(truth) = window.truth {
            for revision in &truth.revisions {
                self.results.count(revision.moment);
            }
            if let Some(horizon) = self.case.horizon {
                let last = truth.revisions_until(horizon).last();
                self.events_expected += last.map_or(0, |revision| revision.content.count);
            }
        }
        let counts = window
            .shown
            .iter()
            .map(|output| (output.revision, output.count()));
        let last = counts.chain([(-1, 0)]).max();
        self.events_found += last.map_or(0, |(_, count)| count);
    }

    /// Everything has been seen.
    ///
    /// # Errors
    /// When scratch space cannot be read.
    pub fn finish(mut self, log: &LogTruth, findings: &mut Findings) -> io::Result<()> {
        let pending = std::mem::replace(&mut self.pending, Sorter::new(&Scratch::memory()));
        for pending in pending.sorted()? {
            pending?.settle(log, findings);
        }
        self.refused_records(log, findings);
        self.accepted_records(findings);
        for commit in &self.case.commits {
            let results = self.results.until(commit.moment());
            counters(log, commit, results, findings);
        }
        Ok(())
    }

    /// Every refused record has exactly one dead letter.
    fn refused_records(&self, log: &LogTruth, findings: &mut Findings) {
        let Some(horizon) = self.case.horizon else {
            return;
        };
        let done = log
            .fates()
            .take_while(|(offset, _)| *offset < horizon.position());
        for ((offset, fate), found) in done.zip(&self.copies) {
            let expected = u8::from(matches!(fate, Fate::Refused(_)));
            findings.require(*found == expected, || {
                format!(
                    "input partition {} offset {offset} is {fate}: expected {expected} dead \
                     letters that point to it, found {found}",
                    self.case.partition
                )
            });
        }
    }

    fn accepted_records(&self, findings: &mut Findings) {
        let (found, expected) = (self.events_found, self.events_expected);
        let is_judged = self.case.horizon.is_some();
        findings.require(!is_judged || found == expected, || {
            format!(
                "input partition {}: the last revisions of its windows hold {found} events, \
                 expected {expected} accepted events in windows that fired",
                self.case.partition
            )
        });
    }
}

/// The next letter that points to what lies before `place`.
fn next_before(place: (i32, i64), letters: &mut Letters) -> io::Result<Option<Pointing>> {
    let is_before = |pointing: &io::Result<Pointing>| {
        pointing.as_ref().map_or(true, |pointing| {
            (pointing.partition, pointing.offset) < place
        })
    };
    letters.next_if(is_before).transpose()
}

/// Complains about the letters that point to what lies before `place`: there is no record.
///
/// # Errors
/// When scratch space cannot be read.
pub fn pointing_nowhere(
    place: (i32, i64),
    letters: &mut Letters,
    findings: &mut Findings,
) -> io::Result<()> {
    while let Some(pointing) = next_before(place, letters)? {
        findings.add(|| {
            format!(
                "{}: points to input partition {} offset {}, where there is no record",
                pointing.letter.place(),
                pointing.partition,
                pointing.offset
            )
        });
    }
    Ok(())
}

/// How many results are due at each of some moments.
#[derive(Debug)]
struct ResultsDue {
    moments: Vec<Moment>,
    /// Of each moment those that are due at it and not at the one before.
    due: Vec<u64>,
}

impl ResultsDue {
    fn at(moments: impl Iterator<Item = Moment>) -> Self {
        let mut moments: Vec<Moment> = moments.collect();
        moments.sort_unstable();
        moments.dedup();
        Self {
            due: vec![0; moments.len()],
            moments,
        }
    }

    fn count(&mut self, result: Moment) {
        let first = self.moments.partition_point(|moment| *moment < result);
        if let Some(due) = self.due.get_mut(first) {
            *due += 1;
        }
    }

    fn until(&self, moment: Moment) -> u64 {
        let until = self.moments.partition_point(|known| *known <= moment);
        self.due[..until].iter().sum()
    }
}

/// The counters of a commit record.
fn counters(log: &LogTruth, commit: &Commit, results: u64, findings: &mut Findings) {
    let expected = log.counted_below(commit.offset);
    let pairs = [
        ("records", commit.records, expected.records()),
        ("accepted", commit.accepted, expected.accepted),
        ("duplicates", commit.duplicates, expected.duplicates),
        ("dead letters", commit.dead_letters, expected.refused),
        ("results", commit.results, results),
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
