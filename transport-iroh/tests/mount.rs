//! Mounted on the application's endpoint and router.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{SOON, build, echo, listening, loopback};
use iroh::{
    Endpoint,
    endpoint::{Connection, PortmapperConfig, presets},
    protocol::{AcceptError, ProtocolHandler, Router},
};
use sync_core::transport::{Incoming, TransportErrorKind};
use tokio::time::timeout;
use transport_iroh::{ALPN, IrohTransport, iroh};

const OTHER: &[u8] = b"application/1";

/// What the application does besides: greets whoever comes.
#[derive(Debug, Clone)]
struct Greeter;

impl ProtocolHandler for Greeter {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let mut stream = connection.open_uni().await?;
        stream.write_all(b"welcome").await.map_err(AcceptError::from_err)?;
        stream.finish()?;
        connection.closed().await;
        Ok(())
    }
}

async fn application_endpoint() -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .unwrap()
        .portmapper_config(PortmapperConfig::Disabled)
        .bind()
        .await
        .unwrap()
}

async fn greeting(from: &Endpoint, to: &Endpoint) -> Vec<u8> {
    let connection = from.connect(to.addr(), OTHER).await.unwrap();
    let mut stream = connection.accept_uni().await.unwrap();
    stream.read_to_end(64).await.unwrap()
}

#[tokio::test]
async fn b14_mounted_on_a_router_it_works_beside_the_applications_protocol_and_leaves_the_endpoint_alone() {
    let endpoint = application_endpoint().await;
    let (builder, protocol) = IrohTransport::mount(endpoint.clone());
    let router = Router::builder(endpoint.clone()).accept(ALPN, protocol).accept(OTHER, Greeter).spawn();
    let (mounted, address, mut accepted) = listening(builder).await;
    assert!(mounted.state().is_none());
    let (other, other_address, mut other_accepted) = listening(loopback()).await;
    let visitor = application_endpoint().await;

    let dialled = other.dial(&address).await.unwrap();
    let there = accepted.recv().await.unwrap();
    echo(&*dialled, &*there).await;
    assert_eq!(dialled.channel_binding(), there.channel_binding());
    let outward = mounted.dial(&other_address).await.unwrap();
    echo(&*outward, &*other_accepted.recv().await.unwrap()).await;
    assert_eq!(greeting(&visitor, &endpoint).await, b"welcome");

    mounted.close().await;
    for connection in [&dialled, &there, &outward] {
        timeout(SOON, connection.closed()).await.expect("Syncline's connections end");
    }
    assert!(!endpoint.is_closed());
    assert_eq!(greeting(&visitor, &endpoint).await, b"welcome");
    assert_eq!(mounted.dial(&other_address).await.unwrap_err().kind, TransportErrorKind::Closed);

    visitor.close().await;
    other.close().await;
    router.shutdown().await.unwrap();
}

#[tokio::test]
async fn b14_a_mounted_transport_accepts_only_while_it_listens() {
    let endpoint = application_endpoint().await;
    let (builder, protocol) = IrohTransport::mount(endpoint.clone());
    let router = Router::builder(endpoint.clone()).accept(ALPN, protocol).spawn();
    let mounted = build(builder, None).await;
    let other = build(loopback(), None).await;
    let (incoming, mut accepted) = Incoming::channel();
    let address = mounted.listen(incoming).await.unwrap().remove(0);
    let first = other.dial(&address).await.unwrap();
    let first_there = accepted.recv().await.unwrap();

    mounted.stop_listening().await.unwrap();
    // The refusal may come just after the handshake; then the connection is closed at once.
    if let Ok(connection) = other.dial(&address).await {
        timeout(SOON, connection.closed()).await.expect("it is refused");
    }
    assert!(accepted.try_recv().is_err());
    echo(&*first, &*first_there).await;

    let (incoming, mut accepted) = Incoming::channel();
    assert_eq!(mounted.listen(incoming).await.unwrap(), std::slice::from_ref(&address));
    let again = other.dial(&address).await.unwrap();
    echo(&*again, &*accepted.recv().await.unwrap()).await;
    other.close().await;
    router.shutdown().await.unwrap();
    let ended = timeout(SOON, again.closed()).await.unwrap();
    assert_eq!(ended.kind, TransportErrorKind::Closed, "{ended:?}");
}

#[tokio::test]
async fn b14_a_router_that_shuts_down_ends_the_transports_connections_and_dials_are_errors() {
    let endpoint = application_endpoint().await;
    let (builder, protocol) = IrohTransport::mount(endpoint.clone());
    let router = Router::builder(endpoint).accept(ALPN, protocol).spawn();
    let (mounted, address, mut accepted) = listening(builder).await;
    let (other, other_address, _other_accepted) = listening(loopback()).await;
    let dialled = other.dial(&address).await.unwrap();
    let there = accepted.recv().await.unwrap();
    router.shutdown().await.unwrap();
    timeout(SOON, dialled.closed()).await.unwrap();
    timeout(SOON, there.closed()).await.unwrap();
    assert_eq!(mounted.dial(&other_address).await.unwrap_err().kind, TransportErrorKind::Closed);
    other.close().await;
}
