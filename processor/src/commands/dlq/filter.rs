//! Which dead letters a command is about.

use super::letter::Letter;
use clap::Args;
use processor::core::ErrorType;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Options that select dead letters; all of them must be met.
#[derive(Debug, Clone, Args)]
pub struct Filter {
    /// Only of this error type (malformed, missing_field, wrong_type, unknown_ticker, price_out_of_range,
    /// volume_out_of_range, timestamp_too_old, timestamp_in_future, too_late)
    #[arg(long, value_name = "TYPE", value_parser = error_type)]
    pub error_type: Option<String>,
    /// Only of records that Kafka took at this moment or later: 2026-01-31T12:00:00Z, or 30m, 2h, 7d ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<i64>,
    /// Only with this key (the ticker)
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
}

impl Filter {
    /// True if nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.error_type.is_none() && self.since.is_none() && self.key.is_none()
    }

    /// True if the dead letter meets it.
    pub fn takes(&self, letter: &Letter) -> bool {
        let content = &letter.content;
        let is_type = |wanted: &String| *wanted == content.error_type;
        self.error_type.as_ref().is_none_or(is_type)
            && self.since.is_none_or(|since| content.timestamp >= since)
            && self
                .key
                .as_ref()
                .is_none_or(|key| content.key.as_ref() == Some(key))
    }
}

fn error_type(text: &str) -> Result<String, String> {
    let known = ErrorType::ALL.map(ErrorType::name);
    if known.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("it must be one of {}", known.join(", ")))
}

/// Unix milliseconds of a moment.
fn moment(text: &str) -> Result<i64, String> {
    if let Ok(moment) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok(moment.timestamp_millis());
    }
    let ago = ago(text)
        .ok_or_else(|| "write it as 2026-01-31T12:00:00Z, or as 30m, 2h or 7d ago".to_owned())?;
    let then = SystemTime::now().checked_sub(ago);
    let since = then.and_then(|then| then.duration_since(UNIX_EPOCH).ok());
    since
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .ok_or_else(|| "that is before 1970".to_owned())
}

fn ago(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_absolute_or_ago() {
        assert_eq!(moment("2023-11-14T22:13:20Z"), Ok(1_700_000_000_000));
        assert_eq!(ago("90m"), Some(Duration::from_secs(5_400)));
        assert_eq!(ago("7d"), Some(Duration::from_secs(604_800)));
        assert!(moment("2h").expect("a moment") < moment("1h").expect("a moment"));
        for wrong in ["", "h", "yesterday", "2w", "99999999999999999999d"] {
            let error = moment(wrong).expect_err(wrong);
            assert!(error.contains("30m, 2h or 7d"), "{error}");
        }
    }

    #[test]
    fn an_unknown_error_type_is_told_with_the_known_ones() {
        assert_eq!(error_type("too_late"), Ok("too_late".to_owned()));
        let error = error_type("late").expect_err("unknown");
        assert!(error.contains("too_late"), "{error}");
    }
}
