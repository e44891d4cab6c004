//! The JSON of a window result.

use crate::core::WINDOW_MS;
use crate::core::decimal::{divide_half_even, write_price};
use crate::core::rules::Ticker;
use crate::core::window::Aggregate;
use std::fmt::Write;

const STRING: &str = "a String takes every write";

/// Value of a result: field order as consumers see it in the topic.
pub(super) fn result_value(
    ticker: &Ticker,
    window_start: i64,
    aggregate: &Aggregate,
    revision: u64,
    previous: Option<&Aggregate>,
) -> String {
    let mut out = String::with_capacity(ticker.json_prefix.len() + 320);
    out.push('{');
    out.push_str(&ticker.json_prefix);
    let window_end = window_start + WINDOW_MS;
    write!(
        out,
        ",\"window_start\":{window_start},\"window_end\":{window_end},"
    )
    .expect(STRING);
    write_values(&mut out, aggregate, revision);
    out.push_str(",\"previous\":");
    match previous {
        Some(previous) => {
            out.push('{');
            let replaced = revision
                .checked_sub(1)
                .expect("only a correction replaces values");
            write_values(&mut out, previous, replaced);
            out.push('}');
        }
        None => out.push_str("null"),
    }
    out.push('}');
    out
}

fn write_values(out: &mut String, aggregate: &Aggregate, revision: u64) {
    let average = divide_half_even(aggregate.price_sum, i128::from(aggregate.count));
    write!(out, "\"count\":{}", aggregate.count).expect(STRING);
    write_field(out, "avg_price", average);
    write_field(out, "min_price", i128::from(aggregate.price_min));
    write_field(out, "max_price", i128::from(aggregate.price_max));
    write!(out, ",\"total_volume\":{}", aggregate.volume_sum).expect(STRING);
    write_field(out, "open_price", i128::from(aggregate.open.price));
    write_field(out, "close_price", i128::from(aggregate.close.price));
    if aggregate.volume_sum == 0 {
        out.push_str(",\"vwap\":null");
    } else {
        let vwap = divide_half_even(aggregate.turnover_sum, aggregate.volume_sum);
        write_field(out, "vwap", vwap);
    }
    write!(out, ",\"revision\":{revision}").expect(STRING);
}

fn write_field(out: &mut String, name: &str, units: i128) {
    write!(out, ",\"{name}\":").expect(STRING);
    write_price(out, units);
}
