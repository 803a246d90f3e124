//! Content between nodes: who is asked for what is wanted here, and who is served.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    sync::{Notify, broadcast, watch},
    task::JoinSet,
};
use tracing::{debug, warn};

use super::{
    blobs::{Arrived, ContentReady, ContentTraffic, DownloadStatus, Fetcher, Server},
    counted::Counted,
    policy::Policies,
    shared::WallClock,
    wanted::{Readers, Wanted},
};
use crate::{
    machine::{ConnectionId, Event, Obstacle, wire::StreamKind},
    model::{Hash, PeerId, ReplicaId},
    store::{Position, ReplicaState, ReplicaStore, StoreError},
    transport::{ByteStream, Connection},
};

/// How long after a failed exchange a peer is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// How long a peer that lied is not asked.
const PENANCE: Duration = Duration::from_secs(60);

/// How many streams for content one peer may have open here.
const MAX_STREAMS: usize = 8;

/// How long after changes what nobody refers to any more is collected.
const COLLECT_DELAY: Duration = Duration::from_secs(5);

/// And so often without changes: a download or an import may have held back what was to go.
const COLLECT_AGAIN: Duration = Duration::from_secs(30);

/// Of how many contents of one commit peers are told that they are here. Who is not asks again in time.
const MAX_TOLD: usize = 256;

/// How many missing contents are counted for a status; more are shown as this many.
const MAX_COUNTED: u64 = 100_000;

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
    ready: ContentReady,
    links: Mutex<Links>,
    fetching: Mutex<HashSet<PeerId>>,
    serving: Mutex<HashMap<PeerId, usize>>,
    sent: Arc<AtomicU64>,
    fetches: Mutex<JoinSet<()>>,
    /// Replicas whose wants may be others.
    touched: Mutex<HashSet<ReplicaId>>,
    plain: Mutex<Plain>,
    wake: Notify,
    dirty: Notify,
    settle: Notify,
}

/// The replicas that had no blobs when they were last seen, and at which position: what changes there is nothing to the
/// content side, and looking at it would cost more than a small write does.
#[derive(Debug, Default)]
struct Plain(HashMap<ReplicaId, (Position, bool)>);

impl Plain {
    /// Whether blobs may have come or gone since the replica was last seen, now that it has so many.
    fn may_concern(&mut self, replica: ReplicaId, head: Position, blobs: u64) -> bool {
        let is_plain = blobs == 0;
        let seen = self.0.entry(replica).or_insert((Position(0), false));
        let was_plain = seen.1;
        // Who wrote first may tell last.
        if head >= seen.0 {
            *seen = (head, is_plain);
        }
        !(was_plain && is_plain)
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hub")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Starts the content side of the node `me`. Must be called within a tokio runtime.
    pub fn new(
        store: Arc<dyn ReplicaStore>,
        me: PeerId,
        wall: WallClock,
        events: broadcast::Sender<Event>,
        progress: watch::Sender<u64>,
    ) -> Self {
        let (ready, mut arrivals) = broadcast::channel(1024);
        let policies = Arc::new(Policies::default());
        let readers = Arc::new(Readers { store: store.clone(), wall });
        let wanted = Arc::new(Wanted { store: store.clone(), policies: policies.clone(), readers: readers.clone() });
        let inner = Arc::new(Inner {
            fetcher: Fetcher::new(store.clone(), wanted, ready.clone(), me),
            server: Server::new(store.clone(), readers, ready.clone(), me),
            ready,
            store,
            links: Mutex::default(),
            fetching: Mutex::default(),
            serving: Mutex::default(),
            sent: Arc::default(),
            fetches: Mutex::default(),
            touched: Mutex::default(),
            plain: Mutex::default(),
            wake: Notify::new(),
            dirty: Notify::new(),
            settle: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                match arrivals.recv().await {
                    // Nobody listening is no error.
                    Ok(Arrived::Here(hash)) => drop(events.send(Event::ContentReady { hash })),
                    Ok(Arrived::All(replica)) => drop(events.send(Event::PendingContentReady { replica })),
                    Ok(Arrived::Held(..)) => {}
                    Err(broadcast::error::RecvError::Lagged(missed)) => debug!(missed, "content events"),
                    Err(broadcast::error::RecvError::Closed) => return,
                }
                progress.send_modify(|version| *version += 1);
            }
        });
        tasks.spawn(collect(inner.clone()));
        tasks.spawn(settle(inner.clone()));
        let hub = Self { inner: inner.clone(), policies, tasks: Mutex::new(tasks) };
        lock(&hub.tasks).spawn(assign(inner));
        hub
    }

    /// Entries of a replica came or went.
    pub fn observe(&self, state: &ReplicaState) {
        let replica = state.rights.replica();
        if lock(&self.inner.plain).may_concern(replica, state.head, state.blobs) {
            self.changed(replica);
        }
    }

    /// The replica is gone.
    pub fn forget(&self, replica: ReplicaId) {
        lock(&self.inner.plain).0.remove(&replica);
        // Nobody waits for its downloads any more.
        self.changed(replica);
    }

    /// Blobs of a replica came or went, or its policy is another: there may be new wants, and content that
    /// nobody needs.
    pub fn changed(&self, replica: ReplicaId) {
        lock(&self.inner.touched).insert(replica);
        self.inner.wake.notify_one();
        self.inner.dirty.notify_one();
        self.inner.settle.notify_one();
    }

    /// Contents were written into a replica here: peers that asked for them before can have them.
    pub fn written(&self, replica: ReplicaId, blobs: Vec<Hash>) {
        for hash in blobs.into_iter().take(MAX_TOLD) {
            // Nobody listening is no error.
            let _ = self.inner.ready.send(Arrived::Held(replica, hash));
        }
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

    /// The downloads that run.
    pub fn downloads(&self) -> Vec<DownloadStatus> {
        self.inner.fetcher.active()
    }

    /// What keeps contents from coming.
    pub fn obstacles(&self) -> Vec<Obstacle> {
        let obstacle = |subject: String, cause, advice: &str| Obstacle {
            subject,
            replica: None,
            cause,
            since: None,
            next_try: None,
            advice: advice.into(),
        };
        let failing = self.inner.fetcher.failing().map(|cause| {
            let advice = "make space, or see to the disk; it goes on by itself";
            obstacle("contents on this device".into(), cause, advice)
        });
        let liars = self.inner.fetcher.liars().into_iter().map(|(peer, cause)| {
            let advice = "nothing: others are asked, and it is again in a minute; if it stays so, see to its disk";
            obstacle(format!("contents from peer {}", peer.short()), cause, advice)
        });
        failing.into_iter().chain(liars).collect()
    }

    /// What moved since the node started.
    pub fn traffic(&self) -> ContentTraffic {
        self.inner.fetcher.traffic()
    }

    /// How many contents a replica wants and does not hold.
    pub async fn missing(&self, replica: ReplicaId) -> Result<u64, StoreError> {
        self.inner.store.count_wants(replica, MAX_COUNTED).await
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

    /// Ends what is still under way, without waiting.
    pub fn cut_off(&self) {
        lock(&self.inner.links).clear();
        lock(&self.tasks).abort_all();
        lock(&self.inner.fetches).abort_all();
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

/// Notices when wants end without having been fulfilled, or begin.
async fn settle(inner: Arc<Inner>) {
    loop {
        inner.settle.notified().await;
        let touched = std::mem::take(&mut *lock(&inner.touched));
        for replica in touched {
            inner.fetcher.touched(replica).await;
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

/// Collects what nobody refers to any more, a while after changes, and now and then.
async fn collect(inner: Arc<Inner>) {
    loop {
        let _ = tokio::time::timeout(COLLECT_AGAIN, inner.dirty.notified()).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SecretKey;

    #[test]
    fn what_changes_in_a_replica_without_blobs_concerns_the_content_side_only_when_it_had_some() {
        let [notes, photos] = [1, 2].map(|seed| ReplicaId(SecretKey::from_bytes([seed; 32]).public()));
        let mut plain = Plain::default();
        // The first time nobody knows what was there before.
        assert!(plain.may_concern(notes, Position(1), 0));
        assert!(!plain.may_concern(notes, Position(2), 0));
        // One blob for another is as many.
        assert!(plain.may_concern(photos, Position(3), 1));
        assert!(plain.may_concern(photos, Position(4), 1));
        assert!(plain.may_concern(photos, Position(5), 0), "the last one went");
        assert!(!plain.may_concern(photos, Position(6), 0));
        assert!(!plain.may_concern(notes, Position(7), 0));
        assert!(plain.may_concern(notes, Position(8), 1), "the first one came");
        assert!(plain.may_concern(notes, Position(1), 0), "that is old news");
        assert!(plain.may_concern(notes, Position(20), 0), "and it may go now");
    }
}
