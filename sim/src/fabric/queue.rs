//! The queue of events, ordered by (time, order of insertion).

use super::actor::{Address, Micros};
use crate::kafka::protocol::Message;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Something that will happen.
pub(super) enum Event {
    /// A message arrives.
    Deliver {
        from: Address,
        to: Address,
        message: Box<Message>,
    },
    /// A connection broke.
    Reset { at: Address, peer: Address },
    /// An actor wanted to be woken.
    Wake(Address),
    /// The program that waits on an actor has waited long enough.
    Deadline(Address),
    /// A [`super::Sleep`] ends.
    Timer(u64),
    /// The world wanted to be told.
    Control(u64),
}

/// Events live in slots, so that the heap moves only small keys.
#[derive(Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slots: Vec<Option<Event>>,
    free: Vec<u32>,
    pushed: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: Micros, event: Event) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(event);
                slot
            }
            None => {
                self.slots.push(Some(event));
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 events wait")
            }
        };
        self.pushed += 1;
        self.heap.push(Reverse((at.0, self.pushed, slot)));
    }

    pub(super) fn next_at(&self) -> Option<Micros> {
        self.heap.peek().map(|Reverse((at, _, _))| Micros(*at))
    }

    pub(super) fn next(&self) -> Option<&Event> {
        let Reverse((_, _, slot)) = self.heap.peek()?;
        self.slots[*slot as usize].as_ref()
    }

    pub(super) fn pop(&mut self) -> Option<(Micros, Event)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        let event = self.slots[slot as usize]
            .take()
            .expect("a slot is freed only here");
        Some((Micros(at), event))
    }
}
