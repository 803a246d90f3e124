//! Content between nodes: who is asked for what is wanted here, and who is served.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::AsyncWriteExt,
    sync::{Notify, broadcast},
    task::JoinSet,
};
use tracing::{debug, warn};

use super::{
    blobs::{Fetcher, MayRead, Server, WantFilter},
    counted::Counted,
    policy::Policies,
    shared::WallClock,
};
use crate::{
    machine::{ConnectionId, Event, wire::StreamKind},
    model::{Hash, PeerId, ReplicaId},
    store::{ReplicaStore, StoreError, Want},
    transport::{ByteStream, Connection},
};

/// How many entries that refer to a content are looked at to find one that a peer may read.
const MAX_REFERENCES: usize = 256;

/// How long after a failed exchange a peer is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// How long a peer that lied is not asked.
const PENANCE: Duration = Duration::from_secs(60);

/// How many streams for content one peer may have open here.
const MAX_STREAMS: usize = 8;

/// How long after changes what nobody refers to any more is collected.
const COLLECT_DELAY: Duration = Duration::from_secs(5);

/// How many missing contents are counted for a status; more are shown as this many.
const MAX_COUNTED: usize = 100_000;

type Links = HashMap<PeerId, Vec<(ConnectionId, Arc<dyn Connection>)>>;

/// The content side of a node. Dropping it ends its tasks.
pub(super) struct Hub {
    inner: Arc<Inner>,
    pub policies: Arc<Policies>,
    tasks: Mutex<JoinSet<()>>,
}

struct Inner {
    store: Arc<dyn ReplicaStore>,
    fetcher: Fetcher,
    server: Server,
    links: Mutex<Links>,
    fetching: Mutex<HashSet<PeerId>>,
    serving: Mutex<HashMap<PeerId, usize>>,
    sent: Arc<AtomicU64>,
    fetches: Mutex<JoinSet<()>>,
    wake: Notify,
    dirty: Notify,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hub")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a peer may have: contents of entries that it may read.
struct Readers {
    store: Arc<dyn ReplicaStore>,
    wall: WallClock,
}

#[async_trait]
impl MayRead for Readers {
    async fn may_read(&self, peer: PeerId, hash: Hash) -> bool {
        let Ok(referrers) = self.store.references(hash, MAX_REFERENCES).await else { return false };
        let now = (self.wall)();
        let mut scopes: HashMap<ReplicaId, _> = HashMap::new();
        for referrer in referrers {
            if let Entry::Vacant(unknown) = scopes.entry(referrer.replica) {
                let Ok(state) = self.store.state(referrer.replica).await else { continue };
                unknown.insert(state.rights.readable(&peer, now));
            }
            if scopes[&referrer.replica].covers(&referrer.key) {
                return true;
            }
        }
        false
    }
}

/// A content is wanted when some entry refers to it whose replica's policy says so.
struct Wanted {
    store: Arc<dyn ReplicaStore>,
    policies: Arc<Policies>,
}

#[async_trait]
impl WantFilter for Wanted {
    async fn is_wanted(&self, want: Want) -> bool {
        let Ok(referrers) = self.store.references(want.hash, MAX_REFERENCES).await else { return false };
        referrers.iter().any(|referrer| self.policies.of(&referrer.replica).allows(&referrer.key))
    }
}

impl Hub {
    /// Starts the content side of a node. Must be called within a tokio runtime.
    pub fn new(store: Arc<dyn ReplicaStore>, wall: WallClock, events: broadcast::Sender<Event>) -> Self {
        let (ready, mut became_ready) = broadcast::channel(1024);
        let policies = Arc::new(Policies::default());
        let wanted = Wanted { store: store.clone(), policies: policies.clone() };
        let readers = Readers { store: store.clone(), wall };
        let inner = Arc::new(Inner {
            fetcher: Fetcher::new(store.clone(), Arc::new(wanted), ready.clone()),
            server: Server::new(store.clone(), Arc::new(readers), ready),
            store,
            links: Mutex::default(),
            fetching: Mutex::default(),
            serving: Mutex::default(),
            sent: Arc::default(),
            fetches: Mutex::default(),
            wake: Notify::new(),
            dirty: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                match became_ready.recv().await {
                    // Nobody listening is no error.
                    Ok(hash) => drop(events.send(Event::ContentReady { hash })),
                    Err(broadcast::error::RecvError::Lagged(missed)) => debug!(missed, "content events"),
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
        tasks.spawn(collect(inner.clone()));
        let hub = Self { inner: inner.clone(), policies, tasks: Mutex::new(tasks) };
        lock(&hub.tasks).spawn(assign(inner));
        hub
    }

    /// Entries came or went: there may be new wants, and content that nobody needs.
    pub fn changed(&self) {
        self.inner.wake.notify_one();
        self.inner.dirty.notify_one();
    }

    /// A connection whose peer is known: content can be asked for over it.
    pub fn linked(&self, peer: PeerId, id: ConnectionId, connection: Arc<dyn Connection>) {
        lock(&self.inner.links).entry(peer).or_default().push((id, connection));
        self.inner.wake.notify_one();
    }

    /// A connection has ended.
    pub fn unlinked(&self, id: ConnectionId) {
        lock(&self.inner.links).retain(|_, links| {
            links.retain(|(other, _)| *other != id);
            !links.is_empty()
        });
    }

    /// A peer asks for content on this stream.
    pub fn serve(&self, peer: PeerId, stream: ByteStream) {
        let inner = self.inner.clone();
        {
            let mut serving = lock(&inner.serving);
            let count = serving.entry(peer).or_default();
            if *count >= MAX_STREAMS {
                debug!(?peer, "too many streams for content");
                return;
            }
            *count += 1;
        }
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        let write = Box::new(Counted { inner: stream.write, bytes: inner.sent.clone() });
        let stream = ByteStream { read: stream.read, write };
        tasks.spawn(async move {
            if let Err(error) = inner.server.serve(peer, stream).await {
                debug!(?peer, %error, "serving content ended");
            }
            let mut serving = lock(&inner.serving);
            if let Some(count) = serving.get_mut(&peer) {
                *count -= 1;
                if *count == 0 {
                    serving.remove(&peer);
                }
            }
        });
    }

    /// How many bytes went to peers.
    pub fn sent(&self) -> u64 {
        self.inner.sent.load(Ordering::Relaxed)
    }

    /// The downloads that run: hash, bytes here, length.
    pub fn downloads(&self) -> Vec<(Hash, u64, u64)> {
        self.inner.fetcher.active()
    }

    /// How many contents that entries of each replica refer to are not here.
    pub async fn missing(&self) -> Result<HashMap<ReplicaId, u64>, StoreError> {
        let mut missing = HashMap::new();
        let (mut after, mut counted) = (None, 0);
        loop {
            let page = self.inner.store.wants(after, 1000).await?;
            let Some(last) = page.last() else { return Ok(missing) };
            after = Some(last.hash);
            for want in &page {
                let mut replicas: Vec<_> = self.inner.store.references(want.hash, MAX_REFERENCES).await?;
                replicas.sort_by_key(|referrer| referrer.replica);
                replicas.dedup_by_key(|referrer| referrer.replica);
                for referrer in replicas {
                    *missing.entry(referrer.replica).or_default() += 1;
                }
            }
            counted += page.len();
            if counted >= MAX_COUNTED {
                return Ok(missing);
            }
        }
    }

    /// Stops fetching and makes durable what is here in part.
    pub async fn close(&self) {
        lock(&self.inner.links).clear();
        // Each is waited for: when this returns nothing of the content side holds the store.
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.shutdown().await;
        let mut fetches = std::mem::take(&mut *lock(&self.inner.fetches));
        fetches.shutdown().await;
        self.inner.fetcher.close().await;
    }
}

/// Whenever something is wanted, sees to it that every linked peer is asked.
async fn assign(inner: Arc<Inner>) {
    loop {
        inner.wake.notified().await;
        while lock(&inner.fetches).try_join_next().is_some() {}
        match inner.store.wants(None, 1).await {
            Ok(wants) if wants.is_empty() => continue,
            Ok(_) => {}
            Err(error) => {
                warn!(%error, "what content is wanted could not be read");
                continue;
            }
        }
        inner.fetcher.wake();
        let peers: Vec<PeerId> = lock(&inner.links).keys().copied().collect();
        for peer in peers {
            if lock(&inner.fetching).insert(peer) {
                lock(&inner.fetches).spawn(fetch(inner.clone(), peer));
            }
        }
    }
}

/// Fetches from a peer as long as there is a link to it.
async fn fetch(inner: Arc<Inner>, peer: PeerId) {
    let mut failed = None;
    loop {
        let next = {
            let links = lock(&inner.links);
            let known = links.get(&peer).map(Vec::as_slice).unwrap_or_default();
            // Another link than the one that just failed, if there is one.
            known.iter().find(|(id, _)| Some(*id) != failed).or(known.first()).cloned()
        };
        let Some((id, connection)) = next else { break };
        let opened = async {
            let mut stream = connection.open().await.ok()?;
            stream.write.write_all(&[StreamKind::Content as u8]).await.ok()?;
            Some(stream)
        };
        let pause = match opened.await {
            Some(stream) => match inner.fetcher.fetch_from(peer, stream).await {
                Err(error) if error.is_peers_fault() => PENANCE,
                Ok(()) | Err(_) => RETRY,
            },
            None => RETRY,
        };
        failed = Some(id);
        tokio::time::sleep(pause).await;
    }
    lock(&inner.fetching).remove(&peer);
    // A link that came up just now must not be missed.
    inner.wake.notify_one();
}

/// Collects what nobody refers to any more, a while after changes.
async fn collect(inner: Arc<Inner>) {
    loop {
        inner.dirty.notified().await;
        tokio::time::sleep(COLLECT_DELAY).await;
        loop {
            match inner.store.collect_content().await {
                Ok(0) => break,
                Ok(removed) => debug!(removed, "content that nobody refers to"),
                Err(error) => {
                    warn!(%error, "content that nobody refers to could not be removed");
                    break;
                }
            }
        }
    }
}
