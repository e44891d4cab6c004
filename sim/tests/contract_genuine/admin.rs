//! What administrators ask of a genuine cluster: topics, quotas, settings.

use crate::cluster::{BETWEEN_LOOKS, GenuineCluster, LOOKS_MAX, failed, sleep};
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeConfigsRequest, IncrementalAlterConfigsRequest, MetadataRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use sim::contract::{ClusterUnderTest, Failure};
use sim::kafka::protocol::BrokerId;

const CHANGES_MAX: usize = 100;
/// A client under quotas may send and fetch so many bytes a second, as the mean of eleven seconds.
const QUOTA_BYTES: f64 = 6_000.0;
/// Kafka's number of brokers as things that have settings.
const BROKER: i8 = 4;

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// A topic as CreateTopics wants it. Retention goes by the records' own timestamps, and those of
/// behaviours are old.
pub fn creatable(
    name: &str,
    partitions: u32,
    min_insync_replicas: u32,
) -> Result<CreatableTopic, Failure> {
    let setting = |name: &'static str, value: String| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_string(value)))
    };
    let settings = vec![
        setting("min.insync.replicas", min_insync_replicas.to_string()),
        setting("retention.ms", "-1".to_owned()),
    ];
    Ok(CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(i32::try_from(partitions).map_err(failed)?)
        .with_replication_factor(3)
        .with_configs(settings))
}

/// True when a change is made, also by an earlier try (`before`); false when it may be asked again.
fn is_done(what: &str, code: Option<i16>, before: i16) -> Result<bool, Failure> {
    match code {
        Some(0) => Ok(true),
        Some(code) if code == before => Ok(true),
        // No answer, REQUEST_TIMED_OUT, NOT_CONTROLLER, INVALID_REPLICATION_FACTOR (a broker is not
        // back yet).
        None | Some(7 | 41 | 38) => Ok(false),
        Some(code) => Err(failed(format!("{what}: error {code}"))),
    }
}

impl GenuineCluster {
    pub fn create(&mut self, broker: BrokerId, topic: CreatableTopic) -> Result<bool, Failure> {
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        let answer = self.with(broker, |_, connection| Ok(connection.call(4, &request)?))?;
        let result = answer.and_then(|answer| answer.topics.into_iter().next());
        // TOPIC_ALREADY_EXISTS: an earlier try has done it.
        is_done("CreateTopics", result.map(|result| result.error_code), 36)
    }

    pub fn delete(&mut self, broker: BrokerId, name: &TopicName) -> Result<bool, Failure> {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![name.clone()])
            .with_timeout_ms(10_000);
        let answer = self.with(broker, |_, connection| Ok(connection.call(4, &request)?))?;
        let result = answer.and_then(|answer| answer.responses.into_iter().next());
        // UNKNOWN_TOPIC_OR_PARTITION: an earlier try has done it.
        is_done("DeleteTopics", result.map(|result| result.error_code), 3)
    }

    pub fn grow(
        &mut self,
        broker: BrokerId,
        topic: &CreatePartitionsTopic,
    ) -> Result<bool, Failure> {
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![topic.clone()])
            .with_timeout_ms(10_000);
        let answer = self.with(broker, |_, connection| Ok(connection.call(1, &request)?))?;
        let result = answer.and_then(|answer| answer.results.into_iter().next());
        // INVALID_PARTITIONS: it has so many, as an earlier try has done it.
        is_done(
            "CreatePartitions",
            result.map(|result| result.error_code),
            37,
        )
    }

    /// Identity of a topic, as the first broker tells it.
    pub fn topic_id(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![wanted]))
            .with_allow_auto_topic_creation(false);
        let first = self.brokers().first().copied();
        let first = first.ok_or_else(|| failed("it has no brokers"))?;
        let answer = self.with(first, |_, connection| Ok(connection.call(12, &request)?))?;
        let topic = answer.and_then(|answer| answer.topics.into_iter().next());
        Ok(topic.map(|topic| topic.topic_id.to_string()))
    }

    /// Asks the brokers in turn to change something, until one has done it.
    pub fn insist(
        &mut self,
        what: &str,
        mut change: impl FnMut(&mut GenuineCluster, BrokerId) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let brokers = self.brokers();
        for tries in 0..CHANGES_MAX {
            if change(self, brokers[tries % brokers.len()])? {
                return Ok(());
            }
            sleep(BETWEEN_LOOKS);
        }
        Err(failed(format!("nobody does it: {what}")))
    }

    /// Sets quotas for a client id, or removes them.
    pub fn set_quotas(
        &mut self,
        broker: BrokerId,
        client: &str,
        on: bool,
    ) -> Result<bool, Failure> {
        let entity = EntityData::default()
            .with_entity_type(StrBytes::from_static_str("client-id"))
            .with_entity_name(Some(StrBytes::from_string(client.to_owned())));
        let quota = |key: &'static str| {
            OpData::default()
                .with_key(StrBytes::from_static_str(key))
                .with_value(QUOTA_BYTES)
                .with_remove(!on)
        };
        let entry = EntryData::default()
            .with_entity(vec![entity])
            .with_ops(vec![
                quota("producer_byte_rate"),
                quota("consumer_byte_rate"),
            ]);
        let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
        let answer = self.with(broker, |_, connection| Ok(connection.call(0, &request)?))?;
        let result = answer.and_then(|answer| answer.entries.into_iter().next());
        is_done(
            "AlterClientQuotas",
            result.map(|result| result.error_code),
            0,
        )
    }

    /// Sets a setting of all brokers, or sets it back, and waits until all tell so.
    pub fn set_everywhere(
        &mut self,
        name: &'static str,
        value: Option<&str>,
    ) -> Result<(), Failure> {
        self.insist("IncrementalAlterConfigs", |cluster, broker| {
            cluster.set(broker, name, value)
        })?;
        for broker in self.brokers() {
            let mut looks = 0;
            while self.setting_of(broker, name)? != value.map(str::to_owned) {
                looks += 1;
                if looks > LOOKS_MAX {
                    return Err(failed(format!("broker {} never has {name}", broker.0)));
                }
                sleep(BETWEEN_LOOKS);
            }
        }
        Ok(())
    }

    fn set(&mut self, broker: BrokerId, name: &str, value: Option<&str>) -> Result<bool, Failure> {
        // 0: set, 1: delete.
        let operation = i8::from(value.is_none());
        let config = AlterableConfig::default()
            .with_name(StrBytes::from_string(name.to_owned()))
            .with_config_operation(operation)
            .with_value(value.map(|value| StrBytes::from_string(value.to_owned())));
        let resource = AlterConfigsResource::default()
            .with_resource_type(BROKER)
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.with(broker, |_, connection| Ok(connection.call(0, &request)?))?;
        let result = answer.and_then(|answer| answer.responses.into_iter().next());
        let code = result.map(|result| result.error_code);
        is_done("IncrementalAlterConfigs", code, 0)
    }

    /// What a broker has for a setting that was changed while it ran.
    fn setting_of(&mut self, broker: BrokerId, name: &str) -> Result<Option<String>, Failure> {
        // 3: a setting of all brokers that was changed while they run.
        const DYNAMIC_DEFAULT: i8 = 3;
        let resource = DescribeConfigsResource::default()
            .with_resource_type(BROKER)
            .with_resource_name(StrBytes::from_string(broker.0.to_string()))
            .with_configuration_keys(Some(vec![StrBytes::from_string(name.to_owned())]));
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.with(broker, |_, connection| Ok(connection.call(1, &request)?))?;
        let results = answer.into_iter().flat_map(|answer| answer.results);
        let found = results
            .flat_map(|result| result.configs)
            .find(|config| config.config_source == DYNAMIC_DEFAULT);
        Ok(found.and_then(|config| Some(config.value?.to_string())))
    }
}
