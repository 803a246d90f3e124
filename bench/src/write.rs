//! Local durable writes into a replica that has entries already; nobody is linked.

use std::time::Instant;

use sync_core::manager::{Replica, SyncManager};
use tempfile::TempDir;

use crate::{
    Result,
    node::{fill, fill_single, node, traffic},
};

/// A node with a replica of `n` entries, and where its store is.
async fn filled(n: u64) -> Result<(TempDir, SyncManager, Replica)> {
    let dir = tempfile::tempdir()?;
    let node = node(&dir.path().join("a")).await?;
    let replica = node.create_replica().await?;
    fill(&replica, 0, n, 10_000, true).await?;
    Ok((dir, node, replica))
}

pub async fn local(n: u64) -> Result<()> {
    let (_dir, node, replica) = filled(n).await?;
    let mut next = 1 << 32;
    while contest::next_round().is_some() {
        let mut figures = Vec::new();
        for (name, writers, count) in [("one_per_s", 1, 2_000), ("sixteen_per_s", 16, 16_000)] {
            let started = Instant::now();
            fill_single(&replica, next, count, writers, true).await?;
            figures.push((name, count as f64 / started.elapsed().as_secs_f64()));
            next += count;
        }
        let started = Instant::now();
        fill(&replica, next, 10_000, 10_000, false).await?;
        figures.push(("transaction_per_s", 10_000.0 / started.elapsed().as_secs_f64()));
        next += 10_000;
        figures.push(("messages", traffic(&node).await?.messages as f64));
        contest::report(&figures);
    }
    Ok(())
}

/// One transaction of 10,000 in key order, and nothing else is ever written: no row of earlier writes waits in the
/// journal for its place, and the disk has nothing to do.
pub async fn quiet(n: u64) -> Result<()> {
    let (_dir, node, replica) = filled(n).await?;
    let mut next = 1 << 32;
    while contest::next_round().is_some() {
        std::process::Command::new("sync").status()?;
        contest::begin();
        let started = Instant::now();
        fill(&replica, next, 10_000, 10_000, false).await?;
        let seconds = started.elapsed().as_secs_f64();
        next += 10_000;
        let messages = traffic(&node).await?.messages as f64;
        contest::report(&[("transaction_per_s", 10_000.0 / seconds), ("messages", messages)]);
    }
    Ok(())
}
