//! `cargo xtask chaos`.

use super::batch::Batch;
use super::draw::Draw;
use super::fault::{Decision, Kind};
use super::load;
use super::report::Report;
use super::rounds;
use super::stage::{CLUSTER, LIMITS, Stage};
use anyhow::{Context, bail};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Instant;

const HELP: &str = "\
Starts a Kafka cluster of its own, two processors and a load of real trades and generated, late, repeated
and hostile records; hurts a processor or a broker, or the end of a transaction, in each round; and audits
the topics after each batch of rounds. Exit status 0 only if every round recovered, every audit is complete
and finds nothing, and every kind of fault that came three times really hit.

What is left when something failed is in target/chaos; the cluster runs on then, to be looked at.

Examples:
  cargo xtask chaos --rounds 50
  cargo xtask chaos --seed 7 --round 31
  cargo xtask chaos --rounds 10 --only broker-kill";

/// Hurt real processes, and audit what they did
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Options {
    /// How many rounds
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// What decides every choice [default: a new one, which is printed]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Plays this round of the seed only
    #[arg(long, value_name = "R", requires = "seed")]
    round: Option<u64>,
    /// Plays this kind of fault only
    #[arg(long, value_name = "KIND")]
    only: Option<Kind>,
    /// Rounds on the same topics, before an audit
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// Takes `processor` and `tickproof` (with its feature `kafka`) from this folder, instead of building
    /// them
    #[arg(long, value_name = "FOLDER")]
    binaries: Option<PathBuf>,
    /// Checkpoints go to a local folder instead of an S3 server
    #[arg(long)]
    local: bool,
}

/// Plays the rounds.
///
/// # Errors
/// When something cannot be started, or anything is not as it must be.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let seed = options
        .seed
        .unwrap_or_else(|| load::now_ms().unsigned_abs() % 1_000_000);
    let first = options.round.unwrap_or(0);
    let count = if options.round.is_some() {
        1
    } else {
        options.rounds
    };
    println!("seed {seed}, {count} rounds; the same again by: --seed {seed}");
    let mut stage = Stage::set(root, seed, options.binaries.as_deref(), !options.local)?;
    println!(
        "Apache Kafka {}, checkpoints in {}, logs in {}",
        stage.cluster.manifest().version,
        stage.objects.url,
        stage.folder.display()
    );
    let began = Instant::now();
    let mut run = Run {
        options,
        draw: Draw::new(seed),
        trades: trades(root),
        report: Report::default(),
    };
    let outcome = run.all(&mut stage, first..first + count);
    let text = run.report.text(stage.proxy.counts());
    println!(
        "\n{text}\n{} rounds in {} s",
        run.report.rounds(),
        began.elapsed().as_secs()
    );
    if let Err(error) = outcome {
        println!(
            "what happened is in {}; end the cluster by: cargo xtask kafka down --name {CLUSTER}",
            stage.folder.display()
        );
        return Err(error);
    }
    stage.clear()?;
    let missed = run.report.without_hits();
    if !missed.is_empty() {
        bail!(
            "these faults were played and never hit: {}; play more rounds",
            missed.join(", ")
        );
    }
    println!("every round recovered, every audit was complete and found nothing");
    Ok(())
}

/// Days of real trades, where they are.
fn trades(root: &Path) -> Vec<PathBuf> {
    let days = ["2013-10-07", "2013-10-08"];
    let files =
        days.map(|day| root.join(format!("../shared/data/us-equity-trades-{day}.jsonl.gz")));
    let files: Vec<PathBuf> = files.into_iter().filter(|file| file.is_file()).collect();
    if files.is_empty() {
        println!("no real trades at ../shared/data: all events are generated");
    }
    files
}

struct Run<'a> {
    options: &'a Options,
    draw: Draw,
    trades: Vec<PathBuf>,
    report: Report,
}

impl Run<'_> {
    fn all(&mut self, stage: &mut Stage, rounds: std::ops::Range<u64>) -> anyhow::Result<()> {
        let size = self.options.batch;
        let mut left = rounds;
        while !left.is_empty() {
            let number = left.start / size;
            let end = ((number + 1) * size).min(left.end);
            self.batch(stage, number, left.start..end)?;
            left.start = end;
        }
        Ok(())
    }

    fn batch(
        &mut self,
        stage: &mut Stage,
        number: u64,
        rounds: std::ops::Range<u64>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut batch = Batch::open(stage, self.draw, number, &self.trades)?;
        println!(
            "batch {number}: ready after {} ms",
            began.elapsed().as_millis()
        );
        for round in rounds {
            let decision = self.decide(round, stage);
            println!("round {round}: {decision}");
            let began = Instant::now();
            let played = rounds::play(stage, &mut batch, decision);
            let played =
                played.with_context(|| format!("round {round} of seed {}", self.draw.seed()))?;
            let hit = if played.is_hit { "hit" } else { "missed" };
            let open = if played.was_open {
                ", transaction open"
            } else {
                ""
            };
            println!(
                "round {round}: {hit}{open}; recovered {} ms after it, {} ms in all",
                played.recovery.as_millis(),
                began.elapsed().as_millis()
            );
            self.report.add(&played);
        }
        let topics = batch.topics().map(str::to_owned);
        let finished = batch
            .finish(stage)
            .with_context(|| format!("the end of batch {number} of seed {}", self.draw.seed()))?;
        for revival in &finished.revivals {
            println!(
                "started again: processor {}: {}",
                revival.ordinal, revival.last_words
            );
        }
        println!(
            "batch {number}: {} records ({} hostile), audit complete and without a fault",
            finished.sent.delivered, finished.sent.hostile
        );
        self.report.add_batch(&finished);
        stage
            .view
            .delete_topics(&topics.each_ref().map(String::as_str))
    }

    fn decide(&self, round: u64, stage: &Stage) -> Decision {
        let brokers = u32::try_from(stage.cluster.manifest().brokers.len()).unwrap_or(1);
        match self.options.only {
            Some(kind) => Decision::of_kind(self.draw, round, kind, brokers, LIMITS),
            None => Decision::of(self.draw, round, brokers, LIMITS),
        }
    }
}
