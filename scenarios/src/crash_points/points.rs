//! The points of a run: where its processes could have died.
//!
//! Comes in: what a tap has recorded. Goes out: [`Place`]s, each with all the points at which the world
//! cannot tell one death from another.

use sim::fabric::actor::Micros;
use sim::tap::{Kill, Outside, Phase, Tapped};
use std::collections::{BTreeMap, BTreeSet};

/// A point, and what the process was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Where the process dies.
    pub kill: Kill,
    /// What it was about.
    pub phase: Phase,
    /// Its call.
    pub name: &'static str,
}

/// Points that are one for everybody but the process that dies: nothing has left it between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Never empty; in the order in which they are passed.
    pub points: Vec<Point>,
}

impl Place {
    /// The point that stands for all of them.
    #[must_use]
    pub fn first(&self) -> Point {
        self.points[0]
    }
}

/// The places of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    /// In the order in which they are passed.
    pub places: Vec<Place>,
    /// Points of idle polls: each kind of them is there once.
    pub left_out: u64,
}

impl Places {
    /// All points that were passed until then.
    #[must_use]
    pub fn until(tapped: &Tapped, until_ms: u64) -> Places {
        Places::between(tapped, 0, until_ms)
    }

    /// All points that were passed since the last death until then.
    #[must_use]
    pub fn after_death(tapped: &Tapped, until_ms: u64) -> Places {
        let death = tapped.killed.last().map_or(0, |(_, serial)| *serial);
        Places::between(tapped, death, until_ms)
    }

    fn between(tapped: &Tapped, after: u64, until_ms: u64) -> Places {
        let until = Micros::from_ms(until_ms);
        let mut shown = BTreeSet::new();
        let mut left_out = 0;
        let mut points = Vec::new();
        for call in &tapped.calls {
            let marks = call.marks.iter();
            let passed = marks.filter(|mark| mark.serial > after && mark.at <= until);
            let mut passed = passed.peekable();
            if passed.peek().is_none() {
                continue;
            }
            let is_idle = call.phase == Phase::Reading && call.name.starts_with("consumer.poll");
            if is_idle && !shown.insert(call.name) {
                left_out += passed.count() as u64;
                continue;
            }
            points.extend(passed.map(|mark| {
                let kill = Kill {
                    call: call.id,
                    moment: mark.moment,
                };
                let point = Point {
                    kill,
                    phase: call.phase,
                    name: call.name,
                };
                (mark.serial, mark.outside, point)
            }));
        }
        points.sort_by_key(|(serial, ..)| *serial);
        let mut known: BTreeMap<(u32, u64, Outside), usize> = BTreeMap::new();
        let mut places: Vec<Place> = Vec::new();
        for (_, outside, point) in points {
            let call = point.kill.call;
            let index = *known
                .entry((call.worker, call.start, outside))
                .or_insert(places.len());
            match places.get_mut(index) {
                Some(place) => place.points.push(point),
                None => places.push(Place {
                    points: vec![point],
                }),
            }
        }
        Places { places, left_out }
    }

    /// Number of points.
    #[must_use]
    pub fn points(&self) -> u64 {
        self.places
            .iter()
            .map(|place| place.points.len() as u64)
            .sum()
    }
}
