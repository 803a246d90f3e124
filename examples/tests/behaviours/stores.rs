//! Stores of an application's own: one that counts what it is asked for, and panics over one peer.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use sync_core::{
    machine::Event,
    manager::{Access, SyncManager},
    model::{Hash, Key, PeerId, ReplicaId, SecretKey, SlotRange, Summary},
    store::{
        Applied, Apply, Begun, Changes, ChangesRequest, Claim, ContentStatus, ContentStore, Download, EngineStore,
        Found, Imported, LogEntry, Missing, MissingPage, NodeKind, NodeRecord, OnProgress, Origin, Position, Query,
        Reader, Reconciled, ReplicaState, ReplicaStore, Scope, ShortId, StoreError, StoreId, Want, coded::CodedSet,
    },
};

use crate::common::*;

on_every_wire! {
    b34_work_for_one_peer_that_panics_stops_neither_the_loop_nor_the_work_for_another
}

/// A store in memory under observation.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn ReplicaStore>,
    /// What comes from this peer, and what is read of the log for it, panics.
    panics_over: Mutex<Option<PeerId>>,
    /// How often each method was called.
    calls: Mutex<BTreeMap<&'static str, usize>>,
}

impl Watched {
    fn new() -> Arc<Self> {
        let inner = Arc::new(EngineStore::open(store_mem::MemEngine::default()).unwrap());
        Arc::new(Self { inner, panics_over: Mutex::default(), calls: Mutex::default() })
    }

    fn called(&self, method: &'static str, peer: Option<PeerId>) {
        *self.calls.lock().unwrap().entry(method).or_default() += 1;
        let over = *self.panics_over.lock().unwrap();
        assert!(peer.is_none() || peer != over, "the test says so");
    }
}

/// Implements a trait: these methods in full, and those that do what the inner store does.
macro_rules! wrapped {
    ($trait:ident { $($own:tt)* } $($name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl $trait for Watched {
            $($own)*
            $(async fn $name(&self, $($arg: $type),*) -> $answer {
                self.called(stringify!($name), None);
                self.inner.$name($($arg),*).await
            })*
        }
    };
}

type Stored<T> = Result<T, StoreError>;

wrapped! {
    ReplicaStore {
        fn store_id(&self) -> StoreId {
            self.inner.store_id()
        }

        async fn apply(&self, batch: Apply) -> Stored<Applied> {
            let peer = match batch.origin {
                Origin::Peer(peer) => Some(peer),
                Origin::Local => None,
            };
            self.called("apply", peer);
            self.inner.apply(batch).await
        }

        async fn changes(&self, request: ChangesRequest) -> Stored<Changes> {
            self.called("changes", request.not_from);
            self.inner.changes(request).await
        }
    }
    replicas() -> Stored<Vec<ReplicaId>>;
    create_replica(replica: ReplicaId, records: Vec<NodeRecord>) -> Stored<()>;
    drop_replica(replica: ReplicaId, records: Vec<NodeRecord>) -> Stored<u64>;
    state(replica: ReplicaId) -> Stored<ReplicaState>;
    get(replica: ReplicaId, key: Key) -> Stored<Option<LogEntry>>;
    query_each(replica: ReplicaId, queries: Vec<Query>) -> Stored<Vec<Vec<LogEntry>>>;
    summary(replica: ReplicaId, range: SlotRange) -> Stored<Summary>;
    scope_summary(replica: ReplicaId, scope: Scope) -> Stored<Summary>;
    split(replica: ReplicaId, range: SlotRange, parts: usize) -> Stored<Vec<(SlotRange, Summary)>>;
    log(replica: ReplicaId, since: Position, limit: usize) -> Stored<Vec<LogEntry>>;
    first_claims(replica: ReplicaId, scope: Scope) -> Stored<Vec<Claim>>;
    reconcile(replica: ReplicaId, scope: Scope, claims: Vec<Claim>) -> Stored<Reconciled>;
    coded(replica: ReplicaId, since: Position, count: usize) -> Stored<Option<CodedSet>>;
    find(replica: ReplicaId, ids: Vec<ShortId>) -> Stored<Found>;
    missing(replica: ReplicaId, scope: Scope, missing: Vec<Missing>, max_bytes: usize) -> Stored<MissingPage>;
    node_records(kind: NodeKind) -> Stored<Vec<NodeRecord>>;
    save(records: Vec<NodeRecord>) -> Stored<()>;
    close() -> ();
}

wrapped! {
    ContentStore {}
    content_status(hash: Hash) -> Stored<ContentStatus>;
    import_path(path: PathBuf, older: Option<Hash>, progress: OnProgress) -> Stored<Imported>;
    import_paths(paths: Vec<PathBuf>) -> Stored<Vec<Stored<Imported>>>;
    import_bytes(bytes: Bytes) -> Stored<Imported>;
    reader(hash: Hash) -> Stored<Option<Reader>>;
    held_reader(replica: ReplicaId, hash: Hash) -> Stored<Option<Reader>>;
    wants(after: Option<Want>, limit: usize) -> Stored<Vec<Want>>;
    count_wants(replica: ReplicaId, limit: u64) -> Stored<u64>;
    references(replica: ReplicaId, hash: Hash, scope: Scope, limit: usize) -> Stored<Vec<Key>>;
    begin_download(hash: Hash, len: u64) -> Stored<Begun>;
    checkpoint_download(download: Arc<Download>) -> Stored<()>;
    finish_downloads(downloads: Vec<Arc<Download>>) -> Stored<()>;
    hold_content(replica: ReplicaId, hash: Hash) -> Stored<bool>;
    content_damaged(hash: Hash) -> Stored<()>;
    collect_content() -> Stored<u64>;
}

/// C has two peers. Its store panics when it takes in what one of them sends, or reads its log for it: the other is
/// served all the same, and the first again when the store works.
async fn b34_work_for_one_peer_that_panics_stops_neither_the_loop_nor_the_work_for_another(world: World) {
    let (a, b) = (world.node("a").await, world.node("b").await);
    let (of_a, of_b) = (a.create_replica().await.unwrap(), b.create_replica().await.unwrap());
    let store = Watched::new();
    let c = world.start(SyncManager::builder(store.clone()), "c", &[world.wire]).await;
    let third_of_a = join(&of_a, &c, Access::WRITE).await;
    let third_of_b = join(&of_b, &c, Access::WRITE).await;
    let (failing, healthy) = (a.node_id(), b.node_id());
    let fails = |event: &Event| match event {
        Event::SyncFailed { peer, reason, .. } => *peer == failing && reason.contains("panicked"),
        _ => false,
    };
    let mut events = c.events();
    *store.panics_over.lock().unwrap() = Some(failing);
    of_a.put("from a", "1").await.unwrap();
    third_of_a.put("from c", "1").await.unwrap();
    event(&mut events, "the failure is told", fails).await;
    let mut events = c.events();
    for n in 0..20 {
        of_b.put("from b", format!("{n}")).await.unwrap();
        reads(&third_of_b, "from b", &n.to_string()).await;
        third_of_b.put("answer", format!("{n}")).await.unwrap();
        reads(&of_b, "answer", &n.to_string()).await;
    }
    let disturbed = past(&mut events)
        .into_iter()
        .find(|event| matches!(event, Event::PeerDown { peer } | Event::SyncStarted { peer, .. } if *peer == healthy));
    assert_eq!(disturbed, None, "it is the session that there was");
    assert_eq!(value(&third_of_a, "from a").await, None);
    *store.panics_over.lock().unwrap() = None;
    c.retry_now().await.unwrap();
    reads(&third_of_a, "from a", "1").await;
    reads(&of_a, "from c", "1").await;
}

/// Twenty peers that nobody reaches are owed what a healthy one is sent: for it the store is not asked more often.
#[tokio::test]
async fn b49_beside_dead_peers_the_store_is_asked_no_more_for_a_healthy_one() {
    const WRITES: usize = 50;
    let world = World::new(Wire::Memory, Keep::Memory);
    let store = Watched::new();
    let a = world.start(SyncManager::builder(store.clone()), "a", &[Wire::Memory]).await;
    let b = world.node("b").await;
    let left = a.create_replica().await.unwrap();
    let right = join(&left, &b, Access::WRITE).await;
    // Who asks how things stand, and what is to be remembered of peers, is not about the healthy one.
    let calls = || {
        let calls = store.calls.lock().unwrap();
        let others = ["replicas", "state", "save", "node_records", "count_wants", "wants"];
        calls.iter().filter(|(name, _)| !others.contains(*name)).map(|(_, count)| count).sum::<usize>()
    };
    let write_all = async |name: &str| {
        peer_is(&a, left.id(), b.node_id(), "all is confirmed", |peer| peer.synced).await;
        let before = calls();
        for n in 0..WRITES {
            left.put("k", format!("{name} {n}")).await.unwrap();
            reads(&right, "k", &format!("{name} {n}")).await;
        }
        peer_is(&a, left.id(), b.node_id(), "all is confirmed", |peer| peer.synced).await;
        calls() - before
    };
    let alone = write_all("alone").await;
    for _ in 0..20 {
        let nobody = PeerId(SecretKey::generate().public());
        a.add_peer(nobody, vec![Wire::Memory.dead_address()]).await.unwrap();
        a.subscribe(left.id(), nobody).await.unwrap();
    }
    let beside = write_all("beside").await;
    assert!(alone >= WRITES && beside <= alone + alone / 10 + 2, "{alone} {beside} {:?}", store.calls);
}
