//! What a command makes, and takes back when it fails: bad input leaves nothing behind.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// What was made. Dropped, it goes away again; [`Made::keep`] lets it stay.
#[derive(Debug, Default)]
pub struct Made {
    /// Directories, outermost first; only empty ones are removed.
    directories: Vec<PathBuf>,
    /// What is removed with all that is in it.
    whole: Vec<PathBuf>,
}

impl Made {
    /// Makes a directory, and those above it that are missing.
    pub fn directory(path: &Path, mode: u32) -> io::Result<Self> {
        let missing =
            |path: &&Path| matches!(fs::symlink_metadata(path), Err(error) if error.kind() == ErrorKind::NotFound);
        let mut directories: Vec<PathBuf> = path.ancestors().take_while(missing).map(Path::to_path_buf).collect();
        directories.reverse();
        // Even when it fails half-way, what was made goes away.
        let made = Self { directories, whole: Vec::new() };
        fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
        Ok(made)
    }

    /// Takes note of what will be made at `path`, unless something is there already.
    pub fn note(&mut self, path: PathBuf) {
        if fs::symlink_metadata(&path).is_err() {
            self.whole.push(path);
        }
    }

    /// Takes note of something that was made at `path`.
    pub fn own(&mut self, path: PathBuf) {
        self.whole.push(path);
    }

    /// The command succeeded.
    pub fn keep(mut self) {
        self.directories.clear();
        self.whole.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // What cannot be removed is left: the error that led here is the one to tell.
        for path in &self.whole {
            let _ = match fs::symlink_metadata(path) {
                Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
                _ => fs::remove_file(path),
            };
        }
        for directory in self.directories.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_goes_away_and_what_was_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("old")).unwrap();
        fs::write(at("old/file"), "x").unwrap();
        let mut made = Made::directory(&at("old/new/inner"), 0o700).unwrap();
        made.note(at("old/file"));
        made.note(at("old/new/inner/store"));
        fs::create_dir_all(at("old/new/inner/store/deep")).unwrap();
        drop(made);
        assert!(!at("old/new").exists() && at("old/file").exists());
        // A user's file in a directory that was made keeps it.
        let made = Made::directory(&at("new/inner"), 0o700).unwrap();
        fs::write(at("new/inner/mine"), "x").unwrap();
        drop(made);
        assert!(at("new/inner/mine").exists());
        Made::directory(&at("kept"), 0o700).unwrap().keep();
        assert!(at("kept").exists());
    }
}
