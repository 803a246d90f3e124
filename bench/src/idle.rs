//! A node that holds a replica and does nothing; in a process that has done nothing else.

use std::{path::PathBuf, time::Duration};

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
