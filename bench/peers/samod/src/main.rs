//! samod 0.16 over TCP, storage in memory: one Automerge document whose changes are the writes.
//! It has no signatures and no encryption. `peer-samod (bootstrap N | differ N | live N | burst N)`.

mod dial;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Instant};

use automerge::{AutoCommit, Automerge, ChangeHash, ROOT, ReadDoc, transaction::Transactable};
use futures::StreamExt;
use samod::{BackoffConfig, DialerHandle, DocHandle, Repo, Transport};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::dial::{Dial, Passed};

type Result<T> = anyhow::Result<T>;

/// A repository that accepts connections on loopback, and the task that does so, which keeps the repository until it ends.
async fn serve() -> Result<(Repo, SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let repo = Repo::build_tokio().load().await;
    let acceptor = repo.make_acceptor(url::Url::parse(&format!("tcp://{address}"))?)?;
    let accepting = tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            let _ = io.set_nodelay(true);
            if acceptor.accept(Transport::from_tokio_io(io)).is_err() {
                break;
            }
        }
    });
    Ok((repo, address, accepting))
}

/// A connection whose handshake is done, and what passes on it.
async fn dial(repo: &Repo, address: SocketAddr) -> Result<(DialerHandle<Infallible>, Arc<Passed>)> {
    let passed = Arc::new(Passed::default());
    let dialer = repo.dial(BackoffConfig::default(), Arc::new(Dial { address, passed: passed.clone() }))?;
    dialer.established().await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    Ok((dialer, passed))
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

/// Two repositories with one document, and the connection that the right one has dialled.
struct Pair {
    left: Repo,
    right: Repo,
    accepting: JoinHandle<()>,
    address: SocketAddr,
    dialer: DialerHandle<Infallible>,
    passed: Arc<Passed>,
    here: DocHandle,
    there: DocHandle,
}

impl Pair {
    async fn new(document: Automerge) -> Result<Self> {
        let (left, address, accepting) = serve().await?;
        let here = left.create(document).await?;
        let right = Repo::build_tokio().load().await;
        let (dialer, passed) = dial(&right, address).await?;
        let there = found(&right, &here).await?;
        Ok(Self { left, right, accepting, address, dialer, passed, here, there })
    }

    /// The messages and bytes of each of `n` writes since `before`.
    async fn moved(&self, before: [f64; 2], n: u64) -> [f64; 2] {
        let [messages, bytes] = self.passed.settled().await;
        [messages - before[0], bytes - before[1]].map(|count| count / n as f64)
    }
}

async fn found(repo: &Repo, document: &DocHandle) -> Result<DocHandle> {
    repo.find(document.document_id().clone()).await?.ok_or_else(|| anyhow::anyhow!("not found"))
}

async fn bootstrap(n: u64) -> Result<()> {
    let (left, address, _accepting) = serve().await?;
    let here = left.create(document(n)?).await?;
    while contest::next_round().is_some() {
        let right = Repo::build_tokio().load().await;
        let started = Instant::now();
        let (_dialer, passed) = dial(&right, address).await?;
        let there = found(&right, &here).await?;
        let length = there.with_document(|document| document.length(ROOT));
        let seconds = started.elapsed().as_secs_f64();
        anyhow::ensure!(length as u64 == n, "{length} of {n} came");
        let [messages, bytes] = passed.settled().await;
        contest::report(&[("seconds", seconds), ("bytes", bytes), ("messages", messages)]);
        right.stop().await;
    }
    Ok(())
}

/// The last changes, in order: two documents with the same ones have the same history.
fn heads(handle: &DocHandle) -> Vec<ChangeHash> {
    let mut heads = handle.with_document(|document| document.get_heads());
    heads.sort();
    heads
}

/// Resolves when a repository knows that it has no connection.
async fn alone(repo: &Repo) -> Result<()> {
    let (connections, mut changes) = repo.connected_peers();
    let mut count = connections.len();
    while count > 0 {
        count = changes.next().await.ok_or_else(|| anyhow::anyhow!("the connections ended"))?.len();
    }
    Ok(())
}

/// Resolves when this process has nothing more to do.
async fn idle() {
    loop {
        let before = contest::cpu_seconds();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        if contest::cpu_seconds() - before < 0.001 {
            return;
        }
    }
}

/// Resolves when a document has these heads.
async fn reaches(handle: &DocHandle, wanted: &[ChangeHash]) -> Result<()> {
    let mut changes = Box::pin(handle.changes());
    while heads(handle) != wanted {
        changes.next().await.ok_or_else(|| anyhow::anyhow!("the changes ended"))?;
    }
    Ok(())
}

/// Each round has two new repositories and a document of n changes, because a document slows down as it grows. They
/// know nothing of each other from before: samod keeps what it has told a peer only as long as the connection.
async fn differ(n: u64) -> Result<()> {
    let same = document(n)?;
    let before_all = contest::memory_mb("VmRSS");
    while let Some(d) = contest::next_round() {
        // A repository that has stopped keeps its documents: what earlier rounds have left is not of this one.
        let left_over = contest::memory_mb("VmRSS") - before_all;
        let Pair { left, right, accepting, address, dialer, passed, here, there } = Pair::new(same.clone()).await?;
        passed.settled().await;
        dialer.close();
        alone(&left).await?;
        alone(&right).await?;
        for (handle, first) in [(&here, 1 << 40), (&there, 1 << 41)] {
            (first..first + d).for_each(|i| put(handle, &contest::key(i, true), vec![i as u8; 32]));
        }
        // What they write of it to their stores in memory is not of the round.
        idle().await;
        let mut both = if d == 0 { heads(&here) } else { [heads(&here), heads(&there)].concat() };
        both.sort();
        contest::begin();
        let carried = contest::carried();
        let started = Instant::now();
        let (dialer, passed) = dial(&right, address).await?;
        let connection = dialer.connection_id().ok_or_else(|| anyhow::anyhow!("the connection was lost"))?;
        if d == 0 {
            // Nothing comes, so it is over when the one that dials knows that they are equal.
            there.they_have_our_changes(connection).await;
        }
        futures::future::try_join(reaches(&here, &both), reaches(&there, &both)).await?;
        let (seconds, cpu) = (started.elapsed().as_secs_f64(), contest::cpu_of_round());
        for handle in [&here, &there] {
            let length = handle.with_document(|document| document.length(ROOT)) as u64;
            anyhow::ensure!(length == n + 2 * d, "{length} of {} are there", n + 2 * d);
        }
        let [messages, bytes] = passed.settled().await;
        let wire_bytes = contest::carried() - carried;
        contest::report(&[
            ("seconds", seconds),
            ("cpu_s", cpu),
            ("peak_mb", contest::memory_mb("VmHWM") - left_over),
            ("bytes", bytes),
            ("wire_bytes", wire_bytes),
            ("messages", messages),
        ]);
        right.stop().await;
        left.stop().await;
        accepting.abort();
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
    let pair = Pair::new(document(1)?).await?;
    let mut changes = Box::pin(pair.there.changes());
    let mut length = 1;
    while contest::next_round().is_some() {
        let before = pair.passed.settled().await;
        contest::begin();
        let mut times = Vec::new();
        for _ in 0..n {
            let started = Instant::now();
            put(&pair.here, &format!("live/{length}"), vec![7; 32]);
            length += 1;
            wait(&pair.there, &mut changes, length).await?;
            times.push(started.elapsed().as_secs_f64());
        }
        let (median, p99) = contest::median_and_p99(&mut times);
        let [messages, bytes] = pair.moved(before, n).await;
        contest::report(&[("seconds", median), ("p99_s", p99), ("messages_each", messages), ("bytes_each", bytes)]);
    }
    Ok(())
}

async fn burst(n: u64) -> Result<()> {
    while contest::next_round().is_some() {
        // A document of its own each round: it slows down as it grows.
        let pair = Pair::new(document(1)?).await?;
        let mut changes = Box::pin(pair.there.changes());
        let before = pair.passed.settled().await;
        contest::begin();
        let started = Instant::now();
        let here = pair.here.clone();
        let writer = tokio::task::spawn_blocking(move || {
            (0..n).for_each(|i| put(&here, &contest::key(i, true), vec![i as u8; 32]));
        });
        wait(&pair.there, &mut changes, n).await?;
        let seconds = started.elapsed().as_secs_f64();
        writer.await?;
        let [messages, bytes] = pair.moved(before, n).await;
        contest::report(&[
            ("per_s", n as f64 / seconds),
            ("seconds", seconds),
            ("messages_each", messages),
            ("bytes_each", bytes),
        ]);
        pair.right.stop().await;
        pair.left.stop().await;
        pair.accepting.abort();
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let n = contest::argument(2);
    match contest::argument::<String>(1).as_str() {
        "bootstrap" => bootstrap(n).await,
        "differ" => differ(n).await,
        "live" => live(n).await,
        "burst" => burst(n).await,
        other => anyhow::bail!("no such work: {other}"),
    }
}
