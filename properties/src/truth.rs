//! Builder of small true histories for the checkers' tests, and the tools to break one thing in
//! them. What is true is taken from the oracle (which has tests of its own, with numbers worked out
//! by hand); how it is written follows the wire format.

use crate::conservation::md5_hex;
use crate::evidence::{Evidence, Kind};
use crate::history::{CommittedOffset, History, Rules, TopicRecord};
use crate::moment::{Forced, Moment};
use crate::oracle::reading::correlation_text;
use crate::oracle::{Content, Fate, Oracle, PartitionTruth, Refusal, WindowTruth};
use crate::spill::Scratch;
use crate::verdict::{Property, Verdicts};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Start of the first window, Unix milliseconds.
pub const T0: i64 = 1_699_999_980_000;

/// How long the newest records of a story may have been invisible, milliseconds.
pub const HIDDEN_MS_MAX: i64 = 400_000;

/// Moment (second of the story) of the forced advances of [`small`].
const IDLE_AT_S: i64 = 300;

/// Moment (second of the story) at which it ends.
const ENDED_AT_S: i64 = 400;

/// Memory of a sorter when a story is judged a second time: two or three outputs.
const SPILLED_BYTES_MAX: usize = 2_000;

/// A story as it grows.
pub struct Story {
    history: History,
    forced: BTreeMap<i32, Vec<Forced>>,
    /// Positions at which commits happen, by partition.
    commits_at: Vec<(i32, Moment)>,
}

impl Story {
    pub fn new() -> Self {
        let ticker = |name: &str, company: &str| {
            (
                name.to_owned(),
                (company.to_owned(), "Technology".to_owned()),
            )
        };
        let rules = Rules {
            tickers: [ticker("AMZN", "Amazon \"A\""), ticker("AAPL", "Apple")].into(),
            window_ms: 60_000,
            max_out_of_orderness_ms: 5_000,
            allowed_lateness_ms: 60_000,
            idle_timeout_ms: 30_000,
            min_timestamp_ms: 1_600_000_000_000,
            max_future_skew_ms: 10_000,
            max_price: "1000000".to_owned(),
            max_volume: 1_000_000,
            identity_is_content: false,
            max_message_bytes: 4_000,
        };
        Self {
            history: History {
                rules,
                input_topic: "input".to_owned(),
                input_partitions: 2,
                input: Vec::new(),
                outputs: Vec::new(),
                dead_letters: Vec::new(),
                commits: Vec::new(),
                commits_complete: true,
                input_ends: None,
                ended_at_ms: None,
                hidden_ms_max: HIDDEN_MS_MAX,
                clock_error_ms: 0,
                settled: true,
                stuck: Vec::new(),
                refusals: Vec::new(),
            },
            forced: BTreeMap::new(),
            commits_at: Vec::new(),
        }
    }

    /// A record that came at second `at_s`.
    pub fn record(&mut self, partition: i32, offset: i64, at_s: i64, value: Option<&[u8]>) {
        self.history.input.push(TopicRecord {
            partition,
            offset,
            timestamp_ms: T0 + at_s * 1000,
            key: Some(Bytes::from_static(b"key")),
            value: value.map(Bytes::copy_from_slice),
            headers: Vec::new(),
        });
    }

    /// An event of second `time_s` that came at `at_s`; `id` empty for none.
    pub fn event(&mut self, place: (i32, i64), at_s: i64, time_s: i64, ticker: &str, rest: &str) {
        let seconds = T0 / 1000 + time_s;
        let text = format!("{{\"ticker\":\"{ticker}\",\"timestamp\":{seconds},{rest}}}");
        self.record(place.0, place.1, at_s, Some(text.as_bytes()));
    }

    pub fn commit(&mut self, partition: i32, position: i64) {
        let commit = (partition, Moment::idle(position, i64::MIN));
        self.commits_at.push(commit);
    }

    /// The watermark is forced at a position, and committed.
    pub fn force(&mut self, partition: i32, position: i64, watermark_ms: i64) {
        let forced = Forced {
            position,
            watermark_ms,
        };
        self.forced.entry(partition).or_default().push(forced);
        self.commits_at
            .push((partition, Moment::idle(position, watermark_ms)));
    }

    /// The last stable offset of each input partition.
    fn ends(&self) -> Vec<i64> {
        let end = |partition: i32| {
            let last = self
                .history
                .input
                .iter()
                .rfind(|record| record.partition == partition);
            last.map_or(0, |record| record.offset + 1)
        };
        (0..self.history.input_partitions).map(end).collect()
    }

    /// Writes the outputs and commit records that are true.
    pub fn finish(mut self) -> History {
        let oracle = Oracle::new(&self.history, &self.forced);
        for (partition, truth) in oracle.partitions() {
            publish(&mut self.history, partition, truth);
        }
        for (partition, moment) in &self.commits_at {
            let truth = oracle.partition(*partition);
            let commit = commit_record(&self.history, *partition, truth, *moment);
            self.history.commits.push(commit);
        }
        self.history.input_ends = Some(self.ends());
        let last_ms = self
            .history
            .input
            .iter()
            .map(|record| record.timestamp_ms)
            .max();
        self.history.ended_at_ms = last_ms.map(|last_ms| last_ms.max(T0 + ENDED_AT_S * 1000));
        self.history
    }
}

/// A small story with everything in it: duplicates, garbage, corrections, events too late, idle
/// partitions, gaps in the offsets, a change of owner.
pub fn small() -> History {
    let mut story = Story::new();
    story.event(
        (0, 10),
        1,
        1,
        "AMZN",
        r#""price":100.5,"volume":10,"event_id":"a""#,
    );
    story.event(
        (0, 11),
        2,
        2,
        "AAPL",
        r#""price":50,"volume":0,"event_id":7"#,
    );
    story.event(
        (0, 12),
        3,
        1,
        "AMZN",
        r#""price":100.5,"volume":10,"event_id":"a""#,
    );
    story.commit(0, 13);
    story.record(0, 13, 4, Some(b"\xff\xfe"));
    story.event((0, 15), 30, 30, "AMZN", r#""price":101.25,"volume":20"#);
    story.commit(0, 16);
    story.record(
        0,
        16,
        31,
        Some(br#"{"ticker":"XYZ","price":"N/A","volume":1,"timestamp":123}"#),
    );
    story.event(
        (0, 17),
        66,
        66,
        "AMZN",
        r#""price":102,"volume":30,"event_id":"c""#,
    );
    story.commit(0, 18);
    story.event(
        (0, 18),
        67,
        59,
        "AMZN",
        r#""price":99.99999999,"volume":1,"event_id":"d""#,
    );
    story.event(
        (0, 19),
        68,
        58,
        "AMZN",
        r#""price":100,"volume":1,"event_id":"e""#,
    );
    story.record(0, 20, 69, None);
    story.commit(0, 21);
    story.event(
        (0, 22),
        130,
        130,
        "AMZN",
        r#""price":103,"volume":1,"event_id":"f""#,
    );
    story.event(
        (0, 23),
        131,
        5,
        "AMZN",
        r#""price":100,"volume":1,"event_id":"g""#,
    );
    story.commit(0, 24);
    story.force(0, 24, T0 + (IDLE_AT_S - 5) * 1000);
    story.event(
        (1, 0),
        3,
        3,
        "AAPL",
        r#""price":51,"volume":5,"event_id":"h""#,
    );
    story.commit(1, 1);
    story.force(1, 1, T0 + (IDLE_AT_S - 5) * 1000);
    story.finish()
}

/// Watermark that is forced in [`stalled`], Unix milliseconds.
pub const STALLED_FORCE_MS: i64 = T0 + (IDLE_AT_S - 5) * 1000;

/// A story in which a partition is called idle while a record stands unseen in its log: the record
/// corrects the window that the advance fired; one that came after the forced clock is too late.
pub fn stalled() -> History {
    let mut story = Story::new();
    let rest = r#""price":100,"volume":1"#;
    story.event((0, 0), 1, 1, "AMZN", rest);
    story.commit(0, 1);
    story.force(0, 1, STALLED_FORCE_MS);
    story.event((0, 1), 3, 2, "AMZN", rest);
    story.event((0, 2), IDLE_AT_S + 1, 3, "AMZN", rest);
    story.commit(0, 3);
    story.finish()
}

/// The forced advances that the outputs and commit records of a history declare.
pub fn declared(history: &History) -> BTreeMap<i32, Vec<Forced>> {
    let mut evidence = Evidence::new(&history.commits, &Scratch::memory());
    for record in &history.outputs {
        evidence
            .take(Kind::Result, record)
            .expect("nothing is spilled");
    }
    let known = evidence.known;
    known
        .partitions()
        .map(|partition| (partition, known.forced_advances(partition)))
        .collect()
}

/// What decides the order of outputs: moment, first result, window end, ticker.
type Rank<'a> = (Moment, bool, i64, &'a str);

/// One output that must be there.
enum Expected<'a> {
    Revision(&'a str, &'a WindowTruth, usize),
    DeadLetter(&'a TopicRecord, Refusal),
}

fn publish(history: &mut History, partition: i32, truth: &PartitionTruth) {
    let input = history.input.clone();
    let mut expected: Vec<(Rank<'_>, Expected<'_>)> = Vec::new();
    for ((ticker, _), window) in &truth.windows {
        for (number, revision) in window.revisions.iter().enumerate() {
            let rank = (revision.moment, number == 0, window.end_ms, ticker.as_str());
            expected.push((rank, Expected::Revision(ticker, window, number)));
        }
    }
    for record in input.iter().filter(|record| record.partition == partition) {
        if let Some(Fate::Refused(refusal)) = truth.fate(record.offset) {
            let rank = (Moment::record(record.offset), true, 0, "");
            expected.push((rank, Expected::DeadLetter(record, refusal)));
        }
    }
    expected.sort_by_key(|(rank, _)| *rank);
    for (sequence, ((moment, ..), expected)) in expected.into_iter().enumerate() {
        let mut headers = headers(partition, truth, moment, sequence);
        match expected {
            Expected::Revision(ticker, window, number) => {
                let content = &window.revisions[number].content;
                headers.push(("revision".to_owned(), Bytes::from(number.to_string())));
                headers.push((
                    "event-set-hash".to_owned(),
                    Bytes::from(content.event_set_hash.clone()),
                ));
                let id = md5_hex(&format!("{ticker}_{}", window.start_ms / 1000));
                headers.push(("correlation-id".to_owned(), Bytes::from(id)));
                let to = i32::from(ticker == "AMZN");
                let value = result_value(ticker, window, number);
                append(
                    &mut history.outputs,
                    to,
                    window.end_ms - 1,
                    ticker,
                    value,
                    headers,
                );
            }
            Expected::DeadLetter(source, refusal) => {
                let id =
                    md5_hex(&correlation_text(source).unwrap_or_else(|| {
                        format!("input_{}_{}", source.partition, source.offset)
                    }));
                headers.push(("correlation-id".to_owned(), Bytes::from(id.clone())));
                let value = dead_letter_value(source, refusal, &id);
                append(
                    &mut history.dead_letters,
                    0,
                    source.timestamp_ms,
                    "key",
                    value,
                    headers,
                );
            }
        }
    }
}

fn headers(
    partition: i32,
    truth: &PartitionTruth,
    moment: Moment,
    sequence: usize,
) -> Vec<(String, Bytes)> {
    let cause = if moment == Moment::record(moment.offset) {
        "record"
    } else {
        "idle"
    };
    let (term, incarnation) = owner(moment.position());
    let mut headers = vec![
        ("source-partition", partition.to_string()),
        ("sequence", sequence.to_string()),
        ("cause-offset", moment.offset.to_string()),
        ("cause", cause.to_owned()),
        ("watermark", truth.watermark_after(moment).to_string()),
        ("owner", format!("{term}/{incarnation}")),
    ];
    if let Some(forced) = truth.newest_forced(moment) {
        headers.push(("forced", forced.to_string()));
    }
    headers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Bytes::from(value)))
        .collect()
}

/// The owner changes with the commit at position 18.
fn owner(position: i64) -> (i64, &'static str) {
    if position <= 18 {
        (1, "worker-0-1")
    } else {
        (2, "worker-1-1")
    }
}

fn append(
    topic: &mut Vec<TopicRecord>,
    partition: i32,
    timestamp_ms: i64,
    key: &str,
    value: String,
    headers: Vec<(String, Bytes)>,
) {
    let at = topic.partition_point(|record| record.partition <= partition);
    let before = topic[..at]
        .last()
        .filter(|record| record.partition == partition);
    // A control record lies between any two.
    let offset = before.map_or(3, |record| record.offset + 2);
    topic.insert(
        at,
        TopicRecord {
            partition,
            offset,
            timestamp_ms,
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            value: Some(Bytes::from(value)),
            headers,
        },
    );
}

fn aggregates(content: &Content, revision: usize) -> String {
    let fields: Vec<String> = content
        .fields
        .iter()
        .map(|(name, text)| format!("\"{name}\":{text}"))
        .collect();
    format!("{},\"revision\":{revision}", fields.join(","))
}

fn result_value(ticker: &str, window: &WindowTruth, number: usize) -> String {
    let previous = match number.checked_sub(1) {
        Some(before) => format!(
            "{{{}}}",
            aggregates(&window.revisions[before].content, before)
        ),
        None => "null".to_owned(),
    };
    format!(
        "{{\"ticker\":\"{ticker}\",\"company_name\":{:?},\"sector\":{:?},\"window_start\":{},\
         \"window_end\":{},{},\"previous\":{previous}}}",
        window.company,
        window.sector,
        window.start_ms,
        window.end_ms,
        aggregates(&window.revisions[number].content, number)
    )
}

fn dead_letter_value(source: &TopicRecord, refusal: Refusal, correlation_id: &str) -> String {
    let original = match source.value.as_deref().map(std::str::from_utf8) {
        None => "\"original\":null".to_owned(),
        Some(Ok(text)) => {
            format!(
                "\"original\":{}",
                serde_json::to_string(text).expect("a string is JSON")
            )
        }
        Some(Err(_)) => {
            let bytes = source.value.as_deref().unwrap_or_default();
            format!("\"original_base64\":\"{}\"", BASE64.encode(bytes))
        }
    };
    format!(
        "{{\"error_type\":\"{}\",\"message\":\"no\",\"stage\":\"{}\",\"topic\":\"input\",\
         \"partition\":{},\"offset\":{},\"timestamp\":{},\"correlation_id\":\"{correlation_id}\",\
         {original},\"key\":\"key\"}}",
        refusal.name(),
        refusal.stage(),
        source.partition,
        source.offset,
        source.timestamp_ms
    )
}

fn commit_record(
    history: &History,
    partition: i32,
    truth: &PartitionTruth,
    moment: Moment,
) -> CommittedOffset {
    let fates = truth.counted_below(moment.offset);
    let results = truth.results_until(moment);
    let watermark = match truth.watermark_after(moment) {
        i64::MIN => "null".to_owned(),
        watermark => watermark.to_string(),
    };
    let forced = truth
        .newest_forced(moment)
        .map_or("null".to_owned(), |one| {
            format!("[{},{}]", one.position, one.watermark_ms)
        });
    let (term, owner) = owner(moment.offset);
    let metadata = format!(
        "{{\"v\":1,\"snap\":\"\",\"at\":0,\"seq\":{},\"digest\":\"{:032x}\",\"wm\":{watermark},\
         \"forced\":{forced},\"term\":{term},\"owner\":\"{owner}\",\"parts\":{},\"topic\":\"t\",\
         \"fp\":\"{}\",\"n\":[{},{},{},{},{results}]}}",
        fates.refused + results,
        fates.records() * 1_000 + fates.refused + results,
        history.input_partitions,
        "0".repeat(16),
        fates.records(),
        fates.accepted,
        fates.duplicates,
        fates.refused
    );
    CommittedOffset {
        partition,
        offset: moment.offset,
        metadata,
    }
}

/// What the checkers say of a history: the same whether it fits into memory or not.
fn judged(history: &History) -> Verdicts {
    let verdicts = crate::judge(history);
    let scratch = Scratch::folder(std::env::temp_dir(), SPILLED_BYTES_MAX);
    let spilled = crate::judge::judge_within(history, &scratch);
    assert_eq!(spilled.expect("there is scratch space"), verdicts);
    verdicts
}

/// The properties that a history fails.
pub fn failed(history: &History) -> Vec<Property> {
    judged(history).failed()
}

/// The kept messages of all violations, one a line.
pub fn messages(history: &History) -> String {
    judged(history)
        .violations()
        .map(|violation| format!("{}: {}\n", violation.property, violation.message))
        .collect()
}

/// Topic of a kind.
fn topic(history: &mut History, kind: Kind) -> &mut Vec<TopicRecord> {
    match kind {
        Kind::Result => &mut history.outputs,
        Kind::DeadLetter => &mut history.dead_letters,
    }
}

fn header<'a>(record: &'a mut TopicRecord, name: &str) -> &'a mut Bytes {
    let found = record.headers.iter_mut().find(|(key, _)| key == name);
    &mut found.expect("the record has this header").1
}

fn has_header(record: &TopicRecord, name: &str, value: &str) -> bool {
    record
        .headers
        .iter()
        .any(|(key, found)| key == name && found == value)
}

/// The output of source partition 0 with this sequence number.
pub fn output(history: &mut History, kind: Kind, sequence: i64) -> &mut TopicRecord {
    let sequence = sequence.to_string();
    topic(history, kind)
        .iter_mut()
        .filter(|record| has_header(record, "source-partition", "0"))
        .find(|record| has_header(record, "sequence", &sequence))
        .expect("the story has this output")
}

/// Removes an output of source partition 0.
pub fn remove(history: &mut History, kind: Kind, sequence: i64) -> TopicRecord {
    let gone = output(history, kind, sequence).clone();
    topic(history, kind).retain(|record| *record != gone);
    gone
}

/// Sets a header.
pub fn set_header(record: &mut TopicRecord, name: &str, value: &str) {
    *header(record, name) = Bytes::copy_from_slice(value.as_bytes());
}

/// Replaces a text inside a value; it must be there.
pub fn set_value(record: &mut TopicRecord, from: &str, to: &str) {
    let value = record.value.as_deref().expect("outputs have values");
    let text = std::str::from_utf8(value).expect("outputs are text");
    assert!(text.contains(from), "{from} is not in {text}");
    record.value = Some(Bytes::from(text.replacen(from, to, 1)));
}

/// Replaces a text inside a commit record; it must be there.
pub fn set_commit(history: &mut History, number: usize, from: &str, to: &str) {
    let metadata = &mut history.commits[number].metadata;
    assert!(metadata.contains(from), "{from} is not in {metadata}");
    *metadata = metadata.replacen(from, to, 1);
}
