//! One dead letter: what it says of the record that it points to, and whether it holds it.

use super::md5_hex;
use crate::evidence::{Output, object_fields};
use crate::history::{Facts, TopicRecord};
use crate::moment::Moment;
use crate::oracle::Refusal;
use crate::oracle::reading::correlation_text;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Fields of every dead letter, in their order; the original, the key and perhaps the pointer follow.
const HEAD: [&str; 8] = [
    "error_type",
    "message",
    "stage",
    "topic",
    "partition",
    "offset",
    "timestamp",
    "correlation_id",
];

/// Bytes that a dead letter may need beside its value and key: headers and Kafka's framing, for
/// which the processor sets 700 aside, and some tolerance.
const FRAME_BYTES_MAX: usize = 1_000;

/// The content of a dead letter.
pub(super) struct Letter<'a> {
    fields: Vec<(String, &'a str)>,
    partition: i32,
    offset: i64,
}

impl<'a> Letter<'a> {
    pub(super) fn read(output: &'a Output) -> Result<Self, String> {
        let mut letter = Letter {
            fields: object_fields(output.text()?)?,
            partition: 0,
            offset: 0,
        };
        letter.partition = letter.parsed("partition")?;
        letter.offset = letter.parsed("offset")?;
        Ok(letter)
    }

    /// Partition and offset of the input record that it points to.
    pub(super) fn pointed(&self) -> (i32, i64) {
        (self.partition, self.offset)
    }

    /// A field as it is written.
    fn text(&self, name: &str) -> Option<&'a str> {
        let mut found = self.fields.iter().filter(|(field, _)| field == name);
        found.next().map(|(_, text)| *text)
    }

    fn parsed<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, String> {
        let text = self
            .text(name)
            .ok_or_else(|| format!("field `{name}` is missing"))?;
        serde_json::from_str(text).map_err(|error| format!("field `{name}` is {text}: {error}"))
    }

    fn equal<T>(&self, name: &str, expected: T) -> Result<(), String>
    where
        T: serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let found: T = self.parsed(name)?;
        if found == expected {
            Ok(())
        } else {
            Err(format!(
                "field `{name}` is {found:?}, expected {expected:?}"
            ))
        }
    }

    /// It names this topic, and its headers name the record that it points to as their cause.
    pub(super) fn belongs(&self, topic: &str, output: &Output) -> Result<(), String> {
        self.equal("topic", topic.to_owned())?;
        let (partition, offset) = self.pointed();
        if (output.source_partition, output.moment) != (partition, Moment::record(offset)) {
            return Err(format!(
                "points to input partition {partition} offset {offset}, but its headers name another cause"
            ));
        }
        Ok(())
    }

    /// It says of the record that it points to what is so, and holds it.
    pub(super) fn holds(
        &self,
        refusal: Refusal,
        source: &TopicRecord,
        output: &Output,
        facts: &Facts,
    ) -> Result<(), String> {
        self.describes(refusal, source, output, &facts.input_topic)?;
        self.keeps(source, output, facts.rules.max_message_bytes)
    }

    fn describes(
        &self,
        refusal: Refusal,
        source: &TopicRecord,
        output: &Output,
        topic: &str,
    ) -> Result<(), String> {
        self.equal("error_type", refusal.name().to_owned())?;
        self.equal("stage", refusal.stage().to_owned())?;
        self.equal("timestamp", source.timestamp_ms)?;
        self.parsed::<String>("message")?;
        let text = correlation_text(source)
            .unwrap_or_else(|| format!("{topic}_{}_{}", source.partition, source.offset));
        let correlation_id = md5_hex(&text);
        self.equal("correlation_id", correlation_id.clone())?;
        if output.correlation_id != correlation_id {
            return Err(format!(
                "header `correlation-id` is {}, expected {correlation_id}",
                output.correlation_id
            ));
        }
        if output.timestamp_ms != source.timestamp_ms {
            return Err(format!(
                "its Kafka timestamp is {}, expected that of the record, {}",
                output.timestamp_ms, source.timestamp_ms
            ));
        }
        Ok(())
    }

    /// The original bytes are there, or are left out for their size; no other field is.
    fn keeps(
        &self,
        source: &TopicRecord,
        output: &Output,
        message_bytes_max: usize,
    ) -> Result<(), String> {
        let has_pointer = self.text("pointer").is_some();
        let lacks_key = has_pointer && output.key.is_none() && source.key.is_some();
        let value = source.value.as_deref().filter(|_| !has_pointer);
        let key = source.key.as_deref().filter(|_| !lacks_key);
        let mut expected: Vec<String> = HEAD.map(str::to_owned).to_vec();
        expected.extend([field_name("original", value), field_name("key", key)]);
        expected.extend(has_pointer.then(|| "pointer".to_owned()));
        let found: Vec<&String> = self.fields.iter().map(|(name, _)| name).collect();
        if !found.iter().copied().eq(&expected) {
            return Err(format!("its fields are {found:?}, expected {expected:?}"));
        }
        if output.key.as_deref() != key {
            return Err("its key is not that of the record it points to".to_owned());
        }
        self.keeps_bytes("original", value)?;
        self.keeps_bytes("key", key)?;
        if !has_pointer {
            return Ok(());
        }
        self.equal("pointer", true)?;
        left_out_for_size(source, output, lacks_key, message_bytes_max)
    }

    fn keeps_bytes(&self, name: &str, expected: Option<&[u8]>) -> Result<(), String> {
        let encoded_name = format!("{name}_base64");
        let found = if self.text(&encoded_name).is_some() {
            let encoded: String = self.parsed(&encoded_name)?;
            Some(
                BASE64
                    .decode(encoded)
                    .map_err(|error| format!("`{encoded_name}`: {error}"))?,
            )
        } else {
            self.parsed::<Option<String>>(name)?.map(String::into_bytes)
        };
        if found.as_deref() == expected {
            return Ok(());
        }
        let show = |bytes: Option<&[u8]>| match bytes {
            Some(bytes) => format!(
                "{:?}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
            ),
            None => "null".to_owned(),
        };
        Err(format!(
            "`{name}` holds {}, the record has {}",
            show(found.as_deref()),
            show(expected)
        ))
    }
}

/// Neither the original nor the key was left out of a pointer that would have fitted with it.
fn left_out_for_size(
    source: &TopicRecord,
    pointer: &Output,
    lacks_key: bool,
    message_bytes_max: usize,
) -> Result<(), String> {
    let pointer_bytes = pointer.value.as_ref().map_or(0, |value| value.len());
    let key = source.key.as_deref();
    let missing_key_bytes = if lacks_key {
        field_bytes("key", key).saturating_sub(field_bytes("key", None))
    } else {
        0
    };
    let with_key_bytes = pointer_bytes + missing_key_bytes;
    let missing_value_bytes = field_bytes("original", source.value.as_deref())
        .saturating_sub(field_bytes("original", None));
    let full_bytes =
        (with_key_bytes + missing_value_bytes).saturating_sub(",\"pointer\":true".len());
    let fits = |value_bytes: usize| {
        value_bytes + key.map_or(0, <[u8]>::len) + FRAME_BYTES_MAX <= message_bytes_max
    };
    if fits(full_bytes) {
        return Err(format!(
            "leaves out the original, though the letter would have {full_bytes} bytes with it, of \
             {message_bytes_max} that a message may have"
        ));
    }
    if lacks_key && fits(with_key_bytes) {
        return Err(format!(
            "leaves out the key, though the letter would have {with_key_bytes} bytes with it, of \
             {message_bytes_max} that a message may have"
        ));
    }
    Ok(())
}

/// Name of the field that holds these bytes.
fn field_name(name: &str, bytes: Option<&[u8]>) -> String {
    match bytes.map(std::str::from_utf8) {
        Some(Err(_)) => format!("{name}_base64"),
        _ => name.to_owned(),
    }
}

/// Length of the field that holds these bytes, with the comma before it.
fn field_bytes(name: &str, bytes: Option<&[u8]>) -> usize {
    let value_bytes = match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => "null".len(),
        Some((_, Ok(text))) => serde_json::to_string(text).map_or(0, |json| json.len()),
        Some((bytes, Err(_))) => BASE64.encode(bytes).len() + 2,
    };
    field_name(name, bytes).len() + ",\"\":".len() + value_bytes
}
