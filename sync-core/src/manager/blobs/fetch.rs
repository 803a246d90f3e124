//! Gets the content that is wanted, from every peer that may have it, at once.
//!
//! One [`Fetcher`] a node. For each peer the manager runs [`Fetcher::fetch_from`] on a stream; it
//! claims runs of groups, asks for them and hands what comes to a blocking worker, which proves
//! and writes it. A bounded channel between the two is all that a fast peer can fill.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use sync_content::Claim;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    ASK_AGAIN, ASK_AGAIN_MAX, BlobError, ContentReady, MAX_DOWNLOADS, MAX_REMEMBERED, STALL_DEADLINE, WINDOW,
    protocol::{self, Get, Reply},
};
use crate::{
    model::{Hash, PeerId},
    store::{Begun, ContentError, ContentStore, Download, GroupRanges, StoreError, Want},
    transport::ByteStream,
};

/// A claim's groups: 1 MiB. Small enough that several peers share a content evenly, large enough
/// that requests and repeated pairs cost nothing.
const CLAIM_GROUPS: u64 = 64;

/// How many groups one peer may have unanswered: 8 MiB keep 1 Gbit/s busy over 60 ms, and leave
/// something for other peers.
const WINDOW_GROUPS: usize = 512;

/// Pieces between the stream and the worker that writes them: 8 of at most 80 KiB.
const WRITE_QUEUE: usize = 8;

/// How many wants are read from the store at a time.
const WANTS_PAGE: usize = 256;

/// How often it is looked whether a checkpoint is due.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(500);

/// How long after the store failed it is tried again.
const RETRY_STORE: Duration = Duration::from_secs(5);

/// Which wants are to be fetched: the replicas' download policies.
#[async_trait]
pub trait WantFilter: Send + Sync + 'static {
    /// Asked before a download begins.
    async fn is_wanted(&self, want: Want) -> bool;
}

/// Gets what is wanted. Dropped, it stops; downloads stay at their last checkpoint.
pub struct Fetcher {
    shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
}

struct Shared {
    store: Arc<dyn ContentStore>,
    filter: Arc<dyn WantFilter>,
    ready: ContentReady,
    active: Mutex<HashMap<Hash, Active>>,
    changes: watch::Sender<Changes>,
    finished: mpsc::UnboundedSender<Arc<Download>>,
}

/// A download that runs.
struct Active {
    download: Arc<Download>,
    checkpointed: Instant,
}

/// Counts of what may give a peer's asker something to do.
#[derive(Debug, Clone, Copy, Default)]
struct Changes {
    /// New wants.
    wants: u64,
    /// Downloads that began or ended, claims that were given up.
    claims: u64,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("active", &self.shared.active().len()).finish()
    }
}

impl Fetcher {
    /// A fetcher of what `store` wants and `filter` allows; says in `ready` what is complete.
    /// Must be made within a tokio runtime.
    pub fn new(store: Arc<dyn ContentStore>, filter: Arc<dyn WantFilter>, ready: ContentReady) -> Self {
        // At most MAX_DOWNLOADS are in it: each is in `active` until it was taken out of here.
        let (finished, to_finish) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            store,
            filter,
            ready,
            active: Mutex::default(),
            changes: watch::Sender::default(),
            finished,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&shared).finish(to_finish));
        tasks.spawn(Arc::clone(&shared).checkpoint());
        Self { shared, tasks: Mutex::new(tasks) }
    }

    /// There may be new wants.
    pub fn wake(&self) {
        self.shared.changed(|changes| changes.wants += 1);
    }

    /// The downloads that run: hash, proved bytes and length of each.
    pub fn active(&self) -> Vec<(Hash, u64, u64)> {
        let active = self.shared.active();
        let partials = active.values().map(|active| active.download.partial());
        partials
            .map(|partial| (partial.hash().into(), partial.verified().byte_count(partial.len()), partial.len()))
            .collect()
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
        let result = Arc::clone(&self.shared).fetch_from(stream).await;
        self.shared.changed(|changes| changes.claims += 1);
        if let Err(error) = &result {
            tracing::debug!(?peer, %error, "fetching content ended");
        }
        result
    }
}

/// A request that is not answered yet.
struct Asked {
    download: Arc<Download>,
    claim: Claim,
    /// Places in the window, free when this is dropped: one, and one for each group.
    _places: [OwnedSemaphorePermit; 2],
}

/// What one peer is known to have or not.
#[derive(Default)]
struct View {
    /// What it said when it did not give all that was asked for.
    answers: HashMap<Hash, Answer>,
    /// Wants that were read from the store and not looked at yet.
    page: VecDeque<Want>,
    /// The last want that was read.
    cursor: Option<Hash>,
    /// All wants were looked at; new ones have come since if `Changes::wants` is another number.
    exhausted: Option<(u64, Instant)>,
    /// Whether the last request was for a download that ran already: new and old take turns, so
    /// that a large content does not keep the small ones waiting.
    resumed_last: bool,
    /// When something was asked with nothing else unanswered, or last heard.
    alive: Option<Instant>,
}

struct Answer {
    at: Instant,
    /// How long it counts.
    lasts: Duration,
    has: GroupRanges,
}

impl View {
    /// What may be asked of it: all, or what it said it has.
    fn has(&self, hash: &Hash) -> Option<&GroupRanges> {
        self.answers.get(hash).filter(|answer| answer.at.elapsed() < answer.lasts).map(|answer| &answer.has)
    }

    fn refused(&mut self, hash: Hash, has: GroupRanges) {
        if self.answers.len() >= MAX_REMEMBERED {
            // Asking again for all of it costs less than the memory of a peer that has nothing.
            self.answers.clear();
        }
        let lasts = self.answers.get(&hash).map_or(ASK_AGAIN, |before| (before.lasts * 2).min(ASK_AGAIN_MAX));
        self.answers.insert(hash, Answer { at: Instant::now(), lasts, has });
    }
}

/// Work for the blocking side.
enum Work {
    Data(Bytes),
    Done,
    Refused(GroupRanges),
}

impl Shared {
    async fn fetch_from(self: Arc<Self>, stream: ByteStream) -> Result<(), BlobError> {
        let ByteStream { mut read, mut write } = stream;
        let view = Arc::new(Mutex::new(View::default()));
        let window = Arc::new(Semaphore::new(WINDOW));
        let groups = Arc::new(Semaphore::new(WINDOW_GROUPS));
        let (asked, unanswered) = mpsc::channel(WINDOW);
        let (work, to_do) = mpsc::channel(WRITE_QUEUE);
        let worker = Worker { shared: Arc::clone(&self), view: Arc::clone(&view), unanswered, current: None };
        let worker = tokio::task::spawn_blocking(move || worker.run(to_do));
        let outcome = {
            let mut asking = pin!(self.ask(&view, [&window, &groups], asked, &mut write));
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
        view: &Mutex<View>,
        [window, window_groups]: [&Arc<Semaphore>; 2],
        asked: mpsc::Sender<Asked>,
        write: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), BlobError> {
        // The stream exists for the other end at its first byte.
        write.flush().await?;
        loop {
            let place = Arc::clone(window).acquire_owned().await.expect("the window is never closed");
            let (download, claim) = self.next(view).await?;
            let groups = claim.groups();
            let count = (groups.end - groups.start) as u32;
            let of_groups = Arc::clone(window_groups).acquire_many_owned(count).await.expect("it is never closed");
            let get =
                Get { hash: download.hash(), len: download.partial().len(), start: groups.start, end: groups.end };
            if window.available_permits() == WINDOW - 1 {
                lock(view).alive = Some(Instant::now());
            }
            // The worker must know of it before the answer can come.
            if asked.send(Asked { download, claim, _places: [place, of_groups] }).await.is_err() {
                return Ok(());
            }
            protocol::write_get(write, &get).await?;
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
                Some(Reply::Ready(hash)) => {
                    let mut view = lock(view);
                    view.answers.remove(&hash);
                    view.exhausted = None;
                    drop(view);
                    self.changed(|changes| changes.claims += 1);
                    continue;
                }
                Some(Reply::Data(bytes)) => Work::Data(bytes),
                Some(Reply::Done) => Work::Done,
                Some(Reply::None) => Work::Refused(GroupRanges::empty()),
                Some(Reply::Part(groups)) => Work::Refused(groups),
            };
            if work.send(next).await.is_err() {
                return Ok(());
            }
        }
    }

    /// The next run to ask this peer for; waits until there is one.
    async fn next(&self, view: &Mutex<View>) -> Result<(Arc<Download>, Claim), BlobError> {
        let mut changes = self.changes.subscribe();
        loop {
            let seen = *changes.borrow_and_update();
            let resume_first = !lock(view).resumed_last;
            if resume_first && let Some(found) = self.resume(view) {
                lock(view).resumed_last = true;
                return Ok(found);
            }
            if let Some(found) = self.begin(view, seen).await? {
                lock(view).resumed_last = false;
                return Ok(found);
            }
            if !resume_first && let Some(found) = self.resume(view) {
                lock(view).resumed_last = true;
                return Ok(found);
            }
            // Nothing: until something changes, or it is time to ask again for what was refused.
            if tokio::time::timeout(ASK_AGAIN, changes.changed()).await.is_err() {
                lock(view).exhausted = None;
            }
        }
    }

    /// A run of a download that goes on already.
    fn resume(&self, view: &Mutex<View>) -> Option<(Arc<Download>, Claim)> {
        let view = lock(view);
        let active = self.active();
        active.values().find_map(|active| {
            let download = &active.download;
            let claim = match view.has(&download.hash()) {
                Some(has) => download.partial().claim_of(has, CLAIM_GROUPS)?,
                None => download.partial().claim(CLAIM_GROUPS)?,
            };
            Some((Arc::clone(download), claim))
        })
    }

    /// The first run of a download that nobody has begun.
    async fn begin(&self, view: &Mutex<View>, seen: Changes) -> Result<Option<(Arc<Download>, Claim)>, BlobError> {
        loop {
            if self.active().len() >= MAX_DOWNLOADS && !self.put_aside().await {
                return Ok(None);
            }
            let Some(want) = self.next_want(view, seen).await? else { return Ok(None) };
            let skip =
                self.active().contains_key(&want.hash) || lock(view).has(&want.hash).is_some_and(GroupRanges::is_empty);
            if skip || !self.filter.is_wanted(want).await {
                continue;
            }
            let Begun::Ours(download) = self.store.begin_download(want.hash, want.len).await? else { continue };
            let download = Arc::new(download);
            let claim = match lock(view).has(&want.hash) {
                Some(has) => download.partial().claim_of(has, CLAIM_GROUPS),
                None => download.partial().claim(CLAIM_GROUPS),
            };
            let active = Active { download: Arc::clone(&download), checkpointed: Instant::now() };
            self.active().insert(want.hash, active);
            self.changed(|changes| changes.claims += 1);
            match claim {
                // Empty content proves itself, and what was complete at the checkpoint is complete.
                _ if download.partial().is_complete() => self.finish_soon(download),
                Some(claim) => return Ok(Some((download, claim))),
                None => {}
            }
        }
    }

    /// Makes place for others: downloads of which nobody fetches anything, because those who were
    /// asked do not have it, go back to the wants. False when all are being fetched.
    async fn put_aside(&self) -> bool {
        let idle: Vec<_> = self
            .active()
            .extract_if(|_, active| {
                let partial = active.download.partial();
                !partial.is_claimed() && !partial.is_complete()
            })
            .map(|(_, active)| active.download)
            .collect();
        let any = !idle.is_empty();
        for download in idle {
            if download.partial().unsynced_bytes() > 0 {
                self.checkpoint_one(download).await;
            }
        }
        if any {
            self.changed(|changes| changes.wants += 1);
        }
        any
    }

    async fn next_want(&self, view: &Mutex<View>, seen: Changes) -> Result<Option<Want>, StoreError> {
        let from = {
            let mut view = lock(view);
            if let Some(want) = view.page.pop_front() {
                return Ok(Some(want));
            }
            match view.exhausted {
                Some((wants, at)) if wants == seen.wants && at.elapsed() < ASK_AGAIN => return Ok(None),
                _ => view.exhausted = None,
            }
            view.cursor
        };
        let page = self.store.wants(from, WANTS_PAGE).await?;
        let mut view = lock(view);
        view.cursor = page.last().filter(|_| page.len() == WANTS_PAGE).map(|want| want.hash);
        if view.cursor.is_none() {
            view.exhausted = Some((seen.wants, Instant::now()));
        }
        view.page.extend(page);
        Ok(view.page.pop_front())
    }

    /// Nobody needs to ask for anything of it any more.
    fn finish_soon(&self, download: Arc<Download>) {
        // Only once: whoever takes it out of the map. It stays on the way to the finisher.
        let finished = self.finished.send(download);
        debug_assert!(finished.is_ok(), "the finisher ends after everybody else");
    }

    /// Makes finished downloads complete, as many at once as there are.
    async fn finish(self: Arc<Self>, mut finished: mpsc::UnboundedReceiver<Arc<Download>>) {
        let mut batch = Vec::new();
        while finished.recv_many(&mut batch, MAX_DOWNLOADS).await > 0 {
            // Two workers may both have seen the last group.
            batch.sort_by_key(|download| download.hash());
            batch.dedup_by_key(|download| download.hash());
            batch.retain(|download| self.is_active(download));
            if batch.is_empty() {
                continue;
            }
            let hashes: Vec<Hash> = batch.iter().map(|download| download.hash()).collect();
            let result = self.store.finish_downloads(std::mem::take(&mut batch)).await;
            {
                let mut active = self.active();
                hashes.iter().for_each(|hash| drop(active.remove(hash)));
            }
            match result {
                Ok(()) => hashes.into_iter().for_each(|hash| drop(self.ready.send(hash))),
                Err(error) => {
                    tracing::warn!(%error, "downloaded content could not be kept; it is fetched again");
                    tokio::time::sleep(RETRY_STORE).await;
                    self.changed(|changes| changes.wants += 1);
                }
            }
            self.changed(|changes| changes.claims += 1);
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

    async fn checkpoint_one(&self, download: Arc<Download>) {
        let hash = download.hash();
        match self.store.checkpoint_download(download).await {
            Ok(()) => {
                if let Some(active) = self.active().get_mut(&hash) {
                    active.checkpointed = Instant::now();
                }
            }
            // It was finished in the meantime.
            Err(StoreError::Content(error)) if matches!(*error, ContentError::Ended(_)) => {}
            Err(error) => {
                tracing::warn!(%hash, %error, "a download could not be made durable; it goes on from its last checkpoint");
                self.active().remove(&hash);
                self.changed(|changes| changes.wants += 1);
            }
        }
    }

    fn is_active(&self, download: &Arc<Download>) -> bool {
        self.active().get(&download.hash()).is_some_and(|active| Arc::ptr_eq(&active.download, download))
    }

    fn changed(&self, change: impl FnOnce(&mut Changes)) {
        self.changes.send_modify(change);
    }

    fn active(&self) -> MutexGuard<'_, HashMap<Hash, Active>> {
        lock(&self.active)
    }
}

/// The blocking side: proves and writes.
struct Worker {
    shared: Arc<Shared>,
    view: Arc<Mutex<View>>,
    unanswered: mpsc::Receiver<Asked>,
    current: Option<Asked>,
}

impl Worker {
    fn run(mut self, mut to_do: mpsc::Receiver<Work>) -> Result<(), BlobError> {
        while let Some(work) = to_do.blocking_recv() {
            self.perform(work)?;
        }
        Ok(())
    }

    fn perform(&mut self, work: Work) -> Result<(), BlobError> {
        if self.current.is_none() {
            self.current = self.unanswered.try_recv().ok();
        }
        let asked = self.current.as_mut().ok_or(BlobError::Protocol("an answer to nothing"))?;
        match work {
            Work::Data(bytes) => {
                asked.claim.push(&bytes).map_err(|error| match error {
                    ContentError::Unproved { .. } => BlobError::Unproved(error),
                    error => BlobError::Store(error.into()),
                })?;
            }
            Work::Done => {
                if !asked.claim.is_done() {
                    return Err(BlobError::Protocol("an answer that ends early"));
                }
                let asked = self.current.take().expect("it is there");
                if asked.download.partial().is_complete() {
                    self.shared.finish_soon(Arc::clone(&asked.download));
                }
            }
            Work::Refused(has) => {
                let asked = self.current.take().expect("it is there");
                // A peer that names groups and does not give them would be asked for ever.
                let named = has.contains(&asked.claim.groups());
                let has = if named { GroupRanges::empty() } else { has };
                lock(&self.view).refused(asked.download.hash(), has);
                drop(asked);
                self.shared.changed(|changes| changes.claims += 1);
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
