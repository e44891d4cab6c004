//! JUnit, for the test pages of CI systems.

use crate::campaign::CampaignReport;
use crate::run::RunReport;
use properties::{Property, Verdict};
use quick_junit::{NonSuccessKind, Report, SerializeError, TestCase, TestCaseStatus, TestSuite};

/// A campaign: a suite a scenario, a case a property.
///
/// # Errors
/// When a text cannot be written as XML.
pub fn campaign(report: &CampaignReport) -> Result<String, SerializeError> {
    let mut document = Report::new("tickproof prove");
    for row in &report.scenarios {
        let mut suite = TestSuite::new(row.scenario.as_str());
        for property in Property::ALL {
            let tally = row.properties.get(&property).copied().unwrap_or_default();
            let says = format!("{} of {} seeds", tally.failed, row.seeds);
            suite.add_test_case(TestCase::new(property.name(), status(tally.failed, &says)));
        }
        suite.add_test_case(TestCase::new(
            "story",
            status(row.story.failed, "the story went otherwise"),
        ));
        let failures = report.failures.iter();
        for failure in failures.filter(|failure| failure.scenario == row.scenario) {
            let mut found = TestCaseStatus::non_success(NonSuccessKind::Failure);
            found.set_message(failure.messages.join("; "));
            found.set_description(format!("play it again: {}", failure.replay));
            suite.add_test_case(TestCase::new(format!("seed {}", failure.seed), found));
        }
        document.add_test_suite(suite);
    }
    document.to_string()
}

/// A run: one suite, a case a property.
///
/// # Errors
/// When a text cannot be written as XML.
pub fn run(report: &RunReport) -> Result<String, SerializeError> {
    let mut suite = TestSuite::new(format!("{} seed {}", report.scenario, report.seed));
    for (property, verdict) in report.verdicts.iter() {
        let status = match verdict {
            Verdict::Held => TestCaseStatus::success(),
            Verdict::Failed { violations, more } => {
                let mut found = TestCaseStatus::non_success(NonSuccessKind::Failure);
                let first = violations.first();
                found.set_message(first.map_or("", |violation| &violation.message));
                let others = violations.len().saturating_sub(1) as u64 + more;
                found.set_description(format!(
                    "{others} more violations\nplay it again: {}",
                    report.replay
                ));
                found
            }
            Verdict::NotJudged { reason } | Verdict::NotApplicable { reason } => {
                let mut skipped = TestCaseStatus::skipped();
                skipped.set_message(reason.as_str());
                skipped
            }
        };
        suite.add_test_case(TestCase::new(property.name(), status));
    }
    let story = u64::from(!report.story.is_empty());
    suite.add_test_case(TestCase::new(
        "story",
        status(story, &report.story.join("; ")),
    ));
    let mut document = Report::new("tickproof play");
    document.add_test_suite(suite);
    document.to_string()
}

fn status(failed: u64, says: &str) -> TestCaseStatus {
    if failed == 0 {
        return TestCaseStatus::success();
    }
    let mut found = TestCaseStatus::non_success(NonSuccessKind::Failure);
    found.set_message(says);
    found
}
