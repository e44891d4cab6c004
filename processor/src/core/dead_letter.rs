//! Dead letters: what is put out for a record that breaks a rule, with all that is needed to repair
//! and replay it.

use crate::core::decode::{decode_event, number_of, string_of};
use crate::core::task::InputRecord;
use crate::units::PartitionId;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};
use std::fmt::Write;

/// The rule that a record broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorType {
    /// Not one JSON object, or a field twice.
    Malformed,
    /// A required field is absent or null.
    MissingField,
    /// A field has another type than it must.
    WrongType,
    /// The ticker is not in the reference data.
    UnknownTicker,
    /// The price is not above 0, too high or too fine.
    PriceOutOfRange,
    /// The volume is below 0 or too high.
    VolumeOutOfRange,
    /// The event is older than the configured floor.
    TimestampTooOld,
    /// The event is too far ahead of its record's Kafka timestamp.
    TimestampInFuture,
    /// The event's window is past its lateness horizon.
    TooLate,
}

/// Where in the pipeline the rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Reading the JSON.
    Decode,
    /// Checking values.
    Validate,
    /// Putting the event into its window.
    Window,
}

impl ErrorType {
    /// All of them.
    pub const ALL: [ErrorType; 9] = [
        ErrorType::Malformed,
        ErrorType::MissingField,
        ErrorType::WrongType,
        ErrorType::UnknownTicker,
        ErrorType::PriceOutOfRange,
        ErrorType::VolumeOutOfRange,
        ErrorType::TimestampTooOld,
        ErrorType::TimestampInFuture,
        ErrorType::TooLate,
    ];

    /// Name in the dead letter.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ErrorType::Malformed => "malformed",
            ErrorType::MissingField => "missing_field",
            ErrorType::WrongType => "wrong_type",
            ErrorType::UnknownTicker => "unknown_ticker",
            ErrorType::PriceOutOfRange => "price_out_of_range",
            ErrorType::VolumeOutOfRange => "volume_out_of_range",
            ErrorType::TimestampTooOld => "timestamp_too_old",
            ErrorType::TimestampInFuture => "timestamp_in_future",
            ErrorType::TooLate => "too_late",
        }
    }

    /// Stage at which it is found.
    #[must_use]
    pub fn stage(self) -> Stage {
        match self {
            ErrorType::Malformed | ErrorType::MissingField | ErrorType::WrongType => Stage::Decode,
            ErrorType::UnknownTicker
            | ErrorType::PriceOutOfRange
            | ErrorType::VolumeOutOfRange
            | ErrorType::TimestampTooOld
            | ErrorType::TimestampInFuture => Stage::Validate,
            ErrorType::TooLate => Stage::Window,
        }
    }
}

impl Stage {
    /// Name in the dead letter.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Validate => "validate",
            Stage::Window => "window",
        }
    }
}

/// A rule that a record broke, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejection {
    pub error_type: ErrorType,
    pub message: String,
}

impl Rejection {
    pub(super) fn new(error_type: ErrorType, message: String) -> Self {
        Rejection {
            error_type,
            message,
        }
    }
}

/// Bytes for a dead letter's headers and Kafka's framing of the record.
const FRAME_BYTES_MAX: usize = 700;

/// A dead letter before it has a place in the sequence.
pub(super) struct DeadLetter {
    pub value: String,
    pub correlation_id: String,
    /// False: the source's key is itself too large to be carried along.
    pub keeps_key: bool,
}

/// Builds the dead letter of a record: in full, or as a pointer when that would not fit into
/// `max_message_bytes`.
pub(super) fn dead_letter(
    topic: &str,
    partition: PartitionId,
    record: &InputRecord<'_>,
    rejection: &Rejection,
    max_message_bytes: usize,
) -> DeadLetter {
    let correlation_id = correlation_of(topic, partition, record);
    let mut head = String::with_capacity(512 + record.value.map_or(0, <[u8]>::len));
    write!(
        head,
        "{{\"error_type\":\"{}\",\"message\":{},\"stage\":\"{}\",\"topic\":{},\"partition\":{},\
         \"offset\":{},\"timestamp\":{},\"correlation_id\":\"{correlation_id}\"",
        rejection.error_type.name(),
        json_string(&rejection.message),
        rejection.error_type.stage().name(),
        json_string(topic),
        partition,
        record.offset,
        record.timestamp,
    )
    .expect("a String takes every write");
    let key_bytes = record.key.map_or(0, <[u8]>::len);
    let fits =
        |value: &String, key: usize| value.len() + key + FRAME_BYTES_MAX <= max_message_bytes;

    // Bytes take at least their own length as JSON: do not build what cannot fit.
    if head.len() + record.value.map_or(0, <[u8]>::len) <= max_message_bytes {
        let mut full = head.clone();
        write_bytes(&mut full, "original", record.value);
        write_bytes(&mut full, "key", record.key);
        full.push('}');
        if fits(&full, key_bytes) {
            return DeadLetter {
                value: full,
                correlation_id,
                keeps_key: true,
            };
        }
    }
    let mut pointer = head.clone();
    write_bytes(&mut pointer, "original", None);
    write_bytes(&mut pointer, "key", record.key);
    pointer.push_str(",\"pointer\":true}");
    if fits(&pointer, key_bytes) {
        return DeadLetter {
            value: pointer,
            correlation_id,
            keeps_key: true,
        };
    }
    head.push_str(",\"original\":null,\"key\":null,\"pointer\":true}");
    DeadLetter {
        value: head,
        correlation_id,
        keeps_key: false,
    }
}

fn write_bytes(out: &mut String, name: &str, bytes: Option<&[u8]>) {
    let written = match bytes.map(std::str::from_utf8) {
        None => write!(out, ",\"{name}\":null"),
        Some(Ok(text)) => write!(out, ",\"{name}\":{}", json_string(text)),
        Some(Err(_)) => {
            let encoded = BASE64.encode(bytes.expect("there are bytes"));
            write!(out, ",\"{name}_base64\":\"{encoded}\"")
        }
    };
    written.expect("a String takes every write");
}

fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

/// The event's correlation id where ticker and timestamp can be read, the record's otherwise.
fn correlation_of(topic: &str, partition: PartitionId, record: &InputRecord<'_>) -> String {
    let of_event = record.value.and_then(|value| {
        let raw = decode_event(value).ok()?;
        let ticker = string_of(raw.ticker?)?;
        let timestamp = number_of(raw.timestamp?)?;
        Some(format!("{ticker}_{timestamp}"))
    });
    let text = of_event.unwrap_or_else(|| format!("{topic}_{partition}_{}", record.offset));
    md5_hex(&text)
}

/// MD5 as 32 lower-case hex digits: the document's correlation ids are that.
pub(super) fn md5_hex(text: &str) -> String {
    let mut out = String::with_capacity(32);
    for byte in Md5::digest(text.as_bytes()) {
        write!(out, "{byte:02x}").expect("a String takes every write");
    }
    out
}
