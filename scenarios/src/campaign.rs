//! Many scenarios, many seeds, on all cores.
//!
//! Comes in: scenarios and a range of seeds. Goes out: a [`CampaignReport`] that does not depend on
//! the number of jobs: runs are taken in by scenario and seed, whoever finishes first.
//! Never here: the record of a run after it was judged.

use crate::jobs;
use crate::runner::{Order, RunError, play};
use crate::scenario::Scenario;
use reports::campaign::CampaignReport;
use reports::marks::MarkRow;
use reports::page::campaign::{Pace, Took};
use reports::replay;
use reports::run::RunReport;
use sim::marks::CATALOG;
use std::num::NonZeroUsize;
use std::ops::Range;

/// What to prove.
#[derive(Debug)]
pub struct Campaign {
    /// Scenarios, in the order of the report.
    pub scenarios: Vec<Scenario>,
    /// Seeds of each.
    pub seeds: Range<u64>,
    /// Runs at a time.
    pub jobs: NonZeroUsize,
    /// Play each seed twice, to judge determinism.
    pub twice: bool,
}

/// One run of a campaign.
#[derive(Debug, Clone, Copy)]
struct Task<'a> {
    scenario: &'a Scenario,
    seed: u64,
    twice: bool,
}

impl Campaign {
    /// Number of runs.
    #[must_use]
    pub fn len(&self) -> u64 {
        let seeds = self.seeds.end.saturating_sub(self.seeds.start);
        seeds * self.scenarios.len() as u64
    }

    /// True when there is nothing to play.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Plays everything; `progress` is called after each run, in no particular order.
    pub fn prove(&self, progress: &mut dyn FnMut()) -> (CampaignReport, Pace) {
        let tasks: Vec<Task<'_>> = self
            .scenarios
            .iter()
            .flat_map(|scenario| {
                self.seeds.clone().map(move |seed| Task {
                    scenario,
                    seed,
                    twice: self.twice,
                })
            })
            .collect();
        in_order(&tasks, self.jobs, |task| task.run(), progress)
    }
}

impl Task<'_> {
    /// Plays and judges, and tells how many milliseconds that took.
    #[allow(
        clippy::disallowed_methods,
        reason = "tells people how long a run took; no report and no verdict depends on it"
    )]
    fn run(self) -> (Result<RunReport, RunError>, f64) {
        let began = std::time::Instant::now();
        let result = self.play();
        (result, began.elapsed().as_secs_f64() * 1_000.0)
    }

    fn play(self) -> Result<RunReport, RunError> {
        let plan = self
            .scenario
            .resolve(self.seed)
            .map_err(|e| RunError::Plan(e.to_string()))?;
        let order = Order {
            plan: &plan,
            expect: &self.scenario.expect,
            input: None,
            trace: false,
            twice: self.twice,
            replay: &replay::command(&plan.scenario, plan.seed),
        };
        // The record of the run ends here: memory does not grow with the number of seeds.
        play(&order).map(|played| played.report)
    }
}

fn in_order(
    tasks: &[Task<'_>],
    jobs: NonZeroUsize,
    run: impl Fn(Task<'_>) -> (Result<RunReport, RunError>, f64) + Sync,
    progress: &mut dyn FnMut(),
) -> (CampaignReport, Pace) {
    let mut report = CampaignReport::new(marks());
    let mut pace = Pace::default();
    let take = |task: &Task<'_>, (result, cpu_ms): (Result<RunReport, RunError>, f64)| {
        if let Ok(run) = &result {
            let took = Took {
                seed: run.seed,
                virtual_ms: run.virtual_ms,
                cpu_ms,
            };
            pace.add(&run.scenario, took);
        }
        add(&mut report, *task, result);
    };
    jobs::in_order(tasks, jobs, |task| run(*task), take, progress);
    (report, pace)
}

fn marks() -> Vec<MarkRow> {
    let marks = CATALOG.iter();
    marks
        .map(|mark| MarkRow::new(mark.name, mark.says))
        .collect()
}

fn add(report: &mut CampaignReport, task: Task<'_>, result: Result<RunReport, RunError>) {
    match result {
        Ok(run) => report.add(&run),
        Err(e) => report.add_broken(&task.scenario.name, task.seed, e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Task, in_order};
    use crate::catalog;
    use crate::runner::RunError;
    use reports::run::RunReport;
    use std::collections::BTreeMap;
    use std::num::NonZeroUsize;
    use std::time::Duration;

    #[allow(
        clippy::disallowed_methods,
        reason = "the test makes threads finish out of order"
    )]
    fn fake(task: Task<'_>) -> (Result<RunReport, RunError>, f64) {
        // Later seeds finish first.
        std::thread::sleep(Duration::from_millis(10 - task.seed));
        (made_up(task), 1.0)
    }

    fn made_up(task: Task<'_>) -> Result<RunReport, RunError> {
        if task.seed == 3 {
            return Err(RunError::Panicked("three".to_owned()));
        }
        Ok(RunReport {
            scenario: task.scenario.name.clone(),
            seed: task.seed,
            trace_hash: 0,
            virtual_ms: task.seed,
            records: 1,
            faults: BTreeMap::new(),
            planned: BTreeMap::from([("worker-crash".to_owned(), 1)]),
            marks: BTreeMap::from([("set-back".to_owned(), task.seed)]),
            commits: 1,
            recoveries: 1,
            verdicts: properties::Verdicts::default(),
            story: vec![format!("seed {}", task.seed)],
            replay: String::new(),
        })
    }

    #[test]
    fn the_report_does_not_depend_on_the_number_of_jobs() {
        let scenarios = [
            catalog::find("calm").expect("exists"),
            catalog::find("storm").expect("exists"),
        ];
        let tasks: Vec<Task<'_>> = scenarios
            .iter()
            .flat_map(|scenario| {
                (0..8).map(move |seed| Task {
                    scenario,
                    seed,
                    twice: false,
                })
            })
            .collect();
        let jobs = |number| NonZeroUsize::new(number).expect("not 0");
        let mut finished = 0;
        let alone = in_order(&tasks, jobs(1), fake, &mut || finished += 1);
        let together = in_order(&tasks, jobs(8), fake, &mut || ());
        assert_eq!(finished, 16);
        assert_eq!(alone, together);
        let (alone, _) = alone;
        assert_eq!(alone.scenarios.len(), 2);
        assert_eq!(alone.scenarios[0].broken, 1);
        assert_eq!(alone.failures.len(), 16);
    }
}
