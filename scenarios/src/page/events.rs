//! Records, watermarks and windows, as the topics and the oracle show them.

use super::timeline::SentAt;
use crate::truth;
use properties::evidence::{Evidence, Kind, Output, Row};
use properties::history::{History, TopicRecord};
use properties::moment::{Happening, Moment};
use properties::oracle::reading::Reader;
use properties::oracle::{Fate, LogTruth, Refusal, WindowTruth};
use properties::spill::Scratch;
use reports::page::run::{RecordFate, Records, Revision, Watermarks, Window};
use sim::plan::Plan;
use std::collections::{BTreeMap, BTreeSet};

/// Characters of a record's text that are kept.
const VALUE_CHARS_MAX: usize = 300;

/// What is shown below the timeline.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) records: Records,
    pub(super) watermarks: Vec<Watermarks>,
    pub(super) windows: Vec<Window>,
    /// Number of each record, by partition and offset.
    numbers: BTreeMap<(i32, i64), usize>,
    /// When outputs were sent, by source partition and sequence.
    sent: SentAt,
    tickers: Vec<String>,
}

impl Shown {
    /// When an input record came.
    pub(super) fn record_at(&self, partition: i32, offset: i64) -> Option<f64> {
        let number = self.numbers.get(&(partition, offset))?;
        self.records.at_ms.get(*number).copied()
    }

    /// When an output was sent.
    pub(super) fn sent_at(&self, source_partition: i32, sequence: i64) -> Option<f64> {
        self.sent.get(&(source_partition, sequence)).copied()
    }

    /// When the first record of a window came.
    pub(super) fn window_at(&self, window: &(i32, String, i64)) -> Option<f64> {
        let (partition, ticker, start_ms) = window;
        let found = self.windows.iter().find(|window| {
            let name = self.tickers.get(window.ticker as usize);
            window.partition == *partition && window.start_ms == *start_ms && name == Some(ticker)
        });
        let first = found?.records.first()?;
        self.records.at_ms.get(*first).copied()
    }
}

/// By (source partition, ticker, window start).
type ByWindow<T> = BTreeMap<(i32, u32, i64), T>;

pub(super) fn of(plan: &Plan, history: &History, sent: &SentAt) -> Shown {
    let mut evidence = Evidence::new(&history.commits, &Scratch::memory());
    let mut revisions: ByWindow<Vec<Revision>> = BTreeMap::new();
    let tickers: Vec<String> = history.rules.tickers.keys().cloned().collect();
    for record in &history.outputs {
        // What cannot be read is the checkers' business.
        let _ = evidence.take(Kind::Result, record);
        if let Ok(output) = Output::read(Kind::Result, record) {
            take(&mut revisions, &output, &tickers, sent);
        }
    }
    for record in &history.dead_letters {
        let _ = evidence.take(Kind::DeadLetter, record);
    }
    let mut shown = Shown {
        sent: sent.clone(),
        tickers,
        ..Shown::default()
    };
    let reader = Reader::new(&history.rules);
    let mut windows: ByWindow<Vec<usize>> = BTreeMap::new();
    for partition in 0..history.input_partitions {
        let Some((log, truths)) = truth::of(history, partition, &evidence) else {
            continue;
        };
        let commits = evidence.known.commits.iter();
        let of_partition = commits.filter(|commit| commit.partition == partition);
        let read_until = of_partition.map(|commit| commit.offset).max().unwrap_or(0);
        let corrections = corrections(&truths);
        let records = history.input.iter();
        for record in records.filter(|record| record.partition == partition) {
            let fate = match log.fate(record.offset) {
                _ if record.offset >= read_until => RecordFate::Unread,
                Some(Fate::Accepted) if corrections.contains(&record.offset) => {
                    RecordFate::Corrected
                }
                Some(Fate::Accepted) => RecordFate::Counted,
                Some(Fate::Duplicate) => RecordFate::Duplicate,
                Some(Fate::Refused(Refusal::TooLate)) => RecordFate::TooLate,
                Some(Fate::Refused(_)) | None => RecordFate::Invalid,
            };
            let event = reader.read(record).ok();
            let number = shown.records.offset.len();
            if let Some(event) = &event {
                let length_ms = history.rules.window_ms;
                let start_ms = event.time_ms.div_euclid(length_ms) * length_ms;
                let key = (partition, event.ticker, start_ms);
                windows.entry(key).or_default().push(number);
            }
            shown.numbers.insert((partition, record.offset), number);
            let event = event.map(|event| (event.time_ms, event.ticker));
            push(&mut shown.records, plan, record, event, fate);
        }
        shown.watermarks.push(watermarks(partition, &log, &shown));
    }
    shown.windows = windows
        .into_iter()
        .map(|((partition, ticker, start_ms), records)| Window {
            revisions: revisions
                .remove(&(partition, ticker, start_ms))
                .unwrap_or_default(),
            partition,
            ticker,
            start_ms,
            records,
        })
        .collect();
    shown
}

/// Offsets of the records that came after their window's first result.
fn corrections(windows: &[WindowTruth]) -> BTreeSet<i64> {
    let later = windows
        .iter()
        .flat_map(|window| window.revisions.iter().skip(1));
    later.map(|revision| revision.moment.offset).collect()
}

fn push(
    records: &mut Records,
    plan: &Plan,
    record: &TopicRecord,
    event: Option<(i64, u32)>,
    fate: RecordFate,
) {
    let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
    records.partition.push(record.partition);
    records.offset.push(record.offset);
    let at_ms = record.timestamp_ms.saturating_sub(plan.start_unix_ms);
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of a run are few")]
    records.at_ms.push(at_ms as f64);
    records.event_ms.push(event.map(|(time_ms, _)| time_ms));
    records.ticker.push(event.map(|(_, ticker)| ticker));
    records.fate.push(fate);
    records
        .value
        .push(value.chars().take(VALUE_CHARS_MAX).collect());
}

/// The watermark after each record at which it moves.
fn watermarks(partition: i32, log: &LogTruth, shown: &Shown) -> Watermarks {
    let mut line = Watermarks {
        partition,
        ..Watermarks::default()
    };
    for (offset, _) in log.fates() {
        let watermark_ms = log.watermark_after(Moment::record(offset));
        let moves = line.event_ms.last().is_none_or(|last| *last < watermark_ms);
        if let Some(at_ms) = shown.record_at(partition, offset)
            && watermark_ms > i64::MIN
            && moves
        {
            line.at_ms.push(at_ms);
            line.event_ms.push(watermark_ms);
        }
    }
    line
}

fn take(
    revisions: &mut ByWindow<Vec<Revision>>,
    output: &Output,
    tickers: &[String],
    sent: &SentAt,
) {
    let Ok(window) = &output.window else { return };
    let Ok(ticker) = tickers.binary_search(&window.ticker) else {
        return;
    };
    let Ok(ticker) = u32::try_from(ticker) else {
        return;
    };
    let key = (output.source_partition, ticker, window.start_ms);
    let cause = match output.moment.happening {
        Happening::Record => format!("record at offset {}", output.moment.offset),
        Happening::Idle(_) => "idle partition".to_owned(),
    };
    revisions.entry(key).or_default().push(Revision {
        revision: output.revision,
        at_ms: sent
            .get(&(output.source_partition, output.sequence))
            .copied(),
        offset: output.offset,
        cause,
        text: said(output),
    });
}

/// The numbers of a result.
fn said(output: &Output) -> String {
    let value = output.value.as_deref().unwrap_or_default();
    let text = String::from_utf8_lossy(value);
    let Ok(row) = Row::read(&text) else {
        return text.chars().take(VALUE_CHARS_MAX).collect();
    };
    let fields = [
        "count",
        "open_price",
        "max_price",
        "min_price",
        "close_price",
        "avg_price",
        "vwap",
        "total_volume",
    ];
    let said = fields.iter().filter_map(|name| {
        let value = row.field(name)?;
        Some(format!("{} {value}", name.trim_end_matches("_price")))
    });
    said.collect::<Vec<_>>().join(", ")
}
