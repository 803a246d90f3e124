//! Two nodes in one program: one makes a replica and a ticket, the other joins, and changes arrive live.

use std::{sync::Arc, time::Duration};

use examples::{Outcome, loopback, wait_for};
use sync_core::manager::{Access, SyncManager};
use transport_quic::QuicTransport;

/// A node with a store in memory that listens for QUIC on this machine.
async fn node() -> Result<SyncManager, Box<dyn std::error::Error>> {
    let node = SyncManager::builder(Arc::new(store_mem::open()?)).spawn().await?;
    node.register_transport("lan", QuicTransport::builder().bind(loopback())).await?;
    node.accept_connections().await?;
    Ok(node)
}

#[tokio::main]
async fn main() -> Outcome {
    let (alice, bob) = (node().await?, node().await?);

    // Alice has notes, and invites whoever holds the ticket to write them too.
    let notes = alice.create_replica().await?;
    notes.put("shopping/milk", "2 litres").await?;
    let ticket = notes.share(Access::WRITE).await?.to_string();
    println!("the ticket: {ticket}");

    // Bob joins, and everything that is there comes.
    let copy = bob.join(ticket.parse()?).await?;
    bob.wait_synced(copy.id(), alice.node_id(), Duration::from_secs(30)).await?;
    wait_for(&copy, "shopping/milk", "2 litres").await?;

    // From now on every change on either side reaches the other.
    copy.put("shopping/bread", "one").await?;
    wait_for(&notes, "shopping/bread", "one").await?;
    notes.delete_prefix("shopping/").await?;
    let mut changes = copy.watch("shopping/", copy.head());
    while copy.get("shopping/bread").await?.is_some() {
        changes.next().await?;
    }
    assert_eq!(notes.state().await?.root, copy.state().await?.root);
    println!("both have the same root: {:?}", copy.state().await?.root.hash);

    alice.shutdown(Duration::from_secs(30)).await?;
    bob.shutdown(Duration::from_secs(30)).await?;
    Ok(())
}
