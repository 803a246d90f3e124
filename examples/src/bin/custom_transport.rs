//! A transport of one's own, `examples::unix`, beside the others: registered, ticketed, dialled like them.

use std::{sync::Arc, time::Duration};

use examples::{Outcome, unix::UnixTransport, wait_for};
use sync_core::manager::{Access, SyncManager};

#[tokio::main]
async fn main() -> Outcome {
    let dir = std::env::temp_dir().join(format!("syncline-custom-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let mut nodes = Vec::new();
    for name in ["alice", "bob"] {
        let node = SyncManager::builder(Arc::new(store_mem::open()?)).spawn().await?;
        node.add_transport("sockets", Arc::new(UnixTransport::new(dir.join(name)))).await?;
        node.accept_connections().await?;
        nodes.push(node);
    }
    let [alice, bob] = &nodes[..] else { unreachable!("there are two") };

    let replica = alice.create_replica().await?;
    replica.put("from", "alice").await?;
    let ticket = replica.share(Access::WRITE).await?;
    println!("alice can be dialled at {}", ticket.addresses[0]);
    let copy = bob.join(ticket).await?;
    wait_for(&copy, "from", "alice").await?;
    copy.put("from", "bob").await?;
    wait_for(&replica, "from", "bob").await?;

    for node in &nodes {
        node.shutdown(Duration::from_secs(30)).await?;
    }
    std::fs::remove_dir(&dir).map_err(|error| format!("a socket was left behind: {error}"))?;
    println!("equal over a transport of our own");
    Ok(())
}
