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
    /// How many addresses it has.
    pub addresses: u8,
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
    /// For which keys.
    pub prefix: String,
    /// When it joins.
    pub joins_ms: u64,
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
    /// End everything in good order, and start again after a while.
    Shutdown {
        /// Who.
        node: usize,
        /// For how long.
        down_ms: u64,
    },
}

/// One entry of a transaction.
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
}

impl Scenario {
    /// The nodes that have a replica, the owner's first.
    pub fn members(&self, replica: usize) -> impl Iterator<Item = usize> + '_ {
        let plan = &self.replicas[replica];
        std::iter::once(plan.owner).chain(plan.members.iter().map(|member| member.node))
    }

    /// Whether the nodes of each replica are connected by paths; otherwise they cannot become equal.
    pub fn is_connected(&self) -> bool {
        (0..self.replicas.len()).all(|replica| {
            let members: Vec<usize> = self.members(replica).collect();
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
            | Self::Shutdown { node, .. } => Some(*node),
            Self::Promote { .. } => None,
        }
    }

    /// The replica that it is about.
    pub fn replica(&self) -> Option<usize> {
        match self {
            Self::Write { replica, .. }
            | Self::Promote { replica, .. }
            | Self::Sync { replica, .. }
            | Self::Forge { replica, .. }
            | Self::Unsubscribe { replica, .. } => Some(*replica),
            Self::Retry { .. }
            | Self::Block { .. }
            | Self::Unblock { .. }
            | Self::Remove { .. }
            | Self::Shutdown { .. } => None,
        }
    }
}
