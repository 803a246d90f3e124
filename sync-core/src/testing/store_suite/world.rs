//! What the cases play with: a replica, its authors, and their commits.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    model::{
        AuthorId, Grant, HybridClock, Key, Op, PeerId, Prefix, PublicKey, ReplicaId, Right, SecretKey, Timestamp,
        Value, VerifiedBundle, sign_commit,
    },
    store::{Applied, Apply, NodeRecord, Origin, ReplicaStore, StoreError},
};

/// The wall clock of the suite.
pub const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

/// A peer that entries come from.
pub fn peer(number: u8) -> PeerId {
    PeerId(SecretKey::from_bytes([number | 0x80; 32]).public())
}

/// A replica with its owner, three writers with grants (the third for keys with `a` only), and a
/// stranger without any.
#[derive(Debug)]
pub struct World {
    /// The replica.
    pub replica: ReplicaId,
    /// Owner, two writers, a writer of `a`, a stranger.
    pub authors: Vec<SecretKey>,
}

impl Default for World {
    fn default() -> Self {
        Self::new(1)
    }
}

impl World {
    /// A world of its own for each number.
    pub fn new(number: u8) -> Self {
        let authors: Vec<SecretKey> = (0..5).map(|n| SecretKey::from_bytes([number * 8 + n; 32])).collect();
        Self { replica: ReplicaId(authors[0].public()), authors }
    }

    /// The author's id.
    pub fn author(&self, author: usize) -> AuthorId {
        AuthorId(self.authors[author].public())
    }

    /// A commit of `author` at a time (microseconds before or after [`NOW`]).
    pub fn commit(&self, author: usize, at: i64, ops: Vec<Op>) -> VerifiedBundle {
        let timestamp = Timestamp(NOW.0.saturating_add_signed(at));
        sign_commit(self.replica, &self.authors[author], &HybridClock::default(), timestamp, ops)
            .expect("the suite writes what can be written")
    }

    /// The grants of the writers, one commit each, and one that hangs on another.
    pub fn grants(&self) -> Vec<VerifiedBundle> {
        let grant = |subject: PublicKey, prefix: &str, parent| Grant {
            subject,
            right: Right::Write,
            prefix: Prefix::new(Bytes::copy_from_slice(prefix.as_bytes())).expect("short"),
            expires: None,
            parent,
        };
        let owner = self.author(0);
        let first = grant(self.authors[1].public(), "", None);
        let second = grant(self.authors[2].public(), "", None);
        // Writer 1 gives a part of its right to writer 3: a chain.
        let third = grant(self.authors[3].public(), "a", Some(first.id(&owner)));
        vec![
            self.commit(0, -1_000_000, vec![first.to_op(&owner)]),
            self.commit(0, -999_999, vec![second.to_op(&owner)]),
            self.commit(1, -999_998, vec![third.to_op(&self.author(1))]),
        ]
    }

    /// Applies bundles as coming from peer 1, and expects that the store can.
    pub async fn apply(&self, store: &dyn ReplicaStore, bundles: Vec<VerifiedBundle>) -> Applied {
        self.try_apply(store, bundles, Origin::Peer(peer(1)), Vec::new()).await.expect("the store can apply")
    }

    /// Applies bundles.
    pub async fn try_apply(
        &self,
        store: &dyn ReplicaStore,
        bundles: Vec<VerifiedBundle>,
        origin: Origin,
        records: Vec<NodeRecord>,
    ) -> Result<Applied, StoreError> {
        store.apply(Apply { replica: self.replica, bundles, origin, now: NOW, records }).await
    }

    /// A store with the replica in it.
    pub async fn create(&self, store: Arc<dyn ReplicaStore>) -> Arc<dyn ReplicaStore> {
        store.create_replica(self.replica, Vec::new()).await.expect("the store can create");
        store
    }
}

/// A key from text.
pub fn key(text: &str) -> Key {
    Key::try_from(text).expect("the suite's keys are keys")
}

/// A put.
pub fn put(at: &str, value: &str) -> Op {
    Op::Put { key: key(at), value: Value::Inline(Bytes::copy_from_slice(value.as_bytes())) }
}

/// A tombstone.
pub fn delete(at: &str) -> Op {
    Op::Delete { key: key(at) }
}

/// A prefix tombstone.
pub fn delete_prefix(prefix: &str) -> Op {
    Op::DeletePrefix { prefix: Prefix::new(Bytes::copy_from_slice(prefix.as_bytes())).expect("short") }
}
