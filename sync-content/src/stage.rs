//! Import: content is written under a temporary name and hashed on the way; then it is
//! published, alone or with many others.

use std::{
    cell::RefCell,
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    ContentDir, ContentError, GroupRanges, Hash, OnProgress, Progress, Published, Reader,
    dir::outboard_path,
    disk::DiskFile,
    groups,
    overlay::{self, Comparing, Under},
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
    /// Where the groups are that `data` has not.
    pub(crate) over: Option<Under>,
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

    /// Whether it stands on another content, and has not all of its groups itself.
    pub fn is_overlay(&self) -> bool {
        self.over.is_some()
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
        let over = self.over.as_ref().map(Under::kept);
        Ok(Published { hash: self.tree.hash, len: self.tree.len, outboard, over })
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
        self.stage_file(path, None, progress)
    }

    /// The same for a new version of what `older` reads. What that has at the same place is not
    /// written once more, if the content is large and not too much of it is another: see [`overlay`].
    pub fn stage_path_over(
        &self,
        path: &Path,
        older: &Reader,
        progress: OnProgress<'_>,
    ) -> Result<Staged, ContentError> {
        self.stage_file(path, Some(older), progress)
    }

    fn stage_file(
        &self,
        path: &Path,
        older: Option<&Reader>,
        progress: OnProgress<'_>,
    ) -> Result<Staged, ContentError> {
        let read_error = |source| ContentError::Io { attempt: "read", path: path.into(), source };
        // Looked at before it is opened: opening a pipe would wait for its writer.
        if !std::fs::metadata(path).map_err(read_error)?.is_file() {
            return Err(ContentError::NotAFile(path.into()));
        }
        let file = File::open(path).map_err(read_error)?;
        let before = file.metadata().map_err(read_error)?;
        let base = older.and_then(|older| overlay::base_for(older, before.len()));
        let staged = self.stage(before.len(), &file, path, base, progress)?;
        let after = file.metadata().map_err(read_error)?;
        if after.len() != before.len() || after.modified().ok() != before.modified().ok() {
            return Err(ContentError::Changed(path.into()));
        }
        Ok(staged)
    }

    /// Writes `bytes` in.
    pub fn stage_bytes(&self, bytes: &[u8]) -> Result<Staged, ContentError> {
        self.stage(bytes.len() as u64, bytes, Path::new("bytes in memory"), None, &mut crate::quiet)
    }

    /// Writes in what `source` gives, which must be exactly `len` bytes; `name` names it in errors.
    pub fn stage_reader(
        &self,
        len: u64,
        source: impl Read,
        name: &Path,
        progress: OnProgress<'_>,
    ) -> Result<Staged, ContentError> {
        self.stage(len, source, name, None, progress)
    }

    fn stage(
        &self,
        len: u64,
        source: impl Read,
        name: &Path,
        base: Option<Arc<Reader>>,
        progress: OnProgress<'_>,
    ) -> Result<Staged, ContentError> {
        let mut staged = self.create_staged(Tree::new(Hash::from_bytes([0; 32]), len)?)?;
        let comparing = base.as_ref().map(|base| RefCell::new(Comparing::new(base)));
        let mut copying = Copying {
            source,
            name,
            target: &staged,
            progress,
            comparing: comparing.as_ref(),
            total: len,
            read: 0,
            buffer: vec![0; COPY_LEN.min(len as usize)],
            given: 0,
            filled: 0,
            failure: None,
        };
        let filling = Filling { shape: shape(len), store: &staged.outboard, comparing: comparing.as_ref() };
        let result = bao_tree::io::sync::outboard(&mut copying, shape(len), filling);
        let result = match (result, copying.failure.take()) {
            (_, Some(failure)) => return Err(failure),
            (result, None) => result,
        };
        let hash = result.map_err(ContentError::io("write the outboard of", name))?;
        copying.write_out()?;
        staged.tree.hash = hash;
        if let (Some(base), Some(comparing)) = (base, comparing) {
            let own = GroupRanges::all(len).difference(&comparing.into_inner().same);
            staged.over = overlay::stand(&staged.tree, (&*staged.data, &staged.path), base, own)?;
        }
        Ok(staged)
    }

    /// Empty files for an import. A failure from here on removes what was written.
    pub(crate) fn create_staged(&self, tree: Tree) -> Result<Staged, ContentError> {
        let path = self.new_staging_path();
        let data = self.create(&path)?;
        let outboard = self.create_outboard(&path, tree.len)?;
        let dir = self.clone();
        Ok(Staged { dir, tree, path, data, outboard, over: None, when_dropped: WhenDropped::Remove })
    }
}

/// Gives the hasher what it reads from the source, and writes the same to the target, when it is
/// hashed: so the groups that another content has can be left out.
struct Copying<'a, R> {
    source: R,
    name: &'a Path,
    target: &'a Staged,
    progress: OnProgress<'a>,
    comparing: Option<&'a RefCell<Comparing>>,
    total: u64,
    /// Bytes that were read from the source; the last `filled` of them are in the buffer.
    read: u64,
    buffer: Vec<u8>,
    given: usize,
    filled: usize,
    failure: Option<ContentError>,
}

impl<R: Read> Copying<'_, R> {
    fn fill(&mut self) -> Result<(), ContentError> {
        self.write_out()?;
        let want = (self.total - self.read).min(self.buffer.len() as u64) as usize;
        let buffer = &mut self.buffer[..want];
        match self.source.read_exact(buffer) {
            // Shorter than it said a moment ago.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(ContentError::Changed(self.name.into()));
            }
            result => result.map_err(ContentError::io("read", self.name))?,
        }
        self.read += want as u64;
        (self.given, self.filled) = (0, want);
        match (self.progress)(Progress { done: self.read, total: self.total }) {
            std::ops::ControlFlow::Continue(()) => Ok(()),
            std::ops::ControlFlow::Break(()) => Err(ContentError::Cancelled),
        }
    }

    /// Writes what is in the buffer and in no other content.
    fn write_out(&mut self) -> Result<(), ContentError> {
        let start = self.read - self.filled as u64;
        let mut left = GroupRanges::from(groups::covering(start..self.read));
        if let Some(comparing) = self.comparing {
            left = left.difference(&comparing.borrow().same);
        }
        for run in left.iter() {
            let bytes = groups::byte_range(&run, self.read);
            let part = &self.buffer[(bytes.start - start) as usize..(bytes.end - start) as usize];
            self.target.data.write_at(part, bytes.start).map_err(ContentError::io("write", &self.target.path))?;
        }
        self.filled = 0;
        Ok(())
    }
}

impl<R: Read> Read for Copying<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given == self.filled
            && self.read < self.total
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
