//! What lives in the fabric: actors, their addresses, and what they may do.

use crate::kafka::protocol::Message;
use std::any::Any;
use std::fmt;

/// Virtual time: microseconds since the start of the world. Never a wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub u64);

impl Micros {
    /// Never.
    pub const MAX: Micros = Micros(u64::MAX);

    /// `ms` milliseconds.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Micros {
        Micros(ms * 1_000)
    }

    /// Whole milliseconds.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0 / 1_000
    }

    /// Later by `other`.
    #[must_use]
    pub const fn plus(self, other: Micros) -> Micros {
        Micros(self.0.saturating_add(other.0))
    }

    /// Later by `ms` milliseconds.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Micros {
        Micros(self.0.saturating_add(ms.saturating_mul(1_000)))
    }

    /// Time since `earlier` (0 if that is later).
    #[must_use]
    pub const fn since(self, earlier: Micros) -> Micros {
        Micros(self.0.saturating_sub(earlier.0))
    }
}

/// Address of an actor, unique in a world and never reused: a restarted process gets new ones, a
/// restarted broker keeps its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u32);

/// A machine: what a network partition cuts off and what crashes or pauses as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u16);

/// What an actor wants done: collected while it handles one event, carried out afterwards by the
/// fabric in the order given.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages to send over the network.
    pub messages: Vec<(Address, Message)>,
    /// Lines for the trace, in order.
    pub notes: Vec<Note>,
    /// True when the application that waits on this actor should look again.
    pub notify: bool,
}

impl Effects {
    /// Sends `message` to `to`; whether and when it arrives is the network's affair.
    pub fn send(&mut self, to: Address, message: Message) {
        self.messages.push((to, message));
    }

    /// Writes a line to the trace.
    pub fn note(&mut self, kind: &'static str, text: impl fmt::Display) {
        self.notes.push(Note {
            kind,
            text: text.to_string(),
        });
    }

    /// Wakes the application task that waits on this actor.
    pub fn notify(&mut self) {
        self.notify = true;
    }
}

/// One line of the trace, before time and place are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What kind of thing happened, e.g. `leader-elected`: stable, in kebab case, it is counted.
    pub kind: &'static str,
    /// Details for a person.
    pub text: String,
}

/// A pure state machine in the fabric: a broker, the controller, a client library. It sees time only
/// as an argument, draws no randomness of its own, and acts only through [`Effects`].
pub trait Actor: Any {
    /// A message has arrived.
    fn receive(&mut self, now: Micros, from: Address, message: Message, fx: &mut Effects);

    /// `now` ≥ the last [`Actor::next_wake`].
    fn wake(&mut self, now: Micros, fx: &mut Effects);

    /// When [`Actor::wake`] wants to be called; asked again after every call. [`Micros::MAX`]: never.
    fn next_wake(&self) -> Micros;

    /// The connection to `peer` broke: a message on it came twice or was overtaken, which TCP hides
    /// from nobody who stays connected. Requests under way have failed, whether they took effect or
    /// not.
    fn connection_lost(&mut self, now: Micros, peer: Address, fx: &mut Effects) {
        let _ = (now, peer, fx);
    }

    /// The process died: forget everything that is only in memory. Only brokers and the controller
    /// get this; a client library that dies is removed.
    fn crash(&mut self, now: Micros, fx: &mut Effects) {
        let _ = (now, fx);
    }

    /// The process starts again from what is on disk.
    fn restart(&mut self, now: Micros, fx: &mut Effects) {
        let _ = (now, fx);
    }
}
