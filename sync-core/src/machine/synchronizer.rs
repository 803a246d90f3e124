//! The machine: one flat dispatch over what happened, and the clock of everything that waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    direction::Direction,
    io::*,
    limits::Limits,
    link::Link,
    out::Io,
    peer::{Job, Peer},
    random::Random,
    session::{Known, Session, Told},
    timed::Timed,
};
use crate::{
    address::PeerAddress,
    model::{PeerId, ReplicaId, SecretKey},
    store::{Position, ReplicaState, StoreId},
};

/// What the machine needs to know of its node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's key.
    pub key: SecretKey,
    /// Its store.
    pub store: StoreId,
    /// How often that store was opened.
    pub incarnation: u64,
    /// Where all of the machine's randomness comes from.
    pub seed: [u8; 32],
}

/// A replica and a peer: what a job and a session are about.
pub(super) type JobKey = (ReplicaId, PeerId);

/// An attempt to dial.
#[derive(Debug)]
pub(super) struct Dial {
    pub address: PeerAddress,
    pub peer: Option<PeerId>,
}

/// A question that waits.
#[derive(Debug)]
pub(super) struct Ask {
    pub id: AskId,
    pub replica: ReplicaId,
    pub target: Target,
    pub deadline: Duration,
    pub dial: Option<DialId>,
    pub before: Traffic,
    pub error: Option<(DialFailure, String)>,
}

/// The pure state machine of a node. See the [module](super) for the law of its use.
#[derive(Debug)]
pub struct Synchronizer {
    pub(super) config: Config,
    pub(super) me: PeerId,
    pub(super) io: Io,
    pub(super) addresses: Vec<PeerAddress>,
    pub(super) replicas: BTreeMap<ReplicaId, Known>,
    /// What is not here goes both ways.
    pub(super) directions: BTreeMap<ReplicaId, Direction>,
    pub(super) peers: Timed<PeerId, Peer>,
    pub(super) dials: BTreeMap<DialId, Dial>,
    pub(super) links: Timed<ConnectionId, Link>,
    pub(super) streams: Timed<(ConnectionId, StreamId), StreamUse>,
    pub(super) jobs: Timed<JobKey, Job>,
    pub(super) sessions: Timed<JobKey, Session>,
    /// Sessions that are over, whose entries are still being taken in.
    pub(super) draining: BTreeMap<JobKey, Session>,
    pub(super) traffic: BTreeMap<(ReplicaId, PeerId), Traffic>,
    pub(super) asks: Vec<Ask>,
    pub(super) save_at: Option<Duration>,
    pub(super) stopping: bool,
    /// Links that were ended here because of what came over them.
    pub(super) links_refused: u64,
    /// The peers that some job needs a link to; none when it must be gathered anew.
    pub(super) wanted: Option<BTreeSet<PeerId>>,
}

/// What a stream is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamUse {
    Control,
    /// Accepted; its `Open` has not come yet.
    Fresh(Duration),
    Session(ReplicaId, PeerId, u64),
}

impl Synchronizer {
    /// A machine that knows nothing but its node.
    pub fn new(config: Config, now: Now) -> Self {
        Self::with_limits(config, now, Limits::default())
    }

    /// The same in a network whose limits are others.
    pub fn with_limits(config: Config, now: Now, limits: Limits) -> Self {
        let me = PeerId(config.key.public());
        let random = Random::new(config.seed);
        Self {
            config,
            me,
            io: Io::new(now, random, limits),
            addresses: Vec::new(),
            replicas: BTreeMap::new(),
            directions: BTreeMap::new(),
            peers: Timed::default(),
            dials: BTreeMap::new(),
            links: Timed::default(),
            streams: Timed::default(),
            jobs: Timed::default(),
            sessions: Timed::default(),
            draining: BTreeMap::new(),
            traffic: BTreeMap::new(),
            asks: Vec::new(),
            save_at: None,
            stopping: false,
            links_refused: 0,
            wanted: None,
        }
    }

    /// The node that this machine is.
    pub fn peer_id(&self) -> PeerId {
        self.me
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.io.now = Now { elapsed: now.elapsed.max(self.io.now.elapsed), wall: now.wall };
        match input {
            Input::Tick => {}
            Input::Restored { records } => self.restored(records),
            Input::Listening { addresses } => self.addresses = addresses,
            Input::Changed { replica, state, written } => self.changed(replica, state, written),
            Input::Dropped { replica } => self.dropped(replica),
            Input::AddPeer { peer, addresses } => self.add_peer(peer, addresses),
            Input::RenamePeer { peer, name } => self.rename_peer(peer, name),
            Input::RemovePeer { peer } => self.remove_peer(peer),
            Input::BlockPeer { peer, blocked } => self.block_peer(peer, blocked),
            Input::Subscribe { replica, peer } => self.subscribe(replica, peer),
            Input::Unsubscribe { replica, peer } => self.unsubscribe(replica, peer),
            Input::Sync { ask, replica, target, timeout } => self.ask(ask, replica, target, timeout),
            Input::SetDirection { replica, direction } => self.set_direction(replica, direction),
            Input::RetryNow => self.retry_now(),
            Input::TransportAdded => self.transport_added(),
            Input::CheckInterval { interval } => self.check_every(interval),
            Input::Connected { connection, dial, transport, binding } => {
                self.connected(connection, dial, transport, binding);
            }
            Input::DialFailed { dial, why, error } => self.dial_failed(dial, why, error),
            Input::Disconnected { connection, reason } => self.disconnected(connection, reason),
            Input::StreamAccepted { connection, stream, kind } => self.stream_accepted(connection, stream, kind),
            Input::Frame { connection, stream, frame } => self.frame(connection, stream, frame),
            Input::StreamEnded { connection, stream, error } => self.stream_ended(connection, stream, error),
            Input::Stored { op, result } => self.stored(op, result),
            Input::Shutdown => self.shutdown(),
        }
        self.drive();
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.io.take()
    }

    /// When the machine wants to be told the time, at the latest; `elapsed` of [`Now`].
    pub fn poll_timeout(&self) -> Option<Duration> {
        let timed = [
            self.links.soonest(),
            self.sessions.soonest(),
            self.streams.soonest(),
            self.jobs.soonest(),
            self.peers.soonest(),
            self.save_at,
        ];
        timed.into_iter().flatten().chain(self.asks.iter().map(|ask| ask.deadline)).min()
    }

    /// Everything that is due.
    fn drive(&mut self) {
        self.settle();
        self.drive_links();
        self.drive_parked();
        self.settle();
        self.drive_sessions();
        self.settle();
        self.drive_peers();
        self.drive_asks();
        if self.save_at.is_some_and(|at| at <= self.io.now.elapsed) {
            self.save_jobs();
        }
        self.settle();
    }

    /// Computes the deadlines of whatever may have changed.
    fn settle(&mut self) {
        let now = self.io.now.elapsed;
        // While something is under way in a session, its link must show life.
        for session in self.sessions.touched().map(|(_, session)| session).filter(|session| session.is_busy()) {
            if let Some(link) = self.links.get_mut(&session.connection) {
                link.touch(now);
            }
        }
        if self.wanted.is_none() {
            self.gather_wanted();
            self.peers.touch_all();
            self.jobs.touch_all();
        }
        self.links.settle(|_, link| link.timeout(now));
        self.streams.settle(|_, used| match used {
            StreamUse::Fresh(deadline) => *deadline,
            StreamUse::Control | StreamUse::Session(..) => Duration::MAX,
        });
        for key in self.sessions.touched_keys() {
            self.jobs.touch(key);
        }
        self.sessions.settle(|_, session| session.timeout());
        let mut jobs = std::mem::take(&mut self.jobs);
        jobs.settle(|key, job| if self.is_waiting(key, job) { job.next_open } else { Duration::MAX });
        self.jobs = jobs;
        let mut peers = std::mem::take(&mut self.peers);
        peers.settle(|id, peer| peer.deadline(self.is_wanted(*id)));
        self.peers = peers;
    }

    fn changed(&mut self, replica: ReplicaId, state: ReplicaState, written: Option<u64>) {
        match self.replicas.get_mut(&replica) {
            Some(Known { told, .. }) => {
                if written.is_none() {
                    told.due = told.due.max(Some(state.head));
                }
                if let Some(entries) = written.filter(|entries| *entries > 0) {
                    told.until = told.until.max(state.head);
                    self.io.event(Event::Written { replica, entries });
                }
            }
            // It is gone: what was written last was on its way.
            None if written.is_some_and(|entries| entries > 0) => return,
            None => {}
        }
        self.tell_rest(replica);
        self.learn(replica, state);
    }

    /// Tells the application of what was written beneath the machine, if that is due: at most so many entries, as
    /// positions are not all taken. What a peer has sent may be among them until its own answer is here.
    pub(super) fn tell_rest(&mut self, replica: ReplicaId) {
        let is_working = self.io.is_working(replica);
        let Some(Known { told, .. }) = self.replicas.get_mut(&replica).filter(|_| !is_working) else { return };
        if let Some(due) = told.due.take().filter(|due| *due > told.until) {
            self.io.event(Event::Written { replica, entries: due.0 - told.until.0 });
            told.until = due;
        }
    }

    /// Tells the application of what came from a peer: so many entries.
    pub(super) fn tell_received(&mut self, (replica, peer): JobKey, head: Position, entries: u64) {
        if entries > 0
            && let Some(known) = self.replicas.get_mut(&replica)
        {
            known.told.until = known.told.until.max(head);
            self.io.event(Event::Received { replica, peer, entries });
        }
    }

    /// Takes in a newer state of a replica and lets every session of it send on.
    pub(super) fn learn(&mut self, replica: ReplicaId, state: ReplicaState) {
        let all = Told { until: state.head, due: None };
        let told = self.replicas.get(&replica).map_or(all, |known| known.told);
        let ReplicaState { root, head, rights, rights_version, .. } = state;
        let known = Known { root, head, rights, rights_version, told };
        match self.replicas.get(&replica) {
            Some(before) if before.head > known.head => return,
            Some(before) => {
                let rights_changed = !std::sync::Arc::ptr_eq(&before.rights, &known.rights);
                self.replicas.insert(replica, known);
                if rights_changed {
                    self.rights_changed(replica);
                    self.wake_replica(replica);
                }
            }
            None => {
                self.replicas.insert(replica, known);
                self.wanted = None;
            }
        }
        let known = &self.replicas[&replica];
        let peers = (replica, PeerId::from([0; 32]))..=(replica, PeerId::from([255; 32]));
        let mut compared = Vec::new();
        for (key, session) in self.sessions.range_mut(peers) {
            session.pump_out(&mut self.io, known);
            // The store may have been read, sent and acknowledged before the word of what was written came.
            let effects = session.compare_late(&mut self.io, known);
            if !effects.is_empty() {
                compared.push((*key, effects));
            }
        }
        for (key, effects) in compared {
            self.effects(key, effects);
        }
    }

    fn dropped(&mut self, replica: ReplicaId) {
        self.replicas.remove(&replica);
        self.draining.retain(|key, _| key.0 != replica);
        self.directions.remove(&replica);
        self.traffic.retain(|key, _| key.0 != replica);
        self.wanted = None;
        let peers = (replica, PeerId::from([0; 32]))..=(replica, PeerId::from([255; 32]));
        let sessions: Vec<_> = self.sessions.range(peers).map(|(key, _)| *key).collect();
        for key in sessions {
            self.end_asked(key, "the replica was removed here");
        }
        let jobs: Vec<_> = self.jobs.keys().filter(|key| key.0 == replica).copied().collect();
        for key in jobs {
            self.end_job(key);
        }
    }

    fn shutdown(&mut self) {
        self.stopping = true;
        self.wanted = None;
        self.save_jobs();
        let keys: Vec<_> = self.sessions.keys().copied().collect();
        for key in keys {
            self.end_session(key, "this node shuts down");
        }
        for connection in self.links.keys() {
            self.io.put(Output::Disconnect { connection: *connection, reason: DisconnectReason::Done });
        }
    }
}
