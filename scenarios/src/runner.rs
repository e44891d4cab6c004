//! One seed, played and judged.
//!
//! Comes in: a plan, and perhaps real input. Goes out: a [`Played`]: report, history, trace.
//! Here and nowhere else the scenarios meet the world.

use crate::grants;
use crate::input::{Input, InputError, InputLine, Lines};
use crate::scenario::Expectation;
use crate::story;
use processor::config::ProcessorConfig;
use processor::core::{Identity, WINDOW_MS};
use properties::history::{CommittedOffset, History, Rules, TopicRecord};
use properties::{Verdicts, determinism};
use reports::run::RunReport;
use sim::disk::{self, Disks};
use sim::plan::{FaultKind, Plan};
use sim::tap::{Tap, Tapped};
use sim::trace::TraceLine;
use sim::world::workload::Sending;
use sim::world::{self, PlayError, Playback};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What is known of a run before it is judged.
#[derive(Debug)]
pub struct RunRecord {
    /// Hash of everything that happened.
    pub trace_hash: u64,
    /// The trace, if it was kept.
    pub trace: Vec<TraceLine>,
    /// Virtual milliseconds from start to end.
    pub virtual_ms: u64,
    /// Records on the input topic.
    pub input_records: u64,
    /// Committed transactions.
    pub commits: u64,
    /// Recoveries of partitions.
    pub recoveries: u64,
    /// Kinds of fault that really hit, and how often.
    pub fault_hits: BTreeMap<String, u64>,
    /// Hard paths that it took, and how often.
    pub marks: BTreeMap<String, u64>,
    /// Records that the producer could not hand over before the end.
    pub unsent: u64,
    /// What a user of the topics can see.
    pub history: History,
}

/// Why a run has no verdict.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The input is wrong.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The plan or its configuration is wrong.
    #[error("{0}")]
    Plan(String),
    /// The run panicked: a broken invariant of the processor or of the world.
    #[error("the run panicked: {0}")]
    Panicked(String),
}

/// A run, judged.
#[derive(Debug)]
pub struct Played {
    /// What is to be said of it.
    pub report: RunReport,
    /// What a user of the topics can see.
    pub history: History,
    /// The trace, if it was kept.
    pub trace: Vec<TraceLine>,
}

/// Order to play a plan.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What its story must show.
    pub expect: &'a [Expectation],
    /// Real input beside the plan's workload.
    pub input: Option<&'a Input>,
    /// True: the trace is kept.
    pub trace: bool,
    /// True: it is played a second time, to see that it is the same run.
    pub twice: bool,
    /// The command that plays it again.
    pub replay: &'a str,
}

/// Plays and judges.
///
/// # Errors
/// When the run could not be played to its end.
pub fn play(order: &Order<'_>) -> Result<Played, RunError> {
    Ok(play_and_tap(&disk::in_memory(), order, None)?.0)
}

/// Plays on worker machines that have these disks, and judges.
///
/// # Errors
/// When the run could not be played to its end.
pub fn play_on(disks: &Disks, order: &Order<'_>) -> Result<Played, RunError> {
    Ok(play_and_tap(disks, order, None)?.0)
}

/// As [`play`], with all I/O of the worker processes recorded, and some of them killed.
///
/// # Errors
/// When the run could not be played to its end.
pub fn play_tapped(order: &Order<'_>, tap: &Tap) -> Result<(Played, Tapped), RunError> {
    let (played, tapped) = play_and_tap(&disk::in_memory(), order, Some(tap))?;
    Ok((played, tapped.unwrap_or_default()))
}

fn play_and_tap(
    disks: &Disks,
    order: &Order<'_>,
    tap: Option<&Tap>,
) -> Result<(Played, Option<Tapped>), RunError> {
    let (record, tapped) = play_once(disks, order, order.trace, tap)?;
    let mut verdicts = properties::judge(&record.history);
    if order.twice {
        let (again, _) = play_once(disks, order, false, tap)?;
        let hashes = (u128::from(record.trace_hash), u128::from(again.trace_hash));
        verdicts.insert(determinism::check(hashes.0, hashes.1));
    }
    Ok((judged(order, record, verdicts), tapped))
}

fn judged(order: &Order<'_>, record: RunRecord, verdicts: Verdicts) -> Played {
    let report = RunReport {
        scenario: order.plan.scenario.clone(),
        seed: order.plan.seed,
        trace_hash: record.trace_hash,
        virtual_ms: record.virtual_ms,
        records: record.input_records,
        commits: record.commits,
        recoveries: record.recoveries,
        story: story::missing(order.expect, &record),
        faults: record.fault_hits,
        planned: planned(order.plan),
        marks: record.marks,
        verdicts,
        replay: order.replay.to_owned(),
    };
    Played {
        report,
        history: record.history,
        trace: record.trace,
    }
}

fn planned(plan: &Plan) -> BTreeMap<String, u64> {
    let mut planned = BTreeMap::new();
    for fault in &plan.faults {
        *planned.entry(fault.kind.name().to_owned()).or_default() += 1;
    }
    planned
}

fn play_once(
    disks: &Disks,
    order: &Order<'_>,
    trace: bool,
    tap: Option<&Tap>,
) -> Result<(RunRecord, Option<Tapped>), RunError> {
    let lines = order.input.map(Input::lines).transpose()?;
    let failure = Failure::default();
    let playback = Playback {
        plan: order.plan.clone(),
        records: lines
            .map(|lines| -> world::Records { Box::new(sendings(lines, failure.clone())) }),
        keep_trace: trace,
        disks: disks.clone(),
        tap: tap.cloned(),
        meter: None,
    };
    let mut record = world::play(playback)?;
    let tapped = record.tapped.take();
    // A line that could not be read ended the input early: then this run says nothing.
    match failure.lock().map_or(None, |mut failure| failure.take()) {
        Some(e) => Err(e.into()),
        None => Ok((recorded(order.plan, record), tapped)),
    }
}

/// The first error of an input, while it is played.
type Failure = Arc<Mutex<Option<InputError>>>;

/// The lines as the world takes them; ends at the first that cannot be read.
fn sendings(lines: Lines, failure: Failure) -> impl Iterator<Item = Sending> + Send {
    lines.map_while(move |line| match line {
        Ok(InputLine { at_ms, key, value }) => Some(Sending {
            at_ms,
            key,
            value: Some(value),
        }),
        Err(e) => {
            if let Ok(mut failure) = failure.lock() {
                failure.get_or_insert(e);
            }
            None
        }
    })
}

/// The world's record as the checkers and reports take it.
fn recorded(plan: &Plan, record: world::RunRecord) -> RunRecord {
    let rules = rules(&record.config);
    let virtual_ms = i64::try_from(record.virtual_ms).unwrap_or(i64::MAX);
    let (commits, recoveries) = (record.transactions(), record.recoveries());
    let hits = record
        .fault_hits
        .into_iter()
        .map(|(kind, hits)| (kind.to_owned(), hits));
    let marks = record.marks.into_iter();
    let marks = marks.map(|(mark, times)| (mark.to_owned(), times));
    let is_reset = plan
        .faults
        .iter()
        .any(|fault| matches!(fault.kind, FaultKind::OffsetReset { .. }));
    // What an operator committed is no work of the processor.
    let own = record.commits.into_iter();
    let own = own.filter(|commit| !is_reset || !commit.metadata.is_empty());
    let offsets = own.map(|commit| CommittedOffset {
        partition: commit.partition,
        offset: commit.offset,
        metadata: commit.metadata,
    });
    RunRecord {
        trace_hash: record.trace_hash,
        trace: record.trace,
        virtual_ms: record.virtual_ms,
        input_records: record.input.len() as u64,
        commits,
        recoveries,
        fault_hits: hits.collect(),
        marks: marks.collect(),
        unsent: record.unsent as u64,
        history: History {
            settled: plan.refusal.is_none() && grants::is_settled(plan, &rules),
            rules,
            input_topic: record.config.kafka.input_topic.clone(),
            input_partitions: record.input_partitions,
            input: topic(record.input),
            outputs: topic(record.outputs),
            dead_letters: topic(record.dead_letters),
            commits: offsets.collect(),
            commits_complete: true,
            input_ends: Some(record.input_ends),
            ended_at_ms: Some(plan.start_unix_ms.saturating_add(virtual_ms)),
            hidden_ms_max: grants::hidden_ms_max(plan),
            clock_error_ms: grants::clock_error_ms(plan),
            stuck: record.stuck,
            refusals: unexpected(plan, record.refusals),
        },
    }
}

/// Refusals that should not have come; that the plan's own did not come, if so.
fn unexpected(plan: &Plan, refusals: Vec<String>) -> Vec<String> {
    let Some(words) = &plan.refusal else {
        return refusals;
    };
    let (expected, mut others): (Vec<_>, Vec<_>) = refusals
        .into_iter()
        .partition(|refusal| refusal.contains(words.as_str()));
    if expected.is_empty() {
        others.push(format!("it should have, with the words `{words}`"));
    }
    others
}

fn topic(records: Vec<world::TopicRecord>) -> Vec<TopicRecord> {
    let as_seen = |record: world::TopicRecord| TopicRecord {
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key,
        value: record.value,
        headers: record
            .headers
            .into_iter()
            .map(|header| (header.name, header.value))
            .collect(),
    };
    records.into_iter().map(as_seen).collect()
}

/// The rules as the operator configured them.
pub(crate) fn rules(config: &ProcessorConfig) -> Rules {
    let tickers = config.reference.tickers.iter().map(|ticker| {
        (
            ticker.ticker.clone(),
            (ticker.company_name.clone(), ticker.sector.clone()),
        )
    });
    let (windows, validation) = (&config.windows, &config.validation);
    Rules {
        tickers: tickers.collect(),
        window_ms: WINDOW_MS,
        max_out_of_orderness_ms: windows.max_out_of_orderness_ms,
        allowed_lateness_ms: windows.allowed_lateness_ms,
        idle_timeout_ms: i64::try_from(windows.idle_timeout_ms).unwrap_or(i64::MAX),
        min_timestamp_ms: validation.min_timestamp_ms,
        max_future_skew_ms: validation.max_future_skew_ms,
        max_price: price(validation.max_price_units),
        max_volume: validation.max_volume,
        identity_is_content: validation.identity == Identity::Content,
        max_message_bytes: config.kafka.max_message_bytes,
    }
}

/// A price in units of 1e-8 as a decimal text.
fn price(units: i64) -> String {
    format!("{}.{:08}", units / 100_000_000, units % 100_000_000)
}

impl From<PlayError> for RunError {
    fn from(e: PlayError) -> RunError {
        match e {
            PlayError::Panicked(text) => RunError::Panicked(text),
            PlayError::Plan(_) => RunError::Plan(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Order, play, price};
    use crate::catalog;
    use properties::{Property, Verdict};
    use sim::plan::Plan;

    #[test]
    fn a_run_that_is_cut_short_shows_open_transactions_and_is_not_judged_for_them() {
        let calm = catalog::find("calm").and_then(|calm| calm.resolve(0));
        let mut plan = Plan {
            settle_ms: 1,
            ..calm.expect("resolves")
        };
        let mut stuck = 0;
        for cut in 0..100 {
            plan.active_ms = 90_000 + cut * 3;
            for stream in &mut plan.workload.streams {
                stream.until_ms = plan.active_ms;
            }
            let order = Order {
                plan: &plan,
                expect: &[],
                input: None,
                trace: false,
                twice: false,
                replay: "",
            };
            let played = play(&order).expect("it is played");
            let verdicts = &played.report.verdicts;
            assert_eq!(verdicts.failed(), [], "{:?}", verdicts);
            let liveness = verdicts.get(Property::Liveness);
            assert!(matches!(liveness, Some(Verdict::NotJudged { .. })));
            let ended_at_ms = plan.start_unix_ms + 90_001 + i64::try_from(cut * 3).unwrap_or(0);
            assert_eq!(played.history.ended_at_ms, Some(ended_at_ms));
            let partitions = plan.topology.input_partitions as usize;
            let ends = played.history.input_ends.map(|ends| ends.len());
            assert_eq!(ends, Some(partitions));
            stuck += played.history.stuck.len();
        }
        assert!(stuck > 0, "no transaction was open at any of these moments");
    }

    #[test]
    fn prices_are_exact_decimals() {
        assert_eq!(price(100_000_000_000_000_000), "1000000000.00000000");
        assert_eq!(price(1), "0.00000001");
    }
}
