//! Real trading days through the simulated world. The data lies beside the project, at
//! `../shared/data` from its root; where it does not, these tests say so and pass.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Day {
    name: &'static str,
    trades: u64,
}

const DAYS: [Day; 2] = [
    Day {
        name: "2013-10-07",
        trades: 388_417,
    },
    Day {
        name: "2013-10-08",
        trades: 654_140,
    },
];

fn data(file: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data")
        .join(file);
    if !path.exists() {
        eprintln!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

/// Plays a day and returns what `--json` says.
fn play(scenario: &str, day: &Day) -> Option<Value> {
    let input = data(&format!("us-equity-trades-{}.jsonl.gz", day.name))?;
    let bars = data(&format!("us-equity-minute-bars-{}.csv", day.name))?;
    let output = Command::new(env!("CARGO_BIN_EXE_tickproof"))
        .args([
            "--json",
            "play",
            scenario,
            "--once",
            "--no-report",
            "--input",
        ])
        .arg(input)
        .arg("--bars")
        .arg(bars)
        .output()
        .expect("the binary was built for this test");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    Some(serde_json::from_slice(&output.stdout).expect("--json prints JSON"))
}

fn every_trade_is_in_a_window(scenario: &str, day: &Day) {
    let Some(report) = play(scenario, day) else {
        return;
    };
    assert_eq!(report["events_in_windows"], day.trades, "{report}");
    assert_eq!(report["dead_letters"], 0, "{report}");
    let number = |name: &str| report["bars"][name].as_u64().expect("a number");
    assert!(
        number("equal") * 100 >= number("compared") * 99,
        "fewer than 99 % of the volumes agree: {report}"
    );
}

#[test]
fn a_calm_day_is_complete_and_agrees_with_the_vendor() {
    for day in &DAYS {
        every_trade_is_in_a_window("calm", day);
    }
}

#[test]
fn a_stormy_day_is_complete_and_agrees_with_the_vendor() {
    for day in &DAYS {
        every_trade_is_in_a_window("storm", day);
    }
}
