//! A dead letter, read back from the dead-letter topic.

use crate::commands::reader::Record;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Place of a record: partition and offset, written `3:17`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub partition: i32,
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.partition, self.offset))
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        let parsed = text.split_once(':').and_then(|(partition, offset)| {
            let partition = partition.parse().ok().filter(|p| *p >= 0)?;
            let offset = offset.parse().ok().filter(|o| *o >= 0)?;
            Some(Place { partition, offset })
        });
        parsed.ok_or_else(|| "write it as PARTITION:OFFSET, for example 3:17".to_owned())
    }
}

/// What a dead letter says, as the processor wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub error_type: String,
    pub message: String,
    pub stage: String,
    /// Input topic.
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Kafka timestamp of the original, Unix milliseconds.
    pub timestamp: i64,
    pub correlation_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The original was too large to be carried along: it is in the input topic only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pointer: bool,
}

/// A dead letter and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// In the dead-letter topic.
    pub place: Place,
    pub content: Content,
}

/// Key and value of an original record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

impl Letter {
    /// Reads a record of the dead-letter topic.
    ///
    /// # Errors
    /// What is wrong with it: somebody else wrote it.
    pub fn read(record: &Record) -> Result<Letter, String> {
        let value = record.value.as_deref().unwrap_or_default();
        let content: Content = serde_json::from_slice(value)
            .map_err(|error| format!("not a dead letter of this program: {error}"))?;
        let letter = Letter {
            place: Place {
                partition: record.partition,
                offset: record.offset,
            },
            content,
        };
        letter.original()?;
        Ok(letter)
    }

    /// Where the original lies in the input topic.
    pub fn source(&self) -> Place {
        Place {
            partition: self.content.partition,
            offset: self.content.offset,
        }
    }

    /// The original record; `None` where only the input topic has it.
    ///
    /// # Errors
    /// When its bytes are not readable.
    pub fn original(&self) -> Result<Option<Original>, String> {
        let content = &self.content;
        if content.pointer {
            return Ok(None);
        }
        Ok(Some(Original {
            key: bytes(content.key.as_ref(), content.key_base64.as_ref())?,
            value: bytes(content.original.as_ref(), content.original_base64.as_ref())?,
        }))
    }

    /// The key as text, for people.
    pub fn key_text(&self) -> &str {
        let text = self.content.key.as_deref();
        text.unwrap_or(if self.content.key_base64.is_some() {
            "(bytes)"
        } else {
            "-"
        })
    }
}

fn bytes(text: Option<&String>, base64: Option<&String>) -> Result<Option<Vec<u8>>, String> {
    match (text, base64) {
        (Some(text), _) => Ok(Some(text.clone().into_bytes())),
        (None, Some(encoded)) => {
            let decoded = BASE64.decode(encoded);
            decoded
                .map(Some)
                .map_err(|error| format!("its base64: {error}"))
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use processor::config::ProcessorConfig;
    use processor::core::{InputRecord, PartitionTask};
    use processor::units::{LogTimeMs, Offset, PartitionId};

    fn letter_of(key: Option<&[u8]>, value: Option<&[u8]>) -> Letter {
        let config = ProcessorConfig::from_toml(ProcessorConfig::example()).expect("it is valid");
        let mut task = PartitionTask::new(PartitionId(2), Offset(9), config.core_config());
        let mut outputs = Vec::new();
        let record = InputRecord {
            offset: Offset(9),
            timestamp: LogTimeMs(1_700_000_000_000),
            key,
            value,
        };
        let _ = task.process([record], &mut outputs);
        let record = Record {
            partition: 1,
            offset: 5,
            timestamp_ms: 0,
            key: None,
            value: Some(outputs[0].value.to_vec()),
            headers: Vec::new(),
        };
        Letter::read(&record).expect("the core wrote it")
    }

    #[test]
    fn the_original_comes_back_byte_for_byte() {
        type KeyAndValue<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);
        let cases: [KeyAndValue<'_>; 5] = [
            (Some(b"AMZN"), Some(b"{\"a\":\"\\u0000\"}")),
            (Some(b"\xff\xfe"), Some(b"\x00\xff")),
            (None, Some(b"")),
            (Some(b""), None),
            (None, None),
        ];
        for (key, value) in cases {
            let letter = letter_of(key, value);
            let original = letter.original().expect("readable").expect("carried along");
            assert_eq!(original.key.as_deref(), key);
            assert_eq!(original.value.as_deref(), value);
            assert_eq!(letter.source().to_string(), "2:9");
        }
    }

    #[test]
    fn a_pointer_has_no_original() {
        let letter = letter_of(Some(b"AMZN"), Some(&vec![b'x'; 2_000_000]));
        assert_eq!(letter.original(), Ok(None));
    }

    #[test]
    fn what_is_not_a_dead_letter_is_told() {
        let record = Record {
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: None,
            value: Some(b"hello".to_vec()),
            headers: Vec::new(),
        };
        let error = Letter::read(&record).expect_err("it is none");
        assert!(error.contains("not a dead letter"), "{error}");
    }

    #[test]
    fn places_are_written_as_they_are_read() {
        assert_eq!(
            "3:17".parse::<Place>().map(|p| p.to_string()),
            Ok("3:17".to_owned())
        );
        for wrong in ["3", "3:", ":17", "-1:0", "0:-1", "a:b"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
