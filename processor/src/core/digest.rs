//! The rolling digest of one partition: a chain over everything that went in and came out, so that
//! a recovery can prove that it reproduced what was committed.

use crate::core::{ForcedAdvance, InputRecord};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use xxhash_rust::xxh3::xxh3_128;

/// Odd, with well-spread bits (2^128 divided by the golden ratio).
const MULTIPLIER: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

const TAG_RECORD: u8 = 1;
const TAG_OUTPUT: u8 = 2;
const TAG_FORCED: u8 = 3;

/// Order-sensitive digest of all processed records, outputs and forced advances. Offsets without a
/// visible record do not exist for it. Written as 32 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub u128);

impl Digest {
    pub(super) fn chain(&mut self, link: u128) {
        self.0 = self.0.wrapping_mul(MULTIPLIER).wrapping_add(link);
    }
}

/// The link of a processed record.
pub(super) fn record_link(record: &InputRecord<'_>) -> u128 {
    let mut buffer = [0_u8; 50];
    buffer[0] = TAG_RECORD;
    buffer[1] = u8::from(record.key.is_some()) | u8::from(record.value.is_some()) << 1;
    buffer[2..10].copy_from_slice(&record.offset.0.to_le_bytes());
    buffer[10..18].copy_from_slice(&record.timestamp.0.to_le_bytes());
    if let Some(key) = record.key {
        buffer[18..34].copy_from_slice(&xxh3_128(key).to_le_bytes());
    }
    if let Some(value) = record.value {
        buffer[34..50].copy_from_slice(&xxh3_128(value).to_le_bytes());
    }
    xxh3_128(&buffer)
}

/// The link of an output.
pub(super) fn output_link(sequence: u64, value: &[u8]) -> u128 {
    let mut buffer = [0_u8; 25];
    buffer[0] = TAG_OUTPUT;
    buffer[1..9].copy_from_slice(&sequence.to_le_bytes());
    buffer[9..25].copy_from_slice(&xxh3_128(value).to_le_bytes());
    xxh3_128(&buffer)
}

/// The link of a forced watermark advance.
pub(super) fn forced_link(forced: ForcedAdvance) -> u128 {
    let mut buffer = [0_u8; 17];
    buffer[0] = TAG_FORCED;
    buffer[1..9].copy_from_slice(&forced.offset.0.to_le_bytes());
    buffer[9..17].copy_from_slice(&forced.watermark.0.to_le_bytes());
    xxh3_128(&buffer)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| u128::from_str_radix(&text, 16).ok())
            .flatten()
            .map(Digest)
            .ok_or_else(|| {
                serde::de::Error::custom(format!("a digest is 32 hex digits, not `{text}`"))
            })
    }
}
