//! Property 4: no output before its cause, no revision without a new event, no window closed early,
//! no watermark moving back, no watermark forced on a partition that was not idle, and nothing
//! called too late that the log does not show to be late.

use crate::Case;
use crate::evidence::{Commit, Kind, Output, object_fields};
use crate::history::{History, TopicRecord};
use crate::moment::{Forced, Happening};
use crate::oracle::{Fate, PartitionTruth};
use crate::verdict::{Findings, Property};
use std::collections::BTreeMap;

/// How far the clock of a worker may stand from the broker's when an idle partition is judged by
/// the broker's timestamps, latency included. Milliseconds.
pub const CLOCK_TOLERANCE_MS: i64 = 2_000;

/// Judges a case.
#[must_use]
pub fn check(case: &Case<'_>) -> Findings {
    let mut findings = Findings::of(Property::Causality);
    for partition in case.evidence.partitions() {
        let truth = case.oracle.partition(partition);
        let outputs = case.evidence.of_partition(partition);
        for output in outputs {
            if let Err(why) = caused(truth, output) {
                findings.add(|| format!("{}: {why}", output.place()));
            }
        }
        never_back(outputs, &mut findings);
        new_events_only(outputs, &mut findings);
        commits(case, partition, truth, &mut findings);
        within_the_log(case, partition, &mut findings);
        for forced in truth.forced() {
            idle(case, partition, *forced, &mut findings);
            within_the_run(case, partition, *forced, &mut findings);
        }
        forced_rise(partition, truth.forced(), &mut findings);
    }
    findings
}

/// The cause exists, the watermark is that of the cause, and it justifies the output.
fn caused(truth: &PartitionTruth, output: &Output<'_>) -> Result<(), String> {
    let moment = output.moment;
    let fate = truth.fate(moment.offset);
    if moment.happening == Happening::Record && fate.is_none() {
        return Err("its cause is not in the log".to_owned());
    }
    let forced = truth.newest_forced(moment);
    if output.forced != forced {
        return Err(format!(
            "it declares the forced advance {}, expected {}",
            show(output.forced),
            show(forced)
        ));
    }
    let expected = truth.watermark_after(moment);
    if output.watermark_ms != expected {
        return Err(format!(
            "header `watermark` is {}, expected {expected}",
            output.watermark_ms
        ));
    }
    match output.kind {
        Kind::Result => window_closed(truth, output, expected),
        Kind::DeadLetter => refused(truth, fate, output),
    }
}

fn show(forced: Option<Forced>) -> String {
    forced.map_or_else(|| "none".to_owned(), |forced| forced.to_string())
}

/// The window has ended by the watermark, and the result holds the events up to its cause.
fn window_closed(
    truth: &PartitionTruth,
    output: &Output<'_>,
    watermark_ms: i64,
) -> Result<(), String> {
    // What cannot be read is the business of window correctness.
    let Ok(row) = &output.row else {
        return Ok(());
    };
    if watermark_ms < row.window_end {
        return Err(format!(
            "the window is closed early: it ends at {}, the watermark is {watermark_ms}",
            row.window_end
        ));
    }
    let Some(window) = truth.windows.get(&(row.ticker.clone(), row.window_start)) else {
        return Err("no event of this window precedes it".to_owned());
    };
    let Some(content) = window.content_at(output.moment) else {
        return Err("no event of this window precedes it".to_owned());
    };
    if (output.event_set_hash.as_str(), row.count) != (&content.event_set_hash, content.count) {
        return Err(format!(
            "it holds {} events (set {}); at its cause the window has {} (set {})",
            row.count, output.event_set_hash, content.count, content.event_set_hash
        ));
    }
    Ok(())
}

/// A dead letter comes from a record, and `too_late` is justified by the lateness horizon: a
/// watermark that was forced counts only as far as the log itself confirms it.
fn refused(truth: &PartitionTruth, fate: Option<Fate>, output: &Output<'_>) -> Result<(), String> {
    if output.moment.happening != Happening::Record {
        return Err("an idle advance refuses nothing".to_owned());
    }
    match fate {
        Some(fate @ (Fate::Accepted | Fate::Duplicate)) if says_too_late(output) => Err(format!(
            "the record is called too late, but by the lateness horizon {} it is {fate}",
            truth
                .lateness_horizon(output.moment.offset)
                .unwrap_or(i64::MIN)
        )),
        _ => Ok(()),
    }
}

fn says_too_late(output: &Output<'_>) -> bool {
    let value = output.record.value.as_deref().unwrap_or_default();
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| object_fields(text).ok())
        .is_some_and(|fields| fields.contains(&("error_type".to_owned(), "\"too_late\"")))
}

/// In sequence order watermarks do not go back (causes are the business of order).
fn never_back(outputs: &[Output<'_>], findings: &mut Findings) {
    for pair in outputs.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        findings.require(before.watermark_ms <= after.watermark_ms, || {
            format!(
                "{}: its watermark {} is behind {} of the output before it",
                after.place(),
                after.watermark_ms,
                before.watermark_ms
            )
        });
    }
}

/// Each revision holds more events than the one before.
fn new_events_only(outputs: &[Output<'_>], findings: &mut Findings) {
    let mut newest: BTreeMap<(&str, i64), (&Output<'_>, i64)> = BTreeMap::new();
    for output in outputs {
        let Ok(row) = &output.row else {
            continue;
        };
        let window = (row.ticker.as_str(), row.window_start);
        if let Some((before, count)) = newest.insert(window, (output, row.count)) {
            findings.require(
                row.count > count && before.event_set_hash != output.event_set_hash,
                || {
                    format!(
                        "{}: has {} events after {count} of {}: a revision without a new event",
                        output.place(),
                        row.count,
                        before.place()
                    )
                },
            );
        }
    }
}

/// The watermarks of commit records are those of the log, and do not go back.
fn commits(case: &Case<'_>, partition: i32, truth: &PartitionTruth, findings: &mut Findings) {
    let mut before: Option<&Commit> = None;
    for commit in case.evidence.commits_of(partition) {
        let expected = Some(truth.watermark_after(commit.moment())).filter(|ms| *ms != i64::MIN);
        findings.require(commit.watermark_ms == expected, || {
            format!(
                "commit record of partition {partition} at offset {}: its watermark is {:?}, \
                 expected {expected:?}",
                commit.offset, commit.watermark_ms
            )
        });
        let declared = truth.newest_forced(commit.moment());
        findings.require(commit.forced == declared, || {
            format!(
                "commit record of partition {partition} at offset {}: it declares the forced \
                 advance {}, expected {}",
                commit.offset,
                show(commit.forced),
                show(declared)
            )
        });
        if let Some(before) = before {
            findings.require(before.watermark_ms <= commit.watermark_ms, || {
                format!(
                    "partition {partition}: the watermark goes back from {:?} in the commit at \
                     offset {} to {:?} in that at offset {}",
                    before.watermark_ms, before.offset, commit.watermark_ms, commit.offset
                )
            });
        }
        before = Some(commit);
    }
}

/// A forced advance is legitimate: the partition was read to the end that a consumer sees, and
/// nothing came for as long as the idle timeout. The worker forces its clock less the
/// out-of-orderness, so the advance tells its clock, and the broker's timestamps tell what was in
/// the log then.
///
/// The newest records stay invisible while replication is stalled or a producer's transaction is
/// open, so a worker that has read everything it can see may rightly take the partition for idle.
/// Lateness is exact regardless: such an advance makes no record too late that came before its
/// clock. What is older than [`History::hidden_ms_max`] was visible, and an advance over it has
/// taken a backlog for idleness.
fn idle(case: &Case<'_>, partition: i32, forced: Forced, findings: &mut Findings) {
    let History { rules, input, .. } = case.history;
    let clock_ms = forced
        .watermark_ms
        .saturating_add(rules.max_out_of_orderness_ms);
    let next = input
        .partition_point(|record| (record.partition, record.offset) < (partition, forced.position));
    let here = |record: &&TopicRecord| record.partition == partition;
    let hidden_since_ms = clock_ms
        .saturating_sub(case.history.hidden_ms_max)
        .saturating_sub(CLOCK_TOLERANCE_MS);
    let unread = input[next..]
        .iter()
        .take_while(here)
        .find(|record| record.timestamp_ms < hidden_since_ms);
    if let Some(unread) = unread {
        findings.add(|| {
            format!(
                "partition {partition}: forced advance {forced} at clock {clock_ms}, but offset {} \
                 was in the log since {}: an unread backlog is not idleness",
                unread.offset, unread.timestamp_ms
            )
        });
    }
    let newest = next.checked_sub(1).map(|at| &input[at]).filter(here);
    let latest_ms = clock_ms
        .saturating_sub(rules.idle_timeout_ms)
        .saturating_add(CLOCK_TOLERANCE_MS);
    if let Some(newest) = newest.filter(|record| record.timestamp_ms > latest_ms) {
        findings.add(|| {
            format!(
                "partition {partition}: forced advance {forced} at clock {clock_ms}, but offset {} \
                 had come at {}, less than the idle timeout of {} ms before",
                newest.offset, newest.timestamp_ms, rules.idle_timeout_ms
            )
        });
    }
    let committed = case
        .evidence
        .last_commit(partition)
        .map(|commit| commit.offset);
    findings.require(committed >= Some(forced.position), || {
        format!(
            "partition {partition}: forced advance {forced} stands behind the last committed offset \
             {committed:?}"
        )
    });
}

/// No offset is committed that the log has not reached.
fn within_the_log(case: &Case<'_>, partition: i32, findings: &mut Findings) {
    let ends = case.history.input_ends.as_deref();
    let number = usize::try_from(partition).ok();
    let Some(end) = ends.and_then(|ends| ends.get(number?)) else {
        return;
    };
    for commit in case.evidence.commits_of(partition) {
        findings.require(commit.offset <= *end, || {
            format!(
                "commit record of partition {partition} at offset {}: the log ends at {end}",
                commit.offset
            )
        });
    }
}

/// No clock that forced an advance was ahead of the end of the run.
fn within_the_run(case: &Case<'_>, partition: i32, forced: Forced, findings: &mut Findings) {
    let Some(ended_at_ms) = case.history.ended_at_ms else {
        return;
    };
    let clock_ms = forced
        .watermark_ms
        .saturating_add(case.history.rules.max_out_of_orderness_ms);
    findings.require(
        clock_ms <= ended_at_ms.saturating_add(CLOCK_TOLERANCE_MS),
        || {
            format!(
                "partition {partition}: forced advance {forced} at clock {clock_ms}, but the run \
                 ended at {ended_at_ms}"
            )
        },
    );
}

/// Each forced advance is higher than what was in force.
fn forced_rise(partition: i32, forced: &[Forced], findings: &mut Findings) {
    for pair in forced.windows(2) {
        findings.require(pair[0].watermark_ms < pair[1].watermark_ms, || {
            format!(
                "partition {partition}: the forced advance {} follows {}: the watermark goes back",
                pair[1], pair[0]
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use super::CLOCK_TOLERANCE_MS;
    use crate::evidence::Kind::{DeadLetter, Result};
    use crate::truth::{
        HIDDEN_MS_MAX, STALLED_FORCE_MS, T0, failed, messages, output, set_commit, set_header,
        small, stalled,
    };
    use crate::verdict::Property::*;

    #[test]
    fn a_watermark_that_moves_back_is_found() {
        let mut history = small();
        let early = (T0 + 60_000).to_string();
        set_header(output(&mut history, Result, 7), "watermark", &early);
        assert_eq!(failed(&history), [Causality]);
        let mut history = small();
        let late = format!("\"wm\":{}", T0 + 61_000);
        set_commit(&mut history, 3, &late, &format!("\"wm\":{}", T0 + 60_000));
        assert_eq!(failed(&history), [Causality]);
    }

    #[test]
    fn a_window_closed_early_is_found() {
        let mut history = small();
        for sequence in [2, 3] {
            // As if the record before had closed it.
            let early = output(&mut history, Result, sequence);
            set_header(early, "cause-offset", "16");
            set_header(early, "watermark", &(T0 + 25_000).to_string());
        }
        let found = messages(&history);
        assert!(found.contains("closed early"), "{found}");
    }

    #[test]
    fn an_output_before_its_cause_is_found() {
        let mut history = small();
        set_header(output(&mut history, DeadLetter, 8), "cause-offset", "99");
        assert_eq!(
            failed(&history),
            [Conservation, ExactlyOnceOut, Causality, Order]
        );
    }

    #[test]
    fn a_forced_advance_over_an_unread_backlog_is_found() {
        let mut history = small();
        // The last record was in the log when the partition was called idle, and just before it.
        for record in history
            .input
            .iter_mut()
            .filter(|record| record.partition == 1)
        {
            record.timestamp_ms = T0 + 299_000;
        }
        let found = messages(&history);
        assert!(found.contains("less than the idle timeout"), "{found}");
        let mut history = small();
        let mut unread = history.input[history.input.len() - 1].clone();
        unread.offset = 1;
        unread.timestamp_ms = T0 + 300_000 - HIDDEN_MS_MAX - CLOCK_TOLERANCE_MS - 1;
        history.input.push(unread);
        let found = messages(&history);
        assert!(
            found.contains("an unread backlog is not idleness"),
            "{found}"
        );
    }

    #[test]
    fn an_advance_while_replication_is_stalled_is_no_fault() {
        let history = stalled();
        assert!(history.input[1].timestamp_ms < STALLED_FORCE_MS - 200_000);
        assert_eq!(messages(&history), "");
    }

    #[test]
    fn an_advance_by_a_clock_from_after_the_end_is_found() {
        let mut history = small();
        history.ended_at_ms = Some(T0 + 300_000 - CLOCK_TOLERANCE_MS);
        assert_eq!(messages(&history), "");
        history.ended_at_ms = Some(T0 + 300_000 - CLOCK_TOLERANCE_MS - 1);
        assert_eq!(failed(&history), [Causality]);
        assert!(messages(&history).contains("but the run ended at"));
    }

    #[test]
    fn a_commit_beyond_the_end_of_the_log_is_found() {
        let mut history = small();
        assert_eq!(history.input_ends, Some(vec![24, 1]));
        history.input_ends = Some(vec![23, 1]);
        assert_eq!(failed(&history), [Causality]);
        assert!(messages(&history).contains("the log ends at 23"));
    }

    #[test]
    fn a_dead_letter_that_only_the_forced_watermark_justifies_is_found() {
        let mut history = stalled();
        // As if the refused record had stood in the log before the forced clock.
        history.input[2].timestamp_ms = T0 + 4_000;
        output(&mut history, DeadLetter, 2).timestamp_ms = T0 + 4_000;
        let found = messages(&history);
        assert!(failed(&history).contains(&Causality), "{found}");
        let why = format!("by the lateness horizon {} it is an accepted", T0 - 1_000);
        assert!(found.contains(&why), "{found}");
        assert!(!found.contains("not idleness"), "{found}");
    }

    #[test]
    fn a_forged_forced_advance_is_found() {
        let mut history = small();
        let forged = format!("18:{}", T0 + 3_600_000);
        let header = ("forced".to_owned(), bytes::Bytes::from(forged));
        output(&mut history, Result, 4).headers.push(header);
        let found = messages(&history);
        // The log does not confirm it, so the contents of windows are what they were; but by it they
        // would have been due sooner.
        assert_eq!(
            failed(&history),
            [Conservation, WindowCorrectness, Causality]
        );
        assert!(
            found.contains("an unread backlog is not idleness"),
            "{found}"
        );
    }

    #[test]
    fn a_revision_without_a_new_event_is_found() {
        let mut history = small();
        let first = output(&mut history, Result, 3).clone();
        let second = output(&mut history, Result, 4);
        second.value = first.value;
        let set = first
            .headers
            .iter()
            .find(|(name, _)| name == "event-set-hash");
        let set = String::from_utf8(set.expect("it has one").1.to_vec());
        set_header(second, "event-set-hash", &set.expect("it is text"));
        let found = messages(&history);
        assert!(found.contains("a revision without a new event"), "{found}");
    }
}
