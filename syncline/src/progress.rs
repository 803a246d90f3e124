//! The progress of a daemon on a terminal: totals first, 100 % exactly when the roots are equal.

use std::{io::IsTerminal, sync::Arc, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use sync_core::{machine::ReplicaStatus, model::ReplicaId};

use crate::node::Node;

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(200);

/// How far a replica is on its way to be equal with its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nobody to be equal with yet.
    Alone,
    /// So many of so many entries and contents.
    Going {
        /// Done.
        done: u64,
        /// In all, always more than `done`.
        total: u64,
    },
    /// Equal with every peer that is connected.
    Equal,
}

impl Progress {
    /// In percent, rounded down: a hundred is equal, and nothing else.
    pub fn percent(self) -> u64 {
        match self {
            Self::Alone => 0,
            Self::Going { done, total } => (done.saturating_mul(100) / total.max(1)).min(99),
            Self::Equal => 100,
        }
    }
}

/// The progress of a replica.
pub fn of(status: &ReplicaStatus) -> Progress {
    let live = status.peers.iter().filter(|peer| peer.state == sync_core::machine::PeerState::Live);
    let live: Vec<_> = live.collect();
    if live.is_empty() {
        return Progress::Alone;
    }
    if live.iter().all(|peer| peer.synced) && status.blobs_missing == 0 {
        return Progress::Equal;
    }
    let theirs = live.iter().filter_map(|peer| peer.entries).max().unwrap_or(0);
    let pending = live.iter().map(|peer| peer.pending).max().unwrap_or(0);
    let total = (theirs.max(status.entries) + status.blobs_missing).max(1);
    let left = theirs.saturating_sub(status.entries).max(pending) + status.blobs_missing;
    // Not equal is never 100 %.
    Progress::Going { done: total.saturating_sub(left.max(1)), total }
}

/// Shows the progress until the node ends; never returns. Without a terminal it shows nothing.
pub async fn show(node: Arc<Node>, replica: ReplicaId) {
    if !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    // The bar's own percentage is rounded, and would say 100 before its time.
    let style = ProgressStyle::with_template("{msg:9} {wide_bar} {pos}/{len} {prefix:>3} %").expect("a valid template");
    let mut bar: Option<ProgressBar> = None;
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        let Ok(status) = node.manager().status().await else { continue };
        let Some(status) = status.replicas.iter().find(|known| known.id == replica) else { continue };
        let progress = of(status);
        match progress {
            Progress::Alone => {}
            Progress::Going { done, total } => {
                let bar = bar
                    .get_or_insert_with(|| ProgressBar::new(total).with_style(style.clone()).with_message("syncing"));
                bar.set_prefix(progress.percent().to_string());
                bar.set_length(total);
                bar.set_position(done);
            }
            Progress::Equal => {
                if let Some(bar) = bar.take() {
                    bar.set_prefix(progress.percent().to_string());
                    bar.finish_with_message("equal");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sync_core::{
        machine::{PeerState, PeerStatus, Traffic},
        model::{Hash, PeerId},
    };

    use super::*;

    fn status(entries: u64, missing: u64, peer: Option<(u64, u64, bool)>) -> ReplicaStatus {
        let peers = peer.map(|(theirs, pending, synced)| PeerStatus {
            id: PeerId::from([1; 32]),
            state: PeerState::Live,
            transport: None,
            address: None,
            synced,
            position: 0,
            pending,
            entries: Some(theirs),
            last_error: None,
            last_synced: None,
            refused: 0,
            next_try_ms: None,
            traffic: Traffic::default(),
        });
        ReplicaStatus {
            id: ReplicaId::from([2; 32]),
            entries,
            root: Hash([0; 32]),
            direction: Default::default(),
            blobs: 0,
            bytes: 0,
            blobs_missing: missing,
            peers: peers.into_iter().collect(),
        }
    }

    #[test]
    fn a_hundred_percent_means_equal_and_nothing_else() {
        assert_eq!(of(&status(5, 0, None)), Progress::Alone);
        assert_eq!(of(&status(5, 0, Some((100, 0, false)))), Progress::Going { done: 5, total: 100 });
        assert_eq!(of(&status(100, 0, Some((100, 0, false)))), Progress::Going { done: 99, total: 100 });
        assert_eq!(of(&status(100, 3, Some((100, 0, true)))), Progress::Going { done: 100, total: 103 });
        assert_eq!(of(&status(100, 0, Some((100, 0, true)))), Progress::Equal);
        assert_eq!(of(&status(0, 0, Some((0, 0, false)))), Progress::Going { done: 0, total: 1 });
        // Nearly equal is not: rounding must not make it so.
        assert_eq!(of(&status(100_000, 0, Some((100_000, 1, false)))).percent(), 99);
        assert_eq!((Progress::Equal.percent(), Progress::Alone.percent()), (100, 0));
    }
}
