//! From the moment when an event that closes a window is handed to its producer, to the moment when a
//! read_committed reader has the result.

use crate::events::{Event, Loader, now_ms};
use crate::setup::{Cluster, Pipeline, Tuning, percentile};
use rdkafka::Message;
use rdkafka::message::Headers;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One event in so many is timed at the reader of the input.
const SAMPLED: usize = 16;
const LOW_RATE: u64 = 1_000;
const COMMIT_INTERVAL_MS: u64 = 100;
/// The document's limit.
const LIMIT_MS: f64 = 5_000.0;
/// The brokers compile themselves while they run.
const WARM_UP: Duration = Duration::from_secs(20);
const MEASURED: Duration = Duration::from_secs(30);
/// Windows that close each second: event time runs as fast as that needs.
const CLOSES_PER_SECOND: u64 = 25;

/// # Errors
/// When the cluster or the processor fails.
pub fn run(cluster: &Cluster) -> anyhow::Result<()> {
    let most = most(cluster)?;
    println!("\nlatency: event handed to its producer → result readable under read_committed");
    println!(
        "  events/s   results      p50      p95      p99   the input itself, p50 / p95 / p99   commit interval   limit of the document"
    );
    for rate in [LOW_RATE, most / 2] {
        let [mut found, mut bare] = measure(cluster, rate)?;
        found.sort_by(f64::total_cmp);
        bare.sort_by(f64::total_cmp);
        let [p50, p95, p99] = [0.50, 0.95, 0.99].map(|share| percentile(&found, share));
        let [b50, b95, b99] = [0.50, 0.95, 0.99].map(|share| percentile(&bare, share));
        println!(
            "  {rate:>8} {:>9} {p50:>5.0} ms {p95:>5.0} ms {p99:>5.0} ms {b50:>21.0} / {b95:>3.0} / {b99:>3.0} ms {COMMIT_INTERVAL_MS:>14} ms {LIMIT_MS:>20} ms",
            found.len(),
        );
    }
    println!(
        "  (the second rate is half of the {most} events/s that go through when all of it runs at once)"
    );
    Ok(())
}

const TUNING: Tuning = Tuning {
    partitions: 1,
    commit_interval_ms: COMMIT_INTERVAL_MS,
    checkpoint_interval_ms: 10_000,
    max_out_of_orderness_ms: 0,
    allowed_lateness_ms: 60_000,
    session_timeout_ms: 45_000,
};

/// Events a second that the producer, the brokers and the processor manage together on this machine.
fn most(cluster: &Cluster) -> anyhow::Result<u64> {
    let pipeline = Pipeline::create(cluster, "most", TUNING)?;
    let mut processor = pipeline.start("processor.log")?;
    processor.wait_for("tickproof_worker_up", 1.0)?;
    let loader = Loader::new(&cluster.bootstrap_servers, &pipeline.input)?;
    let start = Instant::now();
    let first_ms = now_ms() - 600_000;
    let mut sent = 0;
    while start.elapsed() < WARM_UP {
        let at_ms = first_ms + start.elapsed().as_millis() as i64;
        loader.send(
            &Event {
                number: sent,
                at_ms,
            },
            0,
        )?;
        sent += 1;
    }
    loader.flush()?;
    processor.wait_for("tickproof_records_total", sent as f64)?;
    Ok((sent as f64 / start.elapsed().as_secs_f64()) as u64)
}

/// Latencies of the results; and of the events that caused them, at a reader beside the processor: no
/// processor on this cluster can be faster.
fn measure(cluster: &Cluster, rate: u64) -> anyhow::Result<[Vec<f64>; 2]> {
    let tuning = TUNING;
    let pipeline = Pipeline::create(cluster, "latency", tuning)?;
    let reader = pipeline.reader(&pipeline.output)?;
    let mut processor = pipeline.start("processor.log")?;
    processor.wait_for("tickproof_worker_up", 1.0)?;
    let loader = Loader::new(&cluster.bootstrap_servers, &pipeline.input)?;
    let total = rate * (WARM_UP + MEASURED).as_secs();
    // The offset of an event in a new topic of one partition is its number.
    let sent: Vec<AtomicU64> = (0..total).map(|_| AtomicU64::new(0)).collect();
    let start = Instant::now();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let producing = scope.spawn(|| {
            let produced = produce(&loader, rate, start, &sent);
            done.store(true, Ordering::SeqCst);
            produced
        });
        let bare = scope.spawn(|| input_latencies(&pipeline, start, &sent, &done));
        let mut latencies = Vec::new();
        let mut quiet_since = Instant::now();
        while !done.load(Ordering::SeqCst) || quiet_since.elapsed() < Duration::from_secs(2) {
            let Some(Ok(message)) = reader.poll(Duration::from_millis(50)) else {
                continue;
            };
            let arrived = start.elapsed();
            quiet_since = Instant::now();
            let cause = message.headers().and_then(|headers| {
                let mut found = headers.iter().filter(|header| header.key == "cause-offset");
                std::str::from_utf8(found.next()?.value?)
                    .ok()?
                    .parse::<usize>()
                    .ok()
            });
            let Some(sent_us) = cause.and_then(|cause| sent.get(cause)) else {
                continue;
            };
            let sent_at = Duration::from_micros(sent_us.load(Ordering::SeqCst));
            if sent_at > WARM_UP {
                latencies.push((arrived - sent_at).as_secs_f64() * 1e3);
            }
        }
        producing
            .join()
            .expect("the producing thread does not panic")?;
        let bare = bare.join().expect("the reading thread does not panic")?;
        Ok([latencies, bare])
    })
}

/// From an event's producer to a reader of the input, for one event in a few.
fn input_latencies(
    pipeline: &Pipeline<'_>,
    start: Instant,
    sent: &[AtomicU64],
    done: &AtomicBool,
) -> anyhow::Result<Vec<f64>> {
    let reader = pipeline.reader(&pipeline.input)?;
    let mut latencies = Vec::new();
    while !done.load(Ordering::SeqCst) {
        let Some(Ok(message)) = reader.poll(Duration::from_millis(50)) else {
            continue;
        };
        let offset = usize::try_from(message.offset())?;
        if offset.is_multiple_of(SAMPLED)
            && let Some(sent_us) = sent.get(offset)
        {
            let sent_at = Duration::from_micros(sent_us.load(Ordering::SeqCst));
            if sent_at > WARM_UP {
                latencies.push((start.elapsed() - sent_at).as_secs_f64() * 1e3);
            }
        }
    }
    Ok(latencies)
}

/// Sends at a constant rate, in steps of a millisecond.
fn produce(loader: &Loader, rate: u64, start: Instant, sent: &[AtomicU64]) -> anyhow::Result<()> {
    let step_ms = 60_000.0 * CLOSES_PER_SECOND as f64 / rate as f64;
    let span_ms = step_ms * sent.len() as f64;
    let first_ms = now_ms() - span_ms as i64 - 120_000;
    for (number, sent) in sent.iter().enumerate() {
        let due = Duration::from_secs_f64(number as f64 / rate as f64);
        let early = due.saturating_sub(start.elapsed());
        if early >= Duration::from_millis(1) {
            std::thread::sleep(early);
        }
        let at_ms = first_ms + (number as f64 * step_ms) as i64;
        sent.store(start.elapsed().as_micros() as u64, Ordering::SeqCst);
        let number = number as u64;
        loader.send(&Event { number, at_ms }, 0)?;
    }
    loader.flush()
}
