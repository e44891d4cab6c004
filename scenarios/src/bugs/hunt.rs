//! Storms, one after the other, until one is accused.

use crate::catalog;
use crate::jobs;
use crate::runner::{Order, RunError, play};
use properties::Property;
use sim::draw::draw;
use sim::plan::{Bug, Plan};
use sim::sabotage::Sabotage;
use std::num::NonZeroUsize;

/// How to hunt a bug.
#[derive(Debug, Clone, Copy)]
pub struct Hunt {
    /// Independent streams of seeds.
    pub streams: u64,
    /// Seeds of each until it is given up.
    pub seeds_max: u64,
    /// Streams at a time.
    pub jobs: NonZeroUsize,
}

/// A storm that was accused.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Found {
    /// How many seeds it took, this one included.
    pub seeds: u64,
    /// The seed.
    pub seed: u64,
    /// Who accused: properties, or `panic` where an assertion of the processor was first.
    pub by: Vec<String>,
}

/// The seed number `number` of a stream.
fn seed_of(stream: u64, number: u64) -> u64 {
    draw(stream, "bugs", "seed", number) >> 1
}

impl Hunt {
    /// Looks for a bug in each stream; without a promise, for one that this very program has. `None`: not
    /// found in so many seeds.
    ///
    /// # Errors
    /// When a plan cannot be played.
    pub fn all(
        &self,
        promise: Option<Sabotage>,
        progress: &mut dyn FnMut(),
    ) -> Result<Vec<Option<Found>>, RunError> {
        let streams: Vec<u64> = (0..self.streams).collect();
        let mut found = Vec::new();
        let hunt = |stream: &u64| self.stream(promise, *stream);
        jobs::in_order(
            &streams,
            self.jobs,
            hunt,
            |_, result| found.push(result),
            progress,
        );
        found.into_iter().collect()
    }

    fn stream(&self, promise: Option<Sabotage>, stream: u64) -> Result<Option<Found>, RunError> {
        for number in 0..self.seeds_max {
            let seed = seed_of(stream, number);
            let by = accusers(&plan(promise, seed)?)?;
            if !by.is_empty() {
                let seeds = number + 1;
                return Ok(Some(Found { seeds, seed, by }));
            }
        }
        Ok(None)
    }
}

/// The plan of a seed, with a promise that its world breaks.
///
/// # Errors
/// When the catalogue's own scenario is wrong.
pub fn plan(promise: Option<Sabotage>, seed: u64) -> Result<Plan, RunError> {
    let scenario = match promise {
        // It takes a backlog, which storms do not have.
        Some(Sabotage::BacklogCalledIdle) => "backlog",
        _ => "storm",
    };
    let plan = catalog::find(scenario).and_then(|scenario| scenario.resolve(seed));
    let mut plan = plan.map_err(|e| RunError::Plan(e.to_string()))?;
    plan.bug = promise.map(|promise| Bug {
        promise,
        property: String::new(),
    });
    Ok(plan)
}

fn accusers(plan: &Plan) -> Result<Vec<String>, RunError> {
    let hidden = Sabotage::HiddenInput;
    let order = Order {
        plan,
        expect: &[],
        input: None,
        trace: false,
        twice: plan.bug.as_ref().is_some_and(|bug| bug.promise == hidden),
        replay: "",
    };
    match play(&order) {
        Ok(played) => {
            let failed = played.report.verdicts.failed().into_iter();
            Ok(failed
                .map(|failed: Property| failed.name().to_owned())
                .collect())
        }
        Err(RunError::Panicked(_)) => Ok(vec!["panic".to_owned()]),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Hunt = Hunt {
        streams: 2,
        seeds_max: 5,
        jobs: NonZeroUsize::MIN,
    };

    #[test]
    fn streams_have_seeds_of_their_own_that_a_plan_file_can_hold() {
        let mut seeds: Vec<u64> = (0..10)
            .flat_map(|stream| (0..10).map(move |number| seed_of(stream, number)))
            .collect();
        assert!(seeds.iter().all(|seed| i64::try_from(*seed).is_ok()));
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 100);
    }

    #[test]
    fn a_bug_is_found_in_each_stream_and_no_bug_in_none() {
        let twice = QUICK.all(Some(Sabotage::OutputsTwice), &mut || ());
        for found in twice.expect("storms can be played") {
            let found = found.expect("it strikes in nearly every storm");
            assert!(
                found.by.contains(&"exactly-once-out".to_owned()),
                "{found:?}"
            );
        }
        let none = QUICK.all(None, &mut || ());
        assert_eq!(none.expect("storms can be played"), [None, None]);
    }
}
