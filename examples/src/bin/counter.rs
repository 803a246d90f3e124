//! Values that merge: Syncline keeps entries equal and merges nothing inside them. An update of a
//! mergeable value is an entry under a key that never conflicts: here each author counts under its own.

use std::{sync::Arc, time::Duration};

use examples::Outcome;
use sync_core::{
    manager::{Access, Replica, SyncManager},
    model::{Op, Value},
    store::Query,
    transport::memory::{MemoryNetwork, MemoryTransport},
};

const PREFIX: &str = "visitors/";

/// Adds to this author's own part.
async fn add(replica: &Replica, count: u64) -> Outcome {
    let key = format!("{PREFIX}{}", replica.author());
    let mine = total(replica, &key).await?;
    replica.put(&key, (mine + count).to_string()).await?;
    Ok(())
}

/// The sum over all parts below `prefix`.
async fn total(replica: &Replica, prefix: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let parts = replica.query(Query { prefix: prefix.to_owned().into(), ..Query::default() }).await?;
    let mut sum = 0;
    for part in parts {
        if let Op::Put { value: Value::Inline(bytes), .. } = part.entry.op {
            sum += std::str::from_utf8(&bytes)?.parse::<u64>()?;
        }
    }
    Ok(sum)
}

#[tokio::main]
async fn main() -> Outcome {
    let network = MemoryNetwork::new();
    let mut nodes = Vec::new();
    for name in ["front", "back"] {
        let node = SyncManager::builder(Arc::new(store_mem::open()?)).spawn().await?;
        node.register_transport("memory", MemoryTransport::builder(&network, name)).await?;
        node.accept_connections().await?;
        nodes.push(node);
    }
    let front = nodes[0].create_replica().await?;
    let back = nodes[1].join(front.share(Access::WRITE).await?).await?;
    nodes[1].wait_synced(back.id(), nodes[0].node_id(), Duration::from_secs(30)).await?;

    // The doors lose sight of each other, and both count on.
    network.freeze("back");
    for _ in 0..10 {
        add(&front, 1).await?;
        add(&back, 2).await?;
    }
    network.thaw("back");
    let mut changes = front.watch(PREFIX, front.head());
    while total(&front, PREFIX).await? < 30 {
        changes.next().await?;
    }
    println!("{} visitors by two doors", total(&front, PREFIX).await?);
    assert_eq!(total(&front, PREFIX).await?, 30);
    for node in nodes {
        node.shutdown(Duration::from_secs(30)).await?;
    }
    Ok(())
}
