//! Every limit of the protocol and the machine, each with its reason.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::coded::MAX_SYMBOLS;

/// The limits that decide how a session goes. All nodes of a network have the same: what one sends, the other must take.
/// The protocol's are the defaults; a simulation makes them small, so that full windows and deep reconciliations are
/// reached with few entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// See [`ENTRIES_FRAME_LEN`].
    pub entries_frame_len: usize,
    /// See [`WINDOW_LEN`].
    pub window_len: usize,
    /// See [`WINDOW_FRAMES`].
    pub window_frames: u64,
    /// See [`RECEIPT_LEN`].
    pub receipt_len: usize,
    /// See [`APPLY_LEN`].
    pub apply_len: usize,
    /// See [`NEARLY_EMPTY`].
    pub nearly_empty: u64,
    /// How many claims go into one message; at most [`MAX_CLAIMS`], which is what is taken.
    pub claims: usize,
    /// See [`MAX_ROUND_CLAIMS`].
    pub round_claims: usize,
    /// See [`MAX_ROUND_LEN`].
    pub round_len: usize,
    /// Coded symbols are tried when the numbers of entries differ by at most so many; 0: never.
    pub symbols: u64,
    /// See [`MAX_SESSIONS`].
    pub sessions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries_frame_len: ENTRIES_FRAME_LEN,
            window_len: WINDOW_LEN,
            window_frames: WINDOW_FRAMES,
            receipt_len: RECEIPT_LEN,
            apply_len: APPLY_LEN,
            nearly_empty: NEARLY_EMPTY,
            claims: MAX_CLAIMS,
            round_claims: MAX_ROUND_CLAIMS,
            round_len: MAX_ROUND_LEN,
            symbols: MAX_SYMBOLS as u64,
            sessions: MAX_SESSIONS,
        }
    }
}

impl Limits {
    /// How many messages of a session may wait for the disk: as many again as a window's entries and their marks, but
    /// a whole round at least, in which a message may be half as long as it may be or have as many claims as it may.
    pub fn waiting_messages(&self) -> u64 {
        let round = 2 * (self.round_len / self.entries_frame_len.max(1)) + self.round_claims / self.claims.max(1);
        (4 * self.window_frames).max(2 * self.window_frames + round as u64)
    }
}

/// The longest frame, in bytes. Bounds what one message can make a node hold.
pub const MAX_FRAME_LEN: usize = 1 << 20;

/// How often a frame of entries may be halved while none arrives: 4 KiB then.
pub const MAX_NARROW: u32 = 6;

/// The longest frame before the peer has proved who it is.
pub const MAX_HANDSHAKE_FRAME_LEN: usize = 8 * 1024;

/// How many encoded bytes of entries go into one frame: large enough that framing costs nothing,
/// small enough that a control message never waits long behind it.
pub const ENTRIES_FRAME_LEN: usize = 256 * 1024;

/// How many bytes of entries may be under way to a peer, unacknowledged. Bounds both sides'
/// memory; 8 MiB covers 1 Gbit/s at 60 ms.
pub const WINDOW_LEN: usize = 8 << 20;

/// How many frames of entries may be unacknowledged.
pub const WINDOW_FRAMES: u64 = 512;

/// How many bytes of entries may be on their way, not known to have arrived: this part of all that the session is
/// to send, or a frame more than a receipt's length. What is on its way when a connection is cut is sent again.
pub const FLIGHT_PART: usize = 20;

/// After how many bytes of entries a receiver says that they have arrived, though they are not durable yet.
pub const RECEIPT_LEN: usize = 64 * 1024;

/// How many bytes of received entries are applied at once, each counted with [`VERIFIED_LEN`] more: some 9,000 entries
/// that are small. With random keys most of them change a page of their own, which the next transaction writes again.
/// What waits while a transaction is written goes into the next one together; when that is as much, further ones are not
/// verified yet.
pub const APPLY_LEN: usize = 4 << 20;

/// What a verified entry takes in memory beside its bytes, about: its parts, its hash, its key as a place.
pub const VERIFIED_LEN: usize = 384;

/// This part of [`APPLY_LEN`] is verified at once, or a frame.
pub const VERIFY_PART: usize = 16;

/// A replica of at most so many entries is sent whole rather than compared: comparing takes a
/// round trip, sixteen entries are a packet or two.
pub const NEARLY_EMPTY: u64 = 16;

/// The most claims in one message of a reconciliation.
pub const MAX_CLAIMS: usize = 256;

/// The most claims that one round of a reconciliation may have. What does not fit is found by the
/// next reconciliation.
pub const MAX_ROUND_CLAIMS: usize = 16_384;

/// The most bytes of claims that one round of a reconciliation may have: they wait at the receiver, in memory, while
/// entries before them are written.
pub const MAX_ROUND_LEN: usize = 8 << 20;

/// The most coded symbols in one message: about 200 KB, so that another message never waits long behind it.
pub const MESSAGE_SYMBOLS: usize = 8_192;

/// The most rounds of one reconciliation. 16-way splits reach single keys of 2^64 entries in 16.
pub const MAX_ROUNDS: u32 = 64;

/// The most addresses a peer may claim to have.
pub const MAX_ADDRESSES: usize = 8;

/// The most credentials (bundles of system entries) in an `Open`.
pub const MAX_CREDENTIALS: usize = 16;

/// The most links that are kept to one peer. The newest is refused above that.
pub const MAX_LINKS: usize = 4;

/// The most sessions one peer may have open: as many as a node has replicas in practice.
pub const MAX_SESSIONS: usize = 1024;

/// How long the handshake may take.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// How long an `Open` may stay unanswered. Reading a root costs the peer a millisecond.
pub const OPEN_DEADLINE: Duration = Duration::from_secs(20);

/// How long a session waits for the peer's next word while something is under way in it. Pings show that its node lives,
/// not that it goes on; what it may have to do first, a transaction, takes seconds on a slow disk.
pub const STALL_DEADLINE: Duration = Duration::from_secs(60);

/// How long after one address of a peer the next one is tried too (RFC 8305, "connection attempt delay").
pub const DIAL_STAGGER: Duration = Duration::from_millis(250);

/// The first delay after a failed attempt; each further one doubles it.
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// The longest delay between attempts.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A link that lasted so long was worth making: when it ends it is made again at once.
pub const LINK_SETTLED: Duration = Duration::from_secs(10);

/// How often a link without traffic is pinged.
pub const PING_IDLE: Duration = Duration::from_secs(10);

/// How often a link with traffic is pinged.
pub const PING_ACTIVE: Duration = Duration::from_secs(1);

/// A link on which nothing was heard for this long is closed.
pub const SILENCE_IDLE: Duration = Duration::from_secs(25);

/// The same while something is under way on it: another way to the peer may be better.
pub const SILENCE_ACTIVE: Duration = Duration::from_secs(5);

/// How long a link counts as active after traffic. Longer than [`SILENCE_ACTIVE`]: whoever waits for what is to come has
/// nothing to send, and would take a link that died in the middle of it for an idle one.
pub const ACTIVE_FOR: Duration = Duration::from_secs(8);

/// How often an idle session compares roots.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// How long after a change cursors are saved when nothing else is written. They only save work
/// after a restart, so a lost one costs a few entries sent twice.
pub const SAVE_DELAY: Duration = Duration::from_millis(500);

/// How many refusals a peer reports in one message; the rest only counts.
pub const MAX_REFUSALS: usize = 32;
