//! Requests about a group's members, and what members say to each other.

use crate::codes::result_of;
use crate::connection::Connection;
use crate::translate::{Answer, Names, first, group_id, text};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition as AssignedTopic;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    self as wire, ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use sim::contract::Failure;
use sim::kafka::protocol::{
    ErrorCode, JoinError, JoinedGroup, PartitionId, RebalanceProtocol, Request, Response,
};
use std::sync::Arc;

impl Names {
    pub fn membership(&self, connection: &mut Connection, request: &Request) -> Answer {
        match request {
            Request::JoinGroup { .. } => self.join_group(connection, request),
            Request::SyncGroup { .. } => self.sync_group(connection, request),
            Request::Heartbeat {
                group,
                member_id,
                generation,
            } => {
                let request = wire::HeartbeatRequest::default()
                    .with_group_id(group_id(group))
                    .with_generation_id(*generation)
                    .with_member_id(text(member_id));
                let answer = connection.call(3, &request)?;
                Ok(Response::Heartbeat(result_of(answer.error_code)?))
            }
            Request::LeaveGroup { group, member_id } => {
                let request = wire::LeaveGroupRequest::default()
                    .with_group_id(group_id(group))
                    .with_member_id(text(member_id));
                let answer = connection.call(1, &request)?;
                Ok(Response::LeaveGroup(result_of(answer.error_code)?))
            }
            Request::DeleteGroup { group } => {
                let request =
                    wire::DeleteGroupsRequest::default().with_groups_names(vec![group_id(group)]);
                let answer = connection.call(1, &request)?;
                let group = first(answer.results, "DeleteGroups")?;
                Ok(Response::DeleteGroup(result_of(group.error_code)?))
            }
            _ => unreachable!("called for requests about members"),
        }
    }

    fn join_group(&self, connection: &mut Connection, request: &Request) -> Answer {
        let Request::JoinGroup {
            group,
            member_id,
            session_timeout_ms,
            rebalance_timeout_ms,
            protocol,
            subscription,
        } = request
        else {
            unreachable!("called for JoinGroup");
        };
        let ms = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let name = self.name(subscription.topic)?;
        let subscription = ConsumerProtocolSubscription::default().with_topics(vec![name.0]);
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str(name_of(*protocol)))
            .with_metadata(versioned(1, &subscription)?);
        let request = wire::JoinGroupRequest::default()
            .with_group_id(group_id(group))
            .with_session_timeout_ms(ms(*session_timeout_ms))
            .with_rebalance_timeout_ms(ms(*rebalance_timeout_ms))
            .with_member_id(text(member_id))
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol]);
        let answer = connection.call(5, &request)?;
        let given: Arc<str> = answer.member_id.to_string().into();
        Ok(Response::JoinGroup(match result_of(answer.error_code)? {
            Ok(()) => Ok(JoinedGroup {
                generation: answer.generation_id,
                member_id: given,
                leader: answer.leader.to_string().into(),
                members: Vec::new(),
            }),
            Err(code) => Err(JoinError {
                code,
                member_id: (code == ErrorCode::MemberIdRequired).then_some(given),
            }),
        }))
    }

    fn sync_group(&self, connection: &mut Connection, request: &Request) -> Answer {
        let Request::SyncGroup {
            group,
            member_id,
            generation,
            assignments,
        } = request
        else {
            unreachable!("called for SyncGroup");
        };
        // A test's member reads the newest topic of its behaviour that is not internal.
        let topic = self.topics.get(2..).and_then(<[String]>::first);
        let topic = topic.ok_or_else(|| Failure("a member without a topic".into()))?;
        let assignment = |(member, partitions): &(Arc<str>, Vec<PartitionId>)| {
            let topic = AssignedTopic::default()
                .with_topic(TopicName(text(topic)))
                .with_partitions(partitions.iter().map(|partition| partition.0).collect());
            let content =
                ConsumerProtocolAssignment::default().with_assigned_partitions(vec![topic]);
            Ok(SyncGroupRequestAssignment::default()
                .with_member_id(text(member))
                .with_assignment(versioned(1, &content)?))
        };
        let assignments: Result<Vec<_>, Failure> = assignments.iter().map(assignment).collect();
        let request = wire::SyncGroupRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id(*generation)
            .with_member_id(text(member_id))
            .with_assignments(assignments?);
        let answer = connection.call(3, &request)?;
        let result = match result_of(answer.error_code)? {
            Err(code) => Err(code),
            Ok(()) => Ok(assigned(answer.assignment)?),
        };
        Ok(Response::SyncGroup(result))
    }
}

fn name_of(protocol: RebalanceProtocol) -> &'static str {
    match protocol {
        RebalanceProtocol::Eager => "range",
        RebalanceProtocol::Cooperative => "cooperative-sticky",
    }
}

/// A part of the consumers' own protocol, behind its version.
fn versioned(version: i16, content: &impl Encodable) -> Result<Bytes, Failure> {
    let mut bytes = BytesMut::new();
    bytes.put_i16(version);
    let encoded = content.encode(&mut bytes, version);
    encoded.map_err(|why| Failure(format!("consumer protocol: {why:#}")))?;
    Ok(bytes.freeze())
}

fn assigned(mut bytes: Bytes) -> Result<Vec<PartitionId>, Failure> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let version = bytes.get_i16();
    let content = ConsumerProtocolAssignment::decode(&mut bytes, version);
    let content = content.map_err(|why| Failure(format!("consumer protocol: {why:#}")))?;
    let topics = content.assigned_partitions.iter();
    let partitions = topics.flat_map(|topic| &topic.partitions);
    Ok(partitions.copied().map(PartitionId).collect())
}
