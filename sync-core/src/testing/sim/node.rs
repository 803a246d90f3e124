//! A simulated node: a machine, what the driver would hold, and what outlives a crash.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::disk::{Device, SimStore};
use crate::{
    address::PeerAddress,
    machine::{AskId, ConnectionId, DialId, Now, StreamId, Synchronizer},
    model::{AuthorId, HybridClock, Op, Order, PeerId, ReplicaId, SecretKey, Timestamp},
    store::{Position, ShortId, StoreId},
};

/// The wall clock at the beginning of every simulation.
pub const BEGINNING: Timestamp = Timestamp(1_700_000_000_000_000);

/// An entry that the application was told is kept.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    pub replica: usize,
    pub order: Order,
    pub op: Op,
}

/// What a device was once: its disk, how often its store had been made anew, and what applications had been told is kept.
#[derive(Clone)]
pub struct Snapshot {
    pub disk: Rc<dyn Device>,
    pub stores: u64,
    pub acknowledged: Vec<Acknowledged>,
}

/// What dies with the process.
pub struct Process {
    pub machine: Synchronizer,
    pub store: Arc<SimStore>,
    pub clocks: BTreeMap<ReplicaId, HybridClock>,
    pub started_us: u64,
    pub next: u64,
    pub wires: BTreeMap<ConnectionId, u64>,
    pub dials: BTreeMap<DialId, u64>,
    pub asks: BTreeMap<AskId, (ReplicaId, PeerId)>,
    /// When the last save is executed: saves are done in order.
    pub saves_us: u64,
    /// When to wake the machine, as far as is planned.
    pub wake_us: Option<u64>,
    pub stopping: bool,
    /// Streams on which a hostile node has fallen silent.
    pub mute: BTreeSet<(ConnectionId, StreamId)>,
    /// Subscriptions that the application has ended in this life.
    pub unsubscribed: BTreeSet<Vec<u8>>,
    /// What an application that follows the events has read.
    pub watchers: BTreeMap<ReplicaId, Watcher>,
    /// How many entries were written here and came in, and of how many the application was told.
    pub tallies: BTreeMap<ReplicaId, Tally>,
}

/// Entries written here and received, and of how many of each the application was told.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Written and durable; whoever wrote them may not know it yet.
    pub durable: u64,
    pub written: u64,
    /// Written beneath the machine and not inserted, for positions that nobody takes are told, too; or by a call that failed,
    /// and may be durable.
    pub passed: u64,
    pub received: u64,
    pub told_written: u64,
    pub told_received: u64,
}

/// An application that reads a replica's change log whenever it is told of something.
#[derive(Debug, Default)]
pub struct Watcher {
    /// Up to where it has read.
    pub position: Position,
    /// It was told of something, and the store could not be read.
    pub unread: bool,
    /// The newest version of each slot that it has read.
    pub seen: BTreeMap<(Vec<u8>, Option<AuthorId>), Order>,
}

/// Up to where a node has a peer's log, and the peer its own.
pub type Checked = (Option<(StoreId, Position)>, Position);

/// A node.
pub struct Node {
    pub key: SecretKey,
    pub id: PeerId,
    pub addresses: Vec<PeerAddress>,
    pub disk: Rc<dyn Device>,
    /// How often the store was made anew.
    pub stores: u64,
    /// How often it was started.
    pub epoch: u64,
    pub process: Option<Process>,
    /// For how long it is down when its power goes.
    pub without_power_ms: u64,
    /// It crashes when so many outputs were performed, and is down for so long.
    pub crash: Option<(u32, u64)>,
    pub clock_us: i64,
    /// By how much its clock is too fast, in millionths.
    pub drift_ppm: i64,
    /// Since when its clock stands still, if it does.
    pub stopped_us: Option<u64>,
    /// How often it has moved: the number of its place, which its addresses name.
    pub moves: u64,
    /// It has left for good.
    pub left: bool,
    /// When its clock jumped last, and when its disk was last another.
    pub jumped_us: Option<u64>,
    pub replaced_us: Option<u64>,
    /// When its process ended last.
    pub ended_us: u64,
    /// Stands still until then.
    pub paused_us: u64,
    pub acknowledged: Vec<Acknowledged>,
    /// Entries that it has refused, by replica: whoever brought them may believe that they are here.
    pub refused: BTreeSet<(usize, ShortId)>,
    /// Replicas of which it has refused entries because they are ahead of its clock: they are to be offered again.
    pub early: BTreeSet<usize>,
    /// Replicas of which it has refused more at once than it names.
    pub refused_more: BTreeSet<usize>,
    /// Per replica and peer: what of the positions in its records was held against the truth.
    pub positions: BTreeMap<Vec<u8>, Checked>,
    /// Subscriptions that are on the disk.
    pub durable_jobs: BTreeSet<Vec<u8>>,
    /// Peers that are on the disk with what the application has said of them.
    pub durable_peers: BTreeSet<Vec<u8>>,
    /// Peers whose addresses the application has given since this store was made.
    pub added: BTreeSet<PeerId>,
    /// It has got more rights than it began with.
    pub promoted: bool,
    pub unreachable: u32,
    /// It has written what it may not: its disk is replaced at the healing.
    pub dishonest: bool,
    /// The grain of its clock.
    pub grain_us: u64,
    /// What a hostile node has said lately, and how often it has said something.
    pub said: VecDeque<Bytes>,
    pub acts: u64,
    pub operations: u64,
    pub dialed: u64,
}

/// What names a node's place in its addresses.
fn host(node: usize, moves: u64) -> String {
    format!("node{node}.{moves}")
}

/// The node and the number of its place that an address names.
pub fn place(address: &PeerAddress) -> Option<(usize, u64)> {
    let (node, moves) = address.url().host_str()?.strip_prefix("node")?.split_once('.')?;
    Some((node.parse().ok()?, moves.parse().ok()?))
}

/// So many addresses at a place.
pub fn addresses(node: usize, moves: u64, count: u8) -> Vec<PeerAddress> {
    let address = |number| format!("sim{number}://{}", host(node, moves)).parse().expect("these are addresses");
    (0..count).map(address).collect()
}

impl Node {
    /// The time as the node sees it.
    pub fn now(&self, now_us: u64) -> Now {
        let started = self.process.as_ref().map_or(now_us, |process| process.started_us);
        Now { elapsed: Duration::from_micros(now_us - started), wall: self.wall(now_us) }
    }

    /// Its wall clock.
    pub fn wall(&self, now_us: u64) -> Timestamp {
        let now_us = self.stopped_us.unwrap_or(now_us);
        let drift = now_us as i64 * self.drift_ppm / 1_000_000;
        let exact = (BEGINNING.0 + now_us).saturating_add_signed(self.clock_us + drift);
        Timestamp(exact - exact % self.grain_us.max(1))
    }
}
