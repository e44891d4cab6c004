//! Smaller plans with other seeds.
//!
//! What is drawn (which message is lost, when a planted bug strikes) is drawn anew for every count
//! of records: a plan with half of them often fails no less, but with another seed.

use super::search::Search;
use super::size::Size;
use super::{records, streams, times};
use sim::plan::Plan;

/// Runs that one pass may take to find a smaller plan, in records: small plans get more seeds.
const RECORDS_PLAYED_MAX: u64 = 2_000;
/// Seeds of the smallest plans.
const SEEDS_MAX: u64 = 400;
/// Of so many, single ones are worth a try.
const FEW_RECORDS: u64 = 40;
/// Seeds with which a plan without one of its faults is tried.
const SEEDS_WITHOUT_A_FAULT: u64 = 12;
/// Far enough apart for polls and commits of their own, milliseconds.
const APART_MS: u64 = 6_000;

/// Fewer records.
pub(super) fn fewer_records(search: &mut Search<'_>) {
    search.repeat("fewer records, another seed", |plan| {
        let records = Size::of(plan).records;
        let parts = [1, 2, 4, 6, 7].map(|eighths| records * eighths / 8);
        let one_less = (records <= FEW_RECORDS).then(|| records.saturating_sub(1));
        let mut fewer: Vec<u64> = parts.into_iter().chain(one_less).collect();
        fewer.retain(|fewer| (1..records).contains(fewer));
        fewer.dedup();
        let plan = plan.clone();
        fewer.into_iter().flat_map(move |fewer| {
            let kept = first_records(&plan, fewer, records);
            let seeds = (RECORDS_PLAYED_MAX / fewer).clamp(2, SEEDS_MAX);
            // What fewer records bring about may take the processor's idle timeout, or polls of
            // their own.
            let longer = longer(&kept);
            let spread = spread(&longer);
            let variants = [kept, longer, spread];
            variants
                .into_iter()
                .flat_map(move |plan| with_seeds(plan, seeds))
        })
    });
}

/// Fewer faults.
pub(super) fn fewer_faults(search: &mut Search<'_>) {
    search.repeat("fewer faults, another seed", |plan| {
        let plan = plan.clone();
        (0..plan.faults.len()).flat_map(move |place| {
            let mut without = plan.clone();
            without.faults.remove(place);
            with_seeds(without, SEEDS_WITHOUT_A_FAULT)
        })
    });
}

fn with_seeds(plan: Plan, seeds: u64) -> impl Iterator<Item = Plan> {
    (0..seeds).map(move |seed| Plan {
        seed,
        ..plan.clone()
    })
}

/// About `kept` of `all` records: the first of the single ones, and the beginning of each stream.
fn first_records(plan: &Plan, kept: u64, all: u64) -> Plan {
    let mut plan = plan.clone();
    let part = |count: u64| count.saturating_mul(kept) / all;
    for stream in &mut plan.workload.streams {
        streams::end_after(stream, part(stream.events).max(1));
    }
    let single = plan.workload.records.len();
    let kept_single = part(single as u64).max(1);
    plan.workload
        .records
        .truncate(usize::try_from(kept_single).unwrap_or(single));
    plan
}

/// With the time to finish that liveness grants.
fn longer(plan: &Plan) -> Plan {
    let granted_ms = times::granted_ms(plan).unwrap_or(0);
    Plan {
        settle_ms: plan.settle_ms.max(granted_ms),
        ..plan.clone()
    }
}

/// With some time between each record and the next.
fn spread(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    let mut end_ms = plan.active_ms;
    for stream in &mut plan.workload.streams {
        stream.burst = 1;
        stream.until_ms = stream.from_ms + stream.events * APART_MS;
        end_ms = end_ms.max(stream.until_ms);
    }
    let mut at_ms = plan.workload.records.first().map_or(0, |first| first.at_ms);
    for record in &mut plan.workload.records {
        records::move_to(record, at_ms);
        end_ms = end_ms.max(at_ms);
        at_ms += APART_MS;
    }
    plan.active_ms = end_ms;
    plan
}
