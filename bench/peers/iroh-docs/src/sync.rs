//! Reconciliation of two replicas over the network.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use iroh::{
    Endpoint, EndpointAddr,
    endpoint::{PortmapperConfig, presets},
};
use iroh_docs::{
    ALPN, AuthorId, Capability, NamespaceSecret, SyncOutcome,
    actor::{OpenOpts, SyncHandle},
    net::{AcceptOutcome, connect_and_sync, handle_connection},
    store::Store,
};

use crate::Result;

/// A node without gossip and content: an endpoint on loopback and the store's own thread.
pub struct Side {
    pub endpoint: Endpoint,
    pub sync: SyncHandle,
    author: AuthorId,
}

pub async fn endpoint() -> Result<Endpoint> {
    Ok(Endpoint::builder(presets::Minimal)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")?
        .portmapper_config(PortmapperConfig::Disabled)
        .alpns(vec![ALPN.to_vec()])
        .bind()
        .await?)
}

impl Side {
    /// One that holds `n` entries.
    async fn new(dir: Option<&Path>, secret: &NamespaceSecret, n: u64, random: bool) -> Result<Self> {
        let mut store = match dir {
            Some(dir) => Store::persistent(dir)?,
            None => Store::memory(),
        };
        let author = store.new_author(&mut rand::rng())?;
        let mut replica = store.new_replica(secret.clone())?;
        for i in 0..n {
            replica.hash_and_insert(contest::key(i, random), &author, vec![i as u8; 32]).await?;
        }
        drop(replica);
        store.close_replica(secret.id());
        store.flush()?;
        Self::on(store, secret, endpoint().await?, author.id()).await
    }

    /// One on a store that is there.
    async fn on(store: Store, secret: &NamespaceSecret, endpoint: Endpoint, author: AuthorId) -> Result<Self> {
        let sync = SyncHandle::spawn(store, None, "bench".into());
        sync.import_namespace(Capability::Write(secret.clone())).await?;
        sync.open(secret.id(), OpenOpts::default().sync()).await?;
        Ok(Self { endpoint, sync, author })
    }

    async fn insert(&self, secret: &NamespaceSecret, from: u64, count: u64) -> Result<()> {
        for i in from..from + count {
            let value = iroh_blobs::Hash::new(vec![i as u8; 32]);
            let key = contest::key(i, true).into_bytes().into();
            self.sync.insert_local(secret.id(), self.author, key, value, 32).await?;
        }
        Ok(())
    }

    /// Accepts syncs until the task is ended.
    fn serve(&self) -> tokio::task::JoinHandle<Result<()>> {
        let (endpoint, sync) = (self.endpoint.clone(), self.sync.clone());
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let connection = incoming.await?;
                let allow = |_, _| async { AcceptOutcome::Allow };
                tokio::spawn(handle_connection(sync.clone(), connection, allow, None));
            }
            anyhow::Ok(())
        })
    }

    /// Ends the store's thread and closes its file; what is left is for another one.
    async fn end(self) -> Result<(Endpoint, AuthorId)> {
        let mut store = self.sync.shutdown().await?;
        store.flush()?;
        Ok((self.endpoint, self.author))
    }
}

/// One sync by its own code, timed; the dial counts. On disk up to half a second later.
async fn sync(from: &Side, to: EndpointAddr, secret: &NamespaceSecret) -> Result<(f64, SyncOutcome)> {
    let started = Instant::now();
    let done = connect_and_sync(&from.endpoint, &from.sync, secret.id(), to, None).await?;
    Ok((started.elapsed().as_secs_f64(), done.outcome))
}

fn at(redb: bool, dir: &Path, name: &str) -> Option<std::path::PathBuf> {
    redb.then(|| dir.join(name))
}

pub async fn bootstrap(redb: bool, n: u64, random: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let secret = NamespaceSecret::new(&mut rand::rng());
    let left = Side::new(at(redb, dir.path(), "left").as_deref(), &secret, n, random).await?;
    left.serve();
    // What such a sync sends, counted once by hand, because its own code does not say.
    let empty = Side::new(None, &secret, 0, random).await?;
    let asked = empty.sync.sync_initial_message(secret.id()).await?;
    let from = *empty.endpoint.id().as_bytes();
    let asked_bytes = postcard::to_stdvec(&asked)?.len();
    let (answer, _) = left.sync.sync_process_message(secret.id(), asked, from, SyncOutcome::default()).await?;
    let bytes = (asked_bytes + postcard::to_stdvec(&answer)?.len()) as f64;
    drop(answer);
    let mut round = 0;
    while contest::next_round().is_some() {
        round += 1;
        let right = Side::new(at(redb, dir.path(), &format!("right {round}")).as_deref(), &secret, 0, random).await?;
        let (seconds, outcome) = sync(&right, left.endpoint.addr(), &secret).await?;
        anyhow::ensure!(outcome.num_recv as u64 == n, "{} of {n} came", outcome.num_recv);
        contest::report(&[("seconds", seconds), ("bytes", bytes), ("messages", 2.0)]);
        right.endpoint.close().await;
    }
    Ok(())
}

/// A store of `n` entries, and an author for either side, by the first of whom the entries are. They are inserted in
/// the order of their keys, in which a sync brings them too: so the file is less than half as large as with random
/// ones, and all are there soonest.
async fn prepare(path: &Path, secret: &NamespaceSecret, n: u64) -> Result<[AuthorId; 2]> {
    let mut store = Store::persistent(path)?;
    let (left, right) = (store.new_author(&mut rand::rng())?, store.new_author(&mut rand::rng())?);
    let mut replica = store.new_replica(secret.clone())?;
    let mut keys: Vec<_> = (0..n).map(|i| contest::key(i, true)).collect();
    keys.sort_unstable();
    for (i, key) in keys.iter().enumerate() {
        replica.hash_and_insert(key, &left, vec![i as u8; 32]).await?;
    }
    drop(replica);
    store.close_replica(secret.id());
    store.flush()?;
    Ok([left.id(), right.id()])
}

/// A store of n entries is prepared once; each round has two copies of it, so that all have as many entries, whatever
/// the rounds before have added.
pub async fn differ(n: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let secret = NamespaceSecret::new(&mut rand::rng());
    let authors = prepare(&dir.path().join("prepared"), &secret, n).await?;
    let mut ends = ((endpoint().await?, authors[0]), (endpoint().await?, authors[1]));
    let mut counted = std::collections::HashMap::new();
    let mut next = 1 << 40;
    while let Some(d) = contest::next_round() {
        if let std::collections::hash_map::Entry::Vacant(place) = counted.entry(d) {
            let (left, right) = copies(dir.path(), ends, &secret).await?;
            place.insert(count(&left, &right, &secret, next, d).await?);
            next += 1 << 21;
            ends = (left.end().await?, right.end().await?);
        }
        let (messages, bytes) = counted[&d];
        let (left, right) = copies(dir.path(), ends, &secret).await?;
        let serving = left.serve();
        // They are equal: it warms the caches of the stores, which were just opened.
        sync(&right, left.endpoint.addr(), &secret).await?;
        left.insert(&secret, next, d).await?;
        right.insert(&secret, next + (1 << 20), d).await?;
        next += 1 << 21;
        left.sync.flush_store().await?;
        right.sync.flush_store().await?;
        contest::begin();
        let carried = contest::carried();
        let (seconds, outcome) = sync(&right, left.endpoint.addr(), &secret).await?;
        anyhow::ensure!(outcome.num_recv as u64 >= d, "{} of {d} came", outcome.num_recv);
        // Acknowledgements are kept back for a while, and belong to what they acknowledge.
        let cpu = contest::cpu_of_round();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let wire_bytes = contest::carried() - carried;
        contest::report(&[
            ("seconds", seconds),
            ("cpu_s", cpu),
            ("bytes", bytes),
            ("wire_bytes", wire_bytes),
            ("messages", messages),
        ]);
        serving.abort();
        ends = (left.end().await?, right.end().await?);
    }
    Ok(())
}

/// Two sides on copies of the prepared store.
async fn copies(
    dir: &Path,
    (left, right): ((Endpoint, AuthorId), (Endpoint, AuthorId)),
    secret: &NamespaceSecret,
) -> Result<(Side, Side)> {
    let copy = |name: &str| {
        let to = dir.join(name);
        // A new file: nobody else has it open.
        if to.exists() {
            std::fs::remove_file(&to)?;
        }
        std::fs::copy(dir.join("prepared"), &to)?;
        Store::persistent(to)
    };
    let left = Side::on(copy("left")?, secret, left.0, left.1).await?;
    Ok((left, Side::on(copy("right")?, secret, right.0, right.1).await?))
}

/// The messages of such a sync and their bytes, counted once without the network, because its own code does not say.
async fn count(left: &Side, right: &Side, secret: &NamespaceSecret, next: u64, d: u64) -> Result<(f64, f64)> {
    left.insert(secret, next, d).await?;
    right.insert(secret, next + (1 << 20), d).await?;
    let mut message = Some(right.sync.sync_initial_message(secret.id()).await?);
    let (mut messages, mut bytes) = (0, 0);
    let (mut to, mut other) = (left, right);
    while let Some(sent) = message {
        messages += 1;
        bytes += postcard::to_stdvec(&sent)?.len() + 4;
        let from = *other.endpoint.id().as_bytes();
        (message, _) = to.sync.sync_process_message(secret.id(), sent, from, SyncOutcome::default()).await?;
        std::mem::swap(&mut to, &mut other);
    }
    Ok((f64::from(messages), bytes as f64))
}
