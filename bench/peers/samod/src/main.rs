//! samod 0.16 over TCP, storage in memory: one Automerge document whose changes are the writes.
//! It has no signatures and no encryption. `peer-samod (bootstrap N | live N | burst N)`.

use std::time::Instant;

use automerge::{AutoCommit, Automerge, ROOT, ReadDoc, transaction::Transactable};
use futures::StreamExt;
use samod::{BackoffConfig, DocHandle, Repo, Transport};
use tokio::net::TcpListener;

type Result<T> = anyhow::Result<T>;

/// A repository that accepts connections on loopback.
async fn serve() -> Result<(Repo, url::Url)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = url::Url::parse(&format!("tcp://{}", listener.local_addr()?))?;
    let repo = Repo::build_tokio().load().await;
    let acceptor = repo.make_acceptor(url.clone())?;
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let _ = io.set_nodelay(true);
            if acceptor.accept(Transport::from_tokio_io(io)).is_err() {
                break;
            }
        }
    });
    Ok((repo, url))
}

fn put(handle: &DocHandle, key: &str, value: Vec<u8>) {
    handle.with_document(|document| {
        let mut change = document.transaction();
        change.put(ROOT, key, value).expect("a map takes a value");
        change.commit();
    });
}

/// A document of `n` changes, one put each.
fn document(n: u64) -> Result<Automerge> {
    let mut document = AutoCommit::new();
    for i in 0..n {
        document.put(ROOT, contest::key(i, true), vec![i as u8; 32])?;
        document.commit();
    }
    Ok(document.document().clone())
}

struct Pair {
    here: DocHandle,
    there: DocHandle,
    _repos: (Repo, Repo),
}

async fn pair(n: u64) -> Result<Pair> {
    let (left, url) = serve().await?;
    let here = left.create(document(n)?).await?;
    let right = Repo::build_tokio().load().await;
    let dialer = right.dial_tcp(url, BackoffConfig::default()).map_err(|error| anyhow::anyhow!("{error}"))?;
    dialer.established().await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let there = right.find(here.document_id().clone()).await?.ok_or_else(|| anyhow::anyhow!("not found"))?;
    Ok(Pair { here, there, _repos: (left, right) })
}

async fn bootstrap(n: u64) -> Result<()> {
    let (left, url) = serve().await?;
    let here = left.create(document(n)?).await?;
    while contest::next_round().is_some() {
        let right = Repo::build_tokio().load().await;
        let started = Instant::now();
        let dialer =
            right.dial_tcp(url.clone(), BackoffConfig::default()).map_err(|error| anyhow::anyhow!("{error}"))?;
        dialer.established().await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let there = right.find(here.document_id().clone()).await?.ok_or_else(|| anyhow::anyhow!("not found"))?;
        let length = there.with_document(|document| document.length(ROOT));
        let seconds = started.elapsed().as_secs_f64();
        anyhow::ensure!(length as u64 == n, "{length} of {n} came");
        contest::report(&[("seconds", seconds)]);
        right.stop().await;
    }
    Ok(())
}

/// Resolves when the other side has `length` keys.
async fn wait(there: &DocHandle, changes: &mut (impl futures::Stream + Unpin), length: u64) -> Result<()> {
    while (there.with_document(|document| document.length(ROOT)) as u64) < length {
        changes.next().await.ok_or_else(|| anyhow::anyhow!("the changes ended"))?;
    }
    Ok(())
}

async fn live(n: u64) -> Result<()> {
    let Pair { here, there, _repos } = pair(1).await?;
    let mut changes = Box::pin(there.changes());
    let mut length = 1;
    while contest::next_round().is_some() {
        let mut times = Vec::new();
        for _ in 0..n {
            let started = Instant::now();
            put(&here, &format!("live/{length}"), vec![7; 32]);
            length += 1;
            wait(&there, &mut changes, length).await?;
            times.push(started.elapsed().as_secs_f64());
        }
        let (median, p99) = contest::median_and_p99(&mut times);
        contest::report(&[("seconds", median), ("p99_s", p99)]);
    }
    Ok(())
}

async fn burst(n: u64) -> Result<()> {
    while contest::next_round().is_some() {
        // A document of its own each round: it slows down as it grows.
        let Pair { here, there, _repos } = pair(1).await?;
        let mut changes = Box::pin(there.changes());
        contest::begin();
        let started = Instant::now();
        let writer = tokio::task::spawn_blocking(move || {
            (0..n).for_each(|i| put(&here, &contest::key(i, true), vec![i as u8; 32]));
            here
        });

        wait(&there, &mut changes, n).await?;
        let seconds = started.elapsed().as_secs_f64();
        contest::report(&[("per_s", n as f64 / seconds), ("seconds", seconds)]);
        drop(writer.await?);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let n = contest::argument(2);
    match contest::argument::<String>(1).as_str() {
        "bootstrap" => bootstrap(n).await,
        "live" => live(n).await,
        "burst" => burst(n).await,
        other => anyhow::bail!("no such work: {other}"),
    }
}
