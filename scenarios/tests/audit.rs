//! The audit of a cluster, fed with histories of simulated runs: it judges as the simulation is
//! judged, and accuses what was tampered with.

use bytes::Bytes;
use properties::history::{CommittedOffset, History, TopicRecord};
use properties::spill::Scratch;
use properties::{Property, Verdict};
use reports::audit::AuditReport;
use scenarios::audit::recorded::Recorded;
use scenarios::audit::{AuditError, Cluster, Extent, Order, Progress, Topic, audit};
use scenarios::{catalog, runner};

/// So little that everything is sorted on disk.
const SORTER_BYTES_MAX: usize = 100_000;

fn history(scenario: &str, seed: u64) -> History {
    let plan = catalog::find(scenario).and_then(|scenario| scenario.resolve(seed));
    let plan = plan.expect("the catalog has it");
    let order = runner::Order {
        plan: &plan,
        expect: &[],
        input: None,
        trace: false,
        twice: false,
        replay: "",
    };
    let played = runner::play(&order).expect("it is played");
    assert_eq!(played.report.verdicts.failed(), []);
    played.history
}

fn audited(history: &History, complete: bool) -> Result<AuditReport, AuditError> {
    let order = order(history, complete);
    audit(&order, &mut Recorded::new(history), &mut ())
}

fn order(history: &History, complete: bool) -> Order {
    Order {
        rules: history.rules.clone(),
        group: "processor".to_owned(),
        topics: [history.input_topic.as_str(), "output", "dlq"].map(str::to_owned),
        complete,
        hidden_ms_max: history.hidden_ms_max,
        clock_error_ms: history.clock_error_ms,
        scratch: Scratch::folder(std::env::temp_dir(), SORTER_BYTES_MAX),
    }
}

fn failed(history: &History, complete: bool) -> Vec<Property> {
    let report = audited(history, complete).expect("it is audited");
    report.verdicts.failed()
}

#[test]
fn finished_runs_hold_and_nothing_is_left_out() {
    for scenario in ["calm", "bad-data", "very-late-data", "backlog", "storm"] {
        let history = history(scenario, 3);
        let report = audited(&history, true).expect("it is audited");
        assert_eq!(
            report.verdicts.failed(),
            [],
            "{scenario}: {}",
            report.text()
        );
        let judged = report.judged;
        assert_eq!(judged.records, history.input.len() as u64);
        assert_eq!(judged.results, history.outputs.len() as u64);
        assert_eq!(judged.dead_letters, history.dead_letters.len() as u64);
        assert_eq!(report.not_committed.outputs, 0);
        let held = |property| report.verdicts.get(property) == Some(&Verdict::Held);
        assert!(
            Property::ALL
                .into_iter()
                .all(|one| held(one) || one == Property::Determinism)
        );
    }
}

#[test]
fn a_run_holds_as_it_stood_at_any_of_its_commits() {
    let whole = history("bad-data", 1);
    let (mut left_out, mut open) = (0, 0);
    for commits in (1..whole.commits.len()).step_by(whole.commits.len() / 25) {
        let mut cut = whole.clone();
        cut.commits.truncate(commits);
        let report = audited(&cut, false).expect("it is audited");
        assert_eq!(report.verdicts.failed(), [], "{commits}: {}", report.text());
        let liveness = report.verdicts.get(Property::Liveness);
        assert!(matches!(liveness, Some(Verdict::NotJudged { .. })));
        left_out += report.not_committed.outputs;
        let judged = report.judged;
        let outputs = judged.results + judged.dead_letters + report.not_committed.outputs;
        assert_eq!(
            outputs,
            (whole.outputs.len() + whole.dead_letters.len()) as u64
        );
        if report.not_committed.offsets == 0 {
            continue;
        }
        open += 1;
        // Of a pipeline that has come to rest, it is a loss.
        let complete = failed(&cut, true);
        assert!(complete.contains(&Property::Liveness), "{complete:?}");
    }
    assert!(open > 15 && left_out > 1_000, "{open}, {left_out}");
}

/// Puts a copy of a record at the end of its partition.
fn repeat(topic: &mut Vec<TopicRecord>, at: usize) {
    let mut copy = topic[at].clone();
    let last = topic.iter().filter(|one| one.partition == copy.partition);
    copy.offset = last.map(|one| one.offset).max().unwrap_or(0) + 2;
    let behind = topic.partition_point(|one| one.partition <= copy.partition);
    topic.insert(behind, copy);
}

#[test]
fn tampering_is_accused_whether_the_pipeline_runs_or_rests() {
    let whole = history("bad-data", 2);
    for complete in [false, true] {
        let mut twice = whole.clone();
        repeat(&mut twice.outputs, 5);
        assert!(failed(&twice, complete).contains(&Property::ExactlyOnceOut));
        let mut twice = whole.clone();
        repeat(&mut twice.dead_letters, 5);
        assert!(failed(&twice, complete).contains(&Property::Conservation));
        let mut lost = whole.clone();
        lost.outputs.remove(7);
        let accused = failed(&lost, complete);
        assert!(accused.contains(&Property::ExactlyOnceOut), "{accused:?}");
        assert!(
            accused.contains(&Property::WindowCorrectness),
            "{accused:?}"
        );
        let mut lost = whole.clone();
        lost.dead_letters.remove(3);
        let accused = failed(&lost, complete);
        assert!(accused.contains(&Property::Conservation), "{accused:?}");
        let mut foreign = whole.clone();
        foreign.outputs[9].headers.clear();
        assert!(failed(&foreign, complete).contains(&Property::ExactlyOnceOut));
        let mut altered = whole.clone();
        let value = altered.outputs[11].value.clone().unwrap_or_default();
        let text = String::from_utf8_lossy(&value).replacen("\"count\":", "\"count\":1", 1);
        altered.outputs[11].value = Some(Bytes::from(text));
        assert!(failed(&altered, complete).contains(&Property::WindowCorrectness));
    }
}

#[test]
fn a_foreign_record_is_named_with_its_place() {
    let mut history = history("calm", 0);
    history.outputs[4].headers.clear();
    let text = audited(&history, true).expect("it is audited").text();
    let TopicRecord {
        partition, offset, ..
    } = history.outputs[4];
    let place = format!("result at partition {partition} offset {offset}");
    assert!(
        text.contains(&place) && text.contains("is missing"),
        "{text}"
    );
}

#[test]
fn what_retention_has_removed_is_not_judged() {
    let whole = history("bad-data", 0);
    let mut cut = whole.clone();
    cut.input.remove(0);
    let report = audited(&cut, true).expect("it is audited");
    assert_eq!(report.verdicts.failed(), [], "{}", report.text());
    let unknown = [
        Property::Conservation,
        Property::WindowCorrectness,
        Property::Causality,
        Property::Liveness,
    ];
    for property in unknown {
        let verdict = report.verdicts.get(property);
        assert!(
            matches!(verdict, Some(Verdict::NotJudged { .. })),
            "{property}"
        );
    }
    assert_eq!(
        report.verdicts.get(Property::ExactlyOnceOut),
        Some(&Verdict::Held)
    );
    assert!(
        report.text().contains("raise the retention"),
        "{}",
        report.text()
    );

    let mut cut = whole;
    cut.outputs.remove(0);
    let report = audited(&cut, true).expect("it is audited");
    assert_eq!(report.verdicts.failed(), [], "{}", report.text());
    let verdict = report.verdicts.get(Property::ExactlyOnceOut);
    assert!(matches!(verdict, Some(Verdict::NotJudged { .. })));
}

#[test]
fn a_group_that_is_no_processor_is_an_error_that_names_the_fix() {
    let mut history = history("calm", 0);
    for commit in &mut history.commits {
        commit.metadata = "consumed".to_owned();
    }
    let error = audited(&history, false).expect_err("there is nothing to judge by");
    assert!(matches!(error, AuditError::ForeignGroup { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("is kafka.group_id that of the processor?")
    );
    history.commits.clear();
    let error = audited(&history, false).expect_err("there is nothing to judge by");
    assert!(
        matches!(error, AuditError::NothingCommitted { .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("is kafka.group_id that of the processor?")
    );
}

/// A cluster in which a transaction of an output partition stays open.
struct Open<'a>(Recorded<'a>);

impl Cluster for Open<'_> {
    fn now_ms(&self) -> i64 {
        self.0.now_ms()
    }

    fn committed(&mut self) -> Result<Vec<CommittedOffset>, AuditError> {
        self.0.committed()
    }

    fn extents(&mut self, topic: Topic) -> Result<Vec<Extent>, AuditError> {
        let mut extents = self.0.extents(topic)?;
        if topic == Topic::Output {
            extents[0].written_end += 3;
        }
        Ok(extents)
    }

    fn read(
        &mut self,
        topic: Topic,
        partition: i32,
        extent: Extent,
        each: &mut dyn FnMut(&TopicRecord) -> std::io::Result<()>,
    ) -> Result<(), AuditError> {
        self.0.read(topic, partition, extent, each)
    }
}

#[test]
fn a_transaction_that_stays_open_is_noted_and_no_rest() {
    let history = history("calm", 0);
    let open = |complete| {
        let mut cluster = Open(Recorded::new(&history));
        audit(&order(&history, complete), &mut cluster, &mut ()).expect("it is audited")
    };
    let report = open(false);
    assert_eq!(report.verdicts.failed(), []);
    assert!(
        report.text().contains("a transaction stayed open"),
        "{}",
        report.text()
    );
    assert_eq!(open(true).verdicts.failed(), [Property::Liveness]);
}

#[test]
fn scratch_space_that_cannot_be_used_is_an_error_that_names_the_fix() {
    let history = history("calm", 0);
    let order = Order {
        scratch: Scratch::folder("/no/such/folder".into(), 1),
        ..order(&history, true)
    };
    let error = audit(&order, &mut Recorded::new(&history), &mut ());
    let error = error.expect_err("there is no room");
    assert!(matches!(error, AuditError::Scratch(_)), "{error}");
    assert!(error.to_string().contains("--scratch"), "{error}");
}

#[test]
fn progress_comes_to_its_end() {
    #[derive(Default)]
    struct Seen(u64, u64);
    impl Progress for Seen {
        fn total(&mut self, offsets: u64) {
            self.0 += offsets;
        }
        fn advance(&mut self, offsets: u64) {
            self.1 += offsets;
        }
    }
    let history = history("calm", 0);
    let mut seen = Seen::default();
    let mut cluster = Recorded::new(&history);
    audit(&order(&history, true), &mut cluster, &mut seen).expect("it is audited");
    assert!(seen.0 > history.input.len() as u64 && seen.0 == seen.1);
}
