//! `processor dlq`: the dead letters.

mod filter;
mod ledger;
mod letter;
mod list;
mod replay;
mod replayer;

use super::cluster::Cluster;
use super::reader::TopicReader;
use super::requirements::replays_topic;
use clap::{Args, Subcommand};
use ledger::Ledger;
use processor::config::ProcessorConfig;
use std::process::ExitCode;

/// Lists, shows and replays dead letters.
#[derive(Debug, Args)]
pub struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    List(list::ListArgs),
    Show(list::ShowArgs),
    Replay(replay::ReplayArgs),
}

pub fn dlq(args: &DlqArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        DlqCommand::List(args) => list::list(args),
        DlqCommand::Show(args) => list::show(args),
        DlqCommand::Replay(args) => replay::replay(args),
    }
}

/// The ledger as it is now; empty where there is none.
fn present_ledger(config: &ProcessorConfig) -> anyhow::Result<Ledger> {
    let topic = replays_topic(config);
    let mut ledger = Ledger::default();
    if Cluster::connect(&config.kafka)?.topic(&topic)?.is_some() {
        ledger.catch_up(&mut TopicReader::new(&config.kafka, &topic)?)?;
    }
    Ok(ledger)
}
