//! The identities seen in one window: an open-addressing set of hashes.
//!
//! The hashes are already well mixed (xxh3-128), so their highest bits are the slot. So the table
//! stands nearly in the order of the hashes: growing it, and filling it from sorted hashes, walks
//! memory from one end to the other. A set dies with its window, so nothing is ever removed from it.

/// Slots of a set that has its first entry.
const SLOTS_MIN: usize = 8;
/// Bytes of a slot.
const SLOT_BYTES: usize = size_of::<u128>();

/// Set of 128-bit hashes: power-of-two table, linear probing, at most 3/4 full. The hash 0 marks an
/// empty slot, so its own membership is a flag.
#[derive(Debug, Clone, Default)]
pub(super) struct IdSet {
    slots: Vec<u128>,
    len: usize,
    holds_zero: bool,
}

impl IdSet {
    /// An empty set that takes `count` hashes without growing.
    pub(super) fn with_capacity(count: usize) -> Self {
        if count == 0 {
            return IdSet::default();
        }
        let slots = (count + count / 3 + 1).next_power_of_two().max(SLOTS_MIN);
        IdSet {
            slots: vec![0; slots],
            len: 0,
            holds_zero: false,
        }
    }

    /// Number of hashes.
    pub(super) fn len(&self) -> usize {
        self.len + usize::from(self.holds_zero)
    }

    /// Memory of the table.
    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * SLOT_BYTES
    }

    /// Loads the slot where `hash` would be looked up first, so that it is in the cache when
    /// [`IdSet::insert`] comes. Loads of several sets are independent, so their misses overlap.
    /// The return value only keeps the load alive.
    pub(super) fn touch(&self, hash: u128) -> u64 {
        match self.slots.get(first_slot(hash, self.slots.len())) {
            Some(slot) => *slot as u64,
            None => 0,
        }
    }

    /// Adds `hash`; false if it was there.
    pub(super) fn insert(&mut self, hash: u128) -> bool {
        if hash == 0 {
            return !std::mem::replace(&mut self.holds_zero, true);
        }
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let mut at = first_slot(hash, self.slots.len());
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                self.slots[at] = hash;
                self.len += 1;
                return true;
            }
            if slot == hash {
                return false;
            }
            at = (at + 1) & mask;
        }
    }

    /// True if `hash` is in it.
    pub(super) fn contains(&self, hash: u128) -> bool {
        if hash == 0 || self.slots.is_empty() {
            return hash == 0 && self.holds_zero;
        }
        let mask = self.slots.len() - 1;
        let mut at = first_slot(hash, self.slots.len());
        loop {
            match self.slots[at] {
                0 => return false,
                slot if slot == hash => return true,
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// All hashes, ascending.
    pub(super) fn sorted(&self) -> Vec<u128> {
        let mut hashes = Vec::with_capacity(self.len());
        if self.holds_zero {
            hashes.push(0);
        }
        hashes.extend(self.slots.iter().copied().filter(|&slot| slot != 0));
        hashes.sort_unstable();
        hashes
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(SLOTS_MIN);
        let old = std::mem::replace(&mut self.slots, vec![0; slots]);
        let mask = slots - 1;
        for hash in old.into_iter().filter(|&slot| slot != 0) {
            let mut at = first_slot(hash, slots);
            while self.slots[at] != 0 {
                at = (at + 1) & mask;
            }
            self.slots[at] = hash;
        }
    }
}

/// The slot of `hash` in a table of 2^k slots, k > 0: its highest k bits. Meaningless for an empty one.
fn first_slot(hash: u128, slots: usize) -> usize {
    let high = (hash >> 64) as u64;
    high.wrapping_shr(u64::BITS - slots.trailing_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_is_taken_once_across_growth() {
        let mut set = IdSet::default();
        // Clustered high bits make long probe runs, and the last slots run over the table's end.
        let hashes: Vec<u128> = (1..=5_000_u128)
            .map(|i| (((i % 3) << 126) | ((i % 2) * (u128::MAX << 100))) ^ i)
            .collect();
        for &hash in &hashes {
            set.touch(hash);
            assert!(set.insert(hash));
        }
        for &hash in &hashes {
            assert!(set.contains(hash) && !set.contains(!hash));
            assert!(!set.insert(hash));
        }
        assert_eq!(set.len(), hashes.len());
        let mut expected = hashes;
        expected.sort_unstable();
        assert_eq!(set.sorted(), expected);
    }

    #[test]
    fn the_hash_zero_is_a_member_like_any_other() {
        let mut set = IdSet::default();
        assert!(!set.contains(0) && !set.contains(1));
        assert!(set.insert(0) && set.insert(1));
        assert!(set.contains(0) && set.contains(1));
        assert!(!set.insert(0) && !set.insert(1));
        assert_eq!(set.sorted(), [0, 1]);
    }

    #[test]
    fn capacity_is_enough_for_what_it_promises() {
        for count in [0, 1, 5, 6, 7, 100, 3_000] {
            let mut set = IdSet::with_capacity(count);
            let slots = set.slots.len();
            (1..=count as u128).for_each(|hash| assert!(set.insert(hash)));
            assert_eq!(set.slots.len(), slots, "{count}");
        }
    }
}
