//! Content: the bytes of blobs, beside the entries that refer to them.
//!
//! An entry with a blob has only hash and length. Whether the bytes are here, in full, in part or
//! not at all, who refers to them and what is wanted is kept in rows of the same engine, changed
//! in the same transaction as the entries: so what is referenced cannot be collected, and a want
//! cannot be forgotten. The bytes themselves are files ([`sync_content`]), written and synced
//! before the row that says so.
//!
//! The bytes are kept once for all replicas, but a replica *holds* only what was written into it
//! here or given by one of its peers, and only that is for its peers: to know a hash is no right.
//!
//! | file | what it is |
//! |---|---|
//! | here | [`ContentStore`], the seam, and its values |
//! | `rows` | the rows, and what happens to them when an entry comes or goes |
//! | `keeper` | import, download and collection over an [`super::Engine`] |
//! | `pins` | who holds content that no entry refers to yet |

mod keeper;
mod pins;
mod rows;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt,
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
pub use pins::Pin;
pub use sync_content::{ContentDir, ContentError, GroupRanges, Partial, Progress, Reader};

pub(super) use self::{
    keeper::ContentKeeper,
    rows::{CameFor, Reference, base, forget, refer, unrefer},
};
use super::{Scope, StoreError};
use crate::model::{Hash, Key, ReplicaId};

/// Is told how far an import is; `Break` stops it.
pub type OnProgress = Arc<dyn Fn(Progress) -> ControlFlow<()> + Send + Sync>;

/// Keeps content and knows who refers to it.
///
/// # Contract
///
/// - *referenced content is never collected*, under any race of insert, overwrite and collection.
/// - *unreferenced content is collected*: when its last reference and its last pin are gone, and nothing that is here
///   is kept as what differs from it.
/// - *a want is as durable as the entry that wants*, and ends when the replica holds the content, or
///   with the last reference.
/// - *an older version is not collected while the new one is on its way*.
/// - *an import over an older version is whole whatever becomes of that*, and the older one too.
/// - *a replica holds what was written into it or came for it*, and nothing because its entries name
///   a hash whose bytes another replica brought here.
/// - *imported content survives*: when an import completes, bytes and row are on disk.
/// - *a download goes on at its checkpoint* after a crash, and never claims what is not there.
/// - *one owner per hash*: a second download of a hash is refused while the first runs.
/// - *reading creates nothing*.
#[async_trait]
pub trait ContentStore: fmt::Debug + Send + Sync {
    /// How much of a content is here.
    async fn content_status(&self, hash: Hash) -> Result<ContentStatus, StoreError>;

    /// Copies a file in. It stays while the pin is held or an entry refers to it. What `older` has, an older version, need
    /// not be written again, if that is here.
    async fn import_path(
        &self,
        path: PathBuf,
        older: Option<Hash>,
        progress: OnProgress,
    ) -> Result<Imported, StoreError>;

    /// Copies many files in, with one batch of syncs for all: at most a few hundred, small ones.
    async fn import_paths(&self, paths: Vec<PathBuf>) -> Result<Vec<Result<Imported, StoreError>>, StoreError>;

    /// Takes bytes in.
    async fn import_bytes(&self, bytes: Bytes) -> Result<Imported, StoreError>;

    /// A reader of what is here, in full or in part, for who is at this node; nothing when nothing
    /// is. It blocks on the disk: use it on a blocking thread.
    async fn reader(&self, hash: Hash) -> Result<Option<Reader>, StoreError>;

    /// The same for the peers of `replica`: a reader of what it holds.
    async fn held_reader(&self, replica: ReplicaId, hash: Hash) -> Result<Option<Reader>, StoreError>;

    /// Contents that entries refer to and that their replica does not hold in full, those of one
    /// replica by hash, after `after`.
    async fn wants(&self, after: Option<Want>, limit: usize) -> Result<Vec<Want>, StoreError>;

    /// How many contents a replica wants; at most `limit` are counted.
    async fn count_wants(&self, replica: ReplicaId, limit: u64) -> Result<u64, StoreError>;

    /// The keys of entries of `replica` inside of `scope` that refer to a content, at most `limit`.
    async fn references(
        &self,
        replica: ReplicaId,
        hash: Hash,
        scope: Scope,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError>;

    /// Begins or resumes a download.
    async fn begin_download(&self, hash: Hash, len: u64) -> Result<Begun, StoreError>;

    /// Makes durable what a download has.
    async fn checkpoint_download(&self, download: Arc<Download>) -> Result<(), StoreError>;

    /// Makes the content of downloads complete, with one batch of syncs for all. All their groups
    /// must be here. A replica for which all of one came holds it. After an error they begin again
    /// at their checkpoints.
    async fn finish_downloads(&self, downloads: Vec<Arc<Download>>) -> Result<(), StoreError>;

    /// A peer of `replica` has proved that it has a content which is here in full: the replica
    /// holds it, if an entry still refers to it. Answers whether it does.
    async fn hold_content(&self, replica: ReplicaId, hash: Hash) -> Result<bool, StoreError>;

    /// Content turned out to be damaged on the disk: it is not here any more, and wanted again
    /// where an entry refers to it.
    async fn content_damaged(&self, hash: Hash) -> Result<(), StoreError>;

    /// Removes content that nobody refers to or pins, and answers how many there were. Called
    /// now and then; one call removes a bounded number, 0 means that there is nothing to do.
    async fn collect_content(&self) -> Result<u64, StoreError>;
}

/// How much of a content is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentStatus {
    /// Nothing.
    Missing,
    /// Some of it, durably.
    Partial {
        /// Its claimed length in bytes.
        len: u64,
        /// How many of them are here and proved.
        have: u64,
    },
    /// All of it.
    Complete {
        /// Its length in bytes.
        len: u64,
    },
}

/// Content that was taken in.
#[derive(Debug)]
pub struct Imported {
    /// The hash of the whole.
    pub hash: Hash,
    /// The length in bytes.
    pub len: u64,
    /// Holds it until an entry refers to it.
    pub pin: Pin,
}

/// Content that an entry of a replica refers to and that the replica does not hold in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Want {
    /// The replica.
    pub replica: ReplicaId,
    /// The content's hash.
    pub hash: Hash,
    /// The length that the entry claims.
    pub len: u64,
    /// An older version, which an entry of the same key and author referred to and which is here in
    /// full: it stays until the want ends.
    pub base: Option<Hash>,
}

/// What came of the wish to download.
#[derive(Debug)]
pub enum Begun {
    /// It is ours to fetch.
    Ours(Download),
    /// It is here already.
    Complete,
    /// Somebody else fetches it.
    Busy,
}

/// The ownership of a download. Dropped, it stays where its last checkpoint was.
#[derive(Debug)]
pub struct Download {
    pub(crate) partial: Arc<Partial>,
    pub(super) came_for: Mutex<CameFor>,
    pub(crate) _lease: pins::Lease,
    pub(crate) _pin: Pin,
}

impl Download {
    /// What receives the groups. Pushing to it blocks on the disk.
    pub fn partial(&self) -> &Arc<Partial> {
        &self.partial
    }

    /// What is pushed from now on comes from a peer of `replica`, on its behalf. Said before it is
    /// pushed.
    pub fn comes_for(&self, replica: ReplicaId) {
        let mut came_for = self.came_for.lock().expect("nothing panics while it notes a replica");
        *came_for = came_for.and(replica);
    }

    /// The replica on whose behalf all came so far, if it was one.
    pub fn came_for_one(&self) -> Option<ReplicaId> {
        match self.came_for() {
            CameFor::One(replica) => Some(replica),
            CameFor::Nobody | CameFor::Several => None,
        }
    }

    pub(super) fn came_for(&self) -> CameFor {
        *self.came_for.lock().expect("nothing panics while it notes a replica")
    }

    /// The hash of the whole.
    pub fn hash(&self) -> Hash {
        self.partial.hash().into()
    }
}

impl From<sync_content::Hash> for Hash {
    fn from(hash: sync_content::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl From<Hash> for sync_content::Hash {
    fn from(hash: Hash) -> Self {
        Self::from_bytes(hash.0)
    }
}

impl From<ContentError> for StoreError {
    fn from(error: ContentError) -> Self {
        if error.is_disk_full() { Self::DiskFull(error.to_string()) } else { Self::Content(Arc::new(error)) }
    }
}
