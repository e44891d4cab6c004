//! The audit of a real cluster: its topics, read once and judged by the very checkers that judge
//! the simulation.
//!
//! Comes in: the processor's configuration and a [`Cluster`]. Goes out: an [`AuditReport`].
//! Never here: what is right and what is wrong (`properties`); how a report looks (`reports`).
//!
//! The processor may be running meanwhile. So the committed offsets are read first; the input is
//! judged up to them, and of the outputs those that they count. What lies behind is not yet
//! committed, which is no fault, unless the audit is to be complete.
//!
//! Memory does not grow with the topics, apart from some 20 bytes for each record of one input
//! partition: outputs and events are sorted on disk where they do not fit
//! ([`Judge`] and its module say what is kept).

mod cut;
mod error;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod recorded;
mod truncation;

pub use error::AuditError;

use cut::Cut;
use properties::evidence::{Commit, Kind};
use properties::history::{CommittedOffset, Facts, Rules, TopicRecord};
use properties::judge::{InputLog, Judge};
use properties::spill::Scratch;
use properties::{Property, Verdict, Verdicts};
use reports::audit::{AuditReport, Judged, NotCommitted};
use std::io;
use truncation::Truncation;

/// One of the pipeline's topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Events.
    Input,
    /// Window results.
    Output,
    /// Dead letters.
    DeadLetters,
}

/// From where to where a partition can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First offset that is still there.
    pub start: i64,
    /// Last stable offset: where a read_committed reader ends.
    pub stable_end: i64,
    /// End of the log when it was asked for; beyond `stable_end` only if a transaction stayed open.
    pub written_end: i64,
}

/// A cluster, as an auditor uses it.
pub trait Cluster {
    /// Unix milliseconds.
    fn now_ms(&self) -> i64;

    /// The committed offsets of the processor's group in the input topic.
    ///
    /// # Errors
    /// When they cannot be had.
    fn committed(&mut self) -> Result<Vec<CommittedOffset>, AuditError>;

    /// Every partition of a topic. Waits for open transactions, so that what was written before the
    /// call can be read; for a limited time.
    ///
    /// # Errors
    /// When there is no such topic, or no broker answers.
    fn extents(&mut self, topic: Topic) -> Result<Vec<Extent>, AuditError>;

    /// Hands over every committed record of a partition from `extent.start` up to
    /// `extent.stable_end`, by offset.
    ///
    /// # Errors
    /// When they cannot be read, or what `each` returns.
    fn read(
        &mut self,
        topic: Topic,
        partition: i32,
        extent: Extent,
        each: &mut dyn FnMut(&TopicRecord) -> io::Result<()>,
    ) -> Result<(), AuditError>;
}

/// What to audit, and how.
#[derive(Debug, Clone)]
pub struct Order {
    /// Rules of the pipeline.
    pub rules: Rules,
    /// Consumer group of the processor.
    pub group: String,
    /// Names of the topics: input, output, dead letters.
    pub topics: [String; 3],
    /// True: everything in the input must have been processed, and every window emitted.
    pub complete: bool,
    /// How long a record may have stood in the log, by its Kafka timestamp, before a consumer could
    /// see it. Milliseconds.
    pub hidden_ms_max: i64,
    /// See [`History::clock_error_ms`](properties::history::History::clock_error_ms).
    pub clock_error_ms: i64,
    /// Where to sort.
    pub scratch: Scratch,
}

/// Progress of an audit.
pub trait Progress {
    /// So many offsets are to be read.
    fn total(&mut self, offsets: u64);
    /// So many more offsets have been passed.
    fn advance(&mut self, offsets: u64);
}

/// Nobody watches.
impl Progress for () {
    fn total(&mut self, _offsets: u64) {}
    fn advance(&mut self, _offsets: u64) {}
}

/// Reads everything and judges it.
///
/// # Errors
/// When something cannot be read: then there is no verdict.
pub fn audit(
    order: &Order,
    cluster: &mut dyn Cluster,
    progress: &mut dyn Progress,
) -> Result<AuditReport, AuditError> {
    let committed = cluster.committed()?;
    let cut = Cut::new(order, &committed)?;
    // Asked for after the offsets: so they reach at least as far as what the offsets count.
    let outputs = cluster.extents(Topic::Output)?;
    let letters = cluster.extents(Topic::DeadLetters)?;
    let input = cluster.extents(Topic::Input)?;
    let mut log = InputReader {
        extents: cut.input(&input),
        judged: Judged::default(),
        cluster,
        progress,
        read: vec![0; input.len()],
        cut: &cut,
    };
    log.progress.total(
        [&log.extents, &outputs, &letters]
            .into_iter()
            .flatten()
            .map(|extent| length(*extent))
            .sum(),
    );
    let stuck = stuck(order, &outputs, &letters);
    let mut notes: Vec<String> = stuck
        .iter()
        .map(|stuck| format!("{stuck}; what is behind it cannot be seen"))
        .collect();
    let facts = Facts {
        rules: order.rules.clone(),
        input_topic: order.topics[0].clone(),
        input_partitions: i32::try_from(input.len()).unwrap_or(i32::MAX),
        commits: committed,
        commits_complete: false,
        input_ends: Some(input.iter().map(|extent| extent.stable_end).collect()),
        ended_at_ms: Some(log.cluster.now_ms()),
        hidden_ms_max: order.hidden_ms_max,
        clock_error_ms: order.clock_error_ms,
        settled: order.complete,
        stuck,
        refusals: Vec::new(),
    };
    let mut judge = Judge::new(facts, order.scratch.clone());
    let later = [
        log.publish(Topic::Output, &outputs, &mut judge)?,
        log.publish(Topic::DeadLetters, &letters, &mut judge)?,
    ];
    let mut verdicts = judge.verdicts(&mut log)?;
    let truncation = Truncation::new(
        order,
        &cut,
        [&input, &outputs, &letters],
        &log.read,
        log.judged,
    );
    truncation.lay_over(&mut verdicts);
    notes.extend(truncation.notes());
    not_applicable(order, &mut verdicts);
    let uncommitted = cut.uncommitted(&input);
    Ok(AuditReport {
        group: order.group.clone(),
        input_topic: order.topics[0].clone(),
        output_topic: order.topics[1].clone(),
        dead_letter_topic: order.topics[2].clone(),
        complete: order.complete,
        judged: log.judged,
        not_committed: NotCommitted {
            offsets: uncommitted.iter().sum(),
            partitions: uncommitted.iter().filter(|offsets| **offsets > 0).count() as u64,
            outputs: later.iter().sum(),
        },
        notes,
        verdicts,
    })
}

/// Offsets of an extent.
fn length(extent: Extent) -> u64 {
    u64::try_from(extent.stable_end.saturating_sub(extent.start)).unwrap_or(0)
}

/// Partitions of the outputs in which a transaction stayed open.
fn stuck(order: &Order, outputs: &[Extent], letters: &[Extent]) -> Vec<String> {
    let outputs = (0..)
        .zip(outputs)
        .map(|(partition, extent)| (&order.topics[1], partition, extent));
    let letters = (0..)
        .zip(letters)
        .map(|(partition, extent)| (&order.topics[2], partition, extent));
    outputs
        .chain(letters)
        .filter(|(_, _, extent)| extent.stable_end < extent.written_end)
        .map(|(topic, partition, extent): (&String, i32, &Extent)| {
            format!(
                "{topic} partition {partition}: stable up to {}, written up to {}: a transaction \
                 stayed open",
                extent.stable_end, extent.written_end
            )
        })
        .collect()
}

/// What one look at a real cluster cannot show.
fn not_applicable(order: &Order, verdicts: &mut Verdicts) {
    let reason = "a real run cannot be played twice".to_owned();
    verdicts.insert((Property::Determinism, Verdict::NotApplicable { reason }));
    let judged = matches!(
        verdicts.get(Property::Liveness),
        Some(Verdict::Failed { .. })
    );
    if !order.complete && !judged {
        let reason = "the processor may still be at work; --complete judges that it has finished";
        let reason = reason.to_owned();
        verdicts.insert((Property::Liveness, Verdict::NotJudged { reason }));
    }
}

/// Reads topics for the judge, and counts.
struct InputReader<'a> {
    cluster: &'a mut dyn Cluster,
    progress: &'a mut dyn Progress,
    cut: &'a Cut,
    /// What is to be read of each input partition.
    extents: Vec<Extent>,
    /// Records that were read of each input partition.
    read: Vec<u64>,
    judged: Judged,
}

impl InputReader<'_> {
    /// Hands a topic of outputs over; gives the number of those that are not yet committed.
    fn publish(
        &mut self,
        topic: Topic,
        extents: &[Extent],
        judge: &mut Judge,
    ) -> Result<u64, AuditError> {
        let kind = if topic == Topic::Output {
            Kind::Result
        } else {
            Kind::DeadLetter
        };
        let (mut taken, mut later) = (0, 0);
        for (partition, extent) in (0..).zip(extents) {
            let mut passed = Passed::new(*extent, self.progress);
            let cut = self.cut;
            self.cluster
                .read(topic, partition, *extent, &mut |record| {
                    passed.to(record.offset);
                    if cut.is_later(record) {
                        later += 1;
                        return Ok(());
                    }
                    taken += 1;
                    judge.published(kind, record)
                })?;
            passed.finish();
        }
        match kind {
            Kind::Result => self.judged.results = taken,
            Kind::DeadLetter => self.judged.dead_letters = taken,
        }
        Ok(later)
    }
}

impl InputLog for InputReader<'_> {
    type Error = AuditError;

    fn partitions(&self) -> Vec<i32> {
        (0..).take(self.extents.len()).collect()
    }

    fn read(
        &mut self,
        partition: i32,
        each: &mut dyn FnMut(&TopicRecord) -> io::Result<()>,
    ) -> Result<(), AuditError> {
        // An output may name a partition that the topic does not have.
        let number = usize::try_from(partition).ok();
        let Some((number, extent)) = number.and_then(|at| Some((at, *self.extents.get(at)?)))
        else {
            return Ok(());
        };
        let mut passed = Passed::new(extent, self.progress);
        let mut records = 0;
        self.cluster
            .read(Topic::Input, partition, extent, &mut |record| {
                passed.to(record.offset);
                records += 1;
                each(record)
            })?;
        passed.finish();
        self.read[number] = records;
        self.judged.records += records;
        Ok(())
    }
}

/// Offsets between two reports of progress.
const PROGRESS_STEP: i64 = 4_096;

/// How far a partition has been read.
struct Passed<'a> {
    next: i64,
    end: i64,
    progress: &'a mut dyn Progress,
}

impl<'a> Passed<'a> {
    fn new(extent: Extent, progress: &'a mut dyn Progress) -> Self {
        Self {
            next: extent.start,
            end: extent.stable_end,
            progress,
        }
    }

    fn to(&mut self, offset: i64) {
        if offset.saturating_sub(self.next) >= PROGRESS_STEP {
            self.report(offset);
        }
    }

    fn finish(mut self) {
        self.report(self.end);
    }

    fn report(&mut self, offset: i64) {
        let passed = u64::try_from(offset.saturating_sub(self.next)).unwrap_or(0);
        self.progress.advance(passed);
        self.next = offset;
    }
}

/// The commit records, read; those that are none are the business of the checkers.
fn commit_records(committed: &[CommittedOffset]) -> impl Iterator<Item = Commit> {
    committed.iter().filter_map(|one| Commit::read(one).ok())
}
