//! What each kind of fault does to the world, when it begins and when it ends.

use super::{Control, PlayError, World};
use crate::fabric::actor::Micros;
use crate::fabric::network::Trouble;
use crate::objects::ObjectTrouble;
use crate::plan::{FaultKind, Machine, Plan};
use std::collections::BTreeMap;

/// Most machines that a world has: a cut names them in a mask.
const MACHINES_MAX: u32 = 60;

/// Refuses plans that name machines they do not have.
pub(super) fn check(plan: &Plan) -> Result<(), PlayError> {
    let topology = &plan.topology;
    let wrong = |text: String| Err(PlayError::Plan(text));
    if topology.brokers == 0 || topology.workers == 0 {
        return wrong("topology: at least one broker and one worker are needed".into());
    }
    if topology.brokers + topology.workers > MACHINES_MAX {
        return wrong(format!(
            "topology: at most {MACHINES_MAX} brokers and workers together"
        ));
    }
    for partitions in [
        topology.input_partitions,
        topology.output_partitions,
        topology.dead_letter_partitions,
    ] {
        if !(1..=1_000).contains(&partitions) {
            return wrong(format!(
                "topology: {partitions} partitions; allowed are 1 to 1000"
            ));
        }
    }
    for stream in &plan.workload.streams {
        if stream.tickers.is_empty() {
            return wrong(format!("workload: stream `{}` has no tickers", stream.name));
        }
    }
    for (index, fault) in plan.faults.iter().enumerate() {
        for machine in machines(&fault.kind) {
            let known = match machine {
                Machine::Worker(n) => n < topology.workers,
                Machine::Broker(n) => (1..=topology.brokers).contains(&n),
                Machine::Controller | Machine::Producer => true,
            };
            if !known {
                return wrong(format!(
                    "fault {index}: there is no {machine:?}; workers are numbered from 0 to {}, \
                     brokers from 1 to {}",
                    topology.workers - 1,
                    topology.brokers
                ));
            }
        }
        if fault.at_ms > plan.active_ms {
            return wrong(format!(
                "fault {index}: it begins at {} ms, after active_ms = {}",
                fault.at_ms, plan.active_ms
            ));
        }
    }
    Ok(())
}

fn machines(kind: &FaultKind) -> Vec<Machine> {
    match kind {
        FaultKind::WorkerCrash { worker, .. }
        | FaultKind::WorkerPause { worker, .. }
        | FaultKind::WorkerLeave { worker }
        | FaultKind::WorkerJoin { worker } => vec![Machine::Worker(*worker)],
        FaultKind::BrokerCrash { broker, .. } | FaultKind::BrokerPause { broker, .. } => {
            vec![Machine::Broker(*broker)]
        }
        FaultKind::NetworkCut { from, to, .. } => from.iter().chain(to).copied().collect(),
        FaultKind::NetworkTrouble { .. }
        | FaultKind::ObjectStoreTrouble { .. }
        | FaultKind::EndTxnAnswersLost { .. } => Vec::new(),
    }
}

/// True if the first thing that the plan says of a worker is that it joins.
pub(super) fn joins_later(plan: &Plan, worker: u32) -> bool {
    let mut of_worker: Vec<_> = plan
        .faults
        .iter()
        .filter(|fault| match fault.kind {
            FaultKind::WorkerJoin { worker: w } | FaultKind::WorkerLeave { worker: w } => {
                w == worker
            }
            _ => false,
        })
        .collect();
    of_worker.sort_by_key(|fault| fault.at_ms);
    of_worker
        .first()
        .is_some_and(|fault| matches!(fault.kind, FaultKind::WorkerJoin { .. }))
}

fn duration_ms(kind: &FaultKind) -> Option<u64> {
    match kind {
        FaultKind::WorkerCrash { down_ms, .. } | FaultKind::BrokerCrash { down_ms, .. } => {
            Some(*down_ms)
        }
        FaultKind::WorkerPause { for_ms, .. }
        | FaultKind::BrokerPause { for_ms, .. }
        | FaultKind::NetworkCut { for_ms, .. }
        | FaultKind::NetworkTrouble { for_ms, .. }
        | FaultKind::ObjectStoreTrouble { for_ms, .. }
        | FaultKind::EndTxnAnswersLost { for_ms } => Some(*for_ms),
        FaultKind::WorkerLeave { .. } | FaultKind::WorkerJoin { .. } => None,
    }
}

/// Name of a kind of fault, as plans spell it.
fn name(kind: &FaultKind) -> &'static str {
    match kind {
        FaultKind::WorkerCrash { .. } => "worker-crash",
        FaultKind::WorkerPause { .. } => "worker-pause",
        FaultKind::WorkerLeave { .. } => "worker-leave",
        FaultKind::WorkerJoin { .. } => "worker-join",
        FaultKind::BrokerCrash { .. } => "broker-crash",
        FaultKind::BrokerPause { .. } => "broker-pause",
        FaultKind::NetworkCut { .. } => "network-cut",
        FaultKind::NetworkTrouble { .. } => "network-trouble",
        FaultKind::ObjectStoreTrouble { .. } => "object-store-trouble",
        FaultKind::EndTxnAnswersLost { .. } => "end-txn-answers-lost",
    }
}

impl World {
    pub(super) fn begin_fault(&mut self, index: usize) {
        let kind = self.plan.faults[index].kind.clone();
        if self.fabric.now() >= Micros::from_ms(self.plan.active_ms) {
            return;
        }
        let struck = self.strike(index, &kind);
        self.struck[index] |= struck;
        if let Some(ms) = duration_ms(&kind)
            && self.must_end(&kind, struck)
        {
            let calm = Micros::from_ms(self.plan.active_ms);
            let at = self.fabric.now().plus_ms(ms).min(calm);
            self.fabric
                .schedule_control(at, Control::FaultEnds(index).number());
        }
    }

    /// A crash of a machine that was already down ends with the crash that took it down.
    fn must_end(&self, kind: &FaultKind, struck: bool) -> bool {
        struck
            || !matches!(
                kind,
                FaultKind::WorkerCrash { .. }
                    | FaultKind::WorkerPause { .. }
                    | FaultKind::BrokerCrash { .. }
                    | FaultKind::BrokerPause { .. }
            )
    }

    /// Carries the fault out. True if it had an effect at once.
    fn strike(&mut self, index: usize, kind: &FaultKind) -> bool {
        match kind {
            FaultKind::WorkerCrash { worker, .. } => {
                let hit = self.kill_worker(*worker);
                self.note_machine(Machine::Worker(*worker), hit, "worker-crashed");
                hit
            }
            FaultKind::WorkerPause { worker, .. } => self.pause(Machine::Worker(*worker)),
            FaultKind::WorkerLeave { worker } => {
                let running = &self.workers[*worker as usize].running;
                let stop = running.as_ref().map(|running| running.stop.clone());
                stop.is_some_and(|stop| {
                    let was_stopped = stop.is_stopped();
                    stop.stop();
                    !was_stopped
                })
            }
            FaultKind::WorkerJoin { worker } => {
                let absent = self.workers[*worker as usize].running.is_none();
                self.start_worker(*worker);
                absent
            }
            FaultKind::BrokerCrash { broker, .. } => {
                let host = self.host(Machine::Broker(*broker));
                let hit = self.fabric.is_alive(host);
                if hit {
                    self.fabric.crash_host(host, false);
                }
                self.note_machine(Machine::Broker(*broker), hit, "broker-crashed");
                hit
            }
            FaultKind::BrokerPause { broker, .. } => self.pause(Machine::Broker(*broker)),
            FaultKind::NetworkCut {
                from, to, one_way, ..
            } => {
                let (a, b) = (self.hosts.mask(from), self.hosts.mask(to));
                self.fabric.network(|network| {
                    network.cut(index, a, b);
                    if !one_way {
                        network.cut(index, b, a);
                    }
                });
                false
            }
            FaultKind::NetworkTrouble {
                loss_permille,
                duplicate_permille,
                reorder_permille,
                delay_ms_max,
                extra_latency_ms,
                ..
            } => {
                let trouble = Trouble {
                    loss_permille: *loss_permille,
                    duplicate_permille: *duplicate_permille,
                    reorder_permille: *reorder_permille,
                    delay_ms_max: *delay_ms_max,
                    extra_latency_ms: *extra_latency_ms,
                };
                self.fabric
                    .network(|network| network.trouble(index, trouble));
                false
            }
            FaultKind::ObjectStoreTrouble {
                error_permille,
                unknown_permille,
                extra_latency_ms,
                ..
            } => {
                let trouble = ObjectTrouble {
                    error_permille: *error_permille,
                    unknown_permille: *unknown_permille,
                    extra_latency_ms: *extra_latency_ms,
                };
                self.objects.trouble(index, trouble);
                false
            }
            FaultKind::EndTxnAnswersLost { .. } => {
                self.fabric
                    .network(|network| network.lose_end_txn_answers(index));
                false
            }
        }
    }

    fn note_machine(&self, machine: Machine, hit: bool, kind: &'static str) {
        if hit {
            self.fabric.note(self.host(machine), kind, "");
        }
    }

    fn pause(&mut self, machine: Machine) -> bool {
        let host = self.host(machine);
        let running = match machine {
            Machine::Worker(worker) => self.workers[worker as usize].running.is_some(),
            _ => true,
        };
        let hit = running && self.fabric.is_alive(host) && !self.fabric.is_paused(host);
        if hit {
            self.fabric.pause_host(host);
            self.fabric.note(host, "paused", "");
        }
        hit
    }

    pub(super) fn end_fault(&mut self, index: usize) {
        match self.plan.faults[index].kind.clone() {
            FaultKind::WorkerCrash { worker, .. } => self.start_worker(worker),
            FaultKind::BrokerCrash { broker, .. } => self.revive_broker(broker),
            FaultKind::WorkerPause { worker, .. } => self.go_on(Machine::Worker(worker)),
            FaultKind::BrokerPause { broker, .. } => self.go_on(Machine::Broker(broker)),
            FaultKind::NetworkCut { .. }
            | FaultKind::NetworkTrouble { .. }
            | FaultKind::EndTxnAnswersLost { .. } => {
                self.fabric.network(|network| network.heal(index));
            }
            FaultKind::ObjectStoreTrouble { .. } => self.objects.heal(index),
            FaultKind::WorkerLeave { .. } | FaultKind::WorkerJoin { .. } => {}
        }
    }

    fn go_on(&mut self, machine: Machine) {
        let host = self.host(machine);
        if self.fabric.is_paused(host) {
            self.fabric.resume_host(host);
            self.fabric.note(host, "resumed", "");
        }
    }

    fn revive_broker(&mut self, broker: u32) {
        let host = self.host(Machine::Broker(broker));
        if !self.fabric.is_alive(host) {
            self.fabric.restart_host(host);
            self.fabric.note(host, "broker-restarted", "");
        }
    }

    /// The end of all faults: every machine runs, every link is whole. At least one worker is there.
    pub(super) fn calm(&mut self) {
        for index in 0..self.plan.faults.len() {
            self.fabric.network(|network| network.heal(index));
            self.objects.heal(index);
        }
        for broker in 1..=self.plan.topology.brokers {
            self.go_on(Machine::Broker(broker));
            self.revive_broker(broker);
        }
        for worker in 0..self.plan.topology.workers {
            self.go_on(Machine::Worker(worker));
        }
        let any_worker = self.workers.iter().any(|w| w.running.is_some());
        if !any_worker {
            self.start_worker(0);
        }
        let host = self.host(Machine::Controller);
        self.fabric.note(host, "calm", "all faults have ended");
    }

    /// How many faults of each kind had an effect.
    pub(super) fn fault_hits(&self) -> BTreeMap<&'static str, u64> {
        let on_objects = self.objects.hits();
        let on_network: Vec<u64> = self.fabric.network(|network| network.hits().to_vec());
        let mut hits = BTreeMap::new();
        for (index, fault) in self.plan.faults.iter().enumerate() {
            let struck = self.struck[index]
                || on_network[index] > 0
                || on_objects.get(&index).is_some_and(|&count| count > 0);
            if struck {
                *hits.entry(name(&fault.kind)).or_default() += 1;
            }
        }
        hits
    }
}
