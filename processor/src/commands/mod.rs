//! The commands.
//!
//! Comes in: arguments. Goes out: an exit status. Each command is a file or a folder.
//! Never here: anything that a worker does.

mod check;
mod cluster;
mod config;
mod dlq;
mod lag;
mod produce;
mod progress;
mod reader;
mod requirements;
mod run;
mod signals;
mod state;
mod stores;
mod topics;
mod verdict;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Something is wrong; starting again may help.
const FAILED: u8 = 1;
/// An operator must decide something; starting again does not help.
const REFUSED: u8 = 3;

const EXIT_STATUS: &str = "\
Exit status:
  0    done
  1    failed; the message says what to do
  2    the command line is wrong
  3    `run` only: refused to continue, an operator must decide; starting again does not help
  130  `run` only: ended at once by a second SIGINT (143: by a second SIGTERM)";

/// A stream processor for market ticks with exactly-once results on Kafka.
#[derive(Debug, Parser)]
#[command(name = "processor", version, after_help = EXIT_STATUS)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Topics(topics::TopicsArgs),
    Produce(produce::ProduceArgs),
    Dlq(dlq::DlqArgs),
    State(state::StateArgs),
    Config(config::PrintArgs),
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let done = match CommandLine::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Topics(args) => topics::topics(&args),
        Command::Produce(args) => produce::produce(&args),
        Command::Dlq(args) => dlq::dlq(&args),
        Command::State(args) => state::state(&args),
        Command::Config(args) => config::print(&args),
    };
    done.unwrap_or_else(|error| {
        // The whole chain of causes, in one line.
        eprintln!("error: {error:#}");
        ExitCode::from(FAILED)
    })
}

#[cfg(test)]
mod tests {
    use super::CommandLine;
    use clap::{Command, CommandFactory, Parser};

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    /// Commands that do something, with their examples.
    fn examples(command: &Command, all: &mut Vec<(String, Vec<String>)>) {
        for inner in command.get_subcommands() {
            examples(inner, all);
        }
        if command.has_subcommands() {
            return;
        }
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        let lines = help.lines().filter_map(|line| {
            let line = line.strip_prefix("  ")?;
            line.starts_with("processor ").then(|| line.to_owned())
        });
        all.push((command.get_name().to_owned(), lines.collect()));
    }

    #[test]
    fn every_command_has_examples_and_each_of_them_parses() {
        let mut all = Vec::new();
        examples(&CommandLine::command(), &mut all);
        assert!(all.len() > 5, "{all:?}");
        for (command, lines) in all {
            assert!(!lines.is_empty(), "{command} has no example");
            for line in lines {
                // What comes after is the shell's.
                let words = line
                    .split('>')
                    .next()
                    .unwrap_or_default()
                    .split_whitespace();
                let parsed = CommandLine::try_parse_from(words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.expect_err("an error"));
            }
        }
    }
}
