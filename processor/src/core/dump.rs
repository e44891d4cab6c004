//! Windows as people and tools look at them.

use crate::core::WINDOW_MS;
use crate::core::decimal::write_price;
use crate::core::rules::CoreConfig;
use crate::core::window::{Bucket, Window};
use crate::units::Watermark;
use serde::Serialize;

/// One window of a partition's state. Sums are exact; as JSON, what may not fit a double is text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DumpedWindow<'a> {
    /// Ticker.
    pub ticker: &'a str,
    /// Unix milliseconds.
    pub window_start: i64,
    /// Unix milliseconds, exclusive.
    pub window_end: i64,
    /// Its first result was put out.
    pub emitted: bool,
    /// Revision of the newest result; 0 also when none was put out yet.
    pub revision: u64,
    /// Events.
    pub count: u64,
    /// Σ price, a decimal.
    pub price_sum: String,
    /// Lowest price, a decimal.
    pub min_price: String,
    /// Highest price, a decimal.
    pub max_price: String,
    /// First price, a decimal.
    pub open_price: String,
    /// Event time of the first price, Unix milliseconds.
    pub open_at: i64,
    /// Last price, a decimal.
    pub close_price: String,
    /// Event time of the last price, Unix milliseconds.
    pub close_at: i64,
    /// Σ volume, an integer.
    pub total_volume: String,
    /// Σ price × volume, a decimal.
    pub turnover_sum: String,
    /// Sum of the hashes of the events' identities modulo 2^128, hexadecimal.
    pub event_set_hash: String,
    /// Identities that are remembered, to tell duplicates.
    pub ids: u64,
}

impl<'a> DumpedWindow<'a> {
    pub(super) fn all_of(
        config: &'a CoreConfig,
        bucket: &'a Bucket,
        watermark: Watermark,
    ) -> impl Iterator<Item = DumpedWindow<'a>> {
        let emitted = bucket.end() <= watermark.0;
        let windows = bucket.in_ticker_order();
        windows.map(move |window| Self::of(config, bucket.start, window, emitted))
    }

    fn of(config: &'a CoreConfig, start: i64, window: &'a Window, emitted: bool) -> Self {
        let aggregate = &window.aggregate;
        DumpedWindow {
            ticker: config.ticker(window.ticker).name(),
            window_start: start,
            window_end: start + WINDOW_MS,
            emitted,
            revision: window.revision,
            count: aggregate.count,
            price_sum: decimal(aggregate.price_sum),
            min_price: decimal(aggregate.price_min.into()),
            max_price: decimal(aggregate.price_max.into()),
            open_price: decimal(aggregate.open.price.into()),
            open_at: aggregate.open.timestamp,
            close_price: decimal(aggregate.close.price.into()),
            close_at: aggregate.close.timestamp,
            total_volume: aggregate.volume_sum.to_string(),
            turnover_sum: decimal(aggregate.turnover_sum),
            event_set_hash: format!("{:032x}", aggregate.event_set),
            ids: window.id_count(),
        }
    }
}

/// Units of 1e-8 as a decimal.
fn decimal(units: i128) -> String {
    let mut text = String::new();
    write_price(&mut text, units);
    text
}
