//! What a process is about when it makes a call, concluded from its calls and from what it tells of
//! itself.

use processor::io::Polled;
use processor::units::PartitionId;
use processor::worker::WorkerEvent;
use std::collections::BTreeSet;
use std::fmt;

/// What a process is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// From its start until it joins its group.
    Start,
    /// From a poll that waits for the group or tells of a rebalance to the answer; leaving.
    Rebalance,
    /// A partition was accepted and has not reproduced yet what was committed.
    Recovery,
    /// A transaction with outputs and offsets, and what finds out how it ended.
    Commit,
    /// A snapshot, or the removal of what no snapshot needs.
    Checkpoint,
    /// Waiting for records and for the end of silence.
    Reading,
}

impl Phase {
    /// All, in the order of reports.
    pub const ALL: [Phase; 6] = [
        Phase::Start,
        Phase::Rebalance,
        Phase::Recovery,
        Phase::Commit,
        Phase::Checkpoint,
        Phase::Reading,
    ];

    /// Its word in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Start => "start",
            Phase::Rebalance => "rebalance",
            Phase::Recovery => "recovery",
            Phase::Commit => "commit",
            Phase::Checkpoint => "checkpoint",
            Phase::Reading => "reading",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a call is about, as far as it tells itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The group.
    Group,
    /// A poll that has not returned.
    Poll,
    /// The producer's identity.
    Producer,
    /// A transaction: its beginning, and all that follows.
    Begin,
    /// See `Begin`.
    Transaction,
    /// A topic.
    Topic,
    /// What is committed.
    Committed,
    /// Where a partition's reading begins.
    Start,
    /// Whether partitions deliver.
    Flow,
    /// State or checkpoints of a partition, if it can be told which.
    State(Option<PartitionId>),
    /// That a partition's state is forgotten.
    Forgotten(PartitionId),
    /// Where a partition's log ends.
    End(PartitionId),
}

/// Where a process stands.
#[derive(Debug, Default)]
pub(super) struct Story {
    subscribed: bool,
    /// It was told of a rebalance and has not answered.
    answers: bool,
    /// Accepted partitions that have not recovered.
    recovering: BTreeSet<PartitionId>,
}

impl Story {
    pub(super) fn phase(&self, about: About) -> Phase {
        let recovers = !self.recovering.is_empty();
        match about {
            About::Group => Phase::Rebalance,
            About::Producer | About::Topic if !self.subscribed => Phase::Start,
            _ if self.answers => Phase::Rebalance,
            About::Poll if recovers => Phase::Recovery,
            About::Poll => Phase::Reading,
            About::Producer | About::Begin | About::Transaction => Phase::Commit,
            About::Topic => Phase::Recovery,
            About::Committed | About::Flow if recovers => Phase::Recovery,
            About::Committed => Phase::Commit,
            About::Flow => Phase::Reading,
            About::Start => Phase::Recovery,
            About::State(Some(partition)) if !self.recovering.contains(&partition) => {
                Phase::Checkpoint
            }
            About::State(None) if !recovers => Phase::Checkpoint,
            About::State(_) => Phase::Recovery,
            About::Forgotten(partition) if self.recovering.contains(&partition) => Phase::Recovery,
            About::Forgotten(_) => Phase::Rebalance,
            About::End(partition) if self.recovering.contains(&partition) => Phase::Recovery,
            About::End(_) => Phase::Reading,
        }
    }

    /// The phase of a transaction that carries no offsets of the input: a mark, before a read that decides
    /// something. `began_in`: what its beginning was taken for.
    pub(super) fn phase_of_mark(&self, began_in: Phase) -> Phase {
        if began_in == Phase::Commit && !self.recovering.is_empty() {
            Phase::Recovery
        } else {
            began_in
        }
    }

    pub(super) fn subscribed(&mut self) {
        self.subscribed = true;
    }

    /// A poll has returned; `in_group`: the process is member of a generation. What phase it was of, and
    /// how it is called now.
    pub(super) fn polled(&mut self, polled: &Polled, in_group: bool) -> (Phase, &'static str) {
        let name = match polled {
            Polled::Records { .. } => "consumer.poll: records",
            Polled::EndOfPartition { .. } => "consumer.poll: end",
            Polled::TimedOut => "consumer.poll: nothing",
            Polled::Assigned(_) => "consumer.poll: assigned",
            Polled::Revoked(_) => "consumer.poll: revoked",
            Polled::Lost(_) => "consumer.poll: lost",
        };
        self.answers |= matches!(
            polled,
            Polled::Assigned(_) | Polled::Revoked(_) | Polled::Lost(_)
        );
        if self.answers || !in_group {
            (Phase::Rebalance, name)
        } else {
            (self.phase(About::Poll), name)
        }
    }

    /// The process has answered a rebalance.
    pub(super) fn answered(&mut self) {
        self.answers = false;
    }

    pub(super) fn accepted(&mut self, partitions: &[PartitionId]) {
        self.recovering.extend(partitions.iter().copied());
    }

    pub(super) fn released(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            self.recovering.remove(partition);
        }
    }

    pub(super) fn told(&mut self, event: &WorkerEvent<'_>) {
        match event {
            WorkerEvent::Recovered { partition, .. }
            | WorkerEvent::Fresh { partition, .. }
            | WorkerEvent::Released { partition, .. } => {
                self.recovering.remove(partition);
            }
            WorkerEvent::SetBack { partition } => {
                self.recovering.insert(*partition);
            }
            _ => {}
        }
    }
}
