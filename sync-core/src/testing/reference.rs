//! The reference model of a replica: a page that is right because it can be read.
//!
//! It remembers every entry that was ever accepted and computes the rest from that.

use crate::{
    model::{
        Digest, Key, MAX_AHEAD, Op, Order, ReplicaId, Rights, SlotRange, Summary, Timestamp, VerifiedBundle, dominates,
    },
    store::{Direction, Query, Select},
};

/// An accepted entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its place in the order of the replica.
    pub order: Order,
    /// What it says.
    pub op: Op,
}

/// A replica, naively.
#[derive(Debug, Clone)]
pub struct Reference {
    rights: Rights,
    accepted: Vec<Accepted>,
}

impl Reference {
    /// An empty replica.
    pub fn new(replica: ReplicaId) -> Self {
        Self { rights: Rights::new(replica), accepted: Vec::new() }
    }

    /// Takes in a bundle from a peer: what is not from the future and covered by rights is accepted.
    pub fn apply(&mut self, bundle: &VerifiedBundle, now: Timestamp) {
        for entry in bundle.entries() {
            let accepted = Accepted { order: entry.order, op: entry.op.clone() };
            let author = entry.order.author;
            let may = match entry.op.is_system() {
                true => self.rights.admit(&author, entry.op).is_ok(),
                false => self.rights.may_write(&author, entry.op, entry.order.timestamp),
            };
            if may && entry.order.timestamp <= now.plus(MAX_AHEAD) && !self.accepted.contains(&accepted) {
                self.accepted.push(accepted);
            }
        }
    }

    /// The entries that no accepted one dominates.
    pub fn live(&self) -> Vec<&Accepted> {
        let is_dominated = |e: &Accepted| self.accepted.iter().any(|t| dominates((&t.op, &t.order), (&e.op, &e.order)));
        self.accepted.iter().filter(|entry| !is_dominated(entry)).collect()
    }

    /// The digest of the live entries in `range`.
    pub fn digest(&self, range: &SlotRange) -> Digest {
        let mut sum = Summary::EMPTY;
        for entry in self.live().iter().filter(|entry| range.contains(&entry.op.slot_key())) {
            sum.add(&Summary::of(&entry.order.hash));
        }
        sum.digest()
    }

    /// The newest value at `key`.
    pub fn get(&self, key: &Key) -> Option<Accepted> {
        let live = self.live();
        let at_key = live.into_iter().filter(|entry| matches!(&entry.op, Op::Put { key: at, .. } if at == key));
        at_key.max_by_key(|entry| entry.order).cloned()
    }

    /// What a query answers.
    pub fn query(&self, query: &Query) -> Vec<Accepted> {
        let ascending = query.direction == Direction::Ascending;
        let mut found: Vec<&Accepted> = self
            .live()
            .into_iter()
            .filter(|entry| match &entry.op {
                Op::Put { key, .. } => key.is_system() == (query.prefix.first() == Some(&0)),
                Op::Delete { .. } => query.tombstones,
                Op::DeletePrefix { .. } => false,
            })
            .filter(|entry| entry.op.key_bytes().starts_with(&query.prefix))
            .filter(|entry| query.key.as_ref().is_none_or(|key| entry.op.key_bytes() == key))
            .filter(|entry| query.author.is_none_or(|author| entry.order.author == author))
            .filter(|entry| match &query.start_after {
                Some(after) if ascending => entry.op.key_bytes() > after,
                Some(after) => entry.op.key_bytes() < after,
                None => true,
            })
            .collect();
        found.sort_by(|a, b| {
            let keys = a.op.key_bytes().cmp(b.op.key_bytes());
            let keys = if ascending { keys } else { keys.reverse() };
            keys.then(b.order.cmp(&a.order))
        });
        if query.select == Select::Newest {
            found.dedup_by(|later, earlier| later.op.key_bytes() == earlier.op.key_bytes());
        }
        if query.limit > 0 {
            found.truncate(query.limit);
        }
        found.into_iter().cloned().collect()
    }
}
