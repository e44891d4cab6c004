//! The configuration file, as the commands take it.

use anyhow::Context;
use clap::Args;
use processor::config::{ProcessorConfig, parse_overrides};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options that every command with a configuration has.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Configuration file; `processor config` prints a complete one
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Sets one key over the file, for example `--set kafka.bootstrap_servers=broker:9092`; may be given
    /// several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

impl ConfigArgs {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// Everything that is wrong with it, with its path.
    pub fn load(&self) -> anyhow::Result<ProcessorConfig> {
        self.load_for(None)
    }

    /// As [`ConfigArgs::load`], for the worker with this ordinal.
    ///
    /// # Errors
    /// As there.
    pub fn load_for(&self, ordinal: Option<u32>) -> anyhow::Result<ProcessorConfig> {
        let path = self.config.display();
        let text = std::fs::read_to_string(&self.config).with_context(|| {
            format!(
                "--config {path}: cannot be read; `processor config > {path}` writes an example"
            )
        })?;
        let ordinal = ordinal.map(|ordinal| format!("worker.ordinal={ordinal}"));
        let words = self.overrides.iter().chain(&ordinal);
        let table = parse_overrides(words.map(String::as_str))?;
        ProcessorConfig::with_overrides(&text, &table).with_context(|| path.to_string())
    }
}

/// Prints a complete configuration file with every key, its meaning and its default.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  processor config > processor.toml")]
pub struct PrintArgs {}

pub fn print(_: &PrintArgs) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(ProcessorConfig::example().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
