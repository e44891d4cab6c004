//! Marks that are several lines in a certain order: what is remembered of the cluster and the group.
//! What is remembered of each worker is in [`super::workers`].

use super::text::{numbers, worker};
use super::workers::{Step, Workers};
use super::{Outputs, Reached};
use crate::fabric::actor::HostId;
use std::collections::BTreeSet;

/// What a machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Worker(u32),
    Broker(i64),
    Other,
}

impl Role {
    fn of(host: &str) -> Role {
        let Some((role, number)) = host.rsplit_once('-') else {
            return Role::Other;
        };
        match (role, number.parse::<u32>()) {
            ("worker", Ok(number)) => Role::Worker(number),
            ("broker", Ok(number)) => Role::Broker(i64::from(number)),
            _ => Role::Other,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Paths {
    roles: Vec<Role>,
    workers: Workers,
    /// Brokers whose process has died and has not registered again.
    dead_brokers: BTreeSet<i64>,
}

impl Paths {
    pub(super) fn new(hosts: &[String]) -> Paths {
        Paths {
            roles: hosts.iter().map(|host| Role::of(host)).collect(),
            workers: Workers::default(),
            dead_brokers: BTreeSet::new(),
        }
    }

    fn role(&self, host: HostId) -> Role {
        let role = self.roles.get(usize::from(host.0));
        role.copied().unwrap_or(Role::Other)
    }

    pub(super) fn line(&mut self, host: HostId, kind: &str, text: &str, reached: &mut Reached) {
        match self.role(host) {
            Role::Worker(number) => self.workers.line(number, kind, text, reached),
            Role::Broker(number) => self.broker_line(number, kind, text, reached),
            Role::Other => self.controller_line(kind, text, reached),
        }
    }

    fn broker_line(&mut self, broker: i64, kind: &str, text: &str, reached: &mut Reached) {
        let step = match kind {
            "txn-ongoing" => Some(Step::Ongoing),
            "txn-prepare-commit" => Some(Step::Decided { commit: true }),
            "txn-prepare-abort" => Some(Step::Decided { commit: false }),
            "txn-complete-commit" | "txn-complete-abort" => Some(Step::None),
            "txn-timeout" => {
                if let Some(number) = worker(text) {
                    self.workers.timed_out(number, reached);
                }
                None
            }
            "group-generation" => {
                self.workers.rebalanced(reached);
                None
            }
            "group-loaded" => {
                self.workers.coordinator_moved(reached);
                None
            }
            "broker-crashed" | "broker-lost-power" | "broker-halted" => {
                self.dead_brokers.insert(broker);
                None
            }
            _ => None,
        };
        if let Some((step, number)) = step.zip(worker(text)) {
            self.workers.transaction(number, step);
        }
    }

    fn controller_line(&mut self, kind: &str, text: &str, reached: &mut Reached) {
        let broker = || numbers(text).next().unwrap_or_default();
        match kind {
            "broker-registered" => {
                self.dead_brokers.remove(&broker());
            }
            "broker-fenced" => {
                let lives = !self.dead_brokers.contains(&broker());
                reached.add_if(lives, "live-broker-fenced");
            }
            _ => {}
        }
    }

    pub(super) fn outputs(
        &mut self,
        host: HostId,
        partition: i32,
        outputs: Outputs,
        reached: &mut Reached,
    ) {
        if let Role::Worker(number) = self.role(host) {
            self.workers.outputs(number, partition, outputs, reached);
        }
    }

    pub(super) fn object_deleted(&mut self, host: HostId, partition: i32, reached: &mut Reached) {
        if let Role::Worker(number) = self.role(host) {
            self.workers.object_deleted(number, partition, reached);
        }
    }
}
