//! The configuration file, as the commands take it.

use anyhow::{Context, anyhow};
use clap::Args;
use processor::config::ProcessorConfig;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use toml::{Table, Value};

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
        let mut table = Table::new();
        for one in &self.overrides {
            lay_over(&mut table, one)?;
        }
        if let Some(ordinal) = ordinal {
            lay_over(&mut table, &format!("worker.ordinal={ordinal}"))?;
        }
        ProcessorConfig::with_overrides(&text, &table).with_context(|| path.to_string())
    }
}

/// Puts `key.of.a.section=value` into a table. A value that is not TOML is a text.
fn lay_over(table: &mut Table, one: &str) -> anyhow::Result<()> {
    let wrong = || anyhow!("--set {one}: write it as section.key=value, e.g. kafka.group_id=ticks");
    let (key, value) = one.split_once('=').ok_or_else(wrong)?;
    let (sections, key) = key.trim().rsplit_once('.').ok_or_else(wrong)?;
    let mut at = table;
    for section in sections.split('.') {
        let inner = at
            .entry(section)
            .or_insert_with(|| Value::Table(Table::new()));
        at = inner.as_table_mut().ok_or_else(wrong)?;
    }
    let value = value.trim();
    let parsed = format!("value = {value}").parse::<Table>();
    let value = match parsed.ok().and_then(|mut table| table.remove("value")) {
        Some(value) => value,
        None => Value::String(value.to_owned()),
    };
    at.insert(key.to_owned(), value);
    Ok(())
}

/// Prints a complete configuration file with every key, its meaning and its default.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  processor config > processor.toml")]
pub struct PrintArgs {}

pub fn print(_: &PrintArgs) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(ProcessorConfig::example().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_are_toml_where_they_can_be_and_text_otherwise() {
        let mut table = Table::new();
        for one in [
            "kafka.bootstrap_servers=b1:9092,b2:9092",
            "kafka.properties.socket_keepalive=true",
            "worker.count = 3",
            "recovery.accept_reset_partitions=[1, 2]",
            "kafka.group_id=\"7\"",
        ] {
            lay_over(&mut table, one).expect("it is well-formed");
        }
        let expected = "
            [kafka]
            bootstrap_servers = 'b1:9092,b2:9092'
            group_id = '7'
            properties = { socket_keepalive = true }
            [worker]
            count = 3
            [recovery]
            accept_reset_partitions = [1, 2]
        ";
        assert_eq!(table, expected.parse::<Table>().expect("it is TOML"));
    }

    #[test]
    fn an_override_without_a_section_or_value_is_refused() {
        for one in ["kafka", "group_id=x", "kafka.group_id"] {
            let error = lay_over(&mut Table::new(), one).expect_err("it is wrong");
            assert!(error.to_string().contains("section.key=value"), "{error}");
        }
    }
}
