//! Snapshots: in the store before they are named, kept as long as they may be needed, and no longer.

mod fake;

use fake::{Exit, Fault, Inner, Object, P0, Step, World, act, assign, config, reading};
use processor::io::ErrorClass;
use processor::worker::{CommitRecord, WorkerError};
use std::collections::BTreeSet;

const EVENTS: i64 = 60;

fn calm() -> Vec<processor::io::ProducerRecord> {
    let world = World::with_events(EVENTS);
    world.run_well(&config(""), reading());
    world.outputs(P0)
}

/// Ids of the snapshots that commits have named, oldest first.
fn named(inner: &Inner) -> Vec<String> {
    let mut named: Vec<String> = Vec::new();
    for transaction in &inner.transactions {
        for offset in &transaction.offsets {
            let record = CommitRecord::decode(&offset.metadata).expect("the worker's own");
            if offset.tp.partition == P0 && !record.snapshot.is_empty() {
                named.push(record.snapshot);
            }
        }
    }
    named.dedup();
    named
}

fn manifest_of(id: &str) -> String {
    format!("{}/manifests/{id}.json", fake::FOLDER_OF_P0)
}

fn manifests(inner: &Inner) -> usize {
    let paths = inner.objects.keys();
    paths.filter(|path| path.contains("/manifests/")).count()
}

#[test]
fn a_snapshot_is_stored_before_a_commit_names_it_and_the_opening_comes_before_the_first() {
    let world = World::with_events(EVENTS);
    world.run_well(&config(""), reading());
    // The fake checks each commit for what it names, and that the opening puts nothing out.
    assert!(named(&world.lock()).len() > 3);
    assert!(world.places("commit_opening")[0] < world.places("put")[0]);
    assert!(world.places("event Snapshotted")[0] < world.places("commit_transaction")[0]);
    assert_eq!(world.count("commit_opening"), 1);
}

#[test]
fn nothing_is_put_out_before_the_first_snapshot_however_long_it_takes() {
    let world = World::with_events(EVENTS);
    world.fail("put", 10_000, ErrorClass::Retriable);
    let mut script = reading();
    script.push(Step::Wait(60_000));
    script.push(act(|inner| {
        assert!(inner.transactions.is_empty());
        assert_eq!(inner.commit_record(P0).snapshot, "");
        inner.clear_faults();
    }));
    script.push(Step::Wait(2_000));
    script.push(act(|inner| {
        assert_eq!(inner.committed[&P0].offset.0, inner.logs[&P0].last_stable);
    }));
    world.run_well(&config(""), script);
    assert!(world.count("event SnapshotFailed") > 20);
    assert!(world.outputs(P0).len() > 20);
}

/// Committed offsets are gone where a topic was created anew or where nobody was there for long. If nothing
/// was put out, the partition begins as if for the first time; otherwise there is a checkpoint that tells.
#[test]
fn a_lost_commit_is_refused_or_nobody_has_seen_anything() {
    let mut refused = 0;
    for last in 1..60 {
        let world = World::with_events(EVENTS);
        world.lock().crash_after_calls = Some(last);
        world.run(&config("checkpoint = { interval_ms = 600000 }"), reading());
        world.lock().committed.clear();
        match world.run(&config(""), reading()) {
            Exit::Failed(error) => {
                assert!(error.to_string().contains("checkpoint"), "{last}: {error}");
                refused += 1;
            }
            Exit::Stopped => {}
            Exit::Crashed => panic!("{last}"),
        }
        world.outputs(P0); // without a repeat
    }
    assert!((20..58).contains(&refused), "{refused}");
}

#[test]
fn the_files_of_a_snapshot_are_stored_before_its_manifest() {
    // Whatever put is the last one: a manifest in the store has all its files.
    for last in 5..150 {
        let world = World::with_events(EVENTS);
        world.lock().crash_after_calls = Some(last);
        world.run(&config(""), reading());
        let inner = world.lock();
        for manifest in inner
            .objects
            .keys()
            .filter(|path| path.contains("/manifests/"))
        {
            for file in inner.files_of(manifest) {
                assert!(
                    inner.objects.contains_key(&file),
                    "{manifest} has no {file}"
                );
            }
        }
    }
}

#[test]
fn a_failed_upload_keeps_the_older_snapshot_and_commits_go_on() {
    let world = World::with_events(20);
    world.run_well(&config(""), reading());
    let older = world.lock().commit_record(P0).snapshot;
    world.append_events(20..EVENTS);
    world.fail("put", 10_000, ErrorClass::Retriable);
    let error = world.run(&config(""), reading()).error();
    assert!(matches!(error, WorkerError::DrainIncomplete(P0)), "{error}");
    assert!(world.count("event SnapshotFailed") > 0);
    let record = world.lock().commit_record(P0);
    assert_eq!(record.snapshot, older);
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));

    world.lock().clear_faults();
    world.run_well(&config(""), reading());
    assert_ne!(world.lock().commit_record(P0).snapshot, older);
    assert!(world.outputs(P0) == calm());
}

#[test]
fn a_put_that_fails_after_it_took_effect_is_harmless() {
    for every in [0, 1, 2, 5] {
        let world = World::with_events(EVENTS);
        for _ in 0..10 {
            world.meet("put", every, Fault::fails_after(ErrorClass::Retriable));
        }
        let mut script = reading();
        script.push(Step::Crash);
        world.run(&config(""), script);
        assert!(world.count("event SnapshotFailed") > 0);
        world.lock().clear_faults();
        world.run_well(&config(""), reading());
        assert!(world.outputs(P0) == calm());
    }
}

#[test]
fn a_manifest_that_exists_is_never_overwritten() {
    let world = World::with_events(300);
    for _ in 0..10 {
        world.meet("put", 1, Fault::fails_after(ErrorClass::Retriable));
    }
    world.run_well(&config(""), reading());
    let inner = world.lock();
    let manifests = inner
        .objects
        .iter()
        .filter(|(path, _)| path.contains("/manifests/"));
    assert!(manifests.clone().count() > 5);
    assert!(manifests.into_iter().all(|(_, object)| object.writes == 1));
}

#[test]
fn files_that_did_not_change_are_not_uploaded_again() {
    let world = World::with_events(EVENTS);
    world.run_well(&config(""), reading());
    assert!(world.count("event Snapshotted") > 3);
    let inner = world.lock();
    assert!(inner.objects.values().all(|object| object.writes == 1));
}

#[test]
fn files_of_an_older_owner_are_named_again_not_uploaded_again() {
    let world = World::with_events(20);
    world.run_well(&config(""), reading());
    world.forget_journal();
    // One more event: the windows of before stay as they are.
    world.append_events(20..21);
    world.run_well(&config(""), reading());
    let inner = world.lock();
    let files = inner.files_of(&inner.named_manifest());
    assert!(
        files.iter().any(|file| file.contains("/files/1-run-1/")),
        "{files:?}"
    );
    assert!(
        files.iter().any(|file| file.contains("/files/2-run-2/")),
        "{files:?}"
    );
}

/// A long run with a snapshot every second: an event every second of virtual time.
fn long_run(seconds: i64) -> Vec<Step> {
    let mut script = vec![assign(&[P0]), Step::Wait(500)];
    for second in 0..seconds {
        script.push(act(move |inner| fake::append_varied(inner, P0, second)));
        script.push(Step::Wait(1_000));
    }
    script
}

const COLLECTING: &str = "
checkpoint = { interval_ms = 500, retain_count = 2, gc_grace_ms = 20000 }
";

#[test]
fn what_no_commit_reaches_is_removed_after_the_grace_period() {
    let world = World::new();
    world.lock().gc_grace_ms = Some(20_000);
    world.run_well(&config(COLLECTING), long_run(120));
    let inner = world.lock();
    let named = named(&inner);
    assert!(named.len() > 100);
    // 20 s of grace, 10 snapshots between two collections, and the retained ones.
    assert!(
        manifests(&inner) < 40,
        "{} of {}",
        manifests(&inner),
        named.len()
    );
    for id in &named[named.len() - 2..] {
        for file in inner.files_of(&manifest_of(id)) {
            assert!(inner.objects.contains_key(&file), "{file}");
        }
    }
    // Nothing is left that neither is young nor belongs to a manifest that is left.
    let mut reachable = BTreeSet::new();
    for manifest in inner
        .objects
        .keys()
        .filter(|path| path.contains("/manifests/"))
    {
        reachable.extend(inner.files_of(manifest));
    }
    let young = inner.unix_ms() - 40_000;
    for (path, object) in &inner.objects {
        let is_manifest = path.contains("/manifests/");
        let is_kept = is_manifest || reachable.contains(path);
        assert!(is_kept || object.written_at_unix_ms > young, "{path}");
    }
}

#[test]
fn snapshots_are_retained_even_when_they_are_old() {
    let world = World::new();
    world.lock().gc_grace_ms = Some(20_000);
    let mut script = long_run(10);
    script.push(Step::Wait(3_600_000));
    script.extend(long_run(60).into_iter().skip(2).take(30));
    let rare = "checkpoint = { interval_ms = 500, retain_count = 5, gc_grace_ms = 20000 }";
    world.run_well(&config(rare), script);
    assert!(world.count("event Collected") > 0);
    let inner = world.lock();
    let named = named(&inner);
    for id in &named[named.len() - 5..] {
        assert!(inner.objects.contains_key(&manifest_of(id)), "{id}");
    }
}

#[test]
fn grace_is_measured_from_the_last_acknowledged_commit() {
    // Each commit is acknowledged late: meanwhile a next owner may have written. What it wrote is
    // younger than the moment at which this worker certainly was the owner, and stays.
    let world = World::new();
    {
        let mut inner = world.lock();
        inner.gc_grace_ms = Some(20_000);
        for nth in 0..400 {
            let path = format!("{}/files/9-next/{nth}", fake::FOLDER_OF_P0);
            let standstill = Fault::default().and_before(move |inner: &mut Inner| {
                let object = Object {
                    content: "x".into(),
                    written_at_unix_ms: inner.unix_ms(),
                    writes: 1,
                };
                inner.objects.insert(path, object);
                inner.now_ms += 45_000;
            });
            inner.meet("commit_transaction", 0, standstill);
        }
    }
    world.run_well(&config(COLLECTING), long_run(120));
    assert!(world.count("event Collected") > 0);
    // The fake compares each deleted object with the manifest that is committed.
}

#[test]
fn an_owner_whose_commits_fail_removes_nothing_younger_than_its_predecessors_commit() {
    let world = World::new();
    world.run_well(&config(COLLECTING), long_run(30));
    world.lock().now_ms += 3_600_000;
    // It snapshots often, and none of its commits gets through.
    world.lock().gc_grace_ms = Some(20_000);
    world.fail(
        "send_offsets_to_transaction",
        10_000,
        ErrorClass::RequiresAbort,
    );
    let error = world.run(&config(COLLECTING), long_run(40)).error();
    assert!(matches!(error, WorkerError::DrainIncomplete(P0)), "{error}");
    // The fake compares each deleted object with the manifest that is committed.
    let mine = |path: &&String| path.contains("run-2");
    assert!(world.lock().objects.keys().filter(mine).count() > 50);
    assert_eq!(
        world.count("delete checkpoints/processor/input_topic/0/files/2-run-2"),
        0
    );
}

#[test]
fn a_collection_that_fails_is_made_up_for() {
    for call in ["list", "delete"] {
        let world = World::new();
        world.lock().gc_grace_ms = Some(20_000);
        let mut script = long_run(120);
        // Not the list at the very start, which looks for checkpoints of a lost commit.
        script.insert(
            2,
            act(move |inner| inner.fail(call, 4, ErrorClass::Retriable)),
        );
        world.run_well(&config(COLLECTING), script);
        assert!(world.count("event Collected") > 0);
        assert!(manifests(&world.lock()) < 40, "{call}");
    }
}

#[test]
fn what_was_collected_is_never_missed_by_a_recovery() {
    for last in (600..2_000).step_by(37) {
        let world = World::new();
        world.lock().gc_grace_ms = Some(20_000);
        world.lock().crash_after_calls = Some(last);
        world.run(&config(COLLECTING), long_run(120));
        world.lock().now_ms += 3_600_000;
        world.run_well(&config(COLLECTING), reading());
        world.outputs(P0);
    }
}

#[test]
fn without_news_no_snapshot_is_made() {
    let world = World::with_events(20);
    world.run_well(&config(""), reading());
    world.forget_journal();
    world.run_well(
        &config(""),
        vec![assign(&[P0]), Step::Read, Step::Wait(60_000)],
    );
    assert_eq!(world.count("put"), 0);
}

#[test]
fn a_snapshot_that_no_commit_could_name_is_not_taken_for_the_newest() {
    let world = World::with_events(20);
    world.run_well(&config(""), reading());
    let record = world.lock().commit_record(P0);
    world.append_events(20..EVENTS);
    world.fail(
        "send_offsets_to_transaction",
        10_000,
        ErrorClass::RequiresAbort,
    );
    let mut script = reading();
    script.push(Step::Crash);
    world.run(&config(""), script);
    assert_eq!(world.lock().commit_record(P0), record);
    {
        let inner = world.lock();
        assert!(manifests(&inner) > named(&inner).len());
    }
    world.lock().clear_faults();
    world.run_well(&config(""), reading());
    assert!(world.outputs(P0) == calm());
}
