//! How much a plan asks of who reads it.

use crate::plan_file;
use sim::plan::{Fault, Plan, Stream};
use sim::world::workload;

/// Streams of up to so many events are counted record by record, longer ones by their percentages.
const COUNTED_EVENTS_MAX: u64 = 1_000;

/// What makes a plan large, the heaviest first: of two plans the one is smaller that is smaller in
/// the first respect in which they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    /// Records that are sent.
    pub records: u64,
    /// Faults.
    pub faults: u64,
    /// Generated streams: their records do not stand in the plan.
    pub streams: u64,
    /// Faults that wait for a moment of the run.
    pub triggers: u64,
    /// Brokers and workers.
    pub machines: u32,
    /// Partitions of all topics.
    pub partitions: u32,
    /// Virtual milliseconds from start to end.
    pub virtual_ms: u64,
    /// Length of the plan's text, in which zeros at the end of a number weigh nothing: 60000 is as
    /// short as 6, and shorter than 59.
    pub ink: usize,
}

impl Size {
    /// The size of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Size {
        let streams = &plan.workload.streams;
        let scripted: u64 = plan.workload.records.iter().map(|r| r.times).sum();
        let generated: u64 = streams.iter().map(|s| generated(plan, s)).sum();
        let topology = &plan.topology;
        Size {
            records: scripted + generated,
            faults: plan.faults.len() as u64,
            streams: streams.len() as u64,
            triggers: plan.faults.iter().filter(|f| waits(f)).count() as u64,
            machines: topology.brokers + topology.workers,
            partitions: topology.input_partitions
                + topology.output_partitions
                + topology.dead_letter_partitions,
            virtual_ms: plan.active_ms.saturating_add(plan.settle_ms),
            ink: plan_file::print(plan).map_or(usize::MAX, |text| ink(&text)),
        }
    }
}

fn waits(fault: &Fault) -> bool {
    fault.on.is_some()
}

fn generated(plan: &Plan, stream: &Stream) -> u64 {
    if stream.events > COUNTED_EVENTS_MAX {
        let again = stream.events * u64::from(stream.duplicate_permille) / 1_000;
        return stream.events + again;
    }
    workload::expand_stream(stream, plan.seed, plan.start_unix_ms).len() as u64
}

fn ink(text: &str) -> usize {
    let mut ink = 0;
    let mut zeros = 0;
    let mut in_number = false;
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        if c == '0' && in_number {
            zeros += 1;
            continue;
        }
        if c.is_ascii_digit() {
            ink += zeros; // they were inside the number
        }
        zeros = 0;
        in_number = c.is_ascii_digit();
        ink += usize::from(c != '0');
    }
    ink
}

#[cfg(test)]
mod tests {
    use super::ink;

    #[test]
    fn round_numbers_take_less_ink() {
        assert_eq!(ink("a = 60000"), ink("a = 6"));
        assert!(ink("a = 60000") < ink("a = 59"));
        assert!(ink("a = 10001") > ink("a = 11"));
        assert!(ink("a = 0") < ink("a = 1"));
    }
}
