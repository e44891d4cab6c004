//! The contract on a genuine cluster, which `cargo xtask kafka up` has started.
//!
//! `cargo test -p sim --features genuine --test contract_genuine -- [--cluster NAME] [--debug
//! LIST] [PART OF A NAME]…`, where the list is librdkafka's `debug`, for example `eos,protocol`.
//!
//! With `--histories N` (and `--from NUMBER`), N generated histories are played on both clusters instead,
//! and must be answered alike; in every fortieth a broker dies.
//!
//! Behaviours that leave the brokers alone are tried four at a time, the others one after the other.

mod admin;
mod batches;
mod cluster;
mod codes;
mod connection;
mod histories;
mod members;
mod notes;
mod translate;

use cluster::GenuineCluster;
use notes::Notes;
use sim::contract::{Behaviour, ClusterUnderTest, Failure, Needs, behaviours};
use std::collections::BTreeMap;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use xtask::kafka::Cluster;

/// Behaviours at a time.
const LANES: usize = 4;
/// No behaviour takes as long, on any machine, also when its cluster does not heal: a call in it does not
/// come back.
const HANGS_AFTER: Duration = Duration::from_secs(480);

struct Arguments {
    cluster: String,
    /// librdkafka's `debug`.
    debug: Option<String>,
    histories: u64,
    from: u64,
    wanted: Vec<String>,
}

fn number(word: Option<String>) -> u64 {
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn arguments() -> Arguments {
    let mut arguments = Arguments {
        cluster: "main".into(),
        debug: None,
        histories: 0,
        from: 0,
        wanted: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--cluster" => arguments.cluster = words.next().unwrap_or_default(),
            "--histories" => arguments.histories = number(words.next()),
            "--from" => arguments.from = number(words.next()),
            "--debug" => arguments.debug = words.next(),
            word if word.starts_with('-') => {}
            word => arguments.wanted.push(word.to_owned()),
        }
    }
    arguments
}

/// Runs a future of calls that block: it never waits.
fn drive<R>(future: impl Future<Output = Result<R, Failure>>) -> Result<R, Failure> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    match future.as_mut().poll(&mut context) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(Failure("a genuine client did not block".into())),
    }
}

/// What became of all behaviours.
#[derive(Default)]
struct Tally {
    held: usize,
    failed: Vec<&'static str>,
}

struct Run {
    cluster: Cluster,
    /// Differs from run to run.
    tag: String,
    debug: Option<String>,
    tally: Mutex<Tally>,
    /// Behaviours under way, and since when.
    under_way: Mutex<BTreeMap<&'static str, (Instant, Notes)>>,
}

impl Run {
    fn under_way(&self) -> MutexGuard<'_, BTreeMap<&'static str, (Instant, Notes)>> {
        self.under_way.lock().expect("no lane panics with it")
    }

    /// Ends the process when a behaviour hangs: its thread cannot be ended.
    #[allow(
        clippy::disallowed_methods,
        reason = "measures calls of genuine clients; nothing here is simulated"
    )]
    fn watch(&self) -> ! {
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let under_way = self.under_way();
            let mut all = under_way.iter();
            let hangs = all.find(|(_, (begun, _))| begun.elapsed() > HANGS_AFTER);
            if let Some((name, (_, notes))) = hangs {
                println!("HANGS  {name}: no end within {HANGS_AFTER:?}\n{notes}");
                std::process::exit(1);
            }
        }
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "tells people how long a behaviour took on a genuine cluster"
    )]
    fn try_one(&self, number: usize, behaviour: &Behaviour<GenuineCluster>) {
        let tag = format!("{}-{number}", self.tag);
        let begun = Instant::now();
        let mut cluster = GenuineCluster::new(self.cluster.clone(), tag, self.debug.clone());
        let notes = cluster.notes();
        self.under_way()
            .insert(behaviour.name, (begun, notes.clone()));
        let outcome = drive((behaviour.run)(&mut cluster));
        let took = begun.elapsed().as_millis();
        // Whatever a behaviour left behind must not reach the next one.
        if outcome.is_err() {
            let healed = match behaviour.needs {
                Needs::Solitude => drive(cluster.heal()),
                Needs::Nothing | Needs::Forgetfulness => drive(cluster.clean_up()),
            };
            if let Err(why) = healed {
                println!("the cluster does not heal: {why}");
            }
        }
        self.under_way().remove(behaviour.name);
        let name = format!("{}::{}", behaviour.area, behaviour.name);
        let mut tally = self.tally.lock().expect("no lane panics with it");
        match outcome {
            Ok(()) => {
                tally.held += 1;
                println!("holds  {name} ({}) {took} ms", behaviour.source);
            }
            Err(why) => {
                tally.failed.push(behaviour.name);
                let source = behaviour.source;
                println!("FAILS  {name} ({source}) {took} ms\n    {why}\n{notes}");
            }
        }
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "genuine clients live in threads of their own; nothing here is simulated"
    )]
    fn try_all(&self, behaviours: &[Behaviour<GenuineCluster>]) {
        let of = |needs: Needs| {
            let numbered = behaviours.iter().enumerate();
            let found = numbered.filter(move |(_, behaviour)| behaviour.needs == needs);
            found.collect::<Vec<_>>()
        };
        let (beside, alone) = (of(Needs::Nothing), of(Needs::Solitude));
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..LANES {
                scope.spawn(|| {
                    while let Some((number, behaviour)) =
                        beside.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        self.try_one(*number, behaviour);
                    }
                });
            }
            // They wait for most of their time.
            for (number, behaviour) in of(Needs::Forgetfulness) {
                scope.spawn(move || self.try_one(number, behaviour));
            }
        });
        for (number, behaviour) in alone {
            self.try_one(number, behaviour);
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "names of topics must differ from those of earlier runs on the same cluster"
)]
fn tag() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    format!("c{}", now.map_or(0, |now| now.as_millis()))
}

#[allow(
    clippy::disallowed_methods,
    reason = "a thread that watches genuine clients; nothing here is simulated"
)]
fn main() -> ExitCode {
    let arguments = arguments();
    let cluster = match Cluster::open(&xtask::root(), &arguments.cluster) {
        Ok(cluster) => cluster,
        Err(why) => {
            println!("{why:#}");
            return ExitCode::from(2);
        }
    };
    if arguments.debug.is_some() {
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .init();
    }
    let version = cluster.manifest().version.clone();
    if arguments.histories > 0 {
        let numbers = arguments.from..arguments.from + arguments.histories;
        return histories::compare(&cluster, &tag(), numbers);
    }
    let mut chosen = behaviours::<GenuineCluster>();
    chosen.retain(|behaviour| {
        let name = format!("{}::{}", behaviour.area, behaviour.name);
        let wanted = &arguments.wanted;
        wanted.is_empty() || wanted.iter().any(|word| name.contains(word))
    });
    if !cluster.is_forgetful() {
        chosen.retain(|behaviour| {
            let skipped = behaviour.needs == Needs::Forgetfulness;
            if skipped {
                let name = format!("{}::{}", behaviour.area, behaviour.name);
                println!("skipped {name}: it takes a cluster that was started with --forgetful");
            }
            !skipped
        });
    }
    let run = Arc::new(Run {
        cluster,
        tag: tag(),
        debug: arguments.debug,
        tally: Mutex::default(),
        under_way: Mutex::default(),
    });
    let watched = Arc::clone(&run);
    std::thread::spawn(move || watched.watch());
    run.try_all(&chosen);
    let tally = run.tally.lock().expect("all lanes have ended");
    let failed = tally.failed.len();
    println!(
        "{} behaviours hold on Kafka {version}, {failed} fail: {}",
        tally.held,
        tally.failed.join(", ")
    );
    ExitCode::from(u8::from(failed > 0))
}
