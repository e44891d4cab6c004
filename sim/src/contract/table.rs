//! The list of all behaviours.

use super::{
    ClusterUnderTest, Outcome, coordinator, expiry, failover, fencing, groups, offsets, positions,
    quotas, sequences, settings, topics, visibility,
};
use std::future::Future;
use std::pin::Pin;

/// What it takes to try a behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// A cluster; others may be tried beside it.
    Nothing,
    /// The cluster for itself: it does harm to brokers.
    Solitude,
    /// Brokers that forget soon what nobody uses; it waits for most of its time.
    Forgetfulness,
}

/// One behaviour, for one kind of cluster.
pub struct Behaviour<C> {
    /// Its room.
    pub area: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The KIP, the JIRA or the source that it states.
    pub source: &'static str,
    /// What it takes to try it.
    pub needs: Needs,
    /// Tries it.
    pub run: for<'a> fn(&'a mut C) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>,
}

macro_rules! behaviours {
    ($($area:ident $needs:ident { $($name:ident $source:literal)* })*) => {
        /// All behaviours, in the order of their rooms.
        #[must_use]
        pub fn behaviours<C: ClusterUnderTest>() -> Vec<Behaviour<C>> {
            vec![$($(
                Behaviour {
                    area: stringify!($area),
                    name: stringify!($name),
                    source: $source,
                    needs: Needs::$needs,
                    run: |cluster| Box::pin($area::$name(cluster)),
                },
            )*)*]
        }
    };
}

behaviours! {
    visibility Nothing {
        committed_records_are_seen "KIP-98"
        open_records_are_not_seen "KIP-98"
        aborted_records_are_never_seen "KIP-98"
        aborted_and_committed_transactions_of_one_producer_are_told_apart "KIP-98"
        an_open_transaction_hides_what_others_append_behind_it "KIP-98"
        the_last_stable_offset_is_where_the_oldest_open_transaction_begins "KIP-98"
        interleaved_transactions_are_seen_in_the_order_of_offsets "KIP-98"
        an_interleaved_abort_hides_only_its_own_records "KIP-98"
        control_records_take_offsets "KIP-98"
        markers_tell_the_outcome "KIP-98"
        offsets_have_gaps "KIP-98: control records"
        the_end_told_is_the_last_stable_offset "librdkafka: PARTITION_EOF under read_committed"
        the_end_lies_behind_a_trailing_abort "KIP-98: control records; librdkafka: PARTITION_EOF"
        a_transaction_covers_several_topics "KIP-98"
        an_empty_transaction_writes_nothing "librdkafka: no EndTxn"
        transactions_follow_each_other_at_once "KAFKA-18575"
        plain_records_are_seen_at_once "KIP-98: high watermark"
        a_record_comes_back_as_it_was_sent "KIP-82"
        the_partitioner_is_that_of_java "org.apache.kafka.common.utils.Utils.murmur2"
        a_reader_may_start_anywhere "KIP-98"
        an_abort_is_known_from_its_middle "KIP-98: aborted index"
        bounds_end_at_the_last_stable_offset "KIP-98: ListOffsets with isolation level"
        a_record_that_is_too_large_fails_its_transaction "message.max.bytes"
        the_outcome_is_one_for_all_partitions "KIP-98"
    }
    fencing Nothing {
        a_newer_producer_fences_the_commit_of_an_older_one "KIP-98"
        a_fenced_producer_is_dead "KIP-98; librdkafka: fatal errors"
        nothing_is_open_after_init_transactions "KIP-98"
        other_transactional_ids_are_not_fenced "KIP-98"
        each_init_gives_the_next_epoch "KIP-98"
        produce_with_an_older_epoch_is_refused "KIP-98"
        requests_with_an_older_epoch_are_refused "KIP-98, KIP-588"
        offsets_with_an_older_epoch_are_refused "KIP-98"
        a_foreign_producer_id_is_refused "KIP-98"
        a_transaction_that_takes_too_long_is_aborted "KIP-98"
        a_timeout_bumps_the_epoch "KIP-98"
        an_older_generation_is_fenced "KIP-447"
        a_member_that_left_is_fenced "KIP-447"
        a_commit_of_nobody_is_not_fenced "KIP-447, ClassicGroup.validateOffsetCommit"
        wrong_generation_and_wrong_member_are_told_apart "KIP-447"
        the_last_to_initialise_wins "KIP-98"
    }
    offsets Nothing {
        nothing_is_committed_at_first "OffsetFetch: offset -1"
        offset_and_metadata_come_back "KIP-98"
        metadata_has_a_limit "offset.metadata.max.bytes; OffsetMetadataManager"
        the_metadata_limit_counts_characters "OffsetMetadataManager: String.length()"
        aborted_offsets_are_not_committed "KIP-98"
        pending_offsets_block_a_stable_fetch "KIP-447"
        an_abort_unblocks_a_stable_fetch "KIP-447"
        an_unstable_fetch_answers_with_the_old_offset "KIP-447"
        only_the_pending_partition_blocks "KIP-447"
        only_the_pending_group_blocks "KIP-447"
        offsets_of_one_transaction_stand_together "KIP-98"
        outputs_and_offsets_stand_together "KIP-447"
        the_last_offset_of_a_transaction_stands "OffsetMetadataManager"
        what_was_written_later_stands "OffsetMetadataManager"
        a_mark_comes_back_beside_the_input "processor: worker/current.rs"
        a_pending_mark_blocks_the_whole_answer "KIP-447; processor: worker/current.rs"
        an_offset_can_be_set_back "KIP-122"
        an_offset_cannot_be_set_while_the_group_lives "ClassicGroup.validateOffsetCommit"
        forgotten_offsets_are_gone "KIP-211, DeleteGroups"
        an_unknown_group_cannot_be_deleted "KIP-229"
        plain_and_transactional_commits_are_ordered_by_the_log "OffsetMetadataManager"
        commits_during_a_rebalance_differ "ClassicGroup.validateOffsetCommit"
    }
    sequences Nothing {
        a_resent_batch_is_stored_once "KIP-98"
        five_batches_are_remembered "KIP-98: ProducerStateEntry"
        a_gap_is_refused "KIP-98"
        an_overlapping_batch_is_refused "KIP-98"
        partitions_have_their_own_sequences "KIP-98"
        producers_have_their_own_sequences "KIP-98"
        a_new_epoch_begins_at_zero "KIP-98"
        sequences_go_on_through_transactions "KIP-98"
        a_partition_outside_of_the_transaction_is_refused "KIP-890"
        a_late_batch_cannot_hang "KIP-890, KAFKA-14402"
        a_resent_batch_of_an_ended_transaction_opens_nothing "KIP-890"
        a_damaged_batch_is_refused "CORRUPT_MESSAGE: DefaultRecordBatch.ensureValid"
        internal_topics_are_closed "INVALID_TOPIC_EXCEPTION for internal topics"
    }
    coordinator Nothing {
        a_repeated_commit_is_answered_alike "TransactionCoordinator.endTransaction"
        a_repeated_abort_is_answered_alike "TransactionCoordinator.endTransaction"
        the_outcome_cannot_be_changed "TransactionCoordinator.endTransaction"
        nothing_can_be_ended_before_it_began "TransactionCoordinator.endTransaction"
        a_delayed_end_ends_the_next_transaction "KAFKA-17754"
        a_new_producer_fences_a_delayed_end "KAFKA-17754, KIP-98"
        a_partition_may_be_added_twice "KIP-98"
        every_added_partition_gets_a_marker "TransactionMarkerChannelManager"
        an_unknown_partition_cannot_be_added "KIP-98"
        the_transaction_timeout_has_limits "transaction.max.timeout.ms"
        an_unknown_transactional_id_is_refused "KIP-98"
        offsets_outside_of_the_transaction_are_refused "KIP-890"
        a_transaction_of_offsets_alone_commits "KIP-98"
        a_transaction_may_cover_several_groups "KIP-98"
    }
    groups Nothing {
        a_member_alone_owns_everything "KIP-62"
        an_eager_rebalance_revokes_everything "KIP-62"
        a_cooperative_rebalance_revokes_what_moves "KIP-429"
        a_moving_partition_has_one_owner "KIP-429"
        the_share_of_a_member_that_left_goes_on "KIP-62"
        what_is_revoked_can_still_be_committed "KIP-447, KIP-429"
        a_silent_member_is_removed "KIP-62"
        a_member_that_does_not_poll_loses_its_share "KIP-62"
        a_new_member_is_given_an_id_first "KIP-394"
        an_unknown_member_cannot_join "KIP-394"
        a_member_is_checked_with_each_request "KIP-62"
        a_rebalance_is_told_by_heartbeats "KIP-62"
        protocols_cannot_be_mixed "KIP-429"
        a_member_may_commit_without_a_transaction "ClassicGroup.validateOffsetCommit"
    }
    positions Nothing {
        deleted_records_move_the_log_start "KIP-107"
        the_log_start_has_limits "KIP-107"
        offsets_go_on_after_everything_is_deleted "KIP-107"
        retention_past_the_position_is_an_error "reset policy `error`"
        retention_past_the_committed_offset_is_an_error "auto.offset.reset=error"
        a_start_behind_the_end_is_an_error "auto.offset.reset=error"
        a_start_at_the_end_waits "librdkafka: PARTITION_EOF"
        a_member_goes_on_where_the_group_was "processor: io::Consumer"
        a_pause_loses_nothing "processor: io::Consumer"
        going_back_forgets_what_was_fetched "processor: io::Consumer"
        a_start_ends_a_pause "processor: io::Consumer"
        everything_comes_once_and_in_order "KIP-98"
        a_topic_is_described "processor: io::Consumer"
    }
    topics Nothing {
        an_added_partition_is_unknown_before_and_empty_afterwards "KIP-195"
        a_group_takes_in_an_added_partition "KIP-195; librdkafka: topic.metadata.refresh.interval.ms"
        growth_revokes_everything_from_an_eager_group "KIP-195, KIP-429"
        an_open_transaction_reaches_into_an_added_partition "KIP-195, KIP-98"
        a_recreated_topic_is_another_topic "KIP-516"
        committed_offsets_go_with_their_topic "GroupCoordinatorService.onMetadataUpdate"
        an_old_position_is_out_of_range_in_a_recreated_topic "KIP-516; auto.offset.reset=error"
        a_producer_goes_on_in_a_recreated_topic "ProducerAppendInfo.checkSequence"
        an_open_transaction_outlives_its_topic "TransactionMarkerChannelManager"
    }
    quotas Nothing {
        a_throttled_client_loses_nothing "KIP-13, KIP-219"
    }
    settings Solitude {
        without_verification_a_late_batch_hangs "KIP-890, KAFKA-14402"
    }
    expiry Forgetfulness {
        an_unused_transactional_id_is_forgotten "KIP-98: transactional.id.expiration.ms"
        a_producer_that_does_not_write_is_forgotten "KIP-98: producer.id.expiration.ms"
        a_producer_of_old_records_is_forgotten_soon "ProducerStateManager.isProducerExpired"
        an_open_transaction_keeps_its_producer "ProducerStateManager.isProducerExpired"
        an_empty_group_forgets_its_offsets "KIP-211: offsets.retention.minutes"
    }
    failover Solitude {
        what_was_acknowledged_survives_the_leader "acks=all, KIP-101"
        a_resent_batch_is_known_to_the_next_leader "KIP-98"
        transactions_go_on_with_the_next_coordinator "KIP-98"
        a_decided_transaction_is_completed_by_the_next_coordinator "KIP-98"
        a_fence_survives_the_coordinator "KIP-98"
        a_commit_that_was_not_answered_can_be_asked_again "KIP-98; librdkafka: retriable commits"
        after_an_unknown_outcome_the_offsets_decide "KIP-98, KAFKA-9274"
        a_group_goes_on_with_the_next_coordinator "KIP-98"
        too_few_replicas_store_nothing "acks=all"
        a_producer_goes_on_with_the_next_leader "KIP-98"
    }
}
