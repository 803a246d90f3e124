//! `EngineStore`: a [`ReplicaStore`] over an [`Engine`], on threads of its own and for any executor.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_channel::oneshot;
use sync_content::ContentDir;

use super::{
    coded::CodedSet,
    content::{Begun, ContentKeeper, ContentStatus, ContentStore, Download, Imported, OnProgress, Reader, Want},
    contract::ReplicaStore,
    core::{Core, Write, Written},
    engine::Engine,
    queue::Queue,
    types::*,
};
use crate::model::{Hash, Key, ReplicaId, SlotRange, Summary};

/// How many requests to write wait for the writer.
const WRITE_QUEUE: usize = 1_024;

/// How many requests to read wait for a reader.
const READ_QUEUE: usize = 1_024;

/// How many entries are merged into one transaction: more gains little and makes the first wait.
const MAX_GROUP: usize = 16_384;

/// How many threads read. Reads are short; two keep a long one from holding up the others.
const READERS: usize = 2;

/// How many threads import content, and how many do what downloads need: neither waits for the other.
const CONTENT_THREADS: usize = 2;

/// How many requests wait for each of the two.
const CONTENT_QUEUE: usize = 1_024;

/// A store over an engine: one thread writes, and merges what waits into one transaction; a few read.
///
/// When the last handle is dropped, what was begun is finished and the threads end.
pub struct EngineStore<E: Engine> {
    store_id: StoreId,
    place: String,
    writes: Arc<Queue<WriteJob>>,
    reads: Arc<Queue<ReadJob<E>>>,
    imports: Arc<Queue<ContentJob<E>>>,
    downloads: Arc<Queue<ContentJob<E>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct WriteJob {
    write: Write,
    done: oneshot::Sender<Result<Written, StoreError>>,
}

type ReadJob<E> = Job<Readable<E>>;

/// What the readers read.
struct Readable<E: Engine> {
    core: Arc<Core<E>>,
    content: Arc<ContentKeeper<E>>,
}

type ContentJob<E> = Job<ContentKeeper<E>>;

impl<E: Engine> fmt::Debug for EngineStore<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineStore({:?}, {})", self.store_id, self.place)
    }
}

impl<E: Engine> EngineStore<E> {
    /// Opens the store in `engine`, or makes a new one there. Content is kept in memory.
    #[cfg(feature = "manager")]
    pub fn open(engine: E) -> Result<Self, StoreError> {
        Self::open_beside(engine, ContentDir::in_memory())
    }

    /// Opens the store in `engine`, or makes a new one there, with its content in `content`, which
    /// belongs to this store alone.
    #[cfg(feature = "manager")]
    pub fn open_beside(engine: E, content: ContentDir) -> Result<Self, StoreError> {
        let mut fresh = [0; 32];
        // A new store draws its id and its salt; everything beneath takes them as values.
        #[allow(clippy::disallowed_methods)]
        getrandom::fill(&mut fresh).expect("the operating system has randomness");
        Self::open_with(engine, fresh, content)
    }

    /// Opens the store in `engine`, or makes a new one from `fresh`, 32 random bytes.
    pub fn open_with(engine: E, fresh: [u8; 32], content: ContentDir) -> Result<Self, StoreError> {
        let core = Arc::new(Core::open(engine, fresh)?);
        let content = Arc::new(ContentKeeper::open(core.clone(), content)?);
        let writes = Arc::new(Queue::new(WRITE_QUEUE));
        let reads = Arc::new(Queue::new(READ_QUEUE));
        let mut threads = vec![{
            let (core, writes) = (core.clone(), writes.clone());
            spawn("store writer", move || write_all(&core, &writes))?
        }];
        for _ in 0..READERS {
            let (readable, reads) = (Readable { core: core.clone(), content: content.clone() }, reads.clone());
            threads.push(spawn("store reader", move || perform_all(&readable, &reads))?);
        }
        let imports = Arc::new(Queue::new(CONTENT_QUEUE));
        let downloads = Arc::new(Queue::new(CONTENT_QUEUE));
        for (name, queue) in [("content importer", &imports), ("content keeper", &downloads)] {
            for _ in 0..CONTENT_THREADS {
                let (content, queue) = (content.clone(), Arc::clone(queue));
                threads.push(spawn(name, move || perform_all(&*content, &queue))?);
            }
        }
        // The threads alone hold the core: when they have ended, the engine is closed.
        let (store_id, place) = (core.store_id(), core.engine().place());
        Ok(Self { store_id, place, writes, reads, imports, downloads, threads: Mutex::new(threads) })
    }

    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        let (done, answer) = oneshot::channel();
        if !self.writes.push(WriteJob { write, done }).await {
            return Err(StoreError::Closed);
        }
        answer.await.unwrap_or_else(|_| Err(StoreError::Failed("a write panicked".into())))
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Core<E>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        ask(&self.reads, move |readable| work(&readable.core)).await
    }

    /// Looks at content's rows.
    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ContentKeeper<E>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        ask(&self.reads, move |readable| work(&readable.content)).await
    }

    /// Lets nothing more in and answers the threads that finish what was begun.
    fn end(&self) -> Vec<JoinHandle<()>> {
        self.writes.close();
        self.reads.close();
        self.imports.close();
        self.downloads.close();
        std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<E: Engine> Drop for EngineStore<E> {
    fn drop(&mut self) {
        join(self.end());
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // The last handle can be dropped by a thread of the store's own, which does not wait for itself.
        if thread.thread().id() != std::thread::current().id() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(|source| StoreError::Io { context: format!("starting the thread `{name}`"), source: Arc::new(source) })
}

/// Closes the queue when its thread ends, by a panic too, so that nobody waits for it in vain.
struct CloseAtEnd<'a, T>(&'a Queue<T>);

impl<T> Drop for CloseAtEnd<'_, T> {
    fn drop(&mut self) {
        self.0.close();
        if std::thread::panicking() {
            self.0.clear();
        }
    }
}

fn write_all<E: Engine>(core: &Core<E>, queue: &Queue<WriteJob>) {
    let _close = CloseAtEnd(queue);
    let weigh = |job: &WriteJob| match &job.write {
        Write::Apply(apply) => 1 + apply.bundles.iter().map(|bundle| bundle.len()).sum::<usize>(),
        _ => 1,
    };
    while let Some(jobs) = queue.pop(MAX_GROUP, weigh) {
        let (writes, done): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.write, job.done)).unzip();
        // A panic ends this work, not the thread: whoever waits for it hears that it failed.
        let Ok(results) = catch_unwind(AssertUnwindSafe(|| core.write(&writes))) else { continue };
        for (done, result) in done.into_iter().zip(results) {
            // Whoever does not wait any more will read what is there.
            let _ = done.send(result);
        }
    }
}

/// A request to a thread that has a `C`.
type Job<C> = Box<dyn FnOnce(&C) + Send>;

fn perform_all<C>(on: &C, queue: &Queue<Job<C>>) {
    let _close = CloseAtEnd(queue);
    while let Some(jobs) = queue.pop(1, |_| 1) {
        for job in jobs {
            // A panic ends this work, not the thread.
            let _ = catch_unwind(AssertUnwindSafe(|| job(on)));
        }
    }
}

/// Has a thread do `work` and waits for it.
async fn ask<C: 'static, T: Send + 'static>(
    queue: &Queue<Job<C>>,
    work: impl FnOnce(&C) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (done, answer) = oneshot::channel();
    let job: Job<C> = Box::new(move |on| {
        if !done.is_canceled() {
            // Nobody waits for it any more if this fails.
            let _ = done.send(work(on));
        }
    });
    if !queue.push(job).await {
        return Err(StoreError::Closed);
    }
    answer.await.unwrap_or_else(|_| Err(StoreError::Failed("work on it panicked".into())))
}

#[async_trait]
impl<E: Engine> ReplicaStore for EngineStore<E> {
    fn store_id(&self) -> StoreId {
        self.store_id
    }

    async fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
        self.read(|core| core.replicas()).await
    }

    async fn create_replica(&self, replica: ReplicaId, records: Vec<NodeRecord>) -> Result<(), StoreError> {
        self.write(Write::CreateReplica { replica, records }).await.map(|_| ())
    }

    async fn drop_replica(&self, replica: ReplicaId, records: Vec<NodeRecord>) -> Result<u64, StoreError> {
        match self.write(Write::DropReplica { replica, records }).await? {
            Written::Freed(bytes) => Ok(bytes),
            other => unreachable!("a dropped replica answers its bytes, not {other:?}"),
        }
    }

    async fn state(&self, replica: ReplicaId) -> Result<ReplicaState, StoreError> {
        self.read(move |core| core.state(replica)).await
    }

    async fn apply(&self, batch: Apply) -> Result<Applied, StoreError> {
        match self.write(Write::Apply(batch)).await? {
            Written::Applied(applied) => Ok(applied),
            other => unreachable!("an applied batch answers its outcomes, not {other:?}"),
        }
    }

    async fn get(&self, replica: ReplicaId, key: Key) -> Result<Option<LogEntry>, StoreError> {
        self.read(move |core| core.get(replica, &key)).await
    }

    async fn query_each(&self, replica: ReplicaId, queries: Vec<Query>) -> Result<Vec<Vec<LogEntry>>, StoreError> {
        self.read(move |core| core.query_each(replica, &queries)).await
    }

    async fn summary(&self, replica: ReplicaId, range: SlotRange) -> Result<Summary, StoreError> {
        self.read(move |core| core.summary(replica, &range)).await
    }

    async fn scope_summary(&self, replica: ReplicaId, scope: Scope) -> Result<Summary, StoreError> {
        self.read(move |core| core.scope_summary(replica, &scope)).await
    }

    async fn split(
        &self,
        replica: ReplicaId,
        range: SlotRange,
        parts: usize,
    ) -> Result<Vec<(SlotRange, Summary)>, StoreError> {
        self.read(move |core| core.split(replica, &range, parts)).await
    }

    async fn log(&self, replica: ReplicaId, since: Position, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        self.read(move |core| core.log(replica, since, limit)).await
    }

    async fn changes(&self, request: ChangesRequest) -> Result<Changes, StoreError> {
        self.read(move |core| core.changes(&request)).await
    }

    async fn first_claims(&self, replica: ReplicaId, scope: Scope) -> Result<Vec<Claim>, StoreError> {
        self.read(move |core| core.first_claims(replica, &scope)).await
    }

    async fn reconcile(&self, replica: ReplicaId, scope: Scope, claims: Vec<Claim>) -> Result<Reconciled, StoreError> {
        self.read(move |core| core.reconcile(replica, &scope, claims)).await
    }

    async fn coded(&self, replica: ReplicaId, since: Position, count: usize) -> Result<Option<CodedSet>, StoreError> {
        self.read(move |core| core.coded(replica, since, count)).await
    }

    async fn find(&self, replica: ReplicaId, ids: Vec<ShortId>) -> Result<Found, StoreError> {
        self.read(move |core| core.find(replica, &ids)).await
    }

    async fn missing(
        &self,
        replica: ReplicaId,
        scope: Scope,
        missing: Vec<Missing>,
        max_bytes: usize,
    ) -> Result<MissingPage, StoreError> {
        self.read(move |core| core.missing(replica, &scope, &missing, max_bytes)).await
    }

    async fn node_records(&self, kind: NodeKind) -> Result<Vec<NodeRecord>, StoreError> {
        self.read(move |core| core.node_records(kind)).await
    }

    async fn save(&self, records: Vec<NodeRecord>) -> Result<(), StoreError> {
        self.write(Write::Save { records }).await.map(|_| ())
    }

    async fn close(&self) {
        let threads = self.end();
        let (done, ended) = oneshot::channel();
        let waiting = spawn("store closing", move || {
            join(threads);
            // Nobody waits any more if this fails.
            let _ = done.send(());
        });
        // Without a thread to wait on, the threads still end by themselves.
        if waiting.is_ok() {
            let _ = ended.await;
        }
    }
}

#[async_trait]
impl<E: Engine> ContentStore for EngineStore<E> {
    async fn content_status(&self, hash: Hash) -> Result<ContentStatus, StoreError> {
        self.look(move |content| content.status(&hash)).await
    }

    async fn import_path(
        &self,
        path: PathBuf,
        older: Option<Hash>,
        progress: OnProgress,
    ) -> Result<Imported, StoreError> {
        ask(&self.imports, move |content| content.import_path(&path, older.as_ref(), &mut |at| progress(at))).await
    }

    async fn import_paths(&self, paths: Vec<PathBuf>) -> Result<Vec<Result<Imported, StoreError>>, StoreError> {
        ask(&self.imports, move |content| Ok(content.import_paths(&paths))).await
    }

    async fn import_bytes(&self, bytes: Bytes) -> Result<Imported, StoreError> {
        ask(&self.imports, move |content| content.import_bytes(&bytes)).await
    }

    async fn reader(&self, hash: Hash) -> Result<Option<Reader>, StoreError> {
        self.look(move |content| content.reader(&hash)).await
    }

    async fn held_reader(&self, replica: ReplicaId, hash: Hash) -> Result<Option<Reader>, StoreError> {
        self.look(move |content| content.held_reader(&replica, &hash)).await
    }

    async fn wants(&self, after: Option<Want>, limit: usize) -> Result<Vec<Want>, StoreError> {
        self.look(move |content| content.wants(after.as_ref(), limit)).await
    }

    async fn count_wants(&self, replica: ReplicaId, limit: u64) -> Result<u64, StoreError> {
        self.look(move |content| content.count_wants(&replica, limit)).await
    }

    async fn references(
        &self,
        replica: ReplicaId,
        hash: Hash,
        scope: Scope,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        self.look(move |content| content.references(&replica, &hash, &scope, limit)).await
    }

    async fn begin_download(&self, hash: Hash, len: u64) -> Result<Begun, StoreError> {
        ask(&self.downloads, move |content| content.begin_download(&hash, len)).await
    }

    async fn checkpoint_download(&self, download: Arc<Download>) -> Result<(), StoreError> {
        ask(&self.downloads, move |content| content.checkpoint_download(&download)).await
    }

    async fn finish_downloads(&self, downloads: Vec<Arc<Download>>) -> Result<(), StoreError> {
        ask(&self.downloads, move |content| content.finish_downloads(&downloads)).await
    }

    async fn hold_content(&self, replica: ReplicaId, hash: Hash) -> Result<bool, StoreError> {
        ask(&self.downloads, move |content| content.hold(&replica, &hash)).await
    }

    async fn content_damaged(&self, hash: Hash) -> Result<(), StoreError> {
        ask(&self.downloads, move |content| content.damaged(&hash)).await
    }

    async fn collect_content(&self) -> Result<u64, StoreError> {
        ask(&self.downloads, move |content| content.collect()).await
    }
}
