//! A genuine Apache Kafka cluster on this machine, in KRaft mode, for tests and for trying things.
//!
//! Comes in: a name, a version, a number of brokers. Goes out: processes that outlive the task that
//! started them, and `cluster.json`, which says where they are ([`Manifest`]). Every operation looks
//! at the processes themselves, so a crash of a task leaves nothing wrong behind. Never here: topics
//! and records; clients make those.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use xtask::kafka::{Cluster, Options};
//! let mut cluster = Cluster::up(&xtask::root(), &Options::named("my-test"))?;
//! cluster.kill(2)?;
//! cluster.start(2)?;
//! cluster.wait_ready()?;
//! cluster.down()?;
//! # Ok(())
//! # }
//! ```

pub mod command;
mod create;
mod jars;
mod manifest;
mod properties;
mod protocol;
mod server;
mod version;

pub use manifest::{Broker, BrokerState, DEFAULT_NAME, Manifest};
pub use properties::{FORGETFUL, FORGETS_AFTER};
pub use version::{NEWEST, NEWEST_3, Version};

use crate::process::{self, Found, Mark, State, wait_until};
use anyhow::{Context, bail};
use manifest::Place;
use protocol::Coordinator;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Looks for a Java that the pinned versions run on.
///
/// # Errors
/// When there is none, or it is too old; the message has the fix.
pub fn check_java() -> anyhow::Result<()> {
    jars::java(NEWEST.parse()?).map(|_| ())
}

/// The largest number of brokers of a cluster.
pub const BROKERS_MAX: u32 = 9;
/// How long brokers may take until they answer, on a machine that is busy with a build.
const READY_LIMIT: Duration = Duration::from_secs(180);
/// How long an orderly stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// What is wanted of a cluster. What is `None` is as it already is, or by default.
#[derive(Debug, Clone)]
pub struct Options {
    /// What its commands call it.
    pub name: String,
    /// How many brokers; 3 by default.
    pub brokers: Option<u32>,
    /// Which version of Apache Kafka; [`NEWEST`] by default.
    pub version: Option<Version>,
    /// Properties of the brokers to add, or to set otherwise than by default: `key=value`.
    pub properties: Vec<String>,
}

impl Options {
    /// A cluster of that name, by default in everything else.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            brokers: None,
            version: None,
            properties: Vec::new(),
        }
    }

    /// With brokers that forget soon, see [`FORGETFUL`].
    #[must_use]
    pub fn forgetful(mut self) -> Self {
        self.properties.extend(FORGETFUL.map(str::to_owned));
        self
    }
}

/// A cluster that was started, with the states of its brokers when they were last looked at.
#[derive(Debug, Clone)]
pub struct Cluster {
    root: PathBuf,
    place: Place,
    manifest: Manifest,
}

impl Cluster {
    /// Starts a cluster below `root`/target, or what of it does not run, and waits until every broker
    /// answers and all know each other.
    ///
    /// # Errors
    /// When the cluster exists with another version, number of brokers or properties than asked for;
    /// when Java or Maven is missing; when a broker ends or does not answer in time.
    pub fn up(root: &Path, options: &Options) -> anyhow::Result<Self> {
        let place = Place::new(root, &options.name)?;
        let lock = place.lock()?;
        let manifest = match place.read()? {
            Some(manifest) => {
                create::check_same(&manifest, options)?;
                manifest
            }
            None => create::create(root, &place, options)?,
        };
        let mut cluster = Self {
            root: root.to_owned(),
            place,
            manifest,
        };
        let states = cluster.look()?;
        let with = |state| {
            let brokers = states.iter().filter(move |broker| broker.state == state);
            brokers.map(|broker| broker.id).collect::<Vec<_>>()
        };
        for id in with(BrokerState::Paused) {
            cluster.signal(id, Signal::CONT)?;
        }
        cluster.launch(&with(BrokerState::Killed))?;
        drop(lock);
        cluster.wait_ready()?;
        Ok(cluster)
    }

    /// The cluster `name` as it is now.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn open(root: &Path, name: &str) -> anyhow::Result<Self> {
        let place = Place::new(root, name)?;
        let manifest = place.read()?.with_context(|| {
            format!(
                "there is no cluster `{name}`; start it by: {}",
                hint("up", name)
            )
        })?;
        let mut cluster = Self {
            root: root.to_owned(),
            place,
            manifest,
        };
        let _lock = cluster.place.lock()?;
        cluster.look()?;
        Ok(cluster)
    }

    /// What `cluster.json` says.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The path of `cluster.json`.
    #[must_use]
    pub fn manifest_path(&self) -> PathBuf {
        self.place.manifest()
    }

    /// Ends a broker as a power failure would (SIGKILL) and waits until its process is gone.
    ///
    /// # Errors
    /// When there is no such broker, or it has no process.
    pub fn kill(&mut self, id: u32) -> anyhow::Result<()> {
        let _lock = self.place.lock()?;
        self.found(id)?;
        process::kill(&self.mark(id))?;
        self.look().map(|_| ())
    }

    /// Ends a broker in order (SIGTERM): it hands its leaderships over first.
    ///
    /// # Errors
    /// When there is no such broker, it has no process, or it does not end within a minute.
    pub fn stop(&mut self, id: u32) -> anyhow::Result<()> {
        let _lock = self.place.lock()?;
        self.signal(id, Signal::TERM)?;
        process::wait_gone(&self.mark(id), STOP_LIMIT)?;
        self.look().map(|_| ())
    }

    /// True if its brokers forget soon, see [`FORGETFUL`].
    #[must_use]
    pub fn is_forgetful(&self) -> bool {
        let properties = &self.manifest.properties;
        let is_set = |property: &&str| properties.iter().any(|set| set == property);
        FORGETFUL.iter().all(is_set)
    }

    /// Starts a broker that was killed or stopped, with its data. It does not wait until it answers:
    /// [`Cluster::wait_ready`] does.
    ///
    /// # Errors
    /// When there is no such broker, or it runs.
    pub fn start(&mut self, id: u32) -> anyhow::Result<()> {
        let _lock = self.place.lock()?;
        self.look()?;
        match self.broker(id)?.state {
            BrokerState::Killed => self.launch(&[id]),
            BrokerState::Running => bail!("broker {id} runs already"),
            BrokerState::Paused => {
                let name = &self.manifest.name;
                let resume = hint(&format!("resume {id}"), name);
                bail!("broker {id} is paused; let it go on by: {resume}")
            }
        }
    }

    /// Holds a broker (SIGSTOP): its connections stay open and nothing answers.
    ///
    /// # Errors
    /// When there is no such broker, or it has no process.
    pub fn pause(&mut self, id: u32) -> anyhow::Result<()> {
        self.send(id, Signal::STOP, State::Paused)
    }

    /// Lets a paused broker go on (SIGCONT).
    ///
    /// # Errors
    /// When there is no such broker, or it has no process.
    pub fn resume(&mut self, id: u32) -> anyhow::Result<()> {
        self.send(id, Signal::CONT, State::Running)
    }

    /// Looks at all processes and brings `cluster.json` up to date.
    ///
    /// # Errors
    /// When `/proc` cannot be read or the file cannot be written.
    pub fn status(&mut self) -> anyhow::Result<&[Broker]> {
        let _lock = self.place.lock()?;
        self.look()?;
        Ok(&self.manifest.brokers)
    }

    /// Waits until every running broker answers, knows all running ones, and has coordinators for
    /// groups and transactions. When fewer than a majority run, nobody could be ready: an error.
    ///
    /// # Errors
    /// When a broker ends meanwhile (with the end of its log), or three minutes go by.
    pub fn wait_ready(&mut self) -> anyhow::Result<()> {
        self.status()?;
        let running: Vec<Broker> = self
            .manifest
            .brokers
            .iter()
            .filter(|broker| broker.state == BrokerState::Running)
            .cloned()
            .collect();
        self.check_majority()?;
        let is_ready = wait_until(READY_LIMIT, || {
            self.check_alive(&running)?;
            Ok(running.iter().all(|broker| is_ready(broker, &running)))
        })?;
        if !is_ready {
            bail!(
                "the brokers run, but do not all answer after {} s; see {}/broker-*/server.log",
                READY_LIMIT.as_secs(),
                self.place.folder().display()
            );
        }
        Ok(())
    }

    /// Kills all brokers and removes their data. The answer is false when there was no such cluster.
    ///
    /// # Errors
    /// When a process cannot be killed or a file cannot be removed.
    pub fn down(self) -> anyhow::Result<bool> {
        down(&self.root, &self.manifest.name)
    }

    /// True when the broker answers and knows at least one broker.
    #[must_use]
    pub fn answers(broker: &Broker) -> bool {
        broker.state == BrokerState::Running
            && protocol::alive_brokers(broker.port).is_ok_and(|alive| !alive.is_empty())
    }

    /// An error when so few brokers run that none can be ready.
    ///
    /// # Errors
    /// With the command that starts the others.
    fn check_majority(&self) -> anyhow::Result<()> {
        let brokers = &self.manifest.brokers;
        let is_running = |broker: &&Broker| broker.state == BrokerState::Running;
        let running = brokers.iter().filter(is_running).count();
        let majority = brokers.len() / 2 + 1;
        if running >= majority {
            return Ok(());
        }
        bail!(
            "{running} of {} brokers run, and nothing is answered by fewer than {majority}; start the \
             others too: {}",
            brokers.len(),
            hint("up", &self.manifest.name)
        )
    }

    fn broker(&self, id: u32) -> anyhow::Result<&Broker> {
        let mut brokers = self.manifest.brokers.iter();
        brokers.find(|broker| broker.id == id).with_context(|| {
            let (name, count) = (&self.manifest.name, self.manifest.brokers.len());
            format!("cluster `{name}` has no broker {id}; its brokers are 1 to {count}")
        })
    }

    /// The process of a broker.
    fn found(&self, id: u32) -> anyhow::Result<Found> {
        self.broker(id)?;
        process::find(&self.mark(id))?.with_context(|| {
            let start = hint(&format!("start {id}"), &self.manifest.name);
            format!("broker {id} has no process; start it by: {start}")
        })
    }

    fn signal(&self, id: u32, signal: Signal) -> anyhow::Result<()> {
        process::signal(self.found(id)?, signal)
    }

    /// Sends a signal and waits until the process is in the state that it leads to.
    fn send(&mut self, id: u32, signal: Signal, becomes: State) -> anyhow::Result<()> {
        let _lock = self.place.lock()?;
        self.signal(id, signal)?;
        let mark = self.mark(id);
        let is_so = || Ok(process::find(&mark)?.is_none_or(|found| found.state == becomes));
        if !wait_until(STOP_LIMIT, is_so)? {
            bail!("broker {id} got the signal and is not {becomes:?}");
        }
        self.look().map(|_| ())
    }

    fn mark(&self, id: u32) -> Mark {
        server::mark(&self.place.broker(id))
    }

    /// Brings the manifest up to date and writes it. The caller holds the lock.
    fn look(&mut self) -> anyhow::Result<Vec<Broker>> {
        let marks: Vec<Mark> = self
            .manifest
            .brokers
            .iter()
            .map(|b| self.mark(b.id))
            .collect();
        for (broker, mark) in self.manifest.brokers.iter_mut().zip(&marks) {
            let found = process::find(mark)?;
            broker.pid = found.map(|found| found.pid);
            broker.state = match found.map(|found| found.state) {
                Some(State::Running) => BrokerState::Running,
                Some(State::Paused) => BrokerState::Paused,
                None => BrokerState::Killed,
            };
        }
        self.place.write(&self.manifest)?;
        Ok(self.manifest.brokers.clone())
    }

    /// Starts the processes of brokers that have none. The caller holds the lock.
    fn launch(&mut self, ids: &[u32]) -> anyhow::Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let server = server::Server::new(&self.root, &self.manifest)?;
        let brokers: Vec<&Broker> = ids
            .iter()
            .map(|id| self.broker(*id))
            .collect::<anyhow::Result<_>>()?;
        server.prepare(&brokers)?;
        let mut pids = Vec::new();
        for broker in brokers {
            pids.push(server.start(broker)?);
        }
        // A process shows its mark only once it has become Java.
        for (id, pid) in ids.iter().zip(pids) {
            let mark = self.mark(*id);
            let log = self.place.broker(*id).join(server::LOG);
            let begins = || Ok(process::find(&mark)?.is_some() || !process::exists(pid));
            wait_until(READY_LIMIT, begins)?;
            if process::find(&mark)?.is_none() {
                bail!("broker {id} ended at once; {}", process::end_of_log(&log));
            }
        }
        self.look().map(|_| ())
    }

    /// An error when one of `brokers` has ended.
    fn check_alive(&self, brokers: &[Broker]) -> anyhow::Result<()> {
        for broker in brokers {
            if process::find(&self.mark(broker.id))?.is_none() {
                let log = broker.folder.join(server::LOG);
                bail!(
                    "broker {} has ended; {}",
                    broker.id,
                    process::end_of_log(&log)
                );
            }
        }
        Ok(())
    }
}

/// Kills all brokers of the cluster `name` and removes everything it wrote, whatever is left of it.
/// The answer is false when there was nothing.
///
/// # Errors
/// When a process cannot be killed or a file cannot be removed.
pub fn down(root: &Path, name: &str) -> anyhow::Result<bool> {
    let place = Place::new(root, name)?;
    let _lock = place.lock()?;
    let mut was_there = place.manifest().exists() || place.folder().exists();
    for id in 1..=BROKERS_MAX {
        was_there |= process::kill(&server::mark(&place.broker(id)))?;
    }
    place.remove()?;
    Ok(was_there)
}

fn is_ready(broker: &Broker, running: &[Broker]) -> bool {
    let knows_all = protocol::alive_brokers(broker.port)
        .is_ok_and(|alive| running.iter().all(|other| alive.contains(&other.id)));
    let coordinates =
        |kind| protocol::has_coordinator(broker.port, kind).is_ok_and(|is_there| is_there);
    knows_all && coordinates(Coordinator::Group) && coordinates(Coordinator::Transaction)
}

/// The command line of another command about the same cluster.
fn hint(command: &str, name: &str) -> String {
    if name == DEFAULT_NAME {
        format!("cargo xtask kafka {command}")
    } else {
        format!("cargo xtask kafka {command} --name {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifest::tests::example;
    use std::fs;

    #[test]
    fn a_cluster_that_does_not_exist_is_named_with_the_command_that_starts_it() -> anyhow::Result<()>
    {
        let root = tempfile::tempdir()?;
        let error = Cluster::open(root.path(), "none").unwrap_err().to_string();
        assert!(
            error.contains("cargo xtask kafka up --name none"),
            "{error}"
        );
        assert!(!down(root.path(), "none")?);
        Ok(())
    }

    #[test]
    fn brokers_that_do_not_exist_or_do_not_run_are_errors() -> anyhow::Result<()> {
        let root = tempfile::tempdir()?;
        let place = Place::new(root.path(), "dead")?;
        fs::create_dir_all(place.folder())?;
        place.write(&example(3))?;
        let mut cluster = Cluster::open(root.path(), "dead")?;
        let error = cluster.kill(4).unwrap_err().to_string();
        assert!(error.contains("brokers are 1 to 3"), "{error}");
        let error = cluster.pause(2).unwrap_err().to_string();
        assert!(error.contains("kafka start 2"), "{error}");
        let error = cluster.wait_ready().unwrap_err().to_string();
        assert!(error.contains("0 of 3 brokers run"), "{error}");
        assert!(down(root.path(), "dead")?);
        Ok(())
    }
}
