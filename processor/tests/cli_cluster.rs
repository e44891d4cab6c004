//! The commands of `processor` on a genuine cluster: `cargo xtask kafka up` starts one. Without it these
//! tests say so and do nothing.
#![allow(
    clippy::disallowed_methods,
    reason = "tests of the binary: real processes, files and brokers"
)]

use processor::adapters::kafka::{Role, client_config};
use processor::config::ProcessorConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 3;

/// A configuration of its own on the shared cluster: topics, group, folder.
struct World {
    folder: PathBuf,
    config: ProcessorConfig,
}

/// A record as a consumer of the topic sees it.
struct Seen {
    partition: i32,
    value: String,
    headers: BTreeMap<String, String>,
}

impl World {
    fn find(test: &str) -> Option<World> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kafka/cluster.json");
        let Ok(text) = std::fs::read_to_string(file) else {
            eprintln!("skipped: no cluster; start one by `cargo xtask kafka up`");
            return None;
        };
        let cluster: serde_json::Value = serde_json::from_str(&text).unwrap();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let name = format!("cli-{test}-{}", since.as_nanos());
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&folder).unwrap();
        let overrides = format!(
            "[kafka]\nbootstrap_servers = {1}\ngroup_id = \"{name}\"\ninput_topic = \"{name}-in\"\n\
             output_topic = \"{name}-out\"\ndead_letter_topic = \"{name}-dlq\"\nsession_timeout_ms = 10000\n\
             [state]\ndirectory = \"{0}/state\"\n\
             [checkpoint]\nurl = \"file://{0}/checkpoints\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [worker]\ncount = 2\n[windows]\nmax_out_of_orderness_ms = 2000\nallowed_lateness_ms = 2000\n\
             idle_timeout_ms = 1000\n",
            folder.display(),
            cluster["bootstrap_servers"],
        );
        let example = ProcessorConfig::example();
        let overrides: toml::Table = overrides.parse().unwrap();
        let config = ProcessorConfig::with_overrides(example, &overrides).unwrap();
        let mut table: toml::Table = example.parse().unwrap();
        for (section, keys) in overrides {
            let section = table[&section].as_table_mut().unwrap();
            section.extend(keys.as_table().unwrap().clone());
        }
        let world = World { folder, config };
        std::fs::write(world.path("processor.toml"), table.to_string()).unwrap();
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_processor"));
        command.args(words);
        command.arg("--config").arg(self.path("processor.toml"));
        command
    }

    fn done(&self, words: &[&str], status: i32) -> String {
        let Output {
            status: found,
            stdout,
            stderr,
        } = self.command(words).output().unwrap();
        let (said, errors) = (
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr),
        );
        assert_eq!(found.code(), Some(status), "{words:?}:\n{said}\n{errors}");
        format!("{said}{errors}")
    }

    fn json(&self, words: &[&str], status: i32) -> serde_json::Value {
        let output = self.command(words).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{words:?}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn create_topics(&self) -> String {
        let partitions = PARTITIONS.to_string();
        self.done(&["topics", "create", "--partitions", &partitions], 0)
    }

    /// Everything committed that a topic holds.
    fn read(&self, topic: &str) -> Vec<Seen> {
        let client = client_config(&self.config.kafka, Role::Reader).unwrap();
        let consumer: BaseConsumer = client.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let mut left = metadata.topics()[0].partitions().len();
        let mut assignment = TopicPartitionList::new();
        for partition in 0..left as i32 {
            assignment
                .add_partition_offset(topic, partition, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let mut all = Vec::new();
        while left > 0 {
            match consumer.poll(PATIENCE).expect("the topic ends") {
                Ok(message) => all.push(Seen {
                    partition: message.partition(),
                    value: String::from_utf8_lossy(message.payload().unwrap_or_default()).into(),
                    headers: message
                        .headers()
                        .into_iter()
                        .flat_map(Headers::iter)
                        .map(|header| {
                            let value = header.value.unwrap_or_default();
                            (
                                header.key.to_owned(),
                                String::from_utf8_lossy(value).into_owned(),
                            )
                        })
                        .collect(),
                }),
                Err(KafkaError::PartitionEOF(_)) => left -= 1,
                Err(error) => panic!("{topic}: {error}"),
            }
        }
        all
    }

    fn start(&self) -> Running {
        let log = self.path("run.log");
        let errors = std::fs::File::create(&log).unwrap();
        let mut command = self.command(&["run", "--log", "debug"]);
        command.stderr(errors).stdout(Stdio::null());
        Running {
            child: command.spawn().unwrap(),
            log,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A running processor; killed if the test fails.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Lines of its metrics; empty while they are not served.
    fn metrics(&self) -> Vec<(String, f64)> {
        let log = self.log();
        let address = log.lines().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(line["address"].as_str()?.to_owned())
        });
        let Some(address) = address else {
            return Vec::new();
        };
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.lines()
            .filter(|line| line.starts_with("tickproof_"))
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect()
    }

    fn sum(&self, name: &str) -> f64 {
        let metrics = self.metrics();
        let of_it = metrics
            .iter()
            .filter(|(sample, _)| sample.starts_with(name));
        of_it.map(|(_, value)| value).sum()
    }

    /// Waits until metrics with this name add up to at least `least`.
    fn wait_for(&mut self, name: &str, least: f64) {
        let began = Instant::now();
        while self.sum(name) < least {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it has ended:\n{}", self.log());
            assert!(
                began.elapsed() < PATIENCE,
                "{name} < {least}:\n{}",
                self.log()
            );
            sleep(Duration::from_millis(200));
        }
    }

    /// SIGTERM, which must end it well.
    fn stop(mut self) {
        signal("TERM", self.child.id());
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

#[test]
fn topics_are_created_once_and_events_become_results_without_gaps() {
    let Some(world) = World::find("results") else {
        return;
    };
    assert!(world.create_topics().contains("created now"));
    assert!(world.create_topics().contains("was there"));
    assert!(world.done(&["check"], 0).contains(" 0 wrong"));

    let mut running = world.start();
    let counts = world.json(
        &[
            "produce",
            "--generate",
            "0",
            "--count",
            "2000",
            "--hostile",
            "0.1",
            "--duplicates",
            "0.1",
            "--json",
        ],
        0,
    );
    assert_eq!(
        (counts["sent"].as_u64(), counts["failed"].as_u64()),
        (Some(2_000), Some(0))
    );
    running.wait_for("tickproof_records_total", 2_000.0);
    running.wait_for("tickproof_results_total", 1.0);
    let (duplicates, letters) = (
        running.sum("tickproof_records_total{worker=\"0\"")
            + running.sum("tickproof_records_total{worker=\"1\""),
        running.sum("tickproof_dead_letters_total"),
    );
    assert_eq!(duplicates, 2_000.0);
    assert_eq!(letters, counts["hostile"].as_f64().unwrap());
    running.stop();

    let dead_letters = world.read(&world.config.kafka.dead_letter_topic);
    assert_eq!(
        dead_letters.len() as u64,
        counts["hostile"].as_u64().unwrap()
    );
    let results = world.read(&world.config.kafka.output_topic);
    assert!(!results.is_empty());
    let mut sequences: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for output in results.iter().chain(&dead_letters) {
        let partition = output.headers["source-partition"].as_str();
        let sequence = output.headers["sequence"].parse().unwrap();
        sequences.entry(partition).or_default().push(sequence);
    }
    for (partition, mut found) in sequences {
        found.sort_unstable();
        let expected: Vec<u64> = (0..found.len() as u64).collect();
        assert_eq!(found, expected, "source partition {partition}");
    }
    assert_eq!(world.checkpointed_records(), 2_000);

    // Commits that have vanished are no fresh start.
    world.delete_group();
    let said = world.done(&["run"], 3);
    assert!(
        said.contains("accept_reset_partitions") && said.contains("refusal"),
        "{said}"
    );
}

#[test]
fn a_dead_letter_is_replayed_once_even_if_the_command_is_killed_and_then_it_is_accepted() {
    const EVENTS: usize = 120;
    let Some(world) = World::find("replay") else {
        return;
    };
    world.create_topics();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let lines: String = (0..EVENTS)
        .map(|n| {
            format!(
                "{{\"event_id\":\"e{n}\",\"ticker\":\"N{}\",\"price\":1.5,\"volume\":{n},\"timestamp\":{now}}}\n",
                n % 7
            )
        })
        .collect();
    let input = world.path("events.jsonl");
    std::fs::write(&input, lines).unwrap();
    world.done(&["produce", "--input", input.to_str().unwrap()], 0);
    let mut running = world.start();
    running.wait_for("tickproof_dead_letters_total", EVENTS as f64);
    running.stop();
    let listed = world.done(&["dlq", "list", "--error-type", "unknown_ticker"], 0);
    assert_eq!(listed.lines().count(), EVENTS);
    assert!(
        world
            .done(&["dlq", "list", "--since", "1h", "--limit", "5"], 0)
            .lines()
            .count()
            == 5
    );

    // Many small transactions, and an end in the middle of them.
    let ledger = format!("{}.replays", world.config.kafka.dead_letter_topic);
    let mut replay = world.command(&["dlq", "replay", "--all", "--batch", "4"]);
    let mut child = replay
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while world.read(&ledger).is_empty() {
        assert!(began.elapsed() < PATIENCE && child.try_wait().unwrap().is_none());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let outcome = world.json(&["dlq", "replay", "--all", "--batch", "50", "--json"], 0);
    let count = |name: &str| outcome[name].as_u64().unwrap() as usize;
    assert_eq!(
        count("replayed") + count("replayed_before"),
        EVENTS,
        "{outcome}"
    );
    assert!(count("replayed_before") > 0, "{outcome}");
    let again = world.json(&["dlq", "replay", "--all", "--json"], 0);
    assert_eq!(again["replayed"], 0, "{again}");

    let mut places: BTreeMap<String, Vec<(i32, bool)>> = BTreeMap::new();
    for record in world.read(&world.config.kafka.input_topic) {
        let attempt = record.headers.get("replay-attempt").map(String::as_str);
        assert!(matches!(attempt, None | Some("1")));
        let places = places.entry(record.value).or_default();
        places.push((record.partition, attempt.is_some()));
    }
    assert_eq!(places.len(), EVENTS);
    for (event, places) in places {
        assert_eq!(places.len(), 2, "{event}");
        assert_eq!(places[0].0, places[1].0, "{event} has moved");
        assert!(places.iter().any(|(_, replayed)| *replayed), "{event}");
    }

    // Still unknown: they fail again, and that is their second attempt.
    let mut running = world.start();
    running.wait_for("tickproof_dead_letters_total", EVENTS as f64);
    running.stop();
    let outcome = world.json(
        &["dlq", "replay", "--all", "--max-attempts", "1", "--json"],
        0,
    );
    assert_eq!(outcome["too_many_attempts"], EVENTS, "{outcome}");
    let outcome = world.json(&["dlq", "replay", "--all", "--json"], 0);
    assert_eq!(outcome["replayed"], EVENTS, "{outcome}");
    let second = world.read(&world.config.kafka.input_topic);
    let second = second
        .iter()
        .filter(|record| record.headers.get("replay-attempt").map(String::as_str) == Some("2"));
    assert_eq!(second.count(), EVENTS);
}

#[test]
fn check_and_produce_tell_what_is_wrong_with_a_topic() {
    let Some(world) = World::find("wrong") else {
        return;
    };
    let missing = world.done(&["check"], 1);
    assert!(
        missing.contains("missing") && missing.contains("processor topics create"),
        "{missing}"
    );
    let kafka = &world.config.kafka;
    let admin: AdminClient<DefaultClientContext> =
        client_config(kafka, Role::Admin).unwrap().create().unwrap();
    let input = NewTopic::new(&kafka.input_topic, 1, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact")
        .set("max.message.bytes", "2000");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let created = runtime.block_on(admin.create_topics([&input], &AdminOptions::new()));
    assert!(created.unwrap()[0].is_ok());
    world.create_topics_after_wrong();

    let findings = world.json(&["check", "--json"], 1);
    let about = format!("topic {}", kafka.input_topic);
    let verdict = |property: &str| {
        let all = findings.as_array().unwrap().iter();
        let mut found = all.filter(|f| f["about"] == about.as_str() && f["property"] == property);
        found.next().unwrap()["verdict"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(verdict("cleanup.policy"), "wrong");
    assert_eq!(verdict("replication factor"), "risky");

    let line = world.path("large.jsonl");
    std::fs::write(
        &line,
        format!("{{\"ticker\":\"AMZN\",\"x\":\"{}\"}}", "x".repeat(5_000)),
    )
    .unwrap();
    let said = world.done(&["produce", "--input", line.to_str().unwrap()], 1);
    assert!(said.contains("0 delivered, 1 failed"), "{said}");
    assert!(said.contains("first failure"), "{said}");
}

impl World {
    /// Records that the newest checkpoints of all partitions have counted.
    fn checkpointed_records(&self) -> u64 {
        let mut records = 0;
        for partition in 0..PARTITIONS {
            let partition = partition.to_string();
            let words = ["state", "dump", "--partition", &partition];
            let listed = self.done(&[&words[..], &["--list"]].concat(), 0);
            let newest: serde_json::Value =
                serde_json::from_str(listed.lines().last().unwrap()).unwrap();
            let dumped = self.done(&words, 0);
            let summary: serde_json::Value =
                serde_json::from_str(dumped.lines().next().unwrap()).unwrap();
            assert_eq!(summary["checkpoint"], newest["checkpoint"]);
            let id = newest["checkpoint"].as_str().unwrap();
            let by_id = self.done(&[&words[..], &["--checkpoint", id]].concat(), 0);
            assert_eq!(by_id, dumped);
            records += summary["counters"]["records"].as_u64().unwrap();
        }
        let said = self.done(
            &["state", "dump", "--partition", "0", "--checkpoint", "x"],
            1,
        );
        assert!(said.contains("`--list` shows all"), "{said}");
        let said = self.done(&["state", "dump", "--partition", "77"], 1);
        assert!(said.contains("no checkpoint of partition 77"), "{said}");
        records
    }

    /// Deletes the group with its commits, as their expiry does.
    fn delete_group(&self) {
        let kafka = &self.config.kafka;
        let admin: AdminClient<DefaultClientContext> =
            client_config(kafka, Role::Admin).unwrap().create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let deleted = admin.delete_groups(&[&kafka.group_id], &AdminOptions::new());
        let deleted = runtime.unwrap().block_on(deleted).unwrap();
        assert!(deleted[0].is_ok(), "{deleted:?}");
    }

    /// Creates the rest; the wrong topic stays, and is told.
    fn create_topics_after_wrong(&self) {
        let said = self.done(&["topics", "create", "--partitions", "3"], 1);
        assert!(
            said.contains("was there, with 1 partitions instead of 3"),
            "{said}"
        );
        assert!(said.contains("replays need every record"), "{said}");
    }
}
