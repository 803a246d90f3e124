//! The folder with real files, and a small replica in memory whose exchange the test decides.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use sync_core::{
    model::{AuthorId, Hash, MAX_INLINE_LEN, Timestamp},
    store::Position,
};

use super::{
    apply::Workshop,
    engine::{Folder, FolderOptions},
    guard::Permission,
    key::{FileKey, Role, TEMPORARY_DIR, role_of},
    plan::{Kind, Mode, Version, VersionId, View},
    replica::{
        About, Change, FolderReplica, Import, NotedImport, ReplicaError, ViewBuilder, Write, WriteRight, Written,
    },
    scan,
    watch::Inbox,
};

#[derive(Clone)]
struct Stored {
    id: VersionId,
    position: u64,
    value: Option<Bytes>,
}

#[derive(Default)]
struct Inner {
    /// By key and author; tombstones without an author.
    entries: BTreeMap<(Bytes, Option<AuthorId>), Stored>,
    head: u64,
    clock: u64,
    commits: u64,
    /// Whether this device may write.
    right: Option<WriteRight>,
    /// Commits fail.
    refuses: bool,
    /// Contents that do not lie inline are on their way.
    withheld: bool,
    last_import: Option<NotedImport>,
}

impl Inner {
    fn apply(&mut self, key: Bytes, id: VersionId, value: Option<Bytes>) {
        self.clock = self.clock.max(id.timestamp.0);
        let tombstone = self.entries.get(&(key.clone(), None)).map(|stored| stored.id);
        let slot = (key.clone(), value.as_ref().map(|_| id.author));
        let there = self.entries.get(&slot).map(|stored| stored.id);
        if tombstone.is_some_and(|tombstone| tombstone >= id) || there.is_some_and(|there| there >= id) {
            return;
        }
        if value.is_none() {
            self.entries.retain(|(other, author), stored| *other != key || author.is_none() || stored.id > id);
        }
        self.head += 1;
        self.entries.insert(slot, Stored { id, position: self.head, value });
    }
}

/// A replica in memory with the data model's dominance.
struct Mem {
    me: AuthorId,
    inner: Mutex<Inner>,
    inbox: Inbox,
}

impl Mem {
    fn merge(&self, other: &Self) {
        let entries = other.inner.lock().unwrap().entries.clone();
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|(_, stored)| stored.id);
        for ((key, _), stored) in entries {
            self.inner.lock().unwrap().apply(key, stored.id, stored.value);
        }
        self.inbox.replica_changed();
    }

    fn view(&self, key: &FileKey) -> View {
        let inner = self.inner.lock().unwrap();
        let mut builder = ViewBuilder::default();
        for ((at, _), stored) in &inner.entries {
            match (role_of(at), &stored.value) {
                (Role::File(file), Some(bytes)) if file == *key => {
                    builder.value(stored.id, bytes.len() as u64, Hash(*blake3::hash(bytes).as_bytes()));
                }
                (Role::File(file), None) if file == *key => builder.deletion(stored.id),
                (Role::Companion(file, companion), Some(bytes)) if file == *key => {
                    let hash = Hash(*blake3::hash(bytes).as_bytes());
                    builder.companion(companion, stored.id.author, hash, bytes);
                }
                _ => {}
            }
        }
        builder.build(self.me)
    }
}

#[async_trait]
impl FolderReplica for Mem {
    fn me(&self) -> AuthorId {
        self.me
    }

    async fn right(&self) -> Result<WriteRight, ReplicaError> {
        Ok(self.inner.lock().unwrap().right.unwrap_or(WriteRight::Held))
    }

    async fn views(&self, keys: &[FileKey]) -> Result<Vec<View>, ReplicaError> {
        Ok(keys.iter().map(|key| self.view(key)).collect())
    }

    async fn all(&self) -> Result<(Vec<(FileKey, View)>, Position), ReplicaError> {
        let (keys, head) = {
            let inner = self.inner.lock().unwrap();
            let keys = inner.entries.keys().filter_map(|(key, author)| match (role_of(key), author) {
                (Role::File(key), Some(_)) => Some(key),
                _ => None,
            });
            (keys.collect::<Vec<_>>(), inner.head)
        };
        Ok((keys.into_iter().map(|key| (key.clone(), self.view(&key))).collect(), Position(head)))
    }

    async fn changes(&self, since: Position, limit: usize) -> Result<Vec<Change>, ReplicaError> {
        let inner = self.inner.lock().unwrap();
        let mut changes: Vec<_> = inner
            .entries
            .iter()
            .filter(|(_, stored)| stored.position > since.0)
            .map(|((key, _), stored)| Change {
                position: Position(stored.position),
                about: About::Key(key.clone()),
                id: stored.id,
            })
            .collect();
        changes.sort_by_key(|change| change.position);
        changes.truncate(limit);
        Ok(changes)
    }

    async fn commit(&self, writes: Vec<Write>, import: Option<Import>) -> Result<Vec<Written>, ReplicaError> {
        let mut ops = Vec::new();
        for write in writes {
            ops.push(match write {
                Write::Put { key, bytes } => (key, Some(bytes)),
                Write::PutFile { key, path, stat } => {
                    let bytes = scan::read_file(&path, &stat).map_err(|_| ReplicaError::Unstable(key.clone()))?;
                    (key.as_bytes().to_vec(), Some(bytes.into()))
                }
                Write::Copy { key, from, version } => {
                    let slot = (Bytes::copy_from_slice(from.as_bytes()), Some(version.author));
                    let inner = self.inner.lock().unwrap();
                    let stored = inner.entries.get(&slot).cloned();
                    let is_long =
                        |stored: &Stored| stored.value.as_ref().is_some_and(|value| value.len() > MAX_INLINE_LEN);
                    if inner.withheld && stored.as_ref().is_some_and(is_long) {
                        return Err(ReplicaError::NotHere);
                    }
                    drop(inner);
                    let stored = stored.filter(|stored| stored.id == version).ok_or(ReplicaError::Unstable(from))?;
                    (key.as_bytes().to_vec(), stored.value)
                }
                Write::Delete { key } => (key, None),
            });
        }
        let mut inner = self.inner.lock().unwrap();
        if inner.refuses || inner.right.is_some_and(|right| right != WriteRight::Held) {
            return Err(ReplicaError::Failed("this node may not write".into()));
        }
        inner.commits += 1;
        if let Some(import) = import {
            let value = |bytes: &Bytes| (bytes.len() as u64, Hash(*blake3::hash(bytes).as_bytes()));
            let lines: Vec<_> = ops.iter().map(|(key, bytes)| (key.clone(), bytes.as_ref().map(value))).collect();
            inner.last_import = Some(NotedImport::new(&import, Timestamp(inner.clock + 1), &lines));
        }
        let mut written = Vec::new();
        for (key, value) in ops {
            let timestamp = Timestamp(inner.clock + 1);
            let id = VersionId { timestamp, author: self.me };
            let line = value.as_ref().map(|bytes| (bytes.len() as u64, Hash(*blake3::hash(bytes).as_bytes())));
            inner.apply(key.into(), id, value);
            written.push(Written { id, value: line });
        }
        drop(inner);
        self.inbox.replica_changed();
        Ok(written)
    }

    async fn last_import(&self) -> Result<Option<NotedImport>, ReplicaError> {
        Ok(self.inner.lock().unwrap().last_import.clone())
    }

    async fn inline(&self, versions: &[(&FileKey, VersionId)]) -> Result<Vec<Option<Bytes>>, ReplicaError> {
        let inner = self.inner.lock().unwrap();
        let bytes = versions.iter().map(|(key, version)| {
            let slot = (Bytes::copy_from_slice(key.as_bytes()), Some(version.author));
            let bytes = inner.entries.get(&slot).and_then(|stored| stored.value.clone());
            bytes.filter(|bytes| bytes.len() <= MAX_INLINE_LEN)
        });
        Ok(bytes.collect())
    }

    async fn export(&self, key: &FileKey, version: &Version, to: &Path) -> Result<(), ReplicaError> {
        let slot = (Bytes::copy_from_slice(key.as_bytes()), Some(version.id.author));
        let inner = self.inner.lock().unwrap();
        let bytes = inner.entries.get(&slot).filter(|_| !inner.withheld).and_then(|stored| stored.value.clone());
        drop(inner);
        fs::write(to, bytes.ok_or(ReplicaError::NotHere)?).map_err(|error| ReplicaError::Failed(error.to_string()))
    }
}

/// One device: a folder, its replica, and the runtime that the folder needs.
struct Device {
    dir: tempfile::TempDir,
    replica: Arc<Mem>,
    inbox: Inbox,
    folder: Option<Folder>,
    runtime: tokio::runtime::Runtime,
}

impl Device {
    fn new(author: u8) -> Self {
        let mut device = Self::stopped(author);
        device.start(Mode::ReadWrite, Permission::Ask);
        device
    }

    fn stopped(author: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        let inbox = Inbox::default();
        let me = AuthorId::from([author; 32]);
        let replica = Arc::new(Mem { me, inner: Mutex::default(), inbox: inbox.clone() });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { dir, replica, inbox, folder: None, runtime }
    }

    fn start(&mut self, mode: Mode, permission: Permission) {
        let options = FolderOptions {
            root: self.root(),
            state: self.dir.path().join("state"),
            lifetime: [7; 16],
            mode,
            permission,
        };
        // Each start has an inbox of its own, as in the program; the replica wakes the last one.
        self.inbox = Inbox::default();
        let inner = std::mem::take(&mut *self.replica.inner.lock().unwrap());
        let me = self.replica.me;
        self.replica = Arc::new(Mem { me, inner: Mutex::new(inner), inbox: self.inbox.clone() });
        let _guard = self.runtime.enter();
        self.folder = Some(Folder::start(options, self.replica.clone(), self.inbox.clone()).unwrap());
    }

    fn stop(&mut self) {
        self.folder.take().unwrap().stop();
    }

    fn restart(&mut self) {
        self.stop();
        self.start(Mode::ReadWrite, Permission::Ask);
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("folder")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    fn save(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }

    fn commits(&self) -> u64 {
        self.replica.inner.lock().unwrap().commits
    }

    /// All files with their contents.
    fn files(&self) -> BTreeMap<String, String> {
        let mut rules = super::ignore::IgnoreRules::new(&self.root());
        let found = scan::scan(&self.root(), Path::new(""), &mut rules);
        let files = found.files.into_iter().map(|(key, _)| key.to_string());
        files.filter_map(|name| Some((name.clone(), self.read(&name)?))).collect()
    }

    fn problems(&self) -> Vec<String> {
        let problems = self.folder.as_ref().unwrap().problems().list();
        problems.into_iter().map(|problem| format!("{}: {}", problem.subject, problem.cause)).collect()
    }

    fn has_value(&self, name: &str, content: &str) -> bool {
        let view = self.replica.view(&FileKey::new(name.as_bytes()).unwrap());
        view.newest().is_some_and(|newest| newest.fact.hash.0 == *blake3::hash(content.as_bytes()).as_bytes())
    }

    fn is_deleted(&self, name: &str) -> bool {
        self.replica.view(&FileKey::new(name.as_bytes()).unwrap()).newest().is_none()
    }
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Exchanges everything until both folders have the same files.
#[track_caller]
fn become_equal(a: &Device, b: &Device) {
    let mut rounds = 0;
    eventually("both folders are equal", || {
        a.replica.merge(&b.replica);
        b.replica.merge(&a.replica);
        let equal = a.files() == b.files() && !a.files().is_empty();
        rounds = if equal { rounds + 1 } else { 0 };
        rounds > 20
    });
}

#[test]
fn files_go_both_ways_live() {
    let (a, b) = (Device::new(1), Device::new(2));
    a.save("notes/a.txt", "from a");
    b.save("b.txt", "from b");
    b.save("deep/er/c.txt", &"large ".repeat(10_000));
    become_equal(&a, &b);
    assert_eq!(a.files().len(), 3);
    b.save("notes/a.txt", "edited by b");
    eventually("the edit is put", || b.has_value("notes/a.txt", "edited by b"));
    become_equal(&a, &b);
    assert_eq!(a.read("notes/a.txt").unwrap(), "edited by b");
    fs::rename(a.path("b.txt"), a.path("c.txt")).unwrap();
    eventually("the move is put", || a.is_deleted("b.txt") && a.has_value("c.txt", "from b"));
    become_equal(&a, &b);
    assert_eq!(b.read("c.txt").unwrap(), "from b");
    fs::remove_dir_all(a.path("deep")).unwrap();
    eventually("the deletion is put", || a.is_deleted("deep/er/c.txt"));
    become_equal(&a, &b);
    // The directory goes with its last file, and what was made on the way goes too.
    let is_tidy = || !b.path("deep").exists() && !a.path(TEMPORARY_DIR).exists() && !b.path(TEMPORARY_DIR).exists();
    eventually("it is tidy", is_tidy);
}

#[test]
fn when_both_changed_a_file_both_texts_are_on_both_sides() {
    let (a, b) = (Device::new(1), Device::new(2));
    a.save("plan.md", "first");
    become_equal(&a, &b);
    a.save("plan.md", "by a");
    b.save("plan.md", "by b");
    eventually("both are put", || a.has_value("plan.md", "by a") && b.has_value("plan.md", "by b"));
    become_equal(&a, &b);
    let texts: Vec<_> = a.files().into_values().collect();
    assert_eq!(a.files().len(), 2, "{:?}", a.files());
    assert!(texts.contains(&"by a".to_string()) && texts.contains(&"by b".to_string()));
    assert!(a.files().keys().any(|name| name.starts_with("plan (conflict ") && name.ends_with(").md")));
}

#[test]
fn a_kept_version_that_the_user_deletes_stays_deleted_over_a_restart() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.save("plan.md", "first");
    become_equal(&a, &b);
    a.save("plan.md", "by a");
    b.save("plan.md", "by b");
    eventually("both are put", || a.has_value("plan.md", "by a") && b.has_value("plan.md", "by b"));
    become_equal(&a, &b);
    let kept = a.files().into_keys().find(|name| name.contains("conflict")).unwrap();
    fs::remove_file(b.path(&kept)).unwrap();
    eventually("the deletion is put", || b.is_deleted(&kept));
    become_equal(&a, &b);
    a.stop();
    fs::remove_file(a.dir.path().join("state")).unwrap();
    a.start(Mode::ReadWrite, Permission::Ask);
    b.restart();
    become_equal(&a, &b);
    assert_eq!(a.files().len(), 1, "{:?}", a.files());
}

#[test]
fn an_edit_wins_over_a_deletion_that_had_not_seen_it() {
    let (a, b) = (Device::new(1), Device::new(2));
    a.save("plan.md", "first");
    a.save("other", "x");
    become_equal(&a, &b);
    a.save("plan.md", "edited by a");
    eventually("the edit is put", || a.has_value("plan.md", "edited by a"));
    fs::remove_file(b.path("plan.md")).unwrap();
    eventually("the deletion is put", || b.is_deleted("plan.md"));
    become_equal(&a, &b);
    assert_eq!(b.read("plan.md").unwrap(), "edited by a");
}

#[test]
fn a_restart_with_nothing_changed_writes_nothing() {
    let (mut a, b) = (Device::new(1), Device::new(2));
    for n in 0..100 {
        a.save(&format!("d{}/{n}", n % 7), &format!("{n}"));
    }
    become_equal(&a, &b);
    a.stop();
    let (commits, state) = (a.commits(), fs::read(a.dir.path().join("state")).unwrap());
    a.start(Mode::ReadWrite, Permission::Ask);
    // When this one is there, everything before it was looked at.
    a.save("last", "last");
    eventually("the folder works again", || a.has_value("last", "last"));
    assert_eq!(a.commits(), commits + 1);
    let now = fs::read(a.dir.path().join("state")).unwrap();
    assert!(now.starts_with(&state) && now.len() - state.len() < 1000, "{} {}", now.len(), state.len());
}

#[test]
fn changes_made_while_the_program_was_off_are_found() {
    let (mut a, b) = (Device::new(1), Device::new(2));
    for name in ["edit", "delete", "stay", "move"] {
        a.save(name, name);
    }
    become_equal(&a, &b);
    a.stop();
    a.save("edit", "edited");
    a.save("new", "new");
    fs::remove_file(a.path("delete")).unwrap();
    fs::rename(a.path("move"), a.path("moved")).unwrap();
    a.start(Mode::ReadWrite, Permission::Ask);
    eventually("all is put", || {
        a.has_value("edit", "edited") && a.has_value("new", "new") && a.is_deleted("delete") && a.is_deleted("move")
    });
    become_equal(&a, &b);
    let files = b.files();
    assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), ["edit", "moved", "new", "stay"]);
    assert_eq!(files["edit"], "edited");
}

#[test]
fn a_lost_state_is_rebuilt_without_a_write() {
    let (mut a, b) = (Device::new(1), Device::new(2));
    a.save("a", "a");
    b.save("b", "b");
    become_equal(&a, &b);
    a.stop();
    fs::remove_file(a.dir.path().join("state")).unwrap();
    let commits = a.commits();
    a.start(Mode::ReadWrite, Permission::Ask);
    a.save("last", "last");
    eventually("the folder works again", || a.has_value("last", "last"));
    assert_eq!(a.commits(), commits + 1);
}

#[test]
fn a_folder_that_is_suddenly_empty_deletes_nothing_until_the_user_says_so() {
    let (mut a, b) = (Device::new(1), Device::new(2));
    for n in 0..40 {
        a.save(&format!("{n}"), &format!("{n}"));
    }
    become_equal(&a, &b);
    for n in 0..30 {
        fs::remove_file(a.path(&n.to_string())).unwrap();
    }
    eventually("it asks", || a.problems().iter().any(|problem| problem.contains("of 40 files are gone at once")));
    // Half of them may have gone before the guard saw that there were more.
    let deleted = (0..40).filter(|n| a.is_deleted(&n.to_string())).count();
    assert!(deleted <= 10, "{deleted} files were deleted");
    a.stop();
    a.start(Mode::ReadWrite, Permission::Given);
    eventually("they are deleted", || (0..30).all(|n| a.is_deleted(&n.to_string())));
    become_equal(&a, &b);
    assert_eq!(b.files().len(), 10);
}

#[test]
fn an_unmounted_folder_deletes_nothing_and_goes_on_when_it_is_back() {
    let (a, b) = (Device::new(1), Device::new(2));
    a.save("a", "a");
    become_equal(&a, &b);
    let away = a.dir.path().join("away");
    fs::rename(a.root(), &away).unwrap();
    a.inbox.look_at_everything();
    eventually("it says so", || a.problems().iter().any(|problem| problem.contains("the folder is gone")));
    assert!(!a.root().exists());
    // An empty mount point.
    fs::create_dir(a.root()).unwrap();
    a.inbox.look_at_everything();
    eventually("it says so", || {
        a.problems().iter().any(|problem| problem.contains("another directory is in its place"))
    });
    assert!(!a.is_deleted("a"));
    fs::remove_dir(a.root()).unwrap();
    fs::rename(&away, a.root()).unwrap();
    a.save("b", "b");
    become_equal(&a, &b);
    assert_eq!(b.files().len(), 2);
    assert_eq!(a.problems(), Vec::<String>::new());
}

#[test]
fn the_executable_bit_and_links_that_stay_inside_are_kept() {
    let (a, b) = (Device::new(1), Device::new(2));
    a.save("run", "#!/bin/sh\n");
    fs::set_permissions(a.path("run"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("run", a.path("link")).unwrap();
    symlink("/etc/passwd", a.path("bad")).unwrap();
    become_equal(&a, &b);
    let mode = |device: &Device| fs::metadata(device.path("run")).unwrap().permissions().mode() & 0o100;
    eventually("b can run it", || mode(&b) != 0);
    eventually("b has the link", || fs::read_link(b.path("link")).is_ok_and(|target| target == Path::new("run")));
    eventually("a says which is not shared", || {
        a.problems().iter().any(|problem| problem.starts_with("bad: it is not shared: the link points out"))
    });
    assert!(!b.path("bad").exists());
    fs::set_permissions(b.path("run"), fs::Permissions::from_mode(0o644)).unwrap();
    eventually("a cannot run it any more", || {
        a.replica.merge(&b.replica);
        mode(&a) == 0
    });
    // A link that becomes a file.
    fs::remove_file(b.path("link")).unwrap();
    b.save("link", "now a file");
    eventually("a has the file", || {
        a.replica.merge(&b.replica);
        fs::symlink_metadata(a.path("link")).is_ok_and(|metadata| metadata.is_file())
    });
}

#[test]
fn keys_that_would_leave_the_folder_write_nothing_outside() {
    let (a, b) = (Device::new(1), Device::new(2));
    symlink("inner", a.path("link")).unwrap();
    let elsewhere = a.dir.path().join("elsewhere").display().to_string();
    for key in ["../outside", elsewhere.as_str(), "a/../../outside", "link/inside"] {
        let write = Write::Put { key: key.into(), bytes: Bytes::from_static(b"x") };
        b.runtime.block_on(b.replica.commit(vec![write], None)).unwrap();
    }
    b.save("marker", "m");
    eventually("the marker comes", || {
        a.replica.merge(&b.replica);
        a.read("marker").is_some()
    });
    assert!(!a.dir.path().join("outside").exists() && !Path::new(&elsewhere).exists());
    eventually("the clash is shown", || a.problems().iter().any(|problem| problem.starts_with("link/inside")));
}

#[test]
fn a_file_where_a_directory_must_be_is_shown_and_comes_when_the_way_is_free() {
    let (a, b) = (Device::new(1), Device::new(2));
    a.save("x", "a file");
    b.save("x/y", "in a directory");
    eventually("both are put", || a.has_value("x", "a file") && b.has_value("x/y", "in a directory"));
    a.replica.merge(&b.replica);
    b.replica.merge(&a.replica);
    eventually("a says so", || a.problems().iter().any(|problem| problem.starts_with("x/y: ")));
    eventually("b says so", || b.problems().iter().any(|problem| problem.starts_with("x: ")));
    fs::rename(a.path("x"), a.path("z")).unwrap();
    become_equal(&a, &b);
    assert_eq!(a.read("x/y").unwrap(), "in a directory");
    assert_eq!(b.read("z").unwrap(), "a file");
}

#[test]
fn a_directory_that_becomes_a_file_elsewhere_becomes_one_here() {
    let (a, b) = (Device::new(1), Device::new(2));
    a.save("x/y", "in a directory");
    become_equal(&a, &b);
    fs::remove_dir_all(a.path("x")).unwrap();
    a.save("x", "a file");
    eventually("it is put", || a.has_value("x", "a file") && a.is_deleted("x/y"));
    become_equal(&a, &b);
    assert_eq!(b.read("x").unwrap(), "a file");
}

#[test]
fn ignored_files_stay_where_they_are() {
    let (a, b) = (Device::new(1), Device::new(2));
    a.save("keep.log", "was shared");
    become_equal(&a, &b);
    a.save(".synclineignore", "*.log\n");
    a.save("new.log", "never shared");
    a.save("b", "b");
    become_equal(&a, &b);
    eventually("b has the rules", || b.read(".synclineignore").is_some());
    fs::remove_file(a.path("keep.log")).unwrap();
    a.save("c", "c");
    become_equal(&a, &b);
    assert_eq!(b.read("keep.log").unwrap(), "was shared", "not gone: just not looked at");
    assert!(b.read("new.log").is_none());
}

#[test]
fn a_read_only_folder_follows_and_writes_nothing() {
    let (a, mut b) = (Device::new(1), Device::stopped(2));
    b.start(Mode::ReadOnly, Permission::Ask);
    a.save("a", "first");
    eventually("b follows", || {
        b.replica.merge(&a.replica);
        b.read("a").is_some()
    });
    b.save("a", "edited on b");
    b.save("own", "b's own");
    a.save("a", "second");
    eventually("b follows", || {
        b.replica.merge(&a.replica);
        b.read("a").as_deref() == Some("second")
    });
    assert_eq!(b.commits(), 0);
    assert!(b.files().values().any(|text| text == "edited on b"), "it was moved aside");
    assert_eq!(b.read("own").unwrap(), "b's own");
}

#[test]
fn the_same_files_on_both_sides_before_the_first_exchange_stay_as_they_are() {
    let (mut a, mut b) = (Device::stopped(1), Device::stopped(2));
    for device in [&a, &b] {
        device.save("same", "same");
        device.save("differs", if device.replica.me == a.replica.me { "of a" } else { "of b" });
    }
    a.start(Mode::ReadWrite, Permission::Ask);
    b.start(Mode::ReadWrite, Permission::Ask);
    eventually("both are put", || a.has_value("differs", "of a") && b.has_value("differs", "of b"));
    become_equal(&a, &b);
    let mut texts: Vec<_> = a.files().into_values().collect();
    texts.sort();
    assert_eq!(texts, ["of a", "of b", "same"]);
}

#[test]
fn a_thousand_files_are_put_in_few_transactions() {
    let mut a = Device::stopped(1);
    for n in 0..1000 {
        a.save(&format!("d{}/{n}", n % 10), &format!("{n}"));
    }
    a.start(Mode::ReadWrite, Permission::Ask);
    eventually("all are put", || a.has_value("d9/999", "999") && a.has_value("d0/0", "0"));
    // Those that were written just before the start come a moment later.
    assert!(a.commits() <= 20, "{}", a.commits());
}

/// Where the first intent ends that a state's file has behind `from`. What was noted before it is skipped.
fn end_of_intent(log: &[u8], from: usize) -> usize {
    let mut at = from;
    loop {
        // A length and a checksum, and then what kind of record it is.
        let end = at + 8 + u32::from_le_bytes(log[at..at + 4].try_into().unwrap()) as usize;
        if log[at + 8] == 1 {
            return end;
        }
        at = end;
    }
}

#[test]
fn a_kill_while_a_version_is_written_is_no_edit() {
    // The intent to write "second" is on disk, and the program is killed before or after the file
    // is moved into place, or while it notes that. Meanwhile a third version comes. Neither
    // "first" nor "second" may be taken for an edit of the user.
    for moved in [false, true] {
        for torn in [0, 5] {
            for third_is_there in [false, true] {
                let (mut a, b) = (Device::new(1), Device::new(2));
                b.save("x", "first");
                become_equal(&a, &b);
                a.stop();
                let before = fs::read(a.dir.path().join("state")).unwrap().len();
                a.start(Mode::ReadWrite, Permission::Ask);
                b.save("x", "second");
                eventually("a has it", || {
                    a.replica.merge(&b.replica);
                    a.read("x").as_deref() == Some("second")
                });
                a.stop();
                let log = fs::read(a.dir.path().join("state")).unwrap();
                fs::write(a.dir.path().join("state"), &log[..end_of_intent(&log, before) + torn]).unwrap();
                if !moved {
                    a.save("x", "first");
                }
                b.save("x", "third");
                eventually("it is put", || b.has_value("x", "third"));
                if third_is_there {
                    a.replica.merge(&b.replica);
                }
                let commits = a.commits();
                a.start(Mode::ReadWrite, Permission::Ask);
                become_equal(&a, &b);
                assert_eq!(a.files(), BTreeMap::from([("x".to_string(), "third".to_string())]));
                assert_eq!(a.commits(), commits, "nothing was taken for an edit");
            }
        }
    }
}

#[test]
fn a_kill_between_an_import_and_the_state_brings_back_nothing_and_loses_nothing() {
    // The file is put, and the program is killed before its state says so. Then another command of the same device
    // deletes or replaces the version, and perhaps the user saves the file again.
    for command in [None, Some("put")] {
        for edit in [None, Some("put meanwhile"), Some("saved")] {
            let mut a = Device::new(1);
            a.stop();
            let before = fs::read(a.dir.path().join("state")).unwrap();
            a.start(Mode::ReadWrite, Permission::Ask);
            a.save("x", "saved");
            eventually("it is put", || a.has_value("x", "saved"));
            a.stop();
            fs::write(a.dir.path().join("state"), &before).unwrap();
            if let Some(edit) = edit {
                fs::remove_file(a.path("x")).unwrap();
                a.save("x", edit);
            }
            let (key, id) = (Bytes::from("x"), |clock| VersionId { timestamp: Timestamp(clock), author: a.replica.me });
            let mut inner = a.replica.inner.lock().unwrap();
            let id = id(inner.clock + 1);
            inner.apply(key, id, command.map(Bytes::from));
            drop(inner);
            let commits = a.commits();
            a.start(Mode::ReadWrite, Permission::Ask);
            a.save("last", "last");
            eventually("all is looked at", || a.has_value("last", "last"));
            match edit {
                None => {
                    eventually("the command counts", || a.read("x").as_deref() == command);
                    assert_eq!(a.commits(), commits + 1, "only the last file was put");
                }
                // Whatever it says: it was saved after the import. What the command put is not lost for that.
                Some(edit) => {
                    eventually("it is put", || a.has_value("x", edit));
                    assert_eq!(a.read("x").as_deref(), Some(edit));
                    if let Some(command) = command {
                        eventually("both are there", || a.files().values().any(|text| text == command));
                    }
                }
            }
        }
    }
}

#[test]
fn what_a_kill_left_in_the_temporary_directory_is_removed_or_is_the_users_and_comes_back() {
    let mut a = Device::new(1);
    a.save("x", "first");
    eventually("it is put", || a.has_value("x", "first"));
    a.stop();
    let key = FileKey::new(b"x").unwrap();
    let workshop = Workshop::open(&a.root()).unwrap();
    let names = |a: &Device| {
        let mut names: Vec<_> = a.files().into_iter().collect();
        names.sort_by_key(|(name, _)| name.len());
        names
    };
    // Before the intent: it may be half a version, and nothing of the user's.
    let half = workshop.write(&key, Kind::File, b"half a ver").unwrap();
    // Not made by the program: it stays where it is.
    let not_ours = half.with_file_name("1");
    fs::rename(&half, &not_ours).unwrap();
    workshop.write(&key, Kind::File, b"half a ver").unwrap();
    // Of a file of which nothing was noted yet.
    workshop.write(&FileKey::new(b"new").unwrap(), Kind::File, b"half a ver").unwrap();
    a.start(Mode::ReadWrite, Permission::Ask);
    eventually("one is left", || fs::read_dir(a.path(TEMPORARY_DIR)).unwrap().count() == 1);
    a.stop();
    assert_eq!(names(&a), [("x".to_string(), "first".to_string())]);
    fs::remove_file(not_ours).unwrap();
    // Moved aside to be removed, but it was saved just before: it comes back to its place, or beside it.
    for content in ["saved before it was removed", "saved again"] {
        let aside = workshop.aside(&key);
        fs::write(&aside, content).unwrap();
        if content == "saved before it was removed" {
            fs::remove_file(a.path("x")).unwrap();
        }
        a.start(Mode::ReadWrite, Permission::Ask);
        eventually("it is put", || {
            let files = names(&a);
            files.iter().all(|(name, content)| a.has_value(name, content)) && files.iter().any(|(_, is)| is == content)
        });
        a.stop();
        assert!(!a.path(TEMPORARY_DIR).exists());
    }
    let files = names(&a);
    assert_eq!(files.len(), 2);
    assert_eq!(files[0], ("x".to_string(), "saved before it was removed".to_string()));
    assert!(files[1].0.starts_with("x (conflict "), "{files:?}");
}

#[test]
fn a_kill_between_the_exchange_of_two_files_and_the_look_loses_nothing_that_was_saved() {
    let (mut a, b) = (Device::new(1), Device::new(2));
    b.save("x", "first");
    become_equal(&a, &b);
    a.stop();
    let before = fs::read(a.dir.path().join("state")).unwrap().len();
    a.start(Mode::ReadWrite, Permission::Ask);
    b.save("x", "second");
    eventually("a has it", || {
        a.replica.merge(&b.replica);
        a.read("x").as_deref() == Some("second")
    });
    a.stop();
    // The state as it was when the files were exchanged, and beside the new version what the user saved at that moment.
    let log = fs::read(a.dir.path().join("state")).unwrap();
    fs::write(a.dir.path().join("state"), &log[..end_of_intent(&log, before)]).unwrap();
    let workshop = Workshop::open(&a.root()).unwrap();
    workshop.write(&FileKey::new(b"x").unwrap(), Kind::File, b"saved meanwhile").unwrap();
    a.start(Mode::ReadWrite, Permission::Ask);
    become_equal(&a, &b);
    let texts: Vec<_> = a.files().into_values().collect();
    assert_eq!(texts.len(), 2, "{:?}", a.files());
    assert!(texts.contains(&"second".to_string()) && texts.contains(&"saved meanwhile".to_string()), "{texts:?}");
}

#[test]
fn when_the_right_to_write_ends_the_folder_goes_on_receiving_and_puts_what_waited_when_it_is_back() {
    let (a, b) = (Device::new(1), Device::new(2));
    a.save("both", "first");
    become_equal(&a, &b);
    let right = |right| {
        b.replica.inner.lock().unwrap().right = Some(right);
        b.inbox.replica_changed();
    };
    right(WriteRight::Ended);
    eventually("it says so", || b.problems().iter().any(|problem| problem.contains("right to write")));
    eventually("it is read-only", || b.folder.as_ref().unwrap().mode() == Mode::ReadOnly);
    b.save("mine", "waits");
    a.save("both", "second");
    a.save("new", "from a");
    eventually("what a changes still comes", || {
        b.replica.merge(&a.replica);
        b.read("new").as_deref() == Some("from a") && b.read("both").as_deref() == Some("second")
    });
    assert!(b.is_deleted("mine") && b.read("mine").is_some(), "it was not put, and stays");
    right(WriteRight::Held);
    eventually("it is put", || b.has_value("mine", "waits"));
    assert_eq!(b.problems(), Vec::<String>::new());
    become_equal(&a, &b);
}

#[test]
fn a_commit_that_fails_does_not_stop_what_comes() {
    let (a, mut b) = (Device::new(1), Device::new(2));
    a.save("old", "x");
    become_equal(&a, &b);
    b.stop();
    // The right ends between the look and the commit: the folder does not know.
    b.replica.inner.lock().unwrap().refuses = true;
    b.save("mine", "cannot be put");
    a.save("new", "from a");
    eventually("a has put it", || a.has_value("new", "from a"));
    b.replica.merge(&a.replica);
    b.start(Mode::ReadWrite, Permission::Ask);
    eventually("it comes", || b.read("new").as_deref() == Some("from a"));
}

#[test]
fn a_version_that_took_the_name_and_never_reached_the_disk_was_not_seen_by_the_next_edit() {
    let (a, b) = (Device::new(1), Device::new(2));
    a.save("x", "first");
    become_equal(&a, &b);
    a.replica.inner.lock().unwrap().withheld = true;
    let large = "by b, and long ".repeat(5_000);
    a.save("x", "by a");
    eventually("it is put", || a.has_value("x", "by a"));
    b.save("x", &large);
    eventually("it is put", || b.has_value("x", &large));
    a.replica.merge(&b.replica);
    eventually("a keeps its own", || a.files().keys().any(|name| name.contains("conflict")));
    assert_eq!(a.read("x").as_deref(), Some("by a"), "the other one is on its way");
    a.save("x", "by a again");
    eventually("it is put", || a.has_value("x", "by a again"));
    b.replica.merge(&a.replica);
    eventually("b keeps its own", || b.read("x").as_deref() == Some("by a again"));
    a.replica.inner.lock().unwrap().withheld = false;
    become_equal(&a, &b);
    let texts: Vec<_> = a.files().into_values().collect();
    for text in ["by a", "by a again", &large] {
        assert!(texts.iter().any(|there| there == text), "{:?}", a.files().keys());
    }
}

#[test]
fn a_version_whose_content_the_replica_has_lost_is_kept_from_the_disk() {
    let (a, b) = (Device::new(1), Device::new(2));
    a.save("x", "first");
    become_equal(&a, &b);
    let large = "by a, and long ".repeat(5_000);
    a.save("x", &large);
    eventually("it is put", || a.has_value("x", &large));
    a.replica.inner.lock().unwrap().withheld = true;
    b.replica.inner.lock().unwrap().clock += 10;
    b.save("x", "by b");
    eventually("it is put", || b.has_value("x", "by b"));
    a.replica.merge(&b.replica);
    eventually("theirs is written", || a.read("x").as_deref() == Some("by b"));
    a.replica.inner.lock().unwrap().withheld = false;
    a.inbox.look_at_everything();
    // It goes beside after theirs has come.
    eventually("it is beside", || {
        b.replica.merge(&a.replica);
        b.files().values().any(|text| *text == large)
    });
    become_equal(&a, &b);
}

#[test]
fn a_folder_that_may_not_write_any_more_sets_its_own_version_aside_before_another_takes_its_place() {
    for other_deletes in [false, true] {
        let (a, b) = (Device::new(1), Device::new(2));
        a.save("x", "first");
        a.save("other", "so that the folder is not empty");
        become_equal(&a, &b);
        b.save("x", "by b");
        eventually("it is put", || b.has_value("x", "by b"));
        b.replica.inner.lock().unwrap().right = Some(WriteRight::Ended);
        // What a does is the newer one.
        a.replica.inner.lock().unwrap().clock += 10;
        match other_deletes {
            true => fs::remove_file(a.path("x")).unwrap(),
            false => a.save("x", "by a"),
        }
        let done = || if other_deletes { a.is_deleted("x") } else { a.has_value("x", "by a") };
        eventually("it is put", done);
        let expected = if other_deletes { None } else { Some("by a") };
        eventually("b follows, and its own is beside", || {
            b.replica.merge(&a.replica);
            let kept = b.files().into_iter().find(|(name, _)| name.starts_with("x (conflict "));
            b.read("x").as_deref() == expected && kept.is_some_and(|(_, text)| text == "by b")
        });
    }
}

#[test]
fn a_file_that_cannot_be_set_aside_keeps_no_other_from_coming() {
    let (a, mut b) = (Device::new(1), Device::stopped(2));
    b.start(Mode::ReadOnly, Permission::Ask);
    // There is no room for a longer name in its key.
    let directories = ["d".repeat(250), "e".repeat(250), "f".repeat(250), "g".repeat(250)].join("/");
    let deep = format!("{directories}/name");
    a.save(&deep, "first");
    eventually("b follows", || {
        b.replica.merge(&a.replica);
        b.read(&deep).is_some()
    });
    b.save(&deep, "edited on b");
    a.save(&deep, "second");
    a.save("other", "from a");
    eventually("both are put", || a.has_value(&deep, "second") && a.has_value("other", "from a"));
    eventually("the other comes", || {
        b.replica.merge(&a.replica);
        b.read("other").as_deref() == Some("from a")
    });
    eventually("it is told", || b.problems().iter().any(|problem| problem.contains("shorten")));
    assert_eq!(b.read(&deep).as_deref(), Some("edited on b"));
}

#[test]
fn a_link_out_of_the_folder_in_the_place_of_a_file_deletes_it_nowhere() {
    let (a, b) = (Device::new(1), Device::new(2));
    let elsewhere = tempfile::tempdir().unwrap();
    a.save("x", "text");
    become_equal(&a, &b);
    // In one step: a file that is gone for a moment is one that was deleted.
    fs::copy(a.path("x"), elsewhere.path().join("x")).unwrap();
    symlink(elsewhere.path().join("x"), elsewhere.path().join("link")).unwrap();
    fs::rename(elsewhere.path().join("link"), a.path("x")).unwrap();
    eventually("it is told", || a.problems().iter().any(|problem| problem.contains("in its place")));
    a.save("last", "last");
    eventually("all is looked at", || a.has_value("last", "last"));
    assert!(a.has_value("x", "text"));
    b.save("x", "edited by b");
    eventually("it is put", || b.has_value("x", "edited by b"));
    a.replica.merge(&b.replica);
    fs::remove_file(a.path("x")).unwrap();
    eventually("the edit comes when the way is free", || a.read("x").as_deref() == Some("edited by b"));
    assert_eq!(fs::read_to_string(elsewhere.path().join("x")).unwrap(), "text");
}

#[test]
fn a_file_that_is_being_written_is_not_taken_by_a_look_at_everything() {
    use std::io::Write as _;
    let a = Device::new(1);
    a.save("other", "it is watched");
    eventually("it is put", || a.has_value("other", "it is watched"));
    let mut file = fs::File::create(a.path("x")).unwrap();
    let key = FileKey::new(b"x").unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        while stopped.recv_timeout(Duration::from_millis(20)).is_err() {
            file.write_all(b"half ").unwrap();
        }
        file.write_all(b"whole").unwrap();
    });
    eventually("the system has told", || a.inbox.take_open(&mut vec![key.clone()]).len() == 1);
    for round in 0..3 {
        a.inbox.look_at_everything();
        a.save("other", &format!("{round}"));
        eventually("the other is put", || a.has_value("other", &format!("{round}")));
    }
    assert!(a.is_deleted("x"), "half of it was taken");
    stop.send(()).unwrap();
    writer.join().unwrap();
    eventually("it is put", || a.has_value("x", &a.read("x").unwrap()));
    assert!(a.read("x").unwrap().ends_with("whole"));
}

#[test]
fn what_cannot_be_brought_back_after_a_kill_stays_is_told_and_comes_when_the_way_is_free() {
    let mut a = Device::new(1);
    a.save("d/x", "first");
    eventually("it is put", || a.has_value("d/x", "first"));
    a.stop();
    let key = FileKey::new(b"d/x").unwrap();
    let workshop = Workshop::open(&a.root()).unwrap();
    fs::write(workshop.aside(&key), "saved before it was removed").unwrap();
    // A file is where its directory was.
    fs::remove_dir_all(a.path("d")).unwrap();
    a.save("d", "in the way");
    for round in ["first", "second"] {
        a.start(Mode::ReadWrite, Permission::Ask);
        a.save("last", round);
        eventually("all is looked at", || a.has_value("last", round));
        let there = a.problems().iter().any(|problem| problem.contains("could not be brought back"));
        let back =
            a.files().iter().any(|(name, text)| name.starts_with("recovered") && text.starts_with("saved before"));
        assert!(there != back, "it is in one place and told, or back: {:?} {:?}", a.problems(), a.files());
        a.stop();
        if back {
            return;
        }
    }
    panic!("it is not back: {:?}", a.files());
}
