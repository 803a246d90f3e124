//! Looking at the disk: the whole folder, or one file.
//!
//! Links are never followed. What cannot be shared is named with its reason; what cannot be read
//! is never taken for deleted.

use std::{
    fs,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use sync_core::model::Hash;

use super::{
    ignore::IgnoreRules,
    key::{FileKey, IGNORE_FILE, KeyProblem, TEMPORARY_DIR, absolute, link_stays_inside},
    plan::Kind,
    state::Stat,
};

/// Why something in the folder is not shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unshared {
    /// A device, a pipe, a socket.
    #[error("it is no regular file")]
    Special,
    /// A link to an absolute place or out of the folder.
    #[error("the link points out of the folder")]
    LinkOutside,
    /// A path that cannot be a key.
    #[error(transparent)]
    Key(#[from] KeyProblem),
    /// The system does not let us.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Lines in an ignore file that are no rules.
    #[error("a line in it is no rule: {0}")]
    IgnoreFile(String),
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scan {
    /// The files that are shared.
    pub files: Vec<(FileKey, Stat)>,
    /// What is not shared, and why, by its path in the folder.
    pub unshared: Vec<(PathBuf, Unshared)>,
    /// Directories that could not be read: what is beneath them is unknown, not gone.
    pub unknown: Vec<PathBuf>,
}

impl Scan {
    /// Whether the file may be there though the scan did not find it.
    pub fn is_unknown(&self, key: &FileKey) -> bool {
        self.unknown.iter().any(|directory| key.path().starts_with(directory))
    }
}

/// Scans the directory `start` (relative to the folder; empty for all of it), reading the ignore
/// files on the way.
pub fn scan(root: &Path, start: &Path, rules: &mut IgnoreRules) -> Scan {
    let mut scan = Scan::default();
    let mut stack = vec![start.to_path_buf()];
    while let Some(directory) = stack.pop() {
        if let Some(problem) = rules.load(&directory) {
            scan.unshared.push((directory.join(IGNORE_FILE), Unshared::IgnoreFile(problem)));
        }
        if let Err(error) = scan_directory(root, &directory, rules, &mut scan, &mut stack) {
            // Gone meanwhile is gone; anything else is unknown.
            if error.kind() != io::ErrorKind::NotFound || directory.as_os_str().is_empty() {
                scan.unshared.push((directory.clone(), Unshared::Unreadable(error.to_string())));
                scan.unknown.push(directory);
            }
        }
    }
    scan
}

fn scan_directory(
    root: &Path,
    directory: &Path,
    rules: &IgnoreRules,
    scan: &mut Scan,
    stack: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(root.join(directory))? {
        let entry = entry?;
        let path = directory.join(entry.file_name());
        if directory.as_os_str().is_empty() && entry.file_name() == TEMPORARY_DIR {
            continue;
        }
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                scan.unshared.push((path.clone(), Unshared::Unreadable(error.to_string())));
                scan.unknown.push(path);
                continue;
            }
        };
        if rules.ignores_here(&path, metadata.is_dir()) {
            continue;
        }
        if metadata.is_dir() {
            stack.push(path);
            continue;
        }
        match shared(root, &path, &metadata) {
            Ok(file) => scan.files.push(file),
            Err(reason) => scan.unshared.push((path, reason)),
        }
    }
    Ok(())
}

/// The key of something that is no directory, if it can be shared.
fn shared(root: &Path, path: &Path, metadata: &fs::Metadata) -> Result<(FileKey, Stat), Unshared> {
    let stat = Stat::of(metadata).ok_or(Unshared::Special)?;
    let key = FileKey::of_path(path)?;
    if stat.kind == Kind::Link {
        let target = fs::read_link(root.join(path)).map_err(|error| Unshared::Unreadable(error.to_string()))?;
        if !link_stays_inside(&key, target.as_os_str().as_bytes()) {
            return Err(Unshared::LinkOutside);
        }
    }
    Ok((key, stat))
}

/// What one look at a path shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Nothing is there.
    Absent,
    /// A file or a link.
    File(Stat),
    /// A directory.
    Directory,
    /// Something on the way to it is no directory.
    Blocked,
    /// It is nothing that can be shared.
    Refused(Unshared),
    /// The system does not say.
    Unknown(String),
}

/// Looks at one file, without following links.
pub fn look(root: &Path, key: &FileKey) -> Look {
    for directory in key.directories() {
        match fs::symlink_metadata(root.join(directory)) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Look::Blocked,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Look::Absent,
            Err(error) => return Look::Unknown(error.to_string()),
        }
    }
    match fs::symlink_metadata(absolute(root, key)) {
        Ok(metadata) if metadata.is_dir() => Look::Directory,
        Ok(metadata) => match shared(root, key.path(), &metadata) {
            Ok((_, stat)) => Look::File(stat),
            Err(Unshared::Unreadable(error)) => Look::Unknown(error),
            Err(reason) => Look::Refused(reason),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Look::Absent,
        Err(error) => Look::Unknown(error.to_string()),
    }
}

/// Reading a file that somebody may be writing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It changed while it was read: not taken now.
    #[error("it is being written")]
    Unstable,
    /// The system does not let us.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// BLAKE3 of a file that has not changed since `stat`.
pub fn hash_file(path: &Path, stat: &Stat) -> Result<Hash, ReadError> {
    let mut hasher = blake3::Hasher::new();
    if stat.kind == Kind::Link {
        hasher.update(fs::read_link(path)?.as_os_str().as_bytes());
    } else {
        let mut file = fs::File::open(path)?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            };
        }
    }
    check_unchanged(path, stat)?;
    Ok(Hash(*hasher.finalize().as_bytes()))
}

/// The bytes of a file that has not changed since `stat`.
pub fn read_file(path: &Path, stat: &Stat) -> Result<Vec<u8>, ReadError> {
    let bytes = match stat.kind {
        Kind::Link => fs::read_link(path)?.into_os_string().as_bytes().to_vec(),
        _ => fs::read(path)?,
    };
    check_unchanged(path, stat)?;
    Ok(bytes)
}

/// Whether the file is still as `stat` says.
pub fn check_unchanged(path: &Path, stat: &Stat) -> Result<(), ReadError> {
    match Stat::of(&fs::symlink_metadata(path)?) {
        Some(now) if now == *stat => Ok(()),
        _ => Err(ReadError::Unstable),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn key(name: &str) -> FileKey {
        FileKey::new(name.as_bytes()).unwrap()
    }

    #[test]
    fn a_scan_finds_files_and_names_what_is_not_shared() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(root.join(TEMPORARY_DIR)).unwrap();
        fs::write(root.join(TEMPORARY_DIR).join("x"), "x").unwrap();
        fs::write(root.join("a/b/c.txt"), "c").unwrap();
        fs::write(root.join("a/skip.log"), "c").unwrap();
        fs::write(root.join(IGNORE_FILE), "*.log").unwrap();
        fs::write(root.join("run"), "c").unwrap();
        fs::set_permissions(root.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("a/b", root.join("inside")).unwrap();
        symlink("/etc/passwd", root.join("outside")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let mut found = scan(root, Path::new(""), &mut IgnoreRules::new(root));
        found.files.sort_by(|a, b| a.0.cmp(&b.0));
        let files: Vec<_> = found.files.iter().map(|(key, stat)| (key.to_string(), stat.kind)).collect();
        let expected = [
            (".synclineignore", Kind::File),
            ("a/b/c.txt", Kind::File),
            ("inside", Kind::Link),
            ("run", Kind::Executable),
        ];
        assert_eq!(files, expected.map(|(name, kind)| (name.to_string(), kind)));
        found.unshared.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [("outside".into(), Unshared::LinkOutside), ("socket".into(), Unshared::Special)];
        assert_eq!(found.unshared, expected);
    }

    #[test]
    fn a_missing_folder_is_unknown_and_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let found = scan(&gone, Path::new(""), &mut IgnoreRules::new(&gone));
        assert!(found.is_unknown(&key("a")));
    }

    #[test]
    fn a_look_through_a_link_or_a_file_is_blocked() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("real")).unwrap();
        fs::write(root.join("real/a"), "a").unwrap();
        symlink("real", root.join("link")).unwrap();
        assert!(matches!(look(root, &key("real/a")), Look::File(_)));
        assert_eq!(look(root, &key("link/a")), Look::Blocked);
        assert_eq!(look(root, &key("real/a/b")), Look::Blocked);
        assert_eq!(look(root, &key("real")), Look::Directory);
        assert_eq!(look(root, &key("none/a")), Look::Absent);
    }

    #[test]
    fn a_file_that_changed_since_it_was_looked_at_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "half").unwrap();
        let stat = Stat::of(&fs::symlink_metadata(&path).unwrap()).unwrap();
        assert_eq!(hash_file(&path, &stat).unwrap().0, *blake3::hash(b"half").as_bytes());
        fs::write(&path, "half and the rest").unwrap();
        assert!(matches!(hash_file(&path, &stat), Err(ReadError::Unstable)));
        assert!(matches!(read_file(&path, &stat), Err(ReadError::Unstable)));
    }
}
