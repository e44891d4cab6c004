//! The group's and the transactions' coordinator, the leader, and their clients.

use super::{Crashed, INPUT, Inner, POLLS_MAX, Purpose, Step, Transaction, World};
use processor::io::{
    CommittedOffset, Consumer, ErrorClass, Kafka, KafkaError, KafkaResult, OffsetAndMetadata,
    OffsetBounds, Polled, ProducerRecord, TopicDescription, TopicPartition, TransactionalProducer,
};
use processor::units::{Offset, PartitionId};
use std::collections::BTreeMap;
use std::time::Duration;

fn error(call: &'static str, code: &str, class: ErrorClass) -> KafkaError {
    KafkaError {
        call,
        code: code.into(),
        class,
    }
}

/// A call that is answered at once, or never.
async fn answer<T>(
    world: &World,
    call: &'static str,
    effect: impl FnOnce(&mut Inner) -> KafkaResult<T>,
) -> KafkaResult<T> {
    let scripted = |class| error(call, "SCRIPTED", class);
    let answered = world.lock().call(call, scripted, effect);
    match answered {
        Ok(result) => result,
        Err(Crashed) => std::future::pending().await,
    }
}

pub struct FakeKafka(World);

impl FakeKafka {
    pub fn new(world: &World) -> FakeKafka {
        FakeKafka(world.clone())
    }
}

impl Kafka for FakeKafka {
    type GroupMetadata = u64;
    type Consumer = FakeConsumer;
    type Producer = FakeProducer;

    fn consumer(&mut self, _group: &str) -> KafkaResult<FakeConsumer> {
        Ok(FakeConsumer {
            world: self.0.clone(),
            owned: BTreeMap::new(),
            unanswered: 0,
        })
    }

    fn producer(&mut self, transactional_id: &str) -> KafkaResult<FakeProducer> {
        Ok(FakeProducer {
            world: self.0.clone(),
            id: transactional_id.to_owned(),
            epoch: None,
        })
    }
}

#[derive(Debug, Default)]
struct Fetching {
    position: Option<i64>,
    paused: bool,
    end_told_at: Option<i64>,
}

pub struct FakeConsumer {
    world: World,
    owned: BTreeMap<PartitionId, Fetching>,
    /// Rebalances that were told and not answered: nothing is delivered meanwhile.
    unanswered: u32,
}

/// What the next step of the script makes of a poll.
enum Next {
    Polled(Polled),
    Natural,
    Again,
    Crash,
}

impl FakeConsumer {
    fn owned(&mut self, partition: PartitionId) -> KafkaResult<&mut Fetching> {
        self.owned
            .get_mut(&partition)
            .ok_or_else(|| error("assignment", "NOT_OWNED", ErrorClass::Fatal))
    }

    /// A call that the client answers by itself.
    fn local(&self, call: &'static str, arguments: &str) -> KafkaResult<()> {
        let line = format!("{call} {arguments}");
        match self.world.lock().call_fails(&line) {
            Some(class) => Err(error(call, "SCRIPTED", class)),
            None => Ok(()),
        }
    }

    /// Something to deliver, if there is.
    fn deliver(&mut self, inner: &mut Inner) -> Option<Polled> {
        if self.unanswered > 0 {
            return None;
        }
        for (&partition, fetching) in &mut self.owned {
            let (Some(position), false) = (fetching.position, fetching.paused) else {
                continue;
            };
            let log = &inner.logs[&partition];
            let records: Vec<_> = log
                .records
                .iter()
                .filter(|record| (position..log.fetchable).contains(&record.offset.0))
                .take(inner.batch)
                .cloned()
                .collect();
            if let Some(last) = records.last() {
                fetching.position = Some(last.offset.0 + 1);
                inner.now_ms += inner.delivery_ms;
                return Some(Polled::Records { partition, records });
            }
            let end = position.max(log.fetchable);
            if fetching.end_told_at != Some(end) {
                (fetching.position, fetching.end_told_at) = (Some(end), Some(end));
                let position = Offset(end);
                return Some(Polled::EndOfPartition {
                    partition,
                    position,
                });
            }
        }
        None
    }

    fn follow_script(&mut self, inner: &mut Inner) -> Next {
        match inner.script.pop_front() {
            None | Some(Step::Stop) => {
                inner.stop.stop();
                Next::Polled(Polled::TimedOut)
            }
            Some(Step::Give(polled)) => {
                self.rebalance(inner, &polled);
                Next::Polled(polled)
            }
            Some(Step::Read) => match self.deliver(inner) {
                Some(polled) => {
                    inner.script.push_front(Step::Read);
                    Next::Polled(polled)
                }
                None => Next::Again,
            },
            Some(Step::Polls(0)) => Next::Again,
            Some(Step::Polls(polls)) => {
                inner.script.push_front(Step::Polls(polls - 1));
                Next::Natural
            }
            Some(Step::Wait(0)) => Next::Again,
            Some(Step::Wait(ms)) => {
                inner.script.push_front(Step::Wait(ms));
                Next::Natural
            }
            Some(Step::Do(hook)) => {
                hook(inner);
                Next::Again
            }
            Some(Step::Crash) => Next::Crash,
        }
    }

    fn rebalance(&mut self, inner: &mut Inner, polled: &Polled) {
        match polled {
            Polled::Assigned(partitions) => {
                inner.generation += 1;
                inner.in_group = true;
                for partition in partitions {
                    inner.lost.remove(partition);
                }
            }
            Polled::Lost(partitions) => {
                inner.generation += 1;
                inner.in_group = false;
                inner.lost.extend(partitions);
            }
            Polled::Revoked(_) => {}
            _ => return,
        }
        self.unanswered += 1;
    }

    fn poll_now(&mut self, inner: &mut Inner, timeout: Duration) -> Result<Polled, Crashed> {
        inner.polls += 1;
        assert!(inner.polls < POLLS_MAX, "the run does not end");
        let before_ms = inner.now_ms;
        let polled = loop {
            match self.follow_script(inner) {
                Next::Again => {}
                Next::Polled(polled) => break polled,
                Next::Crash => return Err(Crashed),
                Next::Natural => {
                    break self.deliver(inner).unwrap_or_else(|| {
                        let waited = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                        let rest = match inner.script.front() {
                            Some(Step::Wait(ms)) => *ms,
                            _ => u64::MAX,
                        };
                        if !timeout.is_zero() {
                            inner.now_ms += waited.clamp(1, 1_000).min(rest);
                        }
                        Polled::TimedOut
                    });
                }
            }
        };
        if let Some(Step::Wait(ms)) = inner.script.front_mut() {
            *ms = ms.saturating_sub(inner.now_ms - before_ms);
        }
        Ok(polled)
    }
}

impl Consumer for FakeConsumer {
    type GroupMetadata = u64;

    fn subscribe(&mut self, _topic: &str) -> KafkaResult<()> {
        self.world.lock().journal.push("subscribe".into());
        Ok(())
    }

    async fn poll(&mut self, timeout: Duration) -> KafkaResult<Polled> {
        let world = self.world.clone();
        let mut crashed = false;
        let polled = answer(&world, "poll", |inner| {
            let polled = self.poll_now(inner, timeout);
            crashed = polled.is_err();
            Ok(polled.unwrap_or(Polled::TimedOut))
        })
        .await?;
        if crashed {
            world.lock().is_dead = true;
            return std::future::pending().await;
        }
        Ok(polled)
    }

    fn accept(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.local("accept", &format!("{partitions:?}"))?;
        for &partition in partitions {
            self.owned.insert(partition, Fetching::default());
        }
        Ok(())
    }

    fn release(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.local("release", &format!("{partitions:?}"))?;
        for partition in partitions {
            self.owned.remove(partition);
        }
        Ok(())
    }

    fn start_at(&mut self, partition: PartitionId, offset: Offset) -> KafkaResult<()> {
        self.local("start_at", &format!("{partition} {offset}"))?;
        let fetching = self.owned(partition)?;
        fetching.position = Some(offset.0);
        fetching.end_told_at = None;
        Ok(())
    }

    fn pause(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        self.local("pause", &format!("{partitions:?}"))?;
        for &partition in partitions {
            self.owned(partition)?.paused = true;
        }
        Ok(())
    }

    fn resume(&mut self, partitions: &[PartitionId]) -> KafkaResult<()> {
        self.local("resume", &format!("{partitions:?}"))?;
        for &partition in partitions {
            self.owned(partition)?.paused = false;
        }
        Ok(())
    }

    async fn committed(
        &mut self,
        partitions: &[TopicPartition],
        _timeout: Duration,
    ) -> KafkaResult<Vec<Option<CommittedOffset>>> {
        answer(&self.world, "committed", |inner| {
            let mut pending = inner.open.values().flat_map(|open| &open.offsets);
            let is_pending =
                |tp: &TopicPartition| tp.topic == INPUT && inner.is_pending.contains(&tp.partition);
            if pending.any(|offset| partitions.contains(&offset.tp))
                || partitions.iter().any(is_pending)
            {
                let class = ErrorClass::Retriable;
                return Err(error("committed", "UNSTABLE_OFFSET_COMMIT", class));
            }
            let is_stale = inner.stale_answers > 0;
            inner.stale_answers = inner.stale_answers.saturating_sub(1);
            let answer = |tp: &TopicPartition| match (tp.topic == INPUT, is_stale) {
                (true, false) => inner.committed.get(&tp.partition).cloned(),
                (true, true) => inner.remembered.get(&tp.partition).cloned(),
                (false, false) => inner.marks.get(tp).cloned(),
                // It remembers a mark too: an older one of the same worker.
                (false, true) => Some(CommittedOffset {
                    offset: Offset(0),
                    metadata: "mark 0 of run-1".into(),
                }),
            };
            Ok(partitions.iter().map(answer).collect())
        })
        .await
    }

    async fn bounds(
        &mut self,
        partition: PartitionId,
        _timeout: Duration,
    ) -> KafkaResult<OffsetBounds> {
        answer(&self.world, "bounds", |inner| {
            let log = &inner.logs[&partition];
            Ok(OffsetBounds {
                earliest: Offset(log.earliest),
                last_stable: Offset(log.last_stable),
            })
        })
        .await
    }

    async fn describe_topic(
        &mut self,
        _topic: &str,
        _timeout: Duration,
    ) -> KafkaResult<TopicDescription> {
        answer(&self.world, "describe_topic", |inner| {
            Ok(TopicDescription {
                topic_id: inner.topic_id.clone(),
                partitions: inner.partitions,
            })
        })
        .await
    }

    fn group_metadata(&self) -> Option<u64> {
        let inner = self.world.lock();
        (inner.in_group && !inner.never_in_group).then_some(inner.generation)
    }

    async fn close(self, _timeout: Duration) {
        let mut inner = self.world.lock();
        inner.journal.push("close".into());
        inner.in_group = false;
        inner.generation += 1;
    }
}

pub struct FakeProducer {
    world: World,
    id: String,
    epoch: Option<u64>,
}

impl FakeProducer {
    fn open<'a>(
        &self,
        inner: &'a mut Inner,
        call: &'static str,
    ) -> KafkaResult<&'a mut Transaction> {
        self.check_epoch(inner, call)?;
        let no_transaction = error(call, "INVALID_TXN_STATE", ErrorClass::Fatal);
        inner.open.get_mut(&self.id).ok_or(no_transaction)
    }

    /// What the open transaction is for.
    fn purpose(&self) -> Purpose {
        let inner = self.world.lock();
        let open = inner.open.get(&self.id);
        open.map_or(Purpose::Work, |open| Purpose::of(&open.offsets))
    }

    fn check_epoch(&self, inner: &Inner, call: &'static str) -> KafkaResult<()> {
        if self.epoch.is_none() || self.epoch.as_ref() != inner.epochs.get(&self.id) {
            return Err(error(call, "PRODUCER_FENCED", ErrorClass::Fenced));
        }
        Ok(())
    }
}

impl TransactionalProducer for FakeProducer {
    type GroupMetadata = u64;

    async fn init_transactions(&mut self, _timeout: Duration) -> KafkaResult<()> {
        let id = self.id.clone();
        let epoch = &mut self.epoch;
        answer(&self.world, "init_transactions", |inner| {
            let newest = inner.epochs.entry(id.clone()).or_default();
            *newest += 1;
            *epoch = Some(*newest);
            inner.aborted.extend(inner.open.remove(&id));
            inner.tainted = false;
            Ok(())
        })
        .await
    }

    fn begin_transaction(&mut self) -> KafkaResult<()> {
        let mut inner = self.world.lock();
        if let Some(class) = inner.call_fails("begin_transaction") {
            inner.ended.remove(&self.id);
            return Err(error("begin_transaction", "SCRIPTED", class));
        }
        self.check_epoch(&inner, "begin_transaction")?;
        if inner.tainted {
            inner
                .broken
                .push("a tainted producer began a transaction".into());
        }
        inner.ended.remove(&self.id);
        let transaction = Transaction {
            records: Vec::new(),
            offsets: Vec::new(),
            generation: None,
            epoch: self.epoch.expect("it was checked"),
        };
        if inner.open.insert(self.id.clone(), transaction).is_some() {
            inner
                .broken
                .push("a transaction began within another".into());
        }
        Ok(())
    }

    async fn send(&mut self, record: ProducerRecord) -> KafkaResult<()> {
        answer(&self.world, "send", |inner| {
            self.open(inner, "send")?.records.push(record);
            Ok(())
        })
        .await
    }

    async fn send_offsets_to_transaction(
        &mut self,
        offsets: &[OffsetAndMetadata],
        group: &u64,
        _timeout: Duration,
    ) -> KafkaResult<()> {
        let call = match Purpose::of(offsets) {
            Purpose::Work => "send_offsets_to_transaction",
            Purpose::Mark => "send_mark",
            Purpose::Opening => "send_opening",
        };
        answer(&self.world, call, |inner| {
            if inner.generation != *group {
                return Err(error(call, "ILLEGAL_GENERATION", ErrorClass::RequiresAbort));
            }
            let open = self.open(inner, call)?;
            open.offsets = offsets.to_vec();
            open.generation = Some(*group);
            Ok(())
        })
        .await
    }

    async fn commit_transaction(&mut self, _timeout: Duration) -> KafkaResult<()> {
        let call = match self.purpose() {
            Purpose::Work => "commit_transaction",
            Purpose::Mark => "commit_mark",
            Purpose::Opening => "commit_opening",
        };
        answer(&self.world, call, |inner| {
            self.check_epoch(inner, call)?;
            if inner.ended.contains(&self.id) {
                return Ok(()); // the same commit again
            }
            self.open(inner, call)?;
            let transaction = inner.open.remove(&self.id).expect("it is open");
            inner.ended.insert(self.id.clone());
            inner.commit(transaction);
            Ok(())
        })
        .await
    }

    async fn abort_transaction(&mut self, _timeout: Duration) -> KafkaResult<()> {
        let call = match self.purpose() {
            Purpose::Work => "abort_transaction",
            Purpose::Mark => "abort_mark",
            Purpose::Opening => "abort_opening",
        };
        answer(&self.world, call, |inner| {
            if inner.ended.contains(&self.id) {
                inner.broken.push("an abort after a commit".into());
            }
            self.check_epoch(inner, call)?;
            inner.aborted.extend(inner.open.remove(&self.id));
            Ok(())
        })
        .await
    }

    fn is_tainted(&self) -> bool {
        self.world.lock().tainted
    }
}
