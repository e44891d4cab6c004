//! From a plan that fails to its core.
//!
//! Comes in: a plan, and somebody who says of any plan whether it still fails. Goes out: the
//! smallest plan found that does ([`Size`] says what small is), and what each step took away.
//! Never here: how a plan is played (that is [`judge`]'s affair), and any choice that depends on
//! time or threads: only where the search breaks off does.
//!
//! A pass proposes plans that are smaller in one respect, the boldest first; `search::Search` has
//! them judged and goes on from the first that fails. Passes follow each other until none of them
//! finds anything. A planted bug strikes by draws of the seed, so that a smaller plan may miss it by
//! chance alone: `seeds` tries smaller plans with other seeds, for the seed is part of the plan.

mod faults;
pub mod judge;
mod keys;
mod numbers;
mod records;
mod search;
mod seeds;
mod size;
mod streams;
mod times;
mod topology;

pub use search::{Limits, Observer, Step};
pub use size::Size;

use search::Search;
use sim::plan::Plan;

/// What came of a search.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The smallest plan found; it fails.
    pub plan: Plan,
    /// Plans that were judged.
    pub runs: u64,
    /// False when the search ended before it had tried everything.
    pub complete: bool,
}

type Pass = fn(&mut Search<'_>);

/// In this order, for what comes first makes the rest quicker to judge.
const PASSES: [Pass; 21] = [
    faults::drop,
    times::end_earlier,
    streams::drop,
    streams::thinner_bursts,
    streams::fewer_events,
    times::close_gaps,
    streams::plain,
    topology::fewer_machines,
    times::settle_shorter,
    streams::as_records,
    records::drop,
    numbers::extremes,
    seeds::fewer_records,
    streams::as_records,
    seeds::fewer_faults,
    faults::by_the_clock,
    times::settle_shorter,
    times::close_gaps,
    records::simplify,
    keys::drop,
    numbers::round,
];

/// Makes `plan`, which fails, smaller as long as `fails` says that what is left still does.
pub fn shrink(
    plan: &Plan,
    fails: &(dyn Fn(&Plan) -> bool + Sync),
    limits: &Limits<'_>,
    observer: &mut dyn Observer,
) -> Shrunk {
    let mut search = Search::new(plan.clone(), fails, limits, observer);
    loop {
        let before = search.size();
        for pass in PASSES {
            pass(&mut search);
        }
        if search.size() == before || search.is_over() {
            break;
        }
    }
    let complete = !search.is_over();
    let runs = search.runs();
    Shrunk {
        plan: search.into_plan(),
        runs,
        complete,
    }
}

#[cfg(test)]
mod tests;
