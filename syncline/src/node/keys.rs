//! Keys and values: put, get, rm, ls, watch.

use std::path::Path;

use bytes::Bytes;
use serde_json::{Value as Json, json};
use sync_core::{
    manager::{ManagerError, Replica, Transaction, Watch},
    model::{Key, Op},
    store::{LogEntry, Origin, Query},
};

use super::Node;
use crate::{
    data_dir::Binding,
    error::{CliError, Result},
    folder::{
        key::{Companion, FileKey, Role, role_of},
        managed::ManagedReplica,
        plan::{Seen, Version, View},
        replica::{ReplicaError, encode_seen, merged},
    },
    request::PutValue,
    text::{MostlyText, shown},
};

/// Keys are read in pages of so many.
const PAGE: usize = 1000;

/// A transaction of a prefix deletion notes what was seen of so many files.
const MAX_NOTES: usize = 10_000;

fn checked_key(key: &[u8]) -> Result<Key> {
    let checked = Key::try_from(key).map_err(|error| CliError::usage(format!("{error}: choose another key")))?;
    if checked.is_system() {
        return Err(CliError::usage("keys that begin with byte 0 belong to the system: choose another key"));
    }
    Ok(checked)
}

/// Whether people see the key: not what the system and the folder keep for themselves.
fn is_shown(key: &[u8]) -> bool {
    key.first() != Some(&0) && !matches!(role_of(key), Role::Companion(..))
}

/// What a change of `version` by this node must write down: nothing for its own.
fn knowledge_of(version: &Version, replica: &Replica) -> Seen {
    if version.id.author == replica.author() {
        return Seen::new();
    }
    let mut seen = version.knowledge();
    seen.remove(&replica.author());
    seen
}

impl Node {
    /// What the folder would see at a key.
    fn managed(&self, replica: &Replica) -> ManagedReplica {
        ManagedReplica::new(replica.clone(), self.store.clone())
    }

    /// Whether a folder of this node writes to the replica.
    fn is_in_a_folder(&self, replica: &Replica) -> bool {
        let writes = |binding: &Binding| binding.replica == replica.id().to_string() && !binding.read_only;
        self.settings().folders.iter().any(writes)
    }

    /// What the folder would see at a key that is about to be changed. What the folder would keep first, because
    /// another device changed the file too, is kept in the same transaction.
    async fn view_for_a_change(
        &self,
        replica: &Replica,
        file: &FileKey,
        transaction: &mut Transaction,
    ) -> Result<View> {
        let failed = |error: ReplicaError| CliError::failed(error.to_string());
        let managed = self.managed(replica);
        let view = managed.view(file).await.map_err(failed)?;
        if self.is_in_a_folder(replica) {
            managed.keep_in(transaction, file, &view).await.map_err(failed)?;
        }
        Ok(view)
    }

    pub(super) async fn put(&self, replica: Option<&str>, key: &[u8], value: PutValue) -> Result<Json> {
        checked_key(key)?;
        let replica = self.replica(replica).await?;
        let mut transaction = replica.write();
        // Whoever puts over another's version has seen it: no copy of it is to be kept.
        if let Ok(file) = FileKey::new(key) {
            let view = self.view_for_a_change(&replica, &file, &mut transaction).await?;
            let seen = view.newest().map(|newest| knowledge_of(newest, &replica)).unwrap_or_default();
            if !seen.is_empty() {
                let seen = merged(&view.noted, &seen);
                transaction.put(file.companion(Companion::Seen), encode_seen(&seen)).await?;
            }
            if view.marked_executable {
                transaction.delete(file.companion(Companion::Executable))?;
            }
        }
        match value {
            PutValue::Bytes(bytes) => transaction.put(key, Bytes::from(bytes.0)).await?,
            PutValue::File(path) => drop(transaction.put_file(key, path).await?),
        }
        transaction.commit().await?;
        match replica.get(key).await? {
            Some(entry) => Ok(entry_document(&entry)),
            None => Ok(json!({ "key": MostlyText(key.to_vec()) })),
        }
    }

    pub(super) async fn get(&self, replica: Option<&str>, key: &[u8], out: &Path) -> Result<Json> {
        checked_key(key)?;
        let replica = self.replica(replica).await?;
        let Some(entry) = replica.get(key).await? else { return Err(no_such_key(key)) };
        replica.export(key, out).await.map_err(|error| match error {
            ManagerError::ContentMissing => CliError::failed(format!("`{}`: {error}", shown(key))),
            error => error.into(),
        })?;
        Ok(entry_document(&entry))
    }

    pub(super) async fn remove(&self, replica: Option<&str>, key: &[u8]) -> Result<Json> {
        checked_key(key)?;
        let replica = self.replica(replica).await?;
        if replica.get(key).await?.is_none() {
            return Err(no_such_key(key));
        }
        let mut transaction = replica.write();
        if let Ok(file) = FileKey::new(key) {
            let view = self.view_for_a_change(&replica, &file, &mut transaction).await?;
            let seen = view.newest().map(|newest| knowledge_of(newest, &replica)).unwrap_or_default();
            if !seen.is_empty() {
                transaction.put(file.companion(Companion::SeenByDeletion), encode_seen(&seen)).await?;
            }
            if view.marked_executable {
                transaction.delete(file.companion(Companion::Executable))?;
            }
        }
        transaction.delete(key)?;
        transaction.commit().await?;
        Ok(json!({ "deleted": 1 }))
    }

    pub(super) async fn remove_prefix(&self, replica: Option<&str>, prefix: &[u8]) -> Result<Json> {
        if prefix.first() == Some(&0) {
            return Err(CliError::usage("keys that begin with byte 0 belong to the system: choose another prefix"));
        }
        let replica = self.replica(replica).await?;
        let managed = self.managed(&replica);
        let (mut deleted, mut notes, mut lost, mut after) = (0u64, Vec::new(), Vec::new(), None);
        loop {
            let page = page_of(&replica, prefix, after.as_deref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.entry.op.key_bytes().to_vec());
            for entry in page.iter().filter(|entry| is_shown(entry.entry.op.key_bytes())) {
                deleted += 1;
                let Ok(file) = FileKey::new(entry.entry.op.key_bytes()) else { continue };
                if entry.entry.author == replica.author() {
                    continue;
                }
                let view = managed.view(&file).await.map_err(|error| CliError::failed(error.to_string()))?;
                let seen = view.newest().map(|newest| knowledge_of(newest, &replica)).unwrap_or_default();
                if !seen.is_empty() {
                    notes.push((file.companion(Companion::SeenByDeletion), encode_seen(&seen)));
                }
                if view.by(replica.author()).is_some() {
                    lost.push((file, view));
                }
            }
        }
        if deleted == 0 {
            return Err(CliError::failed(format!("no key begins with `{}`: see `syncline ls`", shown(prefix))));
        }
        // The notes come after the deletion, which would take them too; most fit one transaction.
        let mut transaction = replica.write();
        transaction.delete_prefix(prefix)?;
        if self.is_in_a_folder(&replica) {
            for (file, view) in lost {
                let kept = managed.keep_in(&mut transaction, &file, &view).await;
                kept.map_err(|error| CliError::failed(error.to_string()))?;
            }
        }
        for (key, seen) in notes {
            transaction.put(key, seen).await?;
            if transaction.len() >= MAX_NOTES {
                std::mem::replace(&mut transaction, replica.write()).commit().await?;
            }
        }
        transaction.commit().await?;
        Ok(json!({ "deleted": deleted }))
    }

    pub(super) async fn list(
        &self,
        replica: Option<&str>,
        prefix: &[u8],
        mut after: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<Json> {
        let replica = self.replica(replica).await?;
        let mut entries = Vec::new();
        while entries.len() < limit {
            let page = page_of(&replica, prefix, after.as_deref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.entry.op.key_bytes().to_vec());
            let shown = page.iter().filter(|entry| is_shown(entry.entry.op.key_bytes()));
            entries.extend(shown.map(entry_document).take(limit - entries.len()));
        }
        Ok(json!({ "entries": entries }))
    }

    /// The changes from now on.
    pub async fn watch(&self, replica: Option<&str>, prefix: &[u8]) -> Result<Changes> {
        let replica = self.replica(replica).await?;
        let from = replica.head();
        Ok(Changes { watch: replica.watch(prefix, from) })
    }
}

async fn page_of(replica: &Replica, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<LogEntry>> {
    let query = Query {
        prefix: Bytes::copy_from_slice(prefix),
        start_after: after.map(Bytes::copy_from_slice),
        limit,
        ..Query::default()
    };
    Ok(replica.query(query).await?)
}

fn no_such_key(key: &[u8]) -> CliError {
    CliError::failed(format!("there is no key `{}`: see `syncline ls`", shown(key)))
}

/// Changes that people see, one after the other.
#[derive(Debug)]
pub struct Changes {
    watch: Watch,
}

impl Changes {
    /// The next one; waits for it.
    pub async fn next(&mut self) -> Result<LogEntry> {
        loop {
            let entry = self.watch.next().await?;
            if is_shown(entry.entry.op.key_bytes()) || matches!(entry.entry.op, Op::DeletePrefix { .. }) {
                return Ok(entry);
            }
        }
    }
}

/// An entry as `ls --json` lists it.
fn entry_document(entry: &LogEntry) -> Json {
    let Op::Put { key, value } = &entry.entry.op else { return change_document(entry) };
    json!({
        "key": MostlyText(key.to_vec()),
        "len": value.len(),
        "hash": value.hash().to_string(),
        "author": entry.entry.author.to_string(),
        "timestamp": entry.entry.timestamp.0,
    })
}

/// A change as `watch --json` prints it.
pub fn change_document(entry: &LogEntry) -> Json {
    let mut document = json!({
        "author": entry.entry.author.to_string(),
        "timestamp": entry.entry.timestamp.0,
        "position": entry.position.0,
        "from": match entry.origin {
            Origin::Local => None,
            Origin::Peer(peer) => Some(peer.to_string()),
        },
    });
    let key = json!(MostlyText(entry.entry.op.key_bytes().to_vec()));
    match &entry.entry.op {
        Op::Put { value, .. } => {
            document["op"] = json!("put");
            document["key"] = key;
            document["len"] = json!(value.len());
            document["hash"] = json!(value.hash().to_string());
        }
        Op::Delete { .. } => {
            document["op"] = json!("delete");
            document["key"] = key;
        }
        Op::DeletePrefix { .. } => {
            document["op"] = json!("delete_prefix");
            document["prefix"] = key;
        }
    }
    document
}
