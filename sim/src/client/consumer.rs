//! The consumer: an actor that joins its parts, and the wrapper with the processor's trait.

use super::errors::local_error;
use super::fetcher::{Asked, Fetcher};
use super::group::{GroupIdentity, Membership};
use super::metadata::{Coordinator, Metadata};
use super::queries::{Answer, Queries, Question, Told};
use super::requests::{Requests, Route};
use super::settings::ClientSettings;
use crate::fabric::Handle;
use crate::fabric::actor::{Actor, Address, Effects, Micros};
use crate::kafka::protocol::{
    BrokerId, CoordinatorKey, Message, Offset, PartitionId, Request, Response,
};
use processor::io::{
    CommittedOffset, Consumer, ErrorClass, KafkaError, KafkaResult, OffsetBounds, Polled,
    TopicDescription, TopicPartition,
};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Which request an answer or a timeout belongs to.
#[derive(Debug)]
pub(crate) enum Tag {
    Metadata,
    FindCoordinator,
    Fetch { broker: BrokerId, asked: Vec<Asked> },
    JoinGroup(u64),
    SyncGroup(u64),
    Heartbeat(u64),
    LeaveGroup,
    Query(u64),
}

/// What the parts of a consumer share while they act.
pub(crate) struct Io<'a> {
    pub(crate) now: Micros,
    pub(crate) settings: &'a ClientSettings,
    pub(crate) requests: &'a mut Requests<Tag>,
    pub(crate) metadata: &'a mut Metadata,
    pub(crate) coordinator: &'a mut Coordinator,
    pub(crate) fx: &'a mut Effects,
}

impl Io<'_> {
    /// Sends a request.
    pub(crate) fn send(&mut self, route: Route, request: Request, tag: Tag) {
        self.requests.send(self.now, route, request, tag, self.fx);
    }
}

/// The background work of one consumer.
#[derive(Debug)]
pub struct ConsumerActor {
    settings: Arc<ClientSettings>,
    requests: Requests<Tag>,
    metadata: Metadata,
    coordinator: Coordinator,
    membership: Membership,
    fetcher: Fetcher,
    queries: Queries,
    fatal: Option<KafkaError>,
    leaving: bool,
    wake_at: Micros,
}

macro_rules! parts {
    ($self:ident, $now:ident, $fx:ident) => {
        Io {
            now: $now,
            settings: &$self.settings,
            requests: &mut $self.requests,
            metadata: &mut $self.metadata,
            coordinator: &mut $self.coordinator,
            fx: $fx,
        }
    };
}

impl ConsumerActor {
    /// A consumer of `group` that knows the brokers of `directory`. `seed` decides whom it asks
    /// first.
    #[must_use]
    pub fn new(
        group: &str,
        directory: Arc<Vec<(BrokerId, Address)>>,
        settings: Arc<ClientSettings>,
        seed: u64,
    ) -> ConsumerActor {
        let group: Arc<str> = group.into();
        ConsumerActor {
            requests: Requests::new(directory),
            metadata: Metadata::new(seed),
            coordinator: Coordinator::new(CoordinatorKey::Group(group.clone()), seed),
            membership: Membership::new(group, settings.protocol),
            settings,
            fetcher: Fetcher::default(),
            queries: Queries::default(),
            fatal: None,
            leaving: false,
            wake_at: Micros::MAX,
        }
    }

    fn advance(&mut self, now: Micros, fx: &mut Effects) {
        let io = &mut parts!(self, now, fx);
        self.membership.advance(io);
        if self.membership.take_lost() {
            self.fetcher.clear();
        }
        if let Some(name) = self.membership.topic()
            && let Some(topic) = io.metadata.topic(name).map(|topic| topic.topic)
        {
            self.fetcher.advance(io, topic);
        }
        self.queries.advance(io);
        let requests = &mut self.requests;
        self.coordinator
            .advance(now, requests, &self.settings, Tag::FindCoordinator, fx);
        self.metadata
            .advance(now, requests, &self.settings, Tag::Metadata, fx);
        self.wake_at = self.due(now);
    }

    fn due(&self, now: Micros) -> Micros {
        let coordinator_known = self.coordinator.is_known();
        let settings = &self.settings;
        [
            self.requests.due(),
            self.metadata.due(),
            self.coordinator.due(),
            self.membership
                .due(now, settings.max_poll_interval_ms, coordinator_known),
            self.fetcher.due(now, settings.queued_max_records),
            self.queries.due(now),
        ]
        .into_iter()
        .min()
        .expect("not empty")
    }

    fn answered(&mut self, now: Micros, tag: Tag, response: Response, fx: &mut Effects) {
        let io = &mut parts!(self, now, fx);
        match (tag, response) {
            (Tag::Metadata, Response::Metadata { topics, .. }) => {
                self.metadata.learn(now, &self.settings, topics);
            }
            (Tag::FindCoordinator, Response::FindCoordinator(result)) => {
                self.coordinator.found(result);
            }
            (Tag::Fetch { broker, asked }, Response::Fetch(fetched)) => {
                if let Err(error) = self.fetcher.fetched(io, broker, &asked, fetched) {
                    self.fatal = Some(error);
                }
                if self.fatal.is_some() || self.fetcher.has_news() {
                    fx.notify();
                }
            }
            (Tag::JoinGroup(attempt), Response::JoinGroup(result)) => {
                if let Err(error) = self.membership.joined(io, attempt, result) {
                    self.fatal = Some(error);
                    fx.notify();
                }
            }
            (Tag::SyncGroup(attempt), Response::SyncGroup(result)) => {
                self.membership.synced(io, attempt, result);
            }
            (Tag::Heartbeat(attempt), Response::Heartbeat(result)) => {
                self.membership.heartbeat_answered(io, attempt, result);
            }
            (Tag::LeaveGroup, Response::LeaveGroup(_)) => {
                self.leaving = false;
                fx.notify();
            }
            (Tag::Query(serial), Response::OffsetFetch(result)) => {
                self.queries.told(io, serial, result.map(Told::Offsets));
            }
            (Tag::Query(serial), Response::ListOffsets(result)) => {
                self.queries.told(io, serial, result.map(Told::Offset));
            }
            (tag, response) => unreachable!("{response:?} answers {tag:?}"),
        }
    }

    fn failed(&mut self, now: Micros, tag: Tag, fx: &mut Effects) {
        let io = &mut parts!(self, now, fx);
        match tag {
            Tag::Metadata => self.metadata.failed(now),
            Tag::FindCoordinator => self.coordinator.failed(),
            Tag::Fetch { broker, asked } => self.fetcher.failed(io, broker, &asked),
            Tag::JoinGroup(_) | Tag::SyncGroup(_) | Tag::Heartbeat(_) => {
                self.membership.failed(io, &tag);
            }
            Tag::LeaveGroup => {
                self.leaving = false;
                fx.notify();
            }
            Tag::Query(serial) => self.queries.failed(io, serial),
        }
    }

    /// Joins the group for `topic`.
    pub(crate) fn subscribe(&mut self, now: Micros, topic: &str, fx: &mut Effects) {
        self.membership.subscribe(now, topic);
        self.advance(now, fx);
    }

    /// One look of a waiting `poll`.
    pub(crate) fn poll(&mut self, now: Micros, fx: &mut Effects) -> Poll<KafkaResult<Polled>> {
        self.membership.begin_poll();
        let found = self.take_news(now, fx);
        if found.is_ready() {
            self.membership.end_poll(now);
        }
        self.advance(now, fx);
        found
    }

    fn take_news(&mut self, now: Micros, fx: &mut Effects) -> Poll<KafkaResult<Polled>> {
        // What time has brought about (a lost session) comes before what it would forbid.
        if now >= self.wake_at {
            self.advance(now, fx);
        }
        if let Some(error) = &self.fatal {
            return Poll::Ready(Err(error.clone()));
        }
        if let Some(event) = self.membership.take_event(fx) {
            return Poll::Ready(Ok(event));
        }
        if self.membership.blocks_records() {
            return Poll::Pending;
        }
        match self.fetcher.take().or_else(|| self.fetcher.take_end()) {
            Some(polled) => Poll::Ready(Ok(polled)),
            None => Poll::Pending,
        }
    }

    /// `poll` found nothing in time.
    pub(crate) fn end_poll(&mut self, now: Micros) {
        self.membership.end_poll(now);
        self.wake_at = self.due(now);
    }

    /// See [`Consumer::accept`].
    pub(crate) fn accept(
        &mut self,
        now: Micros,
        partitions: &[PartitionId],
        fx: &mut Effects,
    ) -> KafkaResult<()> {
        self.membership.accept(now, partitions)?;
        self.fetcher.add(partitions);
        self.advance(now, fx);
        Ok(())
    }

    /// See [`Consumer::release`].
    pub(crate) fn release(&mut self, now: Micros, partitions: &[PartitionId], fx: &mut Effects) {
        self.fetcher.remove(partitions);
        self.membership.release(now, partitions);
        self.advance(now, fx);
    }

    /// See [`Consumer::start_at`].
    pub(crate) fn start_at(
        &mut self,
        now: Micros,
        partition: PartitionId,
        offset: Offset,
        fx: &mut Effects,
    ) -> KafkaResult<()> {
        self.fetcher.start(partition, offset)?;
        self.advance(now, fx);
        Ok(())
    }

    /// See [`Consumer::pause`] and [`Consumer::resume`].
    pub(crate) fn set_paused(
        &mut self,
        call: &'static str,
        partitions: &[PartitionId],
        paused: bool,
    ) -> KafkaResult<()> {
        self.fetcher.set_paused(call, partitions, paused)
    }

    /// The member's identity in the current generation.
    pub(crate) fn identity(&self) -> Option<GroupIdentity> {
        self.membership.identity()
    }

    /// The answer to the last question, if it is there.
    pub(crate) fn answer(&mut self) -> Option<KafkaResult<Answer>> {
        self.queries.take()
    }

    /// Asks the cluster something.
    pub(crate) fn ask(
        &mut self,
        now: Micros,
        topic: Arc<str>,
        question: Question,
        fx: &mut Effects,
    ) {
        let io = &mut parts!(self, now, fx);
        self.queries.ask(io, topic, question);
        self.advance(now, fx);
    }

    fn leave(&mut self, now: Micros, fx: &mut Effects) {
        let io = &mut parts!(self, now, fx);
        self.leaving = self.membership.leave(io);
        self.membership.close(now);
        self.advance(now, fx);
    }
}

impl Actor for ConsumerActor {
    fn receive(&mut self, now: Micros, _from: Address, message: Message, fx: &mut Effects) {
        let Message::Response {
            correlation,
            response,
        } = message
        else {
            return; // nobody asks a client anything
        };
        if let Some(tag) = self.requests.answered(correlation) {
            self.answered(now, tag, response, fx);
            self.advance(now, fx);
        }
    }

    fn wake(&mut self, now: Micros, fx: &mut Effects) {
        for tag in self.requests.expire(now, fx) {
            self.failed(now, tag, fx);
        }
        self.advance(now, fx);
    }

    fn connection_lost(&mut self, now: Micros, peer: Address, fx: &mut Effects) {
        let failed = self.requests.disconnected(peer);
        if failed.is_empty() {
            return;
        }
        fx.note(
            "client-disconnected",
            format_args!("{} requests failed", failed.len()),
        );
        for tag in failed {
            self.failed(now, tag, fx);
        }
        self.advance(now, fx);
    }

    fn next_wake(&self) -> Micros {
        self.wake_at
    }
}

/// A consumer as the processor's worker uses it. When it is dropped without [`Consumer::close`] the
/// instance is gone without a word: the group learns of it by its session timeout.
pub struct SimConsumer {
    handle: Handle<ConsumerActor>,
    topic: Option<Arc<str>>,
}

impl SimConsumer {
    /// Wraps an actor.
    #[must_use]
    pub fn new(handle: Handle<ConsumerActor>) -> SimConsumer {
        SimConsumer {
            handle,
            topic: None,
        }
    }

    fn deadline(&self, timeout: Duration) -> Micros {
        deadline(self.handle.fabric().now(), timeout)
    }

    async fn query(
        &self,
        call: &'static str,
        topic: Arc<str>,
        question: Question,
        timeout: Duration,
    ) -> KafkaResult<Answer> {
        let deadline = self.deadline(timeout);
        self.handle
            .with(|actor, now, fx| actor.ask(now, topic, question, fx));
        let answer = self
            .handle
            .wait(deadline, |actor, _, _| match actor.answer() {
                Some(answer) => Poll::Ready(answer),
                None => Poll::Pending,
            })
            .await;
        answer.unwrap_or_else(|| {
            self.handle.with(|actor, _, _| actor.queries.give_up());
            Err(local_error(call, "_TIMED_OUT", ErrorClass::Retriable))
        })
    }

    fn subscribed(&self, call: &'static str) -> KafkaResult<Arc<str>> {
        self.topic
            .clone()
            .ok_or_else(|| local_error(call, "_STATE: subscribe first", ErrorClass::Fatal))
    }
}

impl Drop for SimConsumer {
    fn drop(&mut self) {
        // A world that panics is abandoned as it is.
        if !std::thread::panicking() {
            self.handle.remove();
        }
    }
}

/// `timeout` from `now`.
pub(crate) fn deadline(now: Micros, timeout: Duration) -> Micros {
    now.plus(Micros(
        u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX),
    ))
}

impl Consumer for SimConsumer {
    type GroupMetadata = GroupIdentity;

    fn subscribe(&mut self, topic: &str) -> KafkaResult<()> {
        self.topic = Some(topic.into());
        self.handle
            .with(|actor, now, fx| actor.subscribe(now, topic, fx));
        Ok(())
    }

    async fn poll(&mut self, timeout: Duration) -> KafkaResult<Polled> {
        let deadline = self.deadline(timeout);
        let polled = self
            .handle
            .wait(deadline, |actor, now, fx| actor.poll(now, fx))
            .await;
        polled.unwrap_or_else(|| {
            self.handle.with(|actor, now, _| actor.end_poll(now));
            Ok(Polled::TimedOut)
        })
    }

    fn accept(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        self.handle
            .with(|actor, now, fx| actor.accept(now, partitions, fx))
    }

    fn release(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        self.handle
            .with(|actor, now, fx| actor.release(now, partitions, fx));
        Ok(())
    }

    fn start_at(&mut self, partition: PartitionId, offset: Offset) -> KafkaResult<()> {
        self.handle
            .with(|actor, now, fx| actor.start_at(now, partition, offset, fx))
    }

    fn pause(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        self.handle
            .with(|actor, _, _| actor.set_paused("pause", partitions, true))
    }

    fn resume(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        self.handle.with(|actor, now, fx| {
            actor.set_paused("resume", partitions, false)?;
            actor.advance(now, fx);
            Ok(())
        })
    }

    async fn committed(
        &mut self,
        partitions: &[TopicPartition],
        timeout: Duration,
    ) -> KafkaResult<Vec<Option<CommittedOffset>>> {
        let topic = self.subscribed("committed")?;
        let question = Question::Committed(partitions.to_vec());
        match self.query("committed", topic, question, timeout).await? {
            Answer::Committed(list) => Ok(list),
            answer => unreachable!("{answer:?} to a question for committed offsets"),
        }
    }

    async fn bounds(
        &mut self,
        partition: PartitionId,
        timeout: Duration,
    ) -> KafkaResult<OffsetBounds> {
        let topic = self.subscribed("bounds")?;
        let question = Question::Bounds(partition);
        match self.query("bounds", topic, question, timeout).await? {
            Answer::Bounds(bounds) => Ok(bounds),
            answer => unreachable!("{answer:?} to a question for bounds"),
        }
    }

    async fn describe_topic(
        &mut self,
        topic: &str,
        timeout: Duration,
    ) -> KafkaResult<TopicDescription> {
        let question = Question::Topic;
        match self
            .query("describe_topic", topic.into(), question, timeout)
            .await?
        {
            Answer::Topic(description) => Ok(description),
            answer => unreachable!("{answer:?} to a question for a topic"),
        }
    }

    fn group_metadata(&self) -> Option<GroupIdentity> {
        self.handle.with(|actor, _, _| actor.identity())
    }

    async fn close(self, timeout: Duration) {
        let deadline = self.deadline(timeout);
        self.handle.with(|actor, now, fx| actor.leave(now, fx));
        self.handle
            .wait(deadline, |actor, _, _| {
                if actor.leaving {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            })
            .await;
    }
}
