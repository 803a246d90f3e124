//! A node for the REST surface: three replicas of the same five keys.

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use sync_core::model::{Hash, ReplicaId};

use crate::rest::{ApiError, KeyInfo, KeyQuery, NodeApi, ReplicaInfo, Scope, TokenAccess, ValueInfo};

/// What token `notes` reads.
pub const NOTES: [u8; 32] = [1; 32];
/// What only token `all` reads.
pub const SECRET: [u8; 32] = [2; 32];
/// What anyone reads.
pub const PUBLIC: [u8; 32] = [3; 32];
/// What is not there.
pub const ABSENT: [u8; 32] = [9; 32];

/// A node with three replicas of the same five keys. Token `all` reads all, `notes` reads the first.
#[derive(Debug)]
pub struct Node {
    /// The keys in order, with their values.
    pub keys: Vec<(Vec<u8>, Bytes)>,
}

impl Node {
    /// Makes it.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let large: Bytes = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        let keys = [
            (&b"a"[..], Bytes::from_static(b"first")),
            (b"a/b c%?#", Bytes::from_static(b"odd key")),
            (b"b", Bytes::new()),
            (b"large", large),
            (b"\xFF\xFE", Bytes::from_static(b"no text")),
        ];
        Self { keys: keys.into_iter().map(|(key, value)| (key.to_vec(), value)).collect() }
    }

    fn has(replica: ReplicaId) -> bool {
        [NOTES, SECRET, PUBLIC].contains(replica.as_bytes())
    }

    fn info(&self, value: &Bytes) -> ValueInfo {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&(value.len() as u64).to_be_bytes());
        ValueInfo { len: value.len() as u64, hash: Hash(hash), author: NOTES.into(), timestamp: 5, complete: true }
    }
}

#[async_trait]
impl NodeApi for Node {
    async fn authorize(&self, token: &str) -> Result<Option<TokenAccess>, ApiError> {
        Ok(match token {
            "all" => Some(TokenAccess { scope: Scope::All }),
            "notes" => Some(TokenAccess { scope: Scope::Only(vec![NOTES.into()]) }),
            _ => None,
        })
    }

    async fn is_public(&self, replica: ReplicaId) -> Result<bool, ApiError> {
        Ok(*replica.as_bytes() == PUBLIC)
    }

    async fn replicas(&self) -> Result<Vec<ReplicaInfo>, ApiError> {
        let info = |id: [u8; 32]| ReplicaInfo { id: id.into(), entries: 5, root: Hash(id), public: id == PUBLIC };
        Ok([NOTES, SECRET, PUBLIC].map(info).into())
    }

    async fn keys(&self, replica: ReplicaId, query: KeyQuery) -> Result<Option<Vec<KeyInfo>>, ApiError> {
        let behind = |key: &Vec<u8>| query.after.as_ref().is_none_or(|after| key > after);
        let asked = self.keys.iter().filter(|(key, _)| key.starts_with(&query.prefix) && behind(key));
        let keys = asked.take(query.limit).map(|(key, value)| KeyInfo { key: key.clone(), value: self.info(value) });
        Ok(Self::has(replica).then(|| keys.collect()))
    }

    async fn value(&self, replica: ReplicaId, key: &[u8]) -> Result<Option<ValueInfo>, ApiError> {
        let found = self.keys.iter().find(|(other, _)| other == key).filter(|_| Self::has(replica));
        Ok(found.map(|(_, value)| self.info(value)))
    }

    async fn read(
        &self,
        _: ReplicaId,
        key: &[u8],
        _: &ValueInfo,
        offset: u64,
        max_len: usize,
    ) -> Result<Bytes, ApiError> {
        let (_, value) = self.keys.iter().find(|(other, _)| other == key).ok_or(ApiError("it is gone".into()))?;
        let start = offset as usize;
        Ok(value.slice(start..value.len().min(start + max_len)))
    }

    async fn status(&self, access: &TokenAccess) -> Result<Value, ApiError> {
        Ok(json!({ "all": access.scope == Scope::All }))
    }
}
