//! The command line as a user meets it: messages and exit statuses.

use std::process::{Command, Output};

fn tickproof(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tickproof"))
        .args(arguments)
        .current_dir(env!("CARGO_TARGET_TMPDIR")) // reports go below it
        .output()
        .expect("the binary was built for this test")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn list_names_every_scenario() {
    let output = tickproof(&["list"]);
    assert_eq!(output.status.code(), Some(0));
    for name in scenarios::catalog::names() {
        assert!(text(&output).contains(name), "{name}");
    }
    let json = tickproof(&["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(
        listed.as_array().map(Vec::len),
        Some(scenarios::catalog::names().len())
    );
}

#[test]
fn wrong_usage_ends_with_2_and_names_the_fix() {
    let cases: [(&[&str], &str); 11] = [
        (&["play", "strom"], "use one of: calm"),
        (&["play", "nowhere.toml"], "tickproof plan"),
        (
            &["play", "calm", "--input", "/nowhere.jsonl"],
            "give the path of a readable file",
        ),
        (
            &["play", "calm", "--bars", "/nowhere.csv"],
            "give a CSV file",
        ),
        (&["prove", "--seeds", "5"], "for example 0..20"),
        (&["prove", "--scenario", "strom"], "use one of: calm"),
        (&["prove", "--jobs", "0"], "--jobs"),
        (
            &["shrink", "calm", "--seed", "1"],
            "give the seed or the plan file of a run that failed",
        ),
        (&["shrink", "--bug", "mischief"], "use one of: records-lost"),
        (
            &["shrink", "--property", "beauty"],
            "use one of: conservation",
        ),
        (
            &["shrink", "--keep", "no/name"],
            "letters, digits and dashes",
        ),
    ];
    for (arguments, fix) in cases {
        let output = tickproof(arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            errors(&output)
        );
        assert!(
            errors(&output).contains(fix),
            "{arguments:?}: {}",
            errors(&output)
        );
    }
}

#[test]
fn help_of_every_subcommand_shows_examples() {
    for arguments in [
        &["--help"][..],
        &["list", "--help"],
        &["play", "--help"],
        &["prove", "--help"],
        &["plan", "--help"],
        &["shrink", "--help"],
    ] {
        let output = tickproof(arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output).contains("Examples:"), "{arguments:?}");
    }
}

#[test]
fn a_shrunk_plan_is_a_file_that_tells_its_story() {
    let folder = std::env::temp_dir().join("tickproof-shrink");
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let file = folder.join("small.toml").display().to_string();
    let bug = ["shrink", "--seed", "0", "--bug", "watermark-back"];
    let output = tickproof(&[&bug[..], &["--property", "causality", "--out", &file]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(errors(&output).contains("0 faults"), "{}", errors(&output));
    for words in ["worker 0", "commits the transaction", "causality: "] {
        assert!(text(&output).contains(words), "{}", text(&output));
    }
    let played = tickproof(&["play", &file, "--story"]);
    assert_eq!(played.status.code(), Some(1), "{}", errors(&played));
    let story = text(&played);
    let story = story.split("\n\n").next().unwrap_or_default();
    assert!(text(&output).contains(story), "{story}");
}

#[test]
fn a_printed_plan_is_the_same_each_time() {
    let output = tickproof(&["plan", "storm", "--seed", "17"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(
        text(&output),
        text(&tickproof(&["plan", "storm", "--seed", "17"]))
    );
    assert_ne!(
        text(&output),
        text(&tickproof(&["plan", "storm", "--seed", "18"]))
    );
}

#[cfg(not(feature = "kafka"))]
#[test]
fn an_audit_without_a_kafka_client_names_the_build_that_has_one() {
    let output = tickproof(&["audit", "--config", "processor.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let fix = "--features kafka -- audit --config processor.toml";
    assert!(errors(&output).contains(fix), "{}", errors(&output));
}

#[cfg(feature = "kafka")]
#[test]
fn an_audit_of_nothing_ends_with_2_and_names_the_fix() {
    let output = tickproof(&["audit", "--config", "/nowhere.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let fix = "give the processor's configuration file by --config";
    assert!(errors(&output).contains(fix), "{}", errors(&output));
}
