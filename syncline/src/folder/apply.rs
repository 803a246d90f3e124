//! Changing the disk: every file is replaced whole, and never one that just changed.
//!
//! New bytes are written to a temporary file in the hidden directory of the folder, brought to
//! disk (one sync for many files), and moved into place. The move *exchanges* the two files where
//! the file system can, and then looks at what came out: if that is not what was expected, a user
//! saved in between, the two are exchanged back and the user's version is imported first.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::UNIX_EPOCH,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use sync_core::model::Timestamp;

use super::{
    conflict::readable,
    key::{FileKey, TEMPORARY_DIR, absolute, link_stays_inside},
    plan::Kind,
    state::Stat,
};

/// What happened to a file that was to be replaced or removed.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; the file system now says this of the new file. Nothing when it is to be looked at again, because
    /// somebody was there since or may be without a trace, and for a removed file.
    Done(Option<Stat>),
    /// The file is not what it was: nothing was done.
    Changed,
}

/// What a temporary file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To become the file; once the two were exchanged, it is the file that was there.
    New,
    /// The file that was there, about to be removed.
    Aside,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::New, Self::Aside];

    /// The first part of the file's name; `-` and a number follow.
    pub fn name_of(self, key: &FileKey) -> String {
        format!("{}-{}", self.word(), &blake3::hash(key.as_bytes()).to_hex()[..32])
    }

    /// Whether a first part is one that this purpose gives.
    pub fn made(self, name: &str) -> bool {
        let hash = name.strip_prefix(self.word()).and_then(|rest| rest.strip_prefix('-'));
        hash.is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Aside => "aside",
        }
    }
}

/// The hidden directory for files in the making.
#[derive(Debug)]
pub struct Workshop {
    root: PathBuf,
    directory: PathBuf,
    next: AtomicU64,
}

impl Workshop {
    /// Finds the directory. What a killed program left in it is [`Self::left`].
    pub fn open(root: &Path) -> io::Result<Self> {
        let directory = root.join(TEMPORARY_DIR);
        match fs::symlink_metadata(&directory) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                let text = format!("{} is in the way: move it", directory.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(Self { root: root.into(), directory, next: AtomicU64::new(0) })
    }

    /// A path for a new temporary file, which is to become the file at `key`.
    pub fn place(&self, key: &FileKey) -> PathBuf {
        self.fresh(Purpose::New, key)
    }

    /// A path for the file at `key`, to be looked at away from its place.
    pub fn aside(&self, key: &FileKey) -> PathBuf {
        self.fresh(Purpose::Aside, key)
    }

    fn fresh(&self, purpose: Purpose, key: &FileKey) -> PathBuf {
        self.fresh_named(&purpose.name_of(key))
    }

    fn fresh_named(&self, name: &str) -> PathBuf {
        // Only the last directory is made: where the folder is gone, nothing is written.
        let _ = fs::create_dir(&self.directory);
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.directory.join(format!("{name}-{number}"));
            // What a killed program left may have a name like this.
            if fs::symlink_metadata(&path).is_err() {
                return path;
            }
        }
    }

    /// The files that a killed program left, whose names say what they were for ([`Purpose::name_of`]).
    pub fn left(&self) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(&self.directory) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Moves a file that was left to `key`, unless something is there.
    pub fn bring_back(&self, left: &Path, key: &FileKey) -> io::Result<()> {
        self.make_directories(key)?;
        rename_new(left, &absolute(&self.root, key))
    }

    /// Gives the file at `key` another name, unless that is taken.
    pub fn move_to(&self, key: &FileKey, to: &FileKey) -> io::Result<()> {
        self.make_directories(to)?;
        rename_new(&absolute(&self.root, key), &absolute(&self.root, to))
    }

    /// Puts back what a user saved and what came out of its place, or beside it when something is there again.
    fn put_back(&self, saved: &Path, key: &FileKey) -> io::Result<()> {
        match self.bring_back(saved, key) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => return done,
        }
        let kept = key.with_note(&format!("saved {}", readable(saved_at(saved)?)));
        let kept = kept.map_err(|problem| io::Error::other(problem.to_string()))?;
        self.bring_back(saved, &kept)
    }

    /// A file that cannot be put back now is not removed as one in the making.
    pub fn set_aside(&self, left: &Path) -> io::Result<()> {
        let name = left.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(rest) = name.strip_prefix(Purpose::New.word()) else { return Ok(()) };
        let hash = rest.rsplit_once('-').map_or(rest, |(hash, _)| hash);
        rename_new(left, &self.fresh_named(&format!("{}{hash}", Purpose::Aside.word())))
    }

    /// Writes a temporary file or link of these bytes.
    pub fn write(&self, key: &FileKey, kind: Kind, bytes: &[u8]) -> io::Result<PathBuf> {
        let place = self.place(key);
        match kind {
            Kind::Link if !link_stays_inside(key, bytes) => {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the link points out of the folder"));
            }
            Kind::Link => std::os::unix::fs::symlink(OsStr::from_bytes(bytes), &place)?,
            Kind::File | Kind::Executable => {
                let mut file = fs::File::create(&place)?;
                let written = file.write_all(bytes).and_then(|()| set_executable(&place, kind));
                if let Err(error) = written {
                    // No room: what was written takes some.
                    let _ = fs::remove_file(&place);
                    return Err(error);
                }
            }
        }
        Ok(place)
    }

    /// Brings all temporary files to disk.
    pub fn sync(&self) -> io::Result<()> {
        rustix::fs::syncfs(fs::File::open(&self.directory)?)?;
        Ok(())
    }

    /// Removes the directory if nothing is in it, so that a folder at rest has only the user's files.
    pub fn tidy(&self) {
        let _ = fs::remove_dir(&self.directory);
    }

    /// Moves a temporary file into place, if the file there is still what `expected` says. The temporary file is gone
    /// then or, if nothing was done, too; but what a user saved meanwhile never is.
    pub fn place_file(&self, temporary: &Path, key: &FileKey, expected: Option<&Stat>) -> io::Result<Outcome> {
        let ours = Stat::of(&fs::symlink_metadata(temporary)?);
        let placed = self.make_directories(key).and_then(|()| self.exchange(temporary, ours, key, expected));
        if placed.is_err() && ours.is_some_and(|ours| is_same(temporary, &ours)) {
            let _ = fs::remove_file(temporary);
        }
        placed
    }

    fn exchange(
        &self,
        temporary: &Path,
        ours: Option<Stat>,
        key: &FileKey,
        expected: Option<&Stat>,
    ) -> io::Result<Outcome> {
        let target = absolute(&self.root, key);
        let Some(expected) = expected else {
            return match rename_new(temporary, &target) {
                Ok(()) => Ok(Outcome::Done(settled(&target, ours))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    fs::remove_file(temporary)?;
                    Ok(Outcome::Changed)
                }
                Err(error) => Err(error),
            };
        };
        match renameat_with(CWD, temporary, CWD, &target, RenameFlags::EXCHANGE) {
            Ok(()) if is_same(temporary, expected) => {
                // Before the old file goes, which takes a while for a large one.
                let stat = settled(&target, ours);
                fs::remove_file(temporary)?;
                Ok(Outcome::Done(stat))
            }
            Ok(()) => self.exchange_back(temporary, ours, key).map(|()| Outcome::Changed),
            Err(rustix::io::Errno::NOENT) => {
                fs::remove_file(temporary)?;
                Ok(Outcome::Changed)
            }
            // The file system cannot exchange.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => self.replace(temporary, ours, key, expected),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces where files cannot be exchanged: the old one goes aside, and for a moment there is none.
    fn replace(&self, temporary: &Path, ours: Option<Stat>, key: &FileKey, expected: &Stat) -> io::Result<Outcome> {
        let target = absolute(&self.root, key);
        let aside = self.aside(key);
        fs::rename(&target, &aside)?;
        if !is_same(&aside, expected) {
            self.put_back(&aside, key)?;
            fs::remove_file(temporary)?;
            return Ok(Outcome::Changed);
        }
        match rename_new(temporary, &target) {
            Ok(()) => {
                let stat = settled(&target, ours);
                fs::remove_file(&aside)?;
                Ok(Outcome::Done(stat))
            }
            // Saved in this moment, in the place of the old one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&aside)?;
                fs::remove_file(temporary)?;
                Ok(Outcome::Changed)
            }
            Err(error) => {
                self.put_back(&aside, key)?;
                Err(error)
            }
        }
    }

    /// What came out of the place of `key` was saved meanwhile. It goes back; what comes out for it is ours, unless
    /// somebody saved once more.
    fn exchange_back(&self, saved: &Path, ours: Option<Stat>, key: &FileKey) -> io::Result<()> {
        let back = renameat_with(CWD, saved, CWD, absolute(&self.root, key), RenameFlags::EXCHANGE);
        if back.is_ok() && ours.is_some_and(|ours| is_same(saved, &ours)) {
            return fs::remove_file(saved);
        }
        if let Err(error) = self.put_back(saved, key) {
            // Nobody may take it for one in the making.
            self.set_aside(saved)?;
            return Err(error);
        }
        Ok(())
    }

    /// Removes a file, if it is still what `expected` says, and the directories that it leaves empty.
    pub fn remove_file(&self, key: &FileKey, expected: &Stat) -> io::Result<Outcome> {
        let target = absolute(&self.root, key);
        let aside = self.aside(key);
        match fs::rename(&target, &aside) {
            Ok(()) if is_same(&aside, expected) => fs::remove_file(&aside)?,
            Ok(()) => {
                self.put_back(&aside, key)?;
                return Ok(Outcome::Changed);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if fs::symlink_metadata(&self.directory).is_ok() || fs::symlink_metadata(&target).is_err() {
                    return Ok(Outcome::Changed);
                }
                // There is no place aside, and no room to make one: the file goes at once, and gives some.
                if !is_same(&target, expected) {
                    return Ok(Outcome::Changed);
                }
                fs::remove_file(&target)?;
            }
            Err(error) => return Err(error),
        }
        let directories: Vec<_> = key.directories().collect();
        for directory in directories.into_iter().rev() {
            // A directory that is not empty stays: that is the point of asking the system.
            if fs::remove_dir(self.root.join(directory)).is_err() {
                break;
            }
        }
        Ok(Outcome::Done(None))
    }

    fn make_directories(&self, key: &FileKey) -> io::Result<()> {
        for directory in key.directories() {
            let path = self.root.join(directory);
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => {
                    let text = format!("{} is no directory", directory.display());
                    return Err(io::Error::new(io::ErrorKind::NotADirectory, text));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::create_dir(&path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    made => made?,
                },
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Sets or clears the executable bit where it differs.
pub fn set_executable(path: &Path, kind: Kind) -> io::Result<()> {
    let mode = fs::symlink_metadata(path)?.permissions().mode();
    let wanted = match kind {
        // Whoever may read it may execute it, as `chmod +x` and the umask have it.
        Kind::Executable => mode | ((mode & 0o444) >> 2),
        Kind::File => mode & !0o111,
        Kind::Link => return Ok(()),
    };
    if wanted != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(wanted))?;
    }
    Ok(())
}

/// Whether the file is what `expected` says.
fn is_same(path: &Path, expected: &Stat) -> bool {
    let now = fs::symlink_metadata(path).ok().and_then(|metadata| Stat::of(&metadata));
    now.is_some_and(|now| now.is_same_file(expected))
}

/// What the file system says of a file that has come into its place, if it is the one that was moved there and a
/// write from now on shows.
fn settled(target: &Path, ours: Option<Stat>) -> Option<Stat> {
    let now = Stat::of(&fs::symlink_metadata(target).ok()?)?;
    ours.filter(|ours| now.is_same_file(ours) && !now.is_racy()).map(|_| now)
}

/// Renames where nothing is yet; [`io::ErrorKind::AlreadyExists`] otherwise.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
        moved => return Ok(moved?),
    }
    // Not every file system has that. A second name is as good, and most have that.
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        Err(_) if fs::symlink_metadata(to).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

/// When the bytes of a file were last changed.
pub fn saved_at(path: &Path) -> io::Result<Timestamp> {
    let saved = fs::symlink_metadata(path)?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Timestamp(u64::try_from(saved.as_micros()).unwrap_or(u64::MAX)))
}

/// Removes a file, or a directory with all that is in it.
pub fn remove_any(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> FileKey {
        FileKey::new(name.as_bytes()).unwrap()
    }

    fn stat(path: &Path) -> Stat {
        Stat::of(&fs::symlink_metadata(path).unwrap()).unwrap()
    }

    fn left(dir: &tempfile::TempDir) -> usize {
        fs::read_dir(dir.path().join(TEMPORARY_DIR)).map(|entries| entries.count()).unwrap_or_default()
    }

    /// Makes it look as if the file had been written some time ago.
    fn old(path: &Path) {
        let ago = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        fs::File::open(path).unwrap().set_modified(ago).unwrap();
    }

    fn workshop() -> (tempfile::TempDir, Workshop) {
        let dir = tempfile::tempdir().unwrap();
        let workshop = Workshop::open(dir.path()).unwrap();
        (dir, workshop)
    }

    #[test]
    fn a_new_file_gets_its_directories_and_replaces_nothing() {
        let (dir, workshop) = workshop();
        let temporary = workshop.write(&key("a/b"), Kind::File, b"new").unwrap();
        workshop.sync().unwrap();
        old(&temporary);
        let done = workshop.place_file(&temporary, &key("a/b"), None).unwrap();
        assert_eq!(done, Outcome::Done(Some(stat(&dir.path().join("a/b")))));
        let temporary = workshop.write(&key("a/b"), Kind::File, b"newer").unwrap();
        assert_eq!(workshop.place_file(&temporary, &key("a/b"), None).unwrap(), Outcome::Changed);
        assert_eq!(fs::read(dir.path().join("a/b")).unwrap(), b"new");
        assert_eq!(left(&dir), 0);
    }

    #[test]
    fn a_file_that_was_saved_in_between_is_not_replaced() {
        let (dir, workshop) = workshop();
        let path = dir.path().join("a");
        fs::write(&path, "looked at").unwrap();
        let expected = stat(&path);
        fs::write(&path, "saved in between").unwrap();
        let temporary = workshop.write(&key("a"), Kind::File, b"new").unwrap();
        assert_eq!(workshop.place_file(&temporary, &key("a"), Some(&expected)).unwrap(), Outcome::Changed);
        assert_eq!(workshop.remove_file(&key("a"), &expected).unwrap(), Outcome::Changed);
        assert_eq!(fs::read(&path).unwrap(), b"saved in between");
        assert_eq!(left(&dir), 0);
    }

    #[test]
    fn a_file_as_expected_is_replaced_whole() {
        let (dir, workshop) = workshop();
        let path = dir.path().join("a");
        fs::write(&path, "old").unwrap();
        let temporary = workshop.write(&key("a"), Kind::Executable, b"new").unwrap();
        old(&temporary);
        let mut reader = fs::File::open(&path).unwrap();
        let done = workshop.place_file(&temporary, &key("a"), Some(&stat(&path))).unwrap();
        assert_eq!(done, Outcome::Done(Some(stat(&path))));
        assert_eq!(stat(&path).kind, Kind::Executable);
        assert_eq!(fs::read(&path).unwrap(), b"new");
        // Whoever was reading goes on with the old file.
        let mut text = String::new();
        io::Read::read_to_string(&mut reader, &mut text).unwrap();
        assert_eq!(text, "old");
    }

    #[test]
    fn the_file_system_is_believed_only_of_the_file_that_was_put_there_and_when_a_write_would_show() {
        let (dir, workshop) = workshop();
        let path = dir.path().join("a");
        // On a busy machine the moment may have passed before it is asked.
        let is_doubted = |_: u32| {
            fs::rename(workshop.write(&key("a"), Kind::File, b"new").unwrap(), &path).unwrap();
            settled(&path, Some(stat(&path))).is_none()
        };
        assert!((0..50).any(is_doubted), "a write in this moment would not show");
        old(&path);
        let ours = stat(&path);
        assert_eq!(settled(&path, Some(ours)), Some(ours));
        fs::write(dir.path().join("b"), "new").unwrap();
        old(&dir.path().join("b"));
        fs::rename(dir.path().join("b"), &path).unwrap();
        assert_eq!(settled(&path, Some(ours)), None, "a user saved another file there");
        fs::remove_file(&path).unwrap();
        assert_eq!(settled(&path, Some(ours)), None);
    }

    #[test]
    fn what_is_saved_while_a_saved_file_goes_back_is_not_lost_either() {
        let saved = |dir: &tempfile::TempDir| {
            let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
            let mut texts: Vec<_> =
                files.filter(|path| path.is_file()).map(|path| fs::read_to_string(path).unwrap()).collect();
            texts.sort();
            texts
        };
        for (there, kept) in [
            // As it mostly is: ours.
            (Some("ours"), vec!["saved"]),
            // Saved once more.
            (Some("saved again"), vec!["saved", "saved again"]),
            // Deleted.
            (None, vec!["saved"]),
        ] {
            let (dir, workshop) = workshop();
            let path = dir.path().join("a");
            let temporary = workshop.write(&key("a"), Kind::File, b"ours").unwrap();
            fs::rename(&temporary, &path).unwrap();
            let ours = stat(&path);
            match there {
                Some("ours") => {}
                Some(text) => fs::write(&path, text).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            fs::write(&temporary, "saved").unwrap();
            workshop.exchange_back(&temporary, Some(ours), &key("a")).unwrap();
            assert_eq!(saved(&dir), kept);
            assert_eq!(fs::read_to_string(&path).unwrap(), "saved");
            assert_eq!(left(&dir), 0);
        }
        // The same when a file was to be removed, and another was made in its place.
        let (dir, workshop) = workshop();
        let aside = workshop.aside(&key("a"));
        fs::write(&aside, "saved").unwrap();
        fs::write(dir.path().join("a"), "made meanwhile").unwrap();
        workshop.put_back(&aside, &key("a")).unwrap();
        assert_eq!(saved(&dir), ["made meanwhile", "saved"]);
        assert_eq!(left(&dir), 0);
    }

    #[test]
    fn where_files_cannot_be_exchanged_one_is_replaced_if_it_is_what_it_was() {
        for saved in [false, true] {
            let (dir, workshop) = workshop();
            let path = dir.path().join("a");
            fs::write(&path, "old").unwrap();
            let expected = stat(&path);
            if saved {
                fs::write(&path, "saved in between").unwrap();
            }
            let temporary = workshop.write(&key("a"), Kind::File, b"new").unwrap();
            old(&temporary);
            let ours = stat(&temporary);
            let outcome = workshop.replace(&temporary, Some(ours), &key("a"), &expected).unwrap();
            let (done, text) = match saved {
                true => (Outcome::Changed, "saved in between"),
                false => (Outcome::Done(Some(stat(&path))), "new"),
            };
            assert_eq!(outcome, done);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(left(&dir), 0);
        }
    }

    #[test]
    fn a_name_that_a_kill_left_is_not_given_again() {
        let (_dir, first) = workshop();
        let left = first.aside(&key("a"));
        fs::write(&left, "saved").unwrap();
        let second = Workshop::open(&first.root).unwrap();
        assert_ne!(second.aside(&key("a")), left);
    }

    #[test]
    fn the_last_file_takes_its_empty_directories_with_it() {
        let (dir, workshop) = workshop();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/c"), "c").unwrap();
        fs::write(dir.path().join("a/d"), "d").unwrap();
        let expected = stat(&dir.path().join("a/b/c"));
        assert_eq!(workshop.remove_file(&key("a/b/c"), &expected).unwrap(), Outcome::Done(None));
        assert!(!dir.path().join("a/b").exists() && dir.path().join("a/d").exists());
    }

    #[test]
    fn nothing_is_written_through_a_link_out_of_the_folder() {
        let (dir, workshop) = workshop();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("a")).unwrap();
        let temporary = workshop.write(&key("a/b"), Kind::File, b"new").unwrap();
        assert!(workshop.place_file(&temporary, &key("a/b"), None).is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(workshop.write(&key("l"), Kind::Link, b"../../etc").is_err());
    }
}
