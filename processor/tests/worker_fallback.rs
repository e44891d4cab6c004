//! When the committed checkpoint is damaged, an older one takes its place, if a replay from it proves
//! that nothing is missing.

mod fake;

use bytes::Bytes;
use fake::{Inner, P0, Step, World, act, assign, config, reading, reading_then_crash};
use processor::io::ErrorClass;
use processor::worker::{Refusal, WorkerError};

const EVENTS: i64 = 60;
const SELDOM: &str = "checkpoint = { interval_ms = 60000 }";

fn calm() -> Vec<processor::io::ProducerRecord> {
    let world = World::with_events(EVENTS);
    world.run_well(&config(""), reading());
    world.outputs(P0)
}

/// Three clean stops, each with a checkpoint; the one of the beginning, before any record, is gone.
fn three_checkpoints() -> World {
    let world = World::new();
    for round in 0..3 {
        world.append_events(round * 15..round * 15 + 15);
        world.run_well(&config(SELDOM), reading());
    }
    {
        let mut inner = world.lock();
        let [beginning, rest @ ..] = &manifests(&inner)[..] else {
            panic!("no checkpoints");
        };
        assert_eq!(rest.len(), 3);
        inner.objects.remove(beginning);
    }
    world.append_events(45..EVENTS);
    world.forget_journal();
    world
}

/// Paths of all manifests, oldest first.
fn manifests(inner: &Inner) -> Vec<String> {
    let paths = inner.objects.keys();
    paths
        .filter(|path| path.contains("/manifests/"))
        .cloned()
        .collect()
}

type Damage = fn(&mut Inner, &str);

fn damages() -> [Damage; 6] {
    fn edit(inner: &mut Inner, manifest: &str, edit: impl FnOnce(&mut serde_json::Value)) {
        let object = inner.objects.get_mut(manifest).expect("it is there");
        let mut value = serde_json::from_slice(&object.content).expect("it is JSON");
        edit(&mut value);
        object.content = Bytes::from(value.to_string());
    }
    /// A piece that no other checkpoint has.
    fn own_piece(inner: &Inner, manifest: &str) -> String {
        let others = manifests(inner).into_iter().filter(|path| path != manifest);
        let others: Vec<String> = others.flat_map(|path| inner.files_of(&path)).collect();
        let mut own = inner.files_of(manifest).into_iter();
        own.find(|file| !others.contains(file))
            .expect("it has news")
    }
    [
        |inner, manifest| {
            inner.objects.remove(manifest);
        },
        |inner, manifest| {
            let object = inner.objects.get_mut(manifest).expect("it is there");
            object.content = object.content.slice(..40);
        },
        |inner, manifest| edit(inner, manifest, |value| value["header"] = "AAAA".into()),
        |inner, manifest| {
            edit(inner, manifest, |value| {
                value["digest"] = "0".repeat(32).into()
            })
        },
        |inner, manifest| {
            let piece = own_piece(inner, manifest);
            inner.objects.remove(&piece);
        },
        |inner, manifest| {
            let piece = own_piece(inner, manifest);
            let object = inner.objects.get_mut(&piece).expect("it is there");
            let mut content = object.content.to_vec();
            let middle = content.len() / 2;
            content[middle] ^= 1;
            object.content = content.into();
        },
    ]
}

#[test]
fn a_damaged_checkpoint_is_replaced_by_the_one_before_it() {
    for (nth, damage) in damages().into_iter().enumerate() {
        let world = three_checkpoints();
        {
            let mut inner = world.lock();
            let newest = inner.named_manifest();
            damage(&mut inner, &newest);
        }
        world.run_well(&config(SELDOM), reading());
        assert_eq!(world.count("event FellBack"), 1, "damage {nth}");
        assert_eq!(world.count("event Recovered"), 1, "damage {nth}");
        assert!(world.outputs(P0) == calm(), "damage {nth}");
        // From now on there is a sound one again.
        world.forget_journal();
        world.run_well(&config(SELDOM), reading());
        assert_eq!(world.count("event FellBack"), 0, "damage {nth}");
        assert_eq!(world.count("event Recovered"), 1, "damage {nth}");
    }
}

#[test]
fn two_damaged_checkpoints_are_replaced_by_the_third() {
    for damage in damages() {
        let world = three_checkpoints();
        {
            let mut inner = world.lock();
            for manifest in manifests(&inner).into_iter().skip(1).rev() {
                damage(&mut inner, &manifest);
            }
        }
        world.run_well(&config(SELDOM), reading());
        assert_eq!(world.count("event FellBack"), 1);
        assert!(world.outputs(P0) == calm());
    }
}

#[test]
fn without_a_sound_checkpoint_the_damage_is_told() {
    for damage in damages() {
        let world = three_checkpoints();
        {
            let mut inner = world.lock();
            for manifest in manifests(&inner).into_iter().rev() {
                damage(&mut inner, &manifest);
            }
        }
        let before = world.lock().committed.clone();
        let error = world.run(&config(SELDOM), reading()).error();
        assert!(error.is_refusal(), "{error}");
        let message = error.to_string();
        let id = world.lock().commit_record(P0).snapshot;
        for part in [&id, "no older checkpoint can take its place"] {
            assert!(message.contains(part), "no {part} in {message}");
        }
        assert_eq!(world.lock().committed, before);
    }
}

#[test]
fn a_crash_at_any_call_of_a_fallback_changes_no_byte() {
    let calm = calm();
    for crash in 1.. {
        let world = three_checkpoints();
        {
            let mut inner = world.lock();
            let newest = inner.named_manifest();
            inner.objects.remove(&newest);
            inner.crash_after_calls = Some(inner.calls + crash);
        }
        let exit = world.run(&config(""), reading());
        world.run_well(&config(""), reading());
        assert!(world.outputs(P0) == calm, "call {crash}");
        if matches!(exit, fake::Exit::Stopped) {
            assert!(crash > 30, "{crash} calls");
            break;
        }
    }
}

#[test]
fn a_newer_checkpoint_that_no_commit_names_can_take_the_place_too() {
    let world = three_checkpoints();
    // It snapshots at the committed offset, and its next commit never comes.
    let script = vec![
        assign(&[P0]),
        Step::Read,
        act(|inner| {
            inner.fail(
                "send_offsets_to_transaction",
                10_000,
                ErrorClass::RequiresAbort,
            )
        }),
        Step::Wait(1_000),
        Step::Crash,
    ];
    world.run(&config(""), script);
    world.lock().clear_faults();
    let manifest = {
        let mut inner = world.lock();
        let committed = inner.committed[&P0].offset;
        let named = inner.named_manifest();
        let usable = |path: &&String| {
            let name = path.rsplit('/').next().expect("a name");
            let at: i64 = name[..20].parse().expect("an offset");
            **path != named && at <= committed.0
        };
        let all = manifests(&inner);
        let newest = all
            .iter()
            .filter(usable)
            .max()
            .expect("there is one")
            .clone();
        inner.objects.remove(&named);
        newest
    };
    let id = manifest.rsplit('/').next().expect("a name");
    let id = id.strip_suffix(".json").expect("a manifest").to_owned();
    world.forget_journal();
    world.run_well(&config(SELDOM), reading());
    let fell_back = format!("event FellBack {{ partition: PartitionId(0), to: \"{id}\"");
    assert_eq!(world.count(&fell_back), 1, "{}", world.journal());
    assert!(world.outputs(P0) == calm());
}

#[test]
fn nothing_is_replayed_across_an_advance_by_the_clock() {
    let idle = "windows = { idle_timeout_ms = 1000 }\ncheckpoint = { interval_ms = 60000 }";
    let world = World::new();
    for seconds in [1, 2, 3] {
        world.lock().append(P0, seconds, "10");
    }
    world.run_well(&config(idle), reading());
    let older = world.lock().named_manifest();
    let silent = vec![assign(&[P0]), Step::Read, Step::Wait(90_000)];
    world.run_well(&config(idle), silent);
    assert_eq!(world.count("event Forced"), 1);
    let newest = world.lock().named_manifest();
    assert_ne!(older, newest);
    let all = manifests(&world.lock());
    assert_eq!(all[1..], [older, newest.clone()], "beside the first one");
    world.lock().objects.remove(&newest);
    let error = world.run(&config(idle), reading()).error();
    assert!(error.is_refusal(), "{error}");
    assert_eq!(world.count("event FellBack"), 0);
    assert!(
        error.to_string().contains("advanced by the clock"),
        "{error}"
    );
}

#[test]
fn a_checkpoint_after_the_advance_by_the_clock_can_take_the_place() {
    let idle = "windows = { idle_timeout_ms = 1000 }\ncheckpoint = { interval_ms = 60000 }";
    let world = World::new();
    for seconds in [1, 2, 3] {
        world.lock().append(P0, seconds, "10");
    }
    let silent = vec![assign(&[P0]), Step::Read, Step::Wait(90_000)];
    world.run_well(&config(idle), silent);
    assert_eq!(world.count("event Forced"), 1);
    world.lock().append(P0, 95, "11");
    world.run_well(&config(idle), reading());
    {
        let mut inner = world.lock();
        let newest = inner.named_manifest();
        inner.objects.remove(&newest);
    }
    world.run_well(&config(idle), reading());
    assert_eq!(world.count("event FellBack"), 1);
    world.outputs(P0);
}

#[test]
fn a_checkpoint_from_before_the_log_begins_is_not_taken() {
    let world = three_checkpoints();
    {
        let mut inner = world.lock();
        let at = inner.commit_record(P0).snapshot_at.0;
        let newest = inner.named_manifest();
        inner.objects.remove(&newest);
        inner.logs.get_mut(&P0).expect("a log").earliest = at;
    }
    let error = world.run(&config(SELDOM), reading()).error();
    assert!(error.is_refusal(), "{error}");
    assert_eq!(world.count("event FellBack"), 0);
}

#[test]
fn a_checkpoint_of_another_configuration_is_not_taken() {
    let world = three_checkpoints();
    let newest = world.lock().named_manifest();
    world.lock().objects.remove(&newest);
    let other = "windows = { allowed_lateness_ms = 90000 }";
    let error = world.run(&config(other), reading()).error();
    let damaged = |reason: &Refusal| matches!(reason, Refusal::Manifest { .. });
    assert!(
        matches!(&error, WorkerError::Refused { reason, .. } if damaged(reason)),
        "{error}"
    );
    assert_eq!(world.count("event FellBack"), 0);
    // Under the old one it goes on.
    world.run_well(&config(SELDOM), reading());
    assert!(world.outputs(P0) == calm());
}

#[test]
fn a_replay_that_does_not_prove_the_older_checkpoint_tells_the_damage() {
    let world = three_checkpoints();
    {
        let mut inner = world.lock();
        inner.edit_commit_record(P0, |record| record.digest.0 ^= 1);
        let newest = inner.named_manifest();
        inner.objects.remove(&newest);
    }
    let error = world.run(&config(SELDOM), reading()).error();
    assert!(error.is_refusal(), "{error}");
    assert_eq!(world.count("event FellBack"), 1);
    let newest = world.lock().commit_record(P0).snapshot;
    assert!(error.to_string().contains(&newest), "{error}");
}

#[test]
fn a_store_that_does_not_answer_is_waited_for_not_fallen_back_from() {
    for call in ["get", "list"] {
        let world = three_checkpoints();
        if call == "list" {
            let newest = world.lock().named_manifest();
            world.lock().objects.remove(&newest);
        }
        world.fail(call, 3, ErrorClass::Retriable);
        world.run_well(&config(SELDOM), vec![assign(&[P0]), Step::Wait(10_000)]);
        assert_eq!(world.count("event Postponed"), 3);
        let expected = usize::from(call == "list");
        assert_eq!(world.count("event FellBack"), expected);
        assert!(world.outputs(P0) == calm());
    }
}

#[test]
fn a_crash_behind_a_damaged_checkpoint_is_recovered_too() {
    let world = three_checkpoints();
    world.run(&config(SELDOM), reading_then_crash());
    assert_eq!(world.committed_offset(P0), Some(world.end_of_log()));
    let newest = world.lock().named_manifest();
    world.lock().objects.remove(&newest);
    world.run_well(&config(SELDOM), reading());
    assert_eq!(world.count("event FellBack"), 1);
    assert!(world.outputs(P0) == calm());
}
