//! From the lines of a trace to steps of a story.

use super::time_of_day;
use properties::evidence::Commit;
use properties::history::{CommittedOffset, History};
use reports::narration::{Change, Step};
use serde::Deserialize;
use sim::trace::TraceLine;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Topics by their place in the world's cluster.
const INPUT: u16 = 2;
const OUTPUT: u16 = 3;
const DEAD_LETTERS: u16 = 4;
/// Of more records than this only their number is told.
const RECORDS_MAX: usize = 60;
/// Longer values are cut.
const VALUE_CHARS_MAX: usize = 90;

/// A record on its way to a broker.
#[derive(Debug, Deserialize)]
struct SentRecord {
    topic: u16,
    partition: i32,
    producer: Option<i64>,
    epoch: Option<i16>,
    number: i64,
    value: Option<String>,
    headers: BTreeMap<String, String>,
}

/// An offset on its way to the group's coordinator.
#[derive(Debug, Deserialize)]
struct SentOffset {
    transactional_id: String,
    topic: u16,
    partition: i32,
    offset: i64,
    metadata: String,
}

/// A transaction that gets partitions.
#[derive(Debug, Deserialize)]
struct SentPartitions {
    transactional_id: String,
    producer: i64,
}

/// What is true of an input partition, as its newest commit has it.
#[derive(Debug, Clone, Default)]
struct Standing {
    offset: Option<i64>,
    outputs: i64,
    snapshot: Option<i64>,
    watermark_ms: Option<i64>,
}

/// A transaction that is not yet decided.
#[derive(Debug, Default)]
struct Open {
    records: usize,
    standings: BTreeMap<i32, Standing>,
}

/// What tells a record from all others: producer, epoch, topic, partition, number.
type Sending = (Option<i64>, Option<i16>, u16, i32, i64);

/// Knows what has happened so far.
pub(crate) struct Teller {
    standings: BTreeMap<i32, Standing>,
    open: BTreeMap<String, Open>,
    /// By producer id.
    transactional_ids: BTreeMap<i64, String>,
    /// Records that were told: resent ones are not told again.
    told: BTreeSet<Sending>,
    /// Too many records to tell of each.
    many: bool,
    /// Where records of the input stand, by partition and value.
    offsets: BTreeMap<(i32, String), VecDeque<i64>>,
}

impl Teller {
    pub(crate) fn new(history: &History) -> Teller {
        let mut offsets: BTreeMap<_, VecDeque<i64>> = BTreeMap::new();
        for record in &history.input {
            let value = record.value.as_deref().unwrap_or_default();
            let value = String::from_utf8_lossy(value).into_owned();
            let of_value = offsets.entry((record.partition, value)).or_default();
            of_value.push_back(record.offset);
        }
        Teller {
            standings: BTreeMap::new(),
            open: BTreeMap::new(),
            transactional_ids: BTreeMap::new(),
            told: BTreeSet::new(),
            many: history.input.len() > RECORDS_MAX,
            offsets,
        }
    }

    /// The step that a line tells of, if it is one.
    pub(crate) fn tell(&mut self, line: &TraceLine) -> Option<Step> {
        let mut changes = Vec::new();
        let what = match line.kind {
            "sent-record" => self.sent_record(serde_json::from_str(&line.text).ok()?)?,
            "sent-offset" => {
                self.sent_offset(serde_json::from_str(&line.text).ok()?);
                return None;
            }
            "sent-partitions" => {
                let sent: SentPartitions = serde_json::from_str(&line.text).ok()?;
                self.transactional_ids
                    .insert(sent.producer, sent.transactional_id);
                return None;
            }
            "txn-prepare-commit" => self.decided(&line.text, true, &mut changes)?,
            "txn-prepare-abort" => self.decided(&line.text, false, &mut changes)?,
            "promise-broken" => format!("HERE THE PROMISE IS BROKEN: {}", line.text),
            _ => Teller::plain(line)?,
        };
        Some(Step {
            at_us: line.at_us,
            who: who(&line.host),
            what,
            changes,
        })
    }

    fn sent_record(&mut self, sent: SentRecord) -> Option<String> {
        let key = (
            sent.producer,
            sent.epoch,
            sent.topic,
            sent.partition,
            sent.number,
        );
        if !self.told.insert(key) {
            return None;
        }
        let transactional_id = sent.producer.and_then(|id| self.transactional_ids.get(&id));
        if let Some(id) = transactional_id {
            self.open.entry(id.clone()).or_default().records += 1;
        }
        let value = sent.value.clone().unwrap_or_default();
        match sent.topic {
            INPUT if self.many => Some(format!("sends records to partition {}", sent.partition)),
            INPUT => {
                let place = (sent.partition, value);
                let offset = self.offsets.get_mut(&place).and_then(VecDeque::pop_front);
                let offset = offset.map_or_else(String::new, |offset| format!(", offset {offset}"));
                let (partition, value) = place;
                Some(format!(
                    "sends a record to partition {partition}{offset}: {}",
                    shortened(&value)
                ))
            }
            OUTPUT => Some(format!("sends {}", result(&sent, &value))),
            DEAD_LETTERS => Some(format!("sends {}", letter(&sent, &value))),
            _ => None,
        }
    }

    fn sent_offset(&mut self, sent: SentOffset) {
        if sent.topic != INPUT {
            return; // a worker's mark
        }
        let standing = standing(&sent);
        let open = self.open.entry(sent.transactional_id).or_default();
        open.standings.insert(sent.partition, standing);
    }

    /// The end of a transaction that had something in it.
    fn decided(&mut self, id: &str, commits: bool, changes: &mut Vec<Change>) -> Option<String> {
        let open = self.open.remove(id)?;
        let records = match open.records {
            0 => "offsets alone".to_owned(),
            1 => "1 record".to_owned(),
            count => format!("{count} records"),
        };
        if !commits {
            return Some(format!(
                "aborts the transaction of {id}: {records}, which no reader is to see"
            ));
        }
        for (partition, after) in open.standings {
            let before = self.standings.insert(partition, after.clone());
            let before = before.unwrap_or_default();
            changes.extend(differences(partition, &before, &after));
        }
        let says_something = open.records > 0 || !changes.is_empty();
        says_something.then(|| format!("commits the transaction of {id}: {records}"))
    }

    /// Lines that are a sentence already, but for a few words.
    fn plain(line: &TraceLine) -> Option<String> {
        let text = line.text.as_str();
        Some(match line.kind {
            "worker-started" => format!("starts, as process {text}"),
            "worker-crashed" => "is killed".to_owned(),
            "worker-left" => "has stopped in good order".to_owned(),
            "worker-failed" => format!("ends with an error: {text}"),
            "worker-became-a-twin" => "starts with the ordinal of another worker".to_owned(),
            "worker-misconfigured" => "starts with another configuration".to_owned(),
            "worker-put-right" => "starts as it should have".to_owned(),
            "broker-crashed" => "is killed".to_owned(),
            "broker-lost-power" => "loses its power".to_owned(),
            "broker-restarted" => "starts again".to_owned(),
            "broker-halted" => format!("halts: {text}"),
            "broker-fenced" => format!("takes broker {text} for dead"),
            "paused" => "stands still".to_owned(),
            "resumed" => "goes on".to_owned(),
            "clock-jumped" => "has a wrong clock now".to_owned(),
            "calm" => text.to_owned(),
            "assigned" => format!("is given {}", partitions(text)),
            "revoked" => format!("is to give back {}", partitions(text)),
            "lost" => format!("has lost {}", partitions(text)),
            "member-lost" => format!("is out of the group: {}", after(text, ": ")),
            "member-expired" => format!("takes the group's member {text} for dead"),
            "group-generation" => format!("forms the group anew, generation {}", after(text, " ")),
            "max-poll-exceeded" => "has not polled for too long".to_owned(),
            "opening" => format!("commits that it will begin with {text}"),
            "fresh" => format!("begins with {text}"),
            "recovering" => format!("recovers {text}"),
            "recovered" => format!("has recovered {text}"),
            "released" => format!("gives back {text}"),
            "snapshotted" => format!("stores a snapshot of {text}"),
            "snapshot-failed" => format!("cannot store a snapshot of {text}"),
            "fell-back" => format!("falls back to an older snapshot, {text}"),
            "forced-watermark" => {
                let (place, watermark) = text.rsplit_once(" to ")?;
                let time = watermark
                    .parse()
                    .map_or_else(|_| watermark.to_owned(), time_of_day);
                format!("calls {place} idle, and moves its watermark to {time}")
            }
            "reset-accepted" => format!("goes on where its operator has allowed it: {text}"),
            "postponed" => format!("puts the recovery of {text} off"),
            "set-back" => format!("sets {text} back to what is committed"),
            "aborted" => format!("has to abort: {text}"),
            "resolved-committed" => "finds that the commit in doubt took effect".to_owned(),
            "resolved-not-committed" => "finds that the commit in doubt did not happen".to_owned(),
            "producer-replaced" if text == "start" => return None,
            "producer-replaced" => format!("takes a new producer: {text}"),
            "producer-fenced" | "producer-fenced-seen" => format!("a producer is fenced: {text}"),
            "producer-fatal" => format!("its producer is of no use any more: {text}"),
            "transaction-failed" => format!("its transaction has failed: {text}"),
            "txn-timeout" => format!("the transaction of {text} has taken too long"),
            "end-txn-resent" => format!("asks again for the end of its transaction: {text}"),
            "client-request-timeout" => format!("gets no answer: {text}"),
            "client-disconnected" => format!("its connection breaks: {text}"),
            "partition-offline" => format!("there is no leader for {text}"),
            "unreplicated-tail-lost" => "what was not on other disks is lost".to_owned(),
            "delivery-timeout" | "record-refused" | "retrying" | "truncated" => {
                format!("{}: {text}", line.kind.replace('-', " "))
            }
            _ => return None,
        })
    }
}

/// `worker-0` and its process `w0-1` are both worker 0.
fn who(host: &str) -> String {
    if let Some((role, number)) = host.rsplit_once('-')
        && number.chars().all(|c| c.is_ascii_digit())
    {
        return match role.strip_prefix('w') {
            Some(worker) if worker.parse::<u32>().is_ok() => format!("worker {worker}"),
            _ => format!("{role} {number}"),
        };
    }
    host.to_owned()
}

/// `… Assigned([PartitionId(0), PartitionId(3)])` names partitions 0 and 3.
fn partitions(text: &str) -> String {
    let generation = text.split(" generation ").nth(1);
    let generation = generation
        .and_then(|rest| rest.split(':').next())
        .unwrap_or("?");
    let numbers: Vec<&str> = text
        .split("PartitionId(")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .collect();
    match numbers.as_slice() {
        [] => format!("no partitions, in generation {generation}"),
        [one] => format!("partition {one}, in generation {generation}"),
        many => format!("partitions {}, in generation {generation}", many.join(", ")),
    }
}

fn after<'a>(text: &'a str, mark: &str) -> &'a str {
    text.split_once(mark).map_or(text, |(_, rest)| rest)
}

/// What a commit record says.
fn standing(sent: &SentOffset) -> Standing {
    let committed = CommittedOffset {
        partition: sent.partition,
        offset: sent.offset,
        metadata: sent.metadata.clone(),
    };
    let Ok(commit) = Commit::read(&committed) else {
        return Standing {
            offset: Some(sent.offset),
            ..Standing::default()
        };
    };
    Standing {
        offset: Some(commit.offset),
        outputs: commit.sequence,
        snapshot: Some(commit.snapshot_offset),
        watermark_ms: commit.watermark_ms,
    }
}

fn differences(partition: i32, before: &Standing, after: &Standing) -> Vec<Change> {
    let said = |value: Option<i64>| value.map_or_else(|| "none".to_owned(), |n| n.to_string());
    let time = |value: Option<i64>| value.map_or_else(|| "none".to_owned(), time_of_day);
    let all = [
        ("committed offset", said(before.offset), said(after.offset)),
        (
            "outputs counted",
            before.outputs.to_string(),
            after.outputs.to_string(),
        ),
        ("snapshot at", said(before.snapshot), said(after.snapshot)),
        (
            "watermark",
            time(before.watermark_ms),
            time(after.watermark_ms),
        ),
    ];
    all.into_iter()
        .filter(|(_, before, after)| before != after)
        .map(|(of, before, after)| Change {
            of: format!("partition {partition}, {of}"),
            before,
            after,
        })
        .collect()
}

fn result(sent: &SentRecord, value: &str) -> String {
    let fields: serde_json::Value = serde_json::from_str(value).unwrap_or_default();
    let header = |name: &str| sent.headers.get(name).map_or("?", String::as_str);
    let start = fields["window_start"].as_i64().map(time_of_day);
    let watermark = header("watermark").parse().map(time_of_day);
    format!(
        "result number {} of partition {}: window {} {}, revision {}, count {}, average {}, \
         watermark {}",
        header("sequence"),
        header("source-partition"),
        fields["ticker"].as_str().unwrap_or("?"),
        start.as_deref().unwrap_or("?"),
        fields["revision"],
        fields["count"],
        fields["avg_price"],
        watermark.as_deref().unwrap_or("?"),
    )
}

fn letter(sent: &SentRecord, value: &str) -> String {
    let fields: serde_json::Value = serde_json::from_str(value).unwrap_or_default();
    let header = |name: &str| sent.headers.get(name).map_or("?", String::as_str);
    format!(
        "dead letter number {} of partition {}: the record at offset {} is {}",
        header("sequence"),
        header("source-partition"),
        fields["offset"],
        fields["error_type"].as_str().unwrap_or("?"),
    )
}

fn shortened(value: &str) -> String {
    if value.is_empty() {
        return "(nothing)".to_owned();
    }
    match value.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{partitions, who};

    #[test]
    fn machines_and_processes_are_told_by_their_role() {
        assert_eq!(who("worker-0"), "worker 0");
        assert_eq!(who("w12-3"), "worker 12");
        assert_eq!(who("broker-2"), "broker 2");
        assert_eq!(who("controller"), "controller");
    }

    #[test]
    fn partitions_are_told_by_their_numbers() {
        let text = "processor-1-1-1 generation 4: Assigned([PartitionId(0), PartitionId(7)])";
        assert_eq!(partitions(text), "partitions 0, 7, in generation 4");
        let text = "processor-1-1-1 generation 4: Revoked([])";
        assert_eq!(partitions(text), "no partitions, in generation 4");
    }
}
