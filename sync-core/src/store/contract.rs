//! The contract of the stores.

use std::fmt;

use async_trait::async_trait;

use super::{coded::CodedSet, content::ContentStore, types::*};
use crate::model::{Key, ReplicaId, SlotRange, Summary};

/// Keeps replicas, and the few things that a node keeps for itself.
///
/// Reads answer from one consistent snapshot each and never wait for writers.
///
/// # Contract
///
/// Each sentence is a case of the conformance suite (`testing::store_suite`).
///
/// - *apply is durable*: when the future completes, entries, records and the change log are on disk.
/// - *apply is atomic*: after a crash all of a batch is there or nothing.
/// - *apply answers each entry*: one [`Outcome`] an entry, in order.
/// - *the result does not depend on the order of arrival*: the entries of a replica are the accepted
///   ones that no accepted one dominates; replay changes nothing.
/// - *rights are checked on every entry*: system entries first, then the others against them.
/// - *records of a refused local batch are not kept*, those of a peer's are.
/// - *entries from the future wait*: they are not stored, and welcome later.
/// - *a failed apply changes nothing* and loses nothing else.
/// - *get answers the newest value across authors*, nothing where the newest is a tombstone.
/// - *a query's winner does not depend on its direction*.
/// - *queries that are asked together answer in their order*, from one snapshot.
/// - *prefixes are byte prefixes*: `a` is not `a1`'s neighbour's; `%` and `_` mean themselves.
/// - *summary equals recomputation* over any range, and costs O(log n) rows.
/// - *state counts blobs and bytes* of the values that are there.
/// - *split covers the range* with disjoint parts whose summaries add up to the whole.
/// - *the change log has one row per live entry*, in the order of acceptance.
/// - *changes prove what they send*: its bundles verify at a node that has never seen the commit.
/// - *changes leave out what came from the peer*, and what is outside the scope.
/// - *reconciliation finds every difference* and sends nothing that the other has.
/// - *coded symbols are of what is there*, whatever came, went or was refused since the store was opened.
/// - *entries are found by their ids*, or the answer says that some were not.
/// - *what ranges that overlap have in common is proved*, and sent once.
/// - *the store id stays* over reopening, and differs between stores.
/// - *a dropped replica leaves nothing* but what the caller records.
/// - *an unknown replica is an error*, and reading creates nothing.
#[async_trait]
pub trait ReplicaStore: ContentStore + fmt::Debug + Send + Sync + 'static {
    /// The store's random id.
    fn store_id(&self) -> StoreId;

    /// The replicas here.
    async fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError>;

    /// Makes an empty replica; one that is there already stays as it is. One that was dropped goes on behind its last
    /// position: peers may still have one in the log of before (PROTOCOL.md, section 12).
    async fn create_replica(&self, replica: ReplicaId, records: Vec<NodeRecord>) -> Result<(), StoreError>;

    /// Removes every trace of a replica and writes `records` in the same transaction. Answers the bytes freed.
    async fn drop_replica(&self, replica: ReplicaId, records: Vec<NodeRecord>) -> Result<u64, StoreError>;

    /// The replica now. Costs no scan.
    async fn state(&self, replica: ReplicaId) -> Result<ReplicaState, StoreError>;

    /// Applies a batch. Concurrent ones share one disk flush.
    async fn apply(&self, batch: Apply) -> Result<Applied, StoreError>;

    /// The newest entry at `key` that is a value, unless a tombstone is newer.
    async fn get(&self, replica: ReplicaId, key: Key) -> Result<Option<LogEntry>, StoreError>;

    /// The entries that match, in the order of their keys, newest first within a key.
    async fn query(&self, replica: ReplicaId, query: Query) -> Result<Vec<LogEntry>, StoreError> {
        Ok(self.query_each(replica, vec![query]).await?.pop().unwrap_or_default())
    }

    /// The entries that match each of these queries, all from one snapshot. For many small ones: whoever asks waits once.
    async fn query_each(&self, replica: ReplicaId, queries: Vec<Query>) -> Result<Vec<Vec<LogEntry>>, StoreError>;

    /// The summary of the entries in `range`.
    async fn summary(&self, replica: ReplicaId, range: SlotRange) -> Result<Summary, StoreError>;

    /// The summary of the entries in `scope`.
    async fn scope_summary(&self, replica: ReplicaId, scope: Scope) -> Result<Summary, StoreError>;

    /// Cuts `range` into at most `parts` ranges of about the same number of entries.
    async fn split(
        &self,
        replica: ReplicaId,
        range: SlotRange,
        parts: usize,
    ) -> Result<Vec<(SlotRange, Summary)>, StoreError>;

    /// The change log after `since`, at most `limit` entries.
    async fn log(&self, replica: ReplicaId, since: Position, limit: usize) -> Result<Vec<LogEntry>, StoreError>;

    /// The change log as bundles for a peer.
    async fn changes(&self, request: ChangesRequest) -> Result<Changes, StoreError>;

    /// The first claims of a reconciliation over `scope`.
    async fn first_claims(&self, replica: ReplicaId, scope: Scope) -> Result<Vec<Claim>, StoreError>;

    /// Compares a peer's claims with what is here. Claims outside `scope` are clamped to it first.
    async fn reconcile(&self, replica: ReplicaId, scope: Scope, claims: Vec<Claim>) -> Result<Reconciled, StoreError>;

    /// At least `count` coded symbols of the replica in a state that has all of its change log up to `since`, or
    /// none: then ranges are compared instead.
    async fn coded(&self, replica: ReplicaId, since: Position, count: usize) -> Result<Option<CodedSet>, StoreError> {
        let _ = (replica, since, count);
        Ok(None)
    }

    /// Finds the entries with these ids, ascending, as far as the store knows where they are.
    async fn find(&self, replica: ReplicaId, ids: Vec<ShortId>) -> Result<Found, StoreError> {
        let _ = replica;
        Ok(Found { missing: Vec::new(), is_complete: ids.is_empty() })
    }

    /// Reads entries that a reconciliation found missing at the other side, about `max_bytes` at a time.
    async fn missing(
        &self,
        replica: ReplicaId,
        scope: Scope,
        missing: Vec<Missing>,
        max_bytes: usize,
    ) -> Result<MissingPage, StoreError>;

    /// What the node keeps of a kind, by name.
    async fn node_records(&self, kind: NodeKind) -> Result<Vec<NodeRecord>, StoreError>;

    /// Writes node records, all or none.
    async fn save(&self, records: Vec<NodeRecord>) -> Result<(), StoreError>;

    /// Finishes what was begun and refuses everything after it.
    async fn close(&self);
}
