//! The engine with gossip: writes through its interface, and when they are seen elsewhere.

use std::{path::Path, time::Instant};

use futures_lite::StreamExt;
use iroh::protocol::Router;
use iroh_blobs::{ALPN as BLOBS_ALPN, BlobsProtocol, Hash, store::mem::MemStore};
use iroh_docs::{
    ALPN as DOCS_ALPN, AuthorId,
    api::{
        Doc,
        protocol::{AddrInfoOptions, ShareMode},
    },
    engine::LiveEvent,
    protocol::Docs,
    store::DownloadPolicy,
};
use iroh_gossip::{ALPN as GOSSIP_ALPN, metrics::Metrics, net::Gossip};

use crate::{Result, sync::endpoint};

struct Node {
    docs: Docs,
    gossip: Gossip,
    author: AuthorId,
    router: Router,
}

impl Node {
    async fn new(redb: bool, dir: &Path) -> Result<Self> {
        let endpoint = endpoint().await?;
        let blobs = MemStore::default();
        let gossip = Gossip::builder().spawn(endpoint.clone());
        let docs = if redb {
            std::fs::create_dir_all(dir)?;
            Docs::persistent(dir.to_path_buf())
        } else {
            Docs::memory()
        };
        let docs = docs.spawn(endpoint.clone(), (*blobs).clone(), gossip.clone()).await?;
        let router = Router::builder(endpoint)
            .accept(BLOBS_ALPN, BlobsProtocol::new(&blobs, None))
            .accept(GOSSIP_ALPN, gossip.clone())
            .accept(DOCS_ALPN, docs.clone())
            .spawn();
        let author = docs.author_default().await?;
        Ok(Self { docs, gossip, author, router })
    }
}

async fn put(doc: &Doc, author: AuthorId, key: String) -> Result<()> {
    doc.set_hash(author, key, Hash::new([7; 32]), 32).await
}

struct Pair {
    left: Node,
    right: Node,
    here: Doc,
    there: Doc,
    _dir: tempfile::TempDir,
}

/// Two nodes that are neighbours; the right one has what the left has.
async fn pair(redb: bool) -> Result<Pair> {
    let dir = tempfile::tempdir()?;
    let left = Node::new(redb, &dir.path().join("left")).await?;
    let right = Node::new(redb, &dir.path().join("right")).await?;
    let here = left.docs.create().await?;
    here.set_download_policy(DownloadPolicy::NothingExcept(vec![])).await?;
    put(&here, left.author, "first".into()).await?;
    here.start_sync(vec![]).await?;
    let ticket = here.share(ShareMode::Write, AddrInfoOptions::Addresses).await?;
    let (there, events) = right.docs.import_and_subscribe(ticket).await?;
    there.set_download_policy(DownloadPolicy::NothingExcept(vec![])).await?;
    let mut events = std::pin::pin!(events);
    let (mut finished, mut neighbour) = (false, false);
    while !(finished && neighbour) {
        match events.next().await {
            Some(Ok(LiveEvent::SyncFinished(_))) => finished = true,
            Some(Ok(LiveEvent::NeighborUp(_))) => neighbour = true,
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => anyhow::bail!("the events ended"),
        }
    }
    Ok(Pair { left, right, here, there, _dir: dir })
}

/// What gossip has brought to either node until now: its messages, those of control too, and their bytes.
#[derive(Clone, Copy)]
struct Gossiped {
    messages: u64,
    bytes: u64,
}

impl Pair {
    fn gossiped(&self) -> Gossiped {
        let [left, right] = [&self.left, &self.right].map(|node| node.gossip.metrics());
        let sum = |count: fn(&Metrics) -> u64| count(left) + count(right);
        let messages = sum(|node| node.msgs_data_recv.get() + node.msgs_ctrl_recv.get());
        let sizes = sum(|node| node.msgs_data_recv_size.get() + node.msgs_ctrl_recv_size.get());
        // Their sizes count the 32 bytes of the topic in each; a stream names it once, and puts a length of 4 bytes
        // before each message.
        Gossiped { messages, bytes: sizes - messages * (32 - 4) }
    }

    /// The messages and bytes of each of the `n` writes since `before`. Nothing if the two have synced meanwhile: the
    /// messages of a sync are not counted by its code.
    fn moved(&self, before: Gossiped, n: u64, synced: bool) -> Vec<(&'static str, f64)> {
        if synced {
            return Vec::new();
        }
        let now = self.gossiped();
        let each = |now: u64, before: u64| (now - before) as f64 / n as f64;
        vec![("messages_each", each(now.messages, before.messages)), ("bytes_each", each(now.bytes, before.bytes))]
    }
}

pub async fn latency(redb: bool, n: u64) -> Result<()> {
    let pair = pair(redb).await?;
    let mut events = std::pin::pin!(pair.there.subscribe().await?);
    let mut next = 0;
    while contest::next_round().is_some() {
        let (before, mut synced) = (pair.gossiped(), false);
        let mut times = Vec::new();
        for _ in 0..n {
            next += 1;
            let started = Instant::now();
            put(&pair.here, pair.left.author, format!("live/{next}")).await?;
            loop {
                match events.next().await {
                    Some(Ok(LiveEvent::InsertRemote { .. })) => break,
                    Some(Ok(event)) => synced |= matches!(event, LiveEvent::SyncFinished(_)),
                    other => anyhow::bail!("instead of an insert: {other:?}"),
                }
            }
            times.push(started.elapsed().as_secs_f64());
        }
        let (median, p99) = contest::median_and_p99(&mut times);
        contest::report(&[vec![("seconds", median), ("p99_s", p99)], pair.moved(before, n, synced)].concat());
    }
    pair.right.router.shutdown().await?;
    Ok(())
}

async fn writers(doc: &Doc, author: AuthorId, from: u64, n: u64, writers: u64) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let doc = doc.clone();
        tasks.spawn(async move {
            for i in (writer..n).step_by(writers as usize) {
                put(&doc, author, contest::key(from + i, true)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// `n` writes of 16 writers, until the other has all. Gossip may lose some under load: then nothing comes for ten
/// seconds, and the round says how many are lost.
pub async fn burst(redb: bool, n: u64) -> Result<()> {
    let pair = pair(redb).await?;
    let mut events = std::pin::pin!(pair.there.subscribe().await?);
    let mut next = 0;
    while contest::next_round().is_some() {
        let (before, mut synced) = (pair.gossiped(), false);
        let started = Instant::now();
        let (doc, author) = (pair.here.clone(), pair.left.author);
        let writing = tokio::spawn(async move { writers(&doc, author, next, n, 16).await });
        let mut seen = 0;
        while seen < n {
            let event = tokio::time::timeout(std::time::Duration::from_secs(10), events.next()).await;
            match event {
                Ok(Some(Ok(LiveEvent::InsertRemote { .. }))) => seen += 1,
                Ok(Some(Ok(event))) => synced |= matches!(event, LiveEvent::SyncFinished(_)),
                Ok(other) => anyhow::bail!("instead of an insert: {other:?}"),
                Err(_) => break,
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        writing.await??;
        next += n;
        let figures = vec![("per_s", seen as f64 / seconds), ("seconds", seconds), ("lost", (n - seen) as f64)];
        contest::report(&[figures, pair.moved(before, n, synced)].concat());
    }
    Ok(())
}

/// Local writes alone: one writer, then 16. They are not durable when the call returns.
pub async fn write(redb: bool, n: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::new(redb, &dir.path().join("node")).await?;
    let doc = node.docs.create().await?;
    let mut next = 0;
    while contest::next_round().is_some() {
        let mut figures = Vec::new();
        for (name, count) in [("one_per_s", 1), ("sixteen_per_s", 16)] {
            let started = Instant::now();
            writers(&doc, node.author, next, n, count).await?;
            next += n;
            figures.push((name, n as f64 / started.elapsed().as_secs_f64()));
        }
        contest::report(&figures);
    }
    Ok(())
}
