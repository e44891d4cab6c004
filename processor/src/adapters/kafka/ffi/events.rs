//! What waits in a consumer's queue.

use super::client::Client;
use super::declared::{
    ASSIGN_PARTITIONS, NO_ERROR, PARTITION_EOF, milliseconds, rd_kafka_event_error,
    rd_kafka_header_get_all, rd_kafka_message_headers, text_of,
};
use super::error::RdError;
use super::list::entries_of;
use bytes::BytesMut;
use rdkafka::bindings as rd;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What waits in a client's queue.
pub(in crate::adapters::kafka) enum Event {
    /// A record; its bytes are in the caller's arena.
    Record(RawRecord),
    /// The position has reached the end.
    End { partition: i32, offset: i64 },
    /// The group gives or takes partitions. Nothing else comes of it before it was answered.
    Rebalance(Rebalance),
    /// Something went wrong.
    Failed {
        partition: Option<i32>,
        /// The position in question; negative where there is none.
        offset: i64,
        error: RdError,
    },
    /// Something of no interest.
    Other,
}

/// A record whose bytes lie in an arena.
pub(in crate::adapters::kafka) struct RawRecord {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Range<usize>>,
    pub value: Option<Range<usize>>,
    pub headers: Vec<(String, Range<usize>)>,
}

/// A rebalance that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::adapters::kafka) enum Rebalance {
    Assign(Vec<i32>),
    Revoke { partitions: Vec<i32>, lost: bool },
}

impl Client {
    /// Waits for the next event, for at most `timeout`; a record's bytes are appended to `arena`.
    pub fn next_event(&self, timeout: Duration, arena: &mut BytesMut) -> Option<Event> {
        // SAFETY: the queue is this consumer's; the event is ours until it is destroyed below, and
        // everything taken from it is copied before.
        unsafe {
            let event = rd::rd_kafka_queue_poll(self.queue, milliseconds(timeout));
            if event.is_null() {
                return None;
            }
            let understood = self.understand(event, arena);
            rd::rd_kafka_event_destroy(event);
            Some(understood)
        }
    }

    unsafe fn understand(&self, event: *mut rd::rd_kafka_event_t, arena: &mut BytesMut) -> Event {
        // SAFETY: the caller's event is alive, and each accessor belongs to the event's type.
        unsafe {
            match rd::rd_kafka_event_type(event) {
                rd::RD_KAFKA_EVENT_FETCH => {
                    let message = rd::rd_kafka_event_message_next(event);
                    match message.as_ref() {
                        Some(message) => Event::Record(copy_record(message, arena)),
                        None => Event::Other,
                    }
                }
                rd::RD_KAFKA_EVENT_REBALANCE => {
                    let list = rd::rd_kafka_event_topic_partition_list(event);
                    let entries = if list.is_null() {
                        Vec::new()
                    } else {
                        entries_of(list)
                    };
                    let partitions = entries.into_iter().map(|entry| entry.partition).collect();
                    self.rebalance_waits.store(true, Ordering::SeqCst);
                    let assigns = rd_kafka_event_error(event) == ASSIGN_PARTITIONS;
                    Event::Rebalance(if assigns {
                        Rebalance::Assign(partitions)
                    } else {
                        let lost = rd::rd_kafka_assignment_lost(self.rk()) != 0;
                        Rebalance::Revoke { partitions, lost }
                    })
                }
                rd::RD_KAFKA_EVENT_ERROR => self.understand_error(event),
                _ => Event::Other,
            }
        }
    }

    unsafe fn understand_error(&self, event: *mut rd::rd_kafka_event_t) -> Event {
        // SAFETY: the caller's event is alive and an error; its partition is a copy for us to free.
        unsafe {
            let code = rd_kafka_event_error(event);
            let of = rd::rd_kafka_event_topic_partition(event);
            let (mut partition, mut offset) = (None, -1);
            if !of.is_null() {
                (partition, offset) = (Some((*of).partition), (*of).offset);
                rd::rd_kafka_topic_partition_destroy(of);
            }
            if code == PARTITION_EOF {
                return match partition {
                    Some(partition) => Event::End { partition, offset },
                    None => Event::Other,
                };
            }
            let mut error = RdError::of_code(code);
            error.text = text_of(rd::rd_kafka_event_error_string(event));
            error.is_fatal = rd::rd_kafka_event_error_is_fatal(event) != 0;
            if error.is_fatal {
                // The event's code is only `_FATAL`; the client knows why.
                error = self.fatal_error().unwrap_or(error);
            }
            Event::Failed {
                partition,
                offset,
                error,
            }
        }
    }
}

unsafe fn copy_record(message: &rd::rd_kafka_message_t, arena: &mut BytesMut) -> RawRecord {
    // SAFETY: key, payload and headers belong to the message, which is alive; a null pointer is an
    // absent key or value, whatever the length.
    unsafe {
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let timestamp = rd::rd_kafka_message_timestamp(message, &raw mut kind);
        let key = copy_bytes(message.key.cast(), message.key_len, arena);
        let value = copy_bytes(message.payload.cast(), message.len, arena);
        let mut headers = Vec::new();
        let mut list = ptr::null_mut();
        if rd_kafka_message_headers(message, &raw mut list) == NO_ERROR {
            let (mut name, mut content, mut size) = (ptr::null(), ptr::null(), 0);
            while rd_kafka_header_get_all(
                list,
                headers.len(),
                &raw mut name,
                &raw mut content,
                &raw mut size,
            ) == NO_ERROR
            {
                let content = copy_bytes(content.cast(), size, arena);
                headers.push((text_of(name), content.unwrap_or(0..0)));
            }
        }
        RawRecord {
            partition: message.partition,
            offset: message.offset,
            timestamp,
            key,
            value,
            headers,
        }
    }
}

unsafe fn copy_bytes(from: *const u8, len: usize, arena: &mut BytesMut) -> Option<Range<usize>> {
    if from.is_null() {
        return None;
    }
    let start = arena.len();
    // SAFETY: the caller's pointer is good for `len` bytes.
    arena.extend_from_slice(unsafe { std::slice::from_raw_parts(from, len) });
    Some(start..arena.len())
}
