//! Metrics as a scraper sees them, health, and the observer that feeds both.

use bytes::Bytes;
use processor::adapters::telemetry::{Health, Metrics, Telemetry, server};
use processor::core::{Counters, Destination, OutputRecord};
use processor::io::{ErrorClass, KafkaError};
use processor::units::{LogTimeMs, Offset, PartitionId, Watermark};
use processor::worker::{Observer, Rebalance, WorkerError, WorkerEvent};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const P: PartitionId = PartitionId(3);

struct Told {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    telemetry: Telemetry,
}

fn told() -> Told {
    let metrics = Arc::new(Metrics::new());
    let health = Arc::new(Health::new(7, 1, Duration::from_secs(3_600)));
    let telemetry = Telemetry::new(7, Arc::clone(&metrics), Arc::clone(&health));
    Told {
        metrics,
        health,
        telemetry,
    }
}

fn dead_letter() -> OutputRecord {
    OutputRecord {
        destination: Destination::DeadLetters,
        sequence: 0,
        timestamp: LogTimeMs(0),
        key: Some(Bytes::from_static(b"AMZN")),
        value: Bytes::from_static(b"{\"error_type\":\"too_late\",\"message\":\"x\"}"),
        headers: Vec::new(),
    }
}

/// A life with one event of each kind.
fn live(telemetry: &Telemetry) {
    let partition = P;
    let error = KafkaError {
        call: "commit_transaction",
        code: "REQUEST_TIMED_OUT".to_owned(),
        class: ErrorClass::Retriable,
    };
    let added = Counters {
        records: 10,
        accepted: 7,
        duplicates: 2,
        dead_letters: 1,
        results: 4,
    };
    let outputs = [dead_letter()];
    let events = [
        WorkerEvent::ProducerReplaced { reason: "start" },
        WorkerEvent::Polled,
        WorkerEvent::Rebalanced {
            kind: Rebalance::Assigned,
            partitions: &[partition],
        },
        WorkerEvent::Postponed { partition },
        WorkerEvent::Recovering {
            partition,
            from: Offset(90),
            to: Offset(100),
            term: 5,
        },
        WorkerEvent::Recovered {
            partition,
            at: Offset(100),
        },
        WorkerEvent::Progress {
            partition,
            term: 5,
            committed: Offset(110),
            watermark: Watermark(1_700_000_000_500),
            added,
            outputs: &outputs,
        },
        WorkerEvent::Committed {
            partitions: 1,
            outputs: 1,
            took: Duration::from_millis(30),
        },
        WorkerEvent::Aborted(&error),
        WorkerEvent::Retrying(&error),
        WorkerEvent::Resolved { committed: true },
        WorkerEvent::Snapshotted {
            partition,
            at: Offset(110),
            uploaded: 2,
            uploaded_bytes: 4_096,
            took: Duration::from_millis(80),
        },
        WorkerEvent::SnapshotFailed {
            partition,
            cause: "no space".to_owned(),
        },
        WorkerEvent::Forced {
            partition,
            at: Offset(110),
            watermark: Watermark(1_700_000_100_000),
        },
        WorkerEvent::FellBack {
            partition,
            to: "older",
            cause: "damaged",
        },
        WorkerEvent::Spilled {
            partition,
            bytes: 512,
        },
        WorkerEvent::Outdated,
        WorkerEvent::SetBack { partition },
        WorkerEvent::Fresh {
            partition: PartitionId(4),
            at: Offset(0),
        },
        WorkerEvent::Collected {
            partition,
            objects: 6,
        },
    ];
    for event in &events {
        telemetry.observe(event);
    }
}

fn value_of(text: &str, sample: &str) -> Option<f64> {
    let line = text.lines().find(|line| {
        let name = line.rsplit_once(' ').map(|(name, _)| name);
        name == Some(sample)
    })?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn every_event_is_counted_under_its_name() {
    let told = told();
    live(&told.telemetry);
    told.metrics.set_end(P, Offset(150));
    let text = told.metrics.text();
    for (sample, expected) in [
        (
            "tickproof_records_total{worker=\"7\",partition=\"3\",outcome=\"accepted\"}",
            7.0,
        ),
        (
            "tickproof_records_total{worker=\"7\",partition=\"3\",outcome=\"duplicate\"}",
            2.0,
        ),
        (
            "tickproof_records_total{worker=\"7\",partition=\"3\",outcome=\"dead_letter\"}",
            1.0,
        ),
        ("tickproof_results_total{worker=\"7\",partition=\"3\"}", 4.0),
        (
            "tickproof_output_bytes_total{worker=\"7\",partition=\"3\"}",
            43.0,
        ),
        (
            "tickproof_dead_letters_total{worker=\"7\",error_type=\"too_late\"}",
            1.0,
        ),
        ("tickproof_lag_records{worker=\"7\",partition=\"3\"}", 40.0),
        (
            "tickproof_committed_offset{worker=\"7\",partition=\"3\"}",
            110.0,
        ),
        (
            "tickproof_partition_term{worker=\"7\",partition=\"3\"}",
            5.0,
        ),
        (
            "tickproof_watermark_timestamp_seconds{worker=\"7\",partition=\"3\"}",
            1_700_000_000.5,
        ),
        ("tickproof_commits_total{worker=\"7\"}", 1.0),
        ("tickproof_commit_outputs_total{worker=\"7\"}", 1.0),
        ("tickproof_commit_duration_seconds_count{worker=\"7\"}", 1.0),
        ("tickproof_commit_duration_seconds_sum{worker=\"7\"}", 0.03),
        ("tickproof_aborts_total{worker=\"7\"}", 1.0),
        (
            "tickproof_commit_resolutions_total{worker=\"7\",outcome=\"committed\"}",
            1.0,
        ),
        ("tickproof_producer_replacements_total{worker=\"7\"}", 1.0),
        (
            "tickproof_retries_total{worker=\"7\",call=\"commit_transaction\"}",
            1.0,
        ),
        (
            "tickproof_rebalances_total{worker=\"7\",kind=\"assigned\"}",
            1.0,
        ),
        (
            "tickproof_recoveries_total{worker=\"7\",kind=\"replay\"}",
            1.0,
        ),
        (
            "tickproof_recoveries_total{worker=\"7\",kind=\"fresh\"}",
            1.0,
        ),
        (
            "tickproof_recovery_duration_seconds_count{worker=\"7\"}",
            2.0,
        ),
        (
            "tickproof_recovery_replayed_offsets_total{worker=\"7\"}",
            10.0,
        ),
        ("tickproof_recoveries_postponed_total{worker=\"7\"}", 1.0),
        ("tickproof_recoveries_fallen_back_total{worker=\"7\"}", 1.0),
        ("tickproof_state_spilled_bytes_total{worker=\"7\"}", 512.0),
        ("tickproof_set_backs_total{worker=\"7\"}", 1.0),
        (
            "tickproof_forced_advances_total{worker=\"7\",partition=\"3\"}",
            1.0,
        ),
        ("tickproof_checkpoints_total{worker=\"7\"}", 1.0),
        (
            "tickproof_checkpoint_uploaded_files_total{worker=\"7\"}",
            2.0,
        ),
        (
            "tickproof_checkpoint_uploaded_bytes_total{worker=\"7\"}",
            4_096.0,
        ),
        (
            "tickproof_checkpoint_duration_seconds_count{worker=\"7\"}",
            1.0,
        ),
        ("tickproof_checkpoint_failures_total{worker=\"7\"}", 1.0),
        (
            "tickproof_checkpoint_offset{worker=\"7\",partition=\"3\"}",
            110.0,
        ),
        ("tickproof_garbage_objects_total{worker=\"7\"}", 6.0),
        ("tickproof_worker_up{worker=\"7\"}", 1.0),
    ] {
        assert_eq!(value_of(&text, sample), Some(expected), "{sample}\n{text}");
    }
}

/// The rules of the OpenMetrics text format that a scraper holds a program to.
#[test]
fn the_text_conforms_to_open_metrics() {
    let told = told();
    live(&told.telemetry);
    told.metrics.set_end(P, Offset(150));
    let failed = Err(WorkerError::Incarnation(String::new()));
    Telemetry::tell_end(7, &told.metrics, &told.health, &failed);
    let text = told.metrics.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut units: BTreeMap<&str, &str> = BTreeMap::new();
    let mut samples: BTreeSet<&str> = BTreeSet::new();
    let mut family = "";
    for line in text.lines().take_while(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (kind, name) = (words.next().unwrap(), words.next().unwrap());
            let told = words.next().unwrap_or_default();
            if kind == "HELP" {
                family = name;
                assert!(told.len() > 2, "{line}");
            }
            assert_eq!(name, family, "the lines of a family stand together");
            match kind {
                "TYPE" => assert_eq!(types.insert(name, told), None, "{line}"),
                "UNIT" => assert_eq!(units.insert(name, told), None, "{line}"),
                other => assert_eq!(other, "HELP", "{line}"),
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a sample has a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(samples.insert(sample), "{sample} comes twice");
        let name = sample.split('{').next().unwrap();
        assert!(name.starts_with("tickproof_"), "{line}");
        let suffixes: &[&str] = match types[family] {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_count", "_sum"],
            "info" => &["_info"],
            "gauge" => &[""],
            other => panic!("{family} is a {other}"),
        };
        let suffix = name
            .strip_prefix(family)
            .expect("a sample stands below its family");
        assert!(suffixes.contains(&suffix), "{line} is a {}", types[family]);
    }
    for (name, unit) in &units {
        assert!(
            name.ends_with(&format!("_{unit}")),
            "{name} is measured in {unit}"
        );
    }
    for (name, _) in types.iter().filter(|(_, kind)| **kind == "histogram") {
        assert_eq!(units.get(name), Some(&"seconds"), "{name}");
    }
}

/// The table in the documentation is what dashboards are made from.
#[test]
fn the_documented_names_are_the_exported_ones() {
    let documented: BTreeSet<String> = include_str!("../src/adapters/telemetry/metrics.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `"))
        .map(|line| line.split('`').next().unwrap().to_owned())
        .collect();
    let told = told();
    live(&told.telemetry);
    told.metrics.set_end(P, Offset(150));
    let failed = Err(WorkerError::Incarnation(String::new()));
    Telemetry::tell_end(7, &told.metrics, &told.health, &failed);
    let text = told.metrics.text();
    let exported: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| match line.split_once(' ').unwrap() {
            (name, "counter") => format!("{name}_total"),
            (name, "info") => format!("{name}_info"),
            (name, _) => name.to_owned(),
        })
        .collect();
    assert_eq!(documented, exported);
}

#[test]
fn a_partition_that_is_given_up_leaves_no_gauge_behind() {
    let told = told();
    live(&told.telemetry);
    told.metrics.set_end(P, Offset(150));
    assert_eq!(told.metrics.owned_partitions(), [P, PartitionId(4)]);
    told.telemetry.observe(&WorkerEvent::Released {
        partition: P,
        in_time: true,
    });
    told.telemetry.observe(&WorkerEvent::Released {
        partition: PartitionId(4),
        in_time: false,
    });
    let text = told.metrics.text();
    for gauge in [
        "lag_records",
        "committed_offset",
        "watermark",
        "checkpoint_offset",
        "term",
    ] {
        let stays = text
            .lines()
            .any(|line| line.contains(gauge) && !line.starts_with('#'));
        assert!(!stays, "{gauge}\n{text}");
    }
    assert_eq!(told.metrics.owned_partitions(), []);
    // What was counted stays counted.
    assert!(
        text.contains("tickproof_results_total{worker=\"7\",partition=\"3\"} 4"),
        "{text}"
    );
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn metrics_and_health_are_served_and_a_taken_port_is_told() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let told = told();
    let any = "127.0.0.1:0".parse().unwrap();
    let (metrics, health) = (Arc::clone(&told.metrics), Arc::clone(&told.health));
    let address = runtime
        .block_on(server::serve(any, metrics, health))
        .unwrap();

    assert!(get(address, "/healthz").starts_with("HTTP/1.1 200"));
    let answer = get(address, "/readyz");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("worker 7: is starting"), "{answer}");
    live(&told.telemetry);
    assert!(get(address, "/readyz").starts_with("HTTP/1.1 200"));
    let answer = get(address, "/metrics");
    assert!(answer.contains("application/openmetrics-text"), "{answer}");
    assert!(
        answer.contains("tickproof_commits_total{worker=\"7\"} 1"),
        "{answer}"
    );
    let failed = Err(WorkerError::Incarnation(String::new()));
    Telemetry::tell_end(7, &told.metrics, &told.health, &failed);
    let answer = get(address, "/readyz");
    assert!(answer.contains("worker 7: has failed"), "{answer}");

    let refused = runtime.block_on(server::serve(address, told.metrics, told.health));
    let error = refused.expect_err("the port is taken").to_string();
    assert!(error.contains("choose another port"), "{error}");
}
