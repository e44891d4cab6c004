//! Every broken promise is noticed, and by the property that it breaks.
//!
//! A faithful processor runs in worlds where one adapter or broker breaks one promise
//! ([`Sabotage`]). Seeds (mostly of the storm) are played until a checker accuses; the table that the last test
//! prints (`--nocapture`) tells which one did, and after how many seeds.

mod planted;

use planted::{SEEDS_MAX, broken, planted};
use properties::history::History;
use properties::spill::Scratch;
use properties::{Property, Verdicts};
use scenarios::audit::{self, recorded::Recorded};
use scenarios::runner::{Order, Played, RunError, play};
use sim::sabotage::Sabotage;

/// What the checkers say of one sabotaged run; `None` when it had no end to judge.
fn judged(sabotage: Sabotage, seed: u64) -> Option<Verdicts> {
    played(sabotage, seed).map(|played| played.report.verdicts)
}

/// One sabotaged run; `None` when it had no end to judge.
fn played(sabotage: Sabotage, seed: u64) -> Option<Played> {
    let plan = planted(sabotage, seed);
    let order = Order {
        plan: &plan,
        expect: &[],
        input: None,
        trace: false,
        twice: sabotage == Sabotage::HiddenInput,
        replay: "",
    };
    match play(&order) {
        Ok(played) => Some(played),
        // The worker's own assertion saw it: a broken invariant is an accusation too, but not a
        // checker's.
        Err(RunError::Panicked(_)) => None,
        Err(e) => panic!("{sabotage} seed {seed}: {e}"),
    }
}

/// Seeds until the property accuses, when runs are judged like this.
fn seeds_to_detection(
    sabotage: Sabotage,
    property: Property,
    judge: impl Fn(&Played) -> Vec<Property>,
) -> Option<u64> {
    (0..SEEDS_MAX)
        .find(|&seed| {
            played(sabotage, seed).is_some_and(|played| judge(&played).contains(&property))
        })
        .map(|seed| seed + 1)
}

/// What the audit of a real cluster would accuse in this run: it sees the topics and the newest
/// commits, and sorts on disk.
fn audited(history: &History) -> Vec<Property> {
    let order = audit::Order {
        rules: history.rules.clone(),
        group: "processor".to_owned(),
        topics: [history.input_topic.as_str(), "output", "dlq"].map(str::to_owned),
        complete: history.settled,
        hidden_ms_max: history.hidden_ms_max,
        clock_error_ms: history.clock_error_ms,
        scratch: Scratch::folder(std::env::temp_dir(), 100_000),
    };
    let report = audit::audit(&order, &mut Recorded::new(history), &mut ());
    report.expect("it is audited").verdicts.failed()
}

#[test]
fn every_sabotage_is_caught_by_the_property_that_it_breaks() {
    let mut unnoticed = Vec::new();
    for sabotage in Sabotage::ALL {
        let property = broken(sabotage);
        let judged = |played: &Played| played.report.verdicts.failed();
        match seeds_to_detection(sabotage, property, judged) {
            Some(seeds) => println!("{sabotage:<24} {:<18} {seeds:>3} seeds", property.name()),
            None => unnoticed.push(sabotage),
        }
    }
    assert!(unnoticed.is_empty(), "not caught: {unnoticed:?}");
}

#[test]
fn the_audit_catches_every_sabotage_but_that_of_determinism() {
    let mut unnoticed = Vec::new();
    for sabotage in Sabotage::ALL {
        let property = broken(sabotage);
        if property == Property::Determinism {
            continue; // a real run cannot be played twice
        }
        match seeds_to_detection(sabotage, property, |played| audited(&played.history)) {
            Some(seeds) => println!("audit: {sabotage:<24} {:<18} {seeds:>3}", property.name()),
            None => unnoticed.push(sabotage),
        }
    }
    assert!(unnoticed.is_empty(), "not caught: {unnoticed:?}");
}

/// An idle partition's clock goes no faster than the log's, so that a consumer that takes slow fetching for
/// silence does no harm.
#[test]
fn a_backlog_called_idle_is_withstood() {
    for seed in 0..5 {
        let verdicts = judged(Sabotage::BacklogCalledIdle, seed).expect("it is played to its end");
        assert_eq!(verdicts.failed(), [], "seed {seed}");
    }
}

#[test]
fn every_property_has_a_sabotage_that_breaks_it() {
    for property in Property::ALL {
        let breaks = |sabotage: &Sabotage| broken(*sabotage) == property;
        assert!(Sabotage::ALL.iter().any(breaks), "{}", property.name());
    }
}
