//! Exact decimals: from the text of a JSON number to a scaled integer and back. No float between.

use bigdecimal::num_bigint::BigInt;
use bigdecimal::{BigDecimal, RoundingMode};
use std::fmt::Write as _;

/// Places of a price: prices are integers in units of 10⁻⁸.
pub const PRICE_PLACES: u32 = 8;

/// A JSON number as a multiple of 10^-places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaled {
    /// Exactly this multiple.
    Exact(i128),
    /// It has more places than that.
    TooFine {
        /// It is below zero.
        negative: bool,
    },
    /// Its magnitude is beyond what is told apart here (more than 37 digits after scaling).
    TooBig {
        /// It is below zero.
        negative: bool,
    },
}

/// Reads the text of a JSON number (any notation) as a multiple of 10^-`places`. Trailing zeros and
/// exponents do not matter, only the value does.
#[must_use]
pub fn scaled(number: &str, places: u32) -> Scaled {
    let (negative, unsigned) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, saturating_exponent(exponent)),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Scaled::Exact(0);
    }
    let dropped_zeros = digits.len() - digits.trim_end_matches('0').len();
    // Power of ten of the last significant digit, in units of 10^-places.
    let power = exponent
        .saturating_add(length(dropped_zeros))
        .saturating_sub(length(fraction.len()))
        .saturating_add(i64::from(places));
    if power < 0 {
        return Scaled::TooFine { negative };
    }
    if power.saturating_add(length(significant.len())) > 37 {
        return Scaled::TooBig { negative };
    }
    let magnitude = significant
        .bytes()
        .fold(0_i128, |value, digit| value * 10 + i128::from(digit - b'0'))
        * 10_i128.pow(u32::try_from(power).expect("power is within 0..=37"));
    Scaled::Exact(if negative { -magnitude } else { magnitude })
}

fn length(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

fn saturating_exponent(text: &str) -> i64 {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    // Far beyond any number of places, far below overflow when lengths are added.
    let magnitude = digits
        .parse::<i64>()
        .unwrap_or(i64::MAX / 4)
        .min(i64::MAX / 4);
    if negative { -magnitude } else { magnitude }
}

/// Writes a multiple of 10⁻⁸ as JSON: no exponent, no trailing zeros.
#[must_use]
pub fn price_text(scaled: i128) -> String {
    let unit = 10_u128.pow(PRICE_PLACES);
    let magnitude = scaled.unsigned_abs();
    let mut text = String::new();
    if scaled < 0 {
        text.push('-');
    }
    write!(text, "{}", magnitude / unit).expect("writing to a string cannot fail");
    let fraction = format!("{:08}", magnitude % unit);
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

/// `numerator / denominator`, both exact, rounded half-even to 8 places once; `numerator` is in units
/// of 10⁻⁸. `None` when the denominator is zero.
#[must_use]
pub fn quotient_text(numerator: &BigInt, denominator: i128) -> Option<String> {
    if denominator == 0 {
        return None;
    }
    // The division carries 100 digits, so it can be mistaken for a tie only by a remainder that a
    // denominator below 10^90 cannot leave.
    let quotient =
        BigDecimal::new(numerator.clone(), i64::from(PRICE_PLACES)) / BigDecimal::from(denominator);
    let rounded = quotient.with_scale_round(i64::from(PRICE_PLACES), RoundingMode::HalfEven);
    let (units, _) = rounded.into_bigint_and_exponent();
    let units = i128::try_from(units).expect("an average lies between exact prices");
    Some(price_text(units))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_of_a_value_reads_the_same() {
        for text in [
            "1.5",
            "1.50000000000",
            "15e-1",
            "0.15E1",
            "0.00015e+4",
            "150E-2",
        ] {
            assert_eq!(scaled(text, 8), Scaled::Exact(150_000_000), "{text}");
        }
        for text in ["0", "-0", "0.000", "0e99999999999999999999"] {
            assert_eq!(scaled(text, 8), Scaled::Exact(0), "{text}");
        }
        assert_eq!(scaled("-2.5e0", 1), Scaled::Exact(-25));
    }

    #[test]
    fn what_does_not_fit_is_told_apart() {
        assert_eq!(
            scaled("0.000000001", 8),
            Scaled::TooFine { negative: false }
        );
        assert_eq!(
            scaled("-1e-99999999999999999999", 8),
            Scaled::TooFine { negative: true }
        );
        assert_eq!(
            scaled("1e99999999999999999999", 8),
            Scaled::TooBig { negative: false }
        );
        assert_eq!(scaled("1e28", 8), Scaled::Exact(10_i128.pow(36)));
        assert_eq!(scaled("1e29", 8), Scaled::TooBig { negative: false });
    }

    #[test]
    fn a_quotient_is_rounded_half_even_once() {
        let units = |value: i64| BigInt::from(value);
        assert_eq!(quotient_text(&units(1), 2).as_deref(), Some("0"));
        assert_eq!(quotient_text(&units(3), 2).as_deref(), Some("0.00000002"));
        assert_eq!(quotient_text(&units(5), 2).as_deref(), Some("0.00000002"));
        assert_eq!(
            quotient_text(&units(1_000_000_000), 3).as_deref(),
            Some("3.33333333")
        );
        assert_eq!(
            quotient_text(&units(2_000_000_000), 3).as_deref(),
            Some("6.66666667")
        );
        assert_eq!(
            quotient_text(&units(15_000_000_000), 1).as_deref(),
            Some("150")
        );
        assert_eq!(quotient_text(&units(7), 0), None);
    }
}
