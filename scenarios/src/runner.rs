//! One seed, played and judged.
//!
//! Comes in: a plan, and perhaps real input. Goes out: a [`Played`]: report, history, trace.
//! Here and nowhere else the scenarios meet the world: [`in_the_world`].

use crate::input::{Input, InputError, Lines};
use crate::scenario::Expectation;
use crate::story;
use properties::history::History;
use properties::{Verdicts, determinism};
use reports::run::RunReport;
use serde::Serialize;
use sim::plan::Plan;
use std::collections::BTreeMap;
use std::panic::resume_unwind;

/// Stack of the thread of a run, bytes.
const STACK_BYTES: usize = 16 << 20;

/// What is played.
pub struct Playback {
    /// The plan.
    pub plan: Plan,
    /// Real input beside the plan's own workload.
    pub input: Option<Lines>,
    /// True: the lines of the trace are kept.
    pub trace: bool,
}

/// One line of the trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TraceLine {
    /// Virtual microseconds.
    pub at_us: u64,
    /// Machine.
    pub host: String,
    /// Kind, in kebab case.
    pub kind: &'static str,
    /// Details.
    pub text: String,
}

impl std::fmt::Display for TraceLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, micros) = (self.at_us / 1_000_000, self.at_us % 1_000_000);
        let TraceLine { host, kind, text, .. } = self;
        write!(f, "{seconds:>6}.{micros:06} {host:<12} {kind:<24} {text}")
    }
}

/// What the world tells of a run.
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
    /// No thread could be started.
    #[error("no thread for the run: {0}; use fewer --jobs")]
    NoThread(std::io::Error),
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
    let record = play_once(order, order.trace)?;
    let mut verdicts = properties::judge(&record.history);
    if order.twice {
        let again = play_once(order, false)?;
        let hashes = (u128::from(record.trace_hash), u128::from(again.trace_hash));
        verdicts.insert(determinism::check(hashes.0, hashes.1));
    }
    Ok(judged(order, record, verdicts))
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
        verdicts,
        replay: order.replay.to_owned(),
    };
    Played {
        report,
        history: record.history,
        trace: record.trace,
    }
}

fn play_once(order: &Order<'_>, trace: bool) -> Result<RunRecord, RunError> {
    let playback = Playback {
        plan: order.plan.clone(),
        input: order.input.map(Input::lines).transpose()?,
        trace,
    };
    on_a_fresh_thread(move || in_the_world(playback))
}

/// Plays in the simulated world.
fn in_the_world(playback: Playback) -> Result<RunRecord, RunError> {
    let Playback { plan, input, trace } = playback;
    drop((plan, input, trace));
    Err(RunError::Plan("the world is not joined yet".to_owned()))
}

/// One seed is one fresh operating system thread: nothing that a run leaves in its thread can reach
/// the next one. A panic of the run is its verdict.
fn on_a_fresh_thread<T: Send>(
    run: impl FnOnce() -> Result<T, RunError> + Send,
) -> Result<T, RunError> {
    std::thread::scope(|scope| {
        #[allow(
            clippy::disallowed_methods,
            reason = "the campaign is outside of the simulation"
        )]
        let thread = std::thread::Builder::new()
            .name("run".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, run)
            .map_err(RunError::NoThread)?;
        match thread.join() {
            Ok(result) => result,
            Err(payload) => {
                let text = payload
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| payload.downcast_ref::<&str>().copied());
                match text {
                    Some(text) => Err(RunError::Panicked(text.to_owned())),
                    // Not a panic with a message: not ours to interpret.
                    None => resume_unwind(payload),
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{RunError, on_a_fresh_thread};

    #[test]
    fn a_panic_of_a_run_is_an_error_of_that_run_alone() {
        let result: Result<(), RunError> = on_a_fresh_thread(|| panic!("offset {} is gone", 7));
        let text = result.expect_err("panicked").to_string();
        assert!(text.contains("offset 7 is gone"), "{text}");
    }
}
