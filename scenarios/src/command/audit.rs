//! `tickproof audit`.

use super::{AuditArguments, EXIT_FAILED, print, print_json};
use crate::audit::kafka::KafkaCluster;
use crate::audit::{self, Order, Progress};
use crate::runner::rules;
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use processor::config::{ProcessorConfig, parse_overrides};
use properties::spill::Scratch;
use std::fs;
use std::process::ExitCode;

/// Sorters that hold something at the same time: four of outputs, two or three of the input.
const SORTERS: usize = 7;

pub(super) fn audit(arguments: &AuditArguments, json: bool) -> anyhow::Result<ExitCode> {
    let path = &arguments.config;
    let text = fs::read_to_string(path).with_context(|| {
        format!(
            "{}: give the processor's configuration file by --config",
            path.display()
        )
    })?;
    let overrides = parse_overrides(arguments.overrides.iter().map(String::as_str))?;
    let config = ProcessorConfig::with_overrides(&text, &overrides)
        .with_context(|| path.display().to_string())?;
    let scratch = arguments.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let kafka = &config.kafka;
    let order = Order {
        rules: rules(&config),
        group: kafka.group_id.clone(),
        topics: [
            kafka.input_topic.clone(),
            kafka.output_topic.clone(),
            kafka.dead_letter_topic.clone(),
        ],
        complete: arguments.complete,
        hidden_ms_max: arguments.hidden_s.saturating_mul(1_000),
        clock_error_ms: arguments.clock_error_s.saturating_mul(1_000),
        scratch: Scratch::folder(
            scratch,
            arguments.memory_mib.saturating_mul(1 << 20) / SORTERS,
        ),
    };
    let mut cluster = KafkaCluster::new(kafka)?;
    let mut bar = Bar(progress_bar());
    let report = audit::audit(&order, &mut cluster, &mut bar)?;
    bar.0.finish_and_clear();
    if json {
        print_json(&report)?;
    } else {
        print(&report.text())?;
    }
    Ok(if report.held() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}

/// Draws on standard error, and only on a terminal.
fn progress_bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:40} {pos} of {len} offsets, {per_sec}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

struct Bar(ProgressBar);

impl Progress for Bar {
    fn total(&mut self, offsets: u64) {
        self.0.set_length(offsets);
    }

    fn advance(&mut self, offsets: u64) {
        self.0.inc(offsets);
    }
}
