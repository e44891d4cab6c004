//! `tickproof bugs`.

use super::prove::cores;
use super::shrink::silently;
use super::{BugsArguments, print, print_json};
use crate::bugs::{
    Card, Copied, Found, Hunt, Made, PlantedBug, Row, SWITCH, Score, catalogue, promise_of,
};
use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

pub(super) fn bugs(arguments: &BugsArguments, json: bool) -> anyhow::Result<ExitCode> {
    let hunt = Hunt {
        streams: arguments.streams,
        seeds_max: arguments.seeds,
        jobs: arguments.jobs.unwrap_or_else(cores),
    };
    if arguments.here {
        let found = silently(|| hunt.all(None, &mut || ()))?;
        print_json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    let root = root()?;
    let bugs = chosen(catalogue(&root)?, &arguments.only)?;
    if arguments.list {
        for bug in &bugs {
            print(&format!("{:<34} {}\n", bug.name, bug.says))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let all = catalogue(&root)?;
    let needs_copy = bugs.iter().any(|bug| promise_of(bug).is_none());
    let copied = needs_copy.then(|| Copied::make(&root, &all)).transpose()?;
    let bar = progress(bugs.len());
    let mut rows = Vec::new();
    for bug in &bugs {
        bar.set_message(bug.name.clone());
        let found = match (promise_of(bug), &copied) {
            (Some(promise), _) => silently(|| hunt.all(Some(promise), &mut || ()))?,
            (None, Some(copied)) => hunt_in(copied, &bug.name, &hunt)?,
            (None, None) => bail!("{} has no program", bug.name),
        };
        bar.inc(1);
        rows.push(Row {
            name: bug.name.clone(),
            says: bug.says.clone(),
            published: bug.published.clone(),
            in_processor: matches!(bug.made, Made::Patch(_)),
            score: Score::of(&found),
        });
    }
    bar.finish_and_clear();
    let card = Card {
        seeds_max: hunt.seeds_max,
        rows,
    };
    if json {
        print_json(&card)?;
    } else {
        print(&card.to_string())?;
    }
    Ok(match card.is_complete() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(super::EXIT_FAILED),
    })
}

/// The project that this program was built from: patches and sources are there.
fn root() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().with_context(|| {
        format!(
            "the sources that this program was built from are not in {} any more: run `cargo run \
             --release -- bugs` in the project's folder",
            root.display()
        )
    })
}

fn chosen(all: Vec<PlantedBug>, only: &[String]) -> anyhow::Result<Vec<PlantedBug>> {
    for name in only {
        ensure!(
            all.iter().any(|bug| bug.name == *name),
            "there is no bug `{name}`: `tickproof bugs --list` names them"
        );
    }
    let wanted = |bug: &PlantedBug| only.is_empty() || only.contains(&bug.name);
    Ok(all.into_iter().filter(wanted).collect())
}

/// Hunts in the patched program, which has the bug that its environment names.
#[allow(
    clippy::disallowed_methods,
    reason = "runs a program; what it does is simulated there"
)]
fn hunt_in(copied: &Copied, bug: &str, hunt: &Hunt) -> anyhow::Result<Vec<Option<Found>>> {
    let output = Command::new(&copied.program)
        .args(["bugs", "--here", "--json"])
        .arg(format!("--streams={}", hunt.streams))
        .arg(format!("--seeds={}", hunt.seeds_max))
        .arg(format!("--jobs={}", hunt.jobs))
        .env(SWITCH, bug)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", copied.program.display()))?;
    ensure!(output.status.success(), "the hunt for {bug} has failed");
    serde_json::from_slice(&output.stdout).with_context(|| format!("the hunt for {bug}"))
}

fn progress(bugs: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} bugs, {msg} [{elapsed}]");
    let bar = ProgressBar::new(bugs as u64);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
