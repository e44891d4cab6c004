//! Crashes at every step: the points are all there, a death at one does what it says, and a broken promise
//! that only a crash brings to light is found.

use scenarios::crash_points::{CrashPoints, Places, Progress, Story, stories};
use scenarios::runner::Played;
use sim::plan::Bug;
use sim::sabotage::Sabotage;
use sim::tap::{Call, Kill, Moment, Phase, Tapped};
use std::collections::BTreeSet;
use std::num::NonZeroUsize;

fn of(story: &Story) -> CrashPoints<'_> {
    CrashPoints {
        story,
        jobs: NonZeroUsize::MIN,
        pairs: false,
    }
}

fn first_story() -> Story {
    stories().expect("sound").remove(0)
}

fn played(story: &Story, kills: &[Kill], trace: bool) -> (Played, Tapped) {
    of(story).play(kills, false, trace).expect("is played")
}

#[test]
fn calls_have_the_same_numbers_whether_the_trace_is_kept_or_not() {
    let story = first_story();
    let (with, without) = (played(&story, &[], true), played(&story, &[], false));
    assert_eq!(with.1, without.1);
    assert!(!with.0.trace.is_empty());
}

#[test]
fn a_tap_that_kills_nobody_changes_nothing() {
    let story = first_story();
    let order = scenarios::runner::Order {
        plan: &story.plan,
        expect: &[],
        input: None,
        trace: false,
        twice: false,
        replay: "",
    };
    let untapped = scenarios::runner::play(&order).expect("is played");
    let (tapped, _) = played(&story, &[], false);
    assert_eq!(tapped.report.trace_hash, untapped.report.trace_hash);
}

#[test]
fn every_phase_of_every_story_has_its_points() {
    for story in stories().expect("sound") {
        let (_, tapped) = played(&story, &[], false);
        let places = Places::until(&tapped, story.plan.active_ms);
        let points = places.places.iter().flat_map(|place| &place.points);
        let phases: BTreeSet<Phase> = points.clone().map(|point| point.phase).collect();
        assert_eq!(phases, BTreeSet::from(Phase::ALL));
        let calls: BTreeSet<&str> = points.map(|point| point.name).collect();
        for call in [
            "producer.send",
            "objects.get",
            "objects.delete",
            "consumer.close",
        ] {
            assert!(calls.contains(call), "{}: {call}", story.plan.scenario);
        }
        let found = (places.points(), places.places.len());
        assert!(found >= (400, 200), "{}: {found:?}", story.plan.scenario);
    }
}

/// The first commit that carries outputs.
fn first_commit(tapped: &Tapped) -> &Call {
    let sent = tapped
        .calls
        .iter()
        .position(|call| call.name == "producer.send" && call.phase == Phase::Commit);
    tapped.calls[sent.expect("outputs are sent")..]
        .iter()
        .find(|call| call.name == "producer.commit_transaction")
        .expect("and committed")
}

#[test]
fn a_death_before_a_commit_leaves_none_and_one_after_its_request_leaves_it() {
    let mut story = first_story();
    // One worker has everything: its calls have the same numbers in the shorter world below.
    story.plan.topology.workers = 1;
    story.plan.faults.truncate(1);
    let (_, tapped) = played(&story, &[], false);
    let commit = first_commit(&tapped);
    let marks = || commit.marks.iter();
    // The world ends a second later, before anybody else can have committed the same.
    let last = marks().map(|mark| mark.at.as_ms()).max().expect("marks");
    story.plan.active_ms = last + 1_000;
    story.plan.settle_ms = 1;
    story
        .plan
        .workload
        .records
        .retain(|record| record.at_ms <= last);
    let outputs = |moment: Moment| {
        let kill = Kill {
            call: commit.id,
            moment,
        };
        let (played, tapped) = self::played(&story, &[kill], false);
        assert_eq!(tapped.killed.len(), 1);
        played.history.dead_letters.len() + played.history.outputs.len()
    };
    assert_eq!(outputs(Moment::Before), 0);
    assert_eq!(outputs(Moment::After), 1);
    let unknown: Vec<usize> = marks()
        .filter(|mark| matches!(mark.moment, Moment::Unknown(_)))
        .map(|mark| outputs(mark.moment))
        .collect();
    assert_eq!(
        unknown.last(),
        Some(&1),
        "its last request ends it: {unknown:?}"
    );
    assert_eq!(
        unknown.first(),
        Some(&0),
        "its first one does not: {unknown:?}"
    );
}

#[test]
fn a_broken_promise_that_only_a_crash_brings_to_light_is_found() {
    let mut story = first_story();
    story.plan.bug = Some(Bug {
        promise: Sabotage::AbortedShown,
        property: "exactly-once".to_owned(),
    });
    let points = of(&story);
    let (calm, _) = points.play(&[], false, false).expect("is played");
    assert!(calm.report.held(), "nothing is aborted without a crash");
    let mut runs = 0;
    let report = points.run(&mut |progress| {
        if let Progress::Begins { runs: begun, .. } = progress {
            runs += begun;
        }
    });
    let report = report.expect("is played");
    assert_eq!(runs, report.total().places);
    assert!(!report.failures.is_empty());
    for failure in &report.failures {
        let [point] = &failure.points[..] else {
            panic!("{failure:?}");
        };
        assert!(failure.replay.contains(point), "{failure:?}");
        let kill: Kill = point.parse().expect("is a point");
        let again = points.play(&[kill], false, false).expect("is played");
        assert!(!again.0.report.held());
    }
}
