//! `processor produce`: the document's producer.
//!
//! Idempotent (`acks=all`), keyed by ticker, partitioned as the Java client does it.

mod event;
mod hostile;
mod input;
mod sender;

use super::cluster::Cluster;
use super::config::ConfigArgs;
use super::{FAILED, progress, signals};
use anyhow::bail;
use clap::{ArgGroup, Args, ValueEnum};
use event::{Dice, Feed, Outgoing};
use indicatif::ProgressBar;
use input::Lines;
use processor::config::ProcessorConfig;
use sender::Sender;
use serde::Serialize;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const HELP: &str = "\
Sends events to kafka.input_topic: as many a second as --generate says (0: as fast as possible), or the lines
of a file. It ends after --count records, at the end of the file, or at SIGINT or SIGTERM; then it waits for
every acknowledgement, prints the counts, and exits with 1 if a record was not delivered.

With the same --seed the same prices, volumes and ids are generated; without it, every run has ids of its own.

Examples:
  processor produce --config processor.toml --generate 1000 --count 60000
  processor produce --config processor.toml --generate 0 --count 100000 --duplicates 0.05 --hostile 0.01
  processor produce --config processor.toml --input ../shared/data/us-equity-trades-2013-10-07.jsonl.gz";

/// Sends events to the input topic.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
#[command(group = ArgGroup::new("origin").required(true))]
pub struct ProduceArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Generates this many records a second; 0 is as fast as possible
    #[arg(long, value_name = "RATE", group = "origin")]
    generate: Option<u64>,
    /// Sends the lines of a file (JSON lines, plain or gzip; `-` is standard input); may be given several
    /// times
    #[arg(long, value_name = "FILE", group = "origin")]
    input: Vec<PathBuf>,
    /// Ends after this many records
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// What decides all random choices
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Sends a file at this many times the speed at which its events happened, instead of as fast as
    /// possible
    #[arg(long, value_name = "FACTOR", conflicts_with = "generate", value_parser = positive)]
    speed: Option<f64>,
    /// Share of records that are sent once more, as they are (0 to 1)
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share)]
    duplicates: f64,
    /// Share of generated events that happened earlier, some of them too early (0 to 1)
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share, conflicts_with = "input")]
    late: f64,
    /// Share of hostile records, each of which must become a dead letter (0 to 1)
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share)]
    hostile: f64,
    /// Kafka timestamp of a file's records; with `event`, the topic's retention may delete old ones at once
    #[arg(
        long,
        value_name = "WHICH",
        default_value = "now",
        conflicts_with = "generate"
    )]
    timestamps: Timestamps,
    /// Prints the counts as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Timestamps {
    /// The moment of sending
    Now,
    /// The event's own time
    Event,
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok();
    number
        .filter(|number| (0.0..=1.0).contains(number))
        .ok_or_else(|| "it must be a number from 0 to 1".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok();
    number
        .filter(|number| number.is_finite() && *number > 0.0)
        .ok_or_else(|| "it must be a number above 0".to_owned())
}

/// What was sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
struct Counts {
    sent: u64,
    delivered: u64,
    failed: u64,
    duplicates: u64,
    late: u64,
    hostile: u64,
}

pub fn produce(args: &ProduceArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?;
    let topic = &config.kafka.input_topic;
    if Cluster::connect(&config.kafka)?.topic(topic)?.is_none() {
        bail!("there is no topic {topic}: `processor topics create` makes it");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    signals::watch(move |ending, before| {
        if before > 0 {
            std::process::exit(ending.status);
        }
        stopped.store(true, Ordering::Relaxed);
    })?;
    let mut production = Production {
        sender: Sender::new(&config.kafka)?,
        bar: progress::bar(args.count, "records"),
        dice: Dice(args.seed.unwrap_or_else(|| RandomState::new().hash_one(0))),
        began: Instant::now(),
        counts: Counts::default(),
        stop,
        args,
        config: &config,
    };
    let done = match args.generate {
        Some(rate) => production.generate(rate),
        None => production.send_lines(),
    };
    // What was sent before an error is still waited for and counted.
    let counts = production.finish();
    tell(counts, production.sender.first_error(), args.json)?;
    done?;
    Ok(if counts.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

fn tell(counts: Counts, error: Option<String>, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        println!("{}", serde_json::to_string(&counts)?);
    } else {
        println!(
            "{} records sent, {} delivered, {} failed ({} duplicates, {} late, {} hostile)",
            counts.sent,
            counts.delivered,
            counts.failed,
            counts.duplicates,
            counts.late,
            counts.hostile
        );
    }
    if let Some(error) = error {
        eprintln!("error: the first failure was: {error}; `processor check` tells what is wrong");
    }
    Ok(())
}

struct Production<'a> {
    args: &'a ProduceArgs,
    config: &'a ProcessorConfig,
    sender: Sender,
    bar: ProgressBar,
    dice: Dice,
    began: Instant,
    counts: Counts,
    stop: Arc<AtomicBool>,
}

impl Production<'_> {
    fn is_over(&self) -> bool {
        let enough = self
            .args
            .count
            .is_some_and(|count| self.counts.sent >= count);
        enough || self.stop.load(Ordering::Relaxed)
    }

    fn generate(&mut self, rate: u64) -> anyhow::Result<()> {
        let windows = &self.config.windows;
        let tickers = self.config.reference.tickers.iter();
        // Half of the late events are within what corrections still take.
        let late_ms = 2 * (windows.max_out_of_orderness_ms + windows.allowed_lateness_ms);
        let feed = Feed::new(
            self.dice,
            tickers.map(|ticker| ticker.ticker.clone()).collect(),
            late_ms.unsigned_abs(),
        );
        for number in 0.. {
            if rate > 0 {
                let due = Duration::from_secs_f64(self.counts.sent as f64 / rate as f64);
                self.wait_until(due);
            }
            if self.is_over() {
                break;
            }
            let is_late = self.dice.chance("is late", number, self.args.late);
            self.counts.late += u64::from(is_late);
            let event = feed.event(number, now_ms(), is_late);
            self.send_with_company(number, &event)?;
        }
        Ok(())
    }

    fn send_lines(&mut self) -> anyhow::Result<()> {
        let mut first_ms = None;
        for (number, line) in (0..).zip(Lines::new(self.args.input.clone())) {
            let mut line = line?;
            if let (Some(speed), Some(happened_ms)) = (self.args.speed, line.happened_ms) {
                let since_ms = happened_ms - *first_ms.get_or_insert(happened_ms);
                let due = Duration::from_millis(since_ms.max(0).unsigned_abs());
                self.wait_until(due.div_f64(speed));
            }
            if self.is_over() {
                break;
            }
            if self.args.timestamps == Timestamps::Event {
                line.record.timestamp_ms = line.happened_ms;
            }
            self.send_with_company(number, &line.record)?;
        }
        Ok(())
    }

    /// Sends a record, or a hostile one first, and perhaps a duplicate.
    fn send_with_company(&mut self, number: u64, record: &Outgoing) -> anyhow::Result<()> {
        if self.dice.chance("is hostile", number, self.args.hostile) {
            let limit = self.config.kafka.max_message_bytes;
            let hostile = hostile::hostile(self.dice, number, limit);
            self.counts.hostile += 1;
            self.send(&hostile)?;
        }
        if !self.is_over() {
            self.send(record)?;
        }
        if self
            .dice
            .chance("is duplicate", number, self.args.duplicates)
            && !self.is_over()
        {
            self.counts.duplicates += 1;
            self.send(record)?;
        }
        Ok(())
    }

    fn send(&mut self, record: &Outgoing) -> anyhow::Result<()> {
        self.sender.send(record)?;
        self.counts.sent += 1;
        self.bar.inc(1);
        Ok(())
    }

    /// Serves the producer until `due` after the beginning.
    fn wait_until(&self, due: Duration) {
        const STEP: Duration = Duration::from_millis(100);
        loop {
            let left = due.saturating_sub(self.began.elapsed());
            if left.is_zero() || self.stop.load(Ordering::Relaxed) {
                return;
            }
            self.sender.serve(left.min(STEP));
        }
    }

    fn finish(&mut self) -> Counts {
        self.sender.flush();
        self.bar.finish_and_clear();
        self.counts.delivered = self.sender.delivered();
        self.counts.failed = self.counts.sent - self.counts.delivered;
        self.counts
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
