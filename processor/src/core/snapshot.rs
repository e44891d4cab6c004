//! The state of a partition as bytes, and back.
//!
//! Three kinds of blobs: one header (the ledger, and which head every bucket has), one head a bucket
//! (what its windows have summed up, and which segments hold its identities), and the segments
//! ([`crate::core::pieces`]). Each names the next by the hash of its content, so that a stale, missing
//! or foreign one is noticed. Equal histories give equal bytes.

use crate::core::digest::Digest;
use crate::core::id_set::IdSet;
use crate::core::ledger::{Counters, ForcedAdvance, Ledger};
use crate::core::pieces::{ID_BYTES, Segment, store_ids};
use crate::core::rules::{CoreConfig, Fingerprint};
use crate::core::sealed::{Reader, VERSION, begin, seal};
use crate::core::window::{Aggregate, Bucket, Buckets, Edge, Window};
use crate::core::{MAX_TIMESTAMP_MS, WINDOW_MS};
use crate::io::{BucketKey, PieceKey, StateBatch};
use crate::units::{LogTimeMs, Offset, PartitionId, Watermark};
use bytes::Bytes;
use std::collections::BTreeMap;

const HEADER_MAGIC: [u8; 4] = *b"TPKH";
const BUCKET_MAGIC: [u8; 4] = *b"TPKB";

/// State to write since the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChanges {
    /// Everything but the windows; replaces the previous header.
    pub header: Bytes,
    /// Pieces to write and to drop.
    pub batch: StateBatch,
    /// All pieces that the state now consists of beside the header, ascending, with their sizes in
    /// bytes.
    pub pieces: Vec<(PieceKey, u64)>,
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
    /// A piece that the header or a head names was not given.
    #[error("the piece {0} is missing; restore all files of one checkpoint together")]
    PieceMissing(PieceKey),
    /// A piece was given that nothing names.
    #[error(
        "the piece {0} does not belong to this header; restore all files of one checkpoint together"
    )]
    PieceUnexpected(PieceKey),
    /// A window's ticker is not in the reference data.
    #[error(
        "the snapshot holds a window of ticker `{0}`, which the reference data does not have; add it to [[reference.ticker]] again, or stop cleanly under the old configuration after its windows have closed"
    )]
    UnknownTicker(String),
}

impl SnapshotError {
    /// A piece whose content does not have the hash in its name.
    pub(super) fn damaged(key: PieceKey) -> SnapshotError {
        SnapshotError::Damaged {
            part: format!("piece {key}"),
            what: "its content does not match its name",
        }
    }
}

/// Fingerprint of the configuration under which a header was written.
///
/// # Errors
/// [`SnapshotError`] when the header is damaged or of another version.
pub fn snapshot_fingerprint(header: &[u8]) -> Result<Fingerprint, SnapshotError> {
    let mut reader = Reader::open("header".to_owned(), HEADER_MAGIC, header)?;
    Ok(Fingerprint(reader.u64()?))
}

/// The pieces that [`crate::core::PartitionTask::restore`] needs beside this header.
///
/// # Errors
/// [`SnapshotError`] when the header is damaged or of another version.
pub fn snapshot_heads(header: &[u8]) -> Result<Vec<PieceKey>, SnapshotError> {
    let (_, listed) = decode_header(header)?;
    Ok(listed.into_iter().map(|(key, _)| key).collect())
}

pub(super) fn encode(
    config: &CoreConfig,
    ledger: &Ledger,
    buckets: &mut Buckets,
    dropped: Vec<PieceKey>,
) -> StateChanges {
    let mut batch = StateBatch {
        puts: Vec::new(),
        deletes: dropped,
    };
    for at in 0..buckets.len() {
        if buckets.at(at).dirty {
            buckets.change(at, |bucket| {
                store_ids(config, bucket, &mut batch);
                store_head(config, bucket, &mut batch);
            });
        }
    }
    batch.deletes.sort_unstable();
    let mut pieces: Vec<(PieceKey, u64)> = buckets
        .iter()
        .flat_map(|bucket| bucket.stored.pieces())
        .collect();
    pieces.sort_unstable();
    StateChanges {
        header: encode_header(config.fingerprint(), ledger, buckets),
        batch,
        pieces,
    }
}

pub(super) fn decode(
    config: &CoreConfig,
    header: &[u8],
    heads: impl IntoIterator<Item = (PieceKey, Bytes)>,
) -> Result<(Ledger, Buckets), SnapshotError> {
    let (ledger, listed) = decode_header(header)?;
    let mut given: BTreeMap<PieceKey, Bytes> = heads.into_iter().collect();
    let mut buckets = Buckets::default();
    for (key, bytes) in listed {
        let content = given.remove(&key).ok_or(SnapshotError::PieceMissing(key))?;
        if !key.names(&content) {
            return Err(SnapshotError::damaged(key));
        }
        let mut bucket = decode_head(config, key.bucket.0, &content)?;
        bucket.stored.head = Some((key, bytes));
        buckets.insert(buckets.len(), bucket);
    }
    match given.keys().next() {
        Some(&left) => Err(SnapshotError::PieceUnexpected(left)),
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
        let (key, bytes) = bucket
            .stored
            .head
            .expect("all buckets were written just before the header");
        out.extend_from_slice(&bucket.start.to_le_bytes());
        out.extend_from_slice(&key.hash.to_le_bytes());
        out.extend_from_slice(&bytes.to_le_bytes());
    }
    seal(out)
}

/// Heads and their sizes.
type ListedHeads = Vec<(PieceKey, u64)>;

fn decode_header(header: &[u8]) -> Result<(Ledger, ListedHeads), SnapshotError> {
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
    let count = reader.count(32)?;
    let mut listed: ListedHeads = Vec::with_capacity(count);
    for _ in 0..count {
        let start = reader.i64()?;
        let grid = start % WINDOW_MS == 0 && (0..=MAX_TIMESTAMP_MS).contains(&start);
        let last = listed.last().map(|(last, _)| last.bucket.0);
        if !grid || last.is_some_and(|last| last >= start) {
            return Err(reader.damaged("the window starts are not ascending full minutes"));
        }
        let bucket = BucketKey(start);
        let hash = u128::from_le_bytes(reader.array()?);
        listed.push((PieceKey { bucket, hash }, reader.u64()?));
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

fn store_head(config: &CoreConfig, bucket: &mut Bucket, batch: &mut StateBatch) {
    let content = encode_head(config, bucket);
    let key = PieceKey::of(BucketKey(bucket.start), &content);
    let replaced = bucket.stored.head.replace((key, content.len() as u64));
    bucket.dirty = false;
    match replaced {
        Some((replaced, _)) if replaced == key => return,
        Some((replaced, _)) => batch.deletes.push(replaced),
        None => {}
    }
    batch.puts.push((key, content));
}

fn encode_head(config: &CoreConfig, bucket: &Bucket) -> Bytes {
    let stored = &bucket.stored;
    let mut out = begin(BUCKET_MAGIC);
    out.extend_from_slice(&bucket.start.to_le_bytes());
    out.extend_from_slice(&(stored.rewritten as u64).to_le_bytes());
    out.extend_from_slice(&(stored.segments.len() as u64).to_le_bytes());
    for segment in &stored.segments {
        out.extend_from_slice(&segment.key.hash.to_le_bytes());
        out.extend_from_slice(&segment.ids.to_le_bytes());
        out.extend_from_slice(&segment.bytes.to_le_bytes());
    }
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
    out.extend_from_slice(&window.stored_ids.to_le_bytes());
}

fn decode_head(config: &CoreConfig, start: i64, content: &[u8]) -> Result<Bucket, SnapshotError> {
    let part = format!("head of window start {start}");
    let mut reader = Reader::open(part, BUCKET_MAGIC, content)?;
    if reader.i64()? != start {
        return Err(reader.damaged("it holds another window start than its key"));
    }
    let mut bucket = Bucket::new(start, config.tickers().len());
    decode_segments(&mut reader, &mut bucket)?;
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
    let ids: u64 = bucket.stored.segments.iter().map(|s| s.ids).sum();
    if bucket.live_ids() != ids {
        return Err(reader.damaged("its windows have other identities than its segments"));
    }
    bucket.dirty = false;
    bucket.resident = ids == 0;
    Ok(bucket)
}

fn decode_segments(reader: &mut Reader<'_>, bucket: &mut Bucket) -> Result<(), SnapshotError> {
    let rewritten = reader.u64()?;
    let count = reader.count(32)?;
    for _ in 0..count {
        let key = PieceKey {
            bucket: BucketKey(bucket.start),
            hash: u128::from_le_bytes(reader.array()?),
        };
        let (ids, bytes) = (reader.u64()?, reader.u64()?);
        // Each identity takes its bytes, so that sums of such numbers stay small.
        if ids == 0 || ids > bytes / ID_BYTES as u64 || bytes > u64::from(u32::MAX) {
            return Err(reader.damaged("a segment of an impossible size"));
        }
        bucket.stored.segments.push(Segment { key, ids, bytes });
    }
    bucket.stored.rewritten = match usize::try_from(rewritten) {
        Ok(rewritten) if rewritten <= count => rewritten,
        _ => return Err(reader.damaged("more segments were rewritten than there are")),
    };
    Ok(())
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
    let stored_ids = reader.u64()?;
    // The second bound keeps sums over windows far from overflow.
    if stored_ids > count || stored_ids > 1 << 40 {
        return Err(reader.damaged("a window with more identities than events"));
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
        ids: IdSet::default(),
        fresh: Vec::new(),
        stored_ids,
    })
}
