//! What a machine holds for its peers, for whoever wants to see that it is bounded.

use super::synchronizer::Synchronizer;

/// What a machine holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Peers that it knows something of.
    pub peers: usize,
    /// Jobs.
    pub jobs: usize,
    /// Links, those that shake hands among them.
    pub links: usize,
    /// Streams in use.
    pub streams: usize,
    /// Sessions, and those that are over and still being taken in.
    pub sessions: usize,
    /// The bytes of messages that wait in sessions: for the disk, or for credentials.
    pub waiting_len: usize,
    /// The most of it in one session.
    pub largest_len: usize,
    /// Sessions whose window is full.
    pub full_windows: usize,
    /// Sessions whose peer has said nothing for too long in the middle of something.
    pub stalled: usize,
    /// Outputs that nobody has taken.
    pub outputs: usize,
}

impl Synchronizer {
    /// What is held now.
    pub fn footprint(&self) -> Footprint {
        let sessions = || self.sessions.values().chain(self.draining.values());
        Footprint {
            peers: self.peers.len(),
            jobs: self.jobs.len(),
            links: self.links.len(),
            streams: self.streams.len(),
            sessions: sessions().count(),
            waiting_len: sessions().map(|session| session.waiting_len()).sum(),
            largest_len: sessions().map(|session| session.waiting_len()).max().unwrap_or(0),
            full_windows: sessions().filter(|session| session.is_live() && session.is_full(&self.io.limits)).count(),
            stalled: sessions().filter(|session| session.stalls_at() < self.io.now.elapsed).count(),
            outputs: self.io.waiting(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        machine::{
            Config, ConnectionId, Input, Now, Output, Role, StreamId, Transcript,
            limits::Limits,
            wire::{Hello, Message, OLDEST_VERSION, Open, StreamKind, VERSION},
        },
        model::{PeerId, ReplicaId, Rights, SecretKey, Summary, Timestamp, stand_in},
        store::{Position, ReplicaState, StoreId},
    };

    /// How many come by, and how many replicas there are.
    const MANY: u64 = 100_000;

    const CONTROL: StreamId = StreamId(1);

    /// A machine whose outputs are counted and thrown away, but for the last frame.
    struct Crowded {
        machine: Synchronizer,
        outputs: usize,
        said: Option<bytes::Bytes>,
    }

    fn numbered(number: u64) -> [u8; 32] {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    impl Crowded {
        fn new() -> Self {
            let key = SecretKey::from_bytes([1; 32]);
            let config = Config { key, store: StoreId([1; 16]), incarnation: 1, seed: [1; 32] };
            Self { machine: Synchronizer::new(config, now()), outputs: 0, said: None }
        }

        fn tell(&mut self, input: Input) {
            self.machine.handle(now(), input);
            while let Some(output) = self.machine.poll_output() {
                self.outputs += 1;
                if let Output::Send { frame, .. } = output {
                    // The hello comes before the proof.
                    self.said = Some(match self.said.take() {
                        Some(hello) if hello[0] == 1 => hello,
                        _ => frame,
                    });
                }
            }
        }

        /// Somebody dials and proves who he is.
        fn link(&mut self, number: u64) -> ConnectionId {
            let (connection, binding, key) = (ConnectionId(number), [9; 32], SecretKey::from_bytes(numbered(number)));
            let hello = Message::Hello(Hello {
                oldest: OLDEST_VERSION,
                newest: VERSION,
                peer: PeerId(key.public()),
                store: StoreId([2; 16]),
                incarnation: 1,
                nonce: [0; 32],
                addresses: vec!["sim://stranger".parse().expect("an address")],
            });
            self.said = None;
            self.tell(Input::Connected { connection, dial: None, transport: "sim".into(), binding });
            self.tell(Input::StreamAccepted { connection, stream: CONTROL, kind: StreamKind::Control });
            self.tell(Input::Frame { connection, stream: CONTROL, frame: hello.encode() });
            let acceptor = self.said.take().expect("a hello is answered");
            let proof = Transcript { dialer: hello.encode(), acceptor, binding }.prove(&key, Role::Dialer);
            self.tell(Input::Frame { connection, stream: CONTROL, frame: Message::Proof(proof).encode() });
            connection
        }
    }

    fn now() -> Now {
        Now { elapsed: Duration::from_secs(1), wall: Timestamp(1_700_000_000_000_000) }
    }

    fn open(replica: ReplicaId) -> bytes::Bytes {
        let open = Open {
            replica,
            store: StoreId([2; 16]),
            head: Position(1),
            root: Summary::EMPTY.digest(),
            have: None,
            direction: Default::default(),
            asks: false,
            credentials: Vec::new(),
        };
        Message::Open(open).encode()
    }

    #[test]
    fn b80_of_a_hundred_thousand_peers_that_came_and_went_nothing_is_left() {
        let _signatures = stand_in::Guard::switch_on();
        let mut node = Crowded::new();
        let before = node.machine.footprint();
        for number in 1..=MANY {
            let connection = node.link(number);
            if number % 10_000 == 1 {
                let held = node.machine.footprint();
                assert_eq!((held.peers, held.links, held.streams), (1, 1, 1), "with the {number}th");
            }
            node.tell(Input::Disconnected { connection, reason: "gone".into() });
        }
        assert_eq!(node.machine.footprint(), before);
    }

    #[test]
    fn b80_of_a_hundred_thousand_replicas_that_a_peer_asks_for_nothing_is_kept() {
        let _signatures = stand_in::Guard::switch_on();
        let mut node = Crowded::new();
        let connection = node.link(1);
        let before = node.machine.footprint();
        for number in 1..=MANY {
            let stream = StreamId(2 * number + 1);
            node.tell(Input::StreamAccepted { connection, stream, kind: StreamKind::Session });
            node.tell(Input::Frame { connection, stream, frame: open(numbered(number).into()) });
        }
        assert_eq!(node.machine.footprint(), before, "each was refused");
        // Streams on which nothing is said are as many as may be.
        for number in MANY..2 * MANY {
            let stream = StreamId(2 * number + 3);
            node.tell(Input::StreamAccepted { connection, stream, kind: StreamKind::Session });
        }
        assert_eq!(node.machine.footprint().streams, Limits::default().sessions + 1);
        node.tell(Input::Disconnected { connection, reason: "gone".into() });
        assert_eq!(node.machine.footprint(), Footprint::default());
    }

    #[test]
    fn b80_a_hundred_thousand_replicas_here_cost_a_peer_that_links_nothing() {
        let _signatures = stand_in::Guard::switch_on();
        let mut node = Crowded::new();
        for number in 1..=MANY {
            let replica = numbered(number).into();
            let state = ReplicaState {
                root: Summary::EMPTY.digest(),
                head: Position(0),
                newest: Timestamp(0),
                blobs: 0,
                bytes: 0,
                rights: Rights::new(replica).into(),
                rights_version: 0,
            };
            node.tell(Input::Changed { replica, state, written: None });
        }
        assert_eq!(node.machine.status().len() as u64, MANY);
        assert_eq!(node.machine.footprint(), Footprint::default());
        let before = node.outputs;
        let connection = node.link(1);
        assert!(node.outputs - before < 10, "{} outputs for one link", node.outputs - before);
        assert_eq!(node.machine.footprint(), Footprint { peers: 1, links: 1, streams: 1, ..Footprint::default() });
        node.tell(Input::Disconnected { connection, reason: "gone".into() });
        assert_eq!(node.machine.footprint(), Footprint::default());
    }
}
