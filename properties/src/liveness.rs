//! Property 6: once faults stop, everything in the log is processed within a bound. Judged when the
//! history is settled, that is, when the bound has passed; a refusal to go on is a failure at once.

use crate::Case;
use crate::history::Rules;
use crate::oracle::PartitionTruth;
use crate::verdict::{Findings, Property, Verdict};
use std::collections::BTreeSet;

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

/// Judges a case.
#[must_use]
pub fn check(case: &Case<'_>) -> Verdict {
    let history = case.history;
    let mut findings = Findings::of(Property::Liveness);
    for refusal in &history.refusals {
        findings.add(|| format!("the processor refused to go on: {refusal}"));
    }
    if !history.settled && findings.is_empty() {
        return Verdict::NotJudged {
            reason: format!(
                "the run ended before the processor had the time to finish: {} ms after the last \
                 record and fault",
                granted_ms(&history.rules)
            ),
        };
    }
    if history.settled {
        for stuck in &history.stuck {
            findings.add(|| stuck.clone());
        }
        let clock_ms = history.input.iter().map(|record| record.timestamp_ms).max();
        for (partition, truth) in case.oracle.partitions() {
            committed_to_the_end(case, partition, truth, &mut findings);
            windows_emitted(
                case,
                partition,
                truth,
                clock_ms.unwrap_or(i64::MAX),
                &mut findings,
            );
        }
    }
    findings.into_verdict(Property::Liveness).1
}

fn committed_to_the_end(
    case: &Case<'_>,
    partition: i32,
    truth: &PartitionTruth,
    findings: &mut Findings,
) {
    let committed = case
        .evidence
        .last_commit(partition)
        .map(|commit| commit.offset);
    let end = truth.last_offset().map(|last| last.saturating_add(1));
    findings.require(committed >= end, || {
        format!("partition {partition}: committed up to {committed:?}, expected at least {end:?}")
    });
}

/// Every window was emitted; only one that holds events from beyond the last clock of the log (a
/// producer whose clock is ahead) may still be open. A record that stood unseen in the log during a
/// forced advance is no exception: its window either ends at or before the forced watermark and is
/// emitted with the record, or waits for the next advance as any other.
fn windows_emitted(
    case: &Case<'_>,
    partition: i32,
    truth: &PartitionTruth,
    clock_ms: i64,
    findings: &mut Findings,
) {
    let shown: BTreeSet<(&str, i64)> = case
        .evidence
        .of_partition(partition)
        .iter()
        .filter_map(|output| output.row.as_ref().ok())
        .map(|row| (row.ticker.as_str(), row.window_start))
        .collect();
    for ((ticker, start), window) in &truth.windows {
        let may_be_open = window.revisions.is_empty() && window.latest_ms > clock_ms;
        findings.require(may_be_open || shown.contains(&(ticker.as_str(), *start)), || {
            format!(
                "source partition {partition}, window {ticker}@{start}: never emitted, though it \
                 holds {} events",
                window.members.len()
            )
        });
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
