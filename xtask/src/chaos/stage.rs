//! Where chaos happens: a cluster of its own, the proxy before it, an object store, and the binaries.
//!
//! Comes in: the workspace. Goes out: all of it running. Never here: faults.

use super::cluster_view::View;
use super::fault::Limits;
use super::proxy::Proxy;
use crate::kafka::{Cluster, Options};
use crate::{process, s3};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The cluster's name.
pub const CLUSTER: &str = "chaos";
/// Short ones, so that a round is short.
pub const LIMITS: Limits = Limits {
    group_session_ms: 3_000,
    transaction_ms: 5_000,
    broker_session_ms: 4_000,
};
/// Topics of Kafka that processors depend on.
const INTERNAL: [&str; 2] = ["__consumer_offsets", "__transaction_state"];
/// How long a broker's copies may take to be in sync again.
const WHOLE_LIMIT: Duration = Duration::from_secs(180);

/// Where the processors keep their checkpoints.
#[derive(Debug, Clone)]
pub struct Objects {
    /// As in `checkpoint.url`.
    pub url: String,
    /// Section `[checkpoint.s3]`, if there is one.
    pub section: String,
    /// What the processes need in their environment.
    pub environment: Vec<(String, String)>,
}

/// All of it.
#[derive(Debug)]
pub struct Stage {
    root: PathBuf,
    /// Everything that this run writes, but for the cluster and the S3 server.
    pub folder: PathBuf,
    /// What this run is called in names of topics and groups.
    pub name: String,
    /// The cluster.
    pub cluster: Cluster,
    /// The cluster from outside.
    pub view: View,
    /// The proxy before all brokers.
    pub proxy: Proxy,
    /// The binary `processor`.
    pub processor: PathBuf,
    /// The binary `tickproof`, with `audit`.
    pub tickproof: PathBuf,
    /// Where checkpoints go.
    pub objects: Objects,
    /// What is not to be left running.
    ends_s3: bool,
    /// Held while the stage stands: a second one would end this one's cluster.
    _lock: File,
}

impl Stage {
    /// Builds the binaries, unless there is a folder to take them from, and starts everything. A cluster
    /// that is left from an earlier run is begun anew.
    ///
    /// # Errors
    /// When something cannot be built or started.
    pub fn set(
        root: &Path,
        seed: u64,
        binaries: Option<&Path>,
        wants_s3: bool,
    ) -> anyhow::Result<Stage> {
        let lock = only_one(root)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let name = format!("chaos-{seed}-{}", since.as_secs());
        let folder = root.join("target/chaos").join(&name);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let built = root.join("target/release");
        if binaries.is_none() {
            build(root, "processor", &[])?;
            build(root, "scenarios", &["--features", "kafka"])?;
        }
        // Copies: a build that is run meanwhile does not change what is on trial.
        let from = binaries.unwrap_or(&built);
        let processor = copy(from, "processor", &folder)?;
        let tickproof = copy(from, "tickproof", &folder)?;
        crate::kafka::down(root, CLUSTER)?;
        let cluster = Cluster::up(root, &options())?;
        let brokers = &cluster.manifest().brokers;
        let ports = brokers
            .iter()
            .map(|b| anyhow::Ok((i32::try_from(b.id)?, b.port)))
            .collect::<anyhow::Result<BTreeMap<i32, u16>>>()?;
        let proxied: Vec<(u16, u16)> = brokers
            .iter()
            .map(|b| (b.advertised_port, b.proxied_port))
            .collect();
        let ends_s3 = wants_s3 && s3::status(root)?.is_none_or(|server| server.pid.is_none());
        let objects = if wants_s3 {
            in_s3(&s3::up(root)?)
        } else {
            in_folder(&folder)?
        };
        Ok(Stage {
            root: root.to_owned(),
            view: View::new(ports),
            proxy: Proxy::start(&proxied)?,
            folder,
            name,
            cluster,
            processor,
            tickproof,
            objects,
            ends_s3,
            _lock: lock,
        })
    }

    /// Waits until every broker runs and every copy of these topics, and of Kafka's own, is in sync.
    ///
    /// # Errors
    /// When that does not happen in time.
    pub fn wait_whole(&mut self, topics: &[&str]) -> anyhow::Result<()> {
        self.cluster.wait_ready()?;
        let topics: Vec<&str> = topics.iter().chain(&INTERNAL).copied().collect();
        let is_whole = process::wait_until(WHOLE_LIMIT, || {
            // A broker that does not answer yet makes nothing whole.
            Ok(self.view.is_whole(&topics).unwrap_or(false))
        })?;
        if !is_whole {
            let limit = WHOLE_LIMIT.as_secs();
            bail!(
                "after {limit} s not every copy is in sync; see: cargo xtask kafka status --name {CLUSTER}"
            );
        }
        Ok(())
    }

    /// How many partitions of these topics, and of Kafka's own, that broker leads.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn led_by(&self, broker: u32, topics: &[&str]) -> anyhow::Result<usize> {
        led_by(&self.view, broker, topics)
    }

    /// Ends what this run has started, and removes what it wrote.
    ///
    /// # Errors
    /// When something cannot be ended or removed.
    pub fn clear(self) -> anyhow::Result<()> {
        self.cluster.down()?;
        if self.ends_s3 {
            s3::down(&self.root)?;
        }
        fs::remove_dir_all(&self.folder).with_context(|| self.folder.display().to_string())
    }
}

/// A broker that came back leads again soon: what is done to it then matters.
fn options() -> Options {
    let properties = [
        "leader.imbalance.check.interval.seconds=2",
        "leader.imbalance.per.broker.percentage=0",
    ];
    Options {
        properties: properties.map(str::to_owned).to_vec(),
        ..Options::named(CLUSTER)
    }
}

/// As [`Stage::led_by`].
///
/// # Errors
/// As there.
pub fn led_by(view: &View, broker: u32, topics: &[&str]) -> anyhow::Result<usize> {
    let broker = i32::try_from(broker)?;
    let mut count = 0;
    for topic in topics.iter().chain(&INTERNAL) {
        let copies = view.copies(topic)?;
        count += copies.iter().filter(|of| of.leader == broker).count();
    }
    Ok(count)
}

/// The right to a stage, for as long as the file is open.
fn only_one(root: &Path) -> anyhow::Result<File> {
    let folder = root.join("target/chaos");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another chaos run uses the cluster `{CLUSTER}`: wait for its end, or end it")
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn build(root: &Path, package: &str, options: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--package", package])
        .args(options)
        .current_dir(root)
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("{package} cannot be built; see above");
    }
    Ok(())
}

fn copy(from: &Path, program: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let from = from.join(program);
    let to = folder.join(program);
    fs::copy(&from, &to).with_context(|| from.display().to_string())?;
    Ok(to)
}

fn in_s3(server: &s3::Server) -> Objects {
    let environment = [
        ("AWS_ACCESS_KEY_ID", &server.access_key),
        ("AWS_SECRET_ACCESS_KEY", &server.secret_key),
    ];
    let (endpoint, region) = (&server.endpoint, &server.region);
    Objects {
        url: format!("s3://{}", server.bucket),
        section: format!(
            "[checkpoint.s3]\nendpoint = \"{endpoint}\"\nregion = \"{region}\"\nallow_http = true\n"
        ),
        environment: environment
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .to_vec(),
    }
}

fn in_folder(folder: &Path) -> anyhow::Result<Objects> {
    let objects = folder.join("checkpoints");
    fs::create_dir_all(&objects)?;
    Ok(Objects {
        url: format!("file://{}", objects.display()),
        section: String::new(),
        environment: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_refused_until_the_first_has_ended() {
        let root = tempfile::tempdir().unwrap();
        let first = only_one(root.path()).unwrap();
        let refused = only_one(root.path()).unwrap_err().to_string();
        assert!(refused.contains("another chaos run"), "{refused}");
        drop(first);
        only_one(root.path()).unwrap();
    }
}
