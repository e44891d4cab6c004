//! What people look at: tables of campaigns and of crashes, reports of single runs and audits, as text, as JSON and as a page.
//!
//! Comes in: verdicts and counts. Goes out: text that fits 160 columns, and JSON for machines.
//! Never here: judging, playing, files, terminals.

pub mod audit;
pub mod campaign;
pub mod crash_points;
pub mod marks;
pub mod narration;
pub mod page;
pub mod quantity;
pub mod replay;
pub mod run;
pub mod table;

use properties::Property;

/// The short name of a property, as a table's heading shows it.
#[must_use]
pub fn heading(property: Property) -> &'static str {
    match property {
        Property::Conservation => "conservation",
        Property::ExactlyOnceOut => "exactly-once",
        Property::WindowCorrectness => "windows",
        Property::Causality => "causality",
        Property::Order => "order",
        Property::Liveness => "liveness",
        Property::Determinism => "determinism",
        Property::Fencing => "fencing",
    }
}
