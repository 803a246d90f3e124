//! A replica, as an application uses it.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use sync_content::export;

use super::{
    driver::Message,
    error::ManagerError,
    policy::DownloadPolicy,
    shared::{Live, Shared},
};
use crate::{
    machine::{Direction, Input},
    model::{
        AuthorId, Grant, Hash, Invite, Key, MAX_INLINE_LEN, Op, Prefix, PublicKey, ReplicaId, Right, SecretKey, Ticket,
        Timestamp, Value, sign_commit,
    },
    store::{
        Apply, ContentError, ContentStatus, Imported, LogEntry, NodeKind, NodeRecord, OnProgress, Origin, Outcome, Pin,
        Position, Progress, Query, Reader, ReplicaState, Select, StoreError,
    },
};

/// A handle to a replica. Cheap to clone; the replica stays open as long as the manager runs.
#[derive(Debug, Clone)]
pub struct Replica {
    pub(super) id: ReplicaId,
    pub(super) shared: Arc<Shared>,
    pub(super) live: Arc<Live>,
    pub(super) author: SecretKey,
}

/// What a ticket gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The right.
    pub right: Right,
    /// Until when.
    pub expires: Option<Timestamp>,
}

impl Access {
    /// To read, for ever.
    pub const READ: Self = Self { right: Right::Read, expires: None };
    /// To read and write, for ever.
    pub const WRITE: Self = Self { right: Right::Write, expires: None };
}

impl Replica {
    /// The replica's id.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Who signs what is written through this handle.
    pub fn author(&self) -> AuthorId {
        AuthorId(self.author.public())
    }

    /// The same replica, written by another author.
    pub fn with_author(&self, author: SecretKey) -> Self {
        Self { author, ..self.clone() }
    }

    /// Sets the value at `key`. Durable when the future completes. Values over
    /// [`MAX_INLINE_LEN`] become blobs by themselves.
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<(), ManagerError> {
        let mut transaction = self.write();
        transaction.put(key, value).await?;
        transaction.commit().await.map(drop)
    }

    /// Removes the value at `key`, of whatever author.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), ManagerError> {
        let mut transaction = self.write();
        transaction.delete(key)?;
        transaction.commit().await.map(drop)
    }

    /// Removes every value whose key begins with `prefix`.
    pub async fn delete_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<(), ManagerError> {
        let mut transaction = self.write();
        transaction.delete_prefix(prefix)?;
        transaction.commit().await.map(drop)
    }

    /// Begins a transaction: its entries become visible together, under one signature.
    pub fn write(&self) -> Transaction {
        Transaction { replica: self.clone(), ops: Vec::new(), pins: Vec::new(), notes: Vec::new() }
    }

    /// What [`Transaction::note`] last kept under `name`.
    pub async fn note(&self, name: impl AsRef<[u8]>) -> Result<Option<Bytes>, ManagerError> {
        let name = note_name(&self.id, name.as_ref());
        let records = self.shared.store.node_records(NodeKind::Note).await?;
        Ok(records.into_iter().find(|record| record.name == name).and_then(|record| record.value))
    }

    /// The newest entry at `key` across authors; none where that is a tombstone.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<LogEntry>, ManagerError> {
        Ok(self.shared.store.get(self.id, Key::try_from(key.as_ref())?).await?)
    }

    /// Every author's entry at `key`, newest first.
    pub async fn get_all(&self, key: impl AsRef<[u8]>) -> Result<Vec<LogEntry>, ManagerError> {
        let key = Key::try_from(key.as_ref())?;
        let query = Query { key: Some(key.as_bytes().clone()), select: Select::All, ..Query::default() };
        Ok(self.shared.store.query(self.id, query).await?)
    }

    /// The entries that match.
    pub async fn query(&self, query: Query) -> Result<Vec<LogEntry>, ManagerError> {
        Ok(self.shared.store.query(self.id, query).await?)
    }

    /// The bytes at `key`, whole and verified; none when there is no value.
    pub async fn read(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, ManagerError> {
        let Some(entry) = self.get(key).await? else { return Ok(None) };
        self.read_value(&entry).await.map(Some)
    }

    /// The bytes of an entry's value, whole and verified. [`ManagerError::ContentMissing`] while
    /// a blob's content is not here.
    pub async fn read_value(&self, entry: &LogEntry) -> Result<Bytes, ManagerError> {
        match &entry.entry.op {
            Op::Put { value: Value::Inline(bytes), .. } => Ok(bytes.clone()),
            Op::Put { value: Value::Blob { hash, .. }, .. } => {
                let reader = self.reader(*hash).await?;
                let bytes = blocking("read a content", move || {
                    reader.read_to_vec(0..reader.len()).map_err(std::io::Error::other)
                });
                Ok(self.seen(*hash, bytes.await).await?.into())
            }
            Op::Delete { .. } | Op::DeletePrefix { .. } => Ok(Bytes::new()),
        }
    }

    /// A reader of a content that is here in full: verified ranges, on a blocking thread.
    pub async fn reader(&self, hash: Hash) -> Result<Reader, ManagerError> {
        match self.shared.store.content_status(hash).await? {
            ContentStatus::Complete { .. } => {
                let reader = self.shared.store.reader(hash).await.map_err(ManagerError::from);
                self.seen(hash, reader).await?.ok_or(ManagerError::ContentMissing)
            }
            ContentStatus::Missing | ContentStatus::Partial { .. } => Err(ManagerError::ContentMissing),
        }
    }

    /// Says that a content turned out to be damaged on the disk, as who reads it by [`Self::reader`] notices: it is not
    /// here any more, and is fetched again. [`Self::read`] and [`Self::export`] do so by themselves.
    pub async fn content_damaged(&self, hash: Hash) -> Result<(), ManagerError> {
        tracing::warn!(%hash, "content is damaged on the disk; it is fetched again");
        self.shared.store.content_damaged(hash).await?;
        self.shared.content.changed(self.id);
        Ok(())
    }

    /// What was read of a content; damage is noted.
    async fn seen<T>(&self, hash: Hash, read: Result<T, ManagerError>) -> Result<T, ManagerError> {
        if read.as_ref().is_err_and(ManagerError::is_damage) {
            self.content_damaged(hash).await?;
        }
        read
    }

    /// Says which way entries go between this node and others. Kept over restarts; it acts at once, and what was
    /// held back is sent once.
    pub async fn set_direction(&self, direction: Direction) -> Result<(), ManagerError> {
        let (replica, shared) = (self.id, self.shared.clone());
        self.set_up(async move {
            super::settings::save_direction(&*shared.store, &replica, direction).await?;
            let input = Input::SetDirection { replica, direction };
            shared.sender.send(Message::Input(input)).await.map_err(|_| ManagerError::Closed)
        })
        .await
    }

    /// Which way entries go.
    pub async fn direction(&self) -> Result<Direction, ManagerError> {
        let set = super::settings::directions(&*self.shared.store).await?;
        Ok(set.into_iter().find(|(id, _)| *id == self.id).map(|(_, direction)| direction).unwrap_or_default())
    }

    /// Says which contents of this replica come here by themselves. Kept over restarts.
    pub async fn set_download_policy(&self, policy: DownloadPolicy) -> Result<(), ManagerError> {
        let (replica, shared) = (self.id, self.shared.clone());
        self.set_up(async move {
            shared.content.policies.set(&*shared.store, replica, policy).await?;
            shared.content.changed(replica);
            Ok(())
        })
        .await
    }

    /// Which contents of this replica come here by themselves.
    pub fn download_policy(&self) -> DownloadPolicy {
        self.shared.content.policies.of(&self.id)
    }

    /// How much of a content is here.
    pub async fn content_status(&self, hash: Hash) -> Result<ContentStatus, ManagerError> {
        Ok(self.shared.store.content_status(hash).await?)
    }

    /// Writes the value at `key` to a file, atomically and durably. False when there is no value.
    pub async fn export(&self, key: impl AsRef<[u8]>, path: impl Into<PathBuf>) -> Result<bool, ManagerError> {
        self.export_with(key, path, Arc::new(|_| ControlFlow::Continue(()))).await
    }

    /// The same, and `progress` is told how far it is; when it breaks off, the file stays as it was.
    pub async fn export_with(
        &self,
        key: impl AsRef<[u8]>,
        path: impl Into<PathBuf>,
        progress: OnProgress,
    ) -> Result<bool, ManagerError> {
        let path = path.into();
        let Some(entry) = self.get(key).await? else { return Ok(false) };
        let context = format!("export to {}", path.display());
        let blob = match &entry.entry.op {
            Op::Put { value: Value::Blob { hash, .. }, .. } => Some(*hash),
            _ => None,
        };
        let reader = match blob {
            Some(hash) => Some(self.reader(hash).await?),
            None => None,
        };
        let inline = match reader {
            Some(_) => Bytes::new(),
            None => self.read_value(&entry).await?,
        };
        let write = move || match reader {
            Some(reader) => export::export(&reader, &path, &mut |now| progress(now)),
            None => {
                let staged = export::stage_bytes(&inline, &path)?;
                let len = inline.len() as u64;
                match progress(Progress { done: len, total: len }) {
                    ControlFlow::Continue(()) => export::commit(vec![staged]),
                    ControlFlow::Break(()) => Err(ContentError::Cancelled),
                }
            }
        };
        let written = blocking(&context, move || write().map_err(std::io::Error::other)).await;
        match blob {
            Some(hash) => self.seen(hash, written).await?,
            None => written?,
        }
        Ok(true)
    }

    /// Sets the value at `key` to a file's bytes and answers their number.
    pub async fn put_file(&self, key: impl AsRef<[u8]>, path: impl Into<PathBuf>) -> Result<u64, ManagerError> {
        let mut transaction = self.write();
        let len = transaction.put_file(key, path).await?;
        transaction.commit().await?;
        Ok(len)
    }

    /// The replica now: root, head, rights.
    pub async fn state(&self) -> Result<ReplicaState, ManagerError> {
        Ok(self.shared.store.state(self.id).await?)
    }

    /// What was written, from here and elsewhere, after the position `from`, in the order in which
    /// this node accepted it; then what comes, as it comes. Overwritten entries are left out.
    pub fn watch(&self, prefix: impl AsRef<[u8]>, from: Position) -> Watch {
        Watch {
            replica: self.clone(),
            prefix: Bytes::copy_from_slice(prefix.as_ref()),
            position: from,
            ready: Default::default(),
            head: self.live.head.subscribe(),
        }
    }

    /// The last position of the change log.
    pub fn head(&self) -> Position {
        *self.live.head.borrow()
    }

    /// A ticket that invites to this replica, with the addresses where this node listens now.
    pub async fn share(&self, access: Access) -> Result<Ticket, ManagerError> {
        let secret = SecretKey::generate();
        self.give(secret.public(), access).await?;
        let state = self.state().await?;
        let chain =
            crate::machine::credentials(&*self.shared.store, &state.rights, secret.public(), Timestamp(0)).await?;
        Ok(Ticket {
            replica: self.id,
            peer: Some(self.shared.me),
            addresses: super::addresses(&self.shared).await?,
            invite: Some(Invite { secret, chain }),
        })
    }

    /// Gives a key a right, unless it has that much already.
    pub(super) async fn entitle(&self, subject: PublicKey, access: Access) -> Result<(), ManagerError> {
        let state = self.state().await?;
        if self.id.0 == subject || state.rights.best_grant(&subject, access.right, (self.shared.wall)()).is_some() {
            return Ok(());
        }
        self.give(subject, access).await
    }

    /// Writes a grant, signed by the owner when its key is here, and by this node otherwise.
    async fn give(&self, subject: PublicKey, access: Access) -> Result<(), ManagerError> {
        let now = (self.shared.wall)();
        let state = self.state().await?;
        let (issuer, parent) = match self.owner_key().await? {
            Some(owner) => (owner, None),
            None => {
                let mine = state.rights.best_grant(&self.shared.key.public(), access.right, now);
                let (id, grant) = mine.ok_or_else(|| ManagerError::CannotShare(self.id.short()))?;
                if grant.expires.is_some_and(|expires| access.expires.is_none_or(|wanted| wanted > expires)) {
                    return Err(ManagerError::CannotShare(self.id.short()));
                }
                (self.shared.key.clone(), Some(id))
            }
        };
        let grant = Grant { subject, right: access.right, prefix: Prefix::default(), expires: access.expires, parent };
        self.with_author(issuer).grant(&grant).await
    }

    /// Writes a grant, signed by this handle's author.
    pub(super) async fn grant(&self, grant: &Grant) -> Result<(), ManagerError> {
        // In logical time: whoever sees what is here takes the grant, wherever this device's clock stands.
        let wall = match self.live.clock.newest() {
            Timestamp(0) => (self.shared.wall)(),
            _ => Timestamp(0),
        };
        self.commit_at(vec![grant.to_op(&self.author())], Vec::new(), Vec::new(), wall).await.map(drop)
    }

    /// Saves something about the replica, whole, one after another: nothing of it outlives the replica.
    async fn set_up(
        &self,
        save: impl Future<Output = Result<(), ManagerError>> + Send + 'static,
    ) -> Result<(), ManagerError> {
        let permit = self.shared.begin().await?;
        let (replica, shared) = (self.id, self.shared.clone());
        let saved = async move {
            let _alone = shared.alone().await?;
            shared.store.state(replica).await?;
            save.await
        };
        self.shared.whole(permit, saved).await
    }

    /// The owner's key, when this node has it.
    async fn owner_key(&self) -> Result<Option<SecretKey>, ManagerError> {
        let name = super::replica_key_name(&self.id.0);
        let records = self.shared.store.node_records(NodeKind::Key).await?;
        Ok(records
            .into_iter()
            .find(|record| record.name == name)
            .and_then(|record| <[u8; 32]>::try_from(&record.value?[..]).ok())
            .map(SecretKey::from_bytes))
    }

    /// Signs and writes entries. Once begun it is done whole, whether somebody still waits for it or not: what is durable
    /// is to be offered to peers and told. Until then `pins` hold the content. Whoever comes while too many are under way
    /// waits before anything is begun.
    async fn commit_at(
        &self,
        ops: Vec<Op>,
        records: Vec<NodeRecord>,
        pins: Vec<Pin>,
        wall: Timestamp,
    ) -> Result<Timestamp, ManagerError> {
        let blob = |op: &Op| match op {
            Op::Put { value: Value::Blob { hash, .. }, .. } => Some(*hash),
            _ => None,
        };
        let blobs: Vec<Hash> = ops.iter().filter_map(blob).collect();
        let permit = self.shared.begin().await?;
        let bundle = sign_commit(self.id, &self.author, &self.live.clock, wall, ops)?;
        let timestamp = bundle.seal().timestamp;
        // A clock that stands far ahead of the wall, because of what was seen, never stops a write.
        let now = (self.shared.wall)().max(timestamp);
        let batch = Apply { replica: self.id, bundles: vec![bundle], origin: Origin::Local, now, records };
        let (replica, shared, writing) = (self.id, self.shared.clone(), Writing::new(self.live.clone()));
        let written = async move {
            let _until_told = (writing, pins, shared.stays().await?);
            let applied = shared.store.apply(batch).await?;
            let refused = applied.outcomes.iter().find_map(|outcome| match outcome {
                Outcome::Refused(reason) => Some(*reason),
                _ => None,
            });
            shared.observe(&applied.state);
            shared.content.written(replica, blobs);
            // What was refused has changed nothing.
            if applied.inserted() > 0 {
                let input = Input::Changed { replica, written: Some(applied.inserted()), state: applied.state };
                shared.sender.send(Message::Input(input)).await.map_err(|_| ManagerError::Closed)?;
            }
            match refused {
                Some(reason) => Err(ManagerError::NotPermitted { replica: replica.short(), reason }),
                None => Ok(timestamp),
            }
        };
        self.shared.whole(permit, written).await
    }
}

/// A write that is on its way.
struct Writing(Arc<Live>);

impl Writing {
    fn new(live: Arc<Live>) -> Self {
        live.writing.fetch_add(1, Ordering::SeqCst);
        Self(live)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.writing.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Gathers entries that become visible together.
#[derive(Debug)]
pub struct Transaction {
    replica: Replica,
    ops: Vec<Op>,
    /// Hold imported content until an entry refers to it.
    pins: Vec<Pin>,
    notes: Vec<NodeRecord>,
}

impl Transaction {
    /// Sets the value at `key`.
    pub async fn put(&mut self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<(), ManagerError> {
        let (key, value) = (Key::try_from(key.as_ref())?, value.into());
        let value = if value.len() <= MAX_INLINE_LEN {
            Value::Inline(value)
        } else {
            self.blob(self.replica.shared.store.import_bytes(value).await?)
        };
        self.push(Op::Put { key, value })
    }

    /// Sets the value at `key` to a file's bytes. The file is copied in; it may change or go afterwards.
    pub async fn put_file(&mut self, key: impl AsRef<[u8]>, path: impl Into<PathBuf>) -> Result<u64, ManagerError> {
        let progress: OnProgress = Arc::new(|_| ControlFlow::Continue(()));
        self.put_file_with(key, path, progress).await
    }

    /// The same, and `progress` is told how far it is; when it breaks off, nothing is set.
    pub async fn put_file_with(
        &mut self,
        key: impl AsRef<[u8]>,
        path: impl Into<PathBuf>,
        progress: OnProgress,
    ) -> Result<u64, ManagerError> {
        let (key, path) = (Key::try_from(key.as_ref())?, path.into());
        let (value, len) = match read_small(path.clone()).await? {
            Some(bytes) => {
                let len = bytes.len() as u64;
                if progress(Progress { done: len, total: len }).is_break() {
                    return Err(StoreError::Content(Arc::new(ContentError::Cancelled)).into());
                }
                (Value::Inline(bytes), len)
            }
            None => {
                let store = &self.replica.shared.store;
                let older = store.get(self.replica.id, key.clone()).await?.and_then(|entry| match entry.entry.op {
                    Op::Put { value: Value::Blob { hash, .. }, .. } => Some(hash),
                    _ => None,
                });
                let imported = store.import_path(path, older, progress).await?;
                let len = imported.len;
                (self.blob(imported), len)
            }
        };
        self.push(Op::Put { key, value })?;
        Ok(len)
    }

    /// Sets many values to the bytes of files; their syncs are shared. Files up to a few MiB, a
    /// few hundred at a time. Answers per file its length, or why it was left out.
    pub async fn put_files(
        &mut self,
        files: Vec<(Key, PathBuf)>,
    ) -> Result<Vec<Result<u64, ManagerError>>, ManagerError> {
        let mut results = Vec::with_capacity(files.len());
        let mut large = Vec::new();
        for (at, (key, path)) in files.into_iter().enumerate() {
            results.push(match read_small(path.clone()).await {
                Ok(Some(bytes)) => {
                    let len = bytes.len() as u64;
                    self.push(Op::Put { key, value: Value::Inline(bytes) }).map(|()| len)
                }
                Ok(None) => {
                    large.push((at, key, path));
                    Ok(0)
                }
                Err(error) => Err(error),
            });
        }
        let paths = large.iter().map(|(_, _, path)| path.clone()).collect();
        let imported = self.replica.shared.store.import_paths(paths).await?;
        for ((at, key, _), imported) in large.into_iter().zip(imported) {
            results[at] = match imported {
                Ok(imported) => {
                    let len = imported.len;
                    let value = self.blob(imported);
                    self.push(Op::Put { key, value }).map(|()| len)
                }
                Err(error) => Err(error.into()),
            };
        }
        Ok(results)
    }

    /// Sets the value at `key` to that of an entry of this replica: no byte of a large one is read or copied.
    /// [`ManagerError::ContentMissing`] when it is not here in full, or the entry is a deletion.
    pub async fn put_copy(&mut self, key: impl AsRef<[u8]>, entry: &LogEntry) -> Result<(), ManagerError> {
        let key = Key::try_from(key.as_ref())?;
        let Op::Put { value, .. } = &entry.entry.op else { return Err(ManagerError::ContentMissing) };
        if let Value::Blob { hash, .. } = value {
            let store = &self.replica.shared.store;
            let complete = matches!(store.content_status(*hash).await?, ContentStatus::Complete { .. });
            if !complete || store.held_reader(self.replica.id, *hash).await?.is_none() {
                return Err(ManagerError::ContentMissing);
            }
        }
        self.push(Op::Put { key, value: value.clone() })
    }

    fn blob(&mut self, imported: Imported) -> Value {
        self.pins.push(imported.pin);
        Value::Blob { hash: imported.hash, len: imported.len }
    }

    fn push(&mut self, op: Op) -> Result<(), ManagerError> {
        if op.is_system() {
            return Err(crate::model::EntryError::SystemKey.into());
        }
        op.check()?;
        self.ops.push(op);
        Ok(())
    }

    /// Removes the value at `key`.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<(), ManagerError> {
        let key = Key::try_from(key.as_ref())?;
        self.push(Op::Delete { key })
    }

    /// Removes every value whose key begins with `prefix`.
    pub fn delete_prefix(&mut self, prefix: impl AsRef<[u8]>) -> Result<(), ManagerError> {
        self.push(Op::DeletePrefix { prefix: Prefix::new(Bytes::copy_from_slice(prefix.as_ref()))? })
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Its entries so far, in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Keeps `value` under `name` for the application, on this node alone: durable together with the entries, or
    /// not at all, and read with [`Replica::note`]. How far something outside is, say, that the entries come from.
    pub fn note(&mut self, name: impl AsRef<[u8]>, value: impl Into<Bytes>) {
        let name = note_name(&self.replica.id, name.as_ref());
        self.notes.push(NodeRecord { kind: NodeKind::Note, name, value: Some(value.into()) });
    }

    /// Signs and writes all of it. Durable when the future completes. Answers the timestamp of the first entry;
    /// each of the others has the next one. Without entries it writes the notes alone, and answers nothing.
    pub async fn commit(self) -> Result<Option<Timestamp>, ManagerError> {
        if self.ops.is_empty() {
            if !self.notes.is_empty() {
                let (notes, shared) = (self.notes, self.replica.shared.clone());
                self.replica.set_up(async move { Ok(shared.store.save(notes).await?) }).await?;
            }
            return Ok(None);
        }
        let wall = (self.replica.shared.wall)();
        self.replica.commit_at(self.ops, self.notes, self.pins, wall).await.map(Some)
    }
}

/// The name of the record of a note.
fn note_name(replica: &ReplicaId, name: &[u8]) -> Bytes {
    [replica.as_bytes(), name].concat().into()
}

/// The bytes of a file that fits in an entry; none when it is longer.
async fn read_small(path: PathBuf) -> Result<Option<Bytes>, ManagerError> {
    let read = move || {
        let file = std::fs::File::open(&path)?;
        if file.metadata()?.len() > MAX_INLINE_LEN as u64 {
            return Ok(None);
        }
        // One byte more than fits shows a file that grows meanwhile.
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_INLINE_LEN as u64 + 1), &mut bytes)?;
        Ok((bytes.len() <= MAX_INLINE_LEN).then(|| Bytes::from(bytes)))
    };
    blocking("read a file", read).await
}

/// Runs blocking file work on a thread of its own.
async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ManagerError> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
    done.map_err(|source| ManagerError::Io { context: what.into(), source })
}

/// The changes of a replica, one after the other, without end.
#[derive(Debug)]
pub struct Watch {
    replica: Replica,
    prefix: Bytes,
    position: Position,
    ready: std::collections::VecDeque<LogEntry>,
    head: tokio::sync::watch::Receiver<Position>,
}

impl Watch {
    /// How many entries are read at once.
    const PAGE: usize = 256;

    /// The next change; waits for it. An error ends nothing: the next call tries again.
    pub async fn next(&mut self) -> Result<LogEntry, ManagerError> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(entry);
            }
            if !self.fill().await? && self.head.changed().await.is_err() {
                return Err(ManagerError::Closed);
            }
        }
    }

    /// The next change that is there already, without waiting.
    pub async fn try_next(&mut self) -> Result<Option<LogEntry>, ManagerError> {
        while self.ready.is_empty() {
            if !self.fill().await? {
                return Ok(None);
            }
        }
        Ok(self.ready.pop_front())
    }

    /// Reads a page of the log. False when there was nothing more to read.
    async fn fill(&mut self) -> Result<bool, ManagerError> {
        self.head.mark_unchanged();
        let page = self.replica.shared.store.log(self.replica.id, self.position, Self::PAGE).await?;
        let Some(last) = page.last() else { return Ok(false) };
        self.position = last.position;
        let shown = page.into_iter().filter(|entry| {
            !entry.entry.op.is_system() && {
                let key = entry.entry.op.key_bytes();
                key.starts_with(&self.prefix)
                    || (matches!(entry.entry.op, Op::DeletePrefix { .. }) && self.prefix.starts_with(key))
            }
        });
        self.ready.extend(shown);
        Ok(true)
    }

    /// Up to where changes were taken.
    pub fn position(&self) -> Position {
        self.ready.front().map_or(self.position, |entry| Position(entry.position.0.saturating_sub(1)))
    }
}
