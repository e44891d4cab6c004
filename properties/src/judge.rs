//! Leads records, windows and outputs past the checkers, one partition after the other.
//!
//! Comes in: outputs and dead letters in any order, then the input log, partition by partition.
//! Goes out: [`Verdicts`]. Never here: what is right and what is wrong.
//!
//! Memory: what each [`Sorter`](crate::spill::Sorter) may keep (six of them at a time), some 18
//! bytes for each input record of one partition, and one window with its results.

use crate::case::{Case, Shown};
use crate::causality::{self, Idleness};
use crate::conservation::{self, Letters};
use crate::evidence::{Evidence, InLog, InSequence, InWindow, Kind, Known, Output};
use crate::exactly_once_out;
use crate::fencing;
use crate::history::{Facts, History, TopicRecord};
use crate::liveness;
use crate::oracle::reading::Reader;
use crate::oracle::{LogTruth, Scan, WindowTruth, Windows};
use crate::order;
use crate::spill::{Scratch, Sorted, Spill};
use crate::verdict::{Findings, Property, Verdict, Verdicts};
use crate::window_correctness;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::io;
use std::iter::Peekable;
use std::rc::Rc;

/// The input topic, readable partition by partition.
pub trait InputLog {
    /// Why it cannot be read.
    type Error: From<io::Error>;

    /// Its partitions.
    fn partitions(&self) -> Vec<i32>;

    /// Hands every record of a partition over, in the order of offsets.
    ///
    /// # Errors
    /// When it cannot be read, or what `each` returns.
    fn read(
        &mut self,
        partition: i32,
        each: &mut dyn FnMut(&TopicRecord) -> io::Result<()>,
    ) -> Result<(), Self::Error>;
}

impl InputLog for &History {
    type Error = io::Error;

    fn partitions(&self) -> Vec<i32> {
        let named = self.input.iter().map(|record| record.partition);
        BTreeSet::from_iter(named).into_iter().collect()
    }

    fn read(
        &mut self,
        partition: i32,
        each: &mut dyn FnMut(&TopicRecord) -> io::Result<()>,
    ) -> io::Result<()> {
        let from = self
            .input
            .partition_point(|record| record.partition < partition);
        let records = self.input[from..].iter();
        records
            .take_while(|record| record.partition == partition)
            .try_for_each(each)
    }
}

/// Judges every property that one history can show. Determinism needs two runs: it is
/// "not judged" here; see [`crate::determinism::check`].
///
/// # Panics
/// Never: nothing leaves memory.
#[must_use]
pub fn judge(history: &History) -> Verdicts {
    judge_within(history, &Scratch::memory()).expect("what stays in memory can be read")
}

/// As [`judge`], with what does not fit into memory in `scratch`.
///
/// # Errors
/// When scratch space cannot be used.
pub fn judge_within(history: &History, scratch: &Scratch) -> io::Result<Verdicts> {
    let mut judge = Judge::new(history.facts(), scratch.clone());
    for (kind, topic) in [
        (Kind::Result, &history.outputs),
        (Kind::DeadLetter, &history.dead_letters),
    ] {
        for record in topic {
            judge.published(kind, record)?;
        }
    }
    judge.verdicts(&mut &*history)
}

/// Judges topics that are handed over record by record.
#[derive(Debug)]
pub struct Judge {
    facts: Facts,
    scratch: Scratch,
    evidence: Evidence,
}

impl Judge {
    /// Begins.
    #[must_use]
    pub fn new(facts: Facts, scratch: Scratch) -> Self {
        Self {
            evidence: Evidence::new(&facts.commits, &scratch),
            facts,
            scratch,
        }
    }

    /// A record of the output topic or of the dead-letter topic.
    ///
    /// # Errors
    /// When scratch space cannot be written.
    pub fn published(&mut self, kind: Kind, record: &TopicRecord) -> io::Result<()> {
        self.evidence.take(kind, record)
    }

    /// Reads the input and judges.
    ///
    /// # Errors
    /// When the log cannot be read or scratch space cannot be used.
    pub fn verdicts<L: InputLog>(self, log: &mut L) -> Result<Verdicts, L::Error> {
        let Self {
            facts,
            scratch,
            evidence,
        } = self;
        let Evidence {
            in_log,
            in_sequence,
            in_window,
            pointing,
            known,
            unreadable,
            pointless,
        } = evidence;
        let mut exactly_once_out = unreadable;
        exactly_once_out::pinned(
            facts.input_partitions,
            &known.commits,
            &mut exactly_once_out,
        );
        let mut court = Court {
            facts: &facts,
            known: &known,
            scratch: &scratch,
            reader: Reader::new(&facts.rules),
            streams: Streams {
                in_log: in_log.sorted()?.peekable(),
                in_sequence: in_sequence.sorted()?.peekable(),
                in_window: in_window.sorted()?.peekable(),
                letters: pointing.sorted()?.peekable(),
            },
            findings: AllFindings {
                conservation: pointless,
                exactly_once_out,
                window_correctness: Findings::of(Property::WindowCorrectness),
                causality: Findings::of(Property::Causality),
                order: Findings::of(Property::Order),
                fencing: Findings::of(Property::Fencing),
            },
            liveness: liveness::Check::new(&facts),
        };
        let mut partitions: BTreeSet<i32> = log.partitions().into_iter().collect();
        partitions.extend(known.partitions());
        for partition in partitions {
            court.partition(partition, log)?;
        }
        Ok(court.verdicts()?)
    }
}

/// The published records in every order, each read once.
struct Streams {
    in_log: Peekable<Sorted<InLog>>,
    in_sequence: Peekable<Sorted<InSequence>>,
    in_window: Peekable<Sorted<InWindow>>,
    letters: Letters,
}

struct AllFindings {
    conservation: Findings,
    exactly_once_out: Findings,
    window_correctness: Findings,
    causality: Findings,
    order: Findings,
    fencing: Findings,
}

/// The checkers at work.
struct Court<'a> {
    facts: &'a Facts,
    known: &'a Known,
    scratch: &'a Scratch,
    reader: Reader<'a>,
    streams: Streams,
    findings: AllFindings,
    liveness: liveness::Check<'a>,
}

/// The checkers of one partition.
struct Checks<'a> {
    conservation: conservation::Check<'a>,
    exactly_once_out: exactly_once_out::Check<'a>,
    causality: causality::Check,
    order: order::Check,
    fencing: fencing::Check<'a>,
}

impl<'a> Court<'a> {
    fn partition<L: InputLog>(&mut self, partition: i32, log: &mut L) -> Result<(), L::Error> {
        let case = Case::new(self.facts, self.known, partition);
        let mut checks = Checks {
            conservation: conservation::Check::new(&case, self.scratch),
            exactly_once_out: exactly_once_out::Check::new(&case),
            causality: causality::Check::default(),
            order: order::Check::default(),
            fencing: fencing::Check::new(&case),
        };
        let mut idleness = Idleness::new(self.facts, &case.forced);
        let reader = self.reader.clone();
        let mut scan = Scan::new(
            &self.facts.rules,
            &reader,
            case.forced.clone(),
            self.scratch,
        );
        log.read(partition, &mut |record| {
            self.liveness.record(record.timestamp_ms);
            idleness.record(record.offset, record.timestamp_ms);
            let read = scan.record(record)?;
            let (letters, findings) = (&mut self.streams.letters, &mut self.findings);
            checks
                .conservation
                .record(record, read, letters, &mut findings.conservation)
        })?;
        let log = self.windows(&case, scan.windows()?, &mut checks)?;
        self.outputs(partition, &log, &mut checks)?;
        self.finish(&case, &idleness, &log, checks)?;
        Ok(())
    }

    /// Every window that the log or an output knows, by ticker and start.
    fn windows(
        &mut self,
        case: &Case<'_>,
        mut windows: Windows<'_>,
        checks: &mut Checks<'_>,
    ) -> io::Result<LogTruth> {
        let mut truth = windows.next_window()?;
        let mut shown = self.next_shown(case.partition)?;
        loop {
            let (is_true, is_shown) = match by_key(truth.as_ref(), &shown) {
                None => break,
                Some(Ordering::Less) => (true, false),
                Some(Ordering::Equal) => (true, true),
                Some(Ordering::Greater) => (false, true),
            };
            self.window(
                case,
                truth.as_ref().filter(|_| is_true),
                if is_shown { &shown } else { &[] },
                windows.log(),
                checks,
            );
            if is_true {
                truth = windows.next_window()?;
            }
            if is_shown {
                shown = self.next_shown(case.partition)?;
            }
        }
        Ok(windows.into_log())
    }

    /// The results of the next window of which any is visible; none after the last.
    fn next_shown(&mut self, partition: i32) -> io::Result<Vec<Rc<Output>>> {
        let stream = &mut self.streams.in_window;
        let mut shown: Vec<Rc<Output>> = Vec::new();
        loop {
            let first = shown.first().cloned().map(InWindow);
            let belongs = |next: &InWindow| {
                next.0.source_partition == partition
                    && first.as_ref().is_none_or(|first| first.key() == next.key())
            };
            match next_of(stream, belongs)? {
                Some(InWindow(output)) => shown.push(output),
                None => return Ok(shown),
            }
        }
    }

    fn window(
        &mut self,
        case: &Case<'_>,
        truth: Option<&WindowTruth>,
        shown: &[Rc<Output>],
        log: &LogTruth,
        checks: &mut Checks<'_>,
    ) {
        let Some((ticker, start_ms)) = truth.map(key_of).or_else(|| key_shown(shown)) else {
            return;
        };
        let window = Shown {
            ticker,
            start_ms,
            truth,
            shown,
            log,
        };
        let findings = &mut self.findings;
        checks.conservation.window(&window);
        window_correctness::window(case, &window, &mut findings.window_correctness);
        checks.causality.window(&window, &mut findings.causality);
        checks.order.window(&window, &mut findings.order);
        self.liveness.window(case.partition, &window);
    }

    /// Every output, in the order of the log and then in that of sequences.
    fn outputs(
        &mut self,
        partition: i32,
        log: &LogTruth,
        checks: &mut Checks<'_>,
    ) -> io::Result<()> {
        let (streams, findings) = (&mut self.streams, &mut self.findings);
        let here = |next: &InLog| next.0.source_partition == partition;
        while let Some(InLog(output)) = next_of(&mut streams.in_log, here)? {
            let exactly_once_out = &mut findings.exactly_once_out;
            checks.exactly_once_out.in_log(&output, exactly_once_out);
            checks.order.in_log(&output, &mut findings.order);
            checks.fencing.in_log(&output, &mut findings.fencing);
        }
        let here = |next: &InSequence| next.0.source_partition == partition;
        while let Some(InSequence(output)) = next_of(&mut streams.in_sequence, here)? {
            let exactly_once_out = &mut findings.exactly_once_out;
            checks
                .exactly_once_out
                .in_sequence(&output, exactly_once_out);
            window_correctness::result_is_readable(&output, &mut findings.window_correctness);
            let causality = &mut findings.causality;
            checks.causality.in_sequence(&output, log, causality);
            checks.order.in_sequence(&output, &mut findings.order);
            checks.fencing.in_sequence(&output, &mut findings.fencing);
        }
        Ok(())
    }

    fn finish(
        &mut self,
        case: &Case<'_>,
        idleness: &Idleness,
        log: &LogTruth,
        checks: Checks<'_>,
    ) -> io::Result<()> {
        let findings = &mut self.findings;
        checks
            .conservation
            .finish(log, &mut findings.conservation)?;
        checks
            .exactly_once_out
            .finish(&mut findings.exactly_once_out);
        let causality = &mut findings.causality;
        checks.causality.finish(case, idleness, log, causality);
        checks.fencing.finish(&mut findings.fencing);
        self.liveness.partition(case, log);
        Ok(())
    }

    fn verdicts(mut self) -> io::Result<Verdicts> {
        let everywhere = (i32::MAX, i64::MAX);
        let letters = &mut self.streams.letters;
        conservation::pointing_nowhere(everywhere, letters, &mut self.findings.conservation)?;
        let AllFindings {
            conservation,
            exactly_once_out,
            window_correctness,
            causality,
            order,
            fencing,
        } = self.findings;
        let mut verdicts = Verdicts::default();
        verdicts.insert(conservation.into_verdict(Property::Conservation));
        verdicts.insert(exactly_once_out.into_verdict(Property::ExactlyOnceOut));
        verdicts.insert(window_correctness.into_verdict(Property::WindowCorrectness));
        verdicts.insert(causality.into_verdict(Property::Causality));
        verdicts.insert(order.into_verdict(Property::Order));
        verdicts.insert((Property::Liveness, self.liveness.finish()));
        verdicts.insert((
            Property::Determinism,
            Verdict::NotJudged {
                reason: "one run cannot show it: compare the trace hashes of two".to_owned(),
            },
        ));
        verdicts.insert(fencing.into_verdict(Property::Fencing));
        Ok(verdicts)
    }
}

/// The next item of a stream, if it belongs.
fn next_of<T: Spill>(
    stream: &mut Peekable<Sorted<T>>,
    belongs: impl Fn(&T) -> bool,
) -> io::Result<Option<T>> {
    let is_next = |next: &io::Result<T>| next.as_ref().map_or(true, &belongs);
    stream.next_if(is_next).transpose()
}

fn key_of(truth: &WindowTruth) -> (&str, i64) {
    (truth.ticker.as_str(), truth.start_ms)
}

fn key_shown(shown: &[Rc<Output>]) -> Option<(&str, i64)> {
    let window = shown.first()?.window.as_ref().ok()?;
    Some((window.ticker.as_str(), window.start_ms))
}

/// Which of the two comes first; `None` when both are at their end.
fn by_key(truth: Option<&WindowTruth>, shown: &[Rc<Output>]) -> Option<Ordering> {
    match (truth.map(key_of), key_shown(shown)) {
        (None, None) => None,
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (Some(truth), Some(shown)) => Some(truth.cmp(&shown)),
    }
}
