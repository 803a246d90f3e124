//! Two real nodes with a proxy between them, and no other way.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use sync_core::{
    PeerAddress,
    manager::{Access, Replica, SyncManager},
    testing::{
        proxy::{Faults, TcpProxy, UdpProxy, Way},
        skipped,
    },
    transport::{Connection, Incoming, SyncTransport, TransportError, TransportErrorKind},
};
use transport_http::HttpTransport;
use transport_iroh::IrohTransport;
use transport_quic::QuicTransport;

use crate::common::{LONG, Wire, World};

/// The proxy of a wire.
pub enum Proxy {
    Udp(UdpProxy),
    Tcp(TcpProxy),
}

/// The same of either proxy.
macro_rules! of_either {
    ($self:ident, $proxy:ident => $what:expr) => {
        match $self {
            Self::Udp($proxy) => $what,
            Self::Tcp($proxy) => $what,
        }
    };
}

impl Proxy {
    async fn start(wire: Wire, target: SocketAddr, faults: Faults) -> Self {
        match wire {
            Wire::Http => Self::Tcp(TcpProxy::start_with(target, faults).await.unwrap()),
            Wire::Quic | Wire::Iroh => Self::Udp(UdpProxy::start_with(target, faults).await.unwrap()),
            Wire::Memory => panic!("nothing of the transport in memory passes a proxy"),
        }
    }

    pub fn address(&self) -> SocketAddr {
        of_either!(self, proxy => proxy.address())
    }

    pub fn half_open(&self, open: Way) {
        of_either!(self, proxy => proxy.half_open(open))
    }

    pub fn thaw(&self) {
        of_either!(self, proxy => proxy.thaw())
    }

    pub fn freeze_at(&self, more: u64) {
        of_either!(self, proxy => proxy.freeze_at(more))
    }

    pub async fn interrupted(&self) {
        of_either!(self, proxy => proxy.interrupted().await)
    }
}

/// A node that listens, one that dials, and the proxy. The first has IPv6 alone and the second IPv4, so that iroh finds
/// no way around it, and the second dials nothing else.
pub struct Bridge {
    pub proxy: Proxy,
    pub a: SyncManager,
    pub b: SyncManager,
    address: PeerAddress,
}

impl Bridge {
    /// None, with a word about it, on a machine without IPv6.
    pub async fn new(world: &World, faults: Faults) -> Option<Self> {
        if std::net::UdpSocket::bind("[::1]:0").is_err() {
            skipped("this machine has no IPv6 loopback");
            return None;
        }
        let a = world.builder("a").spawn().await.unwrap();
        let far = "[::1]:0".parse().unwrap();
        match world.wire {
            Wire::Quic => a.register_transport("quic", QuicTransport::builder().bind(far)).await,
            Wire::Iroh => a.register_transport("iroh", IrohTransport::builder().bind(far)).await,
            Wire::Http => a.register_transport("http", HttpTransport::builder().bind(far)).await,
            Wire::Memory => panic!("nothing of the transport in memory passes a proxy"),
        }
        .unwrap();
        let listening = a.accept_connections().await.unwrap();
        let direct = listening.addresses.first().unwrap();
        let target = SocketAddr::from((Ipv6Addr::LOCALHOST, port(direct)));
        let proxy = Proxy::start(world.wire, target, faults).await;
        let address: PeerAddress = match world.wire {
            Wire::Iroh => format!("iroh:{}?ip={}", direct.url().path(), proxy.address()),
            other => format!("{}://{}", other.scheme(), proxy.address()),
        }
        .parse()
        .unwrap();
        let b = world.builder("b").spawn().await.unwrap();
        let only = Only { inner: world.transport(world.wire, "b").await, address: address.clone() };
        b.add_transport(world.wire.name(), Arc::new(only)).await.unwrap();
        Some(Self { proxy, a, b, address })
    }

    /// Lets the second node join, without waiting.
    pub async fn join(&self, replica: &Replica) -> Replica {
        let mut ticket = replica.share(Access::WRITE).await.unwrap();
        ticket.addresses = vec![self.address.clone()];
        self.b.join(ticket).await.unwrap()
    }

    /// Lets the second node join, and waits until it is synced.
    pub async fn joined(&self, replica: &Replica) -> Replica {
        let joined = self.join(replica).await;
        self.b.wait_synced(joined.id(), self.a.node_id(), LONG).await.unwrap();
        joined
    }
}

fn port(address: &PeerAddress) -> u16 {
    let ip = address.url().query_pairs().find(|(name, _)| name == "ip");
    match ip {
        Some((_, socket)) => socket.parse::<SocketAddr>().unwrap().port(),
        None => address.url().port().unwrap(),
    }
}

/// A transport that dials one address alone: what a peer says about itself leads around the proxy.
#[derive(Debug)]
struct Only {
    inner: Arc<dyn SyncTransport>,
    address: PeerAddress,
}

#[async_trait]
impl SyncTransport for Only {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    async fn dial(&self, address: &PeerAddress) -> Result<Box<dyn Connection>, TransportError> {
        if *address != self.address {
            return Err(TransportError::new(TransportErrorKind::Unreachable, format!("{address} is not the proxy")));
        }
        self.inner.dial(address).await
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
