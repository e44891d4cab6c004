//! Calls of consumers, and questions about topics.

use super::client::Client;
use super::declared::{
    ERROR_TEXT_BYTES, TIMED_OUT, UNKNOWN_TOPIC_OR_PARTITION, c_name, milliseconds, rd_kafka_assign,
    rd_kafka_committed, rd_kafka_error_code, rd_kafka_event_error, rd_kafka_pause_partitions,
    rd_kafka_query_watermark_offsets, rd_kafka_resume_partitions, rd_kafka_subscribe, text_of,
};
use super::error::{RdError, check};
use super::list::{List, first_error};
use rdkafka::bindings as rd;
use std::ffi::c_char;
use std::ptr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Partitions and id of a topic.
pub(in crate::adapters::kafka) struct TopicShape {
    pub id: Option<String>,
    pub partitions: usize,
}

impl Client {
    pub fn subscribe(&self, topic: &str) -> Result<(), RdError> {
        let list = List::of_partitions(topic, [(-1, 0)]);
        // SAFETY: the list lives through the call, which copies it.
        check(unsafe { rd_kafka_subscribe(self.rk(), list.ptr()) })
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
