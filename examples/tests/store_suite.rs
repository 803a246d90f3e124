//! The stores' suite beneath a running node with all transports on: what the node does with its store, and what the
//! suite does with it, leave each other alone.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, unused_imports, unused_macros, reason = "the behaviours' tests use all of it")]
#[path = "behaviours/common.rs"]
mod common;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use common::{Keep, LONG, Wire, World};
use sync_core::{manager::SyncManager, store::ReplicaStore, testing::store_suite::StoreHarness};

/// Opens its stores by starting nodes on them.
struct Managed<const ON_DISK: bool> {
    world: World,
    /// The node on the store of this harness, and those on others.
    node: Mutex<Option<SyncManager>>,
    others: Mutex<Vec<SyncManager>>,
    names: AtomicUsize,
    runtime: tokio::runtime::Runtime,
}

impl<const ON_DISK: bool> Default for Managed<ON_DISK> {
    fn default() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let keep = if ON_DISK { Keep::Redb } else { Keep::Memory };
        Self {
            world: World::new(Wire::Memory, keep),
            node: Mutex::default(),
            others: Mutex::default(),
            names: AtomicUsize::new(0),
            runtime,
        }
    }
}

impl<const ON_DISK: bool> Managed<ON_DISK> {
    fn start(&self, name: &str) -> SyncManager {
        let node = self.runtime.block_on(self.world.node_on(name, &Wire::ALL));
        let listening = self.runtime.block_on(node.transports()).unwrap();
        assert!(listening.len() == Wire::ALL.len() && listening.iter().all(|one| !one.addresses.is_empty()));
        node
    }
}

impl<const ON_DISK: bool> StoreHarness for Managed<ON_DISK> {
    fn open(&self) -> Arc<dyn ReplicaStore> {
        let mut running = self.node.lock().unwrap();
        if let Some(node) = running.take() {
            self.runtime.block_on(node.shutdown(LONG)).unwrap();
        }
        running.insert(self.start("suite")).store().clone()
    }

    fn another(&self) -> Arc<dyn ReplicaStore> {
        let node = self.start(&format!("another {}", self.names.fetch_add(1, Ordering::Relaxed)));
        let store = node.store().clone();
        self.others.lock().unwrap().push(node);
        store
    }
}

mod b50_mem {
    sync_core::store_suite!(super::Managed<false>, 5_000);
}

mod b50_redb {
    sync_core::store_suite!(super::Managed<true>, 5_000);
}
