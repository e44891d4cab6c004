//! The report of a run or a campaign, and its files.
//!
//! Comes in: a run with its trace, or a campaign's report. Goes out: all that there is to show of it, in the
//! files of `target/report`: as JSON and as JUnit. Never here: any judgement.
//!
//! | room | what lives there |
//! | --- | --- |
//! | `timeline` | lanes, what lasted on them, what happened: from plan and trace |
//! | `events` | records, watermarks and windows: from topics and oracle |
//! | `place` | where a violation is, from the checker's words |

mod events;
mod place;
#[cfg(test)]
mod tests;
mod timeline;

use crate::runner::Played;
use crate::scenario::Scenario;
use properties::{Property, Verdict};
use reports::campaign::CampaignReport;
use reports::page::campaign::{self, Pace};
use reports::page::junit;
use reports::page::run::{Counts, Finding, Place, RunPage, Status, VerdictOf};
use serde::Serialize;
use sim::plan::Plan;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Most records of a run that has a report.
pub const RECORDS_MAX: u64 = 200_000;

/// A report that could not be written.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write the report {path}: {source}; give --report a folder that can be written to, or --no-report",
    path = path.display()
)]
pub struct PageError {
    path: PathBuf,
    source: io::Error,
}

/// What there is to show of a run; its trace has to be kept.
#[must_use]
pub fn of_run(plan: &Plan, played: &Played) -> RunPage {
    let history = &played.history;
    let report = &played.report;
    let mut timeline = timeline::of(plan, played);
    let shown = events::of(plan, history, &timeline.sent);
    timeline.settle();
    let rules = &history.rules;
    RunPage {
        title: format!("{}, seed {}", report.scenario, report.seed),
        scenario: report.scenario.clone(),
        seed: report.seed,
        trace_hash: format!("{:016x}", report.trace_hash),
        replay: report.replay.clone(),
        virtual_ms: timeline.end_ms,
        start_unix_ms: plan.start_unix_ms,
        window_ms: rules.window_ms,
        allowed_lateness_ms: rules.allowed_lateness_ms,
        max_out_of_orderness_ms: rules.max_out_of_orderness_ms,
        counts: Counts {
            records: report.records,
            commits: report.commits,
            recoveries: report.recoveries,
            outputs: history.outputs.len() as u64,
            dead_letters: history.dead_letters.len() as u64,
        },
        story_missing: report.story.clone(),
        verdicts: Property::ALL
            .iter()
            .filter_map(|property| {
                let verdict = report.verdicts.get(*property)?;
                Some(verdict_of(*property, verdict, &shown))
            })
            .collect(),
        lanes: timeline.lanes,
        spans: timeline.spans,
        points: timeline.points,
        tickers: rules.tickers.keys().cloned().collect(),
        records: shown.records,
        watermarks: shown.watermarks,
        windows: shown.windows,
    }
}

fn verdict_of(property: Property, verdict: &Verdict, shown: &events::Shown) -> VerdictOf {
    let (status, findings) = match verdict {
        Verdict::Held => (Status::Holds, Vec::new()),
        Verdict::Failed { violations, more } => {
            let mut findings: Vec<Finding> = violations
                .iter()
                .map(|violation| Finding {
                    place: place::of(&violation.message, shown),
                    text: violation.message.clone(),
                })
                .collect();
            if *more > 0 {
                findings.push(nowhere(&format!("and {more} more")));
            }
            (Status::Fails, findings)
        }
        Verdict::NotJudged { reason } | Verdict::NotApplicable { reason } => {
            (Status::NotJudged, vec![nowhere(reason)])
        }
    };
    VerdictOf {
        property: property.name().to_owned(),
        status,
        findings,
    }
}

fn nowhere(text: &str) -> Finding {
    Finding {
        text: text.to_owned(),
        place: Place::default(),
    }
}

/// Writes `run.json` and `run.xml` into `folder`, and gives the path of the first.
///
/// # Errors
/// When a file cannot be written.
pub fn write_run(folder: &Path, plan: &Plan, played: &Played) -> Result<PathBuf, PageError> {
    let xml = junit::run(&played.report).map_err(io::Error::other);
    write(folder, "run", &of_run(plan, played), xml)
}

/// Writes `campaign.json` and `campaign.xml` into `folder`, and gives the path of the first.
///
/// # Errors
/// When a file cannot be written.
pub fn write_campaign(
    folder: &Path,
    scenarios: &[Scenario],
    report: &CampaignReport,
    pace: &Pace,
    replay: &str,
) -> Result<PathBuf, PageError> {
    let says = scenarios
        .iter()
        .map(|scenario| (scenario.name.clone(), scenario.description.clone()))
        .collect();
    let page = campaign::page(report, pace, replay, &says, None);
    let xml = junit::campaign(report).map_err(io::Error::other);
    write(folder, "campaign", &page, xml)
}

/// Writes the files of a report.
fn write(
    folder: &Path,
    name: &str,
    page: &impl Serialize,
    junit: io::Result<String>,
) -> Result<PathBuf, PageError> {
    fs::create_dir_all(folder).map_err(|source| PageError {
        path: folder.to_owned(),
        source,
    })?;
    let put = |ending: &str, text: io::Result<String>| {
        let path = folder.join(format!("{name}.{ending}"));
        let written = text.and_then(|text| fs::write(&path, text));
        match written {
            Ok(()) => Ok(path),
            Err(source) => Err(PageError { path, source }),
        }
    };
    put("xml", junit)?;
    put("json", serde_json::to_string(page).map_err(io::Error::from))
}
