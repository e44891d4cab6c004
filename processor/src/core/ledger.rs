//! Everything of a partition but its windows: where it stands, what it has counted, and the one
//! place where outputs get their sequence numbers and headers.

use crate::core::WINDOW_MS;
use crate::core::dead_letter::{Rejection, dead_letter, md5_hex};
use crate::core::digest::{Digest, forced_link, output_link};
use crate::core::result::result_value;
use crate::core::rules::CoreConfig;
use crate::core::task::InputRecord;
use crate::core::window::{Aggregate, Window};
use crate::io::Header;
use crate::units::{LogTimeMs, Offset, PartitionId, Watermark};
use bytes::Bytes;

/// Topic that an output is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// The output topic.
    Results,
    /// The dead-letter topic.
    DeadLetters,
}

/// One output, complete but for the `owner` header that the sender adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRecord {
    /// Topic that it is for.
    pub destination: Destination,
    /// Place among all outputs of the source partition, from 0, without gaps.
    pub sequence: u64,
    /// Kafka timestamp to store.
    pub timestamp: LogTimeMs,
    /// Key.
    pub key: Option<Bytes>,
    /// JSON object.
    pub value: Bytes,
    /// Headers with ASCII text values.
    pub headers: Vec<Header>,
}

/// What a partition has counted since its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Records processed: accepted + duplicates + dead letters.
    pub records: u64,
    /// Events put into a window.
    pub accepted: u64,
    /// Events whose identity was in their window already.
    pub duplicates: u64,
    /// Dead letters put out.
    pub dead_letters: u64,
    /// Results put out, corrections included.
    pub results: u64,
}

/// A watermark advance that came from the clock, not from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForcedAdvance {
    /// Position of the partition when it came.
    pub offset: Offset,
    /// Watermark that it set.
    pub watermark: Watermark,
}

/// What made an output come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The record at this offset.
    Record(Offset),
    /// A forced watermark advance at this position.
    Idle(Offset),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ledger {
    pub partition: PartitionId,
    pub position: Offset,
    /// What has been emitted: the higher of the log's own watermark and the newest forced one.
    pub watermark: Watermark,
    /// What the accepted events alone say.
    pub log_watermark: Watermark,
    /// Highest Kafka timestamp of all records so far.
    pub newest_log_time: LogTimeMs,
    pub forced: Option<ForcedAdvance>,
    pub next_sequence: u64,
    pub digest: Digest,
    pub counters: Counters,
}

impl Ledger {
    pub(super) fn new(partition: PartitionId, start: Offset) -> Self {
        Ledger {
            partition,
            position: start,
            watermark: Watermark::NONE,
            log_watermark: Watermark::NONE,
            newest_log_time: LogTimeMs(i64::MIN),
            forced: None,
            next_sequence: 0,
            digest: Digest::default(),
            counters: Counters::default(),
        }
    }

    /// Up to where windows are closed for good. A forced advance counts only as far as the log has
    /// confirmed it by a record's own Kafka timestamp: what was in the log before the advance, but
    /// not yet visible (replication had stalled), is not late because of it.
    pub(super) fn horizon(&self, max_out_of_orderness_ms: i64) -> Watermark {
        let confirmed = self
            .newest_log_time
            .0
            .saturating_sub(max_out_of_orderness_ms);
        match self.forced {
            Some(forced) => self
                .log_watermark
                .max(forced.watermark.min(Watermark(confirmed))),
            None => self.log_watermark,
        }
    }

    pub(super) fn note_forced(&mut self, forced: ForcedAdvance) {
        self.forced = Some(forced);
        self.digest.chain(forced_link(forced));
    }

    /// Puts out the result of a window; `previous` makes it a correction.
    pub(super) fn put_result(
        &mut self,
        config: &CoreConfig,
        window_start: i64,
        window: &Window,
        previous: Option<&Aggregate>,
        cause: Cause,
        outputs: &mut Vec<OutputRecord>,
    ) {
        let ticker = config.ticker(window.ticker);
        let (aggregate, revision) = (&window.aggregate, window.revision);
        let value = result_value(ticker, window_start, aggregate, revision, previous);
        let correlation_id = md5_hex(&format!("{}_{}", ticker.name(), window_start / 1000));
        let mut headers = self.headers(&correlation_id, cause);
        headers.push(header("revision", revision.to_string()));
        headers.push(header(
            "event-set-hash",
            format!("{:032x}", aggregate.event_set),
        ));
        self.counters.results += 1;
        outputs.push(self.numbered(OutputRecord {
            destination: Destination::Results,
            sequence: self.next_sequence,
            timestamp: LogTimeMs(window_start + WINDOW_MS - 1),
            key: Some(ticker.symbol.clone()),
            value: Bytes::from(value),
            headers,
        }));
    }

    /// Puts out the dead letter of a record.
    pub(super) fn put_dead_letter(
        &mut self,
        config: &CoreConfig,
        record: &InputRecord<'_>,
        rejection: &Rejection,
        outputs: &mut Vec<OutputRecord>,
    ) {
        let rules = config.rules();
        let letter = dead_letter(
            &rules.input_topic,
            self.partition,
            record,
            rejection,
            rules.max_message_bytes,
        );
        let headers = self.headers(&letter.correlation_id, Cause::Record(record.offset));
        self.counters.dead_letters += 1;
        let key = record
            .key
            .filter(|_| letter.keeps_key)
            .map(Bytes::copy_from_slice);
        outputs.push(self.numbered(OutputRecord {
            destination: Destination::DeadLetters,
            sequence: self.next_sequence,
            timestamp: record.timestamp,
            key,
            value: Bytes::from(letter.value),
            headers,
        }));
    }

    fn numbered(&mut self, output: OutputRecord) -> OutputRecord {
        self.digest
            .chain(output_link(output.sequence, &output.value));
        self.next_sequence += 1;
        output
    }

    fn headers(&self, correlation_id: &str, cause: Cause) -> Vec<Header> {
        let (cause, cause_offset) = match cause {
            Cause::Record(offset) => ("record", offset),
            Cause::Idle(position) => ("idle", position),
        };
        let mut headers = Vec::with_capacity(10);
        headers.push(header("source-partition", self.partition.to_string()));
        headers.push(header("sequence", self.next_sequence.to_string()));
        headers.push(header("correlation-id", correlation_id.to_owned()));
        headers.push(header("cause-offset", cause_offset.to_string()));
        headers.push(header("cause", cause.to_owned()));
        headers.push(header("watermark", self.watermark.to_string()));
        if let Some(forced) = self.forced {
            headers.push(header(
                "forced",
                format!("{}:{}", forced.offset, forced.watermark),
            ));
        }
        headers
    }
}

fn header(name: &str, value: String) -> Header {
    Header {
        name: name.to_owned(),
        value: Bytes::from(value),
    }
}
