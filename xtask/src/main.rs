//! Tasks of the project: `cargo xtask test` is everything that must pass, on a fresh machine too.
//!
//! Comes in: the workspace. Goes out: a line a step, with its time; exit status 0 only if all passed.
//! Never here: what the steps check (that is cargo's and the crates' affair), but for the
//! [`determinism`] lint.

mod determinism;
mod setup;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask TASK

  test           format, lints, dependency rules, all tests, the main job, docs
  determinism    only the search for clocks, threads and hash order in simulated code

Examples:
  cargo xtask test
  cargo xtask determinism";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["test"] => steps::test(&root()),
        ["determinism"] => determinism::check(&root()),
        ["--help" | "-h" | "help"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace.
fn root() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}
