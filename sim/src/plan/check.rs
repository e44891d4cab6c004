//! What is wrong with a plan, before it is played.

use super::{FaultKind, Machine, Plan, Stream, Topology};
use processor::config::ProcessorConfig;

/// Longest run that is accepted, virtual milliseconds (400 days).
const DURATION_MS_MAX: u64 = 400 * 86_400_000;
/// Most brokers and workers together: a cut of the network names machines in a mask.
const MACHINES_MAX: u32 = 60;
/// Most partitions of a topic.
const PARTITIONS_MAX: u32 = 1_000;

/// Why a plan cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A value is out of bounds.
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
}

impl Plan {
    /// The processor's configuration in this plan.
    ///
    /// # Errors
    /// What the processor says to it.
    pub fn configuration(&self) -> Result<ProcessorConfig, PlanError> {
        configured(&self.processor)
    }

    /// As [`Plan::configuration`], with something changed.
    ///
    /// # Errors
    /// What the processor says to it.
    pub fn configuration_with(&self, changes: &toml::Table) -> Result<ProcessorConfig, PlanError> {
        let mut table = self.processor.clone();
        for (section, value) in changes {
            match (table.get_mut(section), value) {
                (Some(toml::Value::Table(known)), toml::Value::Table(new)) => {
                    known.extend(new.clone());
                }
                _ => {
                    table.insert(section.clone(), value.clone());
                }
            }
        }
        configured(&table)
    }

    /// Checks that the plan can be played.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self) -> Result<(), PlanError> {
        self.configuration()?;
        check_topology(&self.topology)?;
        for (key, value) in [("active_ms", self.active_ms), ("settle_ms", self.settle_ms)] {
            let holds = value <= DURATION_MS_MAX;
            demand(key, value, holds, "up to 400 days in milliseconds")?;
        }
        for stream in &self.workload.streams {
            check_stream(stream, self.active_ms)?;
        }
        for record in &self.workload.records {
            let in_time = record.at_ms <= self.active_ms;
            demand("records.at_ms", record.at_ms, in_time, "up to active_ms")?;
            demand(
                "records.times",
                record.times,
                record.times >= 1,
                "at least 1",
            )?;
        }
        for fault in &self.faults {
            let over_ms = fault.over_at_ms();
            let in_time = over_ms <= self.active_ms;
            demand("faults: end of one", over_ms, in_time, "up to active_ms")?;
            if let Some(on) = &fault.on {
                demand("faults.on.nth", on.nth, on.nth >= 1, "at least 1")?;
            }
            for machine in fault.kind.machines() {
                check_machine(machine, &self.topology)?;
            }
            self.check_kind(&fault.kind)?;
        }
        Ok(())
    }

    fn check_kind(&self, kind: &FaultKind) -> Result<(), PlanError> {
        let partitions = self.topology.input_partitions;
        match kind {
            FaultKind::WorkerMisconfigured { processor, .. } => {
                self.configuration_with(processor).map(drop)
            }
            FaultKind::RecordsDeleted { partition, .. }
            | FaultKind::OffsetReset { partition, .. } => {
                let allowed = format!("0 to {}", partitions - 1);
                demand(
                    "fault's partition",
                    partition,
                    *partition < partitions,
                    &allowed,
                )
            }
            FaultKind::PartitionsAdded { count } => {
                let allowed = format!("{} to {PARTITIONS_MAX}", partitions + 1);
                let holds = (partitions + 1..=PARTITIONS_MAX).contains(count);
                demand("fault's count", count, holds, &allowed)
            }
            _ => Ok(()),
        }
    }
}

fn configured(overrides: &toml::Table) -> Result<ProcessorConfig, PlanError> {
    ProcessorConfig::with_overrides(ProcessorConfig::example(), overrides)
        .map_err(|errors| PlanError::Configuration(errors.to_string()))
}

fn check_topology(topology: &Topology) -> Result<(), PlanError> {
    for (key, value) in [
        ("topology.input_partitions", topology.input_partitions),
        ("topology.output_partitions", topology.output_partitions),
        (
            "topology.dead_letter_partitions",
            topology.dead_letter_partitions,
        ),
    ] {
        demand(
            key,
            value,
            (1..=PARTITIONS_MAX).contains(&value),
            "1 to 1000",
        )?;
    }
    for (key, value) in [
        ("topology.brokers", topology.brokers),
        ("topology.workers", topology.workers),
    ] {
        demand(key, value, value >= 1, "at least 1")?;
    }
    let machines = topology.brokers.saturating_add(topology.workers);
    let allowed = "at most 60 brokers and workers together";
    demand("topology", machines, machines <= MACHINES_MAX, allowed)
}

fn check_stream(stream: &Stream, active_ms: u64) -> Result<(), PlanError> {
    let name = &stream.name;
    let key = |field: &str| format!("stream `{name}` {field}");
    let ends_ok = stream.from_ms <= stream.until_ms && stream.until_ms <= active_ms;
    let allowed = "between its from_ms and active_ms";
    demand(key("until_ms"), stream.until_ms, ends_ok, allowed)?;
    demand(key("burst"), stream.burst, stream.burst >= 1, "at least 1")?;
    let any = !stream.tickers.is_empty();
    demand(key("tickers"), "empty", any, "at least one ticker")?;
    for (field, value) in [
        ("late_permille", stream.late_permille),
        ("duplicate_permille", stream.duplicate_permille),
        ("anonymous_permille", stream.anonymous_permille),
        ("garbage_permille", stream.garbage_permille),
        ("abort_permille", stream.abort_permille),
    ] {
        demand(key(field), value, value <= 1_000, "0 to 1000")?;
    }
    Ok(())
}

fn check_machine(machine: Machine, topology: &Topology) -> Result<(), PlanError> {
    match machine {
        Machine::Worker(worker) => {
            let allowed = format!("0 to {}", topology.workers - 1);
            demand(
                "fault's worker",
                worker,
                worker < topology.workers,
                &allowed,
            )
        }
        Machine::Broker(broker) => {
            let allowed = format!("1 to {}", topology.brokers);
            let holds = (1..=topology.brokers).contains(&broker);
            demand("fault's broker", broker, holds, &allowed)
        }
        Machine::Controller | Machine::Producer => Ok(()),
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
