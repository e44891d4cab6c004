//! How this client names and classifies what went wrong.

use crate::kafka::protocol::ErrorCode;
use processor::io::{ErrorClass, KafkaError};

/// A broker's error as an error of `call`.
pub(crate) fn broker_error(call: &'static str, code: ErrorCode, class: ErrorClass) -> KafkaError {
    KafkaError {
        call,
        code: code.name(),
        class,
    }
}

/// The client's own error as an error of `call`. Names begin with an underscore, as librdkafka's.
pub(crate) fn local_error(call: &'static str, code: &str, class: ErrorClass) -> KafkaError {
    KafkaError {
        call,
        code: code.to_string(),
        class,
    }
}

/// True of errors after which the coordinator is looked up again.
pub(crate) fn coordinator_moved(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::RequestTimedOut
            | ErrorCode::BrokerNotAvailable
    )
}

/// True of errors after which the same request may go to the same place again.
pub(crate) fn later(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::ConcurrentTransactions
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::NotEnoughReplicasAfterAppend
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::UnknownTopicOrPartition
    )
}
