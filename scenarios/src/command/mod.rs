//! The command line of `tickproof`.
//!
//! Comes in: arguments. Goes out: text or JSON on standard output, progress and errors on standard
//! error, an exit status: 0 all held, 1 something failed, 2 wrong usage or input.
//! Never here: how anything is played or judged.

#[cfg(feature = "kafka")]
mod audit;
mod bugs;
mod crash_points;
mod play;
mod prove;
mod shrink;

use crate::catalog;
use crate::plan_file;
use crate::scenario::Scenario;
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use properties::Property;
use reports::table::{Align, draw};
use serde::Serialize;
use sim::plan::Plan;
use sim::sabotage::Sabotage;
use sim::tap::Kill;
use std::io::{self, ErrorKind, Write};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit status when a property failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit status of wrong usage or input.
pub const EXIT_USAGE: u8 = 2;
/// Seeds that are played when none are given.
const SEEDS_DEFAULT: Range<u64> = 0..20;

/// Proves a stream processor against seeded worlds in which everything around it breaks.
///
/// Without a subcommand every scenario is proved with seeds 0..20, each played twice.
#[derive(Debug, Parser)]
#[command(
    name = "tickproof",
    version,
    after_help = "Examples:
  tickproof                            prove everything
  tickproof prove --scenario storm --seeds 0..2000
  tickproof play storm --seed 17       play one seed again
  tickproof play calm --input trades.jsonl.gz --bars bars.csv
  tickproof crash-points               crash at every I/O, and again at every one after it
  tickproof shrink storm --seed 17     the core of a seed that fails
  tickproof list                       all scenarios
  tickproof audit --config processor.toml   judge a real cluster

Exit status: 0 all properties hold, 1 one failed, 2 wrong usage or input."
)]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON for machines instead of text.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the scenarios.
    #[command(after_help = "Examples:\n  tickproof list\n  tickproof list --json")]
    List,
    /// Play one seed of a scenario, or a plan file, and judge it.
    #[command(after_help = "Examples:
  tickproof play storm --seed 17
  tickproof play storm --seed 17 --trace | less
  tickproof play my-plan.toml --story
  tickproof play calm --input trades.jsonl.gz --bars bars.csv --out results
  zstdcat trades.jsonl.zst | tickproof play storm --seed 3 --input -")]
    Play(PlayArguments),
    /// Play many seeds of many scenarios, each twice, and print a table.
    #[command(after_help = "Examples:
  tickproof prove
  tickproof prove --scenario storm --seeds 0..2000 --once --marks
  tickproof prove --scenario loss --scenario disorder --seeds 20..40 --jobs 1 --json")]
    Prove(ProveArguments),
    /// Crash the processor at every I/O of a short story, and at every I/O after each of these crashes.
    #[command(after_help = "Examples:
  tickproof crash-points               every point, and every pair of points
  tickproof crash-points --singles     every point
  tickproof crash-points cooperative --play worker-0/1/17:unknown-1,worker-0/2/5:before --trace

A point is worker-W/START/CALL:MOMENT: the CALL-th I/O of the START-th process of worker W, before it is
made, after it has returned (and the process does not get to know), or unknown-N: when something has left
the process for the N-th time since.")]
    CrashPoints(CrashPointsArguments),
    /// Judge the topics of a real Kafka cluster by the same properties.
    #[command(after_help = "Examples:
  tickproof audit --config processor.toml              while the processor runs
  tickproof audit --config processor.toml --complete   when it has come to rest

It reads and never writes. A build for it needs --features kafka.

Exit status: 0 all properties hold, 1 one failed, 2 wrong usage, or the cluster cannot be read.")]
    Audit(AuditArguments),
    /// Make a plan that fails as small as it can be, and tell its story.
    #[command(after_help = "Examples:
  tickproof shrink storm --seed 17
  tickproof shrink my-plan.toml --property liveness --out small.toml
  tickproof shrink storm --seed 17 --keep lost-commit    to scenarios/regressions/lost-commit.toml
  tickproof shrink storm --seed 0 --bug outputs-twice

The result fails by the same property. Its seed may be another: the seed is part of a plan.

Exit status: 0 it was shrunk, 2 wrong usage, or the plan does not fail.")]
    Shrink(ShrinkArguments),
    /// Plant bugs, one after the other, and tell how many storms it takes until each is found.
    #[command(after_help = "Examples:
  tickproof bugs --list
  tickproof bugs --streams 5
  tickproof bugs --only revisions-forgotten --only epoch-kept --seeds 2000

Bugs of the processor are patches in properties/bugs: they go into a copy of the sources, which is built in
target/bugs. Without --only all are hunted, which takes long.

Exit status: 0 each was found in every stream, 1 one was not, 2 wrong usage.")]
    Bugs(BugsArguments),
    /// Print the plan of a seed as TOML, to be changed and played.
    #[command(after_help = "Examples:
  tickproof plan storm --seed 17 > storm-17.toml
  tickproof play storm-17.toml")]
    Plan(PlanArguments),
}

/// Arguments of `audit`.
#[derive(Debug, Args)]
struct AuditArguments {
    /// Configuration of the processor whose topics are judged.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Set one key over the file, as with `processor run`; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Judge also that everything in the input has been processed and every window emitted: for a
    /// pipeline that has come to rest.
    #[arg(long)]
    complete: bool,
    /// How long a record may have stood in the log, by its Kafka timestamp, before a consumer could
    /// see it (a producer's retries, open transactions): a partition that was called idle over
    /// such records is not accused.
    #[arg(long = "hidden", value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(i64).range(0..))]
    hidden_s: i64,
    /// How wrong the clocks of brokers and processes may have been, beyond two seconds.
    #[arg(long = "clock-error", value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    clock_error_s: i64,
    /// Memory to sort in; what does not fit is sorted on disk.
    #[arg(long = "memory", value_name = "MIB", default_value_t = 224)]
    memory_mib: usize,
    /// Folder for what does not fit into memory [default: the system's temporary folder].
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// Where reports go, from the current folder.
const REPORT_FOLDER: &str = "target/report";

/// Arguments of `play`.
#[derive(Debug, Args)]
struct PlayArguments {
    /// Name of a scenario, or path of a plan file (.toml).
    scenario: String,
    /// Seed of every random choice [default: 0, or the plan file's].
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=SEED_MAX))]
    seed: Option<u64>,
    /// JSON lines to use as the input, plain, gzip or zstd; - is standard input.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// CSV of bars to compare the results with
    /// (ticker,window_start,open,high,low,close,volume).
    #[arg(long, value_name = "FILE")]
    bars: Option<PathBuf>,
    /// Folder for outputs.jsonl, dlq.jsonl, trace.jsonl and verdict.json.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print everything that happened.
    #[arg(long)]
    trace: bool,
    /// Tell what happened step by step in plain words (for small plans).
    #[arg(long)]
    story: bool,
    /// Play once instead of twice: faster, but determinism is not judged.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    report: ReportArguments,
}

/// Where the report goes.
#[derive(Debug, Args)]
struct ReportArguments {
    /// Folder for the report: all that there is to show, as JSON and as JUnit.
    #[arg(long = "report", value_name = "DIR", default_value = REPORT_FOLDER)]
    folder: PathBuf,
    /// Write no report.
    #[arg(long = "no-report", conflicts_with = "folder")]
    none: bool,
}

impl ReportArguments {
    fn folder(&self) -> Option<&Path> {
        (!self.none).then_some(self.folder.as_path())
    }
}

/// Arguments of `prove`.
#[derive(Debug, Args)]
struct ProveArguments {
    /// A scenario to prove; may be given several times [default: all].
    #[arg(long = "scenario", value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Seeds, from A up to but without B [default: 0..20].
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    seeds: Option<Range<u64>>,
    /// Runs at a time [default: number of cores].
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Play once instead of twice: faster, but determinism is not judged.
    #[arg(long)]
    once: bool,
    /// Print for each mark (a path that is hard to get right) in how many seeds it was reached, and
    /// for each kind of fault in how many it hit.
    #[arg(long)]
    marks: bool,
    /// Fail when a mark was never reached, or a kind of fault hit in fewer than 20 % of the seeds that
    /// drew it: for campaigns of some thousand storms.
    #[arg(long)]
    demand_marks: bool,
    #[command(flatten)]
    report: ReportArguments,
}

/// Arguments of `crash-points`.
#[derive(Debug, Args)]
struct CrashPointsArguments {
    /// Name of a story or scenario, or path of a plan file (.toml) [default: every story].
    story: Option<String>,
    /// A killed process is started again after so many milliseconds [default: the story's; 2000 for others].
    #[arg(long = "down", value_name = "MS", value_parser = clap::value_parser!(u64).range(..=86_400_000))]
    down_ms: Option<u64>,
    /// Only one crash in a run.
    #[arg(long)]
    singles: bool,
    /// Runs at a time [default: number of cores].
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Play crashes at these points only, and print the verdict.
    #[arg(long, value_name = "POINT,…", value_delimiter = ',')]
    play: Option<Vec<Kill>>,
    /// With --play: print everything that happened.
    #[arg(long, requires = "play")]
    trace: bool,
}

/// Arguments of `shrink`.
#[derive(Debug, Args)]
struct ShrinkArguments {
    /// Name of a scenario, or path of a plan file (.toml).
    #[arg(default_value = "storm")]
    scenario: String,
    /// Seed of every random choice [default: 0, or the plan file's].
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=SEED_MAX))]
    seed: Option<u64>,
    /// A promise that the world breaks: plants a bug.
    #[arg(long, value_name = "NAME", value_parser = shrink::sabotage)]
    bug: Option<Sabotage>,
    /// The property that must go on to fail [default: the first that does].
    #[arg(long, value_parser = shrink::property)]
    property: Option<Property>,
    /// File for the small plan [default: it is printed].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Keep the small plan as scenarios/regressions/NAME.toml, which the tests play.
    #[arg(long, value_name = "NAME")]
    keep: Option<String>,
    /// Plans played at a time [default: number of cores].
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Time to search in; what has been found by then is the result.
    #[arg(long = "budget", value_name = "SECONDS", default_value_t = 30)]
    budget_s: u64,
}

/// Arguments of `bugs`.
#[derive(Debug, Args)]
struct BugsArguments {
    /// A bug to hunt; may be given several times [default: all].
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Print the bugs and what is wrong with each.
    #[arg(long)]
    list: bool,
    /// Independent streams of seeds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    streams: u64,
    /// Seeds of a stream until it is given up.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Streams at a time [default: number of cores].
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Hunt the bug that this very program has: for a patched copy.
    #[arg(long, hide = true)]
    here: bool,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
struct PlanArguments {
    /// Name of a scenario.
    scenario: String,
    /// Seed of every random choice.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=SEED_MAX))]
    seed: u64,
}

/// Highest seed: plan files are TOML, whose numbers have a sign.
const SEED_MAX: u64 = i64::MAX as u64;

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let fix = "write A..B with A < B, for example 0..20";
    let (from, until) = text.split_once("..").ok_or(fix)?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|seed| *seed <= SEED_MAX);
    match (number(from), number(until)) {
        (Some(from), Some(until)) if from < until => Ok(from..until),
        _ => Err(fix.to_owned()),
    }
}

/// Does what the arguments say.
///
/// # Errors
/// Wrong usage or input, with the fix in the message.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let json = arguments.json;
    match arguments.action {
        None => prove::prove(&ProveArguments::everything(), json),
        Some(Action::Prove(prove)) => prove::prove(&prove, json),
        Some(Action::Play(play)) => play::play(&play, json),
        Some(Action::Audit(arguments)) => audit(&arguments, json),
        Some(Action::CrashPoints(arguments)) => crash_points::crash_points(&arguments, json),
        Some(Action::List) => list(json),
        Some(Action::Shrink(shrink)) => shrink::shrink(&shrink, json),
        Some(Action::Bugs(bugs)) => bugs::bugs(&bugs, json),
        Some(Action::Plan(plan)) => print_plan(&plan, json),
    }
}

#[cfg(feature = "kafka")]
fn audit(arguments: &AuditArguments, json: bool) -> anyhow::Result<ExitCode> {
    audit::audit(arguments, json)
}

#[cfg(not(feature = "kafka"))]
fn audit(arguments: &AuditArguments, _json: bool) -> anyhow::Result<ExitCode> {
    anyhow::bail!(
        "this build cannot speak to Kafka: run `cargo run --release --features kafka -- audit \
         --config {}`",
        arguments.config.display()
    )
}

impl ProveArguments {
    fn everything() -> ProveArguments {
        ProveArguments {
            scenarios: Vec::new(),
            seeds: None,
            jobs: None,
            once: false,
            marks: false,
            demand_marks: false,
            report: ReportArguments {
                folder: PathBuf::from(REPORT_FOLDER),
                none: false,
            },
        }
    }
}

#[derive(Serialize)]
struct Listed {
    name: String,
    section: String,
    description: String,
}

fn list(json: bool) -> anyhow::Result<ExitCode> {
    let listed = catalog::all()?.into_iter().map(|scenario| Listed {
        name: scenario.name,
        section: scenario.section,
        description: scenario.description,
    });
    if json {
        print_json(&listed.collect::<Vec<_>>())?;
    } else {
        let rows: Vec<Vec<String>> = listed.map(|one| vec![one.name, one.description]).collect();
        print(&draw(
            &[("scenario", Align::Left), ("what happens", Align::Left)],
            &rows,
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_plan(arguments: &PlanArguments, json: bool) -> anyhow::Result<ExitCode> {
    let plan = catalog::find(&arguments.scenario)?.resolve(arguments.seed)?;
    if json {
        print_json(&plan)?;
    } else {
        print(&plan_file::print(&plan)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A scenario of the catalog, or a plan file.
enum Chosen {
    Scenario(Scenario),
    File(Box<Plan>),
}

fn choose(name: &str) -> anyhow::Result<Chosen> {
    let path = Path::new(name);
    let is_file = path.extension().is_some_and(|ending| ending == "toml");
    if is_file {
        return Ok(Chosen::File(Box::new(plan_file::read(path)?)));
    }
    Ok(Chosen::Scenario(catalog::find(name)?))
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("the report has no JSON form")?;
    print(&format!("{text}\n"))
}

/// Says where a report is.
fn tell(page: &Path, json: bool) -> anyhow::Result<()> {
    match json {
        true => Ok(()),
        false => print(&format!("report: {}\n", page.display())),
    }
}

/// Writes to standard output. That the reader has gone (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e).context("standard output"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Arguments, seeds};
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn ranges_of_seeds_have_two_ends() {
        assert_eq!(seeds("3..7"), Ok(3..7));
        for wrong in ["7", "7..3", "3..3", "a..b", "..", "0..18446744073709551615"] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
    }
}
