//! Which files to work on: what a look at the folder, a change on disk or a change in the replica is about.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    engine::{CHUNK, Engine, EngineError, FOLDER, RIGHT, WATCHING},
    ignore::IgnoreRules,
    key::{FileKey, IGNORE_FILE, Role, role_of},
    replica::About,
    scan::{self, Look},
    state::Stat,
};

/// After this long the system has told that a file is being written.
const TOLD: Duration = Duration::from_millis(100);

impl Engine {
    /// Compares the whole folder with the whole replica.
    pub(super) fn look_at_everything(&mut self) -> Result<(), EngineError> {
        self.rules = IgnoreRules::new(&self.options.root);
        let found = scan::scan(&self.options.root, Path::new(""), &mut self.rules);
        let (all, position) = self.runtime.block_on(self.replica.all())?;
        self.position = self.position.max(position);
        let root = self.options.root.display().to_string();
        let keep = [FOLDER, RIGHT, WATCHING, root.as_str()];
        let clashes: BTreeSet<String> = self.clashes.iter().map(FileKey::to_string).collect();
        self.problems.begin_look(|subject| !keep.contains(&subject) && !clashes.contains(subject));
        self.note_unshared(&found);
        self.note_what_is_left();
        let disk: BTreeMap<&FileKey, &Stat> = found.files.iter().map(|(key, stat)| (key, stat)).collect();
        let newest: BTreeMap<&FileKey, _> =
            all.iter().filter_map(|(key, view)| Some((key, view.newest()?.id))).collect();
        let mut keys: BTreeSet<FileKey> = self.state.intents().cloned().collect();
        for (key, stat) in &disk {
            let known = self.state.get(key);
            let same = known.is_some_and(|known| known.stat == Some(**stat) && newest.get(key) == Some(&known.base.id));
            if !same {
                keys.insert((*key).clone());
            }
        }
        keys.extend(self.state.keys().filter(|key| !disk.contains_key(key) && !found.is_unknown(key)).cloned());
        for (key, id) in &newest {
            if self.state.get(key).is_none_or(|known| known.base.id != *id) {
                keys.insert((*key).clone());
            }
        }
        keys.extend(std::mem::take(&mut self.clashes));
        // Of a file that was written just now it is not known yet whether it was closed.
        let is_new = |key: &FileKey| {
            let stat = disk.get(key).filter(|stat| stat.is_younger_than(TOLD))?;
            self.state.get(key).is_none_or(|known| known.stat != Some(**stat)).then_some(())
        };
        for key in keys.extract_if(.., |key| is_new(key).is_some()) {
            self.inbox.look_at(key.path(), TOLD);
        }
        drop((disk, newest));
        self.being_written.clear();
        self.waiting.clear();
        drop((all, found));
        self.process(keys)?;
        self.problems.end_look();
        Ok(())
    }

    fn note_unshared(&self, found: &scan::Scan) {
        for (path, reason) in &found.unshared {
            if FileKey::of_path(path).is_ok_and(|key| self.state.get(&key).is_some()) {
                // In the place of a file: it is told of that.
                continue;
            }
            self.problems.raise(
                path.display().to_string(),
                format!("it is not shared: {reason}"),
                advice_about(reason),
            );
        }
    }

    /// The files that a change of these paths may be about.
    pub(super) fn keys_at(&mut self, paths: &[PathBuf]) -> BTreeSet<FileKey> {
        let mut keys = BTreeSet::new();
        // New rules count at once for the files that came with them, and soon for all others.
        for path in paths.iter().filter(|path| path.file_name() == Some(IGNORE_FILE.as_ref())) {
            self.rules.load(path.parent().unwrap_or(Path::new("")));
            self.inbox.look_at_everything();
        }
        let mut scanned: Option<&Path> = None;
        for path in paths {
            let Ok(key) = FileKey::of_path(path) else {
                // It cannot be shared; the next look at everything says why.
                continue;
            };
            self.problems.clear(&key.to_string());
            keys.extend(self.being_written.take(&key));
            let in_the_way = |clash: &&FileKey| clash.path().starts_with(path) || path.starts_with(clash.path());
            keys.extend(self.clashes.iter().filter(in_the_way).cloned());
            let look = scan::look(&self.options.root, &key);
            if look != Look::Directory || self.ignores_directory(&key) {
                // It may have been a directory that was looked at.
                keys.extend(self.state.keys_beneath(&key).cloned());
            }
            match look {
                Look::Directory if self.ignores_directory(&key) => {}
                Look::Directory => {
                    // A file became this directory.
                    keys.extend(self.state.get(&key).map(|_| key.clone()));
                    // Paths are in order: a directory comes before what is in it, and was looked at with all of that.
                    if scanned.is_some_and(|above| path.starts_with(above)) {
                        continue;
                    }
                    scanned = Some(path);
                    keys.extend(self.keys_in(&key));
                }
                Look::File(stat) => {
                    // Mostly the echo of what this program wrote itself.
                    let known = self.state.get(&key);
                    if known.is_none_or(|known| known.stat != Some(stat) || known.intent.is_some()) {
                        keys.insert(key);
                    }
                }
                Look::Refused(reason) if self.state.get(&key).is_none() => {
                    if !self.rules.ignores(&key) {
                        let cause = format!("it is not shared: {reason}");
                        self.problems.raise(key.to_string(), cause, advice_about(&reason));
                    }
                }
                _ => {
                    keys.insert(key);
                }
            }
        }
        keys
    }

    /// The files of a directory that are not as they were at the last look. A new one that was written just now is looked
    /// at a little later.
    fn keys_in(&mut self, directory: &FileKey) -> BTreeSet<FileKey> {
        let found = scan::scan(&self.options.root, directory.path(), &mut self.rules);
        self.note_unshared(&found);
        let beneath = self.state.keys_beneath(directory).filter(|key| !found.is_unknown(key));
        let mut keys: BTreeSet<FileKey> = beneath.cloned().collect();
        for (key, stat) in found.files {
            let known = self.state.get(&key);
            if known.is_some_and(|known| known.stat == Some(stat) && known.intent.is_none()) {
                keys.remove(&key);
            } else if stat.is_younger_than(TOLD) {
                self.inbox.look_at(key.path(), TOLD);
            } else {
                keys.insert(key);
            }
        }
        keys
    }

    fn ignores_directory(&self, key: &FileKey) -> bool {
        key.directories().chain([key.path()]).any(|directory| self.rules.ignores_here(directory, true))
    }

    /// Works on what has changed in the replica since the last time.
    pub(super) fn follow_replica(&mut self) -> Result<(), EngineError> {
        loop {
            let changes = self.runtime.block_on(self.replica.changes(self.position, 4 * CHUNK))?;
            let Some(last) = changes.last().map(|change| change.position) else { return Ok(()) };
            let mut keys = BTreeSet::new();
            for change in changes {
                match change.about {
                    About::Key(key) => match role_of(&key) {
                        Role::File(key) => {
                            if self.state.get(&key).is_none_or(|known| known.base.id != change.id) {
                                keys.insert(key);
                            }
                        }
                        Role::Companion(key, _) if change.id.author != self.replica.me() => {
                            keys.insert(key);
                        }
                        Role::Companion(..) | Role::Other(_) => {}
                    },
                    About::Prefix(prefix) => {
                        keys.extend(self.state.keys().filter(|key| key.as_bytes().starts_with(&prefix)).cloned());
                    }
                }
            }
            self.process(keys)?;
            // Only now: after an error these changes are looked at again.
            self.position = last;
            if self.inbox.is_stopped() {
                return Ok(());
            }
        }
    }
}

fn advice_about(reason: &scan::Unshared) -> &'static str {
    match reason {
        scan::Unshared::Special => {
            "only files, directories and links are shared; list it in .synclineignore to silence this"
        }
        scan::Unshared::LinkOutside => "make the link relative and let it point inside, or list it in .synclineignore",
        scan::Unshared::Key(_) => "rename it, or list it in .synclineignore",
        scan::Unshared::Unreadable(_) => "make it readable, or list it in .synclineignore",
        scan::Unshared::IgnoreFile(_) => "correct the line",
    }
}
