//! Transactions, protocol version 1: registering partitions and offsets, and ending.
//!
//! `commit` and `abort` go on in the background when their call times out, as in librdkafka: the
//! call's error is retriable, and the same call made again picks up the result.

use super::{ProducerActor, Tag};
use crate::client::errors::{coordinator_moved, later, local_error};
use crate::client::group::GroupIdentity;
use crate::client::metadata::Coordinator;
use crate::client::requests::Connection;
use crate::fabric::actor::{Effects, Micros};
use crate::kafka::protocol::{
    CoordinatorKey, ErrorCode, OffsetCommit, Request, TopicPartition,
};
use processor::io::{ErrorClass, KafkaError, KafkaResult, OffsetAndMetadata};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Poll;

/// Partitions that are needed within so long are registered in one request, milliseconds.
const REGISTER_DELAY_MS: u64 = 1;

/// Backoff while the former transaction's markers are being written, milliseconds.
const CONCURRENT_BACKOFF_MS: u64 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// init_transactions was not called.
    #[default]
    New,
    Initializing,
    Ready,
    Open,
    Committing,
    Aborting,
    /// Aborting by a new epoch, which the sequence's gap needs anyway.
    Renewing,
    /// Ended, and the application does not know yet.
    Committed,
    Aborted,
}

#[derive(Debug)]
struct OffsetsCall {
    serial: u64,
    group: GroupIdentity,
    offsets: Vec<OffsetAndMetadata>,
    added: bool,
    in_flight: bool,
    at: Micros,
    result: Option<KafkaResult<()>>,
}

#[derive(Debug, Default)]
struct End {
    in_flight: bool,
    at: Micros,
    sent: bool,
    unanswered: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    phase: Phase,
    dead: Option<(String, ErrorClass)>,
    failed: Option<String>,
    bump: bool,
    registered: BTreeSet<TopicPartition>,
    registering: Vec<TopicPartition>,
    to_register: BTreeSet<TopicPartition>,
    register_at: Micros,
    /// The coordinator may know of this transaction.
    touched: bool,
    offsets: Option<OffsetsCall>,
    calls: u64,
    end: End,
    tainted: bool,
}

/// What an error of a transactional request means.
enum Verdict {
    Again,
    Moved,
    Abort { bump: bool },
    Die,
}

fn judge(code: ErrorCode) -> Verdict {
    match code {
        code if coordinator_moved(code) => Verdict::Moved,
        code if later(code) => Verdict::Again,
        ErrorCode::InvalidProducerEpoch
        | ErrorCode::ProducerFenced
        | ErrorCode::InvalidTxnState
        | ErrorCode::InvalidTransactionTimeout => Verdict::Die,
        ErrorCode::UnknownProducerId | ErrorCode::InvalidProducerIdMapping => {
            Verdict::Abort { bump: true }
        }
        _ => Verdict::Abort { bump: false },
    }
}

impl Transaction {
    pub(super) fn dead(&self) -> Option<&(String, ErrorClass)> {
        self.dead.as_ref()
    }

    pub(super) fn die(&mut self, code: String, class: ErrorClass) {
        self.dead.get_or_insert((code, class));
    }

    pub(super) fn failed(&self) -> Option<&String> {
        self.failed.as_ref()
    }

    pub(super) fn fail(&mut self, code: &str, bump: bool) {
        self.bump |= bump;
        if !self.is_aborting() {
            self.failed.get_or_insert_with(|| code.to_string());
        }
        self.to_register.clear();
    }

    pub(super) fn need_bump(&mut self) {
        self.bump = true;
    }

    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Committing)
    }

    pub(super) fn is_aborting(&self) -> bool {
        matches!(self.phase, Phase::Aborting | Phase::Renewing)
    }

    pub(super) fn is_registered(&self, tp: TopicPartition) -> bool {
        self.registered.contains(&tp)
    }

    pub(super) fn need_partition(&mut self, now: Micros, tp: TopicPartition) {
        if self.registered.contains(&tp) || self.registering.contains(&tp) {
            return;
        }
        if self.to_register.is_empty() {
            self.register_at = now.plus_ms(REGISTER_DELAY_MS);
        }
        self.to_register.insert(tp);
    }

    /// When partitions have to be registered.
    pub(super) fn register_at(&self) -> Micros {
        if self.to_register.is_empty() || !self.registering.is_empty() {
            Micros::MAX
        } else {
            self.register_at
        }
    }

    pub(super) fn due(&self) -> Micros {
        let offsets = self.offsets.as_ref().map_or(Micros::MAX, |call| {
            if call.in_flight || call.result.is_some() {
                Micros::MAX
            } else {
                call.at
            }
        });
        let ending = self.is_ending() || self.is_aborting();
        let end = if ending && !self.end.in_flight {
            self.end.at
        } else {
            Micros::MAX
        };
        self.register_at().min(offsets).min(end)
    }

    fn complete(&mut self) {
        self.phase = if self.phase == Phase::Committing {
            Phase::Committed
        } else {
            Phase::Aborted
        };
        self.failed = None;
        self.bump = false;
        self.registered.clear();
        self.to_register.clear();
        self.touched = false;
        self.offsets = None;
        self.end = End::default();
    }

    fn state(&self, call: &'static str, wanted: &str) -> KafkaError {
        local_error(
            call,
            &format!("_STATE: needs a transaction that is {wanted}, not {:?}", self.phase),
            ErrorClass::Fatal,
        )
    }
}

impl ProducerActor {
    /// True from the moment when an EndTxn was not answered in time.
    #[must_use]
    pub fn is_tainted(&self) -> bool {
        self.txn.tainted
    }

    /// Fails when the producer is dead or, with `RequiresAbort`, its transaction has failed.
    pub(super) fn check(&self, call: &'static str) -> KafkaResult<()> {
        if let Some((code, class)) = self.txn.dead() {
            return Err(local_error(call, code, *class));
        }
        match self.txn.failed() {
            Some(code) => Err(local_error(call, code, ErrorClass::RequiresAbort)),
            None => Ok(()),
        }
    }

    /// Fails unless a transaction is open and well.
    pub(super) fn check_open(&self, call: &'static str) -> KafkaResult<()> {
        self.check(call)?;
        if self.txn.phase == Phase::Open {
            Ok(())
        } else {
            Err(self.txn.state(call, "open"))
        }
    }

    /// One look of a waiting `init_transactions`.
    pub(super) fn poll_init(&mut self, now: Micros, fx: &mut Effects) -> Poll<KafkaResult<()>> {
        if let Err(error) = self.check("init_transactions") {
            return Poll::Ready(Err(error));
        }
        match self.txn.phase {
            Phase::New => {
                self.txn.phase = Phase::Initializing;
                self.identity.want(now);
                self.metadata.want(now);
                self.advance(now, fx);
                Poll::Pending
            }
            Phase::Initializing if self.identity.get().is_some() => {
                self.txn.phase = Phase::Ready;
                Poll::Ready(Ok(()))
            }
            Phase::Initializing => Poll::Pending,
            _ => Poll::Ready(Err(self.txn.state("init_transactions", "not initialized"))),
        }
    }

    /// See [`processor::io::TransactionalProducer::begin_transaction`].
    pub(super) fn begin(&mut self) -> KafkaResult<()> {
        self.check("begin_transaction")?;
        if self.txn.phase != Phase::Ready {
            return Err(self.txn.state("begin_transaction", "ready"));
        }
        self.txn.phase = Phase::Open;
        Ok(())
    }

    /// Sends AddPartitionsToTxn when it is due.
    pub(super) fn register_partitions(&mut self, now: Micros, fx: &mut Effects) {
        if self.txn.register_at() > now {
            return;
        }
        let (Some((producer_id, producer_epoch)), Some(broker)) =
            (self.identity.get(), self.coordinator.broker())
        else {
            return;
        };
        let partitions: Vec<_> = std::mem::take(&mut self.txn.to_register).into_iter().collect();
        self.txn.registering.clone_from(&partitions);
        self.txn.touched = true;
        let request = Request::AddPartitionsToTxn {
            transactional_id: self.id(),
            producer_id,
            producer_epoch,
            partitions: partitions.clone(),
        };
        let target = (broker, Connection::Coordinator);
        self.send(now, target, request, Tag::AddPartitions(partitions), fx);
    }

    fn id(&self) -> Arc<str> {
        let id = self.transactional_id.clone();
        id.expect("only a transactional producer has transactions")
    }

    fn retry_at(&self, now: Micros, code: ErrorCode) -> Micros {
        if code == ErrorCode::ConcurrentTransactions {
            now.plus_ms(CONCURRENT_BACKOFF_MS)
        } else {
            self.backoff(now)
        }
    }

    /// Takes the answer to AddPartitionsToTxn.
    pub(super) fn partitions_added(
        &mut self,
        now: Micros,
        partitions: &[TopicPartition],
        result: Result<(), ErrorCode>,
        fx: &mut Effects,
    ) {
        self.txn.registering.clear();
        let Err(code) = result else {
            self.txn.registered.extend(partitions);
            return;
        };
        let at = self.retry_at(now, code);
        match judge(code) {
            Verdict::Again => self.register_again(at, partitions),
            Verdict::Moved => {
                self.coordinator.forget();
                self.register_again(at, partitions);
            }
            Verdict::Abort { bump } => self.transaction_failed(code, bump, fx),
            Verdict::Die => self.die(code, fx),
        }
    }

    fn register_again(&mut self, at: Micros, partitions: &[TopicPartition]) {
        if self.txn.failed.is_none() && !self.txn.is_aborting() {
            self.txn.to_register.extend(partitions);
            self.txn.register_at = at;
        }
    }

    /// AddPartitionsToTxn was not answered.
    pub(super) fn partitions_unanswered(&mut self, now: Micros, partitions: Vec<TopicPartition>) {
        self.txn.registering.clear();
        self.coordinator.forget();
        self.register_again(now, &partitions);
    }

    fn transaction_failed(&mut self, code: ErrorCode, bump: bool, fx: &mut Effects) {
        fx.note("transaction-failed", code.name());
        self.fail(&code.name(), bump);
        fx.notify();
    }

    /// Starts `send_offsets_to_transaction`.
    pub(super) fn start_offsets(
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
    pub(super) fn poll_offsets(&mut self) -> Poll<KafkaResult<()>> {
        if let Err(error) = self.check("send_offsets_to_transaction") {
            self.txn.offsets = None;
            return Poll::Ready(Err(error));
        }
        let result = self.txn.offsets.as_mut().and_then(|call| call.result.take());
        match result {
            Some(result) => {
                self.txn.offsets = None;
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    }

    /// The call timed out: what is under way is not waited for.
    pub(super) fn give_up_offsets(&mut self) {
        self.txn.offsets = None;
    }

    /// Sends AddOffsetsToTxn or TxnOffsetCommit when it is due.
    pub(super) fn advance_offsets(&mut self, now: Micros, fx: &mut Effects) {
        let Some((producer_id, producer_epoch)) = self.identity.get() else {
            return;
        };
        let Some(call) = &self.txn.offsets else {
            return;
        };
        if call.in_flight || call.result.is_some() || call.at > now || self.txn.failed.is_some() {
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
            let Some(topic) = self.metadata.topic(&call.group.topic) else {
                return self.metadata.want(now);
            };
            let offsets = call.offsets.iter().map(|offset| OffsetCommit {
                tp: TopicPartition {
                    topic: topic.topic,
                    partition: offset.partition,
                },
                offset: offset.offset,
                metadata: offset.metadata.as_str().into(),
            });
            let request = Request::TxnOffsetCommit {
                transactional_id: self.id(),
                group: call.group.group.clone(),
                producer_id,
                producer_epoch,
                generation: call.group.generation,
                member_id: call.group.member_id.clone(),
                offsets: offsets.collect(),
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
    pub(super) fn offsets_added(
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
    pub(super) fn offsets_committed(
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
    pub(super) fn offsets_unanswered(&mut self, now: Micros, serial: u64, by_group: bool) {
        if !by_group {
            self.coordinator.forget();
        } else if let Some(coordinator) = &mut self.group_coordinator {
            coordinator.forget();
        }
        if let Some(call) = self.offsets_call(serial) {
            call.at = now;
        }
    }

    /// One look of a waiting `commit_transaction`.
    pub(super) fn poll_commit(&mut self, now: Micros, fx: &mut Effects) -> Poll<KafkaResult<()>> {
        if let Err(error) = self.check("commit_transaction") {
            if self.txn.phase == Phase::Committing {
                self.txn.phase = Phase::Open; // to be aborted
            }
            return Poll::Ready(Err(error));
        }
        match self.txn.phase {
            Phase::Open => {
                self.txn.phase = Phase::Committing;
                self.txn.end = End::default();
                self.txn.register_at = now;
                self.advance(now, fx);
                self.finish_end(Phase::Committed)
            }
            Phase::Committing | Phase::Committed => self.finish_end(Phase::Committed),
            _ => Poll::Ready(Err(self.txn.state("commit_transaction", "open"))),
        }
    }

    fn finish_end(&mut self, ended: Phase) -> Poll<KafkaResult<()>> {
        if self.txn.phase == ended {
            self.txn.phase = Phase::Ready;
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// One look of a waiting `abort_transaction`.
    pub(super) fn poll_abort(&mut self, now: Micros, fx: &mut Effects) -> Poll<KafkaResult<()>> {
        if let Some((code, class)) = self.txn.dead() {
            return Poll::Ready(Err(local_error("abort_transaction", code, *class)));
        }
        match self.txn.phase {
            Phase::Committing if self.txn.end.sent => {
                Poll::Ready(Err(self.txn.state("abort_transaction", "not committing")))
            }
            Phase::Open | Phase::Committing => {
                self.txn.phase = Phase::Aborting;
                self.txn.failed = None;
                self.txn.to_register.clear();
                self.txn.offsets = None;
                self.txn.end = End::default();
                self.purge();
                self.advance(now, fx);
                self.finish_end(Phase::Aborted)
            }
            Phase::Aborting | Phase::Renewing | Phase::Aborted => self.finish_end(Phase::Aborted),
            _ => Poll::Ready(Err(self.txn.state("abort_transaction", "open"))),
        }
    }

    /// Ends the transaction when everything before that is done.
    pub(super) fn advance_end(&mut self, now: Micros, fx: &mut Effects) {
        let ready = match self.txn.phase {
            Phase::Committing => {
                self.txn.failed.is_none()
                    && self.outstanding == 0
                    && self.txn.to_register.is_empty()
            }
            Phase::Aborting => self.outstanding == 0,
            Phase::Renewing => {
                if self.identity.get().is_some() {
                    self.txn.complete();
                    fx.notify();
                }
                return;
            }
            _ => return,
        };
        if !ready || self.txn.end.in_flight || self.txn.end.at > now || self.registers() {
            return;
        }
        if self.txn.phase == Phase::Aborting && self.txn.bump {
            self.txn.phase = Phase::Renewing;
            fx.note("producer-epoch-bumped", self.id());
            self.identity.renew();
            return self.obtain_identity(now, fx);
        }
        if !self.txn.touched {
            self.txn.complete();
            return fx.notify();
        }
        self.send_end(now, fx);
    }

    /// True while the coordinator may still be adding something to the transaction.
    fn registers(&self) -> bool {
        self.requests.any(|tag| {
            matches!(
                tag,
                Tag::AddPartitions(_) | Tag::AddOffsets(_) | Tag::CommitOffsets(_)
            )
        })
    }

    fn send_end(&mut self, now: Micros, fx: &mut Effects) {
        let (Some((producer_id, producer_epoch)), Some(broker)) =
            (self.identity.get(), self.coordinator.broker())
        else {
            return;
        };
        let commit = self.txn.phase == Phase::Committing;
        if self.txn.end.unanswered > 0 {
            fx.note(
                "end-txn-resent",
                format_args!("{} commit={commit} epoch {producer_epoch}", self.id()),
            );
        }
        self.txn.end.in_flight = true;
        self.txn.end.sent = true;
        let request = Request::EndTxn {
            transactional_id: self.id(),
            producer_id,
            producer_epoch,
            commit,
        };
        let target = (broker, Connection::Coordinator);
        self.send(now, target, request, Tag::EndTxn, fx);
    }

    /// Takes the answer to EndTxn.
    pub(super) fn ended(
        &mut self,
        now: Micros,
        result: Result<(), ErrorCode>,
        fx: &mut Effects,
    ) {
        self.txn.end.in_flight = false;
        let Err(code) = result else {
            self.txn.complete();
            return fx.notify();
        };
        self.txn.end.at = self.retry_at(now, code);
        match judge(code) {
            Verdict::Again => {}
            Verdict::Moved => self.coordinator.forget(),
            Verdict::Die => self.die(code, fx),
            Verdict::Abort { bump } if self.txn.phase == Phase::Committing => {
                self.txn.end.sent = false;
                self.transaction_failed(code, bump, fx);
            }
            Verdict::Abort { bump: true } => {
                self.txn.bump = true;
                self.txn.end.at = now;
            }
            Verdict::Abort { bump: false } => self.die(code, fx),
        }
    }

    /// EndTxn was not answered: it goes again until it is, and a duplicate of it may be under way.
    pub(super) fn end_unanswered(&mut self, now: Micros) {
        self.coordinator.forget();
        self.txn.tainted = true;
        self.txn.end.unanswered += 1;
        self.txn.end.in_flight = false;
        self.txn.end.at = now;
    }

    /// The error of a call that has to be made again.
    pub(super) fn timed_out(&self, call: &'static str) -> KafkaError {
        local_error(call, "_TIMED_OUT", ErrorClass::Retriable)
    }
}
