//! A node on redb, and pairs of them in one process.

use std::{path::Path, sync::Arc, time::Duration};

use contest::key;
use sync_core::{
    machine::Traffic,
    manager::{Access, Replica, SyncManager},
    model::Bundle,
    store::{ChangesRequest, Position, Scope},
};
use tempfile::TempDir;
use transport_http::HttpTransport;
use transport_iroh::IrohTransport;
use transport_quic::QuicTransport;

use crate::Result;

/// Longer than any round takes.
pub const LONG: Duration = Duration::from_secs(600);

/// The manager of the store in the file at `path`; it talks to nobody yet.
pub async fn manager(path: &Path) -> Result<SyncManager> {
    Ok(SyncManager::builder(Arc::new(store_redb::open(path)?)).spawn().await?)
}

/// Registers a transport on loopback and listens.
pub async fn listen(manager: &SyncManager, transport: &str) -> Result<()> {
    let loopback = "127.0.0.1:0".parse()?;
    match transport {
        "quic" => manager.register_transport("quic", QuicTransport::builder().bind(loopback)).await?,
        "iroh" => manager.register_transport("iroh", IrohTransport::builder().bind(loopback)).await?,
        "http" => manager.register_transport("http", HttpTransport::builder().bind(loopback)).await?,
        other => return Err(format!("no such transport: {other}").into()),
    }
    manager.accept_connections().await?;
    Ok(())
}

/// A node that listens by QUIC.
pub async fn node(path: &Path) -> Result<SyncManager> {
    let manager = manager(path).await?;
    listen(&manager, "quic").await?;
    Ok(manager)
}

/// Writes `count` entries from number `from` on, `commit` at a time.
pub async fn fill(replica: &Replica, from: u64, count: u64, commit: u64, random: bool) -> Result<()> {
    let mut n = from;
    while n < from + count {
        let mut transaction = replica.write();
        for _ in 0..commit.min(from + count - n) {
            transaction.put(key(n, random), vec![n as u8; 32]).await?;
            n += 1;
        }
        transaction.commit().await?;
    }
    Ok(())
}

/// Writes `count` entries, each its own commit, by so many writers at once.
pub async fn fill_single(replica: &Replica, from: u64, count: u64, writers: u64, random: bool) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let replica = replica.clone();
        tasks.spawn(async move {
            for n in (from + writer..from + count).step_by(writers as usize) {
                replica.put(key(n, random), vec![n as u8; 32]).await?;
            }
            Result::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Two nodes that hold the same replica and are linked.
pub struct Pair {
    pub a: SyncManager,
    pub b: SyncManager,
    pub left: Replica,
    pub right: Replica,
    dir: TempDir,
}

impl Pair {
    /// Both hold `n` entries with random keys.
    pub async fn new(n: u64) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let a = node(&dir.path().join("a")).await?;
        let b = node(&dir.path().join("b")).await?;
        let left = a.create_replica().await?;
        fill(&left, 0, n, 10_000, true).await?;
        let right = b.join(left.share(Access::WRITE).await?).await?;
        let pair = Self { a, b, left, right, dir };
        pair.b.wait_synced(pair.right.id(), pair.a.node_id(), LONG).await?;
        pair.a.flush(LONG).await?;
        Ok(pair)
    }

    /// Neither knows a position in the other's log any more.
    pub async fn forget(&self) -> Result<()> {
        self.a.unsubscribe(self.left.id(), self.b.node_id()).await?;
        Ok(self.b.unsubscribe(self.right.id(), self.a.node_id()).await?)
    }

    /// Takes the link away. Neither dials by itself, when both have forgotten the other's position.
    pub async fn unlink(&self) -> Result<()> {
        self.b.remove_transport("quic").await?;
        while self.a.peers().await?.iter().any(|peer| !peer.links.is_empty()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(self.b.register_transport("quic", QuicTransport::builder().client_only()).await?)
    }

    /// Ends both nodes, lets `with` have the path of the second one's store, and starts both again. They know each
    /// other's addresses and have no link.
    pub async fn restarted<T>(self, with: impl AsyncFnOnce(&Path) -> Result<T>) -> Result<(Self, T)> {
        let Self { a, b, left, right, dir } = self;
        let id = left.id();
        drop((left, right));
        a.shutdown(LONG).await?;
        b.shutdown(LONG).await?;
        drop((a, b));
        let done = with(&dir.path().join("b")).await?;
        let (a, b) = (node(&dir.path().join("a")).await?, node(&dir.path().join("b")).await?);
        b.add_peer(a.node_id(), a.addresses().await?).await?;
        let (left, right) = (a.open_replica(id).await?, b.open_replica(id).await?);
        Ok((Self { a, b, left, right, dir }, done))
    }

    /// Fails when the two are not equal.
    pub async fn check_equal(&self) -> Result<()> {
        match self.left.state().await?.root == self.right.state().await?.root {
            true => Ok(()),
            false => Err("the roots differ".into()),
        }
    }
}

/// What all the sessions of a node have moved.
pub async fn traffic(manager: &SyncManager) -> Result<Traffic> {
    let mut all = Traffic::default();
    for replica in manager.status().await?.replicas {
        replica.peers.iter().for_each(|peer| all.add(&peer.traffic));
    }
    Ok(all)
}

/// The entries after `since`.
pub async fn bundles_since(manager: &SyncManager, replica: &Replica, since: Position) -> Result<Vec<Bundle>> {
    let mut bundles = Vec::new();
    let (mut since, head) = (since, replica.state().await?.head);
    while since < head {
        let request =
            ChangesRequest { replica: replica.id(), since, not_from: None, scope: Scope::all(), max_bytes: 1 << 20 };
        let page = manager.store().changes(request).await?;
        bundles.extend(page.bundles);
        since = page.through;
    }
    Ok(bundles)
}

/// Their bytes, each commit as it is encoded by itself.
pub async fn entry_bytes(manager: &SyncManager, replica: &Replica, since: Position) -> Result<f64> {
    let mut bytes = 0;
    for bundle in &bundles_since(manager, replica, since).await? {
        bytes += postcard::to_stdvec(bundle)?.len();
    }
    Ok(bytes as f64)
}
