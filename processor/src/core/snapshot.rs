//! The state of a partition as bytes, and back.
//!
//! Two kinds of blobs, each with magic, version and a checksum at its end: one header (the ledger,
//! and start and checksum of every bucket, so that a stale, missing or foreign bucket is noticed)
//! and one blob a bucket. Integers are little-endian; texts and lists carry their length. Equal
//! states give equal bytes.

use crate::core::digest::Digest;
use crate::core::id_set::IdSet;
use crate::core::ledger::{Counters, ForcedAdvance, Ledger};
use crate::core::rules::{CoreConfig, Fingerprint};
use crate::core::window::{Aggregate, Bucket, Buckets, Edge, Window};
use crate::core::{MAX_TIMESTAMP_MS, WINDOW_MS};
use crate::io::{BucketKey, StateBatch};
use crate::units::{LogTimeMs, Offset, PartitionId, Watermark};
use bytes::Bytes;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// Version that this release writes; it reads no other.
const VERSION: u16 = 1;
const HEADER_MAGIC: [u8; 4] = *b"TPKH";
const BUCKET_MAGIC: [u8; 4] = *b"TPKB";
const CHECKSUM_BYTES: usize = 8;

/// State to write since the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChanges {
    /// Everything but the windows; replaces the previous header.
    pub header: Bytes,
    /// Buckets to write and to drop. A bucket's key is its window start; one bucket holds the
    /// windows of all tickers with that start, with their identities.
    pub batch: StateBatch,
}

/// A snapshot that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes are something else.
    #[error(
        "the {part} is not a snapshot part of this program; check that the checkpoint URL and prefix name the right place"
    )]
    NotASnapshot {
        /// Which part.
        part: String,
    },
    /// Another format version.
    #[error(
        "the {part} has format version {found}, this release reads version {VERSION}; start the release that wrote it, stop it cleanly, then switch"
    )]
    OtherVersion {
        /// Which part.
        part: String,
        /// Its version.
        found: u16,
    },
    /// The bytes are not those that were written.
    #[error(
        "the {part} is damaged ({what}); restore an older checkpoint or an intact copy of this file"
    )]
    Damaged {
        /// Which part.
        part: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A bucket that the header lists was not given.
    #[error(
        "the bucket of window start {0} is missing; restore all files of one checkpoint together"
    )]
    BucketMissing(i64),
    /// A bucket was given that the header does not list.
    #[error(
        "the bucket of window start {0} does not belong to this header; restore all files of one checkpoint together"
    )]
    BucketUnexpected(i64),
    /// A bucket has other bytes than when the header was written.
    #[error(
        "the bucket of window start {0} is of another moment than this header; restore all files of one checkpoint together"
    )]
    BucketOfOtherMoment(i64),
    /// A window's ticker is not in the reference data.
    #[error(
        "the snapshot holds a window of ticker `{0}`, which the reference data does not have; add it to [[reference.ticker]] again, or stop cleanly under the old configuration after its windows have closed"
    )]
    UnknownTicker(String),
}

/// Fingerprint of the configuration under which a header was written.
///
/// # Errors
/// [`SnapshotError`] when the header is damaged or of another version.
pub fn snapshot_fingerprint(header: &[u8]) -> Result<Fingerprint, SnapshotError> {
    let mut reader = Reader::open("header".to_owned(), HEADER_MAGIC, header)?;
    Ok(Fingerprint(reader.u64()?))
}

pub(super) fn encode(
    config: &CoreConfig,
    ledger: &Ledger,
    buckets: &mut Buckets,
    mut dropped: Vec<BucketKey>,
) -> StateChanges {
    let mut puts = Vec::new();
    for bucket in buckets.iter_mut().filter(|bucket| bucket.dirty) {
        let content = encode_bucket(config, bucket);
        bucket.stored = Some(checksum_of(&content));
        bucket.dirty = false;
        puts.push((BucketKey(bucket.start), content));
    }
    dropped.sort_unstable();
    StateChanges {
        header: encode_header(config.fingerprint(), ledger, buckets),
        batch: StateBatch {
            puts,
            deletes: dropped,
        },
    }
}

pub(super) fn decode(
    config: &CoreConfig,
    header: &[u8],
    contents: impl IntoIterator<Item = (BucketKey, Bytes)>,
) -> Result<(Ledger, Buckets), SnapshotError> {
    let (ledger, listed) = decode_header(header)?;
    let mut given: BTreeMap<BucketKey, Bytes> = contents.into_iter().collect();
    let mut buckets = Buckets::default();
    for (start, checksum) in listed {
        let content = given
            .remove(&BucketKey(start))
            .ok_or(SnapshotError::BucketMissing(start))?;
        let bucket = decode_bucket(config, start, &content)?;
        if bucket.stored != Some(checksum) {
            return Err(SnapshotError::BucketOfOtherMoment(start));
        }
        buckets.insert(buckets.len(), bucket);
    }
    match given.keys().next() {
        Some(left) => Err(SnapshotError::BucketUnexpected(left.0)),
        None => Ok((ledger, buckets)),
    }
}

fn encode_header(fingerprint: Fingerprint, ledger: &Ledger, buckets: &Buckets) -> Bytes {
    let Ledger {
        partition,
        position,
        watermark,
        log_watermark,
        newest_log_time,
        forced,
        next_sequence,
        digest,
        counters,
    } = ledger;
    let Counters {
        records,
        accepted,
        duplicates,
        dead_letters,
        results,
    } = counters;
    let mut out = begin(HEADER_MAGIC);
    out.extend_from_slice(&fingerprint.0.to_le_bytes());
    out.extend_from_slice(&partition.0.to_le_bytes());
    out.extend_from_slice(&position.0.to_le_bytes());
    out.extend_from_slice(&watermark.0.to_le_bytes());
    out.extend_from_slice(&log_watermark.0.to_le_bytes());
    out.extend_from_slice(&newest_log_time.0.to_le_bytes());
    out.push(u8::from(forced.is_some()));
    if let Some(forced) = forced {
        out.extend_from_slice(&forced.offset.0.to_le_bytes());
        out.extend_from_slice(&forced.watermark.0.to_le_bytes());
    }
    out.extend_from_slice(&digest.0.to_le_bytes());
    for number in [
        next_sequence,
        records,
        accepted,
        duplicates,
        dead_letters,
        results,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&(buckets.len() as u64).to_le_bytes());
    for bucket in buckets.iter() {
        let stored = bucket
            .stored
            .expect("all buckets were written just before the header");
        out.extend_from_slice(&bucket.start.to_le_bytes());
        out.extend_from_slice(&stored.to_le_bytes());
    }
    seal(out)
}

type ListedBuckets = Vec<(i64, u64)>;

fn decode_header(header: &[u8]) -> Result<(Ledger, ListedBuckets), SnapshotError> {
    let mut reader = Reader::open("header".to_owned(), HEADER_MAGIC, header)?;
    reader.u64()?; // the fingerprint
    let partition = PartitionId(i32::from_le_bytes(reader.array()?));
    let position = Offset(reader.i64()?);
    let watermark = Watermark(reader.i64()?);
    let log_watermark = Watermark(reader.i64()?);
    let newest_log_time = LogTimeMs(reader.i64()?);
    let forced = match reader.array::<1>()? {
        [0] => None,
        [1] => Some(ForcedAdvance {
            offset: Offset(reader.i64()?),
            watermark: Watermark(reader.i64()?),
        }),
        _ => return Err(reader.damaged("a flag is neither 0 nor 1")),
    };
    let digest = Digest(u128::from_le_bytes(reader.array()?));
    let next_sequence = reader.u64()?;
    let counters = Counters {
        records: reader.u64()?,
        accepted: reader.u64()?,
        duplicates: reader.u64()?,
        dead_letters: reader.u64()?,
        results: reader.u64()?,
    };
    let count = reader.count(16)?;
    let mut listed: ListedBuckets = Vec::with_capacity(count);
    for _ in 0..count {
        let (start, checksum) = (reader.i64()?, reader.u64()?);
        let grid = start % WINDOW_MS == 0 && (0..=MAX_TIMESTAMP_MS).contains(&start);
        if !grid || listed.last().is_some_and(|&(last, _)| last >= start) {
            return Err(reader.damaged("the window starts are not ascending full minutes"));
        }
        listed.push((start, checksum));
    }
    reader.finish()?;
    let ledger = Ledger {
        partition,
        position,
        watermark,
        log_watermark,
        newest_log_time,
        forced,
        next_sequence,
        digest,
        counters,
    };
    Ok((ledger, listed))
}

fn encode_bucket(config: &CoreConfig, bucket: &Bucket) -> Bytes {
    let mut out = begin(BUCKET_MAGIC);
    out.extend_from_slice(&bucket.start.to_le_bytes());
    out.extend_from_slice(&(bucket.window_count() as u64).to_le_bytes());
    for window in bucket.in_ticker_order() {
        let symbol = &config.ticker(window.ticker).symbol;
        out.extend_from_slice(&(symbol.len() as u64).to_le_bytes());
        out.extend_from_slice(symbol);
        encode_window(&mut out, window);
    }
    seal(out)
}

fn encode_window(out: &mut Vec<u8>, window: &Window) {
    let Aggregate {
        count,
        price_sum,
        price_min,
        price_max,
        volume_sum,
        turnover_sum,
        open,
        close,
        event_set,
    } = &window.aggregate;
    out.extend_from_slice(&window.revision.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    for sum in [price_sum, volume_sum, turnover_sum] {
        out.extend_from_slice(&sum.to_le_bytes());
    }
    for number in [
        price_min,
        price_max,
        &open.timestamp,
        &open.price,
        &close.timestamp,
        &close.price,
    ] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&event_set.to_le_bytes());
    let ids = window.ids.sorted();
    out.extend_from_slice(&(ids.len() as u64).to_le_bytes());
    out.reserve(ids.len() * 16);
    for id in ids {
        out.extend_from_slice(&id.to_le_bytes());
    }
}

fn decode_bucket(config: &CoreConfig, start: i64, content: &[u8]) -> Result<Bucket, SnapshotError> {
    let part = format!("bucket of window start {start}");
    let mut reader = Reader::open(part, BUCKET_MAGIC, content)?;
    if reader.i64()? != start {
        return Err(reader.damaged("it holds another window start than its key"));
    }
    let mut bucket = Bucket::new(start, config.tickers().len());
    let count = reader.count(1)?;
    for _ in 0..count {
        let length = reader.count(1)?;
        let symbol = reader.take(length)?;
        let ticker = config.find_ticker(symbol).ok_or_else(|| {
            SnapshotError::UnknownTicker(String::from_utf8_lossy(symbol).into_owned())
        })?;
        let window = decode_window(&mut reader, ticker)?;
        if bucket.push(window).is_none() {
            return Err(reader.damaged("a ticker has two windows"));
        }
    }
    reader.finish()?;
    bucket.dirty = false;
    bucket.stored = Some(checksum_of(content));
    Ok(bucket)
}

fn decode_window(reader: &mut Reader<'_>, ticker: u16) -> Result<Window, SnapshotError> {
    let revision = reader.u64()?;
    let count = reader.u64()?;
    let (price_sum, volume_sum, turnover_sum) = (reader.i128()?, reader.i128()?, reader.i128()?);
    let (price_min, price_max) = (reader.i64()?, reader.i64()?);
    let open = Edge {
        timestamp: reader.i64()?,
        price: reader.i64()?,
    };
    let close = Edge {
        timestamp: reader.i64()?,
        price: reader.i64()?,
    };
    let event_set = u128::from_le_bytes(reader.array()?);
    if count == 0 || price_sum < 0 || volume_sum < 0 || turnover_sum < 0 {
        return Err(reader.damaged("a window without events, or a sum below 0"));
    }
    let id_count = reader.count(16)?;
    let mut ids = IdSet::with_capacity(id_count);
    for _ in 0..id_count {
        if !ids.insert(u128::from_le_bytes(reader.array()?)) {
            return Err(reader.damaged("an identity is there twice"));
        }
    }
    let aggregate = Aggregate {
        count,
        price_sum,
        price_min,
        price_max,
        volume_sum,
        turnover_sum,
        open,
        close,
        event_set,
    };
    Ok(Window {
        ticker,
        aggregate,
        revision,
        ids,
    })
}

fn begin(magic: [u8; 4]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&magic);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out
}

fn seal(mut out: Vec<u8>) -> Bytes {
    let checksum = xxh3_64(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    Bytes::from(out)
}

/// The checksum at the end of a sealed blob.
fn checksum_of(sealed: &[u8]) -> u64 {
    let tail = sealed
        .last_chunk::<CHECKSUM_BYTES>()
        .expect("a sealed blob ends in its checksum");
    u64::from_le_bytes(*tail)
}

/// Reads a sealed blob; every length is checked against what is left.
struct Reader<'a> {
    part: String,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks magic, version and checksum.
    fn open(part: String, magic: [u8; 4], bytes: &'a [u8]) -> Result<Self, SnapshotError> {
        let mut reader = Reader { part, rest: bytes };
        if reader.array::<4>().ok() != Some(magic) {
            return Err(SnapshotError::NotASnapshot { part: reader.part });
        }
        let found = u16::from_le_bytes(reader.array()?);
        if found != VERSION {
            return Err(SnapshotError::OtherVersion {
                part: reader.part,
                found,
            });
        }
        let Some((rest, tail)) = reader.rest.split_last_chunk::<CHECKSUM_BYTES>() else {
            return Err(reader.damaged("it is cut off"));
        };
        let sealed = &bytes[..bytes.len() - CHECKSUM_BYTES];
        if xxh3_64(sealed) != u64::from_le_bytes(*tail) {
            return Err(reader.damaged("its checksum is wrong"));
        }
        reader.rest = rest;
        Ok(reader)
    }

    fn damaged(&self, what: &'static str) -> SnapshotError {
        SnapshotError::Damaged {
            part: self.part.clone(),
            what,
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], SnapshotError> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.damaged("it is cut off")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("exactly N bytes were taken"))
    }

    fn i64(&mut self) -> Result<i64, SnapshotError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, SnapshotError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn i128(&mut self) -> Result<i128, SnapshotError> {
        Ok(i128::from_le_bytes(self.array()?))
    }

    /// A number of items that take at least `item_bytes` each.
    fn count(&mut self, item_bytes: usize) -> Result<usize, SnapshotError> {
        let count = self.u64()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() / item_bytes => Ok(count),
            _ => Err(self.damaged("a length is beyond its end")),
        }
    }

    fn finish(&self) -> Result<(), SnapshotError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.damaged("there are bytes too many"))
        }
    }
}
