//! The conformance suite of transports, on loopback, with an endpoint of one's own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{
    any::Any,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use sync_core::{
    PeerAddress,
    model::SecretKey,
    testing::transport_suite::{self, SilentWay, TransportFactory},
    transport::SyncTransport,
};
use tokio::{net::UdpSocket, task::JoinSet};
use transport_iroh::IrohTransport;

struct Iroh;

#[async_trait]
impl TransportFactory for Iroh {
    async fn transport(&self) -> Arc<dyn SyncTransport> {
        common::build(common::loopback(), None).await
    }

    async fn dead_addresses(&self) -> Vec<(PeerAddress, Box<dyn Any + Send>)> {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let swallows = address_of(silent.local_addr().unwrap());
        let unbound = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        vec![(swallows, Box::new(silent)), (address_of(unbound), Box::new(()))]
    }

    /// iroh tells the other end all its addresses and soon goes around a proxy, so that freezing it
    /// silences nothing. See [`Apart`].
    async fn silent_way(&self, _address: &PeerAddress) -> Option<Box<dyn SilentWay>> {
        None
    }
}

mod b15_conformance {
    sync_core::transport_suite!(super::Iroh);
}

/// Nodes that only the proxy connects: the first made has IPv4, the second IPv6.
#[derive(Default)]
struct Apart(AtomicUsize);

#[async_trait]
impl TransportFactory for Apart {
    async fn transport(&self) -> Arc<dyn SyncTransport> {
        let bind = match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => "127.0.0.1:0",
            _ => "[::1]:0",
        };
        common::build(IrohTransport::builder().bind(bind.parse().unwrap()), None).await
    }

    async fn dead_addresses(&self) -> Vec<(PeerAddress, Box<dyn Any + Send>)> {
        Vec::new()
    }

    async fn silent_way(&self, address: &PeerAddress) -> Option<Box<dyn SilentWay>> {
        let target: SocketAddr = ([0, 0, 0, 0, 0, 0, 0, 1], common::ip_port(address)).into();
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let far = Arc::new(UdpSocket::bind("[::1]:0").await.unwrap());
        let address = format!("iroh:{}?ip={}", address.url().path(), near.local_addr().unwrap()).parse().unwrap();
        let client = Arc::new(OnceLock::new());
        let mut ways = JoinSet::new();
        ways.spawn({
            let (near, far, client) = (near.clone(), far.clone(), client.clone());
            async move {
                let mut packet = [0; 65_535];
                while let Ok((len, from)) = near.recv_from(&mut packet).await {
                    client.get_or_init(|| from);
                    far.send_to(&packet[..len], target).await.unwrap();
                }
            }
        });
        ways.spawn(async move {
            let mut packet = [0; 65_535];
            while let Ok((len, _)) = far.recv_from(&mut packet).await {
                near.send_to(&packet[..len], *client.get().expect("it sent first")).await.unwrap();
            }
        });
        Some(Box::new(Bridge { ways, address }))
    }
}

/// One client's packets, from IPv4 to IPv6 and back.
struct Bridge {
    ways: JoinSet<()>,
    address: PeerAddress,
}

impl SilentWay for Bridge {
    fn address(&self) -> PeerAddress {
        self.address.clone()
    }

    fn fall_silent(&mut self) {
        self.ways.abort_all();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b15_closed_resolves_when_the_only_way_falls_silent() {
    if UdpSocket::bind("[::1]:0").await.is_err() {
        sync_core::testing::skipped("this machine has no IPv6 loopback");
        return;
    }
    transport_suite::run("closed_resolves_when_the_other_end_is_gone", &Apart::default()).await.unwrap();
}

fn address_of(socket: std::net::SocketAddr) -> PeerAddress {
    format!("iroh:{}?ip={socket}", SecretKey::generate().public()).parse().unwrap()
}
