//! What the machine can tell about itself: shapes that are shown as they are.

use serde::{Deserialize, Serialize};

use super::io::Traffic;
use crate::{
    address::PeerAddress,
    model::{Digest, PeerId, ReplicaId, Timestamp},
};

/// Where a node stands with a peer about a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// A session is open.
    Live,
    /// A link is being made.
    Dialing,
    /// The next attempt waits for its time.
    Backoff,
    /// A permanent error: it waits for somebody.
    Parked,
    /// Nothing is to be done.
    Idle,
}

/// A replica's peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The peer.
    #[serde(with = "crate::text")]
    pub id: PeerId,
    /// Where it stands.
    pub state: PeerState,
    /// The registered name of the transport of the link in use.
    pub transport: Option<String>,
    /// The address that was dialled, when we dialled.
    pub address: Option<PeerAddress>,
    /// Whether roots are equal at a position that the peer confirmed.
    pub synced: bool,
    /// Up to which position of our change log it has confirmed.
    pub position: u64,
    /// How many changes the peer has not confirmed.
    pub pending: u64,
    /// How many entries the peer has, when it said so.
    pub entries: Option<u64>,
    /// Why the last try failed.
    pub last_error: Option<String>,
    /// When roots were last equal, in microseconds since the Unix epoch.
    pub last_synced: Option<Timestamp>,
    /// Entries that the peer did not accept.
    pub refused: u64,
    /// Milliseconds until the next try.
    pub next_try_ms: Option<u64>,
    /// What the open session has moved.
    pub traffic: Traffic,
}

/// A replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The replica.
    #[serde(with = "crate::text")]
    pub id: ReplicaId,
    /// The number of its entries.
    pub entries: u64,
    /// The root.
    #[serde(with = "crate::text")]
    pub root: crate::model::Hash,
    /// How many of its values are blobs.
    pub blobs: u64,
    /// The length of all its values.
    pub bytes: u64,
    /// How many contents it refers to and was not given yet in full.
    pub blobs_missing: u64,
    /// The peers.
    pub peers: Vec<PeerStatus>,
}

impl ReplicaStatus {
    pub(super) fn new(id: ReplicaId, root: Digest, peers: Vec<PeerStatus>) -> Self {
        Self { id, entries: root.count, root: root.hash, blobs: 0, bytes: 0, blobs_missing: 0, peers }
    }
}

/// A peer apart from replicas.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerInfo {
    /// The peer.
    #[serde(with = "crate::text")]
    pub id: PeerId,
    /// The name that the application gave it.
    pub name: String,
    /// Whether it is blocked.
    pub blocked: bool,
    /// Its known addresses, what worked first.
    pub addresses: Vec<PeerAddress>,
    /// The transports of its links, the one in use first.
    pub links: Vec<String>,
    /// Why it could not be reached.
    pub last_error: Option<String>,
}

/// An obstacle: something keeps replicas from being equal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Obstacle {
    /// What it concerns: a peer, a replica, a file.
    pub subject: String,
    /// The replica, when it is about one.
    #[serde(with = "crate::text::option")]
    pub replica: Option<ReplicaId>,
    /// What is wrong.
    pub cause: String,
    /// Since when, in microseconds since the Unix epoch.
    pub since: Option<Timestamp>,
    /// Milliseconds until the next try, when one is planned.
    pub next_try: Option<u64>,
    /// What to do.
    pub advice: String,
}
