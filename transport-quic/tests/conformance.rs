//! The conformance suite of transports, on loopback.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{any::Any, net::UdpSocket, sync::Arc};

use async_trait::async_trait;
use sync_core::{
    PeerAddress,
    testing::{
        proxy::UdpProxy,
        transport_suite::{SilentWay, TransportFactory},
    },
    transport::SyncTransport,
};
use transport_quic::QuicTransport;

struct Quic;

#[async_trait]
impl TransportFactory for Quic {
    async fn transport(&self) -> Arc<dyn SyncTransport> {
        let builder = QuicTransport::builder().bind("127.0.0.1:0".parse().unwrap());
        Arc::new(builder.build_transport(None).unwrap())
    }

    async fn dead_addresses(&self) -> Vec<(PeerAddress, Box<dyn Any + Send>)> {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let swallows = address_of(silent.local_addr().unwrap());
        let unbound = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        vec![(swallows, Box::new(silent)), (address_of(unbound), Box::new(()))]
    }

    async fn silent_way(&self, address: &PeerAddress) -> Option<Box<dyn SilentWay>> {
        let target = address.as_str().strip_prefix("quic://").unwrap().parse().unwrap();
        Some(Box::new(Proxied(UdpProxy::start(target).await.unwrap())))
    }
}

struct Proxied(UdpProxy);

impl SilentWay for Proxied {
    fn address(&self) -> PeerAddress {
        address_of(self.0.address())
    }

    fn fall_silent(&mut self) {
        self.0.freeze();
    }
}

fn address_of(socket: std::net::SocketAddr) -> PeerAddress {
    format!("quic://{socket}").parse().unwrap()
}

mod b15_conformance {
    sync_core::transport_suite!(super::Quic);
}
