//! What this client may do, found out by doing it.

use crate::commands::cluster::Cluster;
use crate::commands::verdict::{Finding, Verdict};
use anyhow::Context;
use processor::adapters::kafka::{Role, client_config};
use processor::config::ProcessorConfig;
use processor::worker::CommitRecord;
use rdkafka::ClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::{Mutex, PoisonError};

/// The group: whether it can be asked, who is in it, and what it has committed.
///
/// # Errors
/// When it cannot be asked.
pub fn group(cluster: &Cluster, config: &ProcessorConfig) -> anyhow::Result<Vec<Finding>> {
    let id = &config.kafka.group_id;
    let about = format!("group {id}");
    let reader = cluster.reader();
    let groups = reader
        .fetch_group_list(Some(id), cluster.timeout())
        .with_context(|| format!("{about} cannot be described: allow Describe on it"))?;
    let found = match groups.groups().first() {
        Some(group) if !group.state().is_empty() && group.state() != "Dead" => {
            format!("{}, {} members", group.state(), group.members().len())
        }
        _ => "not there yet".to_owned(),
    };
    let mut findings = vec![Finding::ok(&about, "state", found)];
    let input = &config.kafka.input_topic;
    if let Some(topic) = cluster.topic(input)? {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(input, 0, topic.partitions - 1);
        let committed = reader
            .committed_offsets(asked, cluster.timeout())
            .with_context(|| format!("{about}: its commits cannot be read: allow Read on it"))?;
        findings.push(commits(&about, &committed));
    }
    Ok(findings)
}

fn commits(about: &str, committed: &TopicPartitionList) -> Finding {
    let property = "committed offsets";
    let mut readable = 0;
    for element in committed.elements() {
        if !matches!(element.offset(), Offset::Offset(_)) {
            continue;
        }
        if let Err(error) = CommitRecord::decode(element.metadata()) {
            let found = format!("partition {}: {error}", element.partition());
            let fix = "give the processor a kafka.group_id of its own, or accept a fresh start by \
                       recovery.accept_reset_partitions";
            return Finding::new(Verdict::Wrong, about, property, found, fix);
        }
        readable += 1;
    }
    let found = format!("{readable} of {} partitions", committed.count());
    Finding::ok(about, property, found)
}

/// A transaction over the output and the dead-letter topic, which is aborted.
///
/// # Errors
/// When no client can be made.
pub fn transactions(cluster: &Cluster, config: &ProcessorConfig) -> anyhow::Result<Vec<Finding>> {
    let id = format!("{}-check", config.kafka.group_id);
    let about = format!("transactional.id {id}");
    let role = Role::TransactionalProducer {
        transactional_id: &id,
    };
    let producer: ThreadedProducer<Refusals> =
        client_config(&config.kafka, role)?.create_with_context(Refusals::default())?;
    if let Err(error) = producer.init_transactions(cluster.timeout()) {
        let fix = format!(
            "allow Write and Describe on transactional ids that begin with {}-",
            config.kafka.group_id
        );
        return Ok(vec![Finding::new(
            Verdict::Wrong,
            &about,
            "initialised",
            error,
            fix,
        )]);
    }
    let mut findings = vec![Finding::ok(&about, "initialised", "yes")];
    for topic in [&config.kafka.output_topic, &config.kafka.dead_letter_topic] {
        // A topic that is missing has been told; this client would wait for it.
        if cluster.topic(topic)?.is_some() {
            findings.push(write(&producer, cluster, topic));
        }
    }
    Ok(findings)
}

fn write(producer: &ThreadedProducer<Refusals>, cluster: &Cluster, topic: &str) -> Finding {
    let about = format!("topic {topic}");
    let property = "writable in a transaction";
    match try_write(producer, cluster, topic) {
        Ok(()) => Finding::ok(&about, property, "yes"),
        Err(error) => {
            let fix = "allow Write and Describe on it, and start the brokers that its writes need";
            Finding::new(Verdict::Wrong, &about, property, error, fix)
        }
    }
}

fn try_write(
    producer: &ThreadedProducer<Refusals>,
    cluster: &Cluster,
    topic: &str,
) -> Result<(), KafkaError> {
    producer.begin_transaction()?;
    let record = BaseRecord::to(topic).key("check").payload("never visible");
    producer.send(record).map_err(|(error, _)| error)?;
    let flushed = producer.flush(cluster.timeout());
    let refused = producer.context().take();
    // Whatever became of the record, it must never become visible.
    producer.abort_transaction(cluster.timeout())?;
    match refused {
        Some(refused) => Err(refused),
        None => flushed,
    }
}

/// The newest record that was not delivered.
#[derive(Default)]
struct Refusals(Mutex<Option<KafkaError>>);

impl Refusals {
    fn take(&self) -> Option<KafkaError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Refusals {}

impl ProducerContext for Refusals {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        }
    }
}
