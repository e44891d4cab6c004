//! What the oracle makes of the log of one partition, for those who tell of a run.

use properties::evidence::Evidence;
use properties::history::History;
use properties::oracle::reading::Reader;
use properties::oracle::{LogTruth, Scan, WindowTruth};
use properties::spill::Scratch;

/// The log of a partition and its windows by (ticker, start); `None` if the log cannot be read.
pub(crate) fn of(
    history: &History,
    partition: i32,
    evidence: &Evidence,
) -> Option<(LogTruth, Vec<WindowTruth>)> {
    let (reader, scratch) = (Reader::new(&history.rules), Scratch::memory());
    let forced = evidence.known.forced_advances(partition);
    let mut scan = Scan::new(&history.rules, &reader, forced, &scratch);
    let records = history.input.iter();
    for record in records.filter(|record| record.partition == partition) {
        let _ = scan.record(record).ok()?;
    }
    let mut windows = scan.windows().ok()?;
    let mut all = Vec::new();
    while let Some(window) = windows.next_window().ok()? {
        all.push(window);
    }
    Some((windows.into_log(), all))
}
