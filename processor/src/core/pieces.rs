//! The identities of a bucket in the state store, as immutable pieces.
//!
//! A bucket in the store is one *head* (what its windows have summed up, and which segments there are)
//! and some *segments* of identities. Identities are only ever added, so what came since the last time
//! becomes a segment of its own; and once these additions are as many as what was there before them,
//! everything is rewritten into one. So an identity is written about three times at most, and a bucket
//! has few segments.

use crate::core::id_set::IdSet;
use crate::core::rules::{CoreConfig, TickerIndex};
use crate::core::sealed::{Reader, begin, seal};
use crate::core::snapshot::SnapshotError;
use crate::core::window::{Bucket, Question};
use crate::io::{BucketKey, PieceKey, StateBatch};
use bytes::Bytes;
use std::collections::BTreeMap;

const SEGMENT_MAGIC: [u8; 4] = *b"TPKI";
/// Bytes of an identity.
pub(super) const ID_BYTES: usize = size_of::<u128>();
/// Identities of one segment: 16 MiB, so that no piece is awkward to hold or to send.
const SEGMENT_IDS_MAX: usize = 1 << 20;
/// Additions are rewritten when they are as many identities as what was there before them, and at
/// least so many segments;
const ADDITIONS_MIN: usize = 8;
/// and when they are so many segments, whatever they hold.
const ADDITIONS_MAX: usize = 32;

/// A stored segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub key: PieceKey,
    /// Identities in it.
    pub ids: u64,
    pub bytes: u64,
}

/// What the state store holds of a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StoredBucket {
    /// The newest head and its size; `None` until first written.
    pub head: Option<(PieceKey, u64)>,
    /// Segments, in the order in which they were written.
    pub segments: Vec<Segment>,
    /// How many of the segments come from the newest rewriting; the others are additions.
    pub rewritten: usize,
}

impl StoredBucket {
    /// All its pieces and their sizes.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (PieceKey, u64)> {
        let segments = self.segments.iter();
        self.head
            .into_iter()
            .chain(segments.map(|segment| (segment.key, segment.bytes)))
    }

    /// True if it is time to rewrite all segments, with another addition of `fresh` identities.
    fn is_rewriting_due(&self, fresh: u64) -> bool {
        let (base, additions) = self.segments.split_at(self.rewritten);
        let ids = |segments: &[Segment]| segments.iter().map(|segment| segment.ids).sum::<u64>();
        let count = additions.len() + 1;
        count >= ADDITIONS_MAX || (count >= ADDITIONS_MIN && ids(additions) + fresh >= ids(base))
    }
}

/// Puts the identities that no piece holds yet into segments.
pub(super) fn store_ids(config: &CoreConfig, bucket: &mut Bucket, batch: &mut StateBatch) {
    let fresh: u64 = bucket
        .windows_mut()
        .map(|window| window.fresh.len() as u64)
        .sum();
    if fresh == 0 {
        return;
    }
    // Only a resident bucket knows what to rewrite.
    let is_rewriting = bucket.resident && bucket.stored.is_rewriting_due(fresh);
    let mut writer = SegmentWriter::new(bucket.start);
    for window in bucket.in_ticker_order() {
        let ids = if is_rewriting {
            window.ids.sorted()
        } else {
            let mut fresh = window.fresh.clone();
            fresh.sort_unstable();
            fresh
        };
        writer.push(&config.ticker(window.ticker).symbol, &ids);
    }
    for window in bucket.windows_mut() {
        window.stored_ids = window.id_count();
        window.fresh = Vec::new();
    }
    if !bucket.resident {
        bucket.make_absent();
    }
    let written = writer.finish();
    bucket.dirty = true;
    let stored = &mut bucket.stored;
    if is_rewriting {
        let replaced = std::mem::take(&mut stored.segments);
        batch
            .deletes
            .extend(replaced.into_iter().map(|segment| segment.key));
        stored.rewritten = written.len();
    }
    for (segment, content) in written {
        stored.segments.push(segment);
        batch.puts.push((segment.key, content));
    }
}

/// Takes the identities of all segments into memory. `contents` in the order of the segments.
pub(super) fn load_ids(
    config: &CoreConfig,
    bucket: &mut Bucket,
    contents: &[Bytes],
) -> Result<(), SnapshotError> {
    for window in bucket.windows_mut() {
        window.ids = IdSet::with_capacity(window.id_count() as usize);
    }
    let segments = bucket.stored.segments.clone();
    for (segment, content) in segments.iter().zip(contents) {
        let start = bucket.start;
        for group in read_segment(config, start, segment.key, content)? {
            let (ticker, ids) = group?;
            let Some(window) = bucket.window_of(ticker) else {
                return Err(damaged(start, "they are of a ticker that has no window"));
            };
            for id in ids {
                if !window.ids.insert(id_of(id)) {
                    return Err(damaged(start, "an identity is there twice"));
                }
            }
        }
    }
    let is_whole = segments.len() == contents.len()
        && bucket
            .windows_mut()
            .all(|window| window.ids.len() as u64 == window.stored_ids);
    if !is_whole {
        let what = "their number is not the one that the head tells";
        return Err(damaged(bucket.start, what));
    }
    for window in bucket.windows_mut() {
        for &id in &window.fresh {
            window.ids.insert(id);
        }
    }
    bucket.resident = true;
    Ok(())
}

/// Answers those of the questions that this segment holds: its window start's, ascending.
pub(super) fn find_ids<'a>(
    config: &CoreConfig,
    key: PieceKey,
    content: &[u8],
    questions: impl Iterator<Item = (&'a Question, &'a mut bool)>,
) -> Result<(), SnapshotError> {
    let mut by_ticker: BTreeMap<TickerIndex, &[[u8; ID_BYTES]]> = BTreeMap::new();
    // A segment that was cut at its limit holds a ticker once, like any other.
    for group in read_segment(config, key.bucket.0, key, content)? {
        let (ticker, ids) = group?;
        by_ticker.insert(ticker, ids);
    }
    for ((_, ticker, id), answer) in questions {
        if let Some(ids) = by_ticker.get(ticker) {
            *answer |= ids.binary_search_by_key(id, id_of).is_ok();
        }
    }
    Ok(())
}

/// Identities of one ticker, ascending.
type Group<'a> = (TickerIndex, &'a [[u8; ID_BYTES]]);

/// The groups of a segment, one a ticker.
fn read_segment<'a>(
    config: &CoreConfig,
    start: i64,
    key: PieceKey,
    content: &'a [u8],
) -> Result<impl Iterator<Item = Result<Group<'a>, SnapshotError>>, SnapshotError> {
    if !key.names(content) {
        return Err(SnapshotError::damaged(key));
    }
    let mut reader = Reader::open(part_of(start), SEGMENT_MAGIC, content)?;
    if reader.i64()? != start {
        return Err(reader.damaged("they are of another window start"));
    }
    Ok(std::iter::from_fn(move || {
        (!reader.is_at_end()).then(|| read_group(config, &mut reader))
    }))
}

fn read_group<'a>(
    config: &CoreConfig,
    reader: &mut Reader<'a>,
) -> Result<Group<'a>, SnapshotError> {
    let length = reader.count(1)?;
    let symbol = reader.take(length)?;
    let ticker = config.find_ticker(symbol).ok_or_else(|| {
        SnapshotError::UnknownTicker(String::from_utf8_lossy(symbol).into_owned())
    })?;
    let count = reader.count(ID_BYTES)?;
    let (ids, _) = reader.take(count * ID_BYTES)?.as_chunks();
    Ok((ticker, ids))
}

fn id_of(bytes: &[u8; ID_BYTES]) -> u128 {
    u128::from_le_bytes(*bytes)
}

fn damaged(start: i64, what: &'static str) -> SnapshotError {
    let part = part_of(start);
    SnapshotError::Damaged { part, what }
}

fn part_of(start: i64) -> String {
    format!("identities of window start {start}")
}

/// Writes identities, ticker by ticker, into segments of limited size.
struct SegmentWriter {
    start: i64,
    out: Vec<u8>,
    ids: usize,
    written: Vec<(Segment, Bytes)>,
}

impl SegmentWriter {
    fn new(start: i64) -> Self {
        SegmentWriter {
            start,
            out: Vec::new(),
            ids: 0,
            written: Vec::new(),
        }
    }

    fn push(&mut self, symbol: &[u8], mut ids: &[u128]) {
        while !ids.is_empty() {
            if self.out.is_empty() {
                self.out = begin(SEGMENT_MAGIC);
                self.out.extend_from_slice(&self.start.to_le_bytes());
            }
            let room = SEGMENT_IDS_MAX - self.ids;
            let (now, later) = ids.split_at(ids.len().min(room));
            self.out
                .extend_from_slice(&(symbol.len() as u64).to_le_bytes());
            self.out.extend_from_slice(symbol);
            self.out
                .extend_from_slice(&(now.len() as u64).to_le_bytes());
            self.out.reserve(now.len() * ID_BYTES);
            for id in now {
                self.out.extend_from_slice(&id.to_le_bytes());
            }
            self.ids += now.len();
            if self.ids == SEGMENT_IDS_MAX {
                self.end_segment();
            }
            ids = later;
        }
    }

    fn end_segment(&mut self) {
        if self.ids == 0 {
            return;
        }
        let content = seal(std::mem::take(&mut self.out));
        let segment = Segment {
            key: PieceKey::of(BucketKey(self.start), &content),
            ids: self.ids as u64,
            bytes: content.len() as u64,
        };
        self.ids = 0;
        self.written.push((segment, content));
    }

    fn finish(mut self) -> Vec<(Segment, Bytes)> {
        self.end_segment();
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments after so many additions of `ids` identities each, and identities written in all.
    fn play(additions: u64, ids: u64) -> (usize, u64) {
        let mut stored = StoredBucket::default();
        let (mut most, mut written, mut all) = (0, 0, 0);
        for nth in 0..additions {
            let key = PieceKey::of(BucketKey(0), &nth.to_le_bytes());
            all += ids;
            let is_rewriting = stored.is_rewriting_due(ids);
            let now = if is_rewriting { all } else { ids };
            if is_rewriting {
                stored.segments.clear();
            }
            stored.segments.push(Segment {
                key,
                ids: now,
                bytes: 0,
            });
            if is_rewriting {
                stored.rewritten = 1;
            }
            written += now;
            most = most.max(stored.segments.len());
        }
        (most, written)
    }

    #[test]
    fn segments_stay_few_and_identities_are_written_about_three_times() {
        for additions in [1, 7, 8, 9, 30, 100, 1_000] {
            let (most, written) = play(additions, 1_000);
            assert!(most <= ADDITIONS_MAX, "{most} segments");
            // Rewriting at ADDITIONS_MAX costs more, but a bucket is open for minutes only.
            if additions <= 100 {
                assert!(written <= additions * 3_500, "{written} of {additions}");
            }
        }
    }
}
