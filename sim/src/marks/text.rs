//! What the lines of the trace say, as numbers.

/// All whole numbers in a text, without signs.
pub(super) fn numbers(text: &str) -> impl Iterator<Item = i64> + '_ {
    let digits = text.split(|c: char| !c.is_ascii_digit());
    digits.filter_map(|digits| digits.parse().ok())
}

/// The first number: in most lines of a worker, the partition.
pub(super) fn partition(text: &str) -> Option<i32> {
    numbers(text).next().and_then(|n| i32::try_from(n).ok())
}

/// The partitions that a rebalance is about: the list at the end of its line.
pub(super) fn partitions(text: &str) -> impl Iterator<Item = i32> + '_ {
    let list = text.rsplit_once('[').map_or("", |(_, list)| list);
    numbers(list).filter_map(|n| i32::try_from(n).ok())
}

/// The worker whose transactional id this is; `None`: a producer's of the outside world.
pub(super) fn worker(transactional_id: &str) -> Option<u32> {
    let (group, ordinal) = transactional_id.rsplit_once('-')?;
    if group.starts_with(crate::world::SOURCE) {
        return None;
    }
    ordinal.parse().ok()
}
