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

mod client;
mod consumer;
mod declared;
mod error;
mod events;
mod interceptors;
mod list;
mod membership;
mod producer;

pub(super) use client::Client;
pub(super) use error::RdError;
pub(super) use events::{Event, RawRecord, Rebalance};
pub(super) use list::List;
pub(super) use membership::Membership;
