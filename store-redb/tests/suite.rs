//! The store on redb keeps the contract of the stores.

use std::sync::Arc;

use sync_core::{store::ReplicaStore, testing::store_suite::StoreHarness};
use tempfile::TempDir;

struct Redb {
    directory: TempDir,
}

impl Default for Redb {
    fn default() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory can be made") }
    }
}

impl StoreHarness for Redb {
    fn open(&self) -> Arc<dyn ReplicaStore> {
        Arc::new(store_redb::open(self.directory.path().join("store.redb")).expect("the store can be opened"))
    }

    fn another(&self) -> Arc<dyn ReplicaStore> {
        let path = tempfile::NamedTempFile::new_in(self.directory.path()).expect("a file can be made").into_temp_path();
        Arc::new(store_redb::open(path.with_extension("redb")).expect("the store can be opened"))
    }
}

sync_core::store_suite!(Redb);
