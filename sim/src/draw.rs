//! Every random choice of a world is a keyed hash, never a step of a shared generator: taking one
//! fault out of a plan leaves all other choices as they were.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Longest key that is put together without an allocation, bytes.
const INLINE_KEY_BYTES: usize = 120;

/// The draw number `sequence` that `who` makes for `what` under `seed`: uniform over all `u64`.
///
/// The key is `who` and `what`, each behind its length, and `sequence`; so no two different
/// questions share a key.
#[must_use]
pub fn draw(seed: u64, who: &str, what: &str, sequence: u64) -> u64 {
    let length = 4 + who.len() + 4 + what.len() + 8;
    let mut inline = [0_u8; INLINE_KEY_BYTES];
    if length <= INLINE_KEY_BYTES {
        let key = &mut inline[..length];
        write_key(key, who, what, sequence);
        return xxh3_64_with_seed(key, seed);
    }
    let mut key = vec![0_u8; length];
    write_key(&mut key, who, what, sequence);
    xxh3_64_with_seed(&key, seed)
}

/// As [`draw`], reduced to `0..bound` (0 when `bound` is 0). The bias is below `bound` / 2^64.
#[must_use]
pub fn draw_below(seed: u64, who: &str, what: &str, sequence: u64, bound: u64) -> u64 {
    let wide = u128::from(draw(seed, who, what, sequence)) * u128::from(bound);
    // The upper half of a 64 × 64 bit product always fits.
    u64::try_from(wide >> 64).expect("the upper half of a 128-bit product has 64 bits")
}

/// As [`draw`], reduced to `low..=high` (`low` when `high` < `low`).
#[must_use]
pub fn draw_between(seed: u64, who: &str, what: &str, sequence: u64, low: u64, high: u64) -> u64 {
    let span = high.saturating_sub(low).saturating_add(1);
    low + draw_below(seed, who, what, sequence, span)
}

fn write_key(key: &mut [u8], who: &str, what: &str, sequence: u64) {
    let mut at = 0;
    for part in [who, what] {
        let length = u32::try_from(part.len()).expect("names of actors are short");
        key[at..at + 4].copy_from_slice(&length.to_le_bytes());
        at += 4;
        key[at..at + part.len()].copy_from_slice(part.as_bytes());
        at += part.len();
    }
    key[at..at + 8].copy_from_slice(&sequence.to_le_bytes());
}

/// The same for hot paths: who and what are numbers.
#[must_use]
pub fn draw_numbered(seed: u64, who: u64, what: u64, sequence: u64) -> u64 {
    let mut key = [0u8; 24];
    key[..8].copy_from_slice(&who.to_le_bytes());
    key[8..16].copy_from_slice(&what.to_le_bytes());
    key[16..].copy_from_slice(&sequence.to_le_bytes());
    xxh3_64_with_seed(&key, seed)
}

/// `bits` scaled to 0..`bound` (0 if `bound` is 0).
#[must_use]
pub fn below(bits: u64, bound: u64) -> u64 {
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

/// True in `permille` of 1000 cases.
#[must_use]
pub fn permille(bits: u64, permille: u32) -> bool {
    below(bits, 1000) < u64::from(permille)
}

#[cfg(test)]
mod tests {
    use super::{draw, draw_below, draw_between};

    #[test]
    fn the_same_question_has_the_same_answer() {
        assert_eq!(draw(7, "link", "delay", 3), draw(7, "link", "delay", 3));
    }

    #[test]
    fn every_part_of_the_question_matters() {
        let first = draw(7, "ab", "c", 3);
        assert_ne!(first, draw(8, "ab", "c", 3));
        assert_ne!(first, draw(7, "a", "bc", 3));
        assert_ne!(first, draw(7, "ab", "d", 3));
        assert_ne!(first, draw(7, "ab", "c", 4));
    }

    #[test]
    fn a_long_name_is_drawn_like_a_short_one() {
        let long = "x".repeat(500);
        assert_eq!(draw(1, &long, "w", 0), draw(1, &long, "w", 0));
        assert_ne!(draw(1, &long, "w", 0), draw(1, &long, "w", 1));
    }

    #[test]
    fn bounds_are_kept_and_reached() {
        let mut seen = [false; 5];
        for sequence in 0..200 {
            let value = draw_between(1, "t", "v", sequence, 3, 7);
            assert!((3..=7).contains(&value));
            seen[usize::try_from(value - 3).expect("at most 4")] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(draw_below(1, "t", "v", 0, 0), 0);
    }

    #[test]
    fn the_answers_never_change() {
        // Plans that were written down must play the same for ever.
        assert_eq!(draw(0, "", "", 0), 15_034_821_391_391_295_848);
    }
}
