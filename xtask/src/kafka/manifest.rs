//! `cluster.json`: what a cluster is, for people and for programs that want to reach it.

use super::version::Version;
use crate::files;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The name of the cluster that commands mean when they name none.
pub const DEFAULT_NAME: &str = "main";
/// The name of the file.
const FILE: &str = "cluster.json";

/// What a broker's process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BrokerState {
    /// Its process runs.
    Running,
    /// Its process is stopped by SIGSTOP.
    Paused,
    /// It has no process.
    Killed,
}

/// A combined broker and controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    /// Its `node.id`, from 1.
    pub id: u32,
    /// Where clients reach it directly. All ports are on 127.0.0.1.
    pub port: u16,
    /// Where its second listener, PROXIED, listens: a proxy connects to it.
    pub proxied_port: u16,
    /// What the PROXIED listener tells clients: where the proxy listens for this broker.
    pub advertised_port: u16,
    /// Where the other controllers reach it.
    pub controller_port: u16,
    /// Its process, if it has one.
    pub pid: Option<u32>,
    /// What the process does.
    pub state: BrokerState,
    /// Its configuration (`server.properties`), output (`server.log`) and data.
    pub folder: PathBuf,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What its commands call it.
    pub name: String,
    /// The version of Apache Kafka.
    pub version: String,
    /// Kafka's id of the cluster.
    pub cluster_id: String,
    /// For clients: all brokers, whether they run or not.
    pub bootstrap_servers: String,
    /// For clients behind a proxy: the advertised addresses of the PROXIED listeners.
    pub proxied_bootstrap_servers: String,
    /// Properties that were added, or set otherwise than by default: `key=value`.
    pub properties: Vec<String>,
    /// All brokers, by id.
    pub brokers: Vec<Broker>,
}

impl Manifest {
    /// The version of Apache Kafka.
    ///
    /// # Errors
    /// When the file was edited so that it names none.
    pub fn kafka_version(&self) -> anyhow::Result<Version> {
        self.version.parse()
    }

    /// Fills in both lists of addresses from the brokers.
    pub fn set_bootstrap_servers(&mut self) {
        let join = |port: fn(&Broker) -> u16| {
            let addresses = self
                .brokers
                .iter()
                .map(|b| format!("127.0.0.1:{}", port(b)));
            addresses.collect::<Vec<_>>().join(",")
        };
        let direct = join(|broker| broker.port);
        let proxied = join(|broker| broker.advertised_port);
        self.bootstrap_servers = direct;
        self.proxied_bootstrap_servers = proxied;
    }
}

/// Where a cluster's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    clusters: PathBuf,
    name: String,
}

impl Place {
    /// The place of the cluster `name` below `root`/target.
    ///
    /// # Errors
    /// When the name is not made of small letters, digits and hyphens.
    pub fn new(root: &Path, name: &str) -> anyhow::Result<Self> {
        let is_fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 40 || !name.chars().all(is_fit) {
            bail!("`{name}` cannot name a cluster; take small letters, digits and hyphens");
        }
        Ok(Self {
            clusters: root.join("target/kafka"),
            name: name.to_owned(),
        })
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of everything that the cluster writes.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.clusters.join(&self.name)
    }

    /// The folder of one broker.
    #[must_use]
    pub fn broker(&self, id: u32) -> PathBuf {
        self.folder().join(format!("broker-{id}"))
    }

    /// The file `cluster.json`: beside the folder for the default name, in it for others.
    #[must_use]
    pub fn manifest(&self) -> PathBuf {
        if self.name == DEFAULT_NAME {
            self.clusters.join(FILE)
        } else {
            self.folder().join(FILE)
        }
    }

    /// Keeps other commands from the cluster until the answer is dropped.
    ///
    /// # Errors
    /// When the lock file cannot be written.
    pub fn lock(&self) -> anyhow::Result<File> {
        files::lock(&self.clusters.join(format!("{}.lock", self.name)))
    }

    /// Keeps others from choosing ports until the answer is dropped.
    ///
    /// # Errors
    /// When the lock file cannot be written.
    pub fn lock_ports(&self) -> anyhow::Result<File> {
        files::lock(&self.clusters.join("ports.lock"))
    }

    /// Reads `cluster.json`; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn read(&self) -> anyhow::Result<Option<Manifest>> {
        read(&self.manifest())
    }

    /// Writes `cluster.json` in one step: a reader sees the old one or the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, manifest: &Manifest) -> anyhow::Result<()> {
        files::write_json(&self.manifest(), manifest)
    }

    /// Removes everything that the cluster wrote.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(&self) -> anyhow::Result<()> {
        let (manifest, folder) = (self.manifest(), self.folder());
        if manifest.exists() {
            fs::remove_file(&manifest)
                .with_context(|| format!("cannot remove {}", manifest.display()))?;
        }
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        Ok(())
    }

    /// Ports of all clusters beside this one, whether they run or not.
    ///
    /// # Errors
    /// When a `cluster.json` cannot be read.
    pub fn reserved_ports(&self) -> anyhow::Result<BTreeSet<u16>> {
        let mut files = vec![self.clusters.join(FILE)];
        for entry in fs::read_dir(&self.clusters)? {
            files.push(entry?.path().join(FILE));
        }
        let mut ports = BTreeSet::new();
        for file in files {
            for broker in read(&file)?.into_iter().flat_map(|m| m.brokers) {
                ports.extend([
                    broker.port,
                    broker.proxied_port,
                    broker.advertised_port,
                    broker.controller_port,
                ]);
            }
        }
        Ok(ports)
    }
}

fn read(path: &Path) -> anyhow::Result<Option<Manifest>> {
    files::read_json(path).context("begin anew by: cargo xtask kafka down")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A cluster of brokers 1..=`count` with ports from 20000 on.
    pub fn example(count: u32) -> Manifest {
        let broker = |id: u32| {
            let port = 20_000 + 4 * u16::try_from(id).expect("few brokers");
            Broker {
                id,
                port,
                proxied_port: port + 1,
                advertised_port: port + 2,
                controller_port: port + 3,
                pid: None,
                state: BrokerState::Killed,
                folder: PathBuf::from(format!("/c/broker-{id}")),
            }
        };
        let mut manifest = Manifest {
            name: DEFAULT_NAME.to_owned(),
            version: "4.4.0".to_owned(),
            cluster_id: "0123456789abcdef01234A".to_owned(),
            bootstrap_servers: String::new(),
            proxied_bootstrap_servers: String::new(),
            properties: Vec::new(),
            brokers: (1..=count).map(broker).collect(),
        };
        manifest.set_bootstrap_servers();
        manifest
    }

    #[test]
    fn both_lists_of_addresses_name_every_broker() {
        let manifest = example(2);
        assert_eq!(
            manifest.bootstrap_servers,
            "127.0.0.1:20004,127.0.0.1:20008"
        );
        let proxied = manifest.proxied_bootstrap_servers;
        assert_eq!(proxied, "127.0.0.1:20006,127.0.0.1:20010");
    }

    #[test]
    fn names_that_could_leave_the_folder_are_refused() {
        for name in ["", "..", "a/b", "Main", "a b"] {
            let error = Place::new(Path::new("/r"), name).unwrap_err().to_string();
            assert!(error.contains("small letters"), "{error}");
        }
    }

    #[test]
    fn the_file_comes_back_as_written_and_its_ports_are_reserved() -> anyhow::Result<()> {
        let root = tempfile::tempdir()?;
        let place = Place::new(root.path(), "one")?;
        fs::create_dir_all(place.folder())?;
        let manifest = example(3);
        place.write(&manifest)?;
        assert_eq!(place.read()?, Some(manifest));
        let other = Place::new(root.path(), DEFAULT_NAME)?;
        assert_eq!(other.read()?, None);
        assert_eq!(other.reserved_ports()?.len(), 12);
        fs::write(place.manifest(), "{}")?;
        let error = format!("{:#}", place.read().unwrap_err());
        assert!(error.contains("kafka down"), "{error}");
        place.remove()?;
        assert!(!place.folder().exists());
        Ok(())
    }
}
