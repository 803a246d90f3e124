//! The store in memory keeps the contract of the stores.

use std::sync::Arc;

use store_mem::MemEngine;
use sync_core::{
    store::{EngineStore, ReplicaStore},
    testing::store_suite::StoreHarness,
};

#[derive(Default)]
struct Mem(MemEngine);

impl StoreHarness for Mem {
    fn open(&self) -> Arc<dyn ReplicaStore> {
        Arc::new(EngineStore::open(self.0.clone()).expect("memory can be opened"))
    }

    fn another(&self) -> Arc<dyn ReplicaStore> {
        Arc::new(store_mem::open().expect("memory can be opened"))
    }
}

sync_core::store_suite!(Mem);
