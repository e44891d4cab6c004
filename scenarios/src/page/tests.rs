//! A small run as its report shows it.

use super::{of_run, write_run};
use crate::plan_file;
use crate::runner::{Order, play};
use properties::Property;
use reports::page::run::{LaneKind, Outcome, RecordFate, RunPage, SpanKind, Status};
use sim::plan::Plan;

/// A run in which a planted bug is accused.
fn accused() -> (Plan, crate::runner::Played) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("regressions/published/01-late-end-of-a-transaction.toml");
    let plan = plan_file::read(&file).expect("it is a plan");
    let order = Order {
        plan: &plan,
        expect: &[],
        input: None,
        trace: true,
        twice: false,
        replay: "again",
    };
    let played = play(&order).expect("it can be played");
    (plan, played)
}

fn lane(page: &RunPage, number: usize) -> LaneKind {
    page.lanes[number].kind
}

#[test]
fn a_report_shows_what_the_topics_hold() {
    let (plan, played) = accused();
    let page = of_run(&plan, &played);
    let history = &played.history;
    assert_eq!(page.records.offset.len(), history.input.len());
    let columns = [
        page.records.partition.len(),
        page.records.at_ms.len(),
        page.records.event_ms.len(),
        page.records.ticker.len(),
        page.records.fate.len(),
        page.records.value.len(),
    ];
    assert!(columns.iter().all(|rows| *rows == history.input.len()));
    // Each event is in one window, whatever became of it, and each result is shown.
    let valid = page.records.ticker.iter().flatten().count();
    let in_windows: usize = page.windows.iter().map(|window| window.records.len()).sum();
    assert_eq!(in_windows, valid);
    let shown: usize = page
        .windows
        .iter()
        .map(|window| window.revisions.len())
        .sum();
    assert_eq!(shown, history.outputs.len());
    let known = |fate| page.records.fate.contains(&fate);
    assert!(known(RecordFate::Counted) && known(RecordFate::Invalid));
    let revisions = page.windows.iter().flat_map(|window| &window.revisions);
    assert!(revisions.clone().all(|revision| revision.at_ms.is_some()));
    for line in &page.watermarks {
        assert!(line.event_ms.is_sorted() && line.at_ms.len() == line.event_ms.len());
    }
}

#[test]
fn a_report_shows_who_did_what() {
    let (plan, played) = accused();
    let page = of_run(&plan, &played);
    assert!(page.lanes.is_sorted_by_key(|lane| lane.kind));
    let spans = |kind| page.spans.iter().filter(move |span| span.kind == kind);
    for span in &page.spans {
        assert!(span.from_ms <= span.to_ms, "{span:?}");
        assert_eq!(span.outcome.is_some(), span.kind == SpanKind::Transaction);
    }
    let of_workers = |kind| spans(kind).all(|span| lane(&page, span.lane) == LaneKind::Worker);
    for kind in [SpanKind::Owned, SpanKind::Checkpoint, SpanKind::Recovery] {
        assert!(of_workers(kind), "{kind:?}");
    }
    assert!(spans(SpanKind::Owned).count() > 0 && spans(SpanKind::Checkpoint).count() > 0);
    let committed = spans(SpanKind::Transaction)
        .filter(|span| span.outcome == Some(Outcome::Committed))
        .count();
    assert!(committed > 0);
    assert_eq!(
        page.spans
            .iter()
            .filter(|span| span.kind == SpanKind::Fault)
            .count()
            + page
                .points
                .iter()
                .filter(|point| point.kind == reports::page::run::PointKind::Fault)
                .count()
            - played
                .trace
                .iter()
                .filter(|line| line.kind == "promise-broken")
                .count(),
        plan.faults.len()
    );
}

#[test]
fn a_report_points_at_the_place_of_each_violation() {
    let (plan, played) = accused();
    let page = of_run(&plan, &played);
    assert_eq!(page.verdicts.len(), Property::ALL.len());
    let failed: Vec<_> = page
        .verdicts
        .iter()
        .filter(|verdict| verdict.status == Status::Fails)
        .collect();
    assert!(!failed.is_empty());
    let findings = failed.iter().flat_map(|verdict| &verdict.findings);
    let placed = findings
        .clone()
        .filter(|finding| finding.place.partition.is_some());
    assert!(placed.count() > 0, "{failed:?}");
}

#[test]
fn the_files_are_json_and_junit_for_machines() {
    let (plan, played) = accused();
    let folder = crate::bugs::folder_of_test("report");
    let path = write_run(&folder, &plan, &played).expect("it can be written");
    let text = std::fs::read_to_string(path).expect("it is there");
    let read: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(read["kind"], "run");
    assert_eq!(read["replay"], "again");
    let xml = std::fs::read_to_string(folder.join("run.xml")).expect("it is there");
    assert!(
        xml.contains("<failure") && xml.contains("play it again: again"),
        "{xml}"
    );
    std::fs::remove_dir_all(&folder).expect("it can be removed");
    // A folder that cannot be made is told with the fix.
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let error = write_run(&file, &plan, &played)
        .expect_err("it is a file")
        .to_string();
    assert!(error.contains("--no-report"), "{error}");
}
