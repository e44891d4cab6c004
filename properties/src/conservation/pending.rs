//! A dead letter that points to a valid event: right only if the event was too late.

use crate::code::code_fields;
use crate::oracle::{Fate, LogTruth};
use crate::spill::Spill;
use crate::verdict::Findings;
use std::cmp::Ordering;

/// A letter that is judged when the fate of its record is known.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) offset: i64,
    pub(super) place: String,
    /// Whether it is right for a record that was too late.
    pub(super) judged: Result<(), String>,
}

impl Pending {
    pub(super) fn settle(self, log: &LogTruth, findings: &mut Findings) {
        let place = &self.place;
        match (log.fate(self.offset), self.judged) {
            (Some(Fate::Refused(_)), Ok(())) => {}
            (Some(Fate::Refused(_)), Err(why)) => findings.add(|| format!("{place}: {why}")),
            (Some(fate), _) => {
                findings.add(|| format!("{place}: points to a record that is {fate}, not refused"))
            }
            (None, _) => findings.add(|| format!("{place}: points to no record")),
        }
    }
}

impl Spill for Pending {
    fn order(&self, other: &Self) -> Ordering {
        (self.offset, &self.place).cmp(&(other.offset, &other.place))
    }

    fn bytes(&self) -> usize {
        let why = self.judged.as_ref().err().map_or(0, String::len);
        size_of::<Self>() + self.place.len() + why
    }
}

code_fields!(Pending {
    offset,
    place,
    judged,
});
