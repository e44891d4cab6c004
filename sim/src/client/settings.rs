//! Settings of a client, named as librdkafka names them.

use crate::kafka::protocol::RebalanceProtocol;
use crate::sabotage::Sabotage;

/// What a client is configured with. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// partition.assignment.strategy: `range` or `cooperative-sticky`.
    pub protocol: RebalanceProtocol,
    /// session.timeout.ms
    pub session_timeout_ms: u32,
    /// heartbeat.interval.ms
    pub heartbeat_interval_ms: u32,
    /// max.poll.interval.ms
    pub max_poll_interval_ms: u32,
    /// transaction.timeout.ms; also the delivery timeout of transactional records, as in librdkafka.
    pub transaction_timeout_ms: u32,
    /// request.timeout.ms and socket.timeout.ms in one: after this an unanswered request counts as a
    /// disconnect.
    pub request_timeout_ms: u32,
    /// fetch.wait.max.ms
    pub fetch_wait_max_ms: u32,
    /// fetch.max.bytes
    pub fetch_max_bytes: u32,
    /// fetch.error.backoff.ms
    pub fetch_error_backoff_ms: u32,
    /// Records buffered for one partition above which it is not fetched any more
    /// (queued.min.messages).
    pub queued_max_records: usize,
    /// retry.backoff.ms, between two attempts of one request.
    pub retry_backoff_ms: u32,
    /// reconnect.backoff.ms, between two lookups of metadata or a coordinator.
    pub reconnect_backoff_ms: u32,
    /// topic.metadata.refresh.interval.ms
    pub metadata_refresh_ms: u32,
    /// linger.ms (queue.buffering.max.ms)
    pub linger_ms: u32,
    /// batch.num.messages
    pub batch_max_records: usize,
    /// batch.size, bytes of keys, values and headers.
    pub batch_max_bytes: usize,
    /// queue.buffering.max.messages of a transactional producer.
    pub queue_max_records: usize,
    /// The promise that this library breaks, to see that checkers notice; `None` of a faithful one.
    pub broken: Option<Sabotage>,
}

impl Default for ClientSettings {
    /// librdkafka's defaults, but for the request timeout: with 60 s a lost message would stop a
    /// client for a minute, which TCP's retransmission prevents in reality.
    fn default() -> ClientSettings {
        ClientSettings {
            protocol: RebalanceProtocol::Cooperative,
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 3_000,
            max_poll_interval_ms: 300_000,
            transaction_timeout_ms: 60_000,
            request_timeout_ms: 5_000,
            fetch_wait_max_ms: 500,
            fetch_max_bytes: 1_048_576,
            fetch_error_backoff_ms: 500,
            queued_max_records: 100_000,
            retry_backoff_ms: 100,
            reconnect_backoff_ms: 100,
            metadata_refresh_ms: 300_000,
            linger_ms: 5,
            batch_max_records: 10_000,
            batch_max_bytes: 1_000_000,
            queue_max_records: 100_000,
            broken: None,
        }
    }
}

impl ClientSettings {
    /// True if this is the promise that the library breaks.
    #[must_use]
    pub fn breaks(&self, promise: Sabotage) -> bool {
        self.broken == Some(promise)
    }

    /// True of a producer that ends a transaction whose records may still be under way without a new
    /// epoch, as before KIP-360.
    #[must_use]
    pub fn keeps_epoch(&self) -> bool {
        self.breaks(Sabotage::EpochKept) || self.breaks(Sabotage::TransactionsUnverified)
    }

    /// Timeout of an ordinary request: min(request timeout, transaction timeout − 100 ms), as
    /// librdkafka sets `socket.timeout.ms` for a transactional producer.
    #[must_use]
    pub fn transactional_request_ms(&self) -> u64 {
        u64::from(
            self.request_timeout_ms
                .min(self.transaction_timeout_ms.saturating_sub(100))
                .max(1),
        )
    }

    /// Timeout of one heartbeat. librdkafka waits a whole session here and relies on the connection
    /// to break earlier; without connections a third of the session stands for that.
    #[must_use]
    pub fn heartbeat_timeout_ms(&self) -> u64 {
        u64::from(
            self.request_timeout_ms
                .min(self.session_timeout_ms / 3)
                .max(1),
        )
    }

    /// Timeout of a JoinGroup that waits for the other members. librdkafka waits for the poll
    /// interval plus 3 s and relies on the connection to break earlier; a resent JoinGroup of a
    /// known member is harmless, so a session timeout stands for that.
    #[must_use]
    pub fn join_timeout_ms(&self) -> u64 {
        u64::from(
            self.session_timeout_ms
                .min(self.max_poll_interval_ms.saturating_add(3_000)),
        )
    }
}
