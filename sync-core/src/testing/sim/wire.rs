//! Simulated connections: streams of frames that stay in order each, and overtake each other.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::spent::Said;
use crate::machine::{ConnectionId, DialId, StreamId, wire::StreamKind};

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Who dialled.
    Dialer,
    /// Who was dialled.
    Acceptor,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }

    /// As an index.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// What travels on a stream.
#[derive(Debug, Clone)]
pub enum Item {
    /// The stream is opened.
    Open(StreamKind),
    /// A frame.
    Frame(Bytes),
    /// Nothing more comes.
    End,
}

/// One end of a connection, as its node holds it.
#[derive(Debug)]
pub struct End {
    pub node: usize,
    /// The life of the node that holds it.
    pub epoch: u64,
    /// Its number there, once the machine was told.
    pub connection: Option<ConnectionId>,
    /// Whether the node still holds it.
    pub open: bool,
    pub admitted: bool,
    pub accepted: u64,
    /// The streams by their numbers here.
    pub numbers: BTreeMap<StreamId, usize>,
    /// Streams whose items wait until the peer is admitted; one mark an item.
    pub waiting: VecDeque<usize>,
    /// Streams whose items wait until the way is free; one mark an item.
    pub stalled: VecDeque<usize>,
}

impl End {
    fn new(node: usize, epoch: u64) -> Self {
        Self {
            node,
            epoch,
            connection: None,
            open: true,
            admitted: false,
            accepted: 0,
            numbers: BTreeMap::new(),
            waiting: VecDeque::new(),
            stalled: VecDeque::new(),
        }
    }
}

/// A stream.
#[derive(Debug)]
pub struct Stream {
    /// What is on its way to each side.
    pub queues: [VecDeque<Item>; 2],
    /// When the last of it arrives.
    pub last_us: [u64; 2],
    /// Its number at each side, while that side uses it.
    pub numbers: [Option<StreamId>; 2],
    /// Messages of reconciliations so far.
    pub rounds: u64,
    /// The replica that it is about, once that was said.
    pub replica: Option<usize>,
    /// What each side has said.
    pub said: [Said; 2],
}

/// A connection.
#[derive(Debug)]
pub struct Wire {
    pub dial: DialId,
    pub binding: [u8; 32],
    pub ends: [End; 2],
    pub streams: Vec<Stream>,
    /// What goes to this side is swallowed.
    pub swallows: [bool; 2],
    /// Messages sent so far, for draws.
    pub sent: u64,
    /// Whether somebody is counting the time of a stall.
    pub timing: bool,
    /// The name of the transport.
    pub transport: String,
    /// A fault has ended it: what is still on its way is lost by that.
    pub broken: bool,
}

impl Wire {
    pub fn new(
        dial: DialId,
        binding: [u8; 32],
        transport: String,
        dialer: (usize, u64),
        acceptor: (usize, u64),
    ) -> Self {
        Self {
            dial,
            binding,
            ends: [End::new(dialer.0, dialer.1), End::new(acceptor.0, acceptor.1)],
            streams: Vec::new(),
            swallows: [false; 2],
            sent: 0,
            timing: false,
            transport,
            broken: false,
        }
    }

    pub fn end(&self, side: Side) -> &End {
        &self.ends[side.index()]
    }

    pub fn end_mut(&mut self, side: Side) -> &mut End {
        &mut self.ends[side.index()]
    }

    /// A stream that `side` opens under its number.
    pub fn open(&mut self, side: Side, number: StreamId) -> usize {
        let index = self.streams.len();
        let mut numbers = [None; 2];
        numbers[side.index()] = Some(number);
        self.streams.push(Stream {
            queues: Default::default(),
            last_us: [0; 2],
            numbers,
            rounds: 0,
            replica: None,
            said: Default::default(),
        });
        self.end_mut(side).numbers.insert(number, index);
        index
    }

    /// How many items are on their way; those that wait or are stalled have arrived.
    pub fn under_way(&self) -> u64 {
        let queued: usize = self.streams.iter().flat_map(|stream| &stream.queues).map(VecDeque::len).sum();
        let arrived: usize = self.ends.iter().map(|end| end.waiting.len() + end.stalled.len()).sum();
        queued.saturating_sub(arrived) as u64
    }

    /// `side` uses the stream no more.
    pub fn forget(&mut self, side: Side, stream: usize) {
        if let Some(number) = self.streams[stream].numbers[side.index()].take() {
            self.end_mut(side).numbers.remove(&number);
        }
    }
}
