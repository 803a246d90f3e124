//! Two nodes over bad links: the rungs of the ladder, loss by delay, on each transport.
//!
//! Each transport has one test. In an ordinary run it climbs three rungs; all of them, as a table, one after the other:
//!
//! ```sh
//! LADDER=all cargo test -p examples --test ladder -- --nocapture --test-threads 1
//! ```
//!
//! Loss is that of packets where packets can be lost (quic, iroh). A TCP stream loses none: its rungs stall for each
//! lost piece as a kernel would, and one more rung cuts the connection again and again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use sync_core::{
    PeerAddress,
    manager::{Access, Replica, SyncManager},
    testing::{
        proxy::{Faults, TcpProxy, UdpProxy},
        skipped,
    },
    transport::{
        Connection, Incoming, SyncTransport, TransportBuilder, TransportContext, TransportError, TransportState,
    },
};
use transport_http::HttpTransport;
use transport_iroh::IrohTransport;
use transport_quic::QuicTransport;

/// Nothing takes longer on the worst rung, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// How many entries there are at first, and how many come later, from each side.
const FIRST: usize = 300;
const LATER: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Quic,
    Iroh,
    Http,
}

/// How long a value is; of a rung whose connection is cut so long that all are many times what passes between two cuts.
/// That is more than one frame of entries has, about 256 KiB: what is cut in the middle of a frame begins with it again.
const VALUE_LEN: usize = 200;
const VALUE_LEN_IF_CUT: usize = 6_000;
const CUT_AFTER: usize = 600_000;

/// Keeps a proxy alive.
#[derive(Debug)]
enum Proxy {
    Udp(UdpProxy),
    Tcp(TcpProxy),
}

impl Proxy {
    async fn start(wire: Wire, target: SocketAddr, faults: Faults) -> Self {
        match wire {
            Wire::Http => Self::Tcp(TcpProxy::start_with(target, faults).await.unwrap()),
            Wire::Quic | Wire::Iroh => Self::Udp(UdpProxy::start_with(target, faults).await.unwrap()),
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Udp(proxy) => proxy.address(),
            Self::Tcp(proxy) => proxy.address(),
        }
    }
}

/// The proxy of a node that listens.
type Before = Arc<Mutex<Option<Proxy>>>;

/// A transport that listens behind a proxy, and says the proxy's address alone: in tickets, and in what it claims.
#[derive(Debug)]
struct Behind {
    wire: Wire,
    faults: Faults,
    inner: Arc<dyn SyncTransport>,
    proxy: Before,
}

struct BehindBuilder<B> {
    wire: Wire,
    faults: Faults,
    inner: B,
    proxy: Before,
}

#[async_trait]
impl<B: TransportBuilder> TransportBuilder for BehindBuilder<B> {
    async fn build(self: Box<Self>, context: TransportContext) -> Result<Arc<dyn SyncTransport>, TransportError> {
        let Self { wire, faults, inner, proxy } = *self;
        let inner = Box::new(inner).build(context).await?;
        Ok(Arc::new(Behind { wire, faults, inner, proxy }))
    }
}

#[async_trait]
impl SyncTransport for Behind {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    async fn dial(&self, address: &PeerAddress) -> Result<Box<dyn Connection>, TransportError> {
        self.inner.dial(address).await
    }

    async fn listen(&self, incoming: Incoming) -> Result<Vec<PeerAddress>, TransportError> {
        let addresses = self.inner.listen(incoming).await?;
        let address = addresses.first().expect("a listener has an address");
        let proxy = Proxy::start(self.wire, socket(address), self.faults).await;
        let through = through(self.wire, address, proxy.address());
        *self.proxy.lock().unwrap() = Some(proxy);
        Ok(vec![through])
    }

    async fn stop_listening(&self) -> Result<(), TransportError> {
        self.inner.stop_listening().await
    }

    fn state(&self) -> Option<TransportState> {
        self.inner.state()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// A node, and the proxy that it is behind once it listens.
async fn node(wire: Wire, bind: &str, faults: Faults) -> (SyncManager, Before) {
    let node = SyncManager::builder(Arc::new(store_mem::open().unwrap())).spawn().await.unwrap();
    let (bind, before) = (bind.parse().unwrap(), Before::default());
    let proxy = Arc::clone(&before);
    match wire {
        Wire::Quic => {
            let inner = QuicTransport::builder().bind(bind);
            node.register_transport("wire", BehindBuilder { wire, faults, inner, proxy }).await
        }
        Wire::Iroh => {
            let inner = IrohTransport::builder().bind(bind);
            node.register_transport("wire", BehindBuilder { wire, faults, inner, proxy }).await
        }
        Wire::Http => {
            let inner = HttpTransport::builder().bind(bind);
            node.register_transport("wire", BehindBuilder { wire, faults, inner, proxy }).await
        }
    }
    .unwrap();
    (node, before)
}

/// Where a listener is. iroh's has it in its query.
fn socket(address: &PeerAddress) -> SocketAddr {
    let ip = address.url().query_pairs().find(|(name, _)| name == "ip");
    match ip {
        Some((_, socket)) => socket.parse().unwrap(),
        None => {
            let url = address.url();
            format!("{}:{}", url.host_str().unwrap(), url.port().unwrap()).parse().unwrap()
        }
    }
}

fn through(wire: Wire, address: &PeerAddress, proxy: SocketAddr) -> PeerAddress {
    match wire {
        Wire::Quic => format!("quic://{proxy}"),
        Wire::Http => format!("http://{proxy}"),
        Wire::Iroh => format!("iroh:{}?ip={proxy}", address.url().path()),
    }
    .parse()
    .unwrap()
}

async fn fill(replica: &Replica, prefix: &str, count: usize, faults: Faults) {
    let len = if faults.cut_after.is_some() { VALUE_LEN_IF_CUT } else { VALUE_LEN };
    for n in 0..count {
        replica.put(format!("{prefix}{n:04}"), "x".repeat(len)).await.unwrap();
    }
}

/// What a rung took.
struct Climbed {
    bootstrap: Duration,
    live: Duration,
}

async fn climb(wire: Wire, faults: Faults) -> Climbed {
    // iroh tells the other end all addresses that it has and goes around a proxy, unless only the proxy connects IPv6
    // with IPv4.
    let listens = if wire == Wire::Iroh { "[::1]:0" } else { "127.0.0.1:0" };
    let (alice, before) = node(wire, listens, faults).await;
    let (bob, _) = node(wire, "127.0.0.1:0", faults).await;
    alice.accept_connections().await.unwrap();

    let left = alice.create_replica().await.unwrap();
    fill(&left, "a", FIRST, faults).await;
    let ticket = left.share(Access::WRITE).await.unwrap();
    let started = Instant::now();
    let right = bob.join(ticket).await.unwrap();
    bob.wait_synced(right.id(), alice.node_id(), DEADLINE).await.unwrap();
    let bootstrap = started.elapsed();
    // Then live, both ways at once.
    let started = Instant::now();
    tokio::join!(fill(&left, "b", LATER, faults), fill(&right, "c", LATER, faults));
    let mut changes = (left.watch("", left.head()), right.watch("", right.head()));
    let equal = async {
        loop {
            let (a, b) = (left.state().await.unwrap().root, right.state().await.unwrap().root);
            if a == b && a.count as usize >= FIRST + 2 * LATER {
                return;
            }
            let change = async {
                tokio::select! {
                    change = changes.0.next() => drop(change.unwrap()),
                    change = changes.1.next() => drop(change.unwrap()),
                }
            };
            // A system entry wakes no watch: look again now and then.
            let _ = tokio::time::timeout(Duration::from_millis(200), change).await;
        }
    };
    tokio::time::timeout(DEADLINE, equal).await.expect("live changes arrive");
    let live = started.elapsed();
    if let (Some(cut_after), Some(Proxy::Tcp(proxy))) = (faults.cut_after, &*before.lock().unwrap()) {
        // Nothing went around the proxy, so none of the connections carried it all.
        let least = FIRST * VALUE_LEN_IF_CUT / (cut_after * 3 / 2);
        assert!(proxy.accepted() > least, "{} connections for more than {least} cuts", proxy.accepted());
    }
    for node in [alice, bob] {
        node.shutdown(Duration::from_secs(30)).await.unwrap();
    }
    Climbed { bootstrap, live }
}

fn faults(loss_percent: usize, delay_ms: u64) -> Faults {
    Faults {
        seed: 7 + loss_percent as u64 * 1_000 + delay_ms,
        delay: Duration::from_millis(delay_ms),
        loss_percent,
        duplicate_percent: loss_percent / 5,
        reorder_percent: loss_percent / 2,
        cut_after: None,
    }
}

/// Which rungs a test climbs: the lowest, one in the middle and a high one, or where the environment asks for it all, and
/// over HTTP one that is cut too.
fn rungs(wire: Wire, middle: Faults) -> Vec<Faults> {
    if std::env::var_os("LADDER").is_none_or(|asked| asked != "all") {
        return vec![faults(0, 0), middle, faults(20, 0)];
    }
    let losses = |delay| [0, 1, 5, 10, 20].map(|loss| faults(loss, delay));
    let mut rungs: Vec<Faults> = [0, 50, 300].into_iter().flat_map(losses).collect();
    rungs.extend((wire == Wire::Http).then(|| Faults { cut_after: Some(CUT_AFTER), ..faults(5, 50) }));
    rungs
}

fn climb_all(wire: Wire, middle: Faults) {
    let rungs = rungs(wire, middle);
    println!("| transport | loss | delay each way | cut after | {FIRST} entries | {LATER} + {LATER} live |");
    println!("|---|---|---|---|---|---|");
    for faults in rungs {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let Climbed { bootstrap, live } = runtime.block_on(climb(wire, faults));
        let Faults { loss_percent, delay, cut_after, .. } = faults;
        let cut = cut_after.map_or("-".to_owned(), |bytes| format!("about {bytes} bytes"));
        let (bootstrap, live) = (bootstrap.as_secs_f64(), live.as_secs_f64());
        println!("| {wire:?} | {loss_percent} % | {delay:?} | {cut} | {bootstrap:.2} s | {live:.2} s |");
    }
}

#[test]
fn b24_nodes_converge_over_bad_links_with_quic() {
    climb_all(Wire::Quic, faults(5, 50));
}

#[test]
fn b24_nodes_converge_over_bad_links_with_iroh() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        return skipped("this machine has no IPv6 loopback");
    }
    climb_all(Wire::Iroh, faults(5, 50));
}

#[test]
fn b24_nodes_converge_over_bad_links_with_http_that_stalls_and_is_cut_again_and_again() {
    climb_all(Wire::Http, Faults { cut_after: Some(CUT_AFTER), ..faults(5, 20) });
}
