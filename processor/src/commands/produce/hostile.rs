//! Hostile records: what a broken or malicious producer might send. Each must become a dead letter.

use super::event::{Dice, Outgoing};

/// Nesting that a recursive reader does not survive.
const DEPTH: usize = 50_000;

/// A kind of hostile record, by its name and what makes it.
type Kind = (&'static str, fn(Dice, u64, usize) -> Outgoing);

/// All kinds.
pub const KINDS: [Kind; 16] = [
    ("random bytes", |dice, number, _| {
        let length = 1 + dice.below("length", number, 300);
        let byte = |at: u64| dice.below("byte", number.wrapping_mul(1_000) + at, 256) as u8;
        // A first byte that begins no JSON object.
        let bytes = std::iter::once(0xfe).chain((0..length).map(byte));
        keyed(bytes.collect())
    }),
    ("deep JSON", |_, _, limit| {
        let depth = DEPTH.min(limit / 8);
        keyed(format!("{{\"ticker\":{}{}}}", "[".repeat(depth), "]".repeat(depth)).into())
    }),
    ("huge number", |_, _, _| {
        keyed(event("AMZN", &"9".repeat(400), "1", "1700000000"))
    }),
    ("huge exponent", |_, _, _| {
        keyed(event("AMZN", "1e999999999", "1", "1700000000"))
    }),
    ("NaN", |_, _, _| {
        keyed(event("AMZN", "NaN", "1", "1700000000"))
    }),
    ("invalid UTF-8", |_, _, _| {
        keyed(
            b"{\"ticker\":\"AM\xff\xfeZN\",\"price\":1,\"volume\":1,\"timestamp\":1700000000}"
                .to_vec(),
        )
    }),
    ("null value", |_, _, _| Outgoing {
        key: Some(b"AMZN".to_vec()),
        ..Outgoing::default()
    }),
    ("null key", |_, _, _| Outgoing {
        value: Some(b"{\"no\":\"ticker\"}".to_vec()),
        ..Outgoing::default()
    }),
    ("null key and value", |_, _, _| Outgoing::default()),
    ("unknown headers", |_, _, _| Outgoing {
        headers: vec![
            ("sequence".to_owned(), b"18446744073709551616".to_vec()),
            ("\u{1f4c8}".to_owned(), vec![0, 255, 10]),
            (String::new(), Vec::new()),
        ],
        ..keyed(b"{}".to_vec())
    }),
    ("empty value", |_, _, _| keyed(Vec::new())),
    ("largest value", |_, _, limit| {
        // With the rest of the record it must still pass the producer's own limit.
        keyed(vec![b'x'; limit.saturating_sub(1_024)])
    }),
    ("far future", |_, _, _| {
        keyed(event("AMZN", "1", "1", "4102444800"))
    }),
    ("negative volume", |_, _, _| {
        keyed(event("AMZN", "1", "-1", "1700000000"))
    }),
    ("field twice", |_, _, _| {
        keyed(
            b"{\"ticker\":\"AMZN\",\"price\":1,\"price\":2,\"volume\":1,\"timestamp\":1700000000}"
                .to_vec(),
        )
    }),
    ("cut off", |_, _, _| {
        keyed(b"{\"ticker\":\"AMZN\",\"price\":1".to_vec())
    }),
];

/// The hostile record with this number; no larger than `limit` bytes.
pub fn hostile(dice: Dice, number: u64, limit: usize) -> Outgoing {
    let kind = dice.below("kind", number, KINDS.len() as u64);
    let (_, make) = KINDS[usize::try_from(kind).expect("an index of KINDS")];
    make(dice, number, limit)
}

fn keyed(value: Vec<u8>) -> Outgoing {
    Outgoing {
        key: Some(b"AMZN".to_vec()),
        value: Some(value),
        ..Outgoing::default()
    }
}

fn event(ticker: &str, price: &str, volume: &str, timestamp: &str) -> Vec<u8> {
    format!(
        "{{\"ticker\":\"{ticker}\",\"price\":{price},\"volume\":{volume},\"timestamp\":{timestamp}}}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use processor::config::ProcessorConfig;
    use processor::core::{Destination, InputRecord, PartitionTask};
    use processor::units::{LogTimeMs, Offset, PartitionId};

    #[test]
    fn every_kind_becomes_a_dead_letter() {
        let config = ProcessorConfig::from_toml(ProcessorConfig::example()).expect("it is valid");
        let limit = config.kafka.max_message_bytes;
        for (name, make) in KINDS {
            for number in 0..20 {
                let record = make(Dice(3), number, limit);
                let size = record.value.as_ref().map_or(0, Vec::len);
                assert!(size < limit, "{name}: {size} bytes");
                let mut task = PartitionTask::new(PartitionId(0), Offset(0), config.core_config());
                let mut outputs = Vec::new();
                let input = InputRecord {
                    offset: Offset(0),
                    timestamp: LogTimeMs(1_700_000_000_000),
                    key: record.key.as_deref(),
                    value: record.value.as_deref(),
                };
                let _ = task.process([input], &mut outputs);
                assert_eq!(outputs.len(), 1, "{name}");
                assert_eq!(outputs[0].destination, Destination::DeadLetters, "{name}");
            }
        }
    }
}
