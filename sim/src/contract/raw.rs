//! A producer whose every request is chosen by the test.

use super::Failure;
use super::wire::{Identity, ROUND, ROUNDS_MAX, Wire, record, refused, unexpected};
use crate::kafka::protocol::{
    Batch, CoordinatorKey, ErrorCode, LogTimeMs, Offset, OffsetCommit, Payload, ProducerEpoch,
    ProducerId, ProducerStamp, Request, Response, TopicPartition,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A producer whose every request is chosen by the test (transaction protocol version 1).
#[derive(Debug, Clone)]
pub(super) struct RawProducer {
    pub(super) transactional_id: Option<Arc<str>>,
    pub(super) id: ProducerId,
    pub(super) epoch: ProducerEpoch,
    sequences: BTreeMap<TopicPartition, i32>,
    /// Of its records; that of the cluster's clock, if it says nothing.
    pub(super) timestamp: Option<LogTimeMs>,
}

impl RawProducer {
    /// An idempotent producer without transactions.
    pub(super) async fn plain<C: Wire + ?Sized>(c: &mut C) -> Result<RawProducer, Failure> {
        let request = Request::InitProducerId {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
        };
        let (id, epoch) = c
            .ask_any(request, |response| match response {
                Response::InitProducerId(given) => given.ok(),
                _ => None,
            })
            .await?;
        Ok(RawProducer {
            transactional_id: None,
            id,
            epoch,
            sequences: BTreeMap::new(),
            timestamp: None,
        })
    }

    /// InitProducerId with a transactional id.
    pub(super) async fn transactional<C: Wire + ?Sized>(
        c: &mut C,
        transactional_id: &str,
        timeout_ms: u32,
    ) -> Result<Result<RawProducer, ErrorCode>, Failure> {
        let name: Arc<str> = transactional_id.into();
        let request = Request::InitProducerId {
            transactional_id: Some(name.clone()),
            transaction_timeout_ms: timeout_ms,
        };
        let key = CoordinatorKey::Transaction(name.clone());
        match c.ask_coordinator(&key, request).await? {
            Response::InitProducerId(result) => Ok(result.map(|(id, epoch)| RawProducer {
                transactional_id: Some(name),
                id,
                epoch,
                sequences: BTreeMap::new(),
                timestamp: None,
            })),
            other => unexpected(&other),
        }
    }

    /// As [`RawProducer::transactional`], where nothing is in the way.
    pub(super) async fn open<C: Wire + ?Sized>(
        c: &mut C,
        transactional_id: &str,
    ) -> Result<RawProducer, Failure> {
        let opened = RawProducer::transactional(c, transactional_id, 60_000).await?;
        opened.map_err(refused("InitProducerId"))
    }

    fn name(&self) -> Arc<str> {
        self.transactional_id.clone().unwrap_or_else(|| "".into())
    }

    async fn ask<C: Wire + ?Sized>(
        &self,
        c: &mut C,
        request: Request,
    ) -> Result<Result<(), ErrorCode>, Failure> {
        let key = CoordinatorKey::Transaction(self.name());
        match c.ask_coordinator(&key, request).await? {
            Response::AddPartitionsToTxn(result)
            | Response::AddOffsetsToTxn(result)
            | Response::EndTxn(result) => Ok(result),
            other => unexpected(&other),
        }
    }

    /// AddPartitionsToTxn.
    pub(super) async fn add<C: Wire + ?Sized>(
        &self,
        c: &mut C,
        partitions: &[TopicPartition],
    ) -> Result<Result<(), ErrorCode>, Failure> {
        let request = Request::AddPartitionsToTxn {
            transactional_id: self.name(),
            producer_id: self.id,
            producer_epoch: self.epoch,
            partitions: partitions.to_vec(),
        };
        self.ask(c, request).await
    }

    /// AddOffsetsToTxn.
    pub(super) async fn add_offsets<C: Wire + ?Sized>(
        &self,
        c: &mut C,
        group: &str,
    ) -> Result<Result<(), ErrorCode>, Failure> {
        let request = Request::AddOffsetsToTxn {
            transactional_id: self.name(),
            producer_id: self.id,
            producer_epoch: self.epoch,
            group: group.into(),
        };
        self.ask(c, request).await
    }

    /// TxnOffsetCommit.
    pub(super) async fn commit_offsets<C: Wire + ?Sized>(
        &self,
        c: &mut C,
        group: &str,
        identity: &Identity,
        offsets: Vec<OffsetCommit>,
    ) -> Result<Result<(), ErrorCode>, Failure> {
        let request = Request::TxnOffsetCommit {
            transactional_id: self.name(),
            group: group.into(),
            producer_id: self.id,
            producer_epoch: self.epoch,
            generation: identity.generation,
            member_id: identity.member_id.clone(),
            offsets,
        };
        let key = CoordinatorKey::Group(group.into());
        match c.ask_coordinator(&key, request).await? {
            Response::TxnOffsetCommit(result) => Ok(result),
            other => unexpected(&other),
        }
    }

    /// AddOffsetsToTxn and TxnOffsetCommit in the name of nobody, as a producer outside of any group.
    pub(super) async fn offset<C: Wire + ?Sized>(
        &self,
        c: &mut C,
        group: &str,
        offset: OffsetCommit,
    ) -> Result<(), Failure> {
        let added = self.add_offsets(c, group).await?;
        added.map_err(refused("AddOffsetsToTxn"))?;
        let nobody = Identity::nobody();
        let committed = self.commit_offsets(c, group, &nobody, vec![offset]).await?;
        committed.map_err(refused("TxnOffsetCommit"))
    }

    /// EndTxn.
    pub(super) async fn end<C: Wire + ?Sized>(
        &self,
        c: &mut C,
        commit: bool,
    ) -> Result<Result<(), ErrorCode>, Failure> {
        let request = Request::EndTxn {
            transactional_id: self.name(),
            producer_id: self.id,
            producer_epoch: self.epoch,
            commit,
        };
        self.ask(c, request).await
    }

    /// EndTxn that must succeed; also waits until its markers are written.
    pub(super) async fn finish<C: Wire + ?Sized>(
        &self,
        c: &mut C,
        commit: bool,
    ) -> Result<(), Failure> {
        let ended = self.end(c, commit).await?;
        ended.map_err(refused("EndTxn"))?;
        // Asked again, EndTxn answers OK only when the transaction is complete.
        let ended = self.end(c, commit).await?;
        ended.map_err(refused("the second EndTxn"))
    }

    /// Produce with the next sequence of the partition, which moves on when the batch is taken.
    pub(super) async fn produce<C: Wire + ?Sized>(
        &mut self,
        c: &mut C,
        tp: TopicPartition,
        values: &[&str],
    ) -> Result<Result<i64, ErrorCode>, Failure> {
        let sequence = self.sequences.get(&tp).copied().unwrap_or(0);
        let result = self.produce_at(c, tp, sequence, values).await?;
        if result.is_ok() {
            let count = i32::try_from(values.len()).expect("behaviours send few records");
            self.sequences.insert(tp, sequence + count);
        }
        Ok(result)
    }

    /// Produce with a chosen sequence. A transactional batch is sent again while its transaction
    /// cannot be verified yet (NOT_ENOUGH_REPLICAS then, KIP-890).
    pub(super) async fn produce_at<C: Wire + ?Sized>(
        &self,
        c: &mut C,
        tp: TopicPartition,
        sequence: i32,
        values: &[&str],
    ) -> Result<Result<i64, ErrorCode>, Failure> {
        let request = Request::Produce {
            batches: vec![(tp, self.batch(c, sequence, values))],
            timeout_ms: 3_000,
        };
        for _ in 0..ROUNDS_MAX {
            let answer = c.ask_leader(tp, request.clone()).await?;
            let Response::Produce(results) = &answer else {
                return unexpected(&answer);
            };
            let Some((_, result)) = results.first() else {
                return unexpected(&answer);
            };
            let unverified =
                self.transactional_id.is_some() && *result == Err(ErrorCode::NotEnoughReplicas);
            if !unverified {
                return Ok(result.map(|offset| offset.0));
            }
            c.wait(ROUND).await;
        }
        Err(Failure("Produce was never verified".into()))
    }

    /// A batch of this producer.
    pub(super) fn batch<C: Wire + ?Sized>(&self, c: &C, sequence: i32, values: &[&str]) -> Batch {
        let timestamp = self.timestamp.unwrap_or_else(|| c.now());
        let records = values.iter().map(|value| record(value, timestamp));
        Batch {
            base_offset: Offset(0),
            leader_epoch: -1,
            producer: Some(ProducerStamp {
                id: self.id,
                epoch: self.epoch,
                base_sequence: sequence,
                transactional: self.transactional_id.is_some(),
            }),
            payload: Payload::Records(records.collect()),
        }
    }

    /// Adds a partition and produces to it.
    pub(super) async fn write<C: Wire + ?Sized>(
        &mut self,
        c: &mut C,
        tp: TopicPartition,
        values: &[&str],
    ) -> Result<i64, Failure> {
        let added = self.add(c, &[tp]).await?;
        added.map_err(refused("AddPartitionsToTxn"))?;
        let produced = self.produce(c, tp, values).await?;
        produced.map_err(refused("Produce"))
    }
}
