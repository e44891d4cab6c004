//! Patterns that hurt: a second crash during the recovery from the first, a broker lost while answers are
//! lost.

use super::dice::Dice;
use sim::plan::{Api, Fault, FaultKind, Machine, Topology};

/// Ways to hurt. A pattern is laid at a moment and yields one fault or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    CrashTwice,
    CrashAll,
    Zombie,
    ZombieInUpload,
    LeaveAndJoin,
    BrokersInTurn,
    TwoBrokers,
    AllBrokers,
    BrokerPause,
    CutWorker,
    CutBroker,
    OneWay,
    Trouble,
    StoreTrouble,
    LostAnswers,
    LostAnswersAndBroker,
    StaleCoordinator,
    PauseInTakeOver,
    StoreOutageAndCrash,
    SlowStoreAndCrash,
}

pub(super) const PATTERNS: [Pattern; 20] = [
    Pattern::CrashTwice,
    Pattern::CrashAll,
    Pattern::Zombie,
    Pattern::ZombieInUpload,
    Pattern::LeaveAndJoin,
    Pattern::BrokersInTurn,
    Pattern::TwoBrokers,
    Pattern::AllBrokers,
    Pattern::BrokerPause,
    Pattern::CutWorker,
    Pattern::CutBroker,
    Pattern::OneWay,
    Pattern::Trouble,
    Pattern::StoreTrouble,
    Pattern::LostAnswers,
    Pattern::LostAnswersAndBroker,
    Pattern::StaleCoordinator,
    Pattern::PauseInTakeOver,
    Pattern::StoreOutageAndCrash,
    Pattern::SlowStoreAndCrash,
];

/// The faults of one pattern.
pub(super) fn pattern(
    pattern: Pattern,
    at_ms: u64,
    dice: &Dice,
    topology: &Topology,
) -> Vec<Fault> {
    match pattern {
        Pattern::CrashTwice
        | Pattern::CrashAll
        | Pattern::Zombie
        | Pattern::ZombieInUpload
        | Pattern::LeaveAndJoin => worker_pattern(pattern, at_ms, dice, topology),
        Pattern::BrokersInTurn
        | Pattern::TwoBrokers
        | Pattern::AllBrokers
        | Pattern::BrokerPause => broker_pattern(pattern, at_ms, dice, topology),
        Pattern::CutWorker | Pattern::CutBroker | Pattern::OneWay | Pattern::Trouble => {
            network_pattern(pattern, at_ms, dice, topology)
        }
        Pattern::StoreTrouble | Pattern::LostAnswers | Pattern::LostAnswersAndBroker => {
            service_pattern(pattern, at_ms, dice, topology)
        }
        Pattern::StaleCoordinator
        | Pattern::PauseInTakeOver
        | Pattern::StoreOutageAndCrash
        | Pattern::SlowStoreAndCrash => take_over_pattern(pattern, at_ms, dice, topology),
    }
}

fn fault(at_ms: u64, kind: FaultKind) -> Fault {
    Fault::at(at_ms, kind)
}

fn worker_pattern(pattern: Pattern, at_ms: u64, dice: &Dice, topology: &Topology) -> Vec<Fault> {
    let worker = dice.machine("worker", 0, topology.workers - 1);
    let next = (worker + 1) % topology.workers;
    let down_ms = dice.between("down", 500, 8_000);
    let soon_ms = dice.between("soon", 50, 4_000);
    match pattern {
        Pattern::CrashTwice => vec![
            fault(at_ms, FaultKind::WorkerCrash { worker, down_ms }),
            // While it recovers.
            fault(
                at_ms + down_ms + soon_ms,
                FaultKind::WorkerCrash {
                    worker,
                    down_ms: soon_ms,
                },
            ),
        ],
        Pattern::CrashAll => (0..topology.workers)
            .map(|worker| {
                let each_ms = at_ms + u64::from(worker) * (soon_ms / 4);
                fault(each_ms, FaultKind::WorkerCrash { worker, down_ms })
            })
            .collect(),
        Pattern::Zombie => vec![
            // Often longer than the session timeout (45 s): it wakes up as a member that was replaced.
            fault(
                at_ms,
                FaultKind::WorkerPause {
                    worker,
                    for_ms: dice.between("pause", 15_000, 90_000),
                },
            ),
            // While the group takes over from it.
            fault(
                at_ms + 45_000 + soon_ms,
                FaultKind::WorkerCrash {
                    worker: next,
                    down_ms,
                },
            ),
        ],
        Pattern::ZombieInUpload => vec![
            // Uploads are so slow that the pause falls between a poll and its commit,
            fault(
                at_ms,
                FaultKind::ObjectStoreTrouble {
                    for_ms: dice.between("slow store", 20_000, 40_000),
                    error_permille: 0,
                    unknown_permille: 0,
                    extra_latency_ms: dice.between("slow", 1_000, 8_000),
                    list_delay_ms: 0,
                },
            ),
            // and the member wakes up with work of a generation that is over.
            fault(
                at_ms + 12_000 + soon_ms,
                FaultKind::WorkerPause {
                    worker,
                    for_ms: dice.between("pause", 46_000, 90_000),
                },
            ),
        ],
        _ => {
            let back_ms = at_ms + dice.between("away", 5_000, 60_000);
            vec![
                fault(at_ms, FaultKind::WorkerLeave { worker }),
                // While the group rebalances.
                fault(
                    at_ms + soon_ms,
                    FaultKind::WorkerCrash {
                        worker: next,
                        down_ms,
                    },
                ),
                fault(back_ms, FaultKind::WorkerJoin { worker }),
            ]
        }
    }
}

fn broker_pattern(pattern: Pattern, at_ms: u64, dice: &Dice, topology: &Topology) -> Vec<Fault> {
    let broker = dice.machine("broker", 1, topology.brokers);
    let next = broker % topology.brokers + 1;
    let down_ms = dice.between("down", 2_000, 40_000);
    let soon_ms = dice.between("soon", 50, 5_000);
    match pattern {
        Pattern::BrokersInTurn => vec![
            fault(at_ms, FaultKind::BrokerCrash { broker, down_ms }),
            fault(
                at_ms + down_ms + soon_ms,
                FaultKind::BrokerCrash {
                    broker: next,
                    down_ms,
                },
            ),
        ],
        Pattern::TwoBrokers => vec![
            fault(
                at_ms,
                FaultKind::BrokerCrash {
                    broker,
                    down_ms: down_ms + soon_ms,
                },
            ),
            fault(
                at_ms + soon_ms,
                FaultKind::BrokerCrash {
                    broker: next,
                    down_ms,
                },
            ),
        ],
        Pattern::AllBrokers => (1..=topology.brokers)
            .map(|broker| {
                let each_ms = at_ms + u64::from(broker) * (soon_ms / 4);
                fault(each_ms, FaultKind::BrokerCrash { broker, down_ms })
            })
            .collect(),
        _ => vec![
            fault(
                at_ms,
                FaultKind::BrokerPause {
                    broker,
                    for_ms: dice.between("pause", 2_000, 25_000),
                },
            ),
            fault(
                at_ms + soon_ms,
                FaultKind::WorkerCrash {
                    worker: dice.machine("worker", 0, topology.workers - 1),
                    down_ms: 1_000,
                },
            ),
        ],
    }
}

fn network_pattern(pattern: Pattern, at_ms: u64, dice: &Dice, topology: &Topology) -> Vec<Fault> {
    let worker = Machine::Worker(dice.machine("worker", 0, topology.workers - 1));
    let number = dice.machine("broker", 1, topology.brokers);
    let broker = Machine::Broker(number);
    let others: Vec<Machine> = (1..=topology.brokers)
        .filter(|other| *other != number)
        .map(Machine::Broker)
        .chain([Machine::Controller])
        .collect();
    let for_ms = dice.between("cut", 3_000, 45_000);
    let cut = |from: Machine, to: Vec<Machine>, one_way: bool| FaultKind::NetworkCut {
        from: vec![from],
        to,
        one_way,
        for_ms,
    };
    match pattern {
        Pattern::CutWorker => {
            let to = (1..=topology.brokers).map(Machine::Broker).collect();
            vec![fault(at_ms, cut(worker, to, false))]
        }
        Pattern::CutBroker => vec![fault(at_ms, cut(broker, others, false))],
        Pattern::OneWay => {
            let (from, to) = if dice.one_in("answers", 2) {
                (broker, vec![worker])
            } else {
                (worker, vec![broker])
            };
            vec![fault(at_ms, cut(from, to, true))]
        }
        _ => vec![fault(
            at_ms,
            FaultKind::NetworkTrouble {
                for_ms: dice.between("trouble", 10_000, 90_000),
                loss_permille: dice.permille("loss", 0, 100),
                duplicate_permille: dice.permille("duplicate", 0, 100),
                reorder_permille: dice.permille("reorder", 0, 200),
                // Beyond the request timeout (5 s) a late request meets the transactions after it.
                delay_ms_max: dice.between("delay", 10, 20_000),
                extra_latency_ms: dice.between("latency", 0, 200),
            },
        )],
    }
}

/// What hurts a worker just while it takes partitions over.
fn take_over_pattern(pattern: Pattern, at_ms: u64, dice: &Dice, topology: &Topology) -> Vec<Fault> {
    let worker = dice.machine("worker", 0, topology.workers - 1);
    let soon_ms = dice.between("soon", 1_000, 20_000);
    let crash = |after_ms: u64| {
        let down_ms = 1_000;
        fault(at_ms + after_ms, FaultKind::WorkerCrash { worker, down_ms })
    };
    let store = |for_ms: u64, error_permille: u32, extra_latency_ms: u64| {
        let kind = FaultKind::ObjectStoreTrouble {
            for_ms,
            error_permille,
            unknown_permille: 0,
            extra_latency_ms,
            list_delay_ms: 0,
        };
        fault(at_ms, kind)
    };
    match pattern {
        // A broker that was replaced goes on answering those who still reach it.
        Pattern::StaleCoordinator => {
            let number = dice.machine("broker", 1, topology.brokers);
            let others = (1..=topology.brokers).filter(|other| *other != number);
            let mut to: Vec<Machine> = others.map(Machine::Broker).collect();
            to.push(Machine::Controller);
            // The other workers go on without it.
            let others = (0..topology.workers).filter(|other| *other != worker);
            to.extend(others.map(Machine::Worker));
            let cut = FaultKind::NetworkCut {
                from: vec![Machine::Broker(number)],
                to,
                one_way: false,
                for_ms: dice.between("cut", 30_000, 120_000),
            };
            let breaks = FaultKind::NetworkTrouble {
                for_ms: 10_000,
                loss_permille: 0,
                duplicate_permille: 100,
                reorder_permille: 100,
                delay_ms_max: 500,
                extra_latency_ms: 0,
            };
            let crash_ms = 10_000 + soon_ms;
            vec![
                fault(at_ms, cut),
                crash(crash_ms),
                fault(at_ms + crash_ms + 2_000, breaks),
            ]
        }
        Pattern::PauseInTakeOver => {
            let pause = FaultKind::WorkerPause {
                worker,
                for_ms: dice.between("pause", 20_000, 120_000),
            };
            vec![crash(0), fault(at_ms + 1_000 + soon_ms / 2, pause)]
        }
        Pattern::StoreOutageAndCrash => {
            let for_ms = dice.between("outage", 5_000, 60_000);
            vec![store(for_ms, 1_000, 0), crash(soon_ms / 4)]
        }
        _ => {
            let for_ms = dice.between("slow", 30_000, 120_000);
            let latency_ms = dice.between("latency", 2_000, 25_000);
            vec![store(for_ms, 0, latency_ms), crash(soon_ms / 4)]
        }
    }
}

/// Clients send EndTxn again (KAFKA-17754).
fn lost_answers(for_ms: u64) -> FaultKind {
    FaultKind::MessageTrouble {
        api: Api::EndTxn,
        answers: true,
        for_ms,
        loss_permille: 1_000,
        hold_permille: 0,
        hold_ms_max: 0,
        extra_latency_ms: 0,
    }
}

fn service_pattern(pattern: Pattern, at_ms: u64, dice: &Dice, topology: &Topology) -> Vec<Fault> {
    let worker = dice.machine("worker", 0, topology.workers - 1);
    let for_ms = dice.between("for", 2_000, 20_000);
    let within_ms = dice.between("within", 100, for_ms);
    match pattern {
        Pattern::StoreTrouble => vec![
            fault(
                at_ms,
                FaultKind::ObjectStoreTrouble {
                    for_ms: for_ms * 3,
                    error_permille: dice.permille("errors", 100, 800),
                    unknown_permille: dice.permille("unknown", 0, 200),
                    extra_latency_ms: dice.between("latency", 0, 2_000),
                    list_delay_ms: 0,
                },
            ),
            // It has to restore while the store misbehaves.
            fault(
                at_ms + within_ms,
                FaultKind::WorkerCrash {
                    worker,
                    down_ms: 1_000,
                },
            ),
        ],
        Pattern::LostAnswers => vec![
            fault(at_ms, lost_answers(for_ms)),
            fault(
                at_ms + within_ms,
                FaultKind::WorkerCrash {
                    worker,
                    down_ms: 500,
                },
            ),
        ],
        _ => vec![
            fault(at_ms, lost_answers(for_ms)),
            fault(
                at_ms + within_ms,
                FaultKind::BrokerCrash {
                    broker: dice.machine("broker", 1, topology.brokers),
                    down_ms: for_ms,
                },
            ),
        ],
    }
}
