//! Sending batches, and what becomes of them.

use super::queue::{PartitionQueue, Sealing};
use super::{ProducerActor, Tag};
use crate::client::requests::Connection;
use crate::fabric::actor::{Effects, Micros};
use crate::kafka::protocol::{ErrorCode, Offset, Request, TopicPartition};
use crate::sabotage::Sabotage;

/// True of errors of Produce after which the same batch goes again, perhaps elsewhere.
fn retriable(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UnknownTopicOrPartition
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::RequestTimedOut
            | ErrorCode::BrokerNotAvailable
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::NotEnoughReplicasAfterAppend
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::ConcurrentTransactions
    )
}

impl ProducerActor {
    /// Sends every batch that may go.
    pub(super) fn send_queues(&mut self, now: Micros, fx: &mut Effects) {
        let Some(identity) = self.identity.get() else {
            return;
        };
        if self.outstanding == 0 || self.txn.failed().is_some() {
            return;
        }
        let flushing = self.flushing || self.txn.is_ending();
        let sealing = Sealing {
            identity,
            transactional: self.is_transactional(),
            max_records: self.settings.batch_max_records,
            max_bytes: self.settings.batch_max_bytes,
            linger: self.linger(flushing),
        };
        let mut ready = Vec::new();
        for (tp, queue) in &mut self.queues {
            if queue.is_empty() || (sealing.transactional && !self.txn.is_registered(*tp)) {
                continue;
            }
            let Some((leader, _)) = self.metadata.leader(*tp) else {
                self.metadata.want(now);
                continue;
            };
            while let Some(batch) = queue.next_to_send(now, leader, self.sends, &sealing) {
                ready.push((leader, *tp, self.sends, batch));
                self.sends += 1;
            }
        }
        for (leader, tp, serial, batch) in ready {
            let request = Request::Produce {
                batches: vec![(tp, batch)],
                timeout_ms: self.settings.request_timeout_ms,
            };
            let tag = Tag::Produce { tp, serial };
            self.send(now, (leader, Connection::Data), request, tag, fx);
        }
    }

    fn linger(&self, flushing: bool) -> Micros {
        if flushing {
            Micros(0)
        } else {
            Micros::from_ms(u64::from(self.settings.linger_ms))
        }
    }

    /// When a queue has something to do after `now`.
    pub(super) fn delivery_due(&self, now: Micros) -> Micros {
        if self.outstanding == 0 {
            return Micros::MAX;
        }
        let linger = self.linger(self.flushing || self.txn.is_ending());
        let queues = self.queues.values();
        let due = queues.map(|queue| queue.due(now, linger)).min();
        let oldest = self.oldest().map(|oldest| self.delivery_ends(oldest));
        due.into_iter()
            .chain(oldest.filter(|at| *at > now))
            .min()
            .unwrap_or(Micros::MAX)
    }

    fn oldest(&self) -> Option<Micros> {
        let unresolved = self.unresolved.front().map(|first| first.queued_at);
        let queued = self.queues.values().filter_map(PartitionQueue::oldest);
        queued.chain(unresolved).min()
    }

    fn delivery_ends(&self, oldest: Micros) -> Micros {
        if self.is_transactional() {
            oldest.plus_ms(u64::from(self.settings.transaction_timeout_ms))
        } else {
            Micros::MAX
        }
    }

    /// Fails the transaction when a record was on its way for too long.
    pub(super) fn check_delivery_timeout(&mut self, now: Micros, fx: &mut Effects) {
        if !self.is_transactional() || self.outstanding == 0 || self.txn.failed().is_some() {
            return;
        }
        if self
            .oldest()
            .is_some_and(|oldest| self.delivery_ends(oldest) <= now)
        {
            fx.note(
                "delivery-timeout",
                format_args!("{} records were on their way", self.outstanding),
            );
            self.send_failed("_MSG_TIMED_OUT", false);
            fx.notify();
        }
    }

    /// A record cannot be delivered, so its transaction must not commit.
    pub(super) fn send_failed(&mut self, code: &str, bump: bool) {
        match self.settings.breaks(Sabotage::SendErrorsSwallowed) {
            true => self.purge(),
            false => self.fail(code, bump),
        }
    }

    /// The transaction has to be aborted; what is not under way is dropped.
    pub(super) fn fail(&mut self, code: &str, bump: bool) {
        self.txn.fail(code, bump);
        self.purge();
    }

    /// Drops what is not under way.
    pub(super) fn purge(&mut self) {
        let mut gap = false;
        for queue in self.queues.values_mut() {
            gap |= queue.purge();
        }
        if gap {
            self.txn.need_bump();
        }
        self.unresolved.clear();
        self.outstanding = self.queues.values().map(PartitionQueue::records).sum();
    }

    fn finish(&mut self, tp: TopicPartition, position: usize, fx: &mut Effects) {
        let queue = self.queues.get_mut(&tp).expect("it has this batch");
        self.outstanding -= queue.done(position);
        if self.outstanding == 0 || self.sender_waits {
            fx.notify();
        }
    }

    /// Takes the answer to Produce.
    pub(super) fn produced(
        &mut self,
        now: Micros,
        tp: TopicPartition,
        serial: u64,
        result: Result<Offset, ErrorCode>,
        fx: &mut Effects,
    ) {
        let queue = self.queues.get(&tp);
        let Some(position) = queue.and_then(|queue| queue.position(serial)) else {
            return;
        };
        match result {
            Ok(_) | Err(ErrorCode::DuplicateSequenceNumber) => self.finish(tp, position, fx),
            Err(code) if retriable(code) => {
                self.metadata.want(now);
                self.send_again(tp, position, self.backoff(now), fx);
            }
            Err(code) if self.is_transactional() => self.refused(tp, position, code, fx),
            Err(code) => self.refused_plain(now, tp, position, code, fx),
        }
    }

    /// A batch goes again, unless its transaction has failed.
    fn send_again(&mut self, tp: TopicPartition, position: usize, at: Micros, fx: &mut Effects) {
        if self.txn.failed().is_some() || self.txn.is_aborting() {
            self.txn.need_bump();
            self.finish(tp, position, fx);
        } else if let Some(queue) = self.queues.get_mut(&tp) {
            queue.retry(position, at);
        }
    }

    /// A transactional batch was refused.
    fn refused(&mut self, tp: TopicPartition, position: usize, code: ErrorCode, fx: &mut Effects) {
        self.finish(tp, position, fx);
        if matches!(
            code,
            ErrorCode::InvalidProducerEpoch | ErrorCode::ProducerFenced
        ) {
            return self.die(code, fx);
        }
        fx.note(
            "transaction-failed",
            format_args!("{} from Produce", code.name()),
        );
        // The refused records leave a gap in the sequence: a new epoch starts it anew.
        self.send_failed(&code.name(), true);
        fx.notify();
    }

    /// A batch of the plain producer was refused; it never gives up.
    fn refused_plain(
        &mut self,
        now: Micros,
        tp: TopicPartition,
        position: usize,
        code: ErrorCode,
        fx: &mut Effects,
    ) {
        if code == ErrorCode::MessageTooLarge {
            fx.note("record-refused", format_args!("{tp:?}: {}", code.name()));
            self.finish(tp, position, fx);
            self.renew(code, fx);
            return;
        }
        let backoff = self.backoff(now);
        if let Some(queue) = self.queues.get_mut(&tp) {
            queue.retry(position, backoff);
        }
        // Behind a batch that failed, or overtook it: it only has to go again in order.
        if position == 0 || code != ErrorCode::OutOfOrderSequenceNumber {
            self.renew(code, fx);
        }
    }

    fn renew(&mut self, code: ErrorCode, fx: &mut Effects) {
        if self.identity.renew() {
            self.renewals += 1;
            fx.note("producer-id-renewed", code.name());
        }
    }

    /// Produce was not answered.
    pub(super) fn produce_unanswered(
        &mut self,
        now: Micros,
        tp: TopicPartition,
        serial: u64,
        fx: &mut Effects,
    ) {
        self.metadata.want(now);
        let queue = self.queues.get(&tp);
        if let Some(position) = queue.and_then(|queue| queue.position(serial)) {
            self.send_again(tp, position, self.backoff(now), fx);
        }
    }
}
