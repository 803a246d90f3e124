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
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{
    key::{FileKey, TEMPORARY_DIR, absolute, link_stays_inside},
    plan::Kind,
    state::Stat,
};

/// What happened to a file that was to be replaced or removed.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done; the file system now says this of the file (nothing for a removed one).
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
        let purpose = match self {
            Self::New => "new",
            Self::Aside => "aside",
        };
        format!("{purpose}-{}", &blake3::hash(key.as_bytes()).to_hex()[..32])
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
        // Only the last directory is made: where the folder is gone, nothing is written.
        let _ = fs::create_dir(&self.directory);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("{}-{number}", purpose.name_of(key)))
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
        Ok(renameat_with(CWD, left, CWD, absolute(&self.root, key), RenameFlags::NOREPLACE)?)
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
                file.write_all(bytes)?;
                set_executable(&place, kind)?;
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

    /// Moves a temporary file into place, if the file there is still what `expected` says.
    pub fn place_file(&self, temporary: &Path, key: &FileKey, expected: Option<&Stat>) -> io::Result<Outcome> {
        self.make_directories(key)?;
        let target = absolute(&self.root, key);
        let moved = match expected {
            None => match renameat_with(CWD, temporary, CWD, &target, RenameFlags::NOREPLACE) {
                Err(rustix::io::Errno::EXIST) => {
                    fs::remove_file(temporary)?;
                    return Ok(Outcome::Changed);
                }
                moved => moved,
            },
            Some(expected) => match renameat_with(CWD, temporary, CWD, &target, RenameFlags::EXCHANGE) {
                Ok(()) if is_same(temporary, expected) => {
                    fs::remove_file(temporary)?;
                    Ok(())
                }
                Ok(()) => {
                    renameat_with(CWD, temporary, CWD, &target, RenameFlags::EXCHANGE)?;
                    remove_any(temporary)?;
                    return Ok(Outcome::Changed);
                }
                Err(rustix::io::Errno::NOENT) => {
                    fs::remove_file(temporary)?;
                    return Ok(Outcome::Changed);
                }
                Err(error) => Err(error),
            },
        };
        match moved {
            Ok(()) => {}
            // The file system cannot exchange: look, then replace.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                let same = match expected {
                    Some(expected) => is_same(&target, expected),
                    None => fs::symlink_metadata(&target).is_err(),
                };
                if !same {
                    fs::remove_file(temporary)?;
                    return Ok(Outcome::Changed);
                }
                fs::rename(temporary, &target)?;
            }
            Err(error) => {
                let _ = fs::remove_file(temporary);
                return Err(error.into());
            }
        }
        Ok(Outcome::Done(Stat::of(&fs::symlink_metadata(&target)?)))
    }

    /// Removes a file, if it is still what `expected` says, and the directories that it leaves empty.
    pub fn remove_file(&self, key: &FileKey, expected: &Stat) -> io::Result<Outcome> {
        let target = absolute(&self.root, key);
        let aside = self.aside(key);
        match fs::rename(&target, &aside) {
            Ok(()) if is_same(&aside, expected) => fs::remove_file(&aside)?,
            Ok(()) => {
                fs::rename(&aside, &target)?;
                return Ok(Outcome::Changed);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Outcome::Changed),
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

/// Whether the file is what `expected` says; the time of change is not compared, for a move changes it.
fn is_same(path: &Path, expected: &Stat) -> bool {
    let now = fs::symlink_metadata(path).ok().and_then(|metadata| Stat::of(&metadata));
    now.is_some_and(|now| Stat { ctime_ns: expected.ctime_ns, ..now } == *expected)
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
        let done = workshop.place_file(&temporary, &key("a"), Some(&stat(&path))).unwrap();
        assert_eq!(done, Outcome::Done(Some(stat(&path))));
        assert_eq!(stat(&path).kind, Kind::Executable);
        assert_eq!(fs::read(&path).unwrap(), b"new");
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
