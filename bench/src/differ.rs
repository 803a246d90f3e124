//! Two replicas of n entries that differ by d on either side; each round says its d.

use std::time::Instant;

use transport_quic::QuicTransport;

use crate::{
    Result,
    node::{LONG, Pair, entry_bytes, fill, traffic},
};

/// Entries that no other round has written.
fn fresh(round: u64, side: u64) -> u64 {
    (round * 2 + side) << 32
}

/// Neither knows what the other had; nothing differs when `d` is 0. The link is up.
pub async fn unknown(n: u64) -> Result<()> {
    let pair = Pair::new(n).await?;
    let mut round = 0;
    while let Some(d) = contest::next_round() {
        round += 1;
        // Positions are forgotten with the subscriptions.
        pair.a.unsubscribe(pair.left.id(), pair.b.node_id()).await?;
        pair.b.unsubscribe(pair.right.id(), pair.a.node_id()).await?;
        let (here, there) = (pair.left.state().await?.head, pair.right.state().await?.head);
        if d > 0 {
            fill(&pair.left, fresh(round, 0), d, d, true).await?;
            fill(&pair.right, fresh(round, 1), d, d, true).await?;
        }
        let entries = entry_bytes(&pair.a, &pair.left, here).await? + entry_bytes(&pair.b, &pair.right, there).await?;
        contest::begin();
        let started = Instant::now();
        let report = pair.b.sync_with(pair.a.node_id(), pair.right.id(), LONG).await?;
        let seconds = started.elapsed().as_secs_f64();
        pair.check_equal().await?;
        let bytes = (report.traffic.bytes_sent + report.traffic.bytes_received) as f64;
        contest::report(&[
            ("seconds", seconds),
            ("bytes", bytes),
            ("beside_entries", bytes - entries),
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
        let started = Instant::now();
        pair.b.register_transport("quic", QuicTransport::builder().client_only()).await?;
        pair.b.wait_synced(pair.right.id(), pair.a.node_id(), LONG).await?;
        let seconds = started.elapsed().as_secs_f64();
        pair.check_equal().await?;
        // It counts on over sessions.
        let after = traffic(&pair.b).await?;
        let bytes = after.bytes_sent + after.bytes_received - before.bytes_sent - before.bytes_received;
        contest::report(&[
            ("seconds", seconds),
            ("bytes", bytes as f64),
            ("entry_bytes", entries),
            ("messages", (after.messages - before.messages) as f64),
            ("round_trips", (after.round_trips - before.round_trips) as f64),
        ]);
    }
    Ok(())
}
