//! Gets the content that is wanted, from every peer that may have it, at once.
//!
//! One [`Fetcher`] a node. For each peer the manager runs [`Fetcher::fetch_from`] on a stream; it
//! claims runs of groups, asks for them and hands what comes to a blocking worker, which proves
//! and writes it. A bounded channel between the two is all that a fast peer can fill.

use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map::Entry},
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    Arrived, BlobError, ContentReady, MAX_DOWNLOADS, STALL_DEADLINE, WINDOW,
    choose::{Proving, View},
    pending::Pending,
    protocol::{self, Reply},
    worker::{Asked, Work, Worker},
};
use crate::{
    model::{Hash, PeerId, ReplicaId},
    store::{ContentError, ContentStore, Download, GroupRanges, Scope, StoreError, Want},
    transport::ByteStream,
};

/// How many groups one peer may have unanswered: 8 MiB keep 1 Gbit/s busy over 60 ms, and leave
/// something for other peers.
const WINDOW_GROUPS: usize = 512;

/// Pieces between the stream and the worker that writes them: 8 of at most 80 KiB.
const WRITE_QUEUE: usize = 8;

/// How often it is looked whether a checkpoint is due.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(500);

/// How long after the store failed it is tried again.
const RETRY_STORE: Duration = Duration::from_secs(5);

/// Which wants are to be fetched from whom: the replicas' download policies, and who may know of them.
#[async_trait]
pub trait WantFilter: Send + Sync + 'static {
    /// Whether its replica's policy allows it.
    async fn is_allowed(&self, want: Want) -> bool;

    /// An older version of it that the replica holds, when the store knows of none.
    async fn base(&self, want: Want) -> Option<Hash>;

    /// Asked before a peer is asked for anything: whether the content is wanted, and whether the
    /// peer may read an entry that refers to it. Nobody else is to learn that it exists.
    async fn is_wanted(&self, peer: PeerId, want: Want) -> bool;
}

/// What moved, in bytes, since the node started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentTraffic {
    /// Content and its proofs that came from peers.
    pub received: u64,
    /// Content that downloads found here, from before the start, when they began.
    pub resumed: u64,
    /// Content that downloads took from older versions.
    pub reused: u64,
}

/// A download that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadStatus {
    /// The content.
    #[serde(with = "crate::text")]
    pub hash: Hash,
    /// Its claimed length in bytes.
    pub len: u64,
    /// How many of them are here and proved.
    pub here: u64,
    /// How many of those a crash would not cost.
    pub durable: u64,
}

/// Gets what is wanted. Dropped, it stops; downloads stay at their last checkpoint.
pub struct Fetcher {
    pub(super) shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
}

pub(super) struct Shared {
    pub store: Arc<dyn ContentStore>,
    pub filter: Arc<dyn WantFilter>,
    pub me: PeerId,
    pub ready: ContentReady,
    pub pending: tokio::sync::Mutex<Pending>,
    active: Mutex<HashMap<Hash, Active>>,
    /// What a peer is being asked to prove.
    pub proving: Arc<Mutex<HashSet<(ReplicaId, Hash)>>>,
    /// Downloads that were put aside with something of them here.
    pub aside: Mutex<HashSet<Hash>>,
    changes: watch::Sender<Changes>,
    /// Some download has much that was not written out.
    pub flush: Notify,
    finished: mpsc::UnboundedSender<Finished>,
    pub received: AtomicU64,
    pub resumed: AtomicU64,
    pub reused: AtomicU64,
    /// Why contents cannot be kept, while that is so.
    failing: Mutex<Option<String>>,
    /// What peers did that are not asked for a while.
    liars: Mutex<HashMap<PeerId, String>>,
}

/// A download that runs.
pub(super) struct Active {
    pub download: Arc<Download>,
    /// Who is known to want it.
    pub replicas: Vec<ReplicaId>,
    pub checkpointed: Instant,
    /// How many of its bytes a crash would not cost.
    pub durable: u64,
}

/// What is to become durable.
pub(super) enum Finished {
    /// All of it came.
    Download(Arc<Download>),
    /// A peer of the replica has what is here.
    Proved(Arc<Proving>),
    /// What is here is not what it was.
    Damaged(Hash),
}

/// Counts of what may give a peer's asker something to do.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Changes {
    /// New wants.
    pub wants: u64,
    /// Downloads that began or ended, claims that were given up.
    pub claims: u64,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("active", &self.shared.active().len()).finish()
    }
}

impl Fetcher {
    /// A fetcher, at the node `me`, of what `store` wants and `filter` allows; says in `ready` what
    /// is here. Must be made within a tokio runtime.
    pub fn new(store: Arc<dyn ContentStore>, filter: Arc<dyn WantFilter>, ready: ContentReady, me: PeerId) -> Self {
        // Downloads and proofs that run are bounded, and each is in it once.
        let (finished, to_finish) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            store,
            filter,
            me,
            ready,
            pending: tokio::sync::Mutex::default(),
            active: Mutex::default(),
            proving: Arc::default(),
            aside: Mutex::default(),
            changes: watch::Sender::default(),
            flush: Notify::new(),
            finished,
            received: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            reused: AtomicU64::new(0),
            failing: Mutex::default(),
            liars: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&shared).finish(to_finish));
        tasks.spawn(Arc::clone(&shared).checkpoint());
        tasks.spawn(Arc::clone(&shared).flush());
        Self { shared, tasks: Mutex::new(tasks) }
    }

    /// There may be new wants.
    pub fn wake(&self) {
        self.shared.changed(|changes| changes.wants += 1);
    }

    /// Entries of a replica came or went, or its policy is another.
    pub async fn touched(&self, replica: ReplicaId) {
        self.shared.end_unwanted(replica).await;
        let mut pending = self.shared.pending().await;
        self.shared.settle(&mut pending, replica, false).await;
    }

    /// The downloads that run.
    pub fn active(&self) -> Vec<DownloadStatus> {
        let active = self.shared.active();
        let status = |active: &Active| {
            let partial = active.download.partial();
            let (hash, len) = (active.download.hash(), partial.len());
            DownloadStatus { hash, len, here: partial.verified().byte_count(len), durable: active.durable }
        };
        active.values().map(status).collect()
    }

    /// What moved since this was made.
    pub fn traffic(&self) -> ContentTraffic {
        ContentTraffic {
            received: self.shared.received.load(Ordering::Relaxed),
            resumed: self.shared.resumed.load(Ordering::Relaxed),
            reused: self.shared.reused.load(Ordering::Relaxed),
        }
    }

    /// Why contents cannot be kept here, while that is so.
    pub fn failing(&self) -> Option<String> {
        lock(&self.shared.failing).clone()
    }

    /// The peers that broke the protocol or sent wrong bytes when they were last asked, and how.
    pub fn liars(&self) -> Vec<(PeerId, String)> {
        lock(&self.shared.liars).iter().map(|(peer, what)| (*peer, what.clone())).collect()
    }

    /// Makes durable what is here, so that the next start asks for nothing twice.
    pub async fn checkpoint(&self) {
        let downloads: Vec<_> = self.shared.active().values().map(|active| Arc::clone(&active.download)).collect();
        for download in downloads {
            self.shared.checkpoint_one(download).await;
        }
    }

    /// Ends: what is here is durable, and others may go on with it.
    pub async fn close(&self) {
        self.checkpoint().await;
        self.shared.active().clear();
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }

    /// Fetches from a peer over `stream` until the stream ends. What was claimed and did not come
    /// is free for other peers then.
    pub async fn fetch_from(&self, peer: PeerId, stream: ByteStream) -> Result<(), BlobError> {
        lock(&self.shared.liars).remove(&peer);
        let result = Arc::clone(&self.shared).fetch_from(peer, stream).await;
        self.shared.changed(|changes| changes.claims += 1);
        if let Err(error) = &result {
            tracing::debug!(?peer, %error, "fetching content ended");
            match error {
                BlobError::Store(error) => self.shared.fails(error),
                error if error.is_peers_fault() => drop(lock(&self.shared.liars).insert(peer, error.to_string())),
                _ => {}
            }
        }
        result
    }
}

impl Shared {
    async fn fetch_from(self: Arc<Self>, peer: PeerId, stream: ByteStream) -> Result<(), BlobError> {
        let ByteStream { mut read, mut write } = stream;
        let view = Arc::new(Mutex::new(View::default()));
        let window = Arc::new(Semaphore::new(WINDOW));
        let groups = Arc::new(Semaphore::new(WINDOW_GROUPS));
        let (asked, unanswered) = mpsc::channel(WINDOW);
        let (work, to_do) = mpsc::channel(WRITE_QUEUE);
        let worker = Worker::new(Arc::clone(&self), peer, Arc::clone(&view), unanswered);
        let worker = tokio::task::spawn_blocking(move || worker.run(to_do));
        let outcome = {
            let mut asking = pin!(self.ask(peer, &view, [&window, &groups], asked, &mut write));
            let mut hearing = pin!(self.hear(&view, &window, work, &mut read));
            tokio::select! {
                result = &mut asking => result,
                result = &mut hearing => result,
            }
        };
        // The worker's end, if it came first, is why the others ended.
        let worked = worker.await.map_err(|_| StoreError::Failed("writing content panicked".into()))?;
        let _ = write.shutdown().await;
        worked.and(outcome)
    }

    /// Asks for one run after another, as long as the window has place.
    async fn ask(
        &self,
        peer: PeerId,
        view: &Mutex<View>,
        [window, window_groups]: [&Arc<Semaphore>; 2],
        asked: mpsc::Sender<Asked>,
        write: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), BlobError> {
        // The stream exists for the other end at its first byte.
        write.flush().await?;
        loop {
            let place = Arc::clone(window).acquire_owned().await.expect("the window is never closed");
            let task = self.next(peer, view).await?;
            let of_groups =
                Arc::clone(window_groups).acquire_many_owned(task.weight()).await.expect("it is never closed");
            let request = task.request();
            if window.available_permits() == WINDOW - 1 {
                lock(view).alive = Some(Instant::now());
            }
            // The worker must know of it before the answer can come.
            if asked.send(Asked { task, _places: [place, of_groups] }).await.is_err() {
                return Ok(());
            }
            protocol::write_ask(write, &request).await?;
            write.flush().await?;
        }
    }

    /// Hands what the peer says to the worker, until the stream ends.
    async fn hear(
        &self,
        view: &Mutex<View>,
        window: &Semaphore,
        work: mpsc::Sender<Work>,
        read: &mut (impl AsyncRead + Unpin),
    ) -> Result<(), BlobError> {
        loop {
            let reply = {
                let mut reading = pin!(protocol::read_reply(read));
                loop {
                    tokio::select! {
                        reply = &mut reading => break reply?,
                        // The worker ended, and says why.
                        () = work.closed() => return Ok(()),
                        () = tokio::time::sleep(STALL_DEADLINE / 4) => {
                            let silent = lock(view).alive.is_none_or(|alive| alive.elapsed() >= STALL_DEADLINE);
                            if silent && window.available_permits() < WINDOW {
                                return Err(BlobError::Stalled);
                            }
                        }
                    }
                }
            };
            lock(view).alive = Some(Instant::now());
            let next = match reply {
                None => return Ok(()),
                Some(Reply::Ready(replica, hash)) => {
                    lock(view).ready(replica, hash);
                    self.changed(|changes| changes.claims += 1);
                    continue;
                }
                Some(Reply::Data(bytes)) => {
                    self.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    Work::Data(bytes)
                }
                Some(Reply::Proof(proof)) => Work::Proof(proof),
                Some(Reply::Done) => Work::Done,
                Some(Reply::None) => Work::Refused(GroupRanges::empty()),
                Some(Reply::Part(groups)) => Work::Refused(groups),
            };
            if work.send(next).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Ends downloads to which no entry of a replica refers any more, so that what they have can be collected.
    async fn end_unwanted(&self, replica: ReplicaId) {
        let of_it = |active: &MutexGuard<'_, HashMap<Hash, Active>>| -> Vec<Hash> {
            let running = active.iter().filter(|(_, active)| active.replicas.contains(&replica));
            running.map(|(hash, _)| *hash).collect()
        };
        let running = of_it(&self.active());
        for hash in running {
            match self.store.references(replica, hash, Scope::all(), 1).await {
                Ok(keys) if !keys.is_empty() => {}
                // Whoever fetches a part of it just now puts it into a download that has ended.
                Ok(_) | Err(StoreError::UnknownReplica(_)) => {
                    let mut active = self.active();
                    if let Entry::Occupied(mut running) = active.entry(hash) {
                        running.get_mut().replicas.retain(|other| *other != replica);
                        if running.get().replicas.is_empty() {
                            running.remove();
                        }
                    }
                }
                Err(error) => tracing::warn!(%hash, %error, "who refers to a download could not be read"),
            }
        }
    }

    /// Hands on what is to become durable.
    pub fn finish_soon(&self, finished: Finished) {
        let sent = self.finished.send(finished);
        debug_assert!(sent.is_ok(), "the finisher ends after everybody else");
    }

    /// Makes finished downloads complete, as many at once as there are.
    async fn finish(self: Arc<Self>, mut finished: mpsc::UnboundedReceiver<Finished>) {
        let mut batch = Vec::new();
        while finished.recv_many(&mut batch, MAX_DOWNLOADS).await > 0 {
            let mut downloads = Vec::new();
            for finished in batch.drain(..) {
                match finished {
                    Finished::Download(download) => downloads.push(download),
                    Finished::Proved(proving) => self.hold(&proving).await,
                    Finished::Damaged(hash) => {
                        tracing::warn!(%hash, "content is damaged on the disk; it is fetched again");
                        if let Err(error) = self.store.content_damaged(hash).await {
                            tracing::warn!(%hash, %error, "damaged content could not be given up");
                        }
                        self.changed(|changes| changes.wants += 1);
                    }
                }
            }
            self.finish_all(downloads).await;
        }
    }

    async fn hold(&self, proving: &Proving) {
        let mut pending = self.pending().await;
        match self.store.hold_content(proving.replica, proving.hash).await {
            Ok(true) => {
                let _ = self.ready.send(Arrived::Held(proving.replica, proving.hash));
                self.settle(&mut pending, proving.replica, true).await;
            }
            // Nobody refers to it any more.
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(hash = %proving.hash, %error, "a proof could not be kept; it is asked for again");
                tokio::time::sleep(RETRY_STORE).await;
                self.changed(|changes| changes.wants += 1);
            }
        }
    }

    /// Shown until some content could be kept.
    fn fails(&self, error: &StoreError) {
        *lock(&self.failing) = Some(error.to_string());
    }

    async fn finish_all(&self, mut downloads: Vec<Arc<Download>>) {
        // Two workers may both have seen the last group.
        downloads.sort_by_key(|download| download.hash());
        downloads.dedup_by_key(|download| download.hash());
        downloads.retain(|download| self.is_active(download));
        if downloads.is_empty() {
            return;
        }
        let came: Vec<_> = downloads.iter().map(|download| (download.hash(), download.came_for_one())).collect();
        let mut pending = self.pending().await;
        let result = self.store.finish_downloads(downloads).await;
        let mut wanted_elsewhere = false;
        {
            let mut active = self.active();
            for (hash, came_for) in &came {
                let ended = active.remove(hash);
                wanted_elsewhere |= came_for.is_none() || ended.is_some_and(|active| active.replicas.len() > 1);
            }
        }
        match result {
            Ok(()) => {
                *lock(&self.failing) = None;
                let replicas: BTreeSet<ReplicaId> = came.iter().filter_map(|(_, came_for)| *came_for).collect();
                for (hash, came_for) in came {
                    // Nobody listening is no error.
                    let _ = self.ready.send(Arrived::Here(hash));
                    if let Some(replica) = came_for {
                        let _ = self.ready.send(Arrived::Held(replica, hash));
                    }
                }
                for replica in replicas {
                    self.settle(&mut pending, replica, true).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "downloaded content could not be kept; it is fetched again");
                self.fails(&error);
                tokio::time::sleep(RETRY_STORE).await;
                wanted_elsewhere = true;
            }
        }
        self.changed(|changes| {
            changes.claims += 1;
            changes.wants += u64::from(wanted_elsewhere);
        });
    }

    /// Has the disk write what came, while more comes.
    async fn flush(self: Arc<Self>) {
        loop {
            self.flush.notified().await;
            let due: Vec<_> = {
                let active = self.active();
                let due = |active: &&Active| active.download.partial().flush_due();
                active.values().filter(due).map(|active| Arc::clone(&active.download)).collect()
            };
            for download in due {
                // The next checkpoint fails like this one, and says so.
                let flushed = tokio::task::spawn_blocking(move || download.partial().flush()).await;
                tracing::trace!(?flushed, "a download is written out");
            }
        }
    }

    /// Makes checkpoints when they are due.
    async fn checkpoint(self: Arc<Self>) {
        loop {
            tokio::time::sleep(CHECKPOINT_LOOK).await;
            let due: Vec<_> = {
                let active = self.active();
                let due = |active: &&Active| active.download.partial().checkpoint_due(active.checkpointed.elapsed());
                active.values().filter(due).map(|active| Arc::clone(&active.download)).collect()
            };
            for download in due {
                self.checkpoint_one(download).await;
            }
        }
    }

    pub async fn checkpoint_one(&self, download: Arc<Download>) {
        let (hash, len) = (download.hash(), download.partial().len());
        let at_least = download.partial().verified().byte_count(len);
        match self.store.checkpoint_download(download).await {
            Ok(()) => {
                if let Some(active) = self.active().get_mut(&hash) {
                    active.checkpointed = Instant::now();
                    active.durable = at_least;
                }
            }
            // It was finished in the meantime.
            Err(StoreError::Content(error)) if matches!(*error, ContentError::Ended(_)) => {}
            Err(error) => {
                tracing::warn!(%hash, %error, "a download could not be made durable; it goes on from its last checkpoint");
                self.fails(&error);
                self.active().remove(&hash);
                self.changed(|changes| changes.wants += 1);
            }
        }
    }

    fn is_active(&self, download: &Arc<Download>) -> bool {
        self.active().get(&download.hash()).is_some_and(|active| Arc::ptr_eq(&active.download, download))
    }

    /// Tells the peers' askers.
    pub fn changed(&self, change: impl FnOnce(&mut Changes)) {
        self.changes.send_modify(change);
    }

    /// The counts of changes, to be waited for.
    pub fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }

    /// The downloads that run.
    pub fn active(&self) -> MutexGuard<'_, HashMap<Hash, Active>> {
        lock(&self.active)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
