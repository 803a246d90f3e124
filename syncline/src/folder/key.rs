//! Files and their keys.
//!
//! The file `a/b.txt` is the value at the key `a/b.txt`: the bytes of its path inside the folder,
//! with `/` between the parts. What else must be known of a file stands in *companion* keys, the
//! file's key with a suffix that no path can have:
//!
//! | key | value |
//! |---|---|
//! | `path\0x` | empty: this author's version is executable |
//! | `path\0l` | the target: this author's version is a symbolic link |
//! | `path\0v` | what this author's version has seen: map of author to timestamp |
//! | `path\0a` | which versions took the name while this author's was kept under another one: the same map |
//! | `path\0d` | what this author's deletion has seen |
//!
//! A plain file that only one author ever wrote has none.

use std::{
    ffi::OsStr,
    fmt,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use sync_core::model::MAX_KEY_LEN;

/// The directory for files in the making, at the top of a shared folder. Never shared.
pub const TEMPORARY_DIR: &str = ".syncline-tmp";

/// The file with rules, in gitignore syntax, about what is not shared.
pub const IGNORE_FILE: &str = ".synclineignore";

/// The longest name of a file or directory; no common file system has longer ones.
const MAX_NAME_LEN: usize = 255;

/// Room for the suffix of a companion.
const SUFFIX_LEN: usize = 2;

/// The key of a file: a path that stays inside the folder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey(Arc<[u8]>);

/// Why a key cannot be a file, or a path cannot be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// The path is longer than a key may be.
    #[error("the path has more than {} bytes: shorten its names", MAX_KEY_LEN - SUFFIX_LEN)]
    TooLong,
    /// A part of the path is longer than a file's name may be.
    #[error("a name in the path has more than {MAX_NAME_LEN} bytes: shorten it")]
    NameTooLong,
    /// Empty parts, `.`, `..`, an absolute path or a byte 0.
    #[error("it is not a relative path that stays inside the folder")]
    Outside,
    /// The directory for files in the making.
    #[error("`{TEMPORARY_DIR}` is for files in the making and is not shared")]
    Reserved,
}

impl FileKey {
    /// Checks that the bytes are a path that stays inside the folder.
    pub fn new(bytes: &[u8]) -> Result<Self, KeyProblem> {
        if bytes.len() > MAX_KEY_LEN - SUFFIX_LEN {
            return Err(KeyProblem::TooLong);
        }
        if bytes.contains(&0) {
            return Err(KeyProblem::Outside);
        }
        for (depth, part) in bytes.split(|&byte| byte == b'/').enumerate() {
            match part {
                b"" | b"." | b".." => return Err(KeyProblem::Outside),
                _ if part.len() > MAX_NAME_LEN => return Err(KeyProblem::NameTooLong),
                _ if depth == 0 && part == TEMPORARY_DIR.as_bytes() => return Err(KeyProblem::Reserved),
                _ => {}
            }
        }
        Ok(Self(bytes.into()))
    }

    /// The key of the file at `path`, relative to the folder.
    pub fn of_path(path: &Path) -> Result<Self, KeyProblem> {
        let mut bytes = Vec::new();
        for part in path.components() {
            let Component::Normal(name) = part else { return Err(KeyProblem::Outside) };
            if !bytes.is_empty() {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(name.as_bytes());
        }
        Self::new(&bytes)
    }

    /// The path, relative to the folder.
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The directories on the way to the file, from the top; without the folder itself.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        let slashes = self.0.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        slashes.map(|(at, _)| Path::new(OsStr::from_bytes(&self.0[..at])))
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key of a companion.
    pub fn companion(&self, companion: Companion) -> Vec<u8> {
        [&self.0[..], &[0, companion as u8]].concat()
    }

    /// What all companions' keys begin with.
    pub fn companions(&self) -> Vec<u8> {
        [&self.0[..], &[0]].concat()
    }

    /// The same file name with ` (note)` before its extension.
    pub fn with_note(&self, note: &str) -> Result<Self, KeyProblem> {
        let path = self.path();
        let mut stem = path.file_stem().unwrap_or_default().as_bytes();
        let extension = path.extension().map(OsStr::as_bytes);
        let added = note.len() + 3 + extension.map_or(0, |extension| extension.len() + 1);
        // A long name loses its end, not its note: what matters is that the copy exists.
        stem = shortened(stem, MAX_NAME_LEN.saturating_sub(added));
        let directory = path.parent().map(|parent| parent.as_os_str().as_bytes()).unwrap_or_default();
        let room = (MAX_KEY_LEN - SUFFIX_LEN).saturating_sub(directory.len() + 1 + added);
        stem = shortened(stem, room);
        let mut bytes = directory.to_vec();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(stem);
        bytes.extend_from_slice(format!(" ({note})").as_bytes());
        if let Some(extension) = extension {
            bytes.push(b'.');
            bytes.extend_from_slice(extension);
        }
        Self::new(&bytes)
    }
}

/// At most `len` bytes of a name, not cut inside a character when it is text.
fn shortened(name: &[u8], len: usize) -> &[u8] {
    if name.len() <= len {
        return name;
    }
    let mut end = len;
    while end > 0 && name[end] & 0b1100_0000 == 0b1000_0000 {
        end -= 1;
    }
    &name[..end]
}

impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path().display())
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.path())
    }
}

/// A kind of companion key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Companion {
    /// The author's version is executable.
    Executable = b'x',
    /// The author's version is a symbolic link.
    Link = b'l',
    /// What the author's version has seen.
    Seen = b'v',
    /// Which versions took the name from the author's, that one being kept under another name.
    Answered = b'a',
    /// What the author's deletion has seen.
    SeenByDeletion = b'd',
}

/// What a key is for the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A file.
    File(FileKey),
    /// A companion of a file.
    Companion(FileKey, Companion),
    /// Neither: a key that only applications see.
    Other(KeyProblem),
}

/// What the key is for the folder.
pub fn role_of(key: &[u8]) -> Role {
    let (file, companion) = match key {
        [file @ .., 0, b'x'] => (file, Some(Companion::Executable)),
        [file @ .., 0, b'l'] => (file, Some(Companion::Link)),
        [file @ .., 0, b'v'] => (file, Some(Companion::Seen)),
        [file @ .., 0, b'a'] => (file, Some(Companion::Answered)),
        [file @ .., 0, b'd'] => (file, Some(Companion::SeenByDeletion)),
        file => (file, None),
    };
    match (FileKey::new(file), companion) {
        (Ok(file), None) => Role::File(file),
        (Ok(file), Some(companion)) => Role::Companion(file, companion),
        (Err(problem), _) => Role::Other(problem),
    }
}

/// Whether a symbolic link at `key` may point to `target`: only to relative places inside the folder.
/// It goes up first and then only down: `up/..` leaves the folder when `up` is a link to its top.
pub fn link_stays_inside(key: &FileKey, target: &[u8]) -> bool {
    if target.is_empty() || target.contains(&0) || target.len() > 4095 {
        return false;
    }
    let mut above = key.directories().count();
    for part in Path::new(OsStr::from_bytes(target)).components() {
        match part {
            Component::Normal(_) => above = 0,
            Component::CurDir => {}
            Component::ParentDir if above > 0 => above -= 1,
            _ => return false,
        }
    }
    true
}

/// The absolute path of a file.
pub fn absolute(root: &Path, key: &FileKey) -> PathBuf {
    root.join(key.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> FileKey {
        FileKey::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn keys_that_would_leave_the_folder_are_no_files() {
        for bad in ["", "/etc/passwd", "../a", "a/../b", "a//b", "a/", "./a", "a/.", "a\0b", "a/..", "\0"] {
            assert_eq!(FileKey::new(bad.as_bytes()), Err(KeyProblem::Outside), "{bad:?}");
        }
        assert_eq!(FileKey::new(b".syncline-tmp/a"), Err(KeyProblem::Reserved));
        assert_eq!(FileKey::new(&[b'a'; 256]), Err(KeyProblem::NameTooLong));
        assert_eq!(FileKey::new("ab/".repeat(400).as_bytes()), Err(KeyProblem::TooLong));
        for good in ["a", "a/b.txt", ".hidden", "...", "a/..b", "with space", "a/.syncline-tmp"] {
            assert!(FileKey::new(good.as_bytes()).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_path_and_its_key_are_the_same_bytes() {
        let odd = Path::new(OsStr::from_bytes(b"a/\xff\xfe.txt"));
        let key = FileKey::of_path(odd).unwrap();
        assert_eq!(key.path(), odd);
        assert_eq!(FileKey::of_path(Path::new("/a")), Err(KeyProblem::Outside));
        assert_eq!(FileKey::of_path(Path::new("a/../b")), Err(KeyProblem::Outside));
    }

    #[test]
    fn companions_are_told_from_files() {
        let file = key("a/b.txt");
        assert_eq!(role_of(b"a/b.txt"), Role::File(file.clone()));
        let companions =
            [Companion::Executable, Companion::Link, Companion::Seen, Companion::Answered, Companion::SeenByDeletion];
        for companion in companions {
            assert_eq!(role_of(&file.companion(companion)), Role::Companion(file.clone(), companion));
        }
        assert_eq!(role_of(b"a\0q"), Role::Other(KeyProblem::Outside));
        assert_eq!(role_of(b"../a\0x"), Role::Other(KeyProblem::Outside));
    }

    #[test]
    fn a_note_goes_before_the_extension_and_never_makes_a_name_too_long() {
        assert_eq!(key("a/b.tar.gz").with_note("n").unwrap(), key("a/b.tar (n).gz"));
        assert_eq!(key("Makefile").with_note("n").unwrap(), key("Makefile (n)"));
        assert_eq!(key(".profile").with_note("n").unwrap(), key(".profile (n)"));
        let long = key(&"ä".repeat(127)).with_note("n").unwrap();
        assert!(long.as_bytes().len() <= MAX_NAME_LEN && std::str::from_utf8(long.as_bytes()).is_ok());
        let deep = format!("{}{}", "d/".repeat(400), "x".repeat(222));
        assert!(key(&deep).with_note(&"n".repeat(60)).is_ok());
    }

    #[test]
    fn links_may_only_point_inside() {
        let file = key("a/b/link");
        for good in ["c", "./c", "../c", "../../c", "../../a/b", "../.."] {
            assert!(link_stays_inside(&file, good.as_bytes()), "{good}");
        }
        for bad in ["", "/etc", "../../../c", "../../../folder/a", "a\0", "up/../../x", "c/.."] {
            assert!(!link_stays_inside(&file, bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn directories_on_the_way_come_from_the_top() {
        let file = key("a/b/c");
        assert_eq!(file.directories().collect::<Vec<_>>(), [Path::new("a"), Path::new("a/b")]);
        assert_eq!(key("c").directories().count(), 0);
    }
}
