//! The oracles: what must hold, held against the simulation's own knowledge.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    faults::live,
    node::BEGINNING,
    overheard::prefix_of,
    scenario::{Fault, Habit, NodePlan},
    spent::Said,
    world::World,
};
use crate::{
    machine::{
        Footprint, PeerState, SavedPositions, StoreReply, WorkError,
        limits::{Limits, MAX_FRAME_LEN},
        wire::RefusalReason,
    },
    model::{
        AuthorId, Digest, Key, Op, Order, PeerId, ReadScope, ReplicaId, Right, Rights, Summary, Timestamp, dominates,
    },
    store::{Direction, LogEntry, NodeRecord, Origin, Position, Query, Scope, ShortId, reconcile::Widths},
};

/// Who says that a node has what is in the change log of another.
#[derive(Debug, Clone, Copy)]
pub enum Sayer<'a> {
    /// The node itself.
    Itself,
    /// The other; what it has said in this session is under way at least.
    Sender(Option<&'a Said>),
}

/// The most outputs that one input may have.
const MAX_OUTPUTS: usize = 4_096;

type Entries = BTreeMap<[u8; 32], (Order, Op)>;

/// In so long after the healing the difference must have become less: a silent link, a backoff and a check of idle
/// sessions, twice.
const PROGRESS_US: u64 = 290_000_000;

/// How long what a node has said may be under way.
const FORGOTTEN_US: u64 = 100_000_000;

fn by_hash(entries: Vec<(Order, Op)>) -> Entries {
    entries.into_iter().map(|(order, op)| (order.hash.0, (order, op))).collect()
}

impl World<'_> {
    /// Whether every replica is the same at all of its nodes, and who has a part has exactly that. The roots are a hint;
    /// the end of the simulation looks at the entries themselves.
    pub fn is_converged(&self) -> bool {
        (0..self.replicas.len()).all(|replica| {
            let mut full = self.scenario.full_members(replica);
            let owner = full.next().expect("the owner has everything");
            let first = self.root(owner, replica);
            let is_part = |node| self.root_of_part(owner, replica, node) == self.root_of_part(node, replica, node);
            first.is_some()
                && self.scenario.replicas[replica].members.iter().all(|it| self.has_been_widened(replica, it.node))
                && full.all(|node| self.root(node, replica) == first)
                && self.scenario.part_members(replica).all(is_part)
        })
    }

    /// Of how many entries the nodes differ: how many are missing somewhere.
    pub fn difference(&self) -> u64 {
        let mut missing = 0;
        for (number, replica) in self.replicas.iter().enumerate() {
            let members = self.scenario.full_members(number).chain(self.scenario.part_members(number));
            let sets: Vec<(Scope, Entries)> = members
                .map(|node| {
                    let store = self.nodes[node].process.as_ref().map(|process| process.store.clone());
                    let entries = store.map(|store| by_hash(live(store.core(), replica.id))).unwrap_or_default();
                    (self.scope_at_end(number, node), entries)
                })
                .collect();
            let all: Entries = sets.iter().flat_map(|(_, set)| set.clone()).collect();
            for (scope, set) in sets {
                let lacks =
                    |(hash, (_, op)): &(&[u8; 32], &(Order, Op))| !set.contains_key(*hash) && scope.contains(op);
                missing += all.iter().filter(lacks).count() as u64;
            }
        }
        missing
    }

    /// O8: since the healing, the difference falls in every window.
    pub fn check_progress(&mut self) {
        let Some((since, before)) = self.progress.filter(|(since, _)| self.now_us >= since + PROGRESS_US) else {
            return;
        };
        let now = self.difference();
        if now >= before && now > 0 {
            let who = self.who_waits();
            let after = (self.now_us - since) / 1_000_000;
            return self
                .fail("O8", format!("{before} entries were missing somewhere, and {now} are {after} s later.\n{who}"));
        }
        self.progress = Some((self.now_us, now));
    }

    /// O11: a node says that it is synced with another only if that one has everything that it has.
    pub fn check_synced(&mut self, node: usize, id: ReplicaId, peer: PeerId) {
        let Some(replica) = self.replicas.iter().position(|replica| replica.id == id) else { return };
        let Some(other) = self.by_id.get(&peer).copied() else { return };
        // Who has lost its disk meanwhile had it when it said so.
        let has_lost = |node: usize| self.nodes[node].replaced_us.is_some_and(|at| self.now_us < at + FORGOTTEN_US);
        if !self.is_kept(replica, node) || !self.is_kept(replica, other) || has_lost(other) || has_lost(node) {
            return;
        }
        let Some(process) = &self.nodes[node].process else { return };
        let status = process.machine.status().into_iter().find(|status| status.id == id);
        let Some(position) = status.and_then(|status| {
            let peer = status.peers.into_iter().find(|status| status.id == peer)?;
            Some(Position(peer.position))
        }) else {
            return;
        };
        let Ok(mine) = process.store.core().log(id, Position(0), usize::MAX) else { return };
        let theirs = by_hash(self.live_on(&self.nodes[other].disk, other, replica));
        let scope = self.scope(replica, other);
        let is_due = |row: &LogEntry| row.position <= position && scope.contains(&row.entry.op);
        let lacks = mine.into_iter().filter(is_due).find(|row| {
            let order = Order { timestamp: row.entry.timestamp, author: row.entry.author, hash: row.hash };
            !theirs.contains_key(&row.hash.0)
                && !theirs.values().any(|(by, op)| dominates((op, by), (&row.entry.op, &order)))
        });
        if let Some(row) = lacks {
            let what = format!("node {node} says it is synced with node {other}, who lacks {:?}", row.entry.op);
            self.fail("O11", what);
        }
    }

    /// O12: what an application reads is what follows from the entries.
    fn check_reads(&self, node: usize, replica: usize) -> Result<(), (&'static str, String)> {
        let Some(process) = &self.nodes[node].process else { return Ok(()) };
        let (core, id) = (process.store.core(), self.replicas[replica].id);
        // Of each key: the newest, value or tombstone. What a deletion covers is not among live entries.
        let mut newest: BTreeMap<Vec<u8>, (Order, Op)> = BTreeMap::new();
        for (order, op) in live(core, id) {
            let key = op.key_bytes().to_vec();
            if !matches!(op, Op::DeletePrefix { .. }) && newest.get(&key).is_none_or(|(best, _)| *best < order) {
                newest.insert(key, (order, op));
            }
        }
        newest.retain(|_, (_, op)| matches!(op, Op::Put { .. }) && !op.is_system());
        for (key, (_, op)) in &newest {
            let key = Key::new(key.clone()).expect("it is a key");
            let read = core.get(id, &key).map_err(|error| ("O12", error.to_string()))?;
            if read.as_ref().map(|row| &row.entry.op) != Some(op) {
                return Err(("O12", format!("node {node} reads {read:?} where {op:?} is the newest")));
            }
        }
        for (direction, limit) in [(Direction::Ascending, 0), (Direction::Descending, 3)] {
            let query = Query { direction, limit, ..Query::default() };
            let read = core.query(id, &query).map_err(|error| ("O12", error.to_string()))?;
            let read: Vec<Op> = read.into_iter().map(|row| row.entry.op).collect();
            let mut expected: Vec<Op> = newest.values().map(|(_, op)| op.clone()).collect();
            if direction == Direction::Descending {
                expected.reverse();
                expected.truncate(limit);
            }
            if read != expected {
                return Err(("O12", format!("node {node}: a query answers {read:?} instead of {expected:?}")));
            }
        }
        Ok(())
    }

    /// Whether an honest node has a replica, or a part of it, for good.
    fn is_kept(&self, replica: usize, node: usize) -> bool {
        let mut members = self.scenario.full_members(replica).chain(self.scenario.part_members(replica));
        members.any(|member| member == node)
    }

    /// What a node may read of a replica for good, whenever others learn that it may read more.
    fn scope(&self, replica: usize, node: usize) -> Scope {
        match self.scenario.member(replica, node).filter(|member| member.widens_ms.is_some()) {
            Some(member) => Scope::of(&ReadScope { prefixes: vec![prefix_of(member)] }),
            None => self.scope_at_end(replica, node),
        }
    }

    /// What it may read in the end.
    fn scope_at_end(&self, replica: usize, node: usize) -> Scope {
        Scope::of(&self.readable(replica, node, node))
    }

    /// Whether a node has more than it may read, which a hostile one has given it. It keeps that, its root is another, and
    /// nobody says that it is synced.
    fn has_more(&self, replica: usize, node: usize) -> bool {
        self.root_of_part(node, replica, node) != self.root(node, replica)
    }

    /// The root of what a node may read, by what one has.
    fn root_of_part(&self, by: usize, replica: usize, node: usize) -> Option<Digest> {
        let process = self.nodes[by].process.as_ref()?;
        let scope = self.scope_at_end(replica, node);
        Some(process.store.core().scope_summary(self.replicas[replica].id, &scope).ok()?.digest())
    }

    fn root(&self, node: usize, replica: usize) -> Option<Digest> {
        let process = self.nodes[node].process.as_ref()?;
        Some(process.store.core().state(self.replicas[replica].id).ok()?.root)
    }

    /// O6: what a machine holds for its peers is bounded, whatever they send.
    pub fn check_footprint(&mut self, node: usize, held: Footprint) {
        if held.full_windows > 0 {
            self.mark("full_window");
        }
        if self.scenario.is_hostile(node) {
            return;
        }
        if held.stalled > 0 {
            self.fail("O8", format!("node {node} waits for ever in {} sessions", held.stalled));
        }
        let limits = self.scenario.knobs.tight.map(|tight| tight.limits).unwrap_or_default();
        // Entries, a round that waits and one that is compared and its answer, and what came before the credentials were
        // admitted; of each a frame more.
        let most = 2 * (limits.window_len + MAX_FRAME_LEN) + 3 * (limits.round_len + MAX_FRAME_LEN);
        // What a peer may open, and what this node wants of it.
        let sessions = held.links * (limits.sessions + 1) + held.jobs;
        // Others, by the names that they keep, and whoever is linked now: passers-by leave nothing.
        let keeps_name = |node: &&NodePlan| !node.habits.contains(&Habit::ChangeName);
        let others = self.scenario.nodes.iter().filter(keeps_name).count() - 1;
        let known = others + held.links;
        // Each is about a replica that is here.
        let jobs = known * self.scenario.replicas.len();
        let is_crowded =
            held.streams > sessions || held.sessions > sessions + jobs || held.peers > known || held.jobs > jobs;
        if held.largest_len > most || held.outputs > MAX_OUTPUTS || is_crowded {
            self.fail("O6", format!("node {node} holds {held:?}"));
        }
    }

    /// Who waits for what.
    pub fn who_waits(&self) -> String {
        let mut lines = Vec::new();
        for (number, replica) in self.replicas.iter().enumerate() {
            for node in self.scenario.members(number) {
                let root = self.root(node, number);
                lines.push(format!("replica {number} ({}) at node {node}: {root:?}", replica.id.short()));
            }
        }
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else {
                lines.push(format!("node {at} is down"));
                continue;
            };
            for replica in process.machine.status() {
                for peer in replica.peers {
                    lines.push(format!(
                        "node {at}, replica {}, peer node {:?}: {:?}, synced {}, pending {}, refused {}, next try {:?} ms, {:?}",
                        replica.id.short(), self.by_id.get(&peer.id), peer.state, peer.synced, peer.pending,
                        peer.refused, peer.next_try_ms, peer.last_error,
                    ));
                }
            }
            for obstacle in process.machine.obstacles() {
                lines.push(format!("node {at}: {}: {}", obstacle.subject, obstacle.cause));
            }
            if std::env::var_os("SIMULATION_MACHINES").is_some() {
                lines.push(format!("node {at}: {:#?}", process.machine));
            }
        }
        lines.join("\n")
    }

    /// A node that does not know that it is synced with a peer that it is connected to.
    pub fn unaware(&self) -> Option<String> {
        for (at, node) in self.nodes.iter().enumerate().filter(|(at, _)| self.scenario.is_relied_on(*at)) {
            let Some(process) = &node.process else { return Some(format!("node {at} is down")) };
            for replica in process.machine.status() {
                for peer in &replica.peers {
                    let number = self.replicas.iter().position(|it| it.id == replica.id).expect("it is one of them");
                    let other = self.by_id.get(&peer.id).copied();
                    let is_exact = |node| self.is_kept(number, node) && !self.has_more(number, node);
                    if !is_exact(at) || !other.is_some_and(is_exact) {
                        continue;
                    }
                    let is_known = self.scenario.paths.iter().any(|path| {
                        self.nodes[path.to].id == peer.id && path.from == at
                            || self.nodes[path.from].id == peer.id && path.to == at
                    });
                    if is_known && (!peer.synced || peer.pending > 0 || peer.state != PeerState::Live) {
                        return Some(format!(
                            "node {at}, replica {}: {peer:?}\n{}",
                            replica.id.short(),
                            self.who_waits()
                        ));
                    }
                }
            }
        }
        None
    }

    /// O3: whether an author may write an entry by what stands in the scenario.
    pub fn may_write(&self, node: usize, replica: usize, author: AuthorId, (order, op): &(Order, Op)) -> bool {
        let Some(member) = self.scenario.member(replica, node) else { return true };
        if author.0 == self.replicas[replica].id.0 || self.nodes[node].promoted || self.scenario.is_hostile(node) {
            return true;
        }
        let ends = member.expires_ms.map(|at| Timestamp(BEGINNING.0 + at * 1_000));
        member.right >= Right::Write
            && prefix_of(member).covers(op.key_bytes())
            && ends.is_none_or(|ends| order.timestamp < ends)
    }

    /// O2: what was acknowledged here is here, or something newer that covers it.
    pub fn check_acknowledged(&mut self, node: usize) {
        if self.nodes[node].process.is_none() || self.scenario.is_hostile(node) {
            return;
        }
        let mut lost = None;
        for replica in 0..self.replicas.len() {
            let mine: Vec<_> = self.nodes[node].acknowledged.iter().filter(|it| it.replica == replica).collect();
            if mine.is_empty() {
                continue;
            }
            let here = by_hash(self.live_on(&self.nodes[node].disk, node, replica));
            for it in mine {
                let covered = here.contains_key(&it.order.hash.0)
                    || here.values().any(|(order, by)| dominates((by, order), (&it.op, &it.order)));
                if !covered {
                    lost = Some(format!(
                        "node {node} has lost {:?} of replica {replica}, which it had acknowledged",
                        it.op
                    ));
                }
            }
        }
        if let Some(lost) = lost {
            self.fail("O2", lost);
        }
    }

    /// What a node did not take in, others may take for delivered.
    pub fn note_refusals(&mut self, node: usize, result: &Result<StoreReply, WorkError>) {
        let Ok(StoreReply::Applied { state, refused, refused_count, .. }) = result else { return };
        let Some(replica) = self.replicas.iter().position(|it| it.id == state.rights.replica()) else { return };
        if *refused_count > refused.len() as u64 {
            self.nodes[node].refused_more.insert(replica);
        }
        if refused.iter().any(|(_, reason)| *reason == RefusalReason::Future) {
            self.nodes[node].early.insert(replica);
        }
        self.nodes[node].refused.extend(refused.iter().map(|(id, _)| (replica, *id)));
    }

    /// O11: a position that is saved never claims what is not durable: of another's change log, that everything before it
    /// is here; of one's own, that it is there.
    pub fn check_positions(&mut self, node: usize, record: &NodeRecord) {
        let Some(SavedPositions { replica: id, peer, received, confirmed }) = SavedPositions::of(record) else {
            return;
        };
        let Some(replica) = self.replicas.iter().position(|replica| replica.id == id) else { return };
        let Some(other) = self.by_id.get(&peer).copied() else { return };
        if !self.is_exact(replica, node, other) {
            return;
        }
        let name = record.name.to_vec();
        let (of_theirs, of_mine) = self.nodes[node].positions.get(&name).copied().unwrap_or_default();
        let mut wrong = None;
        if let Some((store, until)) = received
            && let Some(process) = &self.nodes[other].process
            && process.store.core().store_id() == store
        {
            let since = of_theirs.filter(|(before, _)| *before == store).map_or(Position(0), |(_, position)| position);
            if let Some(op) = self.lacks(node, replica, (other, since, until), Sayer::Itself) {
                wrong = Some(format!(
                    "node {node} says that it has the log of node {other} up to {until:?}, and lacks {op:?}"
                ));
            }
        }
        let is_same = self.nodes[other].replaced_us.is_none() && self.nodes[node].replaced_us.is_none();
        // The peer knows what it left out of an answer that is too long, and this node learns of it by the roots.
        if is_same
            && !self.leaves_out()
            && let Some(op) = self.lacks(other, replica, (node, of_mine, confirmed), Sayer::Sender(None))
        {
            wrong = Some(format!(
                "node {node} says that node {other} has its log up to {confirmed:?}, and that lacks {op:?}"
            ));
        }
        self.nodes[node].positions.insert(name, (received, confirmed));
        self.mark("position_saved");
        if let Some(wrong) = wrong {
            self.fail("O11", format!("replica {replica}: {wrong}"));
        }
    }

    /// Whether limits are so small that answers leave something out.
    pub fn leaves_out(&self) -> bool {
        let widths = self.scenario.knobs.tight.map(|tight| tight.widths).unwrap_or_default();
        let limits = self.scenario.knobs.tight.map(|tight| tight.limits).unwrap_or_default();
        widths.max_answers < Widths::default().max_answers
            || limits.round_claims < Limits::default().round_claims
            || limits.round_len < Limits::default().round_len
    }

    /// Whether positions that two nodes tell each other say exactly what they have of a replica.
    pub fn is_exact(&self, replica: usize, node: usize, other: usize) -> bool {
        // An old copy of a store has positions that once meant something else.
        let is_old = |node: usize| {
            self.scenario
                .faults
                .iter()
                .any(|fault| matches!(fault.what, Fault::Rollback { node: it, .. } if it == node))
        };
        let is_dishonest = |node: usize| self.nodes[node].dishonest || self.scenario.is_hostile(node);
        self.is_kept(replica, node)
            && self.is_kept(replica, other)
            && !is_dishonest(node)
            && !is_dishonest(other)
            && !is_old(node)
            && !is_old(other)
    }

    /// An entry of a part of another's change log that a node is said to have and has not, though nothing that it has
    /// covers it, and it has not refused it.
    pub fn lacks(
        &self,
        node: usize,
        replica: usize,
        (of, since, until): (usize, Position, Position),
        by: Sayer<'_>,
    ) -> Option<Op> {
        let process = self.nodes[of].process.as_ref().filter(|_| !self.nodes[node].refused_more.contains(&replica))?;
        let log = process.store.core().log(self.replicas[replica].id, since, usize::MAX).ok()?;
        let mut rows = log.into_iter().take_while(|row| row.position <= until).peekable();
        rows.peek()?;
        let (here, scope) = (by_hash(self.live_on(&self.nodes[node].disk, node, replica)), self.scope(replica, node));
        // What a node gave once and then lost comes back by the roots, unless its first session afterwards has sent all.
        let was_its_own = Origin::Peer(self.nodes[node].id);
        let has_lost = self.nodes[node].replaced_us.is_some();
        let has_refused = |row: &LogEntry| self.nodes[node].refused.contains(&(replica, ShortId::from(&row.hash)));
        let rights = match by {
            Sayer::Itself => {
                let process = self.nodes[node].process.as_ref()?;
                Some(process.store.core().state(self.replicas[replica].id).ok()?.rights)
            }
            Sayer::Sender(_) => None,
        };
        // A position that one has saved oneself is held against the rights that one has.
        let is_right = |row: &LogEntry| {
            let entry = &row.entry;
            let may = |rights: &Arc<Rights>| rights.may_write(&entry.author, &entry.op, entry.timestamp);
            !entry.op.is_system() && rights.as_ref().is_some_and(may)
        };
        let row = rows.find(|row| {
            let order = Order { timestamp: row.entry.timestamp, author: row.entry.author, hash: row.hash };
            let is_excused = has_lost && row.origin == was_its_own
                || matches!(by, Sayer::Sender(Some(said)) if said.has_sent(&row.hash.0))
                || has_refused(row) && !is_right(row);
            let is_here = here.contains_key(&row.hash.0)
                || here.values().any(|(by, op)| dominates((op, by), (&row.entry.op, &order)));
            !is_here && !is_excused && scope.contains(&row.entry.op)
        })?;
        Some(row.entry.op)
    }

    /// What must hold at the end.
    pub fn check_end(&mut self) {
        if self.scenario.replicas.iter().flat_map(|plan| &plan.members).any(|member| member.expires_ms.is_some()) {
            self.mark("a_right_ended");
        }
        for node in 0..self.nodes.len() {
            self.check_acknowledged(node);
            self.check_tallies(node);
        }
        for replica in 0..self.replicas.len() {
            if let Err((oracle, what)) = self.check_replica(replica) {
                return self.fail(oracle, format!("replica {replica}: {what}"));
            }
        }
        for node in 0..self.nodes.len() {
            if self.scenario.is_hostile(node) {
                continue;
            }
            let waiting = self.nodes[node].process.as_ref().map_or(0, |process| process.asks.len());
            if waiting > 0 && self.now_us > (self.scenario.heal_ms + 31_000) * 1_000 {
                return self.fail("O11", format!("node {node} never answered {waiting} questions"));
            }
        }
    }

    fn check_replica(&self, number: usize) -> Result<(), (&'static str, String)> {
        let replica = &self.replicas[number];
        let mut sets: Vec<(usize, Entries)> = Vec::new();
        for node in self.scenario.members(number) {
            self.check_reads(node, number)?;
        }
        for node in self.scenario.full_members(number) {
            let process = self.nodes[node].process.as_ref().expect("everybody is up at the end");
            let entries = by_hash(live(process.store.core(), replica.id));
            // The index agrees with the entries: recomputed naively.
            let mut sum = Summary::EMPTY;
            for (order, _) in entries.values() {
                sum.add(&Summary::of(&order.hash));
            }
            if Some(sum.digest()) != self.root(node, number) {
                return Err(("O12", format!("the index of node {node} does not agree with its entries")));
            }
            sets.push((node, entries));
        }
        let (first, set) = &sets[0];
        let only = |a: &Entries, b: &Entries| {
            a.iter().filter(|(hash, _)| !b.contains_key(*hash)).map(|(_, entry)| entry.clone()).collect::<Vec<_>>()
        };
        for (node, other) in &sets[1..] {
            if set != other {
                return Err((
                    "O1",
                    format!(
                        "nodes {first} and {node} differ: only here {:?}, only there {:?}",
                        only(set, other),
                        only(other, set)
                    ),
                ));
            }
        }
        let is_honest = !(0..self.nodes.len()).any(|node| self.scenario.is_hostile(node));
        for node in self.scenario.part_members(number) {
            let process = self.nodes[node].process.as_ref().expect("everybody is up at the end");
            let scope = self.scope_at_end(number, node);
            let mut here = by_hash(live(process.store.core(), replica.id));
            here.retain(|_, (_, op)| is_honest || scope.contains(op));
            let there: Entries =
                set.iter().filter(|(_, (_, op))| scope.contains(op)).map(|(hash, it)| (*hash, it.clone())).collect();
            if here != there {
                let what = format!(
                    "nodes {node}, which has a part, and {first} differ: only here {:?}, only there {:?}",
                    only(&here, &there),
                    only(&there, &here)
                );
                return Err(("O1", what));
            }
        }
        let mut truth = by_hash(replica.truth.clone());
        // What may have been written was, when somebody has it or had it.
        let perhaps = replica.perhaps.iter();
        let was =
            |(order, _): &&(Order, Op)| set.contains_key(&order.hash.0) || replica.at_risk.contains(&order.hash.0);
        truth.extend(by_hash(perhaps.filter(was).cloned().collect()));
        if let Some((order, op)) = set.iter().find(|(hash, _)| !truth.contains_key(*hash)).map(|(_, entry)| entry) {
            return Err(("O3", format!("nobody wrote {op:?} at {order:?}")));
        }
        let is_dominated = |e: &(Order, Op)| truth.values().any(|t| dominates((&t.1, &t.0), (&e.1, &e.0)));
        let expected: BTreeSet<&[u8; 32]> =
            truth.iter().filter(|(_, entry)| !is_dominated(entry)).map(|(hash, _)| hash).collect();
        if let Some(hash) = expected.iter().find(|hash| !set.contains_key(**hash) && !replica.at_risk.contains(**hash))
        {
            return Err(("O2", format!("{:?} is lost", truth[*hash])));
        }
        if replica.at_risk.is_empty()
            && let Some((_, entry)) = set.iter().find(|(hash, _)| !expected.contains(*hash))
        {
            return Err(("O12", format!("{entry:?} should be forgotten")));
        }
        Ok(())
    }
}
