//! How a plan fails, and whether another fails the same way.

use crate::runner::{self, Order, Played, RunError};
use properties::Property;
use sim::plan::Plan;
use std::fmt;

/// How a run failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A property did not hold.
    Property(Property),
    /// It panicked with these words: numbers are left out, for they differ from run to run.
    Panic(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Property(property) => write!(f, "{property} fails"),
            Failure::Panic(words) => write!(f, "it panics: {words}"),
        }
    }
}

/// All failures of one run, the property that its plan's bug is accused by first.
///
/// # Errors
/// When the plan cannot be played.
pub fn failures(plan: &Plan) -> Result<Vec<Failure>, RunError> {
    let played = match play(plan, true) {
        Ok(played) => played,
        Err(RunError::Panicked(message)) => return Ok(vec![Failure::Panic(words(&message))]),
        Err(e) => return Err(e),
    };
    let accused = plan.bug.as_ref().map(|bug| bug.property.as_str());
    let mut failed = played.report.verdicts.failed();
    failed.sort_by_key(|property| Some(property.name()) != accused);
    Ok(failed.into_iter().map(Failure::Property).collect())
}

/// True if the plan fails in this way. A plan with a planted bug must not fail so without it: else
/// something else was found.
#[must_use]
pub fn fails(plan: &Plan, failure: &Failure) -> bool {
    fails_so(plan, failure) && (plan.bug.is_none() || !fails_so(&without_bug(plan), failure))
}

/// The plan in a world that keeps all promises.
#[must_use]
pub fn without_bug(plan: &Plan) -> Plan {
    Plan {
        bug: None,
        ..plan.clone()
    }
}

fn fails_so(plan: &Plan, failure: &Failure) -> bool {
    let twice = *failure == Failure::Property(Property::Determinism);
    match (play(plan, twice), failure) {
        (Ok(played), Failure::Property(property)) => {
            played.report.verdicts.failed().contains(property)
        }
        (Err(RunError::Panicked(message)), Failure::Panic(expected)) => {
            words(&message) == *expected
        }
        _ => false,
    }
}

fn play(plan: &Plan, twice: bool) -> Result<Played, RunError> {
    runner::play(&Order {
        plan,
        expect: &[],
        input: None,
        trace: false,
        twice,
        replay: "",
    })
}

/// A message without its numbers.
fn words(message: &str) -> String {
    let mut words = String::with_capacity(message.len());
    for c in message.chars() {
        match c.is_ascii_digit() {
            true if words.ends_with('#') => {}
            true => words.push('#'),
            false => words.push(c),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn panics_are_told_apart_by_their_words_alone() {
        let panic = |offset: u64| format!("offset {offset} lies before 12");
        assert_eq!(words(&panic(3)), words(&panic(4_711)));
        assert_ne!(words(&panic(3)), words("offset 3 lies after 12"));
    }
}
