//! The oracle against numbers that were worked out by hand.

use super::{Fate, Oracle, Refusal};
use crate::history::{History, Rules, TopicRecord};
use crate::moment::{Forced, Moment};
use crate::truth::{T0, small};
use bytes::Bytes;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

fn oracle_of(history: &History) -> Oracle {
    let forced = crate::evidence::Evidence::of(history).forced_advances();
    Oracle::new(history, &forced)
}

fn fields(oracle: &Oracle, window: (&str, i64), revision: usize) -> Vec<String> {
    let window = &oracle.partition(0).windows[&(window.0.to_owned(), window.1)];
    let content = &window.revisions[revision].content;
    content
        .fields
        .iter()
        .map(|(_, text)| text.clone())
        .collect()
}

#[test]
fn every_record_of_the_small_story_meets_its_fate() {
    let history = small();
    let oracle = oracle_of(&history);
    let fates: Vec<_> = oracle.partition(0).fates().collect();
    let expected = [
        (10, Fate::Accepted),
        (11, Fate::Accepted),
        (12, Fate::Duplicate),
        (13, Fate::Refused(Refusal::Malformed)),
        (15, Fate::Accepted),
        (16, Fate::Refused(Refusal::WrongType)),
        (17, Fate::Accepted),
        (18, Fate::Accepted),
        (19, Fate::Accepted),
        (20, Fate::Refused(Refusal::Malformed)),
        (22, Fate::Accepted),
        (23, Fate::Refused(Refusal::TooLate)),
    ];
    assert_eq!(fates, expected);
}

#[test]
fn windows_hold_what_was_worked_out_by_hand() {
    let history = small();
    let oracle = oracle_of(&history);
    // 100.5 × 10 + 101.25 × 20 = 3030 over a volume of 30.
    assert_eq!(
        fields(&oracle, ("AMZN", T0), 0),
        [
            "2", "100.875", "100.5", "101.25", "30", "100.5", "101.25", "101"
        ]
    );
    // With 99.99999999 × 1: prices 301.74999999, turnover 3129.99999999.
    assert_eq!(
        fields(&oracle, ("AMZN", T0), 1),
        [
            "3",
            "100.58333333",
            "99.99999999",
            "101.25",
            "31",
            "100.5",
            "99.99999999",
            "100.96774194"
        ]
    );
    // With 100 × 1, which happened before the event of the first correction: the close stays.
    assert_eq!(
        fields(&oracle, ("AMZN", T0), 2),
        [
            "4",
            "100.4375",
            "99.99999999",
            "101.25",
            "32",
            "100.5",
            "99.99999999",
            "100.9375"
        ]
    );
    assert_eq!(
        fields(&oracle, ("AAPL", T0), 0),
        ["1", "50", "50", "50", "0", "50", "50", "null"]
    );
    let window = &oracle.partition(0).windows[&("AMZN".to_owned(), T0)];
    let set = xxh3_128(b"id:a").wrapping_add(xxh3_128(b"at:0:15"));
    assert_eq!(
        window.revisions[0].content.event_set_hash,
        format!("{set:032x}")
    );
}

#[test]
fn windows_fire_when_the_watermark_reaches_their_end() {
    let history = small();
    let oracle = oracle_of(&history);
    let moments = |ticker: &str, start: i64| -> Vec<Moment> {
        let window = &oracle.partition(0).windows[&(ticker.to_owned(), start)];
        window
            .revisions
            .iter()
            .map(|revision| revision.moment)
            .collect()
    };
    let record = Moment::record;
    assert_eq!(moments("AMZN", T0), [record(17), record(18), record(19)]);
    assert_eq!(moments("AAPL", T0), [record(17)]);
    assert_eq!(moments("AMZN", T0 + 60_000), [record(22)]);
    assert_eq!(
        moments("AMZN", T0 + 120_000),
        [Moment::idle(24, T0 + 295_000)]
    );
}

/// A log of one partition: (second of the event, offset).
fn log_of(rules: &Rules, times_s: &[i64]) -> History {
    let mut history = small();
    history.rules = rules.clone();
    history.input = times_s
        .iter()
        .zip(0..)
        .map(|(time_s, offset)| {
            let seconds = T0 / 1000 + time_s;
            let text =
                format!("{{\"ticker\":\"AAPL\",\"price\":1,\"volume\":1,\"timestamp\":{seconds}}}");
            TopicRecord {
                partition: 0,
                offset,
                timestamp_ms: T0 + 1_000_000,
                key: None,
                value: Some(Bytes::from(text)),
                headers: Vec::new(),
            }
        })
        .collect();
    history
}

#[test]
fn lateness_ends_exactly_at_the_horizon() {
    let rules = small().rules;
    // Out of orderness 5 s, lateness 60 s: the window [0, 60) is gone when the watermark is 120.
    for (newest_s, fate) in [
        (124, Fate::Accepted),
        (125, Fate::Refused(Refusal::TooLate)),
    ] {
        let oracle = Oracle::new(&log_of(&rules, &[newest_s, 59]), &BTreeMap::new());
        assert_eq!(oracle.partition(0).fate(1), Some(fate), "newest {newest_s}");
    }
}

#[test]
fn a_forced_advance_counts_from_its_position_on() {
    let rules = small().rules;
    for (position, fate) in [(1, Fate::Refused(Refusal::TooLate)), (2, Fate::Accepted)] {
        let forced = Forced {
            position,
            watermark_ms: T0 + 120_000,
        };
        let forced = BTreeMap::from([(0, vec![forced])]);
        let oracle = Oracle::new(&log_of(&rules, &[1, 2, 200]), &forced);
        assert_eq!(
            oracle.partition(0).fate(1),
            Some(fate),
            "position {position}"
        );
    }
}

#[test]
fn a_late_event_into_a_window_that_never_fired_fires_it_at_once() {
    let rules = small().rules;
    let oracle = Oracle::new(&log_of(&rules, &[66, 1, 2]), &BTreeMap::new());
    let window = &oracle.partition(0).windows[&("AAPL".to_owned(), T0)];
    let moments: Vec<_> = window
        .revisions
        .iter()
        .map(|revision| revision.moment)
        .collect();
    assert_eq!(moments, [Moment::record(1), Moment::record(2)]);
}
