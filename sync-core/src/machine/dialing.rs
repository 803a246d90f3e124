//! The machine's part about peers and jobs: what is remembered, and when to dial.

use std::time::Duration;

use bytes::Bytes;

use super::{
    io::*,
    limits::*,
    link::LinkPhase,
    peer::{Job, JobRecord, Peer, PeerRecord, Race, Standing, backoff},
    session::Session,
    synchronizer::{Ask, Dial, JobKey, Synchronizer},
};
use crate::{
    address::PeerAddress,
    canary::{self, Canary},
    model::{PeerId, ReplicaId},
    store::{NodeKind, NodeRecord, Position},
};

fn peer_record(peer: &PeerId, record: &PeerRecord) -> NodeRecord {
    NodeRecord {
        kind: NodeKind::Peer,
        name: Bytes::copy_from_slice(peer.as_bytes()),
        value: Some(postcard::to_allocvec(record).expect("records can be encoded").into()),
    }
}

fn job_name(replica: &ReplicaId, peer: &PeerId) -> Bytes {
    [replica.as_bytes().as_slice(), peer.as_bytes()].concat().into()
}

fn job_record(replica: &ReplicaId, peer: &PeerId, record: &JobRecord) -> NodeRecord {
    NodeRecord {
        kind: NodeKind::Job,
        name: job_name(replica, peer),
        value: Some(postcard::to_allocvec(record).expect("records can be encoded").into()),
    }
}

/// The positions that a job's record says.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug)]
pub(crate) struct SavedPositions {
    pub replica: ReplicaId,
    pub peer: PeerId,
    /// Up to where the peer's log is here.
    pub received: Option<(crate::store::StoreId, Position)>,
    /// Up to where the peer has ours.
    pub confirmed: Position,
}

#[cfg(any(test, feature = "testing"))]
impl SavedPositions {
    /// Those in a record; none where it is no job's.
    pub fn of(record: &NodeRecord) -> Option<Self> {
        let (replica, peer) = record.name.split_at_checked(32)?;
        let (replica, peer) = (<[u8; 32]>::try_from(replica).ok()?, <[u8; 32]>::try_from(peer).ok()?);
        let saved: JobRecord = postcard::from_bytes(record.value.as_ref()?).ok()?;
        let confirmed = Position(saved.confirmed);
        Some(Self { replica: replica.into(), peer: peer.into(), received: saved.received, confirmed })
    }
}

/// Whether a peer's record has where it is, as the application has said it, or that it was removed. That it is blocked says
/// nothing of where it is: who blocked it before it knew an address has that to give still.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn is_known(record: &NodeRecord) -> bool {
    let saved = record.value.as_ref().and_then(|value| postcard::from_bytes::<PeerRecord>(value).ok());
    saved
        .is_some_and(|saved| saved.standing == Standing::Removed || saved.addresses.iter().any(|address| address.given))
}

impl Synchronizer {
    pub(super) fn restored(&mut self, records: Vec<NodeRecord>) {
        self.wanted = None;
        for record in records {
            let Some(value) = record.value else { continue };
            match (record.kind, &record.name[..]) {
                (NodeKind::Peer, name) => {
                    let (Ok(id), Ok(saved)) = (<[u8; 32]>::try_from(name), postcard::from_bytes(&value)) else {
                        continue;
                    };
                    self.peers.insert(PeerId::from(id), Peer { record: saved, ..Peer::default() });
                }
                (NodeKind::Job, _) if canary::is_out(Canary::ForgetJobs) => {}
                (NodeKind::Job, name) if name.len() == 64 => {
                    let (replica, peer) = name.split_at(32);
                    let (Ok(replica), Ok(peer), Ok(saved)) =
                        (<[u8; 32]>::try_from(replica), <[u8; 32]>::try_from(peer), postcard::from_bytes(&value))
                    else {
                        continue;
                    };
                    let mut job = Job { record: saved, trouble: Some(self.io.now.wall), ..Job::default() };
                    if job.record.parked.is_some() {
                        job.next_open = self.io.now.elapsed + self.io.check_interval;
                    }
                    self.jobs.insert((ReplicaId::from(replica), PeerId::from(peer)), job);
                }
                _ => {}
            }
        }
    }

    pub(super) fn save_peer(&mut self, peer: PeerId) {
        let record = peer_record(&peer, &self.peers[&peer].record);
        self.io.save(vec![record]);
    }

    /// Remembers to save a job's record soon.
    pub(super) fn job_changed(&mut self, key: (ReplicaId, PeerId)) {
        let Some(job) = self.jobs.get(&key) else { return };
        self.io.dirty_jobs.insert(key, job_record(&key.0, &key.1, &job.record));
        let at = self.io.now.elapsed + SAVE_DELAY;
        self.save_at = Some(self.save_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub(super) fn save_jobs(&mut self) {
        let jobs = self.io.take_dirty_jobs();
        if !jobs.is_empty() {
            self.io.save_jobs(jobs, Vec::new());
        }
        // Some wait until what is under way is saved.
        self.save_at = (!self.io.dirty_jobs.is_empty()).then(|| self.io.now.elapsed + SAVE_DELAY);
    }

    pub(super) fn add_peer(&mut self, peer: PeerId, addresses: Vec<PeerAddress>) {
        if peer == self.me {
            return;
        }
        let now = self.io.now.elapsed;
        let known = self.peers.entry(peer).or_default();
        let changed = known.give(addresses, true) | known.welcome();
        known.attempts = 0;
        known.next_try = now;
        if let Some(race) = &mut known.race {
            race.queue = known.record.addresses.iter().map(|known| known.address.clone()).collect();
            race.next_at = now;
        }
        if changed || known.record == PeerRecord::default() {
            self.save_peer(peer);
        }
        self.wake_peer(peer);
    }

    pub(super) fn rename_peer(&mut self, peer: PeerId, name: String) {
        let known = self.peers.entry(peer).or_default();
        known.record.name = name;
        known.welcome();
        self.save_peer(peer);
    }

    pub(super) fn remove_peer(&mut self, peer: PeerId) {
        let keys: Vec<_> = self.jobs.keys().filter(|key| key.1 == peer).copied().collect();
        for key in keys {
            self.unsubscribe(key.0, key.1);
        }
        self.cut(peer, "the peer was removed here");
        // What is left says that it is not to come back by itself.
        let left = PeerRecord { standing: Standing::Removed, ..PeerRecord::default() };
        let known = self.peers.entry(peer).or_default();
        if known.record != left {
            *known = Peer { record: left, ..Peer::default() };
            self.save_peer(peer);
        }
    }

    pub(super) fn block_peer(&mut self, peer: PeerId, blocked: bool) {
        let now = self.io.now.elapsed;
        let known = self.peers.entry(peer).or_default();
        match (known.record.standing, blocked) {
            (_, true) => known.record.standing = Standing::Blocked,
            (Standing::Blocked, false) => {
                known.record.standing = Standing::Welcome;
                known.try_now(now);
            }
            (Standing::Welcome | Standing::Removed, false) => {}
        }
        self.save_peer(peer);
        if blocked {
            self.cut(peer, "the peer is blocked here");
        }
    }

    /// Ends every link to a peer, and every attempt to make one.
    fn cut(&mut self, peer: PeerId, reason: &str) {
        self.end_race(peer);
        let links = self.peers.get(&peer).map(|peer| peer.links.clone()).unwrap_or_default();
        for connection in links {
            self.io.put(Output::Disconnect { connection, reason: DisconnectReason::Refused });
            self.disconnected(connection, reason.into());
        }
    }

    pub(super) fn subscribe(&mut self, replica: ReplicaId, peer: PeerId) {
        if peer == self.me {
            return;
        }
        self.peers.entry(peer).or_default().welcome();
        self.wanted = None;
        let key = (replica, peer);
        match self.jobs.entry(key) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                let trouble = Some(self.io.now.wall);
                let job = entry.insert(Job { show_credentials: true, trouble, ..Job::default() });
                let job = job_record(&replica, &peer, &job.record);
                self.save_peer(peer);
                self.io.save_job(key, job);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                entry.get_mut().next_open = self.io.now.elapsed;
                self.wake(key);
            }
        }
    }

    pub(super) fn unsubscribe(&mut self, replica: ReplicaId, peer: PeerId) {
        let key = (replica, peer);
        self.wanted = None;
        self.end_session(key, "the subscription has ended");
        self.end_job(key);
    }

    /// Removes a job and its saved record.
    pub(super) fn end_job(&mut self, key: JobKey) {
        if self.jobs.remove(&key).is_some() {
            let name = job_name(&key.0, &key.1);
            self.io.save_job(key, NodeRecord { kind: NodeKind::Job, name, value: None });
        }
    }

    /// Whether something that the application has asked for is not on its way to the store yet: what is said to be
    /// saved waits for it.
    pub fn saves_later(&self) -> bool {
        self.io.is_late()
    }

    pub(super) fn ask(&mut self, id: AskId, replica: ReplicaId, target: Target, timeout: Duration) {
        let deadline = self.io.now.elapsed.saturating_add(timeout);
        let mut ask = Ask { id, replica, target, deadline, dial: None, before: Traffic::default(), error: None };
        if let Target::Address(address) = &ask.target {
            match self.peer_at(address) {
                Some(peer) => ask.target = Target::Peer(peer),
                None => ask.dial = Some(self.dial_once(address.clone())),
            }
        }
        // Of one that is not here, or not any more, nothing is kept.
        if let Target::Peer(peer) = ask.target
            && self.replicas.contains_key(&replica)
        {
            self.subscribe(replica, peer);
            if let Some(known) = self.peers.get_mut(&peer) {
                known.next_try = self.io.now.elapsed;
            }
            ask.before = self.traffic_of((replica, peer));
            self.compare_now((replica, peer));
        }
        self.asks.push(ask);
    }

    /// The peer to which an address has led, while the link lasts.
    fn peer_at(&self, address: &PeerAddress) -> Option<PeerId> {
        self.links.values().filter(|link| link.address.as_ref() == Some(address)).find_map(|link| match link.phase {
            LinkPhase::Established { peer, .. } => Some(peer),
            LinkPhase::Handshake { .. } => None,
        })
    }

    /// Dials an address for a question, unless that is under way already.
    fn dial_once(&mut self, address: PeerAddress) -> DialId {
        if let Some((dial, _)) = self.dials.iter().find(|(_, under_way)| under_way.address == address) {
            return *dial;
        }
        let dial = DialId(self.io.number());
        self.dials.insert(dial, Dial { address: address.clone(), peer: None });
        self.io.put(Output::Dial { dial, address });
        dial
    }

    /// Questions whose time has come, one way or the other.
    pub(super) fn drive_asks(&mut self) {
        let unreachable = |(why, error)| SyncOutcome::Unreachable { why, error };
        let mut index = 0;
        while index < self.asks.len() {
            let ask = &self.asks[index];
            let peer = match &ask.target {
                Target::Peer(peer) => Some(*peer),
                Target::Address(_) => None,
            };
            let known = self.replicas.get(&ask.replica);
            let session = peer.and_then(|peer| self.sessions.get(&(ask.replica, peer)));
            let holds = |what: fn(&Session, Position) -> bool| {
                known.is_some_and(|known| session.is_some_and(|session| what(session, known.head)))
            };
            let outcome = if !self.replicas.contains_key(&ask.replica) {
                Some(SyncOutcome::UnknownReplica)
            } else if holds(Session::is_synced) {
                Some(SyncOutcome::Synced)
            } else if holds(Session::has_gone_one_way) {
                Some(SyncOutcome::OneWay)
            } else if let (None, Some(error)) = (ask.dial, &ask.error) {
                Some(unreachable(error.clone()))
            } else if ask.deadline <= self.io.now.elapsed {
                let error = peer.and_then(|peer| {
                    let known = self.peers.get(&peer)?;
                    if known.links.is_empty() { known.last_error.clone() } else { None }
                });
                Some(error.map_or(SyncOutcome::TimedOut, unreachable))
            } else {
                None
            };
            if let Some(outcome) = outcome {
                self.answer(index, outcome);
            } else {
                index += 1;
            }
        }
    }

    pub(super) fn answer(&mut self, index: usize, outcome: SyncOutcome) {
        let ask = self.asks.swap_remove(index);
        let peer = match ask.target {
            Target::Peer(peer) => Some(peer),
            Target::Address(_) => None,
        };
        let traffic = peer.map(|peer| self.traffic_of((ask.replica, peer)).since(&ask.before)).unwrap_or_default();
        let report = Box::new(SyncReport { peer, outcome, traffic });
        self.io.put(Output::Answer { ask: ask.id, report });
        if let Some(peer) = peer {
            self.asked_enough((ask.replica, peer));
        }
    }

    /// Answers the questions about a peer and a replica that a refusal ends.
    pub(super) fn answer_refused(&mut self, key: (ReplicaId, PeerId), refusal: super::wire::Refusal) {
        while let Some(index) =
            self.asks.iter().position(|ask| ask.replica == key.0 && ask.target == Target::Peer(key.1))
        {
            self.answer(index, SyncOutcome::Refused(refusal));
        }
    }

    /// Whether a job wants to be looked at when it may next be opened.
    pub(super) fn is_waiting(&self, key: &JobKey, job: &Job) -> bool {
        !self.stopping
            && (job.record.parked.is_some()
                || !self.sessions.contains_key(key)
                    && self.replicas.contains_key(&key.0)
                    && self.peers.get(&key.1).is_some_and(|peer| !peer.links.is_empty()))
    }

    /// Whether some job needs a link to the peer.
    pub(super) fn is_wanted(&self, peer: PeerId) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted.contains(&peer))
    }

    /// Whether a peer is remembered when it is gone: it has a job, or the application knows it.
    pub(super) fn is_kept(&self, peer: PeerId) -> bool {
        let known = self.peers.get(&peer).is_some_and(|known| {
            let record = &known.record;
            record.standing != Standing::Welcome
                || !record.name.is_empty()
                || record.addresses.iter().any(|address| address.given)
        });
        known || self.is_wanted(peer) || self.jobs.keys().any(|key| key.1 == peer)
    }

    /// Forgets a peer that came by and has no business here, so that passers-by fill no memory.
    pub(super) fn forget_stranger(&mut self, peer: PeerId) {
        if canary::is_out(Canary::KeepStrangers) {
            return;
        }
        if self.peers.get(&peer).is_some_and(|known| known.links.is_empty()) && !self.is_kept(peer) {
            self.end_race(peer);
            self.peers.remove(&peer);
        }
    }

    pub(super) fn gather_wanted(&mut self) {
        let jobs = self
            .jobs
            .iter()
            .filter(|(key, job)| !self.stopping && job.record.parked.is_none() && self.replicas.contains_key(&key.0));
        self.wanted = Some(jobs.map(|(key, _)| key.1).collect());
    }

    pub(super) fn drive_peers(&mut self) {
        let now = self.io.now.elapsed;
        for id in self.peers.due(now) {
            if self.peers.get(&id).is_some_and(|peer| peer.deadline(self.is_wanted(id)) <= now) {
                self.drive_race(id);
            }
        }
    }

    fn drive_race(&mut self, id: PeerId) {
        let now = self.io.now.elapsed;
        let peer = self.peers.get_mut(&id).expect("the peer was just listed");
        if peer.race.is_none() {
            let queue = peer.ranked();
            let dialing = Default::default();
            peer.race = Some(Race { queue, dialing, next_at: now, errors: Vec::new(), again: false });
        }
        let race = peer.race.as_mut().expect("the race was just made");
        while race.next_at <= now || race.dialing.is_empty() {
            let Some(address) = race.queue.pop_front() else { break };
            let dial = DialId(self.io.number());
            race.dialing.insert(dial);
            race.next_at = now + DIAL_STAGGER;
            self.dials.insert(dial, Dial { address: address.clone(), peer: Some(id) });
            self.io.put(Output::Dial { dial, address });
        }
        if race.queue.is_empty() {
            race.next_at = Duration::MAX;
        }
        if race.dialing.is_empty() && race.queue.is_empty() {
            let race = peer.race.take().expect("it has just ended");
            let again = race.again;
            let (error, parked) = race.verdict();
            peer.last_error = Some(error.clone());
            if again {
                peer.next_try = now;
                return;
            }
            peer.attempts = peer.attempts.saturating_add(1);
            peer.next_try = now + backoff(&mut self.io.random, peer.attempts - 1);
            if let Some(parked) = parked {
                let keys: Vec<_> = self.jobs.keys().filter(|key| key.1 == id).copied().collect();
                for key in keys {
                    self.park(key, parked, &error.1);
                }
            }
        }
    }

    /// An attempt came to nothing.
    pub(super) fn dial_failed(&mut self, dial: DialId, why: DialFailure, error: String) {
        let Some(Dial { address, peer }) = self.dials.remove(&dial) else { return };
        for ask in &mut self.asks {
            if ask.dial == Some(dial) {
                ask.dial = None;
                ask.error = Some((why, error.clone()));
            }
        }
        let Some(id) = peer else { return };
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.failed(&address, &error);
        if let Some(race) = &mut peer.race {
            race.dialing.remove(&dial);
            race.errors.push((why, format!("{address}: {error}")));
            if race.dialing.is_empty() {
                self.drive_race(id);
            }
        }
    }

    /// Gives up what is still being dialled to a peer.
    pub(super) fn end_race(&mut self, id: PeerId) {
        let Some(race) = self.peers.get_mut(&id).and_then(|peer| peer.race.take()) else { return };
        for dial in race.dialing {
            if self.asks.iter().any(|ask| ask.dial == Some(dial)) {
                // Somebody waits for whoever answers there.
                self.dials.get_mut(&dial).expect("what is being dialled is known").peer = None;
                continue;
            }
            self.dials.remove(&dial);
            self.io.put(Output::CancelDial { dial });
        }
    }
}

#[cfg(test)]
#[path = "record_vectors.rs"]
mod vectors;
