//! Which of the hard paths a campaign took, and which of its faults were more than words.

use crate::quantity::grouped;
use crate::table::{Align, draw};
use serde::Serialize;

/// Widest line of a list of names.
const LIST_WIDTH: usize = 120;
/// Names of marks that are listed without being asked for.
const NEVER_SHOWN_MAX: usize = 12;
/// A kind of fault has to hit in at least so many of a hundred seeds that drew it.
pub const HITS_PERCENT_MIN: u64 = 20;

/// A mark, over all seeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MarkRow {
    /// Its name.
    pub mark: String,
    /// What has happened when it is reached.
    pub says: String,
    /// Seeds in which it was reached.
    pub seeds: u64,
    /// How often it was reached in all of them.
    pub times: u64,
    /// The first of those seeds, with its scenario.
    pub first: Option<(String, u64)>,
}

impl MarkRow {
    /// A mark that was not reached yet.
    #[must_use]
    pub fn new(mark: &str, says: &str) -> MarkRow {
        MarkRow {
            mark: mark.to_owned(),
            says: says.to_owned(),
            seeds: 0,
            times: 0,
            first: None,
        }
    }
}

/// A kind of fault, over all seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct FaultTally {
    /// Seeds whose plans have it.
    pub drawn: u64,
    /// Of those, seeds in which it had an effect.
    pub hit: u64,
}

impl FaultTally {
    fn percent(self) -> u64 {
        self.hit * 100 / self.drawn.max(1)
    }
}

/// What a gate finds missing: marks that were never reached, faults that hardly ever hit.
pub(crate) fn unmet<'a>(
    marks: &[MarkRow],
    faults: impl Iterator<Item = (&'a String, &'a FaultTally)>,
) -> Vec<String> {
    let never = marks.iter().filter(|row| row.seeds == 0);
    let never = never.map(|row| format!("mark never reached: {} ({})", row.mark, row.says));
    let idle = faults.filter(|(_, tally)| tally.hit * 100 < tally.drawn * HITS_PERCENT_MIN);
    let idle = idle.map(|(kind, tally)| {
        format!(
            "fault hardly ever hits: {kind}, in {} of {} seeds that drew it ({} %, at least \
             {HITS_PERCENT_MIN} % are demanded)",
            grouped(tally.hit),
            grouped(tally.drawn),
            tally.percent()
        )
    });
    never.chain(idle).collect()
}

/// One line, or a few more when some marks were never reached.
pub(crate) fn summary(marks: &[MarkRow]) -> String {
    let never: Vec<&str> = marks
        .iter()
        .filter(|row| row.seeds == 0)
        .map(|row| row.mark.as_str())
        .collect();
    let reached = marks.len() - never.len();
    let mut text = format!("marks reached: {reached} of {}", marks.len());
    if never.len() > NEVER_SHOWN_MAX {
        text.push_str("; the others: see --marks");
    } else if !never.is_empty() {
        text.push_str("; never: ");
        list(&mut text, &never);
    }
    text.push_str("\n\n");
    text
}

/// Adds names to the last line of a text, and lines if they do not fit.
fn list(text: &mut String, names: &[&str]) {
    let mut width = text.chars().count();
    for (index, name) in names.iter().enumerate() {
        let last = index + 1 == names.len();
        let item = format!("{name}{}", if last { "" } else { ", " });
        if width + item.len() > LIST_WIDTH {
            text.truncate(text.trim_end().len());
            text.push_str("\n  ");
            width = 2;
        }
        width += item.len();
        text.push_str(&item);
    }
}

/// A row a mark.
pub(crate) fn table(marks: &[MarkRow]) -> String {
    let headings = [
        ("mark", Align::Left),
        ("seeds", Align::Right),
        ("times", Align::Right),
        ("what it says", Align::Left),
    ];
    let rows: Vec<Vec<String>> = marks
        .iter()
        .map(|row| {
            let says = row.says.clone();
            vec![
                row.mark.clone(),
                grouped(row.seeds),
                grouped(row.times),
                says,
            ]
        })
        .collect();
    draw(&headings, &rows)
}

/// A row a kind of fault.
pub(crate) fn faults_table<'a>(
    faults: impl Iterator<Item = (&'a String, &'a FaultTally)>,
) -> String {
    let headings = [
        ("fault", Align::Left),
        ("seeds that drew it", Align::Right),
        ("in which it hit", Align::Right),
        ("%", Align::Right),
    ];
    let rows: Vec<Vec<String>> = faults
        .map(|(kind, tally)| {
            let percent = tally.percent().to_string();
            vec![
                kind.clone(),
                grouped(tally.drawn),
                grouped(tally.hit),
                percent,
            ]
        })
        .collect();
    draw(&headings, &rows)
}
