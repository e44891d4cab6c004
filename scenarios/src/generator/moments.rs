//! Faults that come at the worst moment: they wait for it.

use super::dice::Dice;
use sim::plan::{Api, Fault, FaultKind, Machine, Plan, Topology, Trigger};

/// The worst moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    CrashInRecovery,
    CrashTwiceInRecovery,
    CrashAfterRecovery,
    CrashAfterSnapshot,
    CrashAfterForcedAdvance,
    CrashAfterCommit,
    CoordinatorAtPrepare,
    CoordinatorAtAbort,
    CoordinatorAtFence,
    BrokerInRebalance,
    WorkerInRebalance,
    PauseAtPrepare,
    PauseForATimeout,
    HeldEndTxn,
    HeldOffsets,
    HeldProduce,
    LateMarkers,
    LostOffsetFetch,
    LostInitProducerId,
    CrashAtTheBeginning,
    UnansweredAtTheBeginning,
    StopInTakeOver,
    StopUnanswered,
    MarkersOfADeadCoordinator,
    MarkersOfADeposedCoordinator,
    PauseInATransaction,
    PauseInACollection,
    StopInARebalance,
    FenceWithoutReplicas,
}

pub(super) const MOMENTS: [Moment; 29] = [
    Moment::CrashInRecovery,
    Moment::CrashTwiceInRecovery,
    Moment::CrashAfterRecovery,
    Moment::CrashAfterSnapshot,
    Moment::CrashAfterForcedAdvance,
    Moment::CrashAfterCommit,
    Moment::CoordinatorAtPrepare,
    Moment::CoordinatorAtAbort,
    Moment::CoordinatorAtFence,
    Moment::BrokerInRebalance,
    Moment::WorkerInRebalance,
    Moment::PauseAtPrepare,
    Moment::PauseForATimeout,
    Moment::HeldEndTxn,
    Moment::HeldOffsets,
    Moment::HeldProduce,
    Moment::LateMarkers,
    Moment::LostOffsetFetch,
    Moment::LostInitProducerId,
    Moment::CrashAtTheBeginning,
    Moment::UnansweredAtTheBeginning,
    Moment::StopInTakeOver,
    Moment::StopUnanswered,
    Moment::MarkersOfADeadCoordinator,
    Moment::MarkersOfADeposedCoordinator,
    Moment::PauseInATransaction,
    Moment::PauseInACollection,
    Moment::StopInARebalance,
    Moment::FenceWithoutReplicas,
];

/// How long a fault waits for its moment, milliseconds.
const WAIT_MS: u64 = 120_000;

/// Timeouts that a pause may meet to the millisecond.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// kafka.session_timeout_ms
    pub(super) session_ms: u64,
    /// kafka.transaction_timeout_ms
    pub(super) transaction_ms: u64,
    /// kafka.max_poll_interval_ms
    pub(super) poll_ms: u64,
}

impl Timeouts {
    /// Those of a plan's processor (of the example's, where the plan's is wrong).
    pub(super) fn of(plan: &Plan) -> Timeouts {
        let (session_ms, transaction_ms, poll_ms) = plan
            .configuration()
            .map(|config| config.kafka)
            .map_or((45_000, 15_000, 300_000), |kafka| {
                (
                    kafka.session_timeout_ms,
                    kafka.transaction_timeout_ms,
                    kafka.max_poll_interval_ms,
                )
            });
        Timeouts {
            session_ms,
            transaction_ms,
            poll_ms,
        }
    }
}

/// The faults of one moment.
pub(super) fn moment(
    moment: Moment,
    at_ms: u64,
    dice: &Dice,
    topology: &Topology,
    timeouts: Timeouts,
) -> Vec<Fault> {
    let worker = dice.machine("worker", 0, topology.workers - 1);
    let broker = dice.machine("broker", 1, topology.brokers);
    let down_ms = dice.between("down", 200, 15_000);
    let crash = FaultKind::WorkerCrash { worker, down_ms };
    let broker_crash = FaultKind::BrokerCrash { broker, down_ms };
    let nth = dice.between("nth", 1, 5);
    let at_after = |after_us: u64, mark: &str, nth: u64, kind: FaultKind| {
        let trigger = Trigger::there(mark, nth, WAIT_MS).after(after_us);
        Fault::on(at_ms, trigger, kind)
    };
    let at = |mark: &str, nth: u64, kind: FaultKind| {
        let after_us = dice.pick("after", &[0, 300, 2_000, 40_000, 900_000]);
        at_after(after_us, mark, nth, kind)
    };
    let first_a_crash = Fault::at(
        at_ms,
        FaultKind::WorkerCrash {
            worker,
            down_ms: 500,
        },
    );
    let soon = |kind: FaultKind| vec![Fault::at(at_ms, kind), first_a_crash.clone()];
    match moment {
        Moment::CrashInRecovery => vec![first_a_crash, at("recovering", 1, crash)],
        Moment::CrashTwiceInRecovery => vec![
            first_a_crash,
            at("recovering", 1, crash.clone()),
            at("recovering", 2, crash),
        ],
        Moment::CrashAfterRecovery => vec![first_a_crash, at("recovered", 1, crash)],
        Moment::CrashAfterSnapshot => vec![at("snapshotted", nth, crash)],
        Moment::CrashAfterForcedAdvance => vec![at("forced-watermark", 1, crash)],
        Moment::CrashAfterCommit => vec![at("committed", nth * 10, crash)],
        Moment::CoordinatorAtPrepare => vec![at("txn-prepare-commit", nth * 10, broker_crash)],
        Moment::CoordinatorAtAbort => {
            vec![first_a_crash, at("txn-prepare-abort", 1, broker_crash)]
        }
        Moment::CoordinatorAtFence => vec![first_a_crash, at("producer-fenced", 1, broker_crash)],
        Moment::BrokerInRebalance => vec![first_a_crash, at("released", 1, broker_crash)],
        Moment::WorkerInRebalance => vec![first_a_crash, at("released", 1, crash)],
        Moment::PauseAtPrepare => {
            // The worker that it strikes is the drawn one: the line is a broker's.
            let for_ms = dice.between("pause", 100, 20_000);
            let pause = FaultKind::WorkerPause { worker, for_ms };
            vec![at("txn-prepare-commit", nth * 10, pause)]
        }
        Moment::PauseForATimeout => {
            let timeout_ms = dice.pick(
                "timeout",
                &[
                    timeouts.session_ms,
                    timeouts.transaction_ms,
                    timeouts.poll_ms,
                ],
            );
            let for_ms = timeout_ms - 5 + dice.between("around", 0, 10);
            let pause = FaultKind::WorkerPause { worker, for_ms };
            vec![at("committed", nth, pause)]
        }
        Moment::HeldEndTxn => soon(held(Api::EndTxn, dice)),
        Moment::HeldOffsets => soon(held(Api::TxnOffsetCommit, dice)),
        Moment::HeldProduce => soon(held(Api::Produce, dice)),
        Moment::LateMarkers => {
            let mut kind = trouble(Api::WriteTxnMarkers, dice);
            if let FaultKind::MessageTrouble {
                extra_latency_ms, ..
            } = &mut kind
            {
                *extra_latency_ms = dice.between("late", 100, 1_900);
            }
            soon(kind)
        }
        Moment::LostOffsetFetch => soon(lost(Api::OffsetFetch, dice)),
        Moment::LostInitProducerId => soon(lost(Api::InitProducerId, dice)),
        Moment::CrashAtTheBeginning => {
            let line = dice.pick("line", &["opening", "fresh"]);
            let mut first = at(line, nth.min(3), crash);
            first.at_ms = 0;
            vec![first]
        }
        Moment::UnansweredAtTheBeginning => {
            let api = dice.pick(
                "api",
                &[Api::AddOffsetsToTxn, Api::TxnOffsetCommit, Api::EndTxn],
            );
            let mut first = at_after(0, "opening", nth.min(3), lost(api, dice));
            first.at_ms = 0;
            vec![first]
        }
        Moment::StopInTakeOver => {
            let stop = FaultKind::WorkerLeave { worker };
            let mut stop = at("recovering", 1, stop);
            stop.on.as_mut().expect("it waits").there = false;
            vec![first_a_crash, stop, back(at_ms, worker)]
        }
        Moment::StopUnanswered => {
            let stop = FaultKind::WorkerLeave { worker };
            let mut stop = at("end-txn-resent", nth, stop);
            stop.on.as_mut().expect("it waits").there = false;
            let unanswered = lost(Api::EndTxn, dice);
            vec![Fault::at(at_ms, unanswered), stop, back(at_ms, worker)]
        }
        Moment::MarkersOfADeadCoordinator => {
            vec![
                Fault::at(at_ms, markers_under_way(dice)),
                at("txn-prepare-commit", 1, broker_crash),
            ]
        }
        Moment::MarkersOfADeposedCoordinator => {
            // Connections outlive a process that stands still.
            let for_ms = dice.between("deposed", 10_000, 25_000);
            let pause = FaultKind::BrokerPause { broker, for_ms };
            vec![
                Fault::at(at_ms, markers_under_way(dice)),
                at("txn-prepare-commit", 1, pause),
            ]
        }
        Moment::PauseInATransaction => {
            // Until the coordinator has looked for transactions that are too old, or not quite.
            let for_ms = timeouts.transaction_ms + dice.between("beyond", 1_000, 15_000);
            let pause = FaultKind::WorkerPause { worker, for_ms };
            let after_us = dice.between("soon after", 0, 2_000);
            vec![at_after(after_us, "txn-ongoing", nth, pause)]
        }
        Moment::PauseInACollection => {
            let slow = FaultKind::ObjectStoreTrouble {
                for_ms: WAIT_MS + 2 * timeouts.session_ms,
                error_permille: 0,
                unknown_permille: 0,
                extra_latency_ms: dice.between("latency", 500, 6_000),
                list_delay_ms: 0,
            };
            let for_ms = timeouts.session_ms + dice.between("beyond", 0, 15_000);
            let pause = FaultKind::WorkerPause { worker, for_ms };
            let after_us = dice.between("in a collection", 0, 20_000) * 1_000;
            let pause = at_after(after_us, "snapshotted", nth, pause);
            vec![Fault::at(at_ms, slow), pause]
        }
        Moment::StopInARebalance => {
            // Its last snapshot takes time, and meanwhile another one joins.
            let slow = FaultKind::ObjectStoreTrouble {
                for_ms: 60_000,
                error_permille: 0,
                unknown_permille: 0,
                extra_latency_ms: dice.between("latency", 500, 6_000),
                list_delay_ms: 0,
            };
            let other = (worker + 1) % topology.workers;
            let crash = FaultKind::WorkerCrash {
                worker: other,
                down_ms: dice.between("down for", 100, 5_000),
            };
            vec![
                Fault::at(at_ms, slow),
                Fault::at(at_ms + 1_000, FaultKind::WorkerLeave { worker }),
                Fault::at(at_ms + dice.between("join", 500, 3_000), crash),
                back(at_ms, worker),
            ]
        }
        Moment::FenceWithoutReplicas => {
            // The brokers do not hear each other, and the controller hears them all.
            // Longer than a coordinator waits for its followers.
            let for_ms = dice.between("apart", 31_000, 60_000);
            let apart = |from: u32, to: &[u32]| {
                let cut = FaultKind::NetworkCut {
                    from: vec![Machine::Broker(from)],
                    to: to.iter().copied().map(Machine::Broker).collect(),
                    one_way: false,
                    for_ms,
                };
                at_after(0, "producer-fenced", 1, cut)
            };
            let after_us = dice.between("soon after", 0, 2_000);
            let crash = at_after(after_us, "txn-ongoing", nth, first_a_crash.kind);
            vec![crash, apart(1, &[2, 3]), apart(2, &[3])]
        }
    }
}

/// Markers are for a time in the network when their coordinator is gone.
fn markers_under_way(dice: &Dice) -> FaultKind {
    let mut markers = held(Api::WriteTxnMarkers, dice);
    if let FaultKind::MessageTrouble {
        answers,
        hold_permille,
        ..
    } = &mut markers
    {
        (*answers, *hold_permille) = (false, 1_000);
    }
    markers
}

/// A worker that was stopped comes back.
fn back(at_ms: u64, worker: u32) -> Fault {
    Fault::at(at_ms + WAIT_MS, FaultKind::WorkerJoin { worker })
}

fn trouble(api: Api, dice: &Dice) -> FaultKind {
    FaultKind::MessageTrouble {
        api,
        answers: dice.one_in("answers", 2),
        for_ms: dice.between("for", 3_000, 40_000),
        loss_permille: 0,
        hold_permille: 0,
        hold_ms_max: 0,
        extra_latency_ms: 0,
    }
}

/// Some are held beyond the client's patience, and arrive all the same.
fn held(api: Api, dice: &Dice) -> FaultKind {
    let mut kind = trouble(api, dice);
    if let FaultKind::MessageTrouble {
        hold_permille,
        hold_ms_max,
        ..
    } = &mut kind
    {
        *hold_permille = dice.permille("held", 50, 600);
        *hold_ms_max = dice.between("hold", 100, 20_000);
    }
    kind
}

fn lost(api: Api, dice: &Dice) -> FaultKind {
    let mut kind = trouble(api, dice);
    if let FaultKind::MessageTrouble { loss_permille, .. } = &mut kind {
        *loss_permille = dice.permille("lost", 100, 1_000);
    }
    kind
}
