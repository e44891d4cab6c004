//! What a test says beforehand: what polls meet, and what single calls meet.

use super::{Inner, P0};
use processor::io::{ErrorClass, Polled};
use processor::units::PartitionId;

pub type Hook = Box<dyn FnOnce(&mut Inner) + Send>;

/// One line of a script: what the consumer's polls meet.
pub enum Step {
    /// This, exactly.
    Give(Polled),
    /// Records and ends of partitions, until nothing is left to deliver.
    Read,
    /// As many polls, whatever they deliver.
    Polls(u64),
    /// Whatever there is, until so many milliseconds have passed.
    Wait(u64),
    /// A change of the world.
    Do(Hook),
    /// The process is asked to stop. Also what comes after the last step.
    Stop,
    /// The process dies.
    Crash,
}

pub fn assign(partitions: &[PartitionId]) -> Step {
    Step::Give(Polled::Assigned(partitions.to_vec()))
}

pub fn revoke(partitions: &[PartitionId]) -> Step {
    Step::Give(Polled::Revoked(partitions.to_vec()))
}

pub fn lose(partitions: &[PartitionId]) -> Step {
    Step::Give(Polled::Lost(partitions.to_vec()))
}

pub fn act(hook: impl FnOnce(&mut Inner) + Send + 'static) -> Step {
    Step::Do(Box::new(hook))
}

/// What one call meets.
#[derive(Default)]
pub struct Fault {
    /// Happens before the call.
    pub before: Option<Hook>,
    /// The call does not take effect.
    pub is_ineffective: bool,
    /// The call is answered with this error (for object store and disk: with an error).
    pub error: Option<ErrorClass>,
    /// A request of the transaction may still be under way.
    pub taints: bool,
    /// The call is never answered, nor is any after it.
    pub crashes: bool,
    /// The answer comes after so long (object store only).
    pub slow_ms: u64,
}

impl Fault {
    /// The call fails and nothing has happened.
    pub fn fails(class: ErrorClass) -> Fault {
        Fault {
            is_ineffective: true,
            error: Some(class),
            ..Fault::default()
        }
    }

    /// The call takes effect and fails.
    pub fn fails_after(class: ErrorClass) -> Fault {
        Fault {
            error: Some(class),
            ..Fault::default()
        }
    }

    pub fn crashes_before() -> Fault {
        Fault {
            is_ineffective: true,
            crashes: true,
            ..Fault::default()
        }
    }

    pub fn crashes_after() -> Fault {
        Fault {
            crashes: true,
            ..Fault::default()
        }
    }

    pub fn is_slow(slow_ms: u64) -> Fault {
        Fault {
            slow_ms,
            ..Fault::default()
        }
    }

    pub fn taints() -> Fault {
        Fault {
            taints: true,
            ..Fault::default()
        }
    }

    pub fn and_before(mut self, hook: impl FnOnce(&mut Inner) + Send + 'static) -> Fault {
        self.before = Some(Box::new(hook));
        self
    }
}

/// Assign partition 0, read everything, let the last commit and checkpoint happen.
pub fn reading() -> Vec<Step> {
    vec![assign(&[P0]), Step::Read, Step::Wait(500)]
}

/// As [`reading`], with time for whatever is put off.
pub fn reading_with_patience() -> Vec<Step> {
    let mut script = reading();
    script.push(Step::Wait(10_000));
    script
}

/// As [`reading`], and the process dies.
pub fn reading_then_crash() -> Vec<Step> {
    let mut script = reading();
    script.push(Step::Crash);
    script
}
