//! The story of one run, step by step, in plain words.

use crate::table::WIDTH_MAX;
use serde::Serialize;

/// A run as a story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Narration {
    /// What it is about, a line each.
    pub opening: Vec<String>,
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// What should be there in the end, and what is.
    pub outcomes: Vec<Outcome>,
    /// What is wrong, in the checkers' words; empty when everything holds.
    pub violations: Vec<String>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Virtual microseconds.
    pub at_us: u64,
    /// Who did it, or to whom it happened.
    pub who: String,
    /// What, as the rest of a sentence.
    pub what: String,
    /// What was true before and after.
    pub changes: Vec<Change>,
}

/// Something that was one way before a step and another way after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Of what.
    pub of: String,
    /// Before.
    pub before: String,
    /// After.
    pub after: String,
}

/// Something that should be one way in the end, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Of what.
    pub of: String,
    /// As the oracle has it.
    pub expected: String,
    /// As a reader of the topics finds it.
    pub found: String,
}

/// Width of the column that says when.
const WHEN: usize = 12;
/// Width of the column that says who.
const WHO: usize = 11;

impl Narration {
    /// The story as text. What repeats itself is told once.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.opening {
            text.push_str(&format!("{line}\n"));
        }
        text.push('\n');
        let mut rest = self.steps.as_slice();
        while let Some(step) = rest.first() {
            let alike = rest.iter().take_while(|next| next.is_like(step)).count();
            let (group, after) = rest.split_at(alike);
            text.push_str(&told(step, group));
            rest = after;
        }
        text.push_str(&self.ending());
        text
    }

    fn ending(&self) -> String {
        let mut text = String::new();
        if !self.outcomes.is_empty() {
            text.push_str("\nIn the end (= as expected, ≠ otherwise)\n");
        }
        for Outcome {
            of,
            expected,
            found,
        } in &self.outcomes
        {
            if expected == found {
                text.push_str(&format!("  = {of}: {found}\n"));
            } else {
                text.push_str(&format!(
                    "  ≠ {of}\n      expected: {expected}\n      found:    {found}\n"
                ));
            }
        }
        if self.violations.is_empty() {
            text.push_str("\nEverything holds.\n");
        } else {
            text.push_str("\nWhat is wrong\n");
        }
        for violation in &self.violations {
            text.push_str(&format!("  {violation}\n"));
        }
        text
    }
}

impl Step {
    /// Steps with changes are all told.
    fn is_like(&self, other: &Step) -> bool {
        std::ptr::eq(self, other)
            || (self.changes.is_empty()
                && other.changes.is_empty()
                && (&self.who, &self.what) == (&other.who, &other.what))
    }
}

fn told(step: &Step, group: &[Step]) -> String {
    let again = match group {
        [_, .., last] => format!(
            " ({} times, until {})",
            group.len(),
            when(last.at_us).trim()
        ),
        _ => String::new(),
    };
    let mut text = format!(
        "{} {:<WHO$} {}\n",
        when(step.at_us),
        step.who,
        folded(&format!("{}{again}", step.what))
    );
    let indent = " ".repeat(WHEN + WHO + 2);
    for Change { of, before, after } in &step.changes {
        text.push_str(&format!("{indent}│ {of}: {before} → {after}\n"));
    }
    text
}

fn when(at_us: u64) -> String {
    let (seconds, ms) = (at_us / 1_000_000, at_us % 1_000_000 / 1_000);
    let text = format!("{seconds}.{ms:03} s");
    format!("{text:>WHEN$}")
}

/// Broken into lines that fit, at spaces if there are any.
fn folded(text: &str) -> String {
    let width = WIDTH_MAX - WHEN - WHO - 2;
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join(&format!("\n{}", " ".repeat(WHEN + WHO + 4)))
}

#[cfg(test)]
mod tests {
    use super::{Change, Narration, Outcome, Step};

    fn step(at_us: u64, what: &str, changes: Vec<Change>) -> Step {
        Step {
            at_us,
            who: "worker 0".to_owned(),
            what: what.to_owned(),
            changes,
        }
    }

    #[test]
    fn a_story_reads_from_its_opening_to_what_is_wrong() {
        let change = Change {
            of: "partition 0, committed offset".to_owned(),
            before: "none".to_owned(),
            after: "3".to_owned(),
        };
        let story = Narration {
            opening: vec!["calm, seed 3".to_owned()],
            steps: vec![
                step(1_500_000, "waits", vec![]),
                step(2_500_000, "waits", vec![]),
                step(61_000_000, "waits", vec![]),
                step(62_000_000, "commits", vec![change.clone()]),
                step(63_000_000, "commits", vec![change]),
            ],
            outcomes: vec![
                Outcome {
                    of: "AMZN 10:00".to_owned(),
                    expected: "2 events".to_owned(),
                    found: "1 event".to_owned(),
                },
                Outcome {
                    of: "AMZN 10:01".to_owned(),
                    expected: "nothing".to_owned(),
                    found: "nothing".to_owned(),
                },
            ],
            violations: vec!["window-correctness: one is missing".to_owned()],
        };
        assert_eq!(
            story.text(),
            "calm, seed 3

     1.500 s worker 0    waits (3 times, until 61.000 s)
    62.000 s worker 0    commits
                         │ partition 0, committed offset: none → 3
    63.000 s worker 0    commits
                         │ partition 0, committed offset: none → 3

In the end (= as expected, ≠ otherwise)
  ≠ AMZN 10:00
      expected: 2 events
      found:    1 event
  = AMZN 10:01: nothing

What is wrong
  window-correctness: one is missing
"
        );
    }
}
