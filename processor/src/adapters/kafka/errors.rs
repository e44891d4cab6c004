//! What librdkafka's errors mean for the caller of each kind of call.

use super::ffi::RdError;
use crate::io::{ErrorClass, KafkaError};

/// Another producer with the same `transactional.id`, or the coordinator, has ended this one.
const FENCED: [&str; 3] = ["_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"];

/// What no repetition mends: somebody has to change something.
const PERMANENT: [&str; 14] = [
    "_FATAL",
    "_AUTHENTICATION",
    "_INVALID_ARG",
    "_UNSUPPORTED_FEATURE",
    "_UNKNOWN_TOPIC",
    "CLUSTER_AUTHORIZATION_FAILED",
    "GROUP_AUTHORIZATION_FAILED",
    "INVALID_GROUP_ID",
    "SASL_AUTHENTICATION_FAILED",
    "TOPIC_AUTHORIZATION_FAILED",
    "TOPIC_EXCEPTION",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
    "UNKNOWN_TOPIC_OR_PART",
    "UNSUPPORTED_VERSION",
];

fn with_class(call: &'static str, error: RdError, class: ErrorClass) -> KafkaError {
    tracing::debug!(call, code = %error.name, text = %error.text, ?class, "a Kafka call failed");
    KafkaError {
        call,
        code: error.name,
        class,
    }
}

/// An error of a question to the cluster, which changes nothing.
pub(super) fn of_query(call: &'static str, error: RdError) -> KafkaError {
    let is_permanent = error.is_fatal || PERMANENT.contains(&error.name.as_str());
    let class = if is_permanent {
        ErrorClass::Fatal
    } else {
        ErrorClass::Retriable
    };
    with_class(call, error, class)
}

/// True for "there is no such topic", which a broker that has just started may say of any topic.
pub(super) fn is_unknown_topic(error: &RdError) -> bool {
    ["UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"].contains(&error.name.as_str())
}

/// An error that may go away.
pub(super) fn of_retriable(call: &'static str, error: RdError) -> KafkaError {
    with_class(call, error, ErrorClass::Retriable)
}

/// An error of a call on the consumer itself.
pub(super) fn of_consumer(call: &'static str, error: RdError) -> KafkaError {
    with_class(call, error, ErrorClass::Fatal)
}

/// True for an error event after which a consumer will never deliver again.
pub(super) fn ends_consumer(error: &RdError) -> bool {
    const NEVER_JOINS: [&str; 6] = [
        "_AUTHENTICATION",
        "SASL_AUTHENTICATION_FAILED",
        "GROUP_MAX_SIZE_REACHED",
        "INCONSISTENT_GROUP_PROTOCOL",
        "INVALID_GROUP_ID",
        "INVALID_SESSION_TIMEOUT",
    ];
    let denied = error.name.ends_with("AUTHORIZATION_FAILED");
    error.is_fatal || denied || NEVER_JOINS.contains(&error.name.as_str())
}

/// True for an error event behind which librdkafka goes on with what comes next in the log: it tells of
/// records that it cannot read, and leaves them out.
pub(super) fn leaves_records_out(error: &RdError) -> bool {
    const UNREADABLE: [&str; 4] = [
        "_BAD_COMPRESSION",
        "_BAD_MSG",
        "_CRIT_SYS_RESOURCE",
        "_NOT_IMPLEMENTED",
    ];
    UNREADABLE.contains(&error.name.as_str())
}

/// An error of a transactional call, by librdkafka's flags. `otherwise`: when it has none of them.
pub(super) fn of_transaction(
    call: &'static str,
    error: RdError,
    otherwise: ErrorClass,
) -> KafkaError {
    let class = if FENCED.contains(&error.name.as_str()) {
        ErrorClass::Fenced
    } else if error.is_fatal {
        ErrorClass::Fatal
    } else if error.requires_abort {
        ErrorClass::RequiresAbort
    } else if error.is_retriable {
        ErrorClass::Retriable
    } else {
        otherwise
    };
    with_class(call, error, class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(name: &str) -> RdError {
        RdError {
            name: name.to_owned(),
            text: String::new(),
            is_fatal: false,
            is_retriable: false,
            requires_abort: false,
        }
    }

    #[test]
    fn flags_decide_about_transactional_errors() {
        let class = |error| of_transaction("t", error, ErrorClass::OutcomeUnknown).class;
        let mut fenced = error("_FENCED");
        fenced.is_fatal = true;
        assert_eq!(class(fenced), ErrorClass::Fenced);
        let mut fatal = error("INVALID_TXN_STATE");
        fatal.is_fatal = true;
        assert_eq!(class(fatal), ErrorClass::Fatal);
        let mut abortable = error("ILLEGAL_GENERATION");
        abortable.requires_abort = true;
        assert_eq!(class(abortable), ErrorClass::RequiresAbort);
        let mut retriable = error("_TIMED_OUT");
        retriable.is_retriable = true;
        assert_eq!(class(retriable), ErrorClass::Retriable);
        assert_eq!(class(error("_STATE")), ErrorClass::OutcomeUnknown);
    }

    #[test]
    fn questions_are_asked_again_unless_somebody_has_to_change_something() {
        let class = |name| of_query("q", error(name)).class;
        assert_eq!(class("_TIMED_OUT"), ErrorClass::Retriable);
        assert_eq!(class("UNSTABLE_OFFSET_COMMIT"), ErrorClass::Retriable);
        assert_eq!(class("UNKNOWN_TOPIC_OR_PART"), ErrorClass::Fatal);
        assert_eq!(class("GROUP_AUTHORIZATION_FAILED"), ErrorClass::Fatal);
    }

    #[test]
    fn records_that_cannot_be_read_are_never_left_out() {
        for name in ["_BAD_MSG", "_BAD_COMPRESSION", "_NOT_IMPLEMENTED"] {
            assert!(leaves_records_out(&error(name)), "{name}");
        }
        assert!(!leaves_records_out(&error("_TRANSPORT")));
    }

    #[test]
    fn brokers_that_are_down_do_not_end_a_consumer() {
        assert!(!ends_consumer(&error("_ALL_BROKERS_DOWN")));
        assert!(!ends_consumer(&error("_MAX_POLL_EXCEEDED")));
        assert!(ends_consumer(&error("TOPIC_AUTHORIZATION_FAILED")));
        assert!(ends_consumer(&error("INCONSISTENT_GROUP_PROTOCOL")));
    }
}
