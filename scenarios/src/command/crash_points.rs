//! `tickproof crash-points`.

use super::play::quoted;
use super::prove::cores;
use super::{Chosen, CrashPointsArguments, EXIT_FAILED, choose, print, print_json};
use crate::crash_points::{CrashPoints, Progress, QUICK_MS, Story, stories};
use crate::runner::RunError;
use indicatif::{ProgressBar, ProgressStyle};
use reports::crash_points::{CrashReport, summary};
use sim::tap::Kill;
use std::path::Path;
use std::process::ExitCode;

pub(super) fn crash_points(
    arguments: &CrashPointsArguments,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let told = told(arguments)?;
    if let Some(points) = &arguments.play {
        return play(arguments, &told, points, json);
    }
    let mut reports: Vec<CrashReport> = Vec::new();
    for story in &told {
        let bar = ProgressBar::new(0).with_style(style());
        let report = of(arguments, story).run(&mut |progress| match progress {
            Progress::Begins { what, runs } => {
                bar.reset();
                bar.set_length(runs);
                bar.set_message(what);
            }
            Progress::Ended => bar.inc(1),
        })?;
        bar.finish_and_clear();
        if !json {
            print(&format!("{}\n", report.text()))?;
        }
        reports.push(report);
    }
    if json {
        print_json(&reports)?;
    } else if reports.len() > 1 {
        print(&summary(&reports))?;
    }
    Ok(if reports.iter().all(|report| report.held()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}

fn of<'a>(arguments: &CrashPointsArguments, story: &'a Story) -> CrashPoints<'a> {
    CrashPoints {
        story,
        jobs: arguments.jobs.unwrap_or_else(cores),
        pairs: !arguments.singles,
    }
}

/// The story that was named, or all that ship with this program.
fn told(arguments: &CrashPointsArguments) -> anyhow::Result<Vec<Story>> {
    let mut told = stories()?;
    if let Some(name) = &arguments.story {
        told.retain(|story| story.plan.scenario == *name);
        if told.is_empty() {
            let plan = match choose(name)? {
                Chosen::Scenario(scenario) => scenario.resolve(0)?,
                Chosen::File(plan) => *plan,
            };
            told.push(Story {
                arguments: quoted(Path::new(name)),
                plan,
                down_ms: QUICK_MS,
            });
        }
    }
    for story in &mut told {
        if let Some(down_ms) = arguments.down_ms {
            story.down_ms = down_ms;
            story.arguments.push_str(&format!(" --down {down_ms}"));
        }
        story.plan.check()?;
    }
    Ok(told)
}

/// Plays one or several crashes again.
fn play(
    arguments: &CrashPointsArguments,
    told: &[Story],
    points: &[Kill],
    json: bool,
) -> anyhow::Result<ExitCode> {
    let [story] = told else {
        anyhow::bail!(
            "name the story that the points belong to: tickproof crash-points STORY --play …"
        );
    };
    let played = match of(arguments, story).play(points, true, arguments.trace) {
        Ok((played, tapped)) => {
            let passed = |point: &&Kill| tapped.killed.iter().any(|(kill, _)| kill == *point);
            if let Some(point) = points.iter().find(|point| !passed(point)) {
                anyhow::bail!("the run does not come to {point}; is it another story's?");
            }
            played
        }
        Err(RunError::Panicked(message)) => {
            eprintln!("the run panicked: {message}");
            return Ok(ExitCode::from(EXIT_FAILED));
        }
        Err(e) => return Err(e.into()),
    };
    for line in &played.trace {
        print(&format!("{line}\n"))?;
    }
    if json {
        print_json(&played.report)?;
    } else {
        print(&played.report.text())?;
    }
    Ok(if played.report.held() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}

/// Draws on standard error, and only on a terminal.
fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {pos} of {len} {msg}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
