//! Commits and seals: how entries are signed, travel and are verified.
//!
//! A commit is the atomic batch of entries that one write makes. Its seal is one Ed25519
//! signature over the root of the Merkle tree of its entries. Entries of one commit travel
//! together in a [`Bundle`]: the seal once, the entries, and one multiproof, which is empty when
//! the commit is whole. The entry at index i of a commit has the commit's timestamp plus i
//! microseconds, so entries of one commit are ordered as they were written.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    clock::HybridClock,
    domain,
    entry::{Entry, EntryError, Op, Order, Timestamp, entry_hash},
    identity::{AuthorId, Hash, PublicPoint, ReplicaId, SecretKey, Signature},
    merkle::{self, MAX_COMMIT_LEN, PartialTree},
};
use crate::sequence::as_it_comes;

/// What proves a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seal {
    /// Who signed.
    pub author: AuthorId,
    /// The timestamp of the entry at index 0.
    pub timestamp: Timestamp,
    /// The number of entries of the commit.
    pub count: u32,
    /// The signature over domain, replica, author, count and root.
    pub signature: Signature,
}

impl Seal {
    /// The timestamp of the entry at `index`.
    pub fn timestamp_of(&self, index: u32) -> Timestamp {
        Timestamp(self.timestamp.0.saturating_add(u64::from(index)))
    }
}

/// One entry in a bundle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// Its index in the commit.
    pub index: u32,
    /// What it says.
    pub op: Op,
}

/// Entries of one commit as they travel: not verified.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bundle {
    /// The commit's seal.
    pub seal: Seal,
    /// The multiproof of the items.
    #[serde(deserialize_with = "as_it_comes")]
    pub proof: Vec<Hash>,
    /// The entries, by index, ascending.
    #[serde(deserialize_with = "as_it_comes")]
    pub items: Vec<Item>,
}

/// Why a bundle is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Items out of order, too many, or not fitting the proof.
    #[error("the entries and the proof of the commit do not fit together")]
    Proof,
    /// The signature is not the author's.
    #[error("the signature is not the author's")]
    Signature,
    /// An entry that no honest writer makes.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

/// Remembers verified roots, so that a commit that arrives in many parts costs one signature check, and its authors'
/// keys as points.
#[derive(Debug, Default)]
pub struct Verifier {
    known: HashMap<(Signature, Hash), (ReplicaId, AuthorId, u32)>,
    points: HashMap<AuthorId, PublicPoint>,
}

impl Verifier {
    /// How many roots, and how many authors' keys, are remembered. A bootstrap streams at most a few commits at a time.
    pub const CAPACITY: usize = 1024;

    fn check(&mut self, replica: &ReplicaId, seal: &Seal, root: Hash) -> bool {
        let claim = (*replica, seal.author, seal.count);
        if self.known.get(&(seal.signature, root)) == Some(&claim) {
            return true;
        }
        if self.points.len() >= Self::CAPACITY {
            self.points.clear();
        }
        let point = self.points.entry(seal.author).or_insert_with(|| seal.author.0.point());
        if !point.verify(&signed_bytes(replica, &seal.author, seal.count, &root), &seal.signature) {
            return false;
        }
        // Only commits of several entries can come in parts.
        if seal.count > 1 {
            if self.known.len() >= Self::CAPACITY {
                self.known.clear();
            }
            self.known.insert((seal.signature, root), claim);
        }
        true
    }
}

fn signed_bytes(replica: &ReplicaId, author: &AuthorId, count: u32, root: &Hash) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(domain::COMMIT.len() + 32 + 32 + 4 + 32);
    bytes.extend_from_slice(domain::COMMIT);
    bytes.extend_from_slice(replica.as_bytes());
    bytes.extend_from_slice(author.as_bytes());
    bytes.extend_from_slice(&count.to_be_bytes());
    bytes.extend_from_slice(&root.0);
    bytes
}

impl Bundle {
    /// Verifies the bundle: every op is well formed, items and proof give a root, and the seal's
    /// signature over it is the author's (strict, RFC 8032 with cofactorless equation and no
    /// small-order keys).
    pub fn verify(self, replica: ReplicaId, verifier: &mut Verifier) -> Result<VerifiedBundle, VerifyError> {
        let Self { seal, proof, items } = self;
        let mut leaves = Vec::with_capacity(items.len());
        for item in &items {
            item.op.check()?;
            leaves.push((item.index, entry_hash(&replica, &seal.author, seal.timestamp_of(item.index), &item.op)));
        }
        // A timestamp that would pass the end of time could stand for two entries.
        if seal.timestamp.0.checked_add(u64::from(seal.count)).is_none() {
            return Err(VerifyError::Proof);
        }
        let (tree, root) = PartialTree::with_root(seal.count, leaves, proof).ok_or(VerifyError::Proof)?;
        if !verifier.check(&replica, &seal, root) {
            return Err(VerifyError::Signature);
        }
        Ok(VerifiedBundle { replica, seal, root, tree, ops: items.into_iter().map(|item| item.op).collect() })
    }
}

/// Entries of one commit whose seal was verified. A store takes nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedBundle {
    replica: ReplicaId,
    seal: Seal,
    root: Hash,
    tree: PartialTree,
    ops: Vec<Op>,
}

/// One entry of a [`VerifiedBundle`].
#[derive(Clone, Copy, Debug)]
pub struct VerifiedEntry<'a> {
    /// Its index in the commit.
    pub index: u32,
    /// Its place in the order of the replica.
    pub order: Order,
    /// What it says.
    pub op: &'a Op,
}

impl VerifiedBundle {
    /// The replica that the entries belong to.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// The commit's seal.
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// The root of the commit: with the seal's author it names the commit.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The part of the commit's tree that this bundle shows.
    pub fn tree(&self) -> &PartialTree {
        &self.tree
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there are none. There is always one.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The entries.
    pub fn entries(&self) -> impl Iterator<Item = VerifiedEntry<'_>> {
        self.tree.leaves().iter().zip(&self.ops).map(|(&(index, hash), op)| VerifiedEntry {
            index,
            order: Order { timestamp: self.seal.timestamp_of(index), author: self.seal.author, hash },
            op,
        })
    }

    /// The bundle as it travels.
    pub fn to_bundle(&self) -> Bundle {
        let items = self.entries().map(|entry| Item { index: entry.index, op: entry.op.clone() }).collect();
        Bundle { seal: self.seal, proof: self.tree.proof().to_vec(), items }
    }
}

/// Why a commit cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Nothing was written.
    #[error("the transaction is empty")]
    Empty,
    /// More than [`MAX_COMMIT_LEN`] entries.
    #[error("the transaction has {0} entries; at most {MAX_COMMIT_LEN} are allowed: split it")]
    TooLong(usize),
    /// An entry is not well formed.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

/// Signs `ops` as one commit. The clock moves past the commit's last entry.
///
/// `wall` is the wall clock; the commit's timestamp is the clock's next.
pub fn sign_commit(
    replica: ReplicaId,
    author: &SecretKey,
    clock: &HybridClock,
    wall: Timestamp,
    ops: Vec<Op>,
) -> Result<VerifiedBundle, CommitError> {
    let count = match u32::try_from(ops.len()) {
        Ok(0) => return Err(CommitError::Empty),
        Ok(count) if count <= MAX_COMMIT_LEN => count,
        _ => return Err(CommitError::TooLong(ops.len())),
    };
    for op in &ops {
        op.check()?;
    }
    let author_id = AuthorId(author.public());
    let timestamp = clock.next(wall, count);
    let leaves: Vec<Hash> = ops
        .iter()
        .enumerate()
        .map(|(index, op)| entry_hash(&replica, &author_id, Timestamp(timestamp.0 + index as u64), op))
        .collect();
    let root = merkle::root(&leaves);
    let signature = author.sign(&signed_bytes(&replica, &author_id, count, &root));
    let tree = PartialTree::whole(leaves);
    Ok(VerifiedBundle { replica, seal: Seal { author: author_id, timestamp, count, signature }, root, tree, ops })
}

/// Seals a changed bundle anew, as a dishonest author would: whatever its entries say. None where items and proof
/// do not fit together.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn reseal(replica: ReplicaId, author: &SecretKey, mut bundle: Bundle) -> Option<Bundle> {
    bundle.seal.author = AuthorId(author.public());
    let seal = bundle.seal;
    let leaf = |item: &Item| (item.index, entry_hash(&replica, &seal.author, seal.timestamp_of(item.index), &item.op));
    let leaves: Vec<_> = bundle.items.iter().map(leaf).collect();
    let root = merkle::root_of_part(seal.count, &leaves, &bundle.proof)?;
    bundle.seal.signature = author.sign(&signed_bytes(&replica, &seal.author, seal.count, &root));
    Some(bundle)
}

/// An entry with the seal that proves it, as a store gives it back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedEntry {
    /// The entry.
    pub entry: Entry,
    /// The entry's hash.
    pub hash: Hash,
    /// The index in its commit.
    pub index: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Key, Value};

    fn ops(count: usize) -> Vec<Op> {
        (0..count)
            .map(|n| Op::Put {
                key: Key::try_from(format!("key {n}").as_str()).unwrap(),
                value: Value::Inline(vec![n as u8; 9].into()),
            })
            .collect()
    }

    fn commit(count: usize) -> (ReplicaId, VerifiedBundle) {
        let key = SecretKey::from_bytes([1; 32]);
        let replica = ReplicaId(key.public());
        let bundle = sign_commit(replica, &key, &HybridClock::default(), Timestamp(1_000), ops(count)).unwrap();
        (replica, bundle)
    }

    #[test]
    fn a_commit_verifies_whole_and_in_part() {
        let (replica, whole) = commit(5);
        let bundle = whole.to_bundle();
        assert_eq!(bundle.clone().verify(replica, &mut Verifier::default()), Ok(whole.clone()));
        let part = Bundle {
            proof: whole.tree().prove(&[1, 4]),
            items: vec![bundle.items[1].clone(), bundle.items[4].clone()],
            ..bundle
        };
        let verified = part.verify(replica, &mut Verifier::default()).unwrap();
        assert_eq!(verified.root(), whole.root());
        let orders: Vec<_> = verified.entries().map(|entry| entry.order).collect();
        let whole: Vec<_> = whole.entries().map(|entry| entry.order).collect();
        assert_eq!(orders, [whole[1], whole[4]]);
    }

    #[test]
    fn what_was_changed_after_signing_is_refused() {
        let (replica, whole) = commit(3);
        let good = whole.to_bundle();
        let check = |change: &dyn Fn(&mut Bundle)| {
            let mut bundle = good.clone();
            change(&mut bundle);
            bundle.verify(replica, &mut Verifier::default()).map(|_| ())
        };
        assert_eq!(check(&|_| ()), Ok(()));
        assert_eq!(check(&|b| b.seal.timestamp.0 += 1), Err(VerifyError::Signature));
        assert_eq!(check(&|b| b.seal.count = 4), Err(VerifyError::Proof));
        assert_eq!(check(&|b| b.items.swap(0, 1)), Err(VerifyError::Proof));
        assert_eq!(check(&|b| b.items[0].op = ops(9)[8].clone()), Err(VerifyError::Signature));
        assert_eq!(check(&|b| b.seal.signature.0[3] ^= 1), Err(VerifyError::Signature));
        assert_eq!(check(&|b| b.seal.author = AuthorId::from([0; 32])), Err(VerifyError::Signature));
        assert_eq!(check(&|b| b.seal.timestamp.0 = u64::MAX), Err(VerifyError::Proof));
        let other = ReplicaId::from([9; 32]);
        assert_eq!(good.verify(other, &mut Verifier::default()), Err(VerifyError::Signature));
    }

    #[test]
    fn a_remembered_root_does_not_excuse_another_claim() {
        let (replica, whole) = commit(3);
        let mut verifier = Verifier::default();
        let mut bundle = whole.to_bundle();
        bundle.clone().verify(replica, &mut verifier).unwrap();
        bundle.seal.author = AuthorId::from([7; 32]);
        assert_eq!(bundle.verify(replica, &mut verifier), Err(VerifyError::Signature));
    }
}
