//! From the bytes of a record to a validated event, without a float in between.
//!
//! Comes in: a record's value. Goes out: an event, or the first rule that it breaks.
//! Never here: anything that depends on earlier records (lateness, duplicates).

use crate::core::MAX_TIMESTAMP_MS;
use crate::core::dead_letter::{ErrorType, Rejection};
use crate::core::decimal::{PRICE_PLACES, Scaled, TIMESTAMP_PLACES, parse_scaled, write_price};
use crate::core::rules::{CoreConfig, Identity};
use crate::core::task::InputRecord;
use crate::core::window::Event;
use crate::units::PartitionId;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Write;
use xxhash_rust::xxh3::xxh3_128;

/// The known fields of an event as JSON text; `None` where absent or `null`. Other fields are
/// skipped.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct RawEvent<'a> {
    /// Symbol.
    #[serde(borrow, default)]
    pub ticker: Option<&'a RawValue>,
    /// Price.
    #[serde(borrow, default)]
    pub price: Option<&'a RawValue>,
    /// Volume.
    #[serde(borrow, default)]
    pub volume: Option<&'a RawValue>,
    /// Event time, Unix seconds.
    #[serde(borrow, default)]
    pub timestamp: Option<&'a RawValue>,
    /// Identity that the producer gave.
    #[serde(borrow, default)]
    pub event_id: Option<&'a RawValue>,
    /// Where the event came from.
    #[serde(borrow, default)]
    pub source: Option<&'a RawValue>,
}

/// Why bytes are not an event object.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not text.
    #[error("the value is not UTF-8 text: {0}")]
    NotUtf8(#[from] std::str::Utf8Error),
    /// JSON, or not even that, but no object.
    #[error("the value is not a JSON object")]
    NotAnObject,
    /// Broken JSON, or a field given twice.
    #[error("the value is not one valid JSON object: {0}")]
    Json(#[from] serde_json::Error),
}

/// Splits an event into the JSON text of its fields.
///
/// # Errors
/// [`DecodeError`] when the bytes are not exactly one JSON object with no known field twice.
pub fn decode_event(value: &[u8]) -> Result<RawEvent<'_>, DecodeError> {
    let text = std::str::from_utf8(value)?;
    // serde would also take an array of the fields' values.
    match text
        .bytes()
        .find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
    {
        Some(b'{') => Ok(serde_json::from_str(text)?),
        Some(b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
            Err(DecodeError::NotAnObject)
        }
        _ => Ok(serde_json::from_str(text)?),
    }
}

/// A JSON string's text. `None` if it is no string, or names no Unicode text (a lone surrogate).
pub(super) fn string_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.bytes().any(|byte| byte == b'\\') {
        return serde_json::from_str(raw.get()).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// A JSON number's text.
pub(super) fn number_of(raw: &RawValue) -> Option<&str> {
    let text = raw.get();
    matches!(text.as_bytes().first(), Some(b'-' | b'0'..=b'9')).then_some(text)
}

/// A JSON number's text, if it is written without fraction and exponent.
fn integer_of(raw: &RawValue) -> Option<&str> {
    number_of(raw).filter(|text| {
        text.bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_digit())
    })
}

enum EventId<'a> {
    Text(Cow<'a, str>),
    Absent,
}

/// Decodes and validates one record: all rules that need nothing but the record itself, in the
/// order in which they are promised. `scratch` is only a reused buffer.
pub(super) fn read_event(
    record: &InputRecord<'_>,
    partition: PartitionId,
    config: &CoreConfig,
    scratch: &mut Vec<u8>,
) -> Result<Event, Rejection> {
    let Some(value) = record.value else {
        return Err(malformed(
            "the record has no value (a tombstone); expected a JSON object",
        ));
    };
    let raw = decode_event(value).map_err(malformed)?;

    let ticker_raw = required("ticker", raw.ticker)?;
    let ticker = string_of(ticker_raw).ok_or_else(|| wrong("ticker", "a string", ticker_raw))?;
    let price_raw = required("price", raw.price)?;
    let price = number_of(price_raw).ok_or_else(|| wrong("price", "a number", price_raw))?;
    let volume_raw = required("volume", raw.volume)?;
    let volume = integer_of(volume_raw).ok_or_else(|| {
        wrong(
            "volume",
            "an integer without fraction or exponent",
            volume_raw,
        )
    })?;
    let timestamp_raw = required("timestamp", raw.timestamp)?;
    let timestamp = read_timestamp(timestamp_raw)?;
    let event_id = read_event_id(raw.event_id)?;
    let source = read_source(raw.source)?;

    let rules = config.rules();
    let index = config.find_ticker(ticker.as_bytes()).ok_or_else(|| {
        let message = format!(
            "field \"ticker\": {} is not in the reference data (version {}, {} tickers)",
            shorten(ticker_raw.get()),
            rules.reference_version,
            config.tickers().len()
        );
        Rejection::new(ErrorType::UnknownTicker, message)
    })?;
    let price = check_price(price, rules.max_price_units)?;
    let volume = check_volume(volume, rules.max_volume)?;
    let timestamp = check_timestamp(timestamp, timestamp_raw, record, config)?;

    scratch.clear();
    let mut deduplicate = true;
    match (rules.identity, event_id) {
        (Identity::Content, _) => {
            content_identity(
                scratch,
                &ticker,
                price,
                volume,
                timestamp,
                source.as_deref(),
            );
        }
        (Identity::EventId, EventId::Text(id)) => {
            scratch.extend_from_slice(b"id:");
            scratch.extend_from_slice(id.as_bytes());
        }
        (Identity::EventId, EventId::Absent) => {
            deduplicate = false;
            use std::io::Write;
            write!(scratch, "at:{partition}:{}", record.offset).expect("a Vec takes every write");
        }
    }
    let identity = xxh3_128(scratch);
    Ok(Event {
        ticker: index,
        price,
        volume,
        timestamp,
        identity,
        deduplicate,
    })
}

fn required<'a>(field: &str, raw: Option<&'a RawValue>) -> Result<&'a RawValue, Rejection> {
    raw.ok_or_else(|| {
        let message = format!("field {field:?} is missing or null; it is required");
        Rejection::new(ErrorType::MissingField, message)
    })
}

/// Event time in milliseconds; a value beyond 18 digits becomes the end of the `i64` range, which
/// the range check refuses.
fn read_timestamp(raw: &RawValue) -> Result<i64, Rejection> {
    let scaled = number_of(raw).map(|text| parse_scaled(text, TIMESTAMP_PLACES));
    match scaled {
        Some(Scaled::Exact(milliseconds)) => Ok(milliseconds),
        Some(Scaled::TooLarge { negative: true }) => Ok(i64::MIN),
        Some(Scaled::TooLarge { negative: false }) => Ok(i64::MAX),
        Some(Scaled::TooFine) | None => Err(wrong(
            "timestamp",
            "Unix seconds as a number of at most 3 decimal places",
            raw,
        )),
    }
}

fn read_event_id(raw: Option<&RawValue>) -> Result<EventId<'_>, Rejection> {
    let Some(raw) = raw else {
        return Ok(EventId::Absent);
    };
    if let Some(text) = integer_of(raw) {
        return Ok(EventId::Text(Cow::Borrowed(text)));
    }
    match string_of(raw) {
        Some(text) if !text.is_empty() => Ok(EventId::Text(text)),
        _ => Err(wrong(
            "event_id",
            "a non-empty string, an integer or null",
            raw,
        )),
    }
}

fn read_source(raw: Option<&RawValue>) -> Result<Option<Cow<'_, str>>, Rejection> {
    let Some(raw) = raw else { return Ok(None) };
    string_of(raw)
        .map(Some)
        .ok_or_else(|| wrong("source", "a string or null", raw))
}

fn check_price(text: &str, max_units: i64) -> Result<i64, Rejection> {
    match parse_scaled(text, PRICE_PLACES) {
        Scaled::Exact(units) if units > 0 && units <= max_units => Ok(units),
        _ => {
            let mut message = String::from("field \"price\": expected a number above 0, at most ");
            write_price(&mut message, i128::from(max_units));
            let got = shorten(text);
            write!(
                message,
                ", with at most {PRICE_PLACES} decimal places, got {got}"
            )
            .expect("a String takes every write");
            Err(Rejection::new(ErrorType::PriceOutOfRange, message))
        }
    }
}

fn check_volume(text: &str, max_volume: i64) -> Result<i64, Rejection> {
    match parse_scaled(text, 0) {
        Scaled::Exact(volume) if (0..=max_volume).contains(&volume) => Ok(volume),
        _ => {
            let got = shorten(text);
            let message = format!("field \"volume\": expected 0 to {max_volume}, got {got}");
            Err(Rejection::new(ErrorType::VolumeOutOfRange, message))
        }
    }
}

fn check_timestamp(
    timestamp: i64,
    raw: &RawValue,
    record: &InputRecord<'_>,
    config: &CoreConfig,
) -> Result<i64, Rejection> {
    let rules = config.rules();
    let got = || shorten(raw.get());
    if timestamp < rules.min_timestamp_ms {
        let message = format!(
            "field \"timestamp\": {} s is before the configured minimum of {} ms (Unix time)",
            got(),
            rules.min_timestamp_ms
        );
        return Err(Rejection::new(ErrorType::TimestampTooOld, message));
    }
    let newest = record
        .timestamp
        .0
        .saturating_add(rules.max_future_skew_ms)
        .min(MAX_TIMESTAMP_MS);
    if timestamp > newest {
        let message = format!(
            "field \"timestamp\": {} s is more than {} ms ahead of the record's Kafka timestamp of {} ms",
            got(),
            rules.max_future_skew_ms,
            record.timestamp
        );
        return Err(Rejection::new(ErrorType::TimestampInFuture, message));
    }
    Ok(timestamp)
}

fn content_identity(
    out: &mut Vec<u8>,
    ticker: &str,
    price: i64,
    volume: i64,
    timestamp: i64,
    source: Option<&str>,
) {
    let mut text = String::with_capacity(96);
    write_price(&mut text, i128::from(price));
    write!(text, "|{volume}|{timestamp}|").expect("a String takes every write");
    for part in ["content:", ticker, "|", &text, source.unwrap_or("")] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn malformed(why: impl std::fmt::Display) -> Rejection {
    Rejection::new(ErrorType::Malformed, why.to_string())
}

fn wrong(field: &str, expected: &str, raw: &RawValue) -> Rejection {
    let got = shorten(raw.get());
    let message = format!("field {field:?}: expected {expected}, got {got}");
    Rejection::new(ErrorType::WrongType, message)
}

/// The first 40 characters, for a message.
fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((end, _)) => Cow::Owned(format!("{}… ({} bytes)", &text[..end], text.len())),
        None => Cow::Borrowed(text),
    }
}
