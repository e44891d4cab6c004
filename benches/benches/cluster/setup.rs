//! Cluster, topics, configuration, and the processor as a process.

use anyhow::{Context, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::TopicPartitionList;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// Clock ticks a second of `/proc/PID/stat`, which Linux fixes for user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// The cluster that `cargo xtask kafka up` has started.
pub struct Cluster {
    pub version: String,
    pub brokers: usize,
    pub bootstrap_servers: String,
    root: PathBuf,
}

impl Cluster {
    /// # Errors
    /// When there is none, or the processor is not built; with the command to run.
    pub fn find() -> anyhow::Result<Cluster> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = fs::read_to_string(root.join("target/kafka/cluster.json"))
            .context("no cluster; start one: cargo xtask kafka up")?;
        let found: serde_json::Value = serde_json::from_str(&text)?;
        let text_of = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        let cluster = Cluster {
            version: text_of("version"),
            brokers: found["brokers"].as_array().map_or(0, Vec::len),
            bootstrap_servers: text_of("bootstrap_servers"),
            root,
        };
        ensure!(
            cluster.processor().exists(),
            "the processor is not built; build it: cargo build --release -p processor"
        );
        Ok(cluster)
    }

    fn processor(&self) -> PathBuf {
        self.root.join("target/release/processor")
    }
}

/// What differs from the example configuration.
#[derive(Debug, Clone)]
pub struct Tuning {
    pub partitions: u32,
    pub commit_interval_ms: u64,
    pub checkpoint_interval_ms: u64,
    pub max_out_of_orderness_ms: i64,
    pub allowed_lateness_ms: i64,
    pub session_timeout_ms: u64,
}

/// Topics of its own, and the configuration of a processor on them.
pub struct Pipeline<'a> {
    pub cluster: &'a Cluster,
    pub input: String,
    pub output: String,
    pub tuning: Tuning,
    folder: PathBuf,
    metrics_port: u16,
}

impl<'a> Pipeline<'a> {
    /// # Errors
    /// When the topics cannot be created.
    pub fn create(cluster: &'a Cluster, name: &str, tuning: Tuning) -> anyhow::Result<Self> {
        let unique = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let name = format!("bench-{name}-{unique}");
        let folder = cluster.root.join("target/bench").join(&name);
        fs::create_dir_all(&folder)?;
        let pipeline = Pipeline {
            cluster,
            input: format!("{name}-in"),
            output: format!("{name}-out"),
            folder: folder.canonicalize()?,
            metrics_port: free_port()?,
            tuning,
        };
        fs::write(pipeline.config(), pipeline.toml(&name))?;
        let partitions = pipeline.tuning.partitions.to_string();
        let made = Command::new(cluster.processor())
            .args(["topics", "create", "--partitions", &partitions, "--config"])
            .arg(pipeline.config())
            .output()?;
        if !made.status.success() {
            bail!(
                "no topics: {}{}",
                String::from_utf8_lossy(&made.stdout),
                String::from_utf8_lossy(&made.stderr)
            );
        }
        Ok(pipeline)
    }

    fn config(&self) -> PathBuf {
        self.folder.join("processor.toml")
    }

    fn toml(&self, name: &str) -> String {
        let Tuning {
            commit_interval_ms,
            checkpoint_interval_ms,
            max_out_of_orderness_ms,
            allowed_lateness_ms,
            session_timeout_ms,
            ..
        } = self.tuning;
        let tickers = ["AMZN", "AAPL", "MSFT", "GOOGL"].map(|ticker| {
            format!("[[reference.ticker]]\nticker = \"{ticker}\"\ncompany_name = \"{ticker}\"\nsector = \"-\"\n")
        });
        format!(
            "[kafka]\n\
             bootstrap_servers = \"{}\"\ngroup_id = \"{name}\"\n\
             input_topic = \"{}\"\noutput_topic = \"{}\"\ndead_letter_topic = \"{name}-dlq\"\n\
             session_timeout_ms = {session_timeout_ms}\n\
             [commit]\ninterval_ms = {commit_interval_ms}\n\
             [checkpoint]\nurl = \"file://{}\"\ninterval_ms = {checkpoint_interval_ms}\n\
             [state]\ndirectory = \"{}\"\n\
             [windows]\nmax_out_of_orderness_ms = {max_out_of_orderness_ms}\n\
             allowed_lateness_ms = {allowed_lateness_ms}\n\
             [metrics]\nlisten = \"127.0.0.1:{}\"\n{}",
            self.cluster.bootstrap_servers,
            self.input,
            self.output,
            self.checkpoints().display(),
            self.folder.join("state").display(),
            self.metrics_port,
            tickers.concat(),
        )
    }

    fn checkpoints(&self) -> PathBuf {
        let folder = self.folder.join("checkpoints");
        // Nothing else can make it, and a missing folder is an error of the processor's own.
        let _ = fs::create_dir_all(&folder);
        folder
    }

    /// Starts a processor; its log goes to `log` in the pipeline's folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, log: &str) -> anyhow::Result<Processor> {
        let log = self.folder.join(log);
        let child = Command::new(self.cluster.processor())
            .args(["run", "--config"])
            .arg(self.config())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        Ok(Processor {
            child,
            log,
            metrics_port: self.metrics_port,
        })
    }

    /// A read_committed reader of all partitions of a topic, from the beginning.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn reader(&self, topic: &str) -> anyhow::Result<BaseConsumer> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.cluster.bootstrap_servers)
            .set("group.id", "bench-reader")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            // As the processor has it: a full queue must not stop the limit for a second.
            .set("fetch.queue.backoff.ms", "2")
            .create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..self.tuning.partitions {
            let offset = rdkafka::Offset::Beginning;
            all.add_partition_offset(topic, partition as i32, offset)?;
        }
        consumer.assign(&all)?;
        Ok(consumer)
    }
}

/// A running processor; killed when dropped.
pub struct Processor {
    child: Child,
    pub log: PathBuf,
    metrics_port: u16,
}

impl Processor {
    /// The sum of a metric over its labels; `None` while the process does not answer.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.scrape().ok()?;
        let lines = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Some(values.sum())
    }

    fn scrape(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics_port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Waits until the metric is at least `value`.
    ///
    /// # Errors
    /// When it takes too long or the process has ended.
    pub fn wait_for(&mut self, metric: &str, value: f64) -> anyhow::Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.metric(metric).is_some_and(|now| now >= value) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the processor ended ({status}); see {}", self.log.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!(
            "{metric} did not reach {value} within {PATIENCE:?}; see {}",
            self.log.display()
        )
    }

    /// CPU seconds of all its threads.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(&self.child.id().to_string())
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kill();
    }
}

/// CPU seconds of a process, by its id or `self`.
pub fn cpu_seconds(process: &str) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, after_name) = stat.rsplit_once(')').context("/proc/PID/stat has a name")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    let (user, system) = (ticks(11), ticks(12));
    let total = user.zip(system).context("/proc/PID/stat has its times")?;
    Ok((total.0 + total.1) / TICKS_PER_SECOND)
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The value below which `share` of the sorted values lie.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let index = (share * last as f64).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
