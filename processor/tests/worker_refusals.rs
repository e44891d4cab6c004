//! What the worker refuses to continue, what it says of it, and what the operator may accept.

mod fake;

use fake::{Fault, P0, P1, World, act, assign, config, header, reading, reading_then_crash};
use processor::units::{Offset, PartitionId};
use processor::worker::{CommitRecordError, Refusal, WorkerError};

const ACCEPT_P0: &str = "recovery = { accept_reset_partitions = [0] }";
const SELDOM: &str = "checkpoint = { interval_ms = 60000 }";
const OTHER_RULES: &str = "windows = { allowed_lateness_ms = 90000 }";

/// Partition 0 was processed and stopped cleanly: S = C.
fn stopped() -> World {
    let world = World::with_events(20);
    world.run_well(&config(""), reading());
    let record = world.lock().commit_record(P0);
    assert_eq!(Some(record.snapshot_at.0), world.committed_offset(P0));
    world
}

/// Likewise, and of its checkpoints only the committed one is left, so that no older one can help.
fn stopped_with_one_checkpoint() -> World {
    let world = stopped();
    {
        let mut inner = world.lock();
        let named = inner.named_manifest();
        let is_other = |path: &String| path.contains("/manifests/") && *path != named;
        inner.objects.retain(|path, _| !is_other(path));
    }
    world
}

/// Partition 0 was processed, and the process died with S < C.
fn crashed_behind() -> World {
    let world = stopped();
    world.append_events(20..40);
    world.run(&config(SELDOM), reading_then_crash());
    let record = world.lock().commit_record(P0);
    assert!(record.snapshot_at.0 < world.committed_offset(P0).expect("committed"));
    world
}

/// The worker refuses partition 0; nothing was committed. Returns the reason and the message.
#[track_caller]
fn refused(world: &World, overrides: &str) -> (Refusal, String) {
    let before = world.lock().committed.clone();
    let error = world.run(&config(overrides), reading()).error();
    assert_eq!(world.lock().committed, before);
    assert!(error.is_refusal(), "{error}");
    let message = error.to_string();
    match error {
        WorkerError::Refused { partition, reason } if partition == P0 => (reason, message),
        other => panic!("{other}"),
    }
}

#[track_caller]
fn names(message: &str, what: &[&str]) {
    for part in what {
        assert!(message.contains(part), "no `{part}` in: {message}");
    }
}

/// With the partition in the list, it begins anew at `from`, goes on to the end, and the next start
/// continues instead of beginning anew once more.
#[track_caller]
fn begins_anew_when_accepted(world: &World, from: i64) {
    world.forget_journal();
    let end = {
        let mut inner = world.lock();
        inner.transactions.clear();
        let newest = inner.logs[&P0].last_stable;
        for index in 0..30 {
            fake::append_varied(&mut inner, P0, newest + index);
        }
        inner.logs[&P0].last_stable
    };
    world.run_well(&config(ACCEPT_P0), reading());
    let fresh = format!("event Fresh {{ partition: PartitionId(0), at: Offset({from}) }}");
    assert_eq!(world.count(&fresh), 1, "{}", world.journal());
    assert_eq!(world.committed_offset(P0), Some(end));
    let outputs = world.outputs(P0);
    assert!(!outputs.is_empty());
    assert!(
        header(&outputs[0], "cause-offset")
            .parse::<i64>()
            .expect("a number")
            >= from
    );

    world.forget_journal();
    world.run_well(&config(ACCEPT_P0), reading());
    assert_eq!(world.count("event Fresh"), 0);
    assert_eq!(world.count("event Recovered"), 1);
}

#[test]
fn a_missing_commit_beside_checkpoints_is_refused_until_accepted() {
    let world = stopped();
    world.lock().committed.clear();
    let (reason, message) = refused(&world, "");
    assert!(matches!(reason, Refusal::CommitMissing { .. }));
    let all = [
        "no committed offset",
        "manifests/",
        "recovery.accept_reset_partitions",
    ];
    names(&message, &all);
    begins_anew_when_accepted(&world, 0);
}

#[test]
fn a_missing_commit_without_checkpoints_is_a_first_start() {
    let world = World::with_events(20);
    world.run_well(&config(""), reading());
    assert_eq!(world.count("event Fresh"), 1);
}

#[test]
fn an_offset_without_metadata_is_refused_until_accepted() {
    let world = stopped();
    {
        let mut inner = world.lock();
        let committed = inner.committed.get_mut(&P0).expect("committed");
        committed.metadata.clear();
        committed.offset = Offset(7);
    }
    let (reason, message) = refused(&world, "");
    assert!(matches!(
        reason,
        Refusal::CommitRecord(CommitRecordError::Missing)
    ));
    names(
        &message,
        &["offset reset", "recovery.accept_reset_partitions"],
    );
    begins_anew_when_accepted(&world, 7);
}

#[test]
fn foreign_metadata_is_refused_until_accepted() {
    for metadata in ["hello", "{\"v\":1}", "[]", "\u{0}"] {
        let world = stopped();
        let at = {
            let mut inner = world.lock();
            let committed = inner.committed.get_mut(&P0).expect("committed");
            committed.metadata = metadata.into();
            committed.offset.0
        };
        let (reason, message) = refused(&world, "");
        let foreign = Refusal::CommitRecord(CommitRecordError::Foreign(String::new()));
        assert_eq!(
            std::mem::discriminant(&reason),
            std::mem::discriminant(&foreign)
        );
        let all = [
            "another program uses this group",
            "recovery.accept_reset_partitions",
        ];
        names(&message, &all);
        begins_anew_when_accepted(&world, at);
    }
}

#[test]
fn a_commit_record_of_a_newer_version_is_refused_until_accepted() {
    let world = stopped();
    let at = {
        let mut inner = world.lock();
        let committed = inner.committed.get_mut(&P0).expect("committed");
        committed.metadata = r#"{"v":2,"shape":"unknown"}"#.into();
        committed.offset.0
    };
    let (reason, message) = refused(&world, "");
    assert!(matches!(
        reason,
        Refusal::CommitRecord(CommitRecordError::Version(2))
    ));
    names(&message, &["version 2", "reads version 1", "a newer one"]);
    begins_anew_when_accepted(&world, at);
}

#[test]
fn a_topic_created_anew_is_refused_until_accepted() {
    let world = stopped();
    world.lock().topic_id = Some("topic-b".into());
    let (reason, message) = refused(&world, "");
    assert!(matches!(reason, Refusal::OtherTopic { .. }));
    let all = [
        "topic-a",
        "topic-b",
        "created anew",
        "recovery.accept_reset_partitions",
    ];
    names(&message, &all);
    // The old offset says nothing of the new topic.
    begins_anew_when_accepted(&world, 0);
}

#[test]
fn another_partition_count_is_refused_at_recovery_until_accepted() {
    let world = stopped();
    let at = world.committed_offset(P0).expect("committed");
    world.lock().partitions = 3;
    let (reason, message) = refused(&world, "");
    let expected = Refusal::PartitionCount {
        committed: 2,
        found: 3,
    };
    assert_eq!(reason.to_string(), expected.to_string());
    let all = [
        "of 2 partitions",
        "has 3",
        "recovery.accept_reset_partitions",
        "for all partitions",
    ];
    names(&message, &all);
    begins_anew_when_accepted(&world, at);
}

#[test]
fn a_partition_that_is_new_to_a_running_worker_is_refused_by_the_next() {
    let world = World::with_events(20);
    let mut script = reading();
    script.push(act(|inner| {
        inner.partitions = 3;
        inner.logs.insert(PartitionId(2), fake::Log::default());
    }));
    script.push(assign(&[PartitionId(2)]));
    let error = world.run(&config(""), script).error();
    assert!(matches!(error, WorkerError::TopicChanged(_)), "{error}");
    let again = vec![assign(&[PartitionId(2)]), fake::Step::Wait(500)];
    let error = world.run(&config(""), again).error();
    assert!(error.is_refusal(), "{error}");
    names(
        &error.to_string(),
        &["partition 2", "of 2 partitions", "has 3"],
    );
    // What was owned before is committed all the same.
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
    assert_eq!(world.committed_offset(PartitionId(2)), None);
}

#[test]
fn a_partition_that_was_added_is_refused_by_a_worker_that_owns_no_other() {
    let world = stopped();
    {
        let mut inner = world.lock();
        inner.partitions = 3;
        inner.logs.entry(PartitionId(2)).or_default();
    }
    let only_the_new_one = vec![assign(&[PartitionId(2)]), fake::Step::Wait(5_000)];
    let error = world.run(&config(""), only_the_new_one).error();
    assert!(error.is_refusal(), "{error}");
    names(
        &error.to_string(),
        &["partition 2", "of 2 partitions", "has 3"],
    );
    assert_eq!(world.committed_offset(PartitionId(2)), None);
}

#[test]
fn records_deleted_before_they_were_processed_are_refused_until_accepted() {
    let world = stopped();
    world.append_events(20..40);
    let at = world.committed_offset(P0).expect("committed");
    world.lock().logs.get_mut(&P0).expect("a log").earliest = at + 5;
    let (reason, message) = refused(&world, "");
    assert!(matches!(reason, Refusal::Retention { needed, .. } if needed.0 == at));
    let needed = format!("offset {at} is needed");
    names(
        &message,
        &[&needed, "retention", "recovery.accept_reset_partitions"],
    );
    begins_anew_when_accepted(&world, at + 5);
}

#[test]
fn records_deleted_that_a_replay_needs_are_refused_until_accepted() {
    let world = crashed_behind();
    let needed_from = world.lock().commit_record(P0).snapshot_at.0;
    let at = world.committed_offset(P0).expect("committed");
    world.lock().logs.get_mut(&P0).expect("a log").earliest = needed_from + 1;
    let (reason, _) = refused(&world, "");
    assert!(matches!(reason, Refusal::Retention { needed, .. } if needed.0 == needed_from));
    begins_anew_when_accepted(&world, at);
}

#[test]
fn records_deleted_below_the_snapshot_are_not_missed() {
    let world = crashed_behind();
    let needed = world.lock().commit_record(P0).snapshot_at.0;
    world.lock().logs.get_mut(&P0).expect("a log").earliest = needed;
    world.run_well(&config(""), reading());
}

#[test]
fn a_replay_under_another_configuration_is_refused_with_a_way_out_that_loses_nothing() {
    let world = crashed_behind();
    let from = world.lock().commit_record(P0).snapshot_at.0;
    let to = world.committed_offset(P0).expect("committed");
    let (reason, message) = refused(&world, OTHER_RULES);
    assert!(matches!(reason, Refusal::Fingerprint { .. }));
    let range = format!("{from}..{to}");
    names(
        &message,
        &[
            "configuration",
            &range,
            "under the old one",
            "stop it cleanly",
        ],
    );
    // The way out loses nothing, so the other one is not offered.
    assert!(!message.contains("accept_reset_partitions"), "{message}");
    // What the message says helps: once more under the old one, stopped cleanly.
    world.run_well(&config(""), reading());
    world.run_well(&config(OTHER_RULES), reading());
}

#[test]
fn a_partition_that_was_only_opened_goes_on_under_another_configuration() {
    let world = World::with_events(20);
    world.meet("put", 0, Fault::crashes_before());
    world.run(&config(""), reading());
    assert_eq!(world.lock().commit_record(P0).snapshot, "");
    world.run_well(&config(OTHER_RULES), reading());
    let other = config(OTHER_RULES).fingerprint();
    assert_eq!(world.lock().commit_record(P0).fingerprint, other);
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
}

#[test]
fn after_a_clean_stop_another_configuration_goes_on_and_snapshots_before_it_commits() {
    let world = stopped();
    let old = world.lock().commit_record(P0);
    world.append_events(20..40);
    world.forget_journal();
    let other = config(OTHER_RULES);
    world.run_well(&other, reading());
    let snapshotted = world.places("event Snapshotted");
    let committed = world.places("event Committed");
    assert!(snapshotted[0] < committed[0], "{}", world.journal());
    let inner = world.lock();
    let first_new = inner.transactions.iter().find(|transaction| {
        let record = processor::worker::CommitRecord::decode(&transaction.offsets[0].metadata);
        record.expect("the worker's own").fingerprint == other.fingerprint()
    });
    let first_new = first_new.expect("it committed").offsets[0].metadata.clone();
    let record = processor::worker::CommitRecord::decode(&first_new).expect("the worker's own");
    assert_ne!(record.snapshot, old.snapshot);
    drop(inner);
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
}

#[test]
fn a_failing_object_store_holds_the_first_commit_under_another_configuration_back() {
    let world = stopped();
    let at = world.committed_offset(P0);
    world.append_events(20..40);
    world.fail("put", 1_000, processor::io::ErrorClass::Fatal);
    world.run(&config(OTHER_RULES), reading_then_crash());
    assert_eq!(world.committed_offset(P0), at);
    // The old configuration may still come back: nothing of the new one was committed.
    world.lock().clear_faults();
    world.run_well(&config(""), reading());
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
}

#[test]
fn a_snapshot_that_disagrees_with_the_digest_is_refused_until_accepted() {
    let world = stopped();
    let at = world.committed_offset(P0).expect("committed");
    world
        .lock()
        .edit_commit_record(P0, |record| record.digest.0 ^= 1);
    let (reason, message) = refused(&world, "");
    assert!(matches!(reason, Refusal::Digest { .. }));
    let all = [
        "gave digest",
        "was committed",
        "recovery.accept_reset_partitions",
    ];
    names(&message, &all);
    begins_anew_when_accepted(&world, at);
}

#[test]
fn a_replay_that_does_not_reproduce_the_digest_is_refused_until_accepted() {
    let world = crashed_behind();
    let from = world.lock().commit_record(P0).snapshot_at.0;
    let at = world.committed_offset(P0).expect("committed");
    {
        // The log is not what it was: one record between S and C has other bytes.
        let mut inner = world.lock();
        let log = inner.logs.get_mut(&P0).expect("a log");
        let record = log.records.iter_mut().find(|record| record.offset.0 > from);
        record.expect("there are some").value = Some("changed".into());
    }
    let (reason, message) = refused(&world, "");
    assert!(matches!(reason, Refusal::Digest { .. }));
    names(&message, &["the log", "recovery.accept_reset_partitions"]);
    begins_anew_when_accepted(&world, at);
}

#[test]
fn a_damaged_snapshot_header_is_refused_until_accepted() {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let world = stopped_with_one_checkpoint();
    let at = world.committed_offset(P0).expect("committed");
    world.lock().edit_named_manifest(|manifest| {
        let header = manifest["header"].as_str().expect("text");
        let mut header = base64.decode(header).expect("base64");
        header[30] ^= 1;
        manifest["header"] = base64.encode(header).into();
    });
    let (reason, message) = refused(&world, "");
    assert!(matches!(reason, Refusal::Snapshot { .. }), "{message}");
    names(
        &message,
        &["checkpoint", "recovery.accept_reset_partitions"],
    );
    begins_anew_when_accepted(&world, at);
}

#[test]
fn a_snapshot_without_one_of_its_buckets_is_refused_until_accepted() {
    let world = stopped_with_one_checkpoint();
    let at = world.committed_offset(P0).expect("committed");
    world.lock().edit_named_manifest(|manifest| {
        manifest["files"].as_array_mut().expect("a list").remove(0);
    });
    let (reason, message) = refused(&world, "");
    assert!(matches!(reason, Refusal::Snapshot { .. }), "{message}");
    names(
        &message,
        &["is missing", "recovery.accept_reset_partitions"],
    );
    begins_anew_when_accepted(&world, at);
}

#[test]
fn a_manifest_of_the_next_version_is_refused_until_accepted() {
    let world = stopped_with_one_checkpoint();
    let at = world.committed_offset(P0).expect("committed");
    world
        .lock()
        .edit_named_manifest(|manifest| manifest["version"] = 3.into());
    let (reason, message) = refused(&world, "");
    assert!(matches!(reason, Refusal::Manifest { .. }), "{message}");
    names(
        &message,
        &[
            "format version 3",
            "reads version 2",
            "no older checkpoint",
            "recovery.accept_reset_partitions",
        ],
    );
    begins_anew_when_accepted(&world, at);
}

#[test]
fn a_damaged_manifest_is_refused_until_accepted() {
    type Damage = fn(&mut fake::Inner);
    let damages: [Damage; 4] = [
        |inner| cut_named_manifest(inner, 40),
        |inner| cut_named_manifest(inner, 0),
        |inner| inner.edit_named_manifest(|manifest| manifest["header"] = "*".into()),
        |inner| inner.edit_commit_record(P0, |record| record.snapshot_at.0 -= 1),
    ];
    for damage in damages {
        let world = stopped_with_one_checkpoint();
        let at = world.committed_offset(P0).expect("committed");
        damage(&mut world.lock());
        let (reason, message) = refused(&world, "");
        assert!(matches!(reason, Refusal::Manifest { .. }), "{message}");
        names(
            &message,
            &["checkpoint", "recovery.accept_reset_partitions"],
        );
        begins_anew_when_accepted(&world, at);
    }
}

#[test]
fn a_checkpoint_whose_objects_are_gone_is_refused_by_their_path_until_accepted() {
    for is_manifest in [true, false] {
        let world = stopped_with_one_checkpoint();
        let at = world.committed_offset(P0).expect("committed");
        let path = {
            let mut inner = world.lock();
            let manifest = inner.named_manifest();
            let path = if is_manifest {
                manifest
            } else {
                inner.files_of(&manifest)[0].clone()
            };
            inner.objects.remove(&path);
            path
        };
        let (reason, message) = refused(&world, "");
        assert!(matches!(reason, Refusal::Manifest { .. }), "{message}");
        names(
            &message,
            &[&path, "missing", "recovery.accept_reset_partitions"],
        );
        begins_anew_when_accepted(&world, at);
    }
}

#[test]
fn a_topic_that_is_created_anew_under_a_running_worker_is_refused_by_the_next() {
    let world = World::with_events(20);
    let mut script = reading();
    script.push(act(|inner| inner.topic_id = Some("topic-b".into())));
    script.push(assign(&[P1]));
    let error = world.run(&config(""), script).error();
    assert!(matches!(error, WorkerError::TopicChanged(_)), "{error}");
    assert_eq!(world.committed_offset(P1), None);
    let error = world.run(&config(""), reading()).error();
    assert!(error.is_refusal(), "{error}");
    names(&error.to_string(), &["topic-a", "topic-b"]);
    assert_eq!(world.committed_offset(P1), None);
}

fn cut_named_manifest(inner: &mut fake::Inner, bytes: usize) {
    let path = inner.named_manifest();
    let object = inner.objects.get_mut(&path).expect("it is there");
    object.content = object.content.slice(..bytes);
}

#[test]
fn accepting_one_partition_accepts_no_other() {
    let world = stopped();
    world.lock().topic_id = Some("topic-b".into());
    let (reason, _) = refused(&world, "recovery = { accept_reset_partitions = [1] }");
    assert!(matches!(reason, Refusal::OtherTopic { .. }));
}

#[test]
fn a_partition_in_the_list_with_a_sound_commit_record_goes_on() {
    let world = stopped();
    world.append_events(20..40);
    world.run_well(&config(ACCEPT_P0), reading());
    assert_eq!(world.count("event Fresh"), 1, "only the very first start");
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
    world.outputs(P0);
}

#[test]
fn a_refused_partition_stops_the_worker_before_it_reads_any_other() {
    let world = stopped();
    world.lock().topic_id = Some("topic-b".into());
    world.lock().append(P1, 0, "1");
    let script = vec![assign(&[P0, P1]), fake::Step::Read];
    assert!(world.run(&config(""), script).error().is_refusal());
    assert_eq!(world.committed_offset(P1), None);
}
