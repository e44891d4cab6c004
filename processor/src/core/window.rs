//! Windows in memory: one bucket a window start, one window a ticker in it.

use crate::core::id_set::IdSet;
use crate::core::rules::TickerIndex;
use crate::core::{MAX_EVENTS_PER_WINDOW, WINDOW_MS};

/// A validated event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub ticker: TickerIndex,
    /// Units of 1e-8.
    pub price: i64,
    pub volume: i64,
    /// Unix milliseconds, 0..=MAX_TIMESTAMP_MS.
    pub timestamp: i64,
    /// Hash of the event's identity.
    pub identity: u128,
    /// The identity may come again, so it must be remembered.
    pub deduplicate: bool,
}

impl Event {
    pub(super) fn window_start(&self) -> i64 {
        self.timestamp - self.timestamp % WINDOW_MS
    }
}

/// What a window knows of its events. Sums are exact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Aggregate {
    pub count: u64,
    pub price_sum: i128,
    pub price_min: i64,
    pub price_max: i64,
    pub volume_sum: i128,
    /// Σ price × volume.
    pub turnover_sum: i128,
    pub open: Edge,
    pub close: Edge,
    /// Sum of the identity hashes modulo 2^128.
    pub event_set: u128,
}

/// First or last price of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    /// Event time, Unix milliseconds.
    pub timestamp: i64,
    pub price: i64,
}

impl Aggregate {
    fn first(event: &Event) -> Self {
        let edge = Edge {
            timestamp: event.timestamp,
            price: event.price,
        };
        Aggregate {
            count: 1,
            price_sum: i128::from(event.price),
            price_min: event.price,
            price_max: event.price,
            volume_sum: i128::from(event.volume),
            turnover_sum: i128::from(event.price) * i128::from(event.volume),
            open: edge,
            close: edge,
            event_set: event.identity,
        }
    }

    fn add(&mut self, event: &Event) {
        let turnover = i128::from(event.price) * i128::from(event.volume);
        self.count += 1;
        self.price_sum += i128::from(event.price);
        self.price_min = self.price_min.min(event.price);
        self.price_max = self.price_max.max(event.price);
        self.volume_sum += i128::from(event.volume);
        // The rules keep price × volume × MAX_EVENTS_PER_WINDOW within an i128. More events than
        // that in one minute of one ticker are 17 million a second, each at the highest price and
        // volume: ten times what a core can take in.
        self.turnover_sum = self.turnover_sum.checked_add(turnover).unwrap_or_else(|| {
            panic!("more than {MAX_EVENTS_PER_WINDOW} events of the highest price in one window")
        });
        // Events come in log order: among equal times the first is the open, the last the close.
        let edge = Edge {
            timestamp: event.timestamp,
            price: event.price,
        };
        if edge.timestamp < self.open.timestamp {
            self.open = edge;
        }
        if edge.timestamp >= self.close.timestamp {
            self.close = edge;
        }
        self.event_set = self.event_set.wrapping_add(event.identity);
    }
}

/// One ticker's minute.
#[derive(Debug, Clone)]
pub(super) struct Window {
    pub ticker: TickerIndex,
    pub aggregate: Aggregate,
    /// Revision of the newest emitted result; 0 also when none was emitted yet.
    pub revision: u64,
    pub ids: IdSet,
}

/// What adding an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// The window's first event; the window's slot in the bucket.
    First(usize),
    /// A further event of the window in this slot.
    Further(usize),
    /// Its identity is there already: nothing changed.
    Duplicate,
}

const NO_WINDOW: u32 = u32::MAX;

/// All windows with one start. Every window of a bucket is emitted when the watermark reaches its
/// end, so "emitted" is a fact about the bucket: its end is ≤ the watermark.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    /// Unix milliseconds, a multiple of [`WINDOW_MS`].
    pub start: i64,
    windows: Vec<Window>,
    /// Slot in `windows` by ticker index.
    slots: Vec<u32>,
    /// Changed since it was last written to the state.
    pub dirty: bool,
    /// Checksum of its bytes in the state; `None` until first written.
    pub stored: Option<u64>,
}

impl Bucket {
    pub(super) fn new(start: i64, ticker_count: usize) -> Self {
        Bucket {
            start,
            windows: Vec::new(),
            slots: vec![NO_WINDOW; ticker_count],
            dirty: true,
            stored: None,
        }
    }

    pub(super) fn end(&self) -> i64 {
        self.start + WINDOW_MS
    }

    fn holds(&self, ticker: TickerIndex) -> bool {
        self.slots[usize::from(ticker)] != NO_WINDOW
    }

    fn ids_of(&self, ticker: TickerIndex) -> usize {
        let window = self.windows.get(self.slots[usize::from(ticker)] as usize);
        window.map_or(0, |window| window.ids.len())
    }

    /// Counts an event in, unless its identity is there already.
    /// `ids_expected` sizes the set of a new window.
    fn add(&mut self, event: &Event, ids_expected: usize) -> Added {
        let slot = self.slots[usize::from(event.ticker)];
        if slot == NO_WINDOW {
            return Added::First(self.open_window(event, ids_expected));
        }
        let window = &mut self.windows[slot as usize];
        if event.deduplicate && !window.ids.insert(event.identity) {
            return Added::Duplicate;
        }
        window.aggregate.add(event);
        self.dirty = true;
        Added::Further(slot as usize)
    }

    fn open_window(&mut self, event: &Event, ids_expected: usize) -> usize {
        let mut ids = IdSet::with_capacity(ids_expected);
        if event.deduplicate {
            ids.insert(event.identity);
        }
        let aggregate = Aggregate::first(event);
        self.push(Window {
            ticker: event.ticker,
            aggregate,
            revision: 0,
            ids,
        })
        .expect("the ticker has no window yet")
    }

    /// Puts a whole window in; `None` if its ticker has one.
    pub(super) fn push(&mut self, window: Window) -> Option<usize> {
        let slot = &mut self.slots[usize::from(window.ticker)];
        if *slot != NO_WINDOW {
            return None;
        }
        *slot = self.windows.len() as u32;
        self.windows.push(window);
        self.dirty = true;
        Some(self.windows.len() - 1)
    }

    pub(super) fn touch(&self, event: &Event) -> u64 {
        match self
            .windows
            .get(self.slots[usize::from(event.ticker)] as usize)
        {
            Some(window) => window.ids.touch(event.identity),
            None => 0,
        }
    }

    pub(super) fn window(&self, slot: usize) -> &Window {
        &self.windows[slot]
    }

    /// The aggregate of a ticker's window, if it has one.
    pub(super) fn aggregate_of(&self, ticker: TickerIndex) -> Option<&Aggregate> {
        self.windows
            .get(self.slots[usize::from(ticker)] as usize)
            .map(|window| &window.aggregate)
    }

    /// Counts the correction of the window in `slot`.
    pub(super) fn raise_revision(&mut self, slot: usize) {
        self.windows[slot].revision += 1;
    }

    /// Windows in the byte order of their tickers.
    pub(super) fn in_ticker_order(&self) -> impl Iterator<Item = &Window> {
        let occupied = self.slots.iter().filter(|&&slot| slot != NO_WINDOW);
        occupied.map(|&slot| &self.windows[slot as usize])
    }

    pub(super) fn window_count(&self) -> usize {
        self.windows.len()
    }

    pub(super) fn live_ids(&self) -> usize {
        self.windows.iter().map(|window| window.ids.len()).sum()
    }
}

/// The buckets of one partition, ascending by start. There are few: what lies between the lateness
/// horizon and the newest event.
#[derive(Debug, Clone, Default)]
pub(super) struct Buckets {
    buckets: Vec<Bucket>,
}

impl Buckets {
    /// Where the bucket of `start` is, or would be. Events mostly concern the newest buckets.
    pub(super) fn position(&self, start: i64) -> Result<usize, usize> {
        match self.buckets.last() {
            Some(last) if last.start == start => Ok(self.buckets.len() - 1),
            Some(last) if last.start < start => Err(self.buckets.len()),
            _ => self
                .buckets
                .binary_search_by_key(&start, |bucket| bucket.start),
        }
    }

    pub(super) fn insert(&mut self, at: usize, bucket: Bucket) {
        self.buckets.insert(at, bucket);
    }

    /// Counts an event into the bucket at `at`. A new window's set is sized for as many identities
    /// as the ticker had in the window before, so that it seldom grows.
    pub(super) fn add(&mut self, at: usize, event: &Event) -> Added {
        let (before, rest) = self.buckets.split_at_mut(at);
        let bucket = rest.first_mut().expect("the caller has found the bucket");
        let ids_expected = match before.last() {
            Some(before) if !bucket.holds(event.ticker) => before.ids_of(event.ticker),
            _ => 0,
        };
        bucket.add(event, ids_expected)
    }

    pub(super) fn at(&self, at: usize) -> &Bucket {
        &self.buckets[at]
    }

    pub(super) fn at_mut(&mut self, at: usize) -> &mut Bucket {
        &mut self.buckets[at]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Bucket> {
        self.buckets.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Bucket> {
        self.buckets.iter_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Takes the oldest bucket out if `retired` says so.
    pub(super) fn pop_first_if(&mut self, retired: impl Fn(&Bucket) -> bool) -> Option<Bucket> {
        match self.buckets.first() {
            Some(first) if retired(first) => Some(self.buckets.remove(0)),
            _ => None,
        }
    }

    pub(super) fn touch(&self, event: &Event) -> u64 {
        match self.position(event.window_start()) {
            Ok(at) => self.buckets[at].touch(event),
            Err(_) => 0,
        }
    }
}
