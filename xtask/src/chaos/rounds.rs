//! Playing one round: a fault is carried out, everything is made whole again, and the processors must
//! recover.
//!
//! Comes in: a [`Decision`]. Goes out: a [`Played`]: whether the fault really hit, and what it caused.
//! Never here: choices.

use super::batch::{Batch, GUEST};
use super::fault::{Decision, Kind};
use super::logs::Line;
use super::proxy::Order;
use super::stage::{Stage, led_by};
use crate::process::wait_until;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

/// How long a fault waits for an open transaction: the processor may have nothing to commit.
const AIM_LIMIT: Duration = Duration::from_secs(3);
/// How long an order waits for its `EndTxn`.
const ORDER_LIMIT: Duration = Duration::from_secs(20);
/// How long a processor is given to take partitions over.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(20);

/// How long the controller is given to take a paused broker's leaderships away.
const FENCE_LIMIT: Duration = Duration::from_secs(30);

const READY: &str = "the partition is ready";
const COMMITTED: &str = "committed";

/// What is counted in the processors' logs: a message, and its name in the table.
pub const EVENTS: [(&str, &str); 10] = [
    (READY, "partitions recovered"),
    ("replaying", "replays"),
    (
        "partitions were lost: nothing of them is committed any more",
        "rebalances that lost partitions",
    ),
    (
        "the transaction was aborted; its outputs are sent again",
        "transactions aborted",
    ),
    (
        "the outcome of a transaction was unknown and is known now",
        "unknown outcomes resolved",
    ),
    ("there is a new producer", "producers replaced"),
    (
        "what is committed is not what this worker knows: recovering again",
        "partitions recovered again",
    ),
    ("the restore has to wait", "restores that waited"),
    (
        "the partition is idle: its watermark follows the clock",
        "watermarks advanced by the clock",
    ),
    ("the worker has failed", "workers that failed"),
];

/// How a round went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    /// What was to be done.
    pub decision: Decision,
    /// True: it had the effect that [`Kind::means`] tells.
    pub is_hit: bool,
    /// True: a processor was hurt with its transaction open.
    pub was_open: bool,
    /// From the end of the fault until all that was there then was committed.
    pub recovery: Duration,
    /// How often each of [`EVENTS`] was logged.
    pub events: BTreeMap<&'static str, u64>,
}

/// What the fault itself tells.
#[derive(Debug, Clone, Copy, Default)]
struct Hurt {
    /// It was carried out as it should be.
    is_done: bool,
    was_open: bool,
}

/// Plays it, and leaves everything whole.
///
/// # Errors
/// When a fault cannot be carried out, or something does not recover, or ends as it must not.
pub fn play(stage: &mut Stage, batch: &mut Batch, decision: Decision) -> anyhow::Result<Played> {
    let mut events = tally(&batch.logs.new_lines()?);
    sleep(decision.wait);
    add(&mut events, &tally(&batch.logs.new_lines()?));
    let mut round = Round {
        stage,
        batch,
        decision,
        lines: Vec::new(),
    };
    let hurt = round.hurt()?;
    let mut lines = round.lines;
    let recovery = batch.recover(stage)?;
    lines.extend(batch.logs.new_lines()?);
    add(&mut events, &tally(&lines));
    Ok(Played {
        decision,
        is_hit: hurt.is_done && shows(decision, &lines),
        was_open: hurt.was_open,
        recovery,
        events,
    })
}

/// Counts [`EVENTS`] in lines of logs.
#[must_use]
pub fn tally(lines: &[Line]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for line in lines {
        if let Some((_, name)) = EVENTS.iter().find(|(message, _)| *message == line.message) {
            *counts.entry(*name).or_default() += 1;
        }
    }
    counts
}

/// Adds counts to counts.
pub fn add<K: Ord + Copy>(to: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    for (key, count) in more {
        *to.entry(*key).or_default() += count;
    }
}

/// True when the logs since the fault show its effect, where it shows there.
fn shows(decision: Decision, lines: &[Line]) -> bool {
    let victim = decision.processor;
    let says = |message: &str, by: &dyn Fn(u32) -> bool| {
        lines
            .iter()
            .any(|line| line.message == message && by(line.ordinal))
    };
    match decision.kind {
        Kind::ProcessorKill
        | Kind::ProcessorKillTwice
        | Kind::ProcessorRestart
        | Kind::BrokerAndProcessorKill => says(READY, &|_| true),
        Kind::ProcessorPause => says(COMMITTED, &|ordinal| ordinal == victim),
        Kind::ProcessorPausePastSession => says(READY, &|ordinal| ordinal != victim),
        Kind::ProcessorJoin => says(READY, &|ordinal| ordinal == GUEST),
        _ => true,
    }
}

/// A round that is being played.
struct Round<'a> {
    stage: &'a mut Stage,
    batch: &'a mut Batch,
    decision: Decision,
    /// What was logged since the fault began.
    lines: Vec<Line>,
}

impl Round<'_> {
    fn hurt(&mut self) -> anyhow::Result<Hurt> {
        match self.decision.kind {
            Kind::ProcessorKill => self.kill_processor(),
            Kind::ProcessorKillTwice => self.kill_processor_twice(),
            Kind::ProcessorPause | Kind::ProcessorPausePastSession => self.pause_processor(),
            Kind::ProcessorRestart => self.restart_processor(),
            Kind::ProcessorJoin => self.join_processor(),
            Kind::BrokerKill | Kind::BrokerRestart => self.down_broker(),
            Kind::BrokerAndProcessorKill => self.kill_broker_and_processor(),
            Kind::BrokerPause | Kind::BrokerPausePastSession => self.pause_broker(),
            Kind::EndTxnDelay => self.disturb(Order::Delay(self.decision.hold), 1),
            Kind::EndTxnDelayPastTimeout => self.disturb(Order::Delay(self.decision.hold), 1),
            Kind::EndTxnWithheld => self.disturb(Order::Withhold, self.decision.count),
            Kind::EndTxnAnswerLost => self.disturb(Order::LoseAnswer, self.decision.count),
            Kind::EndTxnDuplicate => self.disturb(Order::Duplicate, self.decision.count),
        }
    }

    /// Waits for the moment; true when the victim's transaction is open then.
    fn aim(&mut self) -> anyhow::Result<bool> {
        let id = self.batch.transactional_id(self.decision.processor);
        let proxy = &self.stage.proxy;
        if self.decision.in_transaction {
            let (before, _) = proxy.transactions(&id);
            let begins = || {
                let (begun, is_open) = proxy.transactions(&id);
                is_open && begun > before
            };
            spin_until(AIM_LIMIT, begins);
        }
        self.batch.supervise()?;
        Ok(proxy.transactions(&id).1)
    }

    fn kill_processor(&mut self) -> anyhow::Result<Hurt> {
        let victim = self.decision.processor;
        let was_open = self.aim()?;
        let is_done = self.batch.fleet.kill(victim)?;
        sleep(self.decision.hold);
        self.batch.fleet.start(victim)?;
        Ok(Hurt { is_done, was_open })
    }

    fn kill_processor_twice(&mut self) -> anyhow::Result<Hurt> {
        let first = self.kill_processor()?;
        sleep(self.decision.pause);
        self.batch.supervise()?;
        let victim = self.decision.processor;
        let is_done = self.batch.fleet.kill(victim)?;
        self.batch.fleet.start(victim)?;
        Ok(Hurt {
            is_done: is_done && first.is_done,
            ..first
        })
    }

    fn pause_processor(&mut self) -> anyhow::Result<Hurt> {
        let victim = self.decision.processor;
        let was_open = self.aim()?;
        self.batch.fleet.pause(victim)?;
        sleep(self.decision.hold);
        if self.decision.kind == Kind::ProcessorPausePastSession {
            self.wait_for_ready(&|ordinal| ordinal != victim)?;
        }
        self.batch.fleet.signal(victim, Signal::CONT)?;
        let is_done = true;
        Ok(Hurt { is_done, was_open })
    }

    fn restart_processor(&mut self) -> anyhow::Result<Hurt> {
        let victim = self.decision.processor;
        let was_open = self.aim()?;
        let is_done = self.batch.fleet.stop(victim)?;
        sleep(self.decision.hold);
        self.batch.fleet.start(victim)?;
        Ok(Hurt { is_done, was_open })
    }

    fn join_processor(&mut self) -> anyhow::Result<Hurt> {
        self.batch.fleet.start(GUEST)?;
        self.wait_for_ready(&|ordinal| ordinal == GUEST)?;
        sleep(self.decision.hold);
        self.batch.supervise()?;
        let id = self.batch.transactional_id(GUEST);
        let (_, was_open) = self.stage.proxy.transactions(&id);
        let is_done = if self.decision.is_rough {
            self.batch.fleet.kill(GUEST)?
        } else {
            self.batch.fleet.stop(GUEST)?
        };
        Ok(Hurt { is_done, was_open })
    }

    /// Waits until one of these processors has recovered a partition since the fault began. It may have
    /// got none: that is no error.
    fn wait_for_ready(&mut self, by: &dyn Fn(u32) -> bool) -> anyhow::Result<()> {
        wait_until(TAKEOVER_LIMIT, || {
            self.batch.supervise()?;
            self.lines.extend(self.batch.logs.new_lines()?);
            let mut lines = self.lines.iter();
            Ok(lines.any(|line| line.message == READY && by(line.ordinal)))
        })?;
        Ok(())
    }

    fn down_broker(&mut self) -> anyhow::Result<Hurt> {
        let broker = self.decision.broker;
        let led = self.stage.led_by(broker, &self.batch.topics())?;
        if self.decision.kind == Kind::BrokerKill {
            self.stage.cluster.kill(broker)?;
        } else {
            self.stage.cluster.stop(broker)?;
        }
        sleep(self.decision.hold);
        self.stage.cluster.start(broker)?;
        self.make_whole()?;
        Ok(Hurt {
            is_done: led > 0,
            was_open: false,
        })
    }

    fn make_whole(&mut self) -> anyhow::Result<()> {
        self.stage.wait_whole(&self.batch.topics())
    }

    fn pause_broker(&mut self) -> anyhow::Result<Hurt> {
        let broker = self.decision.broker;
        let led = self.stage.led_by(broker, &self.batch.topics())?;
        let must_move = self.decision.kind == Kind::BrokerPausePastSession;
        self.stage.cluster.pause(broker)?;
        sleep(self.decision.hold);
        let has_moved = must_move && self.wait_for_new_leaders(led)?;
        self.stage.cluster.resume(broker)?;
        self.make_whole()?;
        Ok(Hurt {
            is_done: led > 0 && has_moved == must_move,
            was_open: false,
        })
    }

    /// A broker's session begins anew when another controller takes over, so it may last longer.
    fn wait_for_new_leaders(&mut self, led: usize) -> anyhow::Result<bool> {
        let broker = self.decision.broker;
        let others = self.stage.view.without(broker);
        wait_until(FENCE_LIMIT, || {
            self.batch.supervise()?;
            let now = led_by(&others, broker, &self.batch.topics());
            Ok(now.is_ok_and(|now| now < led))
        })
    }

    fn kill_broker_and_processor(&mut self) -> anyhow::Result<Hurt> {
        let (broker, victim) = (self.decision.broker, self.decision.processor);
        let led = self.stage.led_by(broker, &self.batch.topics())?;
        let was_open = self.aim()?;
        self.stage.cluster.kill(broker)?;
        sleep(self.decision.pause);
        self.batch.supervise()?;
        let is_killed = self.batch.fleet.kill(victim)?;
        sleep(self.decision.hold);
        self.batch.fleet.start(victim)?;
        self.stage.cluster.start(broker)?;
        self.make_whole()?;
        Ok(Hurt {
            is_done: is_killed && led > 0,
            was_open,
        })
    }

    /// Has the proxy do something to `count` requests, one after the other.
    fn disturb(&mut self, order: Order, count: u64) -> anyhow::Result<Hurt> {
        let before = self.stage.proxy.counts();
        for _ in 0..count {
            self.stage.proxy.order(order);
            wait_until(ORDER_LIMIT, || {
                self.batch.supervise()?;
                let proxy = &self.stage.proxy;
                Ok(proxy.orders_waiting() == 0 && proxy.strays_waiting() == 0)
            })?;
        }
        if let Order::Delay(by) = order {
            sleep(by);
        }
        let after = self.stage.proxy.counts();
        let left = self.stage.proxy.withdraw();
        let is_done = match order {
            Order::Delay(_) => after.delayed > before.delayed,
            Order::LoseAnswer => after.answers_lost > before.answers_lost,
            Order::Withhold | Order::Duplicate => after.strays > before.strays,
        };
        Ok(Hurt {
            is_done: is_done && left == 0,
            was_open: is_done,
        })
    }
}

/// As `wait_until`, but a transaction lasts only milliseconds.
fn spin_until(limit: Duration, mut is_so: impl FnMut() -> bool) {
    let step = Duration::from_micros(200);
    let steps = limit.as_micros() / step.as_micros();
    for _ in 0..steps {
        if is_so() {
            return;
        }
        sleep(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::draw::Draw;
    use crate::chaos::stage::LIMITS;

    fn line(ordinal: u32, message: &str) -> Line {
        Line {
            ordinal,
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_fault_shows_only_in_the_logs_of_those_whom_it_concerns() {
        let decision = |kind| {
            let mut decision = Decision::of_kind(Draw::new(1), 0, kind, 3, LIMITS);
            decision.processor = 1;
            decision
        };
        let shown = |kind, ordinal, message| shows(decision(kind), &[line(ordinal, message)]);
        assert!(shown(Kind::ProcessorPausePastSession, 0, READY));
        assert!(!shown(Kind::ProcessorPausePastSession, 1, READY));
        assert!(shown(Kind::ProcessorPause, 1, COMMITTED));
        assert!(!shown(Kind::ProcessorPause, 0, COMMITTED));
        assert!(shown(Kind::ProcessorJoin, GUEST, READY));
        assert!(!shown(Kind::ProcessorKill, 0, COMMITTED));
    }

    #[test]
    fn events_are_counted_by_their_names() {
        let lines = [line(0, READY), line(1, READY), line(1, "something else")];
        let mut counts = tally(&lines);
        add(&mut counts, &tally(&lines[..1]));
        assert_eq!(counts, BTreeMap::from([("partitions recovered", 3)]));
    }
}
