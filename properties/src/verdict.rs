//! Properties, violations and verdicts.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A property of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Property {
    /// Every input record is in exactly one of: a window, a dead letter, a counted duplicate.
    Conservation,
    /// Output sequences have no gap and no repeat, and commit records agree with them.
    ExactlyOnceOut,
    /// Every window's revisions are what the oracle computes.
    WindowCorrectness,
    /// Nothing before its cause, no window closed early, no watermark moving back.
    Causality,
    /// Per ticker, results appear in the order of the log.
    Order,
    /// Once faults stop, everything in the log is processed.
    Liveness,
    /// The same plan gives the same run.
    Determinism,
    /// Nothing from a superseded owner is visible.
    Fencing,
}

impl Property {
    /// All properties in the order of their numbers (1–8).
    pub const ALL: [Property; 8] = [
        Property::Conservation,
        Property::ExactlyOnceOut,
        Property::WindowCorrectness,
        Property::Causality,
        Property::Order,
        Property::Liveness,
        Property::Determinism,
        Property::Fencing,
    ];

    /// Name as it is shown and serialised.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Property::Conservation => "conservation",
            Property::ExactlyOnceOut => "exactly-once-out",
            Property::WindowCorrectness => "window-correctness",
            Property::Causality => "causality",
            Property::Order => "order",
            Property::Liveness => "liveness",
            Property::Determinism => "determinism",
            Property::Fencing => "fencing",
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The property that it breaks.
    pub property: Property,
    /// Where (partition, offset, sequence, window), what was expected and what was found.
    pub message: String,
}

/// The violations of one property: the first [`Findings::KEPT_MAX`] as they are, the rest counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    property: Property,
    violations: Vec<Violation>,
    more: u64,
}

impl Findings {
    /// Violations that are kept in full.
    pub const KEPT_MAX: usize = 20;

    /// No violation yet.
    #[must_use]
    pub fn of(property: Property) -> Self {
        Self {
            property,
            violations: Vec::new(),
            more: 0,
        }
    }

    /// Adds a violation; the message is built only when it is kept.
    pub fn add(&mut self, message: impl FnOnce() -> String) {
        if self.violations.len() < Self::KEPT_MAX {
            self.violations.push(Violation {
                property: self.property,
                message: message(),
            });
        } else {
            self.more += 1;
        }
    }

    /// Adds a violation unless `holds`.
    pub fn require(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.add(message);
        }
    }

    /// The violations that were kept.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// True when nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.violations.is_empty()
    }

    /// The verdict that these findings amount to, for `property`.
    ///
    /// # Panics
    /// If the findings are another property's.
    #[must_use]
    pub fn into_verdict(self, property: Property) -> (Property, Verdict) {
        assert_eq!(
            self.property, property,
            "findings filed under their own property"
        );
        let verdict = if self.violations.is_empty() {
            Verdict::Held
        } else {
            Verdict::Failed {
                violations: self.violations,
                more: self.more,
            }
        };
        (property, verdict)
    }
}

/// What is known of one property after a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// It held.
    Held,
    /// It did not.
    Failed {
        /// The first violations.
        violations: Vec<Violation>,
        /// How many more there were.
        more: u64,
    },
    /// It could not be judged.
    NotJudged {
        /// Why.
        reason: String,
    },
    /// It has no meaning where this was recorded.
    NotApplicable {
        /// Why.
        reason: String,
    },
}

/// A verdict for every property.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Verdicts {
    by_property: BTreeMap<Property, Verdict>,
}

impl Verdicts {
    /// Sets the verdict of a property.
    pub fn insert(&mut self, (property, verdict): (Property, Verdict)) {
        self.by_property.insert(property, verdict);
    }

    /// The verdict of a property, if there is one.
    #[must_use]
    pub fn get(&self, property: Property) -> Option<&Verdict> {
        self.by_property.get(&property)
    }

    /// All verdicts in the order of the properties.
    pub fn iter(&self) -> impl Iterator<Item = (Property, &Verdict)> {
        self.by_property
            .iter()
            .map(|(property, verdict)| (*property, verdict))
    }

    /// True when no property failed.
    #[must_use]
    pub fn all_held(&self) -> bool {
        self.failed().is_empty()
    }

    /// The properties that failed.
    #[must_use]
    pub fn failed(&self) -> Vec<Property> {
        self.iter()
            .filter(|(_, verdict)| matches!(verdict, Verdict::Failed { .. }))
            .map(|(property, _)| property)
            .collect()
    }

    /// The violations that were kept, of all properties.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.by_property.values().flat_map(|verdict| match verdict {
            Verdict::Failed { violations, .. } => violations.as_slice(),
            Verdict::Held | Verdict::NotJudged { .. } | Verdict::NotApplicable { .. } => &[],
        })
    }
}
