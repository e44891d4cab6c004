//! The contract on the simulated cluster: every behaviour, with several seeds.
//!
//! `CONTRACT` behaviours can be picked by a part of their names: `cargo test -p sim --test
//! contract_model -- fencing`.

use sim::contract::behaviours;
use sim::contract::differential::{difference, generate, observe};
use sim::contract::model::{SimulatedCluster, play};
use std::process::ExitCode;

const SEEDS: u64 = 3;
const HISTORIES: u64 = 200;

/// True when the answers to a history depend on the network's moods, or cannot be had.
fn differs(number: u64) -> bool {
    let history = generate(number, number.is_multiple_of(10));
    let [one, other] = [1, 2].map(|seed| play(seed, async |c| observe(c, &history).await));
    let why = match (one, other) {
        (Ok(one), Ok(other)) => difference(&one, &other).map(|pair| format!("{pair:?}")),
        (one, other) => Some(format!("{:?}, {:?}", one.err(), other.err())),
    };
    if let Some(why) = &why {
        println!("DIFFERS history {number}: {why}");
    }
    why.is_some()
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let mut failed = 0;
    let mut held = 0;
    for behaviour in behaviours::<SimulatedCluster>() {
        let name = format!("{}::{}", behaviour.area, behaviour.name);
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word)) {
            continue;
        }
        let failures: Vec<String> = (0..SEEDS)
            .filter_map(|seed| {
                let outcome = play(seed, async |cluster| (behaviour.run)(cluster).await);
                outcome.err().map(|why| format!("    seed {seed}: {why}"))
            })
            .collect();
        if failures.is_empty() {
            held += 1;
            println!("holds  {name} ({})", behaviour.source);
        } else {
            failed += 1;
            println!(
                "FAILS  {name} ({})\n{}",
                behaviour.source,
                failures.join("\n")
            );
        }
    }
    let differing = (0..HISTORIES).filter(|&number| differs(number)).count();
    failed += differing;
    println!("{HISTORIES} histories, each twice: {differing} were answered differently");
    println!(
        "{held} behaviours hold on the simulated cluster with {SEEDS} seeds each, {failed} fail"
    );
    ExitCode::from(u8::from(failed > 0))
}
