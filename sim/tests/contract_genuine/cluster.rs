//! A genuine cluster on this machine as a cluster under test.

use crate::connection::Connection;
use crate::translate::{Names, NoAnswer};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use processor::adapters::kafka::RdKafka;
use processor::config::{self, ProcessorConfig};
use sim::contract::{ClientOptions, ClusterUnderTest, Failure, Topic, TopicSpec, Trouble};
use sim::kafka::protocol::{BrokerId, RebalanceProtocol, Request, Response, TopicIndex};
use std::collections::BTreeMap;
use std::time::Duration;
use xtask::kafka::{BrokerState, Cluster};

const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
const LOOKS_MAX: u32 = 600;

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
}

/// Says what went wrong with the cluster itself.
fn failed(why: impl std::fmt::Display) -> Failure {
    Failure(format!("the cluster: {why:#}"))
}

#[allow(
    clippy::disallowed_methods,
    reason = "a genuine cluster lives in real time; nothing here is simulated"
)]
fn sleep(duration: Duration) {
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
        }
    }

    fn port(&self, broker: BrokerId) -> Result<u16, Failure> {
        let brokers = &self.cluster.manifest().brokers;
        let found = brokers.iter().find(|known| known.id == broker.0);
        let found = found.ok_or_else(|| failed(format!("there is no broker {}", broker.0)))?;
        Ok(found.port)
    }

    /// Does something over the connection to a broker; a broken one is forgotten.
    fn with<R>(
        &mut self,
        broker: BrokerId,
        call: impl FnOnce(&mut Names, &mut Connection) -> Result<R, NoAnswer>,
    ) -> Result<Option<R>, Failure> {
        let port = self.port(broker)?;
        let kept = self.connections.remove(&broker);
        let opened = kept.map_or_else(|| Connection::open(port), Ok);
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

    fn create(&mut self, broker: BrokerId, topic: CreatableTopic) -> Result<bool, Failure> {
        let name = topic.name.clone();
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        let answer = self.with(broker, |_, connection| Ok(connection.call(4, &request)?))?;
        let Some(result) = answer.and_then(|answer| answer.topics.into_iter().next()) else {
            return Ok(false);
        };
        match result.error_code {
            0 | 36 => Ok(true),
            // REQUEST_TIMED_OUT, NOT_CONTROLLER, INVALID_REPLICATION_FACTOR (a broker is not back yet).
            7 | 41 | 38 => Ok(false),
            code => {
                let name = name.as_str();
                Err(failed(format!("CreateTopics of {name}: error {code}")))
            }
        }
    }

    /// True when each of the brokers sees every partition of a topic, or of all topics, led and
    /// complete.
    fn is_whole(&mut self, topic: Option<&str>) -> Result<bool, Failure> {
        let named = topic.map(|name| {
            let name = TopicName(StrBytes::from_string(name.to_owned()));
            vec![
                kafka_protocol::messages::metadata_request::MetadataRequestTopic::default()
                    .with_name(Some(name)),
            ]
        });
        let request = MetadataRequest::default()
            .with_topics(named)
            .with_allow_auto_topic_creation(false);
        for broker in self.brokers() {
            let answer = self.with(broker, |_, connection| Ok(connection.call(8, &request)?))?;
            let Some(answer) = answer else {
                return Ok(false);
            };
            let whole = answer.topics.iter().all(|topic| {
                topic.error_code == 0
                    && topic.partitions.iter().all(|partition| {
                        let replicas = partition.replica_nodes.len();
                        partition.leader_id.0 >= 0 && partition.isr_nodes.len() == replicas
                    })
            });
            if !whole || answer.brokers.len() < self.brokers().len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn until_whole(&mut self, topic: Option<&str>) -> Result<(), Failure> {
        for _ in 0..LOOKS_MAX {
            if self.is_whole(topic)? {
                return Ok(());
            }
            sleep(BETWEEN_LOOKS);
        }
        Err(failed("not every replica is in sync after a minute"))
    }
}

impl ClusterUnderTest for GenuineCluster {
    type Kafka = RdKafka;

    fn kafka(&mut self, options: &ClientOptions) -> Result<RdKafka, Failure> {
        let example = ProcessorConfig::from_toml(ProcessorConfig::example()).map_err(failed)?;
        let mut kafka = example.kafka;
        kafka
            .bootstrap_servers
            .clone_from(&self.cluster.manifest().bootstrap_servers);
        kafka.transaction_timeout_ms = u64::from(options.transaction_timeout_ms);
        kafka.session_timeout_ms = u64::from(options.session_timeout_ms);
        kafka.max_poll_interval_ms = u64::from(options.max_poll_interval_ms);
        kafka.rebalance_protocol = match options.protocol {
            RebalanceProtocol::Eager => config::RebalanceProtocol::Eager,
            RebalanceProtocol::Cooperative => config::RebalanceProtocol::Cooperative,
        };
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
        let setting = |name: &'static str, value: String| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_string(value)))
        };
        // Retention goes by the records' own timestamps, and those of behaviours are old.
        let settings = vec![
            setting("min.insync.replicas", spec.min_insync_replicas.to_string()),
            setting("retention.ms", "-1".to_owned()),
        ];
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_string(name.clone())))
            .with_num_partitions(i32::try_from(spec.partitions).map_err(failed)?)
            .with_replication_factor(3)
            .with_configs(settings);
        let brokers = self.brokers();
        let mut tries = 0;
        while !self.create(brokers[tries % brokers.len()], topic.clone())? {
            tries += 1;
            if tries > 100 {
                return Err(failed(format!("nobody creates topic {name}")));
            }
            sleep(BETWEEN_LOOKS);
        }
        self.until_whole(Some(&name))?;
        self.names.topics.push(name.clone());
        let index = self.names.topics.len() - 1;
        Ok(Topic {
            name,
            index: TopicIndex(u16::try_from(index).map_err(failed)?),
            partitions: spec.partitions,
        })
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
        self.with(broker, |names, connection| names.ask(connection, request))
    }

    async fn harm(&mut self, broker: BrokerId, trouble: Trouble) -> Result<(), Failure> {
        let result = match trouble {
            Trouble::Killed => self.cluster.kill(broker.0),
            Trouble::Paused => self.cluster.pause(broker.0),
        };
        self.connections.remove(&broker);
        result.map_err(failed)
    }

    async fn heal(&mut self) -> Result<(), Failure> {
        let brokers = self.cluster.status().map_err(failed)?.to_vec();
        for broker in brokers {
            match broker.state {
                BrokerState::Running => Ok(()),
                BrokerState::Paused => self.cluster.resume(broker.id),
                BrokerState::Killed => self.cluster.start(broker.id),
            }
            .map_err(failed)?;
        }
        self.cluster.wait_ready().map_err(failed)?;
        self.until_whole(None)
    }

    async fn wait(&mut self, duration: Duration) {
        sleep(duration);
    }
}
