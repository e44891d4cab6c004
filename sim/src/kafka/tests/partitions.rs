//! Replication, leadership, idempotence, reading.

use super::*;

fn stamp(id: ProducerId, epoch: ProducerEpoch, sequence: i32) -> Option<ProducerStamp> {
    Some(ProducerStamp {
        id,
        epoch,
        base_sequence: sequence,
        transactional: false,
    })
}

#[test]
fn an_acknowledged_record_is_on_every_in_sync_replica() {
    let mut world = World::new();
    let input = tp(INPUT, 0);
    assert_eq!(
        world.produce(input, batch(&["a", "b"], None)),
        Ok(Offset(0))
    );
    assert_eq!(world.produce(input, batch(&["c"], None)), Ok(Offset(2)));
    for id in 1..=3 {
        let view = world
            .broker(BrokerId(id))
            .replica_view(input)
            .expect("replica");
        assert_eq!(view.log.end(), Offset(3));
    }
    // Followers learn the last high watermark with the end of their long poll.
    world.run(600);
    for id in 1..=3 {
        let view = world
            .broker(BrokerId(id))
            .replica_view(input)
            .expect("replica");
        assert_eq!(view.high_watermark, Offset(3));
    }
    assert_eq!(world.visible(input), ["a", "b", "c"]);
}

#[test]
fn a_follower_that_does_not_fetch_holds_back_the_acknowledgement_until_it_leaves_the_isr() {
    let mut world = World::new();
    let input = tp(INPUT, 0);
    let dead = world.followers(input)[0];
    world.crash(dead);
    let asked = world.now;
    assert_eq!(
        world.produce(input, batch(&["a"], None)),
        Err(ErrorCode::RequestTimedOut)
    );
    world.run(9_000);
    assert_eq!(world.isr(input), 2);
    assert!(world.now.since(asked) < Micros::from_ms(16_000));
    assert_eq!(world.visible(input), ["a"]);
    assert_eq!(world.produce(input, batch(&["b"], None)), Ok(Offset(1)));
    world.restart(dead);
    world.run(2_000);
    assert_eq!(world.isr(input), 3);
    let view = world.broker(dead).replica_view(input).expect("replica");
    assert_eq!(view.log.end(), Offset(2));
}

#[test]
fn a_leader_removes_a_lagging_follower_and_takes_it_back() {
    let mut world = World::new();
    let input = tp(INPUT, 0);
    let slow = world.followers(input)[0];
    // Its heartbeats arrive, its fetches do not.
    world.rule = Some(Box::new(move |from, _, message| match message {
        Message::Request {
            request: Request::Internal(InternalRequest::ReplicaFetch { .. }),
            ..
        } if from == Address(slow.0) => Fate::Lose,
        _ => Fate::Deliver,
    }));
    assert_eq!(
        world.produce(input, batch(&["a"], None)),
        Err(ErrorCode::RequestTimedOut)
    );
    world.run(20_000);
    assert!(world.count("isr-shrunk") >= 1);
    assert_eq!(world.isr(input), 2);
    assert_eq!(world.produce(input, batch(&["b"], None)), Ok(Offset(1)));
    world.rule = None;
    world.run(5_000);
    assert_eq!(world.isr(input), 3);
    assert_eq!(world.count("broker-fenced"), 0);
}

#[test]
fn with_too_few_replicas_in_sync_nothing_is_accepted_and_the_last_one_stays_in_the_isr() {
    let mut world = World::new();
    let input = tp(INPUT, 0);
    assert_eq!(world.produce(input, batch(&["a"], None)), Ok(Offset(0)));
    for dead in world.followers(input) {
        world.crash(dead);
    }
    world.run(20_000);
    assert_eq!(world.isr(input), 1);
    let refused = world.produce(input, batch(&["b"], None));
    assert_eq!(refused, Err(ErrorCode::NotEnoughReplicas));
    let last = world.leader(input);
    world.crash(last);
    world.run(20_000);
    assert!(world.count("partition-offline") >= 1);
    assert_eq!(world.isr(input), 1);
    for id in 1..=3 {
        world.restart(BrokerId(id));
    }
    world.run(20_000);
    assert_eq!(world.leader(input), last);
    assert_eq!(world.isr(input), 3);
    assert_eq!(world.visible(input), ["a"]);
    assert_eq!(world.produce(input, batch(&["c"], None)), Ok(Offset(1)));
}

#[test]
fn what_an_isolated_leader_alone_has_is_cut_when_it_returns() {
    let mut world = World::new();
    let input = tp(INPUT, 0);
    assert_eq!(world.produce(input, batch(&["a"], None)), Ok(Offset(0)));
    let old = world.leader(input);
    world.rule = Some(isolate(old));
    let lost = world.send(
        old,
        World::produce_request(input, batch(&["lost", "lost"], None)),
    );
    world.run(12_000);
    assert_ne!(world.leader(input), old);
    let timed_out = world.answers.remove(&lost);
    assert!(
        matches!(timed_out, Some(Response::Produce(ref r)) if r[0].1 == Err(ErrorCode::RequestTimedOut)),
        "{timed_out:?}"
    );
    assert_eq!(world.produce(input, batch(&["b"], None)), Ok(Offset(1)));
    world.rule = None;
    world.run(10_000);
    assert!(world.count("truncated") >= 1);
    assert_eq!(world.visible(input), ["a", "b"]);
    assert_eq!(world.isr(input), 3);
    let view = world.broker(old).replica_view(input).expect("replica");
    assert_eq!(view.log.end(), Offset(2));
}

#[test]
fn a_pending_produce_learns_that_leadership_was_lost() {
    let mut world = World::new();
    let input = tp(INPUT, 0);
    let old = world.leader(input);
    world.rule = Some(isolate(old));
    world.run(8_000);
    let pending = world.send(old, World::produce_request(input, batch(&["x"], None)));
    world.run(3_000);
    world.rule = None;
    world.run(1_500);
    let answer = world.answers.remove(&pending);
    assert!(
        matches!(answer, Some(Response::Produce(ref r)) if r[0].1 == Err(ErrorCode::NotLeaderOrFollower)),
        "{answer:?}"
    );
}

#[test]
fn a_crashed_broker_keeps_its_log_and_acknowledged_records_survive_failover() {
    let mut world = World::new();
    let input = tp(INPUT, 1);
    for text in ["a", "b", "c"] {
        world
            .produce(input, batch(&[text], None))
            .expect("accepted");
    }
    let old = world.leader(input);
    world.crash(old);
    world.run(100);
    world.restart(old);
    // Its old session must end first.
    world.run(4_000);
    assert_eq!(world.leader(input), old);
    world.run(8_000);
    assert_ne!(world.leader(input), old);
    assert_eq!(world.isr(input), 3);
    assert_eq!(world.visible(input), ["a", "b", "c"]);
}

#[test]
fn a_repeated_batch_is_answered_with_its_first_offset_and_not_appended() {
    let mut world = World::new();
    let input = tp(INPUT, 0);
    assert_eq!(
        world.produce(input, batch(&["a"], stamp(9, 0, 0))),
        Ok(Offset(0))
    );
    assert_eq!(
        world.produce(input, batch(&["b", "c"], stamp(9, 0, 1))),
        Ok(Offset(1))
    );
    assert_eq!(
        world.produce(input, batch(&["b", "c"], stamp(9, 0, 1))),
        Ok(Offset(1))
    );
    assert_eq!(
        world.produce(input, batch(&["a"], stamp(9, 0, 0))),
        Ok(Offset(0))
    );
    let gap = world.produce(input, batch(&["x"], stamp(9, 0, 5)));
    assert_eq!(gap, Err(ErrorCode::OutOfOrderSequenceNumber));
    assert_eq!(world.visible(input), ["a", "b", "c"]);
    // A new epoch begins at 0 and fences the old one.
    let wrong = world.produce(input, batch(&["x"], stamp(9, 1, 3)));
    assert_eq!(wrong, Err(ErrorCode::OutOfOrderSequenceNumber));
    assert_eq!(
        world.produce(input, batch(&["d"], stamp(9, 1, 0))),
        Ok(Offset(3))
    );
    let fenced = world.produce(input, batch(&["x"], stamp(9, 0, 3)));
    assert_eq!(fenced, Err(ErrorCode::InvalidProducerEpoch));
}

#[test]
fn duplicates_are_still_recognised_by_the_next_leader_and_after_a_restart() {
    let mut world = World::new();
    let input = tp(INPUT, 0);
    assert_eq!(
        world.produce(input, batch(&["a"], stamp(9, 0, 0))),
        Ok(Offset(0))
    );
    let old = world.leader(input);
    world.crash(old);
    world.run(10_000);
    world.restart(old);
    world.run(3_000);
    assert_eq!(
        world.produce(input, batch(&["a"], stamp(9, 0, 0))),
        Ok(Offset(0))
    );
    for dead in world.followers(input) {
        world.crash(dead);
        world.run(1);
        world.restart(dead);
    }
    world.run(15_000);
    assert_eq!(
        world.produce(input, batch(&["a"], stamp(9, 0, 0))),
        Ok(Offset(0))
    );
    assert_eq!(world.visible(input), ["a"]);
}

#[test]
fn producer_ids_are_unique_in_the_cluster_and_over_restarts() {
    let mut world = World::new();
    let mut ids = Vec::new();
    let init = || Request::InitProducerId {
        transactional_id: None,
        transaction_timeout_ms: 1_000,
    };
    for broker in [1, 2, 3, 1] {
        match world.ask(BrokerId(broker), init()) {
            Response::InitProducerId(Ok((id, 0))) => ids.push(id),
            other => panic!("{other:?}"),
        }
    }
    world.crash(BrokerId(1));
    world.restart(BrokerId(1));
    world.run(12_000);
    match world.ask(BrokerId(1), init()) {
        Response::InitProducerId(Ok((id, 0))) => ids.push(id),
        other => panic!("{other:?}"),
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[test]
fn fetch_checks_leader_offset_and_epoch() {
    let mut world = World::new();
    let input = tp(INPUT, 0);
    world
        .produce(input, batch(&["a", "b"], None))
        .expect("accepted");
    assert_eq!(world.fetch(input, 1).batches.len(), 1);
    assert_eq!(
        world.fetch(input, 3).error,
        Some(ErrorCode::OffsetOutOfRange)
    );
    let leader = world.leader(input);
    let follower = world.followers(input)[0];
    let mut fetch = |broker, current_leader_epoch| {
        let request = Request::Fetch {
            max_wait_ms: 0,
            max_bytes: 1,
            partitions: vec![FetchPartition {
                tp: input,
                current_leader_epoch,
                offset: Offset(0),
            }],
        };
        match world.ask(broker, request) {
            Response::Fetch(partitions) => partitions[0].error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(fetch(leader, 1), None);
    assert_eq!(fetch(leader, 0), Some(ErrorCode::FencedLeaderEpoch));
    assert_eq!(fetch(leader, 2), Some(ErrorCode::UnknownLeaderEpoch));
    assert_eq!(fetch(follower, 1), Some(ErrorCode::NotLeaderOrFollower));
}

#[test]
fn a_consumers_fetch_waits_for_replicated_data() {
    let mut world = World::new();
    let input = tp(INPUT, 0);
    let leader = world.leader(input);
    let fetch = world.send(
        leader,
        Request::Fetch {
            max_wait_ms: 5_000,
            max_bytes: 1_000,
            partitions: vec![FetchPartition {
                tp: input,
                current_leader_epoch: -1,
                offset: Offset(0),
            }],
        },
    );
    world.run(1_000);
    assert!(!world.answers.contains_key(&fetch));
    world.produce(input, batch(&["a"], None)).expect("accepted");
    world.run(10);
    assert!(
        matches!(world.answers.get(&fetch), Some(Response::Fetch(p)) if p[0].batches.len() == 1)
    );
}

#[test]
fn the_leader_stamps_topics_with_log_append_time() {
    let mut world = World::new();
    world.run(1_234);
    let stamped = tp(STAMPED, 0);
    let sent = world.now.as_ms();
    world
        .produce(stamped, batch(&["a"], None))
        .expect("accepted");
    let brokers: Vec<&Broker> = world.brokers.iter().collect();
    let (_, record) = committed_view(&brokers, stamped).remove(0);
    assert_eq!(record.timestamp.0, UNIX_MS + sent.cast_signed() + 1);
}

#[test]
fn oversized_batches_and_writes_to_internal_topics_are_refused() {
    let mut world = World::new();
    let large = "x".repeat(1_000_001);
    let refused = world.produce(tp(INPUT, 0), batch(&[&large], None));
    assert_eq!(refused, Err(ErrorCode::MessageTooLarge));
    let refused = world.produce(tp(OFFSETS_TOPIC, 0), batch(&["x"], None));
    assert_eq!(refused, Err(ErrorCode::InvalidTopicException));
}

#[test]
fn an_idle_cluster_is_quiet() {
    let mut world = World::new();
    let before = world.messages;
    world.run(100_000);
    // Six fetchers that poll twice a second, three heartbeats every two seconds.
    assert!(
        world.messages - before < 100 * (6 * 2 * 2 + 4),
        "{}",
        world.messages - before
    );
}

#[test]
fn a_lossy_repeating_network_loses_and_repeats_nothing() {
    let mut world = World::new();
    let mut turn = 0u32;
    world.rule = Some(Box::new(move |from, to, _| {
        turn += 1;
        match (from.0 <= 3 && to.0 <= 3, turn % 17, turn % 5) {
            (true, 3, _) => Fate::Lose,
            (_, _, 2) => Fate::Twice,
            _ => Fate::Deliver,
        }
    }));
    let input = tp(INPUT, 2);
    let mut expected = Vec::new();
    for sequence in 0..50 {
        let text = format!("r{sequence}");
        loop {
            let one = batch(&[&text], stamp(5, 0, sequence));
            if world.produce(input, one).is_ok() {
                break;
            }
        }
        expected.push(text);
    }
    world.run(2_000);
    assert_eq!(world.visible(input), expected);
}
