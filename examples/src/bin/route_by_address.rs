//! The scheme of a peer's address picks the transport: the application names only the address.

use std::{sync::Arc, time::Duration};

use examples::{Outcome, loopback};
use sync_core::{
    machine::{DialFailure, SyncOutcome},
    manager::{Access, SyncManager},
};
use transport_http::HttpTransport;
use transport_iroh::IrohTransport;
use transport_quic::QuicTransport;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Outcome {
    let server = SyncManager::builder(Arc::new(store_mem::open()?)).spawn().await?;
    server.register_transport("quic", QuicTransport::builder().bind(loopback())).await?;
    server.register_transport("web", HttpTransport::builder().bind(loopback())).await?;
    server.register_transport("p2p", IrohTransport::builder().bind(loopback())).await?;
    server.accept_connections().await?;
    let replica = server.create_replica().await?;
    replica.put("greeting", "hello").await?;

    for address in server.addresses().await? {
        // A new visitor for each address, with all transports, under names of its own.
        let visitor = SyncManager::builder(Arc::new(store_mem::open()?)).spawn().await?;
        visitor.register_transport("fast", QuicTransport::builder().client_only()).await?;
        visitor.register_transport("through walls", HttpTransport::builder().client_only()).await?;
        visitor.register_transport("anywhere", IrohTransport::builder().bind(loopback()).client_only()).await?;

        let mut ticket = replica.share(Access::READ).await?;
        (ticket.peer, ticket.addresses) = (None, Vec::new());
        let copy = visitor.join(ticket).await?;
        let report = visitor.sync_with(address.clone(), copy.id(), PATIENCE).await?;
        assert_eq!(report.outcome, SyncOutcome::Synced);

        let status = visitor.status().await?;
        let used = status.replicas[0].peers[0].transport.clone().expect("it is connected");
        println!("{address}\n  went over `{used}`");
        let expected = match address.scheme() {
            "quic" => "fast",
            "http" => "through walls",
            _ => "anywhere",
        };
        assert_eq!(used, expected);
        visitor.shutdown(PATIENCE).await?;
    }

    // Nobody here dials that: the error says what can be dialled.
    let report = server.sync_with("pigeon:loft-7".parse::<sync_core::PeerAddress>()?, replica.id(), PATIENCE).await?;
    println!("{:?}", report.outcome);
    assert!(matches!(
        report.outcome,
        SyncOutcome::Unreachable { why: DialFailure::NoTransport, error } if error.contains("http, https, iroh, quic")
    ));
    server.shutdown(PATIENCE).await?;
    Ok(())
}
