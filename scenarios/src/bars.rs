//! Published minute bars beside the results of a run.

use properties::history::TopicRecord;
use reports::quantity::{grouped, percent};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Differences that are shown.
const SHOWN_MAX: usize = 5;

/// Volumes by ticker and window start (Unix seconds).
pub type Volumes = BTreeMap<(String, i64), u64>;

/// What can be wrong with a file of bars.
#[derive(Debug, thiserror::Error)]
#[error("bars {path}: {reason}; give a CSV file with the heading ticker,window_start,open,high,low,close,volume (window_start in Unix seconds)", path = path.display())]
pub struct BarsError {
    path: PathBuf,
    reason: String,
}

#[derive(Deserialize)]
struct Bar {
    ticker: String,
    window_start: i64,
    volume: u64,
}

#[derive(Deserialize)]
struct ResultFields {
    ticker: String,
    window_start: i64,
    count: u64,
    total_volume: u64,
    revision: u64,
}

/// Reads a file of bars.
///
/// # Errors
/// When it cannot be read, or a line is no bar (with its number).
pub fn read(path: &Path) -> Result<Volumes, BarsError> {
    let wrong = |e: csv::Error| BarsError {
        path: path.to_owned(),
        reason: e.to_string(),
    };
    let mut reader = csv::Reader::from_path(path).map_err(wrong)?;
    let mut volumes = Volumes::new();
    for bar in reader.deserialize() {
        let bar: Bar = bar.map_err(wrong)?;
        volumes.insert((bar.ticker, bar.window_start), bar.volume);
    }
    Ok(volumes)
}

/// Events in the last revision of every window.
#[must_use]
pub fn events_in_windows(outputs: &[TopicRecord]) -> u64 {
    newest(outputs).values().map(|result| result.count).sum()
}

/// The volumes of the last revision of every window.
#[must_use]
pub fn of_results(outputs: &[TopicRecord]) -> Volumes {
    newest(outputs)
        .into_iter()
        .map(|(key, result)| (key, result.total_volume))
        .collect()
}

fn newest(outputs: &[TopicRecord]) -> BTreeMap<(String, i64), ResultFields> {
    let mut newest: BTreeMap<(String, i64), ResultFields> = BTreeMap::new();
    for output in outputs {
        let value = output.value.as_deref().unwrap_or_default();
        // What is no result is the affair of the properties.
        let Ok(result) = serde_json::from_slice::<ResultFields>(value) else {
            continue;
        };
        let key = (result.ticker.clone(), result.window_start.div_euclid(1_000));
        match newest.get(&key) {
            Some(known) if known.revision >= result.revision => {}
            _ => {
                newest.insert(key, result);
            }
        }
    }
    newest
}

/// A window whose volumes differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Ticker.
    pub ticker: String,
    /// Unix seconds.
    pub window_start: i64,
    /// Volume of the run.
    pub result: u64,
    /// Volume of the bar.
    pub bar: u64,
}

/// The comparison.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Comparison {
    /// Windows on both sides.
    pub compared: u64,
    /// Of these, windows of equal volume.
    pub equal: u64,
    /// Bars without a result.
    pub only_bars: u64,
    /// Results without a bar.
    pub only_results: u64,
    /// The first windows of different volume.
    pub differences: Vec<Difference>,
}

/// Compares results with bars.
#[must_use]
pub fn compare(results: &Volumes, bars: &Volumes) -> Comparison {
    let mut comparison = Comparison::default();
    for (key, bar) in bars {
        let Some(result) = results.get(key) else {
            comparison.only_bars += 1;
            continue;
        };
        comparison.compared += 1;
        if result == bar {
            comparison.equal += 1;
        } else if comparison.differences.len() < SHOWN_MAX {
            comparison.differences.push(Difference {
                ticker: key.0.clone(),
                window_start: key.1,
                result: *result,
                bar: *bar,
            });
        }
    }
    let only_results = results
        .keys()
        .filter(|key| !bars.contains_key(*key))
        .count();
    comparison.only_results = only_results as u64;
    comparison
}

impl Comparison {
    /// The comparison as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "bars: {} of {} volumes agree ({}); bars without a result: {}, results without a bar: {}\n",
            grouped(self.equal),
            grouped(self.compared),
            percent(self.equal, self.compared),
            grouped(self.only_bars),
            grouped(self.only_results),
        );
        for difference in &self.differences {
            text.push_str(&format!(
                "  {} {}: volume {} in the results, {} in the bars\n",
                difference.ticker,
                difference.window_start,
                grouped(difference.result),
                grouped(difference.bar),
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{compare, of_results, read};
    use bytes::Bytes;
    use properties::history::TopicRecord;
    use std::path::Path;

    fn result(start_ms: i64, volume: u64, revision: u64) -> TopicRecord {
        let value = format!(
            "{{\"ticker\":\"AIG\",\"window_start\":{start_ms},\"count\":1,\"total_volume\":{volume},\"revision\":{revision}}}"
        );
        TopicRecord {
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: None,
            value: Some(Bytes::from(value)),
            headers: Vec::new(),
        }
    }

    #[test]
    fn the_last_revision_is_compared_and_both_sides_are_counted() {
        let outputs = [
            result(60_000, 100, 0),
            result(60_000, 150, 1),
            result(120_000, 7, 0),
            result(180_000, 9, 0),
        ];
        let key = |start: i64| ("AIG".to_owned(), start);
        let bars = [(key(60), 150), (key(120), 8), (key(240), 1)].into();
        let comparison = compare(&of_results(&outputs), &bars);
        assert_eq!((comparison.compared, comparison.equal), (2, 1));
        assert_eq!((comparison.only_bars, comparison.only_results), (1, 1));
        assert!(comparison.text().contains("1 of 2 volumes agree (50.00 %)"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read(Path::new("/nowhere/bars.csv"))
            .expect_err("absent")
            .to_string();
        assert!(
            error.contains("/nowhere/bars.csv") && error.contains("heading"),
            "{error}"
        );
    }
}
