//! The transport in memory: the reference text of the contract, made of a pipe and [`upgrade`].
//!
//! Nodes meet in a [`MemoryNetwork`], which is a value and not a global, under addresses `mem:name`. It can
//! be cut and frozen, so that tests see what a network does.
//!
//! ```
//! use sync_core::transport::{Incoming, SyncTransport, memory::{MemoryNetwork, MemoryTransport}};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let network = MemoryNetwork::new();
//! let (alice, bob) = (MemoryTransport::new(&network, "alice"), MemoryTransport::new(&network, "bob"));
//! let (incoming, mut accepted) = Incoming::channel();
//! let addresses = bob.listen(incoming).await?;
//! let connection = alice.dial(&addresses[0]).await?;
//! assert_eq!(connection.channel_binding(), accepted.recv().await.expect("bob listens").channel_binding());
//! # Ok(()) }
//! ```

use std::{
    collections::HashMap,
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use async_trait::async_trait;
use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    task::JoinSet,
};

use super::{
    Connection, DIAL_DEADLINE, Incoming, SyncTransport, TransportBuilder, TransportContext, TransportError,
    TransportErrorKind,
    upgrade::{Role, upgrade},
};
use crate::address::PeerAddress;

/// What a pipe holds in each direction before its writer waits.
const PIPE_CAPACITY: usize = 256 * 1024;

/// How many accepted pipes may be shaking hands at a time.
const MAX_HANDSHAKES: usize = 64;

/// Where nodes in one process meet. Clones are the same network.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<Map>>);

#[derive(Default)]
struct Map {
    listeners: HashMap<String, Listener>,
    wires: Vec<Weak<Wire>>,
    frozen: Vec<String>,
}

struct Listener {
    incoming: Incoming,
    handshakes: JoinSet<()>,
    /// Tells the connections that were accepted here from others when the transport closes.
    owner: Arc<Node>,
}

impl MemoryNetwork {
    /// A network without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every connection from or to `name`, as if a cable were pulled and noticed at once.
    pub fn cut(&self, name: &str) {
        self.set(name, CUT);
    }

    /// Makes `name` silent: its connections stay and carry nothing, and dialling it or from it
    /// leads nowhere, until [`MemoryNetwork::thaw`].
    pub fn freeze(&self, name: &str) {
        let mut map = self.map();
        if !map.frozen.iter().any(|frozen| frozen == name) {
            map.frozen.push(name.into());
        }
        drop(map);
        self.set(name, FROZEN);
    }

    /// Ends the silence of [`MemoryNetwork::freeze`]; what was on its way arrives.
    pub fn thaw(&self, name: &str) {
        self.map().frozen.retain(|frozen| frozen != name);
        self.set(name, OPEN);
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.0.lock().expect("nothing panics while it holds the network")
    }

    fn set(&self, name: &str, state: u8) {
        let mut map = self.map();
        map.wires.retain(|wire| wire.strong_count() > 0);
        for wire in map.wires.iter().filter_map(Weak::upgrade).filter(|wire| wire.touches(name)) {
            wire.set(state);
        }
    }

    /// A pipe from `dialer` to whoever listens under `name`.
    fn connect(&self, dialer: &Arc<Node>, name: &str) -> Option<Pipe> {
        let mut map = self.map();
        let Map { listeners, wires, frozen } = &mut *map;
        let listener = listeners.get_mut(name)?;
        while listener.handshakes.try_join_next().is_some() {}
        if listener.handshakes.len() >= MAX_HANDSHAKES {
            return None;
        }
        let silent = frozen.iter().any(|frozen| frozen == name || *frozen == dialer.name);
        let wire = Arc::new(Wire {
            ends: [Arc::downgrade(dialer), Arc::downgrade(&listener.owner)],
            names: [dialer.name.clone(), name.into()],
            state: AtomicU8::new(if silent { FROZEN } else { OPEN }),
            wakers: Default::default(),
        });
        wires.retain(|wire| wire.strong_count() > 0);
        wires.push(Arc::downgrade(&wire));
        let (here, there) = tokio::io::duplex(PIPE_CAPACITY);
        let there = Pipe { duplex: there, wire: wire.clone(), end: 1 };
        let incoming = listener.incoming.clone();
        listener.handshakes.spawn(async move {
            match upgrade(there, Role::Listener).await {
                Ok(connection) => drop(incoming.offer(connection)),
                Err(error) => tracing::debug!(%error, "a dialler in memory did not finish its handshake"),
            }
        });
        Some(Pipe { duplex: here, wire, end: 0 })
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryNetwork({} listeners)", self.map().listeners.len())
    }
}

/// A node's place in a [`MemoryNetwork`].
pub struct MemoryTransport {
    network: MemoryNetwork,
    node: Arc<Node>,
}

/// What the wires of a transport belong to.
struct Node {
    name: String,
    state: Mutex<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Listening,
    Closed,
}

impl MemoryTransport {
    /// A transport in `network` that listens, when it is told to, as `mem:name`.
    pub fn new(network: &MemoryNetwork, name: impl Into<String>) -> Self {
        let node = Arc::new(Node { name: name.into(), state: Mutex::new(State::Idle) });
        Self { network: network.clone(), node }
    }

    /// The same as a builder, to be registered.
    pub fn builder(network: &MemoryNetwork, name: impl Into<String>) -> MemoryTransportBuilder {
        MemoryTransportBuilder { network: network.clone(), name: name.into() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.node.state.lock().expect("nothing panics while it holds the state")
    }

    fn end_all(&self) {
        let was = std::mem::replace(&mut *self.state(), State::Closed);
        let mut map = self.network.map();
        if was == State::Listening {
            map.listeners.remove(&self.node.name);
        }
        for wire in map.wires.iter().filter_map(Weak::upgrade).filter(|wire| wire.belongs_to(&self.node)) {
            wire.set(CUT);
        }
    }

    fn closed(&self) -> TransportError {
        TransportError::new(TransportErrorKind::Closed, format!("mem:{} was closed", self.node.name))
    }
}

#[async_trait]
impl SyncTransport for MemoryTransport {
    fn schemes(&self) -> &[&'static str] {
        &["mem"]
    }

    async fn dial(&self, address: &PeerAddress) -> Result<Box<dyn Connection>, TransportError> {
        if *self.state() == State::Closed {
            return Err(self.closed());
        }
        if address.scheme() != "mem" {
            return Err(TransportError::new(
                TransportErrorKind::UnsupportedAddress,
                format!("the transport in memory dials mem:name, not {address}"),
            ));
        }
        let Some(pipe) = self.network.connect(&self.node, address.url().path()) else {
            return Err(TransportError::new(TransportErrorKind::Unreachable, format!("nobody listens at {address}")));
        };
        match tokio::time::timeout(DIAL_DEADLINE, upgrade(pipe, Role::Dialer)).await {
            Ok(connection) => connection,
            Err(_) => Err(TransportError::new(TransportErrorKind::TimedOut, format!("{address} does not answer"))),
        }
    }

    async fn listen(&self, incoming: Incoming) -> Result<Vec<PeerAddress>, TransportError> {
        let name = &self.node.name;
        let address: PeerAddress = format!("mem:{name}").parse().map_err(|error| {
            TransportError::because(TransportErrorKind::CannotListen, format!("`{name}` is no name"), error)
        })?;
        let mut state = self.state();
        match *state {
            State::Idle => {}
            State::Listening => {
                return Err(TransportError::new(
                    TransportErrorKind::AlreadyListening,
                    format!("{address} listens already; stop it first"),
                ));
            }
            State::Closed => return Err(self.closed()),
        }
        let mut map = self.network.map();
        if map.listeners.contains_key(name) {
            return Err(TransportError::new(
                TransportErrorKind::CannotListen,
                format!("another node listens at {address}; choose another name"),
            ));
        }
        let listener = Listener { incoming, handshakes: JoinSet::new(), owner: self.node.clone() };
        map.listeners.insert(name.clone(), listener);
        *state = State::Listening;
        Ok(vec![address])
    }

    async fn stop_listening(&self) -> Result<(), TransportError> {
        let mut state = self.state();
        match *state {
            State::Listening => {
                self.network.map().listeners.remove(&self.node.name);
                *state = State::Idle;
                Ok(())
            }
            State::Idle => Err(TransportError::new(
                TransportErrorKind::NotListening,
                format!("mem:{} does not listen", self.node.name),
            )),
            State::Closed => Err(self.closed()),
        }
    }

    async fn close(&self) {
        self.end_all();
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.end_all();
    }
}

impl fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryTransport(mem:{})", self.node.name)
    }
}

/// Makes a [`MemoryTransport`] when it is registered.
#[derive(Debug)]
pub struct MemoryTransportBuilder {
    network: MemoryNetwork,
    name: String,
}

#[async_trait]
impl TransportBuilder for MemoryTransportBuilder {
    async fn build(self: Box<Self>, context: TransportContext) -> Result<Arc<dyn SyncTransport>, TransportError> {
        match context.state {
            None => Ok(Arc::new(MemoryTransport::new(&self.network, self.name))),
            Some(state) => Err(TransportError::new(
                TransportErrorKind::StateMismatch,
                format!("a transport in memory keeps no state, but `{}` was saved under its name", state.kind),
            )),
        }
    }
}

const OPEN: u8 = 0;
const FROZEN: u8 = 1;
const CUT: u8 = 2;

/// What the two ends of a pipe share.
struct Wire {
    /// Weak: a connection does not keep its transport's node.
    ends: [Weak<Node>; 2],
    names: [String; 2],
    state: AtomicU8,
    wakers: [AtomicWaker; 2],
}

impl Wire {
    fn touches(&self, name: &str) -> bool {
        self.names.iter().any(|end| end == name)
    }

    fn belongs_to(&self, node: &Arc<Node>) -> bool {
        self.ends.iter().any(|end| std::ptr::eq(end.as_ptr(), Arc::as_ptr(node)))
    }

    fn set(&self, state: u8) {
        // What is cut stays cut.
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| (old != CUT).then_some(state)).ok();
        self.wakers.iter().for_each(AtomicWaker::wake);
    }
}

/// One end of a pipe. One task polls it: the handshake's, then the driver's.
struct Pipe {
    duplex: DuplexStream,
    wire: Arc<Wire>,
    end: usize,
}

impl Pipe {
    fn poll_open(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.wakers[self.end].register(cx.waker());
        match self.wire.state.load(Ordering::Acquire) {
            OPEN => Poll::Ready(Ok(())),
            FROZEN => Poll::Pending,
            _ => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_open(cx))?;
        Pin::new(&mut self.duplex).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_open(cx))?;
        Pin::new(&mut self.duplex).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_open(cx))?;
        Pin::new(&mut self.duplex).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_open(cx))?;
        Pin::new(&mut self.duplex).poll_shutdown(cx)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{any::Any, sync::atomic::AtomicUsize, time::Duration};

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::testing::transport_suite::{SilentWay, TransportFactory};

    /// Nodes of one network, named by number.
    #[derive(Default)]
    pub(crate) struct MemoryFactory {
        network: MemoryNetwork,
        nodes: AtomicUsize,
    }

    #[async_trait]
    impl TransportFactory for MemoryFactory {
        async fn transport(&self) -> Arc<dyn SyncTransport> {
            let number = self.nodes.fetch_add(1, Ordering::Relaxed);
            Arc::new(MemoryTransport::new(&self.network, format!("node-{number}")))
        }

        async fn dead_addresses(&self) -> Vec<(PeerAddress, Box<dyn Any + Send>)> {
            let silent = self.transport().await;
            let (incoming, accepted) = Incoming::channel();
            let address = silent.listen(incoming).await.unwrap().remove(0);
            self.network.freeze(address.url().path());
            let nobody = "mem:nobody".parse().unwrap();
            vec![(nobody, Box::new(())), (address, Box::new((silent, accepted)))]
        }

        async fn silent_way(&self, address: &PeerAddress) -> Option<Box<dyn SilentWay>> {
            Some(Box::new(Way { network: self.network.clone(), address: address.clone() }))
        }
    }

    struct Way {
        network: MemoryNetwork,
        address: PeerAddress,
    }

    impl SilentWay for Way {
        fn address(&self) -> PeerAddress {
            self.address.clone()
        }

        fn fall_silent(&mut self) {
            self.network.freeze(self.address.url().path());
        }
    }

    mod conformance {
        crate::transport_suite!(super::MemoryFactory::default(), virtual_time);
    }

    async fn pair(network: &MemoryNetwork) -> (Box<dyn Connection>, Box<dyn Connection>, [MemoryTransport; 2]) {
        let nodes = [MemoryTransport::new(network, "a"), MemoryTransport::new(network, "b")];
        let (incoming, mut accepted) = Incoming::channel();
        let addresses = nodes[1].listen(incoming).await.unwrap();
        let here = nodes[0].dial(&addresses[0]).await.unwrap();
        (here, accepted.recv().await.unwrap(), nodes)
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_ends_both_ends_at_once() {
        let network = MemoryNetwork::new();
        let (here, there, _nodes) = pair(&network).await;
        network.cut("b");
        let ends =
            tokio::time::timeout(Duration::from_millis(1), async { tokio::join!(here.closed(), there.closed()) });
        let (here, there) = ends.await.unwrap();
        assert_eq!((here.kind, there.kind), (TransportErrorKind::ConnectionLost, TransportErrorKind::ConnectionLost));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waited_arrives_when_a_short_silence_ends() {
        let network = MemoryNetwork::new();
        let (here, there, _nodes) = pair(&network).await;
        network.freeze("b");
        let mut stream = here.open().await.unwrap();
        stream.write_all(b"later").await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(10), there.accept()).await.is_err());
        network.thaw("b");
        tokio::time::timeout(Duration::from_secs(1), there.accept()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn b6_state_of_another_kind_is_a_typed_mismatch() {
        let builder = MemoryTransport::builder(&MemoryNetwork::new(), "a");
        let state = Some(crate::transport::TransportState { kind: "quic/1".into(), bytes: vec![1] });
        let node_key = crate::model::SecretKey::from_bytes([1; 32]);
        let error = Box::new(builder).build(TransportContext { node_key, state }).await.unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::StateMismatch);
    }
}
