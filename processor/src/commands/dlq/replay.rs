//! `processor dlq replay`: sends dead letters back to the input topic, each at most once.
//!
//! A batch is one transaction: the replayed records, and their entries in the ledger. Before each batch a new
//! producer with one `transactional.id` for all operators of the group ends what an older one left open and
//! fences it, and then the ledger is read to its end. So whatever happened before, at any moment and to whom,
//! a dead letter that is not in the ledger was not replayed.

use super::filter::Filter;
use super::ledger::Ledger;
use super::letter::{Letter, Original, Place};
use super::list::find;
use super::present_ledger;
use super::replayer::{Replay, Replayer};
use crate::commands::cluster::Cluster;
use crate::commands::config::ConfigArgs;
use crate::commands::reader::TopicReader;
use crate::commands::requirements::{Purpose, replays_topic, settings};
use crate::commands::{FAILED, progress};
use anyhow::{anyhow, bail};
use clap::Args;
use processor::config::ProcessorConfig;
use serde::Serialize;
use std::process::ExitCode;

const HELP: &str = "\
The original key and bytes (so also its event_id) go to the partition where they came from, with the headers
replay-attempt (how often this event has been replayed) and replayed-from (the dead letter's topic, partition and
offset). Kafka's timestamp is now. Headers of the original are not kept in a dead letter and do not come back.

What is guaranteed: a dead letter is replayed at most once, even if the command is killed and given again, or
given twice at the same time (then one of the two ends with an error). Replayed
records and the ledger (topic DEAD_LETTER_TOPIC.replays) become visible in one transaction. Start it again after
a failure: it goes on where it was.

A replayed event that fails again is a new dead letter; its attempts are counted on, and after --max-attempts it
is left alone. A dead letter that is only a pointer, because its original was too large, is replayed from the
input topic while that still holds it. Events that are too late stay too late.

Examples:
  processor dlq replay --config processor.toml --error-type unknown_ticker
  processor dlq replay --config processor.toml 3:17 3:18
  processor dlq replay --config processor.toml --all --dry-run";

/// Sends dead letters back to the input topic, after what was wrong has been mended.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    filter: Filter,
    /// Places in the dead-letter topic, instead of a filter
    #[arg(value_name = "PARTITION:OFFSET", conflicts_with_all = ["error_type", "since", "key", "all"])]
    places: Vec<Place>,
    /// All dead letters, without a filter
    #[arg(long, conflicts_with_all = ["error_type", "since", "key"])]
    all: bool,
    /// Leaves events alone that were replayed this often
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: u32,
    /// Dead letters in one transaction
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Only says what would be replayed
    #[arg(long)]
    dry_run: bool,
    /// Prints the counts as JSON
    #[arg(long)]
    json: bool,
}

/// What became of the selected dead letters.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub replayed: u64,
    pub replayed_before: u64,
    pub too_many_attempts: u64,
    pub original_gone: u64,
    pub unreadable: u64,
}

pub fn replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    if args.places.is_empty() && !args.all && args.filter.is_empty() {
        bail!("say which: --error-type, --since, --key, places as PARTITION:OFFSET, or --all");
    }
    let config = args.config.load()?;
    let mut run = Run::new(args, &config)?;
    let done = run.replay();
    run.bar.finish_and_clear();
    tell(&run.outcome, args)?;
    done?;
    Ok(if run.outcome.original_gone + run.outcome.unreadable == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

fn tell(outcome: &Outcome, args: &ReplayArgs) -> anyhow::Result<()> {
    if args.json {
        println!("{}", serde_json::to_string(outcome)?);
        return Ok(());
    }
    let verb = if args.dry_run {
        "would be replayed"
    } else {
        "replayed"
    };
    println!(
        "{} {verb}, {} were replayed before, {} left alone after {} attempts",
        outcome.replayed, outcome.replayed_before, outcome.too_many_attempts, args.max_attempts
    );
    if outcome.original_gone > 0 {
        println!(
            "{} cannot be replayed: they are pointers, and the input topic does not hold the originals any more",
            outcome.original_gone
        );
    }
    if outcome.unreadable > 0 {
        println!(
            "{} records of the dead-letter topic are no dead letters of this program: `processor dlq list` shows \
             them",
            outcome.unreadable
        );
    }
    Ok(())
}

struct Run<'a> {
    args: &'a ReplayArgs,
    letters: TopicReader,
    originals: TopicReader,
    ledger: Ledger,
    /// `None`: nothing is sent.
    replayer: Option<Replayer<'a>>,
    bar: indicatif::ProgressBar,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    fn new(args: &'a ReplayArgs, config: &'a ProcessorConfig) -> anyhow::Result<Run<'a>> {
        if !args.dry_run {
            ensure_ledger(config)?;
        }
        let ledger = present_ledger(config)?;
        let replayer = if args.dry_run {
            None
        } else {
            Some(Replayer::new(config)?)
        };
        Ok(Run {
            args,
            letters: TopicReader::new(&config.kafka, &config.kafka.dead_letter_topic)?,
            originals: TopicReader::new(&config.kafka, &config.kafka.input_topic)?,
            ledger,
            replayer,
            bar: progress::bar(None, "dead letters"),
            outcome: Outcome::default(),
        })
    }

    fn replay(&mut self) -> anyhow::Result<()> {
        let mut batch = Vec::new();
        if self.args.places.is_empty() {
            let mut spans = self.letters.whole()?;
            if let Some(since) = self.args.filter.since {
                spans = self.letters.since(spans, since)?;
            }
            let total = spans.values().map(|span| span.to - span.from).sum::<i64>();
            self.bar.set_length(total.unsigned_abs());
            self.letters.start(&spans)?;
            while let Some(record) = self.letters.next()? {
                self.consider(&record, &mut batch)?;
            }
        } else {
            for place in self.args.places.clone() {
                let topic = self.letters.topic().to_owned();
                let record = find(&mut self.letters, &topic, place)?;
                self.consider(&record, &mut batch)?;
            }
        }
        self.send(&mut batch)
    }

    /// Puts a record of the dead-letter topic into the batch, if it was asked for.
    fn consider(
        &mut self,
        record: &crate::commands::reader::Record,
        batch: &mut Vec<Replay>,
    ) -> anyhow::Result<()> {
        self.bar.inc(1);
        let letter = match Letter::read(record) {
            Ok(letter) if self.args.filter.takes(&letter) => letter,
            Ok(_) => return Ok(()),
            Err(_) => {
                self.outcome.unreadable += 1;
                return Ok(());
            }
        };
        if self.ledger.replay_of(&letter)?.is_some() {
            self.outcome.replayed_before += 1;
            return Ok(());
        }
        let attempt = self.ledger.attempts_before(&letter) + 1;
        if attempt > self.args.max_attempts {
            self.outcome.too_many_attempts += 1;
            return Ok(());
        }
        let Some(original) = self.original_of(&letter)? else {
            self.outcome.original_gone += 1;
            return Ok(());
        };
        // The same place given twice is one dead letter.
        if batch.iter().all(|other| other.letter.place != letter.place) {
            batch.push(Replay {
                letter,
                original,
                attempt,
            });
        }
        if batch.len() >= self.args.batch as usize {
            self.send(batch)?;
        }
        Ok(())
    }

    fn original_of(&mut self, letter: &Letter) -> anyhow::Result<Option<Original>> {
        if let Some(original) = letter
            .original()
            .map_err(|why| anyhow!("{}: {why}", letter.place))?
        {
            return Ok(Some(original));
        }
        let source = letter.source();
        let found = self.originals.at(source.partition, source.offset)?;
        Ok(found.map(|record| Original {
            key: record.key,
            value: record.value,
        }))
    }

    fn send(&mut self, batch: &mut Vec<Replay>) -> anyhow::Result<()> {
        let batch = std::mem::take(batch);
        if batch.is_empty() {
            return Ok(());
        }
        let Some(replayer) = &mut self.replayer else {
            self.outcome.replayed += batch.len() as u64;
            return Ok(());
        };
        let counts = replayer.replay(batch, &mut self.ledger)?;
        self.outcome.replayed += counts.replayed;
        self.outcome.replayed_before += counts.replayed_before;
        Ok(())
    }
}

/// Creates the ledger's topic where it is missing, like the dead-letter topic.
fn ensure_ledger(config: &ProcessorConfig) -> anyhow::Result<()> {
    let cluster = Cluster::connect(&config.kafka)?;
    let topic = replays_topic(config);
    if cluster.topic(&topic)?.is_some() {
        return Ok(());
    }
    let letters = &config.kafka.dead_letter_topic;
    let like = cluster.topic(letters)?.ok_or_else(|| {
        anyhow!("there is no topic {letters}: `processor topics create` makes it")
    })?;
    let replicas = i32::try_from(like.replicas).unwrap_or(1);
    let settings = settings(Purpose::Replays, replicas, config);
    cluster.create(&topic, 1, replicas, &settings)?;
    cluster.wait_for_leaders(&topic)
}
