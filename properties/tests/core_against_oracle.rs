//! The processor's pure core against the oracle: arbitrary event streams in, every property that
//! the topics can show out.

mod recording;

use processor::core::Identity;
use properties::history::TopicRecord;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use recording::{HIDDEN_MS_MAX, Recording, Settings, Step};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

/// Garbage inputs of one case of `garbage_is_never_lost_and_never_kills`, and the number of cases.
const GARBAGE_INPUTS: usize = 250;
const GARBAGE_CASES: u32 = 420;

/// How long a record may stand unseen in the log, milliseconds: the auditor takes what is older for
/// a backlog.
const UNSEEN_MS_MAX: u32 = HIDDEN_MS_MAX as u32;

fn settings() -> impl Strategy<Value = Settings> {
    (
        prop_oneof![Just(0_i64), Just(5_000), 0..90_000_i64],
        prop_oneof![Just(0_i64), Just(60_000), 0..300_000_i64],
        prop_oneof![Just(0_i64), Just(60_000), 0..600_000_i64],
        prop_oneof![3 => Just(Identity::EventId), 1 => Just(Identity::Content)],
        prop_oneof![Just(0_i64), 0..1_000_000_i64],
        1..300_usize,
    )
        .prop_map(
            |(out_of_orderness_ms, lateness_ms, skew_ms, identity, start, records_a_commit)| {
                Settings {
                    out_of_orderness_ms,
                    lateness_ms,
                    skew_ms,
                    identity,
                    start,
                    records_a_commit,
                }
            },
        )
}

/// How much before (or after) the clock of the log an event happened, milliseconds.
fn lag_ms() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => 0..3_000_i64,
        3 => 0..90_000_i64,
        2 => 0..500_000_i64,
        1 => -700_000..0_i64,
        1 => (0..10_i64).prop_map(|minutes| minutes * 60_000),
    ]
}

fn price_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (1..100_000_u32, 0..100_u32).prop_map(|(a, b)| format!("{a}.{b:02}")),
        2 => (0..1_000_000_u32, 1..100_000_000_u32).prop_map(|(a, b)| format!("{a}.{b:08}")),
        1 => (1..1000_u32).prop_map(|a| format!("{a}e-2")),
        1 => (1..1000_u32).prop_map(|a| format!("0.0{a}E+3")),
        1 => Just("1000000".to_owned()),
        1 => (1..9_u32).prop_map(|a| format!("{a}.50000000000")),
    ]
}

fn ticker_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("\"AMZN\"".to_owned()),
        3 => Just("\"AAPL\"".to_owned()),
        1 => Just("\"\\u0041APL\"".to_owned()),
        1 => Just("\"Ünï \\\"x\\\"\"".to_owned()),
    ]
}

fn id_text() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        4 => (0..8_u32).prop_map(|id| Some(format!("\"id-{id}\""))),
        1 => (0..9_u32).prop_map(|id| Some(id.to_string())),
        1 => (0..9_u32).prop_map(|id| Some(format!("\"{id}\""))),
        1 => Just(Some("null".to_owned())),
        3 => Just(None),
    ]
}

fn source_text() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        Just(None),
        Just(Some("null".to_owned())),
        Just(Some("\"feed\"".to_owned()))
    ]
}

/// A valid event, apart from its time. The time is filled in when the clock of its record is known.
fn event() -> impl Strategy<Value = Step> {
    let time = (lag_ms(), 0..5_u8);
    let volume = prop_oneof![Just(0_u32), 0..1_000_000_u32];
    (
        ticker_text(),
        price_text(),
        volume,
        id_text(),
        source_text(),
        time,
    )
        .prop_map(
            |(ticker, price, volume, id, source, (lag_ms, notation))| Step::Event {
                ticker,
                price,
                volume: volume.to_string(),
                id,
                source,
                lag_ms,
                notation,
            },
        )
}

fn broken_event() -> impl Strategy<Value = Step> {
    let odd = prop_oneof![
        Just("null"),
        Just("true"),
        Just("\"\""),
        Just("\"N/A\""),
        Just("[]"),
        Just("{\"a\":1,\"a\":2}"),
        Just("-1"),
        Just("-0"),
        Just("0"),
        Just("1.5"),
        Just("1e2"),
        Just("1e400"),
        Just("-1e400"),
        Just("1e-400"),
        Just("123"),
        Just("1.123456789"),
        Just("\"\\ud800\""),
        Just("\"XYZ\""),
        Just("9999999999999999999"),
        Just("1700000000.1234"),
    ];
    (0..6_usize, odd, event()).prop_map(|(field, odd, event)| match event {
        Step::Event { mut ticker, mut price, mut volume, mut id, mut source, lag_ms, notation } => {
            let odd = odd.to_owned();
            match field {
                0 => ticker = odd,
                1 => price = odd,
                2 => volume = odd,
                3 => id = Some(odd),
                4 => source = Some(odd),
                _ => return Step::Raw(Some(format!(
                    "{{\"ticker\":{ticker},\"price\":{price},\"volume\":{volume},\"timestamp\":{odd}}}"
                ).into_bytes())),
            }
            Step::Event { ticker, price, volume, id, source, lag_ms, notation }
        }
        other => other,
    })
}

fn mutate(mut bytes: Vec<u8>, cuts: &[(u8, u16, u8)]) -> Vec<u8> {
    for (kind, at, byte) in cuts {
        if bytes.is_empty() {
            return bytes;
        }
        let at = usize::from(*at) % bytes.len();
        match kind % 6 {
            0 => bytes[at] = *byte,
            1 => bytes.insert(at, *byte),
            2 => {
                bytes.remove(at);
            }
            3 => bytes.truncate(at),
            4 => bytes.extend_from_within(at..),
            _ => bytes[at] = b"{}[]\",:0eE.-+\\u \n"[usize::from(*byte) % 17],
        }
    }
    bytes
}

fn mutated_json() -> impl Strategy<Value = Step> {
    let base = prop_oneof![
        Just(
            r#"{"ticker":"AMZN","price":150.25,"volume":100,"timestamp":1700000000,"event_id":"x","source":"feed"}"#
        ),
        Just(r#"{"ticker":"AAPL","price":1e2,"volume":0,"timestamp":1700000000.5}"#),
        Just(
            r#"{ "ticker" : "AAPL", "ticker":"AMZN", "price":1, "volume":1, "timestamp":1700000000 }"#
        ),
        Just(
            r#"{"other":{"deep":[1,{"a":[[]]}]},"ticker":"\u0041","price":1,"volume":1,"timestamp":1700000000}"#
        ),
    ];
    (base, vec((any::<u8>(), any::<u16>(), any::<u8>()), 1..6))
        .prop_map(|(base, cuts)| Step::Raw(Some(mutate(base.as_bytes().to_vec(), &cuts))))
}

fn garbage() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => mutated_json(),
        3 => broken_event(),
        2 => vec(any::<u8>(), 0..60).prop_map(|bytes| Step::Raw(Some(bytes))),
        1 => "\\PC{0,40}".prop_map(|text| Step::Raw(Some(text.into_bytes()))),
        1 => Just(Step::Raw(None)),
        1 => (0..4_000_usize).prop_map(|size| Step::Raw(Some(vec![b'['; size]))),
        1 => (0..4_000_usize).prop_map(|size| Step::Raw(Some(vec![1; size]))),
    ]
}

/// The watermark is forced; what can be seen next came after it, or stood unseen in the log.
fn idle() -> impl Strategy<Value = Step> {
    let unseen_ms = prop_oneof![
        2 => Just(0_u32),
        2 => 0..30_000_u32,
        2 => 0..300_000_u32,
        1 => 0..UNSEEN_MS_MAX,
    ];
    (0..400_000_u32, unseen_ms).prop_map(|(beyond_ms, unseen_ms)| Step::Idle {
        beyond_ms,
        unseen_ms,
    })
}

/// Forced advances in the middle of the stream, each with records around its clock.
fn stalls(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => event(),
        1 => Just(Step::Raw(None)),
        2 => (0..40_000_u32).prop_map(|by_ms| Step::Wait { by_ms }),
        2 => (100_000..600_000_u32).prop_map(|by_ms| Step::Wait { by_ms }),
        1 => (1..4_u8).prop_map(|offsets| Step::Gap { offsets }),
        4 => idle(),
    ];
    vec(step, 0..most)
}

/// What happens to one partition.
fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => event(),
        2 => garbage(),
        2 => (0..40_000_u32).prop_map(|by_ms| Step::Wait { by_ms }),
        1 => (1..4_u8).prop_map(|offsets| Step::Gap { offsets }),
        1 => idle(),
    ];
    vec(step, 0..most)
}

proptest! {
    #![proptest_config(config(600))]

    /// Order, lateness, duplicates, garbage, idleness: all as the oracle says.
    #[test]
    fn every_stream_gives_what_the_oracle_gives(
        settings in settings(),
        first in steps(120),
        second in steps(30),
    ) {
        let mut recording = Recording::new(settings);
        recording.run(0, &first);
        recording.run(1, &second);
        recording.assert_all_held()?;
    }

    /// Events that crowd into few windows: many corrections, many duplicates.
    #[test]
    fn crowded_windows_give_what_the_oracle_gives(
        settings in settings(),
        events in vec(event(), 0..400),
    ) {
        let mut recording = Recording::new(settings);
        recording.run(0, &events);
        recording.assert_all_held()?;
    }

    /// Forced advances over records that nobody could see yet: what came before the forced clock
    /// is judged by the log alone, what came after it by the advance.
    #[test]
    fn forced_advances_in_mid_stream_give_what_the_oracle_gives(
        settings in settings(),
        steps in stalls(150),
    ) {
        let mut recording = Recording::new(settings);
        recording.run(0, &steps);
        recording.assert_all_held()?;
    }

    /// A task that is restored from a snapshot goes on as if nothing had happened.
    #[test]
    fn a_snapshot_at_any_point_changes_nothing(
        settings in settings(),
        steps in prop_oneof![steps(120), stalls(120)],
        snapshots in vec(0..120_usize, 1..5),
    ) {
        let mut undisturbed = Recording::new(settings.clone());
        undisturbed.run(0, &steps);
        let mut restored = Recording::new(settings);
        restored.run_with_restores(0, &steps, &snapshots);
        prop_assert_eq!(undisturbed.history(), restored.history());
        restored.assert_all_held()?;
    }
}

proptest! {
    #![proptest_config(config(GARBAGE_CASES))]

    /// More than 100,000 garbage inputs: no panic, none lost, a dead letter for each refused one.
    #[test]
    fn garbage_is_never_lost_and_never_kills(
        settings in settings(),
        garbage in vec(garbage(), GARBAGE_INPUTS),
    ) {
        let mut recording = Recording::new(settings);
        let counters = recording.run(0, &garbage);
        prop_assert_eq!(counters.records, GARBAGE_INPUTS as u64);
        prop_assert_eq!(
            counters.records,
            counters.accepted + counters.duplicates + counters.dead_letters
        );
        prop_assert_eq!(recording.history().dead_letters.len() as u64, counters.dead_letters);
        recording.assert_all_held()?;
    }
}

/// The streams really take the hard paths: else their agreement would prove little.
#[test]
fn the_streams_take_every_hard_path() {
    let mut runner = TestRunner::deterministic();
    let mut reached = Reached::default();
    for _ in 0..60 {
        let strategy = (settings(), steps(120), stalls(120));
        let tree = strategy.new_tree(&mut runner).expect("nothing is filtered");
        let (settings, steps, stalls) = tree.current();
        let mut recording = Recording::new(settings);
        reached.duplicates += recording.run(0, &steps).duplicates;
        reached.duplicates += recording.run(1, &stalls).duplicates;
        reached.count(&recording);
    }
    let Reached {
        duplicates,
        corrections,
        too_late,
        idle_results,
        many_at_once,
        spared,
        late_by_force,
    } = reached;
    for (path, times) in [
        ("duplicates", duplicates),
        ("corrections", corrections),
        ("events too late", too_late),
        ("results of idle advances", idle_results),
        ("several results of one cause", many_at_once),
        ("results of records spared by the horizon", spared),
        ("events too late by a forced advance", late_by_force),
    ] {
        assert!(times >= 40, "{path}: only {times}");
    }
}

#[derive(Default)]
struct Reached {
    duplicates: u64,
    corrections: u64,
    too_late: u64,
    idle_results: u64,
    many_at_once: u64,
    /// Results of records that would have been too late by the emission watermark.
    spared: u64,
    /// Events too late while a forced advance was the watermark.
    late_by_force: u64,
}

impl Reached {
    fn count(&mut self, recording: &Recording) {
        let history = recording.history();
        let header = |record: &TopicRecord, name: &str| -> String {
            let found = record.headers.iter().find(|(key, _)| key == name);
            found.map_or(String::new(), |(_, value)| {
                String::from_utf8_lossy(value).into_owned()
            })
        };
        let mut causes = Vec::new();
        for record in &history.outputs {
            self.corrections += u64::from(header(record, "revision") != "0");
            self.idle_results += u64::from(header(record, "cause") == "idle");
            causes.push((header(record, "cause"), header(record, "cause-offset")));
            let watermark_ms: i64 = header(record, "watermark").parse().expect("a number");
            let kept_until_ms = record.timestamp_ms + 1 + history.rules.allowed_lateness_ms;
            self.spared +=
                u64::from(header(record, "cause") == "record" && kept_until_ms <= watermark_ms);
        }
        causes.sort();
        let all = causes.len();
        causes.dedup();
        self.many_at_once += (all - causes.len()) as u64;
        let late = |record: &&TopicRecord| {
            let value = record.value.as_deref().unwrap_or_default();
            value.starts_with(b"{\"error_type\":\"too_late\"")
        };
        let by_force = |record: &&TopicRecord| {
            let watermark = header(record, "watermark");
            header(record, "forced").ends_with(&format!(":{watermark}"))
        };
        let late = || history.dead_letters.iter().filter(late);
        self.too_late += late().count() as u64;
        self.late_by_force += late().filter(by_force).count() as u64;
    }
}

#[test]
fn the_garbage_suite_is_as_large_as_promised() {
    assert!(GARBAGE_INPUTS * GARBAGE_CASES as usize >= 100_000);
}
