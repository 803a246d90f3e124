//! What the driver and the handles share.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, Weak, atomic::AtomicUsize},
};

use tokio::sync::{broadcast, mpsc, watch};

use super::{content::Hub, driver::Message};
use crate::{
    machine::{Event, Obstacle},
    model::{HybridClock, PeerId, ReplicaId, SecretKey, Timestamp},
    store::{Position, ReplicaState, ReplicaStore},
};

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
        }
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
        lock(&self.live).get(&replica).map_or(0, Weak::strong_count)
    }

    /// Forgets a replica that is gone.
    pub fn forget(&self, replica: ReplicaId) {
        lock(&self.live).remove(&replica);
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
