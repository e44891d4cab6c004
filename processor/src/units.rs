//! The quantities of this field as types, so that an offset is never added to a timestamp.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

quantity!(
    /// Number of a partition inside its topic, from 0.
    PartitionId(i32)
);

quantity!(
    /// Position of a record in a partition's log. A *position* or a *committed* offset is the
    /// offset of the next record to read.
    Offset(i64)
);

quantity!(
    /// When an event happened, as the event itself says: Unix milliseconds.
    EventTimeMs(i64)
);

quantity!(
    /// The timestamp that Kafka stored with a record: Unix milliseconds. It is the only "now" that
    /// the core knows.
    LogTimeMs(i64)
);

quantity!(
    /// Event time up to which a partition is taken as complete: a window ends, and is emitted, when
    /// its end is ≤ the watermark. Unix milliseconds.
    Watermark(i64)
);

impl Watermark {
    /// Before any event: no window has ended.
    pub const NONE: Watermark = Watermark(i64::MIN);
}

impl Offset {
    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> Offset {
        Offset(self.0 + 1)
    }
}
