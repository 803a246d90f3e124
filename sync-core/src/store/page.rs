//! Pages of entries for a peer: grouped by commit, each group with one seal and one multiproof,
//! within a number of bytes.

use std::collections::HashMap;

use super::{
    commits::{CommitRow, load_tree},
    engine::EngineRead,
    names::Names,
    rows::{CommitNo, EntryRow, Proof, ReplicaNo, corrupt},
    types::StoreError,
};
use crate::model::{AuthorId, Bundle, Item, Op, Seal, Value};

/// What a bundle needs beside its entries and its proof: seal, lengths.
const BUNDLE_LEN: usize = 32 + 10 + 5 + 64 + 3 + 3;

/// An entry on its way into a page.
pub(super) struct PageEntry {
    pub row: EntryRow,
    pub op: Op,
}

impl PageEntry {
    fn index(&self) -> u32 {
        match self.row.proof {
            Proof::Alone(_) => 0,
            Proof::Part(_, index) => index,
        }
    }

    /// At most so many bytes of encoding.
    pub fn len(&self) -> usize {
        let value = match &self.op {
            Op::Put { value: Value::Inline(bytes), .. } => bytes.len() + 4,
            Op::Put { value: Value::Blob { .. }, .. } => 32 + 11,
            _ => 0,
        };
        3 + 1 + 2 + self.op.key_bytes().len() + value
    }
}

/// The commit that an entry shows with others, or none when it is one of its own.
pub(super) fn commit_of(row: &EntryRow) -> Option<CommitNo> {
    match row.proof {
        Proof::Alone(_) => None,
        Proof::Part(commit, _) => Some(commit),
    }
}

/// At most so many bytes that `known` of a commit's `count` entries take beside their own.
pub(super) fn overhead(known: usize, count: u32) -> usize {
    if known == 0 {
        return 0;
    }
    if known as u32 >= count {
        return BUNDLE_LEN;
    }
    // A tree of depth d has at most k * (d - log2 k) nodes beside the paths of k leaves.
    let depth = u32::BITS - (count - 1).leading_zeros();
    BUNDLE_LEN + 32 * known * (depth - known.ilog2()) as usize
}

/// A page that is being filled.
#[derive(Default)]
pub(super) struct Page {
    groups: Vec<Group>,
    by_commit: HashMap<CommitNo, usize>,
    bytes: usize,
    entries: u64,
    counts: HashMap<CommitNo, u32>,
}

#[derive(Default)]
struct Group {
    entries: Vec<PageEntry>,
}

impl Page {
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// At most so many bytes of encoding.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of entries of the commit that an entry belongs to.
    pub fn count_of(&mut self, rows: &dyn EngineRead, replica: ReplicaNo, entry: &EntryRow) -> Result<u32, StoreError> {
        let Some(commit) = commit_of(entry) else { return Ok(1) };
        if let Some(count) = self.counts.get(&commit) {
            return Ok(*count);
        }
        let count = CommitRow::load(rows, replica, commit)?.seal.count;
        self.counts.insert(commit, count);
        Ok(count)
    }

    /// By how much the page would grow with so many more entries of a commit of `count`. It can
    /// shrink: the last entries of a commit make proofs superfluous.
    pub fn growth(&self, entry: &EntryRow, more: usize, bytes: usize, count: u32) -> isize {
        let known = commit_of(entry)
            .and_then(|commit| self.by_commit.get(&commit))
            .map_or(0, |group| self.groups[*group].entries.len());
        overhead(known + more, count) as isize - overhead(known, count) as isize + bytes as isize
    }

    pub fn push(&mut self, entry: PageEntry, count: u32) {
        self.bytes = self.bytes.saturating_add_signed(self.growth(&entry.row, 1, entry.len(), count));
        self.entries += 1;
        let group = match commit_of(&entry.row) {
            None => None,
            Some(commit) => Some(*self.by_commit.entry(commit).or_insert(self.groups.len())),
        };
        match group.and_then(|group| self.groups.get_mut(group)) {
            Some(group) => group.entries.push(entry),
            None => self.groups.push(Group { entries: vec![entry] }),
        }
    }

    /// The bundles, in the order in which their first entries were pushed.
    pub fn bundles(self, rows: &dyn EngineRead, names: &Names, replica: ReplicaNo) -> Result<Vec<Bundle>, StoreError> {
        self.groups.into_iter().map(|group| bundle(rows, names, replica, group.entries)).collect()
    }
}

fn bundle(
    rows: &dyn EngineRead,
    names: &Names,
    replica: ReplicaNo,
    mut entries: Vec<PageEntry>,
) -> Result<Bundle, StoreError> {
    entries.sort_unstable_by_key(PageEntry::index);
    if commit_of(&entries[0].row).is_some() {
        // Ranges that overlap name an entry twice, and no proof says anything twice.
        entries.dedup_by_key(|entry| entry.index());
    }
    let first = entries.first().expect("a group has an entry");
    let (seal, proof) = match first.row.proof {
        Proof::Alone(signature) => {
            let author = AuthorId(names.key(rows, first.row.author)?);
            (Seal { author, timestamp: first.row.timestamp, count: 1, signature }, Vec::new())
        }
        Proof::Part(commit, _) => {
            let seal = CommitRow::load(rows, replica, commit)?.seal;
            let tree = load_tree(rows, replica, commit)?;
            if entries.iter().any(|entry| tree.leaf(entry.index()) != Some(entry.row.hash)) {
                return Err(corrupt("a commit's tree"));
            }
            let indices: Vec<u32> = entries.iter().map(PageEntry::index).collect();
            (seal, tree.prove(&indices))
        }
    };
    let items = entries.into_iter().map(|entry| Item { index: entry.index(), op: entry.op }).collect();
    Ok(Bundle { seal, proof, items })
}
