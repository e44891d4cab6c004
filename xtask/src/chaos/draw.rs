//! Random choices that can be made again.
//!
//! Comes in: a seed, and what is chosen. Goes out: a number that depends on nothing else, so that a
//! round can be tried again without the rounds before it. Never here: a generator with a state.

use sha2::{Digest, Sha256};
use std::ops::Range;

/// The choices of one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    seed: u64,
}

impl Draw {
    /// The choices of that seed.
    #[must_use]
    pub fn new(seed: u64) -> Draw {
        Draw { seed }
    }

    /// The seed.
    #[must_use]
    pub fn seed(self) -> u64 {
        self.seed
    }

    /// Any number, for the `number`-th choice of `what`.
    #[must_use]
    pub fn any(self, what: &str, number: u64) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_be_bytes());
        hash.update(number.to_be_bytes());
        hash.update(what.as_bytes());
        let digest = hash.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        u64::from_be_bytes(first)
    }

    /// A number in `range`.
    ///
    /// # Panics
    /// When the range is empty.
    #[must_use]
    pub fn within(self, range: Range<u64>, what: &str, number: u64) -> u64 {
        assert!(!range.is_empty(), "a choice of {what} among nothing");
        range.start + self.any(what, number) % (range.end - range.start)
    }

    /// True in `percent` of all cases.
    #[must_use]
    pub fn percent(self, percent: u64, what: &str, number: u64) -> bool {
        self.within(0..100, what, number) < percent
    }

    /// All of `items` once, in an order of this seed.
    #[must_use]
    pub fn shuffled<T: Copy>(self, items: &[T], what: &str, number: u64) -> Vec<T> {
        let mut keyed: Vec<(u64, usize)> = (0..items.len())
            .map(|at| (self.any(&format!("{what} {at}"), number), at))
            .collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, at)| items[at]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_depends_on_seed_matter_and_number_only() {
        let draw = Draw::new(7);
        assert_eq!(draw.any("a", 1), Draw::new(7).any("a", 1));
        assert_ne!(draw.any("a", 1), draw.any("a", 2));
        assert_ne!(draw.any("a", 1), draw.any("b", 1));
        assert_ne!(draw.any("a", 1), Draw::new(8).any("a", 1));
    }

    #[test]
    fn choices_fill_their_range_and_shuffles_keep_every_item() {
        let draw = Draw::new(1);
        let mut seen = [false; 3];
        for number in 0..100 {
            let chosen = draw.within(5..8, "x", number);
            seen[usize::try_from(chosen - 5).expect("it is in the range")] = true;
        }
        assert_eq!(seen, [true; 3]);
        let orders: std::collections::BTreeSet<Vec<u32>> = (0..100)
            .map(|number| draw.shuffled(&[1, 2, 3], "x", number))
            .collect();
        assert_eq!(orders.len(), 6);
    }
}
