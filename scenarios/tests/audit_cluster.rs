//! The audit on a genuine cluster: `cargo xtask kafka up` starts one. Without it these tests say so
//! and do nothing. A simulated run is written to real topics, as it was and tampered with.
#![cfg(feature = "kafka")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests of a production adapter: real time, real brokers"
)]

use processor::adapters::kafka::{Role, client_config};
use processor::config::{KafkaConfig, ProcessorConfig};
use properties::history::{History, TopicRecord};
use properties::spill::Scratch;
use properties::{Property, Verdict};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use reports::audit::AuditReport;
use scenarios::audit::kafka::KafkaCluster;
use scenarios::audit::{AuditError, Cluster, Order, Topic, audit};
use scenarios::{catalog, runner};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const CALL: Duration = Duration::from_secs(30);

/// Waits for a future that another thread completes.
fn completed<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        let polled = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(output) = polled {
            return output;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Where the test cluster is, if one was started.
fn servers() -> Option<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kafka/cluster.json");
    let Ok(text) = std::fs::read_to_string(file) else {
        eprintln!("skipped: no cluster; start one by `cargo xtask kafka up`");
        return None;
    };
    let found: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    found["bootstrap_servers"].as_str().map(str::to_owned)
}

/// Topics and a group of their own on the test cluster.
struct Stage {
    kafka: KafkaConfig,
}

impl Stage {
    fn new(servers: &str, test: &str) -> Stage {
        let example = ProcessorConfig::from_toml(ProcessorConfig::example());
        let mut kafka = example.expect("the example is right").kafka;
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let name = format!(
            "audit-{test}-{}",
            since.expect("it is past 1970").as_nanos()
        );
        servers.clone_into(&mut kafka.bootstrap_servers);
        kafka.group_id = format!("{name}-group");
        kafka.output_topic = format!("{name}-out");
        kafka.dead_letter_topic = format!("{name}-dlq");
        kafka.input_topic = name;
        Stage { kafka }
    }

    fn topics(&self) -> [&String; 3] {
        let KafkaConfig {
            input_topic,
            output_topic,
            dead_letter_topic,
            ..
        } = &self.kafka;
        [input_topic, output_topic, dead_letter_topic]
    }

    /// The topics with a simulated run in them, and its last commits.
    fn hold(&self, history: &History) {
        let admin = client_config(&self.kafka, Role::Admin).expect("it is a client's");
        let admin: AdminClient<DefaultClientContext> = admin.create().expect("it is made");
        // The records are years old: no retention may remove them.
        let new = |name| {
            NewTopic::new(name, history.input_partitions, TopicReplication::Fixed(-1))
                .set("retention.ms", "-1")
        };
        let new: Vec<NewTopic<'_>> = self.topics().map(|name| new(name)).into();
        let options = AdminOptions::new().operation_timeout(Some(CALL));
        let results = completed(admin.create_topics(&new, &options)).expect("they are created");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        let records = [&history.input, &history.outputs, &history.dead_letters];
        for (topic, records) in self.topics().into_iter().zip(records) {
            self.append(topic, records);
        }
        self.commit(history);
    }

    fn append(&self, topic: &str, records: &[TopicRecord]) {
        let producer = client_config(&self.kafka, Role::Producer).expect("it is a client's");
        let producer: BaseProducer = producer.create().expect("it is made");
        for record in records {
            let headers = record.headers.iter();
            let headers = headers.fold(OwnedHeaders::new(), |headers, (key, value)| {
                let value = Some(value.as_ref());
                headers.insert(Header { key, value })
            });
            let mut new = BaseRecord::<[u8], [u8]>::to(topic)
                .partition(record.partition)
                .timestamp(record.timestamp_ms)
                .headers(headers);
            new.key = record.key.as_deref();
            new.payload = record.value.as_deref();
            producer
                .send(new)
                .map_err(|(e, _)| e)
                .expect("it is queued");
        }
        producer.flush(CALL).expect("all are acknowledged");
    }

    fn commit(&self, history: &History) {
        let member = client_config(&self.kafka, Role::Reader).expect("it is a client's");
        let member: BaseConsumer = member.create().expect("it is made");
        for commit in &history.commits {
            let mut list = TopicPartitionList::new();
            let mut of = list.add_partition(&self.kafka.input_topic, commit.partition);
            of.set_offset(Offset::Offset(commit.offset))
                .expect("it is an offset");
            of.set_metadata(&commit.metadata);
            member
                .commit(&list, CommitMode::Sync)
                .expect("it is committed");
        }
    }

    fn audited(&self, history: &History, complete: bool) -> Result<AuditReport, AuditError> {
        let order = Order {
            rules: history.rules.clone(),
            group: self.kafka.group_id.clone(),
            topics: self.topics().map(String::clone),
            complete,
            hidden_ms_max: history.hidden_ms_max,
            clock_error_ms: history.clock_error_ms,
            scratch: Scratch::folder(std::env::temp_dir(), 100_000),
        };
        let mut cluster = KafkaCluster::new(&self.kafka).expect("it is made");
        audit(&order, &mut cluster, &mut ())
    }

    fn failed(&self, history: &History, complete: bool) -> Vec<Property> {
        let report = self.audited(history, complete).expect("it is audited");
        report.verdicts.failed()
    }
}

/// A simulated run with corrections and dead letters, as it stood after the first of its commits
/// (`parts` in 4); as on a real cluster, only the newest of each partition is known. `name` is its
/// input topic, which dead letters name.
fn history(name: &str, parts: usize) -> History {
    let plan = catalog::find("very-late-data").and_then(|scenario| scenario.resolve(1));
    let plan = plan.expect("the catalog has it");
    let order = runner::Order {
        plan: &plan,
        expect: &[],
        input: None,
        trace: false,
        twice: false,
        replay: "",
    };
    let mut history = runner::play(&order).expect("it is played").history;
    for letter in &mut history.dead_letters {
        let value = letter.value.as_deref().unwrap_or_default();
        let text = String::from_utf8(value.to_vec()).expect("letters are text");
        let from = format!("\"topic\":\"{}\"", history.input_topic);
        letter.value = Some(
            text.replacen(&from, &format!("\"topic\":\"{name}\""), 1)
                .into(),
        );
    }
    name.clone_into(&mut history.input_topic);
    // In a topic of plain records, offsets have no gaps: what they were is what they are.
    let mut next = vec![0; history.input_partitions as usize];
    for record in &history.input {
        let next = &mut next[record.partition as usize];
        assert_eq!(record.offset, *next);
        *next += 1;
    }
    let count = history.commits.len() * parts / 4;
    let mut newest = BTreeMap::new();
    for commit in history.commits.drain(..).take(count) {
        newest.insert(commit.partition, commit);
    }
    history.commits = newest.into_values().collect();
    history
}

#[test]
fn a_run_on_real_topics_holds_until_somebody_tampers_with_it() {
    let Some(servers) = servers() else { return };
    let stage = Stage::new(&servers, "true");
    let history = history(&stage.kafka.input_topic, 4);
    assert!(!history.dead_letters.is_empty());
    stage.hold(&history);
    for complete in [false, true] {
        let report = stage.audited(&history, complete).expect("it is audited");
        assert_eq!(report.verdicts.failed(), [], "{}", report.text());
        assert_eq!(report.judged.records, history.input.len() as u64);
        assert_eq!(report.judged.results, history.outputs.len() as u64);
        assert_eq!(
            report.judged.dead_letters,
            history.dead_letters.len() as u64
        );
        let liveness = report.verdicts.get(Property::Liveness);
        assert_eq!(liveness == Some(&Verdict::Held), complete);
    }

    let mut foreign = history.outputs[3].clone();
    foreign.headers.clear();
    stage.append(&stage.kafka.output_topic, &[foreign]);
    let report = stage.audited(&history, false).expect("it is audited");
    assert_eq!(report.verdicts.failed(), [Property::ExactlyOnceOut]);
    assert!(report.text().contains("is missing"), "{}", report.text());

    stage.append(&stage.kafka.output_topic, &history.outputs[5..6]);
    let accused = stage.failed(&history, false);
    assert!(
        accused.contains(&Property::WindowCorrectness),
        "{accused:?}"
    );
    assert!(accused.contains(&Property::Order), "{accused:?}");
}

#[test]
fn what_is_missing_on_real_topics_is_accused() {
    let Some(servers) = servers() else { return };
    let stage = Stage::new(&servers, "missing");
    let mut history = history(&stage.kafka.input_topic, 4);
    history.outputs.remove(7);
    history.dead_letters.remove(0);
    stage.hold(&history);
    let accused = stage.failed(&history, false);
    let expected = [
        Property::Conservation,
        Property::ExactlyOnceOut,
        Property::WindowCorrectness,
    ];
    assert!(accused.starts_with(&expected), "{accused:?}");
}

#[test]
fn what_is_not_committed_yet_is_left_out() {
    let Some(servers) = servers() else { return };
    let stage = Stage::new(&servers, "cut");
    let cut = history(&stage.kafka.input_topic, 2);
    stage.hold(&cut);
    let report = stage.audited(&cut, false).expect("it is audited");
    assert_eq!(report.verdicts.failed(), [], "{}", report.text());
    assert!(report.not_committed.offsets > 0 && report.not_committed.outputs > 0);
    assert!(stage.failed(&cut, true).contains(&Property::Liveness));
}

#[test]
fn brokers_that_do_not_answer_are_an_error_that_names_them() {
    let mut stage = Stage::new("127.0.0.1:9", "nobody");
    stage.kafka.request_timeout_ms = 500;
    let mut cluster = KafkaCluster::new(&stage.kafka).expect("it is made");
    let error = cluster.committed().expect_err("nobody is there");
    assert!(matches!(error, AuditError::Cluster { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1:9"), "{error}");
}

#[test]
fn what_is_removed_while_it_is_read_is_an_error_that_names_the_fix() {
    let Some(servers) = servers() else { return };
    let stage = Stage::new(&servers, "removed");
    let history = history(&stage.kafka.input_topic, 4);
    stage.hold(&history);
    let mut cluster = KafkaCluster::new(&stage.kafka).expect("it is made");
    let partition = history.input[0].partition;
    let extent = cluster.extents(Topic::Input).expect("it is there")[partition as usize];
    let admin = client_config(&stage.kafka, Role::Admin).expect("it is a client's");
    let admin: AdminClient<DefaultClientContext> = admin.create().expect("it is made");
    let mut until = TopicPartitionList::new();
    let name = &stage.kafka.input_topic;
    until
        .add_partition_offset(name, partition, Offset::Offset(extent.start + 10))
        .expect("it is an offset");
    let options = AdminOptions::new().operation_timeout(Some(CALL));
    let removed = completed(admin.delete_records(&until, &options)).expect("they are removed");
    assert!(
        removed.elements().iter().all(|one| one.error().is_ok()),
        "{removed:?}"
    );
    let read = cluster.read(Topic::Input, partition, extent, &mut |_| Ok(()));
    let error = read.expect_err("the beginning is gone");
    assert!(matches!(error, AuditError::Removed { .. }), "{error}");
    assert!(error.to_string().contains("retention"), "{error}");
}

#[test]
fn a_wrong_configuration_is_an_error_that_names_the_fix() {
    let Some(servers) = servers() else { return };
    let stage = Stage::new(&servers, "wrong");
    let mut history = history(&stage.kafka.input_topic, 4);
    let error = stage
        .audited(&history, false)
        .expect_err("there is no topic");
    assert!(matches!(error, AuditError::NoTopic { .. }), "{error}");
    assert!(error.to_string().contains("kafka.input_topic"), "{error}");
    history.commits.clear();
    stage.hold(&history);
    let error = stage
        .audited(&history, false)
        .expect_err("nothing is committed");
    assert!(
        matches!(error, AuditError::NothingCommitted { .. }),
        "{error}"
    );
}
