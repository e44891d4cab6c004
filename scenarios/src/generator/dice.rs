//! Draws for one part of a plan.

use sim::draw::{draw_below, draw_between};

/// The draws of one part of a plan.
pub(super) struct Dice {
    seed: u64,
    who: String,
}

impl Dice {
    pub(super) fn new(seed: u64, who: impl Into<String>) -> Dice {
        Dice {
            seed,
            who: who.into(),
        }
    }

    pub(super) fn between(&self, what: &str, low: u64, high: u64) -> u64 {
        draw_between(self.seed, &self.who, what, 0, low, high)
    }

    pub(super) fn machine(&self, what: &str, low: u32, high: u32) -> u32 {
        let drawn = self.between(what, u64::from(low), u64::from(high));
        u32::try_from(drawn).expect("drawn between two u32")
    }

    pub(super) fn permille(&self, what: &str, low: u32, high: u32) -> u32 {
        self.machine(what, low, high)
    }

    pub(super) fn one_in(&self, what: &str, chances: u64) -> bool {
        draw_below(self.seed, &self.who, what, 0, chances) == 0
    }

    pub(super) fn pick<T: Copy>(&self, what: &str, choices: &[T]) -> T {
        let index = draw_below(self.seed, &self.who, what, 0, choices.len() as u64);
        choices[usize::try_from(index).expect("below the length")]
    }
}
