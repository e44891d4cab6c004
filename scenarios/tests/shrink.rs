//! Every planted failure is shrunk to a core that a person can read.

mod planted;

use planted::{SEEDS_MAX, broken, planted};
use properties::Property;
use scenarios::plan_file;
use scenarios::runner::{Order, play};
use scenarios::shrink::judge::{Failure, fails};
use scenarios::shrink::{Limits, Size, shrink};
use sim::plan::Plan;
use sim::sabotage::Sabotage;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// What a person is asked to read at most.
const RECORDS_MAX: u64 = 12;
const FAULTS_MAX: u64 = 3;
/// As the command's default.
const BUDGET: Duration = Duration::from_secs(30);
/// A core is played again this often.
const REPLAYS: usize = 10;

/// The plan of the first seed in which the bug is accused.
fn first_failing(sabotage: Sabotage, failure: &Failure) -> Plan {
    (0..SEEDS_MAX)
        .map(|seed| planted(sabotage, seed))
        .find(|plan| fails(plan, failure))
        .unwrap_or_else(|| panic!("{sabotage} is not noticed"))
}

/// Trace hash of a replay, which must fail as the plan did.
fn replayed(plan: &Plan, property: Property) -> u64 {
    let played = play(&Order {
        plan,
        expect: &[],
        input: None,
        trace: false,
        twice: property == Property::Determinism,
        replay: "",
    })
    .unwrap_or_else(|e| panic!("{e}"));
    assert!(played.report.verdicts.failed().contains(&property));
    played.report.trace_hash
}

/// Shrinks the first failing seed of this bug, and prints a line of the table.
#[allow(
    clippy::disallowed_methods,
    reason = "how long it takes is part of what is promised"
)]
fn shrunk(sabotage: Sabotage) -> Size {
    let property = broken(sabotage);
    let failure = Failure::Property(property);
    let plan = first_failing(sabotage, &failure);
    let began = Instant::now();
    let limits = Limits {
        runs_max: u64::MAX,
        jobs: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        is_over: &|| began.elapsed() >= BUDGET,
    };
    let core = shrink(&plan, &|plan| fails(plan, &failure), &limits, &mut ());
    let took = began.elapsed();
    let text = plan_file::print_briefly(&core.plan).expect("it prints");
    let read: Plan = toml::from_str(&text).expect("it reads back");
    assert_eq!(read, core.plan);
    let first = replayed(&read, property);
    for _ in 1..REPLAYS {
        let again = replayed(&read, property);
        // This bug is that runs differ.
        assert!(again == first || property == Property::Determinism);
    }
    let (before, after) = (Size::of(&plan), Size::of(&core.plan));
    println!(
        "{:<22} {property:<18} {:>6} records {:>2} faults {:>5} s → {:>2} records {} faults \
         {:>4} s {:>5} plans tried{} {:>5.1} s",
        sabotage.to_string(),
        before.records,
        before.faults,
        before.virtual_ms / 1_000,
        after.records,
        after.faults,
        after.virtual_ms / 1_000,
        core.runs,
        if core.complete { "" } else { "+" },
        took.as_secs_f64(),
    );
    if std::env::args().any(|argument| argument == "--nocapture") {
        println!("{text}");
    }
    after
}

#[test]
fn planted_failures_are_shrunk_to_what_a_person_can_read() {
    for sabotage in [
        Sabotage::OffsetsWithoutOutputs,
        Sabotage::ClockAhead,
        Sabotage::SnapshotsStale,
    ] {
        let size = shrunk(sabotage);
        assert!(size.records <= RECORDS_MAX && size.faults <= FAULTS_MAX);
    }
}

#[test]
#[ignore = "takes minutes: cargo test --release -p scenarios --test shrink -- --ignored --nocapture"]
fn every_planted_failure_is_shrunk_to_what_a_person_can_read() {
    let large: Vec<Sabotage> = Sabotage::ALL
        .into_iter()
        .filter(|sabotage| {
            let size = shrunk(*sabotage);
            size.records > RECORDS_MAX || size.faults > FAULTS_MAX
        })
        .collect();
    assert!(large.is_empty(), "{large:?}");
}
