//! The network: when, whether and how often a message arrives.
//!
//! A link is a direction between two machines. It keeps order, as TCP does, unless trouble lets a
//! message be overtaken or come twice. TCP shows neither to an unbroken connection, so both ends then
//! see a disconnect: the late copy is one that was still under way on the old connection, while its
//! sender repeats the request on a new one. A lost message is only noticed by its sender's timeout.

use super::actor::{HostId, Micros};
use crate::draw::{below, draw_numbered, permille};

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

#[derive(Debug)]
enum Rule {
    /// From any machine of the first set to any of the second (bit masks).
    Cut(u64, u64),
    Trouble(Trouble),
    EndTxnAnswersLost,
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

    /// Begins to lose everything from `from` to `to` (bit masks of machines).
    pub fn cut(&mut self, fault: FaultIndex, from: u64, to: u64) {
        self.rules.push((fault, Rule::Cut(from, to)));
    }

    /// Begins trouble on all links.
    pub fn trouble(&mut self, fault: FaultIndex, trouble: Trouble) {
        self.rules.push((fault, Rule::Trouble(trouble)));
    }

    /// Begins to lose answers to EndTxn.
    pub fn lose_end_txn_answers(&mut self, fault: FaultIndex) {
        self.rules.push((fault, Rule::EndTxnAnswersLost));
    }

    /// Ends what `fault` began.
    pub fn heal(&mut self, fault: FaultIndex) {
        self.rules.retain(|(of, _)| *of != fault);
    }

    /// How many messages each fault has touched.
    #[must_use]
    pub fn hits(&self) -> &[u64] {
        &self.hits
    }

    /// Decides the fate of a message that is sent now.
    pub fn route(
        &mut self,
        now: Micros,
        from: HostId,
        to: HostId,
        end_txn_answer: bool,
    ) -> Arrivals {
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
        let mut overtaken_us = 0;
        let mut second_after_us = None;
        for (fault, rule) in &self.rules {
            match rule {
                Rule::Cut(a, b) => {
                    if a & (1 << from.0) != 0 && b & (1 << to.0) != 0 {
                        self.hits[*fault] += 1;
                        return Arrivals::default();
                    }
                }
                Rule::EndTxnAnswersLost => {
                    if end_txn_answer {
                        self.hits[*fault] += 1;
                        return Arrivals::default();
                    }
                }
                Rule::Trouble(trouble) => {
                    if permille(choose(2), trouble.loss_permille) {
                        self.hits[*fault] += 1;
                        return Arrivals::default();
                    }
                    latency_us += trouble.extra_latency_ms * 1_000;
                    let delay_us = trouble.delay_ms_max * 1_000;
                    if permille(choose(3), trouble.duplicate_permille) {
                        self.hits[*fault] += 1;
                        second_after_us = Some(below(choose(4), delay_us));
                    }
                    if permille(choose(5), trouble.reorder_permille) {
                        self.hits[*fault] += 1;
                        overtaken_us += below(choose(6), delay_us);
                    }
                }
            }
        }
        let in_order = Micros((now.0 + latency_us).max(link.last_arrival.0 + 1));
        let first = if overtaken_us > 0 {
            Micros(in_order.0 + overtaken_us)
        } else {
            link.last_arrival = in_order;
            in_order
        };
        Arrivals {
            first: Some(first),
            second: second_after_us.map(|us| Micros(first.0 + us + 1)),
            reset: overtaken_us > 0 || second_after_us.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: HostId = HostId(0);
    const B: HostId = HostId(1);

    #[test]
    fn a_healthy_link_keeps_order_and_loses_nothing() {
        let mut network = Network::new(7, 2, 0);
        let mut last = Micros(0);
        for i in 0..10_000 {
            let arrivals = network.route(Micros(i * 3), A, B, false);
            let first = arrivals.first.expect("nothing is lost");
            assert!(first > last && arrivals.second.is_none());
            last = first;
        }
    }

    #[test]
    fn a_one_way_cut_loses_one_direction_until_it_heals() {
        let mut network = Network::new(7, 2, 1);
        network.cut(0, 1, 2);
        assert_eq!(network.route(Micros(0), A, B, false).first, None);
        assert!(network.route(Micros(0), B, A, false).first.is_some());
        assert_eq!(network.hits(), [1]);
        network.heal(0);
        assert!(network.route(Micros(0), A, B, false).first.is_some());
    }

    #[test]
    fn trouble_loses_repeats_and_reorders_about_as_often_as_it_says() {
        let mut network = Network::new(7, 2, 1);
        network.trouble(
            0,
            Trouble {
                loss_permille: 100,
                duplicate_permille: 100,
                reorder_permille: 100,
                delay_ms_max: 500,
                extra_latency_ms: 0,
            },
        );
        let (mut lost, mut twice, mut overtaken, mut last) = (0, 0, 0, Micros(0));
        for i in 0..10_000 {
            let arrivals = network.route(Micros(i * 1_000), A, B, false);
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
