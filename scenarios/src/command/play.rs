//! `tickproof play`.

use super::{Chosen, EXIT_FAILED, PlayArguments, choose, print, print_json, tell};
use crate::bars::{self, Comparison, Volumes};
use crate::generator;
use crate::input::{Input, Summary};
use crate::narration::narrate;
use crate::out_files;
use crate::page;
use crate::runner::{self, Order, Played, RunError};
use crate::scenario::Expectation;
use reports::quantity::grouped;
use reports::run::RunReport;
use serde::Serialize;
use sim::plan::{Fault, Plan, Workload};
use std::path::Path;
use std::process::ExitCode;
use toml::Value;

/// Virtual time between the last line of an input and the end of the active time.
const TAIL_MS: u64 = 10_000;
/// Shortest commit interval over hours of real input.
const COMMIT_INTERVAL_MS_MIN: i64 = 1_000;

#[derive(Serialize)]
struct Output<'a> {
    #[serde(flatten)]
    report: &'a RunReport,
    events_in_windows: u64,
    results: usize,
    dead_letters: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    bars: Option<&'a Comparison>,
}

/// What to play, and what its story must show.
struct Prepared {
    plan: Plan,
    expect: Vec<Expectation>,
    /// Faults are spread over the whole input.
    is_storm: bool,
}

pub(super) fn play(arguments: &PlayArguments, json: bool) -> anyhow::Result<ExitCode> {
    let mut prepared = prepare(arguments)?;
    let bars = arguments.bars.as_deref().map(bars::read).transpose()?;
    let input = arguments.input.as_deref().map(Input::open).transpose()?;
    if let Some(input) = &input {
        lay_over(&mut prepared, input.summary());
        note(input.summary());
    }
    prepared.plan.check()?;
    let report_folder = arguments
        .report
        .folder()
        .filter(|_| has_report(input.as_ref()));
    let order = Order {
        plan: &prepared.plan,
        expect: &prepared.expect,
        input: input.as_ref(),
        trace: arguments.trace
            || arguments.story
            || arguments.out.is_some()
            || report_folder.is_some(),
        twice: !arguments.once,
        replay: &replay(arguments, prepared.plan.seed),
    };
    let played = match runner::play(&order) {
        Ok(played) => played,
        Err(RunError::Panicked(message)) => {
            eprintln!(
                "the run panicked: {message}\nplay it again: {}",
                order.replay
            );
            return Ok(ExitCode::from(EXIT_FAILED));
        }
        Err(e) => return Err(e.into()),
    };
    if let Some(folder) = &arguments.out {
        out_files::write(folder, &played)?;
    }
    if arguments.story && !json {
        print(&format!("{}\n", narrate(&prepared.plan, &played).text()))?;
    }
    report(arguments, &played, bars.as_ref(), json)?;
    if let Some(folder) = report_folder {
        let path = page::write_run(folder, &prepared.plan, &played)?;
        tell(&path, json)?;
    }
    Ok(if played.report.held() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}

/// A report with more records would help nobody, and its trace fill the memory.
fn has_report(input: Option<&Input>) -> bool {
    let lines = input.map_or(0, |input| input.summary().lines);
    if lines > page::RECORDS_MAX {
        eprintln!(
            "note: no report for more than {} records",
            grouped(page::RECORDS_MAX)
        );
    }
    lines <= page::RECORDS_MAX
}

fn prepare(arguments: &PlayArguments) -> anyhow::Result<Prepared> {
    Ok(match choose(&arguments.scenario)? {
        Chosen::Scenario(scenario) => Prepared {
            plan: scenario.resolve(arguments.seed.unwrap_or(0))?,
            is_storm: scenario.is_storm(),
            expect: scenario.expect,
        },
        Chosen::File(mut plan) => {
            plan.seed = arguments.seed.unwrap_or(plan.seed);
            Prepared {
                plan: *plan,
                is_storm: false,
                expect: Vec::new(),
            }
        }
    })
}

/// Puts real input into the place of the plan's own workload: its clock and its length are the
/// input's; a storm's faults are drawn anew over the whole of it.
fn lay_over(prepared: &mut Prepared, summary: Summary) {
    let plan = &mut prepared.plan;
    // The story is told by the scenario's own records.
    prepared.expect.clear();
    plan.workload = Workload::default();
    plan.start_unix_ms = summary.start_unix_ms;
    plan.active_ms = summary.last_ms + TAIL_MS;
    if prepared.is_storm {
        plan.faults = generator::storm_faults(plan);
    }
    let ends = plan.faults.iter().map(Fault::over_at_ms);
    plan.active_ms = ends.max().unwrap_or(0).max(plan.active_ms);
    if let Some(Value::Table(commit)) = plan.processor.get_mut("commit")
        && let Some(Value::Integer(interval_ms)) = commit.get_mut("interval_ms")
    {
        *interval_ms = COMMIT_INTERVAL_MS_MIN.max(*interval_ms);
    }
}

fn note(summary: Summary) {
    if summary.ahead > 0 {
        eprintln!(
            "note: {} lines lie more than 7 days ahead of the line before and are sent at once",
            grouped(summary.ahead)
        );
    }
    if summary.behind > 0 {
        eprintln!(
            "note: {} lines have an earlier timestamp than a line before; the file's order is kept",
            grouped(summary.behind)
        );
    }
}

fn report(
    arguments: &PlayArguments,
    played: &Played,
    bars: Option<&Volumes>,
    json: bool,
) -> anyhow::Result<()> {
    let comparison =
        bars.map(|bars| bars::compare(&bars::of_results(&played.history.outputs), bars));
    if json {
        return print_json(&Output {
            report: &played.report,
            events_in_windows: bars::events_in_windows(&played.history.outputs),
            results: played.history.outputs.len(),
            dead_letters: played.history.dead_letters.len(),
            bars: comparison.as_ref(),
        });
    }
    if arguments.trace {
        for line in &played.trace {
            print(&format!("{line}\n"))?;
        }
    }
    print(&played.report.text())?;
    print(&format!(
        "{} events in windows, {} results, {} dead letters\n",
        grouped(bars::events_in_windows(&played.history.outputs)),
        grouped(played.history.outputs.len() as u64),
        grouped(played.history.dead_letters.len() as u64)
    ))?;
    comparison.map_or(Ok(()), |comparison| print(&comparison.text()))
}

/// The command that does the same again.
fn replay(arguments: &PlayArguments, seed: u64) -> String {
    let mut command = reports::replay::command(&quoted(Path::new(&arguments.scenario)), seed);
    if let Some(input) = &arguments.input {
        command.push_str(&format!(" --input {}", quoted(input)));
    }
    command
}

/// A path for a shell.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::{Prepared, lay_over, quoted};
    use crate::catalog;
    use crate::input::Summary;
    use std::path::Path;

    const DAY: Summary = Summary {
        lines: 388_417,
        start_unix_ms: 1_381_132_790_464,
        last_ms: 57_600_000,
        ahead: 0,
        behind: 0,
    };

    fn over_a_day(name: &str) -> Prepared {
        let scenario = catalog::find(name).expect("exists");
        let mut prepared = Prepared {
            plan: scenario.resolve(1).expect("resolves"),
            is_storm: scenario.is_storm(),
            expect: scenario.expect,
        };
        lay_over(&mut prepared, DAY);
        prepared
    }

    #[test]
    fn every_scenario_can_be_laid_over_real_input() {
        for name in catalog::names() {
            let prepared = over_a_day(name);
            assert!(prepared.plan.active_ms > DAY.last_ms);
            assert!(prepared.plan.workload.streams.is_empty() && prepared.expect.is_empty());
            prepared
                .plan
                .check()
                .unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn a_storm_rages_over_the_whole_input() {
        let prepared = over_a_day("storm");
        let late = prepared
            .plan
            .faults
            .iter()
            .filter(|fault| fault.at_ms > DAY.last_ms / 2);
        assert!(late.count() >= 5);
    }

    #[test]
    fn paths_survive_the_shell() {
        assert_eq!(
            quoted(Path::new("../data/a-1.jsonl.gz")),
            "../data/a-1.jsonl.gz"
        );
        assert_eq!(quoted(Path::new("my file's")), "'my file'\\''s'");
    }
}
