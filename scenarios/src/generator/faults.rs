//! The faults of a storm: ways to hurt, laid over its time.

use super::dice::Dice;
use super::machines::{MISHAPS, Mishap, mishap};
use super::moments::{MOMENTS, Moment, Timeouts, moment};
use super::patterns::{PATTERNS, Pattern, pattern};
use sim::plan::{Fault, Plan};

/// Faults that a storm has at least.
const FAULTS_MIN: usize = 9;
/// Virtual time without faults at either end of a storm.
const QUIET_MS: u64 = 30_000;
/// Ways to hurt that a storm has at least.
const WAYS_MIN: usize = 3;
/// A way may be so many times as frequent as another.
const WEIGHT_MAX: u64 = 6;

/// A way to hurt: one fault or several that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Pattern(Pattern),
    Mishap(Mishap),
    Moment(Moment),
}

fn ways() -> impl Iterator<Item = Way> {
    let patterns = PATTERNS.into_iter().map(Way::Pattern);
    let mishaps = MISHAPS.into_iter().map(Way::Mishap);
    patterns
        .chain(mishaps)
        .chain(MOMENTS.into_iter().map(Way::Moment))
}

/// The faults of a storm of this seed, time, topology and configuration, sorted by time; all end before
/// its active time does. Durations of single faults do not grow with that: a longer storm spreads
/// them, and has a few more.
///
/// Each seed uses only some of the ways to hurt, some of them more often than others, so that rare
/// combinations get runs of their own.
#[must_use]
pub fn storm_faults(plan: &Plan) -> Vec<Fault> {
    let (seed, active_ms) = (plan.seed, plan.active_ms);
    let timeouts = Timeouts::of(plan);
    let dice = Dice::new(seed, "faults");
    let enabled = enabled(seed);
    let slots = dice.between("slots", 6, 14) + (active_ms / 3_600_000).min(20);
    let span_ms = active_ms.saturating_sub(2 * QUIET_MS);
    let slot_ms = (span_ms / slots).max(1);
    let mut faults = Vec::new();
    let mut slot = 0;
    while slot < slots || faults.len() < FAULTS_MIN {
        let here = Dice::new(seed, format!("slot {slot}"));
        let from_ms = QUIET_MS + (slot % slots) * slot_ms;
        let at_ms = from_ms + here.between("moment", 0, slot_ms / 2);
        faults.extend(match here.pick("way", &enabled) {
            Way::Pattern(of) => pattern(of, at_ms, &here, &plan.topology),
            Way::Mishap(of) => mishap(of, at_ms, &here, &plan.topology),
            Way::Moment(of) => moment(of, at_ms, &here, &plan.topology, timeouts),
        });
        slot += 1;
    }
    faults.sort_by_key(|fault| fault.at_ms);
    end_before(&mut faults, active_ms);
    faults
}

/// The ways of a seed, each as often as it is to be drawn.
fn enabled(seed: u64) -> Vec<Way> {
    let of = |way: &Way| Dice::new(seed, format!("{way:?}"));
    let mut enabled: Vec<Way> = ways().filter(|way| of(way).one_in("enabled", 2)).collect();
    if enabled.len() < WAYS_MIN {
        enabled = ways().collect();
    }
    let weighted = enabled.iter().flat_map(|way| {
        let weight = of(way).between("weight", 1, WEIGHT_MAX);
        (0..weight).map(|_| *way)
    });
    weighted.collect()
}

/// Shortens what would reach beyond `end_ms`.
fn end_before(faults: &mut [Fault], end_ms: u64) {
    for fault in faults {
        fault.at_ms = fault.at_ms.min(end_ms.saturating_sub(1));
        let over_ms = fault.over_at_ms().saturating_sub(end_ms);
        let waits = fault.on.as_mut().map(|on| &mut on.within_ms);
        shorten(waits, over_ms);
        let over_ms = fault.over_at_ms().saturating_sub(end_ms);
        shorten(fault.kind.length_ms_mut(), over_ms);
    }
}

fn shorten(length: Option<&mut u64>, by_ms: u64) {
    if let Some(length) = length {
        *length -= by_ms.min(*length);
    }
}
