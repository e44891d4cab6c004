//! Plans that once failed hold for ever: every file of `regressions/` is played. One with a planted bug
//! holds without it, and is accused with it. Those of `regressions/published` plant the bugs that
//! somebody else's software had.

use properties::Property;
use scenarios::plan_file;
use scenarios::runner::{Order, Played, play};
use scenarios::shrink::judge::{self, Failure};
use sim::plan::Plan;
use sim::sabotage::Sabotage;
use std::path::{Path, PathBuf};

fn plans(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is part of the crate")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> Plan {
    plan_file::read(path).unwrap_or_else(|e| panic!("{e}"))
}

fn played(path: &Path, plan: &Plan, twice: bool) -> Played {
    let replay = format!("cargo run --release -- play {}", path.display());
    let order = Order {
        plan,
        expect: &[],
        input: None,
        trace: false,
        twice,
        replay: &replay,
    };
    play(&order).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn holds(path: &Path, plan: &Plan) {
    let played = played(path, plan, true);
    let text = played.report.text();
    assert!(played.report.held(), "{}\n{text}", path.display());
}

#[test]
fn plans_that_once_failed_hold() {
    for path in plans("regressions") {
        let plan = read(&path);
        if let Some(bug) = &plan.bug {
            let property = Property::ALL.into_iter().find(|p| p.name() == bug.property);
            let property = property.unwrap_or_else(|| panic!("{}: {bug:?}", path.display()));
            let accused = judge::fails(&plan, &Failure::Property(property));
            assert!(accused, "{}: {bug:?} is not noticed", path.display());
        }
        holds(&path, &judge::without_bug(&plan));
    }
}

#[test]
fn published_bugs_show_where_they_are_and_nowhere_else() {
    for path in plans("regressions/published") {
        let mut plan = read(&path);
        let bug = plan.bug.clone().expect("a published bug is planted");
        let failed = played(&path, &plan, false).report.verdicts.failed();
        let shown = failed
            .iter()
            .any(|property| property.name() == bug.property);
        assert!(shown, "{}: only {failed:?} failed", path.display());
        plan.bug = None;
        holds(&path, &plan);
    }
}

#[test]
fn every_published_bug_has_a_plan() {
    let bugs: Vec<_> = plans("regressions/published")
        .iter()
        .map(|path| read(path).bug.expect("a published bug is planted"))
        .collect();
    for promise in Sabotage::PUBLISHED {
        assert!(bugs.iter().any(|bug| bug.promise == promise), "{promise}");
    }
    for bug in bugs {
        let known = Property::ALL.iter().any(|p| p.name() == bug.property);
        assert!(known, "{}", bug.property);
    }
}
