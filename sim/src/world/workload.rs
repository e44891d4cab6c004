//! From a plan's workload to the records that are sent, one by one.

use crate::draw::{below, draw_numbered, permille};
use crate::plan::{Stream, Workload};
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// A record that will be sent to the input topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// When, virtual milliseconds.
    pub at_ms: u64,
    /// Key.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
}

/// The records of one stream in the order of sending.
#[must_use]
pub fn expand_stream(stream: &Stream, seed: u64, start_unix_ms: i64) -> Vec<Sending> {
    let mut sendings = Vec::new();
    StreamExpansion::new(stream, seed, start_unix_ms).expand_into(&mut sendings);
    sendings.sort_by_key(|sending| sending.at_ms);
    sendings
}

/// All records of `workload` that are sent without transactions, in the order of sending.
#[must_use]
pub fn expand(workload: &Workload, seed: u64, start_unix_ms: i64) -> Vec<Sending> {
    let mut sendings = Vec::new();
    let streams = workload.streams.iter();
    for stream in streams.filter(|stream| stream.transaction_events == 0) {
        StreamExpansion::new(stream, seed, start_unix_ms).expand_into(&mut sendings);
    }
    for record in &workload.records {
        for _ in 0..record.times {
            sendings.push(Sending {
                at_ms: record.at_ms,
                key: record.key.clone().map(Bytes::from),
                value: Some(Bytes::from(record.value.clone())),
            });
        }
    }
    sendings.sort_by_key(|sending| sending.at_ms); // stable: equal times keep the order above
    sendings
}

/// What a random choice of a stream is about.
#[derive(Clone, Copy)]
enum About {
    Moment,
    Ticker,
    OtherTicker,
    Price,
    Volume,
    Jitter,
    IsLate,
    Lateness,
    IsDuplicate,
    DuplicateDelay,
    IsAnonymous,
    IsGarbage,
    Garbage,
    Fraction,
}

struct StreamExpansion<'a> {
    stream: &'a Stream,
    seed: u64,
    who: u64,
    start_unix_ms: i64,
}

const DUPLICATE_DELAY_MS_MAX: u64 = 20_000;

impl<'a> StreamExpansion<'a> {
    fn new(stream: &'a Stream, seed: u64, start_unix_ms: i64) -> Self {
        StreamExpansion {
            stream,
            seed,
            who: xxh3_64(stream.name.as_bytes()),
            start_unix_ms,
        }
    }

    fn choose(&self, about: About, index: u64) -> u64 {
        draw_numbered(self.seed, self.who, about as u64, index)
    }

    fn expand_into(&self, sendings: &mut Vec<Sending>) {
        let stream = self.stream;
        let burst = stream.burst.max(1);
        let groups = stream.events.div_ceil(burst).max(1);
        let span_ms = stream.until_ms.saturating_sub(stream.from_ms);
        for index in 0..stream.events {
            let group = index / burst;
            let slot_ms = span_ms / groups;
            let at_ms = stream.from_ms
                + span_ms * group / groups
                + below(self.choose(About::Moment, group), slot_ms.max(1));
            let sending = self.event(index, at_ms);
            if permille(
                self.choose(About::IsDuplicate, index),
                stream.duplicate_permille,
            ) {
                let delay = below(
                    self.choose(About::DuplicateDelay, index),
                    DUPLICATE_DELAY_MS_MAX,
                );
                let mut again = sending.clone();
                again.at_ms += delay;
                sendings.push(again);
            }
            sendings.push(sending);
        }
    }

    fn ticker(&self, index: u64) -> &str {
        let tickers = &self.stream.tickers;
        let count = tickers.len() as u64;
        // The smaller of two draws: the first ticker is the busiest.
        let first = below(self.choose(About::Ticker, index), count);
        let second = below(self.choose(About::OtherTicker, index), count);
        let position = usize::try_from(first.min(second)).expect("an index");
        tickers.get(position).map_or("", String::as_str)
    }

    fn event_time_ms(&self, index: u64, at_ms: u64) -> i64 {
        let stream = self.stream;
        let mut back_ms = stream.event_time_lag_ms;
        back_ms += below(self.choose(About::Jitter, index), stream.jitter_ms + 1);
        if permille(self.choose(About::IsLate, index), stream.late_permille) {
            back_ms += below(self.choose(About::Lateness, index), stream.late_ms_max + 1);
        }
        self.start_unix_ms + i64::try_from(at_ms).expect("worlds are short")
            - i64::try_from(back_ms).expect("worlds are short")
    }

    fn event(&self, index: u64, at_ms: u64) -> Sending {
        let ticker = self.ticker(index);
        let timestamp = self.timestamp(index, self.event_time_ms(index, at_ms));
        let price = self.price(index);
        let volume = 1 + below(self.choose(About::Volume, index), 1_000);
        let id = if permille(
            self.choose(About::IsAnonymous, index),
            self.stream.anonymous_permille,
        ) {
            String::new()
        } else {
            format!("\"event_id\":\"{}-{index}\",", self.stream.name)
        };
        let event = format!(
            "{{{id}\"ticker\":\"{ticker}\",\"price\":{price},\"volume\":{volume},\"timestamp\":{timestamp},\"source\":\"market_data_feed\"}}"
        );
        let is_garbage = permille(
            self.choose(About::IsGarbage, index),
            self.stream.garbage_permille,
        );
        let value = if is_garbage {
            spoil(
                &event,
                ticker,
                self.choose(About::Garbage, index),
                self.start_unix_ms,
            )
        } else {
            Some(Bytes::from(event))
        };
        Sending {
            at_ms,
            key: Some(Bytes::from(ticker.to_owned())),
            value,
        }
    }

    /// Seconds, sometimes whole, mostly with milliseconds.
    fn timestamp(&self, index: u64, unix_ms: i64) -> String {
        let (seconds, ms) = (unix_ms.div_euclid(1_000), unix_ms.rem_euclid(1_000));
        if self.choose(About::Fraction, index).is_multiple_of(8) {
            seconds.to_string()
        } else {
            format!("{seconds}.{ms:03}")
        }
    }

    fn price(&self, index: u64) -> String {
        let bits = self.choose(About::Price, index);
        let cents = 10_000 + below(bits, 10_000);
        match bits % 4 {
            0 => format!("{}", cents / 100),
            1 => format!("{}.{}", cents / 100, cents % 10),
            2 => format!("{}.{:02}", cents / 100, cents % 100),
            _ => format!("{}.{:08}", cents / 100, bits % 100_000_000),
        }
    }
}

/// Garbage of many kinds, made from a good event.
fn spoil(event: &str, ticker: &str, bits: u64, start_unix_ms: i64) -> Option<Bytes> {
    let second = start_unix_ms / 1_000;
    let text = match bits % 14 {
        0 => event[..event.len() / 2].to_owned(),
        1 => r#"{"ticker":"XYZ","price":"N/A","timestamp":123}"#.to_owned(),
        2 => format!(r#"{{"ticker":"{ticker}","price":"N/A","volume":1,"timestamp":{second}}}"#),
        3 => format!(r#"{{"ticker":"XYZ","price":1.5,"volume":1,"timestamp":{second}}}"#),
        4 => format!(r#"{{"ticker":"{ticker}","price":-1,"volume":1,"timestamp":{second}}}"#),
        5 => format!(r#"{{"ticker":"{ticker}","price":1,"volume":-1,"timestamp":{second}}}"#),
        6 => format!(r#"{{"ticker":"{ticker}","price":1,"volume":1,"timestamp":123}}"#),
        7 => format!(r#"{{"ticker":"{ticker}","price":1,"volume":1,"timestamp":4070908800}}"#),
        8 => format!(
            r#"{{"ticker":"{ticker}","price":1.123456789,"volume":1,"timestamp":{second}}}"#
        ),
        9 => format!(r#"{{"ticker":"{ticker}","volume":1,"timestamp":{second}}}"#),
        10 => "[1,2,3]".to_owned(),
        11 => String::new(),
        12 => return None,
        _ => {
            let mut raw = bits.to_le_bytes().to_vec();
            raw.push(0xFF);
            return Some(Bytes::from(raw));
        }
    };
    Some(Bytes::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        Stream {
            name: "s".into(),
            from_ms: 1_000,
            until_ms: 61_000,
            events: 1_000,
            burst: 10,
            tickers: vec!["AMZN".into(), "AAPL".into()],
            event_time_lag_ms: 0,
            jitter_ms: 500,
            late_permille: 50,
            late_ms_max: 10_000,
            duplicate_permille: 100,
            anonymous_permille: 100,
            garbage_permille: 100,
            transaction_events: 0,
            abort_permille: 0,
            open_ms_max: 0,
        }
    }

    #[test]
    fn expansion_depends_on_the_seed_alone_and_is_sorted_by_time() {
        let workload = Workload {
            streams: vec![stream()],
            records: vec![],
        };
        let sendings = expand(&workload, 7, 1_609_459_200_000);
        assert_eq!(sendings, expand(&workload, 7, 1_609_459_200_000));
        assert_ne!(sendings, expand(&workload, 8, 1_609_459_200_000));
        assert!(sendings.is_sorted_by_key(|sending| sending.at_ms));
        assert!(
            (1_050..1_200).contains(&sendings.len()),
            "{}",
            sendings.len()
        );
    }

    #[test]
    fn an_added_stream_leaves_the_others_records_as_they_were() {
        let mut workload = Workload {
            streams: vec![stream()],
            records: vec![],
        };
        let before = expand(&workload, 7, 0);
        let mut other = stream();
        other.name = "t".into();
        workload.streams.insert(0, other);
        let after = expand(&workload, 7, 0);
        assert!(before.iter().all(|sending| after.contains(sending)));
    }
}
