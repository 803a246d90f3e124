//! The folder at work: one thread that looks, decides ([`super::plan`]) and acts.
//!
//! The thread sleeps on its [`Inbox`]. What it wakes for is a set of files; each goes through
//! *rounds*: read what the replica holds, look at the disk, decide, do the step; until there is
//! nothing more to do. Every step is durable before the next one relies on it, so a kill between
//! any two of them loses nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use sync_core::{
    model::{Hash, MAX_INLINE_LEN, Timestamp},
    store::Position,
};
use tokio::runtime::Handle;

use super::{
    apply::{Outcome, Workshop, set_executable},
    conflict::kept_name,
    guard::{Guard, Permission, Verdict},
    ignore::IgnoreRules,
    key::{Companion, FileKey, IGNORE_FILE, Role, absolute, role_of},
    plan::{Base, Disk, Fact, Found, Kind, Mode, Seen, Step, Version, View, decide},
    problem::Problems,
    replica::{About, FolderReplica, ReplicaError, Write, encode_seen, merged},
    scan::{self, Look, ReadError},
    state::{FolderState, RootId, Stat},
    watch::{Due, FolderWatcher, Inbox},
};

/// Files are worked on so many at a time.
const CHUNK: usize = 1024;

/// A file that still has steps after so many rounds is left alone for a while.
const MAX_ROUNDS: usize = 8;

/// How long a file that keeps changing is left alone.
const BUSY: Duration = Duration::from_millis(250);

/// A transaction holds about so many bytes of files.
const MAX_COMMIT_BYTES: u64 = 32 * 1024 * 1024;

/// A file that was written this short a time before it was read is read once more: file systems
/// count time in ticks, and a second write in the same tick does not show.
const RACY: Duration = Duration::from_millis(20);

/// Everything is looked at this often, for what the system did not tell.
pub const RESCAN: Duration = Duration::from_secs(60);

/// While the folder is gone, it is looked for this often.
const LOOK_FOR_ROOT: Duration = Duration::from_secs(1);

/// The subject of problems of the whole folder.
const FOLDER: &str = "the folder";

/// What a folder needs to know.
#[derive(Debug, Clone)]
pub struct FolderOptions {
    /// The folder, absolute.
    pub root: PathBuf,
    /// Where its state is kept.
    pub state: PathBuf,
    /// What the state belongs to: the store's id.
    pub lifetime: [u8; 16],
    /// Whether the user's changes are written to the replica.
    pub mode: Mode,
    /// Whether a mass deletion is meant.
    pub permission: Permission,
}

/// A running folder. Stops when it is dropped.
#[derive(Debug)]
pub struct Folder {
    inbox: Inbox,
    problems: Problems,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Folder {
    /// Starts to keep the folder and the replica equal.
    pub fn start(options: FolderOptions, replica: Arc<dyn FolderReplica>, inbox: Inbox) -> io::Result<Self> {
        let engine = Engine::open(options, replica, inbox.clone())?;
        let problems = engine.problems.clone();
        let thread = std::thread::Builder::new().name("folder".into()).spawn(move || engine.run())?;
        Ok(Self { inbox, problems, thread: Some(thread) })
    }

    /// What stands in its way.
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// Ends the work and waits for it: at most one chunk of files.
    pub fn stop(&mut self) {
        self.inbox.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.inbox.stop();
    }
}

/// Why the work on a folder stopped for now.
#[derive(Debug, thiserror::Error)]
enum EngineError {
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A file as it was found in a round.
struct Inspected {
    key: FileKey,
    view: View,
    disk: Disk,
    stat: Option<Stat>,
}

/// What inspection shows.
enum Inspection {
    Seen(Box<Inspected>),
    /// It is being written: again later.
    Busy(FileKey),
    Unknown(FileKey, String),
}

struct Engine {
    options: FolderOptions,
    replica: Arc<dyn FolderReplica>,
    runtime: Handle,
    inbox: Inbox,
    state: FolderState,
    rules: IgnoreRules,
    guard: Guard,
    workshop: Workshop,
    problems: Problems,
    watcher: Option<FolderWatcher>,
    /// The position in the replica's change log up to which everything was looked at.
    position: Position,
    /// Files that are gone from disk and not yet deleted in the replica.
    gone: BTreeSet<FileKey>,
    /// When the guard wants to be asked again.
    ask_again: Option<Instant>,
    /// Files whose content is not here yet.
    waiting: HashMap<Hash, BTreeSet<FileKey>>,
    /// Files that something is in the way of.
    clashes: BTreeSet<FileKey>,
    /// The folder is gone or another one is in its place.
    paused: bool,
}

impl Engine {
    fn open(options: FolderOptions, replica: Arc<dyn FolderReplica>, inbox: Inbox) -> io::Result<Self> {
        let state = FolderState::open(&options.state, options.lifetime)?;
        Ok(Self {
            replica,
            runtime: Handle::current(),
            inbox,
            state,
            rules: IgnoreRules::new(&options.root),
            guard: Guard::new(options.permission),
            workshop: Workshop::open(&options.root)?,
            problems: Problems::default(),
            watcher: None,
            position: Position(0),
            gone: BTreeSet::new(),
            ask_again: None,
            waiting: HashMap::new(),
            clashes: BTreeSet::new(),
            paused: false,
            options,
        })
    }

    fn run(mut self) {
        self.inbox.look_at_everything();
        let mut rescan = Instant::now() + RESCAN;
        while !self.inbox.is_stopped() {
            let deadline = self.ask_again.map_or(rescan, |ask| ask.min(rescan));
            let mut due = self.inbox.wait(deadline);
            if due.stop {
                break;
            }
            let now = Instant::now();
            due.everything |= now >= rescan;
            if let Some(problem) = &due.problem {
                self.watching_failed(problem);
            }
            match self.work(&due) {
                Ok(()) => self.problems.clear(FOLDER),
                Err(error) => {
                    self.problems.raise(FOLDER, error.to_string(), "it is tried again every few seconds");
                    due.everything = true;
                    rescan = now + Duration::from_secs(3);
                    continue;
                }
            }
            if self.paused {
                rescan = now + LOOK_FOR_ROOT;
            } else if due.everything {
                rescan = now + RESCAN;
            }
        }
        // What could not be written now is found again by the next start's scan.
        let _ = self.state.sync();
        self.workshop.tidy();
    }

    fn work(&mut self, due: &Due) -> Result<(), EngineError> {
        if !self.root_is_there()? {
            return Ok(());
        }
        if due.everything {
            self.look_at_everything()?;
        }
        if !due.paths.is_empty() {
            let keys = self.keys_at(&due.paths);
            self.process(keys)?;
        }
        if due.replica {
            self.follow_replica()?;
        }
        if !due.contents.is_empty() {
            let arrived = due.contents.iter().filter_map(|hash| self.waiting.remove(hash)).flatten().collect();
            self.process(arrived)?;
        }
        self.delete_what_is_gone()?;
        self.state.flush()?;
        self.workshop.tidy();
        Ok(())
    }

    // ---- the folder itself

    /// Whether the folder is there, and is the one that it was. While it is not, nothing is done.
    fn root_is_there(&mut self) -> Result<bool, EngineError> {
        let subject = self.options.root.display().to_string();
        let id = match RootId::of(&self.options.root) {
            Ok(id) => id,
            Err(error) => {
                self.pause(
                    &subject,
                    &format!("the folder is gone ({error})"),
                    "mount it or bring it back; nothing is deleted elsewhere meanwhile",
                );
                return Ok(false);
            }
        };
        if self.state.root() != Some(id) {
            if self.state.root().is_some() && !self.state.is_empty() && self.options.permission == Permission::Ask {
                let root = &self.options.root;
                let gone = self.state.keys().filter(|key| scan::look(root, key) == Look::Absent).count();
                if gone * 2 > self.state.len() {
                    let cause =
                        format!("another directory is in its place, and {gone} of {} files are gone", self.state.len());
                    self.pause(&subject, &cause, "mount the folder; if the files are to be deleted everywhere, start again with --allow-mass-delete");
                    return Ok(false);
                }
            }
            self.state.set_root(id);
            self.watcher = None;
        }
        if self.paused {
            self.paused = false;
            self.problems.clear(&subject);
            self.inbox.look_at_everything();
            self.watcher = None;
        }
        if self.watcher.is_none() {
            // Before the first look, so that nothing falls between the two.
            match FolderWatcher::start(&self.options.root, &self.inbox) {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => self.watching_failed(&error.to_string()),
            }
        }
        Ok(true)
    }

    fn pause(&mut self, subject: &str, cause: &str, advice: &str) {
        self.paused = true;
        self.problems.raise(subject, cause, advice);
    }

    fn watching_failed(&self, problem: &str) {
        let cause = format!("changes are not seen at once: {problem}");
        let advice = "raise fs.inotify.max_user_watches; until then the folder is looked at every minute";
        self.problems.raise("watching the folder", cause, advice);
    }

    // ---- which files

    /// Compares the whole folder with the whole replica.
    fn look_at_everything(&mut self) -> Result<(), EngineError> {
        self.rules = IgnoreRules::new(&self.options.root);
        let found = scan::scan(&self.options.root, Path::new(""), &mut self.rules);
        let (all, position) = self.runtime.block_on(self.replica.all())?;
        self.position = self.position.max(position);
        let keep = [FOLDER, "watching the folder"];
        let clashes: BTreeSet<String> = self.clashes.iter().map(FileKey::to_string).collect();
        self.problems.clear_where(|subject| !keep.contains(&subject) && !clashes.contains(subject));
        self.note_unshared(&found);
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
        drop((disk, newest));
        keys.extend(std::mem::take(&mut self.clashes));
        self.waiting.clear();
        drop((all, found));
        self.process(keys)
    }

    fn note_unshared(&self, found: &scan::Scan) {
        for (path, reason) in &found.unshared {
            self.problems.raise(
                path.display().to_string(),
                format!("it is not shared: {reason}"),
                advice_about(reason),
            );
        }
    }

    /// The files that a change of these paths may be about.
    fn keys_at(&mut self, paths: &[PathBuf]) -> BTreeSet<FileKey> {
        let mut keys = BTreeSet::new();
        // New rules count at once for the files that came with them, and soon for all others.
        for path in paths.iter().filter(|path| path.file_name() == Some(IGNORE_FILE.as_ref())) {
            self.rules.load(path.parent().unwrap_or(Path::new("")));
            self.inbox.look_at_everything();
        }
        for path in paths {
            let Ok(key) = FileKey::of_path(path) else {
                // It cannot be shared; the next look at everything says why.
                continue;
            };
            self.problems.clear(&key.to_string());
            keys.extend(self.state.keys_beneath(&key).cloned());
            let in_the_way = |clash: &&FileKey| clash.path().starts_with(path) || path.starts_with(clash.path());
            keys.extend(self.clashes.iter().filter(in_the_way).cloned());
            match scan::look(&self.options.root, &key) {
                Look::Directory => {
                    if self.ignores_directory(&key) {
                        continue;
                    }
                    let found = scan::scan(&self.options.root, path, &mut self.rules);
                    self.note_unshared(&found);
                    keys.retain(|key| !found.is_unknown(key));
                    keys.extend(found.files.into_iter().map(|(key, _)| key));
                    // A file became this directory.
                    if self.state.get(&key).is_some() {
                        keys.insert(key);
                    }
                }
                Look::File(stat) => {
                    // Mostly the echo of what this program wrote itself.
                    let known = self.state.get(&key);
                    if known.is_none_or(|known| known.stat != Some(stat) || known.intent.is_some()) {
                        keys.insert(key);
                    }
                }
                Look::Blocked(reason) if self.state.get(&key).is_none() => {
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

    fn ignores_directory(&self, key: &FileKey) -> bool {
        key.directories().chain([key.path()]).any(|directory| self.rules.ignores_here(directory, true))
    }

    /// Works on what has changed in the replica since the last time.
    fn follow_replica(&mut self) -> Result<(), EngineError> {
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

    // ---- rounds

    fn process(&mut self, keys: BTreeSet<FileKey>) -> Result<(), EngineError> {
        let keys: Vec<FileKey> = keys.into_iter().collect();
        for chunk in keys.chunks(CHUNK) {
            if self.inbox.is_stopped() {
                return Ok(());
            }
            let mut open = chunk.to_vec();
            for _ in 0..MAX_ROUNDS {
                open = self.round(open)?;
                if open.is_empty() {
                    break;
                }
            }
            for key in open {
                self.inbox.look_at(key.path(), BUSY);
            }
            self.state.flush()?;
        }
        Ok(())
    }

    /// One step for each file; answers those that need another.
    fn round(&mut self, mut keys: Vec<FileKey>) -> Result<Vec<FileKey>, EngineError> {
        keys.sort_unstable();
        keys.dedup();
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
                Inspection::Unknown(key, error) => {
                    self.problems.raise(key.to_string(), format!("it cannot be read: {error}"), "make it readable");
                    continue;
                }
            };
            let base = self.base_of(&file);
            let step = decide(self.replica.me(), self.options.mode, base.as_ref(), &file.disk, &file.view);
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
                    self.state.set(&file.key, Base::of(&version), file.stat);
                    again.push(file.key);
                }
                Step::Import { seen } => steps.imports.push((file, seen)),
                Step::Delete { .. } => {
                    self.gone.insert(file.key);
                }
                Step::Keep { mine, fact, winner } => {
                    let winner = Seen::from([(winner.author, winner.timestamp)]);
                    steps.keeps.push((file, base, Version { id: mine, fact, seen: winner }));
                }
                Step::Write(version) => steps.writes.push((file, version)),
                Step::Remove => steps.removes.push(file),
                Step::Forget => self.state.remove(&file.key),
                Step::SetAside => {
                    self.set_aside(&file)?;
                    again.push(file.key);
                }
                Step::Clash => {
                    let cause = "another device has a file of this name, and something else is in its place here";
                    self.problems.raise(
                        file.key.to_string(),
                        cause,
                        "move what is there, or rename the file elsewhere",
                    );
                    self.clashes.insert(file.key);
                }
            }
        }
        self.import(steps.imports, &mut again)?;
        for (file, base, mine) in steps.keeps {
            self.keep(file, base, mine, &mut again)?;
        }
        let removed = !steps.removes.is_empty();
        self.remove(steps.removes, &mut again)?;
        self.write(steps.writes, &mut again)?;
        if removed {
            again.extend(std::mem::take(&mut self.clashes));
        }
        Ok(again)
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
                self.state.set(&file.key, next, file.stat);
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
            self.state.set(&file.key, base.clone(), file.stat);
        }
        Some(base)
    }

    // ---- steps

    /// Puts what is on disk into the replica, many files in a transaction.
    fn import(&mut self, files: Vec<(Inspected, Seen)>, again: &mut Vec<FileKey>) -> Result<(), EngineError> {
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
            let written = match self.runtime.block_on(self.replica.commit(writes)) {
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
                let racy = is_racy(&stat);
                self.state.set(key, base, (!racy).then_some(stat));
                if racy {
                    self.inbox.look_at(key.path(), RACY * 2);
                }
                self.problems.clear(&key.to_string());
                // A put after a newer version arrived may need an answer.
                if files[at].0.view.newest().is_some() {
                    again.push(key.clone());
                }
            }
            return Ok(());
        }
        Ok(())
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
            let seen = merged(&view.answered, seen);
            if seen != view.answered {
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
    fn keep(
        &mut self,
        file: Inspected,
        base: Option<Base>,
        mine: Version,
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
        let on_disk = base.is_some_and(|base| base.fact == mine.fact);
        let mut writes = Vec::new();
        if mine.fact.kind == Kind::Executable {
            writes.push(Write::Put { key: kept.companion(Companion::Executable), bytes: Bytes::new() });
        }
        let mut temporary = None;
        let inline = self.runtime.block_on(self.replica.inline(key, mine.id))?;
        let stat_on_disk = file.stat.filter(|_| on_disk);
        match (inline, stat_on_disk) {
            (Some(bytes), _) => {
                if mine.fact.kind == Kind::Link {
                    writes.push(Write::Put { key: kept.companion(Companion::Link), bytes: bytes.clone() });
                }
                writes.push(Write::Put { key: kept.as_bytes().to_vec(), bytes });
            }
            (None, Some(stat)) => {
                writes.extend(
                    match self.writes_of(
                        &kept,
                        &absolute(&self.options.root, key),
                        &stat,
                        &Seen::new(),
                        &View::default(),
                    ) {
                        Ok(writes) => writes,
                        Err(_) => {
                            again.push(key.clone());
                            return Ok(());
                        }
                    },
                );
            }
            (None, None) => {
                let place = self.workshop.place();
                match self.runtime.block_on(self.replica.export(key, &mine, &place)) {
                    Ok(()) => {}
                    Err(ReplicaError::NotHere) => {
                        self.waiting.entry(mine.fact.hash).or_default().insert(key.clone());
                        return Ok(());
                    }
                    Err(error) => return Err(error.into()),
                }
                let stat = Stat::of(&std::fs::symlink_metadata(&place)?)
                    .ok_or_else(|| io::Error::other("an exported value is no file"))?;
                writes.push(Write::PutFile { key: kept.clone(), path: place.clone(), stat });
                temporary = Some(place);
            }
        }
        let seen = merged(&file.view.answered, &mine.seen);
        writes.push(Write::Put { key: key.companion(Companion::Seen), bytes: encode_seen(&seen) });
        let done = self.runtime.block_on(self.replica.commit(writes));
        if let Some(temporary) = temporary {
            let _ = std::fs::remove_file(temporary);
        }
        match done {
            Ok(_) | Err(ReplicaError::Unstable(_)) => {}
            Err(error) => return Err(error.into()),
        }
        tracing::info!(%key, %kept, "two devices changed a file: this one's version is kept under another name");
        again.push(file.key);
        again.push(kept);
        Ok(())
    }

    /// Writes versions to disk: first all bytes, one sync, the intents, then the moves.
    fn write(&mut self, files: Vec<(Inspected, Version)>, again: &mut Vec<FileKey>) -> Result<(), EngineError> {
        if files.is_empty() {
            return Ok(());
        }
        let mut ready = Vec::new();
        for (file, version, made) in self.make_all(files) {
            match made {
                Ok(temporary) => ready.push((file, version, temporary)),
                Err(EngineError::Replica(ReplicaError::NotHere)) => {
                    self.waiting.entry(version.fact.hash).or_default().insert(file.key);
                }
                Err(error) => self.could_not_write(&file.key, &error.to_string()),
            }
        }
        if ready.is_empty() {
            return Ok(());
        }
        self.workshop.sync()?;
        for (file, version, _) in &ready {
            self.state.set_intent(&file.key, Base::of(version));
        }
        self.state.sync()?;
        for (file, version, temporary) in ready {
            match self.workshop.place_file(&temporary, &file.key, file.stat.as_ref()) {
                Ok(Outcome::Done(stat)) => {
                    self.state.set(&file.key, Base::of(&version), stat);
                    self.problems.clear(&file.key.to_string());
                    if file.key.path().file_name() == Some(IGNORE_FILE.as_ref()) {
                        self.inbox.look_at_everything();
                    }
                }
                Ok(Outcome::Changed) => again.push(file.key),
                Err(error) => {
                    let _ = std::fs::remove_file(&temporary);
                    self.could_not_write(&file.key, &error.to_string());
                }
            }
        }
        Ok(())
    }

    /// Writes the bytes of versions to temporary files, with two threads.
    fn make_all(
        &self,
        mut files: Vec<(Inspected, Version)>,
    ) -> Vec<(Inspected, Version, Result<PathBuf, EngineError>)> {
        let (replica, workshop, runtime) = (&*self.replica, &self.workshop, &self.runtime);
        let make_half = |half: Vec<(Inspected, Version)>| {
            let made = half.into_iter().map(|(file, version)| {
                let made = runtime.block_on(make(replica, workshop, &file.key, &version));
                (file, version, made)
            });
            made.collect::<Vec<_>>()
        };
        if files.len() < 4 {
            return make_half(files);
        }
        let right = files.split_off(files.len() / 2);
        std::thread::scope(|scope| {
            let left = scope.spawn(|| make_half(files));
            let right = make_half(right);
            let mut all = left.join().expect("writing does not panic");
            all.extend(right);
            all
        })
    }

    fn could_not_write(&self, key: &FileKey, error: &str) {
        let advice = "see to space and permissions; it is tried again every minute";
        self.problems.raise(key.to_string(), format!("it cannot be written: {error}"), advice);
    }

    /// Removes from disk what was deleted elsewhere.
    fn remove(&mut self, files: Vec<Inspected>, again: &mut Vec<FileKey>) -> Result<(), EngineError> {
        for file in files {
            let Some(stat) = file.stat else { continue };
            match self.workshop.remove_file(&file.key, &stat) {
                Ok(Outcome::Done(_)) => self.state.remove(&file.key),
                Ok(Outcome::Changed) => again.push(file.key),
                Err(error) => self.could_not_write(&file.key, &error.to_string()),
            }
        }
        Ok(())
    }

    /// Moves aside what cannot be put: it stays on this device, under the name of a kept version.
    fn set_aside(&mut self, file: &Inspected) -> Result<(), EngineError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = Timestamp(u64::try_from(now.as_micros()).unwrap_or(u64::MAX));
        let kept =
            kept_name(&file.key, self.replica.me(), now).map_err(|problem| io::Error::other(problem.to_string()))?;
        let root = &self.options.root;
        std::fs::rename(absolute(root, &file.key), absolute(root, &kept))?;
        self.state.remove(&file.key);
        Ok(())
    }

    /// Deletes in the replica what is gone from disk, unless the guard wants the user to be asked.
    fn delete_what_is_gone(&mut self) -> Result<(), EngineError> {
        self.ask_again = None;
        let root = &self.options.root;
        self.gone.retain(|key| matches!(scan::look(root, key), Look::Absent | Look::Directory | Look::Blocked(_)));
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
                match decide(me, self.options.mode, base.as_ref(), &file.disk, &file.view) {
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
                self.runtime.block_on(self.replica.commit(writes))?;
                for key in &deleted {
                    self.state.remove(key);
                }
            }
            self.process(other)?;
        }
        Ok(())
    }
}

/// Writes the bytes of a version to a temporary file.
async fn make(
    replica: &dyn FolderReplica,
    workshop: &Workshop,
    key: &FileKey,
    version: &Version,
) -> Result<PathBuf, EngineError> {
    if let Some(bytes) = replica.inline(key, version.id).await? {
        return Ok(workshop.write(key, version.fact.kind, &bytes)?);
    }
    let place = workshop.place();
    let exported = replica.export(key, version, &place).await;
    let done = exported.map_err(EngineError::from).and_then(|()| Ok(set_executable(&place, version.fact.kind)?));
    if let Err(error) = done {
        let _ = std::fs::remove_file(&place);
        return Err(error);
    }
    Ok(place)
}

/// The steps of one round that touch the replica or the disk, by kind.
#[derive(Default)]
struct Steps {
    imports: Vec<(Inspected, Seen)>,
    keeps: Vec<(Inspected, Option<Base>, Version)>,
    writes: Vec<(Inspected, Version)>,
    removes: Vec<Inspected>,
}

/// Looks at one file, and reads its bytes if a known version could be the same.
fn inspect(root: &Path, state: &FolderState, key: &FileKey, view: &View) -> Inspection {
    let (key, view) = (key.clone(), view.clone());
    let stat = match scan::look(root, &key) {
        Look::Absent => return Inspection::Seen(Box::new(Inspected { key, view, disk: Disk::Absent, stat: None })),
        Look::Directory | Look::Blocked(_) => {
            return Inspection::Seen(Box::new(Inspected { key, view, disk: Disk::Blocked, stat: None }));
        }
        Look::Unknown(error) => return Inspection::Unknown(key, error),
        Look::File(stat) => stat,
    };
    let (known, intent) = (state.get(&key), state.intent(&key));
    let mut found = Found { kind: stat.kind, len: stat.len, hash: None };
    if let (Some(known), None) = (known, intent)
        && known.stat == Some(stat)
    {
        found.hash = Some(known.base.fact.hash);
        return Inspection::Seen(Box::new(Inspected { key, view, disk: Disk::Found(found), stat: Some(stat) }));
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
    Inspection::Seen(Box::new(Inspected { key, view, disk: Disk::Found(found), stat: Some(stat) }))
}

/// Whether the file was written so short a time ago that a further write may not show.
fn is_racy(stat: &Stat) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX);
    now - stat.mtime_ns < i128::try_from(RACY.as_nanos()).unwrap_or(0)
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
