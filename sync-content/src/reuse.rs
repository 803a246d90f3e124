//! What a download need not fetch: groups that another content here, an older version say, has at
//! the same place. Of the groups that were not looked at yet, first the tree is asked for, 64 bytes
//! a group; whatever group the other content proves under it is copied, and only the rest comes.
//! Large content is not even copied, where it can stand on the other: see [`crate::overlay`].

use std::{fmt, ops::Range, sync::Arc};

use bytes::BytesMut;

use crate::{
    ContentError, GroupRanges, Partial, Reader,
    groups::{self, GROUP_LEN},
    overlay::{self, GroupHashes},
    tree::{Item, PAIR_LEN, Tree, Walk},
};

/// Another content, and the groups for which it was not looked at yet.
#[derive(Debug)]
pub(crate) struct Base {
    reader: Reader,
    /// What the download can stand on, if it can: it, or what it stands on itself.
    pub under: Option<Arc<Reader>>,
    left: GroupRanges,
}

impl Base {
    /// The groups that may be in the other content, and are not to be fetched before that is known.
    pub fn left(&self) -> &GroupRanges {
        &self.left
    }
}

impl Partial {
    /// Looks into `base` first for what is missing. [`Partial::claim`] gives only groups that were
    /// looked at, with [`Partial::claim_tree`].
    pub fn reuse(&self, base: Reader) {
        let shared = groups::group_count(base.len().min(self.len()));
        let left = self.missing().intersection(&GroupRanges::from(0..shared));
        let under = overlay::base_for(&base, self.len());
        let mut state = self.lock();
        // What is lent stays so.
        if state.lent.is_empty() {
            state.base = Some(Base { reader: base, under, left });
        }
    }

    /// Reserves the next run of at most `max_groups` groups, among `available`, that were not looked
    /// at. Nothing when there is none, or no other content.
    pub fn claim_tree(self: &Arc<Self>, available: &GroupRanges, max_groups: u64) -> Option<TreeClaim> {
        let mut state = self.lock();
        let base = state.base.as_mut()?;
        let run = base.left.intersection(available).iter().next()?;
        let groups = run.start..run.end.min((run.start / max_groups + 1) * max_groups);
        base.left.remove(groups.clone());
        let hashes = base.under.as_ref().map(|under| Box::new(GroupHashes::new(under, groups.clone())));
        let base = base.reader.clone();
        state.claimed.insert(groups.clone());
        drop(state);
        let walk = Walk::new(self.tree, &GroupRanges::from(groups.clone())).expect("missing groups lie inside");
        Some(TreeClaim { partial: Arc::clone(self), base, hashes, groups, walk, buffer: Vec::new(), failed: false })
    }
}

/// A run of groups whose tree is asked of a source, and what receives it. Dropped before all of it
/// came, the groups are to be looked at again.
pub struct TreeClaim {
    partial: Arc<Partial>,
    base: Reader,
    /// Of what the download stands on.
    hashes: Option<Box<GroupHashes>>,
    groups: Range<u64>,
    walk: Walk,
    buffer: Vec<u8>,
    failed: bool,
}

impl TreeClaim {
    /// The groups to ask the source for.
    pub fn groups(&self) -> Range<u64> {
        self.groups.clone()
    }

    /// Whether all of the tree came.
    pub fn is_done(&self) -> bool {
        !self.failed && self.walk.next().is_none()
    }

    /// Takes the next bytes of the tree, in pieces of any size, and answers how many bytes of
    /// content were found in the other one, proved. Bytes that are wrong, or more than
    /// were asked for, are [`ContentError::Unproved`]; nothing can be pushed after an error.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<u64, ContentError> {
        let hash = self.partial.tree.hash;
        if self.failed {
            return Err(ContentError::Ended(hash));
        }
        let mut copied = 0;
        loop {
            let at = match self.walk.next() {
                Some(Item::Pair { at }) => at,
                Some(Item::Group { group, len }) => {
                    let expected = self.walk.skip();
                    copied += self.take(group, len, expected).inspect_err(|_| self.failed = true)?;
                    continue;
                }
                None if bytes.is_empty() => return Ok(copied),
                None => {
                    self.failed = true;
                    let range = groups::byte_range(&self.groups, self.partial.tree.len);
                    return Err(ContentError::Unproved { hash, range: range.end..range.end });
                }
            };
            let lacking = PAIR_LEN - self.buffer.len();
            if bytes.len() < lacking {
                self.buffer.extend_from_slice(bytes);
                return Ok(copied);
            }
            let (now, rest) = bytes.split_at(lacking);
            bytes = rest;
            self.buffer.extend_from_slice(now);
            let proved =
                self.walk.accept(&self.buffer).map_err(|wrong| ContentError::Unproved { hash, range: wrong.range });
            let written = proved.and_then(|()| self.partial.write(Item::Pair { at }, &self.buffer));
            self.buffer.clear();
            written.inspect_err(|_| self.failed = true)?;
        }
    }

    /// Takes a group, if the other content has it at the same place.
    fn take(&mut self, group: u64, len: usize, expected: crate::Hash) -> Result<u64, ContentError> {
        let offset = group * GROUP_LEN;
        if offset + len as u64 > self.base.len() {
            return Ok(0);
        }
        if let Some(hashes) = &mut self.hashes {
            if hashes.of(group) == Some(expected) {
                return Ok(self.partial.lend(group, len));
            }
            // What the other one has itself may be the same still.
            if !self.base.under.as_ref().is_some_and(|under| under.is_own(group)) {
                return Ok(0);
            }
        }
        let mut bytes = BytesMut::with_capacity(len);
        // What cannot be read here can be fetched.
        let Ok(()) = self.base.load(Item::Group { group, len }, &mut bytes) else { return Ok(0) };
        let Tree { len: whole, .. } = self.partial.tree;
        if crate::tree::group_hash(offset, &bytes, len as u64 == whole) != expected {
            return Ok(0);
        }
        self.partial.write(Item::Group { group, len }, &bytes)
    }
}

impl Drop for TreeClaim {
    fn drop(&mut self) {
        let done = self.is_done();
        let mut state = self.partial.lock();
        state.claimed.remove(self.groups.clone());
        let here = state.here.clone();
        if let Some(base) = &mut state.base
            && !done
        {
            base.left = base.left.union(&GroupRanges::from(self.groups.clone()).difference(&here));
        }
    }
}

impl fmt::Debug for TreeClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeClaim").field("hash", &self.partial.tree.hash).field("groups", &self.groups).finish()
    }
}
