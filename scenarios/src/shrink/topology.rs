//! Machines and partitions: as few as it takes.

use super::search::Search;
use sim::plan::{FaultKind, Machine, Plan};

/// Fewer workers, brokers and partitions: one, half of them, one less.
pub(super) fn fewer_machines(search: &mut Search<'_>) {
    const COUNTS: [fn(&mut Plan) -> &mut u32; 5] = [
        |plan| &mut plan.topology.workers,
        |plan| &mut plan.topology.brokers,
        |plan| &mut plan.topology.input_partitions,
        |plan| &mut plan.topology.output_partitions,
        |plan| &mut plan.topology.dead_letter_partitions,
    ];
    for count in COUNTS {
        search.repeat("fewer machines", |plan| {
            let mut plan = plan.clone();
            let now = *count(&mut plan);
            [1, now / 2, now.saturating_sub(1)]
                .into_iter()
                .filter(move |fewer| (1..now).contains(fewer))
                .map(move |fewer| {
                    let mut plan = plan.clone();
                    *count(&mut plan) = fewer;
                    fold(&mut plan);
                    plan
                })
        });
    }
}

/// What happened to a machine or partition that is not there any more happens to another.
fn fold(plan: &mut Plan) {
    let topology = &plan.topology;
    for fault in &mut plan.faults {
        fault.kind.for_each_machine(|machine| match machine {
            Machine::Worker(n) => *n %= topology.workers,
            Machine::Broker(n) => *n = (*n - 1) % topology.brokers + 1,
            Machine::Controller | Machine::Producer => {}
        });
        match &mut fault.kind {
            FaultKind::NetworkCut { from, to, .. } => {
                for side in [from, to] {
                    side.sort_unstable();
                    side.dedup();
                }
            }
            FaultKind::RecordsDeleted { partition, .. }
            | FaultKind::OffsetReset { partition, .. } => *partition %= topology.input_partitions,
            _ => {}
        }
    }
}
