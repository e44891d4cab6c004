//! Faults as data: what goes wrong, when, and for how long.

use serde::{Deserialize, Serialize};

/// Something that goes wrong (or changes) at a moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// When, virtual milliseconds.
    pub at_ms: u64,
    /// If there is one, the fault waits from `at_ms` on for this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Trigger>,
    /// What.
    #[serde(flatten)]
    pub kind: FaultKind,
}

impl Fault {
    /// A fault at a moment.
    #[must_use]
    pub fn at(at_ms: u64, kind: FaultKind) -> Fault {
        Fault {
            at_ms,
            on: None,
            kind,
        }
    }

    /// A fault that waits for its moment from `at_ms` on.
    #[must_use]
    pub fn on(at_ms: u64, on: Trigger, kind: FaultKind) -> Fault {
        let on = Some(on);
        Fault { at_ms, on, kind }
    }

    /// When it is over at the latest, virtual milliseconds.
    #[must_use]
    pub fn over_at_ms(&self) -> u64 {
        let waits_ms = self.on.as_ref().map_or(0, |on| on.within_ms);
        self.at_ms
            .saturating_add(waits_ms)
            .saturating_add(self.kind.length_ms().unwrap_or(0))
    }
}

/// A moment that a run comes to by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// Kind of a line of the trace, e.g. `txn-prepare-commit`.
    pub mark: String,
    /// The how many-th one, from 1.
    #[serde(default = "first")]
    pub nth: u64,
    /// The fault comes so much later, microseconds (0: just after the event, before anything else).
    #[serde(default)]
    pub after_us: u64,
    /// It strikes the machine that wrote the line, if that has the role that the fault is for, and not
    /// the one that it names.
    #[serde(default)]
    pub there: bool,
    /// It waits no longer than this, milliseconds.
    pub within_ms: u64,
}

impl Trigger {
    /// On the machine that writes the `nth` such line, just after it.
    #[must_use]
    pub fn there(mark: &str, nth: u64, within_ms: u64) -> Trigger {
        Trigger {
            mark: mark.to_owned(),
            nth,
            after_us: 0,
            there: true,
            within_ms,
        }
    }

    /// So much later.
    #[must_use]
    pub fn after(self, after_us: u64) -> Trigger {
        Trigger { after_us, ..self }
    }
}

fn first() -> u64 {
    1
}

/// A machine, by role and number (from 0 for workers, from 1 for brokers, as they are named).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Machine {
    Worker(u32),
    Broker(u32),
    Controller,
    Producer,
}

/// Requests that a fault can be about, by Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Api {
    Metadata,
    FindCoordinator,
    InitProducerId,
    AddPartitionsToTxn,
    AddOffsetsToTxn,
    TxnOffsetCommit,
    EndTxn,
    Produce,
    Fetch,
    ListOffsets,
    OffsetCommit,
    OffsetFetch,
    JoinGroup,
    SyncGroup,
    Heartbeat,
    LeaveGroup,
    WriteTxnMarkers,
    ReplicaFetch,
    AlterPartition,
    UpdateMetadata,
    BrokerHeartbeat,
}

/// How far input records are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// What every recovery can do without: up to the snapshot that the newest commit names.
    Snapshot,
    /// Up to the committed offset: a replay from the snapshot is not possible any more.
    Committed,
    /// Everything.
    End,
}

/// Kinds of fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum FaultKind {
    /// kill -9 of a worker process (by an operator, by the kernel when memory runs out); a supervisor
    /// starts it again after `down_ms`.
    WorkerCrash {
        /// Number of the worker.
        worker: u32,
        /// Milliseconds until the restart.
        down_ms: u64,
    },
    /// The whole worker process stands still, its client library too (SIGSTOP, a long GC, a VM that
    /// migrates).
    WorkerPause {
        /// Number of the worker.
        worker: u32,
        /// For so long.
        for_ms: u64,
    },
    /// SIGTERM: the worker drains, commits and leaves the group, and does not come back unless a
    /// later `WorkerJoin` starts it.
    WorkerLeave {
        /// Number of the worker.
        worker: u32,
    },
    /// The worker process starts.
    WorkerJoin {
        /// Number of the worker.
        worker: u32,
    },
    /// An operator's mistake: the worker process is replaced by one with the ordinal of another.
    WorkerTwin {
        /// Number of the worker.
        worker: u32,
        /// Its ordinal now.
        ordinal: u32,
        /// Until the mistake is put right.
        for_ms: u64,
    },
    /// An operator's mistake: the worker process is killed and started with another configuration.
    WorkerMisconfigured {
        /// Number of the worker.
        worker: u32,
        /// What differs, by section and key.
        processor: toml::Table,
        /// Until the mistake is put right.
        for_ms: u64,
    },
    /// A broker process dies and starts again after `down_ms`.
    BrokerCrash {
        /// Number of the broker.
        broker: u32,
        /// Milliseconds until the restart.
        down_ms: u64,
    },
    /// A broker's machine loses its power: what was not yet on its disk is gone, and the last batch of
    /// each log is torn. (Of what was acknowledged, enough other replicas have a copy.)
    BrokerPowerLoss {
        /// Number of the broker.
        broker: u32,
        /// Milliseconds until the restart.
        down_ms: u64,
    },
    /// A broker process stands still.
    BrokerPause {
        /// Number of the broker.
        broker: u32,
        /// For so long.
        for_ms: u64,
    },
    /// A broker's disk is full: it shuts down with the next append, and starts again afterwards.
    BrokerDiskFull {
        /// Number of the broker.
        broker: u32,
        /// For so long.
        for_ms: u64,
    },
    /// A broker's disk is slow: whatever it answers, it answers late.
    BrokerDiskSlow {
        /// Number of the broker.
        broker: u32,
        /// For so long.
        for_ms: u64,
        /// So late.
        latency_ms: u64,
    },
    /// What a broker reads from its disk for consumers and replicas is damaged now and then (a CRC
    /// tells).
    RecordsDamaged {
        /// Number of the broker.
        broker: u32,
        /// For so long.
        for_ms: u64,
        /// Per mille of answers with records.
        permille: u32,
    },
    /// Messages from any of `from` to any of `to` are lost (and the other way, unless `one_way`).
    NetworkCut {
        /// One side.
        from: Vec<Machine>,
        /// Other side.
        to: Vec<Machine>,
        /// Only that direction.
        one_way: bool,
        /// For so long.
        for_ms: u64,
    },
    /// The network is bad everywhere.
    NetworkTrouble {
        /// For so long.
        for_ms: u64,
        /// Per mille of messages lost.
        loss_permille: u32,
        /// Per mille of messages that arrive twice.
        duplicate_permille: u32,
        /// Per mille of messages that are overtaken by later ones.
        reorder_permille: u32,
        /// How late a duplicate or overtaken message may be.
        delay_ms_max: u64,
        /// Added to every delivery.
        extra_latency_ms: u64,
    },
    /// Requests of one kind, or the answers to them, are lost, held or slow.
    MessageTrouble {
        /// Which requests.
        api: Api,
        /// True: their answers.
        answers: bool,
        /// For so long.
        for_ms: u64,
        /// Per mille that are lost.
        #[serde(default)]
        loss_permille: u32,
        /// Per mille that are held by the network while their connection breaks, and arrive when nobody
        /// waits for them any more (KAFKA-17754).
        #[serde(default)]
        hold_permille: u32,
        /// For at most so long.
        #[serde(default)]
        hold_ms_max: u64,
        /// Added to every delivery, which keeps its place on the connection.
        #[serde(default)]
        extra_latency_ms: u64,
    },
    /// A quota: brokers take a client machine's requests at this pace only.
    Throttled {
        /// The client's machine.
        machine: Machine,
        /// For so long.
        for_ms: u64,
        /// Milliseconds from one request to the next, on each connection.
        pace_ms: u64,
    },
    /// A machine's wall clock is wrong.
    ClockJump {
        /// The machine.
        machine: Machine,
        /// Milliseconds that it is ahead (below 0: behind).
        by_ms: i64,
        /// Until it is right again, at once.
        for_ms: u64,
    },
    /// The object store misbehaves.
    ObjectStoreTrouble {
        /// For so long.
        for_ms: u64,
        /// Per mille of requests that fail without effect.
        error_permille: u32,
        /// Per mille of requests that take effect and then report an error.
        unknown_permille: u32,
        /// Added to every request.
        extra_latency_ms: u64,
        /// Listings show the store as it was so long ago.
        #[serde(default)]
        list_delay_ms: u64,
    },
    /// Retention (or somebody) deletes records from the beginning of an input partition.
    RecordsDeleted {
        /// Partition of the input topic.
        partition: u32,
        /// Up to where.
        until: Until,
    },
    /// The input topic gets more partitions.
    PartitionsAdded {
        /// How many it then has.
        count: u32,
    },
    /// The input topic is deleted and created anew.
    TopicRecreated,
    /// The group's offsets expire, or an operator deletes the group: possible while it is empty.
    OffsetsExpired,
    /// An operator sets a committed offset, with the usual tool: possible while the group is empty.
    OffsetReset {
        /// Partition of the input topic.
        partition: u32,
        /// The new offset.
        offset: i64,
    },
}

impl FaultKind {
    /// Its name, as plans spell it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            FaultKind::WorkerCrash { .. } => "worker-crash",
            FaultKind::WorkerPause { .. } => "worker-pause",
            FaultKind::WorkerLeave { .. } => "worker-leave",
            FaultKind::WorkerJoin { .. } => "worker-join",
            FaultKind::WorkerTwin { .. } => "worker-twin",
            FaultKind::WorkerMisconfigured { .. } => "worker-misconfigured",
            FaultKind::BrokerCrash { .. } => "broker-crash",
            FaultKind::BrokerPowerLoss { .. } => "broker-power-loss",
            FaultKind::BrokerPause { .. } => "broker-pause",
            FaultKind::BrokerDiskFull { .. } => "broker-disk-full",
            FaultKind::BrokerDiskSlow { .. } => "broker-disk-slow",
            FaultKind::RecordsDamaged { .. } => "records-damaged",
            FaultKind::NetworkCut { .. } => "network-cut",
            FaultKind::NetworkTrouble { .. } => "network-trouble",
            FaultKind::MessageTrouble { .. } => "message-trouble",
            FaultKind::Throttled { .. } => "throttled",
            FaultKind::ClockJump { .. } => "clock-jump",
            FaultKind::ObjectStoreTrouble { .. } => "object-store-trouble",
            FaultKind::RecordsDeleted { .. } => "records-deleted",
            FaultKind::PartitionsAdded { .. } => "partitions-added",
            FaultKind::TopicRecreated => "topic-recreated",
            FaultKind::OffsetsExpired => "offsets-expired",
            FaultKind::OffsetReset { .. } => "offset-reset",
        }
    }

    /// How long it lasts, milliseconds; `None`: it is done with in a moment.
    #[must_use]
    pub fn length_ms(&self) -> Option<u64> {
        let mut copy = self.clone();
        copy.length_ms_mut().map(|length| *length)
    }

    /// As [`FaultKind::length_ms`], to change it.
    pub fn length_ms_mut(&mut self) -> Option<&mut u64> {
        match self {
            FaultKind::WorkerCrash { down_ms, .. }
            | FaultKind::BrokerCrash { down_ms, .. }
            | FaultKind::BrokerPowerLoss { down_ms, .. } => Some(down_ms),
            FaultKind::WorkerPause { for_ms, .. }
            | FaultKind::WorkerTwin { for_ms, .. }
            | FaultKind::WorkerMisconfigured { for_ms, .. }
            | FaultKind::BrokerPause { for_ms, .. }
            | FaultKind::BrokerDiskFull { for_ms, .. }
            | FaultKind::BrokerDiskSlow { for_ms, .. }
            | FaultKind::RecordsDamaged { for_ms, .. }
            | FaultKind::NetworkCut { for_ms, .. }
            | FaultKind::NetworkTrouble { for_ms, .. }
            | FaultKind::MessageTrouble { for_ms, .. }
            | FaultKind::Throttled { for_ms, .. }
            | FaultKind::ClockJump { for_ms, .. }
            | FaultKind::ObjectStoreTrouble { for_ms, .. } => Some(for_ms),
            FaultKind::WorkerLeave { .. }
            | FaultKind::WorkerJoin { .. }
            | FaultKind::RecordsDeleted { .. }
            | FaultKind::PartitionsAdded { .. }
            | FaultKind::TopicRecreated
            | FaultKind::OffsetsExpired
            | FaultKind::OffsetReset { .. } => None,
        }
    }

    /// The worker that it is about, to change it.
    pub fn worker_mut(&mut self) -> Option<&mut u32> {
        match self {
            FaultKind::WorkerCrash { worker, .. }
            | FaultKind::WorkerPause { worker, .. }
            | FaultKind::WorkerLeave { worker }
            | FaultKind::WorkerJoin { worker }
            | FaultKind::WorkerTwin { worker, .. }
            | FaultKind::WorkerMisconfigured { worker, .. } => Some(worker),
            _ => None,
        }
    }

    /// The broker that it is about, to change it.
    pub fn broker_mut(&mut self) -> Option<&mut u32> {
        match self {
            FaultKind::BrokerCrash { broker, .. }
            | FaultKind::BrokerPowerLoss { broker, .. }
            | FaultKind::BrokerPause { broker, .. }
            | FaultKind::BrokerDiskFull { broker, .. }
            | FaultKind::BrokerDiskSlow { broker, .. }
            | FaultKind::RecordsDamaged { broker, .. } => Some(broker),
            _ => None,
        }
    }

    /// All machines that it names, to change them.
    pub fn for_each_machine(&mut self, mut change: impl FnMut(&mut Machine)) {
        let as_machine =
            |number: &mut u32, role: fn(u32) -> Machine, change: &mut dyn FnMut(&mut Machine)| {
                let mut machine = role(*number);
                change(&mut machine);
                if let Machine::Worker(n) | Machine::Broker(n) = machine {
                    *number = n;
                }
            };
        if let FaultKind::WorkerTwin { ordinal, .. } = self {
            as_machine(ordinal, Machine::Worker, &mut change);
        }
        if let Some(worker) = self.worker_mut() {
            as_machine(worker, Machine::Worker, &mut change);
        }
        if let Some(broker) = self.broker_mut() {
            as_machine(broker, Machine::Broker, &mut change);
        }
        match self {
            FaultKind::NetworkCut { from, to, .. } => from.iter_mut().chain(to).for_each(change),
            FaultKind::Throttled { machine, .. } | FaultKind::ClockJump { machine, .. } => {
                change(machine);
            }
            _ => {}
        }
    }

    /// The machines that it names.
    #[must_use]
    pub fn machines(&self) -> Vec<Machine> {
        let mut machines = Vec::new();
        self.clone()
            .for_each_machine(|machine| machines.push(*machine));
        machines
    }

    /// True if records in the log may stay invisible to consumers for longer because of it.
    #[must_use]
    pub fn hides_records(&self) -> bool {
        match self {
            FaultKind::BrokerCrash { .. }
            | FaultKind::BrokerPowerLoss { .. }
            | FaultKind::BrokerPause { .. }
            | FaultKind::BrokerDiskFull { .. }
            | FaultKind::BrokerDiskSlow { .. }
            | FaultKind::RecordsDamaged { .. }
            | FaultKind::NetworkCut { .. }
            | FaultKind::NetworkTrouble { .. }
            | FaultKind::MessageTrouble { .. }
            | FaultKind::Throttled { .. }
            | FaultKind::ClockJump { .. } => true,
            FaultKind::WorkerCrash { .. }
            | FaultKind::WorkerPause { .. }
            | FaultKind::WorkerLeave { .. }
            | FaultKind::WorkerJoin { .. }
            | FaultKind::WorkerTwin { .. }
            | FaultKind::WorkerMisconfigured { .. }
            | FaultKind::ObjectStoreTrouble { .. }
            | FaultKind::RecordsDeleted { .. }
            | FaultKind::PartitionsAdded { .. }
            | FaultKind::TopicRecreated
            | FaultKind::OffsetsExpired
            | FaultKind::OffsetReset { .. } => false,
        }
    }
}
