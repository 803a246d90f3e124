//! The stores' suite beneath a running node with all transports on: what the node does with its store, and what the
//! suite does with it, leave each other alone.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, unused_imports, unused_macros, reason = "the behaviours' tests use all of it")]
#[path = "behaviours/common.rs"]
mod common;

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use common::{Keep, LONG, Wire, World};
use sync_core::{
    manager::SyncManager,
    store::{Engine, EngineRead, ReplicaStore, Scan},
    testing::store_suite::StoreHarness,
};

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

/// A reader that does not end: its snapshot, and a scan in the middle of it, are held while others commit, more than
/// both halves of redb's journal take in. They wait for nobody, and the reader sees nothing of it.
fn a_reader_that_stays_blocks_no_writer(engine: impl Engine) {
    const ROWS: u32 = 64;
    const COMMITS: u32 = 800;
    let engine = Arc::new(engine);
    fn commit(engine: &impl Engine, number: u32) {
        let rows = (0..ROWS).map(u32::to_be_bytes);
        let put = engine.write(&mut |all| rows.clone().try_for_each(|row| all.put(&row, &[number as u8; 1000])));
        put.unwrap();
    }
    commit(&*engine, 1);
    let snapshot = engine.snapshot().unwrap();
    let (sender, commits) = mpsc::channel();
    let (mut seen, mut writer) = (0, None);
    let scanned = snapshot.scan(&[], None, Scan::Forward, &mut |_, value| {
        if seen == ROWS / 2 {
            let (engine, sender) = (engine.clone(), sender.clone());
            writer = Some(std::thread::spawn(move || {
                for number in 2..COMMITS {
                    commit(&*engine, number);
                    sender.send(number).unwrap();
                }
            }));
            for number in 2..COMMITS {
                let committed = commits.recv_timeout(LONG).expect("a commit beside a reader ends");
                assert_eq!(committed, number);
            }
        }
        assert_eq!(value, [1; 1000], "the reader sees what was there when it began");
        seen += 1;
        ControlFlow::Continue(())
    });
    scanned.unwrap();
    assert_eq!(seen, ROWS);
    writer.unwrap().join().unwrap();
    assert_eq!(snapshot.get(&0u32.to_be_bytes()).unwrap().unwrap(), [1; 1000]);
    let newest = engine.snapshot().unwrap().get(&0u32.to_be_bytes()).unwrap().unwrap();
    assert_eq!(newest, [(COMMITS - 1) as u8; 1000]);
}

#[test]
fn b54_a_reader_that_stays_blocks_no_writer_in_memory() {
    a_reader_that_stays_blocks_no_writer(store_mem::MemEngine::default());
}

#[test]
fn b54_a_reader_that_stays_blocks_no_writer_on_redb() {
    let dir = tempfile::tempdir().unwrap();
    a_reader_that_stays_blocks_no_writer(store_redb::RedbEngine::open(dir.path().join("store")).unwrap());
}
