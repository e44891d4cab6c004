//! What librdkafka's threads call.

use super::declared::{
    Code, NO_ERROR, rd_kafka_interceptor_add_on_request_sent,
    rd_kafka_interceptor_add_on_response_received, text_of,
};
use rdkafka::bindings as rd;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// AddPartitionsToTxn, AddOffsetsToTxn, EndTxn, TxnOffsetCommit.
const TRANSACTIONAL_API_KEYS: [i16; 4] = [24, 25, 26, 28];

/// What librdkafka's threads tell.
#[derive(Debug, Default)]
pub(in crate::adapters::kafka) struct Shared {
    /// Transactional requests sent and not answered yet.
    pub in_flight: AtomicI64,
    /// A transactional request ended without an answer: timeout, disconnect.
    pub unanswered: AtomicBool,
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

pub(super) const INTERCEPTOR: &CStr = c"tickproof";

pub(super) unsafe extern "C" fn on_new(
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

pub(super) unsafe extern "C" fn on_log(
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
