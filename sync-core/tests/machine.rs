//! The machine by itself: two of them joined by hand, with no clock, socket or thread between.

#![allow(clippy::unwrap_used)]

use std::{collections::VecDeque, sync::Arc, time::Duration};

use sync_core::{
    machine::{
        Config, ConnectionId, DialId, DisconnectReason, Event, Input, Now, Output, StreamId, Synchronizer, perform,
        wire::{Message, StreamKind},
    },
    model::{
        AuthorId, Grant, HybridClock, Key, Op, PeerId, Prefix, ReplicaId, Right, SecretKey, Timestamp, Value,
        sign_commit,
    },
    store::{Apply, Origin, ReplicaStore},
};

/// The store answers from threads of its own; waiting for it is all that happens here.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

const BINDING: [u8; 32] = [9; 32];

fn now(millis: u64) -> Now {
    Now { elapsed: Duration::from_millis(millis), wall: Timestamp(1_000_000_000 + millis * 1000) }
}

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn peer(n: u8) -> PeerId {
    PeerId(key(n).public())
}

/// A machine with its store, and everything that was ever told to it and that it ever said.
struct Node {
    machine: Synchronizer,
    store: Arc<dyn ReplicaStore>,
    told: Vec<(Now, Input)>,
    said: Vec<String>,
    to_do: VecDeque<Output>,
}

impl Node {
    fn config(n: u8, store: &dyn ReplicaStore) -> Config {
        Config { key: key(n), store: store.store_id(), incarnation: 1, seed: [n; 32] }
    }

    fn new(n: u8) -> Self {
        let store: Arc<dyn ReplicaStore> = Arc::new(store_mem::open().unwrap());
        let machine = Synchronizer::new(Self::config(n, &*store), now(0));
        Self { machine, store, told: Vec::new(), said: Vec::new(), to_do: VecDeque::new() }
    }

    fn tell(&mut self, at: Now, input: Input) {
        self.told.push((at, input.clone()));
        self.machine.handle(at, input);
        while let Some(output) = self.machine.poll_output() {
            self.said.push(format!("{output:?}"));
            self.to_do.push_back(output);
        }
    }

    /// A replica of `owner` with so many values; the node itself may read and write it.
    fn replica(&mut self, n: u8, owner: &SecretKey, values: u32) -> ReplicaId {
        let id = ReplicaId(owner.public());
        let clock = HybridClock::default();
        let grants = [peer(1), peer(2)].map(|peer| {
            let grant =
                Grant { subject: peer.0, right: Right::Write, prefix: Prefix::default(), expires: None, parent: None };
            grant.to_op(&AuthorId(owner.public()))
        });
        let rights = sign_commit(id, owner, &clock, Timestamp(5), grants.to_vec()).unwrap();
        let mut bundles = vec![rights];
        for value in 0..values {
            let key_name = Key::try_from(format!("{n} {value}").as_str()).unwrap();
            let op = Op::Put { key: key_name, value: Value::Inline(vec![n; 40].into()) };
            bundles.push(sign_commit(id, &key(n), &clock, Timestamp(9), vec![op]).unwrap());
        }
        let batch =
            Apply { replica: id, bundles, origin: Origin::Local, now: Timestamp(1_000_000_000), records: vec![] };
        block_on(self.store.create_replica(id, vec![])).unwrap();
        let state = block_on(self.store.apply(batch)).unwrap().state;
        self.tell(now(1), Input::Changed { replica: id, state });
        id
    }

    fn heard_synced(&self) -> bool {
        self.said.iter().any(|said| said.starts_with("Event(Synced"))
    }
}

/// Joins two machines: the first dials, and everything that either says is done at once.
fn run(dialer: &mut Node, acceptor: &mut Node) {
    let connection = ConnectionId(1);
    let mut at = 10;
    loop {
        at += 1;
        let dialing = !dialer.to_do.is_empty();
        let Some(output) = dialer.to_do.pop_front().or_else(|| acceptor.to_do.pop_front()) else { return };
        let (here, there) = if dialing { (&mut *dialer, &mut *acceptor) } else { (&mut *acceptor, &mut *dialer) };
        // Each side numbers the other's streams by odd numbers.
        let other = |stream: StreamId| StreamId(stream.0 ^ 1);
        match output {
            Output::Dial { dial, .. } => {
                let connected =
                    |dial| Input::Connected { connection, dial, transport: "hand".into(), binding: BINDING };
                here.tell(now(at), connected(Some(dial)));
                there.tell(now(at), connected(None));
            }
            Output::OpenStream { connection, stream, kind } => {
                there.tell(now(at), Input::StreamAccepted { connection, stream: other(stream), kind });
            }
            Output::Send { connection, stream, frame } => {
                there.tell(now(at), Input::Frame { connection, stream: other(stream), frame });
            }
            Output::Store { op, request } => {
                let result = block_on(perform(&*here.store, request));
                here.tell(now(at), Input::Stored { op, result });
            }
            Output::Disconnect { connection, reason } => {
                there.tell(now(at), Input::Disconnected { connection, reason: format!("{reason:?}") });
            }
            Output::CloseStream { connection, stream } => {
                there.tell(now(at), Input::StreamEnded { connection, stream: other(stream), error: None });
            }
            Output::CancelDial { .. } | Output::Admit { .. } | Output::Event(_) | Output::Answer { .. } => {}
        }
    }
}

fn synced_pair() -> (Node, Node) {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let owner = key(7);
    let id = a.replica(1, &owner, 40);
    b.replica(2, &owner, 30);
    a.tell(now(2), Input::AddPeer { peer: peer(2), addresses: vec!["hand:b".parse().unwrap()] });
    a.tell(now(2), Input::Subscribe { replica: id, peer: peer(2) });
    run(&mut a, &mut b);
    let roots = [&a, &b].map(|node| block_on(node.store.state(id)).unwrap().root);
    assert_eq!(roots[0], roots[1]);
    assert!(a.heard_synced() && b.heard_synced());
    (a, b)
}

#[test]
fn b82_the_same_inputs_give_the_same_outputs_byte_for_byte() {
    let (a, b) = synced_pair();
    for (n, node) in [(1, a), (2, b)] {
        assert!(node.said.len() > 10, "a run worth replaying");
        let mut again = Synchronizer::new(Node::config(n, &*node.store), now(0));
        let mut said = Vec::new();
        for (at, input) in node.told {
            again.handle(at, input);
            while let Some(output) = again.poll_output() {
                said.push(format!("{output:?}"));
            }
        }
        assert_eq!(said, node.said);
    }
}

#[test]
fn b83_a_new_link_sends_nothing_but_the_handshake_until_it_is_established() {
    let mut node = Node::new(1);
    let id = node.replica(1, &key(7), 3);
    node.to_do.clear();
    node.tell(now(2), Input::AddPeer { peer: peer(2), addresses: vec!["hand:b".parse().unwrap()] });
    node.tell(now(2), Input::Subscribe { replica: id, peer: peer(2) });
    let dial = node.to_do.iter().find_map(|output| match output {
        Output::Dial { dial, .. } => Some(*dial),
        _ => None,
    });
    node.to_do.clear();
    let connection = ConnectionId(1);
    let connected = Input::Connected { connection, dial, transport: "hand".into(), binding: BINDING };
    node.tell(now(3), connected);
    node.tell(now(1000), Input::Tick);
    let mut sent = 0;
    for output in &node.to_do {
        match output {
            Output::OpenStream { kind, .. } => assert_eq!(*kind, StreamKind::Control),
            Output::Send { frame, .. } => {
                assert!(matches!(Message::decode(frame.clone()), Ok(Some(Message::Hello(_)))));
                sent += 1;
            }
            Output::Store { .. } => {}
            other => panic!("{other:?} before the peer has proved who it is"),
        }
    }
    assert_eq!(sent, 1);
}

#[test]
fn b83_anything_but_the_handshake_on_a_new_link_ends_it() {
    let accepted = |dial: Option<DialId>| Input::Connected {
        connection: ConnectionId(1),
        dial,
        transport: "hand".into(),
        binding: BINDING,
    };
    let connection = ConnectionId(1);
    let refused = |node: &Node| {
        node.to_do.iter().any(|output| matches!(output, Output::Disconnect { reason: DisconnectReason::Protocol, .. }))
    };
    // A session before the handshake.
    let mut node = Node::new(1);
    node.tell(now(1), accepted(None));
    assert_eq!(node.machine.links_refused(), 0);
    node.tell(now(2), Input::StreamAccepted { connection, stream: StreamId(1), kind: StreamKind::Session });
    assert!(refused(&node));
    assert_eq!(node.machine.links_refused(), 1, "it is counted");
    // Something else than a hello on the control stream.
    let mut node = Node::new(1);
    node.tell(now(1), accepted(None));
    node.tell(now(2), Input::StreamAccepted { connection, stream: StreamId(1), kind: StreamKind::Control });
    let frame = Message::Ping(1).encode();
    node.tell(now(3), Input::Frame { connection, stream: StreamId(1), frame });
    assert!(refused(&node));
    // Nothing at all, for too long.
    let mut node = Node::new(1);
    node.tell(now(1), accepted(None));
    assert!(node.machine.poll_timeout().unwrap() <= Duration::from_secs(6));
    node.tell(now(6000), Input::Tick);
    assert_eq!(node.machine.links_refused(), 1);
    assert!(node.to_do.iter().any(|output| matches!(output, Output::Disconnect { .. })));
}

#[test]
fn b78_a_link_on_which_nothing_is_heard_is_closed_in_bounded_time() {
    let (mut a, _) = synced_pair();
    a.to_do.clear();
    let mut at = 1000;
    while !a.said.iter().any(|said| said.contains("Silent")) {
        let next = a.machine.poll_timeout().unwrap().as_millis() as u64;
        at = next.max(at + 1);
        assert!(at < 60_000, "the link is still up after {at} ms of silence");
        a.tell(now(at), Input::Tick);
    }
    assert!(a.said.iter().any(|said| said.contains(&format!("{:?}", Event::PeerDown { peer: peer(2) }))));
}
