//! The plan's faults in plain words.

use super::for_ms;
use reports::narration::Step;
use sim::plan::{Fault, FaultKind, Machine, Plan};

/// A step for each fault, at its time: what it is, or what it waits for.
pub(super) fn announced(plan: &Plan) -> Vec<Step> {
    plan.faults
        .iter()
        .map(|fault| Step {
            at_us: fault.at_ms * 1_000,
            who: "the fault".to_owned(),
            what: announcement(fault),
            changes: Vec::new(),
        })
        .collect()
}

/// What a fault does, or what it waits for.
pub(crate) fn announcement(fault: &Fault) -> String {
    let what = words(&fault.kind);
    let Some(on) = &fault.on else {
        return what;
    };
    let (mark, nth) = (&on.mark, on.nth);
    let there = if on.there { ", on that machine" } else { "" };
    format!(
        "waits up to {} for number {nth} of `{mark}`{there}: {what}",
        for_ms(on.within_ms)
    )
}

fn words(kind: &FaultKind) -> String {
    match kind {
        FaultKind::WorkerCrash { worker, down_ms } => {
            format!("worker {worker} is killed, for {}", for_ms(*down_ms))
        }
        FaultKind::WorkerPause { worker, for_ms: ms } => {
            format!("worker {worker} stands still for {}", for_ms(*ms))
        }
        FaultKind::WorkerLeave { worker } => format!("worker {worker} is told to stop"),
        FaultKind::WorkerJoin { worker } => format!("worker {worker} is started"),
        FaultKind::BrokerCrash { broker, down_ms } => {
            format!("broker {broker} is killed, for {}", for_ms(*down_ms))
        }
        FaultKind::BrokerPowerLoss { broker, down_ms } => {
            format!("broker {broker} loses its power, for {}", for_ms(*down_ms))
        }
        FaultKind::BrokerPause { broker, for_ms: ms } => {
            format!("broker {broker} stands still for {}", for_ms(*ms))
        }
        FaultKind::NetworkCut {
            from,
            to,
            one_way,
            for_ms: ms,
        } => {
            let arrow = if *one_way { "to" } else { "and" };
            let (from, to) = (machines(from), machines(to));
            format!(
                "no message passes from {from} {arrow} {to} for {}",
                for_ms(*ms)
            )
        }
        other => format!("{}{}", other.name(), fields(other)),
    }
}

fn machines(machines: &[Machine]) -> String {
    let each: Vec<String> = machines.iter().copied().map(machine).collect();
    each.join(", ")
}

fn machine(machine: Machine) -> String {
    match machine {
        Machine::Worker(n) => format!("worker {n}"),
        Machine::Broker(n) => format!("broker {n}"),
        Machine::Controller => "the controller".to_owned(),
        Machine::Producer => "the producer".to_owned(),
    }
}

/// What a plan file says of it, beside its kind; zeros are left out.
fn fields(kind: &FaultKind) -> String {
    let Ok(toml::Value::Table(table)) = toml::Value::try_from(kind) else {
        return String::new();
    };
    let said = table.iter().filter_map(|(key, value)| {
        let said = match (key.as_str(), value) {
            ("kind", _) | (_, toml::Value::Integer(0) | toml::Value::Boolean(false)) => {
                return None;
            }
            (key, toml::Value::Integer(ms)) if key.ends_with("_ms") => {
                let words = key.trim_end_matches("_ms").replace('_', " ");
                format!("{words} {}", for_ms(ms.unsigned_abs()))
            }
            (key, value) => format!("{} {value}", key.replace('_', " ")),
        };
        Some(said)
    });
    let said: Vec<String> = said.collect();
    match said.is_empty() {
        true => String::new(),
        false => format!(": {}", said.join(", ")),
    }
}
