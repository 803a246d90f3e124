//! Content that stands on another: a new version of which the older one has most groups at the same
//! place. It has the whole of its tree, and a file with only the groups that the other has not; the
//! rest is read from the file of the other, the *base*. So what a change costs follows the change.
//!
//! A base has all of its own groups: an overlay never stands on an overlay. What the new version is
//! compared with is always the base, whatever lies between, so a third version stands on the first
//! as well. When it differs in too much ([`SPARE_SHARE`], [`MAX_OWN_RUNS`]) it gets a whole file, and
//! the base can go with the last overlay on it.
//!
//! What is taken from the base was proved when that came in, and its tree says that it is the same;
//! it is read and proved again when the content is read. Whoever keeps the rows keeps the base as
//! long as something stands on it, and must not give an overlay the place of a whole file.

use std::{ops::Range, path::Path, sync::Arc};

use bytes::BytesMut;

use crate::{
    ContentDir, ContentError, GroupRanges, Hash, Reader, Staged,
    dir::has_row_outboard,
    disk::DiskFile,
    groups::{self, GROUP_LEN},
    read::Leaves,
    tree::{Item, OutboardStore, Tree, Walk},
};

/// At most this part of a content is kept for it and not read: the groups of the base that it has
/// itself, and what the base has behind its end. It bounds the disk that is taken, and, as each
/// version writes what was changed since the base, what a small change costs after many others.
pub const SPARE_SHARE: u64 = 16;

/// So many runs of groups of its own an overlay has at most: they are in its row.
pub const MAX_OWN_RUNS: usize = 4096;

/// What the row of a content says that stands on another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// The other.
    pub base: Hash,
    /// The groups that it has itself.
    pub own: GroupRanges,
}

/// The other content, open.
#[derive(Clone)]
pub(crate) struct Under {
    pub base: Arc<Reader>,
    pub own: GroupRanges,
}

impl Under {
    /// Whether it has the group itself.
    pub fn is_own(&self, group: u64) -> bool {
        self.own.contains(&(group..group + 1))
    }

    /// What is to be kept of it.
    pub fn kept(&self) -> Overlay {
        Overlay { base: self.base.hash(), own: self.own.clone() }
    }
}

/// What content of `len` bytes can stand on when `older` is an older version of it: that, or what
/// that stands on itself.
pub(crate) fn base_for(older: &Reader, len: u64) -> Option<Arc<Reader>> {
    let base = older.under.as_ref().map_or_else(|| Arc::new(older.clone()), |under| Arc::clone(&under.base));
    let is_whole = base.here.contains(&(0..base.tree.groups()));
    let is_large = |len| !has_row_outboard(len);
    let fits = is_whole && is_large(len) && is_large(base.len()) && is_worth_it(len, base.len(), &GroupRanges::empty());
    fits.then_some(base)
}

fn is_worth_it(len: u64, base_len: u64, own: &GroupRanges) -> bool {
    let spare = own.byte_count(len) + base_len.saturating_sub(len);
    spare <= len / SPARE_SHARE && own.runs() <= MAX_OWN_RUNS
}

/// Lets content stand on `base`, of which its file `data` lacks all groups but its `own`; if that is
/// not worth it they are copied.
pub(crate) fn stand(
    tree: &Tree,
    (data, path): (&dyn DiskFile, &Path),
    base: Arc<Reader>,
    own: GroupRanges,
) -> Result<Option<Under>, ContentError> {
    let lent = GroupRanges::all(tree.len).difference(&own);
    if lent.is_empty() {
        return Ok(None);
    }
    if is_worth_it(tree.len, base.len(), &own) {
        return Ok(Some(Under { base, own }));
    }
    for run in lent.iter() {
        let bytes = groups::byte_range(&run, tree.len);
        let mut at = bytes.start;
        for piece in base.read(bytes)? {
            let piece = piece?;
            data.write_at(&piece, at).map_err(ContentError::io("write", path))?;
            at += piece.len() as u64;
        }
    }
    Ok(None)
}

/// The hashes of groups of a content, from its tree, proved from its root on.
pub(crate) struct GroupHashes {
    outboard: OutboardStore,
    walk: Walk,
}

impl GroupHashes {
    /// Those of the groups of `range` that it has.
    pub fn new(content: &Reader, range: Range<u64>) -> Self {
        let there = range.start.min(content.tree.groups())..range.end.min(content.tree.groups());
        let walk = Walk::new(content.tree, &GroupRanges::from(there)).expect("these groups lie inside");
        Self { outboard: content.outboard.clone(), walk }
    }

    /// That of a group behind the one that was asked for last; nothing when it has none, or the tree
    /// cannot be read or is damaged: then there is none for those behind it either.
    pub fn of(&mut self, group: u64) -> Option<Hash> {
        loop {
            match self.walk.next()? {
                Item::Pair { at } => {
                    // A pair that is not right ends the walk.
                    let pair = self.outboard.load(at).unwrap_or([0; crate::tree::PAIR_LEN]);
                    self.walk.accept(&pair).ok()?;
                }
                Item::Group { group: next, .. } if next < group => drop(self.walk.skip()),
                Item::Group { group: next, .. } => return (next == group).then(|| self.walk.skip()),
            }
        }
    }
}

/// What of a content that is imported is in the base, as it is hashed.
pub(crate) struct Comparing {
    hashes: GroupHashes,
    pub same: GroupRanges,
}

impl Comparing {
    pub fn new(base: &Reader) -> Self {
        Self { hashes: GroupHashes::new(base, 0..base.tree.groups()), same: GroupRanges::empty() }
    }

    /// Two groups next to each other have these hashes.
    pub fn saw(&mut self, first: u64, pair: [Hash; 2]) {
        for (group, hash) in (first..).zip(pair) {
            if self.hashes.of(group) == Some(hash) {
                self.same.insert(group..group + 1);
            }
        }
    }
}

impl ContentDir {
    /// A reader of complete content that stands on another, of `base_len` bytes.
    pub fn overlay_reader(
        &self,
        hash: Hash,
        len: u64,
        overlay: &Overlay,
        base_len: u64,
    ) -> Result<Reader, ContentError> {
        let damaged = |error| match error {
            ContentError::Damaged { .. } => ContentError::Damaged { hash, range: 0..len },
            error => error,
        };
        let base = Arc::new(self.reader(overlay.base, base_len, &[]).map_err(damaged)?);
        let tree = Tree::new(hash, len)?;
        tree.check(&overlay.own)?;
        let under = Under { base, own: overlay.own.clone() };
        self.open_complete(tree, self.overlay_path(&hash), &[], Some(under))
    }

    /// Copies content that is here, proved on the way, into a file of its own.
    pub fn stage_copy(&self, content: &Reader) -> Result<Staged, ContentError> {
        let staged = self.create_staged(content.tree)?;
        let mut walk = content.walk(&GroupRanges::all(content.len()), Leaves::Read)?;
        let mut bytes = BytesMut::new();
        while let Some(item) = walk.step(&mut bytes) {
            match item? {
                Item::Pair { at } => {
                    let pair = bytes[..].try_into().expect("a pair has its length");
                    staged.outboard.save(at, &pair).map_err(ContentError::io("write the outboard of", &staged.path))?;
                }
                Item::Group { group, .. } => {
                    staged.data.write_at(&bytes, group * GROUP_LEN).map_err(ContentError::io("write", &staged.path))?
                }
            }
            bytes.clear();
        }
        Ok(staged)
    }
}
