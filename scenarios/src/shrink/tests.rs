//! The search by itself: nothing is played.

use super::{Limits, Observer, Search, Shrunk, Size, Step, shrink};
use crate::catalog;
use sim::draw::draw_below;
use sim::plan::{Fault, FaultKind, Plan, Scripted};
use std::num::NonZeroUsize;
use std::sync::Mutex;

static NEVER: fn() -> bool = || false;

fn limits(jobs: usize) -> Limits<'static> {
    Limits {
        runs_max: 20_000,
        jobs: NonZeroUsize::new(jobs).expect("not 0"),
        is_over: &NEVER,
    }
}

/// A plan with numbered records and faults: record n has the volume n, fault n lasts 1000 + n ms.
fn plan(records: u64, faults: u64) -> Plan {
    let mut plan = catalog::find("calm")
        .and_then(|calm| calm.resolve(0))
        .unwrap_or_else(|e| panic!("{e}"));
    plan.active_ms = 600_000;
    plan.workload.streams.clear();
    plan.workload.records = (0..records)
        .map(|n| Scripted {
            at_ms: 10_000 + n * 137,
            key: Some("AMZN".to_owned()),
            value: format!("record {n};"),
            times: 1,
        })
        .collect();
    plan.faults = (0..faults)
        .map(|n| {
            let down_ms = 1_000 + n;
            Fault::at(
                20_000 + n * 1_117,
                FaultKind::WorkerCrash { worker: 0, down_ms },
            )
        })
        .collect();
    plan
}

fn has_record(plan: &Plan, n: u64) -> bool {
    let value = format!("record {n};");
    plan.workload.records.iter().any(|r| r.value == value)
}

fn has_fault(plan: &Plan, n: u64) -> bool {
    plan.faults
        .iter()
        .any(|fault| fault.kind.length_ms() == Some(1_000 + n))
}

/// Sees to it that no step leads to a plan that does not fail, or that is not smaller.
struct Strict {
    steps: u64,
}

impl Observer for Strict {
    fn judged(&mut self, _runs: u64) {}
    fn step(&mut self, step: Step<'_>) {
        assert!(step.after < step.before, "{}", step.what);
        self.steps += 1;
    }
}

fn strictly(plan: &Plan, fails: &(dyn Fn(&Plan) -> bool + Sync)) -> Shrunk {
    let mut strict = Strict { steps: 0 };
    let shrunk = shrink(plan, fails, &limits(1), &mut strict);
    assert!(fails(&shrunk.plan) && shrunk.complete && strict.steps > 0);
    shrunk
}

#[test]
fn what_matters_is_all_that_is_left_whatever_it_is() {
    for case in 0..24 {
        let drawn = |what: &str, bound: u64| draw_below(case, "case", what, 0, bound);
        let (records, faults) = (1 + drawn("records", 60), 1 + drawn("faults", 30));
        let (record, other) = (drawn("record", records), drawn("other", records));
        let fault = drawn("fault", faults);
        let fails = |plan: &Plan| {
            has_fault(plan, fault) && has_record(plan, record) && has_record(plan, other)
        };
        let shrunk = strictly(&plan(records, faults), &fails).plan;
        let left = shrunk.workload.records.len();
        assert_eq!(left, if record == other { 1 } else { 2 }, "case {case}");
        assert_eq!(shrunk.faults.len(), 1, "case {case}");
        assert_eq!(shrunk.topology.workers, 1);
        assert_eq!(shrunk.topology.brokers, 1);
        assert_eq!(shrunk.settle_ms, 0);
    }
}

#[test]
fn a_plan_that_fails_whatever_is_in_it_is_shrunk_to_nothing() {
    let storm = catalog::find("storm").and_then(|storm| storm.resolve(7));
    let shrunk = strictly(&storm.expect("resolves"), &|_| true).plan;
    let size = Size::of(&shrunk);
    assert_eq!((size.records, size.faults, size.virtual_ms), (0, 0, 0));
    assert!(shrunk.processor.is_empty(), "{:?}", shrunk.processor);
}

#[test]
fn every_plan_that_is_judged_can_be_played() {
    let storm = catalog::find("storm").and_then(|storm| storm.resolve(11));
    let fails = |plan: &Plan| {
        assert_eq!(plan.check(), Ok(()));
        plan.faults.len() >= 4 && Size::of(plan).records >= 5
    };
    let size = Size::of(&strictly(&storm.expect("resolves"), &fails).plan);
    assert_eq!((size.records, size.faults), (5, 4));
}

#[test]
fn the_result_does_not_depend_on_the_number_of_jobs() {
    let storm = catalog::find("storm").and_then(|storm| storm.resolve(3));
    let storm = storm.expect("resolves");
    let fails = |plan: &Plan| plan.faults.len() >= 3 && Size::of(plan).records >= 7;
    let [alone, together] = [1, 8].map(|jobs| shrink(&storm, &fails, &limits(jobs), &mut ()));
    assert_eq!(alone.plan, together.plan);
    assert_eq!(alone.runs, together.runs);
}

#[test]
fn a_plan_may_fail_with_another_seed() {
    // As a planted bug does: with one record in ten, by a draw of the seed.
    let fails = |plan: &Plan| {
        let records = plan.workload.records.len() as u64;
        (0..records).any(|n| draw_below(plan.seed, "bug", "strikes", n, 10) == 0)
    };
    let mut large = plan(200, 0);
    large.seed = 4_711;
    assert!(fails(&large));
    assert_eq!(strictly(&large, &fails).plan.workload.records.len(), 1);
}

#[test]
fn what_was_found_until_the_end_of_the_budget_is_a_result() {
    let judged = Mutex::new(0);
    let fails = |plan: &Plan| {
        *judged.lock().expect("one thread") += 1;
        has_record(plan, 7)
    };
    let limits = Limits {
        runs_max: 5,
        ..limits(1)
    };
    let shrunk = shrink(&plan(100, 20), &fails, &limits, &mut ());
    assert!(fails(&shrunk.plan) && !shrunk.complete);
    assert!(shrunk.runs <= 6, "{}", shrunk.runs);
}

#[test]
fn no_plan_is_judged_twice() {
    let seen = Mutex::new(Vec::new());
    let fails = |plan: &Plan| {
        let mut seen = seen.lock().expect("one thread");
        assert!(!seen.contains(plan), "{plan:?}");
        seen.push(plan.clone());
        has_record(plan, 7) && has_fault(plan, 3)
    };
    shrink(&plan(20, 5), &fails, &limits(1), &mut ());
}

#[test]
fn the_first_proposal_that_fails_is_taken() {
    let (limits, fails) = (limits(4), |plan: &Plan| plan.settle_ms % 2 == 1);
    let observer = &mut ();
    let mut search = Search::new(plan(1, 0), &fails, &limits, observer);
    let proposals = [2, 4, 1_000_000_001, 5, 3].map(|settle_ms| Plan {
        settle_ms,
        ..plan(1, 0)
    });
    assert_eq!(search.first("odd", proposals), Some(3)); // the third is not smaller
    assert_eq!(search.plan().settle_ms, 5);
}
