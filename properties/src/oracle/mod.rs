//! What should have come out, recomputed from the input log as a batch, one partition at a time.
//!
//! Comes in: the rules, the records of a partition in log order, and the forced watermark advances
//! that its outputs declare. Goes out: the fate of every record, every window with its members and
//! the moments of its revisions, the watermark and the lateness horizon at any moment. Never here:
//! anything that the outputs say besides the forced advances.
//!
//! It is written unlike a stream processor. No window is open or closed while it reads:
//! - Every record is read by itself ([`reading`]).
//! - Equal identities are brought together by sorting; the first of each group is its leader, the
//!   others are repeats. A repeat never moves the watermark of the log, which is the running maximum
//!   over leaders. A leader that is refused as too late is counted in, and changes nothing: its time
//!   lies before its window's end, and that is behind either the watermark of the log or a forced
//!   advance that the clock of the log confirms, both of which never go back.
//! - A forced advance is made by a worker's clock, perhaps while records stand in the log that
//!   nobody can see yet. So it fires windows at once, but makes nothing late before the log's own
//!   clock (the running maximum over the Kafka timestamps of all records) has come as far.
//! - With that horizon known at every record, each record's fate follows by itself.
//! - Accepted events are grouped by sorting; when each window fires is found by binary search.
//!
//! What stays in memory of a partition is its [`LogTruth`], some 18 bytes a record; events are
//! sorted outside of memory where they do not fit, and one window is held at a time.

mod events;
mod log;
pub mod reading;
mod scan;
mod tally;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod whole;
mod windows;

pub use log::LogTruth;
pub use scan::Scan;
pub use tally::{Content, Member, Tally};
#[cfg(test)]
pub use whole::{Oracle, PartitionTruth};
pub use windows::{Revision, WindowTruth, Windows};

use std::fmt;

/// Why a record is refused: `error_type` of its dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Refusal {
    Malformed,
    MissingField,
    WrongType,
    UnknownTicker,
    PriceOutOfRange,
    VolumeOutOfRange,
    TimestampTooOld,
    TimestampInFuture,
    TooLate,
}

impl Refusal {
    /// As it is written in a dead letter.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed",
            Refusal::MissingField => "missing_field",
            Refusal::WrongType => "wrong_type",
            Refusal::UnknownTicker => "unknown_ticker",
            Refusal::PriceOutOfRange => "price_out_of_range",
            Refusal::VolumeOutOfRange => "volume_out_of_range",
            Refusal::TimestampTooOld => "timestamp_too_old",
            Refusal::TimestampInFuture => "timestamp_in_future",
            Refusal::TooLate => "too_late",
        }
    }

    /// Stage at which it is found, as it is written in a dead letter.
    #[must_use]
    pub fn stage(self) -> &'static str {
        match self {
            Refusal::Malformed | Refusal::MissingField | Refusal::WrongType => "decode",
            Refusal::TooLate => "window",
            _ => "validate",
        }
    }
}

/// What becomes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is in a window.
    Accepted,
    /// It repeats an event of its window and is only counted.
    Duplicate,
    /// It becomes a dead letter.
    Refused(Refusal),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Accepted => f.write_str("an accepted event"),
            Fate::Duplicate => f.write_str("a duplicate"),
            Fate::Refused(refusal) => write!(f, "a dead letter `{}`", refusal.name()),
        }
    }
}

/// How many records met which fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fates {
    /// In a window.
    pub accepted: u64,
    /// Repeats.
    pub duplicates: u64,
    /// Refused.
    pub refused: u64,
}

impl Fates {
    /// All records.
    #[must_use]
    pub fn records(self) -> u64 {
        self.accepted + self.duplicates + self.refused
    }
}

impl Fates {
    fn add(&mut self, fate: Fate) {
        match fate {
            Fate::Accepted => self.accepted += 1,
            Fate::Duplicate => self.duplicates += 1,
            Fate::Refused(_) => self.refused += 1,
        }
    }
}
