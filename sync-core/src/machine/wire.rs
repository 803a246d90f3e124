//! The messages, and their frames: a length (u32, big-endian), a kind (u8), a postcard body.
//!
//! PROTOCOL.md is the specification. Unknown kinds are skipped, so that a later version can add
//! some; a known kind with a malformed body closes the link. Nothing is allocated that the bytes
//! at hand do not bear out: postcard reads sequences element by element from the frame, which is
//! in memory whole and at most [`MAX_FRAME_LEN`] long.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{direction::Direction, limits::*};
use crate::{
    address::PeerAddress,
    model::{Bundle, Digest, PeerId, ReplicaId, Signature},
    sequence::{as_it_comes, at_most},
    store::{
        Claim, Position, ShortId, StoreId,
        coded::{MAX_SYMBOLS, Symbol},
    },
};

/// The newest version of the protocol that this code speaks.
pub const VERSION: u16 = 1;
/// The oldest one.
pub const OLDEST_VERSION: u16 = 1;

/// The first byte of a stream: what it is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum StreamKind {
    /// The first stream of a connection: handshake, then pings.
    Control = 0,
    /// A session about one replica.
    Session = 1,
    /// Requests for content.
    Content = 2,
}

impl StreamKind {
    /// The kind with this byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Control),
            1 => Some(Self::Session),
            2 => Some(Self::Content),
            _ => None,
        }
    }
}

/// The first message on the control stream, from either side.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest version that the sender speaks.
    pub oldest: u16,
    /// The newest one.
    pub newest: u16,
    /// Who the sender says it is. The proof shows it.
    pub peer: PeerId,
    /// Its store.
    pub store: StoreId,
    /// How often that store was opened.
    pub incarnation: u64,
    /// Fresh randomness.
    pub nonce: [u8; 32],
    /// Where the sender can be dialled, at most [`MAX_ADDRESSES`].
    #[serde(deserialize_with = "at_most::<_, _, MAX_ADDRESSES>")]
    pub addresses: Vec<PeerAddress>,
}

/// The second message on the control stream: an Ed25519 signature over domain, role, channel
/// binding and both hellos.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proof {
    /// The signature.
    pub signature: Signature,
}

/// The first message of a session, from its opener, and the answer to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Open {
    /// The replica.
    pub replica: ReplicaId,
    /// The sender's store.
    pub store: StoreId,
    /// The last position of its change log.
    pub head: Position,
    /// The root of what it lets the other read.
    pub root: Digest,
    /// In whose change log, and up to where, the sender has everything.
    pub have: Option<(StoreId, Position)>,
    /// Which way the sender wants entries to go.
    pub direction: Direction,
    /// Whether an application at the sender waits for what the receiver has.
    pub asks: bool,
    /// System entries that show that the sender may read.
    #[serde(deserialize_with = "at_most::<_, _, MAX_CREDENTIALS>")]
    pub credentials: Vec<Bundle>,
}

/// Why an `Open` is not answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// Not here, or not for you: the two cannot be told apart.
    NotAvailable,
    /// Another session about this replica, opened by the sender, goes first.
    Duplicate,
    /// Too many sessions, or the node is shutting down: later.
    Busy,
}

/// Where a session stands at its sender. Every message with entries carries one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// How many `Entries` of this session the sender has received and made durable.
    pub durable: u64,
    /// How many it has received, durable or not: what they hold need not be sent again.
    pub received: u64,
    /// The sender's change log has been sent up to here, this message's entries included; none
    /// before the first valid position, while a first reconciliation goes on.
    pub through: Option<Position>,
    /// The root of what the receiver may read, when all of the sender's change log has been sent.
    pub root: Option<Digest>,
    /// Whether the sender knows that both roots are equal.
    pub synced: bool,
}

/// A message of a reconciliation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ranges {
    /// Whether this begins a reconciliation.
    pub first: bool,
    /// Whether the round goes on in the next message.
    pub more: bool,
    /// At most [`MAX_CLAIMS`], disjoint, ascending, and behind those of the round's earlier messages.
    #[serde(deserialize_with = "at_most::<_, _, MAX_CLAIMS>")]
    pub claims: Vec<Claim>,
}

/// Coded symbols of all that the sender has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Symbols {
    /// Whether this begins a reconciliation.
    pub first: bool,
    /// Whether they go on in the next message.
    pub more: bool,
    /// The number of the first of them. They follow those that were sent before, or begin anew, of a later
    /// moment: then those are void.
    pub from: u32,
    /// At most [`MESSAGE_SYMBOLS`], and [`MAX_SYMBOLS`] in all.
    #[serde(deserialize_with = "at_most::<_, _, MESSAGE_SYMBOLS>")]
    pub symbols: Vec<Symbol>,
}

/// The answer to [`Symbols`], unless it is [`Ranges`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Solved {
    /// They do not come apart yet: send on, so that there are so many.
    More(u32),
    /// They came apart. The sender lacks these entries, at most [`MAX_SYMBOLS`], and sends what the receiver lacks.
    Lacking(#[serde(deserialize_with = "at_most::<_, _, MAX_SYMBOLS>")] Vec<ShortId>),
}

/// Tells a writer that entries were not accepted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// How many.
    pub count: u64,
    /// The first of them, at most [`MAX_REFUSALS`].
    #[serde(deserialize_with = "at_most::<_, _, MAX_REFUSALS>")]
    pub entries: Vec<(ShortId, RefusalReason)>,
}

/// Why an entry was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum RefusalReason {
    /// Its author's rights do not cover it.
    Rights,
    /// Its timestamp is too far ahead of the receiver's clock.
    Future,
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Kind 1.
    Hello(Hello),
    /// Kind 2.
    Proof(Proof),
    /// Kind 3.
    Ping(u64),
    /// Kind 4.
    Pong(u64),
    /// Kind 16.
    Open(Open),
    /// Kind 17.
    Opened(Open),
    /// Kind 18.
    Refuse(Refusal),
    /// Kind 19: a mark, then the encoding of `Vec<Bundle>`.
    Entries(Mark, Bytes),
    /// Kind 20.
    Mark(Mark),
    /// Kind 21.
    Ranges(Ranges),
    /// Kind 22.
    Refused(Refused),
    /// Kind 23.
    Symbols(Symbols),
    /// Kind 24.
    Solved(Solved),
}

/// Why a frame is not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The body is not what its kind says, or breaks a limit.
    #[error("a malformed message of kind {0}")]
    Malformed(u8),
    /// A frame of no bytes.
    #[error("an empty frame")]
    Empty,
}

impl Message {
    /// The message's name in PROTOCOL.md.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::Proof(_) => "Proof",
            Self::Ping(_) => "Ping",
            Self::Pong(_) => "Pong",
            Self::Open(_) => "Open",
            Self::Opened(_) => "Opened",
            Self::Refuse(_) => "Refuse",
            Self::Entries(..) => "Entries",
            Self::Mark(_) => "Mark",
            Self::Ranges(_) => "Ranges",
            Self::Refused(_) => "Refused",
            Self::Symbols(_) => "Symbols",
            Self::Solved(_) => "Solved",
        }
    }

    /// The frame's contents: kind and body, without the length.
    pub fn encode(&self) -> Bytes {
        fn body<T: Serialize>(kind: u8, value: &T) -> Bytes {
            postcard::to_extend(value, vec![kind]).expect("messages can be encoded").into()
        }
        match self {
            Self::Hello(hello) => body(1, hello),
            Self::Proof(proof) => body(2, proof),
            Self::Ping(number) => body(3, number),
            Self::Pong(number) => body(4, number),
            Self::Open(open) => body(16, open),
            Self::Opened(open) => body(17, open),
            Self::Refuse(refusal) => body(18, refusal),
            Self::Entries(mark, bundles) => {
                let mut frame = Vec::with_capacity(bundles.len() + 64);
                frame.push(19);
                let mut frame = postcard::to_extend(mark, frame).expect("messages can be encoded");
                frame.extend_from_slice(bundles);
                frame.into()
            }
            Self::Mark(mark) => body(20, mark),
            Self::Ranges(ranges) => body(21, ranges),
            Self::Refused(refused) => body(22, refused),
            Self::Symbols(symbols) => body(23, symbols),
            Self::Solved(solved) => body(24, solved),
        }
    }

    /// Reads a frame; none for a kind that this version does not know.
    pub fn decode(frame: Bytes) -> Result<Option<Self>, WireError> {
        fn body<T: DeserializeOwned>(frame: &[u8]) -> Result<T, WireError> {
            match postcard::take_from_bytes(&frame[1..]) {
                Ok((value, [])) => Ok(value),
                _ => Err(WireError::Malformed(frame[0])),
            }
        }
        let &kind = frame.first().ok_or(WireError::Empty)?;
        let message = match kind {
            1 => Self::Hello(body(&frame)?),
            2 => Self::Proof(body(&frame)?),
            3 => Self::Ping(body(&frame)?),
            4 => Self::Pong(body(&frame)?),
            16 => Self::Open(body(&frame)?),
            17 => Self::Opened(body(&frame)?),
            18 => Self::Refuse(body(&frame)?),
            19 => {
                let (mark, rest) = postcard::take_from_bytes(&frame[1..]).map_err(|_| WireError::Malformed(kind))?;
                let bundles = frame.slice(frame.len() - rest.len()..);
                Self::Entries(mark, bundles)
            }
            20 => Self::Mark(body(&frame)?),
            21 => Self::Ranges(body(&frame)?),
            22 => Self::Refused(body(&frame)?),
            23 => Self::Symbols(body(&frame)?),
            24 => Self::Solved(body(&frame)?),
            _ => return Ok(None),
        };
        let within = match &message {
            Self::Hello(hello) => hello.oldest <= hello.newest,
            Self::Ranges(ranges) => are_disjoint(&ranges.claims),
            Self::Symbols(Symbols { first, from, symbols, .. }) => {
                let from = *from as usize;
                !symbols.is_empty() && from + symbols.len() <= MAX_SYMBOLS && (from == 0 || !first)
            }
            Self::Solved(Solved::More(count)) => *count as usize <= MAX_SYMBOLS,
            Self::Solved(Solved::Lacking(ids)) => ids.is_sorted_by(|a, b| a < b),
            _ => true,
        };
        if within { Ok(Some(message)) } else { Err(WireError::Malformed(kind)) }
    }
}

fn are_disjoint(claims: &[Claim]) -> bool {
    claims.iter().all(|claim| !claim.range.is_empty())
        && claims.windows(2).all(|pair| pair[0].range.end.as_ref().is_some_and(|end| *end <= pair[1].range.start))
}

/// Encodes the bundles of an `Entries` message.
pub fn encode_bundles(bundles: &[Bundle]) -> Bytes {
    postcard::to_allocvec(bundles).expect("bundles can be encoded").into()
}

/// Reads the bundles of an `Entries` message.
pub fn decode_bundles(bytes: &[u8]) -> Result<Vec<Bundle>, WireError> {
    #[derive(Deserialize)]
    struct Bundles(#[serde(deserialize_with = "as_it_comes")] Vec<Bundle>);
    match postcard::take_from_bytes(bytes) {
        Ok((Bundles(bundles), [])) => Ok(bundles),
        _ => Err(WireError::Malformed(19)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::SlotRange, store::Have};

    fn symbols(first: bool, from: usize, count: usize) -> Message {
        let symbols = vec![Symbol::default(); count];
        Message::Symbols(Symbols { first, more: !first, from: from as u32, symbols })
    }

    #[test]
    fn every_message_comes_back_as_it_went() {
        let mark =
            Mark { durable: 3, received: 4, through: Some(Position(9)), root: Some(Digest::EMPTY), synced: true };
        let claim = Claim { range: SlotRange::ALL, have: Have::Ids(vec![ShortId([1; 16])]) };
        for message in [
            Message::Ping(7),
            Message::Mark(mark),
            Message::Entries(mark, Bytes::from_static(b"\0")),
            Message::Refuse(Refusal::NotAvailable),
            Message::Ranges(Ranges { first: true, more: false, claims: vec![claim] }),
            Message::Refused(Refused { count: 1, entries: vec![(ShortId([1; 16]), RefusalReason::Rights)] }),
            symbols(true, 0, MESSAGE_SYMBOLS),
            symbols(false, MAX_SYMBOLS - 1, 1),
            Message::Solved(Solved::More(MAX_SYMBOLS as u32)),
            Message::Solved(Solved::Lacking(vec![ShortId([1; 16]), ShortId([2; 16])])),
        ] {
            assert_eq!(Message::decode(message.encode()), Ok(Some(message)));
        }
    }

    #[test]
    fn b79_unknown_kinds_are_skipped_and_malformed_ones_are_errors() {
        assert_eq!(Message::decode(Bytes::from_static(&[200, 1, 2, 3])), Ok(None));
        assert_eq!(Message::decode(Bytes::new()), Err(WireError::Empty));
        assert_eq!(Message::decode(Bytes::from_static(&[20])), Err(WireError::Malformed(20)));
        let mut long = Message::Ping(7).encode().to_vec();
        long.push(0);
        assert_eq!(Message::decode(long.into()), Err(WireError::Malformed(3)));
    }

    #[test]
    fn b77_a_length_of_all_ones_allocates_nothing() {
        let mut frame = vec![22, 1];
        frame.extend([0xff; 9]);
        assert_eq!(Message::decode(frame.into()), Err(WireError::Malformed(22)));
        assert!(decode_bundles(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }

    #[test]
    fn symbols_that_are_none_or_too_many_are_malformed() {
        let wrong = [(true, 0, 0), (true, 0, MESSAGE_SYMBOLS + 1), (false, MAX_SYMBOLS, 1), (true, 1, 1)];
        for (first, from, count) in wrong {
            let frame = symbols(first, from, count).encode();
            assert_eq!(Message::decode(frame), Err(WireError::Malformed(23)), "{first} {from} {count}");
        }
        let ids = |count: usize| (0..count as u128).map(|n| ShortId(n.to_be_bytes())).collect();
        let twice = vec![ShortId([1; 16]); 2];
        for solved in
            [Solved::More(MAX_SYMBOLS as u32 + 1), Solved::Lacking(ids(MAX_SYMBOLS + 1)), Solved::Lacking(twice)]
        {
            assert_eq!(Message::decode(Message::Solved(solved).encode()), Err(WireError::Malformed(24)));
        }
        let most = Message::Solved(Solved::Lacking(ids(MAX_SYMBOLS))).encode();
        assert!(most.len() <= MAX_FRAME_LEN && Message::decode(most).is_ok());
    }

    #[test]
    fn claims_that_overlap_or_are_too_many_are_malformed() {
        let whole = Claim { range: SlotRange::ALL, have: Have::Digest(Digest::EMPTY) };
        let ranges = Ranges { first: true, more: false, claims: vec![whole.clone(), whole] };
        assert_eq!(Message::decode(Message::Ranges(ranges).encode()), Err(WireError::Malformed(21)));
    }
}
