//! What the tests share: worlds of nodes over each transport and store, and waits that end with an event or a deadline.

use std::{
    collections::HashMap,
    future::Future,
    io,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use sync_core::{
    PeerAddress,
    machine::{Event, PeerStatus},
    manager::{Access, ManagerBuilder, Replica, SyncManager},
    model::{PeerId, ReplicaId},
    store::{ContentDir, EngineStore, ReplicaStore},
    transport::{
        ByteStream, CloseReason, Connection, Incoming, SyncTransport, TransportBuilder, TransportContext,
        TransportError, TransportState,
        memory::{MemoryNetwork, MemoryTransport},
    },
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::broadcast,
    time::timeout,
};
use transport_http::HttpTransport;
use transport_iroh::IrohTransport;
use transport_quic::QuicTransport;

/// Longer than anything takes that happens at all, on a busy machine too.
pub const LONG: Duration = Duration::from_secs(40);

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    Memory,
    Quic,
    Iroh,
    Http,
}

impl Wire {
    pub const ALL: [Self; 4] = [Self::Memory, Self::Quic, Self::Iroh, Self::Http];

    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Quic => "quic",
            Self::Iroh => "iroh",
            Self::Http => "http",
        }
    }

    pub fn scheme(self) -> &'static str {
        match self {
            Self::Memory => "mem",
            other => other.name(),
        }
    }

    /// An address with this transport's scheme that means nothing to it. In memory every name is an address.
    pub fn malformed_address(self) -> Option<PeerAddress> {
        let text = match self {
            Self::Memory => return None,
            Self::Quic => "quic://127.0.0.1:1?relay=1",
            Self::Iroh => "iroh:nobody",
            Self::Http => "http://127.0.0.1:1/?b=c",
        };
        Some(text.parse().unwrap())
    }

    /// An address of this transport where nobody is.
    pub fn dead_address(self) -> PeerAddress {
        let text = match self {
            Self::Memory => "mem:nobody".into(),
            Self::Quic => format!("quic://{}", unbound_udp()),
            Self::Iroh => {
                let nobody = sync_core::model::SecretKey::generate().public();
                format!("iroh:{nobody}?ip={}", unbound_udp())
            }
            Self::Http => format!("http://{}", unbound_tcp()),
        };
        text.parse().unwrap()
    }
}

fn unbound_udp() -> std::net::SocketAddr {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn unbound_tcp() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Where nodes keep things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    Memory,
    Redb,
}

/// Nodes that can meet.
pub struct World {
    pub network: MemoryNetwork,
    pub wire: Wire,
    keep: Keep,
    dir: tempfile::TempDir,
    stores: Mutex<HashMap<String, (store_mem::MemEngine, ContentDir)>>,
}

impl World {
    pub fn new(wire: Wire, keep: Keep) -> Self {
        // `RUST_LOG=sync_core=debug` shows what happens.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let (network, dir) = (MemoryNetwork::new(), tempfile::tempdir().unwrap());
        Self { network, wire, keep, dir, stores: Mutex::default() }
    }

    /// The store of a node: the same one again after a restart.
    pub fn store(&self, name: &str) -> Arc<dyn ReplicaStore> {
        match self.keep {
            Keep::Memory => {
                let mut stores = self.stores.lock().unwrap();
                let fresh = || (store_mem::MemEngine::default(), ContentDir::in_memory());
                let (engine, content) = stores.entry(name.into()).or_insert_with(fresh).clone();
                Arc::new(EngineStore::open_beside(engine, content).unwrap())
            }
            Keep::Redb => Arc::new(store_redb::open(self.path(name)).unwrap()),
        }
    }

    /// Empties the store of a node that is shut down.
    pub fn wipe(&self, name: &str) {
        self.stores.lock().unwrap().remove(name);
        let _ = std::fs::remove_file(self.path(name));
        let _ = std::fs::remove_dir_all(self.content_dir(name));
    }

    /// Copies the files of a node that is shut down.
    pub fn back_up(&self, name: &str) {
        self.copy_files(name, &format!("copy of {name}"));
    }

    /// Puts the files of a node that is shut down back as they were.
    pub fn restore(&self, name: &str) {
        self.copy_files(&format!("copy of {name}"), name);
    }

    fn copy_files(&self, from: &str, to: &str) {
        let mut copied = 0;
        for file in std::fs::read_dir(self.dir.path()).unwrap().flatten() {
            let name = file.file_name().into_string().unwrap();
            if let Some(rest) = name.strip_prefix(&format!("{from}.")).filter(|_| file.path().is_file()) {
                std::fs::copy(file.path(), self.dir.path().join(format!("{to}.{rest}"))).unwrap();
                copied += 1;
            }
        }
        assert!(copied > 0, "a node on a disk has files");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.redb"))
    }

    /// Where a node on a disk keeps contents.
    pub fn content_dir(&self, name: &str) -> PathBuf {
        self.path(name).with_extension("content")
    }

    pub fn builder(&self, name: &str) -> ManagerBuilder {
        SyncManager::builder(self.store(name))
    }

    /// A node that listens on the world's wire.
    pub async fn node(&self, name: &str) -> SyncManager {
        self.node_on(name, &[self.wire]).await
    }

    /// A node that listens on these wires.
    pub async fn node_on(&self, name: &str, wires: &[Wire]) -> SyncManager {
        self.start(self.builder(name), name, wires).await
    }

    /// Spawns the node and lets it listen.
    pub async fn start(&self, builder: ManagerBuilder, name: &str, wires: &[Wire]) -> SyncManager {
        let manager = builder.spawn().await.unwrap();
        for wire in wires {
            self.register(&manager, wire.name(), *wire, name).await;
        }
        manager.accept_connections().await.unwrap();
        manager
    }

    /// Registers a transport of this kind on loopback.
    pub async fn register(&self, manager: &SyncManager, transport: &str, wire: Wire, node: &str) {
        let registered = match wire {
            Wire::Memory => manager.register_transport(transport, MemoryTransport::builder(&self.network, node)).await,
            Wire::Quic => manager.register_transport(transport, quic()).await,
            Wire::Iroh => manager.register_transport(transport, iroh()).await,
            Wire::Http => manager.register_transport(transport, http()).await,
        };
        registered.unwrap();
    }

    /// Builds a transport without registering it.
    pub async fn transport(&self, wire: Wire, node: &str) -> Arc<dyn SyncTransport> {
        let context =
            TransportContext { node_key: sync_core::model::SecretKey::generate(), state: None::<TransportState> };
        match wire {
            Wire::Memory => Box::new(MemoryTransport::builder(&self.network, node)).build(context).await.unwrap(),
            Wire::Quic => Box::new(quic()).build(context).await.unwrap(),
            Wire::Iroh => Box::new(iroh()).build(context).await.unwrap(),
            Wire::Http => Box::new(http()).build(context).await.unwrap(),
        }
    }
}

pub fn quic() -> transport_quic::QuicBuilder {
    QuicTransport::builder().bind("127.0.0.1:0".parse().unwrap())
}

pub fn iroh() -> transport_iroh::IrohBuilder {
    IrohTransport::builder().bind("127.0.0.1:0".parse().unwrap())
}

pub fn http() -> transport_http::HttpBuilder {
    HttpTransport::builder().bind("127.0.0.1:0".parse().unwrap())
}

/// Runs a test in every world: each transport on each store.
macro_rules! everywhere {
    ($($name:ident)*) => { $(
        mod $name {
            use $crate::common::{Keep, Wire, World};
            #[tokio::test]
            async fn memory_on_mem() {
                super::$name(World::new(Wire::Memory, Keep::Memory)).await
            }
            #[tokio::test]
            async fn memory_on_redb() {
                super::$name(World::new(Wire::Memory, Keep::Redb)).await
            }
            #[tokio::test]
            async fn quic_on_mem() {
                super::$name(World::new(Wire::Quic, Keep::Memory)).await
            }
            #[tokio::test]
            async fn quic_on_redb() {
                super::$name(World::new(Wire::Quic, Keep::Redb)).await
            }
            #[tokio::test]
            async fn iroh_on_mem() {
                super::$name(World::new(Wire::Iroh, Keep::Memory)).await
            }
            #[tokio::test]
            async fn iroh_on_redb() {
                super::$name(World::new(Wire::Iroh, Keep::Redb)).await
            }
            #[tokio::test]
            async fn http_on_mem() {
                super::$name(World::new(Wire::Http, Keep::Memory)).await
            }
            #[tokio::test]
            async fn http_on_redb() {
                super::$name(World::new(Wire::Http, Keep::Redb)).await
            }
        }
    )* };
}

/// Runs a test on every transport.
macro_rules! on_every_wire {
    ($($name:ident)*) => { $(
        mod $name {
            use $crate::common::{Keep, Wire, World};
            #[tokio::test]
            async fn memory() {
                super::$name(World::new(Wire::Memory, Keep::Memory)).await
            }
            #[tokio::test]
            async fn quic() {
                super::$name(World::new(Wire::Quic, Keep::Memory)).await
            }
            #[tokio::test]
            async fn iroh() {
                super::$name(World::new(Wire::Iroh, Keep::Memory)).await
            }
            #[tokio::test]
            async fn http() {
                super::$name(World::new(Wire::Http, Keep::Memory)).await
            }
        }
    )* };
}

/// Runs a test on every transport with sockets, on disks.
macro_rules! on_every_real_wire {
    ($($name:ident)*) => { $(
        mod $name {
            use $crate::common::{Keep, Wire, World};
            #[tokio::test]
            async fn quic() {
                super::$name(World::new(Wire::Quic, Keep::Redb)).await
            }
            #[tokio::test]
            async fn iroh() {
                super::$name(World::new(Wire::Iroh, Keep::Redb)).await
            }
            #[tokio::test]
            async fn http() {
                super::$name(World::new(Wire::Http, Keep::Redb)).await
            }
        }
    )* };
}

/// Runs a test on every store.
macro_rules! on_every_store {
    ($($name:ident)*) => { $(
        mod $name {
            use $crate::common::{Keep, Wire, World};
            #[tokio::test]
            async fn mem() {
                super::$name(World::new(Wire::Memory, Keep::Memory)).await
            }
            #[tokio::test]
            async fn redb() {
                super::$name(World::new(Wire::Memory, Keep::Redb)).await
            }
        }
    )* };
}

pub(crate) use {everywhere, on_every_real_wire, on_every_store, on_every_wire};

/// Fails the test when this takes longer than [`LONG`].
pub async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    timeout(LONG, happens).await.unwrap_or_else(|_| panic!("did not happen in {LONG:?}: {what}"))
}

/// Waits until all handles of one replica see the same root.
pub async fn equal(replicas: &[&Replica]) {
    let mut heads: Vec<_> = replicas.iter().map(|replica| replica.watch("", replica.head())).collect();
    soon("the replicas become equal", async {
        loop {
            let mut roots = Vec::new();
            for replica in replicas {
                roots.push(replica.state().await.unwrap().root);
            }
            if roots.windows(2).all(|pair| pair[0] == pair[1]) {
                return;
            }
            let changes = heads.iter_mut().map(|watch| Box::pin(watch.next()));
            // A system entry wakes no watch: look again now and then.
            let _ = timeout(Duration::from_millis(100), futures_util::future::select_all(changes)).await;
        }
    })
    .await;
}

/// Waits for an event.
pub async fn event(
    events: &mut broadcast::Receiver<Event>,
    what: &str,
    mut wanted: impl FnMut(&Event) -> bool,
) -> Event {
    soon(what, async {
        loop {
            let event = events.recv().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
}

/// What has happened so far.
pub fn past(events: &mut broadcast::Receiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

/// Where a node stands with a peer about a replica.
pub async fn peer_status(manager: &SyncManager, replica: ReplicaId, peer: PeerId) -> Option<PeerStatus> {
    let status = manager.status().await.unwrap();
    let known = status.replicas.into_iter().find(|known| known.id == replica)?;
    known.peers.into_iter().find(|known| known.id == peer)
}

/// Waits until a node stands with a peer as described.
pub async fn peer_is(
    manager: &SyncManager,
    replica: ReplicaId,
    peer: PeerId,
    what: &str,
    holds: impl Fn(&PeerStatus) -> bool,
) -> PeerStatus {
    let find = |status: &sync_core::manager::Status| {
        let known = status.replicas.iter().find(|known| known.id == replica)?;
        known.peers.iter().find(|known| known.id == peer).filter(|peer| holds(peer)).cloned()
    };
    let status = manager.status_when(LONG, |status| find(status).is_some()).await;
    let status = status.unwrap_or_else(|error| panic!("{what}: {error}"));
    find(&status).expect("it was just found")
}

/// Two nodes with an equal replica.
pub struct Pair {
    pub a: SyncManager,
    pub b: SyncManager,
    pub left: Replica,
    pub right: Replica,
}

impl Pair {
    pub fn id(&self) -> ReplicaId {
        self.left.id()
    }
}

/// Two nodes of which the second has joined the first.
pub async fn pair(world: &World) -> Pair {
    let (a, b) = (world.node("a").await, world.node("b").await);
    let left = a.create_replica().await.unwrap();
    let right = join(&left, &b, Access::WRITE).await;
    Pair { a, b, left, right }
}

/// Lets a node join with a fresh ticket, and waits until it is synced.
pub async fn join(from: &Replica, to: &SyncManager, access: Access) -> Replica {
    let ticket = from.share(access).await.unwrap();
    let peer = ticket.peer.expect("a shared ticket names its node");
    let joined = to.join(ticket).await.unwrap();
    to.wait_synced(joined.id(), peer, LONG).await.unwrap();
    joined
}

/// Writes `count` keys in one transaction.
pub async fn fill(replica: &Replica, prefix: &str, count: usize) {
    let mut transaction = replica.write();
    for n in 0..count {
        transaction.put(format!("{prefix}{n:05}"), format!("value of {prefix}{n}")).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

/// The value at a key.
pub async fn value(replica: &Replica, key: &str) -> Option<Vec<u8>> {
    let entry = replica.get(key).await.unwrap()?;
    match entry.entry.op {
        sync_core::model::Op::Put { value: sync_core::model::Value::Inline(bytes), .. } => Some(bytes.to_vec()),
        other => panic!("{other:?} is no inline value"),
    }
}

/// Waits until a key reads so.
pub async fn reads(replica: &Replica, key: &str, wanted: &str) {
    let mut watch = replica.watch(key, replica.head());
    soon(&format!("`{key}` reads `{wanted}`"), async {
        while value(replica, key).await.as_deref() != Some(wanted.as_bytes()) {
            watch.next().await.unwrap();
        }
    })
    .await;
}

/// A transport that counts what it does.
#[derive(Debug)]
pub struct Counting {
    pub inner: Arc<dyn SyncTransport>,
    pub dials: AtomicUsize,
    pub connections: AtomicUsize,
    /// What was dialled, in this order.
    pub dialled: Mutex<Vec<PeerAddress>>,
}

impl Counting {
    pub fn new(inner: Arc<dyn SyncTransport>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            dials: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            dialled: Mutex::default(),
        })
    }
}

#[async_trait]
impl SyncTransport for Counting {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    async fn dial(&self, address: &PeerAddress) -> Result<Box<dyn Connection>, TransportError> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        self.dialled.lock().unwrap().push(address.clone());
        let connection = self.inner.dial(address).await?;
        self.connections.fetch_add(1, Ordering::SeqCst);
        Ok(connection)
    }

    async fn listen(&self, incoming: Incoming) -> Result<Vec<PeerAddress>, TransportError> {
        self.inner.listen(incoming).await
    }

    async fn stop_listening(&self) -> Result<(), TransportError> {
        self.inner.stop_listening().await
    }

    async fn close(&self) {
        self.inner.close().await
    }
}

/// What becomes of a transport's reads, and of its end, while it is told so.
#[derive(Debug, Default)]
pub struct Mood {
    /// Nothing is read, as by a process that is stopped.
    pub frozen: AtomicBool,
    /// When so many bytes were read, no more are; nothing is counted while it is 0.
    pub freezes_after: AtomicUsize,
    read: AtomicUsize,
    /// Whoever reads panics.
    pub panics: AtomicBool,
    /// It never finishes closing.
    pub never_closes: AtomicBool,
}

/// A transport with a mood.
#[derive(Debug)]
pub struct Moody {
    inner: Arc<dyn SyncTransport>,
    mood: Arc<Mood>,
}

impl Moody {
    pub fn new(inner: Arc<dyn SyncTransport>) -> (Arc<Self>, Arc<Mood>) {
        let mood = Arc::new(Mood::default());
        (Arc::new(Self { inner, mood: mood.clone() }), mood)
    }

    /// A node on the world's wire whose reads have a mood.
    pub async fn node(world: &World, name: &str) -> (SyncManager, Arc<Mood>) {
        let node = world.builder(name).spawn().await.unwrap();
        let (transport, mood) = Self::new(world.transport(world.wire, name).await);
        node.add_transport(world.wire.name(), transport).await.unwrap();
        node.accept_connections().await.unwrap();
        (node, mood)
    }
}

#[async_trait]
impl SyncTransport for Moody {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    async fn dial(&self, address: &PeerAddress) -> Result<Box<dyn Connection>, TransportError> {
        let inner = self.inner.dial(address).await?;
        Ok(Box::new(MoodyConnection { inner, mood: self.mood.clone() }))
    }

    async fn listen(&self, incoming: Incoming) -> Result<Vec<PeerAddress>, TransportError> {
        let (sender, mut accepted) = Incoming::channel();
        let addresses = self.inner.listen(sender).await?;
        let mood = self.mood.clone();
        tokio::spawn(async move {
            while let Some(inner) = accepted.recv().await {
                incoming.offer(Box::new(MoodyConnection { inner, mood: mood.clone() }));
            }
        });
        Ok(addresses)
    }

    async fn stop_listening(&self) -> Result<(), TransportError> {
        self.inner.stop_listening().await
    }

    async fn close(&self) {
        self.inner.close().await;
        if self.mood.never_closes.load(Ordering::SeqCst) {
            std::future::pending().await
        }
    }
}

#[derive(Debug)]
struct MoodyConnection {
    inner: Box<dyn Connection>,
    mood: Arc<Mood>,
}

impl MoodyConnection {
    fn moody(&self, stream: ByteStream) -> ByteStream {
        let read = Box::new(MoodyRead { inner: stream.read, mood: self.mood.clone() });
        ByteStream { read, write: stream.write }
    }
}

#[async_trait]
impl Connection for MoodyConnection {
    async fn open(&self) -> Result<ByteStream, TransportError> {
        Ok(self.moody(self.inner.open().await?))
    }

    async fn accept(&self) -> Result<ByteStream, TransportError> {
        Ok(self.moody(self.inner.accept().await?))
    }

    fn channel_binding(&self) -> [u8; 32] {
        self.inner.channel_binding()
    }

    async fn closed(&self) -> TransportError {
        self.inner.closed().await
    }

    fn close(&self, reason: CloseReason) {
        self.inner.close(reason);
    }
}

struct MoodyRead {
    inner: Box<dyn AsyncRead + Send + Sync + Unpin>,
    mood: Arc<Mood>,
}

impl Mood {
    fn is_frozen(&self) -> bool {
        let most = self.freezes_after.load(Ordering::SeqCst);
        self.frozen.load(Ordering::SeqCst) || most > 0 && self.read.load(Ordering::SeqCst) >= most
    }
}

impl AsyncRead for MoodyRead {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        assert!(!self.mood.panics.load(Ordering::SeqCst), "the test says so");
        if self.mood.is_frozen() {
            // Looked at again now and then: it may have thawed.
            let waker = cx.waker().clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                waker.wake();
            });
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.mood.read.fetch_add(buf.filled().len() - before, Ordering::SeqCst);
        polled
    }
}
