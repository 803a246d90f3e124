//! Export: content is written to a path of the user's, whole or not at all.
//!
//! The bytes go to a temporary file beside the target, are synced, and take the target's name.
//! Many exports share the syncs of their directories: stage each, then [`commit`] all.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::File,
    io::Write,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{ContentError, OnProgress, Progress, Reader, dir::sync_all, disk::RealDisk};

const PREFIX: &str = ".syncline-export-";

/// Numbers the temporary files of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// An export whose bytes are written but whose target is as it was. Dropped, it vanishes.
#[derive(Debug)]
pub struct StagedExport {
    temporary: PathBuf,
    target: PathBuf,
    file: File,
}

impl StagedExport {
    /// Where the bytes are: permissions and times are set here, before the commit.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Where they will be.
    pub fn target(&self) -> &Path {
        &self.target
    }
}

impl Drop for StagedExport {
    fn drop(&mut self) {
        // After the commit there is nothing under this name.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// Whether a file of that name was left by an export that was killed. A folder ignores such
/// files, and removes them at start.
pub fn is_temporary(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(PREFIX))
}

/// Writes all of `content` beside `target`, whose directory must exist.
pub fn stage(content: &Reader, target: &Path, progress: OnProgress<'_>) -> Result<StagedExport, ContentError> {
    let bytes = content.read(0..content.len())?;
    let mut staged = create(target)?;
    let mut done = 0;
    let mut told = 0;
    for piece in bytes {
        let piece = piece?;
        staged.file.write_all(&piece).map_err(ContentError::io("write", &staged.temporary))?;
        done += piece.len() as u64;
        if done - told >= 1024 * 1024 || done == content.len() {
            told = done;
            if progress(Progress { done, total: content.len() }) == ControlFlow::Break(()) {
                return Err(ContentError::Cancelled);
            }
        }
    }
    Ok(staged)
}

/// Writes `bytes` beside `target`, whose directory must exist.
pub fn stage_bytes(bytes: &[u8], target: &Path) -> Result<StagedExport, ContentError> {
    let mut staged = create(target)?;
    staged.file.write_all(bytes).map_err(ContentError::io("write", &staged.temporary))?;
    Ok(staged)
}

/// What is no regular file (a device, a pipe, a directory) is not replaced by one.
fn create(target: &Path) -> Result<StagedExport, ContentError> {
    if std::fs::metadata(target).is_ok_and(|there| !there.is_file()) {
        return Err(ContentError::NotAFile(target.into()));
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = target.with_file_name(format!("{PREFIX}{}-{number}", std::process::id()));
    let file = File::create(&temporary).map_err(ContentError::io("create", &temporary))?;
    Ok(StagedExport { temporary, target: target.into(), file })
}

/// Makes exports durable and gives them their names: each file and each directory is synced once.
/// After an error some may have their names already.
pub fn commit(batch: Vec<StagedExport>) -> Result<(), ContentError> {
    sync_all(&batch, |staged| staged.file.sync_all().map_err(ContentError::io("sync", &staged.temporary)))?;
    let mut dirs = BTreeSet::new();
    for staged in batch {
        std::fs::rename(&staged.temporary, &staged.target).map_err(ContentError::io("replace", &staged.target))?;
        let dir = staged.target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        dirs.insert(dir.to_path_buf());
    }
    let dirs: Vec<_> = dirs.into_iter().collect();
    sync_all(&dirs, |dir| crate::Disk::sync_dir(&RealDisk, dir).map_err(ContentError::io("sync", dir)))
}

/// Writes `content` to `target`, atomically and durably.
pub fn export(content: &Reader, target: &Path, progress: OnProgress<'_>) -> Result<(), ContentError> {
    commit(vec![stage(content, target, progress)?])
}
