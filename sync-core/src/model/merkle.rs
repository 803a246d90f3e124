//! The Merkle tree of a commit: root, multiproofs, and the partial tree that a store keeps.
//!
//! The shape is that of RFC 6962, section 2.1: a tree of n > 1 leaves splits at the largest power
//! of two below n. Leaves are entry hashes, inner nodes are hashes in their own domain, so a leaf
//! never passes for a node. A multiproof lists, in depth-first order, the roots of the largest
//! subtrees that hold none of the leaves shown; the proof of all leaves is empty.

use std::collections::HashMap;

use super::{domain, identity::Hash};

/// The most entries that one commit may have. Bounds what a store keeps per commit (2 MiB of leaf
/// hashes) and the depth of a proof (16).
pub const MAX_COMMIT_LEN: u32 = 65_536;

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut both = [0u8; 64];
    both[..32].copy_from_slice(&left.0);
    both[32..].copy_from_slice(&right.0);
    Hash(*blake3::keyed_hash(domain::node_key(), &both).as_bytes())
}

/// Where a subtree of `len` > 1 leaves splits.
fn split(len: u32) -> u32 {
    1 << (31 - (len - 1).leading_zeros())
}

/// The root over all `leaves`; there must be at least one.
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => panic!("a commit has at least one entry"),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len() as u32) as usize);
            node(&root(left), &root(right))
        }
    }
}

/// The root that `leaves` (index and hash, indices ascending) and `proof` give for a commit of
/// `count` entries; none when they do not fit together exactly.
pub fn root_of_part(count: u32, leaves: &[(u32, Hash)], proof: &[Hash]) -> Option<Hash> {
    if !well_formed(count, leaves) {
        return None;
    }
    let mut proof = proof.iter();
    let root = part(0, count, leaves, &mut proof, &mut |_, _, _| ())?;
    proof.next().is_none().then_some(root)
}

fn well_formed(count: u32, leaves: &[(u32, Hash)]) -> bool {
    (1..=MAX_COMMIT_LEN).contains(&count)
        && leaves.last().is_some_and(|last| last.0 < count)
        && leaves.windows(2).all(|pair| pair[0].0 < pair[1].0)
}

fn part(
    low: u32,
    high: u32,
    leaves: &[(u32, Hash)],
    proof: &mut std::slice::Iter<'_, Hash>,
    seen: &mut impl FnMut(u32, u32, Hash),
) -> Option<Hash> {
    let hash = if leaves.is_empty() {
        *proof.next()?
    } else if high - low == 1 {
        leaves[0].1
    } else {
        let middle = low + split(high - low);
        let (left, right) = leaves.split_at(leaves.partition_point(|leaf| leaf.0 < middle));
        node(&part(low, middle, left, proof, seen)?, &part(middle, high, right, proof, seen)?)
    };
    seen(low, high, hash);
    Some(hash)
}

/// The part of a commit's tree that is known here: enough to prove any of its known leaves to
/// somebody else.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PartialTree {
    count: u32,
    leaves: Vec<(u32, Hash)>,
    proof: Vec<Hash>,
}

impl PartialTree {
    /// A part that [`root_of_part`] has accepted; none when it does not fit together.
    pub fn new(count: u32, leaves: Vec<(u32, Hash)>, proof: Vec<Hash>) -> Option<Self> {
        Self::with_root(count, leaves, proof).map(|(tree, _)| tree)
    }

    /// The part that leaves and proof give, and its root; none when they do not fit together exactly.
    pub(crate) fn with_root(count: u32, leaves: Vec<(u32, Hash)>, proof: Vec<Hash>) -> Option<(Self, Hash)> {
        let root = root_of_part(count, &leaves, &proof)?;
        Some((Self { count, leaves, proof }, root))
    }

    /// All of a tree: its leaves need no proof.
    pub(crate) fn whole(leaves: Vec<Hash>) -> Self {
        let count = u32::try_from(leaves.len()).expect("a commit has at most 65,536 entries");
        Self { count, leaves: (0..count).zip(leaves).collect(), proof: Vec::new() }
    }

    /// The number of entries of the commit.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The known leaves, indices ascending.
    pub fn leaves(&self) -> &[(u32, Hash)] {
        &self.leaves
    }

    /// What proves the known leaves.
    pub fn proof(&self) -> &[Hash] {
        &self.proof
    }

    /// The hash of the leaf at `index`, when it is known.
    pub fn leaf(&self, index: u32) -> Option<Hash> {
        if self.leaves.len() == self.count as usize {
            return self.leaves.get(index as usize).map(|leaf| leaf.1);
        }
        self.leaves.binary_search_by_key(&index, |leaf| leaf.0).ok().map(|at| self.leaves[at].1)
    }

    fn nodes(&self, into: &mut HashMap<(u32, u32), Hash>) {
        part(0, self.count, &self.leaves, &mut self.proof.iter(), &mut |low, high, hash| {
            into.insert((low, high), hash);
        })
        .expect("a partial tree fits together since it was made");
    }

    /// The multiproof of the leaves at `indices` (ascending, at least one, all known).
    pub fn prove(&self, indices: &[u32]) -> Vec<Hash> {
        if indices.len() == self.leaves.len() {
            return self.proof.clone();
        }
        let mut proof = Vec::new();
        prove(0, self.count, &self.leaves, &mut self.proof.iter(), indices, &mut proof);
        proof
    }

    /// Takes in what `other`, a part of the same commit, knows.
    ///
    /// Both parts must have the same root; the caller has verified that.
    pub fn merge(&mut self, other: &Self) {
        if other.leaves.iter().all(|leaf| self.leaf(leaf.0).is_some()) {
            return;
        }
        let mut nodes = HashMap::new();
        self.nodes(&mut nodes);
        other.nodes(&mut nodes);
        self.leaves.extend(other.leaves.iter().copied());
        self.leaves.sort_unstable_by_key(|leaf| leaf.0);
        self.leaves.dedup_by_key(|leaf| leaf.0);
        let indices: Vec<u32> = self.leaves.iter().map(|leaf| leaf.0).collect();
        self.proof.clear();
        emit(0, self.count, &indices, &nodes, &mut self.proof);
    }
}

/// Pushes the roots of the largest subtrees of a range that hold none of `indices`. Subtrees of which nothing is shown
/// are summed, and nothing else is.
fn prove(
    low: u32,
    high: u32,
    leaves: &[(u32, Hash)],
    known: &mut std::slice::Iter<'_, Hash>,
    indices: &[u32],
    proof: &mut Vec<Hash>,
) {
    if indices.is_empty() {
        let root = part(low, high, leaves, known, &mut |_, _, _| ());
        proof.push(root.expect("a partial tree fits together since it was made"));
    } else if high - low > 1 && indices.len() < (high - low) as usize {
        let middle = low + split(high - low);
        let (left, right) = leaves.split_at(leaves.partition_point(|leaf| leaf.0 < middle));
        let (first, second) = indices.split_at(indices.partition_point(|&index| index < middle));
        prove(low, middle, left, known, first, proof);
        prove(middle, high, right, known, second, proof);
    }
}

fn emit(low: u32, high: u32, indices: &[u32], nodes: &HashMap<(u32, u32), Hash>, proof: &mut Vec<Hash>) {
    if indices.is_empty() {
        proof.push(nodes[&(low, high)]);
    } else if high - low > 1 && indices.len() < (high - low) as usize {
        let middle = low + split(high - low);
        let (left, right) = indices.split_at(indices.partition_point(|&index| index < middle));
        emit(low, middle, left, nodes, proof);
        emit(middle, high, right, nodes, proof);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(count: u32) -> Vec<Hash> {
        (0..count).map(|index| Hash(*blake3::hash(&index.to_be_bytes()).as_bytes())).collect()
    }

    fn pick(all: &[Hash], indices: &[u32]) -> Vec<(u32, Hash)> {
        indices.iter().map(|&index| (index, all[index as usize])).collect()
    }

    proptest! {
        #[test]
        fn any_part_proves_the_root_and_parts_merge(
            count in 1u32..70,
            first in prop::collection::btree_set(0u32..70, 1..20),
            second in prop::collection::btree_set(0u32..70, 1..20),
        ) {
            let all = leaves(count);
            let whole = PartialTree::new(count, pick(&all, &(0..count).collect::<Vec<_>>()), vec![]).unwrap();
            let take = |set: std::collections::BTreeSet<u32>| {
                let mut set: Vec<u32> = set.into_iter().map(|index| index % count).collect();
                set.sort_unstable();
                set.dedup();
                set
            };
            let (first, second) = (take(first), take(second));
            let mut tree = PartialTree::new(count, pick(&all, &first), whole.prove(&first)).unwrap();
            prop_assert_eq!(root_of_part(count, &tree.leaves, &tree.proof), Some(root(&all)));
            let other = PartialTree::new(count, pick(&all, &second), whole.prove(&second)).unwrap();
            tree.merge(&other);
            prop_assert_eq!(root_of_part(count, &tree.leaves, &tree.proof), Some(root(&all)));
            let mut union: Vec<u32> = first.iter().chain(&second).copied().collect();
            union.sort_unstable();
            union.dedup();
            prop_assert_eq!(tree.prove(&union), whole.prove(&union));
            prop_assert_eq!(tree.prove(&second), whole.prove(&second));
        }
    }

    #[test]
    fn a_proof_too_long_or_too_short_or_of_unsorted_leaves_proves_nothing() {
        let all = leaves(5);
        let whole = PartialTree::new(5, pick(&all, &[0, 1, 2, 3, 4]), vec![]).unwrap();
        let mut proof = whole.prove(&[1, 3]);
        assert_eq!(root_of_part(5, &pick(&all, &[1, 3]), &proof), Some(root(&all)));
        assert_eq!(root_of_part(5, &pick(&all, &[3, 1]), &proof), None);
        assert_eq!(root_of_part(5, &pick(&all, &[1, 3]), &proof[1..]), None);
        proof.push(all[0]);
        assert_eq!(root_of_part(5, &pick(&all, &[1, 3]), &proof), None);
        assert_eq!(root_of_part(0, &[], &[]), None);
        assert_eq!(root_of_part(MAX_COMMIT_LEN + 1, &pick(&all, &[1]), &proof), None);
    }
}
