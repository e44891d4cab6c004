//! Plans that once failed hold for ever: every file of `regressions/` is played.

use scenarios::plan_file;
use scenarios::runner::{Order, play};
use std::path::{Path, PathBuf};

fn plans() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is part of the crate")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn plans_that_once_failed_hold() {
    for path in plans() {
        let plan = plan_file::read(&path).unwrap_or_else(|e| panic!("{e}"));
        let replay = format!("cargo run --release -- play {}", path.display());
        let order = Order {
            plan: &plan,
            expect: &[],
            input: None,
            trace: false,
            twice: true,
            sabotage: None,
            replay: &replay,
        };
        let played = play(&order).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(played.report.held(), "{}", played.report.text());
    }
}
