//! The processes of the brokers: their storage is formatted, they are started, their logs are read.

use super::jars::{self, Jars};
use super::manifest::{Broker, Manifest};
use super::properties;
use crate::process::{self, Mark};
use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a broker writes to its standard output, in its folder.
pub const LOG: &str = "server.log";
const PROPERTIES: &str = "server.properties";
/// The class that is the broker. `StorageTool`, which formats, is another.
const CLASS: &str = "kafka.Kafka";

/// Three such heaps fit beside a build.
const HEAP: [&str; 2] = ["-Xms128m", "-Xmx320m"];

/// How a broker's process is known: Java with this broker's configuration.
#[must_use]
pub fn mark(folder: &Path) -> Mark {
    Mark {
        program: "java".to_owned(),
        words: vec![
            CLASS.to_owned(),
            folder.join(PROPERTIES).display().to_string(),
        ],
    }
}

/// What starts the brokers of one cluster.
#[derive(Debug)]
pub struct Server<'a> {
    manifest: &'a Manifest,
    java: PathBuf,
    jars: Jars,
}

impl<'a> Server<'a> {
    /// Finds Java and the jars.
    ///
    /// # Errors
    /// When Java is missing or too old, or the jars are missing and cannot be fetched.
    pub fn new(root: &Path, manifest: &'a Manifest) -> anyhow::Result<Self> {
        let version = manifest.kafka_version()?;
        Ok(Self {
            manifest,
            java: jars::java(version)?,
            jars: jars::fetch(root, version)?,
        })
    }

    /// Writes the brokers' configurations and formats storage that is not formatted, all at a time.
    ///
    /// # Errors
    /// When a file cannot be written, or Kafka's tool refuses.
    pub fn prepare(&self, brokers: &[&Broker]) -> anyhow::Result<()> {
        let mut tools = Vec::new();
        for broker in brokers {
            let folder = &broker.folder;
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            let text = properties::render(self.manifest, broker)?;
            let file = folder.join(PROPERTIES);
            fs::write(&file, text).with_context(|| file.display().to_string())?;
            if !folder.join("data/meta.properties").exists() {
                tools.push((broker.id, self.format(&file)?));
            }
        }
        for (id, tool) in tools {
            let output = tool.wait_with_output()?;
            if !output.status.success() {
                bail!(
                    "the storage of broker {id} cannot be formatted: {}{}",
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
        Ok(())
    }

    fn format(&self, properties: &Path) -> anyhow::Result<std::process::Child> {
        Command::new(&self.java)
            .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx128m"])
            .args(["-cp", &self.jars.class_path])
            .arg(&self.jars.log_option)
            .args(["kafka.tools.StorageTool", "format"])
            .args(["--cluster-id", &self.manifest.cluster_id, "--config"])
            .arg(properties)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{}`", self.java.display()))
    }

    /// Starts a broker's process; the answer is its id.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, broker: &Broker) -> anyhow::Result<u32> {
        let mut command = Command::new(&self.java);
        command
            .args(HEAP)
            .args([
                "-XX:+UseSerialGC",
                "-XX:+ExitOnOutOfMemoryError",
                "-Djava.awt.headless=true",
                // Buffers of large records do not stay outside of the heap.
                "-Djdk.nio.maxCachedBufferSize=262144",
            ])
            .args(["-cp", &self.jars.class_path])
            .arg(&self.jars.log_option)
            .arg(CLASS)
            .arg(broker.folder.join(PROPERTIES))
            .current_dir(&broker.folder);
        process::start_detached(&command, &broker.folder.join(LOG))
    }
}

/// A new id: 16 random bytes in the base64 of URLs without padding, which is 22 letters, the last of
/// which carries two bits only.
///
/// # Errors
/// When the system gives no random number.
pub fn new_cluster_id() -> anyhow::Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    let random = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let digits = random.chars().filter(char::is_ascii_hexdigit).take(21);
    Ok(digits.chain(['A']).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_ids_have_the_form_that_kafka_asks_for() -> anyhow::Result<()> {
        let id = new_cluster_id()?;
        assert_eq!(id.len(), 22);
        assert!(id.ends_with('A') && id.is_ascii());
        assert_ne!(id, new_cluster_id()?);
        Ok(())
    }
}
