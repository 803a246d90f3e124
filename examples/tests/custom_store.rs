//! The custom store keeps the contract of all stores.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use examples::custom_store;
use sync_core::{store::ReplicaStore, testing::store_suite::StoreHarness};

struct Sqlite {
    dir: tempfile::TempDir,
    others: AtomicUsize,
}

impl Default for Sqlite {
    fn default() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), others: AtomicUsize::new(0) }
    }
}

impl StoreHarness for Sqlite {
    fn open(&self) -> Arc<dyn ReplicaStore> {
        Arc::new(custom_store::open(self.dir.path().join("store.sqlite")).unwrap())
    }

    fn another(&self) -> Arc<dyn ReplicaStore> {
        let number = self.others.fetch_add(1, Ordering::SeqCst);
        Arc::new(custom_store::open(self.dir.path().join(format!("{number}.sqlite"))).unwrap())
    }
}

sync_core::store_suite!(Sqlite);
