//! One content over a transport, until it is complete, proved and durable at the other node.

use std::{fs::File, io::Write, path::Path, time::Instant};

use sync_core::{
    machine::Event,
    manager::{Access, DownloadPolicy},
};

use crate::{
    Result,
    node::{LONG, listen, manager},
};

/// A file that does not compress.
fn random_file(path: &Path, mebibytes: u64) -> Result<()> {
    let mut file = File::create(path)?;
    let mut reader = blake3::Hasher::new().finalize_xof();
    let mut chunk = vec![0; 1 << 20];
    for _ in 0..mebibytes {
        reader.fill(&mut chunk);
        file.write_all(&chunk)?;
    }
    Ok(file.sync_all()?)
}

pub async fn blob(mebibytes: u64, transport: String) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file");
    random_file(&file, mebibytes)?;
    let a = manager(&dir.path().join("a")).await?;
    listen(&a, &transport).await?;
    let left = a.create_replica().await?;
    left.put_file("blob", &file).await?;
    std::fs::remove_file(&file)?;
    let mut round = 0;
    while contest::next_round().is_some() {
        round += 1;
        let b = manager(&dir.path().join(format!("b{round}"))).await?;
        listen(&b, &transport).await?;
        let ticket = left.share(Access::WRITE).await?;
        // The entry comes first, and the clock starts when its content is wanted.
        b.store().create_replica(ticket.replica, Vec::new()).await?;
        let right = b.open_replica(ticket.replica).await?;
        right.set_download_policy(DownloadPolicy::NothingExcept(Vec::new())).await?;
        let mut events = b.events();
        b.join(ticket).await?;
        b.wait_synced(right.id(), a.node_id(), LONG).await?;
        contest::begin();
        let started = Instant::now();
        right.set_download_policy(DownloadPolicy::default()).await?;
        while !matches!(events.recv().await?, Event::ContentReady { .. }) {}
        let seconds = started.elapsed().as_secs_f64();
        let moved = b.status().await?.content_bytes.received;
        contest::report(&[
            ("seconds", seconds),
            ("mb_per_s", (mebibytes << 20) as f64 / 1e6 / seconds),
            ("bytes", moved as f64),
        ]);
        b.shutdown(LONG).await?;
        std::fs::remove_dir_all(dir.path().join(format!("b{round}.content")))?;
    }
    Ok(())
}
