//! Tasks of the project: `cargo xtask test` is everything that must pass, on a fresh machine too.
//!
//! Comes in: the workspace. Goes out: a line a step, with its time; exit status 0 only if all passed.
//! Never here: what the steps check (that is cargo's and the crates' affair), but for the
//! [`determinism`] lint; and the servers, which are in the library.

mod determinism;
mod setup;
mod steps;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use xtask::{chaos, kafka, root, s3};

/// Tasks of the project.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "\
Examples:
  cargo xtask test
  cargo xtask kafka up
  cargo xtask kafka up --help
  cargo xtask s3 up"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Format, lints, dependency rules, all tests, the main job, docs
    #[command(after_help = "Example:\n  cargo xtask test")]
    Test,
    /// Only what the others need beside cargo: found, or installed (as root), or named
    #[command(after_help = "Example:\n  cargo xtask setup")]
    Setup,
    /// Only the search for clocks, threads and hash order in simulated code
    #[command(after_help = "Example:\n  cargo xtask determinism")]
    Determinism,
    /// A real Kafka cluster on this machine: up, down, kill, stop, start, pause, resume, status
    #[command(subcommand)]
    Kafka(kafka::command::Command),
    /// A real S3 server on this machine: up, down, status
    #[command(subcommand)]
    S3(s3::command::Command),
    /// Hurt real processors and brokers at random, and audit what they did
    Chaos(chaos::command::Options),
}

fn main() -> ExitCode {
    let root = root();
    let result = match Arguments::parse().task {
        Task::Test => steps::test(&root),
        Task::Setup => setup::prepare(),
        Task::Determinism => determinism::check(&root),
        Task::Kafka(command) => kafka::command::run(&root, command),
        Task::S3(command) => s3::command::run(&root, &command),
        Task::Chaos(options) => chaos::command::run(&root, &options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn message(words: &str) -> String {
        let error = Arguments::try_parse_from(words.split(' ')).unwrap_err();
        error.to_string()
    }

    #[test]
    fn the_arguments_are_well_formed_and_every_task_has_an_example() {
        let mut command = Arguments::command();
        command.clone().debug_assert();
        command.build();
        let mut left: Vec<&clap::Command> = command.get_subcommands().collect();
        while let Some(task) = left.pop() {
            left.extend(task.get_subcommands());
            let is_leaf = task.get_subcommands().next().is_none();
            let help = task.clone().render_help().to_string();
            let name = task.get_name();
            assert!(
                !is_leaf || name == "help" || help.contains("cargo xtask "),
                "{name}"
            );
        }
    }

    #[test]
    fn wrong_arguments_are_told_what_would_be_right() {
        let error = message("xtask kafka up --version 4.x");
        assert!(error.contains(kafka::NEWEST), "{error}");
        let error = message("xtask kafka up --brokers 0");
        assert!(error.contains("1..=9"), "{error}");
        let error = message("xtask kafka up --set node.id=7");
        assert!(error.contains("leave it out"), "{error}");
        let error = message("xtask kafka kill");
        assert!(error.contains("<N>"), "{error}");
    }
}
