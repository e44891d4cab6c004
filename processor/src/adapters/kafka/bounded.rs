//! The one call of librdkafka that does not keep its time.
//!
//! Comes in: offsets for the open transaction, and a limit. Goes out: librdkafka's answer, or that there
//! was none within the limit. Never here: what that means for the transaction.
//!
//! `rd_kafka_send_offsets_to_transaction` waits for its result without looking at its timeout. Where the
//! group's coordinator is down it waits for the connection to some broker to come or go, which may be for
//! ever, and does not ask for the next coordinator before. So it is called on a thread of its own, which
//! can be left behind; a new producer asks afresh.

use super::ffi::{Client, List, Membership, RdError};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// A coordinator that answers does so long before, and one that moves has moved.
const LONGEST: Duration = Duration::from_secs(5);
/// librdkafka's own limit comes first, where it looks at it.
const GRACE: Duration = Duration::from_secs(1);

struct Call {
    offsets: List,
    member: Arc<Membership>,
    timeout: Duration,
}

/// Calls with a limit, for the lifetime of a producer.
pub(super) struct BoundedCalls {
    /// `None` once the thread was left behind.
    calls: Option<SyncSender<Call>>,
    answers: Receiver<Result<(), RdError>>,
    thread: Option<JoinHandle<()>>,
}

impl BoundedCalls {
    /// # Errors
    /// When the system gives no thread.
    #[allow(
        clippy::disallowed_methods,
        reason = "librdkafka's blocking call needs a thread to be bounded; this is never simulated"
    )]
    pub fn new(client: Arc<Client>) -> io::Result<BoundedCalls> {
        let (calls, incoming) = mpsc::sync_channel::<Call>(1);
        let (answer, answers) = mpsc::sync_channel(1);
        let thread = Builder::new()
            .name("kafka-offsets".to_owned())
            .spawn(move || {
                for call in incoming {
                    let done = client.send_offsets(&call.offsets, &call.member, call.timeout);
                    // Nobody waits any more when this took too long.
                    if answer.send(done).is_err() {
                        return;
                    }
                }
            })?;
        Ok(BoundedCalls {
            calls: Some(calls),
            answers,
            thread: Some(thread),
        })
    }

    /// True once a call was left without its answer: the client cannot be used any more.
    pub fn is_stuck(&self) -> bool {
        self.calls.is_none()
    }

    /// Sends offsets to the open transaction. `None`: no answer came, now or in an earlier call; what
    /// the coordinators know is unknown.
    pub fn send_offsets(
        &mut self,
        offsets: List,
        member: Arc<Membership>,
        timeout: Duration,
    ) -> Option<Result<(), RdError>> {
        let timeout = timeout.min(LONGEST);
        let call = Call {
            offsets,
            member,
            timeout,
        };
        self.calls.as_ref()?.send(call).ok()?;
        match self.answers.recv_timeout(timeout + GRACE) {
            Ok(done) => Some(done),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                self.calls = None;
                None
            }
        }
    }
}

impl Drop for BoundedCalls {
    fn drop(&mut self) {
        if self.is_stuck() {
            // The client ends when librdkafka lets go of the call. Whatever it still sends is of an
            // epoch that the next producer has fenced.
            tracing::warn!("a producer is left behind in a call that does not end");
            return;
        }
        self.calls = None;
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Err(_)) = ended {
            tracing::error!("the thread that sends offsets has panicked");
        }
    }
}
