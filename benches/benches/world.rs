//! How fast the simulated world runs: storms, from plan to recorded history, judgement not included.
//!
//! Criterion times one storm after another (elements are virtual seconds). Before that, one pass over
//! many seeds prints the figures that the project promises, beside their limits: virtual seconds per
//! CPU second (median and worst), seeds per core-hour, faults that hit, peak memory.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scenarios::catalog;
use sim::plan::Plan;
use sim::world::{Playback, RunRecord, play};
use std::time::{Duration, Instant};

/// Seeds of the pass before criterion's own measurement.
const SEEDS: u64 = 200;
const MEDIAN_TARGET: f64 = 10_000.0;
const WORST_TARGET: f64 = 500.0;
const SEEDS_PER_CORE_HOUR_TARGET: f64 = 5_000.0;
const MEMORY_TARGET_MIB: u64 = 200;

fn plan(seed: u64) -> Plan {
    let storm = catalog::find("storm").expect("the catalog has storms");
    storm.resolve(seed).expect("every seed gives a plan")
}

fn run(plan: Plan) -> RunRecord {
    let playback = Playback {
        plan,
        records: None,
        keep_trace: false,
        sabotage: None,
    };
    play(playback).expect("a storm can be played")
}

#[allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads the wall clock"
)]
fn timed(plan: Plan) -> (RunRecord, Duration) {
    let start = Instant::now();
    let record = run(plan);
    (record, start.elapsed())
}

/// CPU time of this process so far, all threads, from the kernel's accounting.
fn cpu_seconds() -> Option<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1_024)
}

fn survey() {
    let mut ratios = Vec::new();
    let (mut virtual_s, mut wall_s, mut records) = (0.0, 0.0, 0);
    let (mut fewest_faults, mut fewest_records) = (u64::MAX, usize::MAX);
    let cpu_before = cpu_seconds();
    for seed in 0..SEEDS {
        let (record, took) = timed(plan(seed));
        let seconds = record.virtual_ms as f64 / 1_000.0;
        ratios.push(seconds / took.as_secs_f64());
        virtual_s += seconds;
        wall_s += took.as_secs_f64();
        records += record.input.len();
        fewest_faults = fewest_faults.min(record.fault_hits.values().sum());
        fewest_records = fewest_records.min(record.input.len());
    }
    let cpu_s = match (cpu_before, cpu_seconds()) {
        (Some(before), Some(after)) if after > before => after - before,
        _ => wall_s,
    };
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!(
        "{SEEDS} storms: {virtual_s:.0} virtual seconds and {records} records in {cpu_s:.1} CPU seconds"
    );
    println!("  fewest faults that hit {fewest_faults}, fewest records {fewest_records}");
    println!(
        "  virtual seconds per second, median: {median:.0} (limit: at least {MEDIAN_TARGET:.0})"
    );
    println!(
        "  virtual seconds per second, worst:  {:.0} (limit: at least {WORST_TARGET:.0})",
        ratios[0]
    );
    println!(
        "  virtual seconds per CPU second, all: {:.0}",
        virtual_s / cpu_s
    );
    println!(
        "  seeds per core-hour: {:.0} (limit: at least {SEEDS_PER_CORE_HOUR_TARGET:.0})",
        SEEDS as f64 / cpu_s * 3_600.0
    );
    if let Some(mib) = peak_memory_mib() {
        println!("  peak memory: {mib} MiB (limit: at most {MEMORY_TARGET_MIB} a seed)");
    }
}

fn storms(criterion: &mut Criterion) {
    survey();
    let mut group = criterion.benchmark_group("world");
    let seconds = run(plan(1)).virtual_ms / 1_000;
    group.throughput(Throughput::Elements(seconds));
    group.sample_size(20);
    group.bench_function("storm_seed_1_virtual_seconds", |bencher| {
        bencher.iter(|| run(plan(1)));
    });
    group.finish();
}

criterion_group!(benches, storms);
criterion_main!(benches);
