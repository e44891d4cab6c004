//! What the page of a campaign shows.

use crate::campaign::{CampaignReport, Failure, ScenarioRow};
use crate::{heading, replay};
use properties::Property;
use serde::Serialize;
use std::collections::BTreeMap;

/// Rows of a list of seeds.
const SEEDS_SHOWN_MAX: usize = 10;

/// A campaign, as its page shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename = "campaign")]
pub struct CampaignPage {
    /// Heading.
    pub title: String,
    /// The command that does it again.
    pub replay: String,
    /// Seeds of all scenarios.
    pub seeds: u64,
    /// Seeds that failed.
    pub accused: u64,
    /// See [`CampaignReport::bound_95`].
    pub bound_95: Option<f64>,
    /// What was demanded and is not so.
    pub unmet: Vec<String>,
    /// One a scenario.
    pub scenarios: Vec<ScenarioOf>,
    /// One a property.
    pub properties: Vec<PropertyOf>,
    /// One a kind of fault.
    pub faults: Vec<FaultOf>,
    /// One a mark.
    pub marks: Vec<MarkOf>,
    /// The seeds that took longest.
    pub slowest: Vec<Slow>,
    /// Seeds that were the first at marks which few reach.
    pub rarest: Vec<Rare>,
    /// The scorecard of the planted bugs, as `tickproof bugs --json` prints it.
    pub bugs: Option<serde_json::Value>,
}

/// A scenario of a campaign.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct ScenarioOf {
    pub name: String,
    pub says: String,
    pub seeds: u64,
    pub held: u64,
    pub virtual_s: f64,
    /// Seconds of the machine's time, of all jobs.
    pub cpu_s: f64,
    pub records: u64,
    pub commits: u64,
    pub recoveries: u64,
    pub failures: Vec<FailureOf>,
}

/// A seed that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct FailureOf {
    pub seed: u64,
    pub first: String,
    pub others: usize,
    pub replay: String,
}

/// A property over all seeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct PropertyOf {
    pub name: String,
    pub held: u64,
    pub failed: u64,
    pub not_judged: u64,
}

/// A kind of fault over all seeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultOf {
    /// Its name.
    pub kind: String,
    /// Seeds whose plans have it.
    pub drawn_by: u64,
    /// Of those, seeds in which it had an effect.
    pub hit_in: u64,
    /// How often it hit in all of them.
    pub hits: u64,
}

/// A mark over all seeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct MarkOf {
    pub name: String,
    pub says: String,
    pub seeds: u64,
    pub times: u64,
}

/// A seed that took long.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Slow {
    pub scenario: String,
    pub seed: u64,
    pub virtual_s: f64,
    pub cpu_ms: f64,
    pub replay: String,
}

/// A seed that came where few come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Rare {
    pub scenario: String,
    pub seed: u64,
    pub marks: Vec<String>,
    pub replay: String,
}

/// How long a run took. It differs from one campaign to the next, so no report has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Took {
    /// Its seed.
    pub seed: u64,
    /// Its length, virtual milliseconds.
    pub virtual_ms: u64,
    /// Milliseconds of the machine's time.
    pub cpu_ms: f64,
}

/// How fast a campaign was: by scenario, its slowest runs and the sum of all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pace {
    sums: BTreeMap<String, f64>,
    slowest: Vec<(String, Took)>,
}

impl Pace {
    /// Takes in one run.
    pub fn add(&mut self, scenario: &str, took: Took) {
        *self.sums.entry(scenario.to_owned()).or_default() += took.cpu_ms;
        let place = self
            .slowest
            .partition_point(|(_, other)| other.cpu_ms >= took.cpu_ms);
        if place < SEEDS_SHOWN_MAX {
            self.slowest.insert(place, (scenario.to_owned(), took));
            self.slowest.truncate(SEEDS_SHOWN_MAX);
        }
    }
}

/// The page of a campaign; `says` tells of a scenario in one line.
#[must_use]
pub fn page(
    report: &CampaignReport,
    pace: &Pace,
    replay: &str,
    says: &BTreeMap<String, String>,
    bugs: Option<serde_json::Value>,
) -> CampaignPage {
    CampaignPage {
        title: report.verdict(),
        replay: replay.to_owned(),
        seeds: report.seeds(),
        accused: report.failures.len() as u64,
        bound_95: report.bound_95(),
        unmet: report.unmet.clone(),
        scenarios: report
            .scenarios
            .iter()
            .map(|row| scenario_of(row, report, pace, says))
            .collect(),
        properties: Property::ALL
            .map(|property| property_of(property, report))
            .into(),
        faults: faults_of(report),
        marks: report
            .marks
            .iter()
            .map(|row| MarkOf {
                name: row.mark.clone(),
                says: row.says.clone(),
                seeds: row.seeds,
                times: row.times,
            })
            .collect(),
        slowest: pace
            .slowest
            .iter()
            .map(|(scenario, took)| Slow {
                scenario: scenario.clone(),
                seed: took.seed,
                virtual_s: seconds(took.virtual_ms),
                cpu_ms: took.cpu_ms,
                replay: replay::command(scenario, took.seed),
            })
            .collect(),
        rarest: rarest(report),
        bugs,
    }
}

fn scenario_of(
    row: &ScenarioRow,
    report: &CampaignReport,
    pace: &Pace,
    says: &BTreeMap<String, String>,
) -> ScenarioOf {
    let failures = report.failures.iter();
    let failures: Vec<FailureOf> = failures
        .filter(|failure| failure.scenario == row.scenario)
        .map(failure_of)
        .collect();
    ScenarioOf {
        name: row.scenario.clone(),
        says: says.get(&row.scenario).cloned().unwrap_or_default(),
        seeds: row.seeds,
        held: row.seeds - failures.len() as u64,
        virtual_s: seconds(row.virtual_ms),
        cpu_s: pace.sums.get(&row.scenario).copied().unwrap_or_default() / 1_000.0,
        records: row.records,
        commits: row.commits,
        recoveries: row.recoveries,
        failures,
    }
}

fn failure_of(failure: &Failure) -> FailureOf {
    FailureOf {
        seed: failure.seed,
        first: failure.messages.first().cloned().unwrap_or_default(),
        others: failure.messages.len().saturating_sub(1),
        replay: failure.replay.clone(),
    }
}

fn property_of(property: Property, report: &CampaignReport) -> PropertyOf {
    let rows = report.scenarios.iter();
    let tallies = rows.filter_map(|row| row.properties.get(&property));
    let mut sum = PropertyOf {
        name: heading(property).to_owned(),
        held: 0,
        failed: 0,
        not_judged: 0,
    };
    for tally in tallies {
        sum.held += tally.held;
        sum.failed += tally.failed;
        sum.not_judged += tally.not_judged;
    }
    sum
}

fn faults_of(report: &CampaignReport) -> Vec<FaultOf> {
    let hits = |kind: &str| {
        let rows = report.scenarios.iter();
        rows.filter_map(|row| row.faults.get(kind)).sum()
    };
    let faults = report.faults.iter();
    faults
        .map(|(kind, tally)| FaultOf {
            kind: kind.clone(),
            drawn_by: tally.drawn,
            hit_in: tally.hit,
            hits: hits(kind),
        })
        .collect()
}

/// The first seeds at the marks that the fewest reached.
fn rarest(report: &CampaignReport) -> Vec<Rare> {
    let mut marks: Vec<_> = report.marks.iter().filter(|row| row.seeds > 0).collect();
    marks.sort_by_key(|row| row.seeds);
    let mut rarest: Vec<Rare> = Vec::new();
    for row in marks {
        let Some((scenario, seed)) = &row.first else {
            continue;
        };
        let known = rarest
            .iter()
            .position(|rare| rare.seed == *seed && rare.scenario == *scenario);
        match known {
            Some(known) => rarest[known].marks.push(row.mark.clone()),
            None if rarest.len() < SEEDS_SHOWN_MAX => rarest.push(Rare {
                scenario: scenario.clone(),
                seed: *seed,
                marks: vec![row.mark.clone()],
                replay: replay::command(scenario, *seed),
            }),
            None => {}
        }
    }
    rarest
}

#[allow(clippy::cast_precision_loss, reason = "a number for people")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::{Pace, SEEDS_SHOWN_MAX, Took};

    #[test]
    fn the_slowest_runs_are_kept_whatever_their_order() {
        let mut pace = Pace::default();
        for seed in 0..100 {
            let cpu_ms = f64::from(u32::try_from(seed * 37 % 100).expect("small"));
            let took = Took {
                seed,
                virtual_ms: 1,
                cpu_ms,
            };
            pace.add("storm", took);
        }
        let kept: Vec<f64> = pace.slowest.iter().map(|(_, took)| took.cpu_ms).collect();
        let expected: Vec<f64> = (0..SEEDS_SHOWN_MAX)
            .map(|rank| 99.0 - f64::from(u32::try_from(rank).expect("small")))
            .collect();
        assert_eq!(kept, expected);
        assert!((pace.sums["storm"] - 4_950.0).abs() < 1e-6);
    }
}
