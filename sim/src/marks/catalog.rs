//! The catalogue of marks. Storms reach all of them, but for the refusal of another configuration: that
//! ends in a person's hands, and has a scenario of its own.

use super::{By, Mark};

const fn line(name: &'static str, kind: &'static str, says: &'static str) -> Mark {
    let by = By::Line(kind);
    Mark { name, says, by }
}

const fn words(
    name: &'static str,
    (kind, words): (&'static str, &'static str),
    says: &'static str,
) -> Mark {
    let by = By::Words(kind, words);
    Mark { name, says, by }
}

const fn path(name: &'static str, says: &'static str) -> Mark {
    let by = By::Path;
    Mark { name, says, by }
}

/// Every mark, by what it is about: transactions, recovery, ownership, checkpoints, time, the cluster.
pub const CATALOG: &[Mark] = &[
    // How a worker's transactions end.
    line(
        "transaction-aborted",
        "aborted",
        "a transaction was aborted; its outputs were kept",
    ),
    path(
        "committed-after-an-abort",
        "outputs that an aborted transaction had held were committed by the same process",
    ),
    path(
        "aborted-twice-in-a-row",
        "a transaction was aborted, and the next one too",
    ),
    path(
        "died-with-outputs-of-an-aborted-transaction",
        "a process died before it could commit what an aborted transaction had held",
    ),
    line(
        "unknown-outcome-was-committed",
        "resolved-committed",
        "a commit without an answer turned out to have been committed",
    ),
    line(
        "unknown-outcome-was-not-committed",
        "resolved-not-committed",
        "a commit without an answer turned out not to have been committed",
    ),
    words(
        "commit-repeated",
        ("retrying", "commit_transaction"),
        "the same commit was asked for again, because its answer was late",
    ),
    words(
        "offsets-repeated",
        ("retrying", "send_offsets_to_transaction"),
        "the offsets of a transaction were sent again",
    ),
    words(
        "abort-repeated",
        ("retrying", "abort_transaction"),
        "an abort was asked for again",
    ),
    words(
        "tainted-producer-replaced",
        ("producer-replaced", "may still be under way"),
        "a producer with a request of a transaction unanswered was replaced before the next one",
    ),
    words(
        "producer-replaced-to-learn-the-outcome",
        ("producer-replaced", "outcome of a transaction is unknown"),
        "a new producer ended what the last one had left open",
    ),
    words(
        "tainted-producer-replaced-at-stop",
        ("producer-replaced", "the worker stops"),
        "a worker that stopped made sure that no request outlived it",
    ),
    words(
        "end-txn-unanswered",
        ("client-request-timeout", "EndTxn"),
        "a client waited in vain for the answer to EndTxn",
    ),
    line(
        "end-txn-sent-again",
        "end-txn-resent",
        "a client sent EndTxn again (KAFKA-17754)",
    ),
    line(
        "end-txn-answered-twice",
        "end-txn-repeated",
        "a repeated EndTxn found its transaction ended, and was answered so",
    ),
    line(
        "end-txn-of-an-older-epoch",
        "end-txn-fenced",
        "a late EndTxn came after a new producer had taken the id over, and was refused",
    ),
    line(
        "end-txn-met-a-later-transaction",
        "end-txn-fenced-in-transaction",
        "a late EndTxn came while the next producer's transaction was open, and did not end it",
    ),
    line(
        "transaction-waited-for-markers",
        "txn-waits-for-markers",
        "a transaction could not begin, because markers of the one before were missing",
    ),
    line(
        "producer-waited-for-markers",
        "init-waits-for-markers",
        "InitProducerId had to wait until the transaction before had ended",
    ),
    line(
        "open-transaction-fenced",
        "producer-fenced",
        "InitProducerId aborted what a former process had left open",
    ),
    line(
        "transaction-timed-out",
        "txn-timeout",
        "the coordinator aborted a transaction that was open for too long",
    ),
    path(
        "zombie-transaction-timed-out",
        "that transaction's worker stood still and woke up later",
    ),
    line(
        "fenced-producer-learned-it",
        "producer-fenced-seen",
        "a producer was told that its epoch is over",
    ),
    line(
        "producer-epoch-bumped",
        "producer-epoch-bumped",
        "a client got a new epoch to abort a transaction whose sequence had a gap",
    ),
    line(
        "delivery-timed-out",
        "delivery-timeout",
        "records were under way for longer than a transaction may last",
    ),
    line(
        "stray-produce-refused",
        "stray-append-refused",
        "a batch came after its transaction had ended, and did not begin another (KIP-890)",
    ),
    path(
        "died-in-an-open-transaction",
        "a process died between AddPartitionsToTxn and EndTxn",
    ),
    path(
        "died-between-decision-and-markers",
        "a process died when its commit was decided and not all markers were written",
    ),
    // Coordinators of transactions.
    words(
        "coordinator-moved-in-an-open-transaction",
        ("txn-loaded", "Ongoing"),
        "a new coordinator found a transaction open",
    ),
    words(
        "coordinator-moved-after-a-commit-was-decided",
        ("txn-loaded", "PrepareCommit"),
        "a new coordinator finished a commit that the last one had decided",
    ),
    words(
        "coordinator-moved-after-an-abort-was-decided",
        ("txn-loaded", "PrepareAbort"),
        "a new coordinator finished an abort that the last one had decided",
    ),
    line(
        "transition-not-replicated",
        "txn-transition-failed",
        "a coordinator could not store a step of a transaction",
    ),
    line(
        "fence-not-replicated",
        "txn-fence-failed",
        "a coordinator bumped an epoch and could not store it: it must not bump it twice",
    ),
    line(
        "marker-of-an-old-coordinator-refused",
        "marker-fenced",
        "markers of a coordinator that had been replaced came after those of its successor",
    ),
    // Recovery.
    path(
        "recovered-with-replay",
        "a replay from an older snapshot reproduced the committed digest",
    ),
    path(
        "recovered-without-replay",
        "the snapshot stood at the committed offset",
    ),
    path(
        "recovered-before-the-first-snapshot",
        "a partition had been opened and had no snapshot: it began once more where it had begun",
    ),
    path(
        "restored-behind-the-newest-snapshot",
        "the commit named an older snapshot than the newest one",
    ),
    path(
        "died-in-an-opening",
        "a process died while it committed that it would begin a partition",
    ),
    path(
        "opening-put-off",
        "the commit that begins a partition failed, or its outcome was unknown",
    ),
    path(
        "opened-again",
        "a partition was opened a second time, because the first one had not been committed",
    ),
    path(
        "recovered-on-a-new-disk",
        "a process recovered on a machine that had no local state",
    ),
    path(
        "recovered-over-an-old-disk",
        "a process recovered over local state of a former one",
    ),
    path(
        "recovered-after-a-postponement",
        "a restore that had to wait came to its end",
    ),
    path(
        "recovered-after-a-failed-recovery",
        "a partition was recovered after somebody had died recovering it",
    ),
    path(
        "recovered-behind-a-forced-watermark",
        "a partition was recovered whose watermark had been advanced by the clock",
    ),
    path(
        "died-in-takeover",
        "a process died between assignment and recovery",
    ),
    path(
        "died-in-takeover-again",
        "so did the next process of that worker",
    ),
    path("died-in-replay", "a process died during a replay"),
    line(
        "set-back",
        "set-back",
        "what was committed was not what a worker knew of it",
    ),
    path(
        "recovered-after-a-set-back",
        "and the same process recovered the partition",
    ),
    line(
        "outdated-offsets-noticed",
        "offsets-outdated",
        "committed offsets did not show what this worker had just committed: they were outdated",
    ),
    line(
        "offsets-unstable",
        "offsets-unstable",
        "an OffsetFetch met offsets of a transaction that had not ended",
    ),
    path(
        "corrected-after-recovery",
        "a worker corrected a result of a partition that it had recovered",
    ),
    // Ownership.
    path(
        "committed-on-revoke",
        "a worker committed a partition before it gave it back",
    ),
    path(
        "revoked-without-a-commit",
        "a partition was taken back, and its last transaction did not succeed",
    ),
    path(
        "revoked-in-takeover",
        "a partition was taken back before it was restored",
    ),
    path(
        "lost-in-takeover",
        "a partition was lost before it was restored",
    ),
    path(
        "taken-away-in-a-replay",
        "a partition was taken back or lost during its replay",
    ),
    path(
        "restore-given-up-for-a-rebalance",
        "a restore was given up in the middle, because its partition was being taken",
    ),
    path(
        "rebalanced-in-an-open-transaction",
        "a generation began while a worker's transaction was open",
    ),
    path(
        "rebalanced-in-a-replay",
        "a generation began during a replay",
    ),
    words(
        "session-timed-out",
        ("member-lost", "session timed out"),
        "a member could not reach the coordinator for a whole session",
    ),
    words(
        "poll-interval-exceeded",
        ("member-lost", "poll interval exceeded"),
        "a member did not poll for too long and left",
    ),
    line(
        "offsets-of-a-former-member-refused",
        "offsets-refused",
        "a transaction's offsets came from a member of an older generation",
    ),
    path(
        "zombie-woke",
        "a worker woke up and somebody else had its partitions",
    ),
    path(
        "zombie-refused",
        "it tried to commit before it knew, and failed",
    ),
    path(
        "taken-over-from-an-owner-that-runs",
        "a partition got a new owner while the old one did not know",
    ),
    path(
        "group-coordinator-moved-in-takeover",
        "the group got another coordinator while a worker took partitions over",
    ),
    path(
        "group-coordinator-moved-in-a-transaction",
        "the group got another coordinator while a worker's transaction was under way",
    ),
    path(
        "stopped-in-takeover",
        "a worker was asked to stop while it took partitions over",
    ),
    path(
        "revoked-while-stopping",
        "a worker that stopped was asked to give partitions back",
    ),
    words(
        "twin-gave-up",
        ("worker-failed", "is used by another process"),
        "of two workers with one ordinal, one ended",
    ),
    words(
        "changed-configuration-refused",
        (
            "worker-failed",
            "the configuration or the program has changed",
        ),
        "a worker with another configuration refused to replay",
    ),
    // Checkpoints and local state.
    line(
        "snapshot-failed",
        "snapshot-failed",
        "a snapshot could not be stored; the older one stayed in force",
    ),
    path(
        "died-before-its-snapshot-was-named",
        "a process died with a snapshot that no commit had named",
    ),
    line(
        "garbage-collected",
        "garbage-collected",
        "objects that no commit reached were deleted",
    ),
    path(
        "collected-after-a-former-owner",
        "an owner collected the garbage of a former one",
    ),
    path(
        "collected-beside-a-restore",
        "a worker deleted objects of a partition that another one was taking over",
    ),
    line(
        "write-took-effect-late",
        "object-written-late",
        "an object appeared (or went) after its request had been reported as failed",
    ),
    line(
        "write-took-effect-unnoticed",
        "object-written-unnoticed",
        "a request took effect and was reported as failed",
    ),
    line(
        "listing-behind",
        "object-listing-behind",
        "a listing did not show what the store held",
    ),
    line("spilled", "spilled", "event identities left the memory"),
    path(
        "spilled-and-read-back",
        "identities that had left the memory were read again",
    ),
    // Time.
    line(
        "forced-watermark",
        "forced-watermark",
        "the watermark of an idle partition followed the clock",
    ),
    path(
        "forced-and-no-snapshot",
        "the snapshot that a forced watermark needs could not be stored",
    ),
    path(
        "died-before-its-forced-watermark-was-kept",
        "a process died with a forced watermark that no snapshot had",
    ),
    path(
        "corrected-after-a-forced-watermark",
        "a record came for a window that a forced watermark had emitted",
    ),
    path(
        "too-late-after-a-forced-watermark",
        "a record came too late for a partition whose watermark had been forced",
    ),
    path(
        "worker-clock-jumped",
        "a worker's wall clock was wrong for a while",
    ),
    path(
        "forced-by-a-wrong-clock",
        "a watermark was forced by a clock that was wrong",
    ),
    // The cluster.
    line(
        "open-transaction-hides-records",
        "behind-open-transaction",
        "a consumer could not read on, because another producer's transaction was open",
    ),
    line(
        "aborted-records-skipped",
        "aborted-skipped",
        "a consumer left out records of aborted transactions",
    ),
    line(
        "damaged-records-noticed",
        "fetch-damaged",
        "a consumer got records with a wrong CRC, and ended",
    ),
    line(
        "damaged-copy-noticed",
        "replica-fetch-damaged",
        "a follower got records with a wrong CRC, and asked again",
    ),
    line(
        "under-min-isr",
        "under-min-isr",
        "a leader had too few replicas in sync to take a batch",
    ),
    line(
        "log-truncated",
        "truncated",
        "a follower cut off what its new leader did not have",
    ),
    line(
        "unreplicated-tail-lost",
        "unreplicated-tail-lost",
        "a machine without power lost what was not yet on its disk",
    ),
    line(
        "broker-halted",
        "broker-halted",
        "a broker with a full disk shut itself down",
    ),
    line(
        "partition-offline",
        "partition-offline",
        "a partition had no replica that could lead",
    ),
    path(
        "live-broker-fenced",
        "the controller took a broker for dead that was not",
    ),
];
