//! The tree above the groups: its geometry, its outboard, and the walk along it that proves
//! what passes. Encoder, reader and receiver are this one walk with different ends.

use std::{
    cell::RefCell,
    sync::{Arc, Mutex},
};

use bao_tree::{
    BaoTree, BlockSize, ChunkNum, ChunkRanges, TreeNode,
    io::sync::OutboardMut,
    iter::{BaoChunk, ResponseIter},
};
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::{ContentError, GroupRanges, Hash, MAX_LEN, disk::DiskFile, groups, groups::GROUP_LEN, overlay::Comparing};

/// 16 chunks of 1 KiB.
const BLOCK_SIZE: BlockSize = BlockSize::from_chunk_log(4);

/// Bytes of a pair of hashes, an inner node.
pub(crate) const PAIR_LEN: usize = 64;

/// The shape of one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tree {
    pub hash: Hash,
    pub len: u64,
}

impl Tree {
    pub fn new(hash: Hash, len: u64) -> Result<Self, ContentError> {
        if len > MAX_LEN { Err(ContentError::TooLong { hash, len }) } else { Ok(Self { hash, len }) }
    }

    pub fn shape(&self) -> BaoTree {
        shape(self.len)
    }

    pub fn groups(&self) -> u64 {
        groups::group_count(self.len)
    }

    /// Refuses what lies outside: the encoding would take it for a question about the last chunk.
    pub fn check(&self, wanted: &GroupRanges) -> Result<(), ContentError> {
        if wanted.end() > self.groups() {
            let start = wanted.iter().next().map_or(0, |run| run.start);
            return Err(ContentError::OutOfRange { hash: self.hash, range: start..wanted.end(), len: self.len });
        }
        Ok(())
    }

    fn node_bytes(&self, node: TreeNode) -> std::ops::Range<u64> {
        let chunks = node.chunk_range();
        chunks.start.to_bytes()..chunks.end.to_bytes().min(self.len)
    }
}

pub(crate) fn shape(len: u64) -> BaoTree {
    BaoTree::new(len, BLOCK_SIZE)
}

/// How many bytes the outboard of `len` bytes has.
pub(crate) fn outboard_len(len: u64) -> u64 {
    shape(len).outboard_size()
}

/// Where the pairs of hashes are, in pre-order. Pairs that nobody has written are zero and
/// prove nothing.
#[derive(Clone)]
pub(crate) enum OutboardStore {
    Row(Arc<Mutex<Vec<u8>>>),
    File(Arc<dyn DiskFile>),
}

impl OutboardStore {
    /// One in memory, from what was kept, filled up with zeros.
    pub fn row(kept: &[u8], len: u64) -> Self {
        let mut bytes = kept.to_vec();
        bytes.resize(outboard_len(len) as usize, 0);
        Self::Row(Arc::new(Mutex::new(bytes)))
    }

    pub fn load(&self, at: u64) -> std::io::Result<[u8; PAIR_LEN]> {
        let mut pair = [0; PAIR_LEN];
        match self {
            Self::Row(bytes) => {
                let bytes = bytes.lock().expect("no outboard operation panics");
                let at = at as usize * PAIR_LEN;
                pair.copy_from_slice(&bytes[at..at + PAIR_LEN]);
            }
            Self::File(file) => match file.read_at(&mut pair, at * PAIR_LEN as u64) {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => pair = [0; PAIR_LEN],
                result => result?,
            },
        }
        Ok(pair)
    }

    pub fn save(&self, at: u64, pair: &[u8; PAIR_LEN]) -> std::io::Result<()> {
        match self {
            Self::Row(bytes) => {
                let at = at as usize * PAIR_LEN;
                bytes.lock().expect("no outboard operation panics")[at..at + PAIR_LEN].copy_from_slice(pair);
                Ok(())
            }
            Self::File(file) => file.write_at(pair, at * PAIR_LEN as u64),
        }
    }

    /// The bytes, when they are for the caller's row.
    pub fn row_bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Row(bytes) => Some(bytes.lock().expect("no outboard operation panics").clone()),
            Self::File(_) => None,
        }
    }
}

/// Lets `bao-tree` fill an [`OutboardStore`] while it hashes.
pub(crate) struct Filling<'a> {
    pub shape: BaoTree,
    pub store: &'a OutboardStore,
    /// Is told the hashes of each two groups that stand under one pair.
    pub comparing: Option<&'a RefCell<Comparing>>,
}

impl OutboardMut for Filling<'_> {
    fn save(&mut self, node: TreeNode, (left, right): &(Hash, Hash)) -> std::io::Result<()> {
        let Some(at) = self.shape.pre_order_offset(node) else { return Ok(()) };
        let chunks = node.chunk_range();
        if let Some(comparing) = self.comparing
            && (chunks.end - chunks.start).to_bytes() == 2 * GROUP_LEN
        {
            comparing.borrow_mut().saw(chunks.start.to_bytes() / GROUP_LEN, [*left, *right]);
        }
        let mut pair = [0; PAIR_LEN];
        pair[..32].copy_from_slice(left.as_bytes());
        pair[32..].copy_from_slice(right.as_bytes());
        self.store.save(at, &pair)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What comes next in the encoding of some groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item {
    /// A pair of hashes; `at` is its place in the outboard.
    Pair { at: u64 },
    /// The bytes of a group.
    Group { group: u64, len: usize },
}

impl Item {
    /// How many bytes it has.
    pub fn len(&self) -> usize {
        match self {
            Self::Pair { .. } => PAIR_LEN,
            Self::Group { len, .. } => *len,
        }
    }
}

/// A walk in pre-order over the pairs and groups that prove a set of groups. It says what comes
/// next and accepts bytes only when the hash above them proves them.
pub(crate) struct Walk {
    tree: Tree,
    steps: ResponseIter,
    next: Option<BaoChunk>,
    expected: Vec<Hash>,
}

/// The bytes are not those that the hash above them promises.
#[derive(Debug)]
pub(crate) struct Mismatch {
    pub range: std::ops::Range<u64>,
}

impl Walk {
    /// The walk over `wanted`, which must lie inside of the tree.
    pub fn new(tree: Tree, wanted: &GroupRanges) -> Result<Self, ContentError> {
        tree.check(wanted)?;
        let mut steps = ResponseIter::new(tree.shape(), chunks(wanted, tree.groups()));
        let next = steps.next();
        Ok(Self { tree, steps, next, expected: vec![tree.hash] })
    }

    /// What must be given to [`Walk::accept`] next; nothing at the end.
    pub fn next(&self) -> Option<Item> {
        self.next.as_ref().map(|step| match step {
            BaoChunk::Parent { node, .. } => Item::Pair {
                at: self.tree.shape().pre_order_offset(*node).expect("whole groups need stored pairs only"),
            },
            BaoChunk::Leaf { start_chunk, size, .. } => {
                Item::Group { group: start_chunk.to_bytes() / GROUP_LEN, len: *size }
            }
        })
    }

    /// Leaves a group out, and answers the hash that its bytes must have.
    pub fn skip(&mut self) -> Hash {
        let step = self.next.take().expect("skip follows a next that was a group");
        debug_assert!(matches!(step, BaoChunk::Leaf { .. }), "pairs are needed");
        self.next = self.steps.next();
        self.expected.pop().expect("each step has a hash above it")
    }

    /// Takes the bytes of [`Walk::next`], if they are right.
    pub fn accept(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        let step = self.next.take().expect("accept follows a next that was something");
        let expected = self.expected.pop().expect("each step has a hash above it");
        let (actual, range) = match &step {
            BaoChunk::Parent { node, is_root, left, right, .. } => {
                let (low, high) = bytes.split_at(PAIR_LEN / 2);
                let low: ChainingValue = low.try_into().expect("half of a pair");
                let high: ChainingValue = high.try_into().expect("half of a pair");
                if *right {
                    self.expected.push(Hash::from_bytes(high));
                }
                if *left {
                    self.expected.push(Hash::from_bytes(low));
                }
                let actual = if *is_root {
                    merge_subtrees_root(&low, &high, Mode::Hash)
                } else {
                    Hash::from_bytes(merge_subtrees_non_root(&low, &high, Mode::Hash))
                };
                (actual, self.tree.node_bytes(*node))
            }
            BaoChunk::Leaf { start_chunk, is_root, .. } => {
                let start = start_chunk.to_bytes();
                (group_hash(start, bytes, *is_root), start..start + bytes.len() as u64)
            }
        };
        if actual != expected {
            return Err(Mismatch { range });
        }
        self.next = self.steps.next();
        Ok(())
    }
}

/// The hash of a group that begins at byte `start`, as the pair above it has it.
pub(crate) fn group_hash(start: u64, bytes: &[u8], is_root: bool) -> Hash {
    if is_root {
        return blake3::hash(bytes);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(start);
    hasher.update(bytes);
    Hash::from_bytes(hasher.finalize_non_root())
}

/// The same set in chunks. A run that reaches the last group is open, as the encoding wants it.
fn chunks(wanted: &GroupRanges, groups: u64) -> ChunkRanges {
    let chunk = |group: u64| ChunkNum(group << BLOCK_SIZE.chunk_log());
    let mut result = ChunkRanges::empty();
    for run in wanted.iter() {
        result |= if run.end >= groups {
            ChunkRanges::from(chunk(run.start)..)
        } else {
            ChunkRanges::from(chunk(run.start)..chunk(run.end))
        };
    }
    result
}
