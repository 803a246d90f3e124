//! The world that a scenario is played in: virtual time, nodes, the network between them.
//!
//! It performs the outputs of each machine exactly as the manager's driver does, and decides as
//! little: frames of a stream stay in order, streams overtake each other, store operations take
//! their time, and a crash takes everything with it but what was committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hasher},
    rc::Rc,
    time::Duration,
};

use super::{
    Invariant,
    disk::Device,
    draw::{Draw, Stream},
    node::{Acknowledged, BEGINNING, Node, Snapshot, addresses},
    outcome::{Counters, Failure, Outcome},
    scenario::*,
    spent::Delivered,
    wire::{Side, Wire},
};
use crate::{
    canary::{self, Canary},
    machine::{
        AskId, DialFailure, DialId, Direction, Event as MachineEvent, Input, OpId, StoreReply, StoreRequest, Target,
        WorkError,
    },
    model::{
        AuthorId, CommitError, Grant, HybridClock, MAX_INLINE_LEN, Op, Order, PeerId, Prefix, ReplicaId, Right,
        SecretKey, Timestamp, Value, VerifiedBundle, sign_commit,
    },
};

/// So many events at one instant mean that something spins.
const MAX_AT_ONCE: u64 = 200_000;

/// A replica of the simulation.
pub struct Replica {
    pub id: ReplicaId,
    pub owner: SecretKey,
    /// The grants: the owner's node first, then the members.
    pub grants: Vec<VerifiedBundle>,
    /// Every entry that was ever accepted where it was written.
    pub truth: Vec<(Order, Op)>,
    /// Those whose writing failed: a disk that failed, or lost its power, may have them all the same.
    pub perhaps: Vec<(Order, Op)>,
    /// The hashes of both: nobody may have anything else.
    pub written: BTreeSet<[u8; 32]>,
    /// Those that a wiped or rolled back disk may have taken with it.
    pub at_risk: BTreeSet<[u8; 32]>,
}

/// What is done on a store.
#[derive(Debug)]
pub enum Work {
    Machine {
        op: OpId,
        request: StoreRequest,
    },
    Write {
        replica: usize,
        bundle: VerifiedBundle,
    },
    Forge {
        replica: usize,
        bundle: VerifiedBundle,
    },
    /// Entries that an author elsewhere has signed.
    Given {
        replica: usize,
        bundles: Vec<VerifiedBundle>,
    },
}

/// What has come of it.
#[derive(Debug)]
pub enum Done {
    Machine { op: OpId, result: Result<StoreReply, WorkError> },
    Written { replica: usize, entries: Vec<(Order, Op)>, applied: crate::store::Applied },
}

/// What happens next.
#[derive(Debug)]
pub enum Event {
    Operation(usize),
    Fault(usize),
    EndFault(usize),
    Snapshot(usize),
    Join { replica: usize, node: usize },
    Pull { replica: usize, node: usize },
    Widen { replica: usize, node: usize },
    Wake { node: usize, epoch: u64 },
    Restart { node: usize, epoch: u64 },
    Stop { node: usize, epoch: u64, down_us: u64 },
    Dial { node: usize, epoch: u64, dial: DialId, target: usize, transport: String },
    DialFailed { node: usize, epoch: u64, dial: DialId, error: &'static str },
    Connected { wire: u64 },
    Arrive { wire: u64, side: Side, stream: usize },
    Gone { wire: u64, side: Side },
    Stall { wire: u64 },
    Execute { node: usize, epoch: u64, work: Box<Work> },
    Reply { node: usize, epoch: u64, done: Box<Done> },
    Leave(usize),
    Heal,
    Check,
}

/// A running simulation.
pub struct World<'a> {
    pub scenario: &'a Scenario,
    pub draw: Draw,
    pub now_us: u64,
    queue: BTreeMap<(u64, u64), Event>,
    events: u64,
    at_once: u64,
    pub nodes: Vec<Node>,
    pub replicas: Vec<Replica>,
    pub by_id: BTreeMap<PeerId, usize>,
    pub wires: BTreeMap<u64, Wire>,
    pub next_wire: u64,
    /// How many faults block the way from one node to another.
    pub blocked: BTreeMap<(usize, usize), u32>,
    pub snapshots: BTreeMap<usize, Snapshot>,
    /// Makes new ones.
    pub devices: &'a dyn Fn() -> Rc<dyn Device>,
    /// What an application says of what a node has.
    pub invariant: Option<&'a Invariant<'a>>,
    /// How far ahead any clock ever was.
    pub furthest_us: i64,
    pub healed: bool,
    pub converged_us: Option<u64>,
    pub done: bool,
    /// When the difference was last measured since the healing, and what it was.
    pub progress: Option<(u64, u64)>,
    pub failure: Option<Failure>,
    pub counters: Counters,
    /// Per sender and target: since when, and how many dials and rounds of reconciliation.
    pub dial_rate: BTreeMap<(usize, usize), (u64, u64)>,
    pub round_rate: BTreeMap<(usize, usize), (u64, u64)>,
    /// What nodes have acknowledged to each other, by who has sent it, to whom, and the replica.
    pub delivered: BTreeMap<(usize, usize, usize), Delivered>,
    pub trace: DefaultHasher,
}

impl<'a> World<'a> {
    /// Everything before the beginning.
    pub fn new(
        scenario: &'a Scenario,
        devices: &'a dyn Fn() -> Rc<dyn Device>,
        invariant: Option<&'a Invariant<'a>>,
    ) -> Self {
        let draw = Draw(scenario.seed);
        let nodes: Vec<Node> = scenario
            .nodes
            .iter()
            .enumerate()
            .map(|(at, plan)| node(draw, at, plan, scenario.knobs.grain_us, devices()))
            .collect();
        let by_id = nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
        let replicas = (0..scenario.replicas.len()).map(|at| replica(draw, at, scenario, &nodes)).collect();
        let mut world = Self {
            scenario,
            draw,
            now_us: 0,
            queue: BTreeMap::new(),
            events: 0,
            at_once: 0,
            nodes,
            replicas,
            by_id,
            wires: BTreeMap::new(),
            next_wire: 0,
            blocked: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            devices,
            invariant,
            furthest_us: {
                let honest = scenario.nodes.iter().filter(|node| node.habits.is_empty());
                honest.map(|node| node.clock_ms * 1_000).max().unwrap_or(0).max(0)
            },
            healed: false,
            converged_us: None,
            done: false,
            progress: None,
            failure: None,
            counters: Counters::default(),
            dial_rate: BTreeMap::new(),
            round_rate: BTreeMap::new(),
            delivered: BTreeMap::new(),
            trace: DefaultHasher::new(),
        };
        world.plan();
        world
    }

    fn plan(&mut self) {
        let scenario = self.scenario;
        for node in 0..self.nodes.len() {
            self.restart(node);
        }
        for (replica, plan) in scenario.replicas.iter().enumerate() {
            for member in plan.members.iter().filter(|member| member.joins_ms > 0) {
                self.at(member.joins_ms * 1_000, Event::Join { replica, node: member.node });
            }
            for member in &plan.members {
                let node = member.node;
                if let Some(at) = member.pulls_ms {
                    self.at(at * 1_000, Event::Pull { replica, node });
                }
                if let Some(at) = member.widens_ms {
                    self.at(at * 1_000, Event::Widen { replica, node });
                }
            }
        }
        for (at, operation) in scenario.operations.iter().enumerate() {
            self.at(operation.at_ms * 1_000, Event::Operation(at));
        }
        for (at, fault) in scenario.faults.iter().enumerate() {
            if let Fault::Rollback { to_ms, .. } = fault.what {
                self.at(to_ms * 1_000, Event::Snapshot(at));
            }
            self.at(fault.at_ms * 1_000, Event::Fault(at));
        }
        for (node, plan) in scenario.nodes.iter().enumerate() {
            if let Some(leaves) = &plan.leaves {
                self.at(leaves.at_ms * 1_000, Event::Leave(node));
            }
        }
        self.at(scenario.heal_ms * 1_000, Event::Heal);
    }

    /// Plays it to the end.
    pub fn run(mut self) -> Outcome {
        while !self.done
            && self.failure.is_none()
            && let Some(((at, _), event)) = self.queue.pop_first()
        {
            self.at_once = if at > self.now_us { 0 } else { self.at_once + 1 };
            if self.at_once > MAX_AT_ONCE {
                self.fail("O7", format!("something spins: {event:?} and {MAX_AT_ONCE} events at one instant"));
                break;
            }
            self.now_us = self.now_us.max(at);
            self.counters.events += 1;
            tracing::trace!(now_us = self.now_us, ?event);
            self.happen(event);
        }
        if self.failure.is_none() {
            self.check_end();
        }
        Outcome { failure: self.failure, counters: self.counters, trace: self.trace.finish(), virtual_us: self.now_us }
    }

    /// Plans an event.
    pub fn at(&mut self, at_us: u64, event: Event) {
        self.events += 1;
        self.queue.insert((at_us.max(self.now_us), self.events), event);
    }

    /// An oracle has spoken.
    pub fn fail(&mut self, oracle: &'static str, what: String) {
        if self.failure.is_none() {
            self.failure = Some(Failure { oracle: oracle.into(), what, at_ms: self.now_us / 1_000 });
        }
    }

    /// Something rare has happened.
    pub fn mark(&mut self, name: &'static str) {
        *self.counters.marks.entry(name.into()).or_default() += 1;
    }

    /// Whose event it is, when it is one that a paused node would have to wait with.
    fn concerns(&self, event: &Event) -> Option<usize> {
        match event {
            // Whoever dials waits in a queue of the system.
            Event::Dial { target: node, .. }
            | Event::Wake { node, .. }
            | Event::DialFailed { node, .. }
            | Event::Execute { node, .. }
            | Event::Reply { node, .. } => Some(*node),
            Event::Arrive { wire, side, .. } | Event::Gone { wire, side } => {
                self.wires.get(wire).map(|wire| wire.end(*side).node)
            }
            Event::Connected { wire } => self.wires.get(wire).map(|wire| wire.end(Side::Dialer).node),
            _ => None,
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some(node) = self.concerns(&event)
            && self.nodes[node].paused_us > self.now_us
        {
            let until = self.nodes[node].paused_us;
            if matches!(event, Event::Arrive { .. }) {
                self.counters.faults += 1;
                self.mark("delayed_by_a_pause");
            }
            return self.at(until, event);
        }
        match event {
            Event::Operation(at) => self.operation(at),
            Event::Fault(at) => self.fault(at),
            Event::EndFault(at) => self.end_fault(at),
            Event::Snapshot(at) => self.snapshot(at),
            Event::Join { replica, node } => self.join(replica, node),
            Event::Pull { replica, node } => self.direct(replica, node),
            Event::Widen { replica, node } => self.widen(replica, node),
            Event::Wake { node, epoch } => self.wake(node, epoch),
            Event::Restart { node, epoch } => {
                if self.nodes[node].epoch == epoch && self.nodes[node].process.is_none() {
                    self.restart(node);
                }
            }
            Event::Stop { node, epoch, down_us } => {
                if self.nodes[node].epoch == epoch {
                    self.end_process(node, down_us);
                }
            }
            Event::Dial { node, epoch, dial, target, transport } => self.dialed(node, epoch, dial, target, transport),
            Event::DialFailed { node, epoch, dial, error } => {
                if self.nodes[node].epoch == epoch
                    && let Some(process) = &mut self.nodes[node].process
                    && process.dials.remove(&dial).is_some()
                {
                    self.input(node, Input::DialFailed { dial, why: DialFailure::Unreachable, error: error.into() });
                }
            }
            Event::Connected { wire } => self.connected(wire),
            Event::Arrive { wire, side, stream } => self.arrive(wire, side, stream),
            Event::Gone { wire, side } => self.gone(wire, side, "the peer closed the connection"),
            Event::Stall { wire } => self.stalled(wire),
            Event::Execute { node, epoch, work } => self.execute(node, epoch, *work),
            Event::Reply { node, epoch, done } => self.replied(node, epoch, *done),
            Event::Leave(node) => self.leave(node),
            Event::Heal => self.heal(),
            Event::Check => self.check(),
        }
    }

    fn wake(&mut self, node: usize, epoch: u64) {
        let now = self.nodes[node].now(self.now_us);
        if self.nodes[node].epoch != epoch {
            return;
        }
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.wake_us.is_some_and(|at| at <= self.now_us) {
            process.wake_us = None;
        }
        match process.machine.poll_timeout() {
            Some(at) if at <= now.elapsed => self.input(node, Input::Tick),
            _ => self.plan_wake(node),
        }
    }

    /// Plans to tell the machine the time when it wants to be told.
    pub fn plan_wake(&mut self, node: usize) {
        let now_us = self.now_us;
        let epoch = self.nodes[node].epoch;
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(at) = process.machine.poll_timeout() else { return };
        let at_us = (process.started_us + u64::try_from(at.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX)).max(now_us);
        if process.wake_us.is_none_or(|planned| at_us < planned) {
            process.wake_us = Some(at_us);
            self.at(at_us, Event::Wake { node, epoch });
        }
    }

    fn operation(&mut self, at: usize) {
        self.counters.operations += 1;
        let operation = &self.scenario.operations[at].what;
        // Nobody uses an application that stands still.
        if operation.node().is_some_and(|node| self.nodes[node].paused_us > self.now_us) {
            return;
        }
        match operation {
            Operation::Write { node, replica, as_owner, changes } => self.write(*node, *replica, *as_owner, changes),
            Operation::Promote { replica, node } => self.promote(*replica, *node),
            Operation::Sync { node, replica, peer } => {
                let (peer, id) = (self.nodes[*peer].id, self.replicas[*replica].id);
                let Some(process) = &mut self.nodes[*node].process else { return };
                process.next += 1;
                let ask = AskId(process.next);
                process.asks.insert(ask, (id, peer));
                let timeout = Duration::from_secs(30);
                self.input(*node, Input::Sync { ask, replica: id, target: Target::Peer(peer), timeout });
            }
            Operation::Retry { node } => {
                self.mark("retried");
                self.input(*node, Input::RetryNow);
            }
            Operation::Block { node, peer } => {
                self.mark("blocked");
                self.input(*node, Input::BlockPeer { peer: self.nodes[*peer].id, blocked: true });
            }
            Operation::Unblock { node, peer } => {
                self.input(*node, Input::BlockPeer { peer: self.nodes[*peer].id, blocked: false });
            }
            Operation::Remove { node, peer } => {
                let id = self.nodes[*peer].id;
                let names: Vec<_> = self.replicas.iter().map(|replica| job_name(&replica.id, &id)).collect();
                let Some(process) = &mut self.nodes[*node].process else { return };
                process.unsubscribed.extend(names);
                self.mark("removed");
                // That it was removed is remembered; where it was is not. The next start says it again.
                self.nodes[*node].added.remove(&id);
                self.input(*node, Input::RemovePeer { peer: id });
            }
            Operation::Unsubscribe { node, replica, peer } => {
                let (replica, peer) = (self.replicas[*replica].id, self.nodes[*peer].id);
                let Some(process) = &mut self.nodes[*node].process else { return };
                process.unsubscribed.insert(job_name(&replica, &peer));
                self.mark("unsubscribed");
                self.input(*node, Input::Unsubscribe { replica, peer });
            }
            Operation::Forge { node, replica, key } => {
                let change = Change::Put { key: key.clone(), len: 7, tag: u64::MAX };
                if self.nodes[*node].promoted {
                    return;
                }
                let author = self.nodes[*node].key.clone();
                let ops = vec![op(self.draw, &change)];
                if let Some(bundle) = self.sign(*node, *replica, &author, ops) {
                    self.nodes[*node].dishonest = !self.scenario.is_hostile(*node);
                    self.work(*node, Work::Forge { replica: *replica, bundle });
                }
            }
            Operation::Equivocate { node, replica, tag } => self.equivocate(*node, *replica, *tag),
            Operation::Shutdown { node, down_ms } => self.shut_down(*node, *down_ms),
        }
    }

    /// Signs a transaction and hands it to the store.
    fn write(&mut self, node: usize, replica: usize, as_owner: bool, changes: &[Change]) {
        let draw = self.draw;
        // What only a node that pulls had would stay there.
        if self.scenario.member(replica, node).is_some_and(|member| member.pulls_ms.is_some()) && !as_owner {
            return;
        }
        // Who has a part writes there.
        let prefix = match as_owner {
            true => "",
            false => self.scenario.member(replica, node).map_or("", |member| member.prefix.as_str()),
        };
        let ops: Vec<Op> = changes.iter().map(|change| op(draw, &change.within(prefix))).collect();
        if ops.iter().any(|op| std::str::from_utf8(op.key_bytes()).is_err()) {
            self.mark("key_that_is_no_text");
        }
        let key = if as_owner { self.replicas[replica].owner.clone() } else { self.nodes[node].key.clone() };
        self.commit(node, replica, &key, ops);
    }

    fn promote(&mut self, replica: usize, node: usize) {
        let owner = self.scenario.replicas[replica].owner;
        // What it forged would become right; who has a part keeps that.
        let is_part = self.scenario.member(replica, node).is_some_and(|member| !member.is_full());
        if is_part
            || self.scenario.is_hostile(node)
            || self.nodes[node].dishonest
            || std::mem::replace(&mut self.nodes[node].promoted, true)
        {
            return;
        }
        let key = self.replicas[replica].owner.clone();
        let op = grant(self.nodes[node].key.public(), Right::Write, "", None).to_op(&AuthorId(key.public()));
        self.mark("granted_again");
        self.commit(owner, replica, &key, vec![op]);
    }

    /// Who only pulls from now on tells its machine so, and again after each restart.
    pub fn direct(&mut self, replica: usize, node: usize) {
        let pulls = self.scenario.member(replica, node).and_then(|member| member.pulls_ms);
        if self.nodes[node].process.is_some() && pulls.is_some_and(|at| self.now_us >= at * 1_000) {
            let replica = self.replicas[replica].id;
            self.input(node, Input::SetDirection { replica, direction: Direction::Pull });
            self.mark("only_pulls");
        }
    }

    /// The owner grants a member of a part to read everything, until that is durable.
    fn widen(&mut self, replica: usize, node: usize) {
        let owner = self.scenario.replicas[replica].owner;
        if self.has_been_widened(replica, node) {
            return self.mark("reads_more");
        }
        // Whoever is away hears of it when it starts again.
        if self.nodes[owner].process.is_none() {
            return;
        }
        if self.nodes[owner].paused_us <= self.now_us {
            let key = self.replicas[replica].owner.clone();
            let grant = grant(self.nodes[node].key.public(), Right::Read, "", None);
            self.commit(owner, replica, &key, vec![grant.to_op(&AuthorId(key.public()))]);
        }
        self.at(self.now_us + 1_000_000, Event::Widen { replica, node });
    }

    /// Whether the owner has granted a member what it is to be granted.
    pub fn has_been_widened(&self, replica: usize, node: usize) -> bool {
        let plan = &self.scenario.replicas[replica];
        if self.scenario.member(replica, node).is_none_or(|member| member.widens_ms.is_none()) {
            return true;
        }
        let author = AuthorId(self.replicas[replica].owner.public());
        let id = grant(self.nodes[node].key.public(), Right::Read, "", None).id(&author);
        let process = self.nodes[plan.owner].process.as_ref();
        let state = process.and_then(|process| process.store.core().state(self.replicas[replica].id).ok());
        state.is_some_and(|state| state.rights.contains(&id))
    }

    fn commit(&mut self, node: usize, replica: usize, key: &SecretKey, ops: Vec<Op>) {
        let is_long =
            |op: &Op| matches!(op, Op::Put { value: Value::Inline(bytes), .. } if bytes.len() > MAX_INLINE_LEN);
        if ops.iter().any(is_long) {
            let written = self.try_sign(node, replica, key, ops);
            return match written {
                Some(Ok(_)) => self.fail("O12", format!("node {node} signs a value that is too long")),
                _ => self.mark("too_long_to_be_written"),
            };
        }
        let Some(bundle) = self.sign(node, replica, key, ops) else { return };
        if canary::is_out(Canary::AcknowledgeBeforeCommit) {
            let entries = bundle.entries().map(|entry| (entry.order, entry.op.clone())).collect();
            self.acknowledge(node, replica, entries);
        }
        if canary::is_out(Canary::AnnounceBeforeCommit)
            && let Some(process) = &self.nodes[node].process
            && let Ok(state) = process.store.core().state(self.replicas[replica].id)
        {
            let head = crate::store::Position(state.head.0 + bundle.entries().count() as u64);
            let state = crate::store::ReplicaState { head, ..state };
            let written = Some(bundle.entries().count() as u64);
            self.input(node, Input::Changed { replica: self.replicas[replica].id, state, written });
        }
        self.work(node, Work::Write { replica, bundle });
    }

    pub fn sign(&self, node: usize, replica: usize, key: &SecretKey, ops: Vec<Op>) -> Option<VerifiedBundle> {
        Some(self.try_sign(node, replica, key, ops)?.expect("what is not too long can be written"))
    }

    fn try_sign(
        &self,
        node: usize,
        replica: usize,
        key: &SecretKey,
        ops: Vec<Op>,
    ) -> Option<Result<VerifiedBundle, CommitError>> {
        let id = self.replicas[replica].id;
        let wall = self.nodes[node].wall(self.now_us);
        let clock = self.nodes[node].process.as_ref()?.clocks.get(&id)?;
        Some(sign_commit(id, key, clock, wall, ops))
    }

    /// Makes a replica on a node that has its ticket, and begins to sync it.
    pub fn join(&mut self, replica: usize, node: usize) {
        let id = self.replicas[replica].id;
        let now = self.nodes[node].wall(self.now_us);
        let Some(process) = &self.nodes[node].process else { return };
        let Ok(known) = process.store.core().replicas() else {
            // The disk is in trouble: the application tries again.
            return self.at(self.now_us + 1_000_000, Event::Join { replica, node });
        };
        // A disk in trouble may have made the replica and not taken what the ticket brings.
        let is_empty = process.store.core().state(id).is_ok_and(|state| state.root.count == 0);
        if !known.contains(&id) || is_empty {
            let bundles = if self.scenario.replicas[replica].owner == node {
                self.replicas[replica].grants.clone()
            } else {
                let members = &self.scenario.replicas[replica].members;
                // A hostile node joins whatever it hears of.
                let at = members.iter().position(|member| member.node == node);
                at.map(|at| self.replicas[replica].grants[at + 1].clone()).into_iter().collect()
            };
            let brought = bundles.iter().map(|bundle| bundle.entries().count() as u64).sum::<u64>();
            let create = crate::store::Write::CreateReplica { replica: id, records: Vec::new() };
            let apply = crate::store::Apply {
                replica: id,
                bundles,
                origin: crate::store::Origin::Local,
                now,
                records: Vec::new(),
            };
            let results = process.store.core().write(&[create, crate::store::Write::Apply(apply)]);
            if !self.has_power(node) {
                return;
            }
            if results.iter().any(Result::is_err) {
                // The disk is in trouble: the application tries again. What failed may be durable all the same.
                self.tally(node, id, |tally| tally.passed += brought);
                return self.at(self.now_us + 1_000_000, Event::Join { replica, node });
            }
            if let Some(Ok(crate::store::Written::Applied(applied))) = results.last()
                && let Some(process) = &mut self.nodes[node].process
                && process.watchers.contains_key(&id)
            {
                let tally = process.tallies.entry(id).or_default();
                tally.durable += applied.inserted();
                tally.written += applied.inserted();
                tally.passed += applied.outcomes.len() as u64 - applied.inserted();
            }
        }
        self.open_replica(node, id);
        self.subscribe(node, replica);
    }

    /// The replica is there: the machine and the clock learn of it.
    pub fn open_replica(&mut self, node: usize, id: ReplicaId) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let Ok(state) = process.store.core().state(id) else { return };
        process.clocks.entry(id).or_default().observe(state.newest);
        let (head, known) = (state.head, process.watchers.contains_key(&id));
        // What is on its way tells of itself.
        let is_writing = process.tallies.get(&id).is_some_and(|tally| tally.durable > tally.written);
        self.input(node, Input::Changed { replica: id, state, written: is_writing.then_some(0) });
        if !known {
            self.watch_from(node, id, head);
        }
    }

    /// The application says whom it knows and what it wants, unless the node remembers.
    fn subscribe(&mut self, node: usize, replica: usize) {
        let id = self.replicas[replica].id;
        for path in self.scenario.paths.iter().filter(|path| path.from == node) {
            let is_shared = self.scenario.shared(path.from, path.to).any(|shared| shared == replica);
            if !is_shared && !self.scenario.is_hostile(node) {
                continue;
            }
            let (peer, addresses) = (self.nodes[path.to].id, self.nodes[path.to].addresses.clone());
            let Some(process) = &self.nodes[node].process else { return };
            let name = job_name(&id, &peer);
            let ended = process.unsubscribed.contains(&name);
            let it = &mut self.nodes[node];
            if it.added.insert(peer) || ended || !it.durable_peers.contains(peer.as_bytes().as_slice()) {
                self.input(node, Input::AddPeer { peer, addresses });
            }
            if ended || !self.nodes[node].durable_jobs.contains(&name) {
                self.input(node, Input::Subscribe { replica: id, peer });
            }
        }
    }

    /// Everything that the application wants at the start of a process.
    pub fn rejoin(&mut self, node: usize) {
        let (scenario, now_us) = (self.scenario, self.now_us);
        for (replica, plan) in scenario.replicas.iter().enumerate().filter(|(_, plan)| plan.owner == node) {
            for member in plan.members.iter().filter(|member| member.has_widened(now_us)) {
                self.at(now_us, Event::Widen { replica, node: member.node });
            }
        }
        for replica in 0..self.replicas.len() {
            let plan = &self.scenario.replicas[replica];
            let joined = plan.owner == node
                || self.scenario.is_hostile(node) && !plan.members.iter().any(|member| member.node == node)
                || plan.members.iter().any(|member| member.node == node && member.joins_ms * 1_000 <= self.now_us);
            if joined {
                self.join(replica, node);
            }
        }
    }

    /// What the machine tells the application.
    pub fn told(&mut self, node: usize, event: &MachineEvent) {
        match event {
            _ if self.scenario.is_hostile(node) => {}
            MachineEvent::Received { replica, entries, .. } => {
                self.tally(node, *replica, |tally| tally.told_received += entries);
                self.watch(node, *replica);
            }
            MachineEvent::Written { replica, entries } => {
                self.tally(node, *replica, |tally| tally.told_written += entries);
                self.watch(node, *replica);
            }
            MachineEvent::Synced { replica, peer } => self.check_synced(node, *replica, *peer),
            _ => {}
        }
        match event {
            MachineEvent::Refused { .. } => self.mark("entries_refused"),
            MachineEvent::SyncFailed { .. } => self.mark("session_failed"),
            MachineEvent::Synced { .. } => self.mark("synced"),
            _ => {}
        }
    }

    /// An acknowledged write is remembered: it must never be lost.
    pub fn acknowledge(&mut self, node: usize, replica: usize, entries: Vec<(Order, Op)>) {
        self.counters.acknowledged += entries.len() as u64;
        let new = entries.into_iter().map(|(order, op)| Acknowledged { replica, order, op });
        self.nodes[node].acknowledged.extend(new);
    }
}

fn node(draw: Draw, at: usize, plan: &NodePlan, grain_us: u64, disk: Rc<dyn Device>) -> Node {
    let key = SecretKey::from_bytes(draw.bytes(Stream::Identity, at as u64, 0));
    Node {
        id: PeerId(key.public()),
        key,
        addresses: addresses(at, 0, plan.addresses),
        disk,
        stores: 0,
        epoch: 0,
        process: None,
        without_power_ms: 0,
        crash: None,
        clock_us: plan.clock_ms * 1_000,
        drift_ppm: plan.drift_ppm,
        stopped_us: None,
        moves: 0,
        left: false,
        jumped_us: None,
        replaced_us: None,
        ended_us: 0,
        paused_us: 0,
        acknowledged: Vec::new(),
        refused: BTreeSet::new(),
        early: BTreeSet::new(),
        refused_more: BTreeSet::new(),
        positions: BTreeMap::new(),
        durable_jobs: BTreeSet::new(),
        durable_peers: BTreeSet::new(),
        added: BTreeSet::new(),
        promoted: false,
        unreachable: 0,
        dishonest: false,
        grain_us,
        said: Default::default(),
        acts: 0,
        operations: 0,
        dialed: 0,
    }
}

fn job_name(replica: &ReplicaId, peer: &PeerId) -> Vec<u8> {
    [replica.as_bytes().as_slice(), peer.as_bytes()].concat()
}

fn grant(subject: crate::model::PublicKey, right: Right, prefix: &str, expires_ms: Option<u64>) -> Grant {
    let prefix = Prefix::new(key_bytes(prefix)).expect("prefixes of scenarios are short");
    let expires = expires_ms.map(|at| Timestamp(BEGINNING.0 + at * 1_000));
    Grant { subject, right, prefix, expires, parent: None }
}

fn replica(draw: Draw, at: usize, scenario: &Scenario, nodes: &[Node]) -> Replica {
    let owner = SecretKey::from_bytes(draw.bytes(Stream::Identity, at as u64, 1));
    let id = ReplicaId(owner.public());
    let author = AuthorId(owner.public());
    let plan = &scenario.replicas[at];
    let clock = HybridClock::default();
    let granted = Timestamp(BEGINNING.0 - 3_600_000_000);
    let subjects = std::iter::once((plan.owner, Right::Admin, "", None));
    let members =
        plan.members.iter().map(|member| (member.node, member.right, member.prefix.as_str(), member.expires_ms));
    let grants: Vec<VerifiedBundle> = subjects
        .chain(members)
        .map(|(node, right, prefix, expires)| {
            let op = grant(nodes[node].key.public(), right, prefix, expires).to_op(&author);
            sign_commit(id, &owner, &clock, granted, vec![op]).expect("a grant can be written")
        })
        .collect();
    let truth: Vec<(Order, Op)> = grants
        .iter()
        .flat_map(|bundle| bundle.entries().map(|entry| (entry.order, entry.op.clone())).collect::<Vec<_>>())
        .collect();
    let mut replica = Replica {
        id,
        owner,
        grants,
        truth: Vec::new(),
        perhaps: Vec::new(),
        written: BTreeSet::new(),
        at_risk: BTreeSet::new(),
    };
    replica.is_true(truth);
    replica
}

impl Replica {
    /// Entries were accepted where they were written.
    pub fn is_true(&mut self, entries: Vec<(Order, Op)>) {
        self.written.extend(entries.iter().map(|(order, _)| order.hash.0));
        self.truth.extend(entries);
    }

    /// Entries may have been written.
    pub fn may_be_true(&mut self, entries: &[(Order, Op)]) {
        self.written.extend(entries.iter().map(|(order, _)| order.hash.0));
        self.perhaps.extend(entries.iter().cloned());
    }
}

/// What a change writes.
pub fn op(draw: Draw, change: &Change) -> Op {
    use crate::model::{Key, Value};
    let key = |text: &str| Key::new(key_bytes(text)).expect("keys of scenarios are keys");
    match change {
        Change::Put { key: at, len, tag } => {
            let mut bytes = vec![0; *len];
            let mut random = draw.random(Stream::Values, *tag, 0);
            for chunk in bytes.chunks_mut(8) {
                let len = chunk.len();
                chunk.copy_from_slice(&random.bits().to_le_bytes()[..len]);
            }
            Op::Put { key: key(at), value: Value::Inline(bytes.into()) }
        }
        Change::Delete { key: at } => Op::Delete { key: key(at) },
        Change::DeletePrefix { prefix } => Op::DeletePrefix { prefix: Prefix::new(key_bytes(prefix)).expect("short") },
    }
}
