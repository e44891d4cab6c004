//! Plays a plan: builds the cluster, starts the processor's workers, lets the plan's faults happen,
//! and records what is left.
//!
//! Comes in: a [`Plan`] (and records from outside, if there are any). Goes out: a [`RunRecord`].
//! Never here: judgement.

mod faults;
mod hosts;
pub mod meter;
mod operator;
mod process;
mod producers;
mod record;
mod tapped;
mod topics;
pub mod workload;

pub use record::{CommittedOffset, RunRecord, TopicRecord};

pub(crate) use producers::SOURCE;

use crate::client::{ClientSettings, SimKafka};
use crate::clock::SimClock;
use crate::disk::{Disk, Disks};
use crate::fabric::actor::{Address, HostId, Micros};
use crate::fabric::process::Lifeline;
use crate::fabric::{Fabric, Handle, Step};
use crate::kafka::broker::Broker;
use crate::kafka::controller::Controller;
use crate::kafka::protocol::{BrokerId, RebalanceProtocol};
use crate::kafka::{ClusterConfig, Directory};
use crate::objects::ObjectService;
use crate::plan::{FaultKind, Machine, Plan, PlanError};
use crate::sabotage::Sabotage;
use crate::tap::{Recorder, Tap};
use hosts::Hosts;
use madsim::runtime::{NodeHandle, Runtime};
use meter::{Meter, Part};
use process::WorkerProcess;
use processor::config::{self, ProcessorConfig};
use processor::worker::{StopSignal, WorkerError};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use workload::Sending;

/// A supervisor starts a worker that ended with an error again after this long.
const SUPERVISOR_PAUSE_MS: u64 = 1_000;
/// fetch.wait.max.ms of all clients: an answer comes at once when there is data, so a long wait only
/// spares empty answers.
const FETCH_WAIT_MAX_MS: u32 = 5_000;
/// Stack of the thread that plays a run.
const STACK_BYTES: usize = 16 << 20;

/// Where each broker is.
type BrokerAddresses = Vec<(BrokerId, Address)>;

/// Records from outside the plan, in the order of sending.
pub type Records = Box<dyn Iterator<Item = Sending> + Send>;

/// What to play.
pub struct Playback {
    /// The plan.
    pub plan: Plan,
    /// Records that are sent beside the plan's workload.
    pub records: Option<Records>,
    /// Keep the trace's lines, not only its hash.
    pub keep_trace: bool,
    /// What the worker machines keep their local state on: [`crate::disk::in_memory`] for most.
    pub disks: Disks,
    /// Record all I/O of the worker processes, and kill some of them.
    pub tap: Option<Tap>,
    /// Who wants to know what the thread is at work on.
    pub meter: Option<Box<dyn Meter>>,
}

/// Why a plan cannot be played, or what broke while it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlayError {
    /// The plan is wrong.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Something panicked: a broken invariant of the processor or of the world.
    #[error("panicked: {0}")]
    Panicked(String),
}

/// Plays a plan from its beginning to its end, on a thread of its own (madsim keeps state by thread,
/// so one seed gets one fresh thread).
///
/// # Errors
/// See [`PlayError`].
pub fn play(playback: Playback) -> Result<RunRecord, PlayError> {
    #[allow(
        clippy::disallowed_methods,
        reason = "the thread is the world's container; nothing inside the world spawns one"
    )]
    let thread = std::thread::Builder::new()
        .name(format!("seed-{}", playback.plan.seed))
        .stack_size(STACK_BYTES)
        .spawn(move || play_here(playback))
        .map_err(|error| PlayError::Panicked(format!("no thread to play on: {error}")))?;
    thread.join().unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_else(|| "without a message".into());
        Err(PlayError::Panicked(text))
    })
}

fn play_here(playback: Playback) -> Result<RunRecord, PlayError> {
    playback.plan.check()?;
    let config = playback.plan.configuration()?;
    let runtime = Runtime::with_seed_and_config(playback.plan.seed, madsim::Config::default());
    runtime.block_on(async {
        let mut world = World::build(playback, Arc::new(config));
        world.run().await;
        Ok(world.finish().await)
    })
}

type Exits = Arc<Mutex<Vec<(u32, u64, Result<(), WorkerError>)>>>;

/// One worker process, as its supervisor sees it.
struct Supervised {
    /// Starts so far.
    starts: u64,
    running: Option<Running>,
    disk: Box<dyn Disk>,
    /// Left for good, or refused to continue.
    retired: bool,
    /// A configuration that it has by mistake.
    unusual: Option<Arc<ProcessorConfig>>,
}

struct Running {
    lifeline: Lifeline,
    node: NodeHandle,
    stop: StopSignal,
}

/// The number of a control event.
#[derive(Debug, Clone, Copy)]
enum Control {
    FaultBegins(usize),
    FaultEnds(usize),
    FaultWaits(usize),
    FaultGivesUp(usize),
    WorkerStarts(u32),
    Calm,
    End,
}

impl Control {
    fn number(self) -> u64 {
        match self {
            Control::FaultBegins(fault) => (fault as u64) << 3,
            Control::FaultEnds(fault) => (fault as u64) << 3 | 1,
            Control::WorkerStarts(worker) => u64::from(worker) << 3 | 2,
            Control::Calm => 3,
            Control::End => 4,
            Control::FaultWaits(fault) => (fault as u64) << 3 | 5,
            Control::FaultGivesUp(fault) => (fault as u64) << 3 | 6,
        }
    }

    fn of(number: u64) -> Control {
        let index = usize::try_from(number >> 3).expect("made by `number`");
        match number & 7 {
            0 => Control::FaultBegins(index),
            1 => Control::FaultEnds(index),
            2 => Control::WorkerStarts(u32::try_from(index).expect("made by `number`")),
            3 => Control::Calm,
            5 => Control::FaultWaits(index),
            6 => Control::FaultGivesUp(index),
            _ => Control::End,
        }
    }
}

struct World {
    plan: Arc<Plan>,
    config: Arc<ProcessorConfig>,
    fabric: Fabric,
    hosts: Hosts,
    brokers: Vec<Handle<Broker>>,
    directory: Arc<BrokerAddresses>,
    objects: ObjectService,
    workers: Vec<Supervised>,
    /// Worker processes by ordinal, each with its own configuration.
    worker_configs: Vec<Arc<ProcessorConfig>>,
    exits: Exits,
    refusals: Vec<String>,
    /// What the faults do: as planned, or aimed at where their moment came.
    kinds: Vec<FaultKind>,
    /// Which faults had an effect (network and object store keep their own count).
    struck: Vec<bool>,
    /// The input topic, as it was before it was created anew.
    before_recreation: Option<topics::Seen>,
    unsent: producers::Unsent,
    /// Programs that write the workload.
    producers: Vec<(Lifeline, NodeHandle)>,
    records: Option<Records>,
    disks: Disks,
    /// With the time after which a killed process starts again.
    tap: Option<(Recorder, u64)>,
    meter: Option<Box<dyn Meter>>,
}

impl World {
    fn build(playback: Playback, config: Arc<ProcessorConfig>) -> World {
        let plan = Arc::new(playback.plan);
        let hosts = Hosts::new(&plan.topology);
        let fabric = Fabric::new(
            plan.seed,
            &hosts.names(),
            plan.faults.len(),
            playback.keep_trace,
        );
        let cluster = Arc::new(topics::cluster_config(&plan, &config));
        let (brokers, directory) = build_cluster(&fabric, &hosts, &plan, &cluster);
        let worker_configs = (0..plan.topology.workers)
            .map(|ordinal| {
                let mut own = ProcessorConfig::clone(&config);
                own.worker.ordinal = ordinal;
                Arc::new(own)
            })
            .collect();
        World {
            objects: ObjectService::new(fabric.clone(), plan.start_unix_ms),
            workers: (0..plan.topology.workers)
                .map(|_| Supervised {
                    starts: 0,
                    running: None,
                    disk: (playback.disks)(),
                    retired: false,
                    unusual: None,
                })
                .collect(),
            struck: vec![false; plan.faults.len()],
            kinds: plan.faults.iter().map(|fault| fault.kind.clone()).collect(),
            before_recreation: None,
            records: playback.records,
            disks: playback.disks,
            tap: playback
                .tap
                .map(|tap| (Recorder::new(fabric.clone(), &tap), tap.down_ms)),
            meter: playback.meter,
            worker_configs,
            config,
            fabric,
            hosts,
            brokers,
            directory,
            exits: Exits::default(),
            refusals: Vec::new(),
            unsent: producers::Unsent::default(),
            producers: Vec::new(),
            plan,
        }
    }

    async fn run(&mut self) {
        self.schedule();
        self.start_producers();
        loop {
            self.enters(Part::Processes);
            self.fabric.settle().await;
            self.enters(Part::World);
            self.bury_tapped();
            self.bury_exited();
            self.advance_clock();
            match self.step() {
                Step::Done => {}
                Step::Idle => return,
                Step::Control(number) => match Control::of(number) {
                    Control::FaultBegins(fault) => self.begin_fault(fault),
                    Control::FaultEnds(fault) => self.end_fault(fault),
                    Control::FaultWaits(fault) => self.wait_for_moment(fault),
                    Control::FaultGivesUp(fault) => self.give_up(fault),
                    Control::WorkerStarts(worker) => self.start_worker(worker),
                    Control::Calm => self.calm(),
                    Control::End => return,
                },
            }
        }
    }

    /// madsim's virtual time goes along with the fabric's, so that whatever waits on either sees one
    /// time.
    fn advance_clock(&self) {
        if let Some(next) = self.fabric.next_event_at() {
            let step_us = next.since(self.fabric.now()).0;
            madsim::time::advance(Duration::from_micros(step_us));
        }
    }

    /// Puts everything that the plan knows beforehand into the queue.
    fn schedule(&mut self) {
        for (index, fault) in self.plan.faults.iter().enumerate() {
            self.schedule_fault(index, fault);
        }
        for worker in 0..self.plan.topology.workers {
            if !faults::joins_later(&self.plan, worker) {
                self.fabric
                    .schedule_control(Micros(0), Control::WorkerStarts(worker).number());
            }
        }
        let calm = Micros::from_ms(self.plan.active_ms);
        self.fabric.schedule_control(calm, Control::Calm.number());
        let end = calm.plus_ms(self.plan.settle_ms);
        self.fabric.schedule_control(end, Control::End.number());
    }

    fn client_settings(&self) -> ClientSettings {
        let kafka = &self.config.kafka;
        let ms = |value: u64| u32::try_from(value).expect("the configuration limits its durations");
        ClientSettings {
            protocol: match kafka.rebalance_protocol {
                config::RebalanceProtocol::Eager => RebalanceProtocol::Eager,
                config::RebalanceProtocol::Cooperative => RebalanceProtocol::Cooperative,
            },
            session_timeout_ms: ms(kafka.session_timeout_ms),
            max_poll_interval_ms: ms(kafka.max_poll_interval_ms),
            transaction_timeout_ms: ms(kafka.transaction_timeout_ms),
            fetch_wait_max_ms: FETCH_WAIT_MAX_MS,
            ..ClientSettings::default()
        }
    }

    fn kafka(&self, host: HostId) -> SimKafka {
        SimKafka::new(
            self.fabric.clone(),
            host,
            self.directory.clone(),
            ClientSettings {
                broken: self.sabotage(),
                ..self.client_settings()
            },
        )
    }

    fn start_worker(&mut self, worker: u32) {
        let index = worker as usize;
        if self.workers[index].running.is_some() || self.workers[index].retired {
            return;
        }
        let host = self.host(Machine::Worker(worker));
        self.fabric.restart_host(host);
        self.workers[index].starts += 1;
        let start = self.workers[index].starts;
        let stop = StopSignal::default();
        let incarnation = format!("w{worker}-{start}");
        let state = self.surviving_disk(worker, start);
        let state = state.open(worker, &incarnation);
        let process = WorkerProcess {
            fabric: self.fabric.clone(),
            host,
            config: self.config_of(index),
            kafka: self.kafka(host),
            objects: self.objects.client(host),
            clock: SimClock::new(self.fabric.clone(), host, self.plan.start_unix_ms),
            incarnation,
            stop: stop.clone(),
            sabotage: self.sabotage(),
            tap: (self.tap.as_ref()).map(|(recorder, _)| recorder.process(worker, start, host)),
            state,
        };
        self.fabric
            .note(host, "worker-started", &process.incarnation);
        let lifeline = self.fabric.lifeline();
        let exits = self.exits.clone();
        let program = lifeline.follow(async move {
            let result = process.run().await;
            let mut exits = exits.lock().expect("one thread");
            exits.push((worker, start, result));
        });
        let node = madsim::runtime::Handle::current()
            .create_node()
            .name(format!("worker-{worker}-{start}"))
            .build();
        node.spawn(program);
        self.workers[index].running = Some(Running {
            lifeline,
            node,
            stop,
        });
    }

    fn config_of(&self, worker: usize) -> Arc<ProcessorConfig> {
        let unusual = self.workers[worker].unusual.as_ref();
        unusual.unwrap_or(&self.worker_configs[worker]).clone()
    }

    fn sabotage(&self) -> Option<Sabotage> {
        self.plan.bug.as_ref().map(|bug| bug.promise)
    }

    /// A process mostly finds the disk as the last one left it; sometimes it starts on a new machine.
    fn surviving_disk(&mut self, worker: u32, start: u64) -> &mut dyn Disk {
        const NEW_MACHINE_ONE_IN: u64 = 4;
        let who = self.host(Machine::Worker(worker));
        let drawn = self
            .fabric
            .draw("disk", &format!("worker-{}", who.0), start);
        let disk = &mut self.workers[worker as usize].disk;
        let is_new = drawn.is_multiple_of(NEW_MACHINE_ONE_IN);
        if is_new {
            let old = std::mem::replace(disk, (self.disks)());
            self.fabric.mark(|marks| marks.read_back(old.read_back()));
        }
        if start > 1 {
            let kind = if is_new { "disk-new" } else { "disk-old" };
            self.fabric.note(who, kind, "");
        }
        disk.as_mut()
    }

    /// The end of processes that ended by themselves, and their supervisor's answer.
    fn bury_exited(&mut self) {
        let exited = std::mem::take(&mut *self.exits.lock().expect("one thread"));
        for (worker, start, result) in exited {
            let index = worker as usize;
            if self.workers[index].starts != start || self.workers[index].running.is_none() {
                continue; // killed meanwhile
            }
            let was_stopped = self.workers[index]
                .running
                .as_ref()
                .is_some_and(|running| running.stop.is_stopped());
            self.kill_worker(worker);
            let host = self.host(Machine::Worker(worker));
            match result {
                Ok(()) => self.fabric.note(host, "worker-left", ""),
                Err(error) => {
                    let text = error.to_string();
                    self.fabric.note(host, "worker-failed", &text);
                    if error.is_refusal() {
                        if !self.workers[index].may_refuse() {
                            self.refusals.push(text);
                        }
                        self.workers[index].retired = true;
                        continue;
                    }
                    if was_stopped {
                        continue; // what was told to stop is not started again
                    }
                    let at = self.fabric.now().plus_ms(SUPERVISOR_PAUSE_MS);
                    let number = Control::WorkerStarts(worker).number();
                    self.fabric.schedule_control(at, number);
                }
            }
        }
    }

    /// kill -9. True if there was something to kill.
    fn kill_worker(&mut self, worker: u32) -> bool {
        let Some(running) = self.workers[worker as usize].running.take() else {
            return false;
        };
        if let Some((recorder, _)) = &self.tap {
            recorder.ended(worker);
        }
        let host = self.host(Machine::Worker(worker));
        running.lifeline.cut();
        self.fabric.crash_host(host, true);
        self.workers[worker as usize].disk.kill();
        madsim::runtime::Handle::current().kill(running.node.id());
        true
    }

    async fn finish(mut self) -> RunRecord {
        for worker in 0..self.plan.topology.workers {
            self.kill_worker(worker);
        }
        self.stop_producers();
        self.fabric.settle().await;
        let mut topics = topics::collect(&self.brokers, &self.config, &self.plan);
        if let Some(seen) = self.before_recreation.take() {
            topics.input = seen.records;
            topics.input_ends = seen.ends;
        }
        let fault_hits = self.fault_hits();
        let virtual_ms = self.fabric.now().as_ms();
        let events = self.fabric.events();
        let (hash, trace, kinds) = self.fabric.take_trace().finish();
        for worker in &self.workers {
            let read_back = worker.disk.read_back();
            self.fabric.mark(|marks| marks.read_back(read_back));
        }
        RunRecord {
            trace_hash: topics.hash(hash),
            trace,
            marks: self.fabric.take_marks().finish(&kinds),
            kinds,
            virtual_ms,
            events,
            fault_hits,
            input_partitions: i32::try_from(self.plan.topology.input_partitions)
                .expect("plans are checked"),
            input: topics.input,
            outputs: topics.outputs,
            dead_letters: topics.dead_letters,
            commits: topics.commits,
            input_ends: topics.input_ends,
            stuck: topics.stuck,
            refusals: std::mem::take(&mut self.refusals),
            unsent: self.unsent.total(),
            tapped: self.tap.take().map(|(recorder, _)| recorder.take()),
            config: self.config,
        }
    }
}

fn build_cluster(
    fabric: &Fabric,
    hosts: &Hosts,
    plan: &Plan,
    cluster: &Arc<ClusterConfig>,
) -> (Vec<Handle<Broker>>, Arc<BrokerAddresses>) {
    let first = fabric.next_address();
    let addresses: BrokerAddresses = (1..=plan.topology.brokers)
        .map(|n| (BrokerId(n), Address(first.0 + n)))
        .collect();
    let directory = Arc::new(Directory {
        controller: first,
        brokers: addresses.clone(),
    });
    let at = |machine| {
        hosts
            .of(machine)
            .expect("plans are checked for their machines")
    };
    let controller = Controller::new(cluster.clone(), directory.clone());
    let _controller: Handle<Controller> = fabric.spawn_actor(at(Machine::Controller), controller);
    let brokers = addresses
        .iter()
        .map(|&(id, address)| {
            let broker = Broker::new(id, cluster.clone(), directory.clone());
            let handle = fabric.spawn_actor(at(Machine::Broker(id.0)), broker);
            assert_eq!(handle.address(), address, "brokers are the first actors");
            handle
        })
        .collect();
    (brokers, Arc::new(addresses))
}
