//! Directions: which way the entries of a replica go between this node and others.
//!
//! Each side says its direction in the opening, and both compute from that which way entries go in the session. What
//! does not carry entries passes always. A node that only pulls sends nothing by itself, and serves whoever
//! asks: a peer whose application waits for a sync.

use serde::{Deserialize, Serialize};

use super::{
    io::Target,
    synchronizer::{JobKey, Synchronizer},
};
use crate::model::ReplicaId;

/// Which way the entries of a replica go between this node and others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Both ways.
    #[default]
    Both,
    /// What others have comes here. What is here goes to who asks for it only.
    Pull,
    /// What is here goes to others. What they have does not come here.
    Push,
}

impl Direction {
    /// Whether entries are sent by this node's own accord.
    pub fn sends(self) -> bool {
        self != Self::Pull
    }

    /// Whether entries are wanted.
    pub fn takes(self) -> bool {
        self != Self::Push
    }
}

impl Synchronizer {
    /// The direction of a replica here.
    pub(super) fn direction(&self, replica: &ReplicaId) -> Direction {
        self.directions.get(replica).copied().unwrap_or_default()
    }

    /// The application has chosen a direction: sessions begin anew, from the positions that are known.
    pub(super) fn set_direction(&mut self, replica: ReplicaId, direction: Direction) {
        if self.direction(&replica) == direction {
            return;
        }
        self.directions.insert(replica, direction);
        let keys: Vec<JobKey> = self.sessions.keys().filter(|key| key.0 == replica).copied().collect();
        for key in keys {
            self.begin_anew(key, "the direction of the replica was changed here");
        }
    }

    /// Ends a session and opens another at once.
    pub(super) fn begin_anew(&mut self, key: JobKey, reason: &str) {
        self.end_session(key, reason);
        if let Some(job) = self.jobs.get_mut(&key) {
            job.next_open = self.io.now.elapsed;
        }
    }

    /// Whether the application waits for a sync with the peer.
    pub(super) fn asks(&self, key: JobKey) -> bool {
        self.asks.iter().any(|ask| ask.replica == key.0 && ask.target == Target::Peer(key.1))
    }

    /// What was asked for is here: a peer that only pulls does not go on sending.
    pub(super) fn asked_enough(&mut self, key: JobKey) {
        let reluctant = self.sessions.get(&key).is_some_and(|session| session.takes_by_asking);
        if reluctant && !self.asks(key) {
            self.begin_anew(key, "what was asked for is here");
        }
    }
}
