//! The machine's part about sessions: opening, answering, and what their effects change.

use std::time::Duration;

use super::{
    handshake::Role,
    io::*,
    limits::*,
    link::LinkPhase,
    out::OpFor,
    peer::{Parked, backoff},
    session::{Anew, Applied, Effect, Facts, Phase, Session},
    synchronizer::{JobKey, StreamUse, Synchronizer},
    wire::{Message, Open, Refusal, StreamKind},
};
use crate::{
    canary::{self, Canary},
    model::{Digest, PeerId, ReadScope, ReplicaId, Right, Timestamp},
    store::{Position, ReplicaState, Scope, StoreId},
};

impl Synchronizer {
    /// Opens what should be open, ends what waited too long, compares what was quiet.
    pub(super) fn drive_sessions(&mut self) {
        let now = self.io.now.elapsed;
        if !self.stopping {
            for key in self.jobs.due(now) {
                let Some(job) = self.jobs.get(&key) else { continue };
                if job.record.parked.is_none() && job.next_open <= now && self.is_waiting(&key, job) {
                    self.open_session(key);
                }
            }
        }
        for key in self.sessions.due(now) {
            // The end of one can be the end of its link, and of all others on it.
            let Some(session) = self.sessions.get_mut(&key).filter(|session| session.timeout() <= now) else {
                continue;
            };
            if session.is_live() {
                let rights = &self.replicas[&key.0].rights;
                if Scope::of(&rights.readable(&key.1, self.io.now.wall)) != session.scope {
                    self.end_by_rights(key);
                } else if session.stalls_at() <= now {
                    self.end_session(key, "the peer has said nothing more in the middle of a sync");
                } else if let Some(anew) = session.anew {
                    let store = session.their_store().filter(|_| anew == Anew::FromStart);
                    self.take_anew(key, store);
                } else if session.needs_another() {
                    self.offer_again(key);
                } else {
                    // The wall clock may have gone back since the end of the right was computed.
                    if session.rights_end <= now {
                        session.rights_end = now + Duration::from_secs(1);
                    }
                    if session.next_check <= now {
                        session.check(&mut self.io, &self.replicas[&key.0]);
                    }
                }
            } else {
                let connection = session.connection;
                // Its answer may be under way all the same: whoever has slept hears of the time first.
                self.io.put(Output::Disconnect { connection, reason: DisconnectReason::Silent });
                self.disconnected(connection, "it does not answer an Open".into());
            }
        }
        for (connection, stream) in self.streams.due(now) {
            if let Some(StreamUse::Fresh(_)) = self.streams.get(&(connection, stream)) {
                self.streams.remove(&(connection, stream));
                self.io.put(Output::CloseStream { connection, stream });
            }
        }
    }

    fn open_session(&mut self, key: JobKey) {
        let connection = self.peers[&key.1].links[0];
        let session = self.new_session(key, Role::Dialer, connection, Phase::Preparing(None));
        self.sessions.insert(key, session);
        self.prepare(key);
    }

    fn new_session(&mut self, key: JobKey, role: Role, connection: ConnectionId, phase: Phase) -> Session {
        let mut session = Session::new(self.io.number(), key.0, key.1, role, connection, phase);
        session.narrow = self.jobs.get(&key).map_or(0, |job| job.narrow);
        session
    }

    /// Reads what an `Open` must say, as soon as what the last session left is taken in: it may say that it is here.
    pub(super) fn prepare(&mut self, key: JobKey) {
        let Some(session) = self.sessions.get(&key).filter(|_| !self.draining.contains_key(&key)) else { return };
        let Phase::Preparing(theirs) = &session.phase else { return };
        let (admit, shows) = match theirs {
            Some(open) => (open.credentials.clone(), !open.credentials.is_empty()),
            None => {
                let knows = self.peers.get(&key.1).is_some_and(|peer| peer.admits.contains(&key.0));
                (Vec::new(), !knows && self.jobs.get(&key).is_some_and(|job| job.show_credentials))
            }
        };
        let request = StoreRequest::Prepare {
            replica: key.0,
            peer: key.1,
            admit,
            credentials_of: shows.then_some(self.me.0),
            now: self.io.now.wall,
        };
        self.io.store((key.0, key.1, session.serial), request);
    }

    /// The first message on a stream that a peer opened.
    pub(super) fn session_asked(&mut self, connection: ConnectionId, stream: StreamId, message: Message, len: usize) {
        let Message::Open(open) = message else {
            return self.violation(connection, "a session that does not begin with Open");
        };
        let Some(peer) = self.peer_of(connection) else { return };
        let key = (open.replica, peer);
        if self.stopping {
            return self.refuse(connection, stream, Refusal::Busy);
        }
        if !self.replicas.contains_key(&key.0) {
            return self.refuse(connection, stream, Refusal::NotAvailable);
        }
        if let Some(session) = self.sessions.get(&key) {
            let opening = session.role == Role::Dialer && !session.is_live();
            if opening && self.me < peer {
                // Both opened at once: the smaller id's goes on.
                return self.refuse(connection, stream, Refusal::Duplicate);
            }
            // The peer has none, or its own goes first.
            self.forget_session(key);
        }
        let phase = Phase::Preparing(Some(Box::new(open)));
        let mut session = self.new_session(key, Role::Acceptor, connection, phase);
        session.stream = Some(stream);
        session.count_received(self.io.now.elapsed, len);
        self.streams.insert((connection, stream), StreamUse::Session(key.0, peer, session.serial));
        self.sessions.insert(key, session);
        self.prepare(key);
    }

    fn refuse(&mut self, connection: ConnectionId, stream: StreamId, refusal: Refusal) {
        self.streams.remove(&(connection, stream));
        self.io.send(connection, stream, Message::Refuse(refusal).encode());
        self.io.put(Output::CloseStream { connection, stream });
    }

    /// A message on the stream of a session.
    pub(super) fn session_message(&mut self, key: JobKey, serial: u64, message: Message, len: usize) {
        let Some(session) = self.sessions.get_mut(&key).filter(|session| session.serial == serial) else { return };
        session.count_received(self.io.now.elapsed, len);
        let connection = session.connection;
        match message {
            Message::Opened(open) => {
                let Phase::Opening { mine, .. } = &session.phase else {
                    return self.violation(connection, "an Opened that nobody waits for");
                };
                if open.replica != key.0 {
                    return self.violation(connection, "an Opened for another replica");
                }
                let mine = mine.clone();
                if open.credentials.is_empty() {
                    self.begin(key, *mine, open);
                } else {
                    let admit = open.credentials.clone();
                    session.phase = Phase::Admitting { mine, theirs: Box::new(open) };
                    let request = StoreRequest::Prepare {
                        replica: key.0,
                        peer: key.1,
                        admit,
                        credentials_of: None,
                        now: self.io.now.wall,
                    };
                    self.io.store((key.0, key.1, serial), request);
                }
            }
            Message::Refuse(refusal) => self.session_refused(key, refusal),
            message if session.is_live() => {
                let known = &self.replicas[&key.0];
                let effects = session.receive(&mut self.io, known, message, len);
                self.effects(key, effects);
            }
            message if matches!(session.phase, Phase::Admitting { .. }) => {
                if !session.hold_back(&self.io.limits, message, len) {
                    self.violation(connection, "it sends more than the window allows");
                }
            }
            _ => self.violation(connection, "a message before the session is open"),
        }
    }

    fn session_refused(&mut self, key: JobKey, refusal: Refusal) {
        self.forget_session(key);
        let now = self.io.now.elapsed;
        let Some(job) = self.jobs.get_mut(&key) else { return };
        if refusal == Refusal::Duplicate {
            // The peer's own session is on its way.
            job.next_open = now + OPEN_DEADLINE;
            return;
        }
        let knew = self.peers.get_mut(&key.1).is_some_and(|peer| peer.admits.remove(&key.0));
        let shown = std::mem::replace(&mut job.show_credentials, true) && !knew;
        if refusal == Refusal::NotAvailable && !shown {
            // It may not know yet what this node may do: ask again at once, with credentials.
            job.next_open = now;
            return;
        }
        if refusal == Refusal::NotAvailable {
            let reason = self.why_refused(&key.0);
            self.io.event(Event::SyncFailed { replica: key.0, peer: key.1, reason: reason.into() });
            self.park(key, Parked::Refused, reason);
            return self.answer_refused(key, refusal);
        }
        job.next_open = now + backoff(&mut self.io.random, job.attempts);
        job.attempts = job.attempts.saturating_add(1);
        let reason = "the peer is busy";
        if job.record.last_error.as_deref() != Some(reason) {
            job.record.last_error = Some(reason.into());
            self.job_changed(key);
        }
        self.io.event(Event::SyncFailed { replica: key.0, peer: key.1, reason: reason.into() });
    }

    /// What this node knows itself of why nobody lets it read a replica.
    fn why_refused(&self, replica: &ReplicaId) -> &'static str {
        let (me, wall) = (&self.me.0, self.io.now.wall);
        let rights = self.replicas.get(replica).map(|known| &known.rights);
        let has = |at| rights.is_some_and(|rights| rights.best_grant(me, Right::Read, at).is_some());
        match has(Timestamp(0)) && !has(wall) {
            true => "this node's right to the replica has expired",
            false => "the peer does not have this replica, or not for this node",
        }
    }

    /// Work on the store is done.
    pub(super) fn stored(&mut self, op: OpId, result: Result<StoreReply, WorkError>) {
        let (replica, peer, serial) = match self.io.finish(op) {
            Some(OpFor::Session(replica, peer, serial) | OpFor::Ride(replica, peer, serial)) => (replica, peer, serial),
            Some(OpFor::Save(_)) | None => return,
        };
        let key = (replica, peer);
        // What was applied is learned even when the session is gone.
        if let Ok(StoreReply::Applied { state, inserted, .. }) = &result {
            let is_over = self.sessions.get(&key).is_none_or(|session| session.serial != serial);
            if !(is_over && canary::is_out(Canary::DropEvent)) {
                self.tell_received(key, state.head, *inserted);
            }
            if !self.replicas.contains_key(&replica) {
                return;
            }
            self.applied_state(key, serial, state.clone());
        }
        // So are credentials that were new here.
        if let Ok(StoreReply::Prepared { state, admitted, .. }) = &result {
            self.tell_received(key, state.head, *admitted);
        }
        // And rights that have changed since the log was asked for.
        if let Ok(StoreReply::Changes { state: Some(state), .. }) = &result
            && self.replicas.contains_key(&replica)
        {
            self.learn(replica, state.clone());
        }
        self.tell_rest(replica);
        let Some(session) = self.sessions.get_mut(&key).filter(|session| session.serial == serial) else {
            return self.drained(key, serial, result);
        };
        let reply = match result {
            Ok(reply) => reply,
            Err(WorkError::Invalid(what)) => {
                session.abandon();
                let connection = session.connection;
                return self.violation(connection, &what);
            }
            Err(WorkError::Store(error)) => return self.end_asked(key, &error.to_string()),
        };
        let Some(known) = self.replicas.get(&replica) else { return };
        let mut effects = match reply {
            StoreReply::Prepared { state, readable, root, credentials, .. } => {
                return self.prepared(key, state, readable, root, credentials);
            }
            StoreReply::Changes { payload, changes, state: _ } => {
                session.changes_read(&mut self.io, known, payload, changes)
            }
            StoreReply::Missing { payload, page } => {
                session.missing_read(&mut self.io, known, payload, page);
                Vec::new()
            }
            StoreReply::ScopeRoot { head, root } => session.scope_root_read(&mut self.io, known, head, root),
            StoreReply::Verified { bundles } => session.entries_verified(&mut self.io, known, bundles),
            StoreReply::Applied { state, inserted, refused, refused_count, rights_changed: _ } => {
                let applied = Applied { head: state.head, inserted, rights: state.rights, refused, refused_count };
                session.entries_applied(&mut self.io, known, &applied)
            }
            StoreReply::Step { mine, step, missing } => {
                session.stepped(&mut self.io, known, mine, step, missing);
                Vec::new()
            }
            StoreReply::Reconciled { reconciled, state: _ } => session.reconciled(&mut self.io, known, reconciled),
            StoreReply::Saved => Vec::new(),
        };
        effects.extend(session.compare_late(&mut self.io, known));
        self.effects(key, effects);
    }

    /// Learns the state after a session's batch; the session itself must not send it back first.
    fn applied_state(&mut self, key: JobKey, serial: u64, state: ReplicaState) {
        let held = self.sessions.get_mut(&key).filter(|session| session.serial == serial);
        if let Some(session) = held {
            session.hold = true;
        }
        self.learn(key.0, state);
        if let Some(session) = self.sessions.get_mut(&key) {
            session.hold = false;
        }
    }

    fn prepared(
        &mut self,
        key: JobKey,
        state: ReplicaState,
        readable: ReadScope,
        root: Digest,
        credentials: Vec<crate::model::Bundle>,
    ) {
        let head = state.head;
        self.learn(key.0, state);
        let have = self.jobs.get(&key).and_then(|job| job.record.received);
        let (store, direction, asks) = (self.config.store, self.direction(&key.0), self.asks(key));
        let facts = Facts { store, head, root, have, direction, asks };
        let open = Open { replica: key.0, store, head, root, have, direction, asks, credentials };
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let before = std::mem::replace(&mut session.scope, Scope::of(&readable));
        match std::mem::replace(&mut session.phase, Phase::Live) {
            Phase::Preparing(None) => {
                let connection = session.connection;
                if !self.links.contains_key(&connection) {
                    self.sessions.remove(&key);
                    return;
                }
                let stream = self.io.stream();
                session.stream = Some(stream);
                session.phase = Phase::Opening { mine: Box::new(facts), deadline: self.io.now.elapsed + OPEN_DEADLINE };
                self.streams.insert((connection, stream), StreamUse::Session(key.0, key.1, session.serial));
                self.io.put(Output::OpenStream { connection, stream, kind: StreamKind::Session });
                session.send(&mut self.io, Message::Open(open));
            }
            Phase::Preparing(Some(theirs)) => {
                if session.scope.is_nothing() {
                    let (connection, stream) = (session.connection, session.stream);
                    self.sessions.remove(&key);
                    let stream = stream.expect("an accepted session has a stream");
                    return self.refuse(connection, stream, Refusal::NotAvailable);
                }
                let shows = !open.credentials.is_empty();
                session.send(&mut self.io, Message::Opened(open));
                if shows && let Some(peer) = self.peers.get_mut(&key.1) {
                    peer.admits.insert(key.0);
                }
                // A reader is remembered: what is written here is owed to it.
                self.subscribe(key.0, key.1);
                self.begin(key, facts, *theirs);
            }
            Phase::Admitting { mine, theirs } => {
                if mine.root == theirs.root && before != session.scope {
                    // The peer may read something else by the credentials that it has shown than what was summed up.
                    self.end_by_rights(key);
                    if let Some(job) = self.jobs.get_mut(&key) {
                        job.next_open = self.io.now.elapsed;
                    }
                    return;
                }
                self.begin(key, *mine, *theirs);
                self.catch_up(key);
            }
            Phase::Opening { .. } | Phase::Live | Phase::Draining => {
                unreachable!("nothing is prepared in these phases")
            }
        }
    }

    fn begin(&mut self, key: JobKey, mine: Facts, theirs: Open) {
        let known = &self.replicas[&key.0];
        let session = self.sessions.get_mut(&key).expect("the session is opening");
        if Scope::of(&known.rights.readable(&key.1, self.io.now.wall)) != session.scope {
            // While the opening was under way the peer's right has ended, or has become another.
            return self.end_by_rights(key);
        }
        let counts = (mine.root.count, theirs.root.count);
        if let Some(expiry) = known.rights.next_expiry(&key.1, self.io.now.wall) {
            let left = Duration::from_micros(expiry.0.saturating_sub(self.io.now.wall.0));
            session.rights_end = self.io.now.elapsed.saturating_add(left);
        }
        session.readable = Scope::of(&known.rights.readable(&self.me, self.io.now.wall));
        if session.role == Role::Dialer
            && let Some(peer) = self.peers.get_mut(&key.1)
        {
            peer.admits.insert(key.0);
        }
        self.io.event(Event::SyncStarted { replica: key.0, peer: key.1, counts });
        let job = self.jobs.get_mut(&key);
        let rewound = job.as_ref().and_then(|job| job.rewound);
        let incarnation = match self.links.get(&session.connection).map(|link| &link.phase) {
            Some(LinkPhase::Established { incarnation, .. }) => *incarnation,
            _ => 0,
        };
        let effects = session.begin(&mut self.io, mine, &theirs, known, (rewound, incarnation));
        if let Some(job) = job {
            // Who says a position behind the grants has all of it; a copy of its store may come back and say an older one.
            let is_past =
                |at: Position| theirs.have.is_some_and(|(store, have)| store == self.config.store && have >= at);
            job.rewound = session.rewound.or(job.rewound.filter(|rewound| !is_past(rewound.granted)));
            job.attempts = 0;
            job.show_credentials = false;
            if job.record.last_error.take().is_some() {
                self.job_changed(key);
            }
        }
        self.effects(key, effects);
    }

    /// Hears what came while the peer's credentials were admitted.
    fn catch_up(&mut self, key: JobKey) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let serial = session.serial;
        for (message, len) in session.take_held_back() {
            let Some(session) = self.sessions.get_mut(&key).filter(|session| session.serial == serial) else { return };
            let effects = session.receive(&mut self.io, &self.replicas[&key.0], message, len);
            self.effects(key, effects);
        }
    }

    pub(super) fn effects(&mut self, key: JobKey, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Synced => {
                    self.io.event(Event::Synced { replica: key.0, peer: key.1 });
                    let wall = self.io.now.wall;
                    if let Some(job) = self.jobs.get_mut(&key) {
                        job.record.last_synced = Some(wall);
                        job.early = 0;
                        job.trouble = None;
                    }
                    self.job_changed(key);
                }
                Effect::Received(store, position) => {
                    if let Some(job) = self.jobs.get_mut(&key)
                        && job.record.received != Some((store, position))
                    {
                        job.record.received = Some((store, position));
                        self.job_changed(key);
                    }
                }
                Effect::Confirmed(position) => {
                    let Some(job) = self.jobs.get_mut(&key) else { continue };
                    let is_rewound = self.sessions.get(&key).is_some_and(|session| session.rewound.is_some());
                    if let Some(rewound) = job.rewound.as_mut().filter(|_| is_rewound) {
                        rewound.confirmed = position;
                    }
                    if job.record.confirmed != position.0 {
                        job.record.confirmed = position.0;
                        self.job_changed(key);
                    }
                }
                Effect::Early(count) => {
                    if let Some(job) = self.jobs.get_mut(&key) {
                        job.trouble.get_or_insert(self.io.now.wall);
                        job.early = count;
                        job.show_credentials = true;
                    }
                    // It shows its own credentials to whoever shows some.
                    if let Some(peer) = self.peers.get_mut(&key.1) {
                        peer.admits.remove(&key.0);
                    }
                }
                Effect::Refused(refused) => {
                    if let Some(job) = self.jobs.get_mut(&key) {
                        job.trouble.get_or_insert(self.io.now.wall);
                        job.refused += refused.count;
                    }
                    if let Some((_, reason)) = refused.entries.first() {
                        let (entries, reason) = (refused.count, *reason);
                        self.io.event(Event::Refused { replica: key.0, peer: key.1, entries, reason });
                    }
                }
                Effect::Violation(what) => {
                    let Some(connection) = self.sessions.get(&key).map(|session| session.connection) else { return };
                    return self.violation(connection, &what);
                }
            }
        }
    }

    pub(super) fn stream_ended(&mut self, connection: ConnectionId, stream: StreamId, error: Option<String>) {
        let Some(used) = self.streams.remove(&(connection, stream)) else { return };
        match used {
            StreamUse::Control => {
                let reason = error.unwrap_or_else(|| "the peer has ended the connection".into());
                self.io.put(Output::Disconnect { connection, reason: DisconnectReason::Done });
                self.disconnected(connection, reason);
            }
            StreamUse::Fresh(_) => self.io.put(Output::CloseStream { connection, stream }),
            StreamUse::Session(replica, peer, serial) => {
                let key = (replica, peer);
                if self.sessions.get(&key).is_some_and(|session| session.serial == serial) {
                    self.session_lost(key, error.as_deref().unwrap_or("the peer ended the session"));
                }
                self.io.put(Output::CloseStream { connection, stream });
            }
        }
    }

    /// Removes a session without a word about it.
    fn forget_session(&mut self, key: JobKey) {
        let Some(session) = self.sessions.remove(&key) else { return };
        let total = self.traffic.entry(key).or_default();
        total.add(&session.traffic);
        if let Some(job) = self.jobs.get_mut(&key) {
            job.narrow = session.narrow_next();
        }
        if let Some(stream) = session.stream
            && self.streams.remove(&(session.connection, stream)).is_some()
        {
            self.io.put(Output::CloseStream { connection: session.connection, stream });
        }
        self.drain(key, session);
    }

    /// A session ended through no decision of ours: its job goes on after a while.
    pub(super) fn session_lost(&mut self, key: JobKey, reason: &str) {
        let Some(session) = self.sessions.get(&key) else { return };
        let unfinished = !session.synced;
        self.forget_session(key);
        if unfinished {
            self.io.event(Event::SyncFailed { replica: key.0, peer: key.1, reason: reason.into() });
        }
        if let Some(job) = self.jobs.get_mut(&key) {
            job.trouble.get_or_insert(self.io.now.wall);
            job.next_open = self.io.now.elapsed + backoff(&mut self.io.random, job.attempts.min(3));
            job.attempts = job.attempts.saturating_add(1);
            job.record.last_error = Some(reason.into());
            self.job_changed(key);
        }
    }

    /// Ends a session because of something here.
    pub(super) fn end_session(&mut self, key: JobKey, reason: &str) {
        self.session_lost(key, reason);
    }

    /// Ends a session; one that the peer has asked for, and that it was not answered yet, with a refusal.
    pub(super) fn end_asked(&mut self, key: JobKey, reason: &str) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if let (Phase::Preparing(Some(_)), Some(stream)) = (&session.phase, session.stream) {
            let connection = session.connection;
            self.sessions.remove(&key);
            return self.refuse(connection, stream, Refusal::NotAvailable);
        }
        session.abandon();
        self.end_session(key, reason);
    }

    /// Ends a session because the peer may see more or less than when it began. Told even when all was equal.
    fn end_by_rights(&mut self, key: JobKey) {
        let reason = "the peer's rights have changed";
        let told = self.sessions.get(&key).is_none_or(|session| !session.synced);
        self.end_session(key, reason);
        if !told {
            self.io.event(Event::SyncFailed { replica: key.0, peer: key.1, reason: reason.into() });
        }
    }

    /// Rights of a replica have changed: sessions whose peers see more or less now begin anew.
    pub(super) fn rights_changed(&mut self, replica: ReplicaId) {
        let rights = self.replicas[&replica].rights.clone();
        let wall = self.io.now.wall;
        let readable = Scope::of(&rights.readable(&self.me, wall));
        let peers = (replica, PeerId::from([0; 32]))..=(replica, PeerId::from([255; 32]));
        for (_, session) in self.sessions.range_mut(peers) {
            session.readable = readable.clone();
        }
        let changed: Vec<JobKey> = self
            .sessions
            .iter()
            .filter(|(key, session)| {
                key.0 == replica && session.is_live() && Scope::of(&rights.readable(&key.1, wall)) != session.scope
            })
            .map(|(key, _)| *key)
            .collect();
        for key in changed {
            self.end_by_rights(key);
            if let Some(job) = self.jobs.get_mut(&key) {
                job.next_open = self.io.now.elapsed;
            }
        }
    }

    /// What was ever moved for a job, in this run.
    pub(super) fn traffic_of(&self, key: JobKey) -> Traffic {
        let mut total = self.traffic.get(&key).copied().unwrap_or_default();
        if let Some(session) = self.sessions.get(&key) {
            total.add(&session.traffic);
        }
        total
    }

    /// Begins a session anew at once, so that the peer offers again what was ahead of our clock.
    fn offer_again(&mut self, key: JobKey) {
        self.end_session(key, "entries of the peer are ahead of this device's clock");
        if let Some(job) = self.jobs.get_mut(&key) {
            job.next_open = self.io.now.elapsed;
        }
    }

    /// Begins a session anew at once in which only the peer gives: by a reconciliation, or by the log of this store from
    /// its beginning.
    fn take_anew(&mut self, key: JobKey, from_start: Option<StoreId>) {
        self.begin_anew(key, "the session did not bring everything");
        if let Some(job) = self.jobs.get_mut(&key) {
            job.record.received = from_start.map(|store| (store, Position(0)));
            self.job_changed(key);
        }
    }

    /// Compares roots of idle sessions so often from now on.
    pub(super) fn check_every(&mut self, interval: Duration) {
        self.io.check_interval = interval;
        for session in self.sessions.values_mut() {
            session.check_within(self.io.now.elapsed + interval);
        }
    }

    /// Makes an open session compare roots now. False when there is none to do so.
    pub(super) fn compare_now(&mut self, key: JobKey) -> bool {
        let (Some(session), Some(known)) = (self.sessions.get_mut(&key), self.replicas.get(&key.0)) else {
            return false;
        };
        if session.is_live() && session.needs_another() {
            self.offer_again(key);
            return true;
        }
        if session.is_live() && session.could_ask {
            self.begin_anew(key, "the peer only sends what is asked for");
            return true;
        }
        if session.is_live() && session.is_one_way() && !session.synced && !session.is_busy() {
            // Between roots that differ nobody answers a mark.
            self.begin_anew(key, "the application asks anew");
            return true;
        }
        if session.is_live() && !session.is_busy() {
            session.synced = false;
            session.check(&mut self.io, known);
            return true;
        }
        false
    }
}
