//! What is done to the processors and to their cluster: the kinds, and the choices of a round.
//!
//! Comes in: a seed and a round's number. Goes out: a [`Decision`] that depends on nothing else.
//! Never here: its effect.

use super::draw::Draw;
use std::fmt;
use std::time::Duration;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL to a processor; it is started again.
    ProcessorKill,
    /// SIGKILL to a processor, and again while it recovers.
    ProcessorKillTwice,
    /// SIGSTOP to a processor for less than its session.
    ProcessorPause,
    /// SIGSTOP to a processor until the group has given its partitions away, then SIGCONT.
    ProcessorPausePastSession,
    /// SIGTERM to a processor, which must end with status 0; it is started again.
    ProcessorRestart,
    /// A third processor joins, and leaves by SIGTERM or SIGKILL.
    ProcessorJoin,
    /// SIGKILL to a broker; it is started again.
    BrokerKill,
    /// SIGSTOP to a broker for less than its session.
    BrokerPause,
    /// SIGSTOP to a broker until its partitions have other leaders, then SIGCONT.
    BrokerPausePastSession,
    /// SIGTERM to a broker; it is started again.
    BrokerRestart,
    /// SIGKILL to a broker, and to a processor while the broker is away.
    BrokerAndProcessorKill,
    /// An `EndTxn` arrives late.
    EndTxnDelay,
    /// An `EndTxn` arrives after its client has given up waiting.
    EndTxnDelayPastTimeout,
    /// An `EndTxn` arrives on another connection when the next transaction has begun.
    EndTxnWithheld,
    /// The answer to an `EndTxn` is lost.
    EndTxnAnswerLost,
    /// The answer to an `EndTxn` is lost, and the `EndTxn` arrives once more in the next transaction.
    EndTxnDuplicate,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 16] = [
        Kind::ProcessorKill,
        Kind::ProcessorKillTwice,
        Kind::ProcessorPause,
        Kind::ProcessorPausePastSession,
        Kind::ProcessorRestart,
        Kind::ProcessorJoin,
        Kind::BrokerKill,
        Kind::BrokerPause,
        Kind::BrokerPausePastSession,
        Kind::BrokerRestart,
        Kind::BrokerAndProcessorKill,
        Kind::EndTxnDelay,
        Kind::EndTxnDelayPastTimeout,
        Kind::EndTxnWithheld,
        Kind::EndTxnAnswerLost,
        Kind::EndTxnDuplicate,
    ];

    /// Its name in tables and options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::ProcessorKill => "processor-kill",
            Kind::ProcessorKillTwice => "processor-kill-twice",
            Kind::ProcessorPause => "processor-pause",
            Kind::ProcessorPausePastSession => "processor-pause-past-session",
            Kind::ProcessorRestart => "processor-restart",
            Kind::ProcessorJoin => "processor-join",
            Kind::BrokerKill => "broker-kill",
            Kind::BrokerPause => "broker-pause",
            Kind::BrokerPausePastSession => "broker-pause-past-session",
            Kind::BrokerRestart => "broker-restart",
            Kind::BrokerAndProcessorKill => "broker-and-processor-kill",
            Kind::EndTxnDelay => "end-txn-delay",
            Kind::EndTxnDelayPastTimeout => "end-txn-delay-past-timeout",
            Kind::EndTxnWithheld => "end-txn-withheld",
            Kind::EndTxnAnswerLost => "end-txn-answer-lost",
            Kind::EndTxnDuplicate => "end-txn-duplicate",
        }
    }

    /// When a round of this kind counts as a hit.
    #[must_use]
    pub fn means(self) -> &'static str {
        match self {
            Kind::ProcessorKill | Kind::ProcessorKillTwice => {
                "killed at work; then partitions were recovered"
            }
            Kind::ProcessorPause => "stopped, and the same process committed again",
            Kind::ProcessorPausePastSession => {
                "stopped, and another processor took partitions over"
            }
            Kind::ProcessorRestart => "ended with status 0; then partitions were recovered",
            Kind::ProcessorJoin => "the third processor recovered partitions",
            Kind::BrokerKill | Kind::BrokerRestart => "it led partitions when it ended",
            Kind::BrokerPause => "stopped while it led partitions",
            Kind::BrokerPausePastSession => "it led partitions, and others took over",
            Kind::BrokerAndProcessorKill => "both killed at work; then partitions were recovered",
            Kind::EndTxnDelay => "the proxy held a request back",
            Kind::EndTxnDelayPastTimeout => {
                "the proxy held a request back past the client's timeout"
            }
            Kind::EndTxnWithheld | Kind::EndTxnDuplicate => {
                "a stray copy reached a broker in the next transaction"
            }
            Kind::EndTxnAnswerLost => "the broker answered, and the client did not hear it",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let mut all = Kind::ALL.into_iter();
        all.find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            format!("it must be one of {}", names.join(", "))
        })
    }
}

/// The sessions and timeouts that faults have to stay below, or to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Session timeout of the processors' group, ms.
    pub group_session_ms: u64,
    /// Transaction timeout of the processors, ms.
    pub transaction_ms: u64,
    /// Session timeout of the brokers, ms.
    pub broker_session_ms: u64,
}

/// The choices of one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The round's number, from 0.
    pub round: u64,
    /// What is done.
    pub kind: Kind,
    /// To which processor, if to one: 0 or 1.
    pub processor: u32,
    /// To which broker, if to one: from 1.
    pub broker: u32,
    /// How long the round goes without a fault.
    pub wait: Duration,
    /// True: the fault waits for an open transaction of that processor.
    pub in_transaction: bool,
    /// How long it lasts, or the request is delayed.
    pub hold: Duration,
    /// From one fault to the second one, where there are two.
    pub pause: Duration,
    /// How many `EndTxn` are hit.
    pub count: u64,
    /// The third processor ends by SIGKILL instead of SIGTERM.
    pub is_rough: bool,
}

impl Decision {
    /// The choices of that round. Every kind comes once in as many rounds as there are kinds.
    #[must_use]
    pub fn of(draw: Draw, round: u64, brokers: u32, limits: Limits) -> Decision {
        let kinds = Kind::ALL.len() as u64;
        let deck = draw.shuffled(&Kind::ALL, "deck", round / kinds);
        let kind = deck[usize::try_from(round % kinds).unwrap_or(0)];
        Decision::of_kind(draw, round, kind, brokers, limits)
    }

    /// The choices of that round, if it is one of that kind.
    #[must_use]
    pub fn of_kind(draw: Draw, round: u64, kind: Kind, brokers: u32, limits: Limits) -> Decision {
        let below = |limit: u64, what| u32::try_from(draw.within(0..limit, what, round));
        let millis = |range, what| Duration::from_millis(draw.within(range, what, round));
        Decision {
            round,
            kind,
            processor: below(2, "processor").unwrap_or(0),
            broker: 1 + below(u64::from(brokers), "broker").unwrap_or(0),
            wait: millis(200..1_500, "wait"),
            in_transaction: draw.percent(60, "in transaction", round),
            hold: millis(hold_ms(kind, limits), "hold"),
            pause: millis(100..2_500, "pause"),
            count: draw.within(1..4, "count", round),
            is_rough: draw.percent(50, "rough", round),
        }
    }
}

/// How long a fault of that kind may last, ms.
fn hold_ms(kind: Kind, limits: Limits) -> std::ops::Range<u64> {
    match kind {
        Kind::ProcessorKill | Kind::ProcessorKillTwice => 0..2_000,
        Kind::ProcessorRestart => 0..500,
        Kind::ProcessorPause => 200..limits.group_session_ms * 2 / 3,
        // Some of them past the transaction's timeout, too.
        Kind::ProcessorPausePastSession => {
            let session = limits.group_session_ms + 1_000;
            session..session.max(limits.transaction_ms) + 1_500
        }
        Kind::ProcessorJoin => 500..2_500,
        Kind::BrokerKill | Kind::BrokerAndProcessorKill => 200..3_000,
        Kind::BrokerRestart => 0..500,
        Kind::BrokerPause => 200..limits.broker_session_ms * 2 / 3,
        Kind::BrokerPausePastSession => {
            limits.broker_session_ms + 500..limits.broker_session_ms + 2_500
        }
        Kind::EndTxnDelay => 50..limits.transaction_ms / 2,
        Kind::EndTxnDelayPastTimeout => limits.transaction_ms..limits.transaction_ms + 1_500,
        Kind::EndTxnWithheld | Kind::EndTxnAnswerLost | Kind::EndTxnDuplicate => 0..1,
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_millis();
        write!(f, "{} after {} ms", self.kind.name(), ms(self.wait))?;
        let name = self.kind.name();
        if name.contains("processor-") && self.kind != Kind::ProcessorJoin {
            write!(f, ", processor {}", self.processor)?;
            if self.in_transaction {
                write!(f, " in a transaction")?;
            }
        }
        if name.contains("broker-") {
            write!(f, ", broker {}", self.broker)?;
        }
        match self.kind {
            Kind::EndTxnWithheld | Kind::EndTxnAnswerLost | Kind::EndTxnDuplicate => {
                write!(f, ", {} times", self.count)
            }
            Kind::EndTxnDelay | Kind::EndTxnDelayPastTimeout => {
                write!(f, ", by {} ms", ms(self.hold))
            }
            Kind::ProcessorJoin => {
                let how = if self.is_rough { "SIGKILL" } else { "SIGTERM" };
                write!(f, ", for {} ms, then {how}", ms(self.hold))
            }
            Kind::ProcessorKillTwice | Kind::BrokerAndProcessorKill => {
                let (hold, pause) = (ms(self.hold), ms(self.pause));
                write!(f, ", for {hold} ms, second after {pause} ms")
            }
            _ => write!(f, ", for {} ms", ms(self.hold)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const LIMITS: Limits = Limits {
        group_session_ms: 3_000,
        transaction_ms: 5_000,
        broker_session_ms: 4_000,
    };

    #[test]
    fn every_kind_comes_once_in_as_many_rounds_as_there_are_kinds() {
        let kinds = Kind::ALL.len() as u64;
        for deck in 0..5 {
            let rounds = deck * kinds..(deck + 1) * kinds;
            let seen: BTreeSet<Kind> = rounds
                .map(|round| Decision::of(Draw::new(3), round, 3, LIMITS).kind)
                .collect();
            assert_eq!(seen.len(), Kind::ALL.len());
        }
    }

    #[test]
    fn a_round_is_decided_without_the_rounds_before_it() {
        let one = Decision::of(Draw::new(3), 17, 3, LIMITS);
        assert_eq!(one, Decision::of(Draw::new(3), 17, 3, LIMITS));
        let same = Decision::of_kind(Draw::new(3), 17, one.kind, 3, LIMITS);
        assert_eq!(one, same);
    }

    #[test]
    fn pauses_stay_on_their_side_of_the_session() {
        for round in 0..200 {
            let hold = |kind| Decision::of_kind(Draw::new(1), round, kind, 3, LIMITS).hold;
            let session = Duration::from_millis(LIMITS.group_session_ms);
            assert!(hold(Kind::ProcessorPause) < session);
            assert!(hold(Kind::ProcessorPausePastSession) > session);
            let session = Duration::from_millis(LIMITS.broker_session_ms);
            assert!(hold(Kind::BrokerPause) < session);
            assert!(hold(Kind::BrokerPausePastSession) > session);
        }
    }

    #[test]
    fn kinds_are_found_by_their_names() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            let decision = Decision::of_kind(Draw::new(1), 0, kind, 3, LIMITS);
            assert!(decision.to_string().starts_with(kind.name()));
        }
        assert!("fire".parse::<Kind>().unwrap_err().contains("broker-kill"));
    }
}
