//! Exact decimals: from JSON number text to a scaled integer and back, never through a float.
//!
//! Comes in: the text of a JSON number. Goes out: an integer in units of a power of ten, or why
//! there is none; and the shortest decimal text of such an integer.

use std::fmt::Write;

/// Decimal places of a price.
pub const PRICE_PLACES: u32 = 8;
/// Decimal places of a timestamp in seconds.
pub const TIMESTAMP_PLACES: u32 = 3;

/// Most digits that a scaled value may have; 18 always fit an `i64`.
const DIGITS_MAX: i64 = 18;

/// What a JSON number is in units of 10^-places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaled {
    /// Exactly this many units.
    Exact(i64),
    /// It has a non-zero digit after the last place.
    TooFine,
    /// More than 18 digits in these units.
    TooLarge {
        /// The number is below zero.
        negative: bool,
    },
}

/// Reads a JSON number as a count of 10^-`places`. Trailing zeros do not count as places, and
/// exponents are taken as they are: `1.50e2` is 150. `text` must have the grammar of a JSON number.
#[must_use]
pub fn parse_scaled(text: &str, places: u32) -> Scaled {
    match parse_plain(text.as_bytes(), places) {
        Some(units) => Scaled::Exact(units),
        None => parse_any(text.as_bytes(), places),
    }
}

/// The common form: no exponent, at most 18 digits once scaled, no more places than wanted.
fn parse_plain(text: &[u8], places: u32) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.len() > 18 {
        return None;
    }
    let mut units: i64 = 0;
    let mut fraction: Option<u32> = None;
    for &byte in digits {
        match byte {
            b'0'..=b'9' => {
                units = units * 10 + i64::from(byte - b'0');
                if let Some(count) = &mut fraction {
                    *count += 1;
                }
            }
            b'.' => fraction = Some(0),
            _ => return None,
        }
    }
    let missing = places.checked_sub(fraction.unwrap_or(0))?;
    let units = units.checked_mul(10_i64.pow(missing))?;
    if units >= 10_i64.pow(18) {
        return None;
    }
    Some(if negative { -units } else { units })
}

/// Any JSON number, of any length.
fn parse_any(text: &[u8], places: u32) -> Scaled {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let exponent_at = text.iter().position(|b| matches!(b, b'e' | b'E'));
    let (mantissa, exponent) = match exponent_at {
        Some(at) => (&text[..at], parse_exponent(&text[at + 1..])),
        None => (text, 0),
    };
    let fraction_length = match mantissa.iter().position(|&b| b == b'.') {
        Some(at) => mantissa.len() - at - 1,
        None => 0,
    };
    let mut digits = mantissa
        .iter()
        .filter(|&&b| b != b'.')
        .map(|b| i64::from(b - b'0'));
    let count = mantissa.len() - usize::from(mantissa.contains(&b'.'));
    let zeros_behind = mantissa
        .iter()
        .rev()
        .filter(|&&b| b != b'.')
        .take_while(|&&b| b == b'0')
        .count();
    let zeros_ahead = digits.clone().take_while(|&d| d == 0).count();
    if zeros_ahead == count {
        return Scaled::Exact(0);
    }
    let significant = count - zeros_ahead - zeros_behind;
    // The last significant digit stands for 10^lowest units.
    let lowest = exponent - fraction_length as i64 + zeros_behind as i64 + i64::from(places);
    if lowest < 0 {
        return Scaled::TooFine;
    }
    if significant as i64 + lowest > DIGITS_MAX {
        return Scaled::TooLarge { negative };
    }
    let mut units = 0_i64;
    for digit in digits.by_ref().skip(zeros_ahead).take(significant) {
        units = units * 10 + digit;
    }
    units *= 10_i64.pow(lowest as u32);
    Scaled::Exact(if negative { -units } else { units })
}

/// The exponent, held within ±10^12: far outside what any message's digits can balance.
fn parse_exponent(text: &[u8]) -> i64 {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let mut value = 0_i64;
    for &byte in digits {
        value = (value * 10 + i64::from(byte - b'0')).min(1_000_000_000_000);
    }
    if negative { -value } else { value }
}

/// Appends `units` × 10^-8 as the shortest decimal: no exponent, no trailing zeros.
pub fn write_price(out: &mut String, units: i128) {
    let scale = 10_u128.pow(PRICE_PLACES);
    let magnitude = units.unsigned_abs();
    if units < 0 {
        out.push('-');
    }
    write!(out, "{}", magnitude / scale).expect("a String takes every write");
    let fraction = magnitude % scale;
    if fraction != 0 {
        write!(out, ".{fraction:08}").expect("a String takes every write");
        out.truncate(out.trim_end_matches('0').len());
    }
}

/// `numerator / denominator`, rounded half to even.
///
/// # Panics
/// If `denominator` is not positive or `numerator` is negative: the core divides sums of positive
/// prices by counts.
#[must_use]
pub fn divide_half_even(numerator: i128, denominator: i128) -> i128 {
    assert!(
        numerator >= 0 && denominator > 0,
        "only sums of positive prices are divided"
    );
    let quotient = numerator / denominator;
    let rest = numerator % denominator;
    match rest.cmp(&(denominator - rest)) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Greater => quotient + 1,
        std::cmp::Ordering::Equal => quotient + (quotient & 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_exactly_by_value() {
        for (text, expected) in [
            ("167.41", Scaled::Exact(16_741_000_000)),
            ("0.00000001", Scaled::Exact(1)),
            ("1e-8", Scaled::Exact(1)),
            ("1.5E+2", Scaled::Exact(15_000_000_000)),
            ("-2", Scaled::Exact(-200_000_000)),
            ("-0", Scaled::Exact(0)),
            ("0.0e999999999999999999", Scaled::Exact(0)),
            ("1.0000000000000000000000000000", Scaled::Exact(100_000_000)),
            ("100000000000000000000e-20", Scaled::Exact(100_000_000)),
            ("0.000000001", Scaled::TooFine),
            ("1e-99999999999999999999", Scaled::TooFine),
            ("12345678901234567890.123456789", Scaled::TooFine),
            ("1e10", Scaled::TooLarge { negative: false }),
            ("-1e400", Scaled::TooLarge { negative: true }),
            ("9999999999", Scaled::Exact(999_999_999_900_000_000)),
            ("10000000000", Scaled::TooLarge { negative: false }),
        ] {
            assert_eq!(parse_scaled(text, PRICE_PLACES), expected, "{text}");
        }
        assert_eq!(
            parse_scaled("1381132800.464", 3),
            Scaled::Exact(1_381_132_800_464)
        );
        assert_eq!(
            parse_scaled("1.381132800464e9", 3),
            Scaled::Exact(1_381_132_800_464)
        );
        assert_eq!(parse_scaled("1381132800.4645", 3), Scaled::TooFine);
    }

    #[test]
    fn prices_print_without_trailing_zeros() {
        for (units, expected) in [
            (16_741_000_000, "167.41"),
            (1, "0.00000001"),
            (100_000_000, "1"),
            (0, "0"),
            (-150_000_000, "-1.5"),
            (1_000_000_000_000_000_000_000, "10000000000000"),
        ] {
            let mut text = String::new();
            write_price(&mut text, units);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn halves_round_to_even() {
        for (numerator, denominator, expected) in [
            (1, 2, 0),
            (3, 2, 2),
            (5, 2, 2),
            (7, 2, 4),
            (5, 3, 2),
            (4, 3, 1),
            (6, 3, 2),
        ] {
            assert_eq!(divide_half_even(numerator, denominator), expected);
        }
        assert_eq!(divide_half_even(i128::MAX, 1), i128::MAX);
    }
}
