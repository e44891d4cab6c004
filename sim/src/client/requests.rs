//! Requests under way: correlation, timeout, and what a timeout means.
//!
//! As in librdkafka, the timeout of one request closes its connection, and every request under way
//! on that connection fails with it. Answers that come later belong to a closed connection and are
//! ignored. A connection that the fabric reports as broken fails its requests in the same way.

use crate::fabric::actor::{Address, Effects, Micros};
use crate::kafka::protocol::{BrokerId, Message, Request};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which of a client's connections to a broker: coordinators are spoken to over one of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connection {
    /// Metadata, Produce, Fetch, ListOffsets, and everything to another group's coordinator.
    Data,
    /// The coordinator of the consumer's group or of the producer's transactions.
    Coordinator,
}

#[derive(Debug)]
struct Pending<T> {
    broker: BrokerId,
    connection: Connection,
    deadline: Micros,
    name: &'static str,
    tag: T,
}

/// What is under way, each with a tag of the owner's.
#[derive(Debug)]
pub(crate) struct Requests<T> {
    directory: Arc<Vec<(BrokerId, Address)>>,
    next_correlation: u64,
    pending: BTreeMap<u64, Pending<T>>,
}

/// Where a request goes and how long it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    /// To whom.
    pub(crate) broker: BrokerId,
    /// Over which connection.
    pub(crate) connection: Connection,
    /// Timeout in milliseconds.
    pub(crate) timeout_ms: u64,
}

impl<T> Requests<T> {
    /// Nothing under way.
    pub(crate) fn new(directory: Arc<Vec<(BrokerId, Address)>>) -> Requests<T> {
        assert!(
            !directory.is_empty(),
            "a client needs a broker to start from"
        );
        Requests {
            directory,
            next_correlation: 1,
            pending: BTreeMap::new(),
        }
    }

    /// The `index`-th broker, counted round and round.
    pub(crate) fn bootstrap(&self, index: u64) -> BrokerId {
        let count = u64::try_from(self.directory.len()).expect("fits");
        let index = usize::try_from(index % count).expect("smaller than the directory");
        self.directory[index].0
    }

    /// Sends a request.
    pub(crate) fn send(
        &mut self,
        now: Micros,
        route: Route,
        request: Request,
        tag: T,
        fx: &mut Effects,
    ) {
        let correlation = self.next_correlation;
        self.next_correlation += 1;
        let address = self
            .directory
            .iter()
            .find(|(id, _)| *id == route.broker)
            .map(|(_, address)| *address)
            .expect("metadata names only brokers of the directory");
        self.pending.insert(
            correlation,
            Pending {
                broker: route.broker,
                connection: route.connection,
                deadline: now.plus_ms(route.timeout_ms),
                name: name(&request),
                tag,
            },
        );
        fx.send(
            address,
            Message::Request {
                correlation,
                request,
            },
        );
    }

    /// The tag of an answered request; `None` for a stale or repeated answer.
    pub(crate) fn answered(&mut self, correlation: u64) -> Option<T> {
        self.pending.remove(&correlation).map(|pending| pending.tag)
    }

    /// Tags of the requests that failed by now: those whose time is over and all others on the same
    /// connections, in the order of sending.
    pub(crate) fn expire(&mut self, now: Micros, fx: &mut Effects) -> Vec<T> {
        let mut closed: Vec<(BrokerId, Connection)> = Vec::new();
        for pending in self.pending.values() {
            if pending.deadline <= now {
                fx.note(
                    "client-request-timeout",
                    format_args!("{} to broker {}", pending.name, pending.broker.0),
                );
                closed.push((pending.broker, pending.connection));
            }
        }
        if closed.is_empty() {
            return Vec::new();
        }
        self.close(|pending| closed.contains(&(pending.broker, pending.connection)))
    }

    /// Tags of the requests that failed because the connections to `peer` broke.
    pub(crate) fn disconnected(&mut self, peer: Address) -> Vec<T> {
        let broker = self.directory.iter().find(|(_, address)| *address == peer);
        let Some((broker, _)) = broker.copied() else {
            return Vec::new();
        };
        self.close(|pending| pending.broker == broker)
    }

    fn close(&mut self, closed: impl Fn(&Pending<T>) -> bool) -> Vec<T> {
        self.pending
            .extract_if(.., |_, pending| closed(pending))
            .map(|(_, pending)| pending.tag)
            .collect()
    }

    /// True when a request of this kind is under way.
    pub(crate) fn any(&self, kind: impl Fn(&T) -> bool) -> bool {
        self.pending.values().any(|pending| kind(&pending.tag))
    }

    /// When [`Requests::expire`] next has something to do.
    pub(crate) fn due(&self) -> Micros {
        self.pending
            .values()
            .map(|pending| pending.deadline)
            .min()
            .unwrap_or(Micros::MAX)
    }
}

fn name(request: &Request) -> &'static str {
    match request {
        Request::Metadata => "Metadata",
        Request::FindCoordinator { .. } => "FindCoordinator",
        Request::InitProducerId { .. } => "InitProducerId",
        Request::AddPartitionsToTxn { .. } => "AddPartitionsToTxn",
        Request::AddOffsetsToTxn { .. } => "AddOffsetsToTxn",
        Request::TxnOffsetCommit { .. } => "TxnOffsetCommit",
        Request::EndTxn { .. } => "EndTxn",
        Request::Produce { .. } => "Produce",
        Request::Fetch { .. } => "Fetch",
        Request::ListOffsets { .. } => "ListOffsets",
        Request::OffsetFetch { .. } => "OffsetFetch",
        Request::JoinGroup { .. } => "JoinGroup",
        Request::SyncGroup { .. } => "SyncGroup",
        Request::Heartbeat { .. } => "Heartbeat",
        Request::LeaveGroup { .. } => "LeaveGroup",
        Request::OffsetCommit { .. } => "OffsetCommit",
        Request::DeleteGroup { .. } => "DeleteGroup",
        Request::DeleteRecords { .. } => "DeleteRecords",
        Request::Internal(_) => "Internal",
    }
}
