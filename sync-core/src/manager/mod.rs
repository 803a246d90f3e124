//! The manager: what an application holds. A cheap handle in front of one task, the driver, that
//! runs the machine and performs what it asks for.

mod authors;
pub mod blobs;
mod content;
mod counted;
mod driver;
mod error;
mod policy;
mod replica;
mod settings;
mod shared;
mod streams;
mod transports;
mod waiting;
mod wanted;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use blobs::{ContentTraffic, DownloadStatus};
pub use error::ManagerError;
pub use policy::DownloadPolicy;
pub use replica::{Access, Replica, Transaction, Watch};
pub use settings::{SYNC_INTERVAL_MAX, SYNC_INTERVAL_MIN};
pub use shared::WallClock;
#[cfg(any(test, feature = "testing"))]
pub(crate) use streams::read_frame;

use self::{
    driver::{Driver, Message, Report},
    shared::Shared,
};
use crate::{
    address::PeerAddress,
    machine::{
        Config, Event, Input, Now, Obstacle, PeerInfo, PeerState, ReplicaStatus, SyncOutcome, SyncReport, Synchronizer,
        Target,
    },
    model::{
        Bundle, Grant, PeerId, Prefix, PublicKey, ReplicaId, Right, Rights, SecretKey, Ticket, Timestamp,
        VerifiedBundle, Verifier,
    },
    store::{Apply, NodeKind, NodeRecord, Origin, ReplicaStore, StoreError},
    transport::{SyncTransport, TransportBuilder, TransportContext, TransportState},
};

/// How many events wait for a slow listener before it is told that it lags.
const EVENTS_LEN: usize = 1024;

/// How long after its deadline a shutdown is answered at the latest: time to cut off what did not end by itself.
const CUT_OFF: Duration = Duration::from_secs(2);

/// The name of the node's own key among the records of kind `Key`.
const NODE_KEY: &[u8] = b"node";

fn replica_key_name(replica: &PublicKey) -> Bytes {
    [b"replica ".as_slice(), &replica.0].concat().into()
}

/// Builds a [`SyncManager`].
pub struct ManagerBuilder {
    store: Arc<dyn ReplicaStore>,
    key: Option<SecretKey>,
    wall: WallClock,
}

impl std::fmt::Debug for ManagerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ManagerBuilder({:?})", self.store)
    }
}

fn system_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

impl ManagerBuilder {
    /// Uses this key for the node. Without it the key in the store is used, or a new one made and kept there.
    pub fn node_key(mut self, key: SecretKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Reads the wall clock elsewhere than from the system.
    pub fn wall_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.wall = Arc::new(clock);
        self
    }

    /// Starts the manager on the current tokio runtime. What was syncing before a restart syncs after it, as soon
    /// as transports are registered.
    pub async fn spawn(self) -> Result<SyncManager, ManagerError> {
        let saved = self.store.node_records(NodeKind::Key).await?;
        let saved = saved.into_iter().find(|record| record.name == NODE_KEY).and_then(|record| record.value);
        let key = match (self.key, saved) {
            (Some(key), _) => key,
            (None, Some(saved)) => {
                // Another one in its place would be another node, and nobody could ever be this one again.
                let key = <[u8; 32]>::try_from(&saved[..]);
                let what = "the node's key cannot be read: restore the store from a copy, or give the key";
                SecretKey::from_bytes(key.map_err(|_| StoreError::Corrupt(what.into()))?)
            }
            (None, None) => {
                let key = SecretKey::generate();
                let name = Bytes::from_static(NODE_KEY);
                let value = Some(Bytes::copy_from_slice(&key.to_bytes()));
                self.store.save(vec![NodeRecord { kind: NodeKind::Key, name, value }]).await?;
                key
            }
        };
        let incarnation = next_incarnation(&*self.store).await?;
        let started = Instant::now();
        let config = Config {
            key: key.clone(),
            store: self.store.store_id(),
            incarnation,
            seed: SecretKey::generate().to_bytes(),
        };
        let wall = self.wall;
        let mut machine = Synchronizer::new(config, Now { elapsed: Duration::ZERO, wall: wall() });
        let now = Now { elapsed: started.elapsed(), wall: wall() };
        let mut records = self.store.node_records(NodeKind::Peer).await?;
        records.extend(self.store.node_records(NodeKind::Job).await?);
        machine.handle(now, Input::Restored { records });
        for (replica, direction) in settings::directions(&*self.store).await? {
            machine.handle(now, Input::SetDirection { replica, direction });
        }
        machine.handle(now, Input::CheckInterval { interval: settings::sync_interval(&*self.store).await? });

        let (sender, messages) = mpsc::channel(driver::QUEUE_LEN);
        let (events, _) = broadcast::channel(EVENTS_LEN);
        let (progress, progressed) = watch::channel(0);
        let shared =
            Arc::new(Shared::new(self.store.clone(), key, wall, sender.clone(), events.clone(), progress.clone()));
        shared.content.policies.load(&*self.store).await?;
        for replica in self.store.replicas().await? {
            let state = self.store.state(replica).await?;
            machine.handle(now, Input::Changed { replica, state, written: None });
        }
        let driver = Driver::new(machine, shared.clone(), messages, sender, started, events.clone(), progress);
        let stop = CancellationToken::new();
        tokio::spawn(driver.run(stop.clone()));
        Ok(SyncManager { inner: Arc::new(Inner { shared, events, progressed, _stop: stop.drop_guard() }) })
    }
}

async fn next_incarnation(store: &dyn ReplicaStore) -> Result<u64, StoreError> {
    let name = Bytes::from_static(b"incarnation");
    let records = store.node_records(NodeKind::Setting).await?;
    let last = records
        .into_iter()
        .find(|record| record.name == name)
        .and_then(|record| Some(u64::from_le_bytes(record.value?[..].try_into().ok()?)))
        .unwrap_or(0);
    let value = Some(Bytes::copy_from_slice(&(last + 1).to_le_bytes()));
    store.save(vec![NodeRecord { kind: NodeKind::Setting, name, value }]).await?;
    Ok(last + 1)
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    events: broadcast::Sender<Event>,
    progressed: watch::Receiver<u64>,
    _stop: DropGuard,
}

/// A node: replicas, transports and peers. Cheap to clone; dropping the last handle ends it.
#[derive(Debug, Clone)]
pub struct SyncManager {
    inner: Arc<Inner>,
}

/// What `accept_connections` achieved.
#[derive(Debug)]
pub struct ListenReport {
    /// Where this node can be dialled now, over all transports.
    pub addresses: Vec<PeerAddress>,
    /// The transports that could not listen, by name, and why.
    pub failed: Vec<(String, ManagerError)>,
}

/// How a node stands: the shape of `syncline status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The node.
    #[serde(with = "crate::text")]
    pub node_id: PeerId,
    /// Where it can be dialled.
    pub addresses: Vec<PeerAddress>,
    /// Its replicas.
    pub replicas: Vec<ReplicaStatus>,
    /// Links ended here since the start because of what came over them.
    pub links_refused: u64,
    /// What moved of contents since it started.
    pub content_bytes: ContentTraffic,
    /// The contents that are on their way now.
    pub downloads: Vec<DownloadStatus>,
}

impl SyncManager {
    /// A builder of a manager on this store.
    pub fn builder(store: Arc<dyn ReplicaStore>) -> ManagerBuilder {
        ManagerBuilder { store, key: None, wall: Arc::new(system_clock) }
    }

    /// This node.
    pub fn node_id(&self) -> PeerId {
        self.inner.shared.me
    }

    /// The store beneath.
    pub fn store(&self) -> &Arc<dyn ReplicaStore> {
        &self.inner.shared.store
    }

    async fn tell(&self, input: Input) -> Result<(), ManagerError> {
        self.send(Message::Input(input)).await
    }

    /// Tells the machine, and waits until what it wants remembered is on disk.
    async fn tell_durably(&self, input: Input) -> Result<(), ManagerError> {
        self.tell(input).await?;
        Ok(self.ask(|answer| Message::Saved { answer }).await??)
    }

    async fn send(&self, message: Message) -> Result<(), ManagerError> {
        self.inner.shared.sender.send(message).await.map_err(|_| ManagerError::Closed)
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, ManagerError> {
        ask(&self.inner.shared, message).await
    }

    /// Registers a transport under a local name, from the state saved under it. This gives
    /// outbound only: nothing listens before [`Self::accept_connections`].
    pub async fn register_transport(
        &self,
        name: impl Into<String>,
        builder: impl TransportBuilder,
    ) -> Result<(), ManagerError> {
        let (name, shared) = (name.into(), &self.inner.shared);
        if self.ask(|answer| Message::Transports { answer }).await?.iter().any(|other| other.name == name) {
            return Err(ManagerError::NameTaken(name));
        }
        let saved = shared.store.node_records(NodeKind::Transport).await?;
        let saved = saved.into_iter().find(|record| record.name == name.as_bytes()).and_then(|record| record.value);
        let state: Option<TransportState> = match saved {
            Some(bytes) => Some(postcard::from_bytes(&bytes).map_err(|_| {
                StoreError::Corrupt(format!("the saved state of the transport `{name}` cannot be read"))
            })?),
            None => None,
        };
        let context = TransportContext { node_key: shared.key.clone(), state };
        let transport = Box::new(builder).build(context).await?;
        driver::save_state(shared, &name, &*transport).await?;
        self.add_transport(name, transport).await
    }

    /// Registers a transport that the application has built.
    pub async fn add_transport(
        &self,
        name: impl Into<String>,
        transport: Arc<dyn SyncTransport>,
    ) -> Result<(), ManagerError> {
        let name = name.into();
        self.ask(|answer| Message::Register { name, transport, answer }).await?
    }

    /// Removes a transport: it is closed, and what was in flight on it goes back to its job.
    pub async fn remove_transport(&self, name: &str) -> Result<(), ManagerError> {
        let name = name.to_string();
        let transport = self.ask(|answer| Message::Remove { name, answer }).await??;
        transport.close().await;
        Ok(())
    }

    /// The registered transports: name, schemes, and the addresses while it listens.
    pub async fn transports(&self) -> Result<Vec<TransportInfo>, ManagerError> {
        let registered = self.ask(|answer| Message::Transports { answer }).await?;
        Ok(registered
            .into_iter()
            .map(|registered| TransportInfo {
                schemes: registered.transport.schemes().iter().map(|scheme| scheme.to_string()).collect(),
                name: registered.name,
                addresses: registered.listening.unwrap_or_default(),
            })
            .collect())
    }

    /// Starts every transport's listener. Succeeds when one starts or none has one, and says which failed.
    /// Transports that listen already go on as they are; when all do, that is an error.
    pub async fn accept_connections(&self) -> Result<ListenReport, ManagerError> {
        let shared = &self.inner.shared;
        let (mut failed, mut started) = (Vec::new(), 0);
        let all = self.ask(|answer| Message::Transports { answer }).await?;
        if !all.is_empty() && all.iter().all(|registered| registered.listening.is_some()) {
            return Err(ManagerError::AcceptingAlready);
        }
        for registered in all {
            if registered.listening.is_some() {
                started += 1;
                continue;
            }
            match driver::listen(shared, &registered).await {
                Ok(addresses) => {
                    started += 1;
                    let (name, addresses) = (registered.name, Some(addresses));
                    self.ask(|answer| Message::Listening { name, addresses, answer }).await?;
                }
                Err(error) => failed.push((registered.name, error)),
            }
        }
        if started == 0 && !failed.is_empty() {
            let all: Vec<_> = failed.iter().map(|(name, error)| format!("{name}: {error}")).collect();
            return Err(ManagerError::CannotListen(all.join("; ")));
        }
        Ok(ListenReport { addresses: self.addresses().await?, failed })
    }

    /// Stops every listener and frees the ports; connections go on. When none listens, that is an error.
    pub async fn stop_accepting(&self) -> Result<(), ManagerError> {
        let all = self.ask(|answer| Message::Transports { answer }).await?;
        let listening: Vec<_> = all.into_iter().filter(|registered| registered.listening.is_some()).collect();
        if listening.is_empty() {
            return Err(ManagerError::NotAccepting);
        }
        for registered in listening {
            registered.transport.stop_listening().await?;
            let name = registered.name;
            self.ask(|answer| Message::Listening { name, addresses: None, answer }).await?;
        }
        Ok(())
    }

    /// Where this node can be dialled now.
    pub async fn addresses(&self) -> Result<Vec<PeerAddress>, ManagerError> {
        addresses(&self.inner.shared).await
    }

    /// Makes a replica. This node owns it: the owner's key is kept in the store, and gives the
    /// node's own key every right.
    pub async fn create_replica(&self) -> Result<Replica, ManagerError> {
        let owner = SecretKey::generate();
        let id = ReplicaId(owner.public());
        let name = replica_key_name(&id.0);
        let value = Some(Bytes::copy_from_slice(&owner.to_bytes()));
        let record = NodeRecord { kind: NodeKind::Key, name, value };
        self.create(id, vec![record], Vec::new()).await?;
        let replica = self.open_replica(id).await?;
        let grant = Grant {
            subject: self.inner.shared.key.public(),
            right: Right::Admin,
            prefix: Prefix::default(),
            expires: None,
            parent: None,
        };
        replica.with_author(owner).grant(&grant).await?;
        Ok(replica)
    }

    /// Makes a replica durable, with bundles that were verified.
    async fn create(
        &self,
        id: ReplicaId,
        records: Vec<NodeRecord>,
        bundles: Vec<VerifiedBundle>,
    ) -> Result<(), ManagerError> {
        let permit = self.inner.shared.begin().await?;
        let shared = self.inner.shared.clone();
        let made = async move {
            let _stays = shared.stays().await?;
            shared.store.create_replica(id, records).await?;
            if !bundles.is_empty() {
                let (origin, now) = (Origin::Local, (shared.wall)());
                shared.store.apply(Apply { replica: id, bundles, origin, now, records: Vec::new() }).await?;
            }
            Ok(())
        };
        self.inner.shared.whole(permit, made).await
    }

    /// A handle to a replica that is here.
    pub async fn open_replica(&self, id: ReplicaId) -> Result<Replica, ManagerError> {
        let permit = self.inner.shared.begin().await?;
        self.inner.shared.whole(permit, self.clone().open_whole(id)).await
    }

    async fn open_whole(self, id: ReplicaId) -> Result<Replica, ManagerError> {
        let shared = &self.inner.shared;
        let _stays = shared.stays().await?;
        let live = shared.live(id, &shared.store.state(id).await?);
        // Once more: what came in before the handle was there has woken nobody.
        let state = shared.store.state(id).await?;
        // What is on its way tells of itself.
        let written = (live.writing.load(Ordering::SeqCst) > 0).then_some(0);
        self.tell(Input::Changed { replica: id, state, written }).await?;
        Ok(Replica { id, shared: shared.clone(), live, author: shared.key.clone() })
    }

    /// How many handles to a replica the application holds. At none it is out of memory: what comes
    /// in goes to the store, and the next handle sees it.
    pub fn open_handles(&self, id: ReplicaId) -> usize {
        self.inner.shared.open_handles(id)
    }

    /// The replicas here.
    pub async fn replicas(&self) -> Result<Vec<ReplicaId>, ManagerError> {
        Ok(self.inner.shared.store.replicas().await?)
    }

    /// Removes every trace of a replica from this node: entries, key, jobs, download policy, notes, tokens that have
    /// its id in front. Others keep theirs. A marker stays. Answers the bytes freed. Once begun it is done whole, whether
    /// somebody still waits for it or not. Where the store cannot, the replica stays as it was but for its jobs, which are
    /// gone, and events of what came in meanwhile: peers that ask for it are answered. While it lasts no other replica is
    /// opened, set up or written: the store has one writer.
    pub async fn drop_replica(&self, id: ReplicaId) -> Result<u64, ManagerError> {
        let shared = &self.inner.shared;
        let permit = shared.begin().await?;
        let this = self.clone();
        shared.whole(permit, async move { this.drop_whole(id).await }).await
    }

    async fn drop_whole(&self, id: ReplicaId) -> Result<u64, ManagerError> {
        let shared = &self.inner.shared;
        let _alone = shared.alone().await?;
        let now = (shared.wall)();
        self.tell(Input::Dropped { replica: id }).await?;
        let dropped = self.drop_rows(id, now).await;
        match &dropped {
            Ok(_) => {
                shared.forget(id);
                shared.content.policies.forget(&id);
            }
            // It is here still: what is written into it is offered and told.
            Err(_) => {
                let known = (settings::directions(&*shared.store).await, shared.store.state(id).await);
                if let (Ok(directions), Ok(state)) = known {
                    for (replica, direction) in directions.into_iter().filter(|(replica, _)| *replica == id) {
                        let _ = self.tell(Input::SetDirection { replica, direction }).await;
                    }
                    let _ = self.tell(Input::Changed { replica: id, state, written: None }).await;
                }
            }
        }
        dropped
    }

    async fn drop_rows(&self, id: ReplicaId, now: Timestamp) -> Result<u64, ManagerError> {
        let shared = &self.inner.shared;
        // What was still to be saved about it comes before its end, or never: a full disk must not keep it here.
        let _ = self.ask(|answer| Message::Saved { answer }).await?;
        let mut records = vec![
            NodeRecord { kind: NodeKind::Key, name: replica_key_name(&id.0), value: None },
            NodeRecord { kind: NodeKind::Setting, name: settings::direction_name(&id), value: None },
            NodeRecord {
                kind: NodeKind::Removed,
                name: Bytes::copy_from_slice(id.as_bytes()),
                value: Some(Bytes::copy_from_slice(&now.0.to_le_bytes())),
            },
        ];
        records.push(policy::Policies::record(&id, None));
        for kind in [NodeKind::Job, NodeKind::Token, NodeKind::Note] {
            for record in shared.store.node_records(kind).await? {
                if record.name.starts_with(id.as_bytes()) {
                    records.push(NodeRecord { value: None, ..record });
                }
            }
        }
        Ok(shared.store.drop_replica(id, records).await?)
    }

    /// Joins the replica that a ticket invites to: durable at once, synced in the background. Joining again
    /// with another ticket adds what that one gives: a wider right, or a longer one.
    pub async fn join(&self, ticket: Ticket) -> Result<Replica, ManagerError> {
        let shared = &self.inner.shared;
        let id = ticket.replica;
        let invite = ticket.invite.as_ref().ok_or(ManagerError::TicketWithoutInvite)?;
        let now = (shared.wall)();
        // Everything is looked at before anything is written.
        let mut rights = Rights::new(id);
        let mut bundles = Vec::new();
        for bundle in invite.chain.clone() {
            let bundle = verify_grants(id, bundle)?;
            for entry in bundle.entries() {
                let admitted = rights.admit(&entry.order.author, entry.op);
                admitted.map_err(|error| ManagerError::TicketInvalid(error.to_string()))?;
            }
            bundles.push(bundle);
        }
        let key = invite.secret.public();
        let (parent, grant) = match rights.best_grant(&key, Right::Read, now) {
            Some((parent, grant)) => (parent, grant.clone()),
            None if rights.best_grant(&key, Right::Read, Timestamp(0)).is_some() => {
                return Err(ManagerError::TicketExpired);
            }
            None => return Err(ManagerError::TicketInvalid("its grants give the invite key nothing".into())),
        };
        self.create(id, Vec::new(), bundles).await?;
        let replica = self.open_replica(id).await?;
        let mine = shared.key.public();
        let state = replica.state().await?;
        let held = state.rights.best_grant(&mine, grant.right, now);
        let has = held.is_some_and(|(_, held)| lasts(held) >= lasts(&grant)) || id.0 == mine;
        if !has {
            let own = Grant { subject: mine, parent: Some(parent), ..grant };
            replica.with_author(invite.secret.clone()).grant(&own).await?;
        }
        if let Some(peer) = ticket.peer {
            if peer != shared.me {
                self.add_peer(peer, ticket.addresses).await?;
                self.subscribe(id, peer).await?;
            }
        } else {
            for address in ticket.addresses {
                let (answer, _) = oneshot::channel();
                let target = Target::Address(address);
                self.send(Message::Sync { replica: id, target, timeout: Duration::from_secs(60), answer }).await?;
            }
        }
        // Who was refused without the new right, or could not be reached where it was, is tried at once.
        self.retry_now().await?;
        Ok(replica)
    }

    /// Keeps a replica that is here equal with a peer from now on, over restarts. [`StoreError::UnknownReplica`] where it is
    /// not: nothing is kept of it then.
    pub async fn subscribe(&self, replica: ReplicaId, peer: PeerId) -> Result<(), ManagerError> {
        let permit = self.inner.shared.begin().await?;
        let this = self.clone();
        let subscribed = async move {
            let shared = &this.inner.shared;
            let _stays = shared.stays().await?;
            shared.store.state(replica).await?;
            this.tell_durably(Input::Subscribe { replica, peer }).await
        };
        self.inner.shared.whole(permit, subscribed).await
    }

    /// Ends that.
    pub async fn unsubscribe(&self, replica: ReplicaId, peer: PeerId) -> Result<(), ManagerError> {
        self.tell_durably(Input::Unsubscribe { replica, peer }).await
    }

    /// Remembers a peer and addresses of it.
    pub async fn add_peer(&self, peer: PeerId, addresses: Vec<PeerAddress>) -> Result<(), ManagerError> {
        self.tell_durably(Input::AddPeer { peer, addresses }).await
    }

    /// Gives a peer a name.
    pub async fn rename_peer(&self, peer: PeerId, name: impl Into<String>) -> Result<(), ManagerError> {
        self.tell_durably(Input::RenamePeer { peer, name: name.into() }).await
    }

    /// Forgets a peer, its addresses and jobs. Its links are refused until it is added again: by
    /// [`Self::add_peer`], a ticket of its, a subscription, or a name.
    pub async fn remove_peer(&self, peer: PeerId) -> Result<(), ManagerError> {
        self.tell_durably(Input::RemovePeer { peer }).await
    }

    /// Blocks a peer: its links end, and new ones are refused.
    pub async fn block_peer(&self, peer: PeerId) -> Result<(), ManagerError> {
        self.tell_durably(Input::BlockPeer { peer, blocked: true }).await
    }

    /// Takes a block back.
    pub async fn unblock_peer(&self, peer: PeerId) -> Result<(), ManagerError> {
        self.tell_durably(Input::BlockPeer { peer, blocked: false }).await
    }

    /// Tries every waiting and parked job now.
    pub async fn retry_now(&self) -> Result<(), ManagerError> {
        self.tell(Input::RetryNow).await
    }

    /// Syncs a replica with a peer, or with whoever answers at an address, and says how it went. Where entries go one
    /// way only and the roots stay different, it ends when all that may go has gone ([`SyncOutcome::OneWay`]).
    pub async fn sync_with(
        &self,
        target: impl Into<Target>,
        replica: ReplicaId,
        timeout: Duration,
    ) -> Result<SyncReport, ManagerError> {
        let target = target.into();
        self.ask(|answer| Message::Sync { replica, target, timeout, answer }).await
    }

    /// Syncs a replica with every peer that it is kept equal with.
    pub async fn sync_all(&self, replica: ReplicaId, timeout: Duration) -> Result<Vec<SyncReport>, ManagerError> {
        let status = self.status().await?;
        let peers = status.replicas.iter().find(|known| known.id == replica).map(|known| known.peers.clone());
        let mut answers = Vec::new();
        for peer in peers.unwrap_or_default() {
            let (answer, report) = oneshot::channel();
            self.send(Message::Sync { replica, target: Target::Peer(peer.id), timeout, answer }).await?;
            answers.push(report);
        }
        let mut reports = Vec::new();
        for report in answers {
            reports.push(report.await.map_err(|_| ManagerError::Closed)?);
        }
        Ok(reports)
    }

    /// Waits until a replica is synced with a peer: equal roots at a position that it confirmed.
    pub async fn wait_synced(&self, replica: ReplicaId, peer: PeerId, timeout: Duration) -> Result<(), ManagerError> {
        let report = self.sync_with(peer, replica, timeout).await?;
        match report.outcome {
            SyncOutcome::Synced => Ok(()),
            SyncOutcome::UnknownReplica => Err(StoreError::UnknownReplica(replica).into()),
            SyncOutcome::Refused(_) => Err(ManagerError::TimedOut(format!(
                "peer {} does not have replica {} for us",
                peer.short(),
                replica.short()
            ))),
            SyncOutcome::Unreachable { error, .. } => Err(ManagerError::TimedOut(error)),
            SyncOutcome::OneWay => Err(ManagerError::TimedOut(format!(
                "replica {} does not become equal with peer {}: this side or the other only pulls or only pushes",
                replica.short(),
                peer.short()
            ))),
            SyncOutcome::TimedOut => Err(ManagerError::TimedOut(format!(
                "replica {} is not equal with peer {} yet",
                replica.short(),
                peer.short()
            ))),
        }
    }

    /// Waits until every change here is confirmed by every peer that it is owed to. What a peer has refused is not
    /// confirmed, as long as its root is another.
    pub async fn flush(&self, timeout: Duration) -> Result<(), ManagerError> {
        let owed = |replica: &ReplicaStatus| {
            replica.peers.iter().any(|peer| peer.pending > 0 || peer.refused > 0 && !peer.synced)
        };
        match self.status_when(timeout, |status| !status.replicas.iter().any(owed)).await {
            Ok(_) => Ok(()),
            Err(ManagerError::TimedOut(_)) => {
                Err(ManagerError::TimedOut("not every peer has confirmed every change; see why()".into()))
            }
            Err(error) => Err(error),
        }
    }

    async fn report(&self) -> Result<Report, ManagerError> {
        self.ask(|answer| Message::Report { answer }).await
    }

    /// How everything stands.
    pub async fn status(&self) -> Result<Status, ManagerError> {
        let mut report = self.report().await?;
        let content = &self.inner.shared.content;
        for replica in &mut report.replicas {
            replica.blobs_missing = content.missing(replica.id).await?;
            // One that was dropped just now has nothing.
            if let Ok(state) = self.inner.shared.store.state(replica.id).await {
                (replica.blobs, replica.bytes) = (state.blobs, state.bytes);
            }
        }
        Ok(Status {
            node_id: self.node_id(),
            addresses: report.addresses,
            replicas: report.replicas,
            links_refused: report.links_refused,
            content_bytes: content.traffic(),
            downloads: content.downloads(),
        })
    }

    /// The downloads that run.
    pub fn downloads(&self) -> Vec<DownloadStatus> {
        self.inner.shared.content.downloads()
    }

    /// How many bytes of contents and their proofs went to peers since the node started.
    pub fn content_sent(&self) -> u64 {
        self.inner.shared.content.sent()
    }

    /// Every peer that this node knows.
    pub async fn peers(&self) -> Result<Vec<PeerInfo>, ManagerError> {
        Ok(self.report().await?.peers)
    }

    /// Every obstacle: what it concerns, its cause, and what to do.
    pub async fn why(&self) -> Result<Vec<Obstacle>, ManagerError> {
        let mut obstacles = self.report().await?.obstacles;
        obstacles.extend(self.inner.shared.raised());
        obstacles.extend(self.inner.shared.content.obstacles());
        Ok(obstacles)
    }

    /// Shows an obstacle of the application's own in [`Self::why`]; one a subject.
    pub fn raise(&self, obstacle: Obstacle) {
        self.inner.shared.raise(obstacle);
    }

    /// Takes an obstacle of the application's own back.
    pub fn clear(&self, subject: &str) {
        self.inner.shared.clear(subject);
    }

    /// What happens from now on. A listener that is too slow is told how much it missed
    /// (`RecvError::Lagged`), and slows nobody.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// Ends everything in good order: sessions, saves, links, listeners; ports are free when the future completes.
    /// What keeps it from that longer than `timeout`, a peer, a transport, a disk, is not waited for: then everything
    /// is cut off, and the answer is [`ManagerError::TimedOut`]. Nothing that was acknowledged is lost by it.
    pub async fn shutdown(&self, timeout: Duration) -> Result<(), ManagerError> {
        let done = self.ask(|answer| Message::Shutdown { within: timeout, answer });
        match tokio::time::timeout(timeout.saturating_add(CUT_OFF), done).await {
            Ok(Ok(true) | Err(ManagerError::Closed)) => Ok(()),
            Ok(Err(error)) => Err(error),
            Ok(Ok(false)) | Err(_) => Err(ManagerError::TimedOut("the shutdown took too long".into())),
        }
    }

    /// The live peers of a replica: those with an open session.
    pub async fn live_peers(&self, replica: ReplicaId) -> Result<Vec<PeerId>, ManagerError> {
        let status = self.status().await?;
        let peers = status.replicas.into_iter().find(|known| known.id == replica).map(|known| known.peers);
        let live = peers.unwrap_or_default().into_iter().filter(|peer| peer.state == PeerState::Live);
        Ok(live.map(|peer| peer.id).collect())
    }
}

/// A registered transport.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportInfo {
    /// Its local name.
    pub name: String,
    /// The schemes that it dials.
    pub schemes: Vec<String>,
    /// Where it listens.
    pub addresses: Vec<PeerAddress>,
}

impl From<PeerId> for Target {
    fn from(peer: PeerId) -> Self {
        Self::Peer(peer)
    }
}

impl From<PeerAddress> for Target {
    fn from(address: PeerAddress) -> Self {
        Self::Address(address)
    }
}

async fn ask<T>(shared: &Shared, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, ManagerError> {
    let (sender, answer) = oneshot::channel();
    shared.sender.send(message(sender)).await.map_err(|_| ManagerError::Closed)?;
    answer.await.map_err(|_| ManagerError::Closed)
}

async fn addresses(shared: &Shared) -> Result<Vec<PeerAddress>, ManagerError> {
    Ok(ask(shared, |answer| Message::Report { answer }).await?.addresses)
}

/// Until when a grant lasts.
fn lasts(grant: &Grant) -> Timestamp {
    grant.expires.unwrap_or(Timestamp(u64::MAX))
}

fn verify_grants(id: ReplicaId, bundle: Bundle) -> Result<VerifiedBundle, ManagerError> {
    bundle.verify(id, &mut Verifier::default()).map_err(|error| ManagerError::TicketInvalid(error.to_string()))
}
