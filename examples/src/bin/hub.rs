//! A hub: three nodes that never meet, each reaches the hub by another transport, and all become equal.

use std::{sync::Arc, time::Duration};

use examples::{Outcome, loopback, of_scheme, wait_for};
use sync_core::manager::{Access, SyncManager};
use transport_http::HttpTransport;
use transport_iroh::IrohTransport;
use transport_quic::QuicTransport;

#[tokio::main]
async fn main() -> Outcome {
    let hub = SyncManager::builder(Arc::new(store_mem::open()?)).spawn().await?;
    hub.register_transport("lan", QuicTransport::builder().bind(loopback())).await?;
    hub.register_transport("web", HttpTransport::builder().bind(loopback())).await?;
    hub.register_transport("p2p", IrohTransport::builder().bind(loopback())).await?;
    let addresses = hub.accept_connections().await?.addresses;
    let board = hub.create_replica().await?;

    let mut spokes = Vec::new();
    for scheme in ["quic", "http", "iroh"] {
        let spoke = SyncManager::builder(Arc::new(store_mem::open()?)).spawn().await?;
        match scheme {
            "quic" => spoke.register_transport("mine", QuicTransport::builder().client_only()).await?,
            "http" => spoke.register_transport("mine", HttpTransport::builder().client_only()).await?,
            _ => spoke.register_transport("mine", IrohTransport::builder().bind(loopback()).client_only()).await?,
        }
        let mut ticket = board.share(Access::WRITE).await?;
        ticket.addresses = vec![of_scheme(&addresses, scheme).ok_or("the hub listens there")?];
        let replica = spoke.join(ticket).await?;
        spokes.push((scheme, spoke, replica));
    }

    // Each writes; everyone reads it. What comes in by one transport goes out by the others.
    for (scheme, _, replica) in &spokes {
        replica.put(format!("hello from {scheme}"), "hi").await?;
    }
    for (at, _, replica) in &spokes {
        for (from, ..) in &spokes {
            wait_for(replica, &format!("hello from {from}"), "hi").await?;
            println!("the node on {at} has what the node on {from} wrote");
        }
    }
    for (_, spoke, _) in &spokes {
        assert_eq!(spoke.peers().await?.len(), 1, "it knows the hub alone");
        spoke.shutdown(Duration::from_secs(30)).await?;
    }
    hub.shutdown(Duration::from_secs(30)).await?;
    Ok(())
}
