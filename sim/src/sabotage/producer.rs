//! A transactional producer that breaks a promise.

use super::{Sabotage, Saboteur};
use bytes::Bytes;
use processor::io::{
    ErrorClass, KafkaError, KafkaResult, OffsetAndMetadata, ProducerRecord, TransactionalProducer,
};
use std::time::Duration;

/// See [`Sabotage`].
pub struct SabotagedProducer<P> {
    inner: P,
    saboteur: Saboteur,
    /// An output that waits to be overtaken by the next.
    held: Option<ProducerRecord>,
    /// The outputs of this transaction are withheld.
    withhold: bool,
}

/// An hour, in milliseconds.
const BACK_MS: i64 = 3_600_000;

impl<P: TransactionalProducer> SabotagedProducer<P> {
    pub(super) fn new(inner: P, saboteur: Saboteur) -> Self {
        SabotagedProducer {
            inner,
            saboteur,
            held: None,
            withhold: false,
        }
    }

    async fn send_held(&mut self) -> KafkaResult<()> {
        match self.held.take() {
            Some(record) => self.inner.send(record).await,
            None => Ok(()),
        }
    }
}

fn turn_back(record: &mut ProducerRecord) {
    for header in &mut record.headers {
        if header.name == "watermark"
            && let Ok(watermark) = String::from_utf8_lossy(&header.value).parse::<i64>()
        {
            header.value = Bytes::from((watermark - BACK_MS).to_string());
        }
    }
}

impl<P: TransactionalProducer> TransactionalProducer for SabotagedProducer<P> {
    type GroupMetadata = P::GroupMetadata;

    async fn init_transactions(&mut self, timeout: Duration) -> KafkaResult<()> {
        self.inner.init_transactions(timeout).await
    }

    fn begin_transaction(&mut self) -> KafkaResult<()> {
        self.withhold = self.saboteur.strikes(Sabotage::OffsetsWithoutOutputs, 5);
        self.held = None;
        self.inner.begin_transaction()
    }

    async fn send(&mut self, mut record: ProducerRecord) -> KafkaResult<()> {
        if self.withhold {
            return Ok(());
        }
        if self.saboteur.strikes(Sabotage::WatermarkBack, 30) {
            turn_back(&mut record);
        }
        if self.saboteur.strikes(Sabotage::OutputsTwice, 30) {
            self.inner.send(record.clone()).await?;
        }
        if self.held.is_none() && self.saboteur.strikes(Sabotage::OutputsSwapped, 5) {
            self.held = Some(record);
            return Ok(());
        }
        self.inner.send(record).await?;
        self.send_held().await
    }

    async fn send_offsets_to_transaction(
        &mut self,
        offsets: &[OffsetAndMetadata],
        group: &Self::GroupMetadata,
        timeout: Duration,
    ) -> KafkaResult<()> {
        self.send_held().await?;
        self.inner
            .send_offsets_to_transaction(offsets, group, timeout)
            .await
    }

    async fn commit_transaction(&mut self, timeout: Duration) -> KafkaResult<()> {
        match self.inner.commit_transaction(timeout).await {
            Err(error)
                if error.class != ErrorClass::Retriable
                    && self.saboteur.is(Sabotage::CommitAssumed) => {}
            result => result?,
        }
        if self.saboteur.strikes(Sabotage::CommitsDisowned, 30) {
            self.withhold = true;
            return Err(KafkaError {
                call: "commit_transaction",
                code: "ILLEGAL_GENERATION".into(),
                class: ErrorClass::RequiresAbort,
            });
        }
        Ok(())
    }

    async fn abort_transaction(&mut self, timeout: Duration) -> KafkaResult<()> {
        if self.saboteur.is(Sabotage::CommitsDisowned) && self.withhold {
            self.withhold = false;
            return Ok(()); // there is nothing left to abort
        }
        self.inner.abort_transaction(timeout).await
    }

    fn is_tainted(&self) -> bool {
        self.inner.is_tainted() && !self.saboteur.is(Sabotage::TaintHidden)
    }
}
