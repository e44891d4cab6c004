//! Windows: their members, and the moments of their revisions.

use super::{Content, Member, PartitionTruth, Placed, Tally};
use crate::history::Rules;
use crate::moment::Moment;
use std::collections::BTreeMap;

/// A revision that must be emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// When.
    pub moment: Moment,
    /// With what content.
    pub content: Content,
}

/// A window of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowTruth {
    /// Company of its ticker.
    pub company: String,
    /// Sector of its ticker.
    pub sector: String,
    /// Start, Unix milliseconds.
    pub start_ms: i64,
    /// First millisecond after it, Unix milliseconds.
    pub end_ms: i64,
    /// Its events in log order.
    pub members: Vec<Member>,
    /// The revisions that must be emitted, from revision 0; none if the window never fired.
    pub revisions: Vec<Revision>,
    /// Latest event time in it, Unix milliseconds.
    pub latest_ms: i64,
}

impl WindowTruth {
    /// The revisions at or before `moment`.
    #[must_use]
    pub fn revisions_until(&self, moment: Moment) -> &[Revision] {
        let until = self
            .revisions
            .partition_point(|revision| revision.moment <= moment);
        &self.revisions[..until]
    }

    /// The content at a moment: the batch over all members up to it; `None` if there are none.
    #[must_use]
    pub fn content_at(&self, moment: Moment) -> Option<Content> {
        let known = self
            .revisions
            .binary_search_by_key(&moment, |revision| revision.moment);
        if let Ok(at) = known {
            return Some(self.revisions[at].content.clone());
        }
        let members = self
            .members
            .partition_point(|member| member.offset < moment.position());
        Tally::over(&self.members[..members]).map(|tally| tally.content())
    }
}

/// Groups accepted events (sorted by ticker, window start and place in the log) into windows.
pub(super) fn grouped(
    rules: &Rules,
    truth: &PartitionTruth,
    placed: &[Placed],
) -> BTreeMap<(String, i64), WindowTruth> {
    let tickers: Vec<_> = rules.tickers.iter().collect();
    placed
        .chunk_by(|left, right| {
            (left.event.ticker, left.window_start) == (right.event.ticker, right.window_start)
        })
        .map(|group| {
            let start_ms = group[0].window_start;
            let (ticker, (company, sector)) = tickers[group[0].event.ticker as usize];
            let mut window = WindowTruth {
                company: company.clone(),
                sector: sector.clone(),
                start_ms,
                end_ms: start_ms + rules.window_ms,
                members: group.iter().map(|one| member(truth, one)).collect(),
                revisions: Vec::new(),
                latest_ms: group
                    .iter()
                    .map(|one| one.event.time_ms)
                    .max()
                    .unwrap_or(start_ms),
            };
            window.revisions = revisions(truth, &window);
            ((ticker.clone(), start_ms), window)
        })
        .collect()
}

fn member(truth: &PartitionTruth, placed: &Placed) -> Member {
    Member {
        offset: truth.offsets[placed.index],
        time_ms: placed.event.time_ms,
        price: placed.event.price,
        volume: placed.event.volume,
        identity: placed.event.identity,
    }
}

/// The first result when the watermark passes the window's end, then one for each later member.
fn revisions(truth: &PartitionTruth, window: &WindowTruth) -> Vec<Revision> {
    let Some(first_moment) = first_moment(truth, window) else {
        return Vec::new();
    };
    let in_first = window
        .members
        .partition_point(|member| member.offset < first_moment.position());
    let mut tally = Tally::over(&window.members[..in_first])
        .expect("a window fires at or after its first member");
    let mut revisions = vec![Revision {
        moment: first_moment,
        content: tally.content(),
    }];
    for member in &window.members[in_first..] {
        tally.add(member);
        revisions.push(Revision {
            moment: Moment::record(member.offset),
            content: tally.content(),
        });
    }
    revisions
}

/// The first moment, not before the first member, at which the watermark is at or past the end.
fn first_moment(truth: &PartitionTruth, window: &WindowTruth) -> Option<Moment> {
    let first_member = Moment::record(window.members.first()?.offset);
    if truth.watermark_after(first_member) >= window.end_ms {
        return Some(first_member);
    }
    let by_log = truth
        .log_watermarks
        .partition_point(|watermark| *watermark < window.end_ms);
    // The watermark of the log passes the end only after the first member: until then it was below.
    let by_log = truth
        .offsets
        .get(by_log)
        .map(|offset| Moment::record(*offset));
    // Likewise: an advance past the end at or before the first member was ruled out above.
    let by_force = truth
        .forced_peaks
        .partition_point(|watermark| *watermark < window.end_ms);
    let by_force = truth
        .forced
        .get(by_force)
        .map(|forced| Moment::idle(forced.position, forced.watermark_ms));
    match (by_log, by_force) {
        (Some(log), Some(force)) => Some(log.min(force)),
        (log, force) => log.or(force),
    }
}
