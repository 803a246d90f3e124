//! A node that holds a replica and does nothing; in a process that has done nothing else.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sync_core::{
    PeerAddress,
    machine::SyncOutcome,
    manager::{Access, Replica, SyncManager},
};

use crate::{
    Result,
    child::{self, Side},
    node::{LONG, fill, fill_single, node},
};

pub async fn idle(n: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let place = dir.path().join("a");
    let place = place.to_str().ok_or("a temporary directory with a plain name")?;
    let mut filling = Side::start(["fill", place, &n.to_string(), "10000", "random"])?;
    filling.figures().await?;
    filling.end().await?;
    let files = std::fs::read_dir(dir.path())?.map(|file| Ok(file?.metadata()?.len())).collect::<Result<Vec<u64>>>()?;
    let bytes = files.iter().sum::<u64>() as f64;
    while contest::next_round().is_some() {
        let mut other = Side::start(["open", place])?;
        let mut figures = other.figures().await?;
        other.end().await?;
        if n > 0 {
            figures.push(("disk_bytes_per_entry".into(), bytes / n as f64));
        }
        let figures: Vec<_> = figures.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        contest::report(&figures);
    }
    Ok(())
}

/// A node that holds as many and has reconciled `d` + `d` with another, which lives here; then it does nothing.
pub async fn reconciled(n: u64, d: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let at = dir.path().join("a");
    let place = at.to_str().ok_or("a temporary directory with a plain name")?;
    let mut filling = Side::start(["fill", place, &n.to_string(), "10000", "random"])?;
    filling.figures().await?;
    filling.end().await?;
    let other = node(&dir.path().join("b")).await?;
    let replica = join_all(&at, &other).await?;
    let address = other.addresses().await?.first().ok_or("it listens")?.to_string();
    let mut round = 0;
    while contest::next_round().is_some() {
        round += 2;
        forget(&other, &replica).await?;
        fill(&replica, round << 32, d, d, true).await?;
        let from = ((round + 1) << 32).to_string();
        let mut measured = Side::start(["reconcile", place, &address, &from, &d.to_string()])?;
        let figures = measured.figures().await?;
        measured.end().await?;
        let figures: Vec<_> = figures.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        contest::report(&figures);
    }
    Ok(())
}

/// The node in `place` is there until `other` has all that it has.
async fn join_all(place: &Path, other: &SyncManager) -> Result<Replica> {
    let first = node(place).await?;
    let replica = first.open_replica(*first.replicas().await?.first().ok_or("a replica is there")?).await?;
    let copy = other.join(replica.share(Access::WRITE).await?).await?;
    other.wait_synced(copy.id(), first.node_id(), LONG).await?;
    forget(&first, &replica).await?;
    drop(replica);
    first.shutdown(LONG).await?;
    Ok(copy)
}

/// It knows no position in the log of another any more, and dials nobody when it is opened again.
async fn forget(node: &SyncManager, replica: &Replica) -> Result<()> {
    for peer in node.peers().await? {
        node.unsubscribe(replica.id(), peer.id).await?;
    }
    Ok(())
}

/// The process of [`reconciled`] that is measured: opens the store, writes `d` entries from number `from` on, reconciles
/// once with whoever is at `address`, and says what is resident after a while.
pub async fn reconcile(place: PathBuf, address: PeerAddress, from: u64, d: u64) -> Result<()> {
    let started = std::time::Instant::now();
    let node = node(&place).await?;
    let replica = node.open_replica(*node.replicas().await?.first().ok_or("a replica is there")?).await?;
    let opened = started.elapsed().as_secs_f64();
    fill(&replica, from, d, d, true).await?;
    let report = node.sync_with(address, replica.id(), LONG).await?;
    let moved = report.traffic;
    if report.outcome != SyncOutcome::Synced || (moved.sent, moved.received) != (d, d) {
        return Err(format!("{d} and {d} should have gone: {report:?}").into());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    child::say(&[
        ("resident_mb", contest::memory_mb("VmRSS")),
        ("peak_mb", contest::memory_mb("VmHWM")),
        ("seconds", opened),
        ("messages", moved.messages as f64),
        ("bytes", (moved.bytes_sent + moved.bytes_received) as f64),
    ]);
    child::until_the_end().await;
    forget(&node, &replica).await
}

/// A process that has the same program and runtime and does nothing at all.
pub async fn nothing() -> Result<()> {
    while contest::next_round().is_some() {
        let mut other = Side::start(["empty"])?;
        let figures = other.figures().await?;
        other.end().await?;
        let figures: Vec<_> = figures.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        contest::report(&figures);
    }
    Ok(())
}

/// The process of [`nothing`].
pub async fn empty() -> Result<()> {
    child::say(&[("resident_mb", contest::memory_mb("VmRSS")), ("peak_mb", contest::memory_mb("VmHWM"))]);
    child::until_the_end().await;
    Ok(())
}

/// Makes the replica: in a process of its own, so that what it takes is not in the memory of who opens it.
pub async fn make(place: PathBuf, n: u64, commit: u64, random: bool) -> Result<()> {
    let node = node(&place).await?;
    let replica = node.create_replica().await?;
    match commit {
        1 => fill_single(&replica, 0, n, 64, random).await?,
        _ => fill(&replica, 0, n, commit, random).await?,
    }
    drop(replica);
    node.shutdown(LONG).await?;
    child::say(&[("done", 1.0)]);
    child::until_the_end().await;
    Ok(())
}

/// Opens it, listens, and says what is resident after a while.
pub async fn open(place: PathBuf) -> Result<()> {
    let started = std::time::Instant::now();
    let node = node(&place).await?;
    let id = *node.replicas().await?.first().ok_or("a replica is there")?;
    let replica = node.open_replica(id).await?;
    let opened = started.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let entries = replica.state().await?.root.count;
    child::say(&[
        ("resident_mb", contest::memory_mb("VmRSS")),
        ("peak_mb", contest::memory_mb("VmHWM")),
        ("seconds", opened),
        ("entries", entries as f64),
    ]);
    child::until_the_end().await;
    Ok(())
}
