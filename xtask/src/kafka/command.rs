//! `cargo xtask kafka …`: the same by hand.

use super::{
    Broker, BrokerState, Cluster, DEFAULT_NAME, NEWEST, NEWEST_3, Options, Version, down, hint,
};
use crate::{process, say};
use clap::{Args, Subcommand};
use std::path::Path;

/// A real Kafka cluster on this machine.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a cluster, or what of it does not run, and wait until it is ready
    #[command(after_help = format!("\
Apache Kafka comes from Maven Central (needs `mvn` and Java 17). Everything is in target/kafka/NAME;
addresses are in cluster.json. `--version 4` is {NEWEST}, `--version 3.9` is {NEWEST_3}.

Examples:
  cargo xtask kafka up
  cargo xtask kafka up --version 3.9 --name old
  cargo xtask kafka up --brokers 1 --name small --set log.segment.bytes=1048576
  cargo xtask kafka up --name contract --forgetful"))]
    Up {
        /// How many brokers; each is a controller too [default: 3]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(super::BROKERS_MAX)))]
        brokers: Option<u32>,
        /// Version of Apache Kafka [default: the newest 4.x that is pinned]
        #[arg(long)]
        version: Option<Version>,
        /// A property of the brokers, as KEY=VALUE; may be given many times
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = property)]
        properties: Vec<String>,
        /// Brokers forget after a minute what nobody uses: ids, producers, offsets
        #[arg(long)]
        forgetful: bool,
        /// Which cluster.
        #[command(flatten)]
        cluster: Name,
    },
    /// Kill all brokers and remove their data
    #[command(after_help = "\
Examples:
  cargo xtask kafka down
  cargo xtask kafka down --name old")]
    Down {
        /// Which cluster.
        #[command(flatten)]
        cluster: Name,
    },
    /// Kill brokers with SIGKILL, as a power failure would
    #[command(after_help = "\
Examples:
  cargo xtask kafka kill 2
  cargo xtask kafka kill 1 3 --name old")]
    Kill(Brokers),
    /// Stop brokers in order (SIGTERM): they hand over what they lead
    #[command(after_help = "\
Example:
  cargo xtask kafka stop 2")]
    Stop(Brokers),
    /// Start brokers that were killed or stopped, and wait until they are ready
    #[command(after_help = "\
Example:
  cargo xtask kafka start 2")]
    Start(Brokers),
    /// Hold brokers with SIGSTOP: connections stay open, nothing answers
    #[command(after_help = "\
Example:
  cargo xtask kafka pause 2")]
    Pause(Brokers),
    /// Let paused brokers go on (SIGCONT)
    #[command(after_help = "\
Example:
  cargo xtask kafka resume 2")]
    Resume(Brokers),
    /// Show all brokers: state, process, memory, ports
    #[command(after_help = "\
Examples:
  cargo xtask kafka status
  cargo xtask kafka status --name old
  cargo xtask kafka status --bootstrap-servers")]
    Status {
        /// Print only where clients connect: host:port, separated by commas
        #[arg(long)]
        bootstrap_servers: bool,
        /// Which cluster.
        #[command(flatten)]
        cluster: Name,
    },
}

/// Which cluster.
#[derive(Debug, Args)]
pub struct Name {
    /// Name of the cluster: small letters, digits, hyphens
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
}

/// Which brokers of which cluster.
#[derive(Debug, Args)]
pub struct Brokers {
    /// Ids of brokers, from 1
    #[arg(required = true, value_name = "N")]
    ids: Vec<u32>,
    /// Which cluster.
    #[command(flatten)]
    cluster: Name,
}

fn property(text: &str) -> anyhow::Result<String> {
    super::properties::parse(text)?;
    Ok(text.to_owned())
}

/// Does what the command says, in the workspace at `root`.
///
/// # Errors
/// Those of the operation.
pub fn run(root: &Path, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up {
            brokers,
            version,
            properties,
            forgetful,
            cluster,
        } => {
            let options = Options {
                name: cluster.name,
                brokers,
                version,
                properties,
            };
            let options = match forgetful {
                true => options.forgetful(),
                false => options,
            };
            up(root, &options)
        }
        Command::Down { cluster } => {
            if down(root, &cluster.name)? {
                say!("cluster `{}` is down, its data removed", cluster.name);
            } else {
                say!("there is no cluster `{}`: nothing to do", cluster.name);
            }
            Ok(())
        }
        Command::Kill(brokers) => each(root, &brokers, Cluster::kill),
        Command::Stop(brokers) => each(root, &brokers, Cluster::stop),
        Command::Start(brokers) => {
            each(root, &brokers, Cluster::start)?;
            let mut cluster = Cluster::open(root, &brokers.cluster.name)?;
            if let Err(e) = cluster.check_majority() {
                say!("not ready yet: {e}");
                return Ok(());
            }
            cluster.wait_ready()
        }
        Command::Pause(brokers) => each(root, &brokers, Cluster::pause),
        Command::Resume(brokers) => each(root, &brokers, Cluster::resume),
        Command::Status {
            bootstrap_servers,
            cluster,
        } => {
            let mut cluster = Cluster::open(root, &cluster.name)?;
            if bootstrap_servers {
                say!("{}", cluster.manifest().bootstrap_servers);
                return Ok(());
            }
            show(&mut cluster)
        }
    }
}

fn up(root: &Path, options: &Options) -> anyhow::Result<()> {
    let ran_before = Cluster::open(root, &options.name).is_ok_and(|cluster| {
        let mut brokers = cluster.manifest().brokers.iter();
        brokers.all(|broker| broker.state == BrokerState::Running)
    });
    if !ran_before {
        say!("starting cluster `{}`", options.name);
    }
    let mut cluster = Cluster::up(root, options)?;
    if ran_before {
        say!("cluster `{}` is up already", options.name);
    }
    show(&mut cluster)
}

fn each(
    root: &Path,
    brokers: &Brokers,
    operation: fn(&mut Cluster, u32) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut cluster = Cluster::open(root, &brokers.cluster.name)?;
    for id in &brokers.ids {
        operation(&mut cluster, *id)?;
    }
    let listed = cluster.manifest().brokers.iter();
    for broker in listed.filter(|broker| brokers.ids.contains(&broker.id)) {
        say!("broker {}: {}", broker.id, word(broker.state));
    }
    Ok(())
}

fn show(cluster: &mut Cluster) -> anyhow::Result<()> {
    let path = cluster.manifest_path();
    cluster.status()?;
    let manifest = cluster.manifest();
    say!(
        "Apache Kafka {}, cluster `{}`",
        manifest.version,
        manifest.name
    );
    say!(
        "{:>6}  {:<8} {:<8} {:>8} {:>8}  {:>6} {:>8} {:>11}",
        "broker",
        "state",
        "answers",
        "pid",
        "memory",
        "port",
        "proxied",
        "advertised"
    );
    for broker in &manifest.brokers {
        say!("{}", row(broker));
    }
    say!("bootstrap servers: {}", manifest.bootstrap_servers);
    say!("written to:        {}", path.display());
    say!("end it by:         {}", hint("down", &manifest.name));
    Ok(())
}

fn row(broker: &Broker) -> String {
    let answers = if Cluster::answers(broker) {
        "yes"
    } else {
        "no"
    };
    let pid = broker
        .pid
        .map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let memory = broker.pid.and_then(process::resident_kib);
    let memory = memory.map_or_else(|| "-".to_owned(), |kib| format!("{} MiB", kib / 1024));
    format!(
        "{:>6}  {:<8} {:<8} {:>8} {:>8}  {:>6} {:>8} {:>11}",
        broker.id,
        word(broker.state),
        answers,
        pid,
        memory,
        broker.port,
        broker.proxied_port,
        broker.advertised_port
    )
}

fn word(state: BrokerState) -> &'static str {
    match state {
        BrokerState::Running => "running",
        BrokerState::Paused => "paused",
        BrokerState::Killed => "killed",
    }
}
