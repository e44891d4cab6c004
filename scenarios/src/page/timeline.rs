//! The nodes of a run, what lasted on them and what happened: from its plan and its trace.

use crate::narration::{Teller, announcement};
use crate::runner::Played;
use reports::page::run::{Lane, LaneKind, Outcome, Point, PointKind, Span, SpanKind};
use serde::Deserialize;
use sim::plan::{Fault, FaultKind, Machine, Plan};
use sim::trace::TraceLine;
use std::collections::BTreeMap;

/// When outputs were sent, by source partition and sequence.
pub(super) type SentAt = BTreeMap<(i32, i64), f64>;

/// Something that has begun.
#[derive(Debug)]
struct Begun {
    at_ms: f64,
    text: String,
}

/// What a node has begun and not ended, by what it is and of what.
type Open = BTreeMap<(String, SpanOf, String), Begun>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SpanOf {
    Down,
    Paused,
    Recovery,
    Owned,
}

impl SpanOf {
    fn kind(self) -> SpanKind {
        match self {
            SpanOf::Down => SpanKind::Down,
            SpanOf::Paused => SpanKind::Paused,
            SpanOf::Recovery => SpanKind::Recovery,
            SpanOf::Owned => SpanKind::Owned,
        }
    }
}

/// A transaction that is open.
#[derive(Debug)]
struct Transaction {
    from_ms: f64,
    /// Whoever sent something of it; else the broker that coordinates it.
    host: String,
    is_prepared: bool,
}

/// The timeline as it grows.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    pub(super) lanes: Vec<Lane>,
    pub(super) spans: Vec<Span>,
    pub(super) points: Vec<Point>,
    pub(super) sent: SentAt,
    pub(super) end_ms: f64,
    open: Open,
    transactions: BTreeMap<String, Transaction>,
    /// Who uses a transactional id.
    users: BTreeMap<String, String>,
    /// By transactional id: its last transaction that has ended.
    ended: BTreeMap<String, usize>,
}

/// What a line says of a record that was sent.
#[derive(Deserialize)]
struct SentRecord {
    headers: BTreeMap<String, String>,
}

/// What a line says of a transaction's partitions or offsets.
#[derive(Deserialize)]
struct SentInTransaction {
    transactional_id: String,
}

pub(super) fn of(plan: &Plan, played: &Played) -> Timeline {
    let mut timeline = Timeline::default();
    let mut teller = Teller::new(&played.history);
    for fault in &plan.faults {
        timeline.fault(fault);
    }
    for line in &played.trace {
        let told = teller.tell(line).map(|step| step.what);
        timeline.take(line, told);
    }
    let last = played.trace.last().map_or(0.0, at_ms);
    timeline.end_ms = last.max(ms(played.report.virtual_ms));
    timeline
}

fn at_ms(line: &TraceLine) -> f64 {
    ms(line.at_us) / 1_000.0
}

#[allow(clippy::cast_precision_loss, reason = "a run is short")]
fn ms(count: u64) -> f64 {
    count as f64
}

impl Timeline {
    /// Number of a node's lane.
    fn lane(&mut self, name: &str) -> usize {
        let known = self.lanes.iter().position(|lane| lane.name == name);
        known.unwrap_or_else(|| {
            let kind = match name.split('-').next() {
                Some("broker") => LaneKind::Broker,
                Some("worker") => LaneKind::Worker,
                Some("controller") => LaneKind::Controller,
                Some("store") => LaneKind::Store,
                Some("network") => LaneKind::Network,
                _ => LaneKind::Producer,
            };
            self.lanes.push(Lane {
                name: name.to_owned(),
                kind,
            });
            self.lanes.len() - 1
        })
    }

    fn point(&mut self, host: &str, kind: PointKind, at_ms: f64, text: String) {
        let lane = self.lane(host);
        self.points.push(Point {
            lane,
            kind,
            at_ms,
            text,
        });
    }

    fn span(&mut self, host: &str, kind: SpanKind, begun: Begun, to_ms: f64) {
        let lane = self.lane(host);
        self.spans.push(Span {
            lane,
            kind,
            from_ms: begun.at_ms,
            to_ms,
            outcome: None,
            text: begun.text,
        });
    }

    /// A fault that waits for its moment is a point: what it does, the trace shows.
    fn fault(&mut self, fault: &Fault) {
        let host = host_of(fault);
        let text = announcement(fault);
        let from_ms = ms(fault.at_ms);
        match fault.kind.length_ms() {
            Some(length_ms) if fault.on.is_none() => {
                let begun = Begun {
                    at_ms: from_ms,
                    text,
                };
                self.span(&host, SpanKind::Fault, begun, from_ms + ms(length_ms));
            }
            _ => self.point(&host, PointKind::Fault, from_ms, text),
        }
    }

    fn begin(&mut self, line: &TraceLine, of: SpanOf, what: &str, text: String) {
        let begun = Begun {
            at_ms: at_ms(line),
            text,
        };
        let key = (line.host.clone(), of, what.to_owned());
        self.open.entry(key).or_insert(begun);
    }

    fn end(&mut self, line: &TraceLine, of: SpanOf, what: &str) {
        let key = (line.host.clone(), of, what.to_owned());
        if let Some(begun) = self.open.remove(&key) {
            self.span(&line.host, of.kind(), begun, at_ms(line));
        }
    }

    /// The process of a host is gone, and with it what it was about.
    fn end_all(&mut self, line: &TraceLine) {
        let of_host = self.open.keys().filter(|(host, ..)| *host == line.host);
        for (_, of, what) in of_host.cloned().collect::<Vec<_>>() {
            self.end(line, of, &what);
        }
    }

    fn take(&mut self, line: &TraceLine, told: Option<String>) {
        let said = told.unwrap_or_else(|| format!("{} {}", line.kind, line.text));
        let point = match line.kind {
            "sent-record" => {
                self.sent_record(line);
                return;
            }
            "sent-partitions" | "sent-offset" => {
                if let Ok(sent) = serde_json::from_str::<SentInTransaction>(&line.text) {
                    self.users.insert(sent.transactional_id, line.host.clone());
                }
                return;
            }
            "txn-ongoing"
            | "txn-prepare-commit"
            | "txn-prepare-abort"
            | "txn-complete-commit"
            | "txn-complete-abort" => {
                self.transaction(line);
                return;
            }
            "resolved-committed" | "resolved-not-committed" => {
                self.resolved(line, &said);
                PointKind::Other
            }
            "worker-started" | "broker-restarted" => {
                self.end(line, SpanOf::Down, "");
                PointKind::Started
            }
            "worker-crashed" | "worker-left" | "broker-crashed" => {
                self.end_all(line);
                self.begin(line, SpanOf::Down, "", said.clone());
                PointKind::Ended
            }
            "worker-failed" => {
                self.end_all(line);
                self.begin(line, SpanOf::Down, "", said.clone());
                PointKind::Refused
            }
            "paused" => {
                self.begin(line, SpanOf::Paused, "", said);
                return;
            }
            "resumed" => {
                self.end(line, SpanOf::Paused, "");
                return;
            }
            "recovering" => {
                self.begin(line, SpanOf::Recovery, &partition(line), said);
                return;
            }
            "recovered" | "fresh" => {
                let which = partition(line);
                self.end(line, SpanOf::Recovery, &which);
                self.begin(line, SpanOf::Owned, &which, format!("owns {which}"));
                return;
            }
            "released" => {
                let which = partition(line);
                self.end(line, SpanOf::Recovery, &which);
                self.end(line, SpanOf::Owned, &which);
                return;
            }
            "snapshotted" => {
                let begun = Begun {
                    at_ms: at_ms(line),
                    text: said,
                };
                self.span(&line.host, SpanKind::Checkpoint, begun, at_ms(line));
                return;
            }
            "promise-broken" => PointKind::Fault,
            "leader-elected" | "partition-offline" | "broker-fenced" => PointKind::Leader,
            "group-generation" | "assigned" | "revoked" | "lost" | "member-expired"
            | "member-lost" => PointKind::Generation,
            "producer-fenced" | "producer-fenced-seen" => PointKind::Fenced,
            "producer-replaced" if line.text != "start" => PointKind::Tainted,
            "garbage-collected" => PointKind::Collected,
            "forced-watermark" | "fell-back" | "postponed" | "set-back" | "aborted"
            | "reset-accepted" | "snapshot-failed" | "calm" | "clock-jumped"
            | "records-deleted" | "max-poll-exceeded" | "worker-stopping" => PointKind::Other,
            _ => return,
        };
        self.point(&line.host, point, at_ms(line), said);
    }

    fn sent_record(&mut self, line: &TraceLine) {
        let Ok(sent) = serde_json::from_str::<SentRecord>(&line.text) else {
            return;
        };
        let number = |name: &str| sent.headers.get(name)?.parse::<i64>().ok();
        let partition = number("source-partition").and_then(|p| i32::try_from(p).ok());
        if let Some(of) = partition.zip(number("sequence")) {
            self.sent.insert(of, at_ms(line));
        }
    }

    fn transaction(&mut self, line: &TraceLine) {
        let id = line.text.as_str();
        let is_prepare = line.kind.starts_with("txn-prepare");
        let user = self.users.get(id).cloned();
        let open = self
            .transactions
            .entry(id.to_owned())
            .or_insert_with(|| Transaction {
                from_ms: at_ms(line),
                host: line.host.clone(),
                is_prepared: false,
            });
        open.is_prepared |= is_prepare;
        if let Some(user) = user {
            open.host = user;
        }
        let outcome = match line.kind {
            "txn-complete-commit" => Outcome::Committed,
            "txn-complete-abort" => Outcome::Aborted,
            _ => return,
        };
        if let Some(transaction) = self.transactions.remove(id) {
            self.close(id, &transaction, at_ms(line), outcome);
        }
    }

    fn close(&mut self, id: &str, transaction: &Transaction, to_ms: f64, outcome: Outcome) {
        let said = match outcome {
            Outcome::Committed => "committed",
            Outcome::Aborted => "aborted",
            Outcome::Open if transaction.is_prepared => "decided, markers not written yet",
            Outcome::Open | Outcome::Unknown => "open",
        };
        let lane = self.lane(&transaction.host);
        self.ended.insert(id.to_owned(), self.spans.len());
        self.spans.push(Span {
            lane,
            kind: SpanKind::Transaction,
            from_ms: transaction.from_ms,
            to_ms,
            outcome: Some(outcome),
            text: format!("transaction of {id}: {said}"),
        });
    }

    /// The worker had to find out what became of its last transaction.
    fn resolved(&mut self, line: &TraceLine, said: &str) {
        let ids = self.users.iter().filter(|(_, host)| **host == line.host);
        let ended = ids.filter_map(|(id, _)| self.ended.get(id).copied()).max();
        if let Some(span) = ended.and_then(|number| self.spans.get_mut(number)) {
            span.outcome = Some(Outcome::Unknown);
            span.text
                .push_str(&format!("; its producer had no answer: {said}"));
        }
    }

    /// Ends what is open at the run's end, and puts the lanes into their order.
    pub(super) fn settle(&mut self) {
        for ((host, of, _), begun) in std::mem::take(&mut self.open) {
            self.span(&host, of.kind(), begun, self.end_ms);
        }
        for (id, transaction) in std::mem::take(&mut self.transactions) {
            self.close(&id, &transaction, self.end_ms, Outcome::Open);
        }
        let mut order: Vec<usize> = (0..self.lanes.len()).collect();
        order.sort_by_key(|number| {
            let lane = &self.lanes[*number];
            (lane.kind, lane.name.clone())
        });
        let mut places = vec![0; order.len()];
        for (place, number) in order.iter().enumerate() {
            places[*number] = place;
        }
        for span in &mut self.spans {
            span.lane = places[span.lane];
        }
        for point in &mut self.points {
            point.lane = places[point.lane];
        }
        self.lanes = order
            .iter()
            .map(|number| self.lanes[*number].clone())
            .collect();
        self.spans.sort_by(|a, b| a.from_ms.total_cmp(&b.from_ms));
        self.points.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
    }
}

/// `partition N` at the beginning of a line.
fn partition(line: &TraceLine) -> String {
    let words: Vec<&str> = line.text.split([' ', ':', ',']).take(2).collect();
    words.join(" ")
}

/// The node that a fault is about; the network, if it is about no single one.
fn host_of(fault: &Fault) -> String {
    let Ok(toml::Value::Table(fields)) = toml::Value::try_from(&fault.kind) else {
        return "network".to_owned();
    };
    for node in ["worker", "broker"] {
        if let Some(toml::Value::Integer(number)) = fields.get(node) {
            return format!("{node}-{number}");
        }
    }
    match &fault.kind {
        FaultKind::ObjectStoreTrouble { .. } => "store".to_owned(),
        FaultKind::ClockJump { machine, .. } | FaultKind::Throttled { machine, .. } => {
            match machine {
                Machine::Worker(number) => format!("worker-{number}"),
                Machine::Broker(number) => format!("broker-{number}"),
                Machine::Controller => "controller".to_owned(),
                Machine::Producer => "producer".to_owned(),
            }
        }
        _ => "network".to_owned(),
    }
}
