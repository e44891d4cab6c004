//! Property 6: once faults stop, everything in the log is processed within a bound. Judged when the
//! history is settled, that is, when the bound has passed; a refusal to go on is a failure at once.

use crate::case::{Case, Shown};
use crate::history::{Facts, Rules};
use crate::oracle::LogTruth;
use crate::verdict::{Findings, Property, Verdict};

/// Time that a worker may need to recover once faults have stopped, milliseconds.
pub const RECOVERY_MS: i64 = 60_000;

/// The time that liveness grants once faults and input have stopped, milliseconds: a window waits
/// for its own end, for the watermark and for an idle advance of it, after a recovery.
#[must_use]
pub fn granted_ms(rules: &Rules) -> i64 {
    [
        rules.window_ms,
        rules.max_out_of_orderness_ms,
        rules.allowed_lateness_ms,
        rules.idle_timeout_ms,
        RECOVERY_MS,
    ]
    .into_iter()
    .fold(0, i64::saturating_add)
}

/// Judges all partitions, one after the other.
#[derive(Debug)]
pub struct Check<'a> {
    facts: &'a Facts,
    findings: Findings,
    /// Windows that may be open if the clock of the log has not reached their latest event:
    /// that event's time, and the complaint if it has.
    perhaps_open: Vec<(i64, String)>,
    /// Latest Kafka timestamp of any input record.
    clock_ms: Option<i64>,
}

impl<'a> Check<'a> {
    /// Begins.
    #[must_use]
    pub fn new(facts: &'a Facts) -> Self {
        let mut findings = Findings::of(Property::Liveness);
        for refusal in &facts.refusals {
            findings.add(|| format!("the processor refused to go on: {refusal}"));
        }
        Self {
            facts,
            findings,
            perhaps_open: Vec::new(),
            clock_ms: None,
        }
    }

    /// An input record.
    pub fn record(&mut self, timestamp_ms: i64) {
        self.clock_ms = self.clock_ms.max(Some(timestamp_ms));
    }

    /// A window: it was emitted. Only one that holds events from beyond the last clock of the log
    /// (a producer whose clock is ahead) may still be open. A record that stood unseen in the log
    /// during a forced advance is no exception: its window either ends at or before the forced
    /// watermark and is emitted with the record, or waits for the next advance as any other.
    pub fn window(&mut self, partition: i32, window: &Shown<'_>) {
        let Some(truth) = window.truth else { return };
        if !self.facts.settled || !window.shown.is_empty() {
            return;
        }
        let complaint = || {
            format!(
                "source partition {partition}, window {}@{}: never emitted, though it holds {} \
                 events",
                window.ticker,
                window.start_ms,
                truth.members.len()
            )
        };
        if truth.revisions.is_empty() {
            self.perhaps_open.push((truth.latest_ms, complaint()));
        } else {
            self.findings.add(complaint);
        }
    }

    /// A partition has been seen: it is committed to its end.
    pub fn partition(&mut self, case: &Case<'_>, log: &LogTruth) {
        if !self.facts.settled {
            return;
        }
        let committed = case.last_commit().map(|commit| commit.offset);
        let end = log.last_offset().map(|last| last.saturating_add(1));
        self.findings.require(committed >= end, || {
            format!(
                "partition {}: committed up to {committed:?}, expected at least {end:?}",
                case.partition
            )
        });
    }

    /// All partitions have been seen.
    #[must_use]
    pub fn finish(mut self) -> Verdict {
        let facts = self.facts;
        if !facts.settled && self.findings.is_empty() {
            return Verdict::NotJudged {
                reason: format!(
                    "the run ended before the processor had the time to finish: {} ms after the \
                     last record and fault",
                    granted_ms(&facts.rules)
                ),
            };
        }
        for stuck in facts.stuck.iter().filter(|_| facts.settled) {
            self.findings.add(|| stuck.clone());
        }
        let clock_ms = self.clock_ms.unwrap_or(i64::MAX);
        for (latest_ms, complaint) in self.perhaps_open {
            self.findings.require(latest_ms > clock_ms, || complaint);
        }
        self.findings.into_verdict(Property::Liveness).1
    }
}

#[cfg(test)]
mod tests {
    use crate::truth::{STALLED_FORCE_MS, Story, T0, failed, messages, small};
    use crate::verdict::Property::*;
    use crate::verdict::Verdict;

    #[test]
    fn an_end_that_was_not_committed_is_found() {
        let mut history = small();
        history.commits.retain(|commit| commit.partition == 0);
        assert_eq!(failed(&history), [ExactlyOnceOut, Causality, Liveness]);
    }

    #[test]
    fn a_window_that_was_never_emitted_is_found() {
        let mut history = small();
        // Partition 1 was never called idle: its only window stays open.
        history.commits.pop();
        let of_one = |name: &str, value: &[u8]| name == "source-partition" && value == b"1";
        history.outputs.retain(|record| {
            !record
                .headers
                .iter()
                .any(|(name, value)| of_one(name, value))
        });
        assert_eq!(failed(&history), [Liveness]);
        history.settled = false;
        assert_eq!(failed(&history), []);
    }

    #[test]
    fn a_window_that_a_record_unseen_during_an_advance_opens_must_be_emitted() {
        let rest = r#""price":100,"volume":1"#;
        // Forced to 295 at the clock 300. The unseen record had come at 297; its window ends at 300.
        let told = |next_advance_s: Option<i64>| {
            let mut story = Story::new();
            story.event((0, 0), 1, 1, "AMZN", rest);
            story.force(0, 1, STALLED_FORCE_MS);
            story.event((0, 1), 297, 296, "AMZN", rest);
            story.commit(0, 2);
            if let Some(advance_s) = next_advance_s {
                story.force(0, 2, T0 + advance_s * 1000);
            }
            story.finish()
        };
        assert_eq!(failed(&told(None)), [Liveness]);
        assert_eq!(messages(&told(Some(360))), "");
    }

    #[test]
    fn a_transaction_that_stays_open_is_found() {
        let mut history = small();
        let stuck = "output partition 0: stable up to 7, written up to 9";
        history.stuck.push(stuck.to_owned());
        assert_eq!(failed(&history), [Liveness]);
        assert!(messages(&history).contains(stuck));
        history.settled = false;
        assert_eq!(failed(&history), []);
    }

    #[test]
    fn a_refusal_is_a_failure_whether_settled_or_not() {
        let mut history = small();
        history.settled = false;
        assert!(matches!(
            crate::judge(&history).get(Liveness),
            Some(Verdict::NotJudged { .. })
        ));
        history.refusals.push("digest differs".to_owned());
        assert_eq!(failed(&history), [Liveness]);
    }
}
