//! O3 and O5: applications that follow a replica by the machine's events hear of everything, once, never see a key go back, and see
//! nothing that nobody wrote.

use super::{node::Tally, world::World};
use crate::{model::ReplicaId, store::Position};

impl World<'_> {
    /// The application at a node was told that a replica has changed: it reads on.
    pub fn watch(&mut self, node: usize, id: ReplicaId) {
        let Some(process) = &mut self.nodes[node].process else { return };
        let watcher = process.watchers.entry(id).or_default();
        let log = process.store.core().log(id, watcher.position, usize::MAX);
        watcher.unread = log.is_err();
        let Ok(log) = log else { return };
        let (mut back, mut forged) = (None, None);
        let written = self.replicas.iter().find(|replica| replica.id == id).map(|replica| &replica.written);
        for row in log {
            watcher.position = watcher.position.max(row.position);
            let order =
                crate::model::Order { timestamp: row.entry.timestamp, author: row.entry.author, hash: row.hash };
            if written.is_some_and(|written| !written.contains(&row.hash.0)) {
                forged = Some(row.entry.op.clone());
            }
            let author = matches!(row.entry.op, crate::model::Op::Put { .. }).then_some(row.entry.author);
            let slot = (row.entry.op.slot_key().as_bytes().to_vec(), author);
            let before = watcher.seen.insert(slot, order);
            if before.is_some_and(|before| before >= order) {
                back = Some(row.entry.op);
            }
        }
        let Some(replica) = self.replicas.iter().position(|replica| replica.id == id) else { return };
        if let Some(invariant) = self.invariant
            && let Some(process) = &self.nodes[node].process
        {
            let entries = super::faults::live(process.store.core(), id);
            if let Err(what) = invariant(&super::Seen { node, replica, entries: &entries }) {
                self.fail("application", format!("replica {replica} at node {node}: {what}"));
            }
        }
        if let Some(op) = forged.filter(|_| !self.nodes[node].dishonest) {
            self.fail("O3", format!("node {node} has taken in {op:?}, which nobody wrote"));
        }
        if let Some(op) = back {
            self.fail("O5", format!("an application at node {node} sees {op:?} after something newer, or again"));
        }
    }

    /// Begins to follow a replica: what is there now is known.
    pub fn watch_from(&mut self, node: usize, id: ReplicaId, head: Position) {
        let Some(process) = &mut self.nodes[node].process else { return };
        process.watchers.entry(id).or_default().position = head;
    }

    /// Counts entries, written or received here or told of, in this life of a node.
    pub fn tally(&mut self, node: usize, id: ReplicaId, count: impl FnOnce(&mut Tally)) {
        if let Some(process) = &mut self.nodes[node].process {
            count(process.tallies.entry(id).or_default());
        }
    }

    /// O5: of each entry that was written here or came in the application was told once, and as what it was.
    pub fn check_tallies(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.as_ref().filter(|_| !self.scenario.is_hostile(node)) else {
            return;
        };
        let is_wrong = |tally: &Tally| {
            let written = tally.written..=tally.written + tally.passed;
            !written.contains(&tally.told_written) || tally.received != tally.told_received
        };
        let wrong = process.tallies.values().find(|tally| is_wrong(tally)).copied();
        if let Some(wrong) = wrong {
            self.fail("O5", format!("of how much an application at node {node} was told: {wrong:?}"));
        }
    }

    /// What the machine has learned, the application was told of.
    pub fn check_told(&mut self, node: usize, id: ReplicaId, head: Position) {
        if self.scenario.is_hostile(node) {
            return;
        }
        let Some(process) = &self.nodes[node].process else { return };
        let Some(watcher) = process.watchers.get(&id) else { return };
        // While a disk is in trouble its store may not be read; the application reads when it can.
        if watcher.position < head && !watcher.unread {
            let read = watcher.position;
            self.fail("O5", format!("an application at node {node} was told up to {read:?}, and {head:?} is durable"));
        }
    }
}
