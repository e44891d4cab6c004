//! What behaviours ask of brokers directly, in Kafka's requests: leaders, coordinators, the ends of
//! partitions, offsets, members.

use super::raw::RawProducer;
use super::{ClusterUnderTest, Failure, Topic};
use crate::client::Filtered;
use crate::kafka::protocol::{
    BrokerId, CoordinatorKey, ErrorCode, FetchPartition, FetchedPartition, LogTimeMs, Offset,
    OffsetCommit, OffsetSpec, PartitionId, Payload, RebalanceProtocol, Record, Request, Response,
    Subscription, TopicPartition,
};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at something that will happen.
pub(super) const ROUND: Duration = Duration::from_millis(100);
/// Looks until something that should happen counts as not happening.
pub(super) const ROUNDS_MAX: u32 = 600;

/// Looks at a condition until it is true.
macro_rules! until {
    ($cluster:expr, $what:expr, $condition:expr) => {{
        let mut rounds = 0;
        while !$condition {
            rounds += 1;
            if rounds > $crate::contract::wire::ROUNDS_MAX {
                return Err($crate::contract::Failure(format!("never seen: {}", $what)));
            }
            $crate::contract::ClusterUnderTest::wait($cluster, $crate::contract::wire::ROUND).await;
        }
    }};
}
pub(super) use until;

/// Holds, or says what was seen instead.
pub(super) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    seen: &T,
    expected: &T,
) -> Result<(), Failure> {
    if seen == expected {
        return Ok(());
    }
    Err(Failure(format!("{what}: {seen:?}, expected {expected:?}")))
}

/// Partition of a topic in requests.
pub(super) fn tp(topic: &Topic, partition: i32) -> TopicPartition {
    TopicPartition {
        topic: topic.index,
        partition: PartitionId(partition),
    }
}

/// Where a partition begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) start: i64,
    pub(super) last_stable: i64,
    pub(super) high_watermark: i64,
}

/// An identity of a group's member in requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) member_id: Arc<str>,
    pub(super) generation: i32,
}

impl Identity {
    /// Nobody: generation −1 without a member id.
    pub(super) fn nobody() -> Identity {
        Identity {
            member_id: "".into(),
            generation: -1,
        }
    }
}

/// A committed offset in requests.
pub(super) fn commit_of(tp: TopicPartition, offset: i64, metadata: &str) -> OffsetCommit {
    OffsetCommit {
        tp,
        offset: Offset(offset),
        metadata: metadata.into(),
    }
}

/// A record with a text for its value.
pub(super) fn record(value: &str, timestamp: LogTimeMs) -> Record {
    Record {
        timestamp,
        key: None,
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Vec::new(),
    }
}

/// The error of an answer, if it is one.
fn error_of(response: &Response) -> Option<ErrorCode> {
    match response {
        Response::FindCoordinator(Err(code))
        | Response::InitProducerId(Err(code))
        | Response::AddPartitionsToTxn(Err(code))
        | Response::AddOffsetsToTxn(Err(code))
        | Response::TxnOffsetCommit(Err(code))
        | Response::EndTxn(Err(code))
        | Response::ListOffsets(Err(code))
        | Response::OffsetFetch(Err(code))
        | Response::SyncGroup(Err(code))
        | Response::Heartbeat(Err(code))
        | Response::LeaveGroup(Err(code))
        | Response::OffsetCommit(Err(code))
        | Response::DeleteGroup(Err(code))
        | Response::DeleteRecords(Err(code)) => Some(*code),
        Response::JoinGroup(Err(error)) => Some(error.code),
        Response::Produce(results) => results.iter().find_map(|(_, result)| result.err()),
        Response::Fetch(partitions) => partitions.iter().find_map(|fetched| fetched.error),
        _ => None,
    }
}

/// True of answers that say: not here, or not yet.
fn passes(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::ConcurrentTransactions
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::OffsetNotAvailable
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::BrokerNotAvailable
            | ErrorCode::RequestTimedOut
    )
}

pub(super) fn unexpected<T>(response: &Response) -> Result<T, Failure> {
    Err(Failure(format!("an answer of another kind: {response:?}")))
}

/// Requests that go where they belong, again and again until an answer tells something.
pub(super) trait Wire: ClusterUnderTest {
    /// Asks the brokers in turn until one answers what `take` wants.
    async fn ask_any<R>(
        &mut self,
        request: Request,
        mut take: impl FnMut(Response) -> Option<R>,
    ) -> Result<R, Failure> {
        for _ in 0..ROUNDS_MAX {
            for broker in self.brokers() {
                let answer = self.ask(broker, request.clone()).await?;
                if let Some(found) = answer.and_then(&mut take) {
                    return Ok(found);
                }
            }
            self.wait(ROUND).await;
        }
        Err(Failure(format!("no broker can answer {request:?}")))
    }

    /// Leader of a partition.
    async fn leader(&mut self, tp: TopicPartition) -> Result<BrokerId, Failure> {
        self.ask_any(Request::Metadata, |response| match response {
            Response::Metadata { topics, brokers } => topics
                .iter()
                .flat_map(|topic| &topic.partitions)
                .find(|partition| partition.tp == tp)
                .and_then(|partition| partition.leader)
                .filter(|leader| brokers.contains(leader)),
            _ => None,
        })
        .await
    }

    /// Coordinator of a group or of a transactional id.
    async fn coordinator(&mut self, key: &CoordinatorKey) -> Result<BrokerId, Failure> {
        let request = Request::FindCoordinator { key: key.clone() };
        self.ask_any(request, |response| match response {
            Response::FindCoordinator(found) => found.ok(),
            _ => None,
        })
        .await
    }

    /// Asks a coordinator; what says "not here" or "not yet" is asked again.
    async fn ask_coordinator(
        &mut self,
        key: &CoordinatorKey,
        request: Request,
    ) -> Result<Response, Failure> {
        for _ in 0..ROUNDS_MAX {
            let broker = self.coordinator(key).await?;
            let answer = self.ask(broker, request.clone()).await?;
            if let Some(answer) = answer.filter(|answer| !error_of(answer).is_some_and(passes)) {
                return Ok(answer);
            }
            self.wait(ROUND).await;
        }
        Err(Failure(format!("no coordinator answers {request:?}")))
    }

    /// Asks a leader; what says "not here" or "not yet" is asked again.
    async fn ask_leader(
        &mut self,
        tp: TopicPartition,
        request: Request,
    ) -> Result<Response, Failure> {
        for _ in 0..ROUNDS_MAX {
            let broker = self.leader(tp).await?;
            let answer = self.ask(broker, request.clone()).await?;
            if let Some(answer) = answer.filter(|answer| !error_of(answer).is_some_and(passes)) {
                return Ok(answer);
            }
            self.wait(ROUND).await;
        }
        Err(Failure(format!("no leader answers {request:?}")))
    }

    /// Identity of a topic.
    async fn topic_id(&mut self, topic: &Topic) -> Result<Arc<str>, Failure> {
        let index = topic.index;
        self.ask_any(Request::Metadata, |response| match response {
            Response::Metadata { topics, .. } => topics
                .into_iter()
                .find(|topic| topic.topic == index)
                .map(|topic| topic.topic_id),
            _ => None,
        })
        .await
    }

    /// Where a partition begins and ends.
    async fn ends(&mut self, tp: TopicPartition) -> Result<Ends, Failure> {
        let mut found = [0; 3];
        let specs = [
            OffsetSpec::Earliest,
            OffsetSpec::LatestStable,
            OffsetSpec::LatestUncommitted,
        ];
        for (spec, found) in specs.into_iter().zip(&mut found) {
            match self
                .ask_leader(tp, Request::ListOffsets { tp, spec })
                .await?
            {
                Response::ListOffsets(Ok(offset)) => *found = offset.0,
                other => return unexpected(&other),
            }
        }
        let [start, last_stable, high_watermark] = found;
        Ok(Ends {
            start,
            last_stable,
            high_watermark,
        })
    }

    /// One read_committed fetch.
    async fn fetch(
        &mut self,
        tp: TopicPartition,
        offset: i64,
    ) -> Result<FetchedPartition, Failure> {
        let request = Request::Fetch {
            max_wait_ms: 100,
            max_bytes: 1_000_000,
            partitions: vec![FetchPartition {
                tp,
                current_leader_epoch: -1,
                offset: Offset(offset),
            }],
        };
        match self.ask_leader(tp, request).await? {
            Response::Fetch(mut partitions) if partitions.len() == 1 => Ok(partitions.remove(0)),
            other => unexpected(&other),
        }
    }

    /// What a read_committed reader of a whole partition sees: offsets and values.
    async fn read(&mut self, tp: TopicPartition) -> Result<Vec<(i64, String)>, Failure> {
        let ends = self.ends(tp).await?;
        let mut position = ends.start;
        let mut seen = Vec::new();
        while position < ends.last_stable {
            let fetched = self.fetch(tp, position).await?;
            let Filtered { visible, next, .. } = crate::client::filter(fetched, Offset(position));
            for part in visible {
                let Payload::Records(records) = &part.batch.payload else {
                    continue;
                };
                let base = part.batch.base_offset.0;
                for (offset, record) in (base..).zip(records).skip(part.skip) {
                    seen.push((offset, text(record.value.as_deref())));
                }
            }
            if next.0 <= position {
                return Err(Failure(format!(
                    "a fetch at {position} brings nothing, but the partition ends at {ends:?}"
                )));
            }
            position = next.0;
        }
        Ok(seen)
    }

    /// Values that a read_committed reader of a partition sees.
    async fn values(&mut self, tp: TopicPartition) -> Result<Vec<String>, Failure> {
        let seen = self.read(tp).await?;
        Ok(seen.into_iter().map(|(_, value)| value).collect())
    }

    /// Stores records outside of transactions.
    async fn produce_plain(&mut self, tp: TopicPartition, values: &[&str]) -> Result<(), Failure> {
        let mut producer = RawProducer::plain(self).await?;
        let produced = producer.produce(self, tp, values).await?;
        produced.map(|_| ()).map_err(refused("Produce"))
    }

    /// OffsetFetch of a group, whatever its answer.
    async fn offsets(
        &mut self,
        group: &str,
        require_stable: bool,
        partitions: &[TopicPartition],
    ) -> Result<Result<Vec<Option<(i64, String)>>, ErrorCode>, Failure> {
        let request = Request::OffsetFetch {
            group: group.into(),
            require_stable,
            partitions: partitions.to_vec(),
        };
        let key = CoordinatorKey::Group(group.into());
        match self.ask_coordinator(&key, request).await? {
            Response::OffsetFetch(Ok(list)) => Ok(Ok(partitions
                .iter()
                .map(|tp| {
                    let (_, stored) = list.iter().find(|(of, _)| of == tp)?;
                    let (offset, metadata) = stored.as_ref()?;
                    Some((offset.0, metadata.to_string()))
                })
                .collect())),
            Response::OffsetFetch(Err(code)) => Ok(Err(code)),
            other => unexpected(&other),
        }
    }

    /// OffsetCommit outside of transactions, whatever its answer.
    async fn commit_plain(
        &mut self,
        group: &str,
        identity: &Identity,
        offset: OffsetCommit,
    ) -> Result<Result<(), ErrorCode>, Failure> {
        let request = Request::OffsetCommit {
            group: group.into(),
            generation: identity.generation,
            member_id: identity.member_id.clone(),
            offsets: vec![offset],
        };
        let key = CoordinatorKey::Group(group.into());
        match self.ask_coordinator(&key, request).await? {
            Response::OffsetCommit(result) => Ok(result),
            other => unexpected(&other),
        }
    }

    /// DeleteGroups of one group.
    async fn delete_group(&mut self, group: &str) -> Result<Result<(), ErrorCode>, Failure> {
        let request = Request::DeleteGroup {
            group: group.into(),
        };
        let key = CoordinatorKey::Group(group.into());
        match self.ask_coordinator(&key, request).await? {
            Response::DeleteGroup(result) => Ok(result),
            other => unexpected(&other),
        }
    }

    /// DeleteRecords of one partition.
    async fn delete_records(
        &mut self,
        tp: TopicPartition,
        before: i64,
    ) -> Result<Result<i64, ErrorCode>, Failure> {
        let before = Offset(before);
        match self
            .ask_leader(tp, Request::DeleteRecords { tp, before })
            .await?
        {
            Response::DeleteRecords(result) => Ok(result.map(|start| start.0)),
            other => unexpected(&other),
        }
    }

    /// A request about a group's members, whatever its answer.
    async fn ask_group(&mut self, group: &str, request: Request) -> Result<Response, Failure> {
        let key = CoordinatorKey::Group(group.into());
        self.ask_coordinator(&key, request).await
    }

    /// JoinGroup without a member id, then with the one that was given (KIP-394).
    async fn join_as_ghost(
        &mut self,
        group: &str,
        topic: &Topic,
        protocol: RebalanceProtocol,
        session_timeout_ms: u32,
    ) -> Result<Identity, Failure> {
        for _ in 0..ROUNDS_MAX {
            let joined = self.try_to_join(group, topic, protocol, session_timeout_ms);
            if let Some(identity) = joined.await? {
                return Ok(identity);
            }
        }
        Err(Failure(format!("group {group} lets nobody in")))
    }

    /// `None`: the coordinator that gave the id was another one (ids that nobody has used are only in
    /// its memory).
    async fn try_to_join(
        &mut self,
        group: &str,
        topic: &Topic,
        protocol: RebalanceProtocol,
        session_timeout_ms: u32,
    ) -> Result<Option<Identity>, Failure> {
        let mut request = join(group, "", topic, protocol, session_timeout_ms);
        let Response::JoinGroup(Err(error)) = self.ask_group(group, request).await? else {
            return Err(Failure("JoinGroup without a member id was let in".into()));
        };
        same(
            "JoinGroup without a member id",
            &error.code,
            &ErrorCode::MemberIdRequired,
        )?;
        let member_id = error.member_id.unwrap_or_else(|| "".into());
        request = join(group, &member_id, topic, protocol, session_timeout_ms);
        match self.ask_group(group, request).await? {
            Response::JoinGroup(Ok(joined)) => Ok(Some(Identity {
                member_id: joined.member_id,
                generation: joined.generation,
            })),
            Response::JoinGroup(Err(error)) if error.code == ErrorCode::UnknownMemberId => Ok(None),
            other => unexpected(&other),
        }
    }

    /// SyncGroup of a leader that takes everything for itself.
    async fn sync_as_ghost(
        &mut self,
        group: &str,
        ghost: &Identity,
        partitions: &[i32],
    ) -> Result<Result<Vec<PartitionId>, ErrorCode>, Failure> {
        let all = partitions.iter().copied().map(PartitionId).collect();
        let request = Request::SyncGroup {
            group: group.into(),
            member_id: ghost.member_id.clone(),
            generation: ghost.generation,
            assignments: vec![(ghost.member_id.clone(), all)],
        };
        match self.ask_group(group, request).await? {
            Response::SyncGroup(result) => Ok(result),
            other => unexpected(&other),
        }
    }

    /// Heartbeat of a member, whatever its answer.
    async fn heartbeat(
        &mut self,
        group: &str,
        identity: &Identity,
    ) -> Result<Result<(), ErrorCode>, Failure> {
        let request = Request::Heartbeat {
            group: group.into(),
            member_id: identity.member_id.clone(),
            generation: identity.generation,
        };
        match self.ask_group(group, request).await? {
            Response::Heartbeat(result) => Ok(result),
            other => unexpected(&other),
        }
    }
}

impl<C: ClusterUnderTest> Wire for C {}

/// A refusal as a failure of the behaviour.
pub(super) fn refused(what: &'static str) -> impl Fn(ErrorCode) -> Failure {
    move |code| Failure(format!("{what} was refused with {}", code.name()))
}

pub(super) fn text(value: Option<&[u8]>) -> String {
    value.map_or_else(
        || "null".into(),
        |value| String::from_utf8_lossy(value).into_owned(),
    )
}

/// A JoinGroup.
pub(super) fn join(
    group: &str,
    member_id: &str,
    topic: &Topic,
    protocol: RebalanceProtocol,
    session_timeout_ms: u32,
) -> Request {
    Request::JoinGroup {
        group: group.into(),
        member_id: member_id.into(),
        session_timeout_ms,
        rebalance_timeout_ms: 10_000,
        protocol,
        subscription: Subscription {
            topic: topic.index,
            owned: Vec::new(),
            owned_generation: -1,
        },
    }
}
