//! A client: how it begins, what it knows of itself, how it ends.

use super::declared::{
    ERROR_TEXT_BYTES, c_name, rd_kafka_conf_interceptor_add_on_new, rd_kafka_fatal_error, text_of,
};
use super::error::{RdError, check};
use super::interceptors::{INTERCEPTOR, Shared, on_log, on_new};
use bytes::BytesMut;
use rdkafka::bindings as rd;
use std::ffi::{c_char, c_int};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One step of the wait for the end of a membership.
const LEAVE_STEP: Duration = Duration::from_millis(50);
/// Longest wait of a drop for the end of a membership.
const DROP_LIMIT: Duration = Duration::from_secs(5);

/// A client of librdkafka.
pub(in crate::adapters::kafka) struct Client {
    pub(super) rk: NonNull<rd::rd_kafka_t>,
    /// The consumer's queue, of messages and events; null for a producer.
    pub(super) queue: *mut rd::rd_kafka_queue_t,
    shared: Arc<Shared>,
    /// A rebalance was handed out, and librdkafka waits for its answer.
    pub(super) rebalance_waits: AtomicBool,
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

    pub(super) fn rk(&self) -> *mut rd::rd_kafka_t {
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

    fn is_closed(&self) -> bool {
        // SAFETY: the client is alive.
        unsafe { rd::rd_kafka_consumer_closed(self.rk()) != 0 }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_property_is_refused_with_its_name() {
        let properties = [("no.such.thing".to_owned(), "1".to_owned())];
        let pairs = properties.iter().map(|(name, value)| (name, value));
        let error = Client::consumer(pairs).err().unwrap();
        assert!(error.contains("no.such.thing"), "{error}");
    }
}
