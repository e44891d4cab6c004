//! The factory of a process's clients.

use super::consumer::{ConsumerActor, SimConsumer};
use super::group::GroupIdentity;
use super::producer::{ProducerActor, SimProducer};
use super::settings::ClientSettings;
use crate::fabric::Fabric;
use crate::fabric::actor::{Address, HostId};
use crate::kafka::protocol::BrokerId;
use processor::io::{Kafka, KafkaResult};
use std::sync::Arc;

/// The cluster as one process sees it.
#[derive(Clone)]
pub struct SimKafka {
    fabric: Fabric,
    host: HostId,
    directory: Arc<Vec<(BrokerId, Address)>>,
    settings: Arc<ClientSettings>,
    made: u64,
}

impl SimKafka {
    /// Clients on `host` that know the brokers of `directory`.
    #[must_use]
    pub fn new(
        fabric: Fabric,
        host: HostId,
        directory: Arc<Vec<(BrokerId, Address)>>,
        settings: ClientSettings,
    ) -> SimKafka {
        SimKafka {
            fabric,
            host,
            directory,
            settings: Arc::new(settings),
            made: 0,
        }
    }

    fn seed(&mut self, what: &str) -> u64 {
        self.made += 1;
        let who = format!("client-{}", self.host.0);
        self.fabric.draw(&who, what, self.made)
    }
}

impl Kafka for SimKafka {
    type GroupMetadata = GroupIdentity;
    type Consumer = SimConsumer;
    type Producer = SimProducer;

    fn consumer(&mut self, group: &str) -> KafkaResult<SimConsumer> {
        let seed = self.seed("consumer");
        let settings = self.settings.clone();
        let actor = ConsumerActor::new(group, self.directory.clone(), settings, seed);
        Ok(SimConsumer::new(self.fabric.spawn_actor(self.host, actor)))
    }

    fn producer(&mut self, transactional_id: &str) -> KafkaResult<SimProducer> {
        let seed = self.seed("producer");
        let settings = self.settings.clone();
        let id = Some(transactional_id);
        let actor = ProducerActor::new(id, self.directory.clone(), settings, seed);
        Ok(SimProducer::new(self.fabric.spawn_actor(self.host, actor)))
    }
}
