//! What the oracle expects of a run, beside what its topics show.

use super::time_of_day;
use crate::truth;
use properties::evidence::{Evidence, Kind, Output, Row};
use properties::history::History;
use properties::oracle::{Content, Fate, LogTruth, WindowTruth};
use properties::spill::Scratch;
use reports::narration::Outcome;
use std::collections::BTreeMap;

/// Longest list; a run with more than this is no story.
const OUTCOMES_MAX: usize = 60;

/// By (source partition, ticker, window start): the results that are there, in words.
type Shown = BTreeMap<(i32, String, i64), Vec<String>>;

/// The oracle's view of each partition and window beside what is there; nothing if the topics cannot
/// be read.
pub(super) fn of(history: &History) -> Vec<Outcome> {
    let scratch = Scratch::memory();
    let mut evidence = Evidence::new(&history.commits, &scratch);
    let mut shown = Shown::new();
    let mut letters: BTreeMap<i32, u64> = BTreeMap::new();
    for (kind, topic) in [
        (Kind::Result, &history.outputs),
        (Kind::DeadLetter, &history.dead_letters),
    ] {
        for record in topic {
            if evidence.take(kind, record).is_err() {
                return Vec::new();
            }
            if let Ok(output) = Output::read(kind, record) {
                show(&mut shown, &output);
                let count = letters.entry(output.source_partition).or_default();
                *count += u64::from(kind == Kind::DeadLetter);
            }
        }
    }
    let mut outcomes = Vec::new();
    for partition in 0..history.input_partitions {
        if let Some((log, windows)) = truth::of(history, partition, &evidence) {
            let letters = letters.get(&partition).copied().unwrap_or(0);
            outcomes.push(progress(history, partition, &log, &evidence, letters));
            outcomes.extend(results(history, partition, &windows, &mut shown, &evidence));
        }
    }
    for ((partition, ticker, start_ms), found) in shown {
        outcomes.push(Outcome {
            of: window(partition, &ticker, start_ms),
            expected: "no such window".to_owned(),
            found: found.join(", "),
        });
    }
    outcomes.truncate(OUTCOMES_MAX);
    outcomes
}

fn show(shown: &mut Shown, output: &Output) {
    let Ok(window) = &output.window else { return };
    let value = output.value.as_deref().unwrap_or_default();
    let text = String::from_utf8_lossy(value);
    let row = Row::read(&text).ok();
    let field = |name: &str| {
        let text = row.as_ref().and_then(|row| row.field(name));
        text.unwrap_or("?").to_owned()
    };
    let said = result(output.revision, &field("count"), &field("avg_price"));
    let key = (
        output.source_partition,
        window.ticker.clone(),
        window.start_ms,
    );
    shown.entry(key).or_default().push(said);
}

fn result(revision: i64, count: &str, average: &str) -> String {
    let events = if count == "1" { "event" } else { "events" };
    format!("revision {revision} with {count} {events}, average {average}")
}

fn window(partition: i32, ticker: &str, start_ms: i64) -> String {
    format!(
        "window {ticker} {} of partition {partition}",
        time_of_day(start_ms)
    )
}

/// How far the partition was to come, and how far it came.
fn progress(
    history: &History,
    partition: i32,
    log: &LogTruth,
    evidence: &Evidence,
    letters: u64,
) -> Outcome {
    let mut commits = evidence.known.commits.iter();
    let last = commits.rfind(|commit| commit.partition == partition);
    let end = log.last_offset().map_or(0, |last| last + 1);
    let until = match last {
        Some(last) if history.settled => end.max(last.offset),
        Some(last) => last.offset,
        None if history.settled => end,
        None => 0,
    };
    let met = |wanted: fn(&Fate) -> bool| {
        let fates = log.fates().filter(|(offset, _)| *offset < until);
        fates.filter(|(_, fate)| wanted(fate)).count() as u64
    };
    let said = |offset: i64, [accepted, repeats, refused, letters]: [u64; 4]| {
        format!(
            "offset {offset}; {accepted} in windows, {repeats} repeats, {refused} refused; {letters} \
             dead letters"
        )
    };
    let refused = met(|fate| matches!(fate, Fate::Refused(_)));
    let expected = [
        met(|fate| *fate == Fate::Accepted),
        met(|fate| *fate == Fate::Duplicate),
        refused,
        refused,
    ];
    let counted = last.map_or([0; 3], |last| {
        [last.accepted, last.duplicates, last.dead_letters]
    });
    let [accepted, repeats, refused] = counted;
    let found = [accepted, repeats, refused, letters];
    Outcome {
        of: format!("partition {partition} is committed"),
        expected: said(until, expected),
        found: said(last.map_or(0, |last| last.offset), found),
    }
}

fn results(
    history: &History,
    partition: i32,
    windows: &[WindowTruth],
    shown: &mut Shown,
    evidence: &Evidence,
) -> Vec<Outcome> {
    let commits = evidence.known.commits.iter();
    let of_partition = commits.filter(|commit| commit.partition == partition);
    let until = of_partition.map(properties::evidence::Commit::moment).max();
    let each = windows.iter().map(|truth| {
        let revisions = match until {
            _ if history.settled => truth.revisions.as_slice(),
            Some(until) => truth.revisions_until(until),
            None => &[],
        };
        let expected: Vec<String> = (0..)
            .zip(revisions)
            .map(|(number, revision)| expected(number, &revision.content))
            .collect();
        let key = (partition, truth.ticker.clone(), truth.start_ms);
        let found = shown.remove(&key).unwrap_or_default();
        Outcome {
            of: window(partition, &truth.ticker, truth.start_ms),
            expected: all_of(&expected),
            found: all_of(&found),
        }
    });
    each.collect()
}

fn expected(revision: i64, content: &Content) -> String {
    let fields = content.fields.iter();
    let average = fields.clone().find(|(name, _)| *name == "avg_price");
    let average = average.map_or("?", |(_, text)| text.as_str());
    result(revision, &content.count.to_string(), average)
}

fn all_of(results: &[String]) -> String {
    match results.is_empty() {
        true => "no result".to_owned(),
        false => results.join("; "),
    }
}
