//! Generated streams: fewer, shorter, plainer, and in the end their records one by one.

use super::search::Search;
use sim::plan::{Plan, Scripted, Stream};
use sim::world::workload::{self, Sending};

/// Streams are written out record by record when the plan has no more than this.
const SCRIPTED_MAX: u64 = 400;

/// Without some of the streams.
pub(super) fn drop(search: &mut Search<'_>) {
    search.drop_items(
        "fewer streams",
        |plan| plan.workload.streams.len(),
        |plan, range| std::mem::drop(plan.workload.streams.drain(range)),
    );
}

/// Fewer events at each moment, of all streams or of one; the moments stay as they are.
pub(super) fn thinner_bursts(search: &mut Search<'_>) {
    for part in [u64::MAX, 16, 4, 2] {
        let streams = search.plan().workload.streams.len();
        let mut all = search.plan().clone();
        all.workload
            .streams
            .iter_mut()
            .for_each(|stream| thin(stream, part));
        if search.first("thinner bursts", [all]).is_none() {
            for place in 0..streams {
                let one = with(search.plan(), place, |stream| thin(stream, part));
                search.first("thinner bursts", [one]);
            }
        }
    }
}

fn thin(stream: &mut Stream, part: u64) {
    let groups = stream.events.div_ceil(stream.burst.max(1));
    stream.burst = (stream.burst / part).max(1);
    stream.events = stream.events.min(groups * stream.burst);
}

/// Fewer events in a stream.
pub(super) fn fewer_events(search: &mut Search<'_>) {
    for place in 0..search.plan().workload.streams.len() {
        search.repeat("fewer events", |plan| {
            let events = plan.workload.streams[place].events;
            let fewer = [1, events / 16, events / 4, events / 2, events * 3 / 4];
            let fewer: Vec<u64> = fewer
                .into_iter()
                .filter(|n| (1..events).contains(n))
                .collect();
            let plan = plan.clone();
            fewer.into_iter().flat_map(move |events| {
                let ended = with(&plan, place, |stream| end_after(stream, events));
                let thinned = with(&plan, place, |stream| stream.events = events);
                [ended, thinned]
            })
        });
    }
}

/// The first `events` of a stream, at the moments at which they came before.
pub(super) fn end_after(stream: &mut Stream, events: u64) {
    let burst = stream.burst.max(1);
    let groups = stream.events.div_ceil(burst).max(1);
    let kept = events.div_ceil(burst).min(groups);
    let span_ms = stream.until_ms.saturating_sub(stream.from_ms);
    stream.until_ms = stream.from_ms + span_ms * kept / groups;
    stream.events = events;
}

/// One ticker, one moment for each event, nothing late, no garbage, no transactions: all of it at
/// once, and each by itself.
pub(super) fn plain(search: &mut Search<'_>) {
    const PLAINER: [fn(&mut Stream); 12] = [
        |s| s.garbage_permille = 0,
        |s| s.duplicate_permille = 0,
        |s| s.late_permille = 0,
        |s| s.late_ms_max = 0,
        |s| s.jitter_ms = 0,
        |s| s.event_time_lag_ms = 0,
        |s| s.anonymous_permille = 0,
        |s| s.tickers.truncate(1),
        |s| s.open_ms_max = 0,
        |s| s.abort_permille = if s.abort_permille > 0 { 1_000 } else { 0 },
        |s| s.transaction_events = 0,
        |s| s.burst = 1,
    ];
    for place in 0..search.plan().workload.streams.len() {
        let plan = search.plan().clone();
        let all = with(&plan, place, |stream| {
            PLAINER.iter().for_each(|change| change(stream));
        });
        search.first("plainer streams", [all]);
        for change in PLAINER {
            let plainer = with(search.plan(), place, change);
            search.first("plainer streams", [plainer]);
        }
        let without_aborts = with(search.plan(), place, |stream| stream.abort_permille = 0);
        search.first("plainer streams", [without_aborts]);
    }
}

/// The records themselves in the place of the streams that they come from: of all, or of one.
pub(super) fn as_records(search: &mut Search<'_>) {
    if search.size().records > SCRIPTED_MAX {
        return;
    }
    search.repeat("records one by one", |plan| {
        let streams = plan.workload.streams.len();
        let plan = plan.clone();
        let all = (streams > 1).then(|| scripted(&plan, |_| true));
        let each: Vec<Plan> = (0..streams)
            .map(|place| scripted(&plan, |stream| stream == place))
            .collect();
        all.into_iter().chain(each)
    });
}

fn scripted(plan: &Plan, chosen: impl Fn(usize) -> bool) -> Plan {
    let mut plan = plan.clone();
    let mut streams = Vec::new();
    for (place, stream) in plan.workload.streams.drain(..).enumerate() {
        if !chosen(place) {
            streams.push(stream);
            continue;
        }
        let sendings = workload::expand_stream(&stream, plan.seed, plan.start_unix_ms);
        plan.workload
            .records
            .extend(sendings.iter().filter_map(as_scripted));
    }
    plan.workload.streams = streams;
    plan.workload.records.sort_by_key(|record| record.at_ms);
    let last_ms = plan.workload.records.last().map_or(0, |last| last.at_ms);
    plan.active_ms = plan.active_ms.max(last_ms);
    plan
}

/// Bytes that are no text cannot stand in a plan.
fn as_scripted(sending: &Sending) -> Option<Scripted> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some(Scripted {
        at_ms: sending.at_ms,
        key: sending.key.as_deref().and_then(text),
        value: text(sending.value.as_deref()?)?,
        times: 1,
    })
}

fn with(plan: &Plan, place: usize, change: impl FnOnce(&mut Stream)) -> Plan {
    let mut plan = plan.clone();
    if let Some(stream) = plan.workload.streams.get_mut(place) {
        change(stream);
    }
    plan
}
