//! Machines that fail in ways of their own: disks, power, clocks, quotas; and people's mistakes.

use super::dice::Dice;
use sim::plan::{Fault, FaultKind, Machine, Topology, Until};

/// What may be wrong with a machine, or be done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mishap {
    PowerLoss,
    PowerLossTwice,
    DiskFull,
    DiskSlow,
    RecordsDamaged,
    Throttled,
    WorkerClock,
    BrokerClock,
    Twin,
    RetentionBehind,
    ListingBehind,
}

pub(super) const MISHAPS: [Mishap; 11] = [
    Mishap::PowerLoss,
    Mishap::PowerLossTwice,
    Mishap::DiskFull,
    Mishap::DiskSlow,
    Mishap::RecordsDamaged,
    Mishap::Throttled,
    Mishap::WorkerClock,
    Mishap::BrokerClock,
    Mishap::Twin,
    Mishap::RetentionBehind,
    Mishap::ListingBehind,
];

/// Highest error of a broker's clock: its time is the log's time, and event time is held against it.
const BROKER_CLOCK_MS_MAX: u64 = 30_000;

/// The faults of one mishap.
pub(super) fn mishap(mishap: Mishap, at_ms: u64, dice: &Dice, topology: &Topology) -> Vec<Fault> {
    let broker = dice.machine("broker", 1, topology.brokers);
    let next = broker % topology.brokers + 1;
    let worker = dice.machine("worker", 0, topology.workers - 1);
    let for_ms = dice.between("for", 3_000, 60_000);
    let soon_ms = dice.between("soon", 10, 5_000);
    let down_ms = dice.between("down", 500, 20_000);
    let crash = FaultKind::WorkerCrash {
        worker,
        down_ms: soon_ms,
    };
    let one = |kind: FaultKind| vec![Fault::at(at_ms, kind)];
    let ahead_or_behind = |ms: u64| {
        let ms = i64::try_from(ms).expect("drawn small");
        if dice.one_in("behind", 2) { -ms } else { ms }
    };
    match mishap {
        Mishap::PowerLoss => one(FaultKind::BrokerPowerLoss { broker, down_ms }),
        Mishap::PowerLossTwice => [broker, next]
            .map(|broker| FaultKind::BrokerPowerLoss { broker, down_ms })
            .into_iter()
            .zip([at_ms, at_ms + soon_ms])
            .map(|(kind, at_ms)| Fault::at(at_ms, kind))
            .collect(),
        Mishap::DiskFull => one(FaultKind::BrokerDiskFull { broker, for_ms }),
        Mishap::DiskSlow => one(FaultKind::BrokerDiskSlow {
            broker,
            for_ms,
            latency_ms: dice.between("latency", 50, 4_000),
        }),
        Mishap::RecordsDamaged => one(FaultKind::RecordsDamaged {
            broker,
            for_ms,
            permille: dice.permille("damaged", 5, 300),
        }),
        Mishap::Throttled => one(FaultKind::Throttled {
            machine: if dice.one_in("producer", 3) {
                Machine::Producer
            } else {
                Machine::Worker(worker)
            },
            for_ms,
            pace_ms: dice.between("pace", 20, 1_500),
        }),
        Mishap::WorkerClock => one(FaultKind::ClockJump {
            machine: Machine::Worker(worker),
            by_ms: ahead_or_behind(dice.pick("jump", &[2_000, 90_000, 3_600_000, 86_400_000])),
            for_ms: for_ms * 5,
        }),
        Mishap::BrokerClock => one(FaultKind::ClockJump {
            machine: Machine::Broker(broker),
            by_ms: ahead_or_behind(dice.between("jump", 100, BROKER_CLOCK_MS_MAX)),
            for_ms: for_ms * 3,
        }),
        Mishap::Twin => one(FaultKind::WorkerTwin {
            worker,
            ordinal: (worker + 1) % topology.workers,
            for_ms: for_ms * dice.between("as long", 1, 4),
        }),
        Mishap::RetentionBehind => {
            let partition = dice.machine("partition", 0, topology.input_partitions - 1);
            let delete = FaultKind::RecordsDeleted {
                partition,
                until: Until::Snapshot,
            };
            vec![Fault::at(at_ms, delete), Fault::at(at_ms + soon_ms, crash)]
        }
        Mishap::ListingBehind => {
            let behind = FaultKind::ObjectStoreTrouble {
                for_ms: for_ms * 2,
                error_permille: 0,
                unknown_permille: dice.permille("unknown", 0, 200),
                extra_latency_ms: 0,
                list_delay_ms: dice.between("list delay", 1_000, 120_000),
            };
            vec![Fault::at(at_ms, behind), Fault::at(at_ms + soon_ms, crash)]
        }
    }
}
