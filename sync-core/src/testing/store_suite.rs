//! The conformance suite of the stores.
//!
//! Implement [`StoreHarness`] for a type of yours and write `sync_core::store_suite!(YourHarness);`
//! in a test file: each sentence of the contract of [`crate::store::ReplicaStore`] is a test.

use std::sync::Arc;

use crate::store::ReplicaStore;

pub mod content;
pub mod history;
pub mod world;

/// Makes stores for the suite.
pub trait StoreHarness: Default + Sync {
    /// Opens the store of this harness: the same one each time, once nobody holds it any more.
    fn open(&self) -> Arc<dyn ReplicaStore>;

    /// Opens another store, empty.
    fn another(&self) -> Arc<dyn ReplicaStore>;
}

/// Makes a test of each case of the suite.
#[macro_export]
macro_rules! store_suite {
    ($harness:ty) => {
        $crate::store_suite!($harness,
            history: the_result_does_not_depend_on_the_order_of_arrival,
            content: imported_content_survives,
            content: b70_a_want_is_as_durable_as_the_entry_that_wants,
            content: b70_a_download_goes_on_at_its_checkpoint,
            content: b72_unreferenced_content_is_collected,
            content: b72_referenced_content_is_never_collected,
            content: reading_content_creates_nothing,
        );

        #[test]
        fn b50_random_histories_equal_the_reference_model() {
            let harness = <$harness>::default();
            $crate::testing::block_on($crate::testing::store_suite::history::random_history(&harness, 7, 100_000));
        }
    };
    ($harness:ty, $($module:ident: $case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                let harness = <$harness>::default();
                $crate::testing::block_on($crate::testing::store_suite::$module::$case(&harness));
            }
        )*
    };
}
