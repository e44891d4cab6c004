//! Machines of a world and their numbers.

use crate::fabric::actor::HostId;
use crate::plan::{Machine, Topology};

/// Which machine is which host.
#[derive(Debug, Clone, Copy)]
pub struct Hosts {
    brokers: u32,
    workers: u32,
}

impl Hosts {
    /// The machines of a topology: the controller, brokers from 1, the producer, workers from 0.
    #[must_use]
    pub fn new(topology: &Topology) -> Hosts {
        Hosts {
            brokers: topology.brokers,
            workers: topology.workers,
        }
    }

    fn host(number: u32) -> HostId {
        HostId(u16::try_from(number).expect("plans are checked for their number of machines"))
    }

    /// Host of a machine; `None` if the topology has none.
    #[must_use]
    pub fn of(&self, machine: Machine) -> Option<HostId> {
        match machine {
            Machine::Controller => Some(Self::host(0)),
            Machine::Broker(n) => (1..=self.brokers).contains(&n).then(|| Self::host(n)),
            Machine::Producer => Some(Self::host(self.brokers + 1)),
            Machine::Worker(n) => (n < self.workers).then(|| Self::host(self.brokers + 2 + n)),
        }
    }

    /// The machine that a host is.
    #[must_use]
    pub fn machine(&self, host: HostId) -> Machine {
        let number = u32::from(host.0);
        match number {
            0 => Machine::Controller,
            n if n <= self.brokers => Machine::Broker(n),
            n if n == self.brokers + 1 => Machine::Producer,
            n => Machine::Worker(n - self.brokers - 2),
        }
    }

    /// Names in the order of host numbers.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = vec!["controller".to_owned()];
        names.extend((1..=self.brokers).map(|n| format!("broker-{n}")));
        names.push("producer".to_owned());
        names.extend((0..self.workers).map(|n| format!("worker-{n}")));
        names
    }

    /// A bit mask of machines.
    #[must_use]
    pub fn mask(&self, machines: &[Machine]) -> u64 {
        machines
            .iter()
            .filter_map(|&machine| self.of(machine))
            .fold(0, |mask, host| mask | 1 << host.0)
    }
}
