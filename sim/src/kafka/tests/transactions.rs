//! Transactions: states, markers, fencing, failover, what read_committed shows.

use super::*;
use crate::kafka::protocol::CoordinatorKey;

pub(super) const GROUP: &str = "group";

/// A transactional producer as its client library drives it.
pub(super) struct Producer {
    pub(super) name: Arc<str>,
    pub(super) id: ProducerId,
    pub(super) epoch: ProducerEpoch,
    pub(super) sequences: BTreeMap<TopicPartition, i32>,
}

impl World {
    pub(super) fn coordinator(&mut self, key: CoordinatorKey) -> BrokerId {
        for _ in 0..100 {
            match self.ask(BrokerId(1), Request::FindCoordinator { key: key.clone() }) {
                Response::FindCoordinator(Ok(broker)) => return broker,
                _ => self.run(100),
            }
        }
        panic!("no coordinator");
    }

    fn transaction_coordinator(&mut self, name: &str) -> BrokerId {
        let partition = self.brokers[0].layout().transaction_partition(name);
        self.leader(partition)
    }

    fn init(&mut self, name: &str) -> Result<Producer, ErrorCode> {
        let to = self.transaction_coordinator(name);
        let request = Request::InitProducerId {
            transactional_id: Some(name.into()),
            transaction_timeout_ms: 15_000,
        };
        match self.ask(to, request) {
            Response::InitProducerId(result) => result.map(|(id, epoch)| Producer {
                name: name.into(),
                id,
                epoch,
                sequences: BTreeMap::new(),
            }),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn init_until_ready(&mut self, name: &str) -> Producer {
        for _ in 0..200 {
            match self.init(name) {
                Ok(producer) => return producer,
                Err(
                    ErrorCode::ConcurrentTransactions
                    | ErrorCode::CoordinatorLoadInProgress
                    | ErrorCode::CoordinatorNotAvailable
                    | ErrorCode::NotCoordinator,
                ) => self.run(50),
                Err(other) => panic!("{other:?}"),
            }
        }
        panic!("never ready: {:?}", self.notes);
    }

    fn add(&mut self, producer: &Producer, partitions: &[TopicPartition]) -> Result<(), ErrorCode> {
        let to = self.transaction_coordinator(&producer.name);
        let request = Request::AddPartitionsToTxn {
            transactional_id: Arc::clone(&producer.name),
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            partitions: partitions.to_vec(),
        };
        for _ in 0..100 {
            match self.ask(to, request.clone()) {
                Response::AddPartitionsToTxn(Err(ErrorCode::ConcurrentTransactions)) => {
                    self.run(20)
                }
                Response::AddPartitionsToTxn(result) => return result,
                other => panic!("{other:?}"),
            }
        }
        Err(ErrorCode::ConcurrentTransactions)
    }

    pub(super) fn transactional(
        producer: &mut Producer,
        tp: TopicPartition,
        texts: &[&str],
    ) -> Batch {
        let sequence = producer.sequences.entry(tp).or_insert(0);
        let stamp = ProducerStamp {
            id: producer.id,
            epoch: producer.epoch,
            base_sequence: *sequence,
            transactional: true,
        };
        *sequence += i32::try_from(texts.len()).expect("few");
        batch(texts, Some(stamp))
    }

    fn write(
        &mut self,
        producer: &mut Producer,
        tp: TopicPartition,
        texts: &[&str],
    ) -> Result<Offset, ErrorCode> {
        let batch = World::transactional(producer, tp, texts);
        self.produce(tp, batch)
    }

    pub(super) fn end_request(producer: &Producer, commit: bool) -> Request {
        Request::EndTxn {
            transactional_id: Arc::clone(&producer.name),
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            commit,
        }
    }

    pub(super) fn end(&mut self, producer: &Producer, commit: bool) -> Result<(), ErrorCode> {
        let to = self.transaction_coordinator(&producer.name);
        match self.ask(to, World::end_request(producer, commit)) {
            Response::EndTxn(result) => result,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn commit_offset(
        &mut self,
        producer: &Producer,
        offset: i64,
        metadata: &str,
        member: (i32, &str),
    ) -> Result<(), ErrorCode> {
        let to = self.transaction_coordinator(&producer.name);
        let add = Request::AddOffsetsToTxn {
            transactional_id: Arc::clone(&producer.name),
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            group: GROUP.into(),
        };
        loop {
            match self.ask(to, add.clone()) {
                Response::AddOffsetsToTxn(Ok(())) => break,
                Response::AddOffsetsToTxn(Err(ErrorCode::ConcurrentTransactions)) => self.run(20),
                Response::AddOffsetsToTxn(Err(error)) => return Err(error),
                other => panic!("{other:?}"),
            }
        }
        let to = self.coordinator(CoordinatorKey::Group(GROUP.into()));
        let request = Request::TxnOffsetCommit {
            transactional_id: Arc::clone(&producer.name),
            group: GROUP.into(),
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            generation: member.0,
            member_id: member.1.into(),
            offsets: vec![OffsetCommit {
                tp: tp(INPUT, 0),
                offset: Offset(offset),
                metadata: metadata.into(),
            }],
        };
        match self.ask(to, request) {
            Response::TxnOffsetCommit(result) => result,
            other => panic!("{other:?}"),
        }
    }

    #[allow(clippy::type_complexity)]
    pub(super) fn offset(&mut self) -> Result<Option<(Offset, Arc<str>)>, ErrorCode> {
        let to = self.coordinator(CoordinatorKey::Group(GROUP.into()));
        let request = Request::OffsetFetch {
            group: GROUP.into(),
            require_stable: true,
            partitions: vec![tp(INPUT, 0)],
        };
        match self.ask(to, request) {
            Response::OffsetFetch(result) => result.map(|mut found| found.remove(0).1),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_committed_transaction_becomes_visible_as_a_whole() {
    let mut world = World::new();
    let (a, b) = (tp(INPUT, 0), tp(INPUT, 1));
    let mut producer = world.init("tx").expect("ready");
    assert_eq!(producer.epoch, 0);
    world.add(&producer, &[a, b]).expect("added");
    assert_eq!(world.write(&mut producer, a, &["1", "2"]), Ok(Offset(0)));
    assert_eq!(world.write(&mut producer, b, &["3"]), Ok(Offset(0)));
    assert_eq!(world.fetch(a, 0).last_stable_offset, Offset(0));
    assert!(world.visible(a).is_empty());
    assert_eq!(world.end(&producer, true), Ok(()));
    world.run(100);
    assert_eq!(world.visible(a), ["1", "2"]);
    assert_eq!(world.visible(b), ["3"]);
    // The marker takes an offset.
    assert_eq!(world.fetch(a, 0).last_stable_offset, Offset(3));
    assert_eq!(world.count("txn-complete-commit"), 1);
}

#[test]
fn an_aborted_transaction_stays_invisible_and_is_in_the_aborted_list() {
    let mut world = World::new();
    let a = tp(INPUT, 0);
    let mut producer = world.init("tx").expect("ready");
    world.produce(a, batch(&["plain"], None)).expect("accepted");
    world.add(&producer, &[a]).expect("added");
    world.write(&mut producer, a, &["gone"]).expect("accepted");
    world
        .produce(a, batch(&["between"], None))
        .expect("accepted");
    assert_eq!(world.end(&producer, false), Ok(()));
    world.run(100);
    assert_eq!(world.visible(a), ["plain", "between"]);
    let fetched = world.fetch(a, 0);
    assert_eq!(fetched.aborted, [(producer.id, Offset(1))]);
    assert_eq!(fetched.batches.len(), 4);
    assert!(world.fetch(a, 4).batches.is_empty());
    // The same epoch goes on with its sequences.
    world.add(&producer, &[a]).expect("added");
    world.write(&mut producer, a, &["kept"]).expect("accepted");
    world.end(&producer, true).expect("committed");
    world.run(100);
    assert_eq!(world.visible(a), ["plain", "between", "kept"]);
}

#[test]
fn ending_again_is_answered_by_outcome() {
    let mut world = World::new();
    let a = tp(INPUT, 0);
    let mut producer = world.init("tx").expect("ready");
    assert_eq!(world.end(&producer, true), Err(ErrorCode::InvalidTxnState));
    world.add(&producer, &[a]).expect("added");
    world.write(&mut producer, a, &["1"]).expect("accepted");
    world.rule = Some(on_internal(Fate::Lose, |request| {
        matches!(request, InternalRequest::WriteTxnMarkers { .. })
    }));
    // A leader's own markers cannot be lost: look only if they had to travel.
    assert_eq!(world.end(&producer, true), Ok(()));
    if world.count("txn-complete-commit") == 0 {
        assert_eq!(
            world.end(&producer, true),
            Err(ErrorCode::ConcurrentTransactions)
        );
    }
    world.rule = None;
    world.run(5_000);
    assert_eq!(world.end(&producer, true), Ok(()));
    assert_eq!(world.end(&producer, false), Err(ErrorCode::InvalidTxnState));
    assert_eq!(world.visible(a), ["1"]);
}

#[test]
fn kafka_17754_a_late_repetition_of_endtxn_ends_the_next_transaction() {
    let mut world = World::new();
    let a = tp(INPUT, 0);
    let mut producer = world.init("tx").expect("ready");
    let coordinator = world.transaction_coordinator("tx");
    world.add(&producer, &[a]).expect("added");
    world.write(&mut producer, a, &["1"]).expect("accepted");
    // The first EndTxn hangs in the network; the client sends it again, and that one is answered.
    world.rule = Some(Box::new(|_, _, message| match message {
        Message::Request {
            request: Request::EndTxn { .. },
            ..
        } => Fate::Hold,
        _ => Fate::Deliver,
    }));
    let stray = world.send(coordinator, World::end_request(&producer, true));
    world.rule = None;
    world.end(&producer, true).expect("committed");
    world.run(100);
    world.add(&producer, &[a]).expect("added");
    world.write(&mut producer, a, &["2a"]).expect("accepted");
    world.release();
    world.run(100);
    assert!(matches!(
        world.answers.remove(&stray),
        Some(Response::EndTxn(Ok(())))
    ));
    assert_eq!(world.visible(a), ["1", "2a"]);
    // The rest of the transaction is torn off.
    let rest = world.write(&mut producer, a, &["2b"]);
    assert_eq!(rest, Err(ErrorCode::InvalidTxnState));
    assert_eq!(world.end(&producer, false), Err(ErrorCode::InvalidTxnState));
}

#[test]
fn a_new_producer_fences_the_old_one_and_aborts_its_transaction() {
    let mut world = World::new();
    let a = tp(INPUT, 0);
    let mut old = world.init("tx").expect("ready");
    world.add(&old, &[a]).expect("added");
    world.write(&mut old, a, &["old"]).expect("accepted");
    assert_eq!(
        world.init("tx").err(),
        Some(ErrorCode::ConcurrentTransactions)
    );
    let mut new = world.init_until_ready("tx");
    assert_eq!((new.id, new.epoch), (old.id, 2));
    assert_eq!(world.end(&old, true), Err(ErrorCode::InvalidProducerEpoch));
    assert_eq!(world.add(&old, &[a]), Err(ErrorCode::InvalidProducerEpoch));
    let fenced = world.write(&mut old, a, &["zombie"]);
    assert_eq!(fenced, Err(ErrorCode::InvalidProducerEpoch));
    world.add(&new, &[a]).expect("added");
    world.write(&mut new, a, &["new"]).expect("accepted");
    world.end(&new, true).expect("committed");
    world.run(100);
    assert_eq!(world.visible(a), ["new"]);
    let stranger = Producer {
        id: new.id + 1,
        ..new
    };
    assert_eq!(
        world.end(&stranger, true),
        Err(ErrorCode::InvalidProducerIdMapping)
    );
}

#[test]
fn a_forgotten_transaction_is_aborted_with_a_bumped_epoch() {
    let mut world = World::new();
    let a = tp(INPUT, 0);
    let mut producer = world.init("tx").expect("ready");
    world.add(&producer, &[a]).expect("added");
    world.write(&mut producer, a, &["1"]).expect("accepted");
    world.run(26_000);
    assert_eq!(world.count("txn-timeout"), 1);
    assert_eq!(world.count("txn-complete-abort"), 1);
    assert_eq!(world.fetch(a, 0).last_stable_offset, Offset(2));
    assert_eq!(
        world.end(&producer, true),
        Err(ErrorCode::InvalidProducerEpoch)
    );
    assert!(world.visible(a).is_empty());
}

#[test]
fn a_batch_outside_of_a_transaction_is_refused() {
    let mut world = World::new();
    let (a, b) = (tp(INPUT, 0), tp(INPUT, 1));
    let mut producer = world.init("tx").expect("ready");
    world.add(&producer, &[a]).expect("added");
    let never_added = world.write(&mut producer, b, &["x"]);
    assert_eq!(never_added, Err(ErrorCode::InvalidTxnState));
    world.write(&mut producer, a, &["1"]).expect("accepted");
    world.end(&producer, true).expect("committed");
    world.run(100);
    // A batch that was on its way all the time must not open a transaction that nobody ends.
    let late = world.write(&mut producer, a, &["late"]);
    assert_eq!(late, Err(ErrorCode::InvalidTxnState));
    assert_eq!(world.fetch(a, 0).last_stable_offset, Offset(2));
}

#[test]
fn initialisation_checks_the_timeout_and_the_coordinator() {
    let mut world = World::new();
    let coordinator = world.transaction_coordinator("tx");
    let request = |timeout| Request::InitProducerId {
        transactional_id: Some("tx".into()),
        transaction_timeout_ms: timeout,
    };
    let answer = world.ask(coordinator, request(900_001));
    assert!(matches!(
        answer,
        Response::InitProducerId(Err(ErrorCode::InvalidTransactionTimeout))
    ));
    let other = (1..=3)
        .map(BrokerId)
        .find(|id| *id != coordinator)
        .expect("three");
    let answer = world.ask(other, request(1_000));
    assert!(matches!(
        answer,
        Response::InitProducerId(Err(ErrorCode::NotCoordinator))
    ));
}

/// Runs a transaction up to some state, kills the coordinator, and returns what is visible once the
/// next one has taken over and the id was initialised again.
fn failover(end: Option<bool>, markers_before: bool) -> (World, Vec<String>) {
    let mut world = World::new();
    let tps = [tp(INPUT, 0), tp(INPUT, 1), tp(INPUT, 2)];
    let mut producer = world.init("tx").expect("ready");
    let coordinator = world.transaction_coordinator("tx");
    world.add(&producer, &tps).expect("added");
    for (index, tp) in tps.iter().enumerate() {
        world
            .write(&mut producer, *tp, &[&format!("{index}")])
            .expect("accepted");
    }
    if !markers_before {
        world.rule = Some(on_internal(Fate::Lose, |request| {
            matches!(request, InternalRequest::WriteTxnMarkers { .. })
        }));
    }
    if let Some(commit) = end {
        world.end(&producer, commit).expect("decided");
    }
    world.run(50);
    world.crash(coordinator);
    world.rule = None;
    world.run(12_000);
    world.restart(coordinator);
    world.run(3_000);
    let mut next = world.init_until_ready("tx");
    assert!(next.epoch > producer.epoch);
    world.add(&next, &tps[..1]).expect("added");
    world.write(&mut next, tps[0], &["next"]).expect("accepted");
    world.end(&next, true).expect("committed");
    world.run(500);
    let mut visible = Vec::new();
    for tp in tps {
        visible.extend(world.visible(tp));
        assert_eq!(world.isr(tp), 3);
    }
    (world, visible)
}

#[test]
fn an_ongoing_transaction_survives_its_coordinator_until_it_is_fenced() {
    let (world, visible) = failover(None, true);
    assert_eq!(visible, ["next"]);
    assert!(world.count("producer-fenced") >= 1);
}

#[test]
fn a_prepared_commit_is_completed_by_the_next_coordinator() {
    let (_, visible) = failover(Some(true), false);
    assert_eq!(visible, ["0", "next", "1", "2"]);
}

#[test]
fn a_prepared_abort_is_completed_by_the_next_coordinator() {
    let (_, visible) = failover(Some(false), false);
    assert_eq!(visible, ["next"]);
}

#[test]
fn a_completed_commit_stays_so_over_a_failover() {
    let (_, visible) = failover(Some(true), true);
    assert_eq!(visible, ["0", "next", "1", "2"]);
}

#[test]
fn a_loading_coordinator_says_so() {
    let mut world = World::new();
    world.init("tx").expect("ready");
    let old = world.transaction_coordinator("tx");
    world.crash(old);
    let mut seen = false;
    for _ in 0..3_000 {
        world.run(5);
        let partition = world.brokers[0].layout().transaction_partition("tx");
        let slot = world.brokers[0].layout().slot(partition).expect("exists");
        let leader = world.controller.image().partitions[slot].leader;
        if leader.is_some_and(|leader| leader != old) {
            match world.init("tx") {
                Err(ErrorCode::CoordinatorLoadInProgress) => seen = true,
                Ok(_) => break,
                Err(_) => {}
            }
        }
    }
    assert!(seen);
}

#[test]
fn offsets_are_unstable_until_the_marker_and_then_committed_with_their_metadata() {
    let mut world = World::new();
    let producer = world.init("tx").expect("ready");
    assert_eq!(world.offset(), Ok(None));
    world
        .commit_offset(&producer, 5, "five", (-1, ""))
        .expect("accepted");
    assert_eq!(world.offset(), Err(ErrorCode::UnstableOffsetCommit));
    world.end(&producer, true).expect("committed");
    world.run(100);
    assert_eq!(world.offset(), Ok(Some((Offset(5), "five".into()))));
    world
        .commit_offset(&producer, 9, "nine", (-1, ""))
        .expect("accepted");
    world.end(&producer, false).expect("aborted");
    world.run(100);
    assert_eq!(world.offset(), Ok(Some((Offset(5), "five".into()))));
    let history = world.history(GROUP);
    assert_eq!(history.len(), 1);
    assert_eq!(
        (history[0].offset, &*history[0].metadata),
        (Offset(5), "five")
    );
    let long = "x".repeat(4_097);
    let refused = world.commit_offset(&producer, 9, &long, (-1, ""));
    assert_eq!(refused, Err(ErrorCode::OffsetMetadataTooLarge));
}

#[test]
fn committed_and_pending_offsets_survive_the_group_coordinator() {
    let mut world = World::new();
    let producer = world.init("tx").expect("ready");
    world
        .commit_offset(&producer, 5, "five", (-1, ""))
        .expect("accepted");
    world.end(&producer, true).expect("committed");
    world.run(100);
    world
        .commit_offset(&producer, 6, "six", (-1, ""))
        .expect("accepted");
    let old = world.coordinator(CoordinatorKey::Group(GROUP.into()));
    world.crash(old);
    world.run(10_000);
    world.restart(old);
    world.run(3_000);
    assert_eq!(world.offset(), Err(ErrorCode::UnstableOffsetCommit));
    let mut ended = world.end(&producer, true);
    while ended == Err(ErrorCode::ConcurrentTransactions) {
        world.run(50);
        ended = world.end(&producer, true);
    }
    ended.expect("committed");
    world.run(1_000);
    assert_eq!(world.offset(), Ok(Some((Offset(6), "six".into()))));
    assert_eq!(world.history(GROUP).len(), 2);
}

#[test]
fn repeated_markers_never_touch_the_next_transaction() {
    let mut world = World::new();
    let tps = [tp(INPUT, 0), tp(INPUT, 1), tp(INPUT, 2)];
    let mut producer = world.init("tx").expect("ready");
    // Every marker also arrives a second time, much later.
    world.rule = Some(on_internal(Fate::Twice, |request| {
        matches!(request, InternalRequest::WriteTxnMarkers { .. })
    }));
    for round in 0..20 {
        world.add(&producer, &tps).expect("added");
        for tp in tps {
            world
                .write(&mut producer, tp, &[&format!("{round}")])
                .expect("accepted");
        }
        world.end(&producer, round % 2 == 0).expect("decided");
    }
    world.run(1_000);
    for tp in tps {
        let expected: Vec<String> = (0..20).step_by(2).map(|round| round.to_string()).collect();
        assert_eq!(world.visible(tp), expected);
    }
}
