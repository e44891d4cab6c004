//! Kafka's error codes as the contract names them.

use sim::contract::Failure;
use sim::kafka::protocol::ErrorCode;

const CODES: [(i16, ErrorCode); 44] = [
    (-1, ErrorCode::UnknownServerError),
    (1, ErrorCode::OffsetOutOfRange),
    (3, ErrorCode::UnknownTopicOrPartition),
    (5, ErrorCode::LeaderNotAvailable),
    (6, ErrorCode::NotLeaderOrFollower),
    (7, ErrorCode::RequestTimedOut),
    (8, ErrorCode::BrokerNotAvailable),
    (10, ErrorCode::MessageTooLarge),
    (12, ErrorCode::OffsetMetadataTooLarge),
    (14, ErrorCode::CoordinatorLoadInProgress),
    (15, ErrorCode::CoordinatorNotAvailable),
    (16, ErrorCode::NotCoordinator),
    (17, ErrorCode::InvalidTopicException),
    (19, ErrorCode::NotEnoughReplicas),
    (20, ErrorCode::NotEnoughReplicasAfterAppend),
    (22, ErrorCode::IllegalGeneration),
    (23, ErrorCode::InconsistentGroupProtocol),
    (25, ErrorCode::UnknownMemberId),
    (26, ErrorCode::InvalidSessionTimeout),
    (27, ErrorCode::RebalanceInProgress),
    (42, ErrorCode::InvalidRequest),
    (45, ErrorCode::OutOfOrderSequenceNumber),
    (46, ErrorCode::DuplicateSequenceNumber),
    (47, ErrorCode::InvalidProducerEpoch),
    (48, ErrorCode::InvalidTxnState),
    (49, ErrorCode::InvalidProducerIdMapping),
    (50, ErrorCode::InvalidTransactionTimeout),
    (51, ErrorCode::ConcurrentTransactions),
    (59, ErrorCode::UnknownProducerId),
    (68, ErrorCode::NonEmptyGroup),
    (69, ErrorCode::GroupIdNotFound),
    (74, ErrorCode::FencedLeaderEpoch),
    (75, ErrorCode::UnknownLeaderEpoch),
    (77, ErrorCode::StaleBrokerEpoch),
    (78, ErrorCode::OffsetNotAvailable),
    (79, ErrorCode::MemberIdRequired),
    (82, ErrorCode::FencedInstanceId),
    (87, ErrorCode::InvalidRecord),
    (88, ErrorCode::UnstableOffsetCommit),
    (90, ErrorCode::ProducerFenced),
    (95, ErrorCode::InvalidUpdateVersion),
    (120, ErrorCode::TransactionAbortable),
    (2, ErrorCode::CorruptMessage),
    (55, ErrorCode::OperationNotAttempted),
];

/// What a code says; an unknown one is a failure of the test.
pub fn result_of(code: i16) -> Result<Result<(), ErrorCode>, Failure> {
    if code == 0 {
        return Ok(Ok(()));
    }
    let known = CODES.iter().find(|(number, _)| *number == code);
    match known {
        Some((_, name)) => Ok(Err(*name)),
        None => Err(Failure(format!(
            "the contract has no name for error {code}"
        ))),
    }
}

/// What several codes say together: the first that tells why.
pub fn result_of_all(codes: impl Iterator<Item = i16>) -> Result<Result<(), ErrorCode>, Failure> {
    let mut found = Ok(());
    for code in codes {
        match result_of(code)? {
            Ok(()) => {}
            Err(ErrorCode::OperationNotAttempted) if found.is_err() => {}
            Err(why) if found.is_ok() || found == Err(ErrorCode::OperationNotAttempted) => {
                found = Err(why);
            }
            Err(_) => {}
        }
    }
    Ok(found)
}
