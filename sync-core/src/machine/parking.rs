//! Parked jobs: what failed for good leaves the schedule of retries, and is never given up.
//!
//! A job is parked when its error stays the same however often it is tried. It is tried again at once when something
//! happens that could change the answer: the peer links anew or opens a session, this replica's rights change, an
//! address or a transport is added, the application asks. And because such a change can happen where nobody
//! hears of it, it is asked about as often as idle sessions compare roots.

use super::{
    peer::Parked,
    synchronizer::{JobKey, Synchronizer},
};
use crate::model::{PeerId, ReplicaId};

impl Synchronizer {
    /// Takes a job out of the schedule of retries.
    pub(super) fn park(&mut self, key: JobKey, parked: Parked, reason: &str) {
        let again = self.io.now.elapsed + self.io.check_interval;
        let Some(job) = self.jobs.get_mut(&key) else { return };
        job.next_open = again;
        job.attempts = 0;
        let before = (job.record.parked.replace(parked), job.record.last_error.replace(reason.into()));
        self.wanted = None;
        if before != (Some(parked), Some(reason.into())) {
            self.job_changed(key);
        }
    }

    /// Tries a parked job again now: something has changed, or its time has come.
    pub(super) fn wake(&mut self, key: JobKey) {
        let now = self.io.now.elapsed;
        let Some(job) = self.jobs.get_mut(&key) else { return };
        if job.record.parked.take().is_none() {
            return;
        }
        job.next_open = now;
        self.wanted = None;
        // A link that has just come up and does not last still counts as an attempt.
        if let Some(peer) = self.peers.get_mut(&key.1).filter(|peer| peer.links.is_empty()) {
            peer.try_now(now);
        }
        self.job_changed(key);
    }

    fn wake_where(&mut self, mut wakes: impl FnMut(&JobKey, Parked) -> bool) {
        let parked = self.jobs.iter().filter_map(|(key, job)| Some((*key, job.record.parked?)));
        let keys: Vec<JobKey> = parked.filter(|(key, parked)| wakes(key, *parked)).map(|(key, _)| key).collect();
        for key in keys {
            self.wake(key);
        }
    }

    /// Something has changed about a peer.
    pub(super) fn wake_peer(&mut self, peer: PeerId) {
        self.wake_where(|key, _| key.1 == peer);
    }

    /// Something has changed about a replica.
    pub(super) fn wake_replica(&mut self, replica: ReplicaId) {
        self.wake_where(|key, _| key.0 == replica);
    }

    /// A transport was registered: it may dial what nothing could dial before.
    pub(super) fn transport_added(&mut self) {
        let now = self.io.now.elapsed;
        for peer in self.peers.values_mut() {
            peer.try_now(now);
        }
        self.wake_where(|_, parked| parked == Parked::NoWay);
    }

    /// The application wants everything tried now.
    pub(super) fn retry_now(&mut self) {
        let now = self.io.now.elapsed;
        for peer in self.peers.values_mut() {
            peer.try_now(now);
        }
        for job in self.jobs.values_mut() {
            job.next_open = now;
        }
        self.wake_where(|_, _| true);
    }

    /// Parked jobs whose time has come.
    pub(super) fn drive_parked(&mut self) {
        let now = self.io.now.elapsed;
        for key in self.jobs.due(now) {
            // Only if it is parked.
            self.wake(key);
        }
    }
}
