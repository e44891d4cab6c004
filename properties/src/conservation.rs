//! Property 1: every input record is in exactly one of a window, a dead letter, a counted duplicate.
//!
//! Three witnesses: the dead-letter topic holds each refused record once, unaltered; the counts of
//! the last revisions add up to the accepted events; the counters of every commit record agree.

use crate::Case;
use crate::evidence::{Commit, Kind, Output, object_fields};
use crate::history::TopicRecord;
use crate::moment::Moment;
use crate::oracle::reading::correlation_text;
use crate::oracle::{Fate, PartitionTruth, Refusal};
use crate::verdict::{Findings, Property};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest, Md5};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A dead letter may leave the original out only when it would not fit a message. The broker's limit
/// is not known here, but no usable limit refuses less than this. Bytes of value and key.
pub const POINTER_ORIGINAL_BYTES_MIN: usize = 256;

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

/// The content of a dead letter.
struct Letter<'a> {
    fields: BTreeMap<String, &'a str>,
    partition: i32,
    offset: i64,
}

impl<'a> Letter<'a> {
    fn read(output: &Output<'a>) -> Result<Self, String> {
        let value = output.record.value.as_deref().ok_or("the value is null")?;
        let text = std::str::from_utf8(value).map_err(|_| "the value is not UTF-8".to_owned())?;
        let mut letter = Letter {
            fields: object_fields(text)?.into_iter().collect(),
            partition: 0,
            offset: 0,
        };
        letter.partition = letter.parsed("partition")?;
        letter.offset = letter.parsed("offset")?;
        Ok(letter)
    }

    fn parsed<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, String> {
        let text = self
            .fields
            .get(name)
            .ok_or_else(|| format!("field `{name}` is missing"))?;
        serde_json::from_str(text).map_err(|error| format!("field `{name}` is {text}: {error}"))
    }

    fn equal<T>(&self, name: &str, expected: T) -> Result<(), String>
    where
        T: serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let found: T = self.parsed(name)?;
        if found == expected {
            Ok(())
        } else {
            Err(format!(
                "field `{name}` is {found:?}, expected {expected:?}"
            ))
        }
    }

    /// Compares it with the record that it points to.
    fn holds(&self, case: &Case<'_>, output: &Output<'_>) -> Result<(), String> {
        let history = case.history;
        self.equal("topic", history.input_topic.clone())?;
        let (partition, offset) = (self.partition, self.offset);
        let key = |record: &TopicRecord| (record.partition, record.offset);
        let Ok(at) = history
            .input
            .binary_search_by_key(&(partition, offset), key)
        else {
            return Err(format!(
                "points to input partition {partition} offset {offset}, where there is no record"
            ));
        };
        let source = &history.input[at];
        if (output.source_partition, output.moment) != (partition, Moment::record(offset)) {
            return Err(format!(
                "points to input partition {partition} offset {offset}, but its headers name another cause"
            ));
        }
        let refusal = match case.oracle.partition(partition).fate(offset) {
            Some(Fate::Refused(refusal)) => refusal,
            Some(fate) => return Err(format!("points to a record that is {fate}, not refused")),
            None => return Err("points to no record".to_owned()),
        };
        self.describes(refusal, source, output, &history.input_topic)?;
        self.keeps(source, output)
    }

    fn describes(
        &self,
        refusal: Refusal,
        source: &TopicRecord,
        output: &Output<'_>,
        topic: &str,
    ) -> Result<(), String> {
        self.equal("error_type", refusal.name().to_owned())?;
        self.equal("stage", refusal.stage().to_owned())?;
        self.equal("timestamp", source.timestamp_ms)?;
        self.parsed::<String>("message")?;
        let text = correlation_text(source)
            .unwrap_or_else(|| format!("{topic}_{}_{}", source.partition, source.offset));
        let correlation_id = md5_hex(&text);
        self.equal("correlation_id", correlation_id.clone())?;
        if output.correlation_id != correlation_id {
            return Err(format!(
                "header `correlation-id` is {}, expected {correlation_id}",
                output.correlation_id
            ));
        }
        if output.record.timestamp_ms != source.timestamp_ms {
            return Err(format!(
                "its Kafka timestamp is {}, expected that of the record, {}",
                output.record.timestamp_ms, source.timestamp_ms
            ));
        }
        Ok(())
    }

    /// The original bytes are there, or are left out for their size.
    fn keeps(&self, source: &TopicRecord, output: &Output<'_>) -> Result<(), String> {
        let is_pointer = self.fields.contains_key("pointer");
        let size = [&source.value, &source.key]
            .iter()
            .map(|bytes| bytes.as_ref().map_or(0, |bytes| bytes.len()))
            .sum::<usize>();
        if is_pointer && size >= POINTER_ORIGINAL_BYTES_MIN {
            return Ok(());
        }
        if is_pointer {
            return Err(format!("leaves out an original of only {size} bytes"));
        }
        if output.record.key != source.key {
            return Err("its key is not that of the record it points to".to_owned());
        }
        self.keeps_bytes("original", source.value.as_deref())?;
        self.keeps_bytes("key", source.key.as_deref())
    }

    fn keeps_bytes(&self, name: &str, expected: Option<&[u8]>) -> Result<(), String> {
        let encoded_name = format!("{name}_base64");
        let found = if self.fields.contains_key(&encoded_name) {
            let encoded: String = self.parsed(&encoded_name)?;
            Some(
                BASE64
                    .decode(encoded)
                    .map_err(|error| format!("`{encoded_name}`: {error}"))?,
            )
        } else {
            self.parsed::<Option<String>>(name)?.map(String::into_bytes)
        };
        if found.as_deref() == expected {
            return Ok(());
        }
        let show = |bytes: Option<&[u8]>| match bytes {
            Some(bytes) => format!(
                "{:?}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
            ),
            None => "null".to_owned(),
        };
        Err(format!(
            "`{name}` holds {}, the record has {}",
            show(found.as_deref()),
            show(expected)
        ))
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
    use crate::truth::{failed, output, remove, set_commit, set_value, small};
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
        let letter = output(&mut history, DeadLetter, 0);
        set_value(
            letter,
            "\"original_base64\":\"//4=\"",
            "\"original\":null,\"pointer\":true",
        );
        assert_eq!(failed(&history), [Conservation]);
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
