//! The oracles: what must hold, held against the simulation's own knowledge.

use std::collections::{BTreeMap, BTreeSet};

use super::{faults::live, world::World};
use crate::{
    machine::{Footprint, PeerState, limits::MAX_FRAME_LEN},
    model::{Digest, Op, Order, Summary, dominates},
};

type Entries = BTreeMap<[u8; 32], (Order, Op)>;

fn by_hash(entries: Vec<(Order, Op)>) -> Entries {
    entries.into_iter().map(|(order, op)| (order.hash.0, (order, op))).collect()
}

impl World<'_> {
    /// Whether every replica is the same at all of its nodes. The roots are a hint; the end of the
    /// simulation looks at the entries themselves.
    pub fn is_converged(&self) -> bool {
        (0..self.replicas.len()).all(|replica| {
            let mut roots = self.scenario.members(replica).map(|node| self.root(node, replica));
            let first = roots.next().flatten();
            first.is_some() && roots.all(|root| root == first)
        })
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
        let limits = self.scenario.knobs.tight.map(|tight| tight.limits).unwrap_or_default();
        // Entries, a round that waits and one that is compared and its answer, and what came before the credentials were
        // admitted; of each a frame more.
        let most = 2 * (limits.window_len + MAX_FRAME_LEN) + 3 * (limits.round_len + MAX_FRAME_LEN);
        let sessions = held.links * (limits.sessions + 1);
        let known = self.nodes.len() + held.links;
        if held.largest_len > most || held.streams > sessions || held.peers > known {
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
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else { return Some(format!("node {at} is down")) };
            for replica in process.machine.status() {
                for peer in &replica.peers {
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

    /// O2: what was acknowledged here is here, or something newer that covers it.
    pub fn check_acknowledged(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let store = process.store.clone();
        let mut lost = None;
        for replica in 0..self.replicas.len() {
            let mine: Vec<_> = self.nodes[node].acknowledged.iter().filter(|it| it.replica == replica).collect();
            if mine.is_empty() {
                continue;
            }
            let here = by_hash(live(store.core(), self.replicas[replica].id));
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

    /// What must hold at the end.
    pub fn check_end(&mut self) {
        for node in 0..self.nodes.len() {
            self.check_acknowledged(node);
        }
        for replica in 0..self.replicas.len() {
            if let Err((oracle, what)) = self.check_replica(replica) {
                return self.fail(oracle, format!("replica {replica}: {what}"));
            }
        }
        for node in 0..self.nodes.len() {
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
        for (node, other) in &sets[1..] {
            if set != other {
                let only = |a: &Entries, b: &Entries| {
                    a.iter()
                        .filter(|(hash, _)| !b.contains_key(*hash))
                        .map(|(_, entry)| entry.clone())
                        .collect::<Vec<_>>()
                };
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
        let truth = by_hash(replica.truth.clone());
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
