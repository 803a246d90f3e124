//! The store in memory keeps the contract of the stores.

use std::sync::Arc;

use store_mem::MemEngine;
use sync_core::{
    store::{ContentDir, EngineStore, ReplicaStore},
    testing::store_suite::StoreHarness,
};

struct Mem(MemEngine, ContentDir);

impl Default for Mem {
    fn default() -> Self {
        Self(MemEngine::default(), ContentDir::in_memory())
    }
}

impl StoreHarness for Mem {
    fn open(&self) -> Arc<dyn ReplicaStore> {
        Arc::new(EngineStore::open_beside(self.0.clone(), self.1.clone()).expect("memory can be opened"))
    }

    fn another(&self) -> Arc<dyn ReplicaStore> {
        Arc::new(store_mem::open().expect("memory can be opened"))
    }
}

sync_core::store_suite!(Mem);
