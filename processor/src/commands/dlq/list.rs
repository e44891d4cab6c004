//! `processor dlq list` and `processor dlq show`.

use super::filter::Filter;
use super::ledger::Ledger;
use super::letter::{Letter, Place};
use super::present_ledger;
use crate::commands::config::ConfigArgs;
use crate::commands::reader::{Record, TopicReader};
use anyhow::anyhow;
use clap::Args;
use serde_json::{Value, json};
use std::io::{BufWriter, Write};
use std::process::ExitCode;

const LIST_HELP: &str = "\
One line a dead letter: its place (give it to `dlq show` and `dlq replay`), when Kafka took the original, error
type, key, the original's place in the input topic, attempts (how often the event was replayed before; `+` if
this dead letter itself was replayed), and the message.

Examples:
  processor dlq list --config processor.toml --error-type unknown_ticker --since 2h
  processor dlq list --config processor.toml --json --limit 10";

/// Lists dead letters.
#[derive(Debug, Args)]
#[command(after_help = LIST_HELP)]
pub struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    filter: Filter,
    /// At most this many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Shows one dead letter with everything it holds.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  processor dlq show --config processor.toml 3:17")]
pub struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Its place in the dead-letter topic
    #[arg(value_name = "PARTITION:OFFSET")]
    place: Place,
}

pub fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?;
    let ledger = present_ledger(&config)?;
    let mut reader = TopicReader::new(&config.kafka, &config.kafka.dead_letter_topic)?;
    let mut spans = reader.whole()?;
    if let Some(since) = args.filter.since {
        spans = reader.since(spans, since)?;
    }
    reader.start(&spans)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut listed = 0;
    while args.limit.is_none_or(|limit| listed < limit)
        && let Some(record) = reader.next()?
    {
        let Some(line) = line(&record, args, &ledger)? else {
            continue;
        };
        listed += 1;
        if let Err(error) = writeln!(out, "{line}") {
            return until_closed(error);
        }
    }
    match out.flush() {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => until_closed(error),
    }
}

/// A reader such as `head` that has seen enough is no error.
fn until_closed(error: std::io::Error) -> anyhow::Result<ExitCode> {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return Ok(ExitCode::SUCCESS);
    }
    Err(error.into())
}

/// The line of a record; `None` if it was not asked for.
fn line(record: &Record, args: &ListArgs, ledger: &Ledger) -> anyhow::Result<Option<String>> {
    let letter = match Letter::read(record) {
        Ok(letter) if args.filter.takes(&letter) => letter,
        Ok(_) => return Ok(None),
        // A filter asks for dead letters.
        Err(_) if !args.filter.is_empty() => return Ok(None),
        Err(why) => {
            let place = format!("{}:{}", record.partition, record.offset);
            return Ok(Some(if args.json {
                json!({"place": place, "unreadable": why}).to_string()
            } else {
                format!("{place:>10}  {why}")
            }));
        }
    };
    let is_replayed = ledger.replay_of(&letter)?.is_some();
    let attempts = ledger.attempts_before(&letter);
    if args.json {
        let mut object = serde_json::to_value(&letter.content)?;
        object["place"] = Value::from(letter.place.to_string());
        object["attempts"] = Value::from(attempts);
        object["replayed"] = Value::from(is_replayed);
        return Ok(Some(object.to_string()));
    }
    let content = &letter.content;
    Ok(Some(format!(
        "{:>10}  {}  {:<20} {:<8} {:>10}  {attempts}{} {}",
        letter.place,
        time(content.timestamp),
        content.error_type,
        letter.key_text(),
        letter.source(),
        if is_replayed { '+' } else { ' ' },
        one_line(&content.message),
    )))
}

/// A text without what would break the line or the terminal.
fn one_line(text: &str) -> String {
    let escape = |c: char| {
        let escaped = c.is_control().then(|| c.escape_default());
        escaped.map_or_else(|| c.to_string(), |escaped| escaped.to_string())
    };
    text.chars().map(escape).collect()
}

fn time(unix_ms: i64) -> String {
    let moment = chrono::DateTime::from_timestamp_millis(unix_ms);
    moment.map_or_else(
        || format!("{unix_ms} ms"),
        |moment| moment.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
    )
}

pub fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?;
    let topic = &config.kafka.dead_letter_topic;
    let ledger = present_ledger(&config)?;
    let record = find(
        &mut TopicReader::new(&config.kafka, topic)?,
        topic,
        args.place,
    )?;
    let mut shown = json!({
        "place": args.place.to_string(),
        "timestamp_ms": record.timestamp_ms,
        "key": record.key.as_deref().map(text),
        "headers": record.headers.iter()
            .map(|(name, value)| json!({"name": name, "value": text(value)}))
            .collect::<Vec<_>>(),
    });
    match Letter::read(&record) {
        Ok(letter) => {
            shown["dead_letter"] = serde_json::to_value(&letter.content)?;
            shown["attempts"] = Value::from(ledger.attempts_before(&letter));
            shown["replay"] = serde_json::to_value(ledger.replay_of(&letter)?)?;
        }
        Err(why) => {
            shown["unreadable"] = Value::from(why);
            shown["value"] = record.value.as_deref().map(text).into();
        }
    }
    println!("{}", serde_json::to_string_pretty(&shown)?);
    Ok(ExitCode::SUCCESS)
}

/// A record of the dead-letter topic.
///
/// # Errors
/// When there is none at this place.
pub fn find(reader: &mut TopicReader, topic: &str, place: Place) -> anyhow::Result<Record> {
    let spans = reader.whole()?;
    let span = spans.get(&place.partition).ok_or_else(|| {
        anyhow!(
            "topic {topic} has no partition {}: it has {}",
            place.partition,
            spans.len()
        )
    })?;
    let held = (span.from, span.to);
    reader.at(place.partition, place.offset)?.ok_or_else(|| {
        anyhow!(
            "topic {topic} holds no record at {place}: partition {} holds offsets {} to before {}; `processor dlq \
             list` shows them",
            place.partition,
            held.0,
            held.1
        )
    })
}

/// Bytes for people.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_one_line_and_moves_no_cursor() {
        assert_eq!(
            one_line("a \"b\"\nc\u{1b}[2J\u{e9}"),
            "a \"b\"\\nc\\u{1b}[2J\u{e9}"
        );
    }

    #[test]
    fn times_are_utc_and_any_number_is_shown() {
        assert_eq!(time(1_700_000_000_007), "2023-11-14T22:13:20.007Z");
        assert_eq!(time(i64::MAX), format!("{} ms", i64::MAX));
    }
}
