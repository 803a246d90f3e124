//! What the tests share: nodes that are machine and store and nothing else, and a wire between two of them.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use sync_core::{
    machine::{
        Config, ConnectionId, DialFailure, Input, Now, Output, PeerStatus, StreamId, Synchronizer, limits::Limits,
        perform, wire::StreamKind,
    },
    model::{
        AuthorId, Grant, HybridClock, Key, Op, PeerId, Prefix, PublicKey, ReplicaId, Right, SecretKey, Timestamp,
        Value, sign_commit,
    },
    store::{Apply, NodeKind, NodeRecord, Origin, ReplicaState, ReplicaStore},
};

/// The store answers from threads of its own; waiting for it is all that happens here.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

pub const BINDING: [u8; 32] = [9; 32];

pub fn now(millis: u64) -> Now {
    Now { elapsed: Duration::from_millis(millis), wall: Timestamp(1_000_000_000 + millis * 1000) }
}

pub fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

pub fn peer(n: u8) -> PeerId {
    PeerId(key(n).public())
}

/// A machine with its store, and everything that was ever told to it and that it ever said.
pub struct Node {
    pub machine: Synchronizer,
    pub store: Arc<dyn ReplicaStore>,
    pub told: Vec<(Now, Input)>,
    pub said: Vec<String>,
    pub to_do: VecDeque<Output>,
}

impl Node {
    pub fn config(n: u8, store: &dyn ReplicaStore) -> Config {
        Config { key: key(n), store: store.store_id(), incarnation: 1, seed: [n; 32] }
    }

    pub fn new(n: u8) -> Self {
        Self::with_limits(n, Limits::default())
    }

    pub fn with_limits(n: u8, limits: Limits) -> Self {
        let store: Arc<dyn ReplicaStore> = Arc::new(store_mem::open().unwrap());
        let machine = Synchronizer::with_limits(Self::config(n, &*store), now(0), limits);
        Self { machine, store, told: Vec::new(), said: Vec::new(), to_do: VecDeque::new() }
    }

    pub fn tell(&mut self, at: Now, input: Input) {
        self.told.push((at, input.clone()));
        self.machine.handle(at, input);
        while let Some(output) = self.machine.poll_output() {
            self.said.push(format!("{output:?}"));
            self.to_do.push_back(output);
        }
    }

    /// A replica of `owner` with so many values; both nodes may read and write it.
    pub fn replica(&mut self, n: u8, owner: &SecretKey, values: u32) -> ReplicaId {
        self.replica_with(n, owner, values, "")
    }

    /// The same; node 2 may read and write what begins with `prefix`.
    pub fn replica_with(&mut self, n: u8, owner: &SecretKey, values: u32, prefix: &'static str) -> ReplicaId {
        self.replica_of(n, owner, values, &[(peer(1), ""), (peer(2), prefix)])
    }

    /// The same; node 2 may not read it.
    pub fn replica_of_one(&mut self, n: u8, owner: &SecretKey, values: u32) -> ReplicaId {
        self.replica_of(n, owner, values, &[(peer(1), "")])
    }

    fn replica_of(&mut self, n: u8, owner: &SecretKey, values: u32, members: &[(PeerId, &'static str)]) -> ReplicaId {
        let id = ReplicaId(owner.public());
        let clock = HybridClock::default();
        let grants = members.iter().map(|(peer, prefix)| {
            let prefix = Prefix::new(*prefix).unwrap();
            let grant = Grant { subject: peer.0, right: Right::Write, prefix, expires: None, parent: None };
            grant.to_op(&AuthorId(owner.public()))
        });
        let rights = sign_commit(id, owner, &clock, Timestamp(5), grants.collect()).unwrap();
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
        self.tell(now(1), Input::Changed { replica: id, state, written: None });
        id
    }

    /// Writes values `name 0`, `name 1` and so on, one a commit, as node `n`.
    pub fn put(&mut self, n: u8, replica: ReplicaId, name: &str, values: u32) {
        let at = self.told.last().unwrap().0;
        let state = self.write(n, replica, name, values);
        self.tell(at, Input::Changed { replica, state, written: None });
    }

    /// The same, and the machine is not told yet.
    pub fn write(&mut self, n: u8, replica: ReplicaId, name: &str, values: u32) -> ReplicaState {
        let clock = HybridClock::new(block_on(self.store.state(replica)).unwrap().newest);
        let bundles = (0..values).map(|value| {
            let key_name = Key::try_from(format!("{name} {value}").as_str()).unwrap();
            let op = Op::Put { key: key_name, value: Value::Inline(vec![n; 40].into()) };
            sign_commit(replica, &key(n), &clock, Timestamp(9), vec![op]).unwrap()
        });
        let bundles = bundles.collect();
        let batch = Apply { replica, bundles, origin: Origin::Local, now: Timestamp(1_000_000_000), records: vec![] };
        block_on(self.store.apply(batch)).unwrap().state
    }

    /// Like `replica`, with values of 4 KiB in commits of 50.
    pub fn large_replica(&mut self, n: u8, owner: &SecretKey, values: u32) -> ReplicaId {
        let id = self.replica(n, owner, 0);
        let clock = HybridClock::new(Timestamp(9));
        let value = |value: u32| Op::Put {
            key: Key::try_from(format!("{value:05}").as_str()).unwrap(),
            value: Value::Inline(vec![value as u8; 4096].into()),
        };
        let numbers: Vec<u32> = (0..values).collect();
        let commits = numbers.chunks(50).map(|part| part.iter().map(|n| value(*n)).collect());
        let bundles = commits.map(|ops| sign_commit(id, &key(n), &clock, Timestamp(9), ops).unwrap()).collect();
        let batch =
            Apply { replica: id, bundles, origin: Origin::Local, now: Timestamp(1_000_000_000), records: vec![] };
        let state = block_on(self.store.apply(batch)).unwrap().state;
        self.tell(now(1), Input::Changed { replica: id, state, written: None });
        id
    }

    /// How many entries a replica has.
    pub fn count(&self, replica: ReplicaId) -> u64 {
        block_on(self.store.state(replica)).unwrap().root.count
    }

    /// The replica of `owner` becomes readable for everybody.
    pub fn grant_everybody(&mut self, owner: &SecretKey) {
        self.grant_reading(owner, PublicKey([0; 32]), "");
    }

    /// A key may read what begins with `prefix` in the replica of `owner`.
    pub fn grant_reading(&mut self, owner: &SecretKey, subject: PublicKey, prefix: &'static str) {
        let state = self.write_grant(owner, subject, prefix);
        let at = self.told.last().unwrap().0;
        self.tell(at, Input::Changed { replica: ReplicaId(owner.public()), state, written: None });
    }

    /// The same, and the machine is not told yet.
    pub fn write_grant(&mut self, owner: &SecretKey, subject: PublicKey, prefix: &'static str) -> ReplicaState {
        self.write_grant_until(owner, subject, prefix, None)
    }

    /// The same, until a time by the wall clock.
    pub fn write_grant_until(
        &mut self,
        owner: &SecretKey,
        subject: PublicKey,
        prefix: &'static str,
        expires: Option<Timestamp>,
    ) -> ReplicaState {
        let id = ReplicaId(owner.public());
        let grant = Grant { subject, right: Right::Read, prefix: Prefix::new(prefix).unwrap(), expires, parent: None };
        let op = grant.to_op(&AuthorId(owner.public()));
        let bundle = sign_commit(id, owner, &HybridClock::default(), Timestamp(6), vec![op]).unwrap();
        let batch = Apply {
            replica: id,
            bundles: vec![bundle],
            origin: Origin::Local,
            now: Timestamp(1_000_000_000),
            records: vec![],
        };
        block_on(self.store.apply(batch)).unwrap().state
    }

    /// The number of the control stream that it opened last.
    pub fn control_stream(&self) -> u64 {
        let opened = self.said.iter().rev().find(|said| said.starts_with("OpenStream") && said.contains("Control"));
        let number = opened.unwrap().split("StreamId(").nth(1).unwrap().split(')').next().unwrap();
        number.parse().unwrap()
    }

    pub fn heard_synced(&self) -> bool {
        self.said.iter().any(|said| said.starts_with("Event(Synced"))
    }
}

/// Makes another frame of one that A (1) or B (2) has sent.
pub type Rewrite = Box<dyn FnMut(u8, Bytes) -> Bytes>;

/// Two nodes and the wire between them, on virtual time.
pub struct Pair {
    pub a: Node,
    pub b: Node,
    /// Milliseconds.
    pub at: u64,
    /// What becomes of a dial: a connection, or an error.
    pub reachable: Result<(), DialFailure>,
    /// What B says in its sessions is lost. Its link lives: pings are answered.
    pub b_says_nothing: bool,
    /// Whose turn it is when both have something to do: A's, or whose a seed says.
    pub turns: Option<u64>,
    /// What somebody on the path makes of frames: of A's, or of B's.
    pub rewrites: Option<Rewrite>,
    /// A connection ends when it has carried so many bytes.
    pub carries: usize,
    carried: usize,
    connections: u64,
    open: BTreeSet<ConnectionId>,
}

impl Pair {
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub fn with_limits(limits: Limits) -> Self {
        let (a, b) = (Node::with_limits(1, limits), Node::with_limits(2, limits));
        Self {
            a,
            b,
            at: 10,
            reachable: Ok(()),
            b_says_nothing: false,
            turns: None,
            rewrites: None,
            carries: usize::MAX,
            carried: 0,
            connections: 0,
            open: BTreeSet::new(),
        }
    }

    /// A is 1, B is 2.
    pub fn node(&mut self, n: u8) -> &mut Node {
        if n == 1 { &mut self.a } else { &mut self.b }
    }

    /// Lets A know where B is, and want this replica equal there.
    pub fn subscribe(&mut self, replica: ReplicaId) {
        self.subscribe_only(replica);
        self.work();
    }

    /// The same, and nothing that follows is done yet.
    pub fn subscribe_only(&mut self, replica: ReplicaId) {
        self.a.tell(now(self.at), Input::AddPeer { peer: peer(2), addresses: vec!["hand:b".parse().unwrap()] });
        self.a.tell(now(self.at), Input::Subscribe { replica, peer: peer(2) });
    }

    /// Tells A something and lets both do what follows.
    pub fn tell(&mut self, input: Input) {
        self.a.tell(now(self.at), input);
        self.work();
    }

    /// Everything that either says is done at once.
    pub fn work(&mut self) {
        while self.step() {}
    }

    /// Does what was said first; false when there is nothing.
    pub fn step(&mut self) -> bool {
        let from_a = match (self.a.to_do.is_empty(), self.b.to_do.is_empty(), &mut self.turns) {
            (true, true, _) => return false,
            (false, false, Some(state)) => {
                *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *state >> 63 == 0
            }
            (is_empty, ..) => !is_empty,
        };
        let said = if from_a { &mut self.a.to_do } else { &mut self.b.to_do };
        let output = said.pop_front().expect("it has something to do");
        let at = now(self.at);
        let (here, there) = if from_a { (&mut self.a, &mut self.b) } else { (&mut self.b, &mut self.a) };
        // Each side numbers the other's streams by odd numbers.
        let other = |stream: StreamId| StreamId(stream.0 ^ 1);
        match output {
            Output::Dial { dial, .. } => match self.reachable {
                Ok(()) => {
                    self.connections += 1;
                    self.carried = 0;
                    let connection = ConnectionId(self.connections);
                    self.open.insert(connection);
                    let connected =
                        |dial| Input::Connected { connection, dial, transport: "hand".into(), binding: BINDING };
                    here.tell(at, connected(Some(dial)));
                    there.tell(at, connected(None));
                }
                Err(why) => here.tell(at, Input::DialFailed { dial, why, error: "nobody is there".into() }),
            },
            Output::OpenStream { connection, stream, kind } if self.open.contains(&connection) => {
                there.tell(at, Input::StreamAccepted { connection, stream: other(stream), kind });
            }
            // Types from 16 on are messages of sessions.
            Output::Send { frame, .. } if self.b_says_nothing && !from_a && frame[0] >= 16 => {}
            Output::Send { connection, frame, .. }
                if self.open.contains(&connection) && self.carried + frame.len() > self.carries =>
            {
                self.cut();
            }
            Output::Send { connection, stream, frame } if self.open.contains(&connection) => {
                self.carried += frame.len();
                let from = if from_a { 1 } else { 2 };
                let frame = self.rewrites.as_mut().map_or(frame.clone(), |rewrite| rewrite(from, frame));
                there.tell(at, Input::Frame { connection, stream: other(stream), frame });
            }
            Output::CloseStream { connection, stream } if self.open.contains(&connection) => {
                there.tell(at, Input::StreamEnded { connection, stream: other(stream), error: None });
            }
            Output::Disconnect { connection, reason } if self.open.remove(&connection) => {
                there.tell(at, Input::Disconnected { connection, reason: format!("{reason:?}") });
            }
            Output::Store { op, request } => {
                let result = block_on(perform(&*here.store, request));
                here.tell(at, Input::Stored { op, result });
            }
            _ => {}
        }
        true
    }

    /// Every connection is cut; what was not done yet is still done.
    pub fn cut(&mut self) {
        for connection in std::mem::take(&mut self.open) {
            for node in [&mut self.a, &mut self.b] {
                node.tell(now(self.at), Input::Disconnected { connection, reason: "cut".into() });
            }
        }
    }

    /// Lets time pass until this millisecond; each machine is told the time exactly when it wants to be.
    pub fn wait_until(&mut self, until: u64) {
        loop {
            let wanted = [&self.a, &self.b].into_iter().filter_map(|node| node.machine.poll_timeout()).min();
            let next = wanted.map_or(u64::MAX, |at| at.as_micros().div_ceil(1000) as u64);
            if next > until {
                break;
            }
            self.at = self.at.max(next);
            for node in [&mut self.a, &mut self.b] {
                node.tell(now(self.at), Input::Tick);
            }
            self.work();
        }
        self.at = until;
    }

    /// Where B stands with A.
    pub fn status_at_b(&self) -> PeerStatus {
        self.b.machine.status()[0].peers[0].clone()
    }

    /// Where A stands with B.
    pub fn status(&self) -> PeerStatus {
        self.a.machine.status()[0].peers[0].clone()
    }

    /// How many sessions A has opened.
    pub fn opened(&self) -> usize {
        let opened =
            |said: &&String| said.starts_with("OpenStream") && said.contains(&format!("{:?}", StreamKind::Session));
        self.a.said.iter().filter(opened).count()
    }
}

impl Node {
    /// The same node after a restart: what is in its store is all that is left.
    pub fn restarted(&self, n: u8) -> Self {
        let records: Vec<NodeRecord> = [NodeKind::Peer, NodeKind::Job]
            .into_iter()
            .flat_map(|kind| block_on(self.store.node_records(kind)).unwrap())
            .collect();
        let machine = Synchronizer::new(Self::config(n, &*self.store), now(0));
        let mut node =
            Self { machine, store: self.store.clone(), told: Vec::new(), said: Vec::new(), to_do: VecDeque::new() };
        node.tell(now(0), Input::Restored { records });
        for replica in block_on(self.store.replicas()).unwrap() {
            let state = block_on(self.store.state(replica)).unwrap();
            node.tell(now(0), Input::Changed { replica, state, written: None });
        }
        node
    }
}
