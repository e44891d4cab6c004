//! JSON numbers read exactly, without a float in between.

/// Seconds, as a JSON number's text, in milliseconds, rounded up to whole ones; `None` when the text
/// is no JSON number or lies beyond the year 9999.
#[must_use]
pub fn seconds_to_ms(text: &str) -> Option<i64> {
    const MS_MAX: i128 = 253_402_300_799_999;
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let only_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !only_digits || digits.len() > 30 || exponent.abs() > 60 {
        return None;
    }
    let value: i128 = digits.parse().ok()?;
    let fraction_places = i32::try_from(fraction.len()).ok()?;
    let scale = exponent - fraction_places + 3;
    let power = 10_i128.checked_pow(scale.unsigned_abs());
    let ms = match (scale >= 0, power) {
        (true, Some(power)) => value.checked_mul(power)?,
        (true, None) if value == 0 => 0,
        (true, None) => return None,
        (false, Some(power)) if negative => value / power,
        (false, Some(power)) => value / power + i128::from(value % power != 0),
        (false, None) => i128::from(!negative && value != 0),
    };
    if ms > MS_MAX {
        return None;
    }
    let ms = i64::try_from(ms).ok()?;
    Some(if negative { -ms } else { ms })
}

#[cfg(test)]
mod tests {
    use super::seconds_to_ms;

    #[test]
    fn seconds_become_milliseconds_exactly() {
        for (text, ms) in [
            ("1381132800.464", 1_381_132_800_464),
            ("1609459200", 1_609_459_200_000),
            ("1.6094592e9", 1_609_459_200_000),
            ("0", 0),
            ("-1.5", -1_500),
            ("123", 123_000),
            ("1000e-3", 1_000),
        ] {
            assert_eq!(seconds_to_ms(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn parts_of_a_millisecond_are_rounded_up() {
        assert_eq!(seconds_to_ms("1.0001"), Some(1_001));
        assert_eq!(seconds_to_ms("1e-30"), Some(1));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "",
            "-",
            "abc",
            "\"1\"",
            "1e999999999999",
            "1e40",
            "null",
            "+1",
            "1_0",
            "9e17",
        ] {
            assert_eq!(seconds_to_ms(text), None, "{text}");
        }
    }
}
