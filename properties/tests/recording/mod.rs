//! Drives the processor's pure core through a list of steps and records what a user of the topics
//! would see.

use bytes::Bytes;
use processor::core::{
    CoreConfig, CoreRules, Counters, Destination, Identity, InputRecord, OutputRecord,
    PartitionTask, Progress, TickerReference, snapshot_heads,
};
use processor::io::PieceKey;
use processor::units::{LogTimeMs, Offset, PartitionId, Watermark};
use properties::history::{CommittedOffset, History, Rules, TopicRecord};
use properties::{Property, Verdict, judge};
use proptest::test_runner::TestCaseError;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Clock of the log when a recording begins, Unix milliseconds.
const CLOCK_START_MS: i64 = 1_700_000_000_000;
/// Milliseconds between two records, unless something else is said.
const PACE_MS: i64 = 700;
const IDLE_TIMEOUT_MS: i64 = 30_000;
const TOPIC: &str = "ticks";
const MAX_PRICE: i64 = 1_000_000;
const MAX_VOLUME: i64 = 1_000_000;
const MIN_TIMESTAMP_MS: i64 = 1_600_000_000_000;
const MESSAGE_BYTES_MAX: usize = 4_000;
/// For how long records may stand in the log unseen, milliseconds.
pub const HIDDEN_MS_MAX: i64 = 600_000;

/// What differs between recordings.
#[derive(Debug, Clone)]
pub struct Settings {
    pub out_of_orderness_ms: i64,
    pub lateness_ms: i64,
    pub skew_ms: i64,
    pub identity: Identity,
    /// First offset of the log.
    pub start: i64,
    pub records_a_commit: usize,
}

/// What happens next in a partition.
#[derive(Debug, Clone)]
pub enum Step {
    /// An event comes, of the clock less `lag_ms`. The fields hold JSON.
    Event {
        ticker: String,
        price: String,
        volume: String,
        id: Option<String>,
        source: Option<String>,
        lag_ms: i64,
        /// How the time is written.
        notation: u8,
    },
    /// These bytes come.
    Raw(Option<Vec<u8>>),
    /// Time passes.
    Wait { by_ms: u32 },
    /// Offsets that no reader sees.
    Gap { offsets: u8 },
    /// Nothing can be seen for the idle timeout and longer; the watermark is forced. The next record
    /// that can be seen stood in the log since `unseen_ms` before that (0: it comes after it).
    Idle { beyond_ms: u32, unseen_ms: u32 },
}

/// One run.
pub struct Recording {
    config: Arc<CoreConfig>,
    settings: Settings,
    history: History,
}

/// One partition of a run as it goes on.
struct Partition {
    number: i32,
    task: PartitionTask,
    /// Clock of the log: what the next records bear.
    clock_ms: i64,
    /// Clock of the worker at the newest forced advance.
    forced_clock_ms: i64,
    next_offset: i64,
    /// Records that were not processed yet.
    waiting: Vec<TopicRecord>,
    /// Stored pieces of state.
    pieces: BTreeMap<PieceKey, Bytes>,
}

impl Recording {
    pub fn new(settings: Settings) -> Self {
        let tickers = [
            ("AMZN", "Amazon \"Inc\""),
            ("AAPL", "Äpple"),
            ("Ünï \"x\"", "Odd"),
        ];
        let core = CoreRules {
            input_topic: TOPIC.to_owned(),
            max_out_of_orderness_ms: settings.out_of_orderness_ms,
            allowed_lateness_ms: settings.lateness_ms,
            min_timestamp_ms: MIN_TIMESTAMP_MS,
            max_future_skew_ms: settings.skew_ms,
            max_price_units: MAX_PRICE * 100_000_000,
            max_volume: MAX_VOLUME,
            identity: settings.identity,
            max_message_bytes: MESSAGE_BYTES_MAX,
            reference_version: "1".to_owned(),
            tickers: tickers
                .iter()
                .map(|(ticker, company)| TickerReference {
                    ticker: (*ticker).to_owned(),
                    company_name: (*company).to_owned(),
                    sector: "Technology".to_owned(),
                })
                .collect(),
        };
        let rules = Rules {
            tickers: tickers
                .iter()
                .map(|(ticker, company)| {
                    let reference = ((*company).to_owned(), "Technology".to_owned());
                    ((*ticker).to_owned(), reference)
                })
                .collect(),
            window_ms: 60_000,
            max_out_of_orderness_ms: settings.out_of_orderness_ms,
            allowed_lateness_ms: settings.lateness_ms,
            idle_timeout_ms: IDLE_TIMEOUT_MS,
            min_timestamp_ms: MIN_TIMESTAMP_MS,
            max_future_skew_ms: settings.skew_ms,
            max_price: MAX_PRICE.to_string(),
            max_volume: MAX_VOLUME,
            identity_is_content: settings.identity == Identity::Content,
            max_message_bytes: MESSAGE_BYTES_MAX,
        };
        Self {
            config: Arc::new(CoreConfig::new(core).expect("the rules are allowed ones")),
            settings,
            history: History {
                rules,
                input_topic: TOPIC.to_owned(),
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
        }
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    /// Runs a partition; partitions come in the order of their numbers.
    pub fn run(&mut self, partition: i32, steps: &[Step]) -> Counters {
        self.run_with_restores(partition, steps, &[])
    }

    /// Likewise, with a snapshot and a restored task before each of the steps named.
    pub fn run_with_restores(
        &mut self,
        number: i32,
        steps: &[Step],
        restores: &[usize],
    ) -> Counters {
        let start = Offset(self.settings.start);
        let mut partition = Partition {
            number,
            task: PartitionTask::new(PartitionId(number), start, Arc::clone(&self.config)),
            clock_ms: CLOCK_START_MS,
            forced_clock_ms: CLOCK_START_MS,
            next_offset: start.0,
            waiting: Vec::new(),
            pieces: BTreeMap::new(),
        };
        for (at, step) in steps.iter().enumerate() {
            if restores.contains(&at) {
                self.restore(&mut partition);
            }
            self.step(&mut partition, step);
            if partition.waiting.len() >= self.settings.records_a_commit {
                self.commit(&mut partition);
            }
        }
        // Idle for so long that every window closes.
        self.step(
            &mut partition,
            &Step::Idle {
                beyond_ms: 2_000_000,
                unseen_ms: 0,
            },
        );
        partition.task.counters()
    }

    fn step(&mut self, partition: &mut Partition, step: &Step) {
        match step {
            Step::Event {
                ticker,
                price,
                volume,
                id,
                source,
                lag_ms,
                notation,
            } => {
                let time_ms = partition.clock_ms - lag_ms;
                let optional = |name: &str, text: &Option<String>| match text {
                    Some(text) => format!(",\"{name}\":{text}"),
                    None => String::new(),
                };
                let text = format!(
                    "{{\"ticker\":{ticker},\"price\":{price},\"volume\":{volume},\"timestamp\":{}{}{},\
                     \"unknown\":[{{}}]}}",
                    time_text(time_ms, *notation),
                    optional("event_id", id),
                    optional("source", source)
                );
                partition.arrive(Some(text.into_bytes()));
            }
            Step::Raw(value) => partition.arrive(value.clone()),
            Step::Wait { by_ms } => partition.clock_ms += i64::from(*by_ms),
            Step::Gap { offsets } => partition.next_offset += i64::from(*offsets),
            Step::Idle {
                beyond_ms,
                unseen_ms,
            } => {
                self.commit(partition);
                let latest_ms = partition.clock_ms.max(partition.forced_clock_ms);
                let clock_ms = latest_ms + IDLE_TIMEOUT_MS + i64::from(*beyond_ms);
                let watermark = clock_ms - self.settings.out_of_orderness_ms;
                let mut outputs = Vec::new();
                partition
                    .task
                    .force_watermark(Watermark(watermark), &mut outputs);
                self.publish(partition, outputs);
                partition.forced_clock_ms = clock_ms;
                partition.clock_ms = clock_ms - i64::from(*unseen_ms);
            }
        }
    }

    /// Processes what waits and publishes it with its offsets.
    fn commit(&mut self, partition: &mut Partition) {
        let mut outputs = Vec::new();
        loop {
            let position = partition.task.position();
            let waiting = partition.waiting.iter();
            let rest = waiting.filter(|record| Offset(record.offset) >= position);
            let records = rest.map(|record| InputRecord {
                offset: Offset(record.offset),
                timestamp: LogTimeMs(record.timestamp_ms),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
            });
            let Progress::Needs(bucket) = partition.task.process(records, &mut outputs) else {
                break;
            };
            let pieces = partition.task.pieces_of(bucket).into_iter();
            let contents: Vec<Bytes> = pieces.map(|key| partition.pieces[&key].clone()).collect();
            let loaded = partition.task.load(bucket, &contents);
            loaded.expect("stored pieces are whole");
        }
        self.history.input.append(&mut partition.waiting);
        self.publish(partition, outputs);
    }

    fn publish(&mut self, partition: &Partition, outputs: Vec<OutputRecord>) {
        for output in outputs {
            let dead = output.destination == Destination::DeadLetters;
            let key_length = output.key.as_ref().map_or(0, Bytes::len);
            let topic = if dead {
                &mut self.history.dead_letters
            } else {
                &mut self.history.outputs
            };
            append(topic, i32::from(!dead && key_length % 2 == 0), output);
        }
        self.history
            .commits
            .push(commit_record(partition.number, &partition.task));
    }

    fn restore(&mut self, partition: &mut Partition) {
        let changes = partition.task.drain_changes();
        for key in changes.batch.deletes {
            partition.pieces.remove(&key);
        }
        partition.pieces.extend(changes.batch.puts);
        let config = Arc::clone(&self.config);
        let heads = snapshot_heads(&changes.header).expect("a header that was just made");
        let heads = heads
            .into_iter()
            .map(|key| (key, partition.pieces[&key].clone()));
        partition.task = PartitionTask::restore(config, &changes.header, heads)
            .expect("a snapshot that was just taken is whole");
    }

    /// Every property that one run can show holds.
    pub fn assert_all_held(&self) -> Result<(), TestCaseError> {
        let verdicts = judge(&self.history);
        for property in Property::ALL {
            let expected = property != Property::Determinism;
            let held = verdicts.get(property) == Some(&Verdict::Held);
            if expected && !held {
                let verdict = verdicts.get(property);
                return Err(TestCaseError::fail(format!("{property}: {verdict:#?}")));
            }
        }
        Ok(())
    }
}

impl Partition {
    fn arrive(&mut self, value: Option<Vec<u8>>) {
        self.clock_ms += PACE_MS;
        let offset = self.next_offset;
        self.next_offset += 1;
        let key = match offset % 3 {
            0 => None,
            1 => Some(Bytes::from_static(b"key")),
            _ => Some(Bytes::from_static(b"\xff\x00")),
        };
        self.waiting.push(TopicRecord {
            partition: self.number,
            offset,
            timestamp_ms: self.clock_ms,
            key,
            value: value.map(Bytes::from),
            headers: Vec::new(),
        });
    }
}

fn time_text(time_ms: i64, notation: u8) -> String {
    let (seconds, rest) = (time_ms / 1000, time_ms % 1000);
    match notation {
        0 => seconds.to_string(),
        1 => format!("{seconds}.{rest:03}00"),
        2 => format!("{time_ms}e-3"),
        3 => format!("{}.{:06}E+3", time_ms / 1_000_000, time_ms % 1_000_000),
        _ => format!("{seconds}.{rest:03}"),
    }
}

fn append(topic: &mut Vec<TopicRecord>, partition: i32, output: OutputRecord) {
    let at = topic.partition_point(|record| record.partition <= partition);
    let before = topic[..at]
        .last()
        .filter(|record| record.partition == partition);
    let offset = before.map_or(0, |record| record.offset + 1);
    let owner = ("owner".to_owned(), Bytes::from_static(b"1/worker-0"));
    let headers = output
        .headers
        .into_iter()
        .map(|header| (header.name, header.value));
    topic.insert(
        at,
        TopicRecord {
            partition,
            offset,
            timestamp_ms: output.timestamp.0,
            key: output.key,
            value: Some(output.value),
            headers: headers.chain([owner]).collect(),
        },
    );
}

fn commit_record(partition: i32, task: &PartitionTask) -> CommittedOffset {
    let Counters {
        records,
        accepted,
        duplicates,
        dead_letters,
        results,
    } = task.counters();
    let watermark = match task.watermark() {
        Watermark::NONE => "null".to_owned(),
        watermark => watermark.to_string(),
    };
    let forced = task.forced().map_or("null".to_owned(), |one| {
        format!("[{},{}]", one.offset, one.watermark)
    });
    let metadata = format!(
        "{{\"v\":1,\"snap\":\"\",\"at\":0,\"seq\":{},\"digest\":\"{}\",\"wm\":{watermark},\
         \"forced\":{forced},\"term\":1,\"owner\":\"worker-0\",\"parts\":2,\"topic\":\"t\",\
         \"fp\":\"0123456789abcdef\",\"n\":[{records},{accepted},{duplicates},{dead_letters},{results}]}}",
        task.next_sequence(),
        task.digest(),
    );
    CommittedOffset {
        partition,
        offset: task.position().0,
        metadata,
    }
}
