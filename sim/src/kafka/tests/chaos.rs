//! A cluster under random trouble: whatever was acknowledged stands, everything ends, all replicas
//! agree. The clients are careful (a new producer after every doubt).

use super::transactions::Producer;
use super::*;
use crate::kafka::protocol::CoordinatorKey;
use std::collections::BTreeSet;

/// A small generator: every draw of a run comes from its seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// What became of the transactions, as their client knows it.
#[derive(Default)]
struct Ledger {
    committed: BTreeSet<String>,
    aborted: BTreeSet<String>,
    unknown: BTreeSet<String>,
}

const FIRST: TopicPartition = tp_const(0);
const SECOND: TopicPartition = tp_const(1);
const NAME: &str = "tx";
const CHAOS_GROUP: &str = "chaos";

const fn tp_const(partition: i32) -> TopicPartition {
    TopicPartition {
        topic: INPUT,
        partition: PartitionId(partition),
    }
}

impl World {
    /// The leader as metadata tells, if there is one.
    fn maybe_leader(&self, tp: TopicPartition) -> Option<BrokerId> {
        let slot = self.brokers[0].layout().slot(tp).expect("exists");
        self.controller.image().partitions[slot].leader
    }

    /// Asks a partition's leader; `None`: no answer in time.
    fn try_ask(&mut self, tp: TopicPartition, request: Request) -> Option<Response> {
        let leader = self.maybe_leader(tp)?;
        let correlation = self.send(leader, request);
        for _ in 0..1_000 {
            if let Some(answer) = self.answers.remove(&correlation) {
                return Some(answer);
            }
            self.run(3);
        }
        None
    }

    fn try_init(&mut self) -> Producer {
        let tp = self.brokers[0].layout().transaction_partition(NAME);
        loop {
            let request = Request::InitProducerId {
                transactional_id: Some(NAME.into()),
                transaction_timeout_ms: 10_000,
            };
            if let Some(Response::InitProducerId(Ok((id, epoch)))) = self.try_ask(tp, request) {
                return Producer {
                    name: NAME.into(),
                    id,
                    epoch,
                    sequences: BTreeMap::new(),
                };
            }
            self.run(100);
        }
    }

    /// Asks again while the answer is that something is under way.
    fn insist(&mut self, tp: TopicPartition, request: &Request) -> Option<()> {
        for _ in 0..50 {
            let result = match self.try_ask(tp, request.clone())? {
                Response::AddPartitionsToTxn(result)
                | Response::AddOffsetsToTxn(result)
                | Response::TxnOffsetCommit(result) => result,
                Response::Produce(results) => results[0].1.map(|_| ()),
                other => panic!("{other:?}"),
            };
            match result {
                Ok(()) => return Some(()),
                Err(ErrorCode::ConcurrentTransactions | ErrorCode::NotEnoughReplicas) => {
                    self.run(20);
                }
                Err(_) => return None,
            }
        }
        None
    }

    /// Everything of a transaction but its end.
    fn fill(&mut self, producer: &mut Producer, text: &str) -> Option<()> {
        let coordinator = self.brokers[0].layout().transaction_partition(NAME);
        let group = self.brokers[0].layout().group_partition(CHAOS_GROUP);
        let add = Request::AddPartitionsToTxn {
            transactional_id: NAME.into(),
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            partitions: vec![FIRST, SECOND],
        };
        self.insist(coordinator, &add)?;
        for tp in [FIRST, SECOND] {
            let batch = World::transactional(producer, tp, &[text]);
            self.insist(tp, &World::produce_request(tp, batch))?;
        }
        let add = Request::AddOffsetsToTxn {
            transactional_id: NAME.into(),
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            group: CHAOS_GROUP.into(),
        };
        self.insist(coordinator, &add)?;
        let commit = Request::TxnOffsetCommit {
            transactional_id: NAME.into(),
            group: CHAOS_GROUP.into(),
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            generation: -1,
            member_id: "".into(),
            offsets: vec![OffsetCommit {
                tp: FIRST,
                offset: Offset(1),
                metadata: text.into(),
            }],
        };
        self.insist(group, &commit)
    }

    fn transaction(
        &mut self,
        producer: &mut Producer,
        text: &str,
        commit: bool,
        ledger: &mut Ledger,
    ) {
        let coordinator = self.brokers[0].layout().transaction_partition(NAME);
        if self.fill(producer, text).is_none() {
            ledger.aborted.insert(text.to_owned());
            *producer = self.try_init();
            return;
        }
        match self.try_ask(coordinator, World::end_request(producer, commit)) {
            Some(Response::EndTxn(Ok(()))) if commit => {
                ledger.committed.insert(text.to_owned());
            }
            Some(Response::EndTxn(Ok(()))) => {
                ledger.aborted.insert(text.to_owned());
            }
            _ => {
                let fate = match commit {
                    true => &mut ledger.unknown,
                    false => &mut ledger.aborted,
                };
                fate.insert(text.to_owned());
                *producer = self.try_init();
            }
        }
    }

    /// One piece of trouble, or its end.
    fn disturb(&mut self, draw: &mut Draw, down: &mut Option<BrokerId>) {
        if let Some(id) = down.take() {
            self.restart(id);
            return;
        }
        let id = BrokerId(u32::try_from(draw.below(3)).expect("small") + 1);
        match draw.below(4) {
            0 | 1 => {
                self.crash(id);
                *down = Some(id);
            }
            2 => self.rule = Some(isolate(id)),
            _ => {
                let mut inner = Draw(draw.below(u64::MAX));
                self.rule = Some(Box::new(move |from, to, _| {
                    let inside = from.0 <= 3 && to.0 <= 3;
                    match inner.below(100) {
                        0..10 if inside => Fate::Lose,
                        10..30 => Fate::Twice,
                        _ => Fate::Deliver,
                    }
                }));
            }
        }
    }
}

fn survives(seed: u64) {
    let mut world = World::new();
    let mut draw = Draw(seed);
    let mut ledger = Ledger::default();
    let mut down = None;
    let mut producer = world.try_init();
    for number in 0..120 {
        if draw.below(4) == 0 {
            world.rule = None;
            world.disturb(&mut draw, &mut down);
        }
        let commit = draw.below(5) > 0;
        world.transaction(&mut producer, &format!("t{number}"), commit, &mut ledger);
        world.run(draw.below(2_000));
    }
    world.rule = None;
    if let Some(id) = down {
        world.restart(id);
    }
    world.run(60_000);
    judge(&world, &ledger, seed);
}

fn judge(world: &World, ledger: &Ledger, seed: u64) {
    let first = world.visible(FIRST);
    assert_eq!(
        first,
        world.visible(SECOND),
        "seed {seed}: half a transaction"
    );
    let offsets: Vec<String> = world
        .history(CHAOS_GROUP)
        .iter()
        .map(|commit| commit.metadata.to_string())
        .collect();
    assert_eq!(
        first, offsets,
        "seed {seed}: offsets without outputs or outputs without offsets"
    );
    let visible: BTreeSet<String> = first.iter().cloned().collect();
    assert_eq!(
        visible.len(),
        first.len(),
        "seed {seed}: something is there twice"
    );
    for text in &ledger.committed {
        assert!(
            visible.contains(text),
            "seed {seed}: {text} was acknowledged and is lost"
        );
    }
    for text in &visible {
        assert!(
            !ledger.aborted.contains(text),
            "seed {seed}: {text} was aborted"
        );
    }
    assert!(
        ledger.committed.len() > 20,
        "seed {seed}: {}",
        ledger.committed.len()
    );
    let layout = world.brokers[0].layout();
    for slot in 0..layout.len() {
        let tp = layout.partition(slot);
        assert_eq!(world.isr(tp), 3, "seed {seed} {tp:?}");
        let views: Vec<_> = world
            .brokers
            .iter()
            .map(|b| b.replica_view(tp).expect("replica"))
            .collect();
        for view in &views {
            assert_eq!(view.high_watermark, view.log.end(), "seed {seed} {tp:?}");
            assert_eq!(
                view.last_stable,
                view.log.end(),
                "seed {seed} {tp:?}: a hanging transaction"
            );
            assert_eq!(
                view.log.batches(),
                views[0].log.batches(),
                "seed {seed} {tp:?}"
            );
        }
    }
}

#[test]
fn whatever_was_acknowledged_stands_under_random_trouble() {
    for seed in 0..40 {
        survives(seed);
    }
}

#[test]
fn the_same_trouble_twice_is_the_same_run() {
    let run = || {
        let mut world = World::new();
        let mut draw = Draw(7);
        let mut down = None;
        let mut ledger = Ledger::default();
        let mut producer = world.try_init();
        for number in 0..30 {
            world.rule = None;
            world.disturb(&mut draw, &mut down);
            world.transaction(&mut producer, &format!("t{number}"), true, &mut ledger);
        }
        (world.notes, world.messages, world.now)
    };
    assert_eq!(run(), run());
}

#[test]
fn somebody_finds_the_coordinator_of_everything() {
    let mut world = World::new();
    let key = CoordinatorKey::Transaction(NAME.into());
    let found = world.coordinator(key);
    let partition = world.brokers[0].layout().transaction_partition(NAME);
    assert_eq!(found, world.leader(partition));
}

#[test]
#[ignore = "long: for campaigns in release mode"]
fn many_seeds_of_trouble() {
    for seed in 1_000..4_000 {
        survives(seed);
    }
}
