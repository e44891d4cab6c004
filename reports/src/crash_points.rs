//! The report of crashes at every step.

use crate::quantity::{duration, grouped};
use crate::table::{Align, draw};
use serde::Serialize;

/// Failures that are shown in full; the rest are counted.
const FAILURES_SHOWN_MAX: usize = 20;
/// The order of phases.
const PHASES: [&str; 6] = [
    "start",
    "rebalance",
    "recovery",
    "commit",
    "checkpoint",
    "reading",
];

/// A kind of I/O: what a process was about, and the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// What the process was about.
    pub phase: &'static str,
    /// Its call.
    pub call: &'static str,
}

/// All crashes at one kind of I/O.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KindRow {
    /// Which.
    #[serde(flatten)]
    pub kind: Kind,
    /// Points of a first crash.
    pub points: u64,
    /// Of these, how many differ for anybody but the process that dies; and that stand here for others.
    pub places: u64,
    /// Pairs of points whose second one is of this kind.
    pub pairs: u64,
    /// Of these, how many differ.
    pub pair_places: u64,
    /// Runs in which something failed.
    pub failed: u64,
}

/// Points at which something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The points, in the order of the crashes; none: it fails without a crash.
    pub points: Vec<String>,
    /// What failed, the first message of each.
    pub messages: Vec<String>,
    /// The command that plays it again.
    pub replay: String,
}

/// Crashes at every step of one story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CrashReport {
    /// The story.
    pub story: String,
    /// A row a kind of I/O.
    pub kinds: Vec<KindRow>,
    /// Points of idle polls, of which each kind is crashed once.
    pub left_out: u64,
    /// Pairs of points whose second one is such a point.
    pub pairs_left_out: u64,
    /// Runs.
    pub runs: u64,
    /// Virtual milliseconds, summed over the runs that held, each counted once.
    pub virtual_ms: u64,
    /// What failed.
    pub failures: Vec<Failure>,
}

impl CrashReport {
    /// Nothing yet.
    #[must_use]
    pub fn new(story: &str) -> CrashReport {
        CrashReport {
            story: story.to_owned(),
            kinds: Vec::new(),
            left_out: 0,
            pairs_left_out: 0,
            runs: 0,
            virtual_ms: 0,
            failures: Vec::new(),
        }
    }

    fn row(&mut self, kind: Kind) -> &mut KindRow {
        let order = |kind: Kind| {
            let phase = PHASES.iter().position(|phase| *phase == kind.phase);
            (phase, kind.call)
        };
        let found = self
            .kinds
            .binary_search_by(|row| order(row.kind).cmp(&order(kind)));
        let index = found.unwrap_or_else(|index| {
            let row = KindRow {
                kind,
                points: 0,
                places: 0,
                pairs: 0,
                pair_places: 0,
                failed: 0,
            };
            self.kinds.insert(index, row);
            index
        });
        &mut self.kinds[index]
    }

    /// A point of a first crash.
    pub fn point(&mut self, kind: Kind) {
        self.row(kind).points += 1;
    }

    /// A place of a first crash.
    pub fn place(&mut self, kind: Kind) {
        self.row(kind).places += 1;
    }

    /// A point of a second crash, after so many points of a first one.
    pub fn pairs(&mut self, kind: Kind, pairs: u64) {
        self.row(kind).pairs += pairs;
    }

    /// A place of a second crash.
    pub fn pair_place(&mut self, kind: Kind) {
        self.row(kind).pair_places += 1;
    }

    /// A run with a (last) crash at this kind of I/O has failed.
    pub fn failed(&mut self, kind: Kind) {
        self.row(kind).failed += 1;
    }

    /// Takes a failure in.
    pub fn fail(&mut self, points: Vec<String>, messages: Vec<String>, replay: String) {
        self.failures.push(Failure {
            points,
            messages,
            replay,
        });
    }

    /// True when nothing failed.
    #[must_use]
    pub fn held(&self) -> bool {
        self.failures.is_empty()
    }

    /// Sums over the kinds.
    #[must_use]
    pub fn total(&self) -> KindRow {
        let sum = |of: fn(&KindRow) -> u64| self.kinds.iter().map(of).sum();
        KindRow {
            kind: Kind {
                phase: "all",
                call: "",
            },
            points: sum(|row| row.points),
            places: sum(|row| row.places),
            pairs: sum(|row| row.pairs),
            pair_places: sum(|row| row.pair_places),
            failed: sum(|row| row.failed),
        }
    }

    /// The report as text.
    #[must_use]
    pub fn text(&self) -> String {
        let total = self.total();
        let rows: Vec<Vec<String>> = self.kinds.iter().chain([&total]).map(cells).collect();
        let mut text = draw(
            &[
                ("phase", Align::Left),
                ("call", Align::Left),
                ("points", Align::Right),
                ("that differ", Align::Right),
                ("pairs", Align::Right),
                ("that differ", Align::Right),
                ("verdict", Align::Left),
            ],
            &rows,
        );
        text.push_str(&format!(
            "\n{}: {} points and {} pairs of points, of which {} and {} differ for anybody but the \
             process that dies; all of these were played, in {} runs ({} of virtual time).\n{} more \
             points and {} more pairs lie in idle polls, of which each run has one of each kind above.\n",
            self.story,
            grouped(total.points),
            grouped(total.pairs),
            grouped(total.places),
            grouped(total.pair_places),
            grouped(self.runs),
            duration(self.virtual_ms),
            grouped(self.left_out),
            grouped(self.pairs_left_out),
        ));
        text.push_str(&self.verdict());
        text
    }

    fn verdict(&self) -> String {
        let mut text = String::new();
        for failure in self.failures.iter().take(FAILURES_SHOWN_MAX) {
            let points = match &failure.points[..] {
                [] => "without a crash".to_owned(),
                points => points.join(", then "),
            };
            text.push_str(&format!("\nFAIL {points}\n"));
            for message in &failure.messages {
                text.push_str(&format!("  {message}\n"));
            }
            text.push_str(&format!("  play it again: {}\n", failure.replay));
        }
        let more = self.failures.len().saturating_sub(FAILURES_SHOWN_MAX);
        if more > 0 {
            text.push_str(&format!("\nand {} more failures\n", grouped(more as u64)));
        }
        if self.held() {
            text.push_str("all properties hold\n");
        } else {
            let failed = grouped(self.failures.len() as u64);
            text.push_str(&format!("\n{failed} runs failed\n"));
        }
        text
    }
}

/// One line about several stories.
#[must_use]
pub fn summary(reports: &[CrashReport]) -> String {
    let totals: Vec<KindRow> = reports.iter().map(CrashReport::total).collect();
    let sum = |of: fn(&KindRow) -> u64| grouped(totals.iter().map(of).sum());
    let failures: usize = reports.iter().map(|report| report.failures.len()).sum();
    let verdict = match failures {
        0 => "all properties hold".to_owned(),
        failures => format!("{} failed", grouped(failures as u64)),
    };
    format!(
        "{} stories, {} points, {} pairs of points, {} runs: {verdict}\n",
        reports.len(),
        sum(|row| row.points),
        sum(|row| row.pairs),
        grouped(reports.iter().map(|report| report.runs).sum()),
    )
}

fn cells(row: &KindRow) -> Vec<String> {
    let verdict = match row.failed {
        0 => "holds".to_owned(),
        failed => format!("{} FAIL", grouped(failed)),
    };
    vec![
        row.kind.phase.to_owned(),
        row.kind.call.to_owned(),
        grouped(row.points),
        grouped(row.places),
        grouped(row.pairs),
        grouped(row.pair_places),
        verdict,
    ]
}

#[cfg(test)]
mod tests {
    use super::{CrashReport, Kind};

    #[test]
    fn rows_stand_in_the_order_of_phases() {
        let mut report = CrashReport::new("story");
        for phase in ["reading", "commit", "start", "recovery"] {
            report.point(Kind { phase, call: "b" });
            report.point(Kind { phase, call: "a" });
        }
        let rows = report
            .kinds
            .iter()
            .map(|row| (row.kind.phase, row.kind.call));
        let rows: Vec<_> = rows.collect();
        assert_eq!(rows[0], ("start", "a"));
        assert_eq!(rows[1], ("start", "b"));
        assert_eq!(rows[7], ("reading", "b"));
        assert_eq!(report.total().points, 8);
    }

    #[test]
    fn a_failure_names_its_points_and_the_command_that_plays_it_again() {
        let mut report = CrashReport::new("story");
        assert!(report.text().ends_with("all properties hold\n"));
        let points = vec![
            "worker-0/1/2:before".to_owned(),
            "worker-0/2/5:after".to_owned(),
        ];
        report.fail(points, vec!["order: wrong".to_owned()], "again".to_owned());
        let text = report.text();
        assert!(!report.held());
        assert!(text.contains("worker-0/1/2:before, then worker-0/2/5:after"));
        assert!(text.contains("order: wrong") && text.contains("play it again: again"));
    }
}
