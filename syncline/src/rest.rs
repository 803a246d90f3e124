//! What the REST surface reads from: the node's store, through tokens that the owner made.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use sync_core::{
    model::{EVERYBODY, Hash, Key, Op, ReplicaId, Right, Value},
    store::{ContentError, ContentStatus, LogEntry, NodeKind, Query, Reader, StoreError},
};
use transport_http::rest::{ApiError, KeyInfo, KeyQuery, NodeApi, ReplicaInfo, Scope, TokenAccess, ValueInfo};

use crate::{
    folder::key::{Role, role_of},
    node::{Node, now},
    request::Request,
};

/// The REST surface of a node. Does not keep the node alive: the node keeps it.
#[derive(Debug)]
pub struct Rest {
    node: Weak<Node>,
}

impl Rest {
    /// The REST surface of `node`.
    pub fn new(node: &Arc<Node>) -> Self {
        Self { node: Arc::downgrade(node) }
    }

    fn node(&self) -> Result<Arc<Node>, ApiError> {
        self.node.upgrade().ok_or_else(|| ApiError("the node has ended".into()))
    }
}

fn failed(error: impl std::fmt::Display) -> ApiError {
    ApiError(error.to_string())
}

/// A content for who reads here: like a peer he gets what the replica holds, and nothing that is at the node because
/// of another one.
async fn held(node: &Node, replica: ReplicaId, hash: Hash) -> Result<Option<Reader>, ApiError> {
    match node.store().content_status(hash).await.map_err(failed)? {
        ContentStatus::Complete { .. } => node.store().held_reader(replica, hash).await.map_err(failed),
        ContentStatus::Partial { .. } | ContentStatus::Missing => Ok(None),
    }
}

async fn info(node: &Node, replica: ReplicaId, entry: &LogEntry) -> Result<Option<ValueInfo>, ApiError> {
    let Op::Put { value, .. } = &entry.entry.op else { return Ok(None) };
    let complete = match value {
        Value::Inline(_) => true,
        Value::Blob { hash, .. } => held(node, replica, *hash).await?.is_some(),
    };
    Ok(Some(ValueInfo {
        len: value.len(),
        hash: value.hash(),
        author: entry.entry.author,
        timestamp: entry.entry.timestamp.0,
        complete,
    }))
}

#[async_trait]
impl NodeApi for Rest {
    async fn authorize(&self, token: &str) -> Result<Option<TokenAccess>, ApiError> {
        let node = self.node()?;
        // Looked up by its hash: how long that takes says nothing about the token.
        let hash = crate::node::token_hash(token);
        let records = node.store().node_records(NodeKind::Token).await.map_err(failed)?;
        let value = records.into_iter().find(|record| record.name.ends_with(&hash)).and_then(|record| record.value);
        let Some(value) = value else { return Ok(None) };
        let record = crate::node::TokenRecord::from_bytes(&value).map_err(failed)?;
        if record.expires.is_some_and(|expires| now().0 >= expires) {
            return Ok(None);
        }
        let scope = match record.replica {
            Some(replica) => Scope::Only(vec![ReplicaId::from(replica)]),
            None => Scope::All,
        };
        Ok(Some(TokenAccess { scope }))
    }

    async fn is_public(&self, replica: ReplicaId) -> Result<bool, ApiError> {
        match self.node()?.store().state(replica).await {
            Ok(state) => Ok(state.rights.best_grant(&EVERYBODY, Right::Read, now()).is_some()),
            Err(StoreError::UnknownReplica(_)) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    async fn replicas(&self) -> Result<Vec<ReplicaInfo>, ApiError> {
        let node = self.node()?;
        let mut replicas = Vec::new();
        for id in node.store().replicas().await.map_err(failed)? {
            let state = match node.store().state(id).await {
                Ok(state) => state,
                // It was removed just now.
                Err(StoreError::UnknownReplica(_)) => continue,
                Err(error) => return Err(failed(error)),
            };
            let public = state.rights.best_grant(&EVERYBODY, Right::Read, now()).is_some();
            replicas.push(ReplicaInfo { id, entries: state.root.count, root: state.root.hash, public });
        }
        Ok(replicas)
    }

    async fn keys(&self, replica: ReplicaId, query: KeyQuery) -> Result<Option<Vec<KeyInfo>>, ApiError> {
        let node = self.node()?;
        let mut after = query.after.map(Bytes::from);
        let mut keys = Vec::new();
        while keys.len() < query.limit {
            let page = Query {
                prefix: query.prefix.clone().into(),
                start_after: after.clone(),
                limit: query.limit,
                ..Query::default()
            };
            let page = match node.store().query(replica, page).await {
                Ok(page) => page,
                Err(StoreError::UnknownReplica(_)) => return Ok(None),
                Err(error) => return Err(failed(error)),
            };
            let Some(last) = page.last() else { break };
            after = Some(last.entry.op.key_bytes().clone());
            for entry in &page {
                let key = entry.entry.op.key_bytes();
                if key.first() == Some(&0) || matches!(role_of(key), Role::Companion(..)) {
                    continue;
                }
                if let Some(value) = info(&node, replica, entry).await?
                    && keys.len() < query.limit
                {
                    keys.push(KeyInfo { key: key.to_vec(), value });
                }
            }
        }
        Ok(Some(keys))
    }

    async fn value(&self, replica: ReplicaId, key: &[u8]) -> Result<Option<ValueInfo>, ApiError> {
        let Ok(key) = Key::try_from(key) else { return Ok(None) };
        if key.is_system() {
            return Ok(None);
        }
        let node = self.node()?;
        match node.store().get(replica, key).await {
            Ok(Some(entry)) => info(&node, replica, &entry).await,
            Ok(None) => Ok(None),
            Err(StoreError::UnknownReplica(_)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    async fn read(
        &self,
        replica: ReplicaId,
        key: &[u8],
        value: &ValueInfo,
        offset: u64,
        max_len: usize,
    ) -> Result<Bytes, ApiError> {
        let key = Key::try_from(key).map_err(failed)?;
        let node = self.node()?;
        let entry = node.store().get(replica, key).await.map_err(failed)?;
        let Some(Op::Put { value: stored, .. }) = entry.map(|entry| entry.entry.op) else {
            return Err(ApiError("the value was removed".into()));
        };
        if stored.hash() != value.hash {
            return Err(ApiError("the value was replaced".into()));
        }
        let end = offset.saturating_add(max_len as u64).min(stored.len());
        let range = offset.min(end)..end;
        match stored {
            Value::Inline(bytes) => {
                let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(bytes.len());
                Ok(bytes.slice(at(range.start)..at(range.end)))
            }
            Value::Blob { hash, .. } => {
                let reader = held(&node, replica, hash).await?;
                let reader = reader.ok_or_else(|| ApiError("the content is not here yet".into()))?;
                let read = tokio::task::spawn_blocking(move || reader.read_to_vec(range)).await.map_err(failed)?;
                if matches!(read, Err(ContentError::Damaged { .. })) {
                    let replica = node.manager().open_replica(replica).await.map_err(failed)?;
                    replica.content_damaged(hash).await.map_err(failed)?;
                }
                Ok(read.map_err(failed)?.into())
            }
        }
    }

    async fn status(&self, access: &TokenAccess) -> Result<serde_json::Value, ApiError> {
        let mut status = self.node()?.handle(Request::Status { replica: None }).await.map_err(failed)?;
        let covered = |id: &serde_json::Value| {
            id.as_str().and_then(|id| id.parse().ok()).is_some_and(|id: ReplicaId| access.covers(id))
        };
        if let Some(replicas) = status["replicas"].as_array_mut() {
            replicas.retain(|replica| covered(&replica["id"]));
        }
        if let Some(folders) = status["folders"].as_array_mut() {
            folders.retain(|folder| covered(&folder["replica"]));
        }
        Ok(status)
    }
}
