//! Generated histories of requests, which the simulated and a genuine cluster must answer alike.
//!
//! Comes in: a seed. Goes out: a [`History`], what a cluster [`observe`]s while it is played, and the
//! smallest part of a history that is still answered differently.
//! Never here: results that depend on time (who is asked again, and when, is the affair of `wire`); the
//! numbers that clusters choose freely (producer ids, member ids).

use super::raw::RawProducer;
use super::steps::topic;
use super::wire::{Identity, Wire, commit_of, tp};
use super::{ClusterUnderTest, Failure, Topic, Trouble};
use crate::draw::draw;
use crate::kafka::protocol::{CoordinatorKey, ErrorCode, RebalanceProtocol, Request};
use std::collections::BTreeMap;
use std::fmt::Debug;

const PARTITIONS: i32 = 2;
const PRODUCERS: usize = 2;
const STEPS_MIN: u64 = 8;
const STEPS_MAX: u64 = 24;
/// Longer than any history takes.
const SESSION_MS: u32 = 120_000;

/// Which producer acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The newest with this transactional id.
    Newest(usize),
    /// The one before it, fenced by now.
    Former(usize),
}

/// In whose name offsets are committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Generation −1, no member id.
    Nobody,
    /// The group's member.
    Member,
    /// The group's member, with an older generation.
    Older,
    /// A member that has left.
    Left,
}

/// Which batch is produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The next one, with so many records.
    Next(usize),
    /// The last one again.
    Again,
    /// One that leaves a gap.
    Gap,
}

/// One step of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of Kafka's requests")]
pub enum Step {
    Init(usize),
    AddPartition(Who, i32),
    AddOffsets(Who),
    Produce(Who, i32, Which),
    CommitOffset(Who, Name, i32, i64),
    /// Offset metadata that is too long.
    CommitTooMuch(Who, i32),
    End(Who, bool),
    PlainProduce(i32, Which),
    PlainCommit(Name, i32, i64),
    FetchOffsets(bool),
    Ends(i32),
    Read(i32),
    DeleteRecords(i32, i64),
    Join,
    Heartbeat(Name),
    Leave,
    DeleteGroup,
    KillLeader(i32),
    KillTransactionCoordinator(usize),
    KillGroupCoordinator,
}

/// A sequence of steps, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The steps.
    pub steps: Vec<Step>,
}

/// Draws in order.
struct Draws {
    seed: u64,
    made: u64,
}

impl Draws {
    fn below(&mut self, end: u64) -> u64 {
        self.made += 1;
        draw(self.seed, "contract", "history", self.made) % end
    }

    fn partition(&mut self) -> i32 {
        i32::try_from(self.below(PARTITIONS.unsigned_abs().into())).expect("two partitions")
    }

    fn producer(&mut self) -> usize {
        usize::try_from(self.below(PRODUCERS as u64)).expect("two producers")
    }

    fn offset(&mut self) -> i64 {
        i64::try_from(self.below(12)).expect("twelve offsets")
    }

    fn who(&mut self) -> Who {
        let producer = self.producer();
        match self.below(6) {
            0 => Who::Former(producer),
            _ => Who::Newest(producer),
        }
    }

    fn name(&mut self) -> Name {
        match self.below(8) {
            0 => Name::Older,
            1 => Name::Left,
            2..=4 => Name::Member,
            _ => Name::Nobody,
        }
    }

    fn which(&mut self) -> Which {
        match self.below(8) {
            0 => Which::Again,
            1 => Which::Gap,
            2 => Which::Next(3),
            _ => Which::Next(1),
        }
    }

    /// Mostly what a careful client does next; sometimes anything.
    fn step(&mut self) -> Step {
        match self.below(40) {
            0..=3 => Step::Init(self.producer()),
            4..=8 => Step::AddPartition(self.who(), self.partition()),
            9..=11 => Step::AddOffsets(self.who()),
            12..=16 => Step::Produce(self.who(), self.partition(), self.which()),
            17..=19 => Step::CommitOffset(self.who(), self.name(), self.partition(), self.offset()),
            20 => Step::CommitTooMuch(self.who(), self.partition()),
            21..=25 => Step::End(self.who(), self.below(3) > 0),
            26..=27 => Step::PlainProduce(self.partition(), self.which()),
            28 => Step::PlainCommit(self.name(), self.partition(), self.offset()),
            29..=30 => Step::FetchOffsets(self.below(2) > 0),
            31..=32 => Step::Ends(self.partition()),
            33 => Step::Read(self.partition()),
            34 => Step::DeleteRecords(self.partition(), self.offset() - 1),
            35..=36 => Step::Join,
            37 => Step::Heartbeat(self.name()),
            38 => Step::Leave,
            _ => Step::DeleteGroup,
        }
    }

    /// A transaction as the processor makes them, so that histories come far.
    fn transaction(&mut self) -> Vec<Step> {
        let who = Who::Newest(self.producer());
        let (output, input) = (self.partition(), self.partition());
        vec![
            Step::AddPartition(who, output),
            Step::Produce(who, output, self.which()),
            Step::AddOffsets(who),
            Step::CommitOffset(who, self.name(), input, self.offset()),
            Step::End(who, self.below(3) > 0),
        ]
    }

    fn kill(&mut self) -> Step {
        match self.below(3) {
            0 => Step::KillLeader(self.partition()),
            1 => Step::KillTransactionCoordinator(self.producer()),
            _ => Step::KillGroupCoordinator,
        }
    }
}

/// The history of a seed; with `kills`, one broker dies in it.
#[must_use]
pub fn generate(seed: u64, kills: bool) -> History {
    let mut draws = Draws { seed, made: 0 };
    let length = STEPS_MIN + draws.below(STEPS_MAX - STEPS_MIN);
    let mut steps = vec![Step::Init(0), Step::Init(1)];
    while (steps.len() as u64) < length {
        match draws.below(6) {
            0 => steps.extend(draws.transaction()),
            _ => steps.push(draws.step()),
        }
    }
    if kills {
        let at = 2 + draws.below(steps.len() as u64 - 2);
        let at = usize::try_from(at).expect("histories are short");
        steps.insert(at, draws.kill());
    }
    History { steps }
}

/// What lives while a history is played.
struct Scene {
    topic: Topic,
    group: String,
    ids: [String; PRODUCERS],
    newest: [Option<Actor>; PRODUCERS],
    former: [Option<Actor>; PRODUCERS],
    plain: Actor,
    member: Option<Identity>,
    left: Option<Identity>,
    produced: u32,
}

/// A producer that remembers its last batches.
struct Actor {
    raw: RawProducer,
    last: BTreeMap<i32, (i32, Vec<String>)>,
}

impl Actor {
    fn new(raw: RawProducer) -> Actor {
        Actor {
            raw,
            last: BTreeMap::new(),
        }
    }
}

/// Plays a history; the answers, one a step, and at the end all that can be seen.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn observe<C: ClusterUnderTest>(
    c: &mut C,
    history: &History,
) -> Result<Vec<String>, Failure> {
    let topic = topic(c, PARTITIONS.unsigned_abs()).await?;
    let mut scene = Scene {
        group: c.name("g"),
        ids: [c.name("t"), c.name("t")],
        newest: [None, None],
        former: [None, None],
        plain: Actor::new(RawProducer::plain(c).await?),
        member: None,
        left: None,
        produced: 0,
        topic,
    };
    let mut seen = Vec::new();
    for step in &history.steps {
        let answer = scene.play(c, *step).await?;
        seen.push(format!("{step:?}: {answer}"));
    }
    for producer in 0..PRODUCERS {
        let answer = scene.play(c, Step::Init(producer)).await?;
        seen.push(format!("at the end, {:?}: {answer}", Step::Init(producer)));
    }
    for partition in 0..PARTITIONS {
        for step in [Step::Ends(partition), Step::Read(partition)] {
            let answer = scene.play(c, step).await?;
            seen.push(format!("at the end, {step:?}: {answer}"));
        }
    }
    let offsets = scene.play(c, Step::FetchOffsets(true)).await?;
    seen.push(format!("at the end, offsets: {offsets}"));
    if scene.member.is_some() {
        scene.play(c, Step::Leave).await?;
    }
    Ok(seen)
}

fn tell<T: Debug>(result: Result<T, ErrorCode>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(code) => code.name(),
    }
}

impl Scene {
    fn actor(&mut self, who: Who) -> Option<&mut Actor> {
        match who {
            Who::Newest(producer) => self.newest[producer].as_mut(),
            Who::Former(producer) => self.former[producer].as_mut(),
        }
    }

    fn identity(&self, name: Name) -> Identity {
        let known = match name {
            Name::Nobody => None,
            Name::Member => self.member.clone(),
            Name::Older => self.member.clone().map(|member| Identity {
                generation: member.generation - 1,
                ..member
            }),
            Name::Left => self.left.clone(),
        };
        known.unwrap_or_else(Identity::nobody)
    }

    async fn play<C: ClusterUnderTest>(
        &mut self,
        c: &mut C,
        step: Step,
    ) -> Result<String, Failure> {
        match step {
            Step::Init(producer) => self.init(c, producer).await,
            Step::AddPartition(who, partition) => {
                let partition = tp(&self.topic, partition);
                let Some(actor) = self.actor(who) else {
                    return Ok("nobody".into());
                };
                Ok(tell(actor.raw.add(c, &[partition]).await?))
            }
            Step::AddOffsets(who) => {
                let group = self.group.clone();
                let Some(actor) = self.actor(who) else {
                    return Ok("nobody".into());
                };
                Ok(tell(actor.raw.add_offsets(c, &group).await?))
            }
            Step::Produce(who, partition, which) => {
                self.produce(c, Some(who), partition, which).await
            }
            Step::PlainProduce(partition, which) => self.produce(c, None, partition, which).await,
            Step::CommitOffset(who, name, partition, offset) => {
                self.commit(c, who, name, partition, offset, "m").await
            }
            Step::CommitTooMuch(who, partition) => {
                let metadata = "é".repeat(4_097);
                self.commit(c, who, Name::Nobody, partition, 1, &metadata)
                    .await
            }
            Step::End(who, commits) => {
                let Some(actor) = self.actor(who) else {
                    return Ok("nobody".into());
                };
                let first = actor.raw.end(c, commits).await?;
                if first.is_ok() {
                    // Until its markers are written.
                    actor.raw.end(c, commits).await?.ok();
                }
                Ok(tell(first))
            }
            Step::Ends(partition) => {
                let ends = c.ends(tp(&self.topic, partition)).await?;
                Ok(format!("{ends:?}"))
            }
            Step::Read(partition) => {
                let read = c.read(tp(&self.topic, partition)).await?;
                Ok(format!("{read:?}"))
            }
            Step::DeleteRecords(partition, before) => {
                let result = c.delete_records(tp(&self.topic, partition), before).await?;
                Ok(tell(result))
            }
            Step::KillLeader(partition) => {
                let broker = c.leader(tp(&self.topic, partition)).await?;
                c.harm(broker, Trouble::Killed).await?;
                self.settle(c).await
            }
            Step::KillTransactionCoordinator(producer) => {
                let key = CoordinatorKey::Transaction(self.ids[producer].as_str().into());
                let broker = c.coordinator(&key).await?;
                c.harm(broker, Trouble::Killed).await?;
                self.settle(c).await
            }
            Step::KillGroupCoordinator => {
                let key = CoordinatorKey::Group(self.group.as_str().into());
                let broker = c.coordinator(&key).await?;
                c.harm(broker, Trouble::Killed).await?;
                self.settle(c).await
            }
            step => self.play_group(c, step).await,
        }
    }

    async fn settle<C: ClusterUnderTest>(&mut self, c: &mut C) -> Result<String, Failure> {
        c.heal().await?;
        Ok("healed".into())
    }

    /// Requests about the group.
    async fn play_group<C: ClusterUnderTest>(
        &mut self,
        c: &mut C,
        step: Step,
    ) -> Result<String, Failure> {
        let group = self.group.clone();
        match step {
            Step::PlainCommit(name, partition, offset) => {
                let commit = commit_of(tp(&self.topic, partition), offset, "plain");
                let result = c.commit_plain(&group, &self.identity(name), commit).await?;
                Ok(tell(result))
            }
            Step::FetchOffsets(stable) => {
                let asked: Vec<_> = (0..PARTITIONS).map(|p| tp(&self.topic, p)).collect();
                Ok(tell(c.offsets(&group, stable, &asked).await?))
            }
            Step::Join => {
                // With a second member a join would wait for the first one.
                if self.member.is_some() {
                    return Ok("joined already".into());
                }
                let protocol = RebalanceProtocol::Eager;
                let joined = c.join_as_ghost(&group, &self.topic, protocol, SESSION_MS);
                let member = joined.await?;
                let synced = c.sync_as_ghost(&group, &member, &[0, 1]).await?;
                let generation = member.generation;
                self.member = Some(member);
                Ok(format!("generation {generation}, {}", tell(synced)))
            }
            Step::Heartbeat(name) => {
                let identity = self.identity(name);
                if identity == Identity::nobody() {
                    return Ok("nobody".into());
                }
                Ok(tell(c.heartbeat(&group, &identity).await?))
            }
            Step::Leave => {
                let Some(member) = self.member.take() else {
                    return Ok("nobody".into());
                };
                let request = Request::LeaveGroup {
                    group: group.as_str().into(),
                    member_id: member.member_id.clone(),
                };
                self.left = Some(member);
                c.ask_group(&group, request).await?;
                Ok("left".into())
            }
            Step::DeleteGroup => Ok(match c.delete_group(&group).await? {
                // Versions differ in whether a refused commit makes a group exist.
                Ok(()) | Err(ErrorCode::GroupIdNotFound) => "gone".into(),
                Err(code) => code.name(),
            }),
            step => Err(Failure(format!("{step:?} is no affair of the group"))),
        }
    }

    async fn init<C: ClusterUnderTest>(
        &mut self,
        c: &mut C,
        producer: usize,
    ) -> Result<String, Failure> {
        let opened = RawProducer::transactional(c, &self.ids[producer], 600_000).await?;
        let raw = match opened {
            Ok(raw) => raw,
            Err(code) => return Ok(code.name()),
        };
        let known = self.newest[producer].take();
        let same = known.as_ref().map(|known| known.raw.id == raw.id);
        let told = format!("epoch {}, same producer: {same:?}", raw.epoch);
        if known.is_some() {
            self.former[producer] = known;
        }
        self.newest[producer] = Some(Actor::new(raw));
        Ok(told)
    }

    async fn produce<C: ClusterUnderTest>(
        &mut self,
        c: &mut C,
        who: Option<Who>,
        partition: i32,
        which: Which,
    ) -> Result<String, Failure> {
        let place = tp(&self.topic, partition);
        self.produced += 1;
        let number = self.produced;
        let actor = match who {
            Some(who) => self.actor(who),
            None => Some(&mut self.plain),
        };
        let Some(actor) = actor else {
            return Ok("nobody".into());
        };
        let last = actor.last.get(&partition).cloned();
        let values = |count: usize| (0..count).map(|n| format!("{number}.{n}")).collect();
        let (sequence, values): (i32, Vec<String>) = match (which, last) {
            (Which::Again, Some(last)) => last,
            // Of a producer that a partition does not know, genuine brokers take any sequence.
            (Which::Gap, Some((sequence, _))) => (sequence + 7, values(1)),
            (Which::Next(count), Some((sequence, former))) => {
                let former = i32::try_from(former.len()).expect("few records");
                (sequence + former, values(count))
            }
            (Which::Next(count), None) => (0, values(count)),
            (Which::Again | Which::Gap, None) => (0, values(1)),
        };
        let texts: Vec<&str> = values.iter().map(String::as_str).collect();
        let result = actor.raw.produce_at(c, place, sequence, &texts).await?;
        if result.is_ok() {
            actor.last.insert(partition, (sequence, values));
        }
        Ok(tell(result))
    }

    async fn commit<C: ClusterUnderTest>(
        &mut self,
        c: &mut C,
        who: Who,
        name: Name,
        partition: i32,
        offset: i64,
        metadata: &str,
    ) -> Result<String, Failure> {
        let commit = commit_of(tp(&self.topic, partition), offset, metadata);
        let (group, identity) = (self.group.clone(), self.identity(name));
        let Some(actor) = self.actor(who) else {
            return Ok("nobody".into());
        };
        let offsets = vec![commit];
        let result = actor
            .raw
            .commit_offsets(c, &group, &identity, offsets)
            .await?;
        Ok(tell(result))
    }
}

/// The smallest part of a history that is still answered differently, by leaving out one step after
/// the other.
pub fn shrink(history: &History, mut differs: impl FnMut(&History) -> bool) -> History {
    let mut smallest = history.clone();
    let mut at = smallest.steps.len();
    while at > 0 {
        at -= 1;
        let mut smaller = smallest.clone();
        smaller.steps.remove(at);
        if differs(&smaller) {
            smallest = smaller;
        }
    }
    smallest
}

/// The first answers that differ.
#[must_use]
pub fn difference(one: &[String], other: &[String]) -> Option<(String, String)> {
    let missing = || "nothing".to_owned();
    let length = one.len().max(other.len());
    let pair = |index: usize| {
        let (one, other) = (one.get(index).cloned(), other.get(index).cloned());
        (one.unwrap_or_else(missing), other.unwrap_or_else(missing))
    };
    (0..length).map(pair).find(|(one, other)| one != other)
}
