//! A batch of rounds on topics of their own: two processors, a load, and the audit at the end.
//!
//! Comes in: a [`Stage`]. Goes out: processors that work, whether they have recovered, and the audit's
//! verdict. Never here: faults.

use super::cluster_view::Offsets;
use super::draw::Draw;
use super::fleet::{Fleet, Recipe, Revival};
use super::load::{Load, Origin, Sent, now_ms};
use super::logs::Logs;
use super::rounds::tally;
use super::stage::{LIMITS, Stage};
use crate::process::{end_of_log, wait_until};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Partitions of each topic: as few as give each ticker of the real trades one of its own.
const PARTITIONS: i32 = 7;
/// Ordinals of the processors that are always there.
const REGULAR: [u32; 2] = [0, 1];
/// The ordinal of the processor that comes and goes.
pub const GUEST: u32 = 2;
/// Largest messages: in every third batch, hostile records are that large.
const LARGEST_BYTES: u64 = 10 << 20;
const LARGE_BYTES: u64 = 1_000_000;
/// Patience: a processor that needs longer has not recovered.
const RECOVERY_LIMIT: Duration = Duration::from_secs(180);

/// Length of a window.
const WINDOW_MS: u64 = 60_000;
/// Distance of the watermark behind the newest event.
const OUT_OF_ORDER_MS: u64 = 2_000;
/// Silence of the output topic after which no more results are expected.
const QUIET: Duration = Duration::from_secs(3);

const REFERENCE: &str = include_str!("reference.toml");

/// The variations of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variation {
    /// What is sent.
    pub origin: Origin,
    /// How partitions move.
    pub rebalance: &'static str,
    /// Largest message, bytes.
    pub message_bytes: u64,
    /// Silence after which a partition is idle, ms.
    pub idle_ms: u64,
    /// Memory for event ids; beyond it they are in the state store.
    pub memory_bytes: u64,
}

impl Variation {
    /// Of that batch: every combination comes within twelve batches.
    #[must_use]
    pub fn of(draw: Draw, batch: u64, trades: &[PathBuf]) -> Variation {
        let is_even = batch.is_multiple_of(2);
        let origin = match trades.len() as u64 {
            count @ 1.. if is_even => {
                let at = usize::try_from(draw.within(0..count, "trades", batch)).unwrap_or(0);
                Origin::Trades(trades[at].clone())
            }
            _ => Origin::Generated,
        };
        Variation {
            rebalance: if (draw.any("rebalance", 0) ^ batch ^ (batch / 2)).is_multiple_of(2) {
                "cooperative"
            } else {
                "eager"
            },
            message_bytes: if batch % 3 == 1 {
                LARGEST_BYTES
            } else {
                LARGE_BYTES
            },
            // Trades are behind the clock: one that comes after its partition was idle is too late.
            memory_bytes: if is_even { 256 << 20 } else { 20_000 },
            idle_ms: if origin == Origin::Generated {
                2_000
            } else {
                20_000
            },
            origin,
        }
    }
}

impl std::fmt::Display for Variation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Variation {
            origin,
            rebalance,
            message_bytes,
            idle_ms,
            memory_bytes,
        } = self;
        write!(
            f,
            "{origin}, {rebalance} rebalances, messages up to {message_bytes} bytes, idle after {idle_ms} ms, {memory_bytes} bytes for ids"
        )
    }
}

/// What is to be told of a batch that was audited.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its load.
    pub sent: Sent,
    /// Processors that were stopped in the middle of a takeover.
    pub undrained: u64,
    /// What was logged after the last round.
    pub events: BTreeMap<&'static str, u64>,
    /// Processors that the supervisor has started again.
    pub revivals: Vec<Revival>,
}

/// A running batch.
#[derive(Debug)]
pub struct Batch {
    folder: PathBuf,
    group: String,
    topics: [String; 3],
    /// The configuration of clients that do not go through the proxy.
    outside: PathBuf,
    variation: Variation,
    /// The processors.
    pub fleet: Fleet,
    /// Their logs.
    pub logs: Logs,
    /// Processors that the supervisor has started again.
    pub revivals: Vec<Revival>,
    /// `None` when it was ended.
    load: Option<Load>,
}

impl Batch {
    /// Creates the topics, starts two processors and the load, and waits for the first commits.
    ///
    /// # Errors
    /// When one of these fails, or the processors do not begin to commit.
    pub fn open(
        stage: &Stage,
        draw: Draw,
        number: u64,
        trades: &[PathBuf],
    ) -> anyhow::Result<Batch> {
        let group = format!("{}-{number}", stage.name);
        let folder = stage.folder.join(format!("batch-{number}"));
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let topics = ["input", "output", "dead"].map(|kind| format!("{group}-{kind}"));
        let variation = Variation::of(draw, number, trades);
        println!("batch {number}: {variation}");
        let manifest = stage.cluster.manifest();
        let write = |name: &str, servers: &str| {
            let path = folder.join(name);
            let text = configuration(stage, &group, &topics, servers, &variation);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
            anyhow::Ok(path)
        };
        let outside = write("outside.toml", &manifest.bootstrap_servers)?;
        let config = write("processor.toml", &manifest.proxied_bootstrap_servers)?;
        create_topics(stage, &outside, &folder)?;
        let mut fleet = Fleet::new(Recipe {
            program: stage.processor.clone(),
            config,
            environment: stage.objects.environment.clone(),
            folder: folder.clone(),
        });
        REGULAR
            .iter()
            .try_for_each(|ordinal| fleet.start(*ordinal))?;
        let origin = &variation.origin;
        let load = Load::start(&stage.processor, &outside, &folder, origin, draw, number)?;
        let mut batch = Batch {
            logs: Logs::new(folder.clone(), &[REGULAR[0], REGULAR[1], GUEST]),
            revivals: Vec::new(),
            folder,
            group,
            topics,
            outside,
            variation,
            fleet,
            load: Some(load),
        };
        let (group, input) = (batch.group.clone(), batch.topics[0].clone());
        batch.wait("commit their first records", || {
            let committed = stage.view.committed(&group, &input, PARTITIONS)?;
            Ok(committed.values().filter(|offset| **offset > 0).count() > 1)
        })?;
        Ok(batch)
    }

    /// Its topics.
    #[must_use]
    pub fn topics(&self) -> [&str; 3] {
        [&self.topics[0], &self.topics[1], &self.topics[2]]
    }

    /// The `transactional.id` of that processor's worker.
    #[must_use]
    pub fn transactional_id(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.group)
    }

    /// Waits until everything that is in the input topic now is committed, and every processor is a
    /// member of the group.
    ///
    /// # Errors
    /// When that does not happen, or a processor or the load ends.
    pub fn recover(&mut self, stage: &Stage) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut ends: Option<Offsets> = None;
        let (group, input) = (self.group.clone(), self.topics[0].clone());
        let processors = self.fleet.size();
        self.wait("all recover", || {
            let goal = match &ends {
                Some(ends) => ends,
                None => ends.insert(stage.view.ends(&input)?),
            };
            let committed = stage.view.committed(&group, &input, PARTITIONS)?;
            let reached = |(partition, end): (&i32, &i64)| {
                *end == 0 || committed.get(partition).is_some_and(|at| at >= end)
            };
            let are_back = stage.view.members(&group)? == Some(processors);
            Ok(are_back && goal.iter().all(reached))
        })?;
        Ok(began.elapsed())
    }

    /// Waits, with the supervisor at work. An error of `is_so` is a broker that does not answer now.
    fn wait(
        &mut self,
        what: &str,
        mut is_so: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let mut last = None;
        let done = wait_until(RECOVERY_LIMIT, || {
            self.supervise()?;
            match is_so() {
                Ok(is_so) => return Ok(is_so),
                Err(error) => last = Some(error),
            }
            Ok(false)
        })?;
        if !done {
            let limit = RECOVERY_LIMIT.as_secs();
            let last = last.map_or_else(String::new, |error| format!(" ({error})"));
            bail!(
                "the processors do not {what} within {limit} s{last}; their logs are in {}",
                self.folder.display()
            );
        }
        Ok(())
    }

    /// Starts failed processors again; an error when one has ended as none may, or the load has.
    ///
    /// # Errors
    /// See there.
    pub fn supervise(&mut self) -> anyhow::Result<()> {
        self.revivals.extend(self.fleet.supervise()?);
        self.load.as_mut().map_or(Ok(()), Load::check)
    }

    /// Ends the load, waits until all of it is committed, ends the processors, and audits.
    ///
    /// # Errors
    /// When one of these fails; the audit's words are in `audit.txt`.
    pub fn finish(mut self, stage: &Stage) -> anyhow::Result<Finished> {
        let load = self.load.take().context("the load was ended already")?;
        let sent = load.finish()?;
        self.settle(stage)?;
        self.recover(stage)?;
        let undrained = self.fleet.stop_all()?;
        self.audit(stage)?;
        Ok(Finished {
            sent,
            undrained,
            events: tally(&self.logs.new_lines()?),
            revivals: self.revivals,
        })
    }

    /// Waits until every window is over by the clock, and the results have stopped coming.
    fn settle(&mut self, stage: &Stage) -> anyhow::Result<()> {
        let idle = Duration::from_millis(self.variation.idle_ms);
        let began = Instant::now();
        // Events of trades are long past; the newest generated one is in the minute that runs.
        let in_minute = Duration::from_millis(now_ms().unsigned_abs() % WINDOW_MS);
        let left = match self.variation.origin {
            Origin::Trades(_) => Duration::ZERO,
            Origin::Generated => Duration::from_millis(WINDOW_MS) - in_minute,
        };
        let over = idle + left + Duration::from_millis(OUT_OF_ORDER_MS) + QUIET;
        let output = self.topics[1].clone();
        let mut last = (Offsets::new(), began);
        self.wait("come to rest", || {
            let ends = stage.view.ends(&output)?;
            if ends != last.0 {
                last = (ends, Instant::now());
            }
            Ok(began.elapsed() > over && last.1.elapsed() > QUIET)
        })
    }

    fn audit(&self, stage: &Stage) -> anyhow::Result<()> {
        let path = self.folder.join("audit.txt");
        let out = File::create(&path).with_context(|| path.display().to_string())?;
        let status = Command::new(&stage.tickproof)
            .args(["audit", "--complete", "--config"])
            .arg(&self.outside)
            .stdout(out.try_clone()?)
            .stderr(out)
            .status()?;
        if !status.success() {
            bail!("the audit ended with {status}; {}", end_of_log(&path));
        }
        Ok(())
    }
}

fn create_topics(stage: &Stage, config: &Path, folder: &Path) -> anyhow::Result<()> {
    let output = Command::new(&stage.processor)
        .args(["topics", "create", "--partitions", &PARTITIONS.to_string()])
        .arg("--config")
        .arg(config)
        .output()?;
    fs::write(folder.join("topics.txt"), &output.stdout)?;
    if !output.status.success() {
        let (out, error) = (output.stdout, output.stderr);
        let told = String::from_utf8_lossy(&out).into_owned() + &String::from_utf8_lossy(&error);
        bail!("topics cannot be created: {told}");
    }
    Ok(())
}

/// The processor's configuration: everything short, so that much happens in a round.
fn configuration(
    stage: &Stage,
    group: &str,
    topics: &[String; 3],
    servers: &str,
    variation: &Variation,
) -> String {
    let [input, output, dead] = topics;
    let (session, transaction) = (LIMITS.group_session_ms, LIMITS.transaction_ms);
    let (url, section) = (&stage.objects.url, &stage.objects.section);
    let state = stage.folder.join("state");
    let state = state.display();
    let Variation {
        rebalance,
        message_bytes,
        idle_ms,
        memory_bytes,
        ..
    } = variation;
    format!(
        r#"[kafka]
bootstrap_servers = "{servers}"
group_id = "{group}"
input_topic = "{input}"
output_topic = "{output}"
dead_letter_topic = "{dead}"
transaction_timeout_ms = {transaction}
session_timeout_ms = {session}
max_poll_interval_ms = 30000
rebalance_protocol = "{rebalance}"
request_timeout_ms = 5000
max_message_bytes = {message_bytes}

[worker]
poll_timeout_ms = 200

[commit]
interval_ms = 100

[checkpoint]
url = "{url}"
prefix = "{group}"
interval_ms = 1000
gc_grace_ms = 20000
{section}
[state]
directory = "{state}"
memory_limit_bytes = {memory_bytes}

[windows]
max_out_of_orderness_ms = {OUT_OF_ORDER_MS}
allowed_lateness_ms = 10000
idle_timeout_ms = {idle_ms}

[metrics]
listen = ""

[log]
level = "debug"

{REFERENCE}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn batches_differ_in_load_rebalances_and_message_size() {
        let trades = [PathBuf::from("a.gz"), PathBuf::from("b.gz")];
        let all: Vec<Variation> = (0..12)
            .map(|batch| Variation::of(Draw::new(1), batch, &trades))
            .collect();
        let count =
            |of: fn(&Variation) -> String| all.iter().map(of).collect::<BTreeSet<_>>().len();
        assert_eq!(count(|v| v.rebalance.to_owned()), 2);
        assert_eq!(count(|v| v.message_bytes.to_string()), 2);
        assert!(count(|v| v.origin.to_string()) >= 2);
        let combination = |v: &Variation| {
            let (rebalance, bytes) = (v.rebalance, v.message_bytes);
            format!("{} {rebalance} {bytes}", v.origin == Origin::Generated)
        };
        assert_eq!(count(combination), 8);
        let without = Variation::of(Draw::new(1), 0, &[]);
        assert_eq!(without.origin, Origin::Generated);
    }
}
