//! `processor run`: the workers of one process.

use super::config::ConfigArgs;
use super::{FAILED, REFUSED, lag, signals, stores};
use clap::Args;
use futures_util::future::{Either, select};
use object_store::ObjectStore;
use processor::adapters::clock::SystemClock;
use processor::adapters::kafka::RdKafka;
use processor::adapters::telemetry::{Health, Metrics, Telemetry, WorkerState, logs, server};
use processor::config::{LogLevel, ProcessorConfig};
use processor::worker::{Parts, StopSignal, Worker, WorkerError};
use std::any::Any;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, Handle, Runtime};
use tracing::{error, info, info_span};

const HELP: &str = "\
It logs JSON lines to standard error and serves /metrics, /healthz and /readyz on metrics.listen.

SIGTERM or SIGINT: the workers commit, store a snapshot, commit it, and leave the group; the next start
has nothing to replay. While no broker answers, that waits for one. A second signal ends the process at once;
the next start replays from the last snapshot, and no result is lost or doubled.

One worker's error stops the others cleanly. Exit status 1 means: start it again (a supervisor should, after
a pause). Exit status 3 means: it refuses to continue, because that could break exactly-once; the log says
why and what to decide.

Example:
  processor run --config processor.toml";

/// Runs the processor until it is told to stop.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Ordinal of the first worker, instead of worker.ordinal: no two running workers of a group may have
    /// the same
    #[arg(long, value_name = "N")]
    ordinal: Option<u32>,
    /// How much is logged, instead of log.level: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    log: Option<LogLevel>,
}

fn parse_level(text: &str) -> Result<LogLevel, String> {
    let mut levels = LogLevel::ALL.into_iter();
    levels
        .find(|level| level.name() == text)
        .ok_or_else(|| "it must be error, warn, info, debug or trace".to_owned())
}

/// What the workers of a process share.
struct Shared {
    config: ProcessorConfig,
    kafka: RdKafka,
    objects: Arc<dyn ObjectStore>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    stop: StopSignal,
    runtime: Handle,
}

/// How a worker has ended; a panic as its message.
type Ended = (u32, Result<Result<(), WorkerError>, String>);

pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load_for(args.ordinal)?;
    logs::init(args.log.unwrap_or(config.log.level))?;
    std::panic::set_hook(Box::new(|panic| error!(%panic, "a thread has panicked")));
    // The workers' threads are their own; these drive what they wait for: object store, timers, HTTP.
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (ordinal, count) = (config.worker.ordinal, config.worker.count);
    let shared = Arc::new(Shared {
        kafka: RdKafka::new(&config.kafka)?,
        objects: stores::checkpoints(&config)?,
        metrics: Arc::new(Metrics::new()),
        health: Arc::new(Health::new(ordinal, count, patience(&config))),
        stop: StopSignal::default(),
        runtime: runtime.handle().clone(),
        config,
    });
    serve_telemetry(&runtime, &shared)?;
    stop_on_signal(&shared)?;
    let (sender, ended) = channel();
    for ordinal in ordinal..ordinal + count {
        start_worker(ordinal, &shared, sender.clone())?;
    }
    drop(sender);
    let status = wait(&shared, &ended);
    // What is left of the runtime's work must not delay the end.
    runtime.shutdown_background();
    Ok(ExitCode::from(status))
}

/// A worker that is well polls at least this often: its longest wait is one blocking call.
fn patience(config: &ProcessorConfig) -> Duration {
    let worker = &config.worker;
    Duration::from_millis(
        worker.poll_timeout_ms + config.commit.interval_ms + 2 * config.kafka.request_timeout_ms,
    )
}

fn serve_telemetry(runtime: &Runtime, shared: &Shared) -> anyhow::Result<()> {
    let Some(address) = shared.config.metrics.listen else {
        return Ok(());
    };
    let (metrics, health) = (Arc::clone(&shared.metrics), Arc::clone(&shared.health));
    let address = runtime.block_on(server::serve(address, metrics, health))?;
    info!(%address, "metrics are served");
    lag::watch(&shared.config.kafka, Arc::clone(&shared.metrics))
}

/// The first signal stops the workers, the second one the process.
fn stop_on_signal(shared: &Arc<Shared>) -> anyhow::Result<()> {
    let shared = Arc::clone(shared);
    signals::watch(move |ending, before| {
        let signal = ending.name;
        if before > 0 {
            error!(signal, "second signal: ending at once");
            std::process::exit(ending.status);
        }
        info!(signal, "stopping: commit, snapshot, leave the group");
        stop_all(&shared);
    })
}

fn stop_all(shared: &Shared) {
    let worker = &shared.config.worker;
    shared.stop.stop();
    for ordinal in worker.ordinal..worker.ordinal + worker.count {
        shared.health.stopping(ordinal);
    }
}

/// Starts a worker on a thread of its own.
fn start_worker(ordinal: u32, shared: &Arc<Shared>, ended: Sender<Ended>) -> anyhow::Result<()> {
    let shared = Arc::clone(shared);
    let work = move || {
        let incarnation = incarnation(ordinal);
        let span = info_span!("worker", worker = ordinal, incarnation);
        let _inside = span.enter();
        let result = catch_unwind(AssertUnwindSafe(|| {
            work(ordinal, incarnation.clone(), &shared)
        }));
        // The receiver lives until every worker has ended.
        let _ = ended.send((ordinal, result.map_err(|panic| message_of(&*panic))));
    };
    std::thread::Builder::new()
        .name(format!("worker-{ordinal}"))
        .spawn(work)?;
    Ok(())
}

fn work(ordinal: u32, incarnation: String, shared: &Shared) -> Result<(), WorkerError> {
    info!("starting");
    let mut config = shared.config.clone();
    config.worker.ordinal = ordinal;
    let (metrics, health) = (Arc::clone(&shared.metrics), Arc::clone(&shared.health));
    let parts = Parts {
        kafka: shared.kafka.clone(),
        state: stores::state(&config, &incarnation)?,
        objects: Arc::clone(&shared.objects),
        clock: SystemClock::new(),
        observer: Telemetry::new(ordinal, metrics, health),
        incarnation,
    };
    let worker = Worker::new(Arc::new(config), parts)?;
    shared.runtime.block_on(async {
        let run = pin!(worker.run(shared.stop.clone()));
        match select(run, pin!(stopped_before_its_start(ordinal, shared))).await {
            Either::Left((ended, _)) => ended,
            Either::Right(_) => Ok(()),
        }
    })
}

/// Ends when the worker is to stop and has not polled yet, because no broker answers: then it owns nothing
/// that would have to be committed.
async fn stopped_before_its_start(ordinal: u32, shared: &Shared) {
    const STEP: Duration = Duration::from_millis(100);
    loop {
        tokio::time::sleep(STEP).await;
        if !shared.health.is_starting(ordinal) {
            return std::future::pending().await;
        }
        if shared.stop.is_stopped() {
            return;
        }
    }
}

/// Waits for all workers. The first failure stops the others.
fn wait(shared: &Shared, ended: &Receiver<Ended>) -> u8 {
    let mut status = 0;
    for (ordinal, result) in ended {
        status = status.max(tell_end(shared, ordinal, result));
        if status != 0 && !shared.stop.is_stopped() {
            info!("stopping the other workers");
            stop_all(shared);
        }
    }
    status
}

fn tell_end(shared: &Shared, worker: u32, result: Result<Result<(), WorkerError>, String>) -> u8 {
    let (metrics, health) = (&*shared.metrics, &*shared.health);
    match result {
        Ok(ended) => {
            Telemetry::tell_end(worker, metrics, health, &ended);
            match ended {
                Ok(()) => 0,
                Err(error) if error.is_refusal() => REFUSED,
                Err(_) => FAILED,
            }
        }
        Err(panic) => {
            health.set(worker, WorkerState::Failed);
            error!(
                worker,
                panic, "the worker has panicked: a defect of this program, or damaged memory"
            );
            FAILED
        }
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// A name unlike that of any other start: the time, and what the operating system draws.
fn incarnation(ordinal: u32) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = since.map_or(0, |since| since.as_millis());
    let drawn = RandomState::new().hash_one((now_ms, std::process::id()));
    format!("{ordinal}-{now_ms:x}-{drawn:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_starts_have_one_name_and_commit_records_can_carry_it() {
        let (one, other) = (incarnation(99_999), incarnation(99_999));
        assert_ne!(one, other);
        assert!(one.len() <= 40, "{one}");
        assert!(
            one.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        );
    }

    #[test]
    fn a_panic_is_told_by_its_message() {
        let panic = catch_unwind(|| panic!("offset {}", 7)).expect_err("it panics");
        assert_eq!(message_of(&*panic), "offset 7");
        let panic = catch_unwind(|| panic!("plain")).expect_err("it panics");
        assert_eq!(message_of(&*panic), "plain");
    }
}
