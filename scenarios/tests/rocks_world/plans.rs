//! The plans: workers that die where their local state matters.

use sim::plan::{Fault, FaultKind, Plan, Trigger};
use sim::trace::TraceLine;

/// Windows stay open for many minutes, and checkpoints come often: much state, soon spilled.
const BASE: &str = r#"
scenario = "rocks"
seed = 1
start_unix_ms = 1609459200000
active_ms = 400000
settle_ms = 1200000

[topology]
brokers = 3
input_partitions = 4
output_partitions = 2
dead_letter_partitions = 1
workers = 2

[processor]
commit = { interval_ms = 500 }
checkpoint = { interval_ms = 10000 }
windows = { max_out_of_orderness_ms = 120000, allowed_lateness_ms = 300000 }

[[workload.streams]]
name = "ticks"
from_ms = 0
until_ms = 390000
events = 40000
burst = 20
tickers = ["AMZN", "AAPL", "MSFT", "GOOGL", "SPY", "IBM"]
jitter_ms = 60000
late_permille = 100
late_ms_max = 400000
duplicate_permille = 50
"#;

/// No fault, and so much memory for identities.
pub fn base(seed: u64, memory_limit_bytes: i64) -> Plan {
    let plan: Plan = toml::from_str(BASE).expect("the text above is a plan");
    limited(Plan { seed, ..plan }, memory_limit_bytes)
}

/// The plan with so much memory for identities.
pub fn limited(mut plan: Plan, memory_limit_bytes: i64) -> Plan {
    let state = toml::Table::from_iter([(
        "memory_limit_bytes".to_owned(),
        toml::Value::Integer(memory_limit_bytes),
    )]);
    plan.processor.insert("state".to_owned(), state.into());
    plan
}

/// The plan with one more fault.
pub fn with(mut plan: Plan, at_ms: u64, kind: FaultKind) -> Plan {
    plan.faults.push(Fault::at(at_ms, kind));
    plan
}

/// The plan in which a worker is killed at these moments, too, each time for a second.
pub fn killed(plan: Plan, worker: u32, moments_ms: impl IntoIterator<Item = u64>) -> Plan {
    let crash = FaultKind::WorkerCrash {
        worker,
        down_ms: 1_000,
    };
    let moments = moments_ms.into_iter();
    moments.fold(plan, |plan, at_ms| with(plan, at_ms, crash.clone()))
}

/// The plan in which the first worker that tells of something like this after a moment is killed with it,
/// for a second.
pub fn killed_on(mut plan: Plan, after_ms: u64, kind: &str) -> Plan {
    let crash = FaultKind::WorkerCrash {
        worker: 0,
        down_ms: 1_000,
    };
    let trigger = Trigger::there(kind, 1, 60_000);
    plan.faults.push(Fault::on(after_ms, trigger, crash));
    plan
}

/// The plan with an object store that takes its time, so that there is a moment to die in.
pub fn slow_objects(plan: Plan) -> Plan {
    let kind = FaultKind::ObjectStoreTrouble {
        for_ms: plan.active_ms,
        error_permille: 0,
        unknown_permille: 0,
        extra_latency_ms: 400,
        list_delay_ms: 0,
    };
    with(plan, 0, kind)
}

/// When a worker told of something like this, virtual milliseconds, rounded up.
pub fn moments(trace: &[TraceLine], worker: u32, kind: &str) -> Vec<u64> {
    let host = format!("worker-{worker}");
    let lines = trace.iter();
    let told = lines.filter(|line| line.host == host && line.kind == kind);
    told.map(|line| line.at_us.div_ceil(1_000)).collect()
}
