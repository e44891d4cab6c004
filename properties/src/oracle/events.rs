//! Valid events on their way from the log to their windows.

use super::reading::Event;
use crate::code::{Code, code_fields};
use crate::spill::Spill;
use std::cmp::Ordering;

/// An event with the place where it stands in its partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    /// Number of its record in the partition.
    pub(super) number: u64,
    pub(super) window_start: i64,
    pub(super) event: Event,
    pub(super) repeats: bool,
}

impl Placed {
    /// Number of its record in the partition.
    pub(super) fn index(&self) -> usize {
        usize::try_from(self.number).expect("it was an index")
    }

    /// Its window: number of the ticker, and start.
    pub(super) fn window(&self) -> (u32, i64) {
        (self.event.ticker, self.window_start)
    }

    /// Whether it has the identity of another event of the same window.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let key = |one: &Self| (one.window(), one.event.identity);
        self.event.can_repeat && other.event.can_repeat && key(self) == key(other)
    }
}

/// Equal identities of a window side by side, the first in the log before the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByIdentity(pub(super) Placed);

impl Spill for ByIdentity {
    fn order(&self, other: &Self) -> Ordering {
        let key = |one: &Placed| {
            let identity = (one.event.can_repeat, one.event.identity);
            (one.window(), identity, one.number)
        };
        key(&self.0).cmp(&key(&other.0))
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

/// Each window's events in log order.
impl Spill for Placed {
    fn order(&self, other: &Self) -> Ordering {
        let key = |one: &Self| (one.window(), one.number);
        key(self).cmp(&key(other))
    }

    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

code_fields!(Event {
    ticker,
    time_ms,
    price,
    volume,
    identity,
    can_repeat,
});
code_fields!(Placed {
    number,
    window_start,
    event,
    repeats,
});

impl Code for ByIdentity {
    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Placed::take(from).map(Self)
    }
}
