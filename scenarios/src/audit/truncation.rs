//! What retention has removed, and what can therefore not be judged.

use super::{Cut, Extent, Order};
use properties::{Property, Verdict, Verdicts};
use reports::audit::Judged;

/// Topics whose beginning is gone.
#[derive(Debug)]
pub(super) struct Truncation {
    /// The input before this place: what happened there is unknown.
    input: Option<String>,
    /// The outputs before this place.
    outputs: Option<String>,
}

/// What needs all of the input.
const BY_INPUT: [Property; 4] = [
    Property::Conservation,
    Property::WindowCorrectness,
    Property::Causality,
    Property::Liveness,
];

/// What needs all of the outputs. Forced advances are known from them.
const BY_OUTPUTS: [Property; 5] = [
    Property::Conservation,
    Property::ExactlyOnceOut,
    Property::WindowCorrectness,
    Property::Causality,
    Property::Liveness,
];

impl Truncation {
    /// A topic that does not begin at 0 is whole nevertheless if it holds as many records as the
    /// commit records count: then the processor began there too.
    pub(super) fn new(
        order: &Order,
        cut: &Cut,
        [input, outputs, letters]: [&[Extent]; 3],
        read: &[u64],
        judged: Judged,
    ) -> Self {
        let lacks_records = |partition: i32, read: u64| {
            cut.committed(partition)
                .is_some_and(|committed| committed.records > read)
        };
        let input = (0..)
            .zip(input.iter().zip(read))
            .find(|(partition, (extent, read))| {
                extent.start > 0 && lacks_records(*partition, **read)
            })
            .map(|(partition, (extent, _))| place(&order.topics[0], partition, extent));
        let counted: i64 = cut.all().map(|committed| committed.sequence).sum();
        let found = judged.results.saturating_add(judged.dead_letters);
        let lacks_outputs = u64::try_from(counted).is_ok_and(|counted| counted > found);
        let begins_late = |topic: &String, extents: &[Extent]| {
            let mut late = (0..).zip(extents).filter(|(_, extent)| extent.start > 0);
            late.next()
                .map(|(partition, extent): (i32, &Extent)| place(topic, partition, extent))
        };
        let outputs = begins_late(&order.topics[1], outputs)
            .or_else(|| begins_late(&order.topics[2], letters))
            .filter(|_| lacks_outputs);
        Self { input, outputs }
    }

    /// Replaces the verdicts that would be about what is gone.
    pub(super) fn lay_over(&self, verdicts: &mut Verdicts) {
        let by_input = self
            .input
            .iter()
            .flat_map(|place| BY_INPUT.map(|one| (one, place)));
        let by_outputs = self
            .outputs
            .iter()
            .flat_map(|place| BY_OUTPUTS.map(|one| (one, place)));
        for (property, place) in by_input.chain(by_outputs) {
            let reason = format!("{place}; what it would be judged by is gone");
            verdicts.insert((property, Verdict::NotJudged { reason }));
        }
    }

    /// What is gone, for people.
    pub(super) fn notes(&self) -> Vec<String> {
        let gone = self.input.iter().chain(&self.outputs);
        gone.map(|place| format!("{place}: raise the retention to be able to judge everything"))
            .collect()
    }
}

fn place(topic: &str, partition: i32, extent: &Extent) -> String {
    format!(
        "retention has removed what was before offset {} of {topic} partition {partition}",
        extent.start
    )
}
