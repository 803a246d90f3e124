//! Peers: where they are, which links lead to them, and when to dial again.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{io::*, limits::*};
use crate::{
    address::PeerAddress,
    canary::{self, Canary},
    model::{ReplicaId, Timestamp},
    store::Position,
};

/// How many addresses are remembered of a peer; the ones that never worked go first.
const MAX_KNOWN_ADDRESSES: usize = 32;

/// Whether the application wants to have to do with a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Standing {
    /// It may link.
    #[default]
    Welcome,
    /// Its links are refused until the block is taken back.
    Blocked,
    /// It was removed: nothing else is known of it, and its links are refused until it is added again.
    Removed,
}

/// What is saved of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PeerRecord {
    pub name: String,
    pub standing: Standing,
    pub addresses: Vec<KnownAddress>,
}

/// An address of a peer, and what we know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownAddress {
    pub address: PeerAddress,
    /// Whether the application or a ticket gave it. Claims of the peer itself come and go.
    pub given: bool,
    /// When a dial there last succeeded.
    pub worked: Option<Timestamp>,
    /// Why the last dial there failed.
    #[serde(skip)]
    pub error: Option<String>,
}

/// A race of dials over a peer's addresses (RFC 8305).
#[derive(Debug)]
pub(super) struct Race {
    pub queue: VecDeque<PeerAddress>,
    pub dialing: BTreeSet<DialId>,
    pub next_at: Duration,
    /// Why each address failed.
    pub errors: Vec<(DialFailure, String)>,
    /// Something has changed since it began: if it fails, another follows at once.
    pub again: bool,
}

/// A peer.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub record: PeerRecord,
    /// Established links, the one in use first.
    pub links: Vec<ConnectionId>,
    /// The replicas of which it knows what this node may do: it was shown, or let this node in, over these links.
    pub admits: BTreeSet<ReplicaId>,
    pub race: Option<Race>,
    /// Failed races since the last success.
    pub attempts: u32,
    pub next_try: Duration,
    pub last_error: Option<(DialFailure, String)>,
}

impl DialFailure {
    /// Whether it stays so however often it is tried.
    pub(super) fn parked(self) -> Option<Parked> {
        match self {
            Self::NoTransport | Self::Malformed => Some(Parked::NoWay),
            Self::Version => Some(Parked::Version),
            Self::Unreachable | Self::Refused | Self::TimedOut | Self::Broken => None,
        }
    }
}

impl Race {
    /// What it came to: the error to be told, and whether all of them are permanent.
    pub fn verdict(self) -> ((DialFailure, String), Option<Parked>) {
        let parked = match self.errors.iter().all(|(why, _)| why.parked().is_some()) {
            true => self.errors.iter().filter_map(|(why, _)| why.parked()).min(),
            false => None,
        };
        let told = self.errors.into_iter().find(|(why, _)| parked.is_none() || why.parked() == parked);
        (told.unwrap_or_else(|| (DialFailure::Unreachable, "no address is known".into())), parked)
    }
}

impl Peer {
    /// Why its links are refused, if they are.
    pub fn refused(&self) -> Option<&'static str> {
        match self.record.standing {
            Standing::Welcome => None,
            Standing::Blocked => Some("the peer is blocked here"),
            Standing::Removed => Some("the peer was removed here"),
        }
    }

    /// When it is to be dialled, or the race for it goes on; `wanted` when some job needs a link to it.
    pub fn deadline(&self, wanted: bool) -> Duration {
        if !self.links.is_empty() || self.refused().is_some() {
            return Duration::MAX;
        }
        match &self.race {
            Some(race) if race.dialing.is_empty() => Duration::ZERO,
            Some(race) if race.queue.is_empty() => Duration::MAX,
            Some(race) => race.next_at,
            None if self.record.addresses.is_empty() || !wanted => Duration::MAX,
            None => self.next_try,
        }
    }

    /// Takes back that it was removed. Answers whether it was.
    pub fn welcome(&mut self) -> bool {
        let removed = self.record.standing == Standing::Removed;
        if removed {
            self.record.standing = Standing::Welcome;
        }
        removed
    }

    /// Dials again at once, by all addresses.
    pub fn try_now(&mut self, now: Duration) {
        self.attempts = 0;
        self.next_try = now;
        if let Some(race) = &mut self.race {
            race.again = true;
        }
    }

    pub fn give(&mut self, addresses: impl IntoIterator<Item = PeerAddress>, given: bool) -> bool {
        let mut changed = false;
        for address in addresses {
            match self.record.addresses.iter_mut().find(|known| known.address == address) {
                Some(known) => {
                    changed |= given && !known.given;
                    known.given |= given;
                }
                None => {
                    self.record.addresses.push(KnownAddress { address, given, worked: None, error: None });
                    changed = true;
                }
            }
        }
        if self.record.addresses.len() > MAX_KNOWN_ADDRESSES {
            self.record.addresses.sort_by_key(|known| std::cmp::Reverse((known.worked, known.given)));
            self.record.addresses.truncate(MAX_KNOWN_ADDRESSES);
        }
        changed
    }

    /// What the peer says about itself replaces what it said before; what has worked stays.
    pub fn claim(&mut self, claims: &[PeerAddress]) -> bool {
        let before = self.record.addresses.clone();
        self.record.addresses.retain(|known| known.given || known.worked.is_some() || claims.contains(&known.address));
        self.give(claims.iter().cloned(), false);
        self.record.addresses != before
    }

    /// The addresses in the order in which they are tried: what worked last comes first.
    pub fn ranked(&self) -> VecDeque<PeerAddress> {
        let mut known: Vec<_> = self.record.addresses.iter().collect();
        known.sort_by_key(|known| std::cmp::Reverse((known.worked, known.given)));
        known.into_iter().map(|known| known.address.clone()).collect()
    }

    pub fn worked(&mut self, address: &PeerAddress, now: Now) -> bool {
        self.last_error = None;
        self.give([address.clone()], false);
        for known in &mut self.record.addresses {
            if known.address == *address {
                known.error = None;
                // Coarse, so that reconnecting does not write every time.
                if known.worked.is_none_or(|worked| worked.plus(Duration::from_secs(600)) < now.wall) {
                    known.worked = Some(now.wall);
                    return true;
                }
            }
        }
        false
    }

    pub fn failed(&mut self, address: &PeerAddress, error: &str) {
        for known in &mut self.record.addresses {
            if known.address == *address {
                known.error = Some(error.into());
            }
        }
    }
}

/// The delay before attempt number `attempts` + 1: exponential, with full jitter (Brooker 2015).
pub(super) fn backoff(random: &mut super::random::Random, attempts: u32) -> Duration {
    if canary::is_out(Canary::RetryWithoutBackoff) {
        return Duration::ZERO;
    }
    let ceiling = BACKOFF_MIN.saturating_mul(1 << attempts.min(16)).min(BACKOFF_MAX);
    // A tenth of the first delay at least, so that jitter never means at once.
    BACKOFF_MIN / 10 + Duration::from_micros(random.below(ceiling.as_micros() as u64))
}

/// What is saved of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JobRecord {
    /// Up to where the peer has our log.
    pub confirmed: u64,
    /// Up to where we have its log.
    pub received: Option<(crate::store::StoreId, Position)>,
    /// When roots were last equal.
    pub last_synced: Option<Timestamp>,
    /// Why the last try failed.
    pub last_error: Option<String>,
    /// Trying again does not help until something changes.
    pub parked: Option<Parked>,
}

/// Why a job is parked: a permanent error, which left the schedule of retries. It is tried again when something
/// happens that could change the answer, and as often as idle sessions compare roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Parked {
    /// The peer does not have the replica, or not for this node, though it was shown credentials.
    Refused,
    /// No version of the protocol is common.
    Version,
    /// No registered transport can dial any address of the peer.
    NoWay,
}

/// The obligation that a peer must have what a replica has.
#[derive(Debug, Default)]
pub(super) struct Job {
    pub record: JobRecord,
    /// Not before this is a session opened.
    pub next_open: Duration,
    pub attempts: u32,
    /// How much smaller frames of entries are: see [`MAX_NARROW`].
    pub narrow: u32,
    /// How far the peer is with the log that is sent to it once more.
    pub rewound: Option<Rewound>,
    /// Show credentials in the next opening.
    pub show_credentials: bool,
    /// Since when something keeps it from being done; none while all is equal.
    pub trouble: Option<Timestamp>,
    /// Entries that the peer did not accept.
    pub refused: u64,
    /// Entries of the peer that are ahead of our clock, as of the last batch that had any.
    pub early: u64,
}

/// The log is sent from its beginning to a peer that came to read some of it by a grant that stands behind the peer's
/// position: how far that has come, in this run. The position must not be taken for one of before, nor the other way
/// round, or a connection that never lives long enough for the whole log would begin it anew for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rewound {
    /// Where in our log the grants stand.
    pub granted: Position,
    /// The run of the peer in which it was at `from`: as long as that lasts, another position is one of since.
    pub incarnation: u64,
    /// The head of the peer's own log then.
    pub head: Position,
    /// Where it was.
    pub from: Position,
    /// From where our log was sent then.
    pub began: Position,
    /// Up to where it has confirmed the log since.
    pub confirmed: Position,
}

impl Rewound {
    /// From where the log is to be sent to a peer at `position`, in this run and with this head, by what is known of it.
    pub fn start(before: Option<Self>, granted: Position, at: (u64, Position), position: Position) -> Position {
        let (incarnation, head) = at;
        // Who has taken something in since has a longer log; a store that comes back from a copy has not, and counts its
        // runs from there again. Who had all that was sent has the log of then, and says how far it has come: in the same run
        // no less than it has confirmed, after a start no more.
        let has_come = |it: &Self| {
            let has_moved = match incarnation.cmp(&it.incarnation) {
                Ordering::Less => false,
                Ordering::Equal => position >= it.confirmed,
                Ordering::Greater => (it.began..=it.confirmed).contains(&position),
            };
            it.confirmed <= it.began || position != it.from && has_moved
        };
        let is_kept = |it: &Self| head > it.head && incarnation >= it.incarnation || head == it.head && has_come(it);
        match before.filter(|before| before.granted == granted && is_kept(before)) {
            Some(before) if before.incarnation == incarnation && before.from != position => position,
            Some(before) => before.confirmed.min(position),
            None => Position(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_of_before_is_none_for_who_may_read_more() {
        let rewound = |incarnation, from, confirmed| {
            let (from, confirmed, granted) = (Position(from), Position(confirmed), Position(900));
            Some(Rewound { granted, incarnation, head: Position(5), from, began: Position(0), confirmed })
        };
        let start = |before, granted, incarnation, position| {
            Rewound::start(before, Position(granted), (incarnation, Position(6)), Position(position)).0
        };
        assert_eq!(start(None, 900, 1, 700), 0);
        assert_eq!(start(rewound(1, 700, 0), 900, 1, 700), 0, "nothing has come");
        assert_eq!(start(rewound(1, 700, 50), 900, 1, 60), 60, "it has come, and what said so has not");
        assert_eq!(start(rewound(1, 700, 50), 900, 2, 60), 50, "it may be one of before by then");
        assert_eq!(start(rewound(1, 700, 50), 900, 2, 700), 50);
        assert_eq!(start(rewound(1, 700, 50), 900, 2, 40), 40, "what it has confirmed is durable");
        assert_eq!(start(rewound(1, 700, 50), 950, 1, 60), 0, "and may read still more");
        let head = |confirmed, head| {
            Rewound::start(rewound(1, 700, confirmed), Position(900), (2, Position(head)), Position(700)).0
        };
        assert_eq!(head(800, 6), 700);
        assert_eq!(head(800, 5), 0, "it has confirmed what is not there: its store is a copy of before");
        assert_eq!(head(800, 4), 0);
        assert_eq!(head(0, 5), 0, "nothing has come yet");
        let known = |incarnation, position| {
            Rewound::start(rewound(2, 700, 500), Position(900), (incarnation, Position(5)), Position(position)).0
        };
        assert_eq!(known(2, 500), 500, "what has come it had already: its log is no longer");
        assert_eq!(known(2, 520), 520);
        assert_eq!(known(2, 400), 0, "it has confirmed more: it is a copy that was started as often");
        assert_eq!(known(1, 500), 0, "runs are counted again");
        assert_eq!(known(3, 500), 500, "and it was started again since");
        assert_eq!(known(3, 700), 0, "it did not save what it had confirmed, or is a copy of before");
        assert_eq!(known(3, 520), 0, "it has not confirmed that much");
        let grown = |incarnation| {
            Rewound::start(rewound(2, 700, 800), Position(900), (incarnation, Position(50)), Position(700)).0
        };
        assert_eq!((grown(3), grown(1)), (700, 0), "runs that are counted again are those of a copy");
    }

    #[test]
    fn the_backoff_grows_to_its_ceiling_with_full_jitter() {
        let mut random = super::super::random::Random::new([7; 32]);
        for attempts in 0..80 {
            let delay = backoff(&mut random, attempts);
            assert!(delay <= BACKOFF_MAX + BACKOFF_MIN / 10);
            assert!(delay >= BACKOFF_MIN / 10);
        }
        assert!((0..50).any(|_| backoff(&mut random, 10) > BACKOFF_MAX / 2));
        assert!((0..50).all(|_| backoff(&mut random, 0) <= BACKOFF_MIN * 2));
    }

    #[test]
    fn b46_what_worked_is_tried_first_and_claims_are_replaced() {
        let mut peer = Peer::default();
        let address = |text: &str| text.parse::<PeerAddress>().unwrap();
        peer.give([address("quic://192.0.2.1:1")], true);
        peer.claim(&[address("quic://192.0.2.2:2")]);
        peer.claim(&[address("quic://192.0.2.3:3")]);
        assert_eq!(peer.record.addresses.len(), 2);
        let now = Now { elapsed: Duration::ZERO, wall: Timestamp(5) };
        peer.worked(&address("quic://192.0.2.3:3"), now);
        assert_eq!(peer.ranked()[0], address("quic://192.0.2.3:3"));
    }
}
