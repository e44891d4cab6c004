//! Property 4: no output before its cause, no revision without a new event, no window closed early,
//! no watermark moving back, no watermark forced on a partition that was not idle, and nothing
//! called too late that the log does not show to be late.

mod idleness;

pub use idleness::Idleness;

use crate::case::{Case, Shown};
use crate::evidence::{Commit, Kind, Output};
use crate::moment::{Forced, Happening};
use crate::oracle::{Fate, LogTruth};
use crate::verdict::Findings;
use std::rc::Rc;

/// How far the clock of a worker may stand from the broker's when an idle partition is judged by
/// the broker's timestamps, latency included. Milliseconds.
pub const CLOCK_TOLERANCE_MS: i64 = 2_000;

/// Judges one partition: its windows, its outputs in the order of their sequences, then the whole.
#[derive(Debug, Default)]
pub struct Check {
    newest: Option<Rc<Output>>,
}

impl Check {
    /// A window: each result holds what the window had at its cause, and each revision more than
    /// the one before.
    pub fn window(&mut self, window: &Shown<'_>, findings: &mut Findings) {
        for output in window.shown {
            // A wrong cause is complained about in the order of sequences.
            let closed = caused(window.log, output).map_or(Ok(()), |watermark_ms| {
                window_closed(window, output, watermark_ms)
            });
            if let Err(why) = closed {
                findings.add(|| format!("{}: {why}", output.place()));
            }
        }
        new_events_only(window.shown, findings);
    }

    /// The next output in the order of sequences. Watermarks do not go back (causes are the
    /// business of order).
    pub fn in_sequence(&mut self, output: &Rc<Output>, log: &LogTruth, findings: &mut Findings) {
        let judged = caused(log, output).and_then(|_| match output.kind {
            Kind::Result => Ok(()),
            Kind::DeadLetter => refused(log, output),
        });
        if let Err(why) = judged {
            findings.add(|| format!("{}: {why}", output.place()));
        }
        if let Some(before) = self.newest.replace(Rc::clone(output)) {
            findings.require(before.watermark_ms <= output.watermark_ms, || {
                format!(
                    "{}: its watermark {} is behind {} of the output before it",
                    output.place(),
                    output.watermark_ms,
                    before.watermark_ms
                )
            });
        }
    }

    /// Everything has been seen.
    pub fn finish(
        self,
        case: &Case<'_>,
        idleness: &Idleness,
        log: &LogTruth,
        findings: &mut Findings,
    ) {
        if !case.is_named {
            return;
        }
        commits(case, log, findings);
        within_the_log(case, findings);
        idleness.judge(case, findings);
        for forced in &case.forced {
            within_the_run(case, *forced, findings);
        }
        forced_rise(case.partition, &case.forced, findings);
    }
}

/// The cause exists, and the watermark and the forced advance are those of the cause; gives the
/// watermark.
fn caused(log: &LogTruth, output: &Output) -> Result<i64, String> {
    let moment = output.moment;
    if moment.happening == Happening::Record && log.index_of(moment.offset).is_none() {
        return Err("its cause is not in the log".to_owned());
    }
    let forced = log.newest_forced(moment);
    if output.forced != forced {
        return Err(format!(
            "it declares the forced advance {}, expected {}",
            show(output.forced),
            show(forced)
        ));
    }
    let expected = log.watermark_after(moment);
    if output.watermark_ms != expected {
        return Err(format!(
            "header `watermark` is {}, expected {expected}",
            output.watermark_ms
        ));
    }
    Ok(expected)
}

fn show(forced: Option<Forced>) -> String {
    forced.map_or_else(|| "none".to_owned(), |forced| forced.to_string())
}

/// The window has ended by the watermark, and the result holds the events up to its cause.
fn window_closed(shown: &Shown<'_>, output: &Output, watermark_ms: i64) -> Result<(), String> {
    // What cannot be read is the business of window correctness.
    let Ok(window) = &output.window else {
        return Ok(());
    };
    if watermark_ms < window.end_ms {
        return Err(format!(
            "the window is closed early: it ends at {}, the watermark is {watermark_ms}",
            window.end_ms
        ));
    }
    let content = shown
        .truth
        .and_then(|truth| truth.content_at(output.moment));
    let Some(content) = content else {
        return Err("no event of this window precedes it".to_owned());
    };
    if (output.event_set_hash.as_str(), window.count) != (&content.event_set_hash, content.count) {
        return Err(format!(
            "it holds {} events (set {}); at its cause the window has {} (set {})",
            window.count, output.event_set_hash, content.count, content.event_set_hash
        ));
    }
    Ok(())
}

/// A dead letter comes from a record, and `too_late` is justified by the lateness horizon: a
/// watermark that was forced counts only as far as the log itself confirms it.
fn refused(log: &LogTruth, output: &Output) -> Result<(), String> {
    if output.moment.happening != Happening::Record {
        return Err("an idle advance refuses nothing".to_owned());
    }
    match log.fate(output.moment.offset) {
        Some(fate @ (Fate::Accepted | Fate::Duplicate)) if output.says_too_late => Err(format!(
            "the record is called too late, but by the lateness horizon {} it is {fate}",
            log.lateness_horizon(output.moment.offset)
                .unwrap_or(i64::MIN)
        )),
        _ => Ok(()),
    }
}

/// Each revision holds more events than the one before.
fn new_events_only(shown: &[Rc<Output>], findings: &mut Findings) {
    let mut in_sequence: Vec<&Output> = shown.iter().map(Rc::as_ref).collect();
    in_sequence.sort_by_key(|output| (output.sequence, output.partition, output.offset));
    for pair in in_sequence.windows(2) {
        let (before, output) = (pair[0], pair[1]);
        let is_new = output.count() > before.count();
        findings.require(
            is_new && before.event_set_hash != output.event_set_hash,
            || {
                format!(
                    "{}: has {} events after {} of {}: a revision without a new event",
                    output.place(),
                    output.count(),
                    before.count(),
                    before.place()
                )
            },
        );
    }
}

/// The watermarks of commit records are those of the log, and do not go back.
fn commits(case: &Case<'_>, log: &LogTruth, findings: &mut Findings) {
    let partition = case.partition;
    let mut before: Option<&Commit> = None;
    for commit in &case.commits {
        let expected = Some(log.watermark_after(commit.moment())).filter(|ms| *ms != i64::MIN);
        findings.require(commit.watermark_ms == expected, || {
            format!(
                "commit record of partition {partition} at offset {}: its watermark is {:?}, \
                 expected {expected:?}",
                commit.offset, commit.watermark_ms
            )
        });
        let declared = log.newest_forced(commit.moment());
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
        before = Some(*commit);
    }
}

/// No offset is committed that the log has not reached.
fn within_the_log(case: &Case<'_>, findings: &mut Findings) {
    let partition = case.partition;
    let ends = case.facts.input_ends.as_deref();
    let number = usize::try_from(partition).ok();
    let Some(end) = ends.and_then(|ends| ends.get(number?)) else {
        return;
    };
    for commit in &case.commits {
        findings.require(commit.offset <= *end, || {
            format!(
                "commit record of partition {partition} at offset {}: the log ends at {end}",
                commit.offset
            )
        });
    }
}

/// No clock that forced an advance was ahead of the end of the run.
fn within_the_run(case: &Case<'_>, forced: Forced, findings: &mut Findings) {
    let partition = case.partition;
    let Some(ended_at_ms) = case.facts.ended_at_ms else {
        return;
    };
    let clock_ms = forced
        .watermark_ms
        .saturating_add(case.facts.rules.max_out_of_orderness_ms);
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
