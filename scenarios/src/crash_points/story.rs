//! What happens beside the crashes.

use crate::scenario::{Scenario, ScenarioError};
use sim::plan::Plan;
use toml::{Table, Value};

/// The story that ships with the binary.
const HAND_OVER: &str = include_str!("../../crash-points/hand-over.toml");
/// A supervisor is quicker than the group: it knows the process twice until the session of the dead one
/// ends.
pub const QUICK_MS: u64 = 2_000;
/// A supervisor is slower than the group and the coordinator of transactions: somebody else takes the
/// partitions over, if there is anybody, and waits for the open transaction to time out.
pub const SLOW_MS: u64 = 13_000;

/// How the story is told: name, protocol of rebalances, time until a killed process is started again.
const VARIANTS: [(&str, &str, u64); 4] = [
    ("cooperative", "cooperative", QUICK_MS),
    ("eager", "eager", QUICK_MS),
    ("cooperative-slow", "cooperative", SLOW_MS),
    ("eager-slow", "eager", SLOW_MS),
];

/// A plan without crashes, and what follows a crash.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// The arguments of `tickproof crash-points` that choose it.
    pub arguments: String,
    /// What happens.
    pub plan: Plan,
    /// A supervisor starts a killed process again after this long.
    pub down_ms: u64,
}

/// The stories that ship with the binary.
///
/// # Errors
/// When the file is wrong.
pub fn stories() -> Result<Vec<Story>, ScenarioError> {
    let told = VARIANTS.iter().map(|&(name, protocol, down_ms)| {
        let mut plan = Scenario::parse(name, HAND_OVER)?.resolve(0)?;
        let kafka = plan.processor.entry("kafka");
        let kafka = kafka.or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(kafka) = kafka {
            kafka.insert("rebalance_protocol".to_owned(), protocol.into());
        }
        Ok(Story {
            arguments: name.to_owned(),
            plan,
            down_ms,
        })
    });
    told.collect()
}
