//! Calls of producers.

use super::client::Client;
use super::declared::{c_name, milliseconds};
use super::error::RdError;
use super::list::List;
use super::membership::Membership;
use rdkafka::bindings as rd;
use std::time::Duration;

impl Client {
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
