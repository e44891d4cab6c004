//! The report of an audit of a real cluster.

use crate::quantity::grouped;
use crate::run::verdict_text;
use properties::{Property, Verdicts};
use serde::Serialize;

/// A cluster's topics, judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Consumer group of the processor.
    pub group: String,
    /// Name of the input topic.
    pub input_topic: String,
    /// Name of the output topic.
    pub output_topic: String,
    /// Name of the dead-letter topic.
    pub dead_letter_topic: String,
    /// True when everything in the input had to be processed.
    pub complete: bool,
    /// What was judged.
    pub judged: Judged,
    /// What lay behind the committed offsets.
    pub not_committed: NotCommitted,
    /// What else a reader must know.
    pub notes: Vec<String>,
    /// A verdict a property.
    pub verdicts: Verdicts,
}

/// How much was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Judged {
    /// Input records.
    pub records: u64,
    /// Records of the output topic.
    pub results: u64,
    /// Records of the dead-letter topic.
    pub dead_letters: u64,
}

/// How much lay behind the committed offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct NotCommitted {
    /// Input offsets (records, and what transactions leave between them).
    pub offsets: u64,
    /// Input partitions that have any.
    pub partitions: u64,
    /// Results and dead letters that came after the offsets had been read; they were left out.
    pub outputs: u64,
}

impl AuditReport {
    /// True when no property failed.
    #[must_use]
    pub fn held(&self) -> bool {
        self.verdicts.all_held()
    }

    /// The report as text.
    #[must_use]
    pub fn text(&self) -> String {
        let Judged {
            records,
            results,
            dead_letters,
        } = self.judged;
        let mut text = format!(
            "group {}: {} → {}, {}\n{} records, {} results, {} dead letters, judged up to {}\n",
            self.group,
            self.input_topic,
            self.output_topic,
            self.dead_letter_topic,
            grouped(records),
            grouped(results),
            grouped(dead_letters),
            if self.complete {
                "the end of the input"
            } else {
                "the committed offsets"
            }
        );
        text.push_str(&self.not_committed_text());
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        for property in Property::ALL {
            text.push_str(&verdict_text(property, self.verdicts.get(property)));
        }
        text.push_str(&match self.verdicts.failed().len() {
            0 => "all properties that can be judged hold\n".to_owned(),
            failed => format!("{failed} FAILED\n"),
        });
        text
    }

    fn not_committed_text(&self) -> String {
        let NotCommitted {
            offsets,
            partitions,
            outputs,
        } = self.not_committed;
        if offsets == 0 && outputs == 0 {
            return "everything in the input is committed\n".to_owned();
        }
        format!(
            "not yet committed: {} offsets in {partitions} partitions, {} outputs\n",
            grouped(offsets),
            grouped(outputs)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{AuditReport, Judged, NotCommitted};
    use properties::{Findings, Property, Verdict, Verdicts};

    fn report() -> AuditReport {
        let mut verdicts = Verdicts::default();
        for property in Property::ALL {
            verdicts.insert((property, Verdict::Held));
        }
        let reason = "it cannot be played twice".to_owned();
        verdicts.insert((Property::Determinism, Verdict::NotApplicable { reason }));
        AuditReport {
            group: "g".to_owned(),
            input_topic: "in".to_owned(),
            output_topic: "out".to_owned(),
            dead_letter_topic: "dlq".to_owned(),
            complete: false,
            judged: Judged {
                records: 1_234_567,
                results: 89,
                dead_letters: 3,
            },
            not_committed: NotCommitted {
                offsets: 1_000,
                partitions: 2,
                outputs: 7,
            },
            notes: vec!["something".to_owned()],
            verdicts,
        }
    }

    #[test]
    fn an_audit_reads_like_this() {
        insta::assert_snapshot!(report().text());
    }

    #[test]
    fn a_violation_fails_the_audit_and_is_told() {
        let mut report = report();
        assert!(report.held());
        let mut findings = Findings::of(Property::Order);
        findings.add(|| "this stands behind that".to_owned());
        report
            .verdicts
            .insert(findings.into_verdict(Property::Order));
        assert!(!report.held());
        assert!(report.text().contains("this stands behind that"));
        assert!(report.text().ends_with("1 FAILED\n"));
        let json = serde_json::to_value(&report).expect("serialises");
        assert_eq!(json["verdicts"]["order"]["verdict"], "failed");
        assert_eq!(json["verdicts"]["determinism"]["verdict"], "not-applicable");
        assert_eq!(json["judged"]["records"], 1_234_567);
    }
}
