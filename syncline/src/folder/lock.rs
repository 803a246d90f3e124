//! One program keeps a folder: no other may keep it, one inside it, or one that it is inside of.
//!
//! The folder's directory is locked exclusively, those above it together with others (`flock` on the
//! directories themselves, so nothing is left behind, and the system takes the locks back however the program
//! ends). So programs of one machine see each other whatever their data directories. Where a file system has no
//! such locks, and for directories that cannot be opened, the folder is kept without.

use std::{fs::File, path::Path};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{CliError, Result};

/// Holds a folder for this program until it is dropped.
#[derive(Debug)]
pub struct FolderLock {
    _held: Vec<File>,
}

impl FolderLock {
    /// Takes the folder at a canonical path.
    pub fn take(folder: &Path) -> Result<Self> {
        let shown = folder.display();
        let mut held = Vec::new();
        for above in folder.ancestors().skip(1) {
            let Ok(directory) = File::open(above) else { continue };
            match flock(&directory, FlockOperation::NonBlockingLockShared) {
                Ok(()) => held.push(directory),
                Err(Errno::WOULDBLOCK) => {
                    return Err(CliError::failed(format!(
                        "the folder {shown} is inside {}, which another syncline shares: share only one of them",
                        above.display()
                    )));
                }
                Err(_) => {}
            }
        }
        if let Ok(directory) = File::open(folder) {
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => held.push(directory),
                // Whoever keeps a folder inside it lets others in beside him.
                Err(Errno::WOULDBLOCK) => {
                    let inside = flock(&directory, FlockOperation::NonBlockingLockShared).is_ok();
                    return Err(CliError::failed(match inside {
                        true => {
                            format!("the folder {shown} holds one that another syncline shares: share only one of them")
                        }
                        false => format!(
                            "another syncline shares the folder {shown} already: stop it, or choose another folder"
                        ),
                    }));
                }
                Err(_) => {}
            }
        }
        Ok(Self { _held: held })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_same_an_inner_and_an_outer_folder_are_refused_and_neighbours_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        fs::create_dir_all(root.join("a/d")).unwrap();
        let refused = |folder: &Path, word: &str| {
            let text = FolderLock::take(folder).unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        };
        let held = FolderLock::take(&root.join("a/b")).unwrap();
        refused(&root.join("a/b"), "already");
        refused(&root.join("a/b/c"), "is inside");
        refused(&root.join("a"), "holds one");
        FolderLock::take(&root.join("a/d")).unwrap();
        drop(held);
        FolderLock::take(&root.join("a")).unwrap();
    }
}
