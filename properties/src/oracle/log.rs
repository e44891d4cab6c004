//! What the log of one partition shows at any moment: fates, watermark, lateness horizon.

use super::{Fate, Fates, Refusal};
use crate::moment::{Forced, Happening, Moment};

/// Records between two of the sums that are kept.
const RECORDS_A_SUM: usize = 1_024;

/// The truth of the log of one input partition.
#[derive(Debug, Default)]
pub struct LogTruth {
    offsets: Offsets,
    fates: Vec<Fate>,
    /// How many records met which fate, before each stretch of [`RECORDS_A_SUM`].
    counted: Vec<Fates>,
    /// Watermark of the log after each record, without forced advances; `i64::MIN` before any event.
    log_watermarks: Vec<i64>,
    /// How far the clock of the log confirms a forced advance at each record: the highest Kafka
    /// timestamp up to and including it, less the out-of-orderness. Empty where nothing is forced.
    confirmed: Vec<i64>,
    clock_ms: Option<i64>,
    forced: Vec<Forced>,
    /// The highest watermark forced so far, after each of `forced`.
    forced_peaks: Vec<i64>,
}

impl LogTruth {
    /// A log without records; `forced` is sorted by (position, watermark).
    pub(super) fn new(forced: Vec<Forced>) -> Self {
        let mut highest = i64::MIN;
        let peak = |forced: &Forced| {
            highest = highest.max(forced.watermark_ms);
            highest
        };
        Self {
            forced_peaks: forced.iter().map(peak).collect(),
            forced,
            ..Self::default()
        }
    }

    /// Adds a record and gives its number. Its fate holds until it is settled.
    pub(super) fn push(&mut self, offset: i64, confirmed_ms: i64, fate: Fate) -> usize {
        let index = self.fates.len();
        self.offsets.push(offset);
        self.fates.push(fate);
        self.log_watermarks.push(i64::MIN);
        let clock_ms = self
            .clock_ms
            .map_or(confirmed_ms, |ms| ms.max(confirmed_ms));
        self.clock_ms = Some(clock_ms);
        if !self.forced.is_empty() {
            self.confirmed.push(clock_ms);
        }
        index
    }

    /// The event with this number leads: its time less the out-of-orderness moves the watermark.
    pub(super) fn lead(&mut self, index: usize, watermark_ms: i64) {
        self.log_watermarks[index] = watermark_ms;
    }

    /// All leaders are known: the watermark is the running maximum over them.
    pub(super) fn raise_watermarks(&mut self) {
        let mut highest = i64::MIN;
        for watermark in &mut self.log_watermarks {
            highest = highest.max(*watermark);
            *watermark = highest;
        }
    }

    /// Sets the fate of the record with this number.
    pub(super) fn settle(&mut self, index: usize, fate: Fate) {
        self.fates[index] = fate;
    }

    /// All fates are settled and can be counted.
    pub(super) fn settled(mut self) -> Self {
        let mut sums = Fates::default();
        self.counted = Vec::with_capacity(self.fates.len() / RECORDS_A_SUM + 2);
        for stretch in self.fates.chunks(RECORDS_A_SUM) {
            self.counted.push(sums);
            stretch.iter().for_each(|fate| sums.add(*fate));
        }
        self.counted.push(sums);
        self
    }

    /// Up to where windows are closed for good when the record with this number is judged.
    pub(super) fn horizon_at(&self, index: usize) -> i64 {
        let of_log = index
            .checked_sub(1)
            .map_or(i64::MIN, |before| self.log_watermarks[before]);
        let confirmed = self.confirmed.get(index).copied().unwrap_or(i64::MIN);
        let forced = self.forced_watermark(self.offsets.at(index));
        of_log.max(forced.min(confirmed))
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
        let seen = self.offsets.below(moment.position());
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

    /// The first record at which the watermark of the log is at or past `watermark_ms`.
    pub(super) fn first_at(&self, watermark_ms: i64) -> Option<i64> {
        let before = self
            .log_watermarks
            .partition_point(|watermark| *watermark < watermark_ms);
        (before < self.fates.len()).then(|| self.offsets.at(before))
    }

    /// The first forced advance to `watermark_ms` or further.
    pub(super) fn first_forced_to(&self, watermark_ms: i64) -> Option<Forced> {
        let before = self
            .forced_peaks
            .partition_point(|watermark| *watermark < watermark_ms);
        self.forced.get(before).copied()
    }

    /// The newest declared advance at `moment`.
    #[must_use]
    pub fn newest_forced(&self, moment: Moment) -> Option<Forced> {
        let known = self
            .forced
            .partition_point(|forced| Moment::idle(forced.position, forced.watermark_ms) <= moment);
        known.checked_sub(1).map(|last| self.forced[last])
    }

    /// The fate of the record at `offset`, if there is one.
    #[must_use]
    pub fn fate(&self, offset: i64) -> Option<Fate> {
        self.index_of(offset).map(|index| self.fates[index])
    }

    /// Number of the record at `offset` among the partition's records, if there is one.
    #[must_use]
    pub fn index_of(&self, offset: i64) -> Option<usize> {
        let index = self.offsets.below(offset);
        (index < self.fates.len() && self.offsets.at(index) == offset).then_some(index)
    }

    /// Offset of the record with this number.
    pub(super) fn offset_of(&self, index: usize) -> i64 {
        self.offsets.at(index)
    }

    /// Every record: offset and fate, in log order.
    pub fn fates(&self) -> impl Iterator<Item = (i64, Fate)> {
        self.offsets.iter().zip(self.fates.iter().copied())
    }

    /// The fates of all records below `offset`, counted.
    #[must_use]
    pub fn counted_below(&self, offset: i64) -> Fates {
        let below = self.offsets.below(offset);
        let stretch = below / RECORDS_A_SUM;
        let mut sums = self.counted.get(stretch).copied().unwrap_or_default();
        for fate in &self.fates[stretch * RECORDS_A_SUM..below] {
            sums.add(*fate);
        }
        sums
    }

    /// Offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> Option<i64> {
        let last = self.fates.len().checked_sub(1)?;
        Some(self.offsets.at(last))
    }
}

/// Rising offsets, as stretches without a gap.
#[derive(Debug, Default)]
struct Offsets {
    /// First offset of a stretch, and the number of its record.
    stretches: Vec<(i64, usize)>,
    count: usize,
}

impl Offsets {
    fn push(&mut self, offset: i64) {
        let next = self
            .stretches
            .last()
            .map(|stretch| self.next_after(*stretch));
        if next != Some(offset) {
            self.stretches.push((offset, self.count));
        }
        self.count += 1;
    }

    /// The offset that follows without a gap on what is there of the newest stretch.
    fn next_after(&self, (offset, number): (i64, usize)) -> i64 {
        offset.saturating_add(length(self.count - number))
    }

    /// The offset of the record with this number, which must be there.
    fn at(&self, index: usize) -> i64 {
        let stretch = self
            .stretches
            .partition_point(|(_, number)| *number <= index)
            - 1;
        let (offset, number) = self.stretches[stretch];
        offset.saturating_add(length(index - number))
    }

    /// How many offsets are lower than this one.
    fn below(&self, offset: i64) -> usize {
        let after = self.stretches.partition_point(|(first, _)| *first < offset);
        let Some(stretch) = after.checked_sub(1) else {
            return 0;
        };
        let (first, number) = self.stretches[stretch];
        let end = self
            .stretches
            .get(after)
            .map_or(self.count, |(_, number)| *number);
        let into = usize::try_from(offset.saturating_sub(first)).unwrap_or(usize::MAX);
        number.saturating_add(into).min(end)
    }

    fn iter(&self) -> impl Iterator<Item = i64> {
        let ends = self.stretches.iter().skip(1).map(|(_, number)| *number);
        let ends = ends.chain([self.count]);
        self.stretches
            .iter()
            .zip(ends)
            .flat_map(|((offset, number), end)| {
                *offset..offset.saturating_add(length(end - number))
            })
    }
}

fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What a valid event may still be when its window is judged.
pub(super) const UNSETTLED: Fate = Fate::Refused(Refusal::TooLate);

#[cfg(test)]
mod tests {
    use super::Offsets;

    #[test]
    fn offsets_with_gaps_are_found_again() {
        let all = [-3, 5, 6, 7, 9, 20, 21, i64::MAX - 1];
        let mut offsets = Offsets::default();
        all.iter().for_each(|offset| offsets.push(*offset));
        assert!(offsets.iter().eq(all));
        for (index, offset) in all.into_iter().enumerate() {
            assert_eq!(offsets.at(index), offset);
        }
        for probe in [-4, -3, -2, 4, 5, 6, 7, 8, 9, 10, 19, 20, 21, 22, i64::MAX] {
            let lower = all.iter().filter(|offset| **offset < probe).count();
            assert_eq!(offsets.below(probe), lower, "{probe}");
        }
    }
}
