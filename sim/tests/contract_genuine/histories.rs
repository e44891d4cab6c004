//! Histories on both clusters, and what differs.

use crate::cluster::GenuineCluster;
use crate::drive;
use sim::contract::differential::{History, difference, generate, observe, shrink};
use sim::contract::model::play;
use sim::contract::{ClusterUnderTest, Failure};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use xtask::kafka::Cluster;

/// Histories at a time; those in which brokers die are alone.
const LANES: usize = 4;
/// Every so many histories one has the death of a broker in it.
const KILLS_EVERY: u64 = 40;
/// Seed of the simulated cluster's network.
const NETWORK: u64 = 1;

struct Comparison<'a> {
    cluster: &'a Cluster,
    tag: &'a str,
    plays: AtomicU64,
    once: AtomicU64,
    differing: Mutex<Vec<u64>>,
}

/// How both clusters answer differently.
struct Contradiction {
    simulated: String,
    genuine: String,
}

impl Comparison<'_> {
    fn on_genuine(&self, history: &History) -> Result<Vec<String>, Failure> {
        let play = self.plays.fetch_add(1, Ordering::Relaxed);
        let tag = format!("{}-h{play}", self.tag);
        let mut cluster = GenuineCluster::new(self.cluster.clone(), tag, None);
        let seen = drive(observe(&mut cluster, history));
        if seen.is_err() {
            // A broker may be dead still.
            drive(cluster.heal())?;
        }
        seen
    }

    fn contradiction(&self, history: &History) -> Option<Contradiction> {
        let simulated = play(NETWORK, async |cluster| observe(cluster, history).await);
        let genuine = self.on_genuine(history);
        let pair = match (simulated, genuine) {
            (Ok(simulated), Ok(genuine)) => difference(&simulated, &genuine),
            (simulated, genuine) => {
                let tell = |seen: Result<Vec<String>, Failure>| match seen {
                    Ok(_) => "answers".to_owned(),
                    Err(why) => why.to_string(),
                };
                Some((tell(simulated), tell(genuine)))
            }
        };
        pair.map(|(simulated, genuine)| Contradiction { simulated, genuine })
    }

    fn compare(&self, number: u64) {
        let history = generate(number, has_kill(number));
        let Some(Contradiction { simulated, genuine }) = self.contradiction(&history) else {
            return;
        };
        // A genuine cluster on a busy machine loses a broker for a moment now and then: what was seen
        // once is told, and what is seen again is a difference.
        if self.contradiction(&history).is_none() {
            self.once.fetch_add(1, Ordering::Relaxed);
            println!("once only, history {number}:");
            println!("  simulated: {simulated}\n  genuine:   {genuine}");
            return;
        }
        let smallest = shrink(&history, |smaller| self.contradiction(smaller).is_some());
        let mut differing = self.differing.lock().expect("no lane panics with it");
        differing.push(number);
        println!("DIFFERS history {number}:");
        for step in &smallest.steps {
            println!("    {step:?}");
        }
        match self.contradiction(&smallest) {
            Some(Contradiction { simulated, genuine }) => {
                println!("  simulated: {simulated}\n  genuine:   {genuine}");
            }
            None => println!("  not the next time"),
        }
    }
}

fn has_kill(number: u64) -> bool {
    number % KILLS_EVERY == KILLS_EVERY - 1
}

/// Plays the histories of these numbers on both clusters.
#[allow(
    clippy::disallowed_methods,
    reason = "genuine clients live in threads of their own; nothing here is simulated"
)]
pub fn compare(cluster: &Cluster, tag: &str, numbers: Range<u64>) -> ExitCode {
    let comparison = Comparison {
        cluster,
        tag,
        plays: AtomicU64::new(0),
        once: AtomicU64::new(0),
        differing: Mutex::default(),
    };
    let (alone, beside): (Vec<u64>, Vec<u64>) = numbers.clone().partition(|&n| has_kill(n));
    let next = Mutex::new(beside.into_iter());
    let take = || next.lock().expect("no lane panics with it").next();
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(number) = take() {
                    comparison.compare(number);
                }
            });
        }
    });
    let deaths = alone.len();
    for number in alone {
        comparison.compare(number);
    }
    let differing = comparison.differing.lock().expect("all lanes have ended");
    println!(
        "{} histories ({deaths} with the death of a broker) on the simulated cluster and on Kafka {}: \
         {} were answered differently each time, {} once",
        numbers.end - numbers.start,
        cluster.manifest().version,
        differing.len(),
        comparison.once.load(Ordering::Relaxed)
    );
    ExitCode::from(u8::from(!differing.is_empty()))
}
