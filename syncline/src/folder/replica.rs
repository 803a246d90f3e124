//! What the folder needs of a replica. The daemon gives it the manager's; tests give it a small one.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sync_core::{
    model::{AuthorId, Hash, Timestamp},
    store::Position,
};

use super::{
    key::FileKey,
    plan::{Deletion, Version, VersionId, View},
    state::Stat,
};

/// Why the replica could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReplicaError {
    /// A file changed while it was put: nothing was written.
    #[error("`{0}` changed while it was read")]
    Unstable(FileKey),
    /// A file cannot be read: nothing was written.
    #[error("`{0}` cannot be read: {1}")]
    Unreadable(FileKey, String),
    /// The content of a value is not here yet.
    #[error("the content is not here yet")]
    NotHere,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// One write of a transaction.
#[derive(Debug, Clone)]
pub enum Write {
    /// Puts bytes.
    Put {
        /// The key.
        key: Vec<u8>,
        /// The value.
        bytes: Bytes,
    },
    /// Puts a file's bytes, if it is still what `stat` says.
    PutFile {
        /// The key.
        key: FileKey,
        /// Where it is.
        path: PathBuf,
        /// What it must be.
        stat: Stat,
    },
    /// Puts what a version of the replica is.
    Copy {
        /// The key.
        key: FileKey,
        /// The key of the version.
        from: FileKey,
        /// The version.
        version: VersionId,
    },
    /// Deletes a key.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

/// What one write became, whether or not something newer took its place at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The entry's name.
    pub id: VersionId,
    /// Length and hash of the value; nothing for a deletion.
    pub value: Option<(u64, Hash)>,
}

/// Writes that put files as they are on disk.
#[derive(Debug, Clone)]
pub struct Import {
    /// Imports of a folder are counted.
    pub number: u64,
    /// Which of the writes are values of files, and what the file system said of each.
    pub files: Vec<(usize, Stat)>,
}

/// An import as it is noted in the transaction that writes its entries. The state of the folder is written after
/// that; so a kill in between is no reason to take a file for a change that nobody has seen, when its version was
/// deleted or replaced since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedImport {
    /// See [`Import::number`].
    pub number: u64,
    /// A time before those of its entries, and not before those of what they replaced, as clocks go.
    pub after: Timestamp,
    /// What was put.
    pub files: Vec<NotedFile>,
}

/// A file of a [`NotedImport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotedFile {
    /// The bytes of its key.
    pub path: Vec<u8>,
    /// What the file system said of it.
    pub stat: Stat,
    /// Length and hash of what was put.
    pub value: (u64, Hash),
}

/// One change in the order in which this node accepted them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place.
    pub position: Position,
    /// What it is about.
    pub about: About,
    /// The entry's name.
    pub id: VersionId,
}

/// What a change is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A key.
    Key(Bytes),
    /// Every key with this prefix.
    Prefix(Bytes),
}

/// Whether this node may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteRight {
    /// It may.
    Held,
    /// It might, until its right ended.
    Ended,
    /// It was never allowed to.
    Never,
}

/// A replica, as the folder sees it.
#[async_trait]
pub trait FolderReplica: Send + Sync + 'static {
    /// Who this node writes as.
    fn me(&self) -> AuthorId;

    /// Whether this node may write now. Rights end, and come back with a new ticket.
    async fn right(&self) -> Result<WriteRight, ReplicaError>;

    /// What is held at each of these files.
    async fn views(&self, keys: &[FileKey]) -> Result<Vec<View>, ReplicaError>;

    /// All files with what is held for them, those that are only deleted left out, and the
    /// position up to which that is all.
    async fn all(&self) -> Result<(Vec<(FileKey, View)>, Position), ReplicaError>;

    /// The changes after a position, at most `limit`.
    async fn changes(&self, since: Position, limit: usize) -> Result<Vec<Change>, ReplicaError>;

    /// Writes all or nothing, and notes the import that the writes are, if they are one; answers one line each.
    async fn commit(&self, writes: Vec<Write>, import: Option<Import>) -> Result<Vec<Written>, ReplicaError>;

    /// The import that was noted last.
    async fn last_import(&self) -> Result<Option<NotedImport>, ReplicaError>;

    /// The bytes of versions: those that are still there and lie inline.
    async fn inline(&self, versions: &[(&FileKey, VersionId)]) -> Result<Vec<Option<Bytes>>, ReplicaError>;

    /// Writes the verified bytes of a version that is a blob to a new file.
    async fn export(&self, key: &FileKey, version: &Version, to: &Path) -> Result<(), ReplicaError>;
}

/// The writes that put a version of the replica under another name as well; `target` is where it points, for a link.
pub fn copy_of(key: &FileKey, version: &Version, kept: &FileKey, target: Option<Bytes>) -> Vec<Write> {
    use super::{key::Companion, plan::Kind};
    let mut writes = Vec::new();
    match (version.fact.kind, target) {
        (Kind::Link, Some(target)) => writes.push(Write::Put { key: kept.companion(Companion::Link), bytes: target }),
        (Kind::Executable, _) => {
            writes.push(Write::Put { key: kept.companion(Companion::Executable), bytes: Bytes::new() });
        }
        _ => {}
    }
    writes.push(Write::Copy { key: kept.clone(), from: key.clone(), version: version.id });
    writes
}

/// So many answers are noted at a key.
const MAX_ANSWERED: usize = 64;

/// The write that notes that `winner` was answered by keeping this node's version.
pub fn answer(key: &FileKey, view: &View, winner: VersionId) -> Write {
    let mut answered = merged(&view.answered, &super::plan::Seen::from([(winner.author, winner.timestamp)]));
    // Only whoever has the name now matters. The value must lie inline.
    while answered.len() > MAX_ANSWERED {
        let others = answered.iter().filter(|(author, _)| **author != winner.author);
        let Some(oldest) = others.min_by_key(|(_, timestamp)| **timestamp).map(|(author, _)| *author) else { break };
        answered.remove(&oldest);
    }
    Write::Put { key: key.companion(super::key::Companion::Answered), bytes: encode_seen(&answered) }
}

/// A key, and length and hash of what is put there; nothing for a deletion.
pub type Line = (Vec<u8>, Option<(u64, Hash)>);

impl NotedImport {
    /// What is to be noted of an import with these writes, as far as it is known what they put.
    pub fn new(import: &Import, after: Timestamp, lines: &[Line]) -> Self {
        let files = import.files.iter().filter_map(|&(at, stat)| {
            let (path, value) = lines.get(at)?;
            Some(NotedFile { path: path.clone(), stat, value: (*value)? })
        });
        Self { number: import.number, after, files: files.collect() }
    }

    /// The value of the note.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("an import can be encoded")
    }

    /// Reads the value of a note. What cannot be read was noted by another version of the program: it is as if there
    /// were none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match postcard::take_from_bytes(bytes) {
            Ok((noted, [])) => Some(noted),
            _ => None,
        }
    }
}

/// Orders what was read of one file into a view.
#[derive(Debug, Default)]
pub struct ViewBuilder {
    values: Vec<(VersionId, u64, Hash)>,
    executable: Vec<AuthorId>,
    links: Vec<(AuthorId, Hash)>,
    seen: Vec<(AuthorId, super::plan::Seen)>,
    answered: Vec<(AuthorId, super::plan::Seen)>,
    deletions: Vec<VersionId>,
    seen_by_deletions: Vec<(AuthorId, super::plan::Seen)>,
}

impl ViewBuilder {
    /// A value at the file's key.
    pub fn value(&mut self, id: VersionId, len: u64, hash: Hash) {
        self.values.push((id, len, hash));
    }

    /// A deletion of the file's key.
    pub fn deletion(&mut self, id: VersionId) {
        self.deletions.push(id);
    }

    /// A companion.
    pub fn companion(&mut self, companion: super::key::Companion, author: AuthorId, hash: Hash, inline: &[u8]) {
        use super::key::Companion;
        match companion {
            Companion::Executable => self.executable.push(author),
            Companion::Link => self.links.push((author, hash)),
            // Whoever writes nonsense here has seen nothing.
            Companion::Seen => self.seen.push((author, decode_seen(inline))),
            Companion::Answered => self.answered.push((author, decode_seen(inline))),
            Companion::SeenByDeletion => self.seen_by_deletions.push((author, decode_seen(inline))),
        }
    }

    /// The view of the node that writes as `me`.
    pub fn build(self, me: AuthorId) -> View {
        use super::plan::{Fact, Kind};
        let of = |list: &[(AuthorId, super::plan::Seen)], author: AuthorId| {
            list.iter().find(|(who, _)| *who == author).map(|(_, seen)| seen.clone()).unwrap_or_default()
        };
        let mut versions: Vec<Version> = self
            .values
            .iter()
            .map(|&(id, len, hash)| {
                let kind = if self.links.contains(&(id.author, hash)) {
                    Kind::Link
                } else if self.executable.contains(&id.author) {
                    Kind::Executable
                } else {
                    Kind::File
                };
                Version { id, fact: Fact { kind, len, hash }, seen: of(&self.seen, id.author) }
            })
            .collect();
        versions.sort_by_key(|version| std::cmp::Reverse(version.id));
        let deletion = self.deletions.into_iter().max();
        // The log is read page by page: a value may have been read before the deletion that took it came.
        versions.retain(|version| deletion.is_none_or(|deletion| version.id > deletion));
        let deletion = deletion.map(|id| Deletion { id, seen: of(&self.seen_by_deletions, id.author) });
        let marked_executable = self.executable.contains(&me);
        let (noted, answered) = (of(&self.seen, me), of(&self.answered, me));
        View { versions, deletion, noted, answered, marked_executable }
    }
}

/// What a companion says was seen.
pub fn decode_seen(bytes: &[u8]) -> super::plan::Seen {
    match postcard::take_from_bytes(bytes) {
        Ok((seen, [])) => seen,
        _ => super::plan::Seen::new(),
    }
}

/// The value of a companion that says what was seen.
pub fn encode_seen(seen: &super::plan::Seen) -> Bytes {
    postcard::to_allocvec(seen).expect("a map of keys and numbers can be encoded").into()
}

/// `seen` and `more` together.
pub fn merged(seen: &super::plan::Seen, more: &super::plan::Seen) -> super::plan::Seen {
    let mut merged = seen.clone();
    for (author, timestamp) in more {
        let line = merged.entry(*author).or_insert(Timestamp(0));
        *line = (*line).max(*timestamp);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_was_read_before_its_deletion_came_is_none() {
        let id =
            |author, timestamp| VersionId { timestamp: Timestamp(timestamp), author: AuthorId::from([author; 32]) };
        let mut builder = ViewBuilder::default();
        for (author, timestamp) in [(1, 10), (2, 20), (3, 40)] {
            builder.value(id(author, timestamp), 1, Hash([0; 32]));
        }
        builder.deletion(id(1, 30));
        let view = builder.build(AuthorId::from([1; 32]));
        assert_eq!(view.versions.iter().map(|version| version.id).collect::<Vec<_>>(), [id(3, 40)]);
        assert_eq!(view.deletion.unwrap().id, id(1, 30));
    }
}
