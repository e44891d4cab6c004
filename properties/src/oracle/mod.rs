//! What should have come out, recomputed from the input log as a batch.
//!
//! Comes in: the rules, the whole input log, and the forced watermark advances that the outputs
//! declare. Goes out: the fate of every record, every window with its members and the moments of
//! its revisions, the watermark and the lateness horizon at any moment. Never here: anything that the outputs say besides
//! the forced advances.
//!
//! It is written unlike a stream processor. No window is open or closed while it reads:
//! - Every record is read by itself ([`reading`]).
//! - Equal identities are brought together by sorting; the first of each group is its leader, the
//!   others are repeats. A repeat never moves the watermark of the log, which is the running maximum
//!   over leaders. A leader that is refused as too late is counted in, and changes nothing: its time
//!   lies before its window's end, and that is behind either the watermark of the log or a forced
//!   advance that the clock of the log confirms, both of which never go back.
//! - A forced advance is made by a worker's clock, perhaps while records stand in the log that
//!   nobody can see yet. So it fires windows at once, but makes nothing late before the log's own
//!   clock (the running maximum over the Kafka timestamps of all records) has come as far.
//! - With that horizon known at every record, each record's fate follows by itself.
//! - Accepted events are grouped by sorting; when each window fires is found by binary search.

pub mod reading;
mod tally;
#[cfg(test)]
mod tests;
mod windows;

pub use tally::{Content, Member, Tally};
pub use windows::{Revision, WindowTruth};

use crate::history::{History, TopicRecord};
use crate::moment::{Forced, Happening, Moment};
use reading::{Event, Reader};
use std::collections::BTreeMap;
use std::fmt;

/// Why a record is refused: `error_type` of its dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Refusal {
    Malformed,
    MissingField,
    WrongType,
    UnknownTicker,
    PriceOutOfRange,
    VolumeOutOfRange,
    TimestampTooOld,
    TimestampInFuture,
    TooLate,
}

impl Refusal {
    /// As it is written in a dead letter.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed",
            Refusal::MissingField => "missing_field",
            Refusal::WrongType => "wrong_type",
            Refusal::UnknownTicker => "unknown_ticker",
            Refusal::PriceOutOfRange => "price_out_of_range",
            Refusal::VolumeOutOfRange => "volume_out_of_range",
            Refusal::TimestampTooOld => "timestamp_too_old",
            Refusal::TimestampInFuture => "timestamp_in_future",
            Refusal::TooLate => "too_late",
        }
    }

    /// Stage at which it is found, as it is written in a dead letter.
    #[must_use]
    pub fn stage(self) -> &'static str {
        match self {
            Refusal::Malformed | Refusal::MissingField | Refusal::WrongType => "decode",
            Refusal::TooLate => "window",
            _ => "validate",
        }
    }
}

/// What becomes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is in a window.
    Accepted,
    /// It repeats an event of its window and is only counted.
    Duplicate,
    /// It becomes a dead letter.
    Refused(Refusal),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Accepted => f.write_str("an accepted event"),
            Fate::Duplicate => f.write_str("a duplicate"),
            Fate::Refused(refusal) => write!(f, "a dead letter `{}`", refusal.name()),
        }
    }
}

/// How many records met which fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fates {
    /// In a window.
    pub accepted: u64,
    /// Repeats.
    pub duplicates: u64,
    /// Refused.
    pub refused: u64,
}

impl Fates {
    /// All records.
    #[must_use]
    pub fn records(self) -> u64 {
        self.accepted + self.duplicates + self.refused
    }
}

/// The truth of one input partition.
#[derive(Debug, Default)]
pub struct PartitionTruth {
    offsets: Vec<i64>,
    fates: Vec<Fate>,
    /// How many records met which fate, up to and including each.
    counted: Vec<Fates>,
    /// Watermark of the log after each record, without forced advances; `i64::MIN` before any event.
    log_watermarks: Vec<i64>,
    /// How far the clock of the log confirms a forced advance at each record: the highest Kafka
    /// timestamp up to and including it, less the out-of-orderness.
    confirmed: Vec<i64>,
    forced: Vec<Forced>,
    /// The highest watermark forced so far, after each of `forced`.
    forced_peaks: Vec<i64>,
    /// Windows by (ticker, start).
    pub windows: BTreeMap<(String, i64), WindowTruth>,
}

/// The truth of the whole input topic.
#[derive(Debug)]
pub struct Oracle {
    partitions: BTreeMap<i32, PartitionTruth>,
    nothing: PartitionTruth,
}

impl Oracle {
    /// Recomputes everything; `forced` holds the forced advances of each partition, sorted.
    #[must_use]
    pub fn new(history: &History, forced: &BTreeMap<i32, Vec<Forced>>) -> Self {
        let reader = Reader::new(&history.rules);
        let mut logs: BTreeMap<i32, &[TopicRecord]> = history
            .input
            .chunk_by(|left, right| left.partition == right.partition)
            .map(|records| (records[0].partition, records))
            .collect();
        // A partition without a record can be idle too.
        for partition in forced.keys() {
            logs.entry(*partition).or_default();
        }
        let partitions = logs
            .into_iter()
            .map(|(partition, records)| {
                let forced = forced.get(&partition).cloned().unwrap_or_default();
                let truth = PartitionTruth::new(history, &reader, records, forced);
                (partition, truth)
            })
            .collect();
        Self {
            partitions,
            nothing: PartitionTruth::default(),
        }
    }

    /// The truth of one partition (an empty one, if its log is empty).
    #[must_use]
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

/// An event with the place where it stands in its partition.
struct Placed {
    /// Number of its record in the partition.
    index: usize,
    window_start: i64,
    event: Event,
    repeats: bool,
}

impl PartitionTruth {
    fn new(
        history: &History,
        reader: &Reader<'_>,
        records: &[TopicRecord],
        forced: Vec<Forced>,
    ) -> Self {
        let rules = &history.rules;
        let mut truth = Self {
            offsets: records.iter().map(|record| record.offset).collect(),
            fates: vec![Fate::Accepted; records.len()],
            counted: Vec::new(),
            log_watermarks: vec![i64::MIN; records.len()],
            confirmed: running_maximum(records.iter().map(|record| {
                record
                    .timestamp_ms
                    .saturating_sub(rules.max_out_of_orderness_ms)
            })),
            forced_peaks: running_maximum(forced.iter().map(|forced| forced.watermark_ms)),
            forced,
            windows: BTreeMap::new(),
        };
        let mut placed = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            match reader.read(record) {
                Ok(event) => placed.push(Placed {
                    index,
                    window_start: event.time_ms.div_euclid(rules.window_ms) * rules.window_ms,
                    event,
                    repeats: false,
                }),
                Err(refusal) => truth.fates[index] = Fate::Refused(refusal),
            }
        }
        mark_repeats(&mut placed);
        truth.raise_watermarks(&placed, rules.max_out_of_orderness_ms);
        let kept_ms = rules.window_ms + rules.allowed_lateness_ms;
        placed.retain(|one| {
            let horizon = truth.horizon_at(one.index);
            let fate = if one.window_start.saturating_add(kept_ms) <= horizon {
                Fate::Refused(Refusal::TooLate)
            } else if one.repeats {
                Fate::Duplicate
            } else {
                Fate::Accepted
            };
            truth.fates[one.index] = fate;
            fate == Fate::Accepted
        });
        truth.counted = truth.fates.iter().scan(Fates::default(), counted).collect();
        placed.sort_unstable_by_key(|one| (one.event.ticker, one.window_start, one.index));
        truth.windows = windows::grouped(rules, &truth, &placed);
        truth
    }

    /// The running maximum over leaders, in log order (`placed` is in log order).
    fn raise_watermarks(&mut self, placed: &[Placed], out_of_orderness_ms: i64) {
        for leader in placed.iter().filter(|one| !one.repeats) {
            self.log_watermarks[leader.index] =
                leader.event.time_ms.saturating_sub(out_of_orderness_ms);
        }
        self.log_watermarks = running_maximum(self.log_watermarks.iter().copied());
    }

    /// Up to where windows are closed for good when the record with this number is judged.
    fn horizon_at(&self, index: usize) -> i64 {
        let of_log = index
            .checked_sub(1)
            .map_or(i64::MIN, |before| self.log_watermarks[before]);
        let forced = self.forced_watermark(self.offsets[index]);
        of_log.max(forced.min(self.confirmed[index]))
    }

    /// The lateness horizon by which the record at `offset` is judged, Unix milliseconds: its event
    /// is too late if its window's end plus the allowed lateness is not after it. `i64::MIN` before
    /// any event; `None` if there is no such record.
    #[must_use]
    pub fn lateness_horizon(&self, offset: i64) -> Option<i64> {
        self.index_of(offset).map(|index| self.horizon_at(index))
    }

    /// The highest watermark that was forced at or before `position`.
    fn forced_watermark(&self, position: i64) -> i64 {
        let known = self
            .forced
            .partition_point(|forced| forced.position <= position);
        known
            .checked_sub(1)
            .map_or(i64::MIN, |last| self.forced_peaks[last])
    }

    /// Watermark in force after `moment`, Unix milliseconds; `i64::MIN` before any event.
    #[must_use]
    pub fn watermark_after(&self, moment: Moment) -> i64 {
        let seen = self
            .offsets
            .partition_point(|offset| *offset < moment.position());
        let of_log = seen
            .checked_sub(1)
            .map_or(i64::MIN, |last| self.log_watermarks[last]);
        let forced = match moment.happening {
            Happening::Record => self.forced_watermark(moment.offset),
            Happening::Idle(watermark) => self
                .forced_watermark(moment.offset.saturating_sub(1))
                .max(watermark),
        };
        of_log.max(forced)
    }

    /// The newest declared advance at `moment`.
    #[must_use]
    pub fn newest_forced(&self, moment: Moment) -> Option<Forced> {
        let known = self
            .forced
            .partition_point(|forced| Moment::idle(forced.position, forced.watermark_ms) <= moment);
        known.checked_sub(1).map(|last| self.forced[last])
    }

    /// The declared forced advances, sorted by (position, watermark).
    #[must_use]
    pub fn forced(&self) -> &[Forced] {
        &self.forced
    }

    /// The fate of the record at `offset`, if there is one.
    #[must_use]
    pub fn fate(&self, offset: i64) -> Option<Fate> {
        self.index_of(offset).map(|index| self.fates[index])
    }

    /// Number of the record at `offset` among the partition's records, if there is one.
    #[must_use]
    pub fn index_of(&self, offset: i64) -> Option<usize> {
        self.offsets.binary_search(&offset).ok()
    }

    /// Every record: offset and fate, in log order.
    pub fn fates(&self) -> impl Iterator<Item = (i64, Fate)> {
        self.offsets.iter().copied().zip(self.fates.iter().copied())
    }

    /// The fates of all records below `offset`, counted.
    #[must_use]
    pub fn counted_below(&self, offset: i64) -> Fates {
        let below = self.offsets.partition_point(|one| *one < offset);
        below
            .checked_sub(1)
            .map_or_else(Fates::default, |last| self.counted[last])
    }

    /// Offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> Option<i64> {
        self.offsets.last().copied()
    }

    /// How many results the oracle expects up to and including `moment`.
    #[must_use]
    pub fn results_until(&self, moment: Moment) -> u64 {
        self.windows
            .values()
            .map(|window| window.revisions_until(moment).len() as u64)
            .sum()
    }
}

#[allow(clippy::unnecessary_wraps)] // the shape that `scan` asks for
fn counted(sums: &mut Fates, fate: &Fate) -> Option<Fates> {
    match fate {
        Fate::Accepted => sums.accepted += 1,
        Fate::Duplicate => sums.duplicates += 1,
        Fate::Refused(_) => sums.refused += 1,
    }
    Some(*sums)
}

fn running_maximum(values: impl Iterator<Item = i64>) -> Vec<i64> {
    values
        .scan(i64::MIN, |highest, value| {
            *highest = value.max(*highest);
            Some(*highest)
        })
        .collect()
}

/// Marks every event whose identity stands earlier in the log, in the same window.
fn mark_repeats(placed: &mut [Placed]) {
    let mut groups: Vec<(u32, i64, u128, usize)> = placed
        .iter()
        .enumerate()
        .filter(|(_, one)| one.event.can_repeat)
        .map(|(at, one)| (one.event.ticker, one.window_start, one.event.identity, at))
        .collect();
    groups.sort_unstable();
    for pair in groups.windows(2) {
        let ((ticker, start, identity, _), (next_ticker, next_start, next_identity, at)) =
            (pair[0], pair[1]);
        if (ticker, start, identity) == (next_ticker, next_start, next_identity) {
            placed[at].repeats = true;
        }
    }
}
