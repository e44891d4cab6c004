//! Windows: their members, and the moments of their revisions.

use super::events::Placed;
use super::{Content, Fate, LogTruth, Member, Refusal, Tally};
use crate::history::Rules;
use crate::moment::Moment;
use crate::spill::Sorted;
use std::io;
use std::iter::Peekable;

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
    /// Its ticker.
    pub ticker: String,
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

/// The windows of a partition by (ticker, start), one at a time. A record's fate is known when its
/// window has been taken.
#[derive(Debug)]
pub struct Windows<'a> {
    rules: &'a Rules,
    tickers: Vec<(&'a str, &'a str, &'a str)>,
    truth: LogTruth,
    events: Peekable<Sorted<Placed>>,
}

impl<'a> Windows<'a> {
    pub(super) fn new(rules: &'a Rules, truth: LogTruth, events: Sorted<Placed>) -> Self {
        let tickers = rules.tickers.iter().map(|(ticker, (company, sector))| {
            (ticker.as_str(), company.as_str(), sector.as_str())
        });
        Self {
            rules,
            tickers: tickers.collect(),
            truth,
            events: events.peekable(),
        }
    }

    /// What the log shows; fates are right for the windows that have been taken.
    #[must_use]
    pub fn log(&self) -> &LogTruth {
        &self.truth
    }

    /// The next window that has an accepted event.
    ///
    /// # Errors
    /// When scratch space cannot be read.
    pub fn next_window(&mut self) -> io::Result<Option<WindowTruth>> {
        while let Some(first) = self.events.next().transpose()? {
            let window = first.window();
            let mut members = Vec::new();
            self.judge(first, &mut members);
            while let Some(event) = self.next_of(window)? {
                self.judge(event, &mut members);
            }
            if !members.is_empty() {
                return Ok(Some(self.truth_of(window, members)));
            }
        }
        Ok(None)
    }

    fn next_of(&mut self, window: (u32, i64)) -> io::Result<Option<Placed>> {
        let is_here = |event: &io::Result<Placed>| {
            event
                .as_ref()
                .map_or(true, |event| event.window() == window)
        };
        self.events.next_if(is_here).transpose()
    }

    /// Settles a record's fate; an accepted event becomes a member.
    fn judge(&mut self, event: Placed, members: &mut Vec<Member>) {
        let gone_ms = event
            .window_start
            .saturating_add(self.rules.window_ms + self.rules.allowed_lateness_ms);
        let fate = if gone_ms <= self.truth.horizon_at(event.index()) {
            Fate::Refused(Refusal::TooLate)
        } else if event.repeats {
            Fate::Duplicate
        } else {
            Fate::Accepted
        };
        self.truth.settle(event.index(), fate);
        if fate == Fate::Accepted {
            members.push(Member {
                offset: self.truth.offset_of(event.index()),
                time_ms: event.event.time_ms,
                price: event.event.price,
                volume: event.event.volume,
                identity: event.event.identity,
            });
        }
    }

    fn truth_of(&self, (ticker, start_ms): (u32, i64), members: Vec<Member>) -> WindowTruth {
        let (ticker, company, sector) = self.tickers[ticker as usize];
        let mut window = WindowTruth {
            ticker: ticker.to_owned(),
            company: company.to_owned(),
            sector: sector.to_owned(),
            start_ms,
            end_ms: start_ms + self.rules.window_ms,
            latest_ms: members
                .iter()
                .map(|member| member.time_ms)
                .max()
                .unwrap_or(start_ms),
            members,
            revisions: Vec::new(),
        };
        window.revisions = revisions(&self.truth, &window);
        window
    }

    /// What the log shows, all fates settled.
    #[must_use]
    pub fn into_log(self) -> LogTruth {
        self.truth.settled()
    }
}

/// The first result when the watermark passes the window's end, then one for each later member.
fn revisions(truth: &LogTruth, window: &WindowTruth) -> Vec<Revision> {
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
fn first_moment(truth: &LogTruth, window: &WindowTruth) -> Option<Moment> {
    let first_member = Moment::record(window.members.first()?.offset);
    if truth.watermark_after(first_member) >= window.end_ms {
        return Some(first_member);
    }
    // Both pass the end only after the first member: until then they were below.
    let by_log = truth.first_at(window.end_ms).map(Moment::record);
    let by_force = truth
        .first_forced_to(window.end_ms)
        .map(|forced| Moment::idle(forced.position, forced.watermark_ms));
    match (by_log, by_force) {
        (Some(log), Some(force)) => Some(log.min(force)),
        (log, force) => log.or(force),
    }
}
