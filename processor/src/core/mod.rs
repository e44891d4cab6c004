//! The pure core: what one partition of the input topic does with one record.
//!
//! Comes in: records in offset order, and forced watermark advances. Goes out: window results and
//! dead letters with gap-free sequence numbers, a digest of everything that went in and out, and
//! the state as bytes.
//! Never here: a clock, randomness, hash order, floats, I/O. The same log prefix (and the same
//! forced advances at the same offsets) always gives the same outputs, byte for byte.

mod dead_letter;
pub mod decimal;
pub mod decode;
mod digest;
mod dump;
mod id_set;
mod ledger;
mod pieces;
mod result;
mod rules;
mod sealed;
mod snapshot;
mod storage;
mod task;
mod window;

pub use dead_letter::{ErrorType, Stage};
pub use digest::Digest;
pub use dump::DumpedWindow;
pub use ledger::{Counters, Destination, ForcedAdvance, OutputRecord};
pub use rules::{
    CoreConfig, CoreRules, Fingerprint, Identity, RulesError, Ticker, TickerReference,
};
pub use snapshot::{SnapshotError, StateChanges, snapshot_fingerprint, snapshot_heads};
pub use task::{InputRecord, PartitionTask, Progress};

/// Length of every window, milliseconds.
pub const WINDOW_MS: i64 = 60_000;

/// Raised whenever the same log would give other outputs than before; part of the fingerprint.
pub const CORE_VERSION: u32 = 1;

/// Events later than this (the end of the year 9999) are in the future whatever the record says,
/// so that no arithmetic on event times can overflow. Unix milliseconds.
pub const MAX_TIMESTAMP_MS: i64 = 253_402_300_799_999;

/// So many events of one (ticker, window) are within the exact sums' range for every allowed
/// configuration: `max_price` (in units of 1e-8) × `max_volume` × this fits an `i128`.
pub const MAX_EVENTS_PER_WINDOW: i128 = 1_000_000_000;
