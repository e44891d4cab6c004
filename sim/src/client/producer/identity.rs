//! Producer id and epoch: getting them, and getting new ones.

use super::{ProducerActor, Tag};
use crate::client::errors::{coordinator_moved, later};
use crate::client::requests::Connection;
use crate::fabric::actor::{Effects, Micros};
use crate::kafka::protocol::{ErrorCode, ProducerEpoch, ProducerId, Request};
use processor::io::ErrorClass;

/// See the module.
#[derive(Debug)]
pub(super) struct Identity {
    state: State,
    /// Brokers asked so far (a plain producer may ask any).
    asked: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not wanted yet.
    None,
    Wanted {
        at: Micros,
    },
    InFlight,
    Have(ProducerId, ProducerEpoch),
    /// There is one, but a new one is wanted when nothing is under way any more.
    Draining,
}

impl Identity {
    pub(super) fn new(wanted: bool) -> Identity {
        let state = if wanted {
            State::Wanted { at: Micros(0) }
        } else {
            State::None
        };
        Identity { state, asked: 0 }
    }

    pub(super) fn get(&self) -> Option<(ProducerId, ProducerEpoch)> {
        match self.state {
            State::Have(id, epoch) => Some((id, epoch)),
            _ => None,
        }
    }

    pub(super) fn due(&self) -> Micros {
        match self.state {
            State::Wanted { at } => at,
            _ => Micros::MAX,
        }
    }

    /// Wants one, if there was none.
    pub(super) fn want(&mut self, now: Micros) {
        if self.state == State::None {
            self.state = State::Wanted { at: now };
        }
    }

    /// Wants a new one when nothing is under way any more.
    pub(super) fn renew(&mut self) -> bool {
        let renews = matches!(self.state, State::Have(..));
        if renews {
            self.state = State::Draining;
        }
        renews
    }
}

impl ProducerActor {
    /// Sends InitProducerId when it is due.
    pub(super) fn obtain_identity(&mut self, now: Micros, fx: &mut Effects) {
        if self.identity.state == State::Draining
            && !self.queues.values().any(super::PartitionQueue::in_flight)
        {
            self.identity.state = State::Wanted { at: now };
        }
        if now < self.identity.due() {
            return;
        }
        let target = if self.is_transactional() {
            let Some(broker) = self.coordinator.broker() else {
                return;
            };
            (broker, Connection::Coordinator)
        } else {
            let broker = self
                .requests
                .bootstrap(self.seed.wrapping_add(self.identity.asked));
            (broker, Connection::Data)
        };
        self.identity.asked += 1;
        self.identity.state = State::InFlight;
        let request = Request::InitProducerId {
            transactional_id: self.transactional_id.clone(),
            transaction_timeout_ms: self.settings.transaction_timeout_ms,
        };
        self.send(now, target, request, Tag::InitProducerId, fx);
    }

    /// Takes the answer to InitProducerId.
    pub(super) fn identity_told(
        &mut self,
        now: Micros,
        result: Result<(ProducerId, ProducerEpoch), ErrorCode>,
        fx: &mut Effects,
    ) {
        match result {
            Ok((id, epoch)) => {
                self.identity.state = State::Have(id, epoch);
                for queue in self.queues.values_mut() {
                    queue.restamp((id, epoch));
                }
                fx.notify();
            }
            Err(code) => {
                let again = coordinator_moved(code) || later(code) || !self.is_transactional();
                if !again {
                    return self.die(code, fx);
                }
                if coordinator_moved(code) {
                    self.coordinator.forget();
                }
                let at = self.backoff(now);
                self.identity.state = State::Wanted { at };
            }
        }
    }

    /// InitProducerId was not answered.
    pub(super) fn identity_unanswered(&mut self, now: Micros) {
        self.coordinator.forget();
        self.identity.state = State::Wanted { at: now };
    }

    /// This instance is unusable from now on.
    pub(super) fn die(&mut self, code: ErrorCode, fx: &mut Effects) {
        let fenced = matches!(
            code,
            ErrorCode::InvalidProducerEpoch | ErrorCode::ProducerFenced
        );
        let class = if fenced {
            fx.note("producer-fenced-seen", code.name());
            ErrorClass::Fenced
        } else {
            fx.note("producer-fatal", code.name());
            ErrorClass::Fatal
        };
        self.txn.die(code.name(), class);
        fx.notify();
    }
}
