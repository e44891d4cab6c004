//! How fast the simulated world runs: storms, from plan to recorded history, judgement not included.
//!
//! Criterion times one storm after another (elements are virtual seconds). Before that, one pass over
//! many seeds prints the figures that the project promises, beside their limits: virtual seconds per
//! CPU second (median and worst), seeds per core-hour, faults that hit, peak memory; then the slowest of
//! all scenarios, and where the time of storms goes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};
use scenarios::catalog;
use scenarios::scenario::Scenario;
use sim::disk;
use sim::plan::Plan;
use sim::world::meter::{Meter, Part};
use sim::world::{Playback, RunRecord, play};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Seeds of the pass before criterion's own measurement.
const SEEDS: u64 = 200;
/// Seeds of every scenario.
const SEEDS_OF_EACH: u64 = 3;
/// Storms of which is told where their time goes.
const METERED: u64 = 50;
const MEDIAN_TARGET: f64 = 10_000.0;
const WORST_TARGET: f64 = 500.0;
const SEEDS_PER_CORE_HOUR_TARGET: f64 = 5_000.0;
const MEMORY_TARGET_MIB: u64 = 200;

fn plan(seed: u64) -> Plan {
    let storm = catalog::find("storm").expect("the catalog has storms");
    storm.resolve(seed).expect("every seed gives a plan")
}

fn run(plan: Plan) -> RunRecord {
    run_metered(plan, None)
}

fn run_metered(plan: Plan, meter: Option<Box<dyn Meter>>) -> RunRecord {
    let playback = Playback {
        plan,
        records: None,
        keep_trace: false,
        disks: disk::in_memory(),
        tap: None,
        meter,
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

/// Every scenario, by a few seeds of each.
fn worst_scenario() {
    let speed = |scenario: &Scenario| {
        let (mut seconds, mut took) = (0.0, Duration::ZERO);
        for seed in 0..SEEDS_OF_EACH {
            let plan = scenario.resolve(seed).expect("every seed gives a plan");
            let (record, wall) = timed(plan);
            seconds += record.virtual_ms as f64 / 1_000.0;
            took += wall;
        }
        seconds / took.as_secs_f64()
    };
    let all = catalog::all().expect("the catalog can be read");
    let speeds = all.iter().map(|scenario| (speed(scenario), &scenario.name));
    let worst = speeds.min_by(|(a, _), (b, _)| a.total_cmp(b));
    if let Some((speed, name)) = worst {
        println!(
            "all {} scenarios, {SEEDS_OF_EACH} seeds of each\n  virtual seconds per second, worst: \
             {speed:.0}, {name} (limit: at least {WORST_TARGET:.0})",
            all.len()
        );
    }
}

/// Time and entries of each part, and the part that is at work since a moment.
#[derive(Debug, Default)]
struct Sums {
    of: BTreeMap<Part, (u64, u64)>,
    now: Option<(Part, u64)>,
}

#[derive(Debug, Clone, Default)]
struct Stopwatch(Arc<Mutex<Sums>>);

impl Meter for Stopwatch {
    fn enters(&mut self, part: Part) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = nanoseconds();
        if let Some((before, since)) = sums.now.replace((part, at)) {
            let (spent, entries) = sums.of.entry(before).or_default();
            *spent += at - since;
            *entries += 1;
        }
    }
}

/// Straight from the kernel: inside of a world, the standard library's clock is the world's.
fn nanoseconds() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

fn where_the_time_goes() {
    let watch = Stopwatch::default();
    for seed in 0..METERED {
        let mut of_seed = watch.clone();
        of_seed.enters(Part::World);
        run_metered(plan(seed), Some(Box::new(watch.clone())));
        of_seed.enters(Part::World);
    }
    let sums = watch.0.lock().unwrap_or_else(PoisonError::into_inner);
    let all: u64 = sums.of.values().map(|(spent, _)| spent).sum();
    let mut rows: Vec<_> = sums.of.iter().collect();
    rows.sort_by_key(|(_, (spent, _))| std::cmp::Reverse(*spent));
    println!("where the time of {METERED} storms goes");
    for (part, (spent, entries)) in rows {
        let what = match part {
            Part::World => "the world itself: building, time, faults, the record of what is left",
            Part::Processes => "processes: the processor's workers, and what writes the workload",
            Part::Brokers => "events at brokers",
            Part::Controller => "events at the controller",
            Part::WorkerClients => "events at client libraries of workers",
            Part::LoadClients => "events at client libraries of the workload",
        };
        println!(
            "  {:>5.1} %  {:>10} times, {:>6} ns each  {what}",
            *spent as f64 * 100.0 / all as f64,
            entries,
            spent / entries
        );
    }
}

fn storms(criterion: &mut Criterion) {
    survey();
    worst_scenario();
    where_the_time_goes();
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
