//! Plans as files: what `tickproof plan` prints, `tickproof play` reads and `regressions/` keeps.

use crate::scenario::length_ms;
use processor::config::ProcessorConfig;
use sim::plan::{FaultKind, Machine, Plan, Stream, Topology};
use std::path::{Path, PathBuf};

/// Longest run that is accepted, virtual milliseconds (400 days).
const DURATION_MS_MAX: u64 = 400 * 86_400_000;
/// Highest number of any kind of machine or partition.
const MACHINES_MAX: u32 = 64;

/// What can be wrong with a plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file cannot be read.
    #[error("plan file {path}: {source}; give the path of a file that `tickproof plan` printed", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The file is no plan.
    #[error("plan file {path}: {reason}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The parser's words, with the line.
        reason: String,
    },
    /// The plan cannot be played.
    #[error("the plan's {key} is {value}; allowed: {allowed}")]
    Unplayable {
        /// Which value.
        key: String,
        /// The value.
        value: String,
        /// What would be right.
        allowed: String,
    },
    /// The processor refuses its configuration.
    #[error("the plan's [processor] part: {0}")]
    Configuration(String),
    /// The plan has no TOML form.
    #[error("the plan cannot be printed: {0}")]
    Unprintable(String),
}

/// Reads and checks a plan file.
///
/// # Errors
/// When it is unreadable, no plan, or not playable.
pub fn read(path: &Path) -> Result<Plan, PlanError> {
    let text = std::fs::read_to_string(path).map_err(|source| PlanError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let plan = toml::from_str(&text).map_err(|e| PlanError::Malformed {
        path: path.to_owned(),
        reason: e.to_string(),
    })?;
    check(&plan)?;
    Ok(plan)
}

/// The plan as TOML.
///
/// # Errors
/// When a number does not fit TOML's 64 signed bits.
pub fn print(plan: &Plan) -> Result<String, PlanError> {
    toml::to_string(plan).map_err(|e| PlanError::Unprintable(e.to_string()))
}

/// Checks that a plan can be played.
///
/// # Errors
/// The first value that is not allowed.
pub fn check(plan: &Plan) -> Result<(), PlanError> {
    ProcessorConfig::with_overrides(ProcessorConfig::example(), &plan.processor)
        .map_err(|e| PlanError::Configuration(e.to_string()))?;
    check_topology(&plan.topology)?;
    for (key, value) in [("active_ms", plan.active_ms), ("settle_ms", plan.settle_ms)] {
        demand(
            key,
            value,
            value <= DURATION_MS_MAX,
            "up to 400 days in milliseconds",
        )?;
    }
    for stream in &plan.workload.streams {
        check_stream(stream, plan.active_ms)?;
    }
    for record in &plan.workload.records {
        demand(
            "records.at_ms",
            record.at_ms,
            record.at_ms <= plan.active_ms,
            "up to active_ms",
        )?;
        demand(
            "records.times",
            record.times,
            record.times >= 1,
            "at least 1",
        )?;
    }
    for fault in &plan.faults {
        let end_ms = fault.at_ms.saturating_add(length_ms(&fault.kind));
        demand(
            "faults: end of one",
            end_ms,
            end_ms <= plan.active_ms,
            "up to active_ms",
        )?;
        check_machines(&fault.kind, &plan.topology)?;
    }
    Ok(())
}

fn check_topology(topology: &Topology) -> Result<(), PlanError> {
    for (key, value) in [
        ("topology.brokers", topology.brokers),
        ("topology.input_partitions", topology.input_partitions),
        ("topology.output_partitions", topology.output_partitions),
        (
            "topology.dead_letter_partitions",
            topology.dead_letter_partitions,
        ),
        ("topology.workers", topology.workers),
    ] {
        demand(key, value, (1..=MACHINES_MAX).contains(&value), "1 to 64")?;
    }
    Ok(())
}

fn check_stream(stream: &Stream, active_ms: u64) -> Result<(), PlanError> {
    let name = &stream.name;
    let key = |field: &str| format!("stream `{name}` {field}");
    let ends_ok = stream.from_ms <= stream.until_ms && stream.until_ms <= active_ms;
    demand(
        key("until_ms"),
        stream.until_ms,
        ends_ok,
        "between its from_ms and active_ms",
    )?;
    demand(key("burst"), stream.burst, stream.burst >= 1, "at least 1")?;
    demand(
        key("tickers"),
        "empty",
        !stream.tickers.is_empty(),
        "at least one ticker",
    )?;
    for (field, value) in [
        ("late_permille", stream.late_permille),
        ("duplicate_permille", stream.duplicate_permille),
        ("anonymous_permille", stream.anonymous_permille),
        ("garbage_permille", stream.garbage_permille),
    ] {
        demand(key(field), value, value <= 1_000, "0 to 1000")?;
    }
    Ok(())
}

fn check_machines(kind: &FaultKind, topology: &Topology) -> Result<(), PlanError> {
    let worker_ok = |worker: u32| {
        let allowed = format!("0 to {}", topology.workers - 1);
        demand(
            "fault's worker",
            worker,
            worker < topology.workers,
            &allowed,
        )
    };
    let broker_ok = |broker: u32| {
        let allowed = format!("1 to {}", topology.brokers);
        demand(
            "fault's broker",
            broker,
            (1..=topology.brokers).contains(&broker),
            &allowed,
        )
    };
    match kind {
        FaultKind::WorkerCrash { worker, .. }
        | FaultKind::WorkerPause { worker, .. }
        | FaultKind::WorkerLeave { worker }
        | FaultKind::WorkerJoin { worker } => worker_ok(*worker),
        FaultKind::BrokerCrash { broker, .. } | FaultKind::BrokerPause { broker, .. } => {
            broker_ok(*broker)
        }
        FaultKind::NetworkCut { from, to, .. } => {
            from.iter().chain(to).try_for_each(|machine| match machine {
                Machine::Worker(worker) => worker_ok(*worker),
                Machine::Broker(broker) => broker_ok(*broker),
                Machine::Controller | Machine::Producer => Ok(()),
            })
        }
        FaultKind::NetworkTrouble { .. }
        | FaultKind::ObjectStoreTrouble { .. }
        | FaultKind::EndTxnAnswersLost { .. } => Ok(()),
    }
}

fn demand(
    key: impl Into<String>,
    value: impl ToString,
    holds: bool,
    allowed: &str,
) -> Result<(), PlanError> {
    if holds {
        return Ok(());
    }
    Err(PlanError::Unplayable {
        key: key.into(),
        value: value.to_string(),
        allowed: allowed.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::{check, print};
    use crate::catalog;

    #[test]
    fn a_printed_plan_reads_back_as_the_same_plan() {
        for scenario in catalog::all().expect("sound") {
            for seed in 0..5 {
                let plan = scenario.resolve(seed).expect("resolves");
                let text = print(&plan).expect("prints");
                let back = toml::from_str(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
                assert_eq!(plan, back);
            }
        }
    }

    #[test]
    fn a_wrong_value_in_the_processors_part_is_refused_by_its_key() {
        let mut plan = catalog::find("storm")
            .and_then(|scenario| scenario.resolve(0))
            .expect("resolves");
        let table = "[commit]\ninterval = 5".parse().expect("TOML");
        plan.processor = table;
        let error = check(&plan).expect_err("no such key").to_string();
        assert!(error.contains("commit.interval"), "{error}");
    }

    #[test]
    fn a_fault_on_a_machine_that_is_not_there_is_refused_by_name() {
        let mut plan = catalog::find("job-crash")
            .and_then(|scenario| scenario.resolve(0))
            .expect("resolves");
        plan.faults[0].kind = sim::plan::FaultKind::WorkerCrash {
            worker: 9,
            down_ms: 1,
        };
        let error = check(&plan).expect_err("no worker 9").to_string();
        assert!(error.contains('9') && error.contains("allowed"), "{error}");
    }
}
