//! Settings of brokers that are changed while they run.

use super::raw::RawProducer;
use super::steps::topic;
use super::visibility::strings;
use super::wire::{Wire, same, tp};
use super::{ClusterUnderTest, Outcome, Setting, Topic};
use crate::kafka::protocol::ErrorCode;

/// A transaction that was aborted, and a batch of it that arrives afterwards; and what became of that.
async fn late<C: ClusterUnderTest>(
    c: &mut C,
    topic: &Topic,
) -> Result<(RawProducer, Result<i64, ErrorCode>), super::Failure> {
    let id = c.name("t");
    let mut producer = RawProducer::open(c, &id).await?;
    producer.write(c, tp(topic, 0), &["aborted"]).await?;
    producer.finish(c, false).await?;
    let result = producer.produce(c, tp(topic, 0), &["late"]).await?;
    Ok((producer, result))
}

/// Without verification a batch that arrives after the end of its transaction begins one that nobody ends,
/// and that hides what comes behind it (KAFKA-14402); the producer's next transaction carries it along.
/// With verification it is refused (KIP-890).
pub(super) async fn without_verification_a_late_batch_hangs<C: ClusterUnderTest>(
    c: &mut C,
) -> Outcome {
    let hanging = topic(c, 1).await?;
    let whole = topic(c, 1).await?;
    let first = tp(&hanging, 0);
    c.configure(Setting::TransactionVerification(false)).await?;
    let (mut producer, taken) = late(c, &hanging).await?;
    same("without", &taken, &Ok(2))?;
    c.produce_plain(first, &["hidden"]).await?;
    let ends = c.ends(first).await?;
    same("open", &(ends.last_stable, ends.high_watermark), &(2, 4))?;
    same("seen", &c.values(first).await?, &strings(&[]))?;
    producer.write(c, first, &["next"]).await?;
    producer.finish(c, true).await?;
    let seen = c.values(first).await?;
    same("then seen", &seen, &strings(&["late", "hidden", "next"]))?;
    c.configure(Setting::TransactionVerification(true)).await?;
    let (_, refused) = late(c, &whole).await?;
    same("with", &refused, &Err(ErrorCode::InvalidTxnState))?;
    let ends = c.ends(tp(&whole, 0)).await?;
    same(
        "nothing is open",
        &(ends.last_stable, ends.high_watermark),
        &(2, 2),
    )?;
    c.heal().await
}
