//! The oracle against numbers that were worked out by hand.

use super::{Fate, Oracle, Refusal};
use crate::history::{History, Rules, TopicRecord};
use crate::moment::{Forced, Moment};
use crate::truth::{T0, small};
use bytes::Bytes;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

fn oracle_of(history: &History) -> Oracle {
    Oracle::new(history, &crate::truth::declared(history))
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

/// A log of one partition with an event of each of these seconds; all came long after them.
fn log_of(rules: &Rules, times_s: &[i64]) -> History {
    let records: Vec<_> = times_s.iter().map(|time_s| (*time_s, 1_000_000)).collect();
    log_that_came(rules, &records)
}

/// A log of one partition: of each record the second of its event and its Kafka timestamp,
/// milliseconds of the story.
fn log_that_came(rules: &Rules, records: &[(i64, i64)]) -> History {
    let mut history = small();
    history.rules = rules.clone();
    history.input = records
        .iter()
        .zip(0..)
        .map(|((time_s, came_ms), offset)| {
            let seconds = T0 / 1000 + time_s;
            let text =
                format!("{{\"ticker\":\"AAPL\",\"price\":1,\"volume\":1,\"timestamp\":{seconds}}}");
            TopicRecord {
                partition: 0,
                offset,
                timestamp_ms: T0 + came_ms,
                key: None,
                value: Some(Bytes::from(text)),
                headers: Vec::new(),
            }
        })
        .collect();
    history
}

/// The truth of such a log when the watermark is forced to a second of the story at a position.
fn forced_at(position: i64, watermark_s: i64, history: &History) -> Oracle {
    let forced = Forced {
        position,
        watermark_ms: T0 + watermark_s * 1000,
    };
    Oracle::new(history, &BTreeMap::from([(0, vec![forced])]))
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
        let oracle = forced_at(position, 120, &log_of(&rules, &[1, 2, 200]));
        assert_eq!(
            oracle.partition(0).fate(1),
            Some(fate),
            "position {position}"
        );
    }
}

#[test]
fn what_came_before_a_forced_clock_corrects_what_the_advance_fired() {
    let rules = small().rules;
    // Forced to 295 by the clock 300, far beyond the end and the lateness of the window [0, 60),
    // while a record stood unseen in the log since 3.
    let history = log_that_came(&rules, &[(1, 1_000), (2, 3_000)]);
    let oracle = forced_at(1, 295, &history);
    let truth = oracle.partition(0);
    assert_eq!(truth.fate(1), Some(Fate::Accepted));
    let window = &truth.windows[&("AAPL".to_owned(), T0)];
    let revisions: Vec<_> = window
        .revisions
        .iter()
        .map(|revision| (revision.moment, revision.content.count))
        .collect();
    let idle = Moment::idle(1, T0 + 295_000);
    assert_eq!(revisions, [(idle, 1), (Moment::record(1), 2)]);
    assert_eq!(truth.watermark_after(Moment::record(1)), T0 + 295_000);
}

#[test]
fn what_came_after_a_forced_clock_is_too_late() {
    let rules = small().rules;
    let history = log_that_came(&rules, &[(1, 1_000), (2, 301_000)]);
    let oracle = forced_at(1, 295, &history);
    let truth = oracle.partition(0);
    assert_eq!(truth.fate(1), Some(Fate::Refused(Refusal::TooLate)));
    assert_eq!(truth.lateness_horizon(1), Some(T0 + 295_000));
}

#[test]
fn a_forced_advance_makes_late_exactly_as_far_as_the_log_confirms_it() {
    let rules = small().rules;
    // Out of orderness 5 s, lateness 60 s: the window [0, 60) is gone when the horizon is 120.
    for (came_ms, fate) in [
        (124_999, Fate::Accepted),
        (125_000, Fate::Refused(Refusal::TooLate)),
    ] {
        let history = log_that_came(&rules, &[(1, 1_000), (2, came_ms)]);
        let oracle = forced_at(1, 295, &history);
        assert_eq!(oracle.partition(0).fate(1), Some(fate), "came at {came_ms}");
    }
}

#[test]
fn every_record_so_far_confirms_a_forced_advance() {
    let rules = small().rules;
    // A tombstone that came after the forced clock, behind the advance (1) or before it (2).
    for position in [1, 2] {
        let mut history = log_that_came(&rules, &[(1, 1_000), (0, 301_000), (2, 3_000)]);
        history.input[1].value = None;
        let oracle = forced_at(position, 295, &history);
        let fate = oracle.partition(0).fate(2);
        assert_eq!(
            fate,
            Some(Fate::Refused(Refusal::TooLate)),
            "position {position}"
        );
    }
}

#[test]
fn the_clock_of_the_log_alone_makes_nothing_late() {
    let rules = small().rules;
    let history = log_that_came(&rules, &[(1, 1_000), (2, 301_000)]);
    let oracle = forced_at(2, 295, &history);
    assert_eq!(oracle.partition(0).fate(1), Some(Fate::Accepted));
}

#[test]
fn an_event_behind_a_forced_advance_still_moves_the_watermark_of_the_log() {
    let mut rules = small().rules;
    rules.max_future_skew_ms = 300_000;
    // Forced to 295. The event of 250 is below that, but moves the log's own watermark to 245, and
    // with it the horizon: the window [0, 60) is gone, that of [180, 240) is not.
    let records = [(1, 1_000), (250, 3_000), (2, 3_000), (200, 3_000)];
    let oracle = forced_at(1, 295, &log_that_came(&rules, &records));
    let truth = oracle.partition(0);
    assert_eq!(truth.fate(1), Some(Fate::Accepted));
    assert_eq!(truth.fate(2), Some(Fate::Refused(Refusal::TooLate)));
    assert_eq!(truth.fate(3), Some(Fate::Accepted));
    assert_eq!(truth.lateness_horizon(3), Some(T0 + 245_000));
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
