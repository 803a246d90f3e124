//! From the disk into the replica: imports, and this node's versions under other names.

use std::path::Path;

use bytes::Bytes;
use sync_core::model::MAX_INLINE_LEN;

use super::{
    conflict::kept_name,
    engine::{CHUNK, Engine, EngineError},
    key::{Companion, FileKey, absolute},
    plan::{Base, Fact, Kind, Seen, Version, VersionId, View},
    replica::{Import, NotedFile, ReplicaError, Write, answer, copy_of, encode_seen, merged},
    rounds::{BUSY, Inspected},
    scan::{self, Look, ReadError},
    state::Stat,
};

/// A transaction holds about so many bytes of files.
const MAX_COMMIT_BYTES: u64 = 8 * 1024 * 1024;

impl Engine {
    /// Puts what is on disk into the replica, many files in a transaction.
    pub(super) fn import(
        &mut self,
        files: Vec<(Inspected, Seen)>,
        again: &mut Vec<FileKey>,
    ) -> Result<(), EngineError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (file, seen) in files {
            bytes += file.stat.map_or(0, |stat| stat.len);
            batch.push((file, seen));
            if bytes >= MAX_COMMIT_BYTES || batch.len() >= CHUNK {
                self.import_batch(std::mem::take(&mut batch), again)?;
                bytes = 0;
            }
        }
        self.import_batch(batch, again)
    }

    fn import_batch(&mut self, mut files: Vec<(Inspected, Seen)>, again: &mut Vec<FileKey>) -> Result<(), EngineError> {
        while !files.is_empty() {
            let (mut writes, mut places, mut failed) = (Vec::new(), Vec::new(), Vec::new());
            for (at, (file, seen)) in files.iter().enumerate() {
                let Some(stat) = file.stat else { continue };
                let path = absolute(&self.options.root, &file.key);
                match self.writes_of(&file.key, &path, &stat, seen, &file.view) {
                    Ok(mut more) => {
                        writes.append(&mut more);
                        places.push((at, writes.len() - 1, stat));
                    }
                    Err(ReadError::Unstable) => failed.push((file.key.clone(), None)),
                    Err(ReadError::Io(error)) => failed.push((file.key.clone(), Some(error.to_string()))),
                }
            }
            for (key, error) in failed {
                self.could_not_read(&key, error);
            }
            if writes.is_empty() {
                return Ok(());
            }
            self.imports += 1;
            let noted = places.iter().map(|&(_, place, stat)| (place, stat)).collect();
            let import = Import { number: self.imports, files: noted };
            let written = match self.runtime.block_on(self.replica.commit(writes, Some(import))) {
                Ok(written) => written,
                Err(ReplicaError::Unstable(key)) => {
                    self.could_not_read(&key, None);
                    files.retain(|(file, _)| file.key != key);
                    continue;
                }
                Err(ReplicaError::Unreadable(key, error)) => {
                    self.could_not_read(&key, Some(error));
                    files.retain(|(file, _)| file.key != key);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            for (at, place, stat) in places {
                let key = &files[at].0.key;
                let line = &written[place];
                let Some((len, hash)) = line.value else { continue };
                let fact = Fact { kind: stat.kind, len, hash };
                let base = Base { id: line.id, fact, knowledge: Seen::from([(line.id.author, line.id.timestamp)]) };
                self.state.set(key, base, self.trusted(&files[at].0));
                self.problems.clear(&key.to_string());
                // A put after a newer version arrived may need an answer.
                if files[at].0.view.newest().is_some() {
                    again.push(key.clone());
                }
            }
            self.state.set_imports(self.imports);
            return Ok(());
        }
        Ok(())
    }

    /// Takes up the last import, if the program was killed before it was written to the state.
    pub(super) fn take_up_last_import(&mut self) -> Result<(), EngineError> {
        let last = self.runtime.block_on(self.replica.last_import())?;
        let Some(last) = last.filter(|last| last.number > self.imports) else { return Ok(()) };
        for NotedFile { path, stat, value: (len, hash) } in last.files {
            let Ok(key) = FileKey::new(&path) else { continue };
            let known = self.state.get(&key).map(|known| known.base.id.timestamp);
            let is_there = scan::look(&self.options.root, &key) == Look::File(stat);
            if is_there && known.is_none_or(|known| known < last.after) {
                let id = VersionId { timestamp: last.after, author: self.replica.me() };
                let knowledge = Seen::from([(id.author, id.timestamp)]);
                // Without the file system's word: a write in the same tick may not show in it.
                self.state.set(&key, Base { id, fact: Fact { kind: stat.kind, len, hash }, knowledge }, None);
            }
        }
        self.imports = last.number;
        self.state.set_imports(last.number);
        Ok(self.state.flush()?)
    }

    fn could_not_read(&self, key: &FileKey, error: Option<String>) {
        match error {
            Some(error) => {
                self.problems.raise(key.to_string(), format!("it cannot be read: {error}"), "make it readable");
            }
            None => self.inbox.look_at(key.path(), BUSY),
        }
    }

    /// The writes that put a file: companions first, so that nobody sees the value without them.
    fn writes_of(
        &self,
        key: &FileKey,
        path: &Path,
        stat: &Stat,
        seen: &Seen,
        view: &View,
    ) -> Result<Vec<Write>, ReadError> {
        let mut writes = Vec::new();
        let small = stat.kind == Kind::Link || stat.len <= MAX_INLINE_LEN as u64;
        let bytes = if small { Some(Bytes::from(scan::read_file(path, stat)?)) } else { None };
        match stat.kind {
            Kind::Executable => {
                writes.push(Write::Put { key: key.companion(Companion::Executable), bytes: Bytes::new() });
            }
            Kind::File | Kind::Link if view.marked_executable => {
                writes.push(Write::Delete { key: key.companion(Companion::Executable) });
            }
            Kind::File | Kind::Link => {}
        }
        if stat.kind == Kind::Link {
            let target = bytes.clone().unwrap_or_default();
            writes.push(Write::Put { key: key.companion(Companion::Link), bytes: target });
        }
        if !seen.is_empty() {
            let seen = merged(&view.noted, seen);
            if seen != view.noted {
                writes.push(Write::Put { key: key.companion(Companion::Seen), bytes: encode_seen(&seen) });
            }
        }
        writes.push(match bytes {
            Some(bytes) => Write::Put { key: key.as_bytes().to_vec(), bytes },
            None => Write::PutFile { key: key.clone(), path: path.into(), stat: *stat },
        });
        Ok(writes)
    }

    /// Puts this node's version under another name, and notes the answer in the same transaction.
    pub(super) fn keep(
        &mut self,
        file: Inspected,
        base: Option<Base>,
        mine: Version,
        winner: VersionId,
        again: &mut Vec<FileKey>,
    ) -> Result<(), EngineError> {
        let key = &file.key;
        let kept = match kept_name(key, mine.id.author, mine.id.timestamp) {
            Ok(kept) => kept,
            Err(problem) => {
                let cause = format!("two devices changed it, and no name can be made for the other version: {problem}");
                self.problems.raise(key.to_string(), cause, "rename the file to something shorter");
                return Ok(());
            }
        };
        let stat = file.stat.filter(|_| base.is_some_and(|base| base.fact == mine.fact));
        let path = absolute(&self.options.root, key);
        let from_disk =
            |engine: &Self| stat.map(|stat| engine.writes_of(&kept, &path, &stat, &Seen::new(), &View::default()));
        let mut done = Err(ReplicaError::NotHere);
        if file.view.versions.iter().any(|version| version.id == mine.id) {
            let target = self.runtime.block_on(self.replica.inline(&[(key, mine.id)]))?.pop().flatten();
            let mut writes = copy_of(key, &mine, &kept, target);
            writes.push(answer(key, &file.view, winner));
            done = self.runtime.block_on(self.replica.commit(writes, None));
        }
        // A deletion took it out of the replica, or its content was damaged there; it may be on disk still.
        if matches!(done, Err(ReplicaError::NotHere)) {
            match from_disk(self) {
                Some(Ok(mut writes)) => {
                    writes.push(answer(key, &file.view, winner));
                    done = self.runtime.block_on(self.replica.commit(writes, None));
                }
                Some(Err(ReadError::Unstable)) => done = Err(ReplicaError::Unstable(key.clone())),
                Some(Err(ReadError::Io(error))) => {
                    done = Err(ReplicaError::Unreadable(key.clone(), error.to_string()));
                }
                None => {}
            }
        }
        match done {
            Ok(_) => {}
            Err(ReplicaError::Unstable(_)) => {
                again.push(file.key);
                return Ok(());
            }
            Err(ReplicaError::Unreadable(_, error)) => {
                self.could_not_read(key, Some(error));
                return Ok(());
            }
            Err(ReplicaError::NotHere) => {
                let cause =
                    "another device changed it too, and the content of this one's version is not here to be kept";
                self.problems.raise(key.to_string(), cause, "it waits for the content to come back from a peer");
                self.waiting.entry(mine.fact.hash).or_default().insert(file.key);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        tracing::info!(%key, %kept, "a version that lost its name is kept under another one");
        again.push(file.key);
        again.push(kept);
        Ok(())
    }
}
