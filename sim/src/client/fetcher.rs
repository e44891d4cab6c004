//! The fetcher: one Fetch under way for each broker, what it brought, and the positions.

use super::aborted::{Visible, filter};
use super::consumer::{Io, Tag};
use super::errors::local_error;
use super::requests::{Connection, Route};
use crate::fabric::actor::{Effects, Micros};
use crate::kafka::protocol::{
    BrokerId, ErrorCode, FetchPartition, FetchedPartition, Offset, PartitionId, Payload, Request,
    TopicIndex, TopicPartition,
};
use crate::sabotage::Sabotage;
use processor::io::{ConsumedRecord, ErrorClass, KafkaError, KafkaResult, Polled};
use std::collections::{BTreeMap, VecDeque};

/// What one Fetch asked of one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    partition: PartitionId,
    version: u64,
    offset: Offset,
}

/// Visible records of one response.
#[derive(Debug)]
struct Chunk {
    serial: u64,
    visible: Vec<Visible>,
    records: usize,
    next: Offset,
}

/// An owned partition.
#[derive(Debug)]
struct Owned {
    /// Next offset to deliver; `None` before the start.
    position: Option<Offset>,
    /// Next offset to fetch: the position, or the end of what is buffered.
    fetch_from: Offset,
    /// Answers to requests of an older version are dropped.
    version: u64,
    paused: bool,
    buffer: VecDeque<Chunk>,
    buffered_records: usize,
    last_stable: Option<Offset>,
    /// What comes next was hidden by an open transaction when it was last asked for.
    behind_open: bool,
    end_told_at: Option<Offset>,
    fetching_at: Option<BrokerId>,
    backoff_until: Micros,
}

impl Owned {
    fn end_due(&self) -> Option<Offset> {
        let position = self.position?;
        let due = self.buffer.is_empty()
            && self.last_stable == Some(position)
            && self.end_told_at != Some(position);
        due.then_some(position)
    }

    fn wants(&self, limit: usize) -> bool {
        self.position.is_some()
            && !self.paused
            && self.fetching_at.is_none()
            && self.buffered_records < limit
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Fetcher {
    owned: BTreeMap<PartitionId, Owned>,
    busy: Vec<BrokerId>,
    versions: u64,
    serials: u64,
    rotation: usize,
}

impl Fetcher {
    /// Takes partitions, without position.
    pub(crate) fn add(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            let version = self.version();
            self.owned.insert(
                *partition,
                Owned {
                    position: None,
                    fetch_from: Offset(0),
                    version,
                    paused: false,
                    buffer: VecDeque::new(),
                    buffered_records: 0,
                    last_stable: None,
                    behind_open: false,
                    end_told_at: None,
                    fetching_at: None,
                    backoff_until: Micros(0),
                },
            );
        }
    }

    /// Gives partitions up: what is buffered is dropped.
    pub(crate) fn remove(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            self.owned.remove(partition);
        }
    }

    /// Gives all partitions up.
    pub(crate) fn clear(&mut self) {
        self.owned.clear();
    }

    fn version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    fn get(&mut self, call: &'static str, partition: PartitionId) -> KafkaResult<&mut Owned> {
        self.owned.get_mut(&partition).ok_or_else(|| {
            local_error(
                call,
                &format!("_STATE: partition {partition} is not owned; accept it first"),
                ErrorClass::Fatal,
            )
        })
    }

    /// Sets a position.
    pub(crate) fn start(&mut self, partition: PartitionId, offset: Offset) -> KafkaResult<()> {
        let version = self.version();
        let owned = self.get("start_at", partition)?;
        owned.position = Some(offset);
        owned.fetch_from = offset;
        owned.version = version;
        owned.buffer.clear();
        owned.buffered_records = 0;
        owned.paused = false;
        owned.last_stable = None;
        owned.end_told_at = None;
        owned.fetching_at = None;
        owned.backoff_until = Micros(0);
        Ok(())
    }

    /// Stops or lets go on the delivery of a partition.
    pub(crate) fn set_paused(
        &mut self,
        call: &'static str,
        partitions: &[PartitionId],
        paused: bool,
    ) -> KafkaResult<()> {
        for partition in partitions {
            self.get(call, *partition)?;
        }
        for partition in partitions {
            self.get(call, *partition)?.paused = paused;
        }
        Ok(())
    }

    /// Sends a Fetch to each leader that has none under way and leads something wanted.
    pub(crate) fn advance(&mut self, io: &mut Io<'_>, topic: TopicIndex) {
        let limit = io.settings.queued_max_records;
        let mut plans: Vec<(BrokerId, Vec<FetchPartition>, Vec<Asked>)> = Vec::new();
        for (partition, owned) in &mut self.owned {
            let tp = TopicPartition {
                topic,
                partition: *partition,
            };
            let leader = io.metadata.leader(tp);
            // A partition that moved does not wait for the old leader's answer.
            if let (Some(at), Some((leader, _))) = (owned.fetching_at, leader)
                && at != leader
            {
                self.versions += 1;
                owned.version = self.versions;
                owned.fetching_at = None;
            }
            if !owned.wants(limit) || io.now < owned.backoff_until {
                continue;
            }
            let Some((leader, epoch)) = leader else {
                io.metadata.want(io.now);
                continue;
            };
            if self.busy.contains(&leader) {
                continue;
            }
            let index = plans.iter().position(|plan| plan.0 == leader);
            let index = index.unwrap_or_else(|| {
                plans.push((leader, Vec::new(), Vec::new()));
                plans.len() - 1
            });
            plans[index].1.push(FetchPartition {
                tp,
                current_leader_epoch: epoch,
                offset: owned.fetch_from,
            });
            plans[index].2.push(Asked {
                partition: *partition,
                version: owned.version,
                offset: owned.fetch_from,
            });
            owned.fetching_at = Some(leader);
        }
        for (broker, mut partitions, asked) in plans {
            // Whoever is first gets most of a response: everybody in turn.
            self.rotation = self.rotation.wrapping_add(1);
            let turn = self.rotation % partitions.len();
            partitions.rotate_left(turn);
            self.send(io, broker, partitions, asked);
        }
    }

    fn send(
        &mut self,
        io: &mut Io<'_>,
        broker: BrokerId,
        partitions: Vec<FetchPartition>,
        asked: Vec<Asked>,
    ) {
        self.busy.push(broker);
        let request = Request::Fetch {
            max_wait_ms: io.settings.fetch_wait_max_ms,
            max_bytes: io.settings.fetch_max_bytes,
            partitions,
        };
        let route = Route {
            broker,
            connection: Connection::Data,
            timeout_ms: u64::from(io.settings.fetch_wait_max_ms)
                + u64::from(io.settings.request_timeout_ms),
        };
        io.send(route, request, Tag::Fetch { broker, asked });
    }

    /// When a backoff ends.
    pub(crate) fn due(&self, now: Micros, limit: usize) -> Micros {
        self.owned
            .values()
            .filter(|owned| owned.backoff_until > now && owned.wants(limit))
            .map(|owned| owned.backoff_until)
            .min()
            .unwrap_or(Micros::MAX)
    }

    /// A Fetch was not answered.
    pub(crate) fn failed(&mut self, io: &mut Io<'_>, broker: BrokerId, asked: &[Asked]) {
        self.busy.retain(|busy| *busy != broker);
        let until = io.now.plus_ms(u64::from(io.settings.reconnect_backoff_ms));
        for one in asked {
            if let Some(owned) = self.current(one) {
                owned.fetching_at = None;
                owned.backoff_until = until;
            }
        }
        io.metadata.want(io.now);
    }

    fn current(&mut self, asked: &Asked) -> Option<&mut Owned> {
        self.owned
            .get_mut(&asked.partition)
            .filter(|owned| owned.version == asked.version)
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// When an offset does not exist: fatal, there is no reset policy.
    pub(crate) fn fetched(
        &mut self,
        io: &mut Io<'_>,
        broker: BrokerId,
        asked: &[Asked],
        fetched: Vec<FetchedPartition>,
    ) -> KafkaResult<()> {
        self.busy.retain(|busy| *busy != broker);
        for one in asked {
            if let Some(owned) = self.current(one) {
                owned.fetching_at = None;
            }
        }
        for mut answer in fetched {
            if io.settings.breaks(Sabotage::AbortedDelivered) {
                answer.aborted.clear();
            }
            let partition = answer.tp.partition;
            let Some(asked) = asked.iter().find(|one| one.partition == partition) else {
                continue;
            };
            self.serials += 1;
            let serial = self.serials;
            let Some(owned) = self.current(asked) else {
                continue;
            };
            match answer.error {
                None => absorb(owned, serial, asked.offset, answer, io.fx),
                Some(ErrorCode::OffsetOutOfRange) => return Err(out_of_range(asked, &answer)),
                Some(ErrorCode::CorruptMessage) => {
                    io.fx
                        .note("fetch-damaged", format_args!("partition {partition}"));
                    return Err(damaged(asked));
                }
                Some(_) => {
                    let backoff = u64::from(io.settings.fetch_error_backoff_ms);
                    owned.backoff_until = io.now.plus_ms(backoff);
                    io.metadata.want(io.now);
                }
            }
        }
        Ok(())
    }

    /// True when [`Fetcher::take`] has something.
    pub(crate) fn has_news(&self) -> bool {
        self.owned
            .values()
            .any(|owned| !owned.paused && (!owned.buffer.is_empty() || owned.end_due().is_some()))
    }

    /// The next thing for the application: what arrived first.
    pub(crate) fn take(&mut self) -> Option<Polled> {
        let (partition, owned) = self
            .owned
            .iter_mut()
            .filter(|(_, owned)| !owned.paused && !owned.buffer.is_empty())
            .min_by_key(|(_, owned)| owned.buffer[0].serial)?;
        let chunk = owned.buffer.pop_front().expect("filtered on it");
        owned.buffered_records -= chunk.records;
        owned.position = Some(chunk.next);
        // Chunks without records only move the position.
        while owned.buffer.front().is_some_and(|next| next.records == 0) {
            let passed = owned.buffer.pop_front().expect("just seen");
            owned.position = Some(passed.next);
        }
        Some(Polled::Records {
            partition: *partition,
            records: records(&chunk),
        })
    }

    /// An end of partition that has to be told.
    pub(crate) fn take_end(&mut self) -> Option<Polled> {
        self.owned.iter_mut().find_map(|(partition, owned)| {
            let position = owned.end_due().filter(|_| !owned.paused)?;
            owned.end_told_at = Some(position);
            Some(Polled::EndOfPartition {
                partition: *partition,
                position,
            })
        })
    }
}

fn absorb(
    owned: &mut Owned,
    serial: u64,
    wanted: Offset,
    answer: FetchedPartition,
    fx: &mut Effects,
) {
    let partition = answer.tp.partition;
    owned.last_stable = Some(answer.last_stable_offset);
    let was_behind = owned.behind_open;
    owned.behind_open = answer.last_stable_offset < answer.high_watermark;
    if owned.behind_open && !was_behind {
        let end = answer.last_stable_offset;
        fx.note(
            "behind-open-transaction",
            format_args!("partition {partition} ends at {end}"),
        );
    }
    let filtered = filter(answer, wanted);
    if filtered.aborted > 0 {
        fx.note(
            "aborted-skipped",
            format_args!("partition {partition}: {} records", filtered.aborted),
        );
    }
    owned.fetch_from = filtered.next;
    if filtered.records == 0 && owned.buffer.is_empty() {
        owned.position = Some(filtered.next);
    } else if filtered.next > wanted {
        owned.buffered_records += filtered.records;
        owned.buffer.push_back(Chunk {
            serial,
            visible: filtered.visible,
            records: filtered.records,
            next: filtered.next,
        });
    }
}

fn records(chunk: &Chunk) -> Vec<ConsumedRecord> {
    let mut list = Vec::with_capacity(chunk.records);
    for Visible { batch, skip } in &chunk.visible {
        let Payload::Records(records) = &batch.payload else {
            unreachable!("only batches of records are visible");
        };
        let first = batch.base_offset.0;
        list.extend(
            (first..)
                .zip(records)
                .skip(*skip)
                .map(|(offset, record)| ConsumedRecord {
                    offset: Offset(offset),
                    timestamp: record.timestamp,
                    key: record.key.clone(),
                    value: record.value.clone(),
                    headers: record.headers.clone(),
                }),
        );
    }
    list
}

fn out_of_range(asked: &Asked, answer: &FetchedPartition) -> KafkaError {
    local_error(
        "poll",
        &format!(
            "OFFSET_OUT_OF_RANGE: partition {} has offsets {} to {}, not {} (reset policy: error)",
            asked.partition, answer.log_start_offset, answer.high_watermark, asked.offset
        ),
        ErrorClass::Fatal,
    )
}

/// Going on would leave out what could not be read: the consumer ends.
fn damaged(asked: &Asked) -> KafkaError {
    local_error(
        "poll",
        &format!(
            "_BAD_MSG: partition {} at offset {}: the records have a wrong CRC",
            asked.partition, asked.offset
        ),
        ErrorClass::Fatal,
    )
}
