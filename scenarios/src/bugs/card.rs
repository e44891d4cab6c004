//! What came of a hunt: one row a bug.

use super::Found;
use reports::quantity::grouped;
use reports::table::{Align, draw};
use serde::Serialize;

/// How one bug was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Score {
    /// Streams in which it was found.
    pub found_in: u64,
    /// Streams.
    pub streams: u64,
    /// Seeds to detection, of the streams: the middle one. `None`: not found.
    pub median: Option<u64>,
    /// Nine in ten streams needed no more.
    pub p90: Option<u64>,
    /// Who accused the first one that was found.
    pub by: Vec<String>,
}

impl Score {
    /// The score of a hunt, stream by stream.
    #[must_use]
    pub fn of(found: &[Option<Found>]) -> Score {
        let mut seeds: Vec<u64> = found.iter().flatten().map(|found| found.seeds).collect();
        seeds.sort_unstable();
        // Streams without an end lie behind all others.
        let at = |permille: usize| {
            let rank = (found.len() * permille).div_ceil(1_000).max(1);
            seeds.get(rank - 1).copied()
        };
        let first = found.iter().flatten().next();
        Score {
            found_in: seeds.len() as u64,
            streams: found.len() as u64,
            median: at(500),
            p90: at(900),
            by: first.map(|found| found.by.clone()).unwrap_or_default(),
        }
    }
}

/// One bug and its score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The bug.
    pub name: String,
    /// What is wrong.
    pub says: String,
    /// Where it comes from: a published failure.
    pub published: Option<String>,
    /// True if the processor was built with it, false if the world breaks a promise.
    pub in_processor: bool,
    /// How it was found.
    pub score: Score,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Card {
    /// Seeds of a stream until it was given up.
    pub seeds_max: u64,
    /// One a bug.
    pub rows: Vec<Row>,
}

impl Card {
    /// True when every bug was found in every stream.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let mut rows = self.rows.iter();
        rows.all(|row| row.score.found_in == row.score.streams)
    }
}

impl std::fmt::Display for Card {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let headings = [
            ("bug", Align::Left),
            ("in", Align::Left),
            ("published", Align::Left),
            ("found in", Align::Right),
            ("median", Align::Right),
            ("p90", Align::Right),
            ("accused by", Align::Left),
        ];
        let seeds = |seeds: Option<u64>| match seeds {
            Some(seeds) => grouped(seeds),
            None => format!("> {}", grouped(self.seeds_max)),
        };
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                let place = if row.in_processor {
                    "processor"
                } else {
                    "world"
                };
                vec![
                    row.name.clone(),
                    place.to_owned(),
                    row.published.clone().unwrap_or_default(),
                    format!("{} of {}", row.score.found_in, row.score.streams),
                    seeds(row.score.median),
                    seeds(row.score.p90),
                    row.score.by.join(", "),
                ]
            })
            .collect();
        write!(f, "{}", draw(&headings, &rows))?;
        let found = |row: &&Row| row.score.found_in == row.score.streams;
        let found = self.rows.iter().filter(found).count();
        let bugs = self.rows.len();
        writeln!(f, "\n{found} of {bugs} bugs were found in every stream")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(seeds: u64) -> Option<Found> {
        Some(Found {
            seeds,
            seed: 0,
            by: vec!["order".to_owned()],
        })
    }

    #[test]
    fn a_score_counts_streams_without_an_end_as_the_longest() {
        let five = [found(3), found(1), None, found(7), found(2)];
        let score = Score::of(&five);
        assert_eq!((score.median, score.p90), (Some(3), None));
        assert_eq!((score.found_in, score.streams), (4, 5));
        let one = Score::of(&[found(9)]);
        assert_eq!((one.median, one.p90), (Some(9), Some(9)));
        let none = Score::of(&[None]);
        assert_eq!((none.median, none.p90, none.by.len()), (None, None, 0));
    }
}
