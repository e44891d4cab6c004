//! Commit and abort.

use super::{End, Phase, Verdict, judge};
use crate::client::errors::local_error;
use crate::client::producer::{ProducerActor, Tag};
use crate::client::requests::Connection;
use crate::fabric::actor::{Effects, Micros};
use crate::kafka::protocol::{ErrorCode, Request};
use processor::io::KafkaResult;
use std::task::Poll;

impl ProducerActor {
    /// One look of a waiting `commit_transaction`.
    pub(in crate::client::producer) fn poll_commit(
        &mut self,
        now: Micros,
        fx: &mut Effects,
    ) -> Poll<KafkaResult<()>> {
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
    pub(in crate::client::producer) fn poll_abort(
        &mut self,
        now: Micros,
        fx: &mut Effects,
    ) -> Poll<KafkaResult<()>> {
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
    pub(in crate::client::producer) fn advance_end(&mut self, now: Micros, fx: &mut Effects) {
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
        if self.txn.phase == Phase::Aborting && self.txn.bump && !self.settings.keeps_epoch() {
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
    pub(in crate::client::producer) fn ended(
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
    pub(in crate::client::producer) fn end_unanswered(&mut self, now: Micros) {
        self.coordinator.forget();
        self.txn.tainted = true;
        self.txn.end.unanswered += 1;
        self.txn.end.in_flight = false;
        self.txn.end.at = now;
    }
}
