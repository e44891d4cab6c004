//! `processor state`: the state of a partition at any retained checkpoint.

use super::config::ConfigArgs;
use super::stores;
use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use object_store::ObjectStore;
use processor::checkpoints::{self, CheckpointInfo, Place};
use processor::config::ProcessorConfig;
use processor::core::PartitionTask;
use processor::units::{PartitionId, Watermark};
use serde_json::{Value, json};
use std::io::{BufWriter, ErrorKind, Write};
use std::process::ExitCode;

/// Looks into checkpoints.
#[derive(Debug, Args)]
pub struct StateArgs {
    #[command(subcommand)]
    command: StateCommand,
}

#[derive(Debug, Subcommand)]
enum StateCommand {
    Dump(DumpArgs),
}

const HELP: &str = "\
The first line tells where the partition stands: offset, watermark, digest, counters. Each further line is one
window: its exact sums, prices, the hash of its events and how many ids it remembers. Sums are text, because a
double could not hold them.

It reads the checkpoint store and nothing else, and changes nothing; the processor may run or not.

Examples:
  processor state dump --config processor.toml --partition 0 --list
  processor state dump --config processor.toml --partition 0";

/// Prints a partition's state as JSON lines.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
struct DumpArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Partition of the input topic
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// Id of the checkpoint, instead of the newest one
    #[arg(long, value_name = "ID", conflicts_with = "list")]
    checkpoint: Option<String>,
    /// Lists the checkpoints that there are, instead
    #[arg(long)]
    list: bool,
}

pub fn state(args: &StateArgs) -> anyhow::Result<ExitCode> {
    let StateCommand::Dump(args) = &args.command;
    let config = args.config.load()?;
    let objects = stores::checkpoints(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let lines = runtime.block_on(lines(args, &config, &*objects))?;
    print(&lines)?;
    Ok(ExitCode::SUCCESS)
}

async fn lines(
    args: &DumpArgs,
    config: &ProcessorConfig,
    objects: &dyn ObjectStore,
) -> anyhow::Result<Vec<Value>> {
    let place = Place::of(config, PartitionId(args.partition));
    let infos = checkpoints::list(objects, &place).await?;
    if args.list {
        return Ok(infos.iter().map(listed).collect());
    }
    let info = choose(args, &infos, &place)?;
    let core = config.core_config();
    let task = checkpoints::load(objects, &place, &info.id, core)
        .await
        .with_context(|| format!("checkpoint {}", info.id))?;
    let mut lines = vec![summary(info, &task)];
    for window in task.windows() {
        lines.push(serde_json::to_value(window)?);
    }
    Ok(lines)
}

/// The checkpoint that was asked for.
fn choose<'a>(
    args: &DumpArgs,
    infos: &'a [CheckpointInfo],
    place: &Place,
) -> anyhow::Result<&'a CheckpointInfo> {
    let Some(newest) = infos.last() else {
        return Err(anyhow!(
            "there is no checkpoint of partition {} below {}: is it the right partition, checkpoint.url, \
             checkpoint.prefix, kafka.group_id and kafka.input_topic?",
            args.partition,
            place.folder()
        ));
    };
    let Some(wanted) = &args.checkpoint else {
        return Ok(newest);
    };
    infos.iter().find(|info| info.id == *wanted).ok_or_else(|| {
        anyhow!(
            "--checkpoint {wanted}: there is none of this id; `--list` shows all {} of them",
            infos.len()
        )
    })
}

fn listed(info: &CheckpointInfo) -> Value {
    json!({
        "checkpoint": info.id,
        "offset": info.offset,
        "made_unix_ms": info.made_unix_ms,
        "term": info.term,
        "owner": info.owner,
        "fingerprint": info.fingerprint,
        "files": info.files,
        "bytes": info.bytes,
    })
}

fn summary(info: &CheckpointInfo, task: &PartitionTask) -> Value {
    let counters = task.counters();
    let watermark = Some(task.watermark()).filter(|watermark| *watermark != Watermark::NONE);
    let mut summary = listed(info);
    summary["watermark"] = json!(watermark);
    summary["digest"] = json!(task.digest().to_string());
    summary["next_sequence"] = json!(task.next_sequence());
    summary["ids"] = json!(task.live_ids());
    summary["counters"] = json!({
        "records": counters.records,
        "accepted": counters.accepted,
        "duplicates": counters.duplicates,
        "dead_letters": counters.dead_letters,
        "results": counters.results,
    });
    summary
}

fn print(lines: &[Value]) -> std::io::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut write = || -> std::io::Result<()> {
        for line in lines {
            writeln!(out, "{line}")?;
        }
        out.flush()
    };
    match write() {
        // A reader such as `head` that has seen enough is no error.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}
