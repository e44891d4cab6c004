//! Events a second and CPU an event, beside a bare consumer that only counts the same topic.

use crate::events::{Event, Loader, now_ms};
use crate::setup::{Cluster, Pipeline, Tuning, cpu_seconds};
use anyhow::bail;
use rdkafka::error::KafkaError;
use std::time::{Duration, Instant};

const EVENTS: u64 = 6_000_000;
const PARTITIONS: u32 = 4;
/// Identities that live at once: what lies between the lateness horizon and the newest event.
const LIVE_IDS: i64 = 1_000_000;
const DISORDER_MS: i64 = 300_000;
const LATENESS_MS: i64 = 300_000;
const WINDOW_MS: i64 = 60_000;

/// What one of the two has done.
#[derive(Debug, Clone, Copy)]
struct Throughput {
    events_per_second: f64,
    cpu_ns_per_event: f64,
}

/// # Errors
/// When the cluster or the processor fails.
pub fn run(cluster: &Cluster) -> anyhow::Result<()> {
    let tuning = Tuning {
        partitions: PARTITIONS,
        commit_interval_ms: 100,
        checkpoint_interval_ms: 10_000,
        max_out_of_orderness_ms: DISORDER_MS,
        allowed_lateness_ms: LATENESS_MS,
        session_timeout_ms: 45_000,
    };
    let pipeline = Pipeline::create(cluster, "throughput", tuning)?;
    println!(
        "\nthroughput: {EVENTS} events in {PARTITIONS} partitions, {LIVE_IDS} live ids, commits every 100 ms"
    );
    fill(&pipeline)?;
    let bare = count(&pipeline)?;
    let processor = process(&pipeline)?;
    let bare_again = count(&pipeline)?;
    let limit = Throughput {
        events_per_second: bare.events_per_second.max(bare_again.events_per_second),
        cpu_ns_per_event: bare.cpu_ns_per_event.min(bare_again.cpu_ns_per_event),
    };
    show("bare consumer that counts", limit);
    show("processor run", processor);
    println!(
        "  processor / bare consumer: {:.0} % of its events a second, {:.0} % of its events a CPU second",
        100.0 * processor.events_per_second / limit.events_per_second,
        100.0 * limit.cpu_ns_per_event / processor.cpu_ns_per_event
    );
    Ok(())
}

fn show(name: &str, found: Throughput) {
    println!(
        "  {name:<28} {:>9.0} events/s {:>6.0} ns CPU/event",
        found.events_per_second, found.cpu_ns_per_event
    );
}

fn fill(pipeline: &Pipeline<'_>) -> anyhow::Result<()> {
    let loader = Loader::new(&pipeline.cluster.bootstrap_servers, &pipeline.input)?;
    let span_ms = DISORDER_MS + LATENESS_MS + WINDOW_MS;
    let start_ms = now_ms() - 2 * span_ms * EVENTS as i64 / LIVE_IDS;
    for number in 0..EVENTS {
        let at_ms = start_ms + number as i64 * span_ms / LIVE_IDS;
        // All tickers in all partitions: the load is even.
        let partition = (number / 4) % u64::from(PARTITIONS);
        loader.send(&Event { number, at_ms }, partition as i32)?;
    }
    loader.flush()
}

/// The limit: a consumer of librdkafka that does nothing with what it gets.
fn count(pipeline: &Pipeline<'_>) -> anyhow::Result<Throughput> {
    let consumer = pipeline.reader(&pipeline.input)?;
    let mut begun: Option<(Instant, f64)> = None;
    let (mut seen, mut ends) = (0_u64, 0);
    while ends < PARTITIONS {
        match consumer.poll(Duration::from_secs(10)) {
            Some(Ok(_)) if begun.is_none() => begun = Some((Instant::now(), cpu_seconds("self")?)),
            Some(Ok(_)) => seen += 1,
            Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(error)) => return Err(error.into()),
            None => bail!("the input topic does not deliver"),
        }
    }
    let Some((start, cpu)) = begun else {
        bail!("the input topic is empty");
    };
    Ok(Throughput {
        events_per_second: seen as f64 / start.elapsed().as_secs_f64(),
        cpu_ns_per_event: (cpu_seconds("self")? - cpu) * 1e9 / seen as f64,
    })
}

/// The processor between a tenth and nine tenths of its work: without start and end.
fn process(pipeline: &Pipeline<'_>) -> anyhow::Result<Throughput> {
    let mut processor = pipeline.start("processor.log")?;
    let total = EVENTS as f64;
    processor.wait_for("tickproof_records_total", 0.1 * total)?;
    let begin = sample(&processor)?;
    processor.wait_for("tickproof_records_total", 0.9 * total)?;
    let end = sample(&processor)?;
    processor.wait_for("tickproof_records_total", total)?;
    let events = end.0 - begin.0;
    Ok(Throughput {
        events_per_second: events / (end.1 - begin.1).as_secs_f64(),
        cpu_ns_per_event: (end.2 - begin.2) * 1e9 / events,
    })
}

fn sample(processor: &crate::setup::Processor) -> anyhow::Result<(f64, Instant, f64)> {
    let Some(records) = processor.metric("tickproof_records_total") else {
        bail!(
            "the processor does not answer; see {}",
            processor.log.display()
        );
    };
    Ok((records, Instant::now(), processor.cpu_seconds()?))
}
