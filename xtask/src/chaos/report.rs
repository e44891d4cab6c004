//! What a run of chaos has found: one line a round, tables at the end.
//!
//! Comes in: rounds that were played. Goes out: text. Never here: playing.

use super::batch::Finished;
use super::fault::Kind;
use super::load::Sent;
use super::proxy::Counts;
use super::rounds::{EVENTS, Played, add};
use std::collections::BTreeMap;
use std::fmt::Write;

/// A fault may come at a moment when it has no effect, but not so many times.
const TRIES: u64 = 3;

/// Counts of one kind of fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct OfKind {
    rounds: u64,
    hits: u64,
    open: u64,
    longest_ms: u128,
}

/// All rounds until now.
#[derive(Debug, Default)]
pub struct Report {
    kinds: BTreeMap<Kind, OfKind>,
    events: BTreeMap<&'static str, u64>,
    sent: Sent,
    /// Batches whose audit found nothing.
    audits: u64,
    revivals: u64,
    undrained: u64,
}

impl Report {
    /// Adds a round.
    pub fn add(&mut self, played: &Played) {
        let of = self.kinds.entry(played.decision.kind).or_default();
        of.rounds += 1;
        of.hits += u64::from(played.is_hit);
        of.open += u64::from(played.was_open);
        of.longest_ms = of.longest_ms.max(played.recovery.as_millis());
        add(&mut self.events, &played.events);
    }

    /// Adds a batch that was audited.
    pub fn add_batch(&mut self, batch: &Finished) {
        self.sent.delivered += batch.sent.delivered;
        self.sent.hostile += batch.sent.hostile;
        self.sent.duplicates += batch.sent.duplicates;
        self.audits += 1;
        self.revivals += batch.revivals.len() as u64;
        self.undrained += batch.undrained;
        add(&mut self.events, &batch.events);
    }

    /// Rounds until now.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.kinds.values().map(|of| of.rounds).sum()
    }

    /// Kinds that were tried often enough and never hit.
    #[must_use]
    pub fn without_hits(&self) -> Vec<&'static str> {
        let is_missed = |of: &OfKind| of.hits == 0 && of.rounds >= TRIES;
        let kinds = self.kinds.iter().filter(|(_, of)| is_missed(of));
        kinds.map(|(kind, _)| kind.name()).collect()
    }

    /// The tables.
    #[must_use]
    pub fn text(&self, proxy: Counts) -> String {
        let mut text = String::new();
        self.write(&mut text, proxy).unwrap_or_default();
        text
    }

    fn write(&self, text: &mut String, proxy: Counts) -> std::fmt::Result {
        writeln!(
            text,
            "{:<30} {:>6} {:>5} {:>8} {:>12}  a hit means",
            "fault", "rounds", "hits", "in open", "recovery max"
        )?;
        for (kind, of) in &self.kinds {
            writeln!(
                text,
                "{:<30} {:>6} {:>5} {:>8} {:>9} ms  {}",
                kind.name(),
                of.rounds,
                of.hits,
                of.open,
                of.longest_ms,
                kind.means()
            )?;
        }
        writeln!(text)?;
        for (_, name) in EVENTS {
            let count = self.events.get(name).unwrap_or(&0);
            writeln!(text, "{count:>8} {name}")?;
        }
        let rest = [
            (self.revivals, "processors started again by the supervisor"),
            (
                self.undrained,
                "processors stopped in the middle of a takeover",
            ),
            (proxy.delayed, "EndTxn delayed"),
            (proxy.withheld, "EndTxn withheld"),
            (proxy.answers_lost, "answers to EndTxn lost"),
            (proxy.strays, "stray EndTxn sent into a later transaction"),
            (proxy.strays_refused, "of them refused by the broker"),
            (self.sent.delivered, "records sent"),
            (self.sent.hostile, "of them hostile"),
            (self.sent.duplicates, "of them duplicates"),
            (self.audits, "audits, all complete and without a fault"),
        ];
        for (count, name) in rest {
            writeln!(text, "{count:>8} {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::draw::Draw;
    use super::super::fault::Decision;
    use super::super::stage::LIMITS;
    use super::*;
    use std::time::Duration;

    fn played(kind: Kind, is_hit: bool) -> Played {
        Played {
            decision: Decision::of_kind(Draw::new(1), 0, kind, 3, LIMITS),
            is_hit,
            was_open: true,
            recovery: Duration::from_millis(1_234),
            events: BTreeMap::from([("replays", 2)]),
        }
    }

    #[test]
    fn rounds_hits_and_events_are_added_up() {
        let mut report = Report::default();
        report.add(&played(Kind::BrokerKill, true));
        report.add(&played(Kind::BrokerKill, false));
        let text = report.text(Counts::default());
        let row: Vec<&str> = text
            .lines()
            .find(|line| line.starts_with("broker-kill "))
            .expect("a row")
            .split_whitespace()
            .take(6)
            .collect();
        assert_eq!(row, ["broker-kill", "2", "1", "2", "1234", "ms"]);
        assert!(text.contains("       4 replays"), "{text}");
        assert_eq!(report.rounds(), 2);
    }

    #[test]
    fn kinds_that_never_hit_are_named() {
        let mut report = Report::default();
        for round in 0..TRIES {
            assert!(report.without_hits().is_empty());
            report.add(&played(Kind::BrokerKill, false));
            report.add(&played(Kind::ProcessorKill, round == 1));
        }
        assert_eq!(report.without_hits(), ["broker-kill"]);
    }
}
