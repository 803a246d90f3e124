//! What a node does by itself: keys, authors, queries, handles, removal.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use sync_core::{
    machine::{Event, SyncOutcome},
    manager::{Access, ManagerError},
    model::{AuthorId, HybridClock, Key, Op, SecretKey, Timestamp, Value, sign_commit},
    store::{
        Apply, Direction, Engine, EngineRead, EngineStore, NodeKind, Origin, Outcome, Query, ReplicaStore, Scan,
        Select, StoreError, Visit, Work,
    },
};
use tokio::sync::oneshot;

use crate::common::*;

on_every_store! {
    b47_authors_are_created_listed_imported_exported_and_deleted
    b50_prefixes_are_bytes_and_writers_of_one_microsecond_agree
    b52_a_write_beneath_the_manager_is_published_once
    b53_what_was_there_before_the_manager_is_offered_and_racing_writes_are_not_lost
    b54_readers_see_a_snapshot_and_block_nobody
    b55_a_dropped_replica_leaves_no_trace
    b56_queries_by_key_prefix_author_order_and_limit
    b57_an_unloaded_replica_misses_nothing
}

on_every_wire! {
    b34_a_store_that_fails_stops_neither_the_node_nor_other_peers_and_loses_nothing
    b34_a_panic_over_one_peer_stops_neither_the_loop_nor_the_frames_of_another
    b34_work_that_panics_stops_neither_the_loop_nor_other_peers
}

async fn b50_prefixes_are_bytes_and_writers_of_one_microsecond_agree(world: World) {
    let keys: Vec<Vec<u8>> = ["a", "a1", "a::b", "a:", "%", "_", "a%", "b", "\u{ff}"]
        .iter()
        .map(|key| key.as_bytes().to_vec())
        .chain([vec![b'a'; 1024], vec![0xff; 1024], vec![b'z', 0, b'z']])
        .collect();
    // Both clocks stand still at the same microsecond.
    let still = || Timestamp(1_800_000_000_000_000);
    let a = world.start(world.builder("a").wall_clock(still), "a", &Wire::ALL).await;
    let b = world.start(world.builder("b").wall_clock(still), "b", &Wire::ALL).await;
    let left = a.create_replica().await.unwrap();
    let right = join(&left, &b, Access::WRITE).await;
    for address in a.addresses().await.unwrap() {
        let report = b.sync_with(address, left.id(), LONG).await.unwrap();
        assert_eq!(report.outcome, SyncOutcome::Synced);
    }
    assert_eq!(b.peers().await.unwrap()[0].links.len(), Wire::ALL.len(), "a link over each");
    let (second, other) = (a.open_replica(left.id()).await.unwrap(), right.clone());
    for key in &keys {
        let (one, two) = tokio::join!(second.put(key, "left"), other.put(key, "right"));
        one.and(two).unwrap();
    }
    equal(&[&left, &right]).await;
    for key in &keys {
        assert_eq!(left.get(key).await.unwrap().unwrap().hash, right.get(key).await.unwrap().unwrap().hash);
        assert_eq!(left.get_all(key).await.unwrap().len(), 2, "{}", key.escape_ascii());
        let prefixed = right.query(Query { prefix: key.clone().into(), ..Query::default() }).await.unwrap();
        let found: Vec<_> = prefixed.iter().map(|entry| entry.entry.op.key_bytes().to_vec()).collect();
        let mut wanted: Vec<_> = keys.iter().filter(|other| other.starts_with(key)).cloned().collect();
        wanted.sort();
        assert_eq!(found, wanted, "{}", key.escape_ascii());
    }
    left.delete("a").await.unwrap();
    left.delete_prefix("%").await.unwrap();
    equal(&[&left, &right]).await;
    assert!(right.get("a").await.unwrap().is_none());
    assert!(right.get("a1").await.unwrap().is_some(), "a delete is not a prefix delete");
    assert!(right.get("_").await.unwrap().is_some());
    let root = right.state().await.unwrap().root;
    b.shutdown(LONG).await.unwrap();
    drop((b, right, other));
    let b = world.builder("b").spawn().await.unwrap();
    assert_eq!(b.open_replica(left.id()).await.unwrap().state().await.unwrap().root, root);
    for bad in [&b""[..], &[b'x'; 1025], b"\0system"] {
        assert!(matches!(left.put(bad, "v").await, Err(ManagerError::Entry(_))), "{}", bad.escape_ascii());
    }
}

async fn b47_authors_are_created_listed_imported_exported_and_deleted(world: World) {
    let a = world.node("a").await;
    let default = a.default_author();
    assert_eq!(default.0, a.node_id().0);
    assert_eq!(a.authors().await.unwrap(), [default]);
    let made = a.create_author().await.unwrap();
    let elsewhere = SecretKey::generate();
    let imported = a.import_author(elsewhere.clone()).await.unwrap();
    assert_eq!(a.import_author(elsewhere).await.unwrap(), imported);
    let listed = a.authors().await.unwrap();
    assert_eq!((listed.len(), listed[0]), (3, default));
    assert!(listed.contains(&made) && listed.contains(&imported));
    let exported = a.export_author(made).await.unwrap();
    assert_eq!(AuthorId(exported.public()), made);
    // Each writes as itself, here and at the peer.
    let replica = a.create_replica().await.unwrap();
    let as_made = a.open_replica_as(replica.id(), made).await.unwrap();
    as_made.put("k", "made").await.unwrap();
    replica.put("k", "default").await.unwrap();
    let b = world.node("b").await;
    let joined = join(&replica, &b, Access::READ).await;
    let authors: Vec<_> = joined.get_all("k").await.unwrap().iter().map(|entry| entry.entry.author).collect();
    assert_eq!(authors, [default, made]);
    // They stay over a restart; the default one cannot go.
    a.delete_author(imported).await.unwrap();
    assert!(matches!(a.delete_author(imported).await, Err(ManagerError::UnknownAuthor(_))));
    assert!(matches!(a.delete_author(default).await, Err(ManagerError::DefaultAuthor)));
    let id = replica.id();
    a.shutdown(LONG).await.unwrap();
    drop((a, replica, as_made));
    let a = world.node("a").await;
    let listed = a.authors().await.unwrap();
    assert_eq!(listed, [default, made]);
    assert!(matches!(a.open_replica_as(id, imported).await, Err(ManagerError::UnknownAuthor(_))));
    a.open_replica_as(id, made).await.unwrap().put("k", "again").await.unwrap();
}

async fn b52_a_write_beneath_the_manager_is_published_once(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    a.flush(LONG).await.unwrap();
    let mut events = a.events();
    let key = a.export_author(a.default_author()).await.unwrap();
    let state = left.state().await.unwrap();
    let op = Op::Put { key: Key::try_from(&b"beneath"[..]).unwrap(), value: Value::Inline("x".into()) };
    let now = state.newest.plus(std::time::Duration::from_secs(1));
    let bundle = sign_commit(left.id(), &key, &HybridClock::new(state.newest), now, vec![op]).unwrap();
    let batch = Apply { replica: left.id(), bundles: vec![bundle], origin: Origin::Local, now, records: Vec::new() };
    let applied = a.store().apply(batch).await.unwrap();
    assert!(matches!(applied.outcomes[..], [Outcome::Inserted { .. }]));
    // The next handle is the refresh.
    let refreshed = a.open_replica(left.id()).await.unwrap();
    let again = a.open_replica(left.id()).await.unwrap();
    reads(&right, "beneath", "x").await;
    a.flush(LONG).await.unwrap();
    let written: Vec<_> =
        past(&mut events).into_iter().filter(|event| matches!(event, Event::Written { .. })).collect();
    assert_eq!(written, [Event::Written { replica: left.id(), entries: 1 }]);
    again.put("through", "y").await.unwrap();
    reads(&right, "through", "y").await;
    let written = past(&mut events).into_iter().filter(|event| matches!(event, Event::Written { .. })).count();
    assert_eq!(written, 1, "a write through the manager is announced exactly once");
    drop((refreshed, b));
}

async fn b53_what_was_there_before_the_manager_is_offered_and_racing_writes_are_not_lost(world: World) {
    let offline = world.builder("a").spawn().await.unwrap();
    let replica = offline.create_replica().await.unwrap();
    fill(&replica, "before ", 100).await;
    let id = replica.id();
    offline.shutdown(LONG).await.unwrap();
    drop((offline, replica));
    let a = world.builder("a").spawn().await.unwrap();
    let left = a.open_replica(id).await.unwrap();
    // Writes race with the start of listening and with the peer's first contact.
    let writing = {
        let left = left.clone();
        tokio::spawn(async move {
            for n in 0..100 {
                left.put(format!("racing {n}"), "x").await.unwrap();
            }
        })
    };
    world.register(&a, "late", world.wire, "a").await;
    a.accept_connections().await.unwrap();
    let b = world.node("b").await;
    let right = b.join(left.share(Access::READ).await.unwrap()).await.unwrap();
    soon("the writer ends", writing).await.unwrap();
    equal(&[&left, &right]).await;
    assert!(value(&right, "racing 99").await.is_some() && value(&right, "before 00099").await.is_some());
}

async fn b54_readers_see_a_snapshot_and_block_nobody(world: World) {
    let a = world.node("a").await;
    let replica = a.create_replica().await.unwrap();
    let (reader, over) = (replica.clone(), Arc::new(AtomicBool::new(false)));
    let stop = over.clone();
    let reading = tokio::spawn(async move {
        let mut reads = 0;
        while !stop.load(Ordering::SeqCst) {
            let seen: Vec<_> = reader.query(Query::default()).await.unwrap();
            let values: Vec<_> = seen
                .iter()
                .map(|entry| format!("{:?}", entry.entry.op).split("value").last().unwrap().to_string())
                .collect();
            assert!(values.is_empty() || values.len() == 20, "{}", values.len());
            assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "one transaction or another, never parts");
            reads += 1;
        }
        reads
    });
    for round in 0..60 {
        let mut transaction = replica.write();
        for key in 0..20 {
            transaction.put(format!("{key:02}"), format!("{round}")).await.unwrap();
        }
        soon("a commit beside readers", transaction.commit()).await.unwrap();
    }
    over.store(true, Ordering::SeqCst);
    assert!(reading.await.unwrap() > 0);
}

async fn b55_a_dropped_replica_leaves_no_trace(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let other = b.create_replica().await.unwrap();
    fill(&left, "k", 500).await;
    equal(&[&left, &right]).await;
    let id = left.id();
    assert_eq!(b.open_handles(id), 1);
    let second = b.open_replica(id).await.unwrap();
    assert_eq!(b.open_handles(id), 2, "handles are counted");
    drop((second, right));
    assert_eq!(b.open_handles(id), 0);
    let freed = b.drop_replica(id).await.unwrap();
    assert!(freed > 500 * 20, "{freed} bytes freed");
    assert_eq!(b.replicas().await.unwrap(), [other.id()]);
    assert!(b.open_replica(id).await.is_err());
    assert!(b.status().await.unwrap().replicas.iter().all(|replica| replica.id != id));
    assert_eq!(b.sync_with(a.node_id(), id, LONG).await.unwrap().outcome, SyncOutcome::UnknownReplica);
    assert!(b.subscribe(id, a.node_id()).await.is_err());
    let jobs = b.store().node_records(NodeKind::Job).await.unwrap();
    assert!(jobs.iter().all(|job| !job.name.starts_with(id.as_bytes())), "{jobs:?}");
    // A changes and tries; B takes nothing. A still has all of it.
    fill(&left, "more ", 5).await;
    let report = a.sync_with(b.node_id(), id, LONG).await.unwrap();
    assert!(matches!(report.outcome, SyncOutcome::Refused(_)), "{report:?}");
    assert!(b.open_replica(id).await.is_err());
    assert!(value(&left, "k00499").await.is_some());
    // Joining anew brings it back.
    let back = join(&left, &b, Access::WRITE).await;
    assert_eq!(back.state().await.unwrap().root, left.state().await.unwrap().root);
}

async fn b56_queries_by_key_prefix_author_order_and_limit(world: World) {
    let Pair { left, right, a, b } = pair(&world).await;
    for key in ["a", "a/1", "a/2", "a/3", "b"] {
        left.put(key, "left").await.unwrap();
    }
    equal(&[&left, &right]).await;
    right.put("a/2", "right").await.unwrap();
    right.delete("a/3").await.unwrap();
    equal(&[&left, &right]).await;
    for replica in [&left, &right] {
        let keys = async |query: Query| -> Vec<String> {
            let found = replica.query(query).await.unwrap();
            found.iter().map(|entry| String::from_utf8(entry.entry.op.key_bytes().to_vec()).unwrap()).collect()
        };
        let all = Query::default;
        assert_eq!(keys(all()).await, ["a", "a/1", "a/2", "b"]);
        assert_eq!(keys(Query { prefix: "a/".into(), ..all() }).await, ["a/1", "a/2"]);
        assert_eq!(keys(Query { key: Some("a".into()), ..all() }).await, ["a"]);
        assert_eq!(keys(Query { direction: Direction::Descending, ..all() }).await, ["b", "a/2", "a/1", "a"]);
        assert_eq!(keys(Query { limit: 2, ..all() }).await, ["a", "a/1"]);
        assert_eq!(keys(Query { start_after: Some("a/1".into()), ..all() }).await, ["a/2", "b"]);
        let back = Query { start_after: Some("a/2".into()), direction: Direction::Descending, ..all() };
        assert_eq!(keys(back).await, ["a/1", "a"]);
        assert_eq!(keys(Query { select: Select::All, prefix: "a/2".into(), ..all() }).await, ["a/2", "a/2"]);
        assert_eq!(keys(Query { tombstones: true, prefix: "a/".into(), ..all() }).await, ["a/1", "a/2", "a/3"]);
        let by_right = Query { author: Some(right.author()), ..all() };
        assert_eq!(keys(by_right).await, ["a/2"]);
        // The winner never depends on the direction.
        for direction in [Direction::Ascending, Direction::Descending] {
            let found = replica.query(Query { key: Some("a/2".into()), direction, ..all() }).await.unwrap();
            assert_eq!(found[0].hash, replica.get("a/2").await.unwrap().unwrap().hash);
        }
    }
    drop((a, b));
}

async fn b57_an_unloaded_replica_misses_nothing(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let (id, position) = (right.id(), right.head());
    drop(right);
    assert_eq!(b.open_handles(id), 0);
    let mut events = b.events();
    left.put("while unloaded", "1").await.unwrap();
    event(&mut events, "it comes in", |event| matches!(event, Event::Received { .. })).await;
    let right = b.open_replica(id).await.unwrap();
    assert_eq!(value(&right, "while unloaded").await.unwrap(), b"1");
    let mut watch = right.watch("", position);
    assert_eq!(&watch.next().await.unwrap().entry.op.key_bytes()[..], b"while unloaded");
    left.put("live", "2").await.unwrap();
    assert_eq!(&soon("the watch goes on", watch.next()).await.unwrap().entry.op.key_bytes()[..], b"live");
    drop((a, watch));
}

/// An engine that fails, or panics, when it is told to.
#[derive(Debug, Clone)]
struct MoodyEngine {
    inner: store_mem::MemEngine,
    fails: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
}

impl MoodyEngine {
    fn new() -> Self {
        Self { inner: store_mem::MemEngine::default(), fails: Arc::default(), panics: Arc::default() }
    }
}

impl Engine for MoodyEngine {
    type Snapshot = store_mem::MemRows;

    fn snapshot(&self) -> Result<Self::Snapshot, StoreError> {
        self.inner.snapshot()
    }

    fn write(&self, work: Work<'_>) -> Result<(), StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::DiskFull("the test says so".into()));
        }
        assert!(!self.panics.load(Ordering::SeqCst), "the test says so");
        self.inner.write(work)
    }
}

async fn b34_a_store_that_fails_stops_neither_the_node_nor_other_peers_and_loses_nothing(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let engine = MoodyEngine::new();
    let fails = engine.fails.clone();
    let store: Arc<dyn ReplicaStore> = Arc::new(EngineStore::open(engine).unwrap());
    let c = world.start(sync_core::manager::SyncManager::builder(store), "c", &[world.wire]).await;
    let third = join(&left, &c, Access::WRITE).await;
    fails.store(true, Ordering::SeqCst);
    assert!(third.put("mine", "x").await.is_err(), "a failed write is not acknowledged");
    assert_eq!(third.get("mine").await.unwrap(), None);
    left.put("to all", "1").await.unwrap();
    reads(&right, "to all", "1").await;
    peer_is(&c, left.id(), a.node_id(), "the failure is shown", |peer| {
        peer.last_error.as_ref().is_some_and(|error| error.contains("disk is full"))
    })
    .await;
    assert_eq!(value(&third, "to all").await, None);
    fails.store(false, Ordering::SeqCst);
    third.put("mine", "y").await.unwrap();
    c.retry_now().await.unwrap();
    equal(&[&left, &right, &third]).await;
    assert_eq!(value(&left, "mine").await.unwrap(), b"y");
    drop(b);
}

/// A disk that refuses the end of a replica leaves one that works on: nothing that is written there stays alone.
#[tokio::test]
async fn b55_a_replica_whose_end_the_disk_refuses_is_offered_and_synced_as_before() {
    let world = World::new(Wire::Memory, Keep::Memory);
    let engine = MoodyEngine::new();
    let fails = engine.fails.clone();
    let store: Arc<dyn ReplicaStore> = Arc::new(EngineStore::open(engine).unwrap());
    let a = world.start(sync_core::manager::SyncManager::builder(store), "a", &[world.wire]).await;
    let left = a.create_replica().await.unwrap();
    let b = world.node("b").await;
    let right = join(&left, &b, Access::WRITE).await;
    equal(&[&left, &right]).await;
    let push = sync_core::machine::Direction::Push;
    left.set_direction(push).await.unwrap();
    fails.store(true, Ordering::SeqCst);
    assert!(a.drop_replica(left.id()).await.is_err(), "the disk is full");
    fails.store(false, Ordering::SeqCst);
    assert!(a.status().await.unwrap().replicas[0].direction == push, "it goes the way that was set");
    assert!(a.status().await.unwrap().replicas.iter().any(|replica| replica.id == left.id()));
    left.put("after it", "1").await.unwrap();
    assert_eq!(b.sync_with(a.node_id(), left.id(), LONG).await.unwrap().outcome, SyncOutcome::Synced);
    reads(&right, "after it", "1").await;
}

/// An engine in which a scan stops at its second row, or a write before it begins, once, until it is told to go on.
#[derive(Debug, Clone, Default)]
struct HaltingEngine {
    inner: store_mem::MemEngine,
    halt: Arc<Mutex<Option<Halt>>>,
    halt_write: Arc<Mutex<Option<Halt>>>,
}

/// Whom to tell that a scan has stopped, and who says that it may go on.
type Halt = (oneshot::Sender<()>, mpsc::Receiver<()>);

struct HaltingRows(store_mem::MemRows, Arc<Mutex<Option<Halt>>>);

impl Engine for HaltingEngine {
    type Snapshot = HaltingRows;

    fn snapshot(&self) -> Result<HaltingRows, StoreError> {
        Ok(HaltingRows(self.inner.snapshot()?, self.halt.clone()))
    }

    fn write(&self, work: Work<'_>) -> Result<(), StoreError> {
        let halt = self.halt_write.lock().unwrap().take();
        if let Some((halted, go_on)) = halt {
            halted.send(()).unwrap();
            go_on.recv().unwrap();
        }
        self.inner.write(work)
    }
}

impl EngineRead for HaltingRows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, order: Scan, visit: Visit<'_>) -> Result<(), StoreError> {
        let mut rows = 0;
        self.0.scan(start, end, order, &mut |key, value| {
            rows += 1;
            let halt = if rows == 2 { self.1.lock().unwrap().take() } else { None };
            if let Some((halted, go_on)) = halt {
                halted.send(()).unwrap();
                go_on.recv().unwrap();
            }
            visit(key, value)
        })
    }
}

/// A query stands still in the middle of its rows: commits and other reads go on, and it sees nothing of them.
#[tokio::test]
async fn b54_a_query_that_stands_still_blocks_no_writer() {
    let engine = HaltingEngine::default();
    let halt = engine.halt.clone();
    let store: Arc<dyn ReplicaStore> = Arc::new(EngineStore::open(engine).unwrap());
    let a = sync_core::manager::SyncManager::builder(store).spawn().await.unwrap();
    let replica = a.create_replica().await.unwrap();
    fill(&replica, "k", 20).await;
    let ((sender, halted), (go_on, waits)) = (oneshot::channel(), mpsc::channel());
    *halt.lock().unwrap() = Some((sender, waits));
    let reader = replica.clone();
    let reading = tokio::spawn(async move { reader.query(Query::default()).await.unwrap() });
    soon("the query is among its rows", halted).await.unwrap();
    for n in 0..20 {
        soon("a commit beside a query", replica.put("z", format!("{n}"))).await.unwrap();
        assert_eq!(value(&replica, "z").await.unwrap(), n.to_string().as_bytes());
    }
    soon("a deletion beside a query", replica.delete_prefix("k")).await.unwrap();
    assert!(!reading.is_finished());
    go_on.send(()).unwrap();
    let found = soon("the query ends", reading).await.unwrap();
    let keys: Vec<_> = found.iter().map(|entry| entry.entry.op.key_bytes().clone()).collect();
    let wanted: Vec<_> = (0..20).map(|n| format!("k{n:05}")).collect();
    assert_eq!(keys, wanted, "it reads what was there when it began");
    assert_eq!(replica.query(Query::default()).await.unwrap().len(), 1);
}

/// A disk stands still in the middle of a write: until it is durable nobody is told of it, here or at a peer that asks.
#[tokio::test]
async fn b51_a_write_that_is_not_durable_yet_is_neither_acknowledged_nor_told_nor_offered() {
    let world = World::new(Wire::Memory, Keep::Memory);
    let engine = HaltingEngine::default();
    let halt = engine.halt_write.clone();
    let store: Arc<dyn ReplicaStore> = Arc::new(EngineStore::open(engine).unwrap());
    let a = world.start(sync_core::manager::SyncManager::builder(store), "a", &[world.wire]).await;
    let left = a.create_replica().await.unwrap();
    let b = world.node("b").await;
    let right = join(&left, &b, Access::WRITE).await;
    left.put("before", "1").await.unwrap();
    equal(&[&left, &right]).await;
    a.flush(LONG).await.unwrap();
    let mut events = a.events();
    let ((sender, halted), (go_on, waits)) = (oneshot::channel(), mpsc::channel());
    *halt.lock().unwrap() = Some((sender, waits));
    let writer = left.clone();
    let writing = tokio::spawn(async move { writer.put("under way", "1").await });
    soon("the disk stands still", halted).await.unwrap();
    let asked = b.sync_with(a.node_id(), right.id(), LONG).await.unwrap();
    assert_eq!(asked.outcome, SyncOutcome::Synced, "with what is durable");
    for replica in [&left, &right] {
        assert_eq!(value(replica, "under way").await, None);
    }
    assert!(!writing.is_finished(), "it is not acknowledged");
    let told = past(&mut events).into_iter().find(|event| matches!(event, Event::Written { .. }));
    assert_eq!(told, None);
    go_on.send(()).unwrap();
    soon("it is durable", writing).await.unwrap().unwrap();
    reads(&right, "under way", "1").await;
    event(&mut events, "it is told", |event| matches!(event, Event::Written { .. })).await;
}

/// A disk stands still, and the end waits for it no longer: what was begun is not acknowledged, and nothing is begun after.
#[tokio::test]
async fn b53_after_an_end_that_ran_out_of_time_nothing_is_written() {
    let engine = HaltingEngine::default();
    let halt = engine.halt_write.clone();
    let store: Arc<dyn ReplicaStore> = Arc::new(EngineStore::open(engine).unwrap());
    let a = sync_core::manager::SyncManager::builder(store).spawn().await.unwrap();
    let replica = a.create_replica().await.unwrap();
    let ((sender, halted), (go_on, waits)) = (oneshot::channel(), mpsc::channel());
    *halt.lock().unwrap() = Some((sender, waits));
    let writer = replica.clone();
    let begun = tokio::spawn(async move { writer.put("begun", "1").await });
    soon("the disk stands still", halted).await.unwrap();
    assert!(matches!(a.shutdown(Duration::from_millis(1)).await, Err(ManagerError::TimedOut(_))));
    let late = soon("it is refused at once", replica.put("late", "1")).await;
    assert!(matches!(late, Err(ManagerError::Closed)), "{late:?}");
    go_on.send(()).unwrap();
    assert!(matches!(soon("it ends", begun).await.unwrap(), Err(ManagerError::Closed)), "told to nobody");
    assert_eq!(value(&replica, "late").await, None);
}

/// C has two peers. Whoever reads what comes from one of them panics: what comes from the other is taken all the same,
/// and the loop goes on.
async fn b34_a_panic_over_one_peer_stops_neither_the_loop_nor_the_frames_of_another(world: World) {
    // C dials A over a transport whose reads can panic, and B over another.
    let other = if world.wire == Wire::Http { Wire::Quic } else { Wire::Http };
    let (a, b) = (world.node("a").await, world.node_on("b", &[other]).await);
    let (of_a, of_b) = (a.create_replica().await.unwrap(), b.create_replica().await.unwrap());
    let c = world.builder("c").spawn().await.unwrap();
    let (transport, mood) = Moody::new(world.transport(world.wire, "c").await);
    c.add_transport("moody", transport).await.unwrap();
    world.register(&c, "plain", other, "c").await;
    let third_of_a = join(&of_a, &c, Access::WRITE).await;
    let third_of_b = join(&of_b, &c, Access::WRITE).await;
    of_b.put("before", "1").await.unwrap();
    reads(&third_of_b, "before", "1").await;
    let mut events = c.events();
    mood.panics.store(true, Ordering::SeqCst);
    of_a.put("lost in a panic", "1").await.unwrap();
    for n in 0..20 {
        of_b.put("after", format!("{n}")).await.unwrap();
        reads(&third_of_b, "after", &n.to_string()).await;
        third_of_b.put("answer", format!("{n}")).await.unwrap();
        reads(&of_b, "answer", &n.to_string()).await;
    }
    let healthy = b.node_id();
    let disturbed = past(&mut events)
        .into_iter()
        .find(|event| matches!(event, Event::PeerDown { peer } | Event::SyncStarted { peer, .. } if *peer == healthy));
    assert_eq!(disturbed, None, "it is the session that there was");
    assert_eq!(c.status().await.unwrap().replicas.len(), 2);
    assert_eq!(value(&third_of_a, "lost in a panic").await, None);
    // It is lost for good only to that link.
    mood.panics.store(false, Ordering::SeqCst);
    c.block_peer(a.node_id()).await.unwrap();
    c.unblock_peer(a.node_id()).await.unwrap();
    reads(&third_of_a, "lost in a panic", "1").await;
}

async fn b34_work_that_panics_stops_neither_the_loop_nor_other_peers(world: World) {
    let Pair { a, b, left, right } = pair(&world).await;
    let key = SecretKey::generate();
    let engine = MoodyEngine::new();
    let start = async || {
        let store: Arc<dyn ReplicaStore> = Arc::new(EngineStore::open(engine.clone()).unwrap());
        let builder = sync_core::manager::SyncManager::builder(store).node_key(key.clone());
        world.start(builder, "c", &[world.wire]).await
    };
    let c = start().await;
    let third = join(&left, &c, Access::WRITE).await;
    third.put("acknowledged", "1").await.unwrap();
    engine.panics.store(true, Ordering::SeqCst);
    assert!(third.put("mine", "x").await.is_err(), "the caller hears of it");
    left.put("to all", "1").await.unwrap();
    reads(&right, "to all", "1").await;
    // The loop of C still answers; its store takes nothing more, since nobody knows what it was about to do.
    assert_eq!(c.peers().await.unwrap().len(), 1);
    assert!(third.put("mine", "x").await.is_err());
    c.shutdown(LONG).await.unwrap();
    drop((c, third));
    engine.panics.store(false, Ordering::SeqCst);
    let c = start().await;
    let third = c.open_replica(left.id()).await.unwrap();
    third.put("mine", "y").await.unwrap();
    equal(&[&left, &right, &third]).await;
    assert_eq!(value(&left, "mine").await.unwrap(), b"y");
    assert_eq!(value(&left, "acknowledged").await.unwrap(), b"1");
    drop((a, b));
}
