//! The parts of a consumer group: its members, its state, and what it decides.

use super::coordinator::Asker;
use super::internal::InternalRecord;
use super::protocol::{PartitionId, RebalanceProtocol, Response, Subscription};
use crate::fabric::actor::Micros;

/// What a group decided.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) replies: Vec<(Asker, Response)>,
    pub(super) notes: Vec<(&'static str, String)>,
    pub(super) store: Option<Store>,
}

/// What is to be stored in the log.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) record: InternalRecord,
    /// Whose assignment takes effect once it is stored.
    pub(super) generation: Option<i32>,
}

/// Where a group is in its rebalance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

/// A member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) session_ms: u32,
    pub(super) rebalance_ms: u32,
    pub(super) protocol: RebalanceProtocol,
    pub(super) subscription: Subscription,
    pub(super) assignment: Vec<PartitionId>,
    pub(super) joining: Option<Asker>,
    pub(super) syncing: Option<Asker>,
    pub(super) expires_at: Micros,
}

impl Member {
    pub(super) fn waits(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some()
    }

    pub(super) fn alive_until(&mut self, now: Micros) {
        self.expires_at = now.plus_ms(u64::from(self.session_ms));
    }
}

/// The delay before the first rebalance of an empty group, so that members gather.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gathering {
    pub(super) delay_ms: u64,
    pub(super) remaining_ms: u64,
    pub(super) somebody_came: bool,
}
