//! The store of [`examples::custom_store`], a page long, beneath one node; the embedded default beneath the other.

use std::{sync::Arc, time::Duration};

use examples::{Outcome, custom_store, loopback, text, wait_for};
use sync_core::{
    manager::{Access, SyncManager},
    store::StoreRegistry,
};
use transport_quic::QuicTransport;

#[tokio::main]
async fn main() -> Outcome {
    let dir = std::env::temp_dir().join(format!("syncline-custom-store-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let mut registry = StoreRegistry::default();
    store_redb::register(&mut registry);
    custom_store::register(&mut registry);

    let open = async |url: &str| -> Result<SyncManager, Box<dyn std::error::Error>> {
        let node = SyncManager::builder(registry.open(url)?).spawn().await?;
        node.register_transport("lan", QuicTransport::builder().bind(loopback())).await?;
        node.accept_connections().await?;
        Ok(node)
    };
    let sqlite = format!("sqlite:{}", dir.join("alice.sqlite").display());
    let (alice, bob) = (open(&sqlite).await?, open(&format!("redb:{}", dir.join("bob.redb").display())).await?);
    let notes = alice.create_replica().await?;
    notes.put("greeting", "kept in SQLite").await?;
    let copy = bob.join(notes.share(Access::WRITE).await?).await?;
    wait_for(&copy, "greeting", "kept in SQLite").await?;
    copy.put("answer", "kept in redb").await?;
    wait_for(&notes, "answer", "kept in redb").await?;

    // What it acknowledged is in the file.
    alice.shutdown(Duration::from_secs(30)).await?;
    let alice = SyncManager::builder(Arc::new(custom_store::open(dir.join("alice.sqlite"))?)).spawn().await?;
    let notes = alice.open_replica(notes.id()).await?;
    println!("after a restart: {:?}", text(&notes, "answer").await);
    assert_eq!(text(&notes, "answer").await.as_deref(), Some("kept in redb"));
    for node in [alice, bob] {
        node.shutdown(Duration::from_secs(30)).await?;
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
