//! Moments in the processing of one partition, and forced advances of its watermark.

use crate::code::{Code, code_fields};
use std::fmt;

/// What happens at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Happening {
    /// The watermark is forced to this value (Unix milliseconds), before the record at the moment's
    /// offset is processed.
    Idle(i64),
    /// The record at the moment's offset is processed.
    Record,
}

/// A moment in the processing of one partition. Moments of a partition are ordered: an idle advance
/// at position P comes after every record below P and before the record at P.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Offset of the record, or the position (next offset) at an idle advance.
    pub offset: i64,
    /// What happens.
    pub happening: Happening,
}

impl Moment {
    /// After everything.
    pub const END: Moment = Moment::record(i64::MAX);

    /// The record at `offset` is processed.
    #[must_use]
    pub const fn record(offset: i64) -> Self {
        Self {
            offset,
            happening: Happening::Record,
        }
    }

    /// The watermark is forced at `position`.
    #[must_use]
    pub const fn idle(position: i64, watermark_ms: i64) -> Self {
        Self {
            offset: position,
            happening: Happening::Idle(watermark_ms),
        }
    }

    /// The first offset that is not yet processed at this moment (the record of the moment is).
    #[must_use]
    pub fn position(self) -> i64 {
        match self.happening {
            Happening::Idle(_) => self.offset,
            Happening::Record => self.offset.saturating_add(1),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.happening {
            Happening::Idle(watermark) => {
                write!(f, "idle advance to {watermark} at position {}", self.offset)
            }
            Happening::Record => write!(f, "record {}", self.offset),
        }
    }
}

/// A forced advance of a partition's watermark: the only input that is not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forced {
    /// Position of the partition at that moment (next offset).
    pub position: i64,
    /// The watermark that it was advanced to, Unix milliseconds.
    pub watermark_ms: i64,
}

impl fmt::Display for Forced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.position, self.watermark_ms)
    }
}

code_fields!(Forced {
    position,
    watermark_ms
});
code_fields!(Moment { offset, happening });

impl Code for Happening {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Happening::Idle(watermark_ms) => Some(*watermark_ms),
            Happening::Record => None,
        }
        .put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        <Option<i64> as Code>::take(from)
            .map(|forced| forced.map_or(Happening::Record, Happening::Idle))
    }
}
