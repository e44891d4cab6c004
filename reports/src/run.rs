//! The report of one run.

use crate::heading;
use crate::quantity::{duration, grouped};
use properties::{Property, Verdict, Verdicts};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// One run, judged: what remains of it when its record is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunReport {
    /// Scenario of its plan.
    pub scenario: String,
    /// Seed of its plan.
    pub seed: u64,
    /// Hash of everything that happened (in JSON: 16 hexadecimal digits).
    #[serde(serialize_with = "hexadecimal")]
    pub trace_hash: u64,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// Input records.
    pub records: u64,
    /// Kinds of fault that really hit, and how often.
    pub faults: BTreeMap<String, u64>,
    /// Kinds of fault that the plan has, and how many of each.
    pub planned: BTreeMap<String, u64>,
    /// Hard paths that the run took, and how often.
    pub marks: BTreeMap<String, u64>,
    /// Committed transactions.
    pub commits: u64,
    /// Recoveries of partitions.
    pub recoveries: u64,
    /// A verdict a property.
    pub verdicts: Verdicts,
    /// What of the scenario's story did not happen; empty when all did.
    pub story: Vec<String>,
    /// The one command that plays it again.
    pub replay: String,
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn hexadecimal<S: Serializer>(hash: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{hash:016x}"))
}

impl RunReport {
    /// True when no property failed and the story went as told.
    #[must_use]
    pub fn held(&self) -> bool {
        self.verdicts.all_held() && self.story.is_empty()
    }

    /// What failed: a line a property, and a line a missing part of the story.
    #[must_use]
    pub fn messages(&self) -> Vec<String> {
        let failed = self.verdicts.iter().filter_map(|(property, verdict)| {
            let Verdict::Failed { violations, more } = verdict else {
                return None;
            };
            let others = violations.len().saturating_sub(1) as u64 + more;
            let first = violations
                .first()
                .map_or("", |violation| &violation.message);
            let tail = if others > 0 {
                format!(" (and {others} more)")
            } else {
                String::new()
            };
            Some(format!("{}: {first}{tail}", heading(property)))
        });
        let story = self.story.iter().map(|message| format!("story: {message}"));
        failed.chain(story).collect()
    }

    /// The report as text.
    #[must_use]
    pub fn text(&self) -> String {
        let faults: Vec<String> = self
            .faults
            .iter()
            .map(|(kind, hits)| format!("{kind} {}", grouped(*hits)))
            .collect();
        let faults = if faults.is_empty() {
            "none".to_owned()
        } else {
            faults.join(", ")
        };
        let mut text = format!(
            "{} seed {}: {} of virtual time, {} records, {} commits, {} recoveries, trace {:016x}\n\
             faults that hit: {faults}\n",
            self.scenario,
            self.seed,
            duration(self.virtual_ms),
            grouped(self.records),
            grouped(self.commits),
            grouped(self.recoveries),
            self.trace_hash,
        );
        for property in Property::ALL {
            text.push_str(&verdict_text(property, self.verdicts.get(property)));
        }
        for message in &self.story {
            text.push_str(&format!("{:<14} FAIL\n  {message}\n", "story"));
        }
        if !self.held() {
            text.push_str(&format!("play it again: {}\n", self.replay));
        }
        text
    }
}

/// A verdict as it stands in a report: a line, and a line a violation.
pub(crate) fn verdict_text(property: Property, verdict: Option<&Verdict>) -> String {
    let name = heading(property);
    match verdict {
        Some(Verdict::Held) => format!("{name:<14} holds\n"),
        Some(Verdict::NotJudged { reason }) => format!("{name:<14} not judged: {reason}\n"),
        Some(Verdict::NotApplicable { reason }) => {
            format!("{name:<14} not applicable: {reason}\n")
        }
        None => format!("{name:<14} not judged\n"),
        Some(Verdict::Failed { violations, more }) => {
            let mut text = format!("{name:<14} FAIL\n");
            for violation in violations {
                text.push_str(&format!("  {}\n", violation.message));
            }
            if *more > 0 {
                text.push_str(&format!("  and {} more\n", grouped(*more)));
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RunReport;
    use properties::{Property, Verdict, Verdicts};
    use std::collections::BTreeMap;

    #[test]
    fn the_verdict_as_json_names_every_property() {
        let mut verdicts = Verdicts::default();
        for property in Property::ALL {
            verdicts.insert((property, Verdict::Held));
        }
        let report = RunReport {
            scenario: "calm".to_owned(),
            seed: 3,
            trace_hash: 0xab,
            virtual_ms: 1,
            records: 2,
            faults: BTreeMap::new(),
            planned: BTreeMap::new(),
            marks: BTreeMap::new(),
            commits: 4,
            recoveries: 5,
            verdicts,
            story: Vec::new(),
            replay: String::new(),
        };
        let json = serde_json::to_value(&report).expect("serialises");
        assert_eq!(json["trace_hash"], "00000000000000ab");
        for property in Property::ALL {
            assert_eq!(json["verdicts"][property.name()]["verdict"], "held");
        }
    }
}
