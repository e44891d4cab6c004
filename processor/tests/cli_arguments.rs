//! The command line of `processor` without a cluster: what it says of wrong arguments and files.
#![allow(
    clippy::disallowed_methods,
    reason = "tests of the binary: real processes and files"
)]

use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::Duration;

fn processor(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_processor"))
        .args(args)
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A configuration file that lives as long as the test.
struct File(PathBuf);

impl File {
    fn new(name: &str, content: &str) -> File {
        let path = std::env::temp_dir().join(format!("tickproof-{}-{name}", std::process::id()));
        std::fs::write(&path, content).expect("a temporary file");
        File(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn example() -> String {
    let printed = processor(&["config"]);
    assert!(printed.status.success());
    text(&printed.stdout)
}

/// Fails with `status`, and says each of `words`.
fn assert_fails(args: &[&str], status: i32, words: &[&str]) {
    let done = processor(args);
    let said = text(&done.stderr);
    assert_eq!(done.status.code(), Some(status), "{args:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{args:?} must say {word:?}:\n{said}");
    }
}

#[test]
fn every_command_has_a_help_text_with_an_example() {
    for command in [
        &["run"][..],
        &["check"],
        &["topics", "create"],
        &["topics", "describe"],
        &["produce"],
        &["dlq", "list"],
        &["dlq", "show"],
        &["dlq", "replay"],
        &["state", "dump"],
        &["config"],
    ] {
        let mut args = command.to_vec();
        args.push("--help");
        let shown = processor(&args);
        assert!(shown.status.success(), "{command:?}");
        let line = format!("  processor {}", command.join(" "));
        let help = text(&shown.stdout);
        assert!(help.contains(&line), "{command:?}:\n{help}");
    }
    let help = text(&processor(&["--help"]).stdout);
    assert!(help.contains("Exit status:"), "{help}");
}

#[test]
fn wrong_arguments_are_told_with_what_is_allowed() {
    let config = File::new("arguments.toml", &example());
    let with = |command: &[&str], rest: &[&str]| -> Vec<String> {
        let all = [command, &["--config", config.path()], rest].concat();
        all.into_iter().map(str::to_owned).collect()
    };
    for (args, words) in [
        (
            with(&["run"], &["--log", "loud"]),
            &["error, warn, info"][..],
        ),
        (with(&["run"], &["--ordinal", "x"]), &["--ordinal"]),
        (with(&["produce"], &[]), &["--generate", "--input"]),
        (
            with(&["produce"], &["--generate", "1", "--input", "f"]),
            &["cannot be used with"],
        ),
        (
            with(&["produce"], &["--generate", "1", "--late", "2"]),
            &["from 0 to 1"],
        ),
        (
            with(&["produce"], &["--generate", "1", "--speed", "2"]),
            &["--input"],
        ),
        (
            with(&["produce"], &["--input", "f", "--speed", "0"]),
            &["above 0"],
        ),
        (
            with(&["topics", "create"], &["--partitions", "0"]),
            &["--partitions"],
        ),
        (
            with(&["dlq", "show"], &["3"]),
            &["PARTITION:OFFSET", "3:17"],
        ),
        (
            with(&["dlq", "list"], &["--error-type", "late"]),
            &["too_late"],
        ),
        (
            with(&["dlq", "list"], &["--since", "noon"]),
            &["30m, 2h or 7d"],
        ),
        (
            with(&["dlq", "replay"], &["--all", "--since", "2h"]),
            &["cannot be used with"],
        ),
        (vec!["fly".to_owned()], &["fly"]),
        (vec!["run".to_owned()], &["--config"]),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        assert_fails(&args, 2, words);
    }
}

#[test]
fn a_configuration_that_is_missing_or_wrong_is_told_with_the_fix() {
    assert_fails(
        &["check", "--config", "/no/such/file.toml"],
        1,
        &["--config /no/such/file.toml", "processor config >"],
    );
    let wrong = File::new(
        "wrong.toml",
        "[kafka]\nbootstrap_server = 1\n[log]\nlevel = \"loud\"",
    );
    assert_fails(
        &["run", "--config", wrong.path()],
        1,
        &[
            "kafka.bootstrap_servers is missing",
            "log.level",
            "did you mean",
            wrong.path(),
        ],
    );
    let right = File::new("right.toml", &example());
    assert_fails(
        &["run", "--config", right.path(), "--set", "kafka"],
        1,
        &["--set kafka", "section.key=value"],
    );
    assert_fails(
        &[
            "run",
            "--config",
            right.path(),
            "--set",
            "commit.interval_ms=0",
        ],
        1,
        &["commit.interval_ms = 0: it must be"],
    );
    assert_fails(
        &["run", "--config", right.path(), "--ordinal", "100000"],
        1,
        &["worker.ordinal = 100000: it must be"],
    );
}

#[test]
fn properties_that_exactly_once_rests_on_cannot_be_changed() {
    let content = example().replace(
        "[kafka.properties]",
        "[kafka.properties]\n\"isolation.level\" = \"read_uncommitted\"",
    );
    let config = File::new("protected.toml", &content);
    for command in [&["run"][..], &["check"], &["topics", "describe"]] {
        let args = [command, &["--config", config.path()]].concat();
        let done = processor(&args);
        let said = text(&done.stderr) + &text(&done.stdout);
        assert_eq!(done.status.code(), Some(1), "{command:?}: {said}");
        assert!(
            said.contains("kafka.properties.\"isolation.level\" cannot be set"),
            "{said}"
        );
    }
}

#[test]
fn a_cluster_that_does_not_answer_is_told() {
    let config = File::new("unreachable.toml", &example());
    let rest = [
        "--config",
        config.path(),
        "--set",
        "kafka.bootstrap_servers=127.0.0.1:1",
        "--set",
        "kafka.request_timeout_ms=500",
    ];
    let words = ["no broker answers at kafka.bootstrap_servers = \"127.0.0.1:1\""];
    assert_fails(&[&["topics", "describe"], &rest[..]].concat(), 1, &words);
    assert_fails(&[&["dlq", "list"], &rest[..]].concat(), 1, &words);
    assert_fails(
        &[&["produce", "--generate", "1"], &rest[..]].concat(),
        1,
        &words,
    );
    let done = processor(&[&["check", "--json"], &rest[..]].concat());
    assert_eq!(done.status.code(), Some(1));
    let findings: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let wrong = findings.as_array().expect("a list").iter();
    let wrong: Vec<_> = wrong
        .filter(|finding| finding["verdict"] == "wrong")
        .collect();
    assert_eq!(wrong.len(), 1, "{findings}");
    assert!(
        wrong[0]["fix"].as_str().expect("a text").contains(words[0]),
        "{findings}"
    );
}

#[test]
fn a_taken_metrics_port_stops_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let config = File::new("taken.toml", &example());
    let listen = format!("metrics.listen={address}");
    assert_fails(
        &["run", "--config", config.path(), "--set", &listen],
        1,
        &["metrics.listen", "choose another port"],
    );
}

/// A processor that finds no broker, and its log so far.
struct Lonely {
    child: Child,
    log: PathBuf,
    _config: File,
}

impl Lonely {
    /// `request_timeout_ms`: how long it asks before it looks at anything else.
    fn start(name: &str, request_timeout_ms: u32) -> Lonely {
        let config = File::new(&format!("{name}.toml"), &example());
        let log = std::env::temp_dir().join(format!("tickproof-{}-{name}.log", std::process::id()));
        let errors = std::fs::File::create(&log).expect("a temporary file");
        let child = Command::new(env!("CARGO_BIN_EXE_processor"))
            .args(["run", "--config", config.path()])
            .args(["--set", "kafka.bootstrap_servers=127.0.0.1:1"])
            .arg("--set")
            .arg(format!("kafka.request_timeout_ms={request_timeout_ms}"))
            .args(["--set", "metrics.listen=127.0.0.1:0"])
            .args(["--set", "state.store=memory"])
            .stderr(errors)
            .spawn()
            .expect("the binary runs");
        Lonely {
            child,
            log,
            _config: config,
        }
    }

    /// Waits until the log has `words`.
    fn wait_for(&mut self, words: &str) {
        let has = |log: &PathBuf| {
            let log = std::fs::read_to_string(log).expect("a log");
            log.contains(words)
        };
        while !has(&self.log) {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "it has ended before it said {words:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    fn status(&mut self) -> Option<i32> {
        self.child.wait().expect("a child").code()
    }
}

impl Drop for Lonely {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}

#[test]
fn a_processor_that_has_not_started_yet_ends_at_the_first_signal() {
    let mut lonely = Lonely::start("first-signal", 500);
    lonely.wait_for("starting");
    lonely.signal("TERM");
    assert_eq!(lonely.status(), Some(0));
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for (signal, status) in [("TERM", 143), ("INT", 130)] {
        let mut lonely = Lonely::start(signal, 120_000);
        lonely.wait_for("starting");
        lonely.signal(signal);
        lonely.wait_for("stopping: commit");
        lonely.signal(signal);
        assert_eq!(lonely.status(), Some(status));
    }
}
