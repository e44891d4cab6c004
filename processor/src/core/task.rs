//! One partition at work.

use crate::core::WINDOW_MS;
use crate::core::dead_letter::{ErrorType, Rejection};
use crate::core::decode::read_event;
use crate::core::digest::{Digest, record_link};
use crate::core::dump::DumpedWindow;
use crate::core::ledger::{Cause, Counters, ForcedAdvance, Ledger, OutputRecord};
use crate::core::rules::CoreConfig;
use crate::core::window::{Added, Bucket, Buckets, Event};
use crate::io::{BucketKey, ConsumedRecord, PieceKey};
use crate::units::{LogTimeMs, Offset, PartitionId, Watermark};
use std::hint::black_box;
use std::sync::Arc;

/// Records that go through each step together, so that the memory misses of their identity
/// look-ups overlap.
const MICRO_BATCH: usize = 256;

/// A record of the input topic, borrowed from wherever it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputRecord<'a> {
    /// Position in the partition's log.
    pub offset: Offset,
    /// The timestamp that Kafka stored with it.
    pub timestamp: LogTimeMs,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

impl<'a> From<&'a ConsumedRecord> for InputRecord<'a> {
    fn from(record: &'a ConsumedRecord) -> Self {
        InputRecord {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
        }
    }
}

/// A record after everything that needs no state.
#[derive(Debug)]
pub(super) struct Prepared {
    link: u128,
    pub(super) event: Result<Event, Rejection>,
}

/// How far [`PartitionTask::process`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// All records were processed.
    Done,
    /// It stopped before the record at [`PartitionTask::position`] or the next visible one: whether its
    /// identity is among those of this bucket only the state store can tell. Take the bucket into memory
    /// ([`PartitionTask::load`]) or look the identities of the rest up ([`PartitionTask::look_up`]), then
    /// process the rest.
    Needs(BucketKey),
}

/// The processing of one input partition: a pure function of its log and of the watermark advances
/// that were forced upon it. Which identities happen to be in memory makes no difference to what it
/// puts out.
#[derive(Debug)]
pub struct PartitionTask {
    pub(super) config: Arc<CoreConfig>,
    pub(super) ledger: Ledger,
    pub(super) buckets: Buckets,
    /// Stored pieces of buckets that are closed for good.
    pub(super) dropped: Vec<PieceKey>,
    /// Smallest watermark that emits something, and smallest horizon that drops something: kept so
    /// that most records cost two comparisons.
    emits_at: i64,
    drops_at: i64,
    prepared: Vec<Prepared>,
    scratch: Vec<u8>,
}

impl PartitionTask {
    /// A partition that has seen nothing, to be fed from `start`.
    #[must_use]
    pub fn new(partition: PartitionId, start: Offset, config: Arc<CoreConfig>) -> Self {
        Self::from_parts(config, Ledger::new(partition, start), Buckets::default())
    }

    pub(super) fn from_parts(config: Arc<CoreConfig>, ledger: Ledger, buckets: Buckets) -> Self {
        let mut task = PartitionTask {
            config,
            ledger,
            buckets,
            dropped: Vec::new(),
            emits_at: i64::MAX,
            drops_at: i64::MAX,
            prepared: Vec::new(),
            scratch: Vec::new(),
        };
        task.compute_deadlines();
        task
    }

    /// Processes records in offset order and appends what they cause to `outputs`. How the records
    /// are cut into calls makes no difference to anything. It may stop early: see [`Progress`].
    ///
    /// # Panics
    /// If an offset is below [`PartitionTask::position`]: the caller has fed a record twice.
    pub fn process<'a>(
        &mut self,
        records: impl IntoIterator<Item = InputRecord<'a>>,
        outputs: &mut Vec<OutputRecord>,
    ) -> Progress {
        let mut records = records.into_iter();
        let mut batch = Vec::with_capacity(records.size_hint().0.clamp(1, MICRO_BATCH));
        let mut prepared = std::mem::take(&mut self.prepared);
        let mut progress = Progress::Done;
        while progress == Progress::Done {
            batch.clear();
            batch.extend(records.by_ref().take(MICRO_BATCH));
            if batch.is_empty() {
                break;
            }
            prepared.clear();
            prepared.extend(batch.iter().map(|record| self.prepare(record)));
            self.touch(&prepared);
            for (record, prepared) in batch.iter().zip(&prepared) {
                if let Some(start) = self.needed_by(prepared) {
                    progress = Progress::Needs(BucketKey(start));
                    break;
                }
                self.apply(record, prepared, outputs);
            }
        }
        self.prepared = prepared;
        if progress == Progress::Done {
            self.buckets.answers().clear();
        }
        progress
    }

    /// Raises the watermark by the clock: emits what it passes, as an event would. What it closes for
    /// good waits until a record of the log confirms it by its own Kafka timestamp. False if the watermark is not
    /// below `to`: then nothing has changed. True must be followed by a snapshot at this very position
    /// before more records are committed, because the advance is not in the log.
    pub fn force_watermark(&mut self, to: Watermark, outputs: &mut Vec<OutputRecord>) -> bool {
        if to <= self.ledger.watermark {
            return false;
        }
        let position = self.ledger.position;
        self.ledger.note_forced(ForcedAdvance {
            offset: position,
            watermark: to,
        });
        self.raise_watermark(to, Cause::Idle(position), outputs);
        true
    }

    /// The smallest watermark that would emit something; `None` when every window that is held has
    /// been emitted.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Watermark> {
        (self.emits_at != i64::MAX).then_some(Watermark(self.emits_at))
    }

    /// Moves the position over offsets that hold no visible record (control records, aborted data).
    ///
    /// # Panics
    /// If `to` is below the position.
    pub fn advance_position(&mut self, to: Offset) {
        assert!(
            to >= self.ledger.position,
            "the position of a log only moves forward"
        );
        self.ledger.position = to;
    }

    /// Offset of the next record to process.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.ledger.position
    }

    /// Event time up to which the partition is taken as complete.
    #[must_use]
    pub fn watermark(&self) -> Watermark {
        self.ledger.watermark
    }

    /// The newest forced advance, if there was any.
    #[must_use]
    pub fn forced(&self) -> Option<ForcedAdvance> {
        self.ledger.forced
    }

    /// Sequence number of the next output.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.ledger.next_sequence
    }

    /// Digest of everything that went in and came out.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.ledger.digest
    }

    /// What was counted since the beginning of the partition.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.ledger.counters
    }

    /// Event identities that are remembered, in memory or in the state store.
    #[must_use]
    pub fn live_ids(&self) -> usize {
        let live = self.buckets.iter().map(Bucket::live_ids);
        live.sum::<u64>() as usize
    }

    /// Memory of the identities that are in memory, bytes. What [`PartitionTask::spill`] can free.
    #[must_use]
    pub fn id_bytes(&self) -> usize {
        self.buckets.id_bytes()
    }

    /// All windows, by window start and then in the byte order of their tickers.
    pub fn windows(&self) -> impl Iterator<Item = DumpedWindow<'_>> {
        let watermark = self.ledger.watermark;
        let of_bucket = move |bucket| DumpedWindow::all_of(&self.config, bucket, watermark);
        self.buckets.iter().flat_map(of_bucket)
    }

    pub(super) fn prepare(&mut self, record: &InputRecord<'_>) -> Prepared {
        let partition = self.ledger.partition;
        Prepared {
            link: record_link(record),
            event: read_event(record, partition, &self.config, &mut self.scratch),
        }
    }

    #[inline]
    fn needed_by(&self, prepared: &Prepared) -> Option<i64> {
        let event = prepared.event.as_ref().ok()?;
        self.buckets.needed_by(event)
    }

    /// Loads the identity slots of a whole batch: independent loads, so their misses overlap.
    fn touch(&self, prepared: &[Prepared]) {
        let events = prepared
            .iter()
            .filter_map(|prepared| prepared.event.as_ref().ok());
        let loaded = events
            .filter(|event| event.deduplicate)
            .map(|event| self.buckets.touch(event));
        black_box(loaded.fold(0, |all, one| all ^ one));
    }

    fn apply(
        &mut self,
        record: &InputRecord<'_>,
        prepared: &Prepared,
        outputs: &mut Vec<OutputRecord>,
    ) {
        assert!(
            record.offset >= self.ledger.position,
            "offset {} was fed after position {}",
            record.offset,
            self.ledger.position
        );
        self.ledger.position = record.offset.next();
        self.ledger.digest.chain(prepared.link);
        self.ledger.counters.records += 1;
        self.ledger.newest_log_time = self.ledger.newest_log_time.max(record.timestamp);
        let refused = match &prepared.event {
            Ok(event) => self.check_lateness(event),
            Err(rejection) => Some(rejection.clone()),
        };
        match (refused, &prepared.event) {
            (None, Ok(event)) => self.admit(record.offset, event, outputs),
            (refused, _) => {
                let rejection = refused.expect("a record without an event was refused");
                self.ledger
                    .put_dead_letter(&self.config, record, &rejection, outputs);
            }
        }
        if self.horizon().0 >= self.drops_at {
            self.drop_closed();
        }
    }

    /// Newest Kafka timestamp of all records so far; `i64::MIN` before the first.
    #[must_use]
    pub fn newest_log_time(&self) -> LogTimeMs {
        self.ledger.newest_log_time
    }

    fn horizon(&self) -> Watermark {
        let rules = self.config.rules();
        self.ledger.horizon(rules.max_out_of_orderness_ms)
    }

    fn check_lateness(&self, event: &Event) -> Option<Rejection> {
        let start = event.window_start();
        let end = start + WINDOW_MS;
        let horizon = self.horizon();
        if !self.config.is_retired(end, horizon.0) {
            return None;
        }
        let message = format!(
            "the window {start}..{end} ms (Unix time) is closed for good: its end plus the allowed \
             lateness of {} ms is not after the watermark {horizon}",
            self.config.rules().allowed_lateness_ms
        );
        Some(Rejection::new(ErrorType::TooLate, message))
    }

    fn admit(&mut self, offset: Offset, event: &Event, outputs: &mut Vec<OutputRecord>) {
        let at = self.bucket_of(event);
        let emitted = self.buckets.at(at).end() <= self.ledger.watermark.0;
        // Only a correction tells the values that it replaces.
        let replaced = |bucket: &Bucket| bucket.aggregate_of(event.ticker).cloned();
        let previous = emitted.then(|| replaced(self.buckets.at(at))).flatten();
        let slot = match self.buckets.add(at, event) {
            Added::Duplicate => {
                self.ledger.counters.duplicates += 1;
                return;
            }
            Added::First(slot) => slot,
            Added::Further(slot) => {
                if emitted {
                    self.buckets.at_mut(at).raise_revision(slot);
                }
                slot
            }
        };
        self.ledger.counters.accepted += 1;
        let cause = Cause::Record(offset);
        if emitted {
            let bucket = self.buckets.at(at);
            let (start, window) = (bucket.start, bucket.window(slot));
            self.ledger.put_result(
                &self.config,
                start,
                window,
                previous.as_ref(),
                cause,
                outputs,
            );
        }
        let reached = Watermark(event.timestamp - self.config.rules().max_out_of_orderness_ms);
        self.ledger.log_watermark = self.ledger.log_watermark.max(reached);
        if reached > self.ledger.watermark {
            self.raise_watermark(reached, cause, outputs);
        }
    }

    fn bucket_of(&mut self, event: &Event) -> usize {
        let start = event.window_start();
        match self.buckets.position(start) {
            Ok(at) => at,
            Err(at) => {
                let bucket = Bucket::new(start, self.config.tickers().len());
                self.include_deadlines(&bucket);
                self.buckets.insert(at, bucket);
                at
            }
        }
    }

    fn raise_watermark(&mut self, to: Watermark, cause: Cause, outputs: &mut Vec<OutputRecord>) {
        let from = std::mem::replace(&mut self.ledger.watermark, to);
        if to.0 < self.emits_at {
            return;
        }
        for bucket in self.buckets.iter_mut() {
            if bucket.end() <= from.0 || bucket.end() > to.0 {
                continue;
            }
            for window in bucket.in_ticker_order() {
                self.ledger
                    .put_result(&self.config, bucket.start, window, None, cause, outputs);
            }
        }
        self.compute_deadlines();
    }

    fn drop_closed(&mut self) {
        let horizon = self.horizon();
        let config = Arc::clone(&self.config);
        let retired = |bucket: &Bucket| config.is_retired(bucket.end(), horizon.0);
        while let Some(bucket) = self.buckets.pop_first_if(retired) {
            self.dropped
                .extend(bucket.stored.pieces().map(|(key, _)| key));
        }
        self.compute_deadlines();
    }

    /// Counts in when the watermark and the horizon do something to this bucket next.
    fn include_deadlines(&mut self, bucket: &Bucket) {
        if bucket.end() > self.ledger.watermark.0 {
            self.emits_at = self.emits_at.min(bucket.end());
        }
        let drops_at = bucket.end() + self.config.rules().allowed_lateness_ms;
        self.drops_at = self.drops_at.min(drops_at);
    }

    fn compute_deadlines(&mut self) {
        self.emits_at = i64::MAX;
        self.drops_at = i64::MAX;
        let buckets = std::mem::take(&mut self.buckets);
        for bucket in buckets.iter() {
            self.include_deadlines(bucket);
        }
        self.buckets = buckets;
    }
}
