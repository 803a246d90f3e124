//! One conversation with one peer about one replica: *live sync is catch-up that never ends*.
//!
//! After the opening, each side streams what the other's log position lacks and then tails its
//! change log. Without a valid position, or when the roots differ after all was streamed, a
//! reconciliation repairs the difference and ends in a valid position. Everything that goes out
//! is bounded by a window of unacknowledged entries; everything that comes in is verified and
//! applied in order, what waits together.

mod coded;
mod incoming;
mod outgoing;
mod repair;

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

use super::{
    direction::Direction,
    handshake::Role,
    io::*,
    limits::{Limits, STALL_DEADLINE, VERIFIED_LEN},
    out::Io,
    peer::Rewound,
    wire::{Mark, Message, Open, Ranges, RefusalReason, Refused, Solved, Symbols},
};
use crate::{
    canary::{self, Canary},
    model::{Digest, PeerId, ReplicaId, Rights, SlotKey, SlotRange, VerifiedBundle},
    store::{
        Claim, Missing, Position, Scope, StoreId,
        coded::{CodedSet, Symbol},
    },
};

/// What the machine knows of a replica.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub root: Digest,
    pub head: Position,
    pub rights: std::sync::Arc<Rights>,
    pub rights_version: u64,
    pub told: Told,
}

/// What the application was told of a replica. An opening can show the machine a newer head before whoever wrote has said
/// so, and what is written here and what comes from a peer can become durable together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    /// Up to where it was told of something, by whomever it was written.
    pub until: Position,
    /// Up to here, what was written beneath the machine is to be told when no answer about a peer's entries is on its way.
    pub due: Option<Position>,
}

/// How far the opening is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Our own facts are being read; the acceptor has the peer's `Open` already.
    Preparing(Option<Box<Open>>),
    /// Our `Open` is sent.
    Opening { mine: Box<Facts>, deadline: Duration },
    /// The peer's credentials are being admitted.
    Admitting { mine: Box<Facts>, theirs: Box<Open> },
    /// Both know where the other stands.
    Live,
    /// The session is over; what has come in it is taken in all the same.
    Draining,
}

/// What we said in our `Open`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub store: StoreId,
    pub head: Position,
    pub root: Digest,
    pub have: Option<(StoreId, Position)>,
    pub direction: Direction,
    pub asks: bool,
}

impl Facts {
    fn of(open: &Open) -> Self {
        let Open { store, head, root, have, direction, asks, .. } = *open;
        Self { store, head, root, have, direction, asks }
    }

    /// Whether entries go from this side to the other.
    fn gives_to(&self, other: &Self) -> bool {
        other.direction.takes() && (self.direction.sends() || other.asks)
    }
}

/// What happened in a session that concerns more than it.
#[derive(Debug)]
pub(super) enum Effect {
    /// Roots are equal at a confirmed position.
    Synced,
    /// The peer's log is here up to this position.
    Received(StoreId, Position),
    /// The peer confirmed our log up to this position.
    Confirmed(Position),
    /// The peer did not accept entries of ours.
    Refused(Refused),
    /// So many entries of the peer are ahead of our clock and were not accepted yet.
    Early(u64),
    /// The peer broke the protocol.
    Violation(String),
}

#[derive(Debug)]
struct Frame {
    len: usize,
    through: Option<Position>,
}

#[derive(Debug)]
enum Arrived {
    Entries(Mark, Bytes),
    Mark(Mark),
    /// A message of a reconciliation, of so many bytes, waits for the entries before it, so that what they brought
    /// is not found missing.
    Round(Round, usize),
}

/// A message of a reconciliation.
#[derive(Debug)]
enum Round {
    Ranges(Ranges),
    Symbols(Symbols),
    Solved(Solved),
}

impl Round {
    /// Whether a reconciliation begins with it.
    fn begins(&self) -> bool {
        match self {
            Self::Ranges(ranges) => ranges.first,
            Self::Symbols(symbols) => symbols.first,
            Self::Solved(_) => false,
        }
    }
}

#[derive(Debug, Default)]
struct Batch {
    bundles: Vec<VerifiedBundle>,
    frames: u64,
    len: usize,
    mark: Option<Mark>,
}

impl Batch {
    /// About how many bytes of memory it takes when it is verified.
    fn weight(&self) -> usize {
        self.len + VERIFIED_LEN * self.bundles.iter().map(VerifiedBundle::len).sum::<usize>()
    }
}

#[derive(Debug)]
struct Reconcile {
    head: Position,
    /// This side leads, and has said nothing yet.
    first: bool,
    coding: Coding,
    rounds: u32,
    /// Claims of the peer that wait to be compared.
    waiting: VecDeque<Claim>,
    /// Their bytes.
    waiting_len: usize,
    comparing: bool,
    /// The last range of the peer's round so far: what follows in it lies behind that.
    last: Option<SlotRange>,
    /// Whether the peer's round has arrived whole.
    whole: bool,
    /// Whether the peer's round must be answered.
    must_answer: bool,
    answer: Vec<Claim>,
    /// No further message is to come, in either direction.
    over: bool,
    /// That we have sent everything is told with the acknowledgement of what the peer sends.
    is_told: bool,
}

/// How far a reconciliation by coded symbols is.
#[derive(Debug)]
enum Coding {
    /// It goes by ranges.
    Not,
    /// We lead, and so many of our symbols are sent.
    Sent { mine: CodedSet, count: usize },
    /// The peer leads; its symbols so far, all that are to come before we answer if `whole`. We asked for so many;
    /// the next message may begin `again` with the first.
    Arrived { mine: Option<CodedSet>, theirs: Vec<Symbol>, wanted: usize, whole: bool, again: bool },
}

/// How another session brings what this one did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anew {
    /// By another reconciliation.
    Reconciling,
    /// By the peer's log from its beginning.
    FromStart,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub serial: u64,
    pub replica: ReplicaId,
    pub peer: PeerId,
    pub role: Role,
    pub connection: ConnectionId,
    pub stream: Option<StreamId>,
    pub phase: Phase,
    pub traffic: Traffic,
    pub synced: bool,
    /// The roots stay different though a reconciliation has ended.
    pub diverged: bool,
    /// Nothing is sent while a batch of this very session is being taken in.
    pub hold: bool,
    /// When something was last said in it, by either side.
    active: Duration,
    /// When a right of the peer ends.
    pub rights_end: Duration,
    pub scope: Scope,
    /// What this node may read itself, by what it knows.
    pub readable: Scope,
    pub their_count: u64,
    /// The root of what the peer may see, when that is a part, at this head.
    scope_root: Option<(Position, Digest)>,
    asking_root: bool,
    /// A mark that waits for it, or for us to have sent all.
    uncompared: Option<Mark>,
    /// Whether entries go to the peer, and whether they come from it.
    pub gives: bool,
    pub takes: bool,
    /// The peer only pulls, and sends because an application here waits for it.
    pub takes_by_asking: bool,
    /// The peer only pulls, and is not asked.
    pub could_ask: bool,
    /// All that may go has gone, up to this head, and the roots differ.
    gone_one_way: Option<Position>,
    /// How far the peer is with our log, when its position alone does not say so.
    pub rewound: Option<Rewound>,
    /// No position says anything before roots are equal, or a reconciliation has found everything: the peer's position is
    /// of a time at which it could read less, or entries were refused whose authors' rights were not here yet.
    unsure: bool,
    /// Nor before roots are equal: something was left out of a reconciliation.
    left_out: bool,
    /// We left something out of a reconciliation in which only we give: our log is sent from its beginning.
    from_start: bool,
    /// Only another session can bring what this one did not, as entries go one way.
    pub anew: Option<Anew>,
    /// Entries came whose authors had no right by these rights: positions do not say that they are here.
    unplaced: Option<std::sync::Arc<Rights>>,
    their_store: Option<StoreId>,
    sent_last: bool,
    /// What our last mark said of our root, with how many frames of the peer's durable: if it finds the roots equal
    /// when we do, our marks have crossed, and it learns of it without a further one.
    told: Option<(u64, Digest)>,
    // Outgoing.
    tail: Option<Position>,
    echo_until: Position,
    confirmed: Position,
    frames_sent: u64,
    frames_acked: u64,
    in_flight: VecDeque<Frame>,
    in_flight_len: usize,
    /// How many frames the peer has received, durable or not.
    frames_arrived: u64,
    /// The bytes of the others, and of these.
    flying_len: usize,
    landed_len: usize,
    reading: bool,
    /// How often what goes into a frame of entries is halved: see [`MAX_NARROW`]. Less by one with each frame that arrives.
    pub narrow: u32,
    missing: Vec<Missing>,
    // Incoming.
    arrived: VecDeque<Arrived>,
    arrived_len: usize,
    /// The bytes of messages of a reconciliation among what has arrived.
    rounds_len: usize,
    verifying: Option<Batch>,
    verified: VecDeque<Batch>,
    applying: Option<(u64, usize, Option<Mark>, Position)>,
    received: u64,
    /// The bytes of received frames that no mark of ours has told of yet.
    untold_len: usize,
    durable: u64,
    // Repair.
    reconcile: Option<Reconcile>,
    /// Coded symbols came apart since roots were equal last: if they are not now, ranges must tell.
    coded: bool,
    inserted_since: u64,
    refused_since: u64,
    /// Entries of the peer were ahead of our clock.
    early: bool,
    held_back: Vec<(Message, usize)>,
    held_back_len: usize,
    frames_at_start: u64,
    /// What did not fit into the first round of our last reconciliation begins here; the next one begins with it.
    left_at: Option<SlotKey>,
    /// A reconciliation has ended and roots were not compared since.
    judging: bool,
    fruitless: u32,
    retry_at: Duration,
    pub next_check: Duration,
}

impl Session {
    pub fn new(
        serial: u64,
        replica: ReplicaId,
        peer: PeerId,
        role: Role,
        connection: ConnectionId,
        phase: Phase,
    ) -> Self {
        Self {
            serial,
            replica,
            peer,
            role,
            connection,
            stream: None,
            phase,
            traffic: Traffic::default(),
            synced: false,
            diverged: false,
            hold: false,
            active: Duration::ZERO,
            rights_end: Duration::MAX,
            scope: Scope::nothing(),
            readable: Scope::nothing(),
            their_count: 0,
            scope_root: None,
            asking_root: false,
            uncompared: None,
            gives: true,
            takes: true,
            takes_by_asking: false,
            could_ask: false,
            gone_one_way: None,
            rewound: None,
            unsure: false,
            left_out: false,
            from_start: false,
            anew: None,
            unplaced: None,
            their_store: None,
            sent_last: false,
            told: None,
            tail: None,
            echo_until: Position(0),
            confirmed: Position(0),
            frames_sent: 0,
            frames_acked: 0,
            in_flight: VecDeque::new(),
            in_flight_len: 0,
            frames_arrived: 0,
            flying_len: 0,
            landed_len: 0,
            reading: false,
            narrow: 0,
            missing: Vec::new(),
            arrived: VecDeque::new(),
            arrived_len: 0,
            rounds_len: 0,
            verifying: None,
            verified: VecDeque::new(),
            applying: None,
            received: 0,
            untold_len: 0,
            durable: 0,
            reconcile: None,
            coded: false,
            inserted_since: 0,
            refused_since: 0,
            early: false,
            held_back: Vec::new(),
            held_back_len: 0,
            frames_at_start: 0,
            left_at: None,
            judging: false,
            fruitless: 0,
            retry_at: Duration::ZERO,
            next_check: Duration::MAX,
        }
    }

    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// When the session wants to be looked at.
    pub fn timeout(&self) -> Duration {
        match &self.phase {
            Phase::Opening { deadline, .. } => *deadline,
            Phase::Preparing(_) | Phase::Admitting { .. } | Phase::Draining => Duration::MAX,
            Phase::Live => self.next_check.min(self.rights_end).min(self.stalls_at()),
        }
    }

    /// When the peer will have been silent for too long in the middle of something.
    pub fn stalls_at(&self) -> Duration {
        let asked = self.reconcile.as_ref().is_some_and(|reconcile| !reconcile.comparing && !reconcile.over);
        let waits = !self.in_flight.is_empty() || asked && !self.reading && self.is_drained();
        if self.is_live() && waits { self.active + STALL_DEADLINE } else { Duration::MAX }
    }

    /// Whether something is under way: the link must show life.
    pub fn is_busy(&self) -> bool {
        !self.is_live()
            || self.in_flight_len > 0
            || self.arrived_len > 0
            || self.applying.is_some()
            || self.reconcile.is_some()
    }

    /// The bytes of messages that wait here: to be verified, applied, compared, or for the peer's credentials.
    pub fn waiting_len(&self) -> usize {
        let claims = self
            .reconcile
            .as_ref()
            .map_or(0, |reconcile| reconcile.waiting.iter().chain(&reconcile.answer).map(Claim::len).sum::<usize>());
        let symbols = match self.reconcile.as_ref().map(|reconcile| &reconcile.coding) {
            Some(Coding::Arrived { theirs, .. }) => theirs.len() * size_of::<Symbol>(),
            _ => 0,
        };
        self.arrived_len + self.rounds_len + self.held_back_len + claims + symbols
    }

    pub fn confirmed(&self) -> Position {
        self.confirmed
    }

    fn key(&self) -> (ReplicaId, PeerId, u64) {
        (self.replica, self.peer, self.serial)
    }

    pub fn send(&mut self, io: &mut Io, message: Message) {
        let stream = self.stream.expect("messages are sent on an open session only");
        let frame = message.encode();
        self.traffic.bytes_sent += frame.len() as u64 + 4;
        self.traffic.messages += 1;
        self.sent_last = true;
        self.active = io.now.elapsed;
        io.put(Output::Send { connection: self.connection, stream, frame });
    }

    pub fn count_received(&mut self, now: Duration, len: usize) {
        self.active = now;
        self.traffic.bytes_received += len as u64 + 4;
        self.traffic.messages += 1;
        if std::mem::take(&mut self.sent_last) {
            self.traffic.round_trips += 1;
        }
    }

    /// Both sides' facts are known: decides how the difference is found. The log may have been rewound for the peer
    /// before; it is in this run.
    pub fn begin(
        &mut self,
        io: &mut Io,
        mine: Facts,
        theirs: &Open,
        known: &Known,
        (before, incarnation): (Option<Rewound>, u64),
    ) -> Vec<Effect> {
        let theirs = Facts::of(theirs);
        self.phase = Phase::Live;
        self.their_store = Some(theirs.store);
        self.their_count = theirs.root.count;
        self.next_check = io.now.elapsed + io.check_interval;
        (self.gives, self.takes) = (mine.gives_to(&theirs), theirs.gives_to(&mine));
        self.takes_by_asking = self.takes && !theirs.direction.sends();
        self.could_ask = !self.takes && mine.direction.takes();
        if self.scope.is_nothing() {
            // The peer may read nothing here; what it sends is welcome.
            return Vec::new();
        }
        if mine.root == theirs.root {
            self.tail = Some(mine.head);
            self.confirmed = mine.head;
            let mut effects = vec![Effect::Received(theirs.store, theirs.head), Effect::Confirmed(mine.head)];
            self.found_equal(&mut effects);
            self.pump_out(io, known);
            return effects;
        }
        let mut ours = log_start(&io.limits, &mine, &theirs);
        let said = ours;
        let granted = Position(known.rights.granted_at(&self.peer, io.now.wall));
        if let Some(start) = &mut ours
            && *start < granted
            && self.gives
            && !canary::is_out(Canary::BelieveOldPositions)
        {
            // What lies before it the peer may read only now. Its position is what it says, from wherever the log is sent: who
            // has next to nothing is sent all of it, and may say the same position again when it has more.
            let from =
                theirs.have.filter(|(store, _)| *store == mine.store).map_or(Position(0), |(_, position)| position);
            let begins = *start;
            *start = Rewound::start(before, granted, (incarnation, theirs.head), from).min(begins);
            if *start == Position(0) && begins > *start && !self.is_one_way() {
                // Roots differ, and bring it with everything else.
                self.unsure = true;
                *start = mine.head;
            } else {
                let (began, confirmed) = (*start, *start);
                self.rewound = Some(Rewound { granted, incarnation, head: theirs.head, from, began, confirmed });
            }
        }
        let from_peer = log_start(&io.limits, &theirs, &mine);
        if (ours.is_some() || !self.gives) && (from_peer.is_some() || !self.takes) {
            if let Some(start) = ours.filter(|_| self.gives) {
                self.tail = Some(start);
                self.confirmed = said.map_or(start, |said| said.min(start));
            }
            // A peer that has lost everything needs back what it once gave. Where entries go one way roots do not tell of
            // it, nor whether an earlier session has sent it.
            let is_all = self.is_one_way() || is_nearly_empty(&io.limits, &theirs);
            self.echo_until = if is_all { mine.head } else { Position(0) };
            let reading = self.pump_out(io, known);
            if !reading {
                let mark = self.mark(known);
                self.send(io, Message::Mark(mark));
            }
        } else if self.leads() {
            self.lead_reconcile(io, known);
        }
        Vec::new()
    }

    fn found_equal(&mut self, effects: &mut Vec<Effect>) {
        self.synced = true;
        self.diverged = false;
        self.left_at = None;
        self.judging = false;
        self.coded = false;
        self.told = None;
        self.fruitless = 0;
        (self.unsure, self.left_out, self.unplaced) = (false, false, None);
        effects.push(Effect::Synced);
    }

    /// Our position for the peer.
    fn mark(&mut self, known: &Known) -> Mark {
        self.untold_len = 0;
        let all_sent = self.has_sent_all(known) && self.missing.is_empty();
        let root = self.root(known).filter(|_| all_sent);
        self.told = root.filter(|_| !self.synced).map(|root| (self.durable, root));
        let through = self.tail.filter(|_| self.is_sure());
        Mark { durable: self.durable, received: self.received, through, root, synced: self.synced }
    }

    /// Whether roots are equal at a confirmed position, and nothing was accepted here since that is not
    /// sent: the replica's head is `head`.
    pub fn is_synced(&self, head: Position) -> bool {
        self.synced && self.tail == Some(head)
    }

    /// Whether all that may go between the two has gone, and the roots differ because a side only pulls or only pushes;
    /// the replica's head is `head`.
    pub fn has_gone_one_way(&self, head: Position) -> bool {
        self.gone_one_way == Some(head)
    }

    /// Whether only another session can bring what was ahead of our clock: the peer may read nothing
    /// here, as far as we know, so roots are not compared.
    pub fn needs_another(&self) -> bool {
        self.early && (self.scope.is_nothing() || self.is_one_way())
    }

    /// Whether positions do not say of everything that has come that it is here.
    pub fn is_unplaced(&self) -> bool {
        self.unplaced.is_some()
    }

    /// The peer's store.
    pub fn their_store(&self) -> Option<StoreId> {
        self.their_store
    }

    /// Whether positions say that everything before them is there.
    fn is_sure(&self) -> bool {
        !self.unsure && !self.left_out
    }

    /// Whether one side may read a part only: roots may then differ for good.
    fn is_partial(&self) -> bool {
        !(self.scope.is_all() && self.readable.is_all())
    }

    /// Whether entries go one way at most: roots that differ are then no reason to repair anything.
    pub fn is_one_way(&self) -> bool {
        !(self.gives && self.takes)
    }

    /// Whether everything that is to go to the peer by the change log has been sent.
    fn has_sent_all(&self, known: &Known) -> bool {
        self.reconcile.is_none() && (self.tail == Some(known.head) || !self.gives)
    }

    /// The root of what the peer may see, when it is known.
    fn root(&self, known: &Known) -> Option<Digest> {
        match self.scope_root {
            _ if self.scope.is_all() => Some(known.root),
            Some((head, root)) if head == known.head => Some(root),
            _ => None,
        }
    }

    /// Compares roots at this time at the latest.
    pub fn check_within(&mut self, at: Duration) {
        self.next_check = self.next_check.min(at);
    }
}

/// The facts of an applied batch that a session needs.
#[derive(Debug)]
pub(super) struct Applied {
    pub head: Position,
    pub inserted: u64,
    /// By which rights it was decided.
    pub rights: std::sync::Arc<Rights>,
    pub refused: Vec<(crate::store::ShortId, RefusalReason)>,
    pub refused_count: u64,
}

/// Whether a side has so little that sending all costs less than finding out what it has: a node
/// that has just joined holds the grants that let it in, and nothing else.
fn is_nearly_empty(limits: &Limits, facts: &Facts) -> bool {
    facts.root.count <= limits.nearly_empty
}

/// From where `sender` must stream its log to `receiver`; none when no position is valid.
fn log_start(limits: &Limits, sender: &Facts, receiver: &Facts) -> Option<Position> {
    let is_one_way = !(sender.gives_to(receiver) && receiver.gives_to(sender));
    match receiver.have {
        // Roots that differ then are no reason to repair anything: what little is there may be less than a position says.
        _ if is_one_way && is_nearly_empty(limits, receiver) => Some(Position(0)),
        Some((store, position))
            if (store == sender.store || canary::is_out(Canary::KeepCursor)) && position <= sender.head =>
        {
            Some(if canary::is_out(Canary::StartOver) { Position(0) } else { position })
        }
        _ if is_nearly_empty(limits, receiver) || is_nearly_empty(limits, sender) => Some(Position(0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        machine::{
            limits::{APPLY_LEN, ENTRIES_FRAME_LEN, MAX_FRAME_LEN, MAX_ROUND_LEN},
            random::Random,
            wire::{Ranges, Symbols},
        },
        model::{Hash, HybridClock, Key, Op, SecretKey, Timestamp, Value, sign_commit},
        store::{
            Have, ShortId,
            coded::{MAX_SYMBOLS, SOME_SYMBOLS},
        },
    };

    fn mark() -> Mark {
        Mark { durable: 0, received: 0, through: None, root: None, synced: false }
    }

    struct World {
        session: Session,
        io: Io,
        known: Known,
    }

    impl World {
        /// A live session that we have opened.
        fn new() -> Self {
            let key = |n: u8| SecretKey::from_bytes([n; 32]).public();
            let (replica, peer) = (ReplicaId(key(7)), PeerId(key(2)));
            let mut session = Session::new(1, replica, peer, Role::Dialer, ConnectionId(1), Phase::Live);
            session.stream = Some(StreamId(2));
            (session.scope, session.readable) = (Scope::all(), Scope::all());
            let io =
                Io::new(Now { elapsed: Duration::ZERO, wall: Timestamp(1) }, Random::new([1; 32]), Limits::default());
            let rights = std::sync::Arc::new(Rights::new(replica));
            let root = Digest { hash: Hash([1; 32]), count: 100 };
            Self {
                session,
                io,
                known: Known { root, head: Position(100), rights, rights_version: 0, told: Told::default() },
            }
        }

        /// Whether it is a violation.
        fn receive(&mut self, message: Message) -> bool {
            let len = message.encode().len();
            let effects = self.session.receive(&mut self.io, &self.known, message, len);
            effects.iter().any(|effect| matches!(effect, Effect::Violation(_)))
        }

        fn solves(&mut self) -> usize {
            let outputs = std::iter::from_fn(|| self.io.take());
            outputs.filter(|it| matches!(it, Output::Store { request: StoreRequest::Solve { .. }, .. })).count()
        }
    }

    /// About so many bytes has a message of one claim of many ids.
    const RANGES_LEN: usize = 65_000 * 16 + 100;

    fn ranges(first: bool, n: u8) -> Message {
        let range = SlotRange { start: SlotKey::ordinary(&[n]), end: Some(SlotKey::ordinary(&[n + 1])) };
        let claims = vec![Claim { range, have: Have::Ids(vec![ShortId([n; 16]); 65_000]) }];
        Message::Ranges(Ranges { first, more: true, claims })
    }

    fn symbols(first: bool, more: bool, from: usize, count: usize) -> Message {
        let symbols = vec![Symbol::default(); count];
        Message::Symbols(Symbols { first, more, from: from as u32, symbols })
    }

    #[test]
    fn few_entries_are_verified_before_those_ahead_of_them_are_durable() {
        let mut world = World::new();
        let key = SecretKey::from_bytes([7; 32]);
        let op = |n: usize| Op::Put {
            key: Key::try_from(format!("{n}").as_str()).expect("a key"),
            value: Value::Inline(Bytes::new()),
        };
        // As many as a frame has when each takes 66 bytes.
        let ops = (0..4_000).map(op).collect();
        let bundle = sign_commit(ReplicaId(key.public()), &key, &HybridClock::default(), Timestamp(1), ops);
        let bundle = bundle.expect("a commit");
        for _ in 0..30 {
            assert!(!world.receive(Message::Entries(mark(), vec![0; ENTRIES_FRAME_LEN].into())));
        }
        // Verified, a frame counts for so much more that these fill what is applied at once.
        let most = APPLY_LEN.div_ceil(ENTRIES_FRAME_LEN + 4_000 * VERIFIED_LEN);
        let (mut verified, mut applied) = (0, Vec::new());
        loop {
            let outputs: Vec<Output> = std::iter::from_fn(|| world.io.take()).collect();
            let mut is_verifying = false;
            for output in outputs {
                match output {
                    Output::Store { request: StoreRequest::Verify { payloads, .. }, .. } => {
                        assert_eq!(payloads.len(), 1, "a frame at a time");
                        is_verifying = true;
                    }
                    Output::Store { request: StoreRequest::Apply { bundles, .. }, .. } => applied.push(bundles.len()),
                    _ => {}
                }
            }
            if is_verifying {
                verified += 1;
                world.session.entries_verified(&mut world.io, &world.known, vec![bundle.clone()]);
                continue;
            }
            // Now it waits for the disk: what is verified, with what is being applied, is far less than what has come.
            assert!(verified - applied.iter().sum::<usize>() <= most, "{verified} of {applied:?}");
            if applied.iter().sum::<usize>() == 30 {
                break;
            }
            let rights = world.known.rights.clone();
            let done = Applied { inserted: 0, head: Position(100), rights, refused: vec![], refused_count: 0 };
            world.session.entries_applied(&mut world.io, &world.known, &done);
        }
        assert!(applied.iter().all(|frames| *frames <= most), "{applied:?}");
        assert!(applied.len() < 20, "what waits goes together: {applied:?}");
    }

    #[test]
    fn the_ranges_of_a_round_ascend_over_its_messages() {
        let mut world = World::new();
        assert!(!world.receive(ranges(true, 3)));
        assert!(!world.receive(ranges(false, 4)));
        assert!(world.receive(ranges(false, 4)), "what was claimed already");
        let mut world = World::new();
        assert!(!world.receive(ranges(true, 3)));
        assert!(world.receive(ranges(false, 2)), "what lies before");
    }

    #[test]
    fn claims_that_wait_to_be_compared_are_bounded_in_bytes() {
        let mut world = World::new();
        // The first is being compared, the others wait.
        let fit = 1 + (MAX_ROUND_LEN + MAX_FRAME_LEN) / RANGES_LEN;
        for n in 0..fit {
            assert!(!world.receive(ranges(n == 0, n as u8)), "{n}");
        }
        assert!(world.receive(ranges(false, fit as u8)));
    }

    #[test]
    fn claims_that_wait_for_entries_before_them_are_bounded_in_bytes() {
        let mut world = World::new();
        assert!(!world.receive(Message::Entries(mark(), Bytes::from_static(&[0]))));
        let fit = (MAX_ROUND_LEN + MAX_FRAME_LEN) / RANGES_LEN;
        for n in 0..fit {
            assert!(!world.receive(ranges(n == 0, n as u8)), "{n}");
        }
        assert!(world.receive(ranges(false, fit as u8)));
    }

    /// The scope of a member of a part can have many ranges: for each byte of each prefix one. When only the first of them
    /// were ever compared, the others could differ for ever.
    #[test]
    fn what_does_not_fit_into_a_first_round_is_the_beginning_of_the_next() {
        let mut world = World::new();
        world.io.limits.round_claims = 4;
        (world.session.role, world.session.phase) = (Role::Acceptor, Phase::Live);
        let claims = |widths: &[u8]| -> Vec<Claim> {
            let place = |at: u8| SlotKey::ordinary(&[at]);
            let mut start = 0;
            let claim = |width: &u8| {
                let range = SlotRange { start: place(start), end: Some(place(start + width)) };
                start += width;
                Claim { range, have: Have::Digest(Digest { hash: Hash([1; 32]), count: 1 }) }
            };
            widths.iter().map(claim).collect()
        };
        let mut leads = |widths: &[u8]| -> Vec<(u8, u8)> {
            world.session.lead_reconcile(&mut world.io, &world.known);
            let step = Step::Claims(claims(widths));
            world.session.stepped(&mut world.io, &world.known, None, step, Vec::new());
            let outputs: Vec<Output> = std::iter::from_fn(|| world.io.take()).collect();
            let sent = outputs.into_iter().find_map(|output| match output {
                Output::Send { frame, .. } => match Message::decode(frame) {
                    Ok(Some(Message::Ranges(ranges))) => Some(ranges.claims),
                    _ => None,
                },
                _ => None,
            });
            // Nothing differs in these; the roots do.
            world.session.finish_reconcile();
            world.session.judge(&world.io);
            let at = |place: &SlotKey| place.as_bytes()[1];
            let range = |claim: &Claim| (at(&claim.range.start), claim.range.end.as_ref().map_or(0, at));
            sent.expect("a round").iter().map(range).collect()
        };
        assert_eq!(leads(&[2; 10]), [(0, 2), (2, 4), (4, 6), (6, 8)]);
        // The borders may be others by then.
        assert_eq!(leads(&[5; 6]), [(5, 10), (10, 15), (15, 20), (20, 25)]);
        assert_eq!(leads(&[2; 14]), [(24, 26), (26, 28)]);
        assert_eq!(leads(&[2; 10]), [(0, 2), (2, 4), (4, 6), (6, 8)], "all were compared: it begins anew");
        assert_eq!(leads(&[2; 4]), [(0, 2), (2, 4), (4, 6), (6, 8)], "nothing is left there: it begins anew");
    }

    #[test]
    fn whoever_leads_and_has_not_compared_all_goes_on_at_once() {
        let mut world = World::new();
        for (left_at, waits) in [(Some(SlotKey::FIRST), false), (None, true)] {
            (world.session.left_at, world.session.judging) = (left_at, true);
            world.session.judge(&world.io);
            assert_eq!(world.session.retry_at > Duration::ZERO, waits);
        }
    }

    /// A peer that takes in much from others tells where it stands each time, and the disk here may be slow.
    #[test]
    fn marks_that_wait_behind_a_slow_disk_wait_as_one() {
        let mut world = World::new();
        assert!(!world.receive(Message::Entries(mark(), Bytes::from_static(&[0]))));
        for number in 0..world.io.limits.window_frames * 5 {
            assert!(!world.receive(Message::Mark(mark())), "after {number}");
        }
        assert_eq!(world.session.arrived.len(), 1);
    }

    #[test]
    fn symbols_are_solved_once_when_all_that_were_asked_for_are_here() {
        let mut world = World::new();
        assert!(!world.receive(symbols(true, true, 0, 64)));
        assert!(!world.receive(symbols(false, true, 64, 1)));
        assert_eq!(world.solves(), 0);
        assert!(!world.receive(symbols(false, false, 65, 1)));
        assert_eq!(world.solves(), 1);
        assert!(world.receive(symbols(false, false, 66, 1)), "nobody waits for it");
    }

    #[test]
    fn symbols_begin_again_once_and_are_as_many_as_were_asked_for() {
        // What comes after 2,000 were asked for, and whether it is a violation.
        /// `more`, `from`, and how many symbols.
        type Messages = [(bool, usize, usize)];
        let cases: [(&Messages, bool); 8] = [
            (&[(false, 64, 1_936)], false),
            (&[(false, 0, 2_000)], false),
            (&[(true, 0, 64), (false, 64, 1_936)], false),
            (&[(false, 64, 1_935)], true),
            (&[(false, 0, 1_999)], true),
            (&[(false, 65, 1_936)], true),
            (&[(true, 0, 64), (true, 0, 64)], true),
            (&[(true, 64, 64), (true, 0, 64)], true),
        ];
        for (messages, is_violation) in cases {
            let mut world = World::new();
            assert!(!world.receive(symbols(true, false, 0, 64)));
            world.session.stepped(&mut world.io, &world.known, None, Step::More(2_000), Vec::new());
            assert_eq!(world.solves(), 1, "of the first symbols");
            let mut violated = false;
            for (more, from, count) in messages {
                violated |= world.receive(symbols(false, *more, *from, *count));
            }
            assert_eq!((violated, world.solves()), (is_violation, usize::from(!is_violation)), "{messages:?}");
        }
    }

    #[test]
    fn no_more_symbols_are_kept_than_there_are() {
        let mut world = World::new();
        let mut from = 0;
        while from < MAX_SYMBOLS {
            assert!(!world.receive(symbols(from == 0, true, from, SOME_SYMBOLS)));
            from += SOME_SYMBOLS;
        }
        assert!(world.receive(symbols(false, true, 0, 1)));
    }
}
