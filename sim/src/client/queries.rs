//! Questions of the application to the cluster: committed offsets, bounds, topics. One at a time;
//! each is asked again until it is answered or the application gives up.

use super::consumer::{Io, Tag};
use super::errors::{broker_error, coordinator_moved, later, local_error};
use super::requests::{Connection, Route};
use crate::fabric::actor::Micros;
use crate::kafka::protocol::{
    CoordinatorKey, ErrorCode, Offset, OffsetSpec, PartitionId, Request, TopicPartition,
};
use processor::io::{
    self, CommittedOffset, ErrorClass, KafkaError, KafkaResult, OffsetBounds, TopicDescription,
};
use std::sync::Arc;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// Stable committed offsets.
    Committed(Vec<io::TopicPartition>),
    /// Log start and last stable offset.
    Bounds(PartitionId),
    /// Identity and size of a topic.
    Topic,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// To [`Question::Committed`], in its order.
    Committed(Vec<Option<CommittedOffset>>),
    /// To [`Question::Bounds`].
    Bounds(OffsetBounds),
    /// To [`Question::Topic`].
    Topic(TopicDescription),
}

#[derive(Debug)]
struct Current {
    question: Question,
    topic: Arc<str>,
    retry_at: Micros,
    in_flight: bool,
    /// What was asked of the broker, in the order of the question.
    asked: Vec<TopicPartition>,
    earliest: Option<Offset>,
    metadata_answers: u64,
    answer: Option<KafkaResult<Answer>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    current: Option<Current>,
    /// Answers to an older question are ignored.
    serial: u64,
}

/// A committed offset with its metadata, as OffsetFetch tells it.
type Stored = (TopicPartition, Option<(Offset, Arc<str>)>);

/// An answer of a broker.
#[derive(Debug)]
pub(crate) enum Told {
    /// OffsetFetch.
    Offsets(Vec<Stored>),
    /// ListOffsets.
    Offset(Offset),
}

impl Queries {
    /// Asks; an older question is forgotten.
    pub(crate) fn ask(&mut self, io: &mut Io<'_>, topic: Arc<str>, question: Question) {
        self.serial += 1;
        if question == Question::Topic {
            io.metadata.want(io.now);
        }
        self.current = Some(Current {
            question,
            topic,
            retry_at: io.now,
            in_flight: false,
            asked: Vec::new(),
            earliest: None,
            metadata_answers: io.metadata.answers(),
            answer: None,
        });
    }

    /// Takes the answer, if it is there.
    pub(crate) fn take(&mut self) -> Option<KafkaResult<Answer>> {
        let answer = self.current.as_mut()?.answer.take()?;
        self.current = None;
        Some(answer)
    }

    /// Forgets the question.
    pub(crate) fn give_up(&mut self) {
        self.current = None;
        self.serial += 1;
    }

    /// When [`Queries::advance`] next has something to do by the clock alone.
    pub(crate) fn due(&self, now: Micros) -> Micros {
        match &self.current {
            Some(current) if !current.in_flight && current.retry_at > now => current.retry_at,
            _ => Micros::MAX,
        }
    }

    /// Sends what is due.
    pub(crate) fn advance(&mut self, io: &mut Io<'_>) {
        let Some(current) = &mut self.current else {
            return;
        };
        if current.in_flight || current.answer.is_some() || io.now < current.retry_at {
            return;
        }
        let Some(topic) = io.metadata.topic(&current.topic) else {
            if io.metadata.answers() > current.metadata_answers {
                let unknown = unknown_topic(&current.topic);
                current.answer = Some(Err(unknown));
                io.fx.notify();
            } else {
                io.metadata.want(io.now);
            }
            return;
        };
        let index = topic.topic;
        let tp = |partition: PartitionId| TopicPartition {
            topic: index,
            partition,
        };
        let sent = match &current.question {
            Question::Topic => {
                if io.metadata.answers() > current.metadata_answers {
                    current.answer = Some(Ok(Answer::Topic(TopicDescription {
                        topic_id: Some(topic.topic_id.to_string()),
                        partitions: u32::try_from(topic.partitions.len()).expect("fits"),
                    })));
                    io.fx.notify();
                }
                false
            }
            Question::Committed(partitions) => {
                let known = partitions.iter().map(|wanted| {
                    let topic = io.metadata.topic(&wanted.topic)?.topic;
                    let partition = wanted.partition;
                    Some(TopicPartition { topic, partition })
                });
                let Some(known) = known.collect::<Option<Vec<_>>>() else {
                    return io.metadata.want(io.now);
                };
                current.asked.clone_from(&known);
                ask_offsets(io, known, self.serial)
            }
            Question::Bounds(partition) => {
                let spec = match current.earliest {
                    None => OffsetSpec::Earliest,
                    Some(_) => OffsetSpec::LatestStable,
                };
                list_offsets(io, tp(*partition), spec, self.serial)
            }
        };
        if let Some(current) = &mut self.current {
            current.in_flight = sent;
        }
    }

    fn current(&mut self, serial: u64) -> Option<&mut Current> {
        let current = self.current.as_mut().filter(|_| serial == self.serial)?;
        current.in_flight = false;
        Some(current)
    }

    /// A request was not answered.
    pub(crate) fn failed(&mut self, io: &mut Io<'_>, serial: u64) {
        let Some(current) = self.current(serial) else {
            return;
        };
        current.retry_at = io.now;
        if matches!(current.question, Question::Committed(_)) {
            io.coordinator.forget();
        } else {
            io.metadata.want(io.now);
        }
    }

    /// Takes a broker's answer.
    pub(crate) fn told(&mut self, io: &mut Io<'_>, serial: u64, result: Result<Told, ErrorCode>) {
        let Some(current) = self.current(serial) else {
            return;
        };
        match result {
            Ok(Told::Offsets(list)) => {
                let stored = |tp: &TopicPartition| {
                    let (_, committed) = list.iter().find(|(of, _)| of == tp)?;
                    let (offset, metadata) = committed.as_ref()?;
                    Some(CommittedOffset {
                        offset: *offset,
                        metadata: metadata.to_string(),
                    })
                };
                let answer = current.asked.iter().map(stored).collect();
                current.answer = Some(Ok(Answer::Committed(answer)));
            }
            Ok(Told::Offset(offset)) => match current.earliest {
                None => current.earliest = Some(offset),
                Some(earliest) => {
                    current.answer = Some(Ok(Answer::Bounds(OffsetBounds {
                        earliest,
                        last_stable: offset,
                    })));
                }
            },
            Err(code) => {
                current.retry_at = io.now.plus_ms(u64::from(io.settings.retry_backoff_ms));
                if matches!(current.question, Question::Bounds(_)) {
                    // Whatever is wrong with a leader: the next one will do.
                    io.metadata.want(io.now);
                } else if coordinator_moved(code) {
                    io.coordinator.forget();
                } else if code != ErrorCode::UnstableOffsetCommit && !later(code) {
                    let error = broker_error("committed", code, ErrorClass::Fatal);
                    current.answer = Some(Err(error));
                }
            }
        }
        io.fx.notify();
    }
}

fn ask_offsets(io: &mut Io<'_>, partitions: Vec<TopicPartition>, serial: u64) -> bool {
    let Some(broker) = io.coordinator.broker() else {
        return false;
    };
    let CoordinatorKey::Group(group) = io.coordinator.key().clone() else {
        unreachable!("a consumer's coordinator is a group's");
    };
    let request = Request::OffsetFetch {
        group,
        require_stable: true,
        partitions,
    };
    let route = Route {
        broker,
        connection: Connection::Coordinator,
        timeout_ms: u64::from(io.settings.request_timeout_ms),
    };
    io.send(route, request, Tag::Query(serial));
    true
}

fn list_offsets(io: &mut Io<'_>, tp: TopicPartition, spec: OffsetSpec, serial: u64) -> bool {
    let Some((broker, _)) = io.metadata.leader(tp) else {
        io.metadata.want(io.now);
        return false;
    };
    let route = Route {
        broker,
        connection: Connection::Data,
        timeout_ms: u64::from(io.settings.request_timeout_ms),
    };
    let request = Request::ListOffsets { tp, spec };
    io.send(route, request, Tag::Query(serial));
    true
}

fn unknown_topic(topic: &str) -> KafkaError {
    local_error(
        "describe_topic",
        &format!("UNKNOWN_TOPIC_OR_PARTITION: there is no topic {topic}"),
        ErrorClass::Fatal,
    )
}
