//! Time: an earlier end, less time to finish, no idle stretches.

use super::search::Search;
use super::{records, streams};
use crate::runner;
use properties::liveness;
use sim::plan::{Plan, Stream};
use std::collections::BTreeSet;

/// Time that is left after the last thing that happens, milliseconds.
const TAIL_MS: u64 = 1_000;
/// Shifts by whole windows leave every event at its place in its window.
const WINDOW_MS: u64 = 60_000;

/// Ends the active time earlier; what would come later is cut off.
pub(super) fn end_earlier(search: &mut Search<'_>) {
    search.repeat("an earlier end", |plan| {
        let end_ms = plan.active_ms;
        let last_ms = moments(plan).last().map_or(0, |last| last + TAIL_MS);
        let parts = [32, 16, 8, 4, 3, 2].map(|part| end_ms / part);
        let ends = parts
            .into_iter()
            .chain([last_ms, end_ms * 3 / 4, end_ms * 7 / 8]);
        let plan = plan.clone();
        ends.map(move |end_ms| ended_at(&plan, end_ms))
    });
}

/// The plan up to a moment.
pub(super) fn ended_at(plan: &Plan, end_ms: u64) -> Plan {
    let mut plan = plan.clone();
    plan.active_ms = end_ms;
    plan.workload
        .records
        .retain(|record| record.at_ms <= end_ms);
    plan.workload
        .streams
        .retain_mut(|stream| end_stream(stream, end_ms));
    plan.faults.retain(|fault| fault.at_ms < end_ms);
    for fault in &mut plan.faults {
        let left_ms = end_ms - fault.at_ms;
        if let Some(length_ms) = fault.kind.length_ms_mut() {
            *length_ms = left_ms.min(*length_ms);
        }
        let length_ms = fault.kind.length_ms().unwrap_or(0);
        if let Some(on) = &mut fault.on {
            on.within_ms = on.within_ms.min(left_ms - length_ms);
        }
    }
    plan
}

/// False if it has not begun by then.
fn end_stream(stream: &mut Stream, end_ms: u64) -> bool {
    if stream.until_ms <= end_ms {
        return true;
    }
    if stream.from_ms >= end_ms {
        return false;
    }
    let (span_ms, left_ms) = (stream.until_ms - stream.from_ms, end_ms - stream.from_ms);
    let events = stream.events.saturating_mul(left_ms) / span_ms;
    streams::end_after(stream, events.max(1));
    stream.until_ms = stream.until_ms.min(end_ms);
    true
}

/// Less time to finish: none, what liveness grants, halves.
pub(super) fn settle_shorter(search: &mut Search<'_>) {
    search.repeat("less time to finish", |plan| {
        let settle_ms = plan.settle_ms;
        let granted = granted_ms(plan);
        let shorter = [
            Some(0),
            Some(1_000),
            Some(settle_ms / 16),
            Some(settle_ms / 4),
        ];
        let longer = [granted, Some(settle_ms / 2), Some(settle_ms * 3 / 4)];
        let plan = plan.clone();
        let times = shorter.into_iter().chain(longer).flatten();
        times.map(move |settle_ms| Plan {
            settle_ms,
            ..plan.clone()
        })
    });
}

/// The time that a processor has to finish in before liveness is judged.
pub(super) fn granted_ms(plan: &Plan) -> Option<u64> {
    let config = plan.configuration().ok()?;
    let ms = liveness::granted_ms(&runner::rules(&config));
    u64::try_from(ms).ok()
}

/// Moves everything after an idle stretch to its beginning.
pub(super) fn close_gaps(search: &mut Search<'_>) {
    search.repeat("shorter pauses", |plan| {
        let moments: Vec<u64> = [0]
            .into_iter()
            .chain(moments(plan))
            .chain([plan.active_ms])
            .collect();
        let gaps: Vec<(u64, u64)> = moments.windows(2).map(|pair| (pair[0], pair[1])).collect();
        let plan = plan.clone();
        gaps.into_iter().flat_map(move |(from_ms, to_ms)| {
            let gap_ms = to_ms - from_ms;
            let whole_windows_ms = gap_ms / WINDOW_MS * WINDOW_MS;
            let by = [
                gap_ms,
                gap_ms.saturating_sub(TAIL_MS),
                whole_windows_ms,
                gap_ms / 2,
            ];
            let plan = plan.clone();
            by.into_iter()
                .filter(|by_ms| *by_ms >= TAIL_MS)
                .map(move |by_ms| earlier(&plan, to_ms, by_ms))
        })
    });
}

/// Everything from a moment on happens earlier; events keep their distance to it.
fn earlier(plan: &Plan, from_ms: u64, by_ms: u64) -> Plan {
    let mut plan = plan.clone();
    let shift = |at_ms: &mut u64| {
        if *at_ms >= from_ms {
            *at_ms -= by_ms;
        }
    };
    shift(&mut plan.active_ms);
    for record in &mut plan.workload.records {
        if record.at_ms >= from_ms {
            records::move_to(record, record.at_ms - by_ms);
        }
    }
    for stream in &mut plan.workload.streams {
        shift(&mut stream.from_ms);
        shift(&mut stream.until_ms);
    }
    for fault in &mut plan.faults {
        shift(&mut fault.at_ms);
    }
    plan
}

/// The moments at which something begins or ends, sorted.
fn moments(plan: &Plan) -> BTreeSet<u64> {
    let records = plan.workload.records.iter().map(|record| record.at_ms);
    let streams = plan.workload.streams.iter();
    let streams = streams.flat_map(|stream| [stream.from_ms, stream.until_ms]);
    let faults = plan.faults.iter();
    let faults = faults.flat_map(|fault| [fault.at_ms, fault.over_at_ms()]);
    records.chain(streams).chain(faults).collect()
}
