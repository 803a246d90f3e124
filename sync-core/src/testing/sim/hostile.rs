//! Hostile nodes: what they say instead of what their machines want to say.

use bytes::Bytes;

use super::{
    draw::Stream,
    scenario::{Change, Habit},
    wire::{Item, Side},
    world::{Work, World, op},
};
use crate::{
    machine::{
        ConnectionId, StreamId,
        wire::{Message, Open, Ranges, Solved, StreamKind, Symbols},
    },
    model::{Digest, Hash, SlotRange},
    store::{Claim, Have, Position, ShortId, StoreId, coded::Symbol},
    testing::random::Random,
};

/// How many frames a hostile node remembers to say again.
const REMEMBERED: usize = 48;

/// How often it does what it should not, in percent of what it says.
const HOSTILE: usize = 35;

/// So many streams it opens at most on one connection beside its machine's.
const MAX_FLOOD: usize = 120;

fn digest(random: &mut Random) -> Digest {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&random.bits().to_le_bytes());
    Digest { hash: Hash(bytes), count: random.bits() >> random.below(64) }
}

fn garbled(frame: &Bytes, random: &mut Random) -> Bytes {
    let mut bytes = frame.to_vec();
    let at = random.below(bytes.len().max(1));
    match random.below(4) {
        0 => bytes.truncate(at),
        1 => bytes.extend_from_slice(&random.bits().to_le_bytes()),
        2 => bytes[at] ^= 1 << random.below(8),
        _ => bytes.insert(at, random.bits() as u8),
    }
    bytes.into()
}

fn absurd(random: &mut Random) -> Bytes {
    let mut bytes = vec![*random.pick(&[1, 2, 3, 16, 17, 18, 19, 20, 21, 22, 23, 24, 99])];
    for _ in 0..random.below(4) {
        bytes.push(random.bits() as u8);
    }
    bytes.extend([0xff; 9]);
    bytes.push(1);
    bytes.into()
}

impl World<'_> {
    /// A hostile node's machine wants to send a frame.
    pub fn send_as_it_likes(&mut self, node: usize, connection: ConnectionId, stream: StreamId, frame: Bytes) {
        let it = &mut self.nodes[node];
        // Once it has fallen silent in the middle of a session it says nothing more there, and answers pings.
        if it.process.as_ref().is_some_and(|process| process.mute.contains(&(connection, stream))) {
            self.counters.faults += 1;
            return;
        }
        it.acts += 1;
        let mut random = self.draw.random(Stream::Hostile, node as u64, it.acts);
        it.said.push_back(frame.clone());
        if it.said.len() > REMEMBERED {
            it.said.pop_front();
        }
        let said = it.said[random.below(it.said.len())].clone();
        let habit = *random.pick(&self.scenario.nodes[node].habits);
        let mut frames = vec![frame.clone()];
        let Some(message) = Message::decode(frame.clone()).ok().flatten().filter(|_| random.percent(HOSTILE)) else {
            return self.send_on(node, connection, stream, Item::Frame(frame));
        };
        // What is not said as it was wanted is a fault; a habit that has nothing to do with this message is none.
        let mut acts = true;
        match (habit, message) {
            (Habit::Garble, _) => frames = vec![garbled(&frame, &mut random)],
            (Habit::Replay, _) => frames.push(said),
            (Habit::FalseProof, Message::Hello(mut hello)) => {
                hello.peer = self.nodes[random.below(self.nodes.len())].id;
                frames = vec![Message::Hello(hello).encode()];
            }
            (Habit::FalseProof, Message::Proof(_)) => frames = vec![garbled(&frame, &mut random)],
            (Habit::Absurd, _) => frames.push(absurd(&mut random)),
            (Habit::FalseAcks, Message::Mark(mut mark)) => {
                mark.durable += random.below(3) as u64;
                mark.received = if random.percent(20) { u64::MAX } else { mark.received + random.below(3) as u64 };
                frames = vec![Message::Mark(mark).encode()];
            }
            (Habit::FalseAcks, Message::Entries(mut mark, entries)) => {
                mark.durable += 1;
                frames = vec![Message::Entries(mark, entries).encode()];
            }
            (Habit::Lie, Message::Open(open)) => frames = vec![Message::Open(lie(open, &mut random)).encode()],
            (Habit::Lie, Message::Opened(open)) => frames = vec![Message::Opened(lie(open, &mut random)).encode()],
            (Habit::Lie, Message::Mark(mut mark)) => {
                mark.root = Some(digest(&mut random));
                mark.through = Some(Position(random.bits() >> random.below(64)));
                mark.synced = random.percent(50);
                frames = vec![Message::Mark(mark).encode()];
            }
            (Habit::Ask, Message::Mark(_) | Message::Ranges(_) | Message::Entries(..)) => {
                let claims = vec![Claim { range: SlotRange::ALL, have: Have::Ids(Vec::new()) }];
                frames.push(Message::Ranges(Ranges { first: random.percent(50), more: false, claims }).encode());
                frames.push(Message::Solved(Solved::Lacking(vec![ShortId([7; 16])])).encode());
            }
            (Habit::BeginAgain, Message::Mark(_) | Message::Ranges(_) | Message::Symbols(_)) => {
                let claims = vec![Claim { range: SlotRange::ALL, have: Have::Digest(digest(&mut random)) }];
                let more = random.percent(30);
                frames.push(match random.percent(50) {
                    true => Message::Ranges(Ranges { first: true, more, claims }).encode(),
                    false => {
                        Message::Symbols(Symbols { first: true, more, from: 0, symbols: vec![Symbol::default(); 64] })
                            .encode()
                    }
                });
            }
            (Habit::Flood, _) => acts = self.flood(node, connection, &mut random),
            (Habit::FallSilent, _) if frame[0] > 16 => {
                let is_live = frame[0] > 18;
                let process = self.nodes[node].process.as_mut().filter(|_| is_live && random.percent(50));
                process.into_iter().for_each(|process| _ = process.mute.insert((connection, stream)));
                frames.clear();
            }
            (Habit::Drip, _) => acts = self.hold_back(node, connection, stream, &mut random),
            // Its clock makes what it writes so.
            (Habit::LiveAhead, Message::Entries(..)) => {}
            (Habit::Cut, _) | (Habit::ChangeName, Message::Ping(_) | Message::Open(_) | Message::Opened(_)) => {
                let down_us = 200_000 + random.bits() % 3_000_000;
                self.acted(habit);
                return self.end_process(node, down_us);
            }
            (Habit::Forge, _) if !self.replicas.is_empty() => {
                let replica = random.below(self.replicas.len());
                let change = Change::Put { key: format!("forged{}", random.below(5)), len: 5, tag: random.bits() };
                let key = self.nodes[node].key.clone();
                if let Some(bundle) = self.sign(node, replica, &key, vec![op(self.draw, &change)]) {
                    self.work(node, Work::Forge { replica, bundle });
                }
            }
            _ => acts = false,
        }
        if acts {
            self.acted(habit);
        }
        for frame in frames.into_iter().filter(|frame| !frame.is_empty()) {
            self.send_on(node, connection, stream, Item::Frame(frame));
        }
    }

    /// It has done what it should not.
    fn acted(&mut self, habit: Habit) {
        self.counters.faults += 1;
        self.mark(name(habit));
    }

    /// What it says on a stream from now on comes seconds later. Answers whether it could.
    fn hold_back(&mut self, node: usize, connection: ConnectionId, stream: StreamId, random: &mut Random) -> bool {
        let Some((number, side)) = self.wire_of(node, connection) else { return false };
        let wire = self.wires.get_mut(&number).expect("it is being used");
        let Some(index) = wire.end(side).numbers.get(&stream).copied() else { return false };
        let last_us = &mut wire.streams[index].last_us[side.other().index()];
        *last_us = (*last_us).max(self.now_us) + 500_000 + random.bits() % 20_000_000;
        true
    }

    /// Opens sessions about anything. Answers whether it could.
    fn flood(&mut self, node: usize, connection: ConnectionId, random: &mut Random) -> bool {
        let Some((number, side)) = self.wire_of(node, connection) else { return false };
        let most = self.scenario.knobs.tight.map_or(5, |tight| tight.limits.sessions + 3).min(40);
        if side == Side::Acceptor && !self.wires[&number].end(side).admitted {
            return false;
        }
        for _ in 0..most {
            let wire = self.wires.get_mut(&number).expect("it is being used");
            if wire.streams.len() > MAX_FLOOD {
                return true;
            }
            let stream = StreamId(1 << 40 | (wire.streams.len() as u64 * 2));
            let index = wire.open(side, stream);
            let open = Open {
                replica: self.replicas[random.below(self.replicas.len())].id,
                store: StoreId([9; 16]),
                head: Position(random.bits() >> 40),
                root: digest(random),
                have: None,
                direction: Default::default(),
                asks: random.percent(50),
                credentials: Vec::new(),
            };
            self.send(number, side, index, Item::Open(StreamKind::Session));
            if random.percent(50) {
                self.send(number, side, index, Item::Frame(Message::Open(open).encode()));
            }
        }
        true
    }
}

fn lie(mut open: Open, random: &mut Random) -> Open {
    match random.below(4) {
        0 => open.root = digest(random),
        1 => open.head = Position(random.bits() >> random.below(64)),
        2 => open.have = Some((StoreId([random.bits() as u8; 16]), Position(random.bits()))),
        _ => open.have = open.have.map(|(store, _)| (store, Position(random.bits() >> random.below(64)))),
    }
    open
}

fn name(habit: Habit) -> &'static str {
    match habit {
        Habit::Garble => "hostile_garbles",
        Habit::Replay => "hostile_replays",
        Habit::FalseProof => "hostile_proves_wrongly",
        Habit::Absurd => "hostile_is_absurd",
        Habit::FalseAcks => "hostile_acknowledges_what_it_was_not_sent",
        Habit::Lie => "hostile_lies",
        Habit::Ask => "hostile_asks_for_what_it_may_not_read",
        Habit::BeginAgain => "hostile_begins_again",
        Habit::Flood => "hostile_floods",
        Habit::FallSilent => "hostile_falls_silent",
        Habit::Cut => "hostile_cuts",
        Habit::ChangeName => "hostile_changes_its_name",
        Habit::Forge => "hostile_forges",
        Habit::LiveAhead => "hostile_lives_ahead",
        Habit::Drip => "hostile_drips",
    }
}
