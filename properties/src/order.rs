//! Property 5: per ticker, results appear in the order of the log. Also: what one moment causes
//! comes in the promised order (first the correction, then windows by end and ticker).

use crate::case::Shown;
use crate::evidence::Output;
use crate::moment::Moment;
use crate::verdict::Findings;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Judges one partition: its windows, its outputs in the order of the log, then in that of their
/// sequences.
#[derive(Debug, Default)]
pub struct Check {
    newest_of_ticker: BTreeMap<String, Rc<Output>>,
    newest: Option<Rc<Output>>,
}

impl Check {
    /// A window: in the order of the log, its revisions rise.
    pub fn window(&mut self, window: &Shown<'_>, findings: &mut Findings) {
        let mut in_log: Vec<&Output> = window.shown.iter().map(Rc::as_ref).collect();
        in_log.sort_by_key(|output| (output.partition, output.offset));
        for pair in in_log.windows(2) {
            let (before, output) = (pair[0].revision, pair[1]);
            findings.require(before < output.revision, || {
                format!(
                    "{}: stands behind revision {before} of its window",
                    output.place()
                )
            });
        }
    }

    /// The next output in the order of the log: all results of a ticker stand in one partition of
    /// the output topic, in the order of the input.
    pub fn in_log(&mut self, output: &Rc<Output>, findings: &mut Findings) {
        let Ok(window) = &output.window else {
            return;
        };
        let Some(newest) = self.newest_of_ticker.get_mut(&window.ticker) else {
            let ticker = window.ticker.clone();
            self.newest_of_ticker.insert(ticker, Rc::clone(output));
            return;
        };
        let before = std::mem::replace(newest, Rc::clone(output));
        findings.require(before.partition == output.partition, || {
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

    /// The next output in the order of sequences.
    pub fn in_sequence(&mut self, output: &Rc<Output>, findings: &mut Findings) {
        if let Some(before) = self.newest.replace(Rc::clone(output)) {
            findings.require(rank(&before) < rank(output), || {
                format!(
                    "{}: has a later sequence than {}",
                    output.place(),
                    before.place()
                )
            });
        }
    }
}

/// What decides the order of outputs of one source partition.
fn rank(output: &Output) -> (Moment, bool, i64, &str) {
    let (window_end, ticker) = match &output.window {
        Ok(window) => (window.end_ms, window.ticker.as_str()),
        Err(_) => (i64::MIN, ""),
    };
    (output.moment, output.revision == 0, window_end, ticker)
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
