//! `processor check`: everything that exactly-once needs, with a verdict and the fix.

mod brokers;
mod permissions;
mod store;

use super::FAILED;
use super::cluster::Cluster;
use super::config::ConfigArgs;
use super::requirements::Purpose;
use super::topics::examine;
use super::verdict::{Finding, Verdict, print, worst};
use clap::Args;
use processor::config::ProcessorConfig;
use std::process::ExitCode;

const HELP: &str = "\
Each line has a verdict: ok; risky (it works until something fails that should be survived: a development cluster,
a short retention); wrong (exactly-once, or any work, is not possible). Exit status 1 if something is wrong.

What it does besides reading: it registers the transactional.id GROUP-check, sends one record to the output and
the dead-letter topic in a transaction and aborts it (nobody reads such records), and creates and deletes one
object in the checkpoint store.

Example:
  processor check --config processor.toml";

/// Examines configuration, brokers, topics, permissions and the checkpoint store.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Prints JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?;
    let mut findings = configuration(&config);
    findings.extend(store::examine(&config)?);
    match Cluster::connect(&config.kafka) {
        Ok(cluster) => findings.extend(of_cluster(&cluster, &config)),
        Err(error) => findings.push(Finding::new(
            Verdict::Wrong,
            "cluster",
            "reachable",
            "no",
            format!("{error:#}"),
        )),
    }
    print(&findings, args.json)?;
    Ok(match worst(&findings) {
        Verdict::Wrong => ExitCode::from(FAILED),
        _ => ExitCode::SUCCESS,
    })
}

/// What can be said of the file alone; what is wrong in it has been told before.
fn configuration(config: &ProcessorConfig) -> Vec<Finding> {
    let about = "configuration";
    let mut findings = vec![Finding::ok(about, "file", "valid")];
    let url = &config.checkpoint.url;
    if url == "memory:///" {
        let fix = "every start replays the whole log; set checkpoint.url to \"s3://bucket\", or to \"file:///folder\" \
                   if all workers run on one machine";
        findings.push(Finding::new(
            Verdict::Risky,
            about,
            "checkpoint.url",
            url,
            fix,
        ));
    } else if url.starts_with("file:") {
        let fix =
            "nothing, if all workers of the group run on this machine; otherwise \"s3://bucket\"";
        findings.push(Finding::new(
            Verdict::Risky,
            about,
            "checkpoint.url",
            url,
            fix,
        ));
    } else {
        findings.push(Finding::ok(about, "checkpoint.url", url));
    }
    let timeout_ms = config.kafka.transaction_timeout_ms;
    let property = "kafka.transaction_timeout_ms";
    findings.push(if timeout_ms > 60_000 {
        let fix = "readers stand still this long when a worker dies in a commit; set it to 15000";
        Finding::new(Verdict::Risky, about, property, timeout_ms, fix)
    } else {
        Finding::ok(about, property, timeout_ms)
    });
    findings
}

/// A question that is not answered is a finding, too.
fn of_cluster(cluster: &Cluster, config: &ProcessorConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |about: &str, found: anyhow::Result<Vec<Finding>>| match found {
        Ok(found) => findings.extend(found),
        Err(error) => {
            let fix = "allow this client to Describe and DescribeConfigs, and start the brokers";
            let found = format!("{error:#}");
            findings.push(Finding::new(Verdict::Wrong, about, "readable", found, fix));
        }
    };
    add("brokers", brokers::examine(cluster, config));
    for purpose in Purpose::ALL {
        let about = format!("topic {}", purpose.topic(config));
        add(&about, examine(cluster, purpose, config));
    }
    add("input", brokers::workers(cluster, config));
    add("group", permissions::group(cluster, config));
    add("transactions", permissions::transactions(cluster, config));
    findings
}
