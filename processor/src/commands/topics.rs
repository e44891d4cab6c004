//! `processor topics`: the topics that the processor needs.

use super::FAILED;
use super::cluster::{Cluster, Created};
use super::config::ConfigArgs;
use super::requirements::{Purpose, judge, settings};
use super::verdict::{Finding, Verdict, print, worst};
use anyhow::bail;
use clap::{Args, Subcommand};
use processor::config::ProcessorConfig;
use std::process::ExitCode;

/// Creates the topics, or shows how they are set up.
#[derive(Debug, Args)]
pub struct TopicsArgs {
    #[command(subcommand)]
    command: TopicsCommand,
}

#[derive(Debug, Subcommand)]
enum TopicsCommand {
    Create(CreateArgs),
    Describe(DescribeArgs),
}

const CREATE_HELP: &str = "\
Creates the input, output and dead-letter topics, and the ledger of `dlq replay`, with what exactly-once
needs: min.insync.replicas 2 (with three replicas), no unclean elections, room for the largest message. A
topic that exists is left as it is, and judged. Exit status 1 if something is wrong.

Example:
  processor topics create --config processor.toml --partitions 6";

/// Creates the topics that are not there.
#[derive(Debug, Args)]
#[command(after_help = CREATE_HELP)]
struct CreateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Partitions of the input, output and dead-letter topics; fixed for good once records are processed
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,
    /// Copies of each partition; at most as many as brokers
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=100))]
    replication_factor: i32,
    /// Prints JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Shows and judges the topics.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  processor topics describe --config processor.toml")]
struct DescribeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Prints JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub fn topics(args: &TopicsArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        TopicsCommand::Create(args) => create(args),
        TopicsCommand::Describe(args) => {
            let config = args.config.load()?;
            let cluster = Cluster::connect(&config.kafka)?;
            let mut findings = Vec::new();
            for purpose in Purpose::ALL {
                findings.extend(examine(&cluster, purpose, &config)?);
            }
            conclude(&findings, args.json)
        }
    }
}

fn create(args: &CreateArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?;
    let cluster = Cluster::connect(&config.kafka)?;
    let brokers = cluster.brokers()?.len();
    if usize::try_from(args.replication_factor).is_ok_and(|copies| copies > brokers) {
        bail!(
            "--replication-factor {}: there are {brokers} brokers; start more, or give at most that (below 3 for \
             development only)",
            args.replication_factor
        );
    }
    let mut findings = Vec::new();
    for purpose in Purpose::ALL {
        let partitions = match purpose {
            Purpose::Replays => 1, // one operator at a time writes it, in one order
            _ => args.partitions,
        };
        let name = purpose.topic(&config);
        let settings = settings(purpose, args.replication_factor, &config);
        let created = cluster.create(&name, partitions, args.replication_factor, &settings)?;
        cluster.wait_for_leaders(&name)?;
        findings.push(told(&name, partitions, created, &cluster)?);
        findings.extend(examine(&cluster, purpose, &config)?);
    }
    conclude(&findings, args.json)
}

fn told(
    name: &str,
    partitions: i32,
    created: Created,
    cluster: &Cluster,
) -> anyhow::Result<Finding> {
    let about = format!("topic {name}");
    if created == Created::Now {
        return Ok(Finding::ok(&about, "existence", "created now"));
    }
    let found = cluster.topic(name)?.map_or(0, |topic| topic.partitions);
    if found == partitions {
        return Ok(Finding::ok(&about, "existence", "was there"));
    }
    let text = format!("was there, with {found} partitions instead of {partitions}");
    let fix = "nothing, if that is meant: partitions of a topic in use cannot change, because keys would move";
    Ok(Finding::new(Verdict::Risky, &about, "existence", text, fix))
}

/// Judges one topic, also when it is not there.
///
/// # Errors
/// When the brokers do not answer or refuse to tell.
pub fn examine(
    cluster: &Cluster,
    purpose: Purpose,
    config: &ProcessorConfig,
) -> anyhow::Result<Vec<Finding>> {
    let name = purpose.topic(config);
    let Some(topic) = cluster.topic(&name)? else {
        let about = format!("topic {name}");
        // Only `dlq replay` needs its ledger.
        let verdict = match purpose {
            Purpose::Replays => Verdict::Risky,
            _ => Verdict::Wrong,
        };
        let fix = "processor topics create --config FILE";
        return Ok(vec![Finding::new(
            verdict,
            &about,
            "existence",
            "missing",
            fix,
        )]);
    };
    let settings = cluster.topic_settings(&name)?;
    Ok(judge(purpose, &topic, &settings, config))
}

fn conclude(findings: &[Finding], as_json: bool) -> anyhow::Result<ExitCode> {
    print(findings, as_json)?;
    Ok(match worst(findings) {
        Verdict::Wrong => ExitCode::from(FAILED),
        _ => ExitCode::SUCCESS,
    })
}
