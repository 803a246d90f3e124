//! Import: content is written under a temporary name and hashed on the way; then it is
//! published, alone or with many others.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    ContentDir, ContentError, Hash, OnProgress, Progress, Published,
    dir::outboard_path,
    disk::DiskFile,
    tree::{Filling, OutboardStore, Tree, shape},
};

/// Read, hashed and written at a time.
const COPY_LEN: usize = 1024 * 1024;

/// Content that is written but not yet durable nor under its name. Give it to
/// [`ContentDir::publish`]; dropped, an import vanishes (a download stays as it is).
pub struct Staged {
    pub(crate) dir: ContentDir,
    pub(crate) tree: Tree,
    pub(crate) path: PathBuf,
    pub(crate) data: Arc<dyn DiskFile>,
    pub(crate) outboard: OutboardStore,
    pub(crate) when_dropped: WhenDropped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenDropped {
    Remove,
    Stay,
}

impl Staged {
    /// The hash of the whole.
    pub fn hash(&self) -> Hash {
        self.tree.hash
    }

    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.tree.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.tree.len == 0
    }

    /// Moves the files to their name. They must be synced. The outboard goes first: data under
    /// its name always has its outboard.
    pub(crate) fn give_name(mut self, target: &Path) -> Result<Published, ContentError> {
        let rename =
            |from: &Path, to: &Path| self.dir.disk().rename(from, to).map_err(ContentError::io("rename", from));
        let outboard = match self.outboard.row_bytes() {
            Some(bytes) => bytes,
            None => {
                rename(&outboard_path(&self.path), &outboard_path(target))?;
                Vec::new()
            }
        };
        rename(&self.path, target)?;
        self.when_dropped = WhenDropped::Stay;
        Ok(Published { hash: self.tree.hash, len: self.tree.len, outboard })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.when_dropped == WhenDropped::Remove {
            // What cannot be removed now is removed at the next start.
            if let Err(error) = self.dir.remove_both(&self.path) {
                tracing::debug!(%error, "an import that was given up stays until the next start");
            }
        }
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staged").field("tree", &self.tree).field("path", &self.path).finish()
    }
}

impl ContentDir {
    /// Copies the file at `path` in. A file that changes meanwhile is [`ContentError::Changed`];
    /// what is not a regular file (after following links) [`ContentError::NotAFile`].
    pub fn stage_path(&self, path: &Path, progress: OnProgress<'_>) -> Result<Staged, ContentError> {
        let read_error = |source| ContentError::Io { attempt: "read", path: path.into(), source };
        // Looked at before it is opened: opening a pipe would wait for its writer.
        if !std::fs::metadata(path).map_err(read_error)?.is_file() {
            return Err(ContentError::NotAFile(path.into()));
        }
        let file = File::open(path).map_err(read_error)?;
        let before = file.metadata().map_err(read_error)?;
        let staged = self.stage(before.len(), &file, path, progress)?;
        let after = file.metadata().map_err(read_error)?;
        if after.len() != before.len() || after.modified().ok() != before.modified().ok() {
            return Err(ContentError::Changed(path.into()));
        }
        Ok(staged)
    }

    /// Writes `bytes` in.
    pub fn stage_bytes(&self, bytes: &[u8]) -> Result<Staged, ContentError> {
        self.stage(bytes.len() as u64, bytes, Path::new("bytes in memory"), &mut crate::quiet)
    }

    /// Writes in what `source` gives, which must be exactly `len` bytes; `name` names it in errors.
    pub fn stage_reader(
        &self,
        len: u64,
        source: impl Read,
        name: &Path,
        progress: OnProgress<'_>,
    ) -> Result<Staged, ContentError> {
        self.stage(len, source, name, progress)
    }

    fn stage(
        &self,
        len: u64,
        source: impl Read,
        name: &Path,
        progress: OnProgress<'_>,
    ) -> Result<Staged, ContentError> {
        let unknown = Tree::new(Hash::from_bytes([0; 32]), len)?;
        let path = self.new_staging_path();
        let data = self.create(&path)?;
        let outboard = self.create_outboard(&path, len)?;
        // From here on a failure removes what was written.
        let mut staged =
            Staged { dir: self.clone(), tree: unknown, path, data, outboard, when_dropped: WhenDropped::Remove };
        let mut copying = Copying {
            source,
            name,
            target: &staged,
            progress,
            total: len,
            written: 0,
            buffer: vec![0; COPY_LEN.min(len as usize)],
            given: 0,
            filled: 0,
            failure: None,
        };
        let filling = Filling { shape: shape(len), store: &staged.outboard };
        let result = bao_tree::io::sync::outboard(&mut copying, shape(len), filling);
        let result = match (result, copying.failure) {
            (_, Some(failure)) => return Err(failure),
            (result, None) => result,
        };
        staged.tree.hash = result.map_err(ContentError::io("write the outboard of", name))?;
        Ok(staged)
    }
}

/// Gives the hasher what it reads from the source, and writes the same to the target.
struct Copying<'a, R> {
    source: R,
    name: &'a Path,
    target: &'a Staged,
    progress: OnProgress<'a>,
    total: u64,
    written: u64,
    buffer: Vec<u8>,
    given: usize,
    filled: usize,
    failure: Option<ContentError>,
}

impl<R: Read> Copying<'_, R> {
    fn fill(&mut self) -> Result<(), ContentError> {
        let want = (self.total - self.written).min(self.buffer.len() as u64) as usize;
        let buffer = &mut self.buffer[..want];
        match self.source.read_exact(buffer) {
            // Shorter than it said a moment ago.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(ContentError::Changed(self.name.into()));
            }
            result => result.map_err(ContentError::io("read", self.name))?,
        }
        self.target.data.write_at(buffer, self.written).map_err(ContentError::io("write", &self.target.path))?;
        self.written += want as u64;
        (self.given, self.filled) = (0, want);
        match (self.progress)(Progress { done: self.written, total: self.total }) {
            std::ops::ControlFlow::Continue(()) => Ok(()),
            std::ops::ControlFlow::Break(()) => Err(ContentError::Cancelled),
        }
    }
}

impl<R: Read> Read for Copying<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given == self.filled
            && self.written < self.total
            && let Err(failure) = self.fill()
        {
            self.failure = Some(failure);
            return Err(io::Error::other("see failure"));
        }
        let take = into.len().min(self.filled - self.given);
        into[..take].copy_from_slice(&self.buffer[self.given..self.given + take]);
        self.given += take;
        Ok(take)
    }
}
