//! Two machines over two stores, joined by hand: no clock, socket or thread between them. Everything that
//! one says reaches the other at once and in order, and what a session says is counted.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::block_on;
use crate::{
    machine::{
        Config, ConnectionId, Input, Now, Output, StoreRequest, StreamId, Synchronizer, perform,
        wire::{Message, StreamKind},
    },
    model::{PeerId, ReplicaId, SecretKey, Timestamp},
    store::ReplicaStore,
};

/// What the machines take the wall clock for.
pub const WALL: Timestamp = Timestamp(1_700_000_000_000_000);

/// What sessions have said, in both directions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Messages.
    pub messages: u64,
    /// How often the direction changed.
    pub turns: u64,
    /// Bytes of frames, beside those with entries.
    pub bytes: u64,
    /// Bytes of frames with entries.
    pub entry_bytes: u64,
    /// The side, 0 dialled, and name of each message.
    pub names: Vec<(usize, &'static str)>,
}

/// Changes what a side says in a session, or swallows it.
pub type Tamper<'t> = &'t mut dyn FnMut(usize, Message) -> Option<Message>;

struct Node {
    machine: Synchronizer,
    store: Arc<dyn ReplicaStore>,
    to_do: VecDeque<Output>,
}

/// The two.
pub struct Pair {
    nodes: [Node; 2],
    replica: ReplicaId,
    elapsed: Duration,
    sessions: Vec<StreamId>,
    last: Option<usize>,
    /// What was said so far.
    pub said: Said,
    /// Why the connection ended, if it did.
    pub ended: Option<String>,
    /// The work of each side by [`Pair::clock`], but for the checks of signatures and the application of entries.
    pub worked: [Duration; 2],
    /// Measures work.
    pub clock: Box<dyn Fn() -> Duration>,
}

impl Pair {
    /// Machines of these keys that know nothing of each other's position. The first will dial.
    pub fn new(stores: [Arc<dyn ReplicaStore>; 2], keys: [&SecretKey; 2], replica: ReplicaId) -> Self {
        let mut side = 0;
        let nodes = stores.map(|store| {
            let seed = [side as u8 + 1; 32];
            let config = Config { key: keys[side].clone(), store: store.store_id(), incarnation: 1, seed };
            side += 1;
            let machine = Synchronizer::new(config, Now { elapsed: Duration::ZERO, wall: WALL });
            Node { machine, store, to_do: VecDeque::new() }
        });
        let mut pair = Self {
            nodes,
            replica,
            elapsed: Duration::ZERO,
            sessions: Vec::new(),
            last: None,
            said: Said::default(),
            ended: None,
            worked: [Duration::ZERO; 2],
            clock: Box::new(|| Duration::ZERO),
        };
        for at in 0..2 {
            let state = block_on(pair.nodes[at].store.state(replica)).expect("the state");
            pair.tell(at, Input::Changed { replica, state, written: None });
        }
        let peer = PeerId(keys[1].public());
        pair.tell(0, Input::AddPeer { peer, addresses: vec!["hand:b".parse().expect("an address")] });
        pair.tell(0, Input::Subscribe { replica, peer });
        pair
    }

    /// Whether both have the same entries.
    pub fn is_equal(&self) -> bool {
        let [a, b] =
            [0, 1].map(|at: usize| block_on(self.nodes[at].store.state(self.replica)).expect("the state").root);
        a == b
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Duration) {
        self.elapsed += time;
        (0..2).for_each(|at| self.tell(at, Input::Tick));
    }

    /// Tells one of them something.
    pub fn tell(&mut self, at: usize, input: Input) {
        let begin = (self.clock)();
        let node = &mut self.nodes[at];
        node.machine.handle(Now { elapsed: self.elapsed, wall: WALL }, input);
        node.to_do.extend(std::iter::from_fn(|| node.machine.poll_output()));
        self.worked[at] += (self.clock)() - begin;
    }

    /// Does everything that is to be done, and nothing that waits for time.
    pub fn run(&mut self) {
        self.run_tampered(&mut |_, message| Some(message));
    }

    /// The same, with what sessions say in other hands.
    pub fn run_tampered(&mut self, tamper: Tamper<'_>) {
        let connection = ConnectionId(1);
        let other = |stream: StreamId| StreamId(stream.0 ^ 1);
        while let Some(at) = (0..2).find(|at| !self.nodes[*at].to_do.is_empty()) {
            let there = 1 - at;
            match self.nodes[at].to_do.pop_front().expect("it was looked at") {
                Output::Dial { dial, .. } => {
                    let connected =
                        |dial| Input::Connected { connection, dial, transport: "hand".into(), binding: [9; 32] };
                    self.tell(at, connected(Some(dial)));
                    self.tell(there, connected(None));
                }
                Output::OpenStream { connection, stream, kind } => {
                    if kind == StreamKind::Session {
                        self.sessions.extend([stream, other(stream)]);
                    }
                    self.tell(there, Input::StreamAccepted { connection, stream: other(stream), kind });
                }
                Output::Send { connection, stream, mut frame } => {
                    if self.sessions.contains(&stream) {
                        let message = Message::decode(frame).expect("well-formed").expect("a known kind");
                        let Some(message) = tamper(at, message) else { continue };
                        frame = message.encode();
                        self.count(at, &message, frame.len() as u64 + 4);
                    }
                    self.tell(there, Input::Frame { connection, stream: other(stream), frame });
                }
                Output::Store { op, request } => {
                    let is_entries = matches!(request, StoreRequest::Verify { .. } | StoreRequest::Apply { .. });
                    let begin = (self.clock)();
                    let result = block_on(perform(&*self.nodes[at].store, request));
                    if !is_entries {
                        self.worked[at] += (self.clock)() - begin;
                    }
                    self.tell(at, Input::Stored { op, result });
                }
                Output::Disconnect { connection, reason } => {
                    self.ended = Some(format!("{reason:?}"));
                    self.tell(there, Input::Disconnected { connection, reason: format!("{reason:?}") });
                }
                Output::CloseStream { connection, stream } => {
                    self.tell(there, Input::StreamEnded { connection, stream: other(stream), error: None });
                }
                Output::CancelDial { .. } | Output::Admit { .. } | Output::Event(_) | Output::Answer { .. } => {}
            }
        }
    }

    fn count(&mut self, at: usize, message: &Message, len: u64) {
        self.said.messages += 1;
        self.said.turns += u64::from(self.last.replace(at) != Some(at));
        self.said.names.push((at, message.name()));
        match message {
            Message::Entries(..) => self.said.entry_bytes += len,
            _ => self.said.bytes += len,
        }
    }
}
