//! Transactions, protocol version 1: registering partitions and offsets, and ending.
//!
//! `commit` and `abort` go on in the background when their call times out, as in librdkafka: the
//! call's error is retriable, and the same call made again picks up the result.
//!
//! Comes in: calls of the application, answers of coordinators. Goes out: their requests.
//! Never here: batches (the room above).

mod ending;
mod offsets;

use super::{ProducerActor, Tag};
use crate::client::errors::{coordinator_moved, later, local_error};
use crate::client::requests::Connection;
use crate::fabric::actor::{Effects, Micros};
use crate::kafka::protocol::{ErrorCode, Request, TopicPartition};
use offsets::OffsetsCall;
use processor::io::{ErrorClass, KafkaError, KafkaResult};
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
    /// A request of a transaction was not answered: a copy of it may still be under way.
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

    /// When something here becomes due after `now`. What is due by now was tried just now, and waits
    /// for something else than time.
    pub(super) fn due(&self, now: Micros) -> Micros {
        let offsets = self.offsets.as_ref().map_or(Micros::MAX, OffsetsCall::due);
        let ending = self.is_ending() || self.is_aborting();
        let end = if ending && !self.end.in_flight {
            self.end.at
        } else {
            Micros::MAX
        };
        [self.register_at(), offsets, end]
            .into_iter()
            .filter(|at| *at > now)
            .min()
            .unwrap_or(Micros::MAX)
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
            &format!(
                "_STATE: needs a transaction that is {wanted}, not {:?}",
                self.phase
            ),
            ErrorClass::Fatal,
        )
    }
}

impl ProducerActor {
    /// True from the moment when a request of a transaction was not answered in time.
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
        let partitions: Vec<_> = std::mem::take(&mut self.txn.to_register)
            .into_iter()
            .collect();
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
        self.txn.tainted = true;
        self.register_again(now, &partitions);
    }

    fn transaction_failed(&mut self, code: ErrorCode, bump: bool, fx: &mut Effects) {
        fx.note("transaction-failed", code.name());
        self.fail(&code.name(), bump);
        fx.notify();
    }

    /// The error of a call that has to be made again.
    pub(super) fn timed_out(&self, call: &'static str) -> KafkaError {
        local_error(call, "_TIMED_OUT", ErrorClass::Retriable)
    }
}
