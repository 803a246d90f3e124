//! Which contents a node downloads: a policy per replica, kept in the store.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    model::{Prefix, ReplicaId},
    store::{NodeKind, NodeRecord, ReplicaStore, StoreError},
};

/// Which contents of a replica come here by themselves. Entries always do; a content that the
/// policy leaves out is missing until the policy changes or somebody imports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownloadPolicy {
    /// All but those under these prefixes.
    EverythingExcept(Vec<Prefix>),
    /// None but those under these prefixes.
    NothingExcept(Vec<Prefix>),
}

impl Default for DownloadPolicy {
    fn default() -> Self {
        Self::EverythingExcept(Vec::new())
    }
}

impl DownloadPolicy {
    /// Whether the content at `key` is downloaded.
    pub fn allows(&self, key: &[u8]) -> bool {
        match self {
            Self::EverythingExcept(prefixes) => !prefixes.iter().any(|prefix| prefix.covers(key)),
            Self::NothingExcept(prefixes) => prefixes.iter().any(|prefix| prefix.covers(key)),
        }
    }
}

const NAME: &[u8] = b"download ";

/// The policies of a node.
#[derive(Debug, Default)]
pub(super) struct Policies(RwLock<HashMap<ReplicaId, DownloadPolicy>>);

impl Policies {
    /// Reads what was saved.
    pub async fn load(&self, store: &dyn ReplicaStore) -> Result<(), StoreError> {
        for record in store.node_records(NodeKind::Setting).await? {
            let Some(id) = record.name.strip_prefix(NAME).and_then(|id| <[u8; 32]>::try_from(id).ok()) else {
                continue;
            };
            let policy = record.value.and_then(|value| postcard::from_bytes(&value).ok());
            let policy = policy.ok_or_else(|| StoreError::Corrupt("a download policy cannot be read".into()))?;
            self.0.write().unwrap_or_else(PoisonError::into_inner).insert(ReplicaId::from(id), policy);
        }
        Ok(())
    }

    /// The policy of a replica.
    pub fn of(&self, replica: &ReplicaId) -> DownloadPolicy {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(replica).cloned().unwrap_or_default()
    }

    /// Sets the policy of a replica, durably.
    pub async fn set(
        &self,
        store: &dyn ReplicaStore,
        replica: ReplicaId,
        policy: DownloadPolicy,
    ) -> Result<(), StoreError> {
        store.save(vec![Self::record(&replica, Some(&policy))]).await?;
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(replica, policy);
        Ok(())
    }

    /// Forgets a replica that is gone, its record apart.
    pub fn forget(&self, replica: &ReplicaId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(replica);
    }

    /// The record of a policy; none removes it.
    pub fn record(replica: &ReplicaId, policy: Option<&DownloadPolicy>) -> NodeRecord {
        let name: Bytes = [NAME, replica.as_bytes()].concat().into();
        let value = policy.map(|policy| postcard::to_allocvec(policy).expect("a policy can be encoded").into());
        NodeRecord { kind: NodeKind::Setting, name, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b69_a_policy_is_everything_or_nothing_but_some_prefixes() {
        let prefix = |text: &'static str| Prefix::new(text).unwrap();
        let most = DownloadPolicy::EverythingExcept(vec![prefix("video/")]);
        assert!(most.allows(b"notes") && !most.allows(b"video/1"));
        let few = DownloadPolicy::NothingExcept(vec![prefix("notes")]);
        assert!(few.allows(b"notes/1") && !few.allows(b"video/1"));
        assert!(DownloadPolicy::default().allows(b"anything"));
    }
}
