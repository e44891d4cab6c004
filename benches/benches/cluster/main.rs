//! The binary `processor` on a genuine Kafka cluster: throughput, latency, recovery.
//!
//! Comes in: the cluster of `cargo xtask kafka up`, and `target/release/processor`. Goes out: a table
//! for each, with the limit it is held against from the same run.
//!
//! ```text
//! cargo xtask kafka up
//! cargo build --release -p processor
//! cargo bench -p benches --features cluster --bench cluster [-- throughput latency recovery]
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark of the production binary: real time, real threads, real processes"
)]

mod events;
mod latency;
mod recovery;
mod setup;
mod throughput;

use setup::Cluster;

fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let cluster = Cluster::find()?;
    println!(
        "Kafka {} with {} brokers on this machine, replication factor 3, min.insync.replicas 2",
        cluster.version, cluster.brokers
    );
    if wants("throughput") {
        throughput::run(&cluster)?;
    }
    if wants("latency") {
        latency::run(&cluster)?;
    }
    if wants("recovery") {
        recovery::run(&cluster)?;
    }
    Ok(())
}
