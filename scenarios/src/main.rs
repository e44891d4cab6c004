//! The binary `tickproof`: see [`scenarios::command`].

use clap::Parser;
use scenarios::command::{Arguments, EXIT_USAGE, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}
