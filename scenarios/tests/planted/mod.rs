//! Plans in which a promise is broken.

use properties::Property;
use scenarios::catalog;
use sim::plan::{Bug, Plan};
use sim::sabotage::Sabotage;

/// Seeds played before a sabotage counts as unnoticed.
pub const SEEDS_MAX: u64 = 400;

/// The property that this sabotage breaks first of all.
pub fn broken(sabotage: Sabotage) -> Property {
    match sabotage {
        Sabotage::RecordsLost => Property::Conservation,
        Sabotage::RecordsAltered | Sabotage::StateForgotten => Property::WindowCorrectness,
        Sabotage::PartitionStalled | Sabotage::SnapshotsStale => Property::Liveness,
        Sabotage::OffsetsWithoutOutputs
        | Sabotage::OutputsTwice
        | Sabotage::CommitsDisowned
        | Sabotage::AbortedShown => Property::ExactlyOnceOut,
        Sabotage::OutputsSwapped => Property::Order,
        Sabotage::WatermarkBack | Sabotage::ClockAhead | Sabotage::BacklogCalledIdle => {
            Property::Causality
        }
        Sabotage::FencedAccepted => Property::Fencing,
        Sabotage::HiddenInput => Property::Determinism,
        published => panic!("{published} has a plan of its own"),
    }
}

/// The scenario in which this promise matters.
fn scenario(sabotage: Sabotage) -> &'static str {
    match sabotage {
        Sabotage::BacklogCalledIdle => "backlog",
        _ => "storm",
    }
}

/// The plan of a seed with this bug in it.
pub fn planted(sabotage: Sabotage, seed: u64) -> Plan {
    let mut plan = catalog::find(scenario(sabotage))
        .and_then(|scenario| scenario.resolve(seed))
        .unwrap_or_else(|e| panic!("{e}"));
    plan.bug = Some(Bug {
        promise: sabotage,
        property: broken(sabotage).name().to_owned(),
    });
    plan
}
