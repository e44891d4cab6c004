//! What the connections of a proxy share: orders, copies that wait, and what was done.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is done to one `EndTxn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It is passed on later. Past the client's timeout, it arrives after the client has given up.
    Delay(Duration),
    /// It is not passed on and the client's connection breaks. It arrives on a connection of its own
    /// once the next transaction of its producer has begun (KAFKA-17754).
    Withhold,
    /// It is passed on, and the connection breaks instead of an answer.
    LoseAnswer,
    /// It is passed on, the connection breaks instead of an answer, and it arrives once more when the
    /// next transaction has begun.
    Duplicate,
}

/// What was really done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were delayed.
    pub delayed: u64,
    /// Answers that were thrown away.
    pub answers_lost: u64,
    /// Requests that were withheld at first.
    pub withheld: u64,
    /// Copies that were sent into a later transaction.
    pub strays: u64,
    /// Those of them that the broker refused, as it must.
    pub strays_refused: u64,
}

/// A request that waits for the next transaction of its producer.
#[derive(Debug)]
pub(super) struct Stray {
    /// Where it was on its way to.
    pub broker: u16,
    /// All of it.
    pub frame: Vec<u8>,
}

/// The transactions of one `transactional.id`.
#[derive(Debug, Clone, Copy, Default)]
struct Transactions {
    begun: u64,
    is_open: bool,
}

#[derive(Debug, Default)]
struct Pages {
    orders: VecDeque<Order>,
    strays: BTreeMap<String, Vec<Stray>>,
    transactions: BTreeMap<String, Transactions>,
    counts: Counts,
}

/// The book itself.
#[derive(Debug, Default)]
pub(super) struct Book {
    pages: Mutex<Pages>,
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        // Every write is whole: a panic elsewhere has left nothing half done.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn order(&self, order: Order) {
        self.pages().orders.push_back(order);
    }

    pub fn withdraw(&self) -> usize {
        std::mem::take(&mut self.pages().orders).len()
    }

    pub fn orders_waiting(&self) -> usize {
        self.pages().orders.len()
    }

    pub fn strays_waiting(&self) -> usize {
        self.pages().strays.values().map(Vec::len).sum()
    }

    pub fn transactions(&self, id: &str) -> (u64, bool) {
        let of = self.pages().transactions.get(id).copied();
        let of = of.unwrap_or_default();
        (of.begun, of.is_open)
    }

    pub fn counts(&self) -> Counts {
        self.pages().counts
    }

    /// What is to be done to an `EndTxn` that has come, if anything.
    pub fn take_order(&self) -> Option<Order> {
        let mut pages = self.pages();
        let order = pages.orders.pop_front()?;
        match order {
            Order::Delay(_) => pages.counts.delayed += 1,
            Order::Withhold => pages.counts.withheld += 1,
            Order::LoseAnswer | Order::Duplicate => {}
        }
        Some(order)
    }

    pub fn note_lost_answer(&self) {
        self.pages().counts.answers_lost += 1;
    }

    /// Keeps a copy until the next transaction of its producer.
    pub fn keep(&self, id: &str, stray: Stray) {
        let mut pages = self.pages();
        pages.strays.entry(id.to_owned()).or_default().push(stray);
    }

    /// A partition or a group was added to a transaction: the first of them begins it. The answer is
    /// what has to be sent now.
    pub fn begin(&self, id: &str) -> Vec<Stray> {
        let mut pages = self.pages();
        let of = pages.transactions.entry(id.to_owned()).or_default();
        if !of.is_open {
            of.is_open = true;
            of.begun += 1;
        }
        pages.strays.remove(id).unwrap_or_default()
    }

    pub fn end(&self, id: &str) {
        if let Some(of) = self.pages().transactions.get_mut(id) {
            of.is_open = false;
        }
    }

    /// A copy was sent; `refused` tells the broker's answer.
    pub fn note_stray(&self, refused: bool) {
        let mut pages = self.pages();
        pages.counts.strays += 1;
        pages.counts.strays_refused += u64::from(refused);
    }
}
