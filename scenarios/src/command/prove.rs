//! `tickproof prove`.

use super::{EXIT_FAILED, ProveArguments, SEEDS_DEFAULT, print, print_json, tell};
use crate::campaign::Campaign;
use crate::catalog;
use crate::page;
use indicatif::{ProgressBar, ProgressStyle};
use std::num::NonZeroUsize;
use std::process::ExitCode;

pub(super) fn prove(arguments: &ProveArguments, json: bool) -> anyhow::Result<ExitCode> {
    let scenarios = if arguments.scenarios.is_empty() {
        catalog::all()?
    } else {
        let named = arguments.scenarios.iter().map(|name| catalog::find(name));
        named.collect::<Result<_, _>>()?
    };
    let campaign = Campaign {
        scenarios,
        seeds: arguments.seeds.clone().unwrap_or(SEEDS_DEFAULT),
        jobs: arguments.jobs.unwrap_or_else(cores),
        twice: !arguments.once,
    };
    let bar = progress_bar(campaign.len());
    let (mut report, pace) = campaign.prove(&mut || bar.inc(1));
    bar.finish_and_clear();
    if arguments.demand_marks {
        report.demand_marks();
    }
    if json {
        print_json(&report)?;
    } else {
        if arguments.marks {
            print(&format!("{}\n", report.marks_text()))?;
        }
        print(&report.text())?;
    }
    if let Some(folder) = arguments.report.folder() {
        let path = page::write_campaign(
            folder,
            &campaign.scenarios,
            &report,
            &pace,
            &replay(arguments),
        )?;
        tell(&path, json)?;
    }
    Ok(if report.held() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}

/// The command that does the same again.
fn replay(arguments: &ProveArguments) -> String {
    let mut command = "cargo run --release -- prove".to_owned();
    for scenario in &arguments.scenarios {
        command.push_str(&format!(" --scenario {scenario}"));
    }
    if let Some(seeds) = &arguments.seeds {
        command.push_str(&format!(" --seeds {}..{}", seeds.start, seeds.end));
    }
    if arguments.once {
        command.push_str(" --once");
    }
    command
}

pub(super) fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Draws on standard error, and only on a terminal.
fn progress_bar(runs: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} seeds, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(runs).with_style(style)
}
