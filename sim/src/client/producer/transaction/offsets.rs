//! send_offsets_to_transaction: AddOffsetsToTxn, then TxnOffsetCommit to the group's coordinator.

use super::{Verdict, judge};
use crate::client::group::GroupIdentity;
use crate::client::metadata::Coordinator;
use crate::client::producer::{ProducerActor, Tag};
use crate::client::requests::Connection;
use crate::fabric::actor::{Effects, Micros};
use crate::kafka::protocol::{CoordinatorKey, ErrorCode, OffsetCommit, Request, TopicPartition};
use processor::io::{KafkaResult, OffsetAndMetadata};
use std::task::Poll;

/// The call under way.
#[derive(Debug)]
pub(super) struct OffsetsCall {
    serial: u64,
    group: GroupIdentity,
    offsets: Vec<OffsetAndMetadata>,
    added: bool,
    in_flight: bool,
    at: Micros,
    result: Option<KafkaResult<()>>,
}

impl OffsetsCall {
    /// When it wants to send something.
    pub(super) fn due(&self) -> Micros {
        if self.in_flight || self.result.is_some() {
            Micros::MAX
        } else {
            self.at
        }
    }
}

impl ProducerActor {
    /// Starts `send_offsets_to_transaction`.
    pub(in crate::client::producer) fn start_offsets(
        &mut self,
        now: Micros,
        offsets: &[OffsetAndMetadata],
        group: &GroupIdentity,
        fx: &mut Effects,
    ) -> KafkaResult<()> {
        self.check_open("send_offsets_to_transaction")?;
        self.txn.calls += 1;
        self.txn.offsets = Some(OffsetsCall {
            serial: self.txn.calls,
            group: group.clone(),
            offsets: offsets.to_vec(),
            added: false,
            in_flight: false,
            at: now,
            result: None,
        });
        let key = CoordinatorKey::Group(group.group.clone());
        if self.group_coordinator.as_ref().map(Coordinator::key) != Some(&key) {
            self.group_coordinator = Some(Coordinator::new(key, self.seed));
        }
        self.advance(now, fx);
        Ok(())
    }

    /// One look of a waiting `send_offsets_to_transaction`.
    pub(in crate::client::producer) fn poll_offsets(&mut self) -> Poll<KafkaResult<()>> {
        if let Err(error) = self.check("send_offsets_to_transaction") {
            self.txn.offsets = None;
            return Poll::Ready(Err(error));
        }
        let result = self
            .txn
            .offsets
            .as_mut()
            .and_then(|call| call.result.take());
        match result {
            Some(result) => {
                self.txn.offsets = None;
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    }

    /// The call timed out: what is under way is not waited for.
    pub(in crate::client::producer) fn give_up_offsets(&mut self) {
        self.txn.offsets = None;
    }

    /// Sends AddOffsetsToTxn or TxnOffsetCommit when it is due.
    pub(in crate::client::producer) fn advance_offsets(&mut self, now: Micros, fx: &mut Effects) {
        let Some((producer_id, producer_epoch)) = self.identity.get() else {
            return;
        };
        let Some(call) = &self.txn.offsets else {
            return;
        };
        if call.due() > now || self.txn.failed.is_some() {
            return;
        }
        let serial = call.serial;
        let sent = if call.added {
            let Some(coordinator) = &mut self.group_coordinator else {
                return;
            };
            let Some(broker) = coordinator.broker() else {
                return;
            };
            let offsets = call.offsets.iter().map(|offset| {
                let topic = self.metadata.topic(&offset.tp.topic)?.topic;
                let partition = offset.tp.partition;
                Some(OffsetCommit {
                    tp: TopicPartition { topic, partition },
                    offset: offset.offset,
                    metadata: offset.metadata.as_str().into(),
                })
            });
            let Some(offsets) = offsets.collect::<Option<Vec<_>>>() else {
                return self.metadata.want(now);
            };
            let request = Request::TxnOffsetCommit {
                transactional_id: self.id(),
                group: call.group.group.clone(),
                producer_id,
                producer_epoch,
                generation: call.group.generation,
                member_id: call.group.member_id.clone(),
                offsets,
            };
            let tag = Tag::CommitOffsets(serial);
            ((broker, Connection::Data), request, tag)
        } else {
            let Some(broker) = self.coordinator.broker() else {
                return;
            };
            let request = Request::AddOffsetsToTxn {
                transactional_id: self.id(),
                producer_id,
                producer_epoch,
                group: call.group.group.clone(),
            };
            let tag = Tag::AddOffsets(serial);
            ((broker, Connection::Coordinator), request, tag)
        };
        self.txn.touched = true;
        if let Some(call) = &mut self.txn.offsets {
            call.in_flight = true;
        }
        let (target, request, tag) = sent;
        self.send(now, target, request, tag, fx);
    }

    fn offsets_call(&mut self, serial: u64) -> Option<&mut OffsetsCall> {
        let call = self.txn.offsets.as_mut();
        let call = call.filter(|call| call.serial == serial)?;
        call.in_flight = false;
        Some(call)
    }

    /// Takes the answer to AddOffsetsToTxn.
    pub(in crate::client::producer) fn offsets_added(
        &mut self,
        now: Micros,
        serial: u64,
        result: Result<(), ErrorCode>,
        fx: &mut Effects,
    ) {
        match (result, self.offsets_call(serial)) {
            (Ok(()), Some(call)) => {
                call.added = true;
                call.at = now;
            }
            (Err(code), Some(_)) => self.offsets_refused(now, code, false, fx),
            (_, None) => {}
        }
    }

    /// Takes the answer to TxnOffsetCommit.
    pub(in crate::client::producer) fn offsets_committed(
        &mut self,
        now: Micros,
        serial: u64,
        result: Result<(), ErrorCode>,
        fx: &mut Effects,
    ) {
        match (result, self.offsets_call(serial)) {
            (Ok(()), Some(call)) => {
                call.result = Some(Ok(()));
                fx.notify();
            }
            (Err(code), Some(_)) => self.offsets_refused(now, code, true, fx),
            (_, None) => {}
        }
    }

    fn offsets_refused(&mut self, now: Micros, code: ErrorCode, by_group: bool, fx: &mut Effects) {
        let at = self.retry_at(now, code);
        match judge(code) {
            Verdict::Again => {}
            Verdict::Moved if by_group => {
                if let Some(coordinator) = &mut self.group_coordinator {
                    coordinator.forget();
                }
            }
            Verdict::Moved => self.coordinator.forget(),
            Verdict::Abort { bump } => return self.transaction_failed(code, bump, fx),
            Verdict::Die => return self.die(code, fx),
        }
        if let Some(call) = &mut self.txn.offsets {
            call.at = at;
        }
    }

    /// AddOffsetsToTxn or TxnOffsetCommit was not answered.
    pub(in crate::client::producer) fn offsets_unanswered(
        &mut self,
        now: Micros,
        serial: u64,
        by_group: bool,
    ) {
        // A copy of TxnOffsetCommit that arrives in the next transaction would move its offsets back.
        self.txn.tainted = true;
        if !by_group {
            self.coordinator.forget();
        } else if let Some(coordinator) = &mut self.group_coordinator {
            coordinator.forget();
        }
        if let Some(call) = self.offsets_call(serial) {
            call.at = now;
        }
    }
}
