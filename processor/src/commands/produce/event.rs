//! Generated events: the document's market feed, drawn from a seed.

use std::fmt::Write;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A record before it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outgoing {
    /// Key, if any.
    pub key: Option<Vec<u8>>,
    /// Value, if any.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// CreateTime, Unix milliseconds; `None` is now.
    pub timestamp_ms: Option<i64>,
}

/// Draws by a keyed hash of (seed, what, sequence): one kind of draw never changes another.
#[derive(Debug, Clone, Copy)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `limit`.
    ///
    /// # Panics
    /// If `limit` is 0.
    pub fn below(self, what: &str, sequence: u64, limit: u64) -> u64 {
        self.draw(what, sequence) % limit
    }

    /// True in a share of `probability` of all sequences.
    pub fn chance(self, what: &str, sequence: u64, probability: f64) -> bool {
        // 53 bits are exact in a float.
        let drawn = (self.draw(what, sequence) >> 11) as f64 / (1_u64 << 53) as f64;
        drawn < probability
    }

    fn draw(self, what: &str, sequence: u64) -> u64 {
        let mut message = Vec::with_capacity(what.len() + 8);
        message.extend_from_slice(what.as_bytes());
        message.extend_from_slice(&sequence.to_le_bytes());
        xxh3_64_with_seed(&message, self.0)
    }
}

/// The feed of some tickers.
#[derive(Debug)]
pub struct Feed {
    dice: Dice,
    tickers: Vec<String>,
    /// How far back a late event may lie.
    late_ms_max: u64,
}

impl Feed {
    /// A feed of `tickers`, whose late events are up to `late_ms_max` old.
    pub fn new(dice: Dice, tickers: Vec<String>, late_ms_max: u64) -> Feed {
        Feed {
            dice,
            tickers,
            late_ms_max: late_ms_max.max(1),
        }
    }

    /// The event with this number, happening now.
    pub fn event(&self, number: u64, now_ms: i64, is_late: bool) -> Outgoing {
        let count = self.tickers.len() as u64;
        let at = self.dice.below("ticker", number, count);
        let ticker = &self.tickers[usize::try_from(at).expect("a ticker's index")];
        // A base of 20 to 520 dollars a ticker, and up to 2 % around it.
        let base_cents = 2_000 + self.dice.below("base", at, 50_000);
        let swing = base_cents / 25;
        let cents = base_cents - swing / 2 + self.dice.below("price", number, swing);
        let volume = 1 + self.dice.below("volume", number, 10_000);
        let mut happened_ms = now_ms;
        if is_late {
            let back = 1 + self.dice.below("late by", number, self.late_ms_max);
            happened_ms -= i64::try_from(back).unwrap_or(0);
        }
        let mut value = String::with_capacity(160);
        write!(
            value,
            "{{\"event_id\":\"{:016x}-{number}\",\"ticker\":{},\"price\":{}.{:02},\"volume\":{volume},\
             \"timestamp\":{}.{:03},\"source\":\"market_data_feed\"}}",
            self.dice.0,
            serde_json::Value::from(ticker.as_str()),
            cents / 100,
            cents % 100,
            happened_ms.div_euclid(1_000),
            happened_ms.rem_euclid(1_000),
        )
        .expect("a String takes every write");
        Outgoing {
            key: Some(ticker.clone().into_bytes()),
            value: Some(value.into_bytes()),
            ..Outgoing::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use processor::config::ProcessorConfig;
    use processor::core::{InputRecord, PartitionTask};
    use processor::units::{LogTimeMs, Offset, PartitionId};

    const NOW_MS: i64 = 1_700_000_000_007;

    fn feed(config: &ProcessorConfig) -> Feed {
        let tickers = config.reference.tickers.iter();
        Feed::new(Dice(7), tickers.map(|t| t.ticker.clone()).collect(), 60_000)
    }

    #[test]
    fn the_core_accepts_every_generated_event_once() {
        let config = ProcessorConfig::from_toml(ProcessorConfig::example()).expect("it is valid");
        let feed = feed(&config);
        let mut task = PartitionTask::new(PartitionId(0), Offset(0), config.core_config());
        let mut outputs = Vec::new();
        for number in 0..1_000 {
            let event = feed.event(number, NOW_MS, number % 3 == 0);
            let record = InputRecord {
                offset: Offset(number as i64),
                timestamp: LogTimeMs(NOW_MS),
                key: event.key.as_deref(),
                value: event.value.as_deref(),
            };
            let _ = task.process([record], &mut outputs);
        }
        assert_eq!(task.counters().accepted, 1_000, "{outputs:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_feed_and_another_one_another() {
        let config = ProcessorConfig::from_toml(ProcessorConfig::example()).expect("it is valid");
        let one = feed(&config);
        assert_eq!(
            one.event(5, NOW_MS, false),
            feed(&config).event(5, NOW_MS, false)
        );
        let other = Feed::new(Dice(8), vec!["AMZN".to_owned()], 1);
        assert_ne!(one.event(5, NOW_MS, false), other.event(5, NOW_MS, false));
    }

    #[test]
    fn a_chance_is_hit_about_as_often_as_it_says() {
        let hits = (0..10_000)
            .filter(|&n| Dice(1).chance("x", n, 0.25))
            .count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
        assert!(!(0..1_000).any(|n| Dice(1).chance("x", n, 0.0)));
        assert!((0..1_000).all(|n| Dice(1).chance("x", n, 1.0)));
    }
}
