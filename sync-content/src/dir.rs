//! The directory of content: which file is called what, how files get their names, and how
//! those that nobody refers to are found.
//!
//! ```text
//! staging/7            an import that is being written; removed at start
//! partial/HASH         a download; partial/HASH.outboard when its outboard is large
//! ab/HASH              complete content, `ab` being the first two digits of its hash;
//!                      ab/HASH.outboard when its outboard is large
//! ab/HASH.over         complete content that stands on another: only the groups that it has
//!                      itself; and ab/HASH.over.outboard
//! ```

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    ContentError, GroupRanges, Hash, MAX_ROW_OUTBOARD, MemoryDisk, Overlay, Reader, Staged,
    disk::{Disk, DiskFile, Open, RealDisk},
    overlay::Under,
    tree::{OutboardStore, Tree, outboard_len},
};

const STAGING: &str = "staging";
const PARTIAL: &str = "partial";
const OUTBOARD: &str = ".outboard";
const OVERLAY: &str = ".over";

/// How many threads sync a batch. The file system joins syncs that wait at the same time into one
/// write of its journal, so more at once are faster even on one core.
const SYNC_THREADS: usize = 16;

/// A directory of content, owned by one store. A cheap handle.
///
/// # Contract
///
/// - *published content survives*: after [`ContentDir::publish`] returned, data, outboard and
///   names are on the disk.
/// - *a name means proved*: a file under a content's name has its bytes, or those of its groups that it has
///   itself; they were hashed on the way in.
/// - *a checkpoint never claims too much*: every group in a [`crate::Checkpoint`] was on the disk,
///   proved, before it was made, whatever the disk forgot of later writes.
/// - *rot never leaves*: a [`Reader`] proves each byte after it was read.
#[derive(Clone)]
pub struct ContentDir(Arc<Inner>);

struct Inner {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    next_staging: AtomicU64,
    /// The fan-out directories whose names are durable.
    fans: Mutex<BTreeSet<String>>,
}

/// Content under its name, durable. What is to be kept in its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The hash of the whole.
    pub hash: Hash,
    /// The length in bytes.
    pub len: u64,
    /// The outboard when it is small; empty when it is in a file, or when one group needs none.
    pub outboard: Vec<u8>,
    /// What it stands on, if it has not all of its groups itself.
    pub over: Option<Overlay>,
}

/// What a file in the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// Complete content, or its outboard.
    Complete,
    /// Complete content that stands on another, or its outboard.
    Overlay,
    /// A download, or its outboard.
    Partial,
}

impl ContentDir {
    /// Opens, or creates, the directory at `root`. Imports that were not published are removed.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, ContentError> {
        Self::open_on(Arc::new(RealDisk), root)
    }

    /// Content in memory, gone with the last handle.
    pub fn in_memory() -> Self {
        Self::open_on(Arc::new(MemoryDisk::new()), "/").expect("a disk in memory does not fail")
    }

    /// Opens the directory on any [`Disk`].
    pub fn open_on(disk: Arc<dyn Disk>, root: impl Into<PathBuf>) -> Result<Self, ContentError> {
        let root = root.into();
        for dir in [root.join(STAGING), root.join(PARTIAL)] {
            disk.create_dir(&dir).map_err(ContentError::io("create", &dir))?;
        }
        let staging = root.join(STAGING);
        for name in disk.list(&staging).map_err(ContentError::io("list", &staging))? {
            let path = staging.join(name);
            disk.remove(&path).map_err(ContentError::io("remove", &path))?;
        }
        // What is listed may be younger than the last sync of its names.
        disk.sync_dir(&root).map_err(ContentError::io("sync", &root))?;
        let fans = disk.list(&root).map_err(ContentError::io("list", &root))?.into_iter().collect();
        Ok(Self(Arc::new(Inner { disk, root, next_staging: AtomicU64::new(0), fans: Mutex::new(fans) })))
    }

    /// Syncs what was staged, gives it its names and makes them durable: each file and each
    /// directory once. Content that is there already is replaced, which heals it.
    ///
    /// A batch holds its files open: at most a few hundred at a time. After an error the part
    /// that has its name already is without a row; the next [`ContentDir::sweep`] removes it.
    pub fn publish(&self, batch: Vec<Staged>) -> Result<Vec<Published>, ContentError> {
        sync_all(&batch, |staged| {
            staged.data.sync().map_err(ContentError::io("sync", &staged.path))?;
            match &staged.outboard {
                OutboardStore::File(file) => {
                    file.sync().map_err(ContentError::io("sync the outboard of", &staged.path))
                }
                OutboardStore::Row(_) => Ok(()),
            }
        })?;
        let mut dirs = BTreeSet::new();
        let mut published = Vec::with_capacity(batch.len());
        for staged in batch {
            let hash = &staged.tree.hash;
            let target = if staged.is_overlay() { self.overlay_path(hash) } else { self.complete_path(hash) };
            let fan = target.parent().expect("content lies in a fan-out directory").to_path_buf();
            let name = fan.file_name().and_then(|name| name.to_str()).expect("two hexadecimal digits").to_owned();
            if !self.fans().contains(&name) {
                self.disk().create_dir(&fan).map_err(ContentError::io("create", &fan))?;
                self.disk().sync_dir(&self.0.root).map_err(ContentError::io("sync", &self.0.root))?;
                self.fans().insert(name);
            }
            dirs.insert(fan);
            published.push(staged.give_name(&target)?);
        }
        let dirs: Vec<_> = dirs.into_iter().collect();
        sync_all(&dirs, |dir| self.disk().sync_dir(dir).map_err(ContentError::io("sync", dir)))?;
        Ok(published)
    }

    /// A reader of complete content. `outboard` is what [`Published::outboard`] was.
    pub fn reader(&self, hash: Hash, len: u64, outboard: &[u8]) -> Result<Reader, ContentError> {
        self.open_complete(Tree::new(hash, len)?, self.complete_path(&hash), outboard, None)
    }

    pub(crate) fn open_complete(
        &self,
        tree: Tree,
        path: PathBuf,
        outboard: &[u8],
        under: Option<Under>,
    ) -> Result<Reader, ContentError> {
        let Tree { hash, len } = tree;
        let open = |path: &Path| match self.disk().open(path, Open::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ContentError::Damaged { hash, range: 0..len }),
            result => result.map_err(ContentError::io("open", path)),
        };
        let data = open(&path)?;
        let outboard = match has_row_outboard(len) {
            true if outboard.len() as u64 == outboard_len(len) => OutboardStore::row(outboard, len),
            true => return Err(ContentError::Damaged { hash, range: 0..len }),
            false => OutboardStore::File(open(&outboard_path(&path))?),
        };
        Ok(Reader { tree, path, data, outboard, here: GroupRanges::all(len), under })
    }

    /// Removes complete content. Fine when it is not there. Open readers go on.
    pub fn remove(&self, hash: &Hash) -> Result<(), ContentError> {
        self.remove_both(&self.complete_path(hash))?;
        self.remove_overlay(hash)
    }

    /// Removes what complete content has itself that stood on another. Fine when it is not there.
    pub fn remove_overlay(&self, hash: &Hash) -> Result<(), ContentError> {
        self.remove_both(&self.overlay_path(hash))
    }

    /// Removes a download. Fine when it is not there.
    pub fn remove_partial(&self, hash: &Hash) -> Result<(), ContentError> {
        self.remove_both(&self.partial_path(hash))
    }

    /// What is here by the names of the files; for the store's start.
    pub fn list(&self) -> Result<BTreeSet<(FileKind, [u8; 32])>, ContentError> {
        let disk = self.disk();
        let root = &self.0.root;
        let mut found = BTreeSet::new();
        for dir in disk.list(root).map_err(ContentError::io("list", root))? {
            let kind = match dir.as_str() {
                PARTIAL => FileKind::Partial,
                fan if fan.len() == 2 => FileKind::Complete,
                _ => continue,
            };
            let dir = root.join(dir);
            for name in disk.list(&dir).map_err(ContentError::io("list", &dir))? {
                let name = name.strip_suffix(OUTBOARD).unwrap_or(&name);
                let (name, kind) = match name.strip_suffix(OVERLAY) {
                    Some(name) if kind == FileKind::Complete => (name, FileKind::Overlay),
                    _ => (name, kind),
                };
                if let Ok(hash) = Hash::from_hex(name) {
                    found.insert((kind, *hash.as_bytes()));
                }
            }
        }
        Ok(found)
    }

    /// Removes every file for which `keep` says no, and answers how many contents that were.
    pub fn sweep(&self, mut keep: impl FnMut(FileKind, Hash) -> bool) -> Result<u64, ContentError> {
        let mut removed = 0;
        for (kind, hash) in self.list()? {
            let hash = Hash::from_bytes(hash);
            if keep(kind, hash) {
                continue;
            }
            match kind {
                FileKind::Complete => self.remove_both(&self.complete_path(&hash))?,
                FileKind::Overlay => self.remove_overlay(&hash)?,
                FileKind::Partial => self.remove_partial(&hash)?,
            }
            removed += 1;
        }
        Ok(removed)
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.0.disk
    }

    pub(crate) fn complete_path(&self, hash: &Hash) -> PathBuf {
        let name = hash.to_hex();
        self.0.root.join(&name[..2]).join(name.as_str())
    }

    pub(crate) fn overlay_path(&self, hash: &Hash) -> PathBuf {
        let mut name = self.complete_path(hash).into_os_string();
        name.push(OVERLAY);
        name.into()
    }

    pub(crate) fn partial_dir(&self) -> PathBuf {
        self.0.root.join(PARTIAL)
    }

    pub(crate) fn partial_path(&self, hash: &Hash) -> PathBuf {
        self.partial_dir().join(hash.to_hex().as_str())
    }

    pub(crate) fn new_staging_path(&self) -> PathBuf {
        let number = self.0.next_staging.fetch_add(1, Ordering::Relaxed);
        self.0.root.join(STAGING).join(number.to_string())
    }

    /// A place for the outboard of `len` bytes beside `data`, empty.
    pub(crate) fn create_outboard(&self, data: &Path, len: u64) -> Result<OutboardStore, ContentError> {
        if has_row_outboard(len) {
            return Ok(OutboardStore::row(&[], len));
        }
        self.create(&outboard_path(data)).map(OutboardStore::File)
    }

    pub(crate) fn create(&self, path: &Path) -> Result<Arc<dyn DiskFile>, ContentError> {
        self.disk().open(path, Open::Create).map_err(ContentError::io("create", path))
    }

    pub(crate) fn remove_both(&self, data: &Path) -> Result<(), ContentError> {
        for path in [outboard_path(data), data.to_path_buf()] {
            match self.disk().remove(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(ContentError::io("remove", path))?,
            }
        }
        Ok(())
    }

    fn fans(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.0.fans.lock().expect("nothing panics while it knows the fan-out directories")
    }
}

impl fmt::Debug for ContentDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentDir({} on {:?})", self.0.root.display(), self.0.disk)
    }
}

pub(crate) fn outboard_path(data: &Path) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(OUTBOARD);
    name.into()
}

pub(crate) fn has_row_outboard(len: u64) -> bool {
    outboard_len(len) <= MAX_ROW_OUTBOARD
}

/// Performs `sync` on each item, on several threads when that is worth it.
pub(crate) fn sync_all<T: Sync>(
    items: &[T],
    sync: impl Fn(&T) -> Result<(), ContentError> + Sync,
) -> Result<(), ContentError> {
    if items.len() < SYNC_THREADS {
        return items.iter().try_for_each(sync);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(items.len().div_ceil(SYNC_THREADS))
            .map(|part| scope.spawn(|| part.iter().try_for_each(&sync)))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a sync does not panic"))
    })
}
