//! A cluster as an administrator sees it: topics, brokers and their settings.

use anyhow::{Context, anyhow};
use processor::adapters::kafka::{Role, client_config};
use processor::config::KafkaConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

/// News of a topic reach every broker within so many questions, this far apart.
const NEWS_TRIES: u32 = 100;
const NEWS_PAUSE: Duration = Duration::from_millis(100);

/// Settings by name.
pub type Settings = BTreeMap<String, String>;

/// A topic as the brokers describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Number of partitions.
    pub partitions: i32,
    /// Fewest replicas of a partition.
    pub replicas: usize,
    /// Fewest replicas of a partition that are in sync.
    pub in_sync: usize,
    /// Partitions without a leader.
    pub leaderless: usize,
}

/// What [`Cluster::create`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The topic is new.
    Now,
    /// It was there.
    Before,
}

/// A connection to a cluster.
pub struct Cluster {
    admin: AdminClient<DefaultClientContext>,
    reader: BaseConsumer,
    servers: String,
    timeout: Duration,
}

impl Cluster {
    /// Makes clients, and asks for the brokers.
    ///
    /// # Errors
    /// When no broker answers.
    pub fn connect(config: &KafkaConfig) -> anyhow::Result<Cluster> {
        let cluster = Cluster {
            admin: client_config(config, Role::Admin)?.create()?,
            reader: client_config(config, Role::Reader)?.create()?,
            servers: config.bootstrap_servers.clone(),
            timeout: Duration::from_millis(config.request_timeout_ms),
        };
        cluster.brokers()?;
        Ok(cluster)
    }

    /// A client that reads, for questions that this type does not ask.
    pub fn reader(&self) -> &BaseConsumer {
        &self.reader
    }

    /// Limit of one call.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Ids and addresses of the brokers that are up.
    ///
    /// # Errors
    /// When none answers.
    pub fn brokers(&self) -> anyhow::Result<BTreeMap<i32, String>> {
        let metadata = self
            .reader
            .fetch_metadata(None, self.timeout)
            .with_context(|| {
                format!(
                    "no broker answers at kafka.bootstrap_servers = \"{}\": start the cluster, or correct the \
                     addresses or the security settings in [kafka.properties]",
                    self.servers
                )
            })?;
        let brokers = metadata.brokers().iter();
        Ok(brokers
            .map(|broker| (broker.id(), format!("{}:{}", broker.host(), broker.port())))
            .collect())
    }

    /// A topic, or `None` if there is none of this name.
    ///
    /// # Errors
    /// When the brokers do not answer or refuse to tell.
    pub fn topic(&self, name: &str) -> anyhow::Result<Option<Topic>> {
        // Asked of a consumer, which never creates a topic by asking for it.
        let metadata = self.reader.fetch_metadata(Some(name), self.timeout)?;
        let found = metadata.topics().first();
        let found = found.ok_or_else(|| anyhow!("topic {name}: the broker did not describe it"))?;
        match found.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Ok(None);
            }
            Some(error) => return Err(anyhow!("topic {name}: {error}")),
        }
        let partitions = found.partitions();
        if partitions.is_empty() {
            return Ok(None);
        }
        let fewest = |count: fn(&rdkafka::metadata::MetadataPartition) -> usize| {
            partitions.iter().map(count).min().unwrap_or(0)
        };
        Ok(Some(Topic {
            partitions: i32::try_from(partitions.len()).unwrap_or(i32::MAX),
            replicas: fewest(|partition| partition.replicas().len()),
            in_sync: fewest(|partition| partition.isr().len()),
            leaderless: partitions.iter().filter(|p| p.leader() < 0).count(),
        }))
    }

    /// Settings of a topic.
    ///
    /// # Errors
    /// When the brokers do not answer or refuse to tell.
    pub fn topic_settings(&self, topic: &str) -> anyhow::Result<Settings> {
        // A broker that has not heard of a new topic yet tells nothing of it.
        for _ in 0..NEWS_TRIES {
            let settings = self
                .settings(ResourceSpecifier::Topic(topic))
                .with_context(|| format!("settings of topic {topic}"))?;
            if !settings.is_empty() {
                return Ok(settings);
            }
            std::thread::sleep(NEWS_PAUSE);
        }
        Err(anyhow!(
            "settings of topic {topic}: the brokers do not tell them"
        ))
    }

    /// Settings of a broker.
    ///
    /// # Errors
    /// When the broker does not answer or refuses to tell.
    pub fn broker_settings(&self, broker: i32) -> anyhow::Result<Settings> {
        self.settings(ResourceSpecifier::Broker(broker))
            .with_context(|| format!("settings of broker {broker}"))
    }

    fn settings(&self, of: ResourceSpecifier<'_>) -> anyhow::Result<Settings> {
        let options = AdminOptions::new().request_timeout(Some(self.timeout));
        let answer = wait(self.admin.describe_configs([&of], &options))??;
        let resource: ConfigResource = answer
            .into_iter()
            .next()
            .ok_or_else(|| anyhow!("the broker did not describe it"))??;
        let entries = resource.entries.into_iter();
        Ok(entries
            .filter_map(|entry| Some((entry.name, entry.value?)))
            .collect())
    }

    /// Creates a topic, unless it is there.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(
        &self,
        name: &str,
        partitions: i32,
        replicas: i32,
        settings: &Settings,
    ) -> anyhow::Result<Created> {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(self.timeout));
        let answer = wait(self.admin.create_topics([&topic], &options))??;
        match answer.into_iter().next() {
            Some(Ok(_)) => Ok(Created::Now),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(Created::Before),
            Some(Err((_, error))) => Err(KafkaError::AdminOp(error).into()),
            None => Err(anyhow!("the broker did not answer for it")),
        }
        .with_context(|| {
            format!("topic {name} cannot be created with {partitions} partitions and {replicas} replicas")
        })
    }

    /// Waits until a new topic is known: it is not everywhere at once.
    ///
    /// # Errors
    /// When the brokers do not answer or refuse to tell.
    pub fn wait_for_leaders(&self, name: &str) -> anyhow::Result<()> {
        for _ in 0..NEWS_TRIES {
            if self.topic(name)?.is_some_and(|topic| topic.leaderless == 0) {
                break;
            }
            std::thread::sleep(NEWS_PAUSE);
        }
        Ok(())
    }
}

/// Waits for an answer of the administration client, which has a thread of its own.
fn wait<T>(answer: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(answer))
}
