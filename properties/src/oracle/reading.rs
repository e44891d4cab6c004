//! One input record by itself: an event, or the reason for which it is refused. Depends on nothing
//! but the record and the rules.

use super::Refusal;
use crate::decimal::{PRICE_PLACES, Scaled, scaled};
use crate::evidence::object_fields;
use crate::history::{Rules, TopicRecord};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

/// A valid event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Number of its ticker in the order of [`Rules::tickers`].
    pub ticker: u32,
    /// Event time, Unix milliseconds.
    pub time_ms: i64,
    /// Price in units of 10⁻⁸.
    pub price: i128,
    /// Volume.
    pub volume: i64,
    /// Identity hash.
    pub identity: u128,
    /// Whether an equal identity in the same window makes it a duplicate.
    pub can_repeat: bool,
}

/// The rules, prepared for reading many records.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rules: &'a Rules,
    ticker_numbers: BTreeMap<&'a str, u32>,
    price_max: i128,
}

/// Fields of an event as they are written.
type Fields<'a> = BTreeMap<String, &'a str>;

impl<'a> Reader<'a> {
    /// Prepares the rules.
    ///
    /// # Panics
    /// If the highest price is not a decimal of at most 8 places: the rules are the auditor's own.
    #[must_use]
    pub fn new(rules: &'a Rules) -> Self {
        let Scaled::Exact(price_max) = scaled(&rules.max_price, PRICE_PLACES) else {
            panic!(
                "max_price {:?} is not a decimal of at most 8 places",
                rules.max_price
            );
        };
        Self {
            rules,
            ticker_numbers: rules.tickers.keys().map(String::as_str).zip(0..).collect(),
            price_max,
        }
    }

    /// Reads one record.
    ///
    /// # Errors
    /// The refusal, when it is not a valid event.
    pub fn read(&self, record: &TopicRecord) -> Result<Event, Refusal> {
        let fields = fields_of(record)?;
        let ticker = string(required(&fields, "ticker")?)?;
        let price = number(required(&fields, "price")?)?;
        let volume = integer(required(&fields, "volume")?)?;
        let time_ms = seconds(required(&fields, "timestamp")?)?;
        let event_id = optional(&fields, "event_id").map(event_id).transpose()?;
        let source = optional(&fields, "source").map(string).transpose()?;

        let number = *self
            .ticker_numbers
            .get(ticker.as_str())
            .ok_or(Refusal::UnknownTicker)?;
        let price = self.price_in_range(price)?;
        let volume = self.volume_in_range(volume)?;
        let time_ms = self.time_in_range(time_ms, record.timestamp_ms)?;
        let content = self.rules.identity_is_content.then(|| {
            let price = crate::decimal::price_text(price);
            let source = source.unwrap_or_default();
            format!("content:{ticker}|{price}|{volume}|{time_ms}|{source}")
        });
        let by_id = event_id.map(|id| format!("id:{id}"));
        let can_repeat = self.rules.identity_is_content || by_id.is_some();
        let identity = content
            .or(by_id)
            .unwrap_or_else(|| format!("at:{}:{}", record.partition, record.offset));
        Ok(Event {
            ticker: number,
            time_ms,
            price,
            volume,
            identity: xxh3_128(identity.as_bytes()),
            can_repeat,
        })
    }

    fn price_in_range(&self, price: Scaled) -> Result<i128, Refusal> {
        match price {
            Scaled::Exact(price) if price > 0 && price <= self.price_max => Ok(price),
            _ => Err(Refusal::PriceOutOfRange),
        }
    }

    fn volume_in_range(&self, volume: Scaled) -> Result<i64, Refusal> {
        match volume {
            Scaled::Exact(volume) => i64::try_from(volume)
                .ok()
                .filter(|volume| (0..=self.rules.max_volume).contains(volume))
                .ok_or(Refusal::VolumeOutOfRange),
            _ => Err(Refusal::VolumeOutOfRange),
        }
    }

    fn time_in_range(&self, time_ms: i128, log_time_ms: i64) -> Result<i64, Refusal> {
        if time_ms < i128::from(self.rules.min_timestamp_ms) {
            return Err(Refusal::TimestampTooOld);
        }
        let latest = i128::from(log_time_ms) + i128::from(self.rules.max_future_skew_ms);
        if time_ms > latest.min(TIME_MS_MAX) {
            return Err(Refusal::TimestampInFuture);
        }
        Ok(i64::try_from(time_ms).expect("it lies between two 64-bit bounds"))
    }
}

/// The fields that mean something; others are ignored.
const KNOWN: [&str; 6] = [
    "ticker",
    "price",
    "volume",
    "timestamp",
    "event_id",
    "source",
];

/// Event times after the year 9999 are in the future whatever their records say. Unix milliseconds.
const TIME_MS_MAX: i128 = 253_402_300_799_999;

/// The event's known fields, each named once at most.
fn fields_of(record: &TopicRecord) -> Result<Fields<'_>, Refusal> {
    let value = record.value.as_deref().ok_or(Refusal::Malformed)?;
    let text = std::str::from_utf8(value).map_err(|_| Refusal::Malformed)?;
    let mut fields = Fields::new();
    for (name, value) in object_fields(text).map_err(|_| Refusal::Malformed)? {
        if KNOWN.contains(&name.as_str()) && fields.insert(name, value).is_some() {
            return Err(Refusal::Malformed);
        }
    }
    Ok(fields)
}

/// A field that is there and not `null`.
fn optional<'a>(fields: &Fields<'a>, name: &str) -> Option<&'a str> {
    fields.get(name).copied().filter(|text| *text != "null")
}

fn required<'a>(fields: &Fields<'a>, name: &str) -> Result<&'a str, Refusal> {
    optional(fields, name).ok_or(Refusal::MissingField)
}

fn string(text: &str) -> Result<String, Refusal> {
    if !text.starts_with('"') {
        return Err(Refusal::WrongType);
    }
    // Only an unpaired surrogate gets here and fails: it names no text.
    serde_json::from_str(text).map_err(|_| Refusal::WrongType)
}

fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

fn number(text: &str) -> Result<Scaled, Refusal> {
    if is_number(text) {
        Ok(scaled(text, PRICE_PLACES))
    } else {
        Err(Refusal::WrongType)
    }
}

/// A number that is written without fraction and exponent.
fn integer(text: &str) -> Result<Scaled, Refusal> {
    if is_integer(text) {
        Ok(scaled(text, 0))
    } else {
        Err(Refusal::WrongType)
    }
}

fn is_integer(text: &str) -> bool {
    is_number(text) && !text.contains(['.', 'e', 'E'])
}

/// Seconds with at most 3 places, as milliseconds; what is beyond all bounds stays beyond them.
fn seconds(text: &str) -> Result<i128, Refusal> {
    if !is_number(text) {
        return Err(Refusal::WrongType);
    }
    match scaled(text, 3) {
        Scaled::Exact(time_ms) => Ok(time_ms),
        Scaled::TooFine { .. } => Err(Refusal::WrongType),
        Scaled::TooBig { negative: true } => Ok(i128::MIN),
        Scaled::TooBig { negative: false } => Ok(i128::MAX),
    }
}

/// The bytes by which an event is known: a string's own, or an integer as it is written.
fn event_id(text: &str) -> Result<String, Refusal> {
    if is_integer(text) {
        return Ok(text.to_owned());
    }
    string(text).and_then(|id| {
        if id.is_empty() {
            Err(Refusal::WrongType)
        } else {
            Ok(id)
        }
    })
}

/// The text of an event's correlation id, `{ticker}_{timestamp as it is written}`, where both can be
/// read.
#[must_use]
pub fn correlation_text(record: &TopicRecord) -> Option<String> {
    let fields = fields_of(record).ok()?;
    let ticker = optional(&fields, "ticker").and_then(|text| string(text).ok())?;
    let timestamp = optional(&fields, "timestamp").filter(|text| is_number(text))?;
    Some(format!("{ticker}_{timestamp}"))
}
