//! The truth of a whole small history at once, for tests.

use super::reading::Reader;
use super::{LogTruth, Scan, WindowTruth};
use crate::history::History;
use crate::moment::{Forced, Moment};
use crate::spill::Scratch;
use std::collections::BTreeMap;
use std::ops::Deref;

/// The truth of one input partition.
#[derive(Debug, Default)]
pub struct PartitionTruth {
    log: LogTruth,
    /// Windows by (ticker, start).
    pub windows: BTreeMap<(String, i64), WindowTruth>,
}

impl Deref for PartitionTruth {
    type Target = LogTruth;

    fn deref(&self) -> &LogTruth {
        &self.log
    }
}

impl PartitionTruth {
    /// How many results the oracle expects up to and including `moment`.
    pub fn results_until(&self, moment: Moment) -> u64 {
        self.windows
            .values()
            .map(|window| window.revisions_until(moment).len() as u64)
            .sum()
    }
}

/// The truth of the whole input topic.
#[derive(Debug)]
pub struct Oracle {
    partitions: BTreeMap<i32, PartitionTruth>,
    nothing: PartitionTruth,
}

impl Oracle {
    /// Recomputes everything; `forced` holds the forced advances of each partition, sorted.
    pub fn new(history: &History, forced: &BTreeMap<i32, Vec<Forced>>) -> Self {
        let named = history.input.iter().map(|record| record.partition);
        let partitions = named.chain(forced.keys().copied()).map(|partition| {
            let forced = forced.get(&partition).cloned().unwrap_or_default();
            (partition, truth_of(history, partition, forced))
        });
        Self {
            partitions: partitions.collect(),
            nothing: PartitionTruth::default(),
        }
    }

    /// The truth of one partition (an empty one, if its log is empty).
    pub fn partition(&self, partition: i32) -> &PartitionTruth {
        self.partitions.get(&partition).unwrap_or(&self.nothing)
    }

    /// All partitions that have records or forced advances.
    pub fn partitions(&self) -> impl Iterator<Item = (i32, &PartitionTruth)> {
        self.partitions
            .iter()
            .map(|(partition, truth)| (*partition, truth))
    }
}

fn truth_of(history: &History, partition: i32, forced: Vec<Forced>) -> PartitionTruth {
    let (reader, scratch) = (Reader::new(&history.rules), Scratch::memory());
    let mut scan = Scan::new(&history.rules, &reader, forced, &scratch);
    for record in history
        .input
        .iter()
        .filter(|record| record.partition == partition)
    {
        let _ = scan.record(record).expect("nothing is spilled");
    }
    let mut windows = scan.windows().expect("nothing is spilled");
    let mut by_key = BTreeMap::new();
    while let Some(window) = windows.next_window().expect("nothing is spilled") {
        by_key.insert((window.ticker.clone(), window.start_ms), window);
    }
    PartitionTruth {
        log: windows.into_log(),
        windows: by_key,
    }
}
