//! Whether a run took the path that its scenario is about: a proof that the hard part happened.

use crate::runner::RunRecord;
use crate::scenario::Expectation;
use properties::history::TopicRecord;
use serde_json::Value;

/// What of the expectations is missing; empty when all is as told.
#[must_use]
pub fn missing(expect: &[Expectation], record: &RunRecord) -> Vec<String> {
    let unsent = (record.unsent > 0)
        .then(|| format!("the producer could not hand over {} records", record.unsent));
    let expected = expect
        .iter()
        .filter_map(|expectation| missing_one(expectation, record));
    expected.chain(unsent).collect()
}

fn missing_one(expectation: &Expectation, record: &RunRecord) -> Option<String> {
    match expectation {
        Expectation::Recoveries { at_least } => {
            bounds("recoveries", record.recoveries, *at_least, None)
        }
        Expectation::Fault { name, at_least } => {
            let hits = record.fault_hits.get(name).copied().unwrap_or(0);
            bounds(&format!("hits of {name}"), hits, *at_least, None)
        }
        Expectation::Faults { at_least } => {
            let hits = record.fault_hits.values().sum();
            bounds("faults that hit", hits, *at_least, None)
        }
        Expectation::Mark { name, at_least } => {
            let times = record.marks.get(name.as_str()).copied();
            bounds(&format!("mark {name}"), times.unwrap_or(0), *at_least, None)
        }
        Expectation::Records { at_least } => {
            bounds("records", record.input_records, *at_least, None)
        }
        Expectation::Corrections {
            name,
            window_start,
            at_least,
        } => {
            let found = results(record)
                .filter(|result| {
                    name.as_ref()
                        .is_none_or(|name| result["ticker"] == name.as_str())
                })
                .filter(|result| window_start.is_none_or(|start| starts_at(result, start)))
                .filter(|result| {
                    result["revision"]
                        .as_u64()
                        .is_some_and(|revision| revision > 0)
                })
                .count() as u64;
            let of = name.as_deref().unwrap_or("all tickers");
            bounds(&format!("corrections of {of}"), found, *at_least, None)
        }
        Expectation::DeadLetters {
            name,
            at_least,
            at_most,
        } => {
            let found = dead_letters(record)
                .filter(|letter| {
                    name.as_ref()
                        .is_none_or(|name| letter["error_type"] == name.as_str())
                })
                .count() as u64;
            let of = name.as_deref().unwrap_or("any type");
            bounds(&format!("dead letters of {of}"), found, *at_least, *at_most)
        }
        Expectation::Window {
            name,
            window_start,
            count,
            open_price,
            close_price,
        } => {
            let Some(last) = last_revision(record, name, *window_start) else {
                return Some(format!("window {name} {window_start}: no result"));
            };
            let price_differs = |field: &str, expected: &Option<String>| {
                let found = last[field].to_string();
                let expected = expected.as_ref().filter(|expected| **expected != found)?;
                Some(format!(
                    "window {name} {window_start}: {field} {found}, expected {expected}"
                ))
            };
            let found = last["count"].as_u64().unwrap_or(0);
            bounds(
                &format!("events in window {name} {window_start}"),
                found,
                *count,
                Some(*count),
            )
            .or_else(|| price_differs("open_price", open_price))
            .or_else(|| price_differs("close_price", close_price))
        }
    }
}

fn bounds(what: &str, found: u64, at_least: u64, at_most: Option<u64>) -> Option<String> {
    if found < at_least {
        return Some(format!("{what}: {found}, expected at least {at_least}"));
    }
    let at_most = at_most.filter(|at_most| found > *at_most)?;
    Some(format!("{what}: {found}, expected at most {at_most}"))
}

fn starts_at(result: &Value, start: i64) -> bool {
    result["window_start"].as_i64() == Some(start * 1_000)
}

fn last_revision(record: &RunRecord, ticker: &str, start: i64) -> Option<Value> {
    results(record)
        .filter(|result| result["ticker"] == ticker && starts_at(result, start))
        .max_by_key(|result| result["revision"].as_u64())
}

fn results(record: &RunRecord) -> impl Iterator<Item = Value> {
    record.history.outputs.iter().filter_map(json)
}

fn dead_letters(record: &RunRecord) -> impl Iterator<Item = Value> {
    record.history.dead_letters.iter().filter_map(json)
}

/// What is no JSON here is the affair of the properties.
fn json(record: &TopicRecord) -> Option<Value> {
    serde_json::from_slice(record.value.as_ref()?).ok()
}

#[cfg(test)]
mod tests {
    use super::{bounds, missing};
    use crate::runner::RunRecord;
    use crate::scenario::Expectation;
    use bytes::Bytes;
    use properties::history::{History, Rules, TopicRecord};
    use std::collections::BTreeMap;

    fn output(value: &str) -> TopicRecord {
        TopicRecord {
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: None,
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: Vec::new(),
        }
    }

    fn record(outputs: Vec<TopicRecord>, dead_letters: Vec<TopicRecord>) -> RunRecord {
        let rules = Rules {
            tickers: BTreeMap::new(),
            window_ms: 60_000,
            max_out_of_orderness_ms: 0,
            allowed_lateness_ms: 0,
            idle_timeout_ms: 0,
            min_timestamp_ms: 0,
            max_future_skew_ms: 0,
            max_price: "1".to_owned(),
            max_volume: 1,
            identity_is_content: false,
            max_message_bytes: 1_000_000,
        };
        RunRecord {
            trace_hash: 0,
            trace: Vec::new(),
            virtual_ms: 0,
            input_records: 0,
            commits: 0,
            recoveries: 1,
            unsent: 0,
            fault_hits: BTreeMap::from([("worker-crash".to_owned(), 2)]),
            marks: BTreeMap::new(),
            history: History {
                rules,
                input_topic: "in".to_owned(),
                input_partitions: 1,
                input: Vec::new(),
                outputs,
                dead_letters,
                commits: Vec::new(),
                commits_complete: true,
                input_ends: None,
                ended_at_ms: None,
                hidden_ms_max: 0,
                clock_error_ms: 0,
                settled: true,
                stuck: Vec::new(),
                refusals: Vec::new(),
            },
        }
    }

    fn window(count: u64, open: &str) -> Expectation {
        Expectation::Window {
            name: "TEST".to_owned(),
            window_start: 1_609_459_200,
            count,
            open_price: Some(open.to_owned()),
            close_price: None,
        }
    }

    #[test]
    fn a_mark_has_to_be_reached_often_enough() {
        let mut record = record(Vec::new(), Vec::new());
        let mark = |at_least: u64| Expectation::Mark {
            name: "twin-gave-up".to_owned(),
            at_least,
        };
        assert_eq!(missing(&[mark(1)], &record).len(), 1);
        record.marks.insert("twin-gave-up".to_owned(), 2);
        assert!(missing(&[mark(2)], &record).is_empty());
        assert_eq!(missing(&[mark(3)], &record).len(), 1);
    }

    #[test]
    fn the_last_revision_of_a_window_is_what_counts() {
        let result = |revision: u64, count: u64| {
            output(&format!(
                "{{\"ticker\":\"TEST\",\"window_start\":1609459200000,\"count\":{count},\
                 \"open_price\":100.5,\"revision\":{revision}}}"
            ))
        };
        let record = record(vec![result(1, 1000), result(0, 999)], Vec::new());
        assert!(missing(&[window(1000, "100.5")], &record).is_empty());
        assert_eq!(missing(&[window(999, "100.5")], &record).len(), 1);
        assert_eq!(missing(&[window(1000, "100")], &record).len(), 1);
        let corrections = Expectation::Corrections {
            name: Some("TEST".to_owned()),
            window_start: Some(1_609_459_200),
            at_least: 1,
        };
        assert!(missing(&[corrections], &record).is_empty());
    }

    #[test]
    fn dead_letters_are_counted_by_type() {
        let record = record(Vec::new(), vec![output("{\"error_type\":\"too_late\"}")]);
        let letters = |name: &str, at_least, at_most| Expectation::DeadLetters {
            name: Some(name.to_owned()),
            at_least,
            at_most,
        };
        assert!(missing(&[letters("too_late", 1, Some(1))], &record).is_empty());
        assert_eq!(missing(&[letters("malformed", 1, None)], &record).len(), 1);
        let none = Expectation::DeadLetters {
            name: None,
            at_least: 0,
            at_most: Some(0),
        };
        assert_eq!(missing(&[none], &record).len(), 1);
    }

    #[test]
    fn bounds_hold_at_their_ends() {
        assert_eq!(bounds("x", 2, 2, Some(2)), None);
        assert!(bounds("x", 1, 2, None).is_some());
        assert!(bounds("x", 3, 0, Some(2)).is_some());
    }
}
