//! The content of a window: what a set of events amounts to, and how it is written.

use crate::decimal::{price_text, quotient_text};
use bigdecimal::num_bigint::BigInt;

/// An accepted event inside its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Offset in its partition.
    pub offset: i64,
    /// Event time, Unix milliseconds.
    pub time_ms: i64,
    /// Price in units of 10⁻⁸.
    pub price: i128,
    /// Volume.
    pub volume: i64,
    /// Identity hash.
    pub identity: u128,
}

/// What a set of events amounts to, as the texts of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Number of events.
    pub count: i64,
    /// `event-set-hash` header.
    pub event_set_hash: String,
    /// The aggregate fields of a result, in their order: name and exact JSON text.
    pub fields: [(&'static str, String); 8],
}

/// The set of events so far: exact sums and extremes.
#[derive(Debug, Clone)]
pub struct Tally {
    count: i64,
    prices: i128,
    notional: BigInt,
    volume: i128,
    lowest: i128,
    highest: i128,
    first: (i64, i64, i128),
    last: (i64, i64, i128),
    identities: u128,
}

impl Tally {
    /// A set of one event.
    #[must_use]
    pub fn of(member: &Member) -> Self {
        let stand = (member.time_ms, member.offset, member.price);
        Self {
            count: 1,
            prices: member.price,
            notional: BigInt::from(member.price) * member.volume,
            volume: i128::from(member.volume),
            lowest: member.price,
            highest: member.price,
            first: stand,
            last: stand,
            identities: member.identity,
        }
    }

    /// Adds an event.
    pub fn add(&mut self, member: &Member) {
        let stand = (member.time_ms, member.offset, member.price);
        self.count += 1;
        self.prices += member.price;
        self.notional += BigInt::from(member.price) * member.volume;
        self.volume += i128::from(member.volume);
        self.lowest = self.lowest.min(member.price);
        self.highest = self.highest.max(member.price);
        self.first = self.first.min(stand);
        self.last = self.last.max(stand);
        self.identities = self.identities.wrapping_add(member.identity);
    }

    /// The set of several events; `None` of no events.
    #[must_use]
    pub fn over(members: &[Member]) -> Option<Self> {
        let (first, rest) = members.split_first()?;
        let mut tally = Self::of(first);
        for member in rest {
            tally.add(member);
        }
        Some(tally)
    }

    /// What it amounts to.
    #[must_use]
    pub fn content(&self) -> Content {
        let average = quotient_text(&BigInt::from(self.prices), i128::from(self.count))
            .expect("a tally holds at least one event");
        let vwap = quotient_text(&self.notional, self.volume).unwrap_or_else(|| "null".to_owned());
        Content {
            count: self.count,
            event_set_hash: format!("{:032x}", self.identities),
            fields: [
                ("count", self.count.to_string()),
                ("avg_price", average),
                ("min_price", price_text(self.lowest)),
                ("max_price", price_text(self.highest)),
                ("total_volume", self.volume.to_string()),
                ("open_price", price_text(self.first.2)),
                ("close_price", price_text(self.last.2)),
                ("vwap", vwap),
            ],
        }
    }
}
