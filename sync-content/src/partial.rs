//! A download: content that comes in group by group, proved before it is written, from any
//! number of sources at once, and that goes on after a restart where its checkpoint says.
//!
//! ```
//! # use sync_content::{ContentDir, Checkpoint};
//! # fn main() -> Result<(), sync_content::ContentError> {
//! # let (ours, theirs) = (ContentDir::in_memory(), ContentDir::in_memory());
//! # let bytes = vec![7; 100_000];
//! # let there = theirs.publish(vec![theirs.stage_bytes(&bytes)?])?.remove(0);
//! # let server = theirs.reader(there.hash, there.len, &there.outboard)?;
//! let partial = ours.download(Checkpoint::start(there.hash, there.len))?;
//! while let Some(mut claim) = partial.claim(64) {
//!     // Asked of a peer, which answers piece by piece:
//!     for piece in server.encode(claim.groups().into())? {
//!         claim.push(&piece?)?;
//!     }
//! }
//! let complete = ours.publish(vec![partial.finish()?])?;
//! assert_eq!(complete[0], there);
//! # Ok(())
//! # }
//! ```

use std::{
    fmt,
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    ContentDir, ContentError, GroupRanges, Hash, Reader, Staged,
    dir::{has_row_outboard, outboard_path},
    disk::{DiskFile, Open},
    groups::{self, GROUP_LEN},
    overlay::{self, Under},
    reuse::Base,
    stage::WhenDropped,
    tree::{Item, OutboardStore, PAIR_LEN, Tree, Walk},
};

/// A checkpoint is due after this many new bytes: a crash costs at most that much of the transfer.
pub const CHECKPOINT_BYTES: u64 = 64 * 1024 * 1024;

/// So many new bytes are written out at once, while more come: at a checkpoint, and at the end, little
/// is left to wait for.
pub const FLUSH_BYTES: u64 = 8 * 1024 * 1024;

/// A checkpoint is due after this time, if anything is new.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);

/// How far a download is, durably: the row that its owner keeps.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    hash: [u8; 32],
    len: u64,
    verified: GroupRanges,
    /// The outboard so far, when it is small.
    outboard: Vec<u8>,
}

impl Checkpoint {
    /// That of a download which has nothing yet. `len` is a claim until the last group is proved.
    pub fn start(hash: Hash, len: u64) -> Self {
        Self { hash: *hash.as_bytes(), len, verified: GroupRanges::empty(), outboard: Vec::new() }
    }

    /// The hash of the whole.
    pub fn hash(&self) -> Hash {
        Hash::from_bytes(self.hash)
    }

    /// The claimed length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the claimed length is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The groups that are on the disk and proved.
    pub fn verified(&self) -> &GroupRanges {
        &self.verified
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("hash", &self.hash())
            .field("len", &self.len)
            .field("verified", &self.verified)
            .finish()
    }
}

/// A download. There is one per hash at a time: its owner sees to that.
pub struct Partial {
    dir: ContentDir,
    pub(crate) tree: Tree,
    path: PathBuf,
    data: Arc<dyn DiskFile>,
    outboard: OutboardStore,
    state: Mutex<State>,
}

pub(crate) struct State {
    /// The groups that are here, proved: in the file, or lent.
    pub here: GroupRanges,
    /// Those that are in the file.
    verified: GroupRanges,
    /// Those that the other content has and that are not copied: see [`overlay`].
    pub lent: GroupRanges,
    pub claimed: GroupRanges,
    /// Another content that may have some of it.
    pub base: Option<Base>,
    unsynced_bytes: u64,
    unflushed_bytes: u64,
    names_synced: bool,
    /// Finished, or failed: after a failed sync the system may call pages clean that it has
    /// lost, so nothing is synced again until the files are opened at the last checkpoint.
    ended: bool,
}

impl State {
    /// What the groups that are lent are read from.
    fn under(&self, tree: &Tree) -> Option<Under> {
        let base = self.base.as_ref()?.under.as_ref().filter(|_| !self.lent.is_empty())?;
        Some(Under { base: Arc::clone(base), own: GroupRanges::all(tree.len).difference(&self.lent) })
    }
}

impl ContentDir {
    /// Opens a download at its checkpoint, or begins it when that is [`Checkpoint::start`].
    /// Nothing is hashed again. When the files lack what the checkpoint says, somebody else
    /// touched them: [`ContentError::Damaged`]; keep [`Checkpoint::start`] in the row, then begin.
    pub fn download(&self, from: Checkpoint) -> Result<Arc<Partial>, ContentError> {
        let tree = Tree::new(from.hash(), from.len)?;
        let path = self.partial_path(&tree.hash);
        let (data, outboard) = if from.verified.is_empty() {
            (self.create(&path)?, self.create_outboard(&path, tree.len)?)
        } else {
            self.open_partial(&tree, &from)?
        };
        let state = State {
            here: from.verified.clone(),
            verified: from.verified,
            lent: GroupRanges::empty(),
            claimed: GroupRanges::empty(),
            base: None,
            unsynced_bytes: 0,
            unflushed_bytes: 0,
            names_synced: false,
            ended: false,
        };
        Ok(Arc::new(Partial { dir: self.clone(), tree, path, data, outboard, state: Mutex::new(state) }))
    }

    /// A reader of what a download has at its checkpoint, to serve it while nobody goes on with it.
    pub fn partial_reader(&self, checkpoint: &Checkpoint) -> Result<Reader, ContentError> {
        let tree = Tree::new(checkpoint.hash(), checkpoint.len)?;
        let (data, outboard) = self.open_partial(&tree, checkpoint)?;
        let (path, here) = (self.partial_path(&tree.hash), checkpoint.verified.clone());
        Ok(Reader { tree, path, data, outboard, here, under: None })
    }

    /// The files of a download that has something.
    fn open_partial(&self, tree: &Tree, from: &Checkpoint) -> Result<(Arc<dyn DiskFile>, OutboardStore), ContentError> {
        let damaged = || ContentError::Damaged { hash: tree.hash, range: 0..tree.len };
        tree.check(&from.verified)?;
        let path = self.partial_path(&tree.hash);
        let data = self.take_back(&path, &tree.hash)?.ok_or_else(damaged)?;
        let needed = groups::byte_range(&(0..from.verified.end()), tree.len).end;
        if data.len().map_err(ContentError::io("look at", &path))? < needed {
            return Err(damaged());
        }
        let outboard = if has_row_outboard(tree.len) {
            OutboardStore::row(&from.outboard, tree.len)
        } else {
            OutboardStore::File(self.take_back(&outboard_path(&path), &tree.hash)?.ok_or_else(damaged)?)
        };
        Ok((data, outboard))
    }

    /// Opens a file of a download. One that was finished and has its final name, while its row
    /// still says partial (the power went between), gets its old name back.
    fn take_back(&self, path: &std::path::Path, hash: &Hash) -> Result<Option<Arc<dyn DiskFile>>, ContentError> {
        let found = |result: std::io::Result<_>| match result {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some).map_err(ContentError::io("open", path)),
        };
        if let Some(file) = found(self.disk().open(path, Open::Write))? {
            return Ok(Some(file));
        }
        for named in [self.complete_path(hash), self.overlay_path(hash)] {
            let named = if path == self.partial_path(hash) { named } else { outboard_path(&named) };
            match self.disk().rename(&named, path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                result => {
                    result.map_err(ContentError::io("rename", named))?;
                    return found(self.disk().open(path, Open::Write));
                }
            }
        }
        Ok(None)
    }
}

impl Partial {
    /// The hash of the whole.
    pub fn hash(&self) -> Hash {
        self.tree.hash
    }

    /// The claimed length in bytes.
    pub fn len(&self) -> u64 {
        self.tree.len
    }

    /// Whether the claimed length is 0.
    pub fn is_empty(&self) -> bool {
        self.tree.len == 0
    }

    /// The groups that are here and proved; not all of them need be durable.
    pub fn verified(&self) -> GroupRanges {
        self.lock().here.clone()
    }

    /// The groups that are not here.
    pub fn missing(&self) -> GroupRanges {
        GroupRanges::all(self.tree.len).difference(&self.lock().here)
    }

    /// Whether every group is here. Then the length is proved too.
    pub fn is_complete(&self) -> bool {
        self.lock().here.contains(&(0..self.tree.groups()))
    }

    /// Whether some of it is claimed.
    pub fn is_claimed(&self) -> bool {
        !self.lock().claimed.is_empty()
    }

    /// Reserves the next run of at most `max_groups` missing groups that nobody has claimed.
    /// Nothing when all is here or claimed.
    pub fn claim(self: &Arc<Self>, max_groups: u64) -> Option<Claim> {
        self.claim_of(&GroupRanges::all(self.tree.len), max_groups)
    }

    /// The same among `available`, for a source that has only those.
    pub fn claim_of(self: &Arc<Self>, available: &GroupRanges, max_groups: u64) -> Option<Claim> {
        let mut state = self.lock();
        let all = GroupRanges::all(self.tree.len);
        let mut free = all.intersection(available).difference(&state.here).difference(&state.claimed);
        if let Some(base) = &state.base {
            free = free.difference(base.left());
        }
        let run = free.iter().next()?;
        let max_groups = max_groups.max(1);
        // Ends at a multiple of the size asked for, so that claims share few pairs.
        let end = run.end.min((run.start / max_groups + 1) * max_groups);
        let groups = run.start..end;
        state.claimed.insert(groups.clone());
        drop(state);
        let walk = Walk::new(self.tree, &GroupRanges::from(groups.clone())).expect("missing groups lie inside");
        let mut claim = Claim { partial: Arc::clone(self), groups, walk, buffer: Vec::new(), failed: None };
        if self.tree.len == 0 {
            // No byte has to come to prove that there is none, if the hash says so.
            let _ = claim.push(&[]);
        }
        Some(claim)
    }

    /// How many proved bytes a crash would cost now.
    pub fn unsynced_bytes(&self) -> u64 {
        self.lock().unsynced_bytes
    }

    /// Whether it is time for a checkpoint, the last having been made `elapsed` ago.
    pub fn checkpoint_due(&self, elapsed: Duration) -> bool {
        let unsynced = self.unsynced_bytes();
        unsynced >= CHECKPOINT_BYTES || (unsynced > 0 && elapsed >= CHECKPOINT_INTERVAL)
    }

    /// Whether it is time to [`Partial::flush`].
    pub fn flush_due(&self) -> bool {
        self.lock().unflushed_bytes >= FLUSH_BYTES
    }

    /// Has the disk write what is here. That is no checkpoint: until one is made, nothing counts.
    pub fn flush(&self) -> Result<(), ContentError> {
        self.trusted()?.unflushed_bytes = 0;
        let synced = self.data.sync().map_err(ContentError::io("sync", &self.path));
        if synced.is_err() {
            self.lock().ended = true;
        }
        synced
    }

    /// Makes durable what is here and gives the record to be kept. After an error the download
    /// must be opened again from its last checkpoint.
    pub fn checkpoint(&self) -> Result<Checkpoint, ContentError> {
        // What is proved now was written before: the syncs below cover it. What comes meanwhile
        // waits for the next checkpoint.
        let (verified, bytes, names_synced) = {
            let state = self.trusted()?;
            (state.verified.clone(), state.unsynced_bytes, state.names_synced)
        };
        let synced = self.sync(names_synced);
        let mut state = self.lock();
        if let Err(error) = synced {
            state.ended = true;
            return Err(error);
        }
        state.unsynced_bytes -= bytes.min(state.unsynced_bytes);
        state.names_synced = true;
        drop(state);
        let outboard = self.outboard.row_bytes().unwrap_or_default();
        Ok(Checkpoint { hash: *self.tree.hash.as_bytes(), len: self.tree.len, verified, outboard })
    }

    /// The complete content, to be published. [`ContentError::NotHere`] while groups are missing.
    /// This ends the download: should the publishing fail, open it again from its checkpoint.
    pub fn finish(&self) -> Result<Staged, ContentError> {
        if let Some(groups) = self.missing().iter().next() {
            return Err(ContentError::NotHere { hash: self.tree.hash, groups });
        }
        let under = {
            let mut state = self.trusted()?;
            state.ended = true;
            state.under(&self.tree)
        };
        let over = match under {
            Some(Under { base, own }) => overlay::stand(&self.tree, (&*self.data, &self.path), base, own)?,
            None => None,
        };
        Ok(Staged {
            dir: self.dir.clone(),
            tree: self.tree,
            path: self.path.clone(),
            data: Arc::clone(&self.data),
            outboard: self.outboard.clone(),
            over,
            when_dropped: WhenDropped::Stay,
        })
    }

    /// A reader of what is here now.
    pub fn reader(&self) -> Reader {
        let state = self.lock();
        Reader {
            tree: self.tree,
            path: self.path.clone(),
            data: Arc::clone(&self.data),
            outboard: self.outboard.clone(),
            here: state.here.clone(),
            under: state.under(&self.tree),
        }
    }

    fn sync(&self, names_synced: bool) -> Result<(), ContentError> {
        if let OutboardStore::File(file) = &self.outboard {
            file.sync().map_err(ContentError::io("sync the outboard of", &self.path))?;
        }
        self.data.sync().map_err(ContentError::io("sync", &self.path))?;
        if !names_synced {
            let dir = self.dir.partial_dir();
            self.dir.disk().sync_dir(&dir).map_err(ContentError::io("sync", dir))?;
        }
        Ok(())
    }

    fn trusted(&self) -> Result<MutexGuard<'_, State>, ContentError> {
        let state = self.lock();
        if state.ended { Err(ContentError::Ended(self.tree.hash)) } else { Ok(state) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it changes the sets of groups")
    }
}

impl fmt::Debug for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partial").field("tree", &self.tree).field("verified", &self.lock().here).finish()
    }
}

/// A run of groups of a download, reserved for one source, and what receives them. Dropped, what
/// did not come is free for others; what came stays.
pub struct Claim {
    partial: Arc<Partial>,
    groups: Range<u64>,
    walk: Walk,
    /// The beginning of an item whose rest has not come.
    buffer: Vec<u8>,
    failed: Option<Failed>,
}

/// Why a claim takes nothing any more.
#[derive(Debug, Clone)]
enum Failed {
    Unproved(Range<u64>),
    NotWritten,
}

impl Claim {
    /// The groups to ask the source for.
    pub fn groups(&self) -> Range<u64> {
        self.groups.clone()
    }

    /// The download that it is a part of.
    pub fn partial(&self) -> &Arc<Partial> {
        &self.partial
    }

    /// Whether all its groups came.
    pub fn is_done(&self) -> bool {
        self.failed.is_none() && self.walk.next().is_none()
    }

    /// Takes the next bytes of the encoding, in pieces of any size, and answers how many bytes
    /// of content were proved and written. Bytes that are wrong, or more than were asked for,
    /// are [`ContentError::Unproved`]; so is everything after them.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<u64, ContentError> {
        let mut proved = 0;
        loop {
            let hash = self.partial.tree.hash;
            match self.failed.clone() {
                Some(Failed::Unproved(range)) => return Err(ContentError::Unproved { hash, range }),
                Some(Failed::NotWritten) => return Err(ContentError::Ended(hash)),
                None => {}
            }
            let Some(item) = self.walk.next() else {
                if !bytes.is_empty() {
                    let range = groups::byte_range(&self.groups, self.partial.tree.len);
                    self.failed = Some(Failed::Unproved(range.end..range.end));
                    continue;
                }
                return Ok(proved);
            };
            let lacking = item.len() - self.buffer.len();
            if bytes.len() < lacking {
                self.buffer.extend_from_slice(bytes);
                return Ok(proved);
            }
            let (now, rest) = bytes.split_at(lacking);
            bytes = rest;
            let whole = if self.buffer.is_empty() {
                now
            } else {
                self.buffer.extend_from_slice(now);
                &self.buffer
            };
            match self.walk.accept(whole) {
                Err(mismatch) => self.failed = Some(Failed::Unproved(mismatch.range)),
                // A pair that was not written proves nothing later: the claim ends here.
                Ok(()) => match self.partial.write(item, whole) {
                    Ok(written) => proved += written,
                    Err(error) => {
                        self.failed = Some(Failed::NotWritten);
                        return Err(error);
                    }
                },
            }
            self.buffer.clear();
        }
    }
}

impl Partial {
    /// A group is what the other content has, and is not copied. Answers how many bytes it has.
    pub(crate) fn lend(&self, group: u64, len: usize) -> u64 {
        let mut state = self.lock();
        state.here.insert(group..group + 1);
        state.lent.insert(group..group + 1);
        len as u64
    }

    /// Writes an item that was proved.
    pub(crate) fn write(&self, item: Item, bytes: &[u8]) -> Result<u64, ContentError> {
        match item {
            Item::Pair { at } => {
                let pair: &[u8; PAIR_LEN] = bytes.try_into().expect("a pair has its length");
                self.outboard.save(at, pair).map_err(ContentError::io("write the outboard of", &self.path))?;
                Ok(0)
            }
            Item::Group { group, len } => {
                self.data.write_at(bytes, group * GROUP_LEN).map_err(ContentError::io("write", &self.path))?;
                let mut state = self.lock();
                state.here.insert(group..group + 1);
                state.verified.insert(group..group + 1);
                state.unsynced_bytes += len as u64;
                state.unflushed_bytes += len as u64;
                Ok(len as u64)
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.partial.lock().claimed.remove(self.groups.clone());
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("hash", &self.partial.tree.hash).field("groups", &self.groups).finish()
    }
}
