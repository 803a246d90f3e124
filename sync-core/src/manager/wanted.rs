//! Who may have which content, and from whom it is wanted.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    blobs::{MayRead, WantFilter},
    policy::{DownloadPolicy, Policies},
    shared::WallClock,
};
use crate::{
    model::{Hash, Op, PeerId, ReplicaId, Value},
    store::{Query, ReplicaStore, Scope, Select, Want},
};

/// How many entries that refer to a content are looked at to find one whose key the policy allows.
const MAX_REFERENCES: usize = 256;

/// What a peer may have: contents of entries that it may read.
pub(super) struct Readers {
    pub store: Arc<dyn ReplicaStore>,
    pub wall: WallClock,
}

#[async_trait]
impl MayRead for Readers {
    async fn may_read(&self, peer: PeerId, replica: ReplicaId, hash: Hash) -> bool {
        let Ok(state) = self.store.state(replica).await else { return false };
        let scope = Scope::of(&state.rights.readable(&peer, (self.wall)()));
        let found = self.store.references(replica, hash, scope, 1).await;
        found.is_ok_and(|found| !found.is_empty())
    }
}

/// What is fetched: what the replica's policy allows, from peers that may read it anyway.
pub(super) struct Wanted {
    pub store: Arc<dyn ReplicaStore>,
    pub policies: Arc<Policies>,
    pub readers: Arc<Readers>,
}

#[async_trait]
impl WantFilter for Wanted {
    async fn is_allowed(&self, want: Want) -> bool {
        let policy = self.policies.of(&want.replica);
        if policy == DownloadPolicy::default() {
            return true;
        }
        let found = self.store.references(want.replica, want.hash, Scope::all(), MAX_REFERENCES).await;
        found.is_ok_and(|keys| keys.iter().any(|key| policy.allows(key)))
    }

    async fn base(&self, want: Want) -> Option<Hash> {
        // What another author wrote at the same key, newest first.
        let key = self.store.references(want.replica, want.hash, Scope::all(), 1).await.ok()?.pop()?;
        let query = Query { key: Some(key.as_bytes().clone()), select: Select::All, ..Query::default() };
        for entry in self.store.query(want.replica, query).await.ok()? {
            if let Op::Put { value: Value::Blob { hash, .. }, .. } = entry.entry.op
                && hash != want.hash
                && self.store.held_reader(want.replica, hash).await.is_ok_and(|reader| reader.is_some())
            {
                return Some(hash);
            }
        }
        None
    }

    async fn is_wanted(&self, peer: PeerId, want: Want) -> bool {
        self.is_allowed(want).await && self.readers.may_read(peer, want.replica, want.hash).await
    }
}
