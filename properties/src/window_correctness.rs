//! Property 3: the revisions of every window are what the oracle computes, its event set included.
//! No window is missing, none invented, and each correction names the values that it replaces.

use crate::case::{Case, Shown};
use crate::conservation::md5_hex;
use crate::evidence::{Kind, Output, Row};
use crate::moment::Moment;
use crate::oracle::{Content, WindowTruth};
use crate::verdict::Findings;
use std::rc::Rc;

/// Fields of a result in their order.
const FIELDS: [&str; 15] = [
    "ticker",
    "company_name",
    "sector",
    "window_start",
    "window_end",
    "count",
    "avg_price",
    "min_price",
    "max_price",
    "total_volume",
    "open_price",
    "close_price",
    "vwap",
    "revision",
    "previous",
];

/// Fields that a correction repeats of what it replaces, in their order.
const REPLACED: [&str; 9] = [
    "count",
    "avg_price",
    "min_price",
    "max_price",
    "total_volume",
    "open_price",
    "close_price",
    "vwap",
    "revision",
];

/// Judges one window.
pub fn window(case: &Case<'_>, window: &Shown<'_>, findings: &mut Findings) {
    match window.truth {
        Some(truth) => {
            window_revisions(truth, window.shown, findings);
            if let Some(horizon) = case.horizon {
                complete(case.partition, truth, horizon, window.shown, findings);
            }
        }
        None => findings.add(|| {
            format!(
                "{}: the log has no accepted event of this window",
                window.shown[0].place()
            )
        }),
    }
}

/// Judges a result by itself: its value names a window.
pub fn result_is_readable(output: &Output, findings: &mut Findings) {
    if let (Kind::Result, Err(why)) = (output.kind, &output.window) {
        findings.add(|| format!("{}: {why}", output.place()));
    }
}

/// Revisions 0..n, each right, each with what it replaces.
fn window_revisions(window: &WindowTruth, revisions: &[Rc<Output>], findings: &mut Findings) {
    let mut replaced = None;
    for (expected, output) in (0_i64..).zip(revisions) {
        if output.revision != expected {
            findings.add(|| format!("{}: expected revision {expected}", output.place()));
            return;
        }
        let row = match output.text().and_then(Row::read) {
            Ok(row) => row,
            Err(why) => {
                findings.add(|| format!("{}: {why}", output.place()));
                return;
            }
        };
        if let Err(why) = result(window, output, &row, replaced.as_ref()) {
            findings.add(|| format!("{}: {why}", output.place()));
        }
        due(window, output, findings);
        replaced = Some(row);
    }
}

/// It was emitted with what makes it due: not earlier, and not later.
fn due(window: &WindowTruth, output: &Output, findings: &mut Findings) {
    let revision = usize::try_from(output.revision)
        .ok()
        .and_then(|number| window.revisions.get(number));
    match revision {
        Some(revision) => findings.require(output.moment == revision.moment, || {
            format!(
                "{}: its cause is {}, but {} makes it due",
                output.place(),
                output.moment,
                revision.moment
            )
        }),
        None => findings.add(|| {
            format!(
                "{}: nothing makes this revision due; the window has {}",
                output.place(),
                window.revisions.len()
            )
        }),
    }
}

/// One result: envelope, fields and what it replaces.
fn result(
    window: &WindowTruth,
    output: &Output,
    row: &Row<'_>,
    replaced: Option<&Row<'_>>,
) -> Result<(), String> {
    let content = window
        .content_at(output.moment)
        .ok_or("there is no event of this window at or before its cause")?;
    envelope(window, output, &content)?;
    let names: Vec<&str> = row.fields.iter().map(|(name, _)| name.as_str()).collect();
    if names != FIELDS {
        return Err(format!("its fields are {names:?}, expected {FIELDS:?}"));
    }
    text_field(row, "company_name", &window.company)?;
    text_field(row, "sector", &window.sector)?;
    exact_field(row, "window_end", &window.end_ms.to_string())?;
    for (name, expected) in &content.fields {
        exact_field(row, name, expected)?;
    }
    exact_field(row, "revision", &output.revision.to_string())?;
    exact_field(row, "previous", &previous_text(replaced))
}

fn envelope(window: &WindowTruth, output: &Output, content: &Content) -> Result<(), String> {
    if output.event_set_hash != content.event_set_hash {
        return Err(format!(
            "header `event-set-hash` is {}, expected {}",
            output.event_set_hash, content.event_set_hash
        ));
    }
    if output.key.as_deref() != Some(window.ticker.as_bytes()) {
        return Err("its key is not its ticker".to_owned());
    }
    let correlation_id = md5_hex(&format!(
        "{}_{}",
        window.ticker,
        window.start_ms.div_euclid(1000)
    ));
    if output.correlation_id != correlation_id {
        return Err(format!(
            "header `correlation-id` is {}, expected {correlation_id}",
            output.correlation_id
        ));
    }
    if output.timestamp_ms != window.end_ms - 1 {
        return Err(format!(
            "its Kafka timestamp is {}, expected the window's last millisecond, {}",
            output.timestamp_ms,
            window.end_ms - 1
        ));
    }
    Ok(())
}

fn exact_field(row: &Row<'_>, name: &str, expected: &str) -> Result<(), String> {
    let found = row.field(name).unwrap_or("missing");
    if found == expected {
        Ok(())
    } else {
        Err(format!("field `{name}` is {found}, expected {expected}"))
    }
}

fn text_field(row: &Row<'_>, name: &str, expected: &str) -> Result<(), String> {
    let found = row.field(name).unwrap_or("missing");
    match serde_json::from_str::<String>(found) {
        Ok(text) if text == expected => Ok(()),
        _ => Err(format!("field `{name}` is {found}, expected {expected:?}")),
    }
}

/// What `previous` must be: the values of the revision before, as they were published.
fn previous_text(replaced: Option<&Row<'_>>) -> String {
    let Some(row) = replaced else {
        return "null".to_owned();
    };
    let fields: Vec<String> = REPLACED
        .iter()
        .map(|name| format!("\"{name}\":{}", row.field(name).unwrap_or("missing")))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// Every revision that must have been emitted is there, and the last one holds all events.
fn complete(
    partition: i32,
    truth: &WindowTruth,
    horizon: Moment,
    shown: &[Rc<Output>],
    findings: &mut Findings,
) {
    let expected = truth.revisions_until(horizon);
    findings.require(shown.len() == expected.len(), || {
        format!(
            "source partition {partition}, window {}@{}: expected {} revisions, found {}",
            truth.ticker,
            truth.start_ms,
            expected.len(),
            shown.len()
        )
    });
    let (Some(last), Some(expected)) = (shown.last(), expected.last()) else {
        return;
    };
    findings.require(
        last.event_set_hash == expected.content.event_set_hash,
        || {
            format!(
                "{}: the last revision holds {} events, expected {} (event sets {} and {})",
                last.place(),
                last.count(),
                expected.content.count,
                last.event_set_hash,
                expected.content.event_set_hash
            )
        },
    );
}

#[cfg(test)]
mod tests {
    use crate::evidence::Kind::Result;
    use crate::history::History;
    use crate::truth::{Story, T0, failed, messages, output, remove, set_header, set_value, small};
    use crate::verdict::Property::*;

    #[test]
    fn a_value_that_is_off_by_one_unit_is_found() {
        for (from, to) in [
            ("\"avg_price\":100.875,", "\"avg_price\":100.87500001,"),
            ("\"min_price\":100.5,", "\"min_price\":100.50,"),
            ("\"max_price\":101.25,", "\"max_price\":101,"),
            ("\"open_price\":100.5,", "\"open_price\":101.25,"),
            ("\"close_price\":101.25,", "\"close_price\":100.5,"),
            ("\"total_volume\":30,", "\"total_volume\":31,"),
            ("\"vwap\":101,", "\"vwap\":null,"),
            ("\"sector\":\"Technology\"", "\"sector\":\"Retail\""),
            ("\"previous\":null", "\"previous\":{}"),
        ] {
            let mut history = small();
            set_value(output(&mut history, Result, 3), from, to);
            assert_eq!(failed(&history), [WindowCorrectness], "{from} -> {to}");
        }
    }

    #[test]
    fn a_correction_that_names_other_values_than_it_replaces_is_found() {
        let mut history = small();
        let second = output(&mut history, Result, 4);
        set_value(
            second,
            "\"previous\":{\"count\":2,",
            "\"previous\":{\"count\":1,",
        );
        assert_eq!(failed(&history), [WindowCorrectness]);
    }

    #[test]
    fn a_shifted_window_is_found() {
        let mut history = small();
        let first = output(&mut history, Result, 2);
        set_value(
            first,
            "\"window_start\":1699999980000",
            "\"window_start\":1699999920000",
        );
        assert_eq!(failed(&history), [WindowCorrectness, Causality, Liveness]);
    }

    #[test]
    fn a_wrong_event_set_is_found() {
        let mut history = small();
        set_header(
            output(&mut history, Result, 3),
            "event-set-hash",
            &"0".repeat(32),
        );
        assert_eq!(failed(&history), [WindowCorrectness, Causality]);
    }

    #[test]
    fn a_missing_last_revision_is_found() {
        let mut history = small();
        remove(&mut history, Result, 5);
        assert_eq!(
            failed(&history),
            [Conservation, ExactlyOnceOut, WindowCorrectness]
        );
    }

    #[test]
    fn a_revision_that_comes_later_than_what_makes_it_due_is_found() {
        let mut history = small();
        // The tombstone at 20 and the record at 19 caused outputs 5 and 6: as if the correction of
        // 19 had been held back.
        let moved = |history: &mut History| {
            let late = output(history, Result, 5);
            set_header(late, "cause-offset", "20");
        };
        moved(&mut history);
        let found = messages(&history);
        assert!(found.contains("but record 19 makes it due"), "{found}");
        assert!(failed(&history).contains(&WindowCorrectness), "{found}");
    }

    #[test]
    fn a_first_result_that_only_a_later_record_shows_is_found() {
        let told = |cause: &str, watermark: i64| {
            let mut story = Story::new();
            let rest = r#""price":100,"volume":1"#;
            story.event((0, 0), 1, 1, "AMZN", rest);
            story.event((0, 1), 66, 66, "AAPL", rest);
            story.event((0, 2), 67, 67, "AAPL", rest);
            story.commit(0, 3);
            story.force(0, 3, T0 + 200_000);
            let mut history = story.finish();
            let first = output(&mut history, Result, 0);
            set_header(first, "cause-offset", cause);
            set_header(first, "watermark", &(T0 + watermark * 1000).to_string());
            history
        };
        assert_eq!(messages(&told("1", 61)), "");
        // All of it is as if record 2 had closed the window; only the moment is wrong.
        let late = told("2", 62);
        assert_eq!(failed(&late), [WindowCorrectness]);
        assert!(messages(&late).contains("but record 1 makes it due"));
    }

    #[test]
    fn a_window_that_nobody_traded_in_is_found() {
        let mut history = small();
        let mut invented = output(&mut history, Result, 9).clone();
        set_value(
            &mut invented,
            "\"window_start\":1700000100000",
            "\"window_start\":1700000160000",
        );
        set_header(&mut invented, "sequence", "10");
        invented.offset = 1_000;
        history.outputs.push(invented);
        assert_eq!(
            failed(&history),
            [
                Conservation,
                ExactlyOnceOut,
                WindowCorrectness,
                Causality,
                Order
            ]
        );
    }
}
