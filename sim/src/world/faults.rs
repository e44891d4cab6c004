//! What each kind of fault does to the world, when it begins and when it ends.

use super::{Control, World, topics};
use crate::fabric::actor::{HostId, Micros};
use crate::fabric::network::{MessageTrouble, Rule, Trouble};
use crate::objects::ObjectTrouble;
use crate::plan::{Fault, FaultKind, Machine, Plan};
use std::collections::BTreeMap;

/// True if the first thing that the plan says of a worker is that it joins.
pub(super) fn joins_later(plan: &Plan, worker: u32) -> bool {
    let of_worker = plan.faults.iter().filter(|fault| match fault.kind {
        FaultKind::WorkerJoin { worker: w } | FaultKind::WorkerLeave { worker: w } => w == worker,
        _ => false,
    });
    let first = of_worker.min_by_key(|fault| fault.at_ms);
    first.is_some_and(|fault| matches!(fault.kind, FaultKind::WorkerJoin { .. }))
}

impl World {
    /// Puts a fault into the queue: its beginning, or the time in which it waits for its moment.
    pub(super) fn schedule_fault(&self, index: usize, fault: &Fault) {
        let at = Micros::from_ms(fault.at_ms);
        let Some(on) = &fault.on else {
            self.schedule_control(at, Control::FaultBegins(index));
            return;
        };
        self.schedule_control(at, Control::FaultWaits(index));
        let until = at.plus_ms(on.within_ms);
        self.schedule_control(until, Control::FaultGivesUp(index));
    }

    pub(super) fn wait_for_moment(&mut self, index: usize) {
        if let Some(on) = &self.plan.faults[index].on {
            let number = Control::FaultBegins(index).number();
            self.fabric
                .watch(&on.mark, on.nth, Micros(on.after_us), number);
        }
    }

    pub(super) fn give_up(&mut self, index: usize) {
        self.fabric.unwatch(Control::FaultBegins(index).number());
    }

    pub(super) fn begin_fault(&mut self, index: usize) {
        let calm = Micros::from_ms(self.plan.active_ms);
        if self.fabric.now() >= calm {
            return;
        }
        self.aim(index);
        let kind = self.kinds[index].clone();
        let struck = self.strike(index, &kind);
        self.struck[index] |= struck;
        if let Some(ms) = kind.length_ms()
            && (struck || !hits_a_process(&kind))
        {
            let at = self.fabric.now().plus_ms(ms).min(calm);
            self.schedule_control(at, Control::FaultEnds(index));
        }
    }

    /// A fault that strikes where its moment came gets that machine.
    fn aim(&mut self, index: usize) {
        let number = Control::FaultBegins(index).number();
        let there = self.plan.faults[index]
            .on
            .as_ref()
            .is_some_and(|on| on.there);
        let host = self.fabric.seen_on(number).filter(|_| there);
        match host.map(|host| self.hosts.machine(host)) {
            Some(Machine::Worker(n)) => {
                if let Some(worker) = self.kinds[index].worker_mut() {
                    *worker = n;
                }
            }
            Some(Machine::Broker(n)) => {
                if let Some(broker) = self.kinds[index].broker_mut() {
                    *broker = n;
                }
            }
            _ => {}
        }
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
                let hit = stop.is_some_and(|stop| {
                    let was_stopped = stop.is_stopped();
                    stop.stop();
                    !was_stopped
                });
                self.note_machine(Machine::Worker(*worker), hit, "worker-stopping");
                hit
            }
            FaultKind::WorkerJoin { worker } => {
                let absent = self.workers[*worker as usize].running.is_none();
                self.start_worker(*worker);
                absent
            }
            FaultKind::WorkerTwin {
                worker, ordinal, ..
            } => {
                let mut twin = self.usual_config(*worker);
                twin.worker.ordinal = *ordinal;
                self.replace_worker(*worker, Some(twin), "worker-became-a-twin")
            }
            FaultKind::WorkerMisconfigured {
                worker, processor, ..
            } => {
                let mut other = self
                    .plan
                    .configuration_with(processor)
                    .expect("plans are checked");
                other.worker.ordinal = *worker;
                self.replace_worker(*worker, Some(other), "worker-misconfigured")
            }
            FaultKind::BrokerCrash { broker, .. } => self.crash_broker(*broker, "broker-crashed"),
            FaultKind::BrokerPowerLoss { broker, .. } => self.lose_power(*broker),
            FaultKind::BrokerPause { broker, .. } => self.pause(Machine::Broker(*broker)),
            FaultKind::BrokerDiskFull { broker, .. } => {
                self.broker(*broker).with(|b, _, _| b.set_disk_full(true));
                false
            }
            FaultKind::ClockJump { machine, by_ms, .. } => {
                self.set_clock(*machine, *by_ms);
                self.note_machine(*machine, true, "clock-jumped");
                true
            }
            FaultKind::ObjectStoreTrouble {
                error_permille,
                unknown_permille,
                extra_latency_ms,
                list_delay_ms,
                ..
            } => {
                let trouble = ObjectTrouble {
                    error_permille: *error_permille,
                    unknown_permille: *unknown_permille,
                    extra_latency_ms: *extra_latency_ms,
                    list_delay_ms: *list_delay_ms,
                };
                self.objects.trouble(index, trouble);
                false
            }
            FaultKind::RecordsDeleted { partition, until } => {
                self.delete_records(*partition, *until)
            }
            FaultKind::PartitionsAdded { count } => self.add_partitions(*count),
            FaultKind::TopicRecreated => self.recreate_topic(),
            FaultKind::OffsetsExpired => self.expire_offsets(),
            FaultKind::OffsetReset { partition, offset } => self.reset_offset(*partition, *offset),
            FaultKind::BrokerDiskSlow { .. }
            | FaultKind::RecordsDamaged { .. }
            | FaultKind::NetworkCut { .. }
            | FaultKind::NetworkTrouble { .. }
            | FaultKind::MessageTrouble { .. }
            | FaultKind::Throttled { .. } => {
                for rule in self.rules(kind) {
                    self.fabric.network(|network| network.begin(index, rule));
                }
                false
            }
        }
    }

    /// What the network does during a fault.
    fn rules(&self, kind: &FaultKind) -> Vec<Rule> {
        let mask = |machine: Machine| self.hosts.mask(&[machine]);
        match kind {
            FaultKind::BrokerDiskSlow {
                broker, latency_ms, ..
            } => vec![Rule::Slow(mask(Machine::Broker(*broker)), *latency_ms)],
            FaultKind::RecordsDamaged {
                broker, permille, ..
            } => vec![Rule::Damage(mask(Machine::Broker(*broker)), *permille)],
            FaultKind::Throttled {
                machine, pace_ms, ..
            } => vec![Rule::Pace(mask(*machine), *pace_ms)],
            FaultKind::NetworkCut {
                from, to, one_way, ..
            } => {
                let (a, b) = (self.hosts.mask(from), self.hosts.mask(to));
                let back = (!one_way).then_some(Rule::Cut(b, a));
                std::iter::once(Rule::Cut(a, b)).chain(back).collect()
            }
            FaultKind::NetworkTrouble {
                loss_permille,
                duplicate_permille,
                reorder_permille,
                delay_ms_max,
                extra_latency_ms,
                ..
            } => vec![Rule::Trouble(Trouble {
                loss_permille: *loss_permille,
                duplicate_permille: *duplicate_permille,
                reorder_permille: *reorder_permille,
                delay_ms_max: *delay_ms_max,
                extra_latency_ms: *extra_latency_ms,
            })],
            FaultKind::MessageTrouble {
                api,
                answers,
                loss_permille,
                hold_permille,
                hold_ms_max,
                extra_latency_ms,
                ..
            } => vec![Rule::Messages(MessageTrouble {
                api: *api,
                answers: *answers,
                loss_permille: *loss_permille,
                hold_permille: *hold_permille,
                hold_ms_max: *hold_ms_max,
                extra_latency_ms: *extra_latency_ms,
            })],
            _ => Vec::new(),
        }
    }

    pub(super) fn note_machine(&self, machine: Machine, hit: bool, kind: &'static str) {
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

    fn crash_broker(&mut self, broker: u32, kind: &'static str) -> bool {
        let host = self.host(Machine::Broker(broker));
        let hit = self.fabric.is_alive(host);
        if hit {
            self.fabric.crash_host(host, false);
        }
        self.note_machine(Machine::Broker(broker), hit, kind);
        hit
    }

    /// What was ever acknowledged stays: replication has put it on other disks as well, and a disk that
    /// loses it would be a second fault at the same moment.
    fn lose_power(&mut self, broker: u32) -> bool {
        if !self.crash_broker(broker, "broker-lost-power") {
            return false;
        }
        let reached = topics::reached(&self.brokers);
        let lost = self.broker(broker).with(|b, _, _| b.lose_tails(&reached));
        self.note_machine(Machine::Broker(broker), lost, "unreplicated-tail-lost");
        true
    }

    fn set_clock(&mut self, machine: Machine, ahead_ms: i64) {
        let host = self.host(machine);
        self.fabric.set_clock_ahead(host, ahead_ms);
        if let Machine::Broker(broker) = machine {
            self.broker(broker).with(|b, _, _| b.set_clock(ahead_ms));
        }
    }

    pub(super) fn end_fault(&mut self, index: usize) {
        match self.kinds[index].clone() {
            FaultKind::WorkerCrash { worker, .. } => self.start_worker(worker),
            FaultKind::WorkerTwin { worker, .. }
            | FaultKind::WorkerMisconfigured { worker, .. } => {
                self.replace_worker(worker, None, "worker-put-right");
            }
            FaultKind::BrokerCrash { broker, .. } | FaultKind::BrokerPowerLoss { broker, .. } => {
                self.revive_broker(broker);
            }
            FaultKind::BrokerDiskFull { broker, .. } => {
                self.struck[index] |= self.empty_disk(broker)
            }
            FaultKind::WorkerPause { worker, .. } => self.go_on(Machine::Worker(worker)),
            FaultKind::BrokerPause { broker, .. } => self.go_on(Machine::Broker(broker)),
            FaultKind::ClockJump { machine, .. } => {
                self.set_clock(machine, 0);
                self.note_machine(machine, true, "clock-righted");
            }
            FaultKind::BrokerDiskSlow { .. }
            | FaultKind::RecordsDamaged { .. }
            | FaultKind::NetworkCut { .. }
            | FaultKind::NetworkTrouble { .. }
            | FaultKind::MessageTrouble { .. }
            | FaultKind::Throttled { .. } => {
                self.fabric.network(|network| network.heal(index));
            }
            FaultKind::ObjectStoreTrouble { .. } => self.objects.heal(index),
            FaultKind::WorkerLeave { .. }
            | FaultKind::WorkerJoin { .. }
            | FaultKind::RecordsDeleted { .. }
            | FaultKind::PartitionsAdded { .. }
            | FaultKind::TopicRecreated
            | FaultKind::OffsetsExpired
            | FaultKind::OffsetReset { .. } => {}
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

    /// There is room on the disk again; a broker that halted starts. True if it had halted.
    fn empty_disk(&mut self, broker: u32) -> bool {
        let host = self.host(Machine::Broker(broker));
        let up = self.broker(broker).with(|b, _, _| {
            b.set_disk_full(false);
            b.is_up()
        });
        let halted = !up && self.fabric.is_alive(host);
        if halted {
            self.fabric.crash_host(host, false);
            self.revive_broker(broker);
        }
        halted
    }

    /// The end of all faults: every machine runs, every link is whole, every clock is right. At least
    /// one worker is there.
    pub(super) fn calm(&mut self) {
        for index in 0..self.plan.faults.len() {
            self.give_up(index);
            self.fabric.network(|network| network.heal(index));
            self.objects.heal(index);
            if let FaultKind::BrokerDiskFull { broker, .. } = self.kinds[index] {
                self.struck[index] |= self.empty_disk(broker);
            }
        }
        for broker in 1..=self.plan.topology.brokers {
            self.set_clock(Machine::Broker(broker), 0);
            self.go_on(Machine::Broker(broker));
            self.revive_broker(broker);
        }
        for worker in 0..self.plan.topology.workers {
            self.set_clock(Machine::Worker(worker), 0);
            self.go_on(Machine::Worker(worker));
            if self.workers[worker as usize].unusual.is_some() {
                self.replace_worker(worker, None, "worker-put-right");
            }
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
        for (index, kind) in self.kinds.iter().enumerate() {
            let struck = self.struck[index]
                || on_network[index] > 0
                || on_objects.get(&index).is_some_and(|&count| count > 0);
            if struck {
                *hits.entry(kind.name()).or_default() += 1;
            }
        }
        hits
    }

    fn schedule_control(&self, at: Micros, control: Control) {
        self.fabric.schedule_control(at, control.number());
    }

    pub(super) fn host(&self, machine: Machine) -> HostId {
        self.hosts
            .of(machine)
            .expect("plans are checked for their machines")
    }
}

/// Such a fault that finds the process already down ends with what took it down.
fn hits_a_process(kind: &FaultKind) -> bool {
    matches!(
        kind,
        FaultKind::WorkerCrash { .. }
            | FaultKind::WorkerPause { .. }
            | FaultKind::BrokerCrash { .. }
            | FaultKind::BrokerPowerLoss { .. }
            | FaultKind::BrokerPause { .. }
    )
}
