//! The rules that the core applies: limits, identity, and the reference data by ticker.

use crate::core::{CORE_VERSION, MAX_EVENTS_PER_WINDOW, WINDOW_MS};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::xxh3_64;

/// What makes two events the same event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Their `event_id`; an event without one is its own event.
    EventId,
    /// Ticker, price, volume, timestamp and source.
    Content,
}

/// Reference data of one ticker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TickerReference {
    /// Symbol, as events name it.
    pub ticker: String,
    /// Company name.
    pub company_name: String,
    /// Sector.
    pub sector: String,
}

/// Everything that decides what the core puts out for a given log. All durations and times are
/// milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreRules {
    /// Input topic; dead letters name it.
    pub input_topic: String,
    /// How far the watermark stays behind the highest accepted event time.
    pub max_out_of_orderness_ms: i64,
    /// How long after its end (by the watermark) a window is corrected.
    pub allowed_lateness_ms: i64,
    /// Events before this are dead letters; Unix milliseconds.
    pub min_timestamp_ms: i64,
    /// Events further ahead of their record's Kafka timestamp are dead letters.
    pub max_future_skew_ms: i64,
    /// Highest price, in units of 1e-8.
    pub max_price_units: i64,
    /// Highest volume of one event.
    pub max_volume: i64,
    /// What makes two events the same.
    pub identity: Identity,
    /// Largest message (key, value and headers) that the broker takes, bytes.
    pub max_message_bytes: usize,
    /// Version of the reference data.
    pub reference_version: String,
    /// Known tickers, in any order.
    pub tickers: Vec<TickerReference>,
}

/// Rules that the core cannot work under.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// The number of tickers is not within 1..=65535.
    #[error("{0} tickers; give between 1 and 65535")]
    TickerCount(usize),
    /// A ticker appears twice.
    #[error("ticker `{0}` appears twice; keep one")]
    TickerTwice(String),
    /// A value is negative or beyond what its sums may hold.
    #[error("{0} is out of range")]
    OutOfRange(&'static str),
    /// A window result might not fit a message.
    #[error(
        "a result of ticker `{ticker}` may take {needed} bytes, more than max_message_bytes = {limit}; shorten its company name or sector, or raise the limit"
    )]
    ResultTooLarge {
        /// Ticker with the longest texts.
        ticker: String,
        /// Bytes that a result may take.
        needed: usize,
        /// The limit.
        limit: usize,
    },
}

/// Hash of all rules and of the core's version: equal fingerprints give equal outputs for equal
/// logs. Written as 16 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| u64::from_str_radix(&text, 16).ok())
            .flatten()
            .map(Fingerprint)
            .ok_or_else(|| {
                serde::de::Error::custom(format!("a fingerprint is 16 hex digits, not `{text}`"))
            })
    }
}

/// A known ticker, ready for the hot path.
#[derive(Debug, Clone)]
pub struct Ticker {
    /// Symbol; key of its results.
    pub symbol: Bytes,
    /// `"ticker":…,"company_name":…,"sector":…`, the constant start of its results.
    pub(super) json_prefix: String,
}

impl Ticker {
    pub(super) fn name(&self) -> &str {
        std::str::from_utf8(&self.symbol).expect("the symbol was made from a String")
    }
}

/// Position of a ticker in the rules, in the byte order of the symbols.
pub(super) type TickerIndex = u16;

const NO_TICKER: TickerIndex = TickerIndex::MAX;

/// Bytes that a result's fixed parts, numbers and headers can take at most: 22 field names, 20
/// numbers of up to 39 digits and a point, ten headers, and Kafka's own framing.
const RESULT_FIXED_BYTES_MAX: usize = 2_800;

/// [`CoreRules`], checked, with tickers interned to small integers.
#[derive(Debug)]
pub struct CoreConfig {
    rules: CoreRules,
    tickers: Vec<Ticker>,
    /// Open-addressing table of indexes by symbol hash, at most half full.
    slots: Vec<TickerIndex>,
    fingerprint: Fingerprint,
}

impl CoreConfig {
    /// Checks the rules and makes them ready for use.
    ///
    /// # Errors
    /// [`RulesError`], with what to change.
    pub fn new(mut rules: CoreRules) -> Result<CoreConfig, RulesError> {
        rules
            .tickers
            .sort_by(|a, b| a.ticker.as_bytes().cmp(b.ticker.as_bytes()));
        check(&rules)?;
        let tickers: Vec<Ticker> = rules.tickers.iter().map(intern).collect();
        check_sizes(&rules, &tickers)?;
        let mut slots = vec![NO_TICKER; (tickers.len() * 2).next_power_of_two()];
        for (index, ticker) in tickers.iter().enumerate() {
            let mut at = xxh3_64(&ticker.symbol) as usize & (slots.len() - 1);
            while slots[at] != NO_TICKER {
                at = (at + 1) & (slots.len() - 1);
            }
            slots[at] = index as TickerIndex;
        }
        let fingerprint = fingerprint(&rules);
        Ok(CoreConfig {
            rules,
            tickers,
            slots,
            fingerprint,
        })
    }

    /// The rules, tickers sorted by symbol.
    #[must_use]
    pub fn rules(&self) -> &CoreRules {
        &self.rules
    }

    /// The tickers, sorted by symbol.
    #[must_use]
    pub fn tickers(&self) -> &[Ticker] {
        &self.tickers
    }

    /// Hash of everything that changes outputs.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn ticker(&self, index: TickerIndex) -> &Ticker {
        &self.tickers[usize::from(index)]
    }

    pub(super) fn find_ticker(&self, symbol: &[u8]) -> Option<TickerIndex> {
        let mask = self.slots.len() - 1;
        let mut at = xxh3_64(symbol) as usize & mask;
        loop {
            let index = self.slots[at];
            if index == NO_TICKER {
                return None;
            }
            if self.tickers[usize::from(index)].symbol == symbol {
                return Some(index);
            }
            at = (at + 1) & mask;
        }
    }

    /// True when a window that ends at `window_end` has no state any more.
    pub(super) fn is_retired(&self, window_end: i64, watermark: i64) -> bool {
        window_end + self.rules.allowed_lateness_ms <= watermark
    }
}

fn check(rules: &CoreRules) -> Result<(), RulesError> {
    if rules.tickers.is_empty() || rules.tickers.len() > usize::from(NO_TICKER) {
        return Err(RulesError::TickerCount(rules.tickers.len()));
    }
    if let Some(pair) = rules
        .tickers
        .windows(2)
        .find(|pair| pair[0].ticker == pair[1].ticker)
    {
        return Err(RulesError::TickerTwice(pair[0].ticker.clone()));
    }
    let year_ms = 366 * 24 * 60 * WINDOW_MS;
    for (name, value) in [
        ("max_out_of_orderness_ms", rules.max_out_of_orderness_ms),
        ("allowed_lateness_ms", rules.allowed_lateness_ms),
        ("max_future_skew_ms", rules.max_future_skew_ms),
    ] {
        if !(0..=year_ms).contains(&value) {
            return Err(RulesError::OutOfRange(name));
        }
    }
    if rules.min_timestamp_ms < 0 {
        return Err(RulesError::OutOfRange("min_timestamp_ms"));
    }
    // The largest sum of a window is Σ price × volume: with this, an i128 holds it for
    // MAX_EVENTS_PER_WINDOW events that all have the highest price and volume.
    let sum_max = i128::from(rules.max_price_units)
        .checked_mul(i128::from(rules.max_volume))
        .and_then(|product| product.checked_mul(MAX_EVENTS_PER_WINDOW));
    if rules.max_price_units <= 0 || rules.max_volume < 0 || sum_max.is_none() {
        return Err(RulesError::OutOfRange("max_price × max_volume"));
    }
    Ok(())
}

fn check_sizes(rules: &CoreRules, tickers: &[Ticker]) -> Result<(), RulesError> {
    let size = |ticker: &Ticker| ticker.symbol.len() + ticker.json_prefix.len();
    let longest = tickers.iter().max_by_key(|ticker| size(ticker));
    let longest = longest.expect("there is at least one ticker");
    let needed = size(longest) + RESULT_FIXED_BYTES_MAX;
    if needed > rules.max_message_bytes {
        return Err(RulesError::ResultTooLarge {
            ticker: longest.name().to_owned(),
            needed,
            limit: rules.max_message_bytes,
        });
    }
    Ok(())
}

fn intern(reference: &TickerReference) -> Ticker {
    let json = |text: &str| serde_json::to_string(text).expect("a string is always JSON");
    Ticker {
        symbol: Bytes::copy_from_slice(reference.ticker.as_bytes()),
        json_prefix: format!(
            "\"ticker\":{},\"company_name\":{},\"sector\":{}",
            json(&reference.ticker),
            json(&reference.company_name),
            json(&reference.sector)
        ),
    }
}

fn fingerprint(rules: &CoreRules) -> Fingerprint {
    // Taken apart in full, so that a new rule cannot be forgotten here.
    let CoreRules {
        input_topic,
        max_out_of_orderness_ms,
        allowed_lateness_ms,
        min_timestamp_ms,
        max_future_skew_ms,
        max_price_units,
        max_volume,
        identity,
        max_message_bytes,
        reference_version,
        tickers,
    } = rules;
    let mut bytes = Vec::new();
    let mut text = |text: &str| {
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    text(input_topic);
    text(reference_version);
    for ticker in tickers {
        text(&ticker.ticker);
        text(&ticker.company_name);
        text(&ticker.sector);
    }
    for number in [
        i64::from(CORE_VERSION),
        WINDOW_MS,
        *max_out_of_orderness_ms,
        *allowed_lateness_ms,
        *min_timestamp_ms,
        *max_future_skew_ms,
        *max_price_units,
        *max_volume,
        i64::from(*identity == Identity::Content),
        *max_message_bytes as i64,
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    Fingerprint(xxh3_64(&bytes))
}
