//! The report of a campaign: many scenarios, many seeds.

use crate::marks::{self, FaultTally, MarkRow};
use crate::quantity::{duration, grouped};
use crate::run::RunReport;
use crate::table::{Align, draw};
use crate::{heading, replay};
use properties::{Property, Verdict};
use serde::Serialize;
use std::collections::BTreeMap;

/// Failures that are shown in full; the rest are counted.
const FAILURES_SHOWN_MAX: usize = 20;

/// With fewer seeds, the rule of three says nothing.
const BOUND_SEEDS_MIN: u32 = 30;

/// Verdicts of one property over the seeds of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// Seeds in which it held.
    pub held: u64,
    /// Seeds in which it did not.
    pub failed: u64,
    /// Seeds in which it could not be judged.
    pub not_judged: u64,
}

impl Tally {
    fn add(&mut self, verdict: Option<&Verdict>) {
        match verdict {
            Some(Verdict::Held) => self.held += 1,
            Some(Verdict::Failed { .. }) => self.failed += 1,
            Some(Verdict::NotJudged { .. } | Verdict::NotApplicable { .. }) | None => {
                self.not_judged += 1
            }
        }
    }

    fn cell(self) -> String {
        match (self.failed, self.not_judged, self.held) {
            (0, 0, 0) => "–".to_owned(),
            (0, 0, _) => "holds".to_owned(),
            (0, unknown, _) => format!("{unknown} ?"),
            (failed, _, _) => format!("{failed} FAIL"),
        }
    }
}

/// One scenario.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ScenarioRow {
    /// Its name.
    pub scenario: String,
    /// Seeds that were played.
    pub seeds: u64,
    /// Virtual milliseconds, summed over the seeds.
    pub virtual_ms: u64,
    /// Input records.
    pub records: u64,
    /// Kinds of fault that really hit, and how often.
    pub faults: BTreeMap<String, u64>,
    /// Committed transactions.
    pub commits: u64,
    /// Recoveries of partitions.
    pub recoveries: u64,
    /// Tallies of the properties.
    pub properties: BTreeMap<Property, Tally>,
    /// Seeds whose story went as the scenario tells it, or not.
    pub story: Tally,
    /// Seeds that could not be played to their end.
    pub broken: u64,
}

/// A seed that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Scenario.
    pub scenario: String,
    /// Seed.
    pub seed: u64,
    /// What failed, the first message of each.
    pub messages: Vec<String>,
    /// The command that plays it again.
    pub replay: String,
}

/// A whole campaign. Rows and failures stand in the order of scenarios and seeds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CampaignReport {
    /// A row a scenario.
    pub scenarios: Vec<ScenarioRow>,
    /// Seeds that failed.
    pub failures: Vec<Failure>,
    /// A row a mark, in the order of their catalogue.
    pub marks: Vec<MarkRow>,
    /// Kinds of fault that some plan had.
    pub faults: BTreeMap<String, FaultTally>,
    /// What was demanded of marks and faults and is not so.
    pub unmet: Vec<String>,
}

impl CampaignReport {
    /// An empty report that knows of these marks.
    #[must_use]
    pub fn new(marks: Vec<MarkRow>) -> CampaignReport {
        CampaignReport {
            marks,
            ..CampaignReport::default()
        }
    }

    /// Takes in one run; runs must come in the order of scenarios and seeds.
    pub fn add(&mut self, run: &RunReport) {
        let row = self.row(&run.scenario);
        row.seeds += 1;
        row.virtual_ms += run.virtual_ms;
        row.records += run.records;
        row.commits += run.commits;
        row.recoveries += run.recoveries;
        for (kind, hits) in &run.faults {
            *row.faults.entry(kind.clone()).or_default() += hits;
        }
        for property in Property::ALL {
            let tally = row.properties.entry(property).or_default();
            tally.add(run.verdicts.get(property));
        }
        if run.story.is_empty() {
            row.story.held += 1;
        } else {
            row.story.failed += 1;
        }
        self.add_marks(run);
        if !run.held() {
            self.fail(&run.scenario, run.seed, run.messages(), run.replay.clone());
        }
    }

    fn add_marks(&mut self, run: &RunReport) {
        for row in &mut self.marks {
            if let Some(times) = run.marks.get(&row.mark) {
                row.seeds += 1;
                row.times += times;
                let first = (&run.scenario, run.seed);
                row.first.get_or_insert_with(|| (first.0.clone(), first.1));
            }
        }
        for kind in run.planned.keys() {
            let tally = self.faults.entry(kind.clone()).or_default();
            tally.drawn += 1;
            tally.hit += u64::from(run.faults.contains_key(kind));
        }
    }

    /// Demands that every mark was reached, and that every kind of fault hit in enough of the seeds
    /// that drew it.
    pub fn demand_marks(&mut self) {
        self.unmet = marks::unmet(&self.marks, self.faults.iter());
    }

    /// Takes in a run that could not be played to its end.
    pub fn add_broken(&mut self, scenario: &str, seed: u64, why: String) {
        let row = self.row(scenario);
        row.seeds += 1;
        row.broken += 1;
        self.fail(scenario, seed, vec![why], replay::command(scenario, seed));
    }

    /// True when every run was played to its end, nothing failed, and nothing that was demanded is
    /// missing.
    #[must_use]
    pub fn held(&self) -> bool {
        self.failures.is_empty() && self.unmet.is_empty()
    }

    fn row(&mut self, scenario: &str) -> &mut ScenarioRow {
        let known = self
            .scenarios
            .iter()
            .position(|row| row.scenario == scenario);
        let index = known.unwrap_or_else(|| {
            self.scenarios.push(ScenarioRow {
                scenario: scenario.to_owned(),
                ..ScenarioRow::default()
            });
            self.scenarios.len() - 1
        });
        &mut self.scenarios[index]
    }

    fn fail(&mut self, scenario: &str, seed: u64, messages: Vec<String>, replay: String) {
        self.failures.push(Failure {
            scenario: scenario.to_owned(),
            seed,
            messages,
            replay,
        });
    }

    /// The report as text, at most [`crate::table::WIDTH_MAX`] columns wide (messages of failures
    /// are not cut).
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.table();
        text.push('\n');
        text.push_str(&self.faults_that_hit());
        if !self.marks.is_empty() {
            text.push_str(&marks::summary(&self.marks));
        }
        text.push_str(&self.failures_text());
        for missing in &self.unmet {
            text.push_str(&format!("{missing}\n"));
        }
        if let Some(bound) = self.bound_95() {
            text.push_str(&format!(
                "not one accused: with 95 % confidence, fewer than {bound:.1e} of such seeds would be\n"
            ));
        }
        text.push_str(&format!("{}\n", self.verdict()));
        text
    }

    /// The verdict in one line.
    #[must_use]
    pub fn verdict(&self) -> String {
        let mut verdict = match self.failures.len() {
            0 => "all properties hold".to_owned(),
            failed => format!("{failed} FAILED"),
        };
        if !self.unmet.is_empty() {
            verdict.push_str(&format!(", {} demands NOT MET", self.unmet.len()));
        }
        format!(
            "{} scenarios, {} seeds: {verdict}",
            self.scenarios.len(),
            grouped(self.seeds())
        )
    }

    /// Seeds of all scenarios.
    #[must_use]
    pub fn seeds(&self) -> u64 {
        self.scenarios.iter().map(|row| row.seeds).sum()
    }

    /// When no seed failed: the share of such seeds that would fail is smaller than this, with 95 %
    /// confidence (the rule of three, 3 / n). `None` when one failed, or with too few seeds to say
    /// anything.
    #[must_use]
    pub fn bound_95(&self) -> Option<f64> {
        let seeds = u32::try_from(self.seeds()).unwrap_or(u32::MAX);
        let said = self.failures.is_empty() && seeds >= BOUND_SEEDS_MIN;
        said.then(|| 3.0 / f64::from(seeds))
    }

    /// All marks and all kinds of fault, as text.
    #[must_use]
    pub fn marks_text(&self) -> String {
        let marks = marks::table(&self.marks);
        format!("{marks}\n{}", marks::faults_table(self.faults.iter()))
    }

    fn table(&self) -> String {
        let mut headings = vec![
            ("scenario", Align::Left),
            ("seeds", Align::Right),
            ("virtual time", Align::Right),
            ("records", Align::Right),
            ("faults", Align::Right),
            ("commits", Align::Right),
            ("recoveries", Align::Right),
        ];
        headings.extend(Property::ALL.map(|property| (heading(property), Align::Left)));
        headings.push(("story", Align::Left));
        let rows: Vec<Vec<String>> = self.scenarios.iter().map(cells).collect();
        draw(&headings, &rows)
    }

    fn faults_that_hit(&self) -> String {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (kind, hits) in self.scenarios.iter().flat_map(|row| &row.faults) {
            *sums.entry(kind).or_default() += hits;
        }
        if sums.is_empty() {
            return String::new();
        }
        let mut text = "faults that hit:".to_owned();
        let mut width = text.len();
        for (index, (kind, hits)) in sums.into_iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let item = format!("{separator} {kind} {}", grouped(hits));
            if width + item.len() > 120 {
                text.push_str(separator);
                text.push_str("\n ");
                width = 1;
                text.push_str(item.trim_start_matches(','));
            } else {
                text.push_str(&item);
            }
            width += item.len();
        }
        text.push_str("\n\n");
        text
    }

    fn failures_text(&self) -> String {
        let mut text = String::new();
        for failure in self.failures.iter().take(FAILURES_SHOWN_MAX) {
            text.push_str(&format!("{} seed {}\n", failure.scenario, failure.seed));
            for message in &failure.messages {
                text.push_str(&format!("  {message}\n"));
            }
            text.push_str(&format!("  play it again: {}\n\n", failure.replay));
        }
        let hidden = self.failures.len().saturating_sub(FAILURES_SHOWN_MAX);
        if hidden > 0 {
            text.push_str(&format!("and {hidden} more (see --json)\n\n"));
        }
        text
    }
}

fn cells(row: &ScenarioRow) -> Vec<String> {
    let mut cells = vec![
        row.scenario.clone(),
        grouped(row.seeds),
        duration(row.virtual_ms),
        grouped(row.records),
        grouped(row.faults.values().sum()),
        grouped(row.commits),
        grouped(row.recoveries),
    ];
    cells.extend(Property::ALL.map(|property| {
        let tally = row.properties.get(&property).copied().unwrap_or_default();
        tally.cell()
    }));
    cells.push(match row.broken {
        0 => row.story.cell(),
        broken => format!("{broken} BROKEN"),
    });
    cells
}

#[cfg(test)]
mod tests {
    use super::CampaignReport;
    use crate::marks::MarkRow;
    use crate::replay;
    use crate::run::RunReport;
    use crate::table::WIDTH_MAX;
    use properties::{Property, Verdict, Verdicts, Violation};
    use std::collections::BTreeMap;

    fn run(scenario: &str, seed: u64) -> RunReport {
        let mut verdicts = Verdicts::default();
        for property in Property::ALL {
            verdicts.insert((property, Verdict::Held));
        }
        RunReport {
            scenario: scenario.to_owned(),
            seed,
            trace_hash: seed,
            virtual_ms: 1_500_000,
            records: 12_345,
            faults: BTreeMap::from([
                ("worker-crash".to_owned(), 2),
                ("network-cut".to_owned(), 1),
            ]),
            planned: BTreeMap::from([
                ("worker-crash".to_owned(), 2),
                ("network-cut".to_owned(), 4),
            ]),
            marks: BTreeMap::from([("set-back".to_owned(), 3)]),
            commits: 4_321,
            recoveries: 3,
            verdicts,
            story: Vec::new(),
            replay: replay::command(scenario, seed),
        }
    }

    fn failing(scenario: &str, seed: u64) -> RunReport {
        let mut run = run(scenario, seed);
        let violation = Violation {
            property: Property::WindowCorrectness,
            message: "partition 0, AMZN at 1609459200: count 999, expected 1000".to_owned(),
        };
        let verdict = Verdict::Failed {
            violations: vec![violation],
            more: 3,
        };
        run.verdicts.insert((Property::WindowCorrectness, verdict));
        run.story = vec!["recoveries: 0, expected at least 2".to_owned()];
        run
    }

    fn report() -> CampaignReport {
        let mut report = CampaignReport::default();
        for seed in 0..3 {
            report.add(&run("calm", seed));
        }
        report.add(&run("duplicate-output", 0));
        report.add(&failing("duplicate-output", 1));
        report.add_broken(
            "storm",
            17,
            "the run panicked: index out of bounds".to_owned(),
        );
        report
    }

    #[test]
    fn a_campaign_reads_like_this() {
        insta::assert_snapshot!(report().text());
    }

    #[test]
    fn a_campaign_of_any_size_fits_160_columns() {
        let mut report = CampaignReport::default();
        let mut big = run("duplicate-output", 0);
        big.virtual_ms = 999 * 3_600_000;
        big.records = 99_999_999;
        big.commits = 99_999_999;
        big.recoveries = 999_999;
        report.add(&big);
        for line in report.text().lines() {
            assert!(line.chars().count() <= WIDTH_MAX, "{line}");
        }
    }

    fn with_marks(seeds: u64) -> CampaignReport {
        let mut report = CampaignReport::new(vec![
            MarkRow::new("set-back", "a worker was set back"),
            MarkRow::new("zombie-woke", "a worker woke up too late"),
        ]);
        for seed in 0..seeds {
            let mut run = run("storm", seed);
            if seed > 0 {
                run.faults.remove("network-cut");
            }
            if seed == 9 {
                run.marks.insert("zombie-woke".to_owned(), 2);
            }
            report.add(&run);
        }
        report
    }

    #[test]
    fn marks_are_counted_by_seed_and_in_all() {
        let report = with_marks(10);
        insta::assert_snapshot!(report.marks_text());
        assert!(report.held());
    }

    #[test]
    fn a_demand_names_marks_that_were_never_reached_and_faults_that_hardly_ever_hit() {
        let mut few = with_marks(5);
        few.demand_marks();
        assert_eq!(
            few.unmet,
            ["mark never reached: zombie-woke (a worker woke up too late)"]
        );
        assert!(!few.held() && few.text().contains("zombie-woke"));
        let mut many = with_marks(10);
        many.demand_marks();
        assert_eq!(many.unmet.len(), 1, "{:?}", many.unmet);
        assert!(many.unmet[0].contains("network-cut, in 1 of 10 seeds"));
        assert!(many.text().ends_with("1 demands NOT MET\n"));
    }

    #[test]
    fn one_failing_seed_fails_the_campaign_and_says_how_to_replay_it() {
        let report = report();
        assert!(!report.held());
        assert_eq!(
            report.failures[1].replay,
            "cargo run --release -- play storm --seed 17"
        );
    }
}
