//! Scenarios as plain data: who there is, what is done, and what goes wrong, each at its time.

use serde::{Deserialize, Serialize};

use crate::{machine::limits::Limits, model::Right, store::reconcile::Widths};

/// Something at a time, in milliseconds since the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed<T> {
    /// When.
    pub at_ms: u64,
    /// What.
    pub what: T,
}

/// A year, in milliseconds.
pub const YEAR_MS: i64 = 365 * 24 * 3_600_000;

/// A whole simulation. Playing it needs nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Where the draws that are made while it is played come from.
    pub seed: u64,
    /// How fast everything is.
    pub knobs: Knobs,
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// The replicas.
    pub replicas: Vec<ReplicaPlan>,
    /// Who knows an address of whom, and wants what both have.
    pub paths: Vec<Path>,
    /// What applications do.
    pub operations: Vec<Timed<Operation>>,
    /// What goes wrong.
    pub faults: Vec<Timed<Fault>>,
    /// When everything is healed and the nodes must become equal.
    pub heal_ms: u64,
}

/// How fast everything is: ranges, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knobs {
    /// A message's way, in microseconds.
    pub latency_us: (u64, u64),
    /// From a request to a store until it is executed, in microseconds.
    pub execute_us: (u64, u64),
    /// From there until the answer is here, in microseconds.
    pub reply_us: (u64, u64),
    /// How often a dial fails though the peer is there, in percent.
    pub dial_failures: u64,
    /// The clocks' grain, in microseconds: with a coarse one, entries have equal times.
    pub grain_us: u64,
    /// How often a crash is not noticed by those connected, in percent.
    pub silent_crashes: u64,
    /// How many messages in a thousand take twenty times as long.
    #[serde(default)]
    pub late: u64,
    /// How many messages in a thousand the network loses, and the transport sends again, each time after a longer wait.
    #[serde(default)]
    pub lost: u64,
    /// Limits other than the protocol's.
    #[serde(default)]
    pub tight: Option<Tight>,
}

/// Small limits, so that few entries fill windows and need many rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tight {
    /// The machines'.
    pub limits: Limits,
    /// The stores'.
    pub widths: Widths,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    /// How far its clock is off, in milliseconds.
    pub clock_ms: i64,
    /// By how much its clock is too fast, in millionths.
    #[serde(default)]
    pub drift_ppm: i64,
    /// How many addresses it has.
    pub addresses: u8,
    /// What it does that it should not; an honest node has none.
    #[serde(default)]
    pub habits: Vec<Habit>,
    /// When and how it leaves for good, if it does: before the healing, which does not bring it back.
    #[serde(default)]
    pub leaves: Option<Timed<Leave>>,
}

/// How a node leaves for good. The others must become equal without it, and may lack what only it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leave {
    /// It never starts again.
    Dies,
    /// It goes on, and nothing passes between it and the others any more.
    CutOff,
}

/// What a hostile node does. It has a machine as others have, and does not always say what that wants to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Habit {
    /// Changes, drops or adds bytes of what it says.
    Garble,
    /// Says again what it said before, there or elsewhere.
    Replay,
    /// Proves wrongly who it is, or says that it is somebody else.
    FalseProof,
    /// Sends lengths and numbers of all ones.
    Absurd,
    /// Acknowledges what it was never sent.
    FalseAcks,
    /// Says that it has what it has not.
    Lie,
    /// Asks about what it may not read.
    Ask,
    /// Begins reconciliations without end.
    BeginAgain,
    /// Opens as many sessions as it can, about anything.
    Flood,
    /// Says nothing where something is waited for.
    FallSilent,
    /// Ends links in the middle of whatever goes on.
    Cut,
    /// Comes back under another name again and again.
    ChangeName,
    /// Signs what it has no right to write, and spreads it.
    Forge,
    /// Signs what is from the future.
    LiveAhead,
    /// Lets what it says drip: seconds between one message and the next.
    Drip,
}

impl Habit {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Garble,
        Self::Replay,
        Self::FalseProof,
        Self::Absurd,
        Self::FalseAcks,
        Self::Lie,
        Self::Ask,
        Self::BeginAgain,
        Self::Flood,
        Self::FallSilent,
        Self::Cut,
        Self::ChangeName,
        Self::Forge,
        Self::LiveAhead,
        Self::Drip,
    ];
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaPlan {
    /// The node that has the owner's key.
    pub owner: usize,
    /// The other nodes that have it.
    pub members: Vec<Member>,
}

/// A node that has a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: usize,
    /// What the owner grants it.
    pub right: Right,
    /// For which keys, as [`key_bytes`] reads it.
    pub prefix: String,
    /// When it joins.
    pub joins_ms: u64,
    /// When the grant ends, if it does: before the healing.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// From when on it only pulls, if it does; it writes nothing then, and did not before.
    #[serde(default)]
    pub pulls_ms: Option<u64>,
    /// When the owner grants it to read everything, if it does; until then it has a part.
    #[serde(default)]
    pub widens_ms: Option<u64>,
}

impl Member {
    /// Whether it has all of the replica, for good, and gives it: others rely on such ones to be given what they lack.
    pub fn is_full(&self) -> bool {
        self.prefix.is_empty() && self.expires_ms.is_none() && self.pulls_ms.is_none()
    }

    /// Whether it may have been granted by then to read everything.
    pub fn has_widened(&self, now_us: u64) -> bool {
        self.widens_ms.is_some_and(|at| now_us >= at * 1_000)
    }
}

/// Somebody knows somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Who knows the address.
    pub from: usize,
    /// Whose.
    pub to: usize,
}

/// What an application does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Write a transaction.
    Write {
        /// Where.
        node: usize,
        /// To which replica.
        replica: usize,
        /// Signed by the replica's owner, not by the node; only where the owner's key is.
        as_owner: bool,
        /// What.
        changes: Vec<Change>,
    },
    /// Grant a member the right to write everything.
    Promote {
        /// The replica.
        replica: usize,
        /// The member.
        node: usize,
    },
    /// Ask for a sync with a peer and wait for the answer.
    Sync {
        /// Who asks.
        node: usize,
        /// About what.
        replica: usize,
        /// With whom.
        peer: usize,
    },
    /// Try everything again now.
    Retry {
        /// Who.
        node: usize,
    },
    /// Block a peer, until the healing or an `Unblock`.
    Block {
        /// Who.
        node: usize,
        /// Whom.
        peer: usize,
    },
    /// Take that back.
    Unblock {
        /// Who.
        node: usize,
        /// Whom.
        peer: usize,
    },
    /// Forget a peer, until the healing.
    Remove {
        /// Who.
        node: usize,
        /// Whom.
        peer: usize,
    },
    /// End a subscription, until the healing.
    Unsubscribe {
        /// Who.
        node: usize,
        /// To what.
        replica: usize,
        /// At whom.
        peer: usize,
    },
    /// A node that may only read writes all the same, and offers it to everybody; it gets a new disk
    /// at the healing.
    Forge {
        /// Who.
        node: usize,
        /// To what.
        replica: usize,
        /// What.
        key: String,
    },
    /// One author signs two sets of entries whose XOR is the same, and each node gets one of them while all
    /// connections of the replica are cut.
    Equivocate {
        /// The author's node.
        node: usize,
        /// In which replica.
        replica: usize,
        /// Makes the sets differ from those of others.
        tag: u64,
    },
    /// End everything in good order, and start again after a while.
    Shutdown {
        /// Who.
        node: usize,
        /// For how long.
        down_ms: u64,
    },
}

/// A key or a prefix of a scenario as bytes: a character up to U+00FF is one, so that there are keys which are no text.
pub fn key_bytes(text: &str) -> Vec<u8> {
    text.chars().map(|char| u8::try_from(char).expect("keys of scenarios have characters up to U+00FF")).collect()
}

/// One entry of a transaction. Keys and prefixes are as [`key_bytes`] reads them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Set a key; the value's bytes follow from the seed and the tag.
    Put {
        /// The key.
        key: String,
        /// The length of the value.
        len: usize,
        /// Makes values differ.
        tag: u64,
    },
    /// Remove a key.
    Delete {
        /// The key.
        key: String,
    },
    /// Remove every key that begins so.
    DeletePrefix {
        /// The prefix.
        prefix: String,
    },
}

impl Change {
    /// The same under a prefix.
    pub fn within(&self, within: &str) -> Self {
        let mut change = self.clone();
        match &mut change {
            Self::Put { key, .. } | Self::Delete { key } => key.insert_str(0, within),
            Self::DeletePrefix { prefix } => prefix.insert_str(0, within),
        }
        change
    }
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// Nothing passes between `side` and the others.
    Partition {
        /// One side.
        side: Vec<usize>,
        /// For how long.
        for_ms: u64,
    },
    /// Nothing passes in one direction.
    OneWay {
        /// From here.
        from: usize,
        /// To there.
        to: usize,
        /// For how long.
        for_ms: u64,
    },
    /// Connections between two nodes break.
    Cut {
        /// One.
        a: usize,
        /// The other.
        b: usize,
    },
    /// Connections between two nodes that are open now swallow everything, for ever.
    HalfOpen {
        /// One.
        a: usize,
        /// The other.
        b: usize,
    },
    /// Dials to a node fail.
    Unreachable {
        /// The node.
        node: usize,
        /// For how long.
        for_ms: u64,
    },
    /// The process dies, after so many further outputs of its machine were performed.
    Crash {
        /// The node.
        node: usize,
        /// After how many outputs.
        after_outputs: u32,
        /// Until it starts again.
        down_ms: u64,
    },
    /// The power goes after so many further operations of the disk, in the middle of whatever is being written.
    PowerCut {
        /// The node.
        node: usize,
        /// After how many operations.
        after_operations: u32,
        /// Until it starts again.
        down_ms: u64,
    },
    /// The device loses its store but not its key.
    Wipe {
        /// The node.
        node: usize,
        /// Until it starts again.
        down_ms: u64,
    },
    /// The store comes back from an old copy.
    Rollback {
        /// The node.
        node: usize,
        /// When the copy was made.
        to_ms: u64,
        /// Until it starts again.
        down_ms: u64,
    },
    /// The wall clock jumps.
    ClockJump {
        /// The node.
        node: usize,
        /// By how much, in milliseconds.
        by_ms: i64,
    },
    /// One write to the disk fails, after so many further ones.
    DiskError {
        /// The node.
        node: usize,
        /// After how many writes.
        after_writes: u32,
    },
    /// The disk is full.
    DiskFull {
        /// The node.
        node: usize,
        /// For how long.
        for_ms: u64,
    },
    /// The process stands still.
    Pause {
        /// The node.
        node: usize,
        /// For how long.
        for_ms: u64,
    },
    /// The wall clock stands still, and is right again afterwards.
    ClockStops {
        /// The node.
        node: usize,
        /// For how long.
        for_ms: u64,
    },
    /// The node is elsewhere: its connections swallow everything, and nobody is at its addresses any more. Who is to know
    /// the new ones must be told by it, or by an application at the healing.
    Move {
        /// The node.
        node: usize,
    },
}

impl Scenario {
    /// The nodes that have a replica, the owner's first.
    pub fn members(&self, replica: usize) -> impl Iterator<Item = usize> + '_ {
        let plan = &self.replicas[replica];
        std::iter::once(plan.owner).chain(plan.members.iter().map(|member| member.node))
    }

    /// What a node has been granted of a replica; none for its owner, and for who has nothing.
    pub fn member(&self, replica: usize, node: usize) -> Option<&Member> {
        self.replicas[replica].members.iter().find(|member| member.node == node)
    }

    /// Whether a node does what it should not.
    pub fn is_hostile(&self, node: usize) -> bool {
        !self.nodes[node].habits.is_empty()
    }

    /// Whether others rely on a node: it is honest, and there at the end.
    pub fn is_relied_on(&self, node: usize) -> bool {
        !self.is_hostile(node) && self.nodes[node].leaves.is_none()
    }

    /// The nodes that have all of a replica and keep it, the owner's first.
    pub fn full_members(&self, replica: usize) -> impl Iterator<Item = usize> + '_ {
        self.members(replica)
            .filter(move |node| self.member(replica, *node).is_none_or(Member::is_full) && self.is_relied_on(*node))
    }

    /// The nodes that have a part of a replica, or only pull, and keep it.
    pub fn part_members(&self, replica: usize) -> impl Iterator<Item = usize> + '_ {
        let members = self.replicas[replica].members.iter();
        let is_part = |member: &&Member| !member.is_full() && member.expires_ms.is_none();
        members.filter(is_part).map(|member| member.node).filter(|node| self.is_relied_on(*node))
    }

    /// Whether the nodes of each replica are connected by paths; otherwise they cannot become equal. Nobody
    /// gets everything through somebody who has a part.
    pub fn is_connected(&self) -> bool {
        (0..self.replicas.len()).all(|replica| {
            let members: Vec<usize> = self.full_members(replica).collect();
            let parts = self.replicas[replica].members.iter().filter(|member| !member.is_full());
            let know = |a: usize, b: usize| {
                self.paths.iter().any(|path| (path.from, path.to) == (a, b) || (path.from, path.to) == (b, a))
            };
            if parts.into_iter().any(|part| !members.iter().any(|full| know(part.node, *full))) {
                return false;
            }
            let mut reached = vec![members[0]];
            let mut next = 0;
            while let Some(node) = reached.get(next).copied() {
                next += 1;
                for path in &self.paths {
                    for (from, to) in [(path.from, path.to), (path.to, path.from)] {
                        if from == node && members.contains(&to) && !reached.contains(&to) {
                            reached.push(to);
                        }
                    }
                }
            }
            reached.len() == members.len()
        })
    }

    /// The replicas that two nodes share.
    pub fn shared(&self, a: usize, b: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.replicas.len()).filter(move |replica| {
            self.members(*replica).any(|node| node == a) && self.members(*replica).any(|node| node == b)
        })
    }
}

impl Operation {
    /// The node that does it.
    pub fn node(&self) -> Option<usize> {
        match self {
            Self::Write { node, .. }
            | Self::Sync { node, .. }
            | Self::Forge { node, .. }
            | Self::Retry { node }
            | Self::Block { node, .. }
            | Self::Unblock { node, .. }
            | Self::Remove { node, .. }
            | Self::Unsubscribe { node, .. }
            | Self::Equivocate { node, .. }
            | Self::Shutdown { node, .. } => Some(*node),
            Self::Promote { .. } => None,
        }
    }

    /// All nodes that it names.
    pub(super) fn nodes_mut(&mut self) -> Vec<&mut usize> {
        match self {
            Self::Sync { node, peer, .. }
            | Self::Block { node, peer }
            | Self::Unblock { node, peer }
            | Self::Remove { node, peer }
            | Self::Unsubscribe { node, peer, .. } => vec![node, peer],
            Self::Write { node, .. }
            | Self::Promote { node, .. }
            | Self::Forge { node, .. }
            | Self::Equivocate { node, .. }
            | Self::Retry { node }
            | Self::Shutdown { node, .. } => vec![node],
        }
    }

    /// The replica that it is about.
    pub fn replica(&self) -> Option<usize> {
        match self {
            Self::Write { replica, .. }
            | Self::Promote { replica, .. }
            | Self::Sync { replica, .. }
            | Self::Forge { replica, .. }
            | Self::Equivocate { replica, .. }
            | Self::Unsubscribe { replica, .. } => Some(*replica),
            Self::Retry { .. }
            | Self::Block { .. }
            | Self::Unblock { .. }
            | Self::Remove { .. }
            | Self::Shutdown { .. } => None,
        }
    }
}

impl Fault {
    /// All nodes that it names.
    pub(super) fn nodes_mut(&mut self) -> Vec<&mut usize> {
        match self {
            Self::Partition { side, .. } => side.iter_mut().collect(),
            Self::OneWay { from, to, .. } => vec![from, to],
            Self::Cut { a, b } | Self::HalfOpen { a, b } => vec![a, b],
            Self::Unreachable { node, .. }
            | Self::Crash { node, .. }
            | Self::PowerCut { node, .. }
            | Self::Wipe { node, .. }
            | Self::Rollback { node, .. }
            | Self::ClockJump { node, .. }
            | Self::DiskError { node, .. }
            | Self::DiskFull { node, .. }
            | Self::Pause { node, .. }
            | Self::ClockStops { node, .. }
            | Self::Move { node } => vec![node],
        }
    }
}
