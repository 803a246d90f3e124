//! Watching the folder: which paths to look at, and when.
//!
//! Changes are collected by path until they are due. A file that is closed after writing, moved
//! or removed is due at once; one that is being written is due when it was left alone for a
//! while, so that half-written files are not taken. When the system loses count, everything is
//! looked at again.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind},
};

use sync_core::model::Hash;

use super::key::{FileKey, TEMPORARY_DIR};

/// A change is looked at this long after it, together with its neighbours.
const DEBOUNCE: Duration = Duration::from_millis(3);

/// A file that was written to and not closed is looked at after this long without a write.
const LEFT_ALONE: Duration = Duration::from_secs(2);

/// A file that is written all the time is taken as it is, when a look at everything comes by, after this long.
const MAX_OPEN: Duration = Duration::from_secs(60);

/// A new directory is looked at a second time: files may come into it before it is watched.
const SECOND_LOOK: Duration = Duration::from_millis(150);

/// With more paths than this waiting, one look at everything is cheaper.
const MAX_WAITING: usize = 50_000;

/// What wakes the folder.
#[derive(Debug, Default)]
struct Waiting {
    paths: HashMap<PathBuf, Pending>,
    /// Directories that will be looked at again.
    again: Vec<(Instant, PathBuf)>,
    everything: bool,
    problem: Option<String>,
    replica: bool,
    contents: Vec<Hash>,
    stop: bool,
}

/// When a path is looked at.
#[derive(Debug, Clone, Copy)]
struct Pending {
    due: Instant,
    /// It was written to and not closed since; when that began.
    open: Option<Instant>,
}

/// What is due.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Paths in the folder to look at.
    pub paths: Vec<PathBuf>,
    /// Everything must be looked at.
    pub everything: bool,
    /// The replica has changed.
    pub replica: bool,
    /// Contents that have arrived.
    pub contents: Vec<Hash>,
    /// Why watching does not work; the periodic scan still does.
    pub problem: Option<String>,
    /// The folder is to be left alone from now on.
    pub stop: bool,
}

/// Collects what happens until it is due.
#[derive(Debug, Clone, Default)]
pub struct Inbox(Arc<(Mutex<Waiting>, Condvar)>);

impl Inbox {
    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let (waiting, condvar) = &*self.0;
        change(&mut waiting.lock().expect("nobody panics with the inbox"));
        condvar.notify_all();
    }

    /// The replica has changed.
    pub fn replica_changed(&self) {
        self.change(|waiting| waiting.replica = true);
    }

    /// A content has arrived.
    pub fn content_arrived(&self, hash: Hash) {
        self.change(|waiting| match waiting.contents.len() < MAX_WAITING {
            true => waiting.contents.push(hash),
            false => waiting.everything = true,
        });
    }

    /// Look at everything.
    pub fn look_at_everything(&self) {
        self.change(|waiting| waiting.everything = true);
    }

    /// Look at a path (relative to the folder) after a while.
    pub fn look_at(&self, path: &Path, after: Duration) {
        self.path(path.into(), Pending { due: Instant::now() + after, open: None }, true);
    }

    /// Takes out of `keys` those of files that somebody is writing; each is due once it is closed or left alone. One that
    /// is written all the time stays, after a minute of it.
    pub fn take_open(&self, keys: &mut Vec<FileKey>) -> Vec<FileKey> {
        let waiting = self.0.0.lock().expect("nobody panics with the inbox");
        let since = |key: &FileKey| waiting.paths.get(key.path()).and_then(|pending| pending.open);
        let is_open = |key: &mut FileKey| since(key).is_some_and(|since| since.elapsed() < MAX_OPEN);
        keys.extract_if(.., is_open).collect()
    }

    /// End.
    pub fn stop(&self) {
        self.change(|waiting| waiting.stop = true);
    }

    /// Whether the end was asked for.
    pub fn is_stopped(&self) -> bool {
        self.0.0.lock().expect("nobody panics with the inbox").stop
    }

    /// Notes when to look at a path. What `keeps_open` says nothing about a file that is being written.
    fn path(&self, path: PathBuf, pending: Pending, keeps_open: bool) {
        self.change(|waiting| {
            let open = waiting.paths.get(&path).and_then(|known| known.open);
            if keeps_open && open.is_some() {
                return;
            }
            let pending = Pending { open: pending.open.map(|now| open.unwrap_or(now)), ..pending };
            if waiting.paths.len() >= MAX_WAITING {
                waiting.paths.clear();
                waiting.everything = true;
            } else {
                waiting.paths.insert(path, pending);
            }
        });
    }

    /// Waits until something is due, or until `deadline`.
    pub fn wait(&self, deadline: Instant) -> Due {
        let (waiting, condvar) = &*self.0;
        let mut waiting = waiting.lock().expect("nobody panics with the inbox");
        loop {
            let now = Instant::now();
            let due = take_due(&mut waiting, now);
            if due != Due::default() || now >= deadline {
                return due;
            }
            let paths = waiting.paths.values().map(|pending| pending.due);
            let next = paths.chain(waiting.again.iter().map(|(at, _)| *at)).min();
            let until = next.map_or(deadline, |next| deadline.min(next));
            let timeout = until.saturating_duration_since(now);
            waiting = condvar.wait_timeout(waiting, timeout).expect("nobody panics with the inbox").0;
        }
    }

    fn take(&self, root: &Path, event: notify::Result<Event>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => return self.change(|waiting| waiting.problem = Some(error.to_string())),
        };
        if event.need_rescan() {
            return self.look_at_everything();
        }
        let now = Instant::now();
        let closed = Pending { due: now + DEBOUNCE, open: None };
        let pending = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => closed,
            EventKind::Access(_) => return,
            EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
                Pending { due: now + LEFT_ALONE, open: Some(now) }
            }
            _ => closed,
        };
        // Who may execute it can be changed by others than who writes it.
        let keeps_open = matches!(event.kind, EventKind::Modify(ModifyKind::Metadata(_)));
        let is_directory = matches!(event.kind, EventKind::Create(CreateKind::Folder))
            || matches!(event.kind, EventKind::Modify(ModifyKind::Name(_)));
        for path in event.paths {
            let Ok(path) = path.strip_prefix(root) else { continue };
            if path.starts_with(TEMPORARY_DIR) {
                continue;
            }
            if path.as_os_str().is_empty() {
                self.look_at_everything();
                continue;
            }
            if is_directory {
                self.change(|waiting| waiting.again.push((now + SECOND_LOOK, path.into())));
            }
            self.path(path.into(), pending, keeps_open);
        }
    }
}

fn take_due(waiting: &mut Waiting, now: Instant) -> Due {
    let mut due = Due {
        paths: Vec::new(),
        everything: std::mem::take(&mut waiting.everything),
        replica: std::mem::take(&mut waiting.replica),
        contents: std::mem::take(&mut waiting.contents),
        problem: waiting.problem.take(),
        stop: waiting.stop,
    };
    waiting.paths.retain(|path, pending| {
        if pending.due <= now {
            due.paths.push(path.clone());
        }
        pending.due > now
    });
    waiting.again.retain(|(at, path)| {
        if *at <= now {
            due.paths.push(path.clone());
        }
        *at > now
    });
    due.paths.sort_unstable();
    due.paths.dedup();
    due
}

/// Watches a folder for as long as it lives.
#[derive(Debug)]
pub struct FolderWatcher {
    _watcher: RecommendedWatcher,
}

impl FolderWatcher {
    /// Watches everything beneath `root`.
    pub fn start(root: &Path, inbox: &Inbox) -> notify::Result<Self> {
        let (inbox, watched) = (inbox.clone(), root.to_path_buf());
        let mut watcher = notify::recommended_watcher(move |event| inbox.take(&watched, event))?;
        watcher.watch(root, RecursiveMode::Recursive)?;
        Ok(Self { _watcher: watcher })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::unix::fs::PermissionsExt};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    /// Waits until `path` is due.
    fn wait_for(inbox: &Inbox, path: &str) -> Duration {
        let start = Instant::now();
        while Instant::now() < start + Duration::from_secs(10) {
            if inbox.wait(soon()).paths.contains(&PathBuf::from(path)) {
                return start.elapsed();
            }
        }
        panic!("{path} was never due");
    }

    #[test]
    fn a_closed_file_is_due_at_once_and_an_open_one_when_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = Inbox::default();
        let _watcher = FolderWatcher::start(dir.path(), &inbox).unwrap();
        // A busy machine may be late once, or twice.
        let at_once = |name: &str| {
            fs::write(dir.path().join(name), "a").unwrap();
            wait_for(&inbox, name) < LEFT_ALONE
        };
        assert!(["a", "a2", "a3"].into_iter().any(at_once));
        let began = Instant::now();
        let mut open = fs::File::create(dir.path().join("b")).unwrap();
        open.write_all(b"half").unwrap();
        // Whoever changes its permissions does not say that it is whole.
        fs::set_permissions(dir.path().join("b"), fs::Permissions::from_mode(0o755)).unwrap();
        wait_for(&inbox, "b");
        assert!(began.elapsed() >= LEFT_ALONE);
    }

    #[test]
    fn files_in_new_directories_moved_files_and_removed_ones_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let inbox = Inbox::default();
        let _watcher = FolderWatcher::start(root, &inbox).unwrap();
        fs::create_dir_all(root.join("x/y")).unwrap();
        wait_for(&inbox, "x");
        // The second look, unless this thread was so late that both came as one.
        if !inbox.0.0.lock().unwrap().again.is_empty() {
            wait_for(&inbox, "x");
        }
        fs::write(root.join("x/y/a"), "a").unwrap();
        wait_for(&inbox, "x/y/a");
        fs::rename(root.join("x/y/a"), root.join("b")).unwrap();
        wait_for(&inbox, "b");
        fs::remove_file(root.join("b")).unwrap();
        wait_for(&inbox, "b");
    }

    #[test]
    fn files_in_the_making_are_not_noticed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(TEMPORARY_DIR)).unwrap();
        let inbox = Inbox::default();
        let _watcher = FolderWatcher::start(dir.path(), &inbox).unwrap();
        fs::write(dir.path().join(TEMPORARY_DIR).join("1"), "a").unwrap();
        fs::write(dir.path().join("a"), "a").unwrap();
        let due = inbox.wait(soon());
        assert!(due.paths.iter().all(|path| !path.starts_with(TEMPORARY_DIR)), "{due:?}");
    }

    #[test]
    fn a_file_that_is_written_all_the_time_is_taken_once_a_minute() {
        let inbox = Inbox::default();
        let key = FileKey::new(b"a").unwrap();
        for (ago, taken_out) in [(Duration::ZERO, 1), (MAX_OPEN, 0)] {
            let open = Pending { due: soon(), open: Some(Instant::now() - ago) };
            inbox.change(|waiting| waiting.paths = HashMap::from([("a".into(), open)]));
            // It goes on.
            inbox.path("a".into(), Pending { due: soon(), open: Some(Instant::now()) }, false);
            assert_eq!(inbox.take_open(&mut vec![key.clone()]).len(), taken_out);
        }
    }

    #[test]
    fn the_replica_and_the_end_wake_at_once() {
        let inbox = Inbox::default();
        inbox.replica_changed();
        assert_eq!(inbox.wait(soon()), Due { replica: true, ..Due::default() });
        inbox.stop();
        assert!(inbox.wait(soon()).stop);
    }
}
