//! State larger than memory: what is spilled comes back when it is needed, and nobody can tell.

mod fake;

use fake::{Exit, P0, P1, Step, World, assign, config, reading};
use processor::io::ErrorClass;
use processor::worker::WorkerError;

const EVENTS: i64 = 120;
/// Windows stay open long enough that several have identities.
const WIDE: &str = "
windows = { max_out_of_orderness_ms = 90000, allowed_lateness_ms = 300000 }
";

fn limited(bytes: usize) -> std::sync::Arc<processor::config::ProcessorConfig> {
    config(&format!("{WIDE}state = {{ memory_limit_bytes = {bytes} }}"))
}

fn calm() -> Vec<processor::io::ProducerRecord> {
    let world = World::with_events(EVENTS);
    world.run_well(&config(WIDE), reading());
    assert_eq!(world.count("event Spilled"), 0);
    let outputs = world.outputs(P0);
    assert!(outputs.len() > 20);
    outputs
}

#[test]
fn a_memory_limit_changes_no_byte_of_the_outputs() {
    let calm = calm();
    for bytes in [0, 200, 400, 800] {
        let world = World::with_events(EVENTS);
        world.run_well(&limited(bytes), reading());
        assert!(world.count("event Spilled") > 3, "{bytes} bytes");
        assert!(world.outputs(P0) == calm, "{bytes} bytes");
    }
}

#[test]
fn a_crash_at_any_call_under_a_memory_limit_changes_no_byte() {
    let calm = calm();
    for crash in 1.. {
        let world = World::with_events(EVENTS);
        world.lock().crash_after_calls = Some(crash);
        let exit = world.run(&limited(0), reading());
        world.run_well(&limited(0), reading());
        assert!(world.outputs(P0) == calm, "call {crash}");
        if matches!(exit, Exit::Stopped) {
            assert!(crash > 50, "{crash} calls");
            break;
        }
    }
}

#[test]
fn duplicates_of_spilled_events_are_still_told() {
    let world = World::new();
    let append_all = |world: &World| {
        let mut inner = world.lock();
        for id in 0..20 {
            let event = fake::tick_with_id("SPY", id * 7, "10", id);
            inner.append_value(P0, 140, &event);
        }
    };
    append_all(&world);
    append_all(&world);
    world.run_well(&limited(0), reading());
    assert!(world.count("event Spilled") > 0);
    let record = world.lock().commit_record(P0);
    let [records, accepted, duplicates, dead_letters, _] = record.counters;
    assert_eq!(
        (records, accepted, duplicates, dead_letters),
        (40, 20, 20, 0)
    );
    // And after a restart, which takes nothing into memory.
    append_all(&world);
    world.run_well(&limited(0), reading());
    let record = world.lock().commit_record(P0);
    assert_eq!(record.counters[1..3], [20, 40]);
}

#[test]
fn the_limit_is_shared_by_the_partitions() {
    let play = |overrides: usize| {
        let world = World::with_events(EVENTS);
        for index in 0..EVENTS {
            fake::append_varied(&mut world.lock(), P1, index);
        }
        let script = vec![assign(&[P0, P1]), Step::Read, Step::Wait(500)];
        world.run_well(&limited(overrides), script);
        world
    };
    let (free, tight) = (play(1 << 20), play(700));
    assert_eq!(free.count("event Spilled"), 0);
    for partition in [P0, P1] {
        let spilled = format!("event Spilled {{ partition: PartitionId({partition})");
        assert!(tight.count(&spilled) > 0, "{partition}");
        assert!(tight.outputs(partition) == free.outputs(partition));
    }
}

#[test]
fn local_state_that_vanishes_ends_the_worker_and_a_restart_goes_on() {
    let calm = calm();
    for nth in 0..6 {
        let world = World::with_events(EVENTS);
        world.meet("state.get", nth, fake::Fault::fails(ErrorClass::Fatal));
        let error = world.run(&limited(0), reading()).error();
        assert!(matches!(error, WorkerError::State(_)), "{error}");
        assert!(!error.is_refusal());
        world.run_well(&limited(0), reading());
        assert!(world.outputs(P0) == calm);
    }
}
