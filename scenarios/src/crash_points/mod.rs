//! Crashes at every step: every I/O of a short story, and every I/O after each of these crashes.
//!
//! Comes in: a plan. Goes out: a [`CrashReport`]. A run shows which calls there are; nobody lists them.
//! Never here: what a process is killed with (`sim::tap`).

mod points;
mod story;

pub use points::{Place, Places, Point};
pub use story::{QUICK_MS, SLOW_MS, Story, stories};

use crate::jobs;
use crate::runner::{Order, Played, RunError, play_tapped};
use properties::liveness;
use reports::crash_points::{CrashReport, Kind};
use reports::replay;
use sim::tap::{Kill, Tap, Tapped};
use std::collections::BTreeSet;
use std::num::NonZeroUsize;

/// What to crash.
#[derive(Debug, Clone)]
pub struct CrashPoints<'a> {
    /// What happens beside the crashes.
    pub story: &'a Story,
    /// Runs at a time.
    pub jobs: NonZeroUsize,
    /// Also a second crash at every point after the first.
    pub pairs: bool,
}

/// What goes on, for whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many runs begin.
    Begins {
        /// What they are.
        what: &'static str,
        /// How many.
        runs: u64,
    },
    /// One of them has ended.
    Ended,
}

/// A first crash, played.
struct Single {
    failures: Vec<(Vec<Kill>, Vec<String>)>,
    /// Where a second crash may follow.
    after: Places,
    virtual_ms: u64,
    runs: u64,
}

/// A second crash after a first.
struct Pair {
    first: Kill,
    /// How many points the first one stands for.
    firsts: u64,
    second: Place,
}

impl CrashPoints<'_> {
    /// Plays everything.
    ///
    /// # Errors
    /// When the story without a crash cannot be played, or a promise is broken in it already.
    pub fn run(&self, progress: &mut dyn FnMut(Progress)) -> Result<CrashReport, RunError> {
        let (played, tapped) = self.play(&[], true, false)?;
        let mut report = CrashReport::new(&self.story.plan.scenario);
        if !played.report.held() {
            report.fail(Vec::new(), played.report.messages(), self.replay(&[]));
            return Ok(report);
        }
        let active = Places::until(&tapped, self.story.plan.active_ms);
        report.left_out += active.left_out;
        let pairs = self.singles(&active.places, &mut report, progress);
        if self.pairs {
            self.seconds(&pairs, &mut report, progress);
        }
        Ok(report)
    }

    /// Plays the story with deaths at these points.
    ///
    /// # Errors
    /// When it could not be played to its end.
    pub fn play(
        &self,
        kills: &[Kill],
        twice: bool,
        trace: bool,
    ) -> Result<(Played, Tapped), RunError> {
        let tap = Tap {
            kills: kills.iter().copied().collect(),
            down_ms: self.story.down_ms,
        };
        let order = Order {
            plan: &self.story.plan,
            expect: &[],
            input: None,
            trace,
            twice,
            replay: &self.replay(kills),
        };
        play_tapped(&order, &tap)
    }

    fn replay(&self, kills: &[Kill]) -> String {
        let points: Vec<String> = kills.iter().map(Kill::to_string).collect();
        replay::crash_command(&self.story.arguments, &points.join(","))
    }

    fn singles(
        &self,
        places: &[Place],
        report: &mut CrashReport,
        progress: &mut dyn FnMut(Progress),
    ) -> Vec<Pair> {
        let what = "places of a first crash";
        let runs = places.len() as u64;
        progress(Progress::Begins { what, runs });
        let mut pairs = Vec::new();
        let take = |place: &Place, single: Single| {
            for point in &place.points {
                report.point(kind(*point));
            }
            report.place(kind(place.first()));
            report.runs += single.runs;
            report.virtual_ms += single.virtual_ms;
            for (kills, messages) in single.failures {
                report.failed(kind(place.first()));
                report.fail(texts(&kills), messages, self.replay(&kills));
            }
            let (first, firsts) = (place.first().kill, place.points.len() as u64);
            report.pairs_left_out += firsts * single.after.left_out;
            pairs.extend(single.after.places.into_iter().map(|second| Pair {
                first,
                firsts,
                second,
            }));
        };
        let run = |place: &Place| self.single(place);
        jobs::in_order(places, self.jobs, run, take, &mut || {
            progress(Progress::Ended);
        });
        pairs
    }

    /// Plays one place: twice, to see that it is the same run, and once for each point that should be no
    /// other.
    fn single(&self, place: &Place) -> Single {
        let kills = [place.first().kill];
        let mut single = Single {
            failures: Vec::new(),
            after: Places::default(),
            virtual_ms: 0,
            runs: 2,
        };
        let (played, tapped) = match self.judged(&kills, true) {
            Ok(run) => run,
            Err(messages) => {
                single.failures.push((kills.to_vec(), messages));
                return single;
            }
        };
        single.virtual_ms = played.report.virtual_ms;
        single.after = Places::after_death(&tapped, self.last_ms(&played));
        for twin in &place.points[1..] {
            single.runs += 1;
            let failure = match self.judged(&[twin.kill], false) {
                Ok((other, _)) if is_same(&played, &other) => continue,
                Ok(_) => vec![format!(
                    "nothing has left the process since {}, and yet another run came of it",
                    kills[0]
                )],
                Err(messages) => messages,
            };
            single.failures.push((vec![twin.kill], failure));
        }
        single
    }

    fn seconds(
        &self,
        pairs: &[Pair],
        report: &mut CrashReport,
        progress: &mut dyn FnMut(Progress),
    ) {
        let what = "places of a second crash";
        let runs = pairs.len() as u64;
        progress(Progress::Begins { what, runs });
        let run = |pair: &Pair| self.judged(&[pair.first, pair.second.first().kill], false);
        let take = |pair: &Pair, result: Result<(Played, Tapped), Vec<String>>| {
            let second = kind(pair.second.first());
            report.runs += 1;
            report.pair_place(second);
            for point in &pair.second.points {
                report.pairs(kind(*point), pair.firsts);
            }
            match result {
                Ok((played, _)) => report.virtual_ms += played.report.virtual_ms,
                Err(messages) => {
                    let kills = [pair.first, pair.second.first().kill];
                    report.failed(second);
                    report.fail(texts(&kills), messages, self.replay(&kills));
                }
            }
        };
        jobs::in_order(pairs, self.jobs, run, take, &mut || {
            progress(Progress::Ended);
        });
    }

    /// A run in which everything held and every death came; otherwise what did not.
    fn judged(&self, kills: &[Kill], twice: bool) -> Result<(Played, Tapped), Vec<String>> {
        let (played, tapped) = self
            .play(kills, twice, false)
            .map_err(|e| vec![e.to_string()])?;
        if !played.report.held() {
            return Err(played.report.messages());
        }
        let wanted: BTreeSet<Kill> = kills.iter().copied().collect();
        let killed: BTreeSet<Kill> = tapped.killed.iter().map(|(kill, _)| *kill).collect();
        if wanted != killed {
            return Err(vec!["a point was not passed any more".to_owned()]);
        }
        Ok((played, tapped))
    }

    /// The last moment of a crash after which liveness has its time.
    fn last_ms(&self, played: &Played) -> u64 {
        let granted = liveness::granted_ms(&played.history.rules);
        let granted = u64::try_from(granted).unwrap_or(u64::MAX);
        (self.story.plan.active_ms + self.story.plan.settle_ms).saturating_sub(granted)
    }
}

fn kind(point: Point) -> Kind {
    Kind {
        phase: point.phase.name(),
        call: point.name,
    }
}

fn texts(kills: &[Kill]) -> Vec<String> {
    kills.iter().map(Kill::to_string).collect()
}

/// True if a user of the topics sees the same.
fn is_same(one: &Played, other: &Played) -> bool {
    let (one, other) = (&one.history, &other.history);
    one.input == other.input
        && one.outputs == other.outputs
        && one.dead_letters == other.dead_letters
        && one.commits == other.commits
}
