//! The first reading of a partition: every record by itself, and how forced advances lie among them.

use super::events::{ByIdentity, Placed};
use super::log::UNSETTLED;
use super::reading::Reader;
use super::{Fate, LogTruth, Refusal, Windows};
use crate::history::{Rules, TopicRecord};
use crate::moment::Forced;
use crate::spill::{Scratch, Sorter};
use std::io;

/// A partition's log while it is read.
#[derive(Debug)]
pub struct Scan<'a> {
    rules: &'a Rules,
    reader: &'a Reader<'a>,
    scratch: &'a Scratch,
    truth: LogTruth,
    events: Sorter<ByIdentity>,
}

impl<'a> Scan<'a> {
    /// Begins; `forced` holds the forced advances of the partition, sorted.
    #[must_use]
    pub fn new(
        rules: &'a Rules,
        reader: &'a Reader<'a>,
        forced: Vec<Forced>,
        scratch: &'a Scratch,
    ) -> Self {
        Self {
            rules,
            reader,
            scratch,
            truth: LogTruth::new(forced),
            events: Sorter::new(scratch),
        }
    }

    /// Reads the next record. `Ok(Ok(()))` is a valid event, though it may still be too late.
    ///
    /// # Errors
    /// When scratch space cannot be written.
    pub fn record(&mut self, record: &TopicRecord) -> io::Result<Result<(), Refusal>> {
        let confirmed_ms = record
            .timestamp_ms
            .saturating_sub(self.rules.max_out_of_orderness_ms);
        let event = match self.reader.read(record) {
            Ok(event) => event,
            Err(refusal) => {
                let fate = Fate::Refused(refusal);
                self.truth.push(record.offset, confirmed_ms, fate);
                return Ok(Err(refusal));
            }
        };
        let index = self.truth.push(record.offset, confirmed_ms, UNSETTLED);
        let window_ms = self.rules.window_ms;
        self.events.push(ByIdentity(Placed {
            number: index as u64,
            window_start: event.time_ms.div_euclid(window_ms) * window_ms,
            event,
            repeats: false,
        }))?;
        Ok(Ok(()))
    }

    /// Marks every event whose identity stands earlier in the log, in the same window; the others
    /// move the watermark.
    ///
    /// # Errors
    /// When scratch space cannot be used.
    pub fn windows(mut self) -> io::Result<Windows<'a>> {
        let mut in_windows = Sorter::new(self.scratch);
        let mut before: Option<Placed> = None;
        for event in self.events.sorted()? {
            let ByIdentity(mut event) = event?;
            event.repeats = before.is_some_and(|before| before.is_same(&event));
            if !event.repeats {
                let time_ms = event.event.time_ms;
                let watermark_ms = time_ms.saturating_sub(self.rules.max_out_of_orderness_ms);
                self.truth.lead(event.index(), watermark_ms);
            }
            before = Some(event);
            in_windows.push(event)?;
        }
        self.truth.raise_watermarks();
        Ok(Windows::new(self.rules, self.truth, in_windows.sorted()?))
    }
}
