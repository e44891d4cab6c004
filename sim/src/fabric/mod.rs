//! The fabric: virtual time, one queue of events, the network, and the actors of a world.
//!
//! Comes in: actors, messages, timers. Goes out: the next event, one at a time, in the order of
//! (time, sequence); the trace.
//! Never here: what a message means; anything random that is not a keyed draw.
//!
//! Actors ([`actor::Actor`]) are pure state machines and run inside the fabric. Programs under test
//! are madsim tasks ([`process`]) and reach actors through [`Handle`]s.

pub mod actor;
mod handle;
pub mod network;
pub mod process;
mod queue;

use crate::kafka::protocol::Message;
use crate::marks::Marks;
use crate::trace::Trace;
pub use handle::{Handle, Sleep};

use actor::{Actor, Address, Effects, HostId, Micros};
use network::Network;
use process::{Lifeline, Runnable};
use queue::{Event, Queue};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

/// Shared handle to the fabric of one world.
#[derive(Clone)]
pub struct Fabric(Arc<Mutex<Inner>>, Runnable);

struct Slot {
    host: HostId,
    /// `None` while it is being called, and after it was removed.
    actor: Option<Box<dyn Actor + Send>>,
    wake_at: Micros,
    waiter: Option<Waker>,
}

struct Host {
    name: String,
    alive: bool,
    paused: bool,
    /// What happened to it while it was paused.
    held: Vec<Event>,
    clock_ahead_ms: i64,
    /// Messages that have left it.
    sent: u64,
}

/// Somebody waits for lines of one kind in the trace.
struct Watch {
    kind: String,
    /// So many more.
    left: u64,
    after: Micros,
    /// Control event to raise.
    number: u64,
}

struct Timer {
    host: HostId,
    waker: Option<Waker>,
    fired: bool,
}

struct Inner {
    seed: u64,
    now: Micros,
    queue: Queue,
    slots: Vec<Slot>,
    hosts: Vec<Host>,
    timers: BTreeMap<u64, Timer>,
    timers_made: u64,
    network: Network,
    trace: Trace,
    marks: Marks,
    events: u64,
    watches: Vec<Watch>,
    /// Where the lines that were waited for were written, by control event.
    seen_on: BTreeMap<u64, HostId>,
}

/// What the next event was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Handled inside the fabric.
    Done,
    /// A control event of the world ([`Fabric::schedule_control`]).
    Control(u64),
    /// Nothing will ever happen again.
    Idle,
}

impl Fabric {
    /// An empty fabric. `hosts`: names of the machines, in the order of their ids; `faults`: how many
    /// faults the plan has.
    #[must_use]
    pub fn new(seed: u64, hosts: &[String], faults: usize, keep_trace: bool) -> Fabric {
        let inner = Inner {
            seed,
            now: Micros(0),
            queue: Queue::default(),
            slots: Vec::new(),
            hosts: hosts
                .iter()
                .map(|name| Host {
                    name: name.clone(),
                    alive: true,
                    paused: false,
                    held: Vec::new(),
                    clock_ahead_ms: 0,
                    sent: 0,
                })
                .collect(),
            timers: BTreeMap::new(),
            timers_made: 0,
            network: Network::new(seed, hosts.len(), faults),
            trace: Trace::new(keep_trace),
            marks: Marks::new(hosts),
            events: 0,
            watches: Vec::new(),
            seen_on: BTreeMap::new(),
        };
        Fabric(Arc::new(Mutex::new(inner)), Runnable::default())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("a world is abandoned when it panics")
    }

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.lock().now
    }

    /// Seed of the world.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.lock().seed
    }

    /// A keyed draw from the world's seed.
    #[must_use]
    pub fn draw(&self, who: &str, what: &str, sequence: u64) -> u64 {
        crate::draw::draw(self.seed(), who, what, sequence)
    }

    /// A new lifeline for a process.
    #[must_use]
    pub fn lifeline(&self) -> Lifeline {
        Lifeline::new(self.1.clone())
    }

    /// Puts an actor on a machine, under a new address.
    pub fn spawn_actor<A: Actor + Send>(&self, host: HostId, actor: A) -> Handle<A> {
        let mut inner = self.lock();
        let address = Address(u32::try_from(inner.slots.len()).expect("few actors"));
        inner.slots.push(Slot {
            host,
            actor: Some(Box::new(actor)),
            wake_at: Micros::MAX,
            waiter: None,
        });
        inner.reschedule(address);
        Handle {
            fabric: self.clone(),
            address,
            kind: PhantomData,
        }
    }

    /// The address that the next actor will get (to build directories before their actors).
    #[must_use]
    pub fn next_address(&self) -> Address {
        Address(u32::try_from(self.lock().slots.len()).expect("few actors"))
    }

    /// Writes a line to the trace, for a machine.
    pub fn note(&self, host: HostId, kind: &'static str, text: &str) {
        self.lock().note(host, kind, text);
    }

    /// Writes a line to a kept trace that makes no difference to its hash.
    pub fn remark(&self, who: &str, kind: &'static str, text: &str) {
        let mut fabric = self.lock();
        let now = fabric.now;
        fabric.trace.line(now, who, kind, || text.to_owned());
    }

    /// Asks for [`Step::Control`] with this number `after` the `nth` line of this kind from now on.
    pub fn watch(&self, kind: &str, nth: u64, after: Micros, number: u64) {
        self.lock().watches.push(Watch {
            kind: kind.to_owned(),
            left: nth,
            after,
            number,
        });
    }

    /// Ends a watch.
    pub fn unwatch(&self, number: u64) {
        self.lock().watches.retain(|watch| watch.number != number);
    }

    /// The machine that wrote the line that a watch waited for.
    #[must_use]
    pub fn seen_on(&self, number: u64) -> Option<HostId> {
        self.lock().seen_on.get(&number).copied()
    }

    /// Sets a machine's wall clock ahead by so much (below 0: behind).
    pub fn set_clock_ahead(&self, host: HostId, ms: i64) {
        self.lock().hosts[usize::from(host.0)].clock_ahead_ms = ms;
    }

    /// How much a machine's wall clock is ahead, milliseconds.
    #[must_use]
    pub fn clock_ahead_ms(&self, host: HostId) -> i64 {
        self.lock().hosts[usize::from(host.0)].clock_ahead_ms
    }

    /// Asks for [`Step::Control`] with this number at a time.
    pub fn schedule_control(&self, at: Micros, number: u64) {
        let mut inner = self.lock();
        let at = at.max(inner.now);
        inner.queue.push(at, Event::Control(number));
    }

    /// Waits on a machine's clock: a paused machine's timers fire when it goes on.
    pub fn sleep(&self, host: HostId, duration: Micros) -> Sleep {
        let at = self.now().plus(duration);
        Sleep {
            fabric: self.clone(),
            host,
            at,
            timer: None,
        }
    }

    /// Changes the network.
    pub fn network<R>(&self, change: impl FnOnce(&mut Network) -> R) -> R {
        change(&mut self.lock().network)
    }

    /// A machine's process dies. Its actors of kind client are removed with [`Handle::remove`] by
    /// whoever made them, or all at once here with `remove_actors`; brokers stay and forget.
    pub fn crash_host(&self, host: HostId, remove_actors: bool) {
        let mut inner = self.lock();
        inner.crash_host(host, remove_actors);
    }

    /// The machine's process runs again.
    pub fn restart_host(&self, host: HostId) {
        self.lock().restart_host(host);
    }

    /// True while the machine's process lives.
    #[must_use]
    pub fn is_alive(&self, host: HostId) -> bool {
        self.lock().hosts[usize::from(host.0)].alive
    }

    /// True while the machine's process stands still.
    #[must_use]
    pub fn is_paused(&self, host: HostId) -> bool {
        self.lock().hosts[usize::from(host.0)].paused
    }

    /// The machine's process stands still: everything for it is held back.
    pub fn pause_host(&self, host: HostId) {
        self.lock().hosts[usize::from(host.0)].paused = true;
    }

    /// It goes on: what was held back happens now, in order.
    pub fn resume_host(&self, host: HostId) {
        let inner = &mut *self.lock();
        let state = &mut inner.hosts[usize::from(host.0)];
        state.paused = false;
        for event in std::mem::take(&mut state.held) {
            inner.queue.push(inner.now, event);
        }
    }

    /// Lets every woken process run until it waits.
    pub async fn settle(&self) {
        while self.1.any() {
            madsim::task::yield_now().await;
        }
    }

    /// Time of the next event.
    #[must_use]
    pub fn next_event_at(&self) -> Option<Micros> {
        self.lock().queue.next_at()
    }

    /// Machine of the next event; `None` if there is none, or it is the world's own.
    #[must_use]
    pub fn next_event_on(&self) -> Option<HostId> {
        let inner = self.lock();
        inner.host_of(inner.queue.next()?)
    }

    /// Moves time to the next event and handles it.
    pub fn step(&self) -> Step {
        let mut inner = self.lock();
        let Some((at, event)) = inner.queue.pop() else {
            return Step::Idle;
        };
        inner.now = at;
        inner.events += 1;
        inner.handle(event)
    }

    /// Number of events handled.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.lock().events
    }

    /// Messages that have left a machine.
    #[must_use]
    pub fn sent(&self, host: HostId) -> u64 {
        self.lock().hosts[usize::from(host.0)].sent
    }

    /// Ends the trace.
    #[must_use]
    pub fn take_trace(&self) -> Trace {
        std::mem::replace(&mut self.lock().trace, Trace::new(false))
    }

    /// Tells the marks what no line says.
    pub fn mark<R>(&self, tell: impl FnOnce(&mut Marks) -> R) -> R {
        tell(&mut self.lock().marks)
    }

    /// Ends the marks.
    #[must_use]
    pub fn take_marks(&self) -> Marks {
        std::mem::replace(&mut self.lock().marks, Marks::new(&[]))
    }
}

/// Both ends of a broken connection notice after this long.
const RESET_AFTER: Micros = Micros(500);

impl Inner {
    fn handle(&mut self, event: Event) -> Step {
        if let Event::Control(number) = event {
            return Step::Control(number);
        }
        let Some(host) = self.host_of(&event) else {
            return Step::Done;
        };
        let state = &mut self.hosts[usize::from(host.0)];
        if !state.alive {
            return Step::Done;
        }
        if state.paused {
            state.held.push(event);
            return Step::Done;
        }
        match event {
            Event::Deliver { from, to, message } => self.deliver(from, to, message),
            Event::Reset { at, peer } => {
                self.call(at, |actor, now, fx| actor.connection_lost(now, peer, fx));
            }
            Event::Wake(address) => self.wake(address),
            Event::Deadline(address) => self.wake_waiter(address),
            Event::Timer(id) => {
                if let Some(timer) = self.timers.get_mut(&id) {
                    timer.fired = true;
                    if let Some(waker) = timer.waker.take() {
                        waker.wake();
                    }
                }
            }
            Event::Control(_) => unreachable!("handled above"),
        }
        Step::Done
    }

    fn host_of(&self, event: &Event) -> Option<HostId> {
        match event {
            Event::Deliver { to, .. } => Some(self.slot(*to).host),
            Event::Reset { at, .. } => Some(self.slot(*at).host),
            Event::Wake(address) | Event::Deadline(address) => Some(self.slot(*address).host),
            Event::Timer(id) => self.timers.get(id).map(|timer| timer.host),
            Event::Control(_) => None,
        }
    }

    fn slot(&self, address: Address) -> &Slot {
        &self.slots[address.0 as usize]
    }

    fn slot_mut(&mut self, address: Address) -> &mut Slot {
        &mut self.slots[address.0 as usize]
    }

    fn deliver(&mut self, from: Address, to: Address, message: Box<Message>) {
        self.trace
            .delivery(self.now, from.0, to.0, message.fingerprint());
        if self.trace.keeps() {
            let host = &self.hosts[usize::from(self.slots[to.0 as usize].host.0)].name;
            let sender = &self.hosts[usize::from(self.slots[from.0 as usize].host.0)].name;
            self.trace.line(self.now, host, "delivered", || {
                format!("from {sender}: {}", message.describe())
            });
            for (kind, text) in message.contents() {
                self.trace.line(self.now, sender, kind, || text);
            }
        }
        self.call(to, |actor, now, fx| actor.receive(now, from, *message, fx));
    }

    fn wake(&mut self, address: Address) {
        let now = self.now;
        let slot = self.slot_mut(address);
        if slot.wake_at <= now {
            slot.wake_at = Micros::MAX;
        }
        let due = slot
            .actor
            .as_ref()
            .is_some_and(|actor| actor.next_wake() <= now);
        if due {
            self.call(address, |actor, now, fx| actor.wake(now, fx));
        } else {
            self.reschedule(address);
        }
    }

    fn wake_waiter(&mut self, address: Address) {
        if let Some(waker) = self.slot_mut(address).waiter.take() {
            waker.wake();
        }
    }

    /// Calls an actor, carries out its effects and keeps its wake-up scheduled. `None` when it has
    /// been removed.
    fn call<R>(
        &mut self,
        address: Address,
        f: impl FnOnce(&mut dyn Actor, Micros, &mut Effects) -> R,
    ) -> Option<R> {
        let now = self.now;
        let mut actor = self.slot_mut(address).actor.take()?;
        let mut fx = Effects::default();
        let result = f(&mut *actor, now, &mut fx);
        self.slot_mut(address).actor = Some(actor);
        self.carry_out(address, fx);
        self.reschedule(address);
        Some(result)
    }

    fn carry_out(&mut self, address: Address, fx: Effects) {
        let from_host = self.slot(address).host;
        for note in fx.notes {
            self.note(from_host, note.kind, &note.text);
        }
        for (to, message) in fx.messages {
            self.send(from_host, address, to, message);
        }
        if fx.notify {
            self.wake_waiter(address);
        }
    }

    fn note(&mut self, host: HostId, kind: &'static str, text: &str) {
        let name = &self.hosts[usize::from(host.0)].name;
        self.trace.note(self.now, name, kind, text);
        self.marks.line(host, kind, text);
        if self.watches.is_empty() {
            return;
        }
        for watch in self.watches.iter_mut().filter(|watch| watch.kind == kind) {
            watch.left -= 1;
            if watch.left == 0 {
                self.seen_on.insert(watch.number, host);
                let at = self.now.plus(watch.after);
                self.queue.push(at, Event::Control(watch.number));
            }
        }
        self.watches.retain(|watch| watch.left > 0);
    }

    fn send(&mut self, from_host: HostId, from: Address, to: Address, mut message: Message) {
        let to_host = self.slot(to).host;
        self.hosts[usize::from(from_host.0)].sent += 1;
        let label = self.network.label(&message);
        let arrivals = self.network.route(self.now, from_host, to_host, label);
        if arrivals.damaged {
            message.damage();
        }
        if arrivals.reset {
            let soon = self.now.plus(RESET_AFTER);
            self.queue.push(soon, Event::Reset { at: from, peer: to });
            self.queue.push(soon, Event::Reset { at: to, peer: from });
        }
        let message = Box::new(message);
        if let Some(at) = arrivals.second {
            let message = message.clone();
            self.queue.push(at, Event::Deliver { from, to, message });
        }
        if let Some(at) = arrivals.first {
            self.queue.push(at, Event::Deliver { from, to, message });
        }
    }

    fn reschedule(&mut self, address: Address) {
        let soonest = Micros(self.now.0 + 1);
        let slot = self.slot_mut(address);
        let Some(actor) = &slot.actor else { return };
        let wanted = actor.next_wake();
        if wanted < slot.wake_at {
            let at = wanted.max(soonest);
            slot.wake_at = at;
            self.queue.push(at, Event::Wake(address));
        }
    }

    fn crash_host(&mut self, host: HostId, remove_actors: bool) {
        let state = &mut self.hosts[usize::from(host.0)];
        state.alive = false;
        state.paused = false;
        state.held.clear();
        self.timers.retain(|_, timer| timer.host != host);
        for index in 0..self.slots.len() {
            if self.slots[index].host != host {
                continue;
            }
            self.slots[index].waiter = None;
            self.slots[index].wake_at = Micros::MAX;
            if remove_actors {
                self.slots[index].actor = None;
            } else {
                let address = Address(u32::try_from(index).expect("few actors"));
                self.call(address, |actor, now, fx| actor.crash(now, fx));
                self.slots[index].wake_at = Micros::MAX;
            }
        }
    }

    fn restart_host(&mut self, host: HostId) {
        self.hosts[usize::from(host.0)].alive = true;
        for index in 0..self.slots.len() {
            if self.slots[index].host == host {
                let address = Address(u32::try_from(index).expect("few actors"));
                self.call(address, |actor, now, fx| actor.restart(now, fx));
            }
        }
    }
}
