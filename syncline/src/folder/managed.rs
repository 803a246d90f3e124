//! A replica of the manager as the folder sees it: the only file of the folder that knows the manager.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use sync_core::{
    manager::{ManagerError, Replica, Transaction},
    model::{AuthorId, Key, Op, Right, Timestamp, Value},
    store::{LogEntry, Position, Query, ReplicaStore, Select},
};

use super::{
    conflict::kept_name,
    key::{FileKey, Role, role_of},
    plan::{Version, VersionId, View},
    replica::{
        About, Change, FolderReplica, Import, NotedImport, ReplicaError, ViewBuilder, Write, WriteRight, Written,
        answer, copy_of,
    },
    scan,
    state::Stat,
};

/// How much of the change log is read at once.
const PAGE: usize = 256;

/// The name of the note of the last import.
pub(super) const LAST_IMPORT: &str = "folder: last import";

/// A replica of the manager.
#[derive(Debug)]
pub struct ManagedReplica {
    replica: Replica,
    store: Arc<dyn ReplicaStore>,
    /// Prefix deletions: the newest of each prefix. They are few, and no query by key shows them.
    prefixes: Mutex<Prefixes>,
}

/// The prefix deletions of the change log up to a position.
#[derive(Debug, Default)]
struct Prefixes {
    newest: HashMap<Bytes, VersionId>,
    read: Position,
}

impl From<ManagerError> for ReplicaError {
    fn from(error: ManagerError) -> Self {
        match error {
            ManagerError::ContentMissing => Self::NotHere,
            error => Self::Failed(error.to_string()),
        }
    }
}

impl ManagedReplica {
    /// The replica, read through its store.
    pub fn new(replica: Replica, store: Arc<dyn ReplicaStore>) -> Self {
        Self { replica, store, prefixes: Mutex::default() }
    }

    async fn query(&self, queries: Vec<Query>) -> Result<Vec<Vec<LogEntry>>, ReplicaError> {
        let answers = self.store.query_each(self.replica.id(), queries).await;
        answers.map_err(|error| ReplicaError::Failed(error.to_string()))
    }

    /// The entry that is this version, if it is still there.
    pub async fn entry(&self, key: &FileKey, version: VersionId) -> Result<Option<LogEntry>, ReplicaError> {
        Ok(self.entries(&[(key, version)]).await?.pop().flatten())
    }

    async fn entries(&self, versions: &[(&FileKey, VersionId)]) -> Result<Vec<Option<LogEntry>>, ReplicaError> {
        let queries = versions.iter().map(|(key, version)| Query {
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            author: Some(version.author),
            select: Select::All,
            ..Query::default()
        });
        let found = self.query(queries.collect()).await?.into_iter().zip(versions);
        Ok(found.map(|(found, (_, version))| found.into_iter().find(|entry| id_of(entry) == *version)).collect())
    }

    async fn log(&self, since: Position, limit: usize) -> Result<Vec<LogEntry>, ReplicaError> {
        let answer = self.store.log(self.replica.id(), since, limit).await;
        let entries = answer.map_err(|error| ReplicaError::Failed(error.to_string()))?;
        let mut prefixes = self.prefixes.lock().expect("nobody panics with the prefixes");
        for entry in &entries {
            if let Op::DeletePrefix { prefix } = &entry.entry.op {
                let newest = prefixes.newest.entry(prefix.as_bytes().clone()).or_insert(id_of(entry));
                *newest = (*newest).max(id_of(entry));
            }
        }
        if let Some(last) = entries.last().filter(|_| since <= prefixes.read) {
            prefixes.read = prefixes.read.max(last.position);
        }
        drop(prefixes);
        Ok(entries)
    }

    /// Reads what the change log has of prefix deletions by now; mostly nothing.
    async fn read_prefixes(&self) -> Result<(), ReplicaError> {
        loop {
            let since = self.prefixes.lock().expect("nobody panics with the prefixes").read;
            if self.log(since, PAGE).await?.is_empty() {
                return Ok(());
            }
        }
    }

    fn add_prefix_deletions(&self, key: &FileKey, builder: &mut ViewBuilder) {
        let prefixes = self.prefixes.lock().expect("nobody panics with the prefixes");
        for (prefix, id) in &prefixes.newest {
            if key.as_bytes().starts_with(prefix) {
                builder.deletion(*id);
            }
        }
    }

    /// What is held for a file; deletions by prefix are not looked for.
    pub async fn view(&self, key: &FileKey) -> Result<View, ReplicaError> {
        let mut builders = self.builders(std::slice::from_ref(key)).await?;
        Ok(builders.pop().unwrap_or_default().build(self.replica.author()))
    }

    /// Puts this node's version at `key` under another name, in a transaction that is about to take its place, if
    /// another version took the name before without having seen it.
    pub async fn keep_in(&self, transaction: &mut Transaction, key: &FileKey, view: &View) -> Result<(), ReplicaError> {
        let me = self.replica.author();
        let Some(mine) = view.by(me) else { return Ok(()) };
        let Some(winner) = view.winner_over(me, mine.id, mine.fact) else { return Ok(()) };
        let kept =
            kept_name(key, me, mine.id.timestamp).map_err(|problem| ReplicaError::Failed(problem.to_string()))?;
        let target = self.inline(&[(key, mine.id)]).await?.pop().flatten();
        let mut writes = copy_of(key, mine, &kept, target);
        writes.push(answer(key, view, winner));
        self.stage(transaction, writes).await.map(drop)
    }

    /// Puts writes into a transaction, all but the files; answers the keys, and the files.
    async fn stage(
        &self,
        transaction: &mut Transaction,
        writes: Vec<Write>,
    ) -> Result<(Vec<Vec<u8>>, Vec<(FileKey, PathBuf, Stat)>), ReplicaError> {
        let (mut keys, mut files) = (Vec::with_capacity(writes.len()), Vec::new());
        for write in writes {
            keys.push(match write {
                Write::Put { key, bytes } => {
                    transaction.put(&key, bytes).await?;
                    key
                }
                Write::PutFile { key, path, stat } => {
                    let bytes = key.as_bytes().to_vec();
                    files.push((key, path, stat));
                    bytes
                }
                Write::Copy { key, from, version } => {
                    let entry = self.entry(&from, version).await?;
                    // It was replaced meanwhile: whoever wants it looks again.
                    let entry = entry.ok_or(ReplicaError::Unstable(from))?;
                    transaction.put_copy(key.as_bytes(), &entry).await?;
                    key.as_bytes().to_vec()
                }
                Write::Delete { key } => {
                    transaction.delete(&key)?;
                    key
                }
            });
        }
        Ok((keys, files))
    }

    /// What is held at each of these files, all as it was at one time.
    async fn builders(&self, keys: &[FileKey]) -> Result<Vec<ViewBuilder>, ReplicaError> {
        let queries = keys.iter().flat_map(|key| {
            let exact = Query {
                key: Some(Bytes::copy_from_slice(key.as_bytes())),
                select: Select::All,
                tombstones: true,
                ..Query::default()
            };
            let companions = Query { prefix: key.companions().into(), select: Select::All, ..Query::default() };
            [exact, companions]
        });
        let answers = self.query(queries.collect()).await?;
        let builders = answers.chunks(2).map(|of_one| {
            let mut builder = ViewBuilder::default();
            of_one.iter().flatten().for_each(|entry| add(&mut builder, entry));
            builder
        });
        Ok(builders.collect())
    }
}

fn id_of(entry: &LogEntry) -> VersionId {
    VersionId { timestamp: entry.entry.timestamp, author: entry.entry.author }
}

fn add(builder: &mut ViewBuilder, entry: &LogEntry) {
    let id = id_of(entry);
    match (&entry.entry.op, role_of(entry.entry.op.key_bytes())) {
        (Op::Put { value, .. }, Role::File(_)) => builder.value(id, value.len(), value.hash()),
        (Op::Delete { .. }, Role::File(_)) => builder.deletion(id),
        (Op::Put { value, .. }, Role::Companion(_, companion)) => {
            let inline: &[u8] = match value {
                Value::Inline(bytes) => bytes,
                Value::Blob { .. } => &[],
            };
            builder.companion(companion, id.author, value.hash(), inline);
        }
        _ => {}
    }
}

/// Files up to this length are imported many at a time, with shared syncs.
const MAX_BATCHED_LEN: u64 = 4 * 1024 * 1024;

/// So many files are imported at a time.
const MAX_BATCH: usize = 64;

/// Puts files into a transaction: nothing is kept of it when one of them changed meanwhile.
async fn put_files(transaction: &mut Transaction, files: Vec<(FileKey, PathBuf, Stat)>) -> Result<(), ReplicaError> {
    let failed = |key: &FileKey, error: ManagerError| match error {
        ManagerError::Io { .. } => ReplicaError::Unreadable(key.clone(), error.to_string()),
        error => ReplicaError::Failed(error.to_string()),
    };
    let (small, large): (Vec<_>, Vec<_>) = files.into_iter().partition(|(_, _, stat)| stat.len <= MAX_BATCHED_LEN);
    for batch in small.chunks(MAX_BATCH) {
        let mut paths = Vec::with_capacity(batch.len());
        for (key, path, stat) in batch {
            check(key, path, stat)?;
            let key = Key::try_from(key.as_bytes()).map_err(|error| ReplicaError::Failed(error.to_string()))?;
            paths.push((key, path.clone()));
        }
        let results = transaction.put_files(paths).await?;
        for ((key, path, stat), result) in batch.iter().zip(results) {
            // A file that went or changed in the middle is looked at again, whatever was read.
            check(key, path, stat)?;
            result.map_err(|error| failed(key, error))?;
        }
    }
    for (key, path, stat) in &large {
        check(key, path, stat)?;
        transaction.put_file(key.as_bytes(), path).await.map_err(|error| failed(key, error))?;
        check(key, path, stat)?;
    }
    Ok(())
}

fn check(key: &FileKey, path: &Path, stat: &Stat) -> Result<(), ReplicaError> {
    scan::check_unchanged(path, stat).map_err(|error| match error {
        scan::ReadError::Unstable => ReplicaError::Unstable(key.clone()),
        scan::ReadError::Io(error) if error.kind() == io::ErrorKind::NotFound => ReplicaError::Unstable(key.clone()),
        scan::ReadError::Io(error) => ReplicaError::Unreadable(key.clone(), error.to_string()),
    })
}

#[async_trait]
impl FolderReplica for ManagedReplica {
    fn me(&self) -> AuthorId {
        self.replica.author()
    }

    async fn right(&self) -> Result<WriteRight, ReplicaError> {
        let state = self.store.state(self.replica.id()).await;
        let rights = state.map_err(|error| ReplicaError::Failed(error.to_string()))?.rights;
        let me = self.me().0;
        let holds = |at: Timestamp| rights.best_grant(&me, Right::Write, at).is_some();
        Ok(if me == self.replica.id().0 || holds(crate::node::now()) {
            WriteRight::Held
        } else if holds(Timestamp(0)) {
            WriteRight::Ended
        } else {
            WriteRight::Never
        })
    }

    async fn views(&self, keys: &[FileKey]) -> Result<Vec<View>, ReplicaError> {
        let builders = self.builders(keys).await?;
        // After the values: one that is gone was deleted by something that is found now. The other way round
        // a deletion in between would look like a value that vanished, and would be put again.
        self.read_prefixes().await?;
        let views = keys.iter().zip(builders).map(|(key, mut builder)| {
            self.add_prefix_deletions(key, &mut builder);
            builder.build(self.me())
        });
        Ok(views.collect())
    }

    async fn all(&self) -> Result<(Vec<(FileKey, View)>, Position), ReplicaError> {
        let mut files: BTreeMap<FileKey, ViewBuilder> = BTreeMap::new();
        let mut position = Position(0);
        loop {
            let page = self.log(position, PAGE).await?;
            let Some(last) = page.last() else { break };
            position = last.position;
            for entry in &page {
                if let Role::File(key) | Role::Companion(key, _) = role_of(entry.entry.op.key_bytes()) {
                    add(files.entry(key).or_default(), entry);
                }
            }
        }
        let me = self.me();
        let views = files.into_iter().map(|(key, mut builder)| {
            self.add_prefix_deletions(&key, &mut builder);
            (key, builder.build(me))
        });
        Ok((views.filter(|(_, view)| view.newest().is_some()).collect(), position))
    }

    async fn changes(&self, since: Position, limit: usize) -> Result<Vec<Change>, ReplicaError> {
        let entries = self.log(since, limit).await?;
        Ok(entries
            .into_iter()
            .map(|entry| Change {
                position: entry.position,
                id: id_of(&entry),
                about: match &entry.entry.op {
                    Op::DeletePrefix { prefix } => About::Prefix(prefix.as_bytes().clone()),
                    op => About::Key(op.key_bytes().clone()),
                },
            })
            .collect())
    }

    async fn commit(&self, writes: Vec<Write>, import: Option<Import>) -> Result<Vec<Written>, ReplicaError> {
        let mut transaction = self.replica.write();
        let (keys, files) = self.stage(&mut transaction, writes).await?;
        put_files(&mut transaction, files).await?;
        let ops: HashMap<&[u8], (u64, &Op)> =
            transaction.ops().iter().zip(0..).map(|(op, at)| (&op.key_bytes()[..], (at, op))).collect();
        let mut places = Vec::with_capacity(keys.len());
        let mut lines = Vec::with_capacity(keys.len());
        for key in keys {
            let (at, op) = ops.get(&key[..]).ok_or_else(|| ReplicaError::Failed("a write was lost".into()))?;
            let value = match op {
                Op::Put { value, .. } => Some((value.len(), value.hash())),
                _ => None,
            };
            places.push(*at);
            lines.push((key, value));
        }
        drop(ops);
        if let Some(import) = import {
            let noted = NotedImport::new(&import, crate::node::now(), &lines);
            transaction.note(LAST_IMPORT, noted.to_bytes());
        }
        let Some(first) = transaction.commit().await? else { return Ok(Vec::new()) };
        let written = places.into_iter().zip(lines).map(|(at, (_, value))| {
            let id = VersionId { timestamp: Timestamp(first.0 + at), author: self.me() };
            Written { id, value }
        });
        Ok(written.collect())
    }

    async fn last_import(&self) -> Result<Option<NotedImport>, ReplicaError> {
        let noted = self.replica.note(LAST_IMPORT).await?;
        Ok(noted.and_then(|bytes| NotedImport::from_bytes(&bytes)))
    }

    async fn inline(&self, versions: &[(&FileKey, VersionId)]) -> Result<Vec<Option<Bytes>>, ReplicaError> {
        let bytes = |entry: Option<LogEntry>| match entry?.entry.op {
            Op::Put { value: Value::Inline(bytes), .. } => Some(bytes),
            _ => None,
        };
        Ok(self.entries(versions).await?.into_iter().map(bytes).collect())
    }

    async fn export(&self, key: &FileKey, version: &Version, to: &Path) -> Result<(), ReplicaError> {
        let entry = self.entry(key, version.id).await?;
        let entry = entry.ok_or_else(|| ReplicaError::Failed("the version was replaced meanwhile".into()))?;
        Ok(crate::contents::write_new(&self.replica, &entry, to).await?)
    }
}
