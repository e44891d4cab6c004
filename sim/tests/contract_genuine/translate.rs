//! The contract's requests in Kafka's words, in the versions that librdkafka 2.12 speaks (transaction
//! protocol version 1).

use crate::batches;
use crate::codes::{result_of, result_of_all};
use crate::connection::Connection;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{self as wire, GroupId, TopicName, TransactionalId};
use kafka_protocol::protocol::StrBytes;
use sim::contract::Failure;
use sim::kafka::protocol::{
    BrokerId, CoordinatorKey, FetchedPartition, Offset, OffsetCommit, OffsetSpec, PartitionId,
    PartitionMetadata, Request, Response, TopicIndex, TopicMetadata, TopicPartition,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why there is no answer.
pub enum NoAnswer {
    /// The broker did not give one.
    Silence,
    /// It cannot be said, or not understood.
    Unfit(Failure),
}

impl From<std::io::Error> for NoAnswer {
    fn from(error: std::io::Error) -> NoAnswer {
        match error.kind() {
            std::io::ErrorKind::InvalidData => NoAnswer::Unfit(Failure(error.to_string())),
            _ => NoAnswer::Silence,
        }
    }
}

impl From<Failure> for NoAnswer {
    fn from(failure: Failure) -> NoAnswer {
        NoAnswer::Unfit(failure)
    }
}

pub type Answer = Result<Response, NoAnswer>;

/// What requests mean by numbers and Kafka by names.
#[derive(Debug, Default)]
pub struct Names {
    /// Topics by their index.
    pub topics: Vec<String>,
    /// Transactional ids by their producers: Produce wants them.
    pub producers: BTreeMap<i64, Arc<str>>,
    /// What is produced now is damaged on its way.
    pub damages: bool,
    /// A broker has told that it holds this client back.
    pub throttled: bool,
}

pub fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

pub fn group_id(value: &str) -> GroupId {
    GroupId(text(value))
}

fn transactional(value: &str) -> TransactionalId {
    TransactionalId(text(value))
}

pub fn first<T>(list: Vec<T>, what: &str) -> Result<T, Failure> {
    let mut list = list.into_iter();
    list.next()
        .ok_or_else(|| Failure(format!("an empty answer to {what}")))
}

impl Names {
    pub fn name(&self, topic: TopicIndex) -> Result<TopicName, Failure> {
        let name = self.topics.get(usize::from(topic.0));
        let name = name.ok_or_else(|| Failure(format!("no topic has number {}", topic.0)))?;
        Ok(TopicName(text(name)))
    }

    fn index(&self, name: &str) -> Option<TopicIndex> {
        let index = self.topics.iter().position(|topic| topic == name)?;
        Some(TopicIndex(u16::try_from(index).ok()?))
    }

    /// Partitions by their topics.
    fn by_topic(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicName, Vec<i32>)>, Failure> {
        let mut topics: BTreeMap<TopicIndex, Vec<i32>> = BTreeMap::new();
        for tp in partitions {
            topics.entry(tp.topic).or_default().push(tp.partition.0);
        }
        let named = topics.into_iter();
        named
            .map(|(topic, partitions)| Ok((self.name(topic)?, partitions)))
            .collect()
    }

    /// One request and its answer.
    pub fn ask(&mut self, connection: &mut Connection, request: Request) -> Answer {
        match request {
            Request::Metadata => self.metadata(connection),
            Request::FindCoordinator { key } => find_coordinator(connection, &key),
            Request::InitProducerId {
                transactional_id,
                transaction_timeout_ms,
            } => self.init_producer_id(connection, transactional_id, transaction_timeout_ms),
            Request::Produce {
                batches,
                timeout_ms,
            } => self.produce(connection, &batches, timeout_ms),
            Request::Fetch { .. } => self.fetch(connection, &request),
            Request::ListOffsets { tp, spec } => self.list_offsets(connection, tp, spec),
            Request::OffsetFetch {
                group,
                require_stable,
                partitions,
            } => self.offset_fetch(connection, &group, require_stable, &partitions),
            Request::OffsetCommit { .. } => self.offset_commit(connection, &request),
            Request::DeleteRecords { tp, before } => self.delete_records(connection, tp, before),
            Request::AddPartitionsToTxn { .. }
            | Request::AddOffsetsToTxn { .. }
            | Request::TxnOffsetCommit { .. }
            | Request::EndTxn { .. } => self.transaction(connection, &request),
            Request::JoinGroup { .. }
            | Request::SyncGroup { .. }
            | Request::Heartbeat { .. }
            | Request::LeaveGroup { .. }
            | Request::DeleteGroup { .. } => self.membership(connection, &request),
            Request::Internal(_) => Err(Failure("brokers speak among themselves".into()).into()),
        }
    }

    fn metadata(&self, connection: &mut Connection) -> Answer {
        let topics = self
            .topics
            .iter()
            .map(|name| MetadataRequestTopic::default().with_name(Some(TopicName(text(name)))));
        let request = wire::MetadataRequest::default()
            .with_topics(Some(topics.collect()))
            .with_allow_auto_topic_creation(false);
        let answer = connection.call(12, &request)?;
        let topic = |topic: wire::metadata_response::MetadataResponseTopic| {
            let name = topic.name?.to_string();
            let index = self.index(&name)?;
            let partitions = topic.partitions.iter().map(|partition| PartitionMetadata {
                tp: TopicPartition {
                    topic: index,
                    partition: PartitionId(partition.partition_index),
                },
                leader: u32::try_from(partition.leader_id.0).ok().map(BrokerId),
                leader_epoch: partition.leader_epoch,
            });
            Some(TopicMetadata {
                topic: index,
                name: name.into(),
                topic_id: topic.topic_id.to_string().into(),
                partitions: partitions.collect(),
            })
        };
        let brokers = answer.brokers.iter();
        Ok(Response::Metadata {
            brokers: brokers
                .filter_map(|broker| u32::try_from(broker.node_id.0).ok().map(BrokerId))
                .collect(),
            topics: answer.topics.into_iter().filter_map(topic).collect(),
        })
    }

    fn init_producer_id(
        &mut self,
        connection: &mut Connection,
        transactional_id: Option<Arc<str>>,
        timeout_ms: u32,
    ) -> Answer {
        let request = wire::InitProducerIdRequest::default()
            .with_transactional_id(transactional_id.as_deref().map(transactional))
            .with_transaction_timeout_ms(i32::try_from(timeout_ms).unwrap_or(i32::MAX))
            .with_producer_id(wire::ProducerId(-1))
            .with_producer_epoch(-1);
        let answer = connection.call(4, &request)?;
        let result = result_of(answer.error_code)?;
        if let (Ok(()), Some(id)) = (result, transactional_id) {
            self.producers.insert(answer.producer_id.0, id);
        }
        let given = (answer.producer_id.0, answer.producer_epoch);
        Ok(Response::InitProducerId(result.map(|()| given)))
    }

    fn produce(
        &mut self,
        connection: &mut Connection,
        batches: &[(TopicPartition, sim::kafka::protocol::Batch)],
        timeout_ms: u32,
    ) -> Answer {
        let [(tp, batch)] = batches else {
            return Err(Failure("one batch a Produce".into()).into());
        };
        let stamp = batch.producer.filter(|stamp| stamp.transactional);
        let id = stamp.and_then(|stamp| self.producers.get(&stamp.id));
        let data = PartitionProduceData::default()
            .with_index(tp.partition.0)
            .with_records(Some(match self.damages {
                true => batches::damaged(&batches::encode(batch)?),
                false => batches::encode(batch)?,
            }));
        let topic = TopicProduceData::default()
            .with_name(self.name(tp.topic)?)
            .with_partition_data(vec![data]);
        let request = wire::ProduceRequest::default()
            .with_transactional_id(id.map(|id| transactional(id)))
            .with_acks(-1)
            .with_timeout_ms(i32::try_from(timeout_ms).unwrap_or(i32::MAX))
            .with_topic_data(vec![topic]);
        let answer = connection.call(8, &request)?;
        self.throttled |= answer.throttle_time_ms > 0;
        let topic = first(answer.responses, "Produce")?;
        let partition = first(topic.partition_responses, "Produce")?;
        let result = result_of(partition.error_code)?.map(|()| Offset(partition.base_offset));
        Ok(Response::Produce(vec![(*tp, result)]))
    }

    fn fetch(&self, connection: &mut Connection, request: &Request) -> Answer {
        let Request::Fetch {
            max_wait_ms,
            max_bytes,
            partitions,
        } = request
        else {
            unreachable!("called for Fetch");
        };
        let [wanted] = partitions.as_slice() else {
            return Err(Failure("one partition a Fetch".into()).into());
        };
        let bytes_max = i32::try_from(*max_bytes).unwrap_or(i32::MAX);
        let partition = FetchPartition::default()
            .with_partition(wanted.tp.partition.0)
            .with_current_leader_epoch(wanted.current_leader_epoch)
            .with_fetch_offset(wanted.offset.0)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(bytes_max);
        let topic = FetchTopic::default()
            .with_topic(self.name(wanted.tp.topic)?)
            .with_partitions(vec![partition]);
        let request = wire::FetchRequest::default()
            .with_replica_id(wire::BrokerId(-1))
            .with_max_wait_ms(i32::try_from(*max_wait_ms).unwrap_or(i32::MAX))
            .with_min_bytes(1)
            .with_max_bytes(bytes_max)
            .with_isolation_level(1)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let answer = connection.call(11, &request)?;
        if let Err(code) = result_of(answer.error_code)? {
            return Err(Failure(format!("Fetch: {}", code.name())).into());
        }
        let topic = first(answer.responses, "Fetch")?;
        let partition = first(topic.partitions, "Fetch")?;
        let aborted = partition.aborted_transactions.unwrap_or_default();
        Ok(Response::Fetch(vec![FetchedPartition {
            tp: wanted.tp,
            error: result_of(partition.error_code)?.err(),
            high_watermark: Offset(partition.high_watermark),
            last_stable_offset: Offset(partition.last_stable_offset),
            log_start_offset: Offset(partition.log_start_offset),
            aborted: aborted
                .iter()
                .map(|aborted| (aborted.producer_id.0, Offset(aborted.first_offset)))
                .collect(),
            batches: batches::decode(partition.records.unwrap_or_default())?,
        }]))
    }

    fn list_offsets(
        &self,
        connection: &mut Connection,
        tp: TopicPartition,
        spec: OffsetSpec,
    ) -> Answer {
        let (timestamp, isolation) = match spec {
            OffsetSpec::Earliest => (-2, 1),
            OffsetSpec::LatestStable => (-1, 1),
            OffsetSpec::LatestUncommitted => (-1, 0),
        };
        let partition = ListOffsetsPartition::default()
            .with_partition_index(tp.partition.0)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(self.name(tp.topic)?)
            .with_partitions(vec![partition]);
        let request = wire::ListOffsetsRequest::default()
            .with_replica_id(wire::BrokerId(-1))
            .with_isolation_level(isolation)
            .with_topics(vec![topic]);
        let answer = connection.call(5, &request)?;
        let topic = first(answer.topics, "ListOffsets")?;
        let partition = first(topic.partitions, "ListOffsets")?;
        let result = result_of(partition.error_code)?.map(|()| Offset(partition.offset));
        Ok(Response::ListOffsets(result))
    }

    fn offset_fetch(
        &self,
        connection: &mut Connection,
        group: &str,
        require_stable: bool,
        partitions: &[TopicPartition],
    ) -> Answer {
        let topics = self.by_topic(partitions)?.into_iter();
        let topics = topics.map(|(name, partitions)| {
            OffsetFetchRequestTopic::default()
                .with_name(name)
                .with_partition_indexes(partitions)
        });
        let request = wire::OffsetFetchRequest::default()
            .with_group_id(group_id(group))
            .with_topics(Some(topics.collect()))
            .with_require_stable(require_stable);
        let answer = connection.call(7, &request)?;
        let codes = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let codes = codes.map(|partition| partition.error_code);
        let result = result_of_all(std::iter::once(answer.error_code).chain(codes))?;
        let mut stored = Vec::new();
        for topic in &answer.topics {
            let Some(index) = self.index(&topic.name) else {
                continue;
            };
            for partition in &topic.partitions {
                let tp = TopicPartition {
                    topic: index,
                    partition: PartitionId(partition.partition_index),
                };
                let metadata = partition.metadata.as_deref().unwrap_or_default();
                let known = (partition.committed_offset >= 0)
                    .then(|| (Offset(partition.committed_offset), metadata.into()));
                stored.push((tp, known));
            }
        }
        Ok(Response::OffsetFetch(result.map(|()| stored)))
    }

    fn offset_commit(&self, connection: &mut Connection, request: &Request) -> Answer {
        let Request::OffsetCommit {
            group,
            generation,
            member_id,
            offsets,
        } = request
        else {
            unreachable!("called for OffsetCommit");
        };
        let mut topics = Vec::new();
        for commit in offsets {
            let partition = OffsetCommitRequestPartition::default()
                .with_partition_index(commit.tp.partition.0)
                .with_committed_offset(commit.offset.0)
                .with_committed_leader_epoch(-1)
                .with_committed_metadata(Some(text(&commit.metadata)));
            let topic = OffsetCommitRequestTopic::default()
                .with_name(self.name(commit.tp.topic)?)
                .with_partitions(vec![partition]);
            topics.push(topic);
        }
        let request = wire::OffsetCommitRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id_or_member_epoch(*generation)
            .with_member_id(text(member_id))
            .with_topics(topics);
        let answer = connection.call(7, &request)?;
        let codes = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let result = result_of_all(codes.map(|partition| partition.error_code))?;
        Ok(Response::OffsetCommit(result))
    }

    fn delete_records(
        &self,
        connection: &mut Connection,
        tp: TopicPartition,
        before: Offset,
    ) -> Answer {
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(tp.partition.0)
            .with_offset(before.0);
        let topic = DeleteRecordsTopic::default()
            .with_name(self.name(tp.topic)?)
            .with_partitions(vec![partition]);
        let request = wire::DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        let answer = connection.call(1, &request)?;
        let topic = first(answer.topics, "DeleteRecords")?;
        let partition = first(topic.partitions, "DeleteRecords")?;
        let result = result_of(partition.error_code)?;
        let start = Offset(partition.low_watermark);
        Ok(Response::DeleteRecords(result.map(|()| start)))
    }

    fn transaction(&self, connection: &mut Connection, request: &Request) -> Answer {
        match request {
            Request::AddPartitionsToTxn {
                transactional_id,
                producer_id,
                producer_epoch,
                partitions,
            } => {
                let topics = self.by_topic(partitions)?.into_iter();
                let topics = topics.map(|(name, partitions)| {
                    AddPartitionsToTxnTopic::default()
                        .with_name(name)
                        .with_partitions(partitions)
                });
                let request = wire::AddPartitionsToTxnRequest::default()
                    .with_v3_and_below_transactional_id(transactional(transactional_id))
                    .with_v3_and_below_producer_id(wire::ProducerId(*producer_id))
                    .with_v3_and_below_producer_epoch(*producer_epoch)
                    .with_v3_and_below_topics(topics.collect());
                let answer = connection.call(0, &request)?;
                let topics = answer.results_by_topic_v3_and_below.iter();
                let codes = topics.flat_map(|topic| &topic.results_by_partition);
                let result = result_of_all(codes.map(|result| result.partition_error_code))?;
                Ok(Response::AddPartitionsToTxn(result))
            }
            Request::AddOffsetsToTxn {
                transactional_id,
                producer_id,
                producer_epoch,
                group,
            } => {
                let request = wire::AddOffsetsToTxnRequest::default()
                    .with_transactional_id(transactional(transactional_id))
                    .with_producer_id(wire::ProducerId(*producer_id))
                    .with_producer_epoch(*producer_epoch)
                    .with_group_id(group_id(group));
                let answer = connection.call(0, &request)?;
                let result = result_of(answer.error_code)?;
                Ok(Response::AddOffsetsToTxn(result))
            }
            Request::EndTxn {
                transactional_id,
                producer_id,
                producer_epoch,
                commit,
            } => {
                let request = wire::EndTxnRequest::default()
                    .with_transactional_id(transactional(transactional_id))
                    .with_producer_id(wire::ProducerId(*producer_id))
                    .with_producer_epoch(*producer_epoch)
                    .with_committed(*commit);
                let answer = connection.call(1, &request)?;
                Ok(Response::EndTxn(result_of(answer.error_code)?))
            }
            request => self.txn_offset_commit(connection, request),
        }
    }

    fn txn_offset_commit(&self, connection: &mut Connection, request: &Request) -> Answer {
        let Request::TxnOffsetCommit {
            transactional_id,
            group,
            producer_id,
            producer_epoch,
            generation,
            member_id,
            offsets,
        } = request
        else {
            unreachable!("called for TxnOffsetCommit");
        };
        let topic = |commit: &OffsetCommit| {
            let partition = TxnOffsetCommitRequestPartition::default()
                .with_partition_index(commit.tp.partition.0)
                .with_committed_offset(commit.offset.0)
                .with_committed_leader_epoch(-1)
                .with_committed_metadata(Some(text(&commit.metadata)));
            let name = self.name(commit.tp.topic)?;
            Ok(TxnOffsetCommitRequestTopic::default()
                .with_name(name)
                .with_partitions(vec![partition]))
        };
        let topics: Result<Vec<_>, Failure> = offsets.iter().map(topic).collect();
        let request = wire::TxnOffsetCommitRequest::default()
            .with_transactional_id(transactional(transactional_id))
            .with_group_id(group_id(group))
            .with_producer_id(wire::ProducerId(*producer_id))
            .with_producer_epoch(*producer_epoch)
            .with_generation_id(*generation)
            .with_member_id(text(member_id))
            .with_topics(topics?);
        let answer = connection.call(3, &request)?;
        let codes = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let result = result_of_all(codes.map(|partition| partition.error_code))?;
        Ok(Response::TxnOffsetCommit(result))
    }
}

fn find_coordinator(connection: &mut Connection, key: &CoordinatorKey) -> Answer {
    let (name, kind) = match key {
        CoordinatorKey::Group(group) => (group, 0),
        CoordinatorKey::Transaction(id) => (id, 1),
    };
    let request = wire::FindCoordinatorRequest::default()
        .with_key(text(name))
        .with_key_type(kind);
    let answer = connection.call(2, &request)?;
    let broker = u32::try_from(answer.node_id.0).unwrap_or_default();
    let result = result_of(answer.error_code)?.map(|()| BrokerId(broker));
    Ok(Response::FindCoordinator(result))
}
