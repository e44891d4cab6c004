//! Errors with librdkafka's own judgement of them.

use super::declared::{Code, NO_ERROR, rd_kafka_err2name, rd_kafka_err2str, text_of};
use rdkafka::bindings as rd;

/// An error with librdkafka's own judgement of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::adapters::kafka) struct RdError {
    /// librdkafka's name, e.g. `ILLEGAL_GENERATION`; the client's own begin with `_`.
    pub name: String,
    pub text: String,
    pub is_fatal: bool,
    pub is_retriable: bool,
    pub requires_abort: bool,
}

impl RdError {
    pub(super) fn of_code(code: Code) -> RdError {
        // SAFETY: both return static strings for every code, also for one that they do not know.
        let (name, text) = unsafe {
            (
                text_of(rd_kafka_err2name(code)),
                text_of(rd_kafka_err2str(code)),
            )
        };
        RdError {
            name,
            text,
            is_fatal: false,
            is_retriable: false,
            requires_abort: false,
        }
    }

    /// Takes over an error object; null is success.
    pub(super) unsafe fn take(error: *mut rd::rd_kafka_error_t) -> Result<(), RdError> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the object is ours until it is destroyed here.
        let taken = unsafe {
            RdError {
                name: text_of(rd::rd_kafka_error_name(error)),
                text: text_of(rd::rd_kafka_error_string(error)),
                is_fatal: rd::rd_kafka_error_is_fatal(error) != 0,
                is_retriable: rd::rd_kafka_error_is_retriable(error) != 0,
                requires_abort: rd::rd_kafka_error_txn_requires_abort(error) != 0,
            }
        };
        // SAFETY: as above; it is not used any more.
        unsafe { rd::rd_kafka_error_destroy(error) };
        Err(taken)
    }
}

pub(super) fn check(code: Code) -> Result<(), RdError> {
    if code == NO_ERROR {
        Ok(())
    } else {
        Err(RdError::of_code(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_nobody_knows_are_errors_with_a_name() {
        for code in [103, 9_999, -9_999] {
            let error = check(code).unwrap_err();
            assert!(!error.name.is_empty(), "{code}");
        }
    }
}
