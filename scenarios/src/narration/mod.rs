//! What happened in a run, told step by step: from its plan, its trace and its topics.
//!
//! Comes in: a plan, and its run with the trace kept. Goes out: a [`Narration`]. Never here: how it
//! looks, and any judgement: what is wrong is said in the checkers' words.

mod faults;
mod outcomes;
mod telling;

pub(crate) use faults::announcement;
pub(crate) use telling::Teller;

use crate::runner::Played;
use properties::Verdict;
use reports::narration::{Narration, Step};
use reports::quantity::{counted, duration};
use sim::plan::Plan;

/// Violations of one property that are told.
const VIOLATIONS_MAX: usize = 3;

/// Tells the story of a run whose trace was kept.
#[must_use]
pub fn narrate(plan: &Plan, played: &Played) -> Narration {
    let mut teller = Teller::new(&played.history);
    let mut steps: Vec<Step> = faults::announced(plan);
    steps.extend(played.trace.iter().filter_map(|line| teller.tell(line)));
    steps.sort_by_key(|step| step.at_us); // stable: a fault comes before what it does
    Narration {
        opening: opening(plan, played),
        steps,
        outcomes: outcomes::of(&played.history),
        violations: violations(plan, played),
    }
}

fn opening(plan: &Plan, played: &Played) -> Vec<String> {
    let topology = &plan.topology;
    let mut lines = vec![format!(
        "{}, seed {}: {}, {}, {}, {}; {} and {} in {}",
        plan.scenario,
        plan.seed,
        counted(topology.brokers.into(), "broker"),
        counted(topology.workers.into(), "worker"),
        counted(topology.input_partitions.into(), "input partition"),
        counted(topology.output_partitions.into(), "output partition"),
        counted(played.report.records, "record"),
        counted(plan.faults.len() as u64, "fault"),
        duration(played.report.virtual_ms),
    )];
    if let Some(bug) = &plan.bug {
        lines.push(format!(
            "In this world a promise is broken now and then: {}.",
            bug.promise.meaning()
        ));
    }
    lines
}

/// The property that the plan's bug is accused by comes first.
fn violations(plan: &Plan, played: &Played) -> Vec<String> {
    let accused = plan.bug.as_ref().map(|bug| bug.property.as_str());
    let mut verdicts: Vec<_> = played.report.verdicts.iter().collect();
    verdicts.sort_by_key(|(property, _)| Some(property.name()) != accused);
    let mut told = Vec::new();
    for (property, verdict) in verdicts {
        if let Verdict::Failed { violations, more } = verdict {
            let first = violations.iter().take(VIOLATIONS_MAX);
            told.extend(first.map(|violation| format!("{property}: {}", violation.message)));
            let others = violations.len().saturating_sub(VIOLATIONS_MAX) as u64 + more;
            if others > 0 {
                told.push(format!("{property}: and {}", counted(others, "other")));
            }
        }
    }
    told
}

/// Milliseconds as people say them.
fn for_ms(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        _ if ms.is_multiple_of(1_000) => format!("{} s", ms / 1_000),
        _ => format!("{}.{:03} s", ms / 1_000, ms % 1_000),
    }
}

/// Time of day, UTC, of Unix milliseconds.
fn time_of_day(unix_ms: i64) -> String {
    let seconds = unix_ms.div_euclid(1_000).rem_euclid(86_400);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match seconds {
        0 => format!("{hours:02}:{minutes:02}"),
        _ => format!("{hours:02}:{minutes:02}:{seconds:02}"),
    }
}
