//! The machine under whatever a driver and a peer can tell it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use super::Input as Bits;
use crate::{
    machine::{
        AskId, Config, ConnectionId, DialFailure, DialId, Direction, Input, Now, OpId, Output, Role, StoreRequest,
        StreamId, Synchronizer, Target, Transcript, WorkError, perform,
        wire::{
            Hello, Mark, Message, OLDEST_VERSION, Open, Ranges, Refusal, Solved, StreamKind, Symbols, VERSION,
            encode_bundles,
        },
    },
    model::{
        AuthorId, Digest, Grant, Hash, HybridClock, PeerId, Prefix, ReplicaId, Right, SecretKey, SlotRange, sign_commit,
    },
    store::{
        Apply, Claim, Have, NodeKind, NodeRecord, Origin, Position, ReplicaStore, ShortId, StoreError, StoreId,
        coded::CodedSet,
    },
    testing::{
        block_on,
        sim::{Disk, SimStore},
        store_suite::world::{NOW, put},
    },
};

/// At most so many inputs: what goes wrong goes wrong in few.
const MAX_STEPS: usize = 120;

/// So many outputs may follow one input.
const MAX_OUTPUTS: usize = 4_096;

/// 0 owns the replica, 1 is this node, 2 may read and write, 3 is a stranger. A peer is 2 or 3.
fn person(number: u8) -> SecretKey {
    SecretKey::from_bytes([number + 1; 32])
}

fn peer(number: u8) -> PeerId {
    PeerId(person(number).public())
}

/// What the driver knows of a connection.
#[derive(Debug, Default)]
struct Wire {
    we_dialled: bool,
    binding: [u8; 32],
    control: Option<StreamId>,
    our_hello: Option<Bytes>,
    their_hello: Option<Bytes>,
    admitted: Option<PeerId>,
    streams: Vec<StreamId>,
}

struct Driver {
    machine: Synchronizer,
    store: SimStore,
    replica: ReplicaId,
    now: Now,
    wires: BTreeMap<ConnectionId, Wire>,
    dials: Vec<DialId>,
    work: VecDeque<(OpId, StoreRequest)>,
    trace: blake3::Hasher,
    number: u64,
}

/// No panic, no secret told, nothing but the handshake before a peer has proved who it is; and the same inputs give
/// the same outputs.
pub fn machine(data: &[u8]) {
    let play = || {
        let mut driver = Driver::new();
        let mut bits = Bits::new(data);
        for _ in 0..MAX_STEPS {
            if bits.is_empty() {
                break;
            }
            driver.step(&mut bits);
        }
        driver.trace.finalize()
    };
    assert_eq!(play(), play(), "the same inputs give the same outputs");
}

impl Driver {
    fn new() -> Self {
        let store = SimStore::open(Disk::default(), [7; 32]).expect("memory can be opened");
        let owner = person(0);
        let replica = ReplicaId(owner.public());
        let clock = HybridClock::default();
        let grants = [1, 2].map(|number| {
            let grant = Grant {
                subject: person(number).public(),
                right: Right::Write,
                prefix: Prefix::default(),
                expires: None,
                parent: None,
            };
            grant.to_op(&AuthorId(owner.public()))
        });
        let mut bundles =
            vec![sign_commit(replica, &owner, &clock, NOW, grants.to_vec()).expect("grants can be signed")];
        for n in 0..40 {
            bundles.push(
                sign_commit(replica, &owner, &clock, NOW, vec![put(&format!("{n}"), "secret")])
                    .expect("it can be signed"),
            );
        }
        block_on(store.create_replica(replica, Vec::new())).expect("memory can be written");
        let batch = Apply { replica, bundles, origin: Origin::Local, now: NOW, records: Vec::new() };
        let state = block_on(store.apply(batch)).expect("memory can be written").state;
        let now = Now { elapsed: Duration::ZERO, wall: NOW };
        let config = Config { key: person(1), store: store.store_id(), incarnation: 1, seed: [3; 32] };
        let mut driver = Self {
            machine: Synchronizer::new(config, now),
            store,
            replica,
            now,
            wires: BTreeMap::new(),
            dials: Vec::new(),
            work: VecDeque::new(),
            trace: blake3::Hasher::new(),
            number: 0,
        };
        driver.tell(Input::Changed { replica, state, written: None });
        driver
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn tell(&mut self, input: Input) {
        self.machine.handle(self.now, input);
        let mut outputs = 0;
        while let Some(output) = self.machine.poll_output() {
            outputs += 1;
            assert!(outputs < MAX_OUTPUTS, "the machine does not come to an end");
            self.trace.update(format!("{output:?}").as_bytes());
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { dial, .. } => self.dials.push(dial),
            Output::CancelDial { dial } => self.dials.retain(|known| *known != dial),
            Output::Admit { connection, peer } => {
                let wire = self.wires.get_mut(&connection).expect("only what is connected is admitted");
                assert!(wire.admitted.replace(peer).is_none(), "a peer is admitted once");
                assert!(peer == self::peer(2) || peer == self::peer(3), "only who has the key can prove it");
            }
            Output::Disconnect { connection, .. } => drop(self.wires.remove(&connection)),
            Output::OpenStream { connection, stream, kind } => {
                let Some(wire) = self.wires.get_mut(&connection) else { return };
                assert!(kind == StreamKind::Control || wire.admitted.is_some(), "nothing is opened before the proof");
                if kind == StreamKind::Control {
                    wire.control = Some(stream);
                }
                wire.streams.push(stream);
            }
            Output::Send { connection, stream, frame } => self.sent(connection, stream, frame),
            Output::Store { op, request } => self.work.push_back((op, request)),
            Output::CloseStream { .. } | Output::Event(_) | Output::Answer { .. } => {}
        }
    }

    fn sent(&mut self, connection: ConnectionId, stream: StreamId, frame: Bytes) {
        let Some(wire) = self.wires.get_mut(&connection) else { return };
        assert!(wire.streams.contains(&stream), "only what is open is sent on");
        let message =
            Message::decode(frame.clone()).expect("the machine speaks its own protocol").expect("and its own kinds");
        match &message {
            Message::Hello(_) => wire.our_hello = Some(frame),
            Message::Proof(_) => {}
            other => assert!(wire.admitted.is_some(), "{} is said before the proof", other.name()),
        }
        let may_read = wire.admitted == Some(peer(2));
        let is_telling = match &message {
            Message::Opened(_)
            | Message::Entries(..)
            | Message::Mark(_)
            | Message::Refused(_)
            | Message::Symbols(_)
            | Message::Solved(_) => true,
            Message::Ranges(ranges) => !ranges.claims.is_empty(),
            _ => false,
        };
        assert!(may_read || !is_telling, "a stranger is told {message:?}");
    }

    fn connection(&self, bits: &mut Bits<'_>) -> ConnectionId {
        let number = bits.below(self.wires.len() + 1);
        self.wires.keys().nth(number).copied().unwrap_or(ConnectionId(99))
    }

    fn stream(&self, connection: ConnectionId, bits: &mut Bits<'_>) -> StreamId {
        let streams = self.wires.get(&connection).map(|wire| &wire.streams[..]).unwrap_or_default();
        streams.get(bits.below(streams.len() + 1)).copied().unwrap_or(StreamId(77))
    }

    fn step(&mut self, bits: &mut Bits<'_>) {
        match bits.below(24) {
            0 => self.pass_time(bits),
            1 => {
                let addresses =
                    vec!["mem:a".parse().expect("an address"), "quic://192.0.2.1:1".parse().expect("an address")];
                self.tell(Input::AddPeer { peer: peer(2 + bits.byte() % 2), addresses });
            }
            2 => self.tell(Input::Subscribe { replica: self.some_replica(bits), peer: peer(2 + bits.byte() % 2) }),
            3 => self.tell(Input::Unsubscribe { replica: self.some_replica(bits), peer: peer(2 + bits.byte() % 2) }),
            4 => {
                let target = if bits.one_in(2) {
                    Target::Address("mem:b".parse().expect("an address"))
                } else {
                    Target::Peer(peer(2))
                };
                let ask = AskId(self.next_number());
                self.tell(Input::Sync {
                    ask,
                    replica: self.some_replica(bits),
                    target,
                    timeout: Duration::from_secs(bits.byte().into()),
                });
            }
            5 | 6 => self.connect(bits),
            7 => self.accept(bits),
            8 => {
                let connection = self.connection(bits);
                let stream = self.stream(connection, bits);
                let frame = Bytes::copy_from_slice(bits.bytes(250));
                self.tell(Input::Frame { connection, stream, frame });
            }
            9 | 10 => self.shake_hands(bits),
            11..=13 => self.say(bits),
            14 => {
                let connection = self.connection(bits);
                let stream = self.stream(connection, bits);
                self.tell(Input::StreamEnded { connection, stream, error: bits.one_in(2).then(|| "cut".into()) });
            }
            15 => {
                let connection = self.connection(bits);
                self.wires.remove(&connection);
                self.tell(Input::Disconnected { connection, reason: "gone".into() });
            }
            16 if !self.dials.is_empty() => {
                let dial = self.dials.remove(bits.below(self.dials.len()));
                let why = if bits.one_in(2) { DialFailure::Unreachable } else { DialFailure::NoTransport };
                self.tell(Input::DialFailed { dial, why, error: "no".into() });
            }
            17..=19 => self.work_off(bits),
            20 => {
                let record = |bits: &mut Bits<'_>| NodeRecord {
                    kind: bits.pick(&[NodeKind::Peer, NodeKind::Job]),
                    name: Bytes::copy_from_slice(bits.bytes(70)),
                    value: Some(Bytes::copy_from_slice(bits.bytes(90))),
                };
                let records = (0..bits.below(3)).map(|_| record(bits)).collect();
                self.tell(Input::Restored { records });
            }
            21 => {
                let peer = peer(2 + bits.byte() % 2);
                let replica = self.some_replica(bits);
                self.tell(match bits.below(7) {
                    0 => Input::RemovePeer { peer },
                    1 => Input::BlockPeer { peer, blocked: bits.one_in(2) },
                    2 => Input::RenamePeer { peer, name: "x".into() },
                    3 => Input::TransportAdded,
                    4 => Input::SetDirection { replica, direction: Direction::Pull },
                    5 => Input::SetDirection { replica, direction: Direction::Both },
                    _ => Input::RetryNow,
                });
            }
            22 => self.write(bits),
            23 if bits.one_in(20) => self.tell(Input::Shutdown),
            _ => self.pass_time(bits),
        }
    }

    fn some_replica(&self, bits: &mut Bits<'_>) -> ReplicaId {
        if bits.one_in(8) { ReplicaId(person(9).public()) } else { self.replica }
    }

    fn pass_time(&mut self, bits: &mut Bits<'_>) {
        let millis = bits.pick(&[0u64, 1, 300, 1_100, 6_000, 30_000, 61_000, 3_600_000]);
        self.now.elapsed += Duration::from_millis(millis);
        self.now.wall.0 = match bits.below(8) {
            0 => self.now.wall.0.saturating_sub(1 << bits.below(50)),
            1 => self.now.wall.0.saturating_add(1 << bits.below(50)),
            _ => self.now.wall.0.saturating_add(millis * 1_000),
        };
        // When it wants to be told the time it is, and then wants to be told a later one.
        for _ in 0..8 {
            self.tell(Input::Tick);
            if self.machine.poll_timeout().is_none_or(|at| at > self.now.elapsed) {
                return;
            }
        }
        panic!("the machine wants to be told the same time for ever");
    }

    fn connect(&mut self, bits: &mut Bits<'_>) {
        let dial = if self.dials.is_empty() { None } else { Some(self.dials.remove(bits.below(self.dials.len()))) };
        let connection = ConnectionId(self.next_number());
        let binding = [bits.byte(); 32];
        self.wires.insert(connection, Wire { we_dialled: dial.is_some(), binding, ..Wire::default() });
        self.tell(Input::Connected { connection, dial, transport: "t".into(), binding });
        if dial.is_none() {
            self.accepted(connection, StreamKind::Control);
        }
    }

    fn accept(&mut self, bits: &mut Bits<'_>) {
        let connection = self.connection(bits);
        let kind = bits.pick(&[StreamKind::Session, StreamKind::Session, StreamKind::Content, StreamKind::Control]);
        self.accepted(connection, kind);
    }

    fn accepted(&mut self, connection: ConnectionId, kind: StreamKind) {
        let stream = StreamId(self.next_number() * 2 + 1);
        if let Some(wire) = self.wires.get_mut(&connection) {
            wire.streams.push(stream);
            if kind == StreamKind::Control && wire.control.is_none() {
                wire.control = Some(stream);
            }
        }
        self.tell(Input::StreamAccepted { connection, stream, kind });
    }

    /// Hello, then proof, as an honest peer would: mostly.
    fn shake_hands(&mut self, bits: &mut Bits<'_>) {
        let connection = self.connection(bits);
        let number = if bits.one_in(3) { 3 } else { 2 };
        let key = person(number);
        let Some(wire) = self.wires.get_mut(&connection) else { return };
        let Some(stream) = wire.control else { return };
        if wire.their_hello.is_none() || bits.one_in(6) {
            let hello = Hello {
                oldest: if bits.one_in(9) { 7 } else { OLDEST_VERSION },
                newest: if bits.one_in(9) { 9 } else { VERSION },
                peer: peer(if bits.one_in(9) { 1 } else { number }),
                store: StoreId([bits.byte(); 16]),
                incarnation: u64::from(bits.byte()),
                nonce: [bits.byte(); 32],
                addresses: vec!["mem:c".parse().expect("an address"); bits.below(3)],
            };
            let frame = Message::Hello(hello).encode();
            wire.their_hello = Some(frame.clone());
            self.tell(Input::Frame { connection, stream, frame });
        }
        let Some(wire) = self.wires.get(&connection) else { return };
        let (Some(ours), Some(theirs)) = (wire.our_hello.clone(), wire.their_hello.clone()) else { return };
        let (role, dialer, acceptor) = match wire.we_dialled {
            true => (Role::Acceptor, ours, theirs),
            false => (Role::Dialer, theirs, ours),
        };
        let binding = if bits.one_in(9) { [0xaa; 32] } else { wire.binding };
        let role = if bits.one_in(9) { role.other() } else { role };
        let proof = Transcript { dialer, acceptor, binding }.prove(&key, role);
        self.tell(Input::Frame { connection, stream, frame: Message::Proof(proof).encode() });
    }

    /// A message of a session, well formed.
    fn say(&mut self, bits: &mut Bits<'_>) {
        let connection = self.connection(bits);
        let stream = self.stream(connection, bits);
        let state = block_on(self.store.state(self.replica)).expect("the replica is there");
        let digest = match bits.below(3) {
            0 => Digest::EMPTY,
            1 => state.root,
            _ => Digest { hash: Hash([bits.byte(); 32]), count: bits.long() >> bits.below(64) },
        };
        let mark = Mark {
            durable: bits.below(4) as u64,
            received: bits.below(4) as u64,
            through: bits.one_in(2).then(|| Position(bits.below(60) as u64)),
            root: bits.one_in(2).then_some(digest),
            synced: bits.one_in(4),
        };
        let open = Open {
            replica: self.some_replica(bits),
            store: StoreId([bits.byte(); 16]),
            head: Position(bits.below(60) as u64),
            root: digest,
            have: bits.one_in(2).then(|| (self.store.store_id(), Position(bits.long() >> bits.below(64)))),
            direction: bits.pick(&[Direction::Both, Direction::Both, Direction::Pull, Direction::Push]),
            asks: bits.one_in(4),
            credentials: Vec::new(),
        };
        let message = match bits.below(14) {
            0 | 1 => Message::Open(open),
            2 | 3 => Message::Opened(open),
            4 => Message::Refuse(bits.pick(&[Refusal::NotAvailable, Refusal::Duplicate, Refusal::Busy])),
            5 => Message::Mark(mark),
            6 | 7 => {
                let author = person(2 + bits.byte() % 2);
                let ops = vec![put(&format!("new {}", bits.byte()), "v")];
                let bundle =
                    sign_commit(self.replica, &author, &HybridClock::default(), NOW, ops).expect("it can be signed");
                Message::Entries(mark, encode_bundles(&[bundle.to_bundle()]))
            }
            8 => Message::Entries(mark, Bytes::copy_from_slice(bits.bytes(60))),
            9 | 10 => {
                let claim = Claim { range: SlotRange::ALL, have: Have::Digest(digest) };
                let claims = if bits.one_in(4) { Vec::new() } else { vec![claim] };
                Message::Ranges(Ranges { first: bits.one_in(2), more: bits.one_in(3), claims })
            }
            11 => {
                let ids: Vec<ShortId> = (0..bits.below(20)).map(|_| ShortId([bits.byte(); 16])).collect();
                let mut set = CodedSet::default();
                ids.iter().for_each(|id| set.insert(id));
                let symbols = set.symbols()[..1 + bits.below(200)].to_vec();
                let first = bits.one_in(2);
                let from = if first { 0 } else { bits.below(3) as u32 * 64 };
                Message::Symbols(Symbols { first, more: bits.one_in(3), from, symbols })
            }
            12 => Message::Solved(match bits.below(2) {
                0 => Solved::More(u32::from(bits.short()) % 2_048),
                _ => Solved::Lacking(vec![ShortId([bits.byte(); 16])]),
            }),
            _ => Message::Ping(bits.long()),
        };
        self.tell(Input::Frame { connection, stream, frame: message.encode() });
    }

    /// Work on the store: done, or failed.
    fn work_off(&mut self, bits: &mut Bits<'_>) {
        let Some((op, request)) = self.work.pop_front() else { return };
        let result = match bits.below(12) {
            0 => Err(WorkError::Store(StoreError::DiskFull("full".into()))),
            1 => Err(WorkError::Store(StoreError::Closed)),
            _ => block_on(perform(&self.store, request)),
        };
        self.tell(Input::Stored { op, result });
    }

    fn write(&mut self, bits: &mut Bits<'_>) {
        let ops = vec![put(&format!("mine {}", bits.byte()), "v")];
        let Ok(bundle) = sign_commit(self.replica, &person(1), &HybridClock::default(), NOW, ops) else { return };
        let batch = Apply {
            replica: self.replica,
            bundles: vec![bundle],
            origin: Origin::Local,
            now: NOW,
            records: Vec::new(),
        };
        let state = block_on(self.store.apply(batch)).expect("memory can be written").state;
        self.tell(Input::Changed { replica: self.replica, state, written: None });
    }
}
