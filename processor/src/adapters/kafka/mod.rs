//! Kafka by librdkafka.
//!
//! Comes in: `[kafka]` of the configuration. Goes out: [`RdKafka`], the [`crate::io::Kafka`] of
//! production, and [`client_config`] for commands that need a client of their own.
//! Never here: what to do with an error; anything that changes an offset outside of a transaction.
//!
//! Calls block the calling thread, also where the trait is asynchronous: one thread owns poll,
//! processing and transaction, and librdkafka's own threads keep the sessions alive. Run each worker on
//! a thread of its own.

mod bounded;
mod consumer;
mod errors;
mod ffi;
mod producer;
mod settings;

pub use consumer::{Member, RdConsumer};
pub use producer::RdProducer;
pub use settings::{ProtectedProperty, Role, check_properties, client_config};

use crate::config::KafkaConfig;
use crate::io::{ErrorClass, Kafka, KafkaError, KafkaResult};
use settings::properties;
use std::sync::Arc;

/// A Kafka cluster through librdkafka.
#[derive(Debug, Clone)]
pub struct RdKafka {
    config: Arc<KafkaConfig>,
}

impl RdKafka {
    /// A factory of clients; contacts nobody yet.
    ///
    /// # Errors
    /// When `[kafka.properties]` sets something that exactly-once depends on.
    pub fn new(config: &KafkaConfig) -> Result<RdKafka, ProtectedProperty> {
        check_properties(&config.properties)?;
        let config = Arc::new(config.clone());
        Ok(RdKafka { config })
    }
}

impl Kafka for RdKafka {
    type GroupMetadata = Member;
    type Consumer = RdConsumer;
    type Producer = RdProducer;

    fn consumer(&mut self, group: &str) -> KafkaResult<RdConsumer> {
        let mut properties = properties(&self.config, Role::Consumer).map_err(unusable)?;
        properties.insert("group.id".to_owned(), group.to_owned());
        let client = ffi::Client::consumer(&properties).map_err(unusable)?;
        Ok(RdConsumer::new(client))
    }

    fn producer(&mut self, transactional_id: &str) -> KafkaResult<RdProducer> {
        let role = Role::TransactionalProducer { transactional_id };
        let properties = properties(&self.config, role).map_err(unusable)?;
        let client = ffi::Client::producer(&properties).map_err(unusable)?;
        RdProducer::new(client, self.config.transaction_timeout_ms).map_err(unusable)
    }
}

/// A client that cannot be made: its properties are wrong, or the system gives no thread.
fn unusable(why: impl ToString) -> KafkaError {
    KafkaError {
        call: "create client",
        code: why.to_string(),
        class: ErrorClass::Fatal,
    }
}
