//! Every I/O of the worker processes, numbered, and their death at chosen ones.
//!
//! Comes in: a [`Tap`], what to kill. Goes out: a [`Tapped`], every call with the moments at which its
//! process could have died. Never here: anything that a run without a tap goes through.
//!
//! A process is known to others only by what has left it: messages, requests to the object store, changes
//! of its machine's disk. Its memory dies with it. So the moments that a crash can tell apart are: just
//! before a call, after each time that something left while the call was under way (the outcome is unknown
//! to whoever comes next), and just after the call returned. What happens between two calls is memory.
//!
//! A process that is killed never runs again: the call at hand does not return, and calls that cannot wait
//! do nothing any more. The world buries it before time moves on.

mod kafka;
mod observer;
mod phase;
mod point;
mod recorder;
mod stores;

pub use kafka::{TappedConsumer, TappedKafka, TappedProducer};
pub use observer::TappedObserver;
pub use phase::Phase;
pub use point::{CallId, Kill, MalformedKill, Moment};
pub use recorder::{Call, Mark, Outside, ProcessTap, Recorder};
pub use stores::{TappedObjects, TappedState};

use std::collections::BTreeSet;

/// What to do to the worker processes of a run, beside recording all their calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tap {
    /// Where processes die.
    pub kills: BTreeSet<Kill>,
    /// A supervisor starts a killed process again after this long.
    pub down_ms: u64,
}

/// What a tap has recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tapped {
    /// All calls, in the order in which they were made.
    pub calls: Vec<Call>,
    /// Processes that died, in order, each with the serial number of that moment among all marks.
    pub killed: Vec<(Kill, u64)>,
}
