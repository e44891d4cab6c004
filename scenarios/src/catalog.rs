//! The scenarios that ship with the binary, one file of `catalog/` each.

use crate::scenario::{Scenario, ScenarioError};

/// Name and text of every scenario file, in the order in which they are proved.
const FILES: &[(&str, &str)] = &[
    ("calm", include_str!("../catalog/calm.toml")),
    ("job-crash", include_str!("../catalog/job-crash.toml")),
    (
        "broker-loss-one",
        include_str!("../catalog/broker-loss-one.toml"),
    ),
    (
        "broker-loss-two",
        include_str!("../catalog/broker-loss-two.toml"),
    ),
    (
        "broker-loss-all",
        include_str!("../catalog/broker-loss-all.toml"),
    ),
    ("bad-data", include_str!("../catalog/bad-data.toml")),
    ("late-data", include_str!("../catalog/late-data.toml")),
    (
        "very-late-data",
        include_str!("../catalog/very-late-data.toml"),
    ),
    (
        "duplicate-event",
        include_str!("../catalog/duplicate-event.toml"),
    ),
    ("loss", include_str!("../catalog/loss.toml")),
    (
        "duplicate-output",
        include_str!("../catalog/duplicate-output.toml"),
    ),
    ("disorder", include_str!("../catalog/disorder.toml")),
    ("backlog", include_str!("../catalog/backlog.toml")),
    ("rebalance", include_str!("../catalog/rebalance.toml")),
    (
        "offsets-expired",
        include_str!("../catalog/offsets-expired.toml"),
    ),
    ("offset-reset", include_str!("../catalog/offset-reset.toml")),
    (
        "topic-recreated",
        include_str!("../catalog/topic-recreated.toml"),
    ),
    (
        "partitions-added",
        include_str!("../catalog/partitions-added.toml"),
    ),
    (
        "retention-passed",
        include_str!("../catalog/retention-passed.toml"),
    ),
    (
        "replay-deleted",
        include_str!("../catalog/replay-deleted.toml"),
    ),
    (
        "old-configuration",
        include_str!("../catalog/old-configuration.toml"),
    ),
    ("power-loss", include_str!("../catalog/power-loss.toml")),
    ("storm", include_str!("../catalog/storm.toml")),
];

/// Names of all scenarios, in the order in which they are proved.
#[must_use]
pub fn names() -> Vec<&'static str> {
    FILES.iter().map(|(name, _)| *name).collect()
}

/// One scenario by name.
///
/// # Errors
/// When there is none of that name (the message lists all), or its file is wrong.
pub fn find(name: &str) -> Result<Scenario, ScenarioError> {
    let (name, text) = FILES
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| ScenarioError::Unknown {
            name: name.to_owned(),
            known: names().join(", "),
        })?;
    Scenario::parse(name, text)
}

/// All scenarios, in the order in which they are proved.
///
/// # Errors
/// When a file is wrong.
pub fn all() -> Result<Vec<Scenario>, ScenarioError> {
    FILES
        .iter()
        .map(|(name, text)| Scenario::parse(name, text))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{all, find, names};
    use std::path::Path;

    #[test]
    fn every_file_of_the_catalog_folder_is_listed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("catalog");
        let mut found: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder is part of the crate")
            .map(|entry| entry.expect("readable").path())
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        found.sort();
        let mut listed: Vec<&str> = names();
        listed.sort_unstable();
        assert_eq!(found, listed);
    }

    #[test]
    fn every_scenario_resolves_for_many_seeds_to_a_sound_plan() {
        for scenario in all().expect("the catalog is sound") {
            for seed in 0..50 {
                let plan = scenario.resolve(seed).expect("resolves");
                assert_eq!(plan, scenario.resolve(seed).expect("resolves again"));
                plan.check()
                    .unwrap_or_else(|e| panic!("{}: {e}", scenario.name));
            }
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = find("strom").expect_err("there is none").to_string();
        assert!(
            error.contains("storm") && error.contains("strom"),
            "{error}"
        );
    }
}
