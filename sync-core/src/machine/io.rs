//! What goes into the machine and what comes out of it. Inputs say what happened; outputs say
//! what to do.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    direction::Direction,
    wire::{Refusal, RefusalReason, StreamKind},
};
use crate::{
    address::PeerAddress,
    model::{Bundle, Digest, PeerId, PublicKey, ReadScope, ReplicaId, Timestamp, VerifiedBundle},
    store::{
        Changes, ChangesRequest, Claim, Missing, MissingPage, NodeRecord, Position, Reconciled, ReplicaState, Scope,
        ShortId, StoreError,
        coded::{CodedSet, Symbol},
    },
};

/// The time, as the driver reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Since the machine was made; never goes back.
    pub elapsed: Duration,
    /// The wall clock.
    pub wall: Timestamp,
}

/// A connection; the driver numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnectionId(pub u64);

/// A stream of a connection. The machine numbers those that it opens with even numbers, the
/// driver those that it accepts with odd ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct StreamId(pub u64);

/// An attempt to dial; the machine numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DialId(pub u64);

/// A store operation; the machine numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct OpId(pub u64);

/// A question that waits for an answer; whoever asks numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct AskId(pub u64);

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// Nothing but time has passed.
    Tick,
    /// The peers and jobs of the last run, as they were saved.
    Restored {
        /// Records of kind `Peer` and `Job`.
        records: Vec<NodeRecord>,
    },
    /// Where this node can be dialled now.
    Listening {
        /// The addresses.
        addresses: Vec<PeerAddress>,
    },
    /// A replica was opened, or changed without the machine's doing.
    Changed {
        /// The replica.
        replica: ReplicaId,
        /// The replica now.
        state: ReplicaState,
        /// How many entries the application has just written. Without it, what nobody has spoken of was written beneath
        /// the machine; nothing that the application writes may be on its way then.
        written: Option<u64>,
    },
    /// A replica is gone.
    Dropped {
        /// The replica.
        replica: ReplicaId,
    },
    /// The application knows a peer, and addresses of it.
    AddPeer {
        /// The peer.
        peer: PeerId,
        /// Its addresses, added to those known.
        addresses: Vec<PeerAddress>,
    },
    /// The application names a peer.
    RenamePeer {
        /// The peer.
        peer: PeerId,
        /// The name; empty removes it.
        name: String,
    },
    /// The application forgets a peer: its addresses, jobs and links. It is refused until it is added again.
    RemovePeer {
        /// The peer.
        peer: PeerId,
    },
    /// The application wants nothing to do with a peer, or takes that back.
    BlockPeer {
        /// The peer.
        peer: PeerId,
        /// Whether it is blocked.
        blocked: bool,
    },
    /// A replica is to be kept equal with a peer.
    Subscribe {
        /// The replica.
        replica: ReplicaId,
        /// The peer.
        peer: PeerId,
    },
    /// It is not any more.
    Unsubscribe {
        /// The replica.
        replica: ReplicaId,
        /// The peer.
        peer: PeerId,
    },
    /// Somebody wants a replica equal with a peer now, and to hear how it went.
    Sync {
        /// The question.
        ask: AskId,
        /// The replica.
        replica: ReplicaId,
        /// The peer, or an address where one is.
        target: Target,
        /// How long to try.
        timeout: Duration,
    },
    /// Which way the entries of a replica are to go.
    SetDirection {
        /// The replica.
        replica: ReplicaId,
        /// The direction.
        direction: Direction,
    },
    /// Parked jobs are to be tried again, and waiting ones now.
    RetryNow,
    /// A transport was registered.
    TransportAdded,
    /// How often idle sessions are to compare roots.
    CheckInterval {
        /// The interval.
        interval: Duration,
    },
    /// A connection was made or accepted.
    Connected {
        /// Its number.
        connection: ConnectionId,
        /// The attempt that made it; none when it was accepted.
        dial: Option<DialId>,
        /// The registered name of the transport.
        transport: String,
        /// 32 bytes that only its two ends share.
        binding: [u8; 32],
    },
    /// An attempt to dial failed.
    DialFailed {
        /// The attempt.
        dial: DialId,
        /// What it was.
        why: DialFailure,
        /// The same in words: what was attempted, on what, and the way out.
        error: String,
    },
    /// A connection has ended.
    Disconnected {
        /// The connection.
        connection: ConnectionId,
        /// Why.
        reason: String,
    },
    /// The peer opened a stream.
    StreamAccepted {
        /// The connection.
        connection: ConnectionId,
        /// Its number.
        stream: StreamId,
        /// What it is for.
        kind: StreamKind,
    },
    /// A frame came in.
    Frame {
        /// The connection.
        connection: ConnectionId,
        /// The stream.
        stream: StreamId,
        /// Kind and body.
        frame: Bytes,
    },
    /// A stream has ended in the incoming direction, or failed.
    StreamEnded {
        /// The connection.
        connection: ConnectionId,
        /// The stream.
        stream: StreamId,
        /// What went wrong, if anything.
        error: Option<String>,
    },
    /// A store operation is done.
    Stored {
        /// The operation.
        op: OpId,
        /// Its result.
        result: Result<StoreReply, WorkError>,
    },
    /// The node shuts down: sessions are ended in good order.
    Shutdown,
}

/// Whom to sync with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A known peer.
    Peer(PeerId),
    /// Whoever answers at an address.
    Address(PeerAddress),
}

/// Why work on a store came to nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WorkError {
    /// The store could not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the peer sent was not valid: the link is closed.
    #[error("the peer sent something invalid: {0}")]
    Invalid(String),
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Output {
    /// Dial an address; answer with `Connected` or `DialFailed`.
    Dial {
        /// The attempt.
        dial: DialId,
        /// The address.
        address: PeerAddress,
    },
    /// Give up an attempt; a connection that it made all the same is closed.
    CancelDial {
        /// The attempt.
        dial: DialId,
    },
    /// The peer has proved who it is: accept further streams from now on.
    Admit {
        /// The connection.
        connection: ConnectionId,
        /// Who it is.
        peer: PeerId,
    },
    /// End a connection.
    Disconnect {
        /// The connection.
        connection: ConnectionId,
        /// Why.
        reason: DisconnectReason,
    },
    /// Open a stream and write its kind.
    OpenStream {
        /// The connection.
        connection: ConnectionId,
        /// The stream's number from now on.
        stream: StreamId,
        /// What it is for.
        kind: StreamKind,
    },
    /// Send a frame; frames of one stream stay in order.
    Send {
        /// The connection.
        connection: ConnectionId,
        /// The stream.
        stream: StreamId,
        /// Kind and body.
        frame: Bytes,
    },
    /// End a stream in both directions.
    CloseStream {
        /// The connection.
        connection: ConnectionId,
        /// The stream.
        stream: StreamId,
    },
    /// Work on the store, or verification; answer with `Stored`.
    Store {
        /// The operation.
        op: OpId,
        /// What to do.
        request: StoreRequest,
    },
    /// Tell the application.
    Event(Event),
    /// Answer a question.
    Answer {
        /// The question.
        ask: AskId,
        /// The answer.
        report: Box<SyncReport>,
    },
}

/// Why the machine ends a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DisconnectReason {
    /// Not needed any more.
    Done,
    /// The peer broke the protocol.
    Protocol,
    /// Another link to the same peer is enough.
    Duplicate,
    /// The peer is blocked or removed, or not who was expected.
    Refused,
    /// Nothing was heard from it.
    Silent,
}

/// Work that the driver does for the machine on workers of its own.
#[derive(Debug, Clone)]
pub enum StoreRequest {
    /// What an `Open` needs to know; credentials of the peer are admitted first.
    Prepare {
        /// The replica.
        replica: ReplicaId,
        /// The peer.
        peer: PeerId,
        /// The peer's credentials.
        admit: Vec<Bundle>,
        /// Whose own credentials are wanted.
        credentials_of: Option<PublicKey>,
        /// The wall clock.
        now: Timestamp,
    },
    /// Read the change log.
    Changes {
        /// What of it.
        request: ChangesRequest,
        /// The version of the rights that it follows from.
        rights_version: u64,
    },
    /// Check the signatures of received entries.
    Verify {
        /// The replica.
        replica: ReplicaId,
        /// Encoded bundles, a payload per frame.
        payloads: Vec<Bytes>,
    },
    /// Apply verified entries.
    Apply {
        /// The replica.
        replica: ReplicaId,
        /// The entries.
        bundles: Vec<VerifiedBundle>,
        /// Who sent them.
        peer: PeerId,
        /// The wall clock.
        now: Timestamp,
        /// Node records that go with them.
        records: Vec<NodeRecord>,
    },
    /// A step of who leads a reconciliation: coded symbols if `by_symbols`, where there are so many and the peer
    /// may see all of them; claims otherwise.
    Lead {
        /// The replica.
        replica: ReplicaId,
        /// What the peer may see.
        scope: Scope,
        /// The symbols must have all of the change log up to here; and so many are to be said.
        by_symbols: Option<(Position, usize)>,
    },
    /// Make coded symbols that will be needed.
    Code {
        /// The replica.
        replica: ReplicaId,
        /// They must have all of the change log up to here.
        since: Position,
        /// How many.
        count: usize,
    },
    /// Subtract a peer's coded symbols from our own.
    Solve {
        /// The replica.
        replica: ReplicaId,
        /// What the peer may see.
        scope: Scope,
        /// Our symbols, when they were read before, as far as they are enough.
        mine: Option<CodedSet>,
        /// They must have all of the change log up to here.
        since: Position,
        /// The peer's, from the first.
        theirs: Vec<Symbol>,
    },
    /// Find entries that the peer lacks; claims about ranges when some are not found.
    Find {
        /// The replica.
        replica: ReplicaId,
        /// What the peer may see.
        scope: Scope,
        /// Their ids, ascending.
        ids: Vec<ShortId>,
    },
    /// Compare a peer's claims.
    Reconcile {
        /// The replica.
        replica: ReplicaId,
        /// What the peer may see.
        scope: Scope,
        /// The claims.
        claims: Vec<Claim>,
    },
    /// The root of what the peer may see.
    ScopeRoot {
        /// The replica.
        replica: ReplicaId,
        /// What the peer may see.
        scope: Scope,
    },
    /// Read what the peer lacks.
    Missing {
        /// The replica.
        replica: ReplicaId,
        /// What the peer may see.
        scope: Scope,
        /// What it lacks.
        missing: Vec<Missing>,
        /// About how many bytes to read at once.
        max_bytes: usize,
    },
    /// Save node records.
    Save {
        /// The records.
        records: Vec<NodeRecord>,
    },
}

/// What a side of a reconciliation by coded symbols says next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// So many of its symbols.
    Symbols(usize),
    /// It needs so many symbols.
    More(usize),
    /// It lacks these entries.
    Lacking(Vec<ShortId>),
    /// Everything that the peer lacks was found.
    Found,
    /// Symbols do not tell: claims about ranges. None: there is nothing to compare.
    Claims(Vec<Claim>),
}

/// The result of a [`StoreRequest`].
#[derive(Debug, Clone)]
pub enum StoreReply {
    /// To `Prepare`.
    Prepared {
        /// The replica.
        state: ReplicaState,
        /// How many of the credentials were new, and are in it now.
        admitted: u64,
        /// What the peer may read.
        readable: ReadScope,
        /// The root of that.
        root: Digest,
        /// The credentials that were asked for.
        credentials: Vec<Bundle>,
    },
    /// To `Changes`.
    Changes {
        /// The encoded bundles.
        payload: Bytes,
        /// The rest; its bundles are empty.
        changes: Changes,
        /// The replica, when its rights are others than those that the request follows from.
        state: Option<ReplicaState>,
    },
    /// To `Verify`.
    Verified {
        /// The entries.
        bundles: Vec<VerifiedBundle>,
    },
    /// To `Apply`.
    Applied {
        /// The replica after it.
        state: ReplicaState,
        /// How many entries came in.
        inserted: u64,
        /// Which were not accepted.
        refused: Vec<(ShortId, RefusalReason)>,
        /// How many were not accepted.
        refused_count: u64,
        /// Whether rights changed.
        rights_changed: bool,
    },
    /// To `Lead`, `Solve` and `Find`.
    Step {
        /// Our symbols, if they are needed further.
        mine: Option<CodedSet>,
        /// What to say.
        step: Step,
        /// Entries that the peer lacks.
        missing: Vec<Missing>,
    },
    /// To `Reconcile`.
    Reconciled {
        /// Claims to send, and entries that the peer lacks.
        reconciled: Reconciled,
        /// The replica before the comparison.
        state: ReplicaState,
    },
    /// To `ScopeRoot`.
    ScopeRoot {
        /// The head of the replica's log for which it holds; none when something was accepted meanwhile.
        head: Option<Position>,
        /// The root.
        root: Digest,
    },
    /// To `Missing`.
    Missing {
        /// The encoded bundles.
        payload: Bytes,
        /// The rest; its bundles are empty.
        page: MissingPage,
    },
    /// To `Save` and `Code`.
    Saved,
}

/// What the application hears.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// A first link to a peer is up.
    PeerUp {
        /// The peer.
        peer: PeerId,
        /// The transport.
        transport: String,
    },
    /// The last link to a peer is gone.
    PeerDown {
        /// The peer.
        peer: PeerId,
    },
    /// Entries came in from a peer.
    Received {
        /// The replica.
        replica: ReplicaId,
        /// The peer.
        peer: PeerId,
        /// How many.
        entries: u64,
    },
    /// Entries were written here: an event for each write through the manager. What was written beneath it, into the
    /// store itself, is told when a handle is opened and nothing else is on its way; the number is then an upper bound,
    /// and there is no event if something later was told before: who reads on at each event has it by that.
    Written {
        /// The replica.
        replica: ReplicaId,
        /// How many.
        entries: u64,
    },
    /// A session with a peer has begun.
    SyncStarted {
        /// The replica.
        replica: ReplicaId,
        /// The peer.
        peer: PeerId,
        /// How many entries each side has: totals, before any data moves.
        counts: (u64, u64),
    },
    /// The roots have become equal, at a position that the peer confirmed: once after each start, and again
    /// after each change.
    Synced {
        /// The replica.
        replica: ReplicaId,
        /// The peer.
        peer: PeerId,
    },
    /// A session has ended before the roots were equal, or because the peer's rights have changed.
    SyncFailed {
        /// The replica.
        replica: ReplicaId,
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: String,
    },
    /// A peer did not accept entries of ours.
    Refused {
        /// The replica.
        replica: ReplicaId,
        /// The peer.
        peer: PeerId,
        /// How many.
        entries: u64,
        /// Why the first one.
        reason: RefusalReason,
    },
    /// The content of an entry is here.
    ContentReady {
        /// The content.
        hash: crate::model::Hash,
    },
    /// All content that a replica wanted has come, as far as its policy allows it: once each time
    /// that nothing is left.
    PendingContentReady {
        /// The replica.
        replica: ReplicaId,
    },
}

/// How a sync with one peer went.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SyncReport {
    /// The peer, when it is known who answered.
    pub peer: Option<PeerId>,
    /// How it ended.
    pub outcome: SyncOutcome,
    /// What went over the wire since the question.
    pub traffic: Traffic,
}

/// How a sync ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SyncOutcome {
    /// The roots are equal at a position that the peer confirmed.
    Synced,
    /// The peer does not have the replica, or not for us.
    Refused(Refusal),
    /// Nobody could be reached there.
    Unreachable {
        /// What a caller can act on.
        why: DialFailure,
        /// What was attempted, on what, and the way out.
        error: String,
    },
    /// All that may go between the two has gone and is durable where it went, and the roots differ: this side or the
    /// other only pulls or only pushes.
    OneWay,
    /// The time was up.
    TimedOut,
    /// The replica is not here.
    UnknownReplica,
}

/// Why an attempt to dial came to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum DialFailure {
    /// No registered transport dials such addresses, or it cannot dial at all.
    NoTransport,
    /// The address means nothing to its transport.
    Malformed,
    /// Nobody answers there.
    Unreachable,
    /// Somebody is there and does not want, or is not what the address says.
    Refused,
    /// No answer came in time.
    TimedOut,
    /// The connection was lost, or the other end does not speak the protocol.
    Broken,
    /// No version of the protocol is common.
    Version,
}

/// What a session moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Entries sent.
    pub sent: u64,
    /// Entries received.
    pub received: u64,
    /// Bytes sent, frames whole.
    pub bytes_sent: u64,
    /// Bytes received, frames whole.
    pub bytes_received: u64,
    /// How often the direction changed from sending to receiving.
    pub round_trips: u64,
    /// Messages sent and received.
    pub messages: u64,
}

impl Traffic {
    /// Adds another count.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.round_trips += other.round_trips;
        self.messages += other.messages;
    }

    /// What was moved after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            received: self.received - earlier.received,
            bytes_sent: self.bytes_sent - earlier.bytes_sent,
            bytes_received: self.bytes_received - earlier.bytes_received,
            round_trips: self.round_trips - earlier.round_trips,
            messages: self.messages - earlier.messages,
        }
    }
}
