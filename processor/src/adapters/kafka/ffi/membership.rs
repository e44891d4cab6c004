//! A member's identity.

use super::client::Client;
use super::error::RdError;
use rdkafka::bindings as rd;
use std::ptr::{self, NonNull};

/// How `rd_kafka_consumer_group_metadata_write` begins; the generation follows, in native byte order.
const MEMBERSHIP_MAGIC: &[u8] = b"CGMDv2:";

/// A member's identity in its group at a generation.
pub(in crate::adapters::kafka) struct Membership {
    pub(super) metadata: NonNull<rd::rd_kafka_consumer_group_metadata_t>,
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

impl Client {
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_member_of_nothing_has_no_identity() {
        let properties = [("group.id".to_owned(), "g".to_owned())];
        let pairs = properties.iter().map(|(name, value)| (name, value));
        let client = Client::consumer(pairs).unwrap();
        assert!(client.membership().is_none());
    }
}
