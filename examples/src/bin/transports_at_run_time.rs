//! Transports are registered, listed and removed at run time, any number of one kind side by side.

use std::{sync::Arc, time::Duration};

use examples::{Outcome, loopback, wait_for};
use sync_core::manager::{Access, SyncManager};
use transport_http::HttpTransport;
use transport_quic::QuicTransport;

async fn show(node: &SyncManager) -> Outcome {
    for transport in node.transports().await? {
        let addresses: Vec<_> = transport.addresses.iter().map(ToString::to_string).collect();
        println!("  {} dials {:?}, listens at [{}]", transport.name, transport.schemes, addresses.join(", "));
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome {
    let hub = SyncManager::builder(Arc::new(store_mem::open()?)).spawn().await?;
    let laptop = SyncManager::builder(Arc::new(store_mem::open()?)).spawn().await?;
    let board = hub.create_replica().await?;
    board.put("title", "plans").await?;

    // A node works without any transport. Then two of one kind, under names of our own.
    hub.register_transport("office", QuicTransport::builder().bind(loopback())).await?;
    hub.register_transport("guests", QuicTransport::builder().bind(loopback())).await?;
    hub.accept_connections().await?;
    println!("two of one kind:");
    show(&hub).await?;

    laptop.register_transport("my quic", QuicTransport::builder().client_only()).await?;
    let copy = laptop.join(board.share(Access::WRITE).await?).await?;
    wait_for(&copy, "title", "plans").await?;

    // Another kind comes. The peer hears of its address when it connects next.
    hub.register_transport("web", HttpTransport::builder().bind(loopback())).await?;
    hub.accept_connections().await?;
    laptop.register_transport("my web", HttpTransport::builder().client_only()).await?;
    laptop.add_peer(hub.node_id(), hub.addresses().await?).await?;

    // QUIC goes, in the middle of things. What was in flight goes on over HTTP.
    copy.put("title", "better plans").await?;
    hub.remove_transport("office").await?;
    hub.remove_transport("guests").await?;
    wait_for(&board, "title", "better plans").await?;
    board.put("title", "final plans").await?;
    wait_for(&copy, "title", "final plans").await?;
    println!("after QUIC was removed:");
    show(&hub).await?;
    assert_eq!(hub.transports().await?.len(), 1);

    let error = hub.remove_transport("office").await.expect_err("it is gone already");
    println!("removing it twice: {error}");
    hub.shutdown(Duration::from_secs(30)).await?;
    laptop.shutdown(Duration::from_secs(30)).await?;
    Ok(())
}
