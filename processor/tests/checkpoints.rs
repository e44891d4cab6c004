//! Checkpoints of a partition can be listed and looked at, whoever made them; and the right ones are
//! kept.

mod fake;

use fake::{FakeObjects, P0, Step, World, act, assign, config};
use futures_util::FutureExt;
use processor::checkpoints::{CheckpointInfo, LoadError, Place, list, load};
use processor::core::{InputRecord, PartitionTask, Progress};
use processor::io::ErrorClass;
use processor::units::Offset;

fn place() -> Place {
    let place = Place::of(&config(""), P0);
    assert_eq!(place.folder(), fake::FOLDER_OF_P0);
    place
}

fn listed(world: &World) -> Vec<CheckpointInfo> {
    let objects = FakeObjects::new(world);
    let listed = list(&objects, &place()).now_or_never();
    listed.expect("the fake answers").expect("the store works")
}

fn loaded(world: &World, id: &str) -> Result<PartitionTask, LoadError> {
    let objects = FakeObjects::new(world);
    let core = config("").core_config();
    load(&objects, &place(), id, core)
        .now_or_never()
        .expect("the fake answers")
}

/// What a dump of a task shows.
fn dump(task: &PartitionTask) -> Vec<String> {
    let windows = task.windows();
    windows
        .map(|window| serde_json::to_string(&window).expect("plain fields"))
        .collect()
}

/// The task of the log's beginning up to an offset.
fn replayed(world: &World, until: Offset) -> PartitionTask {
    let mut task = PartitionTask::new(P0, Offset(0), config("").core_config());
    let inner = world.lock();
    let records = inner.logs[&P0].records.iter();
    let records = records.filter(|record| record.offset < until);
    let progress = task.process(records.map(InputRecord::from), &mut Vec::new());
    assert_eq!(progress, Progress::Done);
    task
}

/// Three owners, each with a clean stop.
fn three_owners() -> World {
    let world = World::new();
    for owner in 0..3 {
        world.run_well(&config(""), busy(owner * 20..owner * 20 + 20));
    }
    world
}

#[test]
fn every_checkpoint_of_every_owner_is_listed_and_shows_the_state_at_its_offset() {
    let world = three_owners();
    let infos = listed(&world);
    assert!(infos.len() > 30, "{infos:#?}");
    assert!(infos.is_sorted_by_key(|info| info.offset));
    let owners: Vec<(u64, &str)> = infos
        .iter()
        .map(|info| (info.term, info.owner.as_str()))
        .collect();
    for owner in [(1, "run-1"), (2, "run-2"), (3, "run-3")] {
        assert!(owners.contains(&owner), "{owner:?}");
    }
    let record = world.lock().commit_record(P0);
    let newest = infos.last().expect("there are some");
    assert_eq!(newest.id, record.snapshot);
    assert_eq!(newest.offset, record.snapshot_at);
    for info in &infos {
        assert_eq!(info.fingerprint, config("").fingerprint().to_string());
        let age_ms = world.lock().unix_ms() - info.made_unix_ms;
        assert!((0..600_000).contains(&age_ms), "{age_ms}");
        let task = loaded(&world, &info.id).expect("it is whole");
        assert_eq!(task.position(), info.offset);
        let straight = replayed(&world, info.offset);
        assert_eq!(dump(&task), dump(&straight), "{}", info.id);
        assert_eq!(task.live_ids(), straight.live_ids());
        assert_eq!(task.pieces().len(), info.files);
        assert!(info.bytes >= 16 * task.live_ids() as u64);
    }
}

#[test]
fn what_cannot_be_loaded_says_why_and_is_not_listed() {
    let world = three_owners();
    let before = listed(&world);
    let newest = before.last().expect("there are some").id.clone();
    let missing = loaded(&world, "00000000000000000001-1-nobody-1").err();
    let message = missing.expect("there is none").to_string();
    assert!(
        message.contains("is missing") && message.contains("state dump"),
        "{message}"
    );
    let manifest = world.lock().named_manifest();
    {
        let mut inner = world.lock();
        let object = inner.objects.get_mut(&manifest).expect("it is there");
        object.content = object.content.slice(..30);
    }
    let message = loaded(&world, &newest).expect_err("it is cut").to_string();
    assert!(message.contains("not readable"), "{message}");
    assert_eq!(listed(&world).len(), before.len() - 1);
}

#[test]
fn a_manifest_under_another_name_is_noticed() {
    let world = three_owners();
    let infos = listed(&world);
    let (older, newest) = (&infos[0].id, &infos[infos.len() - 1].id);
    let path = |id: &str| format!("{}/manifests/{id}.json", fake::FOLDER_OF_P0);
    {
        let mut inner = world.lock();
        let stale = inner.objects[&path(older)].clone();
        inner.objects.insert(path(newest), stale);
    }
    let error = loaded(&world, newest).expect_err("it is another");
    assert!(matches!(error, LoadError::Damaged(_)), "{error}");
}

#[test]
fn a_store_that_does_not_answer_is_told_apart_from_damage() {
    let world = three_owners();
    world.fail("get", 1, ErrorClass::Retriable);
    let newest = world.lock().commit_record(P0).snapshot;
    let error = loaded(&world, &newest).expect_err("it fails");
    assert!(matches!(error, LoadError::Store(_)), "{error}");
    assert!(error.to_string().contains("checkpoint.url"), "{error}");
}

/// An event and a checkpoint every second.
fn busy(seconds: std::ops::Range<i64>) -> Vec<Step> {
    let mut script = vec![assign(&[P0]), Step::Wait(500)];
    for second in seconds {
        script.push(act(move |inner| fake::append_varied(inner, P0, second)));
        script.push(Step::Wait(1_000));
    }
    script
}

/// Positions of the checkpoints that can be loaded.
fn offsets(world: &World) -> Vec<Offset> {
    listed(world).iter().map(|info| info.offset).collect()
}

#[test]
fn what_former_owners_have_named_is_retained_by_count() {
    let retaining = |interval_ms: u64| {
        config(&format!(
            "checkpoint = {{ interval_ms = {interval_ms}, retain_count = 30, gc_grace_ms = 20000 }}"
        ))
    };
    let world = World::new();
    world.run_well(&retaining(500), busy(0..60));
    let before = offsets(&world);
    assert!(before.len() > 30, "{}", before.len());
    world.lock().now_ms += 3_600_000;
    // The next owner collects, and has named a third of what is retained itself.
    world.run_well(&retaining(500), busy(60..72));
    assert!(world.count("event Collected") > 0);
    let after = offsets(&world);
    let inherited = after.iter().filter(|at| before.contains(at)).count();
    assert!(
        (15..=35).contains(&inherited),
        "{inherited} of {}",
        before.len()
    );
    for info in listed(&world) {
        let task = loaded(&world, &info.id).expect("a retained checkpoint is whole");
        assert_eq!(dump(&task), dump(&replayed(&world, info.offset)));
    }
}

#[test]
fn older_checkpoints_are_retained_until_their_age_thinned_out() {
    let aged = config(
        "checkpoint = { interval_ms = 500, retain_count = 2, retain_ms = 640000, gc_grace_ms = 20000 }",
    );
    let world = World::new();
    let mut seconds = 0;
    // Four owners, 200 s each.
    for _ in 0..4 {
        world.run_well(&aged, busy(seconds..seconds + 200));
        seconds += 200;
    }
    assert!(world.count("event Collected") > 10);
    let infos = listed(&world);
    let now = world.lock().unix_ms();
    let ages: Vec<i64> = infos
        .iter()
        .map(|info| (now - info.made_unix_ms) / 1_000)
        .collect();
    // About one in 10 s for 640 s, and in the newest minute what was not collected yet.
    assert!((600..700).contains(&ages[0]), "{ages:?}");
    let old = ages.iter().filter(|&&age| age > 60).count();
    assert!((40..=70).contains(&old), "{old} of {ages:?}");
    for info in infos {
        loaded(&world, &info.id).expect("a retained checkpoint is whole");
    }
}
