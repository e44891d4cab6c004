//! What the coordinator answers, and what follows from it.

use super::{Membership, Phase, Step};
use crate::client::consumer::{Io, Tag};
use crate::client::errors::{coordinator_moved, local_error};
use crate::fabric::actor::{Effects, Micros};
use crate::kafka::protocol::{ErrorCode, JoinError, JoinedGroup, PartitionId};
use processor::io::{ErrorClass, KafkaError, KafkaResult};

impl Membership {
    fn stay_in_session(&mut self, io: &Io<'_>) {
        let session_ms = u64::from(io.settings.session_timeout_ms);
        self.session_ends_at = io.now.plus_ms(session_ms);
    }

    /// Takes the answer to JoinGroup.
    ///
    /// # Errors
    /// When the group uses another protocol.
    pub(crate) fn joined(
        &mut self,
        io: &mut Io<'_>,
        attempt: u64,
        result: Result<JoinedGroup, JoinError>,
    ) -> KafkaResult<()> {
        if attempt != self.attempt || !matches!(self.phase, Phase::Joining) {
            return Ok(());
        }
        match result {
            Ok(joined) => {
                self.member_id = joined.member_id.clone();
                self.generation = joined.generation;
                self.stay_in_session(io);
                if joined.leader == joined.member_id {
                    self.phase = Phase::Assigning(joined);
                } else {
                    self.sync(io, Vec::new());
                    if !matches!(self.phase, Phase::Syncing) {
                        self.out(io.now);
                    }
                }
            }
            Err(error) => self.join_failed(io, error)?,
        }
        Ok(())
    }

    fn join_failed(&mut self, io: &mut Io<'_>, error: JoinError) -> KafkaResult<()> {
        match error.code {
            ErrorCode::MemberIdRequired => {
                self.member_id = error.member_id.unwrap_or_else(|| "".into());
                self.out(io.now);
            }
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => {
                self.rejected(io, error.code);
            }
            ErrorCode::IllegalGeneration => self.rejected(io, error.code),
            ErrorCode::InconsistentGroupProtocol => {
                self.out(Micros::MAX);
                return Err(inconsistent(&self.group));
            }
            code => self.again(io, code),
        }
        Ok(())
    }

    /// The coordinator does not know this member, or not in this generation.
    fn rejected(&mut self, io: &mut Io<'_>, code: ErrorCode) {
        let forget_id = code != ErrorCode::IllegalGeneration;
        if self.owned.is_empty() && self.step == Step::None {
            if forget_id {
                self.member_id = "".into();
            }
            self.generation = -1;
            let retry_at = self.backoff(io);
            self.out(retry_at);
        } else {
            self.lose(io.now, forget_id, &code.name(), io.fx);
        }
    }

    /// Join or sync has to be tried again.
    fn again(&mut self, io: &mut Io<'_>, code: ErrorCode) {
        if coordinator_moved(code) {
            io.coordinator.forget();
        }
        let retry_at = self.backoff(io);
        self.out(retry_at);
    }

    /// Takes the answer to SyncGroup.
    pub(crate) fn synced(
        &mut self,
        io: &mut Io<'_>,
        attempt: u64,
        result: Result<Vec<PartitionId>, ErrorCode>,
    ) {
        if attempt != self.attempt || !matches!(self.phase, Phase::Syncing) {
            return;
        }
        match result {
            Ok(assigned) => {
                self.phase = Phase::Stable;
                self.stay_in_session(io);
                let interval_ms = u64::from(io.settings.heartbeat_interval_ms);
                self.heartbeat_at = io.now.plus_ms(interval_ms);
                self.owned_generation = self.generation;
                self.take_assignment(assigned, io.fx);
            }
            Err(ErrorCode::RebalanceInProgress) => self.out(io.now),
            Err(
                code @ (ErrorCode::UnknownMemberId
                | ErrorCode::FencedInstanceId
                | ErrorCode::IllegalGeneration),
            ) => self.rejected(io, code),
            Err(code) => self.again(io, code),
        }
    }

    fn take_assignment(&mut self, assigned: Vec<PartitionId>, fx: &mut Effects) {
        let taken: Vec<PartitionId> = self
            .owned
            .iter()
            .copied()
            .filter(|partition| !assigned.contains(partition))
            .collect();
        let mut added = assigned;
        added.retain(|partition| !self.owned.contains(partition));
        added.sort_unstable();
        self.delivered = false;
        if !taken.is_empty() {
            // KIP-429: what is taken away is given up first, and the member joins again so that
            // its new owner can get it.
            self.step = Step::Revoke(taken);
            self.assign_after_revoke = added;
            self.rejoin_after_step = true;
        } else if !added.is_empty() {
            self.step = Step::Assign(added);
        }
        fx.notify();
    }

    /// Takes the answer to a heartbeat.
    pub(crate) fn heartbeat_answered(
        &mut self,
        io: &mut Io<'_>,
        attempt: u64,
        result: Result<(), ErrorCode>,
    ) {
        if attempt != self.attempt || !matches!(self.phase, Phase::Stable) {
            return;
        }
        self.heartbeat_in_flight = false;
        match result {
            Ok(()) => self.stay_in_session(io),
            Err(ErrorCode::RebalanceInProgress) => {
                self.stay_in_session(io);
                self.rebalance(io.now, io.fx);
            }
            Err(
                code @ (ErrorCode::UnknownMemberId
                | ErrorCode::FencedInstanceId
                | ErrorCode::IllegalGeneration),
            ) => self.rejected(io, code),
            Err(code) => {
                if coordinator_moved(code) {
                    io.coordinator.forget();
                }
                self.heartbeat_at = self.backoff(io);
            }
        }
    }

    /// A request to the coordinator was not answered.
    pub(crate) fn failed(&mut self, io: &mut Io<'_>, tag: &Tag) {
        io.coordinator.forget();
        match tag {
            Tag::JoinGroup(attempt) | Tag::SyncGroup(attempt) if *attempt == self.attempt => {
                self.out(io.now);
            }
            Tag::Heartbeat(attempt) if *attempt == self.attempt => {
                self.heartbeat_in_flight = false;
                self.heartbeat_at = io.now;
            }
            _ => {}
        }
    }
}

fn inconsistent(group: &str) -> KafkaError {
    local_error(
        "poll",
        &format!("INCONSISTENT_GROUP_PROTOCOL: all members of {group} must use one strategy"),
        ErrorClass::Fatal,
    )
}
