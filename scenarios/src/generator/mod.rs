//! Storms: plans in which everything is drawn from the seed.
//!
//! Faults come in patterns that hurt, strike machines in ways of their own, or wait for the worst moment;
//! a seed uses only some of these ways, so that rare combinations get runs of their own. When all
//! faults have ended, everything has to be processed.

mod dice;
mod faults;
mod machines;
mod moments;
mod patterns;

pub use faults::storm_faults;

use dice::Dice;
use sim::plan::{Brokers, Plan, Stream, Topology, Workload};
use toml::{Table, Value};

/// 10:00 of the document.
const START_UNIX_MS: i64 = 1_609_459_200_000;
/// Virtual time that recovery from the last fault may take, beside the waits of the windows.
const RECOVERY_MS: u64 = 180_000;
/// Tickers that the example configuration knows.
const TICKERS: [&str; 8] = ["AMZN", "AAPL", "MSFT", "GOOGL", "AIG", "BAC", "IBM", "SPY"];

/// The storm of one seed: 30–60 virtual minutes, at least 10 000 records and 9 faults.
#[must_use]
pub fn storm(name: &str, seed: u64) -> Plan {
    let dice = Dice::new(seed, "storm");
    let active_ms = dice.between("active", 1_800, 3_600) * 1_000;
    let topology = Topology {
        brokers: 3,
        input_partitions: dice.machine("partitions", 1, 8),
        output_partitions: dice.machine("output partitions", 1, 4),
        dead_letter_partitions: dice.machine("dead letter partitions", 1, 2),
        workers: dice.machine("workers", 1, 4),
    };
    let windows = Windows::drawn(&dice);
    let mut plan = Plan {
        scenario: name.to_owned(),
        seed,
        start_unix_ms: START_UNIX_MS,
        active_ms,
        settle_ms: windows.settle_ms(),
        processor: configuration(&dice, &windows),
        brokers: Brokers::default(),
        bug: None,
        refusal: None,
        workload: Workload {
            streams: streams(seed, active_ms, &windows),
            records: Vec::new(),
        },
        faults: Vec::new(),
        topology,
    };
    plan.faults = storm_faults(&plan);
    plan
}

/// The waits of the windows, milliseconds.
struct Windows {
    max_out_of_orderness_ms: u64,
    allowed_lateness_ms: u64,
    idle_timeout_ms: u64,
}

impl Windows {
    fn drawn(dice: &Dice) -> Windows {
        Windows {
            max_out_of_orderness_ms: dice.pick(
                "out of orderness",
                &[5_000, 30_000, 60_000, 120_000, 300_000],
            ),
            allowed_lateness_ms: dice.pick("lateness", &[1_000, 30_000, 60_000, 300_000]),
            idle_timeout_ms: dice.pick("idle", &[5_000, 15_000, 60_000, 120_000]),
        }
    }

    /// After the last event a window waits for its own end, and for an idle advance of the watermark.
    fn settle_ms(&self) -> u64 {
        60_000
            + self.max_out_of_orderness_ms
            + self.allowed_lateness_ms
            + self.idle_timeout_ms
            + RECOVERY_MS
    }
}

fn configuration(dice: &Dice, windows: &Windows) -> Table {
    let number = |value: u64| Value::Integer(i64::try_from(value).expect("drawn small"));
    let section = |values: Vec<(&str, Value)>| {
        let keys = values
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        Value::Table(keys.collect())
    };
    let transaction_timeout_ms =
        dice.pick("transaction timeout", &[10_000, 15_000, 15_000, 40_000]);
    let protocol = dice.pick("protocol", &["cooperative", "eager"]);
    Table::from_iter([
        (
            "kafka".to_owned(),
            section(vec![
                ("rebalance_protocol", Value::String(protocol.to_owned())),
                (
                    "session_timeout_ms",
                    number(dice.pick("session timeout", &[10_000, 30_000, 45_000])),
                ),
                ("transaction_timeout_ms", number(transaction_timeout_ms)),
                (
                    "max_poll_interval_ms",
                    number(dice.pick("poll interval", &[60_000, 120_000, 300_000])),
                ),
            ]),
        ),
        (
            "commit".to_owned(),
            section(vec![(
                "interval_ms",
                number(dice.between("commit interval", 500, 5_000)),
            )]),
        ),
        (
            "worker".to_owned(),
            section(vec![("poll_timeout_ms", number(5_000))]),
        ),
        (
            "checkpoint".to_owned(),
            section(vec![
                (
                    "interval_ms",
                    number(dice.between("checkpoint interval", 5_000, 60_000)),
                ),
                ("gc_every", number(dice.pick("gc", &[1, 1, 3, 10]))),
                (
                    "gc_grace_ms",
                    number(
                        transaction_timeout_ms
                            + dice.pick("gc grace", &[1, 20_000, 100_000, 3_600_000]),
                    ),
                ),
            ]),
        ),
        (
            // In half of the storms, state is larger than memory.
            "state".to_owned(),
            section(vec![(
                "memory_limit_bytes",
                number(dice.pick("memory limit", &[0, 20_000, 256 << 20, 256 << 20])),
            )]),
        ),
        (
            "windows".to_owned(),
            section(vec![
                (
                    "max_out_of_orderness_ms",
                    number(windows.max_out_of_orderness_ms),
                ),
                ("allowed_lateness_ms", number(windows.allowed_lateness_ms)),
                ("idle_timeout_ms", number(windows.idle_timeout_ms)),
            ]),
        ),
    ])
}

/// Phases of load and of silence over the active time.
fn streams(seed: u64, active_ms: u64, windows: &Windows) -> Vec<Stream> {
    let dice = Dice::new(seed, "workload");
    let phases = dice.between("phases", 2, 6);
    let events = dice.between("events", 10_200, 13_000);
    let phase_ms = active_ms / phases;
    let loud: Vec<u64> = (0..phases)
        .filter(|phase| {
            *phase == 0 || !Dice::new(seed, format!("phase {phase}")).one_in("silent", 4)
        })
        .collect();
    let loud_phases = loud.len() as u64;
    loud.into_iter()
        .map(|phase| {
            let from_ms = phase * phase_ms;
            let until_ms = from_ms + phase_ms - phase_ms / 8;
            let events = events.div_ceil(loud_phases);
            stream(seed, phase, (from_ms, until_ms), events, windows)
        })
        .collect()
}

fn stream(
    seed: u64,
    phase: u64,
    (from_ms, until_ms): (u64, u64),
    events: u64,
    windows: &Windows,
) -> Stream {
    let dice = Dice::new(seed, format!("phase {phase}"));
    let tickers = usize::try_from(dice.between("tickers", 1, 8)).expect("at most 8");
    let first = usize::try_from(dice.between("first ticker", 0, 7)).expect("at most 7");
    let late_ms_max = windows.max_out_of_orderness_ms + windows.allowed_lateness_ms;
    let transaction_events = dice.pick("transactional", &[0, 0, 0, 10, 50]);
    // Some of them are aborted.
    let events = if transaction_events > 0 {
        events * 6 / 5
    } else {
        events
    };
    Stream {
        name: format!("phase-{phase}"),
        from_ms,
        until_ms,
        events,
        burst: dice.pick("burst", &[20, 50, 100, 200, 400]),
        tickers: TICKERS
            .iter()
            .cycle()
            .skip(first)
            .take(tickers)
            .map(|t| (*t).to_owned())
            .collect(),
        event_time_lag_ms: dice.pick("lag", &[0, 0, 0, 1_000, 10_000]),
        jitter_ms: dice.between("jitter", 0, windows.max_out_of_orderness_ms / 2),
        late_permille: dice.permille("late", 0, 150),
        late_ms_max: dice.between("late max", 1_000, late_ms_max * 3 / 2 + 60_000),
        duplicate_permille: dice.permille("duplicates", 0, 100),
        anonymous_permille: dice.pick("anonymous", &[0, 50, 500, 1_000]),
        garbage_permille: dice.pick("garbage", &[0, 5, 30, 100]),
        transaction_events,
        abort_permille: dice.permille("aborts", 0, 100),
        open_ms_max: dice.between("open", 0, 8_000),
    }
}

#[cfg(test)]
mod tests {
    use super::{storm, storm_faults};
    use sim::plan::FaultKind;
    use std::collections::BTreeSet;

    #[test]
    fn every_storm_is_long_loaded_and_rough_enough() {
        for seed in 0..500 {
            let plan = storm("storm", seed);
            plan.check().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            let events: u64 = plan.workload.streams.iter().map(|s| s.events).sum();
            assert!(events >= 10_000, "seed {seed}: {events}");
            assert!(plan.active_ms >= 1_800_000);
            assert!(plan.faults.len() >= 9, "seed {seed}: {}", plan.faults.len());
        }
    }

    #[test]
    fn all_faults_stop_before_the_end_and_all_workers_are_back() {
        for seed in 0..500 {
            let plan = storm("storm", seed);
            let mut away = BTreeSet::new();
            for fault in &plan.faults {
                assert!(fault.over_at_ms() <= plan.active_ms);
                match fault.kind {
                    FaultKind::WorkerLeave { worker } => {
                        away.insert(worker);
                    }
                    FaultKind::WorkerJoin { worker } => {
                        away.remove(&worker);
                    }
                    _ => {}
                }
            }
            assert!(away.is_empty(), "seed {seed}: {away:?}");
        }
    }

    #[test]
    fn storms_have_every_kind_of_fault_between_them() {
        let kinds: BTreeSet<&str> = (0..50)
            .flat_map(|seed| storm("storm", seed).faults)
            .map(|fault| fault.kind.name())
            .collect();
        assert_eq!(kinds.len(), 18, "{kinds:?}");
    }

    #[test]
    fn the_faults_of_a_whole_day_are_spread_over_it() {
        let day_ms = 16 * 3_600_000;
        let mut plan = storm("storm", 1);
        plan.active_ms = day_ms;
        let faults = storm_faults(&plan);
        let last_ms = faults.last().map(|fault| fault.at_ms).unwrap_or_default();
        assert!(
            last_ms > day_ms / 2 && faults.len() >= 20,
            "{last_ms} {}",
            faults.len()
        );
    }
}
