//! A genuine cluster on this machine as a cluster under test.

use crate::admin::{creatable, topic_name};
use crate::connection::Connection;
use crate::notes::Notes;
use crate::translate::{Names, NoAnswer};
use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponsePartition, MetadataResponseTopic,
};
use processor::adapters::kafka::RdKafka;
use processor::config::{self, ProcessorConfig};
use sim::contract::{
    ClientOptions, ClusterUnderTest, Failure, Kept, Setting, Topic, TopicSpec, Trouble,
};
use sim::kafka::protocol::{BrokerId, LogTimeMs, RebalanceProtocol, Request, Response, TopicIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use xtask::kafka::{BrokerState, Cluster, FORGETS_AFTER};

pub const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
pub const LOOKS_MAX: u32 = 1_800;

/// One behaviour's view of the cluster.
pub struct GenuineCluster {
    cluster: Cluster,
    /// In every name, so that nobody else uses it.
    tag: String,
    /// librdkafka's `debug`.
    debug: Option<String>,
    made: u32,
    names: Names,
    connections: BTreeMap<BrokerId, Connection>,
    /// Settings that are not as they were.
    changed: BTreeSet<&'static str>,
    /// Quotas are set for its clients.
    throttles: bool,
    notes: Notes,
}

/// Says what went wrong with the cluster itself.
pub fn failed(why: impl std::fmt::Display) -> Failure {
    Failure(format!("the cluster: {why:#}"))
}

#[allow(
    clippy::disallowed_methods,
    reason = "a genuine cluster lives in real time; nothing here is simulated"
)]
pub fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

impl GenuineCluster {
    /// The cluster for one behaviour; `tag` is unique among all runs.
    pub fn new(cluster: Cluster, tag: String, debug: Option<String>) -> GenuineCluster {
        let topics = ["__consumer_offsets", "__transaction_state"].map(str::to_owned);
        GenuineCluster {
            cluster,
            tag,
            debug,
            made: 0,
            names: Names {
                topics: topics.to_vec(),
                ..Names::default()
            },
            connections: BTreeMap::new(),
            changed: BTreeSet::new(),
            throttles: false,
            notes: Notes::default(),
        }
    }

    /// Takes back what a behaviour that failed has left behind, and that reaches nobody else.
    pub async fn clean_up(&mut self) -> Result<(), Failure> {
        match std::mem::take(&mut self.throttles) {
            true => self.throttle(false).await,
            false => Ok(()),
        }
    }

    /// What it was asked last.
    pub fn notes(&self) -> Notes {
        self.notes.clone()
    }

    fn port(&self, broker: BrokerId) -> Result<u16, Failure> {
        let brokers = &self.cluster.manifest().brokers;
        let found = brokers.iter().find(|known| known.id == broker.0);
        let found = found.ok_or_else(|| failed(format!("there is no broker {}", broker.0)))?;
        Ok(found.port)
    }

    /// Does something over the connection to a broker; a broken one is forgotten.
    pub fn with<R>(
        &mut self,
        broker: BrokerId,
        call: impl FnOnce(&mut Names, &mut Connection) -> Result<R, NoAnswer>,
    ) -> Result<Option<R>, Failure> {
        let port = self.port(broker)?;
        let kept = self.connections.remove(&broker);
        let opened = kept.map_or_else(|| Connection::open(port, &self.tag), Ok);
        let Ok(mut connection) = opened else {
            return Ok(None);
        };
        match call(&mut self.names, &mut connection) {
            Ok(answer) => {
                self.connections.insert(broker, connection);
                Ok(Some(answer))
            }
            Err(NoAnswer::Silence) => Ok(None),
            Err(NoAnswer::Unfit(why)) => Err(why),
        }
    }

    /// What a broker does not see of this: every partition of a topic, or of all topics, led and
    /// complete, and `fits` of each topic.
    fn is_missing(
        &mut self,
        topic: Option<&str>,
        fits: &dyn Fn(&MetadataResponseTopic) -> bool,
    ) -> Result<Option<String>, Failure> {
        let named = topic.map(|name| {
            let name = topic_name(name);
            vec![MetadataRequestTopic::default().with_name(Some(name))]
        });
        let request = MetadataRequest::default()
            .with_topics(named)
            .with_allow_auto_topic_creation(false);
        for broker in self.brokers() {
            let answer = self.with(broker, |_, connection| Ok(connection.call(12, &request)?))?;
            let broker = broker.0;
            let Some(answer) = answer else {
                return Ok(Some(format!("broker {broker}: no answer")));
            };
            let is_whole = |partition: &&MetadataResponsePartition| {
                let replicas = partition.replica_nodes.len();
                partition.leader_id.0 >= 0 && partition.isr_nodes.len() == replicas
            };
            for topic in &answer.topics {
                let broken = topic.partitions.iter().find(|p| !is_whole(p));
                if topic.error_code != 0 || broken.is_some() || !fits(topic) {
                    let name = topic.name.as_ref().map_or("?", |name| name.as_str());
                    return Ok(Some(format!("broker {broker}: {name}: {broken:?}")));
                }
            }
            let known = answer.brokers.len();
            if known < self.brokers().len() {
                return Ok(Some(format!("broker {broker}: it knows {known} brokers")));
            }
        }
        Ok(None)
    }

    fn until_whole(&mut self, topic: Option<&str>) -> Result<(), Failure> {
        self.until(topic, &|_| true)
    }

    fn until(
        &mut self,
        topic: Option<&str>,
        fits: &dyn Fn(&MetadataResponseTopic) -> bool,
    ) -> Result<(), Failure> {
        let mut missing = None;
        for _ in 0..LOOKS_MAX {
            missing = self.is_missing(topic, fits)?;
            if missing.is_none() {
                return Ok(());
            }
            sleep(BETWEEN_LOOKS);
        }
        let missing = missing.unwrap_or_default();
        Err(failed(format!("not whole after three minutes: {missing}")))
    }
}

impl ClusterUnderTest for GenuineCluster {
    type Kafka = RdKafka;

    fn kafka(&mut self, options: &ClientOptions) -> Result<RdKafka, Failure> {
        self.notes.step("makes clients");
        let example = ProcessorConfig::from_toml(ProcessorConfig::example()).map_err(failed)?;
        let mut kafka = example.kafka;
        kafka
            .bootstrap_servers
            .clone_from(&self.cluster.manifest().bootstrap_servers);
        kafka.transaction_timeout_ms = u64::from(options.transaction_timeout_ms);
        kafka.session_timeout_ms = u64::from(options.session_timeout_ms);
        kafka.properties.insert(
            "topic.metadata.refresh.interval.ms".to_owned(),
            options.metadata_refresh_ms.to_string(),
        );
        kafka.max_poll_interval_ms = u64::from(options.max_poll_interval_ms);
        kafka.rebalance_protocol = match options.protocol {
            RebalanceProtocol::Eager => config::RebalanceProtocol::Eager,
            RebalanceProtocol::Cooperative => config::RebalanceProtocol::Cooperative,
        };
        kafka
            .properties
            .insert("client.id".to_owned(), self.tag.clone());
        if let Some(debug) = &self.debug {
            kafka.properties.insert("debug".to_owned(), debug.clone());
        }
        RdKafka::new(&kafka).map_err(failed)
    }

    fn name(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{}-{what}-{}", self.tag, self.made)
    }

    async fn create_topic(&mut self, spec: TopicSpec) -> Result<Topic, Failure> {
        let name = self.name("topic");
        self.notes.step(format!("creates {name}"));
        let topic = creatable(&name, spec.partitions, spec.min_insync_replicas)?;
        self.insist("CreateTopics", |cluster, broker| {
            cluster.create(broker, topic.clone())
        })?;
        self.until_whole(Some(&name))?;
        self.names.topics.push(name.clone());
        let index = self.names.topics.len() - 1;
        Ok(Topic {
            name,
            index: TopicIndex(u16::try_from(index).map_err(failed)?),
            partitions: spec.partitions,
        })
    }

    async fn grow_topic(&mut self, topic: &Topic, partitions: u32) -> Result<(), Failure> {
        self.notes.step(format!("lets {} grow", topic.name));
        let count = i32::try_from(partitions).map_err(failed)?;
        let wanted = CreatePartitionsTopic::default()
            .with_name(topic_name(&topic.name))
            .with_count(count)
            .with_assignments(None);
        self.insist("CreatePartitions", |cluster, broker| {
            cluster.grow(broker, &wanted)
        })?;
        let grown = |topic: &MetadataResponseTopic| topic.partitions.len() == partitions as usize;
        self.until(Some(&topic.name), &grown)
    }

    async fn recreate_topic(&mut self, topic: &Topic) -> Result<(), Failure> {
        self.notes.step(format!("creates {} anew", topic.name));
        let name = topic_name(&topic.name);
        let anew = creatable(&topic.name, topic.partitions, 2)?;
        let old = self.topic_id(&topic.name)?;
        self.insist("DeleteTopics", |cluster, broker| {
            cluster.delete(broker, &name)
        })?;
        self.insist("CreateTopics", |cluster, broker| {
            cluster.create(broker, anew.clone())
        })?;
        let is_new = |topic: &MetadataResponseTopic| Some(topic.topic_id.to_string()) != old;
        self.until(Some(&topic.name), &is_new)
    }

    fn brokers(&self) -> Vec<BrokerId> {
        let brokers = self.cluster.manifest().brokers.iter();
        brokers.map(|broker| BrokerId(broker.id)).collect()
    }

    async fn ask(
        &mut self,
        broker: BrokerId,
        request: Request,
    ) -> Result<Option<Response>, Failure> {
        let text = format!("{request:?}");
        let kind = text.split([' ', '(', '{']).next().unwrap_or_default();
        self.notes.step(format!("asks broker {}: {kind}", broker.0));
        self.with(broker, |names, connection| names.ask(connection, request))
    }

    async fn ask_damaged(
        &mut self,
        broker: BrokerId,
        request: Request,
    ) -> Result<Option<Response>, Failure> {
        self.names.damages = true;
        let answer = self.with(broker, |names, connection| names.ask(connection, request));
        self.names.damages = false;
        answer
    }

    async fn harm(&mut self, broker: BrokerId, trouble: Trouble) -> Result<(), Failure> {
        self.notes.step(format!("broker {}: {trouble:?}", broker.0));
        let result = match trouble {
            Trouble::Killed => self.cluster.kill(broker.0),
            Trouble::Paused => self.cluster.pause(broker.0),
        };
        self.connections.remove(&broker);
        result.map_err(failed)
    }

    async fn throttle(&mut self, on: bool) -> Result<(), Failure> {
        let client = self.tag.clone();
        self.throttles |= on;
        self.insist("AlterClientQuotas", |cluster, broker| {
            cluster.set_quotas(broker, &client, on)
        })
    }

    fn was_throttled(&self) -> bool {
        self.names.throttled
    }

    async fn configure(&mut self, setting: Setting) -> Result<(), Failure> {
        let (name, value) = match setting {
            Setting::TransactionVerification(on) => {
                ("transaction.partition.verification.enable", on.to_string())
            }
        };
        self.changed.insert(name);
        self.set_everywhere(name, Some(&value))
    }

    async fn heal(&mut self) -> Result<(), Failure> {
        self.notes.step("brings brokers back");
        let brokers = self.cluster.status().map_err(failed)?.to_vec();
        for broker in brokers {
            match broker.state {
                BrokerState::Running => Ok(()),
                BrokerState::Paused => self.cluster.resume(broker.id),
                BrokerState::Killed => self.cluster.start(broker.id),
            }
            .map_err(failed)?;
        }
        self.notes.step("waits until all brokers answer");
        self.cluster.wait_ready().map_err(failed)?;
        for name in std::mem::take(&mut self.changed) {
            self.set_everywhere(name, None)?;
        }
        self.notes.step("waits until all replicas are in sync");
        self.until_whole(None)?;
        self.notes.step("is whole");
        Ok(())
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "a genuine cluster lives in real time; nothing here is simulated"
    )]
    fn now(&self) -> LogTimeMs {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let ms = now.map_or(0, |now| now.as_millis());
        LogTimeMs(i64::try_from(ms).unwrap_or(i64::MAX))
    }

    async fn outlast(&mut self, what: &Kept) -> Result<(), Failure> {
        if !self.cluster.is_forgetful() {
            return Err(failed("start it with --forgetful"));
        }
        self.notes
            .step(format!("waits until brokers forget: {what:?}"));
        sleep(FORGETS_AFTER);
        Ok(())
    }

    async fn wait(&mut self, duration: Duration) {
        sleep(duration);
    }
}
