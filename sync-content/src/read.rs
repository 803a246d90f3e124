//! Verified reading: every byte that leaves a [`Reader`] was proved after it came from the disk.

use std::{fmt, ops::Range, path::PathBuf, sync::Arc};

use bytes::{Bytes, BytesMut};

use crate::{
    ContentError, GroupRanges, Hash,
    disk::DiskFile,
    groups::{self, GROUP_LEN},
    overlay::Under,
    tree::{Item, OutboardStore, Tree, Walk},
};

/// An encoder gives pieces of about this many bytes: large enough that the cost of passing one
/// on does not count, small enough for many encoders at once.
const PIECE_LEN: usize = 64 * 1024;

/// Reads content, in full or in part here, and proves what it reads.
#[derive(Clone)]
pub struct Reader {
    pub(crate) tree: Tree,
    pub(crate) path: PathBuf,
    pub(crate) data: Arc<dyn DiskFile>,
    pub(crate) outboard: OutboardStore,
    pub(crate) here: GroupRanges,
    /// Where the groups are that `data` has not.
    pub(crate) under: Option<Under>,
}

impl Reader {
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

    /// The groups that can be read.
    pub fn here(&self) -> &GroupRanges {
        &self.here
    }

    /// The encoding of `wanted`, piece by piece: pairs and groups in pre-order, as the receiving
    /// [`crate::Claim`] takes it. What is not here is an error before the first piece.
    pub fn encode(&self, wanted: GroupRanges) -> Result<Encoder, ContentError> {
        Ok(Encoder(self.walk(&wanted, Leaves::Read)?))
    }

    /// The same without the bytes of the groups, as [`crate::reuse::TreeClaim`] takes it.
    pub fn encode_tree(&self, wanted: GroupRanges) -> Result<Encoder, ContentError> {
        Ok(Encoder(self.walk(&wanted, Leaves::LeftOut)?))
    }

    /// The bytes of `range`, group by group. What is not here is an error before the first byte.
    pub fn read(&self, range: Range<u64>) -> Result<ByteChunks, ContentError> {
        if range.start > range.end || range.end > self.tree.len {
            return Err(ContentError::OutOfRange { hash: self.tree.hash, range, len: self.tree.len });
        }
        let walk = self.walk(&GroupRanges::from(groups::covering(range.clone())), Leaves::Read)?;
        Ok(ByteChunks { walk, range })
    }

    /// Reads `range` into one buffer; for ranges that the caller knows to be small.
    pub fn read_to_vec(&self, range: Range<u64>) -> Result<Vec<u8>, ContentError> {
        let mut result = Vec::new();
        for bytes in self.read(range)? {
            result.extend_from_slice(&bytes?);
        }
        Ok(result)
    }

    pub(crate) fn walk(&self, wanted: &GroupRanges, leaves: Leaves) -> Result<DiskWalk, ContentError> {
        let walk = Walk::new(self.tree, wanted)?;
        if let Some(groups) = wanted.difference(&self.here).iter().next() {
            return Err(ContentError::NotHere { hash: self.tree.hash, groups });
        }
        Ok(DiskWalk { reader: self.clone(), walk: (!wanted.is_empty()).then_some(walk), leaves })
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("tree", &self.tree).field("here", &self.here).finish()
    }
}

/// A walk that is fed from the disk. Ends after the first error.
pub(crate) struct DiskWalk {
    reader: Reader,
    walk: Option<Walk>,
    leaves: Leaves,
}

/// Whether the bytes of groups are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    Read,
    LeftOut,
}

impl DiskWalk {
    /// Appends the bytes of the next item to `buffer`, proved.
    pub fn step(&mut self, buffer: &mut BytesMut) -> Option<Result<Item, ContentError>> {
        let walk = self.walk.as_mut()?;
        let Some(item) = walk.next() else {
            self.walk = None;
            return None;
        };
        if self.leaves == Leaves::LeftOut && matches!(item, Item::Group { .. }) {
            walk.skip();
            return Some(Ok(item));
        }
        let start = buffer.len();
        let result = self.reader.load(item, buffer).and_then(|()| {
            let hash = self.reader.tree.hash;
            walk.accept(&buffer[start..]).map_err(|wrong| ContentError::Damaged { hash, range: wrong.range })
        });
        match result {
            Ok(()) => Some(Ok(item)),
            Err(error) => {
                buffer.truncate(start);
                self.walk = None;
                Some(Err(error))
            }
        }
    }
}

impl Reader {
    /// Appends the bytes of an item, unproved.
    pub(crate) fn load(&self, item: Item, buffer: &mut BytesMut) -> Result<(), ContentError> {
        match item {
            Item::Pair { at } => {
                let pair = self.outboard.load(at).map_err(ContentError::io("read the outboard of", &self.path))?;
                buffer.extend_from_slice(&pair);
            }
            Item::Group { group, len } => {
                let start = buffer.len();
                buffer.resize(start + len, 0);
                let offset = group * GROUP_LEN;
                let (data, path) = match &self.under {
                    Some(under) if !under.is_own(group) => (&under.base.data, &under.base.path),
                    _ => (&self.data, &self.path),
                };
                match data.read_at(&mut buffer[start..], offset) {
                    // A file that lost its end is rot like any other.
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                        let range = offset..offset + len as u64;
                        return Err(ContentError::Damaged { hash: self.tree.hash, range });
                    }
                    result => result.map_err(ContentError::io("read", path))?,
                }
            }
        }
        Ok(())
    }
}

/// The encoding of some groups, in pieces of 64 to 80 KiB (the last may be smaller). Ends after
/// the first error; what came before it is right.
pub struct Encoder(DiskWalk);

impl Iterator for Encoder {
    type Item = Result<Bytes, ContentError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut buffer = BytesMut::with_capacity(PIECE_LEN + GROUP_LEN as usize);
        while buffer.len() < PIECE_LEN {
            match self.0.step(&mut buffer) {
                None => break,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Some(Err(error)),
            }
        }
        (!buffer.is_empty()).then(|| Ok(buffer.freeze()))
    }
}

/// The bytes of a range, at most a group at a time. Ends after the first error.
pub struct ByteChunks {
    walk: DiskWalk,
    range: Range<u64>,
}

impl Iterator for ByteChunks {
    type Item = Result<Bytes, ContentError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut buffer = BytesMut::new();
        loop {
            buffer.clear();
            match self.walk.step(&mut buffer)? {
                Err(error) => return Some(Err(error)),
                Ok(Item::Pair { .. }) => {}
                Ok(Item::Group { group, len }) => {
                    let offset = group * GROUP_LEN;
                    let inside = |at: u64| at.clamp(offset, offset + len as u64) - offset;
                    let (start, end) = (inside(self.range.start), inside(self.range.end));
                    return Some(Ok(buffer.freeze().slice(start as usize..end as usize)));
                }
            }
        }
    }
}
