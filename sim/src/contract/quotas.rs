//! Quotas: a client that sends or reads too much is held back.

use super::raw::RawProducer;
use super::steps::{Member, Start, producer, topic, transact};
use super::wire::{refused, same, tp};
use super::{ClusterUnderTest, Outcome};

/// In all, more than any quota lets through at once.
const VALUE_BYTES: usize = 1_000;
const ROUNDS: i64 = 20;
const VALUES_EACH: i64 = 4;

fn value(number: i64) -> String {
    format!("{number:0>VALUE_BYTES$}")
}

/// A client that is held back gets the same answers, only later: nothing is refused, lost or doubled,
/// neither of what it writes nor of what it reads (KIP-13, KIP-219).
pub(super) async fn a_throttled_client_loses_nothing<C: ClusterUnderTest>(c: &mut C) -> Outcome {
    let topic = topic(c, 2).await?;
    let names = [c.name("t"), c.name("g")];
    c.throttle(true).await?;
    let mut raw = RawProducer::plain(c).await?;
    let mut producer = producer(c, &names[0]).await?;
    for round in 0..ROUNDS {
        let first = round * VALUES_EACH;
        let values: Vec<String> = (first..first + VALUES_EACH).map(value).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let stored = raw.produce(c, tp(&topic, 0), &values).await?;
        let offset = stored.map_err(refused("Produce"))?;
        same("stored at", &offset, &first)?;
        transact(&mut producer, &topic, 1, &[&value(round)]).await?;
    }
    same("held back", &c.was_throttled(), &true)?;
    let mut reader = Member::<C>::join(c, &names[1], &topic, Start::Earliest).await?;
    reader.until_ends().await?;
    c.throttle(false).await?;
    let written = (0..ROUNDS * VALUES_EACH).chain(0..ROUNDS).map(value);
    let once = reader.values() == written.collect::<Vec<_>>();
    same("everything once, in order", &once, &true)
}
