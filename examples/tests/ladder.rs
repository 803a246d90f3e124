//! Two nodes over bad links: the rungs of the ladder, loss by delay, on each transport.
//!
//! An ordinary run climbs one rung of each. All of them, as a table:
//!
//! ```sh
//! LADDER=all cargo test -p examples --test ladder -- --nocapture
//! ```
//!
//! Loss is that of packets where packets can be lost (quic, iroh). A TCP stream loses none: its rungs stall for each
//! lost piece as a kernel would, and one more rung cuts the connection again and again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use sync_core::{
    PeerAddress,
    manager::{Access, Replica, SyncManager},
    testing::{
        proxy::{Faults, TcpProxy, UdpProxy},
        skipped,
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

/// Keeps a proxy alive.
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

/// A node; the one that listens has IPv6 alone and the one that dials IPv4, so that only the proxy connects them.
async fn node(wire: Wire, bind: &str) -> SyncManager {
    let node = SyncManager::builder(Arc::new(store_mem::open().unwrap())).spawn().await.unwrap();
    let bind = bind.parse().unwrap();
    match wire {
        Wire::Quic => node.register_transport("wire", QuicTransport::builder().bind(bind)).await,
        Wire::Iroh => node.register_transport("wire", IrohTransport::builder().bind(bind)).await,
        Wire::Http => node.register_transport("wire", HttpTransport::builder().bind(bind)).await,
    }
    .unwrap();
    node
}

fn port(address: &PeerAddress) -> u16 {
    let ip = address.url().query_pairs().find(|(name, _)| name == "ip");
    match ip {
        Some((_, socket)) => socket.parse::<SocketAddr>().unwrap().port(),
        None => address.url().port().unwrap(),
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

async fn fill(replica: &Replica, prefix: &str, count: usize) {
    for n in 0..count {
        replica.put(format!("{prefix}{n:04}"), "x".repeat(200)).await.unwrap();
    }
}

/// What a rung took.
struct Climbed {
    bootstrap: Duration,
    live: Duration,
}

async fn climb(wire: Wire, faults: Faults) -> Climbed {
    let (alice, bob) = (node(wire, "[::1]:0").await, node(wire, "127.0.0.1:0").await);
    let listening = alice.accept_connections().await.unwrap();
    let address = listening.addresses.first().unwrap();
    let target = SocketAddr::from((Ipv6Addr::LOCALHOST, port(address)));
    let proxy = Proxy::start(wire, target, faults).await;

    let left = alice.create_replica().await.unwrap();
    fill(&left, "a", FIRST).await;
    let mut ticket = left.share(Access::WRITE).await.unwrap();
    ticket.addresses = vec![through(wire, address, proxy.address())];
    let started = Instant::now();
    let right = bob.join(ticket).await.unwrap();
    bob.wait_synced(right.id(), alice.node_id(), DEADLINE).await.unwrap();
    let bootstrap = started.elapsed();
    // Then live, both ways at once.
    let started = Instant::now();
    tokio::join!(fill(&left, "b", LATER), fill(&right, "c", LATER));
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
    for node in [alice, bob] {
        node.shutdown(Duration::from_secs(5)).await.unwrap();
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

fn has_ipv6() -> bool {
    let has = std::net::UdpSocket::bind("[::1]:0").is_ok();
    if !has {
        skipped("this machine has no IPv6 loopback");
    }
    has
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn one(wire: Wire, faults: Faults) {
    if has_ipv6() {
        let Climbed { bootstrap, live } = runtime().block_on(climb(wire, faults));
        println!("{wire:?}, {faults:?}: {FIRST} entries in {bootstrap:?}, {LATER} + {LATER} live in {live:?}");
    }
}

#[test]
fn b24_quic_converges_at_5_percent_loss_and_50_ms() {
    one(Wire::Quic, faults(5, 50));
}

#[test]
fn b24_iroh_converges_at_5_percent_loss_and_50_ms() {
    one(Wire::Iroh, faults(5, 50));
}

#[test]
fn b24_http_converges_over_a_connection_that_stalls_and_is_cut_again_and_again() {
    one(Wire::Http, Faults { cut_after: Some(40_000), ..faults(5, 20) });
}

#[test]
fn all_rungs() {
    if std::env::var_os("LADDER").is_none() || !has_ipv6() {
        return;
    }
    println!("| transport | loss | delay each way | {FIRST} entries | {LATER} + {LATER} live |");
    println!("|---|---|---|---|---|");
    for wire in [Wire::Quic, Wire::Iroh, Wire::Http] {
        for delay in [0, 50, 300] {
            for loss in [0, 1, 5, 10, 20] {
                let Climbed { bootstrap, live } = runtime().block_on(climb(wire, faults(loss, delay)));
                println!(
                    "| {wire:?} | {loss} % | {delay} ms | {:.2} s | {:.2} s |",
                    bootstrap.as_secs_f64(),
                    live.as_secs_f64()
                );
            }
        }
    }
    let cut = Faults { cut_after: Some(40_000), ..faults(5, 50) };
    let Climbed { bootstrap, live } = runtime().block_on(climb(Wire::Http, cut));
    println!(
        "| Http, cut after about 40 KB | 5 % | 50 ms | {:.2} s | {:.2} s |",
        bootstrap.as_secs_f64(),
        live.as_secs_f64()
    );
}
