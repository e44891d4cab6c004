//! The steps of `cargo xtask test`.
//!
//! The steps of the simulated world come first: they need nothing native. The crate `processor` is
//! built without its default features there, and with them only in [`production`].

mod production;

use crate::{determinism, setup};
use anyhow::{Context, bail};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What a step came to.
enum Outcome {
    Passed,
    /// With the reason.
    Skipped(String),
}

/// A step: its name, and what it does in the workspace's root.
struct Step {
    name: &'static str,
    run: fn(&Path) -> anyhow::Result<Outcome>,
}

const STEPS: [Step; 11] = [
    Step {
        name: "tools",
        run: |_| setup::prepare().map(|()| Outcome::Passed),
    },
    Step {
        name: "format",
        run: |root| cargo(root, &["fmt", "--all", "--check"]),
    },
    Step {
        name: "determinism",
        run: |root| determinism::check(root).map(|()| Outcome::Passed),
    },
    Step {
        name: "clippy",
        run: |root| {
            cargo(
                root,
                &[
                    "clippy",
                    "--workspace",
                    "--no-default-features",
                    "--all-targets",
                    "--locked",
                    "--",
                    "-D",
                    "warnings",
                ],
            )
        },
    },
    Step {
        name: "dependency rules",
        run: |root| cargo(root, &["deny", "check", "bans", "licenses", "sources"]),
    },
    Step {
        name: "advisories",
        run: advisories,
    },
    Step {
        name: "tests",
        run: |root| {
            cargo(
                root,
                &["test", "--workspace", "--no-default-features", "--locked"],
            )
        },
    },
    Step {
        name: "main job",
        run: |root| cargo(root, &["run", "--release", "--locked"]),
    },
    Step {
        name: "crash points",
        run: |root| {
            let single = [
                "run",
                "--release",
                "--locked",
                "--",
                "crash-points",
                "--singles",
            ];
            cargo(root, &single)
        },
    },
    Step {
        name: "marks",
        run: marks,
    },
    Step {
        name: "debug = release",
        run: same_in_debug_and_release,
    },
];

/// The last one: it documents the native parts too, which are built by then.
const DOCS: Step = Step {
    name: "docs",
    run: docs,
};

/// Runs all steps; ends at the first that fails.
///
/// # Errors
/// When a step failed, with its name.
#[allow(
    clippy::disallowed_methods,
    reason = "tells people how long a step took, and guards the compiler flags; nothing here is simulated"
)]
pub fn test(root: &Path) -> anyhow::Result<()> {
    if std::env::var_os("RUSTFLAGS").is_some() {
        bail!(
            "the variable RUSTFLAGS is set and replaces the flags in .cargo/config.toml; unset it"
        );
    }
    let servers = production::Servers::before(root);
    let mut summary = Vec::new();
    let steps = STEPS.iter().chain(&production::STEPS).chain([&DOCS]);
    let mut failure = None;
    for step in steps {
        println!("== {}", step.name);
        let start = Instant::now();
        let outcome = (step.run)(root);
        let line = summary_line(step.name, start.elapsed(), outcome.as_ref().ok());
        summary.push(line);
        if let Err(e) = outcome {
            failure = Some(e.context(format!("step `{}` failed", step.name)));
            break;
        }
    }
    servers.restore(root)?;
    println!("\n{}", summary.join("\n"));
    match failure {
        Some(e) => Err(e),
        None => {
            println!("all steps passed");
            Ok(())
        }
    }
}

fn summary_line(name: &str, time: Duration, outcome: Option<&Outcome>) -> String {
    let word = match outcome {
        Some(Outcome::Passed) => "passed".to_owned(),
        Some(Outcome::Skipped(why)) => format!("skipped: {why}"),
        None => "FAILED".to_owned(),
    };
    format!("{name:<18} {:>8.1} s  {word}", time.as_secs_f64())
}

fn cargo(root: &Path, arguments: &[&str]) -> anyhow::Result<Outcome> {
    run(Command::new("cargo").args(arguments).current_dir(root))?;
    Ok(Outcome::Passed)
}

/// Storms in which every mark has to be reached.
const MARKED_SEEDS: &str = "0..2000";

/// Every path that is hard to get right was taken, and every kind of fault has hit. Once a seed: the
/// main job judges determinism.
fn marks(root: &Path) -> anyhow::Result<Outcome> {
    let prove = ["run", "--release", "--locked", "--", "prove", "--once"];
    let storms = ["--scenario", "storm", "--seeds", MARKED_SEEDS];
    // Its end is a person's: no storm has it.
    let refused = ["--scenario", "old-configuration"];
    let demand = ["--marks", "--demand-marks"];
    cargo(root, &[&prove[..], &storms, &refused, &demand].concat())
}

/// Seeds that must be the same run in both profiles.
const COMPARED_SEEDS: std::ops::Range<u64> = 0..5;

/// The same plan gives the same trace hash in a debug and a release build, each in its own process.
fn same_in_debug_and_release(root: &Path) -> anyhow::Result<Outcome> {
    // As in `tests`, whose units are there already; a plain build would unify other features.
    let whole = [
        "test",
        "--no-run",
        "--workspace",
        "--no-default-features",
        "--locked",
    ];
    cargo(root, &whole)?;
    cargo(root, &["build", "--release", "--locked"])?;
    for seed in COMPARED_SEEDS {
        let debug = trace_hash(root, seed, "debug")?;
        let release = trace_hash(root, seed, "release")?;
        if debug != release {
            bail!(
                "storm seed {seed} has trace hash {debug} in a debug build and {release} in a \
                 release build: something in the simulation depends on the build"
            );
        }
        println!("storm seed {seed}: {debug} in both");
    }
    same_with_any_jobs(root)
}

/// A campaign says the same whether its runs are played one after the other or side by side.
fn same_with_any_jobs(root: &Path) -> anyhow::Result<Outcome> {
    let report = |jobs: &str| {
        let prove = [
            "run",
            "--quiet",
            "--locked",
            "--release",
            "--",
            "--json",
            "prove",
        ];
        let storms = ["--scenario", "storm", "--seeds", "0..8", "--jobs", jobs];
        let output = Command::new("cargo")
            .args(prove)
            .args(storms)
            .current_dir(root)
            .output()
            .context("cannot run cargo")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        anyhow::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    if report("1")? != report("2")? {
        bail!("the report of storms 0..8 differs between --jobs 1 and --jobs 2");
    }
    println!("storms 0..8: the same report with 1 job and with 2");
    Ok(Outcome::Passed)
}

fn trace_hash(root: &Path, seed: u64, profile: &str) -> anyhow::Result<String> {
    let seed = seed.to_string();
    let program = root.join("target").join(profile).join("tickproof");
    let output = Command::new(&program)
        .args(["--json", "play", "storm", "--once", "--seed", &seed])
        .current_dir(root)
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("\"trace_hash\""));
    let hash = line.and_then(|line| line.split('"').nth(3));
    hash.map(str::to_owned).with_context(|| {
        format!(
            "no trace hash for storm seed {seed}: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

fn docs(root: &Path) -> anyhow::Result<Outcome> {
    let simulated = ["--workspace", "--no-default-features"];
    let production = ["--release", "-p", "processor"];
    for selection in [&simulated[..], &production[..]] {
        let mut command = Command::new("cargo");
        command
            .args(["doc", "--no-deps", "--locked"])
            .args(selection)
            .current_dir(root);
        // The variable replaces the rustdocflags of .cargo/config.toml, so their cfg stands here too.
        run(command.env("RUSTDOCFLAGS", "-D warnings --cfg madsim"))?;
    }
    Ok(Outcome::Passed)
}

/// Advisories need their database: without a network there is nothing to compare with.
fn advisories(root: &Path) -> anyhow::Result<Outcome> {
    let output = Command::new("cargo")
        .args(["deny", "fetch", "db"])
        .current_dir(root)
        .output()
        .context("cannot run `cargo deny fetch db`")?;
    if !output.status.success() {
        let why = "the advisory database cannot be reached".to_owned();
        println!("{why}");
        return Ok(Outcome::Skipped(why));
    }
    cargo(root, &["deny", "check", "--disable-fetch", "advisories"])
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown: Vec<String> = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let shown = shown.join(" ");
    let status = command
        .status()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}
