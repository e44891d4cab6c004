//! The one place that talks C: a safe shell around librdkafka's clients.
//!
//! Comes in: properties and calls. Goes out: owned Rust values and [`RdError`]s with librdkafka's flags.
//! Never here: what a result means for the processor.
//!
//! Why not the wrapper crate: it hands rebalances to a callback instead of to the caller of poll, loses
//! the flags of a commit that failed while flushing, shows neither a member's generation nor a topic's
//! id, and takes no interceptors. Those tell which requests of a transaction were left without answer,
//! after which its producer must be replaced.
//!
//! How the unsafe code is kept sound:
//! - every pointer from librdkafka lives in a struct that frees it in `drop` ([`Client`], [`List`],
//!   [`Membership`], [`Event`]), and is used only through it;
//! - C callbacks get a pointer to [`Shared`], which the client's own `Arc` keeps alive until after
//!   `rd_kafka_destroy` has ended librdkafka's threads; they only touch atomics and the logger;
//! - `rd_kafka_t` is thread-safe, so a [`Client`] may move between threads.
#![allow(
    unsafe_code,
    reason = "librdkafka is a C library; this is the module for it"
)]

use bytes::BytesMut;
use rdkafka::bindings as rd;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// An error code of librdkafka. The generated bindings have an enum for it, but brokers may send codes
/// that it does not know, and an enum must never hold such a value: so every function that returns a
/// code is declared here, with an integer.
type Code = c_int;

const NO_ERROR: Code = 0;
const TIMED_OUT: Code = -185;
const UNKNOWN_TOPIC_OR_PARTITION: Code = 3;
const PARTITION_EOF: Code = -191;
const ASSIGN_PARTITIONS: Code = -175;

/// What librdkafka calls when a request was written to a socket.
type RequestSent = unsafe extern "C" fn(
    *mut rd::rd_kafka_t,
    c_int,
    *const c_char,
    i32,
    i16,
    i16,
    i32,
    usize,
    *mut c_void,
) -> Code;
/// What librdkafka calls when a request was answered, or never will be.
type ResponseReceived = unsafe extern "C" fn(
    *mut rd::rd_kafka_t,
    c_int,
    *const c_char,
    i32,
    i16,
    i16,
    i32,
    usize,
    i64,
    Code,
    *mut c_void,
) -> Code;
/// What librdkafka calls with each new client.
type New = unsafe extern "C" fn(
    *mut rd::rd_kafka_t,
    *const rd::rd_kafka_conf_t,
    *mut c_void,
    *mut c_char,
    usize,
) -> Code;

unsafe extern "C" {
    fn rd_kafka_conf_interceptor_add_on_new(
        conf: *mut rd::rd_kafka_conf_t,
        name: *const c_char,
        function: New,
        opaque: *mut c_void,
    ) -> Code;
    fn rd_kafka_interceptor_add_on_request_sent(
        rk: *mut rd::rd_kafka_t,
        name: *const c_char,
        function: RequestSent,
        opaque: *mut c_void,
    ) -> Code;
    fn rd_kafka_interceptor_add_on_response_received(
        rk: *mut rd::rd_kafka_t,
        name: *const c_char,
        function: ResponseReceived,
        opaque: *mut c_void,
    ) -> Code;
    fn rd_kafka_err2name(code: Code) -> *const c_char;
    fn rd_kafka_err2str(code: Code) -> *const c_char;
    fn rd_kafka_error_code(error: *const rd::rd_kafka_error_t) -> Code;
    fn rd_kafka_event_error(event: *mut rd::rd_kafka_event_t) -> Code;
    fn rd_kafka_fatal_error(rk: *mut rd::rd_kafka_t, text: *mut c_char, size: usize) -> Code;
    fn rd_kafka_subscribe(
        rk: *mut rd::rd_kafka_t,
        topics: *const rd::rd_kafka_topic_partition_list_t,
    ) -> Code;
    fn rd_kafka_assign(
        rk: *mut rd::rd_kafka_t,
        list: *const rd::rd_kafka_topic_partition_list_t,
    ) -> Code;
    fn rd_kafka_pause_partitions(
        rk: *mut rd::rd_kafka_t,
        list: *mut rd::rd_kafka_topic_partition_list_t,
    ) -> Code;
    fn rd_kafka_resume_partitions(
        rk: *mut rd::rd_kafka_t,
        list: *mut rd::rd_kafka_topic_partition_list_t,
    ) -> Code;
    fn rd_kafka_committed(
        rk: *mut rd::rd_kafka_t,
        list: *mut rd::rd_kafka_topic_partition_list_t,
        timeout_ms: c_int,
    ) -> Code;
    fn rd_kafka_query_watermark_offsets(
        rk: *mut rd::rd_kafka_t,
        topic: *const c_char,
        partition: i32,
        low: *mut i64,
        high: *mut i64,
        timeout_ms: c_int,
    ) -> Code;
    fn rd_kafka_message_headers(
        message: *const rd::rd_kafka_message_t,
        headers: *mut *mut rd::rd_kafka_headers_t,
    ) -> Code;
    fn rd_kafka_header_get_all(
        headers: *const rd::rd_kafka_headers_t,
        index: usize,
        name: *mut *const c_char,
        value: *mut *const c_void,
        size: *mut usize,
    ) -> Code;
}
const ERROR_TEXT_BYTES: usize = 512;
/// One step of the wait for the end of a membership.
const LEAVE_STEP: Duration = Duration::from_millis(50);
/// Longest wait of a drop for the end of a membership.
const DROP_LIMIT: Duration = Duration::from_secs(5);
/// AddPartitionsToTxn, AddOffsetsToTxn, EndTxn, TxnOffsetCommit.
const TRANSACTIONAL_API_KEYS: [i16; 4] = [24, 25, 26, 28];
/// How `rd_kafka_consumer_group_metadata_write` begins; the generation follows, in native byte order.
const MEMBERSHIP_MAGIC: &[u8] = b"CGMDv2:";

/// An error with librdkafka's own judgement of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RdError {
    /// librdkafka's name, e.g. `ILLEGAL_GENERATION`; the client's own begin with `_`.
    pub name: String,
    pub text: String,
    pub is_fatal: bool,
    pub is_retriable: bool,
    pub requires_abort: bool,
}

impl RdError {
    fn of_code(code: Code) -> RdError {
        // SAFETY: both return static strings for every code, also for one that they do not know.
        let (name, text) = unsafe {
            (
                text_of(rd_kafka_err2name(code)),
                text_of(rd_kafka_err2str(code)),
            )
        };
        RdError {
            name,
            text,
            is_fatal: false,
            is_retriable: false,
            requires_abort: false,
        }
    }

    /// Takes over an error object; null is success.
    unsafe fn take(error: *mut rd::rd_kafka_error_t) -> Result<(), RdError> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the object is ours until it is destroyed here.
        let taken = unsafe {
            RdError {
                name: text_of(rd::rd_kafka_error_name(error)),
                text: text_of(rd::rd_kafka_error_string(error)),
                is_fatal: rd::rd_kafka_error_is_fatal(error) != 0,
                is_retriable: rd::rd_kafka_error_is_retriable(error) != 0,
                requires_abort: rd::rd_kafka_error_txn_requires_abort(error) != 0,
            }
        };
        // SAFETY: as above; it is not used any more.
        unsafe { rd::rd_kafka_error_destroy(error) };
        Err(taken)
    }
}

fn check(code: Code) -> Result<(), RdError> {
    if code == NO_ERROR {
        Ok(())
    } else {
        Err(RdError::of_code(code))
    }
}

/// A text of librdkafka's; null is empty.
unsafe fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: librdkafka's texts end with NUL and live at least as long as the call.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// A name for C. Names with NUL are no names of Kafka's; they are cut there, and then not found.
fn c_name(name: &str) -> CString {
    let end = name.bytes().position(|byte| byte == 0);
    CString::new(&name[..end.unwrap_or(name.len())]).expect("cut before the first NUL")
}

/// Whole milliseconds, never less than asked for.
fn milliseconds(timeout: Duration) -> c_int {
    let rounded_up = timeout.as_nanos().div_ceil(1_000_000);
    c_int::try_from(rounded_up).unwrap_or(c_int::MAX)
}

/// What librdkafka's threads tell.
#[derive(Debug, Default)]
struct Shared {
    /// Transactional requests sent and not answered yet.
    in_flight: AtomicI64,
    /// A transactional request ended without an answer: timeout, disconnect.
    unanswered: AtomicBool,
}

unsafe extern "C" fn on_request_sent(
    _: *mut rd::rd_kafka_t,
    _: c_int,
    _: *const c_char,
    _: i32,
    api_key: i16,
    _: i16,
    _: i32,
    _: usize,
    shared: *mut c_void,
) -> Code {
    if TRANSACTIONAL_API_KEYS.contains(&api_key) {
        // SAFETY: see the module's notes on callbacks.
        let shared = unsafe { &*shared.cast::<Shared>() };
        shared.in_flight.fetch_add(1, Ordering::SeqCst);
    }
    NO_ERROR
}

unsafe extern "C" fn on_response_received(
    _: *mut rd::rd_kafka_t,
    _: c_int,
    _: *const c_char,
    _: i32,
    api_key: i16,
    _: i16,
    _: i32,
    _: usize,
    _: i64,
    error: Code,
    shared: *mut c_void,
) -> Code {
    if TRANSACTIONAL_API_KEYS.contains(&api_key) {
        // SAFETY: see the module's notes on callbacks.
        let shared = unsafe { &*shared.cast::<Shared>() };
        if error == NO_ERROR {
            shared.in_flight.fetch_sub(1, Ordering::SeqCst);
        } else {
            shared.unanswered.store(true, Ordering::SeqCst);
        }
    }
    NO_ERROR
}

const INTERCEPTOR: &CStr = c"tickproof";

unsafe extern "C" fn on_new(
    rk: *mut rd::rd_kafka_t,
    _: *const rd::rd_kafka_conf_t,
    shared: *mut c_void,
    _: *mut c_char,
    _: usize,
) -> Code {
    // SAFETY: librdkafka calls this with the new client, at the one moment when interceptors may be
    // added.
    unsafe {
        let sent = rd_kafka_interceptor_add_on_request_sent(
            rk,
            INTERCEPTOR.as_ptr(),
            on_request_sent,
            shared,
        );
        if sent != NO_ERROR {
            return sent;
        }
        rd_kafka_interceptor_add_on_response_received(
            rk,
            INTERCEPTOR.as_ptr(),
            on_response_received,
            shared,
        )
    }
}

unsafe extern "C" fn on_log(
    rk: *const rd::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    line: *const c_char,
) {
    // SAFETY: librdkafka passes its client (or null, early) and texts that end with NUL.
    let (client, facility, line) = unsafe {
        let client = if rk.is_null() {
            String::new()
        } else {
            text_of(rd::rd_kafka_name(rk))
        };
        (client, text_of(facility), text_of(line))
    };
    match level {
        0..=3 => tracing::error!(target: "librdkafka", %client, %facility, "{line}"),
        4 => tracing::warn!(target: "librdkafka", %client, %facility, "{line}"),
        5 | 6 => tracing::info!(target: "librdkafka", %client, %facility, "{line}"),
        _ => tracing::debug!(target: "librdkafka", %client, %facility, "{line}"),
    }
}

/// A list of partitions of topics, with offsets and metadata.
pub(super) struct List(NonNull<rd::rd_kafka_topic_partition_list_t>);

// SAFETY: the list is this value's alone.
unsafe impl Send for List {}

/// One entry of a [`List`], copied out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub topic: String,
    pub partition: i32,
    /// Negative: none, or a logical offset.
    pub offset: i64,
    pub metadata: Vec<u8>,
    pub error: Option<RdError>,
}

impl List {
    pub fn new() -> List {
        // SAFETY: allocates; librdkafka aborts when memory is out.
        let list = unsafe { rd::rd_kafka_topic_partition_list_new(8) };
        List(NonNull::new(list).expect("librdkafka allocates or aborts"))
    }

    pub fn add(&mut self, topic: &str, partition: i32, offset: i64, metadata: &[u8]) {
        let topic = c_name(topic);
        // SAFETY: the new element belongs to the list, which frees its metadata by the allocator of
        // `rd_kafka_mem_malloc`.
        unsafe {
            let element =
                rd::rd_kafka_topic_partition_list_add(self.0.as_ptr(), topic.as_ptr(), partition);
            (*element).offset = offset;
            if !metadata.is_empty() {
                let buffer = rd::rd_kafka_mem_malloc(ptr::null_mut(), metadata.len());
                ptr::copy_nonoverlapping(metadata.as_ptr(), buffer.cast(), metadata.len());
                (*element).metadata = buffer;
                (*element).metadata_size = metadata.len();
            }
        }
    }

    pub fn of_partitions(topic: &str, partitions: impl IntoIterator<Item = (i32, i64)>) -> List {
        let mut list = List::new();
        for (partition, offset) in partitions {
            list.add(topic, partition, offset, &[]);
        }
        list
    }

    fn ptr(&self) -> *mut rd::rd_kafka_topic_partition_list_t {
        self.0.as_ptr()
    }

    pub fn entries(&self) -> Vec<Entry> {
        // SAFETY: the list is alive.
        unsafe { entries_of(self.0.as_ptr()) }
    }
}

unsafe fn entries_of(list: *const rd::rd_kafka_topic_partition_list_t) -> Vec<Entry> {
    // SAFETY: the caller's list is alive; `elems` has `cnt` elements.
    unsafe {
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        let mut entries = Vec::with_capacity(count);
        for index in 0..count {
            // No reference to the element: its code may be one that the enum does not know.
            let element = (*list).elems.add(index);
            let code = (&raw const (*element).err).cast::<Code>().read();
            let metadata = if (*element).metadata.is_null() {
                Vec::new()
            } else {
                let (start, size) = ((*element).metadata.cast(), (*element).metadata_size);
                std::slice::from_raw_parts(start, size).to_vec()
            };
            entries.push(Entry {
                topic: text_of((*element).topic),
                partition: (*element).partition,
                offset: (*element).offset,
                metadata,
                error: check(code).err(),
            });
        }
        entries
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: ours, and not used any more.
        unsafe { rd::rd_kafka_topic_partition_list_destroy(self.0.as_ptr()) };
    }
}

/// A member's identity in its group at a generation.
pub(super) struct Membership {
    metadata: NonNull<rd::rd_kafka_consumer_group_metadata_t>,
    pub generation: i32,
}

// SAFETY: an immutable copy of two texts and a number.
unsafe impl Send for Membership {}
// SAFETY: as above.
unsafe impl Sync for Membership {}

impl Drop for Membership {
    fn drop(&mut self) {
        // SAFETY: ours, and not used any more.
        unsafe { rd::rd_kafka_consumer_group_metadata_destroy(self.metadata.as_ptr()) };
    }
}

/// What waits in a client's queue.
pub(super) enum Event {
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
pub(super) struct RawRecord {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Range<usize>>,
    pub value: Option<Range<usize>>,
    pub headers: Vec<(String, Range<usize>)>,
}

/// A rebalance that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rebalance {
    Assign(Vec<i32>),
    Revoke { partitions: Vec<i32>, lost: bool },
}

/// Partitions and id of a topic.
pub(super) struct TopicShape {
    pub id: Option<String>,
    pub partitions: usize,
}

/// A client of librdkafka.
pub(super) struct Client {
    rk: NonNull<rd::rd_kafka_t>,
    /// The consumer's queue, of messages and events; null for a producer.
    queue: *mut rd::rd_kafka_queue_t,
    shared: Arc<Shared>,
    /// A rebalance was handed out, and librdkafka waits for its answer.
    rebalance_waits: AtomicBool,
}

// SAFETY: librdkafka's handles are thread-safe; queues too.
unsafe impl Send for Client {}
// SAFETY: as above; what is not behind a handle is atomic.
unsafe impl Sync for Client {}

impl Client {
    /// # Errors
    /// When librdkafka does not take a property (its text says which and why), or cannot start.
    pub fn consumer<'a>(
        properties: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Client, String> {
        let events = rd::RD_KAFKA_EVENT_REBALANCE | rd::RD_KAFKA_EVENT_ERROR;
        let kind = rd::rd_kafka_type_t::RD_KAFKA_CONSUMER;
        let mut client = Self::create(kind, properties, events)?;
        // SAFETY: the client is alive; the queue is freed before it.
        unsafe {
            rd::rd_kafka_poll_set_consumer(client.rk.as_ptr());
            client.queue = rd::rd_kafka_queue_get_consumer(client.rk.as_ptr());
        }
        Ok(client)
    }

    /// # Errors
    /// As for [`Client::consumer`].
    pub fn producer<'a>(
        properties: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Client, String> {
        Self::create(rd::rd_kafka_type_t::RD_KAFKA_PRODUCER, properties, 0)
    }

    fn create<'a>(
        kind: rd::rd_kafka_type_t,
        properties: impl IntoIterator<Item = (&'a String, &'a String)>,
        events: c_int,
    ) -> Result<Client, String> {
        let shared = Arc::new(Shared::default());
        let mut text = [0 as c_char; ERROR_TEXT_BYTES];
        // SAFETY: `conf` is ours until `rd_kafka_new` takes it (only on success); `text` outlives the
        // calls; `shared` outlives the client.
        unsafe {
            let conf = rd::rd_kafka_conf_new();
            for (name, value) in properties {
                let (name, value) = (c_name(name), c_name(value));
                let result = rd::rd_kafka_conf_set(
                    conf,
                    name.as_ptr(),
                    value.as_ptr(),
                    text.as_mut_ptr(),
                    text.len(),
                );
                if result != rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
                    rd::rd_kafka_conf_destroy(conf);
                    return Err(text_of(text.as_ptr()));
                }
            }
            rd::rd_kafka_conf_set_events(conf, events);
            rd::rd_kafka_conf_set_log_cb(conf, Some(on_log));
            rd_kafka_conf_interceptor_add_on_new(
                conf,
                INTERCEPTOR.as_ptr(),
                on_new,
                Arc::as_ptr(&shared).cast_mut().cast(),
            );
            let rk = rd::rd_kafka_new(kind, conf, text.as_mut_ptr(), text.len());
            let Some(rk) = NonNull::new(rk) else {
                rd::rd_kafka_conf_destroy(conf);
                return Err(text_of(text.as_ptr()));
            };
            Ok(Client {
                rk,
                queue: ptr::null_mut(),
                shared,
                rebalance_waits: AtomicBool::new(false),
            })
        }
    }

    fn rk(&self) -> *mut rd::rd_kafka_t {
        self.rk.as_ptr()
    }

    /// True once a request of a transaction was left without answer, or is still under way.
    pub fn is_tainted(&self) -> bool {
        self.shared.unanswered.load(Ordering::SeqCst)
            || self.shared.in_flight.load(Ordering::SeqCst) > 0
    }

    /// The error that made this client unusable, if there is one.
    pub fn fatal_error(&self) -> Option<RdError> {
        let mut text = [0 as c_char; ERROR_TEXT_BYTES];
        // SAFETY: the client is alive; `text` outlives the call.
        let code = unsafe { rd_kafka_fatal_error(self.rk(), text.as_mut_ptr(), text.len()) };
        let mut error = check(code).err()?;
        // SAFETY: librdkafka ends the text with NUL.
        error.text = unsafe { text_of(text.as_ptr()) };
        error.is_fatal = true;
        Some(error)
    }

    // ---- consumer ----

    pub fn subscribe(&self, topic: &str) -> Result<(), RdError> {
        let list = List::of_partitions(topic, [(-1, 0)]);
        // SAFETY: the list lives through the call, which copies it.
        check(unsafe { rd_kafka_subscribe(self.rk(), list.ptr()) })
    }

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

    /// True while the group rebalances cooperatively.
    pub fn is_cooperative(&self) -> bool {
        // SAFETY: returns a static text.
        let protocol = unsafe { text_of(rd::rd_kafka_rebalance_protocol(self.rk())) };
        protocol == "COOPERATIVE"
    }

    /// Adds partitions to the assignment.
    pub fn incremental_assign(&self, list: &List) -> Result<(), RdError> {
        // SAFETY: the list lives through the call, which copies it.
        unsafe { RdError::take(rd::rd_kafka_incremental_assign(self.rk(), list.ptr()))? };
        self.rebalance_waits.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Takes partitions from the assignment.
    pub fn incremental_unassign(&self, list: &List) -> Result<(), RdError> {
        // SAFETY: the list lives through the call, which copies it.
        unsafe { RdError::take(rd::rd_kafka_incremental_unassign(self.rk(), list.ptr()))? };
        self.rebalance_waits.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Replaces the assignment; `None` takes everything away.
    pub fn assign(&self, list: Option<&List>) -> Result<(), RdError> {
        let list = list.map_or(ptr::null_mut(), List::ptr);
        // SAFETY: the list lives through the call, which copies it.
        check(unsafe { rd_kafka_assign(self.rk(), list) })?;
        self.rebalance_waits.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Sets positions of assigned partitions and waits until they are in force.
    pub fn seek(&self, list: &List, timeout: Duration) -> Result<(), RdError> {
        // SAFETY: the list lives through the call, which writes each element's error.
        unsafe {
            let whole = rd::rd_kafka_seek_partitions(self.rk(), list.ptr(), milliseconds(timeout));
            RdError::take(whole)?;
        }
        first_error(list)
    }

    pub fn pause(&self, list: &List) -> Result<(), RdError> {
        // SAFETY: the list lives through the call, which writes each element's error.
        check(unsafe { rd_kafka_pause_partitions(self.rk(), list.ptr()) })?;
        first_error(list)
    }

    pub fn resume(&self, list: &List) -> Result<(), RdError> {
        // SAFETY: the list lives through the call, which writes each element's error.
        check(unsafe { rd_kafka_resume_partitions(self.rk(), list.ptr()) })?;
        first_error(list)
    }

    /// Writes the group's committed offsets into `list`.
    pub fn committed(&self, list: &List, timeout: Duration) -> Result<(), RdError> {
        // SAFETY: the list lives through the call, which writes its elements.
        check(unsafe { rd_kafka_committed(self.rk(), list.ptr(), milliseconds(timeout)) })?;
        first_error(list)
    }

    /// Log start, and the offset where this client's isolation level ends.
    pub fn bounds(
        &self,
        topic: &str,
        partition: i32,
        timeout: Duration,
    ) -> Result<(i64, i64), RdError> {
        let topic = c_name(topic);
        let (mut low, mut high) = (0, 0);
        // SAFETY: all pointers live through the call.
        let code = unsafe {
            rd_kafka_query_watermark_offsets(
                self.rk(),
                topic.as_ptr(),
                partition,
                &raw mut low,
                &raw mut high,
                milliseconds(timeout),
            )
        };
        check(code).map(|()| (low, high))
    }

    /// The member's identity now; `None` outside of a generation.
    pub fn membership(&self) -> Option<Membership> {
        // SAFETY: the copy is ours; the written bytes are ours to free by `rd_kafka_mem_free`.
        unsafe {
            let metadata = NonNull::new(rd::rd_kafka_consumer_group_metadata(self.rk()))?;
            let mut membership = Membership {
                metadata,
                generation: -1,
            };
            let (mut buffer, mut size) = (ptr::null_mut(), 0);
            let written = rd::rd_kafka_consumer_group_metadata_write(
                metadata.as_ptr(),
                &raw mut buffer,
                &raw mut size,
            );
            RdError::take(written).ok()?;
            let bytes = std::slice::from_raw_parts(buffer.cast::<u8>(), size);
            membership.generation = generation_in(bytes);
            let has_member_id = has_member_id(bytes);
            rd::rd_kafka_mem_free(ptr::null_mut(), buffer);
            (membership.generation >= 0 && has_member_id).then_some(membership)
        }
    }

    fn is_closed(&self) -> bool {
        // SAFETY: the client is alive.
        unsafe { rd::rd_kafka_consumer_closed(self.rk()) != 0 }
    }

    /// Asks a broker about a topic.
    pub fn describe_topic(&self, topic: &str, timeout: Duration) -> Result<TopicShape, RdError> {
        let name = c_name(topic);
        let mut names = [name.as_ptr()];
        let timeout = milliseconds(timeout);
        let mut text = [0 as c_char; ERROR_TEXT_BYTES];
        // SAFETY: everything made here is destroyed here; the event's content is copied before.
        unsafe {
            let topics = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
            let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
            let options = rd::rd_kafka_AdminOptions_new(self.rk(), operation);
            rd::rd_kafka_AdminOptions_set_request_timeout(
                options,
                timeout,
                text.as_mut_ptr(),
                text.len(),
            );
            let queue = rd::rd_kafka_queue_new(self.rk());
            rd::rd_kafka_DescribeTopics(self.rk(), topics, options, queue);
            let event = rd::rd_kafka_queue_poll(queue, timeout.saturating_add(1_000));
            let described = if event.is_null() {
                Err(RdError::of_code(TIMED_OUT))
            } else {
                let described = topic_shape(event);
                rd::rd_kafka_event_destroy(event);
                described
            };
            rd::rd_kafka_queue_destroy(queue);
            rd::rd_kafka_AdminOptions_destroy(options);
            rd::rd_kafka_TopicCollection_destroy(topics);
            described
        }
    }

    // ---- producer ----

    pub fn init_transactions(&self, timeout: Duration) -> Result<(), RdError> {
        // SAFETY: the client is alive.
        unsafe {
            RdError::take(rd::rd_kafka_init_transactions(
                self.rk(),
                milliseconds(timeout),
            ))
        }
    }

    pub fn begin_transaction(&self) -> Result<(), RdError> {
        // SAFETY: the client is alive.
        unsafe { RdError::take(rd::rd_kafka_begin_transaction(self.rk())) }
    }

    pub fn send_offsets(
        &self,
        offsets: &List,
        member: &Membership,
        timeout: Duration,
    ) -> Result<(), RdError> {
        // SAFETY: all live through the call, which copies them.
        unsafe {
            RdError::take(rd::rd_kafka_send_offsets_to_transaction(
                self.rk(),
                offsets.ptr(),
                member.metadata.as_ptr(),
                milliseconds(timeout),
            ))
        }
    }

    pub fn commit_transaction(&self, timeout: Duration) -> Result<(), RdError> {
        // SAFETY: the client is alive.
        unsafe {
            RdError::take(rd::rd_kafka_commit_transaction(
                self.rk(),
                milliseconds(timeout),
            ))
        }
    }

    pub fn abort_transaction(&self, timeout: Duration) -> Result<(), RdError> {
        // SAFETY: the client is alive.
        unsafe {
            RdError::take(rd::rd_kafka_abort_transaction(
                self.rk(),
                milliseconds(timeout),
            ))
        }
    }

    /// Serves the client's callbacks, for at most `timeout`.
    pub fn serve(&self, timeout: Duration) {
        // SAFETY: the client is alive.
        unsafe { rd::rd_kafka_poll(self.rk(), milliseconds(timeout)) };
    }

    /// Queues a copy of a record.
    pub fn produce(&self, record: &crate::io::ProducerRecord) -> Result<(), RdError> {
        use rd::rd_kafka_vtype_t as kind;
        let topic = c_name(&record.topic);
        let partition = record.partition.map_or(-1, |partition| partition.0);
        let mut values = vec![
            value(kind::RD_KAFKA_VTYPE_TOPIC, |u| u.cstr = topic.as_ptr()),
            value(kind::RD_KAFKA_VTYPE_PARTITION, |u| u.i32_ = partition),
            value(kind::RD_KAFKA_VTYPE_TIMESTAMP, |u| {
                u.i64_ = record.timestamp.0;
            }),
            value(kind::RD_KAFKA_VTYPE_MSGFLAGS, |u| {
                u.i = rd::RD_KAFKA_MSG_F_COPY;
            }),
            value(kind::RD_KAFKA_VTYPE_VALUE, |u| {
                u.mem = memory(&record.value)
            }),
        ];
        if let Some(key) = &record.key {
            values.push(value(kind::RD_KAFKA_VTYPE_KEY, |u| u.mem = memory(key)));
        }
        // SAFETY: all memory that `values` points to lives through the call, which copies it. The
        // headers become librdkafka's only if it takes the record.
        unsafe {
            let headers = rd::rd_kafka_headers_new(record.headers.len());
            for header in &record.headers {
                rd::rd_kafka_header_add(
                    headers,
                    header.name.as_ptr().cast(),
                    header.name.len().cast_signed(),
                    header.value.as_ptr().cast(),
                    header.value.len().cast_signed(),
                );
            }
            values.push(value(kind::RD_KAFKA_VTYPE_HEADERS, |u| u.headers = headers));
            let error = rd::rd_kafka_produceva(self.rk(), values.as_ptr(), values.len());
            if !error.is_null() {
                rd::rd_kafka_headers_destroy(headers);
            }
            RdError::take(error)
        }
    }
}

impl Client {
    /// Leaves the group, for at most `timeout`, answering whatever rebalance waits or comes.
    pub fn leave(&self, timeout: Duration) -> Result<(), RdError> {
        let deadline = Instant::now() + timeout;
        if self.is_closed() {
            return Ok(());
        }
        // SAFETY: client and queue are alive.
        unsafe { RdError::take(rd::rd_kafka_consumer_close_queue(self.rk(), self.queue))? };
        let mut arena = BytesMut::new();
        while !self.is_closed() && Instant::now() < deadline {
            // While a member closes, this answers any rebalance, under either protocol. Only where one
            // waits: a member that has ended does not answer the call any more.
            if self.rebalance_waits.load(Ordering::SeqCst) {
                self.assign(None)?;
            }
            self.next_event(LEAVE_STEP, &mut arena);
            arena.clear();
        }
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let is_consumer = !self.queue.is_null();
        if is_consumer {
            // A rebalance without answer would keep librdkafka's threads, and this drop, for ever.
            if let Err(error) = self.leave(DROP_LIMIT) {
                tracing::warn!(code = %error.name, text = %error.text, "leaving the group failed");
            }
            if !self.is_closed() {
                tracing::error!("a consumer does not end; its threads are left behind");
                std::mem::forget(Arc::clone(&self.shared));
                return;
            }
        }
        // SAFETY: the queue belongs to the client and goes first; after `rd_kafka_destroy_flags` no
        // thread of librdkafka uses `shared`.
        unsafe {
            if is_consumer {
                rd::rd_kafka_queue_destroy(self.queue);
            }
            rd::rd_kafka_destroy_flags(self.rk(), rd::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
        }
    }
}

fn first_error(list: &List) -> Result<(), RdError> {
    let failed = list.entries().into_iter().find_map(|entry| entry.error);
    failed.map_or(Ok(()), Err)
}

fn generation_in(bytes: &[u8]) -> i32 {
    let generation = bytes
        .strip_prefix(MEMBERSHIP_MAGIC)
        .and_then(|rest| rest.first_chunk::<4>());
    generation.map_or(-1, |bytes| i32::from_ne_bytes(*bytes))
}

/// A member that was thrown out keeps its generation, but has no id any more. After the generation come
/// the group's name and the member's id, each with a NUL at its end.
fn has_member_id(bytes: &[u8]) -> bool {
    let names = bytes.get(MEMBERSHIP_MAGIC.len() + 4..).unwrap_or_default();
    let member = names.split(|&byte| byte == 0).nth(1);
    member.is_some_and(|member| !member.is_empty())
}

fn value(
    kind: rd::rd_kafka_vtype_t,
    set: impl FnOnce(&mut rd::rd_kafka_vu_s__bindgen_ty_1),
) -> rd::rd_kafka_vu_t {
    let mut u = rd::rd_kafka_vu_s__bindgen_ty_1 { _pad: [0; 64] };
    set(&mut u);
    rd::rd_kafka_vu_t { vtype: kind, u }
}

fn memory(bytes: &[u8]) -> rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
    rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
        ptr: bytes.as_ptr().cast_mut().cast(),
        size: bytes.len(),
    }
}

unsafe fn topic_shape(event: *mut rd::rd_kafka_event_t) -> Result<TopicShape, RdError> {
    // SAFETY: the caller's event is alive and the answer to DescribeTopics for one topic.
    unsafe {
        check(rd_kafka_event_error(event))?;
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if count == 0 {
            return Err(RdError::of_code(UNKNOWN_TOPIC_OR_PARTITION));
        }
        let topic = *topics;
        let error = rd::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            check(rd_kafka_error_code(error))?;
        }
        let mut partitions = 0;
        rd::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        let id = rd::rd_kafka_TopicDescription_topic_id(topic);
        let id = if id.is_null() {
            String::new()
        } else {
            text_of(rd::rd_kafka_Uuid_base64str(id))
        };
        // Brokers without topic ids tell one of zeros.
        let id = Some(id).filter(|id| !id.trim_matches(['A', '=']).is_empty());
        Ok(TopicShape { id, partitions })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_rounded_up_and_bounded() {
        assert_eq!(milliseconds(Duration::ZERO), 0);
        assert_eq!(milliseconds(Duration::from_micros(1)), 1);
        assert_eq!(milliseconds(Duration::from_millis(100)), 100);
        assert_eq!(milliseconds(Duration::MAX), c_int::MAX);
    }

    #[test]
    fn a_generation_is_read_only_from_the_known_format() {
        let mut bytes = MEMBERSHIP_MAGIC.to_vec();
        bytes.extend_from_slice(&7_i32.to_ne_bytes());
        bytes.extend_from_slice(b"group\0member\0");
        assert_eq!(generation_in(&bytes), 7);
        assert!(has_member_id(&bytes));
        let nobody = [MEMBERSHIP_MAGIC, &7_i32.to_ne_bytes(), b"group\0\0\x01"].concat();
        assert!(!has_member_id(&nobody) && !has_member_id(b""));
        assert_eq!(generation_in(b"CGMDv3:\0\0\0\0"), -1);
        assert_eq!(generation_in(b""), -1);
    }

    #[test]
    fn lists_keep_offsets_and_metadata() {
        let mut list = List::new();
        list.add("t", 3, 42, b"a \xff record");
        list.add("t", 4, -1001, b"");
        let entries = list.entries();
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[0].partition, entries[0].offset), (3, 42));
        assert_eq!(entries[0].metadata, b"a \xff record");
        assert_eq!(entries[1].metadata, b"");
        assert_eq!(entries[1].error, None);
    }

    #[test]
    fn codes_that_nobody_knows_are_errors_with_a_name() {
        for code in [103, 9_999, -9_999] {
            let error = check(code).unwrap_err();
            assert!(!error.name.is_empty(), "{code}");
        }
    }

    #[test]
    fn a_wrong_property_is_refused_with_its_name() {
        let properties = [("no.such.thing".to_owned(), "1".to_owned())];
        let pairs = properties.iter().map(|(name, value)| (name, value));
        let error = Client::consumer(pairs).err().unwrap();
        assert!(error.contains("no.such.thing"), "{error}");
    }

    #[test]
    fn a_member_of_nothing_has_no_identity() {
        let properties = [("group.id".to_owned(), "g".to_owned())];
        let pairs = properties.iter().map(|(name, value)| (name, value));
        let client = Client::consumer(pairs).unwrap();
        assert!(client.membership().is_none());
    }
}
