//! The steps with native parts and real servers: the production binary, the contract, chaos.
//!
//! RocksDB is compiled once: in the release profile, for the one selection `-p processor`.

use super::{Outcome, Step, cargo};
use std::path::Path;
use xtask::kafka::{self, Cluster, NEWEST_3, Options};
use xtask::s3;

/// Rounds of chaos in every run.
const CHAOS_ROUNDS: &str = "50";
/// Decides the rounds; what comes of a decision differs from run to run all the same.
const CHAOS_SEED: &str = "1";
/// The cluster of the older line.
const OLDER: &str = "older";

pub(super) const STEPS: [Step; 9] = [
    Step {
        name: "production lints",
        run: |root| {
            cargo(
                root,
                &[
                    "clippy",
                    "--release",
                    "--locked",
                    "-p",
                    "processor",
                    "--all-targets",
                    "--",
                    "-D",
                    "warnings",
                ],
            )
        },
    },
    Step {
        name: "client lints",
        run: |root| {
            let features = "scenarios/kafka,sim/genuine,benches/cluster";
            let crates = ["-p", "scenarios", "-p", "sim", "-p", "benches"];
            let mut words = vec!["clippy", "--release", "--locked"];
            words.extend(crates);
            words.extend([
                "--features",
                features,
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ]);
            cargo(root, &words)
        },
    },
    Step {
        name: "build",
        run: |root| {
            cargo(root, &["build", "--release", "--locked", "-p", "processor"])?;
            cargo(
                root,
                &[
                    "build",
                    "--release",
                    "--locked",
                    "-p",
                    "scenarios",
                    "--features",
                    "kafka",
                ],
            )
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
        name: "audit tests",
        run: |root| {
            cargo(
                root,
                &[
                    "test",
                    "--release",
                    "--locked",
                    "-p",
                    "scenarios",
                    "--features",
                    "kafka",
                    "--lib",
                    "--test",
                    "audit",
                    "--test",
                    "audit_cluster",
                ],
            )
        },
    },
    Step {
        name: "contract",
        run: |root| contract(root, &["--cluster", kafka::DEFAULT_NAME]),
    },
    Step {
        name: "contract on 3.9",
        run: contract_on_older,
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

fn contract(root: &Path, arguments: &[&str]) -> anyhow::Result<Outcome> {
    let test = [
        "test",
        "--release",
        "--locked",
        "-p",
        "sim",
        "--features",
        "genuine",
        "--test",
        "contract_genuine",
    ];
    let mut words = test.to_vec();
    words.push("--");
    words.extend(arguments);
    cargo(root, &words)
}

/// The same on the last line before Kafka 4, on a cluster of its own.
fn contract_on_older(root: &Path) -> anyhow::Result<Outcome> {
    let options = Options {
        version: Some(NEWEST_3.parse()?),
        ..Options::named(OLDER)
    };
    let cluster = Cluster::up(root, &options)?;
    let outcome = contract(root, &["--cluster", OLDER]);
    cluster.down()?;
    outcome
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
