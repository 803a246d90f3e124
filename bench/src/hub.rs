//! A hub and its peers: one write on the hub until all have it. The peers share a process; their stores are
//! in memory, the hub's is on disk.
//!
//! The replica is public: a grant each for a thousand peers, each relayed to all the others, would be a million
//! entries before the first measurement.

use std::{sync::Arc, time::Instant};

use sync_core::{
    PeerAddress,
    manager::SyncManager,
    model::{
        AuthorId, EVERYBODY, Grant, HybridClock, PeerId, Prefix, ReplicaId, Right, SecretKey, Timestamp,
        VerifiedBundle, sign_commit,
    },
    store::{Apply, Origin, ReplicaStore},
};
use tokio::task::JoinSet;
use transport_quic::QuicTransport;

use crate::{
    Result,
    child::{self, Side},
    node::{LONG, traffic},
};

/// Any time in the past.
const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

/// The keys of all, by number; the hub is number 0.
fn secret(number: u64) -> SecretKey {
    SecretKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn owner() -> SecretKey {
    secret(u64::MAX)
}

fn replica() -> ReplicaId {
    ReplicaId(owner().public())
}

/// The hub may do everything, and everybody may read.
fn rights() -> Result<VerifiedBundle> {
    let issuer = AuthorId(owner().public());
    let grant = |subject, right| {
        Grant { subject, right, prefix: Prefix::default(), expires: None, parent: None }.to_op(&issuer)
    };
    let ops = vec![grant(secret(0).public(), Right::Admin), grant(EVERYBODY, Right::Read)];
    Ok(sign_commit(replica(), &owner(), &HybridClock::default(), NOW, ops)?)
}

/// A manager on this store, which has the replica and the rights.
async fn manager(store: Arc<dyn ReplicaStore>, number: u64, rights: &VerifiedBundle) -> Result<SyncManager> {
    store.create_replica(replica(), Vec::new()).await?;
    let bundles = vec![rights.clone()];
    store.apply(Apply { replica: replica(), bundles, origin: Origin::Local, now: NOW, records: Vec::new() }).await?;
    Ok(SyncManager::builder(store).node_key(secret(number)).spawn().await?)
}

/// The hub.
pub async fn hub(peers: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let rights = rights()?;
    let hub = manager(Arc::new(store_redb::open(dir.path().join("hub"))?), 0, &rights).await?;
    let quic = QuicTransport::builder().bind("127.0.0.1:0".parse()?).max_connections(peers as usize + 16);
    hub.register_transport("quic", quic).await?;
    let address = hub.accept_connections().await?.addresses.remove(0);
    let board = hub.open_replica(replica()).await?;
    let alone = contest::memory_mb("VmRSS");
    let started = Instant::now();
    let mut others = Side::start(["spokes", &peers.to_string(), &address.to_string()])?;
    others.figures().await?;
    let joined = started.elapsed().as_secs_f64();
    let mut round = 0;
    while contest::next_round().is_some() {
        round += 1;
        hub.flush(LONG).await?;
        let before = traffic(&hub).await?;
        contest::begin();
        let started = Instant::now();
        board.put(format!("round/{round}"), vec![7; 32]).await?;
        others.figures().await?;
        let seconds = started.elapsed().as_secs_f64();
        let cpu = contest::cpu_of_round();
        hub.flush(LONG).await?;
        let moved = traffic(&hub).await?.since(&before);
        let kilobytes = (contest::memory_mb("VmRSS") - alone) * 1000.0 / peers as f64;
        contest::report(&[
            ("seconds", seconds),
            ("kb_per_peer", kilobytes),
            ("joined_s", joined),
            ("cpu_s", cpu),
            ("messages", moved.messages as f64),
            ("bytes", (moved.bytes_sent + moved.bytes_received) as f64),
        ]);
    }
    others.end().await
}

/// The peers: says once when all are equal with the hub, and then each time when all have one entry more.
pub async fn spokes(peers: u64, address: PeerAddress) -> Result<()> {
    let rights = rights()?;
    let hub = PeerId(secret(0).public());
    let mut managers = Vec::new();
    let mut watches = Vec::new();
    for number in 1..=peers {
        let store: Arc<dyn ReplicaStore> = Arc::new(store_mem::open()?);
        let spoke = manager(store, number, &rights).await?;
        spoke.register_transport("quic", QuicTransport::builder().client_only()).await?;
        let board = spoke.open_replica(replica()).await?;
        spoke.add_peer(hub, vec![address.clone()]).await?;
        spoke.subscribe(replica(), hub).await?;
        spoke.wait_synced(replica(), hub, LONG).await?;
        watches.push(board.watch("round", board.head()));
        managers.push(spoke);
    }
    child::say(&[("joined", peers as f64)]);
    let shown = async {
        loop {
            let mut waiting = JoinSet::new();
            for mut watch in watches.drain(..) {
                waiting.spawn(async move { watch.next().await.map(|_| watch) });
            }
            while let Some(watch) = waiting.join_next().await {
                watches.push(watch??);
            }
            child::say(&[("shown", peers as f64)]);
        }
    };
    tokio::select! {
        error = shown => error,
        () = child::until_the_end() => Ok(()),
    }
}
