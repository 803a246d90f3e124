//! Which directories can be shared.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::lock::FolderLock;
use crate::{
    error::{CliError, Result},
    made::Made,
};

/// Whether a missing folder is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is made.
    Make,
    /// It is an error.
    Refuse,
}

/// A folder that can be shared, and is held for that.
#[derive(Debug)]
pub struct Shareable {
    /// The folder, canonical.
    pub path: PathBuf,
    /// Keeps other programs out.
    pub lock: FolderLock,
    /// The folder, if it was missing: it goes away again unless this is kept.
    pub made: Made,
}

/// Checks that a folder can be shared, and takes it. `others` are the folders that this node shares already, `data` is
/// its data directory.
pub fn shareable(folder: &Path, missing: Missing, others: &[PathBuf], data: &Path) -> Result<Shareable> {
    let shown = folder.display();
    let made = match fs::metadata(folder) {
        Ok(metadata) if !metadata.is_dir() => {
            return Err(CliError::failed(format!("{shown} is a file: name the directory that it is in")));
        }
        Ok(_) => Made::default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match missing {
            Missing::Refuse => {
                return Err(CliError::failed(format!(
                    "the folder {shown} does not exist: make it with mkdir, or name another"
                )));
            }
            Missing::Make => {
                let absolute = std::path::absolute(folder).map_err(|error| CliError::io(&shown, &error))?;
                Made::directory(&absolute, 0o777)
                    .map_err(|error| CliError::io(format!("the folder {shown} cannot be made"), &error))?
            }
        },
        Err(error) => return Err(CliError::io(format!("the folder {shown} cannot be read"), &error)),
    };
    let path = check_there(folder, others, data)?;
    let lock = FolderLock::take(&path)?;
    Ok(Shareable { path, lock, made })
}

fn check_there(folder: &Path, others: &[PathBuf], data: &Path) -> Result<PathBuf> {
    let shown = folder.display();
    fs::read_dir(folder).map_err(|error| {
        CliError::failed(format!("the folder {shown} cannot be read ({error}): give yourself the right with chmod"))
    })?;
    let path = fs::canonicalize(folder).map_err(|error| CliError::io(&shown, &error))?;
    let data = fs::canonicalize(data).unwrap_or_else(|_| data.to_path_buf());
    if data.starts_with(&path) {
        return Err(CliError::failed(format!(
            "the folder {shown} holds the data directory {}: choose another with --data",
            data.display()
        )));
    }
    if path.starts_with(&data) {
        return Err(CliError::failed(format!(
            "the folder {shown} is inside the data directory {}: choose another folder",
            data.display()
        )));
    }
    for other in others.iter().filter(|other| **other != path) {
        if path.starts_with(other) {
            return Err(CliError::failed(format!(
                "the folder {shown} is inside {}, which is shared already: share only one of them",
                other.display()
            )));
        }
        if other.starts_with(&path) {
            return Err(CliError::failed(format!(
                "the folder {shown} holds {}, which is shared already: share only one of them",
                other.display()
            )));
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(folder: &Path, others: &[PathBuf], data: &Path) -> String {
        shareable(folder, Missing::Refuse, others, data).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_shared_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        for name in ["data/sub", "shared/sub", "free"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("file"), "x").unwrap();
        let (data, others) = (root.join("data"), [root.join("shared")]);
        assert!(refused(&root.join("none"), &others, &data).contains("does not exist"));
        assert!(refused(&root.join("file"), &others, &data).contains("is a file"));
        assert!(refused(&root.join("data/sub"), &others, &data).contains("inside the data directory"));
        assert!(refused(&root, &[], &data).contains("holds the data directory"));
        assert!(refused(&root.join("shared/sub"), &others, &data).contains("shared already"));
        assert!(refused(&root, &others, Path::new("/elsewhere")).contains("shared already"));
        for name in ["free", "shared"] {
            assert_eq!(shareable(&root.join(name), Missing::Refuse, &others, &data).unwrap().path, root.join(name));
        }
    }

    #[test]
    fn a_missing_folder_is_made_when_that_is_meant_and_not_left_behind_when_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let new = root.join("a/b");
        let shared = shareable(&new, Missing::Make, &[], Path::new("/elsewhere")).unwrap();
        assert_eq!(shared.path, new);
        drop(shared);
        assert!(!root.join("a").exists(), "nobody kept it");
        let inside = root.join("data/b");
        fs::create_dir(root.join("data")).unwrap();
        assert!(shareable(&inside, Missing::Make, &[], &root.join("data")).is_err());
        assert!(!inside.exists());
    }
}
