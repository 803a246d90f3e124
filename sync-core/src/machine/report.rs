//! The machine's part about itself: status, and every obstacle with its cause and the way out.

use super::{
    peer::{Parked, Standing},
    session::Known,
    status::{Obstacle, PeerInfo, PeerState, PeerStatus, ReplicaStatus},
    synchronizer::Synchronizer,
};
use crate::model::{PeerId, ReplicaId};

impl Synchronizer {
    /// Every replica, and per peer where it stands.
    pub fn status(&self) -> Vec<ReplicaStatus> {
        self.replicas
            .iter()
            .map(|(id, known)| {
                let peers = self.jobs.keys().filter(|key| key.0 == *id).map(|key| self.peer_status(*key)).collect();
                ReplicaStatus::new(*id, known.root, self.direction(id), peers)
            })
            .collect()
    }

    /// How many links were ended here since the start because of what came over them, or did not: another
    /// protocol, a proof that is none, a message out of place, no handshake in time.
    pub fn links_refused(&self) -> u64 {
        self.links_refused
    }

    fn peer_status(&self, key: (ReplicaId, PeerId)) -> PeerStatus {
        let now = self.io.now.elapsed;
        let job = &self.jobs[&key];
        let peer = self.peers.get(&key.1);
        let session = self.sessions.get(&key);
        let live = session.is_some_and(|session| session.is_live());
        let link = session
            .map(|session| session.connection)
            .or_else(|| peer.and_then(|peer| peer.links.first().copied()))
            .and_then(|connection| self.links.get(&connection));
        let linked = link.is_some();
        let Known { head, root, .. } = self.replicas[&key.0];
        let confirmed = session.map_or(job.record.confirmed, |session| session.confirmed().0.max(job.record.confirmed));
        let synced = session.is_some_and(|session| session.is_synced(head));
        // Nothing is owed to a peer that does not want it, nor by a replica that only pulls.
        let owes = self.direction(&key.0).sends() && session.is_none_or(|session| session.gives);
        let pending = if synced || !owes { 0 } else { head.0.saturating_sub(confirmed).min(root.count) };
        let dialing = peer.is_some_and(|peer| peer.race.is_some()) || (session.is_some() && !live);
        let reachable = peer.is_some_and(|peer| !peer.record.addresses.is_empty());
        let state = if job.record.parked.is_some() || peer.is_some_and(|peer| peer.refused().is_some()) {
            PeerState::Parked
        } else if live {
            PeerState::Live
        } else if dialing {
            PeerState::Dialing
        } else if linked || reachable {
            PeerState::Backoff
        } else {
            PeerState::Idle
        };
        let next_try = match state {
            PeerState::Backoff if linked => Some(job.next_open),
            PeerState::Backoff => peer.map(|peer| peer.next_try),
            PeerState::Parked => job.record.parked.map(|_| job.next_open),
            PeerState::Live | PeerState::Dialing | PeerState::Idle => None,
        };
        let parked = job.record.parked.and(job.record.last_error.clone());
        let unreachable =
            peer.filter(|_| !linked).and_then(|peer| peer.last_error.as_ref()).map(|(_, error)| error.clone());
        PeerStatus {
            id: key.1,
            state,
            transport: link.map(|link| link.transport.clone()),
            address: link.and_then(|link| link.address.clone()),
            synced,
            position: confirmed,
            pending,
            entries: session.filter(|session| session.is_live()).map(|session| session.their_count),
            last_error: if live { None } else { parked.or(unreachable).or_else(|| job.record.last_error.clone()) },
            last_synced: job.record.last_synced,
            refused: job.refused,
            next_try_ms: next_try.map(|at| u64::try_from(at.saturating_sub(now).as_millis()).unwrap_or(u64::MAX)),
            traffic: self.traffic_of(key),
        }
    }

    /// Every peer that this node knows.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.record.standing != Standing::Removed)
            .map(|(id, peer)| PeerInfo {
                id: *id,
                name: peer.record.name.clone(),
                blocked: peer.record.standing == Standing::Blocked,
                addresses: peer.ranked().into(),
                links: peer
                    .links
                    .iter()
                    .filter_map(|link| self.links.get(link))
                    .map(|link| link.transport.clone())
                    .collect(),
                last_error: peer.last_error.as_ref().map(|(_, error)| error.clone()),
            })
            .collect()
    }

    /// Everything that keeps a replica from being equal with a peer.
    pub fn obstacles(&self) -> Vec<Obstacle> {
        let mut obstacles = Vec::new();
        for key in self.jobs.keys().filter(|key| self.replicas.contains_key(&key.0)) {
            let status = self.peer_status(*key);
            let subject = format!("peer {} of replica {}", key.1.short(), key.0.short());
            let next_try = status.next_try_ms;
            let mut add = |cause: String, advice: &str| {
                obstacles.push(Obstacle {
                    subject: subject.clone(),
                    replica: Some(key.0),
                    cause,
                    since: self.jobs[key].trouble.or(status.last_synced),
                    next_try,
                    advice: advice.into(),
                });
            };
            match status.state {
                PeerState::Live => {}
                PeerState::Dialing => add(
                    status.last_error.clone().unwrap_or_else(|| "it is being dialled".into()),
                    "nothing: it is being tried now",
                ),
                PeerState::Backoff => add(
                    status.last_error.clone().unwrap_or_else(|| "it is not connected".into()),
                    "check that the peer is running and reachable; it is tried again by itself",
                ),
                PeerState::Parked => add(
                    status.last_error.clone().unwrap_or_else(|| "it is blocked here".into()),
                    match self.jobs[key].record.parked {
                        Some(Parked::Refused) => {
                            "join again with a new ticket; it is asked again when it connects, and now and then"
                        }
                        Some(Parked::Version) => "update the older of the two programs",
                        Some(Parked::NoWay) => {
                            "register a transport that dials one of its addresses, or give another address with a new ticket"
                        }
                        None => "unblock the peer",
                    },
                ),
                PeerState::Idle => add(
                    status.last_error.clone().unwrap_or_else(|| "no address of it is known".into()),
                    "wait until it connects, or give an address of it with a new ticket",
                ),
            }
            if status.refused > 0 {
                add(
                    format!("it did not accept {} entries of this node", status.refused),
                    "ask its owner for a ticket that may write, or set this device's clock",
                );
            }
            let early = self.jobs[key].early;
            if early > 0 {
                add(
                    format!("{early} entries of it are more than ten minutes ahead of this device's clock"),
                    "set this device's clock, or that of their author; they are taken when their time has come",
                );
            }
            let session = self.sessions.get(key).filter(|session| session.is_live() && !status.synced);
            if session.is_some_and(|session| !session.gives) {
                add(
                    "entries do not go from here to it: this replica only pulls, or the peer only pushes".into(),
                    "nothing, if that is meant; otherwise set the direction of the replica",
                );
            }
            if session.is_some_and(|session| !session.takes) {
                add(
                    "entries do not come from it: this replica only pushes, or the peer only pulls".into(),
                    "nothing, if that is meant; otherwise set the direction of the replica, or sync with the peer by hand",
                );
            }
            if self.sessions.get(key).is_some_and(|session| session.diverged) {
                add(
                    "the roots stay different: one side does not accept entries that the other has".into(),
                    "set the clocks of both devices; whose right to write has ended needs a new ticket",
                );
            }
        }
        obstacles
    }
}
