//! What the tests of this crate share.

#![allow(dead_code, reason = "each test file takes what it needs")]

use std::{net::UdpSocket, sync::Arc, time::Duration};

use sync_core::{
    PeerAddress,
    model::SecretKey,
    transport::{Connection, Incoming, SyncTransport, TransportBuilder, TransportContext, TransportState},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc::Receiver,
};
use transport_iroh::{IrohBuilder, IrohTransport};

/// Longer than anything takes that happens at all.
pub const SOON: Duration = Duration::from_secs(20);

/// Accepted connections.
pub type Accepted = Receiver<Box<dyn Connection>>;

/// An endpoint that stays on this machine.
pub fn loopback() -> IrohBuilder {
    IrohTransport::builder().bind("127.0.0.1:0".parse().unwrap())
}

/// Builds with a fresh node key.
pub async fn build(builder: impl TransportBuilder, state: Option<TransportState>) -> Arc<dyn SyncTransport> {
    let context = TransportContext { node_key: SecretKey::generate(), state };
    Box::new(builder).build(context).await.unwrap()
}

/// Builds and listens.
pub async fn listening(builder: impl TransportBuilder) -> (Arc<dyn SyncTransport>, PeerAddress, Accepted) {
    let transport = build(builder, None).await;
    let (incoming, accepted) = Incoming::channel();
    let addresses = transport.listen(incoming).await.unwrap();
    (transport, addresses[0].clone(), accepted)
}

/// Sends some bytes there and back: both directions of a new stream work.
pub async fn echo(from: &dyn Connection, to: &dyn Connection) {
    let mut here = from.open().await.unwrap();
    here.write_all(b"question").await.unwrap();
    here.shutdown().await.unwrap();
    let mut there = to.accept().await.unwrap();
    let mut text = String::new();
    there.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "question");
    there.write_all(b"answer").await.unwrap();
    there.shutdown().await.unwrap();
    text.clear();
    here.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
}

/// The port of the first IP address.
pub fn ip_port(address: &PeerAddress) -> u16 {
    let (_, ip) = address.url().query_pairs().find(|(name, _)| name == "ip").unwrap();
    ip.parse::<std::net::SocketAddr>().unwrap().port()
}

/// Whether a UDP socket can be bound there.
pub fn port_is_free(port: u16) -> bool {
    UdpSocket::bind(("127.0.0.1", port)).is_ok()
}

/// Waits until it is: iroh's last tasks let go of the socket a moment after its endpoint was closed.
pub async fn port_becomes_free(port: u16) {
    let freed = async {
        while !port_is_free(port) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, freed).await.expect("the port is free");
}
