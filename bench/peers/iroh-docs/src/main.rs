//! iroh-docs 0.101 on iroh 1.1: `peer-iroh-docs (redb|memory) (bootstrap N (ordered|random) | differ N | live N | burst N | write N)`;
//! `differ` is on redb alone.
//!
//! Reconciliation is called by itself (`connect_and_sync` over the network, no gossip, no content);
//! live rows use the engine with gossip, no content is downloaded.

mod live;
mod sync;

pub type Result<T> = anyhow::Result<T>;

#[tokio::main]
async fn main() -> Result<()> {
    let redb = match contest::argument::<String>(1).as_str() {
        "redb" => true,
        "memory" => false,
        other => anyhow::bail!("redb or memory, not {other}"),
    };
    let n: u64 = contest::argument(3);
    match contest::argument::<String>(2).as_str() {
        "bootstrap" => sync::bootstrap(redb, n, contest::argument::<String>(4) == "random").await,
        "differ" if redb => sync::differ(n).await,
        "live" => live::latency(redb, n).await,
        "burst" => live::burst(redb, n).await,
        "write" => live::write(redb, n).await,
        other => anyhow::bail!("no such work: {other}"),
    }
}
