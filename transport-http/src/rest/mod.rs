//! REST for people, curl and browsers: read-only, JSON, below `/v1`.
//!
//! The program answers through [`NodeApi`]; who may ask is decided here, in one place, before it is asked:
//!
//! | who asks | replicas in the token's scope | public replicas | other replicas |
//! |---|---|---|---|
//! | with a valid token | yes | yes | 404, whether they exist or not |
//! | with an invalid token | 401 | 401 | 401 |
//! | without a token | 401 | yes | 401, whether they exist or not |
//!
//! ```text
//! GET /v1/replicas                        {"replicas":[{"id","entries","root","public"}]}
//! GET /v1/replicas/{id}/keys              {"keys":[{"key","path","len","hash","author","timestamp"}],"next"}
//!       ?prefix=&after=&limit=            percent-encoded bytes; `next` is what to give as `after`, null at the end
//! GET /v1/replicas/{id}/values/{key}      the bytes; ETag is the BLAKE3 hash; Range and If-None-Match are understood
//! GET /v1/status                          what `syncline status --json` prints
//! ```
//!
//! A key is bytes: in paths and queries percent-encoded, in JSON as text in `key` if it is UTF-8 (null
//! otherwise), and always percent-encoded in `path`. Errors are `{"error": "..."}`.

mod query;
mod range;
mod routes;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use sync_core::model::{AuthorId, Hash, ReplicaId};

#[cfg(feature = "testing")]
pub(crate) use query::{encode as path_of, keys as keys_asked};
pub(crate) use routes::{Refusal, routes};

/// What the REST surface reads from. The program implements it over its manager.
///
/// It is asked only for what the caller may see: see the [module's documentation](self). A manager keeps its
/// transports and a transport its `NodeApi`: implement it over a handle that does not keep the manager.
#[async_trait]
pub trait NodeApi: fmt::Debug + Send + Sync + 'static {
    /// What a bearer token gives, or `None` when it is unknown, expired or revoked. Compare in constant time, or
    /// look up by a hash.
    async fn authorize(&self, token: &str) -> Result<Option<TokenAccess>, ApiError>;

    /// Whether anyone may read `replica`. False when there is none.
    async fn is_public(&self, replica: ReplicaId) -> Result<bool, ApiError>;

    /// All replicas of the node.
    async fn replicas(&self) -> Result<Vec<ReplicaInfo>, ApiError>;

    /// The keys of `replica` that the query describes, in order, at most `query.limit`, without the system's (those that
    /// begin with byte 0). `None` when there is no such replica.
    async fn keys(&self, replica: ReplicaId, query: KeyQuery) -> Result<Option<Vec<KeyInfo>>, ApiError>;

    /// The newest value of `key`, or `None` when there is none.
    async fn value(&self, replica: ReplicaId, key: &[u8]) -> Result<Option<ValueInfo>, ApiError>;

    /// At most `max_len` bytes of the value `value` of `key`, from `offset` on; at least one byte when
    /// `offset` is within the value. The value may have been replaced since: that is an error.
    async fn read(
        &self,
        replica: ReplicaId,
        key: &[u8],
        value: &ValueInfo,
        offset: u64,
        max_len: usize,
    ) -> Result<Bytes, ApiError>;

    /// The node's status, as far as `access` covers it.
    async fn status(&self, access: &TokenAccess) -> Result<serde_json::Value, ApiError>;
}

/// What a bearer token gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAccess {
    /// Which replicas it may read.
    pub scope: Scope,
}

/// Which replicas a token covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of the node, present and to come.
    All,
    /// These.
    Only(Vec<ReplicaId>),
}

impl TokenAccess {
    /// Whether `replica` is covered.
    pub fn covers(&self, replica: ReplicaId) -> bool {
        match &self.scope {
            Scope::All => true,
            Scope::Only(replicas) => replicas.contains(&replica),
        }
    }
}

/// A replica, in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// Its id.
    pub id: ReplicaId,
    /// How many entries it has.
    pub entries: u64,
    /// The fingerprint of all of them.
    pub root: Hash,
    /// Whether anyone may read it.
    pub public: bool,
}

/// Which keys are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyQuery {
    /// Those that begin so.
    pub prefix: Vec<u8>,
    /// Those behind this one.
    pub after: Option<Vec<u8>>,
    /// No more than so many.
    pub limit: usize,
}

/// A key and its newest value, in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: ValueInfo,
}

/// A value without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo {
    /// Its length in bytes.
    pub len: u64,
    /// Its BLAKE3 hash.
    pub hash: Hash,
    /// Who wrote it.
    pub author: AuthorId,
    /// When, in microseconds since 1970.
    pub timestamp: u64,
    /// Whether all its bytes are here; those of large values may still be on their way.
    pub complete: bool,
}

/// Why a question could not be answered. The caller sees status 500 and nothing of the text, which
/// goes to the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ApiError(pub String);
