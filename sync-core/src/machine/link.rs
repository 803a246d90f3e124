//! Links: connections on their way to, and after, the signed handshake.

use std::time::Duration;

use bytes::Bytes;

use super::{handshake::Role, io::*, limits::*};
use crate::{address::PeerAddress, model::PeerId};

/// How far a link is.
#[derive(Debug)]
pub(super) enum LinkPhase {
    /// Nothing but the handshake goes over it.
    Handshake {
        /// Our hello, once it is sent.
        ours: Option<Bytes>,
        /// Theirs, once it came.
        theirs: Option<(Bytes, super::wire::Hello)>,
        deadline: Duration,
    },
    /// We know who it is.
    Established {
        /// The peer.
        peer: PeerId,
        /// Since when.
        since: Duration,
        /// Its run: another after each start.
        incarnation: u64,
    },
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub role: Role,
    pub transport: String,
    pub binding: [u8; 32],
    pub address: Option<PeerAddress>,
    pub dial: Option<DialId>,
    pub expected: Option<PeerId>,
    pub phase: LinkPhase,
    pub control: Option<StreamId>,
    pub heard: Duration,
    pub pinged: Duration,
    pub active_since: Duration,
    pub active_until: Duration,
}

impl Link {
    /// When the link needs to be looked at next.
    pub fn timeout(&self, now: Duration) -> Duration {
        match &self.phase {
            LinkPhase::Handshake { deadline, .. } => *deadline,
            LinkPhase::Established { .. } => {
                (self.pinged + self.ping_every(now)).min(self.heard.max(self.active_since) + self.silence(now))
            }
        }
    }

    /// How often it is pinged.
    pub fn ping_every(&self, now: Duration) -> Duration {
        if self.is_active(now) { PING_ACTIVE } else { PING_IDLE }
    }

    /// For how long nothing may be heard.
    pub fn silence(&self, now: Duration) -> Duration {
        if self.is_active(now) { SILENCE_ACTIVE } else { SILENCE_IDLE }
    }

    /// Whether nothing was heard for too long.
    pub fn is_silent(&self, now: Duration) -> bool {
        now >= self.heard.max(self.active_since) + self.silence(now)
    }

    fn is_active(&self, now: Duration) -> bool {
        self.active_until > now
    }

    /// Something goes over the link that is not a ping.
    pub fn touch(&mut self, now: Duration) {
        if !self.is_active(now) {
            // An idle peer was pinged seldom: its silence counts from here.
            self.active_since = now;
        }
        self.active_until = now + ACTIVE_FOR;
    }
}
