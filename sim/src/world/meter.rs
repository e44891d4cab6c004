//! What the thread of a world is at work on, for whoever wants to know where the time goes.
//!
//! Never here: a clock. The world has none but its own; the one that measures brings another.

use super::World;
use crate::fabric::Step;
use crate::plan::Machine;

/// What a world does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Builds itself, moves time, and writes down what is left.
    World,
    /// Processes run until each of them waits: the processor's workers with the client calls that they
    /// make, and the programs that write the workload.
    Processes,
    /// An event reaches a broker.
    Brokers,
    /// An event reaches the controller.
    Controller,
    /// An event reaches a worker machine: its client library, or a timer.
    WorkerClients,
    /// An event reaches the machine of the workload.
    LoadClients,
}

/// Told of every change, in order. It must not change anything in the world.
pub trait Meter: Send {
    /// From now on the thread is at work on this.
    fn enters(&mut self, part: Part);
}

impl World {
    pub(super) fn enters(&mut self, part: Part) {
        if let Some(meter) = &mut self.meter {
            meter.enters(part);
        }
    }

    /// Handles the next event.
    pub(super) fn step(&mut self) -> Step {
        if self.meter.is_some() {
            let host = self.fabric.next_event_on();
            self.enters(match host.map(|host| self.hosts.machine(host)) {
                Some(Machine::Broker(_)) => Part::Brokers,
                Some(Machine::Controller) => Part::Controller,
                Some(Machine::Worker(_)) => Part::WorkerClients,
                Some(Machine::Producer) => Part::LoadClients,
                None => Part::World,
            });
        }
        self.fabric.step()
    }
}
