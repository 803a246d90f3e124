//! What the driver and the handles share.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::{mpsc, watch};

use super::driver::Message;
use crate::{
    machine::{ConnectionId, Obstacle},
    model::{HybridClock, PeerId, ReplicaId, SecretKey, Timestamp},
    store::{Position, ReplicaState, ReplicaStore},
    transport::{ByteStream, Connection},
};

/// Reads the wall clock.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// An open replica.
#[derive(Debug)]
pub(super) struct Live {
    pub clock: HybridClock,
    pub head: watch::Sender<Position>,
}

/// The links that can carry content, by peer.
type Links = HashMap<PeerId, Vec<(ConnectionId, Arc<dyn Connection>)>>;

pub(super) struct Shared {
    pub store: Arc<dyn ReplicaStore>,
    pub key: SecretKey,
    pub me: PeerId,
    pub wall: WallClock,
    pub sender: mpsc::Sender<Message>,
    live: Mutex<HashMap<ReplicaId, Arc<Live>>>,
    raised: Mutex<Vec<Obstacle>>,
    links: Mutex<Links>,
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
    pub fn new(store: Arc<dyn ReplicaStore>, key: SecretKey, wall: WallClock, sender: mpsc::Sender<Message>) -> Self {
        Self {
            store,
            me: PeerId(key.public()),
            key,
            wall,
            sender,
            live: Mutex::default(),
            raised: Mutex::default(),
            links: Mutex::default(),
        }
    }

    /// The replica's clock and head; made from `state` when it is not open yet.
    pub fn live(&self, replica: ReplicaId, state: &ReplicaState) -> Arc<Live> {
        let mut live = lock(&self.live);
        let live = live.entry(replica).or_insert_with(|| {
            Arc::new(Live { clock: HybridClock::new(state.newest), head: watch::Sender::new(state.head) })
        });
        live.clone()
    }

    /// Forgets a replica that is gone.
    pub fn forget(&self, replica: ReplicaId) {
        lock(&self.live).remove(&replica);
    }

    /// Takes note of a newer state: the clock moves, watchers wake.
    pub fn observe(&self, state: &ReplicaState) {
        let Some(live) = lock(&self.live).get(&state.rights.replica()).cloned() else { return };
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

    /// A connection whose peer is known: content can be asked for over it.
    pub fn peer_linked(&self, peer: PeerId, id: ConnectionId, connection: Arc<dyn Connection>) {
        lock(&self.links).entry(peer).or_default().push((id, connection));
    }

    /// A connection has ended.
    pub fn peer_unlinked(&self, id: ConnectionId) {
        lock(&self.links).retain(|_, links| {
            links.retain(|(other, _)| *other != id);
            !links.is_empty()
        });
    }

    /// Keeps the bytes of a value that is too long to be inline.
    pub async fn import(&self, _value: bytes::Bytes) -> Result<crate::model::Value, super::ManagerError> {
        Err(super::ManagerError::Setting("contents are not kept by this store".into()))
    }

    /// A peer asks for content on this stream.
    pub fn content_stream(&self, _peer: PeerId, _bytes: ByteStream) {}
}
