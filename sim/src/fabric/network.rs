//! The network: when, whether and how often a message arrives.
//!
//! A link is a direction between two machines. It keeps order, as TCP does, unless trouble lets a
//! message be overtaken or come twice. TCP shows neither to an unbroken connection, so both ends then
//! see a disconnect: the late copy is one that was still under way on the old connection, while its
//! sender repeats the request on a new one. A lost message is only noticed by its sender's timeout.

use super::actor::{HostId, Micros};
use crate::draw::{below, draw_numbered, permille};
use crate::kafka::protocol::Message;
use crate::plan::Api;

/// Number of a fault in its plan.
pub type FaultIndex = usize;

/// Fault parameters that hold for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// Per mille of messages lost.
    pub loss_permille: u32,
    /// Per mille of messages that arrive twice.
    pub duplicate_permille: u32,
    /// Per mille of messages that are overtaken.
    pub reorder_permille: u32,
    /// Highest delay of a duplicate or overtaken message.
    pub delay_ms_max: u64,
    /// Added to every delivery.
    pub extra_latency_ms: u64,
}

/// Trouble of one kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageTrouble {
    /// Requests of this kind,
    pub api: Api,
    /// or the answers to them.
    pub answers: bool,
    /// Per mille of them lost.
    pub loss_permille: u32,
    /// Per mille of them held, while their connection breaks.
    pub hold_permille: u32,
    /// For at most so long.
    pub hold_ms_max: u64,
    /// Added to every delivery.
    pub extra_latency_ms: u64,
}

/// What changes the fate of messages for a while. Machines are bit masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Everything from any machine of the first set to any of the second is lost.
    Cut(u64, u64),
    /// All links are bad.
    Trouble(Trouble),
    /// One kind of message is in trouble.
    Messages(MessageTrouble),
    /// These machines send late (heartbeats to the controller come in time).
    Slow(u64, u64),
    /// These machines' requests are taken at a pace: milliseconds from one to the next.
    Pace(u64, u64),
    /// Records that these machines send are damaged, per mille of messages that hold some.
    Damage(u64, u32),
}

/// What the network sees of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Label {
    /// What it asks, or answers.
    pub api: Option<Api>,
    /// It is an answer.
    pub is_answer: bool,
    /// It holds records.
    pub has_records: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Link {
    sent: u64,
    last_arrival: Micros,
}

/// What becomes of one message: when each copy of it arrives.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// Lost, if `None`.
    pub first: Option<Micros>,
    /// The second copy of a duplicated message.
    pub second: Option<Micros>,
    /// The connection broke: both ends are told.
    pub reset: bool,
    /// Its records are not what they were.
    pub damaged: bool,
}

/// What the rules make of one message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Fate {
    lost: bool,
    latency_us: u64,
    overtaken_us: u64,
    second_after_us: Option<u64>,
    not_before_us: u64,
    damaged: bool,
}

fn among(machines: u64, host: HostId) -> bool {
    machines & (1 << host.0) != 0
}

/// State of all links.
#[derive(Debug)]
pub struct Network {
    seed: u64,
    hosts: usize,
    links: Vec<Link>,
    rules: Vec<(FaultIndex, Rule)>,
    hits: Vec<u64>,
}

const LATENCY_US_MIN: u64 = 200;
const LATENCY_US_SPAN: u64 = 600;
/// One message in so many is slow.
const SLOW_ONE_IN: u64 = 128;
const SLOW_US_MAX: u64 = 8_000;
/// Between actors of one machine.
const LOCAL_US: u64 = 20;

impl Network {
    /// A healthy network among `hosts` machines (at most 64), for a plan of `faults` faults.
    #[must_use]
    pub fn new(seed: u64, hosts: usize, faults: usize) -> Network {
        assert!(hosts <= 64, "a cut names its machines in a mask of 64 bits");
        Network {
            seed,
            hosts,
            links: vec![Link::default(); hosts * hosts],
            rules: Vec::new(),
            hits: vec![0; faults],
        }
    }

    /// Begins what a fault does.
    pub fn begin(&mut self, fault: FaultIndex, rule: Rule) {
        self.rules.push((fault, rule));
    }

    /// Ends what `fault` began.
    pub fn heal(&mut self, fault: FaultIndex) {
        self.rules.retain(|(of, _)| *of != fault);
    }

    /// What the rules need to know of a message.
    #[must_use]
    pub fn label(&self, message: &Message) -> Label {
        if self.rules.is_empty() {
            Label::default()
        } else {
            message.label()
        }
    }

    /// How many messages each fault has touched.
    #[must_use]
    pub fn hits(&self) -> &[u64] {
        &self.hits
    }

    /// Decides the fate of a message that is sent now.
    pub fn route(&mut self, now: Micros, from: HostId, to: HostId, label: Label) -> Arrivals {
        let index = usize::from(from.0) * self.hosts + usize::from(to.0);
        let link = &mut self.links[index];
        link.sent += 1;
        if from == to {
            let at = Micros((now.0 + LOCAL_US).max(link.last_arrival.0 + 1));
            link.last_arrival = at;
            return Arrivals {
                first: Some(at),
                ..Arrivals::default()
            };
        }
        let (seed, sequence) = (self.seed, link.sent);
        let choose = |what: u64| draw_numbered(seed, index as u64, what, sequence);
        let bits = choose(0);
        let mut latency_us = LATENCY_US_MIN + below(bits, LATENCY_US_SPAN);
        if bits % SLOW_ONE_IN == 0 {
            latency_us += below(choose(1), SLOW_US_MAX);
        }
        let mut fate = Fate::default();
        let soonest = link.last_arrival;
        for (fault, rule) in &self.rules {
            let before = fate;
            match rule {
                Rule::Cut(a, b) => fate.lost |= among(*a, from) && among(*b, to),
                Rule::Messages(of) => {
                    if label.api == Some(of.api) && label.is_answer == of.answers {
                        fate.lost |= permille(choose(7), of.loss_permille);
                        fate.latency_us += of.extra_latency_ms * 1_000;
                        if permille(choose(8), of.hold_permille) {
                            fate.overtaken_us += 1 + below(choose(9), of.hold_ms_max * 1_000);
                        }
                    }
                }
                Rule::Trouble(trouble) => {
                    fate.lost |= permille(choose(2), trouble.loss_permille);
                    latency_us += trouble.extra_latency_ms * 1_000;
                    let delay_us = trouble.delay_ms_max * 1_000;
                    if permille(choose(3), trouble.duplicate_permille) {
                        fate.second_after_us = Some(below(choose(4), delay_us));
                    }
                    if permille(choose(5), trouble.reorder_permille) {
                        fate.overtaken_us += below(choose(6), delay_us);
                    }
                }
                Rule::Slow(machines, ms) => {
                    if among(*machines, from) && label.api != Some(Api::BrokerHeartbeat) {
                        fate.latency_us += ms * 1_000;
                    }
                }
                Rule::Pace(machines, ms) => {
                    if among(*machines, from) && !label.is_answer {
                        fate.not_before_us = fate.not_before_us.max(soonest.0 + ms * 1_000);
                    }
                }
                Rule::Damage(machines, of_1000) => {
                    fate.damaged |= among(*machines, from)
                        && label.has_records
                        && permille(choose(10), *of_1000);
                }
            }
            if fate != before {
                self.hits[*fault] += 1;
            }
            if fate.lost {
                return Arrivals::default();
            }
        }
        latency_us += fate.latency_us;
        let in_order = Micros(
            (now.0 + latency_us)
                .max(soonest.0 + 1)
                .max(fate.not_before_us),
        );
        let first = if fate.overtaken_us > 0 {
            Micros(in_order.0 + fate.overtaken_us)
        } else {
            self.links[index].last_arrival = in_order;
            in_order
        };
        Arrivals {
            first: Some(first),
            second: fate.second_after_us.map(|us| Micros(first.0 + us + 1)),
            reset: fate.overtaken_us > 0 || fate.second_after_us.is_some(),
            damaged: fate.damaged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: HostId = HostId(0);
    const B: HostId = HostId(1);
    const ANY: Label = Label {
        api: None,
        is_answer: false,
        has_records: false,
    };

    #[test]
    fn a_held_answer_comes_late_over_a_broken_connection_and_requests_do_not() {
        let mut network = Network::new(7, 2, 1);
        let held = MessageTrouble {
            api: Api::EndTxn,
            answers: true,
            loss_permille: 0,
            hold_permille: 1_000,
            hold_ms_max: 20_000,
            extra_latency_ms: 0,
        };
        network.begin(0, Rule::Messages(held));
        let end_txn = Label {
            api: Some(Api::EndTxn),
            ..ANY
        };
        assert!(!network.route(Micros(0), A, B, end_txn).reset);
        let answer = Label {
            is_answer: true,
            ..end_txn
        };
        let late = network.route(Micros(0), A, B, answer);
        assert!(late.reset && late.first.is_some());
        let next = network.route(Micros(0), A, B, ANY).first;
        assert!(next < late.first, "what comes after it overtakes it");
        assert_eq!(network.hits(), [1]);
    }

    #[test]
    fn a_pace_holds_requests_apart_and_slowness_keeps_order() {
        let mut network = Network::new(7, 2, 2);
        network.begin(0, Rule::Pace(1, 100));
        network.begin(1, Rule::Slow(2, 50));
        let mut last = Micros(0);
        for _ in 0..50 {
            let at = network.route(Micros(0), A, B, ANY).first.expect("arrives");
            assert!(at.0 >= last.0 + 100_000);
            last = at;
        }
        let answered = network.route(Micros(0), B, A, ANY).first;
        assert!(answered >= Some(Micros(50_000)));
    }

    #[test]
    fn a_healthy_link_keeps_order_and_loses_nothing() {
        let mut network = Network::new(7, 2, 0);
        let mut last = Micros(0);
        for i in 0..10_000 {
            let arrivals = network.route(Micros(i * 3), A, B, ANY);
            let first = arrivals.first.expect("nothing is lost");
            assert!(first > last && arrivals.second.is_none());
            last = first;
        }
    }

    #[test]
    fn a_one_way_cut_loses_one_direction_until_it_heals() {
        let mut network = Network::new(7, 2, 1);
        network.begin(0, Rule::Cut(1, 2));
        assert_eq!(network.route(Micros(0), A, B, ANY).first, None);
        assert!(network.route(Micros(0), B, A, ANY).first.is_some());
        assert_eq!(network.hits(), [1]);
        network.heal(0);
        assert!(network.route(Micros(0), A, B, ANY).first.is_some());
    }

    #[test]
    fn trouble_loses_repeats_and_reorders_about_as_often_as_it_says() {
        let mut network = Network::new(7, 2, 1);
        let trouble = Trouble {
            loss_permille: 100,
            duplicate_permille: 100,
            reorder_permille: 100,
            delay_ms_max: 500,
            extra_latency_ms: 0,
        };
        network.begin(0, Rule::Trouble(trouble));
        let (mut lost, mut twice, mut overtaken, mut last) = (0, 0, 0, Micros(0));
        for i in 0..10_000 {
            let arrivals = network.route(Micros(i * 1_000), A, B, ANY);
            lost += i32::from(arrivals.first.is_none());
            twice += i32::from(arrivals.second.is_some());
            if let Some(at) = arrivals.first {
                overtaken += i32::from(at < last);
                last = at;
            }
        }
        for count in [lost, twice] {
            assert!((800..1_200).contains(&count), "{count}");
        }
        assert!(overtaken > 500, "{overtaken}");
    }
}
