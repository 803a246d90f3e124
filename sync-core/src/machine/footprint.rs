//! What a machine holds for its peers, for whoever wants to see that it is bounded.

use super::synchronizer::Synchronizer;

/// What a machine holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Peers that it knows something of.
    pub peers: usize,
    /// Jobs.
    pub jobs: usize,
    /// Links, those that shake hands among them.
    pub links: usize,
    /// Streams in use.
    pub streams: usize,
    /// Sessions, and those that are over and still being taken in.
    pub sessions: usize,
    /// The bytes of messages that wait in sessions: for the disk, or for credentials.
    pub waiting_len: usize,
    /// The most of it in one session.
    pub largest_len: usize,
    /// Sessions whose window is full.
    pub full_windows: usize,
    /// Sessions whose peer has said nothing for too long in the middle of something.
    pub stalled: usize,
    /// Outputs that nobody has taken.
    pub outputs: usize,
}

impl Synchronizer {
    /// What is held now.
    pub fn footprint(&self) -> Footprint {
        let sessions = || self.sessions.values().chain(self.draining.values());
        Footprint {
            peers: self.peers.len(),
            jobs: self.jobs.len(),
            links: self.links.len(),
            streams: self.streams.len(),
            sessions: sessions().count(),
            waiting_len: sessions().map(|session| session.waiting_len()).sum(),
            largest_len: sessions().map(|session| session.waiting_len()).max().unwrap_or(0),
            full_windows: sessions().filter(|session| session.is_live() && session.is_full(&self.io.limits)).count(),
            stalled: sessions().filter(|session| session.stalls_at() < self.io.now.elapsed).count(),
            outputs: self.io.waiting(),
        }
    }
}
