//! What the driver and the handles share.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    runtime,
    sync::{OwnedSemaphorePermit, RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore, broadcast, mpsc, watch},
};

use super::{ManagerError, content::Hub, driver::Message};
use crate::{
    machine::{Event, Obstacle},
    model::{HybridClock, PeerId, ReplicaId, SecretKey, Timestamp},
    store::{Position, ReplicaState, ReplicaStore},
};

/// How many writes may be under way at once; whoever comes then waits. Each has what it writes in memory.
const WRITES: u32 = 1_024;

/// Reads the wall clock.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// An open replica: one that somebody has a handle to.
#[derive(Debug)]
pub(super) struct Live {
    pub clock: HybridClock,
    pub head: watch::Sender<Position>,
    /// How many writes are on their way.
    pub writing: AtomicUsize,
}

pub(super) struct Shared {
    pub store: Arc<dyn ReplicaStore>,
    pub key: SecretKey,
    pub me: PeerId,
    pub wall: WallClock,
    pub sender: mpsc::Sender<Message>,
    live: Mutex<HashMap<ReplicaId, Weak<Live>>>,
    raised: Mutex<Vec<Obstacle>>,
    pub content: Hub,
    /// Held, in what is done [whole](Self::whole), by whoever looks at the store and tells what was there; alone, by whoever
    /// removes a replica or sets one up: what an application's call has seen before its end is told before it, and never
    /// brings it back. It is one for all replicas, as the store's writer is.
    removals: RwLock<()>,
    /// Where what was begun goes on, whatever becomes of the runtime of whoever began it.
    runtime: runtime::Handle,
    writes: Arc<Semaphore>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({:?})", self.me)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

impl Shared {
    pub fn new(
        store: Arc<dyn ReplicaStore>,
        key: SecretKey,
        wall: WallClock,
        sender: mpsc::Sender<Message>,
        events: broadcast::Sender<Event>,
        progress: watch::Sender<u64>,
    ) -> Self {
        let me = PeerId(key.public());
        Self {
            content: Hub::new(store.clone(), me, wall.clone(), events, progress),
            store,
            me,
            key,
            wall,
            sender,
            live: Mutex::default(),
            raised: Mutex::default(),
            removals: RwLock::default(),
            runtime: runtime::Handle::current(),
            writes: Arc::new(Semaphore::new(WRITES as usize)),
        }
    }

    /// Waits until one more may write.
    pub async fn begin(&self) -> Result<OwnedSemaphorePermit, ManagerError> {
        self.writes.clone().acquire_owned().await.map_err(|_| ManagerError::Closed)
    }

    /// Does `work` whole, whether somebody still waits for it or not. The node's end waits for it, too.
    pub async fn whole<T: Send + 'static>(
        &self,
        permit: OwnedSemaphorePermit,
        work: impl Future<Output = Result<T, ManagerError>> + Send + 'static,
    ) -> Result<T, ManagerError> {
        let done = self.runtime.spawn(async move {
            let _until_done = permit;
            work.await
        });
        match done.await {
            Ok(done) => done,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(ManagerError::Closed),
        }
    }

    /// Keeps replicas from being removed while it is held. Only for what is done whole: whoever held it and did nothing
    /// would hold everybody up.
    pub async fn stays(&self) -> Result<RwLockReadGuard<'_, ()>, ManagerError> {
        let stays = self.removals.read().await;
        // Who waited here saw the end come.
        if self.writes.is_closed() { Err(ManagerError::Closed) } else { Ok(stays) }
    }

    /// The same, and nobody else holds it.
    pub async fn alone(&self) -> Result<RwLockWriteGuard<'_, ()>, ManagerError> {
        let alone = self.removals.write().await;
        if self.writes.is_closed() { Err(ManagerError::Closed) } else { Ok(alone) }
    }

    /// Nothing is begun any more, and what was is done.
    pub async fn end_writes(&self) {
        let _all = self.writes.acquire_many(WRITES).await;
        self.refuse_writes();
    }

    /// Nothing is begun any more.
    pub fn refuse_writes(&self) {
        self.writes.close();
    }

    /// The replica's clock and head; made from `state` when it is not open. They go with the last handle.
    pub fn live(&self, replica: ReplicaId, state: &ReplicaState) -> Arc<Live> {
        let mut live = lock(&self.live);
        if let Some(live) = live.get(&replica).and_then(Weak::upgrade) {
            return live;
        }
        live.retain(|_, live| live.strong_count() > 0);
        let made = Arc::new(Live {
            clock: HybridClock::new(state.newest),
            head: watch::Sender::new(state.head),
            writing: AtomicUsize::new(0),
        });
        live.insert(replica, Arc::downgrade(&made));
        made
    }

    /// How many handles keep a replica open.
    pub fn open_handles(&self, replica: ReplicaId) -> usize {
        let live = lock(&self.live).get(&replica).and_then(Weak::upgrade);
        // But for the one just made, and those of writes under way.
        live.map_or(0, |live| (Arc::strong_count(&live) - 1).saturating_sub(live.writing.load(Ordering::SeqCst)))
    }

    /// Forgets a replica that is gone. Who watches it wakes and sees that. What handles are left are to the same one if it
    /// is here again.
    pub fn forget(&self, replica: ReplicaId) {
        if let Some(live) = lock(&self.live).get(&replica).and_then(Weak::upgrade) {
            live.head.send_modify(|_| {});
        }
        self.content.forget(replica);
    }

    /// Takes note of a newer state: the clock moves, watchers wake.
    pub fn observe(&self, state: &ReplicaState) {
        self.content.observe(state);
        let Some(live) = lock(&self.live).get(&state.rights.replica()).and_then(Weak::upgrade) else { return };
        live.clock.observe(state.newest);
        live.head.send_if_modified(|head| {
            let newer = state.head > *head;
            *head = (*head).max(state.head);
            newer
        });
    }

    pub fn raise(&self, obstacle: Obstacle) {
        let mut raised = lock(&self.raised);
        raised.retain(|other| other.subject != obstacle.subject);
        raised.push(obstacle);
    }

    pub fn clear(&self, subject: &str) {
        lock(&self.raised).retain(|other| other.subject != subject);
    }

    pub fn raised(&self) -> Vec<Obstacle> {
        lock(&self.raised).clone()
    }
}
