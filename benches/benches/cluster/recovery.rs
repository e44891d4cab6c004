//! From kill -9 to the first result that the next process has committed, with a million ids of state.

use crate::events::{Event, Loader, now_ms};
use crate::setup::{Cluster, PATIENCE, Pipeline, Processor, Tuning, percentile};
use anyhow::{Context, bail};
use rdkafka::Message;
use rdkafka::message::Headers;
use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const IDS: u64 = 1_000_000;
const PARTITIONS: u32 = 2;
const SESSION_TIMEOUT_MS: u64 = 6_000;
const RUNS: usize = 3;
/// The document's recovery time objective.
const LIMIT_S: f64 = 30.0;
const SPAN_MS: i64 = 600_000;
/// Behind the newest event: emitted already, and still open to corrections.
const LATE_BY_MS: i64 = 400_000;

/// Seconds after the kill.
struct Recovery {
    assigned: f64,
    ready: f64,
    first_result: f64,
}

/// # Errors
/// When the cluster or the processor fails.
pub fn run(cluster: &Cluster) -> anyhow::Result<()> {
    println!(
        "\nrecovery: kill -9 → first result committed by the next process; {IDS} ids of state, session timeout {SESSION_TIMEOUT_MS} ms"
    );
    let tuning = Tuning {
        partitions: PARTITIONS,
        commit_interval_ms: 100,
        checkpoint_interval_ms: 10_000,
        max_out_of_orderness_ms: 300_000,
        allowed_lateness_ms: 300_000,
        session_timeout_ms: SESSION_TIMEOUT_MS,
    };
    let pipeline = Pipeline::create(cluster, "recovery", tuning)?;
    let newest_ms = fill(&pipeline)?;
    let mut processor = pipeline.start("first.log")?;
    processor.wait_for("tickproof_records_total", IDS as f64)?;
    processor.wait_for("tickproof_checkpoint_offset", IDS as f64)?;
    let mut totals = Vec::new();
    // Incarnations of processes that were killed.
    let mut known = BTreeSet::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let trickle = scope.spawn(|| trickle(&pipeline, newest_ms, &stop));
        let runs = (0..RUNS).try_for_each(|run| {
            let found = crash(&pipeline, &mut processor, &mut known, run)?;
            println!(
                "  {:>5.2} s = {:>5.2} s until assigned (session timeout and join) + {:>5.2} s restore and replay + {:>5.2} s first commit",
                found.first_result,
                found.assigned,
                found.ready - found.assigned,
                found.first_result - found.ready,
            );
            totals.push(found.first_result);
            anyhow::Ok(())
        });
        stop.store(true, Ordering::SeqCst);
        trickle.join().expect("the trickle does not panic")?;
        runs
    })?;
    totals.sort_by(f64::total_cmp);
    let median = percentile(&totals, 0.5);
    println!(
        "  median {median:.2} s, {:.2} s beyond the session timeout; limit of the document {LIMIT_S} s",
        median - SESSION_TIMEOUT_MS as f64 / 1e3
    );
    Ok(())
}

/// A million events within the lateness horizon; the newest event's time.
fn fill(pipeline: &Pipeline<'_>) -> anyhow::Result<i64> {
    let loader = Loader::new(&pipeline.cluster.bootstrap_servers, &pipeline.input)?;
    let newest_ms = now_ms() - 60_000;
    for number in 0..IDS {
        let at_ms = newest_ms - SPAN_MS + number as i64 * SPAN_MS / IDS as i64;
        let partition = (number / 4) % u64::from(PARTITIONS);
        loader.send(&Event { number, at_ms }, partition as i32)?;
    }
    loader.flush()?;
    Ok(newest_ms)
}

/// Late events: each one is a correction, so each one is a result at once.
fn trickle(pipeline: &Pipeline<'_>, newest_ms: i64, stop: &AtomicBool) -> anyhow::Result<()> {
    let loader = Loader::new(&pipeline.cluster.bootstrap_servers, &pipeline.input)?;
    let mut number = IDS;
    while !stop.load(Ordering::SeqCst) {
        let at_ms = newest_ms - LATE_BY_MS;
        loader.send(
            &Event { number, at_ms },
            (number % u64::from(PARTITIONS)) as i32,
        )?;
        number += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    loader.flush()
}

fn crash(
    pipeline: &Pipeline<'_>,
    processor: &mut Processor,
    known: &mut BTreeSet<String>,
    run: usize,
) -> anyhow::Result<Recovery> {
    // Some checkpoints and commits pass by.
    std::thread::sleep(Duration::from_secs(15));
    let reader = pipeline.reader(&pipeline.output)?;
    known.insert(incarnation_in(&fs::read_to_string(&processor.log)?)?);
    processor.kill()?;
    let (killed, killed_unix) = (Instant::now(), SystemTime::now());
    *processor = pipeline.start(&format!("recovery-{run}.log"))?;
    let first_result = loop {
        if killed.elapsed() > PATIENCE {
            bail!("no recovery; see {}", processor.log.display());
        }
        if let Some(Ok(message)) = reader.poll(Duration::from_millis(20))
            && owner(&message).is_some_and(|owner| !known.contains(incarnation(&owner)))
        {
            break killed.elapsed().as_secs_f64();
        }
    };
    let since = killed_unix.duration_since(UNIX_EPOCH)?.as_secs_f64();
    let log = fs::read_to_string(&processor.log)?;
    Ok(Recovery {
        assigned: first_line(&log, "partitions were assigned")? - since,
        ready: first_line(&log, "the partition is ready")? - since,
        first_result,
    })
}

fn owner(message: &impl Message) -> Option<String> {
    let headers = message.headers()?;
    let mut found = headers.iter().filter(|header| header.key == "owner");
    Some(String::from_utf8_lossy(found.next()?.value?).into_owned())
}

/// An owner is `term/incarnation`.
fn incarnation(owner: &str) -> &str {
    owner.rsplit('/').next().unwrap_or(owner)
}

/// The incarnation that a process has named in its log.
fn incarnation_in(log: &str) -> anyhow::Result<String> {
    let mut lines = log.lines().filter_map(|line| {
        let line = serde_json::from_str::<serde_json::Value>(line).ok()?;
        Some(line["span"]["incarnation"].as_str()?.to_owned())
    });
    lines.next().context("the log names no incarnation")
}

/// Unix seconds of the first log line with this message.
fn first_line(log: &str, message: &str) -> anyhow::Result<f64> {
    for line in log.lines() {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else {
            continue;
        };
        if line["message"] == message {
            let text = line["timestamp"].as_str().unwrap_or_default();
            let time = chrono::DateTime::parse_from_rfc3339(text)?;
            return Ok(time.timestamp_micros() as f64 / 1e6);
        }
    }
    bail!("the log does not say `{message}`")
}
