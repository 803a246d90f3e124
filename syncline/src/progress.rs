//! The progress of a daemon on a terminal: totals first, 100 % exactly when the roots are equal.

use std::{io::IsTerminal, sync::Arc, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use sync_core::{
    machine::{PeerState, ReplicaStatus},
    manager::DownloadStatus,
    model::{Hash, ReplicaId},
    store::{StoreError, Want},
};

use crate::{node::Node, text::size};

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(200);

/// How many missing contents are looked at at once.
const PAGE: usize = 1000;

/// Where the bar stands when all entries are there. Before that nobody knows how much content they name: the other
/// half is kept for it.
const ENTRIES_PERCENT: u64 = 50;

/// How far a replica is on its way to be equal with its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nobody to be equal with yet, or nobody who has said how much there is.
    Alone,
    /// Entries are on their way.
    Entries {
        /// Done.
        done: u64,
        /// In all, always more than `done`.
        total: u64,
    },
    /// All entries are there.
    Values {
        /// So many of their bytes are here.
        here: u64,
        /// Their bytes in all.
        total: u64,
    },
    /// Equal with every peer that is connected.
    Equal,
}

impl Progress {
    /// In percent, rounded down: a hundred is equal, and nothing else.
    pub fn percent(self) -> u64 {
        let part = |percent: u64, done: u64, total: u64| match done < total {
            true => u64::try_from(u128::from(percent) * u128::from(done) / u128::from(total)).unwrap_or(percent),
            false => percent,
        };
        match self {
            Self::Alone => 0,
            Self::Entries { done, total } => part(ENTRIES_PERCENT, done, total),
            Self::Values { here, total } => ENTRIES_PERCENT + part(99 - ENTRIES_PERCENT, here, total),
            Self::Equal => 100,
        }
    }

    /// What is done and what there is, for people.
    fn counts(self) -> String {
        match self {
            Self::Entries { done, total } => format!("{done}/{total} entries"),
            Self::Values { here, total } => format!("{}/{}", size(here), size(total)),
            Self::Alone | Self::Equal => String::new(),
        }
    }
}

/// The progress of a replica of which so many bytes are missing.
pub fn of(status: &ReplicaStatus, bytes_missing: u64) -> Progress {
    let live: Vec<_> = status.peers.iter().filter(|peer| peer.state == PeerState::Live).collect();
    if live.is_empty() {
        return Progress::Alone;
    }
    if live.iter().all(|peer| peer.synced) && status.blobs_missing == 0 {
        return Progress::Equal;
    }
    let Some(theirs) = live.iter().filter_map(|peer| peer.entries).max() else { return Progress::Alone };
    let pending = live.iter().map(|peer| peer.pending).max().unwrap_or(0);
    let total = theirs.max(status.entries);
    match theirs.saturating_sub(status.entries).max(pending) {
        0 => Progress::Values { here: status.bytes.saturating_sub(bytes_missing), total: status.bytes },
        left => Progress::Entries { done: total.saturating_sub(left), total: total.max(1) },
    }
}

/// How many bytes of contents a replica wants and does not have, durable or not.
async fn bytes_missing(node: &Node, replica: ReplicaId, downloads: &[DownloadStatus]) -> Result<u64, StoreError> {
    let mut missing = 0u64;
    let mut after = Some(Want { replica, hash: Hash([0; 32]), len: 0, base: None });
    while let Some(from) = after.take() {
        let wants = node.store().wants(Some(from), PAGE).await?;
        let is_more = wants.len() == PAGE;
        for want in wants {
            if want.replica != replica {
                return Ok(missing);
            }
            let here = downloads.iter().find(|download| download.hash == want.hash).map_or(0, |download| download.here);
            missing = missing.saturating_add(want.len.saturating_sub(here));
            after = is_more.then_some(want);
        }
    }
    Ok(missing)
}

/// What a bar shows: on its way it never moves back, though more may be written meanwhile.
#[derive(Debug, Default)]
struct Shown {
    highest: u64,
}

impl Shown {
    fn percent(&mut self, progress: Progress) -> u64 {
        self.highest = self.highest.max(progress.percent());
        self.highest
    }
}

/// Shows the progress until the node ends; never returns. Without a terminal it shows nothing.
pub async fn show(node: Arc<Node>, replica: ReplicaId) {
    if !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let style = ProgressStyle::with_template("{msg:9} {wide_bar} {prefix} {pos:>3} %").expect("a valid template");
    let bar = |message| ProgressBar::new(100).with_style(style.clone()).with_message(message);
    let mut drawn: Option<(ProgressBar, Shown)> = None;
    // The first time it is said in any case: all of it may have come between two drawings.
    let mut has_been_equal = false;
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        let Ok(status) = node.manager().status().await else { continue };
        let Some(known) = status.replicas.iter().find(|known| known.id == replica) else { continue };
        let missing = match known.blobs_missing {
            0 => Ok(0),
            _ => bytes_missing(&node, replica, &status.downloads).await,
        };
        let Ok(missing) = missing else { continue };
        let progress = of(known, missing);
        match progress {
            Progress::Alone => {}
            Progress::Entries { .. } | Progress::Values { .. } => {
                let (bar, shown) = drawn.get_or_insert_with(|| (bar("syncing"), Shown::default()));
                bar.set_prefix(progress.counts());
                bar.set_position(shown.percent(progress));
            }
            Progress::Equal => {
                let shown = drawn.take().map(|(bar, _)| bar);
                if let Some(bar) = shown.or_else(|| (!has_been_equal).then(|| bar("equal").with_position(100))) {
                    has_been_equal = true;
                    bar.set_prefix("");
                    bar.finish_with_message("equal");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sync_core::{
        machine::{PeerStatus, Traffic},
        model::PeerId,
    };

    use super::*;

    fn status(entries: u64, missing: u64, peer: Option<(Option<u64>, u64, bool)>) -> ReplicaStatus {
        let peers = peer.map(|(theirs, pending, synced)| PeerStatus {
            id: PeerId::from([1; 32]),
            state: PeerState::Live,
            transport: None,
            address: None,
            synced,
            position: 0,
            pending,
            entries: theirs,
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
            bytes: 5000,
            blobs_missing: missing,
            peers: peers.into_iter().collect(),
        }
    }

    #[test]
    fn a_hundred_percent_means_equal_and_nothing_else() {
        assert_eq!(of(&status(5, 0, None), 0), Progress::Alone);
        // Before the other side has said what it has there is no total, and nothing to draw.
        assert_eq!(of(&status(5, 0, Some((None, 0, false))), 0), Progress::Alone);
        let going = of(&status(5, 0, Some((Some(100), 0, false))), 0);
        assert_eq!((going, going.percent()), (Progress::Entries { done: 5, total: 100 }, 2));
        let sending = of(&status(100, 0, Some((Some(5), 95, false))), 0);
        assert_eq!(sending, Progress::Entries { done: 5, total: 100 });
        let nearly = of(&status(100, 0, Some((Some(100), 0, false))), 0);
        assert_eq!((nearly, nearly.percent()), (Progress::Values { here: 5000, total: 5000 }, 99));
        // Bytes count, not contents: one of a gigabyte is not as good as here because the small ones are.
        let large = of(&status(100, 1, Some((Some(100), 0, true))), 4000);
        assert_eq!((large, large.percent()), (Progress::Values { here: 1000, total: 5000 }, 59));
        assert_eq!(of(&status(100, 0, Some((Some(100), 0, true))), 0), Progress::Equal);
        assert!(of(&status(0, 0, Some((Some(0), 0, false))), 0).percent() < 100);
        // Nearly equal is not: rounding must not make it so, however much there is.
        assert_eq!(of(&status(100_000, 0, Some((Some(100_000), 1, false))), 0).percent(), 49);
        assert_eq!(Progress::Values { here: u64::MAX - 1, total: u64::MAX }.percent(), 98);
        assert_eq!((Progress::Equal.percent(), Progress::Alone.percent()), (100, 0));
    }

    /// The story: contents were counted into the total as their entries came, and the bar went back.
    #[test]
    fn the_percentage_never_falls() {
        let (mut shown, mut last) = (Shown::default(), 0);
        let first_sync = [(10, 1, 300), (60, 30, 4800), (100, 60, 4800), (100, 60, 2000), (100, 1, 100)];
        let then_more_is_written = [(100, 40, 4000), (200, 40, 4000)];
        for (entries, missing, bytes) in first_sync.into_iter().chain(then_more_is_written) {
            let theirs = if entries == 200 { 400 } else { 100 };
            let percent = shown.percent(of(&status(entries, missing, Some((Some(theirs), 0, false))), bytes));
            assert!(percent >= last && percent < 100, "{percent} after {last}");
            last = percent;
        }
        // Without more being written it would not have to be held.
        let steps = first_sync.map(|(entries, missing, bytes)| {
            of(&status(entries, missing, Some((Some(100), 0, false))), bytes).percent()
        });
        assert!(steps.is_sorted(), "{steps:?}");
    }
}
