//! The ledger of replays: which dead letters were sent back to the input topic, and where to.
//!
//! It is a compacted topic with one record a replayed dead letter, written in the same transaction as the
//! replay. So a dead letter is in it if, and only if, it was replayed.

use super::letter::{Letter, Place};
use crate::commands::reader::{Record, Span, TopicReader};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Format version written and understood.
const VERSION: u32 = 1;

/// One replay. Places are written `partition:offset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Format version.
    v: u32,
    /// The dead letter's place.
    dead_letter: String,
    /// Its original's place in the input topic.
    source: String,
    /// Its correlation id.
    correlation_id: String,
    /// How often the event has been replayed, this replay included.
    pub attempt: u32,
    /// Where the replayed record is in the input topic.
    replayed_to: String,
}

impl Entry {
    /// The entry of a replay.
    pub fn new(letter: &Letter, attempt: u32, replayed_to: Place) -> Entry {
        Entry {
            v: VERSION,
            dead_letter: letter.place.to_string(),
            source: letter.source().to_string(),
            correlation_id: letter.content.correlation_id.clone(),
            attempt,
            replayed_to: replayed_to.to_string(),
        }
    }

    /// Key and value of its record.
    ///
    /// # Panics
    /// Never: plain fields serialise.
    pub fn record(&self) -> (String, String) {
        let value = serde_json::to_string(self).expect("plain fields serialise");
        (self.dead_letter.clone(), value)
    }
}

/// All replays so far.
#[derive(Debug, Default)]
pub struct Ledger {
    by_letter: BTreeMap<Place, Entry>,
    /// Attempts by the place of the replayed record.
    by_input: BTreeMap<Place, u32>,
    /// Where reading goes on.
    position: i64,
}

impl Ledger {
    /// Reads what was added since the last time.
    ///
    /// # Errors
    /// When the topic is missing, cannot be read, or holds something else.
    pub fn catch_up(&mut self, reader: &mut TopicReader) -> anyhow::Result<()> {
        let Span { from, to } = reader.whole_partition(0)?;
        let from = from.max(self.position);
        reader.start(&BTreeMap::from([(0, Span { from, to })]))?;
        while let Some(record) = reader.next()? {
            self.add(&record)?;
        }
        self.position = to.max(from);
        Ok(())
    }

    fn add(&mut self, record: &Record) -> anyhow::Result<()> {
        let value = record.value.as_deref().unwrap_or_default();
        let entry: Entry = serde_json::from_slice(value).with_context(|| {
            format!(
                "the ledger's record {} is not a replay: another program writes this topic",
                record.offset
            )
        })?;
        if entry.v != VERSION {
            bail!(
                "the ledger's record {} has format version {}, this program reads version {VERSION}: run a newer \
                 version",
                record.offset,
                entry.v
            );
        }
        let place = |text: &str| text.parse::<Place>().map_err(anyhow::Error::msg);
        self.by_input
            .insert(place(&entry.replayed_to)?, entry.attempt);
        self.by_letter.insert(place(&entry.dead_letter)?, entry);
        Ok(())
    }

    /// The replay of a dead letter, if there was one.
    ///
    /// # Errors
    /// When the ledger tells of another dead letter at this place.
    pub fn replay_of(&self, letter: &Letter) -> anyhow::Result<Option<&Entry>> {
        let Some(entry) = self.by_letter.get(&letter.place) else {
            return Ok(None);
        };
        let is_same = entry.source == letter.source().to_string()
            && entry.correlation_id == letter.content.correlation_id;
        if !is_same {
            bail!(
                "the ledger tells of another dead letter at {}: the dead-letter topic was created anew; delete the \
                 ledger's topic as well, and run `processor topics create`",
                letter.place
            );
        }
        Ok(Some(entry))
    }

    /// How often the event of this dead letter has been replayed before.
    pub fn attempts_before(&self, letter: &Letter) -> u32 {
        self.by_input.get(&letter.source()).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::Content;
    use super::*;

    fn letter(place: &str, source: &str) -> Letter {
        let source: Place = source.parse().expect("a place");
        Letter {
            place: place.parse().expect("a place"),
            content: Content {
                error_type: "malformed".to_owned(),
                message: String::new(),
                stage: "decode".to_owned(),
                topic: "in".to_owned(),
                partition: source.partition,
                offset: source.offset,
                timestamp: 0,
                correlation_id: format!("of {source}"),
                original: None,
                original_base64: None,
                key: None,
                key_base64: None,
                pointer: false,
            },
        }
    }

    fn record_of(entry: &Entry) -> Record {
        let (key, value) = entry.record();
        Record {
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: Some(key.into_bytes()),
            value: Some(value.into_bytes()),
            headers: Vec::new(),
        }
    }

    fn place(text: &str) -> Place {
        text.parse().expect("a place")
    }

    #[test]
    fn a_replay_is_known_by_its_letter_and_counted_over_further_failures() {
        let mut ledger = Ledger::default();
        let first = letter("0:4", "2:10");
        assert_eq!(ledger.attempts_before(&first), 0);
        let entry = Entry::new(&first, 1, place("2:99"));
        ledger.add(&record_of(&entry)).expect("a replay");
        assert_eq!(
            ledger.replay_of(&first).expect("the same letter"),
            Some(&entry)
        );

        // The replayed record failed again: its dead letter is another one.
        let second = letter("0:5", "2:99");
        assert_eq!(ledger.replay_of(&second).expect("no entry"), None);
        assert_eq!(ledger.attempts_before(&second), 1);
    }

    #[test]
    fn a_topic_that_was_created_anew_is_noticed() {
        let mut ledger = Ledger::default();
        let entry = Entry::new(&letter("0:4", "2:10"), 1, place("2:99"));
        ledger.add(&record_of(&entry)).expect("a replay");
        let error = ledger
            .replay_of(&letter("0:4", "1:3"))
            .expect_err("another one");
        assert!(error.to_string().contains("created anew"), "{error}");
    }

    #[test]
    fn foreign_and_newer_records_are_refused() {
        let mut ledger = Ledger::default();
        let mut record = record_of(&Entry::new(&letter("0:4", "2:10"), 1, place("2:99")));
        let value = String::from_utf8(record.value.take().expect("a value")).expect("text");
        record.value = Some(value.replace("\"v\":1", "\"v\":2").into_bytes());
        let error = ledger.add(&record).expect_err("newer");
        assert!(error.to_string().contains("run a newer"), "{error}");
        record.value = Some(b"x".to_vec());
        let error = ledger.add(&record).expect_err("foreign");
        assert!(error.to_string().contains("is not a replay"), "{error}");
    }
}
