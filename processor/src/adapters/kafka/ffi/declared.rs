//! What the generated bindings cannot say, and small conversions to and from C.

use rdkafka::bindings as rd;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::time::Duration;

/// An error code of librdkafka. The generated bindings have an enum for it, but brokers may send codes
/// that it does not know, and an enum must never hold such a value: so every function that returns a
/// code is declared here, with an integer.
pub(super) type Code = c_int;

pub(super) const NO_ERROR: Code = 0;
pub(super) const TIMED_OUT: Code = -185;
pub(super) const UNKNOWN_TOPIC_OR_PARTITION: Code = 3;
pub(super) const PARTITION_EOF: Code = -191;
pub(super) const ASSIGN_PARTITIONS: Code = -175;
pub(super) const ERROR_TEXT_BYTES: usize = 512;

/// What librdkafka calls when a request was written to a socket.
pub(super) type RequestSent = unsafe extern "C" fn(
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
pub(super) type ResponseReceived = unsafe extern "C" fn(
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
pub(super) type New = unsafe extern "C" fn(
    *mut rd::rd_kafka_t,
    *const rd::rd_kafka_conf_t,
    *mut c_void,
    *mut c_char,
    usize,
) -> Code;

unsafe extern "C" {
    pub(super) fn rd_kafka_conf_interceptor_add_on_new(
        conf: *mut rd::rd_kafka_conf_t,
        name: *const c_char,
        function: New,
        opaque: *mut c_void,
    ) -> Code;
    pub(super) fn rd_kafka_interceptor_add_on_request_sent(
        rk: *mut rd::rd_kafka_t,
        name: *const c_char,
        function: RequestSent,
        opaque: *mut c_void,
    ) -> Code;
    pub(super) fn rd_kafka_interceptor_add_on_response_received(
        rk: *mut rd::rd_kafka_t,
        name: *const c_char,
        function: ResponseReceived,
        opaque: *mut c_void,
    ) -> Code;
    pub(super) fn rd_kafka_err2name(code: Code) -> *const c_char;
    pub(super) fn rd_kafka_err2str(code: Code) -> *const c_char;
    pub(super) fn rd_kafka_error_code(error: *const rd::rd_kafka_error_t) -> Code;
    pub(super) fn rd_kafka_event_error(event: *mut rd::rd_kafka_event_t) -> Code;
    pub(super) fn rd_kafka_fatal_error(
        rk: *mut rd::rd_kafka_t,
        text: *mut c_char,
        size: usize,
    ) -> Code;
    pub(super) fn rd_kafka_subscribe(
        rk: *mut rd::rd_kafka_t,
        topics: *const rd::rd_kafka_topic_partition_list_t,
    ) -> Code;
    pub(super) fn rd_kafka_assign(
        rk: *mut rd::rd_kafka_t,
        list: *const rd::rd_kafka_topic_partition_list_t,
    ) -> Code;
    pub(super) fn rd_kafka_pause_partitions(
        rk: *mut rd::rd_kafka_t,
        list: *mut rd::rd_kafka_topic_partition_list_t,
    ) -> Code;
    pub(super) fn rd_kafka_resume_partitions(
        rk: *mut rd::rd_kafka_t,
        list: *mut rd::rd_kafka_topic_partition_list_t,
    ) -> Code;
    pub(super) fn rd_kafka_committed(
        rk: *mut rd::rd_kafka_t,
        list: *mut rd::rd_kafka_topic_partition_list_t,
        timeout_ms: c_int,
    ) -> Code;
    pub(super) fn rd_kafka_query_watermark_offsets(
        rk: *mut rd::rd_kafka_t,
        topic: *const c_char,
        partition: i32,
        low: *mut i64,
        high: *mut i64,
        timeout_ms: c_int,
    ) -> Code;
    pub(super) fn rd_kafka_message_headers(
        message: *const rd::rd_kafka_message_t,
        headers: *mut *mut rd::rd_kafka_headers_t,
    ) -> Code;
    pub(super) fn rd_kafka_header_get_all(
        headers: *const rd::rd_kafka_headers_t,
        index: usize,
        name: *mut *const c_char,
        value: *mut *const c_void,
        size: *mut usize,
    ) -> Code;
}

/// A text of librdkafka's; null is empty.
pub(super) unsafe fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: librdkafka's texts end with NUL and live at least as long as the call.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// A name for C. Names with NUL are no names of Kafka's; they are cut there, and then not found.
pub(super) fn c_name(name: &str) -> CString {
    let end = name.bytes().position(|byte| byte == 0);
    CString::new(&name[..end.unwrap_or(name.len())]).expect("cut before the first NUL")
}

/// Whole milliseconds, never less than asked for.
pub(super) fn milliseconds(timeout: Duration) -> c_int {
    let rounded_up = timeout.as_nanos().div_ceil(1_000_000);
    c_int::try_from(rounded_up).unwrap_or(c_int::MAX)
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
}
