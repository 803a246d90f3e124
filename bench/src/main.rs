//! What the framework costs: two nodes in one process, redb on both sides, QUIC on loopback.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use sync_core::manager::{Access, Replica, SyncManager};
use transport_quic::QuicTransport;

const LONG: Duration = Duration::from_secs(600);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

async fn node(dir: &Path) -> Result<SyncManager> {
    let store = Arc::new(store_redb::open(dir)?);
    let manager = SyncManager::builder(store).spawn().await?;
    manager.register_transport("quic", QuicTransport::builder().bind("127.0.0.1:0".parse()?)).await?;
    manager.accept_connections().await?;
    Ok(manager)
}

fn key(n: u64, random: bool) -> String {
    if random {
        let x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        format!("{x:016x}/{n}")
    } else {
        format!("key/{n:012}")
    }
}

async fn fill(replica: &Replica, from: u64, count: u64, commit: u64, random: bool) -> Result<()> {
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

async fn fill_single(replica: &Replica, from: u64, count: u64, writers: u64, random: bool) -> Result<Duration> {
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let replica = replica.clone();
        tasks.spawn(async move {
            let mut n = from + writer;
            while n < from + count {
                replica.put(key(n, random), vec![n as u8; 32]).await.expect("a write");
                n += writers;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done?;
    }
    Ok(started.elapsed())
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let n: u64 = args.get(1).map_or(100_000, |n| n.parse().expect("a number"));
    match args.first().map(String::as_str) {
        Some("bootstrap") => {
            let commit: u64 = args.get(2).map_or(1000, |n| n.parse().expect("a number"));
            let random = args.get(3).is_some_and(|arg| arg == "random");
            bootstrap(n, commit, random).await
        }
        Some("write") => write(n).await,
        Some("live") => live(n).await,
        Some("diff") => diff(n, args.get(2).map_or(100, |d| d.parse().expect("a number"))).await,
        _ => Err("bench bootstrap N COMMIT [random] | write N | live N | diff N D".into()),
    }
}

async fn pair() -> Result<(tempfile::TempDir, SyncManager, SyncManager, Replica)> {
    let dir = tempfile::tempdir()?;
    let a = node(&dir.path().join("a")).await?;
    let b = node(&dir.path().join("b")).await?;
    let left = a.create_replica().await?;
    Ok((dir, a, b, left))
}

async fn bootstrap(n: u64, commit: u64, random: bool) -> Result<()> {
    let (_dir, a, b, left) = pair().await?;
    let started = Instant::now();
    if commit == 1 {
        fill_single(&left, 0, n, 64, random).await?;
    } else {
        fill(&left, 0, n, commit, random).await?;
    }
    println!("filled {n} in {:?}: {:.0}/s", started.elapsed(), n as f64 / started.elapsed().as_secs_f64());
    let started = Instant::now();
    let right = b.join(left.share(Access::WRITE).await?).await?;
    b.wait_synced(right.id(), a.node_id(), LONG).await?;
    let took = started.elapsed();
    let traffic = b.status().await?.replicas[0].peers[0].traffic;
    assert_eq!(left.state().await?.root, right.state().await?.root);
    println!(
        "bootstrap of {n} in commits of {commit}{}: {took:?}, {:.1} B an entry, {} messages, {:.0}/s",
        if random { ", random keys" } else { "" },
        traffic.bytes_received as f64 / n as f64,
        traffic.messages,
        n as f64 / took.as_secs_f64()
    );
    Ok(())
}

async fn write(n: u64) -> Result<()> {
    let (_dir, _a, _b, left) = pair().await?;
    fill(&left, 0, 100_000, 10_000, true).await?;
    for writers in [1, 16, 64] {
        let took = fill_single(&left, 1_000_000 * writers, n, writers, true).await?;
        println!("{writers} writers: {:.0}/s", n as f64 / took.as_secs_f64());
    }
    let started = Instant::now();
    fill(&left, 10_000_000_000, 10_000, 10_000, false).await?;
    println!("one transaction of 10,000: {:.0}/s", 10_000.0 / started.elapsed().as_secs_f64());
    Ok(())
}

async fn live(n: u64) -> Result<()> {
    let (_dir, a, b, left) = pair().await?;
    fill(&left, 0, 1000, 1000, false).await?;
    let right = b.join(left.share(Access::WRITE).await?).await?;
    b.wait_synced(right.id(), a.node_id(), LONG).await?;
    let mut watch = right.watch("live", right.head());
    let mut times = Vec::new();
    for i in 0..n {
        let started = Instant::now();
        left.put(format!("live/{i}"), "x").await?;
        watch.next().await?;
        times.push(started.elapsed());
    }
    times.sort();
    println!("live: median {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
    for writers in [1, 16, 64] {
        let mut watch = right.watch(format!("key/{writers}"), right.head());
        let started = Instant::now();
        fill_single(&left, 100_000_000_000 * writers, 5000, writers, false).await?;
        let written = started.elapsed();
        let mut seen = 0;
        while seen < 5000 {
            watch.next().await?;
            seen += 1;
        }
        println!(
            "burst of 5,000, {writers} writers: written {:.0}/s, at the other {:.0}/s",
            5000.0 / written.as_secs_f64(),
            5000.0 / started.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// Both sides have written `d` entries while they knew nothing of each other's position.
async fn diff(n: u64, d: u64) -> Result<()> {
    let (_dir, a, b, left) = pair().await?;
    fill(&left, 0, n, 10_000, true).await?;
    let right = b.join(left.share(Access::WRITE).await?).await?;
    b.wait_synced(right.id(), a.node_id(), LONG).await?;
    a.flush(LONG).await?;
    // Positions are forgotten with the subscriptions.
    a.unsubscribe(left.id(), b.node_id()).await?;
    b.unsubscribe(left.id(), a.node_id()).await?;
    fill(&left, 1_000_000_000, d, d, true).await?;
    fill(&right, 2_000_000_000, d, d, true).await?;
    let started = Instant::now();
    b.wait_synced(right.id(), a.node_id(), LONG).await?;
    let took = started.elapsed();
    let traffic = b.status().await?.replicas[0].peers[0].traffic;
    println!("{d} + {d} differ in {n}, no position known: {took:?}, since the join {traffic:?}");
    assert_eq!(left.state().await?.root, right.state().await?.root);
    Ok(())
}
