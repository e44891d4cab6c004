//! Lists of partitions.

use super::declared::{Code, c_name, text_of};
use super::error::{RdError, check};
use rdkafka::bindings as rd;
use std::ptr::{self, NonNull};

/// A list of partitions of topics, with offsets and metadata.
pub(in crate::adapters::kafka) struct List(NonNull<rd::rd_kafka_topic_partition_list_t>);

// SAFETY: the list is this value's alone.
unsafe impl Send for List {}

/// One entry of a [`List`], copied out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::adapters::kafka) struct Entry {
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

    pub(super) fn ptr(&self) -> *mut rd::rd_kafka_topic_partition_list_t {
        self.0.as_ptr()
    }

    pub fn entries(&self) -> Vec<Entry> {
        // SAFETY: the list is alive.
        unsafe { entries_of(self.0.as_ptr()) }
    }
}

pub(super) unsafe fn entries_of(list: *const rd::rd_kafka_topic_partition_list_t) -> Vec<Entry> {
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

pub(super) fn first_error(list: &List) -> Result<(), RdError> {
    let failed = list.entries().into_iter().find_map(|entry| entry.error);
    failed.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
