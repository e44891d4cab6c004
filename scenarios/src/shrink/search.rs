//! The search: one plan, which fails, and proposals that are judged in order.

use super::Size;
use crate::plan_file;
use sim::draw::draw;
use sim::plan::Plan;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::Range;

/// How long a search may go on, and on how many cores.
pub struct Limits<'a> {
    /// Plans that are judged at most.
    pub runs_max: u64,
    /// Plans that are judged at a time; makes no difference to the result.
    pub jobs: NonZeroUsize,
    /// True when it has taken long enough.
    pub is_over: &'a dyn Fn() -> bool,
}

/// A smaller plan was found.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// What was tried.
    pub what: &'a str,
    /// Size before.
    pub before: Size,
    /// Size now.
    pub after: Size,
}

/// Who looks on.
pub trait Observer {
    /// So many plans have been judged.
    fn judged(&mut self, runs: u64);
    /// A smaller plan was found.
    fn step(&mut self, step: Step<'_>);
}

/// Nobody looks on.
impl Observer for () {
    fn judged(&mut self, _runs: u64) {}
    fn step(&mut self, _step: Step<'_>) {}
}

/// A plan that is worth judging.
struct Proposal {
    /// Its place among the proposals.
    place: usize,
    /// Hash of its text.
    key: u64,
    size: Size,
    plan: Plan,
}

/// A search, see [`super::shrink`].
pub struct Search<'a> {
    plan: Plan,
    size: Size,
    fails: &'a (dyn Fn(&Plan) -> bool + Sync),
    limits: &'a Limits<'a>,
    observer: &'a mut dyn Observer,
    /// Plans that were judged already: hashes of their texts.
    judged: BTreeSet<u64>,
    runs: u64,
}

impl<'a> Search<'a> {
    /// Begins with a plan that fails.
    pub fn new(
        plan: Plan,
        fails: &'a (dyn Fn(&Plan) -> bool + Sync),
        limits: &'a Limits<'a>,
        observer: &'a mut dyn Observer,
    ) -> Self {
        Search {
            size: Size::of(&plan),
            plan,
            fails,
            limits,
            observer,
            judged: BTreeSet::new(),
            runs: 0,
        }
    }

    /// The smallest plan so far.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its size.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// Plans judged so far.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// The smallest plan.
    #[must_use]
    pub fn into_plan(self) -> Plan {
        self.plan
    }

    /// True when nothing more may be tried.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.runs >= self.limits.runs_max || (self.limits.is_over)()
    }

    /// Goes on from the first of the `proposals` that is smaller and still fails; its place among
    /// them, or `None` if there is none.
    pub fn first(
        &mut self,
        what: &str,
        proposals: impl IntoIterator<Item = Plan>,
    ) -> Option<usize> {
        let mut proposals = proposals.into_iter().enumerate();
        loop {
            let mut batch: Vec<Proposal> = Vec::new();
            while batch.len() < self.limits.jobs.get()
                && let Some((place, plan)) = proposals.next()
            {
                let key = key(&plan);
                if self.judged.contains(&key) || batch.iter().any(|other| other.key == key) {
                    continue;
                }
                if let Some(size) = self.worth_judging(&plan) {
                    batch.push(Proposal {
                        place,
                        key,
                        size,
                        plan,
                    });
                }
            }
            if batch.is_empty() || self.is_over() {
                return None;
            }
            let verdicts = judge_all(self.fails, &batch);
            // Those after the first that fails would not have been judged by one core.
            let first = verdicts.iter().position(|fails| *fails);
            let judged = first.map_or(batch.len(), |first| first + 1);
            self.judged
                .extend(batch[..judged].iter().map(|proposal| proposal.key));
            self.runs += judged as u64;
            self.observer.judged(self.runs);
            if let Some(first) = first {
                let Proposal {
                    place, size, plan, ..
                } = batch.swap_remove(first);
                self.observer.step(Step {
                    what,
                    before: self.size,
                    after: size,
                });
                (self.plan, self.size) = (plan, size);
                return Some(place);
            }
        }
    }

    /// As often as it helps, what `propose` makes of the plan.
    pub fn repeat<P: IntoIterator<Item = Plan>>(
        &mut self,
        what: &str,
        propose: impl Fn(&Plan) -> P,
    ) {
        while !self.is_over() {
            let proposals = propose(&self.plan);
            if self.first(what, proposals).is_none() {
                return;
            }
        }
    }

    /// Takes items out of the plan: all, halves, quarters, single ones (ddmin).
    pub fn drop_items(
        &mut self,
        what: &str,
        count: impl Fn(&Plan) -> usize,
        take_out: impl Fn(&mut Plan, Range<usize>),
    ) {
        let mut chunk = count(&self.plan);
        while chunk > 0 {
            let mut from = 0;
            while from < count(&self.plan) {
                let (plan, items) = (self.plan.clone(), count(&self.plan));
                let proposals = (from..items).step_by(chunk).map(|start| {
                    let mut smaller = plan.clone();
                    take_out(&mut smaller, start..items.min(start + chunk));
                    smaller
                });
                match self.first(what, proposals) {
                    Some(place) => from += place * chunk,
                    None => break,
                }
            }
            chunk /= 2;
        }
    }

    /// Its size, if the plan is playable, and smaller than the present one.
    fn worth_judging(&self, plan: &Plan) -> Option<Size> {
        let size = Size::of(plan);
        (size < self.size && plan.check().is_ok()).then_some(size)
    }
}

fn key(plan: &Plan) -> u64 {
    let text = plan_file::print(plan).unwrap_or_default();
    draw(0, "plan", &text, 0)
}

#[allow(
    clippy::disallowed_methods,
    reason = "the search is outside of the simulation, and its result does not depend on threads"
)]
fn judge_all(fails: &(dyn Fn(&Plan) -> bool + Sync), batch: &[Proposal]) -> Vec<bool> {
    if let [only] = batch {
        return vec![fails(&only.plan)];
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = batch
            .iter()
            .map(|proposal| scope.spawn(move || fails(&proposal.plan)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(false))
            .collect()
    })
}
