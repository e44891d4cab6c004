//! Asks now and then where the owned partitions end, so that metrics can show how far behind they are.
//!
//! It has a client of its own: a slow answer delays no worker.

use processor::adapters::kafka::{Role, client_config};
use processor::adapters::telemetry::Metrics;
use processor::config::KafkaConfig;
use processor::units::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::sync::Arc;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Watches until the process ends.
///
/// # Errors
/// When no client can be made.
pub fn watch(config: &KafkaConfig, metrics: Arc<Metrics>) -> anyhow::Result<()> {
    let client: BaseConsumer = client_config(config, Role::Reader)?.create()?;
    let topic = config.input_topic.clone();
    std::thread::Builder::new()
        .name("lag".to_owned())
        .spawn(move || {
            loop {
                for partition in metrics.owned_partitions() {
                    match client.fetch_watermarks(&topic, partition.0, ANSWER_TIMEOUT) {
                        Ok((_, last_stable)) => metrics.set_end(partition, Offset(last_stable)),
                        Err(error) => {
                            tracing::debug!(partition = partition.0, %error, "the lag is not known");
                        }
                    }
                }
                std::thread::sleep(PERIOD);
            }
        })?;
    Ok(())
}
