//! The steps with native parts and real servers: the production binary, the contract, chaos.
//!
//! RocksDB is compiled once: in the release profile, for the selection `-p processor`. With
//! `-p scenarios` beside it, it is the very same unit (`with_world`).

use super::{Outcome, Step, cargo};
use anyhow::{Context, bail};
use std::path::Path;
use std::process::Command;
use xtask::kafka::{self, Cluster, NEWEST_3, Options};
use xtask::s3;

/// Rounds of chaos in every run.
const CHAOS_ROUNDS: &str = "50";
/// Decides the rounds; what comes of a decision differs from run to run all the same.
const CHAOS_SEED: &str = "1";
/// Histories that the simulated cluster and each genuine one must answer alike.
const HISTORIES: &str = "200";
/// The cluster of the older line.
const OLDER: &str = "older";

pub(super) const STEPS: [Step; 9] = [
    Step {
        name: "production lints",
        run: |root| {
            let ends = ["--all-targets", "--", "-D", "warnings"];
            cargo(root, &with_world("clippy", &ends))
        },
    },
    Step {
        name: "client lints",
        run: |root| {
            let ends = ["--all-targets", "--", "-D", "warnings"];
            cargo(root, &of_clients("clippy", &ends))
        },
    },
    Step {
        name: "build",
        run: |root| {
            cargo(root, &["build", "--release", "--locked", "-p", "processor"])?;
            cargo(root, &of_clients("build", &[]))
        },
    },
    Step {
        name: "servers",
        run: start_servers,
    },
    Step {
        name: "production tests",
        run: |root| cargo(root, &["test", "--release", "--locked", "-p", "processor"]),
    },
    Step {
        name: "RocksDB in the world",
        run: |root| cargo(root, &with_world("test", &["--test", "rocks_world"])),
    },
    Step {
        name: "audit tests",
        run: |root| {
            let tests = ["--test", "audit", "--test", "audit_cluster"];
            cargo(root, &of_clients("test", &tests))
        },
    },
    Step {
        name: "contract",
        run: contract,
    },
    Step {
        name: "chaos",
        run: |root| {
            cargo(
                root,
                &[
                    "xtask",
                    "chaos",
                    "--rounds",
                    CHAOS_ROUNDS,
                    "--seed",
                    CHAOS_SEED,
                    "--binaries",
                    "target/release",
                ],
            )
        },
    },
];

fn start_servers(root: &Path) -> anyhow::Result<Outcome> {
    Cluster::up(root, &Options::named(kafka::DEFAULT_NAME))?;
    s3::up(root)?;
    Ok(Outcome::Passed)
}

/// A command on the processor as it ships, and on the world around it.
fn with_world<'a>(command: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec![command, "--release", "--locked"];
    words.extend(["-p", "processor", "-p", "scenarios"]);
    words.extend(["--features", "scenarios/rocks"]);
    words.extend(rest);
    words
}

/// A command on everything beside the processor that has a Kafka client; with one choice of features, so
/// that each crate is built once.
fn of_clients<'a>(command: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec![command, "--release", "--locked"];
    words.extend(["-p", "scenarios", "-p", "sim", "-p", "benches"]);
    words.extend(["--features", "scenarios/kafka,sim/genuine,benches/cluster"]);
    words.extend(rest);
    words
}

/// The contract on both clusters at once: its behaviours wait for most of their time.
#[allow(
    clippy::disallowed_methods,
    reason = "waits for two processes at once; nothing here is simulated"
)]
fn contract(root: &Path) -> anyhow::Result<Outcome> {
    let options = Options {
        version: Some(NEWEST_3.parse()?),
        ..Options::named(OLDER).forgetful()
    };
    let older = Cluster::up(root, &options)?;
    let test = ["--test", "contract_genuine"];
    cargo(
        root,
        &of_clients("test", &[&test[..], &["--no-run"]].concat()),
    )?;
    let outcomes = std::thread::scope(|scope| {
        [kafka::DEFAULT_NAME, OLDER]
            .map(|name| scope.spawn(move || contract_on(root, name)))
            .map(|run| run.join().expect("a run of the contract does not panic"))
    });
    older.down()?;
    for outcome in outcomes {
        outcome?;
    }
    Ok(Outcome::Passed)
}

/// First its behaviours, then generated histories. Prints what each prints in one piece.
fn contract_on(root: &Path, cluster: &str) -> anyhow::Result<()> {
    for choice in [&[][..], &["--histories", HISTORIES]] {
        let rest = ["--test", "contract_genuine", "--", "--cluster", cluster];
        let output = Command::new("cargo")
            .args(of_clients("test", &[&rest, choice].concat()))
            .current_dir(root)
            .output()
            .context("cannot run cargo")?;
        println!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        if !output.status.success() {
            bail!("the contract does not hold on the cluster `{cluster}`");
        }
    }
    Ok(())
}

/// Ends the servers that were not there before.
pub(super) struct Servers {
    keep_kafka: bool,
    keep_s3: bool,
}

impl Servers {
    /// Notes what runs already.
    pub(super) fn before(root: &Path) -> Servers {
        Servers {
            keep_kafka: Cluster::open(root, kafka::DEFAULT_NAME).is_ok(),
            keep_s3: matches!(s3::status(root), Ok(Some(_))),
        }
    }

    /// # Errors
    /// When one does not end.
    pub(super) fn restore(&self, root: &Path) -> anyhow::Result<()> {
        if !self.keep_kafka {
            kafka::down(root, kafka::DEFAULT_NAME)?;
        }
        if !self.keep_s3 {
            s3::down(root)?;
        }
        kafka::down(root, OLDER)?;
        Ok(())
    }
}
