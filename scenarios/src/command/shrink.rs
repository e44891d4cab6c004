//! `tickproof shrink`.

use super::prove::cores;
use super::{Chosen, ShrinkArguments, choose, print, print_json};
use crate::narration::narrate;
use crate::plan_file;
use crate::runner::{self, Order};
use crate::shrink::judge::{self, Failure};
use crate::shrink::{Limits, Observer, Shrunk, Size, Step, shrink as search};
use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use properties::Property;
use reports::quantity::{counted, duration, grouped};
use serde::Serialize;
use sim::plan::{Bug, Plan};
use sim::sabotage::Sabotage;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Where plans that once failed are kept, from the project's root.
const REGRESSIONS: &str = "scenarios/regressions";

#[derive(Serialize)]
struct Output<'a> {
    failure: String,
    before: Sizes,
    after: Sizes,
    runs: u64,
    complete: bool,
    plan: &'a Plan,
}

#[derive(Serialize)]
struct Sizes {
    records: u64,
    faults: u64,
    virtual_ms: u64,
}

impl From<Size> for Sizes {
    fn from(size: Size) -> Sizes {
        Sizes {
            records: size.records,
            faults: size.faults,
            virtual_ms: size.virtual_ms,
        }
    }
}

pub(super) fn shrink(arguments: &ShrinkArguments, json: bool) -> anyhow::Result<ExitCode> {
    let kept = arguments.keep.as_deref().map(place_to_keep).transpose()?;
    let mut plan = prepare(arguments)?;
    let chosen = silently(|| choose_failure(&plan, arguments.property))?;
    if let (Some(bug), Failure::Property(property)) = (&mut plan.bug, &chosen) {
        property.name().clone_into(&mut bug.property);
    }
    let before = Size::of(&plan);
    eprintln!("{chosen}\n{}", told(before));
    let shrunk = silently(|| run(&plan, &chosen, arguments));
    let after = Size::of(&shrunk.plan);
    let file = kept.as_deref().or(arguments.out.as_deref());
    let mut text = header(&shrunk.plan, &chosen, file);
    text.push_str(&plan_file::print_briefly(&shrunk.plan)?);
    if let Some(path) = &arguments.out {
        fs::write(path, &text).with_context(|| {
            format!(
                "cannot write {}: give --out a writable path",
                path.display()
            )
        })?;
    }
    if let Some(path) = &kept {
        fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if json {
        print_json(&Output {
            failure: chosen.to_string(),
            before: before.into(),
            after: after.into(),
            runs: shrunk.runs,
            complete: shrunk.complete,
            plan: &shrunk.plan,
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&story(&shrunk.plan, &chosen))?;
    print(&conclusion(&chosen, (before, after), &shrunk, file))?;
    if file.is_none() {
        print(&format!("\n{text}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn prepare(arguments: &ShrinkArguments) -> anyhow::Result<Plan> {
    let mut plan = match choose(&arguments.scenario)? {
        Chosen::Scenario(scenario) => scenario.resolve(arguments.seed.unwrap_or(0))?,
        Chosen::File(plan) => *plan,
    };
    plan.seed = arguments.seed.unwrap_or(plan.seed);
    if let Some(promise) = arguments.bug {
        plan.bug = Some(Bug {
            promise,
            property: String::new(),
        });
    }
    plan.check()?;
    Ok(plan)
}

/// The failure that is to be kept.
fn choose_failure(plan: &Plan, property: Option<Property>) -> anyhow::Result<Failure> {
    let mut found = judge::failures(plan)?;
    let list = |found: &[Failure]| {
        let each: Vec<String> = found.iter().map(ToString::to_string).collect();
        each.join(", ")
    };
    if found.is_empty() {
        bail!(
            "{} seed {} does not fail, so there is nothing to shrink: give the seed or the plan file \
             of a run that failed (`tickproof prove` names them)",
            plan.scenario,
            plan.seed
        );
    }
    let chosen = match property.map(Failure::Property) {
        Some(wanted) => {
            let message = format!(
                "{wanted} is not what happens with seed {}: give --property one of these: {}",
                plan.seed,
                list(&found)
            );
            ensure!(found.contains(&wanted), message);
            wanted
        }
        None => found.swap_remove(0),
    };
    if plan.bug.is_some() {
        ensure!(
            judge::fails(plan, &chosen),
            "{chosen} without the bug too: leave --bug (or the plan's [bug]) out"
        );
    }
    Ok(chosen)
}

#[allow(
    clippy::disallowed_methods,
    reason = "only where the search breaks off depends on the wall clock"
)]
fn run(plan: &Plan, failure: &Failure, arguments: &ShrinkArguments) -> Shrunk {
    let began = Instant::now();
    let budget_s = arguments.budget_s;
    let limits = Limits {
        runs_max: u64::MAX,
        jobs: arguments.jobs.unwrap_or_else(cores),
        is_over: &|| began.elapsed().as_secs() >= budget_s,
    };
    let style = ProgressStyle::with_template("{spinner} {pos} plans tried, {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let mut bar = Bar(ProgressBar::new_spinner().with_style(style));
    let fails = |plan: &Plan| judge::fails(plan, failure);
    let shrunk = search(plan, &fails, &limits, &mut bar);
    bar.0.finish_and_clear();
    shrunk
}

/// Panics of plans that are tried are an answer, not a message.
pub(super) fn silently<R>(work: impl FnOnce() -> R) -> R {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = work();
    std::panic::set_hook(usual);
    result
}

/// Draws on standard error; the line of each step is printed without a terminal too.
struct Bar(ProgressBar);

impl Observer for Bar {
    fn judged(&mut self, runs: u64) {
        self.0.set_position(runs);
    }

    fn step(&mut self, step: Step<'_>) {
        let Step { what, after, .. } = step;
        self.0.suspend(|| eprintln!("→ {}  ({what})", told(after)));
    }
}

/// What happens in the shrunk run.
fn story(plan: &Plan, failure: &Failure) -> String {
    let order = Order {
        plan,
        expect: &[],
        input: None,
        trace: true,
        twice: *failure == Failure::Property(Property::Determinism),
        replay: "",
    };
    match silently(|| runner::play(&order)) {
        Ok(played) => format!("{}\n", narrate(plan, &played).text()),
        Err(e) => format!("{e}\n"),
    }
}

fn told(size: Size) -> String {
    format!(
        "{} s, {}, {}, {}, {}",
        grouped(size.virtual_ms / 1_000),
        counted(size.records, "record"),
        counted(size.faults, "fault"),
        counted(size.machines.into(), "machine"),
        counted(size.partitions.into(), "partition")
    )
}

fn conclusion(
    failure: &Failure,
    (before, after): (Size, Size),
    shrunk: &Shrunk,
    file: Option<&Path>,
) -> String {
    let why = if shrunk.complete {
        "nothing more can go"
    } else {
        "the time was over: a longer --budget may get further"
    };
    let place = file.map_or_else(String::new, |file| {
        format!(
            "play it: cargo run --release -- play {} --story\n",
            file.display()
        )
    });
    let size = |size: Size| {
        let (records, faults) = (
            counted(size.records, "record"),
            counted(size.faults, "fault"),
        );
        format!("{records}, {faults}, {}", duration(size.virtual_ms))
    };
    format!(
        "{failure}: {} → {}\n{} tried; {why}\n{place}",
        size(before),
        size(after),
        counted(shrunk.runs, "plan"),
    )
}

/// What stands at the top of the plan's file.
fn header(plan: &Plan, failure: &Failure, file: Option<&Path>) -> String {
    let cause = match &plan.bug {
        Some(bug) => format!(", for a bug is planted: {}", bug.promise.meaning()),
        None => String::new(),
    };
    let file = file.map_or_else(|| "FILE".to_owned(), |file| file.display().to_string());
    format!(
        "# Shrunk from a plan of the scenario `{}`: {failure}{cause}.\n\
         # Play it: cargo run --release -- play {file} --story\n\n",
        plan.scenario
    )
}

/// The file of a regression that is not there yet.
fn place_to_keep(name: &str) -> anyhow::Result<PathBuf> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    ensure!(
        !name.is_empty() && name.chars().all(is_plain),
        "`{name}` is no name for a plan: take letters, digits and dashes"
    );
    let folder = Path::new(REGRESSIONS);
    ensure!(
        folder.is_dir(),
        "there is no {REGRESSIONS} here: run this in the project's root, or give --out FILE"
    );
    let path = folder.join(format!("{name}.toml"));
    match fs::metadata(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(path),
        _ => bail!("{} is there already: take another name", path.display()),
    }
}

/// Reads the name of a bug.
pub(super) fn sabotage(text: &str) -> Result<Sabotage, String> {
    let names = Sabotage::ALL.map(|bug| (bug, bug_name(bug)));
    let found = names.iter().find(|(_, name)| name == text);
    found.map(|(bug, _)| *bug).ok_or_else(|| {
        let known: Vec<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
        format!("use one of: {}", known.join(", "))
    })
}

/// As plans spell it.
fn bug_name(bug: Sabotage) -> String {
    let name = toml::Value::try_from(bug).ok();
    name.and_then(|name| name.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Reads the name of a property.
pub(super) fn property(text: &str) -> Result<Property, String> {
    let found = Property::ALL.into_iter().find(|one| one.name() == text);
    found.ok_or_else(|| {
        let known = Property::ALL.map(Property::name);
        format!("use one of: {}", known.join(", "))
    })
}
