//! Two replicas of n entries that differ by d on either side; each round says its d.

use std::{
    path::Path,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use sync_core::{
    model::{Bundle, ReplicaId, Timestamp, Verifier},
    store::{Apply, Origin, ReplicaStore, ShortId},
};
use transport_quic::QuicTransport;

use crate::{
    Result,
    node::{LONG, Pair, bundles_since, entry_bytes, fill, fill_single, traffic},
    wire::Wire,
};

/// What differs, and in which state the two are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The d entries are one commit, the last that was written. The link is up and symbols are in memory.
    Latest,
    /// The same, and the link is away: both nodes run, and the peer is dialled.
    Dial,
    /// The d entries are a commit each.
    Single,
    /// Both nodes have just started: symbols are made by a scan of the replica, and the peer is dialled.
    Cold,
    /// So much was written after the d entries that they are not among the last rows of the change log. Both nodes were
    /// restarted, symbols and places are in memory, and the peer is dialled.
    Old,
    /// The same, and nobody has asked either node for an old entry since it was started: it scans the replica.
    OldFirst,
}

impl Kind {
    fn is_after_a_start(self) -> bool {
        matches!(self, Self::Cold | Self::Old | Self::OldFirst)
    }
}

impl std::str::FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        match text {
            "latest" => Ok(Self::Latest),
            "dial" => Ok(Self::Dial),
            "single" => Ok(Self::Single),
            "cold" => Ok(Self::Cold),
            "old" => Ok(Self::Old),
            "old-first" => Ok(Self::OldFirst),
            _ => Err(()),
        }
    }
}

/// How many entries come after the `d` that differ: more than are looked through, which is 4,096 and four more for each
/// that is looked for.
fn later(d: u64) -> u64 {
    4_200 + 4 * d
}

/// Entries that no other round has written.
fn fresh(round: u64, side: u64) -> u64 {
    (round * 4 + side) << 32
}

fn now() -> Result<Timestamp> {
    Ok(Timestamp(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64))
}

/// Brings entries to a store whose node is not running.
async fn bring(store: &Path, replica: ReplicaId, bundles: Vec<Bundle>) -> Result<()> {
    let store = store_redb::open(store)?;
    let mut verifier = Verifier::default();
    let bundles = bundles.into_iter().map(|bundle| bundle.verify(replica, &mut verifier));
    let bundles = bundles.collect::<std::result::Result<Vec<_>, _>>()?;
    store.apply(Apply { replica, bundles, origin: Origin::Local, now: now()?, records: Vec::new() }).await?;
    Ok(())
}

/// Neither knows what the other had; nothing differs when `d` is 0.
pub async fn unknown(n: u64, kind: Kind) -> Result<()> {
    let mut pair = Pair::new(n).await?;
    let mut round = 0;
    while let Some(d) = contest::next_round() {
        round += 1;
        if matches!(kind, Kind::Latest | Kind::Dial) {
            // One that does not count: the others that take turns have left the caches to themselves.
            pair.forget().await?;
            pair.b.sync_with(pair.a.node_id(), pair.right.id(), LONG).await?;
        }
        pair.forget().await?;
        let (here, there) = (pair.left.state().await?.head, pair.right.state().await?.head);
        if d > 0 {
            for (replica, side) in [(&pair.left, 0), (&pair.right, 1)] {
                match kind {
                    Kind::Single => fill_single(replica, fresh(round, side), d, 16, true).await?,
                    _ => fill(replica, fresh(round, side), d, d, true).await?,
                }
            }
        }
        let entries = entry_bytes(&pair.a, &pair.left, here).await? + entry_bytes(&pair.b, &pair.right, there).await?;
        if matches!(kind, Kind::Old | Kind::OldFirst) {
            let head = pair.left.state().await?.head;
            fill(&pair.left, fresh(round, 2), later(d), later(d), true).await?;
            let bundles = bundles_since(&pair.a, &pair.left, head).await?;
            let id = pair.left.id();
            (pair, ()) = pair.restarted(async |store| bring(store, id, bundles).await).await?;
            for (node, replica) in [(&pair.a, &pair.left), (&pair.b, &pair.right)] {
                node.store().coded(id, replica.state().await?.head, 1).await?;
                if kind == Kind::Old {
                    // There is none, so all places are looked at.
                    node.store().find(id, vec![ShortId([0xff; 16])]).await?;
                }
            }
        } else if kind == Kind::Cold {
            (pair, ()) = pair.restarted(async |_| Ok(())).await?;
        } else if kind == Kind::Dial {
            pair.unlink().await?;
        }
        if kind.is_after_a_start() {
            // Else the first flush of the round waits for what was written before it.
            std::process::Command::new("sync").status()?;
        }
        contest::begin();
        let wire = Wire::begin();
        let started = Instant::now();
        let report = pair.b.sync_with(pair.a.node_id(), pair.right.id(), LONG).await?;
        let (seconds, cpu) = (started.elapsed().as_secs_f64(), contest::cpu_of_round());
        let wire_bytes = wire.end().await;
        pair.check_equal().await?;
        let bytes = (report.traffic.bytes_sent + report.traffic.bytes_received) as f64;
        contest::report(&[
            ("seconds", seconds),
            ("cpu_s", cpu),
            ("bytes", bytes),
            ("beside_entries", bytes - entries),
            ("wire_bytes", wire_bytes),
            ("messages", report.traffic.messages as f64),
            ("round_trips", report.traffic.round_trips as f64),
        ]);
    }
    Ok(())
}

/// Each knows what the other had before they lost each other; the time counts the dial and both handshakes.
pub async fn known(n: u64) -> Result<()> {
    let pair = Pair::new(n).await?;
    let mut round = 0;
    while let Some(d) = contest::next_round() {
        round += 1;
        let before = traffic(&pair.b).await?;
        pair.b.remove_transport("quic").await?;
        let (here, there) = (pair.left.state().await?.head, pair.right.state().await?.head);
        fill(&pair.left, fresh(round, 0), d, d, true).await?;
        fill(&pair.right, fresh(round, 1), d, d, true).await?;
        let entries = entry_bytes(&pair.a, &pair.left, here).await? + entry_bytes(&pair.b, &pair.right, there).await?;
        contest::begin();
        let wire = Wire::begin();
        let started = Instant::now();
        pair.b.register_transport("quic", QuicTransport::builder().client_only()).await?;
        pair.b.wait_synced(pair.right.id(), pair.a.node_id(), LONG).await?;
        let (seconds, cpu) = (started.elapsed().as_secs_f64(), contest::cpu_of_round());
        let wire_bytes = wire.end().await;
        pair.check_equal().await?;
        // It counts on over sessions.
        let moved = traffic(&pair.b).await?.since(&before);
        contest::report(&[
            ("seconds", seconds),
            ("cpu_s", cpu),
            ("bytes", (moved.bytes_sent + moved.bytes_received) as f64),
            ("entry_bytes", entries),
            ("wire_bytes", wire_bytes),
            ("messages", moved.messages as f64),
            ("round_trips", moved.round_trips as f64),
        ]);
    }
    Ok(())
}
