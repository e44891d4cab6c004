//! Numbers the calls, and decides who dies.

use super::phase::{About, Phase, Story};
use super::point::{CallId, Kill, Moment};
use super::{Tap, Tapped};
use crate::fabric::Fabric;
use crate::fabric::actor::{HostId, Micros};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

/// Everything by which the world can tell a process's death at one moment from its death at another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outside {
    /// Events of the world so far.
    events: u64,
    /// Messages and requests that have left the process.
    sent: u64,
    /// Clients that exist in the world (each has an address of its own).
    clients: u32,
    /// Changes of the machine's disk.
    disk: u64,
}

/// A moment at which a process could have died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which moment of its call.
    pub moment: Moment,
    /// What the world knew of the process then.
    pub outside: Outside,
    /// When.
    pub at: Micros,
    /// Its number among all marks of the run.
    pub serial: u64,
}

/// One I/O of a worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which.
    pub id: CallId,
    /// Interface and method; of a poll also what it brought.
    pub name: &'static str,
    /// What it was made for.
    pub phase: Phase,
    /// The moments at which the process could have died, in order.
    pub marks: Vec<Mark>,
}

struct Process {
    start: u64,
    host: HostId,
    calls: u64,
    /// Requests to the object store.
    requests: u64,
    disk: u64,
    story: Story,
    /// Calls of the transaction under way: what they are for is known when it carries offsets.
    transaction: Vec<usize>,
    /// It is a mark.
    marks: bool,
    /// Calls that have not returned, and how much had left the process when that was last looked at.
    open: BTreeMap<usize, u64>,
    dead: bool,
}

impl Process {
    /// What its next call is made for, which will be the `index`-th of the run.
    fn phase(&mut self, about: About, index: usize) -> Phase {
        let phase = self.story.phase(about);
        match about {
            About::Begin => {
                self.transaction = vec![index];
                self.marks = false;
            }
            About::Transaction => self.transaction.push(index),
            _ => return phase,
        }
        if self.marks {
            self.story.phase_of_mark(phase)
        } else {
            phase
        }
    }
}

#[derive(Default)]
struct Log {
    kills: BTreeSet<Kill>,
    processes: BTreeMap<u32, Process>,
    tapped: Tapped,
    serial: u64,
    /// Workers whose process has died and is not buried yet.
    doomed: Vec<(u32, Kill)>,
}

/// The calls of all worker processes of a world.
#[derive(Clone)]
pub struct Recorder {
    fabric: Fabric,
    log: Arc<Mutex<Log>>,
}

impl Recorder {
    /// A recorder that carries out `tap`.
    #[must_use]
    pub fn new(fabric: Fabric, tap: &Tap) -> Recorder {
        let log = Log {
            kills: tap.kills.clone(),
            ..Log::default()
        };
        Recorder {
            fabric,
            log: Arc::new(Mutex::new(log)),
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log
            .lock()
            .expect("a world is abandoned when it panics")
    }

    /// A process has started.
    #[must_use]
    pub fn process(&self, worker: u32, start: u64, host: HostId) -> ProcessTap {
        let process = Process {
            start,
            host,
            calls: 0,
            requests: 0,
            disk: 0,
            story: Story::default(),
            transaction: Vec::new(),
            marks: false,
            open: BTreeMap::new(),
            dead: false,
        };
        self.log().processes.insert(worker, process);
        ProcessTap {
            recorder: self.clone(),
            worker,
            start,
        }
    }

    /// A process has ended, however that came.
    pub fn ended(&self, worker: u32) {
        if let Some(process) = self.log().processes.get_mut(&worker) {
            process.dead = true;
            process.open.clear();
        }
    }

    /// After each event, when all processes wait: looks at what has left them since, and tells who has
    /// died.
    #[must_use]
    pub fn look(&self) -> Vec<(u32, Kill)> {
        let mut log = self.log();
        let workers: Vec<u32> = log.processes.keys().copied().collect();
        for worker in workers {
            let process = &log.processes[&worker];
            if process.open.is_empty() {
                continue;
            }
            let sent = self.fabric.sent(process.host) + process.requests;
            let grown = process.open.iter().filter(|(_, seen)| **seen < sent);
            for call in grown.map(|(call, _)| *call).collect::<Vec<_>>() {
                let is_unknown = |mark: &&Mark| matches!(mark.moment, Moment::Unknown(_));
                let marks = log.tapped.calls[call].marks.iter();
                let before = u32::try_from(marks.filter(is_unknown).count()).unwrap_or(u32::MAX);
                if self.mark(&mut log, worker, call, Moment::Unknown(before + 1)) {
                    break;
                }
                if let Some(process) = log.processes.get_mut(&worker) {
                    process.open.insert(call, sent);
                }
            }
        }
        std::mem::take(&mut log.doomed)
    }

    /// What was recorded.
    #[must_use]
    pub fn take(&self) -> Tapped {
        std::mem::take(&mut self.log().tapped)
    }

    /// Notes a moment. True if the process dies at it.
    fn mark(&self, log: &mut Log, worker: u32, call: usize, moment: Moment) -> bool {
        let process = &log.processes[&worker];
        let outside = Outside {
            events: self.fabric.events(),
            sent: self.fabric.sent(process.host) + process.requests,
            clients: self.fabric.next_address().0,
            disk: process.disk,
        };
        log.serial += 1;
        let serial = log.serial;
        let recorded = &mut log.tapped.calls[call];
        recorded.marks.push(Mark {
            moment,
            outside,
            at: self.fabric.now(),
            serial,
        });
        let kill = Kill {
            call: recorded.id,
            moment,
        };
        let dies = log.kills.contains(&kill);
        if dies {
            log.tapped.killed.push((kill, serial));
            log.doomed.push((worker, kill));
            let process = log.processes.get_mut(&worker).expect("it makes this call");
            process.dead = true;
            process.open.clear();
        }
        dies
    }
}

/// One process's access to the recorder.
#[derive(Clone)]
pub struct ProcessTap {
    recorder: Recorder,
    worker: u32,
    start: u64,
}

impl std::fmt::Debug for ProcessTap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProcessTap(worker-{}/{})", self.worker, self.start)
    }
}

/// A call that has not returned.
pub(super) struct Open<'a> {
    tap: &'a ProcessTap,
    index: usize,
}

impl Drop for Open<'_> {
    /// Also when the call is given up. A world that panics is abandoned as it is.
    fn drop(&mut self) {
        if let Ok(mut log) = self.tap.recorder.log.lock()
            && let Some(process) = log.processes.get_mut(&self.tap.worker)
        {
            process.open.remove(&self.index);
        }
    }
}

impl ProcessTap {
    /// True while this very process lives.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.with(|_| ()).is_some()
    }

    fn with<R>(&self, change: impl FnOnce(&mut Process) -> R) -> Option<R> {
        let mut log = self.recorder.log();
        let process = log.processes.get_mut(&self.worker)?;
        (process.start == self.start && !process.dead).then(|| change(process))
    }

    /// A call is about to be made. `None`: the process is dead.
    pub(super) fn begin(&self, name: &'static str, about: About) -> Option<Open<'_>> {
        if !self.lives() {
            return None;
        }
        let mut log = self.recorder.log();
        let log = &mut *log;
        let index = log.tapped.calls.len();
        let process = log.processes.get_mut(&self.worker)?;
        process.calls += 1;
        let phase = process.phase(about, index);
        let call = process.calls;
        log.tapped.calls.push(Call {
            id: CallId {
                worker: self.worker,
                start: self.start,
                call,
            },
            name,
            phase,
            marks: Vec::new(),
        });
        if self.recorder.mark(log, self.worker, index, Moment::Before) {
            return None;
        }
        let process = log.processes.get_mut(&self.worker)?;
        let sent = self.recorder.fabric.sent(process.host) + process.requests;
        process.open.insert(index, sent);
        Some(Open { tap: self, index })
    }

    /// A call has returned. False: and the process does not live to see it.
    pub(super) fn end(&self, open: &Open<'_>) -> bool {
        if !self.lives() {
            return false;
        }
        let mut log = self.recorder.log();
        !self
            .recorder
            .mark(&mut log, self.worker, open.index, Moment::After)
    }

    /// Makes a call that waits.
    pub(super) async fn call<F: Future>(
        &self,
        name: &'static str,
        about: About,
        call: F,
    ) -> F::Output {
        self.call_and(name, about, call, |_, _, _| ()).await
    }

    /// As [`ProcessTap::call`]; `learn` sees what it returned before anybody else.
    pub(super) async fn call_and<F: Future>(
        &self,
        name: &'static str,
        about: About,
        call: F,
        learn: impl FnOnce(&F::Output, &mut Call, &mut Story),
    ) -> F::Output {
        let Some(open) = self.begin(name, about) else {
            return std::future::pending().await;
        };
        let output = call.await;
        self.learn(&open, |call, story| learn(&output, call, story));
        if !self.end(&open) {
            return std::future::pending().await;
        }
        output
    }

    /// Makes a call that does not wait. `None`: the process is dead.
    pub(super) fn call_now<R>(
        &self,
        name: &'static str,
        about: About,
        call: impl FnOnce() -> R,
        learn: impl FnOnce(&R, &mut Story),
    ) -> Option<R> {
        let open = self.begin(name, about)?;
        let output = call();
        self.learn(&open, |_, story| learn(&output, story));
        self.end(&open).then_some(output)
    }

    fn learn(&self, open: &Open<'_>, learn: impl FnOnce(&mut Call, &mut Story)) {
        let mut log = self.recorder.log();
        let log = &mut *log;
        if let Some(process) = log.processes.get_mut(&self.worker) {
            learn(&mut log.tapped.calls[open.index], &mut process.story);
        }
    }

    /// The process tells something of itself.
    pub(super) fn told(&self, event: &processor::worker::WorkerEvent<'_>) {
        self.with(|process| process.story.told(event));
    }

    /// A request to the object store leaves.
    pub(super) fn request_leaves(&self) {
        self.with(|process| process.requests += 1);
    }

    /// The machine's disk has changed.
    pub(super) fn disk_changed(&self) {
        self.with(|process| process.disk += 1);
    }

    /// The transaction under way is a mark: it carries no outputs.
    pub(super) fn is_mark(&self) {
        let mut log = self.recorder.log();
        let log = &mut *log;
        let Some(process) = log.processes.get_mut(&self.worker) else {
            return;
        };
        process.marks = true;
        for &call in &process.transaction {
            let phase = &mut log.tapped.calls[call].phase;
            *phase = process.story.phase_of_mark(*phase);
        }
    }
}
