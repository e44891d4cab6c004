//! Property 5: per ticker, results appear in the order of the log. Also: what one moment causes
//! comes in the promised order (first the correction, then windows by end and ticker).

use crate::Case;
use crate::evidence::{Kind, Output};
use crate::moment::Moment;
use crate::verdict::{Findings, Property};
use std::collections::BTreeMap;

/// Judges a case.
#[must_use]
pub fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::of(Property::Order);
    for partition in case.evidence.partitions() {
        for pair in case.evidence.of_partition(partition).windows(2) {
            findings.require(rank(&pair[0]) < rank(&pair[1]), || {
                format!(
                    "{}: has a later sequence than {}",
                    pair[1].place(),
                    pair[0].place()
                )
            });
        }
    }
    per_ticker(case, &mut findings);
    findings
}

/// What decides the order of outputs of one source partition.
fn rank<'b>(output: &'b Output<'_>) -> (Moment, bool, i64, &'b str) {
    let (window_end, ticker) = match &output.row {
        Ok(row) => (row.window_end, row.ticker.as_str()),
        Err(_) => (i64::MIN, ""),
    };
    (output.moment, output.revision == 0, window_end, ticker)
}

/// All results of a ticker stand in one partition of the output topic, in the order of the log, and
/// the revisions of a window in their order.
fn per_ticker(case: &Case<'_>, findings: &mut Findings) {
    let mut newest: BTreeMap<(i32, &str), &Output<'_>> = BTreeMap::new();
    let mut revisions: BTreeMap<(i32, &str, i64), i64> = BTreeMap::new();
    let outputs = case.evidence.in_log_order(Kind::Result);
    for output in outputs {
        let Ok(row) = &output.row else {
            continue;
        };
        let ticker = (output.source_partition, row.ticker.as_str());
        if let Some(before) = newest.insert(ticker, output) {
            findings.require(before.record.partition == output.record.partition, || {
                format!(
                    "{}: stands in another partition than {}",
                    output.place(),
                    before.place()
                )
            });
            findings.require(before.moment <= output.moment, || {
                format!("{}: stands behind {}", output.place(), before.place())
            });
        }
        let window = (
            output.source_partition,
            row.ticker.as_str(),
            row.window_start,
        );
        if let Some(before) = revisions.insert(window, output.revision) {
            findings.require(before < output.revision, || {
                format!(
                    "{}: stands behind revision {before} of its window",
                    output.place()
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::evidence::Kind::Result;
    use crate::truth::{failed, output, set_header, small};
    use crate::verdict::Property::{ExactlyOnceOut, Order};

    #[test]
    fn results_of_a_ticker_that_stand_in_another_order_are_found() {
        let mut history = small();
        let offsets = [4, 5].map(|sequence| output(&mut history, Result, sequence).offset);
        output(&mut history, Result, 4).offset = offsets[1];
        output(&mut history, Result, 5).offset = offsets[0];
        assert_eq!(failed(&history), [ExactlyOnceOut, Order]);
    }

    #[test]
    fn sequences_that_disagree_with_the_log_are_found() {
        let mut history = small();
        set_header(output(&mut history, Result, 2), "sequence", "x");
        set_header(output(&mut history, Result, 3), "sequence", "2");
        let swapped = history.outputs.iter_mut().find(|record| {
            record
                .headers
                .iter()
                .any(|(name, value)| name == "sequence" && value == "x")
        });
        set_header(swapped.expect("it was set above"), "sequence", "3");
        assert_eq!(failed(&history), [Order]);
    }

    #[test]
    fn a_ticker_that_changes_its_partition_is_found() {
        let mut history = small();
        let moved = output(&mut history, Result, 9);
        moved.partition = 5;
        assert_eq!(failed(&history), [Order]);
    }
}
