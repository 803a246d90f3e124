//! The machine's part about links: the handshake, pings, and what happens when one ends.

use bytes::Bytes;

use super::{
    handshake::{Role, Transcript, common_version},
    io::*,
    limits::*,
    link::{Link, LinkPhase},
    peer::backoff,
    synchronizer::{StreamUse, Synchronizer},
    wire::{Hello, Message, OLDEST_VERSION, Proof, StreamKind, VERSION},
};
use crate::{
    canary::{self, Canary},
    model::PeerId,
};

impl Synchronizer {
    pub(super) fn connected(
        &mut self,
        connection: ConnectionId,
        dial: Option<DialId>,
        transport: String,
        binding: [u8; 32],
    ) {
        let now = self.io.now.elapsed;
        let dialed = match dial {
            Some(dial) => match self.dials.get(&dial) {
                Some(dialed) => Some(dialed),
                None => {
                    // The attempt was given up meanwhile.
                    self.io.put(Output::Disconnect { connection, reason: DisconnectReason::Duplicate });
                    return;
                }
            },
            None => None,
        };
        if self.stopping {
            self.io.put(Output::Disconnect { connection, reason: DisconnectReason::Done });
            return;
        }
        let role = if dial.is_some() { Role::Dialer } else { Role::Acceptor };
        let mut link = Link {
            role,
            transport,
            binding,
            address: dialed.map(|dialed| dialed.address.clone()),
            expected: dialed.and_then(|dialed| dialed.peer),
            dial,
            phase: LinkPhase::Handshake { ours: None, theirs: None, deadline: now + HANDSHAKE_DEADLINE },
            control: None,
            heard: now,
            pinged: now,
            active_since: now,
            active_until: now + ACTIVE_FOR,
        };
        if role == Role::Dialer {
            let stream = self.io.stream();
            self.io.put(Output::OpenStream { connection, stream, kind: StreamKind::Control });
            self.streams.insert((connection, stream), StreamUse::Control);
            link.control = Some(stream);
        }
        self.links.insert(connection, link);
        if role == Role::Dialer {
            self.send_hello(connection);
        }
    }

    fn send_hello(&mut self, connection: ConnectionId) {
        let hello = Message::Hello(Hello {
            oldest: OLDEST_VERSION,
            newest: VERSION,
            peer: self.me,
            store: self.config.store,
            incarnation: self.config.incarnation,
            nonce: self.io.random.bytes(),
            addresses: self.addresses.iter().take(MAX_ADDRESSES).cloned().collect(),
        })
        .encode();
        let link = self.links.get_mut(&connection).expect("the link is shaking hands");
        if let LinkPhase::Handshake { ours, .. } = &mut link.phase {
            *ours = Some(hello.clone());
        }
        let control = link.control.expect("the control stream is open");
        self.io.send(connection, control, hello);
    }

    pub(super) fn stream_accepted(&mut self, connection: ConnectionId, stream: StreamId, kind: StreamKind) {
        let now = self.io.now.elapsed;
        let Some(link) = self.links.get_mut(&connection) else { return };
        match (&link.phase, kind) {
            (LinkPhase::Handshake { .. }, StreamKind::Control)
                if link.role == Role::Acceptor && link.control.is_none() =>
            {
                link.control = Some(stream);
                self.streams.insert((connection, stream), StreamUse::Control);
            }
            (LinkPhase::Established { .. }, StreamKind::Session) => {
                if self.streams_of(connection).len() > self.io.limits.sessions {
                    self.io.put(Output::CloseStream { connection, stream });
                    return;
                }
                self.streams.insert((connection, stream), StreamUse::Fresh(now + HANDSHAKE_DEADLINE));
            }
            // The driver serves content; it asks the store for rights itself.
            (LinkPhase::Established { .. }, StreamKind::Content) => {}
            (LinkPhase::Handshake { .. } | LinkPhase::Established { .. }, _) => {
                self.violation(connection, "a stream out of turn");
            }
        }
    }

    pub(super) fn frame(&mut self, connection: ConnectionId, stream: StreamId, frame: Bytes) {
        let now = self.io.now.elapsed;
        let Some(link) = self.links.get_mut(&connection) else { return };
        link.heard = now;
        let Some(&used) = self.streams.get(&(connection, stream)) else { return };
        let len = frame.len();
        let message = match Message::decode(frame.clone()) {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => return self.violation(connection, &error.to_string()),
        };
        match used {
            StreamUse::Control => self.control(connection, message, frame),
            StreamUse::Fresh(_) => {
                link.touch(now);
                self.session_asked(connection, stream, message, len);
            }
            StreamUse::Session(replica, peer, serial) => {
                link.touch(now);
                self.session_message((replica, peer), serial, message, len);
            }
        }
    }

    fn control(&mut self, connection: ConnectionId, message: Message, frame: Bytes) {
        let link = self.links.get_mut(&connection).expect("the caller has looked it up");
        let control = link.control.expect("a control message came over it");
        match (message, &mut link.phase) {
            (Message::Hello(hello), LinkPhase::Handshake { ours, theirs, .. })
                if theirs.is_none() && ours.is_some() == (link.role == Role::Dialer) =>
            {
                if hello.peer == self.me {
                    return self.link_failed(
                        connection,
                        DialFailure::Refused,
                        "this address leads to this node itself",
                    );
                }
                if common_version((OLDEST_VERSION, VERSION), &hello).is_none() {
                    if link.role == Role::Acceptor {
                        // It learns from this node's hello what is wrong, and closes.
                        return self.send_hello(connection);
                    }
                    let error = format!(
                        "it speaks versions {} to {} of the protocol, this node {OLDEST_VERSION} to {VERSION}: update the older",
                        hello.oldest, hello.newest
                    );
                    self.links_refused += 1;
                    self.io.put(Output::Disconnect { connection, reason: DisconnectReason::Refused });
                    return self.link_ended(connection, DialFailure::Version, error);
                }
                *theirs = Some((frame, hello));
                if link.role == Role::Acceptor {
                    self.send_hello(connection);
                }
                let link = &self.links[&connection];
                let transcript = transcript(link).expect("both hellos are there");
                let proof = transcript.prove(&self.config.key, link.role);
                self.io.send(connection, control, Message::Proof(proof).encode());
            }
            (Message::Proof(proof), LinkPhase::Handshake { theirs: Some(_), .. }) => self.proved(connection, proof),
            (Message::Ping(number), LinkPhase::Established { .. }) => {
                self.io.send(connection, control, Message::Pong(number).encode());
            }
            (Message::Pong(_), LinkPhase::Established { .. }) => {}
            (message, LinkPhase::Handshake { .. } | LinkPhase::Established { .. }) => {
                self.violation(connection, &format!("an unexpected {} on the control stream", message.name()));
            }
        }
    }

    /// The peer has sent its proof: it is who it says, or the connection ends.
    fn proved(&mut self, connection: ConnectionId, proof: Proof) {
        let now = self.io.now;
        let link = &self.links[&connection];
        let (Some(transcript), LinkPhase::Handshake { theirs: Some((_, hello)), .. }) = (transcript(link), &link.phase)
        else {
            return self.violation(connection, "a proof before the hellos");
        };
        let hello = hello.clone();
        let id = hello.peer;
        if !transcript.verify(&id, link.role.other(), &proof) {
            return self.link_failed(connection, DialFailure::Refused, "its handshake proof is not valid");
        }
        if let Some(expected) = link.expected.filter(|expected| *expected != id) {
            let reason = format!("another node ({}) than {} answers", id.short(), expected.short());
            return self.link_failed(connection, DialFailure::Refused, &reason);
        }
        let asked = link.dial.is_some_and(|dial| self.asks.iter().any(|ask| ask.dial == Some(dial)));
        let peer = self.peers.entry(id).or_default();
        if asked {
            // The application wants whoever answers there.
            peer.welcome();
        }
        if let Some(refused) = peer.refused() {
            return self.link_failed(connection, DialFailure::Refused, refused);
        }
        if peer.links.len() >= MAX_LINKS {
            self.io.put(Output::Disconnect { connection, reason: DisconnectReason::Duplicate });
            return self.disconnected(connection, "there are enough links to this peer".into());
        }
        let link = self.links.get_mut(&connection).expect("the link is shaking hands");
        link.phase = LinkPhase::Established { peer: id, since: now.elapsed, incarnation: hello.incarnation };
        let role = link.role;
        let transport = link.transport.clone();
        let mut save = peer.claim(&hello.addresses);
        if let Some(address) = &link.address {
            save |= peer.worked(address, now);
        }
        peer.last_error = None;
        peer.links.push(connection);
        let first = peer.links.len() == 1;
        if let Some(dial) = link.dial {
            self.dials.remove(&dial);
            if let Some(race) = &mut peer.race {
                race.dialing.remove(&dial);
            }
            for ask in &mut self.asks {
                if ask.dial == Some(dial) {
                    ask.dial = None;
                    ask.target = Target::Peer(id);
                }
            }
        }
        self.end_race(id);
        if save && self.is_kept(id) {
            self.save_peer(id);
        }
        self.io.put(Output::Admit { connection, peer: id });
        if first {
            self.io.event(Event::PeerUp { peer: id, transport });
        }
        // Whoever asked by an address wants the replica from whoever answered.
        let wanted: Vec<_> =
            self.asks.iter().filter(|ask| ask.target == Target::Peer(id)).map(|ask| ask.replica).collect();
        for replica in wanted {
            self.subscribe(replica, id);
        }
        self.wake_peer(id);
        let keys: Vec<_> = self.jobs.keys().filter(|key| key.1 == id).copied().collect();
        for key in keys {
            let job = self.jobs.get_mut(&key).expect("the job was just listed");
            // The dialer opens; the other side gives it a moment before it does so too.
            job.next_open = if role == Role::Dialer { now.elapsed } else { now.elapsed + PING_ACTIVE };
            job.attempts = 0;
        }
    }

    /// The peer broke the protocol: its link ends, nothing else.
    pub(super) fn violation(&mut self, connection: ConnectionId, what: &str) {
        self.links_refused += 1;
        self.io.put(Output::Disconnect { connection, reason: DisconnectReason::Protocol });
        self.disconnected(connection, format!("the peer broke the protocol: {what}"));
    }

    fn link_failed(&mut self, connection: ConnectionId, why: DialFailure, reason: &str) {
        self.links_refused += 1;
        self.io.put(Output::Disconnect { connection, reason: DisconnectReason::Refused });
        self.link_ended(connection, why, reason.into());
    }

    pub(super) fn disconnected(&mut self, connection: ConnectionId, reason: String) {
        self.link_ended(connection, DialFailure::Broken, reason);
    }

    fn link_ended(&mut self, connection: ConnectionId, why: DialFailure, reason: String) {
        let Some(link) = self.links.remove(&connection) else { return };
        for key in self.streams_of(connection) {
            self.streams.remove(&key);
        }
        match link.phase {
            LinkPhase::Handshake { .. } => {
                if let Some(dial) = link.dial {
                    self.dial_failed(dial, why, reason);
                }
            }
            LinkPhase::Established { peer: id, since, .. } => {
                let now = self.io.now.elapsed;
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.links.retain(|other| *other != connection);
                    if peer.links.is_empty() {
                        // It may come back with another store.
                        peer.admits.clear();
                        peer.last_error = Some((why, reason.clone()));
                        // A link that lasted is made again at once. One that the peer ends each time as
                        // soon as it is up, because we are blocked there, say, is not.
                        peer.attempts = if now >= since + LINK_SETTLED || canary::is_out(Canary::DialAgainAtOnce) {
                            0
                        } else {
                            peer.attempts + 1
                        };
                        peer.next_try = match peer.attempts {
                            0 | 1 => now,
                            attempts => now + backoff(&mut self.io.random, attempts - 2),
                        };
                        self.io.event(Event::PeerDown { peer: id });
                    }
                    self.forget_stranger(id);
                }
                let keys: Vec<_> = self
                    .sessions
                    .iter()
                    .filter(|(key, session)| key.1 == id && session.connection == connection)
                    .map(|(key, _)| *key)
                    .collect();
                for key in keys {
                    self.session_lost(key, &reason);
                    // Another link, if there is one, goes on at once.
                    if let Some(job) = self.jobs.get_mut(&key) {
                        job.next_open = now;
                    }
                }
            }
        }
    }

    fn streams_of(&self, connection: ConnectionId) -> Vec<(ConnectionId, StreamId)> {
        let all = (connection, StreamId(0))..=(connection, StreamId(u64::MAX));
        self.streams.range(all).map(|(key, _)| *key).collect()
    }

    /// Whether something is under way in a session on the link.
    fn is_busy(&self, connection: ConnectionId) -> bool {
        let all = (connection, StreamId(0))..=(connection, StreamId(u64::MAX));
        self.streams.range(all).any(|(_, used)| match used {
            StreamUse::Session(replica, peer, _) => {
                self.sessions.get(&(*replica, *peer)).is_some_and(|session| session.is_busy())
            }
            StreamUse::Control | StreamUse::Fresh(_) => false,
        })
    }

    /// Pings, deadlines, and links that fell silent.
    pub(super) fn drive_links(&mut self) {
        let now = self.io.now.elapsed;
        for connection in self.links.due(now) {
            let busy = self.is_busy(connection);
            let number = self.io.number();
            let Some(link) = self.links.get_mut(&connection) else { continue };
            if busy {
                link.touch(now);
            }
            if link.timeout(now) > now {
                continue;
            }
            match link.phase {
                LinkPhase::Handshake { .. } => {
                    self.link_failed(connection, DialFailure::TimedOut, "the handshake took too long");
                }
                LinkPhase::Established { .. } if link.is_silent(now) => {
                    self.io.put(Output::Disconnect { connection, reason: DisconnectReason::Silent });
                    self.disconnected(connection, "nothing was heard from the peer".into());
                }
                LinkPhase::Established { .. } => {
                    link.pinged = now;
                    let control = link.control.expect("an established link has a control stream");
                    self.io.send(connection, control, Message::Ping(number).encode());
                }
            }
        }
    }
}

fn transcript(link: &Link) -> Option<Transcript> {
    let LinkPhase::Handshake { ours: Some(ours), theirs: Some((theirs, _)), .. } = &link.phase else { return None };
    let (dialer, acceptor) = match link.role {
        Role::Dialer => (ours.clone(), theirs.clone()),
        Role::Acceptor => (theirs.clone(), ours.clone()),
    };
    Some(Transcript { dialer, acceptor, binding: link.binding })
}

/// A peer, for `Event` and status.
impl Synchronizer {
    /// The peer at the other end of a connection, once it has proved itself.
    pub fn peer_of(&self, connection: ConnectionId) -> Option<PeerId> {
        match self.links.get(&connection)?.phase {
            LinkPhase::Established { peer, .. } => Some(peer),
            LinkPhase::Handshake { .. } => None,
        }
    }
}
