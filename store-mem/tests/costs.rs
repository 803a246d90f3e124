//! What the logic above an engine costs it: how many commits, and how many bytes.

use std::{
    future::Future,
    ops::ControlFlow,
    pin::pin,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Context, Waker},
};

use store_mem::{MemEngine, MemRows};
use sync_core::{
    model::VerifiedBundle,
    store::{Engine, EngineRead, EngineStore, Scan, StoreError, Work},
    testing::{
        block_on,
        store_suite::world::{World, put},
    },
};

/// Counts commits, and holds them back while it is told to.
#[derive(Debug, Clone, Default)]
struct Gated {
    inner: MemEngine,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Debug, Default)]
struct Gate {
    commits: usize,
    is_closed: bool,
}

impl Gated {
    fn with<T>(&self, change: impl FnOnce(&mut Gate) -> T) -> T {
        let result = change(&mut self.gate.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.gate.1.notify_all();
        result
    }

    fn wait_while(&self, holds: impl Fn(&mut Gate) -> bool) {
        let gate = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.gate.1.wait_while(gate, holds));
    }
}

impl Engine for Gated {
    type Snapshot = MemRows;

    fn snapshot(&self) -> Result<MemRows, StoreError> {
        self.inner.snapshot()
    }

    fn write(&self, work: Work<'_>) -> Result<(), StoreError> {
        self.with(|gate| gate.commits += 1);
        self.wait_while(|gate| gate.is_closed);
        self.inner.write(work)
    }
}

/// What comes while a commit is under way waits for it and then shares the next one: a hundred writers, one flush.
#[test]
fn writes_that_wait_share_one_commit() {
    let world = World::default();
    let engine = Gated::default();
    let store = EngineStore::open(engine.clone()).expect("memory can be opened");
    let store = block_on(world.create(Arc::new(store)));
    let before = engine.with(|gate| {
        gate.is_closed = true;
        gate.commits
    });
    let commits: Vec<_> = (0..100).map(|n| world.commit(0, n, vec![put(&format!("{n}"), "x")])).collect();
    let mut writes: Vec<_> = commits.into_iter().map(|commit| Box::pin(world.apply(&*store, vec![commit]))).collect();
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(&mut writes[0]).poll(&mut context).is_pending());
    engine.wait_while(|gate| gate.commits == before);
    for write in &mut writes[1..] {
        assert!(pin!(write).poll(&mut context).is_pending(), "nothing is acknowledged before it is committed");
    }
    engine.with(|gate| gate.is_closed = false);
    for write in writes {
        assert_eq!(block_on(write).inserted(), 1);
    }
    assert_eq!(engine.with(|gate| gate.commits) - before, 2, "the first, and all the others together");
}

/// How often a commit's signature stands in the rows.
fn signatures(engine: &MemEngine, bundle: &VerifiedBundle) -> usize {
    let signature = bundle.seal().signature.0;
    let mut count = 0;
    let snapshot = engine.snapshot().expect("memory can be read");
    let scanned = snapshot.scan(&[], None, Scan::Forward, &mut |_, value| {
        count += value.windows(signature.len()).filter(|part| *part == signature).count();
        ControlFlow::Continue(())
    });
    scanned.expect("memory can be read");
    count
}

#[test]
fn a_commits_seal_is_stored_once_until_its_last_entry_is_gone() {
    const ENTRIES: i64 = 50;
    let world = World::default();
    let engine = MemEngine::default();
    let store = EngineStore::open(engine.clone()).expect("memory can be opened");
    let store = block_on(world.create(Arc::new(store)));
    let bundle = world.commit(0, 0, (0..ENTRIES).map(|n| put(&format!("{n:02}"), "first")).collect());
    block_on(world.apply(&*store, vec![bundle.clone()]));
    assert_eq!(signatures(&engine, &bundle), 1);
    for n in 0..ENTRIES - 1 {
        block_on(world.apply(&*store, vec![world.commit(0, 100 + n, vec![put(&format!("{n:02}"), "second")])]));
        assert_eq!(signatures(&engine, &bundle), 1, "some of its entries live");
    }
    block_on(world.apply(&*store, vec![world.commit(0, 1000, vec![put(&format!("{:02}", ENTRIES - 1), "second")])]));
    assert_eq!(signatures(&engine, &bundle), 0, "nobody needs it");
}
