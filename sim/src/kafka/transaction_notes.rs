//! What the trace is told of transactions.

use super::broker::Broker;
use super::internal::TxnState;
use super::protocol::ErrorCode;
use super::transactions::{Claim, Txn};
use crate::fabric::actor::Effects;

impl Broker {
    /// A transaction that cannot begin, because the last one has not ended. (One that is just beginning
    /// makes its second request wait, too.)
    pub(super) fn note_waiting(
        &self,
        claim: &Claim,
        result: Result<Option<()>, ErrorCode>,
        fx: &mut Effects,
    ) {
        let begins = |txn: &Txn| txn.pending == Some(TxnState::Ongoing);
        if result == Err(ErrorCode::ConcurrentTransactions)
            && !self.known(claim).is_some_and(begins)
        {
            fx.note("txn-waits-for-markers", &claim.id);
        }
    }

    fn known(&self, claim: &Claim) -> Option<&Txn> {
        let partition = self.layout.transaction_partition(&claim.id).partition;
        let shard = self.transactions.get(&partition)?;
        shard.ids.get(&claim.id)
    }

    /// An EndTxn that ends nothing: one that came twice, or after its epoch.
    pub(super) fn note_stray_end(
        &self,
        claim: &Claim,
        result: Result<Option<()>, ErrorCode>,
        fx: &mut Effects,
    ) {
        let Some(Txn { record, .. }) = self.known(claim) else {
            return;
        };
        let kind = match result {
            Ok(Some(())) => "end-txn-repeated",
            Err(ErrorCode::InvalidProducerEpoch) if record.state == TxnState::Ongoing => {
                "end-txn-fenced-in-transaction"
            }
            Err(ErrorCode::InvalidProducerEpoch) => "end-txn-fenced",
            _ => return,
        };
        let (now, its) = (record.producer_epoch, claim.epoch);
        fx.note(kind, format_args!("{} epoch {its}, now {now}", claim.id));
    }
}

/// `begins`: it was not open before.
pub(super) fn note_state(txn: &Txn, begins: bool, fx: &mut Effects) {
    let kind = match txn.record.state {
        TxnState::Ongoing if begins => "txn-ongoing",
        TxnState::PrepareCommit => "txn-prepare-commit",
        TxnState::PrepareAbort => "txn-prepare-abort",
        TxnState::CompleteCommit => "txn-complete-commit",
        TxnState::CompleteAbort => "txn-complete-abort",
        _ => return,
    };
    fx.note(kind, &txn.record.transactional_id);
}
