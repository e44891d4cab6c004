//! Faults: fewer, and such as come by the clock.

use super::search::Search;

/// Without some of the faults.
pub(super) fn drop(search: &mut Search<'_>) {
    search.drop_items(
        "fewer faults",
        |plan| plan.faults.len(),
        |plan, range| std::mem::drop(plan.faults.drain(range)),
    );
}

/// At a time in the place of a moment of the run: when it would begin to wait, and later.
pub(super) fn by_the_clock(search: &mut Search<'_>) {
    for place in 0..search.plan().faults.len() {
        let plan = search.plan().clone();
        let Some(on) = plan.faults[place].on.clone() else {
            continue;
        };
        let times = (0..=8).map(|part| {
            let mut plan = plan.clone();
            plan.faults[place].at_ms += on.within_ms * part / 8;
            plan.faults[place].on = None;
            plan
        });
        search.first("faults by the clock", times);
    }
}
