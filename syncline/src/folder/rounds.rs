//! Rounds: for each file, look, decide, do one step, until there is nothing more to do.

use std::{
    collections::BTreeSet,
    io,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    engine::{CHUNK, Engine, EngineError},
    guard::Verdict,
    key::{Companion, FileKey, absolute},
    plan::{Base, Disk, Fact, Found, Seen, Step, Version, VersionId, View, decide},
    replica::{Write, encode_seen},
    scan::{self, Look, ReadError},
    state::{FolderState, RACY, RootId, Stat},
};

/// A file that still has steps after so many rounds is left alone for a while.
const MAX_ROUNDS: usize = 8;

/// Files up to this length are read at once, and once more when a later write might not have shown.
const MAX_READ_TWICE: u64 = 1024 * 1024;

/// How long a file that keeps changing is left alone.
pub(super) const BUSY: Duration = Duration::from_millis(250);

/// A file as it was found in a round.
pub(super) struct Inspected {
    pub(super) key: FileKey,
    pub(super) view: View,
    pub(super) disk: Disk,
    pub(super) stat: Option<Stat>,
    /// Another write may not show in `stat`.
    pub(super) racy: bool,
}

/// What inspection shows.
enum Inspection {
    Seen(Box<Inspected>),
    /// It is being written: again later.
    Busy(FileKey),
    /// It is large, and so new that it would have to be read again.
    Fresh(FileKey),
    Unknown(FileKey, String),
}

/// The steps of one round that touch the replica or the disk, by kind.
#[derive(Default)]
struct Steps {
    imports: Vec<(Inspected, Seen)>,
    keeps: Vec<(Inspected, Option<Base>, Version, VersionId)>,
    writes: Vec<(Inspected, Version)>,
    removes: Vec<Inspected>,
}

impl Engine {
    pub(super) fn process(&mut self, keys: BTreeSet<FileKey>) -> Result<(), EngineError> {
        let keys: Vec<FileKey> = keys.into_iter().collect();
        let mut worked = Ok(());
        for chunk in keys.chunks(CHUNK) {
            if self.inbox.is_stopped() {
                break;
            }
            // What cannot be done for some files stops nothing for the others.
            worked = worked.and(self.process_chunk(chunk.to_vec()));
        }
        worked
    }

    fn process_chunk(&mut self, mut open: Vec<FileKey>) -> Result<(), EngineError> {
        for _ in 0..MAX_ROUNDS {
            open = self.round(open)?;
            if open.is_empty() {
                break;
            }
        }
        for key in open {
            self.inbox.look_at(key.path(), BUSY);
        }
        Ok(self.state.flush()?)
    }

    /// One step for each file; answers those that need another.
    fn round(&mut self, mut keys: Vec<FileKey>) -> Result<Vec<FileKey>, EngineError> {
        keys.sort_unstable();
        keys.dedup();
        self.being_written.extend(self.inbox.take_open(&mut keys));
        let (ignored, keys): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| self.rules.ignores(key));
        for key in ignored {
            // Neither wanted nor gone: it is just not looked at any more.
            self.state.remove(&key);
            self.gone.remove(&key);
        }
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let views = self.runtime.block_on(self.replica.views(&keys))?;
        let (mut again, mut steps) = (Vec::new(), Steps::default());
        for inspection in self.inspect_all(keys, views) {
            let file = match inspection {
                Inspection::Seen(file) => *file,
                Inspection::Busy(key) => {
                    self.inbox.look_at(key.path(), BUSY);
                    continue;
                }
                Inspection::Fresh(key) => {
                    self.inbox.look_at(key.path(), RACY * 2);
                    continue;
                }
                Inspection::Unknown(key, error) => {
                    self.problems.raise(key.to_string(), format!("it cannot be read: {error}"), "make it readable");
                    continue;
                }
            };
            let base = self.base_of(&file);
            let step = decide(self.replica.me(), self.mode(), base.as_ref(), &file.disk, &file.view);
            tracing::trace!(key = %file.key, ?step, "decided");
            if !matches!(step, Step::Delete { .. }) {
                self.gone.remove(&file.key);
            }
            if self.clashes.remove(&file.key) {
                self.problems.clear(&file.key.to_string());
            }
            match step {
                Step::Rest => {}
                Step::Adopt(version) => {
                    self.state.set(&file.key, Base::of(&version), self.trusted(&file));
                    again.push(file.key);
                }
                Step::Import { seen } => steps.imports.push((file, seen)),
                Step::Delete { .. } => {
                    self.gone.insert(file.key);
                }
                Step::Keep { mine, fact, winner } => {
                    steps.keeps.push((file, base, Version { id: mine, fact, seen: Seen::new() }, winner));
                }
                // A save in the same tick would not show, and go with what was looked at.
                Step::Write(_) | Step::Remove if file.racy => self.inbox.look_at(file.key.path(), RACY * 2),
                Step::Write(version) => steps.writes.push((file, version)),
                Step::Remove => steps.removes.push(file),
                Step::Forget => self.state.remove(&file.key),
                Step::SetAside => match self.set_aside(&file, base.as_ref()) {
                    Ok(()) => again.push(file.key),
                    Err(error) => self.could_not_write(&file.key, &error.to_string()),
                },
                Step::Clash => {
                    let cause = match file.disk {
                        Disk::Refused => {
                            "something that is not shared is in its place here; elsewhere it stays as it is"
                        }
                        _ => "another device has a file of this name, and something else is in its place here",
                    };
                    let advice = "move what is there, or rename the file elsewhere";
                    self.problems.raise(file.key.to_string(), cause, advice);
                    self.clashes.insert(file.key);
                }
            }
        }
        let mut put = self.import(steps.imports, &mut again);
        for (file, base, mine, winner) in steps.keeps {
            put = put.and_then(|()| self.keep(file, base, mine, winner, &mut again));
        }
        let removed = !steps.removes.is_empty();
        self.remove(steps.removes, &mut again)?;
        self.write(steps.writes, &mut again)?;
        if removed {
            again.extend(std::mem::take(&mut self.clashes));
        }
        // Only now: what cannot be put does not stop what comes.
        put.map(|()| again)
    }

    /// Looks at files with two threads: hashing takes the time.
    fn inspect_all(&self, keys: Vec<FileKey>, views: Vec<View>) -> Vec<Inspection> {
        let (root, state) = (&self.options.root, &self.state);
        let pairs: Vec<(FileKey, View)> = keys.into_iter().zip(views).collect();
        let inspect_half = |half: &[(FileKey, View)]| -> Vec<Inspection> {
            half.iter().map(|(key, view)| inspect(root, state, key, view)).collect()
        };
        if pairs.len() < 8 {
            return inspect_half(&pairs);
        }
        let (left, right) = pairs.split_at(pairs.len() / 2);
        std::thread::scope(|scope| {
            let left = scope.spawn(|| inspect_half(left));
            let right = inspect_half(right);
            let mut all = left.join().expect("inspecting does not panic");
            all.extend(right);
            all
        })
    }

    /// The base of a file, after settling what a kill left open and noting what the file system says now.
    fn base_of(&mut self, file: &Inspected) -> Option<Base> {
        let found = match &file.disk {
            Disk::Found(found) => Some(found),
            _ => None,
        };
        let is = |fact: &Fact| found.is_some_and(|found| found.hash == Some(fact.hash) && found.kind == fact.kind);
        if let Some(next) = self.state.intent(&file.key).cloned() {
            if is(&next.fact) {
                self.state.set(&file.key, next, self.trusted(file));
            } else {
                match self.state.get(&file.key).map(|known| (known.base.clone(), known.stat)) {
                    Some((base, stat)) => self.state.set(&file.key, base, stat),
                    None => self.state.remove(&file.key),
                }
            }
        }
        let known = self.state.get(&file.key)?;
        let (base, stat) = (known.base.clone(), known.stat);
        if stat != file.stat && is(&base.fact) {
            let trusted = self.trusted(file);
            if stat != trusted {
                self.state.set(&file.key, base.clone(), trusted);
            }
        }
        Some(base)
    }

    /// What the file system says of a file, if another write would show in it; else the file is looked at again soon.
    pub(super) fn trusted(&self, file: &Inspected) -> Option<Stat> {
        if file.racy {
            self.inbox.look_at(file.key.path(), RACY * 2);
        }
        file.stat.filter(|_| !file.racy)
    }

    /// Deletes in the replica what is gone from disk, unless the guard wants the user to be asked.
    pub(super) fn delete_what_is_gone(&mut self) -> Result<(), EngineError> {
        self.ask_again = None;
        let root = &self.options.root;
        self.gone.retain(|key| matches!(scan::look(root, key), Look::Absent | Look::Directory | Look::Blocked));
        let subject = self.options.root.display().to_string();
        let same_root = self.state.root() == RootId::of(&self.options.root).ok();
        match self.guard.judge(Instant::now(), self.gone.len(), self.state.len(), same_root) {
            Verdict::Pass => self.problems.clear(&subject),
            Verdict::WaitUntil(at) => {
                self.ask_again = Some(at);
                return Ok(());
            }
            Verdict::Hold { gone, of } => {
                let cause = format!("{gone} of {of} files are gone at once; nothing is deleted elsewhere");
                let advice =
                    "bring the files back; if they are to be deleted everywhere, start again with --allow-mass-delete";
                self.problems.raise(subject, cause, advice);
                return Ok(());
            }
        }
        let gone: Vec<FileKey> = std::mem::take(&mut self.gone).into_iter().collect();
        for chunk in gone.chunks(CHUNK) {
            let views = self.runtime.block_on(self.replica.views(chunk))?;
            let (mut writes, mut deleted, mut other) = (Vec::new(), Vec::new(), BTreeSet::new());
            for inspection in self.inspect_all(chunk.to_vec(), views) {
                let Inspection::Seen(file) = inspection else { continue };
                let base = self.base_of(&file);
                let me = self.replica.me();
                match decide(me, self.mode(), base.as_ref(), &file.disk, &file.view) {
                    Step::Delete { seen } => {
                        if file.view.marked_executable {
                            writes.push(Write::Delete { key: file.key.companion(Companion::Executable) });
                        }
                        if !seen.is_empty() {
                            let key = file.key.companion(Companion::SeenByDeletion);
                            writes.push(Write::Put { key, bytes: encode_seen(&seen) });
                        }
                        writes.push(Write::Delete { key: file.key.as_bytes().to_vec() });
                        deleted.push(file.key);
                    }
                    _ => {
                        other.insert(file.key);
                    }
                }
            }
            if !writes.is_empty() {
                self.runtime.block_on(self.replica.commit(writes, None))?;
                for key in &deleted {
                    self.state.remove(key);
                }
            }
            self.process(other)?;
        }
        Ok(())
    }
}

/// Looks at one file, and reads its bytes if a known version could be the same.
fn inspect(root: &Path, state: &FolderState, key: &FileKey, view: &View) -> Inspection {
    let (key, view) = (key.clone(), view.clone());
    let nothing = |key, view, disk| Inspection::Seen(Box::new(Inspected { key, view, disk, stat: None, racy: false }));
    let stat = match scan::look(root, &key) {
        Look::Absent => return nothing(key, view, Disk::Absent),
        Look::Directory | Look::Blocked => return nothing(key, view, Disk::Blocked),
        Look::Refused(_) => return nothing(key, view, Disk::Refused),
        Look::Unknown(error) => return Inspection::Unknown(key, error),
        Look::File(stat) => stat,
    };
    let racy = stat.is_racy();
    let (known, intent) = (state.get(&key), state.intent(&key));
    let mut found = Found { kind: stat.kind, len: stat.len, hash: None };
    if let (Some(known), None) = (known, intent)
        && known.stat == Some(stat)
    {
        found.hash = Some(known.base.fact.hash);
        return Inspection::Seen(Box::new(Inspected { key, view, disk: Disk::Found(found), stat: Some(stat), racy }));
    }
    if racy && stat.len > MAX_READ_TWICE {
        return Inspection::Fresh(key);
    }
    let facts = view.versions.iter().map(|version| &version.fact);
    let facts = facts.chain(known.map(|known| &known.base.fact)).chain(intent.map(|intent| &intent.fact));
    if facts.into_iter().any(|fact| fact.len == stat.len) {
        match scan::hash_file(&absolute(root, &key), &stat) {
            Ok(hash) => found.hash = Some(hash),
            Err(ReadError::Unstable) => return Inspection::Busy(key),
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Inspection::Busy(key),
            Err(ReadError::Io(error)) => return Inspection::Unknown(key, error.to_string()),
        }
    }
    Inspection::Seen(Box::new(Inspected { key, view, disk: Disk::Found(found), stat: Some(stat), racy }))
}
