//! What a plan grants a processor: time to finish, and reasons not to see what is in the log.
//!
//! Comes in: a plan. Goes out: what the checkers must know of it to judge fairly.

use properties::history::Rules;
use properties::liveness;
use sim::plan::{FaultKind, Machine, Plan};

/// How long after trouble of brokers or network records may stay invisible: sessions end, leaders
/// change, replicas catch up. Milliseconds.
const TROUBLE_AFTER_MS: u64 = 60_000;

/// How long after its time a transaction of a producer may stay open, milliseconds.
const OPEN_AFTER_MS: u64 = 60_000;

/// True when the plan gives the processor the time that liveness grants, after the last record and
/// fault.
#[must_use]
pub fn is_settled(plan: &Plan, rules: &Rules) -> bool {
    i64::try_from(plan.settle_ms).unwrap_or(i64::MAX) >= liveness::granted_ms(rules)
}

/// For how long the newest records of the input log may be invisible to every consumer. Milliseconds.
#[must_use]
pub fn hidden_ms_max(plan: &Plan) -> i64 {
    let open_ms = plan
        .workload
        .streams
        .iter()
        .filter(|stream| stream.transaction_events > 0)
        .map(|stream| stream.open_ms_max.saturating_add(OPEN_AFTER_MS))
        .max()
        .unwrap_or(0);
    let hidden_ms = longest_trouble_ms(plan).saturating_add(open_ms);
    i64::try_from(hidden_ms).unwrap_or(i64::MAX)
}

/// How wrong clocks are by the plan: brokers' in either direction, workers' if they are behind (one that
/// is ahead must not matter). Milliseconds.
#[must_use]
pub fn clock_error_ms(plan: &Plan) -> i64 {
    let errors = plan.faults.iter().map(|fault| match fault.kind {
        FaultKind::ClockJump {
            machine: Machine::Broker(_),
            by_ms,
            ..
        } => by_ms.saturating_abs(),
        FaultKind::ClockJump { by_ms, .. } => by_ms.saturating_neg().max(0),
        _ => 0,
    });
    errors.max().unwrap_or(0)
}

/// The longest stretch in which replication may be stalled: faults of brokers and network, each with
/// the time after it, put together where they overlap.
fn longest_trouble_ms(plan: &Plan) -> u64 {
    let mut troubles: Vec<(u64, u64)> = plan
        .faults
        .iter()
        .filter(|fault| fault.kind.hides_records())
        .map(|fault| {
            // Everything is well again when the plan's active time is over.
            let until_ms = fault.over_at_ms().min(plan.active_ms);
            (fault.at_ms, until_ms.saturating_add(TROUBLE_AFTER_MS))
        })
        .collect();
    troubles.sort_unstable();
    let mut longest_ms = 0;
    let mut stretch: Option<(u64, u64)> = None;
    for (from_ms, until_ms) in troubles {
        let merged = match stretch {
            Some((start_ms, end_ms)) if from_ms <= end_ms => (start_ms, end_ms.max(until_ms)),
            _ => (from_ms, until_ms),
        };
        longest_ms = longest_ms.max(merged.1 - merged.0);
        stretch = Some(merged);
    }
    longest_ms
}

#[cfg(test)]
mod tests {
    use super::hidden_ms_max;
    use crate::catalog;
    use sim::plan::{Fault, FaultKind, Plan};

    fn plan(faults: Vec<Fault>) -> Plan {
        let calm = catalog::find("calm").and_then(|calm| calm.resolve(0));
        Plan {
            active_ms: 1_000_000,
            faults,
            ..calm.expect("resolves")
        }
    }

    fn pause(at_ms: u64, for_ms: u64) -> Fault {
        let kind = FaultKind::BrokerPause { broker: 1, for_ms };
        Fault::at(at_ms, kind)
    }

    #[test]
    fn without_trouble_every_record_is_seen_at_once() {
        let crash = FaultKind::WorkerCrash {
            worker: 0,
            down_ms: 5_000,
        };
        let crash = Fault::at(1_000, crash);
        assert_eq!(hidden_ms_max(&plan(vec![crash])), 0);
    }

    #[test]
    fn troubles_that_overlap_count_as_one() {
        let apart = vec![pause(10_000, 5_000), pause(75_001, 1_000)];
        assert_eq!(hidden_ms_max(&plan(apart)), 65_000);
        let together = vec![pause(75_000, 1_000), pause(10_000, 5_000)];
        assert_eq!(hidden_ms_max(&plan(together)), 126_000);
        let within = vec![pause(10_000, 500_000), pause(20_000, 1_000)];
        assert_eq!(hidden_ms_max(&plan(within)), 560_000);
    }

    #[test]
    fn trouble_ends_with_the_active_time() {
        assert_eq!(hidden_ms_max(&plan(vec![pause(990_000, 70_000)])), 70_000);
    }

    #[test]
    fn an_open_transaction_hides_what_follows_it() {
        let mut plan = plan(vec![pause(10_000, 5_000)]);
        plan.workload.streams[0].open_ms_max = 30_000;
        assert_eq!(hidden_ms_max(&plan), 65_000);
        plan.workload.streams[0].transaction_events = 10;
        assert_eq!(hidden_ms_max(&plan), 65_000 + 90_000);
    }

    #[test]
    fn every_scenario_grants_the_time_to_finish() {
        for scenario in catalog::all().expect("the catalog is sound") {
            let plan = scenario.resolve(1).expect("resolves");
            let overrides = &plan.processor;
            let config = processor::config::ProcessorConfig::with_overrides(
                processor::config::ProcessorConfig::example(),
                overrides,
            )
            .expect("the configuration is sound");
            let rules = crate::runner::rules(&config);
            assert!(super::is_settled(&plan, &rules), "{}", scenario.name);
            let hasty = Plan {
                settle_ms: 100_000,
                ..plan
            };
            assert!(!super::is_settled(&hasty, &rules), "{}", scenario.name);
        }
    }
}
