//! Windows in memory: one bucket a window start, one window a ticker in it. What a window has summed up
//! is always in memory; the identities of a bucket's events may be in the state store alone.

use crate::core::id_set::IdSet;
use crate::core::pieces::StoredBucket;
use crate::core::rules::TickerIndex;
use crate::core::{MAX_EVENTS_PER_WINDOW, WINDOW_MS};
use std::collections::BTreeMap;

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
    /// Identities seen; only the fresh ones while the bucket is not resident.
    pub ids: IdSet,
    /// Those of them that no stored piece holds yet, in the order of the log.
    pub fresh: Vec<u128>,
    /// How many the stored pieces hold.
    pub stored_ids: u64,
}

/// Memory of one entry of [`Window::fresh`].
const FRESH_BYTES: usize = size_of::<u128>();

impl Window {
    /// Identities seen, wherever they are.
    pub(super) fn id_count(&self) -> u64 {
        self.stored_ids + self.fresh.len() as u64
    }

    /// Memory of the identities.
    fn id_bytes(&self) -> usize {
        self.ids.bytes() + self.fresh.len() * FRESH_BYTES
    }

    /// Notes an identity; false if it was there.
    fn insert(&mut self, identity: u128) -> bool {
        let is_new = self.ids.insert(identity);
        if is_new {
            self.fresh.push(identity);
        }
        is_new
    }
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
    /// Changed since its head was last written to the state.
    pub dirty: bool,
    /// What of it the state store holds.
    pub stored: StoredBucket,
    /// All its identities are in memory.
    pub resident: bool,
    /// Memory of its identities.
    id_bytes: usize,
}

impl Bucket {
    pub(super) fn new(start: i64, ticker_count: usize) -> Self {
        Bucket {
            start,
            windows: Vec::new(),
            slots: vec![NO_WINDOW; ticker_count],
            dirty: true,
            stored: StoredBucket::default(),
            resident: true,
            id_bytes: 0,
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
        window.map_or(0, |window| window.id_count() as usize)
    }

    /// Counts an event in, unless its identity is there already.
    /// `ids_expected` sizes the set of a new window.
    fn add(&mut self, event: &Event, ids_expected: usize) -> Added {
        let slot = self.slots[usize::from(event.ticker)];
        if slot == NO_WINDOW {
            return Added::First(self.open_window(event, ids_expected));
        }
        let window = &mut self.windows[slot as usize];
        if event.deduplicate {
            let before = window.ids.bytes();
            if !window.insert(event.identity) {
                return Added::Duplicate;
            }
            self.id_bytes += FRESH_BYTES + window.ids.bytes() - before;
        }
        window.aggregate.add(event);
        self.dirty = true;
        Added::Further(slot as usize)
    }

    fn open_window(&mut self, event: &Event, ids_expected: usize) -> usize {
        let mut window = Window {
            ticker: event.ticker,
            aggregate: Aggregate::first(event),
            revision: 0,
            ids: IdSet::default(),
            fresh: Vec::new(),
            stored_ids: 0,
        };
        if event.deduplicate {
            window.ids = IdSet::with_capacity(ids_expected);
            window.insert(event.identity);
        }
        self.id_bytes += window.id_bytes();
        self.push(window).expect("the ticker has no window yet")
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

    pub(super) fn windows_mut(&mut self) -> impl Iterator<Item = &mut Window> {
        self.windows.iter_mut()
    }

    /// The window of a ticker, if it has one.
    pub(super) fn window_of(&mut self, ticker: TickerIndex) -> Option<&mut Window> {
        let slot = self.slots[usize::from(ticker)];
        self.windows.get_mut(slot as usize)
    }

    pub(super) fn window_count(&self) -> usize {
        self.windows.len()
    }

    /// Identities seen, wherever they are.
    pub(super) fn live_ids(&self) -> u64 {
        self.windows.iter().map(Window::id_count).sum()
    }

    /// Memory of the identities.
    pub(super) fn id_bytes(&self) -> usize {
        self.id_bytes
    }

    /// Forgets the identities that are stored.
    pub(super) fn make_absent(&mut self) {
        for window in &mut self.windows {
            window.ids = IdSet::with_capacity(window.fresh.len());
            for &id in &window.fresh {
                window.ids.insert(id);
            }
        }
        self.resident = false;
        self.count_id_bytes();
    }

    /// Counts the memory of the identities anew, after they were changed one by one.
    pub(super) fn count_id_bytes(&mut self) {
        self.id_bytes = self.windows.iter().map(Window::id_bytes).sum();
    }
}

/// The buckets of one partition, ascending by start. There are few: what lies between the lateness
/// horizon and the newest event.
#[derive(Debug, Clone, Default)]
pub(super) struct Buckets {
    buckets: Vec<Bucket>,
    /// Memory of all identities.
    id_bytes: usize,
    /// Buckets that are not resident.
    absent: usize,
    /// What the state store has told of identities whose bucket is not resident: whether it holds them.
    /// True until something is stored or loaded.
    answers: BTreeMap<Question, bool>,
}

/// Asks whether an identity is stored: window start, ticker, identity.
pub(super) type Question = (i64, TickerIndex, u128);

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
        self.id_bytes += bucket.id_bytes();
        self.absent += usize::from(!bucket.resident);
        self.buckets.insert(at, bucket);
    }

    /// Memory of all identities.
    pub(super) fn id_bytes(&self) -> usize {
        self.id_bytes
    }

    /// The bucket whose identities have to be in memory before this event can be told from its
    /// duplicates; `None` if they are.
    #[inline]
    pub(super) fn needed_by(&self, event: &Event) -> Option<i64> {
        if self.absent == 0 || !event.deduplicate {
            return None;
        }
        let (start, ..) = self.question_of(event)?;
        Some(start)
    }

    /// What has to be asked of the state store before this event can be told from its duplicates.
    pub(super) fn question_of(&self, event: &Event) -> Option<Question> {
        let start = event.window_start();
        let bucket = &self.buckets[self.position(start).ok()?];
        let slot = bucket.slots[usize::from(event.ticker)];
        let window = bucket.windows.get(slot as usize)?;
        let question = (start, event.ticker, event.identity);
        let is_open = !bucket.resident
            && event.deduplicate
            && window.stored_ids > 0
            && !window.ids.contains(event.identity)
            && !self.answers.contains_key(&question);
        is_open.then_some(question)
    }

    /// What the state store has told.
    pub(super) fn answers(&mut self) -> &mut BTreeMap<Question, bool> {
        &mut self.answers
    }

    /// Changes a bucket's identities as a whole.
    pub(super) fn change<R>(&mut self, at: usize, change: impl FnOnce(&mut Bucket) -> R) -> R {
        self.answers.clear();
        let bucket = &mut self.buckets[at];
        self.id_bytes -= bucket.id_bytes();
        self.absent -= usize::from(!bucket.resident);
        let changed = change(bucket);
        bucket.count_id_bytes();
        self.id_bytes += bucket.id_bytes();
        self.absent += usize::from(!bucket.resident);
        changed
    }

    /// Counts an event into the bucket at `at`. A new window's set is sized for as many identities
    /// as the ticker had in the window before, so that it seldom grows.
    pub(super) fn add(&mut self, at: usize, event: &Event) -> Added {
        let (before, rest) = self.buckets.split_at_mut(at);
        let bucket = rest.first_mut().expect("the caller has found the bucket");
        if !bucket.resident && event.deduplicate {
            let question = (bucket.start, event.ticker, event.identity);
            if self.answers.get(&question) == Some(&true) {
                return Added::Duplicate;
            }
        }
        let ids_expected = match before.last() {
            Some(before) if !bucket.holds(event.ticker) => before.ids_of(event.ticker),
            _ => 0,
        };
        let bytes_before = bucket.id_bytes();
        let added = bucket.add(event, ids_expected);
        self.id_bytes += bucket.id_bytes() - bytes_before;
        added
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
            Some(first) if retired(first) => {
                let first = self.buckets.remove(0);
                self.id_bytes -= first.id_bytes();
                self.absent -= usize::from(!first.resident);
                Some(first)
            }
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
