//! The conformance suite of the stores.
//!
//! Implement [`StoreHarness`] for a type of yours and write `sync_core::store_suite!(YourHarness);`
//! in a test file: each sentence of the contract of [`crate::store::ReplicaStore`] is a test.

use std::sync::Arc;

use crate::store::ReplicaStore;

pub mod apply;
pub mod content;
pub mod history;
pub mod log;
pub mod read;
pub mod reconcile;
pub mod world;

/// Makes stores for the suite.
pub trait StoreHarness: Sync {
    /// Opens the store of this harness: the same one each time, once nobody holds it any more.
    fn open(&self) -> Arc<dyn ReplicaStore>;

    /// Opens another store, empty.
    fn another(&self) -> Arc<dyn ReplicaStore>;
}

/// Calls the macro `$then` with the module and the name of each case, but the one of random histories.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_store_case {
    ($then:path $(, $argument:tt)*) => {
        $then! {
            [$($argument),*]
            apply: b50_apply_is_durable,
            apply: b54_apply_is_atomic,
            apply: apply_answers_each_entry,
            history: the_result_does_not_depend_on_the_order_of_arrival,
            content: imported_content_survives,
            content: b70_a_want_is_as_durable_as_the_entry_that_wants,
            content: b64_a_replica_holds_what_was_written_into_it_or_came_for_it,
            content: references_stay_inside_the_scope,
            content: an_older_version_is_not_collected_while_the_new_one_is_on_its_way,
            content: an_import_over_an_older_version_is_whole_whatever_becomes_of_that,
            content: b70_a_download_goes_on_at_its_checkpoint,
            content: b72_unreferenced_content_is_collected,
            content: b72_referenced_content_is_never_collected,
            content: reading_content_creates_nothing,
            apply: rights_are_checked_on_every_entry,
            apply: entries_from_the_future_wait,
            apply: b51_a_failed_apply_changes_nothing,
            apply: concurrent_applies_are_all_there,
            read: get_answers_the_newest_value_across_authors,
            read: b50_writers_in_the_same_microsecond_have_one_winner,
            read: b56_a_querys_winner_does_not_depend_on_its_direction,
            read: queries_that_are_asked_together_answer_in_their_order,
            read: b50_prefixes_are_byte_prefixes,
            read: summary_equals_recomputation_and_split_covers,
            read: blobs_come_back,
            log: the_change_log_has_one_row_per_live_entry,
            log: changes_prove_what_they_send,
            log: a_commit_that_fits_is_never_torn,
            log: changes_leave_out_what_came_from_the_peer_and_what_is_outside,
            log: changes_say_by_which_rights_they_were_read,
            reconcile: reconciliation_finds_every_difference,
            reconcile: reconciliation_stays_inside_the_scope,
            reconcile: many_authors_at_one_key_are_reconciled,
            reconcile: claims_out_of_order_or_too_many_are_refused,
            reconcile: an_answer_that_leaves_claims_out_says_so,
            reconcile: coded_symbols_are_of_what_is_there,
            reconcile: entries_are_found_by_their_ids,
            reconcile: what_ranges_that_overlap_have_in_common_is_proved,
            apply: state_counts_blobs_and_bytes,
            apply: the_store_id_stays,
            apply: b55_a_dropped_replica_leaves_nothing,
            apply: an_unknown_replica_is_an_error,
            apply: creating_again_changes_nothing,
            apply: records_of_a_refused_local_batch_are_not_kept,
            apply: b45_records_are_kept_by_kind_and_name,
            apply: a_closed_store_refuses,
        }
    };
}

macro_rules! names {
    ([] $($module:ident: $case:ident,)*) => {
        /// The names of all cases.
        pub const CASES: &[&str] = &[$(stringify!($case),)* "b50_random_histories_equal_the_reference_model"];
    };
}

for_each_store_case!(names);

/// Makes a test of each case of the suite. Random histories have 100,000 operations, or as many as are asked for.
#[macro_export]
macro_rules! store_suite {
    ($harness:ty) => {
        $crate::store_suite!($harness, 100_000);
    };
    ($harness:ty, $operations:literal) => {
        $crate::for_each_store_case!($crate::store_suite_tests, $harness);

        #[test]
        fn b50_random_histories_equal_the_reference_model() {
            let harness = <$harness>::default();
            $crate::testing::block_on($crate::testing::store_suite::history::random_history(&harness, 7, $operations));
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! store_suite_tests {
    ([$harness:ty] $($module:ident: $case:ident,)*) => {
        $($crate::store_suite_tests!(@one $harness, $module, $case);)*
    };
    (@one $harness:ty, $module:ident, $case:ident) => {
        #[test]
        fn $case() {
            let harness = <$harness>::default();
            $crate::testing::block_on($crate::testing::store_suite::$module::$case(&harness));
        }
    };
}
