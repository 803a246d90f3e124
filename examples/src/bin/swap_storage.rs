//! The store is picked by name: a URL says which, a registry knows how. The rest of the program stays the same.

use std::{sync::Arc, time::Duration};

use examples::{Outcome, text};
use sync_core::{
    manager::SyncManager,
    store::{EngineStore, ReplicaStore, StoreRegistry},
};

/// The application, whatever its store: starts, counts its starts, ends.
async fn start(registry: &StoreRegistry, url: &str) -> Result<u32, Box<dyn std::error::Error>> {
    let node = SyncManager::builder(registry.open(url)?).spawn().await?;
    let replica = match node.replicas().await?.first() {
        Some(id) => node.open_replica(*id).await?,
        None => node.create_replica().await?,
    };
    let starts = text(&replica, "starts").await.and_then(|text| text.parse::<u32>().ok()).unwrap_or(0) + 1;
    replica.put("starts", starts.to_string()).await?;
    node.shutdown(Duration::from_secs(30)).await?;
    println!("{url}: start number {starts}");
    Ok(starts)
}

#[tokio::main]
async fn main() -> Outcome {
    let mut registry = StoreRegistry::default();
    store_mem::register(&mut registry);
    store_redb::register(&mut registry);
    // One of our own: any engine of ordered bytes will do. This one is kept between openings.
    let kept = store_mem::MemEngine::default();
    registry.register("kept", move |_| Ok(Arc::new(EngineStore::open(kept.clone())?) as Arc<dyn ReplicaStore>));

    let dir = std::env::temp_dir().join(format!("syncline-swap-storage-{}", std::process::id()));
    let file = format!("redb:{}", dir.join("notes.redb").display());
    let mut starts = Vec::new();
    for url in ["mem:", "mem:", &file, &file, "kept:", "kept:"] {
        starts.push(start(&registry, url).await?);
    }
    std::fs::remove_dir_all(&dir)?;
    assert_eq!(starts, [1, 1, 1, 2, 1, 2]);

    let error = registry.open("paper:drawer").expect_err("nobody registered it");
    println!("{error}");
    assert!(error.to_string().contains("kept, mem, redb"));
    Ok(())
}
